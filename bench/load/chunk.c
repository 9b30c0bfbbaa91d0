/*
 * A walk over JSON that knows its place: in each object of interest a table says what its keys are,
 * everything else is skipped. Numbers and words are not checked to the letter: what is read here
 * was measured, and is not kept.
 */
#include "bench/load/chunk.h"

#include <string.h>

enum { DEPTH_MAX = 32 };

typedef enum place { ELSEWHERE, ROOT, CHOICES, DELTA, CALLS, USAGE, DETAILS, FAULT } place;

/* What a key's value is good for. */
typedef enum meaning {
    NO_USE,
    INTO,
    ANSWER,
    TOKENS,
    FINISH,
    MESSAGE,
    PROMPT,
    COMPLETION,
    CACHED
} meaning;

typedef struct key_row {
    place in;
    const char *key;
    meaning use;
    place to; /* of INTO */
} key_row;

static const key_row keys[] = {
    {ROOT, "choices", INTO, CHOICES},
    {ROOT, "usage", INTO, USAGE},
    {ROOT, "error", INTO, FAULT},
    {CHOICES, "delta", INTO, DELTA},
    {CHOICES, "text", ANSWER, ELSEWHERE},
    {CHOICES, "finish_reason", FINISH, ELSEWHERE},
    {DELTA, "content", ANSWER, ELSEWHERE},
    {DELTA, "reasoning_content", TOKENS, ELSEWHERE},
    {DELTA, "reasoning", TOKENS, ELSEWHERE},
    {DELTA, "refusal", TOKENS, ELSEWHERE},
    {DELTA, "tool_calls", INTO, CALLS},
    {USAGE, "prompt_tokens", PROMPT, ELSEWHERE},
    {USAGE, "completion_tokens", COMPLETION, ELSEWHERE},
    {USAGE, "prompt_tokens_details", INTO, DETAILS},
    {DETAILS, "cached_tokens", CACHED, ELSEWHERE},
    {FAULT, "message", MESSAGE, ELSEWHERE},
};

typedef struct walk {
    const char *p, *end;
    cp_load_chunk *out;
} walk;

static bool value(walk *w, place at, meaning use, int depth);

static void blanks(walk *w)
{
    while (w->p < w->end && (*w->p == ' ' || *w->p == '\t' || *w->p == '\n' || *w->p == '\r'))
        w->p++;
}

static bool take(walk *w, char c)
{
    blanks(w);
    if (w->p == w->end || *w->p != c)
        return false;
    w->p++;
    return true;
}

/* A string behind its first quote. */
static bool string(walk *w, cp_load_text *out)
{
    out->p = w->p;
    while (w->p < w->end && *w->p != '"')
        w->p += *w->p == '\\' && w->end - w->p > 1 ? 2 : 1;
    if (w->p == w->end)
        return false;
    out->n = (size_t)(w->p - out->p);
    w->p++;
    return true;
}

static const key_row *row_of(place in, const cp_load_text *key)
{
    for (size_t i = 0; in != ELSEWHERE && i < sizeof(keys) / sizeof(keys[0]); i++) {
        if (keys[i].in == in && strlen(keys[i].key) == key->n &&
            memcmp(keys[i].key, key->p, key->n) == 0)
            return &keys[i];
    }
    return NULL;
}

static bool object(walk *w, place at, int depth)
{
    if (take(w, '}'))
        return true;
    do {
        cp_load_text key;
        if (!take(w, '"') || !string(w, &key) || !take(w, ':'))
            return false;
        const key_row *row = row_of(at, &key);
        if (!value(w, row ? row->to : ELSEWHERE, row ? row->use : NO_USE, depth))
            return false;
    } while (take(w, ','));
    return take(w, '}');
}

static bool array(walk *w, place at, int depth)
{
    if (take(w, ']'))
        return true;
    do {
        if (!value(w, at, INTO, depth))
            return false;
    } while (take(w, ','));
    return take(w, ']');
}

static void use_string(cp_load_chunk *c, meaning use, place at, cp_load_text s)
{
    if ((use == ANSWER || use == TOKENS) && s.n)
        c->content = true;
    if (use == ANSWER && s.n)
        c->answer = s;
    if (use == FINISH)
        c->finished = true;
    if (use == MESSAGE || (use == INTO && at == FAULT)) {
        c->error = true;
        c->message = s;
    }
}

static void use_number(cp_load_chunk *c, meaning use, const char *p, const char *end)
{
    uint64_t v = 0;
    while (p < end && *p >= '0' && *p <= '9' && v < UINT32_MAX)
        v = v * 10 + (uint64_t)(*p++ - '0');
    v = v > UINT32_MAX ? UINT32_MAX : v;
    if (use == PROMPT)
        c->prompt_tokens = v;
    else if (use == COMPLETION)
        c->completion_tokens = v;
    else if (use == CACHED)
        c->cached_tokens = v;
}

/* What an object or array at this place means by being there. */
static void use_opening(cp_load_chunk *c, place at, bool is_object)
{
    if (at == CHOICES && is_object)
        c->choice = true;
    else if (at == CALLS && is_object)
        c->content = true;
    else if (at == USAGE && is_object)
        c->usage = true;
    else if (at == FAULT && is_object)
        c->error = true;
}

static bool value(walk *w, place at, meaning use, int depth)
{
    blanks(w);
    if (w->p == w->end || depth > DEPTH_MAX)
        return false;
    char c = *w->p;
    cp_load_text s;
    if (c == '"') {
        w->p++;
        if (!string(w, &s))
            return false;
        use_string(w->out, use, at, s);
        return true;
    }
    if (c == '{' || c == '[') {
        place to = use == INTO ? at : ELSEWHERE;
        w->p++;
        use_opening(w->out, to, c == '{');
        /* inside a tool call nothing is asked for any more */
        return c == '{' ? object(w, to == CALLS ? ELSEWHERE : to, depth + 1)
                        : array(w, to, depth + 1);
    }
    const char *begin = w->p;
    while (w->p < w->end && ((*w->p >= '0' && *w->p <= '9') || (*w->p >= 'a' && *w->p <= 'z') ||
                             *w->p == '-' || *w->p == '+' || *w->p == '.' || *w->p == 'E'))
        w->p++;
    if (w->p == begin)
        return false;
    use_number(w->out, use, begin, w->p);
    return true;
}

bool cp_load_chunk_read(const char *p, size_t n, cp_load_chunk *out)
{
    *out = (cp_load_chunk){0};
    walk w = {p, p + n, out};
    if (!take(&w, '{') || !object(&w, ROOT, 1))
        return false;
    blanks(&w);
    return w.p == w.end;
}
