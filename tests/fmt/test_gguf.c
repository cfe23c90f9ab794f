/* Reading GGUF: a sound file gives what stands in it; every kind of damage is refused with its
 * reason, at once and without large memory; no damage at all makes the reader misbehave. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>

#include "../sys/tmpdir.h"
#include "base/mem.h"
#include "gguf_bytes.h"

/* Opens a copy that ends exactly where the bytes end, so that sanitizers see any read beyond. */
static qs_status open_copy(const uint8_t *p, size_t n, qsi_gguf **g, uint8_t **copy, qs_err *err) {
    *copy = malloc(n > 0 ? n : 1);
    assert_non_null(*copy);
    memcpy(*copy, p, n);
    *err = (qs_err){0};
    return qsi_gguf_open_mem(g, *copy, n, err);
}

static volatile uint64_t sink;

/* Touches everything an open file offers. */
static void walk(const qsi_gguf *g) {
    for (size_t i = 0; i < qsi_gguf_n_kv(g); i++) {
        const qsi_gguf_kv *kv = qsi_gguf_kv_at(g, i);
        int64_t n = 0;
        double x = 0;
        bool b = false;
        qsi_slice s = {0};
        assert_ptr_equal(qsi_gguf_find(g, kv->key), kv);
        if (qsi_gguf_i64(g, kv->key, &n, NULL) == QS_OK) sink += (uint64_t)n;
        if (qsi_gguf_f64(g, kv->key, &x, NULL) == QS_OK) sink += x > 0;
        if (qsi_gguf_bool(g, kv->key, &b, NULL) == QS_OK) sink += b;
        if (qsi_gguf_str(g, kv->key, &s, NULL) == QS_OK) {
            for (size_t k = 0; k < s.n; k++) sink += (uint8_t)s.p[k];
        }
        for (uint64_t k = 0; kv->type == QSI_GV_ARR && k < kv->count; k++) {
            if (kv->elem == QSI_GV_STR) {
                s = qsi_gguf_arr_str(kv, k);
                for (size_t j = 0; j < s.n; j++) sink += (uint8_t)s.p[j];
            } else {
                sink += qsi_gguf_arr_f64(kv, k) > 0;
            }
        }
    }
    for (size_t i = 0; i < qsi_gguf_n_tensors(g); i++) {
        const qsi_gguf_tensor *t = qsi_gguf_tensor_at(g, i);
        assert_ptr_equal(qsi_gguf_tensor_find(g, t->name), t);
        assert_true(t->offset <= qsi_gguf_size(g) && t->bytes <= qsi_gguf_size(g) - t->offset);
        for (size_t k = 0; k < t->bytes; k++) sink += t->data[k];
    }
}

static void expect_refusal(const bytes *b, qs_status code, const char *says) {
    qsi_gguf *g = NULL;
    uint8_t *copy = NULL;
    qs_err err;
    qs_status st = open_copy(b->p, b->n, &g, &copy, &err);
    if (st != code || strstr(err.text, says) == NULL) {
        fail_msg("status %d, '%s'; expected %d, '%s'", (int)st, err.text, (int)code, says);
    }
    assert_null(g);
    free(copy);
}

