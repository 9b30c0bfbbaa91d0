/*
 * exchange: one request and its answer, below the connection that carries it.
 *
 * http_types.h has the states of an exchange. What the front end does to one (http.h) is
 * implemented here, too: it is noted, and the connection is put on the list of those to pump. All
 * functions run on the loop thread.
 */
#ifndef CP_SERVER_EXCHANGE_H
#define CP_SERVER_EXCHANGE_H

#include "server/http_types.h"

/* A head of n_head bytes of c->in (0: it is malformed) becomes c->req. NULL: there is no room.
 * Where the library does not take it the connection is broken. */
cp_http_req *cp_exchange_begin(cp_http *h, cp_conn *c, size_t n_head);
/* hooks.done, and it is gone. */
void cp_exchange_end(cp_http *h, cp_conn *c);
/* The client is not there any more: the front end hears of it when it still works on the answer. */
void cp_exchange_left(cp_http_req *q);

/* Use what c->in holds of the body; the front end is called at its end. */
void cp_exchange_read(cp_http *h, cp_conn *c);
bool cp_exchange_complete(const cp_http_req *q);
/* It was answered at its head: what comes of its body is dropped. */
void cp_exchange_refuse(cp_http_req *q);
/* There is no more of its body to come. */
void cp_exchange_over(cp_http_req *q);
/* Nothing more is read of the body: it is answered now, and the connection closes. */
void cp_exchange_cut(cp_conn *c);
/* The body cannot go on: refuse with this status what is not refused yet. */
void cp_exchange_spoil(cp_http *h, cp_conn *c, int status);

/* The stream's last byte is in the wire. */
void cp_exchange_sent(cp_http_req *q);
/* Does somebody still work on the answer? */
bool cp_exchange_waits(const cp_http_req *q);

#endif
