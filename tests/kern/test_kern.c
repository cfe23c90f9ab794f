/* The table's conversions, vectors and layer kernels of one level (argument 1) against double.
 *
 * Bounds, u = 2^-24: a sum of n terms one at a time errs by at most (n + 1) u sum|terms|, a tree by
 * less; exp by 2 units in the last place (4 u) plus the rounding of its argument, which moves the
 * result by as much relatively as the argument moves absolutely. Every buffer ends at an
 * unreadable page, none is aligned beyond 4 bytes. */
#include "kern_testing.h"

static const int64_t sizes[] = {0, 1, 2, 3, 15, 16, 17, 31, 33, 47, 63, 64, 65, 100, 255,
                                256, 1000};
#define EACH_SIZE(n)                                                                               \
    for (size_t si_ = 0; si_ < QSI_COUNT(sizes); si_++)                                            \
        for (int64_t n = sizes[si_], once_ = 1; once_; once_ = 0)

static void near_(double got, double want, double bound, const char *what, int64_t n, int64_t i) {
    if (!(fabs(got - want) <= bound))
        fail_msg("%s n %d [%d]: %.9g, not %.9g +- %.3g", what, (int)n, (int)i, got, want, bound);
}

/* ---- conversions ---- */

/* Every upper half with a few lower halves: all exponents, ties, denormals, infinities, NaNs. */
static uint32_t *hard_bits(size_t *n) {
    static const uint32_t low[] = {0, 1, 0x7fff, 0x8000, 0x8001, 0xffff, 0x0fff, 0x1000, 0x1001};
    *n = 65536 * QSI_COUNT(low);
    uint32_t *x = guarded(*n * 4);
    for (size_t i = 0; i < *n; i++)
        x[i] = (uint32_t)(i / QSI_COUNT(low)) << 16 | low[i % QSI_COUNT(low)];
    return x;
}

static void test_to_halves(void **state) {
    size_t n;
    uint32_t *bits = hard_bits(&n);
    uint16_t *y = guarded(n * 2);
    for (int kind = 0; kind < 2; kind++) {
        (kind == 0 ? kern->f32_to_bf16 : kern->f32_to_f16)((const float *)bits, y, (int64_t)n);
        for (size_t i = 0; i < n; i++) {
            float x;
            memcpy(&x, &bits[i], 4);
            uint16_t want = kind == 0 ? qsi_f32_to_bf16(x) : qsi_f32_to_f16(x);
            if (y[i] != want)
                fail_msg("kind %d: %08x gave %04x not %04x", kind, bits[i], y[i], want);
        }
    }
    guarded_free(bits, n * 4);
    guarded_free(y, n * 2);
}

static void test_from_halves(void **state) {
    const size_t n = 65535;
    uint16_t *x = guarded(n * 2);
    float *y = guarded(n * 4);
    for (size_t i = 0; i < n; i++) x[i] = (uint16_t)i;
    for (int kind = 0; kind < 2; kind++) {
        (kind == 0 ? kern->bf16_to_f32 : kern->f16_to_f32)(x, y, (int64_t)n);
        for (size_t i = 0; i < n; i++) {
            float want = kind == 0 ? qsi_bf16_to_f32(x[i]) : qsi_f16_to_f32(x[i]);
            assert_memory_equal(&y[i], &want, 4);
        }
    }
    guarded_free(x, n * 2);
    guarded_free(y, n * 4);
}

