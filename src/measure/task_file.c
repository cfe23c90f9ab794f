/* Benchmark files; see task_file.h. */
#include "measure/task_file.h"

#include <string.h>

#include "base/csv.h"
#include "base/hash.h"
#include "base/str.h"
#include "fmt/json.h"
#include "measure/task_answer.h"
#include "sys/file.h"

/* An array of objects is one JSON text: its size and number of values have limits of their own. */
#define ARRAY_LIMITS ((qsi_json_limits){ (size_t)64 << 20, (size_t)1 << 21 })
#define OBJECT_LIMITS ((qsi_json_limits){ QSI_TASK_MAX_ITEM, 4096 })

static const char *const task_names[] = { "", "mmlu", "ceval", "cmmlu", "hellaswag", "arc", "piqa",
                                          "gsm8k", "humaneval" };

const char *qsi_task_name(qsi_task t) { return task_names[t]; }

qsi_task qsi_task_find(const char *name) {
    for (size_t i = 1; i < QSI_COUNT(task_names); i++)
        if (strcmp(name, task_names[i]) == 0) return (qsi_task)i;
    return QSI_TASK_NONE;
}

bool qsi_task_has_choices(qsi_task t) { return t >= QSI_TASK_MMLU && t <= QSI_TASK_PIQA; }
bool qsi_task_asks_letter(qsi_task t) { return t >= QSI_TASK_MMLU && t <= QSI_TASK_CMMLU; }

static char lower(char c) { return c >= 'A' && c <= 'Z' ? (char)(c + 32) : c; }
static char upper(char c) { return c >= 'a' && c <= 'z' ? (char)(c - 32) : c; }
static bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

static bool same_word(const char *a, const char *b) {
    while (*a != '\0' && lower(*a) == lower(*b)) a++, b++;
    return lower(*a) == lower(*b);
}

static qs_status keep(qsi_task_file *f, const char *p, size_t n, const char **out, qs_err *err) {
    *out = qsi_arena_strndup(&f->arena, p, n);
    return *out ? QS_OK : qsi_err_set(err, QS_E_NOMEM, "out of memory for the items");
}

static qs_status new_item(qsi_task_file *f, int64_t line, qsi_task_item **out, qs_err *err) {
    if (qsi_grow((void **)&f->items, &f->cap, f->n + 1, sizeof *f->items) != QS_OK)
        return qsi_err_set(err, QS_E_NOMEM, "out of memory for the items");
    *out = &f->items[f->n++];
    **out = (qsi_task_item){ .line = line, .answer = -1 };
    return QS_OK;
}

/* "B", " b " or "1" (an index where numbers_from is 0 or more) as an index below n; -1: none. */
static int32_t index_of(const char *z, int32_t n, int numbers_from) {
    while (is_space(*z)) z++;
    size_t len = strlen(z);
    while (len > 0 && is_space(z[len - 1])) len--;
    int32_t i = -1;
    if (len == 1 && upper(*z) >= 'A' && upper(*z) <= 'Z') i = upper(*z) - 'A';
    else if (len == 1 && numbers_from >= 0 && *z >= '0' && *z <= '9') i = *z - '0' - numbers_from;
    return i >= 0 && i < n ? i : -1;
}

/* ---- JSON ------------------------------------------------------------------------------------- */

/* A member that is text, under one of two names (the second may be NULL). */
static qs_status get_text(qsi_task_file *f, const qsi_json *j, const char *key, const char *other,
                          const char **out, qs_err *err) {
    qs_status st = QS_OK;
    const char *z;
    if (other && qsi_json_get(j, key) == NULL) key = other;
    QS_TRY(qsi_json_str(j, key, &z, err));
    QS_TRY(keep(f, z, strlen(z), out, err));
done:
    return st;
}

