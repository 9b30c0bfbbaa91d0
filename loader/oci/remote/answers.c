/*
 * Answers are judged by the distribution-spec's Pulling section and RFC 9110 (redirects §15.4,
 * ranges §14, 401 §11). Headers are judged before the first byte of a body is taken. A status says
 * nothing by itself: 403 may refuse the request, its Range or an expired URL. A blob in ranges,
 * for example:
 *
 *     GET /v2/ai/smollm2/blobs/sha256:...        Range: bytes=0-16777215
 *     307 Location: https://cdn.example/...      another host: without credentials from here on
 *     206 Content-Range: bytes 0-16777215/...    its total must be the descriptor's size
 */
#include "loader/oci/remote/answers.h"
#include "base/digest.h"
#include "loader/oci/remote/auth.h"
#include "loader/oci/remote/reply.h"
#include "loader/oci/remote/retry.h"
#include "loader/oci/remote/scheme.h"
#include "loader/oci/store/manifest.h"

#include <string.h>

enum {
    HOPS_MAX = 10,
    DENIALS_MAX = 1,       /* 401 in a row that a job answers */
    RESOLVE_AGAIN_MAX = 2, /* expired presigned URLs in a row */
};

/* May these headers stand over a manifest? Else j->code says why not. */
static void judge_manifest(cp_job *j)
{
    const cp_exchange *x = &j->x;
    if (x->status != 200)
        cp_job_fail(j, CP_NETWORK, "status %d is no answer to a manifest", x->status);
    else if (x->has_length && x->length > CP_MANIFEST_MAX_BYTES)
        cp_job_fail(j, CP_CORRUPT, "it has %llu bytes, the limit is %d",
                    (unsigned long long)x->length, CP_MANIFEST_MAX_BYTES);
}

/* Over the range of a blob that was asked for, or the whole? */
static void judge_blob(cp_job *j)
{
    const cp_exchange *x = &j->x;
    const cp_fetch *f = j->fetch;
    bool part = x->ranged && x->status == 206;
    uint64_t total = part ? x->range_total : x->length;
    j->skip = 0;
    if (!part && x->status != 200)
        cp_job_fail(j, CP_NETWORK, "status %d is no answer to a blob", x->status);
    else if ((part ? x->has_total : x->has_length) && total != f->total)
        cp_job_fail(j, CP_CORRUPT, "it has %llu bytes, its descriptor says %llu",
                    (unsigned long long)total, (unsigned long long)f->total);
    else if (part && (!x->has_range || x->range_first != x->first || x->range_last > x->last))
        cp_job_fail(j, CP_UNSUPPORTED,
                    "the server answers another range (%llu-%llu) than asked for (%llu-%llu)",
                    (unsigned long long)x->range_first, (unsigned long long)x->range_last,
                    (unsigned long long)x->first, (unsigned long long)x->last);
    else if (!part && x->ranged && (!cp_job_wants_whole(j) || cp_job_has_next(j)))
        cp_job_fail(j, CP_UNSUPPORTED, "the server ignores ranges");
    else if (!part)
        j->skip = j->sent; /* the whole again: pass by what was delivered */
}

/* A success's headers, before the first byte is taken. False: j->code says why not. */
static bool judge(cp_job *j)
{
    const cp_exchange *x = &j->x;
    j->judged = true;
    if (x->content_encoding[0] && strcmp(x->content_encoding, "identity") != 0)
        cp_job_fail(j, CP_CORRUPT,
                    "the server sends it encoded (%.20s) although identity was asked for",
                    x->content_encoding);
    else if (j->kind == CP_JOB_MANIFEST)
        judge_manifest(j);
    else
        judge_blob(j);
    if (j->kind == CP_JOB_BLOB && j->code == CP_OK) {
        j->spent.resolved_again = j->spent.denials = 0;
        if (j->foreign)
            cp_redirects_put(&j->r->redirects, j->what, j->endpoint, j->url);
    }
    return j->code == CP_OK;
}

/* Bytes of a manifest. False: j->code says why no more are wanted. */
static bool add_manifest(cp_job *j, const void *p, size_t n)
{
    if (n > CP_MANIFEST_MAX_BYTES - j->body->n)
        cp_job_fail(j, CP_CORRUPT, "it is longer than %d bytes", CP_MANIFEST_MAX_BYTES);
    else if (!cp_buf_add(j->body, p, n))
        cp_job_fail(j, CP_NO_MEMORY, "no memory for it");
    return j->code == CP_OK;
}

