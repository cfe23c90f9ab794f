/* Ollama's POST /api/chat and /api/generate: streams of JSON lines. See call_impl.h. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "serve/call_impl.h"
#include "sys/file.h"

/* ---- the answer ---- */

static void put_head(qsi_api_call *c, qsi_jw *w) {
    char text[40] = "1970-01-01T00:00:00Z";
    time_t t = time(NULL);
    struct tm parts;
    if (gmtime_r(&t, &parts) != NULL) strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts);
    qsi_jw_obj(w);
    qsi_jw_key_z(w, "model", c->b->id);
    qsi_jw_key_z(w, "created_at", text);
}

static void put_arguments(qsi_jw *w, const qsi_str *args) {
    qsi_json *j = NULL;
    const char *text = args->data != NULL ? args->data : "";
    qs_status st = qsi_json_parse(&j, text, args->len, QSI_JSON_SMALL, NULL);
    qsi_jw_key(w, "arguments");
    if (st == QS_OK && qsi_json_kind_of(j) == QSI_JSON_OBJECT) qsi_jw_raw(w, args->data, args->len);
    else qsi_jw_str(w, args->data, args->len);
    qsi_json_free(&j);
}

static void put_calls(qsi_jw *w, const qsi_choice *h) {
    if (h->n_calls == 0) return;
    qsi_jw_key(w, "tool_calls");
    qsi_jw_arr(w);
    for (size_t i = 0; i < h->n_calls; i++) {
        qsi_jw_obj(w);
        qsi_jw_key_z(w, "id", h->calls[i].id);
        qsi_jw_key(w, "function");
        qsi_jw_obj(w);
        qsi_jw_key_i64(w, "index", (int64_t)i);
        qsi_jw_key_str(w, "name", &h->calls[i].name);
        put_arguments(w, &h->calls[i].args);
        qsi_jw_end_obj(w);
        qsi_jw_end_obj(w);
    }
    qsi_jw_end_arr(w);
}

static void put_end(qsi_api_call *c, qsi_jw *w) {
    const qsi_choice *h = &c->choices[0];
    qsi_usage u = qsi_runs_usage(c);
    bool cut = h->finish == QSI_JOB_LENGTH || h->finish == QSI_JOB_CONTEXT;
    qsi_jw_key_bool(w, "done", true);
    qsi_jw_key_z(w, "done_reason", cut ? "length" : "stop");
    qsi_jw_key_i64(w, "total_duration", qsi_now_ns() - c->begun_ns);
    qsi_jw_key_i64(w, "load_duration", 0);
    qsi_jw_key_i64(w, "prompt_eval_count", u.n_prompt);
    qsi_jw_key_i64(w, "prompt_eval_duration", u.prompt_ns);
    qsi_jw_key_i64(w, "eval_count", u.n_generated);
    qsi_jw_key_i64(w, "eval_duration", u.gen_ns);
    qsi_put_truncation(w, &c->ask);
    qsi_jw_end_obj(w);
}

/* The message of a chat, or the response of a completion. */
static void put_piece(qsi_api_call *c, qsi_jw *w, qsi_slice text, qsi_slice thinking,
                      const qsi_choice *h) {
    bool chat = c->own != NULL;
    if (chat) {
        qsi_jw_key(w, "message");
        qsi_jw_obj(w);
        qsi_jw_key_z(w, "role", "assistant");
    }
    qsi_jw_key(w, chat ? "content" : "response");
    qsi_jw_str(w, text.p, text.n);
    if (thinking.n > 0) {
        qsi_jw_key(w, "thinking");
        qsi_jw_str(w, thinking.p, thinking.n);
    }
    if (h != NULL) put_calls(w, h);
    if (chat) qsi_jw_end_obj(w);
}

static void whole(qsi_api_call *c, qsi_jw *w) {
    const qsi_choice *h = &c->choices[0];
    put_head(c, w);
    put_piece(c, w, (qsi_slice){ h->text.data, h->text.len },
              (qsi_slice){ h->reasoning.data, h->reasoning.len }, h);
    put_end(c, w);
}

