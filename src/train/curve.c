/* DIR/loss.svg: the loss curve, drawn by hand (trainlog.h). At most MAX_POINTS points a line: runs of
 * any length give a file of about 100 kB. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "train/trainlog.h"

#define MAX_POINTS 900
#define W 860.0
#define H 520.0
#define LEFT 64.0
#define RIGHT 24.0
#define TOP 44.0
#define SPLIT 392.0  /* bottom of the loss panel */
#define LR_TOP 424.0
#define BOTTOM 476.0

typedef struct axis {
    double lo, hi, from, to; /* values lo..hi lie at from..to */
} axis;

static double at(const axis *a, double v) {
    return a->from + (v - a->lo) / (a->hi - a->lo) * (a->to - a->from);
}

/* A step of 1, 2 or 5 times a power of ten that cuts `range` into about n parts. */
static double nice_step(double range, int n) {
    double raw = range / n, p = pow(10, floor(log10(raw)));
    double f = raw / p;
    return p * (f < 1.5 ? 1 : f < 3.5 ? 2 : f < 7.5 ? 5 : 10);
}

static qs_status text(qsi_str *o, double x, double y, const char *anchor, const char *s) {
    return qsi_str_printf(o, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">%s</text>\n", x, y,
                          anchor, s);
}

/* "12k", "3.5M", "400" */
static void short_number(char *buf, size_t n, double v) {
    if (v >= 1e6) snprintf(buf, n, "%gM", v / 1e6);
    else if (v >= 1e4) snprintf(buf, n, "%gk", v / 1e3);
    else snprintf(buf, n, "%g", v);
}

static qs_status grid(qsi_str *o, const axis *x, const axis *y) {
    qs_status st = QS_OK;
    char b[32];
    double dy = nice_step(y->hi - y->lo, 6), dx = nice_step(x->hi - x->lo, 8);
    for (double v = ceil(y->lo / dy) * dy; v <= y->hi + dy * 1e-9; v += dy) {
        QS_TRY(qsi_str_printf(o, "<path class=\"g\" d=\"M%.1f %.1fH%.1f\"/>\n", x->from, at(y, v),
                              x->to));
        snprintf(b, sizeof(b), "%g", fabs(v) < dy * 1e-6 ? 0 : v);
        QS_TRY(text(o, x->from - 8, at(y, v) + 4, "end", b));
    }
    for (double v = ceil(x->lo / dx) * dx; v <= x->hi + dx * 1e-9; v += dx) {
        QS_TRY(qsi_str_printf(o, "<path class=\"g\" d=\"M%.1f %.1fV%.1fM%.1f %.1fV%.1f\"/>\n",
                              at(x, v), TOP, SPLIT, at(x, v), LR_TOP, BOTTOM));
        short_number(b, sizeof(b), v);
        QS_TRY(text(o, at(x, v), BOTTOM + 18, "middle", b));
    }
done:
    return st;
}

/* Values of a line, one a row; NaN where there is none. */
typedef double row_value(const qsi_log_row *r, const double *smooth);
static double v_loss(const qsi_log_row *r, const double *s) { (void)s; return r->loss; }
static double v_smooth(const qsi_log_row *r, const double *s) { (void)r; return *s; }
static double v_valid(const qsi_log_row *r, const double *s) { (void)s; return r->val_loss; }
static double v_lr(const qsi_log_row *r, const double *s) { (void)s; return r->lr; }

/* One path; where rows are many, the mean of each group stands for it. */
static qs_status line(qsi_str *o, const char *class, const qsi_log_row *rows, const double *smooth,
                      size_t n, const axis *x, const axis *y, row_value *value, bool dots) {
    qs_status st = QS_OK;
    size_t group = dots ? 1 : (n + MAX_POINTS - 1) / MAX_POINTS;
    qsi_str marks = {0};
    bool open = false;
    for (size_t i = 0; i < n; i += group) {
        double sum = 0, sx = 0;
        int k = 0;
        for (size_t j = i; j < n && j < i + group; j++) {
            double v = value(&rows[j], &smooth[j]);
            if (isnan(v)) continue;
            sum += v;
            sx += (double)rows[j].step;
            k++;
        }
        if (k == 0) continue;
        double px = at(x, sx / k), v = sum / k;
        double py = at(y, v < y->lo ? y->lo : v > y->hi ? y->hi : v);
        QS_TRY(open ? qsi_str_printf(o, "L%.1f %.1f", px, py)
                    : qsi_str_printf(o, "<path class=\"%s\" d=\"M%.1f %.1f", class, px, py));
        open = true;
        if (dots)
            QS_TRY(qsi_str_printf(&marks, "<circle class=\"%sd\" cx=\"%.1f\" cy=\"%.1f\" "
                                  "r=\"2.5\"/>\n", class, px, py));
    }
    if (open) QS_TRY(qsi_str_puts(o, "\"/>\n"));
    if (marks.len > 0) QS_TRY(qsi_str_append(o, marks.data, marks.len));
done:
    qsi_str_release(&marks);
    return st;
}

/* The mean over the neighbours on both sides, an eightieth of the rows each, fewer towards the ends:
 * as many on each side, so that the line does not lag behind the loss. */
static void smooth_rows(const qsi_log_row *rows, size_t n, double *out) {
    size_t half = n / 80 + 1, lo = 0, hi = 0; /* rows [lo, hi) are in sum */
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        size_t h = i < half ? i : half;
        if (n - 1 - i < h) h = n - 1 - i;
        while (hi < i + h + 1) sum += rows[hi++].loss;
        while (hi > i + h + 1) sum -= rows[--hi].loss;
        while (lo < i - h) sum -= rows[lo++].loss;
        while (lo > i - h) sum += rows[--lo].loss;
        out[i] = sum / (double)(2 * h + 1);
    }
}

