/*
 * access_log: every request gets one line of the log and its metrics.
 *
 * The line names the request, its route, its status and its sizes, and never any of its text. All
 * functions run on the loop thread. A chat that streamed is logged as
 *
 *   access id=req-1 method=POST path=/v1/chat/completions status=200 ms=81.0 bytes=912 model=m
 *   prompt=9 cached=0 completion=4 stream=1
 *
 * and as an object (--log-format json), behind time, level and msg ("access"), as
 *
 *   "path":"/v1/chat/completions","id":"req-1","method":"POST","status":200,"ms":81.0,"bytes":912,
 *   "model":"m","stream":true,"prompt_tokens":9,"cached_tokens":0,"completion_tokens":4
 */
#ifndef CP_SERVER_ACCESS_LOG_H
#define CP_SERVER_ACCESS_LOG_H

#include "server/call.h"

/* The exchange is over; c->q is still there. */
void cp_access_log(const cp_call *c);

/* The same facts as members of an object, each behind a comma: id, method, status (499: the client
 * left before there was one), ms, bytes; model, client_gone, and stream, prompt_tokens,
 * cached_tokens, completion_tokens, where there are any. */
void cp_access_facts(const cp_call *c, cp_buf *b);
/* How a choice ended: stop, length; of one that had no end the request has failed (error), or
 * nobody wants it (cancelled). */
const char *cp_access_finish(const cp_call *c, cp_finish finish);
/* Does it generate, and is its model known so far? */
bool cp_access_generates(const cp_call *c);

#endif
