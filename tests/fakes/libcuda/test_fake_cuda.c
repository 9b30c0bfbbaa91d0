/*
 * test_fake_cuda: what the fake driver refuses, how it fails on demand, what it counts. The
 * driver's own rules come from its API reference; each is broken once.
 */
#include "tests/fakes/libcuda/api.h"
#include "tests/fakes/libcuda/kernels.h"
#include "tests/fakes/libcuda/libcuda_fake.h"

#include "tests/support/cmocka.h"

#include <dlfcn.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *const variables[] = {
    "FAKE_MODE", "FAKE_SEED",   "FAKE_MEMORY",   "FAKE_GPUS",           "FAKE_CC",
    "FAKE_FAIL", "FAKE_REPORT", "FAKE_COVERAGE", "FAKE_DRIVER_VERSION", "FAKE_LIMIT"};

/* A fresh driver; name=value, or NULL. */
static void begin(const char *setting)
{
    for (size_t i = 0; i < sizeof variables / sizeof *variables; i++)
        unsetenv(variables[i]);
    if (setting) {
        char text[128];
        snprintf(text, sizeof text, "%s", setting);
        char *value = strchr(text, '=');
        *value++ = 0;
        setenv(text, value, 1);
    }
    fake_reset();
}

static void begin_here(const char *setting)
{
    begin(setting);
    CUcontext context;
    assert_int_equal(cuInit(0), 0);
    assert_int_equal(cuDevicePrimaryCtxRetain(&context, 0), 0);
    assert_int_equal(cuCtxSetCurrent(context), 0);
}

static CUfunction function(const char *name)
{
    CUmodule m;
    CUfunction f;
    assert_int_equal(cuModuleLoadData(&m, SUM_PTX), 0);
    assert_int_equal(cuModuleGetFunction(&f, m, name), 0);
    return f;
}

/* ---- devices ---- */

static void devices_are_as_many_as_wished(void **state)
{
    (void)state;
    int n;
    begin("FAKE_GPUS=0");
    assert_int_equal(cuInit(0), CUDA_ERROR_NO_DEVICE);
    assert_int_equal(cuDeviceGetCount(&n), CUDA_ERROR_NOT_INITIALIZED);
    begin("FAKE_GPUS=3");
    assert_int_equal(cuInit(0), 0);
    assert_int_equal(cuDeviceGetCount(&n), 0);
    assert_int_equal(n, 3);
    CUdevice d;
    assert_int_equal(cuDeviceGet(&d, 3), CUDA_ERROR_INVALID_DEVICE);
    assert_int_equal(cuDeviceGet(&d, 2), 0);
    CUuuid two, one;
    assert_int_equal(cuDeviceGetUuid_v2(&two, 2), 0);
    assert_int_equal(cuDeviceGetUuid_v2(&one, 1), 0);
    assert_memory_not_equal(&one, &two, sizeof one);
    char name[32];
    assert_int_equal(cuDeviceGetName(name, sizeof name, 0), 0);
    assert_string_equal(name, "fake sm_80");
    begin("FAKE_CC=90");
    assert_int_equal(cuInit(0), 0);
    int major, minor;
    assert_int_equal(cuDeviceGetAttribute(&major, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, 0),
                     0);
    assert_int_equal(cuDeviceGetAttribute(&minor, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, 0),
                     0);
    assert_int_equal(10 * major + minor, 90);
    assert_int_equal(cuDeviceGetAttribute(&major, (CUdevice_attribute)9999, 0),
                     CUDA_ERROR_INVALID_VALUE);
}

static void what_is_on_one_device_is_not_on_another(void **state)
{
    (void)state;
    begin("FAKE_GPUS=2");
    CUcontext c[2];
    CUstream s;
    CUevent e;
    assert_int_equal(cuInit(0), 0);
    assert_int_equal(cuDevicePrimaryCtxRetain(&c[0], 0), 0);
    assert_int_equal(cuDevicePrimaryCtxRetain(&c[1], 1), 0);
    assert_int_equal(cuCtxSetCurrent(c[0]), 0);
    assert_int_equal(cuStreamCreate(&s, 0), 0);
    assert_int_equal(cuEventCreate(&e, 0), 0);
    assert_int_equal(cuCtxSetCurrent(c[1]), 0);
    assert_int_equal(cuStreamSynchronize(s), CUDA_ERROR_INVALID_HANDLE);
    assert_int_equal(cuEventQuery(e), CUDA_ERROR_INVALID_HANDLE);
    CUdeviceptr d;
    size_t available, total;
    assert_int_equal(cuMemAlloc_v2(&d, 1 << 20), 0);
    assert_int_equal(cuCtxSetCurrent(c[0]), 0);
    assert_int_equal(cuMemGetInfo_v2(&available, &total), 0);
    assert_int_equal(total - available, 4 << 20); /* the context's own */
}

