/*
 * models: what several threads do at once to a model that is not loaded yet. The linker puts the
 * functions __wrap_x in the place of x for app/models.c: there is no file, engine or server, and a
 * thread stands between two of its calls until the others have come where the test wants them.
 */
#include "tests/support/cmocka.h"

#include "app/models.h"
#include "app/rows.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What the functions below do and saw; one test at a time. */
static struct scene {
    cp_app_models *ms;
    _Atomic bool open_held;   /* who opens a file waits until it is not */
    _Atomic int opening;      /* threads that came to open one */
    bool has_own_text;        /* what the options said was copied */
    bool unload_at_forget;    /* when a load takes itself apart, another thread unloads its model */
    _Atomic int forgets;      /* then: threads that take it apart */
    _Atomic bool closed;      /* file, tokenizer, program have gone */
    _Atomic bool told_closed; /* they had, when it was said that the model has gone */
    pthread_t unloader;
    _Atomic int unloaded; /* what the unloader was answered; -1: nothing yet */
} at;
static _Thread_local bool is_unloader;
static _Atomic bool unloader_waits;

/* ---- in the place of what app/models.c calls ---- */

cp_code __wrap_cp_app_model_open(cp_app_model *m, const char *ref, const char *template_file,
                                 const cp_options *o, cp_opener *opener, cp_progress_fn *progress,
                                 void *arg, cp_err *err);
void __wrap_cp_app_model_close(cp_app_model *m);
cp_code __wrap_cp_server_reserve_model(cp_server *s, const char *const *ids, size_t n_ids,
                                       cp_served **out, cp_err *err);
void __wrap_cp_server_forget_model(cp_server *s, cp_served *m);
void __wrap_cp_server_phase(cp_server *s, cp_served *x, const char *phase, uint64_t done,
                            uint64_t total, uint64_t rate);
int __real_pthread_cond_wait(pthread_cond_t *c, pthread_mutex_t *m);
int __wrap_pthread_cond_wait(pthread_cond_t *c, pthread_mutex_t *m);
int __real_pthread_cond_broadcast(pthread_cond_t *c);
int __wrap_pthread_cond_broadcast(pthread_cond_t *c);

cp_code __wrap_cp_app_model_open(cp_app_model *m, const char *ref, const char *template_file,
                                 const cp_options *o, cp_opener *opener, cp_progress_fn *progress,
                                 void *arg, cp_err *err)
{
    (void)m;
    const char *said = o->chat_template_file;
    at.has_own_text =
        said && template_file && template_file != said && strcmp(template_file, said) == 0;
    (void)opener;
    (void)progress;
    (void)arg;
    atomic_fetch_add(&at.opening, 1);
    while (atomic_load(&at.open_held))
        sched_yield();
    return cp_fail(err, CP_NOT_FOUND, "%s: there is none", ref);
}

void __wrap_cp_app_model_close(cp_app_model *m)
{
    (void)m;
    atomic_store(&at.closed, true);
}

cp_code __wrap_cp_server_reserve_model(cp_server *s, const char *const *ids, size_t n_ids,
                                       cp_served **out, cp_err *err)
{
    (void)s;
    (void)ids;
    (void)n_ids;
    (void)err;
    *out = NULL;
    return CP_OK;
}

static void *unload(void *arg)
{
    cp_err err;
    is_unloader = true;
    atomic_store(&at.unloaded, (int)cp_app_models_unload(at.ms, arg, 0, &err));
    return NULL;
}

static void unload_beside(const char *name)
{
    atomic_store(&unloader_waits, false);
    atomic_store(&at.unloaded, -1);
    assert_int_equal(pthread_create(&at.unloader, NULL, unload, (void *)(uintptr_t)name), 0);
}

void __wrap_cp_server_forget_model(cp_server *s, cp_served *m)
{
    (void)s;
    (void)m;
    if (!at.unload_at_forget)
        return;
    if (atomic_fetch_add(&at.forgets, 1) > 0) {
        fprintf(stderr, "two threads take one model apart\n");
        abort(); /* on the second one, so it cannot be an assertion of the test */
    }
    unload_beside("m");
    while (!atomic_load(&unloader_waits)) /* or it comes here, too */
        sched_yield();
}

