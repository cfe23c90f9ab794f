/* Text sources: documents, cuts, conversations, and errors that name file and line. */
#include "train_testing.h"

#include "sys/mapguard.h"
#include "train/source.h"

typedef struct seen {
    qsi_str all;     /* texts joined by '|', turns by '/' */
    size_t n;
    int64_t line[64];
    bool first[64], last[64];
    uint64_t hash[64];
} seen;

static qs_status collect(void *user, const qsi_doc *d, qs_err *err) {
    seen *s = user;
    (void)err;
    assert_true(s->n < 64);
    if (s->n > 0) assert_int_equal(qsi_str_putc(&s->all, '|'), QS_OK);
    if (d->text != NULL) assert_int_equal(qsi_str_append(&s->all, d->text, d->n), QS_OK);
    for (size_t i = 0; i < d->n_turns; i++) {
        static const char role[] = "sua";
        assert_int_equal(qsi_str_printf(&s->all, "%s%c:", i ? "/" : "", role[d->turns[i].role]),
                         QS_OK);
        assert_int_equal(qsi_str_append(&s->all, d->turns[i].text, d->turns[i].n), QS_OK);
    }
    s->line[s->n] = d->line;
    s->first[s->n] = d->first;
    s->last[s->n] = d->last;
    s->hash[s->n] = d->hash;
    s->n++;
    return QS_OK;
}

static qs_status parse(seen *s, bool jsonl, const char *text, size_t n, int64_t doc_bytes,
                       bool blank, qs_err *err) {
    const qsi_source_opts o = {.doc_bytes = doc_bytes, .split_blank = blank};
    *s = (seen){.n = 0};
    return qsi_source_parse("f", jsonl, text, n, 0, &o, collect, s, err);
}

#define PARSE(jsonl, text, bytes, blank) parse(&s, jsonl, text, strlen(text), bytes, blank, &err)

static void plain(void **state) {
    (void)state;
    seen s;
    qs_err err = {0};
    assert_int_equal(PARSE(false, "\xEF\xBB\xBFone\n\ntwo\n", 100, false), QS_OK);
    assert_int_equal(s.n, 1);
    assert_string_equal(s.all.data, "one\n\ntwo\n");
    qsi_str_release(&s.all);
    assert_int_equal(PARSE(false, "one\nmore\n\n \n\ntwo\n\n", 100, true), QS_OK);
    assert_string_equal(s.all.data, "one\nmore\n|two\n");
    assert_int_equal(s.line[1], 6);
    qsi_str_release(&s.all);
    assert_int_equal(PARSE(false, " \n\n", 100, false), QS_OK);
    assert_int_equal(s.n, 0);
    assert_int_equal(PARSE(false, "", 100, true), QS_OK);
    assert_int_equal(s.n, 0);
}

static void cuts(void **state) {
    (void)state;
    seen s;
    qs_err err = {0};
    /* blank line, line, character: the last place before the limit that is not in the first half */
    assert_int_equal(PARSE(false, "aaaa\naa\n\nbbb\nbbbb\nccccccccccccccc", 10, false), QS_OK);
    assert_string_equal(s.all.data, "aaaa\naa\n\n|bbb\nbbbb\n|cccccccccc|ccccc");
    assert_true(s.first[0] && !s.first[1] && !s.last[0] && s.last[3]);
    assert_int_equal(s.line[1], 4);
    qsi_str_release(&s.all);
    /* characters are never cut: three bytes each */
    assert_int_equal(PARSE(false, "\u6c42\u7d22\u6c42\u7d22\u6c42\u7d22", 10, false), QS_OK);
    assert_string_equal(s.all.data, "\u6c42\u7d22\u6c42|\u7d22\u6c42\u7d22");
    qsi_str_release(&s.all);
}

static void json_lines(void **state) {
    (void)state;
    seen s;
    qs_err err = {0};
    assert_int_equal(PARSE(true, "{\"text\":\"a\\nb\",\"x\":1}\n\n"
                           "{\"messages\":[{\"role\":\"system\",\"content\":\"S\"},"
                           "{\"role\":\"user\",\"content\":\"\u95ee\"},"
                           "{\"role\":\"assistant\",\"content\":\"A\"}]}", 100, false), QS_OK);
    assert_string_equal(s.all.data, "a\nb|s:S/u:\u95ee/a:A");
    assert_int_equal(s.line[0], 1);
    assert_int_equal(s.line[1], 3);
    qsi_str_release(&s.all);
}

static void refused(void **state, const char *text, const char *want) {
    (void)state;
    seen s;
    qs_err err = {0};
    assert_int_equal(PARSE(true, text, 100, false), QS_E_FORMAT);
    if (strstr(err.text, want) == NULL) fail_msg("'%s' lacks '%s'", err.text, want);
    qsi_str_release(&s.all);
}

