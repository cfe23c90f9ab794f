/* Mixes spend bits where a model feels them: the output matrix, the values of attention, the way out
 * of the FFN, and of these in the first and last eighth of the layers and every third between.
 * Source: the choices of llama.cpp's quantizer, compared file by file in tools/check_llama_cpp.py.
 * Not taken over: its exceptions for models of exactly eight experts, which no DeepSeek model has.
 * The plain names mean that type everywhere. */
#include "files/mix.h"

#include <string.h>

static const qsi_mix mixes[] = {
    {"F32", QSI_F32, 0, NULL},
    {"F16", QSI_F16, 1, NULL},
    {"BF16", QSI_BF16, 32, NULL},
    {"Q8_0", QSI_Q8_0, 7, NULL},
    {"Q4_0", QSI_Q4_0, 2, NULL},
    {"Q4_1", QSI_Q4_1, 3, NULL},
    {"Q5_0", QSI_Q5_0, 8, NULL},
    {"Q5_1", QSI_Q5_1, 9, NULL},
    {"IQ4_NL", QSI_IQ4_NL, 25, NULL},
    {"IQ4_XS", QSI_IQ4_XS, 30, NULL},
    {"MXFP4", QSI_MXFP4, 38, NULL},
    {"Q2_K", QSI_Q2_K, 10, NULL},
    {"Q3_K", QSI_Q3_K, 11, NULL},
    {"Q4_K", QSI_Q4_K, 14, NULL},
    {"Q5_K", QSI_Q5_K, 16, NULL},
    {"Q6_K", QSI_Q6_K, 18, NULL},
    {"MXFP4_MOE", QSI_MXFP4, 38, "Q8_0 for all but the routed experts"},
    {"Q2_K_M", QSI_Q2_K, 10, "Q3_K for values, attention and FFN output, Q6_K for the head"},
    {"Q3_K_S", QSI_Q3_K, 11, "Q6_K for the head"},
    {"Q3_K_M", QSI_Q3_K, 12, "Q4_K or Q5_K for values, attention and FFN output, Q6_K for the head"},
    {"Q3_K_L", QSI_Q3_K, 13, "Q5_K for values, attention and FFN output, Q6_K for the head"},
    {"Q4_K_S", QSI_Q4_K, 14, "Q5_K for values and FFN output of the first layers, Q6_K for the head"},
    {"Q4_K_M", QSI_Q4_K, 15, "Q6_K for values and FFN output of half the layers, and for the head"},
    {"Q5_K_S", QSI_Q5_K, 16, "Q6_K for the head"},
    {"Q5_K_M", QSI_Q5_K, 17, "Q6_K for values and FFN output of half the layers, and for the head"},
};

const qsi_mix *qsi_mix_at(size_t i) { return i < QSI_COUNT(mixes) ? &mixes[i] : NULL; }

static char upper(char c) { return c >= 'a' && c <= 'z' ? (char)(c - 'a' + 'A') : c; }

static bool same_name(const char *a, const char *b) {
    while (*a != '\0' && upper(*a) == upper(*b)) {
        a++;
        b++;
    }
    return *a == *b;
}

qs_status qsi_mix_find(const qsi_mix **out, const char *name, qs_err *err) {
    qs_status st = QS_OK;
    qsi_str known = {0};
    for (size_t i = 0; i < QSI_COUNT(mixes); i++) {
        if (same_name(mixes[i].name, name)) {
            *out = &mixes[i];
            goto done;
        }
        if (qsi_str_printf(&known, "%s%s", i > 0 ? ", " : "", mixes[i].name) != QS_OK)
            QS_FAIL(err, QS_E_NOMEM, "out of memory");
    }
    QS_FAIL(err, QS_E_ARG, "no type for weights is called '%.40s'; there are %s", name, known.data);
done:
    qsi_str_release(&known);
    return st;
}

/* The first and last eighth of n layers, and every third between. */
static bool more_bits(int32_t i, int32_t n) {
    return i < n / 8 || i >= 7 * n / 8 || (i - n / 8) % 3 == 2;
}

static qsi_type for_values(const qsi_mix *m, const qsi_config *c, int32_t layer) {
    switch (m->file_type) {
    case 10: return c->n_head / c->n_kv_head >= 4 ? QSI_Q4_K : QSI_Q3_K;
    case 12: return layer < 2 ? QSI_Q5_K : QSI_Q4_K;
    case 13: return QSI_Q5_K;
    case 14: return layer < 4 ? QSI_Q5_K : QSI_Q4_K;
    case 15:
    case 17: return more_bits(layer, c->n_layer) ? QSI_Q6_K : m->base;
    default: return m->base;
    }
}

static qsi_type for_ffn_out(const qsi_mix *m, const qsi_config *c, int32_t layer) {
    switch (m->file_type) {
    case 10: return QSI_Q3_K;
    case 12: return layer < c->n_layer / 16 ? QSI_Q5_K : QSI_Q4_K;
    case 13: return QSI_Q5_K;
    case 14: return layer < c->n_layer / 8 ? QSI_Q5_K : QSI_Q4_K;
    case 15:
    case 17: return more_bits(layer, c->n_layer) ? QSI_Q6_K : m->base;
    default: return m->base;
    }
}

static qsi_type for_attention_out(const qsi_mix *m) {
    switch (m->file_type) {
    case 10: return QSI_Q3_K;
    case 12: return QSI_Q4_K;
    case 13: return QSI_Q5_K;
    default: return m->base;
    }
}

static qsi_type chosen(const qsi_mix *m, const qsi_config *c, const qsi_tensor_spec *t) {
    if (m->about == NULL) return m->base;
    if (m->base == QSI_MXFP4) return t->n_dims == 3 && t->ne[2] > 1 ? QSI_MXFP4 : QSI_Q8_0;
    if (strcmp(t->name, "output.weight") == 0) return QSI_Q6_K;
    if (strstr(t->name, ".attn_v.weight") != NULL) return for_values(m, c, t->layer);
    if (strstr(t->name, ".attn_output.weight") != NULL) return for_attention_out(m);
    if (strstr(t->name, ".ffn_down") != NULL) return for_ffn_out(m, c, t->layer);
    return m->base;
}

static qsi_type in_place_of(qsi_type type) {
    switch (type) {
    case QSI_Q2_K:
    case QSI_Q3_K: return QSI_Q4_0;
    case QSI_IQ4_XS: return QSI_IQ4_NL;
    case QSI_Q4_K: return QSI_Q5_0;
    case QSI_Q5_K: return QSI_Q5_1;
    case QSI_Q6_K: return QSI_Q8_0;
    default: return QSI_F16;
    }
}

qsi_type qsi_fit_type(const qsi_tensor_spec *t, qsi_type wanted) {
    if (t->n_dims == 1 || t->role == QSI_ROLE_ROUTER) return QSI_F32;
    while (t->ne[0] % qsi_type_get((int32_t)wanted)->block != 0) wanted = in_place_of(wanted);
    return wanted;
}

qsi_type qsi_mix_type(const qsi_mix *m, const qsi_config *c, const qsi_tensor_spec *t,
                      qsi_type *asked) {
    qsi_type want = chosen(m, c, t);
    qsi_type got = qsi_fit_type(t, want);
    if (asked != NULL) *asked = t->n_dims == 1 || t->role == QSI_ROLE_ROUTER ? QSI_F32 : want;
    return got;
}
