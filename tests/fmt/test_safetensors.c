/* Reading safetensors: single files, shards, and every way their headers can lie. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../sys/tmpdir.h"
#include "base/mem.h"
#include "fmt/safetensors.h"
#include "sys/file.h"

#define FOLDER "test_safetensors.tmp"

typedef struct file {
    uint8_t p[4096];
    size_t n;
} file;

/* Header length, header, n_data bytes 0, 1, 2, ... */
static void make(file *f, const char *header, size_t n_data) {
    size_t n = strlen(header);
    for (int i = 0; i < 8; i++) f->p[i] = (uint8_t)((uint64_t)n >> (8 * i));
    memcpy(f->p + 8, header, n);
    for (size_t i = 0; i < n_data; i++) f->p[8 + n + i] = (uint8_t)i;
    f->n = 8 + n + n_data;
}

static qs_status open_copy(const uint8_t *p, size_t n, qsi_st **s, uint8_t **copy, qs_err *err) {
    *copy = malloc(n > 0 ? n : 1);
    assert_non_null(*copy);
    memcpy(*copy, p, n);
    *err = (qs_err){0};
    return qsi_st_open_mem(s, *copy, n, err);
}

static volatile uint64_t sink;
static void walk(const qsi_st *s) {
    for (size_t i = 0; i < qsi_st_n_tensors(s); i++) {
        const qsi_st_tensor *t = qsi_st_at(s, i);
        assert_ptr_equal(qsi_st_find(s, t->name), t);
        for (size_t k = 0; k < t->bytes; k++) sink += t->data[k];
    }
}

static void expect_refusal(const char *header, size_t n_data, qs_status code, const char *says) {
    file f;
    qsi_st *s = NULL;
    uint8_t *copy = NULL;
    qs_err err;
    make(&f, header, n_data);
    qs_status st = open_copy(f.p, f.n, &s, &copy, &err);
    if (st != code || strstr(err.text, says) == NULL) {
        fail_msg("%s: status %d, '%s'; expected %d, '%s'", header, (int)st, err.text, (int)code,
                 says);
    }
    for (const char *p = err.text; *p; p++) assert_true((uint8_t)*p >= 0x20);
    assert_null(s);
    free(copy);
}

static const char sound[] =
    "{\"__metadata__\":{\"format\":\"pt\"},"
    "\"b\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[4,28]},"
    "\"a\":{\"dtype\":\"BF16\",\"shape\":[2],\"data_offsets\":[0,4]},"
    "\"none\":{\"dtype\":\"I64\",\"shape\":[0,5],\"data_offsets\":[28,28]},"
    "\"one\":{\"dtype\":\"F8_E4M3\",\"shape\":[],\"data_offsets\":[28,29]}}   ";

static void a_sound_file(void **state) {
    file f;
    qsi_st *s = NULL;
    uint8_t *copy = NULL;
    qs_err err;
    make(&f, sound, 29);
    assert_int_equal(open_copy(f.p, f.n, &s, &copy, &err), QS_OK);
    walk(s);
    assert_int_equal(qsi_st_n_tensors(s), 4);
    assert_int_equal(qsi_st_n_shards(s), 1);
    const qsi_st_tensor *b = qsi_st_find(s, "b"), *none = qsi_st_find(s, "none");
    assert_true(b->type == QSI_F32 && b->n_dims == 2 && b->shape[0] == 2 && b->shape[1] == 3);
    assert_true(b->n == 6 && b->bytes == 24 && b->data[0] == 4);
    assert_string_equal(b->dtype, "F32");
    assert_true(none->n == 0 && none->bytes == 0);
    const qsi_st_tensor *one = qsi_st_find(s, "one");
    assert_true(one->n_dims == 0 && one->n == 1 && one->type == QSI_TYPE_NONE);
    assert_null(qsi_st_find(s, "__metadata__"));
    qsi_st_close(&s);
    qsi_st_close(&s);
    free(copy);
}

