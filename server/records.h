/*
 * records: carry log-probabilities of tokens from the engine to an answer.
 *
 * A record is a cp_logprob_record with its alternatives behind it, and records stand one behind the
 * other in a cp_buf: a token with two alternatives takes sizeof(cp_logprob_record) + 2 *
 * sizeof(struct cp_event_top) bytes. All functions run on the loop thread.
 */
#ifndef CP_SERVER_RECORDS_H
#define CP_SERVER_RECORDS_H

#include "server/call.h"

/* Records of a buffer: bytes [from, to). */
typedef struct cp_records {
    const cp_buf *b;
    size_t from, to;
} cp_records;

/* What the event says of its token, whose text begins at byte `start`, code point `start_chr`. */
void cp_record_add(cp_buf *b, const cp_event *ev, size_t start, size_t start_chr);
/* The record at a byte of the buffer; *next: the byte behind it. */
const cp_logprob_record *cp_record_at(const cp_buf *b, size_t at, size_t *next);
/* Its alternatives [n_top]. */
const struct cp_event_top *cp_record_tops(const cp_logprob_record *r);
/* Those whose text has been shown, once; all that are left when the choice has ended and nothing
 * was cut. */
cp_records cp_records_take(cp_choice *ch);

#endif
