/* This file moves calls between their states and counts who holds them: see call.h. */
#include "server/call.h"

#include "base/clock.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

/* ---- states ---- */

#define TO(state) (1u << CP_CALL_##state)

void cp_call_move(cp_call *c, cp_call_state to)
{
    static const unsigned next[CP_CALL_STATES] = {
        [CP_CALL_READING] = TO(PREPARING) | TO(TOLD),
        [CP_CALL_PREPARING] = TO(RUNNING) | TO(TOLD) | TO(LEFT),
        [CP_CALL_RUNNING] = TO(TOLD) | TO(LEFT),
        [CP_CALL_TOLD] = 0,
        [CP_CALL_LEFT] = TO(TOLD),
    };
    CP_ASSERT(next[cp_call_state_of(c)] & 1u << to);
    atomic_store_explicit(&c->state, (int)to, memory_order_relaxed);
}

void cp_part_move(cp_part *p, cp_part_state to)
{
    CP_ASSERT(to == CP_PART_ENDED ? p->state != CP_PART_ENDED : to == p->state + 1);
    p->state = to;
}

/* ---- memory ---- */

void cp_call_unref(cp_call *c)
{
    if (atomic_fetch_sub_explicit(&c->refs, 1, memory_order_acq_rel) != 1)
        return;
    for (int i = 0; i < c->n_choices; i++) {
        cp_text_fini(&c->choices[i].text);
        cp_buf_fini(&c->choices[i].shown);
        cp_buf_fini(&c->choices[i].records);
    }
    for (int i = 0; i < (c->parts ? c->n_parts : 0); i++)
        cp_buf_fini(&c->parts[i].prompt_records);
    cp_buf_fini(&c->body);
    cp_buf_fini(&c->reply);
    cp_buf_fini(&c->chunk_head);
    if (c->arena)
        cp_arena_free(c->arena);
    cp_account_close(&c->account);
    free(c->named);
    free(c->model_id);
    free(c->profile);
    free(c);
}

void cp_call_let_go(cp_call *c)
{
    cp_server *s = c->s;
    if (c->on_job || c->n_open > 0)
        return;
    cp_served_put(&s->models, c->m);
    c->m = NULL;
    if (c->q)
        return;
    if (c->next)
        c->next->prev = c->prev;
    if (c->prev)
        c->prev->next = c->next;
    else
        s->calls = c->next;
    if (c->route && cp_route_counts(c->route))
        atomic_fetch_sub(&s->n_active, 1);
    cp_call_unref(c);
}

/* ---- ids ---- */

void cp_call_fresh_id(const char *prefix, char *out, size_t cap)
{
    unsigned char r[12];
    if (getrandom(r, sizeof(r), 0) != (ssize_t)sizeof(r)) {
        int64_t now = cp_now_ns();
        memcpy(r, &now, sizeof(now));
    }
    size_t at = cp_snprintf(out, cap, "%s", prefix);
    for (size_t i = 0; i < sizeof(r); i++)
        at += cp_snprintf(out + at, cap - at, "%02x", r[i]);
}

/* The client's own id where it is one word of harmless characters. */
static void take_request_id(cp_call *c)
{
    const char *given = cp_http_header(c->q, "X-Request-Id");
    size_t n = given ? strspn(given, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                     "0123456789._:-")
                     : 0;
    if (n == 0 || n > 128 || given[n])
        cp_call_fresh_id("req-", c->request_id, sizeof(c->request_id));
    else
        cp_strcopy(c->request_id, sizeof(c->request_id), given);
}

cp_call *cp_call_new(cp_server *s, cp_http_req *q)
{
    cp_call *c = cp_xcalloc(1, sizeof(*c));
    c->s = s;
    c->q = q;
    c->account.budget = s->budget;
    atomic_init(&c->refs, 1);
    take_request_id(c);
    if (s->trace_fd >= 0)
        cp_trace_begin(&c->trace, cp_http_header(q, "traceparent"),
                       cp_http_header(q, "tracestate"));
    cp_strcopy(c->path, sizeof(c->path), cp_http_path(q));
    c->next = s->calls;
    if (c->next)
        c->next->prev = c;
    s->calls = c;
    cp_http_set_user(q, c);
    cp_metric_add(s->metrics, CP_M_REQUESTS_ACTIVE, 1);
    return c;
}

void cp_call_cancel(cp_call *c)
{
    if (c->on_job)
        return; /* nothing was submitted; what comes back is dropped */
    for (int i = 0; i < c->n_parts; i++) {
        cp_part *p = &c->parts[i];
        if (p->state != CP_PART_LIVE)
            continue;
        cp_part_move(p, CP_PART_CANCELLED);
        c->s->engine.cancel(c->s->engine.self, &p->r);
    }
}
