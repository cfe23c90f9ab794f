/* The configuration of a training run; see trainconf.h. Owns the table of keys, the parser and the
 * presets. One row of the table is the only place where a key is named. */
#include "train/trainconf.h"

#include <math.h>
#include <string.h>

typedef enum key_kind { K_STR, K_LIST, K_INT, K_NUM, K_BOOL, K_CHOICE } key_kind;

typedef struct key_row {
    const char *section, *key;
    key_kind kind;
    bool identity;       /* decides the weights */
    size_t offset;       /* of the field */
    double min, max;     /* K_INT, K_NUM */
    const char *choices; /* K_CHOICE: "a|b|c" */
    bool if_given;       /* in the identity only where given: older runs do not know the key */
} key_row;

#define AT(f) offsetof(qsi_trainconf, f)
#define BIG 1e18

static const key_row rows[] = {
    {"run", "out", K_STR, false, AT(out), 0, 0, NULL},
    {"run", "seed", K_INT, true, AT(seed), 0, 9e15, NULL},
    {"run", "threads", K_INT, false, AT(threads), 0, 4096, NULL},
    {"data", "train", K_LIST, false, AT(train), 0, 0, NULL},
    {"data", "valid", K_LIST, false, AT(valid), 0, 0, NULL},
    {"data", "weights", K_LIST, true, AT(weights), 0, 0, NULL},
    {"data", "valid_share", K_NUM, true, AT(valid_share), 0, 0.5, NULL},
    {"data", "doc_bytes", K_INT, true, AT(doc_bytes), 64, 1e9, NULL},
    {"data", "split", K_CHOICE, true, AT(split), 0, 0, "file|blank"},
    {"tokenizer", "vocab", K_STR, false, AT(vocab), 0, 0, NULL},
    {"tokenizer", "pre", K_STR, true, AT(pre), 0, 0, NULL},
    {"tokenizer", "size", K_INT, true, AT(vocab_size), 258, 1048576, NULL},
    {"tokenizer", "sample_bytes", K_INT, true, AT(sample_bytes), 1000, BIG, NULL},
    {"model", "preset", K_STR, false, AT(preset), 0, 0, NULL},
    {"model", "init", K_STR, false, AT(init), 0, 0, NULL},
    {"model", "arch", K_CHOICE, true, AT(arch), 0, 0, "deepseek|llama"},
    {"model", "context", K_INT, true, AT(n_ctx), 8, 1048576, NULL},
    {"model", "layers", K_INT, true, AT(n_layer), 1, 1024, NULL},
    {"model", "d_model", K_INT, true, AT(d_model), 8, 65536, NULL},
    {"model", "heads", K_INT, true, AT(n_head), 1, 1024, NULL},
    {"model", "kv_heads", K_INT, true, AT(n_kv_head), 1, 1024, NULL},
    {"model", "head_dim", K_INT, true, AT(head_dim), 2, 1024, NULL},
    {"model", "d_ff", K_INT, true, AT(d_ff), 8, 1048576, NULL},
    {"model", "dense_layers", K_INT, true, AT(n_dense), 0, 1024, NULL},
    {"model", "experts", K_INT, true, AT(n_expert), 0, 4096, NULL},
    {"model", "experts_used", K_INT, true, AT(n_expert_used), 0, 256, NULL},
    {"model", "shared_experts", K_INT, true, AT(n_shared), 0, 64, NULL},
    {"model", "expert_ff", K_INT, true, AT(d_expert), 0, 1048576, NULL},
    {"model", "norm_topk", K_BOOL, true, AT(norm_topk), 0, 0, NULL},
    {"model", "expert_scale", K_NUM, true, AT(expert_scale), 1e-6, 1000, NULL},
    {"model", "rms_eps", K_NUM, true, AT(rms_eps), 1e-12, 0.1, NULL},
    {"model", "rope_theta", K_NUM, true, AT(rope_theta), 1, 1e9, NULL},
    {"model", "rope_scaling", K_CHOICE, true, AT(rope_scaling), 0, 0, "auto|none|linear|yarn", true},
    {"model", "init_std", K_NUM, true, AT(init_std), 1e-6, 1, NULL},
    {"train", "steps", K_INT, false, AT(steps), 1, BIG, NULL},
    {"train", "tokens", K_INT, false, AT(tokens), 1, BIG, NULL},
    {"train", "hours", K_NUM, false, AT(hours), 1e-4, 1e6, NULL},
    {"train", "batch_tokens", K_INT, true, AT(batch_tokens), 8, 1e9, NULL},
    {"train", "micro_tokens", K_INT, true, AT(micro_tokens), 8, 1e7, NULL},
    {"train", "precision", K_CHOICE, true, AT(precision), 0, 0, "auto|bf16|f32"},
    {"train", "schedule", K_CHOICE, true, AT(schedule), 0, 0, "multi-step|cosine|constant"},
    {"train", "stages", K_STR, true, AT(stages), 0, 0, NULL},
    {"train", "lr", K_NUM, true, AT(lr), 1e-9, 10, NULL},
    {"train", "min_lr_ratio", K_NUM, true, AT(min_lr_ratio), 0, 1, NULL},
    {"train", "warmup_steps", K_INT, false, AT(warmup_steps), 0, BIG, NULL},
    {"train", "beta1", K_NUM, true, AT(beta1), 0, 0.99999, NULL},
    {"train", "beta2", K_NUM, true, AT(beta2), 0, 0.99999999, NULL},
    {"train", "eps", K_NUM, true, AT(eps), 1e-20, 1, NULL},
    {"train", "weight_decay", K_NUM, true, AT(decay), 0, 10, NULL},
    {"train", "clip", K_NUM, true, AT(clip), 0, 1e9, NULL},
    {"train", "balance_alpha", K_NUM, true, AT(balance_alpha), 0, 10, NULL},
    {"train", "balance_per", K_CHOICE, true, AT(balance_per), 0, 0, "sequence|batch"},
    {"checkpoint", "every_steps", K_INT, false, AT(ckpt_steps), 1, BIG, NULL},
    {"checkpoint", "every_seconds", K_NUM, false, AT(ckpt_seconds), 0.001, 1e9, NULL},
    {"checkpoint", "keep", K_INT, false, AT(keep), 1, 1000, NULL},
    {"valid", "every_steps", K_INT, false, AT(valid_steps), 1, BIG, NULL},
    {"valid", "max_tokens", K_INT, false, AT(valid_tokens), 1, BIG, NULL},
    {"sample", "prompt", K_LIST, false, AT(prompts), 0, 0, NULL},
    {"sample", "every_steps", K_INT, false, AT(sample_steps), 1, BIG, NULL},
    {"sample", "max_tokens", K_INT, false, AT(sample_tokens), 1, 100000, NULL},
    {"sample", "temperature", K_NUM, false, AT(sample_temp), 0, 10, NULL},
    {"output", "type", K_STR, false, AT(type), 0, 0, NULL},
    {"output", "chat_template", K_STR, false, AT(chat_template), 0, 0, NULL},
};
_Static_assert(QSI_COUNT(rows) <= 64, "one bit of `given` a row");

