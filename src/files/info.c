/* Gathering: opens what the path names, reads the configuration, the vocabulary and the types, and
 * compares the tensors with the configuration. Three outcomes are kept apart: a damaged structure
 * (opening fails), a contradiction (a problem), and something sound that this program does not
 * support. */
#include "files/info.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/hash.h"
#include "base/mem.h"
#include "base/str.h"
#include "fmt/json.h"
#include "files/hf_import.h"
#include "files/vocab_file.h"
#include "sys/file.h"

enum { PIECE = 1 << 16 /* values decoded at a time */ };

static void add_problem(qsi_info *x, const char *fmt, ...) QS_PRINTF(2, 3);
static void add_problem(qsi_info *x, const char *fmt, ...) {
    va_list ap;
    if (x->n_problems == QSI_INFO_MAX_PROBLEMS) return;
    va_start(ap, fmt);
    vsnprintf(x->problems[x->n_problems++], sizeof x->problems[0], fmt, ap);
    va_end(ap);
}

static void set_unsupported(qsi_info *x, const char *text) {
    if (x->unsupported[0] == '\0') snprintf(x->unsupported, sizeof x->unsupported, "%s", text);
}

const char *qsi_info_kind_name(qsi_info_kind k) {
    static const char *const names[] = {"GGUF model", "GGUF vocabulary", "safetensors",
                                        "Hugging Face folder", "tokenizer.json", "importance matrix"};
    return (unsigned)k < QSI_COUNT(names) ? names[k] : "?";
}

int64_t qsi_info_kv_bytes(const qsi_config *c) {
    return (int64_t)2 * c->n_layer * qsi_config_cache_row(c);
}

qsi_slice qsi_info_string(const qsi_info *x, const char *key) {
    qsi_slice s = {"", 0};
    if (x->g == NULL || qsi_gguf_str(x->g, key, &s, NULL) != QS_OK) s = (qsi_slice){"", 0};
    return s;
}

/* ---- tensors ---- */

size_t qsi_info_n_tensors(const qsi_info *x) {
    if (x->g != NULL) return qsi_gguf_n_tensors(x->g);
    return x->st != NULL ? qsi_st_n_tensors(x->st) : 0;
}

void qsi_info_tensor_at(const qsi_info *x, size_t i, qsi_info_tensor *out) {
    if (x->g != NULL) {
        const qsi_gguf_tensor *t = qsi_gguf_tensor_at(x->g, i);
        const qsi_type_info *ti = qsi_type_get((int32_t)t->type);
        *out = (qsi_info_tensor){.name = t->name, .type_name = ti->name, .type = ti,
                                 .n_dims = t->n_dims, .values = 1, .bytes = t->bytes,
                                 .offset = t->offset, .data = t->data};
        for (int d = 0; d < t->n_dims; d++) {
            out->ne[d] = t->ne[d];
            out->values *= t->ne[d];
        }
        return;
    }
    const qsi_st_tensor *t = qsi_st_at(x->st, i);
    *out = (qsi_info_tensor){.name = t->name, .type_name = t->dtype,
                             .type = qsi_type_get((int32_t)t->type), .n_dims = t->n_dims,
                             .values = t->n, .bytes = t->bytes, .data = t->data};
    for (int d = 0; d < t->n_dims; d++) out->ne[d] = t->shape[t->n_dims - 1 - d];
}

/* A row that its neighbours' blocks of 256 do not fit is stored in a type that does (qsi_fit_type). */
static bool has_short_blocks(const qsi_info_tensor *t) {
    if (t->type == NULL || t->n_dims < 2 || t->ne[0] % 256 == 0) return false;
    return t->type->block == 32 || t->type->type == QSI_F16;
}

static void count_types(qsi_info *x) {
    bool k256 = false;
    for (size_t i = 0; i < qsi_info_n_tensors(x); i++) {
        qsi_info_tensor t;
        size_t k = 0;
        qsi_info_tensor_at(x, i, &t);
        while (k < x->n_types && strcmp(x->types[k].name, t.type_name) != 0) k++;
        if (k == QSI_INFO_MAX_TYPES) continue;
        if (k == x->n_types) x->types[x->n_types++] = (qsi_info_type){.name = t.type_name};
        x->types[k].tensors++;
        x->types[k].values += t.values;
        x->types[k].bytes += t.bytes;
        x->values += t.values;
        k256 = k256 || (t.type != NULL && t.type->block == 256);
        if (!has_short_blocks(&t)) continue;
        bool other = x->types[k].short_blocks > 0 && x->types[k].short_row != t.ne[0];
        x->types[k].short_row = other ? 0 : t.ne[0];
        x->types[k].short_blocks++;
    }
    for (size_t k = 0; k < x->n_types && !k256; k++) x->types[k].short_blocks = 0;
}

