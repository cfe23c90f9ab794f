/* Files fall into groups: the parts of a split GGUF (NAME-00001-of-00003.gguf) are one, any other
 * file is a group of its own. */
#include "hub/repo.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/str.h"
#include "fmt/json.h"
#include "fmt/names.h"

#define LIST_LIMITS ((qsi_json_limits){(size_t)16 << 20, (size_t)QSI_HUB_MAX_FILES * 20})

/* ---- names ---- */

static bool name_char(char c) {
    return isalnum((unsigned char)c) || c == '.' || c == '_' || c == '-';
}

static bool take_name(char *out, const char *p, size_t n) {
    if (n == 0 || n >= QSI_HUB_NAME || p[0] == '.' || p[0] == '-') return false;
    for (size_t i = 0; i < n; i++)
        if (!name_char(p[i])) return false;
    memcpy(out, p, n);
    out[n] = '\0';
    return true;
}

qs_status qsi_hub_name_parse(qsi_hub_name *n, const char *text, qs_err *err) {
    qs_status st = QS_OK;
    const char *slash = strchr(text, '/');
    *n = (qsi_hub_name){0};
    if (slash == NULL) QS_FAIL(err, QS_E_ARG, "'%.80s' is no OWNER/NAME", text);
    const char *end = slash + 1 + strcspn(slash + 1, "@:");
    if (!take_name(n->owner, text, (size_t)(slash - text)) ||
        !take_name(n->name, slash + 1, (size_t)(end - slash - 1)))
        QS_FAIL(err, QS_E_ARG, "'%.80s' is no OWNER/NAME (letters, digits, '.', '_', '-')", text);
    if (*end == '@') {
        const char *rev = end + 1;
        end = rev + strcspn(rev, ":");
        if (!take_name(n->revision, rev, (size_t)(end - rev)))
            QS_FAIL(err, QS_E_ARG, "'%.80s': what follows '@' is no revision", text);
    }
    if (*end == ':') {
        if (strlen(end + 1) >= QSI_HUB_PATH || !qsi_hub_path_ok(end + 1))
            QS_FAIL(err, QS_E_ARG, "'%.80s': what follows ':' is no file or type", text);
        memcpy(n->what, end + 1, strlen(end + 1) + 1);
    }
done:
    return st;
}

bool qsi_hub_path_ok(const char *path) {
    size_t n = strlen(path);
    if (!qsi_name_ok(path, n) || n >= QSI_HUB_PATH || strchr(path, '\\') != NULL) return false;
    for (const char *p = path;;) {
        if (*p == '.' || *p == '/' || *p == '\0') return false; /* "..", hidden, empty part */
        p = strchr(p, '/');
        if (p == NULL) return true;
        p++;
    }
}

/* ---- the listing ---- */

void qsi_hub_repo_release(qsi_hub_repo *r) {
    qsi_free(r->files);
    qsi_arena_release(&r->arena);
    *r = (qsi_hub_repo){0};
}

static bool is_hex(const char *z, size_t n) {
    if (z == NULL || strlen(z) != n) return false;
    for (; *z; z++)
        if (!isdigit((unsigned char)*z) && (*z < 'a' || *z > 'f')) return false;
    return true;
}

static const char *keep(qsi_hub_repo *r, const char *z, bool *ok) {
    const char *copy = qsi_arena_strndup(&r->arena, z, strlen(z));
    if (copy == NULL) *ok = false;
    return copy;
}

