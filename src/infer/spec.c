/* Speculation: see spec.h. */
#include "infer/spec.h"

#define SHORTEST 2
#define LONGEST 6
#define WINDOW 16384       /* ids that are looked through */
#define CAREFUL 0.1        /* weight of what is new in running means */
#define FIRST_GUESS 0.5    /* before anything was seen of a sequence */
#define SLOPE 0.03         /* of a step's time that a row more takes, before it was seen */
#define PAUSE 16           /* ids without a trial after a loss, doubled with each up to PAUSE << 4 */

int32_t qsi_spec_lookup(const int32_t *ids, size_t n, int32_t most, int32_t *out, int32_t *n_match) {
    size_t best = 0, best_len = 0;
    size_t from = n > WINDOW ? n - WINDOW : 0;
    *n_match = 0;
    if (n < SHORTEST + 1) return 0;
    for (size_t end = n - 1; end > from && best_len < LONGEST; end--) { /* a match ends before `end` */
        size_t len = 0;
        while (len < LONGEST && len < end - from && ids[end - 1 - len] == ids[n - 1 - len]) len++;
        if (len > best_len) {
            best_len = len;
            best = end;
        }
    }
    if (best_len < SHORTEST) return 0;
    int32_t m = 0;
    for (size_t i = best; i < n && m < most; i++) out[m++] = ids[i];
    *n_match = (int32_t)best_len;
    return m;
}

void qsi_spec_cost_add(qsi_spec_cost *c, int32_t rows, double seconds) {
    if (rows < 1 || rows >= QSI_SPEC_ROWS) return;
    double *s = &c->s[rows];
    *s = *s == 0 ? seconds : *s + CAREFUL * (seconds - *s);
}

double qsi_spec_cost_of(const qsi_spec_cost *c, int32_t rows) {
    int32_t below = rows, above = rows;
    if (rows >= QSI_SPEC_ROWS) below = above = QSI_SPEC_ROWS - 1;
    while (below > 0 && c->s[below] == 0) below--;
    while (above < QSI_SPEC_ROWS && c->s[above] == 0) above++;
    bool has_above = above < QSI_SPEC_ROWS;
    if (below == rows) return c->s[rows];
    if (below > 0 && has_above) {
        double part = (double)(rows - below) / (double)(above - below);
        double s = c->s[below] + part * (c->s[above] - c->s[below]);
        return s > c->s[below] ? s : c->s[below];
    }
    if (below > 0) return c->s[below] * (1 + SLOPE * (double)(rows - below));
    return has_above ? c->s[above] : 0;
}

void qsi_spec_rate_init(qsi_spec_rate *r) { *r = (qsi_spec_rate){ .come = FIRST_GUESS }; }

void qsi_spec_rate_add(qsi_spec_rate *r, int32_t n_fed, int32_t n_came) {
    for (int32_t i = 0; i < n_came; i++) r->come += CAREFUL * (1 - r->come);
    if (n_came < n_fed) r->come += CAREFUL * (0 - r->come);
    if (n_came > 0) r->losses = 0;
}

int32_t qsi_spec_choose(qsi_spec_rate *r, const qsi_spec_cost *c, int32_t rows, int32_t n_seqs,
                        int32_t n, double each_s) {
    double base = qsi_spec_cost_of(c, rows), ids = n_seqs, best = 0, p = 1;
    int32_t k = 0;
    if (r->pause > 0) {
        r->pause--;
        return 0;
    }
    if (n == 0 || base <= 0) return 0;
    best = ids / base;
    for (int32_t i = 1; i <= n; i++) {
        p *= r->come;
        ids += p;
        double rate = ids / (qsi_spec_cost_of(c, rows + i) + i * each_s);
        if (rate <= best) continue;
        best = rate;
        k = i;
    }
    if (k == 0) { /* it loses: tried again later, when the text may have changed */
        r->pause = PAUSE << (r->losses < 4 ? r->losses : 4);
        r->losses++;
        r->come = FIRST_GUESS;
    }
    return k;
}
