/* Vocabularies in Hugging Face tokenizer.json, with tokenizer_config.json beside it.
 *
 * The pre-tokenizer there is a list of regular expressions. It is not interpreted: the list must be,
 * step by step, one of those that pretok.c knows. Where a step is a class of characters, the set is
 * compared, not its spelling; otherwise the text, with \r and \n written as escapes or not.
 * Source: the tokenizer.json format of Hugging Face tokenizers; deepseek-facts 3.1. */
#include <string.h>

#include "fmt/json.h"
#include "tok/unicode_table.h"
#include "tok/vocab.h"

#define BOS "<｜begin▁of▁sentence｜>"
#define LIMITS ((qsi_json_limits){(size_t)128 << 20, (size_t)1 << 23})
#define MAX_STEPS 8
#define N_CP 0x110000u

/* ---- the pre-tokenizer ---- */

typedef struct step {
    const char *text;   /* the expression; for a class what stands before its bracket */
    unsigned cls;       /* QSI_UC_*: the class in brackets; 0: text is the whole expression */
    const char *suffix; /* behind the bracket */
} step;

#define DIGITS "(digits)" /* {"type": "Digits", "individual_digits": true} */
#define V3_WORDS                                                                                   \
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+"                                        \
    "|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*"                          \
    "|\\s*[\r\n]+|\\s+(?!\\S)|\\s+"

/* Llama 3 and Qwen 2 differ in how many numbers stay together. */
#define GPT_WORDS(numbers)                                                                         \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}" numbers                        \
    "| ?[^\\s\\p{L}\\p{N}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+"

static const struct {
    const char *pre;
    step steps[MAX_STEPS];
} known[] = {
    {"deepseek-llm",
     {{"", QSI_UC_NEWLINE, ""},
      {"\\s?", QSI_UC_LLM_LETTER, "+"},
      {"\\s?", QSI_UC_LLM_PUNCT, "+"},
      {"\\s+$", 0, ""},
      {"", QSI_UC_LLM_CJK, "+"},
      {DIGITS, 0, ""}}},
    {"deepseek-coder",
     {{"", QSI_UC_NEWLINE, ""},
      {"\\s?\\p{L}+", 0, ""},
      {"\\s?\\p{P}+", 0, ""},
      {"", QSI_UC_LLM_CJK, "+"},
      {DIGITS, 0, ""}}},
    {"deepseek-v3",
     {{"\\p{N}{1,3}", 0, ""}, {"", QSI_UC_V3_CJK, "+"}, {V3_WORDS, 0, ""}}},
    {"llama-bpe", {{GPT_WORDS("{1,3}"), 0, ""}}},
    {"qwen2", {{GPT_WORDS(""), 0, ""}}},
};

/* Takes one character off *p: decodes \r and \n; *escaped when a backslash stood before it. */
static uint32_t take(const char **p, bool *escaped) {
    uint32_t cp;
    int len;
    *escaped = **p == '\\' && (*p)[1] != '\0';
    if (*escaped) {
        char c = (*p)[1];
        if (c == 'r' || c == 'n') {
            *p += 2;
            *escaped = false;
            return c == 'r' ? '\r' : '\n';
        }
        (*p)++;
    }
    cp = qsi_utf8_decode(*p, strlen(*p), &len);
    *p += len;
    return cp;
}

static bool same_text(const char *a, const char *b) {
    while (*a != '\0' && *b != '\0') {
        bool ea, eb;
        uint32_t ca = take(&a, &ea), cb = take(&b, &eb);
        if (ca != cb || ea != eb) return false;
    }
    return *a == *b;
}

/* Marks the characters of the class that starts behind its bracket; returns what follows the closing
 * bracket, or NULL when it holds anything but characters and ranges. */
static const char *mark_class(const char *p, uint8_t *in) {
    if (*p == '^') return NULL;
    while (*p != '\0' && *p != ']') {
        bool escaped;
        uint32_t lo = take(&p, &escaped), hi = lo;
        if (escaped && lo != '-' && lo != ']' && lo != '[' && lo != '\\') return NULL;
        if (!escaped && lo == '[') return NULL;
        if (*p == '-' && p[1] != ']' && p[1] != '\0') {
            p++;
            hi = take(&p, &escaped);
        }
        if (hi >= N_CP || lo > hi) return NULL;
        for (uint32_t c = lo; c <= hi; c++) in[c] = 1;
    }
    return *p == ']' ? p + 1 : NULL;
}

