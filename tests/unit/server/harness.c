/* The harness: see harness.h. */
#include "harness.h"

#include "base/clock.h"
#include "base/log.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const char join[] = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
                           "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>"
                           "assistant\n{% endif %}";

static int32_t script_next(void *arg, const cp_request *r, int choice, int index)
{
    (void)r;
    (void)choice;
    const h_script *s = arg;
    if (index < s->n)
        return s->id[index];
    return s->endless && s->n > 0 ? s->id[s->n - 1] : -1;
}

void h_say(harness *h, const char *text)
{
    h->script.n = 0;
    h->script.endless = false;
    for (; *text; text++)
        h->script.id[h->script.n++] = (unsigned char)*text;
}

static void open_template(harness *h, cp_template_use use, const char *src)
{
    cp_err err;
    assert_int_equal(cp_template_open(&h->templates.of[use], src, strlen(src), &err), CP_OK);
}

void h_open(harness *h, const h_config *cfg)
{
    cp_err err;
    memset(h, 0, sizeof(*h));
    sem_init(&h->gate, 0, 0);
    cp_log_setup(CP_LOG_ERROR, false);
    cp_fake_config fc = {.ctx = cfg->ctx ? cfg->ctx : 4096,
                         .max_queue = cfg->max_queue ? cfg->max_queue : 1024,
                         .script = script_next,
                         .arg = &h->script};
    h->fake = cp_fake_open(&fc);
    h->meta = cp_fake_meta_new();
    if (cfg->add_bos)
        cp_fake_meta_add_bos(h->meta);
    assert_int_equal(cp_tokenizer_open(&h->tok, cp_fake_meta_view(h->meta), &err), CP_OK);
    const char *src = cfg->template_ ? cfg->template_ : join;
    if (*src)
        open_template(h, CP_TEMPLATE_DEFAULT, src);
    if (cfg->tool_use)
        open_template(h, CP_TEMPLATE_TOOL_USE, cfg->tool_use);
    if (cfg->rag)
        open_template(h, CP_TEMPLATE_RAG, cfg->rag);
    assert_int_equal(cp_jobs_open(&h->jobs, 1, 1024, &err), CP_OK);
    h->process = cp_metrics_new(NULL);
    h->model_metrics = cp_metrics_new("smol");
    size_t n_cors = 0;
    while (n_cors < 3 && cfg->cors[n_cors])
        n_cors++;
    cp_server_config sc = {.keys = cfg->keys,
                           .n_keys = cfg->n_keys,
                           .host = cfg->host,
                           .cors_origins = cfg->cors,
                           .n_cors_origins = n_cors,
                           .allowed_hosts = &cfg->allowed_host,
                           .n_allowed_hosts = cfg->allowed_host ? 1 : 0,
                           .engine = cfg->engine ? cfg->engine : cp_fake_api(h->fake),
                           .jobs = h->jobs,
                           .body_bytes = cfg->body_bytes,
                           .deadline_ms = cfg->deadline_ms,
                           .drain_grace_ms = cfg->grace_ms,
                           .drain_timeout_ms = cfg->timeout_ms,
                           .header_deadline_ms = cfg->header_ms,
                           .keepalive_comment_ms = cfg->comment_ms,
                           .slow_reader_ms = cfg->slow_ms,
                           .trace_fd = cfg->trace_fd,
                           .max_connections = cfg->max_connections,
                           .version = "1.2.3 (test)",
                           .metrics = h->process};
    assert_int_equal(cp_server_open(&h->s, &sc, &err), CP_OK);
    static const char *const ids[] = {"smol", "second name", "org/model:tag"};
    cp_server_model m = {.tokenizer = h->tok,
                         .templates = h->templates,
                         .digest = "sha256:00",
                         .quantization = "Q4_1",
                         .fingerprint = "fp-test",
                         .defaults = cp_sampling_defaults_off(),
                         .engine = cfg->resident,
                         .created = 1700000000,
                         .metrics = h->model_metrics};
    if (cfg->default_max_tokens)
        m.defaults.max_tokens = cfg->default_max_tokens;
    assert_int_equal(cp_server_reserve_model(h->s, ids, 3, &h->model, &err), CP_OK);
    assert_int_equal(cp_server_publish_model(h->s, h->model, &m, &err), CP_OK);
    if (cfg->loader)
        cp_server_set_host(h->s, cfg->loader);
    if (!cfg->loading)
        cp_server_ready(h->s);
    h_say(h, "Hello");
}

void h_free(harness *h)
{
    cp_templates_close(&h->templates);
    cp_tokenizer_close(h->tok);
    cp_fake_meta_free(h->meta);
    cp_metrics_free(h->process);
    cp_metrics_free(h->model_metrics);
    sem_destroy(&h->gate);
}

