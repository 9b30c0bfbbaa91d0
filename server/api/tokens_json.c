/*
 * These APIs answer without the engine: /tokenize (of a text, and of a chat), /detokenize and
 * /apply-template. Jobs do all of their work. For the model whose ids are bytes,
 *
 *   POST /tokenize {"content":"Hi"}     {"tokens":[72,105],"count":2,"max_model_len":4096}
 *   POST /detokenize {"tokens":[72]}    {"content":"H","prompt":"H"}
 */
#include "server/api/openai.h"

#include "base/utf8.h"
#include "server/emit.h"
#include "server/prepare.h"
#include "server/prompt.h"

#include <jansson.h>

/* ---- bodies ---- */

/* /tokenize: content or prompt; /detokenize: tokens. */
static cp_code read_input(cp_parser *ps, bool ids, cp_err *err)
{
    const char *field = ids ? "tokens" : cp_parser_get(ps, "content") ? "content" : "prompt";
    const json_t *v = cp_parser_get(ps, field);
    if (!v)
        return cp_fail_param(err, CP_MISSING_FIELD, ids ? "tokens" : "content",
                             ids ? "'tokens' is missing; give a list of token ids"
                                 : "'content' is missing; give a string, or 'messages'");
    char say[64];
    if (ids ? !json_is_array(v) : !json_is_string(v))
        return cp_fail_param(err, CP_INVALID_VALUE, field, "'%s' is %s; allowed: %s", field,
                             cp_json_say(v, say, sizeof(say)),
                             ids ? "a list of token ids" : "a string");
    cp_prompt *p = cp_arena_alloc(ps->arena, sizeof(*p));
    if (!p)
        return cp_parser_full(err);
    cp_code code = cp_parser_prompt(ps, v, field, p, err);
    ps->out->prompts = p;
    ps->out->n_prompts = 1;
    return code;
}

static cp_code parse_text(cp_parser *ps, cp_err *err)
{
    return read_input(ps, false, err);
}

static cp_code parse_ids(cp_parser *ps, cp_err *err)
{
    return read_input(ps, true, err);
}

static cp_code parse_chat(cp_parser *ps, cp_err *err)
{
    cp_code code = cp_read_salt(ps, err);
    if (code == CP_OK)
        code = cp_read_chat(ps, err);
    return code == CP_OK ? cp_read_attached(ps, err) : code;
}

/* ---- answers ---- */

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

static cp_code tokens_of(cp_call *c, cp_code code, cp_ids *ids)
{
    cp_buf *b = &c->reply;
    cp_buf_adds(b, "{\"tokens\":[");
    for (size_t i = 0; i < ids->n; i++) {
        if (i > 0)
            cp_buf_addc(b, ',');
        emit_id(c, b, ids->id[i]);
    }
    cp_buf_printf(b, "],\"count\":%zu,\"max_model_len\":%d", ids->n, c->m->limits.ctx);
    if (c->p.token_strs)
        emit_token_strs(c, b, ids);
    cp_buf_addc(b, '}');
    cp_ids_fini(ids);
    return code;
}

static cp_code reply_text(cp_call *c, cp_arena *render, cp_err *err)
{
    (void)render;
    cp_ids ids = {.account = &c->account};
    cp_str s = c->p.prompts[0].text;
    cp_code code = cp_tokenizer_encode(c->m->tokenizer, s.p, s.n, c->p.add_special,
                                       c->p.parse_special, NULL, 0, &ids, err);
    return tokens_of(c, code, &ids);
}

static cp_code reply_chat(cp_call *c, cp_arena *render, cp_err *err)
{
    cp_ids ids = {.account = &c->account};
    cp_code code = cp_call_encode_chat(c, render, &ids, err);
    return tokens_of(c, code, &ids);
}

static cp_code reply_ids(cp_call *c, cp_arena *render, cp_err *err)
{
    (void)render;
    cp_buf text = {.account = &c->account};
    bool whole =
        cp_prompt_text(c->m->tokenizer, c->p.prompts[0].ids, c->p.prompts[0].n_ids, false, &text);
    const char *p = text.p ? text.p : "";
    cp_buf_adds(&c->reply, "{\"content\":");
    cp_emit_str(&c->reply, p, text.n);
    cp_buf_adds(&c->reply, ",\"prompt\":");
    cp_emit_str(&c->reply, p, text.n);
    cp_buf_addc(&c->reply, '}');
    cp_buf_fini(&text);
    return whole ? CP_OK : cp_parser_full(err);
}

static cp_code reply_prompt(cp_call *c, cp_arena *render, cp_err *err)
{
    cp_rendered r = {0};
    cp_code code = cp_call_render(c, render, &r, err);
    cp_buf_adds(&c->reply, "{\"prompt\":");
    cp_emit_str(&c->reply, r.text.p ? r.text.p : "", r.text.n);
    cp_buf_addc(&c->reply, '}');
    cp_rendered_fini(&r);
    return code;
}

/* ---- the tables ---- */

static const char *const chat_texts[] = {"messages", "model", "cache_salt", NULL};
static const char *const tokenize_texts[] = {"messages", "content", "prompt", "model", NULL};
static const char *const ids_texts[] = {"model", NULL};

const cp_api cp_api_apply = {
    .name = "apply",
    .fields = &cp_fields_openai,
    .at = CP_AT_APPLY,
    .texts = chat_texts,
    .parse = parse_chat,
    .prompt_field = "messages",
    .reply = reply_prompt,
    .error = cp_openai_error,
};

static const cp_api count = {
    .name = "tokenize, messages",
    .fields = &cp_fields_openai,
    .at = CP_AT_COUNT,
    .texts = tokenize_texts,
    .parse = parse_chat,
    .prompt_field = "messages",
    .reply = reply_chat,
    .error = cp_openai_error,
};

const cp_api cp_api_tokenize = {
    .name = "tokenize, text",
    .fields = &cp_fields_openai,
    .at = CP_AT_TOKENIZE,
    .texts = tokenize_texts,
    .other_if = "messages",
    .other = &count,
    .parse = parse_text,
    .prompt_field = "messages",
    .reply = reply_text,
    .error = cp_openai_error,
};

const cp_api cp_api_detokenize = {
    .name = "detokenize",
    .fields = &cp_fields_openai,
    .at = CP_AT_DETOKENIZE,
    .texts = ids_texts,
    .parse = parse_ids,
    .prompt_field = "messages",
    .reply = reply_ids,
    .error = cp_openai_error,
};
