#include "tok_golden.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

char *tok_read_file(const char *path, size_t *n) {
    FILE *f = fopen(path, "rb");
    long size;
    char *p;
    assert_non_null(f);
    assert_int_equal(fseek(f, 0, SEEK_END), 0);
    size = ftell(f);
    assert_true(size > 0);
    rewind(f);
    p = malloc((size_t)size + 1);
    assert_non_null(p);
    assert_int_equal(fread(p, 1, (size_t)size, f), (size_t)size);
    p[size] = '\0';
    fclose(f);
    *n = (size_t)size;
    return p;
}

char *tok_field(char **at) {
    char *start = *at, *end = start + strcspn(start, "\t\n");
    if (*start == '\0') return NULL;
    *at = *end == '\0' ? end : end + 1;
    *end = '\0';
    return start;
}

static int digit(char c) { return c <= '9' ? c - '0' : c - 'a' + 10; }

size_t tok_unhex(char *text) {
    size_t n = strlen(text) / 2;
    for (size_t i = 0; i < n; i++)
        text[i] = (char)(digit(text[2 * i]) << 4 | digit(text[2 * i + 1]));
    text[n] = '\0';
    return n;
}
