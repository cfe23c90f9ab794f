/* Showing what info.c gathered: aligned lines for people, one JSON object for programs. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "files/info.h"

enum { LABEL = 14, VALUE_MAX = 120 };

qs_status qsi_info_clean(qsi_str *out, const char *p, size_t n, size_t max) {
    qs_status st = QS_OK;
    size_t i = 0;
    while (i < n && i < max) {
        int len = 1;
        uint32_t cp = qsi_utf8_decode(p + i, n - i, &len);
        bool harmless = cp != QSI_UTF8_BAD && cp >= 0x20 && (cp < 0x7f || cp >= 0xa0);
        QS_TRY(harmless ? qsi_str_append(out, p + i, (size_t)len) : qsi_str_putc(out, '?'));
        i += (size_t)len;
    }
    if (i < n) QS_TRY(qsi_str_puts(out, "..."));
done:
    return st;
}

/* ---- text ---- */

static qs_status put_size(qsi_str *s, uint64_t bytes) {
    static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB", "PiB"};
    double v = (double)bytes;
    size_t u = 0;
    while (v >= 1024 && u + 1 < QSI_COUNT(units)) {
        v /= 1024;
        u++;
    }
    return qsi_str_printf(s, "%.*f %s", u == 0 ? 0 : 2, v, units[u]);
}

static qs_status put_count(qsi_str *s, int64_t n) {
    if (n >= 1000000000) return qsi_str_printf(s, "%.3f B", (double)n / 1e9);
    if (n >= 1000000) return qsi_str_printf(s, "%.2f M", (double)n / 1e6);
    return qsi_str_printf(s, "%" PRId64, n);
}

static qs_status label(qsi_str *s, const char *text) {
    return qsi_str_printf(s, "%-*s", LABEL, text);
}

static qs_status text_file(const qsi_info *x, qsi_str *s) {
    qs_status st = QS_OK;
    QS_TRY(label(s, "file"));
    QS_TRY(qsi_info_clean(s, x->path, strlen(x->path), 1000));
    QS_TRY(qsi_str_printf(s, "\n%-*s%s%s, ", LABEL, "kind", qsi_info_kind_name(x->kind),
                          x->kind == QSI_INFO_VOCAB ? " without weights" : ""));
    if (x->g != NULL) QS_TRY(qsi_str_printf(s, "version %u, ", qsi_gguf_version(x->g)));
    if (x->st != NULL && qsi_st_n_shards(x->st) > 1) {
        QS_TRY(qsi_str_printf(s, "%zu files, ", qsi_st_n_shards(x->st)));
    }
    QS_TRY(put_size(s, x->bytes));
    QS_TRY(qsi_str_putc(s, '\n'));
    qsi_slice name = qsi_info_string(x, "general.name");
    if (name.n > 0) {
        QS_TRY(label(s, "name"));
        QS_TRY(qsi_info_clean(s, name.p, name.n, VALUE_MAX));
        QS_TRY(qsi_str_putc(s, '\n'));
    }
done:
    return st;
}

static qs_status text_experts(const qsi_config *c, qsi_str *s) {
    qs_status st = QS_OK;
    QS_TRY(label(s, "experts"));
    QS_TRY(qsi_str_printf(s, "%d routed (%d used", (int)c->n_expert, (int)c->n_expert_used));
    if (c->n_group > 1)
        QS_TRY(qsi_str_printf(s, " from %d of %d groups", (int)c->n_group_used, (int)c->n_group));
    QS_TRY(qsi_str_printf(s, "), %d shared, width %d%s%s\n", (int)c->n_shared, (int)c->d_expert,
                          c->gating == QSI_GATE_SIGMOID ? ", sigmoid" : "",
                          c->norm_topk ? ", weights normalised" : ""));
done:
    return st;
}

static uint64_t tensor_bytes(const qsi_info *x) {
    uint64_t n = 0;
    for (size_t i = 0; i < x->n_types; i++) n += x->types[i].bytes;
    return n;
}

