/* Converting: quantising float weights gives the tensors that init writes in that type, with smaller
 * errors where there is a search; keys are kept; split files become one;
 * nonsense is refused and leaves nothing behind. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "../sys/tmpdir.h"
#include "base/log.h"
#include "files/convert.h"
#include "files/hf_export.h"
#include "files/init.h"
#include "files/presets.h"
#include "sys/file.h"

#define SRC "test_convert.src.tmp.gguf"
#define DST "test_convert.dst.tmp.gguf"
#define WANT "test_convert.want.tmp.gguf"

static void make(const char *path, const char *type) {
    const qsi_preset *p = NULL;
    qs_err err = {0};
    qsi_init_opts o = {.name = "converted", .seed = 3, .std = 0.02f, .threads = 1};
    assert_int_equal(qsi_preset_find(&p, "moe-tiny", &err), QS_OK);
    assert_int_equal(qsi_mix_find(&o.mix, type, &err), QS_OK);
    o.config = p->config;
    o.config.n_layer = 2;
    o.config.n_vocab = 512;
    if (qsi_init_write(&o, path, &err) != QS_OK) fail_msg("%s", err.text);
}

static qs_status convert(const char *src, const char *dst, const char *type, qs_err *err) {
    qsi_convert_opts o = {.threads = 2};
    if (type != NULL) assert_int_equal(qsi_mix_find(&o.mix, type, err), QS_OK);
    return qsi_convert(src, dst, &o, err);
}

/* Sum of squares of what the values of tensor t of file h are off from those of file g. */
static double off_by(const qsi_gguf_tensor *t, const qsi_gguf_tensor *u) {
    const qsi_type_info *a = qsi_type_get((int32_t)t->type), *b = qsi_type_get((int32_t)u->type);
    float x[256], y[256];
    double sum = 0;
    int64_t n = t->ne[0] * t->ne[1] * t->ne[2];
    for (int64_t i = 0; i < n; i += 256) {
        int64_t some = n - i < 256 ? n - i : 256;
        a->decode(t->data + i / a->block * a->bytes, x, some);
        b->decode(u->data + i / b->block * b->bytes, y, some);
        for (int64_t j = 0; j < some; j++)
            sum += ((double)x[j] - (double)y[j]) * ((double)x[j] - (double)y[j]);
    }
    return sum;
}

/* Files a and b have the same tensors in the same types, and a is nowhere farther from src than b. */
static void no_worse(const char *src, const char *a, const char *b) {
    qs_err err = {0};
    qsi_gguf *s = NULL, *g = NULL, *h = NULL;
    assert_int_equal(qsi_gguf_open(&s, src, &err), QS_OK);
    assert_int_equal(qsi_gguf_open(&g, a, &err), QS_OK);
    assert_int_equal(qsi_gguf_open(&h, b, &err), QS_OK);
    assert_int_equal(qsi_gguf_n_tensors(g), qsi_gguf_n_tensors(h));
    for (size_t i = 0; i < qsi_gguf_n_tensors(g); i++) {
        const qsi_gguf_tensor *x = qsi_gguf_tensor_at(g, i), *y = qsi_gguf_tensor_at(h, i);
        const qsi_gguf_tensor *t = qsi_gguf_tensor_find(s, x->name);
        assert_string_equal(x->name, y->name);
        assert_true(x->type == y->type && t != NULL);
        double d = off_by(t, x), e = off_by(t, y);
        if (!(d <= e)) fail_msg("tensor %s is off by %g, init's by %g", x->name, d, e);
    }
    qsi_gguf_close(&s);
    qsi_gguf_close(&g);
    qsi_gguf_close(&h);
}

