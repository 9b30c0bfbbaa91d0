/*
 * Options: precedence, typed values and their refusals, lists, models.toml, rules across options,
 * help and documents.
 */
#include "tests/unit/base/suites.h"

#include "base/log.h"
#include "base/options_rows.h"

#include <string.h>
#include <unistd.h>

enum { WORDS = 32 };

/* Parse a blank-separated command line ("''" is an empty word) with an environment. */
static cp_code parse_env(cp_options **o, const char *line, char *const *environment, cp_err *err)
{
    char copy[1024], *words[WORDS] = {"capstan"}, *save = NULL;
    int n = 1;
    assert_true(cp_strcopy(copy, sizeof(copy), line));
    for (char *w = strtok_r(copy, " ", &save); w; w = strtok_r(NULL, " ", &save)) {
        assert_true(n < WORDS);
        words[n++] = strcmp(w, "''") == 0 ? w + 2 : w;
    }
    return cp_options_parse(o, n, words, environment, err);
}

static cp_options *good(const char *line, char *const *environment)
{
    cp_options *o = NULL;
    cp_err err;
    if (parse_env(&o, line, environment, &err))
        fail_msg("%s: %s", line, err.msg);
    return o;
}

static void defaults_are_interfaces(void **state)
{
    (void)state;
    cp_options *o = good("serve m", NULL);
    assert_int_equal(o->command, CP_CMD_SERVE);
    assert_string_equal(o->host, "127.0.0.1");
    assert_int_equal(o->port, 8080);
    assert_int_equal(o->threads, 0);
    assert_int_equal(o->max_seqs, 64);
    assert_int_equal(o->max_batch_rows, 512);
    assert_int_equal(o->prefill_chunk, 128);
    assert_int_equal(o->kv_type, CP_KV_TYPE_BF16);
    assert_true(o->prefix_cache);
    assert_int_equal(o->max_queue, 1024);
    assert_int_equal(o->max_queue_tokens, 1048576);
    assert_int_equal(o->deadline_ms, 0);
    assert_int_equal(o->drain_grace, 5000);
    assert_int_equal(o->drain_timeout, 30000);
    assert_int_equal(o->log_level, CP_LOG_INFO);
    assert_int_equal(o->log_format, CP_LOG_FORMAT_TEXT);
    assert_int_equal(o->verify, CP_VERIFY_RECORDED);
    assert_string_equal(o->default_registry, "docker.io");
    assert_null(o->uds);
    assert_int_equal(o->api_key.n, 0);
    assert_false(cp_option_given(o, CP_OPT_port));
    assert_int_equal(o->n_models, 1);
    assert_string_equal(o->models[0].ref, "m");
    cp_options_free(o);
    o = good("bench engine -m x", NULL);
    assert_int_equal(o->command, CP_CMD_BENCH_ENGINE);
    assert_int_equal(o->n_prompt, 512);
    assert_int_equal(o->n_gen, 128);
    assert_int_equal(o->batch.n, 1);
    assert_int_equal(o->batch.p[0], 1);
    cp_options_free(o);
}

static void flags_beat_environment_beats_file_beats_default(void **state)
{
    (void)state;
    char path[64], line[200];
    temp_file(path, "port = 1\nmax_seqs = 2\nkv_bytes = \"2GiB\"\napi_key = [\"f1\", \"f2\"]\n"
                    "cors_origin = \"a,b\"\nprefix_cache = false\nhost = \"h\"\n"
                    "n_gen = 5\n[[model]]\nref = \"file\"\n");
    char *env[] = {(char[]){"CAPSTAN_PORT=10"},
                   (char[]){"CAPSTAN_MAX_SEQS=20"},
                   (char[]){"CAPSTAN_API_KEY=e1,e2"},
                   (char[]){"CAPSTAN_UDS="},
                   (char[]){"CAPSTAN_N_GEN=rubbish"},
                   (char[]){"CAPSTAN_PORTAL=x"},
                   NULL};
    cp_snprintf(line, sizeof(line), "serve cli --config %s --port=100 --api-key c,1 --api-key c2",
                path);
    cp_options *o = good(line, env);
    assert_int_equal(o->port, 100);
    assert_int_equal(o->source[CP_OPT_port], CP_FROM_FLAG);
    assert_int_equal(o->max_seqs, 20);
    assert_int_equal(o->source[CP_OPT_max_seqs], CP_FROM_ENV);
    assert_true(o->kv_bytes == UINT64_C(2) << 30);
    assert_int_equal(o->source[CP_OPT_kv_bytes], CP_FROM_FILE);
    assert_int_equal(o->api_key.n, 2); /* a higher source replaces the list; no cut at commas */
    assert_string_equal(o->api_key.p[0], "c,1");
    assert_int_equal(o->cors_origin.n, 1);
    assert_false(o->prefix_cache);
    assert_string_equal(o->host, "h");
    assert_null(o->uds);
    assert_int_equal(o->n_models, 2);
    assert_string_equal(o->models[0].ref, "cli");
    assert_string_equal(o->models[1].ref, "file");
    cp_options_free(o);
    char config[128];
    cp_snprintf(config, sizeof(config), "CAPSTAN_CONFIG=%s", path);
    char *env2[] = {config, (char[]){"CAPSTAN_API_KEY=e1,e2"}, NULL};
    o = good("serve", env2);
    assert_int_equal(o->port, 1);
    assert_int_equal(o->api_key.n, 2);
    assert_string_equal(o->api_key.p[1], "e2");
    assert_int_equal(o->n_models, 1);
    cp_options_free(o);
    unlink(path);
}