/* Weights and cache at every context length; buffers of a step come on top. */
static qs_status text_memory(const qsi_info *x, qsi_str *s) {
    qs_status st = QS_OK;
    QS_TRY(label(s, "memory"));
    for (int i = 0; qsi_info_context(&x->config, i) > 0; i++) {
        int64_t n = qsi_info_context(&x->config, i);
        if (i > 0) QS_TRY(qsi_str_puts(s, ", "));
        QS_TRY(put_size(s, tensor_bytes(x) + (uint64_t)(qsi_info_kv_bytes(&x->config) * n)));
        QS_TRY(qsi_str_printf(s, " at %" PRId64, n));
    }
    QS_TRY(qsi_str_puts(s, " positions (weights and cache)\n"));
done:
    return st;
}

/* A line a tensor, so that two files can be compared by `diff`. */
static qs_status text_digests(const qsi_info *x, qsi_str *s) {
    qs_status st = QS_OK;
    for (size_t i = 0; x->verified && i < qsi_info_n_tensors(x); i++) {
        qsi_info_tensor t;
        qsi_info_tensor_at(x, i, &t);
        QS_TRY(qsi_str_printf(s, "%s%016" PRIx64 "  %s\n", i == 0 ? "\n" : "", x->digests[i], t.name));
    }
done:
    return st;
}

static qs_status text_config(const qsi_info *x, qsi_str *s) {
    qs_status st = QS_OK;
    const qsi_config *c = &x->config;
    int64_t active = 0, total = qsi_config_params(c, &active), kv = qsi_info_kv_bytes(c);
    QS_TRY(label(s, "architecture"));
    QS_TRY(qsi_str_printf(s, "%s: %d layers", qsi_arch_name(c->arch), (int)c->n_layer));
    if (c->n_expert > 0) QS_TRY(qsi_str_printf(s, " (%d dense first)", (int)c->n_dense));
    if (c->n_next > 0) QS_TRY(qsi_str_printf(s, " and %d to draft with", (int)c->n_next));
    QS_TRY(qsi_str_printf(s, ", width %d, %d heads of %d (%d for keys and values), FFN %d\n",
                          (int)c->d_model, (int)c->n_head, (int)c->head_dim, (int)c->n_kv_head,
                          (int)c->d_ff));
    if (c->kv_rank > 0) {
        QS_TRY(label(s, "latent"));
        QS_TRY(qsi_str_printf(s, "keys and values from %d, rotated part %d, values of %d",
                              (int)c->kv_rank, (int)c->d_rope, (int)c->d_value));
        if (c->q_rank > 0) QS_TRY(qsi_str_printf(s, ", queries from %d", (int)c->q_rank));
        QS_TRY(qsi_str_puts(s, c->kv_b_whole ? " (attn_kv_b whole)\n" : "\n"));
    }
    if (c->index_topk > 0) {
        QS_TRY(label(s, "sparse"));
        QS_TRY(qsi_str_printf(s, "attention to %d positions at most, chosen by %d heads of %d\n",
                              (int)c->index_topk, (int)c->index_heads, (int)c->index_dim));
    }
    if (c->n_expert > 0) QS_TRY(text_experts(c, s));
    if (x->kind != QSI_INFO_VOCAB) {
        QS_TRY(label(s, "parameters"));
        QS_TRY(put_count(s, total));
        QS_TRY(qsi_str_puts(s, " ("));
        QS_TRY(put_count(s, active));
        QS_TRY(qsi_str_puts(s, " used for a token, embedding not counted)\n"));
    }
    QS_TRY(label(s, "context"));
    QS_TRY(
        qsi_str_printf(s, "%d positions, rotation base %g", (int)c->n_ctx, (double)c->rope_theta));
    if (c->rope_scaling != QSI_ROPE_NONE) {
        QS_TRY(qsi_str_printf(s, ", scaled by %g%s", (double)c->rope_factor,
                              c->rope_scaling == QSI_ROPE_YARN ? " (YaRN)" : ""));
    }
    if (c->rope_freqs) QS_TRY(qsi_str_puts(s, ", divided by rope_freqs"));
    QS_TRY(qsi_str_printf(s, "\n%-*s", LABEL, "cache"));
    QS_TRY(put_size(s, (uint64_t)kv));
    QS_TRY(qsi_str_puts(s, " a position in F16, "));
    QS_TRY(put_size(s, (uint64_t)kv * (uint64_t)c->n_ctx));
    QS_TRY(qsi_str_puts(s, " for the whole context\n"));
    if (x->kind != QSI_INFO_VOCAB) QS_TRY(text_memory(x, s));
done:
    return st;
}

