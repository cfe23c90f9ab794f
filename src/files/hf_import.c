/* Planning comes first: each tensor of the configuration gets its sources (one, or one per expert)
 * and every tensor of the folder must be a source of something, so that a bias or a norm this
 * program does not know is never dropped silently. Then tensors can be read, one after another. */
#include "files/hf_import.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/str.h"
#include "files/hf_about.h"
#include "files/hf_generation.h"
#include "files/mix.h"
#include "files/vocab_file.h"
#include "fmt/json.h"
#include "fmt/safetensors.h"
#include "model/rope_scaling.h"
#include "sys/file.h"

enum {
    PIECE = 1 << 16 /* values converted at a time */, NAME_CAP = QSI_HF_NAME_CAP,
    FP8_BLOCK = 128 /* rows and columns that share a scale */
};

/* Names inside a layer: GGUF "blk.N.<gguf>.weight", folder "model.layers.N.<hf>.weight". %d in hf
 * is the expert. */
static const struct layer_name {
    const char *gguf, *hf;
} layer_names[] = {
    {"attn_norm", "input_layernorm"},
    {"attn_q", "self_attn.q_proj"},
    {"attn_k", "self_attn.k_proj"},
    {"attn_v", "self_attn.v_proj"},
    {"attn_q_norm", "self_attn.q_norm"},
    {"attn_k_norm", "self_attn.k_norm"},
    {"attn_q_a", "self_attn.q_a_proj"},
    {"attn_q_a_norm", "self_attn.q_a_layernorm"},
    {"attn_q_b", "self_attn.q_b_proj"},
    {"attn_kv_a_mqa", "self_attn.kv_a_proj_with_mqa"},
    {"attn_kv_a_norm", "self_attn.kv_a_layernorm"},
    {"attn_kv_b", "self_attn.kv_b_proj"},
    {"indexer.attn_k", "self_attn.indexer.wk"},
    {"indexer.k_norm", "self_attn.indexer.k_norm"},
    {"indexer.proj", "self_attn.indexer.weights_proj"},
    {"indexer.attn_q_b", "self_attn.indexer.wq_b"},
    {"attn_output", "self_attn.o_proj"},
    {"nextn.eh_proj", "eh_proj"},
    {"nextn.enorm", "enorm"},
    {"nextn.hnorm", "hnorm"},
    {"nextn.shared_head_norm", "shared_head.norm"},
    {"ffn_norm", "post_attention_layernorm"},
    {"ffn_gate", "mlp.gate_proj"},
    {"ffn_up", "mlp.up_proj"},
    {"ffn_down", "mlp.down_proj"},
    {"ffn_gate_inp", "mlp.gate"},
    {"ffn_gate_exps", "mlp.experts.%d.gate_proj"},
    {"ffn_up_exps", "mlp.experts.%d.up_proj"},
    {"ffn_down_exps", "mlp.experts.%d.down_proj"},
    {"ffn_gate_shexp", "mlp.shared_experts.gate_proj"},
    {"ffn_up_shexp", "mlp.shared_experts.up_proj"},
    {"ffn_down_shexp", "mlp.shared_experts.down_proj"},
};

typedef qsi_hf importing;
struct qsi_hf {
    char *folder; /* owned */
    qsi_json *json; /* its config.json, owned */
    qsi_config config;
    qsi_st *st;
    qsi_vocab *vocab;
    qsi_gguf_tensor *tensors; /* of the GGUF, [n_tensors] */
    size_t n_tensors;
    qsi_arena arena;    /* their names */
    qsi_bytes_fn *sink; /* while a tensor is read */
    void *user;
    bool *used;         /* per tensor of the folder */
    bool tied;          /* the output matrix is the embedding */
    uint16_t *halves;   /* [PIECE] */
    float fp8[256];     /* what the bytes of F8_E4M3 mean */
    float *values;      /* [PIECE] */
};

/* ---- reading what is not weights ---- */