static void same_file(const char *a, const char *b) {
    qs_err err = {0};
    qsi_gguf *g = NULL, *h = NULL;
    assert_int_equal(qsi_gguf_open(&g, a, &err), QS_OK);
    assert_int_equal(qsi_gguf_open(&h, b, &err), QS_OK);
    assert_int_equal(qsi_gguf_n_tensors(g), qsi_gguf_n_tensors(h));
    assert_int_equal(qsi_gguf_n_kv(g), qsi_gguf_n_kv(h));
    for (size_t i = 0; i < qsi_gguf_n_kv(g); i++) {
        const qsi_gguf_kv *x = qsi_gguf_kv_at(g, i), *y = qsi_gguf_find(h, x->key);
        if (y == NULL || x->data_bytes != y->data_bytes ||
            memcmp(x->data, y->data, x->data_bytes) != 0)
            fail_msg("key %s differs", x->key);
    }
    for (size_t i = 0; i < qsi_gguf_n_tensors(g); i++) {
        const qsi_gguf_tensor *x = qsi_gguf_tensor_at(g, i), *y = qsi_gguf_tensor_at(h, i);
        assert_string_equal(x->name, y->name);
        if (x->type != y->type || x->bytes != y->bytes || memcmp(x->data, y->data, x->bytes) != 0)
            fail_msg("tensor %s differs", x->name);
    }
    qsi_gguf_close(&g);
    qsi_gguf_close(&h);
}

static void quantised_as_init_does(void **state) {
    static const char *const types[] = {"F16", "BF16", "Q8_0", "Q4_0", "Q5_1", "IQ4_NL", "IQ4_XS",
                                        "Q4_K_M", "Q6_K", "Q2_K_M"};
    make(SRC, "F32");
    for (size_t i = 0; i < QSI_COUNT(types); i++) {
        qs_err err = {0};
        make(WANT, types[i]);
        if (convert(SRC, DST, types[i], &err) != QS_OK) fail_msg("%s: %s", types[i], err.text);
        no_worse(SRC, DST, WANT);
        if (i < 3) same_file(DST, WANT); /* types without a search */
        /* what has the type already is copied */
        assert_int_equal(convert(WANT, DST, types[i], &err), QS_OK);
        same_file(DST, WANT);
        assert_int_equal(convert(WANT, DST, NULL, &err), QS_OK);
        same_file(DST, WANT);
    }
    remove(SRC);
    remove(DST);
    remove(WANT);
}

/* The tensors of SRC from `from` to `to`, and its keys in the first part. */
static void put_part(const qsi_gguf *g, const char *path, uint32_t no, size_t from, size_t to) {
    qs_err err = {0};
    qsi_gguf_writer *w = NULL;
    assert_int_equal(qsi_gguf_writer_open(&w, path, &err), QS_OK);
    for (size_t i = 0; no == 0 && i < qsi_gguf_n_kv(g); i++)
        assert_int_equal(qsi_gguf_put_copy(w, qsi_gguf_kv_at(g, i)), QS_OK);
    assert_int_equal(qsi_gguf_put_u32(w, "split.no", no), QS_OK);
    assert_int_equal(qsi_gguf_put_u32(w, "split.count", 2), QS_OK);
    assert_int_equal(qsi_gguf_put_i32(w, "split.tensors.count", (int32_t)qsi_gguf_n_tensors(g)),
                     QS_OK);
    for (size_t i = from; i < to; i++) {
        const qsi_gguf_tensor *t = qsi_gguf_tensor_at(g, i);
        assert_int_equal(qsi_gguf_declare(w, t->name, t->type, t->n_dims, t->ne, &err), QS_OK);
    }
    for (size_t i = from; i < to; i++) {
        const qsi_gguf_tensor *t = qsi_gguf_tensor_at(g, i);
        assert_int_equal(qsi_gguf_write(w, t->data, t->bytes, &err), QS_OK);
    }
    assert_int_equal(qsi_gguf_finish(&w, &err), QS_OK);
}

