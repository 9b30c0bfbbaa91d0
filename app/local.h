/*
 * local: a front end inside the process serves run and bench. One thread submits requests and takes
 * their events in order of arrival; it sleeps in between. A cp_local owns its requests until they
 * have ended.
 */
#ifndef CP_APP_LOCAL_H
#define CP_APP_LOCAL_H

#include "engine/engine.h"

typedef struct cp_local cp_local;
cp_local *cp_local_open(const cp_engine_api *api); /* becomes the engine's front; never NULL */
void cp_local_close(cp_local *l);                  /* after every request has ended */

/* A zeroed request with a ring of `cap` records (a power of two) for n_top alternatives; fill it,
 * then submit. */
cp_request *cp_local_request(cp_local *l, uint32_t cap, int n_top, int n_prompt_top);
/* On failure the request is freed. */
cp_code cp_local_submit(cp_local *l, cp_request *r, cp_err *err);
void cp_local_cancel(cp_local *l, cp_request *r);
/*
 * The next event of any submitted request. Waits at most timeout_ms (-1: for ever); false: timeout.
 * After END or ERROR the request is released and must not be used.
 */
bool cp_local_next(cp_local *l, int timeout_ms, cp_request **r, cp_event *ev);

#endif
