/* tokenize: the ids of a text on one line. */
#include <stdio.h>
#include <stdlib.h>

#include "args.h"
#include "commands.h"
#include "qiusuo/tokenizer.h"
#include "model_store.h"
#include "ui.h"

#define MAX_TEXT ((size_t)4 << 30)

static int print_ids(const qs_tokenizer *t, const char *text, size_t n, unsigned flags) {
    qs_err err;
    size_t n_ids = 0;
    size_t cap = 3 * n + 1; /* memory that is not filled is not taken */
    int32_t *ids = malloc(cap * sizeof(*ids));
    if (ids == NULL) {
        qsa_say("out of memory for the ids of a text of %zu bytes", n);
        return QSA_EXIT_FAILED;
    }
    qs_status st = qs_tokenizer_encode(t, text, n, flags, ids, cap, &n_ids, &err);
    for (size_t i = 0; st == QS_OK && i < n_ids; i++) printf(i == 0 ? "%d" : " %d", (int)ids[i]);
    if (st == QS_OK) putchar('\n');
    free(ids);
    return st == QS_OK ? QSA_EXIT_OK : qsa_fail(st, &err);
}

int cmd_tokenize(int argc, char **argv) {
    const char *model = NULL;
    char stored[4096];
    bool bos = true, special = true;
    const qsa_opt opts[] = {
        QSA_OPT_STR('m', "model", "FILE", &model, "GGUF, or a folder with tokenizer.json"),
        QSA_OPT_UNSET(0, "no-bos", &bos, "do not put the first token (BOS) in front"),
        QSA_OPT_UNSET(0, "no-special", &special,
                      "control tokens written in the text are plain text"),
    };
    const qsa_cmd cmd = {
        .name = "tokenize",
        .synopsis = "-m FILE [--no-bos] [--no-special] < text",
        .about = "Prints the ids of standard input on one line, separated by spaces. The input is "
                 "taken byte for\nbyte, a last newline included, and must be UTF-8.\n",
        .examples = "printf 'Hello world' | qiusuo tokenize -m model.gguf\n"
                    "qiusuo tokenize -m vocab.gguf --no-bos < poem.txt\n",
        .opts = opts,
        .n_opts = sizeof(opts) / sizeof(opts[0]),
        .max_pos = 1,
    };
    qsa_pos pos;
    int rc = qsa_parse(&cmd, argc, argv, &pos);
    if (rc != QSA_GO) return rc;
    if (model == NULL && pos.n == 1) model = pos.v[0];
    else if (pos.n == 1) return qsa_usage(&cmd, "the model is named twice");
    if (model == NULL) return qsa_usage(&cmd, "which model? name it with -m");
    qs_err err;
    qs_tokenizer *t = NULL;
    char *text = NULL;
    size_t n = 0;
    qs_status st = qs_tokenizer_open(&t, qsa_model_path(model, stored, sizeof stored), &err);
    if (st == QS_OK) st = qsa_read_text("-", MAX_TEXT, &text, &n, &err);
    unsigned flags = (bos ? QS_ENCODE_BOS : 0u) | (special ? QS_ENCODE_SPECIAL : 0u);
    rc = st == QS_OK ? print_ids(t, text, n, flags) : qsa_fail(st, &err);
    free(text);
    qs_tokenizer_close(&t);
    return rc;
}
