/*
 * audit: a line of JSON a request says who asked for what, and what it cost (--audit-log).
 *
 * It never holds any text of a request or of an answer, nor a key: a key is named by the beginning
 * of its SHA-256. Requests that need no key (probes) have no line. Loop thread.
 *
 *   {"time":"2026-01-31T12:00:00.123Z","key":"sha256:0123456789ab","client":"10.0.0.7:41022",
 *    "route":"/v1/chat/completions","id":"req-1","method":"POST","status":200,"ms":81.0,"bytes":912,
 *    "model":"m","stream":true,"prompt_tokens":9,"cached_tokens":0,"completion_tokens":4,
 *    "ttft_ms":20.5,"finish_reasons":{"stop":1}}
 */
#ifndef CP_SERVER_AUDIT_H
#define CP_SERVER_AUDIT_H

#include "server/call.h"

/* The exchange is over; c->q is still there. */
void cp_audit(const cp_call *c);

#endif
