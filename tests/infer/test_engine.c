/* infer/engine on a scripted model: chunks, several sequences, prefixes, limits, cancelling. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "base/hash.h"
#include "fake_model.h"

#define V 17

static void random_ids(qsi_rng *rng, int32_t *ids, size_t n) {
    for (size_t i = 0; i < n; i++) ids[i] = (int32_t)qsi_rng_below(rng, V);
}

static void check_logits(const fake_model *f, const qsi_seq *s, const int32_t *ids, size_t n) {
    float want[V];
    fake_logits(f, ids, (int32_t)n, want);
    assert_true(s->has_logits);
    assert_memory_equal(s->logits, want, sizeof want);
}

/* Any chunk size gives the logits of the whole prompt, in the least number of steps. */
static void test_chunks(void **state) {
    int32_t ids[200];
    qsi_rng rng;
    qsi_rng_init(&rng, 1);
    random_ids(&rng, ids, 200);
    for (int32_t rows = 1; rows <= 256; rows += 17) {
        fake_model f;
        qsi_engine *e;
        qsi_seq s;
        fake_model_init(&f, V, rows, 256, 4);
        assert_int_equal(qsi_engine_create(&e, &f.runner, 1, NULL), QS_OK);
        assert_int_equal(qsi_seq_init(&s, e, NULL), QS_OK);
        assert_int_equal(qsi_seq_push(&s, ids, 200, NULL), QS_OK);
        qsi_seq *list[] = { &s };
        assert_int_equal(qsi_engine_run(e, list, 1, NULL, NULL), QS_OK);
        check_logits(&f, &s, ids, 200);
        assert_int_equal(f.n_rows, 200);
        assert_int_equal(f.n_steps, (200 + rows - 1) / rows);
        assert_int_equal(f.pages_used, 4);
        qsi_seq_release(&s);
        assert_int_equal(f.pages_used, 0);
        qsi_engine_free(e);
        fake_model_release(&f);
    }
}

/* Generated ids are fed as such, also several at once; what is set anew is a prompt. */
static void test_generated(void **state) {
    int32_t ids[12];
    size_t kept = 0;
    qsi_rng rng;
    fake_model f;
    qsi_engine *e;
    qsi_seq s;
    qsi_rng_init(&rng, 4);
    random_ids(&rng, ids, 12);
    fake_model_init(&f, V, 4, 128, 4);
    assert_int_equal(qsi_engine_create(&e, &f.runner, 1, NULL), QS_OK);
    assert_int_equal(qsi_seq_init(&s, e, NULL), QS_OK);
    qsi_seq *list[] = { &s };
    assert_int_equal(qsi_seq_push(&s, ids, 7, NULL), QS_OK);
    assert_int_equal(qsi_engine_run(e, list, 1, NULL, NULL), QS_OK);
    assert_int_equal(f.n_generated, 0);
    for (int i = 7; i < 10; i++)
        assert_int_equal(qsi_seq_push_generated(&s, ids[i], NULL), QS_OK);
    assert_int_equal(qsi_seq_push(&s, ids + 10, 2, NULL), QS_OK);
    assert_int_equal(qsi_engine_run(e, list, 1, NULL, NULL), QS_OK);
    assert_int_equal(f.n_generated, 3);
    check_logits(&f, &s, ids, 12);
    ids[8] = (ids[8] + 1) % V;
    assert_int_equal(qsi_seq_set(&s, ids, 12, &kept, NULL), QS_OK);
    assert_int_equal(kept, 8);
    assert_int_equal(qsi_engine_run(e, list, 1, NULL, NULL), QS_OK);
    assert_int_equal(f.n_generated, 3);
    qsi_seq_release(&s);
    qsi_engine_free(e);
    fake_model_release(&f);
}

