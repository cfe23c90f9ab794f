/* The model store of this person: see model_store.h. */
#include "model_store.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "qiusuo/hub.h"
#include "ui.h"

static bool find_dir(char *out, size_t cap) {
    const char *own = getenv("QIUSUO_MODELS"), *data = getenv("XDG_DATA_HOME"), *home = getenv("HOME");
    int n = -1;
    if (own != NULL && own[0] != '\0') n = snprintf(out, cap, "%s", own);
    else if (data != NULL && data[0] == '/') n = snprintf(out, cap, "%s/qiusuo/models", data);
    else if (home != NULL && home[0] == '/')
        n = snprintf(out, cap, "%s/.local/share/qiusuo/models", home);
    return n > 0 && (size_t)n < cap;
}

bool qsa_store_dir(char *out, size_t cap) {
    if (find_dir(out, cap)) return true;
    qsa_say("where should models lie? set QIUSUO_MODELS or HOME");
    return false;
}

bool qsa_is_gguf(const char *path) {
    char magic[4] = {0};
    FILE *f = fopen(path, "rb");
    size_t n = f != NULL ? fread(magic, 1, sizeof magic, f) : 0;
    if (f != NULL) fclose(f);
    return n == sizeof magic && memcmp(magic, "GGUF", sizeof magic) == 0;
}

bool qsa_is_model(const char *path) {
    char config[4096];
    int n = snprintf(config, sizeof config, "%s/config.json", path);
    return (n > 0 && (size_t)n < sizeof config && access(config, F_OK) == 0) || qsa_is_gguf(path);
}

/* OWNER/NAME, perhaps with more after '@' or ':' */
static bool looks_stored(const char *name) {
    const char *slash = strchr(name, '/');
    if (slash == NULL || slash == name || name[0] == '.' || name[0] == '~') return false;
    const char *end = slash + 1 + strcspn(slash + 1, "@:");
    return end > slash + 1 && memchr(slash + 1, '/', (size_t)(end - slash - 1)) == NULL;
}

const char *qsa_model_path(const char *name, char *buf, size_t cap) {
    char dir[4096];
    qs_err err = {0};
    if (access(name, F_OK) == 0 || !looks_stored(name) || !find_dir(dir, sizeof dir)) return name;
    qs_status st = qs_hub_path(dir, name, buf, cap, &err);
    if (st == QS_OK) return buf;
    const char *dot = strrchr(name, '.');
    bool file = strchr(name, ':') == NULL && dot != NULL && strcmp(dot, ".gguf") == 0;
    if (st != QS_E_UNSUPPORTED && !file) qsa_say("%s", err.text);
    return name;
}
