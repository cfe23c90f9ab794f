/* The manifest and the walk over the store; parts are in part.c. A manifest that cannot be read is an
 * error for its model only. */
#include "hub/store.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fmt/json.h"
#include "hub/repo.h"
#include "sys/file.h"
#include "sys/oserr.h"

#define MANIFEST ".qiusuo.json"
#define LIMITS ((qsi_json_limits){(size_t)8 << 20, (size_t)QSI_HUB_MAX_FILES * 6})

static qs_status no_memory(qs_err *err) {
    return qsi_err_set(err, QS_E_NOMEM, "out of memory for the model store");
}

static const char *copy(qsi_stored *s, const char *z) {
    return qsi_arena_strndup(&s->arena, z, strlen(z));
}

qs_status qsi_stored_init(qsi_stored *s, const char *dir, qs_err *err) {
    *s = (qsi_stored){.source = "", .revision = ""};
    s->dir = copy(s, dir);
    return s->dir != NULL ? QS_OK : no_memory(err);
}

void qsi_stored_release(qsi_stored *s) {
    qsi_free(s->files);
    qsi_arena_release(&s->arena);
    *s = (qsi_stored){0};
}

const qsi_stored_file *qsi_stored_find(const qsi_stored *s, const char *path) {
    for (size_t i = 0; i < s->n_files; i++)
        if (strcmp(s->files[i].path, path) == 0) return &s->files[i];
    return NULL;
}

qs_status qsi_stored_put(qsi_stored *s, const qsi_stored_file *f, qs_err *err) {
    qsi_stored_file c = {.path = copy(s, f->path), .size = f->size};
    if (f->sha256 != NULL) c.sha256 = copy(s, f->sha256);
    if (f->git_blob != NULL) c.git_blob = copy(s, f->git_blob);
    if (c.path == NULL || (f->sha256 != NULL && c.sha256 == NULL) ||
        (f->git_blob != NULL && c.git_blob == NULL))
        return no_memory(err);
    for (size_t i = 0; i < s->n_files; i++) {
        if (strcmp(s->files[i].path, f->path) != 0) continue;
        s->files[i] = c;
        return QS_OK;
    }
    void *grown = s->files;
    if (qsi_grow(&grown, &s->cap_files, s->n_files + 1, sizeof *s->files) != QS_OK)
        return no_memory(err);
    s->files = grown;
    s->files[s->n_files++] = c;
    return QS_OK;
}

bool qsi_stored_there(const qsi_stored *s, const qsi_stored_file *f) {
    qsi_str path = {0};
    struct stat sb;
    bool there = qsi_path_join(&path, s->dir, f->path) == QS_OK && stat(path.data, &sb) == 0 &&
                 S_ISREG(sb.st_mode) && (uint64_t)sb.st_size == f->size;
    qsi_str_release(&path);
    return there;
}

/* ---- manifest ---- */

static qs_status read_file_entry(qsi_stored *s, const qsi_json *j, qs_err *err) {
    qs_status st = QS_OK;
    int64_t size = 0;
    qsi_stored_file f = {0};
    QS_TRY(qsi_json_str(j, "path", &f.path, err));
    QS_TRY(qsi_json_i64(j, "size", &size, err));
    if (!qsi_hub_path_ok(f.path) || size < 0) QS_FAIL(err, QS_E_FORMAT, "a file's path or size");
    f.size = (uint64_t)size;
    f.sha256 = qsi_json_as_str(qsi_json_get(j, "sha256"));
    f.git_blob = qsi_json_as_str(qsi_json_get(j, "git_blob"));
    QS_TRY(qsi_stored_put(s, &f, err));
done:
    return st;
}

static qs_status read_text(qsi_stored *s, const qsi_json *root, const char *key, const char **out,
                           qs_err *err) {
    const char *z = qsi_json_as_str(qsi_json_get(root, key));
    if (z == NULL) return QS_OK;
    *out = copy(s, z);
    return *out != NULL ? QS_OK : no_memory(err);
}

