/*
 * units: the pools of pages and of state slots.
 *
 * Free units are a stack (the latest returned is handed out first: its memory is warm, untouched
 * memory stays untouched). Cached units are a ring through unit 0 in the order in which they lost
 * their last holder; eviction takes the oldest. While steps are in flight, whoever loses its last
 * holder and had one when the newest of them was sent gets a pin which that step keeps: the steps
 * before it are done earlier. Which units a step names is thus never asked. Every call is O(1),
 * cp_kv_units_done O(units kept).
 */
#include "base/mem.h"
#include "kv-cache/kv_internal.h"

#include <stdlib.h>

bool cp_kv_units_init(kv_units *u, uint32_t n, int depth)
{
    *u = (kv_units){.n = n};
    if (n == 0)
        return true;
    u->refs = calloc(n, sizeof(*u->refs));
    u->pins = calloc(n, sizeof(*u->pins));
    u->kept = calloc((size_t)n * (size_t)depth, sizeof(*u->kept));
    u->kept_by = calloc(n, sizeof(*u->kept_by));
    u->since = calloc(n, sizeof(*u->since));
    u->node = calloc(n, sizeof(*u->node));
    u->group = calloc(n, sizeof(*u->group));
    u->prev = calloc(n, sizeof(*u->prev));
    u->next = calloc(n, sizeof(*u->next));
    u->stack = calloc(n, sizeof(*u->stack));
    u->stamp = calloc(n, sizeof(*u->stamp));
    if (!u->stamp || !u->refs || !u->pins || !u->kept || !u->kept_by || !u->since || !u->node ||
        !u->group || !u->prev || !u->next || !u->stack)
        return false;
    for (uint32_t i = 0; i < n; i++)
        u->node[i] = -1;
    uint32_t lowest = CP_PLANTED(2) ? 0 : 1;
    for (uint32_t i = n; i-- > lowest;) /* low numbers on top */
        u->stack[u->n_free++] = i;
    return true;
}

void cp_kv_units_fini(kv_units *u)
{
    free(u->refs);
    free(u->pins);
    free(u->kept);
    free(u->kept_by);
    free(u->since);
    free(u->node);
    free(u->group);
    free(u->prev);
    free(u->next);
    free(u->stack);
    free(u->stamp);
    *u = (kv_units){0};
}

static void lru_remove(kv_units *u, uint32_t i)
{
    u->next[u->prev[i]] = u->next[i];
    u->prev[u->next[i]] = u->prev[i];
    u->n_cached--;
}

static void lru_append(kv_units *u, uint32_t i)
{
    uint32_t last = CP_PLANTED(16) ? 0 : u->prev[0], after = u->next[last];
    u->next[last] = i;
    u->prev[i] = last;
    u->next[i] = after;
    u->prev[after] = i;
    u->stamp[i] = ++u->clock;
    u->n_cached++;
}

uint32_t cp_kv_units_take(cp_kv *kv, kv_units *u)
{
    uint32_t i;
    if (u->n_free > 0) {
        i = u->stack[--u->n_free];
    } else if (u->n_cached > 0) {
        i = u->next[0];
        lru_remove(u, i);
        if (!CP_PLANTED(5))
            cp_kv_unindex(kv, u, i);
        else
            u->node[i] = -1;
        u->evictions++;
    } else {
        return 0;
    }
    CP_ASSERT(i != 0 && "kv-2");
    CP_ASSERT(u->refs[i] == 0 && u->pins[i] == 0 && u->node[i] < 0 && "kv-4");
    u->refs[i] = 1;
    u->since[i] = kv->n_sent;
    return i;
}

/* Whether a step in flight keeps unit i. */
static bool kept(const cp_kv *kv, const kv_units *u, uint32_t i)
{
    return u->kept_by[i] > kv->n_done;
}

void cp_kv_units_hold(const cp_kv *kv, kv_units *u, uint32_t i)
{
    CP_ASSERT(i != 0 && i < u->n && "kv-2");
    if (u->refs[i] == 0 && u->pins[i] == 0) {
        CP_ASSERT(u->node[i] >= 0 && "kv-4"); /* only cached units gain a first holder */
        lru_remove(u, i);
    }
    u->n_parked -= u->refs[i] == 0 && kept(kv, u, i);
    if (u->refs[i]++ == 0)
        u->since[i] = kv->n_sent;
}

/* No holder, no pin: to the list it belongs. */
static void settle(kv_units *u, uint32_t i)
{
    if (u->refs[i] > 0 || u->pins[i] > 0)
        return;
    if (u->node[i] >= 0 && !CP_PLANTED(4))
        lru_append(u, i);
    else
        u->stack[u->n_free++] = i;
}

void cp_kv_units_pin(kv_units *u, uint32_t i)
{
    CP_ASSERT(i != 0 && i < u->n && u->refs[i] > 0 && "kv-12");
    u->pins[i]++;
}

void cp_kv_units_unpin(kv_units *u, uint32_t i)
{
    CP_ASSERT(u->pins[i] > 0 && "kv-12");
    u->pins[i]--;
    settle(u, i);
}

void cp_kv_units_keep(const cp_kv *kv, kv_units *u, uint32_t i)
{
    size_t at = (size_t)((kv->n_sent - 1) % (uint64_t)kv->depth);
    if (u->kept_by[i] == kv->n_sent) {
        cp_kv_units_unpin(u, i); /* has one already */
        return;
    }
    u->n_parked += u->refs[i] == 0 && !kept(kv, u, i);
    u->kept_by[i] = kv->n_sent;
    u->kept[at * u->n + u->n_kept[at]++] = i;
}

void cp_kv_units_drop(const cp_kv *kv, kv_units *u, uint32_t i)
{
    CP_ASSERT(i != 0 && i < u->n && u->refs[i] > 0 && "kv-3");
    bool named = kv->n_sent > kv->n_done && u->since[i] < kv->n_sent && !CP_PLANTED(17);
    if (u->refs[i] == 1 && named && u->kept_by[i] != kv->n_sent) {
        u->pins[i]++;
        cp_kv_units_keep(kv, u, i);
        u->parked++;
    }
    u->refs[i]--;
    u->n_parked += u->refs[i] == 0 && kept(kv, u, i);
    settle(u, i);
}

void cp_kv_units_forget(cp_kv *kv, kv_units *u, uint32_t i)
{
    bool cached = u->refs[i] == 0 && u->pins[i] == 0;
    if (cached)
        lru_remove(u, i);
    cp_kv_unindex(kv, u, i);
    if (cached)
        u->stack[u->n_free++] = i;
}

void cp_kv_units_done(const cp_kv *kv, kv_units *u)
{
    size_t at = (size_t)(kv->n_done % (uint64_t)kv->depth);
    for (uint32_t k = 0; k < u->n_kept[at]; k++) {
        uint32_t i = u->kept[at * u->n + k];
        u->n_parked -= u->refs[i] == 0 && u->kept_by[i] == kv->n_done + 1;
        cp_kv_units_unpin(u, i);
    }
    u->n_kept[at] = 0;
}
