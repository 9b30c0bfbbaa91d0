/*
 * cp_load_client: HTTP/1.1 to one server, many exchanges at once, on one thread and one epoll set.
 *
 * A call is the caller's: he fills it in, starts it, gets its bytes and its end through its
 * functions, and may start it again from its end. Its memory and the body that it sends stay where
 * they are until then. Connections are kept and used again; no proxy of the environment is asked,
 * no redirect followed. It hides libcurl.
 */
#ifndef CP_BENCH_LOAD_CLIENT_H
#define CP_BENCH_LOAD_CLIENT_H

#include "base/code.h"
#include "bench/load/stream.h"

#include <stdbool.h>
#include <stdint.h>

enum { CP_LOAD_PROBLEM_MAX = 256, CP_LOAD_HEAD_MAX = 64 << 10 };

typedef struct cp_load_client cp_load_client;
typedef struct cp_load_call cp_load_call;

struct cp_load_call {
    const char *path; /* behind the server's address: "/v1/chat/completions" */
    const char *body; /* JSON to POST; NULL: GET */
    size_t n_body;
    int64_t timeout_ms;
    /* Bytes of the body of the answer, and when they came; false: enough, stop. */
    bool (*data)(cp_load_call *c, const char *p, size_t n, int64_t now_ns);
    /* It is over; nothing refers to the call any more. */
    void (*end)(cp_load_call *c, cp_load_ending how, int64_t now_ns);
    void *arg;
    /* Out. */
    int64_t sent_ns;
    int status;                        /* 0: there was no answer */
    bool events;                       /* it is text/event-stream */
    bool tls, refused_name;            /* why there was none: TLS, the name is not known */
    char server[64];                   /* its Server header */
    char problem[CP_LOAD_PROBLEM_MAX]; /* what broke, in words */
    /* The client's. */
    void *easy;
    cp_load_client *client;
    size_t head_bytes;
    bool running, too_much;
    char error[256];
};

/*
 * url: "http://host[:port]" or https, "/" and "/v1" behind it are the same (paths bring their own).
 * calls: how many are out at once at most. interrupt_fd: watched by cp_load_client_wait; -1: none.
 * CP_USAGE: the URL or the key cannot be used.
 */
cp_code cp_load_client_open(cp_load_client **out, const char *url, const char *api_key,
                            const char *ca_pem, size_t n_ca_pem, int calls, int interrupt_fd,
                            cp_err *err);
/* No call may be out. */
void cp_load_client_close(cp_load_client *c);

void cp_load_client_start(cp_load_client *c, cp_load_call *call);
/* Its end comes before this returns. */
void cp_load_client_cancel(cp_load_client *c, cp_load_call *call);
/* Free what the client keeps for a call that is not out. */
void cp_load_call_fini(cp_load_call *call);
/* Let things happen until something did, or this time (cp_now_ns) has come. True: interrupt_fd is
 * readable. */
bool cp_load_client_wait(cp_load_client *c, int64_t until_ns);
/* The time as this turn sees it: taken when the kernel said what had come. */
int64_t cp_load_client_now(const cp_load_client *c);
/* The address without a trailing "/" or "/v1", as paths are put behind it. */
const char *cp_load_client_url(const cp_load_client *c);

#endif
