/* What the answer's text has to keep to. See call_impl.h. */
#include <string.h>

#include "serve/call_impl.h"

static void refuse(const qsi_in *in, const char *key) {
    qsi_in_refuse(in, key, "asks for a form of the answer, which this version cannot enforce");
}

void qsi_ask_schema_text(qsi_api_call *c, const qsi_in *in, const char *key, const char *json,
    size_t n) {
    refuse(in, key);
}

void qsi_ask_any_json(qsi_api_call *c, const qsi_in *in, const char *key) { refuse(in, key); }

void qsi_ask_schema(qsi_api_call *c, const qsi_in *in, const char *key) {
    if (qsi_in_has(in, key)) refuse(in, key);
}

void qsi_ask_constraint(qsi_api_call *c, const qsi_in *in) {
    static const char *const keys[] = { "json_schema", "grammar", "guided_json", "guided_regex",
                                        "guided_choice", "guided_grammar", "structured_outputs" };
    for (size_t i = 0; i < QSI_COUNT(keys); i++)
        if (qsi_in_has(in, keys[i])) refuse(in, keys[i]);
    if (qsi_in_object(in, "response_format") == NULL) return;
    qsi_in f = qsi_in_member(in, "response_format");
    const char *type = qsi_in_need(&f, "type") ? qsi_in_text(&f, "type") : NULL;
    if (type != NULL && strcmp(type, "text") != 0) refuse(&f, "type");
}