static void a_sound_file(void **state) {
    bytes b;
    qsi_gguf *g = NULL;
    uint8_t *copy = NULL;
    qs_err err;
    int64_t n = 0;
    double x = 0;
    bool flag = false;
    qsi_slice s = {0};
    sound_file(&b);
    assert_int_equal(open_copy(b.p, b.n, &g, &copy, &err), QS_OK);
    walk(g);
    assert_int_equal(qsi_gguf_version(g), 3);
    assert_int_equal(qsi_gguf_alignment(g), 32);
    assert_int_equal(qsi_gguf_size(g), b.n);
    assert_string_equal(qsi_gguf_path(g), "(memory)");
    assert_int_equal(qsi_gguf_str(g, "general.architecture", &s, &err), QS_OK);
    assert_true(s.n == 5 && memcmp(s.p, "llama", 5) == 0);
    static const struct { const char *key; int64_t v; } ints[] = {
        {"scalar.a", 251}, {"scalar.b", -5}, {"scalar.c", 65531}, {"scalar.d", -5},
        {"scalar.e", 4294967291}, {"scalar.f", -5}, {"scalar.l", -5},
    };
    for (size_t i = 0; i < QSI_COUNT(ints); i++) {
        assert_int_equal(qsi_gguf_i64(g, ints[i].key, &n, &err), QS_OK);
        assert_true(n == ints[i].v);
    }
    n = 11;
    assert_int_equal(qsi_gguf_i64(g, "scalar.k", &n, &err), QS_E_FORMAT); /* above INT64_MAX */
    assert_int_equal(qsi_gguf_i64(g, "scalar.g", &n, &err), QS_E_FORMAT);
    assert_int_equal(qsi_gguf_i64(g, "nothing", &n, &err), QS_E_NOTFOUND);
    assert_int_equal(n, 11);
    assert_int_equal(qsi_gguf_f64(g, "scalar.g", &x, &err), QS_OK);
    assert_true(x == 1.5);
    assert_int_equal(qsi_gguf_f64(g, "scalar.m", &x, &err), QS_OK);
    assert_true(x == 1.5);
    assert_int_equal(qsi_gguf_f64(g, "scalar.a", &x, &err), QS_E_FORMAT);
    assert_int_equal(qsi_gguf_bool(g, "scalar.h", &flag, &err), QS_OK);
    assert_true(flag);
    assert_int_equal(qsi_gguf_bool(g, "scalar.a", &flag, &err), QS_E_FORMAT);
    assert_int_equal(qsi_gguf_str(g, "scalar.a", &s, &err), QS_E_FORMAT);
    const qsi_gguf_kv *kv = qsi_gguf_find(g, "list.text");
    assert_true(kv->type == QSI_GV_ARR && kv->elem == QSI_GV_STR && kv->count == 3);
    s = qsi_gguf_arr_str(kv, 2);
    assert_true(s.n == 3 && memcmp(s.p, "三", 3) == 0);
    assert_int_equal(qsi_gguf_arr_str(kv, 1).n, 0);
    assert_int_equal(qsi_gguf_arr_i64(qsi_gguf_find(g, "list.number"), 1), -2);
    assert_int_equal(qsi_gguf_arr_i64(qsi_gguf_find(g, "list.bool"), 1), 1);
    assert_true(qsi_gguf_arr_f64(qsi_gguf_find(g, "list.float"), 0) == -2);
    assert_true(qsi_gguf_arr_f64(qsi_gguf_find(g, "list.number"), 1) == -2);
    const qsi_gguf_tensor *t = qsi_gguf_tensor_find(g, "a");
    assert_true(t->type == QSI_F16 && t->n_dims == 2 && t->ne[0] == 8 && t->ne[1] == 2);
    assert_true(t->ne[2] == 1 && t->ne[3] == 1 && t->bytes == 32 && t->data[31] == 31);
    t = qsi_gguf_tensor_find(g, "c");
    assert_true(t->bytes == 18 && t->data[0] == 64 && t->offset % 32 == 0);
    assert_null(qsi_gguf_tensor_find(g, "d"));
    assert_null(qsi_gguf_find(g, "list"));
    qsi_gguf_close(&g);
    assert_null(g);
    qsi_gguf_close(&g);
    free(copy);
}

static void every_truncation_is_refused(void **state) {
    bytes b;
    sound_file(&b);
    for (size_t n = 0; n < b.n; n++) {
        qsi_gguf *g = NULL;
        uint8_t *copy = NULL;
        qs_err err;
        assert_int_equal(open_copy(b.p, n, &g, &copy, &err), QS_E_FORMAT);
        assert_true(err.text[0] != '\0');
        if (n >= 24) assert_non_null(strstr(err.text, "truncated"));
        free(copy);
    }
}

