/*
 * kv: sequences and their page tables over the pools (units.c) and the prefix index (index.c).
 *
 * All paged groups of a sequence have tables of the same length; a window group's leading entries
 * turn into the null page as the window moves on. A page is written only while one sequence holds
 * it: a fork shares every page, and whoever writes the shared partial page first takes a copy
 * (queued, done by the backend before the step). Its source is pinned until the step is done, so
 * that it cannot be handed out and zeroed under the copy. State slots need no copies (states.c).
 * What may still be truncated (drafts, tokens whose value is not here yet) is done but not firm: it
 * is in no index, and windows reach back from where it begins. Costs: O(pages touched) a call, no
 * allocation.
 */
#include "base/mem.h"
#include "kv-cache/kv_internal.h"

#include <stdlib.h>
#include <string.h>

/* ---- open, close ---- */

static cp_code check_config(const cp_kv_config *c, cp_err *err)
{
    int P = c->page_positions;
    if (c->n_groups < 1 || c->n_groups > CP_MAX_GROUPS)
        return cp_fail(err, CP_INVALID_VALUE, "kv: %d layer groups, allowed 1..%d", c->n_groups,
                       CP_MAX_GROUPS);
    if (P < 1 || (P & (P - 1)) != 0 || P > 4096)
        return cp_fail(err, CP_INVALID_VALUE, "kv: %d positions a page is no power of two", P);
    if (c->max_seqs < 1 || c->max_seqs > 4096 || c->max_positions < 1)
        return cp_fail(err, CP_INVALID_VALUE, "kv: max_seqs %d (1..4096), max_positions %d (>= 1)",
                       c->max_seqs, c->max_positions);
    if (c->depth < 0 || c->depth > CP_KV_MAX_DEPTH)
        return cp_fail(err, CP_INVALID_VALUE, "kv: %d steps in flight, allowed 1..%d", c->depth,
                       CP_KV_MAX_DEPTH);
    bool paged = false, state = false;
    for (int g = 0; g < c->n_groups; g++) {
        paged = paged || c->groups[g].kind != CP_GROUP_STATE;
        state = state || c->groups[g].kind == CP_GROUP_STATE;
        if (c->groups[g].kind == CP_GROUP_WINDOW && c->groups[g].window < 1)
            return cp_fail(err, CP_INVALID_VALUE, "kv: group %d has a window of %d", g,
                           c->groups[g].window);
    }
    if (paged && (c->n_pages < 2 || c->n_pages > UINT32_C(1) << 30))
        return cp_fail(err, CP_INVALID_VALUE, "kv: %u pages, needed 2..2^30", c->n_pages);
    if (state && (c->n_state_slots < 2 || c->n_state_slots > UINT32_C(1) << 24))
        return cp_fail(err, CP_INVALID_VALUE, "kv: %u state slots, needed 2..2^24",
                       c->n_state_slots);
    return CP_OK;
}

static bool alloc_index(cp_kv *kv)
{
    kv->n_nodes = kv->prefix_cache ? (int32_t)(kv->pages.n + kv->states.n) : 1;
    size_t n = (size_t)kv->n_nodes;
    kv->n_buckets = 16;
    while (kv->n_buckets < n)
        kv->n_buckets *= 2;
    kv->nodes = calloc(n, sizeof(*kv->nodes));
    kv->node_page = calloc(n * (size_t)kv->n_groups, sizeof(*kv->node_page));
    kv->node_tok = calloc(n * (size_t)kv->P, sizeof(*kv->node_tok));
    kv->bucket = calloc(kv->n_buckets, sizeof(*kv->bucket));
    kv->hit_nodes = calloc((size_t)kv->max_blocks, sizeof(*kv->hit_nodes));
    kv->hash_buf = calloc(1, 32 + 4 * (size_t)kv->P);
    if (!kv->nodes || !kv->node_page || !kv->node_tok || !kv->bucket || !kv->hit_nodes ||
        !kv->hash_buf)
        return false;
    memset(kv->bucket, 0xff, sizeof(*kv->bucket) * kv->n_buckets);
    for (int32_t i = 0; i < kv->n_nodes; i++)
        kv->nodes[i].next = i + 1 < kv->n_nodes ? i + 1 : -1;
    return true;
}

