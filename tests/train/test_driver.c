/* The training run, on a net of a few lines: resumed = unbroken bit for bit, longer runs, stops, NaN,
 * full disks, changed settings. Text, vocabulary, shards, log and model file are the real ones. */
#include "train_testing.h"

#include <signal.h>
#include <sys/resource.h>

#include "fmt/gguf.h"
#include "sys/runfile.h"
#include "tok/tok.h"
#include "train/driver.h"
#include "train/trainlog.h"

typedef struct watch {
    int64_t stop_at;   /* step after which to stop; 0: never */
    int64_t step;      /* last one told */
    int64_t samples;
    qsi_str notes;
} watch;

static qsi_pool *pools[2];

static void on_event(void *user, const qsi_train_event *e) {
    watch *w = user;
    if (e->kind == QSI_TE_STEP) w->step = e->step;
    if (e->kind == QSI_TE_SAMPLE) w->samples++;
    /* without memory for it the note is missing, which the tests that read it would see */
    if (e->kind == QSI_TE_NOTE) (void)!qsi_str_printf(&w->notes, "%s\n", e->text);
}

static int on_stop(void *user) {
    const watch *w = user;
    return w->stop_at > 0 && w->step >= w->stop_at;
}

static qs_status on_sample(void *user, const qsi_sample_ask *ask, qsi_str *out, qs_err *err) {
    qsi_gguf *g = NULL;
    (void)user;
    assert_string_equal(ask->prompt, "abc");
    assert_int_equal(qsi_gguf_open(&g, ask->model, err), QS_OK);
    qsi_gguf_close(&g);
    return qsi_str_puts(out, "text");
}

static void write_text(const char *path, uint64_t seed) {
    qsi_str s = {0};
    qsi_rng r;
    qsi_rng_init(&r, seed);
    static const char *const words[] = {"stone ", "water ", "the ", "\u6c42\u7d22", "moon ", "a ",
                                        "\u660e\u6708", "river ", "\n\n", "of "};
    for (int i = 0; i < 3000; i++)
        assert_int_equal(qsi_str_puts(&s, words[qsi_rng_below(&r, 10)]), QS_OK);
    put_file(path, s.data, s.len);
    qsi_str_release(&s);
}

static int setup(void **state) {
    qs_err err = {0};
    if (make_test_dir(state) != 0) return -1;
    write_text(in_dir("text.txt"), 1);
    write_text(in_dir("other.txt"), 2);
    return qsi_pool_create(&pools[0], 1, &err) != QS_OK || qsi_pool_create(&pools[1], 2, &err) != QS_OK;
}

static int teardown(void **state) {
    qsi_pool_free(pools[0]);
    qsi_pool_free(pools[1]);
    return drop_test_dir(state);
}

static const char base[] = "[model]\narch = llama\nlayers = 1\nd_model = 32\nheads = 1\nhead_dim = 32\n"
                           "d_ff = 32\ncontext = 16\n[tokenizer]\nsize = 300\n[data]\ndoc_bytes = 200\n"
                           "valid_share = 0.1\n[train]\nbatch_tokens = 64\nmicro_tokens = 32\n"
                           "lr = 0.05\nwarmup_steps = 3\n[checkpoint]\nevery_steps = 5\n"
                           "[valid]\nevery_steps = 4\nmax_tokens = 100\n[output]\ntype = F32\n"
                           "[metadata]\ngeneral.name = \"t\"\n";

typedef struct setup_run {
    const char *dir, *text, *more; /* more: settings added to base; may be NULL */
    int64_t stop_at, nan_at, fail_at; /* fail_at: the allocation that fails; 0: none */
    int pool;
    qsi_train_result result;
    qs_err err;
    char notes[2048];
    int64_t samples;
} setup_run;

