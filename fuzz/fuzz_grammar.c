/* Grammars of strangers (infer/grammar*.c): whatever is compiled, a matcher driven by bytes keeps its
 * promises: the mask says what a trial says, it is never empty before the end, and what is taken back
 * is as if it had never come.
 *
 * The first byte chooses the language (s schema, g GBNF, r regular expression, c choices, one a line);
 * then the text up to the first NUL, then bytes that drive the matcher. */
#include <string.h>

#include "base/mem.h"
#include "infer/grammar.h"
#include "tok/vocab.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { N_IDS = 257 + 8, MAX_CHOICES = 64, MAX_MASKS = 24 };

static qsi_token_trie *trie(void) {
    static qsi_token_trie *t;
    static char symbols[256][4];
    static qsi_slice tokens[N_IDS];
    static uint8_t types[N_IDS];
    static const char *const more[] = { "aa", "\",\"", "\":", "ab", "{\"", "12", "}}", "aaaa" };
    qsi_vocab *v = NULL;
    int n = 256;
    if (t) return t;
    for (int c = 0; c < 256; c++)
        tokens[c] = (qsi_slice){ symbols[c],
                                 (size_t)qsi_utf8_encode(qsi_byte_symbol((uint8_t)c), symbols[c]) };
    for (size_t i = 0; i < QSI_COUNT(more); i++)
        tokens[n++] = (qsi_slice){ more[i], strlen(more[i]) };
    tokens[n++] = (qsi_slice){ "<eos>", 5 };
    memset(types, QSI_TOK_NORMAL, sizeof types);
    types[N_IDS - 1] = QSI_TOK_CONTROL;
    qsi_vocab_spec s = { .pre = "deepseek-llm",
                         .tokens = tokens,
                         .types = types,
                         .n_tokens = N_IDS,
                         .bos = -1,
                         .eos = N_IDS - 1,
                         .pad = -1 };
    QS_CHECK(qsi_vocab_build(&v, &s, NULL) == QS_OK);
    QS_CHECK(qsi_token_trie_create(&t, v, NULL) == QS_OK);
    qsi_vocab_free(v);
    return t;
}

static qs_status choices(qsi_grammar **g, const char *p, size_t n, const qsi_grammar_limits *l,
                         qs_err *err) {
    static char copy[4096];
    const char *list[MAX_CHOICES];
    size_t count = 0;
    if (n >= sizeof copy) n = sizeof copy - 1;
    if (n) memcpy(copy, p, n);
    copy[n] = 0;
    for (char *at = copy; at && count < MAX_CHOICES;) {
        char *end = strchr(at, '\n');
        list[count++] = at;
        if (end) *end++ = 0;
        at = end;
    }
    return qsi_grammar_from_choices(g, list, count, l, err);
}

static qs_status compile(qsi_grammar **g, uint8_t kind, const char *p, size_t n, qs_err *err) {
    qsi_grammar_limits l = QSI_GRAMMAR_LIMITS;
    l.states = 20000; /* small, so that limits are met */
    l.work = 200000;
    l.cache_bytes = 1 << 20;
    if (kind == 'g') return qsi_grammar_from_gbnf(g, p, n, &l, err);
    if (kind == 'r') return qsi_grammar_from_regex(g, p, n, &l, err);
    if (kind == 'c') return choices(g, p, n, &l, err);
    return qsi_grammar_from_schema(g, p, n, &l, err);
}

static void drive(qsi_matcher *m, const uint8_t *p, size_t n) {
    for (size_t i = 0; i < n && i < MAX_MASKS; i++) {
        uint32_t mask[(N_IDS + 31) / 32], any = 0;
        const uint32_t *now = qsi_matcher_mask(m);
        if (!now) {
            QS_CHECK(qsi_matcher_error(m, NULL) == QS_E_LIMIT);
            return;
        }
        memcpy(mask, now, sizeof mask);
        for (size_t k = 0; k < QSI_COUNT(mask); k++) any |= mask[k];
        QS_CHECK(any != 0);
        for (int32_t id = 0; id < N_IDS; id++) {
            bool ok = qsi_matcher_accept(m, id);
            if (!ok && qsi_matcher_error(m, NULL) != QS_OK) return;
            QS_CHECK(ok == (mask[id / 32] >> (id % 32) & 1));
            if (ok) QS_CHECK(qsi_matcher_rollback(m, 1));
        }
        int32_t id = (int32_t)(p[i] * 5) % N_IDS; /* the next one that may come */
        while (!(mask[id / 32] >> (id % 32) & 1)) id = (id + 1) % N_IDS;
        QS_CHECK(qsi_matcher_accept(m, id));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    qsi_grammar *g = NULL;
    qsi_matcher *m = NULL;
    qs_err err = { 0 };
    if (size < 1) return 0;
    const uint8_t *text = data + 1, *end = memchr(text, 0, size - 1);
    size_t n = end ? (size_t)(end - text) : size - 1;
    if (compile(&g, data[0], (const char *)text, n, &err) != QS_OK) {
        QS_CHECK(g == NULL && err.text[0] != 0);
        return 0;
    }
    QS_CHECK(qsi_matcher_create(&m, g, trie(), &err) == QS_OK);
    static const uint8_t fixed[] = "some bytes 123";
    drive(m, end ? end + 1 : fixed, end ? size - n - 2 : sizeof fixed);
    qsi_matcher_free(m);
    qsi_grammar_release(g);
    return 0;
}
