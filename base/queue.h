/*
 * queue: these structures, and no others, cross threads while serving.
 *
 * A cp_mpsc is an intrusive multi-producer single-consumer queue (Vyukov), whose push is wait-free
 * and allocates nothing. A cp_ring is a single-producer single-consumer ring of fixed-size records,
 * whose memory is the caller's.
 */
#ifndef CP_BASE_QUEUE_H
#define CP_BASE_QUEUE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct cp_mpsc_node {
    _Atomic(struct cp_mpsc_node *) next;
} cp_mpsc_node;
typedef struct cp_mpsc {
    _Atomic(cp_mpsc_node *) head; /* producers */
    cp_mpsc_node *tail;           /* consumer */
    cp_mpsc_node stub;
} cp_mpsc;
void cp_mpsc_init(cp_mpsc *q);
void cp_mpsc_push(cp_mpsc *q, cp_mpsc_node *n); /* any thread */
cp_mpsc_node *cp_mpsc_pop(cp_mpsc *q); /* consumer only; NULL: empty (or a push is half done) */

typedef struct cp_ring {
    uint8_t *mem;
    uint32_t record;       /* bytes a record */
    uint32_t cap;          /* records, power of two */
    _Atomic uint32_t head; /* next to write; release by the producer */
    _Atomic uint32_t tail; /* next to read; release by the consumer */
} cp_ring;
void cp_ring_init(cp_ring *r, void *mem, uint32_t record, uint32_t cap);
bool cp_ring_push(cp_ring *r, const void *rec); /* producer; false: full */
bool cp_ring_pop(cp_ring *r, void *rec);        /* consumer; false: empty */
uint32_t cp_ring_count(const cp_ring *r);

#endif
