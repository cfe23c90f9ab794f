/* The promise of memory_bytes: what the process has in memory stays within it, at the peak too, with
 * the cache full and the whole embedding looked at, whether the weights fit beside the cache or are
 * read from disk; a cache that was asked for makes weights give way, and one too large is refused with
 * what would fit. Resident memory counts pages of the file that are mapped in. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "model/model.h"
#include "sys/file.h"
#include "large_model.h"
#include "../sys/tmpdir.h"

enum { ROWS = 16, POSITIONS = 1024 };

static const qsi_config shapes[] = {
    {.arch = QSI_ARCH_LLAMA, .n_vocab = 8000, .n_layer = 6, .d_model = 1024, .n_head = 16,
     .n_kv_head = 16, .head_dim = 64, .d_ff = 3072, .n_ctx = 4096, .rms_eps = 1e-6f,
     .rope_theta = 10000.0f, .rope_factor = 1.0f, .expert_scale = 1.0f},
    {.arch = QSI_ARCH_DEEPSEEK, .n_vocab = 8000, .n_layer = 6, .d_model = 1024, .n_head = 16,
     .n_kv_head = 16, .head_dim = 64, .d_ff = 3072, .n_ctx = 4096, .rms_eps = 1e-6f,
     .rope_theta = 10000.0f, .rope_factor = 1.0f, .expert_scale = 1.0f, .n_dense = 1,
     .n_expert = 24, .n_expert_used = 2, .n_shared = 1, .d_expert = 192},
};

static void path_of(char *out, size_t cap) {
    snprintf(out, cap, "%s", tmp_path("memory_limit.gguf"));
}

typedef struct use {
    qsi_gguf *g;
    qsi_pool *pool;
    qsi_model *m;
    uint64_t limit;
} use;

static qs_status open_limited(use *u, const char *path, uint64_t more, uint64_t cache, bool yields,
                              qs_err *err) {
    static double base; /* before anything else; what is freed later may stay with the allocator */
    if (base == 0) base = status_bytes("VmRSS:");
    *u = (use){.limit = (uint64_t)base + more};
    assert_int_equal(qsi_pool_create(&u->pool, 1, err), QS_OK);
    if (qsi_gguf_open(&u->g, path, err) != QS_OK) fail_msg("%s", err->text);
    qsi_model_opts o = {.pool = u->pool, .isa = qsi_cpu_isa(), .max_rows = ROWS,
                        .memory_bytes = u->limit, .cache_bytes = cache, .cache_yields = yields};
    return qsi_model_open(&u->m, u->g, &o, err);
}

static void close_use(use *u) {
    qsi_model_close(&u->m);
    qsi_pool_free(u->pool);
    qsi_gguf_close(&u->g);
}

/* n_pos positions, whose ids go through the vocabulary. */
static void fill(use *u, qsi_type kv_type, int n_pos) {
    qs_err err = {0};
    qsi_kv *kv = NULL;
    qsi_kv_table t = {0};
    const qsi_config *c = qsi_model_config(u->m);
    float *z = qsi_alloc((size_t)c->n_vocab, sizeof *z);
    if (qsi_kv_create(&kv, c, kv_type, (n_pos + QSI_KV_PAGE - 1) / QSI_KV_PAGE, &err) != QS_OK ||
        qsi_kv_reserve(kv, &t, n_pos, &err) != QS_OK)
        fail_msg("%s", err.text);
    for (int at = 0; at < n_pos; at += ROWS) {
        qsi_row rows[ROWS];
        for (int i = 0; i < ROWS; i++)
            rows[i] = (qsi_row){.id = (at + i) * 7 % c->n_vocab, .pos = at + i,
                                .logits = i == ROWS - 1};
        qsi_step s = {.rows = rows, .n_rows = ROWS, .kv = kv, .tables = &t, .n_tables = 1,
                      .logits = z};
        if (qsi_model_step(u->m, &s, &err) != QS_OK) fail_msg("%s", err.text);
    }
    qsi_kv_table_release(kv, &t);
    qsi_kv_free(kv);
    qsi_free(z);
}

/* Limits from what leaves much on disk to what holds everything: the peak of this process, which has
 * done less before, is within each. */
