/* Sessions of the public API: one sequence, its cache, its random numbers; generation; scoring. */
#include <errno.h>
#include <math.h>
#include <string.h>

#include "api/api.h"
#include "base/mem.h"
#include "sys/file.h"

/* A seed nobody chose. */
static uint64_t fresh_seed(const void *object) {
    int64_t t = qsi_now_ns();
    uintptr_t p = (uintptr_t)object;
    return qsi_hash(&t, sizeof t) ^ qsi_hash(&p, sizeof p);
}

/* Most positions: a cache beyond the trained context is allowed (the caller may know better), one
 * beyond this never is. */
#define MAX_CTX ((int64_t)1 << 24)

qs_status qsi_api_kv_type(int32_t public_type, qsi_type *out, qs_err *err) {
    switch (public_type) {
    case QS_KV_F16: *out = QSI_F16; return QS_OK;
    case QS_KV_F32: *out = QSI_F32; return QS_OK;
    case QS_KV_BF16: *out = QSI_BF16; return QS_OK;
    case QS_KV_Q4_0: *out = QSI_Q4_0; return QS_OK;
    case QS_KV_Q8_0: *out = QSI_Q8_0; return QS_OK;
    default: return qsi_err_set(err, QS_E_ARG, "unknown type of cache: %d", (int)public_type);
    }
}

qs_status qs_session_create(qs_session **out, qs_model *m, const qs_session_opts *opts,
                            qs_err *err) {
    qs_status st = QS_OK;
    qs_session_opts o;
    qs_session *s = NULL;
    qs_session_opts_init(&o, sizeof o);
    qsi_api_opts(&o, sizeof o, opts);
    if (!m->model)
        QS_FAIL(err, QS_E_UNSUPPORTED, "'%s' was opened as a vocabulary: it cannot run", m->path);
    if (o.n_ctx < 0 || o.n_ctx > MAX_CTX)
        QS_FAIL(err, QS_E_ARG, "context of %lld: 1 to %lld is possible", (long long)o.n_ctx,
                (long long)MAX_CTX);
    qsi_type kv = QSI_F16;
    QS_TRY(qsi_api_kv_type(o.kv_type, &kv, err));
    s = qsi_calloc(1, sizeof *s);
    if (!s) QS_FAIL(err, QS_E_NOMEM, "out of memory");
    s->model = m;
    /* pages for the conversation and for a walk (score) beside it */
    QS_TRY(qsi_model_runner_init(&s->runner, m->model, o.n_ctx, kv, 2, err));
    s->runner.file = m->g;
    QS_TRY(qsi_engine_create(&s->engine, &s->runner.runner, 1, err));
    QS_TRY(qsi_seq_init(&s->seq, s->engine, err));
    QS_TRY(qsi_sampler_create(&s->sampler, s->runner.runner.n_vocab, err));
    qsi_rng_init(&s->rng, fresh_seed(s));
    *out = s;
    s = NULL;
done:
    qs_session_free(s);
    return st;
}

void qs_session_free(qs_session *s) {
    if (!s) return;
    qsi_api_drop_turns(s, 0);
    qsi_api_drop_tools(s);
    qsi_free(s->turns);
    qsi_str_release(&s->text);
    qsi_str_release(&s->report);
    qsi_sampler_free(s->sampler);
    qsi_seq_release(&s->seq);
    qsi_engine_free(s->engine);
    qsi_model_runner_release(&s->runner);
    qsi_free(s);
}

int64_t qs_session_n_ctx(const qs_session *s) { return s->runner.runner.n_ctx; }
int64_t qs_session_n_ids(const qs_session *s) { return (int64_t)s->seq.n_ids; }

int32_t qs_session_id(const qs_session *s, int64_t i) {
    return i >= 0 && (uint64_t)i < s->seq.n_ids ? s->seq.ids[i] : -1;
}

void qs_session_cancel(qs_session *s) { atomic_store(&s->cancel, 1); }
void qs_session_seed(qs_session *s, uint64_t seed) { qsi_rng_init(&s->rng, seed); }

int64_t qs_session_drafts(const qs_session *s, int64_t *came) {
    if (came) *came = s->seq.n_hits;
    return s->seq.n_drafts;
}

const char *qs_session_text(const qs_session *s, size_t *n) {
    if (n) *n = s->text.len;
    return s->text.data ? s->text.data : "";
}

const char *qs_finish_text(qs_finish f) {
    static const char *const names[] = { "end", "stop", "length", "context", "cancelled",
                                         "callback" };
    return (unsigned)f < QSI_COUNT(names) ? names[f] : "unknown";
}

