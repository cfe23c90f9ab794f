/* A checkpoint of any bytes: refused, or every value can be read. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/hash.h"
#include "base/mem.h"
#include "fmt/ckpt.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Right checksums of table and header, so that what lies behind them is reached. */
static void fix_checksums(uint8_t *p, size_t size) {
    uint64_t at, h, n = size;
    if (size < 64) return;
    memcpy(&at, p + 16, sizeof(at));
    if (at > size) return;
    h = n - at;
    memcpy(p + 24, &h, sizeof(h));
    h = qsi_hash(p + at, size - (size_t)at);
    memcpy(p + 32, &h, sizeof(h));
    memcpy(p + 40, &n, sizeof(n));
    h = qsi_hash(p, 56);
    memcpy(p + 56, &h, sizeof(h));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    qsi_ckpt *c = NULL;
    qs_err err;
    uint64_t h = 0;
    uint8_t *copy = qsi_alloc(size, 1);
    if (copy == NULL) return 0;
    memcpy(copy, data, size);
    fix_checksums(copy, size);
    if (qsi_ckpt_open_mem(&c, copy, size, &err) == QS_OK)
        for (size_t i = 0; i < qsi_ckpt_count(c); i++) {
            const qsi_ckpt_entry *e = qsi_ckpt_at(c, i);
            if (e->bytes > 0) h ^= qsi_hash(e->data, e->bytes);
            QS_CHECK(qsi_ckpt_find(c, e->name) == e);
        }
    qsi_ckpt_close(&c);
    qsi_free(copy);
    return h == 1;
}
