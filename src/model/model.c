/* A model for inference: weights of a GGUF bound by name and shape and prepared, and the step.
 *
 * Weights are held once: when a tensor is prepared, the pages of the file it came from are given
 * back. With a repacked copy (packed.h) they are its mapping, and nothing is prepared.
 * Only the embedding is read from the mapping, a row when a token needs it. All layers share one
 * set of buffers (one for dense layers, one for MoE layers); the residual stream is updated in
 * place. Nothing is allocated inside a step. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/hash.h"
#include "base/log.h"
#include "model/importance.h"
#include "model/layer.h"
#include "model/packed.h"
#include "model/residency.h"
#include "model/rope_scaling.h"
#include "model/watch.h"
#include "sys/file.h"
#include "sys/slab.h"

enum { DEFAULT_ROWS = 512, USUAL_CONTEXT = 4096, SLICE = 1 << 20 };
#define MARGIN ((uint64_t)160 << 20)
#define MAPPED_AROUND ((size_t)64 << 10) /* of a file, with each row that is looked at */

struct qsi_model {
    qsi_config c;
    qsi_model_opts o;
    const qsi_gguf *g;
    const qsi_kern *k;
    qsi_shard shard;
    qsi_arena ar;
    qsi_weights w;
    qsi_act_masks masks;
    qsi_layer_save dense, moe;
    qsi_layer_save **save_ptr;
    float *x;
    qsi_fwd f;
    int32_t *ids, *pos, *seq, *want; /* [max_rows] */
    bool *generated;                 /* [max_rows] */
    int64_t n_want;
    qsi_act head;
    float *logits; /* of the running step */
    float *hidden; /* the same: out, or in for the layer that predicts further */
    qsi_act eh;    /* [max_rows, 2 d] what enters that layer */
    qsi_op_shared sh;
    char *scratch;
    size_t scratch_bytes;
    uint64_t cache_room; /* of memory_bytes, not taken */
    int64_t embed_rows;  /* looked at since their pages were given back */
    qsi_res *res; /* weights that are not all in memory; NULL: they are */
    int32_t group, expert; /* of the weights being bound, for res */
    int part;
    qsi_slabs mem;       /* of weights that are prepared here */
    qsi_weight *preparing;
    const uint8_t *rows; /* its rows in the file */
    int64_t done, of;    /* bytes of the file prepared */
    uint64_t name;       /* hash of that of the tensor being bound */
    size_t n_bound;
    qsi_packed *packed;  /* the repacked copy in use; NULL: none */
    qsi_packed_writer *packing; /* one being written */
    _Atomic int bad;
    qsi_importance *importance; /* what looks at its products; NULL: nothing */
};

/* ---- binding ---- */
static void name_of(char out[64], int32_t l, const char *part) {
    if (l < 0)
        snprintf(out, 64, "%s.weight", part);
    else
        snprintf(out, 64, "blk.%d.%s.weight", l, part);
}

static qs_status find(qsi_model *m, int32_t l, const char *part, int64_t n0, int64_t n1,
                      int64_t n2, const qsi_gguf_tensor **out, qs_err *err) {
    qs_status st = QS_OK;
    char name[64];
    name_of(name, l, part);
    const qsi_gguf_tensor *x = qsi_gguf_tensor_find(m->g, name);
    if (!x) QS_FAIL(err, QS_E_NOTFOUND, "tensor %s is missing", name);
    if (x->ne[0] != n0 || x->ne[1] != n1 || x->ne[2] != n2 || x->ne[3] != 1)
        QS_FAIL(err, QS_E_FORMAT, "tensor %s is [%" PRId64 ", %" PRId64 ", %" PRId64 "], the "
                "configuration needs [%" PRId64 ", %" PRId64 ", %" PRId64 "]", name, x->ne[0],
                x->ne[1], x->ne[2], n0, n1, n2);
    QS_TRY(qsi_type_runs(qsi_type_get(x->type), name, err));
    m->name = qsi_hash(name, strlen(name));
    *out = x;
done:
    return st;
}

/* A worker packs its share in slices and gives each one's pages back: at no time is more than a
 * slice a worker held twice. */
static void prepare_part(const qsi_worker *wk, void *arg) {
    const qsi_model *m = arg;
    const qsi_weight *w = m->preparing;
    int64_t p0 = 0, p1 = 0, rows = 0;
    size_t row = 0;
    qsi_share(wk, qsi_weight_panels(w, &rows, &row), 1, &p0, &p1);
    int64_t per = qsi_max64(1, SLICE / (rows * (int64_t)row));
    for (; p0 < p1; p0 += per) {
        int64_t end = qsi_min64(p0 + per, p1), first = p0 * rows;
        const uint8_t *at = m->rows + (size_t)first * row;
        qsi_weight_pack(w, at, p0, end, NULL);
        qsi_gguf_drop_bytes(m->g, at,
                            (size_t)(qsi_min64(end * rows, qsi_weight_rows(w)) - first) * row);
    }
}

static qsi_packed_weight described(const qsi_model *m, const qsi_weight *w) {
    return (qsi_packed_weight){.name = m->name, .kind = qsi_weight_mm(w), .n_out = qsi_weight_rows(w),
                               .n_in = qsi_weight_cols(w), .bytes = qsi_weight_bytes(w)};
}

static qs_status take_packed(qsi_model *m, qsi_weight *w, qs_err *err) {
    qs_status st = QS_OK;
    const void *mem = NULL;
    qsi_packed_weight want = described(m, w);
    QS_TRY(qsi_packed_take(m->packed, m->n_bound++, &want, &mem, err));
    qsi_weight_place(w, (void *)(uintptr_t)mem); /* only read */
done:
    return st;
}

/* A copy that cannot be written is no reason to fail. */
static void keep_packed(qsi_model *m, const qsi_weight *w) {
    qs_err why;
    qsi_packed_weight x = described(m, w);
    if (!m->packing || qsi_packed_put(m->packing, &x, qsi_weight_packed(w), &why) == QS_OK) return;
    qsi_log(QSI_LOG_NOTE, "no repacked copy is kept: %s", why.text);
    qsi_packed_abort(&m->packing);
}

static qs_status place_weight(qsi_model *m, qsi_weight *w, qs_err *err) {
    void *mem = qsi_slabs_take(&m->mem, qsi_weight_bytes(w));
    if (!mem)
        return qsi_err_set(err, QS_E_NOMEM, "no memory for a weight of %" PRId64 " x %" PRId64
                           " (%zu bytes)", qsi_weight_rows(w), qsi_weight_cols(w),
                           qsi_weight_bytes(w));
    qsi_weight_place(w, mem);
    return QS_OK;
}

