/* The expressions are the user's own, not a file's: regcomp may take the time they ask for. */
#include "files/type_rules.h"

#include <regex.h>
#include <string.h>

#include "base/mem.h"

typedef struct rule {
    regex_t pattern;
    char *text; /* owned */
    qsi_type type;
} rule;

struct qsi_type_rules {
    rule *rules;
    size_t n; /* compiled ones */
};

static qs_status add(qsi_type_rules *r, const char *text, qs_err *err) {
    qs_status st = QS_OK;
    const char *type = strrchr(text, '=');
    char *pattern = NULL;
    if (type == NULL || type == text)
        QS_FAIL(err, QS_E_ARG, "'%.80s' is no PATTERN=TYPE", text);
    const qsi_type_info *ti = qsi_type_find(type + 1);
    if (ti == NULL || !ti->weights)
        QS_FAIL(err, QS_E_ARG, "'%.80s': no type for weights is called '%.40s'", text, type + 1);
    pattern = qsi_strdup(text);
    if (pattern == NULL) QS_FAIL(err, QS_E_NOMEM, "out of memory");
    pattern[type - text] = '\0';
    int rc = regcomp(&r->rules[r->n].pattern, pattern, REG_EXTENDED | REG_NOSUB);
    if (rc != 0) {
        char why[120] = "";
        (void)regerror(rc, &r->rules[r->n].pattern, why, sizeof why);
        QS_FAIL(err, QS_E_ARG, "'%.80s' is no regular expression: %s", pattern, why);
    }
    r->rules[r->n].text = pattern;
    r->rules[r->n++].type = ti->type;
    pattern = NULL;
done:
    qsi_free(pattern);
    return st;
}

qs_status qsi_type_rules_create(qsi_type_rules **out, const char *const *texts, size_t n,
                                qs_err *err) {
    qs_status st = QS_OK;
    qsi_type_rules *r = qsi_calloc(1, sizeof *r);
    if (r == NULL) QS_FAIL(err, QS_E_NOMEM, "out of memory");
    r->rules = qsi_calloc(n, sizeof *r->rules);
    if (r->rules == NULL) QS_FAIL(err, QS_E_NOMEM, "out of memory");
    for (size_t i = 0; i < n; i++) QS_TRY(add(r, texts[i], err));
    *out = r;
    r = NULL;
done:
    qsi_type_rules_free(r);
    return st;
}

void qsi_type_rules_free(qsi_type_rules *r) {
    if (r == NULL) return;
    for (size_t i = 0; i < r->n; i++) {
        regfree(&r->rules[i].pattern);
        qsi_free(r->rules[i].text);
    }
    qsi_free(r->rules);
    qsi_free(r);
}

static bool is_found(const rule *r, const char *name) {
    return regexec(&r->pattern, name, 0, NULL, 0) == 0;
}

bool qsi_type_rules_find(const qsi_type_rules *r, const char *name, qsi_type *out) {
    for (size_t i = 0; r != NULL && i < r->n; i++) {
        if (!is_found(&r->rules[i], name)) continue;
        *out = r->rules[i].type;
        return true;
    }
    return false;
}

const char *qsi_type_rules_idle(const qsi_type_rules *r, const char *const *names, size_t n) {
    for (size_t i = 0; r != NULL && i < r->n; i++) {
        size_t k = 0;
        while (k < n && !is_found(&r->rules[i], names[k])) k++;
        if (k == n) return r->rules[i].text;
    }
    return NULL;
}
