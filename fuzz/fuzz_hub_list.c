/* A hub's listing, and a choice from it: paths that lead nowhere else. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "hub/repo.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char *const whats[] = {"", "Q4_0", "a.gguf"};
    qsi_hub_repo r = {0};
    qs_err err = {0};
    if (qsi_hub_repo_add(&r, (const char *)data, size, &err) != QS_OK) QS_CHECK(err.text[0] != '\0');
    for (size_t i = 0; i < r.n_files; i++) QS_CHECK(qsi_hub_path_ok(r.files[i].path));
    for (size_t i = 0; i < QSI_COUNT(whats); i++) {
        size_t chosen = 0;
        err = (qs_err){0};
        qs_status st = qsi_hub_choose(&r, whats[i], &err);
        for (size_t k = 0; k < r.n_files; k++) chosen += r.files[k].chosen;
        QS_CHECK(st == QS_OK ? chosen > 0 : err.text[0] != '\0');
    }
    qsi_hub_repo_release(&r);
    return 0;
}