static qs_status add_choice(qsi_task_file *f, qsi_task_item *it, const qsi_json *text, qs_err *err) {
    qs_status st = QS_OK;
    const char *z = qsi_json_as_str(text);
    if (z == NULL) QS_FAIL(err, QS_E_FORMAT, "choice %d is no text", (int)it->n_choices + 1);
    if (it->n_choices == QSI_TASK_MAX_CHOICES)
        QS_FAIL(err, QS_E_LIMIT, "more than %d choices", QSI_TASK_MAX_CHOICES);
    QS_TRY(keep(f, z, strlen(z), &it->choices[it->n_choices], err));
    it->n_choices++;
done:
    return st;
}

static qs_status add_choices(qsi_task_file *f, qsi_task_item *it, const qsi_json *list, qs_err *err) {
    qs_status st = QS_OK;
    for (size_t i = 0; i < qsi_json_size(list); i++)
        QS_TRY(add_choice(f, it, qsi_json_at(list, i), err));
    if (it->n_choices < 2) QS_FAIL(err, QS_E_FORMAT, "%d choices", (int)it->n_choices);
done:
    return st;
}

/* The right choice: an index, an index as text, or a letter. Missing, null, "" and -1: not known. */
static qs_status get_answer(qsi_task_item *it, const qsi_json *a, int numbers_from, qs_err *err) {
    int64_t i;
    const char *z = qsi_json_as_str(a);
    it->answer = -1;
    if (qsi_json_as_i64(a, &i)) {
        if (i == -1) return QS_OK;
        if (i >= 0 && i < it->n_choices) it->answer = (int32_t)i;
    } else if (z != NULL && *z != '\0') {
        it->answer = index_of(z, it->n_choices, numbers_from);
    } else if (z != NULL || a == NULL || qsi_json_kind_of(a) == QSI_JSON_NULL) {
        return QS_OK;
    }
    if (it->answer >= 0) return QS_OK;
    return qsi_err_set(err, QS_E_FORMAT, "the answer is none of the %d choices", (int)it->n_choices);
}

/* WikiHow's marks taken out, as those do who report figures: " [title]" ends a sentence, other brackets
 * go, two spaces become one. In place. */
static void clean(qsi_str *s) {
    static const char title[] = " [title]";
    char *w = s->data, *p = s->data;
    while (is_space(*p)) p++;
    char *end = s->data + s->len;
    while (end > p && is_space(end[-1])) end--;
    *end = '\0';
    while (*p != '\0') {
        char *close = *p == '[' ? p + strcspn(p, "]\n") : p;
        if (strncmp(p, title, sizeof title - 1) == 0) {
            *w++ = '.';
            *w++ = ' ';
            p += sizeof title - 1;
        } else if (*p == '[' && *close == ']') {
            p = close + 1;
        } else {
            *w++ = *p++;
        }
    }
    *w = '\0';
    for (w = p = s->data; *p != '\0'; p += p[0] == ' ' && p[1] == ' ' ? 2 : 1) *w++ = *p;
    *w = '\0';
    s->len = (size_t)(w - s->data);
}

/* Label, first and second half of the context, the second with a capital and small letters after it. */
static qs_status hellaswag_context(const qsi_json *j, qsi_str *s, qs_err *err) {
    qs_status st = QS_OK;
    const char *label = qsi_json_as_str(qsi_json_get(j, "activity_label"));
    const char *a = qsi_json_as_str(qsi_json_get(j, "ctx_a"));
    const char *b = qsi_json_as_str(qsi_json_get(j, "ctx_b"));
    bool halves = a != NULL && b != NULL;
    if (!halves) QS_TRY(qsi_json_str(j, "ctx", &a, err));
    if (label && (qsi_str_puts(s, label) != QS_OK || qsi_str_puts(s, ": ") != QS_OK)) goto nomem;
    if (qsi_str_puts(s, a) != QS_OK) goto nomem;
    if (halves) {
        if (qsi_str_putc(s, ' ') != QS_OK) goto nomem;
        for (size_t i = 0; b[i] != '\0'; i++)
            if (qsi_str_putc(s, i == 0 ? upper(b[i]) : lower(b[i])) != QS_OK) goto nomem;
    }
    clean(s);
done:
    return st;
nomem:
    st = qsi_err_set(err, QS_E_NOMEM, "out of memory for the items");
    goto done;
}

