/*
 * events: a prepared call goes to the engine, and what the engine says becomes its answer.
 *
 * The server drains the engine's rings when the engine says so. When a client does not read, its
 * stream is not drained any more, its ring fills, and the engine stops scheduling it. A request
 * ends twice, in either order: its last record is taken, and the engine hands its own reference
 * back (cp_request_popped). A reference goes with each; with the second one the call is let go of.
 * All functions run on the loop thread.
 */
#ifndef CP_SERVER_EVENTS_H
#define CP_SERVER_EVENTS_H

#include "server/call.h"

/* Submit the parts of a call that was prepared; its state becomes CP_CALL_RUNNING, or, where there
 * is nothing to compute or the engine refuses, CP_CALL_TOLD. */
void cp_call_submit(cp_call *c);
/* A request was popped from the ready queue: take what there is of it. */
void cp_call_ready(cp_request *r);
/* Take what the engine has put for any part. The call may be gone afterwards. */
void cp_call_drain(cp_call *c);
/* A stream whose client leaves too much unread. */
bool cp_call_stalled(const cp_call *c);

#endif
