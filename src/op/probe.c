/* The machine's limits: every worker runs the level's peak loop, or reads its part of a buffer far
 * larger than the caches. The best of several windows counts, as a limit should. */
#include "op/probe.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "kern/kern.h"
#include "sys/file.h"

#define WINDOWS 40
#define WINDOW_S 0.001
#define READS 7
#define READ_BYTES ((size_t)256 << 20)
#define READ_LEAST ((size_t)64 << 20)
#define MAX_WORKERS 1024

typedef int64_t peak_fn(int64_t rounds, float *out);

typedef struct probe {
    const qsi_kern *k;
    peak_fn *peak;
    double best[MAX_WORKERS];
    float sink[MAX_WORKERS]; /* what the loops leave, so that they are run */
    const char *buf;
    size_t n;
} probe;

/* The best of many short windows of each worker, so that other programs on the machine do not
 * lower a limit. */
static void peak_part(const qsi_worker *w, void *arg) {
    probe *p = arg;
    int64_t rounds = 1000, ops = 0;
    double best = 0;
    float sink = 0;
    for (int i = 0; i < WINDOWS;) {
        float x = 0.5f;
        int64_t t = qsi_now_ns();
        ops = p->peak(rounds, &x);
        double s = (double)(qsi_now_ns() - t) * 1e-9;
        sink += x;
        if (s < WINDOW_S && i == 0) { /* still finding the length of a window */
            rounds *= 2;
            continue;
        }
        i++;
        if ((double)ops / s > best) best = (double)ops / s;
    }
    p->best[w->index] = best;
    p->sink[w->index] = sink;
}

/* 10^9 operations a second of all workers. */
static double peak_of(qsi_pool *pool, probe *p, peak_fn *fn) {
    double sum = 0;
    p->peak = fn;
    qsi_pool_run(pool, peak_part, p);
    for (int j = 0; j < qsi_pool_size(pool); j++) sum += p->best[j];
    return sum * 1e-9;
}

static void read_part(const qsi_worker *w, void *arg) {
    probe *p = arg;
    int64_t begin, end;
    qsi_share(w, (int64_t)(p->n / 256), 16, &begin, &end);
    uint64_t x = p->k->read_all(p->buf + begin * 256, (size_t)(end - begin) * 256);
    p->sink[w->index] = (float)(x & 1);
}

static double read_seconds(qsi_pool *pool, probe *p) {
    int64_t t = qsi_now_ns();
    qsi_pool_run(pool, read_part, p);
    return (double)(qsi_now_ns() - t) * 1e-9;
}

qs_status qsi_probe(qsi_pool *pool, qsi_isa isa, qsi_limits *out, qs_err *err) {
    qs_status st = QS_OK;
    char *buf = NULL;
    probe *p = qsi_calloc(1, sizeof *p);
    size_t n = READ_BYTES;
    while (n > READ_LEAST && n > qsi_mem_available() / 4) n /= 2;
    buf = qsi_alloc(n, 1);
    if (p == NULL || buf == NULL)
        QS_FAIL(err, QS_E_NOMEM, "out of memory for measuring the machine (%zu MiB)", n >> 20);
    memset(buf, 1, n);
    QS_CHECK(qsi_pool_size(pool) <= MAX_WORKERS);
    *p = (probe){.k = qsi_kern_get(isa), .buf = buf, .n = n};
    double best = INFINITY;
    for (int i = 0; i < READS; i++) best = fmin(best, read_seconds(pool, p));
    out->read_gb_s = (double)n / best * 1e-9;
    out->fp32_gflop_s = peak_of(pool, p, p->k->peak_f32);
    out->bf16_gflop_s = peak_of(pool, p, p->k->peak_bf16);
    out->int8_gop_s = peak_of(pool, p, p->k->peak_int8);
done:
    qsi_free(buf);
    qsi_free(p);
    return st;
}

double qsi_limits_differ(const qsi_limits *a, const qsi_limits *b) {
    const double x[] = {a->read_gb_s, a->fp32_gflop_s, a->bf16_gflop_s, a->int8_gop_s};
    const double y[] = {b->read_gb_s, b->fp32_gflop_s, b->bf16_gflop_s, b->int8_gop_s};
    double worst = 0;
    for (size_t i = 0; i < QSI_COUNT(x); i++)
        worst = fmax(worst, fabs(x[i] - y[i]) / fmax(fmax(x[i], y[i]), 1e-30));
    return worst;
}
