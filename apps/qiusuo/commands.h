/* The commands of the program: one line and one file (cmd_NAME.c) each. */
#ifndef QSA_COMMANDS_H
#define QSA_COMMANDS_H

#ifdef QSI_HAVE_HUB
#define QSA_HUB_COMMANDS(X) \
    X(pull, "pull", "fetch a model from a hub") \
    X(list, "list", "the models that were pulled") \
    X(rm, "rm", "remove a model that was pulled")
#else
#define QSA_HUB_COMMANDS(X)
#endif

#ifdef QSI_HAVE_SERVE
#define QSA_SERVE_COMMANDS(X) X(serve, "serve", "a server for OpenAI's clients, and a chat page")
#else
#define QSA_SERVE_COMMANDS(X)
#endif

/* X(function suffix, name as typed, summary for --help); in the order --help shows them */
#define QSA_COMMANDS(X) \
    X(chat, "chat", "talk with a model") \
    X(run, "run", "one answer to one prompt") \
    QSA_SERVE_COMMANDS(X) \
    X(info, "info", "what a model file is") \
    X(init, "init", "a new model with random weights") \
    X(convert, "convert", "a folder or a split model as one GGUF file") \
    X(merge, "merge", "the files of a split model as one") \
    X(quantize, "quantize", "a model with its weights in another type") \
    X(score, "score", "log-probabilities of a text") \
    X(eval, "eval", "how well a model predicts a text, and against another one") \
    X(tokenize, "tokenize", "ids of a text") \
    X(tokenizer, "tokenizer", "learn a vocabulary (tokenizer train)") \
    X(train, "train", "train a model on text, or go on with one") \
    X(bench, "bench", "speed against this machine's limits") \
    X(plan, "plan", "what of a model will fit, and how fast it will be") \
    X(doctor, "doctor", "what helps or hinders speed on this machine") \
    QSA_HUB_COMMANDS(X)

#define QSA_DECLARE(suffix, name, summary) int cmd_##suffix(int argc, char **argv);
QSA_COMMANDS(QSA_DECLARE)
#undef QSA_DECLARE

#endif
