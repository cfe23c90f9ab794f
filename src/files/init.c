/* Random models. Weights are normal numbers of 65,536 levels: the quantiles of the normal
 * distribution at (k + 1/2) / 65536, picked by 16 random bits, four to a draw. That is some ten
 * times faster than computing logarithms and cosines, and no test of a model could tell the
 * difference: mean 0, the variance within 1e-4, the largest value 4.3 standard deviations. Each
 * piece of a tensor has a random stream of its own (seed; index, piece): all cores make pieces, in
 * rounds, while the round before is written in order. */
#include "files/init.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "files/skew.h"
#include "model/rope_scaling.h"
#include "sys/file.h"
#include "sys/pool.h"

#define SQRT_HALF 0.70710678118654752440
#define SQRT_2PI 2.50662827463100050242
enum {
    LEVELS = 65536,
    PIECE = 1 << 16,       /* values generated at a time */
    PIECES_A_WORKER = 4,   /* of a round */
    MAX_FALLBACKS = 16
};
#define SKEW_STREAM (UINT64_C(1) << 63) /* | layer: who is popular */

/* ---- numbers ---- */

/* quantile[k] = std * x with Phi(x) = (k + 1/2) / LEVELS, by Newton's method from the neighbour. */
static void fill_quantiles(float *quantile, float std) {
    double x = 0;
    for (int k = LEVELS / 2; k < LEVELS; k++) {
        double p = (k + 0.5) / LEVELS;
        for (int step = 0; step < 4; step++) {
            double upper = 0.5 * erfc(x * SQRT_HALF); /* 1 - Phi(x), accurate in the tail */
            double density = exp(-0.5 * x * x) / SQRT_2PI;
            x += (upper - (1 - p)) / density;
        }
        quantile[k] = (float)(std * x);
        quantile[LEVELS - 1 - k] = -quantile[k];
    }
}

static void fill_normal(qsi_rng *r, const float *quantile, float *out, size_t n) {
    size_t i = 0;
    for (; i + 4 <= n; i += 4) {
        uint64_t u = qsi_rng_u64(r);
        out[i] = quantile[u & 0xffff];
        out[i + 1] = quantile[u >> 16 & 0xffff];
        out[i + 2] = quantile[u >> 32 & 0xffff];
        out[i + 3] = quantile[u >> 48];
    }
    for (uint64_t u = i < n ? qsi_rng_u64(r) : 0; i < n; i++, u >>= 16)
        out[i] = quantile[u & 0xffff];
}

/* ---- vocabulary without a vocabulary ---- */

/* The letter that GPT-2's byte alphabet writes for a byte: itself where it is printable, else the
 * next free code point from U+0100. */
static uint32_t byte_letter(int byte) {
    uint32_t next = 256;
    for (int b = 0; b < 256; b++) {
        bool printable = (b >= '!' && b <= '~') || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
        uint32_t letter = printable ? (uint32_t)b : next++;
        if (b == byte) return letter;
    }
    return 0;
}

/* Keys of a vocabulary of n ids: the 256 byte symbols, then [unused0], [unused1], ... */
static qs_status put_plain_vocab(qsi_gguf_writer *w, int32_t n) {
    qs_status st = QS_OK;
    qsi_str text = {0};
    size_t *end = qsi_alloc((size_t)n, sizeof *end);
    qsi_slice *tokens = qsi_alloc((size_t)n, sizeof *tokens);
    int32_t *types = qsi_alloc((size_t)n, sizeof *types);
    if (end == NULL || tokens == NULL || types == NULL) {
        st = QS_E_NOMEM;
        goto done;
    }
    for (int32_t i = 0; i < n; i++) {
        char utf8[4];
        if (i < 256) {
            QS_TRY(qsi_str_append(&text, utf8, (size_t)qsi_utf8_encode(byte_letter(i), utf8)));
        } else {
            QS_TRY(qsi_str_printf(&text, "[unused%" PRId32 "]", i - 256));
        }
        end[i] = text.len;
        types[i] = i < 256 ? QSI_TOK_NORMAL : QSI_TOK_UNUSED;
    }
    for (int32_t i = 0; i < n; i++) {
        size_t begin = i > 0 ? end[i - 1] : 0;
        tokens[i] = (qsi_slice){text.data + begin, end[i] - begin};
    }
    QS_TRY(qsi_gguf_put_str(w, "tokenizer.ggml.model", "gpt2", 4));
    QS_TRY(qsi_gguf_put_str(w, "tokenizer.ggml.pre", "deepseek-llm", 12));
    QS_TRY(qsi_gguf_put_arr_str(w, "tokenizer.ggml.tokens", tokens, (size_t)n));
    QS_TRY(qsi_gguf_put_arr_i32(w, "tokenizer.ggml.token_type", types, (size_t)n));
    QS_TRY(qsi_gguf_put_arr_str(w, "tokenizer.ggml.merges", NULL, 0));
    QS_TRY(qsi_gguf_put_bool(w, "tokenizer.ggml.add_bos_token", false));
    QS_TRY(qsi_gguf_put_bool(w, "tokenizer.ggml.add_eos_token", false));
done:
    qsi_str_release(&text);
    qsi_free(end);
    qsi_free(tokens);
    qsi_free(types);
    return st;
}

