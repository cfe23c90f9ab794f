/* The worker pool with 1 to 8 threads: every worker runs, barriers order memory, work is shared
 * completely and once, modes and signals are what they should be. Run under ThreadSanitizer, the plain
 * (not atomic) arrays below prove that a barrier publishes what was written before it. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <fenv.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "sys/cpu.h"
#include "sys/pool.h"

enum { MAX = 8 };

static qsi_pool *make(int n) {
    qsi_pool *p = NULL;
    qs_err err;
    assert_int_equal(qsi_pool_create(&p, n, &err), QS_OK);
    assert_int_equal(qsi_pool_size(p), n);
    return p;
}

typedef struct roll {
    int calls[MAX], count[MAX];
    pthread_t thread[MAX];
} roll;

static void sign(const qsi_worker *w, void *arg) {
    roll *r = arg;
    r->calls[w->index]++;
    r->count[w->index] = w->count;
    r->thread[w->index] = pthread_self();
}

static void every_worker_runs(void **state) {
    (void)state;
    for (int n = 1; n <= MAX; n++) {
        qsi_pool *p = make(n);
        roll r = {{0}, {0}, {0}}, first;
        for (int k = 1; k <= 50; k++) {
            qsi_pool_run(p, sign, &r);
            if (k == 1) first = r;
            for (int i = 0; i < n; i++) {
                assert_int_equal(r.calls[i], k);
                assert_int_equal(r.count[i], n);
                assert_true(pthread_equal(r.thread[i], first.thread[i])); /* persistent threads */
            }
            for (int i = n; i < MAX; i++) assert_int_equal(r.calls[i], 0);
        }
        assert_true(pthread_equal(r.thread[0], pthread_self())); /* the caller is worker 0 */
        qsi_pool_free(p);
    }
    qsi_pool_free(NULL);
}

typedef struct phases {
    int rounds;
    int64_t cell[MAX][16]; /* plain memory, written by its owner, read by all after a barrier */
    int64_t wrong[MAX];
} phases;

static void rotate(const qsi_worker *w, void *arg) {
    phases *ph = arg;
    for (int r = 1; r <= ph->rounds; r++) {
        ph->cell[w->index][0] = (int64_t)r * 100 + w->index;
        qsi_barrier(w);
        for (int i = 0; i < w->count; i++) {
            if (ph->cell[i][0] != (int64_t)r * 100 + i) ph->wrong[w->index]++;
        }
        qsi_barrier(w);
    }
}

static void barriers_publish(void **state) {
    (void)state;
    for (int n = 1; n <= MAX; n++) {
        qsi_pool *p = make(n);
        phases ph = {.rounds = n <= 2 ? 2000 : 150};
        qsi_pool_run(p, rotate, &ph);
        for (int i = 0; i < n; i++) assert_int_equal(ph.wrong[i], 0);
        qsi_pool_free(p);
    }
}

/* Workers that arrive late and in changing order: sleeping and waking, not only spinning. */
static void stagger(const qsi_worker *w, void *arg) {
    phases *ph = arg;
    for (int r = 0; r < ph->rounds; r++) {
        if (r % w->count == w->index) {
            struct timespec nap = {0, 300000};
            nanosleep(&nap, NULL);
        }
        ph->cell[w->index][0]++;
        qsi_barrier(w);
        for (int i = 0; i < w->count; i++) {
            if (ph->cell[i][0] != r + 1) ph->wrong[w->index]++;
        }
        qsi_barrier(w);
    }
}

static void late_workers(void **state) {
    (void)state;
    for (int n = 2; n <= MAX; n += 3) {
        qsi_pool *p = make(n);
        phases ph = {.rounds = 60};
        qsi_pool_run(p, stagger, &ph);
        for (int i = 0; i < n; i++) assert_int_equal(ph.wrong[i], 0);
        struct timespec nap = {0, 2000000};
        nanosleep(&nap, NULL); /* the workers are asleep by now */
        roll r = {{0}, {0}, {0}};
        qsi_pool_run(p, sign, &r);
        for (int i = 0; i < n; i++) assert_int_equal(r.calls[i], 1);
        qsi_pool_free(p);
    }
}

static void shares(void **state) {
    (void)state;
    static const int64_t grains[] = {1, 3, 16, 1000};
    for (int count = 1; count <= 9; count++) {
        for (size_t g = 0; g < QSI_COUNT(grains); g++) {
            for (int64_t n = 0; n < 200; n++) {
                int64_t next = 0, least = INT64_MAX, most = 0;
                for (int i = 0; i < count; i++) {
                    qsi_worker w = {NULL, i, count};
                    int64_t begin, end;
                    qsi_share(&w, n, grains[g], &begin, &end);
                    assert_int_equal(begin, next);
                    assert_true(end >= begin && end <= n);
                    assert_true(begin % grains[g] == 0 || begin == n);
                    next = end;
                    int64_t pieces = (end - begin + grains[g] - 1) / grains[g];
                    if (pieces < least) least = pieces;
                    if (pieces > most) most = pieces;
                }
                assert_int_equal(next, n);
                assert_true(most - least <= 1);
            }
        }
    }
    qsi_worker last = {NULL, 6, 7};
    int64_t begin, end;
    qsi_share(&last, INT64_MAX, 1, &begin, &end); /* no overflow on the way */
    assert_true(end == INT64_MAX && begin == INT64_MAX - INT64_MAX / 7);
}

