/* The folder's tensors are listed first (experts apart, latent attention's two matrices of a head as
 * one), dealt out to files, and written in that order, a row at a time: rows of q and k go back from
 * interleaved pairs to halves, quantised rows become BF16. Names: hf_import.c. A file of weights has a
 * mark after its header and after each of its tensors; the journals of those that are complete stay
 * until all are, so that a run that goes on knows them. */
#include "files/hf_export.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"
#include "files/hf_config.h"
#include "files/hf_import.h"
#include "files/mix.h"
#include "model/rope_scaling.h"
#include "sys/file.h"

#define SHARD_BYTES ((uint64_t)5000000000u)

typedef struct entry {
    char name[QSI_HF_NAME_CAP];
    const qsi_gguf_tensor *t, *v; /* v: V of latent attention, t is K transposed then */
    int64_t rows, cols;           /* rows 0: a vector */
    int64_t row0;                 /* of the GGUF's tensor: an expert's first */
    bool turned;                  /* rows of a rotated matrix */
    qsi_type type;                /* in the folder */
    uint64_t bytes;
    uint32_t shard;
} entry;

typedef struct exporting {
    const qsi_gguf *g;
    const qsi_hf_export_opts *o;
    const char *folder;
    qsi_config config;
    qsi_vocab *vocab;
    bool tied;
    qsi_type matrices; /* what most of them are */
    entry *e;
    size_t n, cap;
    uint32_t shards;
    float *row, *slab; /* a row; K of a head */
    uint8_t *out;
    int64_t done, of;
    qsi_origin origin; /* of the files of weights */
    int64_t found;     /* tensors that an earlier run wrote */
    qsi_resume had;    /* why something it wrote was given up */
} exporting;

/* ---- the list ---- */

static qsi_type type_of(const exporting *x, const qsi_tensor_spec *spec, qsi_type have) {
    bool plain = have == QSI_F32 || have == QSI_F16 || have == QSI_BF16;
    if (spec->n_dims == 1 || spec->role == QSI_ROLE_ROUTER) return QSI_F32;
    if (x->o->type != QSI_TYPE_NONE) return x->o->type;
    return plain ? have : QSI_BF16;
}

static qs_status add(exporting *x, const entry *e, qs_err *err) {
    qs_status st = QS_OK;
    void *p = x->e;
    st = qsi_grow(&p, &x->cap, x->n + 1, sizeof *x->e);
    if (st != QS_OK) QS_FAIL(err, st, "out of memory writing '%s'", x->folder);
    x->e = p;
    x->e[x->n] = *e;
    entry *last = &x->e[x->n++];
    int64_t rows = e->rows > 0 ? e->rows : 1;
    last->bytes = (uint64_t)(rows * e->cols) * (uint64_t)qsi_type_get((int32_t)e->type)->bytes;
    x->of += (int64_t)last->bytes;
done:
    return st;
}

static bool is_rotated(const exporting *x, const char *name) {
    if (x->config.kv_rank > 0 || qsi_config_halves(&x->config)) return false;
    return strstr(name, ".attn_q.weight") != NULL || strstr(name, ".attn_k.weight") != NULL;
}

/* attn_k_b [dn, r, H] and attn_v_b [r, dv, H] as kv_b_proj [H (dn + dv), r]. */
static qs_status add_kv_b(exporting *x, const qsi_tensor_spec *spec, const qsi_gguf_tensor *k,
                          qs_err *err) {
    qs_status st = QS_OK;
    const qsi_config *c = &x->config;
    char name[64];
    entry e = {.t = k, .cols = c->kv_rank,
               .rows = (int64_t)c->n_head * (c->head_dim - c->d_rope + c->d_value)};
    snprintf(name, sizeof name, "blk.%" PRId32 ".attn_v_b.weight", spec->layer);
    e.v = qsi_gguf_tensor_find(x->g, name);
    if (e.v == NULL) QS_FAIL(err, QS_E_FORMAT, "tensor %s is missing", name);
    e.type = type_of(x, spec, k->type == e.v->type ? k->type : QSI_BF16);
    snprintf(e.name, sizeof e.name, "model.layers.%" PRId32 ".self_attn.kv_b_proj.weight",
             spec->layer);
    QS_TRY(add(x, &e, err));
done:
    return st;
}

