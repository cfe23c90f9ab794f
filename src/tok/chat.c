/* Chat templates: conversation -> ids.
 *
 * A template is four strings around a turn's text; in them \1 stands for BOS, \2 for the end token,
 * \3 and \4 for the markers of user and assistant. These become ids directly. Everything else, the
 * template's words and what people wrote, is collected and encoded together up to the next marker
 * (pieces may reach from one into the other), with no marker matching in it. Before an answer the
 * collected text is always encoded on its own: the pre-tokenizers end a piece there in any case
 * (after a colon before a space, after a line break, after a marker), so masks do not change ids.
 *
 * Source: deepseek-facts 3.2. A system turn is written by every template; for deepseek-llm, whose
 * authors published none, as DeepSeek-V2 does. */
#include "tok/chat.h"

#include <string.h>

#include "tok/vocab.h"

#define BOS '\1'
#define END '\2'
#define USER '\3'
#define ASSISTANT '\4'

struct qsi_chat_template {
    const char *name;
    const char *pre;              /* pre-tokenizer whose models speak it */
    const char *end;              /* the token that ends an answer; NULL: EOS */
    const char *start;            /* before the first turn */
    const char *system[2];        /* around the text of a turn */
    const char *user[2];
    const char *assistant[2];
    const char *prompt;           /* ready for an answer */
    bool space;                   /* the answer starts with a space that is not shown */
    bool file_system;             /* without a system turn the file's default one is written */
    const char *signs[3];         /* all of these stand in the template text of such a model */
    const char *jinja;
};

/* In the order of recognition: more special ones first. */
static const qsi_chat_template templates[] = {
    {.name = "deepseek-v3",
     .pre = "deepseek-v3",
     .start = "\1",
     .system = {"", ""},
     .user = {"\3", ""},
     .assistant = {"\4", "\2"},
     .prompt = "\4",
     .signs = {"<｜User｜>", "<｜Assistant｜>"},
     .jinja = "{{ bos_token }}{% for message in messages %}"
              "{% if message['role'] == 'system' %}{{ message['content'] }}"
              "{% elif message['role'] == 'user' %}{{ '<｜User｜>' + message['content'] }}"
              "{% elif message['role'] == 'assistant' %}"
              "{{ '<｜Assistant｜>' + message['content'] + eos_token }}"
              "{% endif %}{% endfor %}"
              "{% if add_generation_prompt %}{{ '<｜Assistant｜>' }}{% endif %}"},
    {.name = "deepseek-coder",
     .pre = "deepseek-coder",
     .end = "<|EOT|>",
     .start = "\1",
     .system = {"", ""},
     .user = {"### Instruction:\n", "\n"},
     .assistant = {"### Response:\n", "\n\2\n"},
     .prompt = "### Response:\n",
     .file_system = true,
     .signs = {"### Instruction:", "### Response:"},
     .jinja = "{{ bos_token }}{% for message in messages %}"
              "{% if message['role'] == 'system' %}{{ message['content'] }}"
              "{% elif message['role'] == 'user' %}"
              "{{ '### Instruction:\\n' + message['content'] + '\\n' }}"
              "{% elif message['role'] == 'assistant' %}"
              "{{ '### Response:\\n' + message['content'] + '\\n<|EOT|>\\n' }}"
              "{% endif %}{% endfor %}"
              "{% if add_generation_prompt %}{{ '### Response:\\n' }}{% endif %}"},
    {.name = "deepseek-llm",
     .pre = "deepseek-llm",
     .start = "\1",
     .system = {"", "\n\n"},
     .user = {"User: ", "\n\n"},
     .assistant = {"Assistant:", "\2"},
     .prompt = "Assistant:",
     .space = true,
     .signs = {"User:", "Assistant:"},
     .jinja = "{{ bos_token }}{% for message in messages %}"
              "{% if message['role'] == 'system' %}{{ message['content'] + '\\n\\n' }}"
              "{% elif message['role'] == 'user' %}{{ 'User: ' + message['content'] + '\\n\\n' }}"
              "{% elif message['role'] == 'assistant' %}"
              "{{ 'Assistant: ' + message['content'] + eos_token }}"
              "{% endif %}{% endfor %}"
              "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"},
};

/* Other names under which people know them. */
static const struct {
    const char *alias, *name;
} aliases[] = {
    {"deepseek-moe", "deepseek-llm"},
    {"deepseek-v2", "deepseek-llm"},
    {"deepseek-coder-instruct", "deepseek-coder"},
    {"deepseek-v2.5", "deepseek-v3"},
};

