/* Encoders that search. A block's scales (and minima) are those that lose least: the sum over its
 * values of w (x - value that will be read)^2, where w is the importance, or 1 (two types: weigh). The
 * plain encoders of block32.c and kquant.c span the largest value instead.
 *
 * In steps: for every group, factors round the one that spans its values are tried, and of each the
 * scale (and minimum) that fits the levels it gives is solved by least squares; the best is kept. In
 * blocks of 256 the groups' scales become small integers: their neighbours are tried too, with the
 * levels that follow; then the block's factors are solved anew for what was chosen, twice, and the best
 * of all rounds is kept. At last the block gets back the length that least squares cost it: weighing
 * large values more keeps some of that too, but loses more (docs/quantisation.md). All sums run in
 * LANES partial sums of fixed order, so the bytes depend on the values alone.
 *
 * Levels are what a code means before scales: whole numbers, or the table of IQ4. MXFP4 has but an
 * exponent to choose. */
#include "quant/fit.h"

#include <math.h>
#include <string.h>

#include "quant/blocks.h"

enum { LANES = 8, MOST = QSI_PARTS_MOST };

/* What the levels of a type are. */
typedef struct levels {
    float lo, hi;
    bool table; /* IQ4's instead of whole numbers */
} levels;

typedef struct shape {
    qsi_type type;
    int block, group;
    bool affine;      /* value = scale * level - min */
    levels l;
    int sc_lo, sc_hi; /* scales of groups; 0, 0: the block is one group with a scale of its own */
    int mn_hi;
    void (*pack)(const qsi_parts *p, void *dst);
    float base; /* values count |x| + base * root mean square of the block; 0: all alike */
} shape;

static float sum_of(const float s[LANES]) {
    return ((s[0] + s[4]) + (s[1] + s[5])) + ((s[2] + s[6]) + (s[3] + s[7]));
}

/* v next to a whole number, ties to even; |v| < 2^22. */
static inline float whole(float v) {
    const float big = 12582912.0f; /* 1.5 * 2^23 */
    return (v + big) - big;
}

static inline float clamped(float v, float lo, float hi) {
    v = v > lo ? v : lo;
    return v < hi ? v : hi;
}

static inline float table_level(float v) {
    static const float between[15] = {-115.5f, -93.5f, -74, -57,   -42, -28.5f, -16, -4.5f,
                                      7,       19,     31.5f, 45.5f, 61, 79,     101};
    static const float rise[15] = {23, 21, 18, 16, 14, 13, 12, 11, 12, 12, 13, 15, 16, 20, 24};
    float t = -127;
    for (int k = 0; k < 15; k++) t += v > between[k] ? rise[k] : 0;
    return t;
}

/* The levels next to x * id + zero. n: a multiple of LANES. */
static void find_levels(const levels *l, const float *x, int n, float id, float zero, float *out) {
    if (l->table) {
        for (int j = 0; j < n; j++) out[j] = table_level(x[j] * id);
        return;
    }
    for (int j = 0; j < n; j++) out[j] = whole(clamped(x[j] * id + zero, l->lo, l->hi));
}

/* Sum of w (x - scale * level + min)^2. */
static float loss_of(const float *x, const float *w, const float *lv, int n, float scale, float min) {
    float s[LANES] = {0};
    for (int j = 0; j < n; j += LANES)
        for (int i = 0; i < LANES; i++) {
            float e = x[j + i] - (scale * lv[j + i] - min);
            s[i] += w[j + i] * e * e;
        }
    return sum_of(s);
}

/* Sums of w x t and w t t. */
static void products(const float *x, const float *w, const float *t, int n, float *xt, float *tt) {
    float a[LANES] = {0}, b[LANES] = {0};
    for (int j = 0; j < n; j += LANES)
        for (int i = 0; i < LANES; i++) {
            float v = w[j + i] * t[j + i];
            a[i] += v * x[j + i];
            b[i] += v * t[j + i];
        }
    *xt = sum_of(a);
    *tt = sum_of(b);
}

static float weighted_sum(const float *x, const float *w, int n) {
    float s[LANES] = {0};
    for (int j = 0; j < n; j += LANES)
        for (int i = 0; i < LANES; i++) s[i] += w[j + i] * x[j + i];
    return sum_of(s);
}

