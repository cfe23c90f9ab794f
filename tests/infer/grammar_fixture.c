#include "grammar_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "base/hash.h"
#include "base/mem.h"
#include "tok/vocab.h"

static const char *const pieces[] = {
    "{\"",   "\":",      "\",",      "\"}",      "\",\"",    "\": ",   "{}",   "[]",      "[[",
    "]]",    "}}",       "],",       "\"]",      "\"\"",     "\\\"",   "\\u",  "\\n",     "ab",
    "abc",   "aa",       "aaa",      "aaaa",     "aaaaaaaa", "bb",     "12",   "123",     "00",
    "0.",    ".5",       "1e",       "-1",       ", ",       "  ",     "\n  ", " \"",     "true",
    "false", "null",     "tr",       "name",     "age",      "\"name", "a\"",  "a\",\"b", "ab\":1",
    "\xE5",  "\xE5\x8C", "\x8C\x97", "\xE4\xBA", "\xAC",     "北京",   "北",   "京\"",    "中",
    "中文",  "\"城",     "市\":",    "\xF0\x9F", "\x98\x80", "2024",   "-0",   "T1",      ":0",
    "Z\"",   "foo",      "foobar",   "oo",       "xy",       "xyz",    "x",    "()",      "((",
    "1]",    "1,",       "1}",       "2]}",      "null]",    "e\"",    "\t",   " ,",      " }",
    " ]",    ": [",      ": {",
};
enum { N = QSI_COUNT(pieces) + 256 + 3 };

/* Bytes in the byte alphabet that vocabularies are written in. */
static qsi_slice spell(const char *p, size_t n, char *out) {
    size_t at = 0;
    for (size_t i = 0; i < n; i++)
        at += (size_t)qsi_utf8_encode(qsi_byte_symbol((uint8_t)p[i]), out + at);
    return (qsi_slice){ out, at };
}

void grammar_fixture_init(grammar_fixture *f) {
    static qsi_slice tokens[N];
    static uint8_t types[N];
    static char text[N][32];
    size_t n = 0;
    qs_err err = { 0 };
    for (int c = 0; c < 256; c++, n++) {
        char byte = (char)c;
        tokens[n] = spell(&byte, 1, text[n]);
        f->byte_id[c] = (int32_t)n;
    }
    for (size_t i = 0; i < QSI_COUNT(pieces); i++)
        if (strlen(pieces[i]) > 1) tokens[n] = spell(pieces[i], strlen(pieces[i]), text[n]), n++;
    memset(types, QSI_TOK_NORMAL, sizeof types);
    types[n] = QSI_TOK_CONTROL;
    tokens[n++] = (qsi_slice){ "<bos>", 5 };
    types[n] = QSI_TOK_USER;
    tokens[n++] = (qsi_slice){ "[PAD0]", 6 };
    types[n] = QSI_TOK_CONTROL;
    f->eos = (int32_t)n;
    tokens[n++] = (qsi_slice){ "<eos>", 5 };
    qsi_vocab_spec s = { .pre = "deepseek-llm",
                         .tokens = tokens,
                         .types = types,
                         .n_tokens = (int64_t)n,
                         .bos = f->eos - 2,
                         .eos = f->eos,
                         .pad = -1 };
    if (qsi_vocab_build(&f->vocab, &s, &err) != QS_OK) fail_msg("%s", err.text);
    assert_int_equal(qsi_token_trie_create(&f->trie, f->vocab, &err), QS_OK);
    assert_int_equal(qsi_token_trie_size(f->trie), n);
}

void grammar_fixture_release(grammar_fixture *f) {
    qsi_token_trie_release(f->trie);
    qsi_vocab_free(f->vocab);
}

static bool bit(const uint32_t *mask, int32_t id) {
    return mask[id / 32] >> (id % 32) & 1;
}

static bool text_is(grammar_fixture *f, int32_t id, const char *p, size_t n) {
    qsi_slice s = qsi_vocab_bytes(f->vocab, id);
    return qsi_vocab_type(f->vocab, id) == QSI_TOK_NORMAL && s.n <= n && memcmp(s.p, p, s.n) == 0;
}