/* data: NULL only with a repacked copy, where it is not looked at. */
static qs_status make_weight(qsi_model *m, qsi_type type, const void *data, int64_t n_out,
                             int64_t n_in, qsi_weight **w, unsigned *form, qs_err *err) {
    qs_status st = QS_OK;
    int64_t rows = 0;
    size_t row = 0;
    /* under a limit of memory, what stays does so in memory of its own: huge pages round up */
    bool apart = m->res && qsi_res_holds(m->res, data), own = m->res && !apart;
    QS_TRY(qsi_weight_create_kind(w, m->k, type, qsi_weight_kind(type, m->o.exact),
                                  own ? data : NULL, n_out, n_in, err));
    *form |= qsi_act_form(qsi_weight_mm(*w));
    if (apart) return qsi_res_add(m->res, *w, data, m->group, m->expert, m->part, err);
    if (m->packed) return take_packed(m, *w, err);
    if (!m->res) QS_TRY(place_weight(m, *w, err));
    m->preparing = *w;
    m->rows = data;
    qsi_pool_run(m->o.pool, prepare_part, m);
    keep_packed(m, *w);
    (void)qsi_weight_panels(*w, &rows, &row);
    m->done += n_out * (int64_t)row;
done:
    return st;
}

/* After every tensor. */
static qs_status tell(const qsi_model *m, qs_err *err) {
    if (!m->o.progress || m->res || m->packed) return QS_OK;
    if (!m->o.progress(m->o.user, qsi_min64(m->done, m->of), m->of)) return QS_OK;
    return qsi_err_set(err, QS_E_CANCELLED, "cancelled while weights were prepared");
}

static qs_status bind_matrix(qsi_model *m, int32_t l, const char *part, int64_t n_out,
                             int64_t n_in, qsi_weight **w, unsigned *form, qs_err *err) {
    qs_status st = QS_OK;
    const qsi_gguf_tensor *x = NULL;
    QS_TRY(find(m, l, part, n_in, n_out, 1, &x, err));
    st = make_weight(m, x->type, x->data, n_out, n_in, w, form, err);
    if (st != QS_OK) qsi_err_prefix(err, "tensor %s", x->name);
    qsi_gguf_drop(m->g, x);
    if (st == QS_OK) QS_TRY(tell(m, err));
done:
    return st;
}

static qs_status bind_experts(qsi_model *m, int32_t l, const char *part, int64_t n_out,
                              int64_t n_in, qsi_weight **w, unsigned *form, qs_err *err) {
    qs_status st = QS_OK;
    const qsi_gguf_tensor *x = NULL;
    QS_TRY(find(m, l, part, n_in, n_out, m->c.n_expert, &x, err));
    size_t slab = x->bytes / (size_t)m->c.n_expert;
    for (int32_t e = 0; e < m->c.n_expert; e++) {
        m->expert = l * m->c.n_expert + e;
        st = make_weight(m, x->type, x->data + (size_t)e * slab, n_out, n_in, &w[e], form, err);
        if (st == QS_OK) continue;
        qsi_err_prefix(err, "tensor %s", x->name);
        goto done;
    }
    qsi_gguf_drop(m->g, x);
    m->part++;
    QS_TRY(tell(m, err));
done:
    m->expert = -1;
    return st;
}

/* What chooses (a router, the weights of an indexer's heads) works in float32 whatever the file
 * holds. */
static qs_status bind_router(qsi_model *m, int32_t l, const char *part, int64_t n_out,
                             qsi_weight **w, unsigned *form, qs_err *err) {
    qs_status st = QS_OK;
    const qsi_gguf_tensor *x = NULL;
    int64_t d = m->c.d_model;
    QS_TRY(find(m, l, part, d, n_out, 1, &x, err));
    if (m->packed) return make_weight(m, QSI_F32, NULL, n_out, d, w, form, err);
    float *rows = qsi_arena_alloc(&m->ar, (size_t)(d * n_out), sizeof(float));
    if (!rows) QS_FAIL(err, QS_E_NOMEM, "no memory for tensor %s", x->name);
    qsi_type_get(x->type)->decode(x->data, rows, d * n_out);
    qsi_gguf_drop(m->g, x);
    QS_TRY(make_weight(m, QSI_F32, rows, n_out, d, w, form, err));
done:
    return st;
}

static qs_status bind_norm(qsi_model *m, int32_t l, const char *part, int64_t d, const float **w,
                           qs_err *err) {
    qs_status st = QS_OK;
    const qsi_gguf_tensor *x = NULL;
    QS_TRY(find(m, l, part, d, 1, 1, &x, err));
    float *p = qsi_arena_alloc(&m->ar, (size_t)d, sizeof(float));
    if (!p) QS_FAIL(err, QS_E_NOMEM, "no memory for tensor %s", x->name);
    qsi_type_get(x->type)->decode(x->data, p, d);
    *w = p;
done:
    return st;
}

/* ---- latent attention ---- */
/* The type of the second form of a matrix K [dn, r] (what the other path multiplies with): the same
 * where that is exact, else 16 bits, or 32 where all is to be exact. One of a head's three
 * matrices is so held twice: under 0.3 % of the weights of the published models, under 1 % of
 * their bytes. */
static qsi_type turned_type(const qsi_model *m, qsi_type t) {
    if (t == QSI_F32 || t == QSI_F16 || t == QSI_BF16) return t;
    if (m->o.exact) return QSI_F32;
    return m->k->bf16_native ? QSI_BF16 : QSI_F16;
}

/* W [n_in, n_out] of a file as the weight of y = x W. */
static qs_status make_turned(qsi_model *m, qsi_type type, const void *data, int64_t n_in,
                             int64_t n_out, qsi_weight **w, unsigned *form, qs_err *err) {
    qs_status st = QS_OK;
    qsi_type to = turned_type(m, type);
    const qsi_type_info *ti = qsi_type_get(to);
    size_t n = (size_t)(n_in * n_out);
    if (m->packed) return make_weight(m, to, NULL, n_out, n_in, w, form, err);
    float *x = qsi_alloc(n, sizeof *x), *y = qsi_alloc(n, sizeof *y);
    if (!x || !y) QS_FAIL(err, QS_E_NOMEM, "no memory for a matrix of %zu values", n);
    qsi_type_get(type)->decode(data, x, n_in * n_out);
    for (int64_t i = 0; i < n_in; i++)
        for (int64_t j = 0; j < n_out; j++) y[j * n_in + i] = x[i * n_out + j];
    ti->encode(y, x, n_in * n_out); /* never wider than F32 */
    int64_t done = m->done;
    QS_TRY(make_weight(m, to, x, n_out, n_in, w, form, err));
    m->done = done; /* counted once */
done:
    qsi_free(x);
    qsi_free(y);
    return st;
}

