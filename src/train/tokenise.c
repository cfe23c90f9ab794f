/* Text to vocabulary and token shards (dataset.h). Documents are gathered into jobs of about a
 * megabyte, encoded on the pool, and appended in the order they came: the shard does not depend on
 * the number of threads. */
#include <string.h>

#include "base/hash.h"
#include "train/dataset.h"

#define JOB_BYTES ((size_t)1 << 20) /* text gathered before the pool is entered */
#define JOB_DOCS 4096

/* ---- learning a vocabulary ---- */

typedef struct learner {
    qsi_bpe_trainer *t;
    uint64_t limit;    /* documents of a hash up to this are taken */
    int64_t seen, total, told;
    qsi_str chat;
    qsi_data_progress *progress;
    void *user;
} learner;

/* The hash of a document decides validation already; sampling wants another, independent one. */
static uint64_t sampling_hash(uint64_t h) { return qsi_hash(&h, sizeof(h)); }

static qs_status learn_doc(void *user, const qsi_doc *d, qs_err *err) {
    qs_status st = QS_OK;
    learner *l = user;
    const char *text = d->text;
    size_t n = d->n;
    if (d->text == NULL) {
        qsi_str_clear(&l->chat);
        for (size_t i = 0; i < d->n_turns; i++) {
            const qsi_turn *t = &d->turns[i];
            if (t->role == QSI_USER) QS_TRY(qsi_str_puts(&l->chat, "User: "));
            if (t->role == QSI_ASSISTANT) QS_TRY(qsi_str_puts(&l->chat, "Assistant: "));
            QS_TRY(qsi_str_append(&l->chat, t->text, t->n));
            if (t->role != QSI_ASSISTANT) QS_TRY(qsi_str_puts(&l->chat, "\n\n"));
        }
        text = l->chat.data;
        n = l->chat.len;
    }
    if (n > 0 && sampling_hash(d->hash) <= l->limit) QS_TRY(qsi_bpe_trainer_add(l->t, text, n, err));
    l->seen += (int64_t)n;
    if (l->progress != NULL && l->seen - l->told >= 1 << 20) {
        l->told = l->seen;
        if (l->progress(l->user, "reading text", l->seen, l->total) != 0)
            QS_FAIL(err, QS_E_CANCELLED, "interrupted while reading text");
    }
done:
    return st;
}

static int learn_progress(void *user, int64_t done, int64_t of) {
    learner *l = user;
    return l->progress != NULL ? l->progress(l->user, "learning the vocabulary", done, of) : 0;
}

qs_status qsi_dataset_learn_vocab(const qsi_source_files *f, const qsi_source_opts *o,
                                  const char *pre, int64_t n_vocab, int64_t sample_bytes,
                                  qsi_data_progress *progress, void *user, qsi_vocab **out,
                                  qs_err *err) {
    qs_status st = QS_OK;
    learner l = {.total = f->bytes, .progress = progress, .user = user};
    double share = f->bytes > sample_bytes ? (double)sample_bytes / (double)f->bytes : 1;
    l.limit = share >= 1 ? UINT64_MAX : (uint64_t)(share * 18446744073709549568.0);
    QS_TRY(qsi_bpe_trainer_create(&l.t, pre, err));
    QS_TRY(qsi_source_each(f, o, learn_doc, &l, err));
    QS_TRY(qsi_bpe_trainer_finish(l.t, (int32_t)n_vocab, learn_progress, &l, out, err));
done:
    qsi_bpe_trainer_free(l.t);
    qsi_str_release(&l.chat);
    return st;
}

/* ---- shards ---- */

typedef struct job { /* one document, copied */
    qsi_doc doc;
    qsi_ids ids, mask;
    qs_status st;
    qs_err err;
} job;

typedef struct encoder {
    const qsi_vocab *v;
    const qsi_chat_template *tmpl;
    qsi_pool *pool;
    qsi_shard_writer *w;
    job *jobs;
    size_t n, cap, bytes;
    qsi_arena arena;
    int64_t seen, total;
    qsi_data_progress *progress;
    void *user;
} encoder;

static qs_status encode_doc(const encoder *e, job *j) {
    qs_status st = QS_OK;
    const qsi_doc *d = &j->doc;
    qs_err *err = &j->err;
    if (d->text == NULL) {
        if (e->tmpl == NULL)
            QS_FAIL(err, QS_E_UNSUPPORTED, "conversations need a chat template");
        QS_TRY(qsi_chat_render(e->tmpl, e->v, d->turns, d->n_turns, 0, false, &j->ids, &j->mask,
                               err));
        goto done;
    }
    int32_t eos = qsi_vocab_eos(e->v);
    QS_TRY(qsi_encode(e->v, d->text, d->n, d->first ? QSI_ENC_BOS : 0, &j->ids, err));
    if (d->last && eos >= 0) QS_TRY(qsi_ids_push(&j->ids, eos));
done:
    return st;
}

