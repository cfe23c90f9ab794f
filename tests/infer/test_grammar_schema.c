/* infer/grammar_schema: every keyword accepts and rejects what it should, in any cutting into tokens;
 * what cannot be enforced is refused by name; masks are what trying every id says. */
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

static grammar_fixture fix;

static int setup(void **state) {
    grammar_fixture_init(&fix);
    return 0;
}

static int teardown(void **state) {
    grammar_fixture_release(&fix);
    return 0;
}

/* Texts that satisfy the schema, NULL, texts that do not, NULL. */
typedef struct sample {
    const char *schema;
    const char *texts[20];
} sample;

static void check(const sample *s, int n_walks) {
    qsi_grammar *g = NULL;
    qs_err err = { 0 };
    if (qsi_grammar_from_schema(&g, s->schema, strlen(s->schema), NULL, &err) != QS_OK)
        fail_msg("%s: %s", s->schema, err.text);
    const char *const *t = s->texts;
    for (; *t; t++)
        if (!grammar_matches(&fix, g, *t)) fail_msg("%s does not accept %s", s->schema, *t);
    for (t++; *t; t++)
        if (grammar_matches(&fix, g, *t)) fail_msg("%s accepts %s", s->schema, *t);
    for (int seed = 0; seed < n_walks; seed++) grammar_random_walk(&fix, g, (uint64_t)seed + 1, 20);
    qsi_grammar_release(g);
}

static void check_all(const sample *s, size_t n) {
    for (size_t i = 0; i < n; i++) check(&s[i], 2);
}

static void test_types(void **state) {
    static const sample samples[] = {
        { "{\"type\":\"null\"}", { "null", NULL, "nul", "true", "\"null\"" } },
        { "{\"type\":[\"boolean\",\"null\"]}", { "true", "false", "null", NULL, "1", "\"\"" } },
        { "{\"type\":\"integer\"}",
          { "0", "-12", "2024", NULL, "01", "1.5", "-", "--1", "1e3", "+1" } },
        { "{\"type\":\"number\"}",
          { "0", "-0.5", "12.25", "1e10", "2E-7", "-0", NULL, "1.", ".5", "01", "1e", "NaN" } },
        { "{\"type\":\"string\"}",
          { "\"\"", "\"abc\"", "\"北京\"", "\"\\u5317\\n\\\\\\\"\"", "\"\\ud83d\\ude00\"", NULL,
            "abc", "\"", "\"\\ud83d\"", "\"\\ude00\"", "\"\\ud83dx\"", "\"\n\"", "\"\\x\"",
            "\"\\u12\"", "\"a\"b" } },
        { "{\"type\":\"array\"}",
          { "[]", "[1,\"a\",[null],{}]", "[ 1, 2 ]", NULL, "[1,]", "[,1]", "[1 ,2]" } },
        { "{\"type\":\"object\"}",
          { "{}", "{\"a\":1}", "{\"a\": {\"b\": []}, \"城市\": \"北京\"}",
            "{\n  \"a\": 1,\n  \"b\": 2\n}", NULL, "{\"a\"}", "{a:1}", "{\"a\":1,}", "{\"a\" :1}",
            "{\"a\":  1}" } },
        { "true", { "1", "[]", "{\"a\":[1]}", "\"x\"", "null", NULL, "", "x" } },
        { "{\"title\":\"t\",\"description\":\"d\",\"default\":3,\"examples\":[1]}",
          { "1", "\"a\"", NULL, "x" } },
        { "{\"type\":\"string\",\"nullable\":true}", { "\"a\"", "null", NULL, "1" } },
    };
    check_all(samples, QSI_COUNT(samples));
}