/* A step has a row for each sequence. */
static void rows_and_sequences_go_together(void **state)
{
    (void)state;
    static const struct {
        const char *line, *env, *file; /* file: a line of models.toml */
        int64_t rows, seqs;            /* 0 rows: refused */
        cp_source rows_from, seqs_from;
    } cases[] = {
        {"serve m", NULL, NULL, 512, 64, CP_FROM_DEFAULT, CP_FROM_DEFAULT},
        {"serve m --max-batch-rows 64", NULL, NULL, 64, 64, CP_FROM_FLAG, CP_FROM_DEFAULT},
        {"serve m --max-batch-rows 63", NULL, NULL, 63, 63, CP_FROM_FLAG, CP_FROM_OTHER},
        {"serve m --max-seqs 600", NULL, NULL, 600, 600, CP_FROM_OTHER, CP_FROM_FLAG},
        {"serve m --max-seqs 7 --max-batch-rows 7", NULL, NULL, 7, 7, CP_FROM_FLAG, CP_FROM_FLAG},
        {"serve m --max-seqs 8 --max-batch-rows 7", NULL, NULL, 0, 0, 0, 0},
        {"serve m --max-seqs 64 --max-batch-rows 32", NULL, NULL, 0, 0, 0, 0},
        {"serve m", "CAPSTAN_MAX_BATCH_ROWS=32", NULL, 32, 32, CP_FROM_ENV, CP_FROM_OTHER},
        {"serve m", "CAPSTAN_MAX_BATCH_ROWS=32", "max_seqs = 33", 0, 0, 0, 0},
        {"serve m", NULL, "max_seqs = 4096", 4096, 4096, CP_FROM_OTHER, CP_FROM_FILE},
        {"serve m --max-seqs 2", NULL, "max_batch_rows = 1", 0, 0, 0, 0},
        {"serve m", NULL, "max_batch_rows = 1", 1, 1, CP_FROM_FILE, CP_FROM_OTHER},
        {"run m --max-batch-rows 1", NULL, NULL, 1, 64, CP_FROM_FLAG, CP_FROM_DEFAULT},
        {"bench engine -m x -b 2,600,1", NULL, NULL, 600, 64, CP_FROM_OTHER, CP_FROM_DEFAULT},
        {"bench engine -m x --max-batch-rows 1", NULL, NULL, 1, 64, CP_FROM_FLAG, CP_FROM_DEFAULT},
        {"bench engine -m x -b 1,8 --max-batch-rows 7", NULL, NULL, 0, 0, 0, 0},
        {"bench perplexity -m x -f y --max-batch-rows 1", NULL, NULL, 1, 64, CP_FROM_FLAG, 0},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char path[64], line[200], env0[64] = "";
        cp_err err = {0};
        cp_options *o = NULL;
        cp_snprintf(line, sizeof(line), "%s", cases[i].line);
        if (cases[i].file) {
            temp_file(path, cases[i].file);
            cp_snprintf(line, sizeof(line), "%s --config %s", cases[i].line, path);
        }
        cp_snprintf(env0, sizeof(env0), "%s", cases[i].env ? cases[i].env : "");
        char *env[] = {cases[i].env ? env0 : NULL, NULL};
        cp_code code = parse_env(&o, line, env, &err);
        if (cases[i].file)
            unlink(path);
        if (cases[i].rows == 0) {
            assert_int_equal(code, CP_USAGE);
            assert_non_null(strstr(err.msg, "--max-batch-rows"));
            assert_true(strstr(err.msg, "--max-seqs") || strstr(err.msg, "--batch"));
            continue;
        }
        assert_int_equal(code, CP_OK);
        assert_int_equal(o->max_batch_rows, cases[i].rows);
        assert_int_equal(o->max_seqs, cases[i].seqs);
        assert_int_equal(o->source[CP_OPT_max_batch_rows], cases[i].rows_from);
        assert_int_equal(o->source[CP_OPT_max_seqs], cases[i].seqs_from);
        assert_false(cp_option_given(o, CP_OPT_max_seqs) && cases[i].seqs_from < CP_FROM_FILE);
        cp_options_free(o);
    }
}