/* ---- streams ---- */

static void end_line(qsi_api_call *c, qsi_jw *w) {
    if (c->st == QS_OK) c->st = w->st;
    qsi_say(c, "\n");
}

static void say(qsi_api_call *c, qsi_slice text, qsi_slice thinking, const qsi_choice *h) {
    qsi_jw w = { .s = &c->line };
    put_head(c, &w);
    put_piece(c, &w, text, thinking, h);
    qsi_jw_key_bool(&w, "done", false);
    qsi_jw_end_obj(&w);
    end_line(c, &w);
}

static void part(qsi_api_call *c, qsi_run *r, qsi_choice *h, const qsi_event *e) {
    qsi_slice s = { e->text, e->n_text }, none = { "", 0 };
    if (e->part == QSI_PART_TEXT) say(c, s, none, NULL);
    else if (e->part == QSI_PART_REASONING) say(c, none, s, NULL);
}

/* Calls come whole. */
static void over(qsi_api_call *c, qsi_run *r, qsi_choice *h) {
    qsi_slice none = { "", 0 };
    if (h->n_calls > 0) say(c, none, none, h);
}

static void shut(qsi_api_call *c) {
    qsi_slice none = { "", 0 };
    qsi_jw w = { .s = &c->line };
    put_head(c, &w);
    put_piece(c, &w, none, none, NULL);
    put_end(c, &w);
    end_line(c, &w);
}

static void fail(qsi_api_call *c, const qsi_refusal *no) {
    qsi_jw w = { .s = &c->line };
    w.st = qsi_refusal_write(w.s, no, QSI_API_OLLAMA);
    end_line(c, &w);
}

static const qsi_voice voice = { .stream_type = "application/x-ndjson", .part = part, .over = over,
                                 .close = shut, .fail = fail, .whole = whole };

/* ---- the request ---- */

static void read_options(qsi_api_call *c, const qsi_in *in) {
    int64_t x;
    if (qsi_in_object(in, "options") == NULL) return;
    qsi_in o = qsi_in_member(in, "options");
    qsi_ask_sampling(c, &o);
    qsi_ask_limit(c, &o, "num_predict", -2);
    qsi_ask_stops(c, &o, "stop", 16);
    qsi_in_i64(&o, "num_ctx", 0, INT64_MAX, &x);
}

/* "json", or a schema. */
static void read_format(qsi_api_call *c, const qsi_in *in) {
    static const char *const words[] = { "json", "", NULL };
    if (!qsi_in_has(in, "format")) return;
    if (qsi_json_kind_of(qsi_json_get(in->j, "format")) == QSI_JSON_OBJECT) {
        qsi_ask_schema(c, in, "format");
        return;
    }
    if (qsi_in_word(in, "format", words) == 0) qsi_ask_any_json(c, in, "format");
}

static void read_think(qsi_talk *t, const qsi_in *in) {
    static const char *const levels[] = { "low", "medium", "high", NULL };
    const qsi_backend *b = t->c->b;
    bool on = true;
    if (!qsi_in_has(in, "think")) return;
    if (qsi_json_kind_of(qsi_json_get(in->j, "think")) == QSI_JSON_STR) qsi_in_word(in, "think", levels);
    else qsi_in_bool(in, "think", &on);
    if (on && !b->can_think)
        qsi_in_refuse(in, "think", "asks for reasoning, which this model does not do");
    else if (!on && b->can_think && !b->can_choose)
        qsi_in_refuse(in, "think", "asks for no reasoning; this model always reasons");
    t->think = on ? QSI_THINK_ON : b->can_think ? QSI_THINK_OFF : QSI_THINK_AUTO;
    t->think_asked = on;
}