static void test_conversion_tails(void **state) {
    EACH_SIZE(n) {
        float *x = random_floats((size_t)n), *z = guarded((size_t)n * 4);
        uint16_t *y = guarded((size_t)n * 2);
        kern->f32_to_bf16(x, y, n);
        for (int64_t i = 0; i < n; i++) assert_int_equal(y[i], qsi_f32_to_bf16(x[i]));
        kern->bf16_to_f32(y, z, n);
        for (int64_t i = 0; i < n; i++) assert_true(z[i] == qsi_bf16_to_f32(y[i]));
        kern->f32_to_f16(x, y, n);
        for (int64_t i = 0; i < n; i++) assert_int_equal(y[i], qsi_f32_to_f16(x[i]));
        kern->f16_to_f32(y, z, n);
        for (int64_t i = 0; i < n; i++) assert_true(z[i] == qsi_f16_to_f32(y[i]));
        floats_free(x, (size_t)n);
        floats_free(z, (size_t)n);
        guarded_free(y, (size_t)n * 2);
    }
}

static void test_bf16_t(void **state) {
    static const int64_t rs[] = {1, 2, 15, 32, 33, 65}, cs[] = {1, 3, 16, 17, 40};
    for (size_t a = 0; a < QSI_COUNT(rs); a++)
        for (size_t b = 0; b < QSI_COUNT(cs); b++) {
            int64_t rows = rs[a], cols = cs[b], ldx = cols + 2, ldy = rows + 1;
            size_t nx = (size_t)((rows - 1) * ldx + cols), ny = (size_t)((cols - 1) * ldy + rows);
            float *x = random_floats(nx);
            uint16_t *y = guarded(ny * 2);
            memset(y, 0xab, ny * 2);
            kern->f32_to_bf16_t(x, ldx, rows, cols, y, ldy);
            for (int64_t c = 0; c < cols; c++)
                for (int64_t r = 0; r < ldy && (size_t)(c * ldy + r) < ny; r++)
                    assert_int_equal(y[c * ldy + r],
                                     r < rows ? qsi_f32_to_bf16(x[r * ldx + c]) : 0xabab);
            floats_free(x, nx);
            guarded_free(y, ny * 2);
        }
}

/* The rule of kern.h; the codes are the same at every level. */
static void test_act8(void **state) {
    static const float special[] = {0.0f, 1e-40f, 1e-37f, 1e38f, 127.0f, NAN, INFINITY, -INFINITY};
    const int64_t n = 32 * 40;
    float *x = random_floats((size_t)n);
    qsi_act8 *y = guarded((size_t)(n / 32) * sizeof *y);
    for (size_t i = 0; i < QSI_COUNT(special); i++) {
        for (int e = 0; e < 32; e++)
            x[i * 32 + (size_t)e] = special[i] == 127.0f ? (float)e - 15.5f : 0;
        x[i * 32 + 5 * i % 32] = special[i];
    }
    kern->f32_to_act8(x, y, n);
    for (int64_t b = 0; b < n / 32; b++) {
        double top = 0;
        int sum = 0, finite = 1;
        for (int e = 0; e < 32; e++) {
            sum += y[b].qs[e];
            if (!isfinite(x[b * 32 + e])) finite = 0;
            if (fabs(x[b * 32 + e]) > top) top = fabs(x[b * 32 + e]);
        }
        assert_int_equal(-128 * sum, y[b].z);
        if (!finite) {
            assert_false(isfinite(y[b].d));
            continue;
        }
        if (top < 1.5e-36) {
            assert_true(y[b].d == 0.0f && sum == 0);
            continue;
        }
        assert_true(y[b].d == (float)top / 127.0f);
        float inv = 1.0f / y[b].d;
        for (int e = 0; e < 32; e++)
            assert_int_equal(y[b].qs[e], (int)roundf(x[b * 32 + e] * inv));
    }
    floats_free(x, (size_t)n);
    guarded_free(y, (size_t)(n / 32) * sizeof *y);
}

