/*
 * sampling: turns parameters into what the engine samples with, the same for requests and for
 * `run`. The functions are pure, and any thread may call them.
 */
#ifndef CP_SERVER_SAMPLING_H
#define CP_SERVER_SAMPLING_H

#include "server/params.h"

/*
 * Fill *out from p (its model's ranges hold); a seed is drawn where it has none. Lists of ids lie
 * in the arena: the tokenizer's ends, the request's, and stop strings that spell a special token,
 * which no text shows. CP_NO_MEMORY when the arena is exhausted. Any thread.
 */
cp_code cp_sampling_make(const cp_params *p, const cp_tokenizer *tok, cp_arena *a, cp_sampling *out,
                         cp_err *err);

#endif
