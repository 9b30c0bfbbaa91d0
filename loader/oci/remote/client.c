/*
 * The libcurl side of an exchange. Each exchange has an easy handle of its own; connections are
 * kept by the multi handle and used again. Error bodies are cut early on purpose: the transfer is
 * then stopped by us and still counts as answered.
 */
#include "loader/oci/remote/client.h"
#include "base/clock.h"
#include "base/version.h"
#include "loader/oci/remote/authorities.h"
#include "loader/oci/remote/proxy.h"
#include "loader/oci/remote/retry.h"

#include <curl/curl.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

enum { RECEIVE_BYTES = 256 << 10, HEADER_LINE_MAX = 16 << 10 };

struct cp_client {
    CURLM *multi;
    cp_client_options opt;
    cp_authorities system;
    bool checked;           /* that those of the environment can be read */
    char added[CP_URL_MAX]; /* the file whose authorities are in `joined`, "" none yet */
    cp_buf joined;          /* with the system's */
    uint64_t received;
    struct transfer *running; /* list */
};

typedef struct transfer {
    struct transfer *next, **link;
    cp_client *http;
    cp_exchange *x;
    CURL *easy;
    struct curl_slist *headers;
    bool enough;          /* stopped by us, the answer is complete as far as we care */
    bool https;           /* the URL says so */
    bool proxied;         /* whom we connect to is a proxy, not the host */
    bool private_host;    /* the URL's host is a private or loopback address */
    bool refused_address; /* by may_connect */
    char error[CURL_ERROR_SIZE];
} transfer;

/* Have the system's authorities and those of file `added` in h->joined. */
static cp_code join(cp_client *h, const char *added, cp_err *err)
{
    if (strcmp(h->added, added) == 0)
        return CP_OK;
    h->added[0] = '\0';
    cp_code code = cp_authorities_join(&h->system, added, &h->joined, err);
    if (!code && !cp_strcopy(h->added, sizeof(h->added), added))
        code = cp_fail(err, CP_USAGE, "ca-file: path is longer than %d bytes", CP_URL_MAX - 1);
    return code;
}

/* See client.h. */
cp_code cp_client_open(cp_client **out, const cp_client_options *opt, cp_err *err)
{
    *out = NULL;
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
        return cp_fail(err, CP_INTERNAL, "libcurl does not start");
    cp_client *h = cp_xcalloc(1, sizeof(*h));
    h->opt = *opt;
    cp_authorities_find(&h->system);
    cp_code code = opt->ca_file ? join(h, opt->ca_file, err) : CP_OK;
    h->multi = code ? NULL : curl_multi_init();
    if (!h->multi) {
        cp_buf_fini(&h->joined);
        free(h);
        curl_global_cleanup();
        return code ? code : cp_fail(err, CP_NO_MEMORY, "no memory for libcurl");
    }
    /* twice: a redirecting registry and the host that it points to */
    curl_multi_setopt(h->multi, CURLMOPT_MAXCONNECTS, (long)(2 * opt->connections + 4));
    *out = h;
    return CP_OK;
}

static void transfer_free(transfer *t)
{
    *t->link = t->next;
    if (t->next)
        t->next->link = t->link;
    if (t->easy) {
        curl_multi_remove_handle(t->http->multi, t->easy);
        curl_easy_cleanup(t->easy);
    }
    curl_slist_free_all(t->headers);
    t->x->impl = NULL;
    free(t);
}

void cp_client_close(cp_client *h)
{
    if (!h)
        return;
    while (h->running)
        transfer_free(h->running);
    curl_multi_cleanup(h->multi);
    cp_buf_fini(&h->joined);
    free(h);
    curl_global_cleanup();
}

void cp_client_cancel(cp_client *h, cp_exchange *x)
{
    transfer *t = x->impl;
    if (!t)
        return;
    CP_ASSERT(t->http == h && t->x == x);
    transfer_free(t);
}

void cp_exchange_fini(cp_exchange *x)
{
    CP_ASSERT(!x->impl);
    cp_buf_fini(&x->text);
}

uint64_t cp_client_received(const cp_client *h)
{
    return h->received;
}

/* ---- what comes in ---- */

