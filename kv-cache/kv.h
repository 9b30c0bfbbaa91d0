/*
 * kv-cache: who holds which page.
 *
 * A cp_kv is one model's page pool, state slots and prefix index; it belongs to the engine thread,
 * allocates nothing after open and does no I/O: it moves numbers, the backend owns the memory. A
 * cp_kv_seq is an index in [0, max_seqs). It hides reference counts, eviction (least recently
 * used), copy on write and the chained page keys. Page 0 is the null page, state slot 0 the null
 * slot; neither is ever handed out. free + cached + used + 1 == n_pages at every call. The rules
 * are numbered in docs/INVARIANTS.md (kv-*); asserts cite the numbers.
 *
 * A step has four moments. It is planned (cp_kv_grow, cp_kv_state), sent to a backend
 * (cp_kv_step_sent; cp_kv_advance says what it computes), done (cp_kv_step_done), and committed
 * (cp_kv_commit: which positions stay, and their ids; cp_kv_truncate: which go). Between sent and
 * done it is in flight. A unit (page or state slot) that loses its last holder while steps are in
 * flight is parked: nobody gets it until those steps are done.
 */
#ifndef CP_KV_CACHE_KV_H
#define CP_KV_CACHE_KV_H

#include "base/code.h"
#include "kernels/kernels.h"

typedef struct cp_kv cp_kv;
typedef int32_t cp_kv_seq; /* -1: none */

enum { CP_KV_MAX_DEPTH = 4 };

typedef struct cp_kv_config {
    const cp_kv_group *groups; /* copied */
    int n_groups;
    int page_positions;     /* P, a power of two */
    uint32_t n_pages;       /* incl. page 0 */
    uint32_t n_state_slots; /* incl. slot 0; 0 when no group is STATE */
    int max_seqs;
    int max_positions; /* longest sequence: bounds the page tables */
    int depth;         /* steps that may be in flight at once: 1..CP_KV_MAX_DEPTH; 0: 1 */
    bool prefix_cache;
    uint8_t identity[32]; /* SHA-256 over model digest, KV type, P, layout version: the root of
                             every page key */
} cp_kv_config;

/* CP_INVALID_VALUE for a configuration that cannot be, CP_NO_MEMORY. */
cp_code cp_kv_open(cp_kv **out, const cp_kv_config *cfg, cp_err *err);
void cp_kv_close(cp_kv *kv); /* NULL is fine */

/* Take a sequence. salt: 32 bytes mixed into its page keys (tenant, adapter), NULL = zeroes. -1
 * when all are taken. */
cp_kv_seq cp_kv_seq_open(cp_kv *kv, const uint8_t *salt);
/* Give everything back: indexed full pages stay cached and evictable, others become free. Copies
 * queued for it are withdrawn. */
void cp_kv_seq_close(cp_kv *kv, cp_kv_seq s);
/*
 * Attach the longest cached prefix of tokens[0, n) that is valid in EVERY group (a multiple of P,
 * <= max_hit; in a STATE group: a checkpoint exists there). Only on a fresh sequence. Returns
 * positions attached (0: none); done == that then. Tokens are compared on a hit, not only keys.
 */
int cp_kv_match(cp_kv *kv, cp_kv_seq s, const int32_t *tokens, int n, int max_hit);
/* What cp_kv_match would return; attaches nothing. For the scheduler's wait rule. */
int cp_kv_peek(const cp_kv *kv, const uint8_t *salt, const int32_t *tokens, int n, int max_hit);
/*
 * Make positions [done, n_positions) writable in every group: allocates pages (evicting cached
 * ones), replaces a shared partial page by a copy (see cp_kv_copies), takes the state slot to
 * write. All or nothing; false: the pool cannot give that many.
 */
bool cp_kv_grow(cp_kv *kv, cp_kv_seq s, int n_positions);
/* Pages that cp_kv_grow would have to take, and what the pools could give (free + cached).
 * State slots: UINT32_MAX when no group is STATE. */
uint32_t cp_kv_need(const cp_kv *kv, cp_kv_seq s, int n_positions);
uint32_t cp_kv_available(const cp_kv *kv);
uint32_t cp_kv_states_available(const cp_kv *kv);
/* Pages, and state slots, that would become available if these n sequences were closed: what others
 * hold too does not count. O(pages that they hold). */
void cp_kv_freed_by(cp_kv *kv, const cp_kv_seq *seqs, int n, uint32_t *pages, uint32_t *states);
/* Pages that s holds, shared ones included. */
uint32_t cp_kv_held(const cp_kv *kv, cp_kv_seq s);
/* Blocks of positions in the tables of s: those of positions computed, and of what was grown since.
 */
int cp_kv_blocks(const cp_kv *kv, cp_kv_seq s);
/*
 * Pages that a sequence of n positions holds at most while it runs in chunks of `chunk` rows; the
 * same of a configuration (its groups, page size and depth). A window is let go with a commit: a
 * chunk of each step that may be in flight lies beyond it.
 */
