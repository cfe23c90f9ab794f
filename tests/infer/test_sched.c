/* infer/sched on a scripted model: every answer is that of a run alone, whoever runs beside it,
 * whatever was cached, gave way or was drafted; cancelling, order, limits, forks, echoes, the
 * cache on disk. */
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
#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"
#include "fake_model.h"
#include "moon_vocab.h"
#include "infer/generate.h"
#include "infer/grammar.h"
#include "infer/sched.h"
#include "sys/file.h"
#include "sys/thread.h"


/* What became of a job. */
typedef struct heard {
    qsi_monitor *m;
    qsi_str text[8];
    qsi_ids ids[8];
    qsi_job_finish finish[8];
    int n_finish, n_end, n_echo, n_start;
    qs_status status;
    qsi_usage usage;
    double echo_sum;
    int32_t cancel_after;      /* ids; 0: never */
    qsi_job *job;
    int64_t order;             /* of its end */
    int64_t prompt_done;
} heard;

static atomic_int ends;

static int hear(void *user, const qsi_event *e) {
    heard *h = user;
    int stop = 0;
    qsi_monitor_lock(h->m);
    assert_int_equal(h->n_end, 0);
    switch (e->kind) {
    case QSI_EV_START: h->n_start++; break;
    case QSI_EV_PROMPT: h->prompt_done = e->n_done; break;
    case QSI_EV_ECHO:
        assert_int_equal(e->pos, h->n_echo++);
        if (e->pos > 0) h->echo_sum += e->logprob;
        else assert_true(isnan(e->logprob));
        break;
    case QSI_EV_TOKEN:
        assert_int_equal(qsi_ids_push(&h->ids[e->index], e->id), QS_OK);
        stop = h->cancel_after > 0 && (int32_t)h->ids[0].len >= h->cancel_after;
        break;
    case QSI_EV_PART:
        assert_int_equal(qsi_str_append(&h->text[e->index], e->text, e->n_text), QS_OK);
        break;
    case QSI_EV_FINISH:
        h->finish[e->index] = e->finish;
        h->n_finish++;
        break;
    case QSI_EV_EMBEDDING: break;
    case QSI_EV_END:
        h->n_end++;
        h->status = e->status;
        h->usage = *e->usage;
        h->order = atomic_fetch_add(&ends, 1);
        qsi_monitor_wake(h->m);
        break;
    }
    qsi_monitor_unlock(h->m);
    return stop;
}

static void heard_init(heard *h) {
    memset(h, 0, sizeof *h);
    assert_int_equal(qsi_monitor_create(&h->m, NULL), QS_OK);
}

static void heard_release(heard *h) {
    for (int i = 0; i < 8; i++) {
        qsi_str_release(&h->text[i]);
        qsi_ids_release(&h->ids[i]);
    }
    qsi_job_release(h->job);
    qsi_monitor_free(h->m);
}

static void wait_end(heard *h) {
    qsi_monitor_lock(h->m);
    while (h->n_end == 0) qsi_monitor_wait(h->m, 0);
    qsi_monitor_unlock(h->m);
}

typedef struct bench {
    fake_model f;
    qsi_sched *s;
} bench;

static const qsi_runner *small; /* of the model that drafts in what begins next */

static qsi_token_trie *trie;

static qsi_sched_opts opts_of(bench *b, int32_t seqs) {
    return (qsi_sched_opts){ .runner = &b->f.runner, .vocab = vocab, .max_seqs = seqs,
                             .max_queue = 1000, .draft = small, .trie = trie };
}

static void begin(bench *b, int32_t rows, int32_t pages, int32_t seqs, qsi_speculate speculate) {
    fake_model_init(&b->f, qsi_vocab_size(vocab), rows, 512, pages);
    qsi_sched_opts o = opts_of(b, seqs);
    o.speculate = speculate;
    assert_int_equal(qsi_sched_create(&b->s, &o, NULL), QS_OK);
}

