/* Names, listings and the choice among files. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "hub/repo.h"

static void names(void **state) {
    qsi_hub_name n;
    qs_err err = {0};
    assert_int_equal(qsi_hub_name_parse(&n, "o-1/N.a_b", &err), QS_OK);
    assert_string_equal(n.owner, "o-1");
    assert_string_equal(n.name, "N.a_b");
    assert_string_equal(n.what, "");
    assert_int_equal(qsi_hub_name_parse(&n, "o/n@v1.0:sub/x-Q4_0.gguf", &err), QS_OK);
    assert_string_equal(n.revision, "v1.0");
    assert_string_equal(n.what, "sub/x-Q4_0.gguf");
    static const char *const bad[] = {
        "", "o", "o/", "/n", "o/n/x", "../n", "o/..", "o/n:", "o/n@", "o/n@a/b", "o/n:../x",
        "o/n:a//b", "o/n:a\\b", "o/n:\x1b[1m", "o /n", "诗/n"};
    for (size_t i = 0; i < QSI_COUNT(bad); i++)
        if (qsi_hub_name_parse(&n, bad[i], &err) != QS_E_ARG) fail_msg("'%s' is taken", bad[i]);
}

static void add(qsi_hub_repo *r, const char *json) {
    qs_err err = {0};
    qs_status st = qsi_hub_repo_add(r, json, strlen(json), &err);
    if (st != QS_OK) fail_msg("%s", err.text);
}

static void listings(void **state) {
    qsi_hub_repo r = {0};
    qs_err err = {0};
    add(&r, "[{\"type\":\"directory\",\"path\":\"d\",\"oid\":\"x\",\"size\":0},"
            "{\"type\":\"file\",\"path\":\"a.json\",\"size\":3,"
            "\"oid\":\"0123456789012345678901234567890123456789\"},"
            "{\"type\":\"file\",\"path\":\"b.gguf\",\"size\":1,\"oid\":\"y\","
            "\"lfs\":{\"size\":99,\"oid\":"
            "\"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\"}},"
            "{\"type\":\"file\",\"path\":\"../c\",\"size\":1}]");
    assert_int_equal(r.n_files, 2);
    assert_non_null(r.files[0].git_blob);
    assert_null(r.files[0].sha256);
    assert_int_equal(r.files[1].size, 99);
    assert_non_null(r.files[1].sha256);
    static const char *const bad[] = {"", "{}", "[{\"type\":\"file\",\"path\":\"x\"}]",
                                      "[{\"type\":\"file\",\"path\":\"x\",\"size\":-1}]", "[1,"};
    for (size_t i = 0; i < QSI_COUNT(bad); i++) {
        err = (qs_err){0};
        assert_int_not_equal(qsi_hub_repo_add(&r, bad[i], strlen(bad[i]), &err), QS_OK);
        assert_true(err.text[0] != '\0');
    }
    qsi_hub_repo_release(&r);
}

/* Chosen paths joined by spaces; the status's name when there is none. */
static const char *choose(const char *const *paths, size_t n, const char *what) {
    static char out[512];
    char json[2048] = "[";
    qsi_hub_repo r = {0};
    qs_err err = {0};
    size_t at = 1;
    for (size_t i = 0; i < n; i++)
        at += (size_t)snprintf(json + at, sizeof json - at,
                               "%s{\"type\":\"file\",\"path\":\"%s\",\"size\":1}", i ? "," : "",
                               paths[i]);
    snprintf(json + at, sizeof json - at, "]");
    add(&r, json);
    qs_status st = qsi_hub_choose(&r, what, &err);
    at = 0;
    out[0] = '\0';
    if (st == QS_E_ARG) at += (size_t)snprintf(out, sizeof out, "several");
    if (st == QS_E_NOTFOUND) at += (size_t)snprintf(out, sizeof out, "none");
    for (size_t i = 0; st == QS_OK && i < r.n_files; i++)
        if (r.files[i].chosen)
            at += (size_t)snprintf(out + at, sizeof out - at, "%s%s", at ? " " : "", r.files[i].path);
    qsi_hub_repo_release(&r);
    return out;
}
#define CHOOSE(what, ...)                                                                          \
    choose((const char *const[]){__VA_ARGS__},                                                     \
           sizeof((const char *[]){__VA_ARGS__}) / sizeof(char *), what)

static void choices(void **state) {
    assert_string_equal(CHOOSE("", "m.gguf", "README.md"), "m.gguf");
    assert_string_equal(CHOOSE("", "m.Q4_0.gguf", "m.Q8_0.gguf"), "several");
    assert_string_equal(CHOOSE("Q8_0", "m.Q4_0.gguf", "m.Q8_0.gguf"), "m.Q8_0.gguf");
    assert_string_equal(CHOOSE("q4_k", "m.Q4_K_M.gguf", "m-Q4_K.gguf"), "m-Q4_K.gguf");
    assert_string_equal(CHOOSE("F16", "d/m-f16.gguf", "m.BF16.gguf"), "d/m-f16.gguf");
    assert_string_equal(CHOOSE("Q4_0", "a.Q4_0.gguf", "b.Q4_0.gguf"), "several");
    assert_string_equal(CHOOSE("b.Q4_0.gguf", "a.Q4_0.gguf", "b.Q4_0.gguf"), "b.Q4_0.gguf");
    assert_string_equal(CHOOSE("Q2_K", "m.Q4_0.gguf"), "none");
    assert_string_equal(CHOOSE("", "README.md"), "none");
    assert_string_equal(CHOOSE("", "m-00001-of-00002.gguf", "m-00002-of-00002.gguf"),
                        "m-00001-of-00002.gguf m-00002-of-00002.gguf");
    assert_string_equal(CHOOSE("", "config.json", "model.safetensors", "x.gguf", "tokenizer.json"),
                        "config.json model.safetensors tokenizer.json");
    assert_string_equal(CHOOSE("", "config.json", "pytorch_model-00001-of-00001.bin", "training.bin"),
                        "config.json pytorch_model-00001-of-00001.bin");
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(names), cmocka_unit_test(listings),
                                       cmocka_unit_test(choices)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
