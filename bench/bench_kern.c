/* Speed of the products of a layer of DeepSeek LLM 7B's shape (attention 4 x 4096 x 4096, feed-forward
 * 3 x 4096 x 11008) by type of the weights, on all threads, beside what this machine measured in the
 * same run: prefill (many rows) as a share of the peak of the products' arithmetic, decode (few rows)
 * as a share of the read bandwidth. Blocks are random; the layer is larger than the caches.
 * Use: bench_kern [types, comma separated, or all] [rows, comma separated] [threads] [isa]
 * Prints CSV: type, rows, ms (median of seven), GOP/s, share of peak, GB/s, share of bandwidth; the
 * time to prepare stands in rows of 0 rows. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/mem.h"
#include "op/op.h"
#include "op/probe.h"
#include "sys/file.h"

enum { D = 4096, F = 11008, MATRICES = 7, TIMES = 7 };
static const int64_t shape[MATRICES][2] = {{D, D}, {D, D}, {D, D}, {D, D}, {F, D}, {F, D}, {D, F}};

typedef struct bench {
    qsi_op_shared sh;
    const qsi_kern *k;
    qsi_weight *w[MATRICES];
    qsi_act in, mid; /* of D and of F columns */
    float *y;
    int64_t rows;
} bench;

static void prepare_part(const qsi_worker *w, void *arg) {
    bench *b = arg;
    for (int i = 0; i < MATRICES; i++) qsi_weight_prepare(w, b->k, b->w[i]);
}

/* q, k and v in one list, as gate and up: they share their input. */
static void layer_part(const qsi_worker *w, void *arg) {
    bench *b = arg;
    qsi_op o;
    qsi_op_init(&o, w, b->k, &b->sh, NULL, 0);
    qsi_op_end(&o);
    static const int lists[][2] = {{0, 3}, {3, 4}, {4, 6}, {6, 7}};
    for (size_t l = 0; l < QSI_COUNT(lists); l++) {
        qsi_mm_job j[3];
        int n = 0;
        for (int i = lists[l][0]; i < lists[l][1]; i++, n++)
            j[n] = qsi_job_forward(b->w[i], shape[i][1] == D ? &b->in : &b->mid, 0, b->rows,
                                   b->y + n * b->rows * F, shape[i][0], false);
        qsi_op_mm(&o, j, n);
    }
}

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Bytes with scales that are finite: every half has its exponent's top bit clear. */
static char *random_blocks(size_t n) {
    uint64_t *p = qsi_alloc(n / 8 + 1, 8);
    qsi_rng r;
    qsi_rng_init(&r, 3);
    if (p)
        for (size_t i = 0; i <= n / 8; i++) p[i] = qsi_rng_u64(&r) & 0xbfffbfffbfffbfffull;
    return (char *)p;
}

static double seconds(qsi_pool *pool, bench *b) {
    double t[TIMES];
    for (int i = -1; i < TIMES; i++) {
        int64_t t0 = qsi_now_ns();
        qsi_pool_run(pool, layer_part, b);
        if (i >= 0) t[i] = (double)(qsi_now_ns() - t0) * 1e-9;
    }
    qsort(t, TIMES, sizeof *t, compare);
    return t[TIMES / 2];
}

static qs_status acts(bench *b, qsi_arena *ar, int64_t rows, unsigned form, qs_err *err) {
    qs_status st = QS_OK;
    qsi_rng r;
    qsi_rng_init(&r, 4);
    QS_TRY(qsi_act_init(&b->in, ar, rows, D, form, err));
    QS_TRY(qsi_act_init(&b->mid, ar, rows, F, form, err));
    float *x = qsi_arena_alloc(ar, F, sizeof *x);
    b->y = qsi_arena_alloc(ar, (size_t)(3 * rows * F), sizeof *b->y);
    if (!x || !b->y) QS_FAIL(err, QS_E_NOMEM, "no memory for %lld rows", (long long)rows);
    for (int64_t i = 0; i < rows; i++) {
        for (int j = 0; j < F; j++) x[j] = (float)qsi_rng_normal(&r);
        qsi_act_put(b->k, &b->in, i, x);
        qsi_act_put(b->k, &b->mid, i, x);
    }
done:
    return st;
}

