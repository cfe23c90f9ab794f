/* Heap allocation with checked sizes; the only file that calls the C library's allocator.
 *
 * Everything is aligned to 64 bytes, a cache line and the widest vector, so that any buffer may
 * meet any kernel. QS_DEBUG builds count allocations to let one fail, and guard steps. */
#include "base/mem.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

bool qsi_add_size(size_t a, size_t b, size_t *out) {
    size_t r;
    if (__builtin_add_overflow(a, b, &r)) return false;
    *out = r;
    return true;
}

bool qsi_mul_size(size_t a, size_t b, size_t *out) {
    size_t r;
    if (__builtin_mul_overflow(a, b, &r)) return false;
    *out = r;
    return true;
}

bool qsi_mul_i64(int64_t a, int64_t b, int64_t *out) {
    int64_t r;
    if (__builtin_mul_overflow(a, b, &r)) return false;
    *out = r;
    return true;
}

#ifdef QS_DEBUG
/* Allocations left until one fails; negative: off. Tests set it, any thread counts it down. */
static _Atomic int64_t fail_after = -1;
static _Thread_local int guard_depth;

static bool injected_failure(void) {
    int64_t n = atomic_load(&fail_after);
    while (n > 0) {
        if (atomic_compare_exchange_weak(&fail_after, &n, n == 1 ? -1 : n - 1)) return n == 1;
    }
    return false;
}

void qsi_mem_fail_after(int64_t n) { atomic_store(&fail_after, n); }
void qsi_mem_guard_begin(void) { guard_depth++; }
void qsi_mem_guard_end(void) { guard_depth--; }
static bool guarded(void) { return guard_depth > 0; }
#else
static bool injected_failure(void) { return false; }
static bool guarded(void) { return false; }
void qsi_mem_fail_after(int64_t n) { (void)n; }
void qsi_mem_guard_begin(void) {}
void qsi_mem_guard_end(void) {}
#endif

static void *alloc_bytes(size_t bytes) {
    if (guarded()) qsi_fail(__FILE__, __LINE__, "no allocation inside a step");
    if (injected_failure() || bytes > PTRDIFF_MAX) return NULL;
    void *p = NULL;
    if (posix_memalign(&p, QSI_ALIGN, bytes > 0 ? bytes : 1) != 0) return NULL;
    return p;
}

void *qsi_alloc(size_t n, size_t size) {
    size_t bytes;
    if (!qsi_mul_size(n, size, &bytes)) return NULL;
    return alloc_bytes(bytes);
}

void *qsi_calloc(size_t n, size_t size) {
    size_t bytes;
    if (!qsi_mul_size(n, size, &bytes)) return NULL;
    void *p = alloc_bytes(bytes);
    if (p != NULL) memset(p, 0, bytes);
    return p;
}

void *qsi_realloc(void *p, size_t old_bytes, size_t n, size_t size) {
    size_t bytes;
    if (!qsi_mul_size(n, size, &bytes)) return NULL;
    void *q = alloc_bytes(bytes);
    if (q == NULL) return NULL;
    size_t keep = old_bytes < bytes ? old_bytes : bytes;
    if (p != NULL && keep > 0) memcpy(q, p, keep);
    qsi_free(p);
    return q;
}

void qsi_free(void *p) { free(p); }

char *qsi_strdup(const char *s) {
    size_t n = strlen(s) + 1;
    char *p = alloc_bytes(n);
    if (p != NULL) memcpy(p, s, n);
    return p;
}

qs_status qsi_grow(void **p, size_t *cap, size_t need, size_t size) {
    if (need <= *cap) return QS_OK;
    size_t want = *cap + *cap / 2;
    if (want < 8) want = 8;
    if (want < need || want < *cap) want = need;
    void *q = qsi_realloc(*p, *cap * size, want, size);
    if (q == NULL) return QS_E_NOMEM;
    *p = q;
    *cap = want;
    return QS_OK;
}
