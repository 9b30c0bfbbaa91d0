/*
 * The life of a job. Endpoints are tried in order, mirrors first, the upstream last; each of them
 * several times, with growing pauses. One that refuses a range hands the job on and is asked for
 * no more ranges; where no endpoint is left, a part ends as CP_UNSUPPORTED and the rest of a whole
 * blob is asked for without a range. For example, of a mirror that ignores ranges and an upstream
 * that gives them:
 *
 *     mirror     Range: bytes=0-16777215    200, the whole: hung up on
 *     upstream   Range: bytes=0-16777215    206, taken
 *     upstream   Range: bytes=16777216-...  the mirror is passed by
 */
#include "loader/oci/remote/job.h"
#include "base/clock.h"
#include "base/log.h"
#include "loader/oci/remote/retry.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    RETRIES_MIRROR = 2, /* there is somebody else to ask */
    RETRIES_FIRST = 2,  /* a host that never answered: a typing error more likely than a fault */
    WAITED_MAX_MS = 300000, /* all pauses of one job together */
    PROGRESS = 1 << 20, /* bytes after which a lost connection is a new one, not a repeated one */
};

int64_t cp_job_now_ms(void)
{
    return cp_now_ns() / 1000000;
}

static uint32_t random32(cp_registry *r) /* xorshift64*: jitter, no secret */
{
    r->random ^= r->random >> 12;
    r->random ^= r->random << 25;
    r->random ^= r->random >> 27;
    return (uint32_t)((r->random * 0x2545F4914F6CDD1Dull) >> 32);
}

cp_endpoint *cp_job_endpoint(const cp_job *j)
{
    return &j->r->endpoint[j->endpoint];
}

/* See job.h. */
bool cp_job_wants_whole(const cp_job *j)
{
    return j->kind == CP_JOB_BLOB && j->fetch->from == 0 && j->fetch->n == j->fetch->total;
}

static bool is_mirror(const cp_job *j)
{
    return j->endpoint + 1 < j->r->n_endpoints;
}

/* Must a part of a blob be asked for, so that an endpoint without ranges is of no use? */
static bool needs_range(const cp_job *j)
{
    return j->kind == CP_JOB_BLOB && !j->whole && (j->sent > 0 || !cp_job_wants_whole(j));
}

/* The first endpoint from `from` on that may have what the job asks for; false: there is none. */
static bool find_endpoint(const cp_job *j, size_t from, size_t *out)
{
    const cp_registry *r = j->r;
    for (size_t i = from; i < r->n_endpoints; i++)
        if (!r->dead[i] && !(needs_range(j) && r->rangeless[i])) {
            *out = i;
            return true;
        }
    return false;
}

/* See job.h. */
bool cp_job_has_next(const cp_job *j)
{
    size_t next;
    return find_endpoint(j, j->endpoint + 1, &next);
}

/* The first endpoint that may give the whole where no part can be had: it has refused a range. Not
 * the one that has failed for another reason just now. */
static bool find_rangeless(const cp_job *j, size_t *out)
{
    const cp_registry *r = j->r;
    for (size_t i = j->first; i < r->n_endpoints; i++)
        if (!r->dead[i] && r->rangeless[i] && (i != j->endpoint || j->code == CP_UNSUPPORTED)) {
            *out = i;
            return true;
        }
    return false;
}

/* See job.h. */
cp_job *cp_job_new(cp_registry *r, cp_job_kind kind, const char *what, cp_fetch *f)
{
    cp_job *j = cp_xcalloc(1, sizeof(*j));
    uint8_t raw[32];
    j->r = r;
    j->serial = ++r->serial;
    j->kind = kind;
    j->fetch = f;
    j->x.arg = j;
    cp_strcopy(j->what, sizeof(j->what), what);
    /* A tag is the upstream's to resolve. */
    j->first = !cp_digest_parse(what, raw) || (f && f->upstream_only) ? r->n_endpoints - 1 : 0;
    if (!find_endpoint(j, j->first, &j->endpoint))
        j->endpoint = r->n_endpoints - 1;
    return j;
}

/* See job.h. */
void cp_job_free(cp_job *j)
{
    cp_job **p = &j->r->jobs;
    while (*p != j)
        p = &(*p)->next;
    *p = j->next;
    if (j->running) {
        cp_client_cancel(j->r->http, &j->x);
        j->r->n_running--;
    }
    cp_exchange_fini(&j->x);
    free(j);
}

