/* Where the chat keeps what outlives it: the folder of the XDG base directory specification. */
#ifndef QSA_CHAT_STATE_H
#define QSA_CHAT_STATE_H

#include <stdbool.h>
#include <stddef.h>

/* $XDG_STATE_HOME/qiusuo/NAME, else $HOME/.local/state/qiusuo/NAME; makes the folder. False when
 * there is no home or the folder cannot be made. */
bool qsa_state_file(const char *name, char *out, size_t cap);
/* Copies path with a leading "~/" replaced by the home folder. False when it does not fit. */
bool qsa_home_path(const char *path, char *out, size_t cap);

#endif
