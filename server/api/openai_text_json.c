/*
 * /v1/completions continues each prompt of a list by itself and numbers their choices through.
 *
 * With echo the prompt stands in front of the text, and its tokens get log-probabilities, too. They
 * are four parallel lists; offsets count code points from the text's start. For the prompt "a" and
 * the token " b", echoed:
 *
 *   {"tokens":["a"," b"],"token_logprobs":[null,-0.5],"top_logprobs":[null,{" b":-0.5}],
 *    "text_offset":[0,1]}
 */
#include "server/api/openai.h"

#include "base/utf8.h"
#include "server/emit.h"
#include "server/records.h"

#include <jansson.h>
#include <string.h>

/* ---- bodies ---- */

/* string, [string], [ids], [[ids]], and lists that mix strings and lists of ids. */
static cp_code read_prompt(cp_parser *ps, cp_err *err)
{
    const json_t *v = cp_parser_get(ps, "prompt");
    if (!v)
        return cp_fail_param(err, CP_MISSING_FIELD, "prompt",
                             "'prompt' is missing; give a string, a list of strings, token ids or "
                             "a list of lists of token ids");
    size_t n = json_array_size(v);
    bool many = json_is_array(v) && n > 0 && !json_is_number(json_array_get(v, 0));
    char say[64];
    if ((!json_is_string(v) && !json_is_array(v)) || (json_is_array(v) && n == 0) ||
        (many && n > CP_PROMPTS_MAX))
        return cp_fail_param(err, CP_INVALID_VALUE, "prompt",
                             "'prompt' is %s; allowed: a string, token ids, or a list of 1 to %d "
                             "of these",
                             cp_json_say(v, say, sizeof(say)), CP_PROMPTS_MAX);
    if (!many)
        n = 1;
    cp_prompt *list = cp_arena_alloc(ps->arena, n * sizeof(*list));
    if (!list)
        return cp_parser_full(err);
    for (size_t i = 0; i < n; i++) {
        const json_t *e = many ? json_array_get(v, i) : v;
        char field[32];
        cp_snprintf(field, sizeof(field), many ? "prompt[%zu]" : "prompt", i);
        if (!json_is_string(e) && !(json_is_array(e) && json_array_size(e) > 0))
            return cp_fail_param(err, CP_INVALID_VALUE, field,
                                 "'%s' is %s; allowed: a string or a list of token ids", field,
                                 cp_json_say(e, say, sizeof(say)));
        cp_code code = cp_parser_prompt(ps, e, field, &list[i], err);
        if (code != CP_OK)
            return code;
    }
    ps->out->prompts = list;
    ps->out->n_prompts = (int)n;
    return CP_OK;
}

static cp_code parse(cp_parser *ps, cp_err *err)
{
    cp_params *p = ps->out;
    cp_code code = cp_read_generation(ps, err);
    if (code == CP_OK)
        code = cp_read_salt(ps, err);
    if (code == CP_OK)
        code = read_prompt(ps, err);
    if (code != CP_OK)
        return code;
    if (p->max_tokens == 0 && !p->echo)
        return cp_fail_param(err, CP_INVALID_VALUE, "max_tokens",
                             "'max_tokens' is 0; allowed: 1 and more, 0 only with 'echo': true");
    p->n_top = (int)p->logprobs;
    return cp_check_generation(p, err);
}

/* ---- log-probabilities ---- */

/* The legacy object names a token by a string alone. */
static void emit_piece(const cp_call *c, cp_buf *b, int32_t id)
{
    cp_str s = cp_openai_piece(c, id);
    cp_emit_token(b, s.p, s.n);
}

/* The sampled token is always among the alternatives, so there may be one more than asked for. */
static void emit_tops(const cp_call *c, cp_buf *b, const cp_logprob_record *r)
{
    bool has = false;
    cp_buf_addc(b, '{');
    for (uint32_t i = 0; i < r->n_top; i++) {
        if (i > 0)
            cp_buf_addc(b, ',');
        emit_piece(c, b, cp_record_tops(r)[i].id);
        cp_buf_addc(b, ':');
        cp_emit_logprob(b, cp_record_tops(r)[i].logprob);
        has = has || cp_record_tops(r)[i].id == r->id;
    }
    if (!has) {
        if (r->n_top > 0)
            cp_buf_addc(b, ',');
        emit_piece(c, b, r->id);
        cp_buf_addc(b, ':');
        cp_emit_logprob(b, r->logprob);
    }
    cp_buf_addc(b, '}');
}

