/*
 * Streams and events. A stream is a list of work in the order of its calls; what is at its head may
 * run once what it waits for in another stream is done. Which heads do run, and when, is the mode's
 * choice. An event is a place in a stream: the number of the work that its latest record is.
 */
#include "tests/fakes/libcuda/fake.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

fake_stream *fake_stream_new(fake_device *d, bool blocking)
{
    fake_stream *s = fake_new(sizeof *s);
    s->device = d;
    s->blocking = blocking;
    s->slow = fake_below(3) == 0;
    s->last = &s->first;
    s->next = fake.streams;
    fake.streams = s;
    return s;
}

fake_stream *fake_stream_of(CUstream handle)
{
    fake_device *d = fake_here();
    if (!handle)
        return d->null;
    for (fake_stream *s = fake.streams; s; s = s->next) {
        if ((CUstream)(void *)s == handle)
            return !s->dead && s->device == d && s != d->null ? s : NULL;
    }
    return NULL;
}

static CUresult no_stream(const char *call)
{
    return fake_wrong(CUDA_ERROR_INVALID_HANDLE, "%s: no stream of this context", call);
}

/* ---- work ---- */

fake_op *fake_op_new(CUresult (*run)(fake_op *op), size_t n_data)
{
    fake_op *op = fake_new(sizeof *op + n_data);
    op->run = run;
    op->n_data = n_data;
    return op;
}

static void append(fake_stream *s, fake_op *op)
{
    op->stream = s;
    op->at = ++s->issued;
    *s->last = op;
    s->last = &op->next;
}

static void append_wait(fake_stream *s, fake_stream *other, uint64_t at)
{
    if (other->done >= at)
        return;
    fake_op *op = fake_op_new(NULL, 0);
    op->wait = other;
    op->wait_for = at;
    append(s, op);
}

CUresult fake_push(fake_stream *s, fake_op *op)
{
    fake_stream *null = s->device->null;
    if (s == null) {
        for (fake_stream *o = fake.streams; o; o = o->next) {
            if (o != s && o->blocking && o->device == s->device)
                append_wait(s, o, o->issued);
        }
    } else if (s->blocking) {
        append_wait(s, null, null->issued);
    }
    append(s, op);
    return CUDA_SUCCESS;
}

static bool may_run(const fake_stream *s)
{
    const fake_op *op = s->first;
    return op && !s->device->broken && (!op->wait || op->wait->done >= op->wait_for);
}

static void run_head(fake_stream *s)
{
    fake_op *op = s->first;
    s->first = op->next;
    if (!s->first)
        s->last = &s->first;
    CUresult r = op->run ? op->run(op) : CUDA_SUCCESS;
    s->done++;
    if (r && !s->device->broken)
        s->device->broken = r;
    free(op);
}

/* One head of those that may run. Some streams are slow, by the seed: what waits for them without
 * saying so has to show. False: none ran. */
static bool run_any(void)
{
    uint64_t n = 0;
    fake_stream *chosen = NULL;
    for (fake_stream *s = fake.streams; s; s = s->next) {
        if (may_run(s) && !(s->slow && fake.seed % 4 && fake_below(32)) && !fake_below(++n))
            chosen = s;
    }
    if (chosen)
        run_head(chosen);
    return chosen != NULL;
}

/* Words of a kernel's arguments that are addresses in [first, first + n). */
static bool points_into(const fake_op *op, uint64_t first, size_t n)
{
    uint64_t word;
    for (size_t i = 0; op->f && i + sizeof word <= op->n_data; i += sizeof word) {
        memcpy(&word, op->data + i, sizeof word);
        if (word - first < n)
            return true;
    }
    return false;
}

bool fake_in_use(const fake_memory_range *m, const fake_module *module)
{
    for (fake_stream *s = fake.streams; s; s = s->next) {
        for (const fake_op *op = s->device->broken ? NULL : s->first; op; op = op->next) {
            if (module && op->f && op->f->module == module)
                return true;
            if (m && op->pinned && (uintptr_t)op->host - (uintptr_t)m->host < m->n)
                return true;
            if (m && m->address &&
                (op->to - m->address < m->n || op->from - m->address < m->n ||
                 points_into(op, m->address, m->n)))
                return true;
        }
    }
    return false;
}

