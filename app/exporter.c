/*
 * This file is the process that sends spans: see exporter.h. One thread waits for packets of the
 * server, for the collector's answer and for time at once, in libcurl's poll. One batch is under
 * way; a batch that is refused for now is sent again, later and later.
 */
#include "app/exporter.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "server/emit.h"
#include "server/origin.h"
#include "server/trace.h"

#include <curl/curl.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    HELD_BYTES = 16 << 20, /* read and not sent; what comes then stays in the socket */
    BATCH_BYTES = 1 << 20, /* sent at once, when there is as much */
    BATCH_MS = 1000,
    ANSWER_S = 10, /* of a collector */
    TRIES = 5,
    LAST_MS = 5000, /* the server has ended */
    SAY_MS = 30000  /* a line of the log about a collector that does not answer */
};

typedef struct batch {
    cp_buf body;
    uint32_t n; /* requests */
} batch;

typedef struct exporter {
    const char *url, *version;
    bool here; /* the collector is on this machine: no proxy knows it */
    struct curl_slist *headers;
    int fd;
    bool ended;                      /* the server has */
    batch next, sent;                /* being filled; under way, or to be sent again */
    int64_t since, again, end, said; /* cp_now_ns() times */
    int tries;
    CURLM *multi;
    CURL *easy;
    bool running;
} exporter;

static int64_t ms(int64_t n)
{
    return n * 1000000;
}

/* ---- what goes out ---- */

static void attribute(cp_buf *b, const char *name, const char *value, size_t n)
{
    cp_buf_adds(b, b->p[b->n - 1] == '[' ? "{\"key\":" : ",{\"key\":");
    cp_emit_str(b, name, strlen(name));
    cp_buf_adds(b, ",\"value\":{\"stringValue\":");
    cp_emit_str(b, value, n);
    cp_buf_adds(b, "}}");
}

/* OTEL_RESOURCE_ATTRIBUTES: key=value,... */
static void given_attributes(cp_buf *b)
{
    const char *p = getenv("OTEL_RESOURCE_ATTRIBUTES");
    while (p && *p) {
        size_t n = strcspn(p, ","), k = strcspn(p, "=,");
        char name[128];
        if (k < n && k > 0 && k < sizeof name) {
            cp_snprintf(name, sizeof name, "%.*s", (int)k, p);
            attribute(b, name, p + k + 1, n - k - 1);
        }
        p += n + (p[n] == ',');
    }
}

static void begin_batch(const exporter *x, cp_buf *b)
{
    const char *service = getenv("OTEL_SERVICE_NAME");
    char host[256] = "";
    (void)gethostname(host, sizeof host - 1);
    service = service && *service ? service : "capstan";
    cp_buf_adds(b, "{\"resourceSpans\":[{\"resource\":{\"attributes\":[");
    attribute(b, "service.name", service, strlen(service));
    attribute(b, "service.version", x->version, strlen(x->version));
    attribute(b, "host.name", host, strlen(host));
    given_attributes(b);
    cp_buf_adds(b, "]},\"scopeSpans\":[{\"scope\":{\"name\":\"capstan\"},\"spans\":[");
}

