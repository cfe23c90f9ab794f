/* Activations entering products, in every form their consumers need. See op.h. */
#include "op/op.h"

#include <string.h>

unsigned qsi_act_form(qsi_mm kind) {
    switch (kind) {
    case QSI_MM_F32:
    case QSI_MM_F16: return QSI_ACT_F32;
    case QSI_MM_BF16: return QSI_ACT_BF16;
    default: break;
    }
    if (kind >= QSI_MM_QUANT + QSI_MM_N_QUANT) return kind < QSI_MM_COUNT ? QSI_ACT_F32 : 0;
    return kind >= QSI_MM_Q2_K ? QSI_ACT_K8 : QSI_ACT_Q8;
}

/* Blocks between the end of a row and the next row. Few rows of a product walk side by side, and
 * where one ends just before the next begins the CPU's prefetch takes two walks for one and loses
 * that of the weights (docs/kernels.md). */
#define GAP_BYTES 768
#define GAP_BLOCKS(type) ((int64_t)((GAP_BYTES + sizeof(type) - 1) / sizeof(type)))

qs_status qsi_act_init(qsi_act *a, qsi_arena *ar, int64_t rows, int64_t k, unsigned mask,
                       qs_err *err) {
    qs_status st = QS_OK;
    *a = (qsi_act){.k = k, .ld = qsi_round_up(k, 32)};
    a->ld8 = a->ld / 32 + GAP_BLOCKS(qsi_act8);
    a->ldk = k / 256 + GAP_BLOCKS(qsi_actk);
    size_t n = 0;
    if (!qsi_mul_size((size_t)rows, (size_t)a->ld, &n))
        QS_FAIL(err, QS_E_RANGE, "activations of %lld rows are too many", (long long)rows);
    if (mask & QSI_ACT_F32) a->f32 = qsi_arena_calloc(ar, n, sizeof(float));
    if (mask & QSI_ACT_BF16) a->bf16 = qsi_arena_calloc(ar, n, sizeof(uint16_t));
    if (mask & QSI_ACT_Q8) a->q8 = qsi_arena_calloc(ar, (size_t)(rows * a->ld8), sizeof(qsi_act8));
    if (mask & QSI_ACT_K8) a->k8 = qsi_arena_calloc(ar, (size_t)(rows * a->ldk), sizeof(qsi_actk));
    if ((mask & QSI_ACT_F32 && !a->f32) || (mask & QSI_ACT_BF16 && !a->bf16) ||
        (mask & QSI_ACT_Q8 && !a->q8) || (mask & QSI_ACT_K8 && !a->k8))
        QS_FAIL(err, QS_E_NOMEM, "no memory for activations of %lld rows of %lld",
                (long long)rows, (long long)k);
done:
    return st;
}

void qsi_act_put(const qsi_kern *k, const qsi_act *a, int64_t r, const float *x) {
    qsi_act_put_cols(k, a, r, 0, a->k, x);
}

void qsi_act_put_cols(const qsi_kern *k, const qsi_act *a, int64_t r, int64_t c0, int64_t c1,
                      const float *x) {
    int64_t n = c1 - c0, at = r * a->ld + c0;
    QS_ASSERT(c0 % 256 == 0 && (c1 % 256 == 0 || c1 == a->k));
    if (a->f32 && a->f32 + at != x) memcpy(a->f32 + at, x, (size_t)n * sizeof(float));
    if (a->bf16) k->f32_to_bf16(x, a->bf16 + at, n);
    if (a->q8) k->f32_to_act8(x, a->q8 + r * a->ld8 + c0 / 32, n);
    if (a->k8) k->f32_to_actk(x, a->k8 + r * a->ldk + c0 / 256, n);
}

void qsi_act_copy(const qsi_act *d, int64_t rd, const qsi_act *s, int64_t rs) {
    if (d->f32)
        memcpy(d->f32 + rd * d->ld, s->f32 + rs * s->ld, (size_t)d->k * sizeof(float));
    if (d->bf16)
        memcpy(d->bf16 + rd * d->ld, s->bf16 + rs * s->ld, (size_t)d->k * sizeof(uint16_t));
    if (d->q8)
        memcpy(d->q8 + rd * d->ld8, s->q8 + rs * s->ld8,
               (size_t)(d->ld / 32) * sizeof(qsi_act8));
    if (d->k8)
        memcpy(d->k8 + rd * d->ldk, s->k8 + rs * s->ldk,
               (size_t)(d->k / 256) * sizeof(qsi_actk));
}

const void *qsi_act_row(const qsi_act *a, qsi_mm kind, int64_t r, size_t *lda_bytes) {
    switch (qsi_act_form(kind)) {
    case QSI_ACT_BF16:
        QS_ASSERT(a->bf16);
        *lda_bytes = (size_t)a->ld * sizeof(uint16_t);
        return a->bf16 + r * a->ld;
    case QSI_ACT_Q8:
        QS_ASSERT(a->q8);
        *lda_bytes = (size_t)a->ld8 * sizeof(qsi_act8);
        return a->q8 + r * a->ld8;
    case QSI_ACT_K8:
        QS_ASSERT(a->k8);
        *lda_bytes = (size_t)a->ldk * sizeof(qsi_actk);
        return a->k8 + r * a->ldk;
    default:
        QS_ASSERT(a->f32);
        *lda_bytes = (size_t)a->ld * sizeof(float);
        return a->f32 + r * a->ld;
    }
}
