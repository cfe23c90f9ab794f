/* Which chat template a file speaks: names, hashes of known texts, and for any other Jinja text the
 * words it writes around a user's and an assistant's turn.
 *
 * A Jinja text is data from a stranger. It is cut into output ({{ ... }} and text outside tags) and
 * statements, and nothing of it is evaluated: in output, string literals stand for themselves, all
 * other values for one unknown text (\1), BOS and EOS for nothing. What stands between two
 * statements is a segment, such as "<｜User｜>\1" or "User: \1\n\n", and a segment with a role's
 * marker must be one that a row of the table writes; else the template is unknown. Statements only
 * give hints: whether the history is split at </think>, whether system texts are joined.
 *
 * Source: Jinja's documentation (template designer: whitespace control, trim_blocks and
 * lstrip_blocks as Hugging Face sets them). */
#include <string.h>

#include "base/hash.h"
#include "tok/chat_table.h"


/* Other names under which people know them. */
static const struct {
    const char *alias, *name;
} aliases[] = {
    {"deepseek-moe", "deepseek-llm"},
    {"deepseek-v2", "deepseek-llm"},
    {"deepseek-coder-instruct", "deepseek-coder"},
    {"coder-instruct", "deepseek-coder"},
    {"deepseek-v3.1-terminus", "deepseek-v3.1"},
};

/* Official texts, by hash (tools/golden_chat.py prints them). */
static const struct {
    uint64_t hash;
    const char *name;
} known[] = {
    {UINT64_C(0x731a6aa17a2b78ea), "deepseek-coder"},
    {UINT64_C(0xaccdd56957c43587), "deepseek-llm"},
    {UINT64_C(0xa8dc4ba2a58c625b), "deepseek-r1-0528"},
    {UINT64_C(0x55b25ceb4910aa64), "deepseek-r1-distill-open"},
    {UINT64_C(0x759e4eeeb1ec9b77), "deepseek-r1-distill"},
    {UINT64_C(0x56a138c31521e7c8), "deepseek-r1-open"},
    {UINT64_C(0x6d68488b86e2e184), "deepseek-r1"},
    {UINT64_C(0xb03a88a5ed2e55ea), "deepseek-v2-0628"},
    {UINT64_C(0x5d8f46e84b7785dd), "deepseek-v2.5"},
    {UINT64_C(0x2c92a8e6f77c96b8), "deepseek-v3-0324"},
    {UINT64_C(0x6be33d54322434a8), "deepseek-v3.1"},
    {UINT64_C(0xaeef296221187973), "deepseek-v3"},
};

static const qsi_chat_template *by_name(const char *name) {
    for (size_t i = 0; i < QSI_COUNT(aliases); i++)
        if (strcmp(name, aliases[i].alias) == 0) name = aliases[i].name;
    for (size_t i = 0; i < qsi_chat_table_n; i++)
        if (strcmp(name, qsi_chat_table[i].name) == 0) return &qsi_chat_table[i];
    return NULL;
}

const qsi_chat_template *qsi_chat_at(size_t i) {
    return i < qsi_chat_table_n ? &qsi_chat_table[i] : NULL;
}

const char *qsi_chat_name(const qsi_chat_template *t) {
    return t->name;
}

const char *qsi_chat_jinja(const qsi_chat_template *t) {
    return t->jinja;
}

/* "deepseek-llm, deepseek-coder, ..." */
static void list_names(char *buf, size_t cap) {
    size_t at = 0;
    buf[0] = '\0';
    for (size_t i = 0; i < qsi_chat_table_n; i++) {
        const char *name = qsi_chat_table[i].name;
        size_t n = strlen(name);
        if (at + n + 3 > cap) return;
        if (i > 0) {
            memcpy(buf + at, ", ", 2);
            at += 2;
        }
        memcpy(buf + at, name, n + 1);
        at += n;
    }
}

qs_status qsi_chat_by_name(const qsi_chat_template **t, const char *name, qs_err *err) {
    char names[320];
    const qsi_chat_template *found = by_name(name);
    list_names(names, sizeof names);
    if (found == NULL)
        return qsi_err_set(err, QS_E_UNSUPPORTED, "unknown chat template '%.40s' (known: %s)", name,
                           names);
    *t = found;
    return QS_OK;
}

/* ---- reading Jinja ---- */

typedef enum family { F_NONE, F_TOKENS, F_WORDS, F_CODER } family;

/* What was seen so far. */
typedef struct traits {
    family user, assistant; /* whose markers stand around them */
    bool foreign;           /* a role's marker in a segment that no row writes */
    bool user_opens, system_break; /* in output */
    bool opens_think, closes_think, opens_line; /* opens_line: <think> and a line break */
    bool dsml, strips, joins;                                 /* in statements */
} traits;

