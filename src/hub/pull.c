/* A pull: listing, choice, what is missing, room on the disk, transfers, digests, names. Every file
 * that is complete is entered in the manifest at once, so that a pull can end anywhere. */
#include "hub/pull.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/mem.h"
#include "base/str.h"
#include "fmt/json.h"
#include "hub/digest.h"
#include "hub/http.h"
#include "hub/repo.h"
#include "hub/store.h"
#include "sys/file.h"

enum { INFO_MAX = 8 << 20, PAGES_MAX = 64 };
#define LIST_MAX ((size_t)16 << 20)
#define SPARE_BYTES ((uint64_t)64 << 20)

typedef struct pulling {
    const qsi_pull_opts *o;
    const char *base;
    qsi_hub_name name;
    qsi_str source, revision, etag; /* etag: of a plain URL */
    bool plain;                     /* a URL; its digest is not known */
    bool ranges;
    qsi_http *http;
    qsi_hub_repo repo;
    qsi_str dir;
    qsi_stored stored;
    qsi_lock lock;
    qsi_part *parts;       /* [repo.n_files] */
    qsi_http_segment *segments;
    qsi_http_file *files;
    qsi_str *urls;         /* [repo.n_files] */
    uint64_t done, total;
} pulling;

static qs_status no_memory(qs_err *err) { return qsi_err_set(err, QS_E_NOMEM, "out of memory"); }

/* ---- what there is ---- */

/* "sha" of the revision: all files then come from one commit. */
static qs_status resolve_revision(pulling *p, qs_err *err) {
    qs_status st = QS_OK;
    qsi_str url = {0}, body = {0}, next = {0};
    qsi_json *root = NULL;
    const char *rev = p->name.revision[0] != '\0' ? p->name.revision : "main", *sha = NULL;
    if (qsi_str_printf(&url, "%s/api/models/%s/%s/revision/%s", p->base, p->name.owner, p->name.name,
                       rev) != QS_OK)
        QS_TRY(no_memory(err));
    QS_TRY(qsi_http_text(p->http, url.data, INFO_MAX, &body, &next, err));
    st = qsi_json_parse(&root, body.data, body.len,
                        (qsi_json_limits){INFO_MAX, (size_t)QSI_HUB_MAX_FILES * 8}, err);
    if (st == QS_OK) st = qsi_json_str(root, "sha", &sha, err);
    if (st != QS_OK) {
        qsi_err_prefix(err, "%s: the hub's answer cannot be read", url.data);
        goto done;
    }
    if (!qsi_hub_path_ok(sha) || strchr(sha, '/') != NULL)
        QS_FAIL(err, QS_E_FORMAT, "%s: the hub names no revision", url.data);
    if (qsi_str_puts(&p->revision, sha) != QS_OK) QS_TRY(no_memory(err));
done:
    qsi_json_free(&root);
    qsi_str_release(&url);
    qsi_str_release(&body);
    qsi_str_release(&next);
    return st;
}

/* A page's successor must lie on the hub itself. */
static bool same_base(const pulling *p, const char *url) {
    size_t n = strlen(p->base);
    return strncmp(url, p->base, n) == 0 && url[n] == '/';
}

static qs_status list_files(pulling *p, qs_err *err) {
    qs_status st = QS_OK;
    qsi_str url = {0}, body = {0}, next = {0};
    if (qsi_str_printf(&url, "%s/api/models/%s/%s/tree/%s?recursive=true", p->base, p->name.owner,
                       p->name.name, p->revision.data) != QS_OK)
        QS_TRY(no_memory(err));
    for (int page = 0; url.len > 0; page++) {
        if (page == PAGES_MAX) QS_FAIL(err, QS_E_LIMIT, "the hub's listing does not end");
        qsi_str_clear(&body);
        QS_TRY(qsi_http_text(p->http, url.data, LIST_MAX, &body, &next, err));
        QS_TRY(qsi_hub_repo_add(&p->repo, body.data != NULL ? body.data : "", body.len, err));
        if (next.len > 0 && !same_base(p, next.data))
            QS_FAIL(err, QS_E_FORMAT, "the hub's listing goes on at another place");
        qsi_str_clear(&url);
        if (qsi_str_append(&url, next.data, next.len) != QS_OK) QS_TRY(no_memory(err));
    }
done:
    qsi_str_release(&url);
    qsi_str_release(&body);
    qsi_str_release(&next);
    return st;
}

