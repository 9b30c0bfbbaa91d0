/*
 * shares: what of the memory for KV caches each model of the options gets.
 */
#ifndef CP_APP_SHARES_H
#define CP_APP_SHARES_H

#include "app/compose.h"

/*
 * share[o->n_models]: every [[model]] kv_bytes first, the rest of the total in equal parts. One
 * model alone, for which nothing is said, gets what the backend can give beside it: 0. So does each
 * of several on a GPU, beside its equal part of what the others are to have, weights included;
 * *unsaid is how many there are, else 0. CP_NO_MEMORY with the arithmetic.
 */
cp_code cp_app_shares(const cp_options *o, const cp_stack *stack, uint64_t *share, int *unsaid,
                      cp_err *err);

#endif
