/* The KV cache: pages of 64 positions for all layers, taken page by page.
 *
 * A page holds for every layer a tile of 64 keys of each kv head, then the tiles of the values,
 * each one run of memory, then one of the indexer's keys where there is an indexer. Values stand by
 * position, [64][hd_v]; keys are turned, [hd_k][64], as the scores of many positions at once want
 * them (the indexer's too); where values are prefixes of the keys there is one tile [64][hd_k] for
 * both. BF16: two rows' elements of a column side by side (kern.h). Q8_0: int8, four rows' bytes
 * of a column side by side (kern.h), and before them scales (half) of blocks of 32 along the head,
 * [blocks][64]; Q4_0: the same with two elements a byte, the indexer's keys in Q8_0. A page given
 * back keeps its memory for the next taker.
 *
 * Address space is taken in slabs of many pages, so that huge pages fit under them: a decode step
 * reads the whole cache once, and two threads read 37 GB/s with huge pages where they read 25
 * without. A page is touched when it is first taken, not before. */
#include "model/layer.h"
#include "sys/file.h"

#include <string.h>

typedef struct layer_place {
    qsi_kv_shape s;
    size_t k_off, v_off; /* bytes from the page's start */
    size_t k_tile, v_tile; /* of a head */
    size_t i_off, i_tile;  /* the indexer's keys */
} layer_place;

struct qsi_kv {
    int32_t n_layer;
    layer_place *layers;
    qsi_type type;
    int64_t max_pages, n_free;
    size_t page_bytes;
    int64_t slab_pages, n_slabs;
    void **slabs;     /* [n_slabs] as allocated, NULL until first used */
    void **mem;       /* [max_pages], NULL until first used */
    int32_t *free_ids; /* stack of pages that nobody holds */
    int32_t *holds;    /* [max_pages] tables and others that have the page */
};

qsi_kv_shape qsi_kv_shape_of(const qsi_config *c, int32_t layer) {
    (void)layer;
    int32_t value = qsi_config_cache_value(c);
    return (qsi_kv_shape){.n_head = qsi_config_cache_heads(c), .hd_k = qsi_config_cache_key(c),
                          .hd_v = value ? value : c->kv_rank, .v_in_k = !value,
                          .hd_i = c->index_dim};
}

/* Of the indexer's keys: four bits would choose other positions too often. */
static qsi_type index_type(const qsi_kv *kv) { return kv->type == QSI_Q4_0 ? QSI_Q8_0 : kv->type; }

/* A head's tile, and all of them. */
static bool part_bytes(qsi_type type, int32_t heads, int32_t hd, size_t *tile, size_t *out) {
    if (hd > INT32_MAX / 1024) return false;
    *tile = (qsi_kv_tile_bytes(type, hd) + QSI_ALIGN - 1) / QSI_ALIGN * QSI_ALIGN;
    return qsi_mul_size(*tile, (size_t)heads, out);
}

enum { SLAB = 32 << 20, HUGE = 2 << 20 };

static qs_status place_layers(qsi_kv *kv, const qsi_config *c, qs_err *err) {
    qs_status st = QS_OK;
    size_t at = 0, n = 0;
    for (int32_t l = 0; l < kv->n_layer; l++) {
        layer_place *p = &kv->layers[l];
        p->s = qsi_kv_shape_of(c, l);
        p->k_off = p->v_off = at;
        bool ok = part_bytes(kv->type, p->s.n_head, p->s.hd_k, &p->k_tile, &n) &&
                  qsi_add_size(at, n, &at);
        p->v_tile = p->k_tile;
        if (ok && !p->s.v_in_k) {
            p->v_off = at;
            ok = part_bytes(kv->type, p->s.n_head, p->s.hd_v, &p->v_tile, &n) &&
                 qsi_add_size(at, n, &at);
        }
        p->i_off = at;
        if (ok && p->s.hd_i)
            ok = part_bytes(index_type(kv), 1, p->s.hd_i, &p->i_tile, &n) && qsi_add_size(at, n, &at);
        if (!ok) QS_FAIL(err, QS_E_RANGE, "a KV page of this model is too large");
    }
    kv->page_bytes = at;
    kv->slab_pages = qsi_max64(1, SLAB / (int64_t)qsi_max64((int64_t)at, 1));
done:
    return st;
}


