/*
 * pull, verify, gc: pull reaches out to a registry, the others look after the store. `pull` is also
 * what other commands start as a child process (--progress-fd): then it says how far it is through
 * that descriptor, and does not outlive its parent.
 */
#include "app/command.h"
#include "app/compose.h"
#include "app/emit_json.h"
#include "app/progress.h"
#include "loader/oci/pull.h"
#include "loader/oci/reference.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

/* Lines for the parent. When it is gone, SIGPIPE or the death signal ends this process. */
static void write_watch(void *arg, const char *phase, uint64_t done, uint64_t total, uint64_t rate)
{
    (void)rate;
    dprintf(*(const int *)arg, "%s %" PRIu64 " %" PRIu64 "\n", phase, done, total);
}

/* Tie this process to the one that reads fd. */
static cp_code follow_parent(int fd, cp_err *err)
{
    if (fcntl(fd, F_SETFD, FD_CLOEXEC) != 0) { /* credential helpers do not get it */
        return cp_fail(err, CP_USAGE, "--progress-fd: descriptor %d: %s", fd, strerror(errno));
    }
    signal(SIGPIPE, SIG_DFL);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    /* It may have died before it was asked for: then nobody reads any more. */
    struct pollfd p = {.fd = fd, .events = POLLOUT};
    if (poll(&p, 1, 0) > 0 && (p.revents & (POLLERR | POLLHUP))) {
        return cp_fail(err, CP_CANCELLED, "nobody reads descriptor %d", fd);
    }
    return CP_OK;
}

static cp_pull_options pull_options(const cp_options *o)
{
    return (cp_pull_options){.loader = cp_app_loader_options(o),
                             .registry = {.mirrors = o->mirror.p,
                                          .n_mirrors = o->mirror.n,
                                          .plain_http = o->plain_http.p,
                                          .n_plain_http = o->plain_http.n,
                                          .ca_file = o->ca_file,
                                          .client_cert = o->client_cert,
                                          .client_key = o->client_key,
                                          .authfile = o->authfile,
                                          .connections = (int)o->connections,
                                          .stall_ms = o->stall_timeout,
                                          .max_retries = (int)o->retries},
                             .store_quota = o->store_quota};
}

int cp_cmd_pull(const cp_options *o)
{
    const char *ref = o->args.p[0];
    cp_pull_options po = pull_options(o);
    if (o->args.n > 1) { /* as KServe calls what initializes its storage */
        po.loader.store = o->args.p[1];
    }
    cp_progress p;
    cp_err err = {0};
    cp_ref parsed;
    char digest[72];
    int fd = (int)o->progress_fd;
    cp_progress_init(&p, ref, fd != 0);
    if (fd) {
        p.watch = write_watch;
        p.watch_arg = &fd;
    }
    cp_code rc = fd ? follow_parent(fd, &err) : CP_OK;
    rc = rc ? rc : cp_ref_parse(&parsed, ref, po.loader.default_registry, NULL, &err);
    if (rc == CP_OK && parsed.kind != CP_REF_NAME) {
        rc = cp_fail(&err, CP_USAGE, "%s is a path; what is pulled is [registry/]name[:tag]", ref);
    }
    if (rc == CP_OK && (rc = cp_pull(&po, ref, cp_progress_report, &p, digest, &err))) {
        cp_app_err_ref(&err, ref);
    }
    cp_progress_end(&p);
    if (rc) {
        return cp_app_fail(&err);
    }
    if (o->json) {
        fputs("{\"name\":", stdout);
        cp_emit_string(stdout, parsed.canonical, strlen(parsed.canonical));
        printf(",\"digest\":\"%s\"}\n", digest);
    } else {
        puts(digest);
    }
    return 0;
}

/* What a start would read first: the head of the weights. Hashes say nothing of it. */
static cp_code check_head(const cp_loader_options *lo, const char *ref, cp_err *err)
{
    cp_store_entry *e;
    cp_code rc = cp_store_inspect(lo, ref, &e, err);
    if (rc == CP_OK) {
        cp_store_entries_free(e, 1);
    }
    return rc;
}

int cp_cmd_verify(const cp_options *o)
{
    cp_loader_options lo = cp_app_loader_options(o);
    cp_progress p;
    cp_err err = {0};
    uint64_t bytes = 0;
    cp_progress_init(&p, o->args.p[0], false);
    cp_code rc = cp_store_verify(&lo, o->args.p[0], cp_progress_report, &p, &bytes, &err);
    rc = rc ? rc : check_head(&lo, o->args.p[0], &err);
    rc = rc ? rc : cp_app_packed_check(o->args.p[0], o, &err);
    cp_progress_end(&p);
    if (rc) {
        return cp_app_fail(&err);
    }
    if (o->json) {
        fputs("{\"name\":", stdout);
        cp_emit_string(stdout, o->args.p[0], strlen(o->args.p[0]));
        printf(",\"bytes\":%" PRIu64 "}\n", bytes);
    } else {
        fprintf(stderr, "%s: %.1f MiB verified\n", o->args.p[0], (double)bytes / 1048576.0);
    }
    return 0;
}

int cp_cmd_gc(const cp_options *o)
{
    cp_loader_options lo = cp_app_loader_options(o);
    cp_gc_result r = {0};
    cp_err err = {0};
    if (cp_store_gc(&lo, o->dry_run, &r, &err)) {
        return cp_app_fail(&err);
    }
    if (o->json) {
        printf("{\"dry_run\":%s,\"blobs\":%" PRIu64 ",\"partials\":%" PRIu64
               ",\"extracted\":%" PRIu64 ",\"cached\":%" PRIu64 ",\"bytes\":%" PRIu64 "}\n",
               o->dry_run ? "true" : "false", r.blobs, r.partials, r.extracted, r.cached, r.bytes);
    } else {
        fprintf(stderr,
                "%s %" PRIu64 " extracted layers, %" PRIu64 " unfinished pulls, %" PRIu64
                " blobs, %" PRIu64 " unused for 30 days: %.1f MiB\n",
                o->dry_run ? "would delete" : "deleted", r.extracted, r.partials, r.blobs, r.cached,
                (double)r.bytes / 1048576.0);
    }
    return 0;
}