/* Every byte replaced by every value: refused or read, never anything else. */
static void every_changed_byte_is_survived(void **state) {
    bytes b;
    sound_file(&b);
    size_t opened = 0, refused = 0;
    for (size_t at = 0; at < b.n; at++) {
        uint8_t was = b.p[at];
        for (int v = 0; v < 256; v += v < 16 || v > 240 ? 1 : 37) {
            qsi_gguf *g = NULL;
            uint8_t *copy = NULL;
            qs_err err;
            b.p[at] = (uint8_t)v;
            if (open_copy(b.p, b.n, &g, &copy, &err) == QS_OK) {
                opened++;
                walk(g);
            } else {
                refused++;
                assert_true(err.code != QS_OK && err.code != QS_E_NOMEM && err.text[0] != '\0');
            }
            qsi_gguf_close(&g);
            free(copy);
        }
        b.p[at] = was;
    }
    assert_true(opened > 1000 && refused > 1000);
}

static void wrong_headers(void **state) {
    bytes b = {.n = 0};
    expect_refusal(&b, QS_E_FORMAT, "empty");
    add(&b, "GGU", 3);
    expect_refusal(&b, QS_E_FORMAT, "not a GGUF");
    b.n = 0;
    add(&b, "version https://git-lfs.github.com/spec/v1\n", 43);
    expect_refusal(&b, QS_E_FORMAT, "Git LFS");
    b.n = 0;
    add(&b, "<!DOCTYPE html>", 15);
    expect_refusal(&b, QS_E_FORMAT, "web page");
    b.n = 0;
    add(&b, "tjgg\1\0\0\0", 8);
    expect_refusal(&b, QS_E_FORMAT, "old GGML");
    add_head(&b, 1, 0, 0);
    expect_refusal(&b, QS_E_UNSUPPORTED, "version 1");
    b.n = 16; /* a version 1 header is shorter */
    expect_refusal(&b, QS_E_UNSUPPORTED, "version 1");
    add_head(&b, 0, 0, 0);
    expect_refusal(&b, QS_E_UNSUPPORTED, "version 0");
    add_head(&b, 4, 0, 0);
    expect_refusal(&b, QS_E_UNSUPPORTED, "version 4");
    add_head(&b, 0x03000000, 0, 0);
    expect_refusal(&b, QS_E_UNSUPPORTED, "big-endian");
}

/* A file of 160 bytes that asks for gigabytes: refused for its claim, before any memory is taken
 * (QS_E_NOMEM would mean that it was tried). */
static void claims_beyond_the_file(void **state) {
    static const uint64_t claims[] = {8, 1 << 20, (uint64_t)1 << 32, (uint64_t)1 << 40,
                                      (uint64_t)1 << 61, (uint64_t)1 << 63, UINT64_MAX};
    bytes b;
    for (size_t i = 0; i < QSI_COUNT(claims); i++) {
        add_head(&b, 3, claims[i], 0);
        while (b.n < 160) add_le(&b, 0, 1);
        expect_refusal(&b, QS_E_FORMAT, "claims");
        add_head(&b, 3, 0, i == 0 ? 16 : claims[i]);
        while (b.n < 160) add_le(&b, 0, 1);
        expect_refusal(&b, QS_E_FORMAT, "claims");
        for (uint32_t elem = 0; elem <= QSI_GV_F64; elem++) {
            if (elem == QSI_GV_ARR) continue;
            add_head(&b, 3, 0, 1);
            add_key(&b, "list", QSI_GV_ARR);
            add_le(&b, elem, 4);
            add_le(&b, i == 0 ? 109 : claims[i], 8);
            while (b.n < 160) add_le(&b, 0, 1);
            expect_refusal(&b, QS_E_FORMAT, "claims");
        }
        add_head(&b, 3, 0, 1);
        add_le(&b, i == 0 ? 200 : claims[i], 8); /* key length */
        while (b.n < 160) add_le(&b, 'k', 1);
        expect_refusal(&b, QS_E_FORMAT, i == 0 ? "truncated" : "claims");
        add_head(&b, 3, 0, 1);
        add_key(&b, "text", QSI_GV_STR);
        add_le(&b, i == 0 ? 200 : claims[i], 8);
        while (b.n < 160) add_le(&b, 'x', 1);
        expect_refusal(&b, QS_E_FORMAT, "truncated");
        add_head(&b, 3, 0, 1);
        add_key(&b, "list", QSI_GV_ARR);
        add_le(&b, QSI_GV_STR, 4);
        add_le(&b, 2, 8);
        add_str(&b, "fits");
        add_le(&b, i == 0 ? 200 : claims[i], 8);
        while (b.n < 160) add_le(&b, 'x', 1);
        expect_refusal(&b, QS_E_FORMAT, "string 1 of 2");
    }
}

