/*
 * The registry client. Jobs are started while connections are free, in the order in which they
 * came, each once its pause is over and its endpoint has a token. A job's `done` may start and
 * cancel others, so lists are walked again from their beginning after one. What is specified is
 * the distribution-spec's Pulling section; the token service is Docker's (distribution, "Token
 * Authentication Specification").
 */
#include "loader/oci/remote/registry.h"
#include "base/clock.h"
#include "base/digest.h"
#include "loader/oci/remote/answers.h"
#include "loader/oci/remote/auth.h"
#include "loader/oci/remote/credentials.h"
#include "loader/oci/remote/job.h"
#include "loader/oci/store/manifest.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

enum {
    RETRIES = 6,
    STALL_MS = 30000,
    BACKOFF_MS = 250,
    PROBE_MS = 3000, /* to find out whether a loopback host speaks TLS */
};

static const char ACCEPT_MANIFEST[] =
    CP_MT_OCI_MANIFEST ", " CP_MT_OCI_INDEX ", " CP_MT_DOCKER_MANIFEST ", " CP_MT_DOCKER_LIST;

/* ---- attempts ---- */

/* Begin where the last range was had. Whatever goes wrong there, the next attempt asks the endpoint
 * again (cp_job_restart), which will redirect anew. */
static void use_redirect(cp_job *j)
{
    const char *url = cp_redirects_find(&j->r->redirects, j->what, j->endpoint);
    if (!url)
        return;
    cp_strcopy(j->url, sizeof(j->url), url);
    j->foreign = true;
}

/* The attempt's URL, made from its endpoint unless a redirect has given one. */
static bool set_url(cp_job *j)
{
    const char *kind = j->kind == CP_JOB_BLOB ? "blobs" : "manifests";
    if (j->url[0])
        return true;
    j->foreign = false;
    j->hops = 0;
    if (cp_endpoint_url(cp_job_endpoint(j), kind, j->what, j->url))
        return true;
    cp_job_fail(j, CP_USAGE, "its URL is longer than %d bytes", CP_URL_MAX - 1);
    return false;
}

/* Credentials and certificates: what the endpoint may see, and a host behind a redirect not. */
static bool set_secrets(cp_job *j, cp_buf *authorization)
{
    const cp_endpoint *e = cp_job_endpoint(j);
    const cp_registry_options *opt = &j->r->opt;
    cp_exchange *x = &j->x;
    cp_buf_clear(authorization);
    if (!j->foreign && !cp_auth_header(e, authorization)) {
        cp_job_fail(j, CP_NO_MEMORY, "no memory for its credentials");
        return false;
    }
    x->authorization = authorization->n > 0 ? authorization->p : NULL;
    x->ca_file = !opt->ca_file && e->ca_file[0] ? e->ca_file : NULL;
    x->client_cert = j->foreign          ? NULL
                     : opt->client_cert  ? opt->client_cert
                     : e->client_cert[0] ? e->client_cert
                                         : NULL;
    x->client_key = opt->client_cert ? opt->client_key : e->client_key;
    j->generation = e->generation;
    return true;
}

/* What part of a blob is still to come, or all of a manifest once more. */
static void set_range(cp_job *j)
{
    cp_exchange *x = &j->x;
    const cp_fetch *f = j->fetch;
    if (j->kind == CP_JOB_MANIFEST) {
        cp_buf_clear(j->body);
        return;
    }
    x->first = f->from + j->sent;
    x->last = f->from + f->n - 1;
    x->ranged = !j->whole && (x->first != 0 || f->n != f->total);
}

static void attempt(cp_job *j)
{
    const cp_endpoint *e = cp_job_endpoint(j);
    cp_exchange *x = &j->x;
    cp_buf *authorization = &j->r->authorization;
    cp_err err;
    if (!set_url(j) || !set_secrets(j, authorization)) {
        cp_job_end(j);
        return;
    }
    j->judged = false;
    j->code = CP_OK;
    j->was_https = e->https;
    x->url = j->url;
    x->accept = j->kind == CP_JOB_MANIFEST ? ACCEPT_MANIFEST : NULL;
    x->private_ok = !j->foreign || e->private_net;
    x->connect_timeout_ms = e->scheme_open && e->https ? PROBE_MS : 0;
    set_range(j);
    cp_code code = cp_client_start(j->r->http, x, &err);
    cp_buf_wipe(authorization);
    if (code != CP_OK) {
        cp_job_fail(j, code, "%s", err.msg);
        cp_job_end(j);
        return;
    }
    j->running = true;
    j->r->n_running++;
}

