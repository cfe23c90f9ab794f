/* A kept prefix cache: any file loads as far as it is sound, and what was loaded is a tree that can be
 * searched, added to, emptied and kept again. The first byte says whether hashes are made to fit, so
 * that what lies behind them is reached too. */
#define _GNU_SOURCE /* memfd_create */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/hash.h"
#include "base/log.h"
#include "infer/prefix.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { PAGES = 6, BYTES = 64, KEYS = QSI_KV_PAGE, HEAD = 48, NODE = 8 + 4 * KEYS + 8 };
static unsigned char memory[PAGES][BYTES];
static int32_t held[PAGES];

static qs_status take(void *user, int32_t *page, qs_err *err) {
    (void)user;
    for (int32_t i = 0; i < PAGES; i++)
        if (held[i] == 0) {
            held[i] = 1;
            *page = i;
            return QS_OK;
        }
    return qsi_err_set(err, QS_E_LIMIT, "no page");
}

static void hold(void *user, int32_t page) { (void)user, held[page]++; }
static void drop(void *user, int32_t page) { (void)user, held[page]--; }
static int32_t holds(void *user, int32_t page) { return (void)user, held[page]; }
static void *bytes_of(void *user, int32_t page) { return (void)user, memory[page]; }

static int64_t n_free(void *user) {
    int64_t n = 0;
    (void)user;
    for (int i = 0; i < PAGES; i++) n += held[i] == 0;
    return n;
}

static void hush(void *user, qsi_log_level level, const char *text) {
    (void)user, (void)level, (void)text;
}

/* Magic, version, key and hashes as a loader expects them; counts, parents and ids as they came. */
static void make_fit(unsigned char *p, size_t n) {
    const uint64_t head[4] = { 0x3158465053514951u, 1, 7, BYTES };
    if (n < HEAD) return;
    memcpy(p, head, sizeof head);
    uint64_t h = qsi_hash(p, 40);
    memcpy(p + 40, &h, sizeof h);
    for (size_t at = HEAD; at + NODE + BYTES <= n; at += NODE + BYTES) {
        h = qsi_hash_seed(p + at + NODE, BYTES, qsi_hash(p + at, NODE - 8));
        memcpy(p + at + NODE - 8, &h, sizeof h);
    }
}

static void use(qsi_prefix *p, const char *path) {
    int32_t ids[3 * KEYS], pages[3];
    int64_t n = 0;
    for (int i = 0; i < 3 * KEYS; i++) ids[i] = i % 5;
    size_t have = qsi_prefix_match(p, ids, NULL, 3 * KEYS, pages);
    QS_CHECK(have <= 3 * KEYS);
    for (size_t i = 0; i * KEYS < have; i++) QS_CHECK(held[pages[i]] > 0);
    QS_CHECK(qsi_prefix_n_own(p) <= PAGES);
    QS_CHECK(qsi_prefix_save(p, path, 7, UINT64_MAX, &n, NULL) == QS_OK);
    QS_CHECK(n <= PAGES);
    QS_CHECK(qsi_prefix_make_room(p, PAGES));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    qsi_runner r = { .n_vocab = 100 };
    qsi_prefix *p;
    const char *folder = getenv("TMPDIR");
    char path[64], kept[512];
    unsigned char copy[8192];
    int64_t n = 0;
    if (size < 1 || size - 1 > sizeof copy) return 0;
    r.pages = (qsi_page_fns){ .take = take, .hold = hold, .drop = drop, .holds = holds,
                              .n_free = n_free, .data = bytes_of, .n_pages = PAGES, .bytes = BYTES };
    memcpy(copy, data + 1, size - 1);
    if (data[0] & 1) make_fit(copy, size - 1);
    r.two_paths = data[0] & 2;
    snprintf(kept, sizeof kept, "%s/qs-fuzz-prefix-XXXXXX", folder != NULL ? folder : P_tmpdir);
    int fd = memfd_create("prefix", MFD_CLOEXEC), fd2 = mkstemp(kept);
    if (fd < 0 || fd2 < 0) return 0;
    QS_CHECK(write(fd, copy, size - 1) == (ssize_t)(size - 1));
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    qsi_log_set(hush, NULL);
    QS_CHECK(qsi_prefix_create(&p, &r, true, NULL) == QS_OK);
    qs_status st = qsi_prefix_load(p, path, 7, &n, NULL);
    if (st == QS_OK) use(p, kept);
    qsi_prefix_free(p);
    QS_CHECK(n_free(NULL) == PAGES);
    close(fd);
    close(fd2);
    unlink(kept);
    return 0;
}
