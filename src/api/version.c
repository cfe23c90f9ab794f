/* Version, text check and the place of the default model. */
#include <string.h>

#include "base/str.h"
#include "qiusuo/qiusuo.h"
#include "sys/file.h"

#include "base/mem.h"

const char *qs_version(void) { return QSI_VERSION; }

int64_t qs_utf8_check(const char *text, size_t n) {
    size_t bad;
    return qsi_utf8_valid(text, n, &bad) ? -1 : (int64_t)bad;
}

/* Puts the first model file of the folder into path; false when there is none. */
static bool model_in(const char *folder, qsi_str *path) {
    char **names = NULL;
    size_t n = 0;
    bool found = false;
    if (qsi_dir_list(folder, &names, &n, NULL) != QS_OK) return false;
    for (size_t i = 0; i < n; i++) {
        size_t len = strlen(names[i]);
        if (!found && len > 5 && strcmp(names[i] + len - 5, ".gguf") == 0) {
            qsi_str_clear(path);
            found = qsi_path_join(path, folder, names[i]) == QS_OK;
        }
        qsi_free(names[i]);
    }
    qsi_free(names);
    return found;
}

qs_status qs_default_model(char *out, size_t cap, qs_err *err) {
    /* From the program's folder: build/ in the source tree, bin/ under a prefix. */
    static const char *const places[] = {"../models/default", "../share/qiusuo/models/default"};
    qs_status st = QS_OK;
    qsi_str exe = {0}, folder = {0}, path = {0};
    bool found = false;
    QS_TRY(qsi_exe_dir(&exe, err));
    for (size_t i = 0; i < QSI_COUNT(places) && !found; i++) {
        qsi_str_clear(&folder);
        if (qsi_path_join(&folder, exe.data, places[i]) != QS_OK) {
            QS_FAIL(err, QS_E_NOMEM, "out of memory");
        }
        found = model_in(folder.data, &path);
    }
    if (!found) {
        QS_FAIL(err, QS_E_NOTFOUND,
                "no default model beside the program (no %s/%s, no %s): name a model",
                exe.data, places[0], places[1]);
    }
    if (path.len >= cap) QS_FAIL(err, QS_E_LIMIT, "the default model's path is too long");
    memcpy(out, path.data, path.len + 1);
done:
    qsi_str_release(&exe);
    qsi_str_release(&folder);
    qsi_str_release(&path);
    return st;
}
