/* Attention: softmax(scale q kT) v over the positions up to a row's own, forward and backward.
 *
 * Forward: online softmax (Milakov and Gimelshein 2018; Dao et al. 2022) over spans of 256 absolute
 * positions. Within a span, for many rows and tiles of 64 positions: scores, their exponentials
 * under the span's own largest score, products with the values. Per row and head the state is m
 * (largest scaled score), l (sum of exp(s - m)) and o (sum of exp(s - m) v):
 *     m' = max(m, ms), a = exp(m - m'), b = exp(ms - m'), l = a l + b ls, o = a o + b os.
 * Query rows are those of a block times the heads of a group; keys and values of a tile stay in the
 * worker's cache for all of them. On the diagonal, rows are taken by FEW, so that positions none
 * of them sees are skipped.
 * Where the view asks for bfloat16, both products are taken in it (kern.h: attn16_*), the softmax
 * and the sums between spans stay float32. A tile becomes words once for all rows of a pass, or,
 * where a pass has few rows and the cache its keys turned, on the way. Where it asks for bytes,
 * they are taken in integers (attn8_*) from the cache's own tile. Values that are prefixes of the
 * keys have another scale every 32 columns for all heads of the group: there only scores are, and
 * values become words. Backward: with p = exp(s - lse), dp = dout vT, D = dout . out,
 *     ds = scale p (dp - D), dq = ds k, dk = dsT q, dv = pT dout.
 * Rows are taken in blocks; sums over rows run in their order. */
#include "op/op.h"

#include <math.h>
#include <string.h>

enum { TILE = QSI_ATTEND_TILE, SPAN = QSI_ATTEND_SPAN, FEW = 6, SOME = 30, SIDE = 16,
       RAW = 3 /* rows of a pass up to which words are made on the way */ };

qsi_kv_view qsi_kv_rows(const float *k, int64_t ld_k, int64_t hd_k, const float *v, int64_t ld_v,
                        int64_t hd_v) {
    return (qsi_kv_view){.type = QSI_F32, .hd_k = hd_k, .hd_v = hd_v, .v_in_k = !v, .ld_k = ld_k,
                         .ld_v = v ? ld_v : ld_k, .head_k = hd_k, .head_v = v ? hd_v : hd_k,
                         .k = k, .v = v ? v : k};
}

qsi_kv_view qsi_kv_words(const uint16_t *k, int64_t hd_k, const uint16_t *v, int64_t hd_v,
                         int64_t pos0) {
    return (qsi_kv_view){.type = QSI_BF16, .hd_k = hd_k, .hd_v = hd_v, .turned = true,
                         .bf16 = true, .k16 = k, .v16 = v, .pos0 = pos0};
}

size_t qsi_kv_tile_scales(qsi_type type, int64_t hd) {
    return qsi_kv_scaled(type) ? (size_t)qsi_ceil_div(hd, 32) * TILE * sizeof(uint16_t) : 0;
}

size_t qsi_kv_tile_bytes(qsi_type type, int64_t hd) {
    if (type == QSI_Q4_0)
        return qsi_kv_tile_scales(type, hd) + (size_t)(TILE * qsi_round_up(hd, 32)) / 2;
    size_t size = type == QSI_F32 ? sizeof(float) : type == QSI_Q8_0 ? 1 : sizeof(uint16_t);
    if (type == QSI_Q8_0) hd = qsi_round_up(hd, 4);
    if (type == QSI_BF16) hd = qsi_round_up(hd, 2);
    return qsi_kv_tile_scales(type, hd) + (size_t)(TILE * hd) * size;
}

typedef struct tile {
    const void *data;
    const uint16_t *scale; /* NULL: none */
    int64_t ld;
} tile;

static tile tile_at(const qsi_kv_view *v, bool values, int64_t head, int64_t j) {
    if (v->page_mem) {
        int64_t hd = values && !v->v_in_k ? v->hd_v : v->hd_k;
        size_t scales = qsi_kv_tile_scales(v->type, hd);
        const char *page = v->page_mem[v->pages[j]];
        page += values ? v->v_off + (size_t)head * v->v_tile : v->k_off + (size_t)head * v->k_tile;
        if (v->type == QSI_Q4_0) hd = qsi_round_up(hd, 32);
        return (tile){page + scales, scales ? (const uint16_t *)(const void *)page : NULL, hd};
    }
    if (v->type == QSI_BF16) {
        int64_t at = j - v->pos0 / TILE, ld = qsi_round_up(v->hd_v, 16);
        return values ? (tile){v->v16 + at * qsi_kv_value_words(v->hd_v), NULL, ld}
                      : (tile){v->k16 + at * qsi_kv_key_words(v->hd_k), NULL, TILE};
    }
    int64_t ld = values ? v->ld_v : v->ld_k;
    const float *base = values ? v->v : v->k;
    base += (j * TILE - v->pos0) * ld + head * (values ? v->head_v : v->head_k);
    return (tile){base, NULL, ld};
}