/* ---- scheduling ---- */

/* A token fetch ended: without a token, all who wait for it have failed. */
static void on_token(void *arg, cp_endpoint *e, cp_code code, const cp_err *err)
{
    cp_registry *r = arg;
    uint64_t before = r->serial; /* what a `done` starts now is not among them */
    if (code == CP_OK)
        return;
    if (e->token) { /* it was to be renewed early: use it until it is refused */
        e->token_due_ms = INT64_MAX;
        return;
    }
    for (cp_job *j = r->jobs; j;) {
        cp_job *next = j->next;
        if (!j->running && !j->finished && cp_job_endpoint(j) == e && j->serial <= before) {
            cp_job_fail(j, code, "unauthorized: %s", err->msg);
            cp_job_give_up(j);
            next = r->jobs; /* `done` may have changed the list; this one is gone or moved on */
        }
        j = next;
    }
}

static void want_token(cp_registry *r, size_t i, int64_t now, int *wait_ms)
{
    if (!r->token[i]) {
        cp_token_options opt = {.max_retries = r->opt.max_retries,
                                .backoff_ms = r->opt.backoff_ms,
                                .client_cert = r->opt.client_cert,
                                .client_key = r->opt.client_key,
                                .done = on_token,
                                .arg = r};
        r->token[i] = cp_token_fetch_new(r->http, &r->endpoint[i], &opt);
    }
    cp_token_want(r->token[i], now, wait_ms);
}

/* What job j needs next, if that is due; else *wait_ms shrinks to the time until it is. */
static void go_on(cp_job *j, int64_t now, int *wait_ms)
{
    const cp_endpoint *e = cp_job_endpoint(j);
    int64_t due = j->due_ms < e->not_before_ms ? e->not_before_ms : j->due_ms;
    if (due > now) {
        if (due - now < *wait_ms)
            *wait_ms = (int)(due - now);
    } else if (j->kind == CP_JOB_BLOB && j->sent == j->fetch->n) { /* of no bytes */
        cp_job_end(j);
    } else if (!(j->url[0] && j->foreign) && cp_auth_stale(e, now)) {
        want_token(j->r, j->endpoint, now, wait_ms);
    } else {
        attempt(j);
    }
}

