/*
 * This file reads heads and chunks strictly. A line ends with CRLF and with nothing else, names are
 * tokens, values have no control bytes, nothing is folded, Host and Content-Length come once,
 * Transfer-Encoding is `chunked` and stands alone (RFC 9112 §2.2, §5, §6, §7.1). What is refused
 * here never reaches a route.
 */
#include "server/head.h"

#include <ctype.h>
#include <string.h>
#include <strings.h>

enum {
    BLANK_LINES = 4,        /* in front of a request line (RFC 9112 §2.2) */
    LENGTH_DIGITS = 18,     /* of Content-Length; what is longer overflows */
    CHUNK_DIGITS = 15,      /* of a chunk's size */
    REQUEST_LINE_EXTRA = 64 /* method, version, spaces */
};

static const char *const method_names[CP_METHOD_COUNT] = {"GET",   "HEAD",   "POST",   "PUT",
                                                          "PATCH", "DELETE", "OPTIONS"};

const char *cp_method_name(cp_method m)
{
    return method_names[m];
}

static bool is_tchar(unsigned char ch)
{
    return isalnum(ch) || (ch && strchr("!#$%&'*+-.^_`|~", ch));
}

static bool is_token(const char *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!is_tchar((unsigned char)p[i]))
            return false;
    return n > 0;
}

static bool is(const char *p, size_t n, const char *word)
{
    return n == strlen(word) && strncasecmp(p, word, n) == 0;
}

static bool is_digits(const char *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!isdigit((unsigned char)p[i]))
            return false;
    return true;
}

static cp_head_span span(size_t at, size_t n)
{
    return (cp_head_span){(uint16_t)at, (uint16_t)n};
}

bool cp_authority_valid(const char *p, size_t n)
{
    size_t host = 0;
    if (n > 0 && p[0] == '[') {
        while (host < n && p[host] != ']')
            host++;
        if (host == n)
            return false;
        for (size_t i = 1; i < host; i++)
            if (!isxdigit((unsigned char)p[i]) && p[i] != ':' && p[i] != '.')
                return false;
        host++;
    } else {
        while (host < n && (isalnum((unsigned char)p[host]) ||
                            (p[host] && strchr("-._~%!$&'()*+,;=", p[host]))))
            host++;
    }
    if (host == n)
        return true;
    return p[host] == ':' && is_digits(p + host + 1, n - host - 1);
}

/* ---- the request line ---- */

static int read_target(cp_head *h, const char *p, size_t at, size_t end)
{
    size_t n = end - at;
    if (n > CP_TARGET_MAX)
        return -414;
    if (memchr(p + at, '#', n) || memmem(p + at, n, "%00", 3))
        return -400;
    if (n == 1 && p[at] == '*') {
        h->path = span(at, 1);
        return h->method == CP_OPTIONS ? 0 : -400;
    }
    if (p[at] != '/') {
        size_t scheme = n > 7 && strncasecmp(p + at, "http://", 7) == 0    ? 7
                        : n > 8 && strncasecmp(p + at, "https://", 8) == 0 ? 8
                                                                           : 0;
        if (scheme == 0)
            return -400;
        at += scheme;
        size_t host = 0;
        while (at + host < end && p[at + host] != '/' && p[at + host] != '?')
            host++;
        if (host == 0 || !cp_authority_valid(p + at, host))
            return -400;
        h->authority = span(at, host);
        at += host;
    }
    const char *query = memchr(p + at, '?', end - at);
    n = query ? (size_t)(query - (p + at)) : end - at;
    if (query)
        h->query = span(at + n + 1, end - at - n - 1);
    if (n > 1 && p[at + n - 1] == '/')
        n--;
    h->path = span(at, n);
    return 0;
}

static int read_request_line(cp_head *h, const char *p, size_t at, size_t end)
{
    const char *sp1 = memchr(p + at, ' ', end - at);
    size_t method = sp1 ? (size_t)(sp1 - (p + at)) : 0;
    if (!sp1 || !is_token(p + at, method))
        return -400;
    size_t target = at + method + 1;
    const char *sp2 = memchr(p + target, ' ', end - target);
    if (!sp2 || sp2 == p + target)
        return -400;
    const char *v = sp2 + 1;
    if (p + end - v != 8 || memcmp(v, "HTTP/", 5) != 0 || !isdigit((unsigned char)v[5]) ||
        v[6] != '.' || !isdigit((unsigned char)v[7]))
        return -400;
    h->has_line = true;
    h->v11 = v[7] == '1';
    if (v[5] != '1' || v[7] > '1')
        return -505;
    int m = 0;
    while (m < CP_METHOD_COUNT &&
           (strlen(method_names[m]) != method || memcmp(p + at, method_names[m], method) != 0))
        m++;
    if (m == CP_METHOD_COUNT)
        return -501;
    h->method = (cp_method)m;
    return read_target(h, p, target, (size_t)(sp2 - p));
}

/* ---- fields ---- */

