/* infer/grammar: choices, GBNF and regular expressions accept what they should and nothing else; masks
 * are what trying every id says; large and nasty grammars work or are refused, at once. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "base/hash.h"
#include "base/mem.h"
#include "base/str.h"
#include "grammar_fixture.h"
#include "sys/file.h"
#include "sys/thread.h"

static grammar_fixture fix;

static int setup(void **state) {
    grammar_fixture_init(&fix);
    return 0;
}

static int teardown(void **state) {
    grammar_fixture_release(&fix);
    return 0;
}

static qsi_grammar *gbnf(const char *text) {
    qsi_grammar *g = NULL;
    qs_err err = { 0 };
    if (qsi_grammar_from_gbnf(&g, text, strlen(text), NULL, &err) != QS_OK)
        fail_msg("%s: %s", text, err.text);
    return g;
}

static qsi_grammar *regex(const char *text) {
    qsi_grammar *g = NULL;
    qs_err err = { 0 };
    if (qsi_grammar_from_regex(&g, text, strlen(text), NULL, &err) != QS_OK)
        fail_msg("%s: %s", text, err.text);
    return g;
}

/* Texts that match, NULL, texts that do not, NULL. */
typedef struct sample {
    const char *grammar;
    const char *texts[16];
} sample;

static void check(const sample *s, qsi_grammar *(*make)(const char *)) {
    qsi_grammar *g = make(s->grammar);
    const char *const *t = s->texts;
    for (; *t; t++)
        if (!grammar_matches(&fix, g, *t)) fail_msg("%s does not match '%s'", s->grammar, *t);
    for (t++; *t; t++)
        if (grammar_matches(&fix, g, *t)) fail_msg("%s matches '%s'", s->grammar, *t);
    for (uint64_t seed = 1; seed < 4; seed++) grammar_random_walk(&fix, g, seed, 24);
    qsi_grammar_release(g);
}

static void test_choices(void **state) {
    static const char *const list[] = { "foo", "foobar", "北京", "北", "中文", "foo" };
    qsi_grammar *g = NULL;
    assert_int_equal(qsi_grammar_from_choices(&g, list, 6, NULL, NULL), QS_OK);
    for (int i = 0; i < 6; i++) assert_true(grammar_matches(&fix, g, list[i]));
    static const char *const other[] = { "", "fo", "foob", "foobarx", "京", "北京市", "bar", "中" };
    for (size_t i = 0; i < QSI_COUNT(other); i++) assert_false(grammar_matches(&fix, g, other[i]));
    for (uint64_t seed = 0; seed < 8; seed++) grammar_random_walk(&fix, g, seed, 12);
    qsi_grammar_release(g);
    qs_err err;
    assert_int_equal(qsi_grammar_from_choices(&g, list, 0, NULL, &err), QS_E_ARG);
    static const char *const empty[] = { "a", "" };
    assert_int_equal(qsi_grammar_from_choices(&g, empty, 2, NULL, &err), QS_E_ARG);
    assert_non_null(strstr(err.text, "choice 1"));
    static const char *const broken[] = { "\xE5\x8C" };
    assert_int_equal(qsi_grammar_from_choices(&g, broken, 1, NULL, &err), QS_E_FORMAT);
}