/* 1 / d, or 0 where that is no usable factor. */
static float reciprocal(float d) {
    float r = d != 0 ? 1.0f / d : 0.0f;
    return isfinite(r) ? r : 0.0f;
}

static float as_half(float d) { return qsi_f16_to_f32(qsi_f32_to_f16(d)); }

/* ---- one group ---- */

typedef struct guess {
    float scale, min, loss;
} guess;

/* Levels for the factor id, and the scale that fits them. */
static void try_signed(const shape *s, const float *x, const float *w, int n, float id, guess *best) {
    float lv[MOST], xt = 0, tt = 0;
    find_levels(&s->l, x, n, id, 0, lv);
    products(x, w, lv, n, &xt, &tt);
    if (tt <= 0) return;
    float gain = xt * xt / tt; /* what is left of the sum of w x^2 is this much less */
    if (-gain < best->loss) *best = (guess){.scale = xt / tt, .loss = -gain};
}

static guess fit_signed(const shape *s, const float *x, const float *w, int n) {
    float top = 0, mag = 0, step = s->l.table ? 2 : 0.1f;
    guess best = {0};
    for (int j = 0; j < n; j++) {
        float a = fabsf(x[j]);
        top = a > mag ? x[j] : top;
        mag = a > mag ? a : mag;
    }
    if (reciprocal(top) == 0) return best;
    for (int k = -9; k <= 9; k++) {
        try_signed(s, x, w, n, (s->l.lo + (float)k * step) / top, &best);
        if (s->l.hi < 16 || s->l.table)
            try_signed(s, x, w, n, (s->l.hi + (float)k * step) / top, &best);
    }
    for (int k = 0; k < 2; k++) try_signed(s, x, w, n, reciprocal(best.scale), &best);
    return best;
}

/* Levels for the factor id over lo, and the scale and minimum that fit them; sw, sx: sums of w, w x. */
static void try_affine(const shape *s, const float *x, const float *w, int n, float id, float lo,
                       float sw, float sx, guess *best) {
    float lv[MOST], xt = 0, tt = 0;
    find_levels(&s->l, x, n, id, -lo * id, lv);
    products(x, w, lv, n, &xt, &tt);
    float st = weighted_sum(lv, w, n), det = sw * tt - st * st;
    if (!(det > 0)) return;
    guess g = {.scale = (sw * xt - sx * st) / det, .min = (st * xt - tt * sx) / det};
    if (g.min < 0 && s->mn_hi > 0) g = (guess){.scale = xt / tt}; /* minima are stored unsigned */
    g.loss = loss_of(x, w, lv, n, g.scale, g.min);
    if (g.scale > 0 && g.loss < best->loss) *best = g;
}

static guess fit_affine(const shape *s, const float *x, const float *w, int n) {
    float lo = x[0], hi = x[0];
    for (int j = 1; j < n; j++) {
        lo = x[j] < lo ? x[j] : lo;
        hi = x[j] > hi ? x[j] : hi;
    }
    if (s->mn_hi > 0 && lo > 0) lo = 0;
    guess best = {.scale = (hi - lo) / s->l.hi, .min = -lo, .loss = INFINITY};
    float span = reciprocal(hi - lo), ones[MOST];
    if (span == 0) return best;
    for (int j = 0; j < n; j++) ones[j] = 1;
    float sw = weighted_sum(ones, w, n), sx = weighted_sum(x, w, n);
    for (int k = -10; k <= 10; k++)
        try_affine(s, x, w, n, (s->l.hi + (float)k * 0.1f) * span, lo, sw, sx, &best);
    for (int k = 0; k < 2; k++)
        try_affine(s, x, w, n, reciprocal(best.scale), -best.min, sw, sx, &best);
    return best;
}

/* ---- a block ---- */

typedef struct chosen {
    float d, dmin, loss;
    int sc[16], mn[16];
    float lv[MOST];
} chosen;

/* Levels of a group for given scale and minimum, and what they lose. */
static float settle(const shape *s, const float *x, const float *w, float scale, float min, float *lv) {
    float id = reciprocal(scale);
    find_levels(&s->l, x, s->group, id, min * id, lv);
    return loss_of(x, w, lv, s->group, scale, min);
}

static int nearest(float v, int lo, int hi) { return (int)whole(clamped(v, (float)lo, (float)hi)); }