/* ---- writing ---- */

typedef struct piece {
    size_t tensor;      /* index in the configuration */
    int64_t begin;      /* first value */
    size_t n, bytes;
    uint8_t *encoded;   /* room for PIECE float32 */
} piece;

typedef struct fallback { /* rows that did not fit their type */
    int64_t row;
    qsi_type asked, got;
    int count;
    char first[64];
} fallback;

typedef struct writing {
    const qsi_init_opts *o;
    qsi_config config;
    qsi_gguf_writer *w;
    qsi_pool *pool;
    float *quantile, *values; /* values: PIECE for every worker */
    uint8_t *encoded;
    piece *round[2];          /* being made; being written */
    size_t n_round[2], most;  /* pieces of a round */
    size_t tensor;            /* the next piece is of this one, */
    int64_t begin;            /* from here */
    float *skew;              /* [n_layer, n_expert] factors, or NULL */
    int64_t done, total;      /* bytes of tensors */
    fallback fallbacks[MAX_FALLBACKS];
    size_t n_fallbacks;
} writing;

static qs_status tell(writing *x, qs_err *err) {
    if (x->o->progress != NULL && x->o->progress(x->o->user, x->done, x->total) != 0) {
        return qsi_err_set(err, QS_E_CANCELLED, "cancelled");
    }
    return QS_OK;
}

static qs_status put_keys(writing *x, qs_err *err) {
    qs_status st = QS_OK;
    const qsi_init_opts *o = x->o;
    QS_TRY(qsi_config_put_gguf(&x->config, x->w));
    QS_TRY(qsi_gguf_put_str(x->w, "general.name", o->name, strlen(o->name)));
    QS_TRY(qsi_gguf_put_u32(x->w, "general.file_type", (uint32_t)o->mix->file_type));
    QS_TRY(qsi_gguf_put_u32(x->w, "general.quantization_version", 2));
    if (o->vocab != NULL) QS_TRY(qsi_vocab_save_gguf(o->vocab, x->w, err));
    else QS_TRY(put_plain_vocab(x->w, x->config.n_vocab));
done:
    if (st == QS_E_NOMEM) st = qsi_err_set(err, st, "out of memory writing a model");
    return st;
}

static void note_fallback(writing *x, const qsi_tensor_spec *t, qsi_type asked, qsi_type got) {
    size_t i = 0;
    while (i < x->n_fallbacks && (x->fallbacks[i].row != t->ne[0] ||
                                  x->fallbacks[i].asked != asked || x->fallbacks[i].got != got))
        i++;
    if (i == MAX_FALLBACKS) return;
    if (i == x->n_fallbacks) {
        x->n_fallbacks++;
        x->fallbacks[i] = (fallback){.row = t->ne[0], .asked = asked, .got = got};
        snprintf(x->fallbacks[i].first, sizeof x->fallbacks[i].first, "%s", t->name);
    }
    x->fallbacks[i].count++;
}

static void say_fallbacks(const writing *x) {
    for (size_t i = 0; i < x->n_fallbacks; i++) {
        const fallback *f = &x->fallbacks[i];
        const qsi_type_info *asked = qsi_type_get((int32_t)f->asked);
        char more[32] = "";
        if (f->count > 1) snprintf(more, sizeof more, " and %d more", f->count - 1);
        qsi_log(QSI_LOG_NOTE,
                "rows of %" PRId64 " values are no multiple of %s's %d: %s%s stored as %s", f->row,
                asked->name, asked->block, f->first, more, qsi_type_get((int32_t)f->got)->name);
    }
}

