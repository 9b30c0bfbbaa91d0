/*
 * rows: the list of models behind app/models.h, for the files that load, unload and reload them.
 *
 * A row belongs to one thread until its model serves (its loader's), and from the moment it leaves
 * (who has set `leaving`). Private to app/models.c and app/models_reload.c.
 */
#ifndef CP_APP_ROWS_H
#define CP_APP_ROWS_H

#include "app/compose.h"
#include "app/load_clock.h"
#include "server/server.h"

#include <pthread.h>
#include <stdatomic.h>

enum { CP_APP_NAMES_BYTES = 16 << 20 /* of a model's options, which may have 1,024 names */ };

typedef struct cp_app_models cp_app_models; /* of app/models.h */

/* A model of the list. */
typedef struct cp_app_row {
    struct cp_app_row *next;
    uint64_t serial; /* tells it from one that comes to lie where it lay */
    char *ref;
    bool configured; /* options or file name it; else a client has asked for it */
    cp_app_model m;
    cp_served *served;
    cp_metrics *metrics;
    cp_load_clock clock;
    uint64_t kv_bytes;
    int device;          /* of the stack's */
    _Atomic bool cancel; /* the load is to end */
    /* Its loader's; guarded by the list's lock from when it serves. */
    cp_model_options mo; /* filled */
    cp_arena *arena;     /* of mo's strings */
    /* Guarded by the list's lock. One thread takes a row apart: its loader, while it is loading, or
     * the one that has set `leaving`. */
    bool loading, leaving;
    bool shadow; /* it waits to take its place in a move: nobody finds it by a name */
} cp_app_row;

struct cp_app_models {
    const cp_options *o; /* guarded by turn */
    cp_stack *stack;
    cp_server *server;
    pthread_mutex_t turn;     /* one load at a time */
    int expected[CP_DEVICES]; /* loads to come that say no kv_bytes; guarded by turn */
    pthread_mutex_t lock;     /* guards what follows; never held over anything that takes long */
    pthread_cond_t change;
    cp_app_row *list;
    uint64_t rows;
    bool ending; /* nothing is loaded any more */
};

/* The names of a model's options: its aliases, else its ref. */
static inline const char *const *cp_app_names(const cp_model_options *mo, size_t *n)
{
    *n = mo->alias.n ? (size_t)mo->alias.n : 1;
    return mo->alias.n ? (const char *const *)mo->alias.p : (const char *const *)&mo->ref;
}

/* The model's id. */
static inline const char *cp_app_id(const cp_model_options *mo)
{
    return mo->alias.n ? mo->alias.p[0] : mo->ref;
}

/* A copy of mo, in no list yet. NULL: there are too many names. */
cp_app_row *cp_app_row_new(const cp_model_options *mo, bool configured, cp_err *err);
/* What r is from now on: a copy of mo, which may lie in r. With the list's lock where r is in a
 * list. CP_INVALID_VALUE: there are too many names, and r is what it was. */
cp_code cp_app_row_set(cp_app_row *r, const cp_model_options *mo, cp_err *err);
void cp_app_row_free(cp_app_row *r); /* in no list, and nothing of it is anywhere else */
void cp_app_row_add(cp_app_models *ms, cp_app_row *r);
/* In its turn, with the options o (NULL: those of the list); a shadow is LOADING afterwards. On an
 * error the row has gone. */
cp_code cp_app_row_load(cp_app_models *ms, cp_app_row *r, const cp_options *o, uint64_t kv_bytes,
                        cp_err *err);
/* Take apart what is `leaving`, or failed to load: end_ns as for cp_server_unload_model. */
void cp_app_row_end(cp_app_models *ms, cp_app_row *r, int64_t end_ns);
/* The sampling of its requests that say nothing, by these options. */
cp_sampling_defaults cp_app_row_defaults(const cp_app_row *r, const cp_options *o,
                                         const cp_model_options *mo);

#endif
