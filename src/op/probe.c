/* The machine's limits: every worker runs the level's peak loop, or reads its part of a buffer far
 * larger than the caches. The best of several windows counts, as a limit should. */
#include "op/probe.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "base/mem.h"
#include "kern/kern.h"
#include "sys/file.h"
#include "sys/topology.h"

#define WINDOWS 40
#define WINDOW_S 0.001
/* Windows of 64 MiB, in a buffer of 512 or four times the caches, for 0.4 s. On a shared machine
 * (2 Zen 4 cores) windows of 32 to 64 MiB gave a best that stays within 3 % from one quarter of a
 * second to the next, seven passes over 256 MiB one that moved by 25 %: what disturbs comes in
 * spans of milliseconds. One to eight streams a thread and prefetch were no faster there; huge
 * pages were, by up to 35 %. */
#define READ_BYTES ((size_t)512 << 20)
#define READ_LEAST ((size_t)64 << 20)
#define READ_PARTS 8
#define READ_GRAIN ((size_t)4096)
#define READ_S 0.4
#define READ_WINDOWS 8   /* at least */
#define SHORT_NS 1000000 /* shorter windows are doubled: waking the workers would count */
#define MAX_WORKERS 1024

typedef int64_t peak_fn(int64_t rounds, float *out);

typedef struct peaks {
    peak_fn *peak;
    double best[MAX_WORKERS];
    float sink[MAX_WORKERS]; /* what the loops leave, so that they are run */
} peaks;

struct qsi_read_probe {
    qsi_pool *pool;
    const qsi_kern *k;
    char *buf;               /* [workers][slice] */
    size_t slice, part;      /* bytes of a worker; of a worker in one window */
    int64_t begin[MAX_WORKERS], end[MAX_WORKERS], until, span;
    uint64_t sink[MAX_WORKERS];
    int windows;
    bool touch, done;
    double rate;             /* of the best window */
};

/* The best of many short windows of each worker, so that other programs on the machine do not
 * lower a limit. */
static void peak_part(const qsi_worker *w, void *arg) {
    peaks *p = arg;
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
static double peak_of(qsi_pool *pool, peaks *p, peak_fn *fn) {
    double sum = 0;
    p->peak = fn;
    qsi_pool_run(pool, peak_part, p);
    for (int j = 0; j < qsi_pool_size(pool); j++) sum += p->best[j];
    return sum * 1e-9;
}

/* ---- reading memory ---- */

/* Worker 0, between two barriers: what the window says, and how the next one is. */
static void window_done(qsi_read_probe *p, int workers) {
    int64_t begin = p->begin[0], end = p->end[0];
    for (int i = 1; i < workers; i++) {
        if (p->begin[i] < begin) begin = p->begin[i];
        if (p->end[i] > end) end = p->end[i];
    }
    double s = (double)(end - begin) * 1e-9;
    if (end - begin < SHORT_NS && 2 * p->part <= p->slice) {
        p->part *= 2;
        p->until = end + p->span;
        return;
    }
    double rate = (double)p->part * workers / s * 1e-9;
    if (rate > p->rate) p->rate = rate;
    p->windows++;
    p->done = p->windows >= READ_WINDOWS && end > p->until;
}

/* One window: every worker reads its next `part` bytes. Only clocks inside the window count, from
 * the first that began to the last that ended, so that a worker which the system woke late makes a
 * window look slow and never fast. */
static void read_windows(const qsi_worker *w, void *arg) {
    qsi_read_probe *p = arg;
    const char *own = p->buf + p->slice * (size_t)w->index;
    size_t at = 0;
    uint64_t x = 0;
    if (p->touch) memset(p->buf + p->slice * (size_t)w->index, 1, p->slice);
    while (!p->touch) {
        qsi_barrier(w);
        if (p->done) break;
        if (p->part > p->slice - at) at = 0;
        p->begin[w->index] = qsi_now_ns();
        x ^= p->k->read_all(own + at, p->part);
        p->end[w->index] = qsi_now_ns();
        at += p->part;
        qsi_barrier(w);
        if (w->index == 0) window_done(p, w->count);
    }
    p->sink[w->index] = x;
}

qs_status qsi_read_probe_open(qsi_read_probe **out, qsi_pool *pool, qsi_isa isa, qs_err *err) {
    qs_status st = QS_OK;
    size_t w = (size_t)qsi_pool_size(pool), n = READ_BYTES, cache = 4 * qsi_cache_bytes();
    qsi_read_probe *p = qsi_calloc(1, sizeof *p);
    if (n < cache) n = cache;
    while (n > READ_LEAST && n > qsi_mem_available() / 4) n /= 2;
    if (p == NULL) QS_FAIL(err, QS_E_NOMEM, "out of memory for measuring the machine");
    QS_CHECK(w <= MAX_WORKERS);
    p->pool = pool;
    p->k = qsi_kern_get(isa);
    p->slice = n / w / READ_GRAIN * READ_GRAIN;
    if (p->slice < 4 * READ_GRAIN) p->slice = 4 * READ_GRAIN;
    p->part = n / READ_PARTS / w / READ_GRAIN * READ_GRAIN;
    if (p->part < READ_GRAIN) p->part = READ_GRAIN;
    p->buf = qsi_alloc(w, p->slice);
    if (p->buf) qsi_mem_huge(p->buf, w * p->slice); /* as weights have */
    if (p->buf == NULL)
        QS_FAIL(err, QS_E_NOMEM, "out of memory for measuring the machine (%zu MiB)", n >> 20);
    p->touch = true; /* each worker its own part, so that it lies near it */
    qsi_pool_run(pool, read_windows, p);
    p->touch = false;
    *out = p;
    p = NULL;
done:
    qsi_read_probe_free(p);
    return st;
}

void qsi_read_probe_free(qsi_read_probe *p) {
    if (p == NULL) return;
    qsi_free(p->buf);
    qsi_free(p);
}

double qsi_read_probe_run(qsi_read_probe *p, double seconds) {
    p->done = false;
    p->windows = 0;
    p->rate = 0;
    p->span = (int64_t)(seconds * 1e9);
    p->until = qsi_now_ns() + p->span;
    qsi_pool_run(p->pool, read_windows, p);
    return p->rate;
}

qs_status qsi_probe(qsi_pool *pool, qsi_isa isa, qsi_limits *out, qs_err *err) {
    qs_status st = QS_OK;
    qsi_limits l;
    qsi_read_probe *read = NULL;
    peaks *p = qsi_calloc(1, sizeof *p);
    if (p == NULL) QS_FAIL(err, QS_E_NOMEM, "out of memory for measuring the machine");
    QS_CHECK(qsi_pool_size(pool) <= MAX_WORKERS);
    const qsi_kern *k = qsi_kern_get(isa);
    QS_TRY(qsi_read_probe_open(&read, pool, isa, err));
    l.read_gb_s = qsi_read_probe_run(read, READ_S);
    l.fp32_gflop_s = peak_of(pool, p, k->peak_f32);
    l.bf16_gflop_s = peak_of(pool, p, k->peak_bf16);
    l.int8_gop_s = peak_of(pool, p, k->peak_int8);
    *out = l;
done:
    qsi_read_probe_free(read);
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
