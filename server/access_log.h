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

/* The same facts, for other lines. The answer's status; 499: the client left before there was one.
 */
int cp_access_status(const cp_call *c);
const char *cp_access_method(const cp_http_req *q);
typedef struct cp_tokens {
    long long prompt;
    int cached, completion;
} cp_tokens;
/* What was generated so far; false: the call generates nothing, or has not come so far. */
bool cp_access_tokens(const cp_call *c, cp_tokens *out);

#endif
