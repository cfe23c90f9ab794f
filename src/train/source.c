/* Text sources; see source.h. */
#include "train/source.h"

#include <jansson.h>
#include <string.h>

#include "base/hash.h"
#include "base/str.h"
#include "sys/file.h"
#include "sys/mapguard.h"

#define MAX_DEPTH 32    /* folders in folders */
#define MAX_TURNS 4096  /* messages of one conversation */

typedef struct reader {
    const char *name;
    uint32_t source;
    const qsi_source_opts *o;
    qsi_doc_fn *fn;
    void *user;
} reader;

static int64_t line_of(const char *data, size_t at) {
    int64_t line = 1;
    for (size_t i = 0; i < at; i++) line += data[i] == '\n';
    return line;
}

static bool is_space(char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; }

static bool all_space(const char *p, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (!is_space(p[i])) return false;
    return true;
}

/* ---- plain text ---- */

/* Where to cut a text of n > limit bytes: after the last blank line before the limit, else after
 * the last line's end, else between characters. Cuts in the first half are not taken. */
static size_t cut_at(const char *p, size_t limit) {
    for (size_t i = limit; i > limit / 2; i--)
        if (p[i - 1] == '\n' && i >= 2 && p[i - 2] == '\n') return i;
    for (size_t i = limit; i > limit / 2; i--)
        if (p[i - 1] == '\n') return i;
    size_t i = limit;
    while (i > 1 && ((unsigned char)p[i] & 0xC0) == 0x80) i--;
    return i;
}

static qs_status emit_text(const reader *r, const char *p, size_t n, int64_t line, qs_err *err) {
    qs_status st = QS_OK;
    size_t limit = (size_t)r->o->doc_bytes;
    bool first = true;
    if (all_space(p, n)) goto done;
    while (n > 0) {
        size_t k = n > limit ? cut_at(p, limit) : n;
        qsi_doc d = {.source = r->source, .text = p, .n = k, .first = first, .last = k == n,
                     .hash = qsi_hash(p, k), .file = r->name, .line = line};
        QS_TRY(r->fn(r->user, &d, err));
        line += line_of(p, k) - 1;
        first = false;
        p += k;
        n -= k;
    }
done:
    return st;
}

/* Length of the paragraph at p: up to the next blank line (or the end), which *skip covers too. */
static size_t paragraph(const char *p, size_t n, size_t *skip) {
    size_t i = 0, end = n;
    while (i < n) {
        const char *nl = memchr(p + i, '\n', n - i);
        size_t next = nl != NULL ? (size_t)(nl - p) + 1 : n;
        if (all_space(p + i, next - i)) {
            end = i;
            i = next;
            break;
        }
        i = next;
    }
    *skip = i;
    return end;
}

static qs_status parse_text(const reader *r, const char *p, size_t n, qs_err *err) {
    qs_status st = QS_OK;
    if (!r->o->split_blank) return emit_text(r, p, n, 1, err);
    int64_t line = 1;
    while (n > 0) {
        size_t skip = 0, k = paragraph(p, n, &skip);
        if (k > 0) QS_TRY(emit_text(r, p, k, line, err));
        line += line_of(p, skip) - 1;
        p += skip;
        n -= skip;
    }
done:
    return st;
}

/* ---- JSON lines ---- */

static qs_status parse_turn(const json_t *m, qsi_turn *t, qs_err *err) {
    qs_status st = QS_OK;
    const char *role = json_string_value(json_object_get(m, "role"));
    const json_t *content = json_object_get(m, "content");
    if (role == NULL || !json_is_string(content))
        QS_FAIL(err, QS_E_FORMAT, "a message needs \"role\" and \"content\", both strings");
    *t = (qsi_turn){.text = json_string_value(content), .n = json_string_length(content)};
    if (strcmp(role, "system") == 0) t->role = QSI_SYSTEM;
    else if (strcmp(role, "user") == 0) t->role = QSI_USER;
    else if (strcmp(role, "assistant") == 0) t->role = QSI_ASSISTANT;
    else QS_FAIL(err, QS_E_FORMAT, "role '%.40s' is none of system, user, assistant", role);
done:
    return st;
}