static void test_values(void **state) {
    static const sample samples[] = {
        { "{\"enum\":[\"foo\",\"foobar\",\"北京\",1,null,true,[1,\"a\"],{\"k\":2}]}",
          { "\"foo\"", "\"foobar\"", "\"北京\"", "1", "null", "true", "[1,\"a\"]", "[ 1, \"a\" ]",
            "{\"k\": 2}", NULL, "\"fo\"", "2", "false", "[1]" } },
        { "{\"const\":\"a\\\"b\\n\"}", { "\"a\\\"b\\n\"", NULL, "\"a\"" } },
        { "{\"const\":1.0}", { "1", NULL, "1.0", "2" } },
        { "{\"type\":\"integer\",\"enum\":[1,\"a\",2.5,3.0]}", { "1", "3", NULL, "\"a\"", "2.5" } },
        { "{\"enum\":[1,5,20,\"x\"],\"minimum\":4}", { "5", "20", "\"x\"", NULL, "1" } },
        { "{\"enum\":[\"ab\",\"xyz\",\"12\"],\"pattern\":\"^[a-z]+$\",\"maxLength\":2}",
          { "\"ab\"", NULL, "\"xyz\"", "\"12\"" } },
        { "{\"allOf\":[{\"enum\":[1,2,3]},{\"enum\":[2,3,4]}],\"const\":3}",
          { "3", NULL, "2", "1" } },
    };
    check_all(samples, QSI_COUNT(samples));
}

static void test_numbers(void **state) {
    static const sample samples[] = {
        { "{\"type\":\"integer\",\"minimum\":-12,\"maximum\":123}",
          { "-12", "-1", "0", "9", "99", "123", NULL, "-13", "124", "1000", "-100", "00" } },
        { "{\"type\":\"integer\",\"exclusiveMinimum\":0}",
          { "1", "10", "987654321", NULL, "0", "-1" } },
        { "{\"type\":\"integer\",\"exclusiveMaximum\":-5}",
          { "-6", "-50", NULL, "-5", "-4", "0", "5" } },
        { "{\"type\":\"integer\",\"minimum\":1.5,\"maximum\":3.5}",
          { "2", "3", NULL, "1", "4", "1.5" } },
        { "{\"type\":\"number\",\"minimum\":0.25,\"maximum\":10}",
          { "0.25", "0.250", "1", "9.999", "10", "10.0", "0.3", NULL, "0.2", "0.2499", "10.01", "11",
            "-1", "1e0" } },
        { "{\"type\":\"number\",\"exclusiveMinimum\":-1.5,\"exclusiveMaximum\":1.5}",
          { "-1.49", "0", "1.499", "-0.5", "1", NULL, "-1.5", "1.5", "1.50", "2" } },
        { "{\"type\":\"integer\",\"multipleOf\":7}",
          { "0", "7", "-14", "700", "7007", NULL, "1", "8", "-13" } },
        { "{\"type\":\"integer\",\"multipleOf\":5,\"minimum\":-10,\"maximum\":12}",
          { "-10", "-5", "0", "5", "10", NULL, "15", "12", "-15" } },
        { "{\"type\":\"number\",\"multipleOf\":0.01}", { "1.25", "0", "-3.5", NULL, "1.255" } },
        { "{\"type\":\"number\",\"multipleOf\":2}", { "4", NULL, "3", "4.5" } },
        { "{\"minimum\":5}", { "5", "\"a\"", "null", NULL, "4" } },
        { "{\"minimum\":3,\"exclusiveMinimum\":true,\"type\":\"integer\"}", { "4", NULL, "3" } },
    };
    check_all(samples, QSI_COUNT(samples));
}

