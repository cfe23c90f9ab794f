/* What a model file is: gathered once, shown as text or JSON. Nothing is loaded: mappings only,
 * memory stays small whatever the file claims. Thread: any; an info has one owner. */
#ifndef QSI_FILES_INFO_H
#define QSI_FILES_INFO_H

#include "base/str.h"
#include "files/imatrix.h"
#include "fmt/gguf.h"
#include "fmt/safetensors.h"
#include "model/model.h"
#include "tok/tok.h"

typedef enum qsi_info_kind { QSI_INFO_GGUF, QSI_INFO_VOCAB, QSI_INFO_SAFETENSORS, QSI_INFO_FOLDER,
                             QSI_INFO_TOKENIZER, QSI_INFO_IMATRIX } qsi_info_kind;

typedef struct qsi_info_type {
    const char *name;
    int64_t tensors, values;
    uint64_t bytes;
    /* Matrices in a type of smaller blocks, or F16, whose rows are no multiple of 256, in a file that
     * has types with blocks of 256; the length of such rows, 0 where they have several. */
    int64_t short_blocks, short_row;
} qsi_info_type;

/* A tensor of either format. */
typedef struct qsi_info_tensor {
    const char *name, *type_name;
    const qsi_type_info *type; /* NULL: not known to this program */
    int n_dims;
    int64_t ne[QSI_ST_MAX_DIMS]; /* ne[0] contiguous */
    int64_t values;
    size_t bytes, offset;        /* offset: of GGUF only */
    const uint8_t *data;
} qsi_info_tensor;

typedef struct qsi_info_bad { /* values of one tensor that are no numbers */
    const char *name;
    int64_t first, count;        /* element in storage order; how many */
    float value;                 /* the first of them */
} qsi_info_bad;

enum { QSI_INFO_MAX_TYPES = 64, QSI_INFO_MAX_PROBLEMS = 16, QSI_INFO_MAX_BAD = 64 };

typedef struct qsi_info {
    qsi_info_kind kind;
    char *path;
    uint64_t bytes;
    qsi_gguf *g;                 /* GGUF kinds, else NULL */
    qsi_st *st;                  /* safetensors and folders, else NULL */
    bool has_config;
    qsi_config config;
    char unsupported[640];       /* why this program cannot run it; "" when it can */
    qsi_vocab *vocab;            /* NULL when there is none */
    qsi_imatrix_stats imatrix;   /* of an importance matrix */
    qsi_info_type types[QSI_INFO_MAX_TYPES];
    size_t n_types;
    int64_t values;              /* of all tensors */
    char problems[QSI_INFO_MAX_PROBLEMS][640]; /* what is wrong with it */
    size_t n_problems;
    bool verified;               /* by qsi_info_verify */
    int64_t checked, unchecked;  /* values; those of types without decoder */
    qsi_info_bad bad[QSI_INFO_MAX_BAD];
    size_t n_bad;                /* tensors; may exceed QSI_INFO_MAX_BAD */
    uint64_t *digests;           /* by qsi_info_verify: XXH3 of every tensor's bytes */
} qsi_info;

/* path: GGUF, .safetensors, tokenizer.json, or a Hugging Face folder. Fails when the file's
 * structure is damaged; contradictions inside a sound structure become problems. */
qs_status qsi_info_open(qsi_info **out, const char *path, qs_err *err) QS_MUST_CHECK;
void qsi_info_close(qsi_info **info);
size_t qsi_info_n_tensors(const qsi_info *x);
void qsi_info_tensor_at(const qsi_info *x, size_t i, qsi_info_tensor *out);

/* Looks at every value of every tensor: NaN and infinity go to `bad`; and makes the digests.
 * progress gets bytes; non-zero
 * cancels. */
qs_status qsi_info_verify(qsi_info *x, int (*progress)(void *user, int64_t done, int64_t of),
                          void *user, qs_err *err) QS_MUST_CHECK;

#define QSI_INFO_SHOW_TENSORS 1u
#define QSI_INFO_SHOW_KEYS 2u
/* Appends the description. Bytes of the file that a terminal would obey, or that are not UTF-8,
 * become '?'. Fail only with QS_E_NOMEM. */
qs_status qsi_info_text(const qsi_info *x, unsigned show, qsi_str *out) QS_MUST_CHECK;
qs_status qsi_info_json(const qsi_info *x, unsigned show, qsi_str *out) QS_MUST_CHECK;

/* Appends at most `max` bytes of a string of the file, made harmless. */
qs_status qsi_info_clean(qsi_str *out, const char *p, size_t n, size_t max) QS_MUST_CHECK;
/* general.name or "" (a slice of the mapping). */
qsi_slice qsi_info_string(const qsi_info *x, const char *key);
/* Bytes of keys and values per position with an F16 cache. */
int64_t qsi_info_kv_bytes(const qsi_config *c);
/* The i-th context length worth telling memory for: powers of two from 2048 on below the model's, then
 * its own; 0 after the last. */
int64_t qsi_info_context(const qsi_config *c, int i);
const char *qsi_info_kind_name(qsi_info_kind k);

#endif