static void end(bench *b) {
    qsi_sched_free(b->s);
    assert_int_equal(b->f.pages_used, 0);
    assert_int_equal(b->f.n_shared_writes, 0);
    fake_model_release(&b->f);
}

static qsi_job_opts job_of(heard *h, const int32_t *ids, size_t n) {
    qsi_job_opts o;
    qsi_job_opts_init(&o);
    o.ids = ids;
    o.n_ids = n;
    o.n_predict = 20;
    o.logprobs = true;
    o.seed = 5;
    o.on_event = hear;
    o.user = h;
    return o;
}

/* The answer of a run alone, in an engine of its own with room enough. */
static void alone(const qsi_job_opts *o, int32_t index, qsi_ids *ids) {
    fake_model f;
    qsi_engine *e;
    qsi_seq s;
    qsi_gen g;
    qsi_sampler *sm;
    qsi_rng rng;
    qsi_gen_opts go = { .sampling = o->sampling, .n_predict = o->n_predict, .stops = o->stops,
                        .n_stops = o->n_stops, .n_min = o->n_min };
    fake_model_init(&f, qsi_vocab_size(vocab), 64, 512, 8);
    assert_int_equal(qsi_engine_create(&e, &f.runner, 1, NULL), QS_OK);
    assert_int_equal(qsi_seq_init(&s, e, NULL), QS_OK);
    assert_int_equal(qsi_sampler_create(&sm, f.runner.n_vocab, NULL), QS_OK);
    qsi_rng_init(&rng, qsi_job_seed(o->seed, index));
    assert_int_equal(qsi_seq_push(&s, o->ids, o->n_ids, NULL), QS_OK);
    assert_int_equal(qsi_gen_init(&g, &go, &s, sm, vocab, &rng, NULL), QS_OK);
    assert_int_equal(qsi_gen_run(&g, NULL, NULL, NULL), QS_OK);
    for (size_t i = o->n_ids; i < s.n_ids; i++) assert_int_equal(qsi_ids_push(ids, s.ids[i]), QS_OK);
    qsi_gen_release(&g);
    qsi_seq_release(&s);
    qsi_engine_free(e);
    qsi_sampler_free(sm);
    fake_model_release(&f);
}

static void check(const qsi_job_opts *o, const heard *h) {
    assert_int_equal(h->status, QS_OK);
    assert_int_equal(h->n_finish, o->n);
    for (int32_t i = 0; i < o->n; i++) {
        qsi_ids want = { 0 };
        alone(o, i, &want);
        assert_int_equal(h->ids[i].len, want.len);
        if (want.len > 0) assert_memory_equal(h->ids[i].data, want.data, want.len * sizeof(int32_t));
        qsi_ids_release(&want);
    }
}

/* Prompts that share beginnings, of all lengths; some repeat themselves, for drafts. */
static void fill(int32_t *ids, size_t n, qsi_rng *rng) {
    qsi_rng r;
    qsi_rng_init(&r, qsi_rng_below(rng, 4));
    size_t part = qsi_rng_below(rng, n + 1);
    for (size_t i = 0; i < n; i++) ids[i] = 3 + (int32_t)qsi_rng_below(i < part ? &r : rng, 60);
}

static int32_t always_nine(void *user, const int32_t *ids, int32_t n) {
    (void)user, (void)ids, (void)n;
    return 9;
}

enum { JOBS = 60 };

