/* Hugging Face folders run as they should: logits against a float64 computation of what the Hugging
 * Face classes do (tools/golden_hf.py); folders that contradict themselves are refused. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../sys/tmpdir.h"
#include "base/mem.h"
#include "files/convert.h"
#include "files/hf_export.h"
#include "files/init.h"
#include "files/open_model.h"
#include "files/presets.h"
#include "model/model.h"
#include "sys/file.h"
#include "tok/chat.h"
#include "tok/tok.h"

#define FOLDER "test_open_model.tmp"
enum { N_VOCAB = 512 };
static const char *golden_dir;

static void golden_path(char *out, size_t cap, const char *model, const char *file) {
    snprintf(out, cap, "%s/%s%s%s", golden_dir, model, file ? "/" : "", file ? file : "");
}

/* Worst difference between n logits and those of a file from offset `from` on. */
static float worst_of(const float *logits, const qsi_str *file, size_t from, int32_t n) {
    float worst = 0;
    assert_int_equal(file->len, from + 4 * (size_t)n);
    for (int32_t i = 0; i < n; i++) {
        float want = 0;
        memcpy(&want, file->data + from + 4 * (size_t)i, 4);
        float off = fabsf(want - logits[i]);
        if (!(off <= worst)) worst = off;
    }
    return worst;
}

/* Worst difference between the model's logits and the golden ones, and those of its layer that predicts
 * further (NULL: not looked at). */
static float worst_difference(const qsi_gguf *g, const char *golden, const char *mtp) {
    qs_err err = {0};
    qsi_str file = {0}, more = {0};
    qsi_pool *pool = NULL;
    qsi_model *m = NULL;
    qsi_kv *kv = NULL;
    qsi_kv_table table = {0};
    qsi_row rows[16];
    int32_t n = 0;
    assert_int_equal(qsi_file_read(golden, 1 << 20, &file, &err), QS_OK);
    memcpy(&n, file.data, 4);
    assert_true(n == 8 && file.len == (size_t)(4 + 4 * n + 4 * n * N_VOCAB));
    assert_int_equal(qsi_pool_create(&pool, 1, &err), QS_OK);
    qsi_model_opts o = {.pool = pool, .isa = QSI_ISA_REF, .max_rows = 16, .mtp = mtp != NULL};
    if (qsi_model_open(&m, g, &o, &err) != QS_OK) fail_msg("%s", err.text);
    int64_t d = qsi_model_config(m)->d_model;
    float *hidden = qsi_alloc((size_t)(n * d), sizeof *hidden);
    assert_int_equal(qsi_model_config(m)->n_vocab, N_VOCAB);
    assert_int_equal(qsi_kv_create(&kv, qsi_model_config(m), QSI_F32, 4, &err), QS_OK);
    assert_int_equal(qsi_kv_reserve(kv, &table, n, &err), QS_OK);
    float *logits = qsi_alloc((size_t)n * N_VOCAB, sizeof *logits);
    assert_non_null(logits);
    for (int32_t i = 0; i < n; i++) {
        int32_t id = 0;
        memcpy(&id, file.data + 4 + 4 * i, 4);
        rows[i] = (qsi_row){.id = id, .pos = i, .logits = true};
    }
    qsi_step step = {.rows = rows, .n_rows = n, .kv = kv, .tables = &table, .n_tables = 1,
                     .logits = logits, .hidden = hidden};
    if (qsi_model_step(m, &step, &err) != QS_OK) fail_msg("%s", err.text);
    float worst = worst_of(logits, &file, 4 + 4 * (size_t)n, n * N_VOCAB);
    if (mtp) {
        assert_true(qsi_model_has_mtp(m));
        assert_int_equal(qsi_file_read(mtp, 1 << 20, &more, &err), QS_OK);
        for (int32_t i = 0; i < n - 1; i++) rows[i].id = rows[i + 1].id;
        step.n_rows = n - 1;
        if (qsi_model_mtp_step(m, &step, &err) != QS_OK) fail_msg("%s", err.text);
        worst = fmaxf(worst, worst_of(logits, &more, 0, (n - 1) * N_VOCAB));
    }
    qsi_free(hidden);
    qsi_str_release(&more);
    qsi_free(logits);
    qsi_kv_table_release(kv, &table);
    qsi_kv_free(kv);
    qsi_model_close(&m);
    qsi_pool_free(pool);
    qsi_str_release(&file);
    return worst;
}

/* Logits have deviation 1.7; float32 sums over 48 terms through two layers lose about 1e-6 of that.
 */