void fake_progress(void)
{
    if (!fake.eager)
        return;
    uint64_t n = fake.seed % 4 ? fake_below(2 * (fake.seed % 4)) : UINT64_MAX;
    while (n-- && run_any())
        ;
}

CUresult fake_run_to(fake_stream *s, uint64_t at)
{
    while (s->done < at && !s->device->broken) {
        if (fake.eager && fake_below(2) && run_any())
            continue;
        fake_stream *t = s; /* what the head waits for was issued before it: the way ends */
        while (t->first->wait && t->first->wait->done < t->first->wait_for)
            t = t->first->wait;
        run_head(t);
    }
    return s->device->broken;
}

CUresult fake_run_device(fake_device *d)
{
    for (fake_stream *s = fake.streams; s; s = s->next) {
        if (s->device == d)
            fake_run_to(s, s->issued);
    }
    return d->broken;
}

static CUresult run_call(fake_op *op)
{
    return (CUresult)op->call(op->data);
}

int fake_enqueue(void *stream, int (*run)(void *context), const void *context, size_t n)
{
    CUresult r = fake_enter(FAKE_enqueue);
    fake_stream *s = r ? NULL : fake_stream_of((CUstream)stream);
    if (!r && !s)
        r = no_stream("fake_enqueue");
    if (!r) {
        fake_op *op = fake_op_new(run_call, n);
        op->call = run;
        memcpy(op->data, context, n);
        r = fake_push(s, op);
    }
    return (int)fake_leave(r);
}

/* ---- calls ---- */

CUresult cuStreamCreate(CUstream *out, unsigned int flags)
{
    CUresult r = fake_enter(FAKE_cuStreamCreate);
    if (!r && (!out || flags > CU_STREAM_NON_BLOCKING))
        r = CUDA_ERROR_INVALID_VALUE;
    if (!r)
        *out = (CUstream)(void *)fake_stream_new(fake_here(), flags != CU_STREAM_NON_BLOCKING);
    return fake_leave(r);
}

/* What the stream has left still runs, when somebody waits for it by an event or the context. */
CUresult cuStreamDestroy_v2(CUstream stream)
{
    CUresult r = fake_enter(FAKE_cuStreamDestroy_v2);
    if (r)
        return fake_leave(r);
    fake_stream *s = fake_stream_of(stream);
    if (!s || s == s->device->null)
        return fake_leave(no_stream("cuStreamDestroy"));
    s->dead = true;
    return fake_leave(CUDA_SUCCESS);
}

/* Late as work may be, whoever asks again and again gets a yes in the end. */
static CUresult query(fake_stream *s, uint64_t at)
{
    if (s->done < at && !fake_below(4))
        fake_run_to(s, at);
    if (s->device->broken)
        return s->device->broken;
    return s->done < at || fake.hold ? CUDA_ERROR_NOT_READY : CUDA_SUCCESS;
}

CUresult cuStreamQuery(CUstream stream)
{
    CUresult r = fake_enter(FAKE_cuStreamQuery);
    if (r)
        return fake_leave(r);
    fake_stream *s = fake_stream_of(stream);
    return fake_leave(s ? query(s, s->issued) : no_stream("cuStreamQuery"));
}

CUresult cuStreamSynchronize(CUstream stream)
{
    CUresult r = fake_enter(FAKE_cuStreamSynchronize);
    if (r)
        return fake_leave(r);
    fake_stream *s = fake_stream_of(stream);
    return fake_leave(s ? fake_run_to(s, s->issued) : no_stream("cuStreamSynchronize"));
}

CUresult cuCtxSynchronize(void)
{
    CUresult r = fake_enter(FAKE_cuCtxSynchronize);
    return fake_leave(r ? r : fake_run_device(fake_here()));
}

static fake_event *event_of(CUevent handle)
{
    for (fake_event *e = fake.events; e; e = e->next) {
        if ((CUevent)(void *)e == handle)
            return !e->dead && e->device == fake_here() ? e : NULL;
    }
    return NULL;
}