static qs_status one_type(qsi_pool *pool, const qsi_kern *k, const qsi_type_info *ti,
                          const char *rows, qs_err *err) {
    qs_status st = QS_OK;
    bench b = {.k = k};
    qsi_limits l;
    double weights = 0, bytes = 0, prep;
    size_t size = 0;
    char *src = NULL;
    QS_CHECK(qsi_row_bytes(ti, (int64_t)D * F, &size));
    src = random_blocks(size);
    if (!src) QS_FAIL(err, QS_E_NOMEM, "no memory for weights");
    for (int i = 0; i < MATRICES; i++) {
        QS_TRY(qsi_weight_create(&b.w[i], k, ti->type, src, shape[i][0], shape[i][1], err));
        weights += (double)(shape[i][0] * shape[i][1]);
        bytes += (double)qsi_weight_bytes(b.w[i]);
    }
    qsi_pool_run(pool, prepare_part, &b); /* twice: the first writes fresh pages */
    int64_t t0 = qsi_now_ns();
    qsi_pool_run(pool, prepare_part, &b);
    prep = (double)(qsi_now_ns() - t0) * 1e-9;
    printf("%s,0,%.1f,,,%.1f,\n", ti->name, prep * 1e3, bytes / prep * 1e-9);
    qsi_mm kind = qsi_weight_mm(b.w[0]);
    for (const char *p = rows; *p;) {
        char *end;
        qsi_arena ar;
        qsi_arena_init(&ar);
        b.rows = strtol(p, &end, 10);
        p = *end ? end + 1 : end;
        QS_TRY(qsi_probe(pool, k->isa, &l, err));
        double peak = kind >= QSI_MM_QUANT ? l.int8_gop_s
                      : kind == QSI_MM_BF16 ? l.bf16_gflop_s : l.fp32_gflop_s;
        st = acts(&b, &ar, b.rows, qsi_act_form(kind), err);
        if (st == QS_OK) {
            double s = seconds(pool, &b), ops = 2 * weights * (double)b.rows / s * 1e-9;
            printf("%s,%lld,%.2f,%.1f,%.3f,%.2f,%.3f\n", ti->name, (long long)b.rows, s * 1e3, ops,
                   ops / peak, bytes / s * 1e-9, bytes / s * 1e-9 / l.read_gb_s);
            fflush(stdout);
        }
        qsi_arena_release(&ar);
        if (st != QS_OK) goto done;
    }
done:
    for (int i = 0; i < MATRICES; i++) qsi_weight_free(b.w[i]);
    qsi_free(src);
    return st;
}

/* True when the list (comma separated, or "all") names the type. */
static bool listed(const char *list, const char *name) {
    size_t n = strlen(name);
    if (strcmp(list, "all") == 0) return true;
    for (const char *p = list; *p; p += strcspn(p, ","), p += *p == ',')
        if (strcspn(p, ",") == n && strncmp(p, name, n) == 0) return true;
    return false;
}

int main(int argc, char **argv) {
    static const qsi_type types[] = {QSI_F32,  QSI_F16,  QSI_BF16, QSI_Q4_0, QSI_Q4_1,
                                     QSI_Q5_0, QSI_Q5_1, QSI_Q8_0, QSI_IQ4_NL, QSI_Q2_K,
                                     QSI_MXFP4, QSI_Q3_K, QSI_Q4_K, QSI_Q5_K, QSI_Q6_K, QSI_IQ4_XS};
    const char *list = argc > 1 ? argv[1] : "all", *rows = argc > 2 ? argv[2] : "1,16,512";
    qs_err err = {0};
    qsi_pool *pool = NULL;
    qsi_isa isa = qsi_cpu_isa();
    qsi_limits l, after;
    qs_status st = QS_OK;
    if (argc > 4) QS_TRY(qsi_isa_parse(argv[4], &isa, &err));
    QS_TRY(qsi_pool_create(&pool, argc > 3 ? (int)strtol(argv[3], NULL, 10) : 0, &err));
    QS_TRY(qsi_probe(pool, isa, &l, &err));
    fprintf(stderr, "%s, %d threads: read %.1f GB/s, int8 %.0f GOP/s, bf16 %.0f, fp32 %.0f GFLOP/s\n",
            qsi_isa_name(isa), qsi_pool_size(pool), l.read_gb_s, l.int8_gop_s, l.bf16_gflop_s,
            l.fp32_gflop_s);
    printf("type,rows,ms,gop_s,peak_share,gb_s,read_share\n");
    for (size_t i = 0; i < QSI_COUNT(types); i++) {
        const qsi_type_info *ti = qsi_type_get(types[i]);
        if (listed(list, ti->name))
            QS_TRY(one_type(pool, qsi_kern_get(isa), ti, rows, &err));
    }
    QS_TRY(qsi_probe(pool, isa, &after, &err));
    fprintf(stderr, "after: read %.1f GB/s, int8 %.0f GOP/s; limits differ by %.1f %%\n",
            after.read_gb_s, after.int8_gop_s, 100 * qsi_limits_differ(&l, &after));
done:
    if (st != QS_OK) fprintf(stderr, "bench_kern: %s\n", err.text);
    qsi_pool_free(pool);
    return st != QS_OK;
}
