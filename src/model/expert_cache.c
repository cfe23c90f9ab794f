/* The cache of experts that are read from disk as they are needed. See residency.h. */
#include "model/residency.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "sys/file.h"

#define FORGET 8192.0  /* rows after which counts are halved */
#define CERTAIN 0.9f   /* an expert so likely to be used is read before its layer */
#define WORTHLESS -1e9f
#define JUDGED 256.0   /* guesses that are remembered, about */
#define RIGHT 0.7      /* share of them that must have been right for the next to be read */
#define BINS 8.0f      /* worth is compared in steps of 2^(1/8): counts are estimates */

void qsi_res_slots_init(qsi_res *r, char *mem) {
    for (int64_t i = 0; i < r->n_slots; i++)
        r->slots[i] = (qsi_res_slot){.owner = -1, .mem = mem + (size_t)i * r->slot_bytes};
}

static bool ready(const qsi_res *r, int32_t owner) {
    for (int j = 0; j < 3; j++)
        if (r->units[r->expert_units[(size_t)owner * 3 + (size_t)j]].left > 0) return false;
    return true;
}

/* Probability that a step of so many rows uses the expert. Before anything is known it is that of a
 * uniform router. */
static float likely(const qsi_res *r, int32_t owner, int64_t n_rows) {
    int32_t layer = owner / r->c->n_expert;
    double even = (double)r->c->n_expert_used / (double)r->c->n_expert;
    double p = (r->expert_rows[owner] + even) / (r->layer_rows[layer] + 1);
    return (float)(1 - pow(1 - (p < 1 ? p : 1), (double)n_rows));
}

static void count_rows(qsi_res *r, int32_t layer, const int32_t *count, int64_t n_rows) {
    int64_t E = r->c->n_expert, base = layer * E;
    if (r->layer_rows[layer] > FORGET) {
        r->layer_rows[layer] /= 2;
        for (int64_t e = 0; e < E; e++) r->expert_rows[base + e] /= 2;
    }
    r->layer_rows[layer] += (double)n_rows;
    for (int64_t e = 0; e < E; e++) r->expert_rows[base + e] += count[e];
}

/* Layers until this one is used again, after `layer`. */
static int32_t distance(const qsi_res *r, int32_t of, int32_t layer) {
    int32_t d = of - layer;
    return d > 0 ? d : d + r->c->n_layer;
}

static int32_t unit_of(const qsi_res *r, int32_t owner, int j) {
    return r->expert_units[(size_t)owner * 3 + (size_t)j];
}

/* A guess of which nothing has been read yet. */
static bool untouched(const qsi_res *r, const qsi_res_slot *s) {
    if (!s->guess) return false;
    for (int j = 0; j < 3; j++)
        if (r->units[unit_of(r, s->owner, j)].next > 0) return false;
    return true;
}

/* Frees the slot; what stands in the queues of it has nothing left to hand out. */
static void forget(qsi_res *r, qsi_res_slot *s) {
    for (int j = 0; j < 3; j++) {
        qsi_res_unit *u = &r->units[unit_of(r, s->owner, j)];
        int64_t rows = qsi_min64(u->next * u->panel_rows, u->n_out);
        if (s->guess) r->io.wasted_bytes += (uint64_t)rows * u->src_row;
        u->next = u->panels;
        u->left = 0;
    }
    r->expert_slot[s->owner] = -1;
    s->owner = -1;
    s->guess = false;
}

/* The slot to give away: free, or least worth and last to be used again; NULL when all are in use,
 * being filled, or (unless hard) guessed to be used soon. keep: a layer whose experts stay. */
static qsi_res_slot *victim(qsi_res *r, int32_t layer, int32_t keep, bool hard) {
    qsi_res_slot *best = NULL;
    for (int64_t i = 0; i < r->n_slots; i++) {
        qsi_res_slot *s = &r->slots[i];
        if (s->owner < 0) return s;
        int32_t l = s->owner / r->c->n_expert;
        if (s->stamp == r->turn || l == keep || (!hard && s->due > r->turn)) continue;
        if (!ready(r, s->owner) && !untouched(r, s)) continue;
        if (!best || s->worth < best->worth ||
            (s->worth <= best->worth &&
             distance(r, l, layer) > distance(r, best->owner / r->c->n_expert, layer)))
            best = s;
    }
    return best;
}

