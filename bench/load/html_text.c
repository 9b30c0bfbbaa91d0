/* Escaped text and numbers for people. */
#include "bench/load/html.h"

#include "base/utf8.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { LONGEST = 1000 };

/* Characters that a page must not take from outside: control characters, and those that turn the
 * direction of what follows (Unicode, UAX 9). */
static bool unwanted(uint32_t c)
{
    return c < 0x20 || (c >= 0x7F && c < 0xA0) || (c >= 0x200E && c <= 0x200F) ||
           (c >= 0x2028 && c <= 0x202E) || (c >= 0x2066 && c <= 0x2069) || c == 0xFEFF ||
           (c & 0xFFFE) == 0xFFFE;
}

void cp_html_text(cp_buf *out, const char *s)
{
    size_t n = s ? strlen(s) : 0, from = out->n;
    for (size_t i = 0; i < n;) {
        uint32_t c = 0;
        size_t len = cp_utf8_decode(s + i, n - i, &c);
        if (out->n - from > LONGEST) {
            cp_buf_adds(out, "\xE2\x80\xA6");
            return;
        }
        const char *as = len == 0 || unwanted(c) ? "\xEF\xBF\xBD"
                         : c == '&'              ? "&amp;"
                         : c == '<'              ? "&lt;"
                         : c == '>'              ? "&gt;"
                         : c == '"'              ? "&quot;"
                         : c == '\''             ? "&#39;"
                                                 : NULL;
        if (as)
            cp_buf_adds(out, as);
        else
            cp_buf_add(out, s + i, len);
        i += len > 0 ? len : 1;
    }
}

void cp_html_fixed(cp_buf *out, double v, int decimals)
{
    char text[64];
    if (!isfinite(v)) {
        cp_buf_adds(out, "\xE2\x80\x93");
        return;
    }
    if (fabs(v) >= 1e15) {
        cp_buf_printf(out, "%.3g", v);
        return;
    }
    size_t n = cp_snprintf(text, sizeof(text), "%.*f", decimals, v);
    const char *dot = strchr(text, '.');
    size_t whole = dot ? (size_t)(dot - text) : n;
    for (size_t i = 0; i < n; i++) {
        if (i > 0 && i < whole && (whole - i) % 3 == 0 && text[i - 1] != '-')
            cp_buf_addc(out, ',');
        cp_buf_addc(out, text[i]);
    }
}

/* Three digits, without zeros at the end of decimals. */
static void plain(cp_buf *out, double v)
{
    double a = fabs(v);
    int decimals = a >= 100 || a == floor(a) ? 0 : a >= 10 ? 1 : a >= 1 ? 2 : 3;
    char text[64];
    if (a >= 1000 || decimals == 0) {
        cp_html_fixed(out, v, 0);
        return;
    }
    size_t n = cp_snprintf(text, sizeof(text), "%.*f", decimals, v);
    while (n > 0 && text[n - 1] == '0')
        n--;
    if (n > 0 && text[n - 1] == '.')
        n--;
    cp_buf_add(out, text, n);
}

static void with_unit(cp_buf *out, double v, const char *unit)
{
    plain(out, v);
    cp_buf_printf(out, "\xC2\xA0%s", unit);
}

void cp_html_number(cp_buf *out, double v, cp_html_unit unit)
{
    if (!isfinite(v)) {
        cp_buf_adds(out, "\xE2\x80\x93");
    } else if (unit == CP_HTML_MS) {
        if (v < 1000)
            with_unit(out, v, "ms");
        else if (v < 100000)
            with_unit(out, v / 1e3, "s");
        else
            with_unit(out, v / 6e4, "min");
    } else if (unit == CP_HTML_SECONDS) {
        with_unit(out, v < 300 ? v : v / 60, v < 300 ? "s" : "min");
    } else if (unit == CP_HTML_SHARE) {
        with_unit(out, v * 100, "%");
    } else if (unit == CP_HTML_NINES) {
        cp_buf_printf(out, "p%.6g", 100 - 100 * pow(10, -v));
    } else {
        plain(out, v);
    }
}

cp_html_words cp_html_say(double v, cp_html_unit unit)
{
    cp_html_words w = {""};
    cp_buf b = {0};
    cp_html_number(&b, v, unit);
    cp_strcopy(w.s, sizeof(w.s), b.p ? b.p : "");
    cp_buf_fini(&b);
    return w;
}

void cp_html_table_begin(cp_buf *out, const char *words, const char *const *columns)
{
    cp_buf_printf(out,
                  "<div class=\"wide\" tabindex=\"0\" role=\"region\" aria-label=\"%s\"><table>"
                  "<thead><tr>",
                  words);
    for (; *columns; columns++)
        cp_buf_printf(out, "<th scope=\"col\">%s</th>", *columns);
    cp_buf_adds(out, "</tr></thead><tbody>");
}

void cp_html_table_end(cp_buf *out)
{
    cp_buf_adds(out, "</tbody></table></div>");
}

void cp_html_cell(cp_buf *out, double v, int decimals)
{
    cp_buf_adds(out, "<td>");
    cp_html_fixed(out, v, decimals);
    cp_buf_adds(out, "</td>");
}

void cp_html_cell_unit(cp_buf *out, double v, cp_html_unit unit)
{
    cp_buf_adds(out, "<td>");
    cp_html_number(out, v, unit);
    cp_buf_adds(out, "</td>");
}