static qs_status same_class(const char *text, const step *s, bool *same, qs_err *err) {
    size_t n = strlen(s->text);
    uint8_t *in;
    const char *rest;
    *same = false;
    if (strncmp(text, s->text, n) != 0 || text[n] != '[') return QS_OK;
    in = qsi_calloc(N_CP, 1);
    if (in == NULL) return qsi_err_set(err, QS_E_NOMEM, "out of memory");
    rest = mark_class(text + n + 1, in);
    *same = rest != NULL && strcmp(rest, s->suffix) == 0;
    for (uint32_t c = 0; *same && c < N_CP; c++)
        if (in[c] != ((qsi_uc_flags(c) & s->cls) != 0) && !(c >= 0xd800 && c < 0xe000))
            *same = false;
    qsi_free(in);
    return QS_OK;
}

static qs_status is_known(const char *const *texts, size_t n, const step *steps, bool *same,
                          qs_err *err) {
    qs_status st = QS_OK;
    size_t n_steps = 0;
    while (n_steps < MAX_STEPS && steps[n_steps].text != NULL) n_steps++;
    *same = n == n_steps;
    for (size_t i = 0; *same && i < n; i++) {
        const step *s = &steps[i];
        if (s->cls != 0) QS_TRY(same_class(texts[i], s, same, err));
        else if (strcmp(s->text, DIGITS) == 0)
            *same = strcmp(texts[i], DIGITS) == 0 || strcmp(texts[i], "\\p{N}") == 0;
        else *same = same_text(texts[i], s->text);
    }
done:
    return st;
}

static const char *str_or(const qsi_json *j, const char *key, const char *other) {
    const char *s = qsi_json_as_str(qsi_json_get(j, key));
    return s == NULL ? other : s;
}

static bool is_true(const qsi_json *j, const char *key) {
    bool b = false;
    return qsi_json_as_bool(qsi_json_get(j, key), &b) && b;
}

/* The expressions of the list; the byte-level step must come last and is left out. */
static qs_status read_steps(const qsi_json *list, const char *texts[MAX_STEPS], size_t *n,
                            qs_err *err) {
    qs_status st = QS_OK;
    size_t size = qsi_json_size(list);
    if (size < 2 || size > MAX_STEPS + 1)
        QS_FAIL(err, QS_E_UNSUPPORTED, "the pre-tokenizer has %zu steps, which none of the known "
                "ones has (" QSI_PRETOK_NAMES ")", size);
    for (size_t i = 0; i < size; i++) {
        const qsi_json *s = qsi_json_at(list, i);
        const char *type = str_or(s, "type", "(none)");
        const char *regex = qsi_json_as_str(qsi_json_get(qsi_json_get(s, "pattern"), "Regex"));
        bool last = i + 1 == size;
        if (last && strcmp(type, "ByteLevel") == 0 && !is_true(s, "add_prefix_space") &&
            qsi_json_kind_of(qsi_json_get(s, "use_regex")) == QSI_JSON_BOOL &&
            !is_true(s, "use_regex"))
            continue;
        if (!last && strcmp(type, "Digits") == 0 && is_true(s, "individual_digits"))
            texts[i] = DIGITS;
        else if (!last && strcmp(type, "Split") == 0 && regex != NULL && !is_true(s, "invert") &&
                 strcmp(str_or(s, "behavior", ""), "Isolated") == 0)
            texts[i] = regex;
        else
            QS_FAIL(err, QS_E_UNSUPPORTED, "step %zu of the pre-tokenizer ('%.40s') is of a kind or "
                    "in a place that is not supported", i + 1, type);
    }
    *n = size - 1;
done:
    return st;
}

