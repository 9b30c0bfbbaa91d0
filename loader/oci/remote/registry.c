/*
 * Requests as jobs. A job is one manifest or one range of a blob; it makes attempts (one HTTP
 * exchange each) until it is done: an answer may send it elsewhere (redirect, next source), make it
 * wait (back-off), or end it. Sources are tried in order, mirrors first, the upstream last. All
 * state is here and in the sources; http.c knows one exchange, url.c and retry.c the policy's
 * arithmetic.
 */
#include "loader/oci/remote/registry.h"
#include "base/clock.h"
#include "base/digest.h"
#include "base/log.h"
#include "loader/oci/remote/auth.h"
#include "loader/oci/remote/http.h"
#include "loader/oci/remote/retry.h"
#include "loader/oci/remote/source.h"
#include "loader/oci/remote/token.h"
#include "loader/oci/remote/wire.h"
#include "loader/oci/store/manifest.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

enum {
    CONNECTIONS = 4,
    RETRIES = 6,
    RETRIES_MIRROR = 2, /* there is somebody else to ask */
    RETRIES_FIRST = 2,  /* a host that never answered: a typing error more likely than a fault */
    STALL_MS = 30000,
    BACKOFF_MS = 250,
    WAITED_MAX_MS = 300000, /* all back-offs of one job together */
    PROGRESS = 1 << 20, /* bytes after which a lost connection is a new one, not a repeated one */
    HOPS_MAX = 10,
    DENIALS_MAX = 1,       /* 401 in a row that a job answers */
    RESOLVE_AGAIN_MAX = 2, /* expired presigned URLs in a row */
    PLACES = 8,
    PROBE_MS = 3000, /* to find out whether a loopback host speaks TLS */
};

static const char ACCEPT_MANIFEST[] =
    CP_MT_OCI_MANIFEST ", " CP_MT_OCI_INDEX ", " CP_MT_DOCKER_MANIFEST ", " CP_MT_DOCKER_LIST;

typedef enum job_kind { JOB_MANIFEST, JOB_BLOB } job_kind;

typedef struct job {
    struct job *next;
    cp_registry *r;
    uint64_t serial;
    job_kind kind;
    size_t source; /* index */
    cp_exchange x;
    bool running;
    char url[CP_URL_MAX]; /* of the attempt; "" = to be made from the source */
    bool foreign;         /* url is not the source's own: no credentials */
    bool was_https;       /* the attempt's scheme, for finding it out */
    int hops;
    char what[CP_REF_NAME_MAX]; /* tag or digest */

    cp_fetch *fetch; /* JOB_BLOB */
    uint64_t sent;   /* bytes delivered */
    bool whole;      /* the server's ranges are of no use: the whole, without Range */
    uint64_t skip;   /* of this attempt's body, delivered before */
    uint64_t mark;   /* `sent` when the retries began to count */

    cp_buf *body; /* JOB_MANIFEST */
    char *media_type;
    bool finished;

    bool judged; /* this attempt's headers */
    bool final;  /* code comes from the caller's callback: no other source helps */
    cp_code code;
    cp_err err;
    int retries, resolved_again, denials;
    unsigned generation; /* of the source's token, when the attempt began */
    int64_t due_ms, waited_ms;
} job;

/* Where a source's blob was had after redirects: asked first for the blob's next range. */
typedef struct place {
    char digest[CP_DIGEST_STR];
    size_t source;
    char *url;
} place;

struct cp_registry {
    cp_registry_options opt;
    char name[2 * CP_REF_NAME_MAX];
    char host[CP_HOST_MAX + 8]; /* who answered last */
    cp_source source[CP_SOURCES_MAX];
    bool dead[CP_SOURCES_MAX];             /* mirrors that could not be reached */
    size_t n_sources;                      /* the last one is the upstream */
    cp_token_fetch *token[CP_SOURCES_MAX]; /* NULL: not needed yet */
    cp_buf authorization;                  /* of the attempt that is being started */
    cp_client *http;
    job *jobs;
    place places[PLACES];
    size_t n_places;        /* remembered so far; the oldest makes room */
    int n_running, n_ended; /* attempts running; jobs ended in this step */
    uint64_t random, serial;
};

static int64_t now_ms(void)
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

static cp_source *source_of(const job *j)
{
    return &j->r->source[j->source];
}

static bool is_mirror(const job *j)
{
    return j->source + 1 < j->r->n_sources;
}