static void test_strings(void **state) {
    static const sample samples[] = {
        { "{\"type\":\"string\",\"minLength\":2,\"maxLength\":3}",
          { "\"ab\"", "\"北京市\"", "\"\\n\\u0041\"", "\"😀😀\"", NULL, "\"a\"", "\"abcd\"", "\"\"" } },
        { "{\"type\":\"string\",\"maxLength\":12}",
          { "\"\"", "\"abcabcabcabc\"", NULL, "\"abcabcabcabca\"" } },
        { "{\"type\":\"string\",\"pattern\":\"^[a-c]+$\"}", { "\"abc\"", NULL, "\"\"", "\"abd\"" } },
        { "{\"type\":\"string\",\"pattern\":\"b\"}",
          { "\"abc\"", "\"b\"", "\"\\n北b\"", NULL, "\"ac\"" } },
        { "{\"type\":\"string\",\"pattern\":\"^中.\\\"\"}",
          { "\"中a\\\"\"", "\"中文\\\"x\"", NULL, "\"中\"" } },
        { "{\"type\":\"string\",\"pattern\":\"^x[a-z]*$\",\"minLength\":3,\"maxLength\":4}",
          { "\"xab\"", "\"xabc\"", NULL, "\"xa\"", "\"xabcd\"" } },
        { "{\"type\":\"string\",\"format\":\"date\"}",
          { "\"2024-02-29\"", "\"2023-12-31\"", NULL, "\"2023-02-29\"", "\"2024-13-01\"",
            "\"2024-04-31\"", "\"1900-02-29\"" } },
        { "{\"type\":\"string\",\"format\":\"date-time\"}",
          { "\"2024-02-29T12:30:59Z\"", "\"2024-01-01T00:00:00.5+08:00\"", NULL, "\"2024-01-01\"",
            "\"2024-01-01T24:00:00Z\"" } },
        { "{\"type\":\"string\",\"format\":\"uuid\"}",
          { "\"12345678-90ab-cdef-ABCD-123456789012\"", NULL, "\"12345678\"" } },
        { "{\"type\":\"string\",\"format\":\"ipv4\"}",
          { "\"127.0.0.1\"", NULL, "\"256.0.0.1\"", "\"1.2.3\"" } },
        { "{\"type\":\"string\",\"format\":\"ipv6\"}",
          { "\"::1\"", "\"1:2:3:4:5:6:7:8\"", "\"fe80::a:1\"", "\"::ffff:1.2.3.4\"", "\"1::\"", NULL,
            "\"1:2\"", "\"1::2::3\"", "\":1\"" } },
        { "{\"type\":\"string\",\"format\":\"email\"}",
          { "\"a.b@xy.com\"", NULL, "\"a\"", "\"@b.c\"", "\"a@\"" } },
        { "{\"type\":\"string\",\"format\":\"whatever\"}", { "\"free\"", NULL, "1" } },
    };
    check_all(samples, QSI_COUNT(samples));
}

static void test_arrays(void **state) {
    static const sample samples[] = {
        { "{\"type\":\"array\",\"items\":{\"type\":\"integer\"},\"minItems\":2,\"maxItems\":3}",
          { "[1,2]", "[1, 2, 3]", "[\n  1,\n  2\n]", NULL, "[]", "[1]", "[1,2,3,4]", "[1,\"a\"]" } },
        { "{\"type\":\"array\",\"items\":{\"type\":\"null\"},\"maxItems\":30}",
          { "[]", "[null,null]", NULL, "[1]" } },
        { "{\"type\":\"array\",\"prefixItems\":[{\"type\":\"integer\"},{\"type\":\"boolean\"}],"
          "\"items\":false}",
          { "[]", "[1]", "[1,true]", NULL, "[true]", "[1,true,2]", "[1,2]" } },
        { "{\"type\":\"array\",\"items\":[{\"type\":\"integer\"}],\"additionalItems\":{\"type\":"
          "\"null\"},"
          "\"minItems\":2}",
          { "[1,null]", "[1,null,null]", NULL, "[1]", "[]", "[1,1]" } },
        { "{\"type\":\"array\",\"maxItems\":0}", { "[]", "[ ]", NULL, "[1]" } },
        { "{\"type\":\"array\",\"items\":false}", { "[]", NULL, "[1]" } },
        { "{\"type\":\"array\",\"uniqueItems\":true,\"maxItems\":1}",
          { "[]", "[1]", NULL, "[1,2]" } },
        { "{\"type\":\"array\",\"items\":{\"type\":\"array\",\"items\":{\"enum\":[1]},\"maxItems\":2}"
          ",\"maxItems\":2}",
          { "[[1,1],[1]]", "[[],[]]", NULL, "[[1,1,1]]", "[[],[],[]]" } },
    };
    check_all(samples, QSI_COUNT(samples));
}