/* weight_block_size, where it is given, must be what FP8_BLOCK says. */
static qs_status check_fp8_blocks(const qsi_json *quantised, qs_err *err) {
    const qsi_json *size = qsi_json_get(quantised, "weight_block_size");
    if (qsi_json_kind_of(size) != QSI_JSON_ARRAY) return QS_OK;
    for (size_t i = 0; i < qsi_json_size(size); i++) {
        int64_t v = 0;
        if (!qsi_json_as_i64(qsi_json_at(size, i), &v) || v != FP8_BLOCK)
            return qsi_err_set(err, QS_E_UNSUPPORTED,
                               "config.json: a \"weight_block_size\" other than %d x %d is not "
                               "supported", FP8_BLOCK, FP8_BLOCK);
    }
    return QS_OK;
}

static qs_status read_config(importing *x, qs_err *err) {
    qs_status st = QS_OK;
    qsi_str path = {0}, text = {0};
    if (qsi_path_join(&path, x->folder, "config.json") != QS_OK) {
        QS_FAIL(err, QS_E_NOMEM, "out of memory reading '%s'", x->folder);
    }
    QS_TRY(qsi_file_read(path.data, QSI_JSON_SMALL_BYTES, &text, err));
    QS_TRY(qsi_config_from_hf(&x->config, text.data, text.len, err));
    QS_TRY(qsi_json_parse(&x->json, text.data, text.len, QSI_JSON_SMALL, err));
    (void)qsi_json_as_bool(qsi_json_get(x->json, "tie_word_embeddings"), &x->tied);
    QS_TRY(check_fp8_blocks(qsi_json_get(x->json, "quantization_config"), err));
done:
    qsi_str_release(&path);
    qsi_str_release(&text);
    return st;
}

/* The vocabulary, with fillers up to the model's size. */
static qs_status read_vocab(importing *x, qs_err *err) {
    qs_status st = QS_OK;
    qsi_vocab *v = NULL;
    QS_TRY(qsi_vocab_file_load(&v, x->folder, err));
    if (qsi_vocab_size(v) > x->config.n_vocab) {
        QS_FAIL(err, QS_E_FORMAT, "tokenizer.json has %d ids, config.json's vocab_size is %d",
                (int)qsi_vocab_size(v), (int)x->config.n_vocab);
    }
    QS_TRY(qsi_vocab_padded(&x->vocab, v, x->config.n_vocab, err));
done:
    qsi_vocab_free(v);
    return st;
}

/* ---- sources ---- */

void qsi_hf_name(const qsi_tensor_spec *t, int expert, char *out, size_t cap) {
    static const struct layer_name outer[] = {
        {"token_embd.weight", "model.embed_tokens.weight"},
        {"output_norm.weight", "model.norm.weight"},
        {"output.weight", "lm_head.weight"},
    };
    const char *part = strrchr(t->name, '.');
    size_t n = 0;
    out[0] = '\0';
    if (t->layer < 0) {
        for (size_t i = 0; i < QSI_COUNT(outer); i++) {
            if (strcmp(outer[i].gguf, t->name) == 0) snprintf(out, cap, "%s", outer[i].hf);
        }
        return;
    }
    if (t->role == QSI_ROLE_ROUTER && strcmp(part, ".bias") == 0) {
        snprintf(out, cap, "model.layers.%d.mlp.gate.e_score_correction_bias", (int)t->layer);
        return;
    }
    const char *begin = strchr(t->name + 4, '.') + 1; /* after "blk.N." */
    n = (size_t)(part - begin);
    for (size_t i = 0; i < QSI_COUNT(layer_names); i++) {
        const char *gguf = layer_names[i].gguf, *hf = layer_names[i].hf, *mark = strchr(hf, '%');
        if (strlen(gguf) != n || memcmp(gguf, begin, n) != 0) continue;
        if (mark == NULL) {
            snprintf(out, cap, "model.layers.%d.%s%s", (int)t->layer, hf, part);
        } else {
            snprintf(out, cap, "model.layers.%d.%.*s%d%s.weight", (int)t->layer, (int)(mark - hf),
                     hf, expert, mark + 2);
        }
        return;
    }
}

static bool is_fp8(const qsi_st_tensor *s) { return strcmp(s->dtype, "F8_E4M3") == 0; }

