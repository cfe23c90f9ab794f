/* The small random model: see tiny_model.h. */
#include "tiny_model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "tok/tok.h"

static const char corpus[] =
    "User: Hello there, who are you?\n\nAssistant: I am a small model, and I answer in verse.\n"
    "User: 写一首五绝，题为《静夜思》\n\nAssistant: 床前明月光，疑是地上霜。\n举头望明月，低头思故乡。\n"
    "User: translate: good morning\n\nAssistant: 早上好。 User: 你好\n\nAssistant: 你好！\n"
    "the quick brown fox jumps over the lazy dog; the dog sleeps, the fox runs, the moon is bright.\n"
    "白日依山尽，黄河入海流。欲穷千里目，更上一层楼。春眠不觉晓，处处闻啼鸟。\n";

static qs_status make_vocab(qsi_vocab **v, qs_err *err) {
    qs_status st = QS_OK;
    qsi_bpe_trainer *t = NULL;
    QS_TRY(qsi_bpe_trainer_create(&t, "deepseek-llm", err));
    for (int i = 0; i < 4; i++) QS_TRY(qsi_bpe_trainer_add(t, corpus, sizeof corpus - 1, err));
    QS_TRY(qsi_bpe_trainer_finish(t, 384, NULL, NULL, v, err));
done:
    qsi_bpe_trainer_free(t);
    return st;
}

static qsi_config make_config(const tiny_model_opts *o, int32_t n_vocab) {
    qsi_config c = { .arch = o->arch, .n_vocab = n_vocab, .n_layer = 3, .d_model = 64, .n_head = 4,
                     .n_kv_head = 2, .head_dim = 16, .d_ff = 96, .rms_eps = 1e-6f,
                     .rope_theta = 1e4f, .rope_factor = 1, .expert_scale = 1,
                     .n_ctx = o->n_ctx > 0 ? o->n_ctx : 256 };
    if (qsi_config_is_latent(&c)) {
        c.n_kv_head = 4;
        c.head_dim = 48;
        c.d_rope = 16;
        c.d_value = 32;
        c.kv_rank = 32;
    }
    c.n_next = o->mtp;
    if (o->arch == QSI_ARCH_DEEPSEEK32) {
        c.q_rank = 32;
        c.index_topk = 40;
        c.index_heads = 2;
        c.index_dim = 32;
    }
    if (o->arch != QSI_ARCH_LLAMA) {
        c.n_dense = 1;
        c.n_expert = 8;
        c.n_expert_used = 2;
        c.n_shared = 1;
        c.d_expert = 32;
    }
    return c;
}

static qsi_type type_of(const tiny_model_opts *o, const qsi_tensor_spec *t) {
    return t->role == QSI_ROLE_NORM || t->role == QSI_ROLE_ROUTER ? QSI_F32 : o->type;
}

static qs_status write_tensor(qsi_gguf_writer *w, const tiny_model_opts *o,
                              const qsi_tensor_spec *t, size_t index, qs_err *err) {
    qs_status st = QS_OK;
    int64_t n = 1;
    size_t bytes = 0;
    const qsi_type_info *ti = qsi_type_get(type_of(o, t));
    for (int i = 0; i < t->n_dims; i++) n *= t->ne[i];
    float *x = malloc((size_t)n * sizeof *x);
    qsi_rng rng;
    qsi_rng_init_stream(&rng, o->seed, index);
    float std = t->role == QSI_ROLE_EMBED ? 1.0f : 1.6f / sqrtf((float)t->ne[0]);
    for (int64_t i = 0; i < n; i++)
        x[i] = t->role == QSI_ROLE_NORM ? 1.0f : std * (float)qsi_rng_normal(&rng);
    bool adds = strstr(t->name, ".attn_output.") || strstr(t->name, ".ffn_down");
    for (int64_t i = 0; o->mtp && adds && i < n; i++) x[i] *= 0.05f;
    if (strstr(t->name, ".nextn.eh_proj.")) /* the embedding as it is */
        for (int64_t i = 0; i < n; i++) x[i] = i % t->ne[0] == i / t->ne[0] ? 1.0f : 0.0f;
    if (o->nan && strcmp(t->name, "blk.1.attn_output.weight") == 0) x[5] = NAN;
    QS_CHECK(qsi_row_bytes(ti, n, &bytes));
    void *enc = malloc(bytes);
    ti->encode(x, enc, n);
    QS_TRY(qsi_gguf_write(w, enc, bytes, err));
done:
    free(enc);
    free(x);
    return st;
}

static qs_status write_extras(qsi_gguf_writer *w) {
    static const char *const words[] = { "poem", "couplet", "translate" };
    qs_status st = QS_OK;
    qsi_slice tasks[3];
    for (int i = 0; i < 3; i++) tasks[i] = (qsi_slice){ words[i], strlen(words[i]) };
    QS_TRY(qsi_gguf_put_arr_str(w, "qiusuo.tasks", tasks, 3));
    QS_TRY(qsi_gguf_put_f32(w, "general.sampling.temp", 0.5f));
    QS_TRY(qsi_gguf_put_i32(w, "general.sampling.top_k", 20));
    QS_TRY(qsi_gguf_put_f32(w, "general.sampling.top_p", 0.75f));
    QS_TRY(qsi_gguf_put_f32(w, "general.sampling.penalty_repeat", 1.125f));
done:
    return st;
}

/* Gives the key of the chat template another name of the same length. */
static void hide_template(const char *path) {
    static const char key[] = "tokenizer.chat_template";
    FILE *f = fopen(path, "r+b");
    QS_CHECK(f != NULL);
    size_t at = 0;
    for (long pos = 0; at < sizeof key - 1; pos++) {
        int c = fgetc(f);
        QS_CHECK(c != EOF);
        at = c == key[at] ? at + 1 : c == key[0];
        if (at == sizeof key - 1) fseek(f, pos, SEEK_SET);
    }
    fputc('X', f);
    fclose(f);
}

qs_status tiny_model_write(const char *path, const tiny_model_opts *o, qs_err *err) {
    qs_status st = QS_OK;
    qsi_vocab *v = NULL;
    qsi_gguf_writer *w = NULL;
    QS_TRY(make_vocab(&v, err));
    qsi_config c = make_config(o, qsi_vocab_size(v));
    QS_TRY(qsi_config_check(&c, err));
    QS_TRY(qsi_gguf_writer_open(&w, path, err));
    QS_TRY(qsi_config_put_gguf(&c, w));
    QS_TRY(qsi_gguf_put_str(w, "general.name", "tiny", 4));
    if (o->tasks) QS_TRY(write_extras(w));
    QS_TRY(qsi_vocab_save_gguf(v, w, err));
    size_t n = o->vocab_only ? 0 : qsi_config_n_tensors(&c);
    qsi_tensor_spec t;
    for (size_t i = 0; i < n; i++) {
        qsi_config_tensor(&c, i, &t);
        QS_TRY(qsi_gguf_declare(w, t.name, type_of(o, &t), t.n_dims, t.ne, err));
    }
    for (size_t i = 0; i < n; i++) {
        qsi_config_tensor(&c, i, &t);
        QS_TRY(write_tensor(w, o, &t, i, err));
    }
    QS_TRY(qsi_gguf_finish(&w, err));
    if (o->no_template) hide_template(path);
done:
    qsi_gguf_writer_abort(&w);
    qsi_vocab_free(v);
    return st;
}