/* Sequences of different lengths in one run get what they get alone. */
static void test_batch(void **state) {
    int32_t ids[5][90];
    size_t len[5] = { 1, 90, 37, 64, 2 };
    qsi_rng rng;
    fake_model f;
    qsi_engine *e;
    qsi_seq s[5], *list[5];
    qsi_rng_init(&rng, 2);
    fake_model_init(&f, V, 23, 128, 10);
    assert_int_equal(qsi_engine_create(&e, &f.runner, 5, NULL), QS_OK);
    for (int i = 0; i < 5; i++) {
        random_ids(&rng, ids[i], 90);
        assert_int_equal(qsi_seq_init(&s[i], e, NULL), QS_OK);
        assert_int_equal(qsi_seq_push(&s[i], ids[i], len[i], NULL), QS_OK);
        list[i] = &s[i];
    }
    assert_int_equal(qsi_engine_run(e, list, 5, NULL, NULL), QS_OK);
    for (int i = 0; i < 5; i++) check_logits(&f, &s[i], ids[i], len[i]);
    /* a decode step of three of them; the others keep their logits */
    int before = f.n_steps;
    for (int i = 0; i < 5; i += 2) {
        ids[i][len[i]] = i;
        assert_int_equal(qsi_seq_push(&s[i], &ids[i][len[i]], 1, NULL), QS_OK);
        len[i]++;
    }
    assert_int_equal(qsi_engine_run(e, list, 5, NULL, NULL), QS_OK);
    assert_int_equal(f.n_steps, before + 1);
    for (int i = 0; i < 5; i++) check_logits(&f, &s[i], ids[i], len[i]);
    for (int i = 0; i < 5; i++) qsi_seq_release(&s[i]);
    assert_int_equal(f.pages_used, 0);
    qsi_engine_free(e);
    fake_model_release(&f);
}

/* Whatever was in a sequence before, setting it gives the logits of a fresh one; only what differs
 * is fed. */
static void test_prefix(void **state) {
    qsi_rng rng;
    fake_model f;
    qsi_engine *e;
    qsi_seq s;
    int32_t ids[150], kept_ids[150];
    size_t n_before = 0;
    qsi_rng_init(&rng, 3);
    fake_model_init(&f, V, 32, 150, 3);
    assert_int_equal(qsi_engine_create(&e, &f.runner, 1, NULL), QS_OK);
    assert_int_equal(qsi_seq_init(&s, e, NULL), QS_OK);
    qsi_seq *list[] = { &s };
    for (int round = 0; round < 200; round++) {
        size_t n = 1 + (size_t)qsi_rng_below(&rng, 150), kept;
        size_t same = (size_t)qsi_rng_below(&rng, n + 1);
        if (same > n_before) same = n_before;
        random_ids(&rng, ids, n);
        memcpy(ids, kept_ids, same * sizeof *ids);
        int rows = f.n_rows;
        assert_int_equal(qsi_seq_set(&s, ids, n, &kept, NULL), QS_OK);
        assert_true(kept < n && kept + 1 >= same);
        assert_int_equal(qsi_engine_run(e, list, 1, NULL, NULL), QS_OK);
        assert_int_equal(f.n_rows - rows, n - kept);
        check_logits(&f, &s, ids, n);
        assert_int_equal(f.pages_used, (n + QSI_KV_PAGE - 1) / QSI_KV_PAGE);
        memcpy(kept_ids, ids, n * sizeof *ids);
        n_before = n;
    }
    qsi_seq_truncate(&s, 10);
    assert_int_equal(qsi_seq_push(&s, kept_ids, 1, NULL), QS_OK);
    kept_ids[10] = kept_ids[0];
    assert_int_equal(qsi_engine_run(e, list, 1, NULL, NULL), QS_OK);
    check_logits(&f, &s, kept_ids, 11);
    qsi_seq_release(&s);
    qsi_engine_free(e);
    fake_model_release(&f);
}

