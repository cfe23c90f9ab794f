/* Pre-tokenizers: text -> pieces inside which BPE merges.
 *
 * A pre-tokenizer is a sequence of steps "split, isolate the matches": a step cuts a piece into its
 * matches and the gaps between them, and the next step works inside every one of these. The
 * reference writes a step as a regular expression; here each is a function that finds the next
 * match, and none looks at a character more than a fixed number of times, so that any text takes
 * linear time. Text is decoded once, part by part, into an array of character classes; parts end
 * where no step can join two pieces.
 *
 * Source: deepseek-facts 3.1 and docs/distills.md (the patterns), Hugging Face tokenizers (what a
 * pattern means: class tables in unicode_table.c; `$` is the end of the current piece).
 * Invariant: the pieces, joined, are the text. */
#include <string.h>

#include "base/mem.h"
#include "tok/tok.h"
#include "tok/unicode_table.h"
#include "tok/vocab.h"

#define STACK_CHARS 1024
#define MAX_STEPS 7

/* One part of the text: class of each character, and where it starts (off[n] is the end). */
typedef struct part {
    const char *text;
    uint16_t *cls;
    uint32_t *off;
    size_t n;
} part;

typedef struct span {
    size_t begin, end;
} span;

/* Finds the first match in [pos, end) of the piece; false when there is none. */
typedef bool find_fn(const part *p, size_t pos, size_t end, span *m);

typedef struct scheme {
    const char *name;
    bool line_parts; /* a line break alone ends a part; else one followed by a non-space */
    find_fn *steps[MAX_STEPS];
} scheme;

typedef struct walk {
    const part *p;
    find_fn *const *steps;
    qsi_piece_fn *fn;
    void *user;
} walk;

/* X+ */
static inline bool find_run(const uint16_t *cls, size_t pos, size_t end, unsigned x, span *m) {
    while (pos < end && !(cls[pos] & x)) pos++;
    if (pos == end) return false;
    m->begin = pos;
    while (pos < end && (cls[pos] & x)) pos++;
    m->end = pos;
    return true;
}

/* \s?X+ */
static inline bool find_spaced_run(const uint16_t *cls, size_t pos, size_t end, unsigned x, span *m) {
    size_t first = pos;
    if (!find_run(cls, pos, end, x, m)) return false;
    if (m->begin > first && (cls[m->begin - 1] & QSI_UC_SPACE)) m->begin--;
    return true;
}

/* X */
static inline bool find_one(const uint16_t *cls, size_t pos, size_t end, unsigned x, span *m) {
    while (pos < end && !(cls[pos] & x)) pos++;
    m->begin = pos;
    m->end = pos + 1;
    return pos < end;
}

static bool find_newline(const part *p, size_t pos, size_t end, span *m) {
    return find_one(p->cls, pos, end, QSI_UC_NEWLINE, m);
}

static bool find_llm_letters(const part *p, size_t pos, size_t end, span *m) {
    return find_spaced_run(p->cls, pos, end, QSI_UC_LLM_LETTER, m);
}

static bool find_llm_punct(const part *p, size_t pos, size_t end, span *m) {
    return find_spaced_run(p->cls, pos, end, QSI_UC_LLM_PUNCT, m);
}

static bool find_letters(const part *p, size_t pos, size_t end, span *m) {
    return find_spaced_run(p->cls, pos, end, QSI_UC_L, m);
}

static bool find_punct(const part *p, size_t pos, size_t end, span *m) {
    return find_spaced_run(p->cls, pos, end, QSI_UC_P, m);
}

/* \s+$ */
static bool find_last_spaces(const part *p, size_t pos, size_t end, span *m) {
    const uint16_t *cls = p->cls;
    size_t i = end;
    while (i > pos && (cls[i - 1] & QSI_UC_SPACE)) i--;
    m->begin = i;
    m->end = end;
    return i < end;
}

