/* Log-likelihoods of continuations by a model whose logits are a hash of all ids before: against the
 * same sums made here, and how much is computed for them. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <string.h>

#include "../infer/fake_model.h"
#include "infer/sampler.h"
#include "measure/task_choice.h"
#include "tok/vocab.h"

#define MAX_VOCAB 400

static const char corpus[] = "x A x B x C x D x A x B x C x D";

typedef struct world {
    fake_model f;
    qsi_engine *e;
    qsi_vocab *vocab;
    qsi_chooser c;
} world;

static void begin(world *w, int64_t n_ctx) {
    qsi_bpe_trainer *t;
    memset(w, 0, sizeof *w);
    assert_int_equal(qsi_bpe_trainer_create(&t, "deepseek-llm", NULL), QS_OK);
    assert_int_equal(qsi_bpe_trainer_add(t, corpus, sizeof corpus - 1, NULL), QS_OK);
    assert_int_equal(qsi_bpe_trainer_finish(t, 270, NULL, NULL, &w->vocab, NULL), QS_OK);
    qsi_bpe_trainer_free(t);
    assert_true(qsi_vocab_size(w->vocab) <= MAX_VOCAB);
    fake_model_init(&w->f, qsi_vocab_size(w->vocab), 8, n_ctx, 64);
    assert_int_equal(qsi_engine_create(&w->e, &w->f.runner, 1, NULL), QS_OK);
    assert_int_equal(qsi_chooser_init(&w->c, w->e, w->vocab, NULL), QS_OK);
}

static void end(world *w) {
    qsi_chooser_release(&w->c);
    qsi_engine_free(w->e);
    fake_model_release(&w->f);
    qsi_vocab_free(w->vocab);
}

static void encode(const world *w, const char *a, const char *b, qsi_ids *ids) {
    qsi_str s = { 0 };
    assert_int_equal(qsi_str_puts(&s, a), QS_OK);
    assert_int_equal(qsi_str_puts(&s, b), QS_OK);
    ids->len = 0;
    assert_int_equal(qsi_encode(w->vocab, s.data, s.len, QSI_ENC_BOS, ids, NULL), QS_OK);
    qsi_str_release(&s);
}

/* The ids' sum from `from` on, where all but the last `most` ids behind BOS are forgotten. */
static double sum(const world *w, const qsi_ids *ids, size_t from, size_t drop) {
    float logits[MAX_VOCAB];
    int32_t kept[512];
    size_t bos = qsi_vocab_add_bos(w->vocab), n = ids->len - drop;
    double ll = 0;
    memcpy(kept, ids->data, bos * sizeof *kept);
    memcpy(kept + bos, ids->data + bos + drop, (n - bos) * sizeof *kept);
    for (size_t i = from - drop; i < n; i++) {
        fake_logits(&w->f, kept, (int32_t)i, logits);
        ll += qsi_logprob_of(logits, w->f.runner.n_vocab, kept[i]);
    }
    return ll;
}

/* Scores the choices after the prompt and compares; *tokens: those of the prompt. */
static void check(world *w, const char *prompt, const char *const *choices, int32_t n, size_t *tokens,
                  bool want_cut) {
    qsi_str p = { 0 }, next[4] = { { 0 } };
    double ll[4];
    bool cut = !want_cut;
    qsi_ids ids = { 0 };
    qs_err err = { 0 };
    assert_int_equal(qsi_str_puts(&p, prompt), QS_OK);
    for (int32_t i = 0; i < n; i++) assert_int_equal(qsi_str_puts(&next[i], choices[i]), QS_OK);
    qs_status st = qsi_chooser_run(&w->c, &p, next, n, NULL, ll, &cut, &err);
    if (st != QS_OK) fail_msg("%s", err.text);
    assert_int_equal(cut, want_cut);
    encode(w, prompt, "", &ids);
    size_t from = ids.len;
    for (int32_t i = 0; i < n; i++) {
        encode(w, prompt, choices[i], &ids);
        size_t room = (size_t)w->f.runner.n_ctx + 1, drop = ids.len > room ? ids.len - room : 0;
        double want = sum(w, &ids, from, drop);
        if (!(fabs(ll[i] - want) <= 1e-9 * fabs(want)))
            fail_msg("'%s': %.12g, not %.12g", choices[i], ll[i], want);
        qsi_str_release(&next[i]);
    }
    *tokens = from;
    qsi_ids_release(&ids);
    qsi_str_release(&p);
}

static const char *const abcd[] = { " A", " B", " C", " D" };

static void letters_share_a_position(void **state) {
    world w;
    size_t n, again;
    qsi_ids ids = { 0 };
    begin(&w, 256);
    encode(&w, "x", " A", &ids);
    assert_int_equal(ids.len, 2 + (size_t)qsi_vocab_add_bos(w.vocab)); /* a letter is one token */
    check(&w, "question 1: x", abcd, 4, &n, false);
    assert_int_equal(w.f.n_rows, n); /* the prompt, and nothing more for all four */
    /* as many tokens, another question: the last position is another's */
    check(&w, "question 2: x", abcd, 4, &again, false);
    assert_int_equal(again, n);
    assert_true(w.f.n_rows < 2 * (int)n); /* the beginning that both share is kept */
    qsi_ids_release(&ids);
    end(&w);
}

static void longer_choices(void **state) {
    static const char *const texts[] = { " a long choice", " A", " another 词", " A B" };
    world w;
    size_t n;
    begin(&w, 256);
    check(&w, "一个问题: x", texts, 4, &n, false);
    check(&w, "x", texts, 4, &n, false);
    end(&w);
}

static void short_context(void **state) {
    static const char *const texts[] = { " a long choice", " b" };
    world w;
    size_t n;
    bool cut;
    double ll[1];
    qs_err err = { 0 };
    begin(&w, 24);
    check(&w, "a prompt of more tokens than the context has, by far", texts, 2, &n, true);
    assert_true(n > 24);
    qsi_str p = { 0 }, next = { 0 };
    assert_int_equal(qsi_str_puts(&p, "x"), QS_OK);
    assert_int_equal(qsi_str_puts(&next, " a choice of more tokens than the context has"), QS_OK);
    assert_int_equal(qsi_chooser_run(&w.c, &p, &next, 1, NULL, ll, &cut, &err), QS_E_LIMIT);
    qsi_str_release(&p);
    qsi_str_release(&next);
    end(&w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(letters_share_a_position), cmocka_unit_test(longer_choices),
        cmocka_unit_test(short_context),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
