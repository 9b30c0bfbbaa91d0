/*
 * index: which full blocks of positions are cached, by content.
 *
 * The key of block b is SHA-256(key of block b - 1, its P tokens as little-endian int32); before
 * block 0 stands SHA-256(identity, salt). A key thus names the whole prefix, so that a block can be
 * found although earlier ones were evicted: a window group needs only the last blocks before a hit.
 * A node carries its parent's key and its tokens; both are compared on a look-up, so a hit never
 * rests on the digest alone.
 */
#include "base/digest.h"
#include "kv-cache/kv_internal.h"

#include <string.h>

void cp_kv_root_key(const cp_kv *kv, const uint8_t *salt, kv_key *out)
{
    uint8_t in[64] = {0};
    memcpy(in, kv->identity, 32);
    if (salt && !CP_PLANTED(11))
        memcpy(in + 32, salt, 32);
    cp_sha256_of(in, sizeof(in), out->b);
}

void cp_kv_next_key(const cp_kv *kv, const kv_key *parent, const int32_t *tok, kv_key *out)
{
    memcpy(kv->hash_buf, parent->b, 32);
    for (int i = 0; i < kv->P; i++) {
        uint32_t t = (uint32_t)tok[i];
        for (int k = 0; k < 4; k++)
            kv->hash_buf[32 + 4 * i + k] = (uint8_t)(t >> (8 * k));
    }
    cp_sha256_of(kv->hash_buf, 32 + 4 * (size_t)kv->P, out->b);
}

static uint32_t bucket_of(const cp_kv *kv, const kv_key *key)
{
    uint32_t h;
    memcpy(&h, key->b, sizeof(h));
    if (CP_PLANTED(9) || CP_PLANTED(200))
        h = key->b[0];
    return h & (kv->n_buckets - 1);
}

static int32_t find(const cp_kv *kv, const kv_key *key, const kv_key *parent, const int32_t *tok)
{
    for (int32_t i = kv->bucket[bucket_of(kv, key)]; i >= 0; i = kv->nodes[i].next) {
        /* plant 200: keys of one byte alone must do no harm */
        size_t n = CP_PLANTED(9) || CP_PLANTED(200) ? 1 : sizeof(*key);
        if (memcmp(&kv->nodes[i].key, key, n) != 0)
            continue;
        if (CP_PLANTED(9))
            return i;
        if (memcmp(&kv->nodes[i].parent, parent, sizeof(*parent)) == 0 &&
            memcmp(kv->node_tok + (size_t)i * (size_t)kv->P, tok, sizeof(*tok) * (size_t)kv->P) ==
                0)
            return i;
    }
    return -1;
}

static uint32_t *node_pages(const cp_kv *kv, int32_t node)
{
    return kv->node_page + (size_t)node * (size_t)kv->n_groups;
}

int cp_kv_lookup(const cp_kv *kv, const kv_key *root, const int32_t *tokens, int max_blocks,
                 kv_key *tail)
{
    int run[CP_MAX_GROUPS] = {0}; /* consecutive blocks up to here that have a page */
    int best = 0;
    kv_key key = *root;
    for (int b = 0; b < max_blocks; b++) {
        const int32_t *tok = tokens + (size_t)b * (size_t)kv->P;
        kv_key parent = key;
        cp_kv_next_key(kv, &parent, tok, &key);
        int32_t node = find(kv, &key, &parent, tok);
        kv->hit_nodes[b] = node;
        bool valid = true;
        for (int g = 0; g < kv->n_groups; g++) {
            if (kv->groups[g].kind == CP_GROUP_STATE) {
                valid = valid && node >= 0 && kv->nodes[node].state != 0;
                continue;
            }
            bool there = node >= 0 && node_pages(kv, node)[g] != 0;
            run[g] = there ? run[g] + 1 : 0;
            if (!there && kv->groups[g].kind == CP_GROUP_FULL)
                return best; /* nothing longer can be valid */
            int first = kv_first_block(kv, g, (b + 1) * kv->P);
            if (run[g] < b + 1 - first && !(CP_PLANTED(10) && run[g] > 0))
                valid = false;
        }
        if (valid) {
            best = b + 1;
            *tail = key;
        }
    }
    return best;
}

