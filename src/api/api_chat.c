/* Conversations of the public API: turns kept with the ids that were generated, so that the cache of
 * earlier turns stays good; answers; saving and loading. */
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "api/api.h"
#include "base/log.h"
#include "base/mem.h"
#include "sys/file.h"

#define MAX_CHAT_FILE ((size_t)64 << 20)

static const char *const role_names[] = { "system", "user", "assistant" };

void qsi_api_drop_turns(qs_session *s, size_t from) {
    while (s->n_turns > from) {
        qsi_api_turn *t = &s->turns[--s->n_turns];
        qsi_str_release(&t->text);
        qsi_free(t->ids);
    }
}

static void release_turn(qsi_api_turn *t) {
    qsi_str_release(&t->text);
    qsi_free(t->ids);
    *t = (qsi_api_turn){ 0 };
}

static qs_status make_turn(qsi_api_turn *t, qs_role role, const char *text, size_t n,
                           const int32_t *ids, size_t n_ids, qs_err *err) {
    qs_status st = QS_OK;
    *t = (qsi_api_turn){ .role = role };
    if (qsi_str_append(&t->text, text, n) != QS_OK) QS_FAIL(err, QS_E_NOMEM, "out of memory");
    if (n_ids > 0) {
        t->ids = qsi_alloc(n_ids, sizeof *ids);
        if (!t->ids) QS_FAIL(err, QS_E_NOMEM, "out of memory");
        memcpy(t->ids, ids, n_ids * sizeof *ids);
        t->n_ids = n_ids;
    }
done:
    if (st != QS_OK) release_turn(t);
    return st;
}

qs_status qsi_api_add_turn(qs_session *s, qs_role role, const char *text, size_t n,
                           const int32_t *ids, size_t n_ids, qs_err *err) {
    qs_status st = QS_OK;
    if (qsi_grow((void **)&s->turns, &s->cap_turns, s->n_turns + 1, sizeof *s->turns) != QS_OK)
        QS_FAIL(err, QS_E_NOMEM, "out of memory for a turn");
    QS_TRY(make_turn(&s->turns[s->n_turns], role, text, n, ids, n_ids, err));
    s->n_turns++;
done:
    return st;
}

static qs_status check_text(const char *text, size_t n, qs_err *err) {
    size_t bad;
    if (qsi_utf8_valid(text, n, &bad)) return QS_OK;
    return qsi_err_at(err, QS_E_FORMAT, (int64_t)bad,
                      "the text is not UTF-8: byte 0x%02x at offset %zu", (uint8_t)text[bad], bad);
}

qs_status qs_chat_add(qs_session *s, qs_role role, const char *text, size_t n, qs_err *err) {
    qs_status st = QS_OK;
    if ((unsigned)role >= QSI_COUNT(role_names)) QS_FAIL(err, QS_E_ARG, "unknown role %d", role);
    if (role == QS_SYSTEM && s->n_turns > 0)
        QS_FAIL(err, QS_E_STATE, "a system turn can only be the first (qs_chat_system replaces it)");
    QS_TRY(check_text(text, n, err));
    QS_TRY(qsi_api_add_turn(s, role, text, n, NULL, 0, err));
done:
    return st;
}

int64_t qs_chat_n_turns(const qs_session *s) { return (int64_t)s->n_turns; }

qs_turn qs_chat_turn(const qs_session *s, int64_t i) {
    if (i < 0 || (uint64_t)i >= s->n_turns) return (qs_turn){ .text = "" };
    const qsi_api_turn *t = &s->turns[i];
    return (qs_turn){ .role = t->role, .text = t->text.data ? t->text.data : "",
                      .n = t->text.len };
}

void qs_chat_truncate(qs_session *s, int64_t n) {
    qsi_api_drop_turns(s, n > 0 ? (size_t)n : 0);
}

qs_status qs_chat_system(qs_session *s, const char *text, size_t n, qs_err *err) {
    qs_status st = QS_OK;
    bool has = s->n_turns > 0 && s->turns[0].role == QS_SYSTEM;
    qsi_api_turn turn = { 0 };
    QS_TRY(check_text(text, n, err));
    if (n > 0) {
        QS_TRY(make_turn(&turn, QS_SYSTEM, text, n, NULL, 0, err));
        if (!has) {
            QS_TRY(qsi_api_add_turn(s, QS_SYSTEM, "", 0, NULL, 0, err));
            qsi_api_turn empty = s->turns[s->n_turns - 1];
            memmove(s->turns + 1, s->turns, (s->n_turns - 1) * sizeof *s->turns);
            s->turns[0] = empty;
        }
        release_turn(&s->turns[0]);
        s->turns[0] = turn;
        turn = (qsi_api_turn){ 0 };
    } else if (has) {
        release_turn(&s->turns[0]);
        memmove(s->turns, s->turns + 1, --s->n_turns * sizeof *s->turns);
    }
done:
    release_turn(&turn);
    return st;
}