static void values_take_their_units(void **state)
{
    (void)state;
    cp_options *o = good("serve m --kv-bytes 3MiB --drain-grace 250ms --drain-timeout 2m "
                         "--prefix-cache off --kv-type f16 --log-level debug --alias a,b --alias c",
                         NULL);
    assert_int_equal(o->kv_bytes, 3 << 20);
    assert_int_equal(o->drain_grace, 250);
    assert_int_equal(o->drain_timeout, 120000);
    assert_false(o->prefix_cache);
    assert_int_equal(o->kv_type, CP_KV_TYPE_F16);
    assert_int_equal(o->log_level, CP_LOG_DEBUG);
    assert_int_equal(o->models[0].alias.n, 3);
    assert_int_equal(o->models[0].kv_type, CP_KV_TYPE_F16);
    assert_true(o->models[0].kv_bytes == 0);
    cp_options_free(o);
    o = good("run x -p - -n5 --temp 0.5 --top-p .9 --seed -3 --raw --json=off", NULL);
    assert_string_equal(o->prompt, "-");
    assert_int_equal(o->max_tokens, 5);
    assert_true(o->temp == 0.5 && o->top_p == 0.9);
    assert_int_equal(o->seed, -3);
    assert_true(o->raw && !o->json);
    assert_true(cp_option_given(o, CP_OPT_temp));
    cp_options_free(o);
    o = good("run x --prompt ''", NULL);
    assert_string_equal(o->prompt, "");
    cp_options_free(o);
    o = good("run -- -x", NULL);
    assert_string_equal(o->args.p[0], "-x");
    cp_options_free(o);
    o = good("bench engine -m x -p 16 -n 0 -d 8 -b 1,2 -b 4", NULL);
    assert_int_equal(o->batch.n, 3);
    assert_int_equal(o->batch.p[2], 4);
    cp_options_free(o);
    o = good("pack f.gguf -t a:b --format docker", NULL);
    assert_int_equal(o->format, CP_FORMAT_DOCKER);
    cp_options_free(o);
    o = good("version -v", NULL);
    assert_true(o->verbose);
    cp_options_free(o);
    o = good("--version", NULL);
    assert_int_equal(o->command, CP_CMD_VERSION);
    cp_options_free(o);
}