static qs_status add_tensor(exporting *x, const qsi_tensor_spec *spec, qs_err *err) {
    qs_status st = QS_OK;
    const qsi_gguf_tensor *t = qsi_gguf_tensor_find(x->g, spec->name);
    if (spec->role == QSI_ROLE_FREQS || strstr(spec->name, ".attn_v_b.") != NULL) return QS_OK;
    if (t == NULL && strcmp(spec->name, "output.weight") == 0) {
        x->tied = true;
        return QS_OK;
    }
    if (t == NULL) QS_FAIL(err, QS_E_FORMAT, "tensor %s is missing", spec->name);
    for (int d = 0; d < 3; d++)
        if (t->ne[d] != (d < spec->n_dims ? spec->ne[d] : 1) || t->ne[3] != 1)
            QS_FAIL(err, QS_E_FORMAT, "tensor %s does not have the shape that the keys say", t->name);
    if (qsi_type_get((int32_t)t->type)->decode == NULL)
        QS_FAIL(err, QS_E_UNSUPPORTED, "tensor %s has type %s, which cannot be read here", t->name,
                qsi_type_get((int32_t)t->type)->name);
    if (strstr(spec->name, ".attn_k_b.") != NULL) return add_kv_b(x, spec, t, err);
    int64_t experts = spec->n_dims == 3 ? spec->ne[2] : 1;
    for (int64_t i = 0; i < experts; i++) {
        entry e = {.t = t, .cols = t->ne[0], .rows = spec->n_dims > 1 ? t->ne[1] : 0,
                   .row0 = i * t->ne[1], .turned = is_rotated(x, spec->name),
                   .type = type_of(x, spec, t->type)};
        qsi_hf_name(spec, (int)i, e.name, sizeof e.name);
        if (e.name[0] == '\0')
            QS_FAIL(err, QS_E_UNSUPPORTED, "tensor %s has no name in a folder", t->name);
        QS_TRY(add(x, &e, err));
    }
done:
    return st;
}

static void deal_out(exporting *x) {
    uint64_t most = x->o->shard_bytes > 0 ? x->o->shard_bytes : SHARD_BYTES, have = 0;
    for (size_t i = 0; i < x->n; i++) {
        if (have > 0 && have + x->e[i].bytes > most) {
            x->shards++;
            have = 0;
        }
        x->e[i].shard = x->shards;
        have += x->e[i].bytes;
    }
    x->shards++;
}

/* ---- rows ---- */

static qs_status put_row(exporting *x, qsi_writer *w, const entry *e, const float *row, qs_err *err) {
    const qsi_type_info *to = qsi_type_get((int32_t)e->type);
    for (int64_t i = 0; e->type == QSI_F16 && i < e->cols; i++) /* from 65520 on halves are infinite */
        if (isfinite(row[i]) && fabsf(row[i]) >= 65520)
            return qsi_err_set(err, QS_E_RANGE, "tensor %s has values too large for F16: BF16 and F32 "
                               "hold them", e->name);
    to->encode(row, x->out, e->cols);
    return qsi_writer_write(w, x->out, (size_t)e->cols * (size_t)to->bytes, err);
}

static void read_row(const qsi_gguf_tensor *t, int64_t r, float *out) {
    const qsi_type_info *ti = qsi_type_get((int32_t)t->type);
    ti->decode(t->data + (size_t)r * (size_t)(t->ne[0] / ti->block) * (size_t)ti->bytes, out,
               t->ne[0]);
}

