/*
 * test_fake_streams: a program as a backend's host code is (weights by a copy stream, steps on
 * another one, two in flight, pinned memory at both ends) runs right in every mode and order; with
 * one bug of those that host code has, each is seen.
 */
#include "tests/fakes/libcuda/api.h"
#include "tests/fakes/libcuda/kernels.h"
#include "tests/fakes/libcuda/libcuda_fake.h"

#include "tests/support/cmocka.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N = 300, STEPS = 4, SEEDS = 12 };

typedef enum bug {
    NONE,
    NO_WAIT,        /* the steps' stream does not wait for the weights */
    REUSED_EARLY,   /* the input's pinned buffer is written while a step in flight reads it */
    NOT_AWAITED,    /* a result is read before its step is waited for */
    WRONG_STREAM,   /* the result is copied in a stream that knows nothing of the step */
    READ_PAST,      /* more elements than the weights have */
    FREED_EARLY,    /* memory is freed with a step in flight */
    UNPINNED_EARLY, /* so is the input's pinned memory */
    UNLOADED_EARLY, /* so is the module */
    MISPLACED,      /* an address that is not aligned */
    PUT_UNAWAITED,  /* a copy from pageable memory without a stream counts as done */
    BUGS
} bug;

static const struct {
    const char *name;
    const char *says[2]; /* of the fault, one of these; NULL: wrong numbers do */
} bugs[BUGS] = {
    {"none", {NULL}},
    {"no wait", {NULL}},
    {"reused early", {"pinned bytes were written between the call and the copy"}},
    {"not awaited", {NULL}},
    {"wrong stream", {NULL}},
    {"read past", {"out of bounds"}},
    {"freed early", {"no allocation that is alive", "which was freed"}},
    {"unpinned early", {"its pinned source was freed"}},
    {"unloaded early", {"its module was unloaded"}},
    {"misplaced", {"misaligned"}},
    {"put unawaited", {NULL}},
};

typedef struct program {
    bug bug;
    CUcontext context;
    CUmodule module;
    CUfunction sum;
    CUstream copies, steps;
    CUevent loaded, done[2];
    CUdeviceptr weights, in, out, scratch;
    uint32_t *weights_host, *in_host[2], *out_host[2];
    bool wrong;
    CUresult error;
    char says[256]; /* the fault behind it */
} program;

/* The first error is kept, as a backend keeps it. */
static bool good(program *p, CUresult r)
{
    if (r && !p->error) {
        p->error = r;
        snprintf(p->says, sizeof p->says, "%s", fake_fault());
    }
    return !p->error;
}

static void open_program(program *p)
{
    const size_t bytes = N * sizeof(uint32_t);
    assert_int_equal(cuInit(0), 0);
    assert_int_equal(cuDevicePrimaryCtxRetain(&p->context, 0), 0);
    assert_int_equal(cuCtxSetCurrent(p->context), 0);
    assert_int_equal(cuModuleLoadData(&p->module, SUM_PTX), 0);
    assert_int_equal(cuModuleGetFunction(&p->sum, p->module, "k_sum"), 0);
    assert_int_equal(cuStreamCreate(&p->copies, CU_STREAM_NON_BLOCKING), 0);
    assert_int_equal(cuStreamCreate(&p->steps, CU_STREAM_NON_BLOCKING), 0);
    assert_int_equal(cuEventCreate(&p->loaded, CU_EVENT_DISABLE_TIMING), 0);
    CUdeviceptr *device[] = {&p->weights, &p->in, &p->out, &p->scratch};
    for (int i = 0; i < 4; i++)
        assert_int_equal(cuMemAlloc_v2(device[i], bytes), 0);
    assert_int_equal(cuMemHostAlloc((void **)&p->weights_host, bytes, 0), 0);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(cuEventCreate(&p->done[i], CU_EVENT_DISABLE_TIMING), 0);
        assert_int_equal(cuMemHostAlloc((void **)&p->in_host[i], bytes, 0), 0);
        assert_int_equal(cuMemHostAlloc((void **)&p->out_host[i], bytes, 0), 0);
    }
}

