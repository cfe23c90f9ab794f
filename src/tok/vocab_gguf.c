/* Vocabularies in GGUF files: the keys tokenizer.ggml.* and tokenizer.chat_template.
 * Source: deepseek-facts 4.1. Reading hands a spec to qsi_vocab_build, which checks it. */
#include <string.h>

#include "tok/vocab.h"

#define KEY "tokenizer.ggml."
#define NFC "qiusuo.tokenizer.nfc" /* no key of GGUF says it */

/* Memory of one load; slices point into the file. */
typedef struct loader {
    qsi_slice *tokens, *left, *right;
    uint8_t *types;
    char pre[64];
    qsi_vocab_spec spec;
} loader;

static void loader_release(loader *l) {
    qsi_free(l->tokens);
    qsi_free(l->left);
    qsi_free(l->right);
    qsi_free(l->types);
}

static qs_status find_array(const qsi_gguf *g, const char *key, bool strings, uint64_t max,
                            const qsi_gguf_kv **out, qs_err *err) {
    qs_status st = QS_OK;
    const qsi_gguf_kv *kv = qsi_gguf_find(g, key);
    if (kv == NULL) QS_FAIL(err, QS_E_FORMAT, "the file has no vocabulary: key %s is missing", key);
    if (kv->type != QSI_GV_ARR || (kv->elem == QSI_GV_STR) != strings || kv->elem == QSI_GV_ARR)
        QS_FAIL(err, QS_E_FORMAT, "key %s is not an array of %s", key,
                strings ? "strings" : "numbers");
    if (kv->count > max)
        QS_FAIL(err, QS_E_FORMAT, "key %s has %llu entries (at most %llu are possible)", key,
                (unsigned long long)kv->count, (unsigned long long)max);
    *out = kv;
done:
    return st;
}

/* Scores of tokens are of no use with merges, but a file with more or fewer of them lies about one. */
static qs_status check_scores(const qsi_gguf *g, uint64_t n_tokens, qs_err *err) {
    qs_status st = QS_OK;
    const qsi_gguf_kv *scores = NULL;
    if (qsi_gguf_find(g, KEY "scores") == NULL) return QS_OK;
    QS_TRY(find_array(g, KEY "scores", false, QSI_VOCAB_MAX, &scores, err));
    if (scores->count != n_tokens)
        QS_FAIL(err, QS_E_FORMAT, "the vocabulary has %llu tokens but %llu scores",
                (unsigned long long)n_tokens, (unsigned long long)scores->count);
done:
    return st;
}

static qs_status load_tokens(loader *l, const qsi_gguf *g, qs_err *err) {
    qs_status st = QS_OK;
    const qsi_gguf_kv *kv, *types;
    QS_TRY(find_array(g, KEY "tokens", true, QSI_VOCAB_MAX, &kv, err));
    l->tokens = qsi_alloc((size_t)kv->count, sizeof *l->tokens);
    l->types = qsi_alloc((size_t)kv->count, 1);
    if (l->tokens == NULL || l->types == NULL)
        QS_FAIL(err, QS_E_NOMEM, "out of memory for a vocabulary of %llu tokens",
                (unsigned long long)kv->count);
    for (uint64_t i = 0; i < kv->count; i++) l->tokens[i] = qsi_gguf_arr_str(kv, i);
    memset(l->types, QSI_TOK_NORMAL, (size_t)kv->count);
    l->spec.tokens = l->tokens;
    l->spec.types = l->types;
    l->spec.n_tokens = (int64_t)kv->count;
    QS_TRY(check_scores(g, kv->count, err));
    if (qsi_gguf_find(g, KEY "token_type") == NULL) return QS_OK;
    QS_TRY(find_array(g, KEY "token_type", false, QSI_VOCAB_MAX, &types, err));
    if (types->count != kv->count)
        QS_FAIL(err, QS_E_FORMAT, "the vocabulary has %llu tokens but %llu token types",
                (unsigned long long)kv->count, (unsigned long long)types->count);
    if (types->elem == QSI_GV_F32 || types->elem == QSI_GV_F64)
        QS_FAIL(err, QS_E_FORMAT, "key " KEY "token_type is not an array of integers");
    for (uint64_t i = 0; i < types->count; i++) {
        int64_t t = qsi_gguf_arr_i64(types, i);
        l->types[i] = t < 0 || t > 255 ? 255 : (uint8_t)t;
    }
done:
    return st;
}

static qs_status load_merges(loader *l, const qsi_gguf *g, qs_err *err) {
    qs_status st = QS_OK;
    const qsi_gguf_kv *kv;
    QS_TRY(find_array(g, KEY "merges", true, QSI_VOCAB_MAX, &kv, err));
    l->left = qsi_alloc((size_t)kv->count, sizeof *l->left);
    l->right = qsi_alloc((size_t)kv->count, sizeof *l->right);
    if (l->left == NULL || l->right == NULL)
        QS_FAIL(err, QS_E_NOMEM, "out of memory for %llu merges", (unsigned long long)kv->count);
    for (uint64_t i = 0; i < kv->count; i++) {
        qsi_slice s = qsi_gguf_arr_str(kv, i);
        if (!qsi_split_merge(s, &l->left[i], &l->right[i]))
            QS_FAIL(err, QS_E_FORMAT, "merge %llu is not two tokens with one space between them",
                    (unsigned long long)i);
    }
    l->spec.left = l->left;
    l->spec.right = l->right;
    l->spec.n_merges = (int64_t)kv->count;
done:
    return st;
}

