/* Atomic replacement: the target is the old file or the whole new one, whatever happens. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "base/hash.h"
#include "base/mem.h"
#include "sys/file.h"
#include "tmpdir.h"

static void holds(const char *path, const void *want, size_t n) {
    qsi_str s = {0};
    assert_int_equal(qsi_file_read(path, SIZE_MAX, &s, NULL), QS_OK);
    assert_int_equal(s.len, n);
    assert_memory_equal(s.data, want, n);
    qsi_str_release(&s);
}

static const char *fresh(const char *name) {
    const char *path = tmp_path(name);
    tmp_write(path, "old", 3);
    return path;
}

static void commit_replaces(void **state) {
    (void)state;
    const char *path = fresh("a.gguf");
    int before = tmp_count(tmp_root);
    qsi_writer *w;
    qs_err err;
    assert_int_equal(qsi_writer_open(&w, path, &err), QS_OK);
    assert_int_equal(tmp_count(tmp_root), before + 1);
    assert_int_equal(qsi_writer_write(w, "床前", 6, &err), QS_OK);
    assert_int_equal(qsi_writer_write(w, NULL, 0, &err), QS_OK);
    assert_int_equal(qsi_writer_write(w, "明月光", 9, &err), QS_OK);
    assert_int_equal(qsi_writer_pos(w), 15);
    holds(path, "old", 3);
    assert_int_equal(qsi_writer_commit(&w, &err), QS_OK);
    assert_null(w);
    holds(path, "床前明月光", 15);
    assert_int_equal(tmp_count(tmp_root), before);
    unlink(path);
}

static void abort_leaves_nothing(void **state) {
    (void)state;
    const char *path = tmp_path("never");
    int before = tmp_count(tmp_root);
    qsi_writer *w;
    assert_int_equal(qsi_writer_open(&w, path, NULL), QS_OK);
    assert_int_equal(qsi_writer_write(w, "x", 1, NULL), QS_OK);
    qsi_writer_abort(&w);
    assert_null(w);
    qsi_writer_abort(&w);
    assert_false(qsi_path_exists(path));
    assert_int_equal(tmp_count(tmp_root), before);
}

/* Pieces of all sizes around the buffer's, with patches in between, against a plain array. */
static void random_writes(void **state) {
    (void)state;
    enum { N = 4 << 20 };
    static const size_t sizes[] = {0, 1, 100, 65536, 262143, 262144, 262145, 700000};
    uint8_t *want = qsi_calloc(N, 1), *from = qsi_alloc(N, 1);
    const char *path = tmp_path("random");
    qsi_rng r;
    qsi_rng_init(&r, 1);
    for (int i = 0; i < N; i++) from[i] = (uint8_t)qsi_rng_u64(&r);
    qsi_writer *w;
    size_t pos = 0;
    assert_int_equal(qsi_writer_open(&w, path, NULL), QS_OK);
    for (;;) {
        size_t n = sizes[qsi_rng_below(&r, QSI_COUNT(sizes))];
        if (n > N - pos) break;
        size_t at = (size_t)qsi_rng_below(&r, N - n + 1);
        assert_int_equal(qsi_writer_write(w, from + at, n, NULL), QS_OK);
        memcpy(want + pos, from + at, n);
        pos += n;
        assert_int_equal(qsi_writer_pos(w), pos);
        if (qsi_rng_below(&r, 3) != 0 || pos < 100) continue;
        size_t off = (size_t)qsi_rng_below(&r, pos - 99);
        assert_int_equal(qsi_writer_patch(w, off, from, 100, NULL), QS_OK);
        memcpy(want + off, from, 100);
    }
    assert_int_equal(qsi_writer_commit(&w, NULL), QS_OK);
    holds(path, want, pos);
    unlink(path);
    qsi_free(want);
    qsi_free(from);
}

