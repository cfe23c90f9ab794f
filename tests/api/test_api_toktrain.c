/* Learning from files: folders, JSON lines, what is refused; the file it writes opens again. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "qiusuo/tokenizer.h"

static char folder[] = "toktrain-XXXXXX", out[64];
static qs_err err;

static void put(const char *name, const char *text) {
    char path[128];
    FILE *f;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, strlen(text), f), strlen(text));
    fclose(f);
}

static int setup(void **state) {
    char sub[64];
    if (mkdtemp(folder) == NULL) return -1;
    snprintf(out, sizeof out, "%s/v.gguf", folder);
    snprintf(sub, sizeof sub, "%s/sub", folder);
    if (mkdir(sub, 0700) != 0) return -1;
    put("a.txt", "the river the river\n");
    put("sub/b.md", "the stones the stones\n");
    put("skipped.bin", "zqzqzqzqzqzqzqzq");
    return 0;
}

static int teardown(void **state) {
    static const char *const names[] = {"a.txt", "sub/b.md", "skipped.bin", "v.gguf", "c.jsonl",
                                        "bad.txt", "w.gguf", "sub", ""};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char path[128];
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        (void)remove(path);
    }
    return 0;
}

static qs_status learn(const char *path, const char *to, qs_tokenizer_trained *done) {
    const qs_tokenizer_training s = {.paths = &path, .n_paths = 1, .n_vocab = 300, .out = to};
    return qs_tokenizer_train(&s, done, &err);
}

static int has(const char *path, const char *token) {
    qs_tokenizer *t = NULL;
    int found;
    if (qs_tokenizer_open(&t, path, &err) != QS_OK) fail_msg("%s", err.text);
    found = qs_tokenizer_find(t, token, strlen(token)) >= 0;
    qs_tokenizer_close(&t);
    return found;
}

static void learns_from_a_folder(void **state) {
    qs_tokenizer_trained done;
    qs_tokenizer *t = NULL;
    if (learn(folder, out, &done) != QS_OK) fail_msg("%s", err.text);
    assert_int_equal(done.n_files, 2);
    assert_int_equal(done.n_bytes, 42);
    assert_true(has(out, "the") && has(out, "stones") == has(out, "river"));
    assert_false(has(out, "zq"));
    assert_int_equal(qs_tokenizer_open(&t, out, &err), QS_OK);
    assert_int_equal(qs_tokenizer_size(t), done.n_vocab);
    assert_int_equal(qs_tokenizer_bos(t), done.n_vocab - 2);
    assert_int_equal(qs_tokenizer_eos(t), done.n_vocab - 1);
    qs_tokenizer_close(&t);
}

static void writes_the_same_file_twice(void **state) {
    char other[64], a[32768], b[32768];
    size_t n, m;
    FILE *f;
    snprintf(other, sizeof other, "%s/w.gguf", folder);
    assert_int_equal(learn(folder, out, NULL), QS_OK);
    assert_int_equal(learn(folder, other, NULL), QS_OK);
    f = fopen(out, "rb");
    assert_non_null(f);
    n = fread(a, 1, sizeof a, f);
    fclose(f);
    f = fopen(other, "rb");
    assert_non_null(f);
    m = fread(b, 1, sizeof b, f);
    fclose(f);
    assert_true(n > 1000 && n < sizeof a);
    assert_int_equal(n, m);
    assert_memory_equal(a, b, n);
}

/* Of JSON lines only "text" and "content" are text: not the names of roles. */
static void reads_json_lines(void **state) {
    char path[64];
    snprintf(path, sizeof path, "%s/c.jsonl", folder);
    put("c.jsonl", "{\"text\":\"abc abc\"}\n\n"
                   "{\"messages\":[{\"role\":\"assistant\",\"content\":\"abc\"},"
                   "{\"role\":\"assistant\",\"content\":\"de de\"}]}");
    assert_int_equal(learn(path, out, NULL), QS_OK);
    assert_true(has(out, "abc") && has(out, "de"));
    assert_false(has(out, "ss"));
    put("c.jsonl", "{\"text\":\"a\"}\n{\"text\":");
    assert_int_equal(learn(path, out, NULL), QS_E_FORMAT);
    assert_non_null(strstr(err.text, "line 2"));
    assert_non_null(strstr(err.text, "c.jsonl"));
    (void)remove(path);
}

static void refuses_what_is_no_text(void **state) {
    char path[64];
    snprintf(path, sizeof path, "%s/bad.txt", folder);
    put("bad.txt", "abc\xff");
    assert_int_equal(learn(path, out, NULL), QS_E_FORMAT);
    assert_int_equal(err.offset, 3);
    assert_non_null(strstr(err.text, "bad.txt"));
    put("bad.txt", "");
    assert_int_equal(learn(path, out, NULL), QS_E_ARG);
    assert_int_equal(learn("no/such/file", out, NULL), QS_E_NOTFOUND);
    (void)remove(path);
}

static int stop(void *user, int merging, int64_t done, int64_t of) { return merging; }

static void can_be_cancelled(void **state) {
    const char *path = folder;
    char gone[64];
    const qs_tokenizer_training s = {.paths = &path, .n_paths = 1, .n_vocab = 300, .out = gone,
                                     .progress = stop};
    (void)remove(out);
    snprintf(gone, sizeof gone, "%s", out);
    assert_int_equal(qs_tokenizer_train(&s, NULL, &err), QS_E_CANCELLED);
    assert_int_equal(access(out, F_OK), -1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(learns_from_a_folder),
        cmocka_unit_test(writes_the_same_file_twice),
        cmocka_unit_test(reads_json_lines),
        cmocka_unit_test(refuses_what_is_no_text),
        cmocka_unit_test(can_be_cancelled),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