/* attn_kv_b [r, H (dn + dv)]: of every head dn rows K, then dv rows V. */
static qs_status bind_kv_b(qsi_model *m, int32_t l, qsi_mla_weights *w, qs_err *err) {
    qs_status st = QS_OK;
    const qsi_config *c = &m->c;
    const qsi_gguf_tensor *x = NULL;
    int64_t r = c->kv_rank, dn = c->head_dim - c->d_rope, dv = c->d_value;
    QS_TRY(find(m, l, "attn_kv_b", r, c->n_head * (dn + dv), 1, &x, err));
    size_t row = x->bytes / (size_t)(c->n_head * (dn + dv));
    const uint8_t *p = x->data;
    for (int32_t h = 0; h < c->n_head && st == QS_OK; h++, p += row * (size_t)(dn + dv)) {
        st = make_weight(m, x->type, p, dn, r, &w->k[h], &m->masks.c, err);
        if (st == QS_OK)
            st = make_turned(m, x->type, p, dn, r, &w->kt[h], &m->masks.qn, err);
        if (st == QS_OK)
            st = make_weight(m, x->type, p + row * (size_t)dn, dv, r, &w->v[h], &m->masks.c, err);
    }
    if (st != QS_OK) qsi_err_prefix(err, "tensor %s", x->name);
    qsi_gguf_drop(m->g, x);
    if (st == QS_OK) QS_TRY(tell(m, err));
done:
    return st;
}

/* attn_k_b [dn, r, H]: K transposed; attn_v_b [r, dv, H]: V. */
static qs_status bind_k_b_v_b(qsi_model *m, int32_t l, qsi_mla_weights *w, qs_err *err) {
    qs_status st = QS_OK;
    const qsi_config *c = &m->c;
    const qsi_gguf_tensor *kb = NULL, *vb = NULL;
    int64_t r = c->kv_rank, dn = c->head_dim - c->d_rope, dv = c->d_value, H = c->n_head;
    QS_TRY(find(m, l, "attn_k_b", dn, r, H, &kb, err));
    QS_TRY(find(m, l, "attn_v_b", r, dv, H, &vb, err));
    size_t ks = kb->bytes / (size_t)H, vs = vb->bytes / (size_t)H;
    for (int32_t h = 0; h < H && st == QS_OK; h++) {
        const uint8_t *k = kb->data + ks * (size_t)h, *v = vb->data + vs * (size_t)h;
        st = make_weight(m, kb->type, k, r, dn, &w->kt[h], &m->masks.qn, err);
        if (st == QS_OK) st = make_turned(m, kb->type, k, r, dn, &w->k[h], &m->masks.c, err);
        if (st == QS_OK) st = make_weight(m, vb->type, v, dv, r, &w->v[h], &m->masks.c, err);
    }
    if (st != QS_OK) qsi_err_prefix(err, "layer %d, tensors attn_k_b and attn_v_b", l);
    qsi_gguf_drop(m->g, kb);
    qsi_gguf_drop(m->g, vb);
    if (st == QS_OK) QS_TRY(tell(m, err));
done:
    return st;
}

static qs_status bind_latent(qsi_model *m, int32_t l, qs_err *err) {
    qs_status st = QS_OK;
    const qsi_config *c = &m->c;
    qsi_layer_weights *w = &m->w.layers[l];
    qsi_act_masks *k = &m->masks;
    int64_t d = c->d_model, hq = (int64_t)c->n_head * c->head_dim, qr = c->q_rank;
    if (qr) {
        QS_TRY(bind_matrix(m, l, "attn_q_a", qr, d, &w->mla.q_a, &k->a1, err));
        QS_TRY(bind_norm(m, l, "attn_q_a_norm", qr, &w->mla.q_norm, err));
        QS_TRY(bind_matrix(m, l, "attn_q_b", hq, qr, &w->q, &k->aq, err));
    } else {
        QS_TRY(bind_matrix(m, l, "attn_q", hq, d, &w->q, &k->a1, err));
    }
    QS_TRY(bind_matrix(m, l, "attn_kv_a_mqa", (int64_t)c->kv_rank + c->d_rope, d, &w->mla.kv_a,
                       &k->a1, err));
    QS_TRY(bind_norm(m, l, "attn_kv_a_norm", c->kv_rank, &w->mla.kv_norm, err));
    if (c->kv_b_whole)
        QS_TRY(bind_kv_b(m, l, &w->mla, err));
    else
        QS_TRY(bind_k_b_v_b(m, l, &w->mla, err));
    k->ctx |= k->c; /* V takes both */
done:
    return st;
}

/* A vector named whole, as float32. */
static qs_status bind_values(qsi_model *m, const char *name, int64_t n, float **w, qs_err *err) {
    qs_status st = QS_OK;
    const qsi_gguf_tensor *x = qsi_gguf_tensor_find(m->g, name);
    if (!x) QS_FAIL(err, QS_E_NOTFOUND, "tensor %s is missing", name);
    const qsi_type_info *ti = qsi_type_get(x->type);
    if (x->n_dims != 1 || x->ne[0] != n || !ti || !ti->decode)
        QS_FAIL(err, QS_E_FORMAT, "tensor %s does not hold %" PRId64 " values", name, n);
    float *p = qsi_arena_alloc(&m->ar, (size_t)n, sizeof *p);
    if (!p) QS_FAIL(err, QS_E_NOMEM, "no memory for tensor %s", name);
    ti->decode(x->data, p, n);
    *w = p;
done:
    return st;
}

static qs_status bind_indexer(qsi_model *m, int32_t l, qs_err *err) {
    qs_status st = QS_OK;
    const qsi_config *c = &m->c;
    qsi_index_weights *w = &m->w.layers[l].index;
    qsi_act_masks *k = &m->masks;
    char name[64];
    float *bias = NULL;
    QS_TRY(bind_matrix(m, l, "indexer.attn_k", c->index_dim, c->d_model, &w->k, &k->a1, err));
    QS_TRY(bind_norm(m, l, "indexer.k_norm", c->index_dim, &w->k_norm, err));
    snprintf(name, sizeof name, "blk.%d.indexer.k_norm.bias", l);
    QS_TRY(bind_values(m, name, c->index_dim, &bias, err));
    w->k_norm_bias = bias;
    QS_TRY(bind_router(m, l, "indexer.proj", c->index_heads, &w->proj, &k->a1, err));
    QS_TRY(bind_matrix(m, l, "indexer.attn_q_b", (int64_t)c->index_heads * c->index_dim, c->q_rank,
                       &w->q, &k->aq, err));
done:
    return st;
}

static qs_status bind_qkv_bias(qsi_model *m, int32_t l, qs_err *err) {
    qs_status st = QS_OK;
    qsi_layer_weights *w = &m->w.layers[l];
    int64_t hq = (int64_t)m->c.n_head * m->c.head_dim, hk = (int64_t)m->c.n_kv_head * m->c.head_dim;
    const float **to[] = {&w->q_bias, &w->k_bias, &w->v_bias};
    for (int i = 0; i < 3; i++) {
        char name[64];
        float *p = NULL;
        snprintf(name, sizeof name, "blk.%d.attn_%c.bias", l, "qkv"[i]);
        QS_TRY(bind_values(m, name, i ? hk : hq, &p, err));
        *to[i] = p;
    }
done:
    return st;
}