static void read_common(qsi_api_call *c, const qsi_in *in) {
    static const char *const ways[] = { "disabled", "auto", NULL };
    c->voice = &voice;
    qsi_ask_init(c);
    qsi_ask_model(c, in);
    c->ask.stream = true;
    qsi_in_bool(in, "stream", &c->ask.stream);
    c->ask.truncate = qsi_in_word(in, "truncation", ways) == 1;
    read_options(c, in);
    if (in->no->status == 0) read_format(c, in);
}

static void refuse_images(const qsi_in *in) {
    if (qsi_json_size(qsi_in_array(in, "images")) > 0)
        qsi_in_refuse(in, "images", "holds images, which this model does not read");
}

/* Ollama's calls have objects for arguments. */
static void read_calls(qsi_talk *t, const qsi_in *m, qsi_turn *turn) {
    const qsi_json *list = qsi_in_array(m, "tool_calls");
    size_t n = qsi_json_size(list), n_args;
    if (n == 0) return;
    qsi_call *calls = qsi_arena_calloc(&t->c->arena, n, sizeof *calls);
    const char **ids = qsi_arena_calloc(&t->c->arena, n, sizeof *ids);
    if (calls == NULL || ids == NULL) qsi_refuse_memory(m->no);
    for (size_t i = 0; i < n && m->no->status == 0; i++) {
        qsi_in e = qsi_in_element(m, "tool_calls", i);
        if (m->no->status != 0 || !qsi_in_need(&e, "function")) return;
        if (qsi_in_object(&e, "function") == NULL) return;
        qsi_in f = qsi_in_member(&e, "function");
        const char *name = qsi_in_need(&f, "name") ? qsi_in_text(&f, "name") : NULL;
        const qsi_json *args = qsi_in_need(&f, "arguments") ? qsi_in_object(&f, "arguments") : NULL;
        if (name == NULL || args == NULL) return;
        calls[i].n_name = strlen(name);
        calls[i].name = qsi_arena_strndup(&t->c->arena, name, calls[i].n_name);
        calls[i].args = qsi_arena_json(t->c, args, &n_args, m->no);
        calls[i].n_args = n_args;
    }
    if (m->no->status == 0) qsi_talk_calls(t, turn, calls, ids, n, m->no);
}

static void read_message(qsi_talk *t, const qsi_in *m) {
    static const char *const roles[] = { "system", "user", "assistant", "tool", NULL };
    int role = qsi_in_need(m, "role") ? qsi_in_word(m, "role", roles) : -1;
    bool calls = qsi_json_size(qsi_in_array(m, "tool_calls")) > 0;
    size_t n = 0, n_thinking = 0;
    const char *text = "", *thinking = NULL;
    refuse_images(m);
    if (role < 0 || m->no->status != 0) return;
    if (!calls || qsi_in_has(m, "content")) text = qsi_talk_text(t, m, "content", &n);
    if (qsi_in_has(m, "thinking")) thinking = qsi_talk_text(t, m, "thinking", &n_thinking);
    if (m->no->status != 0) return;
    if (role == 3) {
        qsi_talk_result(t, NULL, text, n, m, "content");
        return;
    }
    qsi_turn *turn = qsi_talk_add(t, (qsi_role)role, text, n, m->no);
    if (turn == NULL || role != QSI_ASSISTANT) return;
    turn->reasoning = thinking;
    turn->n_reasoning = n_thinking;
    if (calls) read_calls(t, m, turn);
}

static void no_template(const qsi_backend *b, qsi_refusal *no) {
    if (no->status == 0 && b->chat == NULL)
        qsi_refuse(no, 400, NULL, NULL, "this model has no chat template: %s",
                   b->chat_why != NULL ? b->chat_why : "use /api/generate with \"raw\": true");
}

