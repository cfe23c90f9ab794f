/* See listen.h. */
#include "serve/listen.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "sys/oserr.h"

enum { BACKLOG = 1024, FILES_OF_OURS = 64 };

static bool is_loopback(const struct sockaddr *a) {
    if (a->sa_family == AF_INET) {
        const struct sockaddr_in *in = (const void *)a;
        return (ntohl(in->sin_addr.s_addr) >> 24) == 127;
    }
    const struct sockaddr_in6 *in = (const void *)a;
    return IN6_IS_ADDR_LOOPBACK(&in->sin6_addr);
}

const char *qsi_peer_name(const void *sockaddr, char *buf, size_t cap) {
    const struct sockaddr *a = sockaddr;
    const void *ip = NULL;
    if (a != NULL && a->sa_family == AF_INET) ip = &((const struct sockaddr_in *)sockaddr)->sin_addr;
    if (a != NULL && a->sa_family == AF_INET6) ip = &((const struct sockaddr_in6 *)sockaddr)->sin6_addr;
    if (ip == NULL || inet_ntop(a->sa_family, ip, buf, (socklen_t)cap) == NULL)
        snprintf(buf, cap, "unix");
    return buf;
}

static int open_socket(int family) {
    const int fd = socket(family, SOCK_STREAM, 0);
    if (fd >= 0) fcntl(fd, F_SETFD, FD_CLOEXEC);
    return fd;
}

static qs_status bind_tcp(qsi_listener *l, const struct addrinfo *a, const char *host, int32_t port,
                          qs_err *err) {
    qs_status st = QS_OK;
    struct sockaddr_storage at = {0};
    socklen_t len = sizeof at;
    char ip[64];
    const int on = 1;
    l->fd = open_socket(a->ai_family);
    if (l->fd < 0) QS_TRY(qsi_err_errno(err, errno, "cannot open a socket"));
    setsockopt(l->fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(l->fd, a->ai_addr, a->ai_addrlen) != 0 || listen(l->fd, BACKLOG) != 0) {
        if (errno == EADDRINUSE)
            QS_FAIL(err, QS_E_STATE, "port %d of %s is taken by another program: choose one with --port "
                    "(0: any free one)", (int)port, host);
        QS_TRY(qsi_err_errno(err, errno, "cannot listen at port %d of %s", (int)port, host));
    }
    if (getsockname(l->fd, (struct sockaddr *)&at, &len) != 0)
        QS_TRY(qsi_err_errno(err, errno, "cannot ask for the port"));
    l->port = ntohs(at.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&at)->sin6_port
                                             : ((struct sockaddr_in *)&at)->sin_port);
    l->loopback = is_loopback(a->ai_addr);
    qsi_peer_name(&at, ip, sizeof ip);
    snprintf(l->name, sizeof l->name, at.ss_family == AF_INET6 ? "[%s]:%d" : "%s:%d", ip, (int)l->port);
done:
    return st;
}

qs_status qsi_listen_tcp(qsi_listener *l, const char *host, int32_t port, qs_err *err) {
    qs_status st = QS_OK;
    struct addrinfo want = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    struct addrinfo *list = NULL;
    char service[8];
    *l = (qsi_listener){.fd = -1};
    if (port < 0 || port > 65535) QS_FAIL(err, QS_E_ARG, "port %d is not from 0 to 65535", (int)port);
    snprintf(service, sizeof service, "%d", (int)port);
    const int rc = getaddrinfo(host, service, &want, &list);
    if (rc != 0)
        QS_FAIL(err, QS_E_ARG, "'%s' is no address to listen at: %s", host, gai_strerror(rc));
    QS_TRY(bind_tcp(l, list, host, port, err));
done:
    if (list != NULL) freeaddrinfo(list);
    if (st != QS_OK) qsi_listen_close(l);
    return st;
}

/* A socket file whose program has ended refuses connections. */
static bool is_left_over(const struct sockaddr_un *at) {
    struct stat sb;
    if (lstat(at->sun_path, &sb) != 0 || !S_ISSOCK(sb.st_mode)) return false;
    const int fd = open_socket(AF_UNIX);
    if (fd < 0) return false;
    const bool refused =
        connect(fd, (const struct sockaddr *)at, sizeof *at) != 0 && errno == ECONNREFUSED;
    close(fd);
    return refused;
}

qs_status qsi_listen_unix(qsi_listener *l, const char *path, qs_err *err) {
    qs_status st = QS_OK;
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    *l = (qsi_listener){.fd = -1, .loopback = true, .local = true};
    if (strlen(path) >= sizeof at.sun_path)
        QS_FAIL(err, QS_E_ARG,
                "the path of the socket '%s' is longer than the system allows (%zu bytes)", path,
                sizeof at.sun_path - 1);
    memcpy(at.sun_path, path, strlen(path) + 1);
    if (is_left_over(&at)) unlink(path);
    l->fd = open_socket(AF_UNIX);
    if (l->fd < 0) QS_TRY(qsi_err_errno(err, errno, "cannot open a socket"));
    const mode_t mask = umask(0177);
    const int rc = bind(l->fd, (struct sockaddr *)&at, sizeof at);
    const int why = errno;
    umask(mask);
    if (rc != 0 && why == EADDRINUSE)
        QS_FAIL(err, QS_E_STATE,
                "the socket '%s' is there already: another server listens, or the file is "
                "no socket",
                path);
    if (rc != 0) QS_TRY(qsi_err_errno(err, why, "cannot make the socket '%s'", path));
    memcpy(l->path, path, strlen(path) + 1);
    if (listen(l->fd, BACKLOG) != 0) QS_TRY(qsi_err_errno(err, errno, "cannot listen at '%s'", path));
    snprintf(l->name, sizeof l->name, "unix:%s", path);
done:
    if (st != QS_OK) qsi_listen_close(l);
    return st;
}

void qsi_listen_close(qsi_listener *l) {
    if (l->fd >= 0) close(l->fd);
    l->fd = -1;
    if (l->path[0] != '\0') unlink(l->path);
    l->path[0] = '\0';
}

size_t qsi_allow_files(size_t n) {
    struct rlimit r;
    if (getrlimit(RLIMIT_NOFILE, &r) != 0) return n;
    const rlim_t want = (rlim_t)n + FILES_OF_OURS;
    if (r.rlim_cur < want) {
        r.rlim_cur = want < r.rlim_max ? want : r.rlim_max;
        setrlimit(RLIMIT_NOFILE, &r);
        getrlimit(RLIMIT_NOFILE, &r);
    }
    if (r.rlim_cur >= want) return n;
    return r.rlim_cur > FILES_OF_OURS ? (size_t)r.rlim_cur - FILES_OF_OURS : 0;
}