/* Memory of a page that is used for the first time; NULL: there is none. */
static void *page_memory(qsi_kv *kv, int32_t id) {
    int64_t at = id / kv->slab_pages, n = kv->slab_pages, first = at * n;
    if (n > kv->max_pages - first) n = kv->max_pages - first;
    size_t bytes = (size_t)n * kv->page_bytes, off = 0, more = bytes >= HUGE ? HUGE : 0;
    if (!kv->slabs[at]) {
        size_t all = 0;
        if (!qsi_add_size(bytes, more, &all)) return NULL;
        kv->slabs[at] = qsi_alloc(all, 1);
        if (!kv->slabs[at]) return NULL;
        if (more) qsi_mem_huge(kv->slabs[at], all);
    }
    if (more) off = (size_t)(-(uintptr_t)kv->slabs[at]) % HUGE;
    char *p = (char *)kv->slabs[at] + off + (size_t)(id - first) * kv->page_bytes;
    memset(p, 0, kv->page_bytes);
    return p;
}

qs_status qsi_kv_create(qsi_kv **out, const qsi_config *c, qsi_type type, int64_t max_pages,
                        qs_err *err) {
    qs_status st = QS_OK;
    qsi_kv *kv = NULL;
    if (type != QSI_F16 && type != QSI_F32 && type != QSI_BF16 && type != QSI_Q8_0 && type != QSI_Q4_0)
        QS_FAIL(err, QS_E_ARG, "a KV cache holds F32, F16, BF16, Q8_0 or Q4_0");
    if (max_pages < 1 || max_pages > INT32_MAX)
        QS_FAIL(err, QS_E_ARG, "a KV cache of %lld pages", (long long)max_pages);
    kv = qsi_calloc(1, sizeof *kv);
    if (!kv) QS_FAIL(err, QS_E_NOMEM, "no memory for a KV cache");
    *kv = (qsi_kv){.n_layer = qsi_config_blocks(c), .type = type, .max_pages = max_pages,
                   .n_free = max_pages};
    kv->layers = qsi_calloc((size_t)kv->n_layer, sizeof *kv->layers);
    if (!kv->layers) QS_FAIL(err, QS_E_NOMEM, "no memory for a KV cache");
    QS_TRY(place_layers(kv, c, err));
    kv->n_slabs = qsi_ceil_div(max_pages, kv->slab_pages);
    kv->slabs = qsi_calloc((size_t)kv->n_slabs, sizeof *kv->slabs);
    kv->mem = qsi_calloc((size_t)max_pages, sizeof *kv->mem);
    kv->free_ids = qsi_alloc((size_t)max_pages, sizeof *kv->free_ids);
    kv->holds = qsi_calloc((size_t)max_pages, sizeof *kv->holds);
    if (!kv->slabs || !kv->mem || !kv->free_ids || !kv->holds)
        QS_FAIL(err, QS_E_NOMEM, "no memory for a KV cache of %lld pages", (long long)max_pages);
    for (int64_t i = 0; i < max_pages; i++)
        kv->free_ids[i] = (int32_t)(max_pages - 1 - i);
    *out = kv;
    kv = NULL;
done:
    qsi_kv_free(kv);
    return st;
}

void qsi_kv_free(qsi_kv *kv) {
    if (!kv) return;
    for (int64_t i = 0; kv->slabs && i < kv->n_slabs; i++) qsi_free(kv->slabs[i]);
    qsi_free(kv->slabs);
    qsi_free(kv->mem);
    qsi_free(kv->free_ids);
    qsi_free(kv->holds);
    qsi_free(kv->layers);
    qsi_free(kv);
}

size_t qsi_kv_page_bytes(const qsi_kv *kv) {
    return kv->page_bytes;
}

/* What n pages of a slab touch: huge pages to their ends. */
static uint64_t slab_bytes(const qsi_kv *kv, int64_t n) {
    uint64_t bytes = (uint64_t)n * kv->page_bytes;
    return bytes < HUGE ? bytes : (bytes + HUGE - 1) / HUGE * HUGE;
}

