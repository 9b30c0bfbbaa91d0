/*
 * reload: SIGHUP. It reads the file of --config and the keys again, and brings a serving process to
 * what they say, all of it or nothing.
 *
 * A cp_reload works on a thread of its own, one reload at a time; what is asked for meanwhile is
 * one more after it. It owns the options that count by now; the process's first ones, borrowed, go
 * on for what cannot change. Owned by the command, which ends it before what it changes.
 */
#ifndef CP_APP_RELOAD_H
#define CP_APP_RELOAD_H

#include "app/models.h"
#include "app/signals.h"

typedef struct cp_reload cp_reload;

/* What it changes; borrowed. */
typedef struct cp_reload_parts {
    const cp_stack *stack;
    cp_server *server;
    cp_app_models *models;
    cp_signals *signals;
    cp_metrics *metrics;
} cp_reload_parts;

cp_reload *cp_reload_new(const cp_options *first, const cp_reload_parts *parts);
/* Begin one, or note that one more is wanted. When the models of the start are there; any thread.
 */
void cp_reload_ask(cp_reload *r);
/* No more are begun; true: none is under way any more, nor a drain that one began, within so many
 * ms. */
bool cp_reload_end(cp_reload *r, int ms);
/* After cp_reload_end has said true, and when nothing reads options any more. NULL is fine. */
void cp_reload_free(cp_reload *r);

#endif
