/* Saved conversations (api/api_chat.c): whatever is accepted has sound turns. */
#include <string.h>

#include "api/api.h"
#include "base/mem.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    enum { N_VOCAB = 100 };
    qs_session s = { 0 };
    qs_err err = { 0 };
    qs_status st = qsi_api_parse_chat(&s, (const char *)data, size, "0123456789abcdef", N_VOCAB,
                                      &err);
    QS_CHECK(st == QS_OK || err.text[0] != '\0');
    for (size_t i = 0; st == QS_OK && i < s.n_turns; i++) {
        const qsi_api_turn *t = &s.turns[i];
        QS_CHECK(t->role != QS_SYSTEM || i == 0);
        QS_CHECK(t->text.len == 0 || qsi_utf8_valid(t->text.data, t->text.len, NULL));
        for (size_t k = 0; k < t->n_ids; k++) QS_CHECK(t->ids[k] >= 0 && t->ids[k] < N_VOCAB);
    }
    qsi_api_drop_turns(&s, 0);
    qsi_free(s.turns);
    return 0;
}
