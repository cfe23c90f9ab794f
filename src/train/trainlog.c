/* DIR/log.csv; see trainlog.h. */
#include "train/trainlog.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "sys/file.h"

#define HEADER "step,tokens,loss,val_loss,lr,grad_norm,tok_s\n"
#define MAX_BYTES ((size_t)1 << 31)

bool qsi_trainlog_parse(const char *line, size_t n, qsi_log_row *r) {
    char buf[256];
    double v[7];
    if (n == 0 || n >= sizeof(buf)) return false;
    memcpy(buf, line, n);
    buf[n] = '\0';
    char *p = buf;
    for (int i = 0; i < 7; i++) {
        char *end = p;
        if (i == 3 && *p == ',') v[i] = NAN;
        else v[i] = strtod(p, &end);
        if ((end == p && i != 3) || *end != (i < 6 ? ',' : '\0')) return false;
        p = end + 1;
    }
    if (!(v[0] >= 1 && v[0] < 1e15) || v[0] != floor(v[0]) || !(v[1] >= 0 && v[1] < 1e18))
        return false;
    *r = (qsi_log_row){(int64_t)v[0], (int64_t)v[1], v[2], v[3], v[4], v[5], v[6]};
    return true;
}

static qs_status format_row(const qsi_log_row *r, qsi_str *out) {
    qs_status st = QS_OK;
    QS_TRY(qsi_str_printf(out, "%" PRId64 ",%" PRId64 ",%.6f,", r->step, r->tokens, r->loss));
    if (!isnan(r->val_loss)) QS_TRY(qsi_str_printf(out, "%.6f", r->val_loss));
    QS_TRY(qsi_str_printf(out, ",%.8g,%.6g,%.1f\n", r->lr, r->grad_norm, r->tok_s));
done:
    return st;
}

static qs_status remember(qsi_trainlog *l, const qsi_log_row *r) {
    if (qsi_grow((void **)&l->rows, &l->cap, l->n + 1, sizeof(*l->rows)) != QS_OK)
        return QS_E_NOMEM;
    l->rows[l->n++] = *r;
    return QS_OK;
}

/* Reads the rows up to `step` of an old log; *keep is what the file should hold. */
static qs_status read_old(qsi_trainlog *l, const char *path, int64_t step, qsi_str *keep,
                          bool *same, qs_err *err) {
    qs_status st = QS_OK;
    qsi_str text = {0};
    QS_TRY(qsi_str_puts(keep, HEADER));
    *same = false;
    if (!qsi_path_exists(path)) goto done;
    QS_TRY(qsi_file_read(path, MAX_BYTES, &text, err));
    for (size_t at = 0; at < text.len;) {
        const char *p = text.data + at, *nl = memchr(p, '\n', text.len - at);
        qsi_log_row r;
        if (nl == NULL) break;
        size_t n = (size_t)(nl - p);
        at += n + 1;
        if (!qsi_trainlog_parse(p, n, &r) || r.step > step) continue;
        if (l->n > 0 && r.step <= l->rows[l->n - 1].step) continue;
        QS_TRY(remember(l, &r));
        QS_TRY(qsi_str_append(keep, p, n + 1));
    }
    *same = text.len == keep->len && memcmp(text.data, keep->data, keep->len) == 0;
done:
    qsi_str_release(&text);
    return st;
}

qs_status qsi_trainlog_open(qsi_trainlog *l, const char *path, int64_t step, qs_err *err) {
    qs_status st = QS_OK;
    qsi_writer *w = NULL;
    qsi_str keep = {0};
    bool same = false;
    *l = (qsi_trainlog){.file.fd = -1};
    QS_TRY(read_old(l, path, step, &keep, &same, err));
    if (!same) {
        QS_TRY(qsi_writer_open(&w, path, err));
        QS_TRY(qsi_writer_write(w, keep.data, keep.len, err));
        QS_TRY(qsi_writer_commit(&w, err));
    }
    QS_TRY(qsi_append_open(&l->file, path, err));
done:
    qsi_writer_abort(&w);
    qsi_str_release(&keep);
    if (st != QS_OK) qsi_trainlog_close(l);
    return st;
}

void qsi_trainlog_close(qsi_trainlog *l) {
    qsi_append_close(&l->file);
    qsi_free(l->rows);
    *l = (qsi_trainlog){.file.fd = -1};
}

qs_status qsi_trainlog_add(qsi_trainlog *l, const qsi_log_row *r, qs_err *err) {
    qs_status st = QS_OK;
    qsi_str s = {0};
    if (format_row(r, &s) != QS_OK || remember(l, r) != QS_OK)
        QS_FAIL(err, QS_E_NOMEM, "out of memory for the log");
    QS_TRY(qsi_append_write(&l->file, s.data, s.len, err));
done:
    qsi_str_release(&s);
    return st;
}
