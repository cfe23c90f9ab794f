/* Where the program keeps models, and how a name like OWNER/NAME becomes a path. Thread: main. */
#ifndef QSA_STORE_H
#define QSA_STORE_H

#include <stdbool.h>
#include <stddef.h>

#include "qiusuo/status.h"

/* The store's folder: $QIUSUO_MODELS, $XDG_DATA_HOME/qiusuo/models or ~/.local/share/qiusuo/models.
 * Says what is missing and returns false when none of them is set. */
bool qsa_store_dir(char *out, size_t cap);
/* What to open for `name`: itself when such a file is there or it is no name of the store, else the
 * stored model's path, in buf[cap]. */
const char *qsa_model_path(const char *name, char *buf, size_t cap);

/* Whether there is a GGUF file at path, by how it begins. */
bool qsa_is_gguf(const char *path);
/* The same, or a folder with a config.json. */
bool qsa_is_model(const char *path);

#endif
