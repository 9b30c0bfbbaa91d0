/* One table of names; a gauge is the sum of its rows, over the sum of its rows that are a whole. */
#include "bench/load/scrape.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { PART = 1, WHOLE = 2 };

typedef struct name_row {
    const char *kind, *name, *label; /* label: must stand in the series' labels; "": any */
    cp_load_gauge gauge;
    int role;
} name_row;

/* vLLM: its V1 metrics, and what they were called before; llama-server: tools/server/README.md. */
static const name_row names[] = {
    {"capstan", "capstan_sequences", "state=\"prefill\"", CP_LOAD_RUNNING, PART},
    {"capstan", "capstan_sequences", "state=\"decode\"", CP_LOAD_RUNNING, PART},
    {"capstan", "capstan_sequences", "state=\"waiting\"", CP_LOAD_WAITING, PART},
    {"capstan", "capstan_sequences", "state=\"preempted\"", CP_LOAD_WAITING, PART},
    {"capstan", "capstan_kv_pages", "state=\"used\"", CP_LOAD_KV_USAGE, PART | WHOLE},
    {"capstan", "capstan_kv_pages", "state=\"cached\"", CP_LOAD_KV_USAGE, WHOLE},
    {"capstan", "capstan_kv_pages", "state=\"free\"", CP_LOAD_KV_USAGE, WHOLE},
    {"capstan", "capstan_prompt_tokens_total", "", CP_LOAD_PROMPT_TOKENS, PART},
    {"capstan", "capstan_prompt_tokens_cached_total", "", CP_LOAD_CACHED_TOKENS, PART},
    {"capstan", "capstan_generation_tokens_total", "", CP_LOAD_OUTPUT_TOKENS, PART},
    {"capstan", "capstan_preemptions_total", "", CP_LOAD_PREEMPTIONS, PART},
    {"vllm", "vllm:num_requests_running", "", CP_LOAD_RUNNING, PART},
    {"vllm", "vllm:num_requests_waiting", "", CP_LOAD_WAITING, PART},
    {"vllm", "vllm:kv_cache_usage_perc", "", CP_LOAD_KV_USAGE, PART},
    {"vllm", "vllm:gpu_cache_usage_perc", "", CP_LOAD_KV_USAGE, PART},
    {"vllm", "vllm:prompt_tokens_total", "", CP_LOAD_PROMPT_TOKENS, PART},
    {"vllm", "vllm:prefix_cache_hits_total", "", CP_LOAD_CACHED_TOKENS, PART},
    {"vllm", "vllm:gpu_prefix_cache_hits_total", "", CP_LOAD_CACHED_TOKENS, PART},
    {"vllm", "vllm:generation_tokens_total", "", CP_LOAD_OUTPUT_TOKENS, PART},
    {"vllm", "vllm:num_preemptions_total", "", CP_LOAD_PREEMPTIONS, PART},
    {"llamacpp", "llamacpp:requests_processing", "", CP_LOAD_RUNNING, PART},
    {"llamacpp", "llamacpp:requests_deferred", "", CP_LOAD_WAITING, PART},
    {"llamacpp", "llamacpp:kv_cache_usage_ratio", "", CP_LOAD_KV_USAGE, PART},
    {"llamacpp", "llamacpp:prompt_tokens_total", "", CP_LOAD_PROMPT_TOKENS, PART},
    {"llamacpp", "llamacpp:tokens_predicted_total", "", CP_LOAD_OUTPUT_TOKENS, PART},
};

/* By the first row whose name came: a server may give the same counts under the names of another
 * kind, too. */
typedef struct sums {
    double part[CP_LOAD_GAUGE_COUNT], whole[CP_LOAD_GAUGE_COUNT];
    bool has[CP_LOAD_GAUGE_COUNT];
    const char *kind;
} sums;

/* "name{labels} value [time]", NUL-terminated. */
static void take_line(char *line, sums *s)
{
    size_t n = strcspn(line, "{ \t");
    char *labels = "", *rest = line + n;
    if (*rest == '{') {
        char *close = strrchr(rest, '}'); /* labels may hold one in quotes, values cannot */
        if (!close)
            return;
        *close = '\0';
        labels = rest + 1;
        rest = close + 1;
    }
    char *end;
    double v = strtod(rest, &end);
    if (end == rest || !isfinite(v))
        return;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        const name_row *r = &names[i];
        if (strlen(r->name) != n || memcmp(r->name, line, n) != 0 || !strstr(labels, r->label))
            continue;
        if (*s->kind && strcmp(s->kind, r->kind) != 0)
            continue;
        s->part[r->gauge] += r->role & PART ? v : 0;
        s->whole[r->gauge] += r->role & WHOLE ? v : 0;
        s->has[r->gauge] = true;
        s->kind = r->kind;
    }
}

const char *cp_load_scrape_read(const char *text, size_t n, double value[CP_LOAD_GAUGE_COUNT])
{
    char line[1024];
    sums s = {.kind = ""};
    for (size_t at = 0; at < n;) {
        const char *lf = memchr(text + at, '\n', n - at);
        size_t len = lf ? (size_t)(lf - text) - at : n - at;
        if (len > 0 && len < sizeof(line) && text[at] != '#') {
            memcpy(line, text + at, len);
            line[len] = '\0';
            take_line(line, &s);
        }
        at += len + 1;
    }
    for (int g = 0; g < CP_LOAD_GAUGE_COUNT; g++)
        value[g] = !s.has[g] ? (double)NAN : s.whole[g] > 0 ? s.part[g] / s.whole[g] : s.part[g];
    return s.kind;
}

void cp_load_scrape_begin(cp_load_server *s)
{
    *s = (cp_load_server){.kind = ""};
    for (int g = 0; g < CP_LOAD_GAUGE_COUNT; g++)
        s->first[g] = s->last[g] = s->mean[g] = s->max[g] = (double)NAN;
}

/* While it goes on, mean holds sums. */
void cp_load_scrape_add(cp_load_server *s, const char *text, size_t n,
                        double value[CP_LOAD_GAUGE_COUNT])
{
    const char *kind = cp_load_scrape_read(text, n, value);
    if (!*kind) {
        s->failed_scrapes++;
        return;
    }
    s->kind = kind;
    for (int g = 0; g < CP_LOAD_GAUGE_COUNT; g++) {
        s->first[g] = s->scrapes == 0 ? value[g] : s->first[g];
        s->last[g] = value[g];
        s->mean[g] = s->scrapes == 0 ? value[g] : s->mean[g] + value[g];
        s->max[g] = s->scrapes == 0 || value[g] > s->max[g] ? value[g] : s->max[g];
    }
    s->scrapes++;
}

void cp_load_scrape_end(cp_load_server *s)
{
    for (int g = 0; g < CP_LOAD_GAUGE_COUNT && s->scrapes; g++)
        s->mean[g] /= s->scrapes;
}