bool qsi_split_merge(qsi_slice s, qsi_slice *left, qsi_slice *right) {
    const char *space = s.n == 0 ? NULL : memchr(s.p, ' ', s.n);
    if (space == NULL) return false;
    *left = (qsi_slice){s.p, (size_t)(space - s.p)};
    *right = (qsi_slice){space + 1, s.n - left->n - 1};
    return left->n > 0 && right->n > 0 && memchr(right->p, ' ', right->n) == NULL;
}

/* A key that may be missing: *out keeps its value then. */
static qs_status optional_id(const qsi_gguf *g, const char *key, int64_t *out, qs_err *err) {
    if (qsi_gguf_find(g, key) == NULL) return QS_OK;
    return qsi_gguf_i64(g, key, out, err);
}

static const char *const fim_keys[][2] = { /* and what they were called at first */
    {KEY "fim_pre_token_id", KEY "prefix_token_id"},
    {KEY "fim_suf_token_id", KEY "suffix_token_id"},
    {KEY "fim_mid_token_id", KEY "middle_token_id"},
};

static qs_status load_fim(qsi_vocab_spec *spec, const qsi_gguf *g, qs_err *err) {
    qs_status st = QS_OK;
    for (int i = 0; i < 3; i++) {
        int64_t id = -1;
        QS_TRY(optional_id(g, fim_keys[i][1], &id, err));
        QS_TRY(optional_id(g, fim_keys[i][0], &id, err));
        spec->fim[i] = id < INT32_MAX ? id + 1 : id;
    }
done:
    return st;
}

static qs_status optional_bool(const qsi_gguf *g, const char *key, bool *out, qs_err *err) {
    if (qsi_gguf_find(g, key) == NULL) return QS_OK;
    return qsi_gguf_bool(g, key, out, err);
}

/* The pre-tokenizer of a file that does not name one (files before 2024-05), by what vocabulary it
 * has: a token that only this vocabulary has at that id. Source: deepseek-facts 3. */
static qs_status recognise(const qsi_gguf *g, qsi_slice *pre, qs_err *err) {
    static const char bos[] = "<\xef\xbd\x9c" "begin\xe2\x96\x81of\xe2\x96\x81sentence\xef\xbd\x9c>";
    static const struct {
        uint64_t id, least, most; /* of the token; sizes of the vocabulary */
        const char *token, *pre;
    } known[] = {
        {100000, 100002, 102400, bos, "deepseek-llm"},
        {32013, 32015, 32256, bos, "deepseek-coder"},
        {0, 128000, 129280, bos, "deepseek-v3"},
        {128000, 128256, 128256, bos, "llama-bpe"},
        {128000, 128256, 128256, "<|begin_of_text|>", "llama-bpe"},
        {151646, 151647, 152064, bos, "deepseek-r1-qwen"},
        {151643, 151644, 152064, "<|endoftext|>", "qwen2"},
    };
    qs_status st = QS_OK;
    const qsi_gguf_kv *kv = NULL;
    QS_TRY(find_array(g, KEY "tokens", true, QSI_VOCAB_MAX, &kv, err));
    for (size_t i = 0; i < QSI_COUNT(known); i++) {
        if (kv->count < known[i].least || kv->count > known[i].most) continue;
        qsi_slice s = qsi_gguf_arr_str(kv, known[i].id);
        if (s.n != strlen(known[i].token) || memcmp(s.p, known[i].token, s.n) != 0) continue;
        *pre = (qsi_slice){known[i].pre, strlen(known[i].pre)};
        goto done;
    }
    QS_FAIL(err, QS_E_UNSUPPORTED,
            "the file does not name its pre-tokenizer (" KEY "pre), and its %llu tokens are none of the "
            "vocabularies known here", (unsigned long long)kv->count);
done:
    return st;
}