/* The divisors of the rotation's frequencies. */
static qs_status divide_freqs(qsi_model *m, qs_err *err) {
    qs_status st = QS_OK;
    int64_t n = qsi_config_rope_dim(&m->c) / 2;
    float *by = NULL;
    if (!m->c.rope_freqs) goto done;
    QS_TRY(bind_values(m, "rope_freqs.weight", n, &by, err));
    for (int64_t i = 0; i < n; i++) {
        if (!(by[i] > 0 && by[i] < 1e9f))
            QS_FAIL(err, QS_E_FORMAT, "tensor rope_freqs.weight holds %g: a frequency cannot be divided "
                    "by it", (double)by[i]);
        m->f.freq[i] /= (double)by[i];
    }
done:
    return st;
}

static qs_status bind_heads(qsi_model *m, int32_t l, qs_err *err) {
    qs_status st = QS_OK;
    const qsi_config *c = &m->c;
    qsi_layer_weights *w = &m->w.layers[l];
    int64_t d = c->d_model, hq = (int64_t)c->n_head * c->head_dim;
    int64_t hk = (int64_t)c->n_kv_head * c->head_dim;
    QS_TRY(bind_matrix(m, l, "attn_q", hq, d, &w->q, &m->masks.a1, err));
    QS_TRY(bind_matrix(m, l, "attn_k", hk, d, &w->k, &m->masks.a1, err));
    QS_TRY(bind_matrix(m, l, "attn_v", hk, d, &w->v, &m->masks.a1, err));
    if (qsi_config_qkv_bias(c)) QS_TRY(bind_qkv_bias(m, l, err));
    if (!qsi_config_qk_norm(c)) goto done;
    QS_TRY(bind_norm(m, l, "attn_q_norm", c->head_dim, &w->q_norm, err));
    QS_TRY(bind_norm(m, l, "attn_k_norm", c->head_dim, &w->k_norm, err));
done:
    return st;
}

static qs_status bind_gate_bias(qsi_model *m, int32_t l, const float **w, qs_err *err) {
    qs_status st = QS_OK;
    char name[64];
    int64_t E = m->c.n_expert;
    snprintf(name, sizeof name, "blk.%d.exp_probs_b.bias", l);
    const qsi_gguf_tensor *x = qsi_gguf_tensor_find(m->g, name);
    if (!x) QS_FAIL(err, QS_E_NOTFOUND, "tensor %s is missing", name);
    if (x->type != QSI_F32 || x->n_dims != 1 || x->ne[0] != E)
        QS_FAIL(err, QS_E_FORMAT, "tensor %s is not F32 [%" PRId64 "]", name, E);
    float *p = qsi_arena_alloc(&m->ar, (size_t)E, sizeof(float));
    if (!p) QS_FAIL(err, QS_E_NOMEM, "no memory for tensor %s", name);
    memcpy(p, x->data, (size_t)E * sizeof *p);
    *w = p;
done:
    return st;
}

static qs_status bind_layer(qsi_model *m, int32_t l, qs_err *err) {
    qs_status st = QS_OK;
    const qsi_config *c = &m->c;
    qsi_layer_weights *w = &m->w.layers[l];
    qsi_act_masks *k = &m->masks;
    int64_t d = c->d_model, ff = c->d_ff;
    m->group = qsi_res_group(l, QSI_RES_ATTENTION);
    m->expert = -1;
    m->part = 0;
    QS_TRY(bind_norm(m, l, "attn_norm", d, &w->attn_norm, err));
    if (c->kv_rank)
        QS_TRY(bind_latent(m, l, err));
    else
        QS_TRY(bind_heads(m, l, err));
    if (c->index_topk) QS_TRY(bind_indexer(m, l, err));
    QS_TRY(bind_matrix(m, l, "attn_output", d, qsi_config_out_dim(c), &w->o, &k->oa, err));
    m->group = qsi_res_group(l, QSI_RES_FFN);
    QS_TRY(bind_norm(m, l, "ffn_norm", d, &w->ffn_norm, err));
    if (!qsi_layer_is_moe(c, l)) {
        QS_TRY(bind_matrix(m, l, "ffn_gate", ff, d, &w->gate, &k->a2, err));
        QS_TRY(bind_matrix(m, l, "ffn_up", ff, d, &w->up, &k->a2, err));
        QS_TRY(bind_matrix(m, l, "ffn_down", d, ff, &w->down, &k->h, err));
        goto done;
    }
    int64_t f = c->d_expert, fs = (int64_t)c->n_shared * f;
    QS_TRY(bind_router(m, l, "ffn_gate_inp", c->n_expert, &w->router, &k->a2, err));
    if (c->gate_bias) QS_TRY(bind_gate_bias(m, l, &w->gate_bias, err));
    QS_TRY(bind_experts(m, l, "ffn_gate_exps", f, d, w->egate, &k->ex, err));
    QS_TRY(bind_experts(m, l, "ffn_up_exps", f, d, w->eup, &k->ex, err));
    QS_TRY(bind_experts(m, l, "ffn_down_exps", d, f, w->edown, &k->eh, err));
    if (!fs) goto done;
    QS_TRY(bind_matrix(m, l, "ffn_gate_shexp", fs, d, &w->gate, &k->a2, err));
    QS_TRY(bind_matrix(m, l, "ffn_up_shexp", fs, d, &w->up, &k->a2, err));
    QS_TRY(bind_matrix(m, l, "ffn_down_shexp", d, fs, &w->down, &k->h, err));
done:
    return st;
}

/* The first layer that predicts further; embedding and head are the model's (files may hold
 * copies). */
static qs_status bind_next(qsi_model *m, unsigned *form, qs_err *err) {
    qs_status st = QS_OK;
    const qsi_config *c = &m->c;
    int32_t l = c->n_layer;
    int64_t d = c->d_model;
    qsi_next_weights *w = &m->w.next;
    QS_TRY(bind_layer(m, l, err));
    QS_TRY(bind_matrix(m, l, "nextn.eh_proj", d, 2 * d, &w->eh, form, err));
    QS_TRY(bind_norm(m, l, "nextn.enorm", d, &w->enorm, err));
    QS_TRY(bind_norm(m, l, "nextn.hnorm", d, &w->hnorm, err));
    QS_TRY(bind_norm(m, l, "nextn.shared_head_norm", d, &w->head_norm, err));
done:
    return st;
}

