/*
 * What a server says of itself on /metrics (Prometheus text), by whatever names it has. Pure
 * functions; any thread.
 */
#ifndef CP_BENCH_LOAD_SCRAPE_H
#define CP_BENCH_LOAD_SCRAPE_H

#include "bench/load/report.h"

/* Values by gauge, NAN where the text has none; summed over series (of several models, too). The
 * kind of server, a static string: "capstan", "vllm", "llamacpp", or "" where no name is known. */
const char *cp_load_scrape_read(const char *text, size_t n, double value[CP_LOAD_GAUGE_COUNT]);

/* The scrapes of a run into its figures. */
void cp_load_scrape_begin(cp_load_server *s);
void cp_load_scrape_add(cp_load_server *s, const char *text, size_t n,
                        double value[CP_LOAD_GAUGE_COUNT]);
void cp_load_scrape_end(cp_load_server *s);

#endif