static qs_status text_types(const qsi_info *x, qsi_str *s) {
    qs_status st = QS_OK;
    for (size_t i = 0; i < x->n_types; i++) {
        const qsi_info_type *t = &x->types[i];
        QS_TRY(label(s, i == 0 ? "types" : ""));
        QS_TRY(qsi_str_printf(s, "%-6s ", t->name));
        QS_TRY(put_count(s, t->values));
        QS_TRY(qsi_str_printf(s, " values in %" PRId64 " tensor%s, ", t->tensors,
                              t->tensors == 1 ? "" : "s"));
        QS_TRY(put_size(s, t->bytes));
        if (t->short_blocks > 0) {
            QS_TRY(qsi_str_printf(s, "; %" PRId64 " of them with rows ", t->short_blocks));
            if (t->short_row > 0) QS_TRY(qsi_str_printf(s, "of %" PRId64 " values, ", t->short_row));
            QS_TRY(qsi_str_puts(s, "which blocks of 256 do not fit"));
        }
        QS_TRY(qsi_str_putc(s, '\n'));
    }
done:
    return st;
}

static qs_status text_token(qsi_str *s, const qsi_vocab *v, const char *name, int32_t id) {
    qs_status st = QS_OK;
    if (id < 0 || id >= qsi_vocab_size(v)) goto done;
    qsi_slice t = qsi_vocab_text(v, id);
    QS_TRY(qsi_str_printf(s, ", %s %d ", name, (int)id));
    QS_TRY(qsi_info_clean(s, t.p, t.n, 40));
done:
    return st;
}

static qs_status text_vocab(const qsi_info *x, qsi_str *s) {
    qs_status st = QS_OK;
    const qsi_vocab *v = x->vocab;
    if (v == NULL) goto done;
    QS_TRY(label(s, "vocabulary"));
    QS_TRY(qsi_str_printf(s, "%d ids, %" PRId64 " merges, pre-tokenizer ", (int)qsi_vocab_size(v),
                          qsi_vocab_n_merges(v)));
    QS_TRY(qsi_info_clean(s, qsi_vocab_pre(v), strlen(qsi_vocab_pre(v)), 40));
    if (x->g != NULL && qsi_gguf_find(x->g, "tokenizer.ggml.pre") == NULL)
        QS_TRY(qsi_str_puts(s, " (not named by the file: recognised by its tokens)"));
    QS_TRY(text_token(s, v, "BOS", qsi_vocab_bos(v)));
    QS_TRY(text_token(s, v, "EOS", qsi_vocab_eos(v)));
    QS_TRY(qsi_str_puts(s, qsi_vocab_chat_template(v).n > 0 ? ", chat template\n" : "\n"));
done:
    return st;
}