static qs_status find_pre(const qsi_json *root, const char **pre, qs_err *err) {
    qs_status st = QS_OK;
    const qsi_json *p = qsi_json_get(root, "pre_tokenizer");
    const char *texts[MAX_STEPS] = {NULL};
    size_t n = 0;
    if (strcmp(str_or(p, "type", "(none)"), "Sequence") != 0)
        QS_FAIL(err, QS_E_UNSUPPORTED, "the pre-tokenizer is of kind '%.40s' (only a sequence of "
                "splits is supported)", str_or(p, "type", "(none)"));
    QS_TRY(read_steps(qsi_json_get(p, "pretokenizers"), texts, &n, err));
    for (size_t i = 0; i < QSI_COUNT(known); i++) {
        bool same;
        QS_TRY(is_known(texts, n, known[i].steps, &same, err));
        if (!same) continue;
        *pre = known[i].pre;
        return QS_OK;
    }
    QS_FAIL(err, QS_E_UNSUPPORTED, "the pre-tokenizer is none of " QSI_PRETOK_NAMES ": %zu steps, "
            "the first '%.60s', the second '%.60s'", n, texts[0], n > 1 ? texts[1] : "");
done:
    return st;
}

/* Appends a character of a class. */
static qs_status put_in_class(qsi_str *out, uint32_t cp) {
    char b[8];
    int n = qsi_utf8_encode(cp, b);
    if (cp == '-' || cp == ']' || cp == '[' || cp == '\\' || cp == '^')
        return qsi_str_printf(out, "\\%c", (int)cp);
    return qsi_str_append(out, b, (size_t)n);
}

static qs_status put_expression(qsi_str *out, const step *s) {
    qs_status st = QS_OK;
    QS_TRY(qsi_str_puts(out, s->text));
    if (s->cls == 0) return QS_OK;
    QS_TRY(qsi_str_puts(out, "["));
    for (uint32_t c = 0; c < N_CP; c++) {
        uint32_t last = c;
        if ((qsi_uc_flags(c) & s->cls) == 0 || (c >= 0xd800 && c < 0xe000)) continue;
        while (last + 1 < N_CP && last + 1 != 0xd800 && (qsi_uc_flags(last + 1) & s->cls) != 0) last++;
        QS_TRY(put_in_class(out, c));
        if (last > c + 1) QS_TRY(qsi_str_puts(out, "-"));
        if (last > c) QS_TRY(put_in_class(out, last));
        c = last;
    }
    QS_TRY(qsi_str_puts(out, "]"));
    QS_TRY(qsi_str_puts(out, s->suffix));
done:
    return st;
}

qs_status qsi_pretok_put_json(qsi_str *out, const char *pre) {
    qs_status st = QS_OK;
    const step *steps = NULL;
    qsi_str text = {0};
    if (strcmp(pre, "deepseek-r1-qwen") == 0) pre = "qwen2"; /* the same splits */
    if (strcmp(pre, "llama3") == 0) pre = "llama-bpe";
    for (size_t i = 0; i < QSI_COUNT(known); i++)
        if (strcmp(known[i].pre, pre) == 0) steps = known[i].steps;
    if (steps == NULL) return QS_E_UNSUPPORTED;
    QS_TRY(qsi_str_puts(out, "{\"type\":\"Sequence\",\"pretokenizers\":["));
    for (size_t i = 0; i < MAX_STEPS && steps[i].text != NULL; i++) {
        if (strcmp(steps[i].text, DIGITS) == 0) {
            QS_TRY(qsi_str_puts(out, "{\"type\":\"Digits\",\"individual_digits\":true},"));
            continue;
        }
        qsi_str_clear(&text);
        QS_TRY(put_expression(&text, &steps[i]));
        QS_TRY(qsi_str_puts(out, "{\"type\":\"Split\",\"pattern\":{\"Regex\":"));
        QS_TRY(qsi_str_json(out, text.data, text.len));
        QS_TRY(qsi_str_puts(out, "},\"behavior\":\"Isolated\",\"invert\":false},"));
    }
    QS_TRY(qsi_str_puts(out, "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,"
                             "\"trim_offsets\":true,\"use_regex\":false}]}"));
done:
    qsi_str_release(&text);
    return st;
}

/* ---- tokens and merges ---- */

