/* POST /tokenize, /detokenize and /apply-template: what a prompt becomes, without a model. */
#include <string.h>

#include "serve/call_impl.h"

qs_status qsi_decode_known(const qsi_vocab *v, const int32_t *ids, size_t n, bool special,
                           qsi_str *out) {
    qs_status st = QS_OK;
    for (size_t i = 0; i < n; i++)
        if (ids[i] >= 0 && ids[i] < qsi_vocab_size(v)) QS_TRY(qsi_decode(v, &ids[i], 1, special, out));
done:
    return st;
}

/* A piece that is no text by itself is an array of bytes, as llama-server has it. */
static void put_piece(qsi_jw *w, qsi_slice s) {
    qsi_jw_key(w, "piece");
    if (s.n == 0 || qsi_utf8_valid(s.p, s.n, NULL)) {
        qsi_jw_str(w, s.p, s.n);
        return;
    }
    qsi_jw_arr(w);
    for (size_t i = 0; i < s.n; i++) qsi_jw_i64(w, (unsigned char)s.p[i]);
    qsi_jw_end_arr(w);
}

static void put_ids(qsi_api_call *c, qsi_jw *w, const qsi_ids *ids, bool pieces) {
    qsi_jw_arr(w);
    for (size_t i = 0; i < ids->len; i++) {
        if (!pieces) {
            qsi_jw_i64(w, ids->data[i]);
            continue;
        }
        qsi_jw_obj(w);
        qsi_jw_key_i64(w, "id", ids->data[i]);
        put_piece(w, qsi_vocab_bytes(c->b->vocab, ids->data[i]));
        qsi_jw_end_obj(w);
    }
    qsi_jw_end_arr(w);
}

void qsi_tokenize(qsi_api_call *c, const qsi_json *j, qsi_refusal *no) {
    qsi_in in = qsi_in_root(j, no);
    bool special = false, pieces = false, markers = false;
    qsi_ids ids = { 0 };
    qs_err err = { 0 };
    if (no->status != 0) return;
    qsi_ask_model(c, &in);
    qsi_in_bool(&in, "add_special", &special);
    qsi_in_bool(&in, "with_pieces", &pieces);
    qsi_in_bool(&in, "parse_special", &markers);
    const char *s = qsi_in_need(&in, "content") ? qsi_in_text(&in, "content") : NULL;
    if (no->status != 0) return;
    unsigned flags = (special && qsi_vocab_add_bos(c->b->vocab) ? QSI_ENC_BOS : 0) |
                     (markers ? QSI_ENC_SPECIAL : QSI_ENC_PERSON);
    qs_status st = qsi_encode(c->b->vocab, s, strlen(s), flags, &ids, &err);
    if (st != QS_OK) qsi_refuse_err(no, "content", st, &err);
    if (no->status == 0) {
        qsi_jw w = { .s = &c->reply.body };
        qsi_jw_obj(&w);
        qsi_jw_key(&w, "tokens");
        put_ids(c, &w, &ids, pieces);
        qsi_jw_end_obj(&w);
        qsi_call_body(c, &w, no);
    }
    qsi_ids_release(&ids);
}

void qsi_detokenize(qsi_api_call *c, const qsi_json *j, qsi_refusal *no) {
    qsi_in in = qsi_in_root(j, no);
    qsi_ids ids = { 0 };
    qsi_str text = { 0 };
    if (no->status != 0) return;
    qsi_ask_model(c, &in);
    const qsi_json *list = qsi_in_need(&in, "tokens") ? qsi_in_array(&in, "tokens") : NULL;
    if (no->status == 0) qsi_prompt_read_ids(&in, "tokens", list, c->b->n_vocab, &ids);
    if (no->status == 0) {
        qsi_jw w = { .s = &c->reply.body };
        w.st = qsi_decode_known(c->b->vocab, ids.data, ids.len, true, &text);
        qsi_jw_obj(&w);
        qsi_jw_key_str(&w, "content", &text);
        qsi_jw_end_obj(&w);
        qsi_call_body(c, &w, no);
    }
    qsi_ids_release(&ids);
    qsi_str_release(&text);
}

void qsi_apply_template(qsi_api_call *c, const qsi_json *j, qsi_refusal *no) {
    qsi_in in = qsi_in_root(j, no);
    qsi_talk t = { .c = c };
    qsi_ids ids = { 0 };
    qsi_str text = { 0 };
    qs_err err = { 0 };
    if (no->status != 0) return;
    qsi_ask_init(c);
    qsi_ask_model(c, &in);
    if (no->status == 0) qsi_talk_messages(&t, &in, "messages");
    if (no->status == 0 && c->b->chat == NULL)
        qsi_refuse(no, 400, "no_chat_template", NULL, "this model has no chat template");
    if (no->status == 0) qsi_talk_thinking(&t, &in);
    if (no->status == 0) qsi_talk_tools(&t, &in, QSI_TOOLS_CHAT);
    if (no->status == 0) {
        qs_status st = qsi_prompt_render(&t, 0, &ids, &err);
        if (st != QS_OK) qsi_refuse_err(no, "messages", st, &err);
    }
    if (no->status == 0) {
        qsi_jw w = { .s = &c->reply.body };
        w.st = qsi_decode_known(c->b->vocab, ids.data, ids.len, true, &text);
        qsi_jw_obj(&w);
        qsi_jw_key_str(&w, "prompt", &text);
        qsi_jw_key(&w, "tokens");
        put_ids(c, &w, &ids, false);
        qsi_jw_end_obj(&w);
        qsi_call_body(c, &w, no);
    }
    qsi_ids_release(&ids);
    qsi_str_release(&text);
}
