/*
 * mem: memory that grows with what it holds: arenas, byte buffers, and cursors over bytes.
 *
 * An arena (cp_arena) holds all memory of one request under a cap and is freed at once; it belongs
 * to one thread at a time. A cp_buf is a growable byte string with a sticky `failed` flag, so a
 * chain of appends is checked once at the end. Both may name an account that pays for them
 * (base/budget.h). Checked sizes and small objects are in base/alloc.h, strings in base/str.h; both
 * come with this header.
 */
#ifndef CP_BASE_MEM_H
#define CP_BASE_MEM_H

#include "base/alloc.h"
#include "base/budget.h"
#include "base/code.h"
#include "base/str.h"

#include <stdbool.h>
#include <stddef.h>

typedef struct cp_arena cp_arena;
/* cap_bytes bounds the sum of all allocations; exceeding it makes cp_arena_alloc return NULL. */
cp_arena *cp_arena_new(size_t cap_bytes);
/* Blocks are paid by the account from now on (NULL: nobody counts); it must outlive the arena.
 * Right after cp_arena_new. A refusal makes cp_arena_alloc return NULL. */
void cp_arena_charge(cp_arena *a, cp_account *account);
cp_account *cp_arena_account(const cp_arena *a); /* may be NULL */
bool cp_arena_full(const cp_arena *a);           /* an allocation was refused by the cap */
void cp_arena_free(cp_arena *a);
void *cp_arena_alloc(cp_arena *a,
                     size_t n); /* 16-byte aligned, zeroed; NULL above the cap or out of memory */
char *cp_arena_strndup(cp_arena *a, const char *s,
                       size_t n); /* NUL-terminated copy; NULL as above */
char *cp_arena_printf(cp_arena *a, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
size_t cp_arena_used(const cp_arena *a);

/* realloc from old to n bytes that an account pays for (NULL: nobody counts). NULL: refused, or no
 * memory; p is as it was then. */
void *cp_paid_realloc(cp_account *account, void *p, size_t old, size_t n);
void cp_paid_free(cp_account *account, void *p, size_t n);

typedef struct cp_buf {
    char *p;     /* NUL-terminated whenever p != NULL */
    size_t n;    /* bytes in use, without the NUL */
    size_t cap;  /* bytes allocated */
    size_t max;  /* refuse to grow above this many bytes; 0 = 1 GiB */
    bool failed; /* sticky: an append did not fit or memory ran out; content is then truncated */
    cp_account *account; /* pays for cap; NULL: nobody counts. Must outlive the memory */
} cp_buf;

void cp_buf_fini(cp_buf *b);  /* frees and zeroes; a zeroed cp_buf is a valid empty one */
void cp_buf_clear(cp_buf *b); /* n = 0, keeps memory and max, clears failed */
void cp_buf_wipe(cp_buf *b);  /* the same, and what was in it is overwritten: of secrets */
bool cp_buf_reserve(cp_buf *b, size_t extra);
bool cp_buf_add(cp_buf *b, const void *p, size_t n);
bool cp_buf_adds(cp_buf *b, const char *s);
bool cp_buf_addc(cp_buf *b, char c);
bool cp_buf_printf(cp_buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Remove n bytes from the front. */
void cp_buf_consume(cp_buf *b, size_t n);

/* A bounded cursor over bytes from outside: every read is checked against what is left. */
typedef struct cp_cursor {
    const uint8_t *p;
    size_t n;   /* total bytes */
    size_t off; /* next byte */
} cp_cursor;
bool cp_cur_bytes(cp_cursor *c, size_t n,
                  const uint8_t **out); /* false: not enough left, off unchanged */
bool cp_cur_u8(cp_cursor *c, uint8_t *v);
bool cp_cur_u16(cp_cursor *c, uint16_t *v); /* little endian */
bool cp_cur_u32(cp_cursor *c, uint32_t *v);
bool cp_cur_u64(cp_cursor *c, uint64_t *v);

#endif
