/* Holds the machine's limits, as bench finds them, to what others reach: OpenBLAS' sgemm and a plain
 * read loop, in the same run and in alternation. A limit below one of these is wrong: exit 1.
 *
 * Printed as CSV: limit,ours,other,ratio. NOISE is what two measurements of the same loop differ by
 * here (see op/probe.c). With another BLAS than OpenBLAS compiled in nothing changes; without one the
 * fp32 row is left out, and said to be. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "op/probe.h"
#include "sys/file.h"

#ifdef HAVE_BLAS
#include <cblas.h>
void openblas_set_num_threads(int n);
#endif

#define ROUNDS 12
#define NOISE 0.02
#define BYTES ((size_t)512 << 20)
#define SIZE 2048 /* of the product */

typedef struct plain {
    const uint64_t *p;
    size_t n;
    uint64_t sum[1024];
} plain;

/* What anyone would write first: add everything up. */
static void read_plainly(const qsi_worker *w, void *arg) {
    plain *x = arg;
    int64_t begin, end;
    uint64_t sum[8] = {0};
    qsi_share(w, (int64_t)x->n, 8, &begin, &end);
    for (int64_t i = begin; i + 8 <= end; i += 8)
        for (int j = 0; j < 8; j++) sum[j] += x->p[i + j];
    for (int j = 1; j < 8; j++) sum[0] += sum[j];
    x->sum[w->index] = sum[0];
}

static double seconds(int64_t t) { return (double)(qsi_now_ns() - t) * 1e-9; }

static int row(const char *name, double ours, double other) {
    printf("%s,%.1f,%.1f,%.3f\n", name, ours, other, ours / other);
    if (ours >= other * (1 - NOISE)) return 0;
    fprintf(stderr, "the limit %s is wrong: another program reaches more\n", name);
    return 1;
}

static int check_read(qsi_pool *pool) {
    qsi_read_probe *probe = NULL;
    qs_err err;
    double ours = 0, other = 0;
    plain x = {.n = BYTES / 8};
    uint64_t *buf = qsi_alloc(BYTES, 1);
    if (buf == NULL || qsi_read_probe_open(&probe, pool, qsi_cpu_isa(), &err) != QS_OK) {
        fprintf(stderr, "out of memory\n");
        return 1;
    }
    memset(buf, 1, BYTES);
    x.p = buf;
    for (int i = 0; i < ROUNDS; i++) { /* the best of both over the same seconds */
        double rate = qsi_read_probe_run(probe, 0.1);
        if (rate > ours) ours = rate;
        for (int k = 0; k < 4; k++) {
            int64_t t = qsi_now_ns();
            qsi_pool_run(pool, read_plainly, &x);
            rate = (double)BYTES / seconds(t) * 1e-9;
            if (rate > other) other = rate;
        }
    }
    qsi_read_probe_free(probe);
    qsi_free(buf);
    return row("read_gb_s", ours, other);
}

#ifdef HAVE_BLAS
static int check_sgemm(qsi_pool *pool) {
    size_t n = (size_t)SIZE * SIZE;
    float *a = qsi_alloc(n * 3, sizeof *a), *b = a + n, *c = b + n;
    double ours = 0, other = 0;
    qsi_limits l;
    qs_err err;
    if (a == NULL) return 1;
    for (size_t i = 0; i < 2 * n; i++) a[i] = (float)(i % 7) * 0.25f;
    openblas_set_num_threads(qsi_pool_size(pool));
    for (int i = 0; i < ROUNDS / 3; i++) {
        if (qsi_probe(pool, qsi_cpu_isa(), &l, &err) != QS_OK) return 1;
        if (l.fp32_gflop_s > ours) ours = l.fp32_gflop_s;
        for (int k = 0; k < 6; k++) {
            int64_t t = qsi_now_ns();
            cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, SIZE, SIZE, SIZE, 1, a, SIZE, b,
                        SIZE, 0, c, SIZE);
            double rate = 2e-9 * (double)SIZE * SIZE * SIZE / seconds(t);
            if (rate > other) other = rate;
        }
    }
    qsi_free(a);
    return row("fp32_gflop_s", ours, other);
}
#endif

int main(int argc, char **argv) {
    qsi_pool *pool = NULL;
    qs_err err;
    if (qsi_pool_create(&pool, argc > 1 ? (int)strtol(argv[1], NULL, 10) : 0, &err) != QS_OK) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    puts("limit,ours,other,ratio");
    int wrong = check_read(pool);
#ifdef HAVE_BLAS
    wrong += check_sgemm(pool);
#else
    fprintf(stderr, "built without OpenBLAS (libopenblas-dev): the fp32 limit is not checked\n");
#endif
    qsi_pool_free(pool);
    return wrong != 0;
}