static void test_gbnf(void **state) {
    static const sample samples[] = {
        { "root ::= \"a\" | \"bc\"", { "a", "bc", NULL, "", "b", "c", "abc", "aa" } },
        { "# head\nroot ::= item+ # tail\n\nitem ::= [a-c] | # more\n  \"x\" \"y\"\n",
          { "a", "abcxy", "xyxy", NULL, "", "x", "ax", "d" } },
        { "root ::= (\"a\"\n  \"b\")* \"c\"?",
          { "", "ab", "abab", "ababc", "c", NULL, "a", "abcc", "ac" } },
        { "root ::= [^a\\]\\n-]{2}",
          { "bc", "北京", "\\[", NULL, "ab", "b", "]b", "-b", "\nb", "bcd" } },
        { "root ::= [0-9]{2,4} [a-]", { "12a", "1234-", "123a", NULL, "1a", "12345a", "12b" } },
        { "root ::= [ab]{3,}", { "aba", "abababab", NULL, "ab", "abc" } },
        { "root ::= ( \"ab\" | \"c\" ) { 12 , 13 }",
          { "abababababababababababab", "cccccccccccc", "ccccccccccccc", NULL, "ccccccccccc",
            "cccccccccccccc" } },
        { "root ::= \"\\x41\\u5317\\U0001F600\\\"\\\\\\t\"", { "A北😀\"\\\t", NULL, "A北😀" } },
        { "root ::= . .", { "ab", "北京", "a\n", "😀😀", NULL, "a", "abc" } },
        { "root ::= [一-龥]+ \"。\"", { "床前明月光。", NULL, "。", "a。", "床前" } },
        { "root ::= value\nvalue ::= \"(\" value* \")\"",
          { "()", "(())", "(()())", NULL, "(", "())", "((" } },
        { "root ::= root \"a\" | \"b\"",
          { "b", "ba", "baaa", NULL, "a", "bb", "" } }, /* left recursion */
        { "root ::= \"a\" root | \"b\"", { "b", "ab", "aaab", NULL, "a", "ba", "" } },
        { "root ::= a a a\na ::= b? | c\nb ::= a\nc ::= \"x\"", { "", "x", "xxx", NULL, "xxxx" } },
        { "root ::= e\ne ::= e \"+\" e | e \"*\" e | \"(\" e \")\" | [0-9]+",
          { "1", "1+2*3", "(1+2)*34", NULL, "1+", "(1", "1)", "" } },
        { "root ::= \"a\" s \"b\" | \"a\" s \"c\"\ns ::= \"a\" s \"b\" | \"a\" s \"c\" | \"\"",
          { "ab", "ac", "aabc", "aacb", "aaabcb", NULL, "aab", "abb" } },
        { "root ::= ((\"a\" | \"b\"){0,3} \"c\"){2,3}",
          { "cc", "acbc", "abacc", "aaacbbbcabac", NULL, "c", "cccc", "aaaacc" } },
        { "root ::= (\"a\"?){0,100000} \"b\"", { "b", "ab", "aaaaab", NULL, "a", "" } },
        { "root ::= (\"a\" | \"ab\" | \"b\"){2,3}",
          { "ab", "aab", "abab", "ababab", "bbb", NULL, "a", "aaaa" } },
        { "root ::= never | \"a\"\nnever ::= \"b\" never", { "a", NULL, "b", "bb", "" } },
    };
    for (size_t i = 0; i < QSI_COUNT(samples); i++) check(&samples[i], gbnf);
}

static void refused(qs_status (*f)(qsi_grammar **, const char *, size_t, const qsi_grammar_limits *,
                                   qs_err *),
                    const char *text, qs_status code, const char *words) {
    qsi_grammar *g = NULL;
    qs_err err = { 0 };
    assert_int_equal(f(&g, text, strlen(text), NULL, &err), code);
    assert_null(g);
    if (!strstr(err.text, words)) fail_msg("'%s' lacks '%s'", err.text, words);
}

static void test_gbnf_errors(void **state) {
    static const char *const bad[][2] = {
        { "", "no rule root" },
        { "a ::= \"b\"", "no rule root" },
        { "root ::= b", "rule b is not defined" },
        { "root ::= \"a", "closing \"" },
        { "root ::= [a", "closing ]" },
        { "root ::= (\"a\"", ") is expected" },
        { "root ::= \"a\")", "new line" },
        { "root \"a\"", "::= is expected" },
        { "root ::= \"a\"\nroot ::= \"b\"", "defined twice" },
        { "root ::= \"\\q\"", "unknown escape" },
        { "root ::= \"\\x4\"", "hexadecimal" },
        { "root ::= \"\\uD800\"", "no character" },
        { "root ::= [z-a]", "backwards" },
        { "root ::= \"a\"{2,1}", "wrong way" },
        { "root ::= \"a\"{,1}", "number" },
        { "root ::= \"a\"\n\nb ::= \"x\"\n?", "line 4" },
        { "root ::= \"\xE5\"", "UTF-8" },
        { "*", "name is expected" },
    };
    for (size_t i = 0; i < QSI_COUNT(bad); i++)
        refused(qsi_grammar_from_gbnf, bad[i][0], QS_E_FORMAT, bad[i][1]);
    refused(qsi_grammar_from_gbnf, "root ::= <think>", QS_E_UNSUPPORTED, "tokens");
    refused(qsi_grammar_from_gbnf, "root ::= root", QS_E_ARG, "nothing matches");
    refused(qsi_grammar_from_gbnf, "root ::= \"a\" b\nb ::= \"x\" b", QS_E_ARG, "nothing matches");
    refused(qsi_grammar_from_gbnf, "root ::= []", QS_E_ARG, "nothing matches");
    refused(qsi_grammar_from_gbnf, "root ::= \"a\"{99999999999999999999}", QS_E_LIMIT, "more than");
}

