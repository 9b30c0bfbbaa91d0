/*
 * reply: tells a client what it gets: a whole answer, a stream, or an error. Each call is told once
 * (CP_CALL_TOLD); a client that has left, or has been told, is told nothing more. All functions run
 * on the loop thread.
 */
#ifndef CP_SERVER_REPLY_H
#define CP_SERVER_REPLY_H

#include "server/call.h"

/* The whole answer; the body's memory is taken over where it is sent. NULL: no body. */
void cp_call_reply(cp_call *c, int status, const char *type, cp_buf *body);
void cp_call_json(cp_call *c, cp_buf *body); /* 200, application/json */
/* One request more that was turned away: CP_M_REJECTED_x. Beside the error that it gets. */
void cp_call_count_rejected(cp_call *c, cp_metric reason);
/* An error in the words of the call's API. status 0: the code's own. */
void cp_call_error(cp_call *c, int status, cp_code code, const cp_err *err);
/* End with an error, whatever goes on: as above, or as an event of the stream that has begun. What
 * the engine still works on is cancelled. Nothing where the call was told already. */
void cp_call_fail(cp_call *c, cp_code code, const cp_err *err);
/* The stream's buffer, begun at the first use; NULL when nobody reads. */
cp_buf *cp_call_stream(cp_call *c);
/* What was appended goes out, if a stream has begun. */
void cp_call_kick(cp_call *c);
/* The stream ends, as it should or (abort) in the middle. */
void cp_call_stream_end(cp_call *c, bool abort);
/* The call ran out of memory; full: of an arena that the template had. Says what that means to the
 * client: CP_OVERLOADED where trying again helps, else an error that names what was too much. Any
 * thread that has the call. */
cp_code cp_call_no_memory(const cp_call *c, bool full, cp_err *err);

#endif