void qsi_trainconf_init(qsi_trainconf *c) {
    *c = (qsi_trainconf){
        .seed = 1, .valid_share = 0.02, .doc_bytes = QSI_AUTO, .split = "file",
        .pre = "deepseek-llm", .vocab_size = QSI_AUTO, .sample_bytes = 64000000,
        .preset = NULL, .arch = "deepseek", .n_ctx = QSI_AUTO, .n_layer = QSI_AUTO,
        .d_model = QSI_AUTO, .n_head = QSI_AUTO, .n_kv_head = QSI_AUTO, .head_dim = QSI_AUTO,
        .d_ff = QSI_AUTO, .n_dense = QSI_AUTO, .n_expert = QSI_AUTO, .n_expert_used = QSI_AUTO,
        .n_shared = QSI_AUTO, .d_expert = QSI_AUTO, .norm_topk = false, .expert_scale = 1,
        .rms_eps = 1e-6, .rope_theta = 10000, .init_std = QSI_AUTO, .steps = QSI_AUTO,
        .tokens = QSI_AUTO, .hours = QSI_AUTO, .batch_tokens = QSI_AUTO, .micro_tokens = QSI_AUTO,
        .precision = "auto", .schedule = "multi-step", .stages = "0.8:0.316, 0.9:0.1",
        .balance_per = "sequence", .lr = QSI_AUTO, .min_lr_ratio = 0.1, .warmup_steps = QSI_AUTO,
        .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .decay = 0.1, .clip = 1, .balance_alpha = 0.01,
        .ckpt_steps = QSI_AUTO, .keep = 2, .ckpt_seconds = QSI_AUTO, .valid_steps = QSI_AUTO,
        .valid_tokens = 65536, .sample_steps = QSI_AUTO, .sample_tokens = 64, .sample_temp = 0.7,
        .type = "F16", .chat_template = "auto", .rope_scaling = "auto"};
    qsi_arena_init(&c->arena);
}

