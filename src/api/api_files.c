/* Public API of model files: new models. */
#include <string.h>

#include "base/status.h"
#include "files/init.h"
#include "files/presets.h"
#include "files/vocab_file.h"
#include "qiusuo/files.h"

const char *qs_preset_name(int32_t i) {
    return i >= 0 && (size_t)i < qsi_preset_count() ? qsi_preset_at((size_t)i)->name : NULL;
}

const char *qs_preset_about(int32_t i) {
    return i >= 0 && (size_t)i < qsi_preset_count() ? qsi_preset_at((size_t)i)->about : NULL;
}

void qs_init_opts_init(qs_init_opts *o, size_t size) {
    const qs_init_opts fresh = {.type = "F16", .std = 0.006};
    memset(o, 0, size);
    memcpy(o, &fresh, size < sizeof fresh ? size : sizeof fresh);
    o->size = size;
}

/* A caller built against an older header has a shorter struct. */
static qs_init_opts whole_opts(const qs_init_opts *o) {
    qs_init_opts all;
    qs_init_opts_init(&all, sizeof all);
    memcpy(&all, o, o->size < sizeof all ? o->size : sizeof all);
    return all;
}

qs_status qs_init(const qs_init_opts *opts, const char *out, qs_err *err) {
    qs_status st = QS_OK;
    qsi_vocab *vocab = NULL;
    const qsi_preset *preset = NULL;
    const qs_init_opts o = whole_opts(opts);
    if (o.preset == NULL || o.type == NULL) QS_FAIL(err, QS_E_ARG, "a preset and a type are needed");
    QS_TRY(qsi_preset_find(&preset, o.preset, err));
    const qsi_type_info *ti = qsi_type_find(o.type);
    if (ti == NULL || !ti->weights) {
        QS_FAIL(err, QS_E_ARG, "no type for weights is called '%.40s'; there are F32, F16, BF16, Q8_0, "
                "Q4_0", o.type);
    }
    qsi_init_opts x = {.name = preset->name, .config = preset->config, .type = ti->type,
                       .seed = o.seed, .std = (float)o.std, .progress = o.progress, .user = o.user};
    if (o.layers > 0) {
        x.config.n_layer = o.layers;
        if (x.config.n_dense > o.layers) x.config.n_dense = o.layers;
    }
    if (o.vocab != NULL) QS_TRY(qsi_vocab_file_load(&vocab, o.vocab, err));
    x.vocab = vocab;
    QS_TRY(qsi_init_write(&x, out, err));
done:
    qsi_vocab_free(vocab);
    return st;
}