static qs_status text_tasks(const qsi_info *x, qsi_str *s) {
    qs_status st = QS_OK;
    const qsi_gguf_kv *kv = x->g != NULL ? qsi_gguf_find(x->g, "qiusuo.tasks") : NULL;
    if (kv == NULL || kv->type != QSI_GV_ARR || kv->elem != QSI_GV_STR || kv->count == 0) goto done;
    QS_TRY(label(s, "tasks"));
    for (uint64_t i = 0; i < kv->count && i < 16; i++) {
        qsi_slice t = qsi_gguf_arr_str(kv, i);
        if (i > 0) QS_TRY(qsi_str_puts(s, ", "));
        QS_TRY(qsi_info_clean(s, t.p, t.n, 40));
    }
    QS_TRY(qsi_str_putc(s, '\n'));
done:
    return st;
}

static qs_status put_element(qsi_str *s, const qsi_info *x, const qsi_info_bad *b) {
    qs_status st = QS_OK;
    qsi_info_tensor t = {0};
    for (size_t i = 0; i < qsi_info_n_tensors(x); i++) {
        qsi_info_tensor_at(x, i, &t);
        if (t.name == b->name) break;
    }
    int64_t rest = b->first;
    QS_TRY(qsi_str_putc(s, '['));
    for (int d = 0; d < t.n_dims; d++) {
        QS_TRY(qsi_str_printf(s, "%s%" PRId64, d > 0 ? ", " : "", rest % t.ne[d]));
        rest /= t.ne[d];
    }
    QS_TRY(qsi_str_putc(s, ']'));
done:
    return st;
}

static const char *bad_word(float v) { return isnan(v) ? "NaN" : v > 0 ? "infinity" : "-infinity"; }

static qs_status text_state(const qsi_info *x, qsi_str *s) {
    qs_status st = QS_OK;
    if (x->verified) {
        QS_TRY(label(s, "values"));
        QS_TRY(put_count(s, x->checked));
        QS_TRY(qsi_str_puts(s, " checked"));
        if (x->unchecked > 0) {
            QS_TRY(qsi_str_puts(s, ", "));
            QS_TRY(put_count(s, x->unchecked));
            QS_TRY(qsi_str_puts(s, " of types that cannot be checked"));
        }
        QS_TRY(qsi_str_puts(s, x->n_bad == 0 ? ", all finite\n" : "\n"));
    }
    for (size_t i = 0; i < x->n_bad && i < QSI_INFO_MAX_BAD; i++) {
        const qsi_info_bad *b = &x->bad[i];
        QS_TRY(label(s, "damaged"));
        QS_TRY(qsi_str_printf(s, "tensor %s: %s at element ", b->name, bad_word(b->value)));
        QS_TRY(put_element(s, x, b));
        QS_TRY(
            qsi_str_printf(s, ", %" PRId64 " such value%s\n", b->count, b->count == 1 ? "" : "s"));
    }
    for (size_t i = 0; i < x->n_problems; i++) {
        QS_TRY(qsi_str_printf(s, "%-*s%s\n", LABEL, "problem", x->problems[i]));
    }
    if (x->unsupported[0] != '\0') {
        QS_TRY(qsi_str_printf(s, "%-*s%s\n", LABEL, "cannot run", x->unsupported));
    }
done:
    return st;
}

static qs_status put_value(qsi_str *s, const qsi_gguf *g, const qsi_gguf_kv *kv) {
    int64_t i = 0;
    double f = 0;
    bool b = false;
    qsi_slice t = {0};
    if (kv->type == QSI_GV_ARR) {
        return qsi_str_printf(s, "%" PRIu64 " x %s", kv->count, qsi_gguf_vt_name(kv->elem));
    }
    if (qsi_gguf_str(g, kv->key, &t, NULL) == QS_OK) return qsi_info_clean(s, t.p, t.n, VALUE_MAX);
    if (qsi_gguf_bool(g, kv->key, &b, NULL) == QS_OK) return qsi_str_puts(s, b ? "true" : "false");
    if (qsi_gguf_f64(g, kv->key, &f, NULL) == QS_OK) return qsi_str_printf(s, "%.9g", f);
    if (qsi_gguf_i64(g, kv->key, &i, NULL) == QS_OK) return qsi_str_printf(s, "%" PRId64, i);
    return qsi_str_puts(s, "above 2^63");
}