qs_status qsi_stored_read(qsi_stored *s, const char *dir, qs_err *err) {
    qs_status st = QS_OK;
    qsi_str path = {0}, text = {0};
    qsi_json *root = NULL;
    QS_TRY(qsi_stored_init(s, dir, err));
    if (qsi_path_join(&path, dir, MANIFEST) != QS_OK) QS_TRY(no_memory(err));
    if (!qsi_path_exists(path.data)) goto done;
    QS_TRY(qsi_file_read(path.data, LIMITS.bytes, &text, err));
    st = qsi_json_parse(&root, text.data, text.len, LIMITS, err);
    if (st == QS_OK) st = read_text(s, root, "source", &s->source, err);
    if (st == QS_OK) st = read_text(s, root, "revision", &s->revision, err);
    const qsi_json *files = qsi_json_get(root, "files");
    for (size_t i = 0; st == QS_OK && i < qsi_json_size(files); i++)
        st = read_file_entry(s, qsi_json_at(files, i), err);
    if (st != QS_OK) qsi_err_prefix(err, "'%s' is damaged", path.data);
done:
    if (st != QS_OK) qsi_stored_release(s);
    qsi_json_free(&root);
    qsi_str_release(&text);
    qsi_str_release(&path);
    return st;
}

static qs_status put_text(qsi_str *o, const char *key, const char *value, const char *after) {
    qs_status st = QS_OK;
    if (value == NULL) return QS_OK;
    QS_TRY(qsi_str_printf(o, "\"%s\":", key));
    QS_TRY(qsi_str_json(o, value, strlen(value)));
    QS_TRY(qsi_str_puts(o, after));
done:
    return st;
}

static qs_status format(const qsi_stored *s, qsi_str *o) {
    qs_status st = QS_OK;
    QS_TRY(qsi_str_puts(o, "{"));
    QS_TRY(put_text(o, "source", s->source, ",\n "));
    QS_TRY(put_text(o, "revision", s->revision, ",\n "));
    QS_TRY(qsi_str_puts(o, "\"files\":["));
    for (size_t i = 0; i < s->n_files; i++) {
        const qsi_stored_file *f = &s->files[i];
        QS_TRY(qsi_str_puts(o, i > 0 ? ",\n  {" : "\n  {"));
        QS_TRY(put_text(o, "path", f->path, ","));
        QS_TRY(put_text(o, "sha256", f->sha256, ","));
        QS_TRY(put_text(o, "git_blob", f->git_blob, ","));
        QS_TRY(qsi_str_printf(o, "\"size\":%" PRIu64 "}", f->size));
    }
    QS_TRY(qsi_str_puts(o, "]}\n"));
done:
    return st;
}

qs_status qsi_stored_write(const qsi_stored *s, qs_err *err) {
    qs_status st = QS_OK;
    qsi_str path = {0}, text = {0};
    qsi_writer *w = NULL;
    if (qsi_path_join(&path, s->dir, MANIFEST) != QS_OK || format(s, &text) != QS_OK)
        QS_TRY(no_memory(err));
    QS_TRY(qsi_writer_open(&w, path.data, err));
    QS_TRY(qsi_writer_write(w, text.data, text.len, err));
    QS_TRY(qsi_writer_commit(&w, err));
done:
    qsi_writer_abort(&w);
    qsi_str_release(&text);
    qsi_str_release(&path);
    return st;
}

/* ---- the store ---- */

static void free_names(char **names, size_t n) {
    for (size_t i = 0; i < n; i++) qsi_free(names[i]);
    qsi_free(names);
}

static qs_status walk_owner(const char *root, const char *owner, qsi_store_visit *visit, void *user,
                            qs_err *err) {
    qs_status st = QS_OK;
    qsi_str dir = {0}, name = {0};
    char **models = NULL;
    size_t n = 0;
    if (qsi_path_join(&dir, root, owner) != QS_OK) QS_TRY(no_memory(err));
    if (!qsi_path_is_dir(dir.data)) goto done;
    QS_TRY(qsi_dir_list(dir.data, &models, &n, err));
    for (size_t i = 0; i < n; i++) {
        qsi_stored s = {0};
        qsi_str_clear(&dir);
        qsi_str_clear(&name);
        if (qsi_str_printf(&name, "%s/%s", owner, models[i]) != QS_OK ||
            qsi_path_join(&dir, root, name.data) != QS_OK)
            QS_TRY(no_memory(err));
        if (!qsi_path_is_dir(dir.data)) continue;
        QS_TRY(qsi_stored_read(&s, dir.data, err));
        st = visit(user, name.data, &s, err);
        qsi_stored_release(&s);
        if (st != QS_OK) goto done;
    }
done:
    free_names(models, n);
    qsi_str_release(&dir);
    qsi_str_release(&name);
    return st;
}

