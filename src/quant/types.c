/* The table of types: what GGML calls them, how big a block is, and the scalar encode and decode of
 * those this program computes with. Types without decode are known so that a file that holds them
 * can be described. Rows are little-endian; src and dst of encode and decode need no alignment.
 * Source: block layouts of ggml (deepseek-facts 4.2). Blocks of 32 and 256: block32.c, kquant.c. */
#include <string.h>

#include "quant/blocks.h"

static void decode_f32(const void *src, float *dst, int64_t n) {
    if (n > 0) memcpy(dst, src, (size_t)n * sizeof *dst);
}

static void encode_f32(const float *src, void *dst, int64_t n) {
    if (n > 0) memcpy(dst, src, (size_t)n * sizeof *src);
}

static void decode_f16(const void *src, float *dst, int64_t n) {
    const uint8_t *s = src;
    for (int64_t i = 0; i < n; i++) dst[i] = qsi_f16_to_f32(qsi_load16(s + 2 * i));
}

static void encode_f16(const float *src, void *dst, int64_t n) {
    uint8_t *d = dst;
    for (int64_t i = 0; i < n; i++) qsi_store16(d + 2 * i, qsi_f32_to_f16(src[i]));
}

static void decode_bf16(const void *src, float *dst, int64_t n) {
    const uint8_t *s = src;
    for (int64_t i = 0; i < n; i++) dst[i] = qsi_bf16_to_f32(qsi_load16(s + 2 * i));
}

static void encode_bf16(const float *src, void *dst, int64_t n) {
    uint8_t *d = dst;
    for (int64_t i = 0; i < n; i++) qsi_store16(d + 2 * i, qsi_f32_to_bf16(src[i]));
}

#define COMPUTED(id, name, block, bytes, fn)                                                       \
    { id, name, block, bytes, true, decode_##fn, encode_##fn }
#define BLOCKS(id, name, block, fn)                                                                \
    { id, name, block, sizeof(qsi_##fn), true, qsi_decode_##fn, qsi_encode_##fn }
#define NAMED(id, name, block, bytes) {(qsi_type)(id), name, block, bytes, false, NULL, NULL}

static const qsi_type_info types[] = {
    COMPUTED(QSI_F32, "F32", 1, 4, f32),
    COMPUTED(QSI_F16, "F16", 1, 2, f16),
    BLOCKS(QSI_Q4_0, "Q4_0", 32, q4_0),
    BLOCKS(QSI_Q4_1, "Q4_1", 32, q4_1),
    BLOCKS(QSI_Q5_0, "Q5_0", 32, q5_0),
    BLOCKS(QSI_Q5_1, "Q5_1", 32, q5_1),
    BLOCKS(QSI_Q8_0, "Q8_0", 32, q8_0),
    NAMED(9, "Q8_1", 32, 36),
    BLOCKS(QSI_Q2_K, "Q2_K", 256, q2_k),
    BLOCKS(QSI_Q3_K, "Q3_K", 256, q3_k),
    BLOCKS(QSI_Q4_K, "Q4_K", 256, q4_k),
    BLOCKS(QSI_Q5_K, "Q5_K", 256, q5_k),
    BLOCKS(QSI_Q6_K, "Q6_K", 256, q6_k),
    NAMED(15, "Q8_K", 256, 292),
    NAMED(16, "IQ2_XXS", 256, 66),
    NAMED(17, "IQ2_XS", 256, 74),
    NAMED(18, "IQ3_XXS", 256, 98),
    NAMED(19, "IQ1_S", 256, 50),
    BLOCKS(QSI_IQ4_NL, "IQ4_NL", 32, iq4_nl),
    NAMED(21, "IQ3_S", 256, 110),
    NAMED(22, "IQ2_S", 256, 82),
    BLOCKS(QSI_IQ4_XS, "IQ4_XS", 256, iq4_xs),
    NAMED(QSI_I8, "I8", 1, 1),
    NAMED(QSI_I16, "I16", 1, 2),
    NAMED(QSI_I32, "I32", 1, 4),
    NAMED(QSI_I64, "I64", 1, 8),
    NAMED(QSI_F64, "F64", 1, 8),
    NAMED(29, "IQ1_M", 256, 56),
    COMPUTED(QSI_BF16, "BF16", 1, 2, bf16),
    NAMED(34, "TQ1_0", 256, 54),
    NAMED(35, "TQ2_0", 256, 66),
    BLOCKS(QSI_MXFP4, "MXFP4", 32, mxfp4),
    NAMED(40, "NVFP4", 64, 36),
};

const qsi_type_info *qsi_type_get(int32_t type) {
    for (size_t i = 0; i < QSI_COUNT(types); i++) {
        if ((int32_t)types[i].type == type) {
            return &types[i];
        }
    }
    return NULL;
}

static int lower(char c) {
    return c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c;
}

const qsi_type_info *qsi_type_find(const char *name) {
    for (size_t i = 0; i < QSI_COUNT(types); i++) {
        const char *a = types[i].name, *b = name;
        while (*a && lower(*a) == lower(*b)) {
            a++;
            b++;
        }
        if (!*a && !*b) {
            return &types[i];
        }
    }
    return NULL;
}

const char *qsi_type_instead(const qsi_type_info *ti) {
    static const struct {
        const char *begins, *instead;
    } table[] = {{"IQ1", "Q2_K"},  {"IQ2", "Q2_K"},   {"IQ3", "Q3_K"},
                 {"TQ", "Q2_K"},   {"NVFP4", "MXFP4"}};
    for (size_t i = 0; i < QSI_COUNT(table) && !ti->weights; i++)
        if (strncmp(ti->name, table[i].begins, strlen(table[i].begins)) == 0)
            return table[i].instead;
    return "";
}

qs_status qsi_type_runs(const qsi_type_info *ti, const char *tensor, qs_err *err) {
    if (ti != NULL && *qsi_type_instead(ti) != '\0')
        return qsi_err_set(err, QS_E_UNSUPPORTED, "tensor %s has type %s, which is not supported: take "
                           "a file of the same model in %s, or convert the original weights to it",
                           tensor, ti->name, qsi_type_instead(ti));
    if (ti == NULL || !ti->weights || ti->decode == NULL)
        return qsi_err_set(err, QS_E_UNSUPPORTED, "tensor %s has type %s (F32, F16, BF16, Q8_0, Q4_0, "
                           "Q4_1, Q5_0, Q5_1, IQ4_NL, IQ4_XS, MXFP4 and Q2_K to Q6_K can be run)",
                           tensor, ti != NULL ? ti->name : "unknown");
    return QS_OK;
}

bool qsi_row_bytes(const qsi_type_info *ti, int64_t n, size_t *out) {
    if (n < 0 || n % ti->block != 0) {
        return false;
    }
    uint64_t blocks = (uint64_t)(n / ti->block), most = SIZE_MAX / (size_t)ti->bytes;
    if (blocks > most) {
        return false;
    }
    *out = (size_t)blocks * (size_t)ti->bytes;
    return true;
}
