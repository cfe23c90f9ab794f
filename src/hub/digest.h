/* Digests of files: SHA-256, and git's blob id (SHA-1 over "blob SIZE\0" and the bytes), by OpenSSL's
 * EVP. Thread: any; one owner. */
#ifndef QSI_HUB_DIGEST_H
#define QSI_HUB_DIGEST_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

enum { QSI_DIGEST_HEX = 65 }; /* longest digest in hexadecimal, with its NUL */
typedef enum qsi_digest_kind { QSI_SHA256, QSI_GIT_BLOB } qsi_digest_kind;

/* Digest of an open file of `size` bytes, in lower-case hexadecimal. progress (may be NULL) hears the
 * bytes read since its last call; a return other than 0 cancels. */
typedef int qsi_digest_progress(void *user, uint64_t bytes);
qs_status qsi_digest_fd(int fd, uint64_t size, qsi_digest_kind kind, char hex[QSI_DIGEST_HEX],
                        qsi_digest_progress *progress, void *user, qs_err *err) QS_MUST_CHECK;

#endif