static qs_status load_scalars(loader *l, const qsi_gguf *g, qs_err *err) {
    qs_status st = QS_OK;
    qsi_slice s;
    qsi_vocab_spec *spec = &l->spec;
    if (qsi_gguf_find(g, KEY "model") == NULL)
        QS_FAIL(err, QS_E_FORMAT, "the file has no vocabulary: key " KEY "model is missing");
    QS_TRY(qsi_gguf_str(g, KEY "model", &s, err));
    if (s.n != 4 || memcmp(s.p, "gpt2", 4) != 0)
        QS_FAIL(err, QS_E_UNSUPPORTED, "tokenizers of kind '%.*s' are not supported (only gpt2)",
                (int)(s.n < 40 ? s.n : 40), s.p);
    if (qsi_gguf_find(g, KEY "pre") == NULL) QS_TRY(recognise(g, &s, err));
    else QS_TRY(qsi_gguf_str(g, KEY "pre", &s, err));
    if (s.n >= sizeof l->pre) s.n = sizeof l->pre - 1;
    if (s.n > 0) memcpy(l->pre, s.p, s.n);
    l->pre[s.n] = '\0';
    spec->pre = l->pre;
    spec->bos = spec->eos = spec->pad = -1;
    QS_TRY(optional_id(g, KEY "bos_token_id", &spec->bos, err));
    QS_TRY(optional_id(g, KEY "eos_token_id", &spec->eos, err));
    QS_TRY(optional_id(g, KEY "padding_token_id", &spec->pad, err));
    QS_TRY(load_fim(spec, g, err));
    spec->add_bos = spec->bos >= 0;
    QS_TRY(optional_bool(g, KEY "add_bos_token", &spec->add_bos, err));
    QS_TRY(optional_bool(g, KEY "add_eos_token", &spec->add_eos, err));
    QS_TRY(optional_bool(g, NFC, &spec->nfc, err));
    if (qsi_gguf_find(g, "tokenizer.chat_template") != NULL)
        QS_TRY(qsi_gguf_str(g, "tokenizer.chat_template", &spec->chat_template, err));
done:
    return st;
}

qs_status qsi_vocab_load_gguf(qsi_vocab **v, const qsi_gguf *g, qs_err *err) {
    qs_status st = QS_OK;
    loader l = {0};
    QS_TRY(load_scalars(&l, g, err));
    QS_TRY(load_tokens(&l, g, err));
    QS_TRY(load_merges(&l, g, err));
    QS_TRY(qsi_vocab_build(v, &l.spec, err));
done:
    loader_release(&l);
    return st;
}

/* ---- writing ---- */

static qs_status save_merges(const qsi_vocab *v, qsi_gguf_writer *w) {
    qs_status st = QS_OK;
    size_t n = (size_t)v->n_merges, total = 0, pos = 0;
    qsi_slice *list = qsi_alloc(n, sizeof *list);
    char *text = NULL;
    for (size_t i = 0; i < n; i++)
        total += v->text[v->merge_list[i] >> 32].n + v->text[(uint32_t)v->merge_list[i]].n + 1;
    text = qsi_alloc(total, 1);
    if (list == NULL || text == NULL) {
        st = QS_E_NOMEM;
        goto done;
    }
    for (size_t i = 0; i < n; i++) {
        qsi_slice l = v->text[v->merge_list[i] >> 32], r = v->text[(uint32_t)v->merge_list[i]];
        list[i] = (qsi_slice){text + pos, l.n + r.n + 1};
        memcpy(text + pos, l.p, l.n);
        text[pos + l.n] = ' ';
        memcpy(text + pos + l.n + 1, r.p, r.n);
        pos += list[i].n;
    }
    QS_TRY(qsi_gguf_put_arr_str(w, KEY "merges", list, n));
done:
    qsi_free(list);
    qsi_free(text);
    return st;
}

static qs_status save_types(const qsi_vocab *v, qsi_gguf_writer *w) {
    qs_status st = QS_OK;
    int32_t *types = qsi_alloc((size_t)v->n, sizeof *types);
    if (types == NULL) return QS_E_NOMEM;
    for (int32_t i = 0; i < v->n; i++) types[i] = v->type[i];
    QS_TRY(qsi_gguf_put_arr_i32(w, KEY "token_type", types, (size_t)v->n));
done:
    qsi_free(types);
    return st;
}

static qs_status save_id(qsi_gguf_writer *w, const char *key, int32_t id) {
    return id < 0 ? QS_OK : qsi_gguf_put_u32(w, key, (uint32_t)id);
}

qs_status qsi_vocab_save_gguf(const qsi_vocab *v, qsi_gguf_writer *w, qs_err *err) {
    qs_status st = QS_OK;
    QS_TRY(qsi_gguf_put_str(w, KEY "model", "gpt2", 4));
    QS_TRY(qsi_gguf_put_str(w, KEY "pre", v->pre, strlen(v->pre)));
    QS_TRY(qsi_gguf_put_arr_str(w, KEY "tokens", v->text, (size_t)v->n));
    QS_TRY(save_types(v, w));
    QS_TRY(save_merges(v, w));
    QS_TRY(save_id(w, KEY "bos_token_id", v->bos));
    QS_TRY(save_id(w, KEY "eos_token_id", v->eos));
    QS_TRY(save_id(w, KEY "padding_token_id", v->pad));
    for (int i = 0; i < 3; i++) QS_TRY(save_id(w, fim_keys[i][0], v->fim[i]));
    QS_TRY(qsi_gguf_put_bool(w, KEY "add_bos_token", v->add_bos));
    QS_TRY(qsi_gguf_put_bool(w, KEY "add_eos_token", v->add_eos));
    if (v->nfc) QS_TRY(qsi_gguf_put_bool(w, NFC, true));
    if (v->chat_template.n > 0)
        QS_TRY(qsi_gguf_put_str(w, "tokenizer.chat_template", v->chat_template.p,
                                v->chat_template.n));
done:
    if (st != QS_OK) qsi_err_set(err, st, "cannot write the vocabulary's keys");
    return st;
}
