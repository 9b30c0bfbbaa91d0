/* This file reads and writes traceparent, and the reports of who sends spans: see trace.h. */
#include "server/trace.h"

#include "base/clock.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>

/* ---- context ---- */

static bool hex_bytes(const char *p, uint8_t *out, size_t n)
{
    bool any = false;
    for (size_t i = 0; i < 2 * n; i++) {
        int v = p[i] >= '0' && p[i] <= '9'   ? p[i] - '0'
                : p[i] >= 'a' && p[i] <= 'f' ? p[i] - 'a' + 10
                                             : -1;
        if (v < 0)
            return false;
        out[i / 2] = (uint8_t)(i % 2 ? out[i / 2] | v : v << 4);
        any = any || v > 0;
    }
    return any; /* zeros alone are no id */
}

/* W3C Trace Context §3.2: version-trace-parent-flags; later versions may say more behind it. */
static bool parse_parent(const char *p, cp_trace_context *t)
{
    uint8_t version, flags;
    size_t n = p ? strlen(p) : 0;
    if (n < 55 || p[2] != '-' || p[35] != '-' || p[52] != '-')
        return false;
    bool zero = strncmp(p, "00", 2) == 0;
    if ((!zero && !hex_bytes(p, &version, 1)) || strncmp(p, "ff", 2) == 0 ||
        (zero ? n != 55 : n > 55 && p[55] != '-'))
        return false;
    if (!hex_bytes(p + 3, t->trace, 16) || !hex_bytes(p + 36, t->parent, 8))
        return false;
    if (strncmp(p + 53, "00", 2) != 0 && !hex_bytes(p + 53, &flags, 1))
        return false;
    t->on = strncmp(p + 53, "00", 2) != 0 && (flags & 1);
    return true;
}

void cp_trace_id(uint8_t *out, size_t n)
{
    if (getrandom(out, n, 0) != (ssize_t)n) {
        int64_t now = cp_now_ns();
        memcpy(out, &now, n < sizeof(now) ? n : sizeof(now));
    }
}

void cp_trace_begin(cp_trace_context *t, const char *parent, const char *state)
{
    *t = (cp_trace_context){0};
    t->has_parent = parse_parent(parent, t);
    if (!t->has_parent) {
        *t = (cp_trace_context){.on = true};
        cp_trace_id(t->trace, sizeof(t->trace));
    } else if (state && strlen(state) < sizeof(t->state)) {
        cp_strcopy(t->state, sizeof(t->state), state);
    }
    cp_trace_id(t->span, sizeof(t->span));
}

void cp_trace_hex(const uint8_t *p, size_t n, char *out)
{
    for (size_t i = 0; i < n; i++) {
        *out++ = "0123456789abcdef"[p[i] >> 4];
        *out++ = "0123456789abcdef"[p[i] & 15];
    }
    *out = '\0';
}

void cp_trace_header(const cp_trace_context *t, char out[56])
{
    char trace[33], span[17];
    cp_trace_hex(t->trace, 16, trace);
    cp_trace_hex(t->span, 8, span);
    cp_snprintf(out, 56, "00-%s-%s-%02x", trace, span, (unsigned)t->on);
}

/* ---- reports ---- */

void cp_trace_collect(int fd, cp_metrics *m)
{
    cp_trace_report r;
    while (fd >= 0 && recv(fd, &r, sizeof(r), MSG_DONTWAIT) == (ssize_t)sizeof(r)) {
        cp_metric_add(m, CP_M_TRACES_EXPORTED, r.exported);
        cp_metric_add(m, CP_M_TRACES_FAILED, r.failed);
    }
}