static const struct {
    const char *line, *message;
} refusals[] = {
    {"srve m", "unknown command 'srve'; did you mean 'serve'?; `capstan --help` lists them"},
    {"bench engin", "bench: got 'engin'; allowed: engine, perplexity, serve, sse"},
    {"bench -m x", "bench: got '-m'; allowed: engine, perplexity, serve, sse"},
    {"help bench nonsense", "bench: got 'nonsense'; allowed: engine, perplexity, serve, sse"},
    {"Bench", "unknown command 'Bench'; `capstan --help` lists them"},
    {"qqqqqq", "unknown command 'qqqqqq'; `capstan --help` lists them"},
    {"serve", "serve: no REF and no [[model]] in a --config file"},
    {"serve a b --alias x", "--alias: got it with 2 models; allowed: one REF"},
    {"serve m --prot 1",
     "unknown option '--prot'; did you mean '--port'?; `capstan serve --help` lists them"},
    {"serve m --prefixcache=on", "unknown option '--prefixcache'; did you mean '--prefix-cache'?; "
                                 "`capstan serve --help` lists them"},
    {"serve m -z", "unknown option '-z'; `capstan serve --help` lists them"},
    {"run m --port 1", "'--port' is no option of run, but of: serve"},
    {"serve m -p x", "'-p' is no option of serve, but of: bench engine"},
    {"serve m --port", "--port: takes a value; allowed: an integer, 0..65535"},
    {"serve m --port 65536", "--port: got '65536'; allowed: an integer, 0..65535"},
    {"serve m --port 8o", "--port: got '8o'; allowed: an integer, 0..65535"},
    {"serve m --port=", "--port: got ''; allowed: an integer, 0..65535"},
    {"serve m --ctx 0", "--ctx: got '0'; allowed: an integer, 1..16777216 tokens"},
    {"serve m --kv-bytes 1MB", "--kv-bytes: got '1MB'; allowed: a size in bytes or with KiB, MiB, "
                               "GiB, 1MiB..1024GiB"},
    {"serve m --kv-bytes 9999999999999GiB",
     "--kv-bytes: got '9999999999999GiB'; allowed: a size in bytes or with KiB, MiB, GiB, "
     "1MiB..1024GiB"},
    {"serve m --drain-grace 5", "--drain-grace: got '5'; allowed: a time with ms, s or m, 0..60m"},
    {"serve m --kv-type q8_0", "--kv-type: got 'q8_0'; allowed: bf16, f16"},
    {"serve m --prefix-cache maybe", "--prefix-cache: got 'maybe'; allowed: on, off, true, false"},
    {"serve m --host ''", "--host: got ''; allowed: text, not empty"},
    {"serve m --alias a,,b",
     "--alias: got 'a,,b'; allowed: up to 1024 texts between commas, none empty"},
    {"run m --temp nan", "--temp: got 'nan'; allowed: a number, 0..2"},
    {"run m --temp 2.1", "--temp: got '2.1'; allowed: a number, 0..2"},
    {"run m -n", "-n: takes a value; allowed: an integer, 1..16777216 tokens"},
    {"run", "run: takes REF; `capstan run --help` shows how"},
    {"run a b", "run: got 'b'; allowed: 1 argument"},
    {"list x", "list: got 'x'; allowed: 0 arguments"},
    {"pack a", "pack: needs --tag NAME:TAG"},
    {"tokenize", "tokenize: needs --model REF"},
    {"bench perplexity -m x", "bench perplexity: needs --file FILE"},
    {"bench serve --model m --rate 1", "bench serve: needs --url URL"},
    {"bench serve --url http://h --rate 1", "bench serve: needs --model REF"},
    {"bench serve --url http://h --model m --dataset x",
     "--dataset: got 'x'; allowed: random, shared-prefix, sharegpt, turns"},
    {"bench sse 1 2 3 4 5", "bench sse: got '5'; allowed: 4 arguments"},
    {"bench engine -m x -b 1,x", "-b: got '1,x'; allowed: integers between commas, 1..4096 "
                                 "sequences"},
    {"serve --config /nowhere", "--config: /nowhere: No such file or directory"},
};

static void refusals_name_value_and_allowed(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(refusals) / sizeof(refusals[0]); i++) {
        cp_options *o = NULL;
        cp_err err;
        assert_int_equal(parse_env(&o, refusals[i].line, NULL, &err), CP_USAGE);
        assert_string_equal(err.msg, refusals[i].message);
        assert_null(o);
    }
    cp_options *o = NULL;
    cp_err err;
    char *env[] = {(char[]){"CAPSTAN_MAX_SEQS=0"}, NULL};
    assert_int_equal(parse_env(&o, "serve m", env, &err), CP_USAGE);
    assert_string_equal(err.msg,
                        "CAPSTAN_MAX_SEQS: got '0'; allowed: an integer, 1..4096 sequences");
}