/* ---- jobs ---- */

static void unlink_job(job *j)
{
    job **p = &j->r->jobs;
    while (*p != j)
        p = &(*p)->next;
    *p = j->next;
}

static void job_free(job *j)
{
    unlink_job(j);
    if (j->running) {
        cp_client_cancel(j->r->http, &j->x);
        j->r->n_running--;
    }
    cp_exchange_fini(&j->x);
    free(j);
}

/* The job's end: a blob's is reported and gone, a manifest's waits for its caller. */
static void end(job *j)
{
    j->r->n_ended++;
    if (j->kind == JOB_MANIFEST) {
        j->finished = true;
        return;
    }
    cp_fetch *f = j->fetch;
    cp_code code = j->code;
    cp_err err = j->err;
    f->impl = NULL;
    job_free(j);
    f->done(f->arg, code, code ? &err : NULL);
}

static bool wants_whole(const job *j)
{
    return j->kind == JOB_BLOB && j->fetch->from == 0 && j->fetch->n == j->fetch->total;
}

static void restart(job *j, int64_t wait_ms)
{
    j->url[0] = '\0';
    j->due_ms = now_ms() + wait_ms;
}

static size_t next_source(const job *j)
{
    size_t i = j->source + 1;
    while (i + 1 < j->r->n_sources && j->r->dead[i])
        i++;
    return i;
}

/* j->code and j->err say what happened: ask the next source, or end. */
static void give_up(job *j)
{
    if (j->code == CP_UNSUPPORTED && wants_whole(j) && !j->whole) {
        j->whole = true; /* only the rest was asked for as a range */
        restart(j, 0);
        return;
    }
    if (!is_mirror(j) || j->final || j->code == CP_UNSUPPORTED) {
        end(j);
        return;
    }
    size_t next = next_source(j);
    cp_log(CP_LOG_INFO, "mirror failed, asking %s: %s", j->r->source[next].shown, j->err.msg);
    j->source = next;
    j->code = CP_OK;
    j->retries = j->resolved_again = j->denials = 0;
    j->whole = false;
    j->waited_ms = 0;
    j->mark = j->sent;
    restart(j, 0);
}

__attribute__((format(printf, 3, 4))) static void fail(job *j, cp_code code, const char *fmt, ...)
{
    char text[sizeof(j->err.msg)];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    const cp_source *s = source_of(j);
    j->code = cp_fail(&j->err, code, "%s/%s: %s %s: %s", s->shown, s->repository,
                      j->kind == JOB_BLOB ? "blob" : "manifest", j->what, n < 0 ? "" : text);
}

/* Who answered speaks the other scheme: say so, and what to do. */
static void fail_scheme(job *j, const char *why)
{
    const cp_source *s = source_of(j);
    const bool plain = j->x.other == CP_HTTP_SPEAKS_PLAIN;
    const char *has = plain ? "plain HTTP, not TLS" : "TLS, not plain HTTP";
    cp_origin o;
    if (j->foreign && cp_url_origin(j->url, &o))
        fail(j, CP_NETWORK, "it redirects to %s://%s:%d, which seems to speak %s (%.100s)",
             o.https ? "https" : "http", o.host, o.port, has, why);
    else if (s->upstream[0])
        fail(j, CP_NETWORK, "the mirror seems to speak %s: --mirror %s=%s://%s%s%s (%.100s)", has,
             s->upstream, plain ? "http" : "https", s->host, *s->prefix ? "/" : "", s->prefix, why);
    else if (plain)
        fail(j, CP_NETWORK, "it seems to speak %s: --plain-http %s allows that (%.100s)", has,
             s->shown, why);
    else
        fail(j, CP_NETWORK, "it seems to speak %s: leave out --plain-http for %s (%.100s)", has,
             s->shown, why);
}

/* What to think of when a host that is to speak plain HTTP hangs up and never answered: some TLS
 * servers do so. */
static const char *doubt_scheme(const job *j)
{
    const cp_source *s = source_of(j);
    if (s->https || !s->scheme_named || s->contacted || j->foreign || j->x.end == CP_HTTP_UNREACHED)
        return "";
    return s->upstream[0] ? "; if it speaks TLS, --mirror must name it with https://"
                          : "; if it speaks TLS, leave out --plain-http for it";
}