static qs_status text_keys(const qsi_info *x, qsi_str *s) {
    qs_status st = QS_OK;
    for (size_t i = 0; x->g != NULL && i < qsi_gguf_n_kv(x->g); i++) {
        const qsi_gguf_kv *kv = qsi_gguf_kv_at(x->g, i);
        QS_TRY(qsi_str_printf(s, "%s%-44.200s %-7s ", i == 0 ? "\n" : "", kv->key,
                              qsi_gguf_vt_name(kv->type)));
        QS_TRY(put_value(s, x->g, kv));
        QS_TRY(qsi_str_putc(s, '\n'));
    }
done:
    return st;
}

static qs_status text_tensors(const qsi_info *x, qsi_str *s) {
    qs_status st = QS_OK;
    for (size_t i = 0; i < qsi_info_n_tensors(x); i++) {
        qsi_info_tensor t;
        qsi_info_tensor_at(x, i, &t);
        QS_TRY(qsi_str_printf(s, "%s%-44s %-7s ", i == 0 ? "\n" : "", t.name, t.type_name));
        for (int d = 0; d < t.n_dims; d++) {
            QS_TRY(qsi_str_printf(s, "%s%" PRId64, d > 0 ? " x " : "", t.ne[d]));
        }
        QS_TRY(qsi_str_printf(s, "%s%zu bytes\n", t.n_dims > 0 ? ", " : "", t.bytes));
    }
done:
    return st;
}

qs_status qsi_info_text(const qsi_info *x, unsigned show, qsi_str *s) {
    qs_status st = QS_OK;
    QS_TRY(text_file(x, s));
    if (x->has_config) {
        QS_TRY(text_config(x, s));
    } else if (x->kind == QSI_INFO_IMATRIX) {
        QS_TRY(label(s, "importance"));
        QS_TRY(qsi_str_printf(s, "of %zu matrices in %zu tensors; %zu saw no token\n",
                              x->imatrix.matrices, x->imatrix.tensors, x->imatrix.unseen));
    } else if (x->g != NULL) {
        qsi_slice arch = qsi_info_string(x, "general.architecture");
        QS_TRY(label(s, "architecture"));
        QS_TRY(qsi_info_clean(s, arch.p, arch.n, VALUE_MAX));
        QS_TRY(qsi_str_putc(s, '\n'));
    }
    if (!x->has_config && x->values > 0 && x->kind != QSI_INFO_IMATRIX) {
        QS_TRY(label(s, "parameters"));
        QS_TRY(put_count(s, x->values));
        QS_TRY(qsi_str_putc(s, '\n'));
    }
    QS_TRY(text_types(x, s));
    QS_TRY(text_vocab(x, s));
    QS_TRY(text_tasks(x, s));
    QS_TRY(text_state(x, s));
    if (show & QSI_INFO_SHOW_KEYS) QS_TRY(text_keys(x, s));
    if (show & QSI_INFO_SHOW_TENSORS) QS_TRY(text_tensors(x, s));
    QS_TRY(text_digests(x, s));
done:
    return st;
}

/* ---- JSON ---- */

/* ,"key":"text" with the text made harmless. */
static qs_status json_text(qsi_str *s, const char *key, const char *p, size_t n) {
    qs_status st = QS_OK;
    qsi_str clean = {0};
    QS_TRY(qsi_info_clean(&clean, p, n, 4096));
    QS_TRY(qsi_str_printf(s, ",\"%s\":", key));
    QS_TRY(qsi_str_json(s, clean.data != NULL ? clean.data : "", clean.len));
done:
    qsi_str_release(&clean);
    return st;
}

static qs_status json_int(qsi_str *s, const char *key, int64_t v) {
    return qsi_str_printf(s, ",\"%s\":%" PRId64, key, v);
}