/* Query rows of one pass: m of them, x = row * group + head of the group. */
typedef struct pass {
    const qsi_kern *k;
    const qsi_kv_view *kv;
    int64_t m, group, pos0, kvh;
    const float *q;
    int64_t ldq;
    float scale;
    float *s;            /* [m, SPAN] */
    float *o;            /* [m, hd_v] of the span */
    qsi_attend_state *t; /* [m] of the span; l 0: the row sees none of it */
    float *wide;         /* [TILE, hd_k or hd_v]: keys turned, or a tile widened to floats */
    /* bfloat16 */
    uint16_t *q16, *kw, *vw; /* queries [m, hd_k rounded up to 2]; words of a tile's keys; of values:
                                of a tile, or where they are in the keys of a span */
    /* bytes */
    qsi_act8 *q8; /* queries [m, blocks of hd_k] */
    int8_t *kb;   /* keys turned, where they stand naturally */
} pass;

/* Positions of [p0, p0 + n) that query row x sees. */
static int64_t sees(const pass *a, int64_t x, int64_t p0, int64_t n) {
    return qsi_min64(n, qsi_max64(0, a->pos0 + x / a->group + 1 - p0));
}

/* A tile that will be needed next. */
typedef struct coming {
    bool there, values;
    int64_t p0, kvh;
} coming;

/* Asks for its part that belongs to query rows [x, x + SOME): so it comes while rows work on the
 * tile before it. A row alone streams faster than that and fetches ahead itself; it is given the
 * start. */
static void fetch(const pass *a, const coming *c, int64_t x) {
    const qsi_kv_view *kv = a->kv;
    if (!c->there || !kv->page_mem) return;
    const char *page = kv->page_mem[kv->pages[c->p0 / TILE]];
    size_t size = c->values ? kv->v_tile : kv->k_tile;
    size_t from = (c->values ? kv->v_off : kv->k_off) + (size_t)c->kvh * size;
    size_t part = a->m < SOME ? 4096 : qsi_round_up((int64_t)size * SOME / a->m, QSI_ALIGN);
    size_t at = part * (size_t)(x / SOME), end = at + part < size ? at + part : size;
    for (; at < end; at += QSI_ALIGN) __builtin_prefetch(page + from + at, 0, 2);
}

/* Many rows meet a tile of halves as floats: the same values, widened once. */
static void widen(const pass *a, qsi_type *type, tile *t, int64_t n) {
    if (*type != QSI_F16 || a->m < SOME) return;
    a->k->f16_to_f32(t->data, a->wide, n);
    t->data = a->wide;
    *type = QSI_F32;
}

/* A tile as what products in bfloat16 are asked to fetch meanwhile. */
static qsi_ahead ahead_of(const pass *a, const coming *c) {
    const qsi_kv_view *kv = a->kv;
    if (!c->there || !kv->page_mem) return (qsi_ahead){NULL, NULL};
    const char *page = kv->page_mem[kv->pages[c->p0 / TILE]];
    size_t size = c->values ? kv->v_tile : kv->k_tile;
    page += (c->values ? kv->v_off : kv->k_off) + (size_t)c->kvh * size;
    return (qsi_ahead){page, page + size};
}

/* Words of the tile's keys; of its values too where those are in the keys. */
static tile key_words(const pass *a, int64_t p0, int64_t last) {
    const qsi_kv_view *kv = a->kv;
    tile t = tile_at(kv, false, a->kvh, p0 / TILE);
    if (kv->type == QSI_BF16 && kv->turned) return t;
    if (kv->turned) {
        a->k->attn16_pair(kv->type, kv->hd_k, last, t.data, TILE, NULL, a->kw, TILE);
        return (tile){a->kw, NULL, TILE};
    }
    int64_t slot = p0 / TILE % (SPAN / TILE);
    a->k->attn16_turn(kv->type, last, kv->hd_k, kv->hd_v, t.data, t.ld, a->kw,
                      kv->v_in_k && kv->type != QSI_BF16 ? a->vw + slot * qsi_kv_value_words(kv->hd_v)
                                                         : NULL,
                      qsi_round_up(kv->hd_v, 16));
    return (tile){a->kw, NULL, TILE};
}

