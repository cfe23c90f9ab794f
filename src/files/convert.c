/* A tensor is a row of blocks from end to end, so it is cut into pieces of PIECE values, which every
 * block size divides. Workers decode and encode the pieces of a round, then the round is written. */
#include "files/convert.h"

#include <inttypes.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "files/open_model.h"
#include "quant/fit.h"
#include "sys/file.h"
#include "sys/pool.h"

enum {
    PIECE = 1 << 16,     /* values decoded at a time */
    PIECES_A_WORKER = 4, /* of a round */
    COPY = 1 << 22       /* bytes copied at a time */
};

typedef struct converting {
    const qsi_convert_opts *o;
    const qsi_gguf *g;
    qsi_gguf_writer *w;
    qsi_config config;
    qsi_pool *pool;
    qsi_type *types;  /* what each tensor becomes */
    float *values;    /* [workers, PIECE] */
    float *weights;   /* [workers, PIECE], with an importance matrix */
    int64_t weighed, unweighed; /* tensors encoded with importance, and without */
    uint8_t *encoded; /* [pieces of a round, PIECE floats] */
    int64_t most;     /* pieces of a round */
    int64_t done, of; /* bytes of the source */
    uint64_t need;    /* bytes of the result's tensors */
} converting;

static qs_status tell(converting *x, int64_t bytes, qs_err *err) {
    x->done += bytes;
    if (x->o->progress != NULL && x->o->progress(x->o->user, x->done, x->of) != 0)
        return qsi_err_set(err, QS_E_CANCELLED, "cancelled");
    return QS_OK;
}

static bool is_dropped_key(const converting *x, const char *key) {
    static const char *const always[] = {"general.alignment", "split.no", "split.count",
                                         "split.tensors.count"};
    for (size_t i = 0; i < QSI_COUNT(always); i++)
        if (strcmp(key, always[i]) == 0) return true;
    return x->o->mix != NULL && (strcmp(key, "general.file_type") == 0 ||
                                 strcmp(key, "general.quantization_version") == 0 ||
                                 strncmp(key, "quantize.imatrix.", 17) == 0);
}

static qs_status put_keys(converting *x, qs_err *err) {
    qs_status st = QS_OK;
    for (size_t i = 0; i < qsi_gguf_n_kv(x->g); i++) {
        const qsi_gguf_kv *kv = qsi_gguf_kv_at(x->g, i);
        if (!is_dropped_key(x, kv->key)) QS_TRY(qsi_gguf_put_copy(x->w, kv));
    }
    if (x->o->mix == NULL) goto done;
    QS_TRY(qsi_gguf_put_u32(x->w, "general.file_type", (uint32_t)x->o->mix->file_type));
    QS_TRY(qsi_gguf_put_u32(x->w, "general.quantization_version", 2));
    if (x->o->imatrix == NULL) goto done;
    QS_TRY(qsi_gguf_put_u32(x->w, "quantize.imatrix.entries_count",
                            (uint32_t)qsi_imatrix_stat(x->o->imatrix).tensors));
done:
    if (st != QS_OK) st = qsi_err_set(err, st, "cannot put the keys of the new file together");
    return st;
}

/* Types of the tensors that the configuration names, by the mix. */
static qs_status choose_types(converting *x, qs_err *err) {
    qs_status st = QS_OK;
    int64_t other = 0, again = 0;
    for (size_t i = 0; i < qsi_gguf_n_tensors(x->g); i++)
        x->types[i] = qsi_gguf_tensor_at(x->g, i)->type;
    if (x->o->mix == NULL && x->o->rules == NULL) goto done;
    QS_TRY(qsi_config_from_gguf(&x->config, x->g, err));
    for (size_t i = 0; i < qsi_config_n_tensors(&x->config); i++) {
        qsi_tensor_spec spec;
        qsi_type asked = QSI_F32;
        qsi_config_tensor(&x->config, i, &spec);
        const qsi_gguf_tensor *t = qsi_gguf_tensor_find(x->g, spec.name);
        if (t == NULL) continue;
        if (t->ne[0] != spec.ne[0])
            QS_FAIL(err, QS_E_FORMAT, "tensor %s has rows of %" PRId64 " values, the configuration "
                    "wants %" PRId64, t->name, t->ne[0], spec.ne[0]);
        qsi_type type = asked = t->type;
        if (qsi_type_rules_find(x->o->rules, t->name, &asked)) type = qsi_fit_type(&spec, asked);
        else if (x->o->mix != NULL) type = qsi_mix_type(x->o->mix, &x->config, &spec, &asked);
        other += type != asked && spec.n_dims > 1 && spec.role != QSI_ROLE_ROUTER;
        const qsi_type_info *ti = qsi_type_get((int32_t)t->type);
        again += type != t->type && ti->block > 1;
        x->types[t - qsi_gguf_tensor_at(x->g, 0)] = type;
        if (type != t->type && ti->decode == NULL)
            QS_FAIL(err, QS_E_UNSUPPORTED, "tensor %s has type %s, which cannot be read here: take "
                    "the original weights", t->name, ti->name);
    }
    if (other > 0)
        qsi_log(QSI_LOG_NOTE, "rows of %" PRId64 " tensors are no multiple of their type's block: "
                "they are stored in the next larger type", other);
    if (again > 0)
        qsi_log(QSI_LOG_NOTE, "%" PRId64 " tensors were quantised before: the original weights "
                "would give a better file", again);
done:
    return st;
}

