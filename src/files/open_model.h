/* One door for every kind of model a person may name. Thread: any. */
#ifndef QSI_FILES_OPEN_MODEL_H
#define QSI_FILES_OPEN_MODEL_H

#include "base/status.h"
#include "fmt/gguf.h"

/* A GGUF file is opened as it is. A Hugging Face folder is converted to a GGUF in a file without a
 * name, which vanishes with *g: in the folder itself, /var/tmp or /tmp, where there is room first;
 * a note of the log says so when it is large. */
qs_status qsi_files_open_model(const char *path, qsi_gguf **g, qs_err *err) QS_MUST_CHECK;
/* The same with progress in bytes of a conversion; non-zero cancels. */
qs_status qsi_files_open_model_progress(const char *path, qsi_gguf **g,
                                        int (*progress)(void *user, int64_t done, int64_t of),
                                        void *user, qs_err *err) QS_MUST_CHECK;

#endif
