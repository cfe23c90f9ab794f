/* Checkpoints of a run; see runstate.h. */
#include "train/runstate.h"

#include <inttypes.h>
#include <string.h>

#include "base/cursor.h"
#include "base/log.h"
#include "fmt/ckpt.h"
#include "sys/file.h"
#include "sys/runfile.h"

#define STATE_VERSION 1u
#define MANIFEST_HEAD "qiusuo checkpoints 1\n"
#define MAX_LISTED 4096

typedef struct listed {
    int64_t step;
    qsi_ckpt_mark mark;
} listed;

typedef struct listing {
    listed v[MAX_LISTED]; /* ascending steps */
    size_t n;
} listing;

static qs_status ckpt_path(qsi_str *out, const char *dir, int64_t step) {
    qs_status st = QS_OK;
    qsi_str_clear(out);
    QS_TRY(qsi_path_join(out, dir, "checkpoints"));
    QS_TRY(qsi_str_printf(out, "/step-%08" PRId64 ".ckpt", step));
done:
    return st;
}

/* ---- the state's bytes ---- */

static qs_status le(qsi_str *s, uint64_t v) {
    uint8_t b[8];
    for (int i = 0; i < 8; i++) b[i] = (uint8_t)(v >> (8 * i));
    return qsi_str_append(s, b, 8);
}

static uint64_t bits_of(double x) {
    uint64_t u;
    memcpy(&u, &x, sizeof(u));
    return u;
}

static qs_status encode_state(const qsi_run_state *s, qsi_str *out) {
    qs_status st = QS_OK;
    const uint64_t v[] = {STATE_VERSION, (uint64_t)s->step, (uint64_t)s->tokens, s->seed,
                          (uint64_t)s->pos.epoch, (uint64_t)s->pos.index, s->vocab_hash,
                          s->data_key, bits_of(s->elapsed), (uint64_t)s->length_kind,
                          bits_of(s->length), s->decaying};
    for (size_t i = 0; i < QSI_COUNT(v); i++) QS_TRY(le(out, v[i]));
done:
    return st;
}

static qs_status decode_state(const qsi_ckpt *c, qsi_run_state *s, qs_err *err) {
    qs_status st = QS_OK;
    const qsi_ckpt_entry *e = qsi_ckpt_find(c, "state");
    qsi_cursor cur;
    if (e == NULL) QS_FAIL(err, QS_E_FORMAT, "checkpoint without a state");
    qsi_cursor_init(&cur, e->data, e->bytes);
    uint64_t version = qsi_cursor_u64(&cur);
    if (version != STATE_VERSION)
        QS_FAIL(err, QS_E_UNSUPPORTED, "checkpoint: state of version %llu",
                (unsigned long long)version);
    qsi_run_state r = {0};
    r.step = (int64_t)qsi_cursor_u64(&cur);
    r.tokens = (int64_t)qsi_cursor_u64(&cur);
    r.seed = qsi_cursor_u64(&cur);
    r.pos.epoch = (int64_t)qsi_cursor_u64(&cur);
    r.pos.index = (int64_t)qsi_cursor_u64(&cur);
    r.vocab_hash = qsi_cursor_u64(&cur);
    r.data_key = qsi_cursor_u64(&cur);
    r.elapsed = qsi_cursor_f64(&cur);
    r.length_kind = (int64_t)qsi_cursor_u64(&cur);
    r.length = qsi_cursor_f64(&cur);
    r.decaying = qsi_cursor_u64(&cur) != 0;
    if (cur.failed || r.step < 0 || r.tokens < 0 || r.pos.epoch < 0 || r.pos.index < 0)
        QS_FAIL(err, QS_E_FORMAT, "checkpoint: impossible state");
    *s = r;
done:
    return st;
}

/* ---- the list of checkpoints ---- */

static void list_insert(listing *l, int64_t step, qsi_ckpt_mark mark) {
    size_t i = 0;
    while (i < l->n && l->v[i].step < step) i++;
    if (i < l->n && l->v[i].step == step) {
        l->v[i].mark = mark;
        return;
    }
    if (l->n == MAX_LISTED) return;
    memmove(&l->v[i + 1], &l->v[i], (l->n - i) * sizeof(l->v[0]));
    l->v[i] = (listed){step, mark};
    l->n++;
}

