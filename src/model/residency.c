/* Weights that do not fit in memory: the plan, the ring, loading. See residency.h. */
#include "model/residency.h"

#include <inttypes.h>
#include <string.h>

#include "model/layer.h"
#include "sys/file.h"

/* Several pieces are under way at a time; those of experts are smaller, so that all threads are
 * busy when one expert is missing. */
enum { N_THREADS = 6, PIECE = 1 << 20, EXPERT_PIECE = 512 << 10 };
/* What a ring holds beyond the largest group: reading goes on while a group computes. */
#define READ_AHEAD ((size_t)96 << 20)

qs_status qsi_res_create(qsi_res **out, const qsi_config *c, const qsi_gguf *g, qs_err *err) {
    qs_status st = QS_OK;
    qsi_res *r = qsi_calloc(1, sizeof *r);
    if (!r) QS_FAIL(err, QS_E_NOMEM, "no memory for running from disk");
    *r = (qsi_res){.c = c, .g = g, .file.fd = -1, .handing = -1,
                   .n_groups = (int64_t)qsi_res_head_group(c) + 1};
    qsi_arena_init(&r->ar);
    if (qsi_gguf_fd(g) < 0)
        QS_FAIL(err, QS_E_UNSUPPORTED, "a model in memory or in several files cannot be run from "
                "disk: join its files");
    if (c->n_expert) {
        size_t n = (size_t)c->n_layer * (size_t)c->n_expert;
        r->expert_units = qsi_alloc(3 * n, sizeof *r->expert_units);
        r->expert_slot = qsi_alloc(n, sizeof *r->expert_slot);
        r->expert_rows = qsi_calloc(n, sizeof *r->expert_rows);
        r->expert_uses = qsi_calloc(n, sizeof *r->expert_uses);
        r->layer_rows = qsi_calloc((size_t)c->n_layer, sizeof *r->layer_rows);
        r->wave = qsi_calloc((size_t)c->n_expert, sizeof *r->wave);
        r->taken = qsi_calloc((size_t)c->n_expert, sizeof *r->taken);
        if (!r->expert_units || !r->expert_slot || !r->expert_rows || !r->expert_uses ||
            !r->layer_rows || !r->wave || !r->taken)
            QS_FAIL(err, QS_E_NOMEM, "no memory for running %zu experts from disk", n);
        for (size_t i = 0; i < 3 * n; i++) r->expert_units[i] = -1;
        for (size_t i = 0; i < n; i++) r->expert_slot[i] = -1;
    }
    QS_TRY(qsi_direct_open(&r->file, qsi_gguf_fd(g), qsi_gguf_path(g), err));
    qsi_gguf_random(g); /* rows of the embedding and norms: no reading ahead */
    *out = r;
    r = NULL;
done:
    qsi_res_free(r);
    return st;
}

void qsi_res_free(qsi_res *r) {
    if (!r) return;
    qsi_crew_free(r->crew);
    qsi_direct_close(&r->file);
    void *all[] = {r->units, r->fixed, r->block, r->stream, r->group_first,
                   r->queue[0].unit, r->queue[1].unit, r->expert_units, r->expert_slot,
                   r->expert_rows, r->layer_rows, r->expert_uses, r->slots, r->wave, r->taken};
    for (size_t i = 0; i < QSI_COUNT(all); i++) qsi_free(all[i]);
    qsi_arena_release(&r->ar);
    qsi_free(r);
}

bool qsi_res_holds(const qsi_res *r, const void *data) {
    uintptr_t p = (uintptr_t)data, base = (uintptr_t)qsi_gguf_data(r->g);
    return p >= base && p - base < qsi_gguf_size(r->g);
}

