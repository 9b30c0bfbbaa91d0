/* access_log: one line of the log a request, and its metrics; no text of it. Loop thread. */
#ifndef CP_SERVER_ACCESS_LOG_H
#define CP_SERVER_ACCESS_LOG_H

#include "server/call.h"

/* The exchange is over; c->q is still there. */
void cp_access_log(const cp_call *c);

#endif
