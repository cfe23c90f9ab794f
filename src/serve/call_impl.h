/* The inside of a call, shared by the files that read a request, run its jobs and write the answer.
 *
 * A call has one job for every prompt (`runs`) and one `choice` for every answer. Events of the jobs
 * fill the choices, on the scheduler's thread; what is streamed is written at once by the call's voice,
 * everything else on the chores' thread. All of it happens under the call's monitor. */
#ifndef QSI_SERVE_CALL_IMPL_H
#define QSI_SERVE_CALL_IMPL_H

#include <stdatomic.h>

#include "base/mem.h"
#include "infer/grammar.h"
#include "serve/call.h"
#include "serve/chores.h"
#include "serve/json_in.h"
#include "serve/json_out.h"
#include "serve/refusal.h"
#include "sys/thread.h"

/* ---- answers ---- */

typedef struct qsi_out_call { /* a function that the model calls */
    char id[40];
    qsi_str name, args;
} qsi_out_call;

/* Log-probabilities as JSON, as far as they are told: of the chat API one column of objects, of the text
 * API four (tokens, token_logprobs, top_logprobs, text_offset). */
enum { QSI_LP_COLUMNS = 4 };
typedef struct qsi_lp {
    qsi_str column[QSI_LP_COLUMNS];
    size_t n;
    int64_t n_chars;      /* where the next token stands */
} qsi_lp;

typedef struct qsi_held { /* one token */
    qsi_lp lp;
    size_t n_bytes;
} qsi_held;

typedef struct qsi_choice {
    qsi_str text, reasoning;
    qsi_out_call *calls;
    size_t n_calls, cap_calls;
    qsi_lp lp;            /* of the text so far; when streaming: what was not sent yet */
    qsi_held *held;       /* tokens whose text did not come yet */
    size_t n_held, cap_held, n_bytes; /* n_bytes: of those in lp and sent */
    qsi_str raw;          /* the tokens' own bytes, where it must be known which stop string it was */
    bool skips_call;      /* a call beyond the first, which nobody wants */
    bool begun;           /* something of it was sent */
    bool over;
    qsi_job_finish finish;
    const char *stop;     /* the stop string that ended it, when `raw` was kept */
    int block, n_blocks;  /* the voice's own */
} qsi_choice;

typedef struct qsi_run { /* one prompt */
    struct qsi_api_call *call;
    qsi_job *job;         /* NULL: not handed in */
    const int32_t *ids;
    size_t n_ids;
    int32_t n_lead;
    size_t first;         /* its first choice */
    const char *echo_text;
    size_t n_echo_text;
    qsi_lp echo;
    float *embedding;
    int32_t n_embedding;
    bool live, over, started, computed;
    int64_t n_done, n_all;
    qsi_usage usage;
} qsi_run;

/* ---- what is asked ---- */

typedef struct qsi_ask {
    qsi_job_opts o;       /* of each job, but for its ids; what it points to is in the arena */
    bool stream, usage;   /* usage: in a stream, too */
    bool truncate;        /* a prompt that is too long loses its beginning */
    bool one_call;        /* parallel_tool_calls is false */
    bool forced;          /* a call was begun for the model, or the answer must be one */
    bool echo, suffix;
    bool keep_raw;
    bool base64;
    int64_t max_tokens;   /* as asked; -1: not */
    int64_t n_cut;        /* ids that truncation left out; turns: */
    int64_t n_cut_turns;
} qsi_ask;

struct qsi_voice;

struct qsi_api_call {
    qsi_service service;
    qsi_backend *b;
    qsi_api api;
    const struct qsi_voice *voice;
    uint64_t client;
    char request_id[64];
    char name[40];        /* of the answer: chatcmpl-... */
    const char *path_tail; /* behind a path that ends with *, within the request's path */
    void (*ready)(void *user);
    void *user;
    qsi_monitor *m;
    atomic_int holds;     /* the caller's, one of each live run, the chore's */
    qsi_chore chore;
    qsi_arena arena;
    qsi_ask ask;
    qsi_run *runs;
    size_t n_runs, n_begun, n_live, n_over;
    qsi_choice *choices;
    size_t n_choices;
    qsi_refusal failure;  /* of a job */
    qs_status st;         /* of writing: the stream is broken */
    bool starting;        /* the thread that begins the call hands its jobs in; chores wait */
    bool replied, readying, dropped, finished;
    qsi_stream *out;      /* the writer's hold */
    qsi_str line;         /* being written */
    qsi_reply reply;
    int64_t begun_ns, said_ns, wall_s;
    void *own;            /* the voice's own, in the arena */
};

/* How an API writes its answers; what it has not is NULL. Called under the monitor. */
typedef struct qsi_voice {
    const char *stream_type;                                       /* Content-Type of a stream */
    bool legacy;                                                   /* log-probabilities in columns */
    void (*open)(qsi_api_call *c);                                 /* a stream begins */
    /* A piece of a choice, which has it already; `fresh`: a call that begins with it. */
    void (*part)(qsi_api_call *c, qsi_run *r, qsi_choice *h, const qsi_event *e);
    void (*over)(qsi_api_call *c, qsi_run *r, qsi_choice *h);      /* a choice is complete */
    void (*close)(qsi_api_call *c);                                /* everything is */
    void (*fail)(qsi_api_call *c, const qsi_refusal *no);          /* a stream ends with an error */
    void (*whole)(qsi_api_call *c, qsi_jw *w);                     /* the body of an answer in one */
} qsi_voice;