static void crowd(int32_t rows, int32_t pages, int32_t seqs, qsi_speculate speculate) {
    static int32_t ids[JOBS][300];
    static heard h[JOBS];
    static qsi_job_opts o[JOBS];
    bench b;
    qsi_rng rng;
    qsi_rng_init(&rng, (uint64_t)(rows * 1000 + pages));
    begin(&b, rows, pages, seqs, speculate);
    for (int i = 0; i < JOBS; i++) {
        size_t n = 1 + qsi_rng_below(&rng, 300);
        fill(ids[i], n, &rng);
        heard_init(&h[i]);
        o[i] = job_of(&h[i], ids[i], n);
        o[i].seed = (uint64_t)i;
        o[i].n_predict = (int64_t)qsi_rng_below(&rng, 60);
        o[i].sampling.temp = i % 3 ? 0.7 : 0;
        o[i].n = o[i].best_of = i % 5 == 0 ? 3 : 1;
        o[i].client = (uint64_t)i % 4;
        o[i].priority = i % 7 == 0;
        o[i].no_cache = i % 11 == 0;
        o[i].n_min = 2;
        h[i].cancel_after = i % 13 == 5 ? 3 : 0;
        assert_int_equal(qsi_sched_submit(b.s, &o[i], &h[i].job, NULL), QS_OK);
        if (i % 9 == 4) qsi_job_cancel(h[i].job);
    }
    for (int i = 0; i < JOBS; i++) {
        wait_end(&h[i]);
        if (h[i].status != QS_E_CANCELLED) check(&o[i], &h[i]);
        else assert_true(i % 9 == 4 || i % 13 == 5);
    }
    qsi_sched_stats st;
    assert_true(qsi_sched_drain(b.s, 0));
    qsi_sched_stats_get(b.s, &st);
    assert_int_equal(st.n_jobs, JOBS);
    assert_true(st.n_cached > 0);
    if (pages < 20) assert_true(st.n_preempted > 0);
    if (speculate == QSI_SPECULATE_ALWAYS) assert_true(st.n_drafts > 0);
    for (int i = 0; i < JOBS; i++) heard_release(&h[i]);
    end(&b);
}

static void test_crowd(void **state) {
    (void)state;
    crowd(64, 200, 8, QSI_SPECULATE_NEVER);
    crowd(512, 400, 32, QSI_SPECULATE_NEVER);
    crowd(17, 60, 5, QSI_SPECULATE_NEVER);
}

static void test_little_room(void **state) {
    (void)state;
    crowd(64, 12, 8, QSI_SPECULATE_NEVER);
    crowd(256, 9, 6, QSI_SPECULATE_ALWAYS);
}

static void test_drafts(void **state) {
    (void)state;
    crowd(64, 200, 8, QSI_SPECULATE_ALWAYS);
    crowd(128, 100, 3, QSI_SPECULATE_ALWAYS);
}

/* A small model that always knows, and one that never does: the same answers; and one that has too
 * few pages, so that it stops knowing. */
static void test_small_model(void **state) {
    fake_model f;
    (void)state;
    for (int kind = 0; kind < 3; kind++) {
        fake_model_init(&f, qsi_vocab_size(vocab), 40, 512, kind == 2 ? 3 : 100);
        if (kind == 1) f.next = always_nine;
        small = &f.runner;
        crowd(64, 200, 8, kind ? QSI_SPECULATE_ALWAYS : QSI_SPECULATE_PAYING);
        if (kind) assert_true(f.n_steps > 0);
        assert_int_equal(f.pages_used, 0);
        fake_model_release(&f);
    }
    small = NULL;
}

/* Echoes: log-probabilities of every id of the prompt, as many as there are. */
static void test_echo(void **state) {
    int32_t ids[100];
    heard h;
    bench b;
    qsi_rng rng;
    (void)state;
    qsi_rng_init(&rng, 3);
    fill(ids, 100, &rng);
    begin(&b, 40, 20, 3, QSI_SPECULATE_NEVER);
    double want = 0;
    float *logits = malloc((size_t)qsi_vocab_size(vocab) * sizeof *logits);
    for (int i = 1; i < 100; i++) {
        fake_logits(&b.f, ids, i, logits);
        want += qsi_logprob_of(logits, qsi_vocab_size(vocab), ids[i]);
    }
    free(logits);
    for (int k = 0; k < 2; k++) {
        heard_init(&h);
        qsi_job_opts o = job_of(&h, ids, 100);
        o.echo = true;
        o.n_predict = k * 5;
        assert_int_equal(qsi_sched_submit(b.s, &o, &h.job, NULL), QS_OK);
        wait_end(&h);
        assert_int_equal(h.n_echo, 100);
        assert_true(h.echo_sum == want);
        check(&o, &h);
        heard_release(&h);
    }
    end(&b);
}