/* Blocks of 32 that a key has. */
static int64_t blocks_of(int64_t hd) { return qsi_ceil_div(hd, 32); }

/* The tile's keys turned, its values as words. */
static const void *turned_bytes(const pass *a, const tile *t, int64_t p0, int64_t n) {
    const qsi_kv_view *kv = a->kv;
    uint16_t *words = a->vw + p0 / TILE % (SPAN / TILE) * qsi_kv_value_words(kv->hd_v);
    a->k->attn8_turn(kv->type, n, kv->hd_k, t->data, t->ld, a->kb);
    a->k->attn16_pair(kv->type, n, kv->hd_v, t->data, t->ld, t->scale, words,
                      qsi_round_up(kv->hd_v, 16));
    return a->kb;
}

static void scores8(const pass *a, int64_t p0, float *s, const coming *next) {
    const qsi_kv_view *kv = a->kv;
    int64_t d = kv->hd_k, ldq = blocks_of(d), last = sees(a, a->m - 1, p0, TILE);
    qsi_ahead ahead = ahead_of(a, next);
    tile t = tile_at(kv, false, a->kvh, p0 / TILE);
    const void *keys = kv->v_in_k ? turned_bytes(a, &t, p0, last) : t.data;
    qsi_type type = kv->v_in_k ? QSI_Q8_0 : kv->type;
    bool all = sees(a, 0, p0, TILE) == TILE || a->group == a->m;
    for (int64_t x = 0; x < a->m; x += FEW) {
        int64_t few = qsi_min64(FEW, a->m - x), n = all ? last : sees(a, x + few - 1, p0, TILE);
        if (n > 0)
            a->k->attn8_qk(type, few, n, d, a->q8 + x * ldq, ldq, keys, t.scale, s + x * SPAN, SPAN,
                           &ahead);
    }
}

static void values8(const pass *a, int64_t p0, const float *s) {
    const qsi_kv_view *kv = a->kv;
    int64_t d = kv->hd_v, last = sees(a, a->m - 1, p0, TILE);
    tile t = tile_at(kv, true, a->kvh, p0 / TILE);
    bool all = sees(a, 0, p0, TILE) == TILE || a->group == a->m;
    for (int64_t x = 0; x < a->m; x += FEW) {
        int64_t few = qsi_min64(FEW, a->m - x), n = all ? last : sees(a, x + few - 1, p0, TILE);
        if (n > 0)
            a->k->attn8_pv(kv->type, few, n, d, s + x * SPAN, SPAN, t.data, t.ld, t.scale,
                           a->o + x * d, d);
    }
}

static void scores16(const pass *a, int64_t p0, float *s, const coming *next) {
    const qsi_kv_view *kv = a->kv;
    int64_t d = kv->hd_k, ldq = qsi_round_up(d, 2), last = sees(a, a->m - 1, p0, TILE);
    qsi_ahead ahead = ahead_of(a, next);
    if (kv->type != QSI_BF16 && kv->turned && a->m <= RAW) {
        tile t = tile_at(kv, false, a->kvh, p0 / TILE);
        a->k->attn16_qk(kv->type, a->m, last, d, a->q16, ldq, t.data, s, SPAN, NULL);
        return;
    }
    tile t = key_words(a, p0, last);
    bool all = sees(a, 0, p0, TILE) == TILE || a->group == a->m;
    for (int64_t x = 0; x < a->m; x += FEW) {
        int64_t few = qsi_min64(FEW, a->m - x), n = all ? last : sees(a, x + few - 1, p0, TILE);
        if (n > 0)
            a->k->attn16_qk(QSI_BF16, few, n, d, a->q16 + x * ldq, ldq, t.data, s + x * SPAN, SPAN,
                            &ahead);
    }
}

static void values16(const pass *a, int64_t p0, const float *s, const coming *next) {
    const qsi_kv_view *kv = a->kv;
    int64_t d = kv->hd_v, ld = qsi_round_up(d, 16), last = sees(a, a->m - 1, p0, TILE);
    qsi_ahead ahead = ahead_of(a, next);
    tile t = {a->vw + p0 / TILE % (SPAN / TILE) * qsi_kv_value_words(d), NULL, ld};
    if (!kv->v_in_k || kv->type == QSI_BF16) {
        t = tile_at(kv, true, a->kvh, p0 / TILE);
        if (kv->type != QSI_BF16 && a->m <= RAW) {
            a->k->attn16_pv(kv->type, a->m, last, d, s, SPAN, t.data, t.ld, a->o, d, NULL);
            return;
        }
        if (kv->type != QSI_BF16) {
            a->k->attn16_pair(kv->type, last, d, t.data, t.ld, NULL, a->vw, ld);
            t = (tile){a->vw, NULL, ld};
        }
    }
    bool all = sees(a, 0, p0, TILE) == TILE || a->group == a->m;
    for (int64_t x = 0; x < a->m; x += FEW) {
        int64_t few = qsi_min64(FEW, a->m - x), n = all ? last : sees(a, x + few - 1, p0, TILE);
        if (n > 0)
            a->k->attn16_pv(QSI_BF16, few, n, d, s + x * SPAN, SPAN, t.data, t.ld, a->o + x * d, d,
                            &ahead);
    }
}

