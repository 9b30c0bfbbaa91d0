/*
 * mhd: this is the one door to libmicrohttpd, which reads requests' heads and writes answers.
 *
 * A cp_mhd is one daemon without threads or sockets of its own; a cp_mhd_link is one connection of
 * it, whose other end is ours: what is written into it are heads that have been read strictly
 * before (head.h), what is read out of it are answers. One request of a link is under way at a
 * time. Everything belongs to the thread of the HTTP loop. Hidden: libmicrohttpd's types and its
 * rules about suspended connections.
 */
#ifndef CP_SERVER_MHD_H
#define CP_SERVER_MHD_H

#include "base/code.h"

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

typedef struct cp_mhd cp_mhd;
typedef struct cp_mhd_link cp_mhd_link;

enum { CP_MHD_LINK_FDS = 2 }; /* descriptors that a link takes */

typedef struct cp_mhd_header {
    char name[40];
    char value[216];
} cp_mhd_header;

typedef struct cp_mhd_answer {
    int status;
    const char *content_type; /* NULL: none */
    const cp_mhd_header *headers;
    int n_headers;
    const char *body; /* [n_body], must stay until the answer is over */
    size_t n_body;
    bool stream; /* no body; the caller sends it between cp_mhd_at_body and cp_mhd_stream_end */
    bool close;  /* the connection ends with this answer */
} cp_mhd_answer;

/* At most max_links at a time. CP_IO: the library does not start. */
cp_code cp_mhd_open(cp_mhd **out, unsigned max_links, cp_err *err);
void cp_mhd_close(cp_mhd *m); /* all links are closed; NULL is fine */

/* NULL: no descriptors or no memory; the reason is logged. */
cp_mhd_link *cp_mhd_link_open(cp_mhd *m);
/* Whatever is under way ends; an answer's body is not read any more. NULL is fine. */
void cp_mhd_link_close(cp_mhd_link *l);

/* A request begins. head[n] is a whole, well-formed head without a body. False: the library refuses
 * it, and the link is of no use any more. */
bool cp_mhd_request(cp_mhd_link *l, const char *head, size_t n);
/* First value of a header of the request under way, any case; NULL: absent. Valid until it ends. */
const char *cp_mhd_request_header(const cp_mhd_link *l, const char *name);
/* Answer it, once. False: no memory, or the library has given the request up; the link is of no use
 * any more. */
bool cp_mhd_answer_begin(cp_mhd_link *l, const cp_mhd_answer *a);
/* Up to n bytes that are to be sent to the client next; 0: none at present. */
size_t cp_mhd_read(cp_mhd_link *l, char *p, size_t n);
/* A stream's head has been read: its body comes now. */
bool cp_mhd_at_body(const cp_mhd_link *l);
/* The stream's body is sent: what the coding wants behind it can be read. */
void cp_mhd_stream_end(cp_mhd_link *l);
/* Everything of the answer has been read. */
bool cp_mhd_answer_over(const cp_mhd_link *l);

#endif
