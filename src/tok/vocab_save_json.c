/* A vocabulary as Hugging Face's tokenizers reads it. Tokens in the byte alphabet are the model's
 * vocabulary, the others its added tokens (control tokens are special). Source: deepseek-facts 4.3. */
#include <string.h>

#include "base/log.h"
#include "tok/vocab.h"

/* "[PAD123]": what qsi_vocab_padded adds. */
static bool is_filler(const qsi_vocab *v, int32_t id) {
    qsi_slice s = v->text[id];
    if (v->type[id] == QSI_TOK_NORMAL || s.n < 6 || memcmp(s.p, "[PAD", 4) != 0) return false;
    for (size_t i = 4; i + 1 < s.n; i++)
        if (s.p[i] < '0' || s.p[i] > '9') return false;
    return s.p[s.n - 1] == ']';
}

static bool is_added(const qsi_vocab *v, int32_t id) { return (v->flags[id] & QSI_TF_BPE) == 0; }

static qs_status put_added(const qsi_vocab *v, qsi_str *out) {
    qs_status st = QS_OK;
    bool first = true;
    for (int32_t i = 0; i < v->n; i++) {
        if (!is_added(v, i) || is_filler(v, i)) continue;
        QS_TRY(qsi_str_printf(out, "%s\n{\"id\":%d,\"content\":", first ? "" : ",", (int)i));
        QS_TRY(qsi_str_json(out, v->text[i].p, v->text[i].n));
        QS_TRY(qsi_str_printf(out, ",\"single_word\":false,\"lstrip\":false,\"rstrip\":false,"
                              "\"normalized\":false,\"special\":%s}",
                              v->type[i] == QSI_TOK_CONTROL ? "true" : "false"));
        first = false;
    }
done:
    return st;
}

static qs_status put_vocab(const qsi_vocab *v, qsi_str *out) {
    qs_status st = QS_OK;
    bool first = true;
    for (int32_t i = 0; i < v->n; i++) {
        if (is_added(v, i)) continue;
        QS_TRY(qsi_str_puts(out, first ? "\n" : ",\n"));
        QS_TRY(qsi_str_json(out, v->text[i].p, v->text[i].n));
        QS_TRY(qsi_str_printf(out, ":%d", (int)i));
        first = false;
    }
done:
    return st;
}

static qs_status put_merges(const qsi_vocab *v, qsi_str *out) {
    qs_status st = QS_OK;
    for (int64_t i = 0; i < v->n_merges; i++) {
        qsi_slice a = v->text[v->merge_list[i] >> 32], b = v->text[(uint32_t)v->merge_list[i]];
        QS_TRY(qsi_str_puts(out, i > 0 ? ",\n[" : "\n["));
        QS_TRY(qsi_str_json(out, a.p, a.n));
        QS_TRY(qsi_str_puts(out, ","));
        QS_TRY(qsi_str_json(out, b.p, b.n));
        QS_TRY(qsi_str_puts(out, "]"));
    }
done:
    return st;
}

/* "key":text of a token; nothing for no token. */
static qs_status put_token(const qsi_vocab *v, const char *key, int32_t id, qsi_str *out) {
    qs_status st = QS_OK;
    if (id < 0) return QS_OK;
    QS_TRY(qsi_str_printf(out, ",\n\"%s\":", key));
    QS_TRY(qsi_str_json(out, v->text[id].p, v->text[id].n));
done:
    return st;
}

/* A token that stands before or behind a text ("A" the first, "B" the second of a pair). */
static qs_status put_around(const qsi_vocab *v, bool wanted, int32_t id, int pair, bool before,
                            qsi_str *out) {
    qs_status st = QS_OK;
    if (!wanted || id < 0) return QS_OK;
    if (!before) QS_TRY(qsi_str_puts(out, ","));
    QS_TRY(qsi_str_puts(out, "{\"SpecialToken\":{\"id\":"));
    QS_TRY(qsi_str_json(out, v->text[id].p, v->text[id].n));
    QS_TRY(qsi_str_printf(out, ",\"type_id\":%d}}", pair));
    if (before) QS_TRY(qsi_str_puts(out, ","));
done:
    return st;
}

static qs_status put_text_place(const qsi_vocab *v, int pair, qsi_str *out) {
    qs_status st = QS_OK;
    QS_TRY(put_around(v, v->add_bos, v->bos, pair, true, out));
    QS_TRY(qsi_str_printf(out, "{\"Sequence\":{\"id\":\"%s\",\"type_id\":%d}}",
                          pair == 0 ? "A" : "B", pair));
    QS_TRY(put_around(v, v->add_eos, v->eos, pair, false, out));
done:
    return st;
}

static qs_status put_special(const qsi_vocab *v, int32_t id, qsi_str *out) {
    qs_status st = QS_OK;
    QS_TRY(qsi_str_json(out, v->text[id].p, v->text[id].n));
    QS_TRY(qsi_str_puts(out, ":{\"id\":"));
    QS_TRY(qsi_str_json(out, v->text[id].p, v->text[id].n));
    QS_TRY(qsi_str_printf(out, ",\"ids\":[%d],\"tokens\":[", (int)id));
    QS_TRY(qsi_str_json(out, v->text[id].p, v->text[id].n));
    QS_TRY(qsi_str_puts(out, "]}"));
done:
    return st;
}