/* The sizes of a cache, without one. */
static qs_status sizes_of(qsi_kv *kv, const qsi_config *c, qsi_type type, qs_err *err) {
    qs_status st = QS_OK;
    *kv = (qsi_kv){.n_layer = qsi_config_blocks(c), .type = type};
    kv->layers = qsi_calloc((size_t)kv->n_layer, sizeof *kv->layers);
    if (!kv->layers) QS_FAIL(err, QS_E_NOMEM, "no memory for a KV cache");
    QS_TRY(place_layers(kv, c, err));
done:
    qsi_free(kv->layers);
    return st;
}

qs_status qsi_kv_need(const qsi_config *c, qsi_type type, int64_t n_pages, uint64_t *bytes,
                      qs_err *err) {
    qs_status st = QS_OK;
    qsi_kv kv;
    QS_TRY(sizes_of(&kv, c, type, err));
    if ((uint64_t)n_pages > (UINT64_MAX >> 1) / (kv.page_bytes + HUGE))
        QS_FAIL(err, QS_E_RANGE, "a KV cache of %lld pages", (long long)n_pages);
    *bytes = (uint64_t)(n_pages / kv.slab_pages) * slab_bytes(&kv, kv.slab_pages) +
             slab_bytes(&kv, n_pages % kv.slab_pages);
done:
    return st;
}

qs_status qsi_kv_fit(const qsi_config *c, qsi_type type, uint64_t bytes, int64_t *n_pages,
                     qs_err *err) {
    qs_status st = QS_OK;
    qsi_kv kv;
    QS_TRY(sizes_of(&kv, c, type, err));
    uint64_t slab = slab_bytes(&kv, kv.slab_pages), rest = bytes % slab;
    uint64_t n = bytes / slab * (uint64_t)kv.slab_pages;
    if (n >= INT32_MAX) n = INT32_MAX;
    *n_pages = (int64_t)n;
    for (int64_t i = 1; i < kv.slab_pages && slab_bytes(&kv, i) <= rest; i++)
        *n_pages = qsi_min64((int64_t)n + i, INT32_MAX);
done:
    return st;
}

/* A free page with memory, held once; *id only then. */
static qs_status take_page(qsi_kv *kv, int32_t *out, qs_err *err) {
    qs_status st = QS_OK;
    if (kv->n_free < 1) QS_FAIL(err, QS_E_LIMIT, "the KV cache is full");
    int32_t id = kv->free_ids[kv->n_free - 1];
    if (!kv->mem[id]) kv->mem[id] = page_memory(kv, id);
    if (!kv->mem[id])
        QS_FAIL(err, QS_E_NOMEM, "no memory for a KV page of %zu bytes", kv->page_bytes);
    kv->n_free--;
    kv->holds[id] = 1;
    *out = id;
done:
    return st;
}

static qs_status grow_table(qsi_kv_table *t, size_t n, qs_err *err) {
    void *p = t->pages;
    if (n <= t->cap) return QS_OK;
    if (qsi_grow(&p, &t->cap, n, sizeof *t->pages) != QS_OK)
        return qsi_err_set(err, QS_E_NOMEM, "no memory for a table of %zu KV pages", n);
    t->pages = p;
    return QS_OK;
}

qs_status qsi_kv_reserve(qsi_kv *kv, qsi_kv_table *t, int64_t n_pos, qs_err *err) {
    qs_status st = QS_OK;
    size_t need = n_pos > 0 ? (size_t)qsi_ceil_div(n_pos, QSI_KV_PAGE) : 0;
    if (need > t->n_pages && (int64_t)(need - t->n_pages) > kv->n_free)
        QS_FAIL(err, QS_E_LIMIT, "the KV cache is full: %zu more pages of %d positions are needed, "
                "%lld are free", need - t->n_pages, QSI_KV_PAGE, (long long)kv->n_free);
    QS_TRY(grow_table(t, need, err));
    while (t->n_pages < need) {
        QS_TRY(take_page(kv, &t->pages[t->n_pages], err));
        t->n_pages++;
    }
done:
    return st;
}

qs_status qsi_kv_own(qsi_kv *kv, qsi_kv_table *t, int64_t from, qs_err *err) {
    qs_status st = QS_OK;
    for (size_t i = (size_t)from / QSI_KV_PAGE; i < t->n_pages; i++) {
        int32_t old = t->pages[i], id = 0;
        if (kv->holds[old] == 1) continue;
        QS_TRY(take_page(kv, &id, err));
        memcpy(kv->mem[id], kv->mem[old], kv->page_bytes);
        kv->holds[old]--;
        t->pages[i] = id;
    }
done:
    return st;
}