typedef struct qsi_endpoint {
    const char *path;
    bool post; /* else GET */
    /* Reads the request; either gives the call runs and a voice, or writes the reply's body. */
    void (*prepare)(qsi_api_call *c, const qsi_json *j, qsi_refusal *no);
} qsi_endpoint;

/* ---- call.c ---- */
void qsi_call_body(qsi_api_call *c, const qsi_jw *w, qsi_refusal *no); /* reply.body was written by w */
void qsi_call_hold(qsi_api_call *c);
void qsi_call_let_go(qsi_api_call *c); /* a hold; any thread */
void qsi_call_post(qsi_api_call *c, int64_t due_ns);
/* ---- run.c ---- */
/* Makes room for n prompts; false: refused. */
bool qsi_runs_create(qsi_api_call *c, size_t n, qsi_refusal *no);
/* Hands in as many jobs as may run at once. */
void qsi_runs_submit(qsi_api_call *c, qsi_refusal *no);
bool qsi_runs_left(const qsi_api_call *c);
void qsi_runs_cancel(qsi_api_call *c);
void qsi_runs_release(qsi_api_call *c);
qsi_usage qsi_runs_usage(const qsi_api_call *c);
/* ---- choice.c ---- */
qs_status qsi_choice_echo(qsi_api_call *c, qsi_run *r, const qsi_event *e) QS_MUST_CHECK;
qs_status qsi_choice_token(qsi_api_call *c, qsi_choice *h, const qsi_event *e) QS_MUST_CHECK;
/* *skip: it belongs to a call that nobody wants. */
qs_status qsi_choice_part(qsi_api_call *c, qsi_choice *h, const qsi_event *e, bool *skip) QS_MUST_CHECK;
qs_status qsi_choice_finish(qsi_api_call *c, qsi_choice *h, const qsi_event *e) QS_MUST_CHECK;
void qsi_choice_release(qsi_choice *h);
void qsi_lp_clear(qsi_lp *lp);
void qsi_lp_release(qsi_lp *lp);
qs_status qsi_lp_append(qsi_lp *to, const qsi_lp *from) QS_MUST_CHECK;
/* ---- say.c: what voices share ---- */
/* Begins a line of c->line: `event: NAME` where name is given, then `data: `. */
qsi_jw qsi_sse_begin(qsi_api_call *c, const char *event);
void qsi_sse_end(qsi_api_call *c, const qsi_jw *w);
/* The bytes of c->line go to the client; failing sticks in c->st. */
void qsi_say_line(qsi_api_call *c);
void qsi_say(qsi_api_call *c, const char *z);
/* A comment about the place in the queue or in the prompt, when none of the answer came yet. */
void qsi_say_ping(qsi_api_call *c);
void qsi_put_usage(qsi_jw *w, const qsi_usage *u);     /* OpenAI's object */
void qsi_put_timings(qsi_jw *w, const qsi_usage *u);   /* llama-server's */
void qsi_put_truncation(qsi_jw *w, const qsi_ask *ask); /* member "truncation", where there was any */
const char *qsi_fingerprint(const qsi_api_call *c, char out[40]);
/* Of OpenAI's two voices: the members every object begins with (it stays open), and those it ends with,
 * of a whole answer with the usage; the end of a choice; the last lines of a stream; an error in it. */
void qsi_openai_head(qsi_api_call *c, qsi_jw *w, const char *object);
void qsi_openai_tail(qsi_api_call *c, qsi_jw *w, const qsi_usage *u);
void qsi_openai_whole_tail(qsi_api_call *c, qsi_jw *w);
void qsi_openai_finish(qsi_jw *w, const char *reason); /* NULL: not yet */
void qsi_openai_shut(qsi_api_call *c, const char *object);
void qsi_openai_fail(qsi_api_call *c, const qsi_refusal *no);

/* ---- draw.c ---- */
uint64_t qsi_draw(void);
void qsi_draw_name(char out[40], const char *prefix);

/* ---- request.c, constraint.c, tools.c, prompt.c ---- */
/* The fields that OpenAI's APIs, vLLM and llama-server share. Refusals go to in->no. */
void qsi_ask_init(qsi_api_call *c);
void qsi_ask_model(qsi_api_call *c, const qsi_in *in); /* 404 for another model than the one there is */
void qsi_ask_common(qsi_api_call *c, const qsi_in *in);
void qsi_ask_stops(qsi_api_call *c, const qsi_in *in, const char *key, size_t most);
void qsi_ask_sampling(qsi_api_call *c, const qsi_in *in);
void qsi_ask_limit(qsi_api_call *c, const qsi_in *in, const char *key, int64_t least);
void qsi_ask_constraint(qsi_api_call *c, const qsi_in *in);
/* The answer keeps to a JSON Schema: the object under `key` of `in`, or a text; `key` is blamed. */
void qsi_ask_schema(qsi_api_call *c, const qsi_in *in, const char *key);
void qsi_ask_schema_text(qsi_api_call *c, const qsi_in *in, const char *key, const char *json, size_t n);
void qsi_ask_any_json(qsi_api_call *c, const qsi_in *in, const char *key); /* to some JSON object */

