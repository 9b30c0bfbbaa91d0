/*
 * server: puts HTTP in front of an engine. It answers chat and text completions as OpenAI's API
 * does, streams them as SSE, and answers probes.
 *
 * A cp_server owns one loop thread (an epoll, see server/http.h), the listening socket and every
 * call in flight; it borrows the engine's table, the job pool and the models' tokenizers and
 * templates, which must outlive it. It listens from cp_server_open on and answers `loading` until
 * cp_server_ready; models come and go at any time. It hides HTTP, JSON, keys, limits, stop strings
 * and disconnects, prints nothing on its own but log lines, and knows models by name only. Its life
 * is open, models, ready, drain_begin, drain_poll ..., close.
 */
#ifndef CP_SERVER_SERVER_H
#define CP_SERVER_SERVER_H

#include "base/append.h"
#include "base/code.h"
#include "base/energy.h"
#include "base/jobs.h"
#include "base/metrics.h"
#include "chat/chat.h"
#include "engine/engine.h"
#include "tokenizer/tokenizer.h"

/* Connections at once where the configuration says nothing. */
enum { CP_SERVER_CONNECTIONS = 8192 };

/* What a key may do. A route names one of these, or none (probes). */
enum { CP_SCOPE_INFERENCE = 1, CP_SCOPE_ADMIN = 2, CP_SCOPE_METRICS = 4 };

/* A key is kept as its SHA-256 only. */
typedef struct cp_api_key {
    uint8_t hash[32];
    unsigned scopes; /* CP_SCOPE_* */
} cp_api_key;

/* Parse a line of a key file: `KEY|sha256:HEX [scopes=inference,admin,metrics]`, scope inference by
 * default. The caller skips comments and empty lines. CP_USAGE says what is wrong, never the key.
 * Any thread. */
cp_code cp_api_key_parse(const char *line, cp_api_key *out, cp_err *err);

typedef struct cp_server_config {
    const char *host; /* numeric address or name; NULL: 127.0.0.1 */
    int port;         /* 0: any */
    const char *uds;  /* a Unix socket's path replaces TCP; NULL: none */
    /* Listens already (server/listen.h) and is the server's from now on, whatever comes; NULL: the
     * three above say where. */
    const struct cp_listener *listener;
    const cp_api_key *keys;          /* copied; none: every route is open */
    size_t n_keys;                   /* keys */
    const char *const *cors_origins; /* copied; "*": any; none: no CORS headers */
    size_t n_cors_origins;
    const char *const *allowed_hosts; /* copied; see cp_host_allowed (server/origin.h) */
    size_t n_allowed_hosts;
    const cp_engine_api *engine;  /* its set_front is called by cp_server_open */
    cp_jobs *jobs;                /* prepares every request that has a body */
    int64_t deadline_ms;          /* of a request; 0: none */
    int64_t drain_grace_ms;       /* after drain_begin new requests are still served this long */
    int64_t drain_timeout_ms;     /* from the grace's end on, for what still runs */
    int64_t header_deadline_ms;   /* 0: 10,000; tests shorten it */
    int64_t keepalive_comment_ms; /* silence on a stream before a comment; 0: 15,000 */
    uint64_t body_bytes;          /* bodies and all that is made of them; 0: 256 MiB */
    int64_t slow_reader_ms;       /* nothing read of a full stream before it is cut; 0: 30,000 */
    int max_connections;          /* 0: CP_SERVER_CONNECTIONS, or less where descriptors are few */
    const char *version;          /* "0.1.0 (abc123)", copied */
    cp_metrics *metrics;          /* the process's; may be NULL */
    int trace_fd;                 /* a socket of packets for spans (server/trace.h); 0: none */
    cp_energy *energy;            /* the machine's meters; borrowed; NULL: nobody measures */
    cp_append *audit;             /* a line a request (server/audit.h); borrowed; NULL: none */
} cp_server_config;

enum { CP_DEFAULT_STOPS = 16, CP_DEFAULT_STOP_BYTES = 64 };

/* Defaults that a request overrides; the ranges are those of the request's fields. */
typedef struct cp_sampling_defaults {
    double temperature, top_p, min_p;
    double repetition_penalty, presence_penalty, frequency_penalty;
    int64_t top_k;      /* 0 or -1: off */
    int64_t max_tokens; /* -1: none: the rest of the context, 16 for text */
    bool has_seed;
    int64_t seed;
    int n_stop;
    /* Of requests without "stop": UTF-8, 1 to 63 bytes each, NUL-terminated. */
    char stop[CP_DEFAULT_STOPS][CP_DEFAULT_STOP_BYTES];
} cp_sampling_defaults;

/* temperature 1, top_p 1, everything else off. */
cp_sampling_defaults cp_sampling_defaults_off(void);

/* What is served of a model. Strings are copied; handles are borrowed until it is forgotten. */
typedef struct cp_server_model {
    const cp_tokenizer *tokenizer;
    cp_templates templates;   /* borrowed; none: chat is refused with chat_template_missing */
    const char *digest;       /* "sha256:..." of the weights, or "" */
    const char *quantization; /* "Q4_K_M" */
    const char *fingerprint;  /* system_fingerprint: build, ISA level, KV type, digest */
    cp_sampling_defaults defaults;
    const char *ref;     /* where it came from; NULL: not told */
    uint64_t kv_bytes;   /* of its pages and states */
    cp_resident *engine; /* the model in the engine */
    int64_t created;     /* seconds since the epoch */
    cp_metrics *metrics; /* as for cp_server_count_model; NULL: what was said there, or none */
} cp_server_model;

