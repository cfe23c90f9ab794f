/* The public calls of qiusuo/files.h: presets, new models, descriptions. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "../sys/tmpdir.h"
#include "qiusuo/files.h"

#define TEMP "test_api_files.tmp.gguf"

typedef struct text {
    char p[1 << 16];
    size_t n;
} text;

static void collect(void *user, const char *p, size_t n) {
    text *t = user;
    assert_true(n < sizeof t->p - t->n);
    memcpy(t->p + t->n, p, n);
    t->n += n;
    t->p[t->n] = '\0';
}

static void presets_have_names(void **state) {
    int32_t n = 0;
    for (; qs_preset_name(n) != NULL; n++) assert_non_null(qs_preset_about(n));
    assert_true(n >= 6);
    assert_null(qs_preset_about(n));
    assert_null(qs_preset_name(-1));
    assert_string_equal(qs_preset_name(0), "deepseek-llm-7b");
}

static int count(void *user, int64_t done, int64_t of) {
    assert_true(done <= of);
    ++*(int *)user;
    return 0;
}

static void a_new_model_is_described(void **state) {
    text t = {.n = 0};
    int calls = 0;
    qs_err err = {0};
    qs_init_opts o;
    qs_init_opts_init(&o, sizeof o);
    assert_string_equal(o.type, "F16");
    o.preset = "moe-tiny";
    o.type = "q8_0";
    o.layers = 3;
    o.progress = count;
    o.user = &calls;
    assert_int_equal(qs_init(&o, TEMP, &err), QS_OK);
    assert_true(calls > 10);
    calls = 0;
    assert_int_equal(qs_info(TEMP, QS_INFO_VERIFY, collect, &t, count, &calls, &err), QS_OK);
    assert_true(calls > 10);
    assert_non_null(strstr(t.p, "deepseek: 3 layers"));
    assert_non_null(strstr(t.p, "all finite"));
    assert_non_null(strstr(t.p, "  blk.2.attn_q.weight\n")); /* its digest */
    t.n = 0;
    assert_int_equal(qs_info(TEMP, 0, collect, &t, NULL, NULL, &err), QS_OK);
    assert_null(strstr(t.p, "blk.2.attn_q"));
    t.n = 0;
    assert_int_equal(qs_info(TEMP, QS_INFO_JSON | QS_INFO_TENSORS | QS_INFO_KEYS, collect, &t, NULL,
                             NULL, &err), QS_OK);
    assert_int_equal(strncmp(t.p, "{\"ok\":true,", 11), 0);
    assert_non_null(strstr(t.p, "\"blk.2.attn_q.weight\""));
    assert_non_null(strstr(t.p, "\"deepseek.expert_count\""));
    remove(TEMP);
}

/* A caller of an older header: its struct ends after `vocab`. */
static void shorter_structs_work(void **state) {
    qs_err err = {0};
    qs_init_opts o;
    size_t old = offsetof(qs_init_opts, seed);
    memset(&o, 0x5a, sizeof o);
    qs_init_opts_init(&o, old);
    o.preset = "dense-tiny";
    assert_int_equal(qs_init(&o, TEMP, &err), QS_OK);
    remove(TEMP);
}

static void refusals(void **state) {
    qs_err err = {0};
    qs_init_opts o;
    text t = {.n = 0};
    qs_init_opts_init(&o, sizeof o);
    assert_int_equal(qs_init(&o, TEMP, &err), QS_E_ARG);
    o.preset = "none";
    assert_int_equal(qs_init(&o, TEMP, &err), QS_E_ARG);
    o.preset = "moe-tiny";
    o.type = "IQ2_XS";
    assert_int_equal(qs_init(&o, TEMP, &err), QS_E_ARG);
    assert_non_null(strstr(err.text, "IQ2_XS"));
    o.type = "F16";
    o.mtp = 1;
    assert_int_equal(qs_init(&o, TEMP, &err), QS_E_ARG);
    assert_non_null(strstr(err.text, "moe-tiny"));
    o.mtp = 0;
    o.vocab = "no such vocabulary.gguf";
    assert_int_equal(qs_init(&o, TEMP, &err), QS_E_NOTFOUND);
    FILE *f = fopen(TEMP, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite("GGUF\3\0\0\0", 1, 8, f), 8);
    fclose(f);
    assert_int_equal(qs_info(TEMP, 0, collect, &t, NULL, NULL, &err), QS_E_FORMAT);
    assert_int_equal(t.n, 0);
    assert_non_null(strstr(err.text, "truncated"));
    assert_int_equal(qs_info(TEMP, QS_INFO_JSON, collect, &t, NULL, NULL, &err), QS_E_FORMAT);
    assert_int_equal(strncmp(t.p, "{\"ok\":false,", 12), 0);
    assert_int_equal(qs_info("no such file", 0, collect, &t, NULL, NULL, NULL), QS_E_NOTFOUND);
    remove(TEMP);
}

/* Into a folder go floats alone; the text names a file that would do. */
static void a_folder_is_no_file(void **state) {
    qs_err err = {0};
    qs_init_opts o;
    qs_convert_opts c;
    qs_init_opts_init(&o, sizeof o);
    o.preset = "moe-tiny";
    o.layers = 1;
    assert_int_equal(qs_init(&o, TEMP, &err), QS_OK);
    qs_convert_opts_init(&c, sizeof c);
    c.type = "Q8_0";
    assert_int_equal(qs_convert(&c, TEMP, ".", &err), QS_E_ARG);
    assert_non_null(strstr(err.text, "'./model.gguf'"));
    assert_int_equal(qs_convert(&c, TEMP, "./", &err), QS_E_ARG);
    assert_non_null(strstr(err.text, "'./model.gguf'"));
    remove(TEMP);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(presets_have_names),
        cmocka_unit_test(a_new_model_is_described),
        cmocka_unit_test(shorter_structs_work),
        cmocka_unit_test(refusals),
        cmocka_unit_test(a_folder_is_no_file),
    };
    return cmocka_run_group_tests(tests, tmp_enter, tmp_leave);
}
