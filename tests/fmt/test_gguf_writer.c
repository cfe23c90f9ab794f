/* Writing GGUF: what is put comes back, misuse is refused and leaves no file. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "../sys/tmpdir.h"
#include "fmt/gguf.h"
#include "sys/file.h"

#define TEMP "test_gguf_writer.tmp.gguf"
#define COPY "test_gguf_writer.copy.gguf"

static qsi_gguf_writer *begin(void) {
    qsi_gguf_writer *w = NULL;
    qs_err err = {0};
    remove(TEMP);
    assert_int_equal(qsi_gguf_writer_open(&w, TEMP, &err), QS_OK);
    return w;
}

static void put_all(qsi_gguf_writer *w) {
    static const int32_t ints[] = {1, -2, INT32_MIN};
    static const float floats[] = {1.5f, -0.0f};
    static const qsi_slice words[] = {{"a", 1}, {"", 0}, {"求索\0x", 8}};
    assert_int_equal(qsi_gguf_put_u32(w, "u32", UINT32_MAX), QS_OK);
    assert_int_equal(qsi_gguf_put_i32(w, "i32", -7), QS_OK);
    assert_int_equal(qsi_gguf_put_u64(w, "u64", INT64_MAX), QS_OK);
    assert_int_equal(qsi_gguf_put_f32(w, "f32", 0.1f), QS_OK);
    assert_int_equal(qsi_gguf_put_bool(w, "bool", true), QS_OK);
    assert_int_equal(qsi_gguf_put_str(w, "str", "词", 3), QS_OK);
    assert_int_equal(qsi_gguf_put_arr_i32(w, "ints", ints, 3), QS_OK);
    assert_int_equal(qsi_gguf_put_arr_f32(w, "floats", floats, 2), QS_OK);
    assert_int_equal(qsi_gguf_put_arr_str(w, "words", words, 3), QS_OK);
    assert_int_equal(qsi_gguf_put_arr_i32(w, "none", NULL, 0), QS_OK);
}

static void check_all(const qsi_gguf *g) {
    int64_t n = 0;
    double x = 0;
    bool b = false;
    qsi_slice s = {0};
    assert_int_equal(qsi_gguf_i64(g, "u32", &n, NULL), QS_OK);
    assert_true(n == UINT32_MAX);
    assert_int_equal(qsi_gguf_i64(g, "i32", &n, NULL), QS_OK);
    assert_true(n == -7);
    assert_int_equal(qsi_gguf_i64(g, "u64", &n, NULL), QS_OK);
    assert_true(n == INT64_MAX);
    assert_int_equal(qsi_gguf_f64(g, "f32", &x, NULL), QS_OK);
    assert_true(x == (double)0.1f);
    assert_int_equal(qsi_gguf_bool(g, "bool", &b, NULL), QS_OK);
    assert_true(b);
    assert_int_equal(qsi_gguf_str(g, "str", &s, NULL), QS_OK);
    assert_true(s.n == 3 && memcmp(s.p, "词", 3) == 0);
    assert_true(qsi_gguf_arr_i64(qsi_gguf_find(g, "ints"), 2) == INT32_MIN);
    assert_true(qsi_gguf_arr_f64(qsi_gguf_find(g, "floats"), 0) == 1.5);
    s = qsi_gguf_arr_str(qsi_gguf_find(g, "words"), 2);
    assert_true(s.n == 8 && memcmp(s.p, "求索\0x", 8) == 0);
    assert_int_equal(qsi_gguf_find(g, "none")->count, 0);
}

static void what_is_written_is_read(void **state) {
    static const int64_t ne_a[] = {32, 3}, ne_b[] = {5}, ne_c[] = {2, 2, 2, 2};
    uint8_t data[102 + 20 + 32];
    qs_err err = {0};
    qsi_gguf *g = NULL;
    qsi_gguf_writer *w = begin();
    for (size_t i = 0; i < sizeof data; i++) data[i] = (uint8_t)(i * 7);
    put_all(w);
    assert_int_equal(qsi_gguf_declare(w, "a.weight", QSI_Q8_0, 2, ne_a, &err), QS_OK);
    assert_int_equal(qsi_gguf_declare(w, "b.weight", QSI_F32, 1, ne_b, &err), QS_OK);
    assert_int_equal(qsi_gguf_declare(w, "c.weight", QSI_F16, 4, ne_c, &err), QS_OK);
    for (size_t at = 0; at < sizeof data; at += 11) { /* pieces that cross tensors */
        size_t n = sizeof data - at < 11 ? sizeof data - at : 11;
        assert_int_equal(qsi_gguf_write(w, data + at, n, &err), QS_OK);
    }
    assert_false(qsi_path_exists(TEMP)); /* only at finish */
    assert_int_equal(qsi_gguf_finish(&w, &err), QS_OK);
    assert_null(w);
    assert_int_equal(qsi_gguf_open(&g, TEMP, &err), QS_OK);
    check_all(g);
    assert_int_equal(qsi_gguf_size(g) % 32, 0);
    const qsi_gguf_tensor *a = qsi_gguf_tensor_find(g, "a.weight");
    const qsi_gguf_tensor *b = qsi_gguf_tensor_find(g, "b.weight");
    const qsi_gguf_tensor *c = qsi_gguf_tensor_find(g, "c.weight");
    assert_true(a->type == QSI_Q8_0 && a->ne[0] == 32 && a->ne[1] == 3 && a->bytes == 102);
    assert_memory_equal(a->data, data, 102);
    assert_memory_equal(b->data, data + 102, 20);
    assert_true(c->n_dims == 4 && c->bytes == 32);
    assert_memory_equal(c->data, data + 122, 32);
    /* copied keys equal the originals */
    assert_int_equal(qsi_gguf_writer_open(&w, COPY, &err), QS_OK);
    for (size_t i = 0; i < qsi_gguf_n_kv(g); i++) {
        assert_int_equal(qsi_gguf_put_copy(w, qsi_gguf_kv_at(g, i)), QS_OK);
    }
    assert_int_equal(qsi_gguf_finish(&w, &err), QS_OK);
    qsi_gguf_close(&g);
    assert_int_equal(qsi_gguf_open(&g, COPY, &err), QS_OK);
    check_all(g);
    assert_int_equal(qsi_gguf_n_tensors(g), 0);
    qsi_gguf_close(&g);
    remove(COPY);
    remove(TEMP);
}