static qs_status run(setup_run *s) {
    qsi_trainconf c;
    watch w = {.stop_at = s->stop_at};
    s->err = (qs_err){.offset = -1};
    qsi_trainconf_init(&c);
    assert_int_equal(qsi_trainconf_parse(&c, "base", base, strlen(base), &s->err), QS_OK);
    if (s->more != NULL &&
        qsi_trainconf_parse(&c, "more", s->more, strlen(s->more), &s->err) != QS_OK)
        fail_msg("%s", s->err.text);
    assert_int_equal(qsi_trainconf_set(&c, "data.train", s->text != NULL ? s->text
                                                                         : in_dir("text.txt"),
                                       &s->err), QS_OK);
    const qsi_train_job job = {.conf = &c, .dir = s->dir, .pool = pools[s->pool],
                               .isa = QSI_ISA_REF, .make = fake_make,
                               .make_user = s->nan_at > 0 ? &s->nan_at : NULL,
                               .hooks = {.user = &w, .event = on_event, .stop = on_stop,
                                         .sample = on_sample}};
    if (s->fail_at > 0) qsi_mem_fail_after(s->fail_at);
    qs_status st = qsi_train_run(&job, &s->result, &s->err);
    qsi_mem_fail_after(-1);
    snprintf(s->notes, sizeof(s->notes), "%s", w.notes.data != NULL ? w.notes.data : "");
    s->samples = w.samples;
    qsi_str_release(&w.notes);
    qsi_trainconf_release(&c);
    return st;
}

#define OK(...)                                                                                    \
    do {                                                                                           \
        setup_run ok_run = {__VA_ARGS__};                                                          \
        if (run(&ok_run) != QS_OK) fail_msg("%s", ok_run.err.text);                                \
        last = ok_run;                                                                             \
        (void)last;                                                                                \
    } while (0)

static void same_file(const char *a, const char *b) {
    qsi_str x = {0}, y = {0};
    read_all(a, &x);
    read_all(b, &y);
    if (x.len != y.len || memcmp(x.data, y.data, x.len) != 0) fail_msg("'%s' and '%s' differ", a, b);
    qsi_str_release(&x);
    qsi_str_release(&y);
}

/* The same steps with the same numbers; speed is not compared. */
static void same_log(const char *a, const char *b) {
    qsi_trainlog x, y;
    qs_err err = {0};
    assert_int_equal(qsi_trainlog_open(&x, a, 1 << 30, &err), QS_OK);
    assert_int_equal(qsi_trainlog_open(&y, b, 1 << 30, &err), QS_OK);
    assert_int_equal(x.n, y.n);
    for (size_t i = 0; i < x.n; i++) {
        assert_int_equal(x.rows[i].step, (int64_t)i + 1);
        assert_memory_equal(&x.rows[i], &y.rows[i], offsetof(qsi_log_row, tok_s));
    }
    qsi_trainlog_close(&x);
    qsi_trainlog_close(&y);
}

static void resume_is_unbroken(void **state) {
    (void)state;
    setup_run last;
    OK(.dir = in_dir("whole"), .more = "[train]\nsteps = 23\n");
    assert_int_equal(last.result.step, 23);
    assert_true(last.result.loss < 4.5); /* it learns: log(300) = 5.7 at the start */
    assert_false(isnan(last.result.val_loss));
    /* stopped three times, other threads, one stop not at a checkpoint's step */
    OK(.dir = in_dir("parts"), .more = "[train]\nsteps = 23\n", .stop_at = 7, .pool = 1);
    assert_true(last.result.stopped);
    assert_int_equal(last.result.step, 7);
    OK(.dir = in_dir("parts"), .more = "[train]\nsteps = 23\n", .stop_at = 8);
    assert_non_null(strstr(last.notes, "resumed at step 7"));
    OK(.dir = in_dir("parts"), .more = "[train]\nsteps = 23\n", .stop_at = 20);
    OK(.dir = in_dir("parts"), .more = "[train]\nsteps = 23\n", .pool = 1);
    assert_int_equal(last.result.step, 23);
    same_file(in_dir("whole/model.gguf"), in_dir("parts/model.gguf"));
    same_log(in_dir("whole/log.csv"), in_dir("parts/log.csv"));
    same_file(in_dir("whole/vocab.gguf"), in_dir("parts/vocab.gguf"));
    same_file(in_dir("whole/train.shard"), in_dir("parts/train.shard"));
}