qs_status qsi_res_add(qsi_res *r, qsi_weight *w, const void *data, int32_t group, int32_t expert,
                      int part, qs_err *err) {
    qs_status st = QS_OK;
    void *p = r->units;
    st = qsi_grow(&p, &r->cap_units, r->n_units + 1, sizeof *r->units);
    if (st != QS_OK) QS_FAIL(err, st, "no memory for a list of %zu weights", r->n_units + 1);
    r->units = p;
    qsi_res_unit *u = &r->units[r->n_units];
    *u = (qsi_res_unit){.w = w, .n_out = qsi_weight_rows(w), .bytes = qsi_weight_bytes(w),
                        .off = (uint64_t)((const uint8_t *)data - qsi_gguf_data(r->g)),
                        .group = expert >= 0 ? -1 : group};
    u->panels = qsi_weight_panels(w, &u->panel_rows, &u->src_row);
    u->bytes = (u->bytes + QSI_ALIGN - 1) / QSI_ALIGN * QSI_ALIGN;
    if (expert >= 0) r->expert_units[(size_t)expert * 3 + (size_t)part] = (int32_t)r->n_units;
    r->total_file_bytes += (uint64_t)u->n_out * u->src_row;
    if (expert >= 0) r->expert_file_bytes += (uint64_t)u->n_out * u->src_row;
    r->n_units++;
done:
    return st;
}

uint64_t qsi_res_bytes(const qsi_res *r) {
    uint64_t n = 0;
    for (size_t i = 0; i < r->n_units; i++) n += r->units[i].bytes;
    return n;
}

/* ---- the ring ---- */

/* Room for n bytes, or NULL. */
static char *ring_take(qsi_res_ring *q, size_t n) {
    size_t at = q->head;
    if (q->head >= q->tail) {
        if (n >= q->cap - q->head) {
            if (n >= q->tail) return NULL;
            at = 0;
        }
    } else if (n >= q->tail - q->head) {
        return NULL;
    }
    q->head = at + n;
    return q->mem + at;
}

/* ---- jobs of the crew: pieces of units ---- */

static bool hand_out(qsi_res *r, int32_t i, int64_t job[QSI_CREW_JOB]) {
    qsi_res_unit *u = &r->units[i];
    if (u->next >= u->panels) return false;
    if (!r->flying++) r->since = qsi_now_ns();
    int64_t per = (u->group < 0 ? EXPERT_PIECE : PIECE) / ((int64_t)u->src_row * u->panel_rows);
    per = qsi_max64(per, 1);
    job[0] = i;
    job[1] = u->next;
    job[2] = u->next = qsi_min64(u->next + per, u->panels);
    return true;
}

static bool issue(qsi_res *r) {
    if (r->issued - r->used >= r->n_stream) return false;
    qsi_res_unit *u = &r->units[r->stream[r->issued % r->n_stream]];
    if (r->issued == r->used) r->ring.head = r->ring.tail = 0;
    char *mem = ring_take(&r->ring, u->bytes);
    if (!mem) return false;
    u->mem = mem;
    u->next = 0;
    u->left = u->panels;
    r->handing = r->issued++;
    return true;
}

static bool take_queued(qsi_res *r, int which, int64_t job[QSI_CREW_JOB]) {
    qsi_res_queue *q = &r->queue[which];
    while (q->head != q->tail) {
        if (hand_out(r, q->unit[q->head], job)) return true;
        r->units[q->unit[q->head]].queued[which] = false;
        q->head = (q->head + 1) % (r->n_units + 1);
    }
    return false;
}

static bool take(void *user, int64_t job[QSI_CREW_JOB]) {
    qsi_res *r = user;
    if (r->st != QS_OK) return false;
    if (take_queued(r, QSI_RES_WANTED, job)) return true;
    while (r->ring.mem) {
        if (r->handing >= 0 && hand_out(r, r->stream[r->handing % r->n_stream], job)) return true;
        r->handing = -1;
        if (!issue(r)) break;
    }
    do {
        if (take_queued(r, QSI_RES_GUESSED, job)) return true;
    } while (qsi_res_fill(r));
    return false;
}

