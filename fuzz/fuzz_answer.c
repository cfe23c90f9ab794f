/* Answers taken apart (tok/answer.h). The first byte chooses the template and the kind of markers; a
 * byte below 8 in the rest is a marker's token. However the text is cut into pieces, the parts are the
 * same. */
#include <string.h>

#include "base/mem.h"
#include "tok/answer.h"
#include "tok/vocab.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const tokens[] = {
    "<think>", "</think>", "｜DSML｜", "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>",
    "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>", "<｜tool▁sep｜>"};
static const char tool[] = "{\"name\": \"f\"}";

/* Byte symbols alone, or with the markers behind them. */
static qsi_vocab *make(bool markers) {
    static char symbols[256][3];
    qsi_slice text[256 + QSI_COUNT(tokens)];
    uint8_t types[QSI_COUNT(text)] = {0};
    int32_t next = 0x100;
    for (int b = 0; b < 256; b++) {
        bool own = (b > 0x20 && b < 0x7f) || (b > 0xa0 && b != 0xad);
        int32_t c = own ? b : next++;
        size_t n = 0;
        if (c < 0x80) symbols[b][n++] = (char)c;
        else {
            symbols[b][n++] = (char)(0xc0 | c >> 6);
            symbols[b][n++] = (char)(0x80 | (c & 0x3f));
        }
        text[b] = (qsi_slice){symbols[b], n};
        types[b] = QSI_TOK_NORMAL;
    }
    for (size_t i = 0; i < QSI_COUNT(tokens); i++) {
        text[256 + i] = (qsi_slice){tokens[i], strlen(tokens[i])};
        types[256 + i] = QSI_TOK_USER;
    }
    qsi_vocab_spec spec = {.tokens = text, .types = types,
                           .n_tokens = 256 + (markers ? QSI_COUNT(tokens) : 0),
                           .pre = "deepseek-v3", .bos = -1, .eos = -1, .pad = -1};
    qsi_vocab *v = NULL;
    QS_CHECK(qsi_vocab_build(&v, &spec, NULL) == QS_OK);
    return v;
}

/* Parts as text, in pieces of at most `piece` bytes. */
static void take(qsi_str *out, const qsi_answer_opts *o, const uint8_t *p, size_t n, size_t piece) {
    qsi_answer a;
    QS_CHECK(qsi_answer_init(&a, o, NULL) == QS_OK);
    for (size_t i = 0; i < n;) {
        size_t k = 0;
        if (p[i] < 8) {
            QS_CHECK(qsi_answer_marker(&a, tokens[p[i]], strlen(tokens[p[i]])) == QS_OK);
            i++;
            continue;
        }
        while (k < piece && i + k < n && p[i + k] >= 8) k++;
        QS_CHECK(qsi_answer_text(&a, (const char *)p + i, k) == QS_OK);
        i += k;
    }
    QS_CHECK(qsi_answer_finish(&a) == QS_OK);
    QS_CHECK(qsi_str_append(out, a.reasoning.data, a.reasoning.len) == QS_OK);
    QS_CHECK(qsi_str_append(out, "\xff", 1) == QS_OK);
    QS_CHECK(qsi_str_append(out, a.text.data, a.text.len) == QS_OK);
    for (size_t i = 0; i < a.n_calls; i++) {
        QS_CHECK(qsi_str_append(out, a.calls[i].whole ? "\xff" "+" : "\xff-", 2) == QS_OK);
        QS_CHECK(qsi_str_append(out, a.calls[i].name.data, a.calls[i].name.len) == QS_OK);
        QS_CHECK(qsi_str_append(out, a.calls[i].args.data, a.calls[i].args.len) == QS_OK);
    }
    qsi_answer_release(&a);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static qsi_vocab *v[2];
    static const char *const names[] = {"deepseek-llm", "deepseek-v3-0324", "deepseek-r1-0528",
                                        "deepseek-v3.1", "deepseek-v3.2", "deepseek-r1-open"};
    const qsi_tool tools[] = {{tool, sizeof tool - 1}};
    const qsi_chat_template *t = NULL;
    qsi_str whole = {0}, cut = {0};
    if (size == 0) return 0;
    for (int i = 0; i < 2; i++)
        if (v[i] == NULL) v[i] = make(i == 1);
    QS_CHECK(qsi_chat_by_name(&t, names[data[0] / 2 % QSI_COUNT(names)], NULL) == QS_OK);
    const qsi_answer_opts o = {.chat = t, .vocab = v[data[0] % 2], .tools = tools, .n_tools = 1};
    take(&whole, &o, data + 1, size - 1, size);
    take(&cut, &o, data + 1, size - 1, 1 + size % 5);
    QS_CHECK(whole.len == cut.len && memcmp(whole.data, cut.data, whole.len) == 0);
    qsi_str_release(&whole);
    qsi_str_release(&cut);
    return 0;
}
