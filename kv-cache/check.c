/*
 * check: the books of kv-cache, counted again from scratch.
 *
 * cp_kv_check recounts holders from the page tables, walks both lists and the index, and compares
 * with what the hot paths keep. Simulations call it after every step, tests after every call. The
 * rules that need to see what a page holds (kv-6, kv-8 .. kv-11, kv-15) are checked by the
 * simulation's shadow memory instead.
 */
#include "base/mem.h"
#include "kv-cache/kv_internal.h"

#include <stdlib.h>

static void check_units(const cp_kv *kv, const kv_units *u, const uint32_t *held)
{
    if (u->n == 0)
        return;
    enum { NOWHERE, FREE, CACHED };
    uint8_t *where = cp_xcalloc(u->n, 1);
    CP_ASSERT(u->refs[0] == 0 && u->pins[0] == 0 && u->node[0] < 0 && held[0] == 0 && "kv-2");
    for (uint32_t k = 0; k < u->n_free; k++) {
        uint32_t i = u->stack[k];
        CP_ASSERT(i != 0 && i < u->n && "kv-2");
        CP_ASSERT(where[i] == NOWHERE && "kv-4");
        where[i] = FREE;
    }
    uint32_t cached = 0, parked = 0;
    uint64_t stamp = 0;
    for (uint32_t i = u->next[0]; i != 0; i = u->next[i]) {
        CP_ASSERT(i < u->n && where[i] == NOWHERE && u->prev[u->next[i]] == i && "kv-4");
        where[i] = CACHED;
        CP_ASSERT(u->stamp[i] > stamp && "kv-16");
        stamp = u->stamp[i];
        cached++;
    }
    CP_ASSERT(cached == u->n_cached && "kv-4");
    uint32_t used = 0;
    for (uint32_t i = 1; i < u->n; i++) {
        CP_ASSERT(u->refs[i] == held[i] && "kv-3 kv-13");
        bool loose = u->refs[i] == 0 && u->pins[i] == 0;
        parked += u->refs[i] == 0 && u->kept_by[i] > kv->n_done;
        CP_ASSERT((where[i] == FREE) == (loose && u->node[i] < 0) && "kv-4");
        CP_ASSERT((where[i] == CACHED) == (loose && u->node[i] >= 0) && "kv-4");
        used += where[i] == NOWHERE;
    }
    CP_ASSERT(u->n_free + u->n_cached + used + 1 == u->n && "kv-4");
    CP_ASSERT(parked == u->n_parked && "kv-17");
    free(where);
}

static void check_seq(const cp_kv *kv, const kv_seq *q, uint32_t *pages, uint32_t *states)
{
    CP_ASSERT(q->done >= 0 && q->done <= kv->max_positions && q->n_blocks <= kv->max_blocks);
    CP_ASSERT((q->done + kv->P - 1) / kv->P <= q->n_blocks);
    CP_ASSERT(q->firm >= 0 && q->firm <= q->done && "kv-18");
    CP_ASSERT((!kv->prefix_cache || q->n_pub == q->firm / kv->P) && "kv-18");
    for (int g = 0; g < kv->n_groups; g++) {
        if (!kv_is_paged(kv, g))
            continue;
        int first = kv_first_block(kv, g, q->firm);
        CP_ASSERT(q->first[g] == (first < q->n_blocks ? first : q->n_blocks) && "kv-1");
        for (int b = 0; b < q->n_blocks; b++) {
            uint32_t page = q->table[g][b];
            CP_ASSERT((page == 0) == (b < q->first[g]) && "kv-1");
            if (page == 0)
                continue;
            CP_ASSERT(page < kv->pages.n);
            pages[page]++;
            CP_ASSERT((kv->pages.node[page] < 0 || kv->pages.group[page] == g) && "kv-5");
            CP_ASSERT((kv->pages.node[page] < 0 || b * kv->P < q->done) && "kv-7");
        }
    }
    if (q->state)
        states[q->state]++;
    if (q->state_out && q->state_out != q->state)
        states[q->state_out]++;
    for (int k = 0; k < q->n_saves; k++) {
        states[q->saves[k].slot]++;
        CP_ASSERT(q->saves[k].end > q->firm && "kv-14 kv-15");
    }
    CP_ASSERT((kv->has_state || (q->state | q->state_out | (uint32_t)q->n_saves) == 0) && "kv-13");
    CP_ASSERT((q->state_out == 0 || kv->states.node[q->state_out] < 0) && "kv-14");
    CP_ASSERT((q->state_out == 0 || kv->states.refs[q->state_out] == 1) && "kv-14");
    CP_ASSERT((!kv->has_state || q->done == 0 || q->state != 0) && "kv-13");
}

