/* A token shard of any bytes: refused, or every id and document can be read. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/hash.h"
#include "base/mem.h"
#include "fmt/shard.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    qsi_shard s;
    qs_err err;
    int64_t sum = 0;
    uint8_t *copy = qsi_alloc(size, 1); /* aligned, and its end is where the data ends */
    if (copy == NULL) return 0;
    memcpy(copy, data, size);
    if (size > 64) { /* a right checksum, so that what lies behind it is reached */
        uint64_t h = qsi_hash_seed(copy + 64, size - 64, 0);
        memcpy(copy + 56, &h, sizeof(h));
    }
    if (qsi_shard_open_mem(&s, copy, size, &err) == QS_OK)
        for (int64_t d = 0; d < s.n_docs; d++)
            for (uint64_t t = s.begin[d]; t < s.begin[d + 1]; t++) {
                QS_CHECK(s.ids[t] >= 0 && s.ids[t] < s.n_vocab);
                sum += qsi_shard_learned(&s, (int64_t)t) + (int64_t)s.source[d];
            }
    qsi_free(copy);
    return sum < 0;
}
