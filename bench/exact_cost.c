/* What 8-bit activations cost: runs a model twice on the same ids, with float activations (--exact) and
 * as usual, and compares the distributions of every position.
 *
 *     exact_cost MODEL TYPE[,TYPE...] < ids        a line of ids is a text; see exact_cost.py
 *
 * TYPE re-encodes the matrices of MODEL into that type first; "as-is" takes them as they are. Prints
 * CSV: perplexity of both runs, mean KL divergence in nats of the usual run from the exact one, mean
 * and largest difference of the log-probability of the id that comes. The cache is F32, so that
 * nothing else is rounded. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "fmt/gguf.h"
#include "model/model.h"
#include "sys/cpu.h"

enum { MAX_TEXTS = 4096, ROWS = 64, MAX_LINE = 1 << 20 };

typedef struct text {
    int32_t *ids;
    int n;
} text;

typedef struct runner {
    qsi_model *m;
    qsi_kv *kv;
    qsi_kv_table table;
    float *logits; /* [ROWS, n_vocab] */
} runner;

typedef struct sums {
    double exact, usual, kl, diff, most;
    int64_t n;
} sums;

static bool to_encode(const qsi_tensor_spec *s, const qsi_type_info *ti) {
    return s->role != QSI_ROLE_NORM && s->role != QSI_ROLE_ROUTER && s->ne[0] % ti->block == 0;
}

static qs_status put_tensor(qsi_gguf_writer *w, const qsi_gguf_tensor *t, const qsi_type_info *ti,
                            qs_err *err) {
    qs_status st = QS_OK;
    int64_t n = t->ne[0] * t->ne[1] * t->ne[2];
    size_t bytes = (size_t)(n / ti->block) * (size_t)ti->bytes;
    float *x = qsi_alloc((size_t)n, sizeof *x);
    void *y = qsi_alloc(bytes, 1);
    if (!x || !y) QS_FAIL(err, QS_E_NOMEM, "out of memory");
    if (t->type == ti->type) QS_TRY(qsi_gguf_write(w, t->data, bytes, err));
    if (t->type == ti->type) goto done;
    qsi_type_get((int32_t)t->type)->decode(t->data, x, n);
    ti->encode(x, y, n);
    QS_TRY(qsi_gguf_write(w, y, bytes, err));
done:
    qsi_free(x);
    qsi_free(y);
    return st;
}

/* A nameless copy of g with its matrices in type ti. */
static qs_status encode(const qsi_gguf *g, const qsi_type_info *ti, qsi_gguf **out, qs_err *err) {
    qs_status st = QS_OK;
    qsi_gguf_writer *w = NULL;
    qsi_config c;
    QS_TRY(qsi_config_from_gguf(&c, g, err));
    QS_TRY(qsi_gguf_writer_open_temp(&w, "/tmp", err));
    for (size_t i = 0; i < qsi_gguf_n_kv(g); i++)
        if (qsi_gguf_put_copy(w, qsi_gguf_kv_at(g, i)) != QS_OK)
            QS_FAIL(err, QS_E_NOMEM, "out of memory");
    for (int pass = 0; pass < 2; pass++)
        for (size_t i = 0; i < qsi_config_n_tensors(&c); i++) {
            qsi_tensor_spec s;
            qsi_config_tensor(&c, i, &s);
            const qsi_gguf_tensor *t = qsi_gguf_tensor_find(g, s.name);
            if (!t) continue;
            const qsi_type_info *own = to_encode(&s, ti) ? ti : qsi_type_get((int32_t)t->type);
            if (pass) QS_TRY(put_tensor(w, t, own, err));
            else QS_TRY(qsi_gguf_declare(w, s.name, own->type, s.n_dims, s.ne, err));
        }
    QS_TRY(qsi_gguf_finish_open(&w, "(encoded)", out, err));
done:
    qsi_gguf_writer_abort(&w);
    return st;
}

static qs_status runner_open(runner *r, const qsi_gguf *g, qsi_pool *pool, bool exact, qs_err *err) {
    qs_status st = QS_OK;
    const qsi_model_opts o = {.pool = pool, .isa = qsi_cpu_isa(), .max_rows = ROWS, .exact = exact};
    QS_TRY(qsi_model_open(&r->m, g, &o, err));
    const qsi_config *c = qsi_model_config(r->m);
    QS_TRY(qsi_kv_create(&r->kv, c, QSI_F32, c->n_ctx / QSI_KV_PAGE + 1, err));
    r->logits = qsi_alloc(ROWS * (size_t)c->n_vocab, sizeof *r->logits);
    if (!r->logits) QS_FAIL(err, QS_E_NOMEM, "out of memory");
done:
    return st;
}

static void runner_close(runner *r) {
    if (r->kv) qsi_kv_table_release(r->kv, &r->table);
    qsi_free(r->logits);
    qsi_kv_free(r->kv);
    qsi_model_close(&r->m);
}

static qs_status step(runner *r, const text *t, int at, int n, qs_err *err) {
    qs_status st = QS_OK;
    qsi_row rows[ROWS];
    QS_TRY(qsi_kv_reserve(r->kv, &r->table, at + n, err));
    for (int i = 0; i < n; i++)
        rows[i] = (qsi_row){.id = t->ids[at + i], .pos = at + i, .logits = true};
    const qsi_step s = {.rows = rows, .n_rows = n, .kv = r->kv, .tables = &r->table, .n_tables = 1,
                        .logits = r->logits};
    QS_TRY(qsi_model_step(r->m, &s, err));
done:
    return st;
}

