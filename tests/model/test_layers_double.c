/* Every layer of both architectures against a second forward, written here in double precision, row
 * by row and without any of the library's code: the loss of every row, the balance loss, and, by
 * central differences of that forward, the gradient of every single parameter.
 *
 * Per row t at position p of its document, per layer (Touvron et al. 2023; arXiv:2401.06066):
 *     n = w x / rms(x); q, k, v = Wq n, Wk n, Wv n; pairs (2i, 2i+1) of q and k turned by the angle
 *     p / factor theta^(-2i / head_dim); x += Wo sum_j softmax_j(q kj / sqrt(head_dim)) vj, j <= t;
 *     n = w x / rms(x); x += Wd (silu(Wg n) * Wu n), or with experts
 *     x += shared(n) + sum over the K likeliest of c s_e FFN_e(n), s = softmax(Wr n), c the expert
 *     scale (over the sum of the K s when they are normalised);
 *     balance: per group of T' rows E / (K T') sum_e count_e sum_t s_e / T, over layers and groups.
 *
 * Tolerances. Differences with step h = 2e-5 have an error of about h^2 / 6 f''' + 1e-16 loss / h, a
 * few 1e-10, against gradients of 1e-3 and more a tensor. Ours are float32: 2^-24 times the square
 * root of some hundred operations, 1e-6. Allowed is 1e-4 of a tensor's norm, a row's loss 1e-5. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/hash.h"
#include "base/mem.h"
#include "model/model.h"

/* Documents of 19, 1 and 4 rows: more than a block of 16 rows, a document of one row. */
enum { ROWS = 24, VOCAB = 13, LAYERS = 3, MAX_D = 16, MAX_E = 8, PARAMS_MAX = 64 };
static const int32_t doc_rows[] = {19, 1, 4};


static qsi_config dense_config(void) {
    return (qsi_config){.arch = QSI_ARCH_LLAMA, .n_vocab = VOCAB, .n_layer = LAYERS - 1,
                        .d_model = 10, .n_head = 4, .n_kv_head = 2, .head_dim = 4, .d_ff = 7,
                        .n_ctx = 64, .rms_eps = 1e-5f, .rope_theta = 100.0f, .rope_factor = 2.0f,
                        .rope_scaling = QSI_ROPE_LINEAR, .expert_scale = 1.0f};
}

/* One dense layer, then two of experts. */
static qsi_config moe_config(int32_t n_shared, bool norm) {
    qsi_config c = dense_config();
    c.arch = QSI_ARCH_DEEPSEEK;
    c.n_layer = LAYERS;
    c.n_head = c.n_kv_head = 2;
    c.rope_scaling = QSI_ROPE_NONE;
    c.rope_factor = 1.0f;
    c.n_dense = 1;
    c.n_expert = 5;
    c.n_expert_used = 2;
    c.n_shared = n_shared;
    c.d_expert = 3;
    c.norm_topk = norm;
    c.expert_scale = norm ? 1.75f : 1.0f;
    return c;
}

/* ---- the second forward ---- */
typedef struct fixture fixture;
typedef struct variant { /* of a model and its loss */
    bool experts, norm, per_seq;
    int32_t n_shared;
    double alpha;
    uint64_t seed;
    fixture *f; /* opened by the first test that needs it */
} variant;

typedef struct layer {
    double *attn_norm, *q, *k, *v, *o, *ffn_norm, *gate, *up, *down;
    double *router, *egate, *eup, *edown, *sgate, *sup, *sdown;
} layer;

struct fixture {
    qsi_config c;
    double alpha;
    bool per_seq;
    uint64_t seed;
    int32_t ids[ROWS], seq[ROWS], pos[ROWS], targets[ROWS];
    qsi_train_batch b;
    qsi_pool *pool;
    qsi_trainer_model *t[QSI_ISA_COUNT]; /* NULL: this CPU has not the level */
    /* the second forward's: parameters in the library's order, gradients by differences */
    size_t n_params;
    double *w[PARAMS_MAX], *g[PARAMS_MAX];
    double *embed, *out_norm, *head;
    layer layers[LAYERS];
    double cosine[ROWS][MAX_D], sine[ROWS][MAX_D];
    double keys[LAYERS][ROWS][MAX_D], values[LAYERS][ROWS][MAX_D];
    double chosen[LAYERS][ROWS][MAX_E], probs[LAYERS][ROWS][MAX_E]; /* groups in the first index */
    double nll[ROWS], balance;
    double least_gap; /* between the last chosen and the first not chosen probability */
};