static void missing_bytes_leave_no_file(void **state) {
    static const int64_t ne[] = {4};
    qs_err err = {0};
    qsi_gguf_writer *w = begin();
    assert_int_equal(qsi_gguf_declare(w, "a", QSI_F32, 1, ne, &err), QS_OK);
    assert_int_equal(qsi_gguf_write(w, "123456789", 9, &err), QS_OK);
    assert_int_equal(qsi_gguf_finish(&w, &err), QS_E_STATE);
    assert_non_null(strstr(err.text, "tensor a: 9 of 16 bytes"));
    assert_null(w);
    assert_false(qsi_path_exists(TEMP));
    w = begin();
    qsi_gguf_writer_abort(&w);
    assert_null(w);
    assert_false(qsi_path_exists(TEMP));
}

static void too_many_bytes_are_refused(void **state) {
    static const int64_t ne[] = {1};
    qs_err err = {0};
    qsi_gguf_writer *w = begin();
    assert_int_equal(qsi_gguf_declare(w, "a", QSI_F32, 1, ne, &err), QS_OK);
    assert_int_equal(qsi_gguf_write(w, "12345", 5, &err), QS_E_STATE);
    qsi_gguf_writer_abort(&w);
}

static void wrong_declarations_are_refused_and_stick(void **state) {
    static const int64_t ok[] = {32}, odd[] = {33}, none[] = {0}, minus[] = {4, -1};
    static const int64_t huge[] = {INT64_MAX / 2, 4};
    static const struct {
        const char *name;
        qsi_type type;
        int n_dims;
        const int64_t *ne;
    } bad[] = {
        {"", QSI_F32, 1, ok},
        {"a\n", QSI_F32, 1, ok},
        {"a", QSI_F32, 0, ok},
        {"a", QSI_F32, 5, ok},
        {"a", QSI_Q8_0, 1, odd},
        {"a", QSI_F32, 1, none},
        {"a", QSI_F32, 2, minus},
        {"a", QSI_F32, 2, huge},
        {"a", (qsi_type)5, 1, ok},
        {"0123456789012345678901234567890123456789012345678901234567890123", QSI_F32, 1, ok},
    };
    for (size_t i = 0; i < QSI_COUNT(bad); i++) {
        qs_err err = {0};
        qsi_gguf_writer *w = begin();
        assert_int_equal(
            qsi_gguf_declare(w, bad[i].name, bad[i].type, bad[i].n_dims, bad[i].ne, &err),
            QS_E_ARG);
        assert_true(err.text[0] != '\0');
        assert_int_equal(qsi_gguf_finish(&w, &err), QS_E_ARG); /* a forgotten failure is not lost */
        assert_false(qsi_path_exists(TEMP));
    }
    qs_err err = {0};
    qsi_gguf_writer *w = begin();
    assert_int_equal(qsi_gguf_declare(w, "a", QSI_F32, 1, ok, &err), QS_OK);
    assert_int_equal(qsi_gguf_declare(w, "a", QSI_F32, 1, ok, &err), QS_E_ARG);
    qsi_gguf_writer_abort(&w);
    w = begin();
    assert_int_equal(qsi_gguf_put_u32(w, "k", 1), QS_OK);
    assert_int_equal(qsi_gguf_put_u32(w, "k", 2), QS_E_ARG);
    assert_int_equal(qsi_gguf_finish(&w, &err), QS_E_ARG);
    w = begin();
    assert_int_equal(qsi_gguf_declare(w, "a", QSI_F32, 1, ok, &err), QS_OK);
    assert_int_equal(qsi_gguf_write(w, "x", 1, &err), QS_OK);
    assert_int_equal(qsi_gguf_put_u32(w, "late", 1), QS_E_STATE);
    assert_int_equal(qsi_gguf_declare(w, "late", QSI_F32, 1, ok, &err), QS_E_STATE);
    qsi_gguf_writer_abort(&w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_is_read),
        cmocka_unit_test(missing_bytes_leave_no_file),
        cmocka_unit_test(too_many_bytes_are_refused),
        cmocka_unit_test(wrong_declarations_are_refused_and_stick),
    };
    return cmocka_run_group_tests(tests, tmp_enter, tmp_leave);
}