/* log of the sum of exponentials */
static double log_sum(const float *z, int64_t n) {
    double top = -INFINITY, sum = 0;
    for (int64_t i = 0; i < n; i++) top = fmax(top, (double)z[i]);
    for (int64_t i = 0; i < n; i++) sum += exp((double)z[i] - top);
    return top + log(sum);
}

static void compare(sums *s, const float *p, const float *q, int64_t n, int32_t next) {
    double lp = log_sum(p, n), lq = log_sum(q, n), kl = 0;
    for (int64_t i = 0; i < n; i++) {
        double a = (double)p[i] - lp, b = (double)q[i] - lq;
        kl += exp(a) * (a - b);
    }
    double a = (double)p[next] - lp, b = (double)q[next] - lq;
    s->exact -= a;
    s->usual -= b;
    s->kl += kl;
    s->diff += fabs(a - b);
    s->most = fmax(s->most, fabs(a - b));
    s->n++;
}

static qs_status one_text(runner r[2], const text *t, sums *s, qs_err *err) {
    qs_status st = QS_OK;
    int64_t V = qsi_model_config(r[0].m)->n_vocab;
    for (int at = 0, n; at < t->n; at += n) {
        n = t->n - at < ROWS ? t->n - at : ROWS;
        for (int i = 0; i < 2; i++) QS_TRY(step(&r[i], t, at, n, err));
        for (int i = 0; i < n && at + i + 1 < t->n; i++)
            compare(s, r[0].logits + i * V, r[1].logits + i * V, V, t->ids[at + i + 1]);
    }
done:
    return st;
}

static qs_status one_type(const qsi_gguf *g, const char *name, qsi_pool *pool, const text *texts,
                          int n_texts, qs_err *err) {
    qs_status st = QS_OK;
    runner r[2] = {0};
    sums s = {0};
    qsi_gguf *own = NULL;
    const qsi_type_info *ti = qsi_type_find(name);
    if (strcmp(name, "as-is") != 0) {
        if (!ti || !ti->encode) QS_FAIL(err, QS_E_ARG, "no type '%s'", name);
        QS_TRY(encode(g, ti, &own, err));
    }
    for (int i = 0; i < 2; i++) QS_TRY(runner_open(&r[i], own ? own : g, pool, i == 0, err));
    for (int i = 0; i < n_texts; i++) QS_TRY(one_text(r, &texts[i], &s, err));
    double n = (double)s.n;
    printf("%s,%lld,%.6f,%.6f,%+.4f,%.3e,%.3e,%.4f\n", name, (long long)s.n, exp(s.exact / n),
           exp(s.usual / n), 100 * (exp((s.usual - s.exact) / n) - 1), s.kl / n, s.diff / n, s.most);
    fflush(stdout);
done:
    runner_close(&r[0]);
    runner_close(&r[1]);
    qsi_gguf_close(&own);
    return st;
}

/* Lines of ids from standard input; what it holds lives as long as the program. */
static int read_texts(text *texts, int max_ids) {
    static char line[MAX_LINE];
    int n = 0;
    while (n < MAX_TEXTS && fgets(line, sizeof line, stdin)) {
        text *t = &texts[n];
        char *p = line, *end;
        t->ids = qsi_alloc((size_t)max_ids, sizeof *t->ids);
        if (!t->ids) return -1;
        for (t->n = 0; t->n < max_ids; p = end) {
            long id = strtol(p, &end, 10);
            if (end == p) break;
            t->ids[t->n++] = (int32_t)id;
        }
        if (t->n > 1) n++;
    }
    return n;
}

int main(int argc, char **argv) {
    static text texts[MAX_TEXTS];
    qs_err err = {0};
    qs_status st = QS_OK;
    qsi_pool *pool = NULL;
    qsi_gguf *g = NULL;
    qsi_config c;
    if (argc != 3) {
        fputs("usage: exact_cost MODEL TYPE[,TYPE...] < ids\n", stderr);
        return 2;
    }
    QS_TRY(qsi_gguf_open(&g, argv[1], &err));
    QS_TRY(qsi_config_from_gguf(&c, g, &err));
    QS_TRY(qsi_pool_create(&pool, 0, &err));
    int n = read_texts(texts, (int)c.n_ctx);
    if (n < 1) QS_FAIL(&err, QS_E_ARG, "no ids");
    puts("type,tokens,ppl_exact,ppl,percent,kl,mean_diff,most_diff");
    for (char *p = argv[2], *end; *p; p = end) {
        end = p + strcspn(p, ",");
        if (*end) *end++ = '\0';
        QS_TRY(one_type(g, p, pool, texts, n, &err));
    }
done:
    if (st != QS_OK) fprintf(stderr, "exact_cost: %s\n", err.text);
    for (int i = 0; i < MAX_TEXTS; i++) qsi_free(texts[i].ids);
    qsi_pool_free(pool);
    qsi_gguf_close(&g);
    return st == QS_OK ? 0 : 1;
}
