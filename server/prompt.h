/*
 * prompt: turns a conversation into text and the text into token ids, the same for requests and for
 * `run`. The functions are pure, and any thread may call them.
 */
#ifndef CP_SERVER_PROMPT_H
#define CP_SERVER_PROMPT_H

#include "chat/chat.h"
#include "tokenizer/tokenizer.h"

/* A conversation; what was typed must be marked as input in it. */
typedef struct cp_conversation {
    cp_val *vars;              /* a dict; gets the server's own variables on top */
    cp_val *messages;          /* a list */
    cp_val *tools, *documents; /* lists; NULL: the template sees none */
    bool generate;             /* add_generation_prompt */
    bool go_on;                /* the model goes on with the last message */
} cp_conversation;
/*
 * The text of a conversation: the template over `vars`, with messages, tools, documents,
 * add_generation_prompt, bos_token and eos_token set in it. a holds the rendering's values. Errors
 * as cp_template_render's and cp_template_continue's, CP_NO_MEMORY when the arena is exhausted.
 */
cp_code cp_prompt_render(const cp_template *t, const cp_tokenizer *tok, cp_arena *a,
                         const cp_conversation *chat, cp_rendered *out, cp_err *err);
/* Its ids. The template writes BOS itself, so none is added; what was marked as input is never
 * parsed for special tokens. */
cp_code cp_prompt_encode(const cp_tokenizer *tok, const cp_rendered *r, cp_arena *a, cp_ids *ids,
                         cp_err *err);
/* The text of ids[n], as a stream of them shows it: what is no UTF-8 becomes U+FFFD. False: out of
 * memory. */
bool cp_prompt_text(const cp_tokenizer *tok, const int32_t *ids, int n, bool skip_special,
                    cp_buf *out);

#endif