uint32_t cp_kv_most(const cp_kv *kv, int n, int chunk);
uint32_t cp_kv_pages_for(const cp_kv_config *cfg, int n, int chunk);
/* The step that was just sent computes positions < n_done: the next step writes after them. */
void cp_kv_advance(cp_kv *kv, cp_kv_seq s, int n_done);
/*
 * Positions < n stay for good, n <= done: the steps that computed them are done, and tokens[0, n)
 * are their ids. Publishes full pages and saved checkpoints, and nulls entries of WINDOW groups
 * that no row at n or later can see.
 */
void cp_kv_commit(cp_kv *kv, cp_kv_seq s, const int32_t *tokens, int n);
/*
 * Positions >= n of s never were: done is n, pages beyond n's block go. Between a commit and the
 * next plan; no step in flight may compute positions of s. False, and nothing happens, where what
 * is asked for is not there any more: below the last commit (pages were published, windows let go),
 * and in a model with STATE groups, which hold no state but the last (n == done is allowed). The
 * block of n keeps what was written at n and later until rows write there again; what others share
 * stays theirs and is copied by the next who writes.
 */
bool cp_kv_truncate(cp_kv *kv, cp_kv_seq s, int n);
/* A new sequence that shares all computed pages of src (n > 1); the partial page is copied by
 * whoever writes first, the state by the step that follows. -1: none free. */
cp_kv_seq cp_kv_fork(cp_kv *kv, cp_kv_seq src);

/* Positions computed, or being computed by a step in flight; and those that stay for good. */
int cp_kv_done(const cp_kv *kv, cp_kv_seq s);
int cp_kv_firm(const cp_kv *kv, cp_kv_seq s);
/* Page table of a group, valid until the next call that changes s; entry i holds positions [i*P,
 * (i+1)*P). NULL and n = 0 for a STATE group. */
const uint32_t *cp_kv_pages(const cp_kv *kv, cp_kv_seq s, int group, int *n);
/* Per-group table pointers as cp_batch_seq.pages wants them, into one slab of all sequences,
 * [max_seqs][paged groups][blocks]. A backend that keeps tables of its own gathers them anew each
 * step (4 bytes per group and page that the step reads): nothing tells what changed. */
const uint32_t *const *cp_kv_tables(const cp_kv *kv, cp_kv_seq s);
int cp_kv_depth(const cp_kv *kv); /* steps that may be in flight at once */
/* Whether some group is STATE: sequences then carry state slots. */
bool cp_kv_has_state(const cp_kv *kv);
/*
 * Take a slot for a checkpoint at `end`, where the coming step of s ends, after cp_kv_grow: if end
 * is a multiple of P and one can be had (false: not). cp_kv_commit publishes it. A lasting one
 * stays until it is evicted; a passing one also goes when s leaves a later checkpoint, unless
 * another sequence has hit it or come to the same: so what is left of a sequence that ends is its
 * last.
 */
bool cp_kv_checkpoint(cp_kv *kv, cp_kv_seq s, int end, bool lasting);
/* State slots for the next step: read from *in (0: zeroes), write to *out, and to *save (0: no
 * checkpoint). All 0 when no group is STATE. */
void cp_kv_state(const cp_kv *kv, cp_kv_seq s, uint32_t *in, uint32_t *out, uint32_t *save);
/* Page copies that the step being planned must do first, and pages to be zeroed before them (handed
 * out, and not wholly written by it). Valid until cp_kv_step_sent. */
const cp_page_copy *cp_kv_copies(const cp_kv *kv, int *n);
const uint32_t *cp_kv_fresh(const cp_kv *kv, uint32_t *n);
/*
 * The step that was planned is in flight; its lists are emptied for the next one's. The backend has
 * taken what it needs of them and of page tables: after submit, or (one step at a time) after
 * collect. At most `depth` steps are in flight.
 */
void cp_kv_step_sent(cp_kv *kv);
/*
 * The oldest step in flight touches no page and no state slot any more: what it read and wrote may
 * be handed out. Where a backend does what it is sent in the order of sending, zeroing and copying
 * included, this may be said as soon as the step was sent: who writes a page next comes after it.
 */
void cp_kv_step_done(cp_kv *kv);
/* Units that nobody holds and that steps in flight may still touch: free or cached once those are
 * done. */
uint32_t cp_kv_parked(const cp_kv *kv);
uint32_t cp_kv_states_parked(const cp_kv *kv);
/* Slots of checkpoints that wait for the commit of their step: cached or free then. */
uint32_t cp_kv_states_saved(const cp_kv *kv);

typedef struct cp_kv_stats {
    uint32_t pages_free, pages_cached, pages_used;
    uint32_t states_free, states_cached, states_used; /* used: held or parked */
    uint64_t hits, hit_positions, evictions, state_evictions, window_releases, copies;
    uint32_t checkpoints_held; /* in the index, whether somebody holds them or not */
    /* published; of those, let go for a later one of the same sequence, or with their page */
    uint64_t checkpoints, checkpoints_passed, checkpoints_cut;
    uint64_t truncations, parked; /* truncated more than nothing; units that were parked */
} cp_kv_stats;
void cp_kv_stats_get(const cp_kv *kv, cp_kv_stats *out);
/* What the books of docs/INVARIANTS.md (kv-*) say at any moment between calls: aborts through
 * CP_ASSERT with the number of what is broken. O(pages + table entries); allocates. */
void cp_kv_check(const cp_kv *kv);

#endif