/* Everything goes back, also after an error; what a bug gave back already is refused. */
static void close_program(program *p)
{
    good(p, cuStreamSynchronize(p->steps));
    good(p, cuStreamSynchronize(p->copies));
    CUdeviceptr device[] = {p->weights, p->in, p->out, p->scratch};
    for (int i = 0; i < 4; i++)
        cuMemFree_v2(device[i]);
    cuMemFreeHost(p->weights_host);
    for (int i = 0; i < 2; i++) {
        cuEventDestroy_v2(p->done[i]);
        cuMemFreeHost(p->in_host[i]);
        cuMemFreeHost(p->out_host[i]);
    }
    cuEventDestroy_v2(p->loaded);
    cuStreamDestroy_v2(p->steps);
    cuStreamDestroy_v2(p->copies);
    cuModuleUnload(p->module);
    cuDevicePrimaryCtxRelease_v2(0);
}

static void load_weights(program *p)
{
    for (uint32_t i = 0; i < N; i++)
        p->weights_host[i] = 7 * i;
    const size_t bytes = N * sizeof(uint32_t);
    if (p->bug == PUT_UNAWAITED) {
        uint32_t pageable[N];
        memcpy(pageable, p->weights_host, bytes);
        good(p, cuMemcpyHtoD_v2(p->weights, pageable, bytes));
        return;
    }
    good(p, cuMemcpyHtoDAsync_v2(p->weights, p->weights_host, bytes, p->copies));
    good(p, cuEventRecord(p->loaded, p->copies));
    if (p->bug != NO_WAIT)
        good(p, cuStreamWaitEvent(p->steps, p->loaded, 0));
}

static uint32_t input_of(int step, uint32_t i)
{
    return 1000u * (uint32_t)step + i;
}

static void submit(program *p, int step)
{
    const size_t bytes = N * sizeof(uint32_t);
    int b = p->bug == REUSED_EARLY ? 0 : step % 2;
    for (uint32_t i = 0; i < N; i++)
        p->in_host[b][i] = input_of(step, i);
    good(p, cuMemcpyHtoDAsync_v2(p->in, p->in_host[b], bytes, p->steps));
    sum_args args = {p->in, p->weights, p->out, N, (uint32_t)step};
    args.n += p->bug == READ_PAST ? 20 : 0;
    args.b += p->bug == MISPLACED ? 2 : 0;
    void *parameters[] = {&args};
    good(p, cuLaunchKernel(p->sum, 3, 1, 1, 128, 1, 1, 0, p->steps, parameters, NULL));
    memset(&args, 0xee, sizeof args); /* they were copied */
    good(p, cuMemcpyDtoHAsync_v2(p->out_host[step % 2], p->out, bytes,
                                 p->bug == WRONG_STREAM ? p->copies : p->steps));
    good(p, cuEventRecord(p->done[step % 2], p->bug == WRONG_STREAM ? p->copies : p->steps));
}

static void collect(program *p, int step)
{
    if (p->bug != NOT_AWAITED && !good(p, cuEventSynchronize(p->done[step % 2])))
        return;
    for (uint32_t i = 0; i < N; i++)
        p->wrong |= p->out_host[step % 2][i] != input_of(step, i) + 7 * i + (uint32_t)step;
}

static void run_program(program *p, bug b)
{
    *p = (program){.bug = b};
    open_program(p);
    load_weights(p);
    submit(p, 0);
    for (int step = 0; step < STEPS; step++) {
        if (step + 1 < STEPS)
            submit(p, step + 1);
        if (b == FREED_EARLY && step == 2)
            cuMemFree_v2(p->out);
        if (b == UNPINNED_EARLY && step == 2)
            cuMemFreeHost(p->in_host[1]);
        if (b == UNLOADED_EARLY && step == 2)
            cuModuleUnload(p->module);
        if (!p->error)
            collect(p, step);
    }
    close_program(p);
}

