/* From a configuration to a run that can begin; see prepare.h. */
#include "train/prepare.h"

#include <math.h>
#include <string.h>

#include "base/hash.h"
#include "base/log.h"
#include "model/rope_scaling.h"
#include "sys/file.h"

#define MAX_JSON ((size_t)256 << 20)
#define VOCAB_KEY "qiusuo.train.text_key"

typedef struct maker {
    qsi_prepared *p;
    qsi_trainconf *c;
    const char *dir;
    qsi_pool *pool;
    qsi_source_opts src;
    qsi_data_progress *progress;
    void *user;
} maker;

static uint64_t mix_text(uint64_t h, const char *s) { return qsi_hash_seed(s, strlen(s), h); }

/* ---- vocabulary ---- */

static qs_status vocab_from_file(maker *m, const char *path, qs_err *err) {
    qs_status st = QS_OK;
    qsi_gguf *g = NULL;
    qsi_str json = {0};
    size_t n = strlen(path);
    if (n > 5 && strcmp(path + n - 5, ".json") == 0) {
        QS_TRY(qsi_file_read(path, MAX_JSON, &json, err));
        QS_TRY(qsi_vocab_load_json(&m->p->vocab, json.data, json.len, NULL, 0, err));
    } else {
        QS_TRY(qsi_gguf_open(&g, path, err));
        QS_TRY(qsi_vocab_load_gguf(&m->p->vocab, g, err));
    }
done:
    if (st != QS_OK) qsi_err_prefix(err, "vocabulary '%s'", path);
    qsi_gguf_close(&g);
    qsi_str_release(&json);
    return st;
}

/* The vocabulary kept in DIR, when it was learned from this text with these settings. */
static bool vocab_kept(maker *m, const char *path, uint64_t key) {
    qsi_gguf *g = NULL;
    int64_t k = 0;
    bool ok = qsi_path_exists(path) && qsi_gguf_open(&g, path, NULL) == QS_OK &&
              qsi_gguf_i64(g, VOCAB_KEY, &k, NULL) == QS_OK && (uint64_t)k == key &&
              qsi_vocab_load_gguf(&m->p->vocab, g, NULL) == QS_OK;
    qsi_gguf_close(&g);
    return ok;
}

static qs_status vocab_keep(maker *m, const char *path, uint64_t key, qs_err *err) {
    qs_status st = QS_OK;
    qsi_gguf_writer *w = NULL;
    QS_TRY(qsi_gguf_writer_open(&w, path, err));
    QS_TRY(qsi_gguf_put_str(w, "general.architecture", m->c->arch, strlen(m->c->arch)));
    QS_TRY(qsi_gguf_put_u64(w, VOCAB_KEY, key));
    QS_TRY(qsi_vocab_save_gguf(m->p->vocab, w, err));
    QS_TRY(qsi_gguf_finish(&w, err));
done:
    qsi_gguf_writer_abort(&w);
    return st;
}

static qs_status make_vocab(maker *m, qs_err *err) {
    qs_status st = QS_OK;
    qsi_str path = {0};
    const qsi_trainconf *c = m->c;
    if (c->vocab != NULL) return vocab_from_file(m, c->vocab, err);
    if (m->p->init != NULL) return qsi_vocab_load_gguf(&m->p->vocab, m->p->init, err);
    uint64_t h = mix_text(mix_text(m->p->files.hash, c->pre), c->split);
    const int64_t n[3] = {c->vocab_size, c->sample_bytes, m->src.doc_bytes};
    uint64_t key = qsi_hash_seed(n, sizeof(n), h) >> 1; /* fits a signed reader */
    QS_TRY(qsi_path_join(&path, m->dir, "vocab.gguf"));
    if (vocab_kept(m, path.data, key)) goto done;
    QS_TRY(qsi_dataset_learn_vocab(&m->p->files, &m->src, c->pre, c->vocab_size, c->sample_bytes,
                                   m->progress, m->user, &m->p->vocab, err));
    QS_TRY(vocab_keep(m, path.data, key, err));
    /* what was learned and what is read back must be the same thing in every run */
    qsi_vocab_free(m->p->vocab);
    m->p->vocab = NULL;
    QS_TRY(vocab_from_file(m, path.data, err));
done:
    qsi_str_release(&path);
    return st;
}