/* What puts BOS and EOS around a text: a tokenizer of transformers 5 asks the configuration's
 * "add_bos_token" no more. */
static qs_status put_post_processor(const qsi_vocab *v, qsi_str *out) {
    qs_status st = QS_OK;
    bool bos = v->add_bos && v->bos >= 0, eos = v->add_eos && v->eos >= 0;
    if (!bos && !eos) return qsi_str_puts(out, "null");
    QS_TRY(qsi_str_puts(out, "{\"type\":\"TemplateProcessing\",\"single\":["));
    QS_TRY(put_text_place(v, 0, out));
    QS_TRY(qsi_str_puts(out, "],\"pair\":["));
    QS_TRY(put_text_place(v, 0, out));
    QS_TRY(qsi_str_puts(out, ","));
    QS_TRY(put_text_place(v, 1, out));
    QS_TRY(qsi_str_puts(out, "],\"special_tokens\":{"));
    if (bos) QS_TRY(put_special(v, v->bos, out));
    if (eos && !(bos && v->eos == v->bos)) {
        if (bos) QS_TRY(qsi_str_puts(out, ","));
        QS_TRY(put_special(v, v->eos, out));
    }
    QS_TRY(qsi_str_puts(out, "}}"));
done:
    return st;
}

/* JSON texts are UTF-8, and ours (fmt/json.h) hold no NUL. */
static bool json_can_hold(qsi_slice s) {
    return s.n == 0 || (qsi_utf8_valid(s.p, s.n, NULL) && memchr(s.p, 0, s.n) == NULL);
}

static qs_status put_config(const qsi_vocab *v, qsi_str *out) {
    qs_status st = QS_OK;
    QS_TRY(qsi_str_printf(out, "{\"add_bos_token\":%s,\n\"add_eos_token\":%s",
                          v->add_bos ? "true" : "false", v->add_eos ? "true" : "false"));
    QS_TRY(put_token(v, "bos_token", v->bos, out));
    QS_TRY(put_token(v, "eos_token", v->eos, out));
    QS_TRY(put_token(v, "pad_token", v->pad, out));
    bool is_text = json_can_hold(v->chat_template);
    if (!is_text)
        qsi_log(QSI_LOG_NOTE, "the chat template is no UTF-8 text: tokenizer_config.json lacks it");
    if (is_text && v->chat_template.n > 0) {
        QS_TRY(qsi_str_puts(out, ",\n\"chat_template\":"));
        QS_TRY(qsi_str_json(out, v->chat_template.p, v->chat_template.n));
    }
    QS_TRY(qsi_str_puts(out, ",\n\"clean_up_tokenization_spaces\":false,"
                             "\n\"model_input_names\":[\"input_ids\",\"attention_mask\"],"
                             "\n\"tokenizer_class\":\"PreTrainedTokenizerFast\"}\n"));
done:
    return st;
}

qs_status qsi_vocab_save_json(const qsi_vocab *v, qsi_str *json, qsi_str *config, qs_err *err) {
    qs_status st = QS_OK;
    QS_TRY(qsi_str_puts(json, "{\"version\":\"1.0\",\"truncation\":null,\"padding\":null,"
                              "\n\"added_tokens\":["));
    QS_TRY(put_added(v, json));
    QS_TRY(qsi_str_printf(json, "],\n\"normalizer\":%s,\n\"pre_tokenizer\":",
                          v->nfc ? "{\"type\":\"NFC\"}" : "null"));
    st = qsi_pretok_put_json(json, v->pre);
    if (st == QS_E_UNSUPPORTED)
        return qsi_err_set(err, st, "the pre-tokenizer %s has no form in tokenizer.json", v->pre);
    QS_TRY(st);
    QS_TRY(qsi_str_puts(json, ",\n\"post_processor\":"));
    QS_TRY(put_post_processor(v, json));
    QS_TRY(qsi_str_printf(json, ",\n\"decoder\":{\"type\":\"ByteLevel\","
                          "\"add_prefix_space\":true,\"trim_offsets\":true,\"use_regex\":true},"
                          "\n\"model\":{\"type\":\"BPE\",\"dropout\":null,\"unk_token\":null,"
                          "\"continuing_subword_prefix\":null,\"end_of_word_suffix\":null,"
                          "\"fuse_unk\":false,\"byte_fallback\":false,\"ignore_merges\":%s,"
                          "\n\"vocab\":{", qsi_pretok_whole(v->pre) ? "true" : "false"));
    QS_TRY(put_vocab(v, json));
    QS_TRY(qsi_str_puts(json, "},\n\"merges\":["));
    QS_TRY(put_merges(v, json));
    QS_TRY(qsi_str_puts(json, "]}}\n"));
    QS_TRY(put_config(v, config));
done:
    if (st != QS_OK) qsi_err_set(err, st, "out of memory writing a tokenizer.json");
    return st;
}
