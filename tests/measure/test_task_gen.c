/* Generated answers and their scores, by a scripted model that knows some answers: whole runs over
 * files, the journal, the settings. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../infer/fake_model.h"
#include "../sys/tmpdir.h"
#include "measure/task_code.h"
#include "measure/task_gen.h"
#include "measure/task_run.h"
#include "sys/file.h"
#include "tok/vocab.h"

#define FILE_NAME "task_gen_test.jsonl"
#define OUTPUT "task_gen.json"
#define PYTHON "/usr/bin/python3"

/* What the model writes after a text that ends its prompt. */
typedef struct known {
    const char *prompt, *answer;
} known;

typedef struct world {
    fake_model f;
    qsi_engine *e;
    qsi_vocab *vocab;
    const known *known;
    size_t n_known;
    int n_asked; /* answers begun */
} world;

static const char corpus[] = "Question: how many apples? Answer: there are 12 of them. #### 12 苹果";

/* The longest token that begins the bytes at p; they may begin within a character. */
static int32_t first_token(const qsi_vocab *v, const char *p, size_t n) {
    int32_t best = -1;
    size_t len = 0;
    for (int32_t i = 0; i < qsi_vocab_size(v); i++) {
        qsi_slice b = qsi_vocab_bytes(v, i);
        if (qsi_vocab_type(v, i) != QSI_TOK_NORMAL || b.n <= len || b.n > n || memcmp(b.p, p, b.n) != 0)
            continue;
        best = i;
        len = b.n;
    }
    assert_true(best >= 0);
    return best;
}

/* The token that goes on with the answer to the prompt in the text; the end token after it. */
static int32_t next_id(void *user, const int32_t *ids, int32_t n) {
    world *w = user;
    qsi_str text = { 0 };
    int32_t id = qsi_vocab_eos(w->vocab);
    assert_int_equal(qsi_decode(w->vocab, ids, (size_t)n, false, &text), QS_OK);
    for (size_t i = 0; i < w->n_known; i++) {
        const char *p = strstr(text.data, w->known[i].prompt);
        if (p == NULL) continue;
        size_t said = strlen(p + strlen(w->known[i].prompt)), len = strlen(w->known[i].answer);
        w->n_asked += said == 0;
        if (said >= len) break;
        id = first_token(w->vocab, w->known[i].answer + said, len - said);
    }
    qsi_str_release(&text);
    return id;
}

static void tidy(void) {
    unlink(FILE_NAME);
    unlink(OUTPUT ".journal");
}

static void begin(world *w, const known *k, size_t n, int64_t n_ctx) {
    qsi_bpe_trainer *t;
    memset(w, 0, sizeof *w);
    tidy();
    assert_int_equal(qsi_bpe_trainer_create(&t, "deepseek-llm", NULL), QS_OK);
    assert_int_equal(qsi_bpe_trainer_add(t, corpus, sizeof corpus - 1, NULL), QS_OK);
    assert_int_equal(qsi_bpe_trainer_finish(t, 280, NULL, NULL, &w->vocab, NULL), QS_OK);
    qsi_bpe_trainer_free(t);
    fake_model_init(&w->f, qsi_vocab_size(w->vocab), 16, n_ctx, 64);
    w->f.next = next_id;
    w->f.user = w;
    w->known = k;
    w->n_known = n;
    assert_int_equal(qsi_engine_create(&w->e, &w->f.runner, 1, NULL), QS_OK);
}

static void end(world *w) {
    qsi_engine_free(w->e);
    fake_model_release(&w->f);
    qsi_vocab_free(w->vocab);
    tidy();
}

static void put_file(const char *path, const char *text) {
    qsi_writer *w;
    assert_int_equal(qsi_writer_open(&w, path, NULL), QS_OK);
    assert_int_equal(qsi_writer_write(w, text, strlen(text), NULL), QS_OK);
    assert_int_equal(qsi_writer_commit(&w, NULL), QS_OK);
}

