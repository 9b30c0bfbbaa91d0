/*
 * These functions write JSON. They copy a run of characters that need no escape (RFC 8259 §7) at
 * once, because nearly all text is such runs.
 */
#include "server/emit.h"

#include "base/utf8.h"

#include <math.h>
#include <string.h>

static void escape(cp_buf *b, unsigned char ch)
{
    switch (ch) {
    case '"':
        cp_buf_add(b, "\\\"", 2);
        break;
    case '\\':
        cp_buf_add(b, "\\\\", 2);
        break;
    case '\n':
        cp_buf_add(b, "\\n", 2);
        break;
    case '\r':
        cp_buf_add(b, "\\r", 2);
        break;
    case '\t':
        cp_buf_add(b, "\\t", 2);
        break;
    default:
        cp_buf_printf(b, "\\u%04x", ch);
    }
}

void cp_emit_chars(cp_buf *b, const char *s, size_t n)
{
    size_t from = 0, i = 0;
    while (i < n) {
        unsigned char ch = (unsigned char)s[i];
        size_t len = ch < 0x80 ? 1 : cp_utf8_len(s + i, n - i);
        if (len > 1 || (ch >= 0x20 && ch < 0x7F && ch != '"' && ch != '\\')) {
            i += len;
            continue;
        }
        if (i > from)
            cp_buf_add(b, s + from, i - from);
        if (len == 0)
            cp_buf_add(b, "\xEF\xBF\xBD", 3);
        else
            escape(b, ch);
        from = ++i;
    }
    if (n > from)
        cp_buf_add(b, s + from, n - from);
}

void cp_emit_str(cp_buf *b, const char *s, size_t n)
{
    cp_buf_addc(b, '"');
    cp_emit_chars(b, s, n);
    cp_buf_addc(b, '"');
}

void cp_emit_member(cp_buf *b, const char *key, const char *value)
{
    cp_buf_printf(b, ",\"%s\":", key);
    cp_emit_str(b, value, strlen(value));
}

void cp_emit_token(cp_buf *b, const char *s, size_t n)
{
    if (cp_utf8_valid(s, n)) {
        cp_emit_str(b, s, n);
        return;
    }
    cp_buf_adds(b, "\"bytes:");
    for (size_t i = 0; i < n; i++)
        cp_buf_printf(b, "\\\\x%02x", (unsigned char)s[i]);
    cp_buf_addc(b, '"');
}

void cp_emit_bytes(cp_buf *b, const char *s, size_t n)
{
    cp_buf_addc(b, '[');
    for (size_t i = 0; i < n; i++) {
        if (i > 0)
            cp_buf_addc(b, ',');
        cp_emit_int(b, (unsigned char)s[i]);
    }
    cp_buf_addc(b, ']');
}

void cp_emit_int(cp_buf *b, int64_t v)
{
    char digits[24];
    size_t at = sizeof(digits);
    uint64_t u = v < 0 ? 0 - (uint64_t)v : (uint64_t)v;
    do {
        digits[--at] = (char)('0' + u % 10);
        u /= 10;
    } while (u);
    if (v < 0)
        digits[--at] = '-';
    cp_buf_add(b, digits + at, sizeof(digits) - at);
}

void cp_emit_logprob(cp_buf *b, float v)
{
    if (!(v > -9999.0f))
        v = -9999.0f;
    cp_buf_printf(b, "%.9g", v > 0.0f ? 0.0 : (double)v);
}
