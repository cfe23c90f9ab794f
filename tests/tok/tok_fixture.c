#include "tok_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

void tok_fixture_init(tok_fixture *f, const char *pre) {
    *f = (tok_fixture){.spec = {.pre = pre, .bos = -1, .eos = -1, .pad = -1}};
    for (int i = 0; i < 256; i++) {
        int n = qsi_utf8_encode(qsi_byte_symbol(qsi_byte_by_order(i)), f->symbols[i]);
        f->tokens[i] = (qsi_slice){f->symbols[i], (size_t)n};
        f->types[i] = QSI_TOK_NORMAL;
    }
    f->spec.tokens = f->tokens;
    f->spec.types = f->types;
    f->spec.left = f->left;
    f->spec.right = f->right;
    f->spec.n_tokens = 256;
}

int32_t tok_fixture_token(tok_fixture *f, const char *text, int type) {
    int64_t id = f->spec.n_tokens++;
    assert_true(id < TOK_FIXTURE_MAX);
    f->tokens[id] = (qsi_slice){text, strlen(text)};
    f->types[id] = (uint8_t)type;
    return (int32_t)id;
}

void tok_fixture_merge(tok_fixture *f, const char *left, const char *right) {
    int64_t i = f->spec.n_merges++;
    assert_true(i < TOK_FIXTURE_MAX);
    f->left[i] = (qsi_slice){left, strlen(left)};
    f->right[i] = (qsi_slice){right, strlen(right)};
}

void tok_fixture_bos_eos(tok_fixture *f) {
    f->spec.bos = tok_fixture_token(f, "<｜begin▁of▁sentence｜>", QSI_TOK_CONTROL);
    f->spec.eos = tok_fixture_token(f, "<｜end▁of▁sentence｜>", QSI_TOK_CONTROL);
    f->spec.add_bos = true;
}

qsi_vocab *tok_fixture_build(const tok_fixture *f) {
    qsi_vocab *v = NULL;
    qs_err err = {0};
    if (qsi_vocab_build(&v, &f->spec, &err) != QS_OK) fail_msg("%s", err.text);
    return v;
}

void tok_fixture_fails(const tok_fixture *f, qs_status code, const char *words) {
    qsi_vocab *v = NULL;
    qs_err err = {0};
    assert_int_equal(qsi_vocab_build(&v, &f->spec, &err), code);
    assert_null(v);
    if (strstr(err.text, words) == NULL) fail_msg("'%s' lacks '%s'", err.text, words);
}
