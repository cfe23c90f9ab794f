/* list: what the store holds. */
#include <stdio.h>

#include "args.h"
#include "commands.h"
#include "qiusuo/hub.h"
#include "model_store.h"
#include "ui.h"

static void to_stdout(void *user, const char *text, size_t n) { fwrite(text, 1, n, stdout); }

static int on_progress(void *user, const char *what, uint64_t done, uint64_t of) {
    qsa_progress *p = user;
    p->total = of;
    qsa_progress_update(p, done);
    return qsa_interrupted();
}

int cmd_list(int argc, char **argv) {
    bool json = false, verify = false;
    const qsa_opt opts[] = {
        QSA_OPT_FLAG(0, "verify", &verify, "compute every digest anew"),
        QSA_OPT_FLAG(0, "json", &json, "print one JSON array"),
    };
    const qsa_cmd cmd = {
        .name = "list",
        .synopsis = "[--verify] [--json]",
        .about = "Lists the models that were pulled. Exit code 1 when a file is missing or damaged.\n",
        .examples = "qiusuo list\nqiusuo list --verify\n",
        .opts = opts,
        .n_opts = sizeof opts / sizeof opts[0],
    };
    qsa_pos pos;
    qs_err err = {0};
    qs_hub_opts o;
    qsa_progress bar;
    char store[4096];
    int rc = qsa_parse(&cmd, argc, argv, &pos);
    if (rc != QSA_GO) return rc;
    if (!qsa_store_dir(store, sizeof store)) return QSA_EXIT_FAILED;
    qs_hub_opts_init(&o, sizeof o);
    o.store = store;
    o.progress = on_progress;
    o.user = &bar;
    qsa_progress_begin(&bar, "checking", "B", 0);
    qsa_interrupt_catch(verify);
    qs_status st = qs_hub_list(&o, (json ? QS_HUB_JSON : 0u) | (verify ? QS_HUB_VERIFY : 0u), to_stdout,
                               NULL, &err);
    qsa_interrupt_catch(false);
    qsa_progress_end(&bar);
    return st == QS_OK ? QSA_EXIT_OK : qsa_fail(st, &err);
}
