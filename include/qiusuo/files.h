/* Qiusuo: model files as a person handles them. Unstable until 1.0.
 * Threads: any; one call at a time per file. */
#ifndef QIUSUO_FILES_H
#define QIUSUO_FILES_H

#include <stddef.h>
#include <stdint.h>

#include "qiusuo/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Called now and then with work done and all work, in bytes; a return other than 0 cancels. */
typedef int qs_files_progress_fn(void *user, int64_t done, int64_t of);

/* ---- new models -------------------------------------------------------------------------------- */

/* The i-th preset's name and description, NULL after the last. */
QS_API const char *qs_preset_name(int32_t i);
QS_API const char *qs_preset_about(int32_t i);

/* The i-th name of a type, or of a mix of types, and what the mix is ("" for plain types); NULL after
 * the last. */
QS_API const char *qs_type_name(int32_t i);
QS_API const char *qs_type_about(int32_t i);

typedef struct qs_init_opts {
    size_t size;         /* set by init */
    const char *preset;  /* "deepseek-llm-7b", ... */
    const char *type;    /* of matrices: see qs_type_name (default "F16") */
    const char *vocab;   /* GGUF, tokenizer.json or folder to copy the vocabulary from; NULL: byte
                            symbols and numbered unused tokens up to the preset's size */
    uint64_t seed;
    int32_t layers;      /* > 0: so many layers instead of the preset's */
    double std;          /* deviation of the normal distribution of matrices (default 0.006) */
    qs_files_progress_fn *progress; /* may be NULL */
    void *user;
    double router_skew;  /* >= 0: experts are used by a power law with this exponent (default -1: as
                            random routers happen to, which is most unevenly) */
    int32_t mtp;         /* non-zero: with a layer that predicts a further token (presets of V3's kind,
                            QS_E_ARG otherwise) */
} qs_init_opts;
QS_API void qs_init_opts_init(qs_init_opts *o, size_t size);

/* Writes a valid GGUF with seeded random weights straight to disk, in bounded memory. The file
 * appears under its name when it is complete. The same options give the same bytes. 1-d tensors and
 * routers are F32. Where a row is no multiple of the type's block, the log says what is stored: Q4_0 for
 * Q2_K and Q3_K, Q5_0 for Q4_K, Q5_1 for Q5_K, Q8_0 for Q6_K, F16 for types of 32. */
QS_API qs_status qs_init(const qs_init_opts *o, const char *out, qs_err *err) QS_MUST_CHECK;

/* ---- other formats and types -------------------------------------------------------------------- */

typedef struct qs_convert_opts {
    size_t size;        /* set by init */
    const char *type;   /* see qs_type_name; NULL: every tensor keeps its type (default) */
    int32_t threads;    /* 0: all physical cores */
    qs_files_progress_fn *progress; /* bytes of the source; may be NULL */
    void *user;
    /* Before `type`: "PATTERN=TYPE", the pattern a POSIX extended regular expression found anywhere in a
     * tensor's name; the first that matches counts. Vectors and routers stay F32. */
    const char *const *tensor_types;
    int32_t n_tensor_types;
    const char *imatrix; /* file of an importance matrix (qs_imatrix, or llama.cpp's GGUF form): errors
                            count by it; NULL: by the weights alone */
    int32_t check;       /* non-zero: only whether it can be done, for those who have hours of work
                            before it. Nothing is written, and imatrix need not exist yet */
} qs_convert_opts;
QS_API void qs_convert_opts_init(qs_convert_opts *o, size_t size);

/* Writes the model `src` (a GGUF file, the first of split ones, or a Hugging Face folder) as the GGUF
 * file `dst`, in bounded memory; the keys are kept. dst appears under its name when it is complete.
 * Until then it is "dst.part" with "dst.part.journal": after QS_E_CANCELLED, QS_E_IO or the death of the
 * process the same call goes on behind the tensors that are whole (a note of the log says so) and
 * gives the same bytes; a source or options that changed start it anew (another note).
 * When dst is a folder, or ends in '/', a GGUF `src` becomes a Hugging Face folder there: safetensors,
 * config.json (last), tokenizer.json; type then F32, F16 or BF16, NULL: quantised matrices become BF16.
 * Rows that are no multiple of a type's block are stored as qs_init says. QS_E_FORMAT: tensors that the
 * model's architecture names are missing; QS_E_RANGE: values that the type cannot hold. */
QS_API qs_status qs_convert(const qs_convert_opts *o, const char *src, const char *dst, qs_err *err)
    QS_MUST_CHECK;

/* ---- what a file is ---------------------------------------------------------------------------- */

enum {
    QS_INFO_JSON = 1,    /* one JSON object instead of lines for people */
    QS_INFO_TENSORS = 2, /* every tensor */
    QS_INFO_KEYS = 4,    /* every key of a GGUF */
    QS_INFO_VERIFY = 8   /* looks at every value: NaN and infinity; XXH3 digest of every
                          * tensor; of a repacked copy at checksums */
};

/* Receives text in pieces. */
typedef void qs_text_fn(void *user, const char *text, size_t n);

/* Describes a GGUF file, a safetensors file, a tokenizer.json, a Hugging Face folder or a
 * repacked copy of weights (repack_cache), without loading it. The description goes to `out`
 * first (with QS_INFO_JSON also when the file is damaged: {"ok":false,"file":..,"error":..});
 * then the result tells about the file: QS_E_FORMAT and others when its structure is damaged or
 * contradicts itself, QS_E_NUMERIC when a value is no number. */
QS_API qs_status qs_info(const char *path, uint32_t flags, qs_text_fn *out, void *out_user,
                         qs_files_progress_fn *progress, void *progress_user, qs_err *err)
    QS_MUST_CHECK;

#ifdef __cplusplus
}
#endif
#endif
