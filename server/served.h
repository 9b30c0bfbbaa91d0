/*
 * served: what the server serves, by name; the one place where a model is looked up.
 *
 * A cp_served_table is owned by the server. One thread adds, any thread reads: a row is written
 * before the count that shows it (release and acquire), and stays as it is until cp_served_fini.
 * Names are compared byte by byte; each belongs to one model.
 */
#ifndef CP_SERVER_SERVED_H
#define CP_SERVER_SERVED_H

#include "server/server.h"

enum { CP_SERVED_MAX = 64 };

typedef struct cp_served {
    char **ids; /* the first is its id */
    size_t n_ids;
    const cp_tokenizer *tokenizer;
    const cp_template *template_; /* NULL: none */
    char *digest, *quantization, *fingerprint;
    cp_sampling_defaults defaults;
    cp_engine_limits limits;
    cp_resident *engine;
    int64_t created;
    cp_metrics *metrics; /* NULL: none */
} cp_served;

typedef struct cp_served_table {
    cp_served *list[CP_SERVED_MAX];
    _Atomic int n;
} cp_served_table;

/* Errors as cp_server_add_model's. */
cp_code cp_served_add(cp_served_table *t, const cp_server_model *m, const cp_engine_api *e,
                      cp_err *err);
/* The model of this name, name[n]; NULL: none. */
cp_served *cp_served_find(const cp_served_table *t, const char *name, size_t n);
/* Model i in the order of their coming; NULL past the end. 0 is the one that requests without a
 * name get. */
cp_served *cp_served_at(const cp_served_table *t, int i);
void cp_served_fini(cp_served_table *t);

#endif
