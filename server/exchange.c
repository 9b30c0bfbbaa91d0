/* This file answers exchanges and receives their bodies: see exchange.h. */
#include "server/exchange.h"

#include "base/clock.h"
#include "base/log.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

enum { REPLY_HEADERS = 12 /* cp_http_add_header */ };

/* ---- states ---- */

static void move_body(cp_http_req *q, cp_body_state to)
{
    CP_ASSERT(q->body_state < to);
    q->body_state = to;
}

#define TO(state) (1u << CP_ANSWER_##state)

static void move_answer(cp_http_req *q, cp_answer_state to)
{
    static const unsigned next[CP_ANSWER_STATES] = {
        [CP_ANSWER_NONE] = TO(WHOLE) | TO(STREAM) | TO(LEFT),
        [CP_ANSWER_WHOLE] = TO(LEFT),
        [CP_ANSWER_STREAM] = TO(ENDED) | TO(ABORTED) | TO(LEFT),
        [CP_ANSWER_ENDED] = TO(SENT) | TO(LEFT),
        [CP_ANSWER_SENT] = TO(LEFT),
        [CP_ANSWER_ABORTED] = TO(LEFT),
        [CP_ANSWER_LEFT] = 0,
    };
    CP_ASSERT(next[q->answer] & 1u << to);
    q->answer = to;
}

bool cp_exchange_waits(const cp_http_req *q)
{
    return q->answer == CP_ANSWER_NONE || q->answer == CP_ANSWER_STREAM;
}

/* ---- begin and end ---- */

static char *text_of(const char *p, cp_head_span s)
{
    char *text = cp_xcalloc((size_t)s.n + 1, 1);
    memcpy(text, p + s.at, s.n);
    return text;
}

cp_http_req *cp_exchange_begin(cp_http *h, cp_conn *c, size_t n_head)
{
    if (!c->link && !(c->link = cp_mhd_link_open(h->mhd)))
        return NULL;
    cp_http_req *q = cp_xcalloc(1, sizeof(*q));
    q->h = h;
    q->c = c;
    q->head = c->head;
    q->since = q->moved = cp_now_ns();
    q->account = (cp_account){.budget = h->budget, .arriving = true};
    q->body.account = q->out.account = &q->account;
    q->body_left = q->head.length;
    q->body.max = q->body_left > 0 && q->body_left < CP_BODY_MAX ? q->body_left : CP_BODY_MAX;
    q->malformed = n_head == 0;
    q->path = q->malformed         ? cp_xstrdup("-")
              : q->head.path.n > 0 ? text_of(c->in.p, q->head.path)
                                   : cp_xstrdup("/");
    if (!q->malformed && q->head.query.n > 0)
        q->query = text_of(c->in.p, q->head.query);
    if (!q->malformed && q->head.authority.n > 0)
        q->authority = text_of(c->in.p, q->head.authority);
    cp_buf canonical = {0};
    cp_head_canonical(&q->head, q->malformed ? NULL : c->in.p, &canonical);
    bool taken = !canonical.failed && cp_mhd_request(c->link, canonical.p, canonical.n);
    if (!taken)
        cp_log(CP_LOG_WARN, "http: libmicrohttpd refuses a head of %zu bytes", canonical.n);
    cp_buf_fini(&canonical);
    cp_buf_consume(&c->in, n_head);
    memset(&c->head, 0, sizeof(c->head));
    c->first_byte = 0;
    c->req = q;
    c->broken = c->broken || !taken;
    return q;
}

void cp_exchange_end(cp_http *h, cp_conn *c)
{
    cp_http_req *q = c->req;
    h->hooks.done(h->hooks.arg, q);
    c->req = NULL;
    cp_buf_fini(&q->body);
    cp_buf_fini(&q->out);
    cp_account_close(&q->account);
    free(q->headers);
    free(q->path);
    free(q->query);
    free(q->authority);
    free(q);
}

