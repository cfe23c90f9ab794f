/* Background threads. See crew.h. One lock, one condition for the threads that wait for jobs and one
 * for those who wait for results. */
#include "sys/crew.h"

#include <fenv.h>
#include <pthread.h>
#include <signal.h>

#include "base/mem.h"
#include "sys/oserr.h"

typedef struct hand {
    qsi_crew *crew;
    int index;
    pthread_t thread;
} hand;

struct qsi_crew {
    pthread_mutex_t lock;
    pthread_cond_t work, ended;
    qsi_crew_fns fns;
    void *user;
    hand *hands;
    int started;
    bool quit;
};

static void *hand_main(void *arg) {
    const hand *h = arg;
    qsi_crew *c = h->crew;
    int64_t job[QSI_CREW_JOB] = {0};
    qs_err err;
    fesetenv(FE_DFL_ENV); /* packing converts numbers */
    pthread_mutex_lock(&c->lock);
    while (!c->quit) {
        if (!c->fns.take(c->user, job)) {
            pthread_cond_wait(&c->work, &c->lock);
            continue;
        }
        pthread_mutex_unlock(&c->lock);
        qs_status st = c->fns.work(c->user, h->index, job, &err);
        pthread_mutex_lock(&c->lock);
        c->fns.end(c->user, job, st, &err);
        pthread_cond_broadcast(&c->ended);
    }
    pthread_mutex_unlock(&c->lock);
    return NULL;
}

/* Signals belong to the program's own threads. */
static int start(qsi_crew *c, int n) {
    sigset_t all, old;
    int rc = 0;
    sigfillset(&all);
    /* a fault is the business of the thread that meets it (sys/mapguard.h) */
    sigdelset(&all, SIGBUS);
    sigdelset(&all, SIGSEGV);
    sigdelset(&all, SIGFPE);
    sigdelset(&all, SIGILL);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    while (c->started < n && rc == 0) {
        hand *h = &c->hands[c->started];
        *h = (hand){.crew = c, .index = c->started};
        rc = pthread_create(&h->thread, NULL, hand_main, h);
        if (rc == 0) c->started++;
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return rc;
}

qs_status qsi_crew_create(qsi_crew **out, int n_threads, const qsi_crew_fns *fns, void *user,
                          qs_err *err) {
    qs_status st = QS_OK;
    qsi_crew *c = qsi_calloc(1, sizeof *c);
    if (c == NULL) QS_FAIL(err, QS_E_NOMEM, "out of memory for %d threads", n_threads);
    c->fns = *fns;
    c->user = user;
    pthread_mutex_init(&c->lock, NULL);
    pthread_cond_init(&c->work, NULL);
    pthread_cond_init(&c->ended, NULL);
    c->hands = qsi_calloc((size_t)n_threads, sizeof *c->hands);
    if (c->hands == NULL) QS_FAIL(err, QS_E_NOMEM, "out of memory for %d threads", n_threads);
    int rc = start(c, n_threads);
    /* With fewer threads than wished the work is done all the same. */
    if (rc != 0 && c->started == 0)
        QS_TRY(qsi_err_errno(err, rc, "cannot start a thread that reads ahead"));
    *out = c;
    c = NULL;
done:
    qsi_crew_free(c);
    return st;
}

void qsi_crew_free(qsi_crew *c) {
    if (c == NULL) return;
    pthread_mutex_lock(&c->lock);
    c->quit = true;
    pthread_cond_broadcast(&c->work);
    pthread_mutex_unlock(&c->lock);
    for (int i = 0; i < c->started; i++) pthread_join(c->hands[i].thread, NULL);
    pthread_cond_destroy(&c->ended);
    pthread_cond_destroy(&c->work);
    pthread_mutex_destroy(&c->lock);
    qsi_free(c->hands);
    qsi_free(c);
}

void qsi_crew_lock(qsi_crew *c) { pthread_mutex_lock(&c->lock); }
void qsi_crew_unlock(qsi_crew *c) { pthread_mutex_unlock(&c->lock); }
void qsi_crew_wake(qsi_crew *c) { pthread_cond_broadcast(&c->work); }
void qsi_crew_wait(qsi_crew *c) { pthread_cond_wait(&c->ended, &c->lock); }