/* Answers that keep to a grammar, drafts or not, several at once; a wish for what cannot be. */
static void test_grammar(void **state) {
    int32_t ids[20];
    qsi_rng rng;
    (void)state;
    qsi_rng_init(&rng, 9);
    fill(ids, 20, &rng);
    for (int k = 0; k < 2; k++) {
        heard h[4];
        bench b;
        qsi_grammar *g[2] = { NULL, NULL };
        const char *const list[] = { "round", "bright", "\xe6\x9c\x88\xe5\x85\x89" };
        assert_int_equal(qsi_grammar_from_regex(&g[0], "[a-c]{3}-\\d+x", 13, NULL, NULL), QS_OK);
        assert_int_equal(qsi_grammar_from_choices(&g[1], list, 3, NULL, NULL), QS_OK);
        begin(&b, 40, 40, 4, k ? QSI_SPECULATE_ALWAYS : QSI_SPECULATE_NEVER);
        for (int i = 0; i < 4; i++) {
            heard_init(&h[i]);
            qsi_job_opts o = job_of(&h[i], ids, 20);
            o.grammar = i < 3 ? g[i % 2] : NULL;
            o.seed = (uint64_t)i;
            o.n_predict = 300;
            assert_int_equal(qsi_sched_submit(b.s, &o, &h[i].job, NULL), QS_OK);
        }
        qsi_grammar_release(g[0]);
        qsi_grammar_release(g[1]);
        for (int i = 0; i < 4; i++) wait_end(&h[i]);
        for (int i = 0; i < 4; i++) assert_int_equal(h[i].status, QS_OK);
        for (int i = 0; i < 3; i += 2) {
            const char *t = h[i].text[0].data;
            size_t n = h[i].text[0].len;
            assert_int_equal(h[i].finish[0], QSI_JOB_END);
            assert_true(n >= 6 && t[3] == '-' && t[n - 1] == 'x');
            for (int c = 0; c < 3; c++) assert_true(t[c] >= 'a' && t[c] <= 'c');
            for (size_t c = 4; c < n - 1; c++) assert_true(t[c] >= '0' && t[c] <= '9');
        }
        bool one = false;
        for (int i = 0; i < 3; i++) one |= strcmp(h[1].text[0].data, list[i]) == 0;
        assert_true(one);
        for (int i = 0; i < 4; i++) heard_release(&h[i]);
        end(&b);
    }
}

/* Of four answers the two likeliest, best first. */
static void test_best(void **state) {
    int32_t ids[20];
    heard h, all;
    bench b;
    qsi_rng rng;
    (void)state;
    qsi_rng_init(&rng, 4);
    fill(ids, 20, &rng);
    begin(&b, 40, 20, 3, QSI_SPECULATE_NEVER);
    heard_init(&h);
    heard_init(&all);
    qsi_job_opts o = job_of(&h, ids, 20);
    o.best_of = 4;
    o.n = 2;
    assert_int_equal(qsi_sched_submit(b.s, &o, &h.job, NULL), QS_OK);
    wait_end(&h);
    o.n = 4;
    o.user = &all;
    assert_int_equal(qsi_sched_submit(b.s, &o, &all.job, NULL), QS_OK);
    wait_end(&all);
    assert_int_equal(h.n_finish, 2);
    assert_int_equal(all.n_finish, 4);
    assert_int_equal(h.usage.n_generated, all.usage.n_generated);
    bool found = false;
    for (int i = 0; i < 4; i++)
        found |= all.ids[i].len == h.ids[0].len &&
                 memcmp(all.ids[i].data, h.ids[0].data, h.ids[0].len * sizeof(int32_t)) == 0;
    assert_true(found);
    heard_release(&h);
    heard_release(&all);
    end(&b);
}