/* The integers of group g next to sc and mn that lose least; levels go to c. Returns the loss. */
static float choose_group(const shape *s, const float *x, const float *w, int g, int sc, int mn,
                          chosen *c) {
    float lv[MOST], best = INFINITY;
    const float *xg = x + g * s->group, *wg = w + g * s->group;
    int m0 = s->affine && mn > 0 ? mn - 1 : mn, m1 = s->affine && mn < s->mn_hi ? mn + 1 : mn;
    int s0 = sc > s->sc_lo ? sc - 1 : sc, s1 = sc < s->sc_hi ? sc + 1 : sc;
    for (int i = s0; i <= s1; i++)
        for (int m = m0; m <= m1; m++) {
            float loss = settle(s, xg, wg, c->d * (float)i, c->dmin * (float)m, lv);
            if (loss >= best) continue;
            best = loss;
            c->sc[g] = i;
            c->mn[g] = m;
            memcpy(c->lv + g * s->group, lv, (size_t)s->group * sizeof *lv);
        }
    return best;
}

/* The factors d and dmin that fit the integers and levels of c best. */
static void solve_factors(const shape *s, const float *x, const float *w, chosen *c) {
    float a[MOST], b[MOST], xa = 0, aa = 0, xb = 0, bb = 0;
    for (int j = 0; j < s->block; j++) {
        a[j] = (float)c->sc[j / s->group] * c->lv[j];
        b[j] = (float)c->mn[j / s->group];
    }
    products(x, w, a, s->block, &xa, &aa);
    if (aa <= 0) return;
    float d = xa / aa, dmin = 0;
    if (s->affine) {
        float wb[MOST];
        products(x, w, b, s->block, &xb, &bb);
        for (int j = 0; j < s->block; j++) wb[j] = w[j] * b[j];
        float ab = weighted_sum(a, wb, s->block), det = aa * bb - ab * ab;
        if (det > 0) {
            d = (xa * bb - xb * ab) / det;
            dmin = (xa * ab - xb * aa) / det;
        }
        if (dmin <= 0 || d <= 0) return;
    }
    c->d = as_half(d);
    c->dmin = as_half(dmin);
}

/* From the block's factors d and dmin and the scales and minima of its groups; what is better than *best
 * replaces it. */
static void fit_from(const shape *s, const float *x, const float *w, float d, float dmin,
                     const float *scales, const float *minima, chosen *best) {
    int n = s->block / s->group;
    float scale[16], min[16];
    chosen c = {.d = as_half(d), .dmin = as_half(dmin)};
    memcpy(scale, scales, (size_t)n * sizeof *scale);
    memcpy(min, minima, (size_t)n * sizeof *min);
    for (int round = 0; round < 3; round++) {
        float id = reciprocal(c.d), idmin = reciprocal(c.dmin);
        if (id == 0 || !isfinite(c.d) || !isfinite(c.dmin)) break;
        c.loss = 0;
        for (int g = 0; g < n; g++) {
            int sc = nearest(scale[g] * id, s->sc_lo, s->sc_hi);
            int mn = s->affine ? nearest(min[g] * idmin, 0, s->mn_hi) : 0;
            c.loss += choose_group(s, x, w, g, sc, mn, &c);
            scale[g] = c.d * (float)c.sc[g];
            min[g] = c.dmin * (float)c.mn[g];
        }
        if (c.loss < best->loss) *best = c;
        solve_factors(s, x, w, &c);
    }
}

/* Halves below this have few bits left: larger factors, which smaller integers meet, may fit better. */
#define FEW_BITS 2e-5f

/* Blocks of groups. */
static bool fit_groups(const shape *s, const float *x, const float *w, chosen *best) {
    int n = s->block / s->group;
    float scale[16], min[16], most = 0, deepest = 0;
    for (int g = 0; g < n; g++) {
        const float *xg = x + g * s->group, *wg = w + g * s->group;
        guess f = s->affine ? fit_affine(s, xg, wg, s->group) : fit_signed(s, xg, wg, s->group);
        scale[g] = f.scale;
        min[g] = f.min;
        most = fabsf(f.scale) > fabsf(most) ? f.scale : most;
        deepest = f.min > deepest ? f.min : deepest;
    }
    float d = most / (float)(s->affine ? s->sc_hi : s->sc_lo);
    float dmin = s->affine ? deepest / (float)s->mn_hi : 0;
    best->loss = INFINITY;
    fit_from(s, x, w, d, dmin, scale, min, best);
    for (float k = 2; k <= 64 && fabsf(d) * k < FEW_BITS; k *= 2)
        fit_from(s, x, w, d * k, dmin * k, scale, min, best);
    return best->loss < INFINITY;
}

