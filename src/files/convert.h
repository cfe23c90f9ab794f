/* Models written anew: folders as GGUF, split files as one, weights in other types. Memory stays
 * bounded whatever the size. Thread: any; one call at a time per file. */
#ifndef QSI_FILES_CONVERT_H
#define QSI_FILES_CONVERT_H

#include "files/imatrix.h"
#include "files/mix.h"
#include "files/type_rules.h"

typedef struct qsi_convert_opts {
    const qsi_mix *mix; /* types of matrices, as in init; NULL: every tensor keeps its type */
    const qsi_type_rules *rules; /* before the mix, by name; may be NULL */
    const qsi_imatrix *imatrix;  /* what columns matter to the encoders; may be NULL */
    bool check;         /* only whether it can be done: nothing is written */
    int threads;        /* 0: all physical cores */
    /* bytes read of the source; non-zero cancels. May be NULL */
    int (*progress)(void *user, int64_t done, int64_t of);
    void *user;
} qsi_convert_opts;

/* src: whatever files/open_model.h opens. dst appears when it is complete, or not at all; it may not
 * be src. Keys are kept but those of splitting and, with a mix, of the file's type. Rules and mix say
 * what matrices become; vectors and routers stay F32. Tensors that the
 * architecture does not name keep their type. QS_E_ARG: a rule for which there is no tensor;
 * QS_E_FORMAT: tensors that the architecture names are missing (of one that is not known here, what
 * there is is copied where no type changes);
 * QS_E_UNSUPPORTED: a type that is not decoded here, a file without weights; QS_E_IO: no room;
 * QS_E_RANGE: values that the type cannot hold (those that are none already are told). The log says what
 * is stored in another type than asked for, and that a source was quantised already. */
qs_status qsi_convert(const char *src, const char *dst, const qsi_convert_opts *o, qs_err *err)
    QS_MUST_CHECK;

#endif
