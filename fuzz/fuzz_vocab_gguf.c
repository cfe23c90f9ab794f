/* A vocabulary in a GGUF from strangers: refused, or one that encodes what it decodes. */
#include "fmt/gguf.h"
#include "tok/chat.h"
#include "tok/tok.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void use(const qsi_vocab *v) {
    static const char text[] = "a b\xe6\x98\xa5 12\n";
    const qsi_chat_template *t = NULL;
    qsi_turn turn = {.role = QSI_USER, .text = text, .n = sizeof text - 1};
    qsi_ids ids = {0};
    qs_err err;
    bool guessed;
    if (qsi_encode(v, text, sizeof text - 1, QSI_ENC_BOS, &ids, &err) != QS_OK) __builtin_trap();
    for (size_t i = 0; i < ids.len; i++)
        if (ids.data[i] < 0 || ids.data[i] >= qsi_vocab_size(v)) __builtin_trap();
    if (qsi_chat_find(&t, v, "deepseek", &guessed, &err) == QS_OK &&
        qsi_chat_render(t, v, &turn, 1, 0, true, &ids, NULL, &err) == QS_E_NOMEM)
        __builtin_trap();
    qsi_ids_release(&ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    qsi_gguf *g = NULL;
    qsi_vocab *v = NULL;
    qs_err err;
    if (qsi_gguf_open_mem(&g, data, size, &err) != QS_OK) return 0;
    if (qsi_vocab_load_gguf(&v, g, &err) == QS_OK) use(v);
    qsi_vocab_free(v);
    qsi_gguf_close(&g);
    return 0;
}
