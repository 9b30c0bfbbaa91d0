/*
 * profile: the second half of an answer of /debug/profile that waits for its window to end. Loop
 * thread.
 */
#ifndef CP_SERVER_PROFILE_H
#define CP_SERVER_PROFILE_H

#include "server/call.h"

/* Of a call that has c->profile: answers it when its time has come. */
void cp_profile_tick(cp_call *c, int64_t now_ns);

#endif
