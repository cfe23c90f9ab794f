/* Models with a repacked copy: the first opening writes it, the next takes it, with the same bits; a
 * changed model, a damaged copy, a full disk, a folder that cannot be, another writer, in this process
 * or not; models in several files. */
#include "from_disk.h"

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "base/log.h"
#include "model/packed.h"
#include "op/op.h"
#include "sys/file.h"
#include "../sys/tmpdir.h"

static char model[512], folder[512];
static char notes[4096];
static pthread_mutex_t notes_lock = PTHREAD_MUTEX_INITIALIZER; /* two models may write at once */

static void keep_note(void *user, qsi_log_level level, const char *text) {
    (void)user;
    (void)level;
    pthread_mutex_lock(&notes_lock);
    size_t n = strlen(notes);
    snprintf(notes + n, sizeof notes - n, "%s\n", text);
    pthread_mutex_unlock(&notes_lock);
}

static void remove_all(void) { tmp_remove(folder); }

static int begin(void **state) {
    (void)state;
    path_of(model, sizeof model);
    snprintf(folder, sizeof folder, "%s", tmp_path("packed"));
    remove_all();
    notes[0] = '\0';
    qsi_log_set(keep_note, NULL);
    return 0;
}

static int end(void **state) {
    (void)state;
    qsi_log_set(NULL, NULL);
    remove_all();
    unlink(model);
    return 0;
}

static void make_model(bool moe, qsi_type type) {
    qsi_config c = config_of(&(shape){.moe = moe});
    write_model(&c, model, type);
}

/* Files in the folder whose names end so. */
static int count(const char *end_of_name) {
    int n = 0;
    size_t k = strlen(end_of_name);
    DIR *d = opendir(folder);
    for (struct dirent *e = d ? readdir(d) : NULL; e; e = readdir(d)) {
        size_t len = strlen(e->d_name);
        n += len >= k && strcmp(e->d_name + len - k, end_of_name) == 0;
    }
    if (d) closedir(d);
    return n;
}

static void copy_path(qsi_str *out) {
    qs_err err = {0};
    if (qsi_packed_path(out, folder, model, false, &err) != QS_OK) fail_msg("%s", err.text);
}

/* Logits of a prompt and some steps; threads change nothing. */
static float *answer(int threads, const char *packed, size_t *n) {
    qs_err err = {0};
    run r;
    if (run_open_packed(&r, model, threads, 0, packed, &err) != QS_OK) fail_msg("%s", err.text);
    if (feed(&r, 0, ROWS, true, &err) != QS_OK || feed(&r, ROWS, PROMPT - ROWS, true, &err) != QS_OK)
        fail_msg("%s", err.text);
    assert_int_equal(qsi_model_intact(r.m, &err), QS_OK);
    float *z = r.z;
    *n = (size_t)PROMPT * (size_t)qsi_model_config(r.m)->n_vocab;
    r.z = NULL;
    run_close(&r);
    return z;
}

static void same_as_without(const char *packed) {
    size_t n, m;
    float *a = answer(1, NULL, &n), *b = answer(2, packed, &m);
    assert_int_equal(n, m);
    assert_memory_equal(a, b, n * sizeof *a);
    qsi_free(a);
    qsi_free(b);
}

static void test_written_then_taken(void **state) {
    (void)state;
    static const struct {
        bool moe;
        qsi_type type;
    } cases[] = {{false, QSI_Q8_0}, {false, QSI_F16}, {true, QSI_Q4_K}};
    for (size_t i = 0; i < QSI_COUNT(cases); i++) {
        qsi_str copy = {0};
        struct stat first, second;
        make_model(cases[i].moe, cases[i].type);
        copy_path(&copy);
        same_as_without(copy.data);
        assert_int_equal(stat(copy.data, &first), 0);
        same_as_without(copy.data);
        assert_int_equal(stat(copy.data, &second), 0);
        assert_int_equal(first.st_ino, second.st_ino); /* not written again */
        qsi_packed *p = NULL;
        qs_err err = {0};
        assert_int_equal(qsi_packed_open(&p, copy.data, NULL, &err), QS_OK);
        assert_int_equal(qsi_packed_verify(p, NULL, NULL, &err), QS_OK);
        qsi_packed_close(&p);
        assert_int_equal(count(".tmp"), 0);
        qsi_str_release(&copy);
        remove_all();
    }
    assert_string_equal(notes, "");
}