void h_end(harness *h)
{
    cp_fake_stop(h->fake);
    assert_int_equal(cp_fake_read(h->fake).live, 0);
    cp_server_close(h->s);
    cp_jobs_close(h->jobs);
    cp_fake_close(h->fake);
    h_free(h);
}

void h_close(harness *h)
{
    h_wait_idle(h);
    h_end(h);
}

/* Waiting polls; a limit only turns a hang into a failure. */
static void nap(int64_t *left_ms)
{
    struct timespec ts = {.tv_nsec = 2000000};
    nanosleep(&ts, NULL);
    *left_ms -= 2;
    assert_true(*left_ms > 0);
}

void h_wait_submitted(harness *h, long n)
{
    for (int64_t left = 60000; cp_fake_read(h->fake).submitted < n;)
        nap(&left);
}

void h_wait_cancelled(harness *h, long n)
{
    for (int64_t left = 60000; cp_fake_read(h->fake).cancelled < n;)
        nap(&left);
}

void h_wait_idle(harness *h)
{
    for (int64_t left = 60000; cp_fake_read(h->fake).live > 0 || cp_server_active(h->s) > 0;)
        nap(&left);
}

void h_wait_alone(harness *h)
{
    h_wait_idle(h);
    for (int64_t left = 60000; cp_http_connections(h->s->http) > 0 ||
                               cp_metric_get(h->process, CP_M_REQUESTS_ACTIVE) > 0;)
        nap(&left);
}

void h_wait_jobs(harness *h, int n)
{
    for (int64_t left = 60000; atomic_load(&h->s->n_jobs) != n;)
        nap(&left);
}

void h_wait_active(harness *h, int n)
{
    for (int64_t left = 60000; cp_server_active(h->s) != n;)
        nap(&left);
}

static void wait_at_gate(void *arg)
{
    harness *h = arg;
    atomic_store(&h->at_gate, true);
    while (sem_wait(&h->gate) != 0)
        ;
}

void h_block_jobs(harness *h)
{
    assert_true(cp_jobs_submit(h->jobs, wait_at_gate, h));
    for (int64_t left = 60000; !atomic_load(&h->at_gate);)
        nap(&left);
}

void h_unblock_jobs(harness *h)
{
    sem_post(&h->gate);
}

/* ---- the client ---- */

int h_connect(const harness *h)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in sa = {.sin_family = AF_INET};
    sa.sin_port = htons((uint16_t)cp_server_port(h->s));
    sa.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    struct timeval limit = {.tv_sec = 60};
    assert_true(fd >= 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    assert_int_equal(connect(fd, (const struct sockaddr *)&sa, sizeof(sa)), 0);
    return fd;
}

void h_send(int fd, const char *p, size_t n)
{
    while (n > 0) {
        ssize_t k = send(fd, p, n, MSG_NOSIGNAL);
        if (k <= 0)
            return; /* the server has closed: what it said is still there to read */
        p += k;
        n -= (size_t)k;
    }
}

void h_sends(int fd, const char *s)
{
    h_send(fd, s, strlen(s));
}

void h_request(int fd, const char *method, const char *path, const char *extra, const char *body)
{
    cp_buf b = {0};
    cp_buf_printf(&b, "%s %s HTTP/1.1\r\nHost: localhost\r\n%s", method, path, extra ? extra : "");
    if (body)
        cp_buf_printf(&b, "Content-Length: %zu\r\n", strlen(body));
    cp_buf_adds(&b, "\r\n");
    if (body)
        cp_buf_adds(&b, body);
    h_send(fd, b.p, b.n);
    cp_buf_fini(&b);
}

static bool read_byte(int fd, char *ch)
{
    ssize_t n;
    do
        n = recv(fd, ch, 1, 0);
    while (n < 0 && errno == EINTR);
    return n == 1;
}

static bool read_line(int fd, cp_buf *line)
{
    char ch;
    cp_buf_clear(line);
    while (read_byte(fd, &ch)) {
        cp_buf_addc(line, ch);
        if (ch == '\n')
            return true;
    }
    return false;
}

static bool read_n(int fd, size_t n, cp_buf *out)
{
    char buf[4096];
    while (n > 0) {
        ssize_t k = recv(fd, buf, n < sizeof(buf) ? n : sizeof(buf), 0);
        if (k <= 0)
            return false;
        cp_buf_add(out, buf, (size_t)k);
        n -= (size_t)k;
    }
    return true;
}

