/* Tools in a conversation: the list of functions, calls in the history, results.
 *
 * The words of the list for V3.1 and V3.2 are those their authors trained with (deepseek-facts 3.2);
 * those for the other templates are this program's. What comes from a caller (names, descriptions,
 * schemas, arguments, results) is never a marker. JSON is written anew as Python's json.dumps writes
 * it, which the authors' programs use: ", " and ": " between, shortest numbers, no escapes beyond
 * ASCII's. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fmt/json.h"
#include "tok/chat_table.h"

#define LIMITS ((qsi_json_limits){(size_t)4 << 20, 1u << 18})

static qs_status no_memory(qsi_chat_pen *r) {
    return qsi_err_set(r->err, QS_E_NOMEM, "out of memory for a conversation");
}

/* ---- JSON as Python writes it ---- */

/* The shortest digits that read back as x, with an exponent from 1e16 on and below 1e-4. */
static qs_status dump_real(qsi_str *out, double x) {
    char buf[40];
    int digits = 1, exponent;
    for (; digits < 17; digits++) {
        snprintf(buf, sizeof buf, "%.*e", digits - 1, x);
        if (strtod(buf, NULL) == x) break;
    }
    snprintf(buf, sizeof buf, "%.*e", digits - 1, x);
    exponent = (int)strtol(strchr(buf, 'e') + 1, NULL, 10);
    if (exponent < -4 || exponent >= 16) return qsi_str_puts(out, buf);
    int decimals = digits - 1 - exponent;
    return qsi_str_printf(out, "%.*f", decimals > 0 ? decimals : 1, x);
}

qs_status qsi_chat_dump_chars(qsi_str *out, const char *s, size_t n) {
    static const char plain[] = "\"\\\b\f\n\r\t", letter[] = "\"\\bfnrt";
    qs_status st = QS_OK;
    for (size_t i = 0; i < n; i++) {
        const char *p = s[i] == '\0' ? NULL : strchr(plain, s[i]);
        if (p != NULL) QS_TRY(qsi_str_printf(out, "\\%c", letter[p - plain]));
        else if ((unsigned char)s[i] < 0x20)
            QS_TRY(qsi_str_printf(out, "\\u%04x", (unsigned)(unsigned char)s[i]));
        else QS_TRY(qsi_str_append(out, s + i, 1));
    }
done:
    return st;
}

static qs_status dump_string(qsi_str *out, const char *s, size_t n) {
    qs_status st = QS_OK;
    QS_TRY(qsi_str_puts(out, "\""));
    QS_TRY(qsi_chat_dump_chars(out, s, n));
    QS_TRY(qsi_str_puts(out, "\""));
done:
    return st;
}

static qs_status dump_members(qsi_str *out, const json_t *j) {
    qs_status st = QS_OK;
    const char *key, *comma = "";
    const qsi_json *value;
    for (void *it = qsi_json_next(j, NULL, &key, &value); it != NULL;
         it = qsi_json_next(j, it, &key, &value)) {
        QS_TRY(qsi_str_puts(out, comma));
        QS_TRY(dump_string(out, key, strlen(key)));
        QS_TRY(qsi_str_puts(out, ": "));
        QS_TRY(qsi_chat_dump(out, value));
        comma = ", ";
    }
done:
    return st;
}

/* Nesting is bounded by the parser. */
qs_status qsi_chat_dump(qsi_str *out, const qsi_json *j) {
    qs_status st = QS_OK;
    switch (json_typeof(j)) {
    case JSON_NULL: return qsi_str_puts(out, "null");
    case JSON_TRUE: return qsi_str_puts(out, "true");
    case JSON_FALSE: return qsi_str_puts(out, "false");
    case JSON_INTEGER: return qsi_str_printf(out, "%lld", (long long)json_integer_value(j));
    case JSON_REAL: return dump_real(out, json_real_value(j));
    case JSON_STRING: return dump_string(out, json_string_value(j), json_string_length(j));
    case JSON_ARRAY:
        QS_TRY(qsi_str_puts(out, "["));
        for (size_t i = 0; i < json_array_size(j); i++) {
            if (i > 0) QS_TRY(qsi_str_puts(out, ", "));
            QS_TRY(qsi_chat_dump(out, json_array_get(j, i)));
        }
        return qsi_str_puts(out, "]");
    case JSON_OBJECT:
        QS_TRY(qsi_str_puts(out, "{"));
        QS_TRY(dump_members(out, j));
        return qsi_str_puts(out, "}");
    }
done:
    return st;
}

