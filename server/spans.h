/*
 * spans: tells of each request as spans of OpenTelemetry, into a socket that another process reads.
 *
 * A request with a body is one span of kind SERVER, by the conventions for gen_ai, and its parts
 * (waiting, prefill, decode) are spans below it. A packet of the socket is the spans of one
 * request, as they stand in OTLP's JSON, with commas between them. Nothing waits: a packet for
 * which the socket has no room is dropped and counted. No text of prompts or answers is in it. Loop
 * thread.
 */
#ifndef CP_SERVER_SPANS_H
#define CP_SERVER_SPANS_H

#include "server/call.h"

/* The exchange is over, and is still there: its spans go out. */
void cp_spans_send(const cp_call *c);

#endif
