/* Sleeping on a 32-bit word. Thread: any. */
#ifndef QSI_SYS_FUTEX_H
#define QSI_SYS_FUTEX_H

#include <stdatomic.h>
#include <stdint.h>

/* Sleeps while *word == value; may wake for no reason. */
void qsi_futex_wait(_Atomic uint32_t *word, uint32_t value);
void qsi_futex_wake_all(_Atomic uint32_t *word);
/* Tells the core that this is a spin loop. */
void qsi_cpu_relax(void);

#endif