/* ---- configuration against tensors (GGUF) ---- */

static void dims_text(char *buf, size_t cap, int n_dims, const int64_t *ne) {
    size_t n = 0;
    buf[0] = '\0';
    for (int d = 0; d < n_dims && n < cap; d++) {
        n += (size_t)snprintf(buf + n, cap - n, "%s%" PRId64, d > 0 ? " x " : "", ne[d]);
    }
}

static void compare_tensors(qsi_info *x) {
    size_t n = qsi_config_n_tensors(&x->config), found = 0;
    for (size_t i = 0; i < n; i++) {
        qsi_tensor_spec want;
        char is[96], wanted[96];
        qsi_config_tensor(&x->config, i, &want);
        const qsi_gguf_tensor *t = qsi_gguf_tensor_find(x->g, want.name);
        if (t == NULL) {
            /* an output matrix that is missing is the embedding's twin */
            if (strcmp(want.name, "output.weight") != 0)
                add_problem(x, "tensor %s is missing", want.name);
            continue;
        }
        found++;
        if (t->ne[0] != want.ne[0] || t->ne[1] != want.ne[1] || t->ne[2] != want.ne[2] ||
            t->ne[3] != 1) {
            dims_text(is, sizeof is, t->n_dims, t->ne);
            dims_text(wanted, sizeof wanted, want.n_dims, want.ne);
            add_problem(x, "tensor %s is %s, the configuration wants %s", want.name, is, wanted);
        }
        const qsi_type_info *ti = qsi_type_get((int32_t)t->type);
        if (!ti->weights) {
            char text[160];
            const char *instead = qsi_type_instead(ti);
            snprintf(text, sizeof text, "weights of type %s (tensor %s)%s%s%s", ti->name, t->name,
                     *instead ? "; take a file of the same model in " : "", instead,
                     *instead ? ", or convert the original weights to it" : "");
            set_unsupported(x, text);
        }
    }
    if (qsi_gguf_n_tensors(x->g) > found && x->n_problems == 0) {
        char text[160];
        snprintf(text, sizeof text, "%zu tensors that its architecture does not have",
                 qsi_gguf_n_tensors(x->g) - found);
        set_unsupported(x, text);
    }
}

static void read_gguf_config(qsi_info *x) {
    qs_err why = {0};
    qs_status st = qsi_config_from_gguf(&x->config, x->g, &why);
    x->has_config = st == QS_OK;
    if (st == QS_E_UNSUPPORTED || (st != QS_OK && x->kind == QSI_INFO_VOCAB)) {
        set_unsupported(x, why.text);
    } else if (st != QS_OK) {
        add_problem(x, "%s", why.text);
    }
    if (x->has_config && x->kind == QSI_INFO_GGUF) compare_tensors(x);
}

static void read_gguf_vocab(qsi_info *x) {
    qs_err why = {0};
    if (qsi_gguf_find(x->g, "tokenizer.ggml.tokens") == NULL) return;
    qs_status st = qsi_vocab_load_gguf(&x->vocab, x->g, &why);
    if (st == QS_E_UNSUPPORTED) set_unsupported(x, why.text);
    else if (st != QS_OK) add_problem(x, "%s", why.text);
    if (x->vocab != NULL && x->kind == QSI_INFO_GGUF && x->has_config &&
        qsi_vocab_size(x->vocab) != x->config.n_vocab) {
        add_problem(x, "the vocabulary has %" PRId32 " ids, the model %" PRId32,
                    qsi_vocab_size(x->vocab), x->config.n_vocab);
    }
}

/* ---- opening ---- */

/* Whether every tensor that the configuration names has its place, as when the folder is run. */
static void compare_folder(qsi_info *x) {
    qs_err why = {0};
    qsi_hf *h = NULL;
    if (!x->has_config || x->vocab == NULL || x->n_problems > 0) return;
    qs_status st = qsi_hf_open(&h, x->path, &why);
    if (st == QS_E_UNSUPPORTED) set_unsupported(x, why.text);
    else if (st != QS_OK) add_problem(x, "%s", why.text);
    qsi_hf_close(&h);
}