static void begin(const char *mode, int seed)
{
    char text[16];
    snprintf(text, sizeof text, "%d", seed);
    setenv("FAKE_MODE", mode, 1);
    setenv("FAKE_SEED", text, 1);
    fake_reset();
}

static void a_right_program_is_right_in_every_order(void **state)
{
    (void)state;
    for (int i = 0; i < 2 * SEEDS; i++) {
        begin(i % 2 ? "eager" : "lazy", i / 2 + 1);
        program p;
        run_program(&p, NONE);
        assert_int_equal(p.error, 0);
        assert_false(p.wrong);
        assert_string_equal(fake_fault(), "");
        assert_int_equal(fake_leaks(), 0);
        assert_int_equal(fake_count("kernels"), STEPS);
        assert_int_equal(fake_count("pageable"), 0);
        assert_int_equal(fake_count("memory"), 0);
    }
}

static bool says(const program *p, const char *const words[2])
{
    return !words[0] || strstr(p->says, words[0]) || (words[1] && strstr(p->says, words[1]));
}

/* Lazily with any seed; eagerly with some, as work that runs at once hides what was not waited for.
 */
static void bugs_are_seen(void **state)
{
    (void)state;
    for (bug b = 1; b < BUGS; b++) {
        int seen[2] = {0};
        for (int i = 0; i < 2 * SEEDS; i++) {
            begin(i % 2 ? "eager" : "lazy", i / 2 + 1);
            program p;
            run_program(&p, b);
            if (!p.error && !p.wrong)
                continue;
            seen[i % 2]++;
            if (b == READ_PAST || b == MISPLACED)
                assert_int_equal(p.error, b == MISPLACED ? CUDA_ERROR_MISALIGNED_ADDRESS
                                                         : CUDA_ERROR_ILLEGAL_ADDRESS);
            if (!says(&p, bugs[b].says))
                fail_msg("%s: '%s'", bugs[b].name, p.says);
        }
        print_message("%s: seen with %d of %d seeds lazily, %d eagerly\n", bugs[b].name, seen[0],
                      SEEDS, seen[1]);
        assert_int_equal(seen[0], SEEDS);
        assert_true(seen[1] > 0);
    }
}

/* The default stream and one that blocks on it wait for each other; others do not. */
static void the_default_stream_orders_blocking_streams(void **state)
{
    (void)state;
    for (int nonblocking = 0; nonblocking < 2; nonblocking++) {
        begin("lazy", 1);
        CUcontext context;
        CUstream s;
        CUdeviceptr d;
        uint32_t v = 5, *out;
        assert_int_equal(cuInit(0), 0);
        assert_int_equal(cuDevicePrimaryCtxRetain(&context, 0), 0);
        assert_int_equal(cuCtxSetCurrent(context), 0);
        assert_int_equal(cuStreamCreate(&s, nonblocking ? CU_STREAM_NON_BLOCKING : 0), 0);
        assert_int_equal(cuMemAlloc_v2(&d, 4), 0);
        assert_int_equal(cuMemHostAlloc((void **)&out, 4, 0), 0);
        assert_int_equal(cuMemcpyHtoD_v2(d, &v, 4), 0); /* staged: nothing says when it arrives */
        assert_int_equal(cuMemcpyDtoHAsync_v2(out, d, 4, s), 0);
        assert_int_equal(cuStreamSynchronize(s), 0);
        assert_int_equal(*out, nonblocking ? 0xffffffffu : 5);
        assert_int_equal(cuMemsetD32Async(d, 9, 1, s), 0);
        assert_int_equal(cuMemcpyDtoH_v2(&v, d, 4), 0);
        assert_int_equal(v, nonblocking ? 5 : 9);
    }
}