/* Scale and codes by the same rule; the sums are those of the codes, in their order. */
static void check_actk(const float *x, const qsi_actk *y) {
    static const int place[4] = {0, 2, 1, 3}; /* of the sums of every four groups */
    int finite = 1, s16[16] = {0}, s32[8] = {0};
    float top = 0;
    for (int e = 0; e < 256; e++) {
        s16[e / 16] += y->qs[e];
        s32[e / 32] += y->qs[e];
        if (!isfinite(x[e])) finite = 0;
        if (fabsf(x[e]) > top) top = fabsf(x[e]);
    }
    for (int g = 0; g < 16; g++) {
        assert_int_equal(y->z16[g], -128 * s16[g]);
        assert_int_equal(y->s16[g / 4 * 4 + place[g % 4]], s16[g]);
        assert_int_equal(y->s32[g / 2 / 4 * 4 + place[g / 2 % 4]], s32[g / 2]);
    }
    float inv = 0;
    if (!finite)
        assert_false(isfinite(y->d));
    else if (top < 1.5e-36f)
        assert_true(y->d == 0.0f);
    else
        assert_true(y->d == top / 127.0f);
    if (finite && y->d != 0.0f) inv = 1.0f / y->d;
    for (int e = 0; e < 256; e++)
        assert_int_equal(y->qs[e], inv == 0.0f ? 0 : (int)roundf(x[e] * inv));
}

static void test_actk(void **state) {
    static const float special[] = {0.0f, 1e-40f, 1e-37f, 1e38f, 127.0f, NAN, INFINITY, -INFINITY};
    const int64_t n = 256 * 12;
    float *x = random_floats((size_t)n);
    qsi_actk *y = guarded((size_t)(n / 256) * sizeof *y);
    for (size_t i = 0; i < QSI_COUNT(special); i++) {
        for (int e = 0; e < 256; e++)
            x[i * 256 + (size_t)e] = special[i] == 127.0f ? (float)e / 2 - 63.5f : 0;
        x[i * 256 + 41 * i % 256] = special[i];
    }
    kern->f32_to_actk(x, y, n);
    for (int64_t b = 0; b < n / 256; b++) {
        qsi_actk t;
        memcpy(&t, y + b, sizeof t); /* y stands at any address */
        check_actk(x + b * 256, &t);
    }
    floats_free(x, (size_t)n);
    guarded_free(y, (size_t)(n / 256) * sizeof *y);
}

/* ---- vectors ---- */

static void test_sums(void **state) {
    EACH_SIZE(n) {
        float *x = random_floats((size_t)n), *y = random_floats((size_t)n);
        double s = 0, mag = 0, sq = 0;
        float top = -INFINITY;
        for (int64_t i = 0; i < n; i++) {
            s += (double)x[i] * y[i];
            mag += fabs((double)x[i] * y[i]);
            sq += (double)x[i] * x[i];
            if (x[i] > top) top = x[i];
        }
        near_(kern->dot(x, y, n), s, (double)(n + 2) * U * mag, "dot", n, 0);
        near_(kern->sum_sq(x, n), sq, (double)(n + 2) * 2.3e-16 * sq, "sum_sq", n, 0);
        assert_true(kern->max(x, n) == top);
        floats_free(x, (size_t)n);
        floats_free(y, (size_t)n);
    }
}

static void test_vectors(void **state) {
    EACH_SIZE(n) {
        float *x = random_floats((size_t)n), *y = random_floats((size_t)n);
        float *z = guarded((size_t)n * 4);
        memcpy(z, y, (size_t)n * 4);
        kern->axpy(1.7f, x, z, n);
        for (int64_t i = 0; i < n; i++) {
            double want = 1.7f * (double)x[i] + y[i];
            near_(z[i], want, U * (fabs(1.7 * x[i]) + fabs(want)) * 1.01, "axpy", n, i);
        }
        memcpy(z, y, (size_t)n * 4);
        kern->add(x, z, n);
        for (int64_t i = 0; i < n; i++) assert_true(z[i] == x[i] + y[i]);
        kern->scale(-0.3f, z, n);
        for (int64_t i = 0; i < n; i++) assert_true(z[i] == (x[i] + y[i]) * -0.3f);
        floats_free(x, (size_t)n);
        floats_free(y, (size_t)n);
        floats_free(z, (size_t)n);
    }
}

