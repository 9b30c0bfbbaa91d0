/*
 * events: what a task tells its front end, through the request's ring.
 *
 * One record is kept back for the last event (END or ERROR), and nothing is scheduled unless the
 * ring has room for all that the step can produce (sched-11), so a push never fails. A task with
 * news goes on the list s->news, which cp_tasks_flush announces.
 */
#ifndef CP_ENGINE_EVENTS_H
#define CP_ENGINE_EVENTS_H

#include "engine/state.h"

/* Records that this plan may still reserve; may be <= 0. */
int cp_events_room(const cp_task *t);
/* FINISH records that the end of one of its sequences takes. */
int cp_events_finish_records(const cp_task *t);
/* t is announced by the next flush. */
void cp_events_news(cp_sched *s, cp_task *t);
void cp_events_prompt(cp_sched *s, cp_task *t, const cp_sample_out *res); /* position n_scored */
void cp_events_token(cp_sched *s, const cp_seq *q, const cp_sample_out *res);
void cp_events_finish(cp_sched *s, cp_task *t, int choice, cp_finish reason);
void cp_events_error(cp_sched *s, cp_task *t, cp_code code); /* the last one */
void cp_events_end(cp_sched *s, cp_task *t);                 /* the last one */

#endif
