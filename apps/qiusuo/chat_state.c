/* The state folder: see chat_state.h. */
#include "chat_state.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* Makes every folder of the path up to its last slash. */
static bool make_parents(char *path) {
    for (char *p = path + 1; *p != '\0'; p++) {
        if (*p != '/') continue;
        *p = '\0';
        bool ok = mkdir(path, 0700) == 0 || errno == EEXIST;
        *p = '/';
        if (!ok) return false;
    }
    return true;
}

bool qsa_state_file(const char *name, char *out, size_t cap) {
    const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
    int n;
    /* the specification: a path that is not absolute counts as none */
    if (state != NULL && state[0] == '/') n = snprintf(out, cap, "%s/qiusuo/%s", state, name);
    else if (home != NULL && home[0] == '/')
        n = snprintf(out, cap, "%s/.local/state/qiusuo/%s", home, name);
    else return false;
    return n > 0 && (size_t)n < cap && make_parents(out);
}

bool qsa_home_path(const char *path, char *out, size_t cap) {
    const char *home = getenv("HOME");
    bool tilde = path[0] == '~' && path[1] == '/' && home != NULL;
    int n = snprintf(out, cap, "%s%s", tilde ? home : "", tilde ? path + 1 : path);
    return n >= 0 && (size_t)n < cap;
}