static void finished_says_so(void **state) {
    (void)state;
    setup_run last;
    OK(.dir = in_dir("done"), .more = "[train]\nsteps = 6\n");
    qsi_str model = {0}, again = {0};
    read_all(in_dir("done/model.gguf"), &model);
    OK(.dir = in_dir("done"), .more = "[train]\nsteps = 6\n");
    assert_true(last.result.was_finished);
    assert_non_null(strstr(last.notes, "already finished"));
    unlink(in_dir("done/model.gguf"));
    OK(.dir = in_dir("done"), .more = "[train]\nsteps = 6\n");
    read_all(in_dir("done/model.gguf"), &again);
    assert_int_equal(model.len, again.len);
    assert_memory_equal(model.data, again.data, model.len);
    qsi_str_release(&model);
    qsi_str_release(&again);
}

static void longer_is_unbroken(void **state) {
    (void)state;
    setup_run last;
    OK(.dir = in_dir("long"), .more = "[train]\nsteps = 40\n");
    OK(.dir = in_dir("grown"), .more = "[train]\nsteps = 20\n");
    OK(.dir = in_dir("grown"), .more = "[train]\nsteps = 40\n"); /* 16: the last stages began */
    assert_non_null(strstr(last.notes, "resumed at step 16"));
    assert_non_null(strstr(last.notes, "steps 17 to 20, are given up"));
    same_file(in_dir("long/model.gguf"), in_dir("grown/model.gguf"));
    same_log(in_dir("long/log.csv"), in_dir("grown/log.csv"));
    /* a little longer: the old end lies in the new last stages, its steps had other rates */
    OK(.dir = in_dir("grown1"), .more = "[train]\nsteps = 34\n");
    OK(.dir = in_dir("grown1"), .more = "[train]\nsteps = 40\n");
    assert_non_null(strstr(last.notes, "steps 29 to 34, are given up"));
    same_file(in_dir("long/model.gguf"), in_dir("grown1/model.gguf"));
    same_log(in_dir("long/log.csv"), in_dir("grown1/log.csv"));
    /* one step more moves no stage: nothing is given up */
    OK(.dir = in_dir("grown3"), .more = "[train]\nsteps = 39\n");
    OK(.dir = in_dir("grown3"), .more = "[train]\nsteps = 40\n");
    assert_null(strstr(last.notes, "given up"));
    /* stopped before its last stages, then longer: nothing is given up */
    OK(.dir = in_dir("grown2"), .more = "[train]\nsteps = 20\n", .stop_at = 12);
    OK(.dir = in_dir("grown2"), .more = "[train]\nsteps = 40\n");
    same_file(in_dir("long/model.gguf"), in_dir("grown2/model.gguf"));
}

/* What cannot fit is refused before it is allocated: here 20 TB for the rows, 1 GB for the weights. */
static void too_many_rows(void **state) {
    (void)state;
    setup_run s = {.dir = in_dir("rows"), .more = "[train]\nsteps = 2\nbatch_tokens = 10000000\n"
                                                  "micro_tokens = 10000000\n"
                                                  "[model]\nd_model = 512\nlayers = 64\n"};
    assert_int_equal(run(&s), QS_E_NOMEM);
    assert_non_null(strstr(s.err.text, "10000000 tokens at a time, needs about 2"));
    assert_non_null(strstr(s.err.text, "train.micro_tokens"));
}

/* The first save that fails speaks of no checkpoint, a later one of the last that is whole. */
static void save_fails(void **state) {
    (void)state;
    setup_run s = {.dir = in_dir("unsaved"), .more = "[train]\nsteps = 12\n"};
    assert_int_equal(qsi_make_dirs(in_dir("unsaved/checkpoints/MANIFEST"), NULL), QS_OK);
    assert_int_not_equal(run(&s), QS_OK);
    assert_non_null(strstr(s.err.text, "step 5, while saving (there is no checkpoint yet; make"));
    assert_int_equal(rmdir(in_dir("unsaved/checkpoints/MANIFEST")), 0);
    assert_int_equal(run(&s), QS_OK);
    assert_int_equal(unlink(in_dir("unsaved/checkpoints/MANIFEST")), 0);
    assert_int_equal(qsi_make_dirs(in_dir("unsaved/checkpoints/MANIFEST"), NULL), QS_OK);
    s.more = "[train]\nsteps = 40\n";
    assert_int_not_equal(run(&s), QS_OK);
    assert_non_null(strstr(s.err.text, "(the checkpoint of step 10 is whole; make"));
}

