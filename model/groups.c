/*
 * groups: which layers share a page.
 *
 * All pages of a model are equal. Layers that cache alike (kind, KV heads, head sizes) are a class,
 * which fills groups of as many layers as a page holds of it, in order; where that number does not
 * divide their count the last group has places that no layer uses, and where a page is no multiple
 * of a class's layers its end stays empty. A large page wastes such places, a small one makes many
 * groups, and every look-up, grow and table is O(groups). The size is chosen to waste least with
 * few enough groups.
 */
#include "base/mem.h"
#include "model/builder.h"

#include <string.h>

/* What a layer of the class takes of a page: 16-bit elements a position. */
static int64_t width_of(const cp_layer_class *c)
{
    return (int64_t)c->like.n_kv * (c->like.k_dim + c->like.v_dim);
}

/* What pages of `page` elements a position cost. The share that is empty is taken of every page
 * that a short sequence holds, and of those that a long one keeps (a window group's number stays
 * bounded); the larger counts. */
typedef struct cost {
    double empty;
    int64_t n_groups, page;
} cost;

static cost cost_of(const cp_layer_class *c, int n, int64_t page)
{
    int64_t groups = 0, full = 0, used = 0, used_full = 0;
    for (int i = 0; i < n; i++) {
        int64_t fit = page / width_of(&c[i]), g = fit ? (c[i].n + fit - 1) / fit : INT32_MAX;
        bool lasting = c[i].like.kind == CP_GROUP_FULL;
        groups += g;
        used += c[i].n * width_of(&c[i]);
        full += lasting ? g : 0;
        used_full += lasting ? c[i].n * width_of(&c[i]) : 0;
    }
    double brief = 1.0 - (double)used / ((double)groups * (double)page);
    double lasting = full ? 1.0 - (double)used_full / ((double)full * (double)page) : 0.0;
    return (cost){lasting > brief ? lasting : brief, groups, page};
}

/* Of equals the one with the fewest groups, then the smallest page. */
static bool better(cost a, cost b)
{
    if (a.empty != b.empty)
        return a.empty < b.empty;
    return a.n_groups != b.n_groups ? a.n_groups < b.n_groups : a.page < b.page;
}

void cp_layers_per_page(cp_layer_class *c, int n, int max_groups)
{
    cost best = {.empty = 2.0, .page = 0};
    for (int i = 0; i < n; i++) {
        for (int layers = 1; layers <= c[i].n; layers++) {
            cost here = cost_of(c, n, layers * width_of(&c[i]));
            if (here.n_groups <= max_groups && better(here, best))
                best = here;
        }
    }
    for (int i = 0; i < n; i++)
        c[i].like.n_layers = (int)(best.page / width_of(&c[i]));
}

static cp_group_kind kind_of(const cp_layer_params *l)
{
    return l->mixer != CP_MIXER_ATTENTION ? CP_GROUP_STATE
           : l->window                    ? CP_GROUP_WINDOW
                                          : CP_GROUP_FULL;
}

/* What a recurrent layer keeps of a sequence; those of a model are of one kind. */
static size_t state_bytes(const cp_model_params *p, const cp_layer_params *l)
{
    size_t conv = (size_t)(p->l_cache - 1) * (size_t)p->pub.d_model * sizeof(float);
    return l->mixer == CP_MIXER_DELTANET ? cp_delta_state_bytes(&p->delta) : (conv + 63) / 64 * 64;
}

/* How a layer caches, without the number of layers. */
static cp_kv_group group_of(const cp_model_params *p, const cp_layer_params *l)
{
    cp_group_kind kind = kind_of(l);
    if (kind == CP_GROUP_STATE) {
        return (cp_kv_group){.kind = kind, .state_bytes = state_bytes(p, l)};
    }
    return (cp_kv_group){.kind = kind,
                         .n_kv = l->n_kv,
                         .k_dim = l->k_dim,
                         .v_dim = l->v_dim,
                         .window = kind == CP_GROUP_WINDOW ? p->window : 0};
}

static bool alike(const cp_kv_group *a, const cp_kv_group *b)
{
    return a->kind == b->kind && a->n_kv == b->n_kv && a->k_dim == b->k_dim && a->v_dim == b->v_dim;
}

/* The classes of the layers that cache something of their own, and of each layer its class and its
 * number in it; returns how many, more than CP_PAGED_GROUPS + 1 being too many. */
static int classes_of(const cp_model_params *p, cp_layer_class *c, int (*place)[2])
{
    int n = 0;
    for (int kind = CP_GROUP_FULL; kind <= CP_GROUP_STATE; kind++) {
        for (int i = 0, first = n; i < p->pub.n_layers; i++) {
            cp_kv_group like = group_of(p, &p->layer[i]);
            int at = first;
            if (like.kind != (cp_group_kind)kind || p->layer[i].kv_from != i)
                continue;
            while (at < n && !alike(&c[at].like, &like))
                at++;
            if (at == CP_PAGED_GROUPS + 1)
                return at + 1;
            if (at == n)
                c[n++] = (cp_layer_class){.like = like};
            place[i][0] = at;
            place[i][1] = c[at].n++;
        }
    }
    return n;
}

cp_code cp_layer_groups(cp_program *g, const cp_model_params *p, int (*place)[2], cp_err *err)
{
    cp_layer_class c[CP_PAGED_GROUPS + 1];
    int n = classes_of(p, c, place), first[CP_PAGED_GROUPS + 1];
    bool many = n > CP_PAGED_GROUPS + 1;
    int n_paged = !many && n > 0 && c[n - 1].like.kind == CP_GROUP_STATE ? n - 1 : n;
    if (n_paged == 0) {
        return cp_fail(err, CP_UNSUPPORTED, "a model without attention layers is not supported");
    }
    if (n_paged > CP_PAGED_GROUPS) {
        return cp_fail(err, CP_UNSUPPORTED,
                       "layers cache in more than %d ways (KV heads, head sizes, windows)",
                       CP_PAGED_GROUPS);
    }
    cp_layers_per_page(c, n_paged, CP_PAGED_GROUPS);
    if (n > n_paged) {
        c[n_paged].like.n_layers = c[n_paged].n;
    }
    g->n_groups = 0;
    for (int i = 0; i < n; i++) {
        first[i] = g->n_groups;
        for (int left = c[i].n; left > 0; left -= c[i].like.n_layers) {
            CP_ASSERT(g->n_groups < CP_MAX_GROUPS);
            g->groups[g->n_groups++] = c[i].like;
        }
    }
    for (int i = 0; i < p->pub.n_layers; i++) {
        int from = p->layer[i].kv_from;
        if (from != i) { /* an earlier one, which has its place already */
            memcpy(place[i], place[from], sizeof place[i]);
            continue;
        }
        int at = place[i][0], k = place[i][1];
        place[i][0] = first[at] + k / c[at].like.n_layers;
        place[i][1] = k % c[at].like.n_layers;
    }
    return CP_OK;
}
