/* Workers on NUMA nodes, by hwloc (its documentation: "Topology information", "CPU binding"). Built
 * without it, asking for a placement says which package brings it. */
#include "sys/topology.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/mem.h"

#ifdef QSI_HAVE_HWLOC
#include <hwloc.h>

struct qsi_placement {
    hwloc_topology_t topo;
    hwloc_bitmap_t allowed; /* what the process may use */
    int nodes, n_workers;
    int *node; /* [n_workers] */
};

/* Number of the node, in hwloc's order, that holds most of the set; 0 when none does. */
static int node_of(const qsi_placement *p, hwloc_const_bitmap_t set, hwloc_bitmap_t tmp) {
    int best = 0, most = 0;
    for (int i = 0; i < p->nodes; i++) {
        hwloc_obj_t obj = hwloc_get_obj_by_type(p->topo, HWLOC_OBJ_NUMANODE, (unsigned)i);
        hwloc_bitmap_and(tmp, obj->cpuset, set);
        int n = hwloc_bitmap_weight(tmp);
        if (n > most) {
            most = n;
            best = i;
        }
    }
    return best;
}

/* hwloc spreads the workers evenly over the tree; what counts of its answer is the node. */
static qs_status spread(qsi_placement *p, qs_err *err) {
    qs_status st = QS_OK;
    size_t n = (size_t)p->n_workers;
    hwloc_obj_t root = hwloc_get_root_obj(p->topo);
    hwloc_bitmap_t tmp = hwloc_bitmap_alloc();
    hwloc_bitmap_t *sets = qsi_calloc(n, sizeof *sets);
    if (tmp == NULL || sets == NULL) QS_FAIL(err, QS_E_NOMEM, "out of memory for %zu workers", n);
    if (hwloc_distrib(p->topo, &root, 1, sets, (unsigned)n, INT_MAX, 0) != 0)
        QS_FAIL(err, QS_E_NOMEM, "cannot spread %zu workers over the machine", n);
    for (size_t i = 0; i < n; i++) p->node[i] = node_of(p, sets[i], tmp);
done:
    for (size_t i = 0; sets != NULL && i < n; i++) hwloc_bitmap_free(sets[i]);
    qsi_free(sets);
    hwloc_bitmap_free(tmp);
    return st;
}

qs_status qsi_placement_create(qsi_placement **out, int n_workers, qs_err *err) {
    qs_status st = QS_OK;
    qsi_placement *p = qsi_calloc(1, sizeof *p);
    if (p == NULL) QS_FAIL(err, QS_E_NOMEM, "out of memory");
    p->n_workers = n_workers;
    p->node = qsi_calloc((size_t)n_workers, sizeof *p->node);
    p->allowed = hwloc_bitmap_alloc();
    if (p->node == NULL || p->allowed == NULL) QS_FAIL(err, QS_E_NOMEM, "out of memory");
    if (hwloc_topology_init(&p->topo) != 0 || hwloc_topology_load(p->topo) != 0)
        QS_FAIL(err, QS_E_IO, "hwloc cannot read this machine's topology");
    if (hwloc_get_cpubind(p->topo, p->allowed, HWLOC_CPUBIND_THREAD) != 0)
        hwloc_bitmap_copy(p->allowed, hwloc_topology_get_allowed_cpuset(p->topo));
    p->nodes = hwloc_get_nbobjs_by_type(p->topo, HWLOC_OBJ_NUMANODE);
    if (p->nodes < 1) p->nodes = 1;
    if (p->nodes > 1) QS_TRY(spread(p, err));
    *out = p;
    p = NULL;
done:
    qsi_placement_free(p);
    return st;
}

void qsi_placement_free(qsi_placement *p) {
    if (p == NULL) return;
    if (p->topo != NULL) hwloc_topology_destroy(p->topo);
    hwloc_bitmap_free(p->allowed);
    qsi_free(p->node);
    qsi_free(p);
}

int qsi_placement_nodes(const qsi_placement *p) { return p->nodes; }

int qsi_placement_node(const qsi_placement *p, int worker) { return p->node[worker]; }

bool qsi_placement_bind(const qsi_placement *p, int worker) {
    if (p->nodes < 2) return true;
    hwloc_obj_t obj =
        hwloc_get_obj_by_type(p->topo, HWLOC_OBJ_NUMANODE, (unsigned)p->node[worker]);
    hwloc_bitmap_t set = hwloc_bitmap_alloc();
    if (set == NULL) return false;
    hwloc_bitmap_and(set, obj->cpuset, p->allowed);
    bool ok = !hwloc_bitmap_iszero(set) &&
              hwloc_set_cpubind(p->topo, set, HWLOC_CPUBIND_THREAD) == 0;
    hwloc_bitmap_free(set);
    return ok;
}

void qsi_placement_unbind(const qsi_placement *p) {
    if (p->nodes > 1) (void)hwloc_set_cpubind(p->topo, p->allowed, HWLOC_CPUBIND_THREAD);
}

#else

qs_status qsi_placement_create(qsi_placement **out, int n_workers, qs_err *err) {
    return qsi_err_set(err, QS_E_UNSUPPORTED, "this build cannot place workers on NUMA nodes: "
                       "install libhwloc-dev and build again");
}
void qsi_placement_free(qsi_placement *p) {}
int qsi_placement_nodes(const qsi_placement *p) { return 1; }
int qsi_placement_node(const qsi_placement *p, int worker) { return 0; }
bool qsi_placement_bind(const qsi_placement *p, int worker) { return false; }
void qsi_placement_unbind(const qsi_placement *p) {}

#endif
