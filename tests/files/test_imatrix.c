/* Importance matrices as files: what is written is read back as means, experts apart; what is no such
 * matrix is refused; the encoders use it. And types by name patterns. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "../sys/tmpdir.h"
#include "base/mem.h"
#include "files/convert.h"
#include "files/info.h"
#include "files/init.h"
#include "files/presets.h"
#include "sys/file.h"

#define MODEL "test_imatrix.model.tmp.gguf"
#define OUT "test_imatrix.out.tmp.gguf"
#define MATRIX "test_imatrix.tmp.gguf"

static void make_model(const char *type) {
    const qsi_preset *p = NULL;
    qs_err err = {0};
    qsi_init_opts o = {.name = "weighed", .seed = 3, .std = 0.02f, .threads = 1};
    assert_int_equal(qsi_preset_find(&p, "moe-tiny", &err), QS_OK);
    assert_int_equal(qsi_mix_find(&o.mix, type, &err), QS_OK);
    o.config = p->config;
    o.config.n_layer = 2;
    o.config.n_vocab = 512;
    if (qsi_init_write(&o, MODEL, &err) != QS_OK) fail_msg("%s", err.text);
}

static void put(qsi_gguf_writer *w, const char *name, int64_t a, int64_t b) {
    qs_err err = {0};
    int64_t ne[4] = {a, b, 1, 1};
    assert_int_equal(qsi_gguf_declare(w, name, QSI_F32, 2, ne, &err), QS_OK);
}

/* A matrix for the experts' gates of layer 1, expert e seeing 3 e rows; column 5 counts most. */
static void write_matrix(int64_t cols, int64_t n, float odd_sum, float odd_count) {
    qs_err err = {0};
    qsi_gguf_writer *w = NULL;
    assert_int_equal(qsi_gguf_writer_open(&w, MATRIX, &err), QS_OK);
    assert_int_equal(qsi_gguf_put_str(w, "general.type", "imatrix", 7), QS_OK);
    put(w, "blk.1.ffn_gate_exps.weight.in_sum2", cols, n);
    put(w, "blk.1.ffn_gate_exps.weight.counts", 1, n);
    for (int64_t e = 0; e < n; e++)
        for (int64_t j = 0; j < cols; j++) {
            float v = (float)(3 * e) * (j == 5 ? 400 : 1);
            if (e == 1 && j == 2 && odd_sum != 0) v = odd_sum;
            assert_int_equal(qsi_gguf_write(w, &v, sizeof v, &err), QS_OK);
        }
    for (int64_t e = 0; e < n; e++) {
        float v = e == 1 && odd_count != 0 ? odd_count : (float)(3 * e);
        assert_int_equal(qsi_gguf_write(w, &v, sizeof v, &err), QS_OK);
    }
    assert_int_equal(qsi_gguf_finish(&w, &err), QS_OK);
}

static void means_are_read(void **state) {
    qs_err err = {0};
    qsi_imatrix *m = NULL;
    float *w = NULL;
    write_matrix(64, 4, 0, 0);
    assert_true(qsi_imatrix_is_file(MATRIX));
    assert_false(qsi_imatrix_is_file("no such file"));
    if (qsi_imatrix_open(&m, MATRIX, &err) != QS_OK) fail_msg("%s", err.text);
    qsi_imatrix_stats s = qsi_imatrix_stat(m);
    assert_true(s.tensors == 1 && s.matrices == 4 && s.unseen == 1);
    assert_int_equal(qsi_imatrix_weights(m, "blk.1.ffn_gate_exps.weight", 64, 4, &w, &err), QS_OK);
    for (int e = 0; e < 4; e++)
        for (int j = 0; j < 64; j++) assert_true(w[e * 64 + j] == (e > 0 && j == 5 ? 400 : 1));
    qsi_free(w);
    assert_int_equal(qsi_imatrix_weights(m, "blk.0.attn_q.weight", 64, 1, &w, &err), QS_OK);
    assert_null(w);
    assert_int_equal(qsi_imatrix_weights(m, "blk.1.ffn_gate_exps.weight", 64, 1, &w, &err),
                     QS_E_FORMAT);
    assert_int_equal(qsi_imatrix_weights(m, "blk.1.ffn_gate_exps.weight", 32, 4, &w, &err),
                     QS_E_FORMAT);
    assert_non_null(strstr(err.text, "another model"));
    qsi_imatrix_close(&m);
    remove(MATRIX);
}

