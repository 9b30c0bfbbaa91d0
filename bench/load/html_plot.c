/* Plots as SVG: axes, lines, marks, labels. */
#include "bench/load/html.h"

#include <math.h>
#include <string.h>

/* Units of the picture. */
enum { WIDTH = 440, HEIGHT = 230, LEFT = 52, RIGHT = 12, MARGIN = 62, TOP = 24, BOTTOM = 38 };
enum { TICK_APART = 32 };
enum { TICKS = 24 };

/* The smallest of 1, 2, 2.5 and 5 times a power of ten that is not below v. */
static double round_step(double v)
{
    static const double steps[] = {1, 2, 2.5, 5, 10};
    double unit = pow(10, floor(log10(v)));
    for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
        if (steps[i] * unit >= v * (1 - 1e-9))
            return steps[i] * unit;
    }
    return 10 * unit;
}

/* The same of minutes. */
static double round_time(double v)
{
    static const double steps[] = {60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200};
    for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
        if (steps[i] >= v)
            return steps[i];
    }
    return round_step(v / 86400) * 86400;
}

cp_html_axis cp_html_from_zero(double most, cp_html_unit unit, const char *words)
{
    if (!isfinite(most) || most <= 0)
        most = 1;
    double step = round_step(most / 4);
    return (cp_html_axis){
        .hi = step * ceil(most / step * (1 - 1e-9)), .unit = unit, .words = words};
}

cp_html_axis cp_html_decades(double least, double most, cp_html_unit unit, const char *words)
{
    if (!(least > 0) || !isfinite(least))
        least = 1;
    if (!(most > least) || !isfinite(most))
        most = least * 2;
    return (cp_html_axis){
        .lo = least / 1.1, .hi = most * 1.1, .log = true, .unit = unit, .words = words};
}

cp_html_axis cp_html_axis_of(double least, double most, cp_html_unit unit, const char *words)
{
    return least > 0 && most > 20 * least ? cp_html_decades(least, most, unit, words)
                                          : cp_html_from_zero(most, unit, words);
}

/* Where the ticks of an axis stand. */
static size_t ticks(const cp_html_axis *a, double t[TICKS])
{
    size_t n = 0;
    if (a->unit == CP_HTML_NINES) {
        t[n++] = log10(2);
        for (int i = 1; i <= a->hi + 1e-9 && n < TICKS; i++)
            t[n++] = i;
    } else if (a->log) {
        static const int parts[] = {1, 2, 5};
        double decades = log10(a->hi / a->lo);
        size_t per = decades > 3 ? 1 : 3;
        double every = decades > 8 ? ceil(decades / 8) : 1; /* decades between ticks */
        for (double d = floor(log10(a->lo)); d <= log10(a->hi) && n < TICKS; d += every) {
            for (size_t i = 0; i < per && n < TICKS; i++) {
                double v = parts[i] * pow(10, d);
                if (v >= a->lo && v <= a->hi)
                    t[n++] = v;
            }
        }
    } else {
        double step = a->unit == CP_HTML_SECONDS && a->hi >= 300
                          ? round_time(a->hi / 5)
                          : round_step((a->hi - a->lo) / 4.001);
        for (int i = 0; a->lo + i * step <= a->hi * (1 + 1e-9) && n < TICKS; i++)
            t[n++] = a->lo + i * step;
    }
    return n;
}

/* 0..1 along an axis. */
static double along(const cp_html_axis *a, double v)
{
    double t = a->log ? log(v / a->lo) / log(a->hi / a->lo) : (v - a->lo) / (a->hi - a->lo);
    return !(t > 0) ? 0 : t > 1 ? 1 : t;
}

static int right(const cp_html_plot *p)
{
    return WIDTH - (p->margin ? MARGIN : RIGHT);
}

double cp_html_px(const cp_html_plot *p, double x)
{
    return LEFT + along(&p->x, x) * (right(p) - LEFT);
}

double cp_html_py(const cp_html_plot *p, double y)
{
    return HEIGHT - BOTTOM - along(&p->y, y) * (HEIGHT - TOP - BOTTOM);
}

