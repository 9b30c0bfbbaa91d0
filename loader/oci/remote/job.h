/*
 * One request to a registry in the making: a manifest, or a range of a blob, until it is done.
 *
 * A job makes attempts (one HTTP exchange each). An attempt's answer ends the job, sends it
 * elsewhere (a redirect, the next endpoint), or makes it wait (back-off). What all jobs share is
 * the cp_registry that owns them; one thread. Internal: job.c has a job's life and its retries,
 * scheme.c finds out about TLS, answers.c judges answers, registry.c starts attempts and drives
 * them.
 */
#ifndef CP_LOADER_OCI_REMOTE_JOB_H
#define CP_LOADER_OCI_REMOTE_JOB_H

#include "base/digest.h"
#include "loader/oci/remote/client.h"
#include "loader/oci/remote/endpoint.h"
#include "loader/oci/remote/redirects.h"
#include "loader/oci/remote/request.h"
#include "loader/oci/remote/token.h"

typedef enum cp_job_kind { CP_JOB_MANIFEST, CP_JOB_BLOB } cp_job_kind;

typedef struct cp_job {
    struct cp_job *next;
    cp_registry *r;
    uint64_t serial;

    /* what is asked for */
    cp_job_kind kind;
    char what[CP_REF_NAME_MAX]; /* tag or digest */
    cp_fetch *fetch;            /* CP_JOB_BLOB */
    cp_buf *body;               /* CP_JOB_MANIFEST */
    char *media_type;           /* likewise, [128] */

    /* how far it is */
    uint64_t sent; /* bytes delivered */
    uint64_t mark; /* `sent` when the tries began to count */
    bool whole;    /* no endpoint gives the rest of the blob: the whole, without Range */

    /* whom it asks, and the attempt */
    size_t first, endpoint; /* indexes: where it began at the earliest, and where it is */
    cp_exchange x;
    bool running;
    char url[CP_URL_MAX]; /* "" = to be made from the endpoint */
    bool foreign;         /* url is not the endpoint's own: no credentials */
    bool was_https;       /* the attempt's scheme, for finding it out */
    bool judged;          /* its headers were */
    int hops;
    uint64_t skip;       /* of its body, delivered before */
    unsigned generation; /* of the endpoint's token, when it began */

    /* what it has cost so far at this endpoint */
    struct {
        int retries, resolved_again, denials;
        int64_t waited_ms;
    } spent;
    int64_t due_ms; /* when to go on */

    /* how it ends */
    cp_code code;
    cp_err err;
    bool final;    /* code comes from the caller's callback: no other endpoint helps */
    bool finished; /* a manifest's, until its caller has seen it */
} cp_job;

struct cp_registry {
    cp_registry_options opt;
    char name[2 * CP_REF_NAME_MAX];
    char host[CP_HOST_MAX + 8]; /* who answered last */
    cp_endpoint endpoint[CP_ENDPOINTS_MAX];
    bool dead[CP_ENDPOINTS_MAX];             /* mirrors that could not be reached */
    bool rangeless[CP_ENDPOINTS_MAX];        /* who refused a range: no more are asked for there */
    size_t n_endpoints;                      /* the last one is the upstream */
    cp_token_fetch *token[CP_ENDPOINTS_MAX]; /* NULL: not needed yet */
    cp_buf authorization;                    /* of the attempt that is being started */
    cp_client *http;
    cp_job *jobs;
    cp_redirects redirects;
    int n_running, n_ended; /* attempts running; jobs ended in this step */
    uint64_t random, serial;
};

int64_t cp_job_now_ms(void);
cp_endpoint *cp_job_endpoint(const cp_job *j);
/* Is a whole blob asked for? */
bool cp_job_wants_whole(const cp_job *j);

/* A job that begins at the first endpoint that may have it; not in r->jobs yet. f: a blob's, else
 * NULL. */
cp_job *cp_job_new(cp_registry *r, cp_job_kind kind, const char *what, cp_fetch *f);
/* Is there another endpoint that it can be asked for after this one? */
bool cp_job_has_next(const cp_job *j);
/* Out of r->jobs, its attempt cancelled. */
void cp_job_free(cp_job *j);
/* Note why it fails: "registry/repository: blob sha256:...: <fmt>". */
void cp_job_fail(cp_job *j, cp_code code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* Ask the endpoint once more, from the beginning, in wait_ms. */
void cp_job_restart(cp_job *j, int64_t wait_ms);
/* Wait and ask again, or give up. retry_after_s: -1 none. */
void cp_job_retry(cp_job *j, const char *why, int64_t retry_after_s);
/* What cp_job_fail noted stands: ask the next endpoint, or end. CP_UNSUPPORTED is a range that the
 * endpoint does not give: it ends so only where nobody gives it, and somebody may give the whole. j
 * may be gone afterwards. */
void cp_job_give_up(cp_job *j);
/* The job's end: a blob's is reported (`done`, which may start and cancel others) and gone, a
 * manifest's waits for its caller. */
void cp_job_end(cp_job *j);

#endif