typedef struct loader {
    qsi_slice *tokens, *left, *right;
    uint8_t *types;
    qsi_json *root, *config;
    qsi_vocab_spec spec;
} loader;

static void loader_release(loader *l) {
    qsi_free(l->tokens);
    qsi_free(l->left);
    qsi_free(l->right);
    qsi_free(l->types);
    qsi_json_free(&l->root);
    qsi_json_free(&l->config);
}

static qsi_slice slice_of(const char *s) { return (qsi_slice){s, strlen(s)}; }

/* Puts a token at its id. The same text twice at one id is fine: added tokens may stand in the
 * model's list as well. */
static qs_status place(loader *l, const char *text, int64_t id, int type, qs_err *err) {
    qs_status st = QS_OK;
    if (id < 0 || id >= l->spec.n_tokens)
        QS_FAIL(err, QS_E_FORMAT, "token '%.40s' has the id %lld, but there are %lld tokens", text,
                (long long)id, (long long)l->spec.n_tokens);
    if (l->types[id] != 0 &&
        (l->tokens[id].n != strlen(text) || memcmp(l->tokens[id].p, text, l->tokens[id].n) != 0))
        QS_FAIL(err, QS_E_FORMAT, "tokens '%.40s' and '%.40s' have the same id %lld",
                l->tokens[id].p, text, (long long)id);
    l->tokens[id] = slice_of(text);
    l->types[id] = (uint8_t)type;
done:
    return st;
}

/* The number of tokens: the highest id and one. */
static qs_status count_tokens(loader *l, const qsi_json *vocab, const qsi_json *added,
                              qs_err *err) {
    qs_status st = QS_OK;
    int64_t id, max = -1;
    const char *key;
    const qsi_json *v;
    for (void *it = qsi_json_next(vocab, NULL, &key, &v); it != NULL;
         it = qsi_json_next(vocab, it, &key, &v)) {
        if (!qsi_json_as_i64(v, &id))
            QS_FAIL(err, QS_E_FORMAT, "the id of token '%.40s' is no integer", key);
        if (id > max) max = id;
    }
    for (size_t i = 0; i < qsi_json_size(added); i++) {
        QS_TRY(qsi_json_i64(qsi_json_at(added, i), "id", &id, err));
        if (id > max) max = id;
    }
    if (max < 0 || max >= QSI_VOCAB_MAX)
        QS_FAIL(err, QS_E_FORMAT, "the vocabulary's highest id is %lld (0 to %d are possible)",
                (long long)max, QSI_VOCAB_MAX - 1);
    l->spec.n_tokens = max + 1;
done:
    return st;
}

static qs_status load_tokens(loader *l, const qsi_json *vocab, const qsi_json *added,
                             qs_err *err) {
    qs_status st = QS_OK;
    const char *text;
    const qsi_json *v;
    QS_TRY(count_tokens(l, vocab, added, err));
    l->tokens = qsi_calloc((size_t)l->spec.n_tokens, sizeof(*l->tokens));
    l->types = qsi_calloc((size_t)l->spec.n_tokens, 1);
    if (l->tokens == NULL || l->types == NULL)
        QS_FAIL(err, QS_E_NOMEM, "out of memory for a vocabulary of %lld tokens",
                (long long)l->spec.n_tokens);
    for (void *it = qsi_json_next(vocab, NULL, &text, &v); it != NULL;
         it = qsi_json_next(vocab, it, &text, &v)) {
        int64_t id = -1;
        (void)qsi_json_as_i64(v, &id);
        QS_TRY(place(l, text, id, QSI_TOK_NORMAL, err));
    }
    for (size_t i = 0; i < qsi_json_size(added); i++) {
        const qsi_json *a = qsi_json_at(added, i);
        int64_t id;
        QS_TRY(qsi_json_i64(a, "id", &id, err));
        QS_TRY(qsi_json_str(a, "content", &text, err));
        QS_TRY(place(l, text, id, is_true(a, "special") ? QSI_TOK_CONTROL : QSI_TOK_USER, err));
    }
    for (int64_t i = 0; i < l->spec.n_tokens; i++)
        if (l->types[i] == 0)
            QS_FAIL(err, QS_E_FORMAT, "no token has the id %lld (there are ids up to %lld)",
                    (long long)i, (long long)l->spec.n_tokens - 1);
    l->spec.tokens = l->tokens;
    l->spec.types = l->types;
done:
    return st;
}

