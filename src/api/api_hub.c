/* Public API of the model store. Built without libcurl or OpenSSL every function says so. */
#include <string.h>

#include "base/status.h"
#include "base/str.h"
#include "qiusuo/hub.h"
#ifdef QSI_HAVE_HUB
#include "hub/list.h"
#include "hub/pull.h"
#include "hub/repo.h"
#include "hub/store.h"
#endif

void qs_hub_opts_init(qs_hub_opts *o, size_t size) {
    memset(o, 0, size);
    o->size = size;
}

#ifdef QSI_HAVE_HUB

/* A caller built against an older header has a shorter struct. */
static qs_hub_opts whole_opts(const qs_hub_opts *o) {
    qs_hub_opts all;
    qs_hub_opts_init(&all, sizeof all);
    memcpy(&all, o, o->size < sizeof all ? o->size : sizeof all);
    return all;
}

static qs_status put_path(const qsi_str *path, char *out, size_t cap, qs_err *err) {
    if (path->len + 1 > cap)
        return qsi_err_set(err, QS_E_RANGE, "the path has %zu bytes, there is room for %zu", path->len,
                           cap);
    memcpy(out, path->data, path->len + 1);
    return QS_OK;
}

qs_status qs_hub_pull(const qs_hub_opts *opts, const char *name, char *path, size_t cap, qs_err *err) {
    qs_status st = QS_OK;
    qsi_str found = {0};
    const qs_hub_opts o = whole_opts(opts);
    if (o.store == NULL) QS_FAIL(err, QS_E_ARG, "the store's folder is needed");
    const qsi_pull_opts p = {.root = o.store, .base = o.base, .token = o.token, .parallel = o.parallel,
                             .stall_s = o.stall_s, .tries = o.tries, .again = o.again != 0,
                             .progress = o.progress, .user = o.user};
    QS_TRY(qsi_pull(&p, name, &found, err));
    QS_TRY(put_path(&found, path, cap, err));
done:
    qsi_str_release(&found);
    return st;
}

qs_status qs_hub_path(const char *store, const char *name, char *path, size_t cap, qs_err *err) {
    qs_status st = QS_OK;
    qsi_str found = {0};
    QS_TRY(qsi_store_path(store, name, &found, err));
    QS_TRY(put_path(&found, path, cap, err));
done:
    qsi_str_release(&found);
    return st;
}

qs_status qs_hub_list(const qs_hub_opts *opts, uint32_t flags, qs_text_fn *out, void *out_user,
                      qs_err *err) {
    const qs_hub_opts o = whole_opts(opts);
    if (o.store == NULL) return qsi_err_set(err, QS_E_ARG, "the store's folder is needed");
    const qsi_list_opts l = {.root = o.store, .json = (flags & QS_HUB_JSON) != 0,
                             .verify = (flags & QS_HUB_VERIFY) != 0, .out = out, .out_user = out_user,
                             .progress = o.progress, .user = o.user};
    return qsi_hub_list(&l, err);
}

qs_status qs_hub_remove(const char *store, const char *name, uint64_t *bytes, qs_err *err) {
    qs_status st = QS_OK;
    qsi_hub_name n;
    uint64_t freed = 0;
    QS_TRY(qsi_hub_name_parse(&n, name, err));
    QS_TRY(qsi_store_remove(store, n.owner, n.name, n.what[0] != '\0' ? n.what : NULL, &freed, err));
    if (bytes != NULL) *bytes = freed;
done:
    return st;
}

#else

static qs_status left_out(qs_err *err) {
    return qsi_err_set(err, QS_E_UNSUPPORTED, "this build has no model store: install "
                       "libcurl4-openssl-dev and libssl-dev and build again");
}
qs_status qs_hub_pull(const qs_hub_opts *o, const char *name, char *path, size_t cap, qs_err *err) {
    return left_out(err);
}
qs_status qs_hub_path(const char *store, const char *name, char *path, size_t cap, qs_err *err) {
    return left_out(err);
}
qs_status qs_hub_list(const qs_hub_opts *o, uint32_t flags, qs_text_fn *out, void *out_user,
                      qs_err *err) {
    return left_out(err);
}
qs_status qs_hub_remove(const char *store, const char *name, uint64_t *bytes, qs_err *err) {
    return left_out(err);
}

#endif