void qsi_trainconf_release(qsi_trainconf *c) {
    qsi_strlist *lists[] = {&c->train, &c->valid, &c->weights, &c->prompts, &c->meta_keys,
                            &c->meta_values};
    for (size_t i = 0; i < QSI_COUNT(lists); i++) qsi_free(lists[i]->v);
    qsi_arena_release(&c->arena);
    memset(c, 0, sizeof(*c));
}

bool qsi_parse_number(const char *s, double *out) {
    char buf[64];
    size_t n = 0;
    for (; *s != '\0'; s++) {
        if (*s == '_') continue;
        if (n + 1 >= sizeof(buf)) return false;
        buf[n++] = *s;
    }
    if (n == 0) return false;
    double f = 1;
    if (buf[n - 1] == 'k' || buf[n - 1] == 'K') f = 1e3;
    if (buf[n - 1] == 'M') f = 1e6;
    if (buf[n - 1] == 'G') f = 1e9;
    if (f > 1) n--;
    buf[n] = '\0';
    if (n == 0 || strspn(buf, "0123456789.eE+-") != n) return false;
    char *end = NULL;
    double v = strtod(buf, &end) * f;
    if (*end != '\0' || end == buf || !isfinite(v)) return false;
    *out = v;
    return true;
}

/* ---- finding keys ---- */

/* Letters to change, insert or delete to get from a to b, at most 31 letters each. */
static int edit_distance(const char *a, const char *b) {
    int d[32][32];
    int na = (int)strlen(a), nb = (int)strlen(b);
    if (na > 31 || nb > 31) return 100;
    for (int i = 0; i <= na; i++) d[i][0] = i;
    for (int j = 0; j <= nb; j++) d[0][j] = j;
    for (int i = 1; i <= na; i++)
        for (int j = 1; j <= nb; j++) {
            int best = d[i - 1][j - 1] + (a[i - 1] != b[j - 1]);
            if (d[i - 1][j] + 1 < best) best = d[i - 1][j] + 1;
            if (d[i][j - 1] + 1 < best) best = d[i][j - 1] + 1;
            d[i][j] = best;
        }
    return d[na][nb];
}

static const key_row *find_row(const char *section, const char *key) {
    for (size_t i = 0; i < QSI_COUNT(rows); i++)
        if (strcmp(rows[i].section, section) == 0 && strcmp(rows[i].key, key) == 0) return &rows[i];
    return NULL;
}

/* What other programs call some of the keys. */
static const struct {
    const char *other, *section, *key;
} other_names[] = {
    {"learning_rate", "train", "lr"}, {"batch_size", "train", "batch_tokens"},
    {"max_steps", "train", "steps"}, {"grad_clip", "train", "clip"},
    {"warmup", "train", "warmup_steps"}, {"n_layer", "model", "layers"},
    {"n_head", "model", "heads"}, {"n_embd", "model", "d_model"}, {"hidden_size", "model", "d_model"},
    {"n_ctx", "model", "context"}, {"block_size", "model", "context"},
    {"vocab_size", "tokenizer", "size"}, {"output_dir", "run", "out"},
};

