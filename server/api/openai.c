/* This file writes heads, chunks, usage and errors as OpenAI spells them: see openai.h. */
#include "server/api/openai.h"

#include "server/emit.h"

#include <string.h>

/* {"id":...,"object":...,"created":...,"model":...,"system_fingerprint":...,"choices":[ */
static void emit_head(const cp_call *c, cp_buf *b, const char *object)
{
    cp_buf_printf(b, "{\"id\":\"%s\",\"object\":\"%s\",\"created\":%lld,\"model\":", c->id, object,
                  (long long)c->created);
    cp_emit_str(b, c->m->id, strlen(c->m->id));
    cp_buf_adds(b, ",\"system_fingerprint\":");
    cp_emit_str(b, c->m->fingerprint, strlen(c->m->fingerprint));
    cp_buf_adds(b, ",\"choices\":[");
}

void cp_openai_begin(cp_call *c, const char *object)
{
    if (!c->streaming)
        return;
    cp_buf_adds(&c->chunk_head, "data: ");
    emit_head(c, &c->chunk_head, object);
    cp_buf_adds(&c->chunk_head, "{\"index\":");
}

void cp_openai_chunk(const cp_call *c, int choice, cp_buf *out)
{
    cp_buf_add(out, c->chunk_head.p, c->chunk_head.n);
    cp_emit_int(out, choice);
}

void cp_openai_chunk_end(const cp_call *c, const cp_part *p, int n_tokens, const char *finish,
                         cp_buf *out)
{
    if (finish)
        cp_buf_printf(out, ",\"finish_reason\":\"%s\"}]", finish);
    else
        cp_buf_adds(out, ",\"finish_reason\":null}]");
    if (c->p.continuous_usage)
        cp_buf_printf(out,
                      ",\"usage\":{\"prompt_tokens\":%d,\"completion_tokens\":%d,"
                      "\"total_tokens\":%d}}\n\n",
                      p->r.n_prompt, n_tokens, p->r.n_prompt + n_tokens);
    else
        cp_buf_adds(out, c->p.include_usage ? ",\"usage\":null}\n\n" : "}\n\n");
}

const char *cp_openai_finish(cp_finish finish)
{
    return finish == CP_FINISH_LENGTH ? "length" : "stop";
}

static void emit_usage(const cp_call *c, cp_buf *b)
{
    long long prompt = c->n_prompt_tokens, cached = 0, completion = 0;
    for (int i = 0; i < c->n_parts; i++)
        cached += c->parts[i].n_cached;
    for (int i = 0; i < c->n_choices; i++)
        completion += c->choices[i].n_tokens;
    cp_buf_printf(b,
                  "{\"prompt_tokens\":%lld,\"completion_tokens\":%lld,\"total_tokens\":%lld,"
                  "\"prompt_tokens_details\":{\"cached_tokens\":%lld}}",
                  prompt, completion, prompt + completion, cached);
}

void cp_openai_end(cp_call *c, cp_buf *out)
{
    if (c->p.include_usage) {
        /* The head of every chunk, up to `choices:[`. */
        size_t n = c->chunk_head.n - strlen("{\"index\":");
        cp_buf_add(out, c->chunk_head.p, n);
        cp_buf_adds(out, "],\"usage\":");
        emit_usage(c, out);
        cp_buf_adds(out, "}\n\n");
    }
    cp_buf_adds(out, "data: [DONE]\n\n");
}

void cp_openai_whole(cp_call *c, const char *object,
                     void (*choice)(cp_call *c, cp_part *p, int choice, cp_buf *out), cp_buf *out)
{
    emit_head(c, out, object);
    for (int i = 0; i < c->n_parts; i++) {
        cp_part *p = &c->parts[i];
        for (int k = 0; k < p->r.n; k++) {
            if (p->first + k > 0)
                cp_buf_addc(out, ',');
            choice(c, p, p->first + k, out);
        }
    }
    cp_buf_adds(out, "],\"usage\":");
    emit_usage(c, out);
    cp_buf_addc(out, '}');
}

void cp_openai_error(const cp_told *told, cp_buf *out)
{
    const cp_code_row *row = cp_code_info(told->code);
    const cp_err *err = told->err;
    /* An internal error's words are for the log. */
    const char *msg = row->http == 500 || !err || !err->msg[0] ? "internal error" : err->msg;
    cp_buf_adds(out,
                told->streamed ? "data: {\"error\":{\"message\":" : "{\"error\":{\"message\":");
    cp_emit_str(out, msg, strlen(msg));
    cp_buf_adds(out, ",\"type\":");
    cp_emit_str(out, row->type, strlen(row->type));
    cp_buf_adds(out, ",\"param\":");
    if (err && err->param[0])
        cp_emit_str(out, err->param, strlen(err->param));
    else
        cp_buf_adds(out, "null");
    cp_buf_adds(out, ",\"code\":");
    cp_emit_str(out, row->slug, strlen(row->slug));
    if (told->n_ctx > 0)
        cp_buf_printf(out, ",\"n_prompt_tokens\":%lld,\"n_ctx\":%lld",
                      (long long)told->n_prompt_tokens, (long long)told->n_ctx);
    cp_buf_adds(out, told->streamed ? "}}\n\n" : "}}");
}

cp_str cp_openai_piece(const cp_call *c, int32_t id)
{
    cp_str s = {"", 0};
    if (id >= 0 && id < cp_tokenizer_size(c->m->tokenizer))
        s = cp_tokenizer_piece(c->m->tokenizer, id);
    return s;
}
