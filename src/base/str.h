/* Growing byte string, small questions to strings, and UTF-8. Thread: owner. */
#ifndef QSI_BASE_STR_H
#define QSI_BASE_STR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

/* data is NUL-terminated whenever it is not NULL; len excludes the NUL. Zero-initialise to start.
 * */
typedef struct qsi_str {
    char *data;
    size_t len, cap;
} qsi_str;

void qsi_str_release(qsi_str *s);
void qsi_str_clear(qsi_str *s);
qs_status qsi_str_append(qsi_str *s, const void *p, size_t n) QS_MUST_CHECK;
qs_status qsi_str_puts(qsi_str *s, const char *z) QS_MUST_CHECK;
qs_status qsi_str_putc(qsi_str *s, char c) QS_MUST_CHECK;
qs_status qsi_str_printf(qsi_str *s, const char *fmt, ...) QS_PRINTF(2, 3) QS_MUST_CHECK;
/* JSON string literal with quotes; bytes must be UTF-8. */
qs_status qsi_str_json(qsi_str *s, const char *p, size_t n) QS_MUST_CHECK;

bool qsi_ends_with(const char *z, const char *tail);

enum { QSI_SIZE_TEXT = 32 };
/* "512 bytes", "7.4 MB", "1.3 GB" (powers of 1000, as disks are sold) in buf; returns buf. */
char *qsi_size_text(char buf[QSI_SIZE_TEXT], uint64_t bytes);

#define QSI_UTF8_BAD 0xFFFFFFFFu
/* Decodes one code point at p (n bytes left): returns it and its length, or QSI_UTF8_BAD with *len
 * 1 when the bytes are not valid UTF-8 (overlong, surrogate, above 10FFFF, truncated). n >= 1. */
uint32_t qsi_utf8_decode(const char *p, size_t n, int *len);
/* Encodes cp into out (up to 4 bytes), returns the length. cp must be a scalar value. */
int qsi_utf8_encode(uint32_t cp, char out[4]);
/* True when valid; else *bad (optional) is the offset of the first bad byte. */
bool qsi_utf8_valid(const char *p, size_t n, size_t *bad);
/* Length of the longest prefix that ends on a whole character: what may be shown of a stream whose
 * last character may be still incomplete. Invalid bytes count as whole. */
size_t qsi_utf8_whole(const char *p, size_t n);

#endif
