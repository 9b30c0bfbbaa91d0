/*
 * command: the subcommands of the program, and what they share.
 *
 * A subcommand is one function that gets the parsed options and returns the process's exit code. It
 * writes data to stdout and everything else to stderr. It runs on the first thread, once.
 */
#ifndef CP_APP_COMMAND_H
#define CP_APP_COMMAND_H

#include "base/options.h"
#include "loader/loader.h"

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
int cp_cmd_selftest(const cp_options *o);
int cp_cmd_version(const cp_options *o);

/* "0.1.0 (abc1234)" */
const char *cp_app_version(void);
/* "0.1.0-abc1234", for system_fingerprint */
const char *cp_app_build(void);
/* Print "capstan: message" on stderr and return the exit code of err's row. */
int cp_app_fail(const cp_err *err);
/* Put ref in front of what is wrong with it, unless the message begins with it. */
void cp_app_err_ref(cp_err *err, const char *ref);
/* What a command's options say to the loader. */
cp_loader_options cp_app_loader_options(const cp_options *o);

#endif