static void fetch(qsi_res *r, qsi_res_slot *s, int32_t owner, int64_t n_rows, int queue) {
    if (s->owner >= 0) forget(r, s);
    r->expert_slot[owner] = (int32_t)(s - r->slots);
    s->owner = owner;
    s->due = 0;
    s->guess = queue == QSI_RES_GUESSED;
    s->worth = floorf(BINS * log2f(likely(r, owner, n_rows)));
    char *mem = s->mem;
    for (int j = 0; j < 3; j++) {
        int32_t u = unit_of(r, owner, j);
        qsi_res_load(r, u, mem, queue);
        mem += r->units[u].bytes;
    }
    qsi_crew_wake(r->crew);
}

/* Reads an expert into a slot that is free still, as many of each layer: memory that nobody has
 * asked for yet holds something, and is touched, before it is needed. False: there is nothing to
 * fill. The crew's lock is held. */
bool qsi_res_fill(qsi_res *r) {
    int32_t E = r->c->n_expert, first = r->c->n_dense, n = r->c->n_layer - first;
    if (!r->filling) return false;
    while (r->fill_slot < r->n_slots && r->slots[r->fill_slot].owner >= 0) r->fill_slot++;
    if (r->fill_slot == r->n_slots) return false;
    for (; r->fill_expert < n * E; r->fill_expert++) {
        int32_t owner = (first + r->fill_expert % n) * E + r->fill_expert / n;
        if (r->expert_slot[owner] >= 0) continue;
        fetch(r, &r->slots[r->fill_slot], owner, 1, QSI_RES_GUESSED);
        r->slots[r->fill_slot].guess = false;
        return true;
    }
    return false;
}

/* An expert that is used and was guessed: what is missing of it is wanted now. */
static void confirm(qsi_res *r, qsi_res_slot *s) {
    s->guess = false;
    r->io.foreseen++;
    for (int j = 0; j < 3; j++) {
        int32_t u = unit_of(r, s->owner, j);
        if (r->units[u].left > 0) qsi_res_enqueue(r, u, QSI_RES_WANTED);
    }
}

/* Marks those that are here; guesses for this layer that were wrong are dropped, or the first to be
 * given away. */
static void mark_present(qsi_res *r, int32_t layer, const int32_t *count) {
    int32_t E = r->c->n_expert, base = layer * E;
    for (int32_t e = 0; e < E; e++) {
        int32_t i = r->expert_slot[base + e];
        qsi_res_slot *s = i < 0 ? NULL : &r->slots[i];
        if (s && s->guess && !count[e] && untouched(r, s)) forget(r, s);
        if (!count[e]) continue;
        r->io.uses++;
        r->expert_uses[base + e]++;
        if (!s) continue;
        if (s->guess)
            confirm(r, s);
        else
            r->io.hits++;
        s->stamp = r->turn;
    }
}

static void fetch_needed(qsi_res *r, int32_t layer, const int32_t *count, int64_t n_rows) {
    int32_t E = r->c->n_expert, base = layer * E;
    for (int64_t i = 0; i < r->n_slots; i++) {
        qsi_res_slot *s = &r->slots[i];
        if (s->owner < 0) continue;
        s->worth = s->guess && s->due <= r->turn
                       ? WORTHLESS
                       : floorf(BINS * log2f(likely(r, s->owner, n_rows)));
    }
    for (int32_t e = 0; e < E; e++) {
        if (!count[e] || r->expert_slot[base + e] >= 0) continue;
        qsi_res_slot *s;
        /* all slots may be on their way for the next layer */
        while (!(s = victim(r, layer, -1, false)) && !(s = victim(r, layer, -1, true)) &&
               r->st == QS_OK)
            qsi_crew_wait(r->crew);
        if (r->st != QS_OK) return;
        fetch(r, s, base + e, n_rows, QSI_RES_WANTED);
        s->stamp = r->turn;
    }
}