static qs_status work(void *user, int thread, const int64_t job[QSI_CREW_JOB], qs_err *err) {
    qs_status st = QS_OK;
    qsi_res *r = user;
    const qsi_res_unit *u = &r->units[job[0]];
    int64_t first = job[1] * u->panel_rows, last = qsi_min64(u->n_out, job[2] * u->panel_rows);
    const uint8_t *at = NULL;
    size_t moved = 0;
    QS_TRY(qsi_direct_read(&r->file, u->off + (uint64_t)first * u->src_row,
                           (size_t)(last - first) * u->src_row, r->buf[thread], &at, &moved, err));
    atomic_fetch_add_explicit(&r->moved, moved, memory_order_relaxed);
    qsi_weight_pack(u->w, at, job[1], job[2], u->mem);
done:
    return st;
}

static void end(void *user, const int64_t job[QSI_CREW_JOB], qs_status st, const qs_err *err) {
    qsi_res *r = user;
    if (!--r->flying) r->io.busy_ns += qsi_now_ns() - r->since;
    if (st == QS_OK) {
        r->units[job[0]].left -= job[2] - job[1];
    } else if (r->st == QS_OK) {
        r->st = st;
        r->err = *err;
    }
}

void qsi_res_enqueue(qsi_res *r, int32_t unit, int queue) {
    qsi_res_queue *q = &r->queue[queue];
    if (r->units[unit].queued[queue]) return;
    r->units[unit].queued[queue] = true;
    q->unit[q->tail] = unit;
    q->tail = (q->tail + 1) % (r->n_units + 1);
}

void qsi_res_load(qsi_res *r, int32_t unit, char *mem, int queue) {
    qsi_res_unit *u = &r->units[unit];
    u->mem = mem;
    u->next = 0;
    u->left = u->panels;
    qsi_res_enqueue(r, unit, queue);
}

/* ---- the plan ---- */

/* Marks what is resident within room: the head first (it is the largest), then evenly over the
 * layers, then whatever still fits. */
static void choose(qsi_res *r, uint64_t room) {
    uint64_t all = 0, used = 0;
    double share = 0, due = 0;
    for (size_t i = 0; i < r->n_units; i++) {
        qsi_res_unit *u = &r->units[i];
        if (u->group < 0) continue;
        u->resident = u->group == r->n_groups - 1 && u->bytes <= room / 4;
        if (u->resident) used += u->bytes;
        all += u->bytes;
    }
    if (all > used) share = (double)(room - used) / (double)(all - used);
    for (int pass = 0; pass < 2; pass++)
        for (size_t i = 0; i < r->n_units; i++) {
            qsi_res_unit *u = &r->units[i];
            if (u->group < 0 || u->resident) continue;
            if (!pass) due += share * (double)u->bytes;
            if (u->bytes > room - used || (!pass && due < (double)u->bytes)) continue;
            u->resident = true;
            used += u->bytes;
            due -= (double)u->bytes;
        }
}

/* Bytes of the largest group that is streamed and of its largest unit. */
static size_t ring_least(const qsi_res *r) {
    size_t group = 0, unit = 0, sum = 0;
    int32_t of = -1;
    for (size_t i = 0; i < r->n_units; i++) {
        const qsi_res_unit *u = &r->units[i];
        if (u->group < 0) continue;
        if (u->group != of) sum = 0;
        of = u->group;
        if (u->resident) continue;
        sum += u->bytes;
        if (u->bytes > unit) unit = u->bytes;
        if (sum > group) group = sum;
    }
    return group ? group + unit + QSI_ALIGN : 0;
}

typedef struct plan {
    size_t fixed, ring, slots, buffers;
} plan;

static uint64_t plan_bytes(const plan *p) { return p->fixed + p->ring + p->slots + p->buffers; }

static size_t resident_bytes(const qsi_res *r) {
    size_t n = 0;
    for (size_t i = 0; i < r->n_units; i++)
        if (r->units[i].resident) n += r->units[i].bytes;
    return n;
}

static size_t of_tokens(const qsi_res *r) {
    size_t n = 0;
    for (size_t i = 0; i < r->n_units; i++)
        if (r->units[i].group >= 0) n += r->units[i].bytes;
    return n;
}