/* Next word of a comma list in p[0 .. n); returns what follows it. */
static size_t next_word(const char *p, size_t n, const char **word, size_t *n_word)
{
    size_t end = 0, from = 0;
    while (end < n && p[end] != ',')
        end++;
    size_t to = end;
    while (from < to && (p[from] == ' ' || p[from] == '\t'))
        from++;
    while (to > from && (p[to - 1] == ' ' || p[to - 1] == '\t'))
        to--;
    *word = p + from;
    *n_word = to - from;
    return end < n ? end + 1 : n;
}

/* One coding, `chunked`; a list in which it is not the last, or comes twice, has two readings. */
static int read_coding(cp_head *h, const char *p, size_t n)
{
    if (h->chunked || h->has_length || !h->v11)
        return -400;
    int codings = 0, chunked = 0;
    bool last = false;
    for (size_t at = 0; at < n || codings == 0;) {
        const char *word;
        size_t n_word;
        at += next_word(p + at, n - at, &word, &n_word);
        codings++;
        last = is(word, n_word, "chunked");
        chunked += last;
        if (n_word == 0)
            return -400;
    }
    if (chunked > 1 || (chunked && !last))
        return -400;
    h->chunked = true;
    return codings == 1 && last ? 0 : -501;
}

static int read_length(cp_head *h, const char *p, size_t n)
{
    if (h->chunked || h->has_length || n == 0 || !is_digits(p, n))
        return -400;
    while (n > 1 && *p == '0') {
        p++;
        n--;
    }
    if (n > LENGTH_DIGITS)
        return -400;
    h->has_length = true;
    for (size_t i = 0; i < n; i++)
        h->length = h->length * 10 + (uint64_t)(p[i] - '0');
    return 0;
}

static void read_connection(cp_head *h, const char *p, size_t n)
{
    for (size_t at = 0; at < n;) {
        const char *word;
        size_t n_word;
        at += next_word(p + at, n - at, &word, &n_word);
        h->close = h->close || is(word, n_word, "close");
        h->keep_alive = h->keep_alive || is(word, n_word, "keep-alive");
    }
}

static int read_field(cp_head *h, const char *p, size_t at, size_t end)
{
    const char *colon = memchr(p + at, ':', end - at);
    if (!colon || !is_token(p + at, (size_t)(colon - (p + at))))
        return -400;
    if (h->n_fields == CP_HEADERS_MAX)
        return -431;
    size_t n_name = (size_t)(colon - (p + at)), value = at + n_name + 1;
    while (value < end && (p[value] == ' ' || p[value] == '\t'))
        value++;
    while (end > value && (p[end - 1] == ' ' || p[end - 1] == '\t'))
        end--;
    const char *name = p + at, *v = p + value;
    size_t n = end - value;
    h->fields[h->n_fields++] = (cp_head_field){span(at, n_name), span(value, n)};
    if (is(name, n_name, "Host")) {
        if (h->has_host || !cp_authority_valid(v, n))
            return -400;
        h->has_host = true;
    } else if (is(name, n_name, "Content-Length")) {
        return read_length(h, v, n);
    } else if (is(name, n_name, "Transfer-Encoding")) {
        return read_coding(h, v, n);
    } else if (is(name, n_name, "Connection")) {
        read_connection(h, v, n);
    } else if (is(name, n_name, "Expect")) {
        if (!is(v, n, "100-continue"))
            return -417;
        h->expect_continue = h->v11;
    }
    return 0;
}

/* A byte that no line may hold, wherever it stands. */
static bool is_forbidden(const cp_head *h, unsigned char ch)
{
    if (!h->has_line)
        return (ch < 32 && ch != '\r') || ch >= 127;
    return (ch < 32 && ch != '\t' && ch != '\r') || ch == 127;
}

int cp_head_read(cp_head *h, const char *p, size_t n)
{
    while (h->seen < n) {
        size_t at = h->seen++;
        unsigned char ch = (unsigned char)p[at];
        bool after_cr = at > h->line && p[at - 1] == '\r';
        if (ch != '\n') {
            if (after_cr || is_forbidden(h, ch))
                return -400;
            if (!h->has_line && at - h->line > CP_TARGET_MAX + REQUEST_LINE_EXTRA)
                return memchr(p + h->line, ' ', REQUEST_LINE_EXTRA) ? -414 : -400;
            if (at >= CP_HEAD_MAX)
                return -431;
            continue;
        }
        if (!after_cr)
            return -400;
        size_t begin = h->line, end = at - 1;
        h->line = h->seen;
        int status = 0;
        if (begin < end) {
            status =
                h->has_line ? read_field(h, p, begin, end) : read_request_line(h, p, begin, end);
        } else if (h->has_line) {
            return h->v11 && !h->has_host ? -400 : (int)h->seen;
        } else if (++h->n_blank > BLANK_LINES) {
            status = -400;
        }
        if (status < 0)
            return status;
    }
    return 0;
}

/* What speaks of the connection or of the body; and cookies, which nobody here asks for: the
 * library would make a table of them that its memory does not hold. */
