/* info: sound files are described, contradictions named, damaged values found where they are. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "../sys/tmpdir.h"
#include "base/mem.h"
#include "base/hash.h"
#include "files/hf_export.h"
#include "files/info.h"
#include "files/init.h"
#include "files/presets.h"
#include "fmt/json.h"
#include "sys/file.h"

#define TEMP "test_info.tmp.gguf"

static qsi_config tiny(void) {
    const qsi_preset *p = NULL;
    qs_err err;
    assert_int_equal(qsi_preset_find(&p, "moe-tiny", &err), QS_OK);
    qsi_config c = p->config;
    c.n_layer = 2;
    return c;
}

static void write_model(const qsi_config *c, qsi_type type) {
    qs_err err = {0};
    qsi_init_opts o = {.name = "t\x1b[31m\xff", .config = *c, .std = 0.02f};
    assert_int_equal(qsi_mix_find(&o.mix, qsi_type_get((int32_t)type)->name, NULL), QS_OK);
    if (qsi_init_write(&o, TEMP, &err) != QS_OK) fail_msg("%s", err.text);
}

static qsi_info *open_info(void) {
    qs_err err = {0};
    qsi_info *x = NULL;
    if (qsi_info_open(&x, TEMP, &err) != QS_OK) fail_msg("%s", err.text);
    return x;
}

/* Text has no control characters but newlines, JSON parses; returns the JSON. */
static qsi_json *show(const qsi_info *x, qsi_str *text) {
    qs_err err = {0};
    qsi_str json = {0};
    qsi_json *j = NULL;
    unsigned all = QSI_INFO_SHOW_KEYS | QSI_INFO_SHOW_TENSORS;
    assert_int_equal(qsi_info_text(x, all, text), QS_OK);
    assert_int_equal(qsi_info_json(x, all, &json), QS_OK);
    assert_true(qsi_utf8_valid(text->data, text->len, NULL));
    for (size_t i = 0; i < text->len; i++)
        assert_true((uint8_t)text->data[i] >= 0x20 || text->data[i] == '\n');
    if (qsi_json_parse(&j, json.data, json.len, QSI_JSON_SMALL, &err) != QS_OK)
        fail_msg("%s", err.text);
    qsi_str_release(&json);
    return j;
}

static void a_sound_model(void **state) {
    qsi_config c = tiny();
    qsi_str text = {0};
    int64_t n = 0, active = 0;
    bool ok = false;
    qs_err err = {0};
    write_model(&c, QSI_Q8_0);
    qsi_info *x = open_info();
    assert_int_equal(x->kind, QSI_INFO_GGUF);
    assert_int_equal(x->n_problems, 0);
    assert_string_equal(x->unsupported, "");
    assert_int_equal(qsi_info_verify(x, NULL, NULL, &err), QS_OK);
    assert_int_equal(x->n_bad, 0);
    assert_true(x->checked == qsi_config_params(&c, &active) && x->unchecked == 0);
    qsi_json *j = show(x, &text);
    const qsi_json *shape = qsi_json_get(j, "config");
    assert_string_equal(qsi_json_as_str(qsi_json_get(shape, "rope_scaling")), "none");
    assert_string_equal(qsi_json_as_str(qsi_json_get(shape, "gating")), "softmax");
    assert_non_null(strstr(text.data, "deepseek: 2 layers"));
    assert_non_null(strstr(text.data, "8 routed (2 used), 1 shared, width 96"));
    assert_non_null(strstr(text.data, "t?[31m?"));
    assert_non_null(strstr(text.data, "all finite"));
    assert_int_equal(qsi_json_bool(j, "ok", &ok, &err), QS_OK);
    assert_true(ok);
    assert_int_equal(qsi_json_i64(j, "params", &n, &err), QS_OK);
    assert_true(n == qsi_config_params(&c, NULL));
    assert_int_equal(qsi_json_i64(qsi_json_get(j, "cache"), "bytes_per_position", &n, &err), QS_OK);
    assert_true(n == 2 * 2 * 2 * 4 * 64);
    assert_int_equal(qsi_json_size(qsi_json_get(j, "tensors")), qsi_config_n_tensors(&c));
    /* digests are those of the bytes, in both forms */
    const qsi_json *digests = qsi_json_get(qsi_json_get(j, "verify"), "digests");
    assert_int_equal(qsi_json_size(digests), qsi_config_n_tensors(&c));
    uint64_t weights = 0;
    for (size_t i = 0; i < qsi_info_n_tensors(x); i++) {
        qsi_info_tensor t;
        char want[80];
        qsi_info_tensor_at(x, i, &t);
        weights += t.bytes;
        snprintf(want, sizeof want, "%016llx", (unsigned long long)qsi_hash(t.data, t.bytes));
        assert_string_equal(qsi_json_as_str(qsi_json_get(digests, t.name)), want);
        snprintf(want, sizeof want, "%016llx  %s\n", (unsigned long long)qsi_hash(t.data, t.bytes),
                 t.name);
        assert_non_null(strstr(text.data, want));
    }
    const qsi_json *memory = qsi_json_get(j, "memory"), *last;
    last = qsi_json_at(memory, qsi_json_size(memory) - 1);
    assert_int_equal(qsi_json_i64(last, "positions", &n, &err), QS_OK);
    assert_true(n == c.n_ctx);
    assert_int_equal(qsi_json_i64(last, "bytes", &n, &err), QS_OK);
    assert_true((uint64_t)n == weights + (uint64_t)(qsi_info_kv_bytes(&c) * c.n_ctx));
    int64_t bytes = 0;
    for (size_t i = 0; i < 2; i++) {
        const qsi_json *t = qsi_json_at(qsi_json_get(j, "types"), i);
        assert_int_equal(qsi_json_i64(t, "bytes", &n, &err), QS_OK);
        bytes += n;
    }
    assert_true(bytes > 0 && bytes < (int64_t)x->bytes);
    qsi_json_free(&j);
    qsi_str_release(&text);
    qsi_info_close(&x);
    assert_null(x);
    remove(TEMP);
}