/* What Kubernetes sets in a pod beside a Service called capstan stops no start. */
static void service_links_are_ignored(void **state)
{
    (void)state;
    static const char *const links[] = {"CAPSTAN_PORT=tcp://10.96.12.3:8080",
                                        "CAPSTAN_PORT=udp://10.96.12.3:53",
                                        "CAPSTAN_PORT=sctp://[fd00::1]:8080"};
    char path[64], line[100];
    temp_file(path, "port = 7");
    cp_snprintf(line, sizeof(line), "serve m --config %s", path);
    for (size_t i = 0; i < sizeof(links) / sizeof(links[0]); i++) {
        char *const env[] = {(char *)(uintptr_t) "CAPSTAN_SERVICE_HOST=10.96.12.3",
                             (char *)(uintptr_t) "CAPSTAN_SERVICE_PORT_HTTP=8080",
                             (char *)(uintptr_t) "CAPSTAN_PORT_8080_TCP=tcp://10.96.12.3:8080",
                             (char *)(uintptr_t) "CAPSTAN_PORT_8080_TCP_PROTO=tcp",
                             (char *)(uintptr_t)links[i],
                             NULL};
        const struct {
            const char *line;
            int port, source;
        } rows[] = {{"serve m", 8080, CP_FROM_DEFAULT},
                    {"serve m --port 9", 9, CP_FROM_FLAG},
                    {line, 7, CP_FROM_FILE}};
        for (size_t r = 0; r < sizeof(rows) / sizeof(rows[0]); r++) {
            cp_options *o = good(rows[r].line, env);
            assert_int_equal(o->port, rows[r].port);
            assert_int_equal(o->source[CP_OPT_port], rows[r].source);
            assert_string_equal(o->service_link, links[i]);
            cp_options_free(o);
        }
        cp_options *o = good("list", env);
        assert_null(o->service_link);
        cp_options_free(o);
    }
    unlink(path);
    static const char *const bad[] = {"CAPSTAN_PORT=tcp://",      "CAPSTAN_PORT=tcp://:80",
                                      "CAPSTAN_PORT=tcp://h:",    "CAPSTAN_PORT=tcp://h:80/x",
                                      "CAPSTAN_PORT=http://h:80", "CAPSTAN_PORT=h:80",
                                      "CAPSTAN_PORT=65536",       "CAPSTAN_THREADS=tcp://h:80"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        char *const env[] = {(char *)(uintptr_t)bad[i], NULL};
        cp_options *o = NULL;
        cp_err err;
        assert_int_equal(parse_env(&o, "serve m --port 9", env, &err), CP_USAGE);
    }
}

/* What `serve --config FILE` says about a file, with FILE's name cut off. */
static void file_error(const char *text, const char *message)
{
    char path[64], line[100];
    cp_options *o = NULL;
    cp_err err;
    temp_file(path, text);
    cp_snprintf(line, sizeof(line), "serve --config %s", path);
    assert_int_equal(parse_env(&o, line, NULL, &err), CP_USAGE);
    assert_memory_equal(err.msg, path, strlen(path));
    assert_string_equal(err.msg + strlen(path), message);
    unlink(path);
}

static void file_errors_name_line_and_column(void **state)
{
    (void)state;
    file_error("\n prot = 1\n", ":2:2: key 'prot': unknown in the top table; did you mean 'port'?");
    file_error("port = \"8080\"",
               ":1:1: key 'port': got the string '8080'; allowed: an integer, 0..65535");
    file_error("port = 70000", ":1:1: key 'port': got '70000'; allowed: an integer, 0..65535");
    file_error("host = 1", ":1:1: key 'host': got the integer 1; allowed: text, not empty");
    file_error("api_key = [1]",
               ":1:1: key 'api_key': got the integer 1; allowed: an array of up to "
               "1024 texts, none empty");
    file_error("port = [1]", ":1:1: key 'port': got the array; allowed: an integer, 0..65535");
    file_error("drain_grace = 5",
               ":1:1: key 'drain_grace': got '5'; allowed: a time with ms, s or m, 0..60m");
    file_error("config = \"x\"", ":1:1: key 'config': a file cannot name another one");
    file_error("[model]\nref='x'", ":1:2: key 'model': got a table; allowed: [[model]]");
    file_error("[[model]]\nalias=['x']", ":1:3: [[model]] without its key 'ref'");
    file_error("[[model]]\nref='x'\nctz=1",
               ":3:1: key 'ctz': unknown in [[model]]; did you mean 'ctx'?");
    file_error("[[model]]\nref='x'\nsampling=1",
               ":3:1: key 'sampling': got the integer; allowed: a table [model.sampling]");
    file_error("[[model]]\nref='x'\n[model.sampling]\ntemperature=3",
               ":4:1: key 'temperature': got '3'; allowed: a number, 0..2");
    file_error("[[model]]\nref='x'\n[model.sampling]\ntemp=1",
               ":4:1: key 'temp': unknown in [model.sampling]");
    file_error("port = \n", ":1:8: got the end of the line; expected a value");
}

