/* New models with random weights, written straight to disk: memory stays bounded whatever the size.
 * Thread: any; one call at a time per file. */
#ifndef QSI_FILES_INIT_H
#define QSI_FILES_INIT_H

#include "files/mix.h"
#include "model/model.h"
#include "tok/tok.h"

typedef struct qsi_init_opts {
    const char *name;      /* general.name */
    qsi_config config;     /* with a vocabulary, n_vocab is taken from it */
    const qsi_mix *mix;    /* types of matrices; 1-d tensors and routers stay F32 */
    const qsi_vocab *vocab; /* NULL: byte symbols and numbered unused tokens */
    uint64_t seed;
    float std;             /* of the normal distribution of matrices; norms are ones */
    /* Experts are used by a power law with the exponent router_skew (skew.h), 0: evenly. The embedding
     * then has deviation 1: tokens keep a direction of their own. With small ones the layers of a
     * random model say all, much the same of every token, and most tokens meet the same experts. */
    bool skewed;
    double router_skew;
    int threads;           /* 0: all physical cores */
    /* bytes of tensors written; non-zero cancels. May be NULL */
    int (*progress)(void *user, int64_t done, int64_t of);
    void *user;
} qsi_init_opts;

/* The same options give the same file, byte for byte, whatever the number of threads. A row that is no
 * multiple of its type's block is stored as another type (qsi_mix_type), which notes of the log say.
 * QS_E_IO when the disk has no room. */
qs_status qsi_init_write(const qsi_init_opts *o, const char *path, qs_err *err) QS_MUST_CHECK;

#endif