static qs_status find_template(maker *m, qs_err *err) {
    qsi_prepared *p = m->p;
    const char *want = m->c->chat_template;
    if (strcmp(want, "none") == 0) return QS_OK;
    if (strcmp(want, "auto") == 0) {
        bool guessed = false;
        if (qsi_chat_find(&p->tmpl, p->vocab, m->c->arch, &guessed, NULL) != QS_OK) p->tmpl = NULL;
        p->add_template = p->tmpl != NULL && guessed;
        return QS_OK;
    }
    bool guessed = false;
    const qsi_chat_template *own = NULL;
    qs_status st = qsi_chat_by_name(&p->tmpl, want, err);
    if (st != QS_OK) return st;
    p->add_template = qsi_chat_find(&own, p->vocab, m->c->arch, &guessed, NULL) != QS_OK || guessed;
    return QS_OK;
}

/* ---- shards ---- */

static qs_status make_shard(maker *m, const char *name, const qsi_source_files *f, qsi_shard *s,
                            qs_err *err) {
    qs_status st = QS_OK;
    qsi_str path = {0};
    qs_err why = {0};
    const int64_t n[1] = {m->src.doc_bytes};
    uint64_t key = qsi_hash_seed(n, sizeof(n), mix_text(f->hash, m->c->split));
    key = mix_text(key, m->p->tmpl != NULL ? qsi_chat_name(m->p->tmpl) : "");
    key = mix_text(key, m->p->tmpl != NULL ? qsi_chat_jinja(m->p->tmpl) : "");
    QS_TRY(qsi_path_join(&path, m->dir, name));
    if (qsi_path_exists(path.data)) {
        st = qsi_shard_open(s, path.data, &why);
        if (st == QS_OK && s->key == key && s->vocab_hash == qsi_vocab_hash(m->p->vocab) &&
            s->n_vocab == qsi_vocab_size(m->p->vocab))
            goto done;
        if (st == QS_OK) qsi_shard_close(s);
        else qsi_log(QSI_LOG_WARN, "%s; encoding the text again", why.text);
    }
    QS_TRY(qsi_dataset_write_shard(path.data, f, &m->src, m->p->vocab, m->p->tmpl, m->pool, key,
                                   m->progress, m->user, err));
    QS_TRY(qsi_shard_open(s, path.data, err));
done:
    qsi_str_release(&path);
    return st;
}

/* Only conversations have ids that are not to be learned: a person's turns. */
static bool is_chat(const qsi_shard *s, int64_t doc) {
    for (int64_t t = (int64_t)s->begin[doc]; t < (int64_t)s->begin[doc + 1]; t++)
        if (!qsi_shard_learned(s, t)) return true;
    return false;
}

/* A conversation is one thing, unlike a text: what stands behind the first window is learned without
 * the question that it answers. */
static void tell_long_chats(const maker *m) {
    const qsi_shard *s = &m->p->shard;
    int64_t n_ctx = m->p->config.n_ctx, many = 0, longest = 0, most = 0, place = 0;
    for (int64_t d = 0; d < s->n_docs && s->mask != NULL; d++) {
        int64_t n = (int64_t)(s->begin[d + 1] - s->begin[d]);
        if (n - 1 <= n_ctx || !is_chat(s, d)) continue;
        many++;
        if (n <= most) continue;
        most = n;
        longest = d;
    }
    if (many == 0) return;
    for (int64_t d = 0; d <= longest; d++) place += s->source[d] == s->source[longest];
    qsi_log(QSI_LOG_WARN, "%lld conversation%s longer than the context of %lld tokens and cut into "
            "pieces of that length; the longest, number %lld of '%s', has %lld tokens (model.context)",
            (long long)many, many == 1 ? " is" : "s are", (long long)n_ctx, (long long)place,
            m->c->train.v[s->source[longest]], (long long)most);
}

static qs_status make_windows(maker *m, qs_err *err) {
    qs_status st = QS_OK;
    qsi_prepared *p = m->p;
    int32_t n_ctx = p->config.n_ctx;
    if (p->valid_files.n > 0) {
        QS_TRY(qsi_windows_init(&p->train, &p->shard, n_ctx, QSI_PART_ALL, 0, err));
        QS_TRY(qsi_windows_init(&p->valid, &p->valid_shard, n_ctx, QSI_PART_ALL, 0, err));
    } else {
        double share = m->c->valid_share;
        QS_TRY(qsi_windows_init(&p->train, &p->shard, n_ctx, QSI_PART_TRAIN, share, err));
        QS_TRY(qsi_windows_init(&p->valid, &p->shard, n_ctx, QSI_PART_VALID, share, err));
    }
    if (p->train.n == 0)
        QS_FAIL(err, QS_E_ARG, "the text holds nothing to train on: %lld documents, no token to "
                "learn", (long long)p->shard.n_docs);
    tell_long_chats(m);
done:
    return st;
}