static qs_status bind_all(qsi_model *m, unsigned *head_form, qs_err *err) {
    qs_status st = QS_OK;
    const qsi_config *c = &m->c;
    const qsi_gguf_tensor *x = NULL;
    QS_TRY(qsi_weights_init(&m->w, c, err));
    QS_TRY(find(m, -1, "token_embd", c->d_model, c->n_vocab, 1, &x, err));
    m->w.embed = x->data;
    m->w.embed_type = qsi_type_get(x->type);
    if (!qsi_row_bytes(m->w.embed_type, c->d_model, &m->w.embed_row))
        QS_FAIL(err, QS_E_FORMAT, "rows of tensor %s are no whole blocks", x->name);
    QS_TRY(bind_norm(m, -1, "output_norm", c->d_model, &m->w.out_norm, err));
    for (int32_t l = 0; l < c->n_layer; l++) QS_TRY(bind_layer(m, l, err));
    if (c->n_next) QS_TRY(bind_next(m, &m->masks.eh_in, err));
    m->group = qsi_res_head_group(c);
    if (qsi_gguf_tensor_find(m->g, "output.weight"))
        QS_TRY(bind_matrix(m, -1, "output", c->n_vocab, c->d_model, &m->w.head, head_form, err));
    else /* tied to the embedding */
        QS_TRY(bind_matrix(m, -1, "token_embd", c->n_vocab, c->d_model, &m->w.head, head_form,
                           err));
    m->masks.a2 |= m->masks.ex; /* experts' rows are copies */
done:
    return st;
}

/* Whether attention may multiply in bfloat16, or in integers: no float weights of more bits take
 * part in it, and nobody asked for float activations. */
static bool narrow_attention(const qsi_model *m) {
    if (m->o.exact) return false;
    for (int32_t l = 0; l < qsi_config_blocks(&m->c); l++) {
        const qsi_layer_weights *w = &m->w.layers[l];
        const qsi_weight *all[] = {w->q,         w->k,
                                   w->v,         w->o,
                                   w->mla.q_a,   w->mla.kv_a,
                                   w->mla.k ? w->mla.k[0] : NULL, w->mla.v ? w->mla.v[0] : NULL};
        for (size_t i = 0; i < QSI_COUNT(all); i++) {
            if (!all[i]) continue;
            qsi_mm mm = qsi_weight_mm(all[i]);
            if (mm == QSI_MM_F32 || mm == QSI_MM_F16) return false;
        }
    }
    return true;
}

static qs_status buffers_init(qsi_model *m, unsigned head_form, qs_err *err) {
    qs_status st = QS_OK;
    const qsi_config *c = &m->c;
    size_t R = (size_t)m->o.max_rows, L = (size_t)qsi_config_blocks(c);
    m->ids = qsi_arena_alloc(&m->ar, R, sizeof *m->ids);
    m->pos = qsi_arena_alloc(&m->ar, R, sizeof *m->pos);
    m->seq = qsi_arena_alloc(&m->ar, R, sizeof *m->seq);
    m->want = qsi_arena_alloc(&m->ar, R, sizeof *m->want);
    m->generated = qsi_arena_alloc(&m->ar, R, sizeof *m->generated);
    m->x = qsi_arena_alloc(&m->ar, R * (size_t)c->d_model, sizeof(float));
    m->save_ptr = qsi_arena_alloc(&m->ar, L, sizeof *m->save_ptr);
    m->scratch_bytes = (qsi_forward_scratch(c, m->o.max_rows) + 4095) / 4096 * 4096;
    m->scratch = qsi_arena_alloc(&m->ar, (size_t)qsi_pool_size(m->o.pool), m->scratch_bytes);
    if (!m->ids || !m->pos || !m->seq || !m->want || !m->generated || !m->x || !m->save_ptr ||
        !m->scratch)
        QS_FAIL(err, QS_E_NOMEM, "no memory for steps of %d rows", m->o.max_rows);
    bool any_dense = !c->n_expert || c->n_dense > 0;
    bool any_moe = c->n_expert && c->n_dense < qsi_config_blocks(c);
    if (any_dense)
        QS_TRY(qsi_save_init(&m->dense, &m->ar, c, &m->shard, false, m->o.max_rows, &m->masks,
                             false, err));
    if (any_moe)
        QS_TRY(qsi_save_init(&m->moe, &m->ar, c, &m->shard, true, m->o.max_rows, &m->masks, false,
                             err));
    m->dense.x_in = m->dense.x_mid = m->dense.x_out = m->x;
    m->moe.x_in = m->moe.x_mid = m->moe.x_out = m->x;
    for (int32_t l = 0; l < qsi_config_blocks(c); l++)
        m->save_ptr[l] = qsi_layer_is_moe(c, l) ? &m->moe : &m->dense;
    QS_TRY(qsi_act_init(&m->head, &m->ar, m->o.max_rows, c->d_model, head_form, err));
    if (c->n_next)
        QS_TRY(qsi_act_init(&m->eh, &m->ar, m->o.max_rows, 2 * (int64_t)c->d_model, m->masks.eh_in,
                            err));
    QS_TRY(qsi_fwd_init(&m->f, &m->ar, c, &m->shard, m->o.comm, &m->w, m->o.max_rows, err));
    QS_TRY(divide_freqs(m, err));
    m->f.n_parts = qsi_attend_parts(c);
    m->f.parts = qsi_arena_alloc(&m->ar, (size_t)m->f.n_parts, sizeof(float));
    if (m->f.parts == NULL) QS_FAIL(err, QS_E_NOMEM, "no memory for attention");
done:
    return st;
}

/* ---- weights that do not all fit ---- */

/* Bytes that the process has already and will touch in steps, whatever weights and cache take; a
 * margin (logits, tables, the allocator) counts. */
static uint64_t taken(const qsi_model *m) {
    uint64_t all = m->o.memory_bytes, margin = all / 32 < MARGIN ? all / 32 : MARGIN;
    uint64_t some = (uint64_t)m->o.max_rows * (m->w.embed_row + MAPPED_AROUND);
    uint64_t embedding = (uint64_t)m->c.n_vocab * m->w.embed_row;
    return qsi_mem_resident() + m->ar.total + margin + (some < embedding ? some : embedding);
}

/* Fails when cache_bytes do not fit: how many tokens would. */
static qs_status cache_too_large(const qsi_model *m, uint64_t left, qs_err *err) {
    static const qsi_type types[] = {QSI_F32, QSI_F16, QSI_Q8_0};
    qs_status st = QS_OK;
    int64_t n[3] = {0};
    for (int i = 0; i < 3; i++) QS_TRY(qsi_kv_fit(&m->c, types[i], left, &n[i], err));
    if (n[2] == 0)
        QS_FAIL(err, QS_E_LIMIT, "the memory allowed, %" PRIu64 " MB, is too little: buffers and the "
                "weights being computed and read leave no room for a cache",
                m->o.memory_bytes / 1000000);
    QS_FAIL(err, QS_E_LIMIT, "the memory allowed, %" PRIu64 " MB, does not hold a cache of %" PRIu64
            " MB: beside buffers and the weights being computed and read there is room for %" PRId64
            " tokens in F32, %" PRId64 " in F16, %" PRId64 " in Q8_0 (-c N, --cache-type T)",
            m->o.memory_bytes / 1000000, m->o.cache_bytes / 1000000 + 1, n[0] * QSI_KV_PAGE,
            n[1] * QSI_KV_PAGE, n[2] * QSI_KV_PAGE);
done:
    return st;
}