static qs_status put_kv_b(exporting *x, qsi_writer *w, const entry *e, qs_err *err) {
    qs_status st = QS_OK;
    int64_t dn = e->t->ne[0], r = e->t->ne[1], dv = e->v->ne[1];
    for (int64_t h = 0; h < x->config.n_head; h++) {
        for (int64_t j = 0; j < r; j++) read_row(e->t, h * r + j, x->slab + j * dn);
        for (int64_t i = 0; i < dn; i++) {
            for (int64_t j = 0; j < r; j++) x->row[j] = x->slab[j * dn + i];
            QS_TRY(put_row(x, w, e, x->row, err));
        }
        for (int64_t i = 0; i < dv; i++) {
            read_row(e->v, h * dv + i, x->row);
            QS_TRY(put_row(x, w, e, x->row, err));
        }
    }
done:
    return st;
}

/* Row r of a matrix whose heads hold halves, in the file with interleaved pairs. */
static int64_t interleaved_row(int64_t r, int64_t head_dim) {
    int64_t head = r / head_dim, k = r % head_dim, half = head_dim / 2;
    return head * head_dim + (k < half ? 2 * k : 2 * (k - half) + 1);
}

static qs_status put_entry(exporting *x, qsi_writer *w, const entry *e, qs_err *err) {
    qs_status st = QS_OK;
    int64_t rows = e->rows > 0 ? e->rows : 1;
    if (e->v != NULL) QS_TRY(put_kv_b(x, w, e, err));
    for (int64_t r = 0; r < rows && e->v == NULL; r++) {
        int64_t from = e->turned ? interleaved_row(r, x->config.head_dim) : r;
        read_row(e->t, e->row0 + from, x->row);
        QS_TRY(put_row(x, w, e, x->row, err));
    }
    qsi_gguf_drop(x->g, e->t);
    x->done += (int64_t)e->bytes;
    if (x->o->progress != NULL && x->o->progress(x->o->user, x->done, x->of) != 0)
        QS_FAIL(err, QS_E_CANCELLED, "cancelled");
done:
    return st;
}

/* ---- files ---- */

static void shard_name(const exporting *x, uint32_t i, char out[64]) {
    if (x->shards == 1) snprintf(out, 64, "model.safetensors");
    else snprintf(out, 64, "model-%05u-of-%05u.safetensors", i + 1, x->shards);
}

static const char *dtype_of(qsi_type t) {
    return t == QSI_F32 ? "F32" : t == QSI_F16 ? "F16" : "BF16";
}

static qs_status header_of(const exporting *x, uint32_t shard, qsi_str *out) {
    qs_status st = QS_OK;
    uint64_t at = 0;
    QS_TRY(qsi_str_puts(out, "{\"__metadata__\":{\"format\":\"pt\"}"));
    for (size_t i = 0; i < x->n; i++) {
        const entry *e = &x->e[i];
        if (e->shard != shard) continue;
        QS_TRY(qsi_str_printf(out, ",\"%s\":{\"dtype\":\"%s\",\"shape\":[", e->name,
                              dtype_of(e->type)));
        if (e->rows > 0) QS_TRY(qsi_str_printf(out, "%" PRId64 ",", e->rows));
        QS_TRY(qsi_str_printf(out, "%" PRId64 "],\"data_offsets\":[%" PRIu64 ",%" PRIu64 "]}",
                              e->cols, at, at + e->bytes));
        at += e->bytes;
    }
    QS_TRY(qsi_str_puts(out, "}"));
    while (out->len % 8 != 0) QS_TRY(qsi_str_puts(out, " "));
done:
    return st;
}

static qs_status put_header(qsi_writer *w, const qsi_str *header, qs_err *err) {
    qs_status st = QS_OK;
    uint8_t size[8];
    for (int i = 0; i < 8; i++) size[i] = (uint8_t)((uint64_t)header->len >> 8 * i);
    QS_TRY(qsi_writer_write(w, size, sizeof size, err));
    QS_TRY(qsi_writer_write(w, header->data, header->len, err));
    QS_TRY(qsi_writer_mark(w, err));
done:
    return st;
}