static qs_status json_config(const qsi_info *x, qsi_str *s) {
    qs_status st = QS_OK;
    static const char *const scalings[] = {"none", "linear", "yarn"};
    const qsi_config *c = &x->config;
    int64_t active = 0, total = qsi_config_params(c, &active);
    const struct { const char *key; int64_t v; } ints[] = {
        {"n_vocab", c->n_vocab}, {"n_layer", c->n_layer}, {"d_model", c->d_model},
        {"n_head", c->n_head}, {"n_kv_head", c->n_kv_head}, {"head_dim", c->head_dim},
        {"d_ff", c->d_ff}, {"n_ctx", c->n_ctx}, {"n_dense", c->n_dense}, {"n_expert", c->n_expert},
        {"n_expert_used", c->n_expert_used}, {"n_shared", c->n_shared}, {"d_expert", c->d_expert},
        {"n_group", c->n_group}, {"n_group_used", c->n_group_used}, {"q_rank", c->q_rank},
        {"kv_rank", c->kv_rank}, {"d_rope", c->d_rope}, {"d_value", c->d_value},
        {"index_topk", c->index_topk}, {"index_heads", c->index_heads}, {"index_dim", c->index_dim},
        {"n_next", c->n_next},
    };
    QS_TRY(qsi_str_printf(s, ",\"config\":{\"arch\":\"%s\"", qsi_arch_name(c->arch)));
    for (size_t i = 0; i < QSI_COUNT(ints); i++) QS_TRY(json_int(s, ints[i].key, ints[i].v));
    QS_TRY(qsi_str_printf(s, ",\"rms_eps\":%.9g,\"rope_theta\":%.9g,\"rope_factor\":%.9g",
                          (double)c->rms_eps, (double)c->rope_theta, (double)c->rope_factor));
    QS_TRY(qsi_str_printf(s, ",\"rope_scaling\":\"%s\",\"rope_freqs\":%s", scalings[c->rope_scaling],
                          c->rope_freqs ? "true" : "false"));
    if (c->rope_scaling == QSI_ROPE_YARN)
        QS_TRY(qsi_str_printf(s, ",\"rope_orig_ctx\":%d,\"yarn_log_mul\":%.9g", (int)c->rope_orig_ctx,
                              (double)c->yarn_log_mul));
    if (c->n_expert > 0)
        QS_TRY(qsi_str_printf(s, ",\"gating\":\"%s\",\"norm_topk\":%s,\"expert_scale\":%.9g",
                              c->gating == QSI_GATE_SIGMOID ? "sigmoid" : "softmax",
                              c->norm_topk ? "true" : "false", (double)c->expert_scale));
    QS_TRY(qsi_str_putc(s, '}'));
    if (x->kind != QSI_INFO_VOCAB) {
        QS_TRY(json_int(s, "params", total));
        QS_TRY(json_int(s, "active_params", active));
    }
    QS_TRY(qsi_str_printf(s, ",\"cache\":{\"type\":\"F16\",\"bytes_per_position\":%" PRId64
                          ",\"bytes_per_context\":%" PRId64 "}", qsi_info_kv_bytes(c),
                          qsi_info_kv_bytes(c) * c->n_ctx));
    if (x->kind == QSI_INFO_VOCAB) goto done;
    QS_TRY(qsi_str_puts(s, ",\"memory\":["));
    for (int i = 0; qsi_info_context(c, i) > 0; i++)
        QS_TRY(qsi_str_printf(s, "%s{\"positions\":%" PRId64 ",\"bytes\":%" PRIu64 "}",
                              i > 0 ? "," : "", qsi_info_context(c, i), tensor_bytes(x) +
                              (uint64_t)(qsi_info_kv_bytes(c) * qsi_info_context(c, i))));
    QS_TRY(qsi_str_putc(s, ']'));
done:
    return st;
}

