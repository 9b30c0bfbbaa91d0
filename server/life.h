/*
 * life: leads a call from its body to its end. Each function is one thing that happens to a call
 * (call.h has its states), and all run on the loop thread.
 */
#ifndef CP_SERVER_LIFE_H
#define CP_SERVER_LIFE_H

#include "server/call.h"

/* Its body is there: prepare on Jobs, however small it is. */
void cp_call_start(cp_call *c);
/* It is back from a job: submit or reply. */
void cp_call_parsed(cp_call *c);
/* Its client has left. */
void cp_call_left(cp_call *c);
/* Time has passed. */
void cp_call_tick(cp_call *c, int64_t now_ns);
/* The server ends: an error to whom it is owed. */
void cp_call_cut(cp_call *c, const cp_err *err);
/* The exchange is over; the call goes when job and engine are done with it, too. */
void cp_call_done(cp_call *c);

#endif