static void test_limits(void **state) {
    fake_model f;
    qsi_engine *e;
    qsi_seq s;
    qs_err err;
    int32_t ids[65] = { 0 }, bad[3] = { 1, V, 2 };
    fake_model_init(&f, V, 8, 64, 1);
    assert_int_equal(qsi_engine_create(&e, &f.runner, 1, NULL), QS_OK);
    assert_int_equal(qsi_seq_init(&s, e, NULL), QS_OK);
    qsi_seq *list[] = { &s };
    assert_int_equal(qsi_engine_run(e, list, 1, NULL, &err), QS_E_STATE);
    assert_int_equal(qsi_seq_push(&s, ids, 65, &err), QS_E_LIMIT);
    assert_non_null(strstr(err.text, "65 tokens"));
    assert_non_null(strstr(err.text, "context of 64"));
    assert_int_equal(qsi_seq_push(&s, bad, 3, &err), QS_E_ARG);
    assert_non_null(strstr(err.text, "id 17 at position 1"));
    assert_int_equal(s.n_ids, 0);
    assert_int_equal(qsi_seq_push(&s, ids, 64, &err), QS_OK);
    assert_int_equal(qsi_engine_run(e, list, 1, NULL, &err), QS_OK);
    assert_int_equal(qsi_seq_push(&s, ids, 1, &err), QS_E_LIMIT);
    check_logits(&f, &s, ids, 64);
    qsi_seq_release(&s);
    qsi_engine_free(e);
    fake_model_release(&f);
}

/* A run that was cancelled or failed can be repeated: nothing is fed twice or lost. */
static void test_cancel(void **state) {
    fake_model f;
    qsi_engine *e;
    qsi_seq s;
    qs_err err;
    int32_t ids[100];
    qsi_rng rng;
    atomic_int cancel = 0;
    qsi_rng_init(&rng, 4);
    random_ids(&rng, ids, 100);
    fake_model_init(&f, V, 10, 128, 2);
    f.cancel_at = &cancel;
    f.cancel_step = 4;
    assert_int_equal(qsi_engine_create(&e, &f.runner, 1, NULL), QS_OK);
    assert_int_equal(qsi_seq_init(&s, e, NULL), QS_OK);
    qsi_seq *list[] = { &s };
    assert_int_equal(qsi_seq_push(&s, ids, 100, NULL), QS_OK);
    assert_int_equal(qsi_engine_run(e, list, 1, &cancel, &err), QS_E_CANCELLED);
    assert_int_equal(f.n_steps, 4);
    assert_int_equal(s.n_past, 40);
    cancel = 0;
    f.fail_at_step = 6;
    assert_int_equal(qsi_engine_run(e, list, 1, &cancel, &err), QS_E_NUMERIC);
    assert_int_equal(s.n_past, 50);
    assert_int_equal(qsi_engine_run(e, list, 1, &cancel, &err), QS_OK);
    check_logits(&f, &s, ids, 100);
    assert_int_equal(f.n_rows, 110); /* the failed step's rows came again */
    qsi_seq_release(&s);
    qsi_engine_free(e);
    fake_model_release(&f);
}

typedef struct walk {
    const fake_model *f;
    const int32_t *ids;
    size_t next, stop_at;
} walk;

static int on_logits(void *user, size_t pos, const float *logits) {
    walk *w = user;
    float want[V];
    assert_int_equal(pos, w->next);
    fake_logits(w->f, w->ids, (int32_t)pos + 1, want);
    assert_memory_equal(logits, want, sizeof want);
    return ++w->next == w->stop_at;
}

static void test_walk(void **state) {
    int32_t ids[130];
    qsi_rng rng;
    fake_model f;
    qsi_engine *e;
    qsi_rng_init(&rng, 5);
    random_ids(&rng, ids, 130);
    fake_model_init(&f, V, 50, 130, 3);
    assert_int_equal(qsi_engine_create(&e, &f.runner, 1, NULL), QS_OK);
    walk w = { &f, ids, 0, 0 };
    assert_int_equal(qsi_engine_walk(e, ids, 130, on_logits, &w, NULL, NULL), QS_OK);
    assert_int_equal(w.next, 130);
    assert_int_equal(f.pages_used, 0);
    w = (walk){ &f, ids, 0, 60 };
    assert_int_equal(qsi_engine_walk(e, ids, 130, on_logits, &w, NULL, NULL), QS_E_CANCELLED);
    assert_int_equal(w.next, 60);
    assert_int_equal(f.pages_used, 0);
    qsi_engine_free(e);
    fake_model_release(&f);
}

