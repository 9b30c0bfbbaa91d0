/*
 * budget: bounds the memory that many requests take together.
 *
 * A cp_budget is shared by threads (a mutex, held for a few instructions); whoever made it frees it
 * after its last account. A cp_account is what one holder has taken from it: a plain struct, used
 * by one thread at a time, with a NULL budget it counts nothing. Buffers and arenas that name an
 * account (base/mem.h) pay when they grow, malloc's overhead included, and are refused when the
 * budget has no more.
 *
 * Nobody can hold the budget for ever, and what has arrived whole can be worked on:
 * - What arrives (bodies being received, and waiting for a thread) has at most a quarter, so there
 *   is room to work on what is complete; who sends half a body holds that quarter at worst, and the
 *   server cuts the largest of those that are slow. Up to 16 KiB arrive as long as there is any
 *   room at all: ordinary requests do not wait for large ones.
 * - Work (parsing, rendering, tokenizing) begins with cp_account_begin, which reserves what it is
 *   sure to need, waiting for the work that goes on at that time. Who waits holds nothing but what
 *   it brought; who works waits for nothing, so it ends. When that has ended and there is still no
 *   room, the rest is held by requests that run: begin fails, and trying again later helps.
 * - What work takes beyond its reserve may be refused; it then fails and gives everything back.
 * A refusal says which it was: `refused` alone can be cured by waiting, `never` is more than the
 * whole budget.
 */
#ifndef CP_BASE_BUDGET_H
#define CP_BASE_BUDGET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct cp_budget cp_budget;
cp_budget *cp_budget_new(uint64_t limit_bytes); /* never NULL */
void cp_budget_free(cp_budget *b);              /* everything must have been given back */
uint64_t cp_budget_limit(const cp_budget *b);
/* From now on. Below what is in use: nothing more is given until so much has come back. */
void cp_budget_set_limit(cp_budget *b, uint64_t limit_bytes);
uint64_t cp_budget_arriving_max(const cp_budget *b); /* the quarter */
uint64_t cp_budget_used(cp_budget *b);
/* True once after the budget had filled and is nearly empty again: a good time to give free memory
 * back to the system. */
bool cp_budget_ebbed(cp_budget *b);

typedef struct cp_account {
    cp_budget *budget;
    uint64_t held;    /* bytes taken, the reserve included */
    uint64_t reserve; /* of these, not in use yet */
    bool arriving;    /* takes from the quarter until cp_account_begin */
    bool working;
    bool refused, never; /* sticky */
} cp_account;

/* What malloc(n) takes. */
size_t cp_malloc_bytes(size_t n);
/* False: refused, nothing was taken. */
bool cp_account_take(cp_account *a, size_t n);
void cp_account_give(cp_account *a, size_t n); /* at most what is held */
/* What arrived is worked on now; reserve n bytes. Blocks while others work and there is no room.
 * False: refused. */
bool cp_account_begin(cp_account *a, size_t n);
void cp_account_end(cp_account *a); /* the work is over, or never began; the reserve goes back */
/* to (holding nothing) takes over everything that from holds. */
void cp_account_move(cp_account *to, cp_account *from);
void cp_account_close(cp_account *a); /* gives back whatever is held */

#endif