/* What a source is stored as: FP8 becomes BF16, as in the official conversion. */
static qsi_type stored_type(const qsi_st_tensor *s) { return is_fp8(s) ? QSI_BF16 : s->type; }

static int64_t fp8_blocks(int64_t n) { return (n + FP8_BLOCK - 1) / FP8_BLOCK; }

/* The scales of an FP8 matrix: NAME_scale_inv, F32, one for each block. */
static qs_status find_scales(importing *x, const qsi_st_tensor *s, const qsi_st_tensor **out,
                             qs_err *err) {
    qs_status st = QS_OK;
    char name[NAME_CAP + 16];
    snprintf(name, sizeof name, "%s_scale_inv", s->name);
    const qsi_st_tensor *scale = qsi_st_find(x->st, name);
    if (scale == NULL) QS_FAIL(err, QS_E_FORMAT, "tensor %s is missing: %s is F8_E4M3", name,
                               s->name);
    if (scale->type != QSI_F32 || s->n_dims != 2 || scale->n_dims != 2 ||
        scale->shape[0] != fp8_blocks(s->shape[0]) || scale->shape[1] != fp8_blocks(s->shape[1])) {
        QS_FAIL(err, QS_E_FORMAT,
                "tensor %s must be F32 with one scale for each %d x %d of %s", name, FP8_BLOCK,
                FP8_BLOCK, s->name);
    }
    x->used[scale - qsi_st_at(x->st, 0)] = true;
    *out = scale;
done:
    return st;
}

/* The folder's tensor that is (an expert of) t, with the right shape and a type of weights. */
static qs_status find_source(importing *x, const qsi_tensor_spec *t, int expert,
                             const qsi_st_tensor **out, qs_err *err) {
    qs_status st = QS_OK;
    char name[NAME_CAP];
    int n_dims = t->n_dims == 3 ? 2 : t->n_dims;
    qsi_hf_name(t, expert, name, sizeof name);
    const qsi_st_tensor *s = qsi_st_find(x->st, name);
    if (s == NULL && x->tied && strcmp(name, "lm_head.weight") == 0) {
        s = qsi_st_find(x->st, "model.embed_tokens.weight");
    }
    if (s == NULL) QS_FAIL(err, QS_E_FORMAT, "tensor %s is missing", name);
    bool fits = s->n_dims == n_dims;
    for (int d = 0; fits && d < n_dims; d++) fits = s->shape[n_dims - 1 - d] == t->ne[d];
    if (!fits && n_dims == 2) {
        QS_FAIL(err, QS_E_FORMAT, "tensor %s is not %" PRId64 " x %" PRId64 ", as config.json says",
                name, t->ne[1], t->ne[0]);
    }
    if (!fits) {
        QS_FAIL(err, QS_E_FORMAT, "tensor %s does not hold %" PRId64 " values, as config.json says",
                name, t->ne[0]);
    }
    const qsi_type_info *ti = qsi_type_get((int32_t)s->type);
    if (is_fp8(s)) {
        const qsi_st_tensor *scale = NULL;
        QS_TRY(find_scales(x, s, &scale, err));
    } else if (ti == NULL || !ti->weights) {
        QS_FAIL(err, QS_E_UNSUPPORTED,
                "tensor %s is of type %s: F32, F16, BF16 and F8_E4M3 are supported", name, s->dtype);
    }
    x->used[s - qsi_st_at(x->st, 0)] = true;
    *out = s;
done:
    return st;
}

static int n_sources(const qsi_tensor_spec *t) { return t->n_dims == 3 ? (int)t->ne[2] : 1; }

/* Tensor t of the GGUF in the list. */
static qs_status list_tensor(importing *x, const qsi_tensor_spec *t, qsi_type type, qs_err *err) {
    qs_status st = QS_OK;
    size_t row = 0;
    qsi_gguf_tensor *out = &x->tensors[x->n_tensors];
    *out = (qsi_gguf_tensor){.type = type, .n_dims = t->n_dims, .ne = {1, 1, 1, 1}};
    out->name = qsi_arena_strndup(&x->arena, t->name, strlen(t->name));
    if (out->name == NULL) QS_FAIL(err, QS_E_NOMEM, "out of memory reading '%s'", x->folder);
    for (int d = 0; d < t->n_dims; d++) out->ne[d] = t->ne[d];
    QS_CHECK(qsi_row_bytes(qsi_type_get((int32_t)type), out->ne[0], &row));
    out->bytes = row * (size_t)(out->ne[1] * out->ne[2]);
    x->n_tensors++;
done:
    return st;
}

