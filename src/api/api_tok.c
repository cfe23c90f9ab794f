/* Public tokenizer API: opening from files, and the buffers of encode and decode. */
#include <string.h>

#include "api/api.h"
#include "base/mem.h"
#include "fmt/gguf.h"
#include "qiusuo/tokenizer.h"
#include "sys/file.h"
#include "tok/tok.h"

#define JSON_MAX ((size_t)256 << 20)

struct qs_decoder {
    qsi_detok detok;
    qsi_str text;
};

static qs_status load_gguf(qsi_vocab **v, const char *path, qs_err *err) {
    qs_status st = QS_OK;
    qsi_gguf *g = NULL;
    QS_TRY(qsi_gguf_open(&g, path, err));
    st = qsi_vocab_load_gguf(v, g, err);
    if (st != QS_OK) qsi_err_prefix(err, "cannot use '%s'", path);
done:
    qsi_gguf_close(&g);
    return st;
}

/* The file beside `path` of that name, or one in the folder `path`; missing gives an empty string
 * when it may be missing. */
static qs_status read_beside(const char *path, bool folder, const char *name, bool may_miss,
                             qsi_str *out, qs_err *err) {
    qs_status st = QS_OK;
    qsi_str dir = {0}, file = {0};
    const char *slash = strrchr(path, '/');
    size_t n = folder ? strlen(path) : slash == NULL ? 0 : (size_t)(slash - path) + 1;
    if ((n == 0 ? qsi_str_puts(&dir, ".") : qsi_str_append(&dir, path, n)) != QS_OK ||
        qsi_path_join(&file, dir.data, name) != QS_OK)
        QS_FAIL(err, QS_E_NOMEM, "out of memory");
    if (may_miss && !qsi_path_exists(file.data)) goto done;
    QS_TRY(qsi_file_read(file.data, JSON_MAX, out, err));
done:
    qsi_str_release(&dir);
    qsi_str_release(&file);
    return st;
}

static qs_status load_json(qsi_vocab **v, const char *path, bool folder, qs_err *err) {
    qs_status st = QS_OK;
    qsi_str json = {0}, config = {0};
    if (folder) QS_TRY(read_beside(path, true, "tokenizer.json", false, &json, err));
    else QS_TRY(qsi_file_read(path, JSON_MAX, &json, err));
    QS_TRY(read_beside(path, folder, "tokenizer_config.json", true, &config, err));
    st = qsi_vocab_load_json(v, json.data == NULL ? "" : json.data, json.len, config.data,
                             config.len, err);
    if (st != QS_OK) qsi_err_prefix(err, "cannot use '%s'", path);
done:
    qsi_str_release(&json);
    qsi_str_release(&config);
    return st;
}

static bool is_json_name(const char *path) {
    size_t n = strlen(path);
    return n > 5 && strcmp(path + n - 5, ".json") == 0;
}

qs_status qs_tokenizer_open(qs_tokenizer **t, const char *path, qs_err *err) {
    qs_status st = QS_OK;
    qs_tokenizer *n = qsi_calloc(1, sizeof(*n));
    if (n == NULL) QS_FAIL(err, QS_E_NOMEM, "out of memory");
    if (qsi_path_is_dir(path)) QS_TRY(load_json(&n->vocab, path, true, err));
    else if (is_json_name(path)) QS_TRY(load_json(&n->vocab, path, false, err));
    else QS_TRY(load_gguf(&n->vocab, path, err));
    *t = n;
    n = NULL;
done:
    qs_tokenizer_close(&n);
    return st;
}

void qs_tokenizer_close(qs_tokenizer **t) {
    if (t == NULL || *t == NULL) return;
    qsi_vocab_free((*t)->vocab);
    qsi_free(*t);
    *t = NULL;
}

int32_t qs_tokenizer_size(const qs_tokenizer *t) { return qsi_vocab_size(t->vocab); }
int32_t qs_tokenizer_bos(const qs_tokenizer *t) { return qsi_vocab_bos(t->vocab); }
int32_t qs_tokenizer_eos(const qs_tokenizer *t) { return qsi_vocab_eos(t->vocab); }
int32_t qs_tokenizer_pad(const qs_tokenizer *t) { return qsi_vocab_pad(t->vocab); }
int qs_tokenizer_add_bos(const qs_tokenizer *t) { return qsi_vocab_add_bos(t->vocab); }
const char *qs_tokenizer_pre(const qs_tokenizer *t) { return qsi_vocab_pre(t->vocab); }
int64_t qs_tokenizer_n_merges(const qs_tokenizer *t) { return qsi_vocab_n_merges(t->vocab); }