/* Experts of the next layer that are as good as certain. */
static void fetch_next(qsi_res *r, int32_t layer, int64_t n_rows) {
    int32_t E = r->c->n_expert, next = layer + 1;
    if (next >= r->c->n_layer || r->n_slots < 2 * E) return;
    for (int32_t e = 0; e < E; e++) {
        int32_t owner = next * E + e;
        if (r->expert_slot[owner] >= 0 || likely(r, owner, n_rows) < CERTAIN) continue;
        qsi_res_slot *s = victim(r, layer, next, true);
        if (!s) return;
        fetch(r, s, owner, n_rows, QSI_RES_WANTED);
    }
}

/* How often guesses have been right is known without reading what they name. */
static void judge_guesses(qsi_res *r, const int32_t *count) {
    qsi_res_foresee *g = &r->foresee;
    for (int32_t e = 0; e < r->c->n_expert; e++) {
        if (!g->named[e]) continue;
        g->named[e] = false;
        g->tried++;
        g->right += count[e] > 0;
    }
    if (g->tried < 2 * JUDGED) return;
    g->tried /= 2;
    g->right /= 2;
}

void qsi_res_guess(qsi_res *r, int32_t layer, const int32_t *idx, int64_t n) {
    qsi_res_foresee *g = &r->foresee;
    int32_t base = layer * r->c->n_expert;
    qsi_crew_lock(r->crew);
    bool worth = g->tried >= JUDGED / 8 && g->right >= RIGHT * g->tried;
    for (int64_t i = 0; i < n; i++) { /* those that are here stay */
        int32_t s = r->expert_slot[base + idx[i]];
        if (s >= 0 && worth) r->slots[s].due = r->turn + 1;
        if (s < 0) g->named[idx[i]] = true;
    }
    for (int64_t i = 0; i < n && worth && r->st == QS_OK; i++) {
        if (r->expert_slot[base + idx[i]] >= 0) continue;
        qsi_res_slot *s = victim(r, layer - 1, layer, false);
        if (!s) break;
        fetch(r, s, base + idx[i], 1, QSI_RES_GUESSED);
        s->due = r->turn + 1;
        r->io.guesses++;
    }
    qsi_crew_unlock(r->crew);
}

static void place(qsi_res *r, int32_t owner) {
    for (int j = 0; j < 3; j++) {
        const qsi_res_unit *u = &r->units[unit_of(r, owner, j)];
        qsi_weight_place(u->w, u->mem);
    }
}

bool qsi_res_experts(const qsi_worker *wk, qsi_res *r, int32_t layer, const int32_t *count,
                     int64_t n_rows) {
    if (!r || !r->n_slots) return true;
    if (wk->index == 0) {
        int32_t E = r->c->n_expert;
        int64_t t0 = qsi_now_ns();
        qsi_crew_lock(r->crew);
        r->turn++;
        count_rows(r, layer, count, n_rows);
        judge_guesses(r, count);
        mark_present(r, layer, count);
        fetch_needed(r, layer, count, n_rows);
        fetch_next(r, layer, n_rows);
        r->first_wave = true;
        r->wave_left = 0;
        for (int32_t e = 0; e < E; e++) {
            r->taken[e] = false;
            r->wave_left += count[e] > 0;
        }
        r->stopped = r->st != QS_OK;
        qsi_crew_unlock(r->crew);
        r->io.wait_ns += qsi_now_ns() - t0;
    }
    qsi_barrier(wk);
    return !r->stopped;
}

/* Puts into the wave what is here; returns how many experts that are. */
static int32_t gather(qsi_res *r, int32_t layer, const int32_t *count) {
    int32_t E = r->c->n_expert, n = 0;
    for (int32_t e = 0; e < E; e++) {
        r->wave[e] = 0;
        if (!count[e] || r->taken[e] || !ready(r, layer * E + e)) continue;
        place(r, layer * E + e);
        r->wave[e] = count[e];
        r->taken[e] = true;
        n++;
    }
    return n;
}

