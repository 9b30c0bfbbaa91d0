/*
 * The life of a job: endpoints are tried in order, mirrors first, the upstream last; each of them
 * several times, with growing pauses.
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

static size_t next_endpoint(const cp_job *j)
{
    size_t i = j->endpoint + 1;
    while (i + 1 < j->r->n_endpoints && j->r->dead[i])
        i++;
    return i;
}

/* See job.h. */
cp_job *cp_job_new(cp_registry *r, cp_job_kind kind, const char *what)
{
    cp_job *j = cp_xcalloc(1, sizeof(*j));
    uint8_t raw[32];
    j->r = r;
    j->serial = ++r->serial;
    j->kind = kind;
    j->x.arg = j;
    cp_strcopy(j->what, sizeof(j->what), what);
    j->endpoint = r->n_endpoints - 1; /* a tag is the upstream's to resolve */
    if (cp_digest_parse(what, raw) && r->n_endpoints > 1) {
        j->endpoint = 0;
        if (r->dead[0])
            j->endpoint = next_endpoint(j);
    }
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

/* See job.h. */
void cp_job_give_up(cp_job *j)
{
    if (j->code == CP_UNSUPPORTED && cp_job_wants_whole(j) && !j->whole) {
        j->whole = true; /* only the rest was asked for as a range */
        cp_job_restart(j, 0);
        return;
    }
    if (!is_mirror(j) || j->final || j->code == CP_UNSUPPORTED) {
        cp_job_end(j);
        return;
    }
    size_t next = next_endpoint(j);
    cp_log(CP_LOG_INFO, "mirror failed, asking %s: %s", j->r->endpoint[next].shown, j->err.msg);
    j->endpoint = next;
    j->code = CP_OK;
    memset(&j->spent, 0, sizeof(j->spent));
    j->whole = false;
    j->mark = j->sent;
    cp_job_restart(j, 0);
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
