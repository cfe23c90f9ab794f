/* Memory for many blocks of one lifetime, cut from slabs of huge pages: blocks smaller than a huge page
 * (a model's experts) get none of their own, and reading them would miss the address cache all the
 * time. Nothing is freed before all is. Thread: owner. */
#ifndef QSI_SYS_SLAB_H
#define QSI_SYS_SLAB_H

#include <stddef.h>

typedef struct qsi_slab qsi_slab;
typedef struct qsi_slabs {
    qsi_slab *head; /* all zero: empty */
} qsi_slabs;
/* n bytes, aligned to 64, not zeroed; memory is used only where they are touched, rounded to a huge
 * page. NULL when out of memory. */
void *qsi_slabs_take(qsi_slabs *s, size_t n);
void qsi_slabs_release(qsi_slabs *s);

#endif