/* The entries of a file from the one on that stands behind `marks` marks. */
static qs_status put_entries(exporting *x, qsi_writer *w, uint32_t shard, size_t marks, qs_err *err) {
    qs_status st = QS_OK;
    size_t mark = 1; /* the header's */
    for (size_t i = 0; i < x->n; i++) {
        if (x->e[i].shard != shard) continue;
        if (mark++ < marks) {
            x->done += (int64_t)x->e[i].bytes;
            x->found++;
            continue;
        }
        QS_TRY(put_entry(x, w, &x->e[i], err));
        QS_TRY(qsi_writer_mark(w, err));
    }
done:
    return st;
}

static size_t n_marks(const exporting *x, uint32_t shard) {
    size_t n = 1;
    for (size_t i = 0; i < x->n; i++) n += x->e[i].shard == shard;
    return n;
}

static qs_status write_shard(exporting *x, const char *path, uint32_t shard, qs_err *err) {
    qs_status st = QS_OK;
    qsi_str header = {0};
    qsi_writer *w = NULL;
    qsi_resume r = {0};
    qsi_origin o = x->origin;
    bool whole = false;
    if (header_of(x, shard, &header) != QS_OK)
        QS_FAIL(err, QS_E_NOMEM, "out of memory writing '%s'", x->folder);
    o.options = qsi_hash_seed(header.data, header.len, o.options);
    QS_TRY(qsi_writer_whole(path, o, n_marks(x, shard), &whole, err));
    if (whole) {
        QS_TRY(put_entries(x, NULL, shard, n_marks(x, shard), err));
        goto done;
    }
    QS_TRY(qsi_writer_open_part(&w, path, o, &r, err));
    qsi_writer_keep_journal(w);
    x->had.other_source |= r.other_source;
    x->had.other_options |= r.other_options;
    if (r.marks == 0) QS_TRY(put_header(w, &header, err));
    QS_TRY(put_entries(x, w, shard, r.marks, err));
    QS_TRY(qsi_gguf_intact(x->g, err));
    QS_TRY(qsi_writer_commit(&w, err));
done:
    bool lost = qsi_gguf_intact(x->g, NULL) != QS_OK; /* bytes of a file that changed: no good */
    if (!lost && (st == QS_E_CANCELLED || st == QS_E_IO || st == QS_E_NOMEM)) qsi_writer_leave(&w);
    else qsi_writer_abort(&w);
    qsi_str_release(&header);
    return st;
}

static qs_status shard_path(const exporting *x, uint32_t shard, qsi_str *path, qs_err *err) {
    char name[64];
    shard_name(x, shard, name);
    qsi_str_clear(path);
    if (qsi_path_join(path, x->folder, name) != QS_OK)
        return qsi_err_set(err, QS_E_NOMEM, "out of memory writing '%s'", x->folder);
    return QS_OK;
}

/* All files of weights; their journals go when the folder is complete. */
static qs_status write_shards(exporting *x, qs_err *err) {
    qs_status st = QS_OK;
    qsi_str path = {0};
    for (uint32_t i = 0; i < x->shards; i++) {
        QS_TRY(shard_path(x, i, &path, err));
        QS_TRY(write_shard(x, path.data, i, err));
    }
    if (x->had.other_source || x->had.other_options)
        qsi_log(QSI_LOG_NOTE, "'%s' was begun %s: it was written anew", x->folder,
                x->had.other_source ? "from another source, or the source has changed"
                                    : "with other options");
    if (x->found > 0)
        qsi_log(QSI_LOG_NOTE, "'%s' went on where it was stopped: %" PRId64 " of %zu tensors were there",
                x->folder, x->found, x->n);
done:
    qsi_str_release(&path);
    return st;
}

static void forget_journals(const exporting *x) {
    qsi_str path = {0};
    for (uint32_t i = 0; i < x->shards; i++)
        if (shard_path(x, i, &path, NULL) == QS_OK) qsi_writer_forget(path.data);
    qsi_str_release(&path);
}