/* A passing checkpoint is in the index and its sequence's only one. */
static void check_passing(const cp_kv *kv)
{
    uint32_t passing = 0, owned = 0, saved = 0;
    for (uint32_t i = 1; i < kv->states.n; i++) {
        cp_kv_seq s = kv->passing_of[i];
        passing += s >= 0;
        CP_ASSERT((s < 0 || (kv->seqs[s].open && kv->seqs[s].passing == i)) && "kv-20");
        CP_ASSERT((s < 0 || kv->states.node[i] >= 0) && "kv-20");
    }
    for (int s = 0; s < kv->max_seqs; s++) {
        owned += kv->seqs[s].open && kv->seqs[s].passing != 0;
        saved += kv->seqs[s].open ? (uint32_t)kv->seqs[s].n_saves : 0;
    }
    CP_ASSERT(passing == owned && saved == kv->n_saved && "kv-20");
}

static void check_index(const cp_kv *kv)
{
    uint32_t named = 0, indexed = 0, checkpoints = 0;
    for (uint32_t h = 0; h < kv->n_buckets; h++) {
        for (int32_t i = kv->bucket[h]; i >= 0; i = kv->nodes[i].next) {
            const kv_node *n = &kv->nodes[i];
            int units = n->state != 0;
            CP_ASSERT((n->state == 0 || kv->states.node[n->state] == i) && "kv-5");
            for (int g = 0; g < kv->n_groups; g++) {
                uint32_t page = kv->node_page[(size_t)i * (size_t)kv->n_groups + (size_t)g];
                CP_ASSERT((page != 0 || n->state == 0 || kv->groups[g].kind != CP_GROUP_FULL) &&
                          "kv-21");
                if (page == 0)
                    continue;
                CP_ASSERT(kv->pages.node[page] == i && kv->pages.group[page] == g && "kv-5");
                units++;
            }
            CP_ASSERT(units == n->n_units && units > 0 && "kv-5");
            named += (uint32_t)units;
            checkpoints += n->state != 0;
        }
    }
    for (uint32_t i = 1; i < kv->pages.n; i++)
        indexed += kv->pages.node[i] >= 0;
    for (uint32_t i = 1; i < kv->states.n; i++)
        indexed += kv->states.node[i] >= 0;
    CP_ASSERT(named == indexed && checkpoints == kv->checkpoints_held && "kv-5");
}

/* Every pin is of a queued copy or of a step in flight. */
static void check_pins(const cp_kv *kv, const kv_units *u, bool copies)
{
    uint32_t *pins = cp_xcalloc((size_t)u->n + 1, sizeof(*pins));
    for (int i = 0; copies && i < kv->n_copies; i++)
        pins[kv->copies[i].src]++;
    for (uint64_t k = kv->n_done; u->n > 0 && k < kv->n_sent; k++) {
        size_t at = (size_t)(k % (uint64_t)kv->depth);
        for (uint32_t i = 0; i < u->n_kept[at]; i++)
            pins[u->kept[at * u->n + i]]++;
    }
    for (uint32_t i = 0; i < u->n; i++)
        CP_ASSERT(u->pins[i] == pins[i] && "kv-12 kv-17");
    free(pins);
}

void cp_kv_check(const cp_kv *kv)
{
    uint32_t *pages = cp_xcalloc((size_t)kv->pages.n + 1, sizeof(*pages));
    uint32_t *states = cp_xcalloc((size_t)kv->states.n + 1, sizeof(*states));
    for (int s = 0; s < kv->max_seqs; s++) {
        if (kv->seqs[s].open)
            check_seq(kv, &kv->seqs[s], pages, states);
    }
    check_units(kv, &kv->pages, pages);
    check_units(kv, &kv->states, states);
    check_index(kv);
    check_passing(kv);
    for (int i = 0; i < kv->n_copies; i++) {
        CP_ASSERT(kv->copies[i].src != 0 && kv->copies[i].dst != 0 && "kv-2");
        CP_ASSERT(kv->is_dst[kv->copies[i].dst] && pages[kv->copies[i].dst] == 1 && "kv-8");
    }
    check_pins(kv, &kv->pages, true);
    check_pins(kv, &kv->states, false);
    /* a block that the next step writes has one holder once cp_kv_grow has run for it */
    for (int s = 0; s < kv->max_seqs; s++) {
        const kv_seq *q = &kv->seqs[s];
        if (!q->open || (q->n_blocks * kv->P <= q->done))
            continue;
        for (int g = 0; g < kv->n_groups; g++) {
            for (int b = q->done / kv->P + 1; kv_is_paged(kv, g) && b < q->n_blocks; b++)
                CP_ASSERT(pages[q->table[g][b]] == 1 && "kv-7");
        }
    }
    free(pages);
    free(states);
}