static qs_status read_hellaswag(qsi_task_file *f, const qsi_json *j, qsi_task_item *it, qs_err *err) {
    qs_status st = QS_OK;
    qsi_str s = { 0 };
    QS_TRY(hellaswag_context(j, &s, err));
    QS_TRY(keep(f, s.data, s.len, &it->question, err));
    QS_TRY(add_choices(f, it, qsi_json_get(j, "endings"), err));
    for (int32_t i = 0; i < it->n_choices; i++) {
        qsi_str_clear(&s);
        if (qsi_str_puts(&s, it->choices[i]) != QS_OK) QS_FAIL(err, QS_E_NOMEM, "out of memory");
        if (s.len > 0) clean(&s);
        QS_TRY(keep(f, s.data ? s.data : "", s.len, &it->choices[i], err));
    }
    QS_TRY(get_answer(it, qsi_json_get(j, "label"), 0, err));
done:
    qsi_str_release(&s);
    return st;
}

static qs_status read_piqa(qsi_task_file *f, const qsi_json *j, qsi_task_item *it, qs_err *err) {
    qs_status st = QS_OK;
    QS_TRY(get_text(f, j, "goal", NULL, &it->question, err));
    QS_TRY(add_choice(f, it, qsi_json_get(j, "sol1"), err));
    QS_TRY(add_choice(f, it, qsi_json_get(j, "sol2"), err));
    QS_TRY(get_answer(it, qsi_json_get(j, "label"), 0, err));
done:
    return st;
}

/* answerKey names a label, which may be a letter or a number. */
static qs_status find_key(qsi_task_item *it, const qsi_json *j, const char *const *labels,
                          qs_err *err) {
    const char *key = qsi_json_as_str(qsi_json_get(j, "answerKey"));
    if (key == NULL || *key == '\0') return QS_OK;
    for (int32_t i = 0; i < it->n_choices; i++)
        if (labels[i] && strcmp(labels[i], key) == 0) it->answer = i;
    if (it->answer >= 0) return QS_OK;
    return qsi_err_set(err, QS_E_FORMAT, "\"answerKey\" is none of the choices' labels");
}

static qs_status read_arc(qsi_task_file *f, const qsi_json *j, qsi_task_item *it, qs_err *err) {
    qs_status st = QS_OK;
    const char *labels[QSI_TASK_MAX_CHOICES] = { NULL };
    const qsi_json *q = qsi_json_get(j, "question"), *choices = qsi_json_get(j, "choices");
    if (qsi_json_kind_of(q) == QSI_JSON_OBJECT) {
        QS_TRY(get_text(f, q, "stem", NULL, &it->question, err));
        choices = qsi_json_get(q, "choices");
        for (size_t i = 0; i < qsi_json_size(choices); i++) {
            const qsi_json *c = qsi_json_at(choices, i);
            QS_TRY(add_choice(f, it, qsi_json_get(c, "text"), err));
            labels[i] = qsi_json_as_str(qsi_json_get(c, "label"));
        }
        if (it->n_choices < 2) QS_FAIL(err, QS_E_FORMAT, "%d choices", (int)it->n_choices);
    } else {
        QS_TRY(get_text(f, j, "question", NULL, &it->question, err));
        QS_TRY(add_choices(f, it, qsi_json_get(choices, "text"), err));
        for (int32_t i = 0; i < it->n_choices; i++)
            labels[i] = qsi_json_as_str(qsi_json_at(qsi_json_get(choices, "label"), (size_t)i));
    }
    QS_TRY(find_key(it, j, labels, err));
done:
    return st;
}

