/* Arena: a list of chunks, newest first; memory is handed out from the head and freed all at once.
 * Chunks double up to 1 MiB; a request larger than that gets a chunk of its own size. Under
 * AddressSanitizer each piece is followed by a poisoned gap, so that overruns are seen. */
#include <string.h>

#include "base/mem.h"

#if defined(__SANITIZE_ADDRESS__)
#define ARENA_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define ARENA_ASAN 1
#endif
#endif
#ifdef ARENA_ASAN
#include <sanitizer/asan_interface.h>
#define RED_ZONE QSI_ALIGN
#define POISON(p, n) ASAN_POISON_MEMORY_REGION((p), (n))
#define UNPOISON(p, n) ASAN_UNPOISON_MEMORY_REGION((p), (n))
#else
#define RED_ZONE 0
#define POISON(p, n) ((void)(p), (void)(n))
#define UNPOISON(p, n) ((void)(p), (void)(n))
#endif

enum { CHUNK_MIN = 4096, CHUNK_MAX = 1 << 20 };

struct qsi_arena_chunk {
    qsi_arena_chunk *next;
    size_t size, pos; /* bytes after the header, bytes handed out */
};
/* The header takes one aligned unit, so that data starts aligned. */
_Static_assert(sizeof(qsi_arena_chunk) <= QSI_ALIGN, "chunk header fits an aligned unit");

static uint8_t *chunk_data(qsi_arena_chunk *c) { return (uint8_t *)c + QSI_ALIGN; }

void qsi_arena_init(qsi_arena *a) { memset(a, 0, sizeof(*a)); }

void qsi_arena_release(qsi_arena *a) {
    qsi_arena_chunk *c = a->head;
    while (c != NULL) {
        qsi_arena_chunk *next = c->next;
        UNPOISON(chunk_data(c), c->size);
        qsi_free(c);
        c = next;
    }
    qsi_arena_init(a);
}

static qsi_arena_chunk *add_chunk(qsi_arena *a, size_t need) {
    size_t size = a->head != NULL ? a->head->size * 2 : CHUNK_MIN;
    if (size > CHUNK_MAX) size = CHUNK_MAX;
    if (size < need) size = need;
    size_t bytes;
    if (!qsi_add_size(size, QSI_ALIGN, &bytes)) return NULL;
    qsi_arena_chunk *c = qsi_alloc(1, bytes);
    if (c == NULL) return NULL;
    c->next = a->head;
    c->size = size;
    c->pos = 0;
    a->head = c;
    a->total += bytes;
    POISON(chunk_data(c), size);
    return c;
}

void *qsi_arena_alloc(qsi_arena *a, size_t n, size_t size) {
    size_t bytes, step;
    if (!qsi_mul_size(n, size, &bytes)) return NULL;
    if (!qsi_add_size(bytes, QSI_ALIGN - 1 + RED_ZONE, &step)) return NULL;
    step &= ~(size_t)(QSI_ALIGN - 1);
    if (step == 0) step = QSI_ALIGN;
    qsi_arena_chunk *c = a->head;
    if (c == NULL || step > c->size - c->pos) {
        c = add_chunk(a, step);
        if (c == NULL) return NULL;
    }
    uint8_t *p = chunk_data(c) + c->pos;
    c->pos += step;
    a->used += step;
    UNPOISON(p, bytes);
    return p;
}

void *qsi_arena_calloc(qsi_arena *a, size_t n, size_t size) {
    void *p = qsi_arena_alloc(a, n, size);
    if (p != NULL) memset(p, 0, n * size);
    return p;
}

char *qsi_arena_strndup(qsi_arena *a, const char *s, size_t n) {
    size_t bytes;
    if (!qsi_add_size(n, 1, &bytes)) return NULL;
    char *p = qsi_arena_alloc(a, bytes, 1);
    if (p == NULL) return NULL;
    if (n > 0) memcpy(p, s, n);
    p[n] = '\0';
    return p;
}
