/*
 * models: the models that a process serves, from their files to their names.
 *
 * A cp_app_models brings models into the engine and the server and takes them out again, beside
 * whatever is served: file, tokenizer, template, program, pages, names. Loads run one after another
 * on their callers' threads; a call returns when its model serves, or is gone with all its memory.
 * Any thread but the engine's, the server's loop and its jobs. Owned by the command, which waits
 * for all loads and unloads to return, closes engine and server, and then frees what is still
 * loaded with cp_app_models_free.
 */
#ifndef CP_APP_MODELS_H
#define CP_APP_MODELS_H

#include "app/compose.h"
#include "app/orders.h"
#include "server/server.h"

typedef struct cp_app_models cp_app_models;

/* All borrowed. */
cp_app_models *cp_app_models_new(const cp_options *o, cp_stack *stack, cp_server *server);
/* No load and no unload may be under way (asserted: both would go on in a closed engine). NULL is
 * fine. */
void cp_app_models_free(cp_app_models *ms);
/* The process ends: loads that are under way end at their next stop, and none is begun any more
 * (CP_OVERLOADED). Any thread. */
void cp_app_models_end(cp_app_models *ms);
/* On each device n[i] models that say no kv_bytes will be loaded: the first shares what the backend
 * can give with the others, and so on. Before the first load. */
void cp_app_models_expect(cp_app_models *ms, const int n[CP_DEVICES]);
/*
 * Load mo, whose strings are copied, and serve it; what it leaves open the options fill. kv_bytes
 * 0: what --kv-bytes leaves, where it was given, else what the backend can give beside this model
 * now. configured: the options name it, so that a reload may change it. Errors are those of file,
 * tokenizer, program and engine, CP_INVALID_VALUE for a name that is taken, CP_CANCELLED when it
 * was unloaded meanwhile; nothing is left of it then.
 */
cp_code cp_app_models_load(cp_app_models *ms, const cp_model_options *mo, uint64_t kv_bytes,
                           bool configured, cp_err *err);
/*
 * Unload the model of this name. From now on requests for it are refused; what has begun has
 * drain_ms (0: as long as it takes) and then ends with an error. A load ends at its next stop. Who
 * unloads what is being unloaded already waits for its end, too, and may bring it nearer.
 * CP_MODEL_NOT_FOUND.
 */
cp_code cp_app_models_unload(cp_app_models *ms, const char *name, int64_t drain_ms, cp_err *err);

/*
 * Bring the configured models to what o says: new ones come, gone ones go, those that say another
 * thing of how they are loaded are loaded anew beside the ones that serve, and take their places;
 * names, sampling and --step-ms change in place. kv_bytes[o->n_models] as for cp_app_models_load.
 * Returns when all of it counts; what goes is drained by orders, as long as its requests take. On
 * an error nothing has changed, CP_USAGE for names that do not go together. o counts for later
 * loads, so it must outlive them, or the next reload. One at a time.
 */
typedef struct cp_app_changes {
    int fresh, anew, touched, gone; /* models */
} cp_app_changes;
cp_code cp_app_models_reload(cp_app_models *ms, const cp_options *o, const uint64_t *kv_bytes,
                             cp_orders *orders, cp_app_changes *out, cp_err *err);

#endif