/* "question" with "choices" in a list, or with "A", "B", ... */
static qs_status read_letters(qsi_task_file *f, const qsi_json *j, qsi_task_item *it, qs_err *err) {
    qs_status st = QS_OK;
    const qsi_json *answer = qsi_json_get(j, "answer");
    if (answer == NULL) answer = qsi_json_get(j, "Answer");
    QS_TRY(get_text(f, j, "question", "Question", &it->question, err));
    if (qsi_json_kind_of(qsi_json_get(j, "choices")) == QSI_JSON_ARRAY) {
        QS_TRY(add_choices(f, it, qsi_json_get(j, "choices"), err));
    } else {
        for (char key[2] = "A"; key[0] <= 'Z' && qsi_json_get(j, key); key[0]++)
            QS_TRY(add_choice(f, it, qsi_json_get(j, key), err));
        if (it->n_choices < 2) QS_FAIL(err, QS_E_FORMAT, "%d choices", (int)it->n_choices);
    }
    if (qsi_json_get(j, "subject")) QS_TRY(get_text(f, j, "subject", NULL, &it->subject, err));
    QS_TRY(get_answer(it, answer, 0, err));
done:
    return st;
}

static qs_status read_gsm8k(qsi_task_file *f, const qsi_json *j, qsi_task_item *it, qs_err *err) {
    qs_status st = QS_OK;
    QS_TRY(get_text(f, j, "question", NULL, &it->question, err));
    QS_TRY(get_text(f, j, "answer", NULL, &it->solution, err));
    if (!qsi_solution_counts(it->solution))
        QS_FAIL(err, QS_E_FORMAT, "\"answer\" does not end with a line \"#### n\", n being a number");
done:
    return st;
}

static qs_status read_humaneval(qsi_task_file *f, const qsi_json *j, qsi_task_item *it, qs_err *err) {
    qs_status st = QS_OK;
    QS_TRY(get_text(f, j, "prompt", NULL, &it->question, err));
    QS_TRY(get_text(f, j, "canonical_solution", NULL, &it->solution, err));
    QS_TRY(get_text(f, j, "test", NULL, &it->test, err));
    QS_TRY(get_text(f, j, "entry_point", NULL, &it->entry, err));
done:
    return st;
}

typedef qs_status read_fn(qsi_task_file *f, const qsi_json *j, qsi_task_item *it, qs_err *err);

/* What an object is, by its keys; NULL: nothing of these. */
static read_fn *form_of(const qsi_json *j, qsi_task *task) {
    const qsi_json *question = qsi_json_get(j, "question"), *choices = qsi_json_get(j, "choices");
    const qsi_json *letter = qsi_json_get(j, "A");
    if (qsi_json_get(j, "endings")) return *task = QSI_TASK_HELLASWAG, read_hellaswag;
    if (qsi_json_get(j, "goal") && qsi_json_get(j, "sol1")) return *task = QSI_TASK_PIQA, read_piqa;
    if (qsi_json_get(j, "prompt") && qsi_json_get(j, "entry_point"))
        return *task = QSI_TASK_HUMANEVAL, read_humaneval;
    if (qsi_json_get(question, "stem") || qsi_json_get(choices, "text"))
        return *task = QSI_TASK_ARC, read_arc;
    if (question && qsi_json_kind_of(choices) == QSI_JSON_ARRAY)
        return *task = QSI_TASK_MMLU, read_letters;
    if (letter && qsi_json_get(j, "Question")) return *task = QSI_TASK_CMMLU, read_letters;
    if (letter && question)
        return *task = qsi_json_get(j, "id") ? QSI_TASK_CEVAL : QSI_TASK_MMLU, read_letters;
    if (question && qsi_json_get(j, "answer")) return *task = QSI_TASK_GSM8K, read_gsm8k;
    return NULL;
}

/* What a file of JSON objects is read by; found at the first. */
typedef struct objects {
    qsi_task_file *f;
    read_fn *read;
} objects;

