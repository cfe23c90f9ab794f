/* Journals of evaluations; see task_journal.h. */
#include "measure/task_journal.h"

#include <jansson.h>
#include <string.h>

#include "sys/file.h"

#define LINE_LIMITS ((qsi_json_limits){ QSI_JOURNAL_MAX_LINE, (size_t)1 << 20 })
#define SYNC_NS 3000000000 /* between two writes to the disk */

/* What differs between the heads, as words. */
static const char *difference(const char *key) {
    static const char *const words[][2] = {
        { "task", "of another task" },
        { "model", "of another model, or of this one opened in another way" },
        { "against", "against another model, or against none" },
        { "text", "of another text" },
        { "files", "of other files, or these (or --limit) have changed" },
        { "examples", "with other examples (--shots, --dev)" },
        { "version", "by another version of the program" },
    };
    for (size_t i = 0; i < QSI_COUNT(words); i++)
        if (strcmp(words[i][0], key) == 0) return words[i][1];
    return NULL;
}

static qs_status check_head(const char *path, const qsi_json *was, const char *head, qs_err *err) {
    qs_status st = QS_OK;
    qsi_json *now = NULL;
    const char *key = NULL;
    const qsi_json *value = NULL;
    QS_TRY(qsi_json_parse(&now, head, strlen(head), LINE_LIMITS, err));
    if (qsi_json_get(was, "qiusuo_eval") == NULL)
        QS_FAIL(err, QS_E_STATE, "'%s' is no journal of an evaluation", path);
    for (void *it = qsi_json_next(now, NULL, &key, &value); it != NULL;
         it = qsi_json_next(now, it, &key, &value)) {
        if (json_equal(value, qsi_json_get(was, key))) continue;
        const char *words = difference(key);
        if (words)
            QS_FAIL(err, QS_E_STATE, "'%s' was written %s: it cannot be gone on with", path, words);
        QS_FAIL(err, QS_E_STATE, "'%s' was written with another setting of '%s': it cannot be gone "
                "on with", path, key);
    }
done:
    qsi_json_free(&now);
    return st;
}

/* Reads whole lines; *whole: their length together. A head that is no whole line: 0. */
static qs_status read_lines(const char *path, const qsi_str *text, const char *head,
                            qsi_journal_fn *fn, void *user, size_t *whole, qs_err *err) {
    qs_status st = QS_OK;
    qsi_json *j = NULL;
    size_t at = 0, line = 1;
    for (const char *end; at < text->len; at = (size_t)(end - text->data) + 1, line++) {
        end = memchr(text->data + at, '\n', text->len - at);
        if (end == NULL) break;
        st = qsi_json_parse(&j, text->data + at, (size_t)(end - text->data) - at, LINE_LIMITS, err);
        if (st == QS_OK && line == 1) QS_TRY(check_head(path, j, head, err));
        else if (st == QS_OK) st = fn(user, j, err);
        if (st != QS_OK) {
            qsi_err_prefix(err, "'%s' line %zu", path, line);
            goto done;
        }
        qsi_json_free(&j);
    }
    *whole = at;
done:
    qsi_json_free(&j);
    return st;
}

qs_status qsi_journal_open(qsi_journal *j, const char *path, const char *head, bool resume,
                           qsi_journal_fn *fn, void *user, qs_err *err) {
    qs_status st = QS_OK;
    qsi_str text = { 0 };
    size_t whole = 0;
    *j = (qsi_journal){ .file.fd = -1 };
    st = qsi_append_take(&j->file, path, err);
    if (st == QS_E_STATE)
        QS_FAIL(err, st, "another evaluation is writing '%s': wait until it has ended", path);
    QS_TRY(st);
    j->open = true;
    QS_TRY(qsi_file_read(path, QSI_JOURNAL_MAX_BYTES, &text, err));
    if (text.len > 0 && !resume)
        QS_FAIL(err, QS_E_STATE, "'%s' exists: --resume goes on with it; remove it to begin anew", path);
    QS_TRY(read_lines(path, &text, head, fn, user, &whole, err));
    if (whole < text.len) QS_TRY(qsi_append_cut(&j->file, whole, err));
    if (whole > 0) goto done;
    /* new, or killed before its head was written */
    qsi_str_clear(&text);
    if (qsi_str_puts(&text, head) != QS_OK) QS_FAIL(err, QS_E_NOMEM, "out of memory for a journal");
    QS_TRY(qsi_journal_add(j, &text, err));
    QS_TRY(qsi_journal_sync(j, err));
done:
    if (st != QS_OK) qsi_journal_close(j);
    qsi_str_release(&text);
    return st;
}

qs_status qsi_journal_add(qsi_journal *j, const qsi_str *line, qs_err *err) {
    qs_status st = QS_OK;
    qsi_str whole = { 0 };
    if (qsi_str_append(&whole, line->data, line->len) != QS_OK || qsi_str_putc(&whole, '\n') != QS_OK)
        QS_FAIL(err, QS_E_NOMEM, "out of memory for a journal");
    QS_TRY(qsi_append_write(&j->file, whole.data, whole.len, err));
    if (qsi_now_ns() - j->synced_ns >= SYNC_NS) QS_TRY(qsi_journal_sync(j, err));
done:
    qsi_str_release(&whole);
    return st;
}

qs_status qsi_journal_sync(qsi_journal *j, qs_err *err) {
    qs_status st = qsi_append_sync(&j->file, err);
    j->synced_ns = qsi_now_ns();
    return st;
}

void qsi_journal_close(qsi_journal *j) {
    if (j->open) qsi_append_close(&j->file);
    j->open = false;
}