static void forget_answer(cp_exchange *x)
{
    x->status = 0;
    x->has_length = x->has_range = x->has_total = false;
    x->length = x->range_first = x->range_last = x->range_total = 0;
    x->retry_after_s = -1;
    x->content_type[0] = x->content_encoding[0] = x->content_digest[0] = '\0';
    x->location[0] = x->challenges[0] = x->problem[0] = '\0';
    x->other = CP_CLIENT_AS_ASKED;
    cp_buf_clear(&x->text);
}

/* "Name: value" -> value without blanks around; NULL: another name. */
static char *header_value(char *line, const char *name)
{
    size_t n = strlen(name);
    if (strncasecmp(line, name, n) != 0 || line[n] != ':')
        return NULL;
    char *v = line + n + 1;
    v += strspn(v, " \t");
    size_t end = strlen(v);
    while (end > 0 && (v[end - 1] == ' ' || v[end - 1] == '\t'))
        end--;
    v[end] = '\0';
    return v;
}

/* Header text is shown to people: nothing that a terminal would obey. */
static char *plain(char *s)
{
    for (char *p = s; p && *p; p++)
        if (((unsigned char)*p < 0x20 && *p != '\t') || (unsigned char)*p >= 0x7f)
            *p = '?';
    return s;
}

static void header_line(cp_exchange *x, char *line)
{
    char *v;
    if ((v = plain(header_value(line, "Content-Type")))) {
        v[strcspn(v, "; \t")] = '\0';
        for (char *c = v; *c; c++)
            *c = cp_lower(*c);
        if (!cp_strcopy(x->content_type, sizeof(x->content_type), v))
            x->content_type[0] = '\0';
    } else if ((v = plain(header_value(line, "Content-Encoding")))) {
        cp_strcopy(x->content_encoding, sizeof(x->content_encoding), v);
    } else if ((v = plain(header_value(line, "Docker-Content-Digest")))) {
        if (!cp_strcopy(x->content_digest, sizeof(x->content_digest), v))
            x->content_digest[0] = '\0';
    } else if ((v = header_value(line, "Content-Range"))) {
        x->has_range =
            cp_content_range(v, &x->range_first, &x->range_last, &x->has_total, &x->range_total);
    } else if ((v = header_value(line, "Retry-After"))) {
        x->retry_after_s = cp_retry_after(v, cp_wall_sec());
    } else if ((v = header_value(line, "Location"))) {
        if (x->location[0] == '\0' && !cp_strcopy(x->location, sizeof(x->location), v))
            x->location[0] = '\0';
    } else if ((v = plain(header_value(line, "WWW-Authenticate")))) {
        size_t n = strlen(x->challenges), k = strlen(v);
        if (n + k + 2 <= sizeof(x->challenges)) {
            memcpy(x->challenges + n, v, k);
            memcpy(x->challenges + n + k, "\n", 2);
        }
    }
}

static size_t on_header(char *p, size_t size, size_t count, void *arg)
{
    transfer *t = arg;
    size_t n = size * count, k = n;
    char line[HEADER_LINE_MAX];
    while (k > 0 && (p[k - 1] == '\r' || p[k - 1] == '\n'))
        k--;
    if (k >= 5 && strncmp(p, "HTTP/", 5) == 0) {
        forget_answer(t->x); /* a 100 Continue came before */
    } else if (k < sizeof(line) && !memchr(p, '\0', k)) {
        memcpy(line, p, k);
        line[k] = '\0';
        header_line(t->x, line);
    }
    return n;
}

/* Take status and length from libcurl, which has judged the framing. */
static void read_answer(transfer *t)
{
    long status = 0;
    curl_off_t length = -1;
    curl_easy_getinfo(t->easy, CURLINFO_RESPONSE_CODE, &status);
    curl_easy_getinfo(t->easy, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &length);
    t->x->status = (int)status;
    t->x->has_length = length >= 0;
    t->x->length = length >= 0 ? (uint64_t)length : 0;
}

static size_t on_body(char *p, size_t size, size_t n, void *arg)
{
    transfer *t = arg;
    cp_exchange *x = t->x;
    n *= size;
    t->http->received += n;
    if (x->status == 0)
        read_answer(t);
    if (x->status >= 200 && x->status < 300)
        return x->body(x, p, n) ? n : 0;
    size_t room = CP_CLIENT_TEXT_MAX - x->text.n;
    bool last = n >= room || x->status == 416; /* whose Content-Length may be made up */
    if (!cp_buf_add(&x->text, p, n < room ? n : room) || last) {
        t->enough = true;
        return 0;
    }
    return n;
}