static void scores(const pass *a, int64_t p0, float *s, const coming *next) {
    const qsi_kv_view *kv = a->kv;
    if (kv->bytes) {
        scores8(a, p0, s, next);
        return;
    }
    if (kv->bf16) {
        scores16(a, p0, s, next);
        return;
    }
    int64_t d = kv->hd_k, last = sees(a, a->m - 1, p0, TILE);
    tile t = tile_at(kv, false, a->kvh, p0 / TILE);
    qsi_type type = kv->type;
    if (!kv->turned) {
        a->k->attn_turn(type, last, d, t.data, t.ld, a->wide);
        t.data = a->wide;
        type = QSI_F32;
    } else {
        widen(a, &type, &t, d * TILE);
    }
    if (sees(a, 0, p0, TILE) == TILE || a->group == a->m) {
        for (int64_t x = 0; x < a->m; x += SOME) {
            fetch(a, next, x);
            a->k->attn_qk(type, qsi_min64(SOME, a->m - x), last, d, a->q + x * a->ldq, a->ldq,
                          t.data, t.scale, s + x * SPAN, SPAN);
        }
        return;
    }
    for (int64_t x = 0; x < a->m; x += FEW) {
        int64_t few = qsi_min64(FEW, a->m - x), n = sees(a, x + few - 1, p0, TILE);
        if (n > 0)
            a->k->attn_qk(type, few, n, d, a->q + x * a->ldq, a->ldq, t.data, t.scale,
                          s + x * SPAN, SPAN);
    }
}

static void values(const pass *a, int64_t p0, const float *s, const coming *next) {
    const qsi_kv_view *kv = a->kv;
    if (kv->bytes && !kv->v_in_k) {
        values8(a, p0, s);
        return;
    }
    if (kv->bf16) {
        values16(a, p0, s, next);
        return;
    }
    int64_t d = kv->hd_v, last = sees(a, a->m - 1, p0, TILE);
    tile t = tile_at(kv, true, a->kvh, p0 / TILE);
    qsi_type type = kv->type;
    if (t.ld == d) widen(a, &type, &t, last * d);
    if (sees(a, 0, p0, TILE) == TILE || a->group == a->m) {
        for (int64_t x = 0; x < a->m; x += SOME) {
            fetch(a, next, x);
            a->k->attn_pv(type, qsi_min64(SOME, a->m - x), last, d, s + x * SPAN, SPAN, t.data,
                          t.ld, t.scale, a->o + x * d, d);
        }
        return;
    }
    for (int64_t x = 0; x < a->m; x += FEW) {
        int64_t few = qsi_min64(FEW, a->m - x), n = sees(a, x + few - 1, p0, TILE);
        if (n > 0)
            a->k->attn_pv(type, few, n, d, s + x * SPAN, SPAN, t.data, t.ld, t.scale,
                          a->o + x * d, d);
    }
}

/* Softmax of a span's scores, without the division. */
static void weigh(const pass *a, int64_t p0, int64_t seen) {
    int64_t end = qsi_round_up(seen, TILE);
    for (int64_t x = 0; x < a->m; x++) {
        int64_t n = sees(a, x, p0, SPAN);
        float *s = a->s + x * SPAN;
        a->t[x] = (qsi_attend_state){0};
        if (n > 0) a->t[x].l = a->k->softmax_exp(s, n, a->scale, &a->t[x].m);
        memset(s + n, 0, (size_t)(end - n) * sizeof *s);
    }
    memset(a->o, 0, (size_t)(a->m * a->kv->hd_v) * sizeof *a->o);
}

/* What follows a tile of keys. Where those hold the values too, these are words by then, and the
 * next keys are the worker's next span's. */
