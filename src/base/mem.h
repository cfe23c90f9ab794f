/* Heap allocation with checked sizes. Every malloc of the library goes through here, so that tests
 * can let the n-th allocation fail and can make an allocation inside a step fatal.
 * Thread: any. All sizes in bytes; memory is aligned to 64 bytes. */
#ifndef QSI_BASE_MEM_H
#define QSI_BASE_MEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

#define QSI_ALIGN 64

/* Checked arithmetic: false and *out untouched when the result does not fit. */
bool qsi_add_size(size_t a, size_t b, size_t *out);
bool qsi_mul_size(size_t a, size_t b, size_t *out);
bool qsi_mul_i64(int64_t a, int64_t b, int64_t *out);

/* NULL when out of memory, when n * size overflows, or when a test asks for failure. n * size == 0
 * gives a valid pointer. */
void *qsi_alloc(size_t n, size_t size);
void *qsi_calloc(size_t n, size_t size);
/* Grows or shrinks; on failure returns NULL and p stays valid. old_bytes are preserved. */
void *qsi_realloc(void *p, size_t old_bytes, size_t n, size_t size);
void qsi_free(void *p);
/* A copy of a NUL-terminated string, owned by the caller. */
char *qsi_strdup(const char *s);

/* Grows *p (elements of `size` bytes, capacity *cap) so that it holds at least `need` elements. */
qs_status qsi_grow(void **p, size_t *cap, size_t need, size_t size) QS_MUST_CHECK;

/* Test hooks (QS_DEBUG builds; no-ops otherwise). qsi_mem_fail_after(n): the n-th allocation from
 * now on fails, once (n < 0 switches it off). Inside guard_begin/guard_end (a counter of the
 * calling thread) any allocation calls qsi_fail. */
void qsi_mem_fail_after(int64_t n);
void qsi_mem_guard_begin(void);
void qsi_mem_guard_end(void);

/* Arena: memory of one lifetime (model, session, request, step), freed at once. Owner thread. */
typedef struct qsi_arena_chunk qsi_arena_chunk;
typedef struct qsi_arena {
    qsi_arena_chunk *head;
    size_t used, total;
} qsi_arena;
void qsi_arena_init(qsi_arena *a);
void qsi_arena_release(qsi_arena *a);
/* 64-byte aligned, not zeroed; NULL when out of memory. */
void *qsi_arena_alloc(qsi_arena *a, size_t n, size_t size);
void *qsi_arena_calloc(qsi_arena *a, size_t n, size_t size);
char *qsi_arena_strndup(qsi_arena *a, const char *s, size_t n);

#endif