/* Everything in the folder that is named like a checkpoint, marked LAST. */
static void list_folder(const char *dir, listing *l) {
    qsi_str path = {0};
    char **names = NULL;
    size_t n = 0;
    if (qsi_path_join(&path, dir, "checkpoints") == QS_OK && qsi_path_is_dir(path.data) &&
        qsi_dir_list(path.data, &names, &n, NULL) == QS_OK) {
        for (size_t i = 0; i < n; i++) {
            char *end = NULL;
            if (strncmp(names[i], "step-", 5) == 0) {
                long long step = strtoll(names[i] + 5, &end, 10);
                if (end > names[i] + 5 && strcmp(end, ".ckpt") == 0 && step >= 0)
                    list_insert(l, step, QSI_MARK_LAST);
            }
            qsi_free(names[i]);
        }
        qsi_free(names);
    }
    qsi_str_release(&path);
}

static void set_mark(listing *l, int64_t step, qsi_ckpt_mark mark) {
    for (size_t i = 0; i < l->n; i++)
        if (l->v[i].step == step) l->v[i].mark = mark;
}

/* Marks of those listed, from the manifest: as many as it has sound lines. */
static void read_marks(const char *dir, listing *l) {
    qsi_str path = {0}, text = {0};
    if (qsi_path_join(&path, dir, "checkpoints/MANIFEST") != QS_OK || !qsi_path_exists(path.data) ||
        qsi_file_read(path.data, 1 << 20, &text, NULL) != QS_OK)
        goto done;
    size_t n_head = strlen(MANIFEST_HEAD);
    if (text.len < n_head || memcmp(text.data, MANIFEST_HEAD, n_head) != 0) goto done;
    bool ok = true;
    for (const char *p = text.data + n_head; *p != '\0' && ok;) {
        long long step = 0;
        unsigned long long bytes = 0, hash = 0;
        char mark[8] = "";
        const char *nl = strchr(p, '\n');
        ok = nl != NULL && sscanf(p, "%lld %llu %llx %7s", &step, &bytes, &hash, mark) == 4 &&
             step >= 0 && (strcmp(mark, "last") == 0 || strcmp(mark, "stage") == 0);
        if (ok) set_mark(l, step, strcmp(mark, "stage") == 0 ? QSI_MARK_STAGE : QSI_MARK_LAST);
        p = nl != NULL ? nl + 1 : p + strlen(p);
    }
done:
    qsi_str_release(&path);
    qsi_str_release(&text);
}

/* Size and hash of a listed checkpoint from the old manifest's text, when it has them. */
static void listed_facts(const char *text, int64_t step, unsigned long long *bytes,
                         unsigned long long *hash) {
    *bytes = *hash = 0;
    for (const char *p = text; p != NULL && *p != '\0';) {
        long long s = 0;
        unsigned long long b = 0, h = 0;
        if (sscanf(p, "%lld %llu %llx", &s, &b, &h) == 3 && s == step) {
            *bytes = b;
            *hash = h;
            return;
        }
        p = strchr(p, '\n');
        if (p != NULL) p++;
    }
}

static qs_status write_manifest(const char *dir, const listing *l, int64_t new_step,
                                uint64_t new_bytes, uint64_t new_hash, qs_err *err) {
    qs_status st = QS_OK;
    qsi_str path = {0}, old = {0}, text = {0};
    qsi_writer *w = NULL;
    QS_TRY(qsi_path_join(&path, dir, "checkpoints/MANIFEST"));
    if (qsi_path_exists(path.data) && qsi_file_read(path.data, 1 << 20, &old, NULL) != QS_OK)
        qsi_str_clear(&old);
    QS_TRY(qsi_str_puts(&text, MANIFEST_HEAD));
    for (size_t i = 0; i < l->n; i++) {
        unsigned long long bytes = new_bytes, hash = new_hash;
        if (l->v[i].step != new_step) listed_facts(old.data, l->v[i].step, &bytes, &hash);
        QS_TRY(qsi_str_printf(&text, "%" PRId64 " %llu %016llx %s\n", l->v[i].step, bytes, hash,
                              l->v[i].mark == QSI_MARK_STAGE ? "stage" : "last"));
    }
    QS_TRY(qsi_writer_open(&w, path.data, err));
    QS_TRY(qsi_writer_write(w, text.data, text.len, err));
    QS_TRY(qsi_writer_commit(&w, err));
done:
    qsi_writer_abort(&w);
    qsi_str_release(&path);
    qsi_str_release(&old);
    qsi_str_release(&text);
    return st;
}