static void test_objects(void **state) {
    static const sample samples[] = {
        { "{\"type\":\"object\",\"properties\":{\"name\":{\"type\":\"string\"},\"age\":{\"type\":"
          "\"integer\"},"
          "\"城市\":{\"type\":\"string\"}},\"required\":[\"name\"],\"additionalProperties\":false}",
          { "{\"name\":\"a\"}", "{\"name\": \"a\", \"age\": 3}", "{\"name\":\"a\",\"城市\":\"北京\"}",
            "{\"name\":\"\",\"age\":1,\"城市\":\"\"}", NULL, "{}", "{\"age\":3}", "{\"name\":1}",
            "{\"name\":\"a\",\"x\":1}", "{\"name\":\"a\",\"name\":\"b\"}", "{\"name\":\"a\",}" } },
        { "{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"integer\"},\"b\":{\"type\":"
          "\"integer\"}},"
          "\"additionalProperties\":false}",
          { "{}", "{\"a\":1}", "{\"b\":1}", "{\"a\":1,\"b\":2}", NULL, "{\"c\":1}", "{,\"b\":1}" } },
        { "{\"type\":\"object\",\"properties\":{\"ab\":{\"type\":\"integer\"},\"abc\":{\"type\":"
          "\"integer\"}}}",
          { "{\"ab\":1}", "{\"a\":\"x\"}", "{\"ab\":1,\"abcd\":true,\"\":null}", "{\"北\":1}",
            "{\"ab\\\"\":\"x\"}", NULL, "{\"ab\":\"x\"}", "{\"a\":1,\"ab\":\"x\"}", "{\"abc\":null}",
            "{\"\\u0061b\":\"x\"}" } },
        { "{\"type\":\"object\",\"additionalProperties\":{\"type\":\"integer\"}}",
          { "{}", "{\"x\":1,\"y\":2}", NULL, "{\"x\":\"\"}" } },
        { "{\"type\":\"object\",\"required\":[\"k\"],\"additionalProperties\":{\"type\":\"integer\"}"
          "}",
          { "{\"k\":1}", "{\"k\":1,\"z\":2}", NULL, "{}", "{\"z\":1}", "{\"k\":\"\"}" } },
        { "{\"type\":\"object\",\"patternProperties\":{\"^x_\":{\"type\":\"integer\"}},"
          "\"additionalProperties\":false}",
          { "{}", "{\"x_a\":1}", "{\"x_\":1,\"x_b\":2}", NULL, "{\"a\":1}", "{\"x_a\":\"\"}" } },
        { "{\"type\":\"object\",\"propertyNames\":{\"pattern\":\"^[a-c]+$\"}}",
          { "{}", "{\"abc\":1}", NULL, "{\"d\":1}" } },
        { "{\"type\":\"object\",\"properties\":{\"a\":{},\"dd\":{}},\"propertyNames\":{\"maxLength\":"
          "1},"
          "\"additionalProperties\":false}",
          { "{}", "{\"a\":1}", NULL, "{\"dd\":1}" } },
        { "{\"type\":\"object\",\"properties\":{\"a\":{\"enum\":[1]},\"b\":{\"enum\":[2]}},"
          "\"minProperties\":1,"
          "\"additionalProperties\":false}",
          { "{\"a\":1}", "{\"b\":2}", "{\"a\":1,\"b\":2}", NULL, "{}" } },
        { "{\"type\":\"object\",\"properties\":{\"a\":{},\"b\":{}},\"required\":[\"a\"],"
          "\"maxProperties\":1}",
          { "{\"a\":1}", NULL, "{}", "{\"a\":1,\"b\":2}", "{\"a\":1,\"c\":2}" } },
        { "{\"type\":\"object\",\"maxProperties\":2}",
          { "{}", "{\"a\":1,\"b\":1}", NULL, "{\"a\":1,\"b\":1,\"c\":1}" } },
        { "{\"properties\":{\"a\":{\"type\":\"integer\"}},\"unevaluatedProperties\":false,\"type\":"
          "\"object\"}",
          { "{}", "{\"a\":1}", NULL, "{\"b\":1}" } },
    };
    check_all(samples, QSI_COUNT(samples));
}

