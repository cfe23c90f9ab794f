/* Text from strangers: encoding is refused at the first bad byte, or decoding gives the text back,
 * at once and as a stream; pieces joined are the text. The first byte picks pre-tokenizer and flags.
 * The vocabulary is learned from a fixed text, so that merges and added tokens take part. */
#include <string.h>

#include "tok/nfc.h"
#include "tok/tok.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const pres[] = {"deepseek-llm", "deepseek-coder", "deepseek-v3", "llama-bpe",
                                   "qwen2"};

static const qsi_vocab *vocab(size_t i) {
    static qsi_vocab *made[5];
    static const char text[] =
        "the ferry the river the children  the water\n\nthe stones the morning the other side 1987\n"
        "\xe6\xb2\xb3\xe6\xb0\xb4 \xe6\xb2\xb3\xe8\xbe\xb9 \xe6\xb2\xb3\xe6\xb0\xb4\xe3\x80\x82\n";
    qsi_bpe_trainer *t = NULL;
    if (made[i] != NULL) return made[i];
    if (qsi_bpe_trainer_create(&t, pres[i], NULL) != QS_OK ||
        qsi_bpe_trainer_add(t, text, sizeof text - 1, NULL) != QS_OK ||
        qsi_bpe_trainer_finish(t, 320, NULL, NULL, &made[i], NULL) != QS_OK)
        __builtin_trap();
    qsi_bpe_trainer_free(t);
    return made[i];
}

static qs_status follow(void *user, const char *p, size_t n) {
    const char **next = user;
    if (p != *next || n == 0) __builtin_trap();
    *next = p + n;
    return QS_OK;
}

static void check_stream(const qsi_vocab *v, const qsi_ids *ids, const char *text, size_t n) {
    qsi_detok d;
    qsi_str out = {0};
    qsi_detok_init(&d, v, true);
    for (size_t i = 0; i < ids->len; i++) {
        if (qsi_detok_push(&d, ids->data[i], &out) != QS_OK) __builtin_trap();
        if (out.len > 0 && !qsi_utf8_valid(out.data, out.len, NULL)) __builtin_trap();
    }
    if (qsi_detok_finish(&d, &out) != QS_OK) __builtin_trap();
    if (out.len != n || (n > 0 && memcmp(out.data, text, n) != 0)) __builtin_trap();
    qsi_str_release(&out);
}

/* Twice is once. */
static void check_nfc(const char *text, size_t n) {
    qsi_str once = {0}, twice = {0};
    bool same;
    if (qsi_nfc(text, n, &once, &same) != QS_OK) __builtin_trap();
    if (!same) {
        if (!qsi_utf8_valid(once.data, once.len, NULL)) __builtin_trap();
        if (qsi_nfc(once.data, once.len, &twice, &same) != QS_OK) __builtin_trap();
        if (!same && (twice.len != once.len || memcmp(once.data, twice.data, once.len) != 0))
            __builtin_trap();
    }
    qsi_str_release(&once);
    qsi_str_release(&twice);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const char *text = (const char *)data + 1, *next = text;
    size_t n = size == 0 ? 0 : size - 1, bad = 0, pick;
    const qsi_vocab *v;
    qsi_ids ids = {0};
    qsi_str back = {0};
    qs_err err;
    qs_status st;
    if (size == 0) return 0;
    pick = data[0] % 5;
    v = vocab(pick);
    st = qsi_encode(v, text, n, data[0] / 5u & (QSI_ENC_SPECIAL | QSI_ENC_PERSON), &ids, &err);
    if (!qsi_utf8_valid(text, n, &bad)) {
        if (st != QS_E_FORMAT || err.offset != (int64_t)bad || ids.len != 0) __builtin_trap();
    } else {
        if (st != QS_OK || qsi_pretok(pres[pick], text, n, follow, &next, &err) != QS_OK ||
            next != text + n || qsi_decode(v, ids.data, ids.len, true, &back) != QS_OK)
            __builtin_trap();
        if (back.len != n || (n > 0 && memcmp(back.data, text, n) != 0)) __builtin_trap();
        check_stream(v, &ids, text, n);
        check_nfc(text, n);
    }
    qsi_ids_release(&ids);
    qsi_str_release(&back);
    return 0;
}