static coming after_keys(const pass *a, int64_t n, int64_t h, int64_t p0, int64_t p,
                         int64_t seen) {
    if (p + TILE < seen) return (coming){h == n - 1, false, p0 + p + TILE, a->kvh};
    if (!a->kv->bf16 || !a->kv->v_in_k) return (coming){h == n - 1, true, p0, a->kvh};
    int64_t to = p0 + SPAN * qsi_max64(1, a->kv->stride);
    return (coming){h == n - 1 && sees(a, a->m - 1, to, 1) > 0, false, to, a->kvh};
}

/* One span for all rows of n passes, the same rows of neighbouring heads, into their t and o. Tiles
 * of neighbouring heads lie side by side: taken one after another they are one long stream. Weights
 * of positions that a row does not see are zero: on the diagonal it meets the values of the rows
 * after it, which must be finite (if one is not, no later row of the sequence is either). */
static void span_of(const pass *a, int64_t n, int64_t span) {
    int64_t p0 = span * SPAN, seen = sees(a, a->m - 1, p0, SPAN);
    if (n > 1 && a->kv->bf16 && a->kv->v_in_k) { /* the values' words have one place */
        for (int64_t h = 0; h < n; h++) span_of(a + h, 1, span);
        return;
    }
    for (int64_t p = 0; p < seen; p += TILE)
        for (int64_t h = 0; h < n; h++) {
            coming next = after_keys(a, n, h, p0, p, seen);
            scores(a + h, p0 + p, a[h].s + p, &next);
        }
    for (int64_t h = 0; h < n; h++) weigh(a + h, p0, seen);
    for (int64_t p = 0; p < seen; p += TILE)
        for (int64_t h = 0; h < n; h++) {
            bool more = p + TILE < seen;
            coming next = {h == n - 1 && (more || sees(a, a->m - 1, p0 + SPAN, 1) > 0), more,
                           p0 + p + TILE, a->kvh};
            if (a->kv->bf16 && a->kv->v_in_k) next.there = false; /* asked for already */
            values(a + h, p0 + p, a[h].s + p, &next);
        }
}

/* Takes a span's result (state t, sums os) into st and o. */
static void merge(const qsi_kern *k, qsi_attend_state *st, float *o, qsi_attend_state t,
                  const float *os, int64_t hd) {
    if (st->l == 0.0f) {
        *st = t;
        memcpy(o, os, (size_t)hd * sizeof *o);
    } else if (t.m > st->m) {
        float a = expf(st->m - t.m);
        k->scale(a, o, hd);
        k->add(os, o, hd);
        *st = (qsi_attend_state){t.m, st->l * a + t.l};
    } else {
        float b = expf(t.m - st->m);
        k->axpy(b, os, o, hd);
        st->l += t.l * b;
    }
}

/* Rows of a pass: as many as make about TILE query rows. */
static int64_t pass_rows(int64_t group) { return qsi_max64(1, TILE / group); }

/* Query rows of a pass, or of several of neighbouring heads, at most. */
static int64_t most_rows(int64_t group) { return qsi_max64(TILE, group); }

size_t qsi_attend_scratch(int64_t group, int64_t hd_k, int64_t hd_v) {
    int64_t m = most_rows(group);
    size_t words = (size_t)(m * (hd_k + 1) + qsi_kv_key_words(hd_k) +
                            SPAN / TILE * qsi_kv_value_words(hd_v)) * sizeof(uint16_t);
    words += (size_t)(m * blocks_of(hd_k)) * sizeof(qsi_act8);
    return (size_t)(m * (SPAN + hd_k + hd_v) + TILE * qsi_max64(hd_k, hd_v)) * sizeof(float) +
           (size_t)(m + TILE * group) * sizeof(qsi_attend_state) + words + 10 * QSI_ALIGN;
}

static pass pass_init(const qsi_kern *k, const qsi_kv_view *kv, int64_t kvh, int64_t group,
                      float scale, qsi_bump *b) {
    int64_t m = most_rows(group);
    QS_ASSERT(kv->bytes ? qsi_kv_scaled(kv->type) && kv->bf16 == kv->v_in_k
                        : !kv->bf16 || !qsi_kv_scaled(kv->type));
    pass a = {.k = k, .kv = kv, .group = group, .kvh = kvh, .scale = scale};
    a.s = qsi_bump_take(b, (size_t)(m * SPAN) * sizeof *a.s);
    a.o = qsi_bump_take(b, (size_t)(m * kv->hd_v) * sizeof *a.o);
    a.t = qsi_bump_take(b, (size_t)m * sizeof *a.t);
    a.wide = qsi_bump_take(b, (size_t)(TILE * qsi_max64(kv->hd_k, kv->hd_v)) * sizeof *a.wide);
    if (!kv->bf16 && !kv->bytes) return a;
    int64_t tiles = kv->v_in_k ? SPAN / TILE : 1;
    a.q8 = qsi_bump_take(b, (size_t)(m * blocks_of(kv->hd_k)) * sizeof *a.q8);
    a.q16 = qsi_bump_take(b, (size_t)(m * (kv->hd_k + 1)) * sizeof *a.q16);
    a.kw = qsi_bump_take(b, (size_t)qsi_kv_key_words(kv->hd_k) * sizeof *a.kw);
    a.kb = (int8_t *)a.kw;
    a.vw = qsi_bump_take(b, (size_t)(tiles * qsi_kv_value_words(kv->hd_v)) * sizeof *a.vw);
    return a;
}

