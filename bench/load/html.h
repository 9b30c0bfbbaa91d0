/*
 * What the HTML report is made of: escaped text, numbers for people, plots as SVG.
 *
 * Everything appends to a cp_buf, whose `failed` flag the caller looks at once, at the end. Text
 * that comes from outside (a model's name, a server's header) goes through cp_html_text and no
 * other way. A plot is 440 by 230 units in every place, so that letters are legible on a telephone
 * (one column) and beside each other on a wide screen; colours are classes of the style sheet,
 * which knows a light and a dark set. No state; any thread.
 */
#ifndef CP_BENCH_LOAD_HTML_H
#define CP_BENCH_LOAD_HTML_H

#include "base/mem.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* How a number is written. */
typedef enum cp_html_unit {
    CP_HTML_PLAIN,   /* 1,234 · 56.7 · 0.12: three digits at least */
    CP_HTML_MS,      /* of milliseconds: 4.21 ms · 824 ms · 1.24 s · 2.5 min */
    CP_HTML_SECONDS, /* of seconds: 12 s · 90 s · 15 min */
    CP_HTML_SHARE,   /* of 0..1: 97.3 % */
    CP_HTML_NINES,   /* of -log10(1 - share): p50 · p99 · p99.9 */
} cp_html_unit;

/* s as text of HTML or the value of a quoted attribute: what HTML reads is escaped, control
 * characters, those that turn the direction of writing and what is no UTF-8 become U+FFFD, and what
 * is longer than 1,000 bytes ends in an ellipsis. NULL is "". */
void cp_html_text(cp_buf *out, const char *s);
/* A number for people; a dash where it is not finite. */
void cp_html_number(cp_buf *out, double v, cp_html_unit unit);
/* With this many decimals and commas between thousands, as columns of tables want it; NAN: a dash.
 */
void cp_html_fixed(cp_buf *out, double v, int decimals);

/* The number as a string of its own, for labels. */
typedef struct cp_html_words {
    char s[160];
} cp_html_words;
cp_html_words cp_html_say(double v, cp_html_unit unit);

/* A table that scrolls by itself where the page is narrow; columns end with NULL. */
void cp_html_table_begin(cp_buf *out, const char *words, const char *const *columns);
void cp_html_table_end(cp_buf *out);
void cp_html_cell(cp_buf *out, double v, int decimals);
void cp_html_cell_unit(cp_buf *out, double v, cp_html_unit unit);

extern const char *const cp_html_style[]; /* the style sheet in pieces, then NULL */

typedef struct cp_html_axis {
    double lo, hi; /* lo > 0 where log */
    bool log;
    cp_html_unit unit;
    const char *words; /* below the x axis, above the y axis; plain ASCII */
} cp_html_axis;

/* An axis from 0 to a round number that is not below most. */
cp_html_axis cp_html_from_zero(double most, cp_html_unit unit, const char *words);
/* A logarithmic one over [least, most], which are positive. */
cp_html_axis cp_html_decades(double least, double most, cp_html_unit unit, const char *words);

typedef struct cp_html_plot {
    cp_buf *out;
    cp_html_axis x, y;
    bool margin; /* room for labels right of the frame */
} cp_html_plot;

typedef enum cp_html_mark {
    CP_HTML_DOT,
    CP_HTML_TRIANGLE,
    CP_HTML_CROSS,
    CP_HTML_DIAMOND,
    CP_HTML_SQUARE,
    CP_HTML_WEDGE,
    CP_HTML_PLUS,
    CP_HTML_RING,
} cp_html_mark;

/* From zero where that shows something, else logarithmic: over [least, most]. */
cp_html_axis cp_html_axis_of(double least, double most, cp_html_unit unit, const char *words);

/* The svg element with its axes; `words` is what a screen reader says. */
void cp_html_plot_begin(cp_html_plot *p, const char *words);
void cp_html_plot_end(cp_html_plot *p);
double cp_html_px(const cp_html_plot *p, double x); /* inside the frame, whatever x is */
double cp_html_py(const cp_html_plot *p, double y);
/* Through n points; a point whose y is not finite leaves a hole. step: level up to the next x. */
void cp_html_line(cp_html_plot *p, const double *x, const double *y, size_t n, bool step,
                  const char *css);
/* The same, filled down to the x axis. */
void cp_html_area(cp_html_plot *p, const double *x, const double *y, size_t n, bool step,
                  const char *css);
/* Marks in one path; points that are not finite are left out. */
void cp_html_marks(cp_html_plot *p, const double *x, const double *y, size_t n, cp_html_mark mark,
                   const char *css);
/* One mark of its own for a legend outside of plots. */
void cp_html_swatch(cp_buf *out, cp_html_mark mark, const char *css);
/* A value above a point; and what a line is called, right of its end, where y is in units of the
 * picture so that names can be kept apart. */
void cp_html_label(cp_html_plot *p, double x, double y, const char *text, const char *css);
void cp_html_end_label(cp_html_plot *p, double x, double py, const char *text, const char *css);
/* A dashed line from top to bottom with words at its top. */
void cp_html_rule(cp_html_plot *p, double x, const char *text);
/* Narrow columns without colour that say `text` of i when pointed at. */
void cp_html_hover(cp_html_plot *p, double from, double to, const char *text);

#endif