static qs_status json_vocab(const qsi_info *x, qsi_str *s) {
    qs_status st = QS_OK;
    const qsi_vocab *v = x->vocab;
    if (v == NULL) goto done;
    QS_TRY(qsi_str_printf(s, ",\"vocab\":{\"size\":%d,\"merges\":%" PRId64 ",\"bos\":%d,\"eos\":%d",
                          (int)qsi_vocab_size(v), qsi_vocab_n_merges(v), (int)qsi_vocab_bos(v),
                          (int)qsi_vocab_eos(v)));
    QS_TRY(json_text(s, "pre", qsi_vocab_pre(v), strlen(qsi_vocab_pre(v))));
    QS_TRY(qsi_str_printf(s, ",\"chat_template\":%s}",
                          qsi_vocab_chat_template(v).n > 0 ? "true" : "false"));
done:
    return st;
}

static qs_status json_tensors(const qsi_info *x, qsi_str *s) {
    qs_status st = QS_OK;
    QS_TRY(qsi_str_puts(s, ",\"tensors\":["));
    for (size_t i = 0; i < qsi_info_n_tensors(x); i++) {
        qsi_info_tensor t;
        qsi_info_tensor_at(x, i, &t);
        QS_TRY(qsi_str_puts(s, i > 0 ? ",{\"name\":" : "{\"name\":"));
        QS_TRY(qsi_str_json(s, t.name, strlen(t.name)));
        QS_TRY(qsi_str_printf(s, ",\"type\":\"%s\",\"dims\":[", t.type_name));
        for (int d = 0; d < t.n_dims; d++) {
            QS_TRY(qsi_str_printf(s, "%s%" PRId64, d > 0 ? "," : "", t.ne[d]));
        }
        QS_TRY(qsi_str_printf(s, "],\"bytes\":%zu", t.bytes));
        if (x->g != NULL) QS_TRY(qsi_str_printf(s, ",\"offset\":%zu", t.offset));
        QS_TRY(qsi_str_putc(s, '}'));
    }
    QS_TRY(qsi_str_putc(s, ']'));
done:
    return st;
}

static qs_status json_keys(const qsi_info *x, qsi_str *s) {
    qs_status st = QS_OK;
    qsi_str value = {0};
    QS_TRY(qsi_str_puts(s, ",\"keys\":["));
    for (size_t i = 0; x->g != NULL && i < qsi_gguf_n_kv(x->g); i++) {
        const qsi_gguf_kv *kv = qsi_gguf_kv_at(x->g, i);
        QS_TRY(qsi_str_puts(s, i > 0 ? ",{\"key\":" : "{\"key\":"));
        QS_TRY(qsi_str_json(s, kv->key, strlen(kv->key)));
        QS_TRY(qsi_str_printf(s, ",\"type\":\"%s\"", qsi_gguf_vt_name(kv->type)));
        qsi_str_clear(&value);
        QS_TRY(put_value(&value, x->g, kv));
        QS_TRY(json_text(s, "value", value.data != NULL ? value.data : "", value.len));
        QS_TRY(qsi_str_putc(s, '}'));
    }
    QS_TRY(qsi_str_putc(s, ']'));
done:
    qsi_str_release(&value);
    return st;
}

