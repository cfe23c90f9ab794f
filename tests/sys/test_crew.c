/* A crew does every job once, keeps its order of handing out, tells failures, and ends cleanly. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdatomic.h>
#include <string.h>

#include "sys/crew.h"

enum { JOBS = 200 };
typedef struct jobs {
    int given, ended, failed, limit;
    _Atomic int done[JOBS];
} jobs;

static bool take(void *user, int64_t job[QSI_CREW_JOB]) {
    jobs *j = user;
    if (j->given >= j->limit) return false;
    job[0] = j->given++;
    return true;
}

static qs_status work(void *user, int thread, const int64_t job[QSI_CREW_JOB], qs_err *err) {
    jobs *j = user;
    if (thread < 0 || thread > 2) return QS_E_STATE;
    atomic_fetch_add(&j->done[job[0]], 1);
    if (job[0] == 150) return qsi_err_set(err, QS_E_IO, "job 150");
    return QS_OK;
}

static void end(void *user, const int64_t job[QSI_CREW_JOB], qs_status st, const qs_err *err) {
    jobs *j = user;
    j->ended++;
    if (st == QS_OK) return;
    j->failed++;
    if (job[0] != 150 || strcmp(err->text, "job 150") != 0) j->failed += 100;
}

static const qsi_crew_fns fns = {take, work, end};

static void test_all_done(void **state) {
    (void)state;
    static jobs j;
    qsi_crew *c = NULL;
    qs_err err;
    j.limit = 100;
    assert_int_equal(qsi_crew_create(&c, 3, &fns, &j, &err), QS_OK);
    qsi_crew_lock(c);
    while (j.ended < 100) qsi_crew_wait(c);
    assert_int_equal(j.given, 100);
    j.limit = JOBS; /* more to do, later */
    qsi_crew_wake(c);
    while (j.ended < JOBS) qsi_crew_wait(c);
    qsi_crew_unlock(c);
    qsi_crew_free(c);
    for (int i = 0; i < JOBS; i++) assert_int_equal(atomic_load(&j.done[i]), 1);
    assert_int_equal(j.failed, 1);
}

/* Freed while there is work: what has begun is finished, the rest is not begun. */
static void test_freed_early(void **state) {
    (void)state;
    static jobs j;
    qsi_crew *c = NULL;
    qs_err err;
    j.limit = JOBS;
    assert_int_equal(qsi_crew_create(&c, 2, &fns, &j, &err), QS_OK);
    qsi_crew_free(c);
    assert_int_equal(j.given, j.ended);
    qsi_crew_free(NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_done),
        cmocka_unit_test(test_freed_early),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
