/*
 * goal: how far a sequence wants to get, and where on the way it wants outputs and checkpoints.
 *
 * Checkpoints (of models with STATE groups) are wanted where a prompt to come can go on: at the
 * last page border before the prompt's last token, for the same prompt asked again; at the last one
 * before what opens the answer, where history may be written otherwise; at the last page border of
 * all that is known, for the next turn, which begins with prompt and answer, and for the sequence
 * itself when it was preempted; and every so often on the way, for prompts that share less. An
 * answer's end is not foreseen: each border that it passes is one, and takes the place of the one
 * before (cp_kv_checkpoint).
 */
#include "engine/goal.h"

bool cp_seq_scoring(const cp_seq *q)
{
    return q->task->r->n_prompt_top >= 0 && q->task->n_scored < q->n_prompt;
}

bool cp_seq_fork_pending(const cp_seq *q)
{
    return !q->forked && q->task->next_choice < q->task->r->n && q->task->r->max_tokens > 0 &&
           q->n_known == q->n_prompt;
}

/* A pending token gets no row where it is the last, or where the host must have seen it first. */
static bool waits_for_pending(const cp_seq *q)
{
    const cp_request *r = q->task->r;
    bool last = q->n_known + q->n_pending - q->n_prompt >= r->max_tokens;
    return q->n_pending > 0 && (last || (r->no_overlap && !CP_PLANTED(129)));
}

int cp_seq_goal(const cp_seq *q)
{
    if (q->task->r->max_tokens == 0 || cp_seq_fork_pending(q))
        return q->n_prompt - 1;
    return q->n_known + q->n_pending + q->n_spec - waits_for_pending(q);
}

int cp_seq_out_first(const cp_seq *q)
{
    if (!cp_seq_scoring(q))
        return q->n_known + q->n_pending - 1;
    return q->n_done > q->task->n_scored - 1 ? q->n_done : q->task->n_scored - 1;
}

bool cp_seq_one_to_go(const cp_seq *q)
{
    return cp_seq_goal(q) - q->n_spec - q->n_done == 1;
}

bool cp_seq_decoding(const cp_seq *q)
{
    return q->n_known + q->n_pending > q->n_prompt && q->n_done + 1 == q->n_known + q->n_pending;
}

int cp_seq_drafts_wanted(const cp_sched *s, const cp_seq *q)
{
    if (q->state != CP_SEQ_RUNNING || !cp_seq_decoding(q) || q->in_flight > 0 ||
        cp_kv_has_state(s->kv))
        return 0;
    int tokens = q->task->r->max_tokens - (q->n_known - q->n_prompt) - 1;
    int room = s->cfg.ctx - 1 - q->n_known;
    return tokens < room ? tokens : room;
}

/* The last page border with n positions or fewer before it; 0: none. */
static int border(const cp_sched *s, int n)
{
    return n > 0 ? n / s->cfg.page_positions * s->cfg.page_positions : 0;
}

bool cp_seq_checkpoint_lasts(const cp_sched *s, const cp_seq *q, int end)
{
    return end % s->cfg.checkpoint_every == 0 || end == border(s, q->n_prompt - 1) ||
           end == border(s, q->n_prompt - CP_OPENING);
}

bool cp_seq_wants_checkpoint(const cp_sched *s, const cp_seq *q, int end)
{
    if (!cp_kv_has_state(s->kv) || !s->cfg.prefix_cache || end <= 0)
        return false;
    bool aligned = end % s->cfg.page_positions == 0 || CP_PLANTED(15);
    bool newest = end >= border(s, q->n_known - 1) && !CP_PLANTED(131);
    return aligned && (newest || cp_seq_checkpoint_lasts(s, q, end) || CP_PLANTED(15));
}

int cp_seq_next_checkpoint(const cp_sched *s, const cp_seq *q, int from)
{
    if (!cp_kv_has_state(s->kv) || !s->cfg.prefix_cache)
        return INT32_MAX;
    int every = s->cfg.checkpoint_every, next = (from / every + 1) * every;
    int ends[3] = {q->n_prompt - CP_OPENING, q->n_prompt - 1, q->n_known - 1};
    for (int i = 0; i < 3; i++) {
        int at = border(s, ends[i]);
        next = at > from && at < next ? at : next;
    }
    return next;
}

int cp_task_max_hit(const cp_task *t, int n_known)
{
    int hit = n_known - 1; /* the last row must be computed: its logits are wanted */
    if (t->r->n_prompt_top >= 0 && t->n_scored < t->r->n_prompt)
        return t->n_scored - 1 < hit ? t->n_scored - 1 : hit;
    if (t->r->no_prefix_reads && t->r->n_prompt_top < 0)
        return 0;
    return hit;
}
