/* The sink of messages. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "base/log.h"
#include "base/str.h"

typedef struct seen {
    int count;
    qsi_log_level level;
    char text[2048];
} seen;

static void sink(void *user, qsi_log_level level, const char *text) {
    seen *s = user;
    s->count++;
    s->level = level;
    size_t n = strlen(text);
    assert_true(n < sizeof(s->text));
    memcpy(s->text, text, n + 1);
    if (s->count == 1) qsi_log(QSI_LOG_NOTE, "from inside"); /* the sink may log */
}

static void one_sink(void **state) {
    (void)state;
    seen s = {0};
    qsi_log(QSI_LOG_WARN, "nobody listens");
    qsi_log_set(sink, &s);
    qsi_log(QSI_LOG_WARN, "模型 %d", 7);
    assert_int_equal(s.count, 2);
    assert_string_equal(s.text, "from inside");
    assert_int_equal(s.level, QSI_LOG_NOTE);
    qsi_log(QSI_LOG_WARN, "模型 %d", 7);
    assert_string_equal(s.text, "模型 7");
    assert_int_equal(s.level, QSI_LOG_WARN);
    char many[3001];
    for (int i = 0; i < 1000; i++) memcpy(many + 3 * i, "词", 3);
    many[3000] = '\0';
    qsi_log(QSI_LOG_NOTE, "x%s", many);
    assert_true(strlen(s.text) > 1000 && qsi_utf8_valid(s.text, strlen(s.text), NULL));
    qsi_log_set(NULL, NULL);
    qsi_log(QSI_LOG_NOTE, "nobody listens again");
    assert_int_equal(s.count, 4);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(one_sink)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