static const qsi_chat_template *by_name(const char *name) {
    for (size_t i = 0; i < QSI_COUNT(aliases); i++)
        if (strcmp(name, aliases[i].alias) == 0) name = aliases[i].name;
    for (size_t i = 0; i < QSI_COUNT(templates); i++)
        if (strcmp(name, templates[i].name) == 0) return &templates[i];
    return NULL;
}

qs_status qsi_chat_by_name(const qsi_chat_template **t, const char *name, qs_err *err) {
    const qsi_chat_template *found = by_name(name);
    if (found == NULL)
        return qsi_err_set(err, QS_E_UNSUPPORTED,
                           "unknown chat template '%.60s' (known: deepseek-llm, deepseek-moe, "
                           "deepseek-v2, deepseek-coder, deepseek-v2.5, deepseek-v3)",
                           name);
    *t = found;
    return QS_OK;
}

static bool contains(qsi_slice s, const char *word) {
    size_t n = strlen(word);
    for (size_t i = 0; i + n <= s.n; i++)
        if (memcmp(s.p + i, word, n) == 0) return true;
    return false;
}

static bool has_signs(const qsi_chat_template *t, qsi_slice text) {
    for (size_t i = 0; i < QSI_COUNT(t->signs) && t->signs[i] != NULL; i++)
        if (!contains(text, t->signs[i])) return false;
    return true;
}

qs_status qsi_chat_find(const qsi_chat_template **t, const qsi_vocab *v, const char *arch,
                        bool *guessed, qs_err *err) {
    const char *pre = strcmp(v->pre, "joyai-llm") == 0 ? "deepseek-v3" : v->pre;
    for (size_t i = 0; i < QSI_COUNT(templates) && v->chat_template.n > 0; i++) {
        if (!has_signs(&templates[i], v->chat_template)) continue;
        *t = &templates[i];
        *guessed = false;
        return QS_OK;
    }
    for (size_t i = 0; i < QSI_COUNT(templates); i++) {
        if (strcmp(pre, templates[i].pre) != 0) continue;
        *t = &templates[i];
        *guessed = true;
        return QS_OK;
    }
    return qsi_err_set(err, QS_E_UNSUPPORTED,
                       "no chat template is known for architecture '%.40s' with pre-tokenizer "
                       "'%.40s' (known: deepseek-llm, deepseek-coder, deepseek-v3)",
                       arch == NULL ? "" : arch, v->pre);
}

const char *qsi_chat_name(const qsi_chat_template *t) {
    return t->name;
}

const char *qsi_chat_jinja(const qsi_chat_template *t) {
    return t->jinja;
}

bool qsi_chat_strip_space(const qsi_chat_template *t) {
    return t->space;
}

/* ---- rendering ---- */

typedef struct render {
    const qsi_chat_template *t;
    const qsi_vocab *v;
    qsi_ids *out, *mask;
    qsi_str text; /* collected, not yet encoded */
    bool learn;   /* what is written now belongs to an answer */
    qs_err *err;
} render;

static qs_status no_memory(render *r) {
    return qsi_err_set(r->err, QS_E_NOMEM, "out of memory for a conversation");
}

/* Gives the ids written since `from` their mask. */
static qs_status mask_from(render *r, size_t from) {
    for (; r->mask != NULL && from < r->out->len; from++)
        if (qsi_ids_push(r->mask, r->learn) != QS_OK) return no_memory(r);
    return QS_OK;
}

static qs_status flush(render *r) {
    qs_status st = QS_OK;
    size_t from = r->out->len;
    if (r->text.len == 0) return QS_OK;
    QS_TRY(qsi_encode(r->v, r->text.data, r->text.len, QSI_ENC_PERSON, r->out, r->err));
    qsi_str_clear(&r->text);
    QS_TRY(mask_from(r, from));
done:
    return st;
}

static qs_status put_id(render *r, int32_t id, const char *what) {
    qs_status st = QS_OK;
    size_t from;
    if (id < 0)
        QS_FAIL(r->err, QS_E_UNSUPPORTED,
                "the vocabulary has no token %s, which chat template %s needs", what, r->t->name);
    QS_TRY(flush(r));
    from = r->out->len;
    if (qsi_ids_push(r->out, id) != QS_OK) return no_memory(r);
    QS_TRY(mask_from(r, from));
done:
    return st;
}

static qs_status put_named(render *r, const char *name) {
    return put_id(r, qsi_vocab_find(r->v, name, strlen(name)), name);
}

static qs_status put_text(render *r, const char *p, size_t n) {
    return qsi_str_append(&r->text, p, n) == QS_OK ? QS_OK : no_memory(r);
}

/* A string of the template: words and markers. A newline after the end token is no longer part of
 * the answer. */
