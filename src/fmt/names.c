/* Open addressing with linear probing over 64-bit hashes; the string is compared only when the
 * whole hash is equal. */
#include "fmt/names.h"

#include <string.h>

#include "base/hash.h"
#include "base/mem.h"
#include "base/str.h"
#include "sys/seed.h"

enum { SLOTS_MIN = 64 };

struct qsi_names_slot {
    const char *name; /* NULL: free */
    uint64_t hash;
    uint32_t value;
};

void qsi_names_release(qsi_names *t) {
    qsi_free(t->slots);
    memset(t, 0, sizeof *t);
}

/* The slot that holds the name, or the free one where it belongs. */
static qsi_names_slot *slot_of(qsi_names_slot *slots, size_t n_slots, uint64_t hash,
                               const char *name) {
    size_t i = (size_t)hash & (n_slots - 1);
    while (slots[i].name != NULL &&
           (slots[i].hash != hash || strcmp(slots[i].name, name) != 0)) {
        i = (i + 1) & (n_slots - 1);
    }
    return &slots[i];
}

static qs_status enlarge(qsi_names *t) {
    size_t n_slots = t->n_slots != 0 ? t->n_slots * 2 : SLOTS_MIN;
    if (n_slots < t->n_slots) return QS_E_NOMEM;
    qsi_names_slot *slots = qsi_calloc(n_slots, sizeof *slots);
    if (slots == NULL) return QS_E_NOMEM;
    if (t->slots == NULL) t->seed = qsi_process_seed();
    for (size_t i = 0; i < t->n_slots; i++) {
        const qsi_names_slot *s = &t->slots[i];
        if (s->name != NULL) *slot_of(slots, n_slots, s->hash, s->name) = *s;
    }
    qsi_free(t->slots);
    t->slots = slots;
    t->n_slots = n_slots;
    return QS_OK;
}

qs_status qsi_names_add(qsi_names *t, const char *name, uint32_t value, bool *had) {
    if (t->n >= t->n_slots / 2 && enlarge(t) != QS_OK) return QS_E_NOMEM;
    uint64_t hash = qsi_hash_seed(name, strlen(name), t->seed);
    qsi_names_slot *s = slot_of(t->slots, t->n_slots, hash, name);
    *had = s->name != NULL;
    if (!*had) {
        *s = (qsi_names_slot){name, hash, value};
        t->n++;
    }
    return QS_OK;
}

int64_t qsi_names_find(const qsi_names *t, const char *name) {
    if (t->n == 0) return -1;
    uint64_t hash = qsi_hash_seed(name, strlen(name), t->seed);
    const qsi_names_slot *s = slot_of(t->slots, t->n_slots, hash, name);
    return s->name != NULL ? (int64_t)s->value : -1;
}

bool qsi_name_ok(const char *p, size_t n) {
    size_t i = 0;
    while (i < n) {
        int len = 1;
        uint32_t cp = qsi_utf8_decode(p + i, n - i, &len);
        if (cp == QSI_UTF8_BAD || cp < 0x20 || (cp >= 0x7f && cp < 0xa0)) return false;
        i += (size_t)len;
    }
    return n > 0;
}