static void ticks_y(cp_html_plot *p)
{
    double t[TICKS];
    size_t n = ticks(&p->y, t);
    for (size_t i = 0; i < n; i++) {
        double y = cp_html_py(p, t[i]);
        cp_buf_printf(p->out, "<path class=\"%s\" d=\"M%d %.1fH%d\"/>",
                      i == 0 && !p->y.log ? "axis" : "grid", LEFT, y, right(p));
        cp_buf_printf(p->out, "<text class=\"tick end\" x=\"%d\" y=\"%.1f\">", LEFT - 7, y + 4);
        cp_html_number(p->out, t[i], p->y.unit);
        cp_buf_adds(p->out, "</text>");
    }
    if (p->y.log)
        cp_buf_printf(p->out, "<path class=\"axis\" d=\"M%d %dH%d\"/>", LEFT, HEIGHT - BOTTOM,
                      right(p));
    cp_buf_printf(p->out, "<text class=\"words\" x=\"%d\" y=\"12\">%s%s</text>", LEFT - 44,
                  p->y.words,
                  !p->y.log       ? ""
                  : p->y.words[0] ? ", log scale"
                                  : "log scale");
}

static void ticks_x(cp_html_plot *p)
{
    double t[TICKS], last = -100;
    size_t n = ticks(&p->x, t);
    for (size_t i = 0; i < n; i++) {
        double x = cp_html_px(p, t[i]);
        if (x - last < TICK_APART) /* labels would touch */
            continue;
        last = x;
        cp_buf_printf(p->out, "<path class=\"axis\" d=\"M%.1f %dv4\"/>", x, HEIGHT - BOTTOM);
        cp_buf_printf(p->out, "<text class=\"tick mid\" x=\"%.1f\" y=\"%d\">", x,
                      HEIGHT - BOTTOM + 16);
        cp_html_number(p->out, t[i], p->x.unit);
        cp_buf_adds(p->out, "</text>");
    }
    cp_buf_printf(p->out, "<text class=\"words mid\" x=\"%d\" y=\"%d\">%s</text>",
                  (LEFT + right(p)) / 2, HEIGHT - 4, p->x.words);
}

void cp_html_plot_begin(cp_html_plot *p, const char *words)
{
    cp_buf_printf(p->out, "<svg viewBox=\"0 0 %d %d\" role=\"img\" aria-label=\"", WIDTH, HEIGHT);
    cp_html_text(p->out, words);
    cp_buf_adds(p->out, "\">");
    ticks_y(p);
    ticks_x(p);
}

void cp_html_plot_end(cp_html_plot *p)
{
    cp_buf_adds(p->out, "</svg>");
}

/* The path of a line; first and last get the ends of its last unbroken part. */
static void path(cp_html_plot *p, const double *x, const double *y, size_t n, bool step, bool fill)
{
    bool in = false;
    double begin = 0, end = 0, floor_y = HEIGHT - BOTTOM;
    for (size_t i = 0; i <= n; i++) {
        bool there = i < n && isfinite(x[i]) && isfinite(y[i]);
        if (in && !there && fill)
            cp_buf_printf(p->out, "V%.1fH%.1fZ", floor_y, begin);
        if (there) {
            double px = cp_html_px(p, x[i]), py = cp_html_py(p, y[i]);
            if (!in)
                cp_buf_printf(p->out, "M%.1f %.1f", begin = px, py);
            else if (step)
                cp_buf_printf(p->out, "V%.1f", py);
            else
                cp_buf_printf(p->out, "L%.1f %.1f", px, py);
            /* what stands alone is a dot, or level up to its neighbour */
            end = step && i + 1 < n ? cp_html_px(p, x[i + 1]) : step ? right(p) : px;
            if (step || !in)
                cp_buf_printf(p->out, "H%.1f", end);
        }
        in = there;
    }
}

static void draw(cp_html_plot *p, const char *css, const char *kind)
{
    cp_buf_printf(p->out, "<path class=\"%s %s\" d=\"", kind, css);
}