/* ---- saving ---- */

static qs_status put_tensors(qsi_ckpt_writer *w, const char *kind, const qsi_net *net,
                             float *const *values, qs_err *err) {
    qs_status st = QS_OK;
    char name[QSI_CKPT_MAX_NAME + 1];
    size_t n = net->n_params(net->self);
    for (size_t i = 0; i < n; i++) {
        const qsi_param *p = net->param(net->self, i);
        snprintf(name, sizeof(name), "%s/%s", kind, p->name);
        QS_TRY(qsi_ckpt_put_f32(w, name, p->n_dims, p->ne, values != NULL ? values[i] : p->master,
                                err));
    }
done:
    return st;
}

static qs_status write_ckpt(const char *path, const qsi_run_state *s, const char *identity,
                            const qsi_net *net, const qsi_optim *opt, uint64_t *bytes,
                            uint64_t *hash, qs_err *err) {
    static const char layout[] = "{\"ranks\":1,\"tensors\":\"whole\"}";
    qs_status st = QS_OK;
    qsi_ckpt_writer *w = NULL;
    qsi_str state = {0};
    if (encode_state(s, &state) != QS_OK)
        QS_FAIL(err, QS_E_NOMEM, "out of memory for a checkpoint");
    QS_TRY(qsi_ckpt_writer_open(&w, path, err));
    QS_TRY(qsi_ckpt_put_bytes(w, "state", state.data, state.len, err));
    QS_TRY(qsi_ckpt_put_bytes(w, "identity", identity, strlen(identity), err));
    QS_TRY(qsi_ckpt_put_bytes(w, "layout", layout, sizeof(layout) - 1, err));
    QS_TRY(put_tensors(w, "master", net, NULL, err));
    QS_TRY(put_tensors(w, "adam_m", net, opt->m, err));
    QS_TRY(put_tensors(w, "adam_v", net, opt->v, err));
    QS_TRY(qsi_ckpt_finish(&w, bytes, hash, err));
done:
    qsi_ckpt_writer_abort(&w);
    qsi_str_release(&state);
    return st;
}

/* Splits l into those to keep and those to drop: all but the newest `keep`, the newest STAGE one
 * excepted. Steps beyond `step` belong to a branch that was given up. */
static void split_kept(const listing *l, int64_t step, int64_t keep, listing *kept,
                       listing *dropped) {
    int64_t stage = -1, n = 0;
    for (size_t i = 0; i < l->n; i++) {
        n += l->v[i].step <= step;
        if (l->v[i].mark == QSI_MARK_STAGE && l->v[i].step <= step) stage = l->v[i].step;
    }
    kept->n = dropped->n = 0;
    for (size_t i = 0; i < l->n; i++) {
        bool in = l->v[i].step <= step && (n - (int64_t)i <= keep || l->v[i].step == stage);
        list_insert(in ? kept : dropped, l->v[i].step, l->v[i].mark);
    }
}

qs_status qsi_run_save(const char *dir, const qsi_run_state *s, const char *identity,
                       const qsi_net *net, const qsi_optim *opt, qsi_ckpt_mark mark, int64_t keep,
                       qs_err *err) {
    qs_status st = QS_OK;
    qsi_str path = {0};
    uint64_t bytes = 0, hash = 0;
    listing *l = qsi_calloc(3, sizeof(*l)); /* all, kept, dropped */
    if (l == NULL) QS_FAIL(err, QS_E_NOMEM, "out of memory for a checkpoint");
    QS_TRY(qsi_path_join(&path, dir, "checkpoints"));
    QS_TRY(qsi_make_dirs(path.data, err));
    QS_TRY(ckpt_path(&path, dir, s->step));
    QS_TRY(write_ckpt(path.data, s, identity, net, opt, &bytes, &hash, err));
    list_folder(dir, &l[0]);
    read_marks(dir, &l[0]);
    set_mark(&l[0], s->step, mark);
    split_kept(&l[0], s->step, keep, &l[1], &l[2]);
    QS_TRY(write_manifest(dir, &l[1], s->step, bytes, hash, err));
    for (size_t i = 0; i < l[2].n; i++) {
        QS_TRY(ckpt_path(&path, dir, l[2].v[i].step));
        QS_TRY(qsi_file_remove(path.data, err));
    }
done:
    qsi_str_release(&path);
    qsi_free(l);
    return st;
}

/* ---- loading ---- */

