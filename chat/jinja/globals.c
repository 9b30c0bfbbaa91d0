/*
 * Global functions: Jinja's range, dict and namespace, and transformers' raise_exception and
 * strftime_now.
 */
#include "chat/jinja/interp.h"

#include <string.h>
#include <time.h>

#define GLOBAL(name)                                                                               \
    static const cp_val *name(jj_ctx *x, const cp_val *v, const cp_val **arg, const jj_args *rest)

GLOBAL(g_range)
{
    int64_t n[3] = {0, 0, 1};
    (void)v, (void)arg;
    if (rest->n_pos < 1 || rest->n_pos > 3 || rest->n_kw) {
        cp_jj_fail(x, "range() takes 1 to 3 numbers");
        return NULL;
    }
    for (size_t i = 0; i < rest->n_pos; i++) {
        const cp_val *a = rest->pos[i];
        if (a->type != JJ_INT && a->type != JJ_BOOL) {
            cp_jj_fail(x, "range() wants ints, not %s", cp_jj_type_name(a));
            return NULL;
        }
        n[i] = a->type == JJ_INT ? a->u.i : a->u.b;
    }
    if (rest->n_pos == 1) {
        n[1] = n[0];
        n[0] = 0;
    }
    if (!n[2]) {
        cp_jj_fail(x, "range() step must not be zero");
        return NULL;
    }
    uint64_t count = 0;
    if (n[2] > 0 && n[1] > n[0])
        count = ((uint64_t)n[1] - (uint64_t)n[0] - 1) / (uint64_t)n[2] + 1;
    else if (n[2] < 0 && n[0] > n[1])
        count = ((uint64_t)n[0] - (uint64_t)n[1] - 1) / (0 - (uint64_t)n[2]) + 1;
    if (count > JJ_MAX_RANGE) {
        cp_jj_fail(x, "range() is larger than %d", JJ_MAX_RANGE);
        return NULL;
    }
    cp_val *r = cp_jj_alloc(x, sizeof(*r));
    if (!r)
        return NULL;
    r->type = JJ_RANGE;
    r->u.range.start = n[0];
    r->u.range.stop = n[1];
    r->u.range.step = n[2];
    r->u.range.n = (int64_t)count;
    return r;
}

static const cp_val *new_mapping(jj_ctx *x, jj_type type, const jj_args *rest)
{
    jj_dict *d = cp_jj_dict_new(x);
    if (rest->n_pos > 1) {
        cp_jj_fail(x, "at most one positional argument is taken");
        return NULL;
    }
    return d && cp_jj_dict_update(x, d, rest->n_pos ? rest->pos[0] : NULL, rest)
               ? cp_jj_dict(x, type, d)
               : NULL;
}

GLOBAL(g_dict)
{
    (void)v, (void)arg;
    return new_mapping(x, JJ_DICT, rest);
}
GLOBAL(g_namespace)
{
    (void)v, (void)arg;
    return new_mapping(x, JJ_NS, rest);
}

GLOBAL(g_raise)
{
    (void)v, (void)rest;
    const cp_val *s = arg[0] ? cp_jj_to_str(x, arg[0]) : &cp_jj_empty;
    if (!s || x->code != CP_OK)
        return NULL;
    size_t n = s->u.s.n, max = x->err ? sizeof(x->err->msg) - 1 : 0;
    if (n > max) { /* cut between characters */
        n = max;
        while (n && ((unsigned char)s->u.s.p[n] & 0xc0) == 0x80)
            n--;
    }
    x->code = cp_fail(x->err, CP_TEMPLATE, "%.*s", (int)n, s->u.s.p);
    return NULL;
}

