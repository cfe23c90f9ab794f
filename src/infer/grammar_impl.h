/* Inside of structured output: expressions, the automaton, sets of items. Only grammar*.c and
 * token_trie.c include this.
 *
 * A reader of some language (gbnf, regex, schema) builds expressions; gr_build turns them into rules,
 * each an automaton over bytes with calls to other rules. Matching is Earley's algorithm over these
 * automata: a state of an answer is a set of items (node, origin), where the origin is not a position
 * in the text but the set itself in which the rule was called. Equal situations therefore are equal
 * sets, and sets are interned: what follows from a set is worked out once.
 *
 * Repetition {m,n} is a counter in the item, not n copies. An item holds one counter: a repetition
 * within a repetition becomes a rule of its own. Source: Earley 1970; Aycock and Horspool 2002
 * (nullable rules); Turoňová et al. 2020 (sets of counters). */
#ifndef QSI_INFER_GRAMMAR_IMPL_H
#define QSI_INFER_GRAMMAR_IMPL_H

#include <stdatomic.h>

#include "base/mem.h"
#include "infer/grammar.h"
#include "sys/thread.h"

/* ---- expressions (grammar_expr.c) ---- */

#define GR_MAX_CP 0x10FFFFu
#define GR_INF INT64_MAX
#define GR_MAX_COUNT (INT64_C(1) << 30)
enum { GR_MAX_DEPTH = 256 }; /* of nesting, in every language */

typedef struct gr_range {
    uint32_t lo, hi; /* code points, both included */
} gr_range;

typedef enum gr_kind {
    GR_NEVER, /* matches nothing */
    GR_TEXT,  /* these bytes; n == 0: the empty text */
    GR_CLASS, /* one character of a class */
    GR_SEQ,
    GR_ALT,
    GR_REPEAT, /* kids[0], lo to hi times */
    GR_RULE    /* what rule `rule` matches */
} gr_kind;

typedef struct gr_expr gr_expr;
struct gr_expr {
    gr_kind kind;
    uint8_t can, empty; /* it can be completed; without a byte: 1 yes, 2 no, 0 not known yet */
    uint32_t rule;
    size_t n; /* bytes, ranges or kids */
    union {
        const char *text;
        const gr_range *ranges; /* ascending, apart, no surrogates */
        gr_expr **kids;
    };
    int64_t lo, hi;
};

typedef struct gr_rule_expr {
    gr_expr *body;
    bool productive, nullable;
} gr_rule_expr;

/* Collects expressions and rules. The first failure sticks in `st`; functions then return NULL, and
 * take NULL where an expression is wanted. */
typedef struct gr_builder {
    qsi_arena arena;
    gr_rule_expr *rules;
    size_t n_rules, cap_rules;
    qsi_grammar_limits limits;
    size_t n_exprs;
    int64_t deadline_ns;
    bool settled; /* which rules can be completed or empty is known */
    qs_status st;
    qs_err *err;
} gr_builder;
void gr_builder_init(gr_builder *b, const qsi_grammar_limits *l, qs_err *err);
void gr_builder_release(gr_builder *b);
/* Fails the builder; returns NULL. The first failure counts. */
gr_expr *gr_fail(gr_builder *b, qs_status st, const char *fmt, ...) QS_PRINTF(3, 4);
/* The same for malformed text: QS_E_FORMAT with the offset of what is wrong. */
gr_expr *gr_fail_at(gr_builder *b, size_t offset, const char *fmt, ...) QS_PRINTF(3, 4);
/* Time is over or something failed before. */
bool gr_stopped(gr_builder *b);
void *gr_take(gr_builder *b, size_t n, size_t size); /* from the arena; NULL fails the builder */

gr_expr *gr_never(gr_builder *b);
gr_expr *gr_text(gr_builder *b, const char *p, size_t n); /* copies */
gr_expr *gr_word(gr_builder *b, const char *z);
gr_expr *gr_seq(gr_builder *b, gr_expr *const *kids, size_t n); /* copies the list */
gr_expr *gr_seq2(gr_builder *b, gr_expr *x, gr_expr *y);
gr_expr *gr_seq3(gr_builder *b, gr_expr *x, gr_expr *y, gr_expr *z);
gr_expr *gr_alt(gr_builder *b, gr_expr *const *kids, size_t n);
gr_expr *gr_alt2(gr_builder *b, gr_expr *x, gr_expr *y);
gr_expr *gr_repeat(gr_builder *b, gr_expr *x, int64_t lo, int64_t hi);
gr_expr *gr_opt(gr_builder *b, gr_expr *x);
gr_expr *gr_rule(gr_builder *b, uint32_t rule);
/* A list that grows; seq and alt make an expression of it and empty it. */
typedef struct gr_list {
    gr_expr **e;
    size_t n, cap;
} gr_list;
void gr_list_push(gr_builder *b, gr_list *l, gr_expr *e);
gr_expr *gr_list_seq(gr_builder *b, gr_list *l);
gr_expr *gr_list_alt(gr_builder *b, gr_list *l);
void gr_list_release(gr_list *l);
/* A new rule without a body yet; UINT32_MAX when it failed. */
uint32_t gr_new_rule(gr_builder *b);
void gr_set_rule(gr_builder *b, uint32_t rule, gr_expr *body);