static CUresult no_event(const char *call)
{
    return fake_wrong(CUDA_ERROR_INVALID_HANDLE, "%s: no event of this context", call);
}

CUresult cuEventCreate(CUevent *out, unsigned int flags)
{
    CUresult r = fake_enter(FAKE_cuEventCreate);
    if (!r && (!out || flags > 3))
        r = CUDA_ERROR_INVALID_VALUE;
    if (r)
        return fake_leave(r);
    fake_event *e = fake_new(sizeof *e);
    e->device = fake_here();
    e->timed = !(flags & CU_EVENT_DISABLE_TIMING);
    e->next = fake.events;
    fake.events = e;
    *out = (CUevent)(void *)e;
    return fake_leave(CUDA_SUCCESS);
}

CUresult cuEventDestroy_v2(CUevent event)
{
    CUresult r = fake_enter(FAKE_cuEventDestroy_v2);
    if (r)
        return fake_leave(r);
    fake_event *e = event_of(event);
    if (!e)
        return fake_leave(no_event("cuEventDestroy"));
    e->dead = true;
    return fake_leave(CUDA_SUCCESS);
}

static CUresult run_record(fake_op *op)
{
    fake_event *e = op->event;
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    if (e->stream == op->stream && e->at == op->at) /* else it was recorded again since */
        e->ns = (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
    return CUDA_SUCCESS;
}

CUresult cuEventRecord(CUevent event, CUstream stream)
{
    CUresult r = fake_enter(FAKE_cuEventRecord);
    if (r)
        return fake_leave(r);
    fake_event *e = event_of(event);
    fake_stream *s = fake_stream_of(stream);
    if (!e || !s)
        return fake_leave(e ? no_stream("cuEventRecord") : no_event("cuEventRecord"));
    fake_op *op = fake_op_new(run_record, 0);
    op->event = e;
    r = fake_push(s, op);
    e->stream = s;
    e->at = op->at;
    return fake_leave(r);
}

CUresult cuEventQuery(CUevent event)
{
    CUresult r = fake_enter(FAKE_cuEventQuery);
    if (r)
        return fake_leave(r);
    fake_event *e = event_of(event);
    if (!e)
        return fake_leave(no_event("cuEventQuery"));
    return fake_leave(e->stream ? query(e->stream, e->at) : CUDA_SUCCESS);
}

CUresult cuEventSynchronize(CUevent event)
{
    CUresult r = fake_enter(FAKE_cuEventSynchronize);
    if (r)
        return fake_leave(r);
    fake_event *e = event_of(event);
    if (!e)
        return fake_leave(no_event("cuEventSynchronize"));
    return fake_leave(e->stream ? fake_run_to(e->stream, e->at) : CUDA_SUCCESS);
}

CUresult cuStreamWaitEvent(CUstream stream, CUevent event, unsigned int flags)
{
    CUresult r = fake_enter(FAKE_cuStreamWaitEvent);
    if (!r && flags)
        r = CUDA_ERROR_INVALID_VALUE;
    if (r)
        return fake_leave(r);
    fake_event *e = event_of(event);
    fake_stream *s = fake_stream_of(stream);
    if (!e || !s)
        return fake_leave(e ? no_stream("cuStreamWaitEvent") : no_event("cuStreamWaitEvent"));
    if (e->stream)
        append_wait(s, e->stream, e->at);
    return fake_leave(CUDA_SUCCESS);
}

CUresult cuEventElapsedTime(float *ms, CUevent start, CUevent end)
{
    CUresult r = fake_enter(FAKE_cuEventElapsedTime);
    if (r)
        return fake_leave(r);
    const fake_event *a = event_of(start), *b = event_of(end);
    if (!a || !b || !a->timed || !b->timed || !a->stream || !b->stream)
        return fake_leave(no_event("cuEventElapsedTime (or it has no time)"));
    if (a->stream->done < a->at || b->stream->done < b->at)
        return fake_leave(CUDA_ERROR_NOT_READY);
    *ms = (float)((double)b->ns - (double)a->ns) / 1e6f;
    return fake_leave(CUDA_SUCCESS);
}
