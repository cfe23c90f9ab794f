/* quantize: a model with its weights in another type, by an importance matrix or without. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "args.h"
#include "commands.h"
#include "gen_args.h"
#include "model_store.h"
#include "qiusuo/files.h"
#include "qiusuo/measure.h"
#include "qiusuo/qiusuo.h"
#include "ui.h"

#define MAX_TEXT ((size_t)1 << 30)

typedef struct args {
    const char *src, *dst, *type, *imatrix, *save;
    qsa_list rules;
    int64_t threads, window;
    uint64_t memory;
} args;

static const char *base_name(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash != NULL ? slash + 1 : path;
}

/* Runs the text of a->imatrix through the model and writes the matrix to a->save. */
static int collect(const args *a) {
    qsa_model_args m = {.model = a->src, .threads = a->threads, .memory = a->memory};
    qs_model *model = NULL;
    qs_session *s = NULL;
    qs_eval_opts o;
    qs_imatrix_report r = {0};
    qsa_progress bar;
    qs_err err = {0};
    char *text = NULL;
    size_t n = 0;
    qs_status st = qsa_read_text(a->imatrix, MAX_TEXT, &text, &n, &err);
    if (st == QS_OK) st = qsa_check_utf8(text, n, a->imatrix, &err);
    int rc = st == QS_OK ? qsa_open(&m, &model, &s) : qsa_fail(st, &err);
    if (rc != QSA_GO) goto done;
    qs_eval_opts_init(&o, sizeof o);
    o.ctx = a->window;
    o.progress = qsa_on_progress;
    o.user = &bar;
    qsa_progress_begin(&bar, "importance", "tokens", 0);
    qsa_cancel_on_interrupt(s, true);
    st = qs_imatrix(s, text, n, base_name(a->imatrix), &o, a->save, &r, &err);
    qsa_cancel_on_interrupt(s, false);
    qsa_progress_end(&bar);
    if (st != QS_OK) {
        rc = qsa_fail(st, &err);
        goto done;
    }
    qsa_say("importance of %d matrices in %d tensors from %lld tokens, perplexity %.2f; experts that "
            "saw no token: %d of %d; written to '%s'", (int)r.n_matrices, (int)r.n_tensors,
            (long long)r.text.n_tokens, r.text.ppl.value, (int)r.n_unseen, (int)r.n_experts, a->save);
done:
    free(text);
    qs_session_free(s);
    qs_model_close(&model);
    return rc;
}

static qs_convert_opts options(const args *a, const char *imatrix) {
    qs_convert_opts o;
    qs_convert_opts_init(&o, sizeof o);
    o.type = a->type;
    o.threads = (int32_t)a->threads;
    o.tensor_types = a->rules.v;
    o.n_tensor_types = (int32_t)a->rules.n;
    o.imatrix = imatrix;
    return o;
}

/* Whether the model can be written, before a text is read for it. */
static int check_model(const args *a) {
    qs_convert_opts o = options(a, a->save);
    qs_err err = {0};
    o.check = 1;
    qs_status st = qs_convert(&o, a->src, a->dst, &err);
    return st == QS_OK ? QSA_GO : qsa_fail(st, &err);
}

static int write_model(const args *a, const char *imatrix) {
    qs_convert_opts o = options(a, imatrix);
    qs_err err = {0};
    qsa_progress bar;
    o.progress = qsa_on_progress;
    o.user = &bar;
    qsa_progress_begin(&bar, a->dst, "B", 0);
    qs_log_set(qsa_log, NULL);
    qsa_interrupt_catch(true);
    qs_status st = qs_convert(&o, a->src, a->dst, &err);
    qsa_interrupt_catch(false);
    qsa_progress_end(&bar);
    return st == QS_OK ? QSA_EXIT_OK : qsa_fail(st, &err);
}

