/* Chat templates of files (tok/chat_find.c): any Jinja text is one known row or none, twice the same. */
#include <string.h>

#include "base/mem.h"
#include "tok/chat.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    qsi_slice s = {(const char *)data, size};
    const qsi_chat_template *t = qsi_chat_of_jinja(s), *found = NULL;
    QS_CHECK(qsi_chat_of_jinja(s) == t);
    if (t == NULL) return 0;
    QS_CHECK(qsi_chat_by_name(&found, qsi_chat_name(t), NULL) == QS_OK && found == t);
    return 0;
}
