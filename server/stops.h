/*
 * stops: finds stop strings in a text that arrives in pieces, cut anywhere.
 *
 * A cp_stops is built once a call, in its arena; a cp_stop_state belongs to one choice. The result
 * does not depend on where the pieces were cut: the match that ends first wins, and of those that
 * end together the longest. Bytes that may still become a match are held back: with the stop string
 * "abc", the pieces "xa" and "bd" are shown as "x" and "abd".
 */
#ifndef CP_SERVER_STOPS_H
#define CP_SERVER_STOPS_H

#include "base/mem.h"
#include "base/meta.h"
#include "tokenizer/tokenizer.h"

enum { CP_STOPS_MAX = 16 };

typedef struct cp_stops {
    int n;
    struct cp_stop_pattern {
        const char *p;
        uint16_t n;
        const uint16_t *border; /* [n + 1]: longest proper border of each prefix */
    } pattern[CP_STOPS_MAX];
} cp_stops;

typedef struct cp_stop_state {
    uint16_t matched[CP_STOPS_MAX]; /* bytes of each pattern that the text's end spells */
    cp_buf held;
} cp_stop_state;

/* Patterns are copied by reference; each of 1 to 65,535 bytes, at most CP_STOPS_MAX. NULL: the
 * arena is exhausted. */
cp_stops *cp_stops_new(cp_arena *a, const cp_str *list, int n);
/* Take n bytes; append to out what may be shown. True: a stop string ended; out then holds the text
 * before it (with it when `include`), and nothing may be fed any more. */
bool cp_stops_feed(const cp_stops *s, cp_stop_state *st, const char *p, size_t n, bool include,
                   cp_buf *out);
/* The text ends: append what is held. */
void cp_stops_flush(cp_stop_state *st, cp_buf *out);
void cp_stop_state_fini(cp_stop_state *st);
/* Ids of the special tokens that stop strings spell exactly, into ids[n]: text without special
 * tokens never shows them, so they must end a choice by id. Returns how many. Any thread. */
int cp_stops_special(const cp_tokenizer *t, const cp_str *list, int n, int32_t *ids);

#endif
