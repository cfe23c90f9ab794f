/* Programs that pass, fail, leave early, run for ever, or try to do harm. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "measure/task_answer.h"
#include "measure/task_code.h"
#include "sys/file.h"
#include "../sys/tmpdir.h"

#define PYTHON "/usr/bin/python3"

static const qsi_task_item item = {
    .question = "from typing import List\n\n\ndef total(numbers: List[int]) -> int:\n"
                "    \"\"\"The sum of the numbers; 数的和.\n    >>> total([1, 2])\n    3\n    \"\"\"\n",
    .solution = "    return sum(numbers)\n",
    .test = "def check(candidate):\n    assert candidate([]) == 0\n"
            "    assert candidate([1, 2]) == 3\n", .entry = "total" };

/* There is a Python, and a sandbox for it. */
static bool works(void) {
    qsi_str nothing = { 0 };
    const char *how;
    bool yes = qsi_str_puts(&nothing, "pass\n") == QS_OK && qsi_path_exists(PYTHON) &&
               qsi_code_run(PYTHON, &nothing, 60, NULL, &how, NULL) != QS_E_UNSUPPORTED;
    qsi_str_release(&nothing);
    return yes;
}

static const char *outcome(const char *completion, bool fenced, double seconds) {
    qsi_str program = { 0 };
    const char *how = "";
    qs_err err = { 0 };
    assert_int_equal(qsi_answer_program(&program, &item, completion, fenced, &err), QS_OK);
    if (qsi_code_run(PYTHON, &program, seconds, NULL, &how, &err) != QS_OK) fail_msg("%s", err.text);
    qsi_str_release(&program);
    return how;
}

static void programs(void **state) {
    char writes[600];
    snprintf(writes, sizeof writes, "    return open('%s', 'w').write('') + sum(numbers)\n",
             tmp_path("made"));
    const struct { const char *completion, *how; } cases[] = {
        { "    return sum(numbers)\n", "passed" },
        { "    return 0\n", "failed" },
        { "    return sum(numbers\n", "failed" },
        { "    raise SystemExit(0)\n", "failed" },
        { "    import os\n    os._exit(0)\n", "failed" },
        { "    import os\n    os.abort()\n", "crashed" },
        { "    while True: pass\n", "timed out" },
        { "    import time\n    time.sleep(60)\n", "timed out" },
        { writes, "failed" },
        { "    import os\n    os.system('true')\n    return os.fork() or sum(numbers)\n", "failed" },
        { "    print('noise' * 100000)\n    return sum(numbers)\n", "passed" },
        { "    import os\n    os.write(3, b'0123456789abcdef')\n    return sum(numbers)\n", "failed" },
    };
    if (!works()) skip();
    for (size_t i = 0; i < QSI_COUNT(cases); i++) {
        bool ends = strcmp(cases[i].how, "timed out") != 0;
        const char *how = outcome(cases[i].completion, false, ends ? 30 : 1);
        if (strcmp(how, cases[i].how) != 0) fail_msg("%s: %s", cases[i].completion, how);
    }
    static const char chat[] = "It is easy:\n```python\ndef total(numbers):\n    return sum(numbers)\n"
                               "```\n";
    assert_string_equal(outcome(chat, true, 30), "passed");
    assert_false(qsi_path_exists(tmp_path("made")));
}

static void no_interpreter(void **state) {
    qsi_str program = { 0 };
    const char *how;
    qs_err err = { 0 };
    if (!works()) skip();
    assert_int_equal(qsi_str_puts(&program, "pass\n"), QS_OK);
    assert_int_equal(qsi_code_run("/no/python", &program, 5, NULL, &how, &err), QS_E_NOTFOUND);
    qsi_str_release(&program);
}

int main(void) {
    const struct CMUnitTest tests[] = { cmocka_unit_test(programs), cmocka_unit_test(no_interpreter) };
    return cmocka_run_group_tests(tests, tmp_setup, tmp_teardown);
}
