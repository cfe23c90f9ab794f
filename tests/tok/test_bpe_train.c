/* Learning: what it merges first, what it never merges, the same vocabulary twice. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "sys/seed.h"
#include "tok/vocab.h"
#include "tok_golden.h"

static const char *text_path, *merges_path;

static qsi_vocab *learn(const char *text, size_t n, int32_t n_vocab) {
    qsi_bpe_trainer *t = NULL;
    qsi_vocab *v = NULL;
    qs_err err;
    assert_int_equal(qsi_bpe_trainer_create(&t, "deepseek-llm", &err), QS_OK);
    assert_int_equal(qsi_bpe_trainer_add(t, text, n, &err), QS_OK);
    assert_int_equal(qsi_bpe_trainer_finish(t, n_vocab, NULL, NULL, &v, &err), QS_OK);
    qsi_bpe_trainer_free(t);
    return v;
}

static void assert_token(const qsi_vocab *v, int32_t id, const char *text) {
    qsi_slice s = qsi_vocab_bytes(v, id);
    assert_int_equal(s.n, strlen(text));
    assert_memory_equal(s.p, text, s.n);
}

/* Counted by hand: pieces "abab" (3 times), "ab" (2), "cd" (4). Pairs: ab 8, cd 4, ba 3. After ab:
 * abab 3. Nothing else occurs twice. */
static void merges_by_count(void **state) {
    const char text[] = "abab\nabab\nabab\nab\nab\ncd\ncd\ncd\ncd\n";
    qsi_vocab *v = learn(text, strlen(text), 1000);
    assert_int_equal(qsi_vocab_size(v), 256 + 3 + 2);
    assert_token(v, 256, "ab");
    assert_token(v, 257, "cd");
    assert_token(v, 258, "abab");
    assert_int_equal(qsi_vocab_bos(v), 259);
    assert_int_equal(qsi_vocab_eos(v), 260);
    assert_token(v, 259, "<｜begin▁of▁sentence｜>");
    assert_token(v, 260, "<｜end▁of▁sentence｜>");
    assert_int_equal(qsi_vocab_type(v, 260), QSI_TOK_CONTROL);
    assert_true(qsi_vocab_add_bos(v));
    qsi_vocab_free(v);
}

/* Equal counts: the lower pair first. Ids of bytes follow the alphabet, so that 'x' < 'y'. */
static void breaks_ties_by_the_lower_pair(void **state) {
    const char text[] = "yz\nyz\nxz\nxz\nxy\nxy\n";
    qsi_vocab *v = learn(text, strlen(text), 1000);
    assert_token(v, 256, "xy");
    assert_token(v, 257, "xz");
    assert_token(v, 258, "yz");
    qsi_vocab_free(v);
}

/* "aaaa" twice: aa (counted 3 times in each), then aaaa. */
static void merges_runs(void **state) {
    qsi_vocab *v = learn("aaaa\naaaa\n", 10, 1000);
    qsi_ids ids = {0};
    assert_token(v, 256, "aa");
    assert_token(v, 257, "aaaa");
    assert_int_equal(qsi_vocab_size(v), 260);
    assert_int_equal(qsi_encode(v, "aaaaaaa", 7, 0, &ids, NULL), QS_OK);
    assert_int_equal(ids.len, 3);
    assert_int_equal(ids.data[0], 257);
    assert_int_equal(ids.data[1], 256);
    qsi_ids_release(&ids);
    qsi_vocab_free(v);
}

static size_t random_text(char *out, size_t n, uint64_t seed) {
    static const char *const units[] = {"春", "眠", "不", "觉", "晓", "th", "e", " ", "\n", "é", "😀"};
    qsi_rng r;
    size_t at = 0;
    qsi_rng_init(&r, seed);
    while (at + 8 < n) {
        const char *u = units[qsi_rng_below(&r, QSI_COUNT(units))];
        memcpy(out + at, u, strlen(u));
        at += strlen(u);
    }
    return at;
}

