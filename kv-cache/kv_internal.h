/*
 * kv_internal: the data model of kv-cache, shared by kv.c (sequences), states.c (their states and
 * checkpoints), units.c (pools), index.c (prefix index) and check.c (invariants). Nobody else
 * includes it.
 *
 * A "unit" is a page or a state slot; both live in a kv_units. A unit is exactly one of: free (on
 * the free stack), cached (no holder, indexed, on the LRU list), used (held by sequences, or pinned
 * as the source of a queued copy). A "node" of the index stands for one full block of P positions
 * and names at most one page a group and one checkpoint.
 */
#ifndef CP_KV_CACHE_KV_INTERNAL_H
#define CP_KV_CACHE_KV_INTERNAL_H

#include "base/mem.h"
#include "kv-cache/kv.h"
#include "kv-cache/plant.h"

typedef struct kv_key {
    uint8_t b[32];
} kv_key;

/* Unit 0 is the null unit and the sentinel of the LRU ring (next[0] = oldest). */
typedef struct kv_units {
    uint32_t n; /* incl. unit 0; 0: no such units */
    uint32_t n_free, n_cached;
    uint32_t n_parked; /* without holder, but kept by a step in flight */
    uint32_t *refs;    /* [n] table entries (or states) that name it */
    uint32_t *pins;    /* [n] queued copies that read it, and steps in flight that keep it */
    uint32_t *kept;    /* [depth][n] what the step in flight number k keeps, at k % depth */
    uint32_t n_kept[CP_KV_MAX_DEPTH];
    uint64_t *kept_by;     /* [n] the latest step that keeps it, counted from 1 */
    uint64_t *since;       /* [n] steps that had been sent when it got its first holder */
    int32_t *node;         /* [n] its node, -1: not indexed */
    uint8_t *group;        /* [n] its group while indexed */
    uint32_t *prev, *next; /* [n] LRU ring of cached units */
    uint32_t *stack;       /* [n] free units, top at n_free - 1 */
    uint64_t *stamp;       /* [n] when it became cached; read by cp_kv_check only */
    uint64_t clock;
    uint64_t evictions, parked;
} kv_units;

typedef struct kv_node {
    kv_key key, parent;
    int32_t next;   /* hash chain, or free list; -1: end */
    uint32_t state; /* checkpoint at the block's end; 0: none */
    int n_units;    /* pages and checkpoint it names; 0: the node is free */
} kv_node;

typedef struct kv_seq {
    bool open;
    int done;           /* positions computed, by steps in flight too */
    int firm;           /* positions committed; <= done */
    int n_blocks;       /* table entries in use, every paged group */
    int n_pub;          /* blocks whose keys are known: firm / P while the cache is on */
    kv_key root, tail;  /* key before block 0, and of block n_pub - 1 */
    uint32_t **table;   /* [n_groups] its rows of the slab, NULL for STATE */
    int *first;         /* [n_groups] entries below are null (WINDOW) */
    uint32_t state;     /* holds the state after `done` positions; 0: none */
    uint32_t state_out; /* of the step being planned; 0: none */
    struct kv_save {    /* checkpoints of steps that are not committed, oldest first */
        uint32_t slot;
        int end; /* its positions */
        bool lasting;
    } saves[CP_KV_MAX_DEPTH];
    int n_saves;
    uint32_t passing; /* its published checkpoint that goes when it leaves a later one; 0: none */
} kv_seq;

struct cp_kv {
    cp_kv_group groups[CP_MAX_GROUPS];
    int n_groups, n_paged;
    bool has_state, prefix_cache;
    int P, max_seqs, max_blocks, max_positions;
    int depth;
    uint64_t n_sent, n_done; /* steps; those between are in flight */
    uint8_t identity[32];

    kv_units pages, states;
    cp_kv_seq *passing_of; /* [n_state_slots] whose passing checkpoint it is; -1: nobody's */
    kv_seq *seqs;
    /* of all sequences, in one piece each: */
    uint32_t *tables; /* [max_seqs][n_paged][max_blocks] */
    uint32_t **rows;  /* [max_seqs][n_groups] into it */
    int *firsts;      /* [max_seqs][n_groups] */

    kv_node *nodes;      /* [n_nodes] */
    uint32_t *node_page; /* [n_nodes][n_groups] */
    int32_t *node_tok;   /* [n_nodes][P] */
    int32_t n_nodes, node_free;
    int32_t *bucket; /* [n_buckets] */
    uint32_t n_buckets;