static void folders_answer_as_their_classes(void **state) {
    static const char *const models[] = {"dense", "moe", "moe_torch"};
    for (size_t i = 0; i < QSI_COUNT(models); i++) {
        char folder[512], logits[512], **names = NULL;
        size_t n = 0;
        qs_err err = {0};
        qsi_gguf *g = NULL;
        golden_path(folder, sizeof folder, models[i], NULL);
        golden_path(logits, sizeof logits, models[i], "logits.f32");
        if (qsi_files_open_model(folder, &g, &err) != QS_OK) fail_msg("%s", err.text);
        assert_string_equal(qsi_gguf_path(g), folder);
        float worst = worst_difference(g, logits, NULL);
        if (!(worst < 5e-5f)) fail_msg("%s: %g", models[i], (double)worst);
        qsi_vocab *v = NULL;
        assert_int_equal(qsi_vocab_load_gguf(&v, g, &err), QS_OK);
        assert_int_equal(qsi_vocab_size(v), N_VOCAB);
        assert_int_equal(qsi_vocab_bos(v), 484);
        qsi_vocab_free(v);
        assert_int_equal(qsi_dir_list(folder, &names, &n, &err), QS_OK);
        assert_int_equal(n, i == 0 ? 4 : 6); /* nothing was left behind */
        for (size_t k = 0; k < n; k++) qsi_free(names[k]);
        qsi_free(names);
        qsi_gguf_close(&g);
    }
}

/* Latent attention, and weights in FP8. They are BF16 then, whose products round activations to
 * bfloat16 as well: written as F32 the same weights must answer as exactly as above. */
static void v2_and_v3_answer_as_their_equations(void **state) {
    static const char *const models[] = {"v2_lite", "v3_fp8", "v32"};
    for (size_t i = 0; i < QSI_COUNT(models); i++) {
        char folder[512], logits[512], mtp[512];
        qs_err err = {0};
        qsi_gguf *g = NULL;
        qsi_convert_opts o = {.threads = 1};
        golden_path(mtp, sizeof mtp, models[i], "mtp.f32");
        golden_path(folder, sizeof folder, models[i], NULL);
        golden_path(logits, sizeof logits, models[i], "logits.f32");
        assert_int_equal(qsi_files_open_model(folder, &g, &err), QS_OK);
        assert_int_equal(qsi_gguf_tensor_find(g, "blk.0.attn_kv_b.weight")->type, QSI_BF16);
        bool next = strcmp(models[i], "v3_fp8") == 0;
        assert_int_equal(qsi_gguf_tensor_find(g, "blk.2.attn_norm.weight") != NULL, next);
        assert_null(qsi_gguf_tensor_find(g, "blk.2.nextn.embed_tokens.weight"));
        qsi_gguf_close(&g);
        assert_int_equal(qsi_mix_find(&o.mix, "F32", &err), QS_OK);
        if (qsi_convert(folder, "test_open_model.tmp.gguf", &o, &err) != QS_OK)
            fail_msg("%s", err.text);
        assert_int_equal(qsi_gguf_open(&g, "test_open_model.tmp.gguf", &err), QS_OK);
        float worst = worst_difference(g, logits, next ? mtp : NULL);
        if (!(worst < 5e-5f)) fail_msg("%s: %g", models[i], (double)worst);
        qsi_gguf_close(&g);
        remove("test_open_model.tmp.gguf");
    }
}

/* The architectures of R1's distilled models (tools/golden_distill.py). */
static void distilled_models_answer_as_their_classes(void **state) {
    static const struct {
        const char *model, *pre, *tensor;
    } cases[] = {{"r1_qwen2", "deepseek-r1-qwen", "blk.1.attn_k.bias"},
                 {"r1_qwen3", "deepseek-r1-qwen", "blk.1.attn_k_norm.weight"},
                 {"r1_llama", "llama-bpe", "rope_freqs.weight"}};
    for (size_t i = 0; i < QSI_COUNT(cases); i++) {
        char folder[512], logits[512];
        qs_err err = {0};
        qsi_gguf *g = NULL;
        qsi_vocab *v = NULL;
        golden_path(folder, sizeof folder, cases[i].model, NULL);
        golden_path(logits, sizeof logits, cases[i].model, "logits.f32");
        if (qsi_files_open_model(folder, &g, &err) != QS_OK) fail_msg("%s", err.text);
        const qsi_gguf_tensor *t = qsi_gguf_tensor_find(g, cases[i].tensor);
        assert_non_null(t);
        assert_int_equal(t->type, QSI_F32);
        float worst = worst_difference(g, logits, NULL);
        if (!(worst < 5e-5f)) fail_msg("%s: %g", cases[i].model, (double)worst);
        assert_int_equal(qsi_vocab_load_gguf(&v, g, &err), QS_OK);
        assert_string_equal(qsi_vocab_pre(v), cases[i].pre);
        qsi_vocab_free(v);
        qsi_gguf_close(&g);
    }
}