/* The known key nearest to an unknown one; a right key in a wrong section counts as near. */
static const key_row *nearest_row(const char *section, const char *key) {
    const key_row *best = &rows[0];
    int best_d = 1000;
    for (size_t i = 0; i < QSI_COUNT(other_names); i++)
        if (strcmp(other_names[i].other, key) == 0)
            return find_row(other_names[i].section, other_names[i].key);
    for (size_t i = 0; i < QSI_COUNT(rows); i++) {
        int d = 4 * edit_distance(key, rows[i].key) + edit_distance(section, rows[i].section);
        if (d < best_d) {
            best_d = d;
            best = &rows[i];
        }
    }
    return best;
}

static bool known_section(const char *s) {
    if (strcmp(s, "metadata") == 0) return true;
    for (size_t i = 0; i < QSI_COUNT(rows); i++)
        if (strcmp(rows[i].section, s) == 0) return true;
    return false;
}

/* ---- setting values ---- */

static qs_status list_add(qsi_trainconf *c, qsi_strlist *l, const char *s, size_t n, qs_err *err) {
    qs_status st = QS_OK;
    if (l->n >= QSI_TRAINCONF_MAX_LIST)
        QS_FAIL(err, QS_E_LIMIT, "more than %d values in a list", QSI_TRAINCONF_MAX_LIST);
    char *copy = qsi_arena_strndup(&c->arena, s, n);
    if (copy == NULL || qsi_grow((void **)&l->v, &l->cap, l->n + 1, sizeof(*l->v)) != QS_OK)
        QS_FAIL(err, QS_E_NOMEM, "out of memory for the configuration");
    l->v[l->n++] = copy;
done:
    return st;
}

/* Decodes a value: quotes removed with their escapes; *quoted tells. Gives arena memory. */
static qs_status unquote(qsi_trainconf *c, const char *s, size_t n, char **out, bool *quoted,
                         size_t *used, qs_err *err) {
    qs_status st = QS_OK;
    char *d = qsi_arena_alloc(&c->arena, n + 1, 1);
    if (d == NULL) QS_FAIL(err, QS_E_NOMEM, "out of memory for the configuration");
    size_t k = 0, i = 0;
    *quoted = n > 0 && s[0] == '"';
    if (*quoted) {
        for (i = 1; i < n && s[i] != '"'; i++) {
            char ch = s[i];
            if (ch == '\\' && i + 1 < n) {
                ch = s[++i];
                ch = ch == 'n' ? '\n' : ch == 't' ? '\t' : ch;
            }
            d[k++] = ch;
        }
        if (i >= n) QS_FAIL(err, QS_E_FORMAT, "closing quote missing");
        i++;
    } else {
        while (i < n && s[i] != ',') d[k++] = s[i++];
        while (k > 0 && (d[k - 1] == ' ' || d[k - 1] == '\t')) k--;
    }
    d[k] = '\0';
    *out = d;
    *used = i;
done:
    return st;
}

static qs_status add_list_values(qsi_trainconf *c, qsi_strlist *l, const char *s, size_t n,
                                 qs_err *err) {
    qs_status st = QS_OK;
    size_t i = 0;
    while (i < n) {
        char *v = NULL;
        bool quoted = false;
        size_t used = 0;
        while (i < n && (s[i] == ' ' || s[i] == '\t' || s[i] == ',')) i++;
        if (i >= n) break;
        QS_TRY(unquote(c, s + i, n - i, &v, &quoted, &used, err));
        i += used;
        if (quoted || v[0] != '\0') QS_TRY(list_add(c, l, v, strlen(v), err));
    }
done:
    return st;
}