static bool is_withheld(const char *name, size_t n)
{
    static const char *const names[] = {"Connection", "Content-Length",   "Cookie", "Expect",
                                        "Keep-Alive", "Proxy-Connection", "TE",     "Trailer",
                                        "Upgrade",    "Transfer-Encoding"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (is(name, n, names[i]))
            return true;
    return false;
}

void cp_head_canonical(const cp_head *h, const char *p, cp_buf *out)
{
    bool v11 = h->v11 || !p;
    cp_buf_printf(out, "%s ", method_names[h->method]);
    if (p && h->path.n > 0)
        cp_buf_add(out, p + h->path.at, h->path.n);
    else
        cp_buf_adds(out, "/");
    cp_buf_adds(out, v11 ? " HTTP/1.1\r\n" : " HTTP/1.0\r\n");
    if (!p)
        cp_buf_adds(out, "Host: -\r\n");
    for (int i = 0; i < h->n_fields && p; i++) {
        const cp_head_field *f = &h->fields[i];
        if (is_withheld(p + f->name.at, f->name.n))
            continue;
        cp_buf_add(out, p + f->name.at, f->name.n);
        cp_buf_adds(out, ": ");
        cp_buf_add(out, p + f->value.at, f->value.n);
        cp_buf_adds(out, "\r\n");
    }
    if (!v11 && h->keep_alive)
        cp_buf_adds(out, "Connection: keep-alive\r\n");
    cp_buf_adds(out, "\r\n");
}

/* ---- chunks ---- */

static int hex_digit(unsigned char ch)
{
    return isdigit(ch) ? ch - '0' : isxdigit(ch) ? tolower(ch) - 'a' + 10 : -1;
}

/* One byte of framing; the next state. */
static cp_chunk_state step(cp_chunks *k, unsigned char ch)
{
    bool text = (ch >= 32 && ch != 127) || ch == '\t';
    int digit;
    switch (k->state) {
    case CP_CHUNK_SIZE:
        if ((digit = hex_digit(ch)) >= 0 && k->n_line < CHUNK_DIGITS) {
            k->left = k->left * 16 + (uint64_t)digit;
            k->n_line++;
            return CP_CHUNK_SIZE;
        }
        if (digit >= 0 || k->n_line == 0)
            return CP_CHUNK_BAD;
        k->n_line = 0;
        return ch == '\r' ? CP_CHUNK_SIZE_LF : ch == ';' ? CP_CHUNK_EXT : CP_CHUNK_BAD;
    case CP_CHUNK_EXT:
        if (ch == '\r')
            return CP_CHUNK_SIZE_LF;
        return text && ++k->n_line <= CP_CHUNK_LINE_MAX ? CP_CHUNK_EXT : CP_CHUNK_BAD;
    case CP_CHUNK_SIZE_LF:
        k->n_line = 0;
        return ch != '\n' ? CP_CHUNK_BAD : k->left > 0 ? CP_CHUNK_DATA : CP_CHUNK_TRAILER;
    case CP_CHUNK_DATA_CR:
        return ch == '\r' ? CP_CHUNK_DATA_LF : CP_CHUNK_BAD;
    case CP_CHUNK_DATA_LF:
        return ch == '\n' ? CP_CHUNK_SIZE : CP_CHUNK_BAD;
    case CP_CHUNK_TRAILER:
        if (ch == '\r')
            return CP_CHUNK_LAST_LF;
        return is_tchar(ch) ? CP_CHUNK_TRAILER_NAME : CP_CHUNK_BAD;
    case CP_CHUNK_TRAILER_NAME:
        return ch == ':' ? CP_CHUNK_TRAILER_VALUE : is_tchar(ch) ? k->state : CP_CHUNK_BAD;
    case CP_CHUNK_TRAILER_VALUE:
        return ch == '\r' ? CP_CHUNK_TRAILER_LF : text ? k->state : CP_CHUNK_BAD;
    case CP_CHUNK_TRAILER_LF:
        return ch == '\n' ? CP_CHUNK_TRAILER : CP_CHUNK_BAD;
    case CP_CHUNK_LAST_LF:
        return ch == '\n' ? CP_CHUNK_END : CP_CHUNK_BAD;
    default:
        return CP_CHUNK_BAD;
    }
}

size_t cp_chunks_take(cp_chunks *k, const char *p, size_t n, const char **data, size_t *n_data)
{
    size_t at = 0;
    *data = p;
    *n_data = 0;
    while (at < n && k->state < CP_CHUNK_END) {
        if (k->state == CP_CHUNK_DATA) {
            *data = p + at;
            *n_data = n - at < k->left ? n - at : (size_t)k->left;
            k->left -= *n_data;
            if (k->left == 0)
                k->state = CP_CHUNK_DATA_CR;
            return at + *n_data;
        }
        if (k->state >= CP_CHUNK_TRAILER && ++k->n_trailer > CP_TRAILER_MAX)
            k->state = CP_CHUNK_BAD;
        else
            k->state = step(k, (unsigned char)p[at++]);
    }
    return at;
}
