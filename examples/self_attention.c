/* Self-attention, written with Qiusuo's tensors.
 *
 * The textbook module: values, keys and queries of shape (N, length, embed) are split into heads; one
 * head_dim x head_dim projection without bias each for V, K and Q is shared by all heads; scores are
 * divided by sqrt(embed), masked ones set to -1e20 before that; softmax over the keys, weighted sum
 * of the values, heads joined, a final linear layer with bias.
 *
 * With `standard` as the eighth argument it is multi-head attention as in "Attention Is All You Need"
 * (Vaswani et al. 2017): each head has projections of its own (d_model x d_k; all heads together one
 * d_model x d_model matrix), d_k = d_v = d_model / h, scores are divided by sqrt(d_k), and the output
 * projection has no bias.
 *
 * usage: self_attention [N queries keys embed heads seed mask kind step]
 *   mask: none | causal (key j for query i when j <= i) | padding (the last n % 3 keys of the n-th
 *         sentence are masked); kind: shared | standard
 * Inputs and weights are uniform random numbers from the seed (streams 0 values, 1 keys, 2 queries in
 * -1..1; 3 W_V, 4 W_K, 5 W_Q, 6 W_O, 7 bias in -1/sqrt(columns)..1/sqrt(columns)). Prints the shape
 * of the output, its sum and every step-th value (step 0: the first four). */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "qiusuo/tensor.h"

typedef struct attention {
    int64_t embed, heads;
    int standard;              /* 0: projections shared by the heads */
    qs_tensor *w_v, *w_k, *w_q, *w_o, *bias;
} attention;

#define TRY(call)                                                                                  \
    do {                                                                                           \
        st = (call);                                                                               \
        if (st != QS_OK) goto done;                                                                \
    } while (0)

/* A rows x columns matrix of the seed's stream. */
static qs_status make_matrix(qs_tensor **w, int64_t rows, int64_t columns, uint64_t seed,
                             uint64_t stream, qs_err *err) {
    float bound = (float)(1.0 / sqrt((double)columns));
    qs_status st = qs_tensor_create(w, 2, (int64_t[]){ rows, columns }, err);
    if (st == QS_OK) qs_tensor_random(*w, seed, stream, -bound, bound);
    return st;
}

static qs_status attention_init(attention *a, uint64_t seed, qs_err *err) {
    qs_status st = QS_OK;
    int64_t head_dim = a->embed / a->heads, d = a->standard ? a->embed : head_dim;
    float bound = (float)(1.0 / sqrt((double)a->embed));
    TRY(make_matrix(&a->w_v, d, d, seed, 3, err));
    TRY(make_matrix(&a->w_k, d, d, seed, 4, err));
    TRY(make_matrix(&a->w_q, d, d, seed, 5, err));
    TRY(make_matrix(&a->w_o, a->embed, a->embed, seed, 6, err));
    if (a->standard) goto done;
    TRY(qs_tensor_create(&a->bias, 1, &a->embed, err));
    qs_tensor_random(a->bias, seed, 7, -bound, bound);
done:
    return st;
}

static void attention_release(attention *a) {
    qs_tensor_free(a->w_v);
    qs_tensor_free(a->w_k);
    qs_tensor_free(a->w_q);
    qs_tensor_free(a->w_o);
    qs_tensor_free(a->bias);
}

/* (N, length, embed) -> (N, heads, length, head_dim), projected. */
static qs_status project(qs_tensor **out, const attention *a, const qs_tensor *x,
                         const qs_tensor *w, qs_err *err) {
    qs_status st = QS_OK;
    qs_tensor *whole = NULL, *split = NULL, *projected = NULL;
    int64_t dims[] = { qs_tensor_dim(x, 0), qs_tensor_dim(x, 1), a->heads, a->embed / a->heads };
    if (a->standard) {         /* every head its rows of one matrix, then split */
        TRY(qs_tensor_linear(&whole, x, w, NULL, err));
        TRY(qs_tensor_reshape(&projected, whole, 4, dims, err));
    } else {                   /* split, then one small matrix for all heads */
        TRY(qs_tensor_reshape(&split, x, 4, dims, err));
        TRY(qs_tensor_linear(&projected, split, w, NULL, err));
    }
    TRY(qs_tensor_permute(out, projected, (int[]){ 0, 2, 1, 3 }, err));
done:
    qs_tensor_free(whole);
    qs_tensor_free(split);
    qs_tensor_free(projected);
    return st;
}