/* Classes of characters. `set` grows; gr_class_of sorts, joins and drops surrogates. */
typedef struct gr_charset {
    gr_range *r;
    size_t n, cap;
} gr_charset;
void gr_charset_add(gr_builder *b, gr_charset *s, uint32_t lo, uint32_t hi);
void gr_charset_add_all(gr_builder *b, gr_charset *s, const gr_charset *other);
void gr_charset_tidy(gr_charset *s);
void gr_charset_negate(gr_builder *b, gr_charset *s);
void gr_charset_minus(gr_builder *b, gr_charset *s, const gr_charset *other);
bool gr_charset_has(const gr_charset *s, uint32_t cp); /* tidy sets */
gr_expr *gr_class(gr_builder *b, gr_charset *s);       /* tidies; copies */
void gr_charset_release(gr_charset *s);

/* ---- regular expressions (grammar_regex.c) ---- */

typedef struct gr_regex_opts {
    bool search; /* the expression may match anywhere in the text, as ECMAScript's test() */
    bool ecma;   /* . and \\s as in ECMAScript, else as in Python */
} gr_regex_opts;
/* What a whole text must be. QS_E_FORMAT, QS_E_UNSUPPORTED in b. */
gr_expr *gr_regex(gr_builder *b, const char *p, size_t n, const gr_regex_opts *o);
/* Fails b unless text is UTF-8 of at most limits.bytes. */
bool gr_text_ok(gr_builder *b, const char *p, size_t n);

/* ---- the automaton (grammar_build.c) ---- */

typedef enum gr_op {
    GR_BYTES, /* one of the edges [a, a + n) */
    GR_SPLIT, /* to each of the targets [a, a + n) */
    GR_CALL,  /* rule a, then next */
    GR_ENTER, /* the counter becomes 0, then next */
    GR_LOOP,  /* again (a) or out (next), as the counter says */
    GR_BACK,  /* the counter grows, then next (the loop) */
    GR_END    /* of a rule */
} gr_op;

typedef struct gr_node {
    uint8_t op;
    bool tail; /* a call with nothing behind it */
    uint32_t a, n, next;
    uint32_t ctr; /* the counter that runs here; 0: none */
} gr_node;
typedef struct gr_edge {
    uint8_t lo, hi;
    uint32_t to;
} gr_edge;

/* How counts of one place are told apart: with no lower bound the least is as good as any, with no
 * upper bound the greatest; else they are kept as intervals. */
typedef enum gr_keep { GR_KEEP_LEAST, GR_KEEP_MOST, GR_KEEP_ALL } gr_keep;
typedef struct gr_counter {
    uint32_t lo, hi; /* hi == UINT32_MAX: no bound */
    gr_keep keep;
} gr_counter;
typedef struct gr_rule_info {
    uint32_t start;
    bool nullable;
} gr_rule_info;

typedef struct gr_cache gr_cache;
struct qsi_grammar {
    atomic_int refs;
    gr_node *nodes;
    gr_edge *edges;
    uint32_t *targets;
    gr_counter *counters; /* [0] is unused */
    gr_rule_info *rules;  /* [0] is the root */
    size_t n_nodes, n_edges, n_targets, n_counters, n_rules;
    uint8_t byte_class[256]; /* bytes that no edge tells apart have one number */
    int n_classes;
    qsi_grammar_limits limits;
    qsi_monitor *lock; /* of the list of caches and of each of them */
    gr_cache *caches;  /* one per trie */
};
/* Rule 0 of b is the root. Takes b's expressions as they are; the caller still releases b. */
qs_status gr_build(qsi_grammar **g, gr_builder *b, qs_err *err) QS_MUST_CHECK;

/* ---- sets of items (grammar_sets.c) ---- */