/* Every way in which a file can become another one. */
static void test_model_changed(void **state) {
    (void)state;
    qsi_str copy = {0};
    make_model(false, QSI_Q8_0);
    copy_path(&copy);
    same_as_without(copy.data);
    /* other weights, the old size and time */
    struct stat sb;
    assert_int_equal(stat(model, &sb), 0);
    int fd = open(model, O_RDWR);
    uint8_t block[8192];
    for (int i = 0; i < 20; i++) { /* the last 160 KB: one of the samples is there */
        assert_int_equal(pread(fd, block, sizeof block, sb.st_size - (i + 1) * (off_t)sizeof block),
                         sizeof block);
        for (size_t j = 2; j < sizeof block; j += 34) block[j] ^= 1;
        assert_int_equal(pwrite(fd, block, sizeof block, sb.st_size - (i + 1) * (off_t)sizeof block),
                         sizeof block);
    }
    const struct timespec times[2] = {sb.st_atim, sb.st_mtim};
    assert_int_equal(futimens(fd, times), 0);
    same_as_without(copy.data);
    assert_non_null(strstr(notes, "made anew"));
    assert_non_null(strstr(notes, "the model changed"));
    /* the time alone */
    notes[0] = '\0';
    const struct timespec later[2] = {{.tv_sec = 1000000000}, {.tv_sec = 1000000000}};
    assert_int_equal(futimens(fd, later), 0);
    same_as_without(copy.data);
    assert_non_null(strstr(notes, "the model changed"));
    notes[0] = '\0';
    same_as_without(copy.data);
    assert_string_equal(notes, "");
    close(fd);
    qsi_str_release(&copy);
}

static void test_damaged(void **state) {
    (void)state;
    qsi_str copy = {0};
    make_model(false, QSI_Q8_0);
    copy_path(&copy);
    same_as_without(copy.data);
    static const struct {
        off_t at;
        bool cut;
    } cases[] = {{70, false}, {3000000, true}, {0, true}};
    for (size_t i = 0; i < QSI_COUNT(cases); i++) {
        int fd = open(copy.data, O_RDWR);
        if (cases[i].cut) assert_int_equal(ftruncate(fd, cases[i].at), 0);
        else assert_int_equal(pwrite(fd, "damage", 6, cases[i].at), 6);
        close(fd);
        notes[0] = '\0';
        same_as_without(copy.data);
        assert_non_null(strstr(notes, "made anew"));
        notes[0] = '\0';
        same_as_without(copy.data);
        assert_string_equal(notes, "");
    }
    qsi_str_release(&copy);
}

/* A sound copy with another list of weights, for this very model: found while binding. */
static void test_other_weights(void **state) {
    (void)state;
    qs_err err = {0};
    qsi_str copy = {0};
    qsi_packed_id id;
    qsi_gguf *g = NULL;
    qsi_packed_writer *w = NULL;
    make_model(false, QSI_Q8_0);
    copy_path(&copy);
    assert_int_equal(qsi_gguf_open(&g, model, &err), QS_OK);
    if (qsi_packed_id_of(&id, g, qsi_kern_get(qsi_cpu_isa()), false, &err) != QS_OK)
        fail_msg("%s", err.text);
    qsi_gguf_close(&g);
    assert_int_equal(qsi_packed_writer_open(&w, copy.data, &id, 1, &err), QS_OK);
    const qsi_packed_weight x = {.kind = QSI_MM_Q8_0, .n_out = 1, .n_in = 32, .bytes = 64};
    assert_int_equal(qsi_packed_put(w, &x, (char[64]){0}, &err), QS_OK);
    assert_int_equal(qsi_packed_finish(&w, &err), QS_OK);
    same_as_without(copy.data);
    assert_non_null(strstr(notes, "another one"));
    notes[0] = '\0';
    same_as_without(copy.data);
    assert_string_equal(notes, "");
    qsi_str_release(&copy);
}