/* A query in blocks, zero behind its end. */
static void query_bytes(const qsi_kern *k, const float *q, int64_t d, qsi_act8 *y) {
    int64_t whole = d / 32 * 32;
    k->f32_to_act8(q, y, whole);
    if (whole == d) return;
    float rest[32] = {0};
    memcpy(rest, q + whole, (size_t)(d - whole) * sizeof *q);
    k->f32_to_act8(rest, y + whole / 32, 32);
}

/* Query rows of rows [i, i + n) as one dense matrix: rows of the step are a power of two apart,
 * which is the same set of the cache for all of them. */
static void pass_queries(pass *a, const qsi_attend_rows *r, int64_t i, int64_t n, float *tmp) {
    int64_t d = a->kv->hd_k, h = a->kvh * a->group * d;
    a->m = n * a->group;
    a->pos0 = r->pos0 + i;
    a->q = r->q + i * r->ldq + h;
    a->ldq = d;
    if (a->kv->bf16 || a->kv->bytes) {
        int64_t ld = qsi_round_up(d, 2);
        for (int64_t x = 0; x < a->m; x++) {
            const float *q = r->q + (i + x / a->group) * r->ldq + h + x % a->group * d;
            if (a->kv->bytes) {
                query_bytes(a->k, q, d, a->q8 + x * blocks_of(d));
                continue;
            }
            a->k->f32_to_bf16(q, a->q16 + x * ld, d);
            if (ld > d) a->q16[x * ld + d] = 0;
        }
        return;
    }
    if (n == 1) return;
    for (int64_t j = 0; j < n; j++)
        memcpy(tmp + j * a->group * d, r->q + (i + j) * r->ldq + h,
               (size_t)(a->group * d) * sizeof *tmp);
    a->q = tmp;
}

typedef void span_fn(const pass *a, const qsi_attend_rows *r, int64_t i, void *arg);

/* Runs a span for all rows that see it, pass by pass; row i of the block is the pass's first. */
static void each_pass(const qsi_kern *k, const qsi_kv_view *kv, const qsi_attend_rows *r,
                      int64_t kvh, int64_t group, float scale, int64_t span, qsi_bump b,
                      span_fn *fn, void *arg) {
    pass a = pass_init(k, kv, kvh, group, scale, &b);
    int64_t per = pass_rows(group);
    float *tmp = qsi_bump_take(&b, (size_t)(most_rows(group) * kv->hd_k) * sizeof *tmp);
    int64_t i = qsi_max64(0, span * SPAN - r->pos0); /* rows before see none of it */
    for (; i < r->n_rows; i += per) {
        pass_queries(&a, r, i, qsi_min64(per, r->n_rows - i), tmp);
        span_of(&a, 1, span);
        fn(&a, r, i, arg);
    }
}

static void take_span(const pass *a, const qsi_attend_rows *r, int64_t i, void *arg) {
    qsi_attend_state *st = arg;
    int64_t hd = a->kv->hd_v;
    for (int64_t x = 0; x < a->m; x++) {
        float *o = r->out + (i + x / a->group) * r->ldo + (a->kvh * a->group + x % a->group) * hd;
        merge(a->k, &st[i * a->group + x], o, a->t[x], a->o + x * hd, hd);
    }
}

/* Upper bound of the scratch of one call: the callers know the exact size. */
static qsi_bump whole(char *scratch) { return (qsi_bump){scratch, SIZE_MAX / 2}; }

void qsi_attend_add(const qsi_kern *k, const qsi_kv_view *kv, const qsi_attend_rows *r,
                    int64_t kvh, int64_t group, float scale, int64_t span, qsi_attend_state *st,
                    char *scratch) {
    each_pass(k, kv, r, kvh, group, scale, span, whole(scratch), take_span, st);
}