/* Bytes that weights may take of memory_bytes, which are what caches leave; weights give way to a
 * cache that was asked for, as far as a plan for them can. */
static qs_status weight_room(qsi_model *m, uint64_t *room, qs_err *err) {
    qs_status st = QS_OK;
    qsi_mem_trim(); /* what an earlier model left counts no more */
    uint64_t all = m->o.memory_bytes, cache = m->o.cache_bytes, off = taken(m), left = 0;
    bool yields = m->o.cache_yields || !cache;
    if (off >= all)
        QS_FAIL(err, QS_E_LIMIT, "the memory allowed, %" PRIu64 " MB, leaves nothing for weights: "
                "buffers alone need %" PRIu64 " MB", all / 1000000, off / 1000000 + 1);
    uint64_t weights = qsi_res_bytes(m->res), least = qsi_res_least(m->res, m->o.max_rows);
    if (weights < least) least = weights;
    if (all - off > least) left = all - off - least;
    if (!cache) {
        int64_t n = qsi_min64(m->c.n_ctx, USUAL_CONTEXT);
        QS_TRY(qsi_kv_need(&m->c, QSI_F16, qsi_ceil_div(n, QSI_KV_PAGE), &cache, err));
    }
    if (yields && cache > all / 4) cache = all / 4;
    if (yields && cache > left) cache = left;
    if (left > 0 && cache > left) QS_TRY(cache_too_large(m, left, err));
    *room = cache < all - off ? all - off - cache : 0;
    m->cache_room = weights > *room ? cache : all - off - weights;
done:
    return st;
}

/* ---- the repacked copy ---- */

/* A copy to be written, where that is possible; else a note. */
static void begin_packing(qsi_model *m, const qsi_packed_id *id) {
    qs_err why;
    uint64_t need = (uint64_t)m->of + (uint64_t)m->of / 16 + ((uint64_t)16 << 20);
    if (qsi_packed_writer_open(&m->packing, m->o.packed_path, id, need, &why) != QS_OK)
        qsi_log(QSI_LOG_NOTE, "no repacked copy is kept in '%s': %s", m->o.packed_path, why.text);
}

/* Opens the copy that is wanted, or begins to write it. */
static void open_packed(qsi_model *m, qsi_packed_id *id) {
    qs_err why;
    if (!m->o.packed_path) return;
    if (qsi_packed_id_of(id, m->g, m->k, m->o.exact, &why) != QS_OK) {
        qsi_log(QSI_LOG_NOTE, "no repacked copy: %s", why.text);
        return;
    }
    qs_status st = qsi_packed_open(&m->packed, m->o.packed_path, id, &why);
    if (st == QS_OK) {
        qsi_gguf_random(m->g); /* norms and rows of the embedding alone: no reading ahead */
        return;
    }
    if (st != QS_E_NOTFOUND) qsi_log(QSI_LOG_NOTE, "the repacked copy is made anew: %s", why.text);
    begin_packing(m, id);
}

static void finish_packing(qsi_model *m) {
    qs_err why;
    if (m->packing && qsi_packed_finish(&m->packing, &why) != QS_OK)
        qsi_log(QSI_LOG_NOTE, "no repacked copy is kept: %s", why.text);
}

static qs_status bind_packed(qsi_model *m, unsigned *head_form, qs_err *err) {
    qs_status st = QS_OK;
    m->n_bound = 0;
    QS_TRY(bind_all(m, head_form, err));
    if (m->n_bound != qsi_packed_count(m->packed))
        QS_FAIL(err, QS_E_CORRUPT, "'%s' is damaged: it holds more weights than the model",
                m->o.packed_path);
    for (size_t i = 0; i < qsi_gguf_n_tensors(m->g); i++) /* norms were copied */
        qsi_gguf_drop(m->g, qsi_gguf_tensor_at(m->g, i));
    QS_TRY(qsi_packed_load(m->packed, m->o.pool, m->o.progress, m->o.user, err));
done:
    return st;
}

/* All weights in memory: a copy's, or prepared. */
static qs_status bind_here(qsi_model *m, unsigned *head_form, qs_err *err) {
    qs_status st = QS_OK;
    qsi_packed_id id;
    m->done = 0;
    open_packed(m, &id);
    if (m->packed) {
        st = bind_packed(m, head_form, err);
        if (st != QS_E_CORRUPT) goto done;
        qsi_log(QSI_LOG_NOTE, "the repacked copy is made anew: %s", err ? err->text : "it is damaged");
        qsi_weights_release(&m->w, &m->c);
        qsi_slabs_release(&m->mem);
        qsi_packed_close(&m->packed);
        begin_packing(m, &id);
    }
    QS_TRY(bind_all(m, head_form, err));
    finish_packing(m);
done:
    return st;
}

/* Binds and prepares the weights, all of them or by a plan, and makes the buffers. */
static qs_status load(qsi_model *m, qs_err *err) {
    qs_status st = QS_OK;
    unsigned head_form = 0;
    uint64_t room = m->o.weight_room;
    bool apart = room || m->o.memory_bytes;
    if (apart) QS_TRY(qsi_res_create(&m->res, &m->c, m->g, err));
    QS_TRY(apart ? bind_all(m, &head_form, err) : bind_here(m, &head_form, err));
    QS_TRY(buffers_init(m, head_form, err));
    bool narrow = narrow_attention(m);
    m->f.bf16 = narrow && m->k->bf16_native;
    m->f.bytes = narrow && m->k->bytes_native;
    if (!apart) goto done;
    if (!room) QS_TRY(weight_room(m, &room, err));
    if (qsi_res_bytes(m->res) > room) {
        if (m->o.packed_path)
            qsi_log(QSI_LOG_NOTE, "no repacked copy is used: the weights do not fit the memory allowed "
                    "and are read from the model's file");
        QS_TRY(m->o.plan_only ? qsi_res_plan(m->res, room, m->o.max_rows, err)
                              : qsi_res_start(m->res, room, m->o.max_rows, &m->o, err));
        m->f.res = m->res;
        goto done;
    }
    /* they all fit */
    qsi_res_free(m->res);
    m->res = NULL;
    qsi_weights_release(&m->w, &m->c);
    qsi_slabs_release(&m->mem);
    if (!m->o.plan_only) QS_TRY(bind_here(m, &head_form, err));
done:
    return st;
}

