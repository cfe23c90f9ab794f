/* A repacked copy of any bytes: refused, or every weight can be read. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/hash.h"
#include "base/mem.h"
#include "model/packed.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Right checksums of table and header, and the right size, so that what lies behind them is reached. */
static void fix_checksums(uint8_t *p, size_t size) {
    uint64_t at, h = size;
    if (size < QSI_PACKED_HEADER) return;
    memcpy(p + 16, &h, sizeof h);
    memcpy(&at, p + 40, sizeof at);
    if (at <= size) {
        h = (size - at) / QSI_PACKED_ENTRY;
        memcpy(p + 48, &h, sizeof h);
        h = qsi_hash(p + at, size - (size_t)at);
        memcpy(p + 56, &h, sizeof h);
    }
    h = qsi_hash(p, QSI_PACKED_HEADER - 8);
    memcpy(p + QSI_PACKED_HEADER - 8, &h, sizeof h);
}

/* Read before and after: bytes as they are, then with checksums that hold. */
static void read_all(const uint8_t *p, size_t size) {
    qsi_packed *c = NULL;
    qs_err err;
    if (qsi_packed_open_mem(&c, p, size, NULL, &err) != QS_OK) return;
    (void)qsi_packed_bytes(c);
    for (size_t i = 0; i < qsi_packed_count(c); i++) {
        const qsi_packed_weight none = {.kind = QSI_MM_COUNT};
        const void *data;
        QS_CHECK(qsi_packed_take(c, i, &none, &data, &err) == QS_E_CORRUPT);
    }
    if (qsi_packed_verify(c, NULL, NULL, &err) != QS_OK) QS_CHECK(err.text[0] != '\0');
    qsi_packed_close(&c);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    uint8_t *copy = qsi_alloc(size, 1);
    if (copy == NULL) return 0;
    if (size > 0) memcpy(copy, data, size);
    read_all(copy, size);
    fix_checksums(copy, size);
    read_all(copy, size);
    qsi_free(copy);
    return 0;
}
