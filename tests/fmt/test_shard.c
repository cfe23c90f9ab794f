/* Token shards: round trip with and without masks, every damaged byte and every cut is refused. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/mem.h"
#include "fmt/shard.h"
#include "../sys/tmpdir.h"

static const char *path;

static int setup(void **state) {
    int rc = tmp_setup(state);
    path = tmp_path("shard");
    return rc;
}

static void write_two(bool masked) {
    qs_err err = {0};
    qsi_shard_writer *w = NULL;
    const int32_t a[5] = {1, 2, 3, 4, 99}, b[3] = {7, 0, 7}, mask[5] = {0, 0, 1, 1, 0};
    assert_int_equal(qsi_shard_writer_open(&w, path, 0x1234, 100, 0x5678, &err), QS_OK);
    assert_int_equal(qsi_shard_put(w, a, masked ? mask : NULL, 5, 11, 0, &err), QS_OK);
    assert_int_equal(qsi_shard_put(w, b, NULL, 3, 22, 1, &err), QS_OK);
    const int32_t bad[1] = {100};
    assert_int_equal(qsi_shard_put(w, bad, NULL, 1, 0, 0, &err), QS_E_RANGE);
    assert_int_equal(qsi_shard_finish(&w, &err), QS_OK);
    assert_null(w);
}

static void round_trip(void **state) {
    (void)state;
    for (int masked = 0; masked < 2; masked++) {
        qsi_shard s;
        qs_err err = {0};
        write_two(masked);
        assert_int_equal(qsi_shard_open(&s, path, &err), QS_OK);
        assert_int_equal(s.vocab_hash, 0x1234);
        assert_int_equal(s.key, 0x5678);
        assert_int_equal(s.n_docs, 2);
        assert_int_equal(s.n_tokens, 8);
        assert_int_equal(s.ids[4], 99);
        assert_int_equal(s.ids[5], 7);
        assert_int_equal(s.begin[1], 5);
        assert_int_equal(s.hash[1], 22);
        assert_int_equal(s.source[1], 1);
        const bool want[8] = {!masked, !masked, true, true, !masked, true, true, true};
        for (int t = 0; t < 8; t++) assert_int_equal(qsi_shard_learned(&s, t), want[t]);
        qsi_shard_close(&s);
    }
}

static void many_documents(void **state) {
    (void)state;
    qsi_shard_writer *w = NULL;
    qsi_shard s;
    qs_err err = {0};
    int32_t ids[700];
    assert_int_equal(qsi_shard_writer_open(&w, path, 1, 700, 1, &err), QS_OK);
    for (int d = 0; d < 1500; d++) { /* about 2 MB: several checksum pieces */
        size_t n = (size_t)(d % 699) + 1;
        for (size_t i = 0; i < n; i++) ids[i] = (int32_t)((i * 7 + (size_t)d) % 700);
        assert_int_equal(qsi_shard_put(w, ids, NULL, n, (uint64_t)d, 0, &err), QS_OK);
    }
    assert_int_equal(qsi_shard_finish(&w, &err), QS_OK);
    assert_int_equal(qsi_shard_open(&s, path, &err), QS_OK);
    for (int d = 0; d < 1500; d++) {
        assert_int_equal(s.begin[d + 1] - s.begin[d], d % 699 + 1);
        assert_int_equal(s.ids[s.begin[d]], d % 700);
    }
    qsi_shard_close(&s);
}

static void damage_is_refused(void **state) {
    (void)state;
    qsi_str bytes = {0};
    qs_err err = {0};
    write_two(true);
    assert_int_equal(qsi_file_read(path, 1 << 20, &bytes, &err), QS_OK);
    uint8_t *copy = qsi_alloc(bytes.len, 1);
    qsi_shard s;
    for (size_t n = 0; n < bytes.len; n++) {
        memcpy(copy, bytes.data, bytes.len);
        assert_int_not_equal(qsi_shard_open_mem(&s, copy, n, &err), QS_OK);
        if (n >= 16 && n < 24) continue; /* the vocabulary's hash is the reader's to compare */
        if (n >= 48 && n < 56) continue; /* and so is the key */
        copy[n] ^= 0x40;
        qs_status st = qsi_shard_open_mem(&s, copy, bytes.len, &err);
        if (n >= 24 && n < 28 && st == QS_OK) continue; /* a larger vocabulary holds the ids too */
        assert_int_not_equal(st, QS_OK);
    }
    qsi_free(copy);
    qsi_str_release(&bytes);
}

static void aborted_leaves_nothing(void **state) {
    (void)state;
    qsi_shard_writer *w = NULL;
    qs_err err = {0};
    const int32_t a[2] = {1, 2};
    unlink(path);
    assert_int_equal(qsi_shard_writer_open(&w, path, 1, 3, 1, &err), QS_OK);
    assert_int_equal(qsi_shard_put(w, a, NULL, 2, 0, 0, &err), QS_OK);
    qsi_shard_writer_abort(&w);
    assert_false(qsi_path_exists(path));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trip), cmocka_unit_test(many_documents),
        cmocka_unit_test(damage_is_refused), cmocka_unit_test(aborted_leaves_nothing)};
    return cmocka_run_group_tests(tests, setup, tmp_teardown);
}
