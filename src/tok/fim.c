/* Fill-in-the-middle: a text with a hole becomes
 *     [BOS] <begin> what stands before <hole> what stands behind <end>
 * and the model continues with what is missing. Source: DeepSeek-Coder (arXiv:2401.14196, 3.1.2, and its
 * README), whose tokens have these names; Qwen's have others in the same places. */
#include <string.h>

#include "tok/vocab.h"

static const char *const names[][3] = {
    {"<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"},
    {"<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"},
};

bool qsi_vocab_fim(const qsi_vocab *v, qsi_fim *out) {
    int32_t id[3];
    for (size_t k = 0; k <= QSI_COUNT(names); k++) {
        bool all = true;
        for (int i = 0; i < 3; i++) {
            id[i] = k == 0 ? v->fim[i] : qsi_vocab_find(v, names[k - 1][i], strlen(names[k - 1][i]));
            all = all && id[i] >= 0;
        }
        if (!all) continue;
        *out = (qsi_fim){id[0], id[1], id[2]};
        return true;
    }
    return false;
}

qs_status qsi_encode_fim(const qsi_vocab *v, const char *before, size_t n_before, const char *behind,
                         size_t n_behind, qsi_ids *out, qs_err *err) {
    qs_status st = QS_OK;
    size_t len = out->len;
    qsi_fim f;
    if (!qsi_vocab_fim(v, &f))
        QS_FAIL(err, QS_E_UNSUPPORTED, "this model cannot fill in the middle: its vocabulary has no "
                "tokens for that (such as %s, %s and %s)", names[0][0], names[0][1], names[0][2]);
    if (qsi_vocab_add_bos(v)) QS_TRY(qsi_ids_push(out, qsi_vocab_bos(v)));
    QS_TRY(qsi_ids_push(out, f.begin));
    QS_TRY(qsi_encode(v, before, n_before, QSI_ENC_PERSON, out, err));
    QS_TRY(qsi_ids_push(out, f.hole));
    QS_TRY(qsi_encode(v, behind, n_behind, QSI_ENC_PERSON, out, err));
    QS_TRY(qsi_ids_push(out, f.end));
done:
    if (st != QS_OK) out->len = len;
    if (st == QS_E_NOMEM) st = qsi_err_set(err, st, "out of memory for the ids of a text");
    return st;
}
