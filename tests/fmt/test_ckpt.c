/* Checkpoint files: round trip; every flipped byte and every cut is refused; abort leaves nothing. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/mem.h"
#include "fmt/ckpt.h"
#include "sys/file.h"
#include "../sys/tmpdir.h"

static const char *path;

static int setup(void **state) {
    int rc = tmp_setup(state);
    path = tmp_path("ckpt");
    return rc;
}

static void write_one(uint64_t *bytes, uint64_t *hash) {
    qsi_ckpt_writer *w = NULL;
    qs_err err = {0};
    const int64_t ne[2] = {3, 2}, none[1] = {0};
    const float x[6] = {1, -2, 3, 4.5f, 0, 1e-30f};
    assert_int_equal(qsi_ckpt_writer_open(&w, path, &err), QS_OK);
    assert_int_equal(qsi_ckpt_put_bytes(w, "state", "hello", 5, &err), QS_OK);
    assert_int_equal(qsi_ckpt_put_f32(w, "p/output.weight", 2, ne, x, &err), QS_OK);
    assert_int_equal(qsi_ckpt_put_f32(w, "empty", 1, none, x, &err), QS_OK);
    assert_int_equal(qsi_ckpt_put_bytes(w, "", "x", 1, &err), QS_E_ARG);
    assert_int_equal(qsi_ckpt_finish(&w, bytes, hash, &err), QS_OK);
}

static void round_trip(void **state) {
    (void)state;
    uint64_t bytes = 0, hash = 0;
    qsi_ckpt *c = NULL;
    qs_err err = {0};
    write_one(&bytes, &hash);
    assert_int_equal(qsi_ckpt_open(&c, path, &err), QS_OK);
    assert_int_equal(qsi_ckpt_hash(c), hash);
    assert_int_equal(qsi_ckpt_count(c), 3);
    const qsi_ckpt_entry *e = qsi_ckpt_find(c, "p/output.weight");
    assert_non_null(e);
    assert_int_equal(e->kind, QSI_CKPT_F32);
    assert_int_equal(e->ne[0], 3);
    assert_int_equal(e->ne[1], 2);
    assert_int_equal(e->bytes, 24);
    float x[6];
    memcpy(x, e->data, sizeof(x));
    assert_true(x[3] == 4.5f && x[5] == 1e-30f);
    e = qsi_ckpt_find(c, "state");
    assert_memory_equal(e->data, "hello", 5);
    assert_null(qsi_ckpt_find(c, "nothing"));
    assert_null(qsi_ckpt_find(c, "empty")->data);
    qsi_ckpt_close(&c);
    assert_null(c);
}

static void damage_is_refused(void **state) {
    (void)state;
    qsi_str bytes = {0};
    qs_err err = {0};
    qsi_ckpt *c = NULL;
    write_one(NULL, NULL);
    assert_int_equal(qsi_file_read(path, 1 << 20, &bytes, &err), QS_OK);
    uint8_t *copy = qsi_alloc(bytes.len, 1);
    size_t pads = 0;
    for (size_t n = 0; n < bytes.len; n++) {
        memcpy(copy, bytes.data, bytes.len);
        assert_int_not_equal(qsi_ckpt_open_mem(&c, copy, n, &err), QS_OK);
        for (int bit = 0; bit < 8; bit += 7) {
            memcpy(copy, bytes.data, bytes.len);
            copy[n] ^= (uint8_t)(1 << bit);
            if (qsi_ckpt_open_mem(&c, copy, bytes.len, &err) == QS_OK) {
                pads++; /* padding between values carries nothing */
                assert_int_equal(bytes.data[n], 0);
                qsi_ckpt_close(&c);
            }
        }
    }
    /* 59 bytes after "hello", 40 after the tensor; nothing else may go unnoticed */
    assert_int_equal(pads, 2 * (59 + 40));
    qsi_free(copy);
    qsi_str_release(&bytes);
}

static void aborted_leaves_nothing(void **state) {
    (void)state;
    qsi_ckpt_writer *w = NULL;
    qs_err err = {0};
    unlink(path);
    assert_int_equal(qsi_ckpt_writer_open(&w, path, &err), QS_OK);
    assert_int_equal(qsi_ckpt_put_bytes(w, "a", "b", 1, &err), QS_OK);
    qsi_ckpt_writer_abort(&w);
    assert_false(qsi_path_exists(path));
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(round_trip),
                                       cmocka_unit_test(damage_is_refused),
                                       cmocka_unit_test(aborted_leaves_nothing)};
    return cmocka_run_group_tests(tests, setup, tmp_teardown);
}