/* https://HOST/.../FILE?query: HOST and FILE become OWNER and NAME of the store. */
static qs_status read_url(pulling *p, const char *url, qs_err *err) {
    qs_status st = QS_OK;
    const char *host = strstr(url, "://") + 3, *end = url + strcspn(url, "?#");
    const char *file = end;
    char clean[2][QSI_HUB_NAME];
    while (file > host && file[-1] != '/') file--;
    const char *part[2] = {host, file};
    size_t len[2] = {strcspn(host, "/:?#"), (size_t)(end - file)};
    for (int k = 0; k < 2; k++) {
        size_t n = len[k] < QSI_HUB_NAME ? len[k] : QSI_HUB_NAME - 1;
        memcpy(clean[k], part[k], n);
        clean[k][n] = '\0';
        if (n == 0 || n != len[k] || !qsi_hub_path_ok(clean[k]))
            QS_FAIL(err, QS_E_ARG, "'%.200s' does not end in the name of a file", url);
    }
    memcpy(p->name.owner, clean[0], strlen(clean[0]) + 1);
    memcpy(p->name.name, clean[1], strlen(clean[1]) + 1);
    p->plain = true;
done:
    return st;
}

static qs_status probe_url(pulling *p, const char *url, qs_err *err) {
    qs_status st = QS_OK;
    void *files = NULL;
    uint64_t size = 0;
    QS_TRY(qsi_http_probe(p->http, url, &size, &p->ranges, &p->etag, err));
    if (size == UINT64_MAX)
        QS_FAIL(err, QS_E_UNSUPPORTED, "%s: the server does not say how large the file is", url);
    if (qsi_grow(&files, &p->repo.cap_files, 1, sizeof *p->repo.files) != QS_OK) QS_TRY(no_memory(err));
    p->repo.files = files;
    p->repo.files[p->repo.n_files++] =
        (qsi_hub_file){.path = p->name.name, .size = size, .chosen = true};
    if (qsi_str_puts(&p->source, url) != QS_OK) QS_TRY(no_memory(err));
done:
    return st;
}

static qs_status find_files(pulling *p, const char *text, qs_err *err) {
    qs_status st = QS_OK;
    if (p->plain) {
        QS_TRY(probe_url(p, text, err));
        goto done;
    }
    p->ranges = true;
    if (qsi_str_printf(&p->source, "%s/%s/%s", p->base, p->name.owner, p->name.name) != QS_OK)
        QS_TRY(no_memory(err));
    QS_TRY(resolve_revision(p, err));
    QS_TRY(list_files(p, err));
    st = qsi_hub_choose(&p->repo, p->name.what, err);
    if (st != QS_OK) qsi_err_prefix(err, "%s/%s", p->name.owner, p->name.name);
done:
    return st;
}

/* ---- what is missing ---- */

static bool same(const char *a, const char *b) { return a != NULL && b != NULL && strcmp(a, b) == 0; }

/* Complete from before, and the same as the hub's. A plain URL's file is the same when its size is. */
static bool have(const pulling *p, const qsi_hub_file *f) {
    const qsi_stored_file *s = qsi_stored_find(&p->stored, f->path);
    if (p->o->again || s == NULL || s->size != f->size || !qsi_stored_there(&p->stored, s)) return false;
    return p->plain || same(s->sha256, f->sha256) || same(s->git_blob, f->git_blob) ||
           (f->sha256 == NULL && f->git_blob == NULL);
}

static qs_status open_part(pulling *p, size_t i, qs_err *err) {
    qs_status st = QS_OK;
    const qsi_hub_file *f = &p->repo.files[i];
    const char *id = f->sha256 ? f->sha256 : f->git_blob ? f->git_blob : p->etag.data;
    if (id == NULL) id = "";
    QS_TRY(qsi_part_open(&p->parts[i], p->dir.data, f->path, f->size, id, err));
    if (!p->ranges) { /* one stream from the start */
        qsi_part *t = &p->parts[i];
        for (int k = 0; k < t->n; k++) t->done[k] = 0;
        if (t->n > 1) t->end[0] = f->size;
        t->n = t->n > 0 ? 1 : 0;
    }
    if (p->plain) st = qsi_str_puts(&p->urls[i], p->source.data);
    else
        st = qsi_str_printf(&p->urls[i], "%s/resolve/%s/%s", p->source.data, p->revision.data, f->path);
    if (st != QS_OK) QS_TRY(no_memory(err));
    p->done += qsi_part_done(&p->parts[i]);
    p->total += f->size;
done:
    return st;
}

