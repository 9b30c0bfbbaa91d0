/*
 * Results that nobody measured, for tests of the report: made by a fixed sequence, the same ones
 * every time. A made result belongs to its maker's caller, until made_free.
 */
#ifndef TEST_LOAD_MADE_H
#define TEST_LOAD_MADE_H

#include "bench/load/report.h"

typedef enum made_kind {
    MADE_NOTHING, /* no run */
    MADE_EMPTY,   /* a run without a request: every figure NAN */
    MADE_ONE,     /* one request */
    MADE_USUAL,   /* 400 requests in a minute, every outcome */
    MADE_HOSTILE, /* the same, and every string wants to be more than text */
    MADE_MANY,    /* 100,000 requests in an hour */
    MADE_SWEEP,   /* nine rates, the last three beyond what the server holds */
    MADE_KINDS
} made_kind;

/* For names of files: "nothing", "empty" ... */
extern const char *const made_names[MADE_KINDS];
cp_load_result *made_new(made_kind kind);
void made_free(cp_load_result *r);

#endif
