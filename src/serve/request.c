/* The fields that the APIs share: how to sample, how long, how many. See call_impl.h. */
#include <errno.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "serve/call_impl.h"

#define MAX_STOPS 16
#define MAX_BIASES 65536

void qsi_ask_init(qsi_api_call *c) {
    qsi_job_opts_init(&c->ask.o);
    c->ask.o.sampling = c->b->sampling;
    c->ask.o.seed = qsi_draw();
    c->ask.o.n_predict = c->service.default_predict;
    c->ask.max_tokens = -1;
}

/* Ollama's clients put ":latest" behind a name. */
static bool is_name(const char *given, const char *name) {
    size_t n = name != NULL ? strlen(name) : 0;
    if (n == 0 || strncmp(given, name, n) != 0) return false;
    return given[n] == '\0' || strcmp(given + n, ":latest") == 0;
}

void qsi_ask_model(qsi_api_call *c, const qsi_in *in) {
    const char *s = qsi_in_text(in, "model");
    if (s == NULL || s[0] == '\0' || is_name(s, c->b->id) || is_name(s, c->b->alias)) return;
    qsi_refuse(in->no, 404, "model_not_found", "model",
               "there is no such model here; the one there is: %s", c->b->id);
}

/* ---- sampling ---- */

static void read_bias(qsi_api_call *c, const qsi_in *in) {
    const qsi_json *j = qsi_in_object(in, "logit_bias"), *value;
    const char *key;
    size_t n = qsi_json_size(j);
    if (n == 0) return;
    if (n > MAX_BIASES) {
        qsi_in_refuse(in, "logit_bias", "has %zu entries; at most %d", n, MAX_BIASES);
        return;
    }
    qsi_logit_bias *b = qsi_arena_alloc(&c->arena, n, sizeof *b);
    if (b == NULL) {
        qsi_refuse_memory(in->no);
        return;
    }
    n = 0;
    for (void *it = qsi_json_next(j, NULL, &key, &value); it != NULL;
         it = qsi_json_next(j, it, &key, &value)) {
        char *end;
        double x;
        errno = 0;
        long id = strtol(key, &end, 10);
        if (key[0] < '0' || key[0] > '9' || *end != '\0' || errno != 0 || id >= c->b->n_vocab) {
            qsi_in_refuse(in, "logit_bias", "has a key that is no token id (0 to %d)",
                          (int)c->b->n_vocab - 1);
            return;
        }
        if (!qsi_json_as_f64(value, &x) || !(x >= -100 && x <= 100)) {
            qsi_in_refuse(in, "logit_bias", "gives id %ld something that is no number from -100 to 100",
                          id);
            return;
        }
        b[n++] = (qsi_logit_bias){ (int32_t)id, x <= -100 ? -INFINITY : (float)x };
    }
    c->ask.o.sampling.bias = b;
    c->ask.o.sampling.n_bias = n;
}

void qsi_ask_sampling(qsi_api_call *c, const qsi_in *in) {
    qsi_sampling *s = &c->ask.o.sampling;
    int64_t x;
    qsi_in_f64(in, "temperature", 0, 2, &s->temp);
    qsi_in_f64(in, "top_p", 0, 1, &s->top_p);
    qsi_in_f64(in, "min_p", 0, 1, &s->min_p);
    if (qsi_in_i64(in, "top_k", -1, INT32_MAX, &x)) s->top_k = x < 0 ? 0 : (int32_t)x;
    qsi_in_f64(in, "repeat_penalty", 0.01, 10, &s->repeat_penalty);
    qsi_in_f64(in, "repetition_penalty", 0.01, 10, &s->repeat_penalty);
    qsi_in_f64(in, "presence_penalty", -2, 2, &s->presence_penalty);
    qsi_in_f64(in, "frequency_penalty", -2, 2, &s->frequency_penalty);
    if (qsi_in_i64(in, "repeat_last_n", -1, INT32_MAX, &x)) s->penalty_last_n = (int32_t)x;
    if (qsi_in_i64(in, "seed", INT64_MIN, INT64_MAX, &x)) c->ask.o.seed = (uint64_t)x;
}

/* ---- how long ---- */

void qsi_ask_limit(qsi_api_call *c, const qsi_in *in, const char *key, int64_t least) {
    int64_t x;
    if (!qsi_in_i64(in, key, least, INT64_MAX, &x)) return;
    c->ask.max_tokens = x;
    c->ask.o.n_predict = x < 0 ? -1 : x;
}