/* ---- generation ------------------------------------------------------------------------------- */

_Static_assert(sizeof(qs_bias) == sizeof(qsi_logit_bias), "biases have one layout");
_Static_assert(sizeof(qs_logprob) == sizeof(qsi_logprob), "log-probabilities have one layout");
_Static_assert((int)QS_FINISH_CALLBACK == (int)QSI_FINISH_CALLBACK, "reasons have one order");

/* The public callbacks behind the engine's. */
typedef struct listener {
    const qs_gen_opts *o;
    qs_logprob top[QSI_MAX_TOP_LOGPROBS];
    int64_t n_tokens;
} listener;

static int hear_text(void *user, const char *p, size_t n) {
    listener *l = user;
    return l->o->on_text ? l->o->on_text(l->o->user, p, n) : 0;
}

static int hear_token(void *user, const qsi_gen_token *t) {
    listener *l = user;
    for (int32_t i = 0; i < t->n_top; i++)
        l->top[i] = (qs_logprob){ t->top[i].id, t->top[i].logprob };
    qs_token pub = { .id = t->id, .n_top = t->n_top, .logprob = t->logprob, .top = l->top,
                     .text = t->text, .n_text = t->n_text };
    return l->o->on_token(l->o->user, &pub);
}

/* The sampler's settings; biases are copied into *bias, owned by the caller. */
static qs_status to_sampling(const qs_gen_opts *o, qsi_sampling *s, qsi_logit_bias **bias,
                             qs_err *err) {
    qs_status st = QS_OK;
    *bias = qsi_alloc(o->n_bias, sizeof **bias);
    if (!*bias) QS_FAIL(err, QS_E_NOMEM, "out of memory for logit biases");
    for (size_t i = 0; i < o->n_bias; i++)
        (*bias)[i] = (qsi_logit_bias){ o->bias[i].id, o->bias[i].bias };
    *s = (qsi_sampling){ .temp = o->temp, .top_k = o->top_k, .top_p = o->top_p, .min_p = o->min_p,
                         .repeat_penalty = o->repeat_penalty,
                         .presence_penalty = o->presence_penalty,
                         .frequency_penalty = o->frequency_penalty,
                         .penalty_last_n = o->penalty_last_n, .bias = *bias,
                         .n_bias = o->n_bias };
done:
    return st;
}

qs_status qsi_api_generate(qs_session *s, const qs_gen_opts *o, bool strip_space,
                           qsi_answer *answer, size_t n_cached, qs_gen_stats *stats,
                           int64_t *exact_ids, qs_err *err) {
    qs_status st = QS_OK;
    qsi_gen g = { 0 };
    qsi_logit_bias *bias = NULL;
    listener *l = qsi_calloc(1, sizeof *l);
    int64_t t0 = qsi_now_ns(), t1 = t0;
    size_t n_prompt = s->seq.n_ids;
    s->seq.n_drafts = s->seq.n_hits = 0;
    if (!l) QS_FAIL(err, QS_E_NOMEM, "out of memory");
    l->o = o;
    qsi_gen_opts go = { .n_predict = o->n_predict, .stops = o->stops, .n_stops = o->n_stops,
                        .ignore_end = o->ignore_end != 0, .special = o->show_special != 0,
                        .strip_space = strip_space, .answer = answer,
                        .top_logprobs = o->top_logprobs,
                        .on_text = hear_text, .on_token = o->on_token ? hear_token : NULL,
                        .user = l };
    QS_TRY(to_sampling(o, &go.sampling, &bias, err));
    if (o->seed >= 0) qsi_rng_init(&s->rng, (uint64_t)o->seed);
    QS_TRY(qsi_gen_init(&g, &go, &s->seq, s->sampler, s->model->tok.vocab, &s->rng, err));
    QS_TRY(qsi_gen_run(&g, &s->cancel, &t1, err));
    int64_t t2 = qsi_now_ns();
    if (t1 == t0) t1 = t2;
    const qsi_str *text = answer ? &answer->text : &g.text;
    qsi_str_clear(&s->text);
    if (text->len > 0 && qsi_str_append(&s->text, text->data, text->len) != QS_OK)
        QS_FAIL(err, QS_E_NOMEM, "out of memory for the answer");
    if (exact_ids) *exact_ids = qsi_gen_exact_ids(&g);
    if (stats)
        *stats = (qs_gen_stats){ .n_prompt = (int64_t)n_prompt, .n_cached = (int64_t)n_cached,
                                 .n_generated = (int64_t)(s->seq.n_ids - n_prompt),
                                 .prompt_s = (double)(t1 - t0) * 1e-9,
                                 .gen_s = (double)(t2 - t1) * 1e-9,
                                 .finish = (qs_finish)g.finish };
done:
    qsi_gen_release(&g);
    qsi_free(bias);
    qsi_free(l);
    return st;
}