static void loss_range(const qsi_log_row *rows, const double *smooth, size_t n, axis *y) {
    double lo = INFINITY, hi = -INFINITY;
    for (size_t i = 0; i < n; i++) {
        lo = fmin(lo, fmin(smooth[i], rows[i].val_loss)); /* fmin passes over NaN */
        hi = fmax(hi, fmax(smooth[i], rows[i].val_loss));
    }
    double pad = (hi - lo) * 0.05;
    if (!(pad > 1e-6)) pad = 0.5;
    y->lo = lo - pad < 0 && lo >= 0 ? 0 : lo - pad;
    y->hi = hi + pad;
}

static qs_status legend(qsi_str *o, const qsi_log_row *rows, size_t n) {
    qs_status st = QS_OK;
    char b[96];
    double val = NAN;
    for (size_t i = 0; i < n; i++)
        if (!isnan(rows[i].val_loss)) val = rows[i].val_loss;
    double last = 0;
    size_t k = n < 20 ? n : 20;
    for (size_t i = n - k; i < n; i++) last += rows[i].loss / (double)k;
    snprintf(b, sizeof(b), "training %.3f", last);
    QS_TRY(qsi_str_printf(o, "<path class=\"s\" d=\"M%.0f 60h24\"/>\n", W - 210));
    QS_TRY(text(o, W - 178, 64, "start", b));
    if (!isnan(val)) {
        snprintf(b, sizeof(b), "validation %.3f", val);
        QS_TRY(qsi_str_printf(o, "<path class=\"v\" d=\"M%.0f 80h24\"/>\n", W - 210));
        QS_TRY(text(o, W - 178, 84, "start", b));
    }
done:
    return st;
}

static qs_status draw(const qsi_log_row *rows, const double *smooth, size_t n, qsi_str *o) {
    qs_status st = QS_OK;
    double lr_max = 0;
    for (size_t i = 0; i < n; i++) lr_max = fmax(lr_max, rows[i].lr);
    axis x = {(double)rows[0].step, (double)rows[n - 1].step, LEFT, W - RIGHT};
    if (!(x.hi > x.lo)) x.hi = x.lo + 1;
    axis y = {.from = SPLIT, .to = TOP}, lr = {0, lr_max > 0 ? lr_max * 1.1 : 1, BOTTOM, LR_TOP};
    loss_range(rows, smooth, n, &y);
    QS_TRY(grid(o, &x, &y));
    QS_TRY(line(o, "r", rows, smooth, n, &x, &y, v_loss, false));
    QS_TRY(line(o, "s", rows, smooth, n, &x, &y, v_smooth, false));
    QS_TRY(line(o, "v", rows, smooth, n, &x, &y, v_valid, true));
    QS_TRY(line(o, "l", rows, smooth, n, &x, &lr, v_lr, false));
    char b[48];
    snprintf(b, sizeof(b), "%.3g", lr_max);
    QS_TRY(text(o, LEFT - 8, LR_TOP + 8, "end", b));
    QS_TRY(text(o, LEFT - 8, BOTTOM, "end", "0"));
    QS_TRY(text(o, LEFT, LR_TOP - 8, "start", "learning rate"));
    QS_TRY(text(o, W - RIGHT, H - 8, "end", "step"));
    QS_TRY(legend(o, rows, n));
done:
    return st;
}

static qs_status escaped(qsi_str *o, const char *s) {
    qs_status st = QS_OK;
    for (; *s != '\0'; s++) {
        if (*s == '<') QS_TRY(qsi_str_puts(o, "&lt;"));
        else if (*s == '&') QS_TRY(qsi_str_puts(o, "&amp;"));
        else if ((unsigned char)*s >= 32) QS_TRY(qsi_str_putc(o, *s));
    }
done:
    return st;
}

qs_status qsi_curve_svg(const qsi_log_row *rows, size_t n, const char *title, qsi_str *out) {
    qs_status st = QS_OK;
    double *smooth = qsi_alloc(n, sizeof(*smooth));
    if (smooth == NULL) return QS_E_NOMEM;
    QS_TRY(qsi_str_printf(out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %.0f %.0f\" width=\"%.0f\" "
        "height=\"%.0f\" font-family=\"sans-serif\" font-size=\"12\" fill=\"#444\">\n"
        "<style>path{fill:none}.g{stroke:#e4e4e4}.r{stroke:#bcd3ee;stroke-width:1}"
        ".s{stroke:#1f5fa8;stroke-width:2}.v{stroke:#c8501e;stroke-width:1.5}.vd{fill:#c8501e}"
        ".l{stroke:#5a8f3c;stroke-width:1.5}</style>\n"
        "<rect width=\"%.0f\" height=\"%.0f\" fill=\"#fff\"/>\n", W, H, W, H, W, H));
    QS_TRY(qsi_str_printf(out, "<text x=\"%.0f\" y=\"26\" font-size=\"15\" fill=\"#222\">", LEFT));
    QS_TRY(escaped(out, title != NULL ? title : "Loss (nats per token)"));
    QS_TRY(qsi_str_puts(out, "</text>\n"));
    if (n > 0) {
        smooth_rows(rows, n, smooth);
        QS_TRY(draw(rows, smooth, n, out));
    }
    QS_TRY(qsi_str_puts(out, "</svg>\n"));
done:
    qsi_free(smooth);
    return st;
}
