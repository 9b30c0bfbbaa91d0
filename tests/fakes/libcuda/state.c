/*
 * What stands before and behind every call: the environment, the lock, counting, failures on
 * demand, errors that stay, and the report at exit.
 */
#include "tests/fakes/libcuda/fake.h"

#include <ctype.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef enum call_kind { FREE, HERE, BACK } call_kind;

typedef struct call_row {
    const char *name;
    call_kind kind;
    CUresult code;
} call_row;

static const call_row rows[FAKE_CALLS] = {
#define CALL(name, kind, code) {#name, kind, (CUresult)(code)},
#include "tests/fakes/libcuda/calls.def"
#undef CALL
};

fake_state fake;
static pthread_mutex_t lock = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;
static _Thread_local struct {
    fake_device *device;
    uint64_t generation;
} here;

static _Noreturn void die(const char *what, const char *name)
{
    fprintf(stderr, "libcuda_fake: %s '%s'\n", what, name);
    _Exit(99); /* a test that cannot mean what it says must not pass */
}

void *fake_new(size_t n)
{
    void *p = calloc(1, n ? n : 1);
    if (!p)
        die("no memory for", "itself");
    return p;
}

/* ---- the environment ---- */

static uint64_t number(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    if (!text || !*text)
        return otherwise;
    char *end;
    uint64_t v = strtoull(text, &end, 10);
    if (end == text)
        die("no number in", name);
    unsigned shift = *end == 'K' ? 10 : *end == 'M' ? 20 : *end == 'G' ? 30 : 0;
    if (end[shift ? 1 : 0])
        die("no number in", name);
    return v << shift;
}

static fake_call call_named(const char *name, size_t n)
{
    for (int i = 0; i < FAKE_CALLS; i++) {
        if (strlen(rows[i].name) == n && !memcmp(rows[i].name, name, n))
            return (fake_call)i;
    }
    return FAKE_CALLS;
}

static void read_fail(void)
{
    fake.fail = FAKE_CALLS;
    const char *text = getenv("FAKE_FAIL");
    if (!text || !*text)
        return;
    const char *colon = strchr(text, ':');
    fake.fail = colon ? call_named(text, (size_t)(colon - text)) : FAKE_CALLS;
    if (fake.fail == FAKE_CALLS)
        die("FAKE_FAIL names no call of tests/fakes/libcuda/calls.def:", text);
    char *end;
    fake.fail_at = strtoull(colon + 1, &end, 10);
    fake.fail_code = rows[fake.fail].code;
    if (*end == ':')
        fake.fail_code = (CUresult)strtoul(end + 1, &end, 10);
    if (*end || !fake.fail_at || !fake.fail_code)
        die("FAKE_FAIL is not call:n or call:n:code with n from 1:", text);
}

static void read_environment(void)
{
    const char *mode = getenv("FAKE_MODE");
    fake.eager = mode && !strcmp(mode, "eager");
    if (mode && *mode && !fake.eager && strcmp(mode, "lazy") != 0)
        die("FAKE_MODE is neither lazy nor eager:", mode);
    fake.seed = number("FAKE_SEED", 1);
    fake.rng = fake.seed * 0x9e3779b97f4a7c15u + 1;
    fake.race = number("FAKE_RACE", 1) != 0;
    fake.limit = number("FAKE_LIMIT", 0);
    fake.memory = number("FAKE_MEMORY", 512u << 20);
    fake.gpus = (int)number("FAKE_GPUS", 1);
    if (fake.gpus > FAKE_DEVICES)
        die("too many devices in", "FAKE_GPUS");
    fake.cc = (int)number("FAKE_CC", 80);
    fake.driver = (int)number("FAKE_DRIVER_VERSION", 13000);
    fake.coverage = getenv("FAKE_COVERAGE");
    fake.report = getenv("FAKE_REPORT");
    read_fail();
}