/* Drafts of which some come: every logits row is that of the ids before it, and steps are saved. */
static void test_drafts(void **state) {
    int32_t ids[40];
    fake_model f;
    qsi_engine *e;
    qsi_seq s;
    qsi_rng rng;
    qsi_rng_init(&rng, 5);
    random_ids(&rng, ids, 40);
    fake_model_init(&f, V, 16, 128, 2);
    assert_int_equal(qsi_engine_create_wide(&e, &f.runner, 1, 9, NULL), QS_OK);
    assert_int_equal(qsi_seq_init(&s, e, NULL), QS_OK);
    assert_int_equal(qsi_seq_push(&s, ids, 10, NULL), QS_OK);
    qsi_seq *list[] = { &s };
    assert_int_equal(qsi_engine_run(e, list, 1, NULL, NULL), QS_OK);
    assert_int_equal(qsi_seq_push_generated(&s, ids[10], NULL), QS_OK);
    assert_false(qsi_seq_settle(&s));
    /* three drafts come, the fourth does not */
    int32_t drafts[4] = { ids[11], ids[12], ids[13], (ids[14] + 1) % V };
    qsi_take t = { .seq = &s, .n_rows = 1, .n_drafts = 4, .drafts = drafts };
    assert_int_equal(qsi_engine_step(e, &t, 1, NULL), QS_OK);
    check_logits(&f, &s, ids, 11);
    int steps = f.n_steps;
    for (size_t n = 12; n <= 14; n++) {
        assert_int_equal(qsi_seq_push_generated(&s, ids[n - 1], NULL), QS_OK);
        assert_true(qsi_seq_settle(&s));
        check_logits(&f, &s, ids, n);
    }
    assert_int_equal(f.n_steps, steps);
    assert_int_equal(qsi_seq_push_generated(&s, ids[14], NULL), QS_OK);
    assert_false(qsi_seq_settle(&s));
    assert_int_equal(s.n_hits, 3);
    assert_int_equal(s.n_drafts, 4);
    assert_int_equal(qsi_engine_run(e, list, 1, NULL, NULL), QS_OK);
    check_logits(&f, &s, ids, 15);
    /* drafts before all is fed, too many rows, none: no step */
    t = (qsi_take){ .seq = &s, .n_rows = 1 };
    assert_int_equal(qsi_engine_step(e, &t, 1, NULL), QS_E_ARG);
    assert_int_equal(qsi_seq_push(&s, ids + 15, 3, NULL), QS_OK);
    t = (qsi_take){ .seq = &s, .n_rows = 1, .n_drafts = 1, .drafts = drafts };
    assert_int_equal(qsi_engine_step(e, &t, 1, NULL), QS_E_ARG);
    qsi_seq_release(&s);
    qsi_engine_free(e);
    fake_model_release(&f);
}