/* Who asks for too much, or the impossible, hears so at once. */
static void test_limits(void **state) {
    int32_t ids[600] = { 0 };
    heard h;
    bench b;
    qsi_job *job = NULL;
    (void)state;
    begin(&b, 40, 5, 3, QSI_SPECULATE_NEVER);
    heard_init(&h);
    qsi_job_opts o = job_of(&h, ids, 0);
    assert_int_equal(qsi_sched_submit(b.s, &o, &job, NULL), QS_E_ARG);
    o.n_ids = 600;
    assert_int_equal(qsi_sched_submit(b.s, &o, &job, NULL), QS_E_LIMIT);
    o.n_ids = 400; /* the context would take it, the cache does not */
    assert_int_equal(qsi_sched_submit(b.s, &o, &job, NULL), QS_E_LIMIT);
    o.n_ids = 10;
    o.n_predict = 400;
    assert_int_equal(qsi_sched_submit(b.s, &o, &job, NULL), QS_E_LIMIT);
    o.n_predict = 5;
    ids[4] = -1;
    assert_int_equal(qsi_sched_submit(b.s, &o, &job, NULL), QS_E_ARG);
    ids[4] = 0;
    o.best_of = 0;
    assert_int_equal(qsi_sched_submit(b.s, &o, &job, NULL), QS_E_ARG);
    o.best_of = 1;
    o.sampling.temp = NAN;
    assert_int_equal(qsi_sched_submit(b.s, &o, &job, NULL), QS_E_ARG);
    o.sampling.temp = 0;
    o.embed = true; /* the scripted model gives no states */
    assert_int_equal(qsi_sched_submit(b.s, &o, &job, NULL), QS_E_ARG);
    o.embed = false;
    qsi_forecast fc;
    qsi_sched_forecast(b.s, 10, 400, 1, &fc);
    assert_false(fc.fits);
    qsi_sched_forecast(b.s, 10, 5, 1, &fc);
    assert_true(fc.fits && fc.room && fc.ahead == 0);
    assert_int_equal(h.n_end, 0);
    assert_true(qsi_sched_drain(b.s, 0));
    assert_int_equal(qsi_sched_submit(b.s, &o, &job, NULL), QS_E_STATE);
    heard_release(&h);
    end(&b);
}

/* A step that fails ends the jobs that are to blame, and nobody else's. */
static int32_t never[] = { 9, 9, 9 };
static qs_status (*sound_step)(void *user, const qsi_step *s, qs_err *err);

static qs_status hostile_step(void *user, const qsi_step *s, qs_err *err) {
    for (int32_t i = 0; i < s->n_rows; i++)
        if (s->rows[i].id == never[0]) return qsi_err_set(err, QS_E_NUMERIC, "a NaN");
    return sound_step(user, s, err);
}

static void test_blame(void **state) {
    int32_t ids[6][30];
    heard h[6];
    qsi_job_opts o[6];
    bench b;
    (void)state;
    fake_model_init(&b.f, qsi_vocab_size(vocab), 64, 512, 60);
    sound_step = b.f.runner.step;
    b.f.runner.step = hostile_step;
    qsi_sched_opts so = opts_of(&b, 6);
    assert_int_equal(qsi_sched_create(&b.s, &so, NULL), QS_OK);
    for (int i = 0; i < 6; i++) {
        for (int k = 0; k < 30; k++) ids[i][k] = 20 + i + k;
        if (i == 3) ids[i][20] = never[0];
        heard_init(&h[i]);
        o[i] = job_of(&h[i], ids[i], 30);
        qsi_logit_bias no = { never[0], -INFINITY };
        o[i].sampling.bias = &no;
        o[i].sampling.n_bias = 1;
        assert_int_equal(qsi_sched_submit(b.s, &o[i], &h[i].job, NULL), QS_OK);
    }
    for (int i = 0; i < 6; i++) {
        wait_end(&h[i]);
        assert_int_equal(h[i].status, i == 3 ? QS_E_NUMERIC : QS_OK);
        assert_int_equal(h[i].n_finish, i != 3);
        heard_release(&h[i]);
    }
    end(&b);
}

