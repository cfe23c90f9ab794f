/* api/api_eval against brute force: every window scored by qs_score with the whole vocabulary. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../sys/tmpdir.h"
#include "base/str.h"
#include "qiusuo/measure.h"
#include "qiusuo/qiusuo.h"
#include "tiny_model.h"

#define A "eval_a.gguf"
#define B "eval_b.gguf"
#define MAX_IDS 256

static const char text[] = "The quick brown fox, 求索：路漫漫其修远兮，吾将上下而求索。 12345 and so on.";

static int write_models(void **state) {
    tiny_model_opts a = { .arch = QSI_ARCH_DEEPSEEK, .type = QSI_F32, .seed = 1 };
    tiny_model_opts b = { .arch = QSI_ARCH_DEEPSEEK, .type = QSI_Q4_0, .seed = 1 };
    qs_err err;
    if (tmp_enter(state) != 0) return -1;
    return tiny_model_write(A, &a, &err) || tiny_model_write(B, &b, &err);
}

static void open_both(qs_model **m, qs_session **s, int max_rows) {
    const char *const paths[] = { A, B };
    for (int i = 0; i < 2; i++) {
        qs_model_opts mo;
        qs_err err;
        qs_model_opts_init(&mo, sizeof mo);
        mo.threads = 1;
        mo.max_rows = i == 0 ? max_rows : 0;
        assert_int_equal(qs_model_open(&m[i], paths[i], &mo, &err), QS_OK);
        assert_int_equal(qs_session_create(&s[i], m[i], NULL, &err), QS_OK);
    }
}

static void close_both(qs_model **m, qs_session **s) {
    for (int i = 0; i < 2; i++) {
        qs_session_free(s[i]);
        qs_model_close(&m[i]);
    }
}

typedef struct seen { /* log-probabilities of every id after each position, and the likeliest id */
    double *lp;
    int32_t *best, n_vocab;
} seen;

static int keep(void *user, const qs_score_pos *p) {
    seen *w = user;
    w->best[p->pos] = p->top[0].id;
    for (int32_t i = 0; i < p->n_top; i++)
        w->lp[p->pos * w->n_vocab + p->top[i].id] = p->top[i].logprob;
    return 0;
}

typedef struct want {
    double nll, base, kl, agree, kls[MAX_IDS];
    int64_t n;
} want;

static void brute(qs_session **s, const int32_t *ids, int64_t n, int32_t n_vocab, int32_t bos,
                  int64_t ctx, int64_t stride, want *w) {
    seen v[2];
    qs_err err;
    *w = (want){ 0 };
    for (int k = 0; k < 2; k++) {
        v[k] = (seen){ calloc((size_t)(ctx * n_vocab), sizeof(double)),
                       calloc((size_t)ctx, sizeof(int32_t)), n_vocab };
        assert_true(v[k].lp != NULL && v[k].best != NULL);
    }
    for (int64_t begin = 0, scored = 0; scored < n; begin += stride) {
        int32_t window[MAX_IDS] = { bos };
        int64_t take = n - begin < ctx - 1 ? n - begin : ctx - 1;
        for (int64_t i = 0; i < take; i++) window[i + 1] = ids[begin + i];
        for (int k = 0; k < 2; k++)
            assert_int_equal(qs_score(s[k], window, (size_t)take + 1, n_vocab, keep, &v[k], &err),
                             QS_OK);
        for (; scored < begin + take; scored++, w->n++) {
            int64_t at = scored - begin;
            double kl = 0;
            for (int32_t i = 0; i < n_vocab; i++) {
                double m = v[0].lp[at * n_vocab + i], b = v[1].lp[at * n_vocab + i];
                kl += exp(b) * (b - m);
            }
            w->nll -= v[0].lp[at * n_vocab + ids[scored]];
            w->base -= v[1].lp[at * n_vocab + ids[scored]];
            w->kl += kl;
            w->kls[w->n] = kl;
            w->agree += v[0].best[at] == v[1].best[at];
        }
    }
    for (int k = 0; k < 2; k++) {
        free(v[k].lp);
        free(v[k].best);
    }
}

