/*
 * kv-cache: who holds which page.
 *
 * A cp_kv is one model's page pool, state slots and prefix index; it belongs to the engine thread,
 * allocates nothing after open and does no I/O: it moves numbers, the backend owns the memory. A
 * cp_kv_seq is an index in [0, max_seqs). It hides reference counts, eviction (least recently
 * used), copy on write and the chained page keys. Page 0 is the null page, state slot 0 the null
 * slot; neither is ever handed out. free + cached + used + 1 == n_pages at every call.
 */
#ifndef CP_KV_CACHE_KV_H
#define CP_KV_CACHE_KV_H

#include "base/code.h"
#include "kernels/kernels.h"

typedef struct cp_kv cp_kv;
typedef int32_t cp_kv_seq; /* -1: none */

typedef struct cp_kv_config {
    const cp_kv_group *groups;
    int n_groups;
    int page_positions;     /* P */
    uint32_t n_pages;       /* incl. page 0 */
    uint32_t n_state_slots; /* incl. slot 0; 0 when no group is STATE */
    int max_seqs;
    int max_positions; /* longest sequence: bounds the page tables */
    bool prefix_cache;
    uint8_t identity[32]; /* SHA-256 over model digest, KV type, P, layout version: the root of
                             every page key */
} cp_kv_config;

cp_code cp_kv_open(cp_kv **out, const cp_kv_config *cfg, cp_err *err);
void cp_kv_close(cp_kv *kv);

/* Take a sequence. salt: 32 bytes mixed into its page keys (tenant, adapter), NULL = zeroes. -1
 * when all are taken. */
cp_kv_seq cp_kv_seq_open(cp_kv *kv, const uint8_t *salt);
/* Give everything back: indexed full pages stay cached and evictable, others become free. */
void cp_kv_seq_close(cp_kv *kv, cp_kv_seq s);
/*
 * Attach the longest cached prefix of tokens[0, n) that is valid in EVERY group (a multiple of P,
 * <= max_hit; in a STATE group: a checkpoint exists there). Only on a fresh sequence. Returns
 * positions attached (0: none); done == that then. Tokens are compared on a hit, not only keys.
 */
int cp_kv_match(cp_kv *kv, cp_kv_seq s, const int32_t *tokens, int n, int max_hit);
/* How far another live sequence's prompt would serve this one: see the scheduler's wait rule. Pages
 * not attached. */
int cp_kv_peek(const cp_kv *kv, const uint8_t *salt, const int32_t *tokens, int n, int max_hit);
/*
 * Make positions [done, n_positions) writable in every group: allocates pages (evicting cached
 * ones), copies a shared partial page (see cp_kv_copies). All or nothing; false: the pool cannot
 * give that many.
 */
bool cp_kv_grow(cp_kv *kv, cp_kv_seq s, int n_positions);
/* Pages that cp_kv_grow would have to take, and what the pool could give (free + cached). */
uint32_t cp_kv_need(const cp_kv *kv, cp_kv_seq s, int n_positions);
uint32_t cp_kv_available(const cp_kv *kv);
/*
 * Positions < n_done are now computed; tokens[0, n_done) are their ids. Publishes full pages, and
 * nulls entries of WINDOW groups that no later position can see.
 */
void cp_kv_advance(cp_kv *kv, cp_kv_seq s, const int32_t *tokens, int n_done);
/* A new sequence that shares all pages of src (n > 1); the partial page is copied by whoever writes
 * first. -1: none. */
cp_kv_seq cp_kv_fork(cp_kv *kv, cp_kv_seq src);

/* Page table of a group, valid until the next call that changes s; entry i holds positions [i*P,
 * (i+1)*P). */
const uint32_t *cp_kv_pages(const cp_kv *kv, cp_kv_seq s, int group, int *n);
/* Per-group table pointers as cp_batch_seq.pages wants them. */
const uint32_t *const *cp_kv_tables(const cp_kv *kv, cp_kv_seq s);
/* State slots for the next step: read from *in, write to *out, and when the step ends exactly at
 * `end` on a multiple of P and a slot can be had, also to *save (0: none), which cp_kv_advance then
 * publishes as a checkpoint. */
void cp_kv_state(cp_kv *kv, cp_kv_seq s, int end, uint32_t *in, uint32_t *out, uint32_t *save);
/* Copies that this step must do first; the list is emptied by cp_kv_copies_done. */
const cp_page_copy *cp_kv_copies(const cp_kv *kv, int *n);
const cp_page_copy *cp_kv_state_copies(const cp_kv *kv, int *n);
void cp_kv_copies_done(cp_kv *kv);

typedef struct cp_kv_stats {
    uint32_t pages_free, pages_cached, pages_used;
    uint32_t states_free, states_cached, states_used;
    uint64_t hits, hit_positions, evictions, window_releases, copies, checkpoints;
} cp_kv_stats;
void cp_kv_stats_get(const cp_kv *kv, cp_kv_stats *out);
/* Every invariant of docs/INVARIANTS.md (kv-*): aborts through CP_ASSERT with its number. O(pages).
 */
void cp_kv_check(const cp_kv *kv);

#endif