static qs_status emit_chat(const reader *r, const json_t *messages, int64_t line, qs_err *err) {
    qs_status st = QS_OK;
    size_t n = json_array_size(messages);
    qsi_turn *turns = NULL;
    if (n == 0 || n > MAX_TURNS)
        QS_FAIL(err, QS_E_FORMAT, "\"messages\" has %zu entries, wanted 1 to %d", n, MAX_TURNS);
    turns = qsi_calloc(n, sizeof(*turns));
    if (turns == NULL) QS_FAIL(err, QS_E_NOMEM, "out of memory for a conversation");
    uint64_t h = 1;
    for (size_t i = 0; i < n; i++) {
        QS_TRY(parse_turn(json_array_get(messages, i), &turns[i], err));
        h = qsi_hash_seed(turns[i].text, turns[i].n, h + (uint64_t)turns[i].role);
    }
    qsi_doc d = {.source = r->source, .turns = turns, .n_turns = n, .first = true, .last = true,
                 .hash = h, .file = r->name, .line = line};
    QS_TRY(r->fn(r->user, &d, err));
done:
    qsi_free(turns);
    return st;
}

static qs_status parse_json_line(const reader *r, const char *p, size_t n, int64_t line,
                                 qs_err *err) {
    qs_status st = QS_OK;
    json_error_t je;
    json_t *o = json_loadb(p, n, 0, &je);
    if (o == NULL) QS_FAIL(err, QS_E_FORMAT, "not JSON: %.160s (column %d)", je.text, je.column);
    if (!json_is_object(o)) QS_FAIL(err, QS_E_FORMAT, "not a JSON object");
    const json_t *text = json_object_get(o, "text"), *messages = json_object_get(o, "messages");
    if (json_is_string(text))
        QS_TRY(emit_text(r, json_string_value(text), json_string_length(text), line, err));
    else if (json_is_array(messages))
        QS_TRY(emit_chat(r, messages, line, err));
    else
        QS_FAIL(err, QS_E_FORMAT, "neither \"text\" (a string) nor \"messages\" (an array)");
done:
    json_decref(o);
    return st;
}

static qs_status parse_jsonl(const reader *r, const char *p, size_t n, qs_err *err) {
    qs_status st = QS_OK;
    int64_t line = 0;
    while (n > 0) {
        const char *nl = memchr(p, '\n', n);
        size_t k = nl != NULL ? (size_t)(nl - p) : n;
        line++;
        if (!all_space(p, k)) {
            st = parse_json_line(r, p, k, line, err);
            if (st == QS_E_FORMAT) qsi_err_prefix(err, "'%s' line %lld", r->name, (long long)line);
            if (st != QS_OK) goto done;
        }
        k += nl != NULL;
        p += k;
        n -= k;
    }
done:
    return st;
}

qs_status qsi_source_parse(const char *name, bool jsonl, const char *data, size_t n,
                           uint32_t source, const qsi_source_opts *o, qsi_doc_fn *fn, void *user,
                           qs_err *err) {
    const reader r = {.name = name, .source = source, .o = o, .fn = fn, .user = user};
    size_t bad = 0;
    if (n >= 3 && memcmp(data, "\xEF\xBB\xBF", 3) == 0) {
        data += 3;
        n -= 3;
    }
    if (n == 0) return QS_OK;
    if (!qsi_utf8_valid(data, n, &bad))
        return qsi_err_at(err, QS_E_FORMAT, (int64_t)bad,
                          "'%s' line %lld: byte 0x%02x is not UTF-8 (convert the file, for instance "
                          "with iconv)", name, (long long)line_of(data, bad),
                          (unsigned char)data[bad]);
    return jsonl ? parse_jsonl(&r, data, n, err) : parse_text(&r, data, n, err);
}

