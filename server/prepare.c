/*
 * From a body to engine requests: JSON, template, tokens, limits. Runs on Jobs, never on the loop
 * thread, as a small body can ask for a long rendering; it touches nothing but the call and what is
 * immutable. All memory that the request needs until its end (ids, rings, stop strings) lies in the
 * call's arena; the template's working memory is given back before it returns.
 */
#include "server/internal.h"

#include "base/clock.h"
#include "base/digest.h"

#include <string.h>
#include <sys/random.h>

enum {
    RING_RECORDS = 64,         /* at least; a power of two */
    RING_PROMPT_RECORDS = 256, /* with log-probabilities of the prompt */
};

static cp_code out_of_memory(cp_err *err)
{
    return cp_fail(err, CP_NO_MEMORY, "out of memory"); /* cp_call_no_memory has better words */
}

cp_code cp_call_no_memory(const cp_call *c, bool full, cp_err *err)
{
    unsigned long long limit = cp_budget_limit(c->s->budget);
    bool chat = c->route->where != CP_AT_TEXT;
    if (c->account.never)
        return cp_fail(err, CP_TOO_LARGE,
                       "the request needs more memory than there is for all requests together "
                       "(--body-bytes, %llu bytes); send less at once, or ask for fewer choices or "
                       "log-probabilities",
                       limit);
    if (c->account.refused)
        return cp_fail(err, CP_OVERLOADED,
                       "the memory for requests (--body-bytes, %llu bytes) is in use", limit);
    if (full)
        return cp_fail_param(err, CP_INVALID_VALUE, "messages",
                             "the chat template needs more than %d MiB for these 'messages'; send "
                             "less at once",
                             CP_RENDER_ARENA >> 20);
    if (c->arena && cp_arena_full(c->arena))
        return cp_fail_param(err, CP_INVALID_VALUE, chat ? "messages" : "prompt",
                             "the texts, token ids and choices of the request need more than %d "
                             "MiB; send fewer prompts, or ask for fewer choices",
                             CP_CALL_ARENA >> 20);
    return cp_fail(err, CP_NO_MEMORY, "the server is out of memory");
}

static cp_code find_model(void *arg, cp_str name, cp_params_model *out, cp_err *err)
{
    cp_call *c = arg;
    const cp_served_table *models = &c->s->models;
    if (!cp_served_at(models, 0))
        return cp_fail(err, CP_LOADING, "the model is still loading");
    cp_served *m = name.p ? cp_served_find(models, name.p, name.n) : cp_served_at(models, 0);
    if (!m)
        return cp_fail_param(err, CP_MODEL_NOT_FOUND, "model",
                             "the model '%.200s' does not exist; GET /v1/models lists what does",
                             name.p);
    c->m = m;
    *out = (cp_params_model){
        .handle = m, .defaults = &m->defaults, .n_vocab = cp_tokenizer_size(m->tokenizer)};
    if (m->limits.n_vocab > 0 && m->limits.n_vocab < out->n_vocab)
        out->n_vocab = m->limits.n_vocab;
    return CP_OK;
}

/* ---- the template ---- */

static bool set_token(cp_arena *a, cp_val *vars, const char *name, const cp_tokenizer *t,
                      int32_t id)
{
    if (id < 0)
        return true; /* undefined prints as nothing */
    cp_str s = cp_tokenizer_piece(t, id);
    cp_val *v = cp_val_str(a, s.p ? s.p : "", s.n, false);
    return v && cp_val_set(a, vars, name, v);
}

static cp_code render(cp_call *c, cp_arena *a, cp_rendered *out, cp_err *err)
{
    const cp_served *m = c->m;
    if (!m->template_)
        return cp_fail(err, CP_NO_TEMPLATE,
                       "the model '%.200s' has no chat template; use /v1/completions, or start the "
                       "server with --chat-template-file",
                       m->ids[0]);
    cp_val *vars = c->p.vars, *none = cp_val_none(a);
    cp_val *generate = cp_val_bool(a, c->p.add_generation_prompt);
    if (!none || !generate || !cp_val_set(a, vars, "messages", c->p.messages) ||
        !cp_val_set(a, vars, "tools", none) || !cp_val_set(a, vars, "documents", none) ||
        !cp_val_set(a, vars, "add_generation_prompt", generate) ||
        !set_token(a, vars, "bos_token", m->tokenizer, cp_tokenizer_bos(m->tokenizer)) ||
        !set_token(a, vars, "eos_token", m->tokenizer, cp_tokenizer_eos(m->tokenizer)))
        return out_of_memory(err);
    return cp_template_render(m->template_, a, vars, cp_wall_sec(), out, err);
}

/* The template writes BOS itself, so none is added; what came from the request is never parsed for
 * special tokens. */
