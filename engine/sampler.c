/*
 * sampler: between sequences and the backend's SAMPLE.
 *
 * Sampling is a pure function of (logits, history, seed, choice, position), so nothing here keeps
 * state between steps: what a row wants is read off its sequence and its position alone. position
 * is the index of the token in its choice; a preempted sequence therefore samples what it would
 * have sampled, and so does one whose last tokens are drafts, or pending (their values are where
 * they were sampled).
 */
#include "engine/sampler.h"

void cp_sample_ban(cp_task *t)
{
    const cp_sampling *p = &t->r->sampling;
    t->n_banned = 0;
    for (int i = 0; i < p->n_eog_ids && t->n_banned < CP_MAX_BANNED; i++)
        t->banned[t->n_banned++] = p->eog_ids[i];
    t->n_banned_eog = t->n_banned;
    for (int i = 0; i < p->n_stop_ids && t->n_banned < CP_MAX_BANNED; i++)
        t->banned[t->n_banned++] = p->stop_ids[i];
}

bool cp_sample_stops(const cp_seq *q, int32_t id)
{
    const cp_sampling *p = &q->task->r->sampling;
    for (int i = 0; i < p->n_stop_ids; i++) {
        if (p->stop_ids[i] == id)
            return true;
    }
    return false;
}

void cp_sample_fill(cp_sample_in *in, const cp_seq *q, int pos)
{
    const cp_request *r = q->task->r;
    const cp_sampling *p = &r->sampling;
    if (pos + 1 < q->n_prompt) { /* a prompt position: score the token that follows */
        *in = (cp_sample_in){
            .top_p = 1, .repetition = 1, .target = q->tokens[pos + 1], .n_top = r->n_prompt_top};
        return;
    }
    int n_output = pos + 1 - q->n_prompt; /* drafts and pending tokens before it included */
    *in = (cp_sample_in){
        .temperature = p->temperature,
        .top_p = p->top_p,
        .min_p = p->min_p,
        .top_k = p->top_k,
        .repetition = p->repetition,
        .presence = p->presence,
        .frequency = p->frequency,
        .tokens = q->tokens,
        .n_prompt = q->n_prompt,
        .n_tokens = pos + 1,
        .bias = p->bias,
        .n_bias = p->n_bias,
        .banned = q->task->banned,
        .seed = p->seed,
        .position = (uint64_t)n_output,
        .choice = (uint32_t)q->choice,
        .target = -1,
        .n_top = p->n_top,
    };
    if (n_output < p->min_tokens)
        in->n_banned = q->task->n_banned;
    else if (p->ignore_eos)
        in->n_banned = q->task->n_banned_eog;
}