qs_status qsi_source_each(const qsi_source_files *f, const qsi_source_opts *o, qsi_doc_fn *fn,
                          void *user, qs_err *err) {
    qs_status st = QS_OK;
    for (size_t i = 0; i < f->n; i++) {
        qsi_map m = {.fd = -1};
        QS_TRY(qsi_map_open(&m, f->v[i].path, err));
        st = qsi_source_parse(f->v[i].path, qsi_ends_with(f->v[i].path, ".jsonl"),
                              (const char *)m.data, m.size, f->v[i].source, o, fn, user, err);
        qs_status whole = qsi_map_intact(m.data, err); /* says more than what zeros may have led to */
        if (whole != QS_OK) st = whole;
        qsi_map_close(&m);
        if (st != QS_OK) goto done;
    }
done:
    return st;
}

/* ---- finding the files ---- */

static qs_status add_file(qsi_source_files *f, const char *path, uint32_t source, qs_err *err) {
    qs_status st = QS_OK;
    qsi_map m = {.fd = -1};
    char *copy = qsi_strdup(path);
    if (copy == NULL || qsi_grow((void **)&f->v, &f->cap, f->n + 1, sizeof(*f->v)) != QS_OK)
        QS_FAIL(err, QS_E_NOMEM, "out of memory for the list of files");
    QS_TRY(qsi_map_open(&m, path, err));
    uint64_t kind = qsi_ends_with(path, ".jsonl") ? 1 : 0;
    f->hash = qsi_hash_seed(m.data != NULL ? m.data : (const uint8_t *)"", m.size,
                            f->hash * 31 + source * 2 + kind);
    f->bytes += (int64_t)m.size;
    st = qsi_map_intact(m.data, err);
    qsi_map_close(&m);
    QS_TRY(st);
    f->v[f->n++] = (qsi_source_file){copy, source};
    copy = NULL;
done:
    qsi_free(copy);
    return st;
}

static qs_status add_folder(qsi_source_files *f, const char *dir, uint32_t source, int depth,
                            qs_err *err) {
    qs_status st = QS_OK;
    char **names = NULL;
    size_t n = 0;
    qsi_str path = {0};
    if (depth > MAX_DEPTH)
        QS_FAIL(err, QS_E_LIMIT, "'%s': folders nested deeper than %d", dir, MAX_DEPTH);
    QS_TRY(qsi_dir_list(dir, &names, &n, err));
    for (size_t i = 0; i < n; i++) {
        qsi_str_clear(&path);
        QS_TRY(qsi_path_join(&path, dir, names[i]));
        if (qsi_path_is_loop(path.data)) continue;
        if (qsi_path_is_dir(path.data))
            QS_TRY(add_folder(f, path.data, source, depth + 1, err));
        else if (qsi_ends_with(names[i], ".txt") || qsi_ends_with(names[i], ".md") ||
                 qsi_ends_with(names[i], ".jsonl"))
            QS_TRY(add_file(f, path.data, source, err));
    }
done:
    for (size_t i = 0; i < n; i++) qsi_free(names[i]);
    qsi_free(names);
    qsi_str_release(&path);
    return st;
}

qs_status qsi_source_scan(qsi_source_files *f, const qsi_strlist *paths, qs_err *err) {
    qs_status st = QS_OK;
    *f = (qsi_source_files){0};
    for (size_t i = 0; i < paths->n; i++) {
        const char *p = paths->v[i];
        size_t had = f->n;
        if (!qsi_path_exists(p)) QS_FAIL(err, QS_E_IO, "'%s' does not exist", p);
        if (qsi_path_is_dir(p)) QS_TRY(add_folder(f, p, (uint32_t)i, 0, err));
        else QS_TRY(add_file(f, p, (uint32_t)i, err));
        if (f->n == had)
            QS_FAIL(err, QS_E_NOTFOUND, "'%s' holds no .txt, .md or .jsonl file", p);
    }
done:
    if (st != QS_OK) qsi_source_files_release(f);
    return st;
}

void qsi_source_files_release(qsi_source_files *f) {
    for (size_t i = 0; i < f->n; i++) qsi_free(f->v[i].path);
    qsi_free(f->v);
    *f = (qsi_source_files){0};
}