/* Wait and ask again, or give up. retry_after_s: -1 none. */
static void retry(job *j, const char *why, int64_t retry_after_s)
{
    cp_registry *r = j->r;
    cp_source *s = source_of(j);
    if (j->sent - j->mark >= PROGRESS) {
        j->mark = j->sent;
        j->retries = 0;
        j->waited_ms = 0;
    }
    int limit = r->opt.max_retries;
    if (is_mirror(j) && limit > RETRIES_MIRROR)
        limit = RETRIES_MIRROR;
    if (!s->contacted && limit > RETRIES_FIRST)
        limit = RETRIES_FIRST;
    int64_t wait = cp_backoff_ms(r->opt.backoff_ms, j->retries, retry_after_s, random32(r));
    bool asks_too_much = retry_after_s > CP_RETRY_AFTER_MAX_S;
    if (j->retries >= limit || asks_too_much || j->waited_ms + wait > WAITED_MAX_MS) {
        if (asks_too_much)
            fail(j, CP_NETWORK, "%s; it wants to be left alone for %lld s", why,
                 (long long)retry_after_s);
        else
            fail(j, CP_NETWORK, "%s (%d tries)%s", why, j->retries + 1, doubt_scheme(j));
        r->dead[j->source] = is_mirror(j) && !s->contacted;
        give_up(j);
        return;
    }
    j->retries++;
    j->waited_ms += wait;
    if (retry_after_s > 0) { /* meant for all who ask there */
        s->not_before_ms = now_ms() + wait;
    }
    cp_log(CP_LOG_DEBUG, "%s %s: %s; again in %lld ms (%d of %d)", s->shown, j->what, why,
           (long long)wait, j->retries, limit);
    restart(j, wait);
}

/* ---- places ---- */

static place *find_place(cp_registry *r, const char *digest, size_t source)
{
    for (size_t i = 0; i < PLACES; i++)
        if (r->places[i].url && r->places[i].source == source &&
            strcmp(r->places[i].digest, digest) == 0)
            return &r->places[i];
    return NULL;
}

/* The attempt's URL gives the blob. */
static void remember_place(const job *j)
{
    cp_registry *r = j->r;
    place *p = find_place(r, j->what, j->source);
    if (p && strcmp(p->url, j->url) == 0)
        return;
    if (!p)
        p = &r->places[r->n_places++ % PLACES];
    free(p->url);
    p->url = cp_xstrdup(j->url);
    p->source = j->source;
    cp_strcopy(p->digest, sizeof(p->digest), j->what);
}

/* Begin where the last range was had. Whatever goes wrong there, the next attempt asks the source
 * again (restart), which will name another place. */
static void use_place(job *j)
{
    const place *p = find_place(j->r, j->what, j->source);
    if (!p)
        return;
    cp_strcopy(j->url, sizeof(j->url), p->url);
    j->foreign = true;
}

/* ---- answers ---- */

/* A success's headers, before the first byte is taken. False: j->code says why not. */
static bool judge(job *j)
{
    const cp_exchange *x = &j->x;
    j->judged = true;
    if (x->content_encoding[0] && strcmp(x->content_encoding, "identity") != 0) {
        fail(j, CP_CORRUPT, "the server sends it encoded (%.20s) although identity was asked for",
             x->content_encoding);
        return false;
    }
    if (j->kind == JOB_MANIFEST) {
        if (x->status != 200)
            fail(j, CP_NETWORK, "status %d is no answer to a manifest", x->status);
        else if (x->has_length && x->length > CP_MANIFEST_MAX_BYTES)
            fail(j, CP_CORRUPT, "it has %llu bytes, the limit is %d", (unsigned long long)x->length,
                 CP_MANIFEST_MAX_BYTES);
        return j->code == CP_OK;
    }
    const cp_fetch *f = j->fetch;
    j->skip = 0;
    if (x->ranged && x->status == 206) {
        if (x->has_total && x->range_total != f->total)
            fail(j, CP_CORRUPT, "it has %llu bytes, its descriptor says %llu",
                 (unsigned long long)x->range_total, (unsigned long long)f->total);
        else if (!x->has_range || x->range_first != x->first || x->range_last > x->last)
            fail(j, CP_UNSUPPORTED,
                 "the server answers another range (%llu-%llu) than asked for (%llu-%llu)",
                 (unsigned long long)x->range_first, (unsigned long long)x->range_last,
                 (unsigned long long)x->first, (unsigned long long)x->last);
    } else if (x->status != 200) {
        fail(j, CP_NETWORK, "status %d is no answer to a blob", x->status);
    } else if (x->has_length && x->length != f->total) {
        fail(j, CP_CORRUPT, "it has %llu bytes, its descriptor says %llu",
             (unsigned long long)x->length, (unsigned long long)f->total);
    } else if (x->ranged && !wants_whole(j)) {
        fail(j, CP_UNSUPPORTED, "the server ignores ranges");
    } else {
        j->skip = j->sent; /* the whole again: pass by what was delivered */
    }
    if (j->code == CP_OK)
        j->resolved_again = j->denials = 0;
    if (j->code == CP_OK && j->foreign)
        remember_place(j);
    return j->code == CP_OK;
}

