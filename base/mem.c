/*
 * This file implements arenas, growable buffers, and cursors over hostile bytes: see mem.h.
 *
 * An arena is a list of blocks of doubling size (4 KiB to 1 MiB); what does not fit gets a block of
 * its own, so the waste stays below one block. The cap counts what callers asked for, rounded to
 * 16. Buffers grow by half.
 */
#include "base/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- arena ---- */

enum { ARENA_FIRST = 4096, ARENA_BLOCK_MAX = 1 << 20, ARENA_ALIGN = 16 };

typedef struct block {
    struct block *next;
    size_t used, cap; /* bytes of data */
    _Alignas(ARENA_ALIGN) unsigned char data[];
} block;

struct cp_arena {
    block *head;       /* the block that is being filled */
    size_t next_block; /* size of the next ordinary block */
    size_t used, cap;
    size_t paid; /* by the account */
    cp_account *account;
    bool full;
};

cp_arena *cp_arena_new(size_t cap_bytes)
{
    cp_arena *a = cp_xcalloc(1, sizeof(*a));
    a->cap = cap_bytes;
    a->next_block = ARENA_FIRST;
    return a;
}

void cp_arena_charge(cp_arena *a, cp_account *account)
{
    CP_ASSERT(!a->head);
    a->account = account;
}

cp_account *cp_arena_account(const cp_arena *a)
{
    return a->account;
}

bool cp_arena_full(const cp_arena *a)
{
    return a->full;
}

void cp_arena_free(cp_arena *a)
{
    if (!a)
        return;
    if (a->account)
        cp_account_give(a->account, a->paid);
    for (block *b = a->head; b;) {
        block *next = b->next;
        free(b);
        b = next;
    }
    free(a);
}

static block *block_new(cp_arena *a, size_t bytes)
{
    size_t total;
    if (!cp_add(bytes, sizeof(block), &total))
        return NULL;
    size_t cost = cp_malloc_bytes(total);
    if (a->account && !cp_account_take(a->account, cost))
        return NULL;
    block *b = calloc(1, total);
    if (b) {
        b->cap = bytes;
        a->paid += cost;
    } else if (a->account) {
        cp_account_give(a->account, cost);
    }
    return b;
}

void *cp_arena_alloc(cp_arena *a, size_t n)
{
    size_t size, used;
    if (!cp_add(n ? n : 1, ARENA_ALIGN - 1, &size))
        return NULL;
    size &= ~(size_t)(ARENA_ALIGN - 1);
    if (!cp_add(a->used, size, &used) || used > a->cap) {
        a->full = true;
        return NULL;
    }
    block *b = a->head;
    if (b && b->cap - b->used >= size) {
        void *p = b->data + b->used;
        b->used += size;
        a->used = used;
        return p;
    }
    bool own = size > a->next_block / 2;
    b = block_new(a, own ? size : a->next_block);
    if (!b)
        return NULL;
    b->used = size;
    a->used = used;
    if (own && a->head) { /* keep filling the current block */
        b->next = a->head->next;
        a->head->next = b;
    } else {
        b->next = a->head;
        a->head = b;
    }
    if (!own && a->next_block < ARENA_BLOCK_MAX)
        a->next_block *= 2;
    return b->data;
}

char *cp_arena_strndup(cp_arena *a, const char *s, size_t n)
{
    size_t size;
    char *p = cp_add(n, 1, &size) ? cp_arena_alloc(a, size) : NULL;
    if (p && n)
        memcpy(p, s, n);
    return p;
}

char *cp_arena_printf(cp_arena *a, const char *fmt, ...)
{
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    char *p = n < 0 ? NULL : cp_arena_alloc(a, (size_t)n + 1);
    if (p)
        vsnprintf(p, (size_t)n + 1, fmt, again);
    va_end(again);
    return p;
}

size_t cp_arena_used(const cp_arena *a)
{
    return a->used;
}

/* ---- memory that an account pays for ---- */

void *cp_paid_realloc(cp_account *account, void *p, size_t old, size_t n)
{
    size_t paid = p ? cp_malloc_bytes(old) : 0, cost = cp_malloc_bytes(n);
    CP_ASSERT(n >= old);
    if (account && !cp_account_take(account, cost - paid))
        return NULL;
    void *grown = realloc(p, n);
    if (!grown && account)
        cp_account_give(account, cost - paid);
    return grown;
}