static bool alloc_seqs(cp_kv *kv)
{
    size_t n = (size_t)kv->max_seqs, groups = (size_t)kv->n_groups, entries;
    kv->seqs = calloc(n, sizeof(*kv->seqs));
    kv->rows = calloc(n * groups, sizeof(*kv->rows));
    kv->firsts = calloc(n * groups, sizeof(*kv->firsts));
    if (!cp_mul(n * (size_t)kv->n_paged, (size_t)kv->max_blocks, &entries))
        return false;
    kv->tables = calloc(entries + 1, sizeof(*kv->tables));
    if (!kv->seqs || !kv->rows || !kv->firsts || !kv->tables)
        return false;
    uint32_t *row = kv->tables;
    for (size_t s = 0; s < n; s++) {
        kv_seq *q = &kv->seqs[s];
        q->table = kv->rows + s * groups;
        q->first = kv->firsts + s * groups;
        for (int g = 0; g < kv->n_groups; g++) {
            if (!kv_is_paged(kv, g))
                continue;
            q->table[g] = row;
            row += kv->max_blocks;
        }
    }
    return true;
}

cp_code cp_kv_open(cp_kv **out, const cp_kv_config *cfg, cp_err *err)
{
    cp_code code = check_config(cfg, err);
    if (code != CP_OK)
        return code;
    cp_kv *kv = cp_xcalloc(1, sizeof(*kv));
    kv->n_groups = cfg->n_groups;
    memcpy(kv->groups, cfg->groups, sizeof(*cfg->groups) * (size_t)cfg->n_groups);
    for (int g = 0; g < kv->n_groups; g++) {
        kv->n_paged += kv_is_paged(kv, g);
        kv->has_state = kv->has_state || !kv_is_paged(kv, g);
    }
    kv->P = cfg->page_positions;
    kv->max_seqs = cfg->max_seqs;
    kv->max_positions = cfg->max_positions;
    kv->depth = cfg->depth ? cfg->depth : 1;
    kv->max_blocks = (cfg->max_positions - 1) / kv->P + 1;
    kv->prefix_cache = cfg->prefix_cache;
    memcpy(kv->identity, cfg->identity, sizeof(kv->identity));
    uint32_t n_pages = kv->n_paged ? cfg->n_pages : 0;
    bool ok = cp_kv_units_init(&kv->pages, n_pages, kv->depth) &&
              cp_kv_units_init(&kv->states, kv->has_state ? cfg->n_state_slots : 0, kv->depth) &&
              alloc_index(kv) && alloc_seqs(kv);
    kv->passing_of = calloc((size_t)kv->states.n + 1, sizeof(*kv->passing_of));
    kv->copies = calloc((size_t)kv->max_seqs * (size_t)kv->n_groups, sizeof(*kv->copies));
    kv->is_dst = calloc(n_pages ? n_pages : 1, sizeof(*kv->is_dst));
    kv->fresh = calloc(n_pages ? n_pages : 1, sizeof(*kv->fresh));
    kv->is_fresh = calloc(n_pages ? n_pages : 1, sizeof(*kv->is_fresh));
    kv->marks = calloc((size_t)kv->pages.n + kv->states.n + 1, sizeof(*kv->marks));
    if (!ok || !kv->passing_of || !kv->copies || !kv->is_dst || !kv->fresh || !kv->is_fresh ||
        !kv->marks) {
        cp_kv_close(kv);
        return cp_fail(err, CP_NO_MEMORY,
                       "kv: no memory for the tables of %u pages, %d sequences of %d positions",
                       cfg->n_pages, cfg->max_seqs, cfg->max_positions);
    }
    for (uint32_t i = 0; i < kv->states.n; i++)
        kv->passing_of[i] = -1;
    *out = kv;
    return CP_OK;
}

