/* Source: the fields of transformers' GenerationConfig that this program's sampler has too. */
#include "files/hf_generation.h"

#include <math.h>

#include "base/log.h"
#include "fmt/json.h"
#include "sys/file.h"

enum { MAX_IDS = 64 };

static const struct row {
    const char *name, *key;
    double least, most;
} rows[] = {
    {"temperature", "general.sampling.temp", 0, 100},
    {"top_p", "general.sampling.top_p", 1e-6, 1},
    {"min_p", "general.sampling.min_p", 0, 1},
    {"repetition_penalty", "general.sampling.penalty_repeat", 1e-3, 1e3},
};

static void tell_ends(const qsi_json *ids, const qsi_vocab *v, const char *folder) {
    size_t n = qsi_json_kind_of(ids) == QSI_JSON_ARRAY ? qsi_json_size(ids) : 1;
    for (size_t i = 0; i < n && i < MAX_IDS; i++) {
        int64_t id = -1;
        const qsi_json *j = qsi_json_kind_of(ids) == QSI_JSON_ARRAY ? qsi_json_at(ids, i) : ids;
        if (!qsi_json_as_i64(j, &id)) continue;
        if (id < 0 || id >= qsi_vocab_size(v) || !qsi_vocab_is_end(v, (int32_t)id))
            qsi_log(QSI_LOG_NOTE, "'%s': generation_config.json ends answers at id %lld, the vocabulary "
                    "does not", folder, (long long)id);
    }
}

static qs_status put_values(const qsi_json *root, qsi_gguf_writer *w, const char *folder) {
    qs_status st = QS_OK;
    int64_t k = 0;
    for (size_t i = 0; i < QSI_COUNT(rows); i++) {
        double x = 0;
        const qsi_json *j = qsi_json_get(root, rows[i].name);
        if (qsi_json_kind_of(j) <= QSI_JSON_NULL) continue;
        if (qsi_json_as_f64(j, &x) && x >= rows[i].least && x <= rows[i].most)
            QS_TRY(qsi_gguf_put_f32(w, rows[i].key, (float)x));
        else
            qsi_log(QSI_LOG_WARN, "'%s': \"%s\" of generation_config.json is not used", folder,
                    rows[i].name);
    }
    if (qsi_json_as_i64(qsi_json_get(root, "top_k"), &k) && k >= 0 && k < 1000000)
        QS_TRY(qsi_gguf_put_i32(w, "general.sampling.top_k", (int32_t)k));
done:
    return st;
}

qs_status qsi_hf_put_sampling(const char *folder, const qsi_vocab *v, qsi_gguf_writer *w,
                              qs_err *err) {
    qs_status st = QS_OK;
    qsi_str path = {0}, text = {0};
    qsi_json *root = NULL;
    qs_err why = {0};
    bool sample = false;
    if (qsi_path_join(&path, folder, "generation_config.json") != QS_OK)
        QS_FAIL(err, QS_E_NOMEM, "out of memory reading '%s'", folder);
    if (!qsi_path_exists(path.data)) goto done;
    if (qsi_file_read(path.data, QSI_JSON_SMALL_BYTES, &text, &why) != QS_OK ||
        qsi_json_parse(&root, text.data, text.len, QSI_JSON_SMALL, &why) != QS_OK) {
        qsi_log(QSI_LOG_WARN, "'%s' is not used: %s", path.data, why.text);
        goto done;
    }
    const qsi_json *ends = qsi_json_get(root, "eos_token_id");
    if (qsi_json_kind_of(ends) > QSI_JSON_NULL) tell_ends(ends, v, folder);
    (void)qsi_json_as_bool(qsi_json_get(root, "do_sample"), &sample);
    if (sample && put_values(root, w, folder) != QS_OK)
        QS_FAIL(err, QS_E_NOMEM, "out of memory reading '%s'", folder);
done:
    qsi_json_free(&root);
    qsi_str_release(&path);
    qsi_str_release(&text);
    return st;
}