/* ---- memory ---- */

static void memory_ends(void **state)
{
    (void)state;
    begin_here("FAKE_MEMORY=64M");
    size_t available, total, n;
    CUdeviceptr a, b;
    assert_int_equal(cuDeviceTotalMem_v2(&n, 0), 0);
    assert_int_equal(n, 64 << 20);
    assert_int_equal(cuMemGetInfo_v2(&available, &total), 0);
    assert_int_equal(available, 60 << 20);
    assert_int_equal(cuMemAlloc_v2(&a, available + 1), CUDA_ERROR_OUT_OF_MEMORY);
    assert_int_equal(cuMemAlloc_v2(&a, SIZE_MAX), CUDA_ERROR_OUT_OF_MEMORY);
    assert_int_equal(cuMemAlloc_v2(&a, 0), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(cuMemAlloc_v2(&a, available), 0);
    assert_int_equal(cuMemAlloc_v2(&b, 1), CUDA_ERROR_OUT_OF_MEMORY);
    assert_int_equal(cuMemFree_v2(a), 0);
    assert_int_equal(cuMemAlloc_v2(&b, 1), 0);
    assert_int_not_equal(a, b); /* an address is used once */
    assert_int_equal(fake_count("memory_peak"), 60 << 20);
}

static void memory_is_poisoned(void **state)
{
    (void)state;
    begin_here(NULL);
    const size_t sizes[] = {1000, 9 << 20};
    for (int i = 0; i < 2; i++) {
        CUdeviceptr d;
        unsigned char *out = malloc(sizes[i]);
        assert_int_equal(cuMemAlloc_v2(&d, sizes[i]), 0);
        assert_int_equal(d % 256, 0);
        assert_int_equal(cuMemcpyDtoH_v2(out, d, sizes[i]), 0);
        for (size_t at = 0; at < sizes[i]; at++)
            assert_int_equal(out[at], 0xff);
        assert_int_equal(cuMemsetD8Async(d + 1, 0, sizes[i] - 2, NULL), 0);
        assert_int_equal(cuMemcpyDtoH_v2(out, d, sizes[i]), 0);
        assert_int_equal(out[0], 0xff);
        assert_int_equal(out[1], 0);
        assert_int_equal(out[sizes[i] - 1], 0xff);
        free(out);
    }
}

static void a_host_cannot_follow_a_device_address(void **state)
{
    (void)state;
    begin_here(NULL);
    CUdeviceptr d;
    assert_int_equal(cuMemAlloc_v2(&d, 64), 0);
    assert_true(d >> 52 & 1);
    pid_t child = fork();
    if (!child) {
        signal(SIGSEGV, SIG_DFL);
        signal(SIGBUS, SIG_DFL);
        _exit(*(volatile int *)(uintptr_t)d == 1);
    }
    int status;
    waitpid(child, &status, 0);
    assert_true(WIFSIGNALED(status) || WEXITSTATUS(status) > 1); /* sanitizers exit */
}

static void what_is_no_memory_is_refused(void **state)
{
    (void)state;
    begin_here(NULL);
    CUdeviceptr d, e;
    unsigned char host[256] = {0};
    void *pinned;
    assert_int_equal(cuMemAlloc_v2(&d, 100), 0);
    assert_int_equal(cuMemAlloc_v2(&e, 100), 0);
    assert_int_equal(cuMemHostAlloc(&pinned, 100, 0), 0);
    assert_int_equal(cuMemcpyHtoD_v2(d, host, 101), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(cuMemcpyHtoD_v2(d + 50, host, 51), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(cuMemcpyHtoD_v2((uintptr_t)host, host, 1), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(cuMemcpyDtoH_v2(host, d - 1, 2), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(cuMemcpyDtoDAsync_v2(d, e, 101, NULL), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(cuMemcpyDtoDAsync_v2(d, e, 100, NULL), 0);
    assert_int_equal(fake_count("dtod_bytes"), 0);
    assert_int_equal(cuCtxSynchronize(), 0);
    assert_int_equal(fake_count("dtod_bytes"), 100);
    assert_int_equal(cuMemsetD8Async(d, 0, 101, NULL), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(cuMemsetD32Async(d + 2, 0, 1, NULL), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(cuMemcpyHtoDAsync_v2(d, (char *)pinned + 90, 20, NULL),
                     CUDA_ERROR_INVALID_VALUE); /* half of it is not pinned */
    assert_int_equal(cuMemFree_v2(d + 4), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(cuMemFree_v2(d), 0);
    assert_int_equal(cuMemFree_v2(d), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(cuMemcpyHtoD_v2(d, host, 1), CUDA_ERROR_INVALID_VALUE);
    assert_non_null(strstr(fake_fault(), "which was freed"));
    assert_int_equal(cuMemFreeHost((char *)pinned + 1), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(cuMemFreeHost(pinned), 0);
    assert_int_equal(cuMemFreeHost(pinned), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(fake_leaks(), 2); /* e and the context */
}

/* A kernel reaches pinned memory by an address of its own. */
static void pinned_memory_can_be_mapped(void **state)
{
    (void)state;
    begin_here(NULL);
    uint32_t *host;
    CUdeviceptr d;
    assert_int_equal(cuMemHostAlloc((void **)&host, 512, 2), 0);
    assert_int_equal(cuMemHostGetDevicePointer_v2(&d, host, 0), 0);
    for (uint32_t i = 0; i < 64; i++)
        host[i] = i;
    CUfunction f = function("k_sum");
    sum_args args = {d, d, d + 256, 64, 1};
    void *parameters[] = {&args};
    assert_int_equal(cuLaunchKernel(f, 1, 1, 1, 64, 1, 1, 0, NULL, parameters, NULL), 0);
    assert_int_equal(host[64], 0xffffffffu);
    assert_int_equal(cuCtxSynchronize(), 0);
    assert_int_equal(host[64 + 9], 19);
    uint32_t other;
    assert_int_equal(cuMemHostGetDevicePointer_v2(&d, &other, 0), CUDA_ERROR_INVALID_VALUE);
}

/* ---- modules and launches ---- */

static void images_are_looked_at(void **state)
{
    (void)state;
    begin_here(NULL);
    CUmodule m;
    const uint32_t fatbin[2] = {0xba55ed50}, wrapper[2] = {0x466243b1};
    assert_int_equal(cuModuleLoadData(&m, "\177ELF of a cubin"), CUDA_ERROR_NO_BINARY_FOR_GPU);
    assert_int_equal(cuModuleLoadData(&m, fatbin), CUDA_ERROR_NO_BINARY_FOR_GPU);
    assert_int_equal(cuModuleLoadData(&m, wrapper), CUDA_ERROR_NO_BINARY_FOR_GPU);
    assert_int_equal(cuModuleLoadData(&m, "hello, world"), CUDA_ERROR_INVALID_IMAGE);
    assert_int_equal(cuModuleLoadData(&m, SUM_PTX_OF("8.0", "sm_90")),
                     CUDA_ERROR_NO_BINARY_FOR_GPU);
    assert_int_equal(cuModuleLoadData(&m, SUM_PTX_OF("9.1", "sm_80")),
                     CUDA_ERROR_UNSUPPORTED_PTX_VERSION);
    assert_int_equal(cuModuleLoadData(&m, SUM_PTX_OF("9.0", "sm_80")), 0);
    char log[100] = "";
    CUjit_option options[] = {CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES};
    void *values[] = {log, (void *)sizeof log};
    assert_int_equal(cuModuleLoadDataEx(&m,
                                        ".version 8.0\n.target sm_80\n.address_size 64\n"
                                        ".visible .entry k()\n{\nmanifestly.wrong;\n}\n",
                                        2, options, values),
                     CUDA_ERROR_INVALID_PTX);
    assert_non_null(strstr(log, "manifestly.wrong"));
    begin_here("FAKE_DRIVER_VERSION=12040");
    int version;
    assert_int_equal(cuDriverGetVersion(&version), 0);
    assert_int_equal(version, 12040);
    assert_int_equal(cuModuleLoadData(&m, SUM_PTX_OF("8.5", "sm_80")),
                     CUDA_ERROR_UNSUPPORTED_PTX_VERSION);
    assert_int_equal(cuModuleLoadData(&m, SUM_PTX_OF("9.0", "sm_80")),
                     CUDA_ERROR_UNSUPPORTED_PTX_VERSION);
    assert_int_equal(cuModuleLoadData(&m, SUM_PTX_OF("8.4", "sm_80")), 0);
    CUfunction f;
    assert_int_equal(cuModuleGetFunction(&f, m, "k_su"), CUDA_ERROR_NOT_FOUND);
    assert_int_equal(cuModuleGetFunction(&f, m, "k_sum"), 0);
    assert_int_equal(cuModuleUnload(m), 0);
    assert_int_equal(cuModuleUnload(m), CUDA_ERROR_INVALID_HANDLE);
    assert_int_equal(cuModuleGetFunction(&f, m, "k_sum"), CUDA_ERROR_INVALID_HANDLE);
}

static void a_kernel_without_end_is_ended(void **state)
{
    (void)state;
    begin_here("FAKE_LIMIT=8"); /* k_sum's blocks execute 2 x 12 */
    sum_args args = {0};
    void *one[] = {&args};
    assert_int_equal(cuLaunchKernel(function("k_sum"), 1, 1, 1, 64, 1, 1, 0, NULL, one, NULL), 0);
    assert_int_not_equal(cuCtxSynchronize(), 0);
    assert_non_null(strstr(fake_fault(), "no end after 8"));
}

static void launches_are_looked_at(void **state)
{
    (void)state;
    begin_here(NULL);
    CUfunction f = function("k_sum"), two = function("k_two"), shared = function("k_shared");
    sum_args args = {0};
    void *one[] = {&args};
    size_t n = sizeof args;
    void *extra[] = {(void *)1, &args, (void *)2, &n, NULL};
    assert_int_equal(cuLaunchKernel(f, 1, 1, 1, 64, 1, 1, 0, NULL, one, NULL), 0);
    assert_int_equal(cuLaunchKernel(f, 1, 1, 1, 64, 1, 1, 0, NULL, NULL, extra), 0);
    n--;
    const CUresult no = CUDA_ERROR_INVALID_VALUE;
    assert_int_equal(cuLaunchKernel(f, 1, 1, 1, 64, 1, 1, 0, NULL, NULL, extra), no);
    assert_int_equal(cuLaunchKernel(f, 1, 1, 1, 64, 1, 1, 0, NULL, NULL, NULL), no);
    assert_int_equal(cuLaunchKernel(two, 1, 1, 1, 64, 1, 1, 0, NULL, one, NULL), no);
    assert_int_equal(cuLaunchKernel(f, 0, 1, 1, 64, 1, 1, 0, NULL, one, NULL), no);
    assert_int_equal(cuLaunchKernel(f, 1, 65536, 1, 64, 1, 1, 0, NULL, one, NULL), no);
    assert_int_equal(cuLaunchKernel(f, 1, 1, 1, 0, 1, 1, 0, NULL, one, NULL), no);
    assert_int_equal(cuLaunchKernel(f, 1, 1, 1, 129, 1, 1, 0, NULL, one, NULL), no); /* bounds */
    assert_int_equal(cuLaunchKernel(shared, 1, 1, 1, 1, 1, 65, 0, NULL, NULL, NULL), no);
    assert_int_equal(cuLaunchKernel(shared, 1, 1, 1, 1025, 1, 1, 0, NULL, one, NULL), no);
    assert_int_equal(cuLaunchKernel(shared, 1, 1, 1, 1024, 1, 1, 47 << 10, NULL, one, NULL), 0);
    assert_int_equal(cuLaunchKernel(shared, 1, 1, 1, 1, 1, 1, (47 << 10) + 1, NULL, one, NULL), no);
    const CUfunction_attribute most = CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
    assert_int_equal(cuFuncSetAttribute(shared, most, (98 << 10) + 1), no);
    assert_int_equal(cuFuncSetAttribute(shared, most, 98 << 10), 0);
    int value;
    assert_int_equal(cuFuncGetAttribute(&value, most, shared), 0);
    assert_int_equal(value, 98 << 10);
    assert_int_equal(cuFuncGetAttribute(&value, (CUfunction_attribute)1, shared), 0);
    assert_int_equal(value, 1024);
    assert_int_equal(cuLaunchKernel(shared, 1, 1, 1, 1, 1, 1, 98 << 10, NULL, one, NULL), 0);
    assert_int_equal(
        cuLaunchKernel((CUfunction)(void *)&args, 1, 1, 1, 1, 1, 1, 0, NULL, one, NULL),
        CUDA_ERROR_INVALID_HANDLE);
    assert_int_equal(cuOccupancyMaxActiveBlocksPerMultiprocessor(&value, shared, 256, 0), 0);
    assert_int_equal(value, 8);
    assert_int_equal(cuOccupancyMaxActiveBlocksPerMultiprocessor(&value, shared, 64, 31 << 10), 0);
    assert_int_equal(value, 3);
    assert_int_equal(cuOccupancyMaxActiveBlocksPerMultiprocessor(&value, f, 129, 0), 0);
    assert_int_equal(value, 0);
    assert_int_equal(cuCtxSynchronize(), 0);
    assert_int_equal(fake_count("kernels"), 4);
}

/* ---- failures on demand ---- */

static CUresult make(const char *call)
{
    CUdeviceptr d;
    void *p;
    CUstream s;
    CUevent e;
    if (!strcmp(call, "cuMemAlloc_v2"))
        return cuMemAlloc_v2(&d, 8);
    if (!strcmp(call, "cuMemHostAlloc"))
        return cuMemHostAlloc(&p, 8, 0);
    if (!strcmp(call, "cuStreamCreate"))
        return cuStreamCreate(&s, 0);
    if (!strcmp(call, "cuEventCreate"))
        return cuEventCreate(&e, 0);
    return cuStreamSynchronize(NULL);
}

static void the_nth_call_fails(void **state)
{
    (void)state;
    const char *calls[] = {"cuMemAlloc_v2", "cuMemHostAlloc", "cuStreamCreate", "cuEventCreate"};
    for (int i = 0; i < 4; i++) {
        char setting[64];
        snprintf(setting, sizeof setting, "FAKE_FAIL=%s:2", calls[i]);
        begin_here(setting);
        assert_int_equal(make(calls[i]), 0);
        assert_int_equal(make(calls[i]), CUDA_ERROR_OUT_OF_MEMORY);
        assert_int_equal(make(calls[i]), 0); /* it was about that one */
        assert_int_equal(fake_calls(calls[i]), 3);
        assert_int_equal(fake_count("injected"), 1);
        assert_int_equal(fake_leaks(), 3);
    }
    begin_here("FAKE_FAIL=cuMemAlloc_v2:1:999");
    assert_int_equal(make("cuMemAlloc_v2"), CUDA_ERROR_UNKNOWN);
}

/* A broken context answers with its error ever after, takes back what it gave, and does no work. */
static void a_context_breaks_for_good(void **state)
{
    (void)state;
    const char *settings[] = {"FAKE_FAIL=cuMemcpyHtoDAsync_v2:1", "FAKE_FAIL=kernel:1",
                              "FAKE_FAIL=cuStreamSynchronize:1:700"};
    for (int i = 0; i < 3; i++) {
        begin_here(settings[i]);
        CUfunction f = function("k_shared");
        CUdeviceptr d;
        CUevent e;
        uint32_t v = 1;
        const CUresult broken = i < 2 ? CUDA_ERROR_LAUNCH_FAILED : CUDA_ERROR_ILLEGAL_ADDRESS;
        assert_int_equal(cuMemAlloc_v2(&d, 64), 0);
        assert_int_equal(cuEventCreate(&e, 0), 0);
        assert_int_equal(cuMemcpyHtoDAsync_v2(d, &v, 4, NULL), i ? 0 : broken);
        assert_int_equal(cuLaunchKernel(f, 1, 1, 1, 1, 1, 1, 0, NULL, NULL, NULL), i ? 0 : broken);
        assert_int_equal(cuStreamSynchronize(NULL), broken);
        assert_int_equal(cuStreamSynchronize(NULL), broken);
        assert_int_equal(make("cuMemAlloc_v2"), broken);
        assert_int_equal(cuMemcpyDtoH_v2(&v, d, 4), broken);
        assert_int_equal(v, 1);
        assert_int_equal(cuEventDestroy_v2(e), broken);
        assert_int_equal(cuMemFree_v2(d), broken);
        assert_int_equal(fake_leaks(), 2); /* the module, and the context */
        assert_int_equal(cuDevicePrimaryCtxRelease_v2(0), 0);
        assert_int_equal(fake_leaks(), 1);
    }
}

/* What cannot mean what it says ends the process, so that no test passes by it. */
static void settings_that_mean_nothing_end_the_process(void **state)
{
    (void)state;
    const char *settings[] = {"FAKE_FAIL=cuMemAlloc:1", "FAKE_FAIL=cuMemAlloc_v2",
                              "FAKE_FAIL=cuInit:0",     "FAKE_MODE=random",
                              "FAKE_MEMORY=big",        "FAKE_GPUS=99"};
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) {
        pid_t child = fork();
        if (!child) {
            close(STDERR_FILENO);
            begin(settings[i]);
            _exit(0);
        }
        int status;
        waitpid(child, &status, 0);
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), 99);
    }
}

static void errors_have_names(void **state)
{
    (void)state;
    const char *name, *text;
    assert_int_equal(cuGetErrorName(CUDA_ERROR_ILLEGAL_ADDRESS, &name), 0);
    assert_string_equal(name, "CUDA_ERROR_ILLEGAL_ADDRESS");
    assert_int_equal(cuGetErrorString(CUDA_ERROR_OUT_OF_MEMORY, &text), 0);
    assert_string_equal(text, "out of memory");
    assert_int_equal(cuGetErrorName((CUresult)12345, &name), CUDA_ERROR_INVALID_VALUE);
    assert_null(name);
}

/* ---- reports ---- */

/* In a process of its own, as both are written at exit. */
static void report(const char *out, const char *coverage)
{
    pid_t child = fork();
    if (!child) {
        begin(NULL);
        setenv("FAKE_REPORT", out, 1);
        setenv("FAKE_COVERAGE", coverage, 1);
        fake_reset();
        CUcontext c;
        cuInit(0);
        cuDevicePrimaryCtxRetain(&c, 0);
        cuCtxSetCurrent(c);
        sum_args args = {.n = 0};
        void *parameters[] = {&args};
        cuLaunchKernel(function("k_sum"), 2, 1, 1, 64, 1, 1, 0, NULL, parameters, NULL);
        cuCtxSynchronize();
        make("cuMemAlloc_v2");
        exit(0);
    }
    int status;
    waitpid(child, &status, 0);
    assert_int_equal(status, 0);
}

static char *contents(const char *path)
{
    static char text[1 << 16];
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    text[fread(text, 1, sizeof text - 1, f)] = 0;
    fclose(f);
    return text;
}

static void reports_are_written_at_exit(void **state)
{
    (void)state;
    char dir[] = "/tmp/fake_cuda.XXXXXX", out[64], coverage[64];
    assert_non_null(mkdtemp(dir));
    snprintf(out, sizeof out, "%s/report", dir);
    snprintf(coverage, sizeof coverage, "%s/coverage", dir);
    report(out, coverage);
    const char *text = contents(out);
    assert_non_null(strstr(text, "\"cuMemAlloc_v2\": 1"));
    assert_non_null(strstr(text, "\"kernels\": 1"));
    assert_non_null(strstr(text,
                           "\"leaks\": {\"memory\": 1, \"pinned\": 0, \"streams\": 0, "
                           "\"events\": 0, \"modules\": 1, \"contexts\": 1, \"handles\": 0}"));
    report(out, coverage); /* appends */
    text = contents(coverage);
    int ran = 0, not = 0;
    for (const char *at = text; (at = strstr(at, "\tk_sum\t")) != NULL; at++) {
        char opcode[32];
        unsigned long long executed;
        assert_int_equal(sscanf(at, "\tk_sum\t%*d\t%llu\t%31s", &executed, opcode), 2);
        /* no element: all lanes leave at the branch */
        if (!strncmp(opcode, "ld.global", 9) || !strncmp(opcode, "st.global", 9)) {
            assert_int_equal(executed, 0);
            not ++;
        }
        if (!strncmp(opcode, "setp", 4)) {
            assert_int_equal(executed, 4); /* warps */
            ran++;
        }
    }
    assert_int_equal(ran, 2);
    assert_int_equal(not, 6);
    unlink(out);
    unlink(coverage);
    rmdir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(
            reports_are_written_at_exit), /* first: each text that was loaded is in it */
        cmocka_unit_test(devices_are_as_many_as_wished),
        cmocka_unit_test(what_is_on_one_device_is_not_on_another),
        cmocka_unit_test(memory_ends),
        cmocka_unit_test(memory_is_poisoned),
        cmocka_unit_test(a_host_cannot_follow_a_device_address),
        cmocka_unit_test(what_is_no_memory_is_refused),
        cmocka_unit_test(pinned_memory_can_be_mapped),
        cmocka_unit_test(images_are_looked_at),
        cmocka_unit_test(launches_are_looked_at),
        cmocka_unit_test(a_kernel_without_end_is_ended),
        cmocka_unit_test(the_nth_call_fails),
        cmocka_unit_test(a_context_breaks_for_good),
        cmocka_unit_test(settings_that_mean_nothing_end_the_process),
        cmocka_unit_test(errors_have_names),
    };
    return cmocka_run_group_tests_name("fake cuda", tests, NULL, NULL);
}