static cp_code encode_rendered(const cp_call *c, const cp_rendered *r, cp_ids *ids, cp_err *err)
{
    cp_span *spans = cp_arena_alloc(c->arena, (r->n_input + 1) * sizeof(*spans));
    if (!spans)
        return out_of_memory(err);
    for (size_t i = 0; i < r->n_input; i++)
        spans[i] = (cp_span){r->input[i].begin, r->input[i].end};
    return cp_tokenizer_encode(c->m->tokenizer, r->text.p ? r->text.p : "", r->text.n, false, true,
                               spans, r->n_input, ids, err);
}

static cp_code encode_chat(cp_call *c, cp_arena *a, cp_ids *ids, cp_err *err)
{
    cp_rendered r = {0};
    cp_code code = render(c, a, &r, err);
    if (code == CP_OK)
        code = encode_rendered(c, &r, ids, err);
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

static cp_code stop_ids(cp_call *c, cp_sampling *sp, cp_err *err)
{
    size_t n_eog = 0;
    const int32_t *eog = cp_tokenizer_eogs(c->m->tokenizer, &n_eog);
    size_t n = n_eog, most = n_eog + (size_t)c->p.n_stop_ids + (size_t)c->p.n_stop;
    int32_t *ids = cp_arena_alloc(c->arena, (most + 1) * sizeof(*ids));
    if (!ids)
        return out_of_memory(err);
    if (n_eog > 0)
        memcpy(ids, eog, n_eog * sizeof(*ids));
    for (int i = 0; i < c->p.n_stop_ids; i++)
        ids[n++] = c->p.stop_ids[i];
    if (c->p.skip_special)
        n += (size_t)cp_stops_special(c->m->tokenizer, c->p.stop, c->p.n_stop, ids + n);
    sp->stop_ids = ids;
    sp->n_stop_ids = (int)n;
    sp->eog_ids = ids;
    sp->n_eog_ids = (int)n_eog;
    return CP_OK;
}

static cp_code sampling(cp_call *c, cp_sampling *sp, cp_err *err)
{
    const cp_params *p = &c->p;
    /* Below this a temperature only makes infinities; it is greedy. 0 of top_p keeps the first. */
    const double coldest = 1e-4, least_mass = 1e-6;
    *sp = (cp_sampling){
        .temperature = p->temperature < coldest ? 0.0f : (float)p->temperature,
        .top_p = (float)(p->top_p < least_mass ? least_mass : p->top_p),
        .min_p = (float)p->min_p,
        .top_k = p->top_k > 0 ? (int)p->top_k : 0,
        .repetition = (float)p->repetition_penalty,
        .presence = (float)p->presence_penalty,
        .frequency = (float)p->frequency_penalty,
        .seed = (uint64_t)p->seed,
        .bias = p->bias,
        .n_bias = p->n_bias,
        .min_tokens = (int)p->min_tokens,
        .ignore_eos = p->ignore_eos,
        .n_top = -1,
    };
    if (p->want_logprobs)
        sp->n_top = p->top_logprobs > 0 ? (int)p->top_logprobs : 0;
    else if (c->route->where == CP_AT_TEXT)
        sp->n_top = (int)p->logprobs;
    if (!p->has_seed && getrandom(&sp->seed, sizeof(sp->seed), 0) != (ssize_t)sizeof(sp->seed))
        sp->seed = (uint64_t)cp_now_ns();
    return stop_ids(c, sp, err);
}

static cp_code too_long(cp_call *c, int64_t n_prompt, int64_t n_new, cp_err *err)
{
    c->n_prompt_tokens = n_prompt;
    c->n_ctx_shown = c->m->limits.ctx;
    return cp_fail_param(
        err, CP_CONTEXT_LENGTH, c->route->where == CP_AT_CHAT ? "messages" : "prompt",
        "This model's maximum context length is %d tokens. However, you requested "
        "%lld tokens (%lld in the prompt, %lld in the completion). Shorten the "
        "prompt or lower max_tokens",
        c->m->limits.ctx, (long long)(n_prompt + n_new), (long long)n_prompt, (long long)n_new);
}

static cp_code fill_part(cp_call *c, cp_part *p, const cp_sampling *sp, const int32_t *ids,
                         size_t n, cp_err *err)
{
    const cp_params *q = &c->p;
    int64_t ctx = c->m->limits.ctx, left = ctx - (int64_t)n, max = q->max_tokens;
    if (n == 0)
        return cp_fail_param(err, CP_INVALID_VALUE,
                             c->route->where == CP_AT_CHAT ? "messages" : "prompt",
                             "the prompt is empty and this model has no token to begin with; "
                             "allowed: at least one token");
    if (max < 0) { /* a default gives way: to what is left, and to what the request asks for */
        max = q->default_max_tokens;
        if (max < 1)
            max = c->route->where == CP_AT_CHAT ? left : 16;
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
    if (c->s->deadline_ns > 0)
        r->deadline_ns = cp_now_ns() + c->s->deadline_ns;
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

/* The text of ids, as a stream of them shows it: what is no UTF-8 becomes U+FFFD. */
static bool decode(const cp_tokenizer *t, const cp_prompt *p, bool skip_special, cp_buf *out)
{
    cp_detok d;
    cp_detok_init(&d, t, true, skip_special);
    for (int i = 0; i < p->n_ids; i++)
        if (!cp_detok_push(&d, p->ids[i], out))
            return false;
    return cp_detok_finish(&d, out);
}

/* What echo puts in front: the prompt as it was given, or its tokens' text. */
static cp_code prompt_text(cp_call *c, cp_part *p, const cp_prompt *given, cp_err *err)
{
    p->prompt_text = given->text;
    if (!given->text.p) {
        cp_buf b = {.account = &c->account};
        bool whole = decode(c->m->tokenizer, given, c->p.skip_special, &b);
        p->prompt_text.n = b.n;
        p->prompt_text.p = whole ? cp_arena_strndup(c->arena, b.p ? b.p : "", b.n) : NULL;
        cp_buf_fini(&b);
    }
    if (!p->prompt_text.p)
        return out_of_memory(err);
    p->prompt_chr = cp_utf8_count(p->prompt_text.p, p->prompt_text.n);
    return CP_OK;
}

static cp_code one_part(cp_call *c, int i, const cp_sampling *sp, cp_arena *a, cp_err *err)
{
    cp_part *p = &c->parts[i];
    cp_ids ids = {.account = &c->account};
    p->prompt_records.account = &c->account;
    cp_code code = CP_OK;
    p->first = i * (int)c->p.n;
    const cp_prompt *given = c->route->where == CP_AT_CHAT ? NULL : &c->p.prompts[i];
    if (!given)
        code = encode_chat(c, a, &ids, err);
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
    const cp_engine_limits *l = &c->m->limits;
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
    /* A record a token, and its JSON: of each alternative its text and its number, in a chat its
     * bytes, too. */
    bool chat = c->route->where == CP_AT_CHAT;
    uint64_t n_top = (uint64_t)sp->n_top, n = (uint64_t)c->p.n, tokens = 0, bytes = 0;
    uint64_t record = sizeof(cp_logprob_record) + n_top * sizeof(struct cp_event_top);
    uint64_t json = c->streaming ? 0 : chat ? 96 * (n_top + 1) : 40 * (n_top + 2);
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
    return cp_fail_param(err, CP_INVALID_VALUE, chat ? "top_logprobs" : "logprobs",
                         "%d prompts with 'n' %d and %d alternatives make log-probabilities of up "
                         "to %llu tokens, %llu MiB; allowed: %llu MiB (half of --body-bytes). Send "
                         "fewer prompts, or lower '%s', 'n' or 'max_tokens'",
                         c->n_parts, (int)n, (int)n_top, (unsigned long long)tokens,
                         (unsigned long long)(bytes >> 20), (unsigned long long)(most >> 20),
                         chat ? "top_logprobs" : "logprobs");
}

static cp_code prepare_generation(cp_call *c, cp_arena *a, cp_err *err)
{
    cp_sampling sp;
    cp_code code = sampling(c, &sp, err);
    if (code != CP_OK)
        return code;
    c->streaming = c->p.stream;
    c->n_parts = c->route->where == CP_AT_CHAT ? 1 : c->p.n_prompts;
    int n_choices = c->n_parts * (int)c->p.n;
    c->parts = cp_arena_alloc(c->arena, (size_t)c->n_parts * sizeof(*c->parts));
    c->choices = cp_arena_alloc(c->arena, (size_t)n_choices * sizeof(*c->choices));
    if (c->p.n_stop > 0)
        c->stops = cp_stops_new(c->arena, c->p.stop, c->p.n_stop);
    if (!c->parts || !c->choices || (c->p.n_stop > 0 && !c->stops))
        return out_of_memory(err);
    c->n_choices = n_choices;
    for (int i = 0; i < n_choices; i++) {
        cp_detok_init(&c->choices[i].detok, c->m->tokenizer, false, c->p.skip_special);
        c->choices[i].text.account = c->choices[i].records.account = &c->account;
    }
    for (int i = 0; i < c->n_parts && code == CP_OK; i++)
        code = one_part(c, i, &sp, a, err);
    return code == CP_OK ? check_size(c, &sp, err) : code;
}

/* ---- /tokenize, /detokenize, /apply-template ---- */

/* An id of /tokenize; with its piece as llama-server gives it: text, or bytes where it is none. */
static void emit_id(const cp_call *c, cp_buf *b, int32_t id)
{
    if (!c->p.with_pieces) {
        cp_emit_int(b, id);
        return;
    }
    cp_str s = cp_tokenizer_piece(c->m->tokenizer, id);
    cp_buf_printf(b, "{\"id\":%d,\"piece\":", id);
    if (cp_utf8_valid(s.p, s.n))
        cp_emit_str(b, s.p, s.n);
    else
        cp_emit_bytes(b, s.p, s.n);
    cp_buf_addc(b, '}');
}

/* vLLM's list of texts beside the ids. */
static void emit_token_strs(const cp_call *c, cp_buf *b, const cp_ids *ids)
{
    cp_buf_adds(b, ",\"token_strs\":[");
    for (size_t i = 0; i < ids->n; i++) {
        cp_str s = cp_tokenizer_piece(c->m->tokenizer, ids->id[i]);
        if (i > 0)
            cp_buf_addc(b, ',');
        cp_emit_token(b, s.p, s.n);
    }
    cp_buf_addc(b, ']');
}

static cp_code prepare_tokenize(cp_call *c, cp_arena *a, cp_err *err)
{
    cp_ids ids = {.account = &c->account};
    cp_code code;
    if (c->p.messages)
        code = encode_chat(c, a, &ids, err);
    else
        code = cp_tokenizer_encode(c->m->tokenizer, c->p.prompts[0].text.p, c->p.prompts[0].text.n,
                                   c->p.add_special, c->p.parse_special, NULL, 0, &ids, err);
    cp_buf *b = &c->reply;
    cp_buf_adds(b, "{\"tokens\":[");
    for (size_t i = 0; i < ids.n; i++) {
        if (i > 0)
            cp_buf_addc(b, ',');
        emit_id(c, b, ids.id[i]);
    }
    cp_buf_printf(b, "],\"count\":%zu,\"max_model_len\":%d", ids.n, c->m->limits.ctx);
    if (c->p.token_strs)
        emit_token_strs(c, b, &ids);
    cp_buf_addc(b, '}');
    cp_ids_fini(&ids);
    return code;
}

static cp_code prepare_detokenize(cp_call *c, cp_err *err)
{
    cp_buf text = {.account = &c->account};
    bool whole = decode(c->m->tokenizer, &c->p.prompts[0], false, &text);
    const char *p = text.p ? text.p : "";
    cp_buf_adds(&c->reply, "{\"content\":");
    cp_emit_str(&c->reply, p, text.n);
    cp_buf_adds(&c->reply, ",\"prompt\":");
    cp_emit_str(&c->reply, p, text.n);
    cp_buf_addc(&c->reply, '}');
    cp_buf_fini(&text);
    return whole ? CP_OK : out_of_memory(err);
}

static cp_code prepare_apply(cp_call *c, cp_arena *a, cp_err *err)
{
    cp_rendered r = {0};
    cp_code code = render(c, a, &r, err);
    cp_buf_adds(&c->reply, "{\"prompt\":");
    cp_emit_str(&c->reply, r.text.p ? r.text.p : "", r.text.n);
    cp_buf_addc(&c->reply, '}');
    cp_rendered_fini(&r);
    return code;
}

void cp_call_prepare(cp_call *c)
{
    CP_ASSERT(c->in_job);
    c->arena = cp_arena_new(CP_CALL_ARENA);
    cp_arena *render_arena = cp_arena_new(CP_RENDER_ARENA);
    cp_arena_charge(c->arena, &c->account);
    cp_arena_charge(render_arena, &c->account);
    c->reply.account = &c->account;
    const cp_params_env env = {
        .where = c->route->where, .account = &c->account, .arg = c, .find_model = find_model};
    cp_err *err = &c->err;
    c->code = cp_params_parse(c->body.p, c->body.n, &env, c->arena, render_arena, &c->p, err);
    cp_buf_fini(&c->body);
    if (c->code == CP_OK) {
        switch (c->route->where) {
        case CP_AT_TOKENIZE:
            c->code = prepare_tokenize(c, render_arena, err);
            break;
        case CP_AT_DETOKENIZE:
            c->code = prepare_detokenize(c, err);
            break;
        case CP_AT_APPLY:
            c->code = prepare_apply(c, render_arena, err);
            break;
        default:
            c->code = prepare_generation(c, render_arena, err);
        }
    }
    if (c->code == CP_OK && c->reply.failed)
        c->code = out_of_memory(err);
    /* The tree of messages goes with its arena. */
    c->p.messages = c->p.vars = NULL;
    if (c->code == CP_NO_MEMORY)
        c->code = cp_call_no_memory(c, cp_arena_full(render_arena), err);
    cp_arena_free(render_arena);
    cp_account_end(&c->account);
}
