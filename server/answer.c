/*
 * Text, log-probabilities and usage of a call as OpenAI's JSON: whole, or as the chunks of a
 * stream. One chunk a token that shows text: the first of a chat choice carries the role, the last
 * an empty delta and the finish reason. Log-probabilities travel with the text that their tokens
 * made; those of tokens behind a stop string are left out.
 */
#include "server/internal.h"

#include <string.h>

static bool is_chat(const cp_call *c)
{
    return c->route->where == CP_AT_CHAT;
}

/* ---- log-probabilities ---- */

/* Which records of a buffer: bytes [from, to). */
typedef struct span {
    const cp_buf *b;
    size_t from, to;
} span;

static const cp_logprob_record *record_at(const cp_buf *b, size_t at, size_t *next)
{
    const cp_logprob_record *r = (const cp_logprob_record *)(const void *)(b->p + at);
    *next = at + sizeof(*r) + r->n_top * sizeof(struct cp_event_top);
    return r;
}

static const struct cp_event_top *tops(const cp_logprob_record *r)
{
    return (const struct cp_event_top *)(const void *)(r + 1);
}

/* Records whose text has been shown; all of them once the choice is closed and nothing was cut. */
static span take_records(cp_choice *ch)
{
    span s = {&ch->records, ch->records_at, ch->records_at};
    while (s.to < ch->records.n) {
        size_t next;
        const cp_logprob_record *r = record_at(&ch->records, s.to, &next);
        if (r->start >= ch->n_shown && !(ch->closed && !ch->cut))
            break;
        s.to = next;
    }
    ch->records_at = s.to;
    return s;
}

static cp_str piece_of(const cp_call *c, int32_t id)
{
    cp_str s = {"", 0};
    if (id >= 0 && id < cp_tokenizer_size(c->m->tokenizer))
        s = cp_tokenizer_piece(c->m->tokenizer, id);
    return s;
}

/* The legacy object names a token by a string alone. */
static void emit_piece(const cp_call *c, cp_buf *b, int32_t id)
{
    cp_str s = piece_of(c, id);
    cp_emit_token(b, s.p, s.n);
}

static void emit_chat_token(cp_buf *b, cp_str s, float logprob)
{
    cp_buf_adds(b, "{\"token\":");
    cp_emit_str(b, s.p, s.n);
    cp_buf_adds(b, ",\"logprob\":");
    cp_emit_logprob(b, logprob);
    cp_buf_adds(b, ",\"bytes\":");
    cp_emit_bytes(b, s.p, s.n);
}

static void emit_chat_logprobs(const cp_call *c, cp_buf *b, span s)
{
    cp_buf_adds(b, "{\"content\":[");
    for (size_t at = s.from, next; at < s.to; at = next) {
        const cp_logprob_record *r = record_at(s.b, at, &next);
        if (at > s.from)
            cp_buf_addc(b, ',');
        emit_chat_token(b, piece_of(c, r->id), r->logprob);
        cp_buf_adds(b, ",\"top_logprobs\":[");
        for (uint32_t i = 0; i < r->n_top; i++) {
            if (i > 0)
                cp_buf_addc(b, ',');
            emit_chat_token(b, piece_of(c, tops(r)[i].id), tops(r)[i].logprob);
            cp_buf_addc(b, '}');
        }
        cp_buf_adds(b, "]}");
    }
    cp_buf_adds(b, "],\"refusal\":null}");
}

/* The sampled token is always among the alternatives, so there may be one more than asked for. */
static void emit_legacy_tops(const cp_call *c, cp_buf *b, const cp_logprob_record *r)
{
    bool has = false;
    cp_buf_addc(b, '{');
    for (uint32_t i = 0; i < r->n_top; i++) {
        if (i > 0)
            cp_buf_addc(b, ',');
        emit_piece(c, b, tops(r)[i].id);
        cp_buf_addc(b, ':');
        cp_emit_logprob(b, tops(r)[i].logprob);
        has = has || tops(r)[i].id == r->id;
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
            r = record_at(&p->prompt_records, at, &at);
        if (i > 0)
            cp_buf_addc(b, ',');
        if (col == COL_TOKENS)
            emit_piece(c, b, p->r.prompt[i]);
        else if (!r)
            cp_buf_adds(b, "null");
        else if (col == COL_LOGPROBS)
            cp_emit_logprob(b, r->logprob);
        else
            emit_legacy_tops(c, b, r);
    }
}

