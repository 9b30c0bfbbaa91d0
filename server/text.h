/*
 * text: the ids of one choice become its text, the same for requests and for `run`. Bytes are held
 * until they are UTF-8 (tokenizer/tokenizer.h), and text while it may become a stop string
 * (stops.h).
 *
 * A cp_text belongs to one thread; tokenizer and stops must outlive it.
 */
#ifndef CP_SERVER_TEXT_H
#define CP_SERVER_TEXT_H

#include "server/stops.h"

typedef struct cp_text {
    cp_detok detok;
    cp_stop_state stop;
    const cp_stops *stops; /* NULL: none */
    bool include_stop;     /* the stop string is shown, too */
    size_t n_raw;          /* bytes before the stop strings */
    size_t n_raw_chr;      /* code points of those */
    size_t n_shown;        /* bytes that have passed them */
} cp_text;

void cp_text_init(cp_text *t, const cp_tokenizer *tok, const cp_stops *stops, bool include_stop,
                  bool skip_special);
/* The text goes on with id (any number; what is no id of the tokenizer has no text): append what
 * may be shown to out. free: no stop string may end it yet. piece is scratch. True: one has, and
 * nothing may follow. */
bool cp_text_push(cp_text *t, int32_t id, bool free, cp_buf *piece, cp_buf *out);
/* It ends: append what was held. True: a stop string has ended it after all. */
bool cp_text_end(cp_text *t, bool free, cp_buf *piece, cp_buf *out);
void cp_text_fini(cp_text *t);

#endif