static void test_regex(void **state) {
    static const sample samples[] = {
        { "abc", { "abc", NULL, "", "ab", "abcd", "xabc" } },
        { "^(yes|no)$", { "yes", "no", NULL, "yesno", "y" } },
        { "^a|b$", { "a", "b", NULL, "ab" } },
        { "(^a$)|(^b$)", { "a", "b", NULL, "ab" } },
        { "[a-z]+@[a-z]+\\.(com|org)", { "a@b.com", "ab@xyz.org", NULL, "a@b", "@b.com" } },
        { "\\d{3}-\\d{4}", { "123-4567", NULL, "123-456", "1234567" } },
        { "[^\\d\\s]+", { "abc", "中文", NULL, "1", "a b", "" } },
        { "\\w+\\W\\S", { "ab_1 x", "a-中", NULL, "abc", "a x " } },
        { "a{0}b{1,}c{2}?d*?", { "bcc", "bbbccdd", NULL, "bc", "abcc" } },
        { "(?:ab){10,}", { "abababababababababab", NULL, "ab", "abababababababababa" } },
        { "(?<y>20\\d\\d)(?P<m>-0)", { "2024-0", NULL, "1999-0" } },
        { "a{,2}{", { "a{,2}{", NULL, "aa" } },
        { "[]a]+", { "]a]", NULL, "b" } },
        { "[\\u4e00-\\u9fff]{2,10}", { "中文", "北京城市", NULL, "中", "ab" } },
        { "\\u{1F600}\\uD83D\\uDE00\\x41\\cJ", { "😀😀A\n", NULL, "😀" } },
        { "\\p{L}+\\P{L}", { "abé中1", NULL, "1", "a" } },
        { ".*", { "", "anything 北", NULL, "a\nb" } },
        { "(a|b)*abb", { "abb", "babababb", NULL, "ab", "abba" } },
        { "[+-]?(0|[1-9][0-9]*)(\\.[0-9]+)?", { "0", "-12.50", "+3", NULL, "01", ".5", "1." } },
        { "a[b\\-x]c|[\\w-]", { "abc", "a-c", "-", "q", NULL, "ac" } },
    };
    for (size_t i = 0; i < QSI_COUNT(samples); i++) check(&samples[i], regex);
}

static void test_regex_errors(void **state) {
    static const char *const bad[][2] = {
        { "(", ") is expected" },     { ")", ") without" },     { "[a", "closing ]" },
        { "*", "nothing to repeat" }, { "a**", "nothing" },     { "a{3,2}", "wrong way" },
        { "\\", "backslash" },        { "[b-a]", "backwards" }, { "\\uD800", "no char" },
        { "(?<n", "closing >" },
    };
    for (size_t i = 0; i < QSI_COUNT(bad); i++)
        refused(qsi_grammar_from_regex, bad[i][0], QS_E_FORMAT, bad[i][1]);
    static const char *const other[][2] = {
        { "(?=a)b", "look-around" }, { "(?<!a)b", "look-around" }, { "a\\b", "word border" },
        { "(a)\\1", "back ref" },    { "a^b", "anchor" },          { "(a$)*b", "anchor" },
        { "a*+", "possessive" },     { "(?i)a", "group" },         { "\\p{Lu}", "\\p" },
    };
    for (size_t i = 0; i < QSI_COUNT(other); i++)
        refused(qsi_grammar_from_regex, other[i][0], QS_E_UNSUPPORTED, other[i][1]);
}