static void test_within(void **state) {
    (void)state;
    char path[512];
    qs_err err = {0};
    if (status_bytes("VmHWM:") == 0) skip();
    path_of(path, sizeof path);
    int from_disk = 0, inside = 0;
    static const uint64_t more[] = {96, 112, 240};
    for (size_t j = 0; j < QSI_COUNT(more); j++)
        for (size_t i = 0; i < QSI_COUNT(shapes); i++) {
            const qsi_config *c = &shapes[i];
            uint64_t cache = 0;
            qsi_model_io io;
            use u;
            write_model(c, path, QSI_Q8_0);
            assert_int_equal(qsi_kv_need(c, QSI_F16, POSITIONS / QSI_KV_PAGE, &cache, &err), QS_OK);
            if (open_limited(&u, path, more[j] << 20, cache, false, &err) != QS_OK)
                fail_msg("%s", err.text);
            qsi_model_io_stats(u.m, &io, false);
            from_disk += io.on;
            inside += !io.on;
            assert_true(qsi_model_cache_room(u.m) >= cache);
            fill(&u, QSI_F16, POSITIONS);
            double most = status_bytes("VmHWM:");
            print_message("%s: limit %.0f MB, at most %.0f MB; file %.0f MB, cache %.0f MB, %s\n",
                          i ? "moe" : "dense", (double)u.limit / 1e6, most / 1e6,
                          (double)qsi_gguf_size(u.g) / 1e6, (double)cache / 1e6,
                          io.on ? "from disk" : "in memory");
            assert_true(most <= (double)u.limit);
            if (io.on) assert_true(most > 0.75 * (double)u.limit); /* nor is much left unused */
            close_use(&u);
        }
    unlink(path);
    assert_true(from_disk >= 2 && inside >= 2);
}

/* Weights give way to the cache that is asked for, until a plan for them is no longer possible. */
static void test_cache_asked_for(void **state) {
    (void)state;
    char path[512];
    qs_err err = {0};
    const qsi_config *c = &shapes[0];
    uint64_t small = 0, large = 0;
    qsi_model_io few, many;
    int64_t fit = 0;
    use u;
    path_of(path, sizeof path);
    write_model(c, path, QSI_Q8_0);
    assert_int_equal(qsi_kv_need(c, QSI_F16, 4, &small, &err), QS_OK);
    assert_int_equal(qsi_kv_need(c, QSI_F32, 12, &large, &err), QS_OK);
    assert_true(large > 4 * small);
    if (open_limited(&u, path, 104 << 20, small, false, &err) != QS_OK) fail_msg("%s", err.text);
    qsi_model_io_stats(u.m, &few, false);
    close_use(&u);
    if (open_limited(&u, path, 104 << 20, large, false, &err) != QS_OK) fail_msg("%s", err.text);
    qsi_model_io_stats(u.m, &many, false);
    assert_true(few.on && many.on);
    assert_true(many.resident_bytes + (large - small) / 2 < few.resident_bytes);
    assert_true(qsi_model_cache_room(u.m) >= large);
    qsi_model_cache_take(u.m, (int64_t)large);
    assert_int_equal(qsi_kv_fit(c, QSI_F32, qsi_model_cache_room(u.m), &fit, &err), QS_OK);
    assert_int_equal(fit, 0);
    close_use(&u);
    /* too large: said at once, with what fits; and it does */
    assert_int_equal(open_limited(&u, path, 104 << 20, 40 * large, false, &err), QS_E_LIMIT);
    assert_non_null(strstr(err.text, "does not hold a cache of"));
    const char *n = strstr(err.text, "room for ");
    assert_non_null(n);
    int64_t tokens = strtoll(n + strlen("room for "), NULL, 10);
    assert_true(tokens >= 12 * QSI_KV_PAGE && tokens % QSI_KV_PAGE == 0);
    close_use(&u);
    assert_int_equal(qsi_kv_need(c, QSI_F32, tokens / QSI_KV_PAGE - 1, &large, &err), QS_OK);
    if (open_limited(&u, path, 104 << 20, large, false, &err) != QS_OK) fail_msg("%s", err.text);
    close_use(&u);
    /* one that nobody asked for becomes as large as there is room for */
    if (open_limited(&u, path, 104 << 20, 40 * large, true, &err) != QS_OK) fail_msg("%s", err.text);
    assert_true(qsi_model_cache_room(u.m) > 0 && qsi_model_cache_room(u.m) < 40 * large);
    close_use(&u);
    unlink(path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_within), /* first: the peak is the process's */
        cmocka_unit_test(test_cache_asked_for),
    };
    return cmocka_run_group_tests(tests, tmp_setup, tmp_teardown);
}