void cp_html_line(cp_html_plot *p, const double *x, const double *y, size_t n, bool step,
                  const char *css)
{
    draw(p, css, "line");
    path(p, x, y, n, step, false);
    cp_buf_adds(p->out, "\"/>");
}

void cp_html_area(cp_html_plot *p, const double *x, const double *y, size_t n, bool step,
                  const char *css)
{
    draw(p, css, "area");
    path(p, x, y, n, step, true);
    cp_buf_adds(p->out, "\"/>");
}

/* Relative to the point in the middle. A dot is a line of no length with round ends. */
static const char *const shapes[] = {
    [CP_HTML_DOT] = "h0",
    [CP_HTML_TRIANGLE] = "m0-4l4 7h-8z",
    [CP_HTML_CROSS] = "m-3-3l6 6m0-6l-6 6",
    [CP_HTML_DIAMOND] = "m0-4l4 4-4 4-4-4z",
    [CP_HTML_SQUARE] = "m-3-3h6v6h-6z",
    [CP_HTML_WEDGE] = "m-4-3h8l-4 7z",
    [CP_HTML_PLUS] = "m-4 0h8m-4-4v8",
    [CP_HTML_RING] = "m-3 0a3 3 0 1 0 6 0a3 3 0 1 0-6 0",
};

void cp_html_marks(cp_html_plot *p, const double *x, const double *y, size_t n, cp_html_mark mark,
                   const char *css)
{
    draw(p, css, mark == CP_HTML_DOT ? "dots" : "marks");
    for (size_t i = 0; i < n; i++) {
        if (isfinite(x[i]) && isfinite(y[i]))
            cp_buf_printf(p->out, "M%.1f %.1f%s", cp_html_px(p, x[i]), cp_html_py(p, y[i]),
                          shapes[mark]);
    }
    cp_buf_adds(p->out, "\"/>");
}

void cp_html_swatch(cp_buf *out, cp_html_mark mark, const char *css)
{
    cp_buf_printf(out,
                  "<svg class=\"swatch\" viewBox=\"0 0 12 12\" aria-hidden=\"true\"><path "
                  "class=\"%s %s\" d=\"M6 6%s\"/></svg>",
                  mark == CP_HTML_DOT ? "dots big" : "marks", css, shapes[mark]);
}

void cp_html_label(cp_html_plot *p, double x, double y, const char *text, const char *css)
{
    double px = cp_html_px(p, x), py = cp_html_py(p, y);
    cp_buf_printf(p->out, "<text class=\"label mid %s\" x=\"%.1f\" y=\"%.1f\">%s</text>", css, px,
                  py - 8 < TOP - 4 ? py + 18 : py - 8, text);
}

void cp_html_end_label(cp_html_plot *p, double x, double py, const char *text, const char *css)
{
    cp_buf_printf(p->out, "<text class=\"label %s\" x=\"%.1f\" y=\"%.1f\">%s</text>", css,
                  cp_html_px(p, x) + 7, py + 4, text);
}

void cp_html_rule(cp_html_plot *p, double x, const char *text)
{
    double px = cp_html_px(p, x);
    bool left = px > (LEFT + right(p)) / 2.0;
    cp_buf_printf(p->out, "<path class=\"rule\" d=\"M%.1f %dV%d\"/>", px, TOP, HEIGHT - BOTTOM);
    cp_buf_printf(p->out, "<text class=\"label %s\" x=\"%.1f\" y=\"%d\">%s</text>",
                  left ? "end" : "", left ? px - 4 : px + 4, TOP + 8, text);
}

void cp_html_hover(cp_html_plot *p, double from, double to, const char *text)
{
    double a = cp_html_px(p, from), b = cp_html_px(p, to);
    cp_buf_printf(p->out,
                  "<rect class=\"hover\" x=\"%.1f\" y=\"%d\" width=\"%.1f\" "
                  "height=\"%d\"><title>%s</title></rect>",
                  a, TOP, b - a, HEIGHT - TOP - BOTTOM, text);
}
