/* Speculation: which ids are worth being fed ahead of what is known, and how many.
 *
 * Guesses come from the text itself (prompt lookup: what followed the last ids when they stood
 * there before; Saxena 2023, github.com/apoorvumang/prompt-lookup-decoding), from the model's own
 * further layer, or from a small model. Whether a guess pays is measured: how often guesses come,
 * per sequence, and what steps of so many rows take, per scheduler. Thread: owner. */
#ifndef QSI_INFER_SPEC_H
#define QSI_INFER_SPEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What followed the longest of the last ids (2 to 6 of them) where they stood last before: up to
 * `most` ids into out; returns how many, and the length of what was found in *n_match. */
int32_t qsi_spec_lookup(const int32_t *ids, size_t n, int32_t most, int32_t *out, int32_t *n_match);

#define QSI_SPEC_ROWS 65
/* What steps without prompts take, by their rows. */
typedef struct qsi_spec_cost {
    double s[QSI_SPEC_ROWS]; /* seconds, a running mean; 0: never seen */
} qsi_spec_cost;
void qsi_spec_cost_add(qsi_spec_cost *c, int32_t rows, double seconds);
/* Of a step of so many rows, from what was seen of others where it never was; 0: nothing was
 * seen. */
double qsi_spec_cost_of(const qsi_spec_cost *c, int32_t rows);

/* How often a sequence's guesses come. */
typedef struct qsi_spec_rate {
    double come;     /* that a guess comes when those before it did, a running mean */
    int32_t pause;   /* ids to go before it is tried again */
    int32_t losses;  /* pauses in a row */
} qsi_spec_rate;
void qsi_spec_rate_init(qsi_spec_rate *r);
/* So many were fed, so many of them came. */
void qsi_spec_rate_add(qsi_spec_rate *r, int32_t n_fed, int32_t n_came);
/* How many of n guesses to feed in a step that has `rows` rows already, this sequence's next among
 * them (it is one of n_seqs that decode): the number with the most ids in a second. each_s: what
 * making one costs. */
int32_t qsi_spec_choose(qsi_spec_rate *r, const qsi_spec_cost *c, int32_t rows, int32_t n_seqs,
                        int32_t n, double each_s);

#endif