static void report(const exporter *x, uint32_t exported, uint32_t failed)
{
    cp_trace_report r = {.exported = exported, .failed = failed};
    (void)!send(x->fd, &r, sizeof r, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static size_t drop(char *p, size_t size, size_t n, void *arg)
{
    (void)p, (void)arg;
    return size * n;
}

static void post(exporter *x)
{
    curl_easy_reset(x->easy);
    curl_easy_setopt(x->easy, CURLOPT_URL, x->url);
    curl_easy_setopt(x->easy, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(x->easy, CURLOPT_NOPROXY, x->here ? "*" : NULL); /* NULL: no_proxy */
    curl_easy_setopt(x->easy, CURLOPT_HTTPHEADER, x->headers);
    curl_easy_setopt(x->easy, CURLOPT_POSTFIELDS, x->sent.body.p);
    curl_easy_setopt(x->easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)x->sent.body.n);
    curl_easy_setopt(x->easy, CURLOPT_WRITEFUNCTION, drop);
    curl_easy_setopt(x->easy, CURLOPT_TIMEOUT, (long)ANSWER_S);
    curl_easy_setopt(x->easy, CURLOPT_NOSIGNAL, 1L);
    curl_multi_add_handle(x->multi, x->easy);
    x->running = true;
    x->tries++;
}

/* The batch that was being filled is sent as soon as none is under way. */
static void maybe_send(exporter *x, int64_t now)
{
    if (x->running)
        return;
    if (x->sent.n > 0) {
        if (now >= x->again || x->ended)
            post(x);
        return;
    }
    bool due = x->next.body.n >= BATCH_BYTES || now - x->since >= ms(BATCH_MS) || x->ended;
    if (x->next.n == 0 || !due)
        return;
    cp_buf_adds(&x->next.body, "]}]}]}");
    x->sent = x->next;
    x->next = (batch){0};
    x->tries = 0;
    post(x);
}

static void over(exporter *x, bool taken)
{
    report(x, taken ? x->sent.n : 0, taken ? 0 : x->sent.n);
    cp_buf_fini(&x->sent.body);
    x->sent.n = 0;
}

static void complain(exporter *x, int64_t now, CURLcode rc, long status)
{
    if (x->said && now - x->said < ms(SAY_MS))
        return;
    x->said = now;
    char said[32];
    cp_snprintf(said, sizeof said, "status %ld", status);
    cp_log(CP_LOG_WARN, "traces: %s did not take %u requests' spans: %s", x->url, x->sent.n,
           rc != CURLE_OK ? curl_easy_strerror(rc) : said);
}

/* The answer to a batch. What may be sent again by OTLP's text: 429, 502, 503, 504, and what did
 * not arrive. */
static void answered(exporter *x, int64_t now, CURLcode rc)
{
    long status = 0;
    curl_off_t after = 0;
    curl_easy_getinfo(x->easy, CURLINFO_RESPONSE_CODE, &status);
    curl_easy_getinfo(x->easy, CURLINFO_RETRY_AFTER, &after);
    curl_multi_remove_handle(x->multi, x->easy);
    x->running = false;
    if (rc == CURLE_OK && status >= 200 && status < 300) {
        over(x, true);
        return;
    }
    complain(x, now, rc, status);
    bool later = rc != CURLE_OK || status == 429 || (status >= 502 && status <= 504);
    if (!later || x->tries >= TRIES) {
        over(x, false);
        return;
    }
    int64_t wait = after > 0 && after < 60 ? ms(after * 1000) : ms(500) << x->tries;
    x->again = now + (x->ended ? 0 : wait);
}

/* ---- what comes in ---- */

static bool has_room(const exporter *x)
{
    return x->next.body.n + x->sent.body.n < HELD_BYTES;
}

static void read_packets(exporter *x, int64_t now)
{
    static char packet[CP_TRACE_PACKET];
    uint32_t requests;
    while (has_room(x) && !x->ended) {
        ssize_t n = recv(x->fd, packet, sizeof packet, MSG_DONTWAIT);
        if (n == 0)
            x->ended = true;
        if (n <= (ssize_t)sizeof requests)
            break;
        memcpy(&requests, packet, sizeof requests);
        if (x->next.n == 0) {
            x->since = now;
            begin_batch(x, &x->next.body);
        } else {
            cp_buf_addc(&x->next.body, ',');
        }
        cp_buf_add(&x->next.body, packet + sizeof requests, (size_t)n - sizeof requests);
        x->next.n += requests;
    }
    if (x->ended && !x->end)
        x->end = now + ms(LAST_MS);
}

/* Until when to wait: for the batch's second, or to send again; with nothing to do, for a packet.
 */
static int wait_ms(const exporter *x, int64_t now)
{
    int64_t until = now + ms(60000);
    if (!x->running && x->sent.n > 0)
        until = x->again;
    else if (!x->running && x->next.n > 0)
        until = x->since + ms(BATCH_MS);
    if (x->ended && x->end < until)
        until = x->end;
    return until <= now ? 0 : (int)((until - now) / 1000000) + 1;
}

static void step(exporter *x)
{
    struct curl_waitfd w = {.fd = x->fd, .events = CURL_WAIT_POLLIN};
    int running, left;
    curl_multi_poll(x->multi, &w, x->ended || !has_room(x) ? 0 : 1, wait_ms(x, cp_now_ns()), NULL);
    int64_t now = cp_now_ns();
    read_packets(x, now);
    curl_multi_perform(x->multi, &running);
    for (CURLMsg *m; (m = curl_multi_info_read(x->multi, &left));)
        if (m->msg == CURLMSG_DONE)
            answered(x, now, m->data.result);
    maybe_send(x, now);
}

/* ---- the process ---- */

/* OTEL_EXPORTER_OTLP_HEADERS: key=value,..., of collectors that want a key. */
static struct curl_slist *headers(void)
{
    struct curl_slist *list = curl_slist_append(NULL, "Content-Type: application/json");
    const char *p = getenv("OTEL_EXPORTER_OTLP_HEADERS");
    while (p && *p) {
        size_t n = strcspn(p, ","), k = strcspn(p, "=,");
        char line[1024];
        if (k > 0 && k < n && n < sizeof line - 2) {
            cp_snprintf(line, sizeof line, "%.*s: %.*s", (int)k, p, (int)(n - k - 1), p + k + 1);
            list = curl_slist_append(list, line);
        }
        p += n + (p[n] == ',');
    }
    return list;
}

static int run(int fd, void *arg)
{
    exporter *x = arg;
    x->fd = fd;
    curl_global_init(CURL_GLOBAL_DEFAULT);
    x->headers = headers();
    x->multi = curl_multi_init();
    x->easy = curl_easy_init();
    if (!x->multi || !x->easy)
        return 1;
    bool more = true;
    while (more) {
        step(x);
        bool empty = x->next.n == 0 && x->sent.n == 0;
        more = !x->ended || (!empty && cp_now_ns() < x->end);
    }
    return 0; /* the process and its memory end here */
}

/* Is s a URL by the one who will use it: with a host, and without blanks and control characters?
 * *here: the host is this machine. */
static bool is_url(const char *s, bool *here)
{
    CURLU *u = curl_url();
    char *host = NULL;
    bool good = u && curl_url_set(u, CURLUPART_URL, s, 0) == CURLUE_OK &&
                curl_url_get(u, CURLUPART_HOST, &host, 0) == CURLUE_OK;
    *here = good && cp_host_allowed(host, NULL, 0);
    curl_free(host);
    curl_url_cleanup(u);
    return good;
}

cp_code cp_exporter_start(cp_child *c, const char *endpoint, const char *version, cp_err *err)
{
    static const char path[] = "/v1/traces";
    exporter x = {.version = version};
    char url[1024];
    size_t n = strlen(endpoint), tail = sizeof path - 1;
    bool http = strncasecmp(endpoint, "http://", 7) == 0,
         https = strncasecmp(endpoint, "https://", 8) == 0;
    if ((!http && !https) || n + tail >= sizeof url || !is_url(endpoint, &x.here))
        return cp_fail(err, CP_USAGE,
                       "--otlp-endpoint is '%.200s'; allowed: the URL of a collector that takes "
                       "OTLP over HTTP, such as http://localhost:4318",
                       endpoint);
    while (n > 0 && endpoint[n - 1] == '/')
        n--;
    bool whole = n > tail && strncmp(endpoint + n - tail, path, tail) == 0;
    cp_snprintf(url, sizeof url, "%.*s%s", (int)n, endpoint, whole ? "" : path);
    x.url = url;
    return cp_child_start(c, "capstan-traces", SOCK_SEQPACKET, run, &x, err);
}