qs_status qsi_kv_share(qsi_kv *kv, qsi_kv_table *t, const int32_t *pages, size_t n, qs_err *err) {
    qs_status st = QS_OK;
    QS_TRY(grow_table(t, t->n_pages + n, err));
    for (size_t i = 0; i < n; i++) {
        kv->holds[pages[i]]++;
        t->pages[t->n_pages++] = pages[i];
    }
done:
    return st;
}

qs_status qsi_kv_take(qsi_kv *kv, int32_t *page, qs_err *err) { return take_page(kv, page, err); }

void qsi_kv_hold(qsi_kv *kv, int32_t page) { kv->holds[page]++; }

void qsi_kv_drop(qsi_kv *kv, int32_t page) {
    QS_ASSERT(kv->holds[page] > 0);
    if (--kv->holds[page] == 0) kv->free_ids[kv->n_free++] = page;
}

int32_t qsi_kv_holds(const qsi_kv *kv, int32_t page) { return kv->holds[page]; }
int64_t qsi_kv_n_pages(const qsi_kv *kv) { return kv->max_pages; }
int64_t qsi_kv_n_free(const qsi_kv *kv) { return kv->n_free; }
void *qsi_kv_page_data(const qsi_kv *kv, int32_t page) { return kv->mem[page]; }

void qsi_kv_truncate(qsi_kv *kv, qsi_kv_table *t, int64_t n_pos) {
    size_t keep = n_pos > 0 ? (size_t)qsi_ceil_div(n_pos, QSI_KV_PAGE) : 0;
    while (t->n_pages > keep) qsi_kv_drop(kv, t->pages[--t->n_pages]);
}

void qsi_kv_table_release(qsi_kv *kv, qsi_kv_table *t) {
    qsi_kv_truncate(kv, t, 0);
    qsi_free(t->pages);
    *t = (qsi_kv_table){0};
}

bool qsi_kv_narrow(const qsi_kv *kv) { return kv->type != QSI_F32; }

qsi_kv_view qsi_kv_layer(const qsi_kv *kv, const qsi_kv_table *t, int32_t layer, bool bf16, bool bytes) {
    const layer_place *p = &kv->layers[layer];
    bool scaled = qsi_kv_scaled(kv->type);
    bytes = bytes && scaled && (bf16 || !p->s.v_in_k); /* values in the keys are taken in bfloat16 */
    bf16 = bf16 && qsi_kv_narrow(kv) && (!scaled || (bytes && p->s.v_in_k));
    return (qsi_kv_view){.type = kv->type, .hd_k = p->s.hd_k, .hd_v = p->s.hd_v,
                         .v_in_k = p->s.v_in_k, .turned = !p->s.v_in_k,
                         .bf16 = bf16, .bytes = bytes, .k_off = p->k_off, .v_off = p->v_off,
                         .k_tile = p->k_tile, .v_tile = p->v_tile,
                         .page_mem = kv->mem, .pages = t->pages};
}

/* ---- rotation ----
 * Q4_0 has one scale for 32 elements: one large element costs the others their bits. So heads are
 * turned by an orthonormal Hadamard matrix before they are rounded, which spreads it
 * (docs/kv-cache.md has what that is worth). Queries turned alike meet the same scores; sums of
 * values are turned back. */
enum { ROTATE_MOST = 256 };

/* Elements of the matrix that element i, the first of one, is turned by: the largest power of two
 * that divides its part, [0, part) or [part, hd), and is a whole number of blocks; 0: none. */
static int64_t rotation(int64_t hd, int64_t part, int64_t i) {
    int64_t from = i < part ? 0 : part, n = (i < part ? part : hd) - from;
    int64_t size = qsi_min64(n & -n, ROTATE_MOST);
    return size >= 32 && from % 32 == 0 ? size : 0;
}

bool qsi_kv_rotates(const qsi_kv *kv) { return kv->type == QSI_Q4_0; }

