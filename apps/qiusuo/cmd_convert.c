/* convert and merge: models written anew, as one GGUF file. */
#include <stdio.h>

#include "args.h"
#include "commands.h"
#include "qiusuo/files.h"
#include "qiusuo/qiusuo.h"
#include "ui.h"

static void on_log(void *user, int level, const char *text) { qsa_say("%s", text); }

static int convert(const char *src, const char *dst, const char *type, int64_t threads) {
    qs_convert_opts o;
    qs_err err = {0};
    qsa_progress bar;
    qs_convert_opts_init(&o, sizeof o);
    qsa_progress_begin(&bar, dst, "B", 0);
    o.type = type;
    o.threads = (int32_t)threads;
    o.progress = qsa_on_progress;
    o.user = &bar;
    qs_log_set(on_log, NULL);
    qsa_interrupt_catch(true);
    qs_status st = qs_convert(&o, src, dst, &err);
    qsa_interrupt_catch(false);
    qsa_progress_end(&bar);
    return st == QS_OK ? QSA_EXIT_OK : qsa_fail(st, &err);
}

static int run(qsa_cmd *cmd, int argc, char **argv) {
    const char *type = NULL;
    int64_t threads = 0;
    qsa_pos pos;
    const qsa_opt opts[] = {
        QSA_OPT_STR(0, "type", "T", &type, "weights in this type or mix ('qiusuo init --help' lists "
                                           "them)"),
        QSA_OPT_INT('t', "threads", "N", &threads, 1, 1024, "worker threads (default: all cores)"),
    };
    cmd->opts = opts;
    cmd->n_opts = sizeof opts / sizeof opts[0];
    cmd->max_pos = 2;
    int rc = qsa_parse(cmd, argc, argv, &pos);
    if (rc != QSA_GO) return rc;
    if (pos.n != 2) return qsa_usage(cmd, "name the model and the file to write");
    return convert(pos.v[0], pos.v[1], type, threads);
}

int cmd_convert(int argc, char **argv) {
    qsa_cmd cmd = {
        .name = "convert",
        .synopsis = "SRC DST [--type T]",
        .about = "Writes a model as one GGUF file: a Hugging Face folder (safetensors or PyTorch files, "
                 "FP8\nincluded), or a model in several GGUF files, of which the first is named. A GGUF "
                 "file becomes a\nHugging Face folder when DST is a folder or ends in '/': "
                 "safetensors that transformers and\nPyTorch read, config.json and tokenizer.json "
                 "(--type F32, F16 or BF16; quantised matrices\notherwise become BF16). A run that was "
                 "stopped or killed goes on when the same command is\ngiven again.\n",
        .examples = "qiusuo convert path/to/folder model.gguf\n"
                    "qiusuo convert big-00001-of-00003.gguf big.gguf\n"
                    "qiusuo convert model.gguf path/to/folder/\n",
    };
    return run(&cmd, argc, argv);
}

int cmd_merge(int argc, char **argv) {
    qsa_cmd cmd = {
        .name = "merge",
        .synopsis = "FIRST DST",
        .about = "Writes a model in several GGUF files as one. FIRST is its first file,\n"
                 "NAME-00001-of-0000N.gguf; the others are found beside it.\n",
        .examples = "qiusuo merge big-00001-of-00003.gguf big.gguf\n",
    };
    qsa_pos pos;
    cmd.max_pos = 2;
    int rc = qsa_parse(&cmd, argc, argv, &pos);
    if (rc != QSA_GO) return rc;
    if (pos.n != 2) return qsa_usage(&cmd, "name the first file and the file to write");
    return convert(pos.v[0], pos.v[1], NULL, 0);
}
