/*
 * groups: which layers share a page.
 *
 * All pages of a model are equal, so every paged group has the same number of layers, L. Layers
 * that cache alike fill groups of L in order; where L does not divide their count the last group
 * has places that no layer uses. A large L wastes such places, a small one makes many groups, and
 * every look-up, grow and table is O(groups). L is chosen to waste least with few enough groups.
 */
#include "base/mem.h"
#include "model/builder.h"

#include <string.h>

static int groups_of(int n_layers, int per_page)
{
    return (n_layers + per_page - 1) / per_page;
}

/* The share of places that are empty, as a fraction: of every page that a short sequence holds, or
 * of those that a long one keeps (a window group's number stays bounded); the larger counts. */
typedef struct waste {
    int empty, places;
} waste;

static bool more(waste a, waste b)
{
    return a.empty * b.places > b.empty * a.places;
}

static waste waste_of(int n_full, int n_window, int per_page)
{
    int full = groups_of(n_full, per_page) * per_page;
    int all = full + groups_of(n_window, per_page) * per_page;
    waste brief = {all - n_full - n_window, all}, lasting = {full - n_full, full > 0 ? full : 1};
    return more(lasting, brief) ? lasting : brief;
}

int cp_layers_per_page(int n_full, int n_window, int max_groups)
{
    int most = n_full > n_window ? n_full : n_window, best = most;
    for (int l = most; l >= 1; l--) { /* of equals the largest: the fewest groups */
        if (groups_of(n_full, l) + groups_of(n_window, l) <= max_groups &&
            more(waste_of(n_full, n_window, best), waste_of(n_full, n_window, l)))
            best = l;
    }
    return best;
}

static cp_group_kind kind_of(const cp_layer_params *l)
{
    return l->mixer != CP_MIXER_ATTENTION ? CP_GROUP_STATE
           : l->window                    ? CP_GROUP_WINDOW
                                          : CP_GROUP_FULL;
}

static cp_kv_group group_of(const cp_params *p, cp_group_kind kind, int n_layers, int n_kv)
{
    if (kind == CP_GROUP_STATE) {
        size_t bytes = (size_t)(p->l_cache - 1) * (size_t)p->pub.d_model * sizeof(float);
        return (cp_kv_group){
            .kind = kind, .n_layers = n_layers, .state_bytes = (bytes + 63) / 64 * 64};
    }
    return (cp_kv_group){.kind = kind,
                         .n_layers = n_layers,
                         .n_kv = n_kv,
                         .k_dim = p->head_dim_k,
                         .v_dim = p->head_dim_v,
                         .window = kind == CP_GROUP_WINDOW ? p->window : 0};
}

cp_code cp_layer_groups(cp_program *g, const cp_params *p, int (*place)[2], cp_err *err)
{
    int count[3] = {0}, n_kv = 0;
    for (int i = 0; i < p->pub.n_layers; i++) {
        const cp_layer_params *l = &p->layer[i];
        count[kind_of(l)]++;
        if (l->mixer == CP_MIXER_ATTENTION && n_kv && l->n_kv != n_kv) {
            return cp_fail(err, CP_UNSUPPORTED,
                           "layer %d has %d KV heads, others %d: unequal pages", i, l->n_kv, n_kv);
        }
        n_kv = l->mixer == CP_MIXER_ATTENTION ? l->n_kv : n_kv;
    }
    if (count[CP_GROUP_FULL] + count[CP_GROUP_WINDOW] == 0) {
        return cp_fail(err, CP_UNSUPPORTED, "a model without attention layers is not supported");
    }
    int per_page =
        cp_layers_per_page(count[CP_GROUP_FULL], count[CP_GROUP_WINDOW], CP_PAGED_GROUPS);
    int size[3] = {[CP_GROUP_FULL] = per_page,
                   [CP_GROUP_WINDOW] = per_page,
                   [CP_GROUP_STATE] = count[CP_GROUP_STATE]};
    int first[3];
    g->n_groups = 0;
    for (int kind = CP_GROUP_FULL; kind <= CP_GROUP_STATE; kind++) {
        first[kind] = g->n_groups;
        for (int left = count[kind]; left > 0; left -= size[kind]) {
            CP_ASSERT(g->n_groups < CP_MAX_GROUPS);
            g->groups[g->n_groups++] = group_of(p, (cp_group_kind)kind, size[kind], n_kv);
        }
    }
    int seen[3] = {0};
    for (int i = 0; i < p->pub.n_layers; i++) {
        int kind = (int)kind_of(&p->layer[i]), at = seen[kind]++;
        place[i][0] = first[kind] + at / size[kind];
        place[i][1] = at % size[kind];
    }
    return CP_OK;
}