static void near(double got, double expected) {
    assert_true(fabs(got - expected) <= 1e-9 * (1 + fabs(expected)));
}

static void check(int64_t ctx, int64_t stride, int max_rows) {
    qs_model *m[2];
    qs_session *s[2];
    qs_err err;
    qs_eval_opts o;
    qs_eval_text_report r, alone;
    int32_t ids[MAX_IDS];
    size_t n;
    want w;
    open_both(m, s, max_rows);
    const qs_tokenizer *t = qs_model_tokenizer(m[0]);
    assert_int_equal(qs_tokenizer_add_bos(t), 1);
    assert_int_equal(qs_tokenizer_encode(t, text, strlen(text), 0, ids, MAX_IDS, &n, &err), QS_OK);
    qs_eval_opts_init(&o, sizeof o);
    o.ctx = ctx;
    o.stride = stride;
    assert_int_equal(qs_eval_text(s[0], s[1], text, strlen(text), &o, &r, &err), QS_OK);
    assert_int_equal(qs_eval_text(s[0], NULL, text, strlen(text), &o, &alone, &err), QS_OK);
    brute(s, ids, (int64_t)n, qs_model_n_vocab(m[0]), qs_tokenizer_bos(t), ctx, stride, &w);
    assert_int_equal(w.n, (int64_t)n);
    assert_int_equal(r.n_tokens, (int64_t)n);
    assert_int_equal(r.n_bytes, (int64_t)strlen(text));
    double k = (double)n, squares = 0, most = 0;
    for (size_t i = 0; i < n; i++) {
        squares += (w.kls[i] - w.kl / k) * (w.kls[i] - w.kl / k);
        most = fmax(most, w.kls[i]);
    }
    near(r.nll.value, w.nll / k);
    assert_true(alone.nll.value == r.nll.value && alone.nll.se == r.nll.se);
    near(r.ppl.value, exp(w.nll / k));
    near(r.bits_per_byte, w.nll / log(2.0) / (double)strlen(text));
    near(r.base_nll.value, w.base / k);
    near(r.diff.value, (w.nll - w.base) / k);
    near(r.kl.value, w.kl / k);
    near(r.kl.se, sqrt(squares / (k - 1) / k));
    near(r.agree.value, w.agree / k);
    assert_true(w.kl > 0 && fabs(r.kl_max - most) <= 1e-6 * most);
    assert_true(r.kl_median <= r.kl_p99 && r.kl_p99 <= r.kl_max);
    close_both(m, s);
}

static void test_brute_force(void **state) {
    check(16, 8, 0);
    check(16, 15, 3);
    check(7, 1, 2);
    check(200, 100, 5);
}

static void test_itself_and_errors(void **state) {
    qs_model *m[2];
    qs_session *s[2];
    qs_err err;
    qs_eval_opts o;
    qs_eval_text_report r;
    open_both(m, s, 0);
    assert_int_equal(qs_eval_text(s[0], s[0], text, strlen(text), NULL, &r, &err), QS_OK);
    assert_true(r.kl_max < 1e-12 && r.agree.value == 1 && r.diff.value == 0 && r.diff.se == 0);
    assert_int_equal(qs_eval_text(s[0], NULL, "", 0, NULL, &r, &err), QS_E_ARG);
    assert_int_equal(qs_eval_text(s[0], NULL, "\xff", 1, NULL, &r, &err), QS_E_FORMAT);
    qs_eval_opts_init(&o, sizeof o);
    o.ctx = 1 << 20;
    assert_int_equal(qs_eval_text(s[0], NULL, text, strlen(text), &o, &r, &err), QS_E_ARG);
    o.ctx = 8;
    o.stride = 8;
    assert_int_equal(qs_eval_text(s[0], NULL, text, strlen(text), &o, &r, &err), QS_E_ARG);
    close_both(m, s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_brute_force),
        cmocka_unit_test(test_itself_and_errors),
    };
    return cmocka_run_group_tests(tests, write_models, tmp_leave);
}