/* One directive of strftime in the C locale, UTC; the sign '-' drops leading zeros. */
static size_t directive(char out[80], const struct tm *t, char c, bool bare)
{
    static const char *const days[] = {"Sunday",   "Monday", "Tuesday", "Wednesday",
                                       "Thursday", "Friday", "Saturday"};
    static const char *const months[] = {"January",   "February", "March",    "April",
                                         "May",       "June",     "July",     "August",
                                         "September", "October",  "November", "December"};
    int two = bare ? 1 : 2, hour12 = t->tm_hour % 12 ? t->tm_hour % 12 : 12;
    switch (c) {
    case 'a':
        return cp_snprintf(out, 80, "%.3s", days[t->tm_wday]);
    case 'A':
        return cp_snprintf(out, 80, "%s", days[t->tm_wday]);
    case 'b':
    case 'h':
        return cp_snprintf(out, 80, "%.3s", months[t->tm_mon]);
    case 'B':
        return cp_snprintf(out, 80, "%s", months[t->tm_mon]);
    case 'd':
        return cp_snprintf(out, 80, "%0*d", two, t->tm_mday);
    case 'e':
        return cp_snprintf(out, 80, "%*d", two, t->tm_mday);
    case 'm':
        return cp_snprintf(out, 80, "%0*d", two, t->tm_mon + 1);
    case 'y':
        return cp_snprintf(out, 80, "%0*d", two, (t->tm_year % 100 + 100) % 100);
    case 'Y':
        return cp_snprintf(out, 80, "%d", t->tm_year + 1900);
    case 'H':
        return cp_snprintf(out, 80, "%0*d", two, t->tm_hour);
    case 'I':
        return cp_snprintf(out, 80, "%0*d", two, hour12);
    case 'M':
        return cp_snprintf(out, 80, "%0*d", two, t->tm_min);
    case 'S':
        return cp_snprintf(out, 80, "%0*d", two, t->tm_sec);
    case 'p':
        return cp_snprintf(out, 80, "%s", t->tm_hour < 12 ? "AM" : "PM");
    case 'j':
        return cp_snprintf(out, 80, "%0*d", bare ? 1 : 3, t->tm_yday + 1);
    case 'w':
        return cp_snprintf(out, 80, "%d", t->tm_wday);
    case 'u':
        return cp_snprintf(out, 80, "%d", t->tm_wday ? t->tm_wday : 7);
    case 'f':
        return cp_snprintf(out, 80, "000000");
    case 'F':
        return cp_snprintf(out, 80, "%d-%02d-%02d", t->tm_year + 1900, t->tm_mon + 1, t->tm_mday);
    case 'T':
    case 'X':
        return cp_snprintf(out, 80, "%02d:%02d:%02d", t->tm_hour, t->tm_min, t->tm_sec);
    case 'R':
        return cp_snprintf(out, 80, "%02d:%02d", t->tm_hour, t->tm_min);
    case 'D':
    case 'x':
        return cp_snprintf(out, 80, "%02d/%02d/%02d", t->tm_mon + 1, t->tm_mday,
                           (t->tm_year % 100 + 100) % 100);
    case 'c':
        return cp_snprintf(out, 80, "%.3s %.3s %2d %02d:%02d:%02d %d", days[t->tm_wday],
                           months[t->tm_mon], t->tm_mday, t->tm_hour, t->tm_min, t->tm_sec,
                           t->tm_year + 1900);
    case 'n':
    case 't':
    case '%':
        return cp_snprintf(out, 80, "%c", c == 'n' ? '\n' : c == 't' ? '\t' : '%');
    case 'z':
    case 'Z': /* as Python's naive datetime */
        return 0;
    default:
        return SIZE_MAX;
    }
}

GLOBAL(g_strftime)
{
    (void)v, (void)rest;
    time_t now = (time_t)x->now;
    struct tm t;
    jj_sb b = {.a = x->a};
    if (!arg[0] || arg[0]->type != JJ_STR || !gmtime_r(&now, &t)) {
        cp_jj_fail(x, "strftime_now wants a format");
        return NULL;
    }
    const jj_str *s = &arg[0]->u.s;
    for (size_t p = 0; p < s->n;) {
        const char *pct = memchr(s->p + p, '%', s->n - p);
        size_t end = pct ? (size_t)(pct - s->p) : s->n;
        if (!cp_jj_step(x, 1) || !cp_jj_sb_add_str(x, &b, s, p, end))
            return NULL;
        p = end + 1;
        if (!pct)
            break;
        bool bare = p < s->n && s->p[p] == '-';
        p += bare;
        char out[80];
        size_t n = p < s->n ? directive(out, &t, s->p[p], bare) : SIZE_MAX;
        if (n == SIZE_MAX) {
            cp_jj_fail(x, "strftime_now: unknown directive");
            return NULL;
        }
        if (!cp_jj_sb_add(x, &b, out, n, false))
            return NULL;
        p++;
    }
    return cp_jj_sb_take(x, &b);
}

const jj_fn_row *cp_jj_global_find(const jj_str *name)
{
    static const jj_fn_row rows[] = {
        {"dict", "*", g_dict},
        {"namespace", "*", g_namespace},
        {"raise_exception", "message", g_raise},
        {"range", "*", g_range},
        {"strftime_now", "format", g_strftime},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        if (cp_jj_str_is(name, rows[i].name))
            return &rows[i];
    }
    return NULL;
}
