/* Forms of benchmark files: what is recognised, what items hold, what is refused in which line. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "measure/task_file.h"

static qs_status parse(qsi_task_file *f, const char *path, const char *text, qs_err *err) {
    return qsi_task_parse(f, path, text, strlen(text), err);
}

static void opens(qsi_task_file *f, const char *text, qsi_task task, size_t n) {
    qs_err err = { 0 };
    if (parse(f, "dir/some_thing_test.csv", text, &err) != QS_OK) fail_msg("%s", err.text);
    assert_int_equal(f->task, task);
    assert_int_equal(f->n, n);
    assert_string_equal(f->subject, "some_thing");
}

static void refuses(const char *text, qs_status want, const char *words) {
    qsi_task_file f;
    qs_err err = { 0 };
    assert_int_equal(parse(&f, "x", text, &err), want);
    if (strstr(err.text, words) == NULL) fail_msg("%s", err.text);
    assert_null(f.items);
}

static void csv_without_header(void **state) {
    qsi_task_file f;
    opens(&f, "one?,1,2,3,4,A\r\n\"two, \"\"2\"\"\n?\",5,6,7,8, d \n", QSI_TASK_MMLU, 2);
    assert_string_equal(f.items[1].question, "two, \"2\"\n?");
    assert_int_equal(f.items[1].n_choices, 4);
    assert_string_equal(f.items[1].choices[3], "8");
    assert_int_equal(f.items[0].answer, 0);
    assert_int_equal(f.items[1].answer, 3);
    assert_int_equal(f.items[1].line, 2);
    qsi_task_release(&f);
}

static void csv_with_header(void **state) {
    qsi_task_file f;
    opens(&f, "\xEF\xBB\xBFid,question,A,B,C,D,answer,explanation\n0,问,甲,乙,丙,丁,C,\n",
          QSI_TASK_CEVAL, 1);
    assert_string_equal(f.items[0].question, "问");
    assert_int_equal(f.items[0].answer, 2);
    qsi_task_release(&f);
    opens(&f, ",Question,A,B,C,D,Answer\n0,问,甲,乙,丙,丁,D\n", QSI_TASK_CMMLU, 1);
    assert_string_equal(f.items[0].choices[3], "丁");
    qsi_task_release(&f);
    opens(&f, "question,A,B,answer\nq,x,y,B\n", QSI_TASK_MMLU, 1);
    assert_int_equal(f.items[0].n_choices, 2);
    qsi_task_release(&f);
    opens(&f, "id,question,A,B,C,D\n0,q,1,2,3,4\n", QSI_TASK_CEVAL, 1); /* answers kept back */
    assert_int_equal(f.items[0].answer, -1);
    qsi_task_release(&f);
}