/* Every learned token is whole characters or a part of one, and is reachable. */
static void keeps_characters_together(void **state) {
    static char text[60000];
    size_t n = random_text(text, sizeof text, 5);
    qsi_vocab *v = learn(text, n, 560);
    assert_int_equal(qsi_vocab_size(v), 560);
    for (int32_t id = 256; id < 558; id++) {
        qsi_slice s = qsi_vocab_bytes(v, id);
        if (qsi_utf8_valid(s.p, s.n, NULL)) continue;
        for (size_t i = 1; i < s.n; i++) assert_int_equal(s.p[i] & 0xc0, 0x80);
        assert_true(s.n < 4);
    }
    qsi_vocab_free(v);
}

static void gives_the_same_vocabulary_twice(void **state) {
    static char text[60000];
    size_t n = random_text(text, sizeof text, 6);
    qsi_vocab *a = learn(text, n, 500), *b = learn(text, n, 500), *c = learn(text, n, 499);
    assert_true(qsi_vocab_hash(a) == qsi_vocab_hash(b));
    assert_true(qsi_vocab_hash(a) != qsi_vocab_hash(c));
    qsi_vocab_free(a);
    qsi_vocab_free(b);
    qsi_vocab_free(c);
}

/* Where things lie in the tables of a process, and nothing else, is the process's own. */
static void the_seed_moves_tables_alone(void **state) {
    static const uint64_t seeds[] = {0x123456789abcdef1, 3, UINT64_MAX, 0x8000000000000000};
    static char text[60000], other[20000];
    size_t n = random_text(text, sizeof text, 9), n_other = random_text(other, sizeof other, 10);
    qsi_vocab *first = NULL;
    qsi_ids want = {0};
    for (size_t i = 0; i < QSI_COUNT(seeds); i++) {
        qsi_ids ids = {0};
        qsi_process_seed_set(seeds[i]);
        qsi_vocab *v = learn(text, n, 500);
        assert_int_equal(qsi_encode(v, other, n_other, QSI_ENC_BOS, &ids, NULL), QS_OK);
        if (i == 0) {
            first = v;
            want = ids;
            continue;
        }
        assert_true(qsi_vocab_hash(v) == qsi_vocab_hash(first));
        assert_int_equal(ids.len, want.len);
        assert_memory_equal(ids.data, want.data, want.len * sizeof *want.data);
        assert_memory_equal(v->merge_list, first->merge_list, (size_t)v->n_merges * 8);
        assert_int_equal(v->hash_mask, first->hash_mask);
        assert_memory_not_equal(v->by_text, first->by_text, ((size_t)v->hash_mask + 1) * 4);
        assert_memory_not_equal(v->by_bytes, first->by_bytes, ((size_t)v->hash_mask + 1) * 4);
        assert_memory_not_equal(v->merges, first->merges,
                                ((size_t)v->merge_mask + 1) * sizeof *v->merges);
        qsi_ids_release(&ids);
        qsi_vocab_free(v);
    }
    qsi_ids_release(&want);
    qsi_vocab_free(first);
}

static void splits_long_pieces(void **state) {
    static char text[200000];
    qsi_vocab *v;
    memset(text, 'q', sizeof text);
    v = learn(text, sizeof text, 1000);
    for (int32_t id = 0; id < qsi_vocab_size(v); id++) assert_true(qsi_vocab_bytes(v, id).n <= 256);
    qsi_vocab_free(v);
}

static int cancel(void *user, int64_t done, int64_t of) {
    int *left = user;
    assert_true(done <= of);
    return (*left)-- == 0;
}

static void can_be_cancelled_and_refused(void **state) {
    qsi_bpe_trainer *t = NULL;
    qsi_vocab *v = NULL;
    qs_err err;
    int left = 1;
    assert_int_equal(qsi_bpe_trainer_create(&t, "nonsense", &err), QS_E_UNSUPPORTED);
    assert_int_equal(qsi_bpe_trainer_create(&t, "deepseek-llm", &err), QS_OK);
    assert_int_equal(qsi_bpe_trainer_add(t, "abcabcabc abc abc", 17, &err), QS_OK);
    assert_int_equal(qsi_bpe_trainer_add(t, "ab\xc3", 3, &err), QS_E_FORMAT);
    assert_int_equal(err.offset, 2);
    assert_int_equal(qsi_bpe_trainer_finish(t, 257, NULL, NULL, &v, &err), QS_E_RANGE);
    assert_int_equal(qsi_bpe_trainer_finish(t, 300, cancel, &left, &v, &err), QS_E_CANCELLED);
    assert_null(v);
    qsi_bpe_trainer_free(t);
}

