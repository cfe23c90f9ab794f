/* Numbers in answers, and programs of completions. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "measure/task_answer.h"

static void numbers(void **state) {
    static const struct { const char *answer, *solution; bool strict, flexible; } cases[] = {
        { "6 and 6 make 12.\n#### 12", "...\n#### 12", true, true },
        { "#### 12\n\nQuestion 3", "#### 12", true, false },
        { "The answer is 12.", "#### 12", false, true },
        { "$1,234.", "#### 1,234", false, true },
        { "#### 1234", "x #### 7\n#### 1,234\n", true, true },
        { "#### $12", "#### 12", false, true },
        { "it is -3", "#### -3", false, true },
        { "it is 3", "#### -3", false, false },
        { "#### -3.50", "#### -3.5", false, false },
        { "10 apples, 5", "#### 5", false, true },
        { "一共 42 个。", "#### 42", false, true },
        { "#### none, then #### 8", "#### 8", true, true },
        { "", "#### 8", false, false },
        { "no number ...", "#### 8", false, false },
        { "..", "#### .", false, false },
    };
    for (size_t i = 0; i < QSI_COUNT(cases); i++) {
        bool strict = !cases[i].strict, flexible = !cases[i].flexible;
        qs_err err = { 0 };
        const char *answer = cases[i].answer, *solution = cases[i].solution;
        assert_int_equal(qsi_answer_number(answer, solution, true, &strict, &err), QS_OK);
        assert_int_equal(qsi_answer_number(answer, solution, false, &flexible, &err), QS_OK);
        if (strict != cases[i].strict || flexible != cases[i].flexible)
            fail_msg("'%s': %d %d", cases[i].answer, strict, flexible);
    }
}

static void makes(const char *completion, bool fenced, const char *want) {
    const qsi_task_item it = { .question = "import math\n\ndef f(x):\n    \"\"\"Doc.\"\"\"\n",
                               .test = "def check(g):\n    g(1)", .entry = "f" };
    qsi_str s = { 0 };
    qs_err err = { 0 };
    assert_int_equal(qsi_answer_program(&s, &it, completion, fenced, &err), QS_OK);
    const char *rest = s.data + strlen(it.question);
    if (strncmp(s.data, it.question, strlen(it.question)) != 0 || strcmp(rest, want) != 0)
        fail_msg("%s", s.data);
    qsi_str_release(&s);
}

#define TAIL "\ndef check(g):\n    g(1)\ncheck(f)\n"

static void programs(void **state) {
    makes("    return 1\n", false, "    return 1\n" TAIL);
    makes("    return 1", true, "    return 1" TAIL);
    makes("Here:\n```python\ndef f(x):\n    return 2\n```\nor\n```\ndef f(x): pass\n```", true,
          "\n    pass\n\ndef f(x):\n    return 2" TAIL);
    makes("```\nimport os\n```\n```python\ndef f(x): return 3", true,
          "\n    pass\n\ndef f(x): return 3" TAIL);
    makes("def f(x):\n    return 4\n", true, "\n    pass\n\ndef f(x):\n    return 4\n" TAIL);
    makes("```\ndef ff(x): pass\n```", true, "```\ndef ff(x): pass\n```" TAIL);
}

int main(void) {
    const struct CMUnitTest tests[] = { cmocka_unit_test(numbers), cmocka_unit_test(programs) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