/* ARC's tables, a question and its choices in one cell. */
static void arc_csv(void **state) {
    static const char head[] =
        "questionID,originalQuestionID,totalPossiblePoint,AnswerKey,isMultipleChoiceQuestion,"
        "includesDiagram,examName,schoolGrade,year,question,subject,category\n";
    static const char *const rows[] = {
        "T_1,1,1,C,1,0,T,5,2007,\"Which, of \"\"all\"\"? (A) dry (B)  wet, cold (C) oil \",,Test\n",
        "T_2,2,1,2,1,0,T,8,2007,Which? (1) one (2) f(2) (3) three (4) (x),,Test\n",
        "T_3,3,1,A,1,0,T,8,2007,Label (A) of fig. (B) says (A) yes (B) no,,Test\n",
        "T_4,4,1,,1,0,T,8,2007,Kept back? (A) x (B) y,,Test\n",
    };
    char text[2048];
    qsi_task_file f;
    int n = snprintf(text, sizeof text, "%s%s%s%s%s", head, rows[0], rows[1], rows[2], rows[3]);
    assert_true(n > 0 && (size_t)n < sizeof text);
    opens(&f, text, QSI_TASK_ARC, 4);
    assert_string_equal(f.items[0].question, "Which, of \"all\"?");
    assert_int_equal(f.items[0].n_choices, 3);
    assert_string_equal(f.items[0].choices[1], "wet, cold");
    assert_string_equal(f.items[0].choices[2], "oil");
    assert_int_equal(f.items[0].answer, 2);
    assert_string_equal(f.items[1].choices[1], "f(2)");
    assert_string_equal(f.items[1].choices[3], "(x)");
    assert_int_equal(f.items[1].answer, 1);
    assert_string_equal(f.items[2].question, "Label (A) of fig. (B) says");
    assert_int_equal(f.items[2].n_choices, 2);
    assert_int_equal(f.items[3].answer, -1);
    qsi_task_release(&f);
    refuses("AnswerKey,question\nA,Why?\n", QS_E_FORMAT, "line 2: no choices (A), (B)");
    refuses("AnswerKey,question\nA,Why? (A) only\n", QS_E_FORMAT, "line 2: no choices (A), (B)");
    refuses("AnswerKey,question\n3,Why? (1) x (2) y\n", QS_E_FORMAT, "is '3', wanted 1 to 2");
    refuses("AnswerKey,question\n1,Why? (A) x (B) y\n", QS_E_FORMAT, "is '1', wanted A to B");
}

static void json_forms(void **state) {
    qsi_task_file f;
    opens(&f, "{\"goal\":\"g\",\"sol1\":\"a\",\"sol2\":\"b\",\"label\":1}\n\n", QSI_TASK_PIQA, 1);
    assert_int_equal(f.items[0].answer, 1);
    qsi_task_release(&f);
    opens(&f, " [{\"question\":\"q\",\"choices\":[\"a\",\"b\",\"c\"],\"answer\":2,\"subject\":\"law\"},"
              "{\"question\":\"q\",\"choices\":[\"a\",\"b\"],\"answer\":\"b\"}]", QSI_TASK_MMLU, 2);
    assert_int_equal(f.items[0].n_choices, 3);
    assert_int_equal(f.items[0].answer, 2);
    assert_string_equal(f.items[0].subject, "law");
    assert_int_equal(f.items[1].answer, 1);
    assert_int_equal(f.items[1].line, 2);
    qsi_task_release(&f);
    opens(&f, "{\"question\":\"q\",\"choices\":{\"text\":[\"a\",\"b\"],\"label\":[\"1\",\"2\"]},"
              "\"answerKey\":\"2\"}\n", QSI_TASK_ARC, 1);
    assert_int_equal(f.items[0].answer, 1);
    qsi_task_release(&f);
    opens(&f, "{\"question\":\"1+1?\",\"answer\":\"one and one\\n#### 2\"}\n", QSI_TASK_GSM8K, 1);
    assert_string_equal(f.items[0].solution, "one and one\n#### 2");
    assert_int_equal(f.items[0].n_choices, 0);
    qsi_task_release(&f);
    opens(&f, "{\"task_id\":\"t/0\",\"prompt\":\"def f():\\n\",\"canonical_solution\":\"    pass\\n\","
              "\"test\":\"def check(c):\\n    c()\\n\",\"entry_point\":\"f\"}\n", QSI_TASK_HUMANEVAL, 1);
    assert_string_equal(f.items[0].entry, "f");
    qsi_task_release(&f);
}