static qs_status check_room(const pulling *p, qs_err *err) {
    uint64_t need = p->total - p->done, room = qsi_disk_free(p->dir.data);
    if (need + SPARE_BYTES <= room) return QS_OK;
    char more[QSI_SIZE_TEXT], have[QSI_SIZE_TEXT];
    return qsi_err_set(err, QS_E_IO, "%s are needed and '%s' has room for %s",
                       qsi_size_text(more, need + SPARE_BYTES), p->dir.data, qsi_size_text(have, room));
}

static qs_status open_parts(pulling *p, qs_err *err) {
    qs_status st = QS_OK;
    size_t n = p->repo.n_files;
    p->parts = qsi_calloc(n, sizeof *p->parts);
    p->urls = qsi_calloc(n, sizeof *p->urls);
    p->files = qsi_calloc(n, sizeof *p->files);
    p->segments = qsi_calloc(n * QSI_PART_SEGMENTS, sizeof *p->segments);
    if (p->parts == NULL || p->urls == NULL || p->files == NULL || p->segments == NULL)
        QS_TRY(no_memory(err));
    for (size_t i = 0; i < n; i++)
        if (p->repo.files[i].chosen && !have(p, &p->repo.files[i])) QS_TRY(open_part(p, i, err));
    QS_TRY(check_room(p, err));
done:
    return st;
}

/* ---- transfers ---- */

static int on_bytes(void *user, uint64_t bytes) {
    pulling *p = user;
    p->done += bytes;
    uint64_t done = p->done < p->total ? p->done : p->total; /* a stream may have begun anew */
    return p->o->progress != NULL ? p->o->progress(p->o->user, "fetching", done, p->total) : 0;
}

static qs_status transfer(pulling *p, qs_err *err) {
    size_t n = 0;
    for (size_t i = 0; i < p->repo.n_files; i++) {
        qsi_part *t = &p->parts[i];
        if (!t->open) continue;
        qsi_http_segment *seg = p->segments + i * QSI_PART_SEGMENTS;
        for (int k = 0; k < t->n; k++) seg[k] = (qsi_http_segment){t->begin[k], t->end[k], &t->done[k]};
        p->files[n++] = (qsi_http_file){.url = p->urls[i].data, .name = p->repo.files[i].path,
                                        .fd = t->fd, .ranges = p->ranges, .size = p->repo.files[i].size,
                                        .segments = seg, .n_segments = t->n};
    }
    return n > 0 ? qsi_http_fetch(p->http, p->files, n, on_bytes, p, err) : QS_OK;
}

static int on_check(void *user, uint64_t bytes) {
    pulling *p = user;
    p->done += bytes;
    return p->o->progress != NULL ? p->o->progress(p->o->user, "checking", p->done, p->total) : 0;
}

/* Digest, name, manifest. A file that is not what the hub promised is thrown away. */
static qs_status complete(pulling *p, size_t i, qs_err *err) {
    qs_status st = QS_OK;
    const qsi_hub_file *f = &p->repo.files[i];
    char hex[QSI_DIGEST_HEX];
    qsi_digest_kind kind = f->git_blob != NULL ? QSI_GIT_BLOB : QSI_SHA256;
    const char *want = f->git_blob != NULL ? f->git_blob : f->sha256;
    QS_TRY(qsi_digest_fd(p->parts[i].fd, f->size, kind, hex, on_check, p, err));
    if (want != NULL && strcmp(hex, want) != 0) {
        qsi_part_discard(&p->parts[i], p->dir.data, f->path);
        QS_FAIL(err, QS_E_CORRUPT, "%s: what arrived has the digest %s, the hub says %s; it is removed",
                f->path, hex, want);
    }
    QS_TRY(qsi_part_commit(&p->parts[i], p->dir.data, f->path, err));
    const qsi_stored_file s = {.path = f->path, .size = f->size,
                               .sha256 = kind == QSI_SHA256 ? hex : NULL,
                               .git_blob = kind == QSI_GIT_BLOB ? hex : NULL};
    QS_TRY(qsi_stored_put(&p->stored, &s, err));
    p->stored.source = p->source.data;
    p->stored.revision = p->revision.data != NULL ? p->revision.data : "";
    QS_TRY(qsi_stored_write(&p->stored, err));
done:
    return st;
}

static qs_status complete_all(pulling *p, qs_err *err) {
    qs_status st = QS_OK;
    p->done = 0;
    for (size_t i = 0; i < p->repo.n_files; i++)
        if (p->parts[i].open) QS_TRY(complete(p, i, err));
done:
    return st;
}

/* ---- all ---- */