void cp_exchange_left(cp_http_req *q)
{
    if (q->answer == CP_ANSWER_LEFT)
        return;
    bool awaited = q->answer == CP_ANSWER_STREAM ||
                   (q->answer == CP_ANSWER_NONE && q->body_state == CP_BODY_OVER);
    move_answer(q, CP_ANSWER_LEFT);
    if (awaited)
        q->h->hooks.gone(q->h->hooks.arg, q);
}

/* ---- the body ---- */

void cp_exchange_refuse(cp_http_req *q)
{
    move_body(q, CP_BODY_REFUSED);
    q->sent = 0;
}

void cp_exchange_over(cp_http_req *q)
{
    move_body(q, CP_BODY_OVER);
    q->sent = q->out.n;
}

void cp_exchange_cut(cp_conn *c)
{
    c->last = true;
    cp_exchange_over(c->req);
    cp_buf_fini(&c->req->body);
}

void cp_exchange_spoil(cp_http *h, cp_conn *c, int status)
{
    bool refused = c->req->body_state == CP_BODY_REFUSED;
    cp_exchange_cut(c);
    h->pressed = h->pressed || status == 503;
    if (!refused)
        h->hooks.request(h->hooks.arg, c->req, status);
}

/* Bytes of a body: its one door. Returns how many were used; *status: what it must be refused with.
 */
static size_t take_body(cp_http_req *q, const char *p, size_t n, int *status)
{
    const char *data = p;
    size_t used, n_data;
    if (q->head.chunked) {
        used = cp_chunks_take(&q->chunks, p, n, &data, &n_data);
        if (q->chunks.state == CP_CHUNK_BAD)
            *status = 400;
    } else {
        used = n_data = n < q->body_left ? n : (size_t)q->body_left;
        q->body_left -= used;
    }
    if (q->body_state != CP_BODY_WANTED) {
        q->sent += n_data; /* of a body that is dropped: counted against the limit */
        if (q->sent > CP_BODY_MAX)
            *status = 413;
    } else if (!cp_buf_add(&q->body, data, n_data)) {
        *status = q->account.refused && !q->account.never ? 503 : 413;
    }
    return used;
}

bool cp_exchange_complete(const cp_http_req *q)
{
    return q->head.chunked ? q->chunks.state == CP_CHUNK_END : q->body_left == 0;
}

void cp_exchange_read(cp_http *h, cp_conn *c)
{
    cp_http_req *q = c->req;
    size_t at = 0;
    int status = 0;
    while (at < c->in.n && !status && !cp_exchange_complete(q))
        at += take_body(q, c->in.p + at, c->in.n - at, &status);
    cp_buf_consume(&c->in, at);
    if (status) {
        cp_exchange_spoil(h, c, status);
    } else if (cp_exchange_complete(q)) {
        bool refused = q->body_state == CP_BODY_REFUSED;
        cp_exchange_over(q);
        if (!refused)
            h->hooks.request(h->hooks.arg, q, 0);
    }
}

/* ---- the answer ---- */

void cp_exchange_sent(cp_http_req *q)
{
    move_answer(q, CP_ANSWER_SENT);
    cp_mhd_stream_end(q->c->link);
}

cp_method cp_http_method(const cp_http_req *q)
{
    return q->head.method;
}

const char *cp_http_path(const cp_http_req *q)
{
    return q->path;
}

void cp_http_peer(const cp_http_req *q, char out[CP_PEER_TEXT])
{
    const struct sockaddr_in6 *v6 = &q->c->peer;
    const struct sockaddr_in *v4 = (const struct sockaddr_in *)(const void *)v6;
    char text[INET6_ADDRSTRLEN] = "";
    if (v6->sin6_family == AF_INET && inet_ntop(AF_INET, &v4->sin_addr, text, sizeof(text)))
        cp_snprintf(out, CP_PEER_TEXT, "%s:%u", text, ntohs(v4->sin_port));
    else if (v6->sin6_family == AF_INET6 && inet_ntop(AF_INET6, &v6->sin6_addr, text, sizeof(text)))
        cp_snprintf(out, CP_PEER_TEXT, "[%s]:%u", text, ntohs(v6->sin6_port));
    else
        cp_strcopy(out, CP_PEER_TEXT, "unix");
}

