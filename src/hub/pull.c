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
    qsi_str base;                   /* of the hub, without a '/' at its end */
    qsi_hub_name name;
    qsi_str source, revision, etag; /* etag: of a plain URL */
    const char *plain;              /* a URL (its digest is not known), or NULL */
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

/* ---- URLs ---- */

static bool is_url(const char *text) {
    return strncasecmp(text, "https://", 8) == 0 || strncasecmp(text, "http://", 7) == 0;
}

/* A name or password in a URL would stand in messages, in the manifest and in the list of processes:
 * it is refused, and not shown. */
static qs_status check_url(const char *url, qs_err *err) {
    if (!is_url(url))
        return qsi_err_set(err, QS_E_ARG, "the base URL does not begin with http:// or https://");
    const char *host = strstr(url, "://") + 3;
    if (memchr(host, '@', strcspn(host, "/?#")) == NULL) return QS_OK;
    return qsi_err_set(err, QS_E_ARG, "a URL with a name or password before '@' is not taken: give an "
                       "access token in HF_TOKEN or with --token-file");
}

static qs_status take_base(pulling *p, qs_err *err) {
    qs_status st = QS_OK;
    const char *base = p->o->base != NULL ? p->o->base : QSI_HUB_BASE;
    size_t n = strlen(base);
    QS_TRY(check_url(base, err));
    if (strcspn(base, "?#") != n)
        QS_FAIL(err, QS_E_ARG, "the base URL holds a '?' or '#': the hub's own paths follow it");
    while (n > 0 && base[n - 1] == '/') n--;
    if (qsi_str_append(&p->base, base, n) != QS_OK) QS_TRY(no_memory(err));
done:
    return st;
}

/* RFC 3986: every byte that is not "unreserved" as %XX; the slashes stay. */
static qs_status put_escaped(qsi_str *url, const char *path) {
    qs_status st = QS_OK;
    static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~/";
    for (; *path != '\0'; path++) {
        if (strchr(plain, *path) != NULL) QS_TRY(qsi_str_putc(url, *path));
        else QS_TRY(qsi_str_printf(url, "%%%02X", (unsigned char)*path));
    }
done:
    return st;
}

static size_t origin_len(const char *url) {
    const char *host = strstr(url, "://") + 3;
    return (size_t)(host - url) + strcspn(host, "/?#");
}

/* The token belongs to the hub: it goes along to a URL there, and to no other. */
static const char *token_for(const pulling *p) {
    size_t n = origin_len(p->base.data);
    if (p->plain == NULL) return p->o->token;
    bool there = origin_len(p->plain) == n && strncasecmp(p->plain, p->base.data, n) == 0;
    return there ? p->o->token : NULL;
}

/* ---- what there is ---- */

/* "sha" of the revision: all files then come from one commit. */
static qs_status resolve_revision(pulling *p, qs_err *err) {
    qs_status st = QS_OK;
    qsi_str url = {0}, body = {0}, next = {0};
    qsi_json *root = NULL;
    const char *rev = p->name.revision[0] != '\0' ? p->name.revision : "main", *sha = NULL;
    if (qsi_str_printf(&url, "%s/api/models/%s/%s/revision/%s", p->base.data, p->name.owner,
                       p->name.name, rev) != QS_OK)
        QS_TRY(no_memory(err));
    QS_TRY(qsi_http_text(p->http, url.data, INFO_MAX, &body, &next, err));
    st = qsi_json_parse(&root, body.data, body.len,
                        (qsi_json_limits){INFO_MAX, (size_t)QSI_HUB_MAX_FILES * 8}, err);
    if (st == QS_OK) st = qsi_json_str(root, "sha", &sha, err);
    /* What came is not repeated: it may be the request's head, and the token in it. */
    if (st != QS_OK && st != QS_E_NOMEM)
        QS_FAIL(err, st, "%s: the answer is not what a hub sends; is it a hub's address?", url.data);
    QS_TRY(st);
    if (!qsi_hub_path_ok(sha) || strpbrk(sha, "/?#% ") != NULL)
        QS_FAIL(err, QS_E_FORMAT, "%s: the hub names no revision", url.data);
    if (qsi_str_puts(&p->revision, sha) != QS_OK) QS_TRY(no_memory(err));
done:
    qsi_json_free(&root);
    qsi_str_release(&url);
    qsi_str_release(&body);
    qsi_str_release(&next);
    return st;
}

/* Every page is asked for at the place of the first: of the next one's URL only the question counts. A
 * mirror may name the hub it mirrors there, or a path alone. */
