/* One line a file: OWNER/NAME:PATH, size, state. */
#include "hub/list.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "base/str.h"
#include "hub/digest.h"
#include "hub/store.h"
#include "sys/file.h"
#include "sys/oserr.h"

typedef struct listing {
    const qsi_list_opts *o;
    qsi_str text;
    uint64_t done, total;
    int n, n_bad;
} listing;

static qs_status count(void *user, const char *name, const qsi_stored *s, qs_err *err) {
    listing *l = user;
    for (size_t i = 0; i < s->n_files; i++) l->total += s->files[i].size;
    return QS_OK;
}

static int on_check(void *user, uint64_t bytes) {
    listing *l = user;
    l->done += bytes;
    return l->o->progress != NULL ? l->o->progress(l->o->user, "checking", l->done, l->total) : 0;
}

/* "ok", or what is wrong. */
static qs_status state_of(listing *l, const qsi_stored *s, const qsi_stored_file *f, const char **state,
                          qs_err *err) {
    qs_status st = QS_OK;
    qsi_str path = {0};
    char hex[QSI_DIGEST_HEX];
    int fd = -1;
    *state = "missing or of another size";
    if (!qsi_stored_there(s, f)) goto done;
    *state = "ok";
    if (!l->o->verify) goto done;
    if (qsi_path_join(&path, s->dir, f->path) != QS_OK) QS_FAIL(err, QS_E_NOMEM, "out of memory");
    fd = open(path.data, O_RDONLY | O_CLOEXEC);
    if (fd < 0) QS_TRY(qsi_err_errno(err, errno, "cannot open '%s'", path.data));
    const char *want = f->sha256 != NULL ? f->sha256 : f->git_blob;
    QS_TRY(qsi_digest_fd(fd, f->size, f->sha256 != NULL ? QSI_SHA256 : QSI_GIT_BLOB, hex, on_check, l,
                         err));
    if (want == NULL || strcmp(want, hex) != 0) *state = "damaged: its digest differs";
done:
    if (fd >= 0) close(fd);
    qsi_str_release(&path);
    return st;
}

static qs_status json_line(qsi_str *t, const char *name, const qsi_stored *s, const qsi_stored_file *f,
                           const char *state, bool first) {
    qs_status st = QS_OK;
    const char *digest = f->sha256 != NULL ? f->sha256 : f->git_blob != NULL ? f->git_blob : "";
    QS_TRY(qsi_str_puts(t, first ? "\n {\"model\":" : ",\n {\"model\":"));
    QS_TRY(qsi_str_json(t, name, strlen(name)));
    QS_TRY(qsi_str_puts(t, ",\"file\":"));
    QS_TRY(qsi_str_json(t, f->path, strlen(f->path)));
    QS_TRY(qsi_str_printf(t, ",\"size\":%" PRIu64 ",\"%s\":\"%s\",\"path\":", f->size,
                          f->sha256 != NULL ? "sha256" : "git_blob", digest));
    qsi_str path = {0};
    st = qsi_path_join(&path, s->dir, f->path);
    if (st == QS_OK) st = qsi_str_json(t, path.data, path.len);
    qsi_str_release(&path);
    QS_TRY(st);
    QS_TRY(qsi_str_puts(t, ",\"source\":"));
    QS_TRY(qsi_str_json(t, s->source, strlen(s->source)));
    QS_TRY(qsi_str_puts(t, ",\"revision\":"));
    QS_TRY(qsi_str_json(t, s->revision, strlen(s->revision)));
    QS_TRY(qsi_str_puts(t, ",\"state\":"));
    QS_TRY(qsi_str_json(t, state, strlen(state)));
    QS_TRY(qsi_str_putc(t, '}'));
done:
    return st;
}

static qs_status describe(void *user, const char *name, const qsi_stored *s, qs_err *err) {
    qs_status st = QS_OK;
    listing *l = user;
    for (size_t i = 0; i < s->n_files; i++) {
        const qsi_stored_file *f = &s->files[i];
        const char *state = "";
        char size[QSI_SIZE_TEXT];
        QS_TRY(state_of(l, s, f, &state, err));
        bool ok = strcmp(state, "ok") == 0;
        qsi_str_clear(&l->text);
        if (l->o->json) st = json_line(&l->text, name, s, f, state, l->n == 0);
        else
            st = qsi_str_printf(&l->text, "%s:%s  %s%s%s\n", name, f->path,
                                qsi_size_text(size, f->size), ok ? "" : "  ", ok ? "" : state);
        if (st != QS_OK) QS_FAIL(err, QS_E_NOMEM, "out of memory");
        l->o->out(l->o->out_user, l->text.data, l->text.len);
        l->n++;
        l->n_bad += !ok;
    }
done:
    return st;
}

qs_status qsi_hub_list(const qsi_list_opts *o, qs_err *err) {
    qs_status st = QS_OK;
    listing l = {.o = o};
    if (o->verify) QS_TRY(qsi_store_walk(o->root, count, &l, err));
    if (o->json) o->out(o->out_user, "[", 1);
    QS_TRY(qsi_store_walk(o->root, describe, &l, err));
    if (o->json) o->out(o->out_user, "]\n", 2);
    if (l.n_bad > 0)
        QS_FAIL(err, QS_E_CORRUPT, "%d of %d files are not what was fetched; 'qiusuo pull' fetches them "
                "again", l.n_bad, l.n);
done:
    qsi_str_release(&l.text);
    return st;
}