static qs_status read_object(objects *o, const qsi_json *j, int64_t line, qs_err *err) {
    qs_status st = QS_OK;
    qsi_task_item *it;
    qsi_task task = QSI_TASK_NONE;
    read_fn *read = form_of(j, &task);
    if (o->read == NULL) { /* the first */
        if (read == NULL) QS_FAIL(err, QS_E_UNSUPPORTED, "of no known form");
        o->read = read;
        o->f->task = task;
    }
    if (read != o->read)
        QS_FAIL(err, QS_E_FORMAT, "not of the form of those before it (%s)",
                qsi_task_name(o->f->task));
    QS_TRY(new_item(o->f, line, &it, err));
    QS_TRY(o->read(o->f, j, it, err));
done:
    /* a key that is missing is wrong here, not a form that is unknown */
    if (st == QS_E_NOTFOUND) st = QS_E_FORMAT;
    return st;
}

static bool all_space(const char *p, size_t n) {
    while (n > 0 && is_space(*p)) p++, n--;
    return n == 0;
}

static qs_status parse_lines(objects *o, const char *p, size_t n, qs_err *err) {
    qs_status st = QS_OK;
    qsi_json *j = NULL;
    int64_t line = 0;
    while (n > 0) {
        const char *end = memchr(p, '\n', n);
        size_t k = end ? (size_t)(end - p) : n;
        line++;
        if (!all_space(p, k)) {
            st = qsi_json_parse(&j, p, k, OBJECT_LIMITS, err);
            if (st == QS_OK) st = read_object(o, j, line, err);
            qsi_json_free(&j);
            if (st != QS_OK) {
                qsi_err_prefix(err, "%s %lld", o->f->unit, (long long)line);
                goto done;
            }
        }
        k += end != NULL;
        p += k;
        n -= k;
    }
done:
    return st;
}

static qs_status parse_array(objects *o, const char *p, size_t n, qs_err *err) {
    qs_status st = QS_OK;
    qsi_json *j = NULL;
    o->f->unit = "element";
    QS_TRY(qsi_json_parse(&j, p, n, ARRAY_LIMITS, err));
    for (size_t i = 0; i < qsi_json_size(j); i++) {
        st = read_object(o, qsi_json_at(j, i), (int64_t)i + 1, err);
        if (st != QS_OK) {
            qsi_err_prefix(err, "%s %zu", o->f->unit, i + 1);
            goto done;
        }
    }
done:
    qsi_json_free(&j);
    return st;
}

/* ---- CSV -------------------------------------------------------------------------------------- */

/* Where the columns stand; the choices are `first`, first + 1, ... */
typedef struct columns {
    size_t question, first, n_choices, answer, n;
    bool has_answer;
} columns;

static bool find_column(const qsi_csv *c, const char *name, size_t *at) {
    for (size_t i = 0; i < c->n_fields; i++)
        if (same_word(qsi_csv_field(c, i), name)) return *at = i, true;
    return false;
}

/* The first row as a header, or as a row of MMLU. NONE: neither. */
static qsi_task csv_form(const qsi_csv *c, columns *k, bool *header) {
    size_t at;
    *k = (columns){ .n = c->n_fields };
    *header = find_column(c, "question", &k->question) && find_column(c, "AnswerKey", &k->answer);
    if (*header) return k->has_answer = true, QSI_TASK_ARC;
    *header = find_column(c, "question", &k->question) && find_column(c, "A", &k->first);
    if (*header) {
        for (char name[2] = "A"; name[0] <= 'Z' && find_column(c, name, &at); name[0]++) {
            if (at != k->first + k->n_choices) break;
            k->n_choices++;
        }
        k->has_answer = find_column(c, "answer", &k->answer);
        if (k->n_choices < 2) return QSI_TASK_NONE;
        if (qsi_csv_field(c, k->question)[0] == 'Q') return QSI_TASK_CMMLU;
        return find_column(c, "id", &at) ? QSI_TASK_CEVAL : QSI_TASK_MMLU;
    }
    if (c->n_fields < 4 || c->n_fields > QSI_TASK_MAX_CHOICES + 2) return QSI_TASK_NONE;
    k->first = 1;
    k->n_choices = c->n_fields - 2;
    k->answer = c->n_fields - 1;
    k->has_answer = true;
    return index_of(qsi_csv_field(c, k->answer), (int32_t)k->n_choices, -1) >= 0 ? QSI_TASK_MMLU
                                                                                  : QSI_TASK_NONE;
}

