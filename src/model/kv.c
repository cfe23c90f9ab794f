/* The KV cache: pages of 64 positions for all layers, taken page by page.
 *
 * A page holds for every layer the keys [kv head][64][hd_k], then the values [kv head][64][hd_v]
 * (none where values are prefixes of the keys), so a head's tile is one run of memory. A page given
 * back keeps its memory for the next taker. */
#include "model/layer.h"

#include <string.h>

typedef struct layer_place {
    qsi_kv_shape s;
    size_t k_off, v_off; /* bytes from the page's start */
} layer_place;

struct qsi_kv {
    int32_t n_layer;
    layer_place *layers;
    qsi_type type;
    int64_t max_pages, n_free;
    size_t page_bytes;
    void **mem;       /* [max_pages], NULL until first used */
    int32_t *free_ids; /* stack of pages not in a table */
};

qsi_kv_shape qsi_kv_shape_of(const qsi_config *c, int32_t layer) {
    (void)layer;
    int32_t value = qsi_config_cache_value(c);
    return (qsi_kv_shape){.n_head = qsi_config_cache_heads(c), .hd_k = qsi_config_cache_key(c),
                          .hd_v = value ? value : c->kv_rank, .v_in_k = !value};
}

static size_t element(const qsi_kv *kv) {
    return kv->type == QSI_F16 ? sizeof(uint16_t) : sizeof(float);
}

/* Bytes of one layer's keys or values of a page. */
static bool part_bytes(const qsi_kv *kv, int32_t heads, int32_t hd, size_t *out) {
    size_t n;
    return qsi_mul_size(element(kv) * QSI_KV_PAGE, (size_t)heads, &n) &&
           qsi_mul_size(n, (size_t)hd, &n) && qsi_add_size(n, QSI_ALIGN - 1, &n) &&
           (*out = n / QSI_ALIGN * QSI_ALIGN, true);
}

static qs_status place_layers(qsi_kv *kv, const qsi_config *c, qs_err *err) {
    qs_status st = QS_OK;
    size_t at = 0, n = 0;
    for (int32_t l = 0; l < kv->n_layer; l++) {
        layer_place *p = &kv->layers[l];
        p->s = qsi_kv_shape_of(c, l);
        p->k_off = p->v_off = at;
        bool ok = part_bytes(kv, p->s.n_head, p->s.hd_k, &n) && qsi_add_size(at, n, &at);
        if (ok && !p->s.v_in_k) {
            p->v_off = at;
            ok = part_bytes(kv, p->s.n_head, p->s.hd_v, &n) && qsi_add_size(at, n, &at);
        }
        if (!ok) QS_FAIL(err, QS_E_RANGE, "a KV page of this model is too large");
    }
    kv->page_bytes = at;
done:
    return st;
}

qs_status qsi_kv_create(qsi_kv **out, const qsi_config *c, qsi_type type, int64_t max_pages,
                        qs_err *err) {
    qs_status st = QS_OK;
    qsi_kv *kv = NULL;
    if (type != QSI_F16 && type != QSI_F32)
        QS_FAIL(err, QS_E_ARG, "a KV cache holds F16 or F32");
    if (max_pages < 1 || max_pages > INT32_MAX)
        QS_FAIL(err, QS_E_ARG, "a KV cache of %lld pages", (long long)max_pages);
    kv = qsi_calloc(1, sizeof *kv);
    if (!kv) QS_FAIL(err, QS_E_NOMEM, "no memory for a KV cache");
    *kv = (qsi_kv){.n_layer = c->n_layer, .type = type, .max_pages = max_pages,
                   .n_free = max_pages};
    kv->layers = qsi_calloc((size_t)c->n_layer, sizeof *kv->layers);
    if (!kv->layers) QS_FAIL(err, QS_E_NOMEM, "no memory for a KV cache");
    QS_TRY(place_layers(kv, c, err));
    kv->mem = qsi_calloc((size_t)max_pages, sizeof *kv->mem);
    kv->free_ids = qsi_alloc((size_t)max_pages, sizeof *kv->free_ids);
    if (!kv->mem || !kv->free_ids)
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
    for (int64_t i = 0; kv->mem && i < kv->max_pages; i++) qsi_free(kv->mem[i]);
    qsi_free(kv->mem);
    qsi_free(kv->free_ids);
    qsi_free(kv->layers);
    qsi_free(kv);
}

size_t qsi_kv_page_bytes(const qsi_kv *kv) {
    return kv->page_bytes;
}

