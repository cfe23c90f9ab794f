/* BPE inside one piece: order of merges, and long pieces against short ones. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "tok_fixture.h"

static void assert_ids(const qsi_vocab *v, const char *piece, const char *const *want, size_t n) {
    qsi_bpe_scratch s = {0};
    qsi_ids ids = {0};
    assert_int_equal(qsi_bpe_piece(v, &s, piece, strlen(piece), &ids), QS_OK);
    assert_int_equal(ids.len, n);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(ids.data[i], qsi_vocab_find(v, want[i], strlen(want[i])));
    qsi_ids_release(&ids);
    qsi_bpe_scratch_release(&s);
}
#define ASSERT_IDS(v, piece, ...)                                                                  \
    do {                                                                                           \
        static const char *const want[] = {__VA_ARGS__};                                           \
        assert_ids(v, piece, want, QSI_COUNT(want));                                               \
    } while (0)

static void lowest_rank_first(void **state) {
    static tok_fixture f;
    qsi_vocab *v;
    tok_fixture_init(&f, "deepseek-llm");
    for (size_t i = 0; i < 4; i++) {
        static const char *const made[] = {"bc", "ab", "abc", "aa"};
        tok_fixture_token(&f, made[i], QSI_TOK_NORMAL);
    }
    tok_fixture_merge(&f, "b", "c");
    tok_fixture_merge(&f, "a", "b");
    tok_fixture_merge(&f, "ab", "c");
    tok_fixture_merge(&f, "a", "a");
    v = tok_fixture_build(&f);
    /* bc comes before ab, so that the token abc can never be made: not even from its own bytes. */
    ASSERT_IDS(v, "abc", "a", "bc");
    ASSERT_IDS(v, "abab", "ab", "ab");
    ASSERT_IDS(v, "aaa", "aa", "a");
    ASSERT_IDS(v, "aaaaa", "aa", "aa", "a");
    ASSERT_IDS(v, "x", "x");
    ASSERT_IDS(v, "xbcx", "x", "bc", "x");
    qsi_vocab_free(v);
}

/* Merges 0 .. n-1 by definition: repeatedly the lowest rank, leftmost first. */
static size_t by_definition(const qsi_vocab *v, const char *p, size_t n, int32_t *ids) {
    for (size_t i = 0; i < n; i++) ids[i] = v->byte_id[(unsigned char)p[i]];
    for (;;) {
        size_t best = n;
        const qsi_merge *low = NULL;
        for (size_t i = 0; i + 1 < n; i++) {
            const qsi_merge *m = qsi_merge_find(v, ids[i], ids[i + 1]);
            if (m != NULL && (low == NULL || m->rank < low->rank)) {
                low = m;
                best = i;
            }
        }
        if (low == NULL) return n;
        ids[best] = low->id;
        n--;
        memmove(ids + best + 1, ids + best + 2, (n - best - 1) * sizeof(*ids));
    }
}

/* All pairs, and some triples, over three letters in a random order of ranks. */
static qsi_vocab *random_vocab(uint64_t seed) {
    static tok_fixture f;
    static const char *const pairs[] = {"aa", "ab", "ac", "ba", "bb", "bc", "ca", "cb", "cc"};
    static char texts[81][5], halves[81][2][4];
    qsi_rng r;
    size_t n = 0;
    qsi_rng_init(&r, seed);
    tok_fixture_init(&f, "deepseek-llm");
    for (size_t i = 0; i < 9; i++) {
        size_t at = qsi_rng_below(&r, i + 1);
        tok_fixture_token(&f, pairs[i], QSI_TOK_NORMAL);
        halves[i][0][0] = pairs[i][0];
        halves[i][1][0] = pairs[i][1];
        halves[i][0][1] = halves[i][1][1] = '\0';
        tok_fixture_merge(&f, halves[i][0], halves[i][1]);
        for (size_t k = f.spec.n_merges - 1; k > at; k--) {
            qsi_slice l = f.left[k], rr = f.right[k];
            f.left[k] = f.left[k - 1];
            f.right[k] = f.right[k - 1];
            f.left[k - 1] = l;
            f.right[k - 1] = rr;
        }
    }
    for (size_t i = 0; i < 81; i++) {
        if (qsi_rng_below(&r, 3) != 0) continue;
        memcpy(texts[n], pairs[i / 9], 2);
        memcpy(texts[n] + 2, pairs[i % 9], 3);
        tok_fixture_token(&f, texts[n++], QSI_TOK_NORMAL);
        tok_fixture_merge(&f, pairs[i / 9], pairs[i % 9]);
    }
    return tok_fixture_build(&f);
}

static void equals_the_definition_at_any_length(void **state) {
    static char text[2000];
    static int32_t want[2000];
    qsi_bpe_scratch s = {0};
    qsi_ids ids = {0};
    qsi_rng r;
    qsi_rng_init(&r, 11);
    for (uint64_t seed = 1; seed <= 8; seed++) {
        qsi_vocab *v = random_vocab(seed);
        for (int k = 0; k < 40; k++) {
            size_t n = 1 + qsi_rng_below(&r, k % 2 == 0 ? 120 : 600), m;
            for (size_t i = 0; i < n; i++) text[i] = (char)('a' + qsi_rng_below(&r, 3));
            m = by_definition(v, text, n, want);
            ids.len = 0;
            assert_int_equal(qsi_bpe_piece(v, &s, text, n, &ids), QS_OK);
            assert_int_equal(ids.len, m);
            assert_memory_equal(ids.data, want, m * sizeof(*want));
        }
        qsi_vocab_free(v);
    }
    qsi_ids_release(&ids);
    qsi_bpe_scratch_release(&s);
}

/* 400,000 bytes in one piece: only feasible when the work is not quadratic. */
static void long_pieces_are_fast(void **state) {
    enum { N = 400000 };
    qsi_vocab *v = random_vocab(3);
    qsi_bpe_scratch s = {0};
    qsi_ids ids = {0};
    char *text = malloc(N);
    assert_non_null(text);
    memset(text, 'a', N);
    assert_int_equal(qsi_bpe_piece(v, &s, text, N, &ids), QS_OK);
    assert_true(ids.len <= N / 2);
    free(text);
    qsi_ids_release(&ids);
    qsi_bpe_scratch_release(&s);
    qsi_vocab_free(v);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lowest_rank_first),
        cmocka_unit_test(equals_the_definition_at_any_length),
        cmocka_unit_test(long_pieces_are_fast),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