static bool choice_ok(const char *choices, const char *v) {
    size_t n = strlen(v);
    for (const char *p = choices; n > 0 && p != NULL; p = strchr(p, '|')) {
        if (*p == '|') p++;
        if (strncmp(p, v, n) == 0 && (p[n] == '|' || p[n] == '\0')) return true;
    }
    return false;
}

static qs_status set_number(qsi_trainconf *c, const key_row *r, const char *v, qs_err *err) {
    qs_status st = QS_OK;
    double x = 0;
    char *field = (char *)c + r->offset;
    if (!qsi_parse_number(v, &x))
        QS_FAIL(err, QS_E_FORMAT, "%s.%s: '%.80s' is not a number", r->section, r->key, v);
    if (!(x >= r->min && x <= r->max))
        QS_FAIL(err, QS_E_RANGE, "%s.%s: %s lies outside %g to %g", r->section, r->key, v, r->min,
                r->max);
    if (r->kind == K_NUM) {
        memcpy(field, &x, sizeof(x));
        goto done;
    }
    if (x != floor(x))
        QS_FAIL(err, QS_E_FORMAT, "%s.%s: %s is not a whole number", r->section, r->key, v);
    int64_t i = (int64_t)x;
    memcpy(field, &i, sizeof(i));
done:
    return st;
}

/* s: the value as written, blanks around it removed. */
static qs_status set_row(qsi_trainconf *c, const key_row *r, const char *s, size_t n, qs_err *err) {
    qs_status st = QS_OK;
    char *field = (char *)c + r->offset, *v = NULL;
    bool quoted = false;
    size_t used = 0;
    if (r->kind == K_LIST) {
        qsi_strlist *l = (qsi_strlist *)(void *)field;
        QS_TRY(add_list_values(c, l, s, n, err));
        c->given |= (uint64_t)1 << (r - rows);
        goto done;
    }
    QS_TRY(unquote(c, s, n, &v, &quoted, &used, err));
    if (used != n && r->kind == K_STR && !quoted) { /* a comma in a plain string belongs to it */
        v = qsi_arena_strndup(&c->arena, s, n);
        if (v == NULL) QS_FAIL(err, QS_E_NOMEM, "out of memory for the configuration");
    } else if (used != n) {
        QS_FAIL(err, QS_E_FORMAT, "%s.%s takes one value", r->section, r->key);
    }
    if (v[0] == '\0')
        QS_FAIL(err, QS_E_FORMAT, "%s.%s: no value", r->section, r->key);
    switch (r->kind) {
    case K_INT:
    case K_NUM:
        QS_TRY(set_number(c, r, v, err));
        break;
    case K_BOOL: {
        bool b = strcmp(v, "true") == 0 || strcmp(v, "yes") == 0 || strcmp(v, "1") == 0;
        if (!b && strcmp(v, "false") != 0 && strcmp(v, "no") != 0 && strcmp(v, "0") != 0)
            QS_FAIL(err, QS_E_FORMAT, "%s.%s: '%.80s' is neither true nor false", r->section,
                    r->key, v);
        memcpy(field, &b, sizeof(b));
        break;
    }
    case K_CHOICE:
        if (!choice_ok(r->choices, v))
            QS_FAIL(err, QS_E_ARG, "%s.%s: '%.80s' is none of %s", r->section, r->key, v,
                    r->choices);
        /* fall through */
    default: {
        const char *z = v;
        memcpy(field, &z, sizeof(z));
    }
    }
    c->given |= (uint64_t)1 << (r - rows);
done:
    return st;
}

static qs_status set_meta(qsi_trainconf *c, const char *key, const char *s, size_t n, qs_err *err) {
    qs_status st = QS_OK;
    if (n == 0) QS_FAIL(err, QS_E_FORMAT, "metadata %s: no value", key);
    for (size_t i = 0; i < c->meta_keys.n; i++)
        if (strcmp(c->meta_keys.v[i], key) == 0)
            QS_FAIL(err, QS_E_FORMAT, "metadata %s: given twice", key);
    QS_TRY(list_add(c, &c->meta_keys, key, strlen(key), err));
    QS_TRY(list_add(c, &c->meta_values, s, n, err));
done:
    return st;
}

