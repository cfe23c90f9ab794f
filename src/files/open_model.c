/* Why a converted file and not a view over the safetensors: experts must lie one after another for
 * the kernels, q and k rows are permuted, so that most of a DeepSeekMoE would have to be copied
 * into memory anyway; a file lets the system keep only what is used, and the rest of the program
 * knows one format. */
#include "files/open_model.h"

#include <string.h>

#include "base/log.h"
#include "base/str.h"
#include "files/hf_import.h"
#include "fmt/safetensors.h"
#include "sys/file.h"

#define SPARE_BYTES ((uint64_t)64 << 20) /* room left on the disk */
#define TOLD_BYTES ((int64_t)4 << 20) /* between two words of progress */
#define LARGE_BYTES ((uint64_t)256 << 20) /* worth a note */

/* Bytes of the folder's weights: about what the GGUF will need. */
static qs_status weight_bytes(const char *folder, uint64_t *out, qs_err *err) {
    qs_status st = QS_OK;
    qsi_st *s = NULL;
    QS_TRY(qsi_st_open(&s, folder, err));
    *out = qsi_st_bytes(s);
    for (size_t i = 0; i < qsi_st_n_tensors(s); i++) {
        const qsi_st_tensor *t = qsi_st_at(s, i);
        if (strcmp(t->dtype, "F8_E4M3") == 0) *out += t->bytes; /* becomes BF16 */
    }
    qsi_st_close(&s);
done:
    return st;
}

/* A nameless writer in the first place that has room and may be written. */
static qs_status open_somewhere(qsi_gguf_writer **w, const char *folder, uint64_t need,
                                qs_err *err) {
    const char *const places[] = {folder, "/var/tmp", "/tmp"};
    char size[QSI_SIZE_TEXT];
    for (size_t i = 0; i < QSI_COUNT(places); i++) {
        if (qsi_disk_free(places[i]) < need + SPARE_BYTES) continue;
        if (qsi_gguf_writer_open_temp(w, places[i], NULL) != QS_OK) continue;
        if (need >= LARGE_BYTES) {
            qsi_log(QSI_LOG_NOTE, "'%s' is converted to a temporary file of %s in '%s'", folder,
                    qsi_size_text(size, need), places[i]);
        }
        return QS_OK;
    }
    return qsi_err_set(
        err, QS_E_IO,
        "using '%s' needs %s for a temporary file: neither there nor in /var/tmp or /tmp is so much "
        "room", folder, qsi_size_text(size, need + SPARE_BYTES));
}

/* Everything of the folder into w. */
typedef struct copying {
    qsi_gguf_writer *w;
    int (*progress)(void *user, int64_t done, int64_t of);
    void *user;
    int64_t done, told, of; /* bytes */
} copying;

static qs_status copy_bytes(void *user, const void *p, size_t n, qs_err *err) {
    qs_status st = QS_OK;
    copying *c = user;
    QS_TRY(qsi_gguf_write(c->w, p, n, err));
    c->done += (int64_t)n;
    if (c->progress == NULL || (c->done - c->told < TOLD_BYTES && c->done < c->of)) goto done;
    c->told = c->done;
    if (c->progress(c->user, c->done, c->of) != 0) QS_FAIL(err, QS_E_CANCELLED, "cancelled");
done:
    return st;
}

static qs_status copy_folder(const char *folder, copying *c, qs_err *err) {
    qs_status st = QS_OK;
    qsi_hf *h = NULL;
    st = qsi_hf_open(&h, folder, err);
    if (st != QS_OK) qsi_err_prefix(err, "cannot use '%s'", folder);
    QS_TRY(st);
    QS_TRY(qsi_hf_put_keys(h, c->w, err));
    for (size_t i = 0; i < qsi_hf_n_tensors(h); i++) {
        const qsi_gguf_tensor *t = qsi_hf_tensor(h, i);
        QS_TRY(qsi_gguf_declare(c->w, t->name, t->type, t->n_dims, t->ne, err));
        c->of += (int64_t)t->bytes;
    }
    for (size_t i = 0; i < qsi_hf_n_tensors(h); i++) QS_TRY(qsi_hf_read(h, i, copy_bytes, c, err));
done:
    qsi_hf_close(&h);
    return st;
}

qs_status qsi_files_open_model_progress(const char *path, qsi_gguf **g,
                                        int (*progress)(void *user, int64_t done, int64_t of),
                                        void *user, qs_err *err) {
    qs_status st = QS_OK;
    copying c = {.progress = progress, .user = user};
    uint64_t need = 0;
    if (!qsi_path_is_dir(path)) return qsi_gguf_open(g, path, err);
    QS_TRY(weight_bytes(path, &need, err));
    QS_TRY(open_somewhere(&c.w, path, need, err));
    QS_TRY(copy_folder(path, &c, err));
    QS_TRY(qsi_gguf_finish_open(&c.w, path, g, err));
done:
    qsi_gguf_writer_abort(&c.w);
    return st;
}

qs_status qsi_files_open_model(const char *path, qsi_gguf **g, qs_err *err) {
    return qsi_files_open_model_progress(path, g, NULL, NULL, err);
}