void cp_paid_free(cp_account *account, void *p, size_t n)
{
    free(p);
    if (account && p)
        cp_account_give(account, cp_malloc_bytes(n));
}

/* ---- growable buffer ---- */

static const size_t buf_max_default = (size_t)1 << 30;

void cp_buf_fini(cp_buf *b)
{
    cp_paid_free(b->account, b->p, b->cap);
    *b = (cp_buf){0};
}

void cp_buf_clear(cp_buf *b)
{
    b->n = 0;
    b->failed = false;
    if (b->p)
        b->p[0] = '\0';
}

void cp_buf_wipe(cp_buf *b)
{
    if (b->p)
        explicit_bzero(b->p, b->n);
    cp_buf_clear(b);
}

bool cp_buf_reserve(cp_buf *b, size_t extra)
{
    size_t max = b->max ? b->max : buf_max_default, want;
    if (b->failed)
        return false;
    if (!cp_add(b->n, extra, &want) || want > max || !cp_add(want, 1, &want)) {
        b->failed = true;
        return false;
    }
    if (want <= b->cap)
        return true;
    size_t cap = b->cap + b->cap / 2;
    if (cap < want)
        cap = want;
    if (cap < 64)
        cap = 64;
    if (cap - 1 > max)
        cap = max + 1;
    char *p = cp_paid_realloc(b->account, b->p, b->cap, cap);
    if (!p) {
        b->failed = true;
        return false;
    }
    if (!b->p)
        p[0] = '\0';
    b->p = p;
    b->cap = cap;
    return true;
}

bool cp_buf_add(cp_buf *b, const void *p, size_t n)
{
    if (!cp_buf_reserve(b, n))
        return false;
    if (n)
        memcpy(b->p + b->n, p, n);
    b->n += n;
    b->p[b->n] = '\0';
    return true;
}

bool cp_buf_adds(cp_buf *b, const char *s)
{
    return cp_buf_add(b, s, strlen(s));
}

bool cp_buf_addc(cp_buf *b, char c)
{
    return cp_buf_add(b, &c, 1);
}

bool cp_buf_printf(cp_buf *b, const char *fmt, ...)
{
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    /* Mostly there is room: one pass. What did not fit is written once more. */
    size_t room = b->failed ? 0 : b->cap - b->n;
    int n = vsnprintf(room ? b->p + b->n : NULL, room, fmt, ap);
    va_end(ap);
    if (n < 0)
        b->failed = true;
    bool ok = n >= 0 && cp_buf_reserve(b, (size_t)n);
    if (ok && (size_t)n >= room)
        vsnprintf(b->p + b->n, (size_t)n + 1, fmt, again);
    va_end(again);
    if (ok)
        b->n += (size_t)n;
    else if (b->p)
        b->p[b->n] = '\0';
    return ok;
}

void cp_buf_consume(cp_buf *b, size_t n)
{
    CP_ASSERT(n <= b->n);
    if (n == 0)
        return;
    memmove(b->p, b->p + n, b->n - n);
    b->n -= n;
    b->p[b->n] = '\0';
}

/* ---- cursor ---- */

bool cp_cur_bytes(cp_cursor *c, size_t n, const uint8_t **out)
{
    if (c->off > c->n || c->n - c->off < n)
        return false;
    *out = c->p + c->off;
    c->off += n;
    return true;
}

/* The next n bytes as a little-endian number. */
static bool cur_le(cp_cursor *c, size_t n, uint64_t *v)
{
    const uint8_t *p;
    if (!cp_cur_bytes(c, n, &p))
        return false;
    uint64_t x = 0;
    for (size_t i = 0; i < n; i++)
        x |= (uint64_t)p[i] << (8 * i);
    *v = x;
    return true;
}

bool cp_cur_u8(cp_cursor *c, uint8_t *v)
{
    uint64_t x;
    if (!cur_le(c, 1, &x))
        return false;
    *v = (uint8_t)x;
    return true;
}

bool cp_cur_u16(cp_cursor *c, uint16_t *v)
{
    uint64_t x;
    if (!cur_le(c, 2, &x))
        return false;
    *v = (uint16_t)x;
    return true;
}

bool cp_cur_u32(cp_cursor *c, uint32_t *v)
{
    uint64_t x;
    if (!cur_le(c, 4, &x))
        return false;
    *v = (uint32_t)x;
    return true;
}

bool cp_cur_u64(cp_cursor *c, uint64_t *v)
{
    return cur_le(c, 8, v);
}