/* ---- the parser ---- */

static bool is_blank(char ch) { return ch == ' ' || ch == '\t' || ch == '\r'; }

/* Cuts blanks at both ends and a comment. */
static void trim(const char **s, size_t *n) {
    bool in_quotes = false;
    for (size_t i = 0; i < *n; i++) {
        char ch = (*s)[i];
        if (ch == '\\' && in_quotes) i++;
        else if (ch == '"') in_quotes = !in_quotes;
        else if (ch == '#' && !in_quotes && (i == 0 || is_blank((*s)[i - 1]))) *n = i;
    }
    while (*n > 0 && is_blank((*s)[0])) {
        (*s)++;
        (*n)--;
    }
    while (*n > 0 && is_blank((*s)[*n - 1])) (*n)--;
}

static qs_status parse_line(qsi_trainconf *c, char section[32], const char *s, size_t n,
                            qs_err *err) {
    qs_status st = QS_OK;
    char key[128];
    if (s[0] == '[') {
        if (s[n - 1] != ']' || n < 3 || n - 2 >= 32)
            QS_FAIL(err, QS_E_FORMAT, "'%.*s' is not a [section]", (int)(n > 80 ? 80 : n), s);
        memcpy(section, s + 1, n - 2);
        section[n - 2] = '\0';
        if (!known_section(section))
            QS_FAIL(err, QS_E_ARG, "unknown section [%s]; the sections are run, data, tokenizer, "
                    "model, train, checkpoint, valid, sample, output, metadata", section);
        goto done;
    }
    const char *eq = memchr(s, '=', n);
    size_t nk = eq != NULL ? (size_t)(eq - s) : 0;
    while (nk > 0 && is_blank(s[nk - 1])) nk--;
    if (nk == 0 || nk >= sizeof(key))
        QS_FAIL(err, QS_E_FORMAT, "'%.*s' is not key = value", (int)(n > 80 ? 80 : n), s);
    memcpy(key, s, nk);
    key[nk] = '\0';
    const char *v = eq + 1;
    size_t nv = (size_t)(s + n - v);
    while (nv > 0 && is_blank(v[0])) {
        v++;
        nv--;
    }
    if (section[0] == '\0') QS_FAIL(err, QS_E_FORMAT, "'%s' stands before any [section]", key);
    if (strcmp(section, "metadata") == 0) {
        QS_TRY(set_meta(c, key, v, nv, err));
        goto done;
    }
    const key_row *r = find_row(section, key);
    if (r == NULL) {
        const key_row *near = nearest_row(section, key);
        QS_FAIL(err, QS_E_ARG, "unknown key '%s' in [%s]; did you mean '%s' in [%s]?", key, section,
                near->key, near->section);
    }
    QS_TRY(set_row(c, r, v, nv, err));
done:
    return st;
}

qs_status qsi_trainconf_parse(qsi_trainconf *c, const char *name, const char *text, size_t n,
                              qs_err *err) {
    qs_status st = QS_OK;
    size_t at = 0, bad = 0;
    int line = 0;
    char section[32] = "";
    if (n > QSI_TRAINCONF_MAX_BYTES)
        QS_FAIL(err, QS_E_LIMIT, "'%s': a configuration has at most 1 MiB", name);
    if (memchr(text, 0, n) != NULL || !qsi_utf8_valid(text, n, &bad))
        QS_FAIL(err, QS_E_FORMAT, "'%s': not UTF-8 text (byte %zu)", name, bad);
    if (n >= 3 && memcmp(text, "\xEF\xBB\xBF", 3) == 0) at = 3;
    while (at < n) {
        const char *s = text + at, *nl = memchr(s, '\n', n - at);
        size_t len = nl != NULL ? (size_t)(nl - s) : n - at;
        at += len + 1;
        line++;
        trim(&s, &len);
        if (len == 0) continue;
        st = parse_line(c, section, s, len, err);
        if (st != QS_OK) {
            qsi_err_prefix(err, "'%s' line %d", name, line);
            goto done;
        }
    }
done:
    return st;
}

