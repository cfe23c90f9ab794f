/* Conversations as files: JSON with roles, texts, reasoning, calls and the ids that were generated;
 * qs_chat_save and qs_chat_load. */
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "api/api.h"
#include "base/mem.h"
#include "sys/file.h"

#define MAX_CHAT_FILE ((size_t)64 << 20)

static void hash_text(const qs_model *m, char out[17]) {
    snprintf(out, 17, "%016llx", (unsigned long long)qsi_vocab_hash(m->tok.vocab));
}

static json_t *string(const qsi_str *s) { return json_stringn(s->data ? s->data : "", s->len); }

/* As OpenAI's clients write it: the arguments are a string. */
static json_t *call_json(const qsi_answer_call *c) {
    json_t *f = json_object(), *j = json_object();
    json_object_set_new(f, "name", string(&c->name));
    json_object_set_new(f, "arguments", string(&c->args));
    json_object_set_new(j, "type", json_string("function"));
    json_object_set_new(j, "function", f);
    return j;
}

static json_t *turn_json(const qsi_api_turn *t) {
    json_t *j = json_object();
    json_object_set_new(j, "role", json_string(qsi_api_role_name(t->role)));
    json_object_set_new(j, "content", string(&t->text));
    if (t->reasoning.len > 0) json_object_set_new(j, "reasoning_content", string(&t->reasoning));
    if (t->n_calls > 0) {
        json_t *a = json_array();
        for (size_t i = 0; i < t->n_calls; i++) json_array_append_new(a, call_json(&t->calls[i]));
        json_object_set_new(j, "tool_calls", a);
    }
    if (t->ids) {
        json_t *a = json_array();
        for (size_t i = 0; i < t->n_ids; i++) json_array_append_new(a, json_integer(t->ids[i]));
        json_object_set_new(j, "ids", a);
    }
    return j;
}

/* jansson does not look at every result of its callback: a failure sticks here. */
typedef struct json_out {
    qsi_str text;
    bool failed;
} json_out;

static int append_json(const char *p, size_t n, void *user) {
    json_out *out = user;
    if (!out->failed && qsi_str_append(&out->text, p, n) != QS_OK) out->failed = true;
    return out->failed ? -1 : 0;
}

qs_status qs_chat_save(const qs_session *s, const char *path, qs_err *err) {
    qs_status st = QS_OK;
    char hash[17];
    json_out out = { 0 };
    qsi_writer *w = NULL;
    json_t *root = json_object(), *turns = json_array();
    hash_text(s->model, hash);
    for (size_t i = 0; i < s->n_turns; i++) json_array_append_new(turns, turn_json(&s->turns[i]));
    json_object_set_new(root, "format", json_string("qiusuo-chat-1"));
    json_object_set_new(root, "model", json_string(s->model->name));
    json_object_set_new(root, "vocabulary", json_string(hash));
    if (json_object_set_new(root, "messages", turns) != 0 ||
        json_array_size(turns) != s->n_turns ||
        json_dump_callback(root, append_json, &out, JSON_INDENT(1)) != 0 ||
        append_json("\n", 1, &out) != 0)
        QS_FAIL(err, QS_E_NOMEM, "out of memory for the conversation");
    QS_TRY(qsi_writer_open(&w, path, err));
    QS_TRY(qsi_writer_write(w, out.text.data, out.text.len, err));
    QS_TRY(qsi_writer_commit(&w, err));
done:
    qsi_writer_abort(&w);
    qsi_str_release(&out.text);
    json_decref(root);
    return st;
}

/* Ids of a message into *ids (owned by the caller). */
static qs_status read_ids(const json_t *list, int32_t n_vocab, int32_t **ids, size_t *n,
                          qs_err *err) {
    qs_status st = QS_OK;
    size_t len = json_array_size(list);
    if (len == 0) goto done;
    *ids = qsi_alloc(len, sizeof **ids);
    if (!*ids) QS_FAIL(err, QS_E_NOMEM, "out of memory for the conversation");
    for (size_t i = 0; i < len; i++) {
        json_t *v = json_array_get(list, i);
        json_int_t id = json_is_integer(v) ? json_integer_value(v) : -1;
        if (id < 0 || id >= n_vocab) QS_FAIL(err, QS_E_FORMAT, "a message has an id out of range");
        (*ids)[i] = (int32_t)id;
    }
    *n = len;
done:
    return st;
}