/* A conversation being gathered; everything is in the call's arena. */
typedef struct qsi_talk {
    qsi_api_call *c;
    qsi_turn *turns;
    size_t n_turns, cap_turns;
    qsi_tool *tools;
    size_t n_tools;
    qsi_think think;
    bool think_asked;
    /* the calls of the last answer, by name of each: results come in their order */
    const char **call_ids;
    size_t n_call_ids;
    int32_t *ranks;       /* [cap_turns] of a result: place of its call */
    bool prefilled;       /* the last turn is the beginning of the answer */
    const char *lead;     /* the answer begins with it: markers in it are markers */
} qsi_talk;
/* A turn; NULL: no memory (refused). */
qsi_turn *qsi_talk_add(qsi_talk *t, qsi_role role, const char *text, size_t n, qsi_refusal *no);
void qsi_talk_calls(qsi_talk *t, qsi_turn *turn, const qsi_call *calls, const char *const *ids,
                    size_t n, qsi_refusal *no);
/* The result of a call; id NULL: of the next. Refuses an id that no call has. */
void qsi_talk_result(qsi_talk *t, const char *id, const char *text, size_t n, const qsi_in *in,
                     const char *key);
/* Text of a field that is a string or an array of text parts; refuses images. NULL when refused. */
const char *qsi_talk_text(qsi_talk *t, const qsi_in *in, const char *key, size_t *n);
char *qsi_arena_json(qsi_api_call *c, const qsi_json *j, size_t *n, qsi_refusal *no);
void qsi_talk_messages(qsi_talk *t, const qsi_in *in, const char *key);      /* OpenAI's */
void qsi_talk_thinking(qsi_talk *t, const qsi_in *in);                       /* OpenAI's, vLLM's */
/* Functions as {"name", "description", "parameters"}: OpenAI's (within "function", or without, as the
 * responses API has them) or Anthropic's ("input_schema"). */
typedef enum qsi_tool_form { QSI_TOOLS_CHAT, QSI_TOOLS_RESPONSES, QSI_TOOLS_ANTHROPIC } qsi_tool_form;
void qsi_talk_tools(qsi_talk *t, const qsi_in *in, qsi_tool_form form);
/* Makes a call of function `name` (NULL: of any) certain. */
void qsi_talk_force(qsi_talk *t, const char *name, const qsi_in *in, const char *key);
/* OpenAI's tool_choice: "auto", "none", "required" or {"type": "function"} with the name, of the chat
 * API within a member "function". */
void qsi_talk_choice(qsi_talk *t, const qsi_in *in, qsi_tool_form form);
/* Refuses what does not go together: functions that may be called, and a form the answer must have. */
void qsi_talk_check(qsi_talk *t, const qsi_in *in);

/* The conversation becomes the call's only prompt; the job is told how to read the answer. */
void qsi_prompt_talk(qsi_api_call *c, qsi_talk *t, const char *param, qsi_refusal *no);
/* Writes ids without making a prompt of them. */
qs_status qsi_prompt_render(qsi_talk *t, size_t n_dropped, qsi_ids *out, qs_err *err) QS_MUST_CHECK;
/* Ids become prompt i: checks their number, cuts them where that was asked. Copied. */
void qsi_prompt_ids(qsi_api_call *c, size_t i, const int32_t *ids, size_t n, const char *param,
                    qsi_refusal *no);
/* Do they fit the context? */
void qsi_prompt_fits(qsi_api_call *c, size_t n_ids, const char *param, qsi_refusal *no);
/* Is there room now, and soon enough? */
void qsi_prompt_admit(qsi_api_call *c, qsi_refusal *no);
/* Ids in an array of a request. */
bool qsi_prompt_read_ids(const qsi_in *in, const char *key, const qsi_json *list, int32_t n_vocab,
                         qsi_ids *out);

/* qsi_decode of ids that may lie beyond the vocabulary: those have no text. */
qs_status qsi_decode_known(const qsi_vocab *v, const int32_t *ids, size_t n, bool special, qsi_str *out)
    QS_MUST_CHECK;

/* ---- endpoints ---- */
typedef void qsi_prepare(qsi_api_call *c, const qsi_json *j, qsi_refusal *no);
qsi_prepare qsi_chat_completions, qsi_text_completions, qsi_responses, qsi_embeddings, qsi_models,
    qsi_model_one, qsi_props, qsi_tokenize, qsi_detokenize, qsi_apply_template, qsi_messages,
    qsi_count_tokens, qsi_ollama_chat, qsi_ollama_generate, qsi_ollama_tags, qsi_ollama_show,
    qsi_ollama_version;

#endif
