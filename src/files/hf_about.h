/* What a model file says of itself and config.json has no field for: its name and its tasks, under the
 * key "qiusuo" there. transformers keeps keys that it does not know. Thread: any. */
#ifndef QSI_FILES_HF_ABOUT_H
#define QSI_FILES_HF_ABOUT_H

#include "base/str.h"
#include "fmt/gguf.h"
#include "fmt/json.h"

/* Appends ,"qiusuo":{"name":"...","tasks":["...",...]} from g's general.name and qiusuo.tasks, what of
 * it there is. A text that is not printable UTF-8, or longer than a name can be, is left out with a
 * note. Fails with QS_E_NOMEM only. */
qs_status qsi_hf_put_about(const qsi_gguf *g, qsi_str *out) QS_MUST_CHECK;

/* Puts general.name and qiusuo.tasks of a config.json into w. *named: it had a name that can be used.
 * Values of the wrong kind are left out. Fails with QS_E_NOMEM only. */
qs_status qsi_hf_take_about(const qsi_json *config, qsi_gguf_writer *w, bool *named) QS_MUST_CHECK;

#endif