static void more_than_supported(void **state) {
    size_t n = (QSI_GGUF_MAX_KV + 1) * 14 + 64;
    uint8_t *p = calloc(n, 1), *copy = NULL;
    bytes b;
    qsi_gguf *g = NULL;
    qs_err err;
    assert_non_null(p);
    add_head(&b, 3, 0, QSI_GGUF_MAX_KV + 1);
    memcpy(p, b.p, b.n);
    assert_int_equal(open_copy(p, n, &g, &copy, &err), QS_E_LIMIT);
    free(copy);
    free(p);
}

static void one_pair(bytes *b, const char *key, uint32_t type, uint64_t v, int n) {
    add_head(b, 3, 0, 1);
    add_key(b, key, type);
    add_le(b, v, n);
}

static void wrong_pairs(void **state) {
    bytes b;
    one_pair(&b, "k", 13, 0, 8);
    expect_refusal(&b, QS_E_FORMAT, "type 13");
    one_pair(&b, "k", UINT32_MAX, 0, 8);
    expect_refusal(&b, QS_E_FORMAT, "value type");
    one_pair(&b, "", QSI_GV_U64, 0, 8);
    expect_refusal(&b, QS_E_FORMAT, "empty");
    one_pair(&b, "k\n", QSI_GV_U64, 0, 8);
    expect_refusal(&b, QS_E_FORMAT, "control");
    one_pair(&b, "k\xc2\x9b" "31m", QSI_GV_U64, 0, 8); /* C1: starts a terminal sequence */
    expect_refusal(&b, QS_E_FORMAT, "control");
    one_pair(&b, "k\xff", QSI_GV_U64, 0, 8);
    expect_refusal(&b, QS_E_FORMAT, "UTF-8");
    one_pair(&b, "k", QSI_GV_BOOL, 2, 1);
    expect_refusal(&b, QS_E_FORMAT, "bool");
    one_pair(&b, "k", QSI_GV_ARR, QSI_GV_ARR, 4);
    add_le(&b, 1, 8);
    add_le(&b, 0, 8);
    expect_refusal(&b, QS_E_UNSUPPORTED, "arrays inside arrays");
    one_pair(&b, "k", QSI_GV_ARR, 99, 4);
    add_le(&b, 0, 8);
    expect_refusal(&b, QS_E_FORMAT, "type 99");
    one_pair(&b, "k", QSI_GV_ARR, QSI_GV_BOOL, 4);
    add_le(&b, 2, 8);
    add_le(&b, 0x0700, 2);
    expect_refusal(&b, QS_E_FORMAT, "bool");
    add_head(&b, 3, 0, 2);
    for (int i = 0; i < 2; i++) {
        add_key(&b, "same", QSI_GV_U8);
        add_le(&b, 1, 1);
    }
    expect_refusal(&b, QS_E_FORMAT, "twice");
}

static void wrong_alignments(void **state) {
    static const uint32_t bad[] = {0, 1, 4, 7, 24, 33, 1u << 21, 1u << 31, UINT32_MAX};
    bytes b;
    for (size_t i = 0; i < QSI_COUNT(bad); i++) {
        one_pair(&b, "general.alignment", QSI_GV_U32, bad[i], 4);
        expect_refusal(&b, QS_E_FORMAT, "general.alignment");
    }
    one_pair(&b, "general.alignment", QSI_GV_U64, 32, 8);
    expect_refusal(&b, QS_E_FORMAT, "general.alignment");
    one_pair(&b, "general.alignment", QSI_GV_STR, 0, 8);
    expect_refusal(&b, QS_E_FORMAT, "general.alignment");
    one_pair(&b, "general.alignment", QSI_GV_U32, 1 << 20, 4);
    qsi_gguf *g = NULL;
    uint8_t *copy = NULL;
    qs_err err;
    assert_int_equal(open_copy(b.p, b.n, &g, &copy, &err), QS_OK);
    assert_int_equal(qsi_gguf_alignment(g), 1 << 20);
    qsi_gguf_close(&g);
    free(copy);
}