static int32_t node_new(cp_kv *kv, const kv_key *key, const kv_key *parent, const int32_t *tok)
{
    int32_t i = kv->node_free;
    CP_ASSERT(i >= 0 && "kv-5"); /* a node names at least one unit: there are enough */
    kv_node *n = &kv->nodes[i];
    kv->node_free = n->next;
    n->key = *key;
    n->parent = *parent;
    memcpy(kv->node_tok + (size_t)i * (size_t)kv->P, tok, sizeof(*tok) * (size_t)kv->P);
    n->state = 0;
    n->n_units = 0;
    memset(node_pages(kv, i), 0, sizeof(uint32_t) * (size_t)kv->n_groups);
    uint32_t h = bucket_of(kv, key);
    n->next = kv->bucket[h];
    kv->bucket[h] = i;
    return i;
}

static void node_free(cp_kv *kv, int32_t i)
{
    int32_t *at = &kv->bucket[bucket_of(kv, &kv->nodes[i].key)];
    while (*at != i)
        at = &kv->nodes[*at].next;
    *at = kv->nodes[i].next;
    kv->nodes[i].next = kv->node_free;
    kv->node_free = i;
}

/* What a page that leaves the index takes along, or a checkpoint its sequence's name. */
static void unindex_first(cp_kv *kv, const kv_units *u, uint32_t i)
{
    uint32_t state = kv->nodes[u->node[i]].state;
    if (u == &kv->states) {
        cp_kv_checkpoint_lasts(kv, i);
        kv->checkpoints_held--;
    } else if (state && kv->groups[u->group[i]].kind == CP_GROUP_FULL && !CP_PLANTED(21)) {
        cp_kv_units_forget(kv, &kv->states, state); /* no hit gets there any more */
        kv->checkpoints_cut++;
    }
}

void cp_kv_unindex(cp_kv *kv, kv_units *u, uint32_t i)
{
    int32_t node = u->node[i];
    CP_ASSERT(node >= 0 && "kv-5");
    unindex_first(kv, u, i);
    uint32_t *at = u == &kv->states ? &kv->nodes[node].state : &node_pages(kv, node)[u->group[i]];
    CP_ASSERT(*at == i && "kv-5");
    *at = 0;
    u->node[i] = -1;
    if (--kv->nodes[node].n_units == 0)
        node_free(kv, node);
}

void cp_kv_publish(cp_kv *kv, kv_seq *q, int b, const int32_t *tok, uint32_t checkpoint)
{
    kv_key key;
    cp_kv_next_key(kv, &q->tail, tok, &key);
    int32_t node = find(kv, &key, &q->tail, tok);
    for (int g = 0; g < kv->n_groups; g++) {
        if (!kv_is_paged(kv, g))
            continue;
        uint32_t page = q->table[g][b];
        if (page == 0 || kv->pages.node[page] >= 0)
            continue; /* passed out of the window, or came from the index */
        if (node >= 0 && node_pages(kv, node)[g] != 0)
            continue; /* computed twice: ours stays private */
        if (node < 0)
            node = node_new(kv, &key, &q->tail, tok);
        node_pages(kv, node)[g] = page;
        kv->nodes[node].n_units++;
        kv->pages.node[page] = node;
        kv->pages.group[page] = (uint8_t)g;
    }
    if (checkpoint && node >= 0 && kv->nodes[node].state != 0) {
        cp_kv_checkpoint_lasts(kv, kv->nodes[node].state); /* it stands for ours, too */
    } else if (checkpoint) {
        if (node < 0)
            node = node_new(kv, &key, &q->tail, tok);
        kv->nodes[node].state = checkpoint;
        kv->nodes[node].n_units++;
        kv->states.node[checkpoint] = node;
        kv->checkpoints_held++;
        kv->checkpoints++;
    }
    q->tail = key;
    q->n_pub = b + 1;
}