void qsi_attend_end(const qsi_kern *k, int64_t hd_v, const qsi_attend_rows *r, int64_t kvh,
                    int64_t group, const qsi_attend_state *st) {
    for (int64_t i = 0; i < r->n_rows; i++)
        for (int64_t g = 0; g < group; g++, st++) {
            int64_t h = kvh * group + g;
            k->scale(1.0f / st->l, r->out + i * r->ldo + h * hd_v, hd_v);
            if (r->lse) r->lse[i * r->ld_lse + h] = st->m + logf(st->l);
        }
}

void qsi_attend(const qsi_kern *k, const qsi_kv_view *kv, const qsi_attend_rows *r, int64_t kvh,
                int64_t group, float scale, char *scratch) {
    qsi_bump b = whole(scratch);
    size_t n = (size_t)(r->n_rows * group);
    qsi_attend_state *st = qsi_bump_take(&b, n * sizeof *st);
    memset(st, 0, n * sizeof *st);
    for (int64_t j = 0; j < qsi_attend_spans(r->pos0 + r->n_rows - 1); j++)
        each_pass(k, kv, r, kvh, group, scale, j, b, take_span, st);
    qsi_attend_end(k, kv->hd_v, r, kvh, group, st);
}

typedef struct part_place {
    float *parts;
    int64_t n_head, n_spans, span;
} part_place;

static void keep_part(const pass *a, const qsi_attend_rows *r, int64_t i, void *arg) {
    (void)r;
    const part_place *p = arg;
    int64_t hd = a->kv->hd_v;
    for (int64_t x = 0; x < a->m; x++) {
        int64_t h = a->kvh * a->group + x % a->group, row = i + x / a->group;
        float *to = p->parts + ((row * p->n_head + h) * p->n_spans + p->span) *
                                   qsi_attend_part_floats(hd);
        to[0] = a->t[x].m;
        to[1] = a->t[x].l;
        memcpy(to + 16, a->o + x * hd, (size_t)hd * sizeof *to);
    }
}

void qsi_attend_part(const qsi_kern *k, const qsi_kv_view *kv, const qsi_attend_rows *r,
                     int64_t kvh, int64_t group, float scale, int64_t span, float *parts,
                     int64_t n_head, int64_t n_spans, char *scratch) {
    part_place p = {parts, n_head, n_spans, span};
    each_pass(k, kv, r, kvh, group, scale, span, whole(scratch), keep_part, &p);
}

int64_t qsi_attend_side(int64_t n_rows, int64_t group) {
    return qsi_max64(1, qsi_min64(SIDE, most_rows(group) / (n_rows * group)));
}

void qsi_attend_part_side(const qsi_kern *k, const qsi_kv_view *kv, const qsi_attend_rows *r,
                          int64_t kvh, int64_t n_kvh, int64_t group, float scale, int64_t span,
                          float *parts, int64_t n_head, int64_t n_spans, char *scratch) {
    QS_ASSERT(n_kvh <= qsi_attend_side(r->n_rows, group));
    part_place place = {parts, n_head, n_spans, span};
    qsi_bump b = whole(scratch);
    pass a[SIDE];
    a[0] = pass_init(k, kv, kvh, group, scale, &b);
    float *tmp = qsi_bump_take(&b, (size_t)(most_rows(group) * kv->hd_k) * sizeof *tmp);
    int64_t i = qsi_max64(0, span * SPAN - r->pos0), m = (r->n_rows - i) * group;
    if (m <= 0) return;
    for (int64_t h = 0; h < n_kvh; h++) {
        a[h] = a[0];
        a[h].kvh = kvh + h;
        a[h].s += h * m * SPAN;
        a[h].o += h * m * kv->hd_v;
        a[h].t += h * m;
        if (kv->bytes) a[h].q8 += h * m * blocks_of(kv->hd_k);
        else if (kv->bf16) a[h].q16 += h * m * (kv->hd_k + 1);
        pass_queries(&a[h], r, i, r->n_rows - i, tmp + h * m * kv->hd_k);
    }
    span_of(a, n_kvh, span);
    for (int64_t h = 0; h < n_kvh; h++) keep_part(&a[h], r, i, &place);
}

void qsi_attend_merge(const qsi_kern *k, int64_t hd_v, const float *parts, int64_t n_spans,
                      float *out) {
    qsi_attend_state st = {0};
    for (int64_t j = 0; j < n_spans; j++, parts += qsi_attend_part_floats(hd_v))
        merge(k, &st, out, (qsi_attend_state){parts[0], parts[1]}, parts + 16, hd_v);
    k->scale(1.0f / st.l, out, hd_v);
}