typedef struct cp_server cp_server;
typedef struct cp_served cp_served; /* a model of the server */

/*
 * Bind, listen and start the loop thread. From here on probes answer. CP_IO names the address that
 * cannot be bound (exit 1); CP_USAGE a host that does not resolve. Raises RLIMIT_NOFILE to its hard
 * limit and ignores SIGPIPE.
 */
cp_code cp_server_open(cp_server **out, const cp_server_config *cfg, cp_err *err);
/* "http://127.0.0.1:8080" or "unix:PATH"; owned by the server. */
const char *cp_server_url(const cp_server *s);
int cp_server_port(const cp_server *s); /* 0 with a Unix socket */
/* Bound where other machines reach it: an address that is not loopback. */
bool cp_server_exposed(const cp_server *s);

/*
 * Other keys, origins, hosts, deadline, drain times and body_bytes from cfg; the rest of it is not
 * read. When it returns every request to come is judged by them; what runs goes on. One thread at a
 * time, not the loop's, between open and close.
 */
void cp_server_change(cp_server *s, const cp_server_config *cfg);
/*
 * What the probes and /metrics say while loading, and /admin/models of the model x (NULL: of none):
 * a static string such as "pulling", and bytes done, bytes in all (0: not known) and bytes a
 * second; a phase that counts no bytes gives 0 for all three. Any one thread at a time.
 */
void cp_server_phase(cp_server *s, cp_served *x, const char *phase, uint64_t done, uint64_t total,
                     uint64_t rate);
/*
 * A model's way through the server; any thread, also while requests are served. reserve takes the
 * names it will answer to (the first is its id) and tells requests for it to come again:
 * CP_INVALID_VALUE for a name that is taken, CP_OVERLOADED above 64 models. publish: it takes
 * requests; CP_INTERNAL when the engine does not know it. unload: it is refused with
 * CP_MODEL_NOT_FOUND, what has begun goes on, until end_ns (cp_now_ns() time; 0: to its end).
 * forget, of a model that is not published or was unloaded: waits until no call needs it and gives
 * its names back; neither on the loop's thread nor in a job.
 */
cp_code cp_server_reserve_model(cp_server *s, const char *const *ids, size_t n_ids, cp_served **out,
                                cp_err *err);
cp_code cp_server_publish_model(cp_server *s, cp_served *x, const cp_server_model *m, cp_err *err);
void cp_server_unload_model(cp_server *s, cp_served *x, int64_t end_ns);
void cp_server_forget_model(cp_server *s, cp_served *x);
/* From now on /metrics has this model's metrics, which are borrowed until it is forgotten: zeroes
 * while it is loaded. NULL for x is fine. Any thread. */
void cp_server_count_model(cp_served *x, cp_metrics *metrics);
/*
 * Several models at once, between two requests. shadow is reserve for a model that has none of its
 * names yet (others may have them), and that is LOADING, published or not, until a move brings it.
 */
typedef struct cp_server_move {
    cp_served *row;
    bool goes; /* as by cp_server_unload_model, without an end; else it is brought, or stays */
    const char *const *ids; /* its names from now on; the first is its id */
    size_t n_ids;
    const cp_sampling_defaults *defaults; /* from now on; NULL: as they are */
} cp_server_move;
cp_code cp_server_shadow_model(cp_server *s, const char *const *ids, size_t n_ids, cp_served **out,
                               cp_err *err);
/* All of the moves, or none: CP_USAGE for a name that two would have. Models that go lose the names
 * that others take. Those that do not go stand in this order in front of all others. dry: nothing
 * moves. Any thread. */
cp_code cp_server_move_models(cp_server *s, const cp_server_move *moves, size_t n, bool dry,
                              cp_err *err);
/* Of models of this name that are being unloaded: what has begun ends at end_ns, unless it ends
 * sooner. Nothing, where there is none. Any thread. */
void cp_server_hasten(cp_server *s, const char *name, int64_t end_ns);

/* Who loads models for clients (server/host.h): before cp_server_ready; copied. Without one nobody
 * does. */
struct cp_server_host;
void cp_server_set_host(cp_server *s, const struct cp_server_host *host);
/* All models of the start are there: requests are taken, and /readyz is 200 while one is published.
 * Any thread. */
void cp_server_ready(cp_server *s);

/* First SIGTERM: /readyz 503 at once, the grace begins. Any thread. */
void cp_server_drain_begin(cp_server *s);
/* Second SIGTERM: what runs gets its error event now. Any thread. */
void cp_server_drain_now(cp_server *s);
/* True once draining is over; *clean then says whether every request ended by itself. Any thread;
 * the caller polls. */
bool cp_server_drain_poll(const cp_server *s, bool *clean);
/* Requests that the engine still refers to or a client still waits for. Any thread. */
int cp_server_active(const cp_server *s);

/*
 * Stop the loop thread and free. Whatever is left is cancelled, its clients get an error, jobs are
 * waited for, and the engine loses its front. The order at the end of a process: stop the engine's
 * thread (what runs ends with an error, for which the server must still be there), close the
 * server, close the jobs and the engine. An engine that still runs is given a second to let go of
 * its requests; the memory of those that it keeps is left alone for good. NULL is fine.
 */
void cp_server_close(cp_server *s);

#endif
