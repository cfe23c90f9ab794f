/* Pickles: nothing is called, memory stays bounded, errors have a text. */
#include <stddef.h>
#include <stdint.h>

#include "fmt/pickle.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static volatile uint64_t sink;

static qs_status visit(void *user, const qsi_pickle_tensor *t, qs_err *err) {
    for (size_t i = 0; i < t->name.n; i++) sink += (uint8_t)t->name.p[i];
    for (size_t i = 0; i < t->key.n; i++) sink += (uint8_t)t->key.p[i];
    QS_CHECK(t->n_dims >= 0 && t->n_dims <= QSI_PICKLE_MAX_DIMS && t->offset >= 0);
    for (int d = 0; d < t->n_dims; d++) QS_CHECK(t->shape[d] >= 0 && t->stride[d] >= 0);
    return QS_OK;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    qs_err err = {0};
    if (qsi_pickle_tensors(data, size, visit, NULL, &err) != QS_OK) {
        QS_CHECK(err.text[0] != '\0');
        for (const char *p = err.text; *p; p++) QS_CHECK((uint8_t)*p >= 0x20 && *p != 0x7f);
    }
    return 0;
}
