/*
 * served: knows what the server serves, by name. Models are looked up here and nowhere else.
 *
 * A row is a counted reference: a call that has found its model holds it until its answer is made,
 * and the one who brought the model waits in cp_served_forget until nobody does. The states are the
 * engine's words: LOADING (the names are taken, requests are told to come again), READY, DRAINING
 * (new requests are refused; what has begun goes on), GONE (out of the table). Any thread may call
 * any function. Names are compared byte by byte, and each belongs to one model; a row that is to
 * take another's place has none until the move in which that one loses its own.
 */
#ifndef CP_SERVER_SERVED_H
#define CP_SERVER_SERVED_H

#include "server/server.h"

#include <pthread.h>

enum { CP_SERVED_MAX = 64 };

/* Beside 1 << CP_MODEL_x for cp_served_all: rows without a name, too. */
enum { CP_SERVED_HIDDEN = 1 << 8 };

struct cp_served {
    char *id; /* the first of its names, for good */
    /* written before it is READY */
    const cp_tokenizer *tokenizer;
    cp_templates templates; /* borrowed */
    char *ref, *digest, *quantization, *fingerprint;
    uint64_t kv_bytes;
    cp_engine_limits limits;
    cp_resident *engine;
    int64_t created;
    _Atomic(cp_metrics *) metrics; /* borrowed; NULL: none */
    /* of its load; each value is exact, together they may be of two moments */
    _Atomic(const char *) phase; /* NULL: it waits for its turn */
    _Atomic uint64_t load_done, load_total, load_rate;
    /* guarded by the table's lock */
    cp_model_state state;
    char **names; /* that it answers to, its id the first */
    size_t n_names;
    bool hidden; /* nobody finds it by a name: it waits to take another's place, or has lost its own
                  */
    bool staged; /* hidden and LOADING: published, and waits for its move */
    cp_sampling_defaults defaults;
    int64_t end_ns;    /* of a drain; 0: none */
    int refs;          /* without the table's own */
    struct cp_meter {  /* the server's loop's: see meter.h */
        int64_t rows;  /* computed, at the last reading */
        double uj;     /* what they took, microjoules */
        double row_uj; /* a row, in the last interval that had any; 0: none had */
    } meter;
};

typedef struct cp_served_table {
    pthread_mutex_t lock;           /* guards what follows, and the rows' last fields */
    pthread_cond_t put;             /* a row's last reference went */
    cp_served *list[CP_SERVED_MAX]; /* in the order of their coming */
    int n;
} cp_served_table;

void cp_served_init(cp_served_table *t);
void cp_served_fini(cp_served_table *t); /* nobody holds a row; frees those that are left */

/* The functions of server.h, in short. */
cp_code cp_served_reserve(cp_served_table *t, const char *const *ids, size_t n_ids, cp_served **out,
                          cp_err *err);
cp_code cp_served_shadow(cp_served_table *t, const char *const *ids, size_t n_ids, cp_served **out,
                         cp_err *err);
cp_code cp_served_move(cp_served_table *t, const cp_server_move *moves, size_t n, bool dry,
                       cp_err *err);
cp_code cp_served_publish(cp_served_table *t, cp_served *m, const cp_server_model *cfg,
                          const cp_engine_api *e, cp_err *err);
void cp_served_unload(cp_served_table *t, cp_served *m, int64_t end_ns);
void cp_served_forget(cp_served_table *t, cp_served *m);
void cp_served_hasten(cp_served_table *t, const char *name, int64_t end_ns);
void cp_served_phase(cp_served *m, const char *phase, uint64_t done, uint64_t total, uint64_t rate);
cp_model_state cp_served_state(cp_served_table *t, const cp_served *m);

/* A reference to the READY model of this name, name[n], or to the first one (NULL). Else why there
 * is none: CP_LOADING, or CP_MODEL_NOT_FOUND with words. */
cp_code cp_served_get(cp_served_table *t, const char *name, size_t n, cp_served **out, cp_err *err);
void cp_served_put(cp_served_table *t, cp_served *m); /* NULL is fine */
/* References to the models in these states (1 << CP_MODEL_x | ...), in the order of the table;
 * returns how many. */
int cp_served_all(cp_served_table *t, unsigned states, cp_served *list[CP_SERVED_MAX]);
void cp_served_put_all(cp_served_table *t, cp_served *const *list, int n);
/* The sampling that m has where a request says nothing; all of its names, to be freed by
 * cp_served_names_free. */
void cp_served_defaults(cp_served_table *t, const cp_served *m, cp_sampling_defaults *out);
char **cp_served_names(cp_served_table *t, const cp_served *m, size_t *n);
void cp_served_names_free(char **names, size_t n);
/* Whether m's time is over: what is left of its calls is to be cut. */
bool cp_served_is_over(cp_served_table *t, const cp_served *m, int64_t now_ns);
/* A model takes requests. */
bool cp_served_any(cp_served_table *t);

#endif
