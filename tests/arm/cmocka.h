/* As much of cmocka's interface as the tests of quant/ and kern/ use, for cross builds, where the
 * library itself is rarely installed. A failure ends the program. */
#ifndef TESTS_ARM_CMOCKA_H
#define TESTS_ARM_CMOCKA_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct CMUnitTest {
    const char *name;
    void (*fn)(void **state);
};
#define cmocka_unit_test(f) {#f, f}

#define fail_msg(...)                                                                              \
    do {                                                                                           \
        fprintf(stderr, "%s:%d: ", __FILE__, __LINE__);                                            \
        fprintf(stderr, __VA_ARGS__);                                                              \
        fputc('\n', stderr);                                                                       \
        exit(1);                                                                                   \
    } while (0)
#define assert_true(e)                                                                             \
    do {                                                                                           \
        if (!(e)) fail_msg("%s", #e);                                                              \
    } while (0)
#define assert_false(e) assert_true(!(e))
#define assert_null(p) assert_true((p) == NULL)
#define assert_non_null(p) assert_true((p) != NULL)
#define assert_ptr_equal(a, b) assert_true((const void *)(a) == (const void *)(b))
#define assert_int_equal(a, b) assert_true((long long)(a) == (long long)(b))
#define assert_memory_equal(a, b, n) assert_true(memcmp(a, b, n) == 0)
#define assert_string_equal(a, b) assert_true(strcmp(a, b) == 0)
#define skip() return

static inline int run_tests(const struct CMUnitTest *t, size_t n) {
    for (size_t i = 0; i < n; i++) {
        printf("%s\n", t[i].name);
        fflush(stdout);
        t[i].fn(NULL);
    }
    return 0;
}
#define cmocka_run_group_tests(tests, setup, teardown)                                             \
    run_tests(tests, sizeof(tests) / sizeof(tests)[0])

#endif