static void matvec(double *y, const double *w, const double *x, int n_out, int n_in) {
    for (int i = 0; i < n_out; i++) {
        y[i] = 0;
        for (int j = 0; j < n_in; j++) y[i] += w[i * n_in + j] * x[j];
    }
}

static void norm(double *y, const double *x, const double *w, int d, double eps) {
    double ss = 0;
    for (int i = 0; i < d; i++) ss += x[i] * x[i];
    for (int i = 0; i < d; i++) y[i] = w[i] * x[i] / sqrt(ss / d + eps);
}

static void softmax(double *x, int n) {
    double m = -INFINITY, sum = 0;
    for (int i = 0; i < n; i++) m = fmax(m, x[i]);
    for (int i = 0; i < n; i++) sum += x[i] = exp(x[i] - m);
    for (int i = 0; i < n; i++) x[i] /= sum;
}

static void make_angles(fixture *f) {
    for (int t = 0; t < ROWS; t++)
        for (int i = 0; i < f->c.head_dim / 2; i++) {
            double a = f->pos[t] / (double)f->c.rope_factor *
                       pow((double)f->c.rope_theta, -2.0 * i / (double)f->c.head_dim);
            f->cosine[t][i] = cos(a);
            f->sine[t][i] = sin(a);
        }
}

static void turn(const fixture *f, double *x, int n_head, int t) {
    for (int h = 0; h < n_head; h++)
        for (int i = 0; i < f->c.head_dim / 2; i++) {
            double *p = x + h * f->c.head_dim + 2 * i, p0 = p[0], p1 = p[1];
            p[0] = p0 * f->cosine[t][i] - p1 * f->sine[t][i];
            p[1] = p0 * f->sine[t][i] + p1 * f->cosine[t][i];
        }
}

static void attention(fixture *f, int l, int t, double *x) {
    const qsi_config *c = &f->c;
    const layer *w = &f->layers[l];
    int hd = c->head_dim, nq = c->n_head, nk = c->n_kv_head, d = c->d_model;
    double n[MAX_D], q[MAX_D], out[MAX_D] = {0}, y[MAX_D];
    norm(n, x, w->attn_norm, d, (double)c->rms_eps);
    matvec(q, w->q, n, nq * hd, d);
    matvec(f->keys[l][t], w->k, n, nk * hd, d);
    matvec(f->values[l][t], w->v, n, nk * hd, d);
    turn(f, q, nq, t);
    turn(f, f->keys[l][t], nk, t);
    int first = t - f->pos[t];
    for (int h = 0; h < nq; h++) {
        int kh = h / (nq / nk) * hd;
        double s[ROWS];
        for (int j = first; j <= t; j++) {
            s[j - first] = 0;
            for (int i = 0; i < hd; i++) s[j - first] += q[h * hd + i] * f->keys[l][j][kh + i];
            s[j - first] /= sqrt((double)hd);
        }
        softmax(s, t - first + 1);
        for (int j = first; j <= t; j++)
            for (int i = 0; i < hd; i++)
                out[h * hd + i] += s[j - first] * f->values[l][j][kh + i];
    }
    matvec(y, w->o, out, d, nq * hd);
    for (int i = 0; i < d; i++) x[i] += y[i];
}

/* x += scale * down (silu(gate n) * up n) */
static void swiglu(double *x, const double *n, double scale, const double *gate, const double *up,
                   const double *down, int d, int width) {
    double g[MAX_D], u[MAX_D], y[MAX_D];
    matvec(g, gate, n, width, d);
    matvec(u, up, n, width, d);
    for (int i = 0; i < width; i++) g[i] = g[i] / (1 + exp(-g[i])) * u[i];
    matvec(y, down, g, d, width);
    for (int i = 0; i < d; i++) x[i] += scale * y[i];
}