/* A limit on the size of files stands for a full disk: writing fails in the middle. */
static void test_full_disk(void **state) {
    (void)state;
    qsi_str copy = {0};
    struct rlimit old, small;
    make_model(false, QSI_F32);
    copy_path(&copy);
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    small = old;
    small.rlim_cur = 3 << 20;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    same_as_without(copy.data);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    assert_non_null(strstr(notes, "no repacked copy is kept"));
    assert_int_equal(count(QSI_PACKED_SUFFIX), 0);
    assert_int_equal(count(".tmp"), 0);
    /* more than is free anywhere */
    qs_err err = {0};
    qsi_packed_writer *w = NULL;
    const qsi_packed_id id = {.source = 1};
    assert_int_equal(qsi_packed_writer_open(&w, copy.data, &id, (uint64_t)1 << 60, &err), QS_E_LIMIT);
    assert_non_null(strstr(err.text, "free in"));
    assert_null(w);
    qsi_str_release(&copy);
}

static void test_no_folder(void **state) {
    (void)state;
    make_model(false, QSI_Q8_0);
    same_as_without("/proc/qsi_no_such_folder/model.qspacked");
    assert_non_null(strstr(notes, "no repacked copy is kept in '/proc/qsi_no_such_folder"));
}

/* What a killed writer left is removed by the next; one at work is left alone. */
static void test_other_writers(void **state) {
    (void)state;
    qs_err err = {0};
    qsi_str copy = {0};
    char left[1200], byte;
    int ready[2], go[2];
    make_model(false, QSI_Q8_0);
    copy_path(&copy);
    assert_int_equal(qsi_make_dirs(folder, &err), QS_OK);
    snprintf(left, sizeof left, "%s/.%s.1.0.tmp", folder, strrchr(copy.data, '/') + 1);
    close(open(left, O_CREAT | O_WRONLY, 0600));
    assert_int_equal(pipe(ready), 0);
    assert_int_equal(pipe(go), 0);
    pid_t pid = fork();
    if (pid == 0) { /* writes half, waits, finishes */
        qsi_packed_writer *w = NULL;
        const qsi_packed_id id = {.source = 1};
        bool ok = qsi_packed_writer_open(&w, copy.data, &id, 1, &err) == QS_OK;
        ok = write(ready[1], "r", 1) == 1 && read(go[0], &byte, 1) == 1 && ok;
        ok = ok && qsi_packed_finish(&w, &err) == QS_OK;
        _exit(ok ? 0 : 1);
    }
    assert_int_equal(read(ready[0], &byte, 1), 1);
    assert_int_not_equal(access(left, F_OK), 0);
    assert_int_equal(count(".tmp"), 1);
    qsi_packed_writer *w = NULL;
    const qsi_packed_id id = {.source = 2};
    assert_int_equal(qsi_packed_writer_open(&w, copy.data, &id, 1, &err), QS_E_STATE);
    assert_non_null(strstr(err.text, "another process"));
    assert_int_equal(count(".tmp"), 1);
    int code = -1;
    assert_int_equal(write(go[1], "g", 1), 1);
    waitpid(pid, &code, 0);
    assert_int_equal(code, 0);
    assert_int_equal(count(".tmp"), 0);
    qsi_packed *p = NULL;
    assert_int_equal(qsi_packed_open(&p, copy.data, NULL, &err), QS_OK);
    assert_int_equal(qsi_packed_count(p), 0);
    qsi_packed_close(&p);
    for (int i = 0; i < 2; i++) {
        close(ready[i]);
        close(go[i]);
    }
    qsi_str_release(&copy);
}

/* ---- two at once in one process ---- */

typedef struct opener {
    pthread_t thread;
    pthread_barrier_t *start;
    const char *packed;
    run r;
    qs_status st;
    qs_err err;
} opener;

/* Nothing here may end the test: that is the main thread's. */
static void *open_and_answer(void *user) {
    opener *o = user;
    pthread_barrier_wait(o->start);
    o->st = run_open_packed(&o->r, model, 1, 0, o->packed, &o->err);
    if (o->st == QS_OK) o->st = feed(&o->r, 0, ROWS, true, &o->err);
    if (o->st == QS_OK) o->st = feed(&o->r, ROWS, PROMPT - ROWS, true, &o->err);
    return NULL;
}

