/* rm: removes a model, or a file of one, from the store. */
#include <stdio.h>

#include "args.h"
#include "commands.h"
#include "qiusuo/hub.h"
#include "model_store.h"
#include "ui.h"

int cmd_rm(int argc, char **argv) {
    const qsa_cmd cmd = {
        .name = "rm",
        .synopsis = "OWNER/NAME[:FILE]...",
        .about = "Removes models from the store, or single files of them.\n",
        .examples = "qiusuo rm OWNER/NAME\nqiusuo rm OWNER/NAME:model.Q4_K_M.gguf\n",
        .max_pos = -1,
    };
    qsa_pos pos;
    qs_err err = {0};
    char store[4096], size[32];
    int rc = qsa_parse(&cmd, argc, argv, &pos);
    if (rc != QSA_GO) return rc;
    if (pos.n == 0) return qsa_usage(&cmd, "which model? 'qiusuo list' shows what there is");
    if (!qsa_store_dir(store, sizeof store)) return QSA_EXIT_FAILED;
    for (int i = 0; i < pos.n; i++) {
        uint64_t bytes = 0;
        qs_status st = qs_hub_remove(store, pos.v[i], &bytes, &err);
        if (st != QS_OK) return qsa_fail(st, &err);
        qsa_say("removed %s, %s", pos.v[i], qsa_format_size(size, sizeof size, bytes));
    }
    return QSA_EXIT_OK;
}