static void errors_name_the_place(void **state) {
    refused(state, "{\"text\":\"a\"}\n{\"text\":", "'f' line 2");
    refused(state, "[1]", "'f' line 1");
    refused(state, "{\"txt\":\"a\"}", "messages");
    refused(state, "{\"text\":5}", "line 1");
    refused(state, "{\"messages\":[]}", "line 1");
    refused(state, "{\"messages\":[{\"role\":\"bot\",\"content\":\"x\"}]}", "'bot'");
    refused(state, "{\"messages\":[{\"role\":\"user\"}]}", "content");
    refused(state, "{\"text\":\"a\"}\n\n\nx\n", "'f' line 4");
    seen s;
    qs_err err = {0};
    const char bad[] = "good\ngood\nb\xff" "d\n";
    assert_int_equal(parse(&s, false, bad, sizeof(bad) - 1, 100, false, &err), QS_E_FORMAT);
    assert_non_null(strstr(err.text, "'f' line 3"));
    assert_int_equal(err.offset, 11);
    const char cut[] = "\xE6\xB1"; /* the file ends inside a character */
    assert_int_equal(parse(&s, false, cut, 2, 100, false, &err), QS_E_FORMAT);
}

static void hashes(void **state) {
    (void)state;
    seen s;
    qs_err err = {0};
    assert_int_equal(PARSE(true, "{\"text\":\"same\"}\n{\"text\":\"same\"}\n{\"text\":\"other\"}",
                           100, false), QS_OK);
    assert_true(s.hash[0] == s.hash[1]);
    assert_true(s.hash[0] != s.hash[2]);
    qsi_str_release(&s.all);
}

static void folders(void **state) {
    (void)state;
    qs_err err = {0};
    qsi_source_files f;
    qsi_strlist paths = {0};
    const char *list[2];
    assert_int_equal(qsi_make_dirs(in_dir("tree/sub/deep"), &err), QS_OK);
    put_file(in_dir("tree/b.txt"), "b", 1);
    put_file(in_dir("tree/a.md"), "a", 1);
    put_file(in_dir("tree/no.bin"), "\xff", 1);
    put_file(in_dir("tree/sub/deep/c.jsonl"), "{\"text\":\"c\"}", 12);
    put_file(in_dir("one.dat"), "d", 1);
    assert_int_equal(symlink("..", in_dir("tree/sub/circle")), 0); /* read once, not again and again */
    list[0] = in_dir("tree");
    list[1] = in_dir("one.dat");
    paths.v = list;
    paths.n = 2;
    assert_int_equal(qsi_source_scan(&f, &paths, &err), QS_OK);
    assert_int_equal(f.n, 4);
    assert_int_equal(f.bytes, 15);
    assert_int_equal(f.v[3].source, 1);
    seen s = {.n = 0};
    const qsi_source_opts o = {.doc_bytes = 100};
    assert_int_equal(qsi_source_each(&f, &o, collect, &s, &err), QS_OK);
    assert_string_equal(s.all.data, "a|b|c|d");
    qsi_str_release(&s.all);
    uint64_t h = f.hash;
    qsi_source_files_release(&f);
    put_file(in_dir("tree/b.txt"), "B", 1);
    assert_int_equal(qsi_source_scan(&f, &paths, &err), QS_OK);
    assert_true(f.hash != h);
    qsi_source_files_release(&f);
    list[0] = in_dir("nowhere");
    assert_int_equal(qsi_source_scan(&f, &paths, &err), QS_E_IO);
    assert_int_equal(qsi_make_dirs(in_dir("empty"), &err), QS_OK);
    list[0] = in_dir("empty");
    assert_int_equal(qsi_source_scan(&f, &paths, &err), QS_E_NOTFOUND);
}

static qs_status cut_the_file(void *user, const qsi_doc *d, qs_err *err) {
    (void)d, (void)err;
    assert_int_equal(truncate(user, 0), 0);
    return QS_OK;
}

/* A text that becomes shorter while it is read would be learned from as zeros. */
static void files_that_shrink(void **state) {
    (void)state;
    enum { BYTES = 1 << 17 };
    qs_err err = {0};
    qsi_source_files f;
    const char *path = in_dir("shrinks.txt");
    const qsi_strlist paths = {.v = &path, .n = 1};
    const qsi_source_opts o = {.doc_bytes = 1000};
    char *text = malloc(BYTES);
    assert_non_null(text);
    memset(text, 'a', BYTES);
    put_file(path, text, BYTES);
    free(text);
    assert_int_equal(qsi_fault_catch(&err), QS_OK);
    assert_int_equal(qsi_source_scan(&f, &paths, &err), QS_OK);
    assert_int_equal(qsi_source_each(&f, &o, cut_the_file, (void *)(uintptr_t)path, &err), QS_E_IO);
    assert_non_null(strstr(err.text, "shrinks.txt"));
    assert_non_null(strstr(err.text, "changed while it was in use"));
    qsi_source_files_release(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain), cmocka_unit_test(cuts), cmocka_unit_test(json_lines),
        cmocka_unit_test(errors_name_the_place), cmocka_unit_test(hashes),
        cmocka_unit_test(folders), cmocka_unit_test(files_that_shrink)};
    return cmocka_run_group_tests(tests, make_test_dir, drop_test_dir);
}
