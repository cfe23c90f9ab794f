/* Ids -> bytes, at once or as a stream of whole characters.
 *
 * Streaming never shows half a character: bytes that may still become one are held back (at most
 * three), bytes that cannot are replaced by U+FFFD, one for each longest start of a character, as
 * the Unicode standard recommends (3.9, table 3-8). */
#include <string.h>

#include "tok/vocab.h"

static qsi_slice shown(const qsi_vocab *v, int32_t id, bool special) {
    if (id < 0 || id >= v->n) return (qsi_slice){"", 0};
    if (v->type[id] == QSI_TOK_CONTROL && !special) return (qsi_slice){"", 0};
    return v->bytes[id];
}

qs_status qsi_decode(const qsi_vocab *v, const int32_t *ids, size_t n, bool special, qsi_str *out) {
    qs_status st = QS_OK;
    for (size_t i = 0; i < n; i++) {
        qsi_slice s = shown(v, ids[i], special);
        QS_TRY(qsi_str_append(out, s.p, s.n));
    }
done:
    return st;
}

void qsi_detok_init(qsi_detok *d, const qsi_vocab *v, bool special) {
    *d = (qsi_detok){.v = v, .special = special};
}

/* Range that the second byte must be in for a lead byte; the later ones are 80 to BF. */
static bool second_fits(unsigned char lead, unsigned char b) {
    unsigned char lo = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
    unsigned char hi = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
    return b >= lo && b <= hi;
}

/* Looks at the start of p: *n_use bytes are one character (true), or are no start of any (false).
 * *n_use 0 with true: all n bytes are the start of a character that is not complete. */
static bool next_char(const unsigned char *p, size_t n, size_t *n_use) {
    size_t want = p[0] < 0x80 ? 1 : p[0] < 0xc2 ? 0 : p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : 4;
    size_t i = 1;
    if (want == 0 || p[0] > 0xf4) {
        *n_use = 1;
        return false;
    }
    while (i < want && i < n && (i == 1 ? second_fits(p[0], p[1]) : (p[i] & 0xc0) == 0x80)) i++;
    *n_use = i;
    if (i == want) return true;
    if (i < n) return false;
    *n_use = 0;
    return true;
}

static qs_status push_bytes(qsi_detok *d, const char *p, size_t n, qsi_str *out) {
    qs_status st = QS_OK;
    for (size_t i = 0; i < n; i++) {
        d->held[d->n_held++] = p[i];
        for (;;) {
            size_t use;
            bool ok;
            if (d->n_held == 0) break;
            ok = next_char((const unsigned char *)d->held, (size_t)d->n_held, &use);
            if (use == 0) break;
            QS_TRY(ok ? qsi_str_append(out, d->held, use) : qsi_str_append(out, "\xef\xbf\xbd", 3));
            d->n_held -= (int)use;
            memmove(d->held, d->held + use, (size_t)d->n_held);
        }
    }
done:
    return st;
}

qs_status qsi_detok_push(qsi_detok *d, int32_t id, qsi_str *out) {
    qsi_slice s = shown(d->v, id, d->special);
    return push_bytes(d, s.p, s.n, out);
}

qs_status qsi_detok_finish(qsi_detok *d, qsi_str *out) {
    qs_status st = QS_OK;
    if (d->n_held > 0) QS_TRY(qsi_str_append(out, "\xef\xbf\xbd", 3));
    d->n_held = 0;
done:
    return st;
}