static qs_status stretch(qsi_config *c, const qsi_model_opts *o, qs_err *err) {
    qs_status st = QS_OK;
    int32_t trained = c->n_ctx;
    qsi_stretch kind;
    QS_TRY(qsi_stretch_parse(&kind, o->rope_scaling ? o->rope_scaling : "auto", err));
    QS_TRY(qsi_config_stretch(c, kind, o->rope_factor, o->n_ctx, err));
    if (kind == QSI_STRETCH_AUTO && c->n_ctx != trained)
        qsi_log(QSI_LOG_NOTE, "the model knows contexts of %d tokens; for %d, %s scales positions by %g "
                "(--rope-scaling none leaves them alone)", (int)trained, (int)c->n_ctx,
                c->rope_scaling == QSI_ROPE_YARN ? "YaRN" : "linear scaling", (double)c->rope_factor);
done:
    return st;
}

/* Keeps one layer that predicts further in the configuration where it is wanted and can be had. */
static void choose_next(qsi_model *m) {
    bool there = m->c.n_next > 0, apart = m->o.memory_bytes || m->o.weight_room;
    if (m->o.mtp && !there)
        qsi_log(QSI_LOG_NOTE, "the model has no layer that predicts further tokens: nothing is "
                "drafted");
    else if (m->o.mtp && apart)
        qsi_log(QSI_LOG_NOTE, "nothing is drafted: with a limit of memory the layer that predicts "
                "further tokens is left out");
    m->c.n_next = m->o.mtp && there && !apart;
}

qs_status qsi_model_open(qsi_model **out, const qsi_gguf *g, const qsi_model_opts *o,
                         qs_err *err) {
    qs_status st = QS_OK;
    qsi_model *m = qsi_calloc(1, sizeof *m);
    if (!m) QS_FAIL(err, QS_E_NOMEM, "no memory for a model");
    qsi_arena_init(&m->ar);
    m->o = *o;
    m->g = g;
    m->cache_room = UINT64_MAX;
    if (!m->o.comm) m->o.comm = qsi_comm_self();
    if (m->o.max_rows <= 0) m->o.max_rows = DEFAULT_ROWS;
    if (m->o.comm->size > 1)
        QS_FAIL(err, QS_E_UNSUPPORTED, "running a cut model: one process only");
    m->k = qsi_kern_get(o->isa);
    QS_TRY(qsi_config_from_gguf(&m->c, g, err));
    QS_TRY(qsi_config_check(&m->c, err));
    choose_next(m);
    QS_TRY(stretch(&m->c, o, err));
    QS_TRY(qsi_shard_init(&m->shard, &m->c, m->o.comm, err));
    m->of = qsi_weights_file_bytes(g);
    QS_TRY(load(m, err));
    *out = m;
    m = NULL;
done:
    qsi_model_close(&m);
    return st;
}

void qsi_model_close(qsi_model **m) {
    if (!*m) return;
    qsi_res_free((*m)->res);
    qsi_weights_release(&(*m)->w, &(*m)->c);
    qsi_slabs_release(&(*m)->mem);
    qsi_packed_abort(&(*m)->packing);
    qsi_packed_close(&(*m)->packed);
    qsi_arena_release(&(*m)->ar);
    qsi_free(*m);
    *m = NULL;
}

const qsi_config *qsi_model_config(const qsi_model *m) { return &m->c; }
qsi_pool *qsi_model_pool(const qsi_model *m) { return m->o.pool; }

int qsi_model_max_rows(const qsi_model *m) { return m->o.max_rows; }
uint64_t qsi_model_cache_room(const qsi_model *m) { return m->cache_room; }

void qsi_model_cache_take(qsi_model *m, int64_t bytes) {
    if (m->cache_room != UINT64_MAX) m->cache_room -= (uint64_t)bytes;
}

qs_status qsi_model_intact(const qsi_model *m, qs_err *err) {
    qs_status st = qsi_gguf_intact(m->g, err);
    return st == QS_OK && m->packed ? qsi_packed_intact(m->packed, err) : st;
}

void qsi_model_io_stats(qsi_model *m, qsi_model_io *out, bool reset) {
    *out = (qsi_model_io){0};
    if (m->res) qsi_res_io(m->res, out, reset);
}

qs_status qsi_model_disk_rate(qsi_model *m, uint64_t bytes, double *rate, qs_err *err) {
    return qsi_res_disk_rate(m->res, m->g, bytes, rate, err);
}

/* ---- the step ---- */
/* norm: the one before the head. */
static void head_rows(qsi_op *o, qsi_model *m, const float *norm) {
    int64_t d = m->c.d_model, V = m->c.n_vocab;
    float *tmp = (float *)o->scratch;
    for (int64_t i; (i = qsi_op_take(o)) < m->n_want;) {
        o->k->rmsnorm(m->x + m->want[i] * d, norm, tmp, d, m->c.rms_eps);
        qsi_act_put(o->k, &m->head, i, tmp);
    }
    qsi_op_end(o);
    qsi_mm_job j = qsi_job_forward(m->w.head, &m->head, 0, m->n_want, m->logits, V, false);
    qsi_op_mm(o, &j, 1);
    qsi_cut cut = qsi_op_cut(o, m->n_want, V);
    for (int64_t i; (i = qsi_op_take(o)) < cut.items;) {
        int64_t c0, c1, row = qsi_cut_at(&cut, i, &c0, &c1);
        if (!qsi_all_finite(m->logits + row * V + c0, c1 - c0))
            atomic_store_explicit(&m->bad, 1, memory_order_relaxed); /* read after the run */
    }
    qsi_op_end(o);
}

static qsi_op op_of(const qsi_worker *w, qsi_model *m) {
    qsi_op o;
    qsi_op_init(&o, w, m->k, &m->sh, m->scratch + (size_t)w->index * m->scratch_bytes,
                m->scratch_bytes);
    return o;
}

static void keep_hidden(qsi_op *o, qsi_model *m) {
    int64_t d = m->c.d_model;
    for (int64_t i; (i = qsi_op_take(o)) < m->f.n;)
        o->k->rmsnorm(m->x + i * d, m->w.out_norm, m->hidden + i * d, d, m->c.rms_eps);
    qsi_op_end(o);
}

/* x = Weh [enorm(embedding) ; hnorm(hidden)] */
static void join_next(qsi_op *o, qsi_model *m) {
    const qsi_next_weights *w = &m->w.next;
    int64_t d = m->c.d_model;
    float *both = (float *)o->scratch;
    for (int64_t i; (i = qsi_op_take(o)) < m->f.n;) {
        o->k->rmsnorm(m->x + i * d, w->enorm, both, d, m->c.rms_eps);
        o->k->rmsnorm(m->hidden + i * d, w->hnorm, both + d, d, m->c.rms_eps);
        qsi_act_put(o->k, &m->eh, i, both);
    }
    qsi_op_end(o);
    qsi_mm_job j = qsi_job_forward(w->eh, &m->eh, 0, m->f.n, m->x, d, false);
    qsi_op_mm(o, &j, 1);
}