/* Asked often enough, work that nobody waits for is done. */
static void a_query_says_yes_in_the_end(void **state)
{
    (void)state;
    for (int seed = 1; seed <= SEEDS; seed++) {
        begin("lazy", seed);
        CUcontext context;
        CUstream s;
        CUevent e, later;
        CUdeviceptr d;
        assert_int_equal(cuInit(0), 0);
        assert_int_equal(cuDevicePrimaryCtxRetain(&context, 0), 0);
        assert_int_equal(cuCtxSetCurrent(context), 0);
        assert_int_equal(cuStreamCreate(&s, CU_STREAM_NON_BLOCKING), 0);
        assert_int_equal(cuEventCreate(&e, 0), 0);
        assert_int_equal(cuEventCreate(&later, 0), 0);
        assert_int_equal(cuMemAlloc_v2(&d, 64), 0);
        assert_int_equal(cuEventQuery(e), 0); /* of no record */
        assert_int_equal(cuMemsetD8Async(d, 1, 64, s), 0);
        assert_int_equal(cuEventRecord(e, s), 0);
        assert_int_equal(cuMemsetD8Async(d, 2, 64, s), 0);
        assert_int_equal(cuEventRecord(later, s), 0);
        float ms;
        assert_int_equal(cuEventElapsedTime(&ms, e, later), CUDA_ERROR_NOT_READY);
        int asked = 0;
        CUresult r;
        while ((r = cuEventQuery(e)) == CUDA_ERROR_NOT_READY)
            assert_true(++asked < 1000);
        assert_int_equal(r, 0);
        assert_int_equal(fake_count("memset_bytes"), 64); /* and no more than that event wants */
        while ((r = cuStreamQuery(s)) == CUDA_ERROR_NOT_READY)
            assert_true(++asked < 1000);
        assert_int_equal(r, 0);
        assert_int_equal(cuEventElapsedTime(&ms, e, later), 0);
        assert_true(ms >= 0.0f);
    }
}

/* What stands in a stream when an event is recorded counts, not what comes after, nor a record that
 * comes after the wait. */
static void a_wait_is_for_the_record_of_its_time(void **state)
{
    (void)state;
    begin("lazy", 3);
    CUcontext context;
    CUstream a, b;
    CUevent e;
    CUdeviceptr d;
    uint32_t *out;
    assert_int_equal(cuInit(0), 0);
    assert_int_equal(cuDevicePrimaryCtxRetain(&context, 0), 0);
    assert_int_equal(cuCtxSetCurrent(context), 0);
    assert_int_equal(cuStreamCreate(&a, CU_STREAM_NON_BLOCKING), 0);
    assert_int_equal(cuStreamCreate(&b, CU_STREAM_NON_BLOCKING), 0);
    assert_int_equal(cuEventCreate(&e, CU_EVENT_DISABLE_TIMING), 0);
    assert_int_equal(cuMemAlloc_v2(&d, 4), 0);
    assert_int_equal(cuMemHostAlloc((void **)&out, 4, 0), 0);
    assert_int_equal(cuMemsetD32Async(d, 1, 1, a), 0);
    assert_int_equal(cuEventRecord(e, a), 0);
    assert_int_equal(cuStreamWaitEvent(b, e, 0), 0);
    assert_int_equal(cuMemsetD32Async(d, 2, 1, a), 0);
    assert_int_equal(cuEventRecord(e, a), 0);
    assert_int_equal(cuMemcpyDtoHAsync_v2(out, d, 4, b), 0);
    assert_int_equal(cuStreamSynchronize(b), 0);
    assert_int_equal(*out, 1);
    assert_int_equal(cuEventSynchronize(e), 0);
    assert_int_equal(cuMemcpyDtoHAsync_v2(out, d, 4, b), 0);
    assert_int_equal(cuStreamSynchronize(b), 0);
    assert_int_equal(*out, 2);
}

