/* A tensor is a row of blocks from end to end, so it is cut into pieces of PIECE values, which every
 * block size divides. The bytes of a round are gathered as the source gives them, workers decode and
 * encode its pieces, then it is written. What an earlier run wrote is not made again (gguf.h). */
#include "files/convert.h"

#include <inttypes.h>
#include <math.h>
#include <stdatomic.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "files/model_source.h"
#include "quant/fit.h"
#include "sys/file.h"
#include "sys/pool.h"

enum {
    PIECE = 1 << 16,     /* values decoded at a time */
    PIECES_A_WORKER = 4  /* of a round */
};

typedef struct converting {
    const qsi_convert_opts *o;
    qsi_msource *src;
    qsi_gguf_writer *w;
    qsi_config config;
    qsi_pool *pool;
    qsi_type *types;  /* what each tensor becomes */
    float *values;    /* [workers, PIECE] */
    float *weights;   /* [workers, PIECE], with an importance matrix */
    int64_t weighed, unweighed; /* tensors encoded with importance, and without */
    int64_t no_numbers; /* tensors whose source has NaN or infinity */
    uint8_t *gathered; /* [pieces of a round, PIECE floats]: the source's bytes of a round */
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

static bool is_dropped_key(void *user, const char *key) {
    const converting *x = user;
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
    QS_TRY(qsi_msource_put_keys(x->src, x->w, is_dropped_key, x, err));
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

/* A rule that changes nothing is a slip of the pen, which is better known before hours of work. */
static qs_status check_rules(const converting *x, qs_err *err) {
    qs_status st = QS_OK;
    size_t n = qsi_msource_n_tensors(x->src), named = 0;
    const char **names = qsi_alloc(n, sizeof *names);
    if (names == NULL) QS_FAIL(err, QS_E_NOMEM, "out of memory writing a model");
    for (size_t i = 0; i < qsi_config_n_tensors(&x->config) && named < n; i++) {
        qsi_tensor_spec spec;
        qsi_config_tensor(&x->config, i, &spec);
        size_t at = qsi_msource_find(x->src, spec.name);
        if (at < n) names[named++] = qsi_msource_tensor(x->src, at)->name;
    }
    const char *idle = qsi_type_rules_idle(x->o->rules, names, named);
    if (idle != NULL)
        QS_FAIL(err, QS_E_ARG, "no tensor has a name in which the expression '%.80s' is found ('qiusuo "
                "info --tensors' lists the names)", idle);
done:
    qsi_free(names);
    return st;
}

/* A model without some of its tensors would become another that nobody can use. Only an output matrix
 * may be missing: it is the embedding's twin then. */
static qs_status check_whole(const converting *x, qs_err *err) {
    enum { NAMED = 3 };
    qs_status st = QS_OK;
    size_t missing = 0, n = qsi_msource_n_tensors(x->src);
    qsi_str names = {0};
    for (size_t i = 0; i < qsi_config_n_tensors(&x->config); i++) {
        qsi_tensor_spec spec;
        qsi_config_tensor(&x->config, i, &spec);
        if (qsi_msource_find(x->src, spec.name) < n || strcmp(spec.name, "output.weight") == 0) continue;
        if (missing++ < NAMED)
            QS_TRY(qsi_str_printf(&names, "%s%s", names.len > 0 ? ", " : "", spec.name));
    }
    if (missing == 1)
        QS_FAIL(err, QS_E_FORMAT, "tensor %s is missing: the file is not whole", names.data);
    if (missing > 1)
        QS_FAIL(err, QS_E_FORMAT, "%zu tensors are missing: %s%s: the file is not whole", missing,
                names.data, missing > NAMED ? ", ..." : "");
done:
    qsi_str_release(&names);
    return st;
}

/* Types of the tensors that the configuration names, by the mix. */
static qs_status choose_types(converting *x, qs_err *err) {
    qs_status st = QS_OK;
    qs_err why = {0};
    int64_t other = 0, again = 0;
    for (size_t i = 0; i < qsi_msource_n_tensors(x->src); i++)
        x->types[i] = qsi_msource_tensor(x->src, i)->type;
    bool plain = x->o->mix == NULL && x->o->rules == NULL;
    st = qsi_msource_config(x->src, &x->config, &why);
    if (st == QS_E_UNSUPPORTED && plain) return QS_OK; /* of another architecture: copied as it is */
    if (st != QS_OK) QS_FAIL(err, st, "%s", why.text);
    QS_TRY(check_whole(x, err));
    if (plain) goto done;
    QS_TRY(check_rules(x, err));
    for (size_t i = 0; i < qsi_config_n_tensors(&x->config); i++) {
        qsi_tensor_spec spec;
        qsi_type asked = QSI_F32;
        qsi_config_tensor(&x->config, i, &spec);
        size_t at = qsi_msource_find(x->src, spec.name);
        if (at == qsi_msource_n_tensors(x->src)) continue;
        const qsi_gguf_tensor *t = qsi_msource_tensor(x->src, at);
        if (t->ne[0] != spec.ne[0])
            QS_FAIL(err, QS_E_FORMAT, "tensor %s has rows of %" PRId64 " values, the configuration "
                    "wants %" PRId64, t->name, t->ne[0], spec.ne[0]);
        qsi_type type = asked = t->type;
        if (qsi_type_rules_find(x->o->rules, t->name, &asked)) type = qsi_fit_type(&spec, asked);
        else if (x->o->mix != NULL) type = qsi_mix_type(x->o->mix, &x->config, &spec, &asked);
        other += type != asked && spec.n_dims > 1 && spec.role != QSI_ROLE_ROUTER;
        const qsi_type_info *ti = qsi_type_get((int32_t)t->type);
        again += type != t->type && ti->block > 1;
        x->types[at] = type;
        if (type != t->type && ti->decode == NULL)
            QS_FAIL(err, QS_E_UNSUPPORTED, "tensor %s has type %s, which cannot be read here: take "
                    "the original weights", t->name, ti->name);
    }
    if (x->o->check) goto done; /* notes are for those who write */
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
    for (size_t i = 0; i < qsi_msource_n_tensors(x->src); i++) {
        const qsi_gguf_tensor *t = qsi_msource_tensor(x->src, i);
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

static qs_status copy_bytes(void *user, const void *p, size_t n, qs_err *err) {
    qs_status st = QS_OK;
    converting *x = user;
    QS_TRY(qsi_gguf_write(x->w, p, n, err));
    QS_TRY(tell(x, (int64_t)n, err));
done:
    return st;
}

typedef struct round_job {
    converting *x;
    const qsi_gguf_tensor *t;
    const qsi_type_info *from, *to;
    int64_t first, n, values; /* pieces of this round; values of the tensor */
    size_t have; /* bytes gathered of the round */
    const float *importance;  /* [matrices, columns]; NULL: none */
    atomic_bool no_numbers, lost; /* the source has values that are none; the result alone has some */
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

static bool all_numbers(const float *v, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        if (!isfinite(v[i])) return false;
    return true;
}

/* Halves end at 65504, as values and as scales: what was encoded is looked at again. `values` are
 * those that were, and are overwritten. */
static void look_again(round_job *j, const uint8_t *encoded, float *values, int64_t n) {
    if (!all_numbers(values, n)) {
        atomic_store(&j->no_numbers, true);
        return;
    }
    j->to->decode(encoded, values, n);
    if (!all_numbers(values, n)) atomic_store(&j->lost, true);
}

static void run_round(const qsi_worker *wk, void *arg) {
    round_job *j = arg;
    float *values = j->x->values + (size_t)wk->index * PIECE;
    float *weights = j->x->weights != NULL ? j->x->weights + (size_t)wk->index * PIECE : NULL;
    if (wk->index == 0) qsi_ticket_reset(wk);
    qsi_barrier(wk);
    for (int64_t i; (i = qsi_ticket(wk)) < j->n;) {
        size_t from = 0;
        int64_t piece = j->first + i, n = piece_values(j, piece);
        QS_CHECK(qsi_row_bytes(j->from, i * PIECE, &from));
        j->from->decode(j->x->gathered + from, values, n);
        const float *w = importance_of(j, piece * PIECE, n, weights);
        uint8_t *encoded = j->x->encoded + (size_t)i * PIECE * sizeof(float);
        qsi_quant_fit(j->to, values, w, encoded, n);
        look_again(j, encoded, values, n);
    }
}

/* Bytes of the round that is gathered now: the tensor's last one may be short. */
static size_t round_bytes(const round_job *j) {
    size_t bytes = 0;
    int64_t left = j->values - j->first * PIECE;
    int64_t n = left < j->x->most * PIECE ? left : j->x->most * PIECE;
    QS_CHECK(qsi_row_bytes(j->from, n, &bytes));
    return bytes;
}

/* Encodes and writes the round that is gathered. */
static qs_status finish_round(round_job *j, qs_err *err) {
    qs_status st = QS_OK;
    converting *x = j->x;
    int64_t pieces = (j->values + PIECE - 1) / PIECE;
    j->n = pieces - j->first < x->most ? pieces - j->first : x->most;
    qsi_pool_run_alloc(x->pool, run_round, j);
    if (atomic_load(&j->lost))
        QS_FAIL(err, QS_E_RANGE, "tensor %s has values too large for %s: BF16 and F32 hold them",
                j->t->name, j->to->name);
    for (int64_t i = 0; i < j->n; i++) {
        size_t out = 0;
        QS_CHECK(qsi_row_bytes(j->to, piece_values(j, j->first + i), &out));
        QS_TRY(qsi_gguf_write(x->w, x->encoded + (size_t)i * PIECE * sizeof(float), out, err));
    }
    QS_TRY(tell(x, (int64_t)j->have, err));
    j->first += j->n;
    j->have = 0;
done:
    return st;
}

static qs_status gather(void *user, const void *p, size_t n, qs_err *err) {
    qs_status st = QS_OK;
    round_job *j = user;
    const uint8_t *from = p;
    while (n > 0) {
        size_t want = round_bytes(j), some = want - j->have < n ? want - j->have : n;
        memcpy(j->x->gathered + j->have, from, some);
        j->have += some;
        from += some;
        n -= some;
        if (j->have == want) QS_TRY(finish_round(j, err));
    }
done:
    return st;
}

static qs_status encode_tensor(converting *x, size_t i, qs_err *err) {
    qs_status st = QS_OK;
    float *importance = NULL;
    const qsi_gguf_tensor *t = qsi_msource_tensor(x->src, i);
    if (x->o->imatrix != NULL)
        QS_TRY(qsi_imatrix_weights(x->o->imatrix, t->name, t->ne[0], t->ne[2] * t->ne[3],
                                   &importance, err));
    x->weighed += importance != NULL;
    x->unweighed += importance == NULL;
    round_job j = {.x = x, .t = t, .importance = importance, .from = qsi_type_get((int32_t)t->type),
                   .to = qsi_type_get((int32_t)x->types[i]),
                   .values = t->ne[0] * t->ne[1] * t->ne[2] * t->ne[3]};
    QS_TRY(qsi_msource_read(x->src, i, gather, &j, err));
    x->no_numbers += atomic_load(&j.no_numbers);
done:
    qsi_free(importance);
    return st;
}

static qs_status reserve(converting *x, qs_err *err) {
    qs_status st = QS_OK;
    QS_TRY(qsi_pool_create(&x->pool, x->o->threads, err));
    size_t workers = (size_t)qsi_pool_size(x->pool);
    x->most = (int64_t)workers * PIECES_A_WORKER;
    x->types = qsi_calloc(qsi_msource_n_tensors(x->src), sizeof *x->types);
    x->gathered = qsi_alloc((size_t)x->most * PIECE, sizeof(float));
    x->values = qsi_alloc(workers * PIECE, sizeof *x->values);
    if (x->o->imatrix != NULL) {
        x->weights = qsi_alloc(workers * PIECE, sizeof *x->weights);
        if (x->weights == NULL) QS_FAIL(err, QS_E_NOMEM, "out of memory writing a model");
    }
    x->encoded = qsi_alloc((size_t)x->most * PIECE, sizeof(float)); /* no type is wider */
    if (!x->types || !x->values || !x->gathered || !x->encoded)
        QS_FAIL(err, QS_E_NOMEM, "out of memory writing a model");
done:
    return st;
}

/* Says what an earlier run left, if it left anything; counts its tensors as done. */
static void tell_resumed(converting *x, const char *dst, const qsi_resume *r, size_t first) {
    if (r->other_source || r->other_options)
        qsi_log(QSI_LOG_NOTE, "'%s.part' was begun %s: it is written anew", dst,
                r->other_source ? "from another source, or the source has changed"
                                : "with other options");
    if (first == 0) return; /* nothing, or the head alone */
    qsi_log(QSI_LOG_NOTE, "'%s' goes on where it was stopped: %zu of %zu tensors are there", dst, first,
            qsi_msource_n_tensors(x->src));
    for (size_t i = 0; i < first; i++) x->done += (int64_t)qsi_msource_tensor(x->src, i)->bytes;
}

static qs_status write_all(converting *x, const char *dst, qs_err *err) {
    qs_status st = QS_OK;
    qsi_resume r = {0};
    size_t first = 0;
    char need[QSI_SIZE_TEXT], have[QSI_SIZE_TEXT];
    QS_TRY(put_keys(x, err));
    QS_TRY(declare_all(x, err));
    QS_TRY(qsi_gguf_begin(x->w, &r, &first, err));
    tell_resumed(x, dst, &r, first);
    uint64_t room = qsi_disk_free(dst) + r.bytes;
    if (room < x->need)
        QS_FAIL(err, QS_E_IO, "cannot write '%s': it needs %s, the disk has %s free", dst,
                qsi_size_text(need, x->need), qsi_size_text(have, room));
    for (size_t i = first; i < qsi_msource_n_tensors(x->src); i++) {
        if (x->types[i] != qsi_msource_tensor(x->src, i)->type) QS_TRY(encode_tensor(x, i, err));
        else QS_TRY(qsi_msource_read(x->src, i, copy_bytes, x, err));
    }
    if (x->o->imatrix != NULL) QS_TRY(qsi_imatrix_intact(x->o->imatrix, err));
    QS_TRY(qsi_gguf_finish(&x->w, err));
    if (x->o->imatrix != NULL && first == 0)
        qsi_log(QSI_LOG_NOTE, "%" PRId64 " tensors were encoded by the importance matrix, %" PRId64
                " without: it holds nothing for them", x->weighed, x->unweighed);
    if (x->no_numbers > 0)
        qsi_log(QSI_LOG_WARN, "%" PRId64 " tensor%s values that are no numbers, in the source already "
                "('qiusuo info --verify' says which)", x->no_numbers,
                x->no_numbers == 1 ? " has" : "s have");
done:
    return st;
}

/* What is kept for the next run, and what is not worth it: bytes of a source that is no good, or that
 * changed while they were read. */
static void close_writer(converting *x, qs_status st) {
    bool lost = x->src != NULL && qsi_msource_intact(x->src, NULL) != QS_OK;
    if (!lost && x->o->imatrix != NULL) lost = qsi_imatrix_intact(x->o->imatrix, NULL) != QS_OK;
    if (lost) qsi_gguf_writer_abort(&x->w);
    else if (st == QS_E_CANCELLED || st == QS_E_IO || st == QS_E_NOMEM) qsi_gguf_writer_leave(&x->w);
    else qsi_gguf_writer_abort(&x->w);
}

qs_status qsi_convert(const char *src, const char *dst, const qsi_convert_opts *o, qs_err *err) {
    qs_status st = QS_OK;
    converting x = {.o = o};
    if (dst[0] == '\0') QS_FAIL(err, QS_E_ARG, "the file to write has no name");
    QS_TRY(qsi_path_apart(src, dst, err));
    QS_TRY(qsi_msource_open(&x.src, src, err));
    QS_TRY(reserve(&x, err));
    st = choose_types(&x, err);
    if (st != QS_OK) {
        qsi_err_prefix(err, "cannot convert '%s'", src);
        goto done;
    }
    if (o->check) goto done;
    qsi_origin origin = {.source = qsi_msource_stamp(x.src),
                         .options = o->imatrix != NULL ? qsi_imatrix_digest(o->imatrix) : 0};
    QS_TRY(qsi_gguf_writer_open_part(&x.w, dst, origin, err));
    QS_TRY(write_all(&x, dst, err));
done:
    close_writer(&x, st);
    qsi_msource_close(&x.src);
    qsi_pool_free(x.pool);
    qsi_free(x.types);
    qsi_free(x.values);
    qsi_free(x.weights);
    qsi_free(x.gathered);
    qsi_free(x.encoded);
    return st;
}