/* Where the choice of this letter or digit begins, "(A)" with a blank or an end on either side; NULL:
 * nowhere. */
static const char *find_label(const char *cell, const char *from, char label) {
    for (const char *p = strchr(from, '('); p != NULL; p = strchr(p + 1, '('))
        if (p[1] == label && p[2] == ')' && (p == cell || is_space(p[-1])) &&
            (p[3] == '\0' || is_space(p[3])))
            return p;
    return NULL;
}

static qs_status keep_trimmed(qsi_task_file *f, const char *p, const char *end, const char **out,
                              qs_err *err) {
    while (p < end && is_space(*p)) p++;
    while (end > p && is_space(end[-1])) end--;
    return keep(f, p, (size_t)(end - p), out, err);
}

/* A question and its choices in one cell: "Which? (A) this (B) that", or with (1), (2). The last "(A)"
 * that a "(B)" follows is the first choice: what stands before it is the question. */
static qs_status split_cell(qsi_task_file *f, const char *cell, char first, qsi_task_item *it,
                            qs_err *err) {
    qs_status st = QS_OK;
    const char *at = find_label(cell, cell, first), *again, *next;
    if (at == NULL || find_label(cell, at, (char)(first + 1)) == NULL) goto done;
    while ((again = find_label(cell, at + 1, first)) != NULL &&
           find_label(cell, again, (char)(first + 1)) != NULL)
        at = again;
    QS_TRY(keep_trimmed(f, cell, at, &it->question, err));
    for (; at != NULL; at = next) {
        int32_t most = first == '1' ? 9 : QSI_TASK_MAX_CHOICES;
        next = it->n_choices + 1 < most ? find_label(cell, at, (char)(first + it->n_choices + 1)) : NULL;
        QS_TRY(keep_trimmed(f, at + 3, next ? next : at + strlen(at), &it->choices[it->n_choices], err));
        it->n_choices++;
    }
done:
    return st;
}

/* ARC's tables: labels are letters, or digits in some exams. */
static qs_status read_arc_row(qsi_task_file *f, const qsi_csv *c, const columns *k, qsi_task_item *it,
                              qs_err *err) {
    qs_status st = QS_OK;
    const char *cell = qsi_csv_field(c, k->question), *key = qsi_csv_field(c, k->answer);
    char first = 'A';
    QS_TRY(split_cell(f, cell, first, it, err));
    if (it->n_choices == 0) QS_TRY(split_cell(f, cell, first = '1', it, err));
    if (it->n_choices == 0)
        QS_FAIL(err, QS_E_FORMAT, "line %lld: no choices (A), (B) or (1), (2) stand behind the question",
                (long long)c->line);
    if (key[0] != '\0' && key[1] == '\0' && key[0] >= first && key[0] - first < it->n_choices)
        it->answer = key[0] - first;
    else if (key[0] != '\0')
        QS_FAIL(err, QS_E_FORMAT, "line %lld: the answer is '%.20s', wanted %c to %c",
                (long long)c->line, key, first, (char)(first + it->n_choices - 1));
done:
    return st;
}

