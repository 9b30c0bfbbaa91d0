/*
 * orders: does what takes long at somebody's word, each on a thread of its own: loads, unloads and
 * reloads of a serving process.
 *
 * A cp_orders bounds how many are under way, and knows when the last one has ended. Any thread may
 * give one. Owned by the command, which ends it before what the orders use.
 */
#ifndef CP_APP_ORDERS_H
#define CP_APP_ORDERS_H

#include <stdbool.h>

typedef struct cp_orders cp_orders;

cp_orders *cp_orders_new(int most);
/* fn(arg) on a new thread. False: `most` are under way, or the end has begun. */
bool cp_orders_give(cp_orders *o, void (*fn)(void *arg), void *arg);
/* No more are taken; true: none is under way any more, within so many ms. */
bool cp_orders_end(cp_orders *o, int ms);
/* After cp_orders_end has said true. NULL is fine. */
void cp_orders_free(cp_orders *o);

#endif