static qs_status write_text(const exporting *x, const char *name, const qsi_str *text, qs_err *err) {
    qs_status st = QS_OK;
    qsi_str path = {0};
    qsi_writer *w = NULL;
    if (qsi_path_join(&path, x->folder, name) != QS_OK)
        QS_FAIL(err, QS_E_NOMEM, "out of memory writing '%s'", x->folder);
    QS_TRY(qsi_writer_open(&w, path.data, err));
    QS_TRY(qsi_writer_write(w, text->data, text->len, err));
    QS_TRY(qsi_writer_commit(&w, err));
done:
    qsi_writer_abort(&w);
    qsi_str_release(&path);
    return st;
}

static qs_status write_index(const exporting *x, qs_err *err) {
    qs_status st = QS_OK;
    qsi_str s = {0};
    if (x->shards == 1) return QS_OK;
    QS_TRY(qsi_str_printf(&s, "{\"metadata\":{\"total_size\":%" PRId64 "},\n\"weight_map\":{", x->of));
    for (size_t i = 0; i < x->n; i++) {
        char name[64];
        shard_name(x, x->e[i].shard, name);
        QS_TRY(qsi_str_printf(&s, "%s\n\"%s\":\"%s\"", i > 0 ? "," : "", x->e[i].name, name));
    }
    QS_TRY(qsi_str_puts(&s, "}}\n"));
    QS_TRY(write_text(x, "model.safetensors.index.json", &s, err));
done:
    qsi_str_release(&s);
    return st;
}

static qs_status write_vocab(const exporting *x, qs_err *err) {
    qs_status st = QS_OK;
    qsi_str json = {0}, config = {0};
    qs_err why = {0};
    if (x->vocab == NULL) return QS_OK;
    if (qsi_vocab_save_json(x->vocab, &json, &config, &why) != QS_OK) {
        qsi_log(QSI_LOG_NOTE, "'%s' gets no tokenizer.json: %s", x->folder, why.text);
        goto done;
    }
    QS_TRY(write_text(x, "tokenizer.json", &json, err));
    QS_TRY(write_text(x, "tokenizer_config.json", &config, err));
done:
    qsi_str_release(&json);
    qsi_str_release(&config);
    return st;
}

/* Llama 3.1's rule with its published numbers, where it gives the file's divisors. */
static void guess_freqs(exporting *x) {
    qsi_config c = x->config;
    const qsi_gguf_tensor *t = qsi_gguf_tensor_find(x->g, "rope_freqs.weight");
    if (!c.rope_freqs || c.freqs_factor != 0 || t == NULL || t->type != QSI_F32) return;
    c.freqs_factor = 8;
    c.freqs_low = 1;
    c.freqs_high = 4;
    c.freqs_orig_ctx = 8192;
    qsi_config_rope_freqs(&c, x->row);
    for (int64_t i = 0; i < t->ne[0]; i++) {
        float v;
        memcpy(&v, t->data + (size_t)i * sizeof v, sizeof v);
        if (!(v - x->row[i] < 1e-4f * v && x->row[i] - v < 1e-4f * v)) return;
    }
    x->config = c;
}