static void split_files_become_one(void **state) {
    qs_err err = {0};
    qsi_gguf *g = NULL;
    make(SRC, "Q8_0");
    assert_int_equal(qsi_gguf_open(&g, SRC, &err), QS_OK);
    put_part(g, "test_convert-00001-of-00002.gguf", 0, 0, 5);
    put_part(g, "test_convert-00002-of-00002.gguf", 1, 5, qsi_gguf_n_tensors(g));
    qsi_gguf_close(&g);
    if (convert("test_convert-00001-of-00002.gguf", DST, NULL, &err) != QS_OK)
        fail_msg("%s", err.text);
    same_file(SRC, DST);
    remove("test_convert-00001-of-00002.gguf");
    remove("test_convert-00002-of-00002.gguf");
    remove(SRC);
    remove(DST);
}

/* SRC, but for `n` tensors from `from` on, as DST; of another architecture, if one is named. */
static void make_without(size_t from, size_t n, const char *arch) {
    qs_err err = {0};
    qsi_gguf *g = NULL;
    qsi_gguf_writer *w = NULL;
    assert_int_equal(qsi_gguf_open(&g, SRC, &err), QS_OK);
    assert_int_equal(qsi_gguf_writer_open(&w, DST, &err), QS_OK);
    for (size_t i = 0; i < qsi_gguf_n_kv(g); i++) {
        const qsi_gguf_kv *kv = qsi_gguf_kv_at(g, i);
        if (arch != NULL && strcmp(kv->key, "general.architecture") == 0)
            assert_int_equal(qsi_gguf_put_str(w, kv->key, arch, strlen(arch)), QS_OK);
        else assert_int_equal(qsi_gguf_put_copy(w, kv), QS_OK);
    }
    for (int write = 0; write < 2; write++)
        for (size_t i = 0; i < qsi_gguf_n_tensors(g); i++) {
            const qsi_gguf_tensor *t = qsi_gguf_tensor_at(g, i);
            if (i >= from && i < from + n) continue;
            qs_status st = write ? qsi_gguf_write(w, t->data, t->bytes, &err)
                                 : qsi_gguf_declare(w, t->name, t->type, t->n_dims, t->ne, &err);
            assert_int_equal(st, QS_OK);
        }
    assert_int_equal(qsi_gguf_finish(&w, &err), QS_OK);
    qsi_gguf_close(&g);
}

static void incomplete_is_refused(void **state) {
    static const char *const types[] = {NULL, "Q8_0"};
    qs_err err = {0};
    make(SRC, "F16");
    for (size_t i = 0; i < QSI_COUNT(types); i++) {
        make_without(4, 1, NULL);
        assert_int_equal(convert(DST, WANT, types[i], &err), QS_E_FORMAT);
        assert_non_null(strstr(err.text, " is missing: the file is not whole"));
        make_without(4, 5, NULL);
        assert_int_equal(convert(DST, WANT, types[i], &err), QS_E_FORMAT);
        assert_non_null(strstr(err.text, "5 tensors are missing: blk."));
        assert_non_null(strstr(err.text, ", ...: the file"));
        assert_false(qsi_path_exists(WANT));
    }
    make_without(4, 1, "another"); /* nobody here knows what belongs to it */
    assert_int_equal(convert(DST, WANT, NULL, &err), QS_OK);
    same_file(DST, WANT);
    remove(SRC);
    remove(DST);
    remove(WANT);
}

static void check_writes_nothing(void **state) {
    qs_err err = {0};
    qsi_convert_opts o = {.threads = 1, .check = true};
    make(SRC, "F16");
    assert_int_equal(qsi_mix_find(&o.mix, "Q8_0", &err), QS_OK);
    assert_int_equal(qsi_convert(SRC, WANT, &o, &err), QS_OK);
    assert_false(qsi_path_exists(WANT) || qsi_path_exists(WANT ".part"));
    make_without(4, 1, NULL);
    assert_int_equal(qsi_convert(DST, WANT, &o, &err), QS_E_FORMAT);
    remove(SRC);
    remove(DST);
}

static int cancel(void *user, int64_t done, int64_t of) { return done > of / 2; }