/* ---- large and nasty ---- */

static void same_n(qsi_grammar *g, const char *unit, size_t n, const char *tail, bool want) {
    qsi_str s = { 0 };
    for (size_t i = 0; i < n; i++) assert_int_equal(qsi_str_puts(&s, unit), QS_OK);
    assert_int_equal(qsi_str_puts(&s, tail), QS_OK);
    assert_int_equal(grammar_matches_n(&fix, g, s.data, s.len), want);
    qsi_str_release(&s);
}

static void test_counts(void **state) {
    qsi_grammar *g = regex("\"[^\"]{5,100000}\"");
    same_n(g, "a", 3, "", false);
    same_n(g, "北", 4, "\"", false);
    qsi_grammar_release(g);
    g = regex("[^\"]{5,20000}\"");
    same_n(g, "a", 4, "\"", false);
    same_n(g, "a", 5, "\"", true);
    same_n(g, "北", 20000, "\"", true);
    same_n(g, "北", 20001, "\"", false);
    qsi_grammar_release(g);
    g = gbnf("root ::= (\"a\"{1000}){10}"); /* a counter in a counter */
    same_n(g, "a", 10000, "", true);
    same_n(g, "a", 9999, "", false);
    same_n(g, "a", 10001, "", false);
    qsi_grammar_release(g);
    g = gbnf("root ::= ([ab]{0,40} \"c\"){0,3}");
    for (uint64_t seed = 0; seed < 20; seed++) grammar_random_walk(&fix, g, seed, 60);
    qsi_grammar_release(g);
}

static void test_many_choices(void **state) {
    enum { COUNT = 10000 };
    static char text[COUNT][24];
    static const char *list[COUNT];
    for (int i = 0; i < COUNT; i++) {
        (void)snprintf(text[i], sizeof text[i], "%s%d", i % 2 ? "foo" : "北京", i);
        list[i] = text[i];
    }
    qsi_grammar *g = NULL;
    assert_int_equal(qsi_grammar_from_choices(&g, list, COUNT, NULL, NULL), QS_OK);
    assert_true(grammar_matches(&fix, g, "foo9999"));
    assert_true(grammar_matches(&fix, g, "北京42"));
    assert_false(grammar_matches(&fix, g, "北京43"));
    for (uint64_t seed = 0; seed < 4; seed++) grammar_random_walk(&fix, g, seed, 12);
    qsi_grammar_release(g);
}

/* Deep nesting costs nothing but a set a level; it is dropped again on the way out. */
static void test_depth(void **state) {
    qsi_grammar *g = gbnf("root ::= \"[\" (root (\",\" root)*)? \"]\" | \"1\"");
    qsi_str s = { 0 };
    for (int i = 0; i < 20000; i++) assert_int_equal(qsi_str_putc(&s, '['), QS_OK);
    assert_int_equal(qsi_str_puts(&s, "1,1"), QS_OK);
    for (int i = 0; i < 20000; i++) assert_int_equal(qsi_str_putc(&s, ']'), QS_OK);
    assert_true(grammar_matches_n(&fix, g, s.data, s.len));
    assert_false(grammar_matches_n(&fix, g, s.data, s.len - 1));
    qsi_str_release(&s);
    qsi_grammar_release(g);
}

/* Works, or fails with a status, within a second or so; never hangs. */
static void try_nasty(const char *text, bool is_regex) {
    qsi_grammar *g = NULL;
    qsi_matcher *m = NULL;
    qs_err err = { 0 };
    int64_t start = qsi_now_ns();
    qs_status st = is_regex ? qsi_grammar_from_regex(&g, text, strlen(text), NULL, &err)
                            : qsi_grammar_from_gbnf(&g, text, strlen(text), NULL, &err);
    if (st == QS_OK) {
        assert_int_equal(qsi_matcher_create(&m, g, fix.trie, NULL), QS_OK);
        for (int i = 0; i < 200; i++) {
            if (!qsi_matcher_mask(m)) {
                assert_int_equal(qsi_matcher_error(m, &err), QS_E_LIMIT);
                assert_non_null(strstr(err.text, "ambiguous"));
                break;
            }
            if (!qsi_matcher_accept(m, fix.byte_id['a'])) break;
        }
        qsi_matcher_free(m);
        qsi_grammar_release(g);
    } else {
        assert_true(err.text[0] != 0);
    }
    assert_true(qsi_now_ns() - start < INT64_C(60000000000)); /* a hang, not a slow machine */
}

