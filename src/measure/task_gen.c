/* Generated answers; see task_gen.h. */
#include "measure/task_gen.h"

#include <string.h>

#include "tok/answer.h"

qs_status qsi_answerer_init(qsi_answerer *a, qsi_engine *e, const qsi_vocab *v,
                            const qsi_chat_template *chat, qsi_think think, int64_t max_tokens,
                            const char *const *stops, size_t n_stops, qs_err *err) {
    qs_status st = QS_OK;
    *a = (qsi_answerer){ .vocab = v, .chat = chat, .think = think, .max_tokens = max_tokens,
                         .stops = stops, .n_stops = n_stops };
    qsi_rng_init(&a->rng, 0);
    QS_TRY(qsi_seq_init(&a->seq, e, err));
    QS_TRY(qsi_sampler_create(&a->sampler, qsi_engine_runner(e)->n_vocab, err));
done:
    if (st != QS_OK) qsi_answerer_release(a);
    return st;
}

void qsi_answerer_release(qsi_answerer *a) {
    if (a->seq.engine) qsi_seq_release(&a->seq);
    qsi_sampler_free(a->sampler);
    qsi_ids_release(&a->ids);
    *a = (qsi_answerer){ 0 };
}

/* The prompt's ids, cut to leave room for an answer. */
static qs_status encode_plain(qsi_answerer *a, const qsi_str *prompt, size_t n_ctx, bool *cut,
                              qs_err *err) {
    qs_status st = QS_OK;
    size_t bos = qsi_vocab_add_bos(a->vocab) ? 1 : 0;
    size_t wanted = (uint64_t)a->max_tokens < n_ctx / 2 ? (size_t)a->max_tokens : n_ctx / 2;
    size_t room = n_ctx - wanted;
    QS_TRY(qsi_encode(a->vocab, prompt->data ? prompt->data : "", prompt->len, bos ? QSI_ENC_BOS : 0,
                      &a->ids, err));
    if (a->ids.len == 0) QS_FAIL(err, QS_E_ARG, "the prompt has no tokens");
    if (a->ids.len <= room) goto done;
    size_t drop = a->ids.len - room;
    memmove(a->ids.data + bos, a->ids.data + bos + drop,
            (a->ids.len - bos - drop) * sizeof *a->ids.data);
    a->ids.len = room;
    *cut = true;
done:
    return st;
}

static qs_status encode_turn(qsi_answerer *a, const qsi_str *prompt, size_t n_ctx, qs_err *err) {
    qs_status st = QS_OK;
    const qsi_turn turn = { .role = QSI_USER, .text = prompt->data ? prompt->data : "",
                            .n = prompt->len };
    const qsi_chat_opts o = { .think = a->think, .generate = true };
    QS_TRY(qsi_chat_write(a->chat, a->vocab, &turn, 1, &o, &a->ids, NULL, err));
    if (a->ids.len >= n_ctx)
        QS_FAIL(err, QS_E_LIMIT, "the question has %zu tokens, the context %zu: take a larger one "
                "(-c N), or fewer examples", a->ids.len, n_ctx);
done:
    return st;
}

static qs_status generate(qsi_answerer *a, qsi_answer *parts, const atomic_int *cancel, qsi_str *text,
                          qsi_finish *finish, qs_err *err) {
    qs_status st = QS_OK;
    qsi_gen g = { 0 };
    qsi_gen_opts o = { .n_predict = a->max_tokens, .stops = a->stops, .n_stops = a->n_stops,
                       .strip_space = a->chat && qsi_chat_strip_space(a->chat), .answer = parts };
    qsi_sampling_default(&o.sampling);
    o.sampling.temp = 0;
    QS_TRY(qsi_gen_init(&g, &o, &a->seq, a->sampler, a->vocab, &a->rng, err));
    QS_TRY(qsi_gen_run(&g, cancel, NULL, err));
    if (g.finish == QSI_FINISH_CANCELLED) QS_FAIL(err, QS_E_CANCELLED, "cancelled");
    const qsi_str *said = parts ? &parts->text : &g.text;
    if (said->len > 0 && qsi_str_append(text, said->data, said->len) != QS_OK)
        QS_FAIL(err, QS_E_NOMEM, "out of memory for an answer");
    *finish = g.finish;
done:
    qsi_gen_release(&g);
    return st;
}

qs_status qsi_answerer_run(qsi_answerer *a, const qsi_str *prompt, const atomic_int *cancel,
                           qsi_str *text, bool *cut, qsi_finish *finish, qs_err *err) {
    qs_status st = QS_OK;
    size_t n_ctx = (size_t)qsi_engine_runner(a->seq.engine)->n_ctx, n_prompt = 0;
    qsi_answer parts = { 0 };
    *cut = false;
    qsi_str_clear(text);
    a->ids.len = 0;
    if (a->chat) {
        QS_TRY(encode_turn(a, prompt, n_ctx, err));
        QS_TRY(qsi_answer_init(&parts, &(qsi_answer_opts){ .chat = a->chat, .vocab = a->vocab,
                                                           .think = a->think }, err));
    } else {
        QS_TRY(encode_plain(a, prompt, n_ctx, cut, err));
    }
    QS_TRY(qsi_seq_set(&a->seq, a->ids.data, a->ids.len, NULL, err));
    n_prompt = a->seq.n_ids;
    QS_TRY(generate(a, a->chat ? &parts : NULL, cancel, text, finish, err));
done:
    /* the next prompt shares what was a prompt alone: its numbers do not depend on this answer */
    if (n_prompt > 0) qsi_seq_truncate(&a->seq, n_prompt);
    qsi_answer_release(&parts);
    return st;
}