/* See job.h. */
void cp_job_end(cp_job *j)
{
    j->r->n_ended++;
    if (j->kind == CP_JOB_MANIFEST) {
        j->finished = true;
        return;
    }
    cp_fetch *f = j->fetch;
    cp_code code = j->code;
    cp_err err = j->err;
    f->impl = NULL;
    cp_job_free(j);
    f->done(f->arg, code, code ? &err : NULL);
}

/* See job.h. */
void cp_job_restart(cp_job *j, int64_t wait_ms)
{
    j->url[0] = '\0';
    j->due_ms = cp_job_now_ms() + wait_ms;
}

/* Ask endpoint i, with new patience. */
static void ask(cp_job *j, size_t i)
{
    j->endpoint = i;
    j->code = CP_OK;
    memset(&j->spent, 0, sizeof(j->spent));
    j->mark = j->sent;
    cp_job_restart(j, 0);
}

/* See job.h. */
void cp_job_give_up(cp_job *j)
{
    cp_registry *r = j->r;
    size_t next;
    if (j->code == CP_UNSUPPORTED)
        r->rangeless[j->endpoint] = true;
    if (!j->final && find_endpoint(j, j->endpoint + 1, &next)) {
        cp_log(CP_LOG_INFO, "mirror failed, asking %s: %s", r->endpoint[next].shown, j->err.msg);
        ask(j, next);
    } else if (!j->final && needs_range(j) && find_rangeless(j, &next)) {
        /* Nobody gives the part, and somebody the whole: the caller's to ask for unless he does. */
        if (cp_job_wants_whole(j)) {
            j->whole = true;
            ask(j, next);
        } else {
            j->code = j->err.code = CP_UNSUPPORTED;
            cp_job_end(j);
        }
    } else {
        cp_job_end(j);
    }
}

/* See job.h. */
void cp_job_fail(cp_job *j, cp_code code, const char *fmt, ...)
{
    char text[sizeof(j->err.msg)];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    const cp_endpoint *e = cp_job_endpoint(j);
    j->code = cp_fail(&j->err, code, "%s/%s: %s %s: %s", e->shown, e->repository,
                      j->kind == CP_JOB_BLOB ? "blob" : "manifest", j->what, n < 0 ? "" : text);
}

/* What to think of when a host that is to speak plain HTTP hangs up and never answered: some TLS
 * servers do so. */
static const char *doubt_scheme(const cp_job *j)
{
    const cp_endpoint *e = cp_job_endpoint(j);
    if (e->https || !e->scheme_named || e->contacted || j->foreign ||
        j->x.end == CP_CLIENT_UNREACHED)
        return "";
    return e->upstream[0] ? "; if it speaks TLS, --mirror must name it with https://"
                          : "; if it speaks TLS, leave out --plain-http for it";
}

/* How often may the job's endpoint be asked again? */
static int retry_limit(const cp_job *j)
{
    int limit = j->r->opt.max_retries;
    if (is_mirror(j) && limit > RETRIES_MIRROR)
        limit = RETRIES_MIRROR;
    if (!cp_job_endpoint(j)->contacted && limit > RETRIES_FIRST)
        limit = RETRIES_FIRST;
    return limit;
}

/* See job.h. */
void cp_job_retry(cp_job *j, const char *why, int64_t retry_after_s)
{
    cp_registry *r = j->r;
    cp_endpoint *e = cp_job_endpoint(j);
    if (j->sent - j->mark >= PROGRESS) {
        j->mark = j->sent;
        j->spent.retries = 0;
        j->spent.waited_ms = 0;
    }
    int limit = retry_limit(j);
    int64_t wait = cp_backoff_ms(r->opt.backoff_ms, j->spent.retries, retry_after_s, random32(r));
    bool asks_too_much = retry_after_s > CP_RETRY_AFTER_MAX_S;
    if (j->spent.retries >= limit || asks_too_much || j->spent.waited_ms + wait > WAITED_MAX_MS) {
        if (asks_too_much)
            cp_job_fail(j, CP_NETWORK, "%s; it wants to be left alone for %lld s", why,
                        (long long)retry_after_s);
        else
            cp_job_fail(j, CP_NETWORK, "%s (%d tries)%s", why, j->spent.retries + 1,
                        doubt_scheme(j));
        r->dead[j->endpoint] = is_mirror(j) && !e->contacted;
        cp_job_give_up(j);
        return;
    }
    j->spent.retries++;
    j->spent.waited_ms += wait;
    if (retry_after_s > 0) /* meant for all who ask there */
        e->not_before_ms = cp_job_now_ms() + wait;
    cp_log(CP_LOG_DEBUG, "%s %s: %s; again in %lld ms (%d of %d)", e->shown, j->what, why,
           (long long)wait, j->spent.retries, limit);
    cp_job_restart(j, wait);
}
