/*
 * This file brings the list of models to what the options say by now, all of it or nothing: see
 * cp_app_models_reload.
 *
 * A model is known by its id. What is new, or says anything else than before of how it is loaded,
 * is loaded beside those that serve, as a shadow that no request can name. When all are there, one
 * move of the server's table gives them their names, and those that they replace, or that are not
 * named any more, drain. Names and sampling change in place.
 */
#include "app/models.h"
#include "app/rows.h"

#include "base/log.h"
#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

/* What becomes of one model of the options. */
typedef struct step {
    const cp_model_options *mo;
    uint64_t old; /* serial of the row that serves under its id; 0: none */
    bool load;    /* new, or to be loaded anew */
    bool touch;   /* other names or sampling */
    cp_app_row *fresh;
    cp_sampling_defaults defaults;
} step;

typedef struct plan {
    cp_app_models *ms;
    const cp_options *o;
    step *steps; /* [o->n_models] */
    cp_server_move *moves;
    cp_app_row **going;
    size_t n_moves, n_going;
} plan;

/* With the lock: a configured model that serves; NULL: it is none any more. */
static cp_app_row *by_id(const cp_app_models *ms, const char *id)
{
    cp_app_row *r = ms->list;
    while (r && (!r->configured || r->leaving || r->loading || r->shadow ||
                 strcmp(cp_app_id(&r->mo), id) != 0)) {
        r = r->next;
    }
    return r;
}

static cp_app_row *by_serial(const cp_app_models *ms, uint64_t serial)
{
    cp_app_row *r = ms->list;
    while (r && (r->serial != serial || r->leaving)) {
        r = r->next;
    }
    return r;
}

/* With the lock: what has changed. */
static void look(plan *p, step *s, const cp_model_options *mo)
{
    const cp_app_row *r = by_id(p->ms, cp_app_id(mo));
    const uint32_t names = 1u << CP_MODEL_alias;
    s->mo = mo;
    s->old = r ? r->serial : 0;
    s->load = !r || !cp_model_options_same(&r->mo, mo, names);
    s->touch = !s->load && (!cp_model_options_same(&r->mo, mo, ~names) ||
                            !cp_sampling_options_same(&r->mo.sampling, &mo->sampling) ||
                            p->ms->o->sampling_defaults != p->o->sampling_defaults);
}

/* ---- moves ---- */

static void add_move(plan *p, cp_server_move move)
{
    p->moves[p->n_moves++] = move;
}

/* With the lock. Those that are not there yet have no row. */
static void make_moves(plan *p)
{
    p->n_moves = p->n_going = 0;
    for (int i = 0; i < p->o->n_models; i++) {
        step *s = &p->steps[i];
        const cp_app_row *old = s->old ? by_serial(p->ms, s->old) : NULL;
        if (!s->load && !old) {
            continue; /* a client unloaded it meanwhile */
        }
        cp_server_move v = {.row = s->fresh ? s->fresh->served : s->load ? NULL : old->served};
        v.ids = cp_app_names(s->mo, &v.n_ids);
        if (s->touch) {
            s->defaults = cp_app_row_defaults(old, p->o, s->mo);
            v.defaults = &s->defaults;
        }
        add_move(p, v);
    }
    for (cp_app_row *r = p->ms->list; r; r = r->next) {
        bool stays = !r->configured || r->leaving || r->loading || r->shadow;
        for (int i = 0; i < p->o->n_models; i++) {
            stays = stays || (p->steps[i].old == r->serial && !p->steps[i].load);
        }
        if (!stays) {
            add_move(p, (cp_server_move){.row = r->served, .goes = true});
            p->going[p->n_going++] = r;
        }
    }
}

/* Do the names go together? Before anything is loaded. */
static cp_code check(plan *p, cp_err *err)
{
    cp_app_models *ms = p->ms;
    pthread_mutex_lock(&ms->lock);
    for (int i = 0; i < p->o->n_models; i++) {
        look(p, &p->steps[i], &p->o->models[i]);
    }
    make_moves(p);
    cp_code rc = cp_server_move_models(ms->server, p->moves, p->n_moves, true, err);
    pthread_mutex_unlock(&ms->lock);
    return rc;
}

/* ---- loads ---- */

static cp_code load_one(plan *p, step *s, uint64_t kv_bytes, cp_err *err)
{
    size_t n;
    const char *const *ids = cp_app_names(s->mo, &n);
    cp_app_row *r = cp_app_row_new(s->mo, true, err);
    if (!r) {
        return CP_NO_MEMORY;
    }
    r->shadow = true;
    cp_code rc = cp_server_shadow_model(p->ms->server, ids, n, &r->served, err);
    if (rc) {
        cp_app_row_free(r);
        return rc;
    }
    cp_app_row_add(p->ms, r);
    rc = cp_app_row_load(p->ms, r, p->o, kv_bytes, err);
    s->fresh = rc ? NULL : r;
    return rc;
}

