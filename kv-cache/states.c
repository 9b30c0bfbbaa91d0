/*
 * states: what a step reads, writes and saves of a sequence's state, and which checkpoints last.
 *
 * A state slot holds what recurrent layers know after some positions. A step reads its sequence's
 * slot and writes it in place, or, where others hold it or it is a checkpoint, one of its own: so
 * states need no copies. A checkpoint is a third slot, which the step writes too where it ends on a
 * page border; a commit names it in the index, and from then on it is cached and evicted like a
 * page. Where an answer will end nobody knows, so each border that is passed while it is made is
 * saved; such a checkpoint is passing: the next one of the same sequence takes its place. What is
 * left when the sequence ends is the last border, from which the next turn goes on. A passing
 * checkpoint that somebody else has hit, or would have left too, lasts. A checkpoint goes with the
 * page before it: no hit gets past a hole in the pages of all positions. Every call is O(1).
 */
#include "base/mem.h"
#include "kv-cache/kv_internal.h"

#include <string.h>

bool cp_kv_state_needed(const cp_kv *kv, const kv_seq *q)
{
    if (!kv->has_state || q->state_out)
        return false;
    if (CP_PLANTED(14) && q->state)
        return false;
    return q->state == 0 || kv->states.refs[q->state] > 1 || kv->states.node[q->state] >= 0;
}

bool cp_kv_checkpoint(cp_kv *kv, cp_kv_seq s, int end, bool lasting)
{
    kv_seq *q = kv_seq_at(kv, s);
    bool aligned = end % kv->P == 0 || CP_PLANTED(15);
    if (!kv->has_state || !aligned || !kv->prefix_cache || q->n_saves == kv->depth)
        return false;
    uint32_t slot = cp_kv_units_take(kv, &kv->states);
    if (slot == 0)
        return false;
    q->saves[q->n_saves++] = (struct kv_save){slot, end, lasting};
    kv->n_saved++;
    return true;
}

void cp_kv_state(const cp_kv *kv, cp_kv_seq s, uint32_t *in, uint32_t *out, uint32_t *save)
{
    const kv_seq *q = kv_seq_at(kv, s);
    const struct kv_save *last = &q->saves[q->n_saves - (q->n_saves > 0)];
    CP_ASSERT((!kv->has_state || q->state_out != 0) && "kv-14");
    *in = q->state;
    *out = q->state_out;
    *save = q->n_saves > 0 && last->end > q->done ? last->slot : 0;
}

void cp_kv_states_close(cp_kv *kv, kv_seq *q)
{
    if (q->state_out && q->state_out != q->state)
        cp_kv_units_drop(kv, &kv->states, q->state_out);
    if (q->state && !CP_PLANTED(13))
        cp_kv_units_drop(kv, &kv->states, q->state);
    kv->n_saved -= (uint32_t)q->n_saves;
    while (q->n_saves > 0)
        cp_kv_units_drop(kv, &kv->states, q->saves[--q->n_saves].slot);
    if (q->passing) { /* used until now, like the pages before it */
        uint32_t slot = q->passing;
        cp_kv_checkpoint_lasts(kv, slot);
        cp_kv_units_hold(kv, &kv->states, slot);
        cp_kv_units_drop(kv, &kv->states, slot);
    }
    q->state = q->state_out = 0;
}

uint32_t cp_kv_states_saved(const cp_kv *kv)
{
    return kv->n_saved;
}

void cp_kv_checkpoint_lasts(cp_kv *kv, uint32_t slot)
{
    if (kv->passing_of[slot] < 0)
        return;
    kv->seqs[kv->passing_of[slot]].passing = 0;
    kv->passing_of[slot] = -1;
}

/* The checkpoint that was saved after block b, with its hold; slot 0: none. */
static struct kv_save take_save(cp_kv *kv, kv_seq *q, int b, bool last)
{
    struct kv_save first = q->saves[0];
    if (q->n_saves == 0 || (first.end != (b + 1) * kv->P && !(CP_PLANTED(15) && last)))
        return (struct kv_save){0};
    memmove(q->saves, q->saves + 1, sizeof(*q->saves) * (size_t)--q->n_saves);
    kv->n_saved--;
    return first;
}

void cp_kv_block_committed(cp_kv *kv, cp_kv_seq s, int b, const int32_t *tok, bool last)
{
    kv_seq *q = kv_seq_at(kv, s);
    struct kv_save save = take_save(kv, q, b, last);
    cp_kv_publish(kv, q, b, tok, save.slot);
    if (save.slot == 0)
        return;
    if (q->passing && !CP_PLANTED(20)) {
        cp_kv_units_forget(kv, &kv->states, q->passing);
        kv->checkpoints_passed++;
    }
    if (!save.lasting && kv->states.node[save.slot] >= 0) {
        q->passing = save.slot;
        kv->passing_of[save.slot] = s;
    }
    cp_kv_units_drop(kv, &kv->states, save.slot); /* cached if it was published, else free */
}