static qs_status open_folder(qsi_info *x, qs_err *err) {
    qs_status st = QS_OK;
    qsi_str file = {0}, text = {0};
    qs_err why = {0};
    x->kind = QSI_INFO_FOLDER;
    if (qsi_path_join(&file, x->path, "config.json") != QS_OK)
        QS_FAIL(err, QS_E_NOMEM, "out of memory");
    if (!qsi_path_exists(file.data)) {
        QS_FAIL(err, QS_E_NOTFOUND, "folder '%s' holds no config.json: not a model", x->path);
    }
    QS_TRY(qsi_file_read(file.data, QSI_JSON_SMALL_BYTES, &text, err));
    qs_status read = qsi_config_from_hf(&x->config, text.data, text.len, &why);
    x->has_config = read == QS_OK;
    if (read == QS_E_UNSUPPORTED) set_unsupported(x, why.text);
    else if (read != QS_OK) add_problem(x, "%s", why.text);
    QS_TRY(qsi_st_open(&x->st, x->path, err));
    x->bytes = qsi_st_bytes(x->st);
    qsi_str_clear(&file);
    if (qsi_path_join(&file, x->path, "tokenizer.json") != QS_OK) {
        QS_FAIL(err, QS_E_NOMEM, "out of memory");
    }
    if (qsi_path_exists(file.data) && qsi_vocab_file_load(&x->vocab, file.data, &why) != QS_OK) {
        add_problem(x, "%s", why.text);
    }
    compare_folder(x);
done:
    qsi_str_release(&file);
    qsi_str_release(&text);
    return st;
}

static qs_status open_tokenizer(qsi_info *x, qs_err *err) {
    qs_status st = QS_OK;
    qsi_map m = {.fd = -1};
    x->kind = QSI_INFO_TOKENIZER;
    QS_TRY(qsi_vocab_file_load(&x->vocab, x->path, err));
    QS_TRY(qsi_map_open(&m, x->path, err));
    x->bytes = m.size;
    qsi_map_close(&m);
done:
    return st;
}

static bool is_imatrix(const qsi_info *x) {
    qsi_slice type = qsi_info_string(x, "general.type");
    return type.n == 7 && memcmp(type.p, "imatrix", 7) == 0;
}

static void open_imatrix(qsi_info *x) {
    qs_err why = {0};
    qsi_imatrix *m = NULL;
    x->kind = QSI_INFO_IMATRIX;
    if (qsi_imatrix_open(&m, x->path, &why) == QS_OK) x->imatrix = qsi_imatrix_stat(m);
    else add_problem(x, "%s", why.text);
    qsi_imatrix_close(&m);
}

static qs_status open_gguf(qsi_info *x, qs_err *err) {
    qs_status st = QS_OK;
    QS_TRY(qsi_gguf_open(&x->g, x->path, err));
    x->bytes = qsi_gguf_size(x->g);
    if (is_imatrix(x)) {
        open_imatrix(x);
        goto done;
    }
    x->kind = qsi_gguf_n_tensors(x->g) > 0 ? QSI_INFO_GGUF : QSI_INFO_VOCAB;
    read_gguf_config(x);
    read_gguf_vocab(x);
    if (x->kind == QSI_INFO_VOCAB && x->vocab == NULL && x->n_problems == 0) {
        add_problem(x, "the file holds neither tensors nor a vocabulary");
    }
done:
    return st;
}

qs_status qsi_info_open(qsi_info **out, const char *path, qs_err *err) {
    qs_status st = QS_OK;
    qsi_info *x = qsi_calloc(1, sizeof *x);
    if (x == NULL || (x->path = qsi_strdup(path)) == NULL) {
        QS_FAIL(err, QS_E_NOMEM, "out of memory opening '%s'", path);
    }
    if (qsi_path_is_dir(path)) {
        QS_TRY(open_folder(x, err));
    } else if (qsi_ends_with(path, ".safetensors") ||
               qsi_ends_with(path, ".safetensors.index.json")) {
        x->kind = QSI_INFO_SAFETENSORS;
        QS_TRY(qsi_st_open(&x->st, path, err));
        x->bytes = qsi_st_bytes(x->st);
    } else if (qsi_ends_with(path, ".json")) {
        QS_TRY(open_tokenizer(x, err));
    } else {
        QS_TRY(open_gguf(x, err));
    }
    count_types(x);
    *out = x;
    x = NULL;
done:
    qsi_info_close(&x);
    return st;
}

void qsi_info_close(qsi_info **px) {
    qsi_info *x = *px;
    if (x == NULL) return;
    qsi_vocab_free(x->vocab);
    qsi_gguf_close(&x->g);
    qsi_st_close(&x->st);
    qsi_free(x->path);
    qsi_free(x->digests);
    qsi_free(x);
    *px = NULL;
}

/* ---- verify ---- */

typedef struct verifying {
    qsi_info *x;
    int (*progress)(void *user, int64_t done, int64_t of);
    void *user;
    int64_t done, of; /* bytes */
    float *piece;
} verifying;