static void test_nasty(void **state) {
    static const char *const grammars[] = {
        "root ::= (((((\"a\"*)*)*)*)*)*",
        "root ::= ((((\"a\"{1000}){1000}){1000}){1000}){1000}",
        "root ::= root root | \"a\" | \"\"",
        "root ::= root root root | \"a\"",
        "root ::= a b\na ::= a | \"\"\nb ::= b | a | \"a\"",
        "root ::= (\"a\"?){1000} \"a\"{1000}",
        "root ::= ((\"a\"? \"a\"?){0,500} (\"a\"? \"a\"?){0,500}){0,500}",
        "root ::= .* \"a\" .{1000}",
        "root ::= (.{3,7}){3,7} (.{2,900}){2,900}",
    };
    for (size_t i = 0; i < QSI_COUNT(grammars); i++) try_nasty(grammars[i], false);
    static const char *const regexes[] = {
        "(a+)+b",
        "(a|aa)+b",
        "(a*)*b",
        "(.*a){25}",
        "((a{0,100}){0,100}){0,100}",
        "(a{1000}){1000}",
        "(.*)(.*)(.*)(.*)(.*)(.*)(.*)(.*)x",
        "[^b]*a[^b]{500,900}",
    };
    for (size_t i = 0; i < QSI_COUNT(regexes); i++) try_nasty(regexes[i], true);
    qsi_str s = { 0 };
    for (int i = 0; i < 5000; i++) assert_int_equal(qsi_str_putc(&s, '('), QS_OK);
    refused(qsi_grammar_from_regex, s.data, QS_E_FORMAT, "too deeply");
    qsi_str_clear(&s);
    /* rules that lead to each other in the order in which marking them takes longest */
    for (int i = 0; i < 20000; i++)
        assert_int_equal(qsi_str_printf(&s, "%s%d ::= r%d\n", i ? "r" : "root ::= r0\nr", i, i + 1),
                         QS_OK);
    assert_int_equal(qsi_str_puts(&s, "r20000 ::= \"a\"\n"), QS_OK);
    try_nasty(s.data, false);
    qsi_str_release(&s);
    static char big[1 << 20];
    memset(big, 'a', sizeof big - 1);
    try_nasty(big, true);
}

/* A cache that holds next to nothing forgets, and finds the same masks again. */
static void test_small_cache(void **state) {
    qsi_grammar_limits l = QSI_GRAMMAR_LIMITS;
    qsi_grammar *g = NULL;
    static const char text[] =
        "root ::= \"{\" (\"\\\"\" [a-z\xE5\x8C\x97]{1,30} \"\\\":\" root \",\"?)* \"}\" | [0-9]+";
    l.cache_bytes = 20000;
    assert_int_equal(qsi_grammar_from_gbnf(&g, text, strlen(text), &l, NULL), QS_OK);
    for (uint64_t seed = 0; seed < 10; seed++) {
        qsi_matcher *m = NULL;
        qsi_rng rng;
        qsi_rng_init(&rng, seed);
        assert_int_equal(qsi_matcher_create(&m, g, fix.trie, NULL), QS_OK);
        for (int i = 0; i < 60 && !qsi_matcher_done(m) && qsi_matcher_error(m, NULL) == QS_OK; i++) {
            const uint32_t *mask = qsi_matcher_mask(m);
            int32_t id = (int32_t)qsi_rng_below(&rng, (uint64_t)fix.eos);
            if (!mask) break;
            while (!(mask[id / 32] >> (id % 32) & 1)) id = (id + 1) % (fix.eos + 1);
            assert_true(qsi_matcher_accept(m, id));
        }
        qsi_matcher_free(m);
    }
    qsi_grammar_release(g);
}