/* Writes a value as text that is no marker. */
static qs_status put_json(qsi_chat_pen *r, const qsi_json *j) {
    qs_status st = QS_OK;
    qsi_str s = {0};
    if (qsi_chat_dump(&s, j) != QS_OK) {
        st = no_memory(r);
        goto done;
    }
    QS_TRY(qsi_chat_text(r, s.data, s.len));
done:
    qsi_str_release(&s);
    return st;
}

static qs_status put_words(qsi_chat_pen *r, const char *s) {
    return qsi_chat_text(r, s, strlen(s));
}

/* Parses the text of an object. */
static qs_status parse(qsi_chat_pen *r, qsi_json **j, const char *p, size_t n, const char *what) {
    qs_status st = qsi_json_parse(j, p, n, LIMITS, r->err);
    if (st == QS_OK && qsi_json_kind_of(*j) != QSI_JSON_OBJECT)
        st = qsi_err_set(r->err, QS_E_FORMAT, "not an object");
    if (st != QS_OK) qsi_err_prefix(r->err, "%s", what);
    return st;
}

/* ---- the list of functions ---- */

#define CALL_EXAMPLE_FENCED                                                                        \
    QSI_M_CALLS QSI_M_CALL "function" QSI_M_SEP "NAME\n```json\nARGUMENTS\n```" QSI_M_CALL_END     \
    QSI_M_CALLS_END

typedef struct words {
    const char *before, *after;
} words;

static const words tool_words[] = {
    [QSI_CALLS_JSON] =
        {"You can call these functions (one JSON object a line):\n",
         "\nTo call a function, answer with nothing but a JSON object of this form: "
         "{\"name\": the function's name, \"arguments\": an object under its parameters' schema}"},
    [QSI_CALLS_FENCED] =
        {"## Tools\n\nYou can call these functions (one JSON object a line):\n",
         "\nTo call a function, write this, with its name for NAME and a JSON object under its "
         "parameters' schema for ARGUMENTS:\n" CALL_EXAMPLE_FENCED},
    [QSI_CALLS_PLAIN] =
        {"## Tools\nYou have access to the following tools:\n",
         "\n\nIMPORTANT: ALWAYS adhere to this exact format for tool use:\n" QSI_M_CALLS QSI_M_CALL
         "tool_call_name" QSI_M_SEP "tool_call_arguments" QSI_M_CALL_END
         "{additional_tool_calls}" QSI_M_CALLS_END "\n\nWhere:\n"
         "- `tool_call_name` must be an exact match to one of the available tools\n"
         "- `tool_call_arguments` must be valid JSON that strictly follows the tool's Parameters "
         "Schema\n"
         "- For multiple tool calls, chain them directly without separators or spaces"},
    [QSI_CALLS_DSML] =
        {"## Tools\n\nYou have access to a set of tools you can use to answer the user's "
         "question.\nYou can invoke functions by writing a \"<" QSI_M_DSML "function_calls>\" block "
         "like the following as part of your reply to the user:\n"
         "<" QSI_M_DSML "function_calls>\n<" QSI_M_DSML "invoke name=\"$FUNCTION_NAME\">\n"
         "<" QSI_M_DSML "parameter name=\"$PARAMETER_NAME\" string=\"true|false\">"
         "$PARAMETER_VALUE</" QSI_M_DSML "parameter>\n...\n</" QSI_M_DSML "invoke>\n"
         "<" QSI_M_DSML "invoke name=\"$FUNCTION_NAME2\">\n...\n</" QSI_M_DSML "invoke>\n"
         "</" QSI_M_DSML "function_calls>\n\n"
         "String and scalar parameters should be specified as is without any escaping or quotes, "
         "while lists and objects should use JSON format. The \"string\" attribute should be set to "
         "\"true\" for string type parameters and \"false\" for other types (numbers, booleans, "
         "arrays, objects).\n\n"
         "If the thinking_mode is enabled, then after function results you should strongly consider "
         "outputting a thinking block. Here is an example:\n\n"
         "<" QSI_M_DSML "function_calls>\n...\n</" QSI_M_DSML "function_calls>\n\n"
         "<function_results>\n...\n</function_results>\n\n"
         QSI_M_THINK "...thinking about results" QSI_M_ANSWER "\n\n"
         "Here are the functions available in JSONSchema format:\n<functions>\n",
         "\n</functions>\n"},
};