/* Zeros in place of pages that are gone are finite too. */
static qs_status check_intact(const qsi_info *x, qs_err *err) {
    return x->st != NULL ? qsi_st_intact(x->st, err) : qsi_gguf_intact(x->g, err);
}

/* safetensors' type of 8 bits, which only this and the conversion look into. */
static bool is_fp8(const qsi_info_tensor *t) { return strcmp(t->type_name, "F8_E4M3") == 0; }

static bool can_check(const qsi_info_tensor *t) {
    return is_fp8(t) || (t->type != NULL && t->type->decode != NULL);
}

/* n values from `at` on, NaN where they are none: of FP8 the bytes 0x7f and 0xff, of MXFP4 a block whose
 * scale is 0xff (both OCP), though its codes have values here as they do for ggml. Other FP8 is 0. */
static size_t take_piece(const qsi_info_tensor *t, int64_t at, int64_t n, float *out) {
    size_t from = (size_t)at, bytes = (size_t)n;
    if (is_fp8(t)) {
        for (int64_t i = 0; i < n; i++) out[i] = (t->data[at + i] & 0x7f) == 0x7f ? NAN : 0;
        return bytes;
    }
    QS_CHECK(qsi_row_bytes(t->type, at, &from) && qsi_row_bytes(t->type, n, &bytes));
    t->type->decode(t->data + from, out, n);
    for (size_t b = 0; t->type->type == QSI_MXFP4 && b < bytes / sizeof(qsi_mxfp4); b++)
        if (t->data[from + b * sizeof(qsi_mxfp4)] == 0xff)
            for (int i = 0; i < t->type->block; i++) out[b * 32 + (size_t)i] = NAN;
    return bytes;
}

static qs_status verify_tensor(verifying *v, const qsi_info_tensor *t, qs_err *err) {
    qs_status st = QS_OK;
    qsi_info_bad bad = {.name = t->name, .first = -1};
    for (int64_t at = 0; at < t->values; at += PIECE) {
        int64_t n = t->values - at < PIECE ? t->values - at : PIECE; /* PIECE fits every block */
        size_t bytes = take_piece(t, at, n, v->piece);
        for (int64_t i = 0; i < n; i++) {
            if (isfinite(v->piece[i])) continue;
            if (bad.count++ == 0) {
                bad.first = at + i;
                bad.value = v->piece[i];
            }
        }
        v->done += (int64_t)bytes;
        if (v->progress != NULL && v->progress(v->user, v->done, v->of) != 0) {
            QS_FAIL(err, QS_E_CANCELLED, "cancelled");
        }
    }
    if (bad.count > 0) {
        if (v->x->n_bad < QSI_INFO_MAX_BAD) v->x->bad[v->x->n_bad] = bad;
        v->x->n_bad++;
    }
done:
    return st;
}

qs_status qsi_info_verify(qsi_info *x, int (*progress)(void *user, int64_t done, int64_t of),
                          void *user, qs_err *err) {
    qs_status st = QS_OK;
    verifying v = {.x = x, .progress = progress, .user = user};
    v.piece = qsi_alloc(PIECE, sizeof *v.piece);
    if (v.piece == NULL) QS_FAIL(err, QS_E_NOMEM, "out of memory checking values");
    qsi_free(x->digests);
    x->digests = qsi_calloc(qsi_info_n_tensors(x), sizeof *x->digests);
    if (x->digests == NULL) QS_FAIL(err, QS_E_NOMEM, "out of memory checking values");
    x->checked = x->unchecked = 0;
    x->n_bad = 0;
    for (size_t i = 0; i < x->n_types; i++) v.of += (int64_t)x->types[i].bytes;
    for (size_t i = 0; i < qsi_info_n_tensors(x); i++) {
        qsi_info_tensor t;
        qsi_info_tensor_at(x, i, &t);
        x->digests[i] = qsi_hash(t.data, t.bytes);
        QS_TRY(check_intact(x, err));
        if (!can_check(&t)) {
            x->unchecked += t.values;
            v.done += (int64_t)t.bytes;
            continue;
        }
        QS_TRY(verify_tensor(&v, &t, err));
        QS_TRY(check_intact(x, err));
        x->checked += t.values;
        if (x->st != NULL) qsi_st_drop(x->st, qsi_st_at(x->st, i));
        else qsi_gguf_drop(x->g, qsi_gguf_tensor_at(x->g, i));
    }
    x->verified = true;
done:
    qsi_free(v.piece);
    return st;
}

int64_t qsi_info_context(const qsi_config *c, int i) {
    int64_t n = (int64_t)2048 << i;
    if (i > 0 && n / 2 >= c->n_ctx) return 0;
    return n < c->n_ctx ? n : c->n_ctx;
}