    int32_t *hit_nodes; /* [max_blocks] scratch of a look-up */
    uint8_t *hash_buf;  /* 32 + 4 P bytes */

    cp_page_copy *copies; /* [max_seqs * n_groups] */
    int n_copies;
    bool *is_dst;    /* [n_pages] destination of a queued copy */
    uint32_t *fresh; /* [n_pages] */
    uint32_t n_fresh;
    bool *is_fresh;
    uint32_t *marks; /* [at least n_pages, n_state_slots] scratch, zero between calls */

    uint32_t n_saved; /* checkpoints that wait for their commit, of all sequences */
    uint32_t checkpoints_held;
    uint64_t hits, hit_positions, window_releases, n_copied, truncations;
    uint64_t checkpoints, checkpoints_passed, checkpoints_cut;
};

static inline kv_seq *kv_seq_at(const cp_kv *kv, cp_kv_seq s)
{
    CP_ASSERT(s >= 0 && s < kv->max_seqs && kv->seqs[s].open);
    return &kv->seqs[s];
}
static inline bool kv_is_paged(const cp_kv *kv, int g)
{
    return kv->groups[g].kind != CP_GROUP_STATE;
}
/* The first block that a row at position `pos` or later can see in group g. */
static inline int kv_first_block(const cp_kv *kv, int g, int pos)
{
    int low = kv->groups[g].kind == CP_GROUP_WINDOW ? pos - kv->groups[g].window + 1 : 0;
    return low > 0 ? low / kv->P : 0;
}

/* units.c */
bool cp_kv_units_init(kv_units *u, uint32_t n, int depth);
void cp_kv_units_fini(kv_units *u);
/* A free unit, else the oldest cached one (its index entry goes); 0: none. It has one holder. */
uint32_t cp_kv_units_take(cp_kv *kv, kv_units *u);
void cp_kv_units_hold(const cp_kv *kv, kv_units *u, uint32_t i); /* one more holder */
/* One holder less: still held, parked (steps are in flight), cached or free. */
void cp_kv_units_drop(const cp_kv *kv, kv_units *u, uint32_t i);
/* Unit i leaves the index; it is free at once if nobody holds it, else once nobody does. */
void cp_kv_units_forget(cp_kv *kv, kv_units *u, uint32_t i);
void cp_kv_units_pin(kv_units *u, uint32_t i);
void cp_kv_units_unpin(kv_units *u, uint32_t i);
/* The newest step in flight takes over a pin of unit i. */
void cp_kv_units_keep(const cp_kv *kv, kv_units *u, uint32_t i);
/* The oldest step in flight is done. */
void cp_kv_units_done(const cp_kv *kv, kv_units *u);

/* states.c */
/* Whether the next step must write another slot than it reads: none yet, shared, a checkpoint. */
bool cp_kv_state_needed(const cp_kv *kv, const kv_seq *q);
/* q has ended: what it has of states goes, its last checkpoint stays in the index. */
void cp_kv_states_close(cp_kv *kv, kv_seq *q);
/* Block b of s is committed: publish it, with the checkpoint that was saved at its end. */
void cp_kv_block_committed(cp_kv *kv, cp_kv_seq s, int b, const int32_t *tok, bool last);
/* Checkpoint `slot` is worth more than its sequence's last page border so far. */
void cp_kv_checkpoint_lasts(cp_kv *kv, uint32_t slot);

/* index.c */
void cp_kv_root_key(const cp_kv *kv, const uint8_t *salt, kv_key *out);
/* Longest valid hit in blocks; kv->hit_nodes[] filled, *tail = key of the last block. */
int cp_kv_lookup(const cp_kv *kv, const kv_key *root, const int32_t *tokens, int max_blocks,
                 kv_key *tail);
/* Publish block b of q (tokens at tok); checkpoint 0: none. Moves q->tail on. */
void cp_kv_publish(cp_kv *kv, kv_seq *q, int b, const int32_t *tok, uint32_t checkpoint);
/* Unit i of u is in no node any more; a page takes the checkpoint along to which it led. */
void cp_kv_unindex(cp_kv *kv, kv_units *u, uint32_t i);
/* The key after `parent` and P tokens. */
void cp_kv_next_key(const cp_kv *kv, const kv_key *parent, const int32_t *tok, kv_key *out);

#endif