static void test_combined(void **state) {
    static const sample samples[] = {
        { "{\"anyOf\":[{\"type\":\"integer\"},{\"type\":\"string\",\"maxLength\":1},{\"const\":"
          "\"foo\"}]}",
          { "12", "\"a\"", "\"foo\"", NULL, "\"ab\"", "null" } },
        { "{\"oneOf\":[{\"type\":\"object\",\"properties\":{\"t\":{\"const\":\"a\"},\"x\":{\"type\":"
          "\"integer\"}},"
          "\"required\":[\"t\"]},{\"type\":\"object\",\"properties\":{\"t\":{\"const\":\"b\"}},"
          "\"required\":[\"t\"],"
          "\"additionalProperties\":false}]}",
          { "{\"t\":\"a\",\"x\":1}", "{\"t\":\"b\"}", NULL, "{\"t\":\"b\",\"x\":1}", "{\"t\":\"c\"}",
            "{}" } },
        { "{\"oneOf\":[{\"type\":\"integer\",\"maximum\":3},{\"type\":\"integer\",\"minimum\":10}]}",
          { "3", "10", "-5", NULL, "5" } },
        { "{\"allOf\":[{\"properties\":{\"a\":{\"type\":\"integer\"}},\"required\":[\"a\"]},"
          "{\"properties\":{\"a\":{\"maximum\":5},\"b\":{\"type\":\"null\"}}}],\"type\":\"object\"}",
          { "{\"a\":5}", "{\"a\":1,\"b\":null}", NULL, "{\"a\":6}", "{}", "{\"a\":\"x\"}" } },
        { "{\"type\":\"object\",\"properties\":{\"v\":{\"$ref\":\"#/$defs/n~1~0x\"}},\"$defs\":{\"n/"
          "~x\":{\"type\":"
          "\"integer\"}},\"additionalProperties\":false}",
          { "{\"v\":1}", "{}", NULL, "{\"v\":\"\"}" } },
        { "{\"$ref\":\"#node\",\"definitions\":{\"n\":{\"$anchor\":\"node\",\"type\":\"object\","
          "\"properties\":{"
          "\"v\":{\"type\":\"integer\"},\"next\":{\"$ref\":\"#node\"}},\"required\":[\"v\"],"
          "\"additionalProperties\":false}}}",
          { "{\"v\":1}", "{\"v\":1,\"next\":{\"v\":2,\"next\":{\"v\":3}}}", NULL,
            "{\"v\":1,\"next\":{}}", "{}" } },
        { "{\"type\":\"array\",\"items\":{\"$ref\":\"#\"}}",
          { "[]", "[[],[[]]]", NULL, "[1]", "[" } },
        { "{\"$defs\":{\"a\":{\"type\":\"string\"}},\"$ref\":\"#/$defs/a\",\"maxLength\":1}",
          { "\"a\"", NULL, "\"ab\"", "1" } },
        { "{\"$schema\":\"http://json-schema.org/draft-07/"
          "schema#\",\"definitions\":{\"a\":{\"type\":\"string\"}},"
          "\"properties\":{\"x\":{\"$ref\":\"#/definitions/"
          "a\",\"maxLength\":1}},\"type\":\"object\"}",
          { "{\"x\":\"ab\"}", NULL, "{\"x\":1}" } },
        { "{\"allOf\":[{\"anyOf\":[{\"type\":\"integer\"},{\"maxLength\":1}]},{\"anyOf\":[{"
          "\"minimum\":5},"
          "{\"type\":\"null\"}]}],\"type\":[\"integer\",\"string\"]}",
          { "5", "\"a\"", "\"\"", NULL, "4", "\"ab\"", "null" } },
        { "{\"anyOf\":[{\"$ref\":\"#\"},{\"type\":\"null\"}]}", { "null", NULL, "1", "\"\"" } },
        { "{\"not\":false,\"if\":{\"type\":\"string\"},\"type\":\"null\"}", { "null", NULL, "1" } },
    };
    check_all(samples, QSI_COUNT(samples));
}

static void refused(const char *schema, qs_status code, const char *begins) {
    qsi_grammar *g = NULL;
    qs_err err = { 0 };
    qs_status st = qsi_grammar_from_schema(&g, schema, strlen(schema), NULL, &err);
    if (st != code) fail_msg("%s: status %d, not %d (%s)", schema, st, code, err.text);
    assert_null(g);
    if (!strstr(err.text, begins)) fail_msg("'%s' lacks '%s'", err.text, begins);
    if (code == QS_E_UNSUPPORTED && err.text[0] != '"')
        fail_msg("'%s' does not begin with the keyword", err.text);
}