#define GR_SELF UINT32_MAX       /* origin: the set that the item is in */
#define GR_ROOT (UINT32_MAX - 1) /* the whole answer ends with it */
#define GR_OUT (UINT32_MAX - 2)  /* some set that is not looked at */

typedef struct gr_item {
    uint32_t node, origin;
    uint32_t label;  /* the rule that is complete at the item's end, as its origin calls it */
    uint32_t lo, hi; /* of the counter */
} gr_item;
typedef struct gr_set {
    uint32_t first, n, hash;
    bool accept, out; /* the answer may end here; a rule with origin GR_OUT ends here */
} gr_set;

enum { GR_DEAD = 0 }; /* the set in which nothing is possible */
typedef struct gr_store {
    gr_item *items;
    gr_set *sets;
    uint32_t *table; /* open addressing, 0: free */
    size_t n_items, cap_items, n_sets, cap_sets, cap_table, cap_table_alloc;
} gr_store;
qs_status gr_store_init(gr_store *s) QS_MUST_CHECK;
void gr_store_release(gr_store *s);
qs_status gr_store_copy(gr_store *to, const gr_store *from) QS_MUST_CHECK;
size_t gr_store_bytes(const gr_store *s);
/* Drops what is not reachable from the roots, which are renumbered. */
qs_status gr_store_compact(gr_store *s, uint32_t *roots, size_t n) QS_MUST_CHECK;

/* A set while it is made. */
typedef struct gr_work {
    gr_item *items;
    uint32_t *slots, *stamps;
    size_t n, cap, cap_slots, cap_stamps;
    uint32_t stamp;
    bool accept, out;
    size_t done; /* items looked at so far, ever */
} gr_work;
void gr_work_release(gr_work *w);
void gr_work_begin(gr_work *w);
qs_status gr_work_add(gr_work *w, const qsi_grammar *g, gr_item item) QS_MUST_CHECK;
/* Follows everything that needs no byte. */
qs_status gr_work_close(gr_work *w, const qsi_grammar *g, const gr_store *s) QS_MUST_CHECK;
/* Adds what waits in set `origin` for rule `label` as if that were complete. */
qs_status gr_work_complete(gr_work *w, const qsi_grammar *g, const gr_store *s, uint32_t origin,
                           uint32_t label) QS_MUST_CHECK;
/* The closed set's number. */
qs_status gr_work_intern(gr_work *w, const qsi_grammar *g, gr_store *s, uint32_t *id) QS_MUST_CHECK;
/* The set in which every answer begins. */
qs_status gr_first(gr_work *w, const qsi_grammar *g, gr_store *s, uint32_t *id) QS_MUST_CHECK;
/* The set after a byte. */
qs_status gr_step(gr_work *w, const qsi_grammar *g, gr_store *s, uint32_t from, uint8_t byte,
                  uint32_t *id) QS_MUST_CHECK;

/* ---- tokens (token_trie.c) ---- */

typedef struct gr_trie_node {
    uint32_t skip;  /* the first node that is not below this one */
    int32_t id;     /* of a token that ends here, -1: none */
    uint16_t depth; /* 1: the first byte */
    uint8_t byte;
} gr_trie_node;
struct qsi_token_trie {
    atomic_int refs;
    gr_trie_node *nodes; /* depth first */
    uint32_t n_nodes;
    int32_t n_ids;
    int32_t *same;  /* [n_ids] another id of the same bytes, -1: none */
    uint32_t *ends; /* mask of end tokens */
    char *bytes;
    uint32_t *start; /* [n_ids + 1] into bytes; empty: never matches */
    int32_t longest; /* bytes */
};

/* ---- masks (grammar_mask.c) ---- */

/* The grammar's cache for that trie, made when there is none; it lives as long as the grammar. */
qs_status gr_cache_for(qsi_grammar *g, qsi_token_trie *t, gr_cache **c, qs_err *err) QS_MUST_CHECK;
void gr_caches_free(qsi_grammar *g);
/* A number that changes when everything in the cache was dropped, and set numbers with it. */
typedef struct gr_known {
    uint32_t *id; /* [cap] the cache's number of each set of a store, 0: not known yet */
    size_t cap;
    uint64_t epoch;
} gr_known;
/* Writes the mask of set `at` of store s (end tokens included) to mask. */
qs_status gr_mask(gr_cache *c, const gr_store *s, uint32_t at, gr_known *known,
                  uint32_t *mask) QS_MUST_CHECK;

#endif