/* Against the formula in double, by first-order error propagation: m and v have three roundings;
 * the step has relative error at most that of m, half that of v, and six of its own. */
static void test_adamw(void **state) {
    const float clip = 0.7f, lr = 1e-2f, b1 = 0.9f, b2 = 0.95f, c1 = 0.271f, c2 = 0.142625f;
    const float eps = 1e-8f, decay = 0.1f;
    EACH_SIZE(n) {
        float *p = random_floats((size_t)n), *g = random_floats((size_t)n);
        float *m = random_floats((size_t)n), *v = random_floats((size_t)n);
        float *p0 = guarded((size_t)n * 4), *m0 = guarded((size_t)n * 4);
        float *v0 = guarded((size_t)n * 4);
        for (int64_t i = 0; i < n; i++) v[i] = fabsf(v[i]);
        memcpy(p0, p, (size_t)n * 4);
        memcpy(m0, m, (size_t)n * 4);
        memcpy(v0, v, (size_t)n * 4);
        kern->adamw(p, g, m, v, n, clip, lr, b1, b2, c1, c2, eps, decay);
        for (int64_t i = 0; i < n; i++) {
            double gi = (double)g[i] * clip, a = (double)b1 * m0[i], b = (double)(1.0f - b1) * gi;
            double sq = gi * gi, mi = a + b, vi = (double)b2 * v0[i] + (double)(1.0f - b2) * sq;
            double m_err = 4 * U * (fabs(a) + fabs(b)), v_rel = 6 * U;
            near_(m[i], mi, m_err, "adamw m", n, i);
            near_(v[i], vi, v_rel * vi + TINY, "adamw v", n, i);
            double den = sqrt(vi / c2) + eps, step = mi / c1 / den;
            double want = p0[i] - lr * (step + (double)decay * p0[i]);
            double step_err = m_err / c1 / den + fabs(step) * (v_rel + 8 * U);
            double bound = lr * (step_err + 4 * U * (fabs(step) + fabs(decay * p0[i]))) +
                           2 * U * fabs(want) + 2 * U * fabs(p0[i]);
            near_(p[i], want, bound * 1.01, "adamw p", n, i);
        }
        floats_free(p, (size_t)n);
        floats_free(g, (size_t)n);
        floats_free(m, (size_t)n);
        floats_free(v, (size_t)n);
        floats_free(p0, (size_t)n);
        floats_free(m0, (size_t)n);
        floats_free(v0, (size_t)n);
    }
}

/* ---- layers ---- */

/* Against signs counted bit by bit, with the bits of ref; twice is where it began. */
static void test_hadamard(void **state) {
    const qsi_kern *ref = qsi_kern_get(QSI_ISA_REF);
    for (int64_t n = 1; n <= 512; n *= 2) {
        float *x = random_floats((size_t)n), x0[512], want[512];
        memcpy(x0, x, (size_t)n * 4);
        memcpy(want, x, (size_t)n * 4);
        ref->hadamard(want, n);
        kern->hadamard(x, n);
        assert_memory_equal(x, want, (size_t)n * 4);
        for (int64_t i = 0; i < n; i++) {
            double sum = 0, mag = 0;
            for (int64_t j = 0; j < n; j++) {
                sum += __builtin_parityll((unsigned long long)(i & j)) ? -(double)x0[j] : (double)x0[j];
                mag += fabs((double)x0[j]);
            }
            near_(x[i], sum / sqrt((double)n), 12 * U * mag / sqrt((double)n) + TINY, "hadamard", n, i);
        }
        kern->hadamard(x, n);
        for (int64_t i = 0; i < n; i++) {
            double mag = 0;
            for (int64_t j = 0; j < n; j++) mag += fabs((double)x0[j]);
            near_(x[i], (double)x0[i], 24 * U * mag + TINY, "hadamard twice", n, i);
        }
        floats_free(x, (size_t)n);
    }
}