static void test_refused(void **state) {
    static const char *const samples[][2] = {
        { "{\"properties\":{\"a\":{\"type\":\"array\",\"uniqueItems\":true}}}",
          "\"uniqueItems\" at #/properties/a: " },
        { "{\"not\":{\"type\":\"string\"}}", "\"not\" at #: " },
        { "{\"if\":{},\"then\":false}", "\"if\" at #: " },
        { "{\"items\":{\"contains\":{}}}", "\"contains\" at #/items: " },
        { "{\"dependentRequired\":{\"a\":[\"b\"]}}", "\"dependentRequired\" at #: " },
        { "{\"oneOf\":[{\"type\":\"integer\"},{\"type\":\"number\"}]}",
          "\"oneOf\" at #: one value may match options 0 and 1" },
        { "{\"$ref\":\"other.json\"}", "\"$ref\" at #: " },
        { "{\"$ref\":\"#\"}", "itself" },
        { "{\"allOf\":[{\"$ref\":\"#\"}]}", "itself" },
        { "{\"type\":\"string\",\"pattern\":\"(?=a)\"}",
          "\"pattern\" at #: regular expression, byte 1: look-around" },
        { "{\"type\":\"string\",\"pattern\":\"a|b\",\"minLength\":2}", "\"minLength\" at #: " },
        { "{\"type\":\"number\",\"multipleOf\":0.3}", "\"multipleOf\" at #: " },
        { "{\"type\":\"object\",\"minProperties\":3}", "\"minProperties\" at #: " },
        { "{\"type\":\"object\",\"patternProperties\":{\"a\":{}}}", "\"patternProperties\" at #: " },
        { "{\"unevaluatedItems\":false}", "\"unevaluatedItems\" at #: " },
        { "{\"$schema\":\"http://example.com/mine\"}", "\"$schema\" at #: " },
        { "{\"properties\":{\"a\":{\"$id\":\"http://x/y\",\"type\":\"null\"}}}",
          "\"$id\" at #/properties/a: " },
    };
    for (size_t i = 0; i < QSI_COUNT(samples); i++)
        refused(samples[i][0], QS_E_UNSUPPORTED, samples[i][1]);
    refused("{\"type\":\"strin\"}", QS_E_FORMAT, "#/type: an unknown type");
    refused("{\"type\":", QS_E_FORMAT, "byte 8");
    refused("{\"a\":1,\"a\":2}", QS_E_FORMAT, "twice");
    refused("[]", QS_E_FORMAT, "#: a schema must be an object");
    refused("{\"properties\":{\"a\":3}}", QS_E_FORMAT, "#/properties/a: a schema must be");
    refused("{\"$ref\":\"#/$defs/x\"}", QS_E_FORMAT, "leads nowhere");
    refused("{\"minLength\":-1}", QS_E_FORMAT, "count");
    refused("{\"type\":\"string\",\"pattern\":\"(\"}", QS_E_FORMAT, ") is expected");
    refused("{\"properties\":3}", QS_E_FORMAT, "an object is expected");
    refused("{\"type\":\"string\",\"minLength\":3,\"maxLength\":2}", QS_E_ARG, "nothing matches");
    refused("false", QS_E_ARG, "nothing matches");
    refused("{\"type\":\"object\",\"required\":[\"a\"],\"properties\":{\"a\":{\"$ref\":\"#\"}}}",
            QS_E_ARG, "nothing");
}

static void test_json_object(void **state) {
    qsi_grammar *g = NULL;
    assert_int_equal(qsi_grammar_json_object(&g, NULL, NULL), QS_OK);
    assert_true(grammar_matches(&fix, g, "{\"a\":[1,{\"b\":null}],\"c\":\"北\"}"));
    assert_false(grammar_matches(&fix, g, "[1]"));
    for (uint64_t seed = 0; seed < 20; seed++) grammar_random_walk(&fix, g, seed, 60);
    qsi_grammar_release(g);
}

/* maxLength 100000 is a counter, not states. */
static void test_long(void **state) {
    static const char text[] = "{\"type\":\"string\",\"minLength\":2,\"maxLength\":100000}";
    qsi_grammar *g = NULL;
    qsi_matcher *m = NULL;
    assert_int_equal(qsi_grammar_from_schema(&g, text, strlen(text), NULL, NULL), QS_OK);
    assert_int_equal(qsi_matcher_create(&m, g, fix.trie, NULL), QS_OK);
    assert_true(qsi_matcher_accept_bytes(m, "\"", 1));
    for (int i = 0; i < 99990; i++) {
        assert_true(qsi_matcher_accept_bytes(m, "北", 3));
        if (i % 9973 == 0) assert_non_null(qsi_matcher_mask(m));
    }
    for (int i = 0; i < 10; i++) {
        (void)grammar_check_mask(&fix, m);
        assert_true(qsi_matcher_accept_bytes(m, "x", 1));
    }
    assert_int_equal(grammar_check_mask(&fix, m), 1 + 0); /* nothing but the quote */
    assert_false(qsi_matcher_accept_bytes(m, "x", 1));
    assert_true(qsi_matcher_accept_bytes(m, "\"", 1));
    assert_true(qsi_matcher_done(m));
    qsi_matcher_free(m);
    qsi_grammar_release(g);
}