void cp_kv_close(cp_kv *kv)
{
    if (!kv)
        return;
    free(kv->seqs);
    free(kv->tables);
    free(kv->rows);
    free(kv->firsts);
    cp_kv_units_fini(&kv->pages);
    cp_kv_units_fini(&kv->states);
    free(kv->nodes);
    free(kv->node_page);
    free(kv->node_tok);
    free(kv->bucket);
    free(kv->hit_nodes);
    free(kv->hash_buf);
    free(kv->passing_of);
    free(kv->copies);
    free(kv->is_dst);
    free(kv->fresh);
    free(kv->is_fresh);
    free(kv->marks);
    free(kv);
}

/* ---- sequences ---- */

static cp_kv_seq seq_take(cp_kv *kv)
{
    for (int s = 0; s < kv->max_seqs; s++) {
        kv_seq *q = &kv->seqs[s];
        if (q->open)
            continue;
        q->open = true;
        q->done = q->firm = q->n_blocks = q->n_pub = q->n_saves = 0;
        q->state = q->state_out = q->passing = 0;
        memset(q->first, 0, sizeof(*q->first) * (size_t)kv->n_groups);
        return s;
    }
    return -1;
}

cp_kv_seq cp_kv_seq_open(cp_kv *kv, const uint8_t *salt)
{
    cp_kv_seq s = seq_take(kv);
    if (s >= 0) {
        cp_kv_root_key(kv, salt, &kv->seqs[s].root);
        kv->seqs[s].tail = kv->seqs[s].root;
    }
    return s;
}

/* Page `page` loses a holder; if it was to receive a copy, that copy is withdrawn. */
static void drop_page(cp_kv *kv, uint32_t page)
{
    if (kv->is_dst[page] && kv->pages.refs[page] == 1) {
        int i = 0;
        while (kv->copies[i].dst != page)
            i++;
        uint32_t src = kv->copies[i].src;
        memmove(kv->copies + i, kv->copies + i + 1,
                sizeof(*kv->copies) * (size_t)(kv->n_copies - i - 1));
        kv->n_copies--;
        kv->is_dst[page] = false;
        cp_kv_units_unpin(&kv->pages, src);
    }
    cp_kv_units_drop(kv, &kv->pages, page);
}

/* Blocks [blocks, n_blocks) go, the last first: the oldest cached page is then the one whose loss
 * costs a prefix least. */
static void drop_blocks(cp_kv *kv, kv_seq *q, int blocks)
{
    for (int b = q->n_blocks; b-- > blocks;) {
        for (int g = 0; g < kv->n_groups; g++) {
            if (!kv_is_paged(kv, g) || q->table[g][b] == 0)
                continue;
            if (!(CP_PLANTED(3) && b == 1))
                drop_page(kv, q->table[g][b]);
            q->table[g][b] = 0;
        }
    }
    q->n_blocks = blocks;
}

void cp_kv_seq_close(cp_kv *kv, cp_kv_seq s)
{
    kv_seq *q = kv_seq_at(kv, s);
    drop_blocks(kv, q, 0);
    cp_kv_states_close(kv, q);
    q->open = false;
}

static int max_hit_blocks(const cp_kv *kv, int n, int max_hit)
{
    int hit = n < max_hit ? n : max_hit;
    int blocks = hit > 0 ? hit / kv->P : 0;
    return blocks < kv->max_blocks ? blocks : kv->max_blocks;
}

int cp_kv_peek(const cp_kv *kv, const uint8_t *salt, const int32_t *tokens, int n, int max_hit)
{
    kv_key root, tail;
    if (!kv->prefix_cache)
        return 0;
    cp_kv_root_key(kv, salt, &root);
    return cp_kv_lookup(kv, &root, tokens, max_hit_blocks(kv, n, max_hit), &tail) * kv->P;
}

