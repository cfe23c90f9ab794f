/* Shared by the tests of train/: a temporary folder, and a net of a few lines: a bigram table, whose
 * gradient is exact and cheap, behind the driver's table of functions. */
#ifndef TRAIN_TESTING_H
#define TRAIN_TESTING_H

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/hash.h"
#include "base/mem.h"
#include "sys/file.h"
#include "train/net.h"

/* How far tests let the n-th allocation fail; elsewhere than in debug builds none does. */
#ifdef QS_DEBUG
#define FAIL_MAX 20000
#else
#define FAIL_MAX 3
#endif

static char test_dir[64];

static inline void remove_tree(const char *path) {
    char sub[1024];
    DIR *d = opendir(path);
    for (struct dirent *e = d != NULL ? readdir(d) : NULL; e != NULL; e = readdir(d)) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) continue;
        struct stat sb;
        if (snprintf(sub, sizeof(sub), "%s/%s", path, e->d_name) >= (int)sizeof(sub)) continue;
        if (lstat(sub, &sb) == 0 && S_ISDIR(sb.st_mode)) remove_tree(sub);
        else unlink(sub);
    }
    if (d != NULL) closedir(d);
    rmdir(path);
}

static inline int make_test_dir(void **state) {
    (void)state;
    /* in memory where there is such a folder: checkpoints are flushed to the disk */
    snprintf(test_dir, sizeof(test_dir), "/dev/shm/qs-train-XXXXXX");
    if (mkdtemp(test_dir) != NULL) return 0;
    snprintf(test_dir, sizeof(test_dir), "/tmp/qs-train-XXXXXX");
    return mkdtemp(test_dir) != NULL ? 0 : -1;
}

static inline int drop_test_dir(void **state) {
    (void)state;
    remove_tree(test_dir);
    return 0;
}

/* "test_dir/name" in one of a few static buffers. */
static inline const char *in_dir(const char *name) {
    static char buf[8][256];
    static int next;
    char *b = buf[next++ % 8];
    snprintf(b, sizeof(buf[0]), "%s/%s", test_dir, name);
    return b;
}

