/* Importance matrices: what opens gives weights that are numbers, for the shape it says. */
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/mem.h"
#include "files/imatrix.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void ask(const qsi_imatrix *m, const char *name, int64_t k, int64_t n) {
    float *w = NULL;
    if (qsi_imatrix_weights(m, name, k, n, &w, NULL) != QS_OK || w == NULL) return;
    for (int64_t i = 0; i < k * n; i++) QS_CHECK(w[i] >= 0 && isfinite(w[i]));
    qsi_free(w);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    qsi_gguf *g = NULL;
    qsi_imatrix *m = NULL;
    qs_err err = {0};
    if (qsi_gguf_open_mem(&g, data, size, &err) != QS_OK) return 0;
    if (qsi_imatrix_open_gguf(&m, g, &err) != QS_OK) {
        QS_CHECK(m == NULL && err.text[0] != '\0');
        return 0;
    }
    ask(m, "blk.1.ffn_gate_exps.weight", 64, 4);
    ask(m, "t", 3, 1);
    qsi_imatrix_close(&m);
    return 0;
}
