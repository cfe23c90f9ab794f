/* Public API of model files: new models, descriptions. */
#include <string.h>

#include "base/status.h"
#include "files/convert.h"
#include "files/hf_export.h"
#include "files/info.h"
#include "files/init.h"
#include "files/open_model.h"
#include "files/presets.h"
#include "files/vocab_file.h"
#include "model/packed.h"
#include "qiusuo/files.h"
#include "sys/file.h"

const char *qs_preset_name(int32_t i) {
    return i >= 0 && (size_t)i < qsi_preset_count() ? qsi_preset_at((size_t)i)->name : NULL;
}

const char *qs_preset_about(int32_t i) {
    return i >= 0 && (size_t)i < qsi_preset_count() ? qsi_preset_at((size_t)i)->about : NULL;
}

const char *qs_type_name(int32_t i) {
    const qsi_mix *m = i >= 0 ? qsi_mix_at((size_t)i) : NULL;
    return m != NULL ? m->name : NULL;
}

const char *qs_type_about(int32_t i) {
    const qsi_mix *m = i >= 0 ? qsi_mix_at((size_t)i) : NULL;
    return m == NULL ? NULL : m->about != NULL ? m->about : "";
}

void qs_init_opts_init(qs_init_opts *o, size_t size) {
    const qs_init_opts fresh = {.type = "F16", .std = 0.006, .router_skew = -1};
    memset(o, 0, size);
    memcpy(o, &fresh, size < sizeof fresh ? size : sizeof fresh);
    o->size = size;
}

/* A caller built against an older header has a shorter struct. */
static qs_init_opts whole_opts(const qs_init_opts *o) {
    qs_init_opts all;
    qs_init_opts_init(&all, sizeof all);
    memcpy(&all, o, o->size < sizeof all ? o->size : sizeof all);
    return all;
}

qs_status qs_init(const qs_init_opts *opts, const char *out, qs_err *err) {
    qs_status st = QS_OK;
    qsi_vocab *vocab = NULL;
    const qsi_preset *preset = NULL;
    const qsi_mix *mix = NULL;
    const qs_init_opts o = whole_opts(opts);
    if (o.preset == NULL || o.type == NULL)
        QS_FAIL(err, QS_E_ARG, "a preset and a type are needed");
    QS_TRY(qsi_preset_find(&preset, o.preset, err));
    QS_TRY(qsi_mix_find(&mix, o.type, err));
    qsi_init_opts x = {.name = preset->name, .config = preset->config, .mix = mix,
                       .seed = o.seed, .std = (float)o.std,
                       .skewed = o.router_skew >= 0, .router_skew = o.router_skew,
                       .progress = o.progress, .user = o.user};
    if (o.mtp && x.config.gating != QSI_GATE_SIGMOID)
        QS_FAIL(err, QS_E_ARG, "preset '%s' has no layer that predicts further tokens: those of V3's "
                "kind do", o.preset);
    x.config.n_next = o.mtp != 0;
    if (o.layers > 0) {
        x.config.n_layer = o.layers;
        if (x.config.n_dense > o.layers) x.config.n_dense = o.layers;
    }
    if (o.vocab != NULL) QS_TRY(qsi_path_apart(o.vocab, out, err));
    if (o.vocab != NULL) QS_TRY(qsi_vocab_file_load(&vocab, o.vocab, err));
    x.vocab = vocab;
    QS_TRY(qsi_init_write(&x, out, err));
done:
    qsi_vocab_free(vocab);
    return st;
}

void qs_convert_opts_init(qs_convert_opts *o, size_t size) {
    memset(o, 0, size);
    o->size = size;
}

/* dst names a folder: it ends in '/', or is one. */
static bool is_folder(const char *dst) {
    size_t n = strlen(dst);
    return (n > 0 && dst[n - 1] == '/') || qsi_path_is_dir(dst);
}