/* The four parallel lists of /v1/completions. First the prompt's tokens when `prompt` (position 0
 * has no log-probability), then the span's. Offsets count code points from the text's start. */
typedef enum column { COL_TOKENS, COL_LOGPROBS, COL_TOPS, COL_OFFSETS } column;

/* Where text s of a token lies in the given one, at *at or behind it. Tokens are its next bytes,
 * but for what encoding adds and eats: a begin token (no text), a space in front (SentencePiece),
 * blanks beside a special token. What the tokenizer spells otherwise counts as it spells it. */
static cp_str find_given(cp_str given, size_t *at, cp_str s, bool special, bool after_special)
{
    for (size_t i = *at; s.n > 0 && i < given.n; i++) {
        size_t left = given.n - i, space = s.p[0] == ' ';
        if (left >= s.n && memcmp(given.p + i, s.p, s.n) == 0) {
            *at = i;
            return s;
        }
        if (space && left >= s.n - 1 && memcmp(given.p + i, s.p + 1, s.n - 1) == 0) {
            *at = i;
            return (cp_str){s.p + 1, s.n - 1};
        }
        bool blank = given.p[i] == ' ' || (given.p[i] >= '\t' && given.p[i] <= '\r');
        if (!blank || !(special || after_special))
            break;
    }
    return special ? (cp_str){"", 0} : s;
}

/* The prompt's offsets, in the text that it was given as, or in that of its ids. */
static void emit_prompt_offsets(const cp_call *c, const cp_part *p, cp_buf *b)
{
    const cp_tokenizer *t = c->m->tokenizer;
    cp_str given = c->p.prompts[p - c->parts].text;
    cp_buf text = {0};
    cp_detok d;
    cp_detok_init(&d, t, true, !given.p && c->p.skip_special);
    size_t chr = 0, at = 0;
    bool after_special = false;
    for (int i = 0; i < p->r.n_prompt; i++) {
        int32_t id = p->r.prompt[i];
        bool special = cp_tokenizer_is_special(t, id);
        bool added = given.p && i == 0 && c->p.add_special && cp_tokenizer_add_bos(t);
        cp_buf_clear(&text);
        d.broke = false;
        if (!added)
            cp_detok_push(&d, id, &text);
        cp_str s = {text.n > 0 ? text.p : "", text.n};
        if (given.p) {
            size_t from = at;
            s = find_given(given, &at, s, special, after_special);
            chr += cp_utf8_count(given.p + from, at - from);
            at += s.n < given.n - at ? s.n : given.n - at;
        }
        size_t begin = chr + d.broke;
        if (i > 0)
            cp_buf_addc(b, ',');
        cp_emit_int(b, (int64_t)(begin < p->prompt_chr ? begin : p->prompt_chr));
        chr += cp_utf8_count(s.p, s.n);
        after_special = special;
    }
    cp_buf_fini(&text);
}

static void emit_prompt_column(const cp_call *c, const cp_part *p, column col, cp_buf *b)
{
    if (col == COL_OFFSETS) {
        emit_prompt_offsets(c, p, b);
        return;
    }
    size_t at = 0;
    for (int i = 0; i < p->r.n_prompt; i++) {
        const cp_logprob_record *r = NULL;
        if (i > 0 && at < p->prompt_records.n)
            r = cp_record_at(&p->prompt_records, at, &at);
        if (i > 0)
            cp_buf_addc(b, ',');
        if (col == COL_TOKENS)
            emit_piece(c, b, p->r.prompt[i]);
        else if (!r)
            cp_buf_adds(b, "null");
        else if (col == COL_LOGPROBS)
            cp_emit_logprob(b, r->logprob);
        else
            emit_tops(c, b, r);
    }
}