int cp_kv_match(cp_kv *kv, cp_kv_seq s, const int32_t *tokens, int n, int max_hit)
{
    kv_seq *q = kv_seq_at(kv, s);
    CP_ASSERT(q->done == 0 && q->n_blocks == 0);
    if (!kv->prefix_cache)
        return 0;
    int blocks = cp_kv_lookup(kv, &q->root, tokens, max_hit_blocks(kv, n, max_hit), &q->tail);
    if (blocks == 0)
        return 0;
    for (int g = 0; g < kv->n_groups; g++) {
        if (!kv_is_paged(kv, g))
            continue;
        q->first[g] = kv_first_block(kv, g, blocks * kv->P);
        for (int b = 0; b < blocks; b++) {
            size_t at = (size_t)kv->hit_nodes[b] * (size_t)kv->n_groups + (size_t)g;
            uint32_t page = b < q->first[g] ? 0 : kv->node_page[at];
            q->table[g][b] = page;
            if (b < q->first[g])
                continue;
            CP_ASSERT(page != 0 && "kv-10");
            cp_kv_units_hold(kv, &kv->pages, page);
        }
    }
    if (kv->has_state) {
        q->state = kv->nodes[kv->hit_nodes[blocks - 1]].state;
        CP_ASSERT(q->state != 0 && "kv-10");
        cp_kv_units_hold(kv, &kv->states, q->state);
        cp_kv_checkpoint_lasts(kv, q->state);
    }
    q->n_blocks = q->n_pub = blocks;
    q->done = q->firm = blocks * kv->P;
    CP_ASSERT(q->done <= max_hit && "kv-10");
    kv->hits++;
    kv->hit_positions += (uint64_t)q->done;
    return q->done;
}

/* ---- growth ---- */

static int blocks_for(const cp_kv *kv, int n)
{
    return n > 0 ? (n - 1) / kv->P + 1 : 0;
}

/* The partial page of group g that must be copied before position done is written, since others
 * hold it or the index names it (whom it was shared with has filled and committed it); 0: none. */
static uint32_t shared_partial(const cp_kv *kv, const kv_seq *q, int g)
{
    if (q->done % kv->P == 0 || q->done / kv->P >= q->n_blocks || CP_PLANTED(7))
        return 0;
    uint32_t page = q->table[g][q->done / kv->P];
    return kv->pages.refs[page] > 1 || kv->pages.node[page] >= 0 ? page : 0;
}

uint32_t cp_kv_need(const cp_kv *kv, cp_kv_seq s, int n_positions)
{
    const kv_seq *q = kv_seq_at(kv, s);
    int more = blocks_for(kv, n_positions) - q->n_blocks;
    uint32_t need = more > 0 ? (uint32_t)more * (uint32_t)kv->n_paged : 0;
    for (int g = 0; g < kv->n_groups; g++)
        need += kv_is_paged(kv, g) && shared_partial(kv, q, g) != 0;
    return need;
}

uint32_t cp_kv_available(const cp_kv *kv)
{
    return kv->pages.n_free + kv->pages.n_cached;
}

uint32_t cp_kv_states_available(const cp_kv *kv)
{
    return kv->has_state ? kv->states.n_free + kv->states.n_cached : UINT32_MAX;
}

/* One more of those asked about names unit i; true: they are all that hold it. */
static bool mark(uint32_t *marks, const kv_units *u, uint32_t i)
{
    return i != 0 && ++marks[i] == u->refs[i] && u->pins[i] == 0;
}

