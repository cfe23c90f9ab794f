/* The cache of experts that are read from disk as they are needed. See residency.h. */
#include "model/residency.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "sys/file.h"

#define FORGET 8192.0  /* rows after which counts are halved */
#define CERTAIN 0.9f   /* an expert so likely to be used is read before its layer */
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

/* The slot to give away: free, or least worth and last to be used again; NULL when all are in use or
 * being filled. keep: a layer whose experts stay. */
static qsi_res_slot *victim(qsi_res *r, int32_t layer, int32_t keep) {
    qsi_res_slot *best = NULL;
    for (int64_t i = 0; i < r->n_slots; i++) {
        qsi_res_slot *s = &r->slots[i];
        if (s->owner < 0) return s;
        int32_t l = s->owner / r->c->n_expert;
        if (s->stamp == r->turn || l == keep || !ready(r, s->owner)) continue;
        if (!best || s->worth < best->worth ||
            (s->worth <= best->worth &&
             distance(r, l, layer) > distance(r, best->owner / r->c->n_expert, layer)))
            best = s;
    }
    return best;
}

static void fetch(qsi_res *r, qsi_res_slot *s, int32_t owner, int64_t n_rows) {
    if (s->owner >= 0) r->expert_slot[s->owner] = -1;
    r->expert_slot[owner] = (int32_t)(s - r->slots);
    s->owner = owner;
    s->worth = floorf(BINS * log2f(likely(r, owner, n_rows)));
    char *mem = s->mem;
    for (int j = 0; j < 3; j++) {
        int32_t u = r->expert_units[(size_t)owner * 3 + (size_t)j];
        qsi_res_load(r, u, mem);
        mem += r->units[u].bytes;
    }
    qsi_crew_wake(r->crew);
}

/* Marks those that are here, fetches the others. */
static void fetch_needed(qsi_res *r, int32_t layer, const int32_t *count, int64_t n_rows) {
    int32_t E = r->c->n_expert, base = layer * E;
    for (int32_t e = 0; e < E; e++) {
        if (!count[e]) continue;
        r->io.uses++;
        r->expert_uses[base + e]++;
        int32_t s = r->expert_slot[base + e];
        if (s < 0) continue;
        r->io.hits++;
        r->slots[s].stamp = r->turn;
    }
    for (int64_t i = 0; i < r->n_slots; i++)
        if (r->slots[i].owner >= 0)
            r->slots[i].worth = floorf(BINS * log2f(likely(r, r->slots[i].owner, n_rows)));
    for (int32_t e = 0; e < E; e++) {
        if (!count[e] || r->expert_slot[base + e] >= 0) continue;
        qsi_res_slot *s;
        /* all slots may be on their way for the next layer */
        while (!(s = victim(r, layer, -1)) && r->st == QS_OK) qsi_crew_wait(r->crew);
        if (r->st != QS_OK) return;
        fetch(r, s, base + e, n_rows);
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
        qsi_res_slot *s = victim(r, layer, next);
        if (!s) return;
        fetch(r, s, owner, n_rows);
    }
}

static void place(qsi_res *r, int32_t owner) {
    for (int j = 0; j < 3; j++) {
        const qsi_res_unit *u = &r->units[r->expert_units[(size_t)owner * 3 + (size_t)j]];
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
        fetch_needed(r, layer, count, n_rows);
        fetch_next(r, layer, n_rows);
        for (int32_t e = 0; e < E; e++) {
            if (!count[e]) continue;
            while (r->st == QS_OK && !ready(r, layer * E + e)) qsi_crew_wait(r->crew);
            if (r->st != QS_OK) break;
            place(r, layer * E + e);
        }
        r->stopped = r->st != QS_OK;
        qsi_crew_unlock(r->crew);
        r->io.wait_ns += qsi_now_ns() - t0;
    }
    qsi_barrier(wk);
    return !r->stopped;
}

/* ---- statistics ---- */

qs_status qsi_res_step_done(qsi_res *r, qs_err *err) {
    r->io.steps++;
    return r->stopped ? qsi_res_status(r, err) : QS_OK;
}

/* One large read at a time, or several smaller ones: the better of the two is what the disk can do. */
qs_status qsi_res_disk_rate(qsi_res *r, const qsi_gguf *g, uint64_t bytes, double *rate,
                            qs_err *err) {
    qs_status st = QS_OK;
    qsi_direct d = {.fd = -1};
    double one = 0, many = 0;
    if (qsi_gguf_fd(g) < 0) QS_FAIL(err, QS_E_UNSUPPORTED, "a model in memory has no disk");
    if (r) qsi_res_settle(r);
    QS_TRY(qsi_direct_open(&d, qsi_gguf_fd(g), qsi_gguf_path(g), err));
    QS_TRY(qsi_direct_rate(&d, 0, bytes / 2, 1, (size_t)4 << 20, &one, err));
    QS_TRY(qsi_direct_rate(&d, bytes / 2, bytes / 2, 4, (size_t)1 << 20, &many, err));
    *rate = one > many ? one : many;
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
    *out = r->io;
    out->on = true;
    out->file_bytes = r->total_file_bytes;
    out->resident_bytes = r->fixed_bytes;
    out->stream_bytes = r->stream_file_bytes;
    out->read_bytes = atomic_load(&r->moved);
    out->slots = r->n_slots;
    out->away_bytes = r->stream_file_bytes;
    if (r->n_slots)
        out->away_bytes += r->expert_file_bytes / (uint64_t)r->io.experts *
                           (uint64_t)(r->io.experts - r->n_slots);
    if (r->n_slots) out->fixed_hits = best_fixed(r);
    if (!reset) return;
    atomic_store(&r->moved, 0);
    r->io = (qsi_model_io){.experts = r->io.experts};
    if (r->n_slots)
        memset(r->expert_uses, 0,
               (size_t)r->c->n_layer * (size_t)r->c->n_expert * sizeof *r->expert_uses);
}