typedef struct reader {
    const char *p, *end;
    qsi_str seg;
    bool failed; /* no memory */
    traits t;
} reader;

static bool is_space(char c) {
    return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

static bool is_word(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

static void add(reader *r, const char *p, size_t n) {
    if (qsi_str_append(&r->seg, p, n) != QS_OK) r->failed = true;
}

static bool starts(const char *p, const char *end, const char *word) {
    size_t n = strlen(word);
    return (size_t)(end - p) >= n && memcmp(p, word, n) == 0;
}

static const char *find(const char *p, const char *end, const char *word) {
    for (; p < end; p++)
        if (starts(p, end, word)) return p;
    return NULL;
}

/* The end of the string literal that begins at p (behind its quote). */
static const char *skip_string(const char *p, const char *end) {
    char quote = *p++;
    while (p < end && *p != quote) p += *p == '\\' && end - p > 1 ? 2 : 1;
    return p < end ? p + 1 : end;
}

/* Behind the bracket that closes the one at p. */
static const char *skip_bracket(const char *p, const char *end) {
    int64_t depth = 0;
    while (p < end) {
        if (*p == '\'' || *p == '"') {
            p = skip_string(p, end);
            continue;
        }
        if (*p == '(' || *p == '[' || *p == '{') depth++;
        if (*p == ')' || *p == ']' || *p == '}') depth--;
        p++;
        if (depth <= 0) break;
    }
    return p;
}

/* A literal's text, quotes included in [p, end). */
static void add_literal(reader *r, const char *p, const char *end) {
    for (p++, end--; p < end; p++) {
        char c = *p;
        if (c == '\\' && end - p > 1) {
            c = *++p;
            c = c == 'n' ? '\n' : c == 't' ? '\t' : c == 'r' ? '\r' : c;
        }
        if (c != '\1') add(r, &c, 1);
    }
}

static void add_hole(reader *r) {
    if (r->seg.len == 0 || r->seg.data[r->seg.len - 1] != '\1') add(r, "\1", 1);
}

/* Words of an expression that are no values. */
static bool is_silent(const char *p, size_t n) {
    static const char *const words[] = {"or", "and", "not", "is", "if", "else", "none", "None", "in",
                                        "defined", "string", "true", "false", "bos_token",
                                        "eos_token"};
    for (size_t i = 0; i < QSI_COUNT(words); i++)
        if (strlen(words[i]) == n && memcmp(words[i], p, n) == 0) return true;
    return false;
}

/* An output expression: its literals and holes go to the segment. */
static void read_output(reader *r, const char *p, const char *end) {
    bool after_value = false, filter = false;
    while (p < end) {
        const char *from = p;
        if (*p == '\'' || *p == '"') {
            p = skip_string(p, end);
            add_literal(r, from, p);
            after_value = true;
        } else if (*p == '[' || (*p == '(' && after_value)) {
            p = skip_bracket(p, end);
        } else if (is_word(*p)) {
            bool number = *p >= '0' && *p <= '9';
            while (p < end && (is_word(*p) || *p == '.')) p++;
            if (!number && !filter && !is_silent(from, (size_t)(p - from))) add_hole(r);
            filter = false;
            after_value = true;
        } else if (is_space(*p) || *p == '.') {
            p++;
        } else {
            filter = *p == '|';
            after_value = *p == ')';
            p++;
        }
    }
}

static bool seg_is(const reader *r, const char *s) {
    return r->seg.len == strlen(s) && memcmp(r->seg.data, s, r->seg.len) == 0;
}

/* Behind the assistant's marker: nothing, the answer, or markers of reasoning and tools. */
static void look_behind_marker(reader *r, const char *p, const char *end) {
    traits *t = &r->t;
    t->assistant = F_TOKENS;
    if (starts(p, end, QSI_M_THINK "\n")) t->opens_line = true;
    else if (starts(p, end, QSI_M_THINK QSI_M_ANSWER) || starts(p, end, QSI_M_ANSWER))
        t->closes_think = true;
    else if (starts(p, end, QSI_M_THINK)) t->opens_think = true;
    else if (p < end && *p != '\1' && !starts(p, end, QSI_M_CALLS)) t->foreign = true;
}

static void look_at_tokens(reader *r, const char *user, const char *assistant) {
    traits *t = &r->t;
    const char *end = r->seg.data + r->seg.len;
    if (user != NULL) {
        const char *p = user + strlen(QSI_M_USER);
        if (user != r->seg.data || !starts(p, end, "\1")) t->foreign = true;
        else if (++p < end && p != assistant) t->foreign = true;
        t->user = F_TOKENS;
        t->user_opens = t->user_opens || assistant != NULL;
    } else if (assistant != r->seg.data) {
        t->foreign = true;
    }
    if (assistant != NULL) look_behind_marker(r, assistant + strlen(QSI_M_ASSISTANT), end);
}

static void look_at_words(reader *r) {
    traits *t = &r->t;
    const char *p = r->seg.data, *end = p + r->seg.len;
    if (find(p, end, "### Instruction") != NULL) {
        t->user = F_CODER;
        if (!seg_is(r, "### Instruction:\n\1\n")) t->foreign = true;
    } else if (find(p, end, "### Response") != NULL) {
        t->assistant = F_CODER;
        if (!seg_is(r, "### Response:\n") && !starts(p, end, "### Response:\n\1\n"))
            t->foreign = true;
    } else if (find(p, end, "User:") != NULL) {
        t->user = F_WORDS;
        if (!seg_is(r, "User: \1\n\n")) t->foreign = true;
    } else if (find(p, end, "Assistant:") != NULL) {
        t->assistant = F_WORDS;
        if (!seg_is(r, "Assistant:") && !seg_is(r, "Assistant: \1")) t->foreign = true;
    }
}

/* The segment is complete. */
static void end_segment(reader *r) {
    traits *t = &r->t;
    if (r->seg.len == 0) return; /* there may be no text at all */
    const char *p = r->seg.data, *end = p + r->seg.len;
    const char *user = find(p, end, QSI_M_USER), *assistant = find(p, end, QSI_M_ASSISTANT);
    if (user != NULL || assistant != NULL) look_at_tokens(r, user, assistant);
    else if (seg_is(r, QSI_M_ANSWER) || seg_is(r, QSI_M_THINK QSI_M_ANSWER)) t->closes_think = true;
    else if (seg_is(r, QSI_M_THINK)) t->opens_think = true;
    else if (seg_is(r, "\1\n\n")) t->system_break = true;
    else look_at_words(r);
    if (find(p, end, QSI_M_DSML) != NULL) t->dsml = true;
    qsi_str_clear(&r->seg);
}

/* A statement: only its string literals are looked at. */
static void read_statement(reader *r, const char *p, const char *end) {
    qsi_str keep = r->seg;
    r->seg = (qsi_str){0};
    while (p < end) {
        const char *from = p;
        if (*p != '\'' && *p != '"') {
            p++;
            continue;
        }
        p = skip_string(p, end);
        qsi_str_clear(&r->seg);
        add_literal(r, from, p);
        if (r->seg.len == 0) continue;
        if (seg_is(r, QSI_M_ANSWER)) r->t.strips = true;
        if (seg_is(r, "\n\n")) r->t.joins = true;
        if (find(r->seg.data, r->seg.data + r->seg.len, QSI_M_DSML) != NULL) r->t.dsml = true;
    }
    qsi_str_release(&r->seg);
    r->seg = keep;
}

/* Text outside tags, without the white space that Jinja drops. */
static void read_raw(reader *r, const char *p, const char *end, bool after_minus, bool after_block,
                     const char *tag) {
    bool minus = tag != NULL && tag + 2 < r->end && tag[2] == '-';
    if (after_minus)
        while (p < end && is_space(*p)) p++;
    else if (after_block && p < end && *p == '\n') p++;
    if (minus) {
        while (end > p && is_space(end[-1])) end--;
    } else if (tag != NULL && tag[1] != '{') {
        const char *e = end;
        while (e > p && (e[-1] == ' ' || e[-1] == '\t')) e--;
        if (e > p && e[-1] == '\n') end = e;
    }
    add(r, p, (size_t)(end - p));
}

/* The closing brackets of the tag whose inside begins at p; r->end when there are none. */
static const char *tag_end(const reader *r, const char *p, const char *close, bool quotes) {
    while (p < r->end && !starts(p, r->end, close))
        p = quotes && (*p == '\'' || *p == '"') ? skip_string(p, r->end) : p + 1;
    return p;
}

static void read_jinja(reader *r) {
    bool minus = false, block = false;
    while (r->p < r->end && !r->failed) {
        const char *tag = r->p, *in, *out;
        while (tag < r->end && !(tag[0] == '{' && r->end - tag > 1 &&
                                 (tag[1] == '{' || tag[1] == '%' || tag[1] == '#')))
            tag++;
        read_raw(r, r->p, tag, minus, block, tag < r->end ? tag : NULL);
        if (tag == r->end) break;
        const char *close = tag[1] == '{' ? "}}" : tag[1] == '%' ? "%}" : "#}";
        in = tag + 2;
        out = tag_end(r, in, close, tag[1] != '#');
        if (tag[1] == '{') {
            read_output(r, in, out);
        } else if (tag[1] == '%') {
            end_segment(r);
            read_statement(r, in, out);
        }
        minus = out > in && out[-1] == '-';
        block = tag[1] != '{';
        r->p = r->end - out > 2 ? out + 2 : r->end;
    }
    end_segment(r);
}

/* ---- deciding ---- */

static const char *name_of(const traits *t) {
    if (t->foreign || t->user == F_NONE || t->assistant != t->user) return NULL;
    if (t->user == F_WORDS) return "deepseek-llm";
    if (t->user == F_CODER) return "deepseek-coder";
    if (t->dsml) return "deepseek-v3.2";
    if (t->closes_think && !t->opens_line) return "deepseek-v3.1";
    if (t->strips || t->opens_think || t->opens_line) {
        bool opens = t->opens_think || t->opens_line;
        if (t->user_opens) return "deepseek-r1-0528";
        if (t->joins) return opens ? "deepseek-r1-open" : "deepseek-r1";
        return opens ? "deepseek-r1-distill-open" : "deepseek-r1-distill";
    }
    if (t->user_opens) return "deepseek-v3-0324";
    if (t->system_break) return "deepseek-v2-0628";
    return t->joins ? "deepseek-v3" : "deepseek-v2.5";
}

const qsi_chat_template *qsi_chat_of_jinja(qsi_slice jinja) {
    uint64_t hash = qsi_hash(jinja.p, jinja.n);
    for (size_t i = 0; i < QSI_COUNT(known); i++)
        if (known[i].hash == hash) return by_name(known[i].name);
    if (jinja.n == 0 || jinja.n > QSI_JINJA_MAX) return NULL;
    reader r = {.p = jinja.p, .end = jinja.p + jinja.n};
    read_jinja(&r);
    const char *name = r.failed ? NULL : name_of(&r.t);
    qsi_str_release(&r.seg);
    return name == NULL ? NULL : by_name(name);
}

static bool has_token(const qsi_vocab *v, const char *text) {
    int32_t id = qsi_vocab_find(v, text, strlen(text));
    return id >= 0 && v->type[id] != QSI_TOK_NORMAL;
}

/* For a file without a template. V2, V2.5 and Coder-V2 have one architecture, shape and pre-tokenizer:
 * those whose turns stand between words (V2, V2-Lite, Coder-V2-Lite) are told from V2.5 by its tokens
 * for them. */
static const qsi_chat_template *guess(const qsi_vocab *v, const char *arch) {
    bool marked = has_token(v, QSI_M_USER) && has_token(v, QSI_M_ASSISTANT);
    if (arch != NULL && strcmp(arch, "deepseek32") == 0) return by_name("deepseek-v3.2");
    if (arch != NULL && strcmp(arch, "deepseek2") == 0 && marked && strcmp(v->pre, "deepseek-llm") == 0)
        return by_name("deepseek-v2.5");
    const char *pre = strcmp(v->pre, "joyai-llm") == 0 ? "deepseek-v3" : v->pre;
    for (size_t i = 0; i < qsi_chat_table_n; i++)
        if (qsi_chat_table[i].pre != NULL && strcmp(pre, qsi_chat_table[i].pre) == 0)
            return &qsi_chat_table[i];
    /* another family's vocabulary with DeepSeek's markers: a model that learned from R1, or (Qwen3) from
     * R1 of May 2025 */
    if (!marked) return NULL;
    bool later = arch != NULL && strcmp(arch, "qwen3") == 0;
    return by_name(later ? "deepseek-r1-0528" : "deepseek-r1-distill-open");
}

qs_status qsi_chat_find(const qsi_chat_template **t, const qsi_vocab *v, const char *arch,
                        bool *guessed, qs_err *err) {
    char names[320];
    const qsi_chat_template *found =
        v->chat_template.n > 0 ? qsi_chat_of_jinja(v->chat_template) : guess(v, arch);
    list_names(names, sizeof names);
    if (found == NULL && v->chat_template.n > QSI_JINJA_MAX)
        return qsi_err_set(err, QS_E_UNSUPPORTED,
                           "the file's chat template is not known: it is longer than %zu bytes; name "
                           "one that fits (--chat-template), or continue text (run --raw). Known: %s",
                           QSI_JINJA_MAX, names);
    if (found == NULL && v->chat_template.n > 0)
        return qsi_err_set(err, QS_E_UNSUPPORTED,
                           "the file's chat template is not known; name one that fits "
                           "(--chat-template), or continue text (run --raw). Known: %s", names);
    if (found == NULL)
        return qsi_err_set(err, QS_E_UNSUPPORTED,
                           "no chat template is known for architecture '%.40s' with pre-tokenizer "
                           "'%.40s'; name one (--chat-template), or continue text (run --raw). "
                           "Known: %s", arch == NULL ? "" : arch, v->pre, names);
    *t = found;
    *guessed = v->chat_template.n == 0;
    return QS_OK;
}
