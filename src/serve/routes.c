/* What the server answers by itself: the page, whether it lives, whether it takes requests, what it
 * counts, what its slots do. See httpd_impl.h. */
#include <string.h>

#include "base/mem.h"
#include "serve/httpd_impl.h"
#include "sys/file.h"

enum { ROUTE_PAGE, ROUTE_HEALTH, ROUTE_READY, ROUTE_METRICS, ROUTE_SLOTS };
const char *const qsi_own_routes[QSI_OWN_ROUTES] = {"/", "/health", "/ready", "/metrics", "/slots"};

bool qsi_route_is_open(size_t route) { return route <= ROUTE_READY; }

static qsi_backend *take_backend(const exchange *x) {
    return x->h->service->backend(x->h->service->user);
}
static void let_go(const exchange *x, qsi_backend *b) { x->h->part->let_go(b); }

static qs_status answer_health(exchange *x) {
    x->own.status = 200;
    return qsi_str_puts(&x->own.body, "{\"status\":\"ok\"}\n");
}

static qs_status answer_ready(exchange *x) {
    qsi_backend *b = take_backend(x);
    const bool draining = atomic_load(&x->h->draining), ready = b != NULL && !draining;
    let_go(x, b);
    x->own.status = ready ? 200 : 503;
    return qsi_str_printf(&x->own.body, "{\"status\":\"%s\"}\n",
                          ready ? "ok" : draining ? "draining" : "loading model");
}

static qs_status answer_metrics(exchange *x) {
    qsi_httpd *h = x->h;
    qsi_backend *b = take_backend(x);
    qsi_sched_stats stats;
    const qsi_gauges g = {.connections = atomic_load(&h->n_peers), .calls = atomic_load(&h->n_calls),
                          .sched = b != NULL && b->sched != NULL ? &stats : NULL,
                          .resident = qsi_mem_resident(), .start = h->start_s,
                          .ready = b != NULL && !atomic_load(&h->draining)};
    if (g.sched != NULL) qsi_sched_stats_get(b->sched, &stats);
    let_go(x, b);
    x->own.status = 200;
    x->own.content_type = "text/plain; version=0.0.4; charset=utf-8";
    return qsi_metrics_text(h->metrics, &g, &x->own.body);
}

static qs_status put_slot(qsi_str *s, int32_t i, const qsi_slot *slot, int64_t n_ctx) {
    qs_status st = QS_OK;
    QS_TRY(qsi_str_printf(s, "%s{\"id\":%d,\"n_ctx\":%lld,\"is_processing\":%s", i > 0 ? "," : "",
                          (int)i, (long long)n_ctx, slot->job >= 0 ? "true" : "false"));
    if (slot->job >= 0)
        QS_TRY(qsi_str_printf(s,
                              ",\"id_task\":%lld,\"answer\":%d,\"state\":\"%s\",\"n_prompt\":%lld,"
                              "\"n_past\":%lld,\"n_decoded\":%lld",
                              (long long)slot->job, (int)slot->index,
                              slot->prompt ? "prompt" : "decode", (long long)slot->n_prompt,
                              (long long)slot->n_past, (long long)slot->n_generated));
    QS_TRY(qsi_str_putc(s, '}'));
done:
    return st;
}

static qs_status answer_slots(exchange *x) {
    qs_status st = QS_OK;
    qsi_slot *slots = NULL;
    qsi_backend *b = take_backend(x);
    if (b == NULL || b->sched == NULL) {
        qsi_exchange_refuse(x, 503, "loading", "the model is being loaded");
        goto done;
    }
    const int32_t n = qsi_sched_slots(b->sched, NULL, 0);
    slots = qsi_calloc((size_t)n, sizeof *slots);
    if (slots == NULL) QS_FAIL(NULL, QS_E_NOMEM, "out of memory");
    qsi_sched_slots(b->sched, slots, n);
    x->own.status = 200;
    QS_TRY(qsi_str_putc(&x->own.body, '['));
    for (int32_t i = 0; i < n; i++) QS_TRY(put_slot(&x->own.body, i, &slots[i], b->n_ctx));
    QS_TRY(qsi_str_puts(&x->own.body, "]\n"));
done:
    qsi_free(slots);
    let_go(x, b);
    return st;
}

qs_status qsi_route_answer(exchange *x) {
    x->own.content_type = "application/json";
    switch (x->route) {
    case ROUTE_HEALTH: return answer_health(x);
    case ROUTE_READY: return answer_ready(x);
    case ROUTE_METRICS: return answer_metrics(x);
    case ROUTE_SLOTS: return answer_slots(x);
    default: qsi_exchange_refuse(x, 404, "not_found", "there is no page in this build"); return QS_OK;
    }
}

/* Does Accept-Encoding name gzip, and not only to refuse it? */
static bool takes_gzip(const char *accept) {
    const char *p = accept != NULL ? strstr(accept, "gzip") : NULL;
    if (p == NULL) return false;
    for (p += 4; *p == ' ' || *p == ';'; p++) {}
    return strncmp(p, "q=0", 3) != 0 || (p[3] == '.' && strspn(p + 4, "0") < strcspn(p + 4, ",; "));
}

struct MHD_Response *qsi_route_page(exchange *x, int *status) {
    const qsi_httpd_page *page = x->h->page;
    const char *accept = MHD_lookup_connection_value(x->mc, MHD_HEADER_KIND, "Accept-Encoding");
    const char *have = MHD_lookup_connection_value(x->mc, MHD_HEADER_KIND, "If-None-Match");
    const bool same = have != NULL && strcmp(have, page->etag) == 0, gzip = takes_gzip(accept);
    const void *data = gzip ? page->gzip : page->plain;
    const size_t n = same ? 0 : gzip ? page->n_gzip : page->n_plain;
    struct MHD_Response *r = MHD_create_response_from_buffer(n, (void *)(uintptr_t)data,
                                                             MHD_RESPMEM_PERSISTENT);
    if (r == NULL) return NULL;
    *status = same ? 304 : 200;
    x->bytes = n;
    MHD_add_response_header(r, "Content-Type", "text/html; charset=utf-8");
    MHD_add_response_header(r, "Content-Security-Policy", page->csp);
    MHD_add_response_header(r, "Referrer-Policy", "no-referrer");
    MHD_add_response_header(r, "X-Frame-Options", "DENY");
    MHD_add_response_header(r, "Cache-Control", "no-cache");
    MHD_add_response_header(r, "Vary", "Accept-Encoding");
    MHD_add_response_header(r, "ETag", page->etag);
    if (gzip && !same) MHD_add_response_header(r, "Content-Encoding", "gzip");
    return r;
}