static void test_rmsnorm(void **state) {
    EACH_SIZE(n) {
        if (n == 0) continue;
        float *x = random_floats((size_t)n), *w = random_floats((size_t)n);
        float *y = guarded((size_t)n * 4), *dy = random_floats((size_t)n);
        float *dx = random_floats((size_t)n), *dw = random_floats((size_t)n);
        float *dx0 = guarded((size_t)n * 4), *dw0 = guarded((size_t)n * 4);
        memcpy(dx0, dx, (size_t)n * 4);
        memcpy(dw0, dw, (size_t)n * 4);
        double sq = 0, t = 0, t_mag = 0;
        for (int64_t i = 0; i < n; i++) sq += (double)x[i] * x[i];
        double r = 1 / sqrt(sq / (double)n + 1e-6f), r_rel = ((double)n / 2 + 5) * U;
        float got = kern->rmsnorm(x, w, y, n, 1e-6f);
        near_(got, r, r * r_rel, "rmsnorm r", n, 0);
        for (int64_t i = 0; i < n; i++) {
            double want = w[i] * r * x[i];
            near_(y[i], want, fabs(want) * (r_rel + 2 * U) + TINY, "rmsnorm", n, i);
            t += (double)dy[i] * w[i] * x[i];
            t_mag += fabs((double)dy[i] * w[i] * x[i]);
        }
        kern->rmsnorm_bwd(dy, x, w, got, dx, dw, n);
        double gr = got;
        for (int64_t i = 0; i < n; i++) {
            double a = dy[i] * gr * x[i], want = dw0[i] + a;
            near_(dw[i], want, U * (3 * fabs(a) + fabs(want)) + TINY, "rmsnorm dw", n, i);
            double b = gr * w[i] * dy[i], c = gr * gr * gr * x[i] * t / (double)n;
            double c_mag = fabs(gr * gr * gr * x[i]) * t_mag / (double)n;
            want = dx0[i] + b - c;
            double bound = U * (4 * fabs(b) + ((double)n + 8) * c_mag + fabs(want) + fabs(b - c));
            near_(dx[i], want, bound + TINY, "rmsnorm dx", n, i);
        }
        kern->rmsnorm(x, w, x, n, 1e-6f);
        assert_memory_equal(x, y, (size_t)n * 4);
        floats_free(x, (size_t)n);
        floats_free(w, (size_t)n);
        floats_free(y, (size_t)n);
        floats_free(dy, (size_t)n);
        floats_free(dx, (size_t)n);
        floats_free(dw, (size_t)n);
        floats_free(dx0, (size_t)n);
        floats_free(dw0, (size_t)n);
    }
}

/* s = 1/(1+e): relative error of e times (1 - s), and two roundings; 1 - s to u absolutely. */
static void test_swiglu(void **state) {
    EACH_SIZE(n) {
        float *g = random_floats((size_t)n), *u = random_floats((size_t)n);
        float *dy = random_floats((size_t)n), *y = guarded((size_t)n * 4);
        float *dg = guarded((size_t)n * 4), *du = guarded((size_t)n * 4);
        for (int64_t i = 0; i < n; i++) g[i] *= 4;
        kern->swiglu(g, u, y, n);
        kern->swiglu_bwd(dy, g, u, dg, du, n);
        for (int64_t i = 0; i < n; i++) {
            double gi = g[i], s = 1 / (1 + exp(-gi)), silu = gi * s;
            double lost = fabs((double)gi * u[i] * 1e-37) + TINY * (1 + fabs(u[i]));
            near_(y[i], silu * u[i], fabs(silu * u[i]) * 9 * U + lost, "swiglu", n, i);
            double want = dy[i] * (double)u[i] * s * (1 + gi * (1 - s));
            double bound = fabs((double)dy[i] * u[i]) *
                           (s * (10 * U + (8 * s + 2) * U * fabs(gi)) +
                            s * fabs(gi) * (1 - s) * 9 * U +
                            2e-37 * (1 + fabs(gi)));
            near_(dg[i], want, bound + TINY, "swiglu dg", n, i);
            near_(du[i], dy[i] * silu, fabs(dy[i] * silu) * 9 * U + fabs(gi * dy[i]) * 1e-37 + TINY,
                  "swiglu du", n, i);
        }
        /* in place */
        kern->swiglu_bwd(dy, g, u, g, u, n);
        assert_memory_equal(g, dg, (size_t)n * 4);
        assert_memory_equal(u, du, (size_t)n * 4);
        floats_free(g, (size_t)n);
        floats_free(u, (size_t)n);
        floats_free(dy, (size_t)n);
        floats_free(y, (size_t)n);
        floats_free(dg, (size_t)n);
        floats_free(du, (size_t)n);
    }
}