const char *h_header(const h_answer *a, const char *name, char *out, size_t cap)
{
    size_t n = strlen(name);
    for (const char *p = a->head; p && *p; p = strchr(p, '\n'), p = p ? p + 1 : NULL) {
        if (strncasecmp(p, name, n) != 0 || p[n] != ':')
            continue;
        p += n + 1;
        while (*p == ' ')
            p++;
        size_t len = strcspn(p, "\r\n");
        if (len >= cap)
            len = cap - 1;
        memcpy(out, p, len);
        out[len] = '\0';
        return out;
    }
    return NULL;
}

static void read_chunks(int fd, h_answer *a)
{
    cp_buf line = {0}, crlf = {0};
    a->chunked = true;
    while (read_line(fd, &line)) {
        size_t n = strtoul(line.p, NULL, 16);
        if (n == 0) {
            a->whole = read_line(fd, &line);
            break;
        }
        cp_buf_clear(&crlf);
        if (!read_n(fd, n, &a->body) || !read_n(fd, 2, &crlf))
            break;
    }
    cp_buf_fini(&line);
    cp_buf_fini(&crlf);
}

bool h_read(int fd, h_answer *a)
{
    memset(a, 0, sizeof(*a));
    cp_buf line = {0};
    bool ok = read_line(fd, &line);
    if (ok)
        a->status = (int)strtol(line.p + 9, NULL, 10);
    size_t at = 0;
    while (ok && (ok = read_line(fd, &line)) && line.n > 2)
        at += cp_snprintf(a->head + at, sizeof(a->head) - at, "%s", line.p);
    cp_buf_fini(&line);
    if (!ok)
        return false;
    if (a->status == 100)
        return h_read(fd, a);
    char value[64];
    if (h_header(a, "Transfer-Encoding", value, sizeof(value)))
        read_chunks(fd, a);
    else if (h_header(a, "Content-Length", value, sizeof(value)))
        a->whole = read_n(fd, strtoul(value, NULL, 10), &a->body);
    return true;
}

void h_answer_fini(h_answer *a)
{
    cp_buf_fini(&a->body);
}

h_answer h_call(const harness *h, const char *method, const char *path, const char *extra,
                const char *body)
{
    h_answer a;
    int fd = h_connect(h);
    h_request(fd, method, path, extra, body);
    if (!h_read(fd, &a))
        fail_msg("no answer to %s %s", method, path);
    close(fd);
    return a;
}

json_t *h_json(const h_answer *a)
{
    json_error_t e;
    json_t *v = json_loadb(a->body.p ? a->body.p : "", a->body.n, 0, &e);
    if (!v)
        fail_msg("not JSON (%s): %s", e.text, a->body.p ? a->body.p : "");
    return v;
}

const char *h_error_code(const h_answer *a)
{
    static char code[64];
    json_t *v = json_loadb(a->body.p ? a->body.p : "", a->body.n, 0, NULL);
    const char *s = json_string_value(json_object_get(json_object_get(v, "error"), "code"));
    cp_strcopy(code, sizeof(code), s ? s : "");
    json_decref(v);
    return code;
}

/* The event that begins at p: its end, or NULL. *is_data: not a comment. */
static const char *event_end(const h_answer *a, const char *p, bool *is_data)
{
    size_t left = (size_t)(a->body.p + a->body.n - p);
    *is_data = left > 6 && memcmp(p, "data: ", 6) == 0;
    return left > 0 ? memmem(p, left, "\n\n", 2) : NULL;
}

const char *h_event(const h_answer *a, int i)
{
    static char data[65536];
    bool is_data;
    for (const char *p = a->body.p, *end; p && (end = event_end(a, p, &is_data)); p = end + 2) {
        if (!is_data || i-- > 0)
            continue;
        size_t n = (size_t)(end - p) - 6;
        assert_true(n < sizeof(data));
        memcpy(data, p + 6, n);
        data[n] = '\0';
        return data;
    }
    return NULL;
}

int h_events(const h_answer *a)
{
    int n = 0;
    bool is_data;
    for (const char *p = a->body.p, *end; p && (end = event_end(a, p, &is_data)); p = end + 2)
        n += is_data;
    return n;
}

void h_path(const cp_route *r, char *out, size_t cap)
{
    const char *mark = strstr(r->path, CP_ROUTE_MODEL);
    int n = mark ? (int)(mark - r->path) : (int)strlen(r->path);
    cp_snprintf(out, cap, "%.*s%s%s", n, r->path, mark ? "smol" : "",
                mark ? mark + strlen(CP_ROUTE_MODEL) : "");
}

const cp_api *h_api(unsigned at)
{
    const cp_route *r;
    for (size_t i = 0; (r = cp_route_at(i)); i++)
        if (r->api && (r->api->at == at || (r->api->other && r->api->other->at == at)))
            return r->api;
    fail_msg("no route takes bodies of place %u", at);
    return NULL;
}
