/* Learning a vocabulary from files: walks paths, reads text, writes the GGUF. */
#include <jansson.h>
#include <string.h>

#include "base/mem.h"
#include "base/str.h"
#include "fmt/gguf.h"
#include "qiusuo/tokenizer.h"
#include "sys/file.h"
#include "sys/mapguard.h"
#include "tok/tok.h"

#define MAX_DEPTH 32 /* of folders in folders */

typedef struct reader {
    const qs_tokenizer_training *s;
    qsi_bpe_trainer *trainer;
    int64_t n_bytes, n_files;
} reader;

/* In a folder only these are taken; a file that is named is always read. */
static bool is_text_name(const char *path) {
    static const char *const ends[] = {".txt", ".text", ".md", ".jsonl"};
    for (size_t i = 0; i < QSI_COUNT(ends); i++)
        if (qsi_ends_with(path, ends[i])) return true;
    return false;
}

/* Strings of the fields "text" and "content", however deep. */
static qs_status add_json(reader *r, const json_t *v, const char *field, qs_err *err) {
    qs_status st = QS_OK;
    const char *key;
    json_t *child;
    size_t i;
    if (json_is_string(v) && (strcmp(field, "text") == 0 || strcmp(field, "content") == 0))
        return qsi_bpe_trainer_add(r->trainer, json_string_value(v), json_string_length(v), err);
    if (json_is_array(v)) {
        json_array_foreach(v, i, child) QS_TRY(add_json(r, child, field, err));
    } else if (json_is_object(v)) {
        json_object_foreach((json_t *)(uintptr_t)v, key, child)
            QS_TRY(add_json(r, child, key, err));
    }
done:
    return st;
}

static qs_status add_jsonl(reader *r, const char *text, size_t n, qs_err *err) {
    qs_status st = QS_OK;
    size_t line = 0;
    for (size_t at = 0; at < n;) {
        const char *nl = memchr(text + at, '\n', n - at);
        size_t len = nl == NULL ? n - at : (size_t)(nl - text) - at;
        json_error_t je;
        json_t *v;
        line++;
        if (len == 0) {
            at++;
            continue;
        }
        v = json_loadb(text + at, len, JSON_REJECT_DUPLICATES, &je);
        if (v == NULL)
            QS_FAIL(err, QS_E_FORMAT, "line %zu is not JSON: %s", line, je.text);
        st = add_json(r, v, "", err);
        json_decref(v);
        if (st != QS_OK) goto done;
        at += len + (nl != NULL);
    }
done:
    return st;
}

static qs_status add_file(reader *r, const char *path, qs_err *err) {
    qs_status st = QS_OK;
    qsi_map m = {0};
    const char *text;
    QS_TRY(qsi_map_open(&m, path, err));
    text = m.data == NULL ? "" : (const char *)m.data;
    st = qsi_ends_with(path, ".jsonl") ? add_jsonl(r, text, m.size, err)
                                   : qsi_bpe_trainer_add(r->trainer, text, m.size, err);
    qs_status whole = qsi_map_intact(m.data, err); /* says more than what zeros may have led to */
    if (whole != QS_OK) st = whole;
    if (st != QS_OK) {
        qsi_err_prefix(err, "cannot learn from '%s'", path);
        goto done;
    }
    r->n_bytes += (int64_t)m.size;
    r->n_files++;
    if (r->s->progress != NULL && r->s->progress(r->s->user, 0, r->n_bytes, 0) != 0)
        QS_FAIL(err, QS_E_CANCELLED, "stopped while reading text");
done:
    qsi_map_close(&m);
    return st;
}

/* Files of a folder in the order of their names. */
static qs_status add_folder(reader *r, const char *path, int depth, qs_err *err) {
    qs_status st = QS_OK;
    char **names = NULL;
    size_t n = 0;
    qsi_str child = {0};
    if (depth > MAX_DEPTH)
        QS_FAIL(err, QS_E_LIMIT, "'%s': folders more than %d deep", path, MAX_DEPTH);
    QS_TRY(qsi_dir_list(path, &names, &n, err));
    for (size_t i = 0; i < n; i++) {
        qsi_str_clear(&child);
        if (qsi_path_join(&child, path, names[i]) != QS_OK)
            QS_FAIL(err, QS_E_NOMEM, "out of memory");
        if (qsi_path_is_loop(child.data)) continue;
        if (qsi_path_is_dir(child.data)) QS_TRY(add_folder(r, child.data, depth + 1, err));
        else if (is_text_name(child.data)) QS_TRY(add_file(r, child.data, err));
    }
done:
    for (size_t i = 0; i < n; i++) qsi_free(names[i]);
    qsi_free(names);
    qsi_str_release(&child);
    return st;
}

static qs_status write_vocab(const qsi_vocab *v, const char *path, qs_err *err) {
    qs_status st = QS_OK;
    qsi_gguf_writer *w = NULL;
    QS_TRY(qsi_gguf_writer_open(&w, path, err));
    QS_TRY(qsi_gguf_put_str(w, "general.architecture", "deepseek", 8));
    QS_TRY(qsi_gguf_put_str(w, "general.type", "vocab", 5));
    QS_TRY(qsi_gguf_put_u32(w, "deepseek.vocab_size", (uint32_t)qsi_vocab_size(v)));
    QS_TRY(qsi_vocab_save_gguf(v, w, err));
    QS_TRY(qsi_gguf_finish(&w, err));
done:
    qsi_gguf_writer_abort(&w);
    return st;
}

static int merge_progress(void *user, int64_t done, int64_t of) {
    const qs_tokenizer_training *s = user;
    return s->progress == NULL ? 0 : s->progress(s->user, 1, done, of);
}

qs_status qs_tokenizer_train(const qs_tokenizer_training *s, qs_tokenizer_trained *result,
                             qs_err *err) {
    qs_status st = QS_OK;
    reader r = {.s = s};
    qs_tokenizer_training copy = *s;
    qsi_vocab *v = NULL;
    QS_TRY(qsi_bpe_trainer_create(&r.trainer, s->pre == NULL ? "deepseek-llm" : s->pre, err));
    for (size_t i = 0; i < s->n_paths; i++) {
        const char *path = s->paths[i];
        QS_TRY(qsi_path_apart(path, s->out, err));
        QS_TRY(qsi_path_is_dir(path) ? add_folder(&r, path, 0, err) : add_file(&r, path, err));
    }
    if (r.n_bytes == 0)
        QS_FAIL(err, QS_E_ARG,
                "there is no text to learn from (folders are searched for .txt, .text, .md and "
                ".jsonl files)");
    QS_TRY(qsi_bpe_trainer_finish(r.trainer, s->n_vocab, merge_progress, &copy, &v, err));
    QS_TRY(write_vocab(v, s->out, err));
    if (result != NULL)
        *result = (qs_tokenizer_trained){qsi_vocab_size(v), r.n_bytes, r.n_files};
done:
    qsi_bpe_trainer_free(r.trainer);
    qsi_vocab_free(v);
    return st;
}