static qs_status put_frame(render *r, const char *s) {
    qs_status st = QS_OK;
    for (; *s != '\0'; s++) {
        switch (*s) {
        case BOS:
            if (r->v->bos >= 0) QS_TRY(put_id(r, r->v->bos, "BOS"));
            break;
        case END:
            QS_TRY(r->t->end != NULL ? put_named(r, r->t->end) : put_id(r, r->v->eos, "EOS"));
            r->learn = false;
            break;
        case USER: QS_TRY(put_named(r, "<｜User｜>")); break;
        case ASSISTANT: QS_TRY(put_named(r, "<｜Assistant｜>")); break;
        default: QS_TRY(put_text(r, s, 1)); break;
        }
    }
done:
    return st;
}

/* The answer itself: text, or ids as they were generated. */
static qs_status put_answer(render *r, const qsi_turn *turn) {
    qs_status st = QS_OK;
    size_t from;
    if (turn->ids == NULL) {
        if (r->t->space) QS_TRY(put_text(r, " ", 1));
        return put_text(r, turn->text, turn->n);
    }
    from = r->out->len;
    for (size_t i = 0; i < turn->n_ids; i++)
        if (qsi_ids_push(r->out, turn->ids[i]) != QS_OK) return no_memory(r);
    QS_TRY(mask_from(r, from));
done:
    return st;
}

/* True when generated ids already end with the line break that the template puts before its end. */
static bool ends_with_break(const render *r, const qsi_turn *turn) {
    qsi_slice s;
    if (turn->ids == NULL || turn->n_ids == 0) return false;
    s = qsi_vocab_bytes(r->v, turn->ids[turn->n_ids - 1]);
    return s.n > 0 && s.p[s.n - 1] == '\n';
}

static qs_status put_turn(render *r, const qsi_turn *turn) {
    qs_status st = QS_OK;
    const qsi_chat_template *t = r->t;
    const char *const *frame = turn->role == QSI_SYSTEM ? t->system : t->user;
    const char *tail = t->assistant[1];
    if (turn->role != QSI_ASSISTANT) {
        QS_TRY(put_frame(r, frame[0]));
        QS_TRY(put_text(r, turn->text, turn->n));
        QS_TRY(put_frame(r, frame[1]));
        return QS_OK;
    }
    QS_TRY(put_frame(r, t->assistant[0]));
    QS_TRY(flush(r));
    r->learn = true;
    QS_TRY(put_answer(r, turn));
    if (*tail == '\n' && ends_with_break(r, turn)) tail++;
    QS_TRY(put_frame(r, tail));
    r->learn = false;
done:
    return st;
}

/* The default system text that the file's own template carries: its first string literal that is
 * printed as it is, {{'...'}}. A backslash there stands before n, a quote or itself. */
static qs_status put_file_system(render *r) {
    qs_status st = QS_OK;
    qsi_slice s = r->v->chat_template;
    size_t i = 0, end;
    while (i + 3 < s.n && !(memcmp(s.p + i, "{{'", 3) == 0)) i++;
    if (i + 3 >= s.n) return QS_OK;
    for (end = i += 3; end < s.n && s.p[end] != '\''; end++)
        if (s.p[end] == '\\') end++;
    if (end + 2 >= s.n || memcmp(s.p + end, "'}}", 3) != 0) return QS_OK;
    for (; i < end; i++) {
        bool escape = s.p[i] == '\\' && i + 1 < end;
        if (escape) i++;
        QS_TRY(put_text(r, escape && s.p[i] == 'n' ? "\n" : s.p + i, 1));
    }
done:
    return st;
}

static bool has_system(const qsi_turn *turns, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (turns[i].role == QSI_SYSTEM) return true;
    return false;
}

qs_status qsi_chat_render(const qsi_chat_template *t, const qsi_vocab *v, const qsi_turn *turns,
                          size_t n_turns, size_t from_turn, bool generate, qsi_ids *out,
                          qsi_ids *loss_mask, qs_err *err) {
    qs_status st = QS_OK;
    render r = {.t = t, .v = v, .out = out, .mask = loss_mask, .err = err};
    if (from_turn == 0) {
        QS_TRY(put_frame(&r, t->start));
        if (t->file_system && !has_system(turns, n_turns)) QS_TRY(put_file_system(&r));
    }
    for (size_t i = from_turn; i < n_turns; i++) QS_TRY(put_turn(&r, &turns[i]));
    if (generate) QS_TRY(put_frame(&r, t->prompt));
    QS_TRY(flush(&r));
done:
    qsi_str_release(&r.text);
    return st;
}
