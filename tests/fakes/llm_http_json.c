/* Heads and bodies of requests for the fake server. */
#include "tests/fakes/llm_http.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* The value of a header in [p, end), or NULL; *n its length. */
static const char *header(const char *p, const char *end, const char *name, size_t *n)
{
    size_t len = strlen(name);
    while (p < end) {
        const char *eol = memmem(p, (size_t)(end - p), "\r\n", 2);
        if (!eol)
            eol = end;
        if ((size_t)(eol - p) > len && p[len] == ':' && strncasecmp(p, name, len) == 0) {
            p += len + 1;
            while (p < eol && *p == ' ')
                p++;
            *n = (size_t)(eol - p);
            return p;
        }
        p = eol + 2;
    }
    return NULL;
}

static bool copy(char *dst, size_t cap, const char *p, size_t n)
{
    if (n >= cap)
        return false;
    memcpy(dst, p, n);
    dst[n] = '\0';
    return true;
}

static bool parse_line(const char *p, const char *eol, fake_head *h)
{
    const char *sp = memchr(p, ' ', (size_t)(eol - p));
    if (!sp || !copy(h->method, sizeof(h->method), p, (size_t)(sp - p)))
        return false;
    const char *path = sp + 1, *end = memchr(path, ' ', (size_t)(eol - path));
    if (!end)
        return false;
    const char *query = memchr(path, '?', (size_t)(end - path));
    return copy(h->path, sizeof(h->path), path, (size_t)((query ? query : end) - path));
}

fake_parse fake_parse_head(const char *p, size_t n, fake_head *h)
{
    const char *end = memmem(p, n, "\r\n\r\n", 4);
    if (!end)
        return n > FAKE_HEAD ? FAKE_BAD : FAKE_MORE;
    *h = (fake_head){.head_bytes = (size_t)(end - p) + 4};
    const char *eol = memmem(p, n, "\r\n", 2), *v;
    size_t len;
    if (h->head_bytes > FAKE_HEAD || !parse_line(p, eol, h))
        return FAKE_BAD;
    const char *from = eol + 2;
    if (from < end && header(from, end, "Transfer-Encoding", &len))
        return FAKE_BAD; /* clients of completions send a length */
    if (from < end && (v = header(from, end, "Content-Length", &len))) {
        char text[16], *stop;
        if (!copy(text, sizeof(text), v, len))
            return FAKE_BAD;
        h->body_bytes = strtoul(text, &stop, 10);
        if (*stop != '\0' || h->body_bytes > FAKE_BODY)
            return FAKE_BAD;
    }
    if (from < end && (v = header(from, end, "Authorization", &len)) && len > 7 &&
        strncasecmp(v, "Bearer ", 7) == 0 && !copy(h->key, sizeof(h->key), v + 7, len - 7))
        return FAKE_BAD;
    v = from < end ? header(from, end, "Connection", &len) : NULL;
    h->close = v && len == 5 && strncasecmp(v, "close", 5) == 0;
    return FAKE_READY;
}

static int words(const char *s)
{
    int n = 0;
    for (bool in = false; *s; s++) {
        bool space = *s == ' ' || *s == '\n' || *s == '\t';
        n += !space && !in;
        in = !space;
    }
    return n;
}

static int prompt_words(const json_t *body)
{
    const json_t *content = json_object_get(body, "content"); /* of /tokenize */
    const json_t *prompt = content ? content : json_object_get(body, "prompt"), *messages, *row;
    size_t i;
    int n = 0;
    if (json_is_string(prompt))
        return words(json_string_value(prompt));
    if (json_is_array(prompt))
        return (int)json_array_size(prompt);
    messages = json_object_get(body, "messages");
    json_array_foreach(messages, i, row)
    {
        const char *s = json_string_value(json_object_get(row, "content"));
        n += s ? words(s) : 0;
    }
    return n;
}

bool fake_parse_body(const char *p, size_t n, fake_body *b)
{
    json_t *body = json_loadb(p, n, 0, NULL);
    *b = (fake_body){0};
    if (!json_is_object(body)) {
        json_decref(body);
        return false;
    }
    b->stream = json_is_true(json_object_get(body, "stream"));
    b->usage =
        json_is_true(json_object_get(json_object_get(body, "stream_options"), "include_usage"));
    const json_t *max = json_object_get(body, "max_completion_tokens");
    json_int_t v = json_integer_value(max ? max : json_object_get(body, "max_tokens"));
    b->max_tokens = v < 0 ? 0 : v > 1000000 ? 1000000 : (int)v;
    b->prompt_tokens = prompt_words(body);
    json_decref(body);
    return true;
}
