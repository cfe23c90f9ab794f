/* convert and quantize: models written anew, as one GGUF file or with weights in another type. */
#include <stdio.h>

#include "args.h"
#include "commands.h"
#include "qiusuo/files.h"
#include "qiusuo/qiusuo.h"
#include "ui.h"

static void on_log(void *user, int level, const char *text) { qsa_say("%s", text); }

static int run(qsa_cmd *cmd, bool needs_type, int argc, char **argv) {
    const char *type = NULL;
    int64_t threads = 0;
    qs_convert_opts o;
    qs_err err = {0};
    qsa_progress bar;
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
    if (needs_type && type == NULL) return qsa_usage(cmd, "into which type? name it with --type");
    qs_convert_opts_init(&o, sizeof o);
    qsa_progress_begin(&bar, pos.v[1], "B", 0);
    o.type = type;
    o.threads = (int32_t)threads;
    o.progress = qsa_on_progress;
    o.user = &bar;
    qs_log_set(on_log, NULL);
    qsa_interrupt_catch(true);
    qs_status st = qs_convert(&o, pos.v[0], pos.v[1], &err);
    qsa_interrupt_catch(false);
    qsa_progress_end(&bar);
    return st == QS_OK ? QSA_EXIT_OK : qsa_fail(st, &err);
}

int cmd_convert(int argc, char **argv) {
    qsa_cmd cmd = {
        .name = "convert",
        .synopsis = "SRC DST [--type T]",
        .about = "Writes a model as one GGUF file: a Hugging Face folder (safetensors or PyTorch files, "
                 "FP8\nincluded), or a model in several GGUF files, of which the first is named.\n",
        .examples = "qiusuo convert path/to/folder model.gguf\n"
                    "qiusuo convert big-00001-of-00003.gguf big.gguf\n",
    };
    return run(&cmd, false, argc, argv);
}

int cmd_quantize(int argc, char **argv) {
    qsa_cmd cmd = {
        .name = "quantize",
        .synopsis = "SRC DST --type T",
        .about = "Writes a model with its weights in another type. SRC is a GGUF file, the first of "
                 "several,\nor a Hugging Face folder; norms and routers stay F32, all keys are kept.\n",
        .examples = "qiusuo quantize model-f16.gguf model-q4.gguf --type Q4_K_M\n"
                    "qiusuo quantize path/to/folder model-q8.gguf --type Q8_0\n",
    };
    return run(&cmd, true, argc, argv);
}
