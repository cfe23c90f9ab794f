/* Text -> ids: cuts out added tokens (longest match at the leftmost place), then pieces, then BPE.
 * Source: deepseek-facts 3.1. Thread: any; a call keeps its work memory on the stack and in a
 * scratch of its own. */
#include "tok/nfc.h"
#include "tok/vocab.h"

typedef struct encoder {
    const qsi_vocab *v;
    qsi_bpe_scratch scratch;
    qsi_ids *out;
} encoder;

void qsi_ids_release(qsi_ids *v) {
    qsi_free(v->data);
    *v = (qsi_ids){0};
}

qs_status qsi_ids_push(qsi_ids *v, int32_t id) {
    qs_status st = QS_OK;
    if (v->len == v->cap)
        QS_TRY(qsi_grow((void **)&v->data, &v->cap, v->len + 1, sizeof *v->data));
    v->data[v->len++] = id;
done:
    return st;
}

static bool may_match(const qsi_vocab *v, int32_t id, unsigned flags) {
    if (v->flags[id] & QSI_TF_ONECHAR) return true;
    if (v->type[id] == QSI_TOK_CONTROL) return (flags & QSI_ENC_SPECIAL) != 0;
    return (flags & QSI_ENC_PERSON) == 0;
}

/* The longest added token that may match at p, or -1. */
static int32_t match_added(const qsi_vocab *v, const char *p, size_t n, unsigned flags) {
    int32_t best = -1;
    uint32_t at = 0;
    for (size_t i = 0; i < n; i++) {
        uint32_t c = v->trie[at].child;
        while (c != 0 && v->trie[c].byte != (uint8_t)p[i]) c = v->trie[c].next;
        if (c == 0) break;
        at = c;
        if (v->trie[c].id >= 0 && may_match(v, v->trie[c].id, flags)) best = v->trie[c].id;
    }
    return best;
}

static qs_status encode_piece(void *user, const char *p, size_t n) {
    encoder *e = user;
    return qsi_bpe_piece(e->v, &e->scratch, p, n, e->out);
}

/* Text between added tokens. */
static qs_status encode_plain(encoder *e, const char *p, size_t n, qs_err *err) {
    qs_status st = QS_OK;
    qsi_str normal = {0};
    bool same = true;
    if (n == 0) goto done;
    if (e->v->nfc) QS_TRY(qsi_nfc(p, n, &normal, &same));
    st = same ? qsi_pretok(e->v->pre, p, n, encode_piece, e, err)
              : qsi_pretok(e->v->pre, normal.data, normal.len, encode_piece, e, err);
done:
    qsi_str_release(&normal);
    return st;
}

static qs_status encode_text(encoder *e, const char *text, size_t n, unsigned flags, qs_err *err) {
    qs_status st = QS_OK;
    size_t from = 0, pos = 0;
    while (pos < n) {
        int32_t id = -1;
        if (e->v->trie_first[(unsigned char)text[pos]])
            id = match_added(e->v, text + pos, n - pos, flags);
        if (id < 0) {
            pos++;
            continue;
        }
        QS_TRY(encode_plain(e, text + from, pos - from, err));
        QS_TRY(qsi_ids_push(e->out, id));
        pos += e->v->text[id].n;
        from = pos;
    }
    QS_TRY(encode_plain(e, text + from, n - from, err));
done:
    return st;
}

qs_status qsi_encode(const qsi_vocab *v, const char *text, size_t n, unsigned flags, qsi_ids *out,
                     qs_err *err) {
    qs_status st = QS_OK;
    encoder e = {.v = v, .out = out};
    size_t bad, len = out->len;
    if (!qsi_utf8_valid(text, n, &bad)) {
        st = qsi_err_at(err, QS_E_FORMAT, (int64_t)bad,
                        "the text is not UTF-8: bad byte 0x%02x at offset %zu",
                        (unsigned)(unsigned char)text[bad], bad);
        goto done;
    }
    st = (flags & QSI_ENC_BOS) && v->bos >= 0 ? qsi_ids_push(out, v->bos) : QS_OK;
    if (st == QS_OK) st = encode_text(&e, text, n, flags, err);
    if (st == QS_E_NOMEM)
        QS_FAIL(err, st, "out of memory for the ids of a text of %zu bytes", n);
    if (st == QS_E_LIMIT) QS_FAIL(err, st, "the text has a line too long to tokenize");
done:
    if (st != QS_OK) out->len = len;
    qsi_bpe_scratch_release(&e.scratch);
    return st;
}
