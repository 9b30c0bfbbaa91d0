/*
 * tasks: a request's life inside the engine, from submit to its last event.
 */
#ifndef CP_ENGINE_TASKS_H
#define CP_ENGINE_TASKS_H

#include "engine/state.h"

bool cp_tasks_full(const cp_sched *s); /* no room for another task */
/* False: there is no room; the caller keeps the request. */
bool cp_tasks_submit(cp_sched *s, cp_request *r, int64_t now_ns);

/* One choice has ended: slot and pages go back, and with the last choice the task ends. */
void cp_task_finish_seq(cp_sched *s, cp_seq *q, cp_finish reason);
/* max_tokens = 0: all choices end here, q being the only sequence (or NULL: none started). */
void cp_task_finish_all(cp_sched *s, cp_task *t, cp_seq *q);
/* The client wants no more: unfinished choices end as far as the ring has room to say so. */
void cp_task_cancel(cp_sched *s, cp_task *t);
void cp_task_fail(cp_sched *s, cp_task *t, cp_code code);
void cp_tasks_fail_all(cp_sched *s, cp_code code);

/* Announce: push each request with new events to `ready` unless it is there, ended ones for the
 * last time: with them goes the scheduler's reference. NULL: nobody listens, the references are
 * dropped here. Returns how many had news. */
int cp_tasks_flush(cp_sched *s, cp_mpsc *ready);
void cp_request_drop(cp_request *r); /* one reference less; frees with the last */

#endif
