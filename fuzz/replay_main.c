/* Runs a fuzz target over files and folders of files, given as arguments: the corpus as plain
 * tests. Each input lies in a heap block of exactly its size, so that sanitizers see a read past
 * its end. Also runs the empty input and, for inputs up to 64 KiB, cut copies of each: 16 lengths
 * spread over the file. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static long n_run;

static void run_copy(const uint8_t *data, size_t size) {
    uint8_t *copy = malloc(size > 0 ? size : 1);
    if (copy == NULL) {
        fprintf(stderr, "replay: out of memory\n");
        exit(1);
    }
    if (size > 0) memcpy(copy, data, size);
    (void)LLVMFuzzerTestOneInput(copy, size);
    free(copy);
    n_run++;
}

static void run_file(const char *path, size_t size) {
    enum { CUTS = 16, CUT_MAX = 1 << 16 };
    FILE *f = fopen(path, "rb");
    uint8_t *data = malloc(size > 0 ? size : 1);
    if (f == NULL || data == NULL || fread(data, 1, size, f) != size) {
        fprintf(stderr, "replay: cannot read %s\n", path);
        exit(1);
    }
    fclose(f);
    run_copy(data, size);
    for (size_t i = 1; i < CUTS && size <= CUT_MAX && size > CUTS; i++) {
        run_copy(data, size * i / CUTS);
    }
    free(data);
}

static void run_path(const char *path) {
    struct stat sb;
    if (stat(path, &sb) != 0) {
        fprintf(stderr, "replay: no such file: %s\n", path);
        exit(1);
    }
    if (!S_ISDIR(sb.st_mode)) {
        run_file(path, (size_t)sb.st_size);
        return;
    }
    DIR *d = opendir(path);
    if (d == NULL) {
        fprintf(stderr, "replay: cannot open %s\n", path);
        exit(1);
    }
    for (struct dirent *e; (e = readdir(d)) != NULL;) {
        char sub[4096];
        if (e->d_name[0] == '.') continue;
        snprintf(sub, sizeof(sub), "%s/%s", path, e->d_name);
        run_path(sub);
    }
    closedir(d);
}

int main(int argc, char **argv) {
    run_copy(NULL, 0);
    for (int i = 1; i < argc; i++) run_path(argv[i]);
    printf("%ld inputs\n", n_run);
    if (n_run < 2) {
        fprintf(stderr, "replay: the corpus is empty\n");
        return 1;
    }
    return 0;
}
