/* tokenizer train: learns a vocabulary from text and writes it as a GGUF without tensors. */
#include <string.h>

#include "args.h"
#include "commands.h"
#include "qiusuo/tokenizer.h"
#include "ui.h"

typedef struct display {
    qsa_progress bar;
    int merging;
} display;

static int on_progress(void *user, int merging, int64_t done, int64_t of) {
    display *d = user;
    if (merging && !d->merging) {
        qsa_progress_end(&d->bar);
        qsa_progress_begin(&d->bar, "learning", "merges", (uint64_t)of);
        d->merging = 1;
    }
    qsa_progress_update(&d->bar, (uint64_t)done);
    return qsa_interrupted();
}

static int train(int argc, char **argv) {
    const char *out = NULL, *pre = "deepseek-llm";
    int64_t n_vocab = 16384;
    const qsa_opt opts[] = {
        QSA_OPT_STR('o', "out", "FILE", &out, "GGUF to write (required)"),
        QSA_OPT_COUNT(0, "vocab", "N", &n_vocab, 258, 1000000, "tokens wanted (default 16384)"),
        QSA_OPT_CHOICE(0, "pre", "deepseek-llm|deepseek-coder|deepseek-v3", &pre,
                       "pre-tokenizer (default deepseek-llm)"),
    };
    const qsa_cmd cmd = {
        .name = "tokenizer train",
        .synopsis = "TEXT-OR-FOLDER... [--vocab N] [--pre NAME] -o vocab.gguf",
        .about = "Learns a byte-level BPE vocabulary from UTF-8 text and writes it as a GGUF without "
                 "tensors.\nFolders are searched for .txt, .text, .md and .jsonl files; of the "
                 "latter the fields\n\"text\" and \"content\" are read. The same text gives the "
                 "same vocabulary.\n",
        .examples = "qiusuo tokenizer train poems.txt --vocab 8192 -o vocab.gguf\n"
                    "qiusuo tokenizer train corpus/ more.txt --vocab 16384 -o vocab.gguf\n",
        .opts = opts,
        .n_opts = sizeof(opts) / sizeof(opts[0]),
        .max_pos = -1,
    };
    qsa_pos pos;
    int rc = qsa_parse(&cmd, argc, argv, &pos);
    if (rc != QSA_GO) return rc;
    if (pos.n == 0) return qsa_usage(&cmd, "from which text? name files or folders");
    if (out == NULL) return qsa_usage(&cmd, "where to? name the file to write with -o");
    display d = {.merging = 0};
    qs_err err;
    qs_tokenizer_trained done;
    qs_tokenizer_training s = {.paths = (const char *const *)pos.v,
                               .n_paths = (size_t)pos.n,
                               .n_vocab = (int32_t)n_vocab,
                               .pre = pre,
                               .out = out,
                               .progress = on_progress,
                               .user = &d};
    qsa_interrupt_catch(true);
    qsa_progress_begin(&d.bar, "reading", "B", 0);
    qs_status st = qs_tokenizer_train(&s, &done, &err);
    qsa_progress_end(&d.bar);
    if (st != QS_OK) return qsa_fail(st, &err);
    qsa_say("learned %d tokens from %lld file%s, %lld bytes; wrote '%s'", (int)done.n_vocab,
            (long long)done.n_files, done.n_files == 1 ? "" : "s", (long long)done.n_bytes, out);
    if (done.n_vocab < n_vocab)
        qsa_say("the text holds no more: %lld tokens were wanted", (long long)n_vocab);
    return QSA_EXIT_OK;
}

int cmd_tokenizer(int argc, char **argv) {
    static const qsa_cmd cmd = {
        .name = "tokenizer",
        .synopsis = "train TEXT-OR-FOLDER... -o vocab.gguf",
        .about = "Works on vocabularies. 'qiusuo tokenizer train --help' says how to learn one.\n",
        .examples = "qiusuo tokenizer train poems.txt --vocab 8192 -o vocab.gguf\n",
        .max_pos = -1,
    };
    qsa_pos pos;
    if (argc > 1 && strcmp(argv[1], "train") == 0) return train(argc - 1, argv + 1);
    int rc = qsa_parse(&cmd, argc, argv, &pos);
    if (rc != QSA_GO) return rc;
    return qsa_usage(&cmd, pos.n == 0 ? "which action? there is 'train'"
                                      : "unknown action; there is 'train'");
}