static bool find_llm_cjk(const part *p, size_t pos, size_t end, span *m) {
    return find_run(p->cls, pos, end, QSI_UC_LLM_CJK, m);
}

static bool find_llm_digit(const part *p, size_t pos, size_t end, span *m) {
    return find_one(p->cls, pos, end, QSI_UC_DIGIT, m);
}

static bool find_number(const part *p, size_t pos, size_t end, span *m) {
    return find_one(p->cls, pos, end, QSI_UC_N, m);
}

/* \p{N}{1,3} */
static bool find_three_numbers(const part *p, size_t pos, size_t end, span *m) {
    if (!find_one(p->cls, pos, end, QSI_UC_N, m)) return false;
    while (m->end < end && m->end - m->begin < 3 && (p->cls[m->end] & QSI_UC_N)) m->end++;
    return true;
}

static bool find_v3_cjk(const part *p, size_t pos, size_t end, span *m) {
    return find_run(p->cls, pos, end, QSI_UC_V3_CJK, m);
}

static size_t run_end(const uint16_t *cls, size_t pos, size_t end, unsigned x) {
    while (pos < end && (cls[pos] & x)) pos++;
    return pos;
}

/* The match that starts at a white-space character and is neither a word nor punctuation:
 * \s*[\r\n]+ | \s+(?!\S) | \s+ */
static size_t gpt_space(const uint16_t *cls, size_t pos, size_t end) {
    size_t stop = run_end(cls, pos, end, QSI_UC_SPACE), i = stop;
    while (i > pos && !(cls[i - 1] & QSI_UC_NEWLINE)) i--;
    if (i > pos) return i;
    return stop < end && stop - pos > 1 ? stop - 1 : stop;
}

/* The end of the match that starts exactly at pos, or pos when none does. */
static size_t v3_match(const uint16_t *cls, size_t pos, size_t end) {
    const unsigned word = QSI_UC_L | QSI_UC_M, mark = QSI_UC_P | QSI_UC_S;
    unsigned c = cls[pos], next = pos + 1 < end ? cls[pos + 1] : 0;
    size_t i;
    if ((c & QSI_UC_APUNCT) && (next & QSI_UC_ALPHA))
        return run_end(cls, pos + 1, end, QSI_UC_ALPHA);
    if (c & word) return run_end(cls, pos, end, word);
    if (!(c & (QSI_UC_NEWLINE | mark)) && (next & word)) return run_end(cls, pos + 1, end, word);
    if ((c & mark) || ((c & QSI_UC_BLANK) && (next & mark))) {
        i = run_end(cls, pos + 1, end, mark);
        return run_end(cls, i, end, QSI_UC_NEWLINE);
    }
    return c & QSI_UC_SPACE ? gpt_space(cls, pos, end) : pos;
}

static bool find_v3_words(const part *p, size_t pos, size_t end, span *m) {
    for (; pos < end; pos++) {
        size_t stop = v3_match(p->cls, pos, end);
        if (stop > pos) {
            m->begin = pos;
            m->end = stop;
            return true;
        }
    }
    return false;
}

/* ---- Llama 3 and Qwen 2: one expression whose matches leave no gap ---- */

/* The byte's lower-case letter; any other byte as it is. */
static char lower(char c) {
    return c >= 'A' && c <= 'Z' ? (char)(c + ('a' - 'A')) : c;
}

/* (?i:'s|'t|'re|'ve|'m|'ll|'d): the end of a contraction that starts at pos, or pos. Without regard
 * to case the engine takes U+017F, the long s, for an s as well. */
static size_t contraction(const part *p, size_t pos, size_t end) {
    static const char two[][2] = {{'r', 'e'}, {'v', 'e'}, {'l', 'l'}};
    const char *s = p->text + p->off[pos];
    if (*s != '\'' || pos + 1 == end) return pos;
    char first = lower(s[1]);
    if (first == 's' || first == 't' || first == 'm' || first == 'd') return pos + 2;
    if (p->off[pos + 2] - p->off[pos] == 3 && memcmp(s + 1, "\xc5\xbf", 2) == 0) return pos + 2;
    for (size_t i = 0; i < QSI_COUNT(two) && pos + 2 < end; i++)
        if (first == two[i][0] && lower(s[2]) == two[i][1]) return pos + 3;
    return pos;
}