static void every_truncation_is_refused(void **state) {
    file f;
    make(&f, sound, 29);
    for (size_t n = 0; n < f.n; n++) {
        qsi_st *s = NULL;
        uint8_t *copy = NULL;
        qs_err err;
        assert_int_equal(open_copy(f.p, n, &s, &copy, &err), QS_E_FORMAT);
        assert_true(err.text[0] != '\0');
        free(copy);
    }
}

static void every_changed_byte_is_survived(void **state) {
    static const uint8_t values[] = {0,   1,   9,   '"', '0', '9',  ',',  '[',
                                     ']', '{', '}', '-', 'e', 0x7f, 0x80, 0xff};
    file f;
    size_t opened = 0, refused = 0;
    make(&f, sound, 29);
    for (size_t at = 0; at < f.n; at++) {
        uint8_t was = f.p[at];
        for (size_t v = 0; v < sizeof values; v++) {
            qsi_st *s = NULL;
            uint8_t *copy = NULL;
            qs_err err;
            f.p[at] = values[v];
            if (open_copy(f.p, f.n, &s, &copy, &err) == QS_OK) {
                opened++;
                walk(s);
            } else {
                refused++;
                assert_true(err.code != QS_E_NOMEM && err.text[0] != '\0');
            }
            qsi_st_close(&s);
            free(copy);
        }
        f.p[at] = was;
    }
    assert_true(opened > 300 && refused > 1000);
}

#define T(shape, dtype, from, to)                                                                  \
    "{\"t\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[" from "," to "]}}"

static void lies_are_refused(void **state) {
    expect_refusal("[1]", 0, QS_E_FORMAT, "not a safetensors");
    expect_refusal("{\"t\":1}", 0, QS_E_NOTFOUND, "dtype");
    expect_refusal("{\"t\":{}}", 0, QS_E_NOTFOUND, "dtype");
    expect_refusal("{\"t\":{\"dtype\":7}}", 0, QS_E_FORMAT, "dtype");
    expect_refusal("{", 0, QS_E_FORMAT, "");
    expect_refusal("{} x", 0, QS_E_FORMAT, "JSON");
    expect_refusal("{}", 1, QS_E_FORMAT, "the file has 1");
    expect_refusal(T("[1]", "F32", "0", "4") " ", 0, QS_E_FORMAT, "truncated");
    expect_refusal(T("[1]", "F32", "0", "4"), 8, QS_E_FORMAT, "the file has 8");
    expect_refusal(T("[1]", "F32", "4", "8"), 8, QS_E_FORMAT, "hole");
    expect_refusal(T("[2]", "F32", "0", "4"), 4, QS_E_FORMAT, "shape needs 8");
    expect_refusal(T("[1]", "F32", "4", "0"), 4, QS_E_FORMAT, "data_offsets");
    expect_refusal(T("[1]", "F32", "-4", "0"), 4, QS_E_FORMAT, "data_offsets");
    expect_refusal(T("[1]", "F32", "0.0", "4"), 4, QS_E_FORMAT, "data_offsets");
    expect_refusal(T("[1]", "F32", "0", "4,8"), 4, QS_E_FORMAT, "data_offsets");
    expect_refusal(T("[1]", "F32", "0", "9223372036854775807"), 4, QS_E_FORMAT, "truncated");
    expect_refusal(T("[1]", "F32", "0", "18446744073709551616"), 4, QS_E_FORMAT, "JSON");
    expect_refusal(T("[-1]", "F32", "0", "4"), 4, QS_E_FORMAT, "dimension 0");
    expect_refusal(T("[1.0]", "F32", "0", "4"), 4, QS_E_FORMAT, "dimension 0");
    expect_refusal(T("[\"1\"]", "F32", "0", "4"), 4, QS_E_FORMAT, "dimension 0");
    expect_refusal(T("{}", "F32", "0", "4"), 4, QS_E_FORMAT, "shape");
    expect_refusal(T("[1,1,1,1,1,1,1,1,1]", "F32", "0", "4"), 4, QS_E_FORMAT, "shape");
    expect_refusal(T("[4398046511105,4398046511105]", "F32", "0", "4"), 4, QS_E_FORMAT,
                   "overflows");
    expect_refusal(T("[2305843009213693953]", "F64", "0", "8"), 8, QS_E_FORMAT, "overflows");
    expect_refusal(T("[1]", "F4", "0", "4"), 4, QS_E_UNSUPPORTED, "F4");
    expect_refusal(T("[1]", "\\u001b[31m", "0", "4"), 4, QS_E_UNSUPPORTED, "dtype");
    expect_refusal("{\"\":{}}", 0, QS_E_FORMAT, "name");
    expect_refusal("{\"a\\u001bb\":{}}", 0, QS_E_FORMAT, "name");
    expect_refusal("{\"a\":{},\"a\":{}}", 0, QS_E_FORMAT, "duplicate");
    expect_refusal("{\"a\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[0,3]},"
                   "\"b\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[2,5]}}", 5, QS_E_FORMAT,
                   "overlap");
    expect_refusal("{\"a\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[0,3]},"
                   "\"b\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[0,3]}}", 3, QS_E_FORMAT,
                   "overlap");
}

