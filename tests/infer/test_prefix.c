/* infer/prefix on a scripted model: what is found, what is kept, what gives way, and the tree on
 * disk. */
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
#include "base/hash.h"
#include "base/log.h"
#include "fake_model.h"
#include "infer/prefix.h"
#include "sys/file.h"

#define V 50

typedef struct bench {
    fake_model f;
    qsi_engine *e;
    qsi_prefix *p;
} bench;

static void begin(bench *b, int32_t pages, bool exact) {
    fake_model_init(&b->f, V, 256, 1024, pages);
    b->f.runner.two_paths = exact;
    assert_int_equal(qsi_engine_create(&b->e, &b->f.runner, 1, NULL), QS_OK);
    assert_int_equal(qsi_prefix_create(&b->p, &b->f.runner, exact, NULL), QS_OK);
}

static void end(bench *b) {
    qsi_prefix_free(b->p);
    assert_int_equal(b->f.pages_used, 0);
    assert_int_equal(b->f.n_shared_writes, 0);
    qsi_engine_free(b->e);
    fake_model_release(&b->f);
}

static void fill(int32_t *ids, size_t n, uint64_t seed) {
    qsi_rng rng;
    qsi_rng_init(&rng, seed);
    for (size_t i = 0; i < n; i++) ids[i] = (int32_t)qsi_rng_below(&rng, V);
}

/* Computes ids with what the tree has of them, checks the logits, keeps them; returns what was
 * there. */
static size_t compute(bench *b, const int32_t *ids, size_t n) {
    qsi_seq s;
    int32_t pages[16];
    float want[V];
    assert_int_equal(qsi_seq_init(&s, b->e, NULL), QS_OK);
    size_t have = qsi_prefix_match(b->p, ids, NULL, n - 1, pages);
    assert_int_equal(qsi_seq_push(&s, ids, n, NULL), QS_OK);
    assert_int_equal(qsi_seq_reuse(&s, have, pages, NULL), QS_OK);
    qsi_seq *list[] = { &s };
    int64_t more = (int64_t)(n + 63) / 64 - (int64_t)s.table.n_pages; /* and one for a copy */
    assert_true(qsi_prefix_make_room(b->p, more + 1));
    assert_int_equal(qsi_engine_run(b->e, list, 1, NULL, NULL), QS_OK);
    fake_logits(&b->f, ids, (int32_t)n, want);
    assert_memory_equal(s.logits, want, sizeof want);
    qsi_prefix_add(b->p, s.ids, s.generated, n, s.table.pages);
    qsi_seq_release(&s);
    return have;
}

static void test_beginnings(void **state) {
    bench b;
    int32_t ids[300], other[300];
    (void)state;
    begin(&b, 40, false);
    fill(ids, 300, 1);
    assert_int_equal(compute(&b, ids, 300), 0);
    assert_int_equal(compute(&b, ids, 300), 299); /* the last id is computed for its logits */
    assert_int_equal(compute(&b, ids, 100), 99);
    for (size_t part = 1; part < 299; part += 37) { /* they part within a page, and at its end */
        memcpy(other, ids, sizeof ids);
        other[part] = (ids[part] + 1) % V;
        assert_int_equal(compute(&b, other, 300), part);
    }
    /* a text that goes on where one ended within its page takes that page over */
    fill(other, 300, 2);
    assert_int_equal(compute(&b, other, 70), 0);
    int used = b.f.pages_used;
    assert_int_equal(compute(&b, other, 90), 70);
    assert_int_equal(b.f.pages_used, used);
    assert_int_equal(compute(&b, other, 90), 89);
    assert_int_equal(qsi_prefix_n_own(b.p), b.f.pages_used);
    end(&b);
}

/* A random mix of texts with common beginnings under too few pages: never a wrong logit. */
static void test_room(void **state) {
    bench b;
    int32_t ids[300];
    qsi_rng rng;
    (void)state;
    begin(&b, 9, false);
    qsi_rng_init(&rng, 3);
    size_t found = 0;
    for (int i = 0; i < 400; i++) {
        fill(ids, 300, qsi_rng_below(&rng, 3));
        size_t n = 1 + qsi_rng_below(&rng, 300), part = qsi_rng_below(&rng, 300);
        ids[part] = (int32_t)qsi_rng_below(&rng, V);
        found += compute(&b, ids, n);
    }
    assert_true(found > 10000);
    assert_true(qsi_prefix_make_room(b.p, 9));
    assert_int_equal(b.f.pages_used, 0);
    assert_false(qsi_prefix_make_room(b.p, 10));
    end(&b);
}

/* What was used last stays. */
static void test_order(void **state) {
    bench b;
    int32_t ids[3][64], page[1];
    (void)state;
    begin(&b, 4, false);
    for (int i = 0; i < 3; i++) {
        fill(ids[i], 64, (uint64_t)i + 10);
        compute(&b, ids[i], 64);
    }
    assert_int_equal(qsi_prefix_match(b.p, ids[0], NULL, 64, page), 64);
    assert_true(qsi_prefix_make_room(b.p, 2));
    assert_int_equal(qsi_prefix_match(b.p, ids[1], NULL, 64, page), 0);
    assert_int_equal(qsi_prefix_match(b.p, ids[2], NULL, 64, page), 64);
    assert_int_equal(qsi_prefix_match(b.p, ids[0], NULL, 64, page), 64);
    end(&b);
}

