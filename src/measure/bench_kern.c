/* The kernels one by one, on one thread, at every level: products beside the level's peak, the rest
 * in bytes moved. Buffers of the vector kernels fit the second cache, so that the kernel and not the
 * memory is measured. */
#include <string.h>

#include "base/hash.h"
#include "base/mem.h"
#include "measure/bench.h"
#include "sys/file.h"

/* Shorter than a time slice, so that the median window is whole also on a busy machine. */
#define WINDOW_S 0.0005
#define MAX_REPEATS 101

typedef struct kernels {
    const qsi_kern *k;
    float *x, *y, *z, *w;
    uint16_t *h;
    qsi_act8 *q;
    int64_t m, n, kk; /* of the product; n of vectors */
    qsi_mm type;
    char *a, *b, *packed;
    float *c;
} kernels;

typedef void call_fn(kernels *s);

/* Seconds a call: the median of 4 * `repeats` + 1 windows. */
static double time_of(kernels *s, call_fn *fn, int repeats) {
    double t[4 * MAX_REPEATS + 1];
    int64_t calls = 1;
    int n = 4 * repeats + 1;
    fn(s);
    for (int r = 0; r < n;) {
        int64_t t0 = qsi_now_ns();
        for (int64_t i = 0; i < calls; i++) fn(s);
        double d = (double)(qsi_now_ns() - t0) * 1e-9;
        if (d < WINDOW_S && r == 0) {
            calls *= 2;
            continue;
        }
        t[r++] = d / (double)calls;
    }
    return qsi_median(t, n);
}

/* ---- products ---- */

static const struct {
    qsi_mm type;
    const char *name;
    int64_t m, n, k;
} products[] = {
    {QSI_MM_F32, "mm_f32", 512, 256, 256},    {QSI_MM_F32, "mm_f32", 1, 2048, 2048},
    {QSI_MM_F16, "mm_f16", 512, 256, 256},    {QSI_MM_F16, "mm_f16", 1, 2048, 2048},
    {QSI_MM_BF16, "mm_bf16", 512, 256, 256},  {QSI_MM_BF16, "mm_bf16", 2048, 1024, 256},
    {QSI_MM_BF16, "mm_bf16", 256, 256, 2048}, {QSI_MM_BF16, "mm_bf16", 1, 2048, 2048},
    {QSI_MM_Q8_0, "mm_q8_0", 512, 256, 256},  {QSI_MM_Q8_0, "mm_q8_0", 1, 2048, 2048},
    {QSI_MM_Q4_0, "mm_q4_0", 512, 256, 256},  {QSI_MM_Q4_0, "mm_q4_0", 1, 2048, 2048},
    {QSI_MM_Q4_K, "mm_q4_k", 512, 256, 256},  {QSI_MM_Q4_K, "mm_q4_k", 1, 2048, 2048},
};

static const qsi_type_info *quantised(qsi_mm t) {
    static const qsi_type types[QSI_MM_N_QUANT] = {
#define TYPE(name) QSI_##name,
        QSI_MM_QUANT_LIST(TYPE)
#undef TYPE
    };
    return t < QSI_MM_QUANT ? NULL : qsi_type_get(types[t - QSI_MM_QUANT]);
}

static size_t a_row(qsi_mm t, int64_t k) {
    const qsi_type_info *ti = quantised(t);
    if (ti == NULL) return (size_t)k * (t == QSI_MM_BF16 ? 2 : 4);
    if (ti->block == 256) return (size_t)(k / 256) * sizeof(qsi_actk);
    return (size_t)(k / 32) * sizeof(qsi_act8);
}

static size_t b_row(qsi_mm t, int64_t k) {
    const qsi_type_info *ti = quantised(t);
    if (ti == NULL) return (size_t)k * (t == QSI_MM_F32 ? 4 : 2);
    return (size_t)(k / ti->block) * (size_t)ti->bytes;
}

static void call_product(kernels *s) {
    const qsi_kern_mm *mm = &s->k->mm[s->type];
    mm->run(s->m, s->n, s->kk, 0, (s->n + mm->nr - 1) / mm->nr, s->a, a_row(s->type, s->kk),
            s->packed, s->c, s->n, false);
}

static void call_pack(kernels *s) {
    const qsi_kern_mm *mm = &s->k->mm[s->type];
    int64_t ld = s->type >= QSI_MM_Q8_0 ? (int64_t)b_row(s->type, s->kk) : s->kk;
    mm->pack(s->b, ld, 1, s->n, s->kk, 0, (s->n + mm->nr - 1) / mm->nr, s->packed);
}

