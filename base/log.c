/*
 * A record is formatted into one stack buffer and written with one write(2), so that lines of
 * several threads never mix. As text it is "2025-01-31T12:00:00.123Z info message", as JSON
 * {"time":...,"level":...,"msg":...}. Line breaks and control bytes inside a message are escaped,
 * so that a message from outside cannot forge a line.
 */
#include "base/log.h"

#include "base/clock.h"
#include "base/io.h"
#include "base/mem.h"
#include "base/utf8.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { MESSAGE_MAX = 2048, LINE_MAX = 3 * MESSAGE_MAX, END_ROOM = 64 /* for a line's end */ };

/* The process's one log: set before threads start, then only read. */
static struct {
    _Atomic int level; /* relaxed: a late reader only logs one line more or less */
    _Atomic bool json;
} settings = {CP_LOG_INFO, false};

static const char *const level_names[] = {"error", "warn", "info", "debug"};

void cp_log_setup(cp_log_level level, bool json)
{
    atomic_store_explicit(&settings.level, (int)level, memory_order_relaxed);
    atomic_store_explicit(&settings.json, json, memory_order_relaxed);
}

bool cp_log_is_json(void)
{
    return atomic_load_explicit(&settings.json, memory_order_relaxed);
}

/* Append msg to line[n..cap), escaped; quotes too when json. Stops before a piece that does not
 * fit. */
static size_t escape(char *line, size_t n, size_t cap, const char *msg, bool json)
{
    for (const unsigned char *s = (const unsigned char *)msg; *s;) {
        char piece[8];
        /* a NUL follows no first byte, so nothing behind it is read */
        size_t step = cp_utf8_len((const char *)s, 4), control = cp_control((const char *)s), len;
        if (step > 1 && !control) {
            memcpy(piece, s, step);
            len = step;
        } else if (step == 0 || control) {
            len = cp_snprintf(piece, sizeof(piece), json ? "\\u%04x" : "\\x%02x",
                              step   ? s[step - 1]
                              : json ? 0xFFFDu
                                     : *s);
            step = step ? step : 1;
        } else if (json && (*s == '"' || *s == '\\')) {
            piece[0] = '\\';
            piece[1] = (char)*s;
            len = 2;
        } else {
            piece[0] = (char)*s;
            len = 1;
        }
        if (n + len > cap)
            break;
        memcpy(line + n, piece, len);
        n += len;
        s += step;
    }
    return n;
}

/* The line up to its message. */
static size_t begin(char line[LINE_MAX], cp_log_level level, bool json)
{
    char when[CP_CLOCK_TEXT];
    cp_clock_text(when);
    const char *name = level_names[level];
    return json ? cp_snprintf(line, LINE_MAX, "{\"time\":\"%s\",\"level\":\"%s\",\"msg\":\"", when,
                              name)
                : cp_snprintf(line, LINE_MAX, "%s %s ", when, name);
}

__attribute__((format(printf, 3, 0))) static void log_line(cp_log_level level, int dropped,
                                                           const char *fmt, va_list ap)
{
    char msg[MESSAGE_MAX], line[LINE_MAX];
    bool json = cp_log_is_json();
    if (vsnprintf(msg, sizeof(msg), fmt, ap) < 0)
        return;
    size_t n = escape(line, begin(line, level, json), sizeof(line) - END_ROOM, msg, json);
    if (json)
        n += cp_snprintf(line + n, sizeof(line) - n, "\"");
    if (dropped > 0)
        n += cp_snprintf(line + n, sizeof(line) - n, json ? ",\"dropped\":%d" : " dropped=%d",
                         dropped);
    n += cp_snprintf(line + n, sizeof(line) - n, json ? "}\n" : "\n");
    (void)cp_io_write(STDERR_FILENO, line, n); /* nobody is left to be told */
}

static bool wanted(cp_log_level level)
{
    return (int)level <= atomic_load_explicit(&settings.level, memory_order_relaxed);
}

/* ---- the limit ---- */

