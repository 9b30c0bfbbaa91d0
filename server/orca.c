/* This file says in a header how loaded a model is: see orca.h. */
#include "server/orca.h"

#include <strings.h>

void cp_orca_header(cp_call *c)
{
    const char *format = cp_http_header(c->q, "endpoint-load-metrics-format");
    const cp_metrics *m = c->m ? c->m->metrics : NULL;
    bool json = format && strcasecmp(format, "json") == 0;
    if (!m || !format || (!json && strcasecmp(format, "text") != 0))
        return;
    int64_t used = cp_metric_get(m, CP_M_KV_PAGES_USED);
    int64_t all =
        used + cp_metric_get(m, CP_M_KV_PAGES_FREE) + cp_metric_get(m, CP_M_KV_PAGES_CACHED);
    double usage = all > 0 ? (double)used / (double)all : 0;
    long long waiting = (long long)(cp_metric_get(m, CP_M_SEQUENCES_WAITING) +
                                    cp_metric_get(m, CP_M_SEQUENCES_PREEMPTED));
    char text[192];
    cp_snprintf(text, sizeof(text),
                json ? "JSON {\"named_metrics\": {\"kv_cache_usage_perc\": %.9g, "
                       "\"num_requests_waiting\": %lld.0}}"
                     : "TEXT named_metrics.kv_cache_usage_perc=%.9g, "
                       "named_metrics.num_requests_waiting=%lld.0",
                usage, waiting);
    cp_http_add_header(c->q, "endpoint-load-metrics", text);
}
