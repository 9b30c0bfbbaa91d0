/* This file makes engine requests of a body: see prepare.h. */
#include "server/prepare.h"

#include "base/clock.h"
#include "base/digest.h"
#include "base/utf8.h"
#include "server/prompt.h"
#include "server/reply.h"
#include "server/sampling.h"

#include <string.h>

enum {
    RING_RECORDS = 64,         /* at least; a power of two */
    RING_PROMPT_RECORDS = 256, /* with log-probabilities of the prompt */
};

static cp_code out_of_memory(cp_err *err)
{
    return cp_fail(err, CP_NO_MEMORY, "out of memory"); /* cp_call_no_memory has better words */
}

static cp_code find_model(void *arg, cp_str name, cp_params_model *out, cp_err *err)
{
    cp_call *c = arg;
    cp_served *m;
    CP_ASSERT(!c->m && "served-2");
    cp_code code = cp_served_get(&c->s->models, name.p, name.n, &m, err);
    if (code != CP_OK)
        return code;
    cp_sampling_defaults *defaults = cp_arena_alloc(c->arena, sizeof(*defaults));
    if (!defaults) {
        cp_served_put(&c->s->models, m);
        return out_of_memory(err);
    }
    cp_served_defaults(&c->s->models, m, defaults);
    c->m = m;
    c->model_id = cp_xstrdup(m->id);
    *out = (cp_params_model){
        .handle = m, .defaults = defaults, .n_vocab = cp_tokenizer_size(m->tokenizer)};
    if (m->limits.n_vocab > 0 && m->limits.n_vocab < out->n_vocab)
        out->n_vocab = m->limits.n_vocab;
    return CP_OK;
}

/* ---- chats ---- */

cp_code cp_call_render(cp_call *c, cp_arena *render, cp_rendered *out, cp_err *err)
{
    const cp_served *m = c->m;
    const cp_params *p = &c->p;
    const cp_template *t = cp_templates_pick(&m->templates, p->tools, p->documents);
    if (!t)
        return cp_fail(err, CP_NO_TEMPLATE,
                       "the model '%.200s' has no chat template%s; use /v1/completions, or start "
                       "the server with --chat-template-file",
                       m->id,
                       m->templates.of[CP_TEMPLATE_TOOL_USE] || m->templates.of[CP_TEMPLATE_RAG]
                           ? " for such a request, only one for tools or documents"
                           : "");
    const cp_conversation chat = {.vars = p->vars,
                                  .messages = p->messages,
                                  .tools = p->tools,
                                  .documents = p->documents,
                                  .generate = p->add_generation_prompt,
                                  .go_on = p->continue_final};
    return cp_prompt_render(t, m->tokenizer, render, &chat, out, err);
}

cp_code cp_call_encode_chat(cp_call *c, cp_arena *render, cp_ids *ids, cp_err *err)
{
    cp_rendered r = {0};
    cp_code code = cp_call_render(c, render, &r, err);
    if (code == CP_OK)
        code = cp_prompt_encode(c->m->tokenizer, &r, c->arena, ids, err);
    cp_rendered_fini(&r);
    return code;
}

/* ---- engine requests ---- */

static void free_request(cp_request *r)
{
    cp_part *p = r->user;
    cp_call_unref(p->call);
}

static uint32_t pow2_at_least(uint32_t least, uint32_t n)
{
    while (least < n)
        least *= 2;
    return least;
}

static cp_code too_long(cp_call *c, int64_t n_prompt, int64_t n_new, cp_err *err)
{
    c->n_prompt_tokens = n_prompt;
    c->n_ctx_shown = c->m->limits.ctx;
    return cp_fail_param(err, CP_CONTEXT_LENGTH, c->p.api->prompt_field,
                         "This model's maximum context length is %d tokens. However, you requested "
                         "%lld tokens (%lld in the prompt, %lld in the completion). Shorten the "
                         "prompt or lower max_tokens",
                         c->m->limits.ctx, (long long)(n_prompt + n_new), (long long)n_prompt,
                         (long long)n_new);
}

