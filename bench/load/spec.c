/* The small languages of options: numbers between colons and commas. */
#include "bench/load/spec.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { SHOWN = 80 };

/* A number > 0 up to `most` at the front of *text; moves behind it. */
static bool number(const char **text, double most, double *out)
{
    size_t n = strspn(*text, "0123456789.");
    char *end;
    double v = strtod(*text, &end);
    if (n == 0 || end != *text + n || !isfinite(v) || v <= 0 || v > most)
        return false;
    *text = end;
    *out = v;
    return true;
}

static bool character(const char **text, char c)
{
    if (**text != c)
        return false;
    ++*text;
    return true;
}

static bool word(const char **text, const char *w)
{
    if (!cp_has_prefix(*text, w))
        return false;
    *text += strlen(w);
    return true;
}

cp_code cp_load_lengths_parse(cp_load_lengths *out, const char *option, const char *text,
                              cp_err *err)
{
    const char *at = text;
    cp_load_lengths l = {.kind = CP_LOAD_FIXED};
    l.kind = word(&at, "uniform:")  ? CP_LOAD_UNIFORM
             : word(&at, "normal:") ? CP_LOAD_NORMAL
                                    : CP_LOAD_FIXED;
    bool ok = number(&at, CP_LOAD_LENGTH_MAX, &l.a);
    if (l.kind != CP_LOAD_FIXED)
        ok = ok && character(&at, ':') && number(&at, CP_LOAD_LENGTH_MAX, &l.b);
    ok = ok && !*at && l.a >= 1 && l.a == floor(l.a) && l.b == floor(l.b) &&
         (l.kind != CP_LOAD_UNIFORM || l.a <= l.b);
    if (!ok)
        return cp_fail(err, CP_USAGE,
                       "%s: got '%.*s'; allowed: N, uniform:LEAST:MOST or normal:MEAN:DEVIATION, "
                       "whole tokens, 1..%d",
                       option, SHOWN, text, CP_LOAD_LENGTH_MAX);
    *out = l;
    return CP_OK;
}

uint32_t cp_load_lengths_draw(const cp_load_lengths *l, cp_load_rng *r)
{
    double v = l->a;
    if (l->kind == CP_LOAD_UNIFORM)
        v += (double)cp_load_rng_below(r, (uint64_t)(l->b - l->a) + 1);
    else if (l->kind == CP_LOAD_NORMAL)
        v = round(v + l->b * cp_load_rng_normal(r));
    return v < 1 ? 1 : v > CP_LOAD_LENGTH_MAX ? CP_LOAD_LENGTH_MAX : (uint32_t)v;
}

double cp_load_lengths_mean(const cp_load_lengths *l)
{
    return l->kind == CP_LOAD_UNIFORM ? (l->a + l->b) / 2 : l->a;
}

cp_code cp_load_ramp_parse(cp_load_ramp *out, const char *text, cp_err *err)
{
    const char *at = text;
    cp_load_ramp r = {0};
    bool ok = number(&at, 1e6, &r.from) && character(&at, ':') && number(&at, 1e6, &r.to) &&
              character(&at, ':') && number(&at, 1e9, &r.seconds);
    double unit = strcmp(at, "ms") == 0  ? 1e-3
                  : strcmp(at, "s") == 0 ? 1
                  : strcmp(at, "m") == 0 ? 60
                                         : 0;
    r.seconds *= unit;
    if (!ok || unit <= 0 || r.seconds > 86400)
        return cp_fail(err, CP_USAGE,
                       "--ramp: got '%.*s'; allowed: R1:R2:TIME, requests a second above 0 and a "
                       "time with ms, s or m, such as 1:20:60s",
                       SHOWN, text);
    *out = r;
    return CP_OK;
}

cp_code cp_load_slo_parse(cp_load_slo *out, const char *text, cp_err *err)
{
    double none = (double)NAN;
    cp_load_slo s = {none, none, none, none};
    struct {
        const char *name;
        double *to;
    } rows[] = {{"ttft=", &s.ttft}, {"itl=", &s.itl}, {"tpot=", &s.tpot}, {"e2e=", &s.e2e}};
    const char *at = text;
    bool ok = true;
    do {
        size_t i = 0;
        while (i < 4 && !word(&at, rows[i].name))
            i++;
        ok = i < 4 && isnan(*rows[i].to) && number(&at, 1e9, rows[i].to);
    } while (ok && character(&at, ','));
    if (!ok || *at)
        return cp_fail(err, CP_USAGE,
                       "--slo: got '%.*s'; allowed: ttft=MS, itl=MS, tpot=MS, e2e=MS between "
                       "commas, each once",
                       SHOWN, text);
    *out = s;
    return CP_OK;
}
