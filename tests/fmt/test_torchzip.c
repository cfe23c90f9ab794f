/* Files that torch.save wrote (tests/golden/torch), and what damage to them gives. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "fmt/safetensors.h"
#include "fmt/torchzip.h"
#include "sys/file.h"

static const char *golden;

static void load(const char *name, qsi_str *out) {
    char path[1024];
    qs_err err = {0};
    snprintf(path, sizeof path, "%s/%s", golden, name);
    assert_int_equal(qsi_file_read(path, 1 << 20, out, &err), QS_OK);
}

static const qsi_st_tensor *find(const qsi_st *s, const char *name, const char *dtype, int n_dims,
                                 int64_t n) {
    const qsi_st_tensor *t = qsi_st_find(s, name);
    if (t == NULL) fail_msg("no tensor %s", name);
    assert_string_equal(t->dtype, dtype);
    assert_int_equal(t->n_dims, n_dims);
    assert_int_equal(t->n, n);
    return t;
}

static void every_kind_of_entry(void **state) {
    char path[1024];
    qsi_st *s = NULL;
    qs_err err = {0};
    float f[6];
    uint16_t h[12];
    int64_t ids[2];
    snprintf(path, sizeof path, "%s/plain.bin", golden);
    assert_int_equal(qsi_st_open(&s, path, &err), QS_OK);
    assert_int_equal(qsi_st_n_tensors(s), 10);
    const qsi_st_tensor *t = find(s, "weight", "F32", 2, 6);
    assert_int_equal(t->shape[0], 2);
    assert_int_equal(t->shape[1], 3);
    memcpy(f, t->data, sizeof f);
    for (int i = 0; i < 6; i++) assert_true(f[i] == (float)i);
    memcpy(f, find(s, "bias", "F32", 1, 2)->data, 8);
    assert_true(f[0] == -1.0f && f[1] == 0.5f);
    memcpy(h, find(s, "half", "F16", 2, 12)->data, sizeof h);
    for (int i = 0; i < 12; i++) assert_true(qsi_f16_to_f32(h[i]) == (float)(i + 4));
    memcpy(h, find(s, "brain", "BF16", 1, 2)->data, 4);
    assert_true(qsi_bf16_to_f32(h[0]) == 1.0f && qsi_bf16_to_f32(h[1]) == -2.5f);
    memcpy(ids, find(s, "ids", "I64", 2, 2)->data, sizeof ids);
    assert_true(ids[0] == 7 && ids[1] == -9);
    assert_int_equal(find(s, "flags", "BOOL", 1, 2)->data[0], 1);
    find(s, "empty", "F32", 2, 0);
    memcpy(f, find(s, "one", "F32", 0, 1)->data, 4);
    assert_true(f[0] == 3.25f);
    assert_ptr_equal(find(s, "tied", "F32", 2, 6)->data, qsi_st_find(s, "weight")->data);
    memcpy(f, find(s, "parameter", "F32", 1, 1)->data, 4);
    assert_true(f[0] == 8.0f);
    qsi_st_close(&s);
}

static void refuse(const char *name, qs_status code, const char *says) {
    qsi_str file = {0};
    qsi_st *s = NULL;
    qs_err err = {0};
    load(name, &file);
    assert_int_equal(qsi_st_open_mem(&s, file.data, file.len, &err), code);
    if (strstr(err.text, says) == NULL) fail_msg("%s: '%s' does not say '%s'", name, err.text, says);
    assert_null(s);
    qsi_str_release(&file);
}

static void what_is_refused(void **state) {
    refuse("evil.bin", QS_E_UNSUPPORTED, "asks for posix.system");
    refuse("strided.bin", QS_E_UNSUPPORTED, "contiguous");
    refuse("nested.bin", QS_E_UNSUPPORTED, "entry model of the dictionary is no tensor");
    refuse("legacy.bin", QS_E_FORMAT, "before version 1.6");
}

static void try_bytes(const uint8_t *p, size_t n, const char *what, size_t at) {
    qsi_st *s = NULL;
    qs_err err = {0};
    uint8_t *copy = malloc(n > 0 ? n : 1);
    volatile uint64_t sum = 0;
    assert_non_null(copy);
    memcpy(copy, p, n);
    if (qsi_st_open_mem(&s, copy, n, &err) == QS_OK) {
        for (size_t i = 0; i < qsi_st_n_tensors(s); i++) {
            const qsi_st_tensor *t = qsi_st_at(s, i);
            for (size_t k = 0; k < t->bytes; k++) sum += t->data[k];
        }
    } else if (err.text[0] == '\0' || s != NULL) {
        fail_msg("%s at %zu: no message", what, at);
    }
    qsi_st_close(&s);
    free(copy);
}

static void damage_gives_a_message(void **state) {
    qsi_str file = {0};
    load("plain.bin", &file);
    uint8_t *p = (uint8_t *)file.data;
    for (size_t n = 0; n < file.len; n++) try_bytes(p, n, "cut", n);
    for (size_t i = 0; i < file.len; i++) {
        uint8_t old = p[i];
        for (int k = 0; k < 4; k++) {
            p[i] = (uint8_t)(k == 0 ? 0xff : k == 1 ? 0 : old ^ (k == 2 ? 1 : 0x80));
            try_bytes(p, file.len, "byte", i);
        }
        p[i] = old;
    }
    qsi_str_release(&file);
}

static void cut_files_say_so(void **state) {
    qsi_str file = {0};
    qsi_st *s = NULL;
    qs_err err = {0};
    load("plain.bin", &file);
    assert_int_equal(qsi_st_open_mem(&s, file.data, file.len / 2, &err), QS_E_FORMAT);
    assert_non_null(strstr(err.text, "truncated download?"));
    qsi_str_release(&file);
}

static void memory_runs_out(void **state) {
    qsi_str file = {0};
    load("plain.bin", &file);
    for (int n = 0; n < 400; n++) {
        qsi_st *s = NULL;
        qs_err err = {0};
        qsi_mem_fail_after(n);
        qs_status st = qsi_st_open_mem(&s, file.data, file.len, &err);
        qsi_mem_fail_after(-1);
        assert_true(st == QS_OK || st == QS_E_NOMEM);
        assert_true((st == QS_OK) == (s != NULL));
        qsi_st_close(&s);
    }
    qsi_str_release(&file);
}

int main(int argc, char **argv) {
    if (argc != 2) return 2;
    golden = argv[1];
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kind_of_entry), cmocka_unit_test(what_is_refused),
        cmocka_unit_test(damage_gives_a_message), cmocka_unit_test(cut_files_say_so),
        cmocka_unit_test(memory_runs_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
