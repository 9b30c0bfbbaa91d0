/* This file turns the engine's events into the text of choices: see stream.h. */
#include "server/stream.h"

#include "server/records.h"

/* May no stop string end the choice yet? */
static bool below_min(const cp_part *p, const cp_choice *ch)
{
    return ch->n_tokens <= p->call->p.min_tokens;
}

/* The choice's text is final; met: a stop string is its end. */
static void close_choice(cp_part *p, cp_choice *ch, bool met, cp_finish finish)
{
    ch->cut = met && !ch->text.include_stop;
    ch->finish = met ? CP_FINISH_STOP : finish;
    p->n_closed++;
}

void cp_prompt_record(cp_part *p, const cp_event *ev)
{
    cp_record_add(&p->prompt_records, ev, 0, 0);
}

void cp_choice_token(cp_part *p, cp_choice *ch, const cp_event *ev)
{
    if (ch->finish != CP_FINISH_NONE)
        return;
    ch->n_tokens++;
    size_t start = ch->text.n_raw, start_chr = ch->text.n_raw_chr;
    bool met = cp_text_push(&ch->text, ev->id, below_min(p, ch), &p->call->s->scratch, &ch->shown);
    size_t broke = ch->text.detok.broke; /* characters of 3 bytes that are not its own */
    if (p->r.sampling.n_top >= 0)
        cp_record_add(&ch->records, ev, start + 3 * broke, start_chr + broke);
    if (met)
        close_choice(p, ch, true, CP_FINISH_STOP);
}

void cp_choice_end(cp_part *p, cp_choice *ch, cp_finish finish)
{
    if (ch->finish != CP_FINISH_NONE)
        return;
    bool met = cp_text_end(&ch->text, below_min(p, ch), &p->call->s->scratch, &ch->shown);
    close_choice(p, ch, met, finish);
}