/* One tensor of F32 unless said otherwise, followed by 64 bytes of data. */
static void one_tensor(bytes *b, const char *name, uint32_t n_dims, uint64_t n0, uint64_t n1,
                       uint64_t n2, uint32_t type, uint64_t offset) {
    const uint64_t ne[8] = {n0, n1, n2, 1, 1, 1, 1, 1};
    add_head(b, 3, 1, 0);
    add_info(b, name, n_dims, ne, type, offset);
    pad_to(b, 32);
    for (int i = 0; i < 64; i++) add_le(b, 0, 1);
}

static void wrong_tensors(void **state) {
    static const uint64_t big = ((uint64_t)1 << 42) + 1;
    bytes b;
    one_tensor(&b, "t", 0, 1, 1, 1, QSI_F32, 0);
    expect_refusal(&b, QS_E_FORMAT, "0 dimensions");
    one_tensor(&b, "t", 5, 1, 1, 1, QSI_F32, 0);
    expect_refusal(&b, QS_E_FORMAT, "5 dimensions");
    one_tensor(&b, "t", UINT32_MAX, 1, 1, 1, QSI_F32, 0);
    expect_refusal(&b, QS_E_FORMAT, "dimensions");
    one_tensor(&b, "t", 2, 0, 4, 1, QSI_F32, 0);
    expect_refusal(&b, QS_E_FORMAT, "dimension 0 is 0");
    one_tensor(&b, "t", 2, 4, UINT64_MAX, 1, QSI_F32, 0);
    expect_refusal(&b, QS_E_FORMAT, "dimension 1");
    one_tensor(&b, "t", 2, 4, (uint64_t)1 << 63, 1, QSI_F32, 0);
    expect_refusal(&b, QS_E_FORMAT, "dimension 1");
    one_tensor(&b, "t", 3, big, big, big, QSI_F32, 0); /* wraps a stride */
    expect_refusal(&b, QS_E_FORMAT, "overflows");
    one_tensor(&b, "t", 2, (uint64_t)1 << 62, 4, 1, QSI_F32, 0);
    expect_refusal(&b, QS_E_FORMAT, "overflows");
    one_tensor(&b, "t", 1, (uint64_t)1 << 62, 1, 1, QSI_F64, 0);
    expect_refusal(&b, QS_E_FORMAT, "overflows");
    one_tensor(&b, "t", 2, (uint64_t)1 << 32, (uint64_t)1 << 30, 1, QSI_F32, 0);
    expect_refusal(&b, QS_E_FORMAT, "overflows");
    one_tensor(&b, "t", 1, big, 1, 1, QSI_F32, 0);
    expect_refusal(&b, QS_E_FORMAT, "truncated");
    one_tensor(&b, "t", 1, 17, 1, 1, QSI_F32, 0);
    expect_refusal(&b, QS_E_FORMAT, "tensor t ends at 132, the file has 128 bytes");
    one_tensor(&b, "t", 1, 33, 1, 1, QSI_Q8_0, 0);
    expect_refusal(&b, QS_E_FORMAT, "no multiple of Q8_0's 32");
    one_tensor(&b, "t", 1, 4, 1, 1, 4, 0);
    expect_refusal(&b, QS_E_UNSUPPORTED, "type 4");
    one_tensor(&b, "t", 1, 4, 1, 1, UINT32_MAX, 0);
    expect_refusal(&b, QS_E_UNSUPPORTED, "type");
    one_tensor(&b, "t", 1, 4, 1, 1, QSI_F32, 8);
    expect_refusal(&b, QS_E_FORMAT, "alignment");
    one_tensor(&b, "t", 1, 4, 1, 1, QSI_F32, (uint64_t)0 - 32);
    expect_refusal(&b, QS_E_FORMAT, "offset");
    one_tensor(&b, "t", 1, 4, 1, 1, QSI_F32, (uint64_t)INT64_MAX - 31);
    expect_refusal(&b, QS_E_FORMAT, "truncated");
    one_tensor(&b, "0123456789012345678901234567890123456789012345678901234567890123456789", 1, 4,
               1, 1, QSI_F32, 0);
    expect_refusal(&b, QS_E_FORMAT, "claims 70 bytes");
    one_tensor(&b, "t\x1b[31m", 1, 4, 1, 1, QSI_F32, 0);
    expect_refusal(&b, QS_E_FORMAT, "control");
}