static void begin(void)
{
    if (fake.ready)
        return;
    uint64_t generation = fake.generation + 1, address = fake.next_address;
    fake_state *past = NULL; /* where leak checkers find what was forgotten */
    if (fake.generation) {
        past = fake_new(sizeof *past);
        memcpy(past, &fake, sizeof fake);
    }
    memset(&fake, 0, sizeof fake);
    fake.past = past;
    fake.generation = generation;
    fake.next_address = address ? address : UINT64_C(1) << 52 | UINT64_C(0x7f0000000000);
    read_environment();
    for (int i = 0; i < FAKE_DEVICES; i++) {
        fake.devices[i].index = i;
        fake.devices[i].null = fake_stream_new(&fake.devices[i], true);
    }
    fake.ready = true;
}

void fake_reset(void)
{
    pthread_mutex_lock(&lock);
    fake.ready = false;
    begin();
    pthread_mutex_unlock(&lock);
}

/* ---- numbers from the seed ---- */

uint64_t fake_random(void)
{
    uint64_t z = fake.rng += 0x9e3779b97f4a7c15u; /* splitmix64 */
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

uint64_t fake_below(uint64_t n)
{
    return fake_random() % n;
}

/* ---- calls ---- */

fake_device *fake_here(void)
{
    return here.generation == fake.generation ? here.device : NULL;
}

void fake_set_here(fake_device *d)
{
    here.device = d;
    here.generation = fake.generation;
}

bool fake_stays(CUresult r)
{
    switch ((int)r) {
    case CUDA_ERROR_ECC_UNCORRECTABLE:
    case CUDA_ERROR_ILLEGAL_ADDRESS:
    case CUDA_ERROR_LAUNCH_TIMEOUT:
    case CUDA_ERROR_ASSERT:
    case CUDA_ERROR_MISALIGNED_ADDRESS:
    case CUDA_ERROR_LAUNCH_FAILED:
        return true;
    default:
        return false;
    }
}

bool fake_hit(fake_call call)
{
    fake.calls[call]++;
    if (fake.fail != call || fake.calls[call] != fake.fail_at)
        return false;
    fake.count.injected++;
    return true;
}

CUresult fake_enter(fake_call call)
{
    pthread_mutex_lock(&lock);
    begin();
    fake.answer = CUDA_SUCCESS;
    const call_row *row = &rows[call];
    fake_device *d = fake_here();
    bool hit = fake_hit(call);
    if (hit && d && fake_stays(fake.fail_code) && !d->broken)
        d->broken = fake.fail_code;
    if (row->kind == FREE)
        return hit ? fake.fail_code : CUDA_SUCCESS;
    if (!fake.initialized)
        return CUDA_ERROR_NOT_INITIALIZED;
    if (!d || !d->retained)
        return fake_wrong(CUDA_ERROR_INVALID_CONTEXT, "%s without a context on this thread",
                          row->name);
    CUresult r = hit ? fake.fail_code : d->broken;
    if (row->kind == HERE && r)
        return r;
    fake.answer = r;
    if (!r)
        fake_progress();
    return CUDA_SUCCESS;
}

CUresult fake_leave(CUresult r)
{
    if (!r)
        r = fake.answer;
    pthread_mutex_unlock(&lock);
    return r;
}

void fake_lock_in_child(void)
{
    static const pthread_mutex_t fresh = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;
    memcpy(&lock, &fresh, sizeof lock);
    pthread_mutex_lock(&lock);
}

CUresult fake_wrong(CUresult r, const char *format, ...)
{
    va_list ap;
    va_start(ap, format);
    vsnprintf(fake.fault, sizeof fake.fault, format, ap);
    va_end(ap);
    fake.count.faults++;
    fprintf(stderr, "libcuda_fake: %s\n", fake.fault);
    return r;
}

/* ---- what tests ask ---- */

uint64_t fake_calls(const char *name)
{
    fake_call call = call_named(name, strlen(name));
    if (call == FAKE_CALLS)
        die("no call", name);
    return fake.calls[call];
}

static uint64_t *count_named(const char *name)
{
#define COUNT(field)                                                                               \
    if (!strcmp(name, #field))                                                                     \
        return &fake.count.field;
#include "tests/fakes/libcuda/counts.def"
#undef COUNT
    die("no count", name);
}

uint64_t fake_count(const char *name)
{
    return *count_named(name);
}

void fake_add(const char *name, uint64_t n)
{
    pthread_mutex_lock(&lock);
    *count_named(name) += n;
    pthread_mutex_unlock(&lock);
}

void *fake_memory(uint64_t device, size_t n, const char *what)
{
    pthread_mutex_lock(&lock);
    void *p = fake_bytes(device, n, what);
    pthread_mutex_unlock(&lock);
    return p;
}

void fake_hold(bool on)
{
    pthread_mutex_lock(&lock);
    fake.hold = on;
    pthread_mutex_unlock(&lock);
}

const char *fake_fault(void)
{
    return fake.fault;
}

typedef struct leaks {
    uint64_t memory, pinned, streams, events, modules, contexts, handles;
} leaks;

static leaks find_leaks(void)
{
    leaks l = {.memory = fake_leaked_ranges(false),
               .pinned = fake_leaked_ranges(true),
               .handles = (uint64_t)fake.handles};
    for (const fake_stream *s = fake.streams; s; s = s->next)
        l.streams += !s->dead && s != s->device->null;
    for (const fake_event *e = fake.events; e; e = e->next)
        l.events += !e->dead;
    for (const fake_module *m = fake.modules; m; m = m->next)
        l.modules += !m->dead;
    for (int i = 0; i < FAKE_DEVICES; i++)
        l.contexts += fake.devices[i].retained > 0;
    return l;
}

uint64_t fake_leaks(void)
{
    leaks l = find_leaks();
    return l.memory + l.pinned + l.streams + l.events + l.modules + l.contexts + l.handles;
}

int fake_library(const char *name, int handles)
{
    fake_call call = call_named(name, strlen(name));
    if (call == FAKE_CALLS)
        die("no call", name);
    CUresult r = fake_enter(call);
    if (!r)
        fake.handles += handles;
    return (int)fake_leave(r);
}

/* ---- at exit ---- */

static void put_text(FILE *f, const char *text)
{
    putc('"', f);
    for (; *text; text++) {
        if (*text == '"' || *text == '\\')
            putc('\\', f);
        putc(iscntrl((unsigned char)*text) ? ' ' : *text, f);
    }
    putc('"', f);
}

/* "name": number, and a comma before it where it is not the first. */
static void put_number(FILE *f, const char **comma, const char *name, uint64_t v)
{
    fprintf(f, "%s\"%s\": %llu", *comma, name, (unsigned long long)v);
    *comma = ", ";
}

static void put_leaks(FILE *f, leaks l)
{
    const char *comma = "";
    put_number(f, &comma, "memory", l.memory);
    put_number(f, &comma, "pinned", l.pinned);
    put_number(f, &comma, "streams", l.streams);
    put_number(f, &comma, "events", l.events);
    put_number(f, &comma, "modules", l.modules);
    put_number(f, &comma, "contexts", l.contexts);
    put_number(f, &comma, "handles", l.handles);
}

static void write_report(leaks l)
{
    FILE *f = fopen(fake.report, "w");
    if (!f)
        die("cannot write", fake.report);
    const char *comma = "";
    fprintf(f, "{\"calls\": {");
    for (int i = 0; i < FAKE_CALLS; i++) {
        if (fake.calls[i])
            put_number(f, &comma, rows[i].name, fake.calls[i]);
    }
    fprintf(f, "},\n \"counts\": {");
    comma = "";
#define COUNT(field) put_number(f, &comma, #field, fake.count.field);
#include "tests/fakes/libcuda/counts.def"
#undef COUNT
    put_number(f, &comma, "warp_instructions", fake.stats.warp_instructions);
    fprintf(f, "},\n \"leaks\": {");
    put_leaks(f, l);
    fprintf(f, "},\n \"fault\": ");
    put_text(f, fake.fault);
    fprintf(f, "}\n");
    fclose(f);
}

__attribute__((destructor)) static void report(void)
{
    pthread_mutex_lock(&lock);
    if (fake.ready) {
        fake_cover();
        fake_mutants_end();
        leaks l = find_leaks();
        if (fake_leaks()) {
            fprintf(stderr, "libcuda_fake: not given back: ");
            put_leaks(stderr, l);
            fprintf(stderr, "\n");
        }
        if (fake.report && *fake.report)
            write_report(l);
    }
    pthread_mutex_unlock(&lock);
}