/* Sizes that do not depend on room: a slot, the buffers of the crew. */
static void measure(qsi_res *r, plan *p) {
    for (size_t i = 0; i < r->n_units; i++) {
        const qsi_res_unit *u = &r->units[i];
        size_t panel = u->src_row * (size_t)qsi_min64(u->panel_rows, u->n_out);
        size_t n = u->src_row * (size_t)u->n_out;
        if (n > PIECE) n = panel > PIECE ? panel : PIECE;
        if (n > r->piece_max) r->piece_max = n;
    }
    size_t n = (size_t)r->c->n_layer * (size_t)r->c->n_expert;
    r->io.experts = 0;
    for (size_t i = 0; i < n; i++) {
        size_t sum = 0;
        for (size_t j = 0; j < 3 && r->expert_units[3 * i] >= 0; j++)
            sum += r->units[r->expert_units[3 * i + j]].bytes;
        r->io.experts += sum > 0;
        if (sum > r->slot_bytes) r->slot_bytes = sum;
    }
    r->n_threads = N_THREADS;
    p->buffers = (size_t)r->n_threads * qsi_direct_room(r->piece_max);
}

/* Shares `spare` out between reading ahead and residents. With some resident the ring may need less
 * than its first size, which leaves more for them. */
static void share_out(qsi_res *r, uint64_t spare, plan *p) {
    size_t ahead = spare / 4 < READ_AHEAD ? (size_t)spare / 4 : READ_AHEAD;
    choose(r, spare - ahead);
    size_t less = ring_least(r);
    if (less < p->ring) {
        choose(r, spare - ahead + (p->ring - less));
        if (ring_least(r) <= less)
            p->ring = less;
        else
            choose(r, spare - ahead);
    }
    p->fixed = resident_bytes(r);
    p->ring += ahead;
}

/* The least: nothing resident, and the experts of one layer. */
static void least_plan(qsi_res *r, int64_t rows, plan *p) {
    int64_t E = r->c->n_expert, least = E ? qsi_min64(E, rows * r->c->n_expert_used) : 0;
    for (size_t i = 0; i < r->n_units; i++) r->units[i].resident = false;
    r->n_slots = least;
    p->fixed = 0;
    p->slots = (size_t)least * r->slot_bytes;
    p->ring = ring_least(r);
}

uint64_t qsi_res_least(qsi_res *r, int64_t rows) {
    plan p = {0};
    measure(r, &p);
    least_plan(r, rows, &p);
    return plan_bytes(&p);
}

static qs_status make_plan(qsi_res *r, uint64_t room, int64_t rows, plan *p, qs_err *err) {
    qs_status st = QS_OK;
    size_t tokens = of_tokens(r);
    measure(r, p);
    least_plan(r, rows, p);
    if (room >= p->buffers + tokens + p->slots) { /* experts alone come from disk */
        for (size_t i = 0; i < r->n_units; i++) r->units[i].resident = r->units[i].group >= 0;
        p->fixed = tokens;
        p->ring = 0;
        uint64_t n = r->slot_bytes ? (room - p->buffers - tokens) / r->slot_bytes : 0;
        r->n_slots = (int64_t)n < r->io.experts ? (int64_t)n : r->io.experts;
        p->slots = (size_t)r->n_slots * r->slot_bytes;
        goto done;
    }
    if (plan_bytes(p) > room) {
        uint64_t mb = (plan_bytes(p) - room) / 1000000 + 1;
        QS_FAIL(err, QS_E_LIMIT, "the memory allowed is too little by %" PRIu64 " MB: a layer's "
                "weights being computed and read need %zu MB", mb, plan_bytes(p) / 1000000 + 1);
    }
    share_out(r, room - plan_bytes(p), p);
done:
    return st;
}

