/*
 * libcurl's multi interface, driven by sockets: epoll says which are ready, a timerfd wakes at the
 * caller's time or libcurl's. What came is stamped when epoll said so, not when its turn comes: a
 * thousand streams that get their token at once all have it at that time.
 */
#include "bench/load/client.h"

#include "base/clock.h"
#include "base/version.h"

#include <curl/curl.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

enum { EVENTS = 1024, CONNECT_MS = 30000, URL_MAX = 2048 };

struct cp_load_client {
    CURLM *multi;
    struct curl_slist *headers, *bare; /* with a body, without */
    char url[URL_MAX];
    const char *ca_pem;
    size_t n_ca_pem;
    int ep, timer, interrupt;
    int64_t armed_ns; /* what the timer is set to; 0: not */
    int64_t curl_ns;  /* when libcurl wants to be called; INT64_MAX: it does not */
    int64_t now_ns;
    char agent[64];
};

/* ---- what libcurl calls ---- */

static int on_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *known)
{
    (void)easy;
    cp_load_client *c = arg;
    struct epoll_event ev = {.data.fd = fd};
    if (what & CURL_POLL_IN && what != CURL_POLL_REMOVE)
        ev.events |= EPOLLIN;
    if (what & CURL_POLL_OUT && what != CURL_POLL_REMOVE)
        ev.events |= EPOLLOUT;
    if (what == CURL_POLL_REMOVE) {
        epoll_ctl(c->ep, EPOLL_CTL_DEL, fd, NULL);
        return 0;
    }
    if (epoll_ctl(c->ep, known ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &ev) != 0)
        epoll_ctl(c->ep, errno == EEXIST ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &ev);
    curl_multi_assign(c->multi, fd, c);
    return 0;
}

static int on_timer(CURLM *multi, long timeout_ms, void *arg)
{
    (void)multi;
    cp_load_client *c = arg;
    c->curl_ns = timeout_ms < 0 ? INT64_MAX : cp_now_ns() + timeout_ms * 1000000;
    return 0;
}

static size_t on_data(char *p, size_t size, size_t n, void *arg)
{
    (void)size; /* 1, as documented */
    cp_load_call *call = arg;
    if (call->data && !call->data(call, p, n, call->client->now_ns)) {
        call->too_much = true;
        return 0;
    }
    return n;
}

/* "Name: value" -> what stands behind the colon and blanks, in line; NULL: another name. */
static const char *value_of(const char *line, size_t n, const char *name)
{
    size_t k = strlen(name);
    if (n <= k || line[k] != ':' || strncasecmp(line, name, k) != 0)
        return NULL;
    for (k++; k < n && (line[k] == ' ' || line[k] == '\t'); k++)
        continue;
    return line + k;
}

static size_t on_header(char *line, size_t size, size_t n, void *arg)
{
    (void)size;
    cp_load_call *call = arg;
    const char *v;
    call->head_bytes += n;
    if (call->head_bytes > CP_LOAD_HEAD_MAX) {
        call->too_much = true;
        return 0;
    }
    if (n > 5 && memcmp(line, "HTTP/", 5) == 0) { /* also of the answer that follows a 100 */
        long status = 0;
        curl_easy_getinfo(call->easy, CURLINFO_RESPONSE_CODE, &status);
        call->status = (int)status;
        call->events = false;
    } else if ((v = value_of(line, n, "Content-Type")) != NULL) {
        static const char events[] = "text/event-stream";
        call->events = (size_t)(line + n - v) >= sizeof(events) - 1 &&
                       strncasecmp(v, events, sizeof(events) - 1) == 0;
    } else if ((v = value_of(line, n, "Server")) != NULL) {
        cp_snprintf(call->server, sizeof(call->server), "%.*s", (int)(line + n - v), v);
        call->server[strcspn(call->server, "\r\n")] = '\0';
        cp_printable(call->server);
    }
    return n;
}

/* ---- opening ---- */

