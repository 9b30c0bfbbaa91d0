/* This file turns the ids of a choice into its text: see text.h. */
#include "server/text.h"

#include "base/utf8.h"

void cp_text_init(cp_text *t, const cp_tokenizer *tok, const cp_stops *stops, bool include_stop,
                  bool skip_special)
{
    *t = (cp_text){.stops = stops, .include_stop = include_stop};
    cp_detok_init(&t->detok, tok, false, skip_special);
}

void cp_text_fini(cp_text *t)
{
    cp_stop_state_fini(&t->stop);
}

/* A piece through the stop strings. */
static bool show(cp_text *t, bool free, const cp_buf *piece, cp_buf *out)
{
    bool met = false;
    size_t before = out->n;
    if (piece->n == 0)
        return false;
    t->n_raw += piece->n;
    t->n_raw_chr += cp_utf8_count(piece->p, piece->n);
    if (free)
        cp_buf_add(out, piece->p, piece->n);
    else
        met = cp_stops_feed(t->stops, &t->stop, piece->p, piece->n, t->include_stop, out);
    t->n_shown += out->n - before;
    return met;
}

bool cp_text_push(cp_text *t, int32_t id, bool free, cp_buf *piece, cp_buf *out)
{
    cp_buf_clear(piece);
    t->detok.broke = false;
    if (id >= 0 && id < cp_tokenizer_size(t->detok.t))
        cp_detok_push(&t->detok, id, piece);
    return show(t, free, piece, out);
}

bool cp_text_end(cp_text *t, bool free, cp_buf *piece, cp_buf *out)
{
    cp_buf_clear(piece);
    cp_detok_finish(&t->detok, piece);
    if (show(t, free, piece, out))
        return true;
    size_t before = out->n;
    cp_stops_flush(&t->stop, out);
    t->n_shown += out->n - before;
    return false;
}