void cp_kv_freed_by(cp_kv *kv, const cp_kv_seq *seqs, int n, uint32_t *pages, uint32_t *states)
{
    *pages = *states = 0;
    for (int pass = 0; pass < 2; pass++) { /* count, then wipe the marks */
        for (int i = 0; i < n; i++) {
            const kv_seq *q = kv_seq_at(kv, seqs[i]);
            for (int g = 0; g < kv->n_groups; g++) {
                for (int b = q->first[g]; kv_is_paged(kv, g) && b < q->n_blocks; b++) {
                    if (pass == 1)
                        kv->marks[q->table[g][b]] = 0;
                    else
                        *pages += mark(kv->marks, &kv->pages, q->table[g][b]);
                }
            }
        }
    }
    for (int pass = 0; pass < 2; pass++) {
        for (int i = 0; i < n && kv->has_state; i++) {
            const kv_seq *q = kv_seq_at(kv, seqs[i]);
            uint32_t held[2 + CP_KV_MAX_DEPTH] = {q->state,
                                                  q->state_out != q->state ? q->state_out : 0};
            for (int k = 0; k < q->n_saves; k++)
                held[2 + k] = q->saves[k].slot;
            for (int k = 0; k < 2 + q->n_saves; k++) {
                if (pass == 1)
                    kv->marks[held[k]] = 0;
                else
                    *states += mark(kv->marks, &kv->states, held[k]);
            }
        }
    }
}

uint32_t cp_kv_held(const cp_kv *kv, cp_kv_seq s)
{
    const kv_seq *q = kv_seq_at(kv, s);
    uint32_t held = 0;
    for (int g = 0; g < kv->n_groups; g++)
        held += kv_is_paged(kv, g) ? (uint32_t)(q->n_blocks - q->first[g]) : 0;
    return held;
}

int cp_kv_blocks(const cp_kv *kv, cp_kv_seq s)
{
    return kv_seq_at(kv, s)->n_blocks;
}

uint32_t cp_kv_pages_for(const cp_kv_config *cfg, int n, int chunk)
{
    int64_t P = cfg->page_positions, all = (n + P - 1) / P, sum = 0;
    int64_t chunks = (int64_t)chunk * (cfg->depth ? cfg->depth : 1);
    for (int g = 0; g < cfg->n_groups; g++) {
        const cp_kv_group *grp = &cfg->groups[g];
        if (grp->kind == CP_GROUP_STATE)
            continue;
        /* a window - 1 before the chunks, and the chunks, may straddle one page border more */
        int64_t span = ((int64_t)grp->window - 1 + chunks + P - 1) / P + 1;
        sum += grp->kind == CP_GROUP_WINDOW && span < all ? span : all;
    }
    return sum < UINT32_MAX ? (uint32_t)sum : UINT32_MAX;
}

uint32_t cp_kv_most(const cp_kv *kv, int n, int chunk)
{
    cp_kv_config cfg = {.groups = kv->groups,
                        .n_groups = kv->n_groups,
                        .page_positions = kv->P,
                        .depth = kv->depth};
    return cp_kv_pages_for(&cfg, n, chunk);
}

static void add_fresh(cp_kv *kv, uint32_t page)
{
    if (kv->is_fresh[page] || CP_PLANTED(6))
        return;
    kv->is_fresh[page] = true;
    kv->fresh[kv->n_fresh++] = page;
}

static void copy_partial(cp_kv *kv, kv_seq *q, int g, uint32_t src)
{
    uint32_t dst = cp_kv_units_take(kv, &kv->pages);
    CP_ASSERT(dst != 0 && kv->n_copies < kv->max_seqs * kv->n_groups);
    if (!CP_PLANTED(12) && !CP_PLANTED(8))
        cp_kv_units_pin(&kv->pages, src);
    q->table[g][q->done / kv->P] = dst;
    if (!CP_PLANTED(8)) {
        kv->copies[kv->n_copies++] = (cp_page_copy){src, dst};
        kv->is_dst[dst] = true;
    }
    cp_kv_units_drop(kv, &kv->pages, src);
    kv->n_copied++;
}

