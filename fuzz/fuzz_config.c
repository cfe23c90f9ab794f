/* config.json: what is accepted lies within its bounds and lists its tensors. */
#include <stddef.h>
#include <stdint.h>

#include "model/model.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    qsi_config c;
    qs_err err = {0};
    if (qsi_config_from_hf(&c, (const char *)data, size, &err) != QS_OK) {
        for (const char *p = err.text; *p; p++) QS_CHECK((uint8_t)*p >= 0x20 && *p != 0x7f);
        QS_CHECK(err.text[0] != '\0');
        return 0;
    }
    QS_CHECK(qsi_config_check(&c, &err) == QS_OK);
    QS_CHECK(c.n_head % c.n_kv_head == 0 && c.head_dim % 2 == 0);
    size_t n = qsi_config_n_tensors(&c);
    for (size_t i = 0; i < n; i += 1 + n / 64) {
        qsi_tensor_spec t;
        qsi_config_tensor(&c, i, &t);
        QS_CHECK(t.n_dims >= 1 && t.ne[0] > 0 && t.ne[1] > 0 && t.ne[2] > 0);
    }
    QS_CHECK(qsi_config_params(&c, NULL) > 0);
    return 0;
}
