/* Writing a net as a GGUF model; see export.h.
 *
 * [metadata] values: "text" or bare words are strings, true and false booleans, digits alone a u32
 * (i32 when negative), other numbers f32, and [a, b] arrays of strings. */
#include "train/export.h"

#include <math.h>
#include <string.h>

#include "sys/file.h"

#define ROWS_BYTES ((size_t)1 << 20) /* encoded at a time */

static const struct {
    qsi_type type;
    uint32_t file_type; /* general.file_type, as GGML's programs number it */
} file_types[] = {{QSI_F32, 0}, {QSI_F16, 1}, {QSI_Q4_0, 2}, {QSI_Q8_0, 7}, {QSI_BF16, 32}};

qsi_type qsi_export_type(qsi_type wanted, const qsi_tensor_spec *spec) {
    if (spec->role == QSI_ROLE_NORM || spec->role == QSI_ROLE_ROUTER) return QSI_F32;
    const qsi_type_info *ti = qsi_type_get(wanted);
    return ti != NULL && spec->ne[0] % ti->block != 0 ? QSI_F16 : wanted;
}

/* ---- metadata ---- */

/* Copies a quoted or bare string starting at *s, up to `stops`; moves *s behind it. */
static bool take_string(const char **s, const char *stops, qsi_str *out) {
    const char *p = *s;
    bool ok = true;
    qsi_str_clear(out);
    if (*p == '"') {
        for (p++; *p != '\0' && *p != '"'; p++) {
            char ch = *p;
            if (ch == '\\' && p[1] != '\0') {
                ch = *++p;
                ch = ch == 'n' ? '\n' : ch == 't' ? '\t' : ch;
            }
            ok = ok && qsi_str_putc(out, ch) == QS_OK;
        }
        if (*p != '"') return false;
        p++;
    } else {
        while (*p != '\0' && strchr(stops, *p) == NULL) ok = ok && qsi_str_putc(out, *p++) == QS_OK;
        while (out->len > 0 && out->data[out->len - 1] == ' ') out->data[--out->len] = '\0';
    }
    *s = p;
    return ok;
}

/* Writes an array of strings; w NULL only checks. */
static qs_status put_array(qsi_gguf_writer *w, const char *key, const char *v, qs_err *err) {
    qs_status st = QS_OK;
    qsi_arena arena;
    qsi_slice *items = NULL;
    size_t n = 0, cap = 0;
    qsi_str s = {0};
    qsi_arena_init(&arena);
    const char *p = v + 1;
    for (;;) {
        while (*p == ' ' || *p == ',') p++;
        if (*p == ']' || *p == '\0') break;
        if (!take_string(&p, ",]", &s) || s.len == 0)
            QS_FAIL(err, QS_E_FORMAT, "metadata %s: bad element in '%.80s'", key, v);
        char *copy = qsi_arena_strndup(&arena, s.data, s.len);
        if (copy == NULL || qsi_grow((void **)&items, &cap, n + 1, sizeof(*items)) != QS_OK)
            QS_FAIL(err, QS_E_NOMEM, "out of memory for metadata");
        items[n++] = (qsi_slice){copy, s.len};
    }
    if (p[0] != ']' || p[1] != '\0')
        QS_FAIL(err, QS_E_FORMAT, "metadata %s: '%.80s' is not [a, b, ...]", key, v);
    if (w != NULL) QS_TRY(qsi_gguf_put_arr_str(w, key, items, n));
done:
    qsi_str_release(&s);
    qsi_free(items);
    qsi_arena_release(&arena);
    return st;
}

static qs_status put_meta(qsi_gguf_writer *w, const char *key, const char *v, qs_err *err) {
    qs_status st = QS_OK;
    qsi_str s = {0};
    double x = 0;
    const char *p = v;
    if (v[0] == '[') return put_array(w, key, v, err);
    bool quoted = v[0] == '"';
    if (!take_string(&p, "", &s) || *p != '\0')
        QS_FAIL(err, QS_E_FORMAT, "metadata %s: '%.80s' is not one value", key, v);
    bool truth = strcmp(v, "true") == 0;
    if (!quoted && (truth || strcmp(v, "false") == 0)) {
        if (w != NULL) QS_TRY(qsi_gguf_put_bool(w, key, truth));
    } else if (!quoted && qsi_parse_number(v, &x)) {
        bool whole = strspn(v, "-0123456789") == strlen(v) && fabs(x) < 2147483648.0;
        if (w == NULL) goto done;
        if (whole && x >= 0) QS_TRY(qsi_gguf_put_u32(w, key, (uint32_t)x));
        else if (whole) QS_TRY(qsi_gguf_put_i32(w, key, (int32_t)x));
        else QS_TRY(qsi_gguf_put_f32(w, key, (float)x));
    } else if (w != NULL) {
        QS_TRY(qsi_gguf_put_str(w, key, s.data != NULL ? s.data : "", s.len));
    }
done:
    qsi_str_release(&s);
    return st;
}

