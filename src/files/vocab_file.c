/* tokenizer_config.json, when it lies beside a tokenizer.json, is read with it: it names BOS and
 * EOS and the chat template. Newer folders keep the template in chat_template.jinja, which counts. */
#include "files/vocab_file.h"

#include <string.h>

#include "sys/file.h"
#include "sys/mapguard.h"
#include "tok/chat.h"

#define JSON_MAX ((size_t)256 << 20)

static qs_status load_gguf(qsi_vocab **v, const char *path, qs_err *err) {
    qs_status st = QS_OK;
    qsi_gguf *g = NULL;
    QS_TRY(qsi_gguf_open(&g, path, err));
    st = qsi_vocab_load_gguf(v, g, err);
    if (st != QS_OK) qsi_err_prefix(err, "cannot use '%s'", path);
done:
    qsi_gguf_close(&g);
    return st;
}

/* chat_template.jinja of the folder in the place of v's template. One that is too long to be read for
 * what it is comes with a byte more than can be: no template is known then, and text can be continued
 * all the same. */
static qs_status take_template(qsi_vocab **v, const char *folder, qs_err *err) {
    qs_status st = QS_OK;
    qsi_str path = {0};
    qsi_map text = {.fd = -1};
    qsi_vocab *with = NULL;
    if (qsi_path_join(&path, folder, "chat_template.jinja") != QS_OK)
        QS_FAIL(err, QS_E_NOMEM, "out of memory reading '%s'", folder);
    if (!qsi_path_exists(path.data)) goto done;
    QS_TRY(qsi_map_open(&text, path.data, err));
    size_t n = text.size <= QSI_JINJA_MAX ? text.size : QSI_JINJA_MAX + 1;
    QS_TRY(qsi_vocab_with_template(&with, *v, (qsi_slice){(const char *)text.data, n}, err));
    QS_TRY(qsi_map_intact(text.data, err));
    qsi_vocab_free(*v);
    *v = with;
    with = NULL;
done:
    qsi_vocab_free(with);
    qsi_map_close(&text);
    qsi_str_release(&path);
    return st;
}

static qs_status load_json(qsi_vocab **v, const char *folder, const char *file, qs_err *err) {
    qs_status st = QS_OK;
    qsi_str beside = {0}, json = {0}, config = {0};
    qsi_vocab *made = NULL;
    QS_TRY(qsi_file_read(file, JSON_MAX, &json, err));
    if (qsi_path_join(&beside, folder, "tokenizer_config.json") != QS_OK) {
        QS_FAIL(err, QS_E_NOMEM, "out of memory reading '%s'", file);
    }
    if (qsi_path_exists(beside.data)) QS_TRY(qsi_file_read(beside.data, JSON_MAX, &config, err));
    st = qsi_vocab_load_json(&made, json.data, json.len, config.data, config.len, err);
    if (st == QS_OK) st = take_template(&made, folder, err);
    if (st != QS_OK) qsi_err_prefix(err, "cannot use '%s'", file);
    if (st == QS_OK) {
        *v = made;
        made = NULL;
    }
done:
    qsi_vocab_free(made);
    qsi_str_release(&beside);
    qsi_str_release(&json);
    qsi_str_release(&config);
    return st;
}

qs_status qsi_vocab_file_load(qsi_vocab **v, const char *path, qs_err *err) {
    qs_status st = QS_OK;
    qsi_str other = {0};
    size_t n = strlen(path);
    if (qsi_path_is_dir(path)) {
        if (qsi_path_join(&other, path, "tokenizer.json") != QS_OK) goto no_memory;
        QS_TRY(load_json(v, path, other.data, err));
    } else if (n > 5 && strcmp(path + n - 5, ".json") == 0) {
        const char *slash = strrchr(path, '/');
        size_t k = slash != NULL ? (size_t)(slash - path) + 1 : 1;
        if (qsi_str_append(&other, slash != NULL ? path : ".", k) != QS_OK) goto no_memory;
        QS_TRY(load_json(v, other.data, path, err));
    } else {
        QS_TRY(load_gguf(v, path, err));
    }
    goto done;
no_memory:
    st = qsi_err_set(err, QS_E_NOMEM, "out of memory reading '%s'", path);
done:
    qsi_str_release(&other);
    return st;
}
