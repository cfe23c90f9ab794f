/* infer/generate on a scripted model that writes a given text: pieces, stop strings, limits, the end,
 * biases, callbacks. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "fake_model.h"
#include "moon_vocab.h"
#include "infer/generate.h"
#include "../tok/tok_fixture.h"


/* Everything one scripted generation needs. */
typedef struct script {
    fake_model f;
    qsi_engine *e;
    qsi_seq seq;
    qsi_sampler *sm;
    qsi_rng rng;
    qsi_ids answer;      /* what the model writes, then its end token for ever */
    size_t n_prompt;
    qsi_str heard;       /* all text pieces */
    int n_pieces, n_tokens, stop_after_pieces, stop_after_tokens;
    qsi_gen_opts o;
    qsi_gen g;
} script;

static int32_t next_id(void *user, const int32_t *ids, int32_t n) {
    script *s = user;
    size_t i = (size_t)n - s->n_prompt;
    return (size_t)n >= s->n_prompt && i < s->answer.len ? s->answer.data[i] : qsi_vocab_eos(vocab);
}

static int hear_text(void *user, const char *p, size_t n) {
    script *s = user;
    assert_true(n > 0 && qsi_utf8_valid(p, n, NULL));
    assert_int_equal(qsi_str_append(&s->heard, p, n), QS_OK);
    return ++s->n_pieces == s->stop_after_pieces;
}

static int hear_token(void *user, const qsi_gen_token *t) {
    script *s = user;
    assert_int_equal(t->id, s->answer.data[s->n_tokens]);
    qsi_slice b = qsi_vocab_bytes(vocab, t->id);
    assert_int_equal(t->n_text, b.n);
    assert_memory_equal(t->text, b.p, b.n);
    assert_int_equal(t->n_top, s->o.top_logprobs);
    if (t->n_top > 0) {
        assert_int_equal(t->top[0].id, t->id);
        assert_true(t->top[0].logprob == t->logprob);
    }
    return ++s->n_tokens == s->stop_after_tokens;
}

static void begin(script *s, const char *answer, int64_t n_ctx) {
    static const int32_t prompt[] = { 1, 2, 3 };
    memset(s, 0, sizeof *s);
    fake_model_init(&s->f, qsi_vocab_size(vocab), 8, n_ctx, 8);
    s->f.next = next_id;
    s->f.user = s;
    assert_int_equal(qsi_engine_create(&s->e, &s->f.runner, 1, NULL), QS_OK);
    assert_int_equal(qsi_seq_init(&s->seq, s->e, NULL), QS_OK);
    assert_int_equal(qsi_sampler_create(&s->sm, qsi_vocab_size(vocab), NULL), QS_OK);
    qsi_rng_init(&s->rng, 1);
    assert_int_equal(qsi_encode(vocab, answer, strlen(answer), 0, &s->answer, NULL), QS_OK);
    s->n_prompt = 3;
    assert_int_equal(qsi_seq_push(&s->seq, prompt, 3, NULL), QS_OK);
    s->o = (qsi_gen_opts){ .n_predict = -1, .on_text = hear_text, .user = s };
    qsi_sampling_default(&s->o.sampling);
}

static void go(script *s, const atomic_int *cancel) {
    assert_int_equal(qsi_gen_init(&s->g, &s->o, &s->seq, s->sm, vocab, &s->rng, NULL), QS_OK);
    assert_int_equal(qsi_gen_run(&s->g, cancel, NULL, NULL), QS_OK);
    assert_true(s->g.done);
    /* what was heard piece by piece is the text */
    assert_int_equal(s->heard.len, s->g.text.len);
    if (s->heard.len > 0) assert_memory_equal(s->heard.data, s->g.text.data, s->heard.len);
}

static void end(script *s) {
    qsi_gen_release(&s->g);
    qsi_seq_release(&s->seq);
    qsi_engine_free(s->e);
    qsi_sampler_free(s->sm);
    qsi_ids_release(&s->answer);
    qsi_str_release(&s->heard);
    fake_model_release(&s->f);
}

static void check_text(const script *s, const char *want) {
    assert_string_equal(s->g.text.data ? s->g.text.data : "", want);
}

static void test_whole_answer(void **state) {
    static const char *const answers[] = { "the moon is bright", "床前明月光，疑是地上霜。",
                                           "αβ 𝒳 émoji 😀!", "" };
    for (size_t i = 0; i < QSI_COUNT(answers); i++) {
        script s;
        begin(&s, answers[i], 256);
        s.o.on_token = hear_token;
        s.o.top_logprobs = (int32_t)i;
        go(&s, NULL);
        check_text(&s, answers[i]);
        assert_int_equal(s.g.finish, QSI_FINISH_END);
        assert_int_equal(s.seq.n_ids, 3 + s.answer.len); /* the end token is not in the sequence */
        assert_int_equal(s.n_tokens, s.answer.len);
        assert_int_equal(qsi_gen_exact_ids(&s.g), s.answer.len);
        /* one step for the prompt, one for each id but not for those nobody reads */
        assert_int_equal(s.f.n_steps, 1 + (int)s.answer.len);
        end(&s);
    }
}

