/* Reading golden files of tab-separated fields, one case a line; text stands in hex. */
#ifndef TOK_GOLDEN_H
#define TOK_GOLDEN_H

#include <stddef.h>

/* The whole file, NUL-terminated; the test owns it. */
char *tok_read_file(const char *path, size_t *n);
/* Cuts the next field off *at (ends at a tab or a line's end, which becomes NUL); NULL at the end. */
char *tok_field(char **at);
/* Hex to bytes in place; returns their number. */
size_t tok_unhex(char *text);

#endif