/* The marks of WikiHow's articles, and the second half of a context. */
static void hellaswag_text(void **state) {
    static const struct { const char *json, *question; } cases[] = {
        { "\"ctx\":\" a [title] b [step] c[substeps]\"", "a. b c" },
        { "\"ctx\":\"a   b    c\"", "a  b  c" },
        { "\"ctx\":\"open [ and ] shut [ not\"", "open shut [ not" },
        { "\"ctx\":\"a [x\\ny] b\"", "a [x\ny] b" },
        { "\"activity_label\":\"Tea\",\"ctx_a\":\"A.\",\"ctx_b\":\"he SAYS Émile\",\"ctx\":\"-\"",
          "Tea: A. He says Émile" },
        { "\"ctx\":\"\"", "" },
    };
    for (size_t i = 0; i < QSI_COUNT(cases); i++) {
        char text[512];
        qsi_task_file f;
        snprintf(text, sizeof text, "{%s,\"endings\":[\"x [y] z\",\"\"],\"label\":\"0\"}",
                 cases[i].json);
        opens(&f, text, QSI_TASK_HELLASWAG, 1);
        assert_string_equal(f.items[0].question, cases[i].question);
        assert_string_equal(f.items[0].choices[0], "x z");
        assert_string_equal(f.items[0].choices[1], "");
        qsi_task_release(&f);
    }
}

static void refused(void **state) {
    refuses("", QS_E_FORMAT, "'x': the file is empty");
    refuses("\xEF\xBB\xBF \r\n\n", QS_E_FORMAT, "the file is empty");
    refuses("\x1F\x8B\x08", QS_E_FORMAT, "'x': it is compressed (gzip): unpack it");
    refuses("id,question,A,B,C,D,answer\n", QS_E_FORMAT, "it holds no item");
    refuses("[]", QS_E_FORMAT, "it holds no item");
    refuses("[1,2]", QS_E_UNSUPPORTED, "element 1: of no known form");
    refuses("just words, with a comma\n", QS_E_UNSUPPORTED, "of no known form");
    refuses("{\"text\":\"a\"}\n", QS_E_UNSUPPORTED, "'x': line 1: of no known form");
    refuses("q,a,b,c,d,A\nq,a,b,c,d,E\n", QS_E_FORMAT, "'x': line 2: the answer is 'E', wanted A to D");
    refuses("q,a,b,c,d,A\nq,a,b,c,A\n", QS_E_FORMAT, "line 2: 5 fields");
    refuses("{\"goal\":\"g\",\"sol1\":\"a\"}\n", QS_E_FORMAT, "line 1: choice 2 is no text");
    refuses("{\"goal\":\"g\",\"sol1\":\"a\",\"sol2\":\"b\",\"label\":2}", QS_E_FORMAT,
            "none of the 2");
    refuses("{\"goal\":\"g\",\"sol1\":\"a\",\"sol2\":\"b\",\"label\":1.0}", QS_E_FORMAT,
            "none of the 2");
    refuses("{\"ctx\":\"g\",\"endings\":[\"a\"],\"label\":0}", QS_E_FORMAT, "1 choices");
    refuses("{\"endings\":[\"a\",\"b\"],\"label\":0}", QS_E_FORMAT, "\"ctx\" is missing");
    refuses("\n{\"question\":\"q\",\"answer\":\"2\"}", QS_E_FORMAT, "line 2: \"answer\" does not end");
    static const char *const golds[] = { "#### abc", "#### ", "#### 7 apples", "7\\n####7", "#### -",
                                         "#### ,.", "#### 7\\n#### many" };
    for (size_t i = 0; i < QSI_COUNT(golds); i++) {
        char text[128];
        snprintf(text, sizeof text, "{\"question\":\"q\",\"answer\":\"so\\n%s\"}", golds[i]);
        refuses(text, QS_E_FORMAT, "line 1: \"answer\" does not end with a line \"#### n\"");
    }
    refuses("{\"question\":{\"stem\":\"q\",\"choices\":[{\"text\":\"a\",\"label\":\"A\"},"
            "{\"text\":\"b\",\"label\":\"B\"}]},\"answerKey\":\"C\"}", QS_E_FORMAT, "\"answerKey\"");
    refuses("{\"goal\":\"g\",\"sol1\":\"a\",\"sol2\":\"b\"}\n{\"goal\":1,", QS_E_FORMAT,
            "line 2: bad JSON in column");
    /* in an array it is the only number there is */
    refuses("[{\"goal\":\"g\",\n\"sol1\":}]", QS_E_FORMAT, "'x': bad JSON in line 2, column");
}

