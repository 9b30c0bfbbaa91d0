/*
 * This file writes what was counted in Prometheus' text format 0.0.4: the series of metrics.def
 * under their own names, then under those of vLLM.
 *
 * Buckets of 1, 0 and 2 values up to 1, 5 and any number are written as
 *
 *   x_bucket{le="1"} 1
 *   x_bucket{le="5"} 1
 *   x_bucket{le="+Inf"} 3
 *
 * and the count is their sum, so it and +Inf agree by construction. A scrape stands in the way of
 * whoever shares its thread, so a line is put together from ready pieces, without printf where its
 * value is a whole number.
 */
#include "base/metrics_rows.h"

#include "base/clock.h"
#include "base/sandbox.h"

#include <string.h>

typedef enum form {
    FORM_SAME,
    FORM_PLUS,
    FORM_MINUS,
    FORM_CAPACITY,
    FORM_SHARE,
    FORM_INFO,
    FORM_TTFT, /* from here on: a histogram, and its ladder */
    FORM_GAP,
    FORM_WAIT,
    FORM_SIZES,
    FORM_ROWS,
    FORM_CHOICES
} form;

static const cp_ladder ladders[] = {
    [FORM_TTFT] = CP_LADDER_TTFT, [FORM_GAP] = CP_LADDER_GAP,
    [FORM_WAIT] = CP_LADDER_WAIT, [FORM_SIZES] = CP_LADDER_SIZES,
    [FORM_ROWS] = CP_LADDER_ROWS, [FORM_CHOICES] = CP_LADDER_CHOICES,
};

static const struct second {
    form form;
    cp_metric a, b;
    const char *name, *label, *doc;
} seconds[] = {
#define Y(form, a, b, name, label, doc) {FORM_##form, CP_M_##a, CP_M_##b, name, label, doc},
#include "base/metrics.def"
};
enum { N_SECONDS = sizeof(seconds) / sizeof(seconds[0]) };

bool cp_metric_second(int i, cp_metric_row *out)
{
    if (i >= N_SECONDS)
        return false;
    const struct second *s = &seconds[i];
    *out = *cp_metric_info(s->a);
    out->type = s->form == FORM_SHARE ? "gauge" : out->type;
    out->name = s->name;
    out->label = s->label;
    out->doc = s->doc;
    return true;
}

/* ---- pieces of a line ---- */

/* What a series is printed under. */
typedef struct series {
    const cp_metrics *m;
    const char *name, *label;
    bool second; /* vLLM's labels, and its way to write bounds */
} series;

static void write_uint(cp_buf *out, uint64_t v)
{
    char digits[24];
    size_t at = sizeof(digits);
    do
        digits[--at] = (char)('0' + v % 10);
    while ((v /= 10) > 0);
    cp_buf_add(out, digits + at, sizeof(digits) - at);
}

static void write_int(cp_buf *out, int64_t v)
{
    if (v < 0)
        cp_buf_addc(out, '-');
    write_uint(out, v < 0 ? 0 - (uint64_t)v : (uint64_t)v);
}

/* name{model="...",label,extra} without the value; one of label and extra may be "". */
static void write_series(cp_buf *out, const series *s, const char *suffix, const char *extra)
{
    cp_buf_adds(out, s->name);
    cp_buf_adds(out, suffix);
    const char *block = s->m->labels[s->second ? 1 : 0];
    if (!block && !*s->label && !*extra) {
        cp_buf_addc(out, ' ');
        return;
    }
    const char *sep = "{";
    if (block) {
        cp_buf_adds(out, block);
        sep = ",";
    }
    if (*s->label) {
        cp_buf_adds(out, sep);
        cp_buf_adds(out, s->label);
        sep = ",";
    }
    if (*extra) {
        cp_buf_adds(out, sep);
        cp_buf_adds(out, extra);
    }
    cp_buf_adds(out, "} ");
}

static void write_whole(cp_buf *out, const series *s, int64_t v)
{
    write_series(out, s, "", "");
    write_int(out, v);
    cp_buf_addc(out, '\n');
}

/* ---- histograms ---- */

/* A bound as the names' owners write it: 1 and 1e+06 become 1.0 and 1e+06 with prometheus_client
 * (its floatToGoString), on which recording rules with le="1.0" rely. */
static void write_bound(char out[32], double le, bool second)
{
    if (!second) {
        cp_snprintf(out, 32, "le=\"%.12g\"", le);
        return;
    }
    size_t n =
        le >= 1e6 ? cp_snprintf(out, 32, "le=\"%.6g", le) : cp_snprintf(out, 32, "le=\"%.12g", le);
    cp_snprintf(out + n, 32 - n, "%s\"", strpbrk(out + 4, ".e") ? "" : ".0");
}

static void write_count(cp_buf *out, const series *s, const char *suffix, const char *le,
                        uint64_t n)
{
    write_series(out, s, suffix, le);
    write_uint(out, n);
    cp_buf_addc(out, '\n');
}