static qs_status list_stream(qsi_res *r, qs_err *err) {
    qs_status st = QS_OK;
    r->stream = qsi_alloc(r->n_units, sizeof *r->stream);
    r->group_first = qsi_calloc((size_t)r->n_groups + 1, sizeof *r->group_first);
    for (int i = 0; i < QSI_RES_QUEUES; i++)
        r->queue[i].unit = qsi_alloc(r->n_units + 1, sizeof *r->queue[i].unit);
    r->slots = qsi_calloc((size_t)r->n_slots, sizeof *r->slots);
    if (!r->stream || !r->group_first || !r->queue[0].unit || !r->queue[1].unit || !r->slots)
        QS_FAIL(err, QS_E_NOMEM, "no memory for a list of %zu weights", r->n_units);
    int32_t group = 0;
    for (size_t i = 0; i < r->n_units; i++) {
        const qsi_res_unit *u = &r->units[i];
        if (u->group < 0) continue;
        if (u->resident) {
            r->fixed_bytes += u->bytes;
            continue;
        }
        QS_CHECK(u->group >= group);
        while (group < u->group) r->group_first[++group] = (int32_t)r->n_stream;
        r->stream[r->n_stream++] = (int32_t)i;
        r->stream_file_bytes += (uint64_t)u->n_out * u->src_row;
    }
    while (group < r->n_groups) r->group_first[++group] = (int32_t)r->n_stream;
done:
    return st;
}

static qs_status foresee_init(qsi_res *r, qs_err *err) {
    qs_status st = QS_OK;
    size_t R = QSI_FORESEE_ROWS, E = (size_t)r->c->n_expert, K = (size_t)r->c->n_expert_used;
    if (!r->n_slots) goto done;
    QS_TRY(qsi_act_init(&r->foresee.x, &r->ar, QSI_FORESEE_ROWS, r->c->d_model, QSI_ACT_F32, err));
    r->foresee.z = qsi_arena_alloc(&r->ar, R * E, sizeof(float));
    r->foresee.wt = qsi_arena_alloc(&r->ar, R * K, sizeof(float));
    r->foresee.idx = qsi_arena_alloc(&r->ar, R * K, sizeof(int32_t));
    r->foresee.named = qsi_arena_calloc(&r->ar, E, sizeof(bool));
    if (!r->foresee.z || !r->foresee.wt || !r->foresee.idx || !r->foresee.named)
        QS_FAIL(err, QS_E_NOMEM, "no memory for reading experts ahead");
done:
    return st;
}

static char *aligned(void *p) {
    return (char *)(((uintptr_t)p + QSI_DIRECT_ALIGN - 1) / QSI_DIRECT_ALIGN * QSI_DIRECT_ALIGN);
}

/* Memory of the plan; places and queues the residents. */
static qs_status take_memory(qsi_res *r, const plan *p, qs_err *err) {
    qs_status st = QS_OK;
    r->fixed = qsi_alloc(p->fixed, 1);
    r->block = qsi_alloc(p->ring + p->slots + p->buffers + QSI_DIRECT_ALIGN, 1);
    if (!r->fixed || !r->block)
        QS_FAIL(err, QS_E_NOMEM, "no memory for %" PRIu64 " bytes of weights", plan_bytes(p));
    qsi_mem_huge(r->fixed, p->fixed);
    qsi_mem_huge(r->block, p->ring + p->slots);
    char *at = aligned(r->block);
    for (int i = 0; i < r->n_threads; i++, at += qsi_direct_room(r->piece_max)) r->buf[i] = at;
    if (r->n_slots) qsi_res_slots_init(r, at);
    r->ring = (qsi_res_ring){.cap = p->ring};
    if (r->n_stream) r->ring.mem = at + p->slots;
    char *mem = r->fixed;
    for (size_t i = 0; i < r->n_units; i++) {
        if (!r->units[i].resident) continue;
        qsi_weight_place(r->units[i].w, mem);
        qsi_res_load(r, (int32_t)i, mem, QSI_RES_WANTED);
        mem += r->units[i].bytes;
    }
done:
    return st;
}

/* Loads the residents, telling how far it is. */
static qs_status load_fixed(qsi_res *r, const qsi_model_opts *o, qs_err *err) {
    qs_status st = QS_OK;
    bool stop = false;
    int64_t told = 0;
    qsi_crew_lock(r->crew);
    for (size_t i = 0; i < r->n_units && !stop; i++) {
        if (!r->units[i].resident) continue;
        while (r->units[i].left > 0 && r->st == QS_OK) qsi_crew_wait(r->crew);
        if (r->st != QS_OK) break;
        told += (int64_t)r->units[i].bytes;
        if (!o->progress) continue;
        qsi_crew_unlock(r->crew);
        stop = o->progress(o->user, told, (int64_t)r->fixed_bytes) != 0;
        qsi_crew_lock(r->crew);
    }
    qsi_crew_unlock(r->crew);
    if (stop) QS_FAIL(err, QS_E_CANCELLED, "cancelled while weights were prepared");
    QS_TRY(qsi_res_status(r, err));
done:
    return st;
}

