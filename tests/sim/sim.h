/*
 * sim: the scheduler and the kv-cache over a fake forward, driven by a seed.
 *
 * A sim_run plays clients (arrivals, slow readers, cancels, deadlines) against one cp_sched for a
 * number of steps. The forward computes nothing but remembers, in a shadow of every page and state
 * slot, which prefix was written where, and checks each position that a row would read by walking
 * the page tables. The next token is a hash of the prefix, so the right answer of every request is
 * known when it is made. With a depth over 1 the forward is a device's: it copies what it is given
 * when a step is submitted, runs it when it is collected, as late as can be, and keeps the tokens
 * of each slot, into which it samples. Any breach ends in CP_ASSERT with the invariant's number.
 */
#ifndef CP_TESTS_SIM_SIM_H
#define CP_TESTS_SIM_SIM_H

#include "engine/batch.h"
#include "engine/sched.h"

typedef struct sim_config {
    const char *name;
    cp_kv_group groups[8];
    int n_groups;
    int P, ctx, max_seqs, max_tasks, prefill_chunk, max_batch_rows, max_out;
    uint32_t n_pages, n_states;
    int checkpoint_every; /* positions */
    bool prefix_cache;
    uint64_t seed;
    int64_t n_steps;
    int n_requests; /* stop making requests after so many; 0: no bound */
    int max_prompt, max_new, max_choices;
    int families; /* shared prefixes that prompts are drawn from */
    int per_1000_cancel, per_1000_deadline, per_1000_score; /* of requests */
    int per_1000_slow;  /* of requests: the client reads rarely */
    int per_1000_hurry; /* of steps: time for max_seqs rows or fewer */
    int per_1000_draft; /* of sequences that could use drafts, in a step */
    bool may_run_out;   /* the pool may be smaller than a request */
    int depth;          /* steps in flight; 0: 1 */
    bool in_order;      /* the backend keeps the order of steps: pages go back when one is sent */
} sim_config;

typedef struct sim_result {
    cp_sched_stats sched;
    cp_kv_stats kv;
    int64_t steps, requests, finished, cancelled, expired, out_of_memory, tokens, prompt_scores;
    uint32_t max_window_pages; /* most that one window group of a sequence held */
} sim_result;

/* steps counts plans, those without rows included. Ends when n_steps are over and all requests have
 * been seen to their end. */
void sim_run(const sim_config *cfg, sim_result *out);
/* The shapes of the suite, by index; NULL past the end. */
const sim_config *sim_shape(int i);
/* Two steps in flight, and drafts for half of those who could use some. */
void sim_overlap(sim_config *cfg, bool in_order);
/* So many state slots that none is ever short, and checkpoints close together. */
void sim_many_states(sim_config *cfg);
/* A pool that holds a request of n tokens, and not much more. */
uint32_t sim_pages_for(const sim_config *cfg, int n);

#endif