/* A merge is "left right" or ["left", "right"]. */
static bool read_merge(const qsi_json *m, qsi_slice *left, qsi_slice *right) {
    const char *a = qsi_json_as_str(m), *b;
    if (a != NULL) return qsi_split_merge(slice_of(a), left, right);
    a = qsi_json_as_str(qsi_json_at(m, 0));
    b = qsi_json_as_str(qsi_json_at(m, 1));
    if (a == NULL || b == NULL || qsi_json_size(m) != 2) return false;
    *left = slice_of(a);
    *right = slice_of(b);
    return true;
}

static qs_status load_merges(loader *l, const qsi_json *merges, qs_err *err) {
    qs_status st = QS_OK;
    size_t n = qsi_json_size(merges);
    if (qsi_json_kind_of(merges) != QSI_JSON_ARRAY)
        QS_FAIL(err, QS_E_FORMAT, "the model has no list of merges");
    l->left = qsi_alloc(n, sizeof(*l->left));
    l->right = qsi_alloc(n, sizeof(*l->right));
    if (l->left == NULL || l->right == NULL)
        QS_FAIL(err, QS_E_NOMEM, "out of memory for %zu merges", n);
    for (size_t i = 0; i < n; i++)
        if (!read_merge(qsi_json_at(merges, i), &l->left[i], &l->right[i]))
            QS_FAIL(err, QS_E_FORMAT, "merge %zu is not two tokens", i);
    l->spec.left = l->left;
    l->spec.right = l->right;
    l->spec.n_merges = (int64_t)n;
done:
    return st;
}

/* What this implementation leaves out must not be asked for. */
static qs_status check_model(const qsi_json *root, const qsi_json *model, qs_err *err) {
    qs_status st = QS_OK;
    const qsi_json *norm = qsi_json_get(root, "normalizer");
    static const char *const unused[] = {"dropout", "continuing_subword_prefix",
                                         "end_of_word_suffix"};
    if (strcmp(str_or(model, "type", "BPE"), "BPE") != 0)
        QS_FAIL(err, QS_E_UNSUPPORTED, "the tokenizer's model is '%.40s' (only BPE is supported)",
                str_or(model, "type", ""));
    if (qsi_json_kind_of(qsi_json_get(model, "vocab")) != QSI_JSON_OBJECT)
        QS_FAIL(err, QS_E_FORMAT, "the tokenizer's model has no vocabulary");
    for (size_t i = 0; i < QSI_COUNT(unused); i++) {
        const qsi_json *v = qsi_json_get(model, unused[i]);
        const char *s = qsi_json_as_str(v);
        qsi_json_kind k = qsi_json_kind_of(v);
        if (k != QSI_JSON_MISSING && k != QSI_JSON_NULL && !(s != NULL && *s == '\0'))
            QS_FAIL(err, QS_E_UNSUPPORTED, "the tokenizer asks for '%s'", unused[i]);
    }
    if (qsi_json_kind_of(norm) == QSI_JSON_OBJECT && strcmp(str_or(norm, "type", ""), "NFC") != 0 &&
        !(strcmp(str_or(norm, "type", ""), "Sequence") == 0 &&
          qsi_json_size(qsi_json_get(norm, "normalizers")) == 0))
        QS_FAIL(err, QS_E_UNSUPPORTED, "the tokenizer has a normalizer ('%.40s')",
                str_or(norm, "type", ""));
done:
    return st;
}

/* Whether tokens come before merges follows from the pre-tokenizer. */
static qs_status check_whole(const qsi_json *model, const char *pre, qs_err *err) {
    if (is_true(model, "ignore_merges") == qsi_pretok_whole(pre)) return QS_OK;
    return qsi_err_set(err, QS_E_UNSUPPORTED, "'ignore_merges' is %s: not supported with the "
                       "pre-tokenizer %s", qsi_pretok_whole(pre) ? "false" : "true", pre);
}

/* ---- tokenizer_config.json ---- */

