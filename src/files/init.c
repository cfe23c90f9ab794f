/* Random models. Weights are normal numbers of 65,536 levels: the quantiles of the normal
 * distribution at (k + 1/2) / 65536, picked by 16 random bits, four to a draw. That is some ten
 * times faster than computing logarithms and cosines, and no test of a model could tell the
 * difference: mean 0, the variance within 1e-4, the largest value 4.3 standard deviations. Each
 * tensor has a random stream of its own (seed, index). */
#include "files/init.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"
#include "sys/file.h"

#define SQRT_HALF 0.70710678118654752440
#define SQRT_2PI 2.50662827463100050242
enum { LEVELS = 65536, PIECE = 1 << 18 /* values generated at a time */ };

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

/* ---- types ---- */

qsi_type qsi_init_type(const qsi_tensor_spec *t, qsi_type wanted, bool *fallback) {
    *fallback = false;
    if (t->n_dims == 1 || t->role == QSI_ROLE_ROUTER) return QSI_F32;
    if (t->ne[0] % qsi_type_get((int32_t)wanted)->block == 0) return wanted;
    *fallback = true;
    return QSI_F16;
}

int qsi_file_type(qsi_type type) {
    switch (type) {
    case QSI_F32: return 0;
    case QSI_F16: return 1;
    case QSI_Q4_0: return 2;
    case QSI_Q4_1: return 3;
    case QSI_Q8_0: return 7;
    case QSI_Q5_0: return 8;
    case QSI_Q5_1: return 9;
    case QSI_Q2_K: return 10;
    case QSI_Q3_K: return 12; /* ggml's "medium" numbers stand for a whole file of one K type */
    case QSI_Q4_K: return 15;
    case QSI_Q5_K: return 17;
    case QSI_Q6_K: return 18;
    case QSI_IQ4_NL: return 25;
    case QSI_BF16: return 32;
    default: return -1;
    }
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

typedef struct writing {
    const qsi_init_opts *o;
    qsi_config config;
    qsi_gguf_writer *w;
    float *quantile, *values;
    uint8_t *encoded;
    int64_t done, total; /* bytes of tensors */
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
    QS_TRY(qsi_gguf_put_u32(x->w, "general.file_type", (uint32_t)qsi_file_type(o->type)));
    QS_TRY(qsi_gguf_put_u32(x->w, "general.quantization_version", 2));
    if (o->vocab != NULL) QS_TRY(qsi_vocab_save_gguf(o->vocab, x->w, err));
    else QS_TRY(put_plain_vocab(x->w, x->config.n_vocab));
done:
    if (st == QS_E_NOMEM) st = qsi_err_set(err, st, "out of memory writing a model");
    return st;
}

static qs_status declare_all(writing *x, qs_err *err) {
    qs_status st = QS_OK;
    bool said = false;
    for (size_t i = 0; i < qsi_config_n_tensors(&x->config); i++) {
        qsi_tensor_spec t;
        bool fallback = false;
        size_t row = 0;
        qsi_config_tensor(&x->config, i, &t);
        qsi_type type = qsi_init_type(&t, x->o->type, &fallback);
        const qsi_type_info *ti = qsi_type_get((int32_t)type);
        if (fallback && !said) {
            const qsi_type_info *wanted = qsi_type_get((int32_t)x->o->type);
            qsi_log(QSI_LOG_NOTE,
                    "%s and its like are stored as F16: rows of %" PRId64
                    " values are no multiple of %s's %d",
                    t.name, t.ne[0], wanted->name, wanted->block);
            said = true;
        }
        QS_TRY(qsi_gguf_declare(x->w, t.name, type, t.n_dims, t.ne, err));
        if (!qsi_row_bytes(ti, t.ne[0], &row))
            QS_FAIL(err, QS_E_ARG, "tensor %s: too large", t.name);
        x->total += (int64_t)row * t.ne[1] * t.ne[2];
    }
done:
    return st;
}

static qs_status write_tensor(writing *x, size_t index, qs_err *err) {
    qs_status st = QS_OK;
    qsi_tensor_spec t;
    bool fallback = false;
    qsi_rng rng;
    qsi_config_tensor(&x->config, index, &t);
    const qsi_type_info *ti = qsi_type_get((int32_t)qsi_init_type(&t, x->o->type, &fallback));
    qsi_rng_init_stream(&rng, x->o->seed, index);
    int64_t left = t.ne[0] * t.ne[1] * t.ne[2];
    while (left > 0) { /* PIECE and the tensor's values are multiples of the block */
        size_t n = left < PIECE ? (size_t)left : PIECE, bytes = 0;
        if (t.role == QSI_ROLE_NORM) {
            for (size_t i = 0; i < n; i++) x->values[i] = 1;
        } else {
            fill_normal(&rng, x->quantile, x->values, n);
        }
        QS_CHECK(qsi_row_bytes(ti, (int64_t)n, &bytes));
        ti->encode(x->values, x->encoded, (int64_t)n);
        QS_TRY(qsi_gguf_write(x->w, x->encoded, bytes, err));
        x->done += (int64_t)bytes;
        left -= (int64_t)n;
        QS_TRY(tell(x, err));
    }
done:
    return st;
}

static qs_status check_room(const writing *x, const char *path, qs_err *err) {
    uint64_t room = qsi_disk_free(path);
    if (room >= (uint64_t)x->total) return QS_OK;
    return qsi_err_set(err, QS_E_IO,
                       "cannot write '%s': it needs %.1f GB, the disk has %.1f GB free", path,
                       (double)x->total / 1e9, (double)room / 1e9);
}

qs_status qsi_init_write(const qsi_init_opts *o, const char *path, qs_err *err) {
    qs_status st = QS_OK;
    writing x = {.o = o, .config = o->config};
    const qsi_type_info *ti = qsi_type_get((int32_t)o->type);
    if (ti == NULL || !ti->weights) {
        QS_FAIL(err, QS_E_ARG, "type %s cannot be written", ti != NULL ? ti->name : "?");
    }
    if (!isfinite(o->std) || o->std < 0)
        QS_FAIL(err, QS_E_ARG, "a deviation of %g", (double)o->std);
    if (o->vocab != NULL) x.config.n_vocab = qsi_vocab_size(o->vocab);
    QS_TRY(qsi_config_check(&x.config, err));
    if (o->vocab == NULL && x.config.n_vocab < 256) {
        QS_FAIL(err, QS_E_ARG, "a vocabulary of %d ids cannot hold the 256 byte symbols",
                (int)x.config.n_vocab);
    }
    x.quantile = qsi_alloc(LEVELS, sizeof *x.quantile);
    x.values = qsi_alloc(PIECE, sizeof *x.values);
    x.encoded = qsi_alloc(PIECE, sizeof *x.values); /* no type is wider than F32 */
    if (x.quantile == NULL || x.values == NULL || x.encoded == NULL) {
        QS_FAIL(err, QS_E_NOMEM, "out of memory writing a model");
    }
    fill_quantiles(x.quantile, o->std);
    QS_TRY(qsi_gguf_writer_open(&x.w, path, err));
    QS_TRY(put_keys(&x, err));
    QS_TRY(declare_all(&x, err));
    QS_TRY(check_room(&x, path, err));
    for (size_t i = 0; i < qsi_config_n_tensors(&x.config); i++) QS_TRY(write_tensor(&x, i, err));
    QS_TRY(qsi_gguf_finish(&x.w, err));
done:
    qsi_gguf_writer_abort(&x.w);
    qsi_free(x.quantile);
    qsi_free(x.values);
    qsi_free(x.encoded);
    return st;
}