static cp_code take_url(cp_load_client *c, const char *url, cp_err *err)
{
    size_t n = strlen(url), host = cp_has_prefix(url, "http://")    ? 7
                                   : cp_has_prefix(url, "https://") ? 8
                                                                    : 0;
    if (host == 0 || !url[host] || url[host] == '/' || strpbrk(url, "?#@ \t\r\n") || n >= URL_MAX)
        return cp_fail(err, CP_USAGE,
                       "--url: got '%.200s'; allowed: http://HOST[:PORT] or https://HOST[:PORT], "
                       "with or without /v1 (a key goes into --api-key)",
                       url);
    cp_strcopy(c->url, sizeof(c->url), url);
    while (n > host && c->url[n - 1] == '/')
        c->url[--n] = '\0';
    if (n > host + 3 && strcmp(c->url + n - 3, "/v1") == 0)
        c->url[n - 3] = '\0';
    return CP_OK;
}

static cp_code take_key(cp_load_client *c, const char *key, cp_err *err)
{
    c->headers = curl_slist_append(NULL, "Content-Type: application/json");
    c->headers = curl_slist_append(c->headers, "Expect:"); /* no 100-continue of large bodies */
    if (!key)
        return CP_OK;
    for (const char *k = key; *k; k++) {
        if ((unsigned char)*k < 0x21 || (unsigned char)*k > 0x7E)
            return cp_fail(
                err, CP_USAGE,
                "--api-key: the key has a blank or another byte that no header may hold");
    }
    cp_buf line = {0};
    cp_buf_printf(&line, "Authorization: Bearer %s", key);
    c->headers = curl_slist_append(c->headers, line.p);
    c->bare = curl_slist_append(NULL, line.p);
    cp_buf_wipe(&line);
    cp_buf_fini(&line);
    return CP_OK;
}

static void watch(cp_load_client *c, int fd)
{
    struct epoll_event ev = {.events = EPOLLIN, .data.fd = fd};
    CP_ASSERT(fd < 0 || epoll_ctl(c->ep, EPOLL_CTL_ADD, fd, &ev) == 0);
}

cp_code cp_load_client_open(cp_load_client **out, const char *url, const char *api_key,
                            const char *ca_pem, size_t n_ca_pem, int calls, int interrupt_fd,
                            cp_err *err)
{
    cp_load_client *c = cp_xcalloc(1, sizeof(*c));
    c->ep = c->timer = -1;
    c->interrupt = interrupt_fd;
    cp_snprintf(c->agent, sizeof(c->agent), "capstan-bench/%s", cp_version());
    c->ca_pem = ca_pem;
    c->n_ca_pem = n_ca_pem;
    c->curl_ns = INT64_MAX;
    cp_code code = curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK
                       ? take_url(c, url, err)
                       : cp_fail(err, CP_INTERNAL, "libcurl does not start");
    if (!code)
        code = take_key(c, api_key, err);
    c->ep = epoll_create1(EPOLL_CLOEXEC);
    c->timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    c->multi = curl_multi_init();
    if (!code && (c->ep < 0 || c->timer < 0 || !c->multi))
        code = cp_fail(err, CP_IO, "no epoll set, timer or libcurl: %s", strerror(errno));
    if (code) {
        cp_load_client_close(c);
        return code;
    }
    watch(c, c->timer);
    watch(c, c->interrupt);
    curl_multi_setopt(c->multi, CURLMOPT_SOCKETFUNCTION, on_socket);
    curl_multi_setopt(c->multi, CURLMOPT_SOCKETDATA, c);
    curl_multi_setopt(c->multi, CURLMOPT_TIMERFUNCTION, on_timer);
    curl_multi_setopt(c->multi, CURLMOPT_TIMERDATA, c);
    curl_multi_setopt(c->multi, CURLMOPT_MAXCONNECTS, (long)calls + 8);
    curl_multi_setopt(c->multi, CURLMOPT_PIPELINING, (long)CURLPIPE_NOTHING);
    *out = c;
    return CP_OK;
}

