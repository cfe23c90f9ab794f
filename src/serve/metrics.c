/* See metrics.h. Counts by route and status stand in a table of the statuses that are sent; times in
 * histograms with fixed bounds. One lock for all: it is taken once a request. */
#include "serve/metrics.h"

#include <pthread.h>
#include <string.h>

#include "base/mem.h"

/* Those that this server sends; 0 stands for others. */
static const int statuses[] = {200, 204, 400, 401, 403, 404, 405, 408, 413, 415,
                               422, 429, 431, 499, 500, 501, 503, 0};
enum { N_STATUSES = sizeof statuses / sizeof statuses[0], N_BOUNDS = 14 };

typedef struct histogram {
    const char *name, *help;
    double bounds[N_BOUNDS]; /* seconds, ascending */
    uint64_t counts[N_BOUNDS + 1];
    double sum;
} histogram;

struct qsi_metrics {
    pthread_mutex_t lock;
    const char *const *routes;
    size_t n_routes;
    uint64_t (*requests)[N_STATUSES];
    histogram first, between, whole;
};

static const histogram first_token = {
    "qiusuo_time_to_first_token_seconds", "From a request to its first token.",
    {.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300}, {0}, 0};
static const histogram between_tokens = {
    "qiusuo_time_between_tokens_seconds", "Between the tokens of an answer (mean of a request).",
    {.001, .0025, .005, .01, .025, .05, .1, .15, .25, .5, 1, 2.5, 5, 10}, {0}, 0};
static const histogram whole_request = {
    "qiusuo_request_duration_seconds", "From a request to the end of its answer.",
    {.005, .01, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300, 1800}, {0}, 0};

qs_status qsi_metrics_create(qsi_metrics **out, const char *const *routes, size_t n_routes,
                             qs_err *err) {
    qsi_metrics *m = qsi_calloc(1, sizeof *m);
    if (m != NULL) m->requests = qsi_calloc(n_routes, sizeof *m->requests);
    if (m == NULL || m->requests == NULL) {
        qsi_free(m);
        return qsi_err_set(err, QS_E_NOMEM, "out of memory for counters");
    }
    pthread_mutex_init(&m->lock, NULL);
    m->routes = routes;
    m->n_routes = n_routes;
    m->first = first_token;
    m->between = between_tokens;
    m->whole = whole_request;
    *out = m;
    return QS_OK;
}

void qsi_metrics_free(qsi_metrics *m) {
    if (m == NULL) return;
    pthread_mutex_destroy(&m->lock);
    qsi_free(m->requests);
    qsi_free(m);
}

static void observe(histogram *h, int64_t ns, uint64_t times) {
    const double s = (double)ns / 1e9;
    int i = 0;
    while (i < N_BOUNDS && s > h->bounds[i]) i++;
    h->counts[i] += times;
    h->sum += s * (double)times;
}

void qsi_metrics_add(qsi_metrics *m, size_t route, int status, int64_t first_ns, int64_t whole_ns,
                     int64_t n_generated) {
    int s = 0;
    while (s < N_STATUSES - 1 && statuses[s] != status) s++;
    if (route >= m->n_routes) route = m->n_routes - 1;
    pthread_mutex_lock(&m->lock);
    m->requests[route][s]++;
    observe(&m->whole, whole_ns, 1);
    if (first_ns > 0) observe(&m->first, first_ns, 1);
    if (first_ns > 0 && n_generated > 1 && whole_ns > first_ns)
        observe(&m->between, (whole_ns - first_ns) / (n_generated - 1), (uint64_t)n_generated - 1);
    pthread_mutex_unlock(&m->lock);
}