/* Steps from the n-th on wait until the gate is open. */
static atomic_bool gate;
static int gate_from;

static qs_status gated_step(void *user, const qsi_step *s, qs_err *err) {
    const fake_model *f = user;
    while (f->n_steps >= gate_from && !atomic_load(&gate)) { }
    return sound_step(user, s, err);
}

static void begin_gated(bench *b, int32_t rows, int32_t seqs, int from) {
    fake_model_init(&b->f, qsi_vocab_size(vocab), rows, 512, 100);
    sound_step = b->f.runner.step;
    b->f.runner.step = gated_step;
    qsi_sched_opts so = opts_of(b, seqs);
    atomic_store(&gate, false);
    gate_from = from;
    assert_int_equal(qsi_sched_create(&b->s, &so, NULL), QS_OK);
}

/* A long beginning is computed once, though four ask for it at the same time. */
static void test_shared_beginning(void **state) {
    int32_t ids[4][400];
    heard h[4];
    bench b;
    (void)state;
    begin_gated(&b, 32, 4, 0); /* all four are there before the first step */
    for (int i = 0; i < 4; i++) {
        for (int k = 0; k < 400; k++) ids[i][k] = 3 + (k < 384 ? k : k + i * 7) % 50;
        heard_init(&h[i]);
        qsi_job_opts o = job_of(&h[i], ids[i], 400);
        o.n_predict = 1;
        assert_int_equal(qsi_sched_submit(b.s, &o, &h[i].job, NULL), QS_OK);
    }
    atomic_store(&gate, true);
    for (int i = 0; i < 4; i++) wait_end(&h[i]);
    assert_true(b.f.n_rows <= 400 + 3 * 80);
    /* whoever waited for another's pages says that it did not compute them */
    int64_t cached = 0;
    for (int i = 0; i < 4; i++) cached += h[i].usage.n_cached;
    assert_int_equal(b.f.n_rows, 4 * 400 - cached);
    assert_true(cached >= 3 * 320);
    for (int i = 0; i < 4; i++) heard_release(&h[i]);
    /* the next turn costs what is new in it */
    int rows = b.f.n_rows;
    heard_init(&h[0]);
    qsi_job_opts o = job_of(&h[0], ids[0], 390);
    o.n_predict = 1;
    assert_int_equal(qsi_sched_submit(b.s, &o, &h[0].job, NULL), QS_OK);
    wait_end(&h[0]);
    assert_int_equal(b.f.n_rows - rows, 1);
    assert_int_equal(h[0].usage.n_cached, 389);
    heard_release(&h[0]);
    end(&b);
}

/* Priorities, and clients that share alike: one with many jobs does not hold up one with few. */
static void test_order(void **state) {
    int32_t ids[200];
    heard h[12];
    bench b;
    (void)state;
    for (int i = 0; i < 200; i++) ids[i] = 3 + i % 40;
    begin_gated(&b, 16, 1, 0);
    for (int i = 0; i < 12; i++) {
        heard_init(&h[i]);
        qsi_job_opts o = job_of(&h[i], ids + i, 150);
        o.n_predict = 2;
        o.n_min = 2;
        o.client = i < 10 ? 1 : 2;
        o.priority = i == 9;
        assert_int_equal(qsi_sched_submit(b.s, &o, &h[i].job, NULL), QS_OK);
    }
    atomic_store(&gate, true);
    for (int i = 0; i < 12; i++) wait_end(&h[i]);
    assert_true(h[9].order < h[8].order);  /* it matters more */
    assert_true(h[11].order < h[8].order); /* client 2 is served in turn with client 1 */
    for (int i = 0; i < 12; i++) heard_release(&h[i]);
    end(&b);
}