/* Peak of one thread for the kind of the product. */
static double peak_of(const qsi_kern *k, qsi_mm t) {
    int64_t (*fn)(int64_t, float *) = t >= QSI_MM_Q8_0 ? k->peak_int8
                                      : t == QSI_MM_BF16 ? k->peak_bf16
                                                         : k->peak_f32;
    double best = 0;
    int64_t rounds = 1000;
    for (int i = 0; i < 20;) {
        float x = 0.5f;
        int64_t t0 = qsi_now_ns(), ops = fn(rounds, &x);
        double s = (double)(qsi_now_ns() - t0) * 1e-9;
        if (s < WINDOW_S && i == 0) {
            rounds *= 2;
            continue;
        }
        i++;
        if ((double)ops / s * 1e-9 > best) best = (double)ops / s * 1e-9;
    }
    return best;
}

static qs_status one_product(kernels *s, size_t i, int repeats, qsi_bench_kernel_fn *fn, void *user,
                             qs_err *err) {
    qs_status st = QS_OK;
    s->type = products[i].type;
    s->m = products[i].m;
    s->n = products[i].n;
    s->kk = products[i].k;
    const qsi_kern_mm *mm = &s->k->mm[s->type];
    bool ints = s->type >= QSI_MM_Q8_0;
    s->a = qsi_calloc((size_t)s->m, a_row(s->type, s->kk));
    s->b = qsi_calloc((size_t)s->n, b_row(s->type, s->kk));
    s->c = qsi_calloc((size_t)s->m * (size_t)s->n, sizeof(float));
    s->packed = qsi_calloc((size_t)((s->n + mm->nr - 1) / mm->nr), mm->panel_bytes(s->kk));
    if (s->a == NULL || s->b == NULL || s->c == NULL || s->packed == NULL)
        QS_FAIL(err, QS_E_NOMEM, "out of memory for the test of a product");
    double pack = time_of(s, call_pack, repeats), run = time_of(s, call_product, repeats);
    qsi_bench_kernel row = {.kernel = products[i].name, .isa = qsi_isa_name(s->k->isa),
                           .unit = ints ? "GOP/s" : "GFLOP/s", .m = s->m, .n = s->n, .k = s->kk};
    row.value = 2.0 * (double)s->m * (double)s->n * (double)s->kk / run * 1e-9;
    row.share = row.value / peak_of(s->k, s->type);
    fn(user, &row);
    if (s->m == 1) { /* the same by bytes of weights, and packing */
        double bytes = (double)b_row(s->type, s->kk) * (double)s->n;
        row.unit = "GB/s";
        row.share = 0;
        row.value = bytes / run * 1e-9;
        fn(user, &row);
        row.kernel = "pack";
        row.value = bytes / pack * 1e-9;
        fn(user, &row);
    }
done:
    qsi_free(s->a);
    qsi_free(s->b);
    qsi_free(s->c);
    qsi_free(s->packed);
    s->a = s->b = s->packed = NULL;
    s->c = NULL;
    return st;
}

/* ---- vectors ---- */

#define N 16384 /* values: 64 KiB of floats */
#define D 64    /* of a head */

static void call_to_bf16(kernels *s) { s->k->f32_to_bf16(s->x, s->h, N); }
static void call_to_f16(kernels *s) { s->k->f32_to_f16(s->x, s->h, N); }
static void call_to_act8(kernels *s) { s->k->f32_to_act8(s->x, s->q, N); }
static void call_bf16_t(kernels *s) { s->k->f32_to_bf16_t(s->x, 128, N / 128, 128, s->h, N / 128); }
static void call_dot(kernels *s) { s->w[0] = s->k->dot(s->x, s->y, N); }
static void call_sum_sq(kernels *s) { s->w[0] = (float)s->k->sum_sq(s->x, N); }
static void call_axpy(kernels *s) { s->k->axpy(1e-6f, s->x, s->z, N); }
static void call_rmsnorm(kernels *s) { s->w[0] = s->k->rmsnorm(s->x, s->y, s->z, N, 1e-6f); }
static void call_rmsnorm_bwd(kernels *s) {
    s->k->rmsnorm_bwd(s->x, s->y, s->x, 1e-3f, s->z, s->w, N);
}
static void call_swiglu(kernels *s) { s->k->swiglu(s->x, s->y, s->z, N); }
static void call_swiglu_bwd(kernels *s) { s->k->swiglu_bwd(s->x, s->x, s->y, s->z, s->w, N); }
static void call_softmax(kernels *s) {
    float top;
    memcpy(s->z, s->x, N * sizeof(float));
    s->w[0] = s->k->softmax_exp(s->z, N, 1.0f, &top);
}
static void call_cross_entropy(kernels *s) {
    memcpy(s->z, s->x, N * sizeof(float));
    s->w[0] = (float)s->k->cross_entropy(s->z, N, 7, 0.1f);
}
static void call_scores(kernels *s) { s->k->attn_scores(s->y, s->x, false, D, N / D, D, s->z); }
static void call_values(kernels *s) { s->k->attn_values(s->y, s->x, false, D, N / D, D, s->z); }
static void call_scores_f16(kernels *s) { s->k->attn_scores(s->y, s->h, true, D, N / D, D, s->z); }
static void call_values_f16(kernels *s) { s->k->attn_values(s->y, s->h, true, D, N / D, D, s->z); }
static void call_adamw(kernels *s) {
    s->k->adamw(s->z, s->x, s->w, s->y, N, 1.0f, 1e-9f, 0.9f, 0.95f, 0.1f, 0.05f, 1e-8f, 0.1f);
}