static int64_t find_token(const loader *l, const char *text) {
    size_t n = strlen(text);
    for (int64_t i = l->spec.n_tokens; i-- > 0;)
        if (l->tokens[i].n == n && memcmp(l->tokens[i].p, text, n) == 0) return i;
    return -1;
}

/* A special token of the configuration: a string or an object with "content". */
static qs_status config_id(const loader *l, const char *key, const char *usual, int64_t *id,
                           qs_err *err) {
    qs_status st = QS_OK;
    const qsi_json *v = qsi_json_get(l->config, key);
    const char *text = qsi_json_as_str(v);
    if (text == NULL) text = qsi_json_as_str(qsi_json_get(v, "content"));
    if (text == NULL) {
        *id = l->config == NULL && usual != NULL ? find_token(l, usual) : -1;
        return QS_OK;
    }
    *id = find_token(l, text);
    if (*id < 0)
        QS_FAIL(err, QS_E_FORMAT, "the configuration's %s '%.40s' is not in the vocabulary", key,
                text);
done:
    return st;
}

/* The chat template: a string, or a list of named ones of which "default" counts. */
static qsi_slice config_template(const qsi_json *config) {
    const qsi_json *v = qsi_json_get(config, "chat_template");
    const char *text = qsi_json_as_str(v);
    for (size_t i = 0; text == NULL && i < qsi_json_size(v); i++)
        if (strcmp(str_or(qsi_json_at(v, i), "name", ""), "default") == 0)
            text = qsi_json_as_str(qsi_json_get(qsi_json_at(v, i), "template"));
    return text == NULL ? (qsi_slice){"", 0} : slice_of(text);
}

static bool slice_is(qsi_slice s, const char *z) {
    return s.n == strlen(z) && memcmp(s.p, z, s.n) == 0;
}

static qs_status load_config(loader *l, qs_err *err) {
    qs_status st = QS_OK;
    qsi_vocab_spec *s = &l->spec;
    bool b;
    QS_TRY(config_id(l, "bos_token", BOS, &s->bos, err));
    QS_TRY(config_id(l, "eos_token", "<｜end▁of▁sentence｜>", &s->eos, err));
    QS_TRY(config_id(l, "pad_token", NULL, &s->pad, err));
    s->add_bos = s->bos >= 0;
    if (qsi_json_as_bool(qsi_json_get(l->config, "add_bos_token"), &b)) s->add_bos = b;
    s->add_eos = is_true(l->config, "add_eos_token");
    s->chat_template = config_template(l->config);
    if (strcmp(s->pre, "qwen2") == 0 && s->bos >= 0 && slice_is(s->tokens[s->bos], BOS))
        s->pre = "deepseek-r1-qwen";
done:
    return st;
}

qs_status qsi_vocab_load_json(qsi_vocab **v, const char *json, size_t n, const char *config,
                              size_t n_config, qs_err *err) {
    qs_status st = QS_OK;
    loader l = {0};
    const qsi_json *model;
    st = qsi_json_parse(&l.root, json, n, LIMITS, err);
    if (st != QS_OK) {
        qsi_err_prefix(err, "tokenizer.json");
        goto done;
    }
    if (config != NULL) st = qsi_json_parse(&l.config, config, n_config, LIMITS, err);
    if (st != QS_OK) {
        qsi_err_prefix(err, "tokenizer_config.json");
        goto done;
    }
    model = qsi_json_get(l.root, "model");
    QS_TRY(check_model(l.root, model, err));
    QS_TRY(find_pre(l.root, &l.spec.pre, err));
    QS_TRY(check_whole(model, l.spec.pre, err));
    l.spec.nfc = strcmp(str_or(qsi_json_get(l.root, "normalizer"), "type", ""), "NFC") == 0;
    QS_TRY(load_tokens(&l, qsi_json_get(model, "vocab"), qsi_json_get(l.root, "added_tokens"),
                       err));
    QS_TRY(load_merges(&l, qsi_json_get(model, "merges"), err));
    QS_TRY(load_config(&l, err));
    QS_TRY(qsi_vocab_build(v, &l.spec, err));
done:
    loader_release(&l);
    return st;
}
