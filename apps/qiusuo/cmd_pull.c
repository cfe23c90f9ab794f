/* pull: a model from a hub into the store. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "args.h"
#include "commands.h"
#include "qiusuo/hub.h"
#include "model_store.h"
#include "ui.h"

enum { TOKEN_MAX = 1024 };

static int on_progress(void *user, const char *what, uint64_t done, uint64_t of) {
    qsa_progress *p = user;
    if (strcmp(p->label, what) != 0) {
        qsa_progress_end(p);
        qsa_progress_begin(p, strcmp(what, "checking") == 0 ? "checking" : "fetching", "B", of);
    }
    p->total = of;
    qsa_progress_update(p, done);
    return qsa_interrupted();
}

/* First line of a file that only its owner may read. */
static bool read_token(const char *path, char token[TOKEN_MAX]) {
    struct stat sb;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &sb) != 0) {
        qsa_say("cannot open the token file '%s': %s", path, strerror(errno));
        if (fd >= 0) close(fd);
        return false;
    }
    ssize_t n = read(fd, token, TOKEN_MAX);
    close(fd);
    if ((sb.st_mode & 077) != 0) {
        qsa_say("others may read the token file '%s': chmod 600 it first", path);
        return false;
    }
    if (n == TOKEN_MAX) {
        qsa_say("the token file '%s' holds more than a token", path);
        return false;
    }
    token[n > 0 ? n : 0] = '\0';
    token[strcspn(token, "\r\n")] = '\0';
    if (token[0] == '\0') qsa_say("the token file '%s' is empty", path);
    return token[0] != '\0';
}

int cmd_pull(int argc, char **argv) {
    const char *base = getenv("HF_ENDPOINT"), *token_file = NULL;
    int64_t parallel = 0, stall = 0, tries = 0;
    bool again = false;
    const qsa_opt opts[] = {
        QSA_OPT_STR(0, "base", "URL", &base,
                    "the hub or a mirror of it (default $HF_ENDPOINT or https://huggingface.co)"),
        QSA_OPT_STR(0, "token-file", "FILE", &token_file,
                    "access token, in a file of mode 600 (default $HF_TOKEN)"),
        QSA_OPT_INT(0, "parallel", "N", &parallel, 1, 32, "connections at a time (default 4)"),
        QSA_OPT_INT(0, "stall", "SECONDS", &stall, 1, 3600,
                    "drop a connection that carries nothing for so long (default 30)"),
        QSA_OPT_INT(0, "tries", "N", &tries, 1, 1000,
                    "failures in a row before giving up (default 6)"),
        QSA_OPT_FLAG(0, "again", &again, "fetch also what is there"),
    };
    const qsa_cmd cmd = {
        .name = "pull",
        .synopsis = "OWNER/NAME[@REVISION][:FILE-OR-TYPE] | URL",
        .about =
            "Fetches a model into the store and prints the path to open. A pull that was cut goes\n"
            "on where it ended; a file appears when it is complete and its digest is right.\n",
        .examples = "qiusuo pull deepseek-ai/deepseek-llm-7b-chat\n"
                    "qiusuo pull OWNER/NAME-GGUF:Q4_K_M\n"
                    "qiusuo chat OWNER/NAME-GGUF:Q4_K_M\n"
                    "qiusuo pull https://example.org/model.gguf\n",
        .opts = opts,
        .n_opts = sizeof opts / sizeof opts[0],
        .max_pos = 1,
    };
    qsa_pos pos;
    qs_err err = {0};
    qs_hub_opts o;
    qsa_progress bar;
    char store[4096], path[8192], token[TOKEN_MAX];
    int rc = qsa_parse(&cmd, argc, argv, &pos);
    if (rc != QSA_GO) return rc;
    if (pos.n == 0) return qsa_usage(&cmd, "which model?");
    if (!qsa_store_dir(store, sizeof store)) return QSA_EXIT_FAILED;
    if (token_file != NULL && !read_token(token_file, token)) return QSA_EXIT_FAILED;
    qs_hub_opts_init(&o, sizeof o);
    o.store = store;
    o.base = base != NULL && base[0] != '\0' ? base : NULL;
    o.token = token_file != NULL ? token : getenv("HF_TOKEN");
    if (o.token != NULL && o.token[0] == '\0') o.token = NULL;
    o.parallel = (int32_t)parallel;
    o.stall_s = (int32_t)stall;
    o.tries = (int32_t)tries;
    o.again = again;
    o.progress = on_progress;
    o.user = &bar;
    qsa_progress_begin(&bar, "fetching", "B", 0);
    qsa_interrupt_catch(true);
    qs_status st = qs_hub_pull(&o, pos.v[0], path, sizeof path, &err);
    qsa_interrupt_catch(false);
    qsa_progress_end(&bar);
    if (st != QS_OK) return qsa_fail(st, &err);
    printf("%s\n", path);
    return QSA_EXIT_OK;
}
