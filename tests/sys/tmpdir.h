/* A private folder for one test program, removed at the end. Files of a fixed name in the folder where
 * tests are run would be seen by another run of the same program, at the same time or after a run that
 * failed or was stopped. */
#ifndef QST_TMPDIR_H
#define QST_TMPDIR_H

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char tmp_root[256];

static int tmp_setup(void **state) {
    (void)state;
    const char *base = getenv("TMPDIR");
    snprintf(tmp_root, sizeof(tmp_root), "%s/qiusuo-test-XXXXXX", base != NULL ? base : "/tmp");
    return mkdtemp(tmp_root) != NULL ? 0 : -1;
}

static inline void tmp_remove(const char *path) {
    DIR *d = opendir(path);
    for (struct dirent *e; d != NULL && (e = readdir(d)) != NULL;) {
        char sub[1024];
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) continue;
        snprintf(sub, sizeof(sub), "%.500s/%.500s", path, e->d_name);
        struct stat sb;
        if (lstat(sub, &sb) == 0 && S_ISDIR(sb.st_mode)) tmp_remove(sub);
        else unlink(sub);
    }
    if (d != NULL) closedir(d);
    rmdir(path);
}

static int tmp_teardown(void **state) {
    (void)state;
    tmp_remove(tmp_root);
    return 0;
}

/* The same, and the program works in that folder, so that a name without a folder is one in there. */
static inline int tmp_enter(void **state) {
    return tmp_setup(state) != 0 ? -1 : chdir(tmp_root);
}

static inline int tmp_leave(void **state) {
    return chdir("/") != 0 ? -1 : tmp_teardown(state);
}

/* "<folder>/name" in one of 64 buffers that take turns. */
static inline const char *tmp_path(const char *name) {
    static char buf[64][512];
    static int turn;
    char *p = buf[turn++ % 64];
    snprintf(p, sizeof(buf[0]), "%s/%s", tmp_root, name);
    return p;
}

static inline void tmp_write(const char *path, const void *data, size_t n) {
    FILE *f = fopen(path, "wb");
    if (f == NULL || fwrite(data, 1, n, f) != n || fclose(f) != 0) abort();
}

/* How many entries a folder has, hidden ones included. */
static inline int tmp_count(const char *path) {
    DIR *d = opendir(path);
    int n = 0;
    if (d == NULL) return -1;
    for (struct dirent *e; (e = readdir(d)) != NULL;) n++;
    closedir(d);
    return n - 2;
}

#endif
