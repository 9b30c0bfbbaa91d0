/* An answer's events into times and counts, and what its end means. */
#include "bench/load/stream.h"

#include "base/utf8.h"
#include "bench/load/chunk.h"

#include <stdlib.h>
#include <string.h>

void cp_load_stream_begin(cp_load_stream *s, bool keep_answer, cp_load_token_fn *token, void *arg)
{
    cp_load_stream kept = {.gaps = s->gaps,
                           .cap_gaps = s->cap_gaps,
                           .answer = s->answer,
                           .body = s->body,
                           .sse = s->sse,
                           .keep = keep_answer,
                           .token = token,
                           .arg = arg};
    *s = kept;
    cp_buf_clear(&s->answer);
    cp_buf_clear(&s->body);
    s->answer.max = CP_LOAD_ANSWER_MAX;
    cp_load_sse_reset(&s->sse);
}

void cp_load_stream_fini(cp_load_stream *s)
{
    free(s->gaps);
    cp_buf_fini(&s->answer);
    cp_buf_fini(&s->body);
    cp_load_sse_fini(&s->sse);
    *s = (cp_load_stream){0};
}

/* Text of a server for a person: one line, no control characters, whole UTF-8. */
static void say(cp_load_stream *s, const char *p, size_t n)
{
    n = n < sizeof(s->why) - 1 ? n : sizeof(s->why) - 1;
    n = cp_utf8_valid_n(p, n);
    memcpy(s->why, p, n);
    s->why[n] = '\0';
    cp_printable(s->why);
}

static void add_gap(cp_load_stream *s, int64_t gap_ns)
{
    s->gaps_ns += (double)gap_ns;
    if (s->n_gaps == s->cap_gaps) {
        if (s->n_gaps >= CP_LOAD_GAPS_MAX)
            return;
        s->cap_gaps = s->cap_gaps ? 2 * s->cap_gaps : 128;
        s->gaps = cp_xrealloc(s->gaps, s->cap_gaps * sizeof(*s->gaps));
    }
    s->gaps[s->n_gaps++] = (uint32_t)(gap_ns < 4000000000000 ? gap_ns / 1000 : 4000000000);
}

static void take_content(cp_load_stream *s, const cp_load_chunk *c)
{
    int64_t gap = s->chunks ? s->now_ns - s->last_ns : -1;
    if (gap >= 0)
        add_gap(s, gap);
    else
        s->first_ns = s->now_ns;
    s->last_ns = s->now_ns;
    s->chunks++;
    if (s->keep && c->answer.p)
        (void)cp_buf_add(&s->answer, c->answer.p, c->answer.n);
    if (s->token)
        s->token(s->arg, s->now_ns, gap);
}

/* An event that lacks its end counts only where it is the last one that there can be. */
static void take_last(void *arg, const char *event, const char *data, size_t n)
{
    (void)event;
    cp_load_stream *s = arg;
    s->done = s->done || (n == 6 && memcmp(data, "[DONE]", 6) == 0);
}

static void take_event(void *arg, const char *event, const char *data, size_t n)
{
    cp_load_stream *s = arg;
    cp_load_chunk c;
    if (n == 6 && memcmp(data, "[DONE]", 6) == 0) {
        s->done = true;
        return;
    }
    bool json = cp_load_chunk_read(data, n, &c);
    if (!json || c.error || strcmp(event, "error") == 0) {
        if (!s->error)
            say(s, json && c.message.p ? c.message.p : data, json && c.message.p ? c.message.n : n);
        s->error = true;
        return;
    }
    if (c.usage) {
        s->usage = true;
        s->prompt_tokens = c.prompt_tokens;
        s->completion_tokens = c.completion_tokens;
        s->cached_tokens = c.cached_tokens;
    }
    if (c.choice)
        s->end_ns = s->now_ns;
    if (c.content)
        take_content(s, &c);
    s->finished = s->finished || c.finished;
}

bool cp_load_stream_feed(cp_load_stream *s, int status, bool events, const char *p, size_t n,
                         int64_t now_ns)
{
    s->now_ns = now_ns;
    if (status == 200 && events)
        return cp_load_sse_feed(&s->sse, p, n, take_event, s);
    size_t room = CP_LOAD_ERROR_BODY_MAX - s->body.n;
    cp_buf_add(&s->body, p, n < room ? n : room);
    return n <= room;
}

/* The message of an error's body, else the body's beginning. */
static void say_body(cp_load_stream *s)
{
    cp_load_chunk c;
    const char *p = s->body.p ? s->body.p : "";
    if (cp_load_chunk_read(p, s->body.n, &c) && c.message.p)
        say(s, c.message.p, c.message.n);
    else
        say(s, p, s->body.n);
}

static cp_load_outcome outcome_of_status(cp_load_stream *s, int status)
{
    say_body(s);
    if (status == 429 || status == 503 || status == 529)
        return CP_LOAD_REFUSED;
    if (status == 200 && !s->error)
        say(s, "the answer is no event stream", 29);
    return CP_LOAD_ERROR;
}

cp_load_outcome cp_load_stream_end(cp_load_stream *s, int status, cp_load_ending ending,
                                   const char *problem)
{
    bool stream = status == 200 && s->body.n == 0;
    if (stream)
        cp_load_sse_end(&s->sse, take_last, s);
    if (stream && s->error)
        return CP_LOAD_ERROR;
    if (stream && s->done) /* what comes behind it is nobody's */
        return CP_LOAD_OK;
    if (ending == CP_LOAD_CALLED_OFF)
        return CP_LOAD_CANCELLED;
    if (status != 0 && !stream)
        return outcome_of_status(s, status);
    if (ending == CP_LOAD_WHOLE && s->finished)
        return CP_LOAD_OK;
    say(s, problem, strlen(problem));
    if (ending == CP_LOAD_OVERDUE)
        return CP_LOAD_TIMEOUT;
    if (ending == CP_LOAD_TOO_MUCH)
        return CP_LOAD_ERROR;
    if (status == 0)
        return CP_LOAD_UNREACHED;
    if (ending == CP_LOAD_WHOLE)
        say(s, "the stream ended without [DONE] or a finish_reason", 50);
    return CP_LOAD_CUT;
}
