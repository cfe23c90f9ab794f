/* info: what a model file is. */
#include <stdio.h>

#include "args.h"
#include "commands.h"
#include "qiusuo/files.h"
#include "model_store.h"
#include "ui.h"

static void to_stdout(void *user, const char *text, size_t n) { fwrite(text, 1, n, stdout); }

int cmd_info(int argc, char **argv) {
    const char *model = NULL;
    char stored[4096];
    bool json = false, tensors = false, keys = false, verify = false;
    const qsa_opt opts[] = {
        QSA_OPT_STR('m', "model", "FILE", &model, "the file (or name it without -m)"),
        QSA_OPT_FLAG(0, "tensors", &tensors, "list every tensor: name, type, dimensions, bytes"),
        QSA_OPT_FLAG(0, "keys", &keys, "list every key of a GGUF file"),
        QSA_OPT_FLAG(0, "verify", &verify,
                     "look at every value: find NaN and infinity; a digest of each tensor"),
        QSA_OPT_FLAG(0, "json", &json, "print one JSON object"),
    };
    const qsa_cmd cmd = {
        .name = "info",
        .synopsis = "FILE [--tensors] [--keys] [--verify] [--json]",
        .about =
            "Describes a model file without loading it: GGUF, safetensors, tokenizer.json or a "
            "Hugging Face\nfolder. The exit code is 1 when the file is damaged, and the message "
            "says what is wrong with it.\n",
        .examples = "qiusuo info model.gguf\n"
                    "qiusuo info model.gguf --verify\n"
                    "qiusuo info model.gguf --tensors --json | jq '.tensors[].name'\n",
        .opts = opts,
        .n_opts = sizeof opts / sizeof opts[0],
        .max_pos = 1,
    };
    qsa_pos pos;
    qs_err err = {0};
    qsa_progress bar;
    int rc = qsa_parse(&cmd, argc, argv, &pos);
    if (rc != QSA_GO) return rc;
    if (model != NULL && pos.n == 1) return qsa_usage(&cmd, "the file is named twice");
    if (pos.n == 1) model = pos.v[0];
    if (model == NULL) return qsa_usage(&cmd, "which file?");
    uint32_t flags = (json ? QS_INFO_JSON : 0u) | (tensors ? QS_INFO_TENSORS : 0u) |
                     (keys ? QS_INFO_KEYS : 0u) | (verify ? QS_INFO_VERIFY : 0u);
    qsa_progress_begin(&bar, "checking", "B", 0);
    qsa_interrupt_catch(verify);
    model = qsa_model_path(model, stored, sizeof stored);
    qs_status st = qs_info(model, flags, to_stdout, NULL, qsa_on_progress, &bar, &err);
    qsa_interrupt_catch(false);
    qsa_progress_end(&bar);
    return st == QS_OK ? QSA_EXIT_OK : qsa_fail(st, &err);
}