static int run(const qsa_cmd *cmd, args *a) {
    char beside[4096];
    if (a->imatrix == NULL || qsa_is_gguf(a->imatrix)) { /* a matrix, no text */
        if (a->save != NULL) return qsa_usage(cmd, "--save-imatrix needs --imatrix with a text");
        if (a->dst == NULL) return qsa_usage(cmd, "name the model and the file to write");
        return write_model(a, a->imatrix);
    }
    if (a->save == NULL) {
        if (a->dst == NULL)
            return qsa_usage(cmd, "name the file to write, or --save-imatrix FILE for the matrix alone");
        int k = snprintf(beside, sizeof beside, "%s.imatrix", a->dst);
        if (k < 0 || (size_t)k >= sizeof beside) return qsa_usage(cmd, "the name is too long");
        a->save = beside;
    }
    if (!qsa_apart(a->src, a->save) || !qsa_apart(a->imatrix, a->save) ||
        !qsa_apart(a->dst, a->save) || !qsa_apart(a->imatrix, a->dst))
        return QSA_EXIT_FAILED;
    int rc = a->dst != NULL ? check_model(a) : QSA_GO;
    if (rc == QSA_GO) rc = collect(a);
    return rc == QSA_GO && a->dst != NULL ? write_model(a, a->save) : rc == QSA_GO ? QSA_EXIT_OK : rc;
}

int cmd_quantize(int argc, char **argv) {
    args a = {0};
    const qsa_opt opts[] = {
        QSA_OPT_STR(0, "type", "T", &a.type, "weights in this type or mix ('qiusuo init --help' lists "
                                             "them)"),
        QSA_OPT_LIST(0, "tensor-type", "PATTERN=T", &a.rules,
                     "type T for tensors whose name matches the expression; may be repeated, the "
                     "first that matches counts"),
        QSA_OPT_STR(0, "imatrix", "FILE", &a.imatrix,
                    "a text to learn from which columns matter, or an importance matrix saved before"),
        QSA_OPT_STR(0, "save-imatrix", "FILE", &a.save,
                    "where the matrix of a text goes (default: DST.imatrix)"),
        QSA_OPT_INT(0, "window", "N", &a.window, 0, 16777216,
                    "tokens of a window of the text (default 512)"),
        QSA_OPT_SIZE(0, "memory", "SIZE", &a.memory,
                     "at most SIZE while the text is read (12G); weights beyond it come from disk"),
        QSA_OPT_INT('t', "threads", "N", &a.threads, 1, 1024, "worker threads (default: all cores)"),
    };
    qsa_cmd cmd = {
        .name = "quantize",
        .synopsis = "SRC DST --type T [--tensor-type PATTERN=T] [--imatrix FILE]",
        .about = "Writes a model with its weights in another type. SRC is a GGUF file, the first of "
                 "several,\nor a Hugging Face folder; norms and routers stay F32, all keys are kept. "
                 "Scales are searched\nfor: errors count alike, or by the mean squares of what the "
                 "model multiplies them with on a\ntext (--imatrix), kept for every expert of its own. "
                 "Rows that do not fit a type's blocks\ntake another type, which is said. A run that "
                 "was stopped or killed goes on when the same\ncommand is given again.\n",
        .examples = "qiusuo quantize model-f16.gguf model-q4.gguf --type Q4_K_M\n"
                    "qiusuo quantize path/to/folder model-q8.gguf --type Q8_0\n"
                    "qiusuo quantize model-f16.gguf small.gguf --type Q3_K_M --imatrix text.txt\n"
                    "qiusuo quantize model-f16.gguf --imatrix text.txt --save-imatrix text.imatrix\n"
                    "qiusuo quantize f16.gguf mixed.gguf --type Q4_K --tensor-type 'ffn_down=Q6_K'\n",
        .opts = opts,
        .n_opts = sizeof opts / sizeof opts[0],
        .max_pos = 2,
    };
    qsa_pos pos;
    int rc = qsa_parse(&cmd, argc, argv, &pos);
    if (rc != QSA_GO) return rc;
    if (pos.n == 0) return qsa_usage(&cmd, "name the model and the file to write");
    a.src = pos.v[0];
    a.dst = pos.n == 2 ? pos.v[1] : NULL;
    if (a.dst != NULL && a.type == NULL && a.rules.n == 0)
        return qsa_usage(&cmd, "into which type? name it with --type");
    return run(&cmd, &a);
}
