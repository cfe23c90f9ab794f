/* Public tokenizer API: opening from files, and the buffers of encode and decode. */
#include <string.h>

#include "api/api.h"
#include "base/mem.h"
#include "files/vocab_file.h"
#include "qiusuo/tokenizer.h"
#include "tok/tok.h"

struct qs_decoder {
    qsi_detok detok;
    qsi_str text;
};

qs_status qs_tokenizer_open(qs_tokenizer **t, const char *path, qs_err *err) {
    qs_status st = QS_OK;
    qs_tokenizer *n = qsi_calloc(1, sizeof(*n));
    if (n == NULL) QS_FAIL(err, QS_E_NOMEM, "out of memory");
    QS_TRY(qsi_vocab_file_load(&n->vocab, path, err));
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