void qsi_kv_rotate(const qsi_kv *kv, const qsi_kern *k, int32_t layer, bool values, float *x) {
    const qsi_kv_shape *s = &kv->layers[layer].s;
    if (!qsi_kv_rotates(kv)) return;
    int64_t hd = values ? s->hd_v : s->hd_k, part = s->v_in_k ? s->hd_v : hd;
    for (int64_t i = 0, n; i < hd; i += n) {
        int64_t rotated = rotation(hd, part, i);
        n = rotated ? rotated : qsi_min64(32, (i < part ? part : hd) - i);
        if (rotated) k->hadamard(x + i, n);
    }
}

/* A head's tile, and how a position's elements lie in it: element i at (i * step + first); of
 * bytes at byte_at. */
typedef struct strip {
    qsi_type type;
    uint16_t *scale; /* of block b at b * 64 */
    char *data;
    int64_t hd, first, step, slot;
    int64_t part; /* elements that are rotated apart from the others, see rotation */
} strip;

static strip strip_of(qsi_type type, void *page, size_t tile_at, bool turned, int64_t hd,
                      int64_t slot) {
    char *tile = (char *)page + tile_at;
    return (strip){.type = type, .hd = hd, .slot = slot,
                   .scale = (uint16_t *)(void *)tile + slot,
                   .data = tile + qsi_kv_tile_scales(type, hd),
                   .first = turned ? slot : slot * hd, .step = turned ? QSI_KV_PAGE : 1};
}

static strip key_strip(const qsi_kv *kv, const layer_place *p, void *page, int32_t h, int64_t slot) {
    strip s = strip_of(kv->type, page, p->k_off + (size_t)h * p->k_tile, !p->s.v_in_k, p->s.hd_k, slot);
    s.part = p->s.v_in_k ? p->s.hd_v : p->s.hd_k;
    return s;
}

static strip value_strip(const qsi_kv *kv, const layer_place *p, void *page, int32_t h, int64_t slot) {
    strip s = strip_of(kv->type, page, p->v_off + (size_t)h * p->v_tile, false, p->s.hd_v, slot);
    s.part = p->s.hd_v;
    return s;
}

enum { SOME = 64 }; /* elements at a time; a multiple of the blocks of Q8_0 */

/* Four elements of a turned position side by side, or four positions of an element. */
static int8_t *byte_at(const strip *s, int64_t i) {
    int64_t at = s->step > 1 ? (i / 4 * QSI_KV_PAGE + s->slot) * 4 + i % 4
                             : (s->slot / 4 * s->hd + i) * 4 + s->slot % 4;
    return (int8_t *)s->data + at;
}

static void put_q8(const strip *s, const qsi_kern *k, const float *x) {
    for (int64_t b = 0; b < s->hd; b += 32) {
        float all[32] = {0};
        qsi_act8 a;
        int64_t n = qsi_min64(32, s->hd - b);
        memcpy(all, x + b, (size_t)n * sizeof *x);
        k->f32_to_act8(all, &a, 32);
        s->scale[b / 32 * QSI_KV_PAGE] = qsi_f32_to_f16(a.d);
        for (int64_t i = 0; i < n; i++) *byte_at(s, b + i) = a.qs[i];
    }
}

/* The first n elements. */
static void get_q8(const strip *s, int64_t n, float *x) {
    for (int64_t i = 0; i < n; i++)
        x[i] = qsi_f16_to_f32(s->scale[i / 32 * QSI_KV_PAGE]) * (float)*byte_at(s, i);
}

static void put_f16(const strip *s, const qsi_kern *k, const float *x) {
    uint16_t *to = (uint16_t *)(void *)s->data + s->first, some[SOME];
    if (s->step == 1) {
        k->f32_to_f16(x, to, s->hd);
        return;
    }
    for (int64_t i = 0; i < s->hd; i += SOME) {
        int64_t n = qsi_min64(SOME, s->hd - i);
        k->f32_to_f16(x + i, some, n);
        for (int64_t j = 0; j < n; j++) to[(i + j) * s->step] = some[j];
    }
}

static void get_f16(const strip *s, const qsi_kern *k, int64_t n, float *x) {
    const uint16_t *from = (const uint16_t *)(const void *)s->data + s->first;
    if (s->step == 1)
        k->f16_to_f32(from, x, n);
    else
        for (int64_t i = 0; i < n; i++) x[i] = qsi_f16_to_f32(from[i * s->step]);
}

