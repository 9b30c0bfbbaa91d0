/*
 * The public face of chat templates: compile once into an arena of the template, render any number
 * of times into the caller's arena. The result is built on the heap, so only intermediate strings
 * count against the arena's cap; the arena's account pays for both.
 */
#include "chat/chat.h"

#include "chat/jinja/interp.h"

#include <stdlib.h>

enum {
    TEMPLATE_MEMORY = 256 << 20
}; /* bound of one compiled template: about 60 bytes a source byte */

struct cp_template {
    cp_arena *a;
    const jj_node *root;
};

cp_code cp_template_open(cp_template **out, const char *src, size_t n, cp_err *err)
{
    *out = NULL;
    cp_arena *a = cp_arena_new(TEMPLATE_MEMORY);
    jj_ctx x = {.a = a, .err = err};
    jj_tokens toks;
    const jj_node *root = cp_jj_lex(&x, src, n, &toks) ? cp_jj_parse(&x, &toks) : NULL;
    if (!root) {
        CP_ASSERT(x.code != CP_OK);
        cp_arena_free(a);
        return x.code;
    }
    cp_template *t = cp_xcalloc(1, sizeof(*t));
    t->a = a;
    t->root = root;
    *out = t;
    return CP_OK;
}

void cp_template_close(cp_template *t)
{
    if (!t)
        return;
    cp_arena_free(t->a);
    free(t);
}

const char *const cp_template_names[CP_TEMPLATE_USES] = {"default", "tool_use", "rag"};

const cp_template *cp_templates_pick(const cp_templates *t, bool tools, bool documents)
{
    if (tools && t->of[CP_TEMPLATE_TOOL_USE])
        return t->of[CP_TEMPLATE_TOOL_USE];
    if (documents && t->of[CP_TEMPLATE_RAG])
        return t->of[CP_TEMPLATE_RAG];
    return t->of[CP_TEMPLATE_DEFAULT];
}

void cp_templates_close(cp_templates *t)
{
    for (int i = 0; i < CP_TEMPLATE_USES; i++)
        cp_template_close(t->of[i]);
    *t = (cp_templates){0};
}

void cp_rendered_fini(cp_rendered *r)
{
    cp_paid_free(r->text.account, r->input, r->input_bytes);
    cp_buf_fini(&r->text);
    *r = (cp_rendered){0};
}

/* Hand text and marks over; the builder has merged touching ranges. */
static void finish(jj_sb *b, cp_rendered *out)
{
    out->text = (cp_buf){.p = b->p, .n = b->n, .cap = b->cap, .account = b->account};
    if (b->p)
        b->p[b->n] = '\0'; /* the builder keeps a byte of room */
    _Static_assert(sizeof(struct cp_rspan) == sizeof(jj_span),
                   "the ranges are handed over as they are");
    out->input = (struct cp_rspan *)(void *)b->spans;
    out->n_input = b->n_spans;
    out->input_bytes = b->cap_spans * sizeof(*b->spans);
}

/* What a template may take beyond JJ_MAX_STEPS for these messages. */
static uint64_t pair_steps(jj_ctx *x, const cp_val *vars)
{
    const cp_val *m = cp_jj_dict_gets(x, vars->u.dict, "messages", 8);
    uint64_t n = m && m->type == JJ_LIST ? m->u.list->n : 0;
    /* a request's values are few enough for n * n */
    bool many = n * n > JJ_MAX_PAIR_STEPS / JJ_PAIR_STEPS;
    return many ? JJ_MAX_PAIR_STEPS : n * n * JJ_PAIR_STEPS;
}

cp_code cp_jj_render(const cp_template *t, cp_arena *a, const cp_val *vars, int64_t now,
                     cp_rendered *out, uint64_t *steps, cp_err *err)
{
    jj_sb text = {.account = cp_arena_account(a)};
    jj_ctx x = {.a = a, .err = err, .out = &text, .vars = vars, .now = now};
    *out = (cp_rendered){0};
    CP_ASSERT(vars->type == JJ_DICT);
    x.more_steps = pair_steps(&x, vars);
    bool ok = cp_jj_run(&x, t->root);
    if (steps)
        *steps = x.steps;
    if (!ok) {
        CP_ASSERT(x.code != CP_OK);
        cp_jj_sb_fini(&text);
        return x.code;
    }
    finish(&text, out);
    return CP_OK;
}

cp_code cp_template_render(const cp_template *t, cp_arena *a, const cp_val *vars, int64_t now,
                           cp_rendered *out, cp_err *err)
{
    return cp_jj_render(t, a, vars, now, out, NULL, err);
}
