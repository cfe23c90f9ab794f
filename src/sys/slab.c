/* Slabs are whole huge pages at addresses of huge pages; a block larger than a slab gets one of its
 * own. They are mapped, not allocated: no allocator may touch what nobody uses yet. */
#define _DEFAULT_SOURCE /* MAP_ANONYMOUS */
#include "sys/slab.h"

#include <stdint.h>
#include <sys/mman.h>

#include "base/mem.h"
#include "sys/file.h"

#define HUGE ((size_t)2 << 20)
#define SLAB ((size_t)64 << 20)

struct qsi_slab {
    qsi_slab *next;
    void *mem;   /* as mapped */
    size_t size;
    char *p;     /* free from here on */
    size_t left;
};

static qsi_slab *slab_new(size_t need) {
    size_t size = need > SLAB ? need : SLAB, all = 0;
    qsi_slab *s = qsi_calloc(1, sizeof *s);
    if (!s) return NULL;
    if (qsi_add_size(size, 2 * HUGE, &all))
        s->mem = mmap(NULL, all, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (!s->mem || s->mem == MAP_FAILED) {
        qsi_free(s);
        return NULL;
    }
    s->size = all;
    size_t skip = (size_t)(-(uintptr_t)s->mem) % HUGE;
    s->p = (char *)s->mem + skip;
    s->left = (size + HUGE - 1) / HUGE * HUGE;
    qsi_mem_huge(s->p, s->left);
    return s;
}

void *qsi_slabs_take(qsi_slabs *s, size_t n) {
    size_t all = 0;
    if (!qsi_add_size(n, QSI_ALIGN - 1, &all)) return NULL;
    all = all / QSI_ALIGN * QSI_ALIGN;
    if (!s->head || s->head->left < all) {
        qsi_slab *more = slab_new(all);
        if (!more) return NULL;
        more->next = s->head;
        s->head = more;
    }
    char *p = s->head->p;
    s->head->p += all;
    s->head->left -= all;
    return p;
}

void qsi_slabs_release(qsi_slabs *s) {
    while (s->head) {
        qsi_slab *x = s->head;
        s->head = x->next;
        munmap(x->mem, x->size);
        qsi_free(x);
    }
}