bool qsi_res_wave(const qsi_worker *wk, qsi_res *r, int32_t layer, const int32_t *count,
                  const int32_t **now, int *left) {
    *now = count;
    *left = 0;
    if (!r || !r->n_slots) return true;
    if (wk->index == 0) {
        int64_t t0 = qsi_now_ns();
        int32_t n = 0;
        qsi_crew_lock(r->crew);
        while (r->st == QS_OK && !(n = gather(r, layer, count)) && !r->first_wave)
            qsi_crew_wait(r->crew);
        r->wave_left -= n;
        r->first_wave = false;
        r->stopped = r->st != QS_OK;
        qsi_crew_unlock(r->crew);
        r->io.wait_ns += qsi_now_ns() - t0;
    }
    qsi_barrier(wk);
    *now = r->wave;
    *left = r->wave_left;
    return !r->stopped;
}

/* ---- statistics ---- */

qs_status qsi_res_step_done(qsi_res *r, qs_err *err) {
    r->io.steps++;
    return r->stopped ? qsi_res_status(r, err) : QS_OK;
}

/* One large read at a time, several smaller ones, and as experts are read: the best of the three
 * is what the disk can do. */
qs_status qsi_res_disk_rate(qsi_res *r, const qsi_gguf *g, uint64_t bytes, double *rate,
                            qs_err *err) {
    static const struct { int n_threads; size_t piece; } ways[] = {
        {1, (size_t)4 << 20}, {4, (size_t)1 << 20}, {6, (size_t)512 << 10}};
    qs_status st = QS_OK;
    qsi_direct d = {.fd = -1};
    if (qsi_gguf_fd(g) < 0) QS_FAIL(err, QS_E_UNSUPPORTED, "a model in memory has no disk");
    if (r && r->crew) qsi_res_settle(r);
    QS_TRY(qsi_direct_open(&d, qsi_gguf_fd(g), qsi_gguf_path(g), err));
    *rate = 0;
    for (size_t i = 0; i < QSI_COUNT(ways); i++) {
        double x = 0;
        uint64_t part = bytes / QSI_COUNT(ways);
        QS_TRY(qsi_direct_rate(&d, i * part, part, ways[i].n_threads, ways[i].piece, &x, err));
        if (x > *rate) *rate = x;
    }
done:
    qsi_direct_close(&d);
    return st;
}

static int descending(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x < y) - (x > y);
}

/* What the most used n_slots experts were used, all together. */
static int64_t best_fixed(const qsi_res *r) {
    size_t n = (size_t)r->c->n_layer * (size_t)r->c->n_expert;
    int64_t *uses = qsi_alloc(n, sizeof *uses), sum = 0;
    if (!uses) return 0;
    memcpy(uses, r->expert_uses, n * sizeof *uses);
    qsort(uses, n, sizeof *uses, descending);
    for (size_t i = 0; i < n && (int64_t)i < r->n_slots; i++) sum += uses[i];
    qsi_free(uses);
    return sum;
}

void qsi_res_io(qsi_res *r, qsi_model_io *out, bool reset) {
    if (r->crew) { /* what has not ended yet counts as well */
        qsi_crew_lock(r->crew);
        int64_t now = qsi_now_ns();
        if (r->flying) r->io.busy_ns += now - r->since;
        r->since = now;
    }
    *out = r->io;
    if (reset) r->io = (qsi_model_io){.experts = r->io.experts};
    if (r->crew) qsi_crew_unlock(r->crew);
    out->on = true;
    out->file_bytes = r->total_file_bytes;
    out->resident_bytes = r->fixed_bytes;
    out->stream_bytes = r->stream_file_bytes;
    out->read_bytes = atomic_load(&r->moved);
    out->slots = r->n_slots;
    out->away_bytes = r->stream_file_bytes;
    if (r->n_slots)
        out->away_bytes += r->expert_file_bytes / (uint64_t)out->experts *
                           (uint64_t)(out->experts - r->n_slots);
    if (r->n_slots) out->fixed_hits = best_fixed(r);
    if (!reset) return;
    atomic_store(&r->moved, 0);
    if (r->n_slots)
        memset(r->expert_uses, 0,
               (size_t)r->c->n_layer * (size_t)r->c->n_expert * sizeof *r->expert_uses);
}