static qs_status declare_all(converting *x, qs_err *err) {
    qs_status st = QS_OK;
    for (size_t i = 0; i < qsi_gguf_n_tensors(x->g); i++) {
        const qsi_gguf_tensor *t = qsi_gguf_tensor_at(x->g, i);
        const qsi_type_info *ti = qsi_type_get((int32_t)x->types[i]);
        size_t row = 0;
        QS_TRY(qsi_gguf_declare(x->w, t->name, ti->type, t->n_dims, t->ne, err));
        QS_CHECK(qsi_row_bytes(ti, t->ne[0], &row));
        x->need += (uint64_t)row * (uint64_t)(t->ne[1] * t->ne[2] * t->ne[3]);
        x->of += (int64_t)t->bytes;
    }
done:
    return st;
}

static qs_status copy_tensor(converting *x, const qsi_gguf_tensor *t, qs_err *err) {
    qs_status st = QS_OK;
    for (size_t at = 0; at < t->bytes; at += COPY) {
        size_t n = t->bytes - at < COPY ? t->bytes - at : COPY;
        QS_TRY(qsi_gguf_write(x->w, t->data + at, n, err));
        qsi_gguf_drop_bytes(x->g, t->data + at, n);
        QS_TRY(tell(x, (int64_t)n, err));
    }
done:
    return st;
}

typedef struct round_job {
    const converting *x;
    const qsi_gguf_tensor *t;
    const qsi_type_info *from, *to;
    int64_t first, n, values; /* pieces of this round; values of the tensor */
    const float *importance;  /* [matrices, columns]; NULL: none */
} round_job;

static int64_t piece_values(const round_job *j, int64_t piece) {
    int64_t left = j->values - piece * PIECE;
    return left < PIECE ? left : PIECE;
}

/* The importance of n values from value `at` of the tensor on. */
static const float *importance_of(const round_job *j, int64_t at, int64_t n, float *out) {
    int64_t cols = j->t->ne[0], matrix = cols * j->t->ne[1];
    if (j->importance == NULL) return NULL;
    for (int64_t i = 0; i < n;) {
        int64_t v = at + i, col = v % cols, some = cols - col < n - i ? cols - col : n - i;
        memcpy(out + i, j->importance + v / matrix * cols + col, (size_t)some * sizeof *out);
        i += some;
    }
    return out;
}

static void run_round(const qsi_worker *wk, void *arg) {
    const round_job *j = arg;
    float *values = j->x->values + (size_t)wk->index * PIECE;
    float *weights = j->x->weights != NULL ? j->x->weights + (size_t)wk->index * PIECE : NULL;
    if (wk->index == 0) qsi_ticket_reset(wk);
    qsi_barrier(wk);
    for (int64_t i; (i = qsi_ticket(wk)) < j->n;) {
        size_t from = 0;
        int64_t piece = j->first + i, n = piece_values(j, piece);
        QS_CHECK(qsi_row_bytes(j->from, piece * PIECE, &from));
        j->from->decode(j->t->data + from, values, n);
        const float *w = importance_of(j, piece * PIECE, n, weights);
        qsi_quant_fit(j->to, values, w, j->x->encoded + (size_t)i * PIECE * sizeof(float), n);
    }
}

