/* Trains a small model on text files and lets it write.
 *
 * usage: train_tiny OUT TEXT... */
#include <math.h>
#include <stdio.h>

#include "qiusuo/qiusuo.h"
#include "qiusuo/train.h"

static void show(void *user, const qs_train_event *e) {
    (void)user;
    if (e->kind == QS_TRAIN_NOTE || e->kind == QS_TRAIN_WARNING) printf("%s\n", e->text);
    if (e->kind == QS_TRAIN_STEP && (e->step % 10 == 0 || e->step == 1))
        printf("step %lld of %lld: loss %.3f, %.0f tokens/s\n", (long long)e->step,
               (long long)e->total_steps, e->loss, e->tok_s);
}

static int print_piece(void *user, const char *text, size_t n) {
    fwrite(text, 1, n, user);
    return 0;
}

/* What the trained model says when nothing is said to it. */
static qs_status write_something(const char *path, qs_err *err) {
    qs_model *model = NULL;
    qs_session *session = NULL;
    qs_gen_opts o;
    qs_status st = qs_model_open(&model, path, NULL, err);
    if (st == QS_OK) st = qs_session_create(&session, model, NULL, err);
    if (st == QS_OK) {
        qs_gen_opts_init(&o, sizeof o, model);
        o.n_predict = 60;
        o.seed = 1;
        o.on_text = print_piece;
        o.user = stdout;
        st = qs_generate(session, "", 0, QS_ENCODE_BOS, &o, NULL, err);
        printf("\n");
    }
    qs_session_free(session);
    qs_model_close(&model);
    return st;
}

int main(int argc, char **argv) {
    qs_train_opts o = { .preset = "tiny", .steps = 40, .event = show };
    qs_train_result result;
    qs_err err = { 0 };
    if (argc < 3) {
        fprintf(stderr, "usage: train_tiny OUT TEXT...\n");
        return 2;
    }
    o.out = argv[1];
    o.texts = (const char *const *)argv + 2;
    o.n_texts = (size_t)argc - 2;
    qs_status st = qs_train(&o, &result, &err);
    if (st == QS_OK) {
        printf("loss %.3f after %lld tokens; the model is %s\n", result.loss,
               (long long)result.tokens, result.model);
        st = write_something(result.model, &err);
    }
    if (st != QS_OK) fprintf(stderr, "train_tiny: %s\n", err.text);
    return st == QS_OK ? 0 : 1;
}