/* Start what is due while connections are free. *wait_ms shrinks to the next due time. */
static void start_due(cp_registry *r, int *wait_ms)
{
    int64_t now = cp_job_now_ms();
    for (cp_job *j = r->jobs; j && r->n_running < r->opt.connections;) {
        cp_job *next = j->next;
        int ended = r->n_ended;
        if (!j->running && !j->finished)
            go_on(j, now, wait_ms);
        j = r->n_ended == ended ? next : r->jobs; /* a `done` may have changed the list */
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
    for (const cp_job *j = r->jobs; j; j = j->next)
        *running += j->kind == CP_JOB_BLOB;
    return code;
}

static cp_job *new_job(cp_registry *r, cp_job_kind kind, const char *what, cp_fetch *f)
{
    cp_job *j = cp_job_new(r, kind, what, f);
    j->x.body = cp_answer_body;
    j->x.done = cp_answer_done;
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
    cp_job *j = new_job(r, CP_JOB_BLOB, f->digest, f);
    use_redirect(j);
    f->impl = j;
    cp_job **p = &r->jobs;
    while (*p)
        p = &(*p)->next;
    *p = j;
    return CP_OK;
}

void cp_registry_cancel(cp_registry *r, cp_fetch *f)
{
    cp_job *j = f->impl;
    if (!j)
        return;
    CP_ASSERT(j->r == r && j->fetch == f);
    f->impl = NULL;
    cp_job_free(j);
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
    cp_job *j = new_job(r, CP_JOB_MANIFEST, reference, NULL);
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
    cp_job_free(j);
    return code;
}

/* ---- open and close ---- */

static cp_code open_endpoints(cp_registry *r, const cp_ref *ref, cp_err *err)
{
    const cp_registry_options *opt = &r->opt;
    for (int i = 0; i < opt->n_mirrors; i++) {
        bool applies;
        if (r->n_endpoints + 1 == CP_ENDPOINTS_MAX)
            return cp_fail(err, CP_USAGE, "mirror: more than %d for one registry",
                           CP_ENDPOINTS_MAX - 1);
        cp_code code = cp_endpoint_mirror(&r->endpoint[r->n_endpoints], opt->mirrors[i], ref, opt,
                                          &applies, err);
        if (code != CP_OK)
            return code;
        r->n_endpoints += applies;
    }
    r->n_endpoints++;
    return cp_endpoint_upstream(&r->endpoint[r->n_endpoints - 1], ref, opt, err);
}

static cp_code check_options(const cp_registry_options *opt, cp_err *err)
{
    if (opt->connections < 0 || opt->connections > CP_CONNECTIONS_MAX)
        return cp_fail(err, CP_USAGE, "connections: got %d; allowed: 1 to %d", opt->connections,
                       CP_CONNECTIONS_MAX);
    if (opt->client_cert && access(opt->client_cert, R_OK) != 0)
        return cp_fail(err, CP_USAGE, "client-cert: %s cannot be read", opt->client_cert);
    if (opt->client_key && (!opt->client_cert || access(opt->client_key, R_OK) != 0))
        return cp_fail(err, CP_USAGE, "client-key: %s %s", opt->client_key,
                       opt->client_cert ? "cannot be read" : "is of no use without client-cert");
    return cp_credential_named(opt->authfile, err);
}

static void set_defaults(cp_registry_options *opt)
{
    if (opt->connections == 0)
        opt->connections = CP_CONNECTIONS_DEFAULT;
    if (opt->stall_ms <= 0)
        opt->stall_ms = STALL_MS;
    if (opt->max_retries <= 0)
        opt->max_retries = RETRIES;
    if (opt->backoff_ms <= 0)
        opt->backoff_ms = BACKOFF_MS;
}

/* See registry.h. */
cp_code cp_registry_open(cp_registry **out, const cp_ref *ref, const cp_registry_options *opt,
                         cp_err *err)
{
    *out = NULL;
    if (ref->kind != CP_REF_NAME)
        return cp_fail(err, CP_USAGE, "only a name can be asked of a registry");
    cp_code code = check_options(opt, err);
    if (code != CP_OK)
        return code;
    cp_registry *r = cp_xcalloc(1, sizeof(*r));
    r->opt = *opt;
    set_defaults(&r->opt);
    if (getrandom(&r->random, sizeof(r->random), 0) != (ssize_t)sizeof(r->random) || !r->random)
        r->random = (uint64_t)cp_now_ns() | 1;
    cp_snprintf(r->name, sizeof(r->name), "%s/%s", ref->registry, ref->repository);
    cp_client_options http = {
        .ca_file = r->opt.ca_file, .stall_ms = r->opt.stall_ms, .connections = r->opt.connections};
    code = open_endpoints(r, ref, err);
    if (code == CP_OK)
        code = cp_client_open(&r->http, &http, err);
    if (code == CP_OK)
        *out = r;
    else
        cp_registry_close(r);
    return code;
}

void cp_registry_close(cp_registry *r)
{
    if (!r)
        return;
    while (r->jobs) {
        if (r->jobs->fetch)
            r->jobs->fetch->impl = NULL;
        cp_job_free(r->jobs);
    }
    for (size_t i = 0; i < CP_ENDPOINTS_MAX; i++) {
        cp_token_fetch_free(r->token[i]);
        cp_endpoint_fini(&r->endpoint[i]);
    }
    cp_redirects_fini(&r->redirects);
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
