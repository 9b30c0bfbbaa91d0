/* Subcommands: each is one function that gets the parsed options and returns the process's exit
 * code. Data goes to stdout, everything else to stderr. */
#ifndef CP_APP_COMMAND_H
#define CP_APP_COMMAND_H

#include "base/options.h"

int cp_cmd_serve(const cp_options *o);
int cp_cmd_run(const cp_options *o);
int cp_cmd_pack(const cp_options *o);
int cp_cmd_pull(const cp_options *o);
int cp_cmd_list(const cp_options *o);
int cp_cmd_inspect(const cp_options *o);
int cp_cmd_rm(const cp_options *o);
int cp_cmd_verify(const cp_options *o);
int cp_cmd_gc(const cp_options *o);
int cp_cmd_tokenize(const cp_options *o);
int cp_cmd_bench_engine(const cp_options *o);
int cp_cmd_bench_perplexity(const cp_options *o);
int cp_cmd_bench_serve(const cp_options *o);
int cp_cmd_bench_sse(const cp_options *o);
int cp_cmd_version(const cp_options *o);

/* "0.1.0 (abc1234)" */
const char *cp_app_version(void);
/* "0.1.0-abc1234", for system_fingerprint */
const char *cp_app_build(void);

#endif