/* Drives it with the longest tokens that fit. */
static bool in_tokens(grammar_fixture *f, qsi_grammar *g, const char *p, size_t n) {
    qsi_matcher *m = NULL;
    bool ok = true;
    assert_int_equal(qsi_matcher_create(&m, g, f->trie, NULL), QS_OK);
    while (n > 0 && ok) {
        int32_t best = f->byte_id[(uint8_t)*p];
        for (int32_t id = 0; id < f->eos; id++)
            if (text_is(f, id, p, n) &&
                qsi_vocab_bytes(f->vocab, id).n > qsi_vocab_bytes(f->vocab, best).n)
                best = id;
        const uint32_t *mask = qsi_matcher_mask(m);
        assert_non_null(mask);
        bool may = bit(mask, best);
        ok = qsi_matcher_accept(m, best);
        assert_int_equal(may, ok);
        p += qsi_vocab_bytes(f->vocab, best).n;
        n -= qsi_vocab_bytes(f->vocab, best).n;
    }
    ok = ok && qsi_matcher_may_end(m);
    if (ok) {
        assert_true(qsi_matcher_accept(m, f->eos));
        assert_true(qsi_matcher_done(m));
        assert_false(qsi_matcher_accept(m, f->byte_id['a']));
    }
    qsi_matcher_free(m);
    return ok;
}

bool grammar_matches_n(grammar_fixture *f, qsi_grammar *g, const char *p, size_t n) {
    qsi_matcher *m = NULL;
    bool ok = true;
    qs_err err = { 0 };
    if (qsi_matcher_create(&m, g, f->trie, &err) != QS_OK) fail_msg("%s", err.text);
    for (size_t i = 0; i < n && ok; i++) {
        const uint32_t *mask = n <= 512 || i % 61 == 0 ? qsi_matcher_mask(m) : NULL;
        bool may = mask && bit(mask, f->byte_id[(uint8_t)p[i]]);
        ok = qsi_matcher_accept(m, f->byte_id[(uint8_t)p[i]]);
        if (mask) assert_int_equal(may, ok);
    }
    ok = ok && qsi_matcher_may_end(m);
    qsi_matcher_free(m);
    if (n <= 512) assert_int_equal(in_tokens(f, g, p, n), ok);
    return ok;
}

bool grammar_matches(grammar_fixture *f, qsi_grammar *g, const char *text) {
    return grammar_matches_n(f, g, text, strlen(text));
}

int grammar_check_mask(grammar_fixture *f, qsi_matcher *m) {
    uint32_t copy[(N + 31) / 32];
    const uint32_t *mask = qsi_matcher_mask(m);
    int n = 0;
    assert_non_null(mask);
    memcpy(copy, mask, ((size_t)qsi_token_trie_size(f->trie) + 31) / 32 * sizeof *mask);
    for (int32_t id = 0; id < qsi_token_trie_size(f->trie); id++) {
        bool ok = qsi_matcher_accept(m, id);
        if (ok != bit(copy, id))
            fail_msg("id %d (%.*s): the mask says %d, a trial %d", (int)id,
                     (int)qsi_vocab_bytes(f->vocab, id).n, qsi_vocab_bytes(f->vocab, id).p,
                     bit(copy, id), ok);
        if (ok) assert_true(qsi_matcher_rollback(m, 1));
        n += ok;
    }
    assert_int_equal(bit(copy, f->eos), qsi_matcher_may_end(m));
    assert_true(n > 0);
    return n;
}

void grammar_random_walk(grammar_fixture *f, qsi_grammar *g, uint64_t seed, int n_ids) {
    qsi_matcher *m = NULL, *copy = NULL;
    qsi_rng rng;
    qsi_rng_init(&rng, seed);
    assert_int_equal(qsi_matcher_create(&m, g, f->trie, NULL), QS_OK);
    for (int i = 0; i < n_ids && !qsi_matcher_done(m); i++) {
        int n = grammar_check_mask(f, m), k = (int)qsi_rng_below(&rng, (uint64_t)n);
        uint32_t mask[(N + 31) / 32];
        memcpy(mask, qsi_matcher_mask(m),
               ((size_t)qsi_token_trie_size(f->trie) + 31) / 32 * sizeof *mask);
        int32_t id = 0;
        while (!bit(mask, id) || k-- > 0) id++;
        if (qsi_rng_below(&rng, 16) == 0) { /* go on in a copy */
            assert_int_equal(qsi_matcher_clone(&copy, m, NULL), QS_OK);
            qsi_matcher_free(m);
            m = copy;
        }
        /* one step, taken back, taken again */
        assert_true(qsi_matcher_accept(m, id));
        if (qsi_rng_below(&rng, 8) == 0) {
            assert_true(qsi_matcher_rollback(m, 1));
            assert_memory_equal(qsi_matcher_mask(m), mask,
                                ((size_t)qsi_token_trie_size(f->trie) + 31) / 32 * sizeof *mask);
            assert_true(qsi_matcher_accept(m, id));
        }
    }
    qsi_matcher_free(m);
}
