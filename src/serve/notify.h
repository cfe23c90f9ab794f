/* Telling the service manager: the protocol of systemd's sd_notify(3). */
#ifndef QSI_SERVE_NOTIFY_H
#define QSI_SERVE_NOTIFY_H

#include <stdbool.h>

/* Sends "READY=1" and the like to the socket at address ("/path", "@abstract"); NULL or "": nobody
 * listens, nothing happens. False when it could not be sent. Any thread. */
bool qsi_notify(const char *address, const char *state);

#endif