/* mask broadcasts to (N, heads, query, key); NULL: nothing is masked. */
static qs_status attention_forward(qs_tensor **out, const attention *a, const qs_tensor *values,
                                   const qs_tensor *keys, const qs_tensor *queries,
                                   const qs_tensor *mask, qs_err *err) {
    qs_status st = QS_OK;
    qs_tensor *v = NULL, *k = NULL, *q = NULL, *kt = NULL, *scores = NULL, *sum = NULL,
              *joined = NULL, *flat = NULL;
    int64_t d = a->standard ? a->embed / a->heads : a->embed;
    TRY(project(&v, a, values, a->w_v, err));
    TRY(project(&k, a, keys, a->w_k, err));
    TRY(project(&q, a, queries, a->w_q, err));
    TRY(qs_tensor_permute(&kt, k, (int[]){ 0, 1, 3, 2 }, err));
    TRY(qs_tensor_matmul(&scores, q, kt, err));          /* (N, heads, query, key) */
    if (mask != NULL) TRY(qs_tensor_masked_fill(scores, mask, -1e20f, err));
    qs_tensor_scale(scores, (float)(1.0 / sqrt((double)d)));
    TRY(qs_tensor_softmax(scores, err));
    TRY(qs_tensor_matmul(&sum, scores, v, err));         /* (N, heads, query, head_dim) */
    TRY(qs_tensor_permute(&joined, sum, (int[]){ 0, 2, 1, 3 }, err));
    TRY(qs_tensor_reshape(&flat, joined, 3, (int64_t[]){ qs_tensor_dim(queries, 0),
                          qs_tensor_dim(queries, 1), a->embed }, err));
    TRY(qs_tensor_linear(out, flat, a->w_o, a->bias, err));
done:
    qs_tensor_free(v);
    qs_tensor_free(k);
    qs_tensor_free(q);
    qs_tensor_free(kt);
    qs_tensor_free(scores);
    qs_tensor_free(sum);
    qs_tensor_free(joined);
    qs_tensor_free(flat);
    return st;
}

/* *mask stays NULL for "none". */
static qs_status make_mask(qs_tensor **mask, const char *kind, int64_t n, int64_t n_query,
                           int64_t n_key, qs_err *err) {
    int causal = strcmp(kind, "causal") == 0;
    if (strcmp(kind, "none") == 0) return QS_OK;
    int64_t dims[] = { causal ? 1 : n, 1, causal ? n_query : 1, n_key };
    int64_t rows = dims[0] * dims[2];
    float *open = malloc((size_t)(rows * n_key) * sizeof *open);
    if (open == NULL) return QS_E_NOMEM;
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < n_key; j++)
            open[i * n_key + j] = causal ? j <= i : j < n_key - i % 3;
    qs_status st = qs_tensor_from(mask, 4, dims, open, err);
    free(open);
    return st;
}

static qs_status make_input(qs_tensor **x, int64_t n, int64_t length, int64_t embed, uint64_t seed,
                            uint64_t stream, qs_err *err) {
    qs_status st = qs_tensor_create(x, 3, (int64_t[]){ n, length, embed }, err);
    if (st == QS_OK) qs_tensor_random(*x, seed, stream, -1.0f, 1.0f);
    return st;
}

static void print_values(const qs_tensor *t, int64_t step) {
    int64_t n = qs_tensor_size(t);
    float *values = malloc((size_t)n * sizeof *values);
    if (values == NULL) return;
    qs_tensor_read(t, values);
    int64_t end = step > 0 ? n : 4;
    for (int64_t i = 0; i < end && i < n; i += step > 0 ? step : 1)
        printf("%.9g\n", (double)values[i]);
    free(values);
}

int main(int argc, char **argv) {
    static const char *const defaults[] = { "64", "10", "10", "256", "8", "1", "none", "shared",
                                            "0" };
    const char *arg[9];
    int64_t number[9];
    for (int i = 0; i < 9; i++) {
        arg[i] = i + 1 < argc ? argv[i + 1] : defaults[i];
        number[i] = strtoll(arg[i], NULL, 10);
    }
    int64_t n = number[0], n_query = number[1], n_key = number[2];
    uint64_t seed = (uint64_t)number[5];
    attention a = { .embed = number[3], .heads = number[4],
                    .standard = strcmp(arg[7], "standard") == 0 };
    qs_tensor *values = NULL, *keys = NULL, *queries = NULL, *mask = NULL, *out = NULL;
    qs_err err = { 0 };
    qs_status st = QS_OK;
    char shape[128];
    if (a.heads < 1 || a.embed % a.heads != 0) {
        fprintf(stderr, "self_attention: embed must be a multiple of heads\n");
        return 2;
    }
    TRY(make_input(&values, n, n_key, a.embed, seed, 0, &err));
    TRY(make_input(&keys, n, n_key, a.embed, seed, 1, &err));
    TRY(make_input(&queries, n, n_query, a.embed, seed, 2, &err));
    TRY(make_mask(&mask, arg[6], n, n_query, n_key, &err));
    TRY(attention_init(&a, seed, &err));
    TRY(attention_forward(&out, &a, values, keys, queries, mask, &err));
    printf("%s\nsum %.6f\n", qs_tensor_shape(out, shape, sizeof shape), qs_tensor_sum(out));
    print_values(out, number[8]);
done:
    if (st != QS_OK)
        fprintf(stderr, "self_attention: %s\n", err.text[0] ? err.text : qs_status_text(st));
    qs_tensor_free(values);
    qs_tensor_free(keys);
    qs_tensor_free(queries);
    qs_tensor_free(mask);
    qs_tensor_free(out);
    attention_release(&a);
    return st == QS_OK ? 0 : 1;
}