static void run_next(const qsi_worker *w, void *arg) {
    qsi_model *m = arg;
    qsi_op o = op_of(w, m);
    qsi_mem_guard_begin();
    qsi_op_end(&o); /* zeroes the tickets of the next turn */
    qsi_rope_prepare(&o, &m->f);
    qsi_embed_forward(&o, &m->f, m->x);
    join_next(&o, m);
    (void)qsi_layer_forward(&o, &m->f, m->c.n_layer, m->save_ptr[m->c.n_layer]);
    if (m->n_want) head_rows(&o, m, m->w.next.head_norm);
    qsi_mem_guard_end();
}

static void run_step(const qsi_worker *w, void *arg) {
    qsi_model *m = arg;
    qsi_op o = op_of(w, m);
    if (m->importance != NULL) {
        o.tap = qsi_importance_add;
        o.tap_user = m->importance;
    }
    qsi_mem_guard_begin();
    qsi_op_end(&o); /* zeroes the tickets of the next turn */
    qsi_rope_prepare(&o, &m->f);
    qsi_embed_forward(&o, &m->f, m->x);
    bool on = qsi_layers_forward(&o, &m->f, m->save_ptr) &&
              qsi_res_enter(w, m->res, qsi_res_head_group(&m->c));
    if (on && m->n_want) head_rows(&o, m, m->w.out_norm);
    if (on && m->hidden) keep_hidden(&o, m);
    if (on) qsi_res_leave(w, m->res, qsi_res_head_group(&m->c));
    qsi_mem_guard_end();
}

static qs_status take_rows(qsi_model *m, const qsi_step *s, qs_err *err) {
    qs_status st = QS_OK;
    if (s->n_rows < 1 || s->n_rows > m->o.max_rows)
        QS_FAIL(err, QS_E_ARG, "a step of %d rows, 1 to %d are possible", s->n_rows,
                m->o.max_rows);
    m->n_want = 0;
    for (int32_t i = 0; i < s->n_rows; i++) {
        const qsi_row *r = &s->rows[i];
        if (r->id < 0 || r->id >= m->c.n_vocab)
            QS_FAIL(err, QS_E_ARG, "row %d: id %d, the vocabulary has %d", i, r->id, m->c.n_vocab);
        if (r->seq < 0 || r->seq >= s->n_tables)
            QS_FAIL(err, QS_E_ARG, "row %d: sequence %d of %d", i, r->seq, s->n_tables);
        if (m->c.index_topk && r->pos >= qsi_index_positions(&m->c))
            QS_FAIL(err, QS_E_ARG, "row %d: position %d, sparse attention was made ready for %" PRId64
                    " (a context given when the model is opened is the limit)", i, r->pos,
                    qsi_index_positions(&m->c));
        if (r->pos < 0 || (size_t)r->pos / QSI_KV_PAGE >= s->tables[r->seq].n_pages)
            QS_FAIL(err, QS_E_ARG, "row %d: position %d has no page in the cache", i, r->pos);
        m->ids[i] = r->id;
        m->pos[i] = r->pos;
        m->seq[i] = r->seq;
        m->generated[i] = r->generated;
        if (r->logits) m->want[m->n_want++] = i;
    }
    m->f.n = s->n_rows;
    m->f.ids = m->ids;
    m->f.pos = m->pos;
    m->f.generated = m->c.kv_rank ? m->generated : NULL;
    QS_TRY(qsi_fwd_segments(&m->f, m->seq, false, err));
done:
    return st;
}

/* Under a limit of memory: rows of the embedding come with what the system has cached around them,
 * and stay. Those of max_rows rows may, then all are given back. */
static void bound_embedding(qsi_model *m, int32_t n_rows) {
    if (!m->o.memory_bytes) return;
    if (m->embed_rows + n_rows > m->o.max_rows) {
        m->embed_rows = 0;
        qsi_gguf_drop_bytes(m->g, m->w.embed, m->w.embed_row * (size_t)m->c.n_vocab);
    }
    m->embed_rows += n_rows;
}

static void begin_step(qsi_model *m, const qsi_step *s) {
    m->f.kv = s->kv;
    m->f.tables = s->tables;
    m->logits = s->logits;
    m->hidden = s->hidden;
    m->f.watch = false;
    m->f.comm_status = QS_OK;
    atomic_store(&m->bad, 0);
}

bool qsi_model_has_mtp(const qsi_model *m) { return m->c.n_next > 0; }

qs_status qsi_model_mtp_step(qsi_model *m, const qsi_step *s, qs_err *err) {
    qs_status st = QS_OK;
    if (!qsi_model_has_mtp(m) || !s->hidden)
        QS_FAIL(err, QS_E_STATE, "no layer that predicts further was loaded");
    QS_TRY(take_rows(m, s, err));
    begin_step(m, s);
    qsi_pool_run(m->o.pool, run_next, m);
    if (m->f.comm_status != QS_OK)
        QS_FAIL(err, m->f.comm_status, "a sum over processes failed in the step");
    if (atomic_load(&m->bad))
        QS_FAIL(err, QS_E_NUMERIC, "the layer that predicts further gives NaN or infinity (damaged "
                "weights? `info --verify` looks at each)");
done:
    return st;
}

qs_status qsi_model_step(qsi_model *m, const qsi_step *s, qs_err *err) {
    qs_status st = QS_OK;
    if (m->o.plan_only) QS_FAIL(err, QS_E_STATE, "the model was planned, its weights were not read");
    QS_TRY(take_rows(m, s, err));
    bound_embedding(m, s->n_rows);
    begin_step(m, s);
    qsi_pool_run(m->o.pool, run_step, m);
    if (m->res) QS_TRY(qsi_res_step_done(m->res, err));
    if (m->f.comm_status != QS_OK)
        QS_FAIL(err, m->f.comm_status, "a sum over processes failed in the step");
    if (!atomic_load(&m->bad)) goto done;
    /* Once more, looking at every layer: the step writes the same cache again. */
    m->f.watch = true;
    m->f.bad_layer = QSI_BAD_NONE;
    qsi_pool_run(m->o.pool, run_step, m);
    if (m->res) QS_TRY(qsi_res_step_done(m->res, err));
    if (m->f.bad_layer == QSI_BAD_EMBED)
        QS_FAIL(err, QS_E_NUMERIC, "the embedding holds NaN or infinity (damaged weights? `info "
                "--verify` looks at each)");
    if (m->f.bad_layer >= 0)
        QS_FAIL(err, QS_E_NUMERIC, "layer %d gives NaN or infinity (damaged weights? `info "
                "--verify` looks at each)", m->f.bad_layer);
    QS_FAIL(err, QS_E_NUMERIC, "the logits hold NaN or infinity, no layer before them does "
            "(damaged output weights?)");
done:
    return st;
}

const qsi_weights *qsi_model_weights(const qsi_model *m) { return &m->w; }

bool qsi_model_tied(const qsi_model *m) { return qsi_gguf_tensor_find(m->g, "output.weight") == NULL; }

void qsi_model_watch(qsi_model *m, qsi_importance *x) { m->importance = x; }