static void write_histogram(cp_buf *out, const series *s, cp_metric id, unsigned ladder)
{
    const cp_histogram *h = &s->m->hist[id];
    int count, context = atomic_load_explicit(&s->m->context, memory_order_relaxed);
    const cp_bound *bounds = cp_metric_bounds(id, &count);
    bool sizes = s->second && ladder == CP_LADDER_SIZES && cp_metric_kind_of(id) == CP_KIND_tokens;
    uint64_t total = 0;
    double sum = atomic_load_explicit(&h->sum, memory_order_relaxed);
    for (int b = 0; b < count; b++) {
        char le[32];
        total += atomic_load_explicit(&h->bucket[b], memory_order_relaxed);
        if (!(bounds[b].ladders & ladder) || (sizes && context > 0 && bounds[b].le > context))
            continue;
        write_bound(le, bounds[b].le, s->second);
        write_count(out, s, "_bucket", le, total);
    }
    total += atomic_load_explicit(&h->bucket[count], memory_order_relaxed);
    write_count(out, s, "_bucket", "le=\"+Inf\"", total);
    write_series(out, s, "_sum", "");
    cp_buf_printf(out, "%.9g\n", sum);
    write_count(out, s, "_count", "", total);
}

/* ---- own names ---- */

/* One series a slug: codes that share one are added up where the slug first stands. */
static void write_errors(cp_buf *out, const series *s)
{
    for (int c = CP_OK + 1; c < CP_CODE_COUNT; c++) {
        const char *slug = cp_code_info((cp_code)c)->slug;
        uint64_t n = 0;
        int first = CP_CODE_COUNT;
        for (int d = CP_CODE_COUNT - 1; d > CP_OK; d--) {
            if (strcmp(cp_code_info((cp_code)d)->slug, slug) != 0)
                continue;
            n += atomic_load_explicit(&s->m->error[d], memory_order_relaxed);
            first = d;
        }
        if (first != c)
            continue;
        char label[80];
        cp_snprintf(label, sizeof(label), "error=\"%s\"", slug);
        write_count(out, s, "", label, n);
    }
}

/* Always 1, under the labels that were set; nothing before. */
static void write_info(cp_buf *out, const series *s, cp_metric id)
{
    const char *labels = atomic_load_explicit(&s->m->info[id], memory_order_acquire);
    if (labels)
        write_count(out, s, "", labels, 1);
}

/* A number of 1 / 1,000,000 of what is printed. */
static void write_millionths(cp_buf *out, const series *s, int64_t v)
{
    write_series(out, s, "", "");
    cp_buf_printf(out, "%lld.%06lld\n", (long long)(v / 1000000), (long long)(v % 1000000));
}

/* A time of cp_now_ns() as seconds before now, or as seconds since the epoch. */
static void write_time(cp_buf *out, const series *s, int64_t then, bool stamp)
{
    struct timespec wall;
    int64_t ago = cp_now_ns() - then;
    clock_gettime(CLOCK_REALTIME, &wall);
    double value = (double)(ago > 0 ? ago : 0) * 1e-9;
    if (stamp)
        value = (double)wall.tv_sec + (double)wall.tv_nsec * 1e-9 - value;
    write_series(out, s, "", "");
    cp_buf_printf(out, "%.3f\n", then ? value : 0.0);
}

static void write_row(cp_buf *out, const cp_metrics *m, cp_metric id)
{
    const cp_metric_row *r = cp_metric_info(id);
    const series s = {.m = m, .name = r->name, .label = r->label};
    switch (cp_metric_kind_of(id)) {
    case CP_KIND_seconds:
    case CP_KIND_tokens:
        write_histogram(out, &s, id, CP_LADDER_OWN);
        return;
    case CP_KIND_errors:
        write_errors(out, &s);
        return;
    case CP_KIND_info:
        write_info(out, &s, id);
        return;
    case CP_KIND_energy:
        if (cp_metric_get(m, id) > 0)
            write_histogram(out, &s, id, CP_LADDER_OWN);
        return;
    case CP_KIND_joules:
        if (cp_metric_value(m, id) > 0)
            write_millionths(out, &s, cp_metric_value(m, id));
        return;
    case CP_KIND_micros:
    case CP_KIND_span:
        write_millionths(out, &s, cp_metric_value(m, id));
        return;
    case CP_KIND_age:
    case CP_KIND_stamp:
        write_time(out, &s, cp_metric_value(m, id), cp_metric_kind_of(id) == CP_KIND_stamp);
        return;
    case CP_KIND_counter:
    case CP_KIND_gauge:
        write_whole(out, &s, cp_metric_value(m, id));
        return;
    }
}

/* ---- second names ---- */

/* Series are read one after another while others count: what is a part of another is not more. */
static int64_t minus(int64_t a, int64_t b)
{
    return a > b ? a - b : 0;
}

