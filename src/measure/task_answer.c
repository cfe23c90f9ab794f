/* Numbers and programs in generated answers; see task_answer.h. */
#include "measure/task_answer.h"

#include <string.h>

#include "fmt/gguf.h" /* qsi_slice */

static const char mark[] = "#### ";

static bool is_digit(char c) { return c >= '0' && c <= '9'; }
static bool is_part(char c) { return c != '\0' && strchr("$0123456789.,", c) != NULL; }

/* A number that begins at p: a sign and at least two of digits, dollar signs, points and commas, or a
 * sign and digits. Returns its length; 0: none begins here. */
static size_t number_len(const char *p) {
    size_t sign = *p == '-', n = sign;
    while (is_part(p[n])) n++;
    if (n - sign >= 2) return n;
    n = sign;
    while (is_digit(p[n])) n++;
    return n > sign ? n : 0;
}

static qsi_slice last_number(const char *z) {
    qsi_slice found = { NULL, 0 };
    while (*z != '\0') {
        size_t n = number_len(z);
        if (n > 0) found = (qsi_slice){ z, n };
        z += n > 0 ? n : 1;
    }
    return found;
}

/* After the first mark that a number follows. */
static qsi_slice marked_number(const char *z) {
    while ((z = strstr(z, mark)) != NULL) {
        z += sizeof mark - 1;
        size_t n = *z == '-';
        while (is_digit(z[n]) || z[n] == '.' || z[n] == ',') n++;
        if (n > (size_t)(*z == '-')) return (qsi_slice){ z, n };
    }
    return (qsi_slice){ NULL, 0 };
}

/* Without commas and dollar signs, then without a point at the end. */
static qs_status plain(qsi_str *out, qsi_slice s) {
    qs_status st = QS_OK;
    for (size_t i = 0; st == QS_OK && i < s.n; i++)
        if (s.p[i] != ',' && s.p[i] != '$') st = qsi_str_putc(out, s.p[i]);
    if (out->len > 0 && out->data[out->len - 1] == '.') out->data[--out->len] = '\0';
    return st;
}

/* What follows the last mark of a solution. */
static qsi_slice truth(const char *solution) {
    for (const char *p = solution; (p = strstr(p, mark)) != NULL;) solution = p += sizeof mark - 1;
    size_t n = strlen(solution);
    while (n > 0 && strchr(" \t\r\n", solution[n - 1]) != NULL) n--;
    return (qsi_slice){ solution, n };
}

bool qsi_solution_counts(const char *solution) {
    qsi_slice s = truth(solution);
    size_t digits = 0;
    for (size_t i = 0; i < s.n; i++) digits += is_digit(s.p[i]);
    return strstr(solution, mark) != NULL && digits > 0 && number_len(s.p) == s.n;
}

qs_status qsi_answer_number(const char *answer, const char *solution, bool strict, bool *right,
                            qs_err *err) {
    qs_status st = QS_OK;
    qsi_str got = { 0 }, want = { 0 };
    qsi_slice number = strict ? marked_number(answer) : last_number(answer);
    bool same = false;
    if (number.p != NULL) {
        if (plain(&got, number) != QS_OK || plain(&want, truth(solution)) != QS_OK)
            QS_FAIL(err, QS_E_NOMEM, "out of memory for an answer");
        same = got.len > 0 && got.len == want.len && memcmp(got.data, want.data, got.len) == 0;
    }
    *right = same;
done:
    qsi_str_release(&got);
    qsi_str_release(&want);
    return st;
}

/* ---- programs --------------------------------------------------------------------------------- */

/* True when the n bytes at p hold "def NAME(". */
static bool defines(const char *p, size_t n, const char *name) {
    size_t k = strlen(name);
    for (size_t i = 0; i + 5 + k <= n; i++)
        if (memcmp(p + i, "def ", 4) == 0 && memcmp(p + i + 4, name, k) == 0 && p[i + 4 + k] == '(')
            return true;
    return false;
}

/* The inside of the first ``` block that defines the function. */
static qsi_slice code_block(const char *text, const char *name) {
    for (const char *p = text; (p = strstr(p, "```")) != NULL;) {
        const char *begin = strchr(p, '\n');
        if (begin == NULL) break;
        const char *end = strstr(++begin, "\n```");
        size_t n = end ? (size_t)(end - begin) : strlen(begin);
        if (defines(begin, n, name)) return (qsi_slice){ begin, n };
        if (end == NULL) break;
        p = end + 4;
    }
    return (qsi_slice){ NULL, 0 };
}

qs_status qsi_answer_program(qsi_str *out, const qsi_task_item *it, const char *completion, bool fenced,
                             qs_err *err) {
    qs_status st = QS_OK;
    qsi_slice code = { completion, strlen(completion) };
    qsi_slice block = fenced ? code_block(completion, it->entry) : (qsi_slice){ NULL, 0 };
    if (block.p) code = block;
    /* the prompt brings imports and helpers; a whole function after it takes its place */
    bool whole = block.p != NULL || (fenced && defines(code.p, code.n, it->entry));
    QS_TRY(qsi_str_puts(out, it->question));
    if (whole) QS_TRY(qsi_str_puts(out, "\n    pass\n\n"));
    QS_TRY(qsi_str_append(out, code.p, code.n));
    QS_TRY(qsi_str_putc(out, '\n'));
    QS_TRY(qsi_str_puts(out, it->test));
    QS_TRY(qsi_str_printf(out, "\ncheck(%s)\n", it->entry));
done:
    if (st != QS_OK) st = qsi_err_set(err, QS_E_NOMEM, "out of memory for a program");
    return st;
}