static qs_status put_tool(qsi_chat_pen *r, const qsi_json *tool, bool first) {
    qs_status st = QS_OK;
    const char *name = qsi_json_as_str(qsi_json_get(tool, "name"));
    const char *about = qsi_json_as_str(qsi_json_get(tool, "description"));
    const qsi_json *parameters = qsi_json_get(tool, "parameters");
    if (name == NULL) QS_FAIL(r->err, QS_E_FORMAT, "a tool has no name");
    if (r->t->calls != QSI_CALLS_PLAIN) {
        if (!first) QS_TRY(put_words(r, "\n"));
        return put_json(r, tool);
    }
    QS_TRY(put_words(r, first ? "\n### " : "\n\n### "));
    QS_TRY(put_words(r, name));
    QS_TRY(put_words(r, "\nDescription: "));
    QS_TRY(put_words(r, about != NULL ? about : ""));
    QS_TRY(put_words(r, "\n\nParameters: "));
    QS_TRY(parameters != NULL ? put_json(r, parameters) : put_words(r, "{}"));
done:
    return st;
}

qs_status qsi_chat_put_tools(qsi_chat_pen *r) {
    qs_status st = QS_OK;
    qsi_json *j = NULL;
    const words *w = &tool_words[r->t->calls];
    QS_TRY(qsi_chat_frame(r, w->before));
    for (size_t i = 0; i < r->o->n_tools; i++) {
        QS_TRY(parse(r, &j, r->o->tools[i].json, r->o->tools[i].n, "a tool"));
        QS_TRY(put_tool(r, j, i == 0));
        qsi_json_free(&j);
    }
    QS_TRY(qsi_chat_frame(r, w->after));
done:
    qsi_json_free(&j);
    return st;
}

/* ---- calls ---- */

static qs_status put_name(qsi_chat_pen *r, const qsi_call *c) {
    return qsi_chat_text(r, c->name, c->n_name);
}

static qs_status put_args(qsi_chat_pen *r, const qsi_call *c) {
    return qsi_chat_text(r, c->args, c->n_args);
}

static qs_status put_fenced(qsi_chat_pen *r, const qsi_call *c, bool first) {
    qs_status st = QS_OK;
    QS_TRY(qsi_chat_frame(r, first ? QSI_M_CALLS : "\n"));
    QS_TRY(qsi_chat_frame(r, QSI_M_CALL "function" QSI_M_SEP));
    QS_TRY(put_name(r, c));
    QS_TRY(qsi_chat_frame(r, "\n```json\n"));
    QS_TRY(put_args(r, c));
    QS_TRY(qsi_chat_frame(r, "\n```" QSI_M_CALL_END));
done:
    return st;
}

static qs_status put_plain(qsi_chat_pen *r, const qsi_call *c, bool first) {
    qs_status st = QS_OK;
    QS_TRY(qsi_chat_frame(r, first ? QSI_M_CALLS QSI_M_CALL : QSI_M_CALL));
    QS_TRY(put_name(r, c));
    QS_TRY(qsi_chat_frame(r, QSI_M_SEP));
    QS_TRY(put_args(r, c));
    QS_TRY(qsi_chat_frame(r, QSI_M_CALL_END));
done:
    return st;
}

/* One JSON object a line. */
static qs_status put_bare(qsi_chat_pen *r, const qsi_call *c, bool first, bool text) {
    qs_status st = QS_OK;
    qsi_str name = {0};
    if (!first || text) QS_TRY(put_words(r, "\n"));
    if (dump_string(&name, c->name, c->n_name) != QS_OK) {
        st = no_memory(r);
        goto done;
    }
    QS_TRY(put_words(r, "{\"name\": "));
    QS_TRY(qsi_chat_text(r, name.data, name.len));
    QS_TRY(put_words(r, ", \"arguments\": "));
    QS_TRY(put_args(r, c));
    QS_TRY(put_words(r, "}"));
done:
    qsi_str_release(&name);
    return st;
}

static qs_status put_parameter(qsi_chat_pen *r, const char *key, const qsi_json *value) {
    qs_status st = QS_OK;
    const char *text = qsi_json_as_str(value);
    QS_TRY(qsi_chat_frame(r, "<" QSI_M_DSML "parameter name=\""));
    QS_TRY(put_words(r, key));
    QS_TRY(qsi_chat_frame(r, text != NULL ? "\" string=\"true\">" : "\" string=\"false\">"));
    QS_TRY(text != NULL ? put_words(r, text) : put_json(r, value));
    QS_TRY(qsi_chat_frame(r, "</" QSI_M_DSML "parameter>\n"));
done:
    return st;
}

