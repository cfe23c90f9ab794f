/* Paths, folders and the place of the running program. */
#define _GNU_SOURCE /* statvfs, fstatat and realpath under c11 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/mem.h"
#include "sys/file.h"
#include "sys/oserr.h"

bool qsi_path_exists(const char *path) {
    struct stat sb;
    return stat(path, &sb) == 0;
}

uint64_t qsi_file_bytes(const char *path) {
    struct stat sb;
    return stat(path, &sb) == 0 && S_ISREG(sb.st_mode) ? (uint64_t)sb.st_size : 0;
}

bool qsi_path_is_dir(const char *path) {
    struct stat sb;
    return stat(path, &sb) == 0 && S_ISDIR(sb.st_mode);
}

bool qsi_same_file(const char *a, const char *b) {
    struct stat x, y;
    return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

/* Whether out is one of the parts of the split model that `in` is a part of. */
static bool is_part(const char *in, const char *out) {
    static const char form[] = "-00000-of-00000.gguf";
    size_t len = strlen(in), tail = sizeof form - 1;
    bool hit = false;
    if (len < tail) return false;
    for (size_t i = 0; i < tail; i++) {
        char c = in[len - tail + i];
        if (form[i] == '0' ? c < '0' || c > '9' : c != form[i]) return false;
    }
    char *name = qsi_alloc(len + 1, 1);
    if (name == NULL) return false;
    memcpy(name, in, len + 1);
    long n = strtol(in + len - 10, NULL, 10);
    for (long k = 1; k <= n && !hit; k++) {
        char *at = name + len - tail + 1;
        long left = k;
        for (int i = 4; i >= 0; i--, left /= 10) at[i] = (char)('0' + left % 10);
        hit = qsi_same_file(name, out);
    }
    qsi_free(name);
    return hit;
}

/* Whether out is a file of folder `in` that is read with it. */
static qs_status is_inside(const char *in, const char *out, bool *hit, qs_err *err) {
    qs_status st = QS_OK;
    char **names = NULL;
    size_t n = 0;
    qsi_str path = {0};
    QS_TRY(qsi_dir_list(in, &names, &n, err));
    for (size_t i = 0; i < n && !*hit; i++) {
        size_t len = strlen(names[i]);
        if (len > 5 && strcmp(names[i] + len - 5, ".gguf") == 0) continue;
        qsi_str_clear(&path);
        st = qsi_path_join(&path, in, names[i]);
        if (st != QS_OK) QS_FAIL(err, st, "out of memory");
        *hit = qsi_same_file(path.data, out);
    }
done:
    for (size_t i = 0; i < n; i++) qsi_free(names[i]);
    qsi_free(names);
    qsi_str_release(&path);
    return st;
}

qs_status qsi_path_apart(const char *in, const char *out, qs_err *err) {
    qs_status st = QS_OK;
    bool hit = qsi_same_file(in, out) || is_part(in, out);
    if (!hit && qsi_path_is_dir(in)) QS_TRY(is_inside(in, out, &hit, err));
    if (hit)
        QS_FAIL(err, QS_E_ARG, "writing '%s' would replace what is read from '%s': name another file",
                out, in);
done:
    return st;
}

qs_status qsi_path_real(const char *path, qsi_str *out, qs_err *err) {
    char real[PATH_MAX];
    if (realpath(path, real) == NULL) return qsi_err_errno(err, errno, "cannot find '%s'", path);
    qs_status st = qsi_str_puts(out, real);
    return st == QS_OK ? st : qsi_err_set(err, st, "out of memory");
}

bool qsi_path_is_loop(const char *path) {
    struct stat here, above;
    bool loop = false;
    char part[4096]; /* a longer path is one that no call takes */
    size_t len = strlen(path);
    if (len >= sizeof(part) || stat(path, &here) != 0) return false;
    memcpy(part, path, len + 1);
    for (size_t n = len; n > 0 && !loop; n--) {
        if (part[n - 1] != '/') continue;
        part[n - 1] = '\0';
        const char *name = n == 1 ? "/" : part;
        loop = path[n] != '\0' && stat(name, &above) == 0 && above.st_dev == here.st_dev &&
               above.st_ino == here.st_ino;
    }
    return loop;
}

/* One folder; fine when it is there already. */
static qs_status make_dir(const char *path, qs_err *err) {
    if (mkdir(path, 0777) == 0) return QS_OK;
    int e = errno;
    if (qsi_path_is_dir(path)) return QS_OK;
    return qsi_err_errno(err, e, "cannot make the folder '%s'", path);
}

qs_status qsi_make_dirs(const char *path, qs_err *err) {
    qs_status st = QS_OK;
    char *part = qsi_strdup(path);
    if (part == NULL) QS_FAIL(err, QS_E_NOMEM, "out of memory making '%s'", path);
    for (size_t i = 1; part[0] != '\0' && part[i] != '\0'; i++) {
        if (part[i] != '/' || part[i - 1] == '/') continue;
        part[i] = '\0';
        QS_TRY(make_dir(part, err));
        part[i] = '/';
    }
    QS_TRY(make_dir(part, err));
done:
    qsi_free(part);
    return st;
}

qs_status qsi_path_join(qsi_str *out, const char *dir, const char *name) {
    qs_status st = QS_OK;
    size_t n = strlen(dir);
    while (name[0] == '/' && n > 0) name++;
    QS_TRY(qsi_str_append(out, dir, n));
    if (n > 0 && dir[n - 1] != '/') QS_TRY(qsi_str_putc(out, '/'));
    QS_TRY(qsi_str_puts(out, name));
done:
    return st;
}

static int by_bytes(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static bool wanted(DIR *d, const char *name) {
    struct stat sb;
    if (name[0] == '.') return false;
    return fstatat(dirfd(d), name, &sb, 0) == 0 && (S_ISREG(sb.st_mode) || S_ISDIR(sb.st_mode));
}

qs_status qsi_dir_list(const char *path, char ***names, size_t *n, qs_err *err) {
    qs_status st = QS_OK;
    void *list = NULL;
    size_t count = 0, cap = 0;
    DIR *d = opendir(path);
    if (d == NULL) QS_TRY(qsi_err_errno(err, errno, "cannot open the folder '%s'", path));
    for (;;) {
        errno = 0;
        struct dirent *e = readdir(d);
        if (e == NULL && errno != 0) {
            QS_TRY(qsi_err_errno(err, errno, "cannot read the folder '%s'", path));
        }
        if (e == NULL) break;
        if (!wanted(d, e->d_name)) continue;
        char *copy = NULL;
        if (qsi_grow(&list, &cap, count + 1, sizeof(char *)) != QS_OK ||
            (copy = qsi_strdup(e->d_name)) == NULL) {
            QS_FAIL(err, QS_E_NOMEM, "out of memory reading the folder '%s'", path);
        }
        ((char **)list)[count++] = copy;
    }
    if (count > 0) qsort(list, count, sizeof(char *), by_bytes);
    *names = list;
    *n = count;
    list = NULL;
    count = 0;
done:
    if (d != NULL) closedir(d);
    for (size_t i = 0; i < count; i++) qsi_free(((char **)list)[i]);
    qsi_free(list);
    return st;
}

uint64_t qsi_disk_free(const char *path) {
    struct statvfs sv;
    char *p = qsi_strdup(path[0] != '\0' ? path : ".");
    uint64_t bytes = 0;
    if (p == NULL) return 0;
    for (;;) {
        if (statvfs(p, &sv) == 0) {
            bytes = (uint64_t)sv.f_bavail * sv.f_frsize;
            break;
        }
        char *slash = strrchr(p, '/');
        if (strcmp(p, "/") == 0 || strcmp(p, ".") == 0) break;
        if (slash == NULL) memcpy(p, ".", 2);
        else if (slash == p) p[1] = '\0';
        else *slash = '\0';
    }
    qsi_free(p);
    return bytes;
}

qs_status qsi_exe_dir(qsi_str *out, qs_err *err) {
    qs_status st = QS_OK;
    qsi_str link = {0};
    size_t cap = 256;
    ssize_t n = 0;
    for (;; cap *= 2) {
        void *p = link.data;
        if (qsi_grow(&p, &link.cap, cap, 1) != QS_OK) QS_FAIL(err, QS_E_NOMEM, "out of memory");
        link.data = p;
        n = readlink("/proc/self/exe", link.data, link.cap);
        if (n < 0) QS_TRY(qsi_err_errno(err, errno, "cannot find the running program's folder"));
        if ((size_t)n < link.cap) break;
    }
    link.data[n] = '\0';
    char *slash = strrchr(link.data, '/');
    size_t len = slash == NULL || slash == link.data ? 1 : (size_t)(slash - link.data);
    if (qsi_str_append(out, link.data, len) != QS_OK) QS_FAIL(err, QS_E_NOMEM, "out of memory");
done:
    qsi_str_release(&link);
    return st;
}