/* Forks share pages; who goes on writes to its own; what was reused is as if it had been fed. */
static void test_forks(void **state) {
    int32_t ids[2][130];
    fake_model f;
    qsi_engine *e;
    qsi_seq a, b, c;
    qsi_rng rng;
    qsi_rng_init(&rng, 6);
    random_ids(&rng, ids[0], 130);
    memcpy(ids[1], ids[0], sizeof ids[0]);
    ids[1][100] = (ids[0][100] + 1) % V;
    fake_model_init(&f, V, 64, 256, 8);
    assert_int_equal(qsi_engine_create(&e, &f.runner, 3, NULL), QS_OK);
    assert_int_equal(qsi_seq_init(&a, e, NULL), QS_OK);
    assert_int_equal(qsi_seq_init(&b, e, NULL), QS_OK);
    assert_int_equal(qsi_seq_init(&c, e, NULL), QS_OK);
    assert_int_equal(qsi_seq_push(&a, ids[0], 100, NULL), QS_OK);
    qsi_seq *list[] = { &a, &b, &c };
    assert_int_equal(qsi_engine_run(e, list, 1, NULL, NULL), QS_OK);
    assert_int_equal(qsi_seq_fork(&b, &a, NULL), QS_OK);
    check_logits(&f, &b, ids[0], 100);
    assert_int_equal(f.pages_used, 2);
    assert_int_equal(qsi_seq_push(&c, ids[0], 110, NULL), QS_OK);
    assert_int_equal(qsi_seq_reuse(&c, 90, a.table.pages, NULL), QS_OK);
    assert_int_equal(f.pages_used, 2);
    assert_int_equal(qsi_seq_push(&a, ids[0] + 100, 30, NULL), QS_OK);
    assert_int_equal(qsi_seq_push(&b, ids[1] + 100, 30, NULL), QS_OK);
    assert_int_equal(qsi_engine_run(e, list, 3, NULL, NULL), QS_OK);
    check_logits(&f, &a, ids[0], 130);
    check_logits(&f, &b, ids[1], 130);
    check_logits(&f, &c, ids[0], 110);
    assert_int_equal(f.n_shared_writes, 0);
    assert_int_equal(f.n_copies, 2);
    qsi_seq_rewind(&b);
    assert_int_equal(qsi_engine_run(e, list, 2, NULL, NULL), QS_OK);
    check_logits(&f, &b, ids[1], 130);
    qsi_seq_release(&a);
    qsi_seq_release(&b);
    qsi_seq_release(&c);
    assert_int_equal(f.pages_used, 0);
    qsi_engine_free(e);
    fake_model_release(&f);
}

typedef struct heard {
    const fake_model *f;
    const int32_t *ids;
    size_t next;
    bool same;
} heard;

static void hear_row(void *user, size_t pos, const float *logits, const float *hidden) {
    heard *h = user;
    float want[V];
    (void)hidden;
    fake_logits(h->f, h->ids, (int32_t)pos + 1, want);
    h->same &= pos == h->next++ && logits && memcmp(logits, want, sizeof want) == 0;
}

/* A sequence that asks for every row's logits, beside one that does not. */
static void test_rows(void **state) {
    int32_t ids[2][50];
    fake_model f;
    qsi_engine *e;
    qsi_seq a, b;
    qsi_rng rng;
    qsi_rng_init(&rng, 7);
    random_ids(&rng, ids[0], 50);
    random_ids(&rng, ids[1], 50);
    fake_model_init(&f, V, 20, 64, 2);
    heard h = { &f, ids[1], 0, true };
    assert_int_equal(qsi_engine_create_wide(&e, &f.runner, 2, 12, NULL), QS_OK);
    assert_int_equal(qsi_seq_init(&a, e, NULL), QS_OK);
    assert_int_equal(qsi_seq_init(&b, e, NULL), QS_OK);
    b.on_row = hear_row;
    b.on_user = &h;
    b.row_logits = true;
    assert_int_equal(qsi_seq_push(&a, ids[0], 50, NULL), QS_OK);
    assert_int_equal(qsi_seq_push(&b, ids[1], 50, NULL), QS_OK);
    for (int i = 0; i < 5; i++) {
        qsi_take t[2] = { { .seq = &a, .n_rows = 10 }, { .seq = &b, .n_rows = 10 } };
        assert_int_equal(qsi_engine_step(e, t, 2, NULL), QS_OK);
    }
    check_logits(&f, &a, ids[0], 50);
    check_logits(&f, &b, ids[1], 50);
    assert_int_equal(h.next, 50);
    assert_true(h.same);
    qsi_seq_release(&a);
    qsi_seq_release(&b);
    qsi_engine_free(e);
    fake_model_release(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_chunks), cmocka_unit_test(test_drafts),
        cmocka_unit_test(test_forks), cmocka_unit_test(test_rows), cmocka_unit_test(test_generated),
        cmocka_unit_test(test_batch),
        cmocka_unit_test(test_prefix), cmocka_unit_test(test_limits),
        cmocka_unit_test(test_cancel), cmocka_unit_test(test_walk),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