static void patch_past_the_end_sticks(void **state) {
    (void)state;
    const char *path = fresh("patched");
    qsi_writer *w;
    qs_err err;
    assert_int_equal(qsi_writer_open(&w, path, NULL), QS_OK);
    assert_int_equal(qsi_writer_write(w, "0123456789", 10, NULL), QS_OK);
    assert_int_equal(qsi_writer_patch(w, 8, "xy", 2, &err), QS_OK);
    assert_int_equal(qsi_writer_patch(w, 9, "xy", 2, &err), QS_E_RANGE);
    assert_int_equal(qsi_writer_write(w, "x", 1, &err), QS_E_RANGE);
    assert_int_equal(qsi_writer_commit(&w, &err), QS_E_RANGE);
    assert_null(w);
    holds(path, "old", 3);
    assert_int_equal(qsi_writer_open(&w, path, NULL), QS_OK);
    assert_int_equal(qsi_writer_patch(w, UINT64_MAX, "x", 1, &err), QS_E_RANGE);
    qsi_writer_abort(&w);
    unlink(path);
}

static void full_disk(void **state) {
    (void)state;
    const char *path = fresh("full");
    int before = tmp_count(tmp_root);
    char *data = qsi_calloc(1, 1 << 20);
    struct rlimit old, low;
    getrlimit(RLIMIT_FSIZE, &old);
    low = old;
    low.rlim_cur = 700000;
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &low), 0);
    qs_err err, again;
    qsi_writer *w;
    assert_int_equal(qsi_writer_open(&w, path, &err), QS_OK);
    assert_int_equal(qsi_writer_write(w, data, 600000, &err), QS_OK);
    assert_int_equal(qsi_writer_write(w, data, 600000, &err), QS_E_IO);
    assert_non_null(strstr(err.text, "full"));
    assert_non_null(strstr(err.text, "File too large"));
    assert_int_equal(qsi_writer_write(w, data, 1, &again), QS_E_IO); /* sticks */
    assert_string_equal(again.text, err.text);
    assert_int_equal(qsi_writer_commit(&w, &again), QS_E_IO);
    assert_string_equal(again.text, err.text);
    /* The same when only the last flush, inside commit, meets the limit. */
    assert_int_equal(qsi_writer_open(&w, path, &err), QS_OK);
    assert_int_equal(qsi_writer_write(w, data, 600000, &err), QS_OK);
    assert_int_equal(qsi_writer_write(w, data, 200000, &err), QS_OK);
    assert_int_equal(qsi_writer_commit(&w, &err), QS_E_IO);
    setrlimit(RLIMIT_FSIZE, &old);
    holds(path, "old", 3);
    assert_int_equal(tmp_count(tmp_root), before);
    qsi_free(data);
    unlink(path);
}

