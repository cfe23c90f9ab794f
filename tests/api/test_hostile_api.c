/* The n-th allocation fails, for many n: opening, a conversation, saving, loading and scoring end in
 * "out of memory" or succeed, leak nothing, and the session goes on afterwards. Builds without
 * QS_DEBUG have no failing allocation: then the first round succeeds and is the only one. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <unistd.h>

#include "../sys/tmpdir.h"
#include "base/mem.h"
#include "qiusuo/qiusuo.h"
#include "tiny_model.h"

#define MODEL "hostile_model.gguf"
#define SAVED "hostile_chat.json"

static int write_model(void **state) {
    tiny_model_opts o = { .arch = QSI_ARCH_DEEPSEEK, .type = QSI_Q8_0, .seed = 5 };
    return tmp_enter(state) != 0 ? -1 : (int)tiny_model_write(MODEL, &o, NULL);
}

static int ignore(void *user, const qs_score_pos *p) {
    (void)user;
    return p->pos < 0;
}

/* Everything a session does; the first failure ends it. */
static qs_status talk(qs_session *s, qs_err *err) {
    static const char *const stops[] = { "zz" };
    static const int32_t ids[] = { 1, 2, 3, 4 };
    qs_gen_opts o;
    qs_gen_opts_init(&o, sizeof o, NULL);
    o.n_predict = 4;
    o.seed = 1;
    o.top_logprobs = 2;
    o.stops = stops;
    o.n_stops = 1;
    qs_status st = qs_chat_system(s, "be brief", 8, err);
    if (st == QS_OK) st = qs_chat_add(s, QS_USER, "hello", 5, err);
    if (st == QS_OK) st = qs_chat_answer(s, &o, NULL, err);
    if (st == QS_OK) st = qs_chat_save(s, SAVED, err);
    if (st == QS_OK) st = qs_chat_load(s, SAVED, err);
    if (st == QS_OK) st = qs_generate(s, "the moon", 8, QS_ENCODE_BOS, &o, NULL, err);
    if (st == QS_OK) st = qs_score(s, ids, 4, 3, ignore, NULL, err);
    return st;
}

static void test_session(void **state) {
    qs_model *m;
    qs_err err = { 0 };
    qs_status st = QS_E_NOMEM;
    assert_int_equal(qs_model_open(&m, MODEL, NULL, &err), QS_OK);
    for (int64_t n = 1; st != QS_OK; n += 1 + n / 16) {
        qs_session *s = NULL;
        qsi_mem_fail_after(n);
        st = qs_session_create(&s, m, NULL, &err);
        if (st == QS_OK) st = talk(s, &err);
        qsi_mem_fail_after(-1);
        if (st != QS_OK && st != QS_E_NOMEM) print_error("allocation %d: %s\n", (int)n, err.text);
        if (st != QS_OK) assert_int_equal(st, QS_E_NOMEM);
        if (st != QS_OK) assert_true(err.text[0] != '\0');
        if (s != NULL) {
            qs_chat_truncate(s, 0);
            assert_int_equal(talk(s, &err), QS_OK); /* nothing was left half done */
        }
        qs_session_free(s);
    }
    qs_model_close(&m);
}

static void test_open(void **state) {
    qs_err err = { 0 };
    qs_status st = QS_E_NOMEM;
    for (int64_t n = 1; st != QS_OK; n += 1 + n / 8) {
        qs_model *m = NULL;
        qsi_mem_fail_after(n);
        st = qs_model_open(&m, MODEL, NULL, &err);
        qsi_mem_fail_after(-1);
        if (st != QS_OK && st != QS_E_NOMEM) print_error("allocation %d: %s\n", (int)n, err.text);
        if (st != QS_OK) assert_int_equal(st, QS_E_NOMEM);
        if (st != QS_OK) assert_null(m);
        qs_model_close(&m);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_session),
        cmocka_unit_test(test_open),
    };
    return cmocka_run_group_tests(tests, write_model, tmp_leave);
}
