/*
 * openai: OpenAI's APIs of chats and of texts share these parts of their answers. The functions
 * append to a buffer, which may turn failed; they run on the loop thread.
 */
#ifndef CP_SERVER_API_OPENAI_H
#define CP_SERVER_API_OPENAI_H

#include "server/call.h"

/* A chunk up to its choice's index, which all chunks of the call begin with. */
void cp_openai_begin(cp_call *c, const char *object);
/* Behind it the choice's index; what follows is the API's own, up to ... */
void cp_openai_chunk(const cp_call *c, int choice, cp_buf *out);
/* ... the end of a chunk. finish: NULL while the choice goes on. n_tokens: of the choice so far,
 * for clients that want to know it with every chunk. */
void cp_openai_chunk_end(const cp_call *c, const cp_part *p, int n_tokens, const char *finish,
                         cp_buf *out);
/* The words of finish_reason. */
const char *cp_openai_finish(cp_finish finish);
/* cp_api.end: usage where it is asked for, and [DONE]. */
void cp_openai_end(cp_call *c, cp_buf *out);
/* A whole answer; `choice` writes the object of one. */
void cp_openai_whole(cp_call *c, const char *object,
                     void (*choice)(cp_call *c, cp_part *p, int choice, cp_buf *out), cp_buf *out);
/* cp_api.error, and of paths without an API: {"error":{"message","type","param","code"}}. */
void cp_openai_error(const cp_told *told, cp_buf *out);
/* A token's text; "" for what is no id of the model. */
cp_str cp_openai_piece(const cp_call *c, int32_t id);

#endif