/* Where there are two paths, an exact tree keeps generated ids apart. */
static void test_exact(void **state) {
    int32_t ids[64], page[1];
    bool made[64] = { false };
    (void)state;
    fill(ids, 64, 4);
    for (int i = 40; i < 64; i++) made[i] = true;
    for (int exact = 0; exact < 2; exact++) {
        bench b;
        begin(&b, 4, exact);
        int32_t p = 0;
        assert_int_equal(b.f.runner.pages.take(&b.f, &p, NULL), QS_OK);
        qsi_prefix_add(b.p, ids, made, 64, &p);
        b.f.runner.pages.drop(&b.f, p);
        assert_int_equal(qsi_prefix_match(b.p, ids, NULL, 64, page), exact ? 40 : 64);
        assert_int_equal(qsi_prefix_match(b.p, ids, made, 64, page), 64);
        end(&b);
    }
}

static const char path[] = "prefix.bin";

static int64_t load(bench *b, uint64_t key) {
    int64_t n = -1;
    assert_int_equal(qsi_prefix_load(b->p, path, key, &n, NULL), QS_OK);
    return n;
}

static void test_disk(void **state) {
    bench a, b;
    int32_t ids[3][300], pages[8];
    int64_t n = 0;
    (void)state;
    begin(&a, 40, false);
    for (int i = 0; i < 3; i++) {
        fill(ids[i], 300, (uint64_t)i + 20);
        memcpy(ids[i], ids[0], 100 * sizeof ids[0][0]);
        compute(&a, ids[i], 300);
    }
    int64_t all = a.f.pages_used;
    assert_int_equal(qsi_prefix_save(a.p, path, 7, UINT64_MAX, &n, NULL), QS_OK);
    assert_int_equal(n, all);
    begin(&b, 40, false);
    assert_int_equal(load(&b, 8), 0); /* another model's */
    assert_int_equal(load(&b, 7), all);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(qsi_prefix_match(b.p, ids[i], NULL, 300, pages), 300);
        assert_int_equal(compute(&b, ids[i], 300), 299);
    }
    end(&b);
    /* bounded: what was used last, whole beginnings; fewer pages than the file has */
    assert_int_equal(compute(&a, ids[1], 300), 299);
    uint64_t each = 272 + a.f.runner.pages.bytes;
    assert_int_equal(qsi_prefix_save(a.p, path, 7, 48 + each * 5, &n, NULL), QS_OK);
    assert_int_equal(n, 5);
    begin(&b, 3, false);
    assert_int_equal(load(&b, 7), 3);
    end(&b);
    begin(&b, 9, false);
    assert_int_equal(load(&b, 7), 5);
    assert_int_equal(qsi_prefix_match(b.p, ids[1], NULL, 300, pages), 300);
    end(&b);
    assert_int_equal(qsi_prefix_save(a.p, path, 7, 10, &n, NULL), QS_OK);
    assert_int_equal(n, 0);
    end(&a);
}

/* Any damage costs what lies behind it, nothing else, and never a wrong page. */
static void test_damage(void **state) {
    bench a;
    int32_t ids[300];
    int64_t n = 0;
    qsi_str bytes = { 0 };
    (void)state;
    begin(&a, 10, false);
    fill(ids, 300, 30);
    compute(&a, ids, 300);
    assert_int_equal(qsi_prefix_save(a.p, path, 7, UINT64_MAX, &n, NULL), QS_OK);
    assert_int_equal(qsi_file_read(path, 1 << 20, &bytes, NULL), QS_OK);
    for (size_t at = 0; at < bytes.len; at += 29) {
        for (int cut = 0; cut < 2; cut++) {
            bench b;
            char old = bytes.data[at];
            FILE *f = fopen(path, "wb");
            assert_non_null(f);
            bytes.data[at] = (char)(old ^ 0x41);
            size_t len = cut ? at : bytes.len;
            assert_int_equal(fwrite(bytes.data, 1, len, f), len);
            bytes.data[at] = old;
            fclose(f);
            begin(&b, 10, false);
            int64_t got = load(&b, 7);
            assert_true(got < 5);
            compute(&b, ids, 300);
            end(&b);
        }
    }
    qsi_str_release(&bytes);
    end(&a);
    unlink(path);
    int64_t none;
    begin(&a, 4, false);
    assert_int_equal(qsi_prefix_load(a.p, path, 7, &none, NULL), QS_E_NOTFOUND);
    end(&a);
}

static void hush(void *user, qsi_log_level level, const char *text) {
    (void)user, (void)level, (void)text;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_beginnings), cmocka_unit_test(test_room), cmocka_unit_test(test_order),
        cmocka_unit_test(test_exact), cmocka_unit_test(test_disk), cmocka_unit_test(test_damage),
    };
    qsi_log_set(hush, NULL);
    return cmocka_run_group_tests(tests, tmp_enter, tmp_leave);
}
