/* api/api_session on tiny random models: generation, scoring, and the promises of equal results. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../sys/tmpdir.h"
#include "base/str.h"
#include "qiusuo/qiusuo.h"
#include "tiny_model.h"

#define MOE "session_moe.gguf"
#define DENSE "session_dense.gguf"
#define NOT_A_NUMBER "session_nan.gguf"
#define MTP "session_mtp.gguf"

static int write_models(void **state) {
    tiny_model_opts moe = { .arch = QSI_ARCH_DEEPSEEK, .type = QSI_F32, .seed = 1, .tasks = true };
    tiny_model_opts dense = { .arch = QSI_ARCH_LLAMA, .type = QSI_Q8_0, .seed = 2, .n_ctx = 64 };
    tiny_model_opts bad = { .arch = QSI_ARCH_DEEPSEEK, .type = QSI_F32, .seed = 1, .nan = true };
    tiny_model_opts mtp = { .arch = QSI_ARCH_DEEPSEEK2, .type = QSI_Q8_0, .seed = 4, .mtp = true };
    qs_err err;
    if (tmp_enter(state) != 0) return -1;
    return tiny_model_write(MTP, &mtp, &err) || tiny_model_write(MOE, &moe, &err) ||
           tiny_model_write(DENSE, &dense, &err) || tiny_model_write(NOT_A_NUMBER, &bad, &err);
}

static void open_session_mtp(const char *path, int threads, int max_rows, int64_t n_ctx, bool mtp,
                             qs_model **m, qs_session **s) {
    qs_model_opts mo;
    qs_session_opts so;
    qs_err err;
    qs_model_opts_init(&mo, sizeof mo);
    mo.threads = threads;
    mo.max_rows = max_rows;
    mo.mtp = mtp;
    assert_int_equal(qs_model_open(m, path, &mo, &err), QS_OK);
    qs_session_opts_init(&so, sizeof so);
    so.n_ctx = n_ctx;
    assert_int_equal(qs_session_create(s, *m, &so, &err), QS_OK);
}

static void open_session(const char *path, int threads, int max_rows, int64_t n_ctx, qs_model **m,
                         qs_session **s) {
    open_session_mtp(path, threads, max_rows, n_ctx, false, m, s);
}

static void close_session(qs_model **m, qs_session **s) {
    qs_session_free(*s);
    *s = NULL;
    qs_model_close(m);
    assert_null(*m);
}

/* ---- generation ------------------------------------------------------------------------------- */

typedef struct result {
    qsi_str text;
    int32_t ids[300];
    double logprob[300];
    int n;
} result;

static int keep_text(void *user, const char *p, size_t n) {
    result *r = user;
    return qsi_str_append(&r->text, p, n) != QS_OK;
}

static int keep_token(void *user, const qs_token *t) {
    result *r = user;
    r->ids[r->n] = t->id;
    r->logprob[r->n++] = t->logprob;
    return 0;
}

/* A negative seed: the likeliest id always. */
static void generate(qs_session *s, const char *prompt, int64_t seed, int64_t n_predict, result *r,
                     qs_gen_stats *st) {
    qs_gen_opts o;
    qs_err err;
    qs_gen_opts_init(&o, sizeof o, NULL);
    o.seed = seed;
    if (seed < 0) o.temp = 0;
    o.n_predict = n_predict;
    o.on_text = keep_text;
    o.on_token = keep_token;
    o.user = r;
    memset(r, 0, sizeof *r);
    assert_int_equal(qs_generate(s, prompt, strlen(prompt), QS_ENCODE_BOS, &o, st, &err), QS_OK);
    size_t n;
    const char *text = qs_session_text(s, &n);
    assert_int_equal(n, r->text.len);
    if (n > 0) assert_memory_equal(text, r->text.data, n);
}