void qsi_ollama_chat(qsi_api_call *c, const qsi_json *j, qsi_refusal *no) {
    qsi_in in = qsi_in_root(j, no);
    qsi_talk t = { .c = c };
    if (no->status != 0) return;
    c->own = c; /* a chat */
    read_common(c, &in);
    const qsi_json *list = qsi_in_need(&in, "messages") ? qsi_in_array(&in, "messages") : NULL;
    if (no->status == 0 && qsi_json_size(list) == 0) qsi_in_refuse(&in, "messages", "is empty");
    for (size_t i = 0; i < qsi_json_size(list) && no->status == 0; i++) {
        qsi_in m = qsi_in_element(&in, "messages", i);
        if (no->status == 0) read_message(&t, &m);
    }
    no_template(c->b, no);
    if (no->status == 0) read_think(&t, &in);
    if (no->status == 0) qsi_talk_tools(&t, &in, QSI_TOOLS_CHAT);
    if (no->status == 0) qsi_talk_check(&t, &in);
    qsi_prompt_talk(c, &t, "messages", no);
}

/* An empty prompt loads the model, which is there. */
static void say_loaded(qsi_api_call *c, qsi_refusal *no) {
    qsi_jw w = { .s = &c->reply.body };
    put_head(c, &w);
    qsi_jw_key_z(&w, "response", "");
    qsi_jw_key_bool(&w, "done", true);
    qsi_jw_key_z(&w, "done_reason", "load");
    qsi_jw_end_obj(&w);
    qsi_call_body(c, &w, no);
}

static void raw_prompt(qsi_api_call *c, const char *text, const char *suffix, qsi_refusal *no) {
    const qsi_vocab *v = c->b->vocab;
    qsi_ids ids = { 0 };
    qs_err err = { 0 };
    unsigned bos = qsi_vocab_add_bos(v) ? QSI_ENC_BOS : 0;
    qs_status st = suffix != NULL
        ? qsi_encode_fim(v, text, strlen(text), suffix, strlen(suffix), &ids, &err)
        : qsi_encode(v, text, strlen(text), bos | QSI_ENC_PERSON, &ids, &err);
    if (st != QS_OK) qsi_refuse_err(no, suffix != NULL ? "suffix" : "prompt", st, &err);
    else if (qsi_runs_create(c, 1, no)) qsi_prompt_ids(c, 0, ids.data, ids.len, "prompt", no);
    qsi_ids_release(&ids);
}

static void templated_prompt(qsi_api_call *c, const qsi_in *in) {
    qsi_talk t = { .c = c };
    size_t n;
    no_template(c->b, in->no);
    if (in->no->status == 0) read_think(&t, in);
    if (in->no->status == 0 && qsi_in_has(in, "system")) {
        const char *system = qsi_talk_text(&t, in, "system", &n);
        if (system != NULL) qsi_talk_add(&t, QSI_SYSTEM, system, n, in->no);
    }
    const char *text = in->no->status == 0 ? qsi_talk_text(&t, in, "prompt", &n) : NULL;
    if (text != NULL) qsi_talk_add(&t, QSI_USER, text, n, in->no);
    qsi_prompt_talk(c, &t, "prompt", in->no);
}

void qsi_ollama_generate(qsi_api_call *c, const qsi_json *j, qsi_refusal *no) {
    qsi_in in = qsi_in_root(j, no);
    bool raw = false;
    if (no->status != 0) return;
    read_common(c, &in);
    qsi_in_bool(&in, "raw", &raw);
    refuse_images(&in);
    const char *prompt = qsi_in_text(&in, "prompt"), *suffix = qsi_in_text(&in, "suffix");
    const char *template = qsi_in_text(&in, "template");
    if (template != NULL && template[0] != '\0')
        qsi_in_refuse(&in, "template", "cannot be given: the model's own is used, or none with raw");
    if (qsi_json_size(qsi_in_array(&in, "context")) > 0)
        qsi_in_refuse(&in, "context", "is not supported; /api/chat takes the whole conversation");
    if (suffix != NULL && suffix[0] == '\0') suffix = NULL;
    if (no->status != 0) return;
    if ((prompt == NULL || prompt[0] == '\0') && suffix == NULL) say_loaded(c, no);
    else if (raw || suffix != NULL) raw_prompt(c, prompt != NULL ? prompt : "", suffix, no);
    else templated_prompt(c, &in);
}