/* ---- configuration ---- */

/* One [model] key against the model that the run starts from: given and different is an error,
 * else it takes the model's value. */
static qs_status take_init(qsi_trainconf *c, const char *key, int64_t *field, int64_t value,
                           qs_err *err) {
    if (qsi_trainconf_given(c, key) && *field != value)
        return qsi_err_set(err, QS_E_ARG, "%s = %lld, but '%s' has %lld: leave the key out", key,
                           (long long)*field, c->init, (long long)value);
    *field = value;
    return QS_OK;
}

static qs_status config_from_init(maker *m, qs_err *err) {
    qs_status st = QS_OK;
    qsi_config *k = &m->p->config;
    qsi_trainconf *c = m->c;
    QS_TRY(qsi_gguf_open(&m->p->init, c->init, err));
    if (qsi_gguf_n_tensors(m->p->init) == 0)
        QS_FAIL(err, QS_E_UNSUPPORTED, "'%s' is a vocabulary without weights: name it with "
                "tokenizer.vocab, or start from a model", c->init);
    QS_TRY(qsi_config_from_gguf(k, m->p->init, err));
    const struct {
        const char *key;
        int64_t *field, value;
    } t[] = {{"model.layers", &c->n_layer, k->n_layer},
             {"model.d_model", &c->d_model, k->d_model},
             {"model.heads", &c->n_head, k->n_head},
             {"model.kv_heads", &c->n_kv_head, k->n_kv_head},
             {"model.head_dim", &c->head_dim, k->head_dim},
             {"model.d_ff", &c->d_ff, k->d_ff},
             {"model.dense_layers", &c->n_dense, k->n_dense},
             {"model.experts", &c->n_expert, k->n_expert},
             {"model.experts_used", &c->n_expert_used, k->n_expert_used},
             {"model.shared_experts", &c->n_shared, k->n_shared},
             {"model.expert_ff", &c->d_expert, k->d_expert}};
    for (size_t i = 0; i < QSI_COUNT(t); i++)
        QS_TRY(take_init(c, t[i].key, t[i].field, t[i].value, err));
    c->arch = k->arch == QSI_ARCH_DEEPSEEK ? "deepseek" : "llama";
    c->norm_topk = k->norm_topk;
    c->expert_scale = k->expert_scale;
    c->rms_eps = k->rms_eps;
    c->rope_theta = k->rope_theta;
    if (!qsi_trainconf_given(c, "model.context")) c->n_ctx = k->n_ctx;
    if (c->vocab_size == QSI_AUTO) c->vocab_size = k->n_vocab;
done:
    return st;
}

/* A longer context than that of the model the run starts from needs other rotations. */
static qs_status stretch(qsi_config *k, const qsi_trainconf *c, qs_err *err) {
    qs_status st = QS_OK;
    int32_t trained = k->n_ctx;
    qsi_stretch kind;
    QS_TRY(qsi_stretch_parse(&kind, c->rope_scaling, err));
    st = qsi_config_stretch(k, kind, 0, c->n_ctx, err);
    if (st != QS_OK) {
        qsi_err_prefix(err, "model.rope_scaling");
        goto done;
    }
    if (kind == QSI_STRETCH_AUTO && c->n_ctx > trained)
        qsi_log(QSI_LOG_NOTE, "'%s' knows contexts of %d tokens; for %lld, %s scales positions by %g "
                "(model.rope_scaling = none leaves them alone)", c->init, (int)trained,
                (long long)c->n_ctx, k->rope_scaling == QSI_ROPE_YARN ? "YaRN" : "linear scaling",
                (double)k->rope_factor);
    k->n_ctx = (int32_t)c->n_ctx;
done:
    return st;
}