/* Rows that blocks of 256 do not fit are told apart, with the type that holds them; in a file without
 * such blocks nothing is. */
static void rows_of_no_256(void **state) {
    static const qsi_type asked[] = {QSI_Q4_K, QSI_Q8_0};
    qsi_config c = tiny();
    c.d_model = 256;
    c.d_expert = 96;
    for (size_t i = 0; i < QSI_COUNT(asked); i++) {
        qsi_str text = {0};
        write_model(&c, asked[i]);
        qsi_info *x = open_info();
        qsi_json *j = show(x, &text);
        int64_t told = 0, n = 0, want = 0, row = 0;
        qs_err err = {0};
        for (size_t k = 0; k < qsi_json_size(qsi_json_get(j, "types")); k++) {
            const qsi_json *t = qsi_json_at(qsi_json_get(j, "types"), k);
            assert_int_equal(qsi_json_i64(t, "not_of_256", &n, &err), QS_OK);
            told += n;
        }
        for (size_t k = 0; k < qsi_info_n_tensors(x); k++) {
            qsi_info_tensor t;
            qsi_info_tensor_at(x, k, &t);
            if (strcmp(t.type_name, "Q5_0") == 0) want++, row = t.ne[0];
        }
        assert_int_equal(told, want);
        assert_true((want > 0) == (asked[i] == QSI_Q4_K));
        assert_true((strstr(text.data, "blocks of 256") != NULL) == (want > 0));
        if (want > 0) assert_true(row % 256 != 0);
        qsi_json_free(&j);
        qsi_str_release(&text);
        qsi_info_close(&x);
        remove(TEMP);
    }
}