static const char *const paths[] = { FILE_NAME };
/* NULL: there is none, or no sandbox for it. */
static const char *python_of(void) {
    qsi_str nothing = { 0 };
    const char *how;
    bool works = qsi_path_exists(PYTHON) && qsi_str_puts(&nothing, "pass\n") == QS_OK &&
                 qsi_code_run(PYTHON, &nothing, 60, NULL, &how, NULL) != QS_E_UNSUPPORTED;
    qsi_str_release(&nothing);
    return works ? PYTHON : NULL;
}

static qs_status run(world *w, qsi_task_opts o, qsi_task_report *r, qs_err *err) {
    o.paths = paths;
    o.n_paths = 1;
    o.model = "{}";
    *err = (qs_err){ 0 };
    *r = (qsi_task_report){ 0 };
    return qsi_task_run(w->e, w->vocab, &o, r, err);
}

static const char sums[] =
    "{\"question\":\"one and one?\",\"answer\":\"1+1=2\\n#### 2\"}\n"
    "{\"question\":\"两个加三个？\",\"answer\":\"2+3=5\\n#### 5\"}\n"
    "{\"question\":\"a thousand and one?\",\"answer\":\"#### 1,001\"}\n"
    "{\"question\":\"nothing?\",\"answer\":\"#### 0\"}\n";
static const known answers[] = {
    { "one and one?\nAnswer:", " 1 and 1 make 2.\n#### 2\nQuestion: and 3?" },
    { "两个加三个？\nAnswer:", " 一共 5 个。" },
    { "a thousand and one?\nAnswer:", " #### 1001\nIt is 7." },
    { "nothing?\nAnswer:", " I do not know." },
};

static void exact_match(void **state) {
    world w;
    qsi_task_report r;
    qs_err err;
    begin(&w, answers, QSI_COUNT(answers), 512);
    put_file(FILE_NAME, sums);
    if (run(&w, (qsi_task_opts){ .output = OUTPUT }, &r, &err) != QS_OK) fail_msg("%s", err.text);
    assert_int_equal(r.n_metrics, 2);
    assert_true(r.all.score[0].mean == 2.0 / 4 && r.all.score[1].mean == 2.0 / 4);
    qsi_task_report_release(&r);
    qsi_str journal = { 0 };
    assert_int_equal(qsi_file_read(OUTPUT ".journal", 1 << 20, &journal, &err), QS_OK);
    /* the stop string and what follows it are not part of the answer */
    static const char *const lines[] = {
        "\"score\":[1,1],\"whole\":true,\"answer\":\" 1 and 1 make 2.\\n#### 2\\n\"}",
        "\"score\":[0,1],\"whole\":true,\"answer\":\" 一共 5 个。\"}",
        "\"score\":[1,0],\"whole\":true,\"answer\":\" #### 1001\\nIt is 7.\"}",
        "\"score\":[0,0],\"whole\":true,\"answer\":\" I do not know.\"}",
    };
    for (size_t i = 0; i < QSI_COUNT(lines); i++)
        if (strstr(journal.data, lines[i]) == NULL) fail_msg("%s\n%s", lines[i], journal.data);
    qsi_str_release(&journal);
    /* all is there: nobody is asked */
    w.n_asked = 0;
    assert_int_equal(run(&w, (qsi_task_opts){ .output = OUTPUT, .resume = true }, &r, &err), QS_OK);
    assert_int_equal(r.n_resumed, 4);
    assert_int_equal(w.n_asked, 0);
    assert_true(r.all.score[1].mean == 2.0 / 4);
    qsi_task_report_release(&r);
    assert_int_equal(run(&w, (qsi_task_opts){ .output = OUTPUT, .resume = true, .max_tokens = 9 }, &r,
                         &err), QS_E_STATE);
    assert_non_null(strstr(err.text, "setting of 'n-predict'"));
    end(&w);
}