/*
 * A bucket that leaks: `full_ns` is when the bucket of a kind will be empty again if nothing more
 * comes. A line moves it on by what one line may take; one that would move it further than a burst
 * ahead is left out. A slot belongs to the first kind that came to it, for good; a kind that finds
 * none in its places is not limited.
 */
enum { KINDS = 256, PLACES = 8 };
#define LINE_NS  (INT64_C(1000000000) / CP_LOG_A_SECOND)
#define BURST_NS (LINE_NS * CP_LOG_BURST)

typedef struct kind {
    _Atomic(const char *) fmt;
    _Atomic int64_t full_ns;
    _Atomic int dropped; /* since the last line that said so */
} kind;

/* All relaxed: they steer only how many lines there are, and formats never change. */
static struct {
    kind kind[KINDS];
    _Atomic uint64_t dropped;
} limits;

static kind *kind_of(const char *fmt)
{
    uint64_t hash = (uint64_t)(uintptr_t)fmt * UINT64_C(0x9E3779B97F4A7C15) >> 32;
    for (uint64_t i = 0; i < PLACES; i++) {
        kind *k = &limits.kind[(hash + i) % KINDS];
        const char *seen = NULL;
        if (atomic_compare_exchange_strong_explicit(&k->fmt, &seen, fmt, memory_order_relaxed,
                                                    memory_order_relaxed) ||
            seen == fmt)
            return k;
    }
    return NULL;
}

/* Room for a line at `now`, which is taken. */
static bool take_room(kind *k, int64_t now)
{
    int64_t full = atomic_load_explicit(&k->full_ns, memory_order_relaxed), next;
    do {
        next = (full > now ? full : now) + LINE_NS;
        if (next - now > BURST_NS)
            return false;
    } while (!atomic_compare_exchange_weak_explicit(&k->full_ns, &full, next, memory_order_relaxed,
                                                    memory_order_relaxed));
    return true;
}

void cp_log(cp_log_level level, const char *fmt, ...)
{
    if (!wanted(level))
        return;
    kind *k = kind_of(fmt);
    if (k && !take_room(k, cp_now_ns())) {
        atomic_fetch_add_explicit(&k->dropped, 1, memory_order_relaxed);
        atomic_fetch_add_explicit(&limits.dropped, 1, memory_order_relaxed);
        return;
    }
    int dropped = k ? atomic_exchange_explicit(&k->dropped, 0, memory_order_relaxed) : 0;
    va_list ap;
    va_start(ap, fmt);
    log_line(level, dropped, fmt, ap);
    va_end(ap);
}

void cp_log_each(cp_log_level level, const char *fmt, ...)
{
    if (!wanted(level))
        return;
    va_list ap;
    va_start(ap, fmt);
    log_line(level, 0, fmt, ap);
    va_end(ap);
}

void cp_log_object(cp_log_level level, const char *msg, const char *fields)
{
    char line[LINE_MAX];
    if (!wanted(level))
        return;
    size_t n = escape(line, begin(line, level, true), sizeof(line) - END_ROOM, msg, true);
    bool fits = strlen(fields) < sizeof(line) - END_ROOM - n;
    n += cp_snprintf(line + n, sizeof(line) - n, "\"%s}\n", fits ? fields : ",\"cut\":true");
    (void)cp_io_write(STDERR_FILENO, line, n);
}

void cp_log_flush(int64_t now_ns)
{
    for (int i = 0; i < KINDS; i++) {
        kind *k = &limits.kind[i];
        if (atomic_load_explicit(&k->dropped, memory_order_relaxed) == 0 ||
            atomic_load_explicit(&k->full_ns, memory_order_relaxed) > now_ns)
            continue;
        int dropped = atomic_exchange_explicit(&k->dropped, 0, memory_order_relaxed);
        if (dropped > 0)
            cp_log_each(CP_LOG_WARN, "log lines were left out: dropped=%d of \"%s\"", dropped,
                        atomic_load_explicit(&k->fmt, memory_order_relaxed));
    }
}

uint64_t cp_log_dropped(void)
{
    return atomic_load_explicit(&limits.dropped, memory_order_relaxed);
}
