/* Tries texts on grammars, for tools/json_schema_suite.py and by hand.
 *
 *     grammar_check < commands
 *
 * A command is a line "KIND BYTES" and then so many bytes: kinds schema, gbnf and regex compile (the
 * answer is a line "ok", or "refused CODE: why"); text asks about the last grammar ("accept" or
 * "reject"). At every byte the mask of a vocabulary of single bytes must agree with what is accepted;
 * "broken" is the answer otherwise. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "infer/grammar.h"
#include "tok/vocab.h"

enum { MAX_TEXT = 8 << 20, N_IDS = 257 };

static qs_status make_trie(qsi_token_trie **t, qsi_vocab **v, int32_t *id_of, qs_err *err) {
    qs_status st = QS_OK;
    static char symbols[256][4];
    static qsi_slice tokens[N_IDS];
    static uint8_t types[N_IDS];
    for (int c = 0; c < 256; c++) {
        tokens[c] = (qsi_slice){ symbols[c],
                                 (size_t)qsi_utf8_encode(qsi_byte_symbol((uint8_t)c), symbols[c]) };
        types[c] = QSI_TOK_NORMAL;
        id_of[c] = c;
    }
    tokens[256] = (qsi_slice){ "<eos>", 5 };
    types[256] = QSI_TOK_CONTROL;
    qsi_vocab_spec s = { .pre = "deepseek-llm",
                         .tokens = tokens,
                         .types = types,
                         .n_tokens = N_IDS,
                         .bos = -1,
                         .eos = 256,
                         .pad = -1 };
    QS_TRY(qsi_vocab_build(v, &s, err));
    QS_TRY(qsi_token_trie_create(t, *v, err));
done:
    return st;
}

static bool in_mask(const uint32_t *mask, int id) {
    return mask[id / 32] >> (id % 32) & 1;
}

static const char *try_text(qsi_grammar *g, qsi_token_trie *t, const int32_t *id_of, const char *p,
                            size_t n) {
    qsi_matcher *m = NULL;
    const char *answer = "accept";
    if (!g) return "no grammar";
    if (qsi_matcher_create(&m, g, t, NULL) != QS_OK) return "broken";
    for (size_t i = 0; i <= n && !strcmp(answer, "accept"); i++) {
        int32_t id = i < n ? id_of[(unsigned char)p[i]] : 256;
        const uint32_t *mask = qsi_matcher_mask(m);
        bool may = mask && in_mask(mask, id), any = false;
        for (int k = 0; mask && k < N_IDS; k++) any = any || in_mask(mask, k);
        bool ok = qsi_matcher_accept(m, id);
        if (!mask || !any || may != ok) answer = "broken";
        else if (!ok) answer = "reject";
    }
    qsi_matcher_free(m);
    return answer;
}

static qs_status compile(qsi_grammar **g, const char *kind, const char *p, size_t n, qs_err *err) {
    if (!strcmp(kind, "schema")) return qsi_grammar_from_schema(g, p, n, NULL, err);
    if (!strcmp(kind, "gbnf")) return qsi_grammar_from_gbnf(g, p, n, NULL, err);
    return qsi_grammar_from_regex(g, p, n, NULL, err);
}

int main(void) {
    qs_err err = { 0 };
    qsi_token_trie *t = NULL;
    qsi_vocab *v = NULL;
    qsi_grammar *g = NULL;
    int32_t id_of[256];
    char kind[16];
    size_t n;
    char *text = malloc(MAX_TEXT);
    if (!text || make_trie(&t, &v, id_of, &err) != QS_OK) return fprintf(stderr, "%s\n", err.text), 1;
    while (scanf("%15s %zu", kind, &n) == 2 && getchar() == '\n') {
        if (n > MAX_TEXT || fread(text, 1, n, stdin) != n) break;
        if (!strcmp(kind, "text")) {
            puts(try_text(g, t, id_of, text, n));
        } else {
            qsi_grammar_release(g);
            g = NULL;
            err = (qs_err){ 0 };
            qs_status st = compile(&g, kind, text, n, &err);
            if (st == QS_OK) puts("ok");
            else printf("refused %d: %s\n", (int)st, err.text);
        }
        fflush(stdout);
    }
    qsi_grammar_release(g);
    qsi_token_trie_release(t);
    qsi_vocab_free(v);
    free(text);
    return 0;
}