static qs_status find_sources(importing *x, const qsi_tensor_spec *t, qs_err *err) {
    qs_status st = QS_OK;
    const qsi_st_tensor *first = NULL, *s = NULL;
    if (t->role == QSI_ROLE_FREQS) return list_tensor(x, t, QSI_F32, err); /* computed */
    for (int e = 0; e < n_sources(t); e++) {
        QS_TRY(find_source(x, t, e, &s, err));
        if (first == NULL) first = s;
        if (stored_type(s) != stored_type(first)) {
            QS_FAIL(err, QS_E_UNSUPPORTED, "tensors %s and %s have different types", first->name,
                    s->name);
        }
    }
    QS_TRY(list_tensor(x, t, qsi_fit_type(t, stored_type(first)), err));
done:
    return st;
}

/* Layers that predict further come with copies of the model's embedding and head. */
static bool is_copy(const importing *x, const char *name) {
    static const char *const parts[] = {"embed_tokens.weight", "shared_head.head.weight"};
    for (int32_t l = x->config.n_layer; l < qsi_config_blocks(&x->config); l++)
        for (size_t i = 0; i < QSI_COUNT(parts); i++) {
            char copy[NAME_CAP];
            snprintf(copy, sizeof copy, "model.layers.%d.%s", (int)l, parts[i]);
            if (strcmp(copy, name) == 0) return true;
        }
    return false;
}

/* A folder may say that it has such layers and have none. */
static void look_for_next(importing *x) {
    char name[NAME_CAP];
    snprintf(name, sizeof name, "model.layers.%d.eh_proj.weight", (int)x->config.n_layer);
    if (qsi_st_find(x->st, name) == NULL) x->config.n_next = 0;
}

/* Every tensor of the folder must have been used; positions of the rotation may be stored, and are
 * computed here. */
static qs_status check_rest(const importing *x, qs_err *err) {
    for (size_t i = 0; i < qsi_st_n_tensors(x->st); i++) {
        const qsi_st_tensor *t = qsi_st_at(x->st, i);
        if (!x->used[i] && strstr(t->name, "rotary_emb.inv_freq") == NULL &&
            !is_copy(x, t->name)) {
            return qsi_err_set(err, QS_E_UNSUPPORTED, "tensor %s is not part of architecture %s",
                               t->name, qsi_arch_name(x->config.arch));
        }
    }
    return QS_OK;
}

/* ---- reading weights ---- */

/* Row r of a permuted matrix: within a head the halves are interleaved, new row 2i is old row i and
 * new row 2i + 1 is old row i + head_dim / 2. */
static int64_t permuted_row(int64_t r, int64_t head_dim) {
    int64_t head = r / head_dim, k = r % head_dim;
    return head * head_dim + k / 2 + k % 2 * (head_dim / 2);
}

static qs_status read_permuted(importing *x, const qsi_st_tensor *s, int64_t rows, qs_err *err) {
    qs_status st = QS_OK;
    size_t row = s->bytes / (size_t)rows;
    for (int64_t r = 0; r < rows; r++) {
        const uint8_t *from = s->data + row * (size_t)permuted_row(r, x->config.head_dim);
        QS_TRY(x->sink(x->user, from, row, err));
    }
done:
    return st;
}

static qs_status read_as_f32(importing *x, const qsi_st_tensor *s, qs_err *err) {
    qs_status st = QS_OK;
    const qsi_type_info *ti = qsi_type_get((int32_t)s->type);
    for (int64_t at = 0; at < s->n; at += PIECE) {
        int64_t n = s->n - at < PIECE ? s->n - at : PIECE;
        ti->decode(s->data + (size_t)at * (size_t)ti->bytes, x->values, n);
        QS_TRY(x->sink(x->user, x->values, (size_t)n * sizeof *x->values, err));
    }
done:
    return st;
}