static bool on_body(cp_exchange *x, const void *p, size_t n)
{
    job *j = x->arg;
    if (!j->judged && !judge(j))
        return false;
    if (j->kind == JOB_MANIFEST) {
        if (n > CP_MANIFEST_MAX_BYTES - j->body->n) {
            fail(j, CP_CORRUPT, "it is longer than %d bytes", CP_MANIFEST_MAX_BYTES);
            return false;
        }
        if (!cp_buf_add(j->body, p, n))
            fail(j, CP_NO_MEMORY, "no memory for it");
        return j->code == CP_OK;
    }
    cp_fetch *f = j->fetch;
    const char *bytes = p;
    if (j->skip > 0) {
        size_t k = n < j->skip ? n : (size_t)j->skip;
        j->skip -= k;
        bytes += k;
        n -= k;
    }
    if (n > f->n - j->sent) {
        fail(j, CP_CORRUPT, "the server sends more than the %llu bytes asked for",
             (unsigned long long)f->n);
        return false;
    }
    if (n == 0)
        return true;
    j->code = f->data(f->arg, f->from + j->sent, bytes, n, &j->err);
    if (j->code != CP_OK) {
        j->final = true;
        return false;
    }
    j->sent += n;
    return true;
}

static void take_manifest(job *j)
{
    uint8_t raw[32], asked[32];
    char digest[CP_DIGEST_STR];
    cp_sha256_of(j->body->p ? j->body->p : "", j->body->n, raw);
    cp_digest_format(raw, digest);
    if (cp_digest_parse(j->what, asked)) {
        if (memcmp(raw, asked, 32) != 0)
            fail(j, CP_CORRUPT, "its digest is %s", digest);
    } else if (cp_digest_parse(j->x.content_digest, asked) && memcmp(raw, asked, 32) != 0) {
        fail(j, CP_CORRUPT, "its digest is %s, the registry says %s", digest, j->x.content_digest);
    }
    if (j->code != CP_OK) {
        give_up(j);
        return;
    }
    cp_strcopy(j->media_type, 128, j->x.content_type);
    end(j);
}

static void take_success(job *j)
{
    if (j->code == CP_OK && !j->judged)
        judge(j);
    if (j->code != CP_OK) {
        give_up(j);
    } else if (j->kind == JOB_BLOB && j->sent == j->fetch->n) {
        end(j);
    } else if (j->x.end != CP_HTTP_ANSWERED) {
        retry(j, j->x.problem, -1);
    } else if (j->kind == JOB_MANIFEST) {
        take_manifest(j);
    } else {
        char why[96];
        cp_snprintf(why, sizeof(why), "the answer ended after %llu of %llu bytes",
                    (unsigned long long)j->sent, (unsigned long long)j->fetch->n);
        retry(j, why, -1);
    }
}

static void take_redirect(job *j)
{
    char to[CP_URL_MAX];
    bool same;
    cp_err err;
    if (++j->hops > HOPS_MAX) {
        fail(j, CP_NETWORK, "more than %d redirects", HOPS_MAX);
    } else if (cp_url_redirect(j->url, j->x.location, source_of(j)->private_net, to, &same, &err)) {
        fail(j, CP_NETWORK, "%s", err.msg);
    } else {
        cp_strcopy(j->url, sizeof(j->url), to);
        j->foreign = j->foreign || !same; /* stays so, even if it leads back */
        j->due_ms = 0;
        return;
    }
    give_up(j);
}