static void emit_legacy_logprobs(const cp_call *c, const cp_part *p, cp_buf *b, span s, bool prompt)
{
    static const char *const names[] = {"{\"tokens\":[", "],\"token_logprobs\":[",
                                        "],\"top_logprobs\":[", "],\"text_offset\":["};
    size_t base = c->p.echo ? p->prompt_chr : 0;
    for (column col = COL_TOKENS; col <= COL_OFFSETS; col++) {
        cp_buf_adds(b, names[col]);
        if (prompt)
            emit_prompt_column(c, p, col, b);
        for (size_t at = s.from, next; at < s.to; at = next) {
            const cp_logprob_record *r = record_at(s.b, at, &next);
            if (at > s.from || (prompt && p->r.n_prompt > 0))
                cp_buf_addc(b, ',');
            if (col == COL_TOKENS)
                emit_piece(c, b, r->id);
            else if (col == COL_LOGPROBS)
                cp_emit_logprob(b, r->logprob);
            else if (col == COL_TOPS)
                emit_legacy_tops(c, b, r);
            else
                cp_emit_int(b, (int64_t)(base + r->start_chr));
        }
    }
    cp_buf_adds(b, "]}");
}

static bool wants_logprobs(const cp_call *c)
{
    return is_chat(c) ? c->p.want_logprobs : c->p.logprobs >= 0;
}

static void emit_logprobs(const cp_call *c, const cp_part *p, cp_buf *b, span s, bool prompt)
{
    if (!wants_logprobs(c) || (s.from == s.to && !prompt))
        cp_buf_adds(b, "null");
    else if (is_chat(c))
        emit_chat_logprobs(c, b, s);
    else
        emit_legacy_logprobs(c, p, b, s, prompt);
}

/* ---- usage ---- */

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

/* {"id":...,"object":...,"created":...,"model":...,"system_fingerprint":...,"choices":[ */
static void emit_head(const cp_call *c, cp_buf *b, const char *object)
{
    cp_buf_printf(b, "{\"id\":\"%s\",\"object\":\"%s\",\"created\":%lld,\"model\":", c->id, object,
                  (long long)c->created);
    cp_emit_str(b, c->m->ids[0], strlen(c->m->ids[0]));
    cp_buf_adds(b, ",\"system_fingerprint\":");
    cp_emit_str(b, c->m->fingerprint, strlen(c->m->fingerprint));
    cp_buf_adds(b, ",\"choices\":[");
}

/* ---- streams ---- */

void cp_answer_prepare(cp_call *c)
{
    if (!c->streaming)
        return;
    cp_buf_adds(&c->chunk_head, "data: ");
    emit_head(c, &c->chunk_head, is_chat(c) ? "chat.completion.chunk" : "text_completion");
    cp_buf_adds(&c->chunk_head, "{\"index\":");
}

static void chunk_begin(const cp_call *c, int index, cp_buf *b)
{
    cp_buf_add(b, c->chunk_head.p, c->chunk_head.n);
    cp_emit_int(b, index);
}

/* n_tokens: of this choice so far, for clients that want to know it with every chunk. */
static void chunk_finish(const cp_call *c, const cp_part *p, int n_tokens, const char *reason,
                         cp_buf *b)
{
    if (reason)
        cp_buf_printf(b, ",\"finish_reason\":\"%s\"}]", reason);
    else
        cp_buf_adds(b, ",\"finish_reason\":null}]");
    if (c->p.continuous_usage)
        cp_buf_printf(b,
                      ",\"usage\":{\"prompt_tokens\":%d,\"completion_tokens\":%d,"
                      "\"total_tokens\":%d}}\n\n",
                      p->r.n_prompt, n_tokens, p->r.n_prompt + n_tokens);
    else
        cp_buf_adds(b, c->p.include_usage ? ",\"usage\":null}\n\n" : "}\n\n");
}