qs_status qsi_store_walk(const char *root, qsi_store_visit *visit, void *user, qs_err *err) {
    qs_status st = QS_OK;
    char **owners = NULL;
    size_t n = 0;
    if (!qsi_path_is_dir(root)) goto done;
    QS_TRY(qsi_dir_list(root, &owners, &n, err));
    for (size_t i = 0; i < n; i++) QS_TRY(walk_owner(root, owners[i], visit, user, err));
done:
    free_names(owners, n);
    return st;
}

/* Removes a file or a folder with what is in it; adds to *bytes. Links are removed, not followed. */
static qs_status remove_tree(const char *path, uint64_t *bytes, int depth, qs_err *err) {
    qs_status st = QS_OK;
    struct stat sb;
    char **names = NULL;
    size_t n = 0;
    qsi_str child = {0};
    static const char *const hidden[] = {MANIFEST, ".lock"};
    if (lstat(path, &sb) != 0) goto done;
    if (!S_ISDIR(sb.st_mode)) {
        if (S_ISREG(sb.st_mode)) *bytes += (uint64_t)sb.st_size;
        if (unlink(path) != 0) QS_TRY(qsi_err_errno(err, errno, "cannot remove '%s'", path));
        goto done;
    }
    if (depth > 16) QS_FAIL(err, QS_E_LIMIT, "'%s' is nested too deep", path);
    QS_TRY(qsi_dir_list(path, &names, &n, err));
    for (size_t i = 0; i < n + QSI_COUNT(hidden); i++) {
        qsi_str_clear(&child);
        if (qsi_path_join(&child, path, i < n ? names[i] : hidden[i - n]) != QS_OK)
            QS_TRY(no_memory(err));
        QS_TRY(remove_tree(child.data, bytes, depth + 1, err));
    }
    if (rmdir(path) != 0) QS_TRY(qsi_err_errno(err, errno, "cannot remove the folder '%s'", path));
done:
    free_names(names, n);
    qsi_str_release(&child);
    return st;
}

static qs_status remove_file(const char *dir, const char *path, uint64_t *bytes, qs_err *err) {
    qs_status st = QS_OK;
    qsi_stored s = {0};
    qsi_str full = {0};
    QS_TRY(qsi_stored_read(&s, dir, err));
    const qsi_stored_file *f = qsi_stored_find(&s, path);
    if (f == NULL) QS_FAIL(err, QS_E_NOTFOUND, "no file '%s' in '%s'", path, dir);
    if (qsi_path_join(&full, dir, path) != QS_OK) QS_TRY(no_memory(err));
    QS_TRY(remove_tree(full.data, bytes, 0, err));
    size_t i = (size_t)(f - s.files);
    memmove(&s.files[i], &s.files[i + 1], (s.n_files - i - 1) * sizeof *s.files);
    s.n_files--;
    QS_TRY(qsi_stored_write(&s, err));
done:
    qsi_stored_release(&s);
    qsi_str_release(&full);
    return st;
}

qs_status qsi_store_remove(const char *root, const char *owner, const char *name, const char *path,
                           uint64_t *bytes, qs_err *err) {
    qs_status st = QS_OK;
    qsi_str parent = {0}, dir = {0};
    qsi_lock lock = {-1};
    *bytes = 0;
    if (qsi_path_join(&parent, root, owner) != QS_OK || qsi_path_join(&dir, parent.data, name) != QS_OK)
        QS_TRY(no_memory(err));
    if (!qsi_path_is_dir(dir.data))
        QS_FAIL(err, QS_E_NOTFOUND, "the store has no model %s/%s ('qiusuo list' shows what it has)",
                owner, name);
    QS_TRY(qsi_store_lock(dir.data, &lock, err));
    if (path != NULL) {
        QS_TRY(remove_file(dir.data, path, bytes, err));
    } else {
        QS_TRY(remove_tree(dir.data, bytes, 0, err));
        (void)rmdir(parent.data); /* stays while other models are there */
    }
done:
    qsi_lock_release(&lock);
    qsi_str_release(&dir);
    qsi_str_release(&parent);
    return st;
}

qs_status qsi_store_lock(const char *dir, qsi_lock *lock, qs_err *err) {
    qs_status st = QS_OK;
    qsi_str path = {0};
    QS_TRY(qsi_make_dirs(dir, err));
    if (qsi_path_join(&path, dir, ".lock") != QS_OK) QS_TRY(no_memory(err));
    QS_TRY(qsi_lock_take(lock, path.data, err));
done:
    qsi_str_release(&path);
    return st;
}