/* "404: CODE: message" of an answer that is no success. */
static void status_text(const job *j, char out[320])
{
    char text[CP_WIRE_TEXT_MAX];
    cp_wire_error(j->x.text.p, j->x.text.n, text);
    cp_snprintf(out, 320, "status %d%s%s%s", j->x.status, j->foreign ? " behind a redirect" : "",
                *text ? ": " : "", text);
}

/* 401 of the source itself. */
static void take_denial(job *j, const char *why)
{
    cp_source *s = source_of(j);
    cp_err err;
    if (j->generation != s->generation && j->denials == 0) {
        restart(j, 0); /* somebody fetched another token meanwhile */
        j->denials++;
        return;
    }
    if (j->denials++ < DENIALS_MAX) {
        cp_code code = cp_auth_denied(s, j->x.challenges, j->r->opt.authfile, &err);
        if (code == CP_OK) {
            restart(j, 0);
            return;
        }
        fail(j, code, "unauthorized: %s (%s)", err.msg, why);
    } else {
        char reason[CP_AUTH_REASON_MAX];
        cp_auth_reason(j->x.challenges, reason);
        fail(j, CP_NETWORK, "unauthorized: %s%s; asked with %s%.200s", why, reason,
             cp_credential_any(&s->credential) ? "the credentials from " : "no credentials: ",
             s->credential.from);
    }
    give_up(j);
}

/* May a server that answers so have nothing against the request but its Range? Those of proxies and
 * of registries behind them are seen; the same request without one tells. */
static bool may_refuse_range(int status)
{
    return status == 400 || status == 403 || status == 405 || status == 416 || status == 501;
}

static void take_refusal(job *j)
{
    char why[320];
    int status = j->x.status;
    status_text(j, why);
    if (cp_retry_status(status)) {
        retry(j, why, j->x.retry_after_s);
        return;
    }
    if (j->foreign && status >= 400 && status < 500 && status != 416 &&
        j->resolved_again < RESOLVE_AGAIN_MAX) { /* a presigned URL that expired */
        j->resolved_again++;
        restart(j, 0);
        return;
    }
    if (status == 401 && !j->foreign) {
        take_denial(j, why);
        return;
    }
    cp_origin o;
    if (status == 401 && j->x.challenges[0] && cp_url_origin(j->url, &o))
        fail(j, CP_NETWORK,
             "it redirects to %s:%d, which wants credentials or a token of its own; behind a "
             "redirect none is given: name that registry in its place (%s)",
             o.host, o.port, why);
    else if (status == 404 || status == 410)
        fail(j, CP_NOT_FOUND, "not there: %s", why);
    else if (j->x.ranged && may_refuse_range(status))
        fail(j, CP_UNSUPPORTED, "the server refuses the range: %s", why);
    else if (status == 403)
        fail(j, CP_NETWORK, "forbidden: %s", why);
    else
        fail(j, CP_NETWORK, "%s", why);
    give_up(j);
}

/* A loopback host without a flag: is it http or https? True: the job was started again. */
static bool find_scheme(job *j)
{
    cp_source *s = source_of(j);
    const cp_exchange *x = &j->x;
    bool answered = x->end == CP_HTTP_ANSWERED || x->end == CP_HTTP_STOPPED;
    if (!s->scheme_open || j->foreign)
        return false;
    bool other = x->end == CP_HTTP_GARBLED || (x->end == CP_HTTP_LOST && x->status == 0) ||
                 (!j->was_https && x->status == 400);
    if (!j->was_https && other) {
        s->https = true;
        restart(j, 0);
        return true;
    }
    if (answered || (j->was_https && x->end == CP_HTTP_REFUSED)) {
        s->scheme_open = false;
        return false;
    }
    if (j->was_https) { /* neither: then it is the plain one in trouble */
        s->https = s->scheme_open = false;
    }
    return false;
}

static void on_done(cp_exchange *x)
{
    job *j = x->arg;
    cp_source *s = source_of(j);
    j->running = false;
    j->r->n_running--;
    if (x->status != 0) {
        s->contacted = true;
        cp_origin o;
        if (cp_url_origin(j->url, &o))
            cp_strcopy(j->r->host, sizeof(j->r->host), o.host);
        if (!j->foreign)
            s->private_net = s->private_net || x->private_peer;
    }
    if (j->final || x->end == CP_HTTP_STOPPED)
        give_up(j);
    else if (find_scheme(j))
        return;
    else if (x->other != CP_HTTP_AS_ASKED && (s->scheme_named || s->https || j->foreign)) {
        char why[320];
        status_text(j, why);
        fail_scheme(j, x->status ? why : x->problem);
        give_up(j);
    } else if (x->status >= 200 && x->status < 300)
        take_success(j);
    else if (x->end == CP_HTTP_REFUSED) {
        fail(j, CP_NETWORK, "%s", x->problem);
        give_up(j);
    } else if (x->end != CP_HTTP_ANSWERED)
        retry(j, x->problem, -1);
    else if (x->status == 301 || x->status == 302 || x->status == 303 || x->status == 307 ||
             x->status == 308)
        take_redirect(j);
    else
        take_refusal(j);
}