static void write_share(cp_buf *out, const series *s, cp_metric first, cp_metric used)
{
    int64_t all = 0, part = cp_metric_value(s->m, used);
    for (int id = (int)first; id <= (int)used; id++)
        all += cp_metric_value(s->m, (cp_metric)id);
    write_series(out, s, "", "");
    cp_buf_printf(out, "%.9g\n", all > 0 ? (double)part / (double)all : 0.0);
}

static void write_second(cp_buf *out, const cp_metrics *m, const struct second *r)
{
    const series s = {.m = m, .name = r->name, .label = r->label, .second = true};
    int64_t a = cp_metric_value(m, r->a), b = cp_metric_value(m, r->b);
    switch (r->form) {
    case FORM_SAME:
        write_whole(out, &s, a);
        return;
    case FORM_PLUS:
        write_whole(out, &s, a + b);
        return;
    case FORM_MINUS:
        write_whole(out, &s, minus(a, b));
        return;
    case FORM_CAPACITY:
        write_whole(out, &s, minus(a + b, cp_metric_value(m, CP_M_DEFERRED)));
        return;
    case FORM_SHARE:
        write_share(out, &s, r->a, r->b);
        return;
    case FORM_INFO:
        write_info(out, &s, r->a);
        return;
    default:
        write_histogram(out, &s, r->a, ladders[r->form]);
    }
}

/* ---- all of it ---- */

static void collect_process(cp_metrics *m)
{
    cp_process_stats now;
    cp_process_read(m->self, &now);
    const struct {
        cp_metric id;
        int64_t value;
    } rows[] = {{CP_M_CPU_TIME, now.cpu_us},
                {CP_M_RESIDENT, now.resident_bytes},
                {CP_M_VIRTUAL, now.virtual_bytes},
                {CP_M_OPEN_FDS, now.open_fds},
                {CP_M_MAX_FDS, now.max_fds},
                {CP_M_MAJOR_FAULTS, now.major_faults},
                {CP_M_SANDBOX_REFUSED, (int64_t)cp_sandbox_refused()}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        atomic_store_explicit(&m->value[rows[i].id], rows[i].value, memory_order_relaxed);
}

/* A scrape under way. */
typedef struct scrape {
    cp_buf *out;
    cp_metrics *const *list;
    int n;
    cp_metrics_filter *filter;
    void *arg;
    bool collected; /* the process's own values */
} scrape;

static void write_rows(scrape *w, int from, int to, bool second)
{
    for (int i = 0; i < w->n; i++) {
        for (int k = from; k < to; k++) {
            cp_metric id = second ? seconds[k].a : (cp_metric)k;
            if (cp_metric_info(id)->per_model != (w->list[i]->model != NULL))
                continue;
            if (second)
                write_second(w->out, w->list[i], &seconds[k]);
            else
                write_row(w->out, w->list[i], id);
        }
    }
}

static void collect_once(scrape *w)
{
    for (int i = 0; i < w->n && !w->collected; i++) {
        if (!w->list[i]->model)
            collect_process(w->list[i]);
    }
    w->collected = true;
}

/* Rows [from, to) under their common name; nothing where none has a series. */
static void write_family(scrape *w, const cp_metric_row *r, int from, int to, bool second)
{
    if (!*r->name || (w->filter && !w->filter(w->arg, r->name)))
        return;
    size_t before = w->out->n;
    if (!r->per_model)
        collect_once(w);
    cp_buf_adds(w->out, "# HELP ");
    cp_buf_adds(w->out, r->name);
    cp_buf_addc(w->out, ' ');
    cp_buf_adds(w->out, r->doc);
    cp_buf_adds(w->out, "\n# TYPE ");
    cp_buf_adds(w->out, r->name);
    cp_buf_addc(w->out, ' ');
    cp_buf_adds(w->out, r->type);
    cp_buf_addc(w->out, '\n');
    size_t head = w->out->n;
    write_rows(w, from, to, second);
    if (w->out->n == head && !w->out->failed)
        w->out->n = before;
}

void cp_metrics_write(cp_buf *out, cp_metrics *const *list, int n, cp_metrics_filter *filter,
                      void *arg)
{
    scrape w = {.out = out, .list = list, .n = n, .filter = filter, .arg = arg};
    for (int id = 0, end; id < CP_METRIC_COUNT; id = end) {
        const cp_metric_row *r = cp_metric_info((cp_metric)id);
        for (end = id + 1; end < CP_METRIC_COUNT; end++) {
            if (!*r->name || strcmp(cp_metric_info((cp_metric)end)->name, r->name) != 0)
                break;
        }
        write_family(&w, r, id, end, false);
    }
    for (int k = 0, end; k < N_SECONDS; k = end) {
        cp_metric_row r;
        cp_metric_second(k, &r);
        for (end = k + 1; end < N_SECONDS && strcmp(seconds[end].name, r.name) == 0;)
            end++;
        write_family(&w, &r, k, end, true);
    }
    if (out->p) /* a family without series was taken back */
        out->p[out->n] = '\0';
}