static qs_status read_row(qsi_task_file *f, const qsi_csv *c, const columns *k, qs_err *err) {
    qs_status st = QS_OK;
    qsi_task_item *it;
    if (c->n_fields != k->n)
        QS_FAIL(err, QS_E_FORMAT, "line %lld: %zu fields, where the first row has %zu",
                (long long)c->line, c->n_fields, k->n);
    QS_TRY(new_item(f, c->line, &it, err));
    if (f->task == QSI_TASK_ARC) {
        QS_TRY(read_arc_row(f, c, k, it, err));
        goto done;
    }
    const char *z = qsi_csv_field(c, k->question);
    QS_TRY(keep(f, z, strlen(z), &it->question, err));
    for (size_t i = 0; i < k->n_choices; i++) {
        z = qsi_csv_field(c, k->first + i);
        QS_TRY(keep(f, z, strlen(z), &it->choices[i], err));
    }
    it->n_choices = (int32_t)k->n_choices;
    z = k->has_answer ? qsi_csv_field(c, k->answer) : "";
    it->answer = index_of(z, it->n_choices, -1);
    if (it->answer < 0 && *z != '\0')
        QS_FAIL(err, QS_E_FORMAT, "line %lld: the answer is '%.20s', wanted A to %c",
                (long long)c->line, z, (char)('A' + it->n_choices - 1));
done:
    return st;
}

static qs_status parse_csv(qsi_task_file *f, const char *p, size_t n, qs_err *err) {
    qs_status st = QS_OK;
    qsi_csv c;
    columns k;
    bool more, header;
    qsi_csv_init(&c, p, n, ',');
    QS_TRY(qsi_csv_next(&c, &more, err));
    f->task = more ? csv_form(&c, &k, &header) : QSI_TASK_NONE;
    if (f->task == QSI_TASK_NONE) QS_FAIL(err, QS_E_UNSUPPORTED, "of no known form");
    if (!header) QS_TRY(read_row(f, &c, &k, err));
    for (;;) {
        QS_TRY(qsi_csv_next(&c, &more, err));
        if (!more) break;
        QS_TRY(read_row(f, &c, &k, err));
    }
done:
    qsi_csv_release(&c);
    return st;
}

/* ---- files ------------------------------------------------------------------------------------ */

bool qsi_task_is_data(const char *path) {
    return qsi_ends_with(path, ".csv") || qsi_ends_with(path, ".json") ||
           qsi_ends_with(path, ".jsonl");
}

