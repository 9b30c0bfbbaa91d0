/*
 * compose: names every module, which no other file does.
 *
 * A cp_stack is the compute side of a process (pool, devices, engine); a cp_app_model is one loaded
 * model with everything the front ends need of it. The command that opened them owns both, and
 * closes models before their stack.
 */
#ifndef CP_APP_COMPOSE_H
#define CP_APP_COMPOSE_H

#include "app/devices.h"
#include "app/opener.h"
#include "base/options.h"
#include "chat/chat.h"
#include "engine/engine.h"
#include "loader/loader.h"
#include "model/model.h"
#include "tokenizer/tokenizer.h"

typedef struct cp_stack {
    cp_pool *pool;
    cp_devices devices;
    cp_engine *engine;
    cp_opener *opener; /* borrowed; NULL: this process opens files itself */
    int threads;
} cp_stack;

typedef struct cp_app_model {
    const char *ref; /* borrowed from the options */
    cp_loaded *file;
    cp_model *model;
    cp_tokenizer *tokenizer;
    cp_templates templates;
    cp_resident *engine; /* the model in the engine; NULL: not added */
    int ctx;
    bool check; /* --verify always: compare packed weights with the file's */
} cp_app_model;

/* Pool of o->threads workers and the device of o->device; no engine yet. opener may be NULL. */
cp_code cp_stack_open(cp_stack *s, const cp_options *o, cp_opener *opener, cp_err *err);
/* The devices of the models of o beside it, and the CPU. */
cp_code cp_stack_add_devices(cp_stack *s, const cp_options *o, cp_err *err);
/* The engine, not started; it runs models on the first device that name none. device_failed, which
 * may be NULL: see cp_engine_config. */
cp_code cp_stack_engine(cp_stack *s, const cp_options *o, void (*device_failed)(void *arg),
                        void *arg, cp_err *err);
void cp_stack_close(cp_stack *s);

/* File (pulled where it is not here), tokenizer and chat template (template_file replaces what
 * packaging and file bring; may be NULL) and the forward program. opener may be NULL. `progress` is
 * told of phases. */
cp_code cp_app_model_open(cp_app_model *m, const char *ref, const char *template_file,
                          const cp_options *o, cp_opener *opener, cp_progress_fn *progress,
                          void *arg, cp_err *err);
/* Make it schedulable. kv_bytes 0: what the backend can give beside this model. */
cp_code cp_app_model_add(cp_app_model *m, cp_stack *s, const cp_engine_model *limits, cp_err *err);
void cp_app_model_close(cp_app_model *m);

/* For `verify`: compare the packed weights from which a start of ref would read with what its
 * weights pack to. CP_OK where there are none, or where a start would not come so far (what is not
 * supported, several models and no --variant). CP_CORRUPT names the file. */
cp_code cp_app_packed_check(const char *ref, const cp_options *o, cp_err *err);

#endif