/* Keys that the weights and the vocabulary decide: not for [metadata]. */
static bool reserved(const char *key) {
    return strncmp(key, "tokenizer.", 10) == 0 || strcmp(key, "general.architecture") == 0 ||
           strcmp(key, "general.file_type") == 0 || strcmp(key, "general.alignment") == 0 ||
           strcmp(key, "general.quantization_version") == 0 || strncmp(key, "llama.", 6) == 0 ||
           strncmp(key, "deepseek.", 9) == 0;
}

qs_status qsi_export_check(const qsi_trainconf *c, qsi_type *type, qs_err *err) {
    qs_status st = QS_OK;
    bool known = false;
    const qsi_type_info *ti = qsi_type_find(c->type);
    for (size_t i = 0; i < QSI_COUNT(file_types); i++)
        known = known || (ti != NULL && file_types[i].type == ti->type);
    if (!known || ti->encode == NULL)
        QS_FAIL(err, QS_E_ARG, "output.type '%s' is none of F32, F16, BF16, Q8_0, Q4_0", c->type);
    *type = ti->type;
    for (size_t i = 0; i < c->meta_keys.n; i++) {
        if (reserved(c->meta_keys.v[i]) || strlen(c->meta_keys.v[i]) > 64)
            QS_FAIL(err, QS_E_ARG, "metadata %.80s: this key cannot be set", c->meta_keys.v[i]);
        QS_TRY(put_meta(NULL, c->meta_keys.v[i], c->meta_values.v[i], err));
    }
done:
    return st;
}

/* ---- tensors ---- */

static const qsi_param *find_param(const qsi_net *net, const char *name) {
    size_t n = net->n_params(net->self);
    for (size_t i = 0; i < n; i++) {
        const qsi_param *p = net->param(net->self, i);
        if (strcmp(p->name, name) == 0) return p;
    }
    return NULL;
}

static qs_status write_tensor(qsi_gguf_writer *w, const qsi_param *p, qsi_type type, int64_t ne0,
                              qs_err *err) {
    qs_status st = QS_OK;
    uint8_t *buf = NULL;
    size_t row = 0;
    const qsi_type_info *ti = qsi_type_get(type);
    if (!qsi_row_bytes(ti, ne0, &row))
        QS_FAIL(err, QS_E_ARG, "'%s': rows of %lld do not fit %s", p->name, (long long)ne0,
                ti->name);
    int64_t n_rows = p->n / ne0, at_once = (int64_t)(ROWS_BYTES / row) + 1;
    buf = qsi_alloc((size_t)at_once, row);
    if (buf == NULL) QS_FAIL(err, QS_E_NOMEM, "out of memory while writing '%s'", p->name);
    for (int64_t r = 0; r < n_rows; r += at_once) {
        int64_t k = n_rows - r < at_once ? n_rows - r : at_once;
        ti->encode(p->master + r * ne0, buf, k * ne0);
        QS_TRY(qsi_gguf_write(w, buf, (size_t)k * row, err));
    }
done:
    qsi_free(buf);
    return st;
}

static qs_status put_keys(const qsi_export *x, qsi_gguf_writer *w, qs_err *err) {
    qs_status st = QS_OK;
    for (size_t i = 0; i < x->conf->meta_keys.n; i++)
        QS_TRY(put_meta(w, x->conf->meta_keys.v[i], x->conf->meta_values.v[i], err));
    for (size_t i = 0; i < QSI_COUNT(file_types); i++)
        if (file_types[i].type == x->type)
            QS_TRY(qsi_gguf_put_u32(w, "general.file_type", file_types[i].file_type));
    if (x->type == QSI_Q8_0 || x->type == QSI_Q4_0)
        QS_TRY(qsi_gguf_put_u32(w, "general.quantization_version", 2));
    QS_TRY(qsi_vocab_save_gguf(x->vocab, w, err));
    if (x->jinja != NULL)
        QS_TRY(qsi_gguf_put_str(w, "tokenizer.chat_template", x->jinja, strlen(x->jinja)));
done:
    return st;
}

qs_status qsi_export_write(const qsi_export *x, const char *path, qs_err *err) {
    qs_status st = QS_OK;
    qsi_gguf_writer *w = NULL;
    qsi_tensor_spec spec;
    size_t n = qsi_config_n_tensors(x->config);
    QS_TRY(qsi_gguf_writer_open(&w, path, err));
    QS_TRY(qsi_config_put_gguf(x->config, w));
    QS_TRY(put_keys(x, w, err));
    for (size_t i = 0; i < n; i++) {
        qsi_config_tensor(x->config, i, &spec);
        QS_TRY(qsi_gguf_declare(w, spec.name, qsi_export_type(x->type, &spec), spec.n_dims,
                                spec.ne, err));
    }
    for (size_t i = 0; i < n; i++) {
        qsi_config_tensor(x->config, i, &spec);
        const qsi_param *p = find_param(x->net, spec.name);
        if (p == NULL) QS_FAIL(err, QS_E_STATE, "the net has no parameter '%s'", spec.name);
        QS_TRY(write_tensor(w, p, qsi_export_type(x->type, &spec), spec.ne[0], err));
    }
    QS_TRY(qsi_gguf_finish(&w, err));
done:
    qsi_gguf_writer_abort(&w);
    return st;
}
