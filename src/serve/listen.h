/* The socket that a server listens at, and how many more it may open. */
#ifndef QSI_SERVE_LISTEN_H
#define QSI_SERVE_LISTEN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

typedef struct qsi_listener {
    int fd;                 /* -1: closed */
    bool loopback;          /* only programs of this machine reach it */
    bool local;             /* a Unix socket */
    int32_t port;           /* of TCP */
    char name[128];         /* "127.0.0.1:8080", "[::1]:8080", "unix:PATH" */
    char path[108];         /* of a Unix socket: removed by close */
} qsi_listener;
/* host: an address, or a name that has one; port 0: any free one. */
qs_status qsi_listen_tcp(qsi_listener *l, const char *host, int32_t port, qs_err *err) QS_MUST_CHECK;
/* Only its owner may connect. A socket that nobody listens at any more is replaced. */
qs_status qsi_listen_unix(qsi_listener *l, const char *path, qs_err *err) QS_MUST_CHECK;
void qsi_listen_close(qsi_listener *l);

/* "127.0.0.1", "::1", "unix" of a struct sockaddr in buf; returns buf. */
const char *qsi_peer_name(const void *sockaddr, char *buf, size_t cap);
/* Makes room for n more open files where the system lets us; how many there is room for. */
size_t qsi_allow_files(size_t n);

#endif
