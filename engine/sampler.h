/*
 * sampler: what SAMPLE is to do with an output row, read off its sequence.
 */
#ifndef CP_ENGINE_SAMPLER_H
#define CP_ENGINE_SAMPLER_H

#include "engine/state.h"

/* What the output row at position pos of q wants. */
void cp_sample_fill(cp_sample_in *in, const cp_seq *q, int pos);
/* Collect the ids that t's choices must not sample (min_tokens, ignore_eos). */
void cp_sample_ban(cp_task *t);
bool cp_sample_stops(const cp_seq *q, int32_t id);

#endif