/* The chosen file, or the folder when it is a folder of weights. */
static qs_status result_path(const pulling *p, qsi_str *path) {
    const char *first = NULL;
    for (size_t i = 0; i < p->repo.n_files; i++) {
        const qsi_hub_file *f = &p->repo.files[i];
        if (!f->chosen) continue;
        if (strcmp(f->path, "config.json") == 0) return qsi_str_puts(path, p->dir.data);
        if (first == NULL || strcmp(f->path, first) < 0) first = f->path;
    }
    return qsi_path_join(path, p->dir.data, first != NULL ? first : "");
}

static void release(pulling *p) {
    for (size_t i = 0; i < p->repo.n_files; i++) {
        if (p->parts != NULL) qsi_part_close(&p->parts[i]);
        if (p->urls != NULL) qsi_str_release(&p->urls[i]);
    }
    qsi_free(p->parts);
    qsi_free(p->urls);
    qsi_free(p->files);
    qsi_free(p->segments);
    qsi_lock_release(&p->lock);
    qsi_stored_release(&p->stored);
    qsi_hub_repo_release(&p->repo);
    qsi_http_free(p->http);
    qsi_str_release(&p->source);
    qsi_str_release(&p->revision);
    qsi_str_release(&p->etag);
    qsi_str_release(&p->dir);
}

static bool is_url(const char *text) {
    return strncasecmp(text, "https://", 8) == 0 || strncasecmp(text, "http://", 7) == 0;
}

static qs_status model_dir(const char *root, const qsi_hub_name *n, qsi_str *dir, qs_err *err) {
    if (qsi_path_join(dir, root, n->owner) != QS_OK || qsi_str_printf(dir, "/%s", n->name) != QS_OK)
        return no_memory(err);
    return QS_OK;
}

qs_status qsi_pull(const qsi_pull_opts *o, const char *text, qsi_str *path, qs_err *err) {
    qs_status st = QS_OK;
    pulling p = {.o = o, .base = o->base != NULL ? o->base : QSI_HUB_BASE, .lock = {-1}};
    const qsi_http_opts ho = {o->token, o->stall_s, o->tries, o->parallel};
    if (is_url(text)) QS_TRY(read_url(&p, text, err));
    else QS_TRY(qsi_hub_name_parse(&p.name, text, err));
    QS_TRY(qsi_http_create(&p.http, &ho, err));
    QS_TRY(find_files(&p, text, err));
    QS_TRY(model_dir(o->root, &p.name, &p.dir, err));
    QS_TRY(qsi_store_lock(p.dir.data, &p.lock, err));
    QS_TRY(qsi_stored_read(&p.stored, p.dir.data, err));
    QS_TRY(open_parts(&p, err));
    QS_TRY(transfer(&p, err));
    QS_TRY(complete_all(&p, err));
    if (result_path(&p, path) != QS_OK) QS_TRY(no_memory(err));
done:
    release(&p);
    return st;
}

/* ---- looking up ---- */

/* The record's files as a listing, so that the same choice applies. */
static qs_status as_repo(const qsi_stored *s, qsi_hub_repo *r, qs_err *err) {
    void *files = NULL;
    if (qsi_grow(&files, &r->cap_files, s->n_files, sizeof *r->files) != QS_OK) return no_memory(err);
    r->files = files;
    for (size_t i = 0; i < s->n_files; i++)
        if (qsi_stored_there(s, &s->files[i]))
            r->files[r->n_files++] = (qsi_hub_file){.path = s->files[i].path, .size = s->files[i].size};
    return QS_OK;
}

qs_status qsi_store_path(const char *root, const char *text, qsi_str *path, qs_err *err) {
    qs_status st = QS_OK;
    pulling p = {.lock = {-1}};
    QS_TRY(qsi_hub_name_parse(&p.name, text, err));
    QS_TRY(model_dir(root, &p.name, &p.dir, err));
    if (qsi_path_is_dir(p.dir.data)) QS_TRY(qsi_stored_read(&p.stored, p.dir.data, err));
    if (p.stored.n_files == 0)
        QS_FAIL(err, QS_E_NOTFOUND, "the store has no model %s/%s: 'qiusuo pull %s' fetches it",
                p.name.owner, p.name.name, text);
    QS_TRY(as_repo(&p.stored, &p.repo, err));
    QS_TRY(qsi_hub_choose(&p.repo, p.name.what, err));
    if (result_path(&p, path) != QS_OK) QS_TRY(no_memory(err));
done:
    release(&p);
    return st;
}