static qs_status check_id(const qs_tokenizer *t, int32_t id, qs_err *err) {
    int32_t n = qsi_vocab_size(t->vocab);
    if (id >= 0 && id < n) return QS_OK;
    return qsi_err_set(err, QS_E_RANGE, "id %d is outside the vocabulary of %d tokens", (int)id,
                       (int)n);
}

qs_status qs_tokenizer_token(const qs_tokenizer *t, int32_t id, qs_token_info *info, qs_err *err) {
    qs_status st = QS_OK;
    qsi_slice s;
    QS_TRY(check_id(t, id, err));
    s = qsi_vocab_bytes(t->vocab, id);
    *info = (qs_token_info){.text = s.p,
                            .n = s.n,
                            .type = qsi_vocab_type(t->vocab, id),
                            .ends = qsi_vocab_is_end(t->vocab, id)};
done:
    return st;
}

int32_t qs_tokenizer_find(const qs_tokenizer *t, const char *text, size_t n) {
    return qsi_vocab_find(t->vocab, text, n);
}

qs_status qs_tokenizer_encode(const qs_tokenizer *t, const char *text, size_t n, unsigned flags,
                              int32_t *ids, size_t cap, size_t *n_ids, qs_err *err) {
    qs_status st = QS_OK;
    qsi_ids out = {0};
    unsigned f = (flags & QS_ENCODE_SPECIAL) ? QSI_ENC_SPECIAL : 0u;
    if ((flags & QS_ENCODE_BOS) && qsi_vocab_add_bos(t->vocab)) f |= QSI_ENC_BOS;
    QS_TRY(qsi_encode(t->vocab, text, n, f, &out, err));
    *n_ids = out.len;
    if (out.len > cap)
        QS_FAIL(err, QS_E_LIMIT, "%zu ids do not fit into %zu places", out.len, cap);
    if (out.len > 0) memcpy(ids, out.data, out.len * sizeof(*ids));
done:
    qsi_ids_release(&out);
    return st;
}

qs_status qs_tokenizer_decode(const qs_tokenizer *t, const int32_t *ids, size_t n_ids, int special,
                              char *text, size_t cap, size_t *n, qs_err *err) {
    qs_status st = QS_OK;
    qsi_str out = {0};
    for (size_t i = 0; i < n_ids; i++) QS_TRY(check_id(t, ids[i], err));
    if (qsi_decode(t->vocab, ids, n_ids, special != 0, &out) != QS_OK)
        QS_FAIL(err, QS_E_NOMEM, "out of memory for the text of %zu ids", n_ids);
    *n = out.len;
    if (out.len > cap)
        QS_FAIL(err, QS_E_LIMIT, "%zu bytes do not fit into %zu", out.len, cap);
    if (out.len > 0) memcpy(text, out.data, out.len);
done:
    qsi_str_release(&out);
    return st;
}

qs_status qs_decoder_create(qs_decoder **d, const qs_tokenizer *t, int special, qs_err *err) {
    qs_decoder *n = qsi_calloc(1, sizeof(*n));
    if (n == NULL) return qsi_err_set(err, QS_E_NOMEM, "out of memory");
    qsi_detok_init(&n->detok, t->vocab, special != 0);
    *d = n;
    return QS_OK;
}

void qs_decoder_free(qs_decoder *d) {
    if (d == NULL) return;
    qsi_str_release(&d->text);
    qsi_free(d);
}

static void give(const qs_decoder *d, const char **text, size_t *n) {
    *text = d->text.data == NULL ? "" : d->text.data;
    *n = d->text.len;
}

qs_status qs_decoder_push(qs_decoder *d, int32_t id, const char **text, size_t *n, qs_err *err) {
    qs_status st = QS_OK;
    if (id < 0 || id >= qsi_vocab_size(d->detok.v))
        QS_FAIL(err, QS_E_RANGE, "id %d is outside the vocabulary of %d tokens", (int)id,
                (int)qsi_vocab_size(d->detok.v));
    qsi_str_clear(&d->text);
    if (qsi_detok_push(&d->detok, id, &d->text) != QS_OK)
        QS_FAIL(err, QS_E_NOMEM, "out of memory for the text of an id");
    give(d, text, n);
done:
    return st;
}

qs_status qs_decoder_finish(qs_decoder *d, const char **text, size_t *n, qs_err *err) {
    qs_status st = QS_OK;
    qsi_str_clear(&d->text);
    if (qsi_detok_finish(&d->detok, &d->text) != QS_OK)
        QS_FAIL(err, QS_E_NOMEM, "out of memory for the text of an id");
    give(d, text, n);
done:
    return st;
}