static void bounded(void **state) {
    size_t n = QSI_TASK_MAX_ITEM + 64;
    char *text = malloc(n + 64);
    qsi_task_file f;
    qs_err err = { 0 };
    assert_non_null(text);
    int k = snprintf(text, 64, "{\"goal\":\"");
    memset(text + k, 'x', n);
    memcpy(text + (size_t)k + n, "\"}", 3);
    assert_int_equal(parse(&f, "x", text, &err), QS_E_LIMIT);
    free(text);
    char many[1024];
    size_t len = (size_t)snprintf(many, sizeof many,
                                  "{\"question\":\"q\",\"answer\":0,\"choices\":[\"a\"");
    for (int i = 0; i < QSI_TASK_MAX_CHOICES; i++)
        len += (size_t)snprintf(many + len, sizeof many - len, ",\"b\"");
    snprintf(many + len, sizeof many - len, "]}");
    assert_int_equal(parse(&f, "x", many, &err), QS_E_LIMIT);
}

static void labels(void **state) {
    static const char two[] = "{\"goal\":\"g\",\"sol1\":\"a\",\"sol2\":\"b\"}\n"
                              "{\"goal\":\"h\",\"sol1\":\"c\",\"sol2\":\"d\"}\n";
    static const struct { const char *text, *words; } bad[] = {
        { "0\n", "has 1 labels" }, { "0\n1\n0\n", "line 3: label 0" }, { "0\n2\n", "line 2: label 2" },
        { "0\nA\n", "line 2: a label is" }, { "-1\n0\n", "line 1: a label is" },
    };
    qsi_task_file f;
    qs_err err = { 0 };
    opens(&f, two, QSI_TASK_PIQA, 2);
    assert_int_equal(f.items[0].answer, -1);
    uint64_t hash = f.hash;
    assert_int_equal(qsi_task_labels(&f, "y", "1\r\n0\n", 5, &err), QS_OK);
    assert_int_equal(f.items[0].answer, 1);
    assert_int_equal(f.items[1].answer, 0);
    assert_true(f.hash != hash);
    for (size_t i = 0; i < QSI_COUNT(bad); i++) {
        assert_int_equal(qsi_task_labels(&f, "y", bad[i].text, strlen(bad[i].text), &err), QS_E_FORMAT);
        if (strstr(err.text, bad[i].words) == NULL) fail_msg("%s", err.text);
    }
    qsi_task_release(&f);
}

static void names(void **state) {
    static const struct { const char *file, *subject; } cases[] = {
        { "abstract_algebra_test.csv", "abstract_algebra" }, { "agronomy.csv", "agronomy" },
        { "hellaswag_val.jsonl", "hellaswag" }, { "valid.jsonl", "valid" }, { ".csv", ".csv" },
        { "ARC-Easy-train.jsonl", "ARC-Easy" }, { "contest.csv", "contest" }, { "x.dev.json", "x" },
    };
    for (size_t i = 0; i < QSI_COUNT(cases); i++) {
        size_t n = qsi_task_subject_len(cases[i].file);
        assert_int_equal(n, strlen(cases[i].subject));
        assert_memory_equal(cases[i].file, cases[i].subject, n);
    }
    for (int t = QSI_TASK_MMLU; t <= QSI_TASK_HUMANEVAL; t++)
        assert_int_equal(qsi_task_find(qsi_task_name((qsi_task)t)), t);
    assert_int_equal(qsi_task_find("nothing"), QSI_TASK_NONE);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(csv_without_header), cmocka_unit_test(csv_with_header),
        cmocka_unit_test(arc_csv), cmocka_unit_test(json_forms), cmocka_unit_test(hellaswag_text),
        cmocka_unit_test(refused),
        cmocka_unit_test(bounded), cmocka_unit_test(labels), cmocka_unit_test(names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
