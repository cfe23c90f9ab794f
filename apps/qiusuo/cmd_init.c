/* init: a new model with random weights. */
#include <stdio.h>
#include <string.h>

#include "args.h"
#include "commands.h"
#include "qiusuo/files.h"
#include "qiusuo/qiusuo.h"
#include "ui.h"

static int on_progress(void *user, int64_t done, int64_t of) {
    qsa_progress *p = user;
    p->total = (uint64_t)of;
    qsa_progress_update(p, (uint64_t)done);
    return qsa_interrupted();
}

static void on_log(void *user, int level, const char *text) { qsa_say("%s", text); }

/* "a|b|c" of all presets, for checking and --help. */
static void preset_choices(char *buf, size_t cap) {
    size_t n = 0;
    buf[0] = '\0';
    for (int32_t i = 0; qs_preset_name(i) != NULL && n < cap; i++) {
        n += (size_t)snprintf(buf + n, cap - n, "%s%s", i > 0 ? "|" : "", qs_preset_name(i));
    }
}

static void preset_list(char *buf, size_t cap) {
    size_t n = (size_t)snprintf(buf, cap,
        "Writes a model with seeded random weights: something to train, measure or test with.\n"
        "\n"
        "Presets:\n");
    for (int32_t i = 0; qs_preset_name(i) != NULL && n < cap; i++) {
        n += (size_t)snprintf(buf + n, cap - n, "  %-18s %s\n", qs_preset_name(i),
                              qs_preset_about(i));
    }
}

static int run(const qs_init_opts *given, const char *out) {
    qs_err err = {0};
    qsa_progress bar;
    qs_init_opts o = *given;
    qsa_progress_begin(&bar, out, "B", 0);
    o.progress = on_progress;
    o.user = &bar;
    qs_log_set(on_log, NULL);
    qsa_interrupt_catch(true);
    qs_status st = qs_init(&o, out, &err);
    qsa_interrupt_catch(false);
    qsa_progress_end(&bar);
    return st == QS_OK ? QSA_EXIT_OK : qsa_fail(st, &err);
}

int cmd_init(int argc, char **argv) {
    char choices[512], about[2048];
    const char *out = NULL;
    int64_t seed = 0, layers = 0;
    qs_init_opts o;
    qs_init_opts_init(&o, sizeof o);
    preset_choices(choices, sizeof choices);
    preset_list(about, sizeof about);
    const qsa_opt opts[] = {
        {.name = "preset",
         .value = "NAME",
         .help = "the model's shape (see above)",
         .kind = QSA_STR,
         .out = &o.preset,
         .choices = choices},
        {.name = "type",
         .value = "T",
         .help = "type of the matrices: F32, F16 (default), BF16, Q8_0, Q4_0",
         .kind = QSA_STR,
         .out = &o.type},
        QSA_OPT_STR(0, "vocab", "FILE", &o.vocab,
                    "copy the vocabulary of this GGUF, tokenizer.json or folder; without one, byte "
                    "symbols and numbered unused tokens"),
        QSA_OPT_INT(0, "seed", "N", &seed, 0, INT64_MAX, "start of the random numbers (default 0)"),
        QSA_OPT_INT(0, "layers", "N", &layers, 1, 1024, "so many layers instead of the preset's"),
        QSA_OPT_NUM(0, "std", "X", &o.std, 0, 10,
                    "standard deviation of the weights (default 0.006)"),
        QSA_OPT_STR('o', "out", "OUT", &out, "the file to write"),
    };
    const qsa_cmd cmd = {
        .name = "init",
        .synopsis = "--preset NAME [--type T] [--vocab FILE] [--seed N] [--layers N] -o OUT",
        .about = about,
        .examples =
            "qiusuo init --preset moe-tiny --type Q8_0 -o tiny.gguf\n"
            "qiusuo init --preset deepseek-moe-16b --type BF16 --vocab vocab.gguf --layers 2 "
            "-o two.gguf\n",
        .opts = opts,
        .n_opts = sizeof opts / sizeof opts[0],
    };
    qsa_pos pos;
    int rc = qsa_parse(&cmd, argc, argv, &pos);
    if (rc != QSA_GO) return rc;
    if (o.preset == NULL) return qsa_usage(&cmd, "which preset? name it with --preset");
    if (out == NULL) return qsa_usage(&cmd, "where to? name the file with -o");
    o.seed = (uint64_t)seed;
    o.layers = (int32_t)layers;
    return run(&o, out);
}
