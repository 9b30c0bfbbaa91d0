/*
 * What the fake server of tests/fakes/llm_server.c is told to do: its options.
 *
 * A plan is plain data, filled once by fake_plan_parse from the command line and read by the one
 * thread of the program. Delays are drawn by index, never by chance: the same plan gives the same
 * delays to the n-th request whatever else happens.
 */
#ifndef CP_TESTS_FAKES_LLM_PLAN_H
#define CP_TESTS_FAKES_LLM_PLAN_H

#include <stdbool.h>
#include <stdint.h>

enum { FAKE_VALUES = 64, FAKE_FAULTS = 32 };

/* `200` always; `100,200,300` in turn; `20:400@0.1` 400 for one draw in ten (by a hash of the
 * index), 20 for the others. */
typedef struct fake_dist {
    double value[FAKE_VALUES];
    int n;
    double share; /* of the second value; 0: values in turn */
} fake_dist;

typedef enum fake_kind {
    FAKE_NONE,
    FAKE_STATUS, /* refused with an HTTP status; 429 and 503 have Retry-After */
    FAKE_RST,    /* the connection is reset mid-stream */
    FAKE_FIN,    /* closed mid-stream, in the middle of the chunked body */
    FAKE_ERROR,  /* an error event mid-stream, and no [DONE] */
    FAKE_NODONE, /* all tokens, the body ends as HTTP wants it, and no [DONE] */
    FAKE_NEVER,  /* nothing is ever answered */
} fake_kind;

/* `KIND@N`, `KIND@N+M`, either with `:T`: the n-th request that generates, and each M-th after it;
 * streams are cut after T tokens (half of them where it is not said). */
typedef struct fake_fault {
    fake_kind kind;
    int status;
    uint64_t first, every;
    int tokens; /* -1: half */
} fake_fault;

typedef struct fake_plan {
    fake_dist ttft, gap; /* ms; gap: between chunks */
    fake_dist tokens;    /* n == 0: as many as the request asks for, else 16 */
    int per_chunk;       /* tokens in a chunk */
    bool role_late; /* the role chunk comes with the first token, else when the service begins */
    int concurrent; /* served at a time; 0: all. Others wait, first come, first served */
    double rate;    /* begun a second; 0: no limit */
    double stall_every; /* ms from the first request on; 0: never */
    double stall_for;   /* ms: nothing is sent in the last stall_for of each stall_every */
    fake_fault fault[FAKE_FAULTS];
    int n_faults;
    const char *metrics;        /* vllm, capstan, llamacpp, none */
    const char *model, *server; /* the id in /v1/models, the Server header */
    const char *key;            /* wanted as bearer; NULL: open */
    const char *log;            /* path, or NULL */
    double seconds;             /* life at most */
    int connections;            /* at a time; more are closed at once */
} fake_plan;

/* False: an option was wrong, stderr says which. */
bool fake_plan_parse(fake_plan *p, int argc, char **argv);

/* The value of a distribution for draw i. */
double fake_draw(const fake_dist *d, uint64_t i);

/* The fault of the n-th request (from 1), or NULL. */
const fake_fault *fake_fault_of(const fake_plan *p, uint64_t n);

/* t, or the end of the stall in which it lies; both ns from the first request on. */
int64_t fake_after_stall(const fake_plan *p, int64_t t);

#endif
