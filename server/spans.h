/*
 * spans: tells of each request as spans of OpenTelemetry, into a socket that another process reads.
 *
 * A request with a body is one span of kind SERVER, by the conventions for gen_ai, and its parts
 * (waiting, prefill, decode) are spans below it. A packet of the socket is how many requests it
 * tells of (uint32_t) and their spans, as they stand in OTLP's JSON, with commas between them: one
 * a tick, or as soon as it is full, since each wakes the other process. Nothing waits: a packet for
 * which the socket has no room is dropped, and its requests are counted. No text of prompts or
 * answers is in it. Loop thread.
 */
#ifndef CP_SERVER_SPANS_H
#define CP_SERVER_SPANS_H

#include "server/call.h"

/* The exchange is over, and is still there: its spans go into the next packet. */
void cp_spans_add(const cp_call *c);
/* Send what waits. Where the loop has ended, any thread. */
void cp_spans_flush(cp_server *s);

#endif