/* A guide that lets one list of ids pass. */
typedef struct rails {
    qsi_ids ids;
    size_t at;
    uint32_t mask[128];
} rails;

static const uint32_t *rails_mask(void *user, qs_err *err) {
    rails *r = user;
    (void)err;
    memset(r->mask, 0, sizeof r->mask);
    assert_true(r->at < r->ids.len); /* nobody asks when it is done */
    int32_t id = r->ids.data[r->at];
    r->mask[id / 32] |= (uint32_t)1 << id % 32;
    return r->mask;
}

static bool rails_accept(void *user, int32_t id) {
    rails *r = user;
    if (r->ids.data[r->at] != id) return false;
    r->at++;
    return true;
}

static bool rails_done(void *user) {
    const rails *r = user;
    return r->at == r->ids.len;
}

/* What the guide lets pass comes, whatever the model wants, and no step is made behind its end. */
static void test_guide(void **state) {
    script s;
    rails r = { .at = 0 };
    const char *want = "{\"月\": 1}";
    assert_true(qsi_vocab_size(vocab) <= 128 * 32);
    assert_int_equal(qsi_encode(vocab, want, strlen(want), 0, &r.ids, NULL), QS_OK);
    const qsi_guide guide = { rails_mask, qsi_vocab_size(vocab), rails_accept, rails_done, &r };
    begin(&s, "the moon is bright", 256);
    s.o.guide = &guide;
    go(&s, NULL);
    check_text(&s, want);
    assert_int_equal(s.g.finish, QSI_FINISH_END);
    assert_int_equal(s.f.n_steps, (int)r.ids.len);
    end(&s);
    r.at = 0;
    begin(&s, "the moon is bright", 256);
    s.o.guide = &guide;
    s.o.n_predict = (int64_t)r.ids.len; /* complete at the very limit: it is complete */
    go(&s, NULL);
    assert_int_equal(s.g.finish, QSI_FINISH_END);
    end(&s);
    qsi_ids_release(&r.ids);
}

/* No end before n_min ids, then as soon as the model likes. */
static void test_least(void **state) {
    script s;
    begin(&s, "the moon", 256);
    int64_t n = (int64_t)s.answer.len;
    s.o.n_min = n + 5;
    s.o.sampling.temp = 0;
    go(&s, NULL);
    assert_int_equal(s.seq.n_ids, 3 + n + 5);
    assert_int_equal(s.g.finish, QSI_FINISH_END);
    end(&s);
}

/* The prompt's last ids can be the answer's first. */
static void test_lead(void **state) {
    script s;
    qsi_ids lead = { 0 };
    begin(&s, "bright", 256);
    assert_int_equal(qsi_encode(vocab, "the moon is ", 12, 0, &lead, NULL), QS_OK);
    assert_int_equal(qsi_seq_push(&s.seq, lead.data, lead.len, NULL), QS_OK);
    s.n_prompt = (int32_t)(3 + lead.len);
    assert_int_equal(qsi_gen_init(&s.g, &s.o, &s.seq, s.sm, vocab, &s.rng, NULL), QS_OK);
    assert_int_equal(qsi_gen_lead(&s.g, lead.len, NULL), QS_OK);
    check_text(&s, "the moon is ");
    assert_int_equal(qsi_gen_run(&s.g, NULL, NULL, NULL), QS_OK);
    check_text(&s, "the moon is bright");
    qsi_ids_release(&lead);
    end(&s);
}

static void test_strip_space(void **state) {
    script s;
    begin(&s, " the moon", 256);
    s.o.strip_space = true;
    go(&s, NULL);
    check_text(&s, "the moon");
    assert_int_equal(qsi_gen_exact_ids(&s.g), s.answer.len);
    end(&s);
    begin(&s, "  the moon", 256); /* one space only */
    s.o.strip_space = true;
    go(&s, NULL);
    check_text(&s, " the moon");
    end(&s);
    begin(&s, "the  moon", 256);
    s.o.strip_space = true;
    go(&s, NULL);
    check_text(&s, "the  moon");
    end(&s);
}