static void models_inherit_what_they_leave_open(void **state)
{
    (void)state;
    char path[64], line[200];
    temp_file(path, "ctx = 100\n[[model]]\nref = 'a'\nalias = ['x', 'y']\nctx = 7\n"
                    "kv_bytes = '1GiB'\nkv_type = 'f16'\nchat_template_file = 't'\n"
                    "[model.sampling]\ntemperature = 1\ntop_k = -1\nseed = 5\n"
                    "[[model]]\nref = 'b'\n");
    cp_snprintf(line, sizeof(line), "serve --config %s --chat-template-file own", path);
    cp_options *o = good(line, NULL);
    assert_int_equal(o->n_models, 2);
    const cp_model_options *a = &o->models[0], *b = &o->models[1];
    assert_int_equal(a->ctx, 7);
    assert_int_equal(b->ctx, 100);
    assert_true(a->kv_bytes == 1 << 30 && b->kv_bytes == 0);
    assert_int_equal(a->kv_type, CP_KV_TYPE_F16);
    assert_int_equal(b->kv_type, CP_KV_TYPE_BF16);
    assert_string_equal(a->chat_template_file, "t");
    assert_string_equal(b->chat_template_file, "own");
    assert_int_equal(a->alias.n, 2);
    assert_int_equal(a->sampling.given, 1u << CP_SAMPLING_temperature | 1u << CP_SAMPLING_top_k |
                                            1u << CP_SAMPLING_seed);
    assert_true(a->sampling.temperature == 1.0);
    assert_int_equal(a->sampling.top_k, -1);
    assert_int_equal(b->sampling.given, 0);
    cp_options_free(o);
    cp_snprintf(line, sizeof(line), "list --config %s", path); /* any command takes the file */
    o = good(line, NULL);
    cp_options_free(o);
    unlink(path);
}

/* The same command line and environment with another file; what differs is told by value. */
static void options_are_parsed_again(void **state)
{
    (void)state;
    static const char changed[] = "ctx = 9\nkv_bytes = '1024MiB'\napi_key = ['a', 'b']\n"
                                  "log_level = 'debug'\n[[model]]\nref = 'x'\nalias = ['y']\n";
    char path[64];
    char *const env[] = {(char *)(uintptr_t) "CAPSTAN_LOG_LEVEL=warn", NULL};
    temp_file(path, "ctx = 7\nkv_bytes = '1GiB'\napi_key = ['a']\nmax_queue = 3\n"
                    "[[model]]\nref = 'x'\n");
    char *const words[] = {(char *)(uintptr_t) "capstan",     (char *)(uintptr_t) "serve",
                           (char *)(uintptr_t) "--config",    path,
                           (char *)(uintptr_t) "--max-queue", (char *)(uintptr_t) "5"};
    cp_options *o = NULL, *p = NULL;
    cp_err err;
    assert_int_equal(cp_options_parse(&o, 6, words, env, &err), CP_OK);
    assert_int_equal(cp_options_again(o, changed, sizeof(changed) - 1, &p, &err), CP_OK);
    assert_int_equal(p->ctx, 9);
    assert_false(cp_option_same(o, p, CP_OPT_ctx));
    assert_true(cp_option_same(o, p, CP_OPT_kv_bytes));
    assert_false(cp_option_same(o, p, CP_OPT_api_key));
    assert_true(cp_option_same(o, p, CP_OPT_max_queue)); /* the flag wins in both */
    assert_int_equal(p->max_queue, 5);
    assert_true(cp_option_same(o, p, CP_OPT_log_level)); /* so does the environment */
    assert_true(cp_option_same(o, p, CP_OPT_chat_template_file));
    cp_option_keep(p, CP_OPT_api_key, o);
    assert_int_equal(p->api_key.n, 1);
    assert_true(cp_option_same(o, p, CP_OPT_api_key));
    const cp_model_options *a = &o->models[0], *b = &p->models[0];
    const uint32_t alias = 1u << CP_MODEL_alias, ctx = 1u << CP_MODEL_ctx;
    assert_false(cp_model_options_same(a, b, alias));
    assert_false(cp_model_options_same(a, b, ctx));
    assert_true(cp_model_options_same(a, b, alias | ctx));
    cp_options_free(p);
    p = NULL;
    assert_int_equal(cp_options_again(o, "ctx = 0\n", 8, &p, &err), CP_USAGE);
    assert_non_null(strstr(err.msg, ":1:1: key 'ctx': got '0'"));
    assert_null(p);
    cp_options_free(o);
    unlink(path);
}

