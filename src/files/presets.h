/* Shapes of models by name: DeepSeek's published ones, and tiny ones of their structures to try things
 * out with. Source: deepseek-facts 1.1 to 1.3. Thread: any. */
#ifndef QSI_FILES_PRESETS_H
#define QSI_FILES_PRESETS_H

#include "model/model.h"

typedef struct qsi_preset {
    const char *name, *about;
    qsi_config config;
} qsi_preset;

size_t qsi_preset_count(void);
const qsi_preset *qsi_preset_at(size_t i);
/* QS_E_ARG for an unknown name; the text lists the known ones. */
qs_status qsi_preset_find(const qsi_preset **out, const char *name, qs_err *err) QS_MUST_CHECK;

#endif