/* A job that is dropped in its long prompt ends within a step of it. */
static void test_cancel_prompt(void **state) {
    int32_t ids[500];
    heard h;
    bench b;
    (void)state;
    for (int i = 0; i < 500; i++) ids[i] = 3 + i % 40;
    begin_gated(&b, 1, 2, 10);
    heard_init(&h);
    qsi_job_opts o = job_of(&h, ids, 500);
    assert_int_equal(qsi_sched_submit(b.s, &o, &h.job, NULL), QS_OK);
    for (bool go = true; go;) {
        qsi_monitor_lock(h.m);
        go = h.prompt_done < 10;
        qsi_monitor_unlock(h.m);
    }
    qsi_job_cancel(h.job);
    atomic_store(&gate, true);
    wait_end(&h);
    assert_int_equal(h.status, QS_E_CANCELLED);
    assert_true(b.f.n_rows <= 11);
    heard_release(&h);
    end(&b);
}

/* What was computed is there after a restart. */
static void test_restart(void **state) {
    const char *path = "prompts.bin";
    int32_t ids[300];
    (void)state;
    for (int i = 0; i < 300; i++) ids[i] = 3 + i * i % 47;
    for (int k = 0; k < 2; k++) {
        bench b;
        heard h;
        fake_model_init(&b.f, qsi_vocab_size(vocab), 64, 512, 60);
        qsi_sched_opts so = opts_of(&b, 6);
        so.cache_path = path;
        so.cache_key = 77;
        so.cache_bytes = 1 << 20;
        assert_int_equal(qsi_sched_create(&b.s, &so, NULL), QS_OK);
        heard_init(&h);
        qsi_job_opts o = job_of(&h, ids, 300);
        assert_int_equal(qsi_sched_submit(b.s, &o, &h.job, NULL), QS_OK);
        wait_end(&h);
        assert_int_equal(h.usage.n_cached, k ? 299 : 0);
        check(&o, &h);
        heard_release(&h);
        end(&b);
    }
    unlink(path);
}

/* Freeing the scheduler ends what still runs or waits. */
static void test_end(void **state) {
    int32_t ids[300];
    heard h[5];
    bench b;
    (void)state;
    for (int i = 0; i < 300; i++) ids[i] = 3 + i % 41;
    begin_gated(&b, 1, 2, 20);
    for (int i = 0; i < 5; i++) {
        heard_init(&h[i]);
        qsi_job_opts o = job_of(&h[i], ids, 300);
        o.n_predict = 200;
        assert_int_equal(qsi_sched_submit(b.s, &o, &h[i].job, NULL), QS_OK);
    }
    assert_false(qsi_sched_drain(b.s, qsi_now_ns() + 1000000));
    atomic_store(&gate, true);
    end(&b);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(h[i].n_end, 1);
        assert_true(h[i].status == QS_E_CANCELLED || h[i].status == QS_OK);
        heard_release(&h[i]);
    }
}

static int make_both(void **state) {
    if (tmp_enter(state) != 0 || make_vocab(state) != 0) return -1;
    return qsi_token_trie_create(&trie, vocab, NULL) == QS_OK ? 0 : -1;
}

static int free_both(void **state) {
    qsi_token_trie_release(trie);
    return free_vocab(state) != 0 ? -1 : tmp_leave(state);
}

static void hush(void *user, qsi_log_level level, const char *text) {
    (void)user, (void)level, (void)text;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_crowd), cmocka_unit_test(test_little_room),
        cmocka_unit_test(test_drafts), cmocka_unit_test(test_small_model),
        cmocka_unit_test(test_shared_beginning),
        cmocka_unit_test(test_echo), cmocka_unit_test(test_best), cmocka_unit_test(test_grammar),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_blame), cmocka_unit_test(test_order),
        cmocka_unit_test(test_cancel_prompt), cmocka_unit_test(test_restart),
        cmocka_unit_test(test_end),
    };
    qsi_log_set(hush, NULL);
    return cmocka_run_group_tests(tests, make_both, free_both);
}