static cp_code load_all(plan *p, const uint64_t *kv_bytes, cp_err *err)
{
    cp_code rc = CP_OK;
    for (int i = 0; i < p->o->n_models && rc == CP_OK; i++) {
        if (p->steps[i].load) {
            rc = load_one(p, &p->steps[i], kv_bytes[i], err);
        }
    }
    return rc;
}

static void take_back(plan *p)
{
    for (int i = 0; i < p->o->n_models; i++) {
        cp_app_row *r = p->steps[i].fresh;
        if (r) {
            pthread_mutex_lock(&p->ms->lock);
            r->leaving = true;
            pthread_mutex_unlock(&p->ms->lock);
            cp_app_row_end(p->ms, r, 0);
        }
    }
}

/* ---- the end ---- */

static bool is_replaced(const plan *p, const cp_app_row *r)
{
    int i = 0;
    while (i < p->o->n_models && p->steps[i].old != r->serial) {
        i++;
    }
    return i < p->o->n_models;
}

static cp_code move(plan *p, cp_app_changes *out, cp_err *err)
{
    cp_app_models *ms = p->ms;
    pthread_mutex_lock(&ms->lock);
    make_moves(p);
    cp_code rc = cp_server_move_models(ms->server, p->moves, p->n_moves, false, err);
    for (size_t i = 0; i < p->n_going && rc == CP_OK; i++) {
        p->going[i]->leaving = true;
    }
    for (int i = 0; i < p->o->n_models && rc == CP_OK; i++) {
        step *s = &p->steps[i];
        cp_app_row *r = s->fresh ? s->fresh : by_serial(ms, s->old);
        if (r && s->touch) {
            /* as many as the options' own list holds */
            CP_ASSERT(cp_app_row_set(r, s->mo, err) == CP_OK);
        }
        if (r) {
            r->shadow = false;
            cp_engine_set_pace(r->m.engine, (int)p->o->step_ms);
        }
        out->anew += s->load && s->old;
        out->fresh += s->load && !s->old;
        out->touched += s->touch;
    }
    for (size_t i = 0; i < p->n_going; i++) {
        out->gone += !is_replaced(p, p->going[i]);
    }
    pthread_mutex_unlock(&ms->lock);
    if (rc == CP_OK) {
        pthread_mutex_lock(&ms->turn);
        ms->o = p->o;
        pthread_mutex_unlock(&ms->turn);
    }
    return rc;
}

typedef struct drain {
    cp_app_models *ms;
    cp_app_row *row;
} drain;

static void end_row(void *arg)
{
    drain d = *(drain *)arg;
    char *id = cp_xstrdup(cp_app_id(&d.row->mo));
    free(arg);
    cp_app_row_end(d.ms, d.row, 0);
    cp_log(CP_LOG_INFO, "model %s: unloaded", id);
    free(id);
}

/* What goes has as long as its requests take, each on a thread of its own. */
static void drain_all(plan *p, cp_orders *orders)
{
    for (size_t i = 0; i < p->n_going; i++) {
        drain *d = cp_xcalloc(1, sizeof *d);
        *d = (drain){p->ms, p->going[i]};
        cp_log(CP_LOG_INFO, "model %s: unloading", cp_app_id(&p->going[i]->mo));
        if (!cp_orders_give(orders, end_row, d)) {
            end_row(d); /* the process ends: so do its requests */
        }
    }
}

cp_code cp_app_models_reload(cp_app_models *ms, const cp_options *o, const uint64_t *kv_bytes,
                             cp_orders *orders, cp_app_changes *out, cp_err *err)
{
    enum { MOST = 2 * 64 + 64 }; /* rows of the server's table, and of the options */
    plan p = {.ms = ms, .o = o};
    *out = (cp_app_changes){0};
    p.steps = cp_xcalloc((size_t)o->n_models, sizeof *p.steps);
    p.moves = cp_xcalloc(MOST, sizeof *p.moves);
    p.going = cp_xcalloc(MOST, sizeof(cp_app_row *));
    cp_code rc = check(&p, err);
    rc = rc ? rc : load_all(&p, kv_bytes, err);
    rc = rc ? rc : move(&p, out, err);
    if (rc) {
        take_back(&p);
    } else {
        drain_all(&p, orders);
    }
    free(p.steps);
    free(p.moves);
    free(p.going);
    return rc;
}