/* Blocks that are one group. */
static bool fit_one(const shape *s, const float *x, const float *w, chosen *best) {
    guess f = s->affine ? fit_affine(s, x, w, s->block) : fit_signed(s, x, w, s->block);
    best->d = as_half(f.scale);
    best->dmin = as_half(f.min);
    best->sc[0] = best->mn[0] = 1;
    if (reciprocal(best->d) == 0 || !isfinite(best->d) || !isfinite(best->dmin)) return false;
    best->loss = settle(s, x, w, best->d, best->dmin, best->lv);
    return true;
}

/* Scales a block's factors until it is as long along its original as that is. What loses least is
 * shorter, by 7 % in Q2_K and 2 % in Q3_K, in every block alike: products with a row come out that much
 * smaller, while other errors cancel. */
static void keep_length(const shape *s, const float *x, const float *importance, chosen *c) {
    float y[MOST], w[MOST], xy = 0, xx = 0;
    for (int j = 0; j < s->block; j++) {
        int g = j / s->group;
        y[j] = c->d * (float)c->sc[g] * c->lv[j] - c->dmin * (float)c->mn[g];
        w[j] = importance ? importance[j] : 1;
    }
    products(y, w, x, s->block, &xy, &xx);
    if (!(xy > 0 && isfinite(xx))) return;
    /* bounds: importance may lie on values that all became 0 */
    float by = clamped(xx / xy, 0.8f, 1.25f), d = as_half(c->d * by), dmin = as_half(c->dmin * by);
    if (!isfinite(d) || !isfinite(dmin)) return;
    c->d = d;
    c->dmin = dmin;
}

/* MXFP4: the plain encoder's exponent in *e, or one of its neighbours. */
static void fit_exponent(const float *x, const float *w, uint8_t *e, uint8_t q[32]) {
    float best = INFINITY;
    int from = *e > 2 ? *e - 1 : *e, to = *e < 250 ? *e + 1 : *e;
    for (int k = from; k <= to; k++) {
        uint8_t code[32];
        float d = qsi_mxfp4_scale((uint8_t)k), lv[32];
        for (int j = 0; j < 32; j++) {
            code[j] = qsi_mxfp4_step(x[j], d);
            lv[j] = (float)qsi_mxfp4_values[code[j]];
        }
        float loss = loss_of(x, w, lv, 32, d, 0);
        if (loss >= best) continue;
        best = loss;
        *e = (uint8_t)k;
        memcpy(q, code, sizeof code);
    }
}

static void pack_mxfp4(const float *x, const float *w, uint8_t *out) {
    qsi_parts p;
    qsi_encode_mxfp4(x, out, 32);
    uint8_t e = out[0];
    fit_exponent(x, w, &e, p.q);
    p.d = e;
    qsi_pack_mxfp4(&p, out);
}

static void pack(const shape *s, const chosen *c, void *dst) {
    qsi_parts p = {.d = qsi_f32_to_f16(c->d), .dmin = qsi_f32_to_f16(c->dmin)};
    if (s->affine && s->mn_hi == 0) p.dmin = qsi_f32_to_f16(-c->dmin);
    for (int g = 0; g < s->block / s->group; g++) {
        p.sc[g] = (int8_t)c->sc[g];
        p.mn[g] = (uint8_t)c->mn[g];
    }
    for (int j = 0; j < s->block; j++)
        p.q[j] = s->l.table ? qsi_iq4_step(c->lv[j]) : (uint8_t)(int)(c->lv[j] - s->l.lo);
    s->pack(&p, dst);
}

/* Where a block's few large values or the steps of tiny halves make the search (or its length) clearly
 * worse than the plain encoder, or than zeros, it is replaced. */
