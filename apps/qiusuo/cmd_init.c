/* init: a new model with random weights. */
#include <stdio.h>
#include <string.h>

#include "args.h"
#include "commands.h"
#include "qiusuo/files.h"
#include "qiusuo/qiusuo.h"
#include "ui.h"

static void on_log(void *user, int level, const char *text) { qsa_say("%s", text); }

/* "a|b|c" of all presets, for checking and --help. */
static void preset_choices(char *buf, size_t cap) {
    size_t n = 0;
    buf[0] = '\0';
    for (int32_t i = 0; qs_preset_name(i) != NULL && n < cap; i++) {
        n += (size_t)snprintf(buf + n, cap - n, "%s%s", i > 0 ? "|" : "", qs_preset_name(i));
    }
}

/* Presets, and the types with what the mixes are. */
static void about_text(char *buf, size_t cap) {
    size_t n = (size_t)snprintf(buf, cap,
        "Writes a model with seeded random weights: something to train, measure or test with.\n"
        "\n"
        "Presets:\n");
    for (int32_t i = 0; qs_preset_name(i) != NULL && n < cap; i++) {
        n += (size_t)snprintf(buf + n, cap - n, "  %-22s %s\n", qs_preset_name(i),
                              qs_preset_about(i));
    }
    n += n < cap ? (size_t)snprintf(buf + n, cap - n, "\nTypes, the same for every matrix:\n ") : 0;
    for (int32_t i = 0; qs_type_name(i) != NULL && n < cap; i++) {
        if (qs_type_about(i)[0] == '\0')
            n += (size_t)snprintf(buf + n, cap - n, " %s", qs_type_name(i));
    }
    n += n < cap ? (size_t)snprintf(buf + n, cap - n, "\nMixes:\n") : 0;
    for (int32_t i = 0; qs_type_name(i) != NULL && n < cap; i++) {
        if (qs_type_about(i)[0] != '\0')
            n += (size_t)snprintf(buf + n, cap - n, "  %-8s %s\n", qs_type_name(i),
                                  qs_type_about(i));
    }
    if (n < cap)
        snprintf(buf + n, cap - n,
                 "\n"
                 "A row that is no multiple of its type's block (256 for the K types) is stored as "
                 "Q4_0\n"
                 "instead of Q2_K and Q3_K, Q5_0 instead of Q4_K, Q5_1 instead of Q5_K, Q8_0 "
                 "instead of\n"
                 "Q6_K, as llama.cpp does; this is said. Routers and norms are F32.\n");
}

static int run(const qs_init_opts *given, const char *out) {
    qs_err err = {0};
    qsa_progress bar;
    qs_init_opts o = *given;
    qsa_progress_begin(&bar, out, "B", 0);
    o.progress = qsa_on_progress;
    o.user = &bar;
    qs_log_set(on_log, NULL);
    qsa_interrupt_catch(true);
    qs_status st = qs_init(&o, out, &err);
    qsa_interrupt_catch(false);
    qsa_progress_end(&bar);
    return st == QS_OK ? QSA_EXIT_OK : qsa_fail(st, &err);
}

int cmd_init(int argc, char **argv) {
    char choices[2048], about[8192];
    const char *out = NULL;
    int64_t seed = 0, layers = 0;
    bool mtp = false;
    qs_init_opts o;
    qs_init_opts_init(&o, sizeof o);
    preset_choices(choices, sizeof choices);
    about_text(about, sizeof about);
    const qsa_opt opts[] = {
        {.name = "preset",
         .value = "NAME",
         .help = "the model's shape (see above)",
         .kind = QSA_STR,
         .out = &o.preset,
         .choices = choices},
        {.name = "type",
         .value = "T",
         .help = "type of the matrices, or a mix (see above; default F16)",
         .kind = QSA_STR,
         .out = &o.type},
        QSA_OPT_STR(0, "vocab", "FILE", &o.vocab,
                    "copy the vocabulary of this GGUF, tokenizer.json or folder; without one, byte "
                    "symbols and numbered unused tokens"),
        QSA_OPT_INT(0, "seed", "N", &seed, 0, INT64_MAX, "start of the random numbers (default 0)"),
        QSA_OPT_INT(0, "layers", "N", &layers, 1, 1024, "so many layers instead of the preset's"),
        QSA_OPT_FLAG(0, "mtp", &mtp, "with the layer that predicts a further token, for --spec mtp "
                     "(presets of V3 and V3.2)"),
        QSA_OPT_NUM(0, "std", "X", &o.std, 0, 10,
                    "standard deviation of the weights (default 0.006)"),
        QSA_OPT_NUM(0, "router-skew", "S", &o.router_skew, 0, 10,
                    "routers that use their experts by a power law: a share of the tokens "
                    "proportional to rank^-S, at most 0.4; 0: evenly (default: as it happens)"),
        QSA_OPT_STR('o', "out", "OUT", &out, "the file to write"),
    };
    const qsa_cmd cmd = {
        .name = "init",
        .synopsis = "--preset NAME [--type T] [--vocab FILE] [--seed N] [--layers N] "
                    "[--router-skew S] -o OUT",
        .about = about,
        .examples =
            "qiusuo init --preset moe-tiny --type Q8_0 -o tiny.gguf\n"
            "qiusuo init --preset deepseek-llm-7b --type Q4_K_M -o seven.gguf\n"
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
    o.mtp = mtp;
    return run(&o, out);
}