/* Bytes of a blob, to the fetch's callback; those that it has had already are passed by. */
static bool add_blob(cp_job *j, const char *p, size_t n)
{
    cp_fetch *f = j->fetch;
    size_t had = n < j->skip ? n : (size_t)j->skip;
    j->skip -= had;
    p += had;
    n -= had;
    if (n > f->n - j->sent) {
        cp_job_fail(j, CP_CORRUPT, "the server sends more than the %llu bytes asked for",
                    (unsigned long long)f->n);
        return false;
    }
    if (n == 0)
        return true;
    j->code = f->data(f->arg, f->from + j->sent, p, n, &j->err);
    if (j->code != CP_OK) {
        j->final = true;
        return false;
    }
    j->sent += n;
    return true;
}

/* See answers.h. */
bool cp_answer_body(cp_exchange *x, const void *p, size_t n)
{
    cp_job *j = x->arg;
    if (!j->judged && !judge(j))
        return false;
    return j->kind == CP_JOB_MANIFEST ? add_manifest(j, p, n) : add_blob(j, p, n);
}

static void take_manifest(cp_job *j)
{
    uint8_t raw[32], asked[32];
    char digest[CP_DIGEST_STR];
    cp_sha256_of(j->body->p ? j->body->p : "", j->body->n, raw);
    cp_digest_format(raw, digest);
    if (cp_digest_parse(j->what, asked)) {
        if (memcmp(raw, asked, 32) != 0)
            cp_job_fail(j, CP_CORRUPT, "its digest is %s", digest);
    } else if (cp_digest_parse(j->x.content_digest, asked) && memcmp(raw, asked, 32) != 0) {
        cp_job_fail(j, CP_CORRUPT, "its digest is %s, the registry says %s", digest,
                    j->x.content_digest);
    }
    if (j->code != CP_OK) {
        cp_job_give_up(j);
        return;
    }
    cp_strcopy(j->media_type, 128, j->x.content_type);
    cp_job_end(j);
}

static void take_success(cp_job *j)
{
    if (j->code == CP_OK && !j->judged)
        judge(j);
    if (j->code != CP_OK) {
        cp_job_give_up(j);
    } else if (j->kind == CP_JOB_BLOB && j->sent == j->fetch->n) {
        cp_job_end(j);
    } else if (j->x.end != CP_CLIENT_ANSWERED) {
        cp_job_retry(j, j->x.problem, -1);
    } else if (j->kind == CP_JOB_MANIFEST) {
        take_manifest(j);
    } else {
        char why[96];
        cp_snprintf(why, sizeof(why), "the answer ended after %llu of %llu bytes",
                    (unsigned long long)j->sent, (unsigned long long)j->fetch->n);
        cp_job_retry(j, why, -1);
    }
}

static void take_redirect(cp_job *j)
{
    char to[CP_URL_MAX];
    bool same;
    cp_err err;
    if (++j->hops > HOPS_MAX) {
        cp_job_fail(j, CP_NETWORK, "more than %d redirects", HOPS_MAX);
    } else if (cp_url_redirect(j->url, j->x.location, cp_job_endpoint(j)->private_net, to, &same,
                               &err)) {
        cp_job_fail(j, CP_NETWORK, "%s", err.msg);
    } else {
        cp_strcopy(j->url, sizeof(j->url), to);
        j->foreign = j->foreign || !same; /* stays so, even if it leads back */
        j->due_ms = 0;
        return;
    }
    cp_job_give_up(j);
}

/* "404: CODE: message" of an answer that is no success. */
static void status_text(const cp_job *j, char out[320])
{
    char text[CP_REPLY_TEXT_MAX];
    cp_reply_error(j->x.text.p, j->x.text.n, text);
    cp_snprintf(out, 320, "status %d%s%s%s", j->x.status, j->foreign ? " behind a redirect" : "",
                *text ? ": " : "", text);
}