qs_status qsi_trainconf_set(qsi_trainconf *c, const char *key, const char *value, qs_err *err) {
    qs_status st = QS_OK;
    char section[32] = "";
    const char *dot = strchr(key, '.');
    size_t ns = dot != NULL ? (size_t)(dot - key) : 0;
    if (ns == 0 || ns >= sizeof(section))
        QS_FAIL(err, QS_E_ARG, "'%s' is not section.key", key);
    memcpy(section, key, ns);
    if (strcmp(section, "metadata") == 0) return set_meta(c, dot + 1, value, strlen(value), err);
    const key_row *r = find_row(section, dot + 1);
    if (r == NULL) {
        const key_row *near = nearest_row(section, dot + 1);
        QS_FAIL(err, QS_E_ARG, "unknown setting '%s'; did you mean '%s.%s'?", key, near->section,
                near->key);
    }
    if (r->kind == K_LIST) ((qsi_strlist *)(void *)((char *)c + r->offset))->n = 0;
    QS_TRY(set_row(c, r, value, strlen(value), err));
done:
    return st;
}

bool qsi_trainconf_given(const qsi_trainconf *c, const char *key) {
    for (size_t i = 0; i < QSI_COUNT(rows); i++) {
        size_t ns = strlen(rows[i].section);
        if (strncmp(key, rows[i].section, ns) == 0 && key[ns] == '.' &&
            strcmp(key + ns + 1, rows[i].key) == 0)
            return (c->given >> i & 1) != 0;
    }
    return false;
}

/* ---- presets ---- */

typedef struct preset {
    const char *name;
    int64_t vocab, ctx, layers, d_model, heads, head_dim, d_ff, dense, experts, used, shared,
        expert_ff, batch, micro;
    double lr, init_std;
} preset;

/* About 1, 5, 22 and 110 million parameters. Rates follow deepseek-facts 5.3 only in their
 * direction (smaller for larger models); its constants are for runs ten thousand times as long. */
static const preset presets[] = {
    {"tiny", 1024, 256, 4, 128, 4, 32, 320, 1, 8, 2, 1, 32, 2048, 2048, 3e-3, 0.02},
    {"mini", 4096, 512, 6, 192, 3, 64, 768, 1, 8, 2, 1, 128, 8192, 2048, 2e-3, 0.02},
    {"small", 12288, 512, 8, 256, 4, 64, 1024, 1, 8, 2, 1, 256, 16384, 2048, 1.5e-3, 0.02},
    {"medium", 32768, 1024, 12, 512, 8, 64, 1536, 1, 16, 2, 2, 256, 65536, 4096, 6e-4, 0.015},
};

static void fill_i(int64_t *x, int64_t v) {
    if (*x == QSI_AUTO) *x = v;
}

static void fill_d(double *x, double v) {
    if (*x == QSI_AUTO) *x = v;
}

static int64_t clamp_i(int64_t x, int64_t lo, int64_t hi) { return x < lo ? lo : x > hi ? hi : x; }