/* exp alone: with a largest element of 0 and scale 1 the argument is exact. */
static void test_exp(void **state) {
    const size_t n = 200001;
    float *x = guarded(n * 4), *y = guarded(n * 4);
    for (size_t i = 0; i < n; i++) x[i] = y[i] = -110.0f * (float)i / (float)(n - 1);
    float top;
    kern->softmax_exp(y, (int64_t)n, 1.0f, &top);
    assert_true(top == 0.0f && y[0] == 1.0f);
    for (size_t i = 0; i < n; i++) {
        double want = exp(x[i]);
        near_(y[i], want, want * 2.5 * U + 1.5e-45, "exp", (int64_t)n, (int64_t)i);
    }
    floats_free(x, n);
    floats_free(y, n);
}

static void test_softmax(void **state) {
    const float scale = 0.1767767f;
    EACH_SIZE(n) {
        float *x = random_floats((size_t)n), *y = guarded((size_t)n * 4), top = -INFINITY, got;
        for (int64_t i = 0; i < n; i++) x[i] = fminf(fmaxf(x[i], -400.0f), 400.0f);
        memcpy(y, x, (size_t)n * 4);
        for (int64_t i = 0; i < n; i++)
            if (x[i] * scale > top) top = x[i] * scale;
        double sum = 0, sum_err = 0, s = kern->softmax_exp(y, n, scale, &got);
        assert_true(got == top);
        for (int64_t i = 0; i < n; i++) {
            double a = (double)x[i] * scale, want = exp(a - top);
            double err = want * U * (4 + fabs(a) + fabs(a - top)) * 1.01 + 1.5e-45;
            near_(y[i], want, err, "softmax", n, i);
            sum += want;
            sum_err += err;
        }
        near_(s, sum, sum_err + (double)n * U * sum, "softmax sum", n, 0);
        floats_free(x, (size_t)n);
        floats_free(y, (size_t)n);
    }
}

static void test_cross_entropy(void **state) {
    EACH_SIZE(n) {
        if (n == 0) continue;
        float *x = random_floats((size_t)n), *y = guarded((size_t)n * 4);
        int32_t t = (int32_t)qsi_rng_below(&rng, (uint64_t)n);
        double top = -1e30, sum = 0, err = 0;
        for (int64_t i = 0; i < n; i++) {
            x[i] = fminf(fmaxf(x[i], -60.0f), 60.0f);
            if (x[i] > top) top = x[i];
        }
        memcpy(y, x, (size_t)n * 4);
        for (int64_t i = 0; i < n; i++) {
            sum += exp(x[i] - top);
            err += exp(x[i] - top) * U * (4 + fabs(x[i] - top));
        }
        double want = top + log(sum) - x[t], rel = err / sum + (double)n * U;
        near_(kern->cross_entropy(y, n, t, 0.0f), want, rel * 1.01 + 1e-13, "loss", n, 0);
        assert_memory_equal(x, y, (size_t)n * 4);
        near_(kern->cross_entropy(y, n, t, 0.25f), want, rel * 1.01 + 1e-13, "loss", n, 1);
        for (int64_t i = 0; i < n; i++) {
            double p = exp(x[i] - top) / sum, g = 0.25 * (p - (i == t));
            double bound = 0.25 * p * (rel + U * (8 + fabs(x[i] - top))) + (i == t ? U * 0.5 : 0);
            near_(y[i], g, bound + TINY, "cross-entropy gradient", n, i);
        }
        floats_free(x, (size_t)n);
        floats_free(y, (size_t)n);
    }
}