static void copy_is_whole(const char *path) {
    qs_err err = {0};
    qsi_packed *p = NULL;
    if (qsi_packed_open(&p, path, NULL, &err) != QS_OK) fail_msg("%s", err.text);
    if (qsi_packed_verify(p, NULL, NULL, &err) != QS_OK) fail_msg("%s", err.text);
    qsi_packed_close(&p);
}

/* Whoever comes second waits or goes on without; both answer as a model without a copy does, and one
 * whole copy is left. */
static void test_two_in_one_process(void **state) {
    (void)state;
    enum { TWO = 2, ROUNDS = 8 };
    qsi_str copy = {0};
    size_t n;
    make_model(true, QSI_Q8_0);
    copy_path(&copy);
    float *want = answer(1, NULL, &n);
    for (int round = 0; round < ROUNDS; round++) {
        opener o[TWO] = {0};
        pthread_barrier_t start;
        pthread_barrier_init(&start, NULL, TWO);
        for (int i = 0; i < TWO; i++) {
            o[i].start = &start;
            o[i].packed = copy.data;
            assert_int_equal(pthread_create(&o[i].thread, NULL, open_and_answer, &o[i]), 0);
        }
        for (int i = 0; i < TWO; i++) pthread_join(o[i].thread, NULL);
        for (int i = 0; i < TWO; i++) {
            if (o[i].st != QS_OK) fail_msg("%s", o[i].err.text);
            assert_memory_equal(o[i].r.z, want, n * sizeof *want);
            run_close(&o[i].r);
        }
        pthread_barrier_destroy(&start);
        assert_int_equal(count(".tmp"), 0);
        copy_is_whole(copy.data);
        same_as_without(copy.data);
        unlink(copy.data);
    }
    qsi_free(want);
    qsi_str_release(&copy);
}

/* ---- a model in two files ---- */

/* Writes tensors [from, to) of g, with the keys of part `no` of two. */
static void put_part(const qsi_gguf *g, const char *path, uint32_t no, size_t from, size_t to) {
    qs_err err = {0};
    qsi_gguf_writer *w = NULL;
    qsi_config c;
    assert_int_equal(qsi_config_from_gguf(&c, g, &err), QS_OK);
    if (qsi_gguf_writer_open(&w, path, &err) != QS_OK) fail_msg("%s", err.text);
    if (no == 0) assert_int_equal(qsi_config_put_gguf(&c, w), QS_OK);
    assert_int_equal(qsi_gguf_put_u32(w, "split.no", no), QS_OK);
    assert_int_equal(qsi_gguf_put_u32(w, "split.count", 2), QS_OK);
    assert_int_equal(qsi_gguf_put_i32(w, "split.tensors.count", (int32_t)qsi_gguf_n_tensors(g)), QS_OK);
    for (int pass = 0; pass < 2; pass++)
        for (size_t i = from; i < to; i++) {
            const qsi_gguf_tensor *t = qsi_gguf_tensor_at(g, i);
            if (pass == 0)
                assert_int_equal(qsi_gguf_declare(w, t->name, t->type, t->n_dims, t->ne, &err), QS_OK);
            else assert_int_equal(qsi_gguf_write(w, t->data, t->bytes, &err), QS_OK);
        }
    if (qsi_gguf_finish(&w, &err) != QS_OK) fail_msg("%s", err.text);
}

/* The copy has the weights of both files, and either file's change is noticed. */
static void test_split(void **state) {
    (void)state;
    qs_err err = {0};
    qsi_str copy = {0};
    qsi_gguf *g = NULL;
    char whole[sizeof model], second[512];
    make_model(true, QSI_Q8_0);
    memcpy(whole, model, sizeof whole);
    snprintf(model, sizeof model, "%s", tmp_path("split-00001-of-00002.gguf"));
    snprintf(second, sizeof second, "%s", tmp_path("split-00002-of-00002.gguf"));
    assert_int_equal(qsi_gguf_open(&g, whole, &err), QS_OK);
    size_t n = qsi_gguf_n_tensors(g), rows_n, split_n;
    put_part(g, model, 0, 0, n / 2);
    put_part(g, second, 1, n / 2, n);
    qsi_gguf_close(&g);
    copy_path(&copy);
    same_as_without(copy.data); /* written */
    copy_is_whole(copy.data);
    struct stat first, later;
    assert_int_equal(stat(copy.data, &first), 0);
    float *split = answer(2, copy.data, &split_n); /* mapped */
    assert_int_equal(stat(copy.data, &later), 0);
    assert_int_equal(first.st_ino, later.st_ino);
    assert_string_equal(notes, "");
    const struct timespec old[2] = {{.tv_sec = 1000000000}, {.tv_sec = 1000000000}};
    assert_int_equal(utimensat(AT_FDCWD, second, old, 0), 0);
    same_as_without(copy.data);
    assert_non_null(strstr(notes, "the model changed"));
    unlink(model);
    unlink(second);
    memcpy(model, whole, sizeof whole);
    float *want = answer(1, NULL, &rows_n); /* of the same model in one file */
    assert_int_equal(rows_n, split_n);
    assert_memory_equal(split, want, rows_n * sizeof *want);
    qsi_free(split);
    qsi_free(want);
    qsi_str_release(&copy);
}