/* 401 of the endpoint itself. */
static void take_denial(cp_job *j, const char *why)
{
    cp_endpoint *e = cp_job_endpoint(j);
    cp_err err;
    if (j->generation != e->generation && j->spent.denials == 0) {
        cp_job_restart(j, 0); /* somebody fetched another token meanwhile */
        j->spent.denials++;
        return;
    }
    if (j->spent.denials++ < DENIALS_MAX) {
        cp_code code = cp_auth_denied(e, j->x.challenges, j->r->opt.authfile, &err);
        if (code == CP_OK) {
            cp_job_restart(j, 0);
            return;
        }
        cp_job_fail(j, code, "unauthorized: %s (%s)", err.msg, why);
    } else {
        char reason[CP_AUTH_REASON_MAX];
        cp_auth_reason(j->x.challenges, reason);
        cp_job_fail(j, CP_NETWORK, "unauthorized: %s%s; asked with %s%.200s", why, reason,
                    cp_credential_any(&e->credential) ? "the credentials from "
                                                      : "no credentials: ",
                    e->credential.from);
    }
    cp_job_give_up(j);
}

/* May a server that answers so have nothing against the request but its Range? Those of proxies and
 * of registries behind them are seen; the same request without one tells. */
static bool may_refuse_range(int status)
{
    return status == 400 || status == 403 || status == 405 || status == 416 || status == 501;
}

/* Why a refusal is final, as the job's failure. */
static void note_refusal(cp_job *j, const char *why)
{
    int status = j->x.status;
    cp_origin o;
    if (status == 401 && j->x.challenges[0] && cp_url_origin(j->url, &o))
        cp_job_fail(j, CP_NETWORK,
                    "it redirects to %s:%d, which wants credentials or a token of its own; behind "
                    "a redirect none is given: name that registry in its place (%s)",
                    o.host, o.port, why);
    else if (status == 404 || status == 410)
        cp_job_fail(j, CP_NOT_FOUND, "not there: %s", why);
    else if (j->x.ranged && may_refuse_range(status))
        cp_job_fail(j, CP_UNSUPPORTED, "the server refuses the range: %s", why);
    else
        cp_job_fail(j, CP_NETWORK, "%s%s", status == 403 ? "forbidden: " : "", why);
}

static void take_refusal(cp_job *j)
{
    char why[320];
    int status = j->x.status;
    status_text(j, why);
    if (cp_retry_status(status)) {
        cp_job_retry(j, why, j->x.retry_after_s);
    } else if (j->foreign && status >= 400 && status < 500 && status != 416 &&
               j->spent.resolved_again < RESOLVE_AGAIN_MAX) { /* a presigned URL that expired */
        j->spent.resolved_again++;
        cp_job_restart(j, 0);
    } else if (status == 401 && !j->foreign) {
        take_denial(j, why);
    } else {
        note_refusal(j, why);
        cp_job_give_up(j);
    }
}

/* Who answered, as far as that tells something about the endpoint. */
static void note_peer(cp_job *j)
{
    cp_endpoint *e = cp_job_endpoint(j);
    cp_origin o;
    e->contacted = true;
    if (cp_url_origin(j->url, &o))
        cp_strcopy(j->r->host, sizeof(j->r->host), o.host);
    if (!j->foreign)
        e->private_net = e->private_net || j->x.private_peer;
}

/* See answers.h. */
void cp_answer_done(cp_exchange *x)
{
    cp_job *j = x->arg;
    const cp_endpoint *e = cp_job_endpoint(j);
    j->running = false;
    j->r->n_running--;
    if (x->status != 0)
        note_peer(j);
    if (j->final || x->end == CP_CLIENT_STOPPED)
        cp_job_give_up(j);
    else if (cp_scheme_find(j))
        return;
    else if (x->other != CP_CLIENT_AS_ASKED && (e->scheme_named || e->https || j->foreign)) {
        char why[320];
        status_text(j, why);
        cp_scheme_fail(j, x->status ? why : x->problem);
        cp_job_give_up(j);
    } else if (x->status >= 200 && x->status < 300)
        take_success(j);
    else if (x->end == CP_CLIENT_REFUSED) {
        cp_job_fail(j, CP_NETWORK, "%s", x->problem);
        cp_job_give_up(j);
    } else if (x->end != CP_CLIENT_ANSWERED)
        cp_job_retry(j, x->problem, -1);
    else if (cp_redirect_status(x->status))
        take_redirect(j);
    else
        take_refusal(j);
}