static qs_status take_tensor(const qsi_ckpt *c, const char *kind, const qsi_param *p, float *to,
                             bool copy, qs_err *err) {
    qs_status st = QS_OK;
    char name[QSI_CKPT_MAX_NAME + 1];
    snprintf(name, sizeof(name), "%s/%s", kind, p->name);
    const qsi_ckpt_entry *e = qsi_ckpt_find(c, name);
    if (e == NULL) QS_FAIL(err, QS_E_FORMAT, "checkpoint without tensor '%s'", name);
    bool same = e->kind == QSI_CKPT_F32 && e->n_dims == p->n_dims &&
                e->bytes == (size_t)p->n * sizeof(float);
    for (int i = 0; i < p->n_dims && same; i++) same = e->ne[i] == p->ne[i];
    if (!same)
        QS_FAIL(err, QS_E_FORMAT, "checkpoint: the shape of '%s' is not the model's", name);
    if (copy && e->bytes > 0) memcpy(to, e->data, e->bytes);
done:
    return st;
}

/* All tensors are checked before the first is copied: a failure leaves net and optimizer alone. */
static qs_status take_tensors(const qsi_ckpt *c, const qsi_net *net, qsi_optim *opt, qs_err *err) {
    qs_status st = QS_OK;
    size_t n = net->n_params(net->self);
    for (int copy = 0; copy < 2; copy++)
        for (size_t i = 0; i < n; i++) {
            const qsi_param *p = net->param(net->self, i);
            QS_TRY(take_tensor(c, "master", p, p->master, copy, err));
            QS_TRY(take_tensor(c, "adam_m", p, opt->m[i], copy, err));
            QS_TRY(take_tensor(c, "adam_v", p, opt->v[i], copy, err));
        }
done:
    return st;
}

static qs_status load_one(const char *path, int64_t step, bool before_decay, qsi_run_state *s,
                          qsi_str *identity, const qsi_net *net, qsi_optim *opt, bool *skipped,
                          qs_err *err) {
    qs_status st = QS_OK;
    qsi_ckpt *c = NULL;
    qsi_run_state r = {0};
    *skipped = false;
    QS_TRY(qsi_ckpt_open(&c, path, err));
    QS_TRY(decode_state(c, &r, err));
    const qsi_ckpt_entry *e = qsi_ckpt_find(c, "identity");
    if (e == NULL || r.step != step)
        QS_FAIL(err, QS_E_FORMAT, "'%s': not the checkpoint of step %" PRId64, path, step);
    if (before_decay && r.decaying) {
        *skipped = true;
        goto done;
    }
    if (net != NULL) QS_TRY(take_tensors(c, net, opt, err));
    QS_TRY(qsi_str_append(identity, e->data, e->bytes));
    *s = r;
done:
    qsi_ckpt_close(&c);
    return st;
}

qs_status qsi_run_load(const char *dir, bool before_decay, qsi_run_state *s, qsi_str *identity,
                       const qsi_net *net, qsi_optim *opt, bool *found, qs_err *err) {
    qs_status st = QS_OK;
    qsi_str path = {0};
    qs_err why = {0};
    size_t bad = 0;
    listing *l = qsi_calloc(1, sizeof(*l));
    *found = false;
    if (l == NULL) QS_FAIL(err, QS_E_NOMEM, "out of memory for the list of checkpoints");
    list_folder(dir, l);
    for (size_t i = l->n; i > 0 && !*found; i--) {
        bool skipped = false;
        QS_TRY(ckpt_path(&path, dir, l->v[i - 1].step));
        st = load_one(path.data, l->v[i - 1].step, before_decay, s, identity, net, opt, &skipped,
                      &why);
        if (st == QS_E_NOMEM) {
            if (err != NULL) *err = why;
            goto done;
        }
        if (st != QS_OK) {
            bad++;
            /* said once, when the run is taken up and not while its settings are looked at */
            if (net != NULL) qsi_log(QSI_LOG_WARN, "%s; trying the checkpoint before it", why.text);
        }
        *found = st == QS_OK && !skipped;
        st = QS_OK;
    }
    if (!*found && bad > 0 && bad == l->n)
        QS_FAIL(err, QS_E_CORRUPT, "no sound checkpoint in '%s' (%s); to start again, remove its "
                "folder 'checkpoints'", dir, why.text);
done:
    qsi_str_release(&path);
    qsi_free(l);
    return st;
}