static void emit_lists(const cp_call *c, const cp_part *p, cp_buf *b, cp_records s, bool prompt)
{
    static const char *const names[] = {"{\"tokens\":[", "],\"token_logprobs\":[",
                                        "],\"top_logprobs\":[", "],\"text_offset\":["};
    size_t base = c->p.echo ? p->prompt_chr : 0;
    for (column col = COL_TOKENS; col <= COL_OFFSETS; col++) {
        cp_buf_adds(b, names[col]);
        if (prompt)
            emit_prompt_column(c, p, col, b);
        for (size_t at = s.from, next; at < s.to; at = next) {
            const cp_logprob_record *r = cp_record_at(s.b, at, &next);
            if (at > s.from || (prompt && p->r.n_prompt > 0))
                cp_buf_addc(b, ',');
            if (col == COL_TOKENS)
                emit_piece(c, b, r->id);
            else if (col == COL_LOGPROBS)
                cp_emit_logprob(b, r->logprob);
            else if (col == COL_TOPS)
                emit_tops(c, b, r);
            else
                cp_emit_int(b, (int64_t)(base + r->start_chr));
        }
    }
    cp_buf_adds(b, "]}");
}

static void emit_logprobs(const cp_call *c, const cp_part *p, cp_buf *b, cp_records s, bool prompt)
{
    cp_buf_adds(b, ",\"logprobs\":");
    if (c->p.n_top < 0 || (s.from == s.to && !prompt))
        cp_buf_adds(b, "null");
    else
        emit_lists(c, p, b, s, prompt);
}

/* ---- answers ---- */

static void begin(cp_call *c)
{
    cp_openai_begin(c, "text_completion");
}

static void event(cp_call *c, cp_part *p, int index, const cp_said *said, cp_buf *out)
{
    cp_choice *ch = &c->choices[index];
    if (!ch->begun && c->p.echo) {
        cp_openai_chunk(c, index, out);
        cp_buf_adds(out, ",\"text\":");
        cp_emit_str(out, p->prompt_text.p, p->prompt_text.n);
        emit_logprobs(c, p, out, (cp_records){0}, true);
        cp_openai_chunk_end(c, p, 0, NULL, out);
    }
    ch->begun = true;
    cp_openai_chunk(c, index, out);
    bool last = said->kind == CP_SAID_FINISH;
    CP_ASSERT(last || said->kind == CP_SAID_CONTENT);
    cp_buf_adds(out, ",\"text\":");
    cp_emit_str(out, said->text, said->n);
    emit_logprobs(c, p, out, cp_records_take(ch), false);
    cp_openai_chunk_end(c, p, ch->n_tokens, last ? cp_openai_finish(ch->finish) : NULL, out);
}

static void whole_choice(cp_call *c, cp_part *p, int index, cp_buf *out)
{
    cp_choice *ch = &c->choices[index];
    cp_buf_adds(out, "{\"index\":");
    cp_emit_int(out, index);
    cp_buf_adds(out, ",\"text\":\"");
    if (c->p.echo)
        cp_emit_chars(out, p->prompt_text.p, p->prompt_text.n);
    cp_emit_chars(out, ch->shown.p ? ch->shown.p : "", ch->shown.n);
    cp_buf_adds(out, "\",\"logprobs\":");
    cp_records s = cp_records_take(ch);
    if (c->p.n_top >= 0) /* lists, if empty ones */
        emit_lists(c, p, out, s, c->p.echo);
    else
        cp_buf_adds(out, "null");
    cp_buf_printf(out, ",\"finish_reason\":\"%s\"}", cp_openai_finish(ch->finish));
}

static void whole(cp_call *c, cp_buf *out)
{
    cp_openai_whole(c, "text_completion", whole_choice, out);
}

static const char *const texts[] = {"prompt", "model", "stop", "cache_salt", NULL};

const cp_api cp_api_text = {
    .name = "completions",
    .fields = &cp_fields_openai,
    .at = CP_AT_TEXT,
    .texts = texts,
    .parse = parse,
    .prompt_field = "prompt",
    .id_prefix = "cmpl-",
    .operation = "text_completion",
    .top_field = "logprobs",
    .max_tokens = 16,
    .token_bytes = 80,
    .top_bytes = 40,
    .stream_type = "text/event-stream",
    .begin = begin,
    .event = event,
    .end = cp_openai_end,
    .whole = whole,
    .error = cp_openai_error,
};
