/* A GGUF's bytes come from its mapping, a folder's through hf_import.c. */
#include "files/model_source.h"

#include <string.h>

#include "base/mem.h"
#include "sys/file.h"

enum { COPY = 1 << 22 /* bytes given at a time */ };

struct qsi_msource {
    qsi_gguf *g; /* either this */
    qsi_hf *hf;  /* or that */
};

qs_status qsi_msource_open(qsi_msource **out, const char *path, qs_err *err) {
    qs_status st = QS_OK;
    qsi_msource *s = qsi_calloc(1, sizeof *s);
    if (s == NULL) QS_FAIL(err, QS_E_NOMEM, "out of memory reading '%s'", path);
    if (qsi_path_is_dir(path)) {
        st = qsi_hf_open(&s->hf, path, err);
        if (st != QS_OK) qsi_err_prefix(err, "cannot use '%s'", path);
    } else {
        st = qsi_gguf_open(&s->g, path, err);
    }
    if (st != QS_OK) goto done;
    if (qsi_msource_n_tensors(s) == 0)
        QS_FAIL(err, QS_E_UNSUPPORTED, "'%s' is a vocabulary without weights", path);
    *out = s;
    s = NULL;
done:
    qsi_msource_close(&s);
    return st;
}

void qsi_msource_close(qsi_msource **ps) {
    qsi_msource *s = *ps;
    *ps = NULL;
    if (s == NULL) return;
    qsi_gguf_close(&s->g);
    qsi_hf_close(&s->hf);
    qsi_free(s);
}

qs_status qsi_msource_config(const qsi_msource *s, qsi_config *out, qs_err *err) {
    if (s->g != NULL) return qsi_config_from_gguf(out, s->g, err);
    *out = *qsi_hf_config(s->hf);
    return QS_OK;
}

qs_status qsi_msource_put_keys(qsi_msource *s, qsi_gguf_writer *w, qsi_drop_key_fn *drop, void *user,
                               qs_err *err) {
    if (s->hf != NULL) return qsi_hf_put_keys(s->hf, w, err); /* it has none that could be dropped */
    for (size_t i = 0; i < qsi_gguf_n_kv(s->g); i++) {
        const qsi_gguf_kv *kv = qsi_gguf_kv_at(s->g, i);
        if (drop != NULL && drop(user, kv->key)) continue;
        qs_status st = qsi_gguf_put_copy(w, kv);
        if (st != QS_OK) return qsi_err_set(err, st, "cannot copy key %s", kv->key);
    }
    return QS_OK;
}

size_t qsi_msource_n_tensors(const qsi_msource *s) {
    return s->g != NULL ? qsi_gguf_n_tensors(s->g) : qsi_hf_n_tensors(s->hf);
}

const qsi_gguf_tensor *qsi_msource_tensor(const qsi_msource *s, size_t i) {
    return s->g != NULL ? qsi_gguf_tensor_at(s->g, i) : qsi_hf_tensor(s->hf, i);
}

size_t qsi_msource_find(const qsi_msource *s, const char *name) {
    size_t n = qsi_msource_n_tensors(s), i = 0;
    if (s->g != NULL) {
        const qsi_gguf_tensor *t = qsi_gguf_tensor_find(s->g, name);
        return t != NULL ? (size_t)(t - qsi_gguf_tensor_at(s->g, 0)) : n;
    }
    while (i < n && strcmp(qsi_hf_tensor(s->hf, i)->name, name) != 0) i++;
    return i;
}

qs_status qsi_msource_read(qsi_msource *s, size_t i, qsi_bytes_fn *sink, void *user, qs_err *err) {
    qs_status st = QS_OK;
    if (s->hf != NULL) return qsi_hf_read(s->hf, i, sink, user, err);
    const qsi_gguf_tensor *t = qsi_gguf_tensor_at(s->g, i);
    for (size_t at = 0; at < t->bytes; at += COPY) {
        size_t n = t->bytes - at < COPY ? t->bytes - at : COPY;
        QS_TRY(sink(user, t->data + at, n, err));
        qsi_gguf_drop_bytes(s->g, t->data + at, n);
    }
    QS_TRY(qsi_gguf_intact(s->g, err));
done:
    return st;
}

qs_status qsi_msource_intact(const qsi_msource *s, qs_err *err) {
    return s->hf != NULL ? qsi_hf_intact(s->hf, err) : qsi_gguf_intact(s->g, err);
}

uint64_t qsi_msource_stamp(const qsi_msource *s) {
    return s->hf != NULL ? qsi_hf_stamp(s->hf) : qsi_gguf_stamp(s->g);
}
