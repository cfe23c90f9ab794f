/* A context other than the trained one: how far the rotary angles of a configuration are stretched.
 *
 *     linear    position / s                                   (Chen et al. 2023, arXiv:2306.15595)
 *     dynamic   theta * (s L / L0 - (s - 1))^(d / (d - 2))     (transformers' "dynamic" NTK
 * scaling)
 *     yarn      fast pairs as trained, slow ones / s, between them a ramp; scores times
 *               (1 + 0.1 ln s)^2                               (Peng et al. 2023, arXiv:2309.00071)
 *
 * with the factor s, the trained length L0 and the rotated width d. "dynamic" takes the longest
 * sequence L that the context admits (s L0 where no context is named) for every sequence: a token's
 * bits must depend neither on the length of what follows nor on when its key was cached. It then is
 * nothing but another theta. */
#include "model/rope_scaling.h"

#include <math.h>
#include <string.h>

#include "base/str.h"

static const char *const names[] = {"auto", "none", "linear", "dynamic", "yarn"};

qs_status qsi_stretch_parse(qsi_stretch *out, const char *name, qs_err *err) {
    qs_status st = QS_OK;
    for (int i = 0; i < (int)QSI_COUNT(names); i++)
        if (strcmp(name, names[i]) == 0) {
            *out = (qsi_stretch)i;
            goto done;
        }
    QS_FAIL(err, QS_E_ARG, "unknown scaling '%.32s' of rotary positions: auto, none, linear, dynamic "
            "and yarn are known", name);
done:
    return st;
}

/* The context the weights were trained on, before any scaling the file declares. */
static double trained(const qsi_config *c) {
    if (c->rope_scaling == QSI_ROPE_YARN) return c->rope_orig_ctx;
    return c->rope_scaling == QSI_ROPE_LINEAR ? (double)c->n_ctx / (double)c->rope_factor : c->n_ctx;
}

double qsi_config_attn_scale(const qsi_config *c) {
    double m = 1;
    if (c->rope_scaling == QSI_ROPE_YARN)
        m += (double)c->yarn_log_mul * log((double)c->rope_factor);
    if (c->rope_scaling == QSI_ROPE_YARN && c->yarn_attn != 0) m *= (double)c->yarn_attn;
    return m * m / sqrt((double)c->head_dim);
}

void qsi_config_rope_freqs(const qsi_config *c, float *out) {
    int32_t d = qsi_config_rope_dim(c);
    double low = (double)c->freqs_low, high = (double)c->freqs_high, s = (double)c->freqs_factor;
    for (int32_t i = 0; i < d / 2; i++) {
        double period = 2 * acos(-1.0) * pow((double)c->rope_theta, 2.0 * i / d);
        double turns = c->freqs_orig_ctx / period;
        double part = fmin(fmax((turns - low) / (high - low), 0), 1);
        out[i] = (float)(1 / (part + (1 - part) / s));
    }
}

/* `longest`: L / L0. */
static void apply(qsi_config *c, qsi_stretch kind, double orig, double s, double longest) {
    double d = qsi_config_rope_dim(c);
    bool had = c->rope_scaling == QSI_ROPE_YARN;
    c->rope_scaling = QSI_ROPE_NONE;
    c->rope_factor = 1;
    switch (kind) {
    case QSI_STRETCH_LINEAR:
        c->rope_scaling = QSI_ROPE_LINEAR;
        c->rope_factor = (float)s;
        break;
    case QSI_STRETCH_DYNAMIC:
        c->rope_theta = (float)((double)c->rope_theta * pow(s * longest - (s - 1), d / (d - 2)));
        break;
    case QSI_STRETCH_YARN:
        c->rope_scaling = QSI_ROPE_YARN;
        c->rope_factor = (float)s;
        c->rope_orig_ctx = (int32_t)lround(orig);
        if (had) break;
        c->yarn_log_mul = 0.1f;
        c->yarn_beta_fast = 32;
        c->yarn_beta_slow = 1;
        break;
    default: break;
    }
}

qs_status qsi_config_stretch(qsi_config *c, qsi_stretch kind, double factor, int64_t n_ctx,
                             qs_err *err) {
    qs_status st = QS_OK;
    double orig = trained(c), s = factor;
    bool beyond = n_ctx > c->n_ctx;
    if (n_ctx < 0 || n_ctx > INT32_MAX)
        QS_FAIL(err, QS_E_ARG, "context of %lld: 1 to %d is possible", (long long)n_ctx, INT32_MAX);
    if (factor != 0 && (kind == QSI_STRETCH_AUTO || kind == QSI_STRETCH_NONE))
        QS_FAIL(err, QS_E_ARG, "a factor of %g needs a scaling of rotary positions: linear, dynamic or "
                "yarn", factor);
    if (factor != 0 && !(factor > 1 && factor <= 1e6))
        QS_FAIL(err, QS_E_RANGE, "rotary positions cannot be scaled by %g: more than 1 and at most "
                "1000000", factor);
    if (kind == QSI_STRETCH_AUTO) {
        if (!beyond) goto done;
        /* what the file declares goes on, only further */
        kind = c->rope_scaling == QSI_ROPE_LINEAR ? QSI_STRETCH_LINEAR : QSI_STRETCH_YARN;
    } else if (kind != QSI_STRETCH_NONE && s == 0 && (double)n_ctx <= orig) {
        QS_FAIL(err, QS_E_ARG, "scaling rotary positions (%s) needs a factor, or a context beyond the "
                "%.0f tokens of training", names[kind], orig);
    }
    if (kind == QSI_STRETCH_DYNAMIC && qsi_config_rope_dim(c) < 4)
        QS_FAIL(err, QS_E_UNSUPPORTED, "dynamic scaling needs a rotated width of 4 or more");
    if (s == 0) s = (double)n_ctx / orig;
    double reach = kind == QSI_STRETCH_NONE ? orig : fmax(orig * s, (double)n_ctx);
    if (kind == QSI_STRETCH_DYNAMIC && (double)n_ctx > orig) reach = (double)n_ctx;
    apply(c, kind, orig, s, reach / orig);
    c->n_ctx = (int32_t)fmin(reach, (double)INT32_MAX);
    QS_TRY(qsi_config_check(c, err));
done:
    return st;
}
