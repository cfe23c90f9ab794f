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

/* ---- the bigram net: logits of the next id = row of the table ---- */

typedef struct fake_net {
    int64_t n_vocab;
    qsi_param p[2];
    float *row;
    int64_t calls, nan_at; /* the nan_at-th backward call gives NaN; 0: never */
} fake_net;

static inline size_t fake_n(void *self) { (void)self; return 2; }
static inline qsi_param *fake_param(void *self, size_t i) { return &((fake_net *)self)->p[i]; }
static inline void fake_init(void *self, uint64_t seed, float std) {
    fake_net *f = self;
    for (int i = 0; i < 2; i++) {
        qsi_rng r;
        qsi_rng_init_stream(&r, seed, (uint64_t)i);
        for (int64_t k = 0; k < f->p[i].n; k++)
            f->p[i].master[k] = (float)(qsi_rng_normal(&r) * (double)std);
    }
}
static inline void fake_refresh(void *self) { (void)self; }
static inline void fake_zero(void *self) {
    fake_net *f = self;
    for (int i = 0; i < 2; i++) memset(f->p[i].grad, 0, (size_t)f->p[i].n * sizeof(float));
}
static inline qs_status fake_loss(void *self, const qsi_train_batch *b, bool backward, float share,
                                  qsi_train_out *out, qs_err *err) {
    fake_net *f = self;
    int64_t V = f->n_vocab;
    (void)share;
    (void)err;
    *out = (qsi_train_out){0};
    if (backward) f->calls++;
    for (int32_t r = 0; r < b->n_rows; r++) {
        double sum = 0, max = -1e30;
        const float *w = f->p[0].master + (int64_t)b->ids[r] * V, *bias = f->p[1].master;
        if (b->targets[r] < 0) continue;
        for (int64_t v = 0; v < V; v++) max = fmax(max, (double)(w[v] + bias[v]));
        for (int64_t v = 0; v < V; v++) sum += exp((double)(w[v] + bias[v]) - max);
        out->loss_sum += max + log(sum) - (double)(w[b->targets[r]] + bias[b->targets[r]]);
        out->n_targets++;
        for (int64_t v = 0; backward && v < V; v++) {
            double g = exp((double)(w[v] + bias[v]) - max) / sum - (v == b->targets[r]);
            f->p[0].grad[(int64_t)b->ids[r] * V + v] += (float)(g * (double)b->scale);
            f->p[1].grad[v] += (float)(g * (double)b->scale);
        }
    }
    if (backward && f->calls == f->nan_at) out->loss_sum = NAN;
    return QS_OK;
}
static inline void fake_free(void *self) {
    fake_net *f = self;
    for (int i = 0; i < 2; i++) {
        qsi_free(f->p[i].master);
        qsi_free(f->p[i].grad);
    }
    qsi_free(f);
}

/* user: NULL, or int64_t: the backward call that gives NaN. */
static inline qs_status fake_make(qsi_net *net, const qsi_config *c, const qsi_train_opts *o,
                                  void *user, qs_err *err) {
    fake_net *f = qsi_calloc(1, sizeof(*f));
    (void)o;
    (void)err;
    f->n_vocab = c->n_vocab;
    if (user != NULL) f->nan_at = *(const int64_t *)user;
    f->p[0] = (qsi_param){.name = "token_embd.weight", .n_dims = 2,
                          .ne = {c->n_vocab, c->n_vocab, 1},
                          .n = (int64_t)c->n_vocab * c->n_vocab, .decay = true};
    f->p[1] = (qsi_param){.name = "output_norm.weight", .n_dims = 1, .ne = {c->n_vocab, 1, 1},
                          .n = c->n_vocab};
    for (int i = 0; i < 2; i++) {
        f->p[i].master = qsi_calloc((size_t)f->p[i].n, sizeof(float));
        f->p[i].grad = qsi_calloc((size_t)f->p[i].n, sizeof(float));
    }
    *net = (qsi_net){.self = f, .n_params = fake_n, .param = fake_param, .init_random = fake_init,
                     .refresh = fake_refresh, .zero_grad = fake_zero, .loss = fake_loss,
                     .free = fake_free};
    return QS_OK;
}

#endif