void __wrap_cp_server_phase(cp_server *s, cp_served *x, const char *phase, uint64_t done,
                            uint64_t total, uint64_t rate)
{
    (void)s;
    (void)x;
    (void)phase;
    (void)done;
    (void)total;
    (void)rate;
}

int __wrap_pthread_cond_wait(pthread_cond_t *c, pthread_mutex_t *m)
{
    if (is_unloader)
        atomic_store(&unloader_waits, true);
    return __real_pthread_cond_wait(c, m);
}

int __wrap_pthread_cond_broadcast(pthread_cond_t *c)
{
    atomic_store(&at.told_closed, atomic_load(&at.closed));
    return __real_pthread_cond_broadcast(c);
}

/* ---- tests ---- */

static cp_options no_options;

static void scene_open(void)
{
    static cp_stack no_stack;
    memset(&at, 0, sizeof(at));
    at.ms = cp_app_models_new(&no_options, &no_stack, NULL);
}

static cp_code load(const char *name, cp_err *err)
{
    cp_model_options mo = {.ref = name};
    return cp_app_models_load(at.ms, &mo, 0, false, err);
}

/* A load has failed and takes its model apart when another thread unloads it: that one waits for
 * the end, and then all that the model was has gone. */
static void a_load_that_failed_is_taken_apart_once(void **state)
{
    (void)state;
    cp_err err;
    scene_open();
    at.unload_at_forget = true;
    assert_int_equal(load("m", &err), CP_NOT_FOUND);
    pthread_join(at.unloader, NULL);
    assert_int_equal(atomic_load(&at.unloaded), CP_OK);
    assert_int_equal(atomic_load(&at.forgets), 1);
    assert_true(atomic_load(&at.told_closed));
    assert_int_equal(cp_app_models_unload(at.ms, "m", 0, &err), CP_MODEL_NOT_FOUND);
    cp_app_models_free(at.ms);
}

typedef struct loader {
    const char *name;
    cp_code code;
    cp_err err;
    pthread_t thread;
} loader;

static void *load_beside(void *arg)
{
    loader *l = arg;
    l->code = load(l->name, &l->err);
    return NULL;
}

/* Loads run one after another. What is unloaded before its turn is not opened, which may be a pull
 * of an hour. */
static void what_is_taken_back_before_its_turn_is_not_opened(void **state)
{
    (void)state;
    loader first = {.name = "first"}, second = {.name = "second"};
    scene_open();
    atomic_store(&at.open_held, true);
    pthread_create(&first.thread, NULL, load_beside, &first);
    while (atomic_load(&at.opening) == 0)
        sched_yield();
    pthread_create(&second.thread, NULL, load_beside, &second);
    unload_beside("second");
    while (!atomic_load(&unloader_waits)) {
        if (atomic_load(&at.unloaded) == CP_MODEL_NOT_FOUND) { /* it was not on the list yet */
            pthread_join(at.unloader, NULL);
            unload_beside("second");
        }
        sched_yield();
    }
    atomic_store(&at.open_held, false);
    pthread_join(first.thread, NULL);
    pthread_join(second.thread, NULL);
    pthread_join(at.unloader, NULL);
    assert_int_equal(first.code, CP_NOT_FOUND);
    assert_int_equal(second.code, CP_CANCELLED);
    assert_int_equal(atomic_load(&at.unloaded), CP_OK);
    assert_int_equal(atomic_load(&at.opening), 1);
    cp_app_models_free(at.ms);
}

/* Options go with the next reload, and the model is compared with what that says. */
static void what_the_options_say_is_copied(void **state)
{
    (void)state;
    cp_err err;
    cp_options o = {.chat_template_file = "t"};
    scene_open();
    at.ms->o = &o;
    assert_int_equal(load("m", &err), CP_NOT_FOUND);
    assert_true(at.has_own_text);
    cp_app_models_free(at.ms);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_load_that_failed_is_taken_apart_once),
        cmocka_unit_test(what_is_taken_back_before_its_turn_is_not_opened),
        cmocka_unit_test(what_the_options_say_is_copied),
    };
    return cmocka_run_group_tests_name("models", tests, NULL, NULL);
}