qs_status qs_generate_ids(qs_session *s, const int32_t *ids, size_t n, const qs_gen_opts *opts,
                          qs_gen_stats *stats, qs_err *err) {
    qs_status st = QS_OK;
    qs_gen_opts o;
    size_t n_cached;
    atomic_store(&s->cancel, 0);
    qs_gen_opts_init(&o, sizeof o, s->model);
    qsi_api_opts(&o, sizeof o, opts);
    QS_TRY(qsi_seq_set(&s->seq, ids, n, &n_cached, err));
    QS_TRY(qsi_api_generate(s, &o, false, NULL, n_cached, stats, NULL, err));
done:
    return st;
}

qs_status qs_generate(qs_session *s, const char *text, size_t n, uint32_t flags,
                      const qs_gen_opts *o, qs_gen_stats *stats, qs_err *err) {
    qs_status st = QS_OK;
    qsi_ids ids = { 0 };
    unsigned f = flags & QS_ENCODE_SPECIAL ? QSI_ENC_SPECIAL : 0;
    if (flags & QS_ENCODE_BOS && qsi_vocab_add_bos(s->model->tok.vocab)) f |= QSI_ENC_BOS;
    QS_TRY(qsi_encode(s->model->tok.vocab, text, n, f, &ids, err));
    QS_TRY(qs_generate_ids(s, ids.data, ids.len, o, stats, err));
done:
    qsi_ids_release(&ids);
    return st;
}

qs_status qs_generate_fim(qs_session *s, const char *before, size_t n_before, const char *behind,
                          size_t n_behind, const qs_gen_opts *o, qs_gen_stats *stats, qs_err *err) {
    qs_status st = QS_OK;
    qsi_ids ids = { 0 };
    QS_TRY(qsi_encode_fim(s->model->tok.vocab, before, n_before, behind, n_behind, &ids, err));
    QS_TRY(qs_generate_ids(s, ids.data, ids.len, o, stats, err));
done:
    qsi_ids_release(&ids);
    return st;
}

/* ---- scoring ---------------------------------------------------------------------------------- */

typedef struct scoring {
    qs_session *s;
    const int32_t *ids;
    size_t n;
    int32_t n_top;
    double next;            /* log-probability of the id after the last position seen */
    qsi_logprob *top;
    qs_logprob *pub;
    qs_score_fn *fn;
    void *user;
} scoring;

static int score_position(void *user, size_t pos, const float *logits) {
    scoring *c = user;
    int32_t n_vocab = c->s->runner.runner.n_vocab;
    qs_score_pos p = { .pos = (int64_t)pos, .id = c->ids[pos], .logprob = c->next, .top = c->pub };
    p.n_top = qsi_logprob_top(c->s->sampler, logits, c->n_top, c->top);
    for (int32_t i = 0; i < p.n_top; i++)
        c->pub[i] = (qs_logprob){ c->top[i].id, c->top[i].logprob };
    if (pos + 1 < c->n) c->next = qsi_logprob_of(logits, n_vocab, c->ids[pos + 1]);
    return c->fn(c->user, &p);
}

qs_status qs_score(qs_session *s, const int32_t *ids, size_t n, int32_t top, qs_score_fn *fn,
                   void *user, qs_err *err) {
    qs_status st = QS_OK;
    int32_t n_vocab = s->runner.runner.n_vocab;
    if (top < 0) QS_FAIL(err, QS_E_ARG, "%d likeliest ids: 0 or more", (int)top);
    if (top > n_vocab) top = n_vocab;
    scoring c = { .s = s, .ids = ids, .n = n, .n_top = top, .next = NAN, .fn = fn, .user = user };
    atomic_store(&s->cancel, 0);
    c.top = qsi_alloc((size_t)top, sizeof *c.top);
    c.pub = qsi_alloc((size_t)top, sizeof *c.pub);
    if (!c.top || !c.pub) QS_FAIL(err, QS_E_NOMEM, "out of memory for the likeliest ids");
    QS_TRY(qsi_engine_walk(s->engine, ids, n, score_position, &c, &s->cancel, err));
done:
    qsi_free(c.top);
    qsi_free(c.pub);
    return st;
}