void cp_load_client_close(cp_load_client *c)
{
    if (!c)
        return;
    if (c->multi)
        curl_multi_cleanup(c->multi);
    for (struct curl_slist *h = c->headers; h; h = h->next)
        memset(h->data, 0, strlen(h->data));
    for (struct curl_slist *h = c->bare; h; h = h->next)
        memset(h->data, 0, strlen(h->data));
    curl_slist_free_all(c->headers);
    curl_slist_free_all(c->bare);
    if (c->ep >= 0)
        close(c->ep);
    if (c->timer >= 0)
        close(c->timer);
    curl_global_cleanup();
    free(c);
}

const char *cp_load_client_url(const cp_load_client *c)
{
    return c->url;
}

int64_t cp_load_client_now(const cp_load_client *c)
{
    return c->now_ns;
}

/* ---- calls ---- */

static CURL *easy_of(cp_load_client *c, cp_load_call *call)
{
    if (call->easy)
        return call->easy;
    CURL *e = curl_easy_init();
    CP_ASSERT(e);
    call->easy = e;
    curl_easy_setopt(e, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(e, CURLOPT_PROXY, "");
    curl_easy_setopt(e, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(e, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(e, CURLOPT_USERAGENT, c->agent);
    curl_easy_setopt(e, CURLOPT_CONNECTTIMEOUT_MS, (long)CONNECT_MS);
    curl_easy_setopt(e, CURLOPT_DNS_CACHE_TIMEOUT, -1L);
    curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, on_data);
    curl_easy_setopt(e, CURLOPT_WRITEDATA, call);
    curl_easy_setopt(e, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(e, CURLOPT_HEADERDATA, call);
    curl_easy_setopt(e, CURLOPT_PRIVATE, call);
    curl_easy_setopt(e, CURLOPT_ERRORBUFFER, call->error);
    if (c->ca_pem) {
        struct curl_blob blob = {.len = c->n_ca_pem, .flags = CURL_BLOB_NOCOPY};
        memcpy(&blob.data, &c->ca_pem, sizeof(blob.data)); /* libcurl only reads it */
        curl_easy_setopt(e, CURLOPT_CAINFO_BLOB, &blob);
    }
    return e;
}

void cp_load_call_fini(cp_load_call *call)
{
    CP_ASSERT(!call->running);
    if (call->easy)
        curl_easy_cleanup(call->easy);
    call->easy = NULL;
}

void cp_load_client_start(cp_load_client *c, cp_load_call *call)
{
    int running;
    CP_ASSERT(!call->running);
    CURL *e = easy_of(c, call);
    call->client = c;
    call->status = 0;
    call->events = call->too_much = call->tls = call->refused_name = false;
    call->head_bytes = 0;
    call->problem[0] = call->error[0] = '\0';
    char url[URL_MAX + 64];
    cp_snprintf(url, sizeof(url), "%s%s", c->url, call->path);
    curl_easy_setopt(e, CURLOPT_URL, url);
    curl_easy_setopt(e, CURLOPT_TIMEOUT_MS, (long)call->timeout_ms);
    if (call->body) {
        curl_easy_setopt(e, CURLOPT_POST, 1L);
        curl_easy_setopt(e, CURLOPT_POSTFIELDS, call->body);
        curl_easy_setopt(e, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)call->n_body);
        curl_easy_setopt(e, CURLOPT_HTTPHEADER, c->headers);
    } else {
        curl_easy_setopt(e, CURLOPT_HTTPGET, 1L);
        curl_easy_setopt(e, CURLOPT_HTTPHEADER, c->bare);
    }
    call->running = true;
    call->sent_ns = c->now_ns = cp_now_ns();
    CP_ASSERT(curl_multi_add_handle(c->multi, e) == CURLM_OK);
    /* out with it now, not at the next turn */
    curl_multi_socket_action(c->multi, CURL_SOCKET_TIMEOUT, 0, &running);
}

static void finish(cp_load_client *c, cp_load_call *call, cp_load_ending how)
{
    curl_multi_remove_handle(c->multi, call->easy);
    call->running = false;
    call->end(call, how, c->now_ns);
}

void cp_load_client_cancel(cp_load_client *c, cp_load_call *call)
{
    CP_ASSERT(call->running);
    finish(c, call, CP_LOAD_CALLED_OFF);
}

static cp_load_ending ending_of(cp_load_call *call, CURLcode result)
{
    if (result == CURLE_OK)
        return CP_LOAD_WHOLE;
    cp_snprintf(call->problem, sizeof(call->problem), "%s",
                call->error[0] ? call->error : curl_easy_strerror(result));
    cp_printable(call->problem);
    call->tls = result == CURLE_PEER_FAILED_VERIFICATION || result == CURLE_SSL_CONNECT_ERROR ||
                result == CURLE_SSL_CACERT_BADFILE;
    call->refused_name = result == CURLE_COULDNT_RESOLVE_HOST;
    if (call->too_much) {
        cp_snprintf(call->problem, sizeof(call->problem),
                    "the answer's head, an event or its error is too large");
        return CP_LOAD_TOO_MUCH;
    }
    return result == CURLE_OPERATION_TIMEDOUT ? CP_LOAD_OVERDUE : CP_LOAD_BROKEN;
}

static bool take_ends(cp_load_client *c)
{
    bool any = false;
    int left;
    for (CURLMsg *m; (m = curl_multi_info_read(c->multi, &left)) != NULL; any = true) {
        if (m->msg != CURLMSG_DONE)
            continue;
        cp_load_call *call = NULL;
        CURLcode result = m->data.result;
        curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, (char **)&call);
        finish(c, call, ending_of(call, result));
    }
    return any;
}

/* ---- waiting ---- */

static void arm(cp_load_client *c, int64_t at)
{
    if (at == c->armed_ns)
        return;
    struct itimerspec t = {.it_value = {.tv_sec = at / 1000000000, .tv_nsec = at % 1000000000}};
    if (at == INT64_MAX)
        t = (struct itimerspec){0};
    CP_ASSERT(timerfd_settime(c->timer, TFD_TIMER_ABSTIME, &t, NULL) == 0);
    c->armed_ns = at;
}

bool cp_load_client_wait(cp_load_client *c, int64_t until_ns)
{
    struct epoll_event ev[EVENTS];
    bool interrupted = false;
    int running;
    int64_t at = c->curl_ns < until_ns ? c->curl_ns : until_ns;
    bool late = at <= cp_now_ns();
    if (!late)
        arm(c, at);
    int n = epoll_wait(c->ep, ev, EVENTS, late ? 0 : -1);
    c->now_ns = cp_now_ns();
    for (int i = 0; i < n; i++) {
        uint64_t ticks;
        if (ev[i].data.fd == c->timer) {
            (void)!read(c->timer, &ticks, sizeof(ticks));
            c->armed_ns = 0;
        } else if (ev[i].data.fd == c->interrupt) {
            interrupted = true;
        } else {
            int what = (ev[i].events & EPOLLIN ? CURL_CSELECT_IN : 0) |
                       (ev[i].events & EPOLLOUT ? CURL_CSELECT_OUT : 0) |
                       (ev[i].events & (EPOLLERR | EPOLLHUP) ? CURL_CSELECT_ERR : 0);
            curl_multi_socket_action(c->multi, ev[i].data.fd, what, &running);
        }
    }
    if (c->curl_ns <= cp_now_ns()) {
        c->curl_ns = INT64_MAX; /* libcurl says anew when it wants more */
        curl_multi_socket_action(c->multi, CURL_SOCKET_TIMEOUT, 0, &running);
    }
    take_ends(c);
    return interrupted;
}