static void test_out_of_core(void **state) {
    (void)state;
    qs_err err = {0};
    qsi_str copy = {0};
    run r;
    make_model(false, QSI_Q8_0);
    copy_path(&copy);
    if (run_open_packed(&r, model, 1, weights(model) * 9 / 10, copy.data, &err) != QS_OK)
        fail_msg("%s", err.text);
    run_close(&r);
    assert_non_null(strstr(notes, "no repacked copy is used"));
    assert_int_equal(count(QSI_PACKED_SUFFIX), 0);
    /* enough room for all */
    notes[0] = '\0';
    if (run_open_packed(&r, model, 1, weights(model) * 2, copy.data, &err) != QS_OK)
        fail_msg("%s", err.text);
    run_close(&r);
    assert_int_equal(count(QSI_PACKED_SUFFIX), 1);
    assert_string_equal(notes, "");
    qsi_str_release(&copy);
}

static void test_names(void **state) {
    (void)state;
    qs_err err = {0};
    qsi_str a = {0}, b = {0};
    make_model(false, QSI_Q8_0);
    copy_path(&a);
    assert_int_equal(qsi_packed_path(&b, folder, model, true, &err), QS_OK);
    assert_string_not_equal(a.data, b.data);
    assert_non_null(strstr(a.data, "/residency"));
    qsi_str_clear(&b);
    assert_int_equal(qsi_packed_path(&b, folder, tmp_path("no_such.gguf"), false, &err),
                     QS_E_NOTFOUND);
    qsi_str_release(&a);
    qsi_str_release(&b);
}

/* Tables that pack alike have one layout, others have others. */
static void test_layout(void **state) {
    (void)state;
    qs_err err = {0};
    uint64_t ref, again, best;
    assert_int_equal(qsi_weight_layout(qsi_kern_get(QSI_ISA_REF), &ref, &err), QS_OK);
    assert_int_equal(qsi_weight_layout(qsi_kern_get(QSI_ISA_REF), &again, &err), QS_OK);
    assert_int_equal(qsi_weight_layout(qsi_kern_get(qsi_cpu_isa()), &best, &err), QS_OK);
    assert_int_equal(ref, again);
    if (qsi_cpu_isa() != QSI_ISA_REF) assert_int_not_equal(ref, best);
    qsi_kern k = *qsi_kern_get(QSI_ISA_REF);
    k.mm[QSI_MM_Q4_K].pack = k.mm[QSI_MM_Q5_K].pack;
    k.mm[QSI_MM_Q4_K].panel_bytes = k.mm[QSI_MM_Q5_K].panel_bytes;
    assert_int_equal(qsi_weight_layout(&k, &again, &err), QS_OK);
    assert_int_not_equal(ref, again);
}

int main(void) {
#define TEST(f) cmocka_unit_test_setup_teardown(f, begin, end)
    const struct CMUnitTest tests[] = {
        TEST(test_written_then_taken), TEST(test_model_changed), TEST(test_damaged),
        TEST(test_other_weights),      TEST(test_full_disk),     TEST(test_no_folder),
        TEST(test_other_writers),      TEST(test_out_of_core),   TEST(test_names),
        TEST(test_layout),             TEST(test_split),         TEST(test_two_in_one_process),
    };
    return cmocka_run_group_tests(tests, tmp_setup, tmp_teardown);
}
