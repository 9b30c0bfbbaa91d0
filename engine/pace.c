/*
 * pace: see pace.h.
 *
 * The fit is a normalized least-mean-squares filter: what a step took more or less than expected is
 * shared out between the two numbers by how much each had to do with it, so that single rows (a
 * decoding sequence) hardly move the time of a row, and long prompts hardly that of a step. A step
 * that took longer than expected counts four times as much as one that took less: what is too slow
 * is mended at once, what could be faster is tried in small steps.
 */
#include "engine/pace.h"

#define EVEN_ROWS   16.0  /* a step of so many rows tells as much of a step as of its rows */
#define GAIN_LONGER 0.5   /* part of the difference that is believed at once */
#define GAIN_SOONER 0.125 /* likewise */
#define MOST_LONGER 3.0   /* a step that was held up counts as so many expected ones more */
#define LEAST_SHARE 256.0 /* a row takes at least this part of a step's mean row */
#define FIRST_SHARE 4.0   /* likewise, as long as all that is known are two small steps */

void cp_pace_init(cp_pace *p, int64_t target_ns, int max_rows)
{
    *p = (cp_pace){.target_ns = target_ns, .max_rows = max_rows};
}

/* Neither number may leave its range; a step of `rows` rows goes on to take `ns`. */
static void bound(cp_pace *p, double rows, double ns, double share)
{
    double least = ns / rows / share;
    if (p->row_ns < least) {
        p->row_ns = least;
        p->step_ns = ns - rows * least;
    }
    if (p->step_ns < 0) {
        p->step_ns = 0;
        p->row_ns = ns / rows;
    }
}

static double at_least_one(int64_t ns)
{
    return ns > 1 ? (double)ns : 1.0;
}

void cp_pace_begin(cp_pace *p, int few, int64_t few_ns, int many, int64_t many_ns)
{
    double t = at_least_one(many_ns);
    p->row_ns = (t - at_least_one(few_ns)) / (double)(many - few);
    p->step_ns = t - (double)many * p->row_ns;
    bound(p, (double)many, t, FIRST_SHARE);
}

void cp_pace_note(cp_pace *p, int rows, int64_t ns)
{
    double n = (double)rows, expected = p->step_ns + n * p->row_ns, t = at_least_one(ns);
    if (p->row_ns == 0) {
        p->row_ns = t / n;
        return;
    }
    double off = t - expected;
    if (off > MOST_LONGER * expected)
        off = MOST_LONGER * expected;
    off *= off > 0 ? GAIN_LONGER : GAIN_SOONER;
    double of_rows = n * n / (n * n + EVEN_ROWS * EVEN_ROWS);
    p->row_ns += off * of_rows / n;
    p->step_ns += off * (1 - of_rows);
    bound(p, n, expected + off, LEAST_SHARE);
}

int cp_pace_rows(const cp_pace *p)
{
    if (p->target_ns == 0 || p->row_ns == 0)
        return p->max_rows;
    double in_time = ((double)p->target_ns - p->step_ns) / p->row_ns;
    double as_long = p->step_ns / p->row_ns + 1; /* rounded up: never less than half a step */
    double n = in_time > as_long ? in_time : as_long;
    return n < p->max_rows ? (int)n : p->max_rows;
}
