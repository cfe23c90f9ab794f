/* What of an answer is shown to whom: reasoning only to people, an empty line behind it, and the last
 * line ended. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "chat_show.h"

typedef struct piece {
    qs_part part;
    const char *text;
} piece;

/* Shows the pieces with standard output in a file, and compares what stands there. */
static void check(bool people, bool colours, const piece *pieces, size_t n, const char *want) {
    char got[256] = "";
    fflush(stdout);
    int saved = dup(STDOUT_FILENO);
    FILE *f = tmpfile();
    assert_true(saved >= 0 && f != NULL && dup2(fileno(f), STDOUT_FILENO) >= 0);
    qsa_show s;
    qsa_show_begin(&s);
    bool was_people = s.people;
    s.people = people;
    s.colours = colours;
    int end = 0;
    for (size_t i = 0; i < n; i++)
        end |= qsa_show_part(&s, pieces[i].part, pieces[i].text, strlen(pieces[i].text));
    int64_t calls = qsa_show_end(&s, NULL, -1);
    fflush(stdout);
    dup2(saved, STDOUT_FILENO);
    close(saved);
    rewind(f);
    got[fread(got, 1, sizeof got - 1, f)] = '\0';
    fclose(f);
    assert_false(was_people); /* a file is no terminal */
    assert_int_equal(end, 0);
    assert_int_equal(calls, 0);
    assert_string_equal(got, want);
}

static void parts(void **state) {
    (void)state;
    const piece both[] = {{QS_PART_REASONING, "Hm, "}, {QS_PART_REASONING, "so."},
                          {QS_PART_TEXT, "Yes"}, {QS_PART_TEXT, "."}};
    const piece call[] = {{QS_PART_TEXT, "I look.\n"}, {QS_PART_CALL, "f"}, {QS_PART_ARGUMENTS, "{}"}};
    check(false, false, both, 4, "Yes.\n");
    check(true, false, both, 4, "Hm, so.\n\nYes.\n");
    check(true, true, both, 4, "\033[2mHm, so.\033[0m\n\nYes.\n");
    check(true, true, both, 2, "\033[2mHm, so.\033[0m\n"); /* cut off within */
    check(false, false, both, 2, "\n");
    check(false, false, call, 3, "I look.\n");
    check(true, true, NULL, 0, "\n");
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(parts)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
