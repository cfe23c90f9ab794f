/* PyTorch files: whatever opens keeps its promises. */
#include <stddef.h>
#include <stdint.h>

#include "fmt/torchzip.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static volatile uint64_t sink;
typedef struct bytes {
    const uint8_t *p;
    size_t n;
} bytes;

static qs_status visit(void *user, const qsi_torch_tensor *t, qs_err *err) {
    const bytes *b = user;
    QS_CHECK(t->data >= b->p && t->bytes <= b->n - (size_t)(t->data - b->p));
    for (size_t i = 0; i < t->bytes; i++) sink += t->data[i];
    for (size_t i = 0; i < t->name.n; i++) sink += (uint8_t)t->name.p[i];
    return QS_OK;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    qs_err err = {0};
    bytes b = {data, size};
    if (qsi_torch_read(data, size, visit, &b, &err) != QS_OK) {
        QS_CHECK(err.text[0] != '\0');
        for (const char *p = err.text; *p; p++) QS_CHECK((uint8_t)*p >= 0x20 && *p != 0x7f);
    }
    return 0;
}