static const char *base_name(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* Length of a name without its ending and the split's name behind a '_', '-' or '.'. */
size_t qsi_task_subject_len(const char *name) {
    static const char *const splits[] = { "test", "val", "valid", "validation", "dev", "train" };
    const char *dot = strrchr(name, '.');
    size_t n = dot && dot > name ? (size_t)(dot - name) : strlen(name);
    for (size_t i = 0; i < QSI_COUNT(splits); i++) {
        size_t k = strlen(splits[i]);
        if (n > k + 1 && memcmp(name + n - k, splits[i], k) == 0 && strchr("_-.", name[n - k - 1]))
            return n - k - 1;
    }
    return n;
}

static qs_status name_file(qsi_task_file *f, const char *path, qs_err *err) {
    const char *name = base_name(path);
    size_t n = qsi_task_subject_len(name);
    f->path = qsi_strdup(path);
    f->subject = qsi_strdup(name);
    if (!f->path || !f->subject) return qsi_err_set(err, QS_E_NOMEM, "out of memory");
    f->subject[n] = '\0';
    return QS_OK;
}

static qs_status parse(qsi_task_file *f, const char *text, size_t n, qs_err *err) {
    objects o = { .f = f };
    size_t i = n >= 3 && memcmp(text, "\xEF\xBB\xBF", 3) == 0 ? 3 : 0;
    size_t start = i;
    f->unit = "line";
    if (n >= 2 && memcmp(text, "\x1F\x8B", 2) == 0)
        return qsi_err_set(err, QS_E_FORMAT, "it is compressed (gzip): unpack it with gunzip");
    if (all_space(text + i, n - i)) return qsi_err_set(err, QS_E_FORMAT, "the file is empty");
    while (i < n && is_space(text[i])) i++;
    if (i < n && text[i] == '[') return parse_array(&o, text + i, n - i, err);
    if (i < n && text[i] == '{') return parse_lines(&o, text + start, n - start, err);
    return parse_csv(f, text, n, err);
}

qs_status qsi_task_parse(qsi_task_file *f, const char *path, const char *text, size_t n,
                         qs_err *err) {
    qs_status st = QS_OK;
    *f = (qsi_task_file){ 0 };
    qsi_arena_init(&f->arena);
    QS_TRY(name_file(f, path, err));
    f->hash = qsi_hash(text, n);
    st = parse(f, text, n, err);
    if (st == QS_OK && f->n == 0) st = qsi_err_set(err, QS_E_FORMAT, "it holds no item");
    if (st != QS_OK) qsi_err_prefix(err, "'%s'", path);
done:
    if (st != QS_OK) qsi_task_release(f);
    return st;
}

qs_status qsi_task_labels(qsi_task_file *f, const char *path, const char *text, size_t n,
                          qs_err *err) {
    qs_status st = QS_OK;
    size_t i = 0, at = 0;
    while (at < n) {
        const char *end = memchr(text + at, '\n', n - at);
        size_t k = end ? (size_t)(end - text) - at : n - at;
        while (k > 0 && is_space(text[at + k - 1])) k--;
        if (k > 0) {
            if (k != 1 || text[at] < '0' || text[at] > '9')
                QS_FAIL(err, QS_E_FORMAT, "'%s' line %zu: a label is the number of a choice, from 0",
                        path, i + 1);
            int32_t label = text[at] - '0';
            if (i >= f->n || label >= f->items[i].n_choices)
                QS_FAIL(err, QS_E_FORMAT, "'%s' line %zu: label %d, but '%s' has %zu items of %d "
                        "choices", path, i + 1, (int)label, f->path, f->n,
                        (int)f->items[0].n_choices);
            f->items[i++].answer = label;
        }
        at = end ? (size_t)(end - text) + 1 : n;
    }
    if (i != f->n)
        QS_FAIL(err, QS_E_FORMAT, "'%s' has %zu labels, '%s' %zu items", path, i, f->path, f->n);
    f->hash = qsi_hash_seed(text, n, f->hash);
done:
    return st;
}

/* Appends "DIR/X-labels.lst" for "DIR/X.jsonl". */
static qs_status labels_beside(const char *path, qsi_str *out) {
    const char *dot = strrchr(base_name(path), '.');
    qs_status st = qsi_str_append(out, path, dot ? (size_t)(dot - path) : strlen(path));
    return st == QS_OK ? qsi_str_puts(out, "-labels.lst") : st;
}

qs_status qsi_task_load(qsi_task_file *f, const char *path, const char *labels, qs_err *err) {
    qs_status st = QS_OK;
    qsi_str text = { 0 }, beside = { 0 };
    *f = (qsi_task_file){ 0 };
    QS_TRY(qsi_file_read(path, QSI_TASK_MAX_BYTES, &text, err));
    QS_TRY(qsi_task_parse(f, path, text.data ? text.data : "", text.len, err));
    if (labels == NULL && f->task == QSI_TASK_PIQA && f->items[0].answer < 0) {
        if (labels_beside(path, &beside) != QS_OK) QS_FAIL(err, QS_E_NOMEM, "out of memory");
        if (qsi_path_exists(beside.data)) labels = beside.data;
    }
    if (labels != NULL) {
        qsi_str_clear(&text);
        QS_TRY(qsi_file_read(labels, QSI_TASK_MAX_BYTES, &text, err));
        QS_TRY(qsi_task_labels(f, labels, text.data ? text.data : "", text.len, err));
    }
done:
    if (st != QS_OK) qsi_task_release(f);
    qsi_str_release(&text);
    qsi_str_release(&beside);
    return st;
}

void qsi_task_release(qsi_task_file *f) {
    qsi_free(f->path);
    qsi_free(f->subject);
    qsi_free(f->items);
    qsi_arena_release(&f->arena);
    *f = (qsi_task_file){ 0 };
}
