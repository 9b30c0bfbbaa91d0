/*
 * stream: turns events of the engine into the text of choices. Every token notes where its text
 * begins, so that those behind a stop string can be left out and text_offset can be told. All
 * functions run on the loop thread.
 */
#ifndef CP_SERVER_STREAM_H
#define CP_SERVER_STREAM_H

#include "server/call.h"

/* A token of a choice; nothing once it has ended. A stop string may end it. */
void cp_choice_token(cp_part *p, cp_choice *ch, const cp_event *ev);
/* The engine has ended the choice; nothing where it has ended before. */
void cp_choice_end(cp_part *p, cp_choice *ch, cp_finish finish);
/* The log-probability of a prompt position. */
void cp_prompt_record(cp_part *p, const cp_event *ev);

#endif