static qs_status put_head(qsi_str *s, const char *name, const char *type, const char *help) {
    return qsi_str_printf(s, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static qs_status put_value(qsi_str *s, const char *name, const char *type, const char *help, double v) {
    qs_status st = QS_OK;
    QS_TRY(put_head(s, name, type, help));
    QS_TRY(qsi_str_printf(s, "%s %.15g\n", name, v));
done:
    return st;
}

static qs_status put_histogram(qsi_str *s, const histogram *h) {
    qs_status st = QS_OK;
    uint64_t n = 0;
    QS_TRY(put_head(s, h->name, "histogram", h->help));
    for (int i = 0; i < N_BOUNDS; i++) {
        n += h->counts[i];
        QS_TRY(qsi_str_printf(s, "%s_bucket{le=\"%g\"} %llu\n", h->name, h->bounds[i],
                              (unsigned long long)n));
    }
    n += h->counts[N_BOUNDS];
    QS_TRY(qsi_str_printf(s, "%s_bucket{le=\"+Inf\"} %llu\n%s_sum %.9g\n%s_count %llu\n", h->name,
                          (unsigned long long)n, h->name, h->sum, h->name, (unsigned long long)n));
done:
    return st;
}

static qs_status put_requests(qsi_str *s, const qsi_metrics *m) {
    qs_status st = QS_OK;
    QS_TRY(put_head(s, "qiusuo_requests_total", "counter", "Requests that are over."));
    for (size_t r = 0; r < m->n_routes; r++) {
        for (int i = 0; i < N_STATUSES; i++) {
            if (m->requests[r][i] == 0) continue;
            QS_TRY(qsi_str_printf(s, "qiusuo_requests_total{route=\"%s\",status=\"", m->routes[r]));
            if (statuses[i] != 0) QS_TRY(qsi_str_printf(s, "%d", statuses[i]));
            else QS_TRY(qsi_str_puts(s, "other"));
            QS_TRY(qsi_str_printf(s, "\"} %llu\n", (unsigned long long)m->requests[r][i]));
        }
    }
done:
    return st;
}

static qs_status put_sched(qsi_str *s, const qsi_sched_stats *t) {
    qs_status st = QS_OK;
    const struct { const char *name, *type, *help; double value;
    } rows[] = {
        {"qiusuo_jobs_total", "counter", "Answers asked of the model that are over.",
         (double)t->n_jobs},
        {"qiusuo_jobs_cancelled_total", "counter", "Those that were cancelled.",
         (double)t->n_cancelled},
        {"qiusuo_jobs_failed_total", "counter", "Those that failed.", (double)t->n_failed},
        {"qiusuo_jobs_preempted_total", "counter", "Times that a sequence gave way.",
         (double)t->n_preempted},
        {"qiusuo_prompt_tokens_total", "counter", "Tokens of prompts.", (double)t->n_prompt},
        {"qiusuo_cached_tokens_total", "counter", "Those that were in the cache.",
         (double)t->n_cached},
        {"qiusuo_generated_tokens_total", "counter", "Tokens of answers.", (double)t->n_generated},
        {"qiusuo_draft_tokens_total", "counter", "Tokens that were guessed ahead.",
         (double)t->n_drafts},
        {"qiusuo_draft_hits_total", "counter", "Those that were right.", (double)t->n_hits},
        {"qiusuo_steps_total", "counter", "Steps of the model.", (double)t->n_steps},
        {"qiusuo_busy_seconds_total", "counter", "Time of those steps.", t->busy_s},
        {"qiusuo_running", "gauge", "Answers that are being computed.", (double)t->n_running},
        {"qiusuo_queue", "gauge", "Requests that wait for their turn.", (double)t->n_waiting},
        {"qiusuo_cache_pages", "gauge", "Pages of the cache, of 64 positions.", (double)t->pages},
        {"qiusuo_cache_pages_used", "gauge", "Those in use.", (double)t->pages_used},
        {"qiusuo_cache_pages_kept", "gauge", "Those kept for prompts to come.",
         (double)t->pages_cached},
    };
    for (size_t i = 0; i < QSI_COUNT(rows); i++)
        QS_TRY(put_value(s, rows[i].name, rows[i].type, rows[i].help, rows[i].value));
done:
    return st;
}

qs_status qsi_metrics_text(qsi_metrics *m, const qsi_gauges *g, qsi_str *out) {
    qs_status st = QS_OK;
    pthread_mutex_lock(&m->lock);
    QS_TRY(put_requests(out, m));
    QS_TRY(put_histogram(out, &m->first));
    QS_TRY(put_histogram(out, &m->between));
    QS_TRY(put_histogram(out, &m->whole));
    QS_TRY(put_value(out, "qiusuo_connections", "gauge", "Open connections.", (double)g->connections));
    QS_TRY(put_value(out, "qiusuo_calls", "gauge", "Requests under way.", (double)g->calls));
    QS_TRY(put_value(out, "qiusuo_ready", "gauge", "1: takes requests.", g->ready));
    QS_TRY(put_value(out, "process_resident_memory_bytes", "gauge", "Memory of the process.",
                     (double)g->resident));
    QS_TRY(put_value(out, "process_start_time_seconds", "gauge", "Start, seconds since 1970.",
                     (double)g->start));
    if (g->sched != NULL) QS_TRY(put_sched(out, g->sched));
done:
    pthread_mutex_unlock(&m->lock);
    return st;
}
