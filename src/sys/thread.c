/* Threads, locks, conditions: see thread.h. Conditions run on the monotonic clock, as qsi_now_ns
 * does. */
#include "sys/thread.h"

#include <fenv.h>
#include <pthread.h>
#include <signal.h>
#include <time.h>

#include "base/mem.h"
#include "sys/oserr.h"

struct qsi_thread {
    pthread_t thread;
    void (*fn)(void *arg);
    void *arg;
};

static void *thread_main(void *arg) {
    const qsi_thread *t = arg;
    fesetenv(FE_DFL_ENV);
    t->fn(t->arg);
    return NULL;
}

qs_status qsi_thread_start(qsi_thread **out, void (*fn)(void *arg), void *arg, qs_err *err) {
    qs_status st = QS_OK;
    sigset_t all, old;
    qsi_thread *t = qsi_calloc(1, sizeof *t);
    if (!t) QS_FAIL(err, QS_E_NOMEM, "out of memory for a thread");
    *t = (qsi_thread){ .fn = fn, .arg = arg };
    sigfillset(&all);
    sigdelset(&all, SIGBUS); /* a fault is the business of the thread that meets it (mapguard.h) */
    sigdelset(&all, SIGSEGV);
    sigdelset(&all, SIGFPE);
    sigdelset(&all, SIGILL);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    *out = t; /* the thread may look */
    int rc = pthread_create(&t->thread, NULL, thread_main, t);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (rc != 0) {
        *out = NULL;
        QS_TRY(qsi_err_errno(err, rc, "cannot start a thread"));
    }
    t = NULL;
done:
    qsi_free(t);
    return st;
}

void qsi_thread_join(qsi_thread **pt) {
    qsi_thread *t = *pt;
    if (!t) return;
    pthread_join(t->thread, NULL);
    *pt = NULL;
    qsi_free(t);
}

bool qsi_thread_is_self(const qsi_thread *t) { return t && pthread_equal(t->thread, pthread_self()); }

struct qsi_monitor {
    pthread_mutex_t lock;
    pthread_cond_t cond;
};

qs_status qsi_monitor_create(qsi_monitor **out, qs_err *err) {
    qs_status st = QS_OK;
    pthread_condattr_t attr;
    qsi_monitor *m = qsi_calloc(1, sizeof *m);
    if (!m) QS_FAIL(err, QS_E_NOMEM, "out of memory for a lock");
    int rc = pthread_condattr_init(&attr);
    if (rc == 0) {
        rc = pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
        if (rc == 0) rc = pthread_cond_init(&m->cond, &attr);
        pthread_condattr_destroy(&attr);
    }
    QS_TRY(rc == 0 ? QS_OK : qsi_err_errno(err, rc, "cannot make a condition"));
    rc = pthread_mutex_init(&m->lock, NULL);
    if (rc != 0) {
        pthread_cond_destroy(&m->cond);
        QS_TRY(qsi_err_errno(err, rc, "cannot make a lock"));
    }
    *out = m;
    m = NULL;
done:
    qsi_free(m);
    return st;
}

void qsi_monitor_free(qsi_monitor *m) {
    if (!m) return;
    pthread_mutex_destroy(&m->lock);
    pthread_cond_destroy(&m->cond);
    qsi_free(m);
}

void qsi_monitor_lock(qsi_monitor *m) { pthread_mutex_lock(&m->lock); }
void qsi_monitor_unlock(qsi_monitor *m) { pthread_mutex_unlock(&m->lock); }
void qsi_monitor_wake(qsi_monitor *m) { pthread_cond_broadcast(&m->cond); }

void qsi_monitor_wait(qsi_monitor *m, int64_t deadline_ns) {
    if (deadline_ns <= 0) {
        pthread_cond_wait(&m->cond, &m->lock);
        return;
    }
    struct timespec ts = { .tv_sec = (time_t)(deadline_ns / 1000000000),
                           .tv_nsec = (long)(deadline_ns % 1000000000) };
    pthread_cond_timedwait(&m->cond, &m->lock, &ts);
}