static qs_status to_folder(const qs_convert_opts *o, const qsi_mix *mix, const char *src,
                           const char *dst, qs_err *err) {
    qs_status st = QS_OK;
    qsi_gguf *g = NULL;
    qsi_hf_export_opts x = {.type = QSI_TYPE_NONE, .progress = o->progress, .user = o->user};
    if (o->n_tensor_types > 0 || o->imatrix != NULL ||
        (mix != NULL && mix->base != QSI_F32 && mix->base != QSI_F16 && mix->base != QSI_BF16))
        QS_FAIL(err, QS_E_ARG, "'%s' is a folder, and the matrices of one are all F32, F16 or BF16: "
                "name a file to write, such as '%s%smodel.gguf'", dst, dst,
                qsi_ends_with(dst, "/") ? "" : "/");
    if (mix != NULL) x.type = mix->base;
    if (qsi_path_is_dir(src))
        QS_FAIL(err, QS_E_ARG, "'%s' is a folder already: a GGUF file becomes one", src);
    QS_TRY(qsi_files_open_model(src, &g, err));
    if (qsi_gguf_n_tensors(g) == 0)
        QS_FAIL(err, QS_E_UNSUPPORTED, "'%s' is a vocabulary without weights", src);
    if (o->check != 0) goto done;
    st = qsi_hf_export(g, dst, &x, err);
    if (st != QS_OK) qsi_err_prefix(err, "cannot convert '%s'", src);
done:
    qsi_gguf_close(&g);
    return st;
}

qs_status qs_convert(const qs_convert_opts *opts, const char *src, const char *dst, qs_err *err) {
    qs_status st = QS_OK;
    qs_convert_opts o = {0};
    memcpy(&o, opts, opts->size < sizeof o ? opts->size : sizeof o);
    qsi_convert_opts x = {.threads = o.threads, .check = o.check != 0, .progress = o.progress,
                          .user = o.user};
    qsi_type_rules *rules = NULL;
    qsi_imatrix *imatrix = NULL;
    if (o.threads < 0) QS_FAIL(err, QS_E_ARG, "%d threads: 0 (all) or a number", (int)o.threads);
    if (o.type != NULL) QS_TRY(qsi_mix_find(&x.mix, o.type, err));
    if (is_folder(dst)) {
        QS_TRY(to_folder(&o, x.mix, src, dst, err));
        goto done;
    }
    if (o.n_tensor_types > 0)
        QS_TRY(qsi_type_rules_create(&rules, o.tensor_types, (size_t)o.n_tensor_types, err));
    if (o.imatrix != NULL && o.check == 0) QS_TRY(qsi_imatrix_open(&imatrix, o.imatrix, err));
    x.rules = rules;
    x.imatrix = imatrix;
    QS_TRY(qsi_convert(src, dst, &x, err));
done:
    qsi_type_rules_free(rules);
    qsi_imatrix_close(&imatrix);
    return st;
}

/* What the description found wrong, as a result. */
static qs_status judge(const qsi_info *x, qs_err *err) {
    if (x->n_bad > 0) {
        return qsi_err_set(
            err, QS_E_NUMERIC,
            "'%s' is damaged: tensor %s holds a value that is no number, %zu tensor%s so", x->path,
            x->bad[0].name, x->n_bad, x->n_bad == 1 ? " is" : "s are");
    }
    if (x->n_problems > 0) {
        return qsi_err_set(err, QS_E_FORMAT, "'%s': %s", x->path, x->problems[0]);
    }
    return QS_OK;
}

