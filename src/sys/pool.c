/* The worker pool: threads that live as long as the pool and meet in one barrier.
 *
 * The barrier counts arrivals and turns a generation: the last to arrive resets the count and
 * advances the generation, the others wait for it to change. A run is two turns of the same
 * barrier: one hands out the function, one says that all have returned; what an op does in between
 * are further turns. Waiting spins shortly (the next op usually follows within microseconds) and
 * then sleeps on the generation, so that a machine with fewer cores than threads loses little.
 *
 * Pairs: `arrived` (acq_rel) orders each worker's writes before the turn; `generation` (release by
 * the last, acquire by the waiters) publishes them. `sleepers` and `generation` are seq_cst:
 * either the last one sees the sleeper, or the sleeper sees the new generation before it sleeps. */
#include "sys/pool.h"

#include <errno.h>
#include <fenv.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>

#include "base/mem.h"
#include "sys/cpu.h"
#include "sys/futex.h"
#include "sys/oserr.h"
#include "sys/topology.h"

enum { MAX_THREADS = 1024, SPIN_FREE = 4000, SPIN_CROWDED = 50 };

typedef struct thread_slot {
    qsi_worker worker;
    pthread_t thread;
} thread_slot;

struct qsi_pool {
    _Alignas(QSI_ALIGN) _Atomic uint32_t arrived;
    _Alignas(QSI_ALIGN) _Atomic uint32_t generation;
    _Alignas(QSI_ALIGN) _Atomic uint32_t sleepers;
    _Alignas(QSI_ALIGN) _Atomic int64_t ticket;
    /* Written by the owner before a turn, read by workers after it. */
    _Alignas(QSI_ALIGN) qsi_pool_fn *fn;
    void *arg;
    bool guard, quit;
    bool running; /* owner's: a run is not reentrant */
    _Atomic int count; /* changes only when starting the threads failed */
    int spin;
    int started; /* threads that exist; slots[0] is the owner's */
    thread_slot *slots;
    qsi_placement *placement; /* NULL: workers are not bound */
};

static void wait_turn(qsi_pool *p, uint32_t gen) {
    for (int i = 0; i < p->spin; i++) {
        if (atomic_load_explicit(&p->generation, memory_order_acquire) != gen) return;
        qsi_cpu_relax();
    }
    atomic_fetch_add(&p->sleepers, 1);
    while (atomic_load(&p->generation) == gen) qsi_futex_wait(&p->generation, gen);
    atomic_fetch_sub(&p->sleepers, 1);
}

static void meet(qsi_pool *p) {
    uint32_t gen = atomic_load_explicit(&p->generation, memory_order_relaxed);
    uint32_t n = atomic_fetch_add_explicit(&p->arrived, 1, memory_order_acq_rel) + 1;
    if (n < (uint32_t)p->count) {
        wait_turn(p, gen);
        return;
    }
    atomic_store_explicit(&p->arrived, 0, memory_order_relaxed);
    atomic_store(&p->generation, gen + 1);
    if (atomic_load(&p->sleepers) > 0) qsi_futex_wake_all(&p->generation);
}

static void call(qsi_pool *p, const qsi_worker *w) {
    if (p->guard) qsi_mem_guard_begin();
    p->fn(w, p->arg);
    if (p->guard) qsi_mem_guard_end();
}

static void *thread_main(void *arg) {
    thread_slot *slot = arg;
    qsi_pool *p = slot->worker.pool;
    fesetenv(FE_DFL_ENV);
    if (p->placement != NULL) (void)qsi_placement_bind(p->placement, slot->worker.index);
    for (;;) {
        meet(p);
        if (p->quit) return NULL;
        call(p, &slot->worker);
        meet(p);
    }
}

/* Starts the other threads with every signal blocked: signals belong to the program's own threads.
 * */
