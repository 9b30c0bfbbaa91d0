/*
 * Each pattern has a Knuth-Morris-Pratt automaton, and all of them walk together a byte at a time,
 * so that the work is linear in the text whatever the patterns are. Their states also say how much
 * must be held back: the longest prefix of a pattern that the text's end spells. Patterns and text
 * are valid UTF-8, so a match begins and ends at a character.
 */
#include "server/stops.h"

#include <string.h>

cp_stops *cp_stops_new(cp_arena *a, const cp_str *list, int n)
{
    CP_ASSERT(n >= 0 && n <= CP_STOPS_MAX);
    cp_stops *s = cp_arena_alloc(a, sizeof(*s));
    if (!s)
        return NULL;
    s->n = n;
    for (int i = 0; i < n; i++) {
        const char *p = list[i].p;
        size_t len = list[i].n;
        CP_ASSERT(len >= 1 && len <= UINT16_MAX);
        uint16_t *border = cp_arena_alloc(a, (len + 1) * sizeof(*border));
        if (!border)
            return NULL;
        uint16_t k = 0;
        for (size_t j = 1; j < len; j++) {
            while (k > 0 && p[k] != p[j])
                k = border[k];
            if (p[k] == p[j])
                k++;
            border[j + 1] = k;
        }
        s->pattern[i].p = p;
        s->pattern[i].n = (uint16_t)len;
        s->pattern[i].border = border;
    }
    return s;
}

/* Advance every automaton by a byte; the longest pattern that ends here, or 0. */
static size_t step(const cp_stops *s, cp_stop_state *st, char ch)
{
    size_t longest = 0;
    for (int i = 0; i < s->n; i++) {
        const struct cp_stop_pattern *x = &s->pattern[i];
        uint16_t k = st->matched[i];
        while (k > 0 && x->p[k] != ch)
            k = x->border[k];
        if (x->p[k] == ch)
            k++;
        if (k == x->n && k > longest)
            longest = k;
        st->matched[i] = k;
    }
    return longest;
}

bool cp_stops_feed(const cp_stops *s, cp_stop_state *st, const char *p, size_t n, bool include,
                   cp_buf *out)
{
    if (!s || s->n == 0) {
        cp_buf_add(out, p, n);
        return false;
    }
    size_t before = st->held.n;
    cp_buf_add(&st->held, p, n);
    if (st->held.failed) {
        out->failed = true;
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        size_t len = step(s, st, p[i]);
        if (len > 0) {
            size_t end = before + i + 1;
            cp_buf_add(out, st->held.p, include ? end : end - len);
            cp_buf_clear(&st->held);
            return true;
        }
    }
    size_t keep = 0;
    for (int i = 0; i < s->n; i++)
        if (st->matched[i] > keep)
            keep = st->matched[i];
    size_t show = st->held.n - keep;
    cp_buf_add(out, st->held.p, show);
    cp_buf_consume(&st->held, show);
    return false;
}

void cp_stops_flush(cp_stop_state *st, cp_buf *out)
{
    if (st->held.n > 0)
        cp_buf_add(out, st->held.p, st->held.n);
    cp_buf_clear(&st->held);
    memset(st->matched, 0, sizeof(st->matched));
}

void cp_stop_state_fini(cp_stop_state *st)
{
    cp_buf_fini(&st->held);
}

int cp_stops_special(const cp_tokenizer *t, const cp_str *list, int n, int32_t *ids)
{
    int found = 0;
    for (int i = 0; i < n; i++) {
        int32_t id = cp_tokenizer_find(t, list[i].p, list[i].n);
        if (id >= 0 && cp_tokenizer_is_special(t, id))
            ids[found++] = id;
    }
    return found;
}
