/*
 * access_log: every request gets one line of the log and its metrics.
 *
 * The line names the request, its route, its status and its sizes, and never any of its text. All
 * functions run on the loop thread. A chat that streamed is logged as
 *
 *   access id=req-1 method=POST path=/v1/chat/completions status=200 ms=81.0 bytes=912 model=m
 *   prompt=9 cached=0 completion=4 stream=1
 */
#ifndef CP_SERVER_ACCESS_LOG_H
#define CP_SERVER_ACCESS_LOG_H

#include "server/call.h"

/* The exchange is over; c->q is still there. */
void cp_access_log(const cp_call *c);

#endif