static void tensors_take_their_places(void **state) {
    char folder[512];
    qs_err err = {0};
    qsi_gguf *g = NULL;
    golden_path(folder, sizeof folder, "moe", NULL);
    assert_int_equal(qsi_files_open_model(folder, &g, &err), QS_OK);
    const qsi_gguf_tensor *exps = qsi_gguf_tensor_find(g, "blk.1.ffn_down_exps.weight");
    assert_true(exps->n_dims == 3 && exps->ne[0] == 12 && exps->ne[1] == 32 && exps->ne[2] == 5);
    assert_int_equal(qsi_gguf_tensor_find(g, "blk.0.attn_norm.weight")->type, QSI_F32);
    assert_int_equal(qsi_gguf_tensor_find(g, "token_embd.weight")->type, QSI_F16);
    assert_int_equal(qsi_gguf_n_tensors(g), 25);
    qsi_gguf_close(&g);
}

/* ---- folders made wrong ---- */

static const char *changed_model = "dense"; /* what put_changed copies from */

static void read_golden(const char *name, qsi_str *out) {
    char path[512];
    qs_err err = {0};
    golden_path(path, sizeof path, changed_model, name);
    if (qsi_file_read(path, 1 << 20, out, &err) != QS_OK) fail_msg("%s", err.text);
}