/* It is no model, and sound all the same; one that cannot be used says why. */
static void info_knows_it(void **state) {
    qs_err err = {0};
    qsi_info *x = NULL;
    qsi_str text = {0}, json = {0};
    write_matrix(64, 4, 0, 0);
    if (qsi_info_open(&x, MATRIX, &err) != QS_OK) fail_msg("%s", err.text);
    assert_int_equal(x->kind, QSI_INFO_IMATRIX);
    assert_int_equal(x->n_problems, 0);
    assert_int_equal(qsi_info_text(x, 0, &text), QS_OK);
    assert_non_null(strstr(text.data, "4 matrices in 1 tensors; 1 saw no token"));
    assert_int_equal(qsi_info_json(x, 0, &json), QS_OK);
    assert_non_null(strstr(json.data, "\"importance\":{\"tensors\":1,\"matrices\":4,\"unseen\":1}"));
    qsi_str_release(&text);
    qsi_str_release(&json);
    qsi_info_close(&x);
    write_matrix(64, 4, -1, 0);
    assert_int_equal(qsi_info_open(&x, MATRIX, &err), QS_OK);
    assert_int_equal(x->n_problems, 1);
    qsi_info_close(&x);
    remove(MATRIX);
}

static void nonsense_is_refused(void **state) {
    static const float bad[] = {-1, NAN, INFINITY, 1e-38f};
    qs_err err = {0};
    qsi_imatrix *m = NULL;
    for (size_t i = 0; i < QSI_COUNT(bad); i++) {
        write_matrix(64, 4, bad[i], 0);
        if (i < 3) assert_int_equal(qsi_imatrix_open(&m, MATRIX, &err), QS_E_FORMAT);
        write_matrix(64, 4, 0, bad[i]);
        assert_int_equal(qsi_imatrix_open(&m, MATRIX, &err), QS_E_FORMAT);
    }
    make_model("F16");
    assert_int_equal(qsi_imatrix_open(&m, MODEL, &err), QS_E_FORMAT);
    assert_non_null(strstr(err.text, "no importance matrix"));
    assert_null(m);
    remove(MODEL);
    remove(MATRIX);
}

/* Squares of the errors of one column of an expert's gate. */
static double column_error(const char *path, int64_t expert, int64_t column) {
    qs_err err = {0};
    qsi_gguf *a = NULL, *b = NULL;
    float x[1024], y[1024];
    double sum = 0;
    assert_int_equal(qsi_gguf_open(&a, MODEL, &err), QS_OK);
    assert_int_equal(qsi_gguf_open(&b, path, &err), QS_OK);
    const qsi_gguf_tensor *t = qsi_gguf_tensor_find(a, "blk.1.ffn_gate_exps.weight");
    const qsi_gguf_tensor *u = qsi_gguf_tensor_find(b, "blk.1.ffn_gate_exps.weight");
    const qsi_type_info *ti = qsi_type_get((int32_t)t->type), *tj = qsi_type_get((int32_t)u->type);
    for (int64_t r = 0; r < t->ne[1]; r++) {
        int64_t at = (expert * t->ne[1] + r) * t->ne[0];
        ti->decode(t->data + at / ti->block * ti->bytes, x, t->ne[0]);
        tj->decode(u->data + at / tj->block * tj->bytes, y, t->ne[0]);
        sum += pow((double)x[column] - (double)y[column], 2);
    }
    qsi_gguf_close(&a);
    qsi_gguf_close(&b);
    return sum;
}