/* Overwrites bytes of one tensor in the file. */
static void damage(const char *tensor, size_t at, const void *p, size_t n) {
    qs_err err = {0};
    qsi_gguf *g = NULL;
    assert_int_equal(qsi_gguf_open(&g, TEMP, &err), QS_OK);
    const qsi_gguf_tensor *t = qsi_gguf_tensor_find(g, tensor);
    assert_non_null(t);
    long offset = (long)(t->offset + at);
    assert_true(at + n <= t->bytes);
    qsi_gguf_close(&g);
    FILE *f = fopen(TEMP, "r+b");
    assert_non_null(f);
    assert_int_equal(fseek(f, offset, SEEK_SET), 0);
    assert_int_equal(fwrite(p, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

static void damaged_values_are_found(void **state) {
    static const uint8_t nan16[] = {0x01, 0x7c}, inf16[] = {0x00, 0xfc},
                         nan32[] = {0, 0, 0xc0, 0x7f};
    static const uint8_t nan_b16[] = {0xc0, 0x7f};
    static const struct {
        qsi_type type;
        const char *tensor;
        size_t at, n;
        const uint8_t *p;
        int64_t first, count;
        const char *says;
    } cases[] = {
        {QSI_Q8_0, "blk.1.ffn_up_exps.weight", 34 * 3, 2, nan16, 96, 32,
         "NaN at element [96, 0, 0], 32 such"},
        {QSI_Q4_0, "output.weight", 18 * 4095, 2, inf16, 32 * 4095, 32,
         "infinity at element [224, 511]"},
        {QSI_F16, "blk.0.attn_q.weight", 2 * 65535, 2, inf16, 65535, 1,
         "-infinity at element [255, 255], 1 such value\n"},
        {QSI_BF16, "token_embd.weight", 2 * 65536, 2, nan_b16, 65536, 1, "NaN at element [0, 256]"},
        {QSI_F32, "blk.1.ffn_gate_inp.weight", 4 * 257, 4, nan32, 257, 1, "NaN at element [1, 1]"},
        {QSI_Q8_0, "output_norm.weight", 4 * 255, 4, nan32, 255, 1, "NaN at element [255]"},
    };
    for (size_t i = 0; i < QSI_COUNT(cases); i++) {
        qs_err err = {0};
        qsi_str text = {0};
        qsi_config c = tiny();
        write_model(&c, cases[i].type);
        damage(cases[i].tensor, cases[i].at, cases[i].p, cases[i].n);
        qsi_info *x = open_info();
        assert_int_equal(x->n_bad, 0); /* nobody asked yet */
        assert_int_equal(qsi_info_verify(x, NULL, NULL, &err), QS_OK);
        assert_int_equal(x->n_bad, 1);
        assert_string_equal(x->bad[0].name, cases[i].tensor);
        assert_true(x->bad[0].first == cases[i].first && x->bad[0].count == cases[i].count);
        qsi_json *j = show(x, &text);
        if (strstr(text.data, cases[i].says) == NULL) fail_msg("%s", text.data);
        bool ok = true;
        assert_int_equal(qsi_json_bool(j, "ok", &ok, &err), QS_OK);
        assert_false(ok);
        qsi_json_free(&j);
        qsi_str_release(&text);
        qsi_info_close(&x);
    }
    remove(TEMP);
}

/* Every number of halves or exponents that a block has, made none in the last block but one. */
static void every_block_type_is_looked_into(void **state) {
    static const uint8_t nan16[] = {0x00, 0xfe}, nan8[] = {0xff};
    static const struct {
        qsi_type type;
        size_t at[2]; /* in the block; the second 0: there is one */
    } cases[] = {{QSI_Q4_0, {0}},       {QSI_Q4_1, {0, 2}},   {QSI_Q5_0, {0}},  {QSI_Q5_1, {0, 2}},
                 {QSI_Q8_0, {0}},       {QSI_IQ4_NL, {0}},    {QSI_MXFP4, {0}}, {QSI_IQ4_XS, {0}},
                 {QSI_Q2_K, {80, 82}},  {QSI_Q3_K, {108}},    {QSI_Q4_K, {0, 2}},
                 {QSI_Q5_K, {0, 2}},    {QSI_Q6_K, {208}}};
    qsi_config c = tiny();
    for (size_t i = 0; i < QSI_COUNT(cases); i++) {
        const qsi_type_info *ti = qsi_type_get((int32_t)cases[i].type);
        int64_t block = 512 * 256 / ti->block - 2; /* of output.weight, 256 x 512 */
        for (int k = 0; k < 2 && (k == 0 || cases[i].at[k] > 0); k++) {
            qs_err err = {0};
            bool exponent = cases[i].type == QSI_MXFP4;
            write_model(&c, cases[i].type);
            damage("output.weight", (size_t)(block * ti->bytes) + cases[i].at[k],
                   exponent ? nan8 : nan16, exponent ? 1 : 2);
            qsi_info *x = open_info();
            assert_int_equal(qsi_info_verify(x, NULL, NULL, &err), QS_OK);
            if (x->n_bad != 1 || x->bad[0].first != block * ti->block || x->bad[0].count != ti->block)
                fail_msg("%s: %zu tensors, %lld values from %lld", ti->name, x->n_bad,
                         (long long)x->bad[0].count, (long long)x->bad[0].first);
            qsi_info_close(&x);
        }
    }
    remove(TEMP);
}

/* FP8 as V3 is published: its two bytes that are no numbers, and its largest, which is one. */
static void fp8_is_looked_into(void **state) {
    static const char head[] =
        "{\"w\":{\"dtype\":\"F8_E4M3\",\"shape\":[2,4],\"data_offsets\":[0,8]}}  ";
    static const uint8_t data[] = {0, 0x7e, 0xfe, 0x80, 0x7f, 1, 0xff, 0x38};
    const char *path = "test_info.tmp.safetensors";
    uint64_t n = sizeof head - 1;
    qs_err err = {0};
    qsi_info *x = NULL;
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(&n, 1, 8, f) + fwrite(head, 1, n, f) + fwrite(data, 1, 8, f), n + 16);
    assert_int_equal(fclose(f), 0);
    if (qsi_info_open(&x, path, &err) != QS_OK) fail_msg("%s", err.text);
    assert_int_equal(qsi_info_verify(x, NULL, NULL, &err), QS_OK);
    assert_true(x->checked == 8 && x->unchecked == 0 && x->n_bad == 1);
    assert_true(x->bad[0].first == 4 && x->bad[0].count == 2);
    qsi_info_close(&x);
    remove(path);
}

typedef enum {
    SOUND,
    NO_TENSOR,
    WRONG_DIMS,
    EXTRA,
    NO_KEY,
    OTHER_ARCH,
    OTHER_TYPE,
    FEW_TOKENS
} flaw;

/* A model of `tiny` with one flaw; data are zeros. */
static void write_flawed(flaw f) {
    qs_err err = {0};
    qsi_gguf_writer *w = NULL;
    qsi_gguf *sound = NULL;
    qsi_config c = tiny();
    c.n_vocab = 256;
    write_model(&c, QSI_F16);
    assert_int_equal(qsi_gguf_open(&sound, TEMP, &err), QS_OK);
    c.n_vocab = f == FEW_TOKENS ? 300 : 256;
    uint8_t *zero = qsi_calloc(1 << 20, 1);
    size_t left = 0;
    assert_non_null(zero);
    assert_int_equal(qsi_gguf_writer_open(&w, TEMP, &err), QS_OK);
    if (f == NO_KEY || f == OTHER_ARCH) {
        const char *arch = f == NO_KEY ? "deepseek" : "gemma";
        assert_int_equal(qsi_gguf_put_str(w, "general.architecture", arch, strlen(arch)), QS_OK);
    } else {
        assert_int_equal(qsi_config_put_gguf(&c, w), QS_OK);
    }
    for (size_t i = 0; i < qsi_gguf_n_kv(sound); i++) {
        const qsi_gguf_kv *kv = qsi_gguf_kv_at(sound, i);
        if (strncmp(kv->key, "tokenizer.", 10) != 0) continue;
        assert_int_equal(qsi_gguf_put_copy(w, kv), QS_OK);
    }
    qsi_gguf_close(&sound);
    for (size_t i = 0; i < qsi_config_n_tensors(&c); i++) {
        qsi_tensor_spec t;
        qsi_type type = QSI_F16;
        size_t row = 0;
        qsi_config_tensor(&c, i, &t);
        if (f == NO_TENSOR && i == 5) continue;
        if (f == WRONG_DIMS && i == 5) t.ne[0] += 32;
        if (f == OTHER_TYPE && i == 5) type = (qsi_type)17; /* IQ2_XS */
        assert_int_equal(qsi_gguf_declare(w, t.name, type, t.n_dims, t.ne, &err), QS_OK);
        assert_true(qsi_row_bytes(qsi_type_get((int32_t)type), t.ne[0], &row));
        left += row * (size_t)(t.ne[1] * t.ne[2]);
    }
    if (f == EXTRA) {
        const int64_t ne[] = {8};
        assert_int_equal(qsi_gguf_declare(w, "rope_freqs.weight", QSI_F32, 1, ne, &err), QS_OK);
        left += 32;
    }
    for (size_t n = 0; left > 0; left -= n) {
        n = left < 1 << 20 ? left : 1 << 20;
        assert_int_equal(qsi_gguf_write(w, zero, n, &err), QS_OK);
    }
    assert_int_equal(qsi_gguf_finish(&w, &err), QS_OK);
    qsi_free(zero);
}

static void contradictions_are_named(void **state) {
    static const struct { flaw f; const char *problem, *unsupported;
    } cases[] = {
        {SOUND, NULL, NULL},
        {NO_TENSOR, "tensor blk.0.attn_output.weight is missing", NULL},
        {WRONG_DIMS,
         "tensor blk.0.attn_output.weight is 288 x 256, the configuration wants 256 x 256", NULL},
        {EXTRA, NULL, "1 tensors that its architecture does not have"},
        {NO_KEY, "deepseek.block_count", NULL},
        {OTHER_ARCH, NULL, "gemma"},
        {OTHER_TYPE, NULL, "IQ2_XS"},
        {FEW_TOKENS, "the vocabulary has 256 ids, the model 300", NULL},
    };
    for (size_t i = 0; i < QSI_COUNT(cases); i++) {
        qsi_str text = {0};
        write_flawed(cases[i].f);
        qsi_info *x = open_info();
        qsi_json *j = show(x, &text);
        bool bad = cases[i].problem != NULL;
        if (bad && (x->n_problems != 1 || strstr(text.data, cases[i].problem) == NULL)) {
            fail_msg("case %zu: %s", i, text.data);
        }
        if (!bad && x->n_problems != 0) fail_msg("case %zu: %s", i, text.data);
        if (cases[i].unsupported != NULL) {
            assert_non_null(strstr(x->unsupported, cases[i].unsupported));
        } else if (!bad) {
            assert_string_equal(x->unsupported, "");
        }
        qsi_json_free(&j);
        qsi_str_release(&text);
        qsi_info_close(&x);
    }
    remove(TEMP);
}

static void vocabularies_and_others(void **state) {
    qs_err err = {0};
    qsi_info *x = NULL;
    qsi_str text = {0};
    qsi_config c = tiny();
    qsi_gguf *g = NULL;
    qsi_gguf_writer *w = NULL;
    write_model(&c, QSI_F16);
    assert_int_equal(qsi_gguf_open(&g, TEMP, &err), QS_OK);
    assert_int_equal(qsi_gguf_writer_open(&w, "test_info.vocab.gguf", &err), QS_OK);
    for (size_t i = 0; i < qsi_gguf_n_kv(g); i++) {
        assert_int_equal(qsi_gguf_put_copy(w, qsi_gguf_kv_at(g, i)), QS_OK);
    }
    assert_int_equal(qsi_gguf_finish(&w, &err), QS_OK);
    qsi_gguf_close(&g);
    assert_int_equal(qsi_info_open(&x, "test_info.vocab.gguf", &err), QS_OK);
    assert_int_equal(x->kind, QSI_INFO_VOCAB);
    assert_int_equal(x->n_problems, 0);
    qsi_json *j = show(x, &text);
    assert_non_null(strstr(text.data, "GGUF vocabulary without weights"));
    assert_non_null(strstr(text.data, "512 ids"));
    qsi_json_free(&j);
    qsi_str_release(&text);
    qsi_info_close(&x);
    remove("test_info.vocab.gguf");
    remove(TEMP);
    assert_int_equal(qsi_info_open(&x, "no such file", &err), QS_E_NOTFOUND);
    assert_int_equal(qsi_info_open(&x, ".", &err), QS_E_NOTFOUND);
    assert_non_null(strstr(err.text, "config.json"));
    assert_null(x);
}

static void contexts_are_powers_of_two(void **state) {
    static const struct {
        int32_t n_ctx;
        int64_t want[8];
    } cases[] = {{512, {512}}, {2048, {2048}}, {2049, {2048, 2049}}, {8192, {2048, 4096, 8192}},
                 {10000, {2048, 4096, 8192, 10000}}};
    for (size_t i = 0; i < QSI_COUNT(cases); i++) {
        qsi_config c = {.n_ctx = cases[i].n_ctx};
        for (int k = 0; k < 6; k++) assert_int_equal(qsi_info_context(&c, k), cases[i].want[k]);
    }
}

/* Replaces `from` in config.json of the folder. */
static void change_config(const char *folder, const char *from, const char *to) {
    qs_err err = {0};
    qsi_str path = {0}, text = {0};
    assert_int_equal(qsi_path_join(&path, folder, "config.json"), QS_OK);
    if (qsi_file_read(path.data, 1 << 16, &text, &err) != QS_OK) fail_msg("%s", err.text);
    const char *at = strstr(text.data, from);
    assert_non_null(at);
    FILE *f = fopen(path.data, "wb");
    assert_non_null(f);
    assert_true(fprintf(f, "%.*s%s%s", (int)(at - text.data), text.data, to, at + strlen(from)) > 0);
    assert_int_equal(fclose(f), 0);
    qsi_str_release(&path);
    qsi_str_release(&text);
}

/* What is wrong with a folder is told whole and alone, however long the folder's own name is. */
static void folders_say_why(void **state) {
    enum { PART = 200, PARTS = 3 };
    static const char *const files[] = {"config.json", "generation_config.json", "model.safetensors",
                                        "tokenizer.json", "tokenizer_config.json"};
    char folder[1024] = "test_info.tmp.d";
    size_t ends[PARTS + 1] = {strlen(folder)};
    qsi_config c = tiny();
    qs_err err = {0};
    qsi_gguf *g = NULL;
    qsi_info *x = NULL;
    qsi_hf_export_opts o = {.type = QSI_TYPE_NONE};
    for (int i = 1; i <= PARTS; i++) {
        folder[ends[i - 1]] = '/';
        memset(folder + ends[i - 1] + 1, 'a', PART);
        ends[i] = ends[i - 1] + 1 + PART;
    }
    write_model(&c, QSI_F16);
    if (qsi_gguf_open(&g, TEMP, &err) != QS_OK) fail_msg("%s", err.text);
    if (qsi_hf_export(g, folder, &o, &err) != QS_OK) fail_msg("%s", err.text);
    qsi_gguf_close(&g);
    change_config(folder, "\"num_hidden_layers\":2", "\"num_hidden_layers\":3");
    if (qsi_info_open(&x, folder, &err) != QS_OK) fail_msg("%s", err.text);
    assert_int_equal(x->n_problems, 1);
    assert_string_equal(x->problems[0], "tensor model.layers.2.input_layernorm.weight is missing");
    qsi_info_close(&x);
    change_config(folder, "\"num_hidden_layers\":3", "\"num_hidden_layers\":1");
    if (qsi_info_open(&x, folder, &err) != QS_OK) fail_msg("%s", err.text);
    assert_int_equal(x->n_problems, 0);
    assert_true(strncmp(x->unsupported, "tensor model.layers.1.", 22) == 0);
    assert_non_null(strstr(x->unsupported, "is not part of architecture deepseek"));
    qsi_info_close(&x);
    remove(TEMP);
    for (size_t i = 0; i < QSI_COUNT(files); i++) {
        char path[1100];
        snprintf(path, sizeof path, "%s/%s", folder, files[i]);
        remove(path);
    }
    for (int i = PARTS; i >= 0; i--) {
        folder[ends[i]] = '\0';
        assert_int_equal(remove(folder), 0);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(contexts_are_powers_of_two),
        cmocka_unit_test(a_sound_model),
        cmocka_unit_test(rows_of_no_256),
        cmocka_unit_test(damaged_values_are_found),
        cmocka_unit_test(every_block_type_is_looked_into),
        cmocka_unit_test(fp8_is_looked_into),
        cmocka_unit_test(contradictions_are_named),
        cmocka_unit_test(folders_say_why),
        cmocka_unit_test(vocabularies_and_others),
    };
    return cmocka_run_group_tests(tests, tmp_enter, tmp_leave);
}
