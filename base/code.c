/*
 * This file holds the table behind CP_CODES and fills a cp_err.
 *
 * Messages are formatted into the fixed buffer of a cp_err and cut at a UTF-8 boundary, so an
 * over-long name from outside never yields an invalid string for a client.
 */
#include "base/code.h"

#include "base/str.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const cp_code_row rows[CP_CODE_COUNT] = {
#define X(name, http, type, slug, exit) {#name, http, type, slug, exit},
    CP_CODES(X)
#undef X
};

const cp_code_row *cp_code_info(cp_code code)
{
    if ((unsigned)code >= CP_CODE_COUNT)
        return &rows[CP_INTERNAL];
    return &rows[code];
}

/* Drop a UTF-8 sequence that the buffer's end cut in two. */
static void trim_utf8(char *s)
{
    size_t n = strlen(s), start = n;
    while (start > 0 && n - start < 3 && ((unsigned char)s[start - 1] & 0xC0) == 0x80)
        start--;
    if (start == 0)
        return;
    unsigned char lead = (unsigned char)s[start - 1];
    size_t need = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : lead >= 0xC0 ? 2 : 1;
    if (need > n - start + 1)
        s[start - 1] = '\0';
}

__attribute__((format(printf, 4, 0))) static cp_code
fail(cp_err *err, cp_code code, const char *param, const char *fmt, va_list ap)
{
    if (!err)
        return code;
    err->code = code;
    int n = vsnprintf(err->msg, sizeof(err->msg), fmt, ap);
    if (n < 0)
        err->msg[0] = '\0';
    else if ((size_t)n >= sizeof(err->msg))
        trim_utf8(err->msg);
    if (!cp_strcopy(err->param, sizeof(err->param), param))
        trim_utf8(err->param);
    return code;
}

cp_code cp_fail(cp_err *err, cp_code code, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fail(err, code, "", fmt, ap);
    va_end(ap);
    return code;
}

cp_code cp_fail_param(cp_err *err, cp_code code, const char *param, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fail(err, code, param, fmt, ap);
    va_end(ap);
    return code;
}

cp_code cp_err_prefix(cp_err *err, const char *fmt, ...)
{
    if (!err)
        return CP_INTERNAL;
    char head[sizeof(err->msg)], tail[sizeof(err->msg)];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(head, sizeof(head), fmt, ap);
    va_end(ap);
    if (n < 0)
        head[0] = '\0';
    memcpy(tail, err->msg, sizeof(tail));
    size_t used = cp_snprintf(err->msg, sizeof(err->msg), "%s: ", head);
    if (!cp_strcopy(err->msg + used, sizeof(err->msg) - used, tail))
        trim_utf8(err->msg);
    return err->code;
}

void cp_assert_fail(const char *expr, const char *file, int line)
{
    fprintf(stderr, "capstan: %s:%d: broken invariant: %s\n", file, line, expr);
    fflush(stderr);
    abort();
}