/* The reference's trainer on the same text: characters of one byte, so that the rule about parts of
 * characters plays no role. */
static void merges_as_the_reference_does(void **state) {
    size_t n, n_want, line = 0;
    char *text = tok_read_file(text_path, &n), *want = tok_read_file(merges_path, &n_want);
    char *at = want, *merge;
    qsi_bpe_trainer *t = NULL;
    qsi_vocab *v = NULL;
    assert_int_equal(qsi_bpe_trainer_create(&t, "deepseek-llm", NULL), QS_OK);
    for (char *p = text, *end; *p != '\0'; p = end) {
        bool ascii = true;
        end = p + strcspn(p, "\n") + 1;
        for (const char *q = p; q < end; q++) ascii = ascii && (unsigned char)*q < 0x80;
        if (ascii)
            assert_int_equal(qsi_bpe_trainer_add(t, p, (size_t)(end - p), NULL), QS_OK);
    }
    assert_int_equal(qsi_bpe_trainer_finish(t, 702, NULL, NULL, &v, NULL), QS_OK);
    while ((merge = tok_field(&at)) != NULL) {
        uint64_t key;
        qsi_slice left, right;
        size_t k;
        assert_true((int64_t)line < qsi_vocab_n_merges(v));
        key = v->merge_list[line++];
        left = qsi_vocab_text(v, (int32_t)(key >> 32));
        right = qsi_vocab_text(v, (int32_t)key);
        k = left.n;
        assert_int_equal(strlen(merge), left.n + right.n + 1);
        assert_memory_equal(merge, left.p, k);
        assert_memory_equal(merge + k + 1, right.p, right.n);
    }
    assert_true(line > 100);
    assert_int_equal(line, qsi_vocab_n_merges(v));
    qsi_vocab_free(v);
    qsi_bpe_trainer_free(t);
    free(text);
    free(want);
}

/* The n-th allocation fails, for every n (in builds that can). */
static void survives_want_of_memory(void **state) {
    static char text[3000];
    size_t n_text = random_text(text, sizeof text, 8);
    for (int64_t n = 1; n < 10000; n++) {
        qsi_bpe_trainer *t = NULL;
        qsi_vocab *v = NULL;
        qs_err err = {0};
        qs_status st;
        qsi_mem_fail_after(n);
        st = qsi_bpe_trainer_create(&t, "deepseek-llm", &err);
        if (st == QS_OK) st = qsi_bpe_trainer_add(t, text, n_text, &err);
        if (st == QS_OK) st = qsi_bpe_trainer_finish(t, 300, NULL, NULL, &v, &err);
        qsi_mem_fail_after(-1);
        assert_true(st == QS_OK ? v != NULL : st == QS_E_NOMEM && err.code == QS_E_NOMEM);
        qsi_bpe_trainer_free(t);
        qsi_vocab_free(v);
        if (st == QS_OK) return;
    }
    fail_msg("never succeeds");
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(merges_by_count),
        cmocka_unit_test(merges_as_the_reference_does),
        cmocka_unit_test(breaks_ties_by_the_lower_pair),
        cmocka_unit_test(merges_runs),
        cmocka_unit_test(keeps_characters_together),
        cmocka_unit_test(gives_the_same_vocabulary_twice),
        cmocka_unit_test(the_seed_moves_tables_alone),
        cmocka_unit_test(splits_long_pieces),
        cmocka_unit_test(can_be_cancelled_and_refused),
        cmocka_unit_test(survives_want_of_memory),
    };
    if (argc != 3) return 2;
    text_path = argv[1];
    merges_path = argv[2];
    return cmocka_run_group_tests(tests, NULL, NULL);
}
