/* qiusuo eval: how well a model predicts a text, and how near it is to another one. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include <jansson.h>

#include "commands.h"
#include "gen_args.h"
#include "qiusuo/measure.h"
#include "ui.h"

#define MAX_TEXT ((size_t)1 << 30)

typedef struct args {
    qsa_model_args model;
    const char *against;
    int64_t window, stride;
    bool json;
} args;

static json_t *number(qs_estimate e) {
    return json_pack("{s:f, s:f}", "value", e.value, "se", e.se);
}

static int print_json(const args *a, const char *model, const qs_eval_text_report *r) {
    json_t *all = json_pack("{s:s, s:I, s:I, s:I, s:I, s:o, s:o, s:f}", "model", model, "tokens",
                            (json_int_t)r->n_tokens, "bytes", (json_int_t)r->n_bytes, "window",
                            (json_int_t)r->ctx, "stride", (json_int_t)r->stride, "nll",
                            number(r->nll), "perplexity", number(r->ppl), "bits_per_byte",
                            r->bits_per_byte);
    if (all != NULL && a->against != NULL) {
        json_t *kl = number(r->kl);
        json_object_set_new(kl, "median", json_real(r->kl_median));
        json_object_set_new(kl, "p99", json_real(r->kl_p99));
        json_object_set_new(kl, "max", json_real(r->kl_max));
        json_object_set_new(all, "against",
                            json_pack("{s:s, s:o, s:o, s:o, s:o, s:o}", "model", a->against, "nll",
                                      number(r->base_nll), "perplexity", number(r->base_ppl),
                                      "nll_difference", number(r->diff), "kl", kl, "same_top",
                                      number(r->agree)));
    }
    char *text = all != NULL ? json_dumps(all, JSON_COMPACT) : NULL;
    if (text != NULL) puts(text);
    else qsa_say("out of memory");
    int rc = text != NULL ? QSA_EXIT_OK : QSA_EXIT_FAILED;
    json_decref(all);
    free(text);
    return rc;
}

static void row(const char *what, qs_estimate e) {
    printf("%-28s %14.6f +- %.6f\n", what, e.value, e.se);
}

static void print_table(const args *a, const qs_eval_text_report *r) {
    printf("%-28s %14" PRId64 " (%" PRId64 " bytes)\n", "tokens scored", r->n_tokens, r->n_bytes);
    printf("%-28s %14" PRId64 " (stride %" PRId64 ")\n", "window", r->ctx, r->stride);
    row("nats a token", r->nll);
    row("perplexity", r->ppl);
    printf("%-28s %14.6f\n", "bits a byte", r->bits_per_byte);
    if (a->against == NULL) return;
    row("nats a token, other model", r->base_nll);
    row("perplexity, other model", r->base_ppl);
    row("nats more than the other", r->diff);
    row("KL(other || model), mean", r->kl);
    printf("%-28s %14.6f\n", "KL, median", r->kl_median);
    printf("%-28s %14.6f\n", "KL, 99th percentile", r->kl_p99);
    printf("%-28s %14.6f\n", "KL, greatest", r->kl_max);
    row("same likeliest token", r->agree);
}

static int evaluate(const args *a, const char *file, qs_model *m, qs_session *s, qs_session *base) {
    qs_err err = { 0 };
    qs_eval_opts o;
    qs_eval_text_report r;
    qsa_progress progress;
    char *text = NULL;
    size_t n;
    qs_status st = qsa_read_text(file, MAX_TEXT, &text, &n, &err);
    if (st == QS_OK) st = qsa_check_utf8(text, n, file, &err);
    if (st == QS_OK) {
        qs_eval_opts_init(&o, sizeof o);
        o.ctx = a->window;
        o.stride = a->stride;
        o.progress = qsa_on_progress;
        o.user = &progress;
        qsa_progress_begin(&progress, "evaluating", "tokens", 0);
        qsa_cancel_on_interrupt(s, true);
        st = qs_eval_text(s, base, text, n, &o, &r, &err);
        qsa_cancel_on_interrupt(s, false);
        qsa_progress_end(&progress);
    }
    free(text);
    if (st != QS_OK) return qsa_fail(st, &err);
    if (a->json) return print_json(a, qs_model_path(m), &r);
    print_table(a, &r);
    return QSA_EXIT_OK;
}

int cmd_eval(int argc, char **argv) {
    args a = { 0 };
    const qsa_opt opts[] = {
        QSA_MODEL_OPTS(a.model),
        QSA_OPT_STR(0, "against", "MODEL", &a.against,
                    "compare with this model of the same vocabulary"),
        QSA_OPT_INT(0, "window", "N", &a.window, 0, 16777216,
                    "tokens of a window (0: the context, at most 2048)"),
        QSA_OPT_INT(0, "stride", "N", &a.stride, 0, 16777216,
                    "tokens from window to window (0: half a window)"),
        QSA_OPT_FLAG(0, "json", &a.json, "print one JSON object"),
    };
    const qsa_cmd cmd = {
        .name = "eval",
        .synopsis = "[MODEL] TEXT [--against MODEL] [--json]",
        .about = "Perplexity of a text, read in windows that overlap; every token is scored once, and\n"
                 "all but the first have at least window - stride tokens before them. With --against\n"
                 "also how far the model is from another: the Kullback-Leibler divergence from that\n"
                 "one's distribution, and how often both find the same token likeliest. Logarithms\n"
                 "are natural; standard errors take tokens as independent.\n",
        .examples = "  qiusuo eval -m model.gguf text.txt\n"
                    "  qiusuo eval -m model-q4_0.gguf --against model-f16.gguf text.txt --json\n",
        .opts = opts, .n_opts = sizeof opts / sizeof opts[0], .min_pos = 1, .max_pos = 2,
    };
    qsa_pos pos;
    qs_model *m = NULL, *other = NULL;
    qs_session *s = NULL, *base = NULL;
    int rc = qsa_parse(&cmd, argc, argv, &pos);
    if (rc != QSA_GO) return rc;
    if (pos.n == 2) {
        if (a.model.model != NULL) return qsa_usage(&cmd, "the model is named twice");
        qsa_take_model(&a.model, &pos);
    }
    rc = qsa_open(&a.model, &m, &s);
    if (rc == QSA_GO && a.against != NULL) {
        qsa_model_args second = a.model;
        second.model = a.against;
        rc = qsa_open(&second, &other, &base);
    }
    if (rc == QSA_GO) rc = evaluate(&a, pos.v[0], m, s, base);
    qs_session_free(base);
    qs_session_free(s);
    qs_model_close(&other);
    qs_model_close(&m);
    return rc;
}
