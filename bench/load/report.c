/* Names of outcomes and gauges, and the end of a result. */
#include "bench/load/report.h"

static const struct {
    const char *slug, *words;
} outcomes[] = {
#define X(id, slug, words) {slug, words},
    CP_LOAD_OUTCOMES(X)
#undef X
};

static const struct {
    const char *name, *words;
    bool count;
} gauges[] = {
#define LEVEL                     false
#define COUNT                     true
#define X(id, field, words, kind) {#field, words, kind},
    CP_LOAD_GAUGES(X)
#undef X
#undef LEVEL
#undef COUNT
};

const char *cp_load_outcome_slug(cp_load_outcome outcome)
{
    return outcomes[outcome].slug;
}

const char *cp_load_outcome_words(cp_load_outcome outcome)
{
    return outcomes[outcome].words;
}

const char *cp_load_gauge_name(cp_load_gauge gauge)
{
    return gauges[gauge].name;
}

const char *cp_load_gauge_words(cp_load_gauge gauge)
{
    return gauges[gauge].words;
}

bool cp_load_gauge_counts(cp_load_gauge gauge)
{
    return gauges[gauge].count;
}

void cp_load_result_free(cp_load_result *r)
{
    if (r)
        cp_arena_free(r->arena); /* r lies in it, too */
}
