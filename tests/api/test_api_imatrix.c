/* api/api_imatrix: a text through a model gives a file that converting takes; windows do not overlap,
 * and evaluating afterwards counts nothing more. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "../sys/tmpdir.h"
#include "fmt/gguf.h"
#include "qiusuo/files.h"
#include "qiusuo/measure.h"
#include "qiusuo/qiusuo.h"
#include "tiny_model.h"

#define MODEL "api_imatrix.gguf"
#define MATRIX "api_imatrix.imatrix"
#define OUT "api_imatrix.out.gguf"

static const char text[] = "The quick brown fox, 求索：路漫漫其修远兮，吾将上下而求索。 12345 and so on.";

static float count_of(const char *name) {
    qsi_gguf *g = NULL;
    qs_err err = {0};
    float v = -1;
    if (qsi_gguf_open(&g, MATRIX, &err) != QS_OK) fail_msg("%s", err.text);
    const qsi_gguf_tensor *t = qsi_gguf_tensor_find(g, name);
    if (t != NULL) memcpy(&v, t->data, sizeof v);
    qsi_gguf_close(&g);
    return v;
}

static void a_text_becomes_a_matrix(void **state) {
    tiny_model_opts o = {.arch = QSI_ARCH_DEEPSEEK, .type = QSI_F32, .seed = 1};
    qs_model *m = NULL;
    qs_session *s = NULL;
    qs_model_opts mo;
    qs_eval_opts eo;
    qs_eval_text_report plain;
    qs_imatrix_report r = {0};
    qs_err err = {0};
    assert_int_equal(tiny_model_write(MODEL, &o, &err), 0);
    qs_model_opts_init(&mo, sizeof mo);
    mo.threads = 1;
    assert_int_equal(qs_model_open(&m, MODEL, &mo, &err), QS_OK);
    assert_int_equal(qs_session_create(&s, m, NULL, &err), QS_OK);
    qs_eval_opts_init(&eo, sizeof eo);
    eo.ctx = 16;
    eo.stride = 15;
    assert_int_equal(qs_eval_text(s, NULL, text, strlen(text), &eo, &plain, &err), QS_OK);
    if (qs_imatrix(s, text, strlen(text), "fox", &eo, MATRIX, &r, &err) != QS_OK)
        fail_msg("%s", err.text);
    assert_true(r.text.nll.value == plain.nll.value && r.text.n_tokens == plain.n_tokens);
    assert_int_equal(r.n_chunks, (r.text.n_tokens + 14) / 15);
    assert_true(r.n_experts > 0 && r.n_unseen >= 0 && r.n_unseen < r.n_experts);
    /* every position of every window but its last one, which predicts nothing */
    float rows = count_of("blk.0.attn_q.weight.counts");
    assert_true(rows == (float)r.text.n_tokens);
    assert_int_equal(qs_eval_text(s, NULL, text, strlen(text), &eo, &plain, &err), QS_OK);
    assert_int_equal(qs_imatrix(s, text, strlen(text), "fox", &eo, MATRIX, &r, &err), QS_OK);
    assert_true(count_of("blk.0.attn_q.weight.counts") == rows);
    qs_convert_opts co;
    qs_convert_opts_init(&co, sizeof co);
    co.type = "Q4_0";
    co.imatrix = MATRIX;
    if (qs_convert(&co, MODEL, OUT, &err) != QS_OK) fail_msg("%s", err.text);
    co.imatrix = MODEL;
    assert_int_equal(qs_convert(&co, MODEL, OUT, &err), QS_E_FORMAT);
    eo.ctx = 2;
    assert_int_equal(qs_imatrix(s, text, strlen(text), "fox", &eo, MATRIX, &r, &err), QS_E_ARG);
    qs_session_free(s);
    qs_model_close(&m);
    remove(MODEL);
    remove(MATRIX);
    remove(OUT);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_text_becomes_a_matrix)};
    return cmocka_run_group_tests(tests, tmp_enter, tmp_leave);
}