/* Same seed: same ids and bit-equal log-probabilities for any threads, chunk, cache, session. */
static void test_same_answer(void **state) {
    static const char *const paths[] = { MOE, DENSE };
    static const struct {
        int threads, rows;
    } ways[] = { { 1, 0 }, { 2, 0 }, { 3, 1 }, { 1, 7 }, { 4, 16 } };
    const char *prompt = "床前明月光，the moon is bright";
    for (size_t p = 0; p < 2; p++) {
        result first = { 0 };
        for (size_t w = 0; w < sizeof ways / sizeof ways[0]; w++) {
            qs_model *m;
            qs_session *s;
            result r, other;
            qs_gen_stats st;
            open_session(paths[p], ways[w].threads, ways[w].rows, 0, &m, &s);
            if (w == 2) { /* a cache that shares a beginning */
                generate(s, "床前明月光，黄河", 5, 9, &other, &st);
                qsi_str_release(&other.text);
            }
            generate(s, prompt, 42, 30, &r, &st);
            if (w == 2) assert_true(st.n_cached > 0);
            assert_int_equal(st.n_generated, r.n);
            if (w == 0) {
                first = r;
                close_session(&m, &s);
                continue;
            }
            assert_int_equal(r.n, first.n);
            assert_memory_equal(r.ids, first.ids, sizeof r.ids);
            assert_memory_equal(r.logprob, first.logprob, sizeof r.logprob);
            assert_int_equal(r.text.len, first.text.len);
            qsi_str_release(&r.text);
            generate(s, prompt, 43, 30, &other, &st); /* another seed, another text */
            assert_true(st.n_cached > 0);
            assert_true(memcmp(other.ids, first.ids, sizeof other.ids) != 0);
            qsi_str_release(&other.text);
            close_session(&m, &s);
        }
        qsi_str_release(&first.text);
    }
}

static void test_limits(void **state) {
    qs_model *m;
    qs_session *s;
    qs_gen_stats st;
    qs_err err;
    result r;
    qs_gen_opts o;
    int32_t ids[65] = { 5, 6, 7 }, bad[] = { 1, 100000, 2 };
    open_session(DENSE, 1, 0, 0, &m, &s);
    qs_gen_opts_init(&o, sizeof o, m);
    assert_int_equal(qs_generate_ids(s, ids, 65, &o, &st, &err), QS_E_LIMIT);
    assert_non_null(strstr(err.text, "65"));
    assert_int_equal(qs_generate_ids(s, bad, 3, &o, &st, &err), QS_E_ARG);
    assert_non_null(strstr(err.text, "100000"));
    assert_int_equal(qs_generate_ids(s, ids, 0, &o, &st, &err), QS_E_STATE);
    assert_int_equal(qs_generate(s, "ab\xff", 3, 0, &o, &st, &err), QS_E_FORMAT);
    assert_int_equal(err.offset, 2);
    /* this vocabulary has no tokens for it */
    assert_int_equal(qs_generate_fim(s, "a", 1, "b", 1, &o, &st, &err), QS_E_UNSUPPORTED);
    assert_non_null(strstr(err.text, "fill in the middle"));
    /* the whole context is used, and its end is told */
    o.ignore_end = 1;
    assert_int_equal(qs_generate_ids(s, ids, 3, &o, &st, &err), QS_OK);
    assert_int_equal(st.finish, QS_FINISH_CONTEXT);
    assert_int_equal(qs_session_n_ids(s), 64);
    assert_int_equal(st.n_generated, 61);
    assert_int_equal(qs_session_id(s, 1), 6);
    assert_int_equal(qs_session_id(s, 64), -1);
    generate(s, "moon", 1, 3, &r, &st);
    assert_int_equal(st.finish, QS_FINISH_LENGTH);
    qsi_str_release(&r.text);
    close_session(&m, &s);
}