static void experts(fixture *f, int l, int t, const double *n, double *x) {
    const qsi_config *c = &f->c;
    const layer *w = &f->layers[l];
    int E = c->n_expert, d = c->d_model, width = c->d_expert, group = f->per_seq ? f->seq[t] : 0;
    double s[MAX_E], sum = 0, last = 1, next = 0;
    bool taken[MAX_E] = {false};
    matvec(s, w->router, n, E, d);
    softmax(s, E);
    for (int k = 0; k <= c->n_expert_used; k++) { /* one more: the gap */
        int best = -1;
        for (int e = 0; e < E; e++)
            if (!taken[e] && (best < 0 || s[e] > s[best])) best = e;
        if (k == c->n_expert_used) {
            next = s[best];
            break;
        }
        taken[best] = true;
        last = s[best];
        sum += s[best];
    }
    f->least_gap = fmin(f->least_gap, last - next);
    if (w->sgate)
        swiglu(x, n, 1, w->sgate, w->sup, w->sdown, d, c->n_shared * width);
    for (int e = 0; e < E; e++) {
        f->probs[l][group][e] += s[e];
        if (!taken[e]) continue;
        f->chosen[l][group][e] += 1;
        double scale = (double)c->expert_scale * s[e] / (c->norm_topk ? sum : 1);
        int at = e * width * d;
        swiglu(x, n, scale, w->egate + at, w->eup + at, w->edown + at, d, width);
    }
}

static void balance(fixture *f) {
    int E = f->c.n_expert;
    f->balance = 0;
    for (int l = f->c.n_dense; l < f->c.n_layer && E; l++)
        for (size_t g = 0; g < (f->per_seq ? QSI_COUNT(doc_rows) : 1); g++)
            for (int e = 0; e < E; e++)
                f->balance += E / (double)(f->c.n_expert_used * (f->per_seq ? doc_rows[g] : ROWS)) *
                              f->chosen[l][g][e] * f->probs[l][g][e] / ROWS;
}

/* The whole loss; fills nll, balance and least_gap. */
static double second_loss(fixture *f) {
    const qsi_config *c = &f->c;
    int d = c->d_model;
    double total = 0;
    memset(f->chosen, 0, sizeof f->chosen);
    memset(f->probs, 0, sizeof f->probs);
    f->least_gap = 1;
    for (int t = 0; t < ROWS; t++) {
        double x[MAX_D], n[MAX_D], z[VOCAB];
        memcpy(x, f->embed + f->ids[t] * d, (size_t)d * sizeof *x);
        for (int l = 0; l < c->n_layer; l++) {
            const layer *w = &f->layers[l];
            attention(f, l, t, x);
            norm(n, x, w->ffn_norm, d, (double)c->rms_eps);
            if (w->router)
                experts(f, l, t, n, x);
            else
                swiglu(x, n, 1, w->gate, w->up, w->down, d, c->d_ff);
        }
        if (f->targets[t] < 0) continue;
        norm(n, x, f->out_norm, d, (double)c->rms_eps);
        matvec(z, f->head, n, VOCAB, d);
        softmax(z, VOCAB);
        f->nll[t] = -log(z[f->targets[t]]);
        total += f->nll[t] * (double)f->b.scale;
    }
    balance(f);
    return total + f->alpha * f->balance;
}

/* ---- both sides with the same parameters ---- */
static double *find(const fixture *f, int l, const char *part) {
    char name[64];
    if (l < 0)
        snprintf(name, sizeof name, "%s.weight", part);
    else
        snprintf(name, sizeof name, "blk.%d.%s.weight", l, part);
    for (size_t i = 0; i < f->n_params; i++)
        if (strcmp(qsi_tm_param(f->t[0], i)->name, name) == 0) return f->w[i];
    return NULL;
}

