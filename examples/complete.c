/* Loads a model, continues a text, then has it answer in a chat turn.
 *
 * usage: complete MODEL [TEXT] */
#include <stdio.h>
#include <string.h>

#include "qiusuo/qiusuo.h"

static int print_piece(void *user, const char *text, size_t n) {
    fwrite(text, 1, n, user);
    fflush(user);
    return 0; /* anything else ends the generation */
}

static int fail(const qs_err *err) {
    fprintf(stderr, "complete: %s\n", err->text);
    return 1;
}

int main(int argc, char **argv) {
    const char *text = argc > 2 ? argv[2] : "床前明月光，";
    qs_model *model = NULL;
    qs_session *session = NULL;
    qs_gen_opts opts;
    qs_gen_stats stats;
    qs_err err = { 0 };
    int rc = 0;
    if (argc < 2) {
        fprintf(stderr, "usage: complete MODEL [TEXT]\n");
        return 2;
    }
    if (qs_model_open(&model, argv[1], NULL, &err) != QS_OK) return fail(&err);
    if (qs_session_create(&session, model, NULL, &err) != QS_OK) rc = fail(&err);

    /* the model's own sampling settings, then what we want to be different */
    qs_gen_opts_init(&opts, sizeof opts, model);
    opts.n_predict = 40;
    opts.seed = 1;
    opts.on_text = print_piece;
    opts.user = stdout;
    if (rc == 0) {
        printf("%s", text);
        if (qs_generate(session, text, strlen(text), QS_ENCODE_BOS, &opts, &stats, &err) != QS_OK)
            rc = fail(&err);
        else
            printf("\n[%lld tokens in %.2f s, ended by %s]\n", (long long)stats.n_generated,
                   stats.gen_s, qs_finish_text(stats.finish));
    }
    if (rc == 0 && (qs_chat_add(session, QS_USER, text, strlen(text), &err) != QS_OK ||
                    qs_chat_answer(session, &opts, &stats, &err) != QS_OK))
        rc = fail(&err);
    if (rc == 0) printf("\n");
    qs_session_free(session);
    qs_model_close(&model);
    return rc;
}