static void test_bias(void **state) {
    qs_model *m;
    qs_session *s;
    qs_gen_stats st;
    qs_err err;
    qs_gen_opts o;
    int32_t prompt[] = { 9, 8, 7 };
    open_session(MOE, 1, 0, 0, &m, &s);
    qs_bias only[] = { { 77, 1000 } }, outside[] = { { 1 << 20, 1 } };
    qs_gen_opts_init(&o, sizeof o, m);
    o.repeat_penalty = 1;
    o.n_predict = 12;
    o.bias = only;
    o.n_bias = 1;
    assert_int_equal(qs_generate_ids(s, prompt, 3, &o, &st, &err), QS_OK);
    assert_int_equal(qs_session_n_ids(s), 15);
    for (int64_t i = 3; i < 15; i++) assert_int_equal(qs_session_id(s, i), 77);
    only[0].bias = -INFINITY;
    assert_int_equal(qs_generate_ids(s, prompt, 3, &o, &st, &err), QS_OK);
    for (int64_t i = 3; i < qs_session_n_ids(s); i++)
        assert_int_not_equal(qs_session_id(s, i), 77);
    o.bias = outside;
    assert_int_equal(qs_generate_ids(s, prompt, 3, &o, &st, &err), QS_E_ARG);
    close_session(&m, &s);
}

static void test_not_a_number(void **state) {
    qs_model *m;
    qs_session *s;
    qs_err err;
    int32_t ids[] = { 3, 4 };
    open_session(NOT_A_NUMBER, 1, 0, 0, &m, &s);
    assert_int_equal(qs_generate_ids(s, ids, 2, NULL, NULL, &err), QS_E_NUMERIC);
    assert_non_null(strstr(err.text, "layer 1"));
    close_session(&m, &s);
}

/* ---- scoring ---------------------------------------------------------------------------------- */

enum { N_SCORED = 40, TOP = 5 };
typedef struct scored {
    double logprob[N_SCORED];
    qs_logprob top[N_SCORED][TOP];
    int n, stop_at;
} scored;

static int keep_score(void *user, const qs_score_pos *p) {
    scored *c = user;
    assert_int_equal(p->pos, c->n);
    assert_int_equal(p->n_top, TOP);
    c->logprob[c->n] = p->logprob;
    memcpy(c->top[c->n], p->top, sizeof c->top[0]);
    return ++c->n == c->stop_at;
}

typedef struct whole {
    double *logprob; /* [n_vocab] of the next id */
} whole;

static int keep_all(void *user, const qs_token *t) {
    whole *w = user;
    for (int32_t i = 0; i < t->n_top; i++) w->logprob[t->top[i].id] = t->top[i].logprob;
    return 0;
}

/* Brute force: each prefix alone through a fresh session, the whole distribution that follows it. */
static void check_scores(const char *path, int threads) {
    qs_model *m;
    qs_session *s, *fresh;
    qs_err err;
    int32_t ids[N_SCORED];
    scored got = { 0 };
    open_session(path, threads, 0, 0, &m, &s);
    int32_t n_vocab = qs_model_n_vocab(m);
    whole w = { malloc((size_t)n_vocab * sizeof(double)) };
    for (int i = 0; i < N_SCORED; i++) ids[i] = (i * 37 + i * i * 11) % n_vocab;
    assert_int_equal(qs_score(s, ids, N_SCORED, TOP, keep_score, &got, &err), QS_OK);
    assert_int_equal(got.n, N_SCORED);
    assert_true(isnan(got.logprob[0]));
    for (int n = 1; n < N_SCORED; n++) {
        qs_gen_opts o;
        qs_gen_opts_init(&o, sizeof o, NULL);
        o.temp = 0;
        o.n_predict = 1;
        o.ignore_end = 1; /* so that there is a token to hear of */
        o.top_logprobs = n_vocab;
        o.on_token = keep_all;
        o.user = &w;
        assert_int_equal(qs_session_create(&fresh, m, NULL, &err), QS_OK);
        assert_int_equal(qs_generate_ids(fresh, ids, (size_t)n, &o, NULL, &err), QS_OK);
        qs_session_free(fresh);
        double sum = 0;
        for (int32_t i = 0; i < n_vocab; i++) sum += exp(w.logprob[i]);
        assert_true(fabs(sum - 1) < 1e-9);
        assert_true(got.logprob[n] == w.logprob[ids[n]]);
        int better[TOP] = { 0 };
        for (int k = 0; k < TOP; k++) {
            qs_logprob t = got.top[n - 1][k];
            assert_true(t.logprob == w.logprob[t.id]);
            for (int32_t i = 0; i < n_vocab; i++)
                better[k] += w.logprob[i] > t.logprob || (w.logprob[i] == t.logprob && i < t.id);
            assert_int_equal(better[k], k);
        }
    }
    free(w.logprob);
    close_session(&m, &s);
}