static qs_status make_config(maker *m, qs_err *err) {
    qs_status st = QS_OK;
    qsi_config *k = &m->p->config;
    const qsi_trainconf *c = m->c;
    int32_t n_vocab = qsi_vocab_size(m->p->vocab);
    if (m->p->init != NULL) {
        if (k->n_vocab != n_vocab)
            QS_FAIL(err, QS_E_ARG, "the vocabulary has %d tokens, '%s' %d", n_vocab, c->init,
                    k->n_vocab);
        QS_TRY(stretch(k, c, err));
        goto done;
    }
    if (qsi_trainconf_given(c, "model.rope_scaling") && strcmp(c->rope_scaling, "auto") != 0)
        QS_FAIL(err, QS_E_ARG, "model.rope_scaling = %s is for a run that starts from a model (init) "
                "with a shorter context", c->rope_scaling);
    *k = (qsi_config){
        .arch = strcmp(c->arch, "llama") == 0 ? QSI_ARCH_LLAMA : QSI_ARCH_DEEPSEEK,
        .n_vocab = n_vocab, .n_layer = (int32_t)c->n_layer, .d_model = (int32_t)c->d_model,
        .n_head = (int32_t)c->n_head, .n_kv_head = (int32_t)c->n_kv_head,
        .head_dim = (int32_t)c->head_dim, .d_ff = (int32_t)c->d_ff, .n_ctx = (int32_t)c->n_ctx,
        .rms_eps = (float)c->rms_eps, .rope_theta = (float)c->rope_theta, .rope_factor = 1,
        .n_dense = (int32_t)c->n_dense, .n_expert = (int32_t)c->n_expert,
        .n_expert_used = (int32_t)c->n_expert_used, .n_shared = (int32_t)c->n_shared,
        .d_expert = (int32_t)c->d_expert, .norm_topk = c->norm_topk,
        .expert_scale = (float)c->expert_scale};
    st = qsi_config_check(k, err);
    if (st != QS_OK) qsi_err_prefix(err, "[model]");
done:
    return st;
}

static qs_status read_weights(maker *m, qs_err *err) {
    qs_status st = QS_OK;
    const qsi_strlist *l = &m->c->weights;
    if (l->n > m->c->train.n)
        QS_FAIL(err, QS_E_ARG, "data.weights has %zu values for %zu sources", l->n, m->c->train.n);
    if (l->n == 0) goto done;
    m->p->weights = qsi_calloc(l->n, sizeof(double));
    if (m->p->weights == NULL) QS_FAIL(err, QS_E_NOMEM, "out of memory for weights");
    m->p->n_weights = l->n;
    for (size_t i = 0; i < l->n; i++)
        if (!qsi_parse_number(l->v[i], &m->p->weights[i]) ||
            !(m->p->weights[i] >= 0 && m->p->weights[i] <= 1000))
            QS_FAIL(err, QS_E_RANGE, "data.weights: '%.40s' is no number from 0 to 1000", l->v[i]);
done:
    return st;
}

qs_status qsi_prepare(qsi_prepared *p, qsi_trainconf *conf, const char *dir, qsi_pool *pool,
                      qsi_data_progress *progress, void *user, qs_err *err) {
    qs_status st = QS_OK;
    maker m = {.p = p, .c = conf, .dir = dir, .pool = pool, .progress = progress, .user = user};
    *p = (qsi_prepared){.shard.map.fd = -1, .valid_shard.map.fd = -1};
    if (conf->train.n == 0)
        QS_FAIL(err, QS_E_ARG, "no text to train on: name files or folders, or set train in [data]");
    QS_TRY(read_weights(&m, err));
    QS_TRY(qsi_source_scan(&p->files, &conf->train, err));
    QS_TRY(qsi_source_scan(&p->valid_files, &conf->valid, err));
    if (conf->init != NULL) QS_TRY(config_from_init(&m, err));
    QS_TRY(qsi_trainconf_apply_preset(conf, p->files.bytes, err));
    m.src = (qsi_source_opts){.doc_bytes = conf->doc_bytes,
                              .split_blank = strcmp(conf->split, "blank") == 0};
    QS_TRY(qsi_make_dirs(dir, err));
    QS_TRY(make_vocab(&m, err));
    QS_TRY(find_template(&m, err));
    QS_TRY(make_config(&m, err));
    QS_TRY(make_shard(&m, "train.shard", &p->files, &p->shard, err));
    p->data_key = p->shard.key;
    if (p->valid_files.n > 0)
        QS_TRY(make_shard(&m, "valid.shard", &p->valid_files, &p->valid_shard, err));
    QS_TRY(make_windows(&m, err));
done:
    if (st != QS_OK) qsi_prepared_release(p);
    return st;
}

void qsi_prepared_release(qsi_prepared *p) {
    qsi_windows_release(&p->train);
    qsi_windows_release(&p->valid);
    qsi_shard_close(&p->shard);
    qsi_shard_close(&p->valid_shard);
    qsi_source_files_release(&p->files);
    qsi_source_files_release(&p->valid_files);
    qsi_vocab_free(p->vocab);
    qsi_gguf_close(&p->init);
    qsi_free(p->weights);
    *p = (qsi_prepared){.shard.map.fd = -1, .valid_shard.map.fd = -1};
}