const char *cp_http_query(const cp_http_req *q)
{
    return q->query ? q->query : "";
}

const char *cp_http_header(const cp_http_req *q, const char *name)
{
    return q->malformed ? NULL : cp_mhd_request_header(q->c->link, name);
}

const char *cp_http_authority(const cp_http_req *q)
{
    return q->authority ? q->authority : cp_http_header(q, "Host");
}

uint64_t cp_http_length(const cp_http_req *q)
{
    return q->head.length;
}

bool cp_http_has_body(const cp_http_req *q)
{
    return q->head.chunked || q->head.length > 0;
}

cp_buf *cp_http_body(cp_http_req *q)
{
    return &q->body;
}

cp_account *cp_http_account(cp_http_req *q)
{
    return &q->account;
}

void cp_http_ignore_body(cp_http_req *q)
{
    move_body(q, CP_BODY_IGNORED);
}

void *cp_http_user(const cp_http_req *q)
{
    return q->user;
}

void cp_http_set_user(cp_http_req *q, void *user)
{
    q->user = user;
}

int64_t cp_http_since(const cp_http_req *q)
{
    return q->since;
}

int cp_http_status(const cp_http_req *q)
{
    return q->status;
}

uint64_t cp_http_sent(const cp_http_req *q)
{
    return q->sent;
}

bool cp_http_answered(const cp_http_req *q)
{
    return q->status != 0;
}

void cp_http_add_header(cp_http_req *q, const char *name, const char *value)
{
    CP_ASSERT_LOOP(q->h);
    CP_ASSERT(q->answer == CP_ANSWER_NONE && q->n_headers < REPLY_HEADERS);
    if (!q->headers)
        q->headers = cp_xcalloc(REPLY_HEADERS, sizeof(*q->headers));
    cp_mhd_header *r = &q->headers[q->n_headers++];
    cp_strcopy(r->name, sizeof(r->name), name);
    cp_strcopy(r->value, sizeof(r->value), value);
}

void cp_http_reply(cp_http_req *q, int status, const char *content_type, cp_buf *body)
{
    CP_ASSERT_LOOP(q->h);
    move_answer(q, CP_ANSWER_WHOLE);
    q->status = status;
    q->content_type = content_type;
    cp_buf_fini(&q->out);
    if (body) {
        q->out = *body;
        q->out.account = NULL; /* paid by whoever made it, until hooks.done */
        memset(body, 0, sizeof(*body));
    }
    q->sent = q->out.n;
    q->moved = cp_now_ns();
    cp_conn_list(q->h, q->c);
}

void cp_http_stream_begin(cp_http_req *q, int status, const char *content_type)
{
    CP_ASSERT_LOOP(q->h);
    move_answer(q, CP_ANSWER_STREAM);
    q->status = status;
    q->content_type = content_type;
    q->sent = 0;
    q->moved = cp_now_ns();
    cp_conn_list(q->h, q->c);
}

cp_buf *cp_http_stream(cp_http_req *q)
{
    if (q->answer != CP_ANSWER_STREAM)
        return NULL;
    if (q->off > CP_STREAM_MAX) {
        cp_buf_consume(&q->out, q->off);
        q->off = 0;
    }
    return &q->out;
}

void cp_http_stream_kick(cp_http_req *q)
{
    CP_ASSERT_LOOP(q->h);
    size_t n = q->out.n - q->off;
    if (n > CP_STREAM_MAX)
        q->was_full = true;
    if (n > 0)
        cp_conn_list(q->h, q->c);
}

size_t cp_http_stream_pending(const cp_http_req *q)
{
    return q->out.n - q->off;
}

int64_t cp_http_stream_moved(const cp_http_req *q)
{
    return q->moved;
}

void cp_http_stream_end(cp_http_req *q, bool abort_it)
{
    CP_ASSERT_LOOP(q->h);
    move_answer(q, abort_it ? CP_ANSWER_ABORTED : CP_ANSWER_ENDED);
    cp_conn_list(q->h, q->c);
}
