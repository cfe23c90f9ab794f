/* Calls to the API over a scripted scheduler: a vocabulary of bytes and markers, a backend, a service,
 * and a client that waits for the whole reply. */
#ifndef QSI_TESTS_API_TESTING_H
#define QSI_TESTS_API_TESTING_H

#include "fake_sched.h"
#include "serve/call.h"
#include "sys/thread.h"

typedef struct api_house {
    qsi_vocab *vocab;
    qsi_backend b;
    qsi_service s;
    uint64_t client;
    const char *headers[8]; /* name, value, ... */
} api_house;

/* template: a name of qsi_chat_by_name, NULL: none. The vocabulary has the markers when `markers`. */
void api_open(api_house *h, const char *template_name, bool markers, const fake_script *script);
void api_close(api_house *h);

typedef struct api_answer {
    int status;
    bool streamed;
    char type[64];
    char retry[128], allow[128];
    qsi_str body;           /* or the whole stream */
} api_answer;
/* body NULL: GET, else POST. The caller releases body. */
api_answer api_ask(api_house *h, const char *path, const char *body);
void api_release(api_answer *a);
/* What stands at a path of a JSON text ("choices.0.text"), as JSON; "" when nothing does. The text is
 * valid until the call after the next three. */
const char *api_pick(const char *json, const char *path);
/* The i-th event of a stream: its data, "" behind the last; *event (may be NULL) is its name or "". */
const char *api_event(const char *stream, size_t i, char event[64]);
size_t api_events(const char *stream);
/* Strings at a path of all events, joined, as they read; only of those whose `if_path` is `if_value`
 * (NULL: all). The caller releases it. */
qsi_str api_join(const char *stream, const char *path, const char *if_path, const char *if_value);
/* Asks, and holds status and what stands at a path of the answer to what is wanted (JSON). */
void api_want(api_house *h, const char *path, const char *body, int status, const char *at,
              const char *want);

/* A call that is under way. */
typedef struct api_call {
    qsi_api_call *c;
    qsi_monitor *m;
    int n_ready;
    bool woken;
} api_call;
void api_begin(api_call *a, api_house *h, const char *method, const char *path, const char *body,
               size_t n_body);
void api_wait(api_call *a);      /* until it is ready */
bool api_read(api_call *a, qsi_str *out, bool whole); /* what is there, or all; false at the end */
void api_drop(api_call *a);

#endif
