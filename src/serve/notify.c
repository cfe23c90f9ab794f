/* See notify.h. */
#include "serve/notify.h"

#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

bool qsi_notify(const char *address, const char *state) {
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    if (address == NULL || address[0] == '\0') return true;
    const size_t n = strlen(address);
    if (n >= sizeof to.sun_path) return false;
    memcpy(to.sun_path, address, n);
    if (address[0] == '@') to.sun_path[0] = '\0';
    const int fd = socket(AF_UNIX, SOCK_DGRAM, 0);
    if (fd < 0) return false;
    const socklen_t len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n);
    const ssize_t sent = sendto(fd, state, strlen(state), MSG_NOSIGNAL, (struct sockaddr *)&to, len);
    close(fd);
    return sent == (ssize_t)strlen(state);
}
