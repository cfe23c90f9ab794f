/* A training configuration of any bytes: an error or settings, whose identity can be written. */
#include <stddef.h>
#include <stdint.h>

#include "train/export.h"
#include "train/plan.h"
#include "train/trainconf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    qsi_trainconf c;
    qs_err err;
    qsi_str identity = {0};
    qsi_plan plan;
    qsi_type type;
    qsi_trainconf_init(&c);
    if (qsi_trainconf_parse(&c, "x", (const char *)data, size, &err) == QS_OK &&
        qsi_trainconf_apply_preset(&c, 100000, &err) == QS_OK &&
        qsi_plan_make(&plan, &c, 100000, 1000000, &err) == QS_OK &&
        qsi_export_check(&c, &type, &err) == QS_OK)
        QS_CHECK(qsi_trainconf_identity(&c, &identity) == QS_OK);
    qsi_str_release(&identity);
    qsi_trainconf_release(&c);
    return 0;
}