/* {"ok":false,...} for a file that could not be opened. */
static qs_status damaged_json(qsi_str *s, const char *path, const qs_err *why) {
    qs_status st = QS_OK;
    qsi_str clean = {0};
    QS_TRY(qsi_info_clean(&clean, path, strlen(path), 4096));
    QS_TRY(qsi_str_puts(s, "{\"ok\":false,\"file\":"));
    QS_TRY(qsi_str_json(s, clean.data != NULL ? clean.data : "", clean.len));
    qsi_str_clear(&clean);
    QS_TRY(qsi_info_clean(&clean, why->text, strlen(why->text), sizeof why->text));
    QS_TRY(qsi_str_puts(s, ",\"error\":"));
    QS_TRY(qsi_str_json(s, clean.data != NULL ? clean.data : "", clean.len));
    QS_TRY(qsi_str_puts(s, "}\n"));
done:
    qsi_str_release(&clean);
    return st;
}

/* A repacked copy of weights: no model, but worth a word, and its checksums can be looked at. */
static qs_status packed_info(const char *path, uint32_t flags, qsi_str *text,
                             qs_files_progress_fn *progress, void *user, qs_err *err) {
    qs_status st = QS_OK;
    qsi_packed *p = NULL;
    qsi_str clean = {0};
    char size[QSI_SIZE_TEXT];
    bool verify = (flags & QS_INFO_VERIFY) != 0;
    QS_TRY(qsi_packed_open(&p, path, NULL, err));
    if (verify) QS_TRY(qsi_packed_verify(p, progress, user, err));
    QS_TRY(qsi_info_clean(&clean, path, strlen(path), 4096));
    if (flags & QS_INFO_JSON) {
        QS_TRY(qsi_str_puts(text, "{\"ok\":true,\"file\":"));
        QS_TRY(qsi_str_json(text, clean.data, clean.len));
        QS_TRY(qsi_str_printf(text, ",\"kind\":\"repacked copy\",\"isa\":\"%s\",\"weights\":%zu,"
                              "\"bytes\":%llu,\"verified\":%s}\n", qsi_packed_isa(p),
                              qsi_packed_count(p), (unsigned long long)qsi_packed_bytes(p),
                              verify ? "true" : "false"));
    } else {
        QS_TRY(qsi_str_printf(text, "file          %s\nkind          repacked copy of a model's "
                              "weights, for kernels of level %s\nweights       %zu, %s%s\n", clean.data,
                              qsi_packed_isa(p), qsi_packed_count(p),
                              qsi_size_text(size, qsi_packed_bytes(p)),
                              verify ? ", all as their checksums say" : ""));
    }
done:
    qsi_packed_close(&p);
    qsi_str_release(&clean);
    return st;
}

qs_status qs_info(const char *path, uint32_t flags, qs_text_fn *out, void *out_user,
                  qs_files_progress_fn *progress, void *progress_user, qs_err *err) {
    qs_status st = QS_OK, made = QS_OK;
    qsi_info *x = NULL;
    qsi_str text = {0};
    qs_err why = {0};
    unsigned show = (flags & QS_INFO_TENSORS ? QSI_INFO_SHOW_TENSORS : 0) |
                    (flags & QS_INFO_KEYS ? QSI_INFO_SHOW_KEYS : 0);
    bool packed = qsi_packed_is(path);
    st = packed ? packed_info(path, flags, &text, progress, progress_user, &why)
                : qsi_info_open(&x, path, &why);
    if (x != NULL && (flags & QS_INFO_VERIFY)) {
        st = qsi_info_verify(x, progress, progress_user, &why);
        if (st != QS_OK) qsi_info_close(&x);
    }
    if (x != NULL) {
        made = flags & QS_INFO_JSON ? qsi_info_json(x, show, &text) : qsi_info_text(x, show, &text);
        st = judge(x, &why);
    } else if (st != QS_OK && (flags & QS_INFO_JSON)) {
        qsi_str_clear(&text);
        made = damaged_json(&text, path, &why);
    }
    if (made != QS_OK) st = qsi_err_set(&why, made, "out of memory describing '%s'", path);
    else if (text.len > 0) out(out_user, text.data, text.len);
    if (st != QS_OK && err != NULL) *err = why;
    qsi_info_close(&x);
    qsi_str_release(&text);
    return st;
}