/* ---- scheduling ---- */

static void attempt(job *j)
{
    cp_source *s = source_of(j);
    cp_exchange *x = &j->x;
    if (!j->url[0]) {
        j->foreign = false;
        j->hops = 0;
        if (!cp_source_url(s, j->kind == JOB_BLOB ? "blobs" : "manifests", j->what, j->url)) {
            fail(j, CP_USAGE, "its URL is longer than %d bytes", CP_URL_MAX - 1);
            end(j);
            return;
        }
    }
    j->judged = false;
    j->code = CP_OK;
    j->was_https = s->https;
    x->url = j->url;
    x->accept = j->kind == JOB_MANIFEST ? ACCEPT_MANIFEST : NULL;
    x->private_ok = !j->foreign || s->private_net;
    bool known = !j->foreign;
    cp_buf *authorization = &j->r->authorization;
    cp_buf_clear(authorization);
    if (known && !cp_auth_header(s, authorization)) {
        fail(j, CP_NO_MEMORY, "no memory for its credentials");
        end(j);
        return;
    }
    x->authorization = authorization->n > 0 ? authorization->p : NULL;
    j->generation = s->generation;
    x->ca_file = !j->r->opt.ca_file && s->ca_file[0] ? s->ca_file : NULL;
    x->client_cert = !known                  ? NULL
                     : j->r->opt.client_cert ? j->r->opt.client_cert
                     : s->client_cert[0]     ? s->client_cert
                                             : NULL;
    x->client_key = j->r->opt.client_cert ? j->r->opt.client_key : s->client_key;
    bool probing = s->scheme_open && s->https;
    x->connect_timeout_ms = probing ? PROBE_MS : 0;
    if (j->kind == JOB_MANIFEST) {
        cp_buf_clear(j->body);
    } else {
        const cp_fetch *f = j->fetch;
        x->first = f->from + j->sent;
        x->last = f->from + f->n - 1;
        x->ranged = !j->whole && (x->first != 0 || f->n != f->total);
    }
    cp_err err;
    cp_code code = cp_client_start(j->r->http, x, &err);
    if (authorization->p)
        explicit_bzero(authorization->p, authorization->n);
    if (code != CP_OK) {
        fail(j, code, "%s", err.msg);
        end(j);
        return;
    }
    j->running = true;
    j->r->n_running++;
}

/* A token fetch ended: without a token, all who wait for it have failed. */
static void on_token(void *arg, cp_source *s, cp_code code, const cp_err *err)
{
    cp_registry *r = arg;
    uint64_t before = r->serial; /* what a `done` starts now is not among them */
    if (code == CP_OK)
        return;
    if (s->token) { /* it was to be renewed early: use it until it is refused */
        s->token_due_ms = INT64_MAX;
        return;
    }
    for (job *j = r->jobs; j;) {
        job *next = j->next;
        if (!j->running && !j->finished && source_of(j) == s && j->serial <= before) {
            fail(j, code, "unauthorized: %s", err->msg);
            give_up(j);
            next = r->jobs; /* `done` may have changed the list; this one is gone or moved on */
        }
        j = next;
    }
}

static void want_token(cp_registry *r, size_t source, int64_t now, int *wait_ms)
{
    if (!r->token[source]) {
        cp_token_options opt = {.max_retries = r->opt.max_retries,
                                .backoff_ms = r->opt.backoff_ms,
                                .client_cert = r->opt.client_cert,
                                .client_key = r->opt.client_key,
                                .done = on_token,
                                .arg = r};
        r->token[source] = cp_token_fetch_new(r->http, &r->source[source], &opt);
    }
    cp_token_want(r->token[source], now, wait_ms);
}

