/*
 * chat: chat templates. A Jinja lexer, parser and interpreter with marked strings.
 *
 * A cp_template is compiled once per model and immutable: any thread may render it. A rendering
 * works in a caller's arena, on a tree of cp_val that the caller builds there; nothing of it
 * outlives the arena. What came from the request carries a mark (is_input) through every filter and
 * concatenation, and the result lists which byte ranges are marked, so that special tokens are
 * never parsed in them. Templates are untrusted: steps <= 1 M, and more for many messages, <= 16 M
 * (work counts as well), output <= 8 MiB, depth <= 64, range <= 1e5; no access to anything but
 * data. Semantics: Python jinja2 3.1 with trim_blocks, lstrip_blocks, loopcontrols, and the helpers
 * of transformers (tojson, raise_exception, strftime_now).
 */
#ifndef CP_CHAT_CHAT_H
#define CP_CHAT_CHAT_H

#include "base/code.h"
#include "base/mem.h"
#include "base/meta.h"

/* ---- values ---- */
typedef struct cp_val cp_val; /* opaque; lives in an arena */
/* All return NULL when the arena is exhausted; the setters return false then. */
cp_val *cp_val_none(cp_arena *a);
cp_val *cp_val_bool(cp_arena *a, bool b);
cp_val *cp_val_int(cp_arena *a, int64_t i);
cp_val *cp_val_float(cp_arena *a, double f);
cp_val *cp_val_str(cp_arena *a, const char *s, size_t n, bool is_input); /* copies */
cp_val *cp_val_list(cp_arena *a);
bool cp_val_push(cp_arena *a, cp_val *list, cp_val *item);
cp_val *cp_val_dict(cp_arena *a); /* insertion order is kept */
bool cp_val_set(cp_arena *a, cp_val *dict, const char *key, cp_val *v);
/* As cp_val_set with a key of n bytes; is_input marks the key (keys of a client's JSON object). */
bool cp_val_setn(cp_arena *a, cp_val *dict, const char *key, size_t n, bool is_input, cp_val *v);

/* ---- templates ---- */
typedef struct cp_template cp_template;
/* Compile; src[n] is copied. CP_TEMPLATE with line number on a syntax error or a feature that is
 * not built. */
cp_code cp_template_open(cp_template **out, const char *src, size_t n, cp_err *err);
void cp_template_close(cp_template *t);

typedef struct cp_rendered {
    cp_buf text; /* free with cp_rendered_fini */
    struct cp_rspan {
        size_t begin, end;
    } * input; /* marked ranges, ascending, disjoint, merged */
    size_t n_input;
    size_t input_bytes; /* of their memory */
} cp_rendered;
void cp_rendered_fini(cp_rendered *r);

/*
 * Render with the dict `vars` as globals (messages, add_generation_prompt, tools, bos_token,
 * eos_token, ...). now: seconds since the epoch for strftime_now (UTC). Errors: CP_TEMPLATE
 * (raise_exception's text verbatim, or what failed and its line; limits), CP_NO_MEMORY. The arena's
 * account, if it has one, also pays for the result.
 */
cp_code cp_template_render(const cp_template *t, cp_arena *a, const cp_val *vars, int64_t now,
                           cp_rendered *out, cp_err *err);
/* The same, and the text ends where the content of the last of `messages` ends (transformers'
 * continue_final_message). CP_INVALID_VALUE where that is no text, or where the template does not
 * show it as it is. */
cp_code cp_template_continue(const cp_template *t, cp_arena *a, const cp_val *vars, int64_t now,
                             cp_rendered *out, cp_err *err);

/* ---- the templates of one model ---- */
typedef enum cp_template_use {
    CP_TEMPLATE_DEFAULT,
    CP_TEMPLATE_TOOL_USE, /* requests with tools */
    CP_TEMPLATE_RAG,      /* with documents, and without tools */
    CP_TEMPLATE_USES
} cp_template_use;
/* The names that model files have for them: default, tool_use, rag. */
extern const char *const cp_template_names[CP_TEMPLATE_USES];
typedef struct cp_templates {
    cp_template *of[CP_TEMPLATE_USES]; /* NULL: the model has none; then the default serves */
} cp_templates;
/* NULL: there is none for such a request. */
const cp_template *cp_templates_pick(const cp_templates *t, bool tools, bool documents);
void cp_templates_close(cp_templates *t);

#endif
