/* What a mask costs: walks answers at random through a grammar and times qsi_matcher_mask.
 *
 *     mask_cost VOCAB.gguf KIND FILE [SECONDS]     KIND: schema, gbnf, regex or choices (one a line)
 *
 * Prints a line of CSV: kind, file, ids of the vocabulary, compile in ms, masks timed, their median,
 * 99th percentile and most in ms, first mask in ms, cost of accepting an id in us. Answers begin anew
 * when they end, with the same compiled grammar, as requests with one schema do; --cold (last)
 * compiles for every answer. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/mem.h"
#include "fmt/gguf.h"
#include "infer/grammar.h"
#include "sys/file.h"

enum { MAX_MASKS = 1 << 18, MAX_IDS = 400, MAX_CHOICES = 1 << 16 };

static double ms_since(int64_t t) {
    return (double)(qsi_now_ns() - t) * 1e-6;
}

static qs_status choices(qsi_grammar **g, char *text, qs_err *err) {
    static const char *list[MAX_CHOICES];
    size_t n = 0;
    for (char *p = text; *p && n < MAX_CHOICES;) {
        char *end = strchr(p, '\n');
        if (end) *end = 0;
        if (*p) list[n++] = p;
        if (!end) break;
        p = end + 1;
    }
    return qsi_grammar_from_choices(g, list, n, NULL, err);
}

static qs_status compile(qsi_grammar **g, const char *kind, const char *text, size_t n, qs_err *err) {
    if (!strcmp(kind, "schema")) return qsi_grammar_from_schema(g, text, n, NULL, err);
    if (!strcmp(kind, "gbnf")) return qsi_grammar_from_gbnf(g, text, n, NULL, err);
    if (!strcmp(kind, "regex")) return qsi_grammar_from_regex(g, text, n, NULL, err);
    char *copy = qsi_strdup(text);
    qs_status st = copy ? choices(g, copy, err) : QS_E_NOMEM;
    qsi_free(copy);
    return st;
}

/* An id of the mask, by chance; half the time the longest of some, so that tokens matter. */
static int32_t draw(qsi_rng *rng, const uint32_t *mask, const qsi_vocab *v, int32_t n) {
    int32_t best = -1;
    for (int tries = 0; tries < 4; tries++) {
        int32_t id = (int32_t)qsi_rng_below(rng, (uint64_t)n), seen = 0;
        while (!(mask[id / 32] >> (id % 32) & 1) && seen++ < n) id = (id + 1) % n;
        if (best < 0 || (qsi_vocab_bytes(v, id).n > qsi_vocab_bytes(v, best).n)) best = id;
    }
    return best;
}

typedef struct costs {
    double *mask; /* ms */
    size_t n;
    double accept_us, first;
    size_t n_accept;
} costs;

static bool answer(qsi_grammar *g, qsi_token_trie *t, const qsi_vocab *v, qsi_rng *rng, costs *c,
                   qs_err *err) {
    qsi_matcher *m = NULL;
    if (qsi_matcher_create(&m, g, t, err) != QS_OK) return false;
    for (int i = 0; i < MAX_IDS && c->n < MAX_MASKS && !qsi_matcher_done(m); i++) {
        int64_t start = qsi_now_ns();
        const uint32_t *mask = qsi_matcher_mask(m);
        double ms = ms_since(start);
        if (!mask) {
            (void)qsi_matcher_error(m, err);
            qsi_matcher_free(m);
            return false;
        }
        if (c->n == 0) c->first = ms;
        c->mask[c->n++] = ms;
        int32_t id = draw(rng, mask, v, qsi_token_trie_size(t));
        start = qsi_now_ns();
        (void)qsi_matcher_accept(m, id);
        c->accept_us += ms_since(start) * 1e3;
        c->n_accept++;
    }
    qsi_matcher_free(m);
    return true;
}

static int ascending(const void *x, const void *y) {
    double a = *(const double *)x, b = *(const double *)y;
    return a < b ? -1 : a > b;
}

static char *read_all(const char *path, size_t *n) {
    FILE *f = fopen(path, "rb");
    char *p = malloc(8 << 20);
    if (!f || !p) return NULL;
    *n = fread(p, 1, (8 << 20) - 1, f);
    p[*n] = 0;
    fclose(f);
    return p;
}

int main(int argc, char **argv) {
    qs_err err = { 0 };
    qsi_gguf *gg = NULL;
    qsi_vocab *v = NULL;
    qsi_token_trie *t = NULL;
    qsi_grammar *g = NULL;
    size_t n = 0;
    bool cold = argc > 4 && !strcmp(argv[argc - 1], "--cold");
    char *text = argc > 3 ? read_all(argv[3], &n) : NULL;
    if (!text)
        return fprintf(stderr, "usage: mask_cost VOCAB.gguf KIND FILE [SECONDS] [--cold]\n"), 2;
    double seconds = argc > 4 && !(cold && argc == 5) ? strtod(argv[4], NULL) : 2;
    costs c = { .mask = malloc(MAX_MASKS * sizeof *c.mask) };
    if (!c.mask || qsi_gguf_open(&gg, argv[1], &err) != QS_OK ||
        qsi_vocab_load_gguf(&v, gg, &err) != QS_OK || qsi_token_trie_create(&t, v, &err) != QS_OK)
        return fprintf(stderr, "mask_cost: %s\n", err.text), 1;
    int64_t start = qsi_now_ns();
    if (compile(&g, argv[2], text, n, &err) != QS_OK)
        return fprintf(stderr, "mask_cost: %s\n", err.text), 1;
    double compile_ms = ms_since(start);
    qsi_rng rng;
    qsi_rng_init(&rng, 1);
    for (start = qsi_now_ns(); ms_since(start) < seconds * 1e3 && c.n < MAX_MASKS;) {
        if (!answer(g, t, v, &rng, &c, &err)) return fprintf(stderr, "mask_cost: %s\n", err.text), 1;
        if (!cold) continue;
        qsi_grammar_release(g);
        if (compile(&g, argv[2], text, n, &err) != QS_OK) return 1;
    }
    qsort(c.mask, c.n, sizeof *c.mask, ascending);
    printf("%s,%s,%d,%.3f,%zu,%.4f,%.4f,%.4f,%.4f,%.3f\n", argv[2], argv[3],
           (int)qsi_token_trie_size(t), compile_ms, c.n, c.mask[c.n / 2], c.mask[c.n - 1 - c.n / 100],
           c.mask[c.n - 1], c.first, c.accept_us / (double)c.n_accept);
    qsi_grammar_release(g);
    qsi_token_trie_release(t);
    qsi_vocab_free(v);
    qsi_gguf_close(&gg);
    free(text);
    free(c.mask);
    return 0;
}
