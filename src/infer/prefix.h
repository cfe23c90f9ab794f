/* What was computed before: a radix tree of cache pages, keyed by the ids in them, an edge a page
 * of 64 positions. A prompt that begins like an earlier text takes that beginning's pages; the
 * page in which they part is copied when it is written to (runner's `own`), so that every common
 * id counts.
 *
 * Where prompts and generated ids are computed on different paths, an exact tree tells them apart:
 * its pages are then bit for bit what the prompt would give. Thread: owner. */
#ifndef QSI_INFER_PREFIX_H
#define QSI_INFER_PREFIX_H

#include "infer/engine.h"

typedef struct qsi_prefix qsi_prefix;
/* The runner is borrowed; it shares pages. exact: see above; of no meaning where there is one
 * path. */
qs_status qsi_prefix_create(qsi_prefix **p, const qsi_runner *r, bool exact, qs_err *err) QS_MUST_CHECK;
void qsi_prefix_free(qsi_prefix *p);

/* How many of the first ids stand in pages, which go to pages [(n + 63) / 64]: they are the
 * tree's, to be shared before the next call. generated [n] may be NULL: none is. */
size_t qsi_prefix_match(qsi_prefix *p, const int32_t *ids, const bool *generated, size_t n,
                        int32_t *pages);
/* Keeps ids, whose pages (n + 63) / 64 these are, as far as they are not there. What there is no
 * memory for is left out. */
void qsi_prefix_add(qsi_prefix *p, const int32_t *ids, const bool *generated, size_t n,
                    const int32_t *pages);
/* Gives up what was longest without use until the runner has n_free free pages; false: there is
 * nothing more that would free one. */
bool qsi_prefix_make_room(qsi_prefix *p, int64_t n_free);
/* Pages that the tree alone holds. */
int64_t qsi_prefix_n_own(const qsi_prefix *p);

/* The tree as a file (prefix_disk.c). key: a number of everything that the pages' bytes depend on;
 * a file of another one, or a damaged one, is left alone with a note in the log and counts as
 * none. Saving keeps what was used last, max_bytes at most; nothing is left of it when it fails. */
qs_status qsi_prefix_save(qsi_prefix *p, const char *path, uint64_t key, uint64_t max_bytes,
                          int64_t *n_saved, qs_err *err) QS_MUST_CHECK;
qs_status qsi_prefix_load(qsi_prefix *p, const char *path, uint64_t key, int64_t *n_loaded,
                          qs_err *err) QS_MUST_CHECK;

/* For that: nodes in an order that has parents first. */
typedef struct qsi_prefix_node {
    int32_t page, n;          /* ids in it; less than 64 only where nothing follows */
    int32_t parent;           /* index, -1: at the beginning */
    int32_t first, next;      /* first child, next child of the same parent; -1: none */
    uint64_t used;            /* a clock of uses */
    int32_t keys[QSI_KV_PAGE]; /* ids; with bit 30 where an exact tree has a generated one */
} qsi_prefix_node;
struct qsi_prefix {
    const qsi_runner *r;
    bool exact;
    uint64_t clock;
    qsi_prefix_node *nodes;   /* [cap] */
    size_t n, cap;            /* nodes used so far; page -1: free for use */
    int32_t root, spare;      /* first node at the beginning; list of free nodes by `next` */
};
/* A child of `parent` with keys [n] whose page the tree then holds too; -1: no memory. */
int32_t qsi_prefix_put(qsi_prefix *p, int32_t parent, const int32_t *keys, int32_t n, int32_t page);

#endif