static void encode_worker(const qsi_worker *w, void *arg) {
    encoder *e = arg;
    int64_t i;
    while ((i = qsi_ticket(w)) < (int64_t)e->n) e->jobs[i].st = encode_doc(e, &e->jobs[i]);
}

static void reset_worker(const qsi_worker *w, void *arg) {
    (void)arg;
    if (w->index == 0) qsi_ticket_reset(w);
}

static void drop_jobs(encoder *e) {
    for (size_t i = 0; i < e->n; i++) {
        qsi_ids_release(&e->jobs[i].ids);
        qsi_ids_release(&e->jobs[i].mask);
    }
    e->n = 0;
    e->bytes = 0;
    qsi_arena_release(&e->arena);
    qsi_arena_init(&e->arena);
}

static qs_status flush_jobs(encoder *e, qs_err *err) {
    qs_status st = QS_OK;
    if (e->n == 0) return QS_OK;
    qsi_pool_run(e->pool, reset_worker, NULL);
    qsi_pool_run_alloc(e->pool, encode_worker, e);
    for (size_t i = 0; i < e->n; i++) {
        job *j = &e->jobs[i];
        if (j->st != QS_OK) {
            if (err != NULL) *err = j->err;
            qsi_err_prefix(err, "'%s' line %lld", j->doc.file, (long long)j->doc.line);
            st = j->st;
            goto done;
        }
        if (j->ids.len < 2) continue; /* nothing to predict */
        QS_TRY(qsi_shard_put(e->w, j->ids.data, j->mask.len > 0 ? j->mask.data : NULL, j->ids.len,
                             j->doc.hash, j->doc.source, err));
    }
    if (e->progress != NULL && e->progress(e->user, "encoding text", e->seen, e->total) != 0)
        QS_FAIL(err, QS_E_CANCELLED, "interrupted while encoding text");
done:
    drop_jobs(e);
    return st;
}

/* Copies what the caller's document borrows. */
static bool copy_doc(encoder *e, const qsi_doc *d, job *j) {
    *j = (job){.doc = *d, .err = {.offset = -1}};
    j->doc.file = qsi_arena_strndup(&e->arena, d->file, strlen(d->file));
    if (j->doc.file == NULL) return false;
    if (d->text != NULL) {
        e->bytes += d->n;
        j->doc.text = qsi_arena_strndup(&e->arena, d->text, d->n);
        return j->doc.text != NULL;
    }
    qsi_turn *t = qsi_arena_calloc(&e->arena, d->n_turns, sizeof(*t));
    if (t == NULL) return false;
    for (size_t i = 0; i < d->n_turns; i++) {
        t[i] = d->turns[i];
        t[i].text = qsi_arena_strndup(&e->arena, d->turns[i].text, d->turns[i].n);
        if (t[i].text == NULL) return false;
        e->bytes += t[i].n;
    }
    j->doc.turns = t;
    return true;
}

static qs_status encode_each(void *user, const qsi_doc *d, qs_err *err) {
    qs_status st = QS_OK;
    encoder *e = user;
    size_t had = e->bytes;
    if (qsi_grow((void **)&e->jobs, &e->cap, e->n + 1, sizeof(*e->jobs)) != QS_OK ||
        !copy_doc(e, d, &e->jobs[e->n]))
        QS_FAIL(err, QS_E_NOMEM, "out of memory while encoding '%s'", d->file);
    e->n++;
    e->seen += (int64_t)(e->bytes - had);
    if (e->bytes >= JOB_BYTES || e->n >= JOB_DOCS) QS_TRY(flush_jobs(e, err));
done:
    return st;
}

qs_status qsi_dataset_write_shard(const char *path, const qsi_source_files *f,
                                  const qsi_source_opts *o, const qsi_vocab *v,
                                  const qsi_chat_template *tmpl, qsi_pool *pool, uint64_t key,
                                  qsi_data_progress *progress, void *user, qs_err *err) {
    qs_status st = QS_OK;
    encoder e = {.v = v, .tmpl = tmpl, .pool = pool, .total = f->bytes, .progress = progress,
                 .user = user};
    qsi_arena_init(&e.arena);
    QS_TRY(qsi_shard_writer_open(&e.w, path, qsi_vocab_hash(v), qsi_vocab_size(v), key, err));
    QS_TRY(qsi_source_each(f, o, encode_each, &e, err));
    QS_TRY(flush_jobs(&e, err));
    QS_TRY(qsi_shard_finish(&e.w, err));
done:
    qsi_shard_writer_abort(&e.w);
    drop_jobs(&e);
    qsi_arena_release(&e.arena);
    qsi_free(e.jobs);
    return st;
}
