/* Speed of a training step (forward and backward) on the default model's shape, beside this
 * machine's bf16 peak as the product kernel reaches it on a square that fits the cache.
 * Use: bench_train [rows] [steps] [f32]. Prints CSV: rows, threads, ms a step, tokens a second,
 * GFLOP/s, peak GFLOP/s, share. Operations of a token: 6 a weight of layers and head it meets, and
 * 12 * heads * head_dim * half the positions. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/mem.h"
#include "model/model.h"
#include "op/op.h"
#include "sys/file.h"

enum { DOC = 80 };

static qsi_config shape(void) {
    return (qsi_config){.arch = QSI_ARCH_DEEPSEEK, .n_vocab = 10240, .n_layer = 8, .d_model = 256,
                        .n_head = 4, .n_kv_head = 4, .head_dim = 64, .d_ff = 1024, .n_ctx = 1024,
                        .rms_eps = 1e-6f, .rope_theta = 10000.0f, .rope_factor = 1.0f,
                        .n_dense = 1, .n_expert = 8, .n_expert_used = 2, .n_shared = 1,
                        .d_expert = 256, .expert_scale = 1.0f};
}

typedef struct peak {
    const qsi_kern *k;
    qsi_mm kind;
    char *a[64], *b[64];
    float *c[64];
} peak;
enum { PM = 96, PN = 256, PK = 256, PREP = 400 };

static void peak_part(const qsi_worker *w, void *arg) {
    peak *p = arg;
    const qsi_kern_mm *mm = &p->k->mm[p->kind];
    for (int i = 0; i < PREP; i++)
        mm->run(PM, PN, PK, 0, qsi_ceil_div(PN, mm->nr), p->a[w->index], PK * 4, p->b[w->index],
                p->c[w->index], PN, false);
}

static double peak_gflops(qsi_pool *pool, const qsi_kern *k, qsi_mm kind) {
    peak p = {.k = k, .kind = kind};
    const qsi_kern_mm *mm = &k->mm[kind];
    int n = qsi_pool_size(pool);
    for (int i = 0; i < n && i < 64; i++) {
        p.a[i] = qsi_calloc(PM * PK, 4);
        p.b[i] = qsi_calloc((size_t)qsi_ceil_div(PN, mm->nr), mm->panel_bytes(PK));
        p.c[i] = qsi_calloc(PM * PN, 4);
    }
    double best = 0;
    for (int r = 0; r < 10; r++) {
        int64_t t = qsi_now_ns();
        qsi_pool_run(pool, peak_part, &p);
        double s = (double)(qsi_now_ns() - t) * 1e-9;
        double g = 2.0 * PM * PN * PK * PREP * n / s * 1e-9;
        if (g > best) best = g;
    }
    for (int i = 0; i < n && i < 64; i++) {
        qsi_free(p.a[i]);
        qsi_free(p.b[i]);
        qsi_free(p.c[i]);
    }
    return best;
}

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv) {
    int rows = argc > 1 ? (int)strtol(argv[1], NULL, 10) : 2048;
    int steps = argc > 2 ? (int)strtol(argv[2], NULL, 10) : 7;
    int threads = argc > 3 ? (int)strtol(argv[3], NULL, 10) : 0;
    bool f32 = argc > 4 && strcmp(argv[4], "f32") == 0;
    qs_err err = {0};
    qsi_pool *pool = NULL;
    qsi_trainer_model *t = NULL;
    qsi_config c = shape();
    if (qsi_pool_create(&pool, threads, &err) != QS_OK) return 1;
    qsi_train_opts o = {.pool = pool, .isa = qsi_cpu_isa(), .max_rows = rows,
                        .precision = f32 ? QSI_TRAIN_F32 : QSI_TRAIN_BF16,
                        .balance_alpha = 0.001f, .balance_per_seq = true};
    if (qsi_tm_create(&t, &c, &o, &err) != QS_OK) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    qsi_tm_init_random(t, 1, 0.02f);
    int32_t *b = qsi_calloc((size_t)rows * 4, sizeof *b);
    int32_t *ids = b, *seq = b + rows, *pos = b + 2 * rows, *targets = b + 3 * rows;
    qsi_rng r;
    qsi_rng_init(&r, 5);
    for (int i = 0; i < rows; i++) {
        ids[i] = (int32_t)qsi_rng_below(&r, 10240);
        targets[i] = (int32_t)qsi_rng_below(&r, 10240);
        seq[i] = i / DOC;
        pos[i] = i % DOC;
    }
    qsi_train_batch tb = {.n_rows = rows, .ids = ids, .seq = seq, .pos = pos, .targets = targets,
                          .scale = 1.0f / (float)rows};
    qsi_train_out out;
    double *s = qsi_calloc((size_t)steps, sizeof *s);
    const qsi_kern *k = qsi_kern_get(o.isa);
    qsi_mm kind = f32 ? QSI_MM_F32 : QSI_MM_BF16;
    double peak1 = peak_gflops(pool, k, kind);
    for (int i = -2; i < steps; i++) {
        int64_t t0 = qsi_now_ns();
        if (qsi_tm_loss(t, &tb, true, 1.0f, &out, &err) != QS_OK) return 1;
        if (i >= 0) s[i] = (double)(qsi_now_ns() - t0) * 1e-9;
    }
    double peak2 = peak_gflops(pool, k, kind), pk = peak1 > peak2 ? peak1 : peak2;
    qsort(s, (size_t)steps, sizeof *s, compare);
    double attn = 4.0 * 256 * 256, dense = 3.0 * 256 * 1024, moe = 3.0 * 256 * 256 * 3 + 8 * 256;
    double w = 8 * attn + dense + 7 * moe + 256.0 * 10240;
    double ops = 6 * w + 8 * 12.0 * 256 * (DOC / 2.0), med = s[steps / 2];
    double gf = ops * rows / med * 1e-9;
    printf("rows,threads,ms,best_ms,tok_s,gflop_s,peak_gflop_s,share\n");
    printf("%d,%d,%.1f,%.1f,%.0f,%.1f,%.1f,%.3f\n", rows, qsi_pool_size(pool), med * 1e3,
           s[0] * 1e3, rows / med, gf, pk, gf / pk);
    fprintf(stderr, "loss %.4f, peaks %.1f %.1f, model %.0f MB\n", out.loss_sum / rows, peak1,
            peak2, (double)qsi_tm_bytes(t) / 1e6);
    return 0;
}