static void test_rope(void **state) {
    for (int64_t n = 0; n <= 70; n += 2) {
        float *x = random_floats((size_t)n), *cs = guarded((size_t)n * 4);
        float *y = guarded((size_t)n * 4);
        for (int64_t i = 0; i < n; i += 2) {
            cs[i] = cosf(0.3f * (float)i);
            cs[i + 1] = sinf(0.3f * (float)i);
        }
        for (int sign = -1; sign <= 1; sign += 2) {
            memcpy(y, x, (size_t)n * 4);
            kern->rope(y, cs, n, (float)sign);
            for (int64_t i = 0; i < n; i += 2) {
                double c = cs[i], s = cs[i + 1] * (double)sign, a = x[i], b = x[i + 1];
                near_(y[i], a * c - b * s, 2 * U * (fabs(a * c) + fabs(b * s)), "rope", n, i);
                near_(y[i + 1], a * s + b * c, 2 * U * (fabs(a * s) + fabs(b * c)), "rope", n,
                      i + 1);
            }
        }
        floats_free(x, (size_t)n);
        floats_free(cs, (size_t)n);
        floats_free(y, (size_t)n);
    }
}

static void attention_case(int64_t n_pos, int64_t d, bool f16) {
    int64_t ld = d + 3;
    size_t nk = (size_t)((n_pos - 1) * ld + d), size = f16 ? 2 : 4;
    float *q = random_floats((size_t)d), *kf = random_floats(nk), *s = guarded((size_t)n_pos * 4);
    float *o = random_floats((size_t)d), *o0 = guarded((size_t)d * 4);
    void *k = guarded(nk * size);
    if (f16)
        for (size_t i = 0; i < nk; i++) {
            ((uint16_t *)k)[i] = qsi_f32_to_f16(kf[i]);
            kf[i] = qsi_f16_to_f32(((uint16_t *)k)[i]);
        }
    else
        memcpy(k, kf, nk * 4);
    kern->attn_scores(q, k, f16, ld, n_pos, d, s);
    for (int64_t p = 0; p < n_pos; p++) {
        double sum = 0, mag = 0;
        for (int64_t i = 0; i < d; i++) {
            sum += (double)q[i] * kf[p * ld + i];
            mag += fabs((double)q[i] * kf[p * ld + i]);
        }
        near_(s[p], sum, (double)(d + 2) * U * mag, "scores", n_pos, p);
        /* a position's score does not depend on which others are asked for */
        float alone;
        kern->attn_scores(q, (char *)k + (size_t)(p * ld) * size, f16, ld, 1, d, &alone);
        assert_memory_equal(&alone, &s[p], 4);
    }
    memcpy(o0, o, (size_t)d * 4);
    kern->attn_values(s, k, f16, ld, n_pos, d, o);
    for (int64_t i = 0; i < d; i++) {
        double sum = o0[i], mag = fabs(o0[i]);
        for (int64_t p = 0; p < n_pos; p++) {
            sum += (double)s[p] * kf[p * ld + i];
            mag += fabs((double)s[p] * kf[p * ld + i]);
        }
        near_(o[i], sum, (double)(n_pos + 2) * U * mag, "values", n_pos, i);
    }
    /* in two runs of positions: the same bits */
    int64_t half = n_pos / 2;
    kern->attn_values(s, k, f16, ld, half, d, o0);
    kern->attn_values(s + half, (char *)k + (size_t)(half * ld) * size, f16, ld, n_pos - half, d,
                      o0);
    assert_memory_equal(o, o0, (size_t)d * 4);
    floats_free(q, (size_t)d);
    floats_free(kf, nk);
    floats_free(s, (size_t)n_pos);
    floats_free(o, (size_t)d);
    floats_free(o0, (size_t)d);
    guarded_free(k, nk * size);
}