typedef struct tickets {
    int64_t n;
    unsigned char taken[5000];
} tickets;

static void take(const qsi_worker *w, void *arg) {
    tickets *t = arg;
    for (int round = 0; round < 3; round++) {
        if (w->index == 0) qsi_ticket_reset(w);
        qsi_barrier(w);
        for (int64_t i; (i = qsi_ticket(w)) < t->n;) t->taken[i]++;
        qsi_barrier(w);
    }
}

static void tickets_are_taken_once(void **state) {
    (void)state;
    for (int n = 1; n <= MAX; n++) {
        qsi_pool *p = make(n);
        tickets *t = calloc(1, sizeof(*t));
        t->n = 5000;
        qsi_pool_run(p, take, t);
        for (int i = 0; i < 5000; i++) assert_int_equal(t->taken[i], 3);
        free(t);
        qsi_pool_free(p);
    }
}

typedef struct modes {
    int rounding[MAX], blocked[MAX];
} modes;

static void look(const qsi_worker *w, void *arg) {
    modes *m = arg;
    sigset_t set;
    m->rounding[w->index] = fegetround();
    pthread_sigmask(SIG_BLOCK, NULL, &set);
    m->blocked[w->index] = sigismember(&set, SIGINT) && sigismember(&set, SIGTERM);
}

static void modes_of_workers(void **state) {
    (void)state;
    modes m;
    assert_int_equal(fesetround(FE_UPWARD), 0);
    qsi_pool *p = make(3);
    qsi_pool_run(p, look, &m);
    assert_int_equal(fegetround(), FE_UPWARD); /* the caller's mode is given back */
    for (int i = 0; i < 3; i++) assert_int_equal(m.rounding[i], FE_TONEAREST);
    assert_int_equal(m.blocked[0], 0); /* signals stay with the program's own thread */
    assert_int_equal(m.blocked[1], 1);
    assert_int_equal(m.blocked[2], 1);
    qsi_pool_free(p);
    assert_int_equal(fesetround(FE_TONEAREST), 0);
}

static void wrong_sizes(void **state) {
    (void)state;
    qsi_pool *p = NULL;
    qs_err err;
    assert_int_equal(qsi_pool_create(&p, -1, &err), QS_E_ARG);
    assert_int_equal(qsi_pool_create(&p, 100000, &err), QS_E_ARG);
    assert_non_null(strstr(err.text, "100000"));
    assert_null(p);
    assert_int_equal(qsi_pool_create(&p, 0, &err), QS_OK);
    assert_int_equal(qsi_pool_size(p), qsi_cpu_count());
    qsi_pool_free(p);
}

static void pools_side_by_side(void **state) {
    (void)state;
    qsi_pool *a = make(3), *b = make(2);
    roll ra = {{0}, {0}, {0}}, rb = {{0}, {0}, {0}};
    for (int k = 0; k < 20; k++) {
        qsi_pool_run(a, sign, &ra);
        qsi_pool_run(b, sign, &rb);
    }
    assert_int_equal(ra.calls[2], 20);
    assert_int_equal(rb.calls[1], 20);
    qsi_pool_free(a);
    assert_int_equal(rb.calls[0], 20);
    qsi_pool_free(b);
}

#ifdef QS_DEBUG
static void allocate(const qsi_worker *w, void *arg) {
    (void)w;
    (void)arg;
    qsi_free(qsi_alloc(1, 1));
}

static atomic_int caught;
static void count_failure(const char *file, int line, const char *expr) {
    (void)file;
    (void)line;
    (void)expr;
    atomic_fetch_add(&caught, 1);
}

static void allocation_inside_a_step(void **state) {
    (void)state;
    qsi_pool *p = make(3);
    qsi_fail_set(count_failure);
    qsi_pool_run_alloc(p, allocate, NULL);
    assert_int_equal(atomic_load(&caught), 0);
    qsi_pool_run(p, allocate, NULL);
    assert_int_equal(atomic_load(&caught), 3);
    qsi_pool_run_alloc(p, allocate, NULL); /* the guard is gone again */
    assert_int_equal(atomic_load(&caught), 3);
    qsi_fail_set(NULL);
    qsi_pool_free(p);
}

static void nth_allocation_fails(void **state) {
    (void)state;
    for (int n = 1; n <= 2; n++) {
        qsi_pool *p = NULL;
        qsi_mem_fail_after(n);
        assert_int_equal(qsi_pool_create(&p, 4, NULL), QS_E_NOMEM);
        assert_null(p);
    }
    qsi_mem_fail_after(-1);
}
#endif

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_worker_runs),
        cmocka_unit_test(barriers_publish),
        cmocka_unit_test(late_workers),
        cmocka_unit_test(shares),
        cmocka_unit_test(tickets_are_taken_once),
        cmocka_unit_test(modes_of_workers),
        cmocka_unit_test(wrong_sizes),
        cmocka_unit_test(pools_side_by_side),
#ifdef QS_DEBUG
        cmocka_unit_test(allocation_inside_a_step),
        cmocka_unit_test(nth_allocation_fails),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