/* Start what is due while connections are free. *wait_ms shrinks to the next due time. */
static void start_due(cp_registry *r, int *wait_ms)
{
    int64_t now = now_ms();
    for (job *j = r->jobs; j && r->n_running < r->opt.connections;) {
        job *next = j->next;
        int64_t due = j->due_ms;
        if (due < source_of(j)->not_before_ms)
            due = source_of(j)->not_before_ms;
        if (!j->running && !j->finished) {
            if (due > now) {
                if (due - now < *wait_ms)
                    *wait_ms = (int)(due - now);
            } else if (j->kind == JOB_BLOB && j->sent == j->fetch->n) { /* of no bytes */
                end(j);
                next = r->jobs; /* `done` may have changed the list */
            } else if (!(j->url[0] && j->foreign) && cp_auth_stale(source_of(j), now)) {
                int ended = r->n_ended;
                want_token(r, j->source, now, wait_ms);
                if (r->n_ended != ended)
                    next = r->jobs;
            } else {
                int ended = r->n_ended;
                attempt(j);
                if (r->n_ended != ended)
                    next = r->jobs;
            }
        }
        j = next;
    }
}

static cp_code step(cp_registry *r, int timeout_ms, cp_err *err)
{
    int n, wait = timeout_ms, ended = r->n_ended;
    uint64_t received = cp_client_received(r->http);
    start_due(r, &wait);
    cp_code code = cp_client_step(r->http, &n, err);
    if (code == CP_OK) {
        wait = timeout_ms;
        start_due(r, &wait);
        if (r->jobs && r->n_ended == ended && received == cp_client_received(r->http) && wait > 0)
            code = cp_client_wait(r->http, wait, err);
    }
    return code;
}

/* See registry.h. */
cp_code cp_registry_step(cp_registry *r, int timeout_ms, int *running, cp_err *err)
{
    cp_code code = step(r, timeout_ms, err);
    *running = 0;
    for (const job *j = r->jobs; j; j = j->next)
        *running += j->kind == JOB_BLOB;
    return code;
}

static job *job_new(cp_registry *r, job_kind kind, const char *what)
{
    job *j = cp_xcalloc(1, sizeof(*j));
    j->r = r;
    j->serial = ++r->serial;
    j->kind = kind;
    j->x.body = on_body;
    j->x.done = on_done;
    j->x.arg = j;
    cp_strcopy(j->what, sizeof(j->what), what);
    uint8_t raw[32];
    j->source = r->n_sources - 1;
    if (cp_digest_parse(what, raw) && r->n_sources > 1) {
        j->source = 0;
        if (r->dead[0])
            j->source = next_source(j);
    }
    return j;
}

/* See registry.h. */
cp_code cp_registry_fetch(cp_registry *r, cp_fetch *f, cp_err *err)
{
    uint8_t raw[32];
    CP_ASSERT(!f->impl && f->data && f->done);
    if (!cp_digest_parse(f->digest, raw))
        return cp_fail(err, CP_USAGE, "'%.100s' is no sha256 digest", f->digest);
    if (f->n > f->total || f->from > f->total - f->n)
        return cp_fail(err, CP_USAGE, "range %llu+%llu lies outside of a blob of %llu bytes",
                       (unsigned long long)f->from, (unsigned long long)f->n,
                       (unsigned long long)f->total);
    job *j = job_new(r, JOB_BLOB, f->digest);
    j->fetch = f;
    if (f->upstream_only)
        j->source = r->n_sources - 1;
    use_place(j);
    f->impl = j;
    job **p = &r->jobs;
    while (*p)
        p = &(*p)->next;
    *p = j;
    return CP_OK;
}

void cp_registry_cancel(cp_registry *r, cp_fetch *f)
{
    job *j = f->impl;
    if (!j)
        return;
    CP_ASSERT(j->r == r && j->fetch == f);
    f->impl = NULL;
    job_free(j);
}