static void two_tensors(bytes *b, const char *second, uint64_t first_off, uint64_t second_off) {
    const uint64_t ne[1] = {16};
    add_head(b, 3, 2, 0);
    add_info(b, "first", 1, ne, QSI_F32, first_off);
    add_info(b, second, 1, ne, QSI_F32, second_off);
    pad_to(b, 32);
    for (int i = 0; i < 160; i++) add_le(b, 0, 1);
}

static void overlaps_and_duplicates(void **state) {
    bytes b;
    two_tensors(&b, "first", 0, 64);
    expect_refusal(&b, QS_E_FORMAT, "twice");
    two_tensors(&b, "second", 0, 0);
    expect_refusal(&b, QS_E_FORMAT, "inside first");
    two_tensors(&b, "second", 0, 32);
    expect_refusal(&b, QS_E_FORMAT, "second begins at");
    two_tensors(&b, "second", 64, 32);
    expect_refusal(&b, QS_E_FORMAT, "first begins at");
    two_tensors(&b, "second", 96, 0); /* any order and gaps are fine */
    qsi_gguf *g = NULL;
    uint8_t *copy = NULL;
    qs_err err;
    assert_int_equal(open_copy(b.p, b.n, &g, &copy, &err), QS_OK);
    qsi_gguf_close(&g);
    free(copy);
}

static void version_two_and_no_tensors(void **state) {
    bytes b;
    qsi_gguf *g = NULL;
    uint8_t *copy = NULL;
    qs_err err;
    add_head(&b, 2, 0, 1);
    add_key(&b, "k", QSI_GV_U8);
    add_le(&b, 1, 1);
    assert_int_equal(open_copy(b.p, b.n, &g, &copy, &err), QS_OK);
    assert_int_equal(qsi_gguf_version(g), 2);
    assert_int_equal(qsi_gguf_n_tensors(g), 0);
    qsi_gguf_close(&g);
    free(copy);
}

/* Each allocation fails once (builds with QS_DEBUG; others allocate as ever and succeed at once).
 */
static void memory_runs_out(void **state) {
    bytes b;
    sound_file(&b);
    for (int64_t n = 1; n < 100; n++) {
        qsi_gguf *g = NULL;
        uint8_t *copy = NULL;
        qs_err err;
        qsi_mem_fail_after(n);
        qs_status st = open_copy(b.p, b.n, &g, &copy, &err);
        qsi_mem_fail_after(-1);
        free(copy);
        if (st == QS_OK) {
            qsi_gguf_close(&g);
            return;
        }
        assert_int_equal(st, QS_E_NOMEM);
    }
    fail_msg("it never succeeded");
}

static void files_that_are_not_there(void **state) {
    qsi_gguf *g = NULL;
    qs_err err = {0};
    assert_int_equal(qsi_gguf_open(&g, "no such file.gguf", &err), QS_E_NOTFOUND);
    assert_non_null(strstr(err.text, "no such file.gguf"));
    assert_int_equal(qsi_gguf_open(&g, ".", &err), QS_E_IO);
    assert_int_equal(qsi_gguf_open(&g, "/dev/zero", &err), QS_E_IO);
}

/* ---- several files ---- */

static void put_part(const char *path, int64_t no, int64_t count, int64_t total,
                     const char *const *names, size_t n) {
    static const int64_t ne[1] = {4};
    static const float values[4] = {1, 2, 3, 4};
    qsi_gguf_writer *w = NULL;
    qs_err err = {0};
    assert_int_equal(qsi_gguf_writer_open(&w, path, &err), QS_OK);
    if (no == 0) assert_int_equal(qsi_gguf_put_u32(w, "only.first", 7), QS_OK);
    assert_int_equal(qsi_gguf_put_u32(w, "split.no", (uint32_t)no), QS_OK);
    assert_int_equal(qsi_gguf_put_u32(w, "split.count", (uint32_t)count), QS_OK);
    assert_int_equal(qsi_gguf_put_i32(w, "split.tensors.count", (int32_t)total), QS_OK);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(qsi_gguf_declare(w, names[i], QSI_F32, 1, ne, &err), QS_OK);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(qsi_gguf_write(w, values, sizeof values, &err), QS_OK);
    assert_int_equal(qsi_gguf_finish(&w, &err), QS_OK);
}