static cp_code fill_part(cp_call *c, cp_part *p, const cp_sampling *sp, const int32_t *ids,
                         size_t n, cp_err *err)
{
    const cp_params *q = &c->p;
    int64_t ctx = c->m->limits.ctx, left = ctx - (int64_t)n, max = q->max_tokens;
    if (n == 0)
        return cp_fail_param(err, CP_INVALID_VALUE, q->api->prompt_field,
                             "the prompt is empty and this model has no token to begin with; "
                             "allowed: at least one token");
    if (max < 0) { /* a default gives way: to what is left, and to what the request asks for */
        max = q->default_max_tokens;
        if (max < 1)
            max = q->api->max_tokens > 0 ? q->api->max_tokens : left;
        if (max < q->min_tokens)
            max = q->min_tokens;
        if (max > left)
            max = left > 1 ? left : 1;
    }
    if (max > left)
        return too_long(c, (int64_t)n, max, err);
    cp_request *r = &p->r;
    int32_t *copy = cp_arena_alloc(c->arena, n * sizeof(*copy));
    if (!copy)
        return out_of_memory(err);
    memcpy(copy, ids, n * sizeof(*copy));
    p->call = c;
    r->model = c->m->engine;
    r->prompt = copy;
    r->n_prompt = (int)n;
    r->max_tokens = (int)max;
    r->n = (int)q->n;
    r->sampling = *sp;
    if (r->sampling.min_tokens > r->max_tokens)
        r->sampling.min_tokens = r->max_tokens;
    bool score = q->echo && sp->n_top >= 0;
    r->n_prompt_top = score ? sp->n_top : -1;
    r->no_prefix_reads = score;
    if (q->cache_salt.p)
        cp_sha256_of(q->cache_salt.p, q->cache_salt.n, r->salt);
    int64_t deadline_ns = atomic_load_explicit(&c->s->deadline_ns, memory_order_relaxed);
    if (deadline_ns > 0)
        r->deadline_ns = cp_now_ns() + deadline_ns;
    uint32_t cap = pow2_at_least(score ? RING_PROMPT_RECORDS : RING_RECORDS, 4 * (uint32_t)q->n);
    uint32_t record = CP_EVENT_BYTES(sp->n_top);
    void *mem = cp_arena_alloc(c->arena, (size_t)cap * record);
    if (!mem)
        return out_of_memory(err);
    cp_ring_init(&r->ring, mem, record, cap);
    r->user = p;
    r->free_fn = free_request;
    c->n_prompt_tokens += (int64_t)n;
    return CP_OK;
}

/* What echo puts in front: the prompt as it was given, or its tokens' text. */
static cp_code prompt_text(cp_call *c, cp_part *p, const cp_prompt *given, cp_err *err)
{
    p->prompt_text = given->text;
    if (!given->text.p) {
        cp_buf b = {.account = &c->account};
        bool whole =
            cp_prompt_text(c->m->tokenizer, given->ids, given->n_ids, c->p.skip_special, &b);
        p->prompt_text.n = b.n;
        p->prompt_text.p = whole ? cp_arena_strndup(c->arena, b.p ? b.p : "", b.n) : NULL;
        cp_buf_fini(&b);
    }
    if (!p->prompt_text.p)
        return out_of_memory(err);
    p->prompt_chr = cp_utf8_count(p->prompt_text.p, p->prompt_text.n);
    return CP_OK;
}

static cp_code one_part(cp_call *c, int i, const cp_sampling *sp, cp_arena *render, cp_err *err)
{
    cp_part *p = &c->parts[i];
    cp_ids ids = {.account = &c->account};
    p->prompt_records.account = &c->account;
    cp_code code = CP_OK;
    p->first = i * (int)c->p.n;
    const cp_prompt *given = c->p.messages ? NULL : &c->p.prompts[i];
    if (!given)
        code = cp_call_encode_chat(c, render, &ids, err);
    else if (given->text.p)
        code = cp_tokenizer_encode(c->m->tokenizer, given->text.p, given->text.n, c->p.add_special,
                                   true, NULL, 0, &ids, err);
    if (code == CP_OK && given && !given->text.p)
        code = fill_part(c, p, sp, given->ids, (size_t)given->n_ids, err);
    else if (code == CP_OK)
        code = fill_part(c, p, sp, ids.id, ids.n, err);
    if (code == CP_OK && given && c->p.echo)
        code = prompt_text(c, p, given, err);
    cp_ids_fini(&ids);
    return code;
}

/* What a list of prompts asks for in all is known now. What the queue or half the budget could
 * never hold is refused, because no waiting would help. */
