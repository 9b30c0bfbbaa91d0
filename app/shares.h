/*
 * shares: what of the memory for KV caches each model of the options gets.
 */
#ifndef CP_APP_SHARES_H
#define CP_APP_SHARES_H

#include "app/devices.h"

/*
 * share[o->n_models]: every [[model]] kv_bytes first, the rest of --kv-bytes in equal parts. Where
 * --kv-bytes is not given, several models on the CPU share its default so. A model alone there,
 * for which nothing is said, gets what the backend can give beside it: 0. So does each of several
 * on a GPU, beside its equal part of what the others are to have, weights included; unsaid[i] is
 * how many there are on device i, else 0. CP_NO_MEMORY with the arithmetic; CP_INVALID_VALUE for a
 * device that is not open.
 */
cp_code cp_app_shares(const cp_options *o, const cp_devices *devices, uint64_t *share,
                      int unsaid[CP_DEVICES], cp_err *err);

#endif