/* The end of the match at pos, of a contraction or (n the most numbers that stay together)
 *     [^\r\n\p{L}\p{N}]?\p{L}+ | \p{N}{1,n} | ?[^\s\p{L}\p{N}]+[\r\n]* | \s*[\r\n]+ | \s+(?!\S) | \s+ */
static size_t gpt_match(const part *p, size_t pos, size_t end, size_t n) {
    const unsigned taken = QSI_UC_SPACE | QSI_UC_L | QSI_UC_N;
    const uint16_t *cls = p->cls;
    size_t i = contraction(p, pos, end);
    unsigned c = cls[pos];
    if (i > pos) return i;
    if (c & QSI_UC_L) return run_end(cls, pos, end, QSI_UC_L);
    if (c & QSI_UC_N) return run_end(cls, pos, n < end - pos ? pos + n : end, QSI_UC_N);
    if (!(c & QSI_UC_NEWLINE) && pos + 1 < end && (cls[pos + 1] & QSI_UC_L))
        return run_end(cls, pos + 1, end, QSI_UC_L);
    i = (c & QSI_UC_BLANK) && pos + 1 < end ? pos + 1 : pos;
    if (cls[i] & taken) return gpt_space(cls, pos, end);
    while (i < end && !(cls[i] & taken)) i++;
    return run_end(cls, i, end, QSI_UC_NEWLINE);
}

static bool find_llama3(const part *p, size_t pos, size_t end, span *m) {
    *m = (span){pos, gpt_match(p, pos, end, 3)};
    return true;
}

static bool find_qwen2(const part *p, size_t pos, size_t end, span *m) {
    *m = (span){pos, gpt_match(p, pos, end, 1)};
    return true;
}

static const scheme schemes[] = {
    {"deepseek-llm", true,
     {find_newline, find_llm_letters, find_llm_punct, find_last_spaces, find_llm_cjk,
      find_llm_digit, NULL}},
    {"deepseek-coder", true,
     {find_newline, find_letters, find_punct, find_llm_cjk, find_number, NULL}},
    {"deepseek-v3", false, {find_three_numbers, find_v3_cjk, find_v3_words, NULL}},
    {"joyai-llm", false, {find_three_numbers, find_v3_cjk, find_v3_words, NULL}},
    {"llama-bpe", false, {find_llama3, NULL}},
    {"llama3", false, {find_llama3, NULL}},
    {"qwen2", false, {find_qwen2, NULL}},
    {"deepseek-r1-qwen", false, {find_qwen2, NULL}},
};

static const scheme *find_scheme(const char *pre) {
    for (size_t i = 0; i < QSI_COUNT(schemes); i++)
        if (strcmp(pre, schemes[i].name) == 0) return &schemes[i];
    return NULL;
}

bool qsi_pretok_known(const char *pre) {
    return find_scheme(pre) != NULL;
}

bool qsi_pretok_whole(const char *pre) {
    return strcmp(pre, "llama-bpe") == 0 || strcmp(pre, "llama3") == 0;
}

/* Step `step` inside the characters [begin, end); a piece that passed all steps goes to fn. */
static qs_status split(const walk *w, int step, size_t begin, size_t end) {
    qs_status st = QS_OK;
    size_t pos = begin;
    span m;
    if (w->steps[step] == NULL) {
        const uint32_t *off = w->p->off;
        return w->fn(w->user, w->p->text + off[begin], off[end] - off[begin]);
    }
    while (pos < end) {
        if (!w->steps[step](w->p, pos, end, &m)) m.begin = m.end = end;
        if (m.begin > pos) QS_TRY(split(w, step + 1, pos, m.begin));
        if (m.end > m.begin) QS_TRY(split(w, step + 1, m.begin, m.end));
        pos = m.end;
    }
done:
    return st;
}