bool cp_kv_grow(cp_kv *kv, cp_kv_seq s, int n_positions)
{
    kv_seq *q = kv_seq_at(kv, s);
    CP_ASSERT(n_positions > q->done && n_positions <= kv->max_positions);
    if (cp_kv_need(kv, s, n_positions) > cp_kv_available(kv))
        return false;
    bool state = cp_kv_state_needed(kv, q);
    if (state && cp_kv_states_available(kv) == 0)
        return false;
    for (int g = 0; g < kv->n_groups; g++) {
        uint32_t src = kv_is_paged(kv, g) ? shared_partial(kv, q, g) : 0;
        if (src)
            copy_partial(kv, q, g, src);
    }
    int blocks = blocks_for(kv, n_positions);
    for (int b = q->n_blocks; b < blocks; b++) {
        for (int g = 0; g < kv->n_groups; g++) {
            if (!kv_is_paged(kv, g))
                continue;
            uint32_t page = cp_kv_units_take(kv, &kv->pages);
            CP_ASSERT(page != 0);
            q->table[g][b] = page;
            if ((b + 1) * kv->P > n_positions)
                add_fresh(kv, page);
        }
    }
    if (blocks > q->n_blocks)
        q->n_blocks = blocks;
    if (state)
        q->state_out = cp_kv_units_take(kv, &kv->states);
    else if (kv->has_state && !q->state_out)
        q->state_out = q->state;
    return true;
}

/* ---- what a step leaves ---- */

void cp_kv_advance(cp_kv *kv, cp_kv_seq s, int n_done)
{
    kv_seq *q = kv_seq_at(kv, s);
    CP_ASSERT(n_done >= q->done && blocks_for(kv, n_done) <= q->n_blocks);
    q->done = n_done;
    if (q->state_out) {
        if (q->state && q->state != q->state_out)
            cp_kv_units_drop(kv, &kv->states, q->state);
        q->state = q->state_out;
        q->state_out = 0;
    }
}

static void release_window(cp_kv *kv, kv_seq *q, int g)
{
    int first = kv_first_block(kv, g, q->firm + (CP_PLANTED(1) ? 2 * kv->P : 0));
    for (; q->first[g] < first && q->first[g] < q->n_blocks; q->first[g]++) {
        uint32_t *at = &q->table[g][q->first[g]];
        drop_page(kv, *at);
        *at = 0;
        kv->window_releases++;
    }
}

void cp_kv_commit(cp_kv *kv, cp_kv_seq s, const int32_t *tokens, int n)
{
    kv_seq *q = kv_seq_at(kv, s);
    CP_ASSERT(n >= q->firm && n <= q->done && "kv-18");
    q->firm = n;
    int full = (CP_PLANTED(18) ? q->done : n) / kv->P;
    for (int b = q->n_pub; kv->prefix_cache && b < full; b++)
        cp_kv_block_committed(kv, s, b, tokens + (size_t)b * (size_t)kv->P, b + 1 == full);
    for (int g = 0; g < kv->n_groups; g++) {
        if (kv->groups[g].kind == CP_GROUP_WINDOW)
            release_window(kv, q, g);
    }
}

bool cp_kv_truncate(cp_kv *kv, cp_kv_seq s, int n)
{
    kv_seq *q = kv_seq_at(kv, s);
    CP_ASSERT(n >= 0 && n <= q->done && q->state_out == 0 && kv->n_copies == 0);
    if (n < q->firm || (kv->has_state && n < q->done))
        return false;
    kv->truncations += n < q->done;
    q->done = n;
    if (!CP_PLANTED(19))
        drop_blocks(kv, q, blocks_for(kv, n));
    return true;
}

cp_kv_seq cp_kv_fork(cp_kv *kv, cp_kv_seq src)
{
    kv_seq *a = kv_seq_at(kv, src);
    CP_ASSERT(a->state_out == 0); /* between steps */
    cp_kv_seq s = seq_take(kv);
    if (s < 0)
        return -1;
    kv_seq *q = &kv->seqs[s];
    q->root = a->root;
    q->tail = a->tail;
    q->done = a->done;
    q->firm = a->firm;
    q->n_pub = a->n_pub;
    q->n_blocks = blocks_for(kv, a->done);
    for (int g = 0; g < kv->n_groups; g++) {
        if (!kv_is_paged(kv, g))
            continue;
        q->first[g] = a->first[g];
        for (int b = 0; b < q->n_blocks; b++) {
            q->table[g][b] = a->table[g][b];
            if (b >= q->first[g])
                cp_kv_units_hold(kv, &kv->pages, q->table[g][b]);
        }
    }
    q->state = a->state;
    if (q->state)
        cp_kv_units_hold(kv, &kv->states, q->state);
    return s;
}