/* Byte of elements e and e + 4 of a turned block of 32, of e and e + 16 of one that stands by
 * position, for which e is j of 16: no byte is of two positions, which workers may write at
 * once. */
static uint8_t *pair_at(const strip *s, int64_t block, int j, int *first, int *second) {
    bool turned = s->step > 1;
    *first = turned ? j / 4 * 8 + j % 4 : j;
    *second = *first + (turned ? 4 : 16);
    int64_t word = turned ? (block * 4 + j / 4) * QSI_KV_PAGE + s->slot
                          : (s->slot / 4 * qsi_ceil_div(s->hd, 32) + block) * 16 + j;
    return (uint8_t *)s->data + word * 4 + (turned ? j % 4 : s->slot % 4);
}

static void put_q4_block(const strip *s, int64_t block, const float *x) {
    qsi_q4_0 q;
    qsi_type_get(QSI_Q4_0)->encode(x, &q, 32);
    memcpy(&s->scale[block * QSI_KV_PAGE], &q.d, sizeof q.d);
    for (int j = 0; j < 16; j++) {
        int e, f;
        uint8_t *to = pair_at(s, block, j, &e, &f);
        int low = q.qs[e % 16] >> e / 16 * 4 & 15, high = q.qs[f % 16] >> f / 16 * 4 & 15;
        *to = (uint8_t)(low | high << 4);
    }
}

/* By blocks of a rotation; what is not rotated by blocks of 32. */
static void put_q4(const strip *s, const qsi_kern *k, const float *x) {
    float some[ROTATE_MOST];
    for (int64_t i = 0, n; i < s->hd; i += n) {
        int64_t rotated = rotation(s->hd, s->part, i);
        n = rotated ? rotated : qsi_min64(32, s->hd - i);
        memset(some, 0, 32 * sizeof *some);
        memcpy(some, x + i, (size_t)n * sizeof *x);
        if (rotated) k->hadamard(some, n);
        for (int64_t b = 0; b < n; b += 32) put_q4_block(s, (i + b) / 32, some + b);
    }
}

/* The first n elements, as they stand. */
static void get_q4(const strip *s, int64_t n, float *x) {
    for (int64_t b = 0; b < qsi_ceil_div(n, 32); b++)
        for (int j = 0; j < 16; j++) {
            int at[2];
            int byte = *pair_at(s, b, j, &at[0], &at[1]);
            float d = qsi_f16_to_f32(s->scale[b * QSI_KV_PAGE]);
            for (int i = 0; i < 2; i++, byte >>= 4)
                if (32 * b + at[i] < n) x[32 * b + at[i]] = d * (float)((byte & 15) - 8);
        }
}

/* Two elements of a turned position side by side, or two positions of an element. */
static uint16_t *half_at(const strip *s, int64_t i) {
    int64_t at = s->step > 1 ? (i / 2 * QSI_KV_PAGE + s->slot) * 2 + i % 2
                             : (s->slot / 2 * s->hd + i) * 2 + s->slot % 2;
    return (uint16_t *)(void *)s->data + at;
}

/* A turned position's words are whole: a zero follows the last element. */
static void put_bf16(const strip *s, const qsi_kern *k, const float *x) {
    uint16_t some[SOME];
    for (int64_t i = 0; i < s->hd; i += SOME) {
        int64_t n = qsi_min64(SOME, s->hd - i);
        k->f32_to_bf16(x + i, some, n);
        for (int64_t j = 0; j < n; j++) *half_at(s, i + j) = some[j];
    }
    if (s->step > 1 && s->hd % 2) *half_at(s, s->hd) = 0;
}

static void get_bf16(const strip *s, int64_t n, float *x) {
    for (int64_t i = 0; i < n; i++) x[i] = qsi_bf16_to_f32(*half_at(s, i));
}

static void put(const strip *s, const qsi_kern *k, const float *x) {
    float *to = (float *)(void *)s->data + s->first;
    if (s->type == QSI_Q8_0)
        put_q8(s, k, x);
    else if (s->type == QSI_Q4_0)
        put_q4(s, k, x);
    else if (s->type == QSI_BF16)
        put_bf16(s, k, x);
    else if (s->type == QSI_F16)
        put_f16(s, k, x);
    else
        for (int64_t i = 0; i < s->hd; i++) to[i * s->step] = x[i];
}