static qs_status json_state(const qsi_info *x, qsi_str *s) {
    qs_status st = QS_OK;
    QS_TRY(qsi_str_puts(s, ",\"problems\":["));
    for (size_t i = 0; i < x->n_problems; i++) {
        if (i > 0) QS_TRY(qsi_str_putc(s, ','));
        QS_TRY(qsi_str_json(s, x->problems[i],
                            qsi_utf8_whole(x->problems[i], strlen(x->problems[i]))));
    }
    QS_TRY(qsi_str_putc(s, ']'));
    if (x->unsupported[0] != '\0') {
        QS_TRY(json_text(s, "unsupported", x->unsupported, strlen(x->unsupported)));
    }
    if (!x->verified) goto done;
    QS_TRY(qsi_str_printf(s, ",\"verify\":{\"checked\":%" PRId64 ",\"unchecked\":%" PRId64
                          ",\"bad\":[", x->checked, x->unchecked));
    for (size_t i = 0; i < x->n_bad && i < QSI_INFO_MAX_BAD; i++) {
        const qsi_info_bad *b = &x->bad[i];
        QS_TRY(qsi_str_puts(s, i > 0 ? ",{\"tensor\":" : "{\"tensor\":"));
        QS_TRY(qsi_str_json(s, b->name, strlen(b->name)));
        QS_TRY(qsi_str_puts(s, ",\"element\":"));
        QS_TRY(put_element(s, x, b));
        QS_TRY(qsi_str_printf(s, ",\"value\":\"%s\",\"count\":%" PRId64 "}", bad_word(b->value),
                              b->count));
    }
    QS_TRY(qsi_str_puts(s, "],\"digest\":\"xxh3-64\",\"digests\":{"));
    for (size_t i = 0; i < qsi_info_n_tensors(x); i++) {
        qsi_info_tensor t;
        qsi_info_tensor_at(x, i, &t);
        if (i > 0) QS_TRY(qsi_str_putc(s, ','));
        QS_TRY(qsi_str_json(s, t.name, strlen(t.name)));
        QS_TRY(qsi_str_printf(s, ":\"%016" PRIx64 "\"", x->digests[i]));
    }
    QS_TRY(qsi_str_puts(s, "}}"));
done:
    return st;
}

qs_status qsi_info_json(const qsi_info *x, unsigned show, qsi_str *s) {
    qs_status st = QS_OK;
    QS_TRY(qsi_str_printf(s, "{\"ok\":%s", x->n_problems == 0 && x->n_bad == 0 ? "true" : "false"));
    QS_TRY(json_text(s, "file", x->path, strlen(x->path)));
    QS_TRY(json_text(s, "kind", qsi_info_kind_name(x->kind), strlen(qsi_info_kind_name(x->kind))));
    QS_TRY(json_int(s, "bytes", (int64_t)x->bytes));
    if (x->g != NULL) {
        qsi_slice name = qsi_info_string(x, "general.name");
        qsi_slice arch = qsi_info_string(x, "general.architecture");
        QS_TRY(json_int(s, "version", qsi_gguf_version(x->g)));
        QS_TRY(json_text(s, "architecture", arch.p, arch.n));
        QS_TRY(json_text(s, "name", name.p, name.n));
    }
    QS_TRY(json_int(s, "values", x->values));
    if (x->kind == QSI_INFO_IMATRIX)
        QS_TRY(qsi_str_printf(s, ",\"importance\":{\"tensors\":%zu,\"matrices\":%zu,\"unseen\":%zu}",
                              x->imatrix.tensors, x->imatrix.matrices, x->imatrix.unseen));
    if (x->has_config) QS_TRY(json_config(x, s));
    QS_TRY(qsi_str_puts(s, ",\"types\":["));
    for (size_t i = 0; i < x->n_types; i++) {
        const qsi_info_type *t = &x->types[i];
        QS_TRY(qsi_str_printf(s, "%s{\"type\":\"%s\",\"tensors\":%" PRId64 ",\"values\":%" PRId64
                              ",\"bytes\":%" PRIu64 ",\"not_of_256\":%" PRId64 "}",
                              i > 0 ? "," : "", t->name, t->tensors, t->values, t->bytes,
                              t->short_blocks));
    }
    QS_TRY(qsi_str_putc(s, ']'));
    QS_TRY(json_vocab(x, s));
    QS_TRY(json_state(x, s));
    if (show & QSI_INFO_SHOW_KEYS) QS_TRY(json_keys(x, s));
    if (show & QSI_INFO_SHOW_TENSORS) QS_TRY(json_tensors(x, s));
    QS_TRY(qsi_str_puts(s, "}\n"));
done:
    return st;
}
