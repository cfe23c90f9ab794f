/* The self-check of levels that no machine of the tests has: where one first runs, its products must
 * have the bits of the level below it, or it is left out. Once a process: 0.8 ms (VNNI, Zen 4). */
#include <string.h>

#include "base/hash.h"
#include "kern/kern_levels.h"

/* More rows than a tile has; two panels of 16 and part of one; whole buffers and a tail. */
#define M 35
#define N 40
#define N_UP 64 /* N in whole panels, of 32 columns at most */
#define K32 288
#define K256 512
#define K16 74 /* of BF16: two whole tiles and a tail */
#define ROW_MOST 512 /* bytes of a row of weights */

/* Static: 150 KiB is much for a stack. */
static struct {
    _Alignas(64) char packed[N_UP * ROW_MOST];
    _Alignas(64) char w[N * ROW_MOST], a[M * 2 * sizeof(qsi_actk)];
    float c[2][M * N], x[K256];
} scratch;

static const char *const names[] = {
#define NAME(name) #name,
    QSI_MM_QUANT_LIST(NAME)
#undef NAME
};
static const qsi_type types[] = {
#define TYPE(name) QSI_##name,
    QSI_MM_QUANT_LIST(TYPE)
#undef TYPE
};

/* Any bytes, but in each row with one bit of a half's exponent cleared in all of them, so that
 * whatever is read as a scale is finite. MXFP4's scale, 2^(byte - 128), is between 1/16 and 8. */
static void fill_weights(qsi_rng *r, const qsi_type_info *ti, size_t row) {
    uint64_t bits = 0;
    for (int j = 0; j < N; j++)
        for (size_t i = 0; i < row; i++, bits >>= 8) {
            bool scale = ti->type == QSI_MXFP4 && i % (size_t)ti->bytes == 0;
            if (i % 8 == 0) bits = qsi_rng_u64(r);
            scratch.w[(size_t)j * row + i] =
                (char)(scale ? 124 + j % 8 : (int)(bits & 255 & ~(4u << j % 5)));
        }
}

static void fill_activations(qsi_rng *r, const qsi_kern *k, bool k256, size_t lda) {
    for (size_t i = 0; i < M; i++) {
        for (int e = 0; e < K256; e++) scratch.x[e] = qsi_rng_f32(r) - 0.5f;
        if (k256)
            k->f32_to_actk(scratch.x, (qsi_actk *)(void *)(scratch.a + i * lda), K256);
        else
            k->f32_to_act8(scratch.x, (qsi_act8 *)(void *)(scratch.a + i * lda), K32);
    }
}

/* Whole numbers up to 3, of which every sum is exact in any order. */
static void fill_small(qsi_rng *r, char *rows, int n, size_t ld) {
    static const uint16_t small[7] = {0xc040, 0xc000, 0xbf80, 0, 0x3f80, 0x4000, 0x4040};
    memset(rows, 0, (size_t)n * ld);
    for (int i = 0; i < n; i++)
        for (int e = 0; e < K16; e++)
            memcpy(rows + (size_t)i * ld + e * 2, &small[qsi_rng_below(r, 7)], 2);
}

static void multiply(const qsi_kern_mm *mm, int64_t m, int64_t k, int64_t ld_col, size_t lda,
                     float *c) {
    int64_t panels = (N + mm->nr - 1) / mm->nr;
    QS_CHECK((size_t)panels * mm->panel_bytes(k) <= sizeof scratch.packed);
    mm->pack(scratch.w, ld_col, 1, N, k, 0, panels, scratch.packed);
    mm->run(m, N, k, 0, panels, scratch.a, lda, scratch.packed, c, N, false);
}

/* Many rows and one. */
static bool same(const qsi_kern_mm *t, const qsi_kern_mm *base, int64_t k, int64_t ld_col,
                 size_t lda) {
    for (int64_t m = M; m > 0; m -= M - 1) {
        multiply(t, m, k, ld_col, lda, scratch.c[0]);
        multiply(base, m, k, ld_col, lda, scratch.c[1]);
        if (memcmp(scratch.c[0], scratch.c[1], (size_t)(m * N) * sizeof(float)) != 0) return false;
    }
    return true;
}

static const char *difference(const qsi_kern *t, const qsi_kern *base) {
    qsi_rng r;
    qsi_rng_init(&r, 7);
    for (size_t i = 0; i < QSI_COUNT(types); i++) {
        const qsi_type_info *ti = qsi_type_get(types[i]);
        bool k256 = ti->block == 256;
        int64_t k = k256 ? K256 : K32;
        size_t row = (size_t)(k / ti->block) * (size_t)ti->bytes;
        size_t lda = k256 ? K256 / 256 * sizeof(qsi_actk) : K32 / 32 * sizeof(qsi_act8);
        fill_weights(&r, ti, row);
        fill_activations(&r, base, k256, lda);
        if (!same(&t->mm[QSI_MM_QUANT + i], &base->mm[QSI_MM_QUANT + i], k, (int64_t)row, lda))
            return names[i];
    }
    fill_small(&r, scratch.w, N, K16 * 2);
    fill_small(&r, scratch.a, M, K16 * 2);
    return same(&t->mm[QSI_MM_BF16], &base->mm[QSI_MM_BF16], K16, K16, K16 * 2) ? NULL : "BF16";
}

const char *qsi_kern_settle(qsi_kern *t, const qsi_kern *base) {
    const char *name = difference(t, base);
    if (name != NULL) *t = *base;
    return name;
}