qs_status qsi_res_plan(qsi_res *r, uint64_t room, int64_t rows, qs_err *err) {
    qs_status st = QS_OK;
    plan p = {0};
    QS_TRY(make_plan(r, room, rows, &p, err));
    QS_TRY(list_stream(r, err));
done:
    return st;
}

qs_status qsi_res_start(qsi_res *r, uint64_t room, int64_t rows, const qsi_model_opts *o,
                        qs_err *err) {
    qs_status st = QS_OK;
    plan p = {0};
    QS_TRY(make_plan(r, room, rows, &p, err));
    QS_TRY(list_stream(r, err));
    QS_TRY(take_memory(r, &p, err));
    QS_TRY(foresee_init(r, err));
    QS_TRY(qsi_crew_create(&r->crew, r->n_threads, &(qsi_crew_fns){take, work, end}, r, err));
    QS_TRY(load_fixed(r, o, err));
    qsi_crew_lock(r->crew);
    r->filling = true;
    qsi_crew_wake(r->crew);
    qsi_crew_unlock(r->crew);
done:
    return st;
}

/* ---- in a step ---- */

static void wait_group(qsi_res *r, int64_t first, int64_t last) {
    int64_t pass = r->used / r->n_stream * r->n_stream;
    if (r->st != QS_OK) return;
    QS_CHECK(r->used == pass + first);
    for (int64_t i = first; i < last; i++) {
        qsi_res_unit *u = &r->units[r->stream[i]];
        while (r->st == QS_OK && (r->issued <= pass + i || u->left > 0)) qsi_crew_wait(r->crew);
        if (r->st != QS_OK) return;
        qsi_weight_place(u->w, u->mem);
    }
}

bool qsi_res_enter(const qsi_worker *wk, qsi_res *r, int32_t group) {
    if (!r) return true;
    int64_t first = r->group_first[group], last = r->group_first[group + 1];
    if (first == last) return true;
    if (wk->index == 0) {
        int64_t t0 = qsi_now_ns();
        qsi_crew_lock(r->crew);
        wait_group(r, first, last);
        r->stopped = r->st != QS_OK;
        qsi_crew_unlock(r->crew);
        r->io.wait_ns += qsi_now_ns() - t0;
    }
    qsi_barrier(wk);
    return !r->stopped;
}

void qsi_res_leave(const qsi_worker *wk, qsi_res *r, int32_t group) {
    if (!r || wk->index != 0) return;
    int64_t first = r->group_first[group], last = r->group_first[group + 1];
    if (first == last) return;
    qsi_crew_lock(r->crew);
    r->used += last - first;
    if (r->issued > r->used) {
        const qsi_res_unit *u = &r->units[r->stream[r->used % r->n_stream]];
        r->ring.tail = (size_t)(u->mem - r->ring.mem);
    } else {
        r->ring.tail = r->ring.head;
    }
    qsi_crew_wake(r->crew);
    qsi_crew_unlock(r->crew);
}

static bool reading(qsi_res *r) {
    if (qsi_res_fill(r)) return true;
    for (size_t i = 0; i < r->n_units; i++)
        if (r->units[i].left > 0) return true;
    return false;
}

void qsi_res_settle(qsi_res *r) {
    qsi_crew_lock(r->crew);
    /* who ends a job takes the next one before the lock is free */
    while (r->st == QS_OK && reading(r)) qsi_crew_wait(r->crew);
    qsi_crew_unlock(r->crew);
}

qs_status qsi_res_status(qsi_res *r, qs_err *err) {
    qsi_crew_lock(r->crew);
    qs_status st = r->st;
    if (st != QS_OK && err) *err = r->err;
    qsi_crew_unlock(r->crew);
    return st;
}
