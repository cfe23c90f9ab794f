/* A file that becomes shorter under its mapping: zeros and a mark instead of a signal, on the owner's
 * thread and on workers; other mappings and other faults are left alone. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "sys/file.h"
#include "sys/mapguard.h"
#include "sys/pool.h"
#include "tmpdir.h"

enum { PAGES = 8 };

static size_t page(void) { return (size_t)sysconf(_SC_PAGESIZE); }

static void make(const char *name, qsi_map *m) {
    qs_err err;
    size_t n = PAGES * page();
    char *text = malloc(n);
    assert_non_null(text);
    memset(text, 7, n);
    tmp_write(tmp_path(name), text, n);
    free(text);
    assert_int_equal(qsi_map_open(m, tmp_path(name), &err), QS_OK);
}

/* A fault that is of no mapping still ends the process. */
static void others_still_die(void **state) {
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        signal(SIGBUS, SIG_DFL);
        if (qsi_fault_catch(NULL) != QS_OK) _exit(3);
        FILE *f = tmpfile();
        char *p = mmap(NULL, page(), PROT_READ, MAP_SHARED, fileno(f), 0); /* an empty file */
        _exit(*(volatile char *)p == 0 ? 4 : 5);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) || WEXITSTATUS(status) != 4);
    assert_false(WIFEXITED(status) && WEXITSTATUS(status) == 3);
}

typedef struct look {
    const volatile uint8_t *p;
    int sum[4];
} look;

static void look_on_worker(const qsi_worker *w, void *arg) {
    look *l = arg;
    for (size_t i = 1; i < PAGES; i++) l->sum[w->index] += l->p[i * page() + (size_t)w->index];
}

static void on_workers(void) {
    qsi_map m;
    qsi_pool *pool = NULL;
    qs_err err;
    assert_int_equal(qsi_pool_create(&pool, 4, &err), QS_OK);
    make("w", &m);
    assert_int_equal(truncate(tmp_path("w"), 10), 0);
    look l = {.p = m.data};
    qsi_pool_run(pool, look_on_worker, &l);
    for (int i = 0; i < 4; i++) assert_int_equal(l.sum[i], 0);
    assert_int_equal(qsi_map_intact(m.data, &err), QS_E_IO);
    qsi_map_close(&m);
    qsi_pool_free(pool);
}

static void zeros_and_a_mark(void **state) {
    qsi_map a, b;
    qs_err err;
    assert_int_equal(qsi_fault_catch(&err), QS_OK);
    assert_int_equal(qsi_fault_catch(&err), QS_OK); /* once is enough */
    make("a", &a);
    make("b", &b);
    assert_int_equal(qsi_map_intact(a.data, &err), QS_OK);
    assert_int_equal(qsi_maps_intact(&err), QS_OK);
    assert_int_equal(truncate(tmp_path("a"), (off_t)page()), 0);
    const volatile uint8_t *p = a.data;
    assert_int_equal(p[0], 7);
    assert_int_equal(p[3 * page() + 5], 0);
    assert_int_equal(p[7 * page()], 0); /* the rest at once */
    assert_int_equal(p[page() - 1], 7);
    assert_int_equal(qsi_map_intact(a.data, &err), QS_E_IO);
    assert_non_null(strstr(err.text, "/a'"));
    assert_int_equal(qsi_map_intact(b.data, &err), QS_OK);
    assert_int_equal(((const volatile uint8_t *)b.data)[5 * page()], 7);
    qsi_map_close(&a);
    qsi_map_close(&b);
    assert_int_equal(qsi_maps_intact(&err), QS_E_IO); /* remembered */
    make("a", &a); /* a slot used again starts whole */
    assert_int_equal(qsi_map_intact(a.data, &err), QS_OK);
    qsi_map_close(&a);
    on_workers(); /* in this test: cmocka sets handlers of its own for every test */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(others_still_die),
        cmocka_unit_test(zeros_and_a_mark),
    };
    return cmocka_run_group_tests(tests, tmp_setup, tmp_teardown);
}
