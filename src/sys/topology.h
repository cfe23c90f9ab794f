/* Cores and NUMA nodes: how many workers are worth starting, and where they should run. Thread: any
 * unless said. */
#ifndef QSI_SYS_TOPOLOGY_H
#define QSI_SYS_TOPOLOGY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

#define QSI_CPU_ROOT "/sys/devices/system/cpu"
#define QSI_NODE_ROOT "/sys/devices/system/node"

/* Physical cores among the processors whose byte in allowed[0..n) is not 0: threads of one core
 * count once. root is the folder with cpu0, cpu1, ...; a processor without a description there is a
 * core of its own. */
int qsi_cores_among(const char *root, const uint8_t *allowed, int n);
/* Physical cores this process may use: affinity, threads of one core once, and not more than its
 * control groups pay for. At least 1. */
int qsi_core_count(void);
/* The affinity mask as bytes; *n of them, owned by the caller (qsi_free). NULL: out of memory. */
uint8_t *qsi_affinity(int *n);
/* Adds the numbers of a kernel list ("0-3,8,10-11") to mask[0..n): how many were new, or -1 when
 * the text is no list. Numbers of n and more are left out. */
int qsi_list_parse(const char *text, uint8_t *mask, int n);

/* Bytes of all last-level caches among the first n processors described under root; 0: unknown. */
size_t qsi_caches_under(const char *root, int n);
/* The same of this machine. */
size_t qsi_cache_bytes(void);

/* NUMA nodes with memory, as the kernel lists them under root (QSI_NODE_ROOT); at least 1. */
int qsi_node_count(const char *root);

/* Where workers run when memory has several nodes: evenly over the cores, neighbours on one node.
 * Memory is then placed by first touch: a worker's share of the weights lies on its own node. */
typedef struct qsi_placement qsi_placement;
/* QS_E_UNSUPPORTED: this build has no hwloc. A machine with one node has a plan with one node. */
qs_status qsi_placement_create(qsi_placement **p, int n_workers, qs_err *err) QS_MUST_CHECK;
void qsi_placement_free(qsi_placement *p);
int qsi_placement_nodes(const qsi_placement *p);
/* Node of a worker, 0 .. nodes - 1. */
int qsi_placement_node(const qsi_placement *p, int worker);
/* Binds the calling thread to the processors of the worker's node that this process may use; false
 * when the system refuses. Nothing to do with one node. */
bool qsi_placement_bind(const qsi_placement *p, int worker);
/* Gives the calling thread back what the process may use. */
void qsi_placement_unbind(const qsi_placement *p);

#endif