static void killed_before_commit(void **state) {
    (void)state;
    const char *path = fresh("killed");
    pid_t pid = fork();
    if (pid == 0) {
        qsi_writer *w;
        static char data[1 << 20];
        if (qsi_writer_open(&w, path, NULL) != QS_OK) _exit(1);
        if (qsi_writer_write(w, data, sizeof(data), NULL) != QS_OK) _exit(1);
        kill(getpid(), SIGKILL);
    }
    int status = 0;
    assert_true(pid > 0 && waitpid(pid, &status, 0) == pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    holds(path, "old", 3);
    /* What it left does not disturb the next writer. */
    qsi_writer *w;
    assert_int_equal(qsi_writer_open(&w, path, NULL), QS_OK);
    assert_int_equal(qsi_writer_write(w, "new", 3, NULL), QS_OK);
    assert_int_equal(qsi_writer_commit(&w, NULL), QS_OK);
    holds(path, "new", 3);
    unlink(path);
}

static void two_writers_last_commit_wins(void **state) {
    (void)state;
    const char *path = tmp_path("two");
    qsi_writer *a, *b;
    assert_int_equal(qsi_writer_open(&a, path, NULL), QS_OK);
    assert_int_equal(qsi_writer_open(&b, path, NULL), QS_OK);
    assert_int_equal(qsi_writer_write(a, "aaaa", 4, NULL), QS_OK);
    assert_int_equal(qsi_writer_write(b, "bb", 2, NULL), QS_OK);
    assert_int_equal(qsi_writer_commit(&b, NULL), QS_OK);
    holds(path, "bb", 2);
    assert_int_equal(qsi_writer_commit(&a, NULL), QS_OK);
    holds(path, "aaaa", 4);
    unlink(path);
}

static void links_and_modes(void **state) {
    (void)state;
    const char *real = fresh("real"), *link = tmp_path("link");
    struct stat sb;
    assert_int_equal(chmod(real, 0640), 0);
    assert_int_equal(symlink("real", link), 0);
    qsi_writer *w;
    assert_int_equal(qsi_writer_open(&w, link, NULL), QS_OK);
    assert_int_equal(qsi_writer_write(w, "new", 3, NULL), QS_OK);
    assert_int_equal(qsi_writer_commit(&w, NULL), QS_OK);
    holds(real, "new", 3);
    assert_int_equal(lstat(link, &sb), 0);
    assert_true(S_ISLNK(sb.st_mode));
    assert_int_equal(stat(real, &sb), 0);
    assert_int_equal(sb.st_mode & 0777, 0640);
    unlink(link);
    unlink(real);
}

static void refuses(void **state) {
    (void)state;
    qsi_writer *w = NULL;
    qs_err err;
    assert_int_equal(qsi_writer_open(&w, tmp_root, &err), QS_E_IO);
    assert_non_null(strstr(err.text, "folder"));
    assert_int_equal(qsi_writer_open(&w, "/dev/null", &err), QS_E_IO);
    assert_non_null(strstr(err.text, "regular"));
    struct stat sb;
    assert_true(stat("/dev/null", &sb) == 0 && S_ISCHR(sb.st_mode));
    assert_int_equal(qsi_writer_open(&w, tmp_path("no/such/folder/x"), &err), QS_E_NOTFOUND);
    assert_non_null(strstr(err.text, "no/such/folder/x"));
    assert_null(w);
}

static void in_the_current_folder(void **state) {
    (void)state;
    char here[1024];
    qsi_writer *w;
    assert_non_null(getcwd(here, sizeof(here)));
    assert_int_equal(chdir(tmp_root), 0);
    assert_int_equal(qsi_writer_open(&w, "plain", NULL), QS_OK);
    assert_int_equal(qsi_writer_write(w, "x", 1, NULL), QS_OK);
    assert_int_equal(qsi_writer_commit(&w, NULL), QS_OK);
    holds("plain", "x", 1);
    unlink("plain");
    assert_int_equal(chdir(here), 0);
}

#ifdef QS_DEBUG
static void nth_allocation_fails(void **state) {
    (void)state;
    const char *path = fresh("nth");
    int before = tmp_count(tmp_root);
    for (int n = 1;; n++) {
        qsi_writer *w = NULL;
        qs_err err;
        qsi_mem_fail_after(n);
        qs_status st = qsi_writer_open(&w, path, &err);
        if (st == QS_OK) st = qsi_writer_write(w, "new", 3, &err);
        /* Commit renames before its last allocation: then the new file is in place. */
        if (st == QS_OK) st = qsi_writer_commit(&w, &err);
        qsi_mem_fail_after(-1);
        if (w != NULL) qsi_writer_abort(&w);
        assert_int_equal(tmp_count(tmp_root), before);
        if (st == QS_OK) break;
        assert_int_equal(st, QS_E_NOMEM);
        assert_non_null(strstr(err.text, "nth"));
    }
    holds(path, "new", 3);
    unlink(path);
}
#endif

/* A file without a name: bytes are there, no entry in the folder ever stays. */
static void nameless_files(void **state) {
    (void)state;
    qs_err err = {0};
    qsi_writer *w = NULL;
    qsi_map m = {.fd = -1};
    int before = tmp_count(tmp_root);
    assert_int_equal(qsi_writer_open_temp(&w, tmp_root, &err), QS_OK);
    assert_int_equal(tmp_count(tmp_root), before);
    assert_int_equal(qsi_writer_write(w, "床前x月光", 13, &err), QS_OK);
    assert_int_equal(qsi_writer_patch(w, 6, "明", 3, &err), QS_OK);
    assert_int_equal(qsi_writer_take_map(&w, &m, &err), QS_OK);
    assert_null(w);
    assert_int_equal(m.size, 13);
    assert_memory_equal(m.data, "床前明", 9);
    qsi_map_close(&m);
    assert_int_equal(qsi_writer_open_temp(&w, tmp_root, &err), QS_OK);
    assert_int_equal(qsi_writer_take_map(&w, &m, &err), QS_OK); /* nothing written */
    assert_int_equal(m.size, 0);
    qsi_map_close(&m);
    assert_int_equal(qsi_writer_open_temp(&w, tmp_root, &err), QS_OK);
    qsi_writer_abort(&w);
    assert_int_equal(tmp_count(tmp_root), before);
    assert_int_equal(qsi_writer_open_temp(&w, "no such folder", &err), QS_E_NOTFOUND);
    assert_null(w);
}

/* What a killed writer left goes with the next one; what is being written, or only looks alike,
 * stays. */
static void leftovers_are_removed(void **state) {
    (void)state;
    static const char *const kept[] = {".l.gguf.12.tmp", ".l.gguf.x.0.tmp", ".l.gguf.1.0.tmp2",
                                       ".ll.gguf.1.0.tmp", "l.gguf.1.0.tmp"};
    const char *path = fresh("l.gguf");
    qsi_writer *live, *w;
    qs_err err;
    assert_int_equal(qsi_writer_open(&live, path, &err), QS_OK);
    assert_int_equal(qsi_writer_write(live, "live", 4, &err), QS_OK);
    for (size_t i = 0; i < QSI_COUNT(kept); i++) tmp_write(tmp_path(kept[i]), "x", 1);
    int before = tmp_count(tmp_root);
    tmp_write(tmp_path(".l.gguf.1.0.tmp"), "left", 4);
    tmp_write(tmp_path(".l.gguf.4194304.17.tmp"), "left", 4);
    assert_int_equal(qsi_writer_open(&w, path, &err), QS_OK);
    assert_int_equal(tmp_count(tmp_root), before + 1); /* w's own */
    qsi_writer_abort(&w);
    assert_int_equal(qsi_writer_commit(&live, &err), QS_OK);
    holds(path, "live", 4);
    for (size_t i = 0; i < QSI_COUNT(kept); i++) assert_int_equal(unlink(tmp_path(kept[i])), 0);
    unlink(path);
}

/* ---- over several runs ---- */

static qsi_writer *open_part(const char *path, qsi_origin o, qsi_resume *r) {
    qs_err err = {0};
    qsi_writer *w = NULL;
    if (qsi_writer_open_part(&w, path, o, r, &err) != QS_OK) fail_msg("%s", err.text);
    return w;
}

static void put(qsi_writer *w, const char *text, bool mark) {
    assert_int_equal(qsi_writer_write(w, text, strlen(text), NULL), QS_OK);
    if (mark) assert_int_equal(qsi_writer_mark(w, NULL), QS_OK);
}

/* What was marked is there in the next run, what was not is written again. */
static void parts_go_on(void **state) {
    (void)state;
    const qsi_origin o = {1, 2};
    const char *path = tmp_path("part.gguf");
    int before = tmp_count(tmp_root);
    qsi_resume r = {0};
    qsi_writer *w = open_part(path, o, &r);
    assert_true(r.marks == 0 && r.bytes == 0 && !r.other_source && !r.other_options);
    put(w, "head", true);
    put(w, "first", true);
    put(w, "seco", false);
    qsi_writer_leave(&w);
    assert_null(w);
    assert_int_equal(access(path, F_OK), -1);
    w = open_part(path, o, &r);
    assert_true(r.marks == 2 && r.bytes == 9);
    assert_int_equal(qsi_writer_pos(w), 9);
    put(w, "second", true);
    assert_int_equal(qsi_writer_commit(&w, NULL), QS_OK);
    holds(path, "headfirstsecond", 15);
    assert_int_equal(tmp_count(tmp_root), before + 1);
    unlink(path);
}

/* Without a mark nothing is worth keeping; abort keeps nothing in any case. */
static void parts_leave_nothing(void **state) {
    (void)state;
    const qsi_origin o = {1, 2};
    const char *path = tmp_path("gone.gguf");
    int before = tmp_count(tmp_root);
    qsi_resume r = {0};
    qsi_writer *w = open_part(path, o, &r);
    put(w, "unmarked", false);
    qsi_writer_leave(&w);
    assert_int_equal(tmp_count(tmp_root), before);
    w = open_part(path, o, &r);
    put(w, "marked", true);
    qsi_writer_abort(&w);
    assert_int_equal(tmp_count(tmp_root), before);
}

static void other_origins_start_anew(void **state) {
    (void)state;
    const qsi_origin others[] = {{1, 3}, {7, 2}};
    const char *path = tmp_path("other.gguf");
    for (int i = 0; i < 2; i++) {
        qsi_resume r = {0};
        qsi_writer *w = open_part(path, (qsi_origin){1, 2}, &r);
        put(w, "of another origin", true);
        qsi_writer_leave(&w);
        w = open_part(path, others[i], &r);
        assert_int_equal(r.marks, 0);
        assert_int_equal(r.other_options, i == 0);
        assert_int_equal(r.other_source, i == 1);
        put(w, "new", true);
        assert_int_equal(qsi_writer_commit(&w, NULL), QS_OK);
        holds(path, "new", 3);
    }
    unlink(path);
}

/* One writer at a time; a second one is refused and harms nothing. */
static void parts_have_one_writer(void **state) {
    (void)state;
    const char *path = tmp_path("locked.gguf");
    qs_err err = {0};
    qsi_resume r = {0};
    qsi_writer *other = NULL, *w = open_part(path, (qsi_origin){1, 2}, &r);
    put(w, "mine", true);
    assert_int_equal(qsi_writer_open_part(&other, path, (qsi_origin){1, 2}, &r, &err), QS_E_IO);
    assert_non_null(strstr(err.text, "another program"));
    put(w, "!", true);
    assert_int_equal(qsi_writer_commit(&w, NULL), QS_OK);
    holds(path, "mine!", 5);
    unlink(path);
}

/* Of several files that belong together the complete ones are known by their journals. */
static void kept_journals(void **state) {
    (void)state;
    const qsi_origin o = {1, 2};
    const char *path = tmp_path("kept.gguf");
    int before = tmp_count(tmp_root);
    qsi_resume r = {0};
    bool whole = true;
    assert_int_equal(qsi_writer_whole(path, o, 2, &whole, NULL), QS_OK);
    assert_false(whole);
    qsi_writer *w = open_part(path, o, &r);
    qsi_writer_keep_journal(w);
    put(w, "a", true);
    put(w, "b", true);
    assert_int_equal(qsi_writer_commit(&w, NULL), QS_OK);
    assert_int_equal(qsi_writer_whole(path, o, 2, &whole, NULL), QS_OK);
    assert_true(whole);
    assert_int_equal(qsi_writer_whole(path, o, 3, &whole, NULL), QS_OK);
    assert_false(whole);
    assert_int_equal(qsi_writer_whole(path, (qsi_origin){1, 3}, 2, &whole, NULL), QS_OK);
    assert_false(whole);
    tmp_write(path, "ax", 2);
    assert_int_equal(qsi_writer_whole(path, o, 2, &whole, NULL), QS_OK);
    assert_false(whole);
    qsi_writer_forget(path);
    assert_int_equal(tmp_count(tmp_root), before + 1);
    unlink(path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(commit_replaces),
        cmocka_unit_test(nameless_files),
        cmocka_unit_test(abort_leaves_nothing),
        cmocka_unit_test(random_writes),
        cmocka_unit_test(patch_past_the_end_sticks),
        cmocka_unit_test(full_disk),
        cmocka_unit_test(killed_before_commit),
        cmocka_unit_test(leftovers_are_removed),
        cmocka_unit_test(two_writers_last_commit_wins),
        cmocka_unit_test(links_and_modes),
        cmocka_unit_test(refuses),
        cmocka_unit_test(in_the_current_folder),
        cmocka_unit_test(parts_go_on),
        cmocka_unit_test(parts_leave_nothing),
        cmocka_unit_test(other_origins_start_anew),
        cmocka_unit_test(parts_have_one_writer),
        cmocka_unit_test(kept_journals),
#ifdef QS_DEBUG
        cmocka_unit_test(nth_allocation_fails),
#endif
    };
    return cmocka_run_group_tests(tests, tmp_setup, tmp_teardown);
}
