/*
 * The parser of WWW-Authenticate (RFC 9110 §11.6.1). Its grammar is ambiguous to the left: a comma
 * ends a parameter or a challenge, and only what follows tells which. So after each comma a token
 * is read, and "=" behind it makes it a parameter of the challenge at hand, anything else the next
 * scheme. For example, this line has two challenges, and the second comma begins the second one:
 *
 *     Bearer realm="https://auth.example/token",service="registry", Basic realm="x"
 */
#include "loader/oci/remote/challenge.h"
#include "base/mem.h"

#include <string.h>

enum { NAME_MAX_BYTES = 64, VALUE_MAX_BYTES = 4096, PARAMS_MAX = 32 };

typedef struct input {
    const char *p, *end;
} input;

static bool token_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           (c && strchr("!#$%&'*+-.^_`|~", c));
}

static bool token68_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           (c && strchr("-._~+/", c));
}

static void blanks(input *in)
{
    while (in->p < in->end && (*in->p == ' ' || *in->p == '\t'))
        in->p++;
}

static void blanks_and_commas(input *in)
{
    while (in->p < in->end && (*in->p == ' ' || *in->p == '\t' || *in->p == ','))
        in->p++;
}

/* A token, lower case; false: none, or longer than cap - 1. */
static bool token(input *in, char *out, size_t cap, bool fold)
{
    size_t n = 0;
    while (in->p < in->end && token_char(*in->p)) {
        if (n + 1 >= cap)
            return false;
        out[n++] = fold ? cp_lower(*in->p) : *in->p;
        in->p++;
    }
    out[n] = '\0';
    return n > 0;
}

/* After the opening quote. */
static bool quoted(input *in, char *out, size_t cap)
{
    size_t n = 0;
    while (in->p < in->end) {
        char c = *in->p++;
        if (c == '"') {
            out[n] = '\0';
            return true;
        }
        if (c == '\\') {
            if (in->p == in->end)
                return false;
            c = *in->p++;
        }
        if ((unsigned char)c < 0x20 || c == 0x7f || n + 1 >= cap)
            return false;
        out[n++] = c;
    }
    return false; /* never closed */
}

/* Keep a parameter that somebody asks for; false: twice, or too long. */
static bool keep(cp_challenge *c, const char *name, const char *value)
{
    const struct {
        const char *name;
        char *out;
        size_t cap;
    } rows[] = {{"realm", c->realm, sizeof(c->realm)},
                {"service", c->service, sizeof(c->service)},
                {"scope", c->scope, sizeof(c->scope)},
                {"error", c->error, sizeof(c->error)}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        if (strcmp(name, rows[i].name) != 0)
            continue;
        size_t n = strlen(value);
        if (rows[i].out[0] || n >= rows[i].cap)
            return false;
        memcpy(rows[i].out, value, n + 1);
    }
    return true;
}

/* token68 up to a comma or the end; false: it is something else, nothing consumed. */
static bool token68(input *in)
{
    input at = *in;
    while (at.p < at.end && token68_char(*at.p))
        at.p++;
    if (at.p == in->p)
        return false;
    while (at.p < at.end && *at.p == '=')
        at.p++;
    blanks(&at);
    if (at.p < at.end && *at.p != ',')
        return false;
    *in = at;
    return true;
}

/* The parameters of c; stops before the next scheme. False: malformed. */
static bool params(input *in, cp_challenge *c)
{
    char name[NAME_MAX_BYTES], value[VALUE_MAX_BYTES];
    for (int i = 0; i < PARAMS_MAX; i++) {
        input at = *in;
        if (!token(&at, name, sizeof(name), true))
            return false;
        blanks(&at);
        if (at.p == at.end || *at.p != '=')
            return i > 0; /* the next challenge's scheme */
        at.p++;
        blanks(&at);
        bool ok;
        if (at.p < at.end && *at.p == '"') {
            at.p++;
            ok = quoted(&at, value, sizeof(value));
        } else {
            ok = token(&at, value, sizeof(value), false);
        }
        blanks(&at);
        if (!ok || (at.p < at.end && *at.p != ',') || !keep(c, name, value))
            return false;
        blanks_and_commas(&at);
        *in = at;
        if (in->p == in->end)
            return true;
    }
    return false;
}

/* See challenge.h. */
bool cp_challenge_parse(cp_challenges *out, const char *value, size_t n)
{
    input in = {value, value + n};
    for (;;) {
        blanks_and_commas(&in);
        if (in.p == in.end)
            return true;
        if (out->n == CP_CHALLENGES_MAX)
            return false;
        cp_challenge *c = &out->item[out->n];
        *c = (cp_challenge){.scheme = ""};
        if (!token(&in, c->scheme, sizeof(c->scheme), true))
            return false;
        const char *behind = in.p;
        blanks(&in);
        if (in.p == in.end || *in.p == ',') {
            out->n++; /* a bare scheme */
            continue;
        }
        if (in.p == behind || (!token68(&in) && !params(&in, c)))
            return false;
        out->n++;
    }
}

const cp_challenge *cp_challenge_find(const cp_challenges *c, const char *scheme)
{
    for (size_t i = 0; i < c->n; i++)
        if (strcmp(c->item[i].scheme, scheme) == 0)
            return &c->item[i];
    return NULL;
}