static qs_status load_calls(qsi_api_turn *t, const json_t *list, qs_err *err) {
    qs_status st = QS_OK;
    for (size_t i = 0; i < json_array_size(list); i++) {
        json_t *f = json_object_get(json_array_get(list, i), "function");
        json_t *name = json_object_get(f, "name"), *args = json_object_get(f, "arguments");
        if (!json_is_string(name) || !json_is_string(args))
            QS_FAIL(err, QS_E_FORMAT, "a call lacks its function's name or arguments");
        QS_TRY(qsi_api_add_call(t, json_string_value(name), json_string_length(name),
                                json_string_value(args), json_string_length(args), err));
    }
done:
    return st;
}

static qs_status load_message(qs_session *s, const json_t *msg, int32_t n_vocab, qs_err *err) {
    qs_status st = QS_OK;
    int32_t *ids = NULL;
    size_t n_ids = 0;
    json_t *content = json_object_get(msg, "content");
    json_t *reasoning = json_object_get(msg, "reasoning_content");
    int role = qsi_api_role_of(json_string_value(json_object_get(msg, "role")));
    if (role < 0 || !json_is_string(content))
        QS_FAIL(err, QS_E_FORMAT, "a message lacks its role (system, user, assistant, developer, "
                "tool) or content");
    if (role == QS_SYSTEM && s->n_turns > 0)
        QS_FAIL(err, QS_E_FORMAT, "a system message stands behind the first");
    if (role == QS_ASSISTANT && n_vocab > 0)
        QS_TRY(read_ids(json_object_get(msg, "ids"), n_vocab, &ids, &n_ids, err));
    QS_TRY(qsi_api_add_turn(s, (qs_role)role, json_string_value(content),
                            json_string_length(content), ids, n_ids, err));
    if (role != QS_ASSISTANT) goto done;
    qsi_api_turn *t = &s->turns[s->n_turns - 1];
    if (json_is_string(reasoning) &&
        qsi_str_append(&t->reasoning, json_string_value(reasoning), json_string_length(reasoning)) !=
            QS_OK)
        QS_FAIL(err, QS_E_NOMEM, "out of memory for the conversation");
    QS_TRY(load_calls(t, json_object_get(msg, "tool_calls"), err));
done:
    qsi_free(ids);
    return st;
}

qs_status qsi_api_parse_chat(qs_session *into, const char *text, size_t n, const char *vocab_hash,
                             int32_t n_vocab, qs_err *err) {
    qs_status st = QS_OK;
    json_error_t je;
    json_t *root = json_loadb(text, n, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &je);
    if (!root) QS_FAIL(err, QS_E_FORMAT, "not JSON: line %d: %s", je.line, je.text);
    json_t *list = json_object_get(root, "messages");
    if (!json_is_array(list))
        QS_FAIL(err, QS_E_FORMAT, "not a saved conversation: it has no \"messages\"");
    const char *have = json_string_value(json_object_get(root, "vocabulary"));
    bool own_ids = have && strcmp(have, vocab_hash) == 0;
    for (size_t i = 0; i < json_array_size(list); i++) {
        st = load_message(into, json_array_get(list, i), own_ids ? n_vocab : 0, err);
        if (st != QS_OK) {
            qsi_err_prefix(err, "message %zu", i + 1);
            goto done;
        }
    }
done:
    json_decref(root);
    return st;
}

qs_status qs_chat_load(qs_session *s, const char *path, qs_err *err) {
    qs_status st = QS_OK;
    qsi_str text = { 0 };
    char hash[17];
    /* new turns are built aside and take the old ones' place only when all are sound */
    qs_session aside = { 0 };
    QS_TRY(qsi_file_read(path, MAX_CHAT_FILE, &text, err));
    hash_text(s->model, hash);
    st = qsi_api_parse_chat(&aside, text.data ? text.data : "", text.len, hash,
                            qsi_vocab_size(s->model->tok.vocab), err);
    if (st != QS_OK) {
        qsi_err_prefix(err, "cannot load '%s'", path);
        goto done;
    }
    qsi_api_drop_turns(s, 0);
    qsi_free(s->turns);
    s->turns = aside.turns;
    s->n_turns = aside.n_turns;
    s->cap_turns = aside.cap_turns;
    aside = (qs_session){ 0 };
done:
    qsi_api_drop_turns(&aside, 0);
    qsi_free(aside.turns);
    qsi_str_release(&text);
    return st;
}