static cp_code check_size(const cp_call *c, const cp_sampling *sp, cp_err *err)
{
    cp_engine_limits now = c->m->limits; /* of the queue as it is by now */
    (void)c->s->engine.limits(c->s->engine.self, c->m->engine, &now);
    const cp_engine_limits *l = &now;
    if (c->n_parts > 1 && l->max_queue > 0 && c->n_parts > l->max_queue)
        return cp_fail_param(err, CP_INVALID_VALUE, "prompt",
                             "'prompt' has %d prompts; at most %d may wait (--max-queue): send "
                             "fewer at once",
                             c->n_parts, l->max_queue);
    if (c->n_parts > 1 && l->max_queue_tokens > 0 && c->n_prompt_tokens > l->max_queue_tokens)
        return cp_fail_param(err, CP_INVALID_VALUE, "prompt",
                             "'prompt' has %lld tokens in all; at most %lld may wait "
                             "(--max-queue-tokens): send fewer at once",
                             (long long)c->n_prompt_tokens, (long long)l->max_queue_tokens);
    if (sp->n_top < 0)
        return CP_OK;
    /* A record a token, and its JSON. */
    const cp_api *api = c->p.api;
    uint64_t n_top = (uint64_t)sp->n_top, n = (uint64_t)c->p.n, tokens = 0, bytes = 0;
    uint64_t record = sizeof(cp_logprob_record) + n_top * sizeof(struct cp_event_top);
    uint64_t json =
        c->streaming ? 0 : (uint64_t)api->token_bytes + (uint64_t)api->top_bytes * n_top;
    for (int i = 0; i < c->n_parts; i++) {
        const cp_request *r = &c->parts[i].r;
        uint64_t echoed = r->n_prompt_top >= 0 ? (uint64_t)r->n_prompt : 0;
        uint64_t made = c->p.max_tokens >= 0 && !c->streaming ? n * (uint64_t)r->max_tokens : 0;
        tokens += echoed + made;
        bytes += echoed * (record + n * json) + made * (record + json);
    }
    uint64_t most = cp_budget_limit(c->s->budget) / 2;
    if (bytes <= most)
        return CP_OK;
    return cp_fail_param(err, CP_INVALID_VALUE, api->top_field,
                         "%d prompts with 'n' %d and %d alternatives make log-probabilities of up "
                         "to %llu tokens, %llu MiB; allowed: %llu MiB (half of --body-bytes). Send "
                         "fewer prompts, or lower '%s', 'n' or 'max_tokens'",
                         c->n_parts, (int)n, (int)n_top, (unsigned long long)tokens,
                         (unsigned long long)(bytes >> 20), (unsigned long long)(most >> 20),
                         api->top_field);
}

static cp_code prepare_generation(cp_call *c, cp_arena *render, cp_err *err)
{
    cp_sampling sp;
    cp_code code = cp_sampling_make(&c->p, c->m->tokenizer, c->arena, &sp, err);
    if (code != CP_OK)
        return code;
    c->streaming = c->p.stream;
    int n_parts = c->p.messages ? 1 : c->p.n_prompts, n_choices = n_parts * (int)c->p.n;
    c->parts = cp_arena_alloc(c->arena, (size_t)n_parts * sizeof(*c->parts));
    c->choices = cp_arena_alloc(c->arena, (size_t)n_choices * sizeof(*c->choices));
    if (c->p.n_stop > 0)
        c->stops = cp_stops_new(c->arena, c->p.stop, c->p.n_stop);
    if (!c->parts || !c->choices || (c->p.n_stop > 0 && !c->stops))
        return out_of_memory(err);
    c->n_parts = n_parts;
    c->n_choices = n_choices;
    for (int i = 0; i < n_choices; i++) {
        cp_choice *ch = &c->choices[i];
        cp_text_init(&ch->text, c->m->tokenizer, c->stops, c->p.include_stop, c->p.skip_special);
        ch->shown.account = ch->records.account = &c->account;
    }
    for (int i = 0; i < c->n_parts && code == CP_OK; i++)
        code = one_part(c, i, &sp, render, err);
    return code == CP_OK ? check_size(c, &sp, err) : code;
}

void cp_call_prepare(cp_call *c)
{
    CP_ASSERT(c->on_job);
    c->arena = cp_arena_new(CP_CALL_ARENA);
    cp_arena *render = cp_arena_new(CP_RENDER_ARENA);
    cp_arena_charge(c->arena, &c->account);
    cp_arena_charge(render, &c->account);
    c->reply.account = &c->account;
    const cp_params_env env = {.api = c->route->api,
                               .model = {c->named, c->named ? strlen(c->named) : 0},
                               .n_json = c->n_json,
                               .account = &c->account,
                               .arg = c,
                               .find_model = find_model};
    cp_err *err = &c->err;
    c->code = cp_params_parse(c->body.p, c->body.n, &env, c->arena, render, &c->p, err);
    cp_buf_fini(&c->body);
    if (c->code == CP_OK && !c->p.api->act)
        c->code =
            c->p.api->reply ? c->p.api->reply(c, render, err) : prepare_generation(c, render, err);
    if (c->code == CP_OK && c->reply.failed)
        c->code = out_of_memory(err);
    /* The tree of messages goes with its arena. */
    c->p.messages = c->p.tools = c->p.documents = c->p.vars = NULL;
    if (c->code == CP_NO_MEMORY)
        c->code = cp_call_no_memory(c, cp_arena_full(render), err);
    cp_arena_free(render);
    cp_account_end(&c->account);
}
