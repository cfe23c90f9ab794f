/* Compiled grammars as objects, and the simplest language of all: a list of choices. */
#include <string.h>

#include "infer/grammar_impl.h"

qsi_grammar *qsi_grammar_retain(qsi_grammar *g) {
    atomic_fetch_add_explicit(&g->refs, 1, memory_order_relaxed);
    return g;
}

void qsi_grammar_release(qsi_grammar *g) {
    /* pairs with the other releases: the last one sees all that was done */
    if (!g || atomic_fetch_sub_explicit(&g->refs, 1, memory_order_acq_rel) != 1) return;
    gr_caches_free(g);
    qsi_monitor_free(g->lock);
    qsi_free(g->nodes);
    qsi_free(g->edges);
    qsi_free(g->targets);
    qsi_free(g->counters);
    qsi_free(g->rules);
    qsi_free(g);
}

static gr_expr *choice(gr_builder *b, const char *text, size_t i, size_t *total) {
    size_t n = text ? strlen(text) : 0;
    if (n == 0) return gr_fail(b, QS_E_ARG, "choice %zu is empty", i);
    *total += n;
    if (*total > b->limits.bytes)
        return gr_fail(b, QS_E_LIMIT, "the choices have more than %zu bytes", b->limits.bytes);
    return gr_text_ok(b, text, n) ? gr_text(b, text, n) : NULL;
}

qs_status qsi_grammar_from_choices(qsi_grammar **g, const char *const *list, size_t n,
                                   const qsi_grammar_limits *l, qs_err *err) {
    qs_status st = QS_OK;
    gr_builder b;
    gr_list kids = { 0 };
    size_t total = 0;
    gr_builder_init(&b, l, err);
    if (n == 0) gr_fail(&b, QS_E_ARG, "the list of choices is empty");
    uint32_t root = gr_new_rule(&b);
    for (size_t i = 0; i < n && b.st == QS_OK; i++)
        gr_list_push(&b, &kids, choice(&b, list[i], i, &total));
    gr_set_rule(&b, root, gr_list_alt(&b, &kids));
    QS_TRY(gr_build(g, &b, err));
done:
    gr_builder_release(&b);
    return st;
}