/* ---- answers ---------------------------------------------------------------------------------- */

/* The ids of the conversation, ready for an answer. */
static qs_status render(const qs_session *s, qsi_ids *out, qs_err *err) {
    qs_status st = QS_OK;
    qsi_turn *turns = qsi_calloc(s->n_turns, sizeof *turns);
    if (!turns) QS_FAIL(err, QS_E_NOMEM, "out of memory for the conversation");
    for (size_t i = 0; i < s->n_turns; i++) {
        const qsi_api_turn *t = &s->turns[i];
        turns[i] = (qsi_turn){ .role = (qsi_role)t->role, .text = t->text.data ? t->text.data : "",
                               .n = t->text.len, .ids = t->ids, .n_ids = t->n_ids };
    }
    QS_TRY(qsi_chat_render(s->model->chat, s->model->tok.vocab, turns, s->n_turns, 0, true, out, NULL,
                           err));
done:
    qsi_free(turns);
    return st;
}

qs_status qs_chat_answer(qs_session *s, const qs_gen_opts *opts, qs_gen_stats *stats, qs_err *err) {
    qs_status st = QS_OK;
    qs_gen_opts o;
    qsi_ids ids = { 0 };
    size_t n_cached;
    int64_t exact;
    qs_model *m = s->model;
    atomic_store(&s->cancel, 0);
    qs_gen_opts_init(&o, sizeof o, m);
    qsi_api_opts(&o, sizeof o, opts);
    if (!m->chat) {
        if (err) *err = m->chat_err;
        st = QS_E_UNSUPPORTED;
        goto done;
    }
    if (m->tell_template)
        qsi_log(QSI_LOG_NOTE, "the model carries no chat template; that of %s is used",
                qsi_chat_name(m->chat));
    m->tell_template = false;
    QS_TRY(render(s, &ids, err));
    if (ids.len >= (uint64_t)s->runner.runner.n_ctx)
        QS_FAIL(err, QS_E_LIMIT, "the conversation has %zu tokens, the context %lld: start a new "
                "one, or take a larger context (-c N)", ids.len,
                (long long)s->runner.runner.n_ctx);
    QS_TRY(qsi_seq_set(&s->seq, ids.data, ids.len, &n_cached, err));
    QS_TRY(qsi_api_generate(s, &o, qsi_chat_strip_space(m->chat), n_cached, stats, &exact, err));
    size_t n_made = s->seq.n_ids - ids.len;
    if (n_made == 0 && atomic_load(&s->cancel)) goto done;
    const int32_t *made = s->seq.ids + ids.len;
    QS_TRY(qsi_api_add_turn(s, QS_ASSISTANT, s->text.data ? s->text.data : "", s->text.len, made,
                            exact > 0 ? (size_t)exact : 0, err));
done:
    qsi_ids_release(&ids);
    return st;
}

/* ---- files ------------------------------------------------------------------------------------ */

static void hash_text(const qs_model *m, char out[17]) {
    snprintf(out, 17, "%016llx", (unsigned long long)qsi_vocab_hash(m->tok.vocab));
}

static json_t *turn_json(const qsi_api_turn *t) {
    json_t *j = json_object();
    json_object_set_new(j, "role", json_string(role_names[t->role]));
    json_object_set_new(j, "content", json_stringn(t->text.data ? t->text.data : "", t->text.len));
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

static int role_of(const char *name) {
    for (size_t i = 0; name && i < QSI_COUNT(role_names); i++)
        if (strcmp(name, role_names[i]) == 0) return (int)i;
    return -1;
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

static qs_status load_message(qs_session *s, const json_t *msg, int32_t n_vocab, qs_err *err) {
    qs_status st = QS_OK;
    int32_t *ids = NULL;
    size_t n_ids = 0;
    json_t *content = json_object_get(msg, "content");
    int role = role_of(json_string_value(json_object_get(msg, "role")));
    if (role < 0 || !json_is_string(content))
        QS_FAIL(err, QS_E_FORMAT, "a message lacks its role (system, user, assistant) or content");
    if (role == QS_SYSTEM && s->n_turns > 0)
        QS_FAIL(err, QS_E_FORMAT, "a system message stands behind the first");
    if (role == QS_ASSISTANT && n_vocab > 0)
        QS_TRY(read_ids(json_object_get(msg, "ids"), n_vocab, &ids, &n_ids, err));
    QS_TRY(qsi_api_add_turn(s, (qs_role)role, json_string_value(content),
                            json_string_length(content), ids, n_ids, err));
done:
    qsi_free(ids);
    return st;
}

qs_status qsi_api_parse_chat(qs_session *into, const char *text, size_t n, const char *vocab_hash,
                             int32_t n_vocab, qs_err *err) {
    qs_status st = QS_OK;
    json_error_t je;
    json_t *root = json_loadb(text, n, JSON_REJECT_DUPLICATES, &je);
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