static qs_status add_file(qsi_hub_repo *r, const qsi_json *j, qs_err *err) {
    qs_status st = QS_OK;
    const qsi_json *lfs = qsi_json_get(j, "lfs");
    const char *path = qsi_json_as_str(qsi_json_get(j, "path"));
    const char *type = qsi_json_as_str(qsi_json_get(j, "type"));
    const char *oid = qsi_json_as_str(qsi_json_get(j, "oid"));
    const char *sha = qsi_json_as_str(qsi_json_get(lfs, "oid"));
    int64_t size = -1;
    bool ok = true;
    qsi_hub_file f = {0};
    void *grown = r->files;
    if (type == NULL || strcmp(type, "file") != 0) goto done;
    if (path == NULL || !qsi_hub_path_ok(path)) goto done; /* hidden files are never wanted */
    if (!qsi_json_as_i64(qsi_json_get(lfs != NULL ? lfs : j, "size"), &size) || size < 0)
        QS_FAIL(err, QS_E_FORMAT, "the hub's listing gives no size for '%s'", path);
    if (r->n_files >= QSI_HUB_MAX_FILES)
        QS_FAIL(err, QS_E_LIMIT, "a repository of more than %d files", QSI_HUB_MAX_FILES);
    if (sha != NULL && strncmp(sha, "sha256:", 7) == 0) sha += 7;
    f.path = keep(r, path, &ok);
    f.size = (uint64_t)size;
    if (is_hex(sha, 64)) f.sha256 = keep(r, sha, &ok);
    else if (lfs == NULL && is_hex(oid, 40)) f.git_blob = keep(r, oid, &ok);
    if (!ok || qsi_grow(&grown, &r->cap_files, r->n_files + 1, sizeof *r->files) != QS_OK)
        QS_FAIL(err, QS_E_NOMEM, "out of memory for the hub's listing");
    r->files = grown;
    r->files[r->n_files++] = f;
done:
    return st;
}

qs_status qsi_hub_repo_add(qsi_hub_repo *r, const char *json, size_t n, qs_err *err) {
    qs_status st = QS_OK;
    qsi_json *root = NULL;
    st = qsi_json_parse(&root, json, n, LIST_LIMITS, err);
    if (st != QS_OK) {
        /* what came is not repeated: it may be the request's head, with the token */
        if (st == QS_E_FORMAT) QS_FAIL(err, st, "the hub's listing is no JSON");
        goto done;
    }
    if (qsi_json_kind_of(root) != QSI_JSON_ARRAY)
        QS_FAIL(err, QS_E_FORMAT, "the hub's listing is no list of files");
    for (size_t i = 0; i < qsi_json_size(root); i++) QS_TRY(add_file(r, qsi_json_at(root, i), err));
done:
    qsi_json_free(&root);
    return st;
}

/* ---- choosing ---- */

/* Bytes of the name before "-00001-of-00003.gguf"; all of it when it is not split. */
static size_t group_len(const char *path) {
    static const char shape[] = "-00000-of-00000.gguf";
    size_t n = strlen(path), k = sizeof shape - 1;
    if (n <= k) return n;
    for (size_t i = 0; i < k; i++) {
        char c = path[n - k + i];
        if (shape[i] == '0' ? !isdigit((unsigned char)c) : c != shape[i]) return n;
    }
    return n - k;
}

static bool same_group(const qsi_hub_file *a, const qsi_hub_file *b) {
    size_t n = group_len(a->path);
    return n == group_len(b->path) && memcmp(a->path, b->path, n) == 0;
}

/* The type stands in the file's name as a word: "x.Q4_K_M.gguf", "x-q4_k_m-00001-of-00002.gguf". */
static bool has_type(const char *path, const char *type) {
    size_t k = strlen(type);
    const char *slash = strrchr(path, '/'), *base = slash != NULL ? slash + 1 : path;
    for (const char *p = base; *p; p++) {
        size_t i = 0;
        while (i < k && p[i] && tolower((unsigned char)p[i]) == tolower((unsigned char)type[i])) i++;
        if (i < k) continue;
        bool left = p == base || p[-1] == '.' || p[-1] == '-' || p[-1] == '_';
        if (left && (p[k] == '.' || p[k] == '-' || p[k] == '\0')) return true;
    }
    return false;
}

static bool wants(const qsi_hub_file *f, const char *what) {
    if (what[0] != '\0' && strcmp(f->path, what) == 0) return true;
    return qsi_ends_with(f->path, ".gguf") && (what[0] == '\0' || has_type(f->path, what));
}