static void by_tokens(void **state) {
    (void)state;
    setup_run last;
    OK(.dir = in_dir("tok"), .more = "[train]\ntokens = 1000\n");
    assert_true(last.result.tokens >= 1000 && last.result.tokens < 1064);
    qsi_trainlog l;
    qs_err err = {0};
    assert_int_equal(qsi_trainlog_open(&l, in_dir("tok/log.csv"), 1 << 30, &err), QS_OK);
    for (size_t i = 3; i < l.n; i++) { /* the rate follows the tokens done before the step */
        double share = (double)l.rows[i - 1].tokens / 1000;
        double want = 0.05 * (share >= 0.9 ? 0.1 : share >= 0.8 ? 0.316 : 1);
        assert_true(fabs(l.rows[i].lr / want - 1) < 1e-6);
    }
    qsi_trainlog_close(&l);
}

static void changed_settings(void **state) {
    (void)state;
    setup_run s = {.dir = in_dir("changed"), .more = "[train]\nsteps = 6\n"};
    assert_int_equal(run(&s), QS_OK);
    s.more = "[train]\nsteps = 8\nlr = 0.1\n";
    assert_int_equal(run(&s), QS_E_STATE);
    assert_non_null(strstr(s.err.text, "train.lr = 0.05"));
    s.more = "[train]\nsteps = 8\n[run]\nseed = 2\n";
    assert_int_equal(run(&s), QS_E_STATE);
    s.more = "[train]\nsteps = 8\n[model]\nd_ff = 64\n";
    assert_int_equal(run(&s), QS_E_STATE);
    s.more = "[train]\nsteps = 8\n";
    s.text = in_dir("other.txt");
    assert_int_equal(run(&s), QS_E_STATE);
    s.text = NULL;
    assert_int_equal(run(&s), QS_OK); /* nothing was lost meanwhile */
    assert_int_equal(s.result.step, 8);
}

static void not_a_number(void **state) {
    (void)state;
    setup_run last, s = {.dir = in_dir("nan"), .more = "[train]\nsteps = 23\n", .nan_at = 25};
    assert_int_equal(run(&s), QS_E_NUMERIC);
    assert_non_null(strstr(s.err.text, "the loss is not a number"));
    assert_non_null(strstr(s.err.text, "checkpoint of step 10"));
    OK(.dir = in_dir("nan"), .more = "[train]\nsteps = 23\n");
    assert_non_null(strstr(last.notes, "resumed at step 10"));
    OK(.dir = in_dir("nan2"), .more = "[train]\nsteps = 23\n");
    same_file(in_dir("nan/model.gguf"), in_dir("nan2/model.gguf"));
}

/* A limit on the size of files stands for a full disk: writing fails in the middle. */
static void full_disk(void **state) {
    (void)state;
    setup_run last, s = {.dir = in_dir("full"), .more = "[train]\nsteps = 23\n"};
    struct rlimit old, small;
    s.stop_at = 7;
    assert_int_equal(run(&s), QS_OK);
    s.stop_at = 0;
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    small = old;
    small.rlim_cur = 100000;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    qs_status st = run(&s);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    assert_int_equal(st, QS_E_IO);
    assert_non_null(strstr(s.err.text, "checkpoint of step 7 is whole"));
    DIR *d = opendir(in_dir("full/checkpoints")); /* no half-written file stays */
    assert_non_null(d);
    for (struct dirent *e = readdir(d); e != NULL; e = readdir(d))
        assert_null(strstr(e->d_name, ".tmp"));
    closedir(d);
    OK(.dir = in_dir("full"), .more = "[train]\nsteps = 23\n");
    assert_non_null(strstr(last.notes, "resumed at step 7"));
    OK(.dir = in_dir("full2"), .more = "[train]\nsteps = 23\n");
    same_file(in_dir("full/model.gguf"), in_dir("full2/model.gguf"));
}

