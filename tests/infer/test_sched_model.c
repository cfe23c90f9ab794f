/* infer/sched on real models (dense, DeepSeekMoE, latent attention, with MTP): the same ids, and
 * the same bits of every log-probability, alone, in a crowd, in any chunks, on one thread or two,
 * from a fresh cache or a used one, with drafts and without, after giving way. */
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
#include "base/hash.h"
#include "base/mem.h"
#include "infer/engine.h"
#include "infer/sched.h"
#include "sys/thread.h"
#include "tiny_model.h"

#define MODEL "sched_model.gguf"
enum { JOBS = 10, MOST = 200, LONG = 95 };

typedef struct answer {
    qsi_monitor *m;
    qsi_ids ids;
    double logprob[MOST], echo[MOST];
    float *embedding;
    int n_embedding, n_end, n_echo;
    qs_status status;
    qsi_usage usage;
} answer;

typedef struct bench {
    qsi_gguf *g;
    qsi_vocab *vocab;
    qsi_pool *pool;
    qsi_model *m;
    qsi_model_runner r, small; /* the second has a cache of its own: the model drafts for itself */
    qsi_sched *s;
} bench;

static void set_up(bench *b, const tiny_model_opts *o, int threads, int rows, int64_t pages,
                   int32_t seqs, qsi_speculate speculate) {
    qs_err err;
    *b = (bench){ 0 };
    assert_int_equal(qsi_gguf_open(&b->g, MODEL, &err), QS_OK);
    assert_int_equal(qsi_vocab_load_gguf(&b->vocab, b->g, &err), QS_OK);
    assert_int_equal(qsi_pool_create(&b->pool, threads, &err), QS_OK);
    qsi_model_opts mo = { .pool = b->pool, .isa = qsi_cpu_isa(), .max_rows = rows, .mtp = o->mtp };
    assert_int_equal(qsi_model_open(&b->m, b->g, &mo, &err), QS_OK);
    assert_int_equal(qsi_model_runner_init_pages(&b->r, b->m, 256, QSI_F16, pages, &err), QS_OK);
    assert_int_equal(qsi_model_runner_init_pages(&b->small, b->m, 256, QSI_F16, 40, &err), QS_OK);
    qsi_sched_opts so = { .runner = &b->r.runner, .vocab = b->vocab, .max_seqs = seqs, .max_queue = 100,
                          .exact_cache = true, .speculate = speculate,
                          .draft = speculate && !o->mtp ? &b->small.runner : NULL };
    assert_int_equal(qsi_sched_create(&b->s, &so, &err), QS_OK);
}

static void tear_down(bench *b) {
    qsi_sched_free(b->s);
    assert_int_equal(qsi_kv_n_free(b->r.kv), qsi_kv_n_pages(b->r.kv));
    qsi_model_runner_release(&b->r);
    qsi_model_runner_release(&b->small);
    qsi_model_close(&b->m);
    qsi_pool_free(b->pool);
    qsi_vocab_free(b->vocab);
    qsi_gguf_close(&b->g);
}

static int hear(void *user, const qsi_event *e) {
    answer *a = user;
    if (e->kind == QSI_EV_TOKEN && a->ids.len < MOST) {
        a->logprob[a->ids.len] = e->logprob;
        assert_int_equal(qsi_ids_push(&a->ids, e->id), QS_OK);
    }
    if (e->kind == QSI_EV_ECHO && a->n_echo < MOST) a->echo[a->n_echo++] = e->logprob;
    if (e->kind == QSI_EV_EMBEDDING) {
        a->embedding = malloc((size_t)e->n_embedding * sizeof(float));
        memcpy(a->embedding, e->embedding, (size_t)e->n_embedding * sizeof(float));
        a->n_embedding = e->n_embedding;
    }
    if (e->kind == QSI_EV_END) {
        qsi_monitor_lock(a->m);
        a->n_end++;
        a->status = e->status;
        a->usage = *e->usage;
        qsi_monitor_wake(a->m);
        qsi_monitor_unlock(a->m);
    }
    return 0;
}

/* Prompts of many lengths; even ones begin alike, the fourth repeats itself. */
static size_t prompt(int i, int32_t n_vocab, int32_t ids[MOST]) {
    qsi_rng rng, same;
    size_t n = (size_t)(1 + i * 37 % 150);
    qsi_rng_init(&rng, (uint64_t)i + 100);
    qsi_rng_init(&same, 1);
    for (size_t k = 0; k < n; k++) {
        uint64_t x = i % 2 == 0 && k < 70 ? qsi_rng_u64(&same) : qsi_rng_u64(&rng);
        ids[k] = (int32_t)(x % (uint64_t)n_vocab);
        if (i == 4 && k >= 12) ids[k] = ids[k - 12];
    }
    return n;
}

