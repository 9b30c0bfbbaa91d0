/* Lines are taken where they lie when they came in one piece, else collected first. */
#include "bench/load/sse.h"

#include <string.h>

enum { KEPT = 16 << 10 };

static bool dispatch(cp_load_sse *s, cp_load_sse_fn *fn, void *arg)
{
    bool ok = !s->data.failed;
    if (ok && s->some)
        fn(arg, s->event, s->data.p ? s->data.p : "", s->data.n);
    cp_buf_clear(&s->data);
    s->event[0] = '\0';
    s->some = false;
    return ok;
}

/* A whole line without its end. */
static bool take_line(cp_load_sse *s, const char *p, size_t n, cp_load_sse_fn *fn, void *arg)
{
    if (n == 0)
        return dispatch(s, fn, arg);
    const char *colon = memchr(p, ':', n);
    size_t name = colon ? (size_t)(colon - p) : n, at = colon ? name + 1 : n;
    at += at < n && p[at] == ' ';
    if (name == 4 && memcmp(p, "data", 4) == 0) {
        s->data.max = CP_LOAD_EVENT_MAX;
        if (s->some)
            cp_buf_addc(&s->data, '\n');
        s->some = true;
        return cp_buf_add(&s->data, p + at, n - at);
    }
    if (name == 5 && memcmp(p, "event", 5) == 0)
        cp_snprintf(s->event, sizeof(s->event), "%.*s", (int)(n - at < 31 ? n - at : 31), p + at);
    return true; /* id, retry, comments and what nobody knows */
}

bool cp_load_sse_feed(cp_load_sse *s, const char *p, size_t n, cp_load_sse_fn *fn, void *arg)
{
    static const char bom[] = "\xEF\xBB\xBF";
    s->line.max = CP_LOAD_EVENT_MAX;
    for (size_t i = 0; i < n;) {
        if (s->cr && p[i] == '\n') { /* the other half of a CRLF */
            s->cr = false;
            i++;
            continue;
        }
        s->cr = false;
        const char *lf = memchr(p + i, '\n', n - i);
        size_t end = lf ? (size_t)(lf - p) : n;
        const char *cr = memchr(p + i, '\r', end - i);
        end = cr ? (size_t)(cr - p) : end;
        bool whole = end < n;
        const char *line = p + i;
        size_t len = end - i;
        if (s->line.n || !whole) {
            if (!cp_buf_add(&s->line, line, len))
                return false;
            line = s->line.p;
            len = s->line.n;
        }
        if (!whole)
            return true;
        s->cr = p[end] == '\r';
        i = end + 1;
        size_t skip = !s->begun && len >= 3 && memcmp(line, bom, 3) == 0 ? 3 : 0;
        s->begun = true;
        if (!take_line(s, line + skip, len - skip, fn, arg))
            return false;
        cp_buf_clear(&s->line);
    }
    return true;
}

void cp_load_sse_end(cp_load_sse *s, cp_load_sse_fn *fn, void *arg)
{
    if (s->line.n)
        (void)take_line(s, s->line.p, s->line.n, fn, arg);
    (void)dispatch(s, fn, arg);
}

static void reset_buf(cp_buf *b)
{
    if (b->cap > KEPT)
        cp_buf_fini(b);
    else
        cp_buf_clear(b);
}

void cp_load_sse_reset(cp_load_sse *s)
{
    reset_buf(&s->line);
    reset_buf(&s->data);
    s->event[0] = '\0';
    s->begun = s->cr = s->some = false;
}

void cp_load_sse_fini(cp_load_sse *s)
{
    cp_buf_fini(&s->line);
    cp_buf_fini(&s->data);
    *s = (cp_load_sse){0};
}