void cp_answer_chunk(cp_call *c, cp_part *p, int index, bool last, cp_buf *out)
{
    cp_choice *ch = &c->choices[index];
    const span none = {NULL, 0, 0};
    bool chat = is_chat(c);
    if (!ch->begun) {
        ch->begun = true;
        if (chat) {
            chunk_begin(c, index, out);
            cp_buf_adds(out, ",\"delta\":{\"role\":\"assistant\",\"content\":\"\","
                             "\"refusal\":null},\"logprobs\":null");
            chunk_finish(c, p, 0, NULL, out);
        } else if (c->p.echo) {
            chunk_begin(c, index, out);
            cp_buf_adds(out, ",\"text\":");
            cp_emit_str(out, p->prompt_text.p, p->prompt_text.n);
            cp_buf_adds(out, ",\"logprobs\":");
            emit_logprobs(c, p, out, none, true);
            chunk_finish(c, p, 0, NULL, out);
        }
    }
    if (ch->text.n > 0) {
        chunk_begin(c, index, out);
        cp_buf_adds(out, chat ? ",\"delta\":{\"content\":" : ",\"text\":");
        cp_emit_str(out, ch->text.p, ch->text.n);
        cp_buf_adds(out, chat ? "},\"logprobs\":" : ",\"logprobs\":");
        emit_logprobs(c, p, out, take_records(ch), false);
        chunk_finish(c, p, ch->n_tokens, NULL, out);
        cp_buf_clear(&ch->text);
    }
    if (last) {
        chunk_begin(c, index, out);
        cp_buf_adds(out, chat ? ",\"delta\":{},\"logprobs\":" : ",\"text\":\"\",\"logprobs\":");
        emit_logprobs(c, p, out, take_records(ch), false);
        chunk_finish(c, p, ch->n_tokens, ch->finish, out);
    }
    if (ch->records_at == ch->records.n) {
        cp_buf_clear(&ch->records);
        ch->records_at = 0;
    }
}

void cp_answer_stream_end(cp_call *c, cp_buf *out)
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

/* ---- whole answers ---- */

static void emit_choice(cp_call *c, cp_part *p, int index, cp_buf *b)
{
    cp_choice *ch = &c->choices[index];
    const char *text = ch->text.p ? ch->text.p : "";
    cp_buf_adds(b, "{\"index\":");
    cp_emit_int(b, index);
    if (is_chat(c)) {
        cp_buf_adds(b, ",\"message\":{\"role\":\"assistant\",\"content\":");
        cp_emit_str(b, text, ch->text.n);
        cp_buf_adds(b, ",\"refusal\":null}");
    } else {
        cp_buf_adds(b, ",\"text\":\"");
        if (c->p.echo)
            cp_emit_chars(b, p->prompt_text.p, p->prompt_text.n);
        cp_emit_chars(b, text, ch->text.n);
        cp_buf_addc(b, '"');
    }
    cp_buf_adds(b, ",\"logprobs\":");
    span s = take_records(ch);
    if (wants_logprobs(c) && is_chat(c))
        emit_chat_logprobs(c, b, s);
    else if (wants_logprobs(c))
        emit_legacy_logprobs(c, p, b, s, c->p.echo);
    else
        cp_buf_adds(b, "null");
    cp_buf_printf(b, ",\"finish_reason\":\"%s\"}", ch->finish);
}

void cp_answer_whole(cp_call *c, cp_buf *out)
{
    emit_head(c, out, is_chat(c) ? "chat.completion" : "text_completion");
    for (int i = 0; i < c->n_parts; i++) {
        cp_part *p = &c->parts[i];
        for (int k = 0; k < p->r.n; k++) {
            if (p->first + k > 0)
                cp_buf_addc(out, ',');
            emit_choice(c, p, p->first + k, out);
        }
    }
    cp_buf_adds(out, "],\"usage\":");
    emit_usage(c, out);
    cp_buf_addc(out, '}');
}