static void test_attention(void **state) {
    static const int64_t ds[] = {8, 32, 40, 64, 128}, ps[] = {1, 2, 15, 16, 17, 64, 65};
    for (size_t a = 0; a < QSI_COUNT(ds); a++)
        for (size_t b = 0; b < QSI_COUNT(ps); b++)
            for (int f16 = 0; f16 < 2; f16++) attention_case(ps[b], ds[a], f16 != 0);
}

/* What is not a number must not turn into one on its way. */
static void test_not_finite(void **state) {
    for (int64_t at = 0; at < 70; at += 23) {
        float x[70], w[70], y[70];
        for (int i = 0; i < 70; i++) x[i] = w[i] = 1.0f;
        x[at] = NAN;
        assert_true(isnan(kern->dot(x, w, 70)));
        assert_true(isnan(kern->sum_sq(x, 70)));
        assert_true(isnan(kern->rmsnorm(x, w, y, 70, 1e-6f)));
        kern->swiglu(x, w, y, 70);
        assert_true(isnan(y[at]));
        memcpy(y, x, sizeof y);
        assert_true(isnan(kern->cross_entropy(y, 70, 1, 0.0f)));
        assert_true(isnan(kern->cross_entropy(y, 70, 1, 1.0f)));
        memcpy(y, x, sizeof y);
        assert_true(isnan(kern->softmax_exp(y, 70, 1.0f, NULL)));
        x[at] = INFINITY;
        memcpy(y, x, sizeof y);
        assert_false(isfinite(kern->softmax_exp(y, 70, 1.0f, NULL)));
        x[at] = 1.0f;
    }
    float far[3] = {1000.0f, -1000.0f, 999.0f};
    float s = kern->softmax_exp(far, 3, 1.0f, NULL);
    assert_true(far[0] == 1.0f && far[1] == 0.0f && fabsf(s - 1.36787944f) < 1e-6f);
}

static void test_table(void **state) {
    for (int i = 0; i <= (int)kern->isa; i++) {
        if (!qsi_cpu_has((qsi_isa)i)) continue;
        const qsi_kern *t = qsi_kern_get((qsi_isa)i);
        assert_int_equal(t->isa, i);
        for (int type = 0; type < QSI_MM_COUNT; type++) {
            assert_true(t->mm[type].nr > 0 && t->mm[type].nr % 8 == 0);
            assert_non_null(t->mm[type].run);
        }
    }
    assert_true(qsi_kern_get(kern->isa) == kern);
}

int main(int argc, char **argv) {
    int rc = level_from_args(argc, argv);
    if (rc != 0) return rc;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_to_halves), cmocka_unit_test(test_from_halves),
        cmocka_unit_test(test_bf16_t),    cmocka_unit_test(test_conversion_tails),
        cmocka_unit_test(test_act8),      cmocka_unit_test(test_actk),
        cmocka_unit_test(test_sums),      cmocka_unit_test(test_vectors),
        cmocka_unit_test(test_adamw),     cmocka_unit_test(test_hadamard),
        cmocka_unit_test(test_rmsnorm),
        cmocka_unit_test(test_swiglu),    cmocka_unit_test(test_exp),
        cmocka_unit_test(test_softmax),   cmocka_unit_test(test_cross_entropy),
        cmocka_unit_test(test_rope),      cmocka_unit_test(test_attention),
        cmocka_unit_test(test_not_finite),cmocka_unit_test(test_table),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