/* May this transfer go to an address of this kind? A proxy may be anywhere; what it connects to is
 * its own affair. */
static bool may_connect(transfer *t, cp_address_kind kind)
{
    bool may = kind != CP_ADDRESS_METADATA &&
               (kind == CP_ADDRESS_PUBLIC || t->x->private_ok || t->proxied);
    t->refused_address = t->refused_address || !may;
    return may;
}

static curl_socket_t on_socket(void *arg, curlsocktype purpose, struct curl_sockaddr *a)
{
    (void)purpose;
    return may_connect(arg, cp_address_classify(&a->addr))
               ? socket(a->family, a->socktype | SOCK_CLOEXEC, a->protocol)
               : CURL_SOCKET_BAD;
}

/* Before a request is sent, also on a connection that another one was allowed to make. */
static int on_connected(void *arg, char *peer, char *own, int peer_port, int own_port)
{
    (void)own, (void)peer_port, (void)own_port;
    return may_connect(arg, cp_host_classify(peer)) ? CURL_PREREQFUNC_OK : CURL_PREREQFUNC_ABORT;
}

/* ---- start and end ---- */

static bool add_header(transfer *t, const char *name, const char *value)
{
    if (!value)
        return true;
    cp_buf line = {0};
    if (strpbrk(value, "\r\n") || !cp_buf_printf(&line, "%s: %s", name, value)) {
        cp_buf_fini(&line);
        return false;
    }
    struct curl_slist *l = curl_slist_append(t->headers, line.p);
    cp_buf_wipe(&line);
    cp_buf_fini(&line);
    if (l)
        t->headers = l;
    return l != NULL;
}

static bool headers(transfer *t)
{
    const cp_exchange *x = t->x;
    char range[64];
    cp_snprintf(range, sizeof(range), "bytes=%llu-%llu", (unsigned long long)x->first,
                (unsigned long long)x->last);
    return add_header(t, "Accept", x->accept ? x->accept : "*/*") &&
           add_header(t, "Accept-Encoding", "identity") &&
           add_header(t, "Authorization", x->authorization) &&
           add_header(t, "Range", x->ranged ? range : NULL);
}

/* Whose certificates are good. What was joined is copied: another transfer may replace it. */
static void set_authorities(const transfer *t, bool added)
{
    const cp_client *h = t->http;
    if (h->system.given || added) {
        curl_easy_setopt(t->easy, CURLOPT_CAINFO, added ? NULL : h->system.file);
        curl_easy_setopt(t->easy, CURLOPT_CAPATH, h->system.dir);
    }
    if (added) {
        struct curl_blob blob = {h->joined.p, h->joined.n, CURL_BLOB_COPY};
        curl_easy_setopt(t->easy, CURLOPT_CAINFO_BLOB, &blob);
    }
}

