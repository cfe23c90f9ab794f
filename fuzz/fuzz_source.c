/* Training text of any bytes. The first one chooses the kind: documents must cover plain text exactly,
 * and be cut between characters. */
#include <stddef.h>
#include <stdint.h>

#include "base/str.h"
#include "train/source.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static qs_status check(void *user, const qsi_doc *d, qs_err *err) {
    size_t *n = user;
    (void)err;
    if (d->text != NULL) QS_CHECK(d->n > 0 && qsi_utf8_valid(d->text, d->n, NULL));
    for (size_t i = 0; i < d->n_turns; i++)
        QS_CHECK(qsi_utf8_valid(d->turns[i].text, d->turns[i].n, NULL));
    *n += d->n;
    return QS_OK;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    qs_err err;
    size_t n = 0;
    if (size == 0) return 0;
    const qsi_source_opts o = {.doc_bytes = 8 + (data[0] >> 2), .split_blank = (data[0] & 2) != 0};
    const char *text = (const char *)data + 1;
    if (qsi_source_parse("x", data[0] & 1, text, size - 1, 0, &o, check, &n, &err) == QS_OK)
        QS_CHECK((data[0] & 1) != 0 || n <= size - 1);
    return 0;
}
