/* DIR/log.csv and DIR/loss.svg.
 *
 * log.csv: the header step,tokens,loss,val_loss,lr,grad_norm,tok_s and one row per step, written
 * with one call and so whole as soon as the step is done; val_loss is empty where it was not
 * measured. Opening for a run that continues at step N drops the rows after N (they are about to
 * be made again) and whatever is no row. Thread: owner. */
#ifndef QSI_TRAIN_TRAINLOG_H
#define QSI_TRAIN_TRAINLOG_H

#include <stdint.h>

#include "base/status.h"
#include "base/str.h"
#include "sys/runfile.h"

typedef struct qsi_log_row {
    int64_t step, tokens;
    double loss, val_loss; /* val_loss NaN: not measured */
    double lr, grad_norm, tok_s;
} qsi_log_row;

typedef struct qsi_trainlog {
    qsi_append file;
    qsi_log_row *rows;
    size_t n, cap;
} qsi_trainlog;

qs_status qsi_trainlog_open(qsi_trainlog *l, const char *path, int64_t step, qs_err *err)
    QS_MUST_CHECK;
void qsi_trainlog_close(qsi_trainlog *l);
qs_status qsi_trainlog_add(qsi_trainlog *l, const qsi_log_row *r, qs_err *err) QS_MUST_CHECK;
/* Parses one line (without its end); false when it is no row. */
bool qsi_trainlog_parse(const char *line, size_t n, qsi_log_row *r);

/* The curve of n rows: training loss (each step faint, smoothed strong), validation loss, and the
 * learning rate below, as SVG text appended to out. title may be NULL. */
qs_status qsi_curve_svg(const qsi_log_row *rows, size_t n, const char *title, qsi_str *out)
    QS_MUST_CHECK;

#endif