/* ---- threads share a grammar ---- */

static void walk_alone(void *arg) {
    qsi_grammar *g = arg;
    for (uint64_t seed = 0; seed < 6; seed++) grammar_random_walk(&fix, g, seed, 30);
}

static void test_threads(void **state) {
    qsi_grammar *g = gbnf(
        "root ::= \"{\" pair (\",\" pair)* \"}\"\npair ::= string \":\" (string | root)\n"
        "string ::= \"\\\"\" [^\"\\\\]{0,20} \"\\\"\"");
    qsi_thread *t[4] = { 0 };
    for (int i = 0; i < 4; i++) assert_int_equal(qsi_thread_start(&t[i], walk_alone, g, NULL), QS_OK);
    for (int i = 0; i < 4; i++) qsi_thread_join(&t[i]);
    qsi_grammar_release(g);
}

static void test_rollback(void **state) {
    qsi_grammar *g = regex("[a-c]{0,200}");
    qsi_matcher *m = NULL;
    assert_int_equal(qsi_matcher_create(&m, g, fix.trie, NULL), QS_OK);
    for (int i = 0; i < 150; i++) assert_true(qsi_matcher_accept(m, fix.byte_id['b']));
    assert_false(qsi_matcher_accept(m, fix.byte_id['x']));
    assert_false(qsi_matcher_rollback(m, QSI_MATCHER_BACK + 1));
    assert_true(qsi_matcher_rollback(m, QSI_MATCHER_BACK));
    for (int i = 0; i < 50 + QSI_MATCHER_BACK; i++)
        assert_true(qsi_matcher_accept(m, fix.byte_id['b']));
    assert_true(qsi_matcher_done(m));
    assert_false(qsi_matcher_accept(m, fix.byte_id['b']));
    assert_true(qsi_matcher_accept(m, fix.eos));
    assert_true(qsi_matcher_rollback(m, 2));
    assert_false(qsi_matcher_done(m));
    assert_true(qsi_matcher_accept_bytes(m, "c", 1));
    assert_false(qsi_matcher_accept(m, -1));
    assert_false(qsi_matcher_accept(m, fix.eos + 1));
    assert_false(qsi_matcher_accept(m, fix.eos - 1)); /* [PAD0] */
    qsi_matcher_free(m);
    qsi_grammar_release(g);
}

/* The n-th allocation fails: a status, nothing leaked, and nothing broken afterwards. */
static void test_no_memory(void **state) {
    static const char text[] = "root ::= \"a\" b{2,30} [一-龥]\nb ::= \"x\" | \"(\" root \")\"";
    for (int64_t n = 1; n < 400; n++) {
        qsi_grammar *g = NULL;
        qsi_matcher *m = NULL;
        qs_err err = { 0 };
        qsi_mem_fail_after(n);
        qs_status st = qsi_grammar_from_gbnf(&g, text, strlen(text), NULL, &err);
        if (st == QS_OK) st = qsi_matcher_create(&m, g, fix.trie, &err);
        if (st == QS_OK) (void)qsi_matcher_mask(m);
        if (st == QS_OK) (void)qsi_matcher_accept(m, fix.byte_id['a']);
        qsi_mem_fail_after(-1);
        assert_true(st == QS_OK || st == QS_E_NOMEM);
        if (m && qsi_matcher_error(m, NULL) == QS_OK) (void)grammar_check_mask(&fix, m);
        qsi_matcher_free(m);
        qsi_grammar_release(g);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_choices),      cmocka_unit_test(test_gbnf),
        cmocka_unit_test(test_gbnf_errors),  cmocka_unit_test(test_regex),
        cmocka_unit_test(test_regex_errors), cmocka_unit_test(test_counts),
        cmocka_unit_test(test_many_choices), cmocka_unit_test(test_depth),
        cmocka_unit_test(test_nasty),        cmocka_unit_test(test_small_cache),
        cmocka_unit_test(test_threads),      cmocka_unit_test(test_rollback),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
