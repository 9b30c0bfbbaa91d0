/*
 * A scripted HTTP server on loopback for tests: one thread, a connection a request, answers by a
 * handler. Owned by the test; the handler runs on the server's thread and is alone there.
 */
#ifndef CP_TESTS_LOADER_NET_WIRE_H
#define CP_TESTS_LOADER_NET_WIRE_H

#include <stdbool.h>
#include <stddef.h>

enum { WIRE_HEAD = 8192, WIRE_BODY = 4096, WIRE_LOG = 64 << 10 };

typedef struct wire_request {
    char method[8], path[2048];
    char head[WIRE_HEAD]; /* header lines */
    char body[WIRE_BODY];
    int fd;    /* to answer on; closed afterwards */
    int count; /* requests before this one */
} wire_request;

typedef struct wire wire;
typedef void wire_handler(void *arg, const wire_request *q);
wire *wire_start(wire_handler *handler, void *arg);
void wire_stop(wire *w);
int wire_port(const wire *w);
/* What was asked so far: a line "METHOD PATH|RANGE|AUTHORIZATION" each. Copies. */
void wire_log(wire *w, char out[WIRE_LOG]);
int wire_count(wire *w);

/* A header's value, "" when absent. */
void wire_header(const wire_request *q, const char *name, char *out, size_t cap);
/* Status line, `headers` ("Name: value\r\n" each), Content-Length, body. */
void wire_answer(const wire_request *q, int status, const char *headers, const void *body,
                 size_t n);
/* The head as above for n bytes, of which only the first k are sent. */
void wire_cut(const wire_request *q, int status, const char *headers, const void *body, size_t n,
              size_t k);
void wire_raw(const wire_request *q, const void *p, size_t n);
/* First and last of "Range: bytes=F-L"; false: no Range header. */
bool wire_range(const wire_request *q, size_t *first, size_t *last);

#endif