/* The folder rotates halves of a head, a file adjacent pairs; except where both do the same: latent
 * attention, and the architectures whose files keep the halves. */
static bool is_rotated(const importing *x, const qsi_tensor_spec *t) {
    if (x->config.kv_rank > 0 || qsi_config_halves(&x->config)) return false;
    return strstr(t->name, ".attn_q.") != NULL || strstr(t->name, ".attn_k.") != NULL;
}

/* 1 sign, 4 exponent (bias 7), 3 fraction bits; no infinity, 0x7f is NaN (OCP 8-bit floats). */
static void fill_fp8(float table[256]) {
    for (int i = 0; i < 256; i++) {
        int e = i >> 3 & 15, m = i & 7;
        float v = e > 0 ? ldexpf((float)(8 + m), e - 10) : ldexpf((float)m, -9);
        if ((i & 0x7f) == 0x7f) v = NAN;
        table[i] = i & 0x80 ? -v : v;
    }
}

/* An FP8 matrix as BF16 (or F32, where t wants that): every value times its block's scale. */
static qs_status read_fp8(importing *x, const qsi_tensor_spec *t, const qsi_st_tensor *s,
                           qs_err *err) {
    qs_status st = QS_OK;
    const qsi_st_tensor *scales = NULL;
    bool wide = qsi_fit_type(t, QSI_BF16) == QSI_F32;
    int64_t cols = s->shape[1];
    QS_TRY(find_scales(x, s, &scales, err));
    for (int64_t r = 0; r < s->shape[0]; r++) {
        int64_t from = is_rotated(x, t) ? permuted_row(r, x->config.head_dim) : r;
        const uint8_t *row = s->data + from * cols;
        const uint8_t *scale = scales->data + from / FP8_BLOCK * scales->shape[1] * 4;
        for (int64_t c0 = 0; c0 < cols; c0 += PIECE) {
            int64_t n = cols - c0 < PIECE ? cols - c0 : PIECE;
            for (int64_t i = 0; i < n; i++) {
                float f = 0;
                memcpy(&f, scale + (c0 + i) / FP8_BLOCK * 4, sizeof f);
                x->values[i] = x->fp8[row[c0 + i]] * f;
                x->halves[i] = qsi_f32_to_bf16(x->values[i]);
            }
            QS_TRY(wide ? x->sink(x->user, x->values, (size_t)n * sizeof *x->values, err)
                        : x->sink(x->user, x->halves, (size_t)n * sizeof *x->halves, err));
        }
    }
done:
    return st;
}

static qs_status read_tensor(importing *x, const qsi_tensor_spec *t, qs_err *err) {
    qs_status st = QS_OK;
    if (t->role == QSI_ROLE_FREQS) {
        qsi_config_rope_freqs(&x->config, x->values);
        return x->sink(x->user, x->values, (size_t)t->ne[0] * sizeof *x->values, err);
    }
    for (int e = 0; e < n_sources(t); e++) {
        const qsi_st_tensor *s = NULL;
        QS_TRY(find_source(x, t, e, &s, err));
        if (is_fp8(s)) QS_TRY(read_fp8(x, t, s, err));
        else if (is_rotated(x, t)) QS_TRY(read_permuted(x, s, t->ne[1], err));
        else if (qsi_fit_type(t, s->type) != s->type) QS_TRY(read_as_f32(x, s, err));
        else QS_TRY(x->sink(x->user, s->data, s->bytes, err));
        qsi_st_drop(x->st, s);
    }
done:
    return st;
}

/* ---- the folder as a whole ---- */

/* The name that config.json gives, otherwise the folder's; and the tasks. */
static qs_status put_about(const importing *x, qsi_gguf_writer *w) {
    bool named = false;
    qs_status st = qsi_hf_take_about(x->json, w, &named);
    if (st != QS_OK || named) return st;
    size_t n = strlen(x->folder);
    while (n > 1 && x->folder[n - 1] == '/') n--;
    size_t begin = n;
    while (begin > 0 && x->folder[begin - 1] != '/') begin--;
    return qsi_gguf_put_str(w, "general.name", x->folder + begin, n - begin);
}

