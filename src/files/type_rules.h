/* Types of tensors by their names: rules "PATTERN=TYPE", of which the first that matches counts. The
 * pattern is a POSIX extended regular expression found anywhere in the name, as llama-quantize's
 * --tensor-type. Thread: any; immutable after create. */
#ifndef QSI_FILES_TYPE_RULES_H
#define QSI_FILES_TYPE_RULES_H

#include <stdbool.h>

#include "base/status.h"
#include "quant/quant.h"

typedef struct qsi_type_rules qsi_type_rules;
/* QS_E_ARG: no '=', no such type, no such expression. n may be 0. */
qs_status qsi_type_rules_create(qsi_type_rules **r, const char *const *texts, size_t n,
                                qs_err *err) QS_MUST_CHECK;
void qsi_type_rules_free(qsi_type_rules *r);
/* False when no rule matches. r may be NULL. */
bool qsi_type_rules_find(const qsi_type_rules *r, const char *name, qsi_type *out);

/* The first rule whose expression is found in none of the n names, as it was written; NULL: there is
 * none. r may be NULL. */
const char *qsi_type_rules_idle(const qsi_type_rules *r, const char *const *names, size_t n);

#endif