qs_status qsi_trainconf_apply_preset(qsi_trainconf *c, int64_t text_bytes, qs_err *err) {
    qs_status st = QS_OK;
    const preset *p = NULL;
    if (c->preset == NULL) c->preset = "tiny";
    for (size_t i = 0; i < QSI_COUNT(presets); i++)
        if (strcmp(presets[i].name, c->preset) == 0) p = &presets[i];
    if (p == NULL)
        QS_FAIL(err, QS_E_ARG, "unknown preset '%s'; the presets are tiny, mini, small, medium",
                c->preset);
    bool moe = strcmp(c->arch, "deepseek") == 0;
    /* a merge wants to be seen often: one token of vocabulary for 128 bytes of text */
    fill_i(&c->vocab_size, clamp_i(text_bytes / 128, 320 < p->vocab ? 320 : p->vocab, p->vocab));
    /* at least some 50 windows, of about 3 bytes a token */
    int64_t ctx = p->ctx;
    while (ctx > 32 && text_bytes / 3 / 50 < ctx) ctx /= 2;
    fill_i(&c->n_ctx, ctx);
    fill_i(&c->n_layer, p->layers);
    fill_i(&c->d_model, p->d_model);
    fill_i(&c->head_dim, p->head_dim);
    fill_i(&c->n_head, p->heads);
    fill_i(&c->n_kv_head, c->n_head);
    /* a dense model of a preset gets the width that its experts would have had together */
    fill_i(&c->d_ff, moe ? p->d_ff : 3 * p->d_model);
    fill_i(&c->n_expert, moe ? p->experts : 0);
    fill_i(&c->n_dense, moe ? p->dense : 0);
    fill_i(&c->n_expert_used, moe ? p->used : 0);
    fill_i(&c->n_shared, moe ? p->shared : 0);
    fill_i(&c->d_expert, moe ? p->expert_ff : 0);
    fill_d(&c->init_std, p->init_std);
    fill_d(&c->lr, p->lr);
    fill_i(&c->batch_tokens, p->batch);
    fill_i(&c->micro_tokens, c->batch_tokens < p->micro ? c->batch_tokens : p->micro);
    if (c->micro_tokens < c->n_ctx) c->micro_tokens = c->n_ctx;
    if (c->batch_tokens < c->n_ctx)
        QS_FAIL(err, QS_E_ARG, "train.batch_tokens (%lld) is less than one context (%lld)",
                (long long)c->batch_tokens, (long long)c->n_ctx);
    /* some windows each, but enough parts that a share of them can be held out */
    int64_t most = c->n_ctx * 16 < 8192 ? 8192 : c->n_ctx * 16;
    fill_i(&c->doc_bytes, clamp_i(text_bytes / 32, 512, most));
done:
    return st;
}

/* ---- identity ---- */

qs_status qsi_trainconf_identity(const qsi_trainconf *c, qsi_str *out) {
    qs_status st = QS_OK;
    for (size_t i = 0; i < QSI_COUNT(rows); i++) {
        const key_row *r = &rows[i];
        const char *field = (const char *)c + r->offset;
        if (!r->identity || (r->if_given && (c->given >> i & 1) == 0)) continue;
        QS_TRY(qsi_str_printf(out, "%s.%s =", r->section, r->key));
        switch (r->kind) {
        case K_INT: {
            int64_t v;
            memcpy(&v, field, sizeof(v));
            QS_TRY(qsi_str_printf(out, " %lld", (long long)v));
            break;
        }
        case K_NUM: {
            double v;
            memcpy(&v, field, sizeof(v));
            QS_TRY(qsi_str_printf(out, " %.17g", v));
            break;
        }
        case K_BOOL: {
            bool v;
            memcpy(&v, field, sizeof(v));
            QS_TRY(qsi_str_puts(out, v ? " true" : " false"));
            break;
        }
        case K_LIST: {
            const qsi_strlist *l = (const qsi_strlist *)(const void *)field;
            for (size_t k = 0; k < l->n; k++) QS_TRY(qsi_str_printf(out, " %s", l->v[k]));
            break;
        }
        default: {
            const char *v;
            memcpy(&v, field, sizeof(v));
            QS_TRY(qsi_str_printf(out, " %s", v != NULL ? v : ""));
        }
        }
        QS_TRY(qsi_str_putc(out, '\n'));
    }
done:
    return st;
}

bool qsi_trainconf_same(const char *a, const char *b, const char **line, size_t *n_line,
                        const char **other, size_t *n_other) {
    while (*a != '\0' || *b != '\0') {
        size_t na = strcspn(a, "\n"), nb = strcspn(b, "\n");
        if (na != nb || memcmp(a, b, na) != 0) {
            *line = b;
            *n_line = nb;
            *other = a;
            *n_other = na;
            return false;
        }
        a += na + (a[na] == '\n');
        b += nb + (b[nb] == '\n');
    }
    return true;
}