/* Lists groups of GGUF files, with all = true the other files too. */
static qs_status list_groups(const qsi_hub_repo *r, bool all, qsi_str *out, qs_err *err) {
    qs_status st = QS_OK;
    int listed = 0;
    for (size_t i = 0; i < r->n_files; i++) {
        bool first = all || qsi_ends_with(r->files[i].path, ".gguf");
        for (size_t k = 0; first && k < i; k++) first = !same_group(&r->files[i], &r->files[k]);
        if (!first) continue;
        if (++listed > 12) {
            st = qsi_str_puts(out, ", ...");
            break;
        }
        st = qsi_str_printf(out, "%s%s", listed > 1 ? ", " : "", r->files[i].path);
        if (st != QS_OK) break;
    }
    return st == QS_OK ? st : qsi_err_set(err, st, "out of memory for the list of files");
}

static bool is_weights(const char *path, bool safetensors) {
    if (strchr(path, '/') != NULL) return false;
    return safetensors ? qsi_ends_with(path, ".safetensors")
                       : strncmp(path, "pytorch_model", 13) == 0 && qsi_ends_with(path, ".bin");
}

/* A folder to run: weights, their index, and every configuration in JSON. */
static bool choose_folder(qsi_hub_repo *r) {
    bool config = false, safetensors = false, torch = false;
    for (size_t i = 0; i < r->n_files; i++) {
        config |= strcmp(r->files[i].path, "config.json") == 0;
        safetensors |= is_weights(r->files[i].path, true);
        torch |= is_weights(r->files[i].path, false);
    }
    if (!config || (!safetensors && !torch)) return false;
    for (size_t i = 0; i < r->n_files; i++) {
        qsi_hub_file *f = &r->files[i];
        bool text = strchr(f->path, '/') == NULL && qsi_ends_with(f->path, ".json");
        f->chosen = text || is_weights(f->path, safetensors);
    }
    return true;
}

/* Someone who names x.json, or looks into a folder of weights, wants to hear of more than GGUF files. */
static bool beyond_gguf(const qsi_hub_repo *r, const char *what) {
    if (strchr(what, '.') != NULL && !qsi_ends_with(what, ".gguf")) return true;
    for (size_t i = 0; i < r->n_files; i++)
        if (qsi_ends_with(r->files[i].path, ".gguf")) return false;
    return true;
}

qs_status qsi_hub_choose(qsi_hub_repo *r, const char *what, qs_err *err) {
    qs_status st = QS_OK;
    qsi_str list = {0};
    const qsi_hub_file *first = NULL;
    bool several = false;
    for (size_t i = 0; i < r->n_files; i++) {
        if (!wants(&r->files[i], what)) continue;
        if (first == NULL) first = &r->files[i];
        else several |= !same_group(first, &r->files[i]);
        if (what[0] != '\0' && strcmp(r->files[i].path, what) == 0) { /* named exactly */
            first = &r->files[i];
            several = false;
            break;
        }
    }
    if (what[0] == '\0' && choose_folder(r)) goto done;
    QS_TRY(list_groups(r, beyond_gguf(r, what), &list, err));
    if (first == NULL && what[0] != '\0')
        QS_FAIL(err, QS_E_NOTFOUND, "no file or type '%s' there%s%s", what,
                list.len > 0 ? "; there are " : "", list.len > 0 ? list.data : "");
    if (first == NULL)
        QS_FAIL(err, QS_E_NOTFOUND,
                "the repository holds no GGUF file and no config.json with weights%s%s",
                list.len > 0 ? "; there are " : "", list.len > 0 ? list.data : "");
    if (several)
        QS_FAIL(err, QS_E_ARG, "several files fit: name one after ':', there are %s",
                list.len > 0 ? list.data : "?");
    for (size_t i = 0; i < r->n_files; i++) r->files[i].chosen = same_group(first, &r->files[i]);
done:
    qsi_str_release(&list);
    return st;
}