static void settings(void **state) {
    static const char *const stop[] = { "and" };
    world w;
    qsi_task_report r;
    qs_err err;
    begin(&w, answers, QSI_COUNT(answers), 512);
    put_file(FILE_NAME, sums);
    /* " 1 " alone, and its number is wrong */
    assert_int_equal(run(&w, (qsi_task_opts){ .stops = stop, .n_stops = 1, .limit = 1 }, &r, &err),
                     QS_OK);
    assert_true(r.all.n == 1 && r.all.score[0].mean == 0 && r.all.score[1].mean == 0);
    qsi_task_report_release(&r);
    qsi_str journal = { 0 };
    assert_int_equal(run(&w, (qsi_task_opts){ .max_tokens = 3, .limit = 1, .output = OUTPUT }, &r, &err),
                     QS_OK);
    qsi_task_report_release(&r);
    assert_int_equal(qsi_file_read(OUTPUT ".journal", 1 << 20, &journal, &err), QS_OK);
    assert_non_null(strstr(journal.data, "\"whole\":false"));
    qsi_str_release(&journal);
    end(&w);
    /* a context of few tokens: the prompts lose their beginning */
    begin(&w, answers, QSI_COUNT(answers), 24);
    put_file(FILE_NAME, sums);
    assert_int_equal(run(&w, (qsi_task_opts){ .limit = 1 }, &r, &err), QS_OK);
    assert_int_equal(r.all.n_cut, 1);
    qsi_task_report_release(&r);
    end(&w);
}

/* A conversation: the template's marks stand around the prompt, and one space of the answer is its. */
static void conversation(void **state) {
    static const known said[] = { { "Answer:\n\nAssistant:", " It is 2.\n#### 2" } };
    const qsi_chat_template *chat;
    world w;
    qsi_task_report r;
    qs_err err;
    assert_int_equal(qsi_chat_by_name(&chat, "deepseek-llm", &err), QS_OK);
    begin(&w, said, 1, 512);
    put_file(FILE_NAME, sums);
    qs_status st = run(&w, (qsi_task_opts){ .chat = chat, .limit = 1, .output = OUTPUT }, &r, &err);
    if (st != QS_OK) fail_msg("%s", err.text);
    assert_true(r.all.score[0].mean == 1);
    qsi_task_report_release(&r);
    qsi_str journal = { 0 };
    assert_int_equal(qsi_file_read(OUTPUT ".journal", 1 << 20, &journal, &err), QS_OK);
    assert_non_null(strstr(journal.data, "\"answer\":\"It is 2.\\n#### 2\""));
    assert_non_null(strstr(journal.data, "\"chat\":\"deepseek-llm\""));
    qsi_str_release(&journal);
    end(&w);
}

static void code(void **state) {
    static const char tasks[] =
        "{\"task_id\":\"t/0\",\"prompt\":\"def one():\\n\",\"canonical_solution\":\"    return 1\\n\","
        "\"test\":\"def check(c):\\n    assert c() == 1\\n\",\"entry_point\":\"one\"}\n"
        "{\"task_id\":\"t/1\",\"prompt\":\"def two():\\n\",\"canonical_solution\":\"    return 2\\n\","
        "\"test\":\"def check(c):\\n    assert c() == 2\\n\",\"entry_point\":\"two\"}\n";
    static const known bodies[] = {
        { "def one():\n", "    return 1\n\ndef other():\n    what comes after the function is cut off" },
        { "def two():\n", "    return 3\n" } };
    world w;
    qsi_task_report r;
    qs_err err;
    begin(&w, bodies, 2, 512);
    put_file(FILE_NAME, tasks);
    assert_int_equal(run(&w, (qsi_task_opts){ 0 }, &r, &err), QS_E_ARG);
    assert_non_null(strstr(err.text, "--run-code"));
    assert_int_equal(w.n_asked, 0);
    if (python_of() != NULL) {
        qs_status st = run(&w, (qsi_task_opts){ .python = python_of(), .code_seconds = 30 }, &r, &err);
        if (st != QS_OK) fail_msg("%s", err.text);
        assert_int_equal(r.n_metrics, 1);
        assert_string_equal(r.metric[0], "pass@1");
        assert_true(r.all.score[0].mean == 0.5);
        qsi_task_report_release(&r);
        st = run(&w, (qsi_task_opts){ .python = "/bin/true", .code_seconds = 30 }, &r, &err);
        assert_int_equal(st, QS_E_UNSUPPORTED);
    }
    end(&w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exact_match), cmocka_unit_test(settings), cmocka_unit_test(conversation),
        cmocka_unit_test(code),
    };
    return cmocka_run_group_tests(tests, tmp_enter, tmp_leave);
}
