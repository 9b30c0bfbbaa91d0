/*
 * The token request (distribution, "Token Authentication Specification" and "OAuth2 Token
 * Authentication"): a GET with Basic credentials, or a POST with an identity token. It carries
 * credentials and is answered with one, so it is redirected within its own origin only, and a
 * POST, whose body is a secret, not at all. For example,
 *
 *     GET https://auth.docker.io/token?service=registry.docker.io&scope=repository:ai/smollm2:pull
 */
#include "loader/oci/remote/token.h"
#include "base/clock.h"
#include "loader/oci/remote/auth.h"
#include "loader/oci/remote/reply.h"
#include "loader/oci/remote/retry.h"

#include <stdlib.h>
#include <string.h>

enum { HOPS_MAX = 5, TIMEOUT_MS = 60000, REPLY_MAX = 128 << 10 };

struct cp_token_fetch {
    cp_client *http;
    cp_endpoint *endpoint;
    cp_token_options opt;
    cp_exchange x;
    char url[CP_URL_MAX]; /* "" = from the beginning */
    cp_buf form, authorization, body;
    bool running;
    int hops, retries;
    int64_t due_ms;
};

static void end(cp_token_fetch *t, cp_code code, const cp_err *err)
{
    cp_buf_wipe(&t->form);
    cp_buf_wipe(&t->authorization);
    cp_buf_wipe(&t->body);
    t->url[0] = '\0';
    t->retries = 0;
    t->due_ms = 0;
    t->opt.done(t->opt.arg, t->endpoint, code, err);
}

static void fail(cp_token_fetch *t, const char *what)
{
    cp_err err;
    cp_origin o = {.host = "?"};
    cp_url_origin(t->url, &o);
    const cp_credential *c = &t->endpoint->credential;
    cp_fail(&err, CP_NETWORK, "token service %s: %s; asked with %s%.160s", o.host, what,
            cp_credential_any(c) ? "the credentials from " : "no credentials: ", c->from);
    end(t, CP_NETWORK, &err);
}

static void retry(cp_token_fetch *t, const char *what, int64_t retry_after_s)
{
    if (t->retries >= t->opt.max_retries || retry_after_s > CP_RETRY_AFTER_MAX_S) {
        fail(t, what);
        return;
    }
    uint32_t jitter = (uint32_t)(cp_now_ns() * 2654435761);
    t->due_ms = cp_now_ns() / 1000000 +
                cp_backoff_ms(t->opt.backoff_ms, t->retries++, retry_after_s, jitter);
    t->url[0] = '\0';
}

static bool on_body(cp_exchange *x, const void *p, size_t n)
{
    cp_token_fetch *t = x->arg;
    return cp_buf_add(&t->body, p, n);
}

static void redirect(cp_token_fetch *t)
{
    char to[CP_URL_MAX];
    bool same;
    cp_err err;
    if (t->form.n > 0)
        fail(t, "it redirects a POST");
    else if (++t->hops > HOPS_MAX)
        fail(t, "too many redirects");
    else if (cp_url_redirect(t->url, t->x.location, t->endpoint->private_net, to, &same, &err))
        fail(t, err.msg);
    else if (!same)
        fail(t, "it redirects to another host");
    else
        cp_strcopy(t->url, sizeof(t->url), to);
}

static void on_done(cp_exchange *x)
{
    cp_token_fetch *t = x->arg;
    char why[CP_REPLY_TEXT_MAX + 32], text[CP_REPLY_TEXT_MAX];
    cp_err err;
    t->running = false;
    cp_reply_error(x->text.p, x->text.n, text);
    cp_snprintf(why, sizeof(why), "status %d%s%s", x->status, *text ? ": " : "", text);
    if (x->other != CP_CLIENT_AS_ASKED) {
        cp_snprintf(why, sizeof(why), "it seems to speak %s, and its URL says %s",
                    x->other == CP_CLIENT_SPEAKS_PLAIN ? "plain HTTP" : "TLS",
                    x->other == CP_CLIENT_SPEAKS_PLAIN ? "https" : "http");
        fail(t, why);
    } else if (x->end == CP_CLIENT_REFUSED)
        fail(t, x->problem);
    else if (x->end == CP_CLIENT_STOPPED)
        fail(t, "its answer is too long");
    else if (x->end != CP_CLIENT_ANSWERED)
        retry(t, x->problem, -1);
    else if (x->status == 200 || x->status == 201) {
        cp_code code = cp_auth_token_reply(t->endpoint, t->body.p ? t->body.p : "", t->body.n,
                                           cp_now_ns() / 1000000, &err);
        end(t, code, code ? &err : NULL);
    } else if (cp_redirect_status(x->status)) {
        redirect(t);
    } else if (cp_retry_status(x->status)) {
        retry(t, why, x->retry_after_s);
    } else if (t->form.n > 0 && (x->status == 404 || x->status == 405)) {
        t->endpoint->form_refused = true;
        t->url[0] = '\0';
    } else {
        fail(t, why);
    }
}

cp_token_fetch *cp_token_fetch_new(cp_client *http, cp_endpoint *e, const cp_token_options *opt)
{
    cp_token_fetch *t = cp_xcalloc(1, sizeof(*t));
    t->http = http;
    t->endpoint = e;
    t->opt = *opt;
    t->body.max = REPLY_MAX;
    t->x.body = on_body;
    t->x.done = on_done;
    t->x.arg = t;
    return t;
}

void cp_token_fetch_free(cp_token_fetch *t)
{
    if (!t)
        return;
    if (t->running)
        cp_client_cancel(t->http, &t->x);
    cp_exchange_fini(&t->x);
    cp_buf_wipe(&t->form);
    cp_buf_wipe(&t->authorization);
    cp_buf_wipe(&t->body);
    cp_buf_fini(&t->form);
    cp_buf_fini(&t->authorization);
    cp_buf_fini(&t->body);
    free(t);
}

/* See token.h. */
void cp_token_want(cp_token_fetch *t, int64_t now_ms, int *wait_ms)
{
    if (t->running)
        return;
    if (now_ms < t->due_ms) {
        if (t->due_ms - now_ms < *wait_ms)
            *wait_ms = (int)(t->due_ms - now_ms);
        return;
    }
    cp_endpoint *e = t->endpoint;
    cp_exchange *x = &t->x;
    cp_err err;
    cp_code code = CP_OK;
    if (!t->url[0]) {
        t->hops = 0;
        code = cp_auth_token_request(e, t->url, &t->form, &t->authorization, &err);
    }
    cp_buf_wipe(&t->body);
    cp_origin service; /* which may see what the registry itself may, if it is the same host */
    bool own = cp_url_origin(t->url, &service) && cp_endpoint_has_host(e, &service);
    x->url = t->url;
    x->accept = "application/json";
    x->authorization = t->authorization.n > 0 ? t->authorization.p : NULL;
    x->form = t->form.n > 0 ? t->form.p : NULL;
    x->ca_file = e->ca_file[0] ? e->ca_file : NULL;
    x->client_cert = own && t->opt.client_cert ? t->opt.client_cert : NULL;
    x->client_key = own ? t->opt.client_key : NULL;
    x->private_ok = own || e->private_net;
    x->timeout_ms = TIMEOUT_MS;
    if (code == CP_OK)
        code = cp_client_start(t->http, x, &err);
    if (code != CP_OK) {
        end(t, code, &err);
        return;
    }
    t->running = true;
}
