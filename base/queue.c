/*
 * This file implements the queues between threads: Vyukov's intrusive multi-producer queue and a
 * single-producer ring.
 *
 * Producers of an mpsc swap themselves in at `head` and then link the old head to themselves;
 * between the two steps the chain has a gap, which the consumer sees as "empty for now". The stub
 * keeps the chain non-empty, so push never touches `tail`. The source is D. Vyukov, "Intrusive MPSC
 * node-based queue". The indices of a ring run freely modulo 2^32; their difference is the count,
 * so no slot is wasted.
 */
#include "base/queue.h"

#include "base/code.h"

#include <string.h>

void cp_mpsc_init(cp_mpsc *q)
{
    atomic_store_explicit(&q->stub.next, NULL, memory_order_relaxed);
    atomic_store_explicit(&q->head, &q->stub, memory_order_relaxed);
    q->tail = &q->stub;
}

void cp_mpsc_push(cp_mpsc *q, cp_mpsc_node *n)
{
    atomic_store_explicit(&n->next, NULL, memory_order_relaxed);
    /* acq_rel: releases n's content, and orders this swap after the previous producer's. */
    cp_mpsc_node *prev = atomic_exchange_explicit(&q->head, n, memory_order_acq_rel);
    atomic_store_explicit(&prev->next, n, memory_order_release);
}

cp_mpsc_node *cp_mpsc_pop(cp_mpsc *q)
{
    cp_mpsc_node *tail = q->tail;
    cp_mpsc_node *next = atomic_load_explicit(&tail->next, memory_order_acquire);
    if (tail == &q->stub) {
        if (!next)
            return NULL;
        q->tail = tail = next;
        next = atomic_load_explicit(&tail->next, memory_order_acquire);
    }
    if (next) {
        q->tail = next;
        return tail;
    }
    if (tail != atomic_load_explicit(&q->head, memory_order_acquire))
        return NULL; /* a producer is between its two steps */
    cp_mpsc_push(q, &q->stub);
    next = atomic_load_explicit(&tail->next, memory_order_acquire);
    if (!next)
        return NULL;
    q->tail = next;
    return tail;
}

void cp_ring_init(cp_ring *r, void *mem, uint32_t record, uint32_t cap)
{
    CP_ASSERT(cap > 0 && cap <= (UINT32_C(1) << 31) && (cap & (cap - 1)) == 0 && record > 0);
    r->mem = mem;
    r->record = record;
    r->cap = cap;
    atomic_store_explicit(&r->head, 0, memory_order_relaxed);
    atomic_store_explicit(&r->tail, 0, memory_order_relaxed);
}

static uint8_t *ring_at(const cp_ring *r, uint32_t i)
{
    return r->mem + (size_t)(i & (r->cap - 1)) * r->record;
}

bool cp_ring_push(cp_ring *r, const void *rec)
{
    uint32_t head = atomic_load_explicit(&r->head, memory_order_relaxed);
    /* acquire: the consumer has copied the slot out before it moved tail */
    uint32_t tail = atomic_load_explicit(&r->tail, memory_order_acquire);
    if (head - tail == r->cap)
        return false;
    memcpy(ring_at(r, head), rec, r->record);
    atomic_store_explicit(&r->head, head + 1, memory_order_release);
    return true;
}

bool cp_ring_pop(cp_ring *r, void *rec)
{
    uint32_t tail = atomic_load_explicit(&r->tail, memory_order_relaxed);
    uint32_t head = atomic_load_explicit(&r->head, memory_order_acquire);
    if (head == tail)
        return false;
    memcpy(rec, ring_at(r, tail), r->record);
    atomic_store_explicit(&r->tail, tail + 1, memory_order_release);
    return true;
}

uint32_t cp_ring_count(const cp_ring *r)
{
    uint32_t tail = atomic_load_explicit(&r->tail, memory_order_acquire);
    return atomic_load_explicit(&r->head, memory_order_acquire) - tail;
}