static void nonsense_is_refused(void **state) {
    qs_err err = {0};
    qsi_convert_opts o = {.threads = 1, .progress = cancel};
    make(SRC, "F32");
    assert_int_equal(convert(SRC, SRC, "Q8_0", &err), QS_E_ARG);
    assert_int_equal(convert("no such file", DST, "Q8_0", &err), QS_E_NOTFOUND);
    assert_int_equal(qsi_mix_find(&o.mix, "Q8_0", &err), QS_OK);
    assert_int_equal(qsi_convert(SRC, DST, &o, &err), QS_E_CANCELLED);
    assert_false(qsi_path_exists(DST));
    remove(SRC);
}

static int n_warnings;

static void count(void *user, qsi_log_level level, const char *text) {
    n_warnings += level == QSI_LOG_WARN && strstr(text, "1 tensor has values that are no numbers");
}

/* Puts `value` over the last of an F32 tensor of SRC. */
static void put_last(const char *tensor, float value) {
    qs_err err = {0};
    qsi_gguf *g = NULL;
    assert_int_equal(qsi_gguf_open(&g, SRC, &err), QS_OK);
    const qsi_gguf_tensor *t = qsi_gguf_tensor_find(g, tensor);
    assert_non_null(t);
    long at = (long)(t->offset + t->bytes - sizeof value);
    qsi_gguf_close(&g);
    FILE *f = fopen(SRC, "r+b");
    assert_non_null(f);
    assert_int_equal(fseek(f, at, SEEK_SET), 0);
    assert_int_equal(fwrite(&value, sizeof value, 1, f), 1);
    assert_int_equal(fclose(f), 0);
}

/* What a type cannot hold is not made infinite on the quiet; what was none before is told. */
static void values_beyond_a_type(void **state) {
    static const struct {
        const char *type;
        float value;
        bool held;
    } cases[] = {{"F16", 65504, true},  {"F16", 1e6f, false}, {"BF16", 1e6f, true}, {"Q8_0", 1e6f, true},
                 {"Q4_0", 1e6f, false}, {"Q4_K", 1e9f, false}};
    const char *tensor = "blk.1.ffn_up_shexp.weight";
    for (size_t i = 0; i < QSI_COUNT(cases); i++) {
        qs_err err = {0};
        make(SRC, "F32");
        put_last(tensor, cases[i].value);
        qs_status st = convert(SRC, DST, cases[i].type, &err);
        if (st != (cases[i].held ? QS_OK : QS_E_RANGE)) fail_msg("%s: %s", cases[i].type, err.text);
        assert_true(cases[i].held == qsi_path_exists(DST));
        if (!cases[i].held)
            assert_true(strstr(err.text, tensor) && strstr(err.text, cases[i].type));
        remove(DST);
        remove(DST ".part");
        remove(DST ".part.journal");
    }
    qs_err err = {0};
    put_last(tensor, -65520);
    qsi_gguf *g = NULL;
    qsi_hf_export_opts o = {.type = QSI_F16};
    assert_int_equal(qsi_gguf_open(&g, SRC, &err), QS_OK);
    assert_int_equal(qsi_hf_export(g, "test_convert.tmp.d", &o, &err), QS_E_RANGE);
    assert_non_null(strstr(err.text, "too large for F16"));
    qsi_gguf_close(&g);
    remove("test_convert.tmp.d/model.safetensors.part");
    remove("test_convert.tmp.d/model.safetensors.part.journal");
    assert_int_equal(remove("test_convert.tmp.d"), 0);
    put_last(tensor, INFINITY);
    qsi_log_set(count, NULL);
    assert_int_equal(convert(SRC, DST, "Q8_0", &err), QS_OK);
    qsi_log_set(NULL, NULL);
    assert_int_equal(n_warnings, 1);
    remove(SRC);
    remove(DST);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(quantised_as_init_does),
        cmocka_unit_test(split_files_become_one),
        cmocka_unit_test(incomplete_is_refused),
        cmocka_unit_test(check_writes_nothing),
        cmocka_unit_test(nonsense_is_refused),
        cmocka_unit_test(values_beyond_a_type),
    };
    return cmocka_run_group_tests(tests, tmp_enter, tmp_leave);
}