static void test_score_brute_force(void **state) {
    check_scores(MOE, 1);
    check_scores(DENSE, 2);
}

static void test_score_limits(void **state) {
    qs_model *m;
    qs_session *s;
    qs_err err;
    int32_t ids[65] = { 0 }, bad[] = { 1, 2, -1 };
    scored got = { .stop_at = 3 };
    open_session(DENSE, 1, 0, 0, &m, &s);
    assert_int_equal(qs_score(s, ids, 65, TOP, keep_score, &got, &err), QS_E_LIMIT);
    assert_int_equal(qs_score(s, bad, 3, TOP, keep_score, &got, &err), QS_E_ARG);
    assert_non_null(strstr(err.text, "position 2"));
    assert_int_equal(got.n, 0);
    assert_int_equal(qs_score(s, ids, 40, TOP, keep_score, &got, &err), QS_E_CANCELLED);
    assert_int_equal(got.n, 3);
    close_session(&m, &s);
}

/* ---- drafts ----------------------------------------------------------------------------------- */

/* What a session with drafts and one without give after the same prompt: ids and log-probabilities to
 * the last bit, until the context is full. */
static void same_with_drafts(qs_session *a, qs_session *b, const char *prompt, int64_t seed,
                             int64_t n) {
    result x = { 0 }, y = { 0 };
    int64_t came = -1;
    qs_gen_stats st;
    generate(a, prompt, seed, n, &x, &st);
    generate(b, prompt, seed, n, &y, &st);
    assert_int_equal(qs_session_drafts(a, &came), 0);
    assert_int_equal(came, 0);
    int64_t drafts = qs_session_drafts(b, &came);
    assert_true(drafts > 0 && came <= drafts);
    assert_int_equal(x.n, y.n);
    assert_memory_equal(x.ids, y.ids, (size_t)x.n * sizeof *x.ids);
    assert_memory_equal(x.logprob, y.logprob, (size_t)x.n * sizeof *x.logprob);
    qsi_str_release(&x.text);
    qsi_str_release(&y.text);
}

static void test_drafts(void **state) {
    qs_model *m, *n;
    qs_session *a, *b;
    int64_t came = 0, all = 0;
    open_session_mtp(MTP, 1, 0, 250, false, &m, &a);
    open_session_mtp(MTP, 2, 5, 250, true, &n, &b);
    for (int i = 0; i < 6; i++) {
        /* a beginning is shared with what was there before */
        same_with_drafts(a, b, i % 2 ? "the same beginning, and then" : "the same", i % 3 ? i : -1,
                         i == 5 ? 300 : 60);
        int64_t c;
        all += qs_session_drafts(b, &c);
        came += c;
    }
    /* both happen, or nothing was shown */
    assert_true(came > all / 10 && came < all);
    close_session(&m, &a);
    close_session(&n, &b);
    /* without such a layer nothing is drafted */
    open_session_mtp(MOE, 1, 0, 100, true, &m, &a);
    result x = { 0 };
    qs_gen_stats st;
    generate(a, "the same", 1, 20, &x, &st);
    assert_int_equal(qs_session_drafts(a, NULL), 0);
    qsi_str_release(&x.text);
    close_session(&m, &a);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_answer),  cmocka_unit_test(test_limits),
        cmocka_unit_test(test_bias),         cmocka_unit_test(test_not_a_number),
        cmocka_unit_test(test_score_brute_force),
        cmocka_unit_test(test_drafts),
        cmocka_unit_test(test_score_limits),
    };
    return cmocka_run_group_tests(tests, write_models, tmp_leave);
}
