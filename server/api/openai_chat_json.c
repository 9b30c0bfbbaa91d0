/*
 * /v1/chat/completions renders messages into one prompt and answers with its text as the
 * assistant's.
 *
 * The first chunk of a choice carries the role, then comes one chunk for each token that shows
 * text, and the last has an empty delta and the finish reason. Log-probabilities travel with the
 * text that their tokens made; those of tokens behind a stop string are left out. For "Hi",
 * streamed:
 *
 *   {"role":"assistant","content":"","refusal":null}   finish_reason null
 *   {"content":"Hi"}                                   null
 *   {}                                                 "stop"
 */
#include "server/api/openai.h"

#include "server/emit.h"
#include "server/records.h"

static cp_code parse(cp_parser *ps, cp_err *err)
{
    cp_params *p = ps->out;
    cp_code code = cp_read_generation(ps, err);
    if (code == CP_OK)
        code = cp_read_salt(ps, err);
    if (code == CP_OK)
        code = cp_read_chat(ps, err);
    if (code != CP_OK)
        return code;
    if (p->top_logprobs > 0 && !p->want_logprobs)
        return cp_fail_param(err, CP_INVALID_VALUE, "top_logprobs",
                             "'top_logprobs' needs 'logprobs': true");
    if (p->want_logprobs)
        p->n_top = p->top_logprobs > 0 ? (int)p->top_logprobs : 0;
    return cp_check_generation(p, err);
}

/* ---- log-probabilities ---- */

static void emit_token(cp_buf *b, cp_str s, float logprob)
{
    cp_buf_adds(b, "{\"token\":");
    cp_emit_str(b, s.p, s.n);
    cp_buf_adds(b, ",\"logprob\":");
    cp_emit_logprob(b, logprob);
    cp_buf_adds(b, ",\"bytes\":");
    cp_emit_bytes(b, s.p, s.n);
}

static void emit_list(const cp_call *c, cp_buf *b, cp_records s)
{
    cp_buf_adds(b, "{\"content\":[");
    for (size_t at = s.from, next; at < s.to; at = next) {
        const cp_logprob_record *r = cp_record_at(s.b, at, &next);
        if (at > s.from)
            cp_buf_addc(b, ',');
        emit_token(b, cp_openai_piece(c, r->id), r->logprob);
        cp_buf_adds(b, ",\"top_logprobs\":[");
        for (uint32_t i = 0; i < r->n_top; i++) {
            if (i > 0)
                cp_buf_addc(b, ',');
            emit_token(b, cp_openai_piece(c, cp_record_tops(r)[i].id),
                       cp_record_tops(r)[i].logprob);
            cp_buf_addc(b, '}');
        }
        cp_buf_adds(b, "]}");
    }
    cp_buf_adds(b, "],\"refusal\":null}");
}

static void emit_logprobs(const cp_call *c, cp_buf *b, cp_records s)
{
    cp_buf_adds(b, ",\"logprobs\":");
    if (c->p.n_top < 0 || s.from == s.to)
        cp_buf_adds(b, "null");
    else
        emit_list(c, b, s);
}

/* ---- answers ---- */

static void begin(cp_call *c)
{
    cp_openai_begin(c, "chat.completion.chunk");
}

static void event(cp_call *c, cp_part *p, int index, const cp_said *said, cp_buf *out)
{
    cp_choice *ch = &c->choices[index];
    if (!ch->begun) {
        ch->begun = true;
        cp_openai_chunk(c, index, out);
        cp_buf_adds(out, ",\"delta\":{\"role\":\"assistant\",\"content\":\"\",\"refusal\":null},"
                         "\"logprobs\":null");
        cp_openai_chunk_end(c, p, 0, NULL, out);
    }
    cp_openai_chunk(c, index, out);
    if (said->kind == CP_SAID_FINISH) {
        cp_buf_adds(out, ",\"delta\":{}");
        emit_logprobs(c, out, cp_records_take(ch));
        cp_openai_chunk_end(c, p, ch->n_tokens, cp_openai_finish(ch->finish), out);
        return;
    }
    CP_ASSERT(said->kind == CP_SAID_CONTENT);
    cp_buf_adds(out, ",\"delta\":{\"content\":");
    cp_emit_str(out, said->text, said->n);
    cp_buf_addc(out, '}');
    emit_logprobs(c, out, cp_records_take(ch));
    cp_openai_chunk_end(c, p, ch->n_tokens, NULL, out);
}

static void whole_choice(cp_call *c, cp_part *p, int index, cp_buf *out)
{
    (void)p;
    cp_choice *ch = &c->choices[index];
    cp_buf_adds(out, "{\"index\":");
    cp_emit_int(out, index);
    cp_buf_adds(out, ",\"message\":{\"role\":\"assistant\",\"content\":");
    cp_emit_str(out, ch->shown.p ? ch->shown.p : "", ch->shown.n);
    cp_buf_adds(out, ",\"refusal\":null},\"logprobs\":");
    cp_records s = cp_records_take(ch);
    if (c->p.n_top >= 0) /* a list, if an empty one */
        emit_list(c, out, s);
    else
        cp_buf_adds(out, "null");
    cp_buf_printf(out, ",\"finish_reason\":\"%s\"}", cp_openai_finish(ch->finish));
}

static void whole(cp_call *c, cp_buf *out)
{
    cp_openai_whole(c, "chat.completion", whole_choice, out);
}

static const char *const texts[] = {"messages", "model", "cache_salt", "stop", NULL};

const cp_api cp_api_chat = {
    .name = "chat",
    .fields = &cp_fields_openai,
    .at = CP_AT_CHAT,
    .texts = texts,
    .parse = parse,
    .prompt_field = "messages",
    .id_prefix = "chatcmpl-",
    .operation = "chat",
    .top_field = "top_logprobs",
    .token_bytes = 96,
    .top_bytes = 96, /* its bytes, too */
    .stream_type = "text/event-stream",
    .begin = begin,
    .event = event,
    .end = cp_openai_end,
    .whole = whole,
    .error = cp_openai_error,
};
