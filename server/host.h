/*
 * host: who loads and unloads models when a client of the server asks for it.
 *
 * The server has no models of its own: it calls this table of functions, which its user fills
 * (cp_server_set_host). load and unload return when it is done, and are called on a thread that
 * `run` has given. All three may be called by any thread, until the server is closed.
 */
#ifndef CP_SERVER_HOST_H
#define CP_SERVER_HOST_H

#include "base/options.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct cp_server_host {
    void *self;
    /* Call fn(arg) on a thread of its own. False: too many run already, or the process ends. */
    bool (*run)(void *self, void (*fn)(void *arg), void *arg);
    /* mo says what its `given` names; the rest is the host's to fill. Errors are those of a client
     * where the client is to blame; words are shown to it, whatever the code. */
    cp_code (*load)(void *self, const cp_model_options *mo, cp_err *err);
    /* drain_ms 0: what has begun goes on to its end. CP_MODEL_NOT_FOUND. */
    cp_code (*unload)(void *self, const char *name, int64_t drain_ms, cp_err *err);
} cp_server_host;

#endif