static void put_file(const char *name, const char *p, size_t n) {
    char path[128];
    snprintf(path, sizeof path, FOLDER "/%s", name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(p, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

/* The dense golden with `from` replaced by `to` (same length in the header of the weights). */
static void put_changed(const char *name, const char *from, const char *to) {
    qsi_str s = {0}, changed = {0};
    read_golden(name, &s);
    const char *at = NULL;
    for (size_t i = 0; from != NULL && at == NULL && i + strlen(from) <= s.len; i++) {
        if (memcmp(s.data + i, from, strlen(from)) == 0) at = s.data + i;
    }
    assert_true(from == NULL || at != NULL);
    if (at != NULL) {
        assert_int_equal(qsi_str_append(&changed, s.data, (size_t)(at - s.data)), QS_OK);
        assert_int_equal(qsi_str_puts(&changed, to), QS_OK);
        at += strlen(from);
        assert_int_equal(qsi_str_append(&changed, at, (size_t)(s.data + s.len - at)), QS_OK);
        put_file(name, changed.data, changed.len);
    } else {
        put_file(name, s.data, s.len);
    }
    qsi_str_release(&s);
    qsi_str_release(&changed);
}

static void contradictions_are_refused(void **state) {
    static const struct {
        const char *file, *from, *to;
        qs_status st;
        const char *says;
    } cases[] = {
        {"config.json", "\"hidden_size\": 32", "\"hidden_size\": 64", QS_E_FORMAT,
         "model.embed_tokens.weight is not 512 x 64"},
        {"config.json", "\"intermediate_size\": 48", "\"intermediate_size\": 64", QS_E_FORMAT,
         "model.layers.0.mlp.gate_proj.weight is not 64 x 32"},
        {"config.json", "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3", QS_E_FORMAT,
         "model.layers.2.input_layernorm.weight is missing"},
        {"config.json", "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 1", QS_E_UNSUPPORTED,
         "model.layers.1."},
        {"config.json", "\"vocab_size\": 512", "\"vocab_size\": 400", QS_E_FORMAT, "500 ids"},
        {"config.json", "\"llama\"", "\"gemma\"", QS_E_UNSUPPORTED, "gemma"},
        {"config.json", "\"llama\"", "\"qwen2\"", QS_E_FORMAT,
         "model.layers.0.self_attn.q_proj.bias is missing"},
        {"config.json", "\"model_type\"", "\"model_kind\"", QS_E_NOTFOUND, "model_type"},
        {"model.safetensors", "layers.1.input_layernorm", "layers.1.input_layernorX", QS_E_FORMAT,
         "model.layers.1.input_layernorm.weight is missing"},
        {"model.safetensors", "{\"dtype\":\"F32\",\"shape\":[512,32]",
         "{\"dtype\":\"I32\",\"shape\":[512,32]", QS_E_UNSUPPORTED, "type I32"},
        {"tokenizer.json", "{", "", QS_E_FORMAT, "tokenizer.json"},
    };
    for (size_t i = 0; i < QSI_COUNT(cases); i++) {
        static const char *const files[] = {"config.json", "model.safetensors", "tokenizer.json"};
        qs_err err = {0};
        qsi_gguf *g = NULL;
        tmp_remove(FOLDER);
        assert_int_equal(qsi_make_dirs(FOLDER, &err), QS_OK);
        for (size_t k = 0; k < QSI_COUNT(files); k++) {
            bool it = strcmp(files[k], cases[i].file) == 0;
            put_changed(files[k], it ? cases[i].from : NULL, cases[i].to);
        }
        qs_status st = qsi_files_open_model(FOLDER, &g, &err);
        if (st != cases[i].st || strstr(err.text, cases[i].says) == NULL) {
            fail_msg("case %zu: %d, '%s'", i, (int)st, err.text);
        }
        assert_null(g);
    }
    qs_err err = {0};
    qsi_gguf *g = NULL;
    tmp_remove(FOLDER);
    assert_int_equal(qsi_files_open_model(FOLDER, &g, &err), QS_E_NOTFOUND);
    assert_int_equal(qsi_make_dirs(FOLDER, &err), QS_OK);
    assert_int_equal(qsi_files_open_model(FOLDER, &g, &err), QS_E_NOTFOUND);
    put_changed("model.safetensors", NULL, NULL);
    assert_int_equal(qsi_files_open_model(FOLDER, &g, &err), QS_E_NOTFOUND);
    assert_non_null(strstr(err.text, "config.json"));
    put_changed("config.json", NULL, NULL);
    assert_int_equal(qsi_files_open_model(FOLDER, &g, &err), QS_E_NOTFOUND);
    assert_non_null(strstr(err.text, "tokenizer.json"));
    put_changed("tokenizer.json", NULL, NULL);
    assert_int_equal(qsi_files_open_model(FOLDER, &g, &err), QS_OK);
    qsi_gguf_close(&g);
    tmp_remove(FOLDER);
}

/* A template in a file of its own counts before that of the configuration. */
static void the_template_may_be_a_file(void **state) {
    static const char *const files[] = {"config.json", "model.safetensors", "tokenizer.json"};
    static const char config[] = "{\"chat_template\":\"one\"}", *const other = "another";
    qs_err err = {0};
    tmp_remove(FOLDER);
    assert_int_equal(qsi_make_dirs(FOLDER, &err), QS_OK);
    for (size_t k = 0; k < QSI_COUNT(files); k++) put_changed(files[k], NULL, NULL);
    put_file("tokenizer_config.json", config, sizeof config - 1);
    for (int i = 0; i < 2; i++) {
        qsi_gguf *g = NULL;
        qsi_vocab *v = NULL;
        if (i == 1) put_file("chat_template.jinja", other, strlen(other));
        if (qsi_files_open_model(FOLDER, &g, &err) != QS_OK) fail_msg("%s", err.text);
        assert_int_equal(qsi_vocab_load_gguf(&v, g, &err), QS_OK);
        qsi_slice t = qsi_vocab_chat_template(v);
        assert_true(t.n == strlen(i ? other : "one") && memcmp(t.p, i ? other : "one", t.n) == 0);
        qsi_vocab_free(v);
        qsi_gguf_close(&g);
    }
    tmp_remove(FOLDER);
}

/* Up to the limit a template is what its words say, beyond it nobody's; the folder opens. */
static void a_template_file_has_a_limit(void **state) {
    static const char *const files[] = {"config.json", "model.safetensors", "tokenizer.json"};
    static char text[QSI_JINJA_MAX + 100];
    const qsi_chat_template *llm = NULL, *t = NULL;
    qs_err err = {0};
    tmp_remove(FOLDER);
    assert_int_equal(qsi_make_dirs(FOLDER, &err), QS_OK);
    for (size_t k = 0; k < QSI_COUNT(files); k++) put_changed(files[k], NULL, NULL);
    assert_int_equal(qsi_chat_by_name(&llm, "deepseek-llm", &err), QS_OK);
    const char *jinja = qsi_chat_jinja(llm);
    for (size_t over = 0; over <= 90; over += over == 0 ? 1 : 89) {
        bool guessed = false;
        qsi_gguf *g = NULL;
        qsi_vocab *v = NULL;
        size_t n = QSI_JINJA_MAX + over;
        memset(text, 'x', n);
        memcpy(text, "{#", 2);
        memcpy(text + n - strlen(jinja) - 2, "#}", 2);
        memcpy(text + n - strlen(jinja), jinja, strlen(jinja));
        put_file("chat_template.jinja", text, n);
        if (qsi_files_open_model(FOLDER, &g, &err) != QS_OK) fail_msg("%s", err.text);
        assert_int_equal(qsi_vocab_load_gguf(&v, g, &err), QS_OK);
        qs_status st = qsi_chat_find(&t, v, "llama", &guessed, &err);
        if (over == 0) assert_true(st == QS_OK && t == llm && !guessed);
        else assert_true(st == QS_E_UNSUPPORTED && strstr(err.text, "longer than 1048576 bytes"));
        qsi_vocab_free(v);
        qsi_gguf_close(&g);
    }
    tmp_remove(FOLDER);
}

static int cancel(void *user, int64_t done, int64_t of) {
    assert_true(done > 0 && done <= of);
    return 1;
}

static void a_conversion_can_be_cancelled(void **state) {
    char folder[512];
    qs_err err = {0};
    qsi_gguf *g = NULL;
    golden_path(folder, sizeof folder, "moe", NULL);
    assert_int_equal(qsi_files_open_model_progress(folder, &g, cancel, NULL, &err), QS_E_CANCELLED);
    assert_null(g);
}

/* Ids of the same text with two vocabularies. */
static void same_ids(const qsi_gguf *a, const qsi_gguf *b) {
    static const char text[] = "He said: 你好，世界！ 3.14 {x}\r\n  \n\tthe-end ";
    qs_err err = {0};
    qsi_vocab *v = NULL, *w = NULL;
    qsi_ids x = {0}, y = {0};
    assert_int_equal(qsi_vocab_load_gguf(&v, a, &err), QS_OK);
    assert_int_equal(qsi_vocab_load_gguf(&w, b, &err), QS_OK);
    assert_int_equal(qsi_vocab_size(v), qsi_vocab_size(w));
    assert_true(qsi_vocab_hash(v) == qsi_vocab_hash(w));
    assert_string_equal(qsi_vocab_pre(v), qsi_vocab_pre(w));
    if (qsi_encode(v, text, strlen(text), QSI_ENC_BOS, &x, &err) == QS_OK) {
        assert_int_equal(qsi_encode(w, text, strlen(text), QSI_ENC_BOS, &y, &err), QS_OK);
        assert_int_equal(x.len, y.len);
        assert_memory_equal(x.data, y.data, x.len * sizeof *x.data);
    }
    qsi_ids_release(&x);
    qsi_ids_release(&y);
    qsi_vocab_free(v);
    qsi_vocab_free(w);
}

/* A folder as a file, the file as a folder, in several files: the answers stay those of the classes. */
static void files_become_folders(void **state) {
    static const char *const models[] = {"dense", "moe", "v2_lite", "v3_fp8", "v32", "r1_qwen2",
                                         "r1_qwen3"};
    for (size_t i = 0; i < QSI_COUNT(models); i++) {
        char folder[512], logits[512];
        qs_err err = {0};
        qsi_gguf *g = NULL, *h = NULL;
        qsi_convert_opts o = {.threads = 1};
        qsi_hf_export_opts x = {.type = QSI_F32, .shard_bytes = i % 2 ? 20000 : 0};
        golden_path(folder, sizeof folder, models[i], NULL);
        golden_path(logits, sizeof logits, models[i], "logits.f32");
        assert_int_equal(qsi_mix_find(&o.mix, "F32", &err), QS_OK);
        if (qsi_convert(folder, FOLDER ".gguf", &o, &err) != QS_OK) fail_msg("%s", err.text);
        assert_int_equal(qsi_gguf_open(&g, FOLDER ".gguf", &err), QS_OK);
        if (qsi_hf_export(g, FOLDER ".out", &x, &err) != QS_OK) fail_msg("%s: %s", models[i], err.text);
        if (qsi_files_open_model(FOLDER ".out", &h, &err) != QS_OK)
            fail_msg("%s: %s", models[i], err.text);
        same_ids(g, h);
        float worst = worst_difference(h, logits, NULL);
        if (!(worst < 5e-5f)) fail_msg("%s: %g", models[i], (double)worst);
        assert_int_equal(qsi_path_exists(FOLDER ".out/model.safetensors.index.json"), i % 2);
        qsi_gguf_close(&g);
        qsi_gguf_close(&h);
        remove(FOLDER ".gguf");
        tmp_remove(FOLDER ".out");
    }
}

/* g again at `path` under another name, with tasks. */
static void write_named(const qsi_gguf *g, const char *path, const char *name, const qsi_slice *tasks,
                        size_t n_tasks) {
    qs_err err = {0};
    qsi_gguf_writer *w = NULL;
    assert_int_equal(qsi_gguf_writer_open(&w, path, &err), QS_OK);
    for (size_t i = 0; i < qsi_gguf_n_kv(g); i++) {
        const qsi_gguf_kv *kv = qsi_gguf_kv_at(g, i);
        if (strcmp(kv->key, "general.name") != 0) assert_int_equal(qsi_gguf_put_copy(w, kv), QS_OK);
    }
    assert_int_equal(qsi_gguf_put_str(w, "general.name", name, strlen(name)), QS_OK);
    assert_int_equal(qsi_gguf_put_arr_str(w, "qiusuo.tasks", tasks, n_tasks), QS_OK);
    for (size_t i = 0; i < qsi_gguf_n_tensors(g); i++) {
        const qsi_gguf_tensor *t = qsi_gguf_tensor_at(g, i);
        assert_int_equal(qsi_gguf_declare(w, t->name, t->type, t->n_dims, t->ne, &err), QS_OK);
    }
    for (size_t i = 0; i < qsi_gguf_n_tensors(g); i++) {
        const qsi_gguf_tensor *t = qsi_gguf_tensor_at(g, i);
        assert_int_equal(qsi_gguf_write(w, t->data, t->bytes, &err), QS_OK);
    }
    if (qsi_gguf_finish(&w, &err) != QS_OK) fail_msg("%s", err.text);
}

/* What a file says of itself comes back from a folder of another name; what JSON cannot hold is left
 * out, and the folder opens under its own name. */
static void names_and_tasks_come_back(void **state) {
    static char long_name[1026];
    const struct {
        const char *name, *back;
        qsi_slice tasks[2];
        bool tasks_back;
    } cases[] = {
        {"求索 \"7B\" \\ chat", "求索 \"7B\" \\ chat", {{"poem", 4}, {"对联", 6}}, true},
        {"two\nlines", FOLDER ".out", {{"poem", 4}, {"a\tb", 3}}, false},
        {"\xff", FOLDER ".out", {{"\xc3", 1}, {"", 0}}, false},
        {long_name + 1, long_name + 1, {{"poem", 4}, {"x", 1}}, true},
        {long_name, FOLDER ".out", {{"poem", 4}, {long_name, 1025}}, false},
    };
    char folder[512];
    qs_err err = {0};
    qsi_gguf *plain = NULL;
    memset(long_name, 'n', 1025);
    golden_path(folder, sizeof folder, "dense", NULL);
    assert_int_equal(qsi_files_open_model(folder, &plain, &err), QS_OK);
    for (size_t i = 0; i < QSI_COUNT(cases); i++) {
        qsi_gguf *g = NULL, *h = NULL;
        qsi_slice name = {0};
        qsi_hf_export_opts x = {.type = QSI_TYPE_NONE};
        write_named(plain, FOLDER ".gguf", cases[i].name, cases[i].tasks, 2);
        assert_int_equal(qsi_gguf_open(&g, FOLDER ".gguf", &err), QS_OK);
        if (qsi_hf_export(g, FOLDER ".out", &x, &err) != QS_OK) fail_msg("%s", err.text);
        if (qsi_files_open_model(FOLDER ".out", &h, &err) != QS_OK) fail_msg("%s", err.text);
        assert_int_equal(qsi_gguf_str(h, "general.name", &name, &err), QS_OK);
        assert_int_equal(name.n, strlen(cases[i].back));
        assert_memory_equal(name.p, cases[i].back, name.n);
        const qsi_gguf_kv *kv = qsi_gguf_find(h, "qiusuo.tasks");
        assert_int_equal(kv != NULL, cases[i].tasks_back);
        for (size_t k = 0; kv != NULL && k < 2; k++) {
            assert_true(kv->elem == QSI_GV_STR && kv->count == 2);
            qsi_slice t = qsi_gguf_arr_str(kv, k);
            assert_int_equal(t.n, cases[i].tasks[k].n);
            assert_memory_equal(t.p, cases[i].tasks[k].p, t.n);
        }
        qsi_gguf_close(&g);
        qsi_gguf_close(&h);
        tmp_remove(FOLDER ".out");
    }
    qsi_gguf_close(&plain);
    remove(FOLDER ".gguf");
}

/* The key "qiusuo" of a stranger's config.json: what is of the wrong kind counts as not there. */
static void foreign_names_are_not_trusted(void **state) {
    static const char *const cases[] = {
        "\"qiusuo\":7", "\"qiusuo\":[]", "\"qiusuo\":{\"name\":3,\"tasks\":\"poem\"}",
        "\"qiusuo\":{\"name\":\"\",\"tasks\":[\"a\",4]}",
        "\"qiusuo\":{\"name\":\"a\\u001bb\",\"tasks\":[\"\\u001b\"]}",
        "\"_name_or_path\":\"someone/base-model\"",
    };
    static const char *const files[] = {"model.safetensors", "tokenizer.json"};
    for (size_t i = 0; i < QSI_COUNT(cases); i++) {
        char to[256];
        qs_err err = {0};
        qsi_gguf *g = NULL;
        qsi_slice name = {0};
        tmp_remove(FOLDER);
        assert_int_equal(qsi_make_dirs(FOLDER, &err), QS_OK);
        for (size_t k = 0; k < QSI_COUNT(files); k++) put_changed(files[k], NULL, NULL);
        snprintf(to, sizeof to, "{%s,", cases[i]);
        put_changed("config.json", "{", to);
        if (qsi_files_open_model(FOLDER, &g, &err) != QS_OK) fail_msg("%s: %s", cases[i], err.text);
        assert_int_equal(qsi_gguf_str(g, "general.name", &name, &err), QS_OK);
        assert_true(name.n == strlen(FOLDER) && memcmp(name.p, FOLDER, name.n) == 0);
        assert_null(qsi_gguf_find(g, "qiusuo.tasks"));
        qsi_gguf_close(&g);
    }
    tmp_remove(FOLDER);
}

/* K and V of latent attention, apart in the file, are one matrix in the folder; quantised rows become
 * BF16. */
static void latent_matrices_are_put_together(void **state) {
    const qsi_preset *p = NULL;
    qs_err err = {0};
    qsi_gguf *g = NULL, *h = NULL;
    qsi_init_opts o = {.name = "latent", .seed = 3, .std = 0.02f, .threads = 1};
    qsi_hf_export_opts x = {.type = QSI_TYPE_NONE};
    assert_int_equal(qsi_preset_find(&p, "deepseek-v3-tiny", &err), QS_OK);
    assert_int_equal(qsi_mix_find(&o.mix, "Q8_0", &err), QS_OK);
    o.config = p->config;
    o.config.n_layer = 2;
    o.config.n_vocab = 512;
    o.config.n_dense = 1;
    if (qsi_init_write(&o, FOLDER ".gguf", &err) != QS_OK) fail_msg("%s", err.text);
    assert_int_equal(qsi_gguf_open(&g, FOLDER ".gguf", &err), QS_OK);
    if (qsi_hf_export(g, FOLDER ".out", &x, &err) != QS_OK) fail_msg("%s", err.text);
    if (qsi_files_open_model(FOLDER ".out", &h, &err) != QS_OK) fail_msg("%s", err.text);
    const qsi_gguf_tensor *k = qsi_gguf_tensor_find(g, "blk.1.attn_k_b.weight");
    const qsi_gguf_tensor *v = qsi_gguf_tensor_find(g, "blk.1.attn_v_b.weight");
    const qsi_gguf_tensor *kv = qsi_gguf_tensor_find(h, "blk.1.attn_kv_b.weight");
    assert_true(k && v && kv && kv->type == QSI_BF16);
    int64_t dn = k->ne[0], r = k->ne[1], dv = v->ne[1], heads = k->ne[2];
    assert_true(kv->ne[0] == r && kv->ne[1] == heads * (dn + dv));
    float *a = qsi_alloc((size_t)(dn * r * heads), sizeof *a);
    float *b = qsi_alloc((size_t)(dv * r * heads), sizeof *b);
    float *c = qsi_alloc((size_t)((dn + dv) * r * heads), sizeof *c);
    assert_true(a && b && c);
    qsi_type_get((int32_t)k->type)->decode(k->data, a, dn * r * heads);
    qsi_type_get((int32_t)v->type)->decode(v->data, b, dv * r * heads);
    qsi_type_get((int32_t)kv->type)->decode(kv->data, c, (dn + dv) * r * heads);
    for (int64_t i = 0; i < heads; i++)
        for (int64_t j = 0; j < r; j++) {
            const float *at = c + i * (dn + dv) * r + j;
            for (int64_t q = 0; q < dn; q++)
                assert_true(at[q * r] ==
                            qsi_bf16_to_f32(qsi_f32_to_bf16(a[(i * r + j) * dn + q])));
            for (int64_t q = 0; q < dv; q++)
                assert_true(at[(dn + q) * r] ==
                            qsi_bf16_to_f32(qsi_f32_to_bf16(b[(i * dv + q) * r + j])));
        }
    qsi_config one, two;
    assert_int_equal(qsi_config_from_gguf(&one, g, &err), QS_OK);
    assert_int_equal(qsi_config_from_gguf(&two, h, &err), QS_OK);
    assert_true(one.kv_rank == two.kv_rank && one.n_group == two.n_group &&
                one.gating == two.gating && one.gate_bias == two.gate_bias &&
                one.rope_factor == two.rope_factor && one.n_expert_used == two.n_expert_used);
    qsi_free(a);
    qsi_free(b);
    qsi_free(c);
    qsi_gguf_close(&g);
    qsi_gguf_close(&h);
    remove(FOLDER ".gguf");
    tmp_remove(FOLDER ".out");
}

/* FP8 folders that lie about their scales. */
static void false_fp8_folders_are_refused(void **state) {
#define DOWN "model.layers.0.mlp.down_proj.weight"
#define KV "model.layers.0.self_attn.kv_b_proj.weight_scale_inv\":"
    static const struct {
        const char *file, *from, *to;
        qs_status st;
        const char *says;
    } cases[] = {
        {"model.safetensors", DOWN "_scale_inv", DOWN "_scale_inX", QS_E_FORMAT,
         DOWN "_scale_inv is missing"},
        {"model.safetensors", KV "{\"dtype\":\"F32\",\"shape\":[2,1]",
         KV "{\"dtype\":\"F32\",\"shape\":[1,2]", QS_E_FORMAT, "one scale for each 128 x 128"},
        {"model.safetensors", KV "{\"dtype\":\"F32\",\"shape\":[2,1]",
         KV "{\"dtype\":\"I32\",\"shape\":[2,1]", QS_E_FORMAT, "must be F32"},
        {"model.safetensors", DOWN "\":{\"dtype\":\"F8_E4M3\",\"shape\":[32,40]",
         DOWN "\":{\"dtype\":\"F8_E4M3\",\"shape\":[40,32]", QS_E_FORMAT, "is not 32 x 40"},
        {"model.safetensors", DOWN "\":{\"dtype\":\"F8_E4M3\"", DOWN "\":{\"dtype\":\"F8_E5M2\"",
         QS_E_UNSUPPORTED, "F8_E5M2"},
        {"config.json", "   128,\n   128", "   128,\n   64", QS_E_UNSUPPORTED, "weight_block_size"},
        {"config.json", "   128,\n   128", "   -1,\n   128", QS_E_UNSUPPORTED, "weight_block_size"},
        {"config.json", "\"qk_rope_head_dim\": 8", "\"qk_rope_head_dim\": 16", QS_E_FORMAT, "is not"},
    };
    static const char *const files[] = {"config.json", "model.safetensors", "tokenizer.json"};
    changed_model = "v3_fp8";
    for (size_t i = 0; i < QSI_COUNT(cases); i++) {
        qs_err err = {0};
        qsi_gguf *g = NULL;
        tmp_remove(FOLDER);
        assert_int_equal(qsi_make_dirs(FOLDER, &err), QS_OK);
        for (size_t k = 0; k < QSI_COUNT(files); k++) {
            bool it = strcmp(files[k], cases[i].file) == 0;
            put_changed(files[k], it ? cases[i].from : NULL, cases[i].to);
        }
        qs_status st = qsi_files_open_model(FOLDER, &g, &err);
        if (st != cases[i].st || strstr(err.text, cases[i].says) == NULL)
            fail_msg("case %zu: %d, '%s'", i, (int)st, err.text);
        assert_null(g);
    }
    changed_model = "dense";
    tmp_remove(FOLDER);
}

static double number_of(const qsi_gguf *g, const char *key) {
    double v = -1;
    return qsi_gguf_find(g, key) != NULL && qsi_gguf_f64(g, key, &v, NULL) == QS_OK ? v : -1;
}

/* Sampling from generation_config.json: only where sampling is on, only what makes sense. */
static void generation_config_is_read(void **state) {
    static const struct {
        const char *text;
        double temp, top_p, top_k;
    } cases[] = {
        {"{\"do_sample\":true,\"temperature\":0.7,\"top_p\":0.95,\"top_k\":20,"
         "\"eos_token_id\":485}", 0.7, 0.95, 20},
        {"{\"temperature\":0.7}", -1, -1, -1},
        {"{\"do_sample\":false,\"temperature\":0.7}", -1, -1, -1},
        {"{\"do_sample\":true,\"temperature\":-1,\"top_p\":\"x\",\"top_k\":-5,\"min_p\":null}", -1, -1,
         -1},
        {"{\"do_sample\":true,\"temperature\":1e999}", -1, -1, -1},
        {"{\"do_sample\":true,\"eos_token_id\":[485,7,-3,\"x\",99999999999]}", -1, -1, -1},
        {"[1,2", -1, -1, -1},
        {"", -1, -1, -1},
    };
    for (size_t i = 0; i < QSI_COUNT(cases); i++) {
        qs_err err = {0};
        qsi_gguf *g = NULL;
        tmp_remove(FOLDER);
        assert_int_equal(qsi_make_dirs(FOLDER, &err), QS_OK);
        put_changed("config.json", NULL, NULL);
        put_changed("model.safetensors", NULL, NULL);
        put_changed("tokenizer.json", NULL, NULL);
        put_file("generation_config.json", cases[i].text, strlen(cases[i].text));
        if (qsi_files_open_model(FOLDER, &g, &err) != QS_OK) fail_msg("case %zu: %s", i, err.text);
        assert_true(fabs(number_of(g, "general.sampling.temp") - cases[i].temp) < 1e-6);
        assert_true(fabs(number_of(g, "general.sampling.top_p") - cases[i].top_p) < 1e-6);
        assert_true((qsi_gguf_find(g, "general.sampling.top_k") == NULL) == (cases[i].top_k < 0));
        qsi_gguf_close(&g);
    }
    tmp_remove(FOLDER);
}

int main(int argc, char **argv) {
    if (argc != 2 || argv[1][0] != '/') { /* the tests work in a folder of their own */
        fprintf(stderr, "usage: test_open_model /FOLDER\n");
        return 2;
    }
    golden_dir = argv[1];
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(folders_answer_as_their_classes),
        cmocka_unit_test(v2_and_v3_answer_as_their_equations),
        cmocka_unit_test(files_become_folders),
        cmocka_unit_test(names_and_tasks_come_back),
        cmocka_unit_test(foreign_names_are_not_trusted),
        cmocka_unit_test(generation_config_is_read),
        cmocka_unit_test(false_fp8_folders_are_refused),
        cmocka_unit_test(latent_matrices_are_put_together),
        cmocka_unit_test(distilled_models_answer_as_their_classes),
        cmocka_unit_test(tensors_take_their_places),
        cmocka_unit_test(contradictions_are_refused),
        cmocka_unit_test(the_template_may_be_a_file),
        cmocka_unit_test(a_template_file_has_a_limit),
        cmocka_unit_test(a_conversion_can_be_cancelled),
    };
    return cmocka_run_group_tests(tests, tmp_enter, tmp_leave);
}
