/* safetensors files: whatever opens keeps its promises. */
#include <stddef.h>
#include <stdint.h>

#include "fmt/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static volatile uint64_t sink;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    qsi_st *s = NULL;
    qs_err err = {0};
    if (qsi_st_open_mem(&s, data, size, &err) != QS_OK) {
        QS_CHECK(s == NULL && err.text[0] != '\0');
        for (const char *p = err.text; *p; p++) QS_CHECK((uint8_t)*p >= 0x20 && *p != 0x7f);
        return 0;
    }
    for (size_t i = 0; i < qsi_st_n_tensors(s); i++) {
        const qsi_st_tensor *t = qsi_st_at(s, i);
        QS_CHECK(qsi_st_find(s, t->name) == t);
        QS_CHECK(t->data >= data && t->bytes <= size - (size_t)(t->data - data));
        for (size_t k = 0; k < t->bytes; k++) sink += t->data[k];
    }
    qsi_st_close(&s);
    return 0;
}
