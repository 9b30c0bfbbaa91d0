/*
 * capstan begins here. main makes sure of the standard descriptors, parses the options once from
 * their rows, and sets logging up; the command's function does the rest.
 */
#include "app/command.h"
#include "app/stdio.h"
#include "base/log.h"

#include <stdio.h>

static int (*const commands[CP_CMD_COUNT])(const cp_options *) = {
    [CP_CMD_SERVE] = cp_cmd_serve,
    [CP_CMD_RUN] = cp_cmd_run,
    [CP_CMD_PACK] = cp_cmd_pack,
    [CP_CMD_PULL] = cp_cmd_pull,
    [CP_CMD_LIST] = cp_cmd_list,
    [CP_CMD_INSPECT] = cp_cmd_inspect,
    [CP_CMD_RM] = cp_cmd_rm,
    [CP_CMD_VERIFY] = cp_cmd_verify,
    [CP_CMD_GC] = cp_cmd_gc,
    [CP_CMD_TOKENIZE] = cp_cmd_tokenize,
    [CP_CMD_BENCH_ENGINE] = cp_cmd_bench_engine,
    [CP_CMD_BENCH_PERPLEXITY] = cp_cmd_bench_perplexity,
    [CP_CMD_BENCH_SERVE] = cp_cmd_bench_serve,
    [CP_CMD_BENCH_SSE] = cp_cmd_bench_sse,
    [CP_CMD_SELFTEST] = cp_cmd_selftest,
    [CP_CMD_VERSION] = cp_cmd_version,
};

/* What was given and is ignored, or not given and not the default, either: said once. */
static void say_what_follows(const cp_options *o)
{
    if (o->service_link)
        cp_log(CP_LOG_WARN,
               "ignored %.120s: the address of a service (Kubernetes sets it unless "
               "enableServiceLinks is false), no number",
               o->service_link);
    if (o->source[CP_OPT_max_seqs] == CP_FROM_OTHER)
        cp_log(CP_LOG_INFO, "--max-seqs is %lld: no more than --max-batch-rows",
               (long long)o->max_seqs);
    if (o->source[CP_OPT_max_batch_rows] == CP_FROM_OTHER)
        cp_log(CP_LOG_INFO, "--max-batch-rows is %lld: a row for each sequence",
               (long long)o->max_batch_rows);
}

int main(int argc, char **argv)
{
    extern char **environ;
    cp_err err = {0};
    cp_options *o;
    if (cp_stdio_open(&err)) {
        return cp_app_fail(&err);
    }
    if (cp_options_parse(&o, argc, argv, environ, &err)) {
        return cp_app_fail(&err);
    }
    int rc = 0;
    if (o->help || o->command == CP_CMD_NONE) {
        cp_buf text = {0};
        cp_options_help(&text, o->command, o->group);
        fputs(text.p ? text.p : "", o->help ? stdout : stderr);
        cp_buf_fini(&text);
        rc = o->help ? 0 : 2;
    } else {
        cp_log_setup((cp_log_level)o->log_level, o->log_format == CP_LOG_FORMAT_JSON);
        say_what_follows(o);
        rc = commands[o->command](o);
        cp_log_flush(INT64_MAX);
    }
    cp_options_free(o);
    return cp_stdio_close(rc);
}