#define PART(i) "test_gguf.tmp-0000" #i "-of-00003.gguf"

static void refused(const char *path, qs_status want, const char *says) {
    qsi_gguf *g = NULL;
    qs_err err = {0};
    qs_status st = qsi_gguf_open(&g, path, &err);
    if (st != want || strstr(err.text, says) == NULL) fail_msg("%d, '%s'", (int)st, err.text);
    assert_null(g);
}

static void a_model_in_several_files(void **state) {
    static const char *const a[] = {"a", "b"}, *const c[] = {"c"}, *const twice[] = {"a"};
    qsi_gguf *g = NULL;
    qs_err err = {0};
    int64_t v = 0;
    put_part(PART(1), 0, 3, 3, a, 2);
    put_part(PART(2), 1, 3, 3, NULL, 0);
    refused(PART(1), QS_E_NOTFOUND, PART(3));
    put_part(PART(3), 2, 3, 3, c, 1);
    if (qsi_gguf_open(&g, PART(1), &err) != QS_OK) fail_msg("%s", err.text);
    assert_int_equal(qsi_gguf_n_tensors(g), 3);
    assert_int_equal(qsi_gguf_fd(g), -1);
    assert_int_equal(qsi_gguf_i64(g, "only.first", &v, &err), QS_OK);
    const qsi_gguf_tensor *t = qsi_gguf_tensor_find(g, "c");
    assert_non_null(t);
    assert_memory_equal(t->data + 4, "\0\0\0\x40", 4); /* 2 */
    qsi_gguf_drop(g, t);
    qsi_gguf_random(g);
    assert_int_equal(qsi_gguf_intact(g, &err), QS_OK);
    assert_memory_equal(t->data + 4, "\0\0\0\x40", 4);
    qsi_gguf_close(&g);
    refused(PART(2), QS_E_ARG, "name the first part, '" PART(1) "'");
    put_part(PART(3), 2, 3, 3, twice, 1);
    refused(PART(1), QS_E_FORMAT, "tensor a of '" PART(3) "'");
    put_part(PART(3), 2, 3, 4, c, 1);
    refused(PART(1), QS_E_FORMAT, "does not belong");
    put_part(PART(3), 1, 3, 3, c, 1);
    refused(PART(1), QS_E_FORMAT, "says part 2 of 3");
    put_part(PART(3), 2, 3, 3, a, 2);
    refused(PART(1), QS_E_FORMAT, "more than the 3 tensors");
    put_part(PART(3), 2, 3, 3, NULL, 0);
    refused(PART(1), QS_E_FORMAT, "hold 2 tensors");
    put_part(PART(1), 3, 3, 3, a, 2);
    refused(PART(1), QS_E_FORMAT, "split.no 3");
    put_part(PART(1), 0, 4000, 3, a, 2);
    refused(PART(1), QS_E_FORMAT, "at most 1024");
    put_part(PART(1), 0, 2, 3, a, 2);
    refused(PART(1), QS_E_FORMAT, "-00001-of-00002.gguf");
    remove(PART(1));
    remove(PART(2));
    remove(PART(3));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_sound_file),
        cmocka_unit_test(every_truncation_is_refused),
        cmocka_unit_test(every_changed_byte_is_survived),
        cmocka_unit_test(wrong_headers),
        cmocka_unit_test(claims_beyond_the_file),
        cmocka_unit_test(more_than_supported),
        cmocka_unit_test(wrong_pairs),
        cmocka_unit_test(wrong_alignments),
        cmocka_unit_test(wrong_tensors),
        cmocka_unit_test(overlaps_and_duplicates),
        cmocka_unit_test(version_two_and_no_tensors),
        cmocka_unit_test(memory_runs_out),
        cmocka_unit_test(files_that_are_not_there),
        cmocka_unit_test(a_model_in_several_files),
    };
    return cmocka_run_group_tests(tests, tmp_enter, tmp_leave);
}