/* See registry.h. */
cp_code cp_registry_manifest(cp_registry *r, const char *reference, cp_buf *body,
                             char media_type[128], cp_err *err)
{
    size_t n = strlen(reference);
    if (n == 0 || n > 140 ||
        strspn(reference, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-:") !=
            n)
        return cp_fail(err, CP_USAGE, "'%.160s' is neither a tag nor a digest", reference);
    job *j = job_new(r, JOB_MANIFEST, reference);
    media_type[0] = '\0';
    cp_buf_clear(body);
    j->body = body;
    j->media_type = media_type;
    j->next = r->jobs;
    r->jobs = j;
    cp_code code = CP_OK;
    while (code == CP_OK && !j->finished)
        code = step(r, 1000, err);
    if (code == CP_OK && j->code != CP_OK) {
        code = j->code;
        if (err)
            *err = j->err;
    }
    job_free(j);
    return code;
}

/* ---- open and close ---- */

static cp_code open_sources(cp_registry *r, const cp_ref *ref, cp_err *err)
{
    const cp_registry_options *opt = &r->opt;
    for (int i = 0; i < opt->n_mirrors; i++) {
        bool applies;
        if (r->n_sources + 1 == CP_SOURCES_MAX)
            return cp_fail(err, CP_USAGE, "mirror: more than %d for one registry",
                           CP_SOURCES_MAX - 1);
        cp_code code =
            cp_source_mirror(&r->source[r->n_sources], opt->mirrors[i], ref, opt, &applies, err);
        if (code != CP_OK)
            return code;
        r->n_sources += applies;
    }
    r->n_sources++;
    return cp_source_upstream(&r->source[r->n_sources - 1], ref, opt, err);
}

/* See registry.h. */
cp_code cp_registry_open(cp_registry **out, const cp_ref *ref, const cp_registry_options *opt,
                         cp_err *err)
{
    *out = NULL;
    if (ref->kind != CP_REF_NAME)
        return cp_fail(err, CP_USAGE, "only a name can be asked of a registry");
    if (opt->connections < 0 || opt->connections > CP_HTTP_CONNECTIONS_MAX)
        return cp_fail(err, CP_USAGE, "connections: got %d; allowed: 1 to %d", opt->connections,
                       CP_HTTP_CONNECTIONS_MAX);
    if (opt->client_cert && access(opt->client_cert, R_OK) != 0)
        return cp_fail(err, CP_USAGE, "client-cert: %s cannot be read", opt->client_cert);
    if (opt->client_key && (!opt->client_cert || access(opt->client_key, R_OK) != 0))
        return cp_fail(err, CP_USAGE, "client-key: %s %s", opt->client_key,
                       opt->client_cert ? "cannot be read" : "is of no use without client-cert");
    cp_code named = cp_credential_named(opt->authfile, err);
    if (named != CP_OK)
        return named;
    cp_registry *r = cp_xcalloc(1, sizeof(*r));
    r->opt = *opt;
    if (r->opt.connections == 0)
        r->opt.connections = CONNECTIONS;
    if (r->opt.stall_ms <= 0)
        r->opt.stall_ms = STALL_MS;
    if (r->opt.max_retries <= 0)
        r->opt.max_retries = RETRIES;
    if (r->opt.backoff_ms <= 0)
        r->opt.backoff_ms = BACKOFF_MS;
    if (getrandom(&r->random, sizeof(r->random), 0) != (ssize_t)sizeof(r->random) || !r->random)
        r->random = (uint64_t)cp_now_ns() | 1;
    cp_snprintf(r->name, sizeof(r->name), "%s/%s", ref->registry, ref->repository);
    cp_client_options http = {
        .ca_file = r->opt.ca_file, .stall_ms = r->opt.stall_ms, .connections = r->opt.connections};
    cp_code code = open_sources(r, ref, err);
    if (code == CP_OK)
        code = cp_client_open(&r->http, &http, err);
    if (code != CP_OK) {
        cp_registry_close(r);
        return code;
    }
    *out = r;
    return CP_OK;
}

void cp_registry_close(cp_registry *r)
{
    if (!r)
        return;
    while (r->jobs) {
        if (r->jobs->fetch)
            r->jobs->fetch->impl = NULL;
        job_free(r->jobs);
    }
    for (size_t i = 0; i < CP_SOURCES_MAX; i++) {
        cp_token_fetch_free(r->token[i]);
        cp_source_fini(&r->source[i]);
    }
    for (size_t i = 0; i < PLACES; i++)
        free(r->places[i].url);
    cp_client_close(r->http);
    cp_buf_fini(&r->authorization);
    free(r);
}

uint64_t cp_registry_received(const cp_registry *r)
{
    return cp_client_received(r->http);
}

const char *cp_registry_name(const cp_registry *r)
{
    return r->name;
}

const char *cp_registry_host(const cp_registry *r)
{
    return r->host;
}