static void test_stop_strings(void **state) {
    static const char *const stops[] = { "is r", "。" };
    script s;
    begin(&s, "the moon is bright, the moon is round.", 256);
    s.o.stops = stops;
    s.o.n_stops = 2;
    go(&s, NULL);
    check_text(&s, "the moon is bright, the moon ");
    assert_int_equal(s.g.finish, QSI_FINISH_STOP);
    int64_t exact = qsi_gen_exact_ids(&s.g);
    if (exact >= 0) { /* the ids that stand for the text spell it */
        qsi_str text = { 0 };
        assert_int_equal(qsi_decode(vocab, s.seq.ids + 3, (size_t)exact, false, &text), QS_OK);
        assert_string_equal(text.data, "the moon is bright, the moon ");
        qsi_str_release(&text);
    }
    end(&s);
    begin(&s, "床前明月光，疑是地上霜。the", 256);
    s.o.stops = stops;
    s.o.n_stops = 2;
    go(&s, NULL);
    check_text(&s, "床前明月光，疑是地上霜");
    end(&s);
    /* a beginning of a stop string at the end of the answer is shown */
    begin(&s, "the moon is", 256);
    s.o.stops = stops;
    s.o.n_stops = 2;
    go(&s, NULL);
    check_text(&s, "the moon is");
    assert_int_equal(s.g.finish, QSI_FINISH_END);
    end(&s);
    /* at once */
    begin(&s, "。the", 256);
    s.o.stops = stops;
    s.o.n_stops = 2;
    go(&s, NULL);
    check_text(&s, "");
    assert_int_equal(qsi_gen_exact_ids(&s.g), 0);
    end(&s);
}

static void test_limits(void **state) {
    script s;
    begin(&s, "the moon is bright, the moon is round.", 256);
    s.o.n_predict = 4;
    go(&s, NULL);
    assert_int_equal(s.g.finish, QSI_FINISH_LENGTH);
    assert_int_equal(s.seq.n_ids, 7);
    assert_int_equal(s.f.n_steps, 4);
    end(&s);
    begin(&s, "the moon", 256);
    s.o.n_predict = 0;
    go(&s, NULL);
    assert_int_equal(s.g.finish, QSI_FINISH_LENGTH);
    check_text(&s, "");
    end(&s);
    begin(&s, "the moon is bright, the moon is round.", 8);
    go(&s, NULL);
    assert_int_equal(s.g.finish, QSI_FINISH_CONTEXT);
    assert_int_equal(s.seq.n_ids, 8);
    end(&s);
    /* half a character at the limit comes out as U+FFFD, never as loose bytes */
    begin(&s, "😀", 256);
    assert_true(s.answer.len > 1);
    s.o.n_predict = 1;
    go(&s, NULL);
    assert_true(qsi_utf8_valid(s.g.text.data, s.g.text.len, NULL));
    assert_string_equal(s.g.text.data, "\xef\xbf\xbd");
    end(&s);
}

static void test_callbacks_and_cancel(void **state) {
    script s;
    begin(&s, "the moon is bright, the moon is round.", 256);
    s.stop_after_pieces = 3;
    go(&s, NULL);
    assert_int_equal(s.g.finish, QSI_FINISH_CALLBACK);
    assert_int_equal(s.n_pieces, 3);
    end(&s);
    begin(&s, "the moon is bright, the moon is round.", 256);
    s.o.on_token = hear_token;
    s.stop_after_tokens = 2;
    go(&s, NULL);
    assert_int_equal(s.g.finish, QSI_FINISH_CALLBACK);
    assert_int_equal(s.n_tokens, 2);
    assert_int_equal(s.seq.n_ids, 5);
    end(&s);
    atomic_int cancel = 0;
    begin(&s, "the moon is bright, the moon is round.", 256);
    s.f.cancel_at = &cancel;
    s.f.cancel_step = 5;
    go(&s, &cancel);
    assert_int_equal(s.g.finish, QSI_FINISH_CANCELLED);
    assert_int_equal(s.f.n_steps, 5);
    end(&s);
}

static void test_ignore_end(void **state) {
    script s;
    begin(&s, "the moon", 256);
    s.o.ignore_end = true;
    s.o.n_predict = 60;
    go(&s, NULL);
    assert_int_equal(s.g.finish, QSI_FINISH_LENGTH);
    assert_int_equal(s.seq.n_ids, 63);
    for (size_t i = 0; i < s.seq.n_ids; i++)
        assert_false(qsi_vocab_is_end(vocab, s.seq.ids[i]));
    end(&s);
}

static void test_bad_settings(void **state) {
    static const char *const empty[] = { "" };
    script s;
    qs_err err;
    begin(&s, "x", 256);
    s.o.n_predict = -2;
    assert_int_equal(qsi_gen_init(&s.g, &s.o, &s.seq, s.sm, vocab, &s.rng, &err), QS_E_ARG);
    qsi_gen_release(&s.g);
    s.o.n_predict = 1;
    s.o.stops = empty;
    s.o.n_stops = 1;
    assert_int_equal(qsi_gen_init(&s.g, &s.o, &s.seq, s.sm, vocab, &s.rng, &err), QS_E_ARG);
    qsi_gen_release(&s.g);
    s.o.n_stops = 0;
    s.o.sampling.temp = NAN;
    assert_int_equal(qsi_gen_init(&s.g, &s.o, &s.seq, s.sm, vocab, &s.rng, &err), QS_E_ARG);
    end(&s);
}

