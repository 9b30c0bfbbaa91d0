/*
 * meter: says what requests have cost in joules, where the machine has meters that can be read.
 *
 * What the processors and their memory took in an interval of a second or so belongs to the models
 * by the rows (token positions) that each computed in it; an interval without rows belongs to
 * nobody. A request has its rows' part of what its model took from its submission to its end. The
 * meters know nothing of other processes: on a shared machine this is an upper bound. Loop thread.
 */
#ifndef CP_SERVER_METER_H
#define CP_SERVER_METER_H

#include "server/call.h"

/* Now and then: reads the meters where a second has passed. */
void cp_meter_tick(cp_server *s, int64_t now_ns);
/* The engine is given the call's parts; its model is known. */
void cp_meter_begin(cp_call *c);
/* The engine has ended all of them, and the model is still held. */
void cp_meter_end(cp_call *c);

#endif