/* Experts with rows lose less in the column that counts; the one without loses the same. */
static void encoders_use_it(void **state) {
    qs_err err = {0};
    qsi_gguf *g = NULL;
    qsi_imatrix *m = NULL;
    qsi_convert_opts o = {.threads = 2};
    make_model("F32");
    assert_int_equal(qsi_gguf_open(&g, MODEL, &err), QS_OK);
    const qsi_gguf_tensor *t = qsi_gguf_tensor_find(g, "blk.1.ffn_gate_exps.weight");
    write_matrix(t->ne[0], t->ne[2], 0, 0);
    assert_int_equal(qsi_mix_find(&o.mix, "Q4_K", &err), QS_OK);
    assert_int_equal(qsi_convert(MODEL, OUT, &o, &err), QS_OK);
    double none[3], with[3];
    for (int e = 0; e < 3; e++) none[e] = column_error(OUT, e, 5);
    if (qsi_imatrix_open(&m, MATRIX, &err) != QS_OK) fail_msg("%s", err.text);
    o.imatrix = m;
    if (qsi_convert(MODEL, OUT, &o, &err) != QS_OK) fail_msg("%s", err.text);
    for (int e = 0; e < 3; e++) with[e] = column_error(OUT, e, 5);
    for (int e = 1; e < 3; e++)
        if (!(with[e] < 0.8 * none[e])) fail_msg("expert %d: %g, was %g", e, with[e], none[e]);
    assert_true(with[0] < 1.2 * none[0] && with[0] > 0.8 * none[0]);
    qsi_imatrix_close(&m);
    write_matrix(t->ne[0], t->ne[2] + 1, 0, 0); /* of another model */
    assert_int_equal(qsi_imatrix_open(&m, MATRIX, &err), QS_OK);
    remove(OUT);
    o.imatrix = m;
    assert_int_equal(qsi_convert(MODEL, OUT, &o, &err), QS_E_FORMAT);
    assert_false(qsi_path_exists(OUT));
    qsi_imatrix_close(&m);
    qsi_gguf_close(&g);
    remove(MODEL);
    remove(MATRIX);
}

static const char *type_in(const qsi_gguf *g, const char *name) {
    return qsi_type_get((int32_t)qsi_gguf_tensor_find(g, name)->type)->name;
}

static void patterns_choose_types(void **state) {
    static const char *const rules[] = {"^blk\\.0\\.ffn_down=Q6_K", "ffn_(down|up)=q5_k",
                                        "attn_norm|ffn_gate_inp=Q4_0", "output=Q8_0"};
    qs_err err = {0};
    qsi_gguf *g = NULL;
    qsi_type_rules *r = NULL;
    qsi_convert_opts o = {.threads = 1};
    make_model("F16");
    assert_int_equal(qsi_type_rules_create(&r, rules, QSI_COUNT(rules), &err), QS_OK);
    o.rules = r;
    for (int mixed = 0; mixed < 2; mixed++) {
        if (mixed) assert_int_equal(qsi_mix_find(&o.mix, "Q4_K", &err), QS_OK);
        if (qsi_convert(MODEL, OUT, &o, &err) != QS_OK) fail_msg("%s", err.text);
        assert_int_equal(qsi_gguf_open(&g, OUT, &err), QS_OK);
        assert_string_equal(type_in(g, "blk.0.ffn_down.weight"), "Q6_K");
        assert_string_equal(type_in(g, "blk.1.ffn_up_exps.weight"), "Q5_K");
        assert_string_equal(type_in(g, "output.weight"), "Q8_0");
        assert_string_equal(type_in(g, "blk.1.attn_output.weight"), "Q8_0"); /* found anywhere */
        assert_string_equal(type_in(g, "blk.0.attn_q.weight"), mixed ? "Q4_K" : "F16");
        assert_string_equal(type_in(g, "blk.0.attn_norm.weight"), "F32");
        assert_string_equal(type_in(g, "blk.1.ffn_gate_inp.weight"), "F32");
        qsi_gguf_close(&g);
    }
    qsi_type_rules_free(r);
    static const char *const wrong[] = {"attn", "=Q4_K", "attn=Q9", "attn=IQ2_XS", "(=Q4_K", "a=b=c"};
    for (size_t i = 0; i < QSI_COUNT(wrong); i++)
        assert_int_equal(qsi_type_rules_create(&r, &wrong[i], 1, &err), QS_E_ARG);
    /* a rule for which there is no tensor; one that another rule forestalls is no such rule */
    static const char *const idle[] = {"attn_q=Q8_0", "blk\\.0\\.attn_q=Q4_0", "atn_v=Q8_0"};
    for (size_t n = 2; n <= 3; n++) {
        assert_int_equal(qsi_type_rules_create(&r, idle, n, &err), QS_OK);
        o.rules = r;
        assert_int_equal(qsi_convert(MODEL, OUT, &o, &err), n == 2 ? QS_OK : QS_E_ARG);
        if (n == 3) assert_non_null(strstr(err.text, "'atn_v'"));
        qsi_type_rules_free(r);
    }
    remove(MODEL);
    remove(OUT);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(means_are_read),
        cmocka_unit_test(info_knows_it), cmocka_unit_test(nonsense_is_refused),
        cmocka_unit_test(encoders_use_it),
        cmocka_unit_test(patterns_choose_types),
    };
    return cmocka_run_group_tests(tests, tmp_enter, tmp_leave);
}
