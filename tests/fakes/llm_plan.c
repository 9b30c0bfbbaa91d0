/* Options of the fake server, and what they say of the n-th request. */
#include "tests/fakes/llm_plan.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char usage[] =
    "usage: fake_llm [option=value...]\n"
    "  ttft=DIST gap=DIST      ms; DIST: 200 | 100,200,300 in turn | 20:400@0.1, 400 with share "
    "0.1\n"
    "  tokens=DIST             (default: the request's max_tokens, else 16)\n"
    "  per-chunk=N             tokens in a chunk (1)\n"
    "  role=early|late         the role chunk when the service begins, or with the first token\n"
    "  concurrent=N rate=R     served at a time, begun a second; others wait in line\n"
    "  stall=EVERY:FOR         ms: nothing is sent in the last FOR of each EVERY\n"
    "  fault=KIND@N[+M][:T]    KIND: an HTTP status, rst, fin, error, nodone, never (repeatable)\n"
    "  metrics=vllm|capstan|llamacpp|none\n"
    "  model=ID server=NAME key=K log=FILE seconds=S connections=N\n";

/* A number from the front of *s, which then points behind it. */
static bool number(const char **s, double *v)
{
    char *end;
    *v = strtod(*s, &end);
    if (end == *s || !isfinite(*v) || *v < 0 || *v > 1e9)
        return false;
    *s = end;
    return true;
}

static bool parse_dist(fake_dist *d, const char *s)
{
    *d = (fake_dist){0};
    do {
        if (d->n == FAKE_VALUES || !number(&s, &d->value[d->n]))
            return false;
        d->n++;
    } while (*s++ == ',');
    s--;
    if (*s == '\0')
        return true;
    if (*s++ != ':' || d->n != 1 || !number(&s, &d->value[1]) || *s++ != '@' ||
        !number(&s, &d->share))
        return false;
    d->n = 2;
    return *s == '\0' && d->share > 0 && d->share < 1;
}

static bool parse_kind(fake_fault *f, const char *s, size_t n)
{
    static const struct {
        const char *name;
        fake_kind kind;
    } kinds[] = {{"rst", FAKE_RST},
                 {"fin", FAKE_FIN},
                 {"error", FAKE_ERROR},
                 {"nodone", FAKE_NODONE},
                 {"never", FAKE_NEVER}};
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        if (strlen(kinds[i].name) == n && memcmp(kinds[i].name, s, n) == 0) {
            f->kind = kinds[i].kind;
            return true;
        }
    }
    f->kind = FAKE_STATUS;
    f->status = (int)strtol(s, NULL, 10);
    return n == 3 && f->status >= 400 && f->status <= 599;
}

static bool parse_fault(fake_plan *p, const char *s)
{
    if (p->n_faults == FAKE_FAULTS)
        return false;
    fake_fault *f = &p->fault[p->n_faults++];
    const char *at = strchr(s, '@');
    double v;
    *f = (fake_fault){.tokens = -1};
    if (!at || !parse_kind(f, s, (size_t)(at - s)))
        return false;
    at++;
    if (!number(&at, &v) || v < 1)
        return false;
    f->first = (uint64_t)v;
    if (*at == '+') {
        at++;
        if (!number(&at, &v) || v < 1)
            return false;
        f->every = (uint64_t)v;
    }
    if (*at == ':') {
        at++;
        if (!number(&at, &v))
            return false;
        f->tokens = (int)v;
    }
    return *at == '\0';
}

static bool parse_stall(fake_plan *p, const char *s)
{
    return number(&s, &p->stall_every) && *s++ == ':' && number(&s, &p->stall_for) && *s == '\0' &&
           p->stall_for < p->stall_every;
}

static bool whole(const char *s, int *v)
{
    double d;
    if (!number(&s, &d) || *s != '\0' || d > 1e6)
        return false;
    *v = (int)d;
    return true;
}

static bool real(const char *s, double *v)
{
    return number(&s, v) && *s == '\0';
}

static bool one_of(const char *s, const char *list)
{
    const char *at = strstr(list, s);
    size_t n = strlen(s);
    return at && n > 0 && (at == list || at[-1] == ' ') && (at[n] == ' ' || at[n] == '\0');
}

static bool set(fake_plan *p, const char *name, const char *value)
{
#define IS(x) (strcmp(name, (x)) == 0)
    if (IS("ttft"))
        return parse_dist(&p->ttft, value);
    if (IS("gap"))
        return parse_dist(&p->gap, value);
    if (IS("tokens"))
        return parse_dist(&p->tokens, value);
    if (IS("per-chunk"))
        return whole(value, &p->per_chunk) && p->per_chunk > 0;
    if (IS("role")) {
        p->role_late = strcmp(value, "late") == 0;
        return one_of(value, "early late");
    }
    if (IS("concurrent"))
        return whole(value, &p->concurrent);
    if (IS("rate"))
        return real(value, &p->rate);
    if (IS("stall"))
        return parse_stall(p, value);
    if (IS("fault"))
        return parse_fault(p, value);
    if (IS("seconds"))
        return real(value, &p->seconds);
    if (IS("connections"))
        return whole(value, &p->connections);
    const char **text = IS("metrics")  ? &p->metrics
                        : IS("model")  ? &p->model
                        : IS("server") ? &p->server
                        : IS("key")    ? &p->key
                        : IS("log")    ? &p->log
                                       : NULL;
#undef IS
    if (!text)
        return false;
    *text = value;
    return text != &p->metrics || one_of(value, "vllm capstan llamacpp none");
}

bool fake_plan_parse(fake_plan *p, int argc, char **argv)
{
    *p = (fake_plan){.ttft = {.value = {20}, .n = 1},
                     .gap = {.value = {5}, .n = 1},
                     .per_chunk = 1,
                     .metrics = "vllm",
                     .model = "fake",
                     .server = "fake-llm/1",
                     .seconds = 300,
                     .connections = 4096};
    for (int i = 1; i < argc; i++) {
        char name[32];
        const char *eq = strchr(argv[i], '=');
        size_t n = eq ? (size_t)(eq - argv[i]) : 0;
        if (n > 0 && n < sizeof(name)) {
            memcpy(name, argv[i], n);
            name[n] = '\0';
        }
        if (n == 0 || n >= sizeof(name) || !set(p, name, eq + 1)) {
            fprintf(stderr, "fake_llm: '%s' is no option of mine\n%s", argv[i], usage);
            return false;
        }
    }
    return true;
}

/* SplitMix64's output function (Steele, Lea, Flood 2014): a hash of the index. */
static uint64_t mix(uint64_t x)
{
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

double fake_draw(const fake_dist *d, uint64_t i)
{
    if (d->share > 0)
        return d->value[(double)(mix(i) >> 11) * 0x1p-53 < d->share ? 1 : 0];
    return d->value[i % (uint64_t)d->n];
}

const fake_fault *fake_fault_of(const fake_plan *p, uint64_t n)
{
    for (int i = 0; i < p->n_faults; i++) {
        const fake_fault *f = &p->fault[i];
        if (n == f->first || (f->every > 0 && n > f->first && (n - f->first) % f->every == 0))
            return f;
    }
    return NULL;
}

int64_t fake_after_stall(const fake_plan *p, int64_t t)
{
    int64_t every = (int64_t)(p->stall_every * 1e6), length = (int64_t)(p->stall_for * 1e6);
    if (every <= 0 || t < 0)
        return t;
    int64_t in = t % every;
    return in < every - length ? t : t - in + every;
}
