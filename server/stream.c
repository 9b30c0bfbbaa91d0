/*
 * Ids of one choice become its text: bytes held until they are UTF-8 (tokenizer/detok), text held
 * while it may become a stop string (stops.c), and what log-probabilities need beside it. Loop
 * thread. Every token notes where its text begins, so that those behind a stop string can be left
 * out and text_offset can be told.
 */
#include "server/internal.h"

#include <string.h>

static void add_record(cp_buf *b, const cp_event *ev, size_t start, size_t start_chr)
{
    uint32_t n_top = ev->n_top < 0 ? 0 : ev->n_top > CP_MAX_TOP ? CP_MAX_TOP : (uint32_t)ev->n_top;
    cp_logprob_record rec = {.id = ev->id,
                             .logprob = ev->logprob,
                             .n_top = n_top,
                             .start = start,
                             .start_chr = start_chr};
    cp_buf_add(b, &rec, sizeof(rec));
    cp_buf_add(b, ev->top, n_top * sizeof(ev->top[0]));
}

/* Text of the choice through its stop strings into ch->text; true when one was met. */
static bool show(cp_call *c, cp_choice *ch, const cp_buf *piece)
{
    ch->n_raw += piece->n;
    if (piece->n > 0)
        ch->n_raw_chr += cp_utf8_count(piece->p, piece->n);
    size_t before = ch->text.n;
    bool met = false;
    if (ch->n_tokens <= c->p.min_tokens)
        cp_buf_add(&ch->text, piece->p, piece->n);
    else
        met = cp_stops_feed(c->stops, &ch->stop, piece->p, piece->n, c->p.include_stop, &ch->text);
    ch->n_shown += ch->text.n - before;
    return met;
}

void cp_prompt_record(cp_part *p, const cp_event *ev)
{
    add_record(&p->prompt_records, ev, 0, 0);
}

void cp_choice_token(cp_part *p, cp_choice *ch, const cp_event *ev)
{
    cp_call *c = p->call;
    if (ch->closed)
        return;
    ch->n_tokens++;
    cp_buf *piece = &c->s->scratch;
    cp_buf_clear(piece);
    ch->detok.broke = false;
    if (ev->id >= 0 && ev->id < cp_tokenizer_size(c->m->tokenizer))
        cp_detok_push(&ch->detok, ev->id, piece);
    size_t broke = ch->detok.broke; /* characters of 3 bytes that are not its own */
    if (p->r.sampling.n_top >= 0)
        add_record(&ch->records, ev, ch->n_raw + 3 * broke, ch->n_raw_chr + broke);
    if (piece->n > 0 && show(c, ch, piece)) {
        ch->cut = !c->p.include_stop;
        ch->closed = true;
        ch->finish = "stop";
        p->n_closed++;
    }
}

void cp_choice_end(cp_part *p, cp_choice *ch, const char *finish)
{
    cp_call *c = p->call;
    if (ch->closed)
        return;
    cp_buf *piece = &c->s->scratch;
    cp_buf_clear(piece);
    cp_detok_finish(&ch->detok, piece);
    bool met = piece->n > 0 && show(c, ch, piece);
    if (!met) {
        size_t before = ch->text.n;
        cp_stops_flush(&ch->stop, &ch->text);
        ch->n_shown += ch->text.n - before;
    }
    ch->cut = met && !c->p.include_stop;
    ch->closed = true;
    ch->finish = met ? "stop" : finish;
    p->n_closed++;
}
