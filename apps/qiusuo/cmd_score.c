/* qiusuo score: log-probabilities of a text, one JSON object per position. The form is fixed: other
 * programs read it. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "commands.h"
#include "gen_args.h"
#include "ui.h"

#define MAX_TEXT ((size_t)1 << 30)

typedef struct args {
    qsa_model_args model;
    const char *ids_text;
    int32_t *ids;   /* of --ids, owned */
    size_t n_ids;
    int64_t top;
    bool ppl, no_bos, no_special;
} args;

/* "1 2 3" or "1,2,3": at most as many ids as half the characters. Returns their number, -1 for a
 * word that is no id. */
static int64_t parse_ids(const char *text, int32_t *ids) {
    int64_t n = 0;
    for (const char *p = text;;) {
        p += strspn(p, " ,\t\r\n");
        if (*p == '\0') return n;
        char *end;
        if (strchr("0123456789-", *p) == NULL) return -1;
        long long v = strtoll(p, &end, 10);
        if (end == p || (*end != '\0' && strchr(" ,\t\r\n", *end) == NULL)) return -1;
        /* out of every vocabulary's range: the model says so with the position */
        ids[n++] = v < 0 ? -1 : v > INT32_MAX ? INT32_MAX : (int32_t)v;
        p = end;
    }
}

static qs_status text_ids(const args *a, const qs_model *m, int32_t **ids, size_t *n, qs_err *err) {
    char *text = NULL;
    size_t n_text;
    unsigned flags = (a->no_bos ? 0 : QS_ENCODE_BOS) | (a->no_special ? 0 : QS_ENCODE_SPECIAL);
    qs_status st = qsa_read_text("-", MAX_TEXT, &text, &n_text, err);
    if (st == QS_OK) {
        size_t cap = 3 * n_text + 1;
        *ids = malloc(cap * sizeof **ids);
        st = *ids == NULL ? QS_E_NOMEM
                          : qs_tokenizer_encode(qs_model_tokenizer(m), text, n_text, flags, *ids,
                                                cap, n, err);
    }
    free(text);
    return st;
}

/* Six digits after the point; never "-0.000000". */
static void print_number(double x) {
    char buf[64];
    snprintf(buf, sizeof buf, "%.6f", x);
    fputs(strcmp(buf, "-0.000000") == 0 ? buf + 1 : buf, stdout);
}

static int print_position(void *user, const qs_score_pos *p) {
    (void)user;
    printf("{\"pos\":%" PRId64 ",\"id\":%" PRId32 ",\"logprob\":", p->pos, p->id);
    if (isnan(p->logprob)) fputs("null", stdout);
    else print_number(p->logprob);
    fputs(",\"top\":[", stdout);
    for (int32_t i = 0; i < p->n_top; i++) {
        printf("%s[%" PRId32 ",", i > 0 ? "," : "", p->top[i].id);
        print_number(p->top[i].logprob);
        putchar(']');
    }
    fputs("]}\n", stdout);
    return ferror(stdout);
}

typedef struct perplexity {
    double sum;
    int64_t n;
} perplexity;

static int add_position(void *user, const qs_score_pos *p) {
    perplexity *x = user;
    if (isnan(p->logprob)) return 0;
    x->sum += p->logprob;
    x->n++;
    return 0;
}

static int score(args *a, const qs_model *m, qs_session *s) {
    qs_err err = { 0 };
    qs_status st = QS_OK;
    perplexity ppl = { 0 };
    if (a->ids == NULL) st = text_ids(a, m, &a->ids, &a->n_ids, &err);
    if (st == QS_OK && a->n_ids < (a->ppl ? 2 : 1)) {
        qsa_say(a->ppl ? "a perplexity needs at least two tokens" : "the text has no tokens");
        return QSA_EXIT_FAILED;
    }
    if (st == QS_OK)
        st = qs_score(s, a->ids, a->n_ids, (int32_t)a->top, a->ppl ? add_position : print_position,
                      &ppl, &err);
    if (st != QS_OK) return qsa_fail(st, &err);
    if (a->ppl) printf("%.6f\n", exp(-ppl.sum / (double)ppl.n));
    return QSA_EXIT_OK;
}

int cmd_score(int argc, char **argv) {
    args a = { 0 };
    const qsa_opt opts[] = {
        QSA_MODEL_OPTS(a.model),
        QSA_OPT_STR(0, "ids", "\"1 2 3\"", &a.ids_text, "score these ids instead of a text"),
        QSA_OPT_INT(0, "top", "K", &a.top, 0, INT32_MAX, "show the K likeliest next ids"),
        QSA_OPT_FLAG(0, "ppl", &a.ppl, "print the perplexity alone"),
        QSA_OPT_FLAG(0, "no-bos", &a.no_bos, "no beginning token in front of a text"),
        QSA_OPT_FLAG(0, "no-special", &a.no_special, "control tokens in a text are plain text"),
    };
    const qsa_cmd cmd = {
        .name = "score",
        .synopsis = "[-m FILE] (--ids \"1 2 3\" | < text) [--top K] [--ppl]",
        .about = "Prints, for every position of a text, one JSON object:\n"
                 "  {\"pos\":0,\"id\":1,\"logprob\":null,\"top\":[[id,logprob],...]}\n"
                 "logprob is that of id given those before it; top are the likeliest ids for the\n"
                 "next position, best first. Logarithms are natural.\n",
        .examples = "  qiusuo score -m model.gguf --top 5 < text.txt\n"
                    "  qiusuo score -m model.gguf --ids \"1 2 3\"\n"
                    "  qiusuo score -m model.gguf --ppl < text.txt\n",
        .opts = opts, .n_opts = sizeof opts / sizeof opts[0], .max_pos = 1,
    };
    qsa_pos pos;
    qs_model *m = NULL;
    qs_session *s = NULL;
    int rc = qsa_parse(&cmd, argc, argv, &pos);
    if (rc != QSA_GO) return rc;
    qsa_take_model(&a.model, &pos);
    if (pos.n > 0) return qsa_usage(&cmd, "the model is named twice");
    rc = qsa_no_drafts(&cmd, &a.model);
    if (rc != QSA_GO) return rc;
    if (a.ids_text != NULL) {
        a.ids = malloc((strlen(a.ids_text) / 2 + 2) * sizeof *a.ids);
        if (a.ids == NULL) return qsa_fail(QS_E_NOMEM, NULL);
        int64_t n = parse_ids(a.ids_text, a.ids);
        a.n_ids = n > 0 ? (size_t)n : 0;
        if (n <= 0) rc = qsa_usage(&cmd, "--ids needs numbers separated by spaces, not '%s'",
                                   a.ids_text);
    }
    if (rc == QSA_GO) rc = qsa_open(&a.model, &m, &s);
    if (rc == QSA_GO) rc = score(&a, m, s);
    qs_session_free(s);
    qs_model_close(&m);
    free(a.ids);
    return rc;
}