static int start_threads(qsi_pool *p) {
    sigset_t all, old;
    int rc = 0;
    sigfillset(&all);
    /* but not those that a thread raises itself: blocked, they end the process at once */
    sigdelset(&all, SIGBUS);
    sigdelset(&all, SIGSEGV);
    sigdelset(&all, SIGFPE);
    sigdelset(&all, SIGILL);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    while (p->started < p->count && rc == 0) {
        thread_slot *slot = &p->slots[p->started];
        rc = pthread_create(&slot->thread, NULL, thread_main, slot);
        if (rc == 0) p->started++;
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return rc;
}

static qs_status create(qsi_pool **pool, int n_threads, bool numa, qs_err *err) {
    qs_status st = QS_OK;
    qsi_pool *p = NULL;
    int cpus = qsi_cpu_count();
    if (n_threads == 0) n_threads = qsi_core_count();
    if (n_threads < 0 || n_threads > MAX_THREADS) {
        QS_FAIL(err, QS_E_ARG, "%d threads: a pool has 1 to %d", n_threads, MAX_THREADS);
    }
    p = qsi_calloc(1, sizeof(*p));
    if (p == NULL) QS_FAIL(err, QS_E_NOMEM, "out of memory for %d threads", n_threads);
    p->slots = qsi_calloc((size_t)n_threads, sizeof(thread_slot));
    if (p->slots == NULL) QS_FAIL(err, QS_E_NOMEM, "out of memory for %d threads", n_threads);
    p->count = n_threads;
    p->spin = n_threads <= cpus ? SPIN_FREE : SPIN_CROWDED;
    for (int i = 0; i < n_threads; i++) p->slots[i].worker = (qsi_worker){p, i, n_threads};
    p->started = 1;
    if (numa) QS_TRY(qsi_placement_create(&p->placement, n_threads, err));
    int rc = start_threads(p);
    if (rc != 0) {
        QS_TRY(qsi_err_errno(err, rc, "cannot start thread %d of %d", p->started + 1, n_threads));
    }
    if (p->placement != NULL) (void)qsi_placement_bind(p->placement, 0);
    *pool = p;
    p = NULL;
done:
    qsi_pool_free(p);
    return st;
}

qs_status qsi_pool_create(qsi_pool **pool, int n_threads, qs_err *err) {
    return create(pool, n_threads, false, err);
}

qs_status qsi_pool_create_numa(qsi_pool **pool, int n_threads, qs_err *err) {
    return create(pool, n_threads, true, err);
}

int qsi_pool_nodes(const qsi_pool *p) {
    return p->placement != NULL ? qsi_placement_nodes(p->placement) : 1;
}

void qsi_pool_free(qsi_pool *p) {
    if (p == NULL) return;
    QS_CHECK(!p->running);
    if (p->slots != NULL) {
        p->quit = true;
        /* After a failed start fewer threads exist: they and the owner are all that will arrive. */
        p->count = p->started;
        meet(p);
        for (int i = 1; i < p->started; i++) pthread_join(p->slots[i].thread, NULL);
    }
    if (p->placement != NULL) qsi_placement_unbind(p->placement);
    qsi_placement_free(p->placement);
    qsi_free(p->slots);
    qsi_free(p);
}

int qsi_pool_size(const qsi_pool *p) { return p->count; }

static void run(qsi_pool *p, qsi_pool_fn *fn, void *arg, bool guard) {
    fenv_t saved;
    QS_CHECK(!p->running);
    p->running = true;
    /* The caller may come with another rounding or flush mode (a program that loaded a library
     * built with fast-math, for example). */
    fegetenv(&saved);
    fesetenv(FE_DFL_ENV);
    p->fn = fn;
    p->arg = arg;
    p->guard = guard;
    meet(p);
    call(p, &p->slots[0].worker);
    meet(p);
    fesetenv(&saved);
    p->running = false;
}

void qsi_pool_run(qsi_pool *p, qsi_pool_fn *fn, void *arg) { run(p, fn, arg, true); }

void qsi_pool_run_alloc(qsi_pool *p, qsi_pool_fn *fn, void *arg) { run(p, fn, arg, false); }

void qsi_barrier(const qsi_worker *w) {
    if (w->count > 1) meet(w->pool);
}

void qsi_share(const qsi_worker *w, int64_t n, int64_t grain, int64_t *begin, int64_t *end) {
    QS_ASSERT(n >= 0 && grain > 0);
    int64_t pieces = n / grain + (n % grain != 0);
    int64_t each = pieces / w->count, more = pieces % w->count;
    int64_t first = each * w->index + (w->index < more ? w->index : more);
    int64_t last = first + each + (w->index < more);
    *begin = first < pieces ? first * grain : n;
    *end = last < pieces ? last * grain : n;
}

void qsi_ticket_reset(const qsi_worker *w) {
    atomic_store_explicit(&w->pool->ticket, 0, memory_order_relaxed);
}

int64_t qsi_ticket(const qsi_worker *w) {
    return atomic_fetch_add_explicit(&w->pool->ticket, 1, memory_order_relaxed);
}
