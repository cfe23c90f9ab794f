/* The sink of messages for people. A short spin lock keeps function and user pointer together; it
 * is never held while the sink runs. */
#include "base/log.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>

#include "base/str.h"

static atomic_flag sink_lock = ATOMIC_FLAG_INIT;
static qsi_log_fn *sink_fn;
static void *sink_user;

static void lock(void) {
    while (atomic_flag_test_and_set_explicit(&sink_lock, memory_order_acquire)) {}
}

static void unlock(void) { atomic_flag_clear_explicit(&sink_lock, memory_order_release); }

void qsi_log_set(qsi_log_fn *fn, void *user) {
    lock();
    sink_fn = fn;
    sink_user = user;
    unlock();
}

void qsi_log(qsi_log_level level, const char *fmt, ...) {
    lock();
    qsi_log_fn *fn = sink_fn;
    void *user = sink_user;
    unlock();
    if (fn == NULL) return;
    char text[1024];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    if (n < 0) return;
    if ((size_t)n >= sizeof(text)) text[qsi_utf8_whole(text, sizeof(text) - 1)] = '\0';
    fn(user, level, text);
}