static void lengths_beyond_the_file(void **state) {
    static const uint64_t claims[] = {3, 1 << 20, 100 << 20, (100 << 20) + 1, (uint64_t)1 << 40,
                                      UINT64_MAX, UINT64_MAX - 7};
    for (size_t i = 0; i < QSI_COUNT(claims); i++) {
        uint8_t p[10] = {[8] = '{', [9] = '}'};
        qsi_st *s = NULL;
        uint8_t *copy = NULL;
        qs_err err;
        for (int k = 0; k < 8; k++) p[k] = (uint8_t)(claims[i] >> (8 * k));
        assert_int_equal(open_copy(p, sizeof p, &s, &copy, &err), QS_E_FORMAT);
        free(copy);
    }
}

static void other_files_are_named(void **state) {
    static const struct { const char *p; size_t n; const char *says; } cases[] = {
        {"", 0, "0 bytes"}, {"GGUF\3\0\0\0\0\0\0\0", 12, "GGUF"}, {"PK\3\4aaaaaaaa", 12, "archive"},
        {"version https://git-lfs", 23, "LFS"},
    };
    for (size_t i = 0; i < QSI_COUNT(cases); i++) {
        qsi_st *s = NULL;
        uint8_t *copy = NULL;
        qs_err err;
        assert_int_equal(
            open_copy((const uint8_t *)cases[i].p, cases[i].n, &s, &copy, &err), QS_E_FORMAT);
        assert_non_null(strstr(err.text, cases[i].says));
        free(copy);
    }
}

static void write_file(const char *name, const void *p, size_t n) {
    char path[128];
    snprintf(path, sizeof path, FOLDER "/%s", name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(p, 1, n, f), n);
    fclose(f);
}

static void write_text(const char *name, const char *text) { write_file(name, text, strlen(text)); }

