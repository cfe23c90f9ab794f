/* The KV cache: pages of 64 positions for all layers, taken page by page.
 *
 * A page holds [layer][keys, values][kv head][64][head_dim], so a head's tile is one run of memory.
 * Attention over latent vectors keeps keys alone: one head, its values the beginning of each key.
 * A page given back keeps its memory for the next taker. */
#include "model/layer.h"

#include <string.h>

struct qsi_kv {
    int32_t n_layer, n_kv, hd;
    int halves;      /* 2: keys and values; 1: values are the beginning of the keys */
    bool f16;
    int64_t max_pages, n_free;
    size_t page_bytes;
    void **mem;       /* [max_pages], NULL until first used */
    int32_t *free_ids; /* stack of pages not in a table */
};

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
    *kv = (qsi_kv){.n_layer = c->n_layer, .n_kv = qsi_config_cache_heads(c),
                   .hd = qsi_config_cache_key(c), .halves = qsi_config_cache_value(c) ? 2 : 1,
                   .f16 = type == QSI_F16, .max_pages = max_pages, .n_free = max_pages};
    size_t n = QSI_KV_PAGE * (kv->f16 ? sizeof(uint16_t) : sizeof(float));
    if (!qsi_mul_size(n, (size_t)kv->halves * (size_t)c->n_layer, &n) ||
        !qsi_mul_size(n, (size_t)kv->n_kv, &n) || !qsi_mul_size(n, (size_t)kv->hd, &n))
        QS_FAIL(err, QS_E_RANGE, "a KV page of this model is too large");
    kv->page_bytes = n;
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

/* Elements from the start of a page to the keys (0) or values (1) of a layer. */
static int64_t layer_off(const qsi_kv *kv, int32_t layer, int which) {
    if (kv->halves == 1) which = 0;
    return (kv->halves * (int64_t)layer + which) * kv->n_kv * QSI_KV_PAGE * kv->hd;
}

qsi_kv_view qsi_kv_layer(const qsi_kv *kv, const qsi_kv_table *t, int32_t layer) {
    return (qsi_kv_view){.f16 = kv->f16, .ld = kv->hd,
                         .head_stride = (int64_t)QSI_KV_PAGE * kv->hd,
                         .k_off = layer_off(kv, layer, 0), .v_off = layer_off(kv, layer, 1),
                         .page_mem = kv->mem, .pages = t->pages};
}

void qsi_kv_store(const qsi_kv *kv, const qsi_kern *k, const qsi_kv_table *t, int32_t layer,
                  int32_t pos, const float *key, const float *value) {
    char *page = kv->mem[t->pages[pos / QSI_KV_PAGE]];
    for (int which = 0; which < kv->halves; which++) {
        const float *x = which ? value : key;
        int64_t at = layer_off(kv, layer, which) + (int64_t)(pos % QSI_KV_PAGE) * kv->hd;
        for (int32_t h = 0; h < kv->n_kv; h++, at += (int64_t)QSI_KV_PAGE * kv->hd) {
            if (kv->f16)
                k->f32_to_f16(x + h * kv->hd, (uint16_t *)page + at, kv->hd);
            else
                memcpy((float *)page + at, x + h * kv->hd, (size_t)kv->hd * sizeof(float));
        }
    }
}