static qs_status declare_all(writing *x, qs_err *err) {
    qs_status st = QS_OK;
    for (size_t i = 0; i < qsi_config_n_tensors(&x->config); i++) {
        qsi_tensor_spec t;
        qsi_type asked;
        size_t row = 0;
        qsi_config_tensor(&x->config, i, &t);
        qsi_type type = qsi_mix_type(x->o->mix, &x->config, &t, &asked);
        if (type != asked) note_fallback(x, &t, asked, type);
        QS_TRY(qsi_gguf_declare(x->w, t.name, type, t.n_dims, t.ne, err));
        if (!qsi_row_bytes(qsi_type_get((int32_t)type), t.ne[0], &row))
            QS_FAIL(err, QS_E_ARG, "tensor %s: too large", t.name);
        x->total += (int64_t)row * t.ne[1] * t.ne[2];
    }
    say_fallbacks(x);
done:
    return st;
}

/* Lists the next pieces, in the order of the file. */
static void plan_round(writing *x, int which) {
    size_t n = 0;
    while (n < x->most && x->tensor < qsi_config_n_tensors(&x->config)) {
        qsi_tensor_spec t;
        qsi_config_tensor(&x->config, x->tensor, &t);
        int64_t left = t.ne[0] * t.ne[1] * t.ne[2] - x->begin;
        piece *p = &x->round[which][n++];
        p->tensor = x->tensor;
        p->begin = x->begin;
        p->n = left < PIECE ? (size_t)left : PIECE;
        x->begin += (int64_t)p->n;
        if (left <= PIECE) {
            x->tensor++;
            x->begin = 0;
        }
    }
    x->n_round[which] = n;
}

/* PIECE and the tensor's values are multiples of the block. */
static void make_piece(writing *x, piece *p, float *values) {
    qsi_tensor_spec t;
    qsi_config_tensor(&x->config, p->tensor, &t);
    const qsi_type_info *ti =
        qsi_type_get((int32_t)qsi_mix_type(x->o->mix, &x->config, &t, NULL));
    if (t.role == QSI_ROLE_NORM) {
        for (size_t i = 0; i < p->n; i++) values[i] = 1;
    } else if (t.role == QSI_ROLE_FREQS) { /* a single piece */
        qsi_config_rope_freqs(&x->config, values);
    } else {
        qsi_rng rng;
        qsi_rng_init_stream(&rng, x->o->seed,
                            (uint64_t)p->tensor << 32 | (uint64_t)(p->begin / PIECE));
        fill_normal(&rng, x->quantile, values, p->n);
    }
    if (strstr(t.name, ".ffn_gate_inp.") != NULL && x->skew != NULL) {
        const float *factor = x->skew + (int64_t)t.layer * x->config.n_expert;
        for (size_t i = 0; i < p->n; i++) values[i] *= factor[(p->begin + (int64_t)i) / t.ne[0]];
    }
    if (t.role == QSI_ROLE_EMBED && x->skew != NULL && x->o->std > 0)
        for (size_t i = 0; i < p->n; i++) values[i] /= x->o->std;
    QS_CHECK(qsi_row_bytes(ti, (int64_t)p->n, &p->bytes));
    ti->encode(values, p->encoded, (int64_t)p->n);
}

typedef struct round_job {
    writing *x;
    int make, write; /* which list is made and which, made before, is written */
    qs_status st;
    qs_err *err;
} round_job;

static qs_status write_round(writing *x, int which, qs_err *err) {
    qs_status st = QS_OK;
    for (size_t i = 0; i < x->n_round[which]; i++) {
        QS_TRY(qsi_gguf_write(x->w, x->round[which][i].encoded, x->round[which][i].bytes, err));
        x->done += (int64_t)x->round[which][i].bytes;
        QS_TRY(tell(x, err));
    }
done:
    return st;
}

/* Worker 0 is the caller: it writes, and then makes pieces like the others. */
static void run_round(const qsi_worker *wk, void *arg) {
    round_job *j = arg;
    if (wk->index == 0) {
        qsi_ticket_reset(wk);
    }
    qsi_barrier(wk);
    if (wk->index == 0) j->st = write_round(j->x, j->write, j->err);
    for (int64_t i; (i = qsi_ticket(wk)) < (int64_t)j->x->n_round[j->make];)
        make_piece(j->x, &j->x->round[j->make][i], j->x->values + (size_t)wk->index * PIECE);
}

static qs_status write_all(writing *x, qs_err *err) {
    qs_status st = QS_OK;
    int make = 0;
    do {
        plan_round(x, make);
        round_job job = {.x = x, .make = make, .write = 1 - make, .err = err};
        qsi_pool_run_alloc(x->pool, run_round, &job);
        QS_TRY(job.st);
        make = 1 - make;
    } while (x->n_round[1 - make] > 0);
done:
    return st;
}