static inline void put_file(const char *path, const void *p, size_t n) {
    unlink(path); /* truncating a file makes some file systems wait for the disk */
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(p, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

static inline void read_all(const char *path, qsi_str *out) {
    qs_err err = {0};
    qsi_str_clear(out);
    if (qsi_file_read(path, (size_t)1 << 30, out, &err) != QS_OK) fail_msg("%s", err.text);
}

/* ---- the bigram net: the logit of the next id v after id u is e[u] . o[v]; all the other weights
 * of a configuration are there too, and stay without a gradient ---- */

#define FAKE_MAX 64
typedef struct fake_net {
    qsi_config c;
    qsi_param p[FAKE_MAX];
    char name[FAKE_MAX][64];
    size_t n;
    qsi_param *embed, *head;
    float *logits;
    int64_t calls, nan_at; /* the nan_at-th backward call gives NaN; 0: never */
} fake_net;

static inline size_t fake_n(void *self) { return ((fake_net *)self)->n; }
static inline qsi_param *fake_param(void *self, size_t i) { return &((fake_net *)self)->p[i]; }
static inline void fake_init(void *self, uint64_t seed, float std) {
    fake_net *f = self;
    for (size_t i = 0; i < f->n; i++) {
        qsi_rng r;
        qsi_rng_init_stream(&r, seed, (uint64_t)i);
        for (int64_t k = 0; k < f->p[i].n; k++)
            f->p[i].master[k] = (float)(qsi_rng_normal(&r) * (double)std);
    }
}
static inline void fake_refresh(void *self) { (void)self; }
static inline void fake_zero(void *self) {
    fake_net *f = self;
    for (size_t i = 0; i < f->n; i++)
        memset(f->p[i].grad, 0, (size_t)f->p[i].n * sizeof(float));
}
static inline void fake_row(fake_net *f, int32_t u, int32_t t, float scale, qsi_train_out *out) {
    int64_t V = f->c.n_vocab, D = f->c.d_model;
    const float *e = f->embed->master + u * D;
    float max = -1e30f, *x = f->logits;
    double sum = 0;
    for (int64_t v = 0; v < V; v++) {
        x[v] = 0;
        for (int64_t d = 0; d < D; d++) x[v] += e[d] * f->head->master[v * D + d];
        if (x[v] > max) max = x[v];
    }
    for (int64_t v = 0; v < V; v++) sum += exp((double)(x[v] - max));
    out->loss_sum += log(sum) + (double)(max - x[t]);
    out->n_targets++;
    for (int64_t v = 0; scale > 0 && v < V; v++) {
        float g = scale * (float)(exp((double)(x[v] - max)) / sum - (v == t));
        for (int64_t d = 0; d < D; d++) {
            f->embed->grad[u * D + d] += g * f->head->master[v * D + d];
            f->head->grad[v * D + d] += g * e[d];
        }
    }
}
static inline qs_status fake_loss(void *self, const qsi_train_batch *b, bool backward, float share,
                                  qsi_train_out *out, qs_err *err) {
    fake_net *f = self;
    (void)share;
    (void)err;
    *out = (qsi_train_out){0};
    if (backward) f->calls++;
    for (int32_t r = 0; r < b->n_rows; r++)
        if (b->targets[r] >= 0)
            fake_row(f, b->ids[r], b->targets[r], backward ? b->scale : 0, out);
    if (backward && f->calls == f->nan_at) out->loss_sum = NAN;
    return QS_OK;
}
static inline void fake_free(void *self) {
    fake_net *f = self;
    for (size_t i = 0; i < f->n; i++) {
        qsi_free(f->p[i].master);
        qsi_free(f->p[i].grad);
    }
    qsi_free(f->logits);
    qsi_free(f);
}

/* user: NULL, or int64_t: the backward call that gives NaN. */
static inline qs_status fake_make(qsi_net *net, const qsi_config *c, const qsi_train_opts *o,
                                  void *user, qs_err *err) {
    fake_net *f = qsi_calloc(1, sizeof(*f));
    bool ok = true;
    (void)o;
    if (f == NULL) return qsi_err_set(err, QS_E_NOMEM, "out of memory for the net");
    f->c = *c;
    f->n = qsi_config_n_tensors(c);
    assert_true(f->n <= FAKE_MAX);
    if (user != NULL) f->nan_at = *(const int64_t *)user;
    f->logits = qsi_calloc((size_t)c->n_vocab, sizeof(float));
    for (size_t i = 0; i < f->n; i++) {
        qsi_tensor_spec s;
        qsi_config_tensor(c, i, &s);
        qsi_param *p = &f->p[i];
        memcpy(f->name[i], s.name, sizeof(s.name));
        *p = (qsi_param){.name = f->name[i], .n_dims = s.n_dims, .n = 1,
                         .decay = s.role != QSI_ROLE_NORM};
        for (int d = 0; d < 3; d++) {
            p->ne[d] = d < s.n_dims ? s.ne[d] : 1;
            p->n *= p->ne[d];
        }
        p->master = qsi_calloc((size_t)p->n, sizeof(float));
        p->grad = qsi_calloc((size_t)p->n, sizeof(float));
        ok = ok && p->master != NULL && p->grad != NULL;
        if (strcmp(s.name, "token_embd.weight") == 0) f->embed = p;
        if (strcmp(s.name, "output.weight") == 0) f->head = p;
    }
    assert_true(f->embed != NULL && f->head != NULL);
    if (!ok || f->logits == NULL) {
        fake_free(f);
        return qsi_err_set(err, QS_E_NOMEM, "out of memory for the net");
    }
    *net = (qsi_net){.self = f, .n_params = fake_n, .param = fake_param, .init_random = fake_init,
                     .refresh = fake_refresh, .zero_grad = fake_zero, .loss = fake_loss,
                     .free = fake_free};
    return QS_OK;
}

/* The smallest configuration. */
static inline qsi_config fake_config(int32_t n_vocab) {
    return (qsi_config){.arch = QSI_ARCH_LLAMA, .n_vocab = n_vocab, .n_layer = 1, .d_model = 8,
                        .n_head = 1, .n_kv_head = 1, .head_dim = 8, .d_ff = 8, .n_ctx = 16,
                        .rms_eps = 1e-6f, .rope_theta = 10000, .rope_factor = 1, .expert_scale = 1};
}

#endif