static void models_are_copied_and_compared(void **state)
{
    (void)state;
    cp_arena *arena = cp_arena_new(1 << 16), *small = cp_arena_new(8);
    char path[64], line[200];
    temp_file(path, "[[model]]\nref = 'a'\nalias = ['x', 'y']\nvariant = 'Q4'\n"
                    "[model.sampling]\ntop_k = 3\n");
    cp_snprintf(line, sizeof(line), "serve --config %s", path);
    cp_options *o = good(line, NULL);
    cp_model_options copy, none;
    assert_true(cp_model_options_copy(&copy, &o->models[0], arena));
    assert_false(cp_model_options_copy(&none, &o->models[0], small));
    assert_ptr_not_equal(copy.alias.p, o->models[0].alias.p);
    cp_sampling_options sampling = o->models[0].sampling, other = sampling;
    assert_true(cp_model_options_same(&copy, &o->models[0], 0));
    cp_options_free(o);
    assert_string_equal(copy.ref, "a");
    assert_string_equal(copy.alias.p[1], "y");
    assert_string_equal(copy.variant, "Q4");
    assert_true(cp_sampling_options_same(&sampling, &other));
    other.top_k = 4;
    assert_false(cp_sampling_options_same(&sampling, &other));
    other.given = 0;
    assert_false(cp_sampling_options_same(&sampling, &other));
    sampling.given = 0;
    assert_true(cp_sampling_options_same(&sampling, &other)); /* not given: no value counts */
    cp_arena_free(arena);
    cp_arena_free(small);
    unlink(path);
}

/* What one command was given, in the words of another; parsed again it is the same. */
static void options_are_handed_on(void **state)
{
    (void)state;
    char *const env[] = {(char *)(uintptr_t) "CAPSTAN_MIRROR=a=http://x,b=http://y",
                         (char *)(uintptr_t) "CAPSTAN_LOG_FORMAT=json", NULL};
    cp_options *o =
        good("run m --raw --temp 0.1 --seed -7 --json --store -s --store-quota 2MiB", env);
    cp_strings words = {0};
    assert_int_equal(cp_options_forward(o, CP_CMD_PULL, o->arena, &words, NULL), CP_OK);
    static const char *const want[] = {"--store=-s", "--mirror=a=http://x", "--mirror=b=http://y",
                                       "--store-quota=2097152", "--log-format=json"};
    assert_int_equal(words.n, 5);
    for (int i = 0; i < 5; i++)
        assert_string_equal(words.p[i], want[i]);
    words = (cp_strings){0};
    assert_int_equal(cp_options_forward(o, CP_CMD_RUN, o->arena, &words, NULL), CP_OK);
    char *argv[32] = {(char *)(uintptr_t) "capstan", (char *)(uintptr_t) "run",
                      (char *)(uintptr_t) "m"};
    for (int i = 0; i < words.n; i++)
        argv[3 + i] = (char *)(uintptr_t)words.p[i];
    cp_options *again;
    assert_int_equal(cp_options_parse(&again, 3 + words.n, argv, NULL, NULL), CP_OK);
    assert_true(again->raw && again->temp == o->temp && again->seed == -7 && !again->json);
    assert_string_equal(again->store, "-s");
    assert_int_equal(again->mirror.n, 2);
    assert_int_equal(again->log_format, CP_LOG_FORMAT_JSON);
    cp_options_free(again);
    cp_options_free(o);
}

