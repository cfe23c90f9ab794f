/* A key of our own and not "_name_or_path": that one holds, in published folders, where the weights
 * were begun from: a path of somebody's disk, or the name of another model. */
#include "files/hf_about.h"

#include <string.h>

#include "base/log.h"
#include "fmt/names.h"

enum { NAME_MAX_BYTES = 1024, TASKS_MAX = 64 };

static bool is_text(const char *p, size_t n) { return n <= NAME_MAX_BYTES && qsi_name_ok(p, n); }

/* The tasks of g; NULL when it has none that can be written down. */
static const qsi_gguf_kv *find_tasks(const qsi_gguf *g) {
    const qsi_gguf_kv *kv = qsi_gguf_find(g, "qiusuo.tasks");
    if (kv == NULL) return NULL;
    bool ok = kv->type == QSI_GV_ARR && kv->elem == QSI_GV_STR && kv->count <= TASKS_MAX;
    for (uint64_t i = 0; ok && i < kv->count; i++) {
        qsi_slice s = qsi_gguf_arr_str(kv, i);
        ok = is_text(s.p, s.n);
    }
    if (ok) return kv;
    qsi_log(QSI_LOG_NOTE, "config.json does not get the key qiusuo.tasks: it is no list of at most %d "
            "words", TASKS_MAX);
    return NULL;
}

static qs_status put_tasks(const qsi_gguf_kv *kv, qsi_str *out) {
    qs_status st = QS_OK;
    QS_TRY(qsi_str_puts(out, "\"tasks\":["));
    for (uint64_t i = 0; i < kv->count; i++) {
        qsi_slice s = qsi_gguf_arr_str(kv, i);
        if (i > 0) QS_TRY(qsi_str_putc(out, ','));
        QS_TRY(qsi_str_json(out, s.p, s.n));
    }
    QS_TRY(qsi_str_putc(out, ']'));
done:
    return st;
}

qs_status qsi_hf_put_about(const qsi_gguf *g, qsi_str *out) {
    qs_status st = QS_OK;
    qsi_slice name = {NULL, 0};
    const qsi_gguf_kv *tasks = find_tasks(g);
    if (qsi_gguf_str(g, "general.name", &name, NULL) != QS_OK) name.n = 0;
    if (name.n > 0 && !is_text(name.p, name.n)) {
        qsi_log(QSI_LOG_NOTE, "config.json does not get the model's name: it is longer than %d bytes or "
                "no printable text", NAME_MAX_BYTES);
        name.n = 0;
    }
    if (name.n == 0 && tasks == NULL) goto done;
    QS_TRY(qsi_str_puts(out, ",\n\"qiusuo\":{"));
    if (name.n > 0) {
        QS_TRY(qsi_str_puts(out, "\"name\":"));
        QS_TRY(qsi_str_json(out, name.p, name.n));
    }
    if (name.n > 0 && tasks != NULL) QS_TRY(qsi_str_putc(out, ','));
    if (tasks != NULL) QS_TRY(put_tasks(tasks, out));
    QS_TRY(qsi_str_putc(out, '}'));
done:
    return st;
}

static qs_status take_tasks(const qsi_json *list, qsi_gguf_writer *w) {
    qsi_slice words[TASKS_MAX];
    size_t n = qsi_json_size(list);
    if (qsi_json_kind_of(list) != QSI_JSON_ARRAY || n > TASKS_MAX) return QS_OK;
    for (size_t i = 0; i < n; i++) {
        const char *s = qsi_json_as_str(qsi_json_at(list, i));
        if (s == NULL || !is_text(s, strlen(s))) return QS_OK;
        words[i] = (qsi_slice){s, strlen(s)};
    }
    return qsi_gguf_put_arr_str(w, "qiusuo.tasks", words, n);
}

qs_status qsi_hf_take_about(const qsi_json *config, qsi_gguf_writer *w, bool *named) {
    qs_status st = QS_OK;
    const qsi_json *about = qsi_json_get(config, "qiusuo");
    const char *name = qsi_json_as_str(qsi_json_get(about, "name"));
    *named = name != NULL && is_text(name, strlen(name));
    if (*named) QS_TRY(qsi_gguf_put_str(w, "general.name", name, strlen(name)));
    QS_TRY(take_tasks(qsi_json_get(about, "tasks"), w));
done:
    return st;
}