static void settle_for_less(const qsi_type_info *ti, const float *x, const float *w, uint8_t *out) {
    uint8_t plain[MOST * sizeof(float)];
    float y[MOST], none[MOST] = {0};
    ti->decode(out, y, ti->block);
    float ours = loss_of(x, w, y, ti->block, 1, 0);
    ti->encode(x, plain, ti->block);
    ti->decode(plain, y, ti->block);
    float theirs = loss_of(x, w, y, ti->block, 1, 0), zeros = loss_of(x, w, none, ti->block, 1, 0);
    if (ours <= 1.25f * theirs && ours <= zeros) return;
    if (zeros < theirs) ti->encode(none, plain, ti->block);
    memcpy(out, plain, (size_t)ti->bytes);
}

static const shape shapes[] = {
    {QSI_Q4_0, 32, 32, false, {-8, 7, false}, 0, 0, 0, qsi_pack_q4_0},
    {QSI_Q5_0, 32, 32, false, {-16, 15, false}, 0, 0, 0, qsi_pack_q5_0},
    {QSI_Q4_1, 32, 32, true, {0, 15, false}, 0, 0, 0, qsi_pack_q4_1},
    {QSI_Q5_1, 32, 32, true, {0, 31, false}, 0, 0, 0, qsi_pack_q5_1},
    {QSI_IQ4_NL, 32, 32, false, {-127, 113, true}, 0, 0, 0, qsi_pack_iq4_nl},
    {QSI_MXFP4, 32, 32, false, {0, 0, false}, 0, 0, 0, NULL, 1},
    {QSI_Q2_K, 256, 16, true, {0, 3, false}, 0, 15, 15, qsi_pack_q2_k},
    {QSI_Q3_K, 256, 16, false, {-4, 3, false}, -32, 31, 0, qsi_pack_q3_k, 4},
    {QSI_Q4_K, 256, 32, true, {0, 15, false}, 0, 63, 63, qsi_pack_q4_k},
    {QSI_Q5_K, 256, 32, true, {0, 31, false}, 0, 63, 63, qsi_pack_q5_k},
    {QSI_Q6_K, 256, 16, false, {-32, 31, false}, -128, 127, 0, qsi_pack_q6_k},
    {QSI_IQ4_XS, 256, 32, false, {-127, 113, true}, -32, 31, 0, qsi_pack_iq4_xs},
};

/* Weights of a block's values: their importance, or without it all 1, but for two types, in which large
 * values count more. Divergence on the dense model: Q3_K 0.0040 (0.0041 on another text), with equal
 * weights 0.0045 (0.0046); MXFP4, which cannot be made longer, 0.0032 and 0.0034. On the default model
 * Q3_K is the same with both. False where the values are none to search with: not finite, or so large or
 * small that squares are lost. */
static bool weigh(const shape *s, const float *x, const float *importance, float *w) {
    float mag = 0, most = 0, root = sqrtf(weighted_sum(x, x, s->block) / (float)s->block);
    bool sound = true;
    for (int j = 0; j < s->block; j++) {
        float a = fabsf(x[j]);
        sound = sound && a < 1e12f; /* false for NaN */
        mag = a > mag ? a : mag;
    }
    for (int j = 0; j < s->block; j++) {
        w[j] = importance ? importance[j] : s->base > 0 ? fabsf(x[j]) + s->base * root : 1;
        most = w[j] > most ? w[j] : most;
    }
    return sound && mag >= 1e-12f && most > 0 && isfinite(most);
}

void qsi_quant_fit(const qsi_type_info *ti, const float *src, const float *importance, void *dst,
                   int64_t n) {
    const shape *s = NULL;
    for (size_t i = 0; i < QSI_COUNT(shapes); i++)
        if (shapes[i].type == ti->type) s = &shapes[i];
    if (s == NULL) {
        ti->encode(src, dst, n);
        return;
    }
    uint8_t *out = dst;
    for (int64_t i = 0; i < n; i += s->block, out += ti->bytes) {
        const float *x = src + i, *counts = importance ? importance + i : NULL;
        float w[MOST];
        chosen c;
        if (!weigh(s, x, counts, w)) {
            ti->encode(x, out, s->block);
        } else if (s->type == QSI_MXFP4) {
            pack_mxfp4(x, w, out);
        } else {
            if (s->sc_hi > 0 ? fit_groups(s, x, w, &c) : fit_one(s, x, w, &c)) {
                keep_length(s, x, counts, &c);
                pack(s, &c, out);
            } else {
                ti->encode(x, out, s->block);
            }
            settle_for_less(ti, x, w, out);
        }
    }
}