qs_status qsi_hf_put_keys(qsi_hf *x, qsi_gguf_writer *w, qs_err *err) {
    qs_status st = QS_OK;
    qs_err why = {0};
    QS_TRY(qsi_config_put_gguf(&x->config, w));
    QS_TRY(put_about(x, w));
    QS_TRY(qsi_vocab_save_gguf(x->vocab, w, &why));
    QS_TRY(qsi_hf_put_sampling(x->folder, x->vocab, w, err));
done:
    if (st != QS_OK) st = qsi_err_set(err, st, "cannot put the keys of '%s' together", x->folder);
    return st;
}

const qsi_config *qsi_hf_config(const qsi_hf *x) { return &x->config; }
size_t qsi_hf_n_tensors(const qsi_hf *x) { return x->n_tensors; }
const qsi_gguf_tensor *qsi_hf_tensor(const qsi_hf *x, size_t i) { return &x->tensors[i]; }
qs_status qsi_hf_intact(const qsi_hf *x, qs_err *err) { return qsi_st_intact(x->st, err); }
uint64_t qsi_hf_stamp(const qsi_hf *x) { return qsi_st_stamp(x->st); }

qs_status qsi_hf_read(qsi_hf *x, size_t i, qsi_bytes_fn *sink, void *user, qs_err *err) {
    qs_status st = QS_OK;
    qsi_tensor_spec t;
    x->sink = sink;
    x->user = user;
    qsi_config_tensor(&x->config, i, &t);
    QS_TRY(read_tensor(x, &t, err));
    QS_TRY(qsi_st_intact(x->st, err));
done:
    return st;
}

static qs_status open_folder(importing *x, qs_err *err) {
    qs_status st = QS_OK;
    QS_TRY(read_config(x, err));
    QS_TRY(qsi_st_open(&x->st, x->folder, err));
    look_for_next(x);
    QS_TRY(read_vocab(x, err));
    x->used = qsi_calloc(qsi_st_n_tensors(x->st), sizeof *x->used);
    x->values = qsi_alloc(PIECE, sizeof *x->values);
    x->halves = qsi_alloc(PIECE, sizeof *x->halves);
    x->tensors = qsi_calloc(qsi_config_n_tensors(&x->config), sizeof *x->tensors);
    fill_fp8(x->fp8);
    if (x->used == NULL || x->values == NULL || x->halves == NULL || x->tensors == NULL)
        QS_FAIL(err, QS_E_NOMEM, "out of memory reading '%s'", x->folder);
    for (size_t i = 0; i < qsi_config_n_tensors(&x->config); i++) {
        qsi_tensor_spec t;
        qsi_config_tensor(&x->config, i, &t);
        QS_TRY(find_sources(x, &t, err));
    }
    QS_TRY(check_rest(x, err));
done:
    return st;
}

qs_status qsi_hf_open(qsi_hf **out, const char *folder, qs_err *err) {
    qs_status st = QS_OK;
    qsi_hf *x = qsi_calloc(1, sizeof *x);
    if (x == NULL) QS_FAIL(err, QS_E_NOMEM, "out of memory reading '%s'", folder);
    qsi_arena_init(&x->arena);
    x->folder = qsi_strdup(folder);
    if (x->folder == NULL) QS_FAIL(err, QS_E_NOMEM, "out of memory reading '%s'", folder);
    QS_TRY(open_folder(x, err));
    *out = x;
    x = NULL;
done:
    qsi_hf_close(&x);
    return st;
}

void qsi_hf_close(qsi_hf **px) {
    qsi_hf *x = *px;
    *px = NULL;
    if (x == NULL) return;
    qsi_json_free(&x->json);
    qsi_vocab_free(x->vocab);
    qsi_st_close(&x->st);
    qsi_arena_release(&x->arena);
    qsi_free(x->tensors);
    qsi_free(x->folder);
    qsi_free(x->used);
    qsi_free(x->values);
    qsi_free(x->halves);
    qsi_free(x);
}