static qs_status plan(exporting *x, qs_err *err) {
    qs_status st = QS_OK;
    int64_t most = 1, slab = 1;
    QS_TRY(qsi_config_from_gguf(&x->config, x->g, err));
    for (size_t i = 0; i < qsi_config_n_tensors(&x->config); i++) {
        qsi_tensor_spec spec;
        qsi_config_tensor(&x->config, i, &spec);
        QS_TRY(add_tensor(x, &spec, err));
    }
    deal_out(x);
    for (size_t i = 0; i < x->n; i++) {
        const entry *e = &x->e[i];
        most = e->cols > most ? e->cols : most;
        if (e->v != NULL && e->t->ne[0] * e->t->ne[1] > slab) slab = e->t->ne[0] * e->t->ne[1];
        if (e->rows > 0 && e->type != QSI_F32) x->matrices = e->type;
    }
    if (most < x->config.head_dim) most = x->config.head_dim;
    x->row = qsi_alloc((size_t)most, sizeof *x->row);
    x->slab = qsi_alloc((size_t)slab, sizeof *x->slab);
    x->out = qsi_alloc((size_t)most, sizeof *x->row);
    if (x->row == NULL || x->slab == NULL || x->out == NULL)
        QS_FAIL(err, QS_E_NOMEM, "out of memory writing '%s'", x->folder);
    guess_freqs(x);
done:
    return st;
}

/* Bytes that an earlier run left of this folder, or of another: nothing that must still find room. */
static uint64_t written(const exporting *x) {
    uint64_t n = 0;
    qsi_str path = {0}, part = {0};
    for (uint32_t i = 0; i < x->shards; i++) {
        qsi_str_clear(&part);
        if (shard_path(x, i, &path, NULL) != QS_OK ||
            qsi_str_printf(&part, "%s.part", path.data) != QS_OK)
            break;
        n += qsi_file_bytes(part.data);
        if (qsi_str_puts(&part, ".journal") == QS_OK && qsi_path_exists(part.data))
            n += qsi_file_bytes(path.data);
    }
    qsi_str_release(&path);
    qsi_str_release(&part);
    return n;
}

/* The small files, config.json last. */
static qs_status write_texts(exporting *x, qs_err *err) {
    qs_status st = QS_OK;
    qsi_str config = {0}, generation = {0};
    st = qsi_hf_put_config(&x->config, x->g, x->vocab, x->tied, x->matrices, &config, err);
    if (st != QS_OK) goto done;
    QS_TRY(write_index(x, err));
    QS_TRY(write_vocab(x, err));
    QS_TRY(qsi_hf_put_generation(x->g, x->vocab, &generation));
    QS_TRY(qsi_gguf_intact(x->g, err));
    QS_TRY(write_text(x, "generation_config.json", &generation, err));
    QS_TRY(write_text(x, "config.json", &config, err));
done:
    if (st == QS_E_NOMEM) qsi_err_set(err, st, "out of memory writing '%s'", x->folder);
    qsi_str_release(&config);
    qsi_str_release(&generation);
    return st;
}

qs_status qsi_hf_export(const qsi_gguf *g, const char *folder, const qsi_hf_export_opts *o,
                        qs_err *err) {
    qs_status st = QS_OK;
    exporting x = {.g = g, .o = o, .folder = folder, .matrices = QSI_F32};
    qsi_str config = {0};
    char need[QSI_SIZE_TEXT], have[QSI_SIZE_TEXT];
    QS_TRY(plan(&x, err));
    if (qsi_gguf_find(g, "tokenizer.ggml.tokens") != NULL)
        QS_TRY(qsi_vocab_load_gguf(&x.vocab, g, err));
    /* what cannot be said is known before gigabytes are written */
    QS_TRY(qsi_hf_put_config(&x.config, g, x.vocab, x.tied, x.matrices, &config, err));
    QS_TRY(qsi_make_dirs(folder, err));
    uint64_t room = qsi_disk_free(folder) + written(&x);
    if (room < (uint64_t)x.of)
        QS_FAIL(err, QS_E_IO, "cannot write '%s': it needs %s, the disk has %s free", folder,
                qsi_size_text(need, (uint64_t)x.of), qsi_size_text(have, room));
    x.origin.source = qsi_gguf_stamp(g);
    QS_TRY(write_shards(&x, err));
    QS_TRY(write_texts(&x, err));
    forget_journals(&x);
done:
    qsi_vocab_free(x.vocab);
    qsi_str_release(&config);
    qsi_free(x.e);
    qsi_free(x.row);
    qsi_free(x.slab);
    qsi_free(x.out);
    return st;
}