/* Bytes of the next part of text (n > 0). No white space starts with a byte from 0xE4 on. */
static size_t part_bytes(const scheme *s, const char *text, size_t n) {
    size_t i = 0;
    for (;;) {
        const char *nl = memchr(text + i, '\n', n - i);
        if (nl == NULL) return n;
        i = (size_t)(nl - text) + 1;
        if (i == n) return n;
        if (s->line_parts) return i;
        if ((text[i] > ' ' && text[i] < 0x7f) || (unsigned char)text[i] >= 0xe4) return i;
    }
}

/* Decodes n_bytes into p (room for n_bytes characters); `base` is their offset in the whole text. */
static qs_status decode_part(part *p, const char *text, size_t n_bytes, size_t base, qs_err *err) {
    size_t i = 0, n = 0;
    p->text = text;
    while (i < n_bytes) {
        int len = 1;
        uint32_t cp = (unsigned char)text[i];
        if (cp >= 0x80) cp = qsi_utf8_decode(text + i, n_bytes - i, &len);
        if (cp == QSI_UTF8_BAD)
            return qsi_err_at(err, QS_E_FORMAT, (int64_t)(base + i),
                              "text is not UTF-8: bad byte 0x%02x at offset %zu",
                              (unsigned)(unsigned char)text[i], base + i);
        p->off[n] = (uint32_t)i;
        p->cls[n++] = (uint16_t)qsi_uc_flags(cp);
        i += (size_t)len;
    }
    p->off[n] = (uint32_t)i;
    p->n = n;
    return QS_OK;
}

/* Makes p hold n_bytes characters: the caller's small arrays while they are large enough. */
static qs_status reserve_part(part *p, size_t *cap, void **heap, size_t n_bytes, qs_err *err) {
    qs_status st = QS_OK;
    size_t unit = sizeof *p->off + sizeof *p->cls;
    void *mem;
    if (n_bytes <= *cap) return QS_OK;
    if (n_bytes >= UINT32_MAX)
        QS_FAIL(err, QS_E_LIMIT, "a line of %zu bytes is too long to tokenize", n_bytes);
    mem = qsi_alloc(n_bytes + 1, unit);
    if (mem == NULL) QS_FAIL(err, QS_E_NOMEM, "out of memory for a line of %zu bytes", n_bytes);
    qsi_free(*heap);
    *heap = mem;
    *cap = n_bytes;
    p->off = mem;
    p->cls = (uint16_t *)(p->off + n_bytes + 1);
done:
    return st;
}

qs_status qsi_pretok(const char *pre, const char *text, size_t n, qsi_piece_fn *fn, void *user,
                     qs_err *err) {
    qs_status st = QS_OK;
    uint32_t off[STACK_CHARS + 1];
    uint16_t cls[STACK_CHARS + 1];
    part p = {.cls = cls, .off = off};
    size_t cap = STACK_CHARS, pos = 0;
    void *heap = NULL;
    const scheme *s = find_scheme(pre);
    walk w = {.p = &p, .fn = fn, .user = user};
    if (s == NULL)
        QS_FAIL(err, QS_E_UNSUPPORTED,
                "unknown pre-tokenizer '%s' (known: " QSI_PRETOK_NAMES ")", pre);
    w.steps = s->steps;
    while (pos < n) {
        size_t len = part_bytes(s, text + pos, n - pos);
        QS_TRY(reserve_part(&p, &cap, &heap, len, err));
        QS_TRY(decode_part(&p, text + pos, len, pos, err));
        QS_TRY(split(&w, 0, 0, p.n));
        pos += len;
    }
done:
    qsi_free(heap);
    return st;
}