static void help_shows_every_option(void **state)
{
    (void)state;
    for (int c = 0; c <= CP_CMD_COUNT; c++) {
        cp_buf b = {0};
        cp_options_help(&b, (cp_command)c, NULL);
        assert_false(b.failed);
        assert_non_null(strstr(b.p, "Usage: capstan "));
        assert_non_null(strstr(b.p, "Example:\n"));
        for (int i = 0; i < CP_OPT_COUNT && c < CP_CMD_COUNT; i++) {
            char flag[CP_OPT_NAME_MAX], env[CP_OPT_NAME_MAX];
            cp_opt_flag_name(&cp_opt_rows[i], flag);
            cp_opt_env_name(&cp_opt_rows[i], env);
            bool has = strstr(b.p, flag) && strstr(b.p, env);
            if ((cp_opt_rows[i].commands & 1u << c) && !has)
                fail_msg("%s is missing in the help of %s", flag, cp_command_name((cp_command)c));
        }
        for (const char *l = b.p; *l; l += strcspn(l, "\n") + 1)
            assert_true(strcspn(l, "\n") <= 110);
        cp_buf_fini(&b);
    }
    cp_options *o = good("serve --help --bogus", NULL);
    assert_true(o->help && o->command == CP_CMD_SERVE);
    cp_options_free(o);
    o = good("help bench perplexity", NULL);
    assert_true(o->help && o->command == CP_CMD_BENCH_PERPLEXITY);
    cp_options_free(o);
    static const struct {
        const char *line;
        bool help, group;
    } parts[] = {{"bench", false, true},     {"bench --help", true, true}, {"bench -h", true, true},
                 {"help bench", true, true}, {"", false, false},           {"help", true, false}};
    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
        o = good(parts[i].line, NULL);
        assert_true(o->command == CP_CMD_NONE && o->help == parts[i].help);
        assert_int_equal(o->group != NULL, parts[i].group);
        cp_buf b = {0};
        cp_options_help(&b, o->command, o->group);
        assert_non_null(strstr(b.p, "\n  bench engine       Measure "));
        assert_non_null(strstr(b.p, "\n  bench perplexity   Perplexity "));
        assert_int_equal(!strstr(b.p, "  serve "), parts[i].group);
        cp_buf_fini(&b);
        cp_options_free(o);
    }
    o = good("-h", NULL);
    assert_true(o->help && o->command == CP_CMD_NONE);
    cp_options_free(o);
}

static void rows_are_sound(void **state)
{
    (void)state;
    for (int i = 0; i < CP_OPT_COUNT; i++) {
        const cp_opt_row *r = &cp_opt_rows[i];
        assert_true(*r->doc && r->doc[strlen(r->doc) - 1] != '.');
        assert_true(r->commands != 0 && (r->required & ~r->commands) == 0);
        assert_int_equal(*r->metavar == '\0', r->type == CP_OPT_TYPE_SWITCH);
        assert_true(strlen(r->name) < 30);
        for (int k = 0; k < i; k++) {
            assert_string_not_equal(r->name, cp_opt_rows[k].name);
            if (r->letter && r->letter == cp_opt_rows[k].letter)
                assert_int_equal(r->commands & cp_opt_rows[k].commands, 0);
        }
    }
    cp_buf b = {0};
    cp_docs_configuration(&b);
    assert_non_null(strstr(b.p, "| `--port` | integer | `8080` | `0..65535` | serve | "));
    assert_non_null(strstr(b.p, "| CONTEXT_LENGTH | 400 | `context_length_exceeded` |"));
    assert_non_null(strstr(b.p, "| `capstan_kv_pages` | gauge | `model`, `state=\"free\"`"));
    cp_buf_clear(&b);
    cp_docs_manual(&b, "9.9");
    assert_non_null(strstr(b.p, ".B \\-\\-port N\n"));
    assert_non_null(strstr(b.p, ".TH CAPSTAN 1"));
    cp_buf_fini(&b);
}

int suite_options(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_are_interfaces),
        cmocka_unit_test(flags_beat_environment_beats_file_beats_default),
        cmocka_unit_test(rows_and_sequences_go_together),
        cmocka_unit_test(values_take_their_units),
        cmocka_unit_test(refusals_name_value_and_allowed),
        cmocka_unit_test(service_links_are_ignored),
        cmocka_unit_test(file_errors_name_line_and_column),
        cmocka_unit_test(models_inherit_what_they_leave_open),
        cmocka_unit_test(options_are_parsed_again),
        cmocka_unit_test(models_are_copied_and_compared),
        cmocka_unit_test(options_are_handed_on),
        cmocka_unit_test(help_shows_every_option),
        cmocka_unit_test(rows_are_sound),
    };
    return cmocka_run_group_tests_name("options", tests, NULL, NULL);
}