static void get(const strip *s, const qsi_kern *k, int64_t n, float *x) {
    const float *from = (const float *)(const void *)s->data + s->first;
    if (s->type == QSI_Q8_0)
        get_q8(s, n, x);
    else if (s->type == QSI_Q4_0)
        get_q4(s, n, x);
    else if (s->type == QSI_BF16)
        get_bf16(s, n, x);
    else if (s->type == QSI_F16)
        get_f16(s, k, n, x);
    else
        for (int64_t i = 0; i < n; i++) x[i] = from[i * s->step];
}

/* Asks for the lines of a turned position that put will write: every element, where several stand
 * side by side all of these, has one of its own, and stores would wait for them one after
 * another. */
static void fetch(const strip *s) {
    size_t size = s->type == QSI_F16 ? sizeof(uint16_t) : 4;
    int64_t side = s->type == QSI_Q4_0 ? 8 : s->type == QSI_Q8_0 ? 4 : s->type == QSI_BF16 ? 2 : 1;
    int64_t n = qsi_ceil_div(s->hd, side);
    const char *at = s->data + (size_t)s->slot * size;
    for (int64_t i = 0; s->step > 1 && i < n; i++)
        __builtin_prefetch(at + (size_t)(i * QSI_KV_PAGE) * size, 1, 3);
}

void qsi_kv_store(const qsi_kv *kv, const qsi_kern *k, const qsi_kv_table *t, int32_t layer,
                  int32_t pos, int32_t h0, int32_t h1, const float *key, const float *value) {
    const layer_place *p = &kv->layers[layer];
    void *page = kv->mem[t->pages[pos / QSI_KV_PAGE]];
    int64_t slot = pos % QSI_KV_PAGE;
    strip next = key_strip(kv, p, page, h0, slot);
    fetch(&next);
    for (int32_t h = h0; h < h1; h++) {
        strip s = next;
        if (h + 1 < h1) {
            next = key_strip(kv, p, page, h + 1, slot);
            fetch(&next);
        }
        put(&s, k, key + (int64_t)h * p->s.hd_k);
        if (p->s.v_in_k) continue;
        s = value_strip(kv, p, page, h, slot);
        put(&s, k, value + (int64_t)h * p->s.hd_v);
    }
}

void qsi_kv_load(const qsi_kv *kv, const qsi_kern *k, const qsi_kv_table *t, int32_t layer,
                 int32_t pos, float *key, float *value) {
    const layer_place *p = &kv->layers[layer];
    void *page = kv->mem[t->pages[pos / QSI_KV_PAGE]];
    int64_t slot = pos % QSI_KV_PAGE;
    for (int32_t h = 0; h < p->s.n_head; h++) {
        strip s = key_strip(kv, p, page, h, slot);
        float *to = key + (int64_t)h * p->s.hd_k;
        if (key) get(&s, k, p->s.hd_k, to);
        if (key) qsi_kv_rotate(kv, k, layer, false, to);
        if (!value) continue;
        if (!p->s.v_in_k) s = value_strip(kv, p, page, h, slot);
        to = value + (int64_t)h * p->s.hd_v;
        get(&s, k, p->s.hd_v, to);
        qsi_kv_rotate(kv, k, layer, true, to);
    }
}

void qsi_kv_store_index(const qsi_kv *kv, const qsi_kern *k, const qsi_kv_table *t, int32_t layer,
                        int32_t pos, const float *key) {
    const layer_place *p = &kv->layers[layer];
    void *page = kv->mem[t->pages[pos / QSI_KV_PAGE]];
    strip s = strip_of(index_type(kv), page, p->i_off, true, p->s.hd_i, pos % QSI_KV_PAGE);
    put(&s, k, key);
}

qsi_kv_tile qsi_kv_index_tile(const qsi_kv *kv, const qsi_kv_table *t, int32_t layer,
                              int64_t page) {
    const layer_place *p = &kv->layers[layer];
    const char *at = (const char *)kv->mem[t->pages[page]] + p->i_off;
    size_t scales = qsi_kv_tile_scales(index_type(kv), p->s.hd_i);
    return (qsi_kv_tile){.type = index_type(kv), .data = at + scales,
                         .scale = scales ? (const uint16_t *)(const void *)at : NULL};
}
