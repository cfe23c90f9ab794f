/* Findings about the machine, for the public API. */
#include "measure/doctor.h"
#include "qiusuo/measure.h"

typedef struct relay {
    qs_doctor_fn *fn;
    void *user;
} relay;

static void relay_finding(void *user, const char *key, bool ok, const char *value,
                          const char *advice) {
    const relay *r = user;
    const qs_finding f = {key, ok, value, advice};
    r->fn(r->user, &f);
}

void qs_doctor(const char *cache, qs_doctor_fn *fn, void *user) {
    relay r = {fn, user};
    qsi_doctor("", cache, relay_finding, &r);
}