size_t qsi_attend_bwd_scratch(int64_t max_rows) {
    int64_t ld = qsi_round_up(max_rows, TILE);
    return (size_t)(2 * TILE * ld + 2 * TILE * TILE) * sizeof(float);
}

/* Probabilities p and score gradients ds of rows [i0, i1) of head h, and their dq. */
static void bwd_rows(const qsi_kern *k, const qsi_attend_doc *a, int64_t h, int64_t kvh,
                     int64_t i0, int64_t i1, float *p, float *ds, int64_t ld) {
    int64_t hd = a->hd;
    const float *kh = a->k + kvh * hd, *vh = a->v + kvh * hd;
    for (int64_t i = i0; i < i1; i++) {
        float *pi = p + (i - i0) * ld, *di = ds + (i - i0) * ld, m = 0.0f;
        const float *qi = a->q + i * a->ld_q + h * hd, *doi = a->dout + i * a->ld_q + h * hd;
        int64_t n = i + 1;
        k->attn_scores(qi, kh, false, a->ld_kv, n, hd, pi);
        k->attn_scores(doi, vh, false, a->ld_kv, n, hd, di);
        k->softmax_exp(pi, n, a->scale, &m);
        /* exp(s - lse) = exp(s - m) exp(m - lse) */
        k->scale(expf(m - a->lse[i * a->n_head + h]), pi, n);
        float dd = k->dot(doi, a->out + i * a->ld_q + h * hd, hd);
        for (int64_t j = 0; j < n; j++) di[j] = a->scale * pi[j] * (di[j] - dd);
        float *dq = a->dq + i * a->ld_q + h * hd;
        memset(dq, 0, (size_t)hd * sizeof(float));
        k->attn_values(di, kh, false, a->ld_kv, n, hd, dq);
    }
}

/* Tile [i0, i1) x [j0, j1) turned over: t[j - j0][i - i0], zero above the diagonal. */
static void turn(const float *x, int64_t ld, int64_t i0, int64_t i1, int64_t j0, int64_t j1,
                 float *t) {
    for (int64_t i = i0; i < i1; i++) {
        const float *row = x + (i - i0) * ld;
        int64_t e = qsi_min64(j1, i + 1);
        for (int64_t j = j0; j < e; j++) t[(j - j0) * TILE + i - i0] = row[j];
        for (int64_t j = qsi_max64(e, j0); j < j1; j++) t[(j - j0) * TILE + i - i0] = 0.0f;
    }
}

void qsi_attend_bwd(const qsi_kern *k, const qsi_attend_doc *a, int64_t kvh, char *scratch) {
    int64_t hd = a->hd, group = a->n_head / a->n_kv, ld = qsi_round_up(a->n, TILE);
    float *p = (float *)scratch, *ds = p + TILE * ld, *pt = ds + TILE * ld, *dst = pt + TILE * TILE;
    for (int64_t i = 0; i < a->n; i++) {
        memset(a->dk + i * a->ld_kv + kvh * hd, 0, (size_t)hd * sizeof(float));
        memset(a->dv + i * a->ld_kv + kvh * hd, 0, (size_t)hd * sizeof(float));
    }
    for (int64_t h = kvh * group; h < (kvh + 1) * group; h++) {
        for (int64_t i0 = 0; i0 < a->n; i0 += TILE) {
            int64_t i1 = qsi_min64(i0 + TILE, a->n), m = i1 - i0;
            bwd_rows(k, a, h, kvh, i0, i1, p, ds, ld);
            const float *q = a->q + i0 * a->ld_q + h * hd;
            const float *dout = a->dout + i0 * a->ld_q + h * hd;
            for (int64_t j0 = 0; j0 < i1; j0 += TILE) {
                int64_t j1 = qsi_min64(j0 + TILE, i1);
                turn(p, ld, i0, i1, j0, j1, pt);
                turn(ds, ld, i0, i1, j0, j1, dst);
                for (int64_t j = j0; j < j1; j++) {
                    int64_t s = qsi_max64(0, j - i0); /* rows before j do not see it */
                    k->attn_values(dst + (j - j0) * TILE + s, q + s * a->ld_q, false, a->ld_q,
                                   m - s, hd, a->dk + j * a->ld_kv + kvh * hd);
                    k->attn_values(pt + (j - j0) * TILE + s, dout + s * a->ld_q, false, a->ld_q,
                                   m - s, hd, a->dv + j * a->ld_kv + kvh * hd);
                }
            }
        }
    }
}