static void submit(bench *b, int i, answer *a) {
    static int32_t ids[MOST];
    qsi_job_opts o;
    qsi_job *job;
    qs_err err = { 0 };
    qsi_job_opts_init(&o);
    memset(a, 0, sizeof *a);
    assert_int_equal(qsi_monitor_create(&a->m, NULL), QS_OK);
    o.ids = ids;
    o.n_ids = prompt(i, b->r.runner.n_vocab, ids);
    o.n_predict = LONG;
    o.ignore_end = true;
    o.logprobs = true;
    o.sampling.temp = i % 2 ? 0.8 : 0;
    o.seed = (uint64_t)i;
    o.echo = i == 3;
    o.embed = i == 5;
    o.on_event = hear;
    o.user = a;
    if (qsi_sched_submit(b->s, &o, &job, &err) != QS_OK) fail_msg("%s", err.text);
    qsi_job_release(job);
}

static void finish(answer *a) {
    qsi_monitor_lock(a->m);
    while (a->n_end == 0) qsi_monitor_wait(a->m, 0);
    qsi_monitor_unlock(a->m);
    assert_int_equal(a->status, QS_OK);
}

static void release(answer *a) {
    qsi_ids_release(&a->ids);
    qsi_monitor_free(a->m);
    free(a->embedding);
}

static void check_same(int i, const answer *a, const answer *b) {
    if (i == 5) {
        assert_true(a->n_embedding > 0);
        assert_int_equal(a->n_embedding, b->n_embedding);
        assert_memory_equal(a->embedding, b->embedding, (size_t)a->n_embedding * sizeof(float));
        return;
    }
    assert_int_equal(a->ids.len, LONG);
    assert_int_equal(a->ids.len, b->ids.len);
    assert_memory_equal(a->ids.data, b->ids.data, a->ids.len * sizeof(int32_t));
    assert_memory_equal(a->logprob, b->logprob, a->ids.len * sizeof(double));
    assert_int_equal(a->n_echo, b->n_echo);
    for (int k = 1; k < a->n_echo; k++) assert_true(a->echo[k] == b->echo[k]);
}

/* All jobs at once, twice in a row (the second time from what the first left), against `want`. */
static void crowd(const tiny_model_opts *o, int threads, int rows, int64_t pages, int32_t seqs,
                  qsi_speculate speculate, const answer *want, qsi_sched_stats *stats) {
    bench b;
    answer got[JOBS];
    set_up(&b, o, threads, rows, pages, seqs, speculate);
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < JOBS; i++) submit(&b, i, &got[i]);
        for (int i = 0; i < JOBS; i++) finish(&got[i]);
        for (int i = 0; i < JOBS; i++) check_same(i, &got[i], &want[i]);
        for (int i = 0; i < JOBS; i++) release(&got[i]);
    }
    assert_true(qsi_sched_drain(b.s, 0));
    qsi_sched_stats_get(b.s, stats);
    tear_down(&b);
}

static void check_model(const tiny_model_opts *o) {
    bench b;
    answer want[JOBS];
    qsi_sched_stats st;
    qs_err err;
    assert_int_equal(tiny_model_write(MODEL, o, &err), QS_OK);
    for (int i = 0; i < JOBS; i++) { /* each alone, nothing before it, big chunks, one thread */
        set_up(&b, o, 1, 256, 40, 1, QSI_SPECULATE_NEVER);
        submit(&b, i, &want[i]);
        finish(&want[i]);
        assert_int_equal(want[i].usage.n_cached, 0);
        tear_down(&b);
    }
    crowd(o, 2, 256, 60, 8, QSI_SPECULATE_NEVER, want, &st);
    assert_true(st.n_cached > 300);
    crowd(o, 1, 11, 60, 5, QSI_SPECULATE_PAYING, want, &st);
    crowd(o, 2, 64, 60, 4, QSI_SPECULATE_ALWAYS, want, &st);
    assert_true(st.n_drafts > 0 && st.n_hits > 0);
    crowd(o, 2, 64, 5, 4, QSI_SPECULATE_ALWAYS, want, &st);
    assert_true(st.n_preempted > 0);
    for (int i = 0; i < JOBS; i++) release(&want[i]);
    unlink(MODEL);
}

static void test_dense(void **state) {
    (void)state;
    check_model(&(tiny_model_opts){ .arch = QSI_ARCH_LLAMA, .type = QSI_Q8_0, .seed = 3 });
}

static void test_moe(void **state) {
    (void)state;
    check_model(&(tiny_model_opts){ .arch = QSI_ARCH_DEEPSEEK, .type = QSI_F32, .seed = 3 });
}

static void test_latent(void **state) {
    (void)state;
    check_model(&(tiny_model_opts){ .arch = QSI_ARCH_DEEPSEEK2, .type = QSI_Q8_0, .seed = 3 });
}

static void test_mtp(void **state) {
    (void)state;
    check_model(&(tiny_model_opts){ .arch = QSI_ARCH_DEEPSEEK2, .type = QSI_F32, .seed = 3,
                                    .mtp = true });
}

int main(void) {
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_dense), cmocka_unit_test(test_moe),
                                        cmocka_unit_test(test_latent), cmocka_unit_test(test_mtp) };
    return cmocka_run_group_tests(tests, tmp_enter, tmp_leave);
}