static void one_stop(qsi_api_call *c, const qsi_in *in, const char *key, const char *s,
                     const char **out) {
    if (s == NULL || s[0] == '\0') {
        qsi_in_refuse(in, key, s == NULL ? "holds what is no string" : "holds an empty string");
        return;
    }
    *out = qsi_arena_strndup(&c->arena, s, strlen(s));
    if (*out == NULL) qsi_refuse_memory(in->no);
}

void qsi_ask_stops(qsi_api_call *c, const qsi_in *in, const char *key, size_t most) {
    const qsi_json *j = qsi_json_get(in->j, key);
    bool one = qsi_json_kind_of(j) == QSI_JSON_STR;
    if (!qsi_in_has(in, key)) return;
    if (!one && qsi_json_kind_of(j) != QSI_JSON_ARRAY) {
        qsi_in_refuse(in, key, "is neither a string nor an array of strings");
        return;
    }
    size_t n = one ? 1 : qsi_json_size(j);
    if (n > most) {
        qsi_in_refuse(in, key, "has %zu strings; at most %zu", n, most);
        return;
    }
    const char **stops = qsi_arena_calloc(&c->arena, n + 1, sizeof *stops);
    if (stops == NULL) {
        qsi_refuse_memory(in->no);
        return;
    }
    for (size_t i = 0; i < n && in->no->status == 0; i++)
        one_stop(c, in, key, qsi_json_as_str(one ? j : qsi_json_at(j, i)), &stops[i]);
    c->ask.o.stops = stops;
    c->ask.o.n_stops = n;
}

/* ---- everything else ---- */

static void read_count(qsi_api_call *c, const qsi_in *in) {
    int64_t n = 1, best;
    qsi_in_i64(in, "n", 1, 128, &n);
    best = n;
    qsi_in_i64(in, "best_of", 1, 128, &best);
    if (best < n)
        qsi_in_refuse(in, "best_of", "is %lld, less than n (%lld)", (long long)best, (long long)n);
    if (best > n && c->ask.stream)
        qsi_in_refuse(in, "best_of", "cannot be streamed: which answer is best is known at the end");
    c->ask.o.n = (int32_t)n;
    c->ask.o.best_of = (int32_t)best;
}

static void read_stream(qsi_api_call *c, const qsi_in *in) {
    qsi_in_bool(in, "stream", &c->ask.stream);
    if (qsi_in_object(in, "stream_options") == NULL) return;
    qsi_in o = qsi_in_member(in, "stream_options");
    qsi_in_bool(&o, "include_usage", &c->ask.usage);
    if (!c->ask.stream) qsi_in_refuse(in, "stream_options", "is for streams; 'stream' is not true");
}

/* Known to OpenAI's API, of no consequence here, but not of any kind. */
static void read_ignored(const qsi_in *in) {
    bool b;
    qsi_in_text(in, "user");
    qsi_in_text(in, "service_tier");
    qsi_in_text(in, "safety_identifier");
    qsi_in_object(in, "metadata");
    qsi_in_bool(in, "store", &b);
}

void qsi_ask_common(qsi_api_call *c, const qsi_in *in) {
    static const char *const ways[] = { "disabled", "auto", NULL };
    qsi_ask *a = &c->ask;
    int64_t x;
    bool b;
    qsi_ask_model(c, in);
    qsi_ask_sampling(c, in);
    read_bias(c, in);
    read_stream(c, in);
    read_count(c, in);
    qsi_ask_stops(c, in, "stop", MAX_STOPS);
    if (qsi_in_i64(in, "min_tokens", 0, INT32_MAX, &x)) a->o.n_min = x;
    qsi_in_bool(in, "ignore_eos", &a->o.ignore_end);
    if (qsi_in_i64(in, "priority", -1000, 1000, &x)) a->o.priority = (int32_t)x;
    if (qsi_in_bool(in, "cache_prompt", &b)) a->o.no_cache = !b;
    if (qsi_in_bool(in, "skip_special_tokens", &b)) a->o.special = !b;
    int way = qsi_in_word(in, "truncation", ways);
    if (way >= 0) a->truncate = way == 1;
    read_ignored(in);
    qsi_ask_constraint(c, in);
    if (a->max_tokens >= 0 && a->o.n_min > a->max_tokens)
        qsi_in_refuse(in, "min_tokens", "is more than the answer may have (%lld)",
                      (long long)a->max_tokens);
}
