/*
 * prepare: turns a body into engine requests, or into a reply. It parses the JSON, renders the
 * template, tokenizes, and checks the limits.
 *
 * It runs on Jobs, never on the loop thread, as a small body can ask for a long rendering; it
 * touches nothing but the call and what is immutable. All memory that the request needs until its
 * end (ids, rings, stop strings) lies in the call's arena. The template's working memory is given
 * back before it returns.
 */
#ifndef CP_SERVER_PREPARE_H
#define CP_SERVER_PREPARE_H

#include "server/call.h"

/* Fills c->code and c->err, and parts and choices, or c->reply. */
void cp_call_prepare(cp_call *c);

/* For APIs' replies. */
/* The text of c->p.messages. CP_NO_TEMPLATE where the model has none. */
cp_code cp_call_render(cp_call *c, cp_arena *render, cp_rendered *out, cp_err *err);
/* Its ids. */
cp_code cp_call_encode_chat(cp_call *c, cp_arena *render, cp_ids *ids, cp_err *err);

#endif