qs_status qsi_kv_reserve(qsi_kv *kv, qsi_kv_table *t, int64_t n_pos, qs_err *err) {
    qs_status st = QS_OK;
    size_t need = n_pos > 0 ? (size_t)qsi_ceil_div(n_pos, QSI_KV_PAGE) : 0;
    if (need > t->n_pages && (int64_t)(need - t->n_pages) > kv->n_free)
        QS_FAIL(err, QS_E_LIMIT, "the KV cache is full: %zu more pages of %d positions are needed, "
                "%lld are free", need - t->n_pages, QSI_KV_PAGE, (long long)kv->n_free);
    if (need > t->cap) {
        void *p = t->pages;
        if (qsi_grow(&p, &t->cap, need, sizeof *t->pages) != QS_OK)
            QS_FAIL(err, QS_E_NOMEM, "no memory for a table of %zu KV pages", need);
        t->pages = p;
    }
    while (t->n_pages < need) {
        int32_t id = kv->free_ids[kv->n_free - 1];
        if (!kv->mem[id]) kv->mem[id] = qsi_alloc(kv->page_bytes, 1);
        if (!kv->mem[id])
            QS_FAIL(err, QS_E_NOMEM, "no memory for a KV page of %zu bytes", kv->page_bytes);
        kv->n_free--;
        t->pages[t->n_pages++] = id;
    }
done:
    return st;
}

void qsi_kv_truncate(qsi_kv *kv, qsi_kv_table *t, int64_t n_pos) {
    size_t keep = n_pos > 0 ? (size_t)qsi_ceil_div(n_pos, QSI_KV_PAGE) : 0;
    while (t->n_pages > keep) kv->free_ids[kv->n_free++] = t->pages[--t->n_pages];
}

void qsi_kv_table_release(qsi_kv *kv, qsi_kv_table *t) {
    qsi_kv_truncate(kv, t, 0);
    qsi_free(t->pages);
    *t = (qsi_kv_table){0};
}

qsi_kv_view qsi_kv_layer(const qsi_kv *kv, const qsi_kv_table *t, int32_t layer) {
    const layer_place *p = &kv->layers[layer];
    int64_t ld_v = p->s.v_in_k ? p->s.hd_k : p->s.hd_v;
    return (qsi_kv_view){.type = kv->type, .hd_k = p->s.hd_k, .hd_v = p->s.hd_v,
                         .v_in_k = p->s.v_in_k, .ld_k = p->s.hd_k, .ld_v = ld_v,
                         .head_k = (int64_t)QSI_KV_PAGE * p->s.hd_k,
                         .head_v = QSI_KV_PAGE * ld_v, .k_off = p->k_off, .v_off = p->v_off,
                         .page_mem = kv->mem, .pages = t->pages};
}

/* The place of head 0 of one position, and bytes from head to head. */
static char *place(const qsi_kv *kv, const qsi_kv_table *t, size_t off, int32_t pos, int32_t hd,
                   size_t *step) {
    *step = (size_t)QSI_KV_PAGE * (size_t)hd * element(kv);
    return (char *)kv->mem[t->pages[pos / QSI_KV_PAGE]] + off +
           (size_t)(pos % QSI_KV_PAGE) * (size_t)hd * element(kv);
}

static void put(const qsi_kv *kv, const qsi_kern *k, char *at, size_t step, int32_t heads,
                int32_t hd, const float *x) {
    for (int32_t h = 0; h < heads; h++, at += step, x += hd) {
        if (kv->type == QSI_F16)
            k->f32_to_f16(x, (uint16_t *)(void *)at, hd);
        else
            memcpy(at, x, (size_t)hd * sizeof *x);
    }
}

static void get(const qsi_kv *kv, const qsi_kern *k, const char *at, size_t step, int32_t heads,
                int32_t hd, float *x) {
    for (int32_t h = 0; h < heads; h++, at += step, x += hd) {
        if (kv->type == QSI_F16)
            k->f16_to_f32((const uint16_t *)(const void *)at, x, hd);
        else
            memcpy(x, at, (size_t)hd * sizeof *x);
    }
}

void qsi_kv_store(const qsi_kv *kv, const qsi_kern *k, const qsi_kv_table *t, int32_t layer,
                  int32_t pos, const float *key, const float *value) {
    const layer_place *p = &kv->layers[layer];
    size_t step;
    char *at = place(kv, t, p->k_off, pos, p->s.hd_k, &step);
    put(kv, k, at, step, p->s.n_head, p->s.hd_k, key);
    if (p->s.v_in_k) return;
    at = place(kv, t, p->v_off, pos, p->s.hd_v, &step);
    put(kv, k, at, step, p->s.n_head, p->s.hd_v, value);
}

void qsi_kv_load(const qsi_kv *kv, const qsi_kern *k, const qsi_kv_table *t, int32_t layer,
                 int32_t pos, float *key, float *value) {
    const layer_place *p = &kv->layers[layer];
    size_t step;
    const char *at = place(kv, t, p->k_off, pos, p->s.hd_k, &step);
    if (key) get(kv, k, at, step, p->s.n_head, p->s.hd_k, key);
    if (!value) return;
    if (!p->s.v_in_k) at = place(kv, t, p->v_off, pos, p->s.hd_v, &step);
    get(kv, k, at, step, p->s.n_head, p->s.hd_v, value);
}