/* A source that is not pinned was read when the call returns; what goes to such memory is there. */
static void pageable_memory_is_read_at_the_call(void **state)
{
    (void)state;
    begin("lazy", 1);
    CUcontext context;
    CUstream s;
    CUdeviceptr d;
    uint32_t v = 5, out = 0;
    assert_int_equal(cuInit(0), 0);
    assert_int_equal(cuDevicePrimaryCtxRetain(&context, 0), 0);
    assert_int_equal(cuCtxSetCurrent(context), 0);
    assert_int_equal(cuStreamCreate(&s, CU_STREAM_NON_BLOCKING), 0);
    assert_int_equal(cuMemAlloc_v2(&d, 4), 0);
    assert_int_equal(cuMemcpyHtoDAsync_v2(d, &v, 4, s), 0);
    v = 6;
    assert_int_equal(cuMemcpyDtoHAsync_v2(&out, d, 4, s), 0);
    assert_int_equal(out, 5);
    assert_int_equal(fake_count("pageable"), 2);
}

/* Said when it is given back, though nobody runs the work any more. */
static void what_work_names_may_not_go(void **state)
{
    (void)state;
    for (int i = 0; i < 5; i++) {
        begin("lazy", 1);
        program p = {0};
        open_program(&p);
        sum_args args = {p.in, p.weights, p.out, 1, 0};
        void *parameters[] = {&args};
        if (i == 1)
            cuMemcpyHtoDAsync_v2(p.in, p.in_host[0], 4, p.steps);
        else if (i == 2)
            cuMemcpyDtoHAsync_v2(p.in_host[0], p.in, 4, p.steps);
        else if (i >= 3)
            cuLaunchKernel(p.sum, 1, 1, 1, 1, 1, 1, 0, p.steps, parameters, NULL);
        cuMemFree_v2(p.scratch); /* no work names these */
        cuMemFreeHost(p.in_host[1]);
        assert_int_equal(fake_count("faults"), 0);
        if (i == 4)
            cuModuleUnload(p.module);
        else
            cuMemFree_v2(i == 3 ? p.weights : p.in);
        cuMemFreeHost(p.in_host[0]);
        assert_int_equal(fake_count("faults"), i == 0 ? 0 : i < 3 ? 2 : 1);
    }
}

static void *without_context(void *seen)
{
    CUdeviceptr d;
    *(CUresult *)seen = cuMemAlloc_v2(&d, 4);
    return NULL;
}

static void a_context_belongs_to_a_thread(void **state)
{
    (void)state;
    begin("lazy", 1);
    CUcontext context;
    CUdeviceptr d;
    assert_int_equal(cuMemAlloc_v2(&d, 4), CUDA_ERROR_NOT_INITIALIZED);
    assert_int_equal(cuInit(0), 0);
    assert_int_equal(cuMemAlloc_v2(&d, 4), CUDA_ERROR_INVALID_CONTEXT);
    assert_int_equal(cuDevicePrimaryCtxRetain(&context, 0), 0);
    assert_int_equal(cuCtxSetCurrent(context), 0);
    assert_int_equal(cuMemAlloc_v2(&d, 4), 0);
    CUresult seen = CUDA_SUCCESS;
    pthread_t t;
    pthread_create(&t, NULL, without_context, &seen);
    pthread_join(t, NULL);
    assert_int_equal(seen, CUDA_ERROR_INVALID_CONTEXT);
    assert_int_equal(cuDevicePrimaryCtxRelease_v2(0), 0);
    assert_int_equal(cuMemAlloc_v2(&d, 4), CUDA_ERROR_INVALID_CONTEXT);
    assert_int_equal(cuDevicePrimaryCtxRelease_v2(0), CUDA_ERROR_INVALID_CONTEXT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_right_program_is_right_in_every_order),
        cmocka_unit_test(bugs_are_seen),
        cmocka_unit_test(the_default_stream_orders_blocking_streams),
        cmocka_unit_test(a_query_says_yes_in_the_end),
        cmocka_unit_test(a_wait_is_for_the_record_of_its_time),
        cmocka_unit_test(pageable_memory_is_read_at_the_call),
        cmocka_unit_test(what_work_names_may_not_go),
        cmocka_unit_test(a_context_belongs_to_a_thread),
    };
    return cmocka_run_group_tests_name("fake streams", tests, NULL, NULL);
}