static void name_parameters(fixture *f) {
    f->embed = find(f, -1, "token_embd");
    f->out_norm = find(f, -1, "output_norm");
    f->head = find(f, -1, "output");
    for (int l = 0; l < f->c.n_layer; l++)
        f->layers[l] = (layer){
            .attn_norm = find(f, l, "attn_norm"), .q = find(f, l, "attn_q"),
            .k = find(f, l, "attn_k"), .v = find(f, l, "attn_v"), .o = find(f, l, "attn_output"),
            .ffn_norm = find(f, l, "ffn_norm"), .gate = find(f, l, "ffn_gate"),
            .up = find(f, l, "ffn_up"), .down = find(f, l, "ffn_down"),
            .router = find(f, l, "ffn_gate_inp"), .egate = find(f, l, "ffn_gate_exps"),
            .eup = find(f, l, "ffn_up_exps"), .edown = find(f, l, "ffn_down_exps"),
            .sgate = find(f, l, "ffn_gate_shexp"), .sup = find(f, l, "ffn_up_shexp"),
            .sdown = find(f, l, "ffn_down_shexp")};
}

static void make_batch(fixture *f) {
    qsi_rng r;
    qsi_rng_init(&r, 3);
    int32_t at = 0, n = 0;
    for (size_t s = 0; s < QSI_COUNT(doc_rows); s++)
        for (int32_t i = 0; i < doc_rows[s]; i++, at++) {
            f->ids[at] = (int32_t)qsi_rng_below(&r, VOCAB);
            f->targets[at] = at % 6 == 4 ? -1 : (int32_t)qsi_rng_below(&r, VOCAB);
            f->seq[at] = (int32_t)s;
            f->pos[at] = i;
            n += f->targets[at] >= 0;
        }
    f->b = (qsi_train_batch){.n_rows = ROWS, .ids = f->ids, .seq = f->seq, .pos = f->pos,
                             .targets = f->targets, .scale = 1.0f / (float)n};
}

static void run_loss(fixture *f, qsi_trainer_model *t, bool backward, qsi_train_out *out) {
    qs_err err = {0};
    if (qsi_tm_loss(t, &f->b, backward, 1.0f, out, &err) != QS_OK) fail_msg("%s", err.text);
}

/* Weights large enough that no part of the network is near linear, norms around 1. */
static void fill(fixture *f) {
    f->n_params = qsi_tm_n_params(f->t[0]);
    assert_true(f->n_params <= PARAMS_MAX);
    for (size_t i = 0; i < f->n_params; i++) {
        qsi_param *p = qsi_tm_param(f->t[0], i);
        f->w[i] = qsi_alloc((size_t)p->n, sizeof(double));
        f->g[i] = qsi_alloc((size_t)p->n, sizeof(double));
        assert_true(f->w[i] && f->g[i]);
        qsi_rng r;
        qsi_rng_init_stream(&r, f->seed, i);
        for (int64_t j = 0; j < p->n; j++) {
            double x = qsi_rng_normal(&r);
            f->w[i][j] = (double)(float)(p->n_dims == 1 ? 1 + 0.3 * x : 0.5 * x);
        }
    }
}

static void open_level(fixture *f, int level) {
    qs_err err = {0};
    qsi_train_opts o = {.pool = f->pool, .isa = (qsi_isa)level, .precision = QSI_TRAIN_F32,
                        .max_rows = ROWS, .balance_alpha = (float)f->alpha,
                        .balance_per_seq = f->per_seq};
    if (qsi_tm_create(&f->t[level], &f->c, &o, &err) != QS_OK) fail_msg("%s", err.text);
    if (level == 0) fill(f);
    for (size_t i = 0; i < f->n_params; i++) {
        qsi_param *p = qsi_tm_param(f->t[level], i);
        for (int64_t j = 0; j < p->n; j++) p->master[j] = (float)f->w[i][j];
    }
    qsi_tm_refresh(f->t[level]);
    qsi_train_out out;
    qsi_tm_zero_grad(f->t[level]);
    run_loss(f, f->t[level], true, &out);
}

