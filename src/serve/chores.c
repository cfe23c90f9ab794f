/* The chores' thread: see chores.h. */
#include "serve/chores.h"

#include <pthread.h>

#include "sys/file.h"
#include "sys/thread.h"

static pthread_mutex_t starting = PTHREAD_MUTEX_INITIALIZER; /* guards who starts and stops */
static struct {
    qsi_monitor *m;
    qsi_thread *thread;
    qsi_chore *list;
    int64_t n_users;
    bool quit;
} house;

/* Takes the chore that is due first out of the list; NULL: none is due at `now`, *wait is when. */
static qsi_chore *take(int64_t now, int64_t *wait) {
    qsi_chore **first = NULL;
    *wait = 0;
    for (qsi_chore **at = &house.list; *at != NULL; at = &(*at)->next)
        if (first == NULL || (*at)->due_ns < (*first)->due_ns) first = at;
    if (first == NULL) return NULL;
    qsi_chore *c = *first;
    if (c->due_ns > now) {
        *wait = c->due_ns;
        return NULL;
    }
    *first = c->next;
    c->queued = false;
    return c;
}

static void work(void *user) {
    qsi_monitor_lock(house.m);
    for (;;) {
        int64_t wait;
        qsi_chore *c = take(qsi_now_ns(), &wait);
        if (c != NULL) {
            qsi_monitor_unlock(house.m);
            c->fn(c);
            qsi_monitor_lock(house.m);
        } else if (house.quit) {
            break;
        } else {
            qsi_monitor_wait(house.m, wait);
        }
    }
    qsi_monitor_unlock(house.m);
}

qs_status qsi_chores_enter(qs_err *err) {
    qs_status st = QS_OK;
    pthread_mutex_lock(&starting);
    if (house.m == NULL) QS_TRY(qsi_monitor_create(&house.m, err));
    if (house.thread == NULL) {
        house.quit = false;
        QS_TRY(qsi_thread_start(&house.thread, work, NULL, err));
    }
    qsi_monitor_lock(house.m);
    house.n_users++;
    qsi_monitor_unlock(house.m);
done:
    pthread_mutex_unlock(&starting);
    return st;
}

void qsi_chores_leave(void) {
    qsi_monitor_lock(house.m);
    house.n_users--;
    qsi_monitor_wake(house.m);
    qsi_monitor_unlock(house.m);
}

bool qsi_chore_post(qsi_chore *c, int64_t due_ns) {
    qsi_monitor_lock(house.m);
    bool fresh = !c->queued;
    if (fresh) {
        c->queued = true;
        c->due_ns = due_ns;
        c->next = house.list;
        house.list = c;
    } else if (due_ns < c->due_ns) {
        c->due_ns = due_ns;
    }
    qsi_monitor_wake(house.m);
    qsi_monitor_unlock(house.m);
    return fresh;
}

void qsi_chores_stop(void) {
    pthread_mutex_lock(&starting);
    if (house.thread != NULL) {
        qsi_monitor_lock(house.m);
        while (house.n_users > 0) qsi_monitor_wait(house.m, 0);
        house.quit = true;
        qsi_monitor_wake(house.m);
        qsi_monitor_unlock(house.m);
        qsi_thread_join(&house.thread);
    }
    qsi_monitor_free(house.m);
    house.m = NULL;
    pthread_mutex_unlock(&starting);
}
