/* qs_train: options over a configuration, events, samples, stopping and going on, errors. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "../sys/tmpdir.h"
#include "qiusuo/qiusuo.h"
#include "qiusuo/train.h"

typedef struct seen {
    int notes, warnings, prepares, steps, saved, samples;
    int64_t last_step, stop_at;
    double peak_share;
    char note[4096];
} seen;

static void on_event(void *user, const qs_train_event *e) {
    seen *s = user;
    size_t n = strlen(s->note);
    switch (e->kind) {
    case QS_TRAIN_NOTE:
        s->notes++;
        snprintf(s->note + n, sizeof(s->note) - n, "%s\n", e->text);
        break;
    case QS_TRAIN_WARNING: s->warnings++; break;
    case QS_TRAIN_PREPARE: s->prepares += e->text != NULL; break;
    case QS_TRAIN_SAVED: s->saved++; break;
    case QS_TRAIN_SAMPLE:
        s->samples++;
        assert_string_equal(e->prompt, "one");
        break;
    case QS_TRAIN_STEP:
        s->steps++;
        assert_int_equal(e->step, s->last_step + 1);
        assert_true(e->loss > 0 && e->tok_s > 0 && e->lr > 0 && e->grad_norm > 0);
        s->last_step = e->step;
        s->peak_share = e->peak_share;
        break;
    }
}

static int on_stop(void *user) {
    const seen *s = user;
    return s->stop_at > 0 && s->last_step >= s->stop_at;
}

static const char *const small[] = {
    "model.layers=1", "model.d_model=32", "model.d_ff=64", "model.experts=4", "model.expert_ff=32",
    "model.context=32", "train.batch_tokens=128", "sample.prompt=one", "sample.every_steps=5",
    "tokenizer.size=300"};

typedef struct fixture {
    char dir[256], text[320], out[320];
    const char *texts[1];
    seen s;
    qs_train_opts o;
} fixture;

static int setup(void **state) {
    static fixture f;
    f = (fixture){.s = {.peak_share = NAN}};
    if (tmp_setup(state) != 0) return -1;
    snprintf(f.dir, sizeof(f.dir), "%s", tmp_root);
    snprintf(f.text, sizeof(f.text), "%s/text.txt", f.dir);
    snprintf(f.out, sizeof(f.out), "%s/out", f.dir);
    FILE *t = fopen(f.text, "w");
    for (int i = 0; i < 900; i++) fprintf(t, "one two %d \xe6\xb1\x82\xe7\xb4\xa2\n", i % 13);
    fclose(t);
    f.texts[0] = f.text;
    f.o = (qs_train_opts){.texts = f.texts, .n_texts = 1, .out = f.out, .steps = 10, .threads = 1,
                          .settings = small, .n_settings = sizeof(small) / sizeof(small[0]),
                          .user = &f.s, .event = on_event, .stop = on_stop, .state_dir = f.dir};
    *state = &f;
    return 0;
}

static int teardown(void **state) {
    return tmp_teardown(state);
}

static void run_to_the_end(void **state) {
    fixture *f = *state;
    qs_train_result r;
    qs_err err = {0};
    if (qs_train(&f->o, &r, &err) != QS_OK) fail_msg("%s", err.text);
    assert_int_equal(r.step, 10);
    assert_int_equal(f->s.steps, 10);
    assert_int_equal(f->s.samples, 2);
    assert_true(f->s.saved >= 2 && f->s.prepares > 0);
    assert_int_equal(f->s.warnings, 0);
    assert_false(r.stopped || r.was_finished);
    assert_true(isnan(f->s.peak_share)); /* was not asked for */
    assert_true(r.params > r.active_params && r.loss > 0);
    qs_model *m = NULL;
    assert_int_equal(qs_model_open(&m, r.model, NULL, &err), QS_OK);
    assert_string_equal(qs_model_arch(m), "deepseek");
    assert_int_equal(qs_model_n_params(m), r.params);
    qs_model_close(&m);
}

static void stop_and_go_on(void **state) {
    fixture *f = *state;
    qs_train_result r;
    qs_err err = {0};
    f->s.stop_at = 4;
    assert_int_equal(qs_train(&f->o, &r, &err), QS_OK);
    assert_true(r.stopped);
    assert_int_equal(r.step, 4);
    f->s.stop_at = 0;
    f->o.measure_peak = 1;
    assert_int_equal(qs_train(&f->o, &r, &err), QS_OK);
    assert_int_equal(r.step, 10);
    assert_non_null(strstr(f->s.note, "resumed at step 4"));
    assert_true(f->s.peak_share > 0 && f->s.peak_share < 2);
    assert_int_equal(qs_train(&f->o, &r, &err), QS_OK);
    assert_true(r.was_finished);
}

static void options_win(void **state) {
    fixture *f = *state;
    qs_train_result r;
    qs_err err = {0};
    char conf[320];
    snprintf(conf, sizeof(conf), "%s/a.conf", f->dir);
    FILE *c = fopen(conf, "w");
    fprintf(c, "[run]\nout = nowhere/at/all\nseed = 3\n[data]\ntrain = not-there.txt\n"
               "[train]\nhours = 1\nlr = 1e-3\n");
    fclose(c);
    f->o.config = conf;
    f->o.steps = 3;
    f->o.out = "state:mine";
    assert_int_equal(qs_train(&f->o, &r, &err), QS_OK);
    assert_int_equal(r.step, 3);
    assert_non_null(strstr(r.model, "/mine/model.gguf"));
    f->o.seed = 4; /* the configuration's 3 no longer holds, so it is another run */
    f->o.seed_given = 1;
    assert_int_equal(qs_train(&f->o, &r, &err), QS_E_STATE);
    assert_non_null(strstr(err.text, "run.seed = 3"));
}

static void errors(void **state) {
    fixture *f = *state;
    qs_train_result r;
    qs_err err = {0};
    const char *bad[] = {"train.lr"};
    f->o.settings = bad;
    f->o.n_settings = 1;
    assert_int_equal(qs_train(&f->o, &r, &err), QS_E_ARG);
    bad[0] = "train.rl=1";
    assert_int_equal(qs_train(&f->o, &r, &err), QS_E_ARG);
    f->o.n_settings = 0;
    f->o.preset = "enormous";
    assert_int_equal(qs_train(&f->o, &r, &err), QS_E_ARG);
    f->o.preset = NULL;
    f->o.isa = "mmx";
    assert_int_equal(qs_train(&f->o, &r, &err), QS_E_ARG);
    f->o.isa = NULL;
    f->o.state_dir = NULL;
    f->o.out = "state:x";
    assert_int_equal(qs_train(&f->o, &r, &err), QS_E_ARG);
    f->o.out = f->out;
    f->o.n_texts = 0;
    assert_int_equal(qs_train(&f->o, &r, &err), QS_E_ARG);
    f->o.config = "no.conf";
    assert_int_equal(qs_train(&f->o, &r, &err), QS_E_NOTFOUND);
    assert_true(access(f->out, F_OK) != 0 || err.text[0] != '\0');
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {TEST(run_to_the_end), TEST(stop_and_go_on),
                                       TEST(options_win), TEST(errors)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