static void differences(fixture *f) {
    const double h = 2e-5;
    for (size_t i = 0; i < f->n_params; i++)
        for (int64_t j = 0; j < qsi_tm_param(f->t[0], i)->n; j++) {
            double *w = &f->w[i][j], keep = *w;
            *w = keep + h;
            double plus = second_loss(f);
            *w = keep - h;
            double minus = second_loss(f);
            *w = keep;
            f->g[i][j] = (plus - minus) / (2 * h);
        }
}

static fixture *open_fixture(const variant *v) {
    qs_err err = {0};
    fixture *f = qsi_calloc(1, sizeof *f);
    assert_non_null(f);
    f->c = v->experts ? moe_config(v->n_shared, v->norm) : dense_config();
    f->alpha = v->alpha;
    f->per_seq = v->per_seq;
    f->seed = v->seed;
    assert_int_equal(qsi_pool_create(&f->pool, 1, &err), QS_OK);
    make_batch(f);
    make_angles(f);
    for (int i = 0; i < QSI_ISA_COUNT; i++)
        if (qsi_cpu_has((qsi_isa)i)) open_level(f, i);
    name_parameters(f);
    differences(f);
    second_loss(f);
    /* no choice of experts may hang on rounding */
    if (f->least_gap < 5e-4) fail_msg("two experts are but %g apart", f->least_gap);
    return f;
}

static void close_fixture(fixture *f) {
    if (!f) return;
    for (size_t i = 0; i < f->n_params; i++) {
        qsi_free(f->w[i]);
        qsi_free(f->g[i]);
    }
    for (int i = 0; i < QSI_ISA_COUNT; i++) qsi_tm_free(f->t[i]);
    qsi_pool_free(f->pool);
    qsi_free(f);
}

/* ---- tests ---- */
/* The forward: each row's loss alone, all together, and the balance loss. */
static void check_forward(fixture *f, qsi_trainer_model *t) {
    qsi_train_out out;
    int32_t only[ROWS];
    double sum = 0;
    for (int r = 0; r < ROWS; r++) {
        if (f->targets[r] < 0) continue;
        memset(only, 0xff, sizeof only); /* -1: no target */
        only[r] = f->targets[r];
        f->b.targets = only;
        run_loss(f, t, false, &out);
        sum += f->nll[r];
        if (fabs(out.loss_sum - f->nll[r]) > 1e-5)
            fail_msg("row %d: loss %.8f, in double %.8f", r, out.loss_sum, f->nll[r]);
    }
    f->b.targets = f->targets;
    run_loss(f, t, false, &out);
    assert_true(fabs(out.loss_sum - sum) < 1e-5 * sum);
    assert_true(fabs(out.balance - f->balance) <= 1e-5 * f->balance);
    assert_true((f->c.n_expert > 0) == (f->balance > 0));
}

static double off_by(const qsi_param *p, const double *want) {
    double d = 0, n = 0;
    for (int64_t j = 0; j < p->n; j++) {
        d += pow((double)p->grad[j] - want[j], 2);
        n += want[j] * want[j];
    }
    assert_true(n > 0);
    return sqrt(d / n);
}

/* The tensors of each kind of layer: part of their names, or with a leading ^ the beginning. */
typedef enum kind { EMBEDDING, NORM, ATTENTION, FFN, ROUTER, EXPERTS, SHARED, HEAD, N_KINDS,
                    FORWARD } kind;
static const char *const parts[N_KINDS][5] = {
    [EMBEDDING] = {"^token_embd."},
    [NORM] = {".attn_norm.", ".ffn_norm.", "^output_norm."},
    [ATTENTION] = {".attn_q.", ".attn_k.", ".attn_v.", ".attn_output."},
    [FFN] = {".ffn_gate.", ".ffn_up.", ".ffn_down."},
    [ROUTER] = {".ffn_gate_inp."},
    [EXPERTS] = {".ffn_gate_exps.", ".ffn_up_exps.", ".ffn_down_exps."},
    [SHARED] = {".ffn_gate_shexp.", ".ffn_up_shexp.", ".ffn_down_shexp."},
    [HEAD] = {"^output."},
};