static qs_status alloc_rounds(writing *x, qs_err *err) {
    qs_status st = QS_OK;
    size_t workers = (size_t)qsi_pool_size(x->pool);
    x->most = workers * PIECES_A_WORKER;
    x->quantile = qsi_alloc(LEVELS, sizeof *x->quantile);
    x->values = qsi_alloc(workers * PIECE, sizeof *x->values);
    x->encoded = qsi_alloc(2 * x->most * PIECE, sizeof(float)); /* no type is wider */
    for (int r = 0; r < 2; r++) x->round[r] = qsi_calloc(x->most, sizeof *x->round[r]);
    if (!x->quantile || !x->values || !x->encoded || !x->round[0] || !x->round[1])
        QS_FAIL(err, QS_E_NOMEM, "out of memory writing a model");
    for (size_t i = 0; i < 2 * x->most; i++)
        x->round[i % 2][i / 2].encoded = x->encoded + i * PIECE * sizeof(float);
    fill_quantiles(x->quantile, x->o->std);
done:
    return st;
}

static qs_status make_skew(writing *x, qs_err *err) {
    qs_status st = QS_OK;
    const qsi_config *c = &x->config;
    if (!x->o->skewed) goto done;
    if (c->n_expert == 0) QS_FAIL(err, QS_E_ARG, "a dense model has no routers to skew");
    size_t n = (size_t)c->n_expert; /* a row for each layer, and one by rank */
    /* a normalised row has mean square 1 */
    const qsi_skew_router r = {
        .n = c->n_expert, .k = c->n_expert_used, .n_group = c->n_group,
        .n_group_used = c->n_group_used, .sigmoid = c->gating == QSI_GATE_SIGMOID,
        .deviation = (double)x->o->std * sqrt(c->d_model)};
    x->skew = qsi_calloc(((size_t)c->n_layer + 1) * n, sizeof *x->skew);
    if (x->skew == NULL) QS_FAIL(err, QS_E_NOMEM, "out of memory writing a model");
    float *by_rank = x->skew + (size_t)c->n_layer * n;
    QS_TRY(qsi_skew_factors(x->o->router_skew, &r, by_rank, err));
    for (int32_t l = c->n_dense; l < c->n_layer; l++) {
        qsi_skew_deal(&r, by_rank, x->o->seed, SKEW_STREAM | (uint64_t)l, x->skew + (size_t)l * n);
    }
done:
    return st;
}

static qs_status check_room(const writing *x, const char *path, qs_err *err) {
    uint64_t room = qsi_disk_free(path);
    if (room >= (uint64_t)x->total) return QS_OK;
    char need[QSI_SIZE_TEXT], have[QSI_SIZE_TEXT];
    return qsi_err_set(err, QS_E_IO, "cannot write '%s': it needs %s, the disk has %s free", path,
                       qsi_size_text(need, (uint64_t)x->total), qsi_size_text(have, room));
}

static qs_status check_opts(writing *x, qs_err *err) {
    qs_status st = QS_OK;
    const qsi_init_opts *o = x->o;
    if (!isfinite(o->std) || o->std < 0)
        QS_FAIL(err, QS_E_ARG, "a deviation of %g", (double)o->std);
    if (o->vocab != NULL) x->config.n_vocab = qsi_vocab_size(o->vocab);
    QS_TRY(qsi_config_check(&x->config, err));
    if (o->vocab == NULL && x->config.n_vocab < 256) {
        QS_FAIL(err, QS_E_ARG, "a vocabulary of %d ids cannot hold the 256 byte symbols",
                (int)x->config.n_vocab);
    }
done:
    return st;
}

qs_status qsi_init_write(const qsi_init_opts *o, const char *path, qs_err *err) {
    qs_status st = QS_OK;
    writing x = {.o = o, .config = o->config};
    QS_TRY(check_opts(&x, err));
    QS_TRY(make_skew(&x, err));
    QS_TRY(qsi_pool_create(&x.pool, o->threads, err));
    QS_TRY(alloc_rounds(&x, err));
    QS_TRY(qsi_gguf_writer_open(&x.w, path, err));
    QS_TRY(put_keys(&x, err));
    QS_TRY(declare_all(&x, err));
    QS_TRY(check_room(&x, path, err));
    QS_TRY(write_all(&x, err));
    QS_TRY(qsi_gguf_finish(&x.w, err));
done:
    qsi_gguf_writer_abort(&x.w);
    qsi_pool_free(x.pool);
    qsi_free(x.quantile);
    qsi_free(x.values);
    qsi_free(x.encoded);
    qsi_free(x.round[0]);
    qsi_free(x.round[1]);
    qsi_free(x.skew);
    return st;
}