typedef struct parts {
    qsi_str s;
    int last;
} parts;

static int hear_part(void *user, qsi_part part, const char *p, size_t n) {
    parts *h = user;
    if ((int)part != h->last)
        assert_int_equal(qsi_str_printf(&h->s, "%s%c:", h->s.len ? "|" : "", "RTCA"[part]), QS_OK);
    assert_int_equal(qsi_str_append(&h->s, p, n), QS_OK);
    h->last = (int)part;
    return 0;
}

/* An answer of R1 whose markers are tokens; the same text is a stop string in one part only. */
static void test_parts(void **state) {
    static tok_fixture f;
    static const char answer[] = "<think>\nthe moon, 月\n</think>\n\n月光 <｜tool▁calls▁begin｜>"
        "<｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n{\"a\": 1}\n```<｜tool▁call▁end｜>"
        "<｜tool▁calls▁end｜>";
    static const char *const tokens[] = { "<think>", "</think>", "<｜tool▁calls▁begin｜>",
        "<｜tool▁calls▁end｜>", "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>", "<｜tool▁sep｜>" };
    const struct {
        const char *stop, *want;
        qsi_finish finish;
    } rows[] = { { NULL, "R:the moon, 月|T:月光|C:f|A:{\"a\": 1}", QSI_FINISH_END },
                 { "moon", "R:the ", QSI_FINISH_STOP },
                 { "光", "R:the moon, 月|T:月", QSI_FINISH_STOP },
                 { "\n</think>", "R:the moon, 月|T:月光|C:f|A:{\"a\": 1}", QSI_FINISH_END } };
    qsi_vocab *before = vocab;
    const qsi_chat_template *t = NULL;
    tok_fixture_init(&f, "deepseek-v3");
    tok_fixture_bos_eos(&f);
    for (size_t i = 0; i < QSI_COUNT(tokens); i++) /* of both kinds */
        tok_fixture_token(&f, tokens[i], i % 2 ? QSI_TOK_USER : QSI_TOK_CONTROL);
    vocab = tok_fixture_build(&f);
    assert_int_equal(qsi_chat_by_name(&t, "deepseek-r1-0528", NULL), QS_OK);
    for (size_t i = 0; i < QSI_COUNT(rows); i++) {
        script s;
        parts h = { .last = -1 };
        qsi_answer a;
        const char *stops[] = { rows[i].stop };
        begin(&s, "", 512);
        assert_int_equal(qsi_encode(vocab, answer, strlen(answer), QSI_ENC_SPECIAL, &s.answer, NULL),
                         QS_OK);
        assert_int_equal(qsi_answer_init(&a, &(qsi_answer_opts){ .chat = t, .vocab = vocab,
                                         .on_part = hear_part, .user = &h }, NULL), QS_OK);
        s.o.answer = &a;
        s.o.on_text = NULL;
        s.o.stops = stops;
        s.o.n_stops = rows[i].stop != NULL;
        assert_int_equal(qsi_gen_init(&s.g, &s.o, &s.seq, s.sm, vocab, &s.rng, NULL), QS_OK);
        assert_int_equal(qsi_gen_run(&s.g, NULL, NULL, NULL), QS_OK);
        assert_string_equal(h.s.data, rows[i].want);
        assert_int_equal(s.g.finish, rows[i].finish);
        assert_int_equal(a.n_calls, rows[i].finish == QSI_FINISH_END);
        if (rows[i].finish == QSI_FINISH_END)
            assert_int_equal(qsi_gen_exact_ids(&s.g), s.answer.len);
        else /* bytes are tokens of this vocabulary: the shown ones end exactly before the stop */
            assert_true(qsi_gen_exact_ids(&s.g) > 0);
        qsi_answer_release(&a);
        qsi_str_release(&h.s);
        end(&s);
    }
    qsi_vocab_free(vocab);
    vocab = before;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whole_answer), cmocka_unit_test(test_guide),
        cmocka_unit_test(test_least), cmocka_unit_test(test_lead),   cmocka_unit_test(test_strip_space),
        cmocka_unit_test(test_stop_strings),   cmocka_unit_test(test_limits),
        cmocka_unit_test(test_callbacks_and_cancel), cmocka_unit_test(test_ignore_end),
        cmocka_unit_test(test_bad_settings),  cmocka_unit_test(test_parts),
    };
    return cmocka_run_group_tests(tests, make_vocab, free_vocab);
}