static bool is_of(const char *name, int k) {
    for (const char *const *p = parts[k]; *p; p++)
        if (**p == '^' ? strncmp(name, *p + 1, strlen(*p) - 1) == 0 : strstr(name, *p) != NULL)
            return true;
    return false;
}

static void check_kind(fixture *f, int level, int k) {
    int seen = 0;
    double worst = 0;
    for (size_t i = 0; i < f->n_params; i++) {
        qsi_param *p = qsi_tm_param(f->t[level], i);
        int kinds = 0;
        for (int j = 0; j < N_KINDS; j++) kinds += is_of(p->name, j);
        if (kinds != 1) fail_msg("%s belongs to %d kinds of layer", p->name, kinds);
        if (!is_of(p->name, k)) continue;
        double e = off_by(p, f->g[i]);
        if (e > 1e-4)
            fail_msg("%s at %s: off by %.2g of its norm", p->name, qsi_isa_name((qsi_isa)level), e);
        worst = fmax(worst, e);
        seen++;
    }
    assert_true(seen > 0);
    print_message("%s: %d tensors, worst off by %.1e of its norm\n", qsi_isa_name((qsi_isa)level),
                  seen, worst);
}

static variant variants[] = {
    {.experts = false, .seed = 41},
    {.experts = true, .n_shared = 2, .alpha = 0.5, .seed = 41},
    {.experts = true, .n_shared = 1, .norm = true, .alpha = 0.5, .per_seq = true, .seed = 42},
    {.experts = true, .n_shared = 0, .alpha = 0.25, .per_seq = true, .seed = 41},
};

typedef struct part_of {
    variant *v;
    kind k;
} part_of;

static void check(void **state) {
    const part_of *x = *state;
    if (!x->v->f) x->v->f = open_fixture(x->v);
    for (int i = 0; i < QSI_ISA_COUNT; i++) {
        if (!x->v->f->t[i]) continue;
        if (x->k == FORWARD)
            check_forward(x->v->f, x->v->f->t[i]);
        else
            check_kind(x->v->f, i, x->k);
    }
}

static int close_all(void **state) {
    (void)state;
    for (size_t i = 0; i < QSI_COUNT(variants); i++) close_fixture(variants[i].f);
    return 0;
}

#define PART(text, variant, kind)                                                                  \
    { text, check, NULL, NULL, &(part_of){&variants[variant], kind} }

int main(void) {
    const struct CMUnitTest tests[] = {
        PART("dense: forward", 0, FORWARD),
        PART("dense: embedding", 0, EMBEDDING),
        PART("dense: norms", 0, NORM),
        PART("dense: attention", 0, ATTENTION),
        PART("dense: ffn", 0, FFN),
        PART("dense: head", 0, HEAD),
        PART("moe: forward", 1, FORWARD),
        PART("moe: embedding", 1, EMBEDDING),
        PART("moe: norms", 1, NORM),
        PART("moe: attention", 1, ATTENTION),
        PART("moe: ffn of the dense layer", 1, FFN),
        PART("moe: router", 1, ROUTER),
        PART("moe: experts", 1, EXPERTS),
        PART("moe: shared experts", 1, SHARED),
        PART("moe: head", 1, HEAD),
        PART("moe, weights normalised and scaled, balance per sequence: forward", 2, FORWARD),
        PART("moe, weights normalised and scaled, balance per sequence: norms", 2, NORM),
        PART("moe, weights normalised and scaled, balance per sequence: attention", 2, ATTENTION),
        PART("moe, weights normalised and scaled, balance per sequence: router", 2, ROUTER),
        PART("moe, weights normalised and scaled, balance per sequence: experts", 2, EXPERTS),
        PART("moe, weights normalised and scaled, balance per sequence: shared", 2, SHARED),
        PART("moe without shared experts: forward", 3, FORWARD),
        PART("moe without shared experts: norms", 3, NORM),
        PART("moe without shared experts: router", 3, ROUTER),
        PART("moe without shared experts: experts", 3, EXPERTS),
    };
    return cmocka_run_group_tests(tests, NULL, close_all);
}