static qs_status list_files(pulling *p, qs_err *err) {
    qs_status st = QS_OK;
    qsi_str url = {0}, question = {0}, body = {0}, next = {0};
    if (qsi_str_puts(&question, "?recursive=true") != QS_OK) QS_TRY(no_memory(err));
    for (int page = 0; question.len > 0; page++) {
        if (page == PAGES_MAX) QS_FAIL(err, QS_E_LIMIT, "the hub's listing does not end");
        qsi_str_clear(&url);
        qsi_str_clear(&body);
        if (qsi_str_printf(&url, "%s/api/models/%s/%s/tree/%s%s", p->base.data, p->name.owner,
                           p->name.name, p->revision.data, question.data) != QS_OK)
            QS_TRY(no_memory(err));
        QS_TRY(qsi_http_text(p->http, url.data, LIST_MAX, &body, &next, err));
        QS_TRY(qsi_hub_repo_add(&p->repo, body.data != NULL ? body.data : "", body.len, err));
        const char *more = next.len > 0 ? strchr(next.data, '?') : "";
        if (more == NULL) QS_FAIL(err, QS_E_FORMAT, "the hub's listing goes on at another place");
        qsi_str_clear(&question);
        if (qsi_str_puts(&question, more) != QS_OK) QS_TRY(no_memory(err));
    }
done:
    qsi_str_release(&url);
    qsi_str_release(&question);
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
    QS_TRY(check_url(url, err));
    while (file > host && file[-1] != '/') file--;
    const char *part[2] = {host, file};
    size_t len[2] = {strcspn(host, "/:?#"), (size_t)(end - file)};
    for (int k = 0; k < 2; k++) {
        size_t n = len[k] < QSI_HUB_NAME ? len[k] : QSI_HUB_NAME - 1;
        memcpy(clean[k], part[k], n);
        clean[k][n] = '\0';
        if (n == 0 || n != len[k] || !qsi_hub_path_ok(clean[k]))
            QS_FAIL(err, QS_E_ARG, "'%.*s' does not end in the name of a file",
                    (int)(end - url < 200 ? end - url : 200), url);
    }
    memcpy(p->name.owner, clean[0], strlen(clean[0]) + 1);
    memcpy(p->name.name, clean[1], strlen(clean[1]) + 1);
    p->plain = url;
done:
    return st;
}

/* What follows '?' may be a key to the file: it is not recorded, and not shown. */
static qs_status probe_url(pulling *p, qs_err *err) {
    qs_status st = QS_OK;
    const char *url = p->plain;
    size_t n_shown = strcspn(url, "?#");
    void *files = NULL;
    uint64_t size = 0;
    QS_TRY(qsi_http_probe(p->http, url, &size, &p->ranges, &p->etag, err));
    if (size == UINT64_MAX)
        QS_FAIL(err, QS_E_UNSUPPORTED, "%.*s: the server does not say how large the file is",
                (int)n_shown, url);
    if (qsi_grow(&files, &p->repo.cap_files, 1, sizeof *p->repo.files) != QS_OK) QS_TRY(no_memory(err));
    p->repo.files = files;
    p->repo.files[p->repo.n_files++] =
        (qsi_hub_file){.path = p->name.name, .size = size, .chosen = true};
    if (qsi_str_append(&p->source, url, n_shown) != QS_OK) QS_TRY(no_memory(err));
done:
    return st;
}

static qs_status find_files(pulling *p, qs_err *err) {
    qs_status st = QS_OK;
    if (p->plain != NULL) {
        QS_TRY(probe_url(p, err));
        goto done;
    }
    p->ranges = true;
    if (qsi_str_printf(&p->source, "%s/%s/%s", p->base.data, p->name.owner, p->name.name) != QS_OK)
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
    return p->plain != NULL || same(s->sha256, f->sha256) || same(s->git_blob, f->git_blob) ||
           (f->sha256 == NULL && f->git_blob == NULL);
}

static qs_status put_url(pulling *p, size_t i, qs_err *err) {
    qs_status st = QS_OK;
    qsi_str *url = &p->urls[i];
    if (p->plain != NULL) st = qsi_str_puts(url, p->plain);
    else st = qsi_str_printf(url, "%s/resolve/%s/", p->source.data, p->revision.data);
    if (st == QS_OK && p->plain == NULL) st = put_escaped(url, p->repo.files[i].path);
    return st == QS_OK ? QS_OK : no_memory(err);
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
    QS_TRY(put_url(p, i, err));
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
    qsi_str_release(&p->base);
    qsi_str_release(&p->source);
    qsi_str_release(&p->revision);
    qsi_str_release(&p->etag);
    qsi_str_release(&p->dir);
}

static qs_status model_dir(const char *root, const qsi_hub_name *n, qsi_str *dir, qs_err *err) {
    if (qsi_path_join(dir, root, n->owner) != QS_OK || qsi_str_printf(dir, "/%s", n->name) != QS_OK)
        return no_memory(err);
    return QS_OK;
}

static int on_wait(void *user) {
    const pulling *p = user;
    return p->o->progress != NULL ? p->o->progress(p->o->user, "fetching", 0, 0) : 0;
}

qs_status qsi_pull(const qsi_pull_opts *o, const char *text, qsi_str *path, qs_err *err) {
    qs_status st = QS_OK;
    pulling p = {.o = o, .lock = {-1}};
    qsi_http_opts ho = {NULL, o->stall_s, o->tries, o->parallel, on_wait, &p};
    QS_TRY(take_base(&p, err));
    if (is_url(text)) QS_TRY(read_url(&p, text, err));
    else QS_TRY(qsi_hub_name_parse(&p.name, text, err));
    ho.token = token_for(&p);
    QS_TRY(qsi_http_create(&p.http, &ho, err));
    QS_TRY(find_files(&p, err));
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
