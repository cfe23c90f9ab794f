/* tokenizer.json from strangers: refused, or a vocabulary that encodes and decodes. */
#include <string.h>

#include "tok/tok.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void use(const qsi_vocab *v) {
    static const char text[] = "The 7 stones, \xe6\x98\xa5\xe7\x9c\xa0\xe4\xb8\x8d\xe8\xa7\x89.\n";
    qsi_ids ids = {0};
    qsi_str back = {0};
    if (qsi_encode(v, text, sizeof text - 1, QSI_ENC_SPECIAL, &ids, NULL) != QS_OK) __builtin_trap();
    for (size_t i = 0; i < ids.len; i++)
        if (ids.data[i] < 0 || ids.data[i] >= qsi_vocab_size(v)) __builtin_trap();
    if (qsi_decode(v, ids.data, ids.len, true, &back) != QS_OK) __builtin_trap();
    if (back.len != sizeof text - 1 || memcmp(back.data, text, back.len) != 0) __builtin_trap();
    qsi_ids_release(&ids);
    qsi_str_release(&back);
}

/* A line of configuration may follow the tokenizer, after a NUL. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const char *p = (const char *)data, *nul = size == 0 ? NULL : memchr(p, '\0', size);
    size_t n = nul == NULL ? size : (size_t)(nul - p);
    qsi_vocab *v = NULL;
    qs_err err;
    qs_status st = qsi_vocab_load_json(&v, p, n, nul == NULL ? NULL : nul + 1,
                                       nul == NULL ? 0 : size - n - 1, &err);
    if (st == QS_OK) use(v);
    qsi_vocab_free(v);
    return 0;
}
