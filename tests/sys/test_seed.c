/* The seed of a process: one in it, another in the next. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "sys/seed.h"

static const char *self;

/* The seed of another process of this program. */
static uint64_t seed_of_another(void) {
    int ends[2];
    uint64_t seed = 0;
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        dup2(ends[1], STDOUT_FILENO);
        execl(self, self, "print", (char *)NULL);
        _exit(3);
    }
    close(ends[1]);
    assert_int_equal(read(ends[0], &seed, sizeof seed), sizeof seed);
    close(ends[0]);
    int status = 1;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    return seed;
}

static void every_process_has_its_own(void **state) {
    (void)state;
    uint64_t one = qsi_process_seed(), two = seed_of_another(), three = seed_of_another();
    assert_true(one == qsi_process_seed());
    assert_true(one != two && two != three && one != three);
}

static void a_test_chooses(void **state) {
    (void)state;
    for (uint64_t s = 0; s < 3; s++) {
        qsi_process_seed_set(s);
        assert_true(qsi_process_seed() == s);
    }
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_process_has_its_own),
                                       cmocka_unit_test(a_test_chooses)};
    if (argc > 1 && strcmp(argv[1], "print") == 0) {
        uint64_t seed = qsi_process_seed();
        return write(STDOUT_FILENO, &seed, sizeof seed) == sizeof seed ? 0 : 1;
    }
    self = argv[0];
    return cmocka_run_group_tests(tests, NULL, NULL);
}
