/*
 * The server's tests: a real server on a free port over the fake engine, and a small blocking HTTP
 * client that can also misbehave. One test at a time; everything is torn down by h_close, which
 * asserts that no request, call or reference is left.
 */
#ifndef CP_TESTS_SERVER_HARNESS_H
#define CP_TESTS_SERVER_HARNESS_H

#include "tests/support/cmocka.h"

#include <semaphore.h>

#include "base/utf8.h"
#include "bench/sse/fake_engine.h"
#include "server/core.h"
#include "server/routes.h"

#include <jansson.h>

/* What the fake engine says: ids for every choice, then stop. */
typedef struct h_script {
    int32_t id[4096];
    int n;
    bool endless; /* repeat the last id */
} h_script;

typedef struct harness {
    cp_fake *fake;
    cp_fake_meta *meta;
    cp_tokenizer *tok;
    cp_templates templates;
    cp_jobs *jobs;
    cp_metrics *process, *model_metrics;
    cp_server *s;
    cp_served *model;
    h_script script;
    sem_t gate; /* where h_block_jobs keeps the job thread */
    _Atomic bool at_gate;
} harness;

typedef struct h_config {
    const cp_api_key *keys;
    size_t n_keys;
    int ctx, max_queue, max_connections;
    int default_max_tokens; /* of the model; 0: none */
    int64_t deadline_ms, grace_ms, timeout_ms, header_ms, comment_ms, slow_ms;
    uint64_t body_bytes;
    const char *template_;      /* NULL: contents joined by a newline; "": no template at all */
    const char *tool_use, *rag; /* templates of these names; NULL: none */
    const char *cors[3];        /* up to a NULL */
    const char *allowed_host, *host;
    bool add_bos;                 /* the tokenizer puts BOS in front */
    bool loading;                 /* do not call cp_server_ready */
    const cp_engine_api *engine;  /* behind the server in place of the fake one; NULL: the fake */
    cp_resident *resident;        /* the model in it */
    int trace_fd;                 /* where spans go; 0: nowhere */
    const cp_server_host *loader; /* who loads models; NULL: nobody */
} h_config;

void h_open(harness *h, const h_config *cfg);
/* Once everything is idle. */
void h_close(harness *h);
/* At once, with whatever is in flight: in the order of cp_cmd_serve. */
void h_end(harness *h);
/* What h_end frees after engine, server and jobs have ended. */
void h_free(harness *h);
/* The text's bytes as ids. */
void h_say(harness *h, const char *text);
void h_wait_submitted(harness *h, long n);
/* Until the engine has let go of everything and the server has no call. */
void h_wait_idle(harness *h);
/* The same, and no connection and no exchange is left either. */
void h_wait_alone(harness *h);
void h_wait_jobs(harness *h, int n); /* calls that are on a job */
void h_wait_active(harness *h, int n);
/* The only job thread does nothing until h_unblock_jobs. */
void h_block_jobs(harness *h);
void h_unblock_jobs(harness *h);
void h_wait_cancelled(harness *h, long n);

typedef struct h_answer {
    int status;
    char head[8192];
    cp_buf body;  /* de-chunked */
    bool chunked; /* framing of the body */
    bool whole;   /* the body came to its announced end */
} h_answer;

int h_connect(const harness *h);
void h_send(int fd, const char *p, size_t n);
void h_sends(int fd, const char *s);
/* POST with a body, or GET when body is NULL; extra: more header lines, each with CRLF. */
void h_request(int fd, const char *method, const char *path, const char *extra, const char *body);
/* One answer. False: the connection ended before a status line. */
bool h_read(int fd, h_answer *a);
void h_answer_fini(h_answer *a);
/* Connect, request, answer, close. */
h_answer h_call(const harness *h, const char *method, const char *path, const char *extra,
                const char *body);
const char *h_header(const h_answer *a, const char *name, char *out, size_t cap);
/* The body as JSON (asserts that it is). */
json_t *h_json(const h_answer *a);
/* error.code of the body, or "" (static buffer). */
const char *h_error_code(const h_answer *a);
/* The data of SSE event i (not counting comments), NULL past the end; static buffer. */
const char *h_event(const h_answer *a, int i);
int h_events(const h_answer *a);

/* The route's path, with the harness's model in it. */
void h_path(const cp_route *r, char *out, size_t cap);
/* The API of a route that takes bodies of a place (CP_AT_*). */
const cp_api *h_api(unsigned at);

/* Groups; each returns the number of failed tests. */
int run_admin_tests(void);
int run_auth_tests(void);
int run_budget_tests(void);
int run_http_tests(void);
int run_mhd_tests(void);
int run_fields_tests(void);
int run_template_tests(void);
int run_params_tests(void);
int run_stops_tests(void);
int run_openai_tests(void);
int run_oip_tests(void);
int run_life_tests(void);
int run_served_tests(void);
int run_watch_tests(void);

#endif