static const struct {
    const char *name;
    call_fn *fn;
    int bytes; /* moved for each value */
} vectors[] = {
    {"f32_to_bf16", call_to_bf16, 6},       {"f32_to_f16", call_to_f16, 6},
    {"f32_to_act8", call_to_act8, 5},       {"f32_to_bf16_t", call_bf16_t, 6},
    {"dot", call_dot, 8},                   {"sum_sq", call_sum_sq, 4},
    {"axpy", call_axpy, 12},                {"rmsnorm", call_rmsnorm, 16},
    {"rmsnorm_bwd", call_rmsnorm_bwd, 40},  {"swiglu", call_swiglu, 12},
    {"swiglu_bwd", call_swiglu_bwd, 20},    {"softmax_exp", call_softmax, 12},
    {"cross_entropy", call_cross_entropy, 20}, {"attn_scores_f32", call_scores, 4},
    {"attn_values_f32", call_values, 4},    {"attn_scores_f16", call_scores_f16, 2},
    {"attn_values_f16", call_values_f16, 2}, {"adamw", call_adamw, 28},
};

static void fill(float *x, uint64_t seed) {
    qsi_rng r;
    qsi_rng_init(&r, seed);
    for (int i = 0; i < N; i++) x[i] = 0.01f + qsi_rng_f32(&r);
}

qs_status qsi_bench_kernels(const qsi_bench_opts *o, qsi_isa isa, qsi_bench_kernel_fn *fn, void *user,
                            qs_err *err) {
    qs_status st = QS_OK;
    kernels s = {0};
    int repeats = o->repeats < 1 ? 1 : o->repeats > MAX_REPEATS ? MAX_REPEATS : o->repeats;
    float *mem = qsi_calloc(4 * N, sizeof *mem);
    s.h = qsi_calloc(N, sizeof *s.h);
    s.q = qsi_calloc(N / 32, sizeof *s.q);
    if (mem == NULL || s.h == NULL || s.q == NULL)
        QS_FAIL(err, QS_E_NOMEM, "out of memory for the tests of the kernels");
    s.x = mem;
    s.y = mem + N;
    s.z = mem + 2 * N;
    s.w = mem + 3 * N;
    for (int level = QSI_ISA_REF; level <= (int)isa; level++) {
        if (!qsi_cpu_has((qsi_isa)level)) continue;
        s.k = qsi_kern_get((qsi_isa)level);
        for (size_t i = 0; i < QSI_COUNT(products); i++)
            QS_TRY(one_product(&s, i, repeats, fn, user, err));
        for (size_t i = 0; i < QSI_COUNT(vectors); i++) {
            for (int j = 0; j < 4; j++) fill(mem + j * N, (uint64_t)j);
            s.k->f32_to_f16(s.x, s.h, N);
            double t = time_of(&s, vectors[i].fn, repeats);
            fn(user, &(qsi_bench_kernel){.kernel = vectors[i].name, .isa = qsi_isa_name(s.k->isa),
                                        .unit = "GB/s", .n = N,
                                        .value = (double)vectors[i].bytes * N / t * 1e-9});
            if (o->progress != NULL && o->progress(o->user, vectors[i].name) != 0)
                QS_FAIL(err, QS_E_CANCELLED, "cancelled");
        }
    }
done:
    qsi_free(mem);
    qsi_free(s.h);
    qsi_free(s.q);
    return st;
}