/* Large schemas compile or are refused; deep ones too. */
static void test_nasty(void **state) {
    qsi_str s = { 0 };
    qsi_grammar *g = NULL;
    qs_err err;
    int64_t start = qsi_now_ns();
    assert_int_equal(
        qsi_str_puts(&s, "{\"type\":\"object\",\"additionalProperties\":false,\"properties\":{"),
        QS_OK);
    for (int i = 0; i < 2000; i++)
        assert_int_equal(qsi_str_printf(&s, "%s\"p%d\":{\"type\":\"string\",\"maxLength\":%d}",
                                        i ? "," : "", i, i),
                         QS_OK);
    assert_int_equal(qsi_str_puts(&s, "}}"), QS_OK);
    if (qsi_grammar_from_schema(&g, s.data, s.len, NULL, &err) != QS_OK) fail_msg("%s", err.text);
    assert_true(grammar_matches(&fix, g, "{\"p7\":\"abc\",\"p1999\":\"\"}"));
    qsi_grammar_release(g);
    qsi_str_clear(&s);
    for (int i = 0; i < 5000; i++) assert_int_equal(qsi_str_puts(&s, "{\"items\":"), QS_OK);
    g = NULL;
    assert_int_equal(qsi_grammar_from_schema(&g, s.data, s.len, NULL, &err), QS_E_FORMAT);
    qsi_str_clear(&s);
    /* twelve choices of twelve for one value: twelve to the twelfth lists */
    assert_int_equal(qsi_str_puts(&s, "{\"allOf\":["), QS_OK);
    for (int i = 0; i < 12; i++) {
        assert_int_equal(qsi_str_printf(&s, "%s{\"anyOf\":[", i ? "," : ""), QS_OK);
        for (int k = 0; k < 12; k++)
            assert_int_equal(qsi_str_printf(&s, "%s{\"maxLength\":%d}", k ? "," : "", 100 * i + k),
                             QS_OK);
        assert_int_equal(qsi_str_puts(&s, "]}"), QS_OK);
    }
    assert_int_equal(qsi_str_puts(&s, "]}"), QS_OK);
    assert_int_equal(qsi_grammar_from_schema(&g, s.data, s.len, NULL, &err), QS_E_LIMIT);
    assert_true(qsi_now_ns() - start < INT64_C(120000000000));
    qsi_str_release(&s);
}

static void test_no_memory(void **state) {
    static const char text[] =
        "{\"type\":\"object\",\"properties\":{\"a\":{\"enum\":[1,\"x\"],\"maxLength\":2},"
        "\"b\":{\"oneOf\":[{\"type\":\"null\"},{\"$ref\":\"#\"}]},\"c\":{\"pattern\":\"a+\"}}}";
    for (int64_t n = 1; n < 3000; n += n < 300 ? 1 : 13) {
        qsi_grammar *g = NULL;
        qs_err err = { 0 };
        qsi_mem_fail_after(n);
        qs_status st = qsi_grammar_from_schema(&g, text, strlen(text), NULL, &err);
        qsi_mem_fail_after(-1);
        if (st != QS_OK && st != QS_E_NOMEM) fail_msg("allocation %d: %s", (int)n, err.text);
        qsi_grammar_release(g);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_types),       cmocka_unit_test(test_values),
        cmocka_unit_test(test_numbers),     cmocka_unit_test(test_strings),
        cmocka_unit_test(test_arrays),      cmocka_unit_test(test_objects),
        cmocka_unit_test(test_combined),    cmocka_unit_test(test_refused),
        cmocka_unit_test(test_json_object), cmocka_unit_test(test_long),
        cmocka_unit_test(test_nasty),       cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
