/* Reading in pieces of a megabyte from offset 0; the file's own position is not used. */
#include "hub/digest.h"

#include <errno.h>
#include <inttypes.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <unistd.h>

#include "base/mem.h"
#include "sys/oserr.h"

enum { PIECE = 1 << 20 };

static qs_status start(EVP_MD_CTX *ctx, uint64_t size, qsi_digest_kind kind, qs_err *err) {
    char head[40];
    const EVP_MD *md = kind == QSI_SHA256 ? EVP_sha256() : EVP_sha1();
    int n = kind == QSI_GIT_BLOB ? snprintf(head, sizeof head, "blob %" PRIu64, size) + 1 : 0;
    if (EVP_DigestInit_ex(ctx, md, NULL) != 1 || EVP_DigestUpdate(ctx, head, (size_t)n) != 1)
        return qsi_err_set(err, QS_E_UNSUPPORTED, "OpenSSL cannot compute this digest");
    return QS_OK;
}

static void to_hex(const uint8_t *p, unsigned n, char *hex) {
    static const char digits[] = "0123456789abcdef";
    for (unsigned i = 0; i < n; i++) {
        *hex++ = digits[p[i] >> 4];
        *hex++ = digits[p[i] & 15];
    }
    *hex = '\0';
}

qs_status qsi_digest_fd(int fd, uint64_t size, qsi_digest_kind kind, char hex[QSI_DIGEST_HEX],
                        qsi_digest_progress *progress, void *user, qs_err *err) {
    qs_status st = QS_OK;
    uint8_t sum[EVP_MAX_MD_SIZE];
    unsigned n_sum = 0;
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    uint8_t *piece = qsi_alloc(PIECE, 1);
    if (ctx == NULL || piece == NULL) QS_FAIL(err, QS_E_NOMEM, "out of memory for a digest");
    QS_TRY(start(ctx, size, kind, err));
    for (uint64_t at = 0; at < size;) {
        size_t want = size - at < PIECE ? (size_t)(size - at) : PIECE;
        ssize_t got = pread(fd, piece, want, (off_t)at);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) QS_TRY(qsi_err_errno(err, errno, "cannot read for its digest"));
        if (got == 0) QS_FAIL(err, QS_E_CORRUPT, "it ends at byte %" PRIu64 " of %" PRIu64, at, size);
        if (EVP_DigestUpdate(ctx, piece, (size_t)got) != 1)
            QS_FAIL(err, QS_E_NOMEM, "OpenSSL cannot go on");
        at += (uint64_t)got;
        if (progress != NULL && progress(user, (uint64_t)got) != 0)
            QS_FAIL(err, QS_E_CANCELLED, "cancelled");
    }
    if (EVP_DigestFinal_ex(ctx, sum, &n_sum) != 1 || n_sum * 2 >= QSI_DIGEST_HEX)
        QS_FAIL(err, QS_E_UNSUPPORTED, "OpenSSL cannot compute this digest");
    to_hex(sum, n_sum, hex);
done:
    qsi_free(piece);
    EVP_MD_CTX_free(ctx);
    return st;
}