static void folders(void **state) {
    qs_err err = {0};
    qsi_st *s = NULL;
    file f;
    tmp_remove(FOLDER);
    assert_int_equal(qsi_make_dirs(FOLDER, &err), QS_OK);
    assert_int_equal(qsi_st_open(&s, FOLDER, &err), QS_E_NOTFOUND);
    make(&f, sound, 29);
    write_file("model.safetensors", f.p, f.n);
    assert_int_equal(qsi_st_open(&s, FOLDER, &err), QS_OK);
    walk(s);
    assert_int_equal(qsi_st_bytes(s), f.n);
    qsi_st_drop(s, qsi_st_find(s, "b"));
    qsi_st_close(&s);
    assert_int_equal(qsi_st_open(&s, FOLDER "/model.safetensors", &err), QS_OK);
    qsi_st_close(&s);
    make(&f, T("[1]", "F32", "0", "4"), 4);
    write_file("m-1.safetensors", f.p, f.n);
    make(&f, "{\"u\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[0,3]}}", 3);
    write_file("m-2.safetensors", f.p, f.n);
    write_text("model.safetensors.index.json",
               "{\"metadata\":{\"total_size\":7},\"weight_map\":{\"u\":\"m-2.safetensors\","
               "\"t\":\"m-1.safetensors\"}}");
    assert_int_equal(qsi_st_open(&s, FOLDER, &err), QS_OK);
    walk(s);
    assert_int_equal(qsi_st_n_shards(s), 2);
    assert_int_equal(qsi_st_n_tensors(s), 2);
    assert_true(qsi_st_find(s, "t")->shard != qsi_st_find(s, "u")->shard);
    qsi_st_close(&s);
    assert_int_equal(qsi_st_open(&s, FOLDER "/model.safetensors.index.json", &err), QS_OK);
    qsi_st_close(&s);
    static const struct { const char *index, *says; } bad[] = {
        {"{}", "weight_map"},
        {"{\"weight_map\":{}}", "weight_map"},
        {"{\"weight_map\":[]}", "weight_map"},
        {"{\"weight_map\":{\"t\":\"../m-1.safetensors\"}}", "plain file name"},
        {"{\"weight_map\":{\"t\":\"/etc/passwd\"}}", "plain file name"},
        {"{\"weight_map\":{\"t\":\"..\"}}", "plain file name"},
        {"{\"weight_map\":{\"t\":1}}", "plain file name"},
        {"{\"weight_map\":{\"t\":\"m-3.safetensors\"}}", "m-3.safetensors"},
        {"{\"weight_map\":{\"t\":\"m-2.safetensors\"}}", "does not"},
        {"{\"weight_map\":{\"t\":\"m-1.safetensors\",\"x\":\"m-2.safetensors\"}}", "tensor x"},
        {"{\"weight_map\":{\"t\":\"m-1.safetensors\",\"u\":\"m-1.safetensors\"}}", "tensor u"},
        {"{\"weight_map\":{\"t\":\"m-2.safetensors\",\"u\":\"m-1.safetensors\"}}", "does not"},
        {"{\"weight_map\":{\"t\":\"m-1.safetensors\"}", "JSON"},
    };
    for (size_t i = 0; i < QSI_COUNT(bad); i++) {
        write_text("model.safetensors.index.json", bad[i].index);
        assert_int_not_equal(qsi_st_open(&s, FOLDER, &err), QS_OK);
        if (strstr(err.text, bad[i].says) == NULL) {
            fail_msg("case %zu: '%s' does not say '%s'", i, err.text, bad[i].says);
        }
        assert_null(s);
    }
    make(&f, T("[3]", "U8", "0", "3"), 3);
    write_file("m-2.safetensors", f.p, f.n);
    write_text("model.safetensors.index.json",
               "{\"weight_map\":{\"t\":\"m-1.safetensors\",\"u\":\"m-2.safetensors\"}}");
    assert_int_equal(qsi_st_open(&s, FOLDER, &err), QS_E_FORMAT);
    assert_non_null(strstr(err.text, "two files"));
    tmp_remove(FOLDER);
}

static void memory_runs_out(void **state) {
    file f;
    make(&f, sound, 29);
    for (int64_t n = 1; n < 100; n++) {
        qsi_st *s = NULL;
        uint8_t *copy = NULL;
        qs_err err;
        qsi_mem_fail_after(n);
        qs_status st = open_copy(f.p, f.n, &s, &copy, &err);
        qsi_mem_fail_after(-1);
        qsi_st_close(&s);
        free(copy);
        if (st == QS_OK) return;
        assert_int_equal(st, QS_E_NOMEM);
    }
    fail_msg("it never succeeded");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_sound_file),
        cmocka_unit_test(every_truncation_is_refused),
        cmocka_unit_test(every_changed_byte_is_survived),
        cmocka_unit_test(lies_are_refused),
        cmocka_unit_test(lengths_beyond_the_file),
        cmocka_unit_test(other_files_are_named),
        cmocka_unit_test(folders),
        cmocka_unit_test(memory_runs_out),
    };
    return cmocka_run_group_tests(tests, tmp_enter, tmp_leave);
}