static void setup(transfer *t, const cp_origin *origin)
{
    const cp_exchange *x = t->x;
    const cp_client *h = t->http;
    CURL *e = t->easy;
    curl_easy_setopt(e, CURLOPT_URL, x->url);
    curl_easy_setopt(e, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(e, CURLOPT_FOLLOWLOCATION, 0L);
    curl_easy_setopt(e, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(e, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(e, CURLOPT_HTTPHEADER, t->headers);
    curl_easy_setopt(e, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
    curl_easy_setopt(e, CURLOPT_ERRORBUFFER, t->error);
    curl_easy_setopt(e, CURLOPT_BUFFERSIZE, (long)RECEIVE_BYTES);
    curl_easy_setopt(e, CURLOPT_TCP_KEEPALIVE, 1L);
    curl_easy_setopt(e, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(e, CURLOPT_HEADERDATA, t);
    curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(e, CURLOPT_WRITEDATA, t);
    curl_easy_setopt(e, CURLOPT_OPENSOCKETFUNCTION, on_socket);
    curl_easy_setopt(e, CURLOPT_OPENSOCKETDATA, t);
    curl_easy_setopt(e, CURLOPT_PREREQFUNCTION, on_connected);
    curl_easy_setopt(e, CURLOPT_PREREQDATA, t);
    curl_easy_setopt(e, CURLOPT_PRIVATE, (char *)t);
    int64_t connect_ms = x->connect_timeout_ms;
    curl_easy_setopt(e, CURLOPT_CONNECTTIMEOUT_MS,
                     (long)(connect_ms ? connect_ms : CP_CLIENT_CONNECT_TIMEOUT_MS));
    curl_easy_setopt(e, CURLOPT_LOW_SPEED_LIMIT, (long)CP_CLIENT_SPEED_MIN);
    curl_easy_setopt(e, CURLOPT_LOW_SPEED_TIME, (long)((h->opt.stall_ms + 999) / 1000));
    curl_easy_setopt(e, CURLOPT_TIMEOUT_MS, (long)x->timeout_ms);
    t->https = origin->https;
    if (t->https)
        set_authorities(t, x->ca_file || h->opt.ca_file);
    if (x->client_cert) {
        curl_easy_setopt(e, CURLOPT_SSLCERT, x->client_cert);
        curl_easy_setopt(e, CURLOPT_SSLKEY, x->client_key ? x->client_key : x->client_cert);
    }
    if (x->form)
        curl_easy_setopt(e, CURLOPT_COPYPOSTFIELDS, x->form);
    const char *proxy = cp_proxy_for(origin);
    t->proxied = *proxy != '\0';
    t->private_host = cp_host_classify(origin->host) != CP_ADDRESS_PUBLIC;
    curl_easy_setopt(e, CURLOPT_PROXY, proxy); /* "": none, whatever the environment says */
    curl_easy_setopt(e, CURLOPT_NOPROXY, "");
    char agent[64];
    cp_snprintf(agent, sizeof(agent), "capstan/%s", cp_version());
    curl_easy_setopt(e, CURLOPT_USERAGENT, agent);
}

/* See client.h. */
cp_code cp_client_start(cp_client *h, cp_exchange *x, cp_err *err)
{
    CP_ASSERT(!x->impl && x->body && x->done);
    cp_origin origin;
    if (!cp_url_origin(x->url, &origin))
        return cp_fail(err, CP_NETWORK, "'%.200s' is no usable http(s) URL", x->url);
    const char *added = x->ca_file ? x->ca_file : h->opt.ca_file;
    cp_code code = origin.https && !h->checked ? cp_authorities_check(&h->system, err) : CP_OK;
    h->checked = h->checked || (origin.https && !code);
    if (!code && added && origin.https)
        code = join(h, added, err);
    if (code)
        return code;
    transfer *t = cp_xcalloc(1, sizeof(*t));
    t->http = h;
    t->x = x;
    t->next = h->running;
    t->link = &h->running;
    if (t->next)
        t->next->link = &t->next;
    h->running = t;
    x->impl = t;
    forget_answer(x);
    x->text.max = CP_CLIENT_TEXT_MAX + 1;
    x->end = CP_CLIENT_LOST;
    x->private_peer = false;
    t->easy = curl_easy_init();
    bool ok = t->easy && headers(t);
    if (ok) {
        setup(t, &origin);
        ok = curl_multi_add_handle(h->multi, t->easy) == CURLM_OK;
    }
    if (!ok) {
        transfer_free(t);
        return cp_fail(err, CP_NO_MEMORY, "no memory for a request to %s", origin.host);
    }
    return CP_OK;
}

static cp_client_end judge(const transfer *t, CURLcode code)
{
    if (t->refused_address)
        return CP_CLIENT_REFUSED;
    switch (code) {
    case CURLE_OK:
        return CP_CLIENT_ANSWERED;
    case CURLE_WRITE_ERROR:
        return t->enough ? CP_CLIENT_ANSWERED : CP_CLIENT_STOPPED;
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_RESOLVE_PROXY:
    case CURLE_COULDNT_CONNECT:
        return CP_CLIENT_UNREACHED;
    case CURLE_GOT_NOTHING:
    case CURLE_WEIRD_SERVER_REPLY:
    case CURLE_UNSUPPORTED_PROTOCOL: /* HTTP/0.9, that is: not HTTP */
    case CURLE_SSL_CONNECT_ERROR:
        return CP_CLIENT_GARBLED;
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_ISSUER_ERROR:
    case CURLE_SSL_CIPHER:
    case CURLE_SSL_INVALIDCERTSTATUS:
    case CURLE_URL_MALFORMAT:
        return CP_CLIENT_REFUSED;
    default:
        return CP_CLIENT_LOST;
    }
}

static bool says_any(const char *text, size_t n, const char *const *words)
{
    for (; *words; words++)
        if (memmem(text, n, *words, strlen(*words)))
            return true;
    return false;
}

/* Does the peer speak the other scheme? TLS libraries name what is no TLS record in their own ways;
 * TLS servers answer plain HTTP with a 400 that says so, or with a record, which is no HTTP. */
static cp_client_other other_scheme(const transfer *t, CURLcode code, const char *text)
{
    static const char *const no_record[] = {"wrong version number", "packet length too long",
                                            "http request",         "unexpected TLS packet",
                                            "invalid SSL record",   NULL},
                             *const wants_tls[] = {"HTTPS server", "HTTPS port", "SSL-enabled",
                                                   NULL};
    const cp_exchange *x = t->x;
    long tunnel = 0;
    curl_easy_getinfo(t->easy, CURLINFO_HTTP_CONNECTCODE, &tunnel);
    if (t->https) /* with a proxy: behind its tunnel, not the proxy itself */
        return code == CURLE_SSL_CONNECT_ERROR && (!t->proxied || tunnel == 200) &&
                       says_any(text, strlen(text), no_record)
                   ? CP_CLIENT_SPEAKS_PLAIN
                   : CP_CLIENT_AS_ASKED;
    if (code == CURLE_UNSUPPORTED_PROTOCOL || code == CURLE_WEIRD_SERVER_REPLY)
        return CP_CLIENT_SPEAKS_TLS;
    return x->status == 400 && x->text.n > 0 && says_any(x->text.p, x->text.n, wants_tls)
               ? CP_CLIENT_SPEAKS_TLS
               : CP_CLIENT_AS_ASKED;
}

static void finish(transfer *t, CURLcode code)
{
    cp_exchange *x = t->x;
    char *ip = NULL;
    if (x->status == 0)
        read_answer(t);
    x->end = judge(t, code);
    if (x->end == CP_CLIENT_LOST && x->status >= 300)
        x->end = CP_CLIENT_ANSWERED; /* an error's text was cut short: the status says enough */
    const char *text = t->refused_address ? "its address is link-local or private, refused"
                       : t->error[0]      ? t->error
                                          : curl_easy_strerror(code);
    bool stranger =
        code == CURLE_PEER_FAILED_VERIFICATION &&
        (strstr(text, "issuer") || strstr(text, "self-signed") || strstr(text, "self signed"));
    x->other = other_scheme(t, code, text);
    if (x->end != CP_CLIENT_ANSWERED)
        cp_snprintf(x->problem, sizeof(x->problem), "%s%s", text,
                    stranger ? " (--ca-file F trusts one more authority)" : "");
    if (t->proxied)
        x->private_peer = t->private_host;
    else if (curl_easy_getinfo(t->easy, CURLINFO_PRIMARY_IP, &ip) == CURLE_OK && ip && *ip)
        x->private_peer = cp_host_classify(ip) != CP_ADDRESS_PUBLIC;
    transfer_free(t);
    x->done(x);
}

/* See client.h. */
cp_code cp_client_step(cp_client *h, int *n_running, cp_err *err)
{
    CURLMcode mc = curl_multi_perform(h->multi, n_running);
    CURLMsg *msg;
    int left;
    while (mc == CURLM_OK && (msg = curl_multi_info_read(h->multi, &left))) {
        if (msg->msg != CURLMSG_DONE)
            continue;
        transfer *t = NULL;
        CURLcode code = msg->data.result;
        curl_easy_getinfo(msg->easy_handle, CURLINFO_PRIVATE, (char **)&t);
        finish(t, code);
    }
    if (mc != CURLM_OK)
        return cp_fail(err, CP_INTERNAL, "libcurl: %s", curl_multi_strerror(mc));
    return CP_OK;
}

cp_code cp_client_wait(cp_client *h, int timeout_ms, cp_err *err)
{
    CURLMcode mc = curl_multi_poll(h->multi, NULL, 0, timeout_ms, NULL);
    return mc == CURLM_OK ? CP_OK
                          : cp_fail(err, CP_INTERNAL, "libcurl: %s", curl_multi_strerror(mc));
}
