/* What the operating system says about this machine, for `doctor` and `plan`. Thread: any. */
#ifndef QSI_SYS_OSINFO_H
#define QSI_SYS_OSINFO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct qsi_osinfo {
    char cpu[128];          /* model name; "" unknown */
    char huge_pages[16];    /* transparent huge pages: "always", "madvise", "never"; "" unknown */
    char governor[32];      /* of the first processor; "" where the system does not say */
    double mhz, mhz_most;   /* now, and at most; 0: unknown */
    int cpus;               /* online in the machine, whoever may use them */
    double load;            /* processes that want to run, mean of the last minute */
    uint64_t mem_total;     /* bytes; 0: unknown */
    bool seccomp, user_namespaces;
    int landlock;           /* its ABI; 0: none */
} qsi_osinfo;

/* root: "" for this machine; else a folder that holds proc/ and sys/ (what only system calls tell is
 * of this machine all the same). */
void qsi_osinfo_read(qsi_osinfo *o, const char *root);

/* The least memory limit of this process's control groups; UINT64_MAX: none. */
uint64_t qsi_mem_limit(void);
/* The same of one folder. */
uint64_t qsi_mem_limit_in(const char *folder);
/* Processors' worth of time that the control groups pay for; 0: no quota. */
double qsi_cpu_quota(void);

/* Kind of file system that holds path (or its nearest existing parent): "ext4", "nfs", "0x1234". */
void qsi_fs_kind(const char *path, char *buf, size_t cap);

#endif