static void one_at_a_time(void **state) {
    (void)state;
    setup_run s = {.dir = in_dir("locked"), .more = "[train]\nsteps = 4\n"};
    qs_err err = {0};
    assert_int_equal(qsi_make_dirs(in_dir("locked"), &err), QS_OK);
    int ready[2];
    char c = 0;
    assert_int_equal(pipe(ready), 0);
    pid_t child = fork();
    if (child == 0) { /* holds the lock until it is killed */
        qsi_lock l;
        if (qsi_lock_take(&l, in_dir("locked/lock"), NULL) == QS_OK) (void)!write(ready[1], "x", 1);
        pause();
        _exit(0);
    }
    assert_int_equal(read(ready[0], &c, 1), 1);
    assert_int_equal(run(&s), QS_E_STATE);
    assert_non_null(strstr(s.err.text, "another process is training"));
    kill(child, SIGKILL);
    assert_int_equal(run(&s), QS_OK);
    close(ready[0]);
    close(ready[1]);
}

static void samples(void **state) {
    (void)state;
    setup_run last;
    OK(.dir = in_dir("samples"),
       .more = "[train]\nsteps = 20\n[sample]\nprompt = abc\nevery_steps = 6\n");
    assert_int_equal(last.samples, 3);
}

static void model_file(void **state) {
    (void)state;
    setup_run last;
    qsi_gguf *g = NULL;
    qs_err err = {0};
    qsi_slice name;
    OK(.dir = in_dir("model"), .more = "[train]\nsteps = 4\n");
    assert_int_equal(qsi_gguf_open(&g, in_dir("model/model.gguf"), &err), QS_OK);
    assert_int_equal(qsi_gguf_str(g, "general.name", &name, &err), QS_OK);
    assert_int_equal(name.n, 1);
    qsi_config c;
    assert_int_equal(qsi_config_from_gguf(&c, g, &err), QS_OK);
    assert_int_equal(c.n_ctx, 16);
    assert_int_equal(qsi_gguf_n_tensors(g), qsi_config_n_tensors(&c));
    qsi_vocab *v = NULL;
    assert_int_equal(qsi_vocab_load_gguf(&v, g, &err), QS_OK);
    assert_int_equal(qsi_vocab_size(v), c.n_vocab);
    qsi_vocab_free(v);
    qsi_gguf_close(&g);
}

/* The n-th allocation fails (debug builds): the run ends with a message, and what it leaves is what a
 * later one goes on from. A sample that failed for want of memory is a warning only. */
static void out_of_memory(void **state) {
    (void)state;
    setup_run last;
    int failed = 0;
    OK(.dir = in_dir("mem-whole"), .more = "[train]\nsteps = 12\n");
    for (int64_t n = 1; n < FAIL_MAX; n += n < 100 ? 7 : 53) {
        setup_run s = {.dir = in_dir("mem"), .more = "[train]\nsteps = 12\n",
                       .fail_at = n};
        qs_status st = run(&s);
        failed += st != QS_OK;
        if (st != QS_OK && st != QS_E_NOMEM) fail_msg("allocation %d: %s", (int)n, s.err.text);
        s.fail_at = 0;
        if (st != QS_OK && run(&s) != QS_OK) fail_msg("after allocation %d: %s", (int)n, s.err.text);
        same_file(in_dir("mem/model.gguf"), in_dir("mem-whole/model.gguf"));
        same_log(in_dir("mem/log.csv"), in_dir("mem-whole/log.csv"));
        remove_tree(in_dir("mem"));
        if (st == QS_OK && n > 2000) break;
    }
#ifdef QS_DEBUG
    assert_true(failed > 20);
#else
    assert_int_equal(failed, 0);
#endif
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(resume_is_unbroken), cmocka_unit_test(finished_says_so),
        cmocka_unit_test(longer_is_unbroken), cmocka_unit_test(by_tokens),
        cmocka_unit_test(save_fails), cmocka_unit_test(too_many_rows),
        cmocka_unit_test(changed_settings), cmocka_unit_test(not_a_number),
        cmocka_unit_test(full_disk), cmocka_unit_test(one_at_a_time), cmocka_unit_test(samples),
        cmocka_unit_test(model_file), cmocka_unit_test(out_of_memory)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