static qs_status put_dsml(qsi_chat_pen *r, const qsi_call *c) {
    qs_status st = QS_OK;
    qsi_json *j = NULL;
    const char *key;
    const qsi_json *value;
    QS_TRY(parse(r, &j, c->args, c->n_args, "the arguments of a call"));
    QS_TRY(qsi_chat_frame(r, "<" QSI_M_DSML "invoke name=\""));
    QS_TRY(put_name(r, c));
    QS_TRY(qsi_chat_frame(r, "\">\n"));
    for (void *it = qsi_json_next(j, NULL, &key, &value); it != NULL;
         it = qsi_json_next(j, it, &key, &value))
        QS_TRY(put_parameter(r, key, value));
    /* the authors' program leaves an empty line where there are no parameters */
    if (qsi_json_size(j) == 0) QS_TRY(put_words(r, "\n"));
    QS_TRY(qsi_chat_frame(r, "</" QSI_M_DSML "invoke>\n"));
done:
    qsi_json_free(&j);
    return st;
}

qs_status qsi_chat_put_calls(qsi_chat_pen *r, const qsi_turn *turn) {
    qs_status st = QS_OK;
    qsi_call_form form = r->t->calls;
    if (form == QSI_CALLS_DSML) QS_TRY(qsi_chat_frame(r, "\n\n<" QSI_M_DSML "function_calls>\n"));
    for (size_t i = 0; i < turn->n_calls; i++) {
        const qsi_call *c = &turn->calls[i];
        bool first = i == 0;
        if (form == QSI_CALLS_FENCED) QS_TRY(put_fenced(r, c, first));
        else if (form == QSI_CALLS_PLAIN) QS_TRY(put_plain(r, c, first));
        else if (form == QSI_CALLS_DSML) QS_TRY(put_dsml(r, c));
        else QS_TRY(put_bare(r, c, first, turn->n > 0));
    }
    if (form == QSI_CALLS_DSML) QS_TRY(qsi_chat_frame(r, "</" QSI_M_DSML "function_calls>"));
    else if (form != QSI_CALLS_JSON) QS_TRY(qsi_chat_frame(r, QSI_M_CALLS_END));
done:
    return st;
}

/* ---- results ---- */

static qs_status put_dsml_result(qsi_chat_pen *r, const qsi_turn *turn) {
    qs_status st = QS_OK;
    if (r->n_got >= r->n_due)
        QS_FAIL(r->err, QS_E_FORMAT, "a tool's result belongs to no call in front of it");
    if (r->n_got++ == 0) QS_TRY(qsi_chat_frame(r, "\n\n<function_results>"));
    QS_TRY(qsi_chat_frame(r, "\n<result>"));
    QS_TRY(qsi_chat_text(r, turn->text, turn->n));
    QS_TRY(qsi_chat_frame(r, "</result>"));
    if (r->n_got < r->n_due) goto done;
    QS_TRY(qsi_chat_frame(r, "\n</function_results>\n\n"));
    bool think = r->thinking && (r->asked == NULL || turn > r->asked);
    QS_TRY(qsi_chat_frame(r, think ? QSI_M_THINK : QSI_M_ANSWER));
done:
    return st;
}

qs_status qsi_chat_put_result(qsi_chat_pen *r, const qsi_turn *turn) {
    qs_status st = QS_OK;
    const qsi_chat_template *t = r->t;
    bool more = r->last == QSI_TOOL;
    if (t->calls == QSI_CALLS_DSML) return put_dsml_result(r, turn);
    if (t->calls == QSI_CALLS_JSON) {
        QS_TRY(qsi_chat_frame(r, t->user[0]));
        QS_TRY(put_words(r, "The function's result: "));
        QS_TRY(qsi_chat_text(r, turn->text, turn->n));
        return qsi_chat_frame(r, t->user[1]);
    }
    if (t->calls == QSI_CALLS_FENCED) QS_TRY(qsi_chat_frame(r, more ? t->between : QSI_M_OUTPUTS));
    QS_TRY(qsi_chat_frame(r, QSI_M_OUTPUT));
    QS_TRY(qsi_chat_text(r, turn->text, turn->n));
    QS_TRY(qsi_chat_frame(r, QSI_M_OUTPUT_END));
done:
    return st;
}