static qs_status encode_tensor(converting *x, const qsi_gguf_tensor *t, qsi_type type,
                               qs_err *err) {
    qs_status st = QS_OK;
    float *importance = NULL;
    if (x->o->imatrix != NULL)
        QS_TRY(qsi_imatrix_weights(x->o->imatrix, t->name, t->ne[0], t->ne[2] * t->ne[3],
                                   &importance, err));
    x->weighed += importance != NULL;
    x->unweighed += importance == NULL;
    round_job j = {.x = x, .t = t, .importance = importance, .from = qsi_type_get((int32_t)t->type),
                   .to = qsi_type_get((int32_t)type),
                   .values = t->ne[0] * t->ne[1] * t->ne[2] * t->ne[3]};
    int64_t pieces = (j.values + PIECE - 1) / PIECE;
    for (; j.first < pieces; j.first += j.n) {
        size_t read = 0, from = 0;
        j.n = pieces - j.first < x->most ? pieces - j.first : x->most;
        qsi_pool_run_alloc(x->pool, run_round, &j);
        QS_CHECK(qsi_row_bytes(j.from, j.first * PIECE, &from));
        for (int64_t i = 0; i < j.n; i++) {
            size_t in = 0, out = 0;
            int64_t n = piece_values(&j, j.first + i);
            QS_CHECK(qsi_row_bytes(j.from, n, &in) && qsi_row_bytes(j.to, n, &out));
            QS_TRY(qsi_gguf_write(x->w, x->encoded + (size_t)i * PIECE * sizeof(float), out, err));
            read += in;
        }
        qsi_gguf_drop_bytes(x->g, t->data + from, read);
        QS_TRY(tell(x, (int64_t)read, err));
    }
done:
    qsi_free(importance);
    return st;
}

static qs_status reserve(converting *x, qs_err *err) {
    qs_status st = QS_OK;
    QS_TRY(qsi_pool_create(&x->pool, x->o->threads, err));
    size_t workers = (size_t)qsi_pool_size(x->pool);
    x->most = (int64_t)workers * PIECES_A_WORKER;
    x->types = qsi_calloc(qsi_gguf_n_tensors(x->g), sizeof *x->types);
    x->values = qsi_alloc(workers * PIECE, sizeof *x->values);
    if (x->o->imatrix != NULL) {
        x->weights = qsi_alloc(workers * PIECE, sizeof *x->weights);
        if (x->weights == NULL) QS_FAIL(err, QS_E_NOMEM, "out of memory writing a model");
    }
    x->encoded = qsi_alloc((size_t)x->most * PIECE, sizeof(float)); /* no type is wider */
    if (!x->types || !x->values || !x->encoded)
        QS_FAIL(err, QS_E_NOMEM, "out of memory writing a model");
done:
    return st;
}

static qs_status write_all(converting *x, const char *dst, qs_err *err) {
    qs_status st = QS_OK;
    char need[QSI_SIZE_TEXT], have[QSI_SIZE_TEXT];
    QS_TRY(put_keys(x, err));
    QS_TRY(declare_all(x, err));
    uint64_t room = qsi_disk_free(dst);
    if (room < x->need)
        QS_FAIL(err, QS_E_IO, "cannot write '%s': it needs %s, the disk has %s free", dst,
                qsi_size_text(need, x->need), qsi_size_text(have, room));
    for (size_t i = 0; i < qsi_gguf_n_tensors(x->g); i++) {
        const qsi_gguf_tensor *t = qsi_gguf_tensor_at(x->g, i);
        if (x->types[i] == t->type) QS_TRY(copy_tensor(x, t, err));
        else QS_TRY(encode_tensor(x, t, x->types[i], err));
    }
    QS_TRY(qsi_gguf_intact(x->g, err));
    QS_TRY(qsi_gguf_finish(&x->w, err));
    if (x->o->imatrix != NULL)
        qsi_log(QSI_LOG_NOTE, "%" PRId64 " tensors were encoded by the importance matrix, %" PRId64
                " without: it holds nothing for them", x->weighed, x->unweighed);
done:
    return st;
}

qs_status qsi_convert(const char *src, const char *dst, const qsi_convert_opts *o, qs_err *err) {
    qs_status st = QS_OK;
    qsi_gguf *g = NULL;
    converting x = {.o = o};
    if (strcmp(src, dst) == 0)
        QS_FAIL(err, QS_E_ARG, "'%s' cannot become itself: name another file", src);
    QS_TRY(qsi_files_open_model_progress(src, &g, o->progress, o->user, err));
    x.g = g;
    if (qsi_gguf_n_tensors(g) == 0)
        QS_FAIL(err, QS_E_UNSUPPORTED, "'%s' is a vocabulary without weights", src);
    QS_TRY(reserve(&x, err));
    st = choose_types(&x, err);
    if (st != QS_OK) {
        qsi_err_prefix(err, "cannot convert '%s'", src);
        goto done;
    }
    QS_TRY(qsi_gguf_writer_open(&x.w, dst, err));
    QS_TRY(write_all(&x, dst, err));
done:
    qsi_gguf_writer_abort(&x.w);
    qsi_pool_free(x.pool);
    qsi_free(x.types);
    qsi_free(x.values);
    qsi_free(x.weights);
    qsi_free(x.encoded);
    qsi_gguf_close(&g);
    return st;
}