/* ---- views ---- */

int cp_kv_done(const cp_kv *kv, cp_kv_seq s)
{
    return kv_seq_at(kv, s)->done;
}

int cp_kv_firm(const cp_kv *kv, cp_kv_seq s)
{
    return kv_seq_at(kv, s)->firm;
}

const uint32_t *cp_kv_pages(const cp_kv *kv, cp_kv_seq s, int group, int *n)
{
    const kv_seq *q = kv_seq_at(kv, s);
    CP_ASSERT(group >= 0 && group < kv->n_groups);
    *n = kv_is_paged(kv, group) ? q->n_blocks : 0;
    return q->table[group];
}

const uint32_t *const *cp_kv_tables(const cp_kv *kv, cp_kv_seq s)
{
    return (const uint32_t *const *)kv_seq_at(kv, s)->table;
}

int cp_kv_depth(const cp_kv *kv)
{
    return kv->depth;
}

bool cp_kv_has_state(const cp_kv *kv)
{
    return kv->has_state;
}

const cp_page_copy *cp_kv_copies(const cp_kv *kv, int *n)
{
    *n = kv->n_copies;
    return kv->copies;
}

const uint32_t *cp_kv_fresh(const cp_kv *kv, uint32_t *n)
{
    *n = kv->n_fresh;
    return kv->fresh;
}

void cp_kv_step_sent(cp_kv *kv)
{
    CP_ASSERT(kv->n_sent - kv->n_done < (uint64_t)kv->depth);
    kv->n_sent++;
    for (int i = 0; i < kv->n_copies; i++) {
        kv->is_dst[kv->copies[i].dst] = false;
        if (!CP_PLANTED(12))
            cp_kv_units_keep(kv, &kv->pages, kv->copies[i].src);
    }
    kv->n_copies = 0;
    for (uint32_t i = 0; i < kv->n_fresh; i++)
        kv->is_fresh[kv->fresh[i]] = false;
    kv->n_fresh = 0;
}

void cp_kv_step_done(cp_kv *kv)
{
    CP_ASSERT(kv->n_sent > kv->n_done);
    cp_kv_units_done(kv, &kv->pages);
    cp_kv_units_done(kv, &kv->states);
    kv->n_done++;
}

uint32_t cp_kv_parked(const cp_kv *kv)
{
    return kv->pages.n_parked;
}

uint32_t cp_kv_states_parked(const cp_kv *kv)
{
    return kv->states.n_parked;
}

void cp_kv_stats_get(const cp_kv *kv, cp_kv_stats *out)
{
    const kv_units *p = &kv->pages, *t = &kv->states;
    *out = (cp_kv_stats){
        .pages_free = p->n_free,
        .pages_cached = p->n_cached,
        .pages_used = p->n ? p->n - 1 - p->n_free - p->n_cached : 0,
        .states_free = t->n_free,
        .states_cached = t->n_cached,
        .states_used = t->n ? t->n - 1 - t->n_free - t->n_cached : 0,
        .hits = kv->hits,
        .hit_positions = kv->hit_positions,
        .evictions = p->evictions,
        .state_evictions = t->evictions,
        .window_releases = kv->window_releases,
        .copies = kv->n_copied,
        .checkpoints_held = kv->checkpoints_held,
        .checkpoints = kv->checkpoints,
        .checkpoints_passed = kv->checkpoints_passed,
        .checkpoints_cut = kv->checkpoints_cut,
        .truncations = kv->truncations,
        .parked = p->parked + t->parked,
    };
}
