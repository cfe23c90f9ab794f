/* Split GGUF files: two parts (the first two bytes say how long the first is) opened by name as one
 * model; every tensor of what opens can be read and is found by its name. */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "fmt/gguf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static volatile uint64_t sink;

static void put(const char *path, const uint8_t *p, size_t n) {
    FILE *f = fopen(path, "wb");
    QS_CHECK(f != NULL && fwrite(p, 1, n, f) == n && fclose(f) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char dir[200], one[240], two[240];
    const char *tmp = getenv("TMPDIR"); /* without it the folder the program is started in */
    qsi_gguf *g = NULL;
    qs_err err = {0};
    int n = snprintf(dir, sizeof dir, "%s/qsi_fuzz_split_XXXXXX", tmp != NULL ? tmp : ".");
    QS_CHECK(n > 0 && (size_t)n < sizeof dir);
    if (size < 2) return 0;
    QS_CHECK(mkdtemp(dir) != NULL);
    size_t first = (size_t)(data[0] | data[1] << 8);
    first = first < size - 2 ? first : size - 2;
    snprintf(one, sizeof one, "%s/m-00001-of-00002.gguf", dir);
    snprintf(two, sizeof two, "%s/m-00002-of-00002.gguf", dir);
    put(one, data + 2, first);
    put(two, data + 2 + first, size - 2 - first);
    if (qsi_gguf_open(&g, one, &err) != QS_OK) QS_CHECK(g == NULL && err.text[0] != '\0');
    for (size_t i = 0; g != NULL && i < qsi_gguf_n_tensors(g); i++) {
        const qsi_gguf_tensor *t = qsi_gguf_tensor_at(g, i);
        QS_CHECK(qsi_gguf_tensor_find(g, t->name) == t);
        for (size_t k = 0; k < t->bytes; k++) sink += t->data[k];
    }
    qsi_gguf_close(&g);
    unlink(one);
    unlink(two);
    rmdir(dir);
    return 0;
}
