/* Counting cores and nodes from /sys: affinity decides which processors count, core_cpus_list which of
 * them are threads of one core. */
#define _GNU_SOURCE /* sched_getaffinity, CPU_ALLOC */
#include "sys/topology.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "sys/cgroup.h"
#include "sys/cpu.h"

enum { LIST_TEXT = 4096, MAX_CPUS = 1 << 20, MAX_NODES = 1024 };

int qsi_list_parse(const char *text, uint8_t *mask, int n) {
    int added = 0;
    const char *p = text;
    while (*p != '\0' && *p != '\n') {
        char *end;
        if (*p < '0' || *p > '9') return -1;
        long from = strtol(p, &end, 10), to = from;
        if (*end == '-') {
            if (end[1] < '0' || end[1] > '9') return -1;
            to = strtol(end + 1, &end, 10);
        }
        if (to < from || (*end != ',' && *end != '\0' && *end != '\n')) return -1;
        for (long i = from; i <= to && i < n; i++) {
            added += mask[i] == 0;
            mask[i] = 1;
        }
        p = *end == ',' ? end + 1 : end;
    }
    return added;
}

/* The lowest allowed processor that shares the core of `cpu`; cpu itself when nothing is known. */
static int first_sibling(const char *root, int cpu, const uint8_t *allowed, int n, uint8_t *mask) {
    static const char *const names[] = {"core_cpus_list", "thread_siblings_list"};
    char path[512], text[LIST_TEXT];
    for (size_t i = 0; i < QSI_COUNT(names); i++) {
        int len = snprintf(path, sizeof path, "%s/cpu%d/topology/%s", root, cpu, names[i]);
        if (len < 0 || (size_t)len >= sizeof path) return cpu;
        if (!qsi_small_read(path, text, sizeof text)) continue;
        memset(mask, 0, (size_t)n);
        if (qsi_list_parse(text, mask, n) <= 0) continue;
        for (int j = 0; j < cpu; j++)
            if (mask[j] != 0 && allowed[j] != 0) return j;
        return cpu;
    }
    return cpu;
}

int qsi_cores_among(const char *root, const uint8_t *allowed, int n) {
    int cores = 0;
    uint8_t *mask = qsi_alloc((size_t)n, 1);
    for (int i = 0; i < n; i++) {
        if (allowed[i] == 0) continue;
        if (mask == NULL || first_sibling(root, i, allowed, n, mask) == i) cores++;
    }
    qsi_free(mask);
    return cores;
}

uint8_t *qsi_affinity(int *n) {
    for (int cpus = 1024; cpus <= MAX_CPUS; cpus *= 2) {
        cpu_set_t *set = CPU_ALLOC((size_t)cpus);
        if (set == NULL) return NULL;
        size_t bytes = CPU_ALLOC_SIZE((size_t)cpus);
        CPU_ZERO_S(bytes, set);
        if (sched_getaffinity(0, bytes, set) != 0) {
            CPU_FREE(set);
            continue;
        }
        uint8_t *mask = qsi_calloc((size_t)cpus, 1);
        for (int i = 0; mask != NULL && i < cpus; i++)
            mask[i] = CPU_ISSET_S((size_t)i, bytes, set) ? 1 : 0;
        CPU_FREE(set);
        *n = cpus;
        return mask;
    }
    return NULL;
}

int qsi_core_count(void) {
    int n = 0, most = qsi_cpu_count(), cores = 0;
    uint8_t *allowed = qsi_affinity(&n);
    if (allowed != NULL) cores = qsi_cores_among(QSI_CPU_ROOT, allowed, n);
    qsi_free(allowed);
    return cores > 0 && cores < most ? cores : most;
}

/* "32768K" under cpuN/cache/indexI of the highest level that describes data; the lowest processor that
 * shares it into *first. */
static size_t last_cache(const char *root, int cpu, int *first) {
    char path[512], text[LIST_TEXT];
    size_t bytes = 0;
    for (int i = 0; i < 8; i++) {
        snprintf(path, sizeof path, "%s/cpu%d/cache/index%d/size", root, cpu, i);
        if (!qsi_small_read(path, text, sizeof text)) break;
        char *end;
        size_t n = strtoull(text, &end, 10);
        n *= *end == 'K' ? 1024 : *end == 'M' ? 1024 * 1024 : 1;
        if (n < bytes) continue;
        bytes = n;
        snprintf(path, sizeof path, "%s/cpu%d/cache/index%d/shared_cpu_list", root, cpu, i);
        *first = qsi_small_read(path, text, sizeof text) ? (int)strtol(text, NULL, 10) : cpu;
    }
    return bytes;
}

size_t qsi_caches_under(const char *root, int n) {
    size_t sum = 0;
    for (int i = 0; i < n; i++) {
        int first = i;
        size_t bytes = last_cache(root, i, &first);
        if (bytes == 0) break;
        if (first == i) sum += bytes;
    }
    return sum;
}

size_t qsi_cache_bytes(void) { return qsi_caches_under(QSI_CPU_ROOT, MAX_CPUS); }

int qsi_node_count(const char *root) {
    static const char *const names[] = {"has_memory", "online"};
    char path[512], text[LIST_TEXT];
    uint8_t mask[MAX_NODES] = {0};
    for (size_t i = 0; i < QSI_COUNT(names); i++) {
        int len = snprintf(path, sizeof path, "%s/%s", root, names[i]);
        if (len < 0 || (size_t)len >= sizeof path) break;
        if (!qsi_small_read(path, text, sizeof text)) continue;
        int count = qsi_list_parse(text, mask, MAX_NODES);
        if (count > 0) return count;
    }
    return 1;
}
