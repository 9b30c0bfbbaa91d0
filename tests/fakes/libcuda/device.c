/*
 * The driver itself, its devices and their primary contexts, and the names of errors.
 */
#include "tests/fakes/libcuda/fake.h"

#include <stdio.h>
#include <string.h>

CUresult cuGetErrorName(CUresult error, const char **name)
{
    switch ((int)error) {
#define ERROR(id, number, text)                                                                    \
    case number:                                                                                   \
        *name = #id;                                                                               \
        return CUDA_SUCCESS;
#include "tests/fakes/libcuda/errors.def"
#undef ERROR
    default:
        *name = NULL;
        return CUDA_ERROR_INVALID_VALUE;
    }
}

CUresult cuGetErrorString(CUresult error, const char **text)
{
    switch ((int)error) {
#define ERROR(id, number, words)                                                                   \
    case number:                                                                                   \
        *text = words;                                                                             \
        return CUDA_SUCCESS;
#include "tests/fakes/libcuda/errors.def"
#undef ERROR
    default:
        *text = NULL;
        return CUDA_ERROR_INVALID_VALUE;
    }
}

CUresult cuInit(unsigned int flags)
{
    CUresult r = fake_enter(FAKE_cuInit);
    if (!r && flags)
        r = CUDA_ERROR_INVALID_VALUE;
    if (!r && !fake.gpus)
        r = CUDA_ERROR_NO_DEVICE;
    if (!r)
        fake.initialized = true;
    return fake_leave(r);
}

CUresult cuDriverGetVersion(int *version)
{
    CUresult r = fake_enter(FAKE_cuDriverGetVersion);
    if (!r)
        *version = fake.driver;
    return fake_leave(r);
}

/* A call about device d is allowed. */
static CUresult enter_device(fake_call call, CUdevice d)
{
    CUresult r = fake_enter(call);
    if (!r && !fake.initialized)
        r = CUDA_ERROR_NOT_INITIALIZED;
    if (!r && (d < 0 || d >= fake.gpus))
        r = CUDA_ERROR_INVALID_DEVICE;
    return r;
}

CUresult cuDeviceGetCount(int *count)
{
    CUresult r = enter_device(FAKE_cuDeviceGetCount, 0);
    if (!r)
        *count = fake.gpus;
    return fake_leave(r);
}

CUresult cuDeviceGet(CUdevice *device, int ordinal)
{
    CUresult r = enter_device(FAKE_cuDeviceGet, ordinal);
    if (!r)
        *device = ordinal;
    return fake_leave(r);
}

CUresult cuDeviceGetName(char *name, int n, CUdevice d)
{
    CUresult r = enter_device(FAKE_cuDeviceGetName, d);
    if (!r)
        snprintf(name, (size_t)n, "fake sm_%d", fake.cc);
    return fake_leave(r);
}

CUresult cuDeviceGetUuid_v2(CUuuid *uuid, CUdevice d)
{
    CUresult r = enter_device(FAKE_cuDeviceGetUuid_v2, d);
    if (!r) {
        memcpy(uuid->bytes, "capstan's fake ", 15);
        uuid->bytes[15] = (char)d;
    }
    return fake_leave(r);
}

CUresult cuDeviceTotalMem_v2(size_t *bytes, CUdevice d)
{
    CUresult r = enter_device(FAKE_cuDeviceTotalMem_v2, d);
    if (!r)
        *bytes = fake.memory;
    return fake_leave(r);
}

/* By number: names that kernels/cuda does not ask for are not there without cuda.h. */
static bool attribute(int which, int *value)
{
    const int rows[][2] = {
        {1, FAKE_BLOCK_THREADS}, /* MAX_THREADS_PER_BLOCK */
        {2, 1024},               /* MAX_BLOCK_DIM_X */
        {3, 1024},
        {4, 64},
        {5, 2147483647}, /* MAX_GRID_DIM_X */
        {6, 65535},
        {7, 65535},
        {8, FAKE_SHARED},      /* MAX_SHARED_MEMORY_PER_BLOCK */
        {10, 32},              /* WARP_SIZE */
        {12, 65536},           /* MAX_REGISTERS_PER_BLOCK */
        {13, 1410000},         /* CLOCK_RATE, kHz */
        {16, 4},               /* MULTIPROCESSOR_COUNT */
        {18, 0},               /* INTEGRATED */
        {19, 1},               /* CAN_MAP_HOST_MEMORY */
        {20, 0},               /* COMPUTE_MODE */
        {31, 1},               /* CONCURRENT_KERNELS */
        {32, 0},               /* ECC_ENABLED */
        {36, 1215000},         /* MEMORY_CLOCK_RATE, kHz */
        {37, 5120},            /* GLOBAL_MEMORY_BUS_WIDTH, bits */
        {38, 40 << 20},        /* L2_CACHE_SIZE */
        {39, FAKE_SM_THREADS}, /* MAX_THREADS_PER_MULTIPROCESSOR */
        {40, 2},               /* ASYNC_ENGINE_COUNT */
        {41, 1},               /* UNIFIED_ADDRESSING */
        {75, fake.cc / 10},
        {76, fake.cc % 10},
        {81, FAKE_SHARED_SM},    /* MAX_SHARED_MEMORY_PER_MULTIPROCESSOR */
        {82, 65536},             /* MAX_REGISTERS_PER_MULTIPROCESSOR */
        {97, FAKE_SHARED_OPTIN}, /* MAX_SHARED_MEMORY_PER_BLOCK_OPTIN */
        {106, FAKE_SM_BLOCKS},   /* MAX_BLOCKS_PER_MULTIPROCESSOR */
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        if (rows[i][0] == which) {
            *value = rows[i][1];
            return true;
        }
    }
    return false;
}

CUresult cuDeviceGetAttribute(int *value, CUdevice_attribute which, CUdevice d)
{
    CUresult r = enter_device(FAKE_cuDeviceGetAttribute, d);
    if (!r && !attribute((int)which, value))
        r = fake_wrong(CUDA_ERROR_INVALID_VALUE, "cuDeviceGetAttribute: %d has no row", (int)which);
    return fake_leave(r);
}

CUresult cuDevicePrimaryCtxRetain(CUcontext *out, CUdevice d)
{
    CUresult r = enter_device(FAKE_cuDevicePrimaryCtxRetain, d);
    if (r)
        return fake_leave(r);
    fake_device *device = &fake.devices[d];
    if (!device->retained && fake.memory < FAKE_CONTEXT_BYTES)
        return fake_leave(CUDA_ERROR_OUT_OF_MEMORY);
    if (!device->retained++)
        device->used += FAKE_CONTEXT_BYTES;
    *out = (CUcontext)(void *)device;
    return fake_leave(CUDA_SUCCESS);
}

/* Given back even where it fails; what the context still has then is reported at exit. */
CUresult cuDevicePrimaryCtxRelease_v2(CUdevice d)
{
    CUresult r = enter_device(FAKE_cuDevicePrimaryCtxRelease_v2, d);
    if (d < 0 || d >= fake.gpus)
        return fake_leave(r);
    if (!fake.devices[d].retained)
        r = fake_wrong(CUDA_ERROR_INVALID_CONTEXT, "the primary context was not retained");
    else if (!--fake.devices[d].retained)
        fake.devices[d].used -= FAKE_CONTEXT_BYTES;
    return fake_leave(r);
}

CUresult cuCtxSetCurrent(CUcontext context)
{
    CUresult r = fake_enter(FAKE_cuCtxSetCurrent);
    fake_device *d = NULL;
    for (int i = 0; i < fake.gpus; i++) {
        if ((CUcontext)(void *)&fake.devices[i] == context && fake.devices[i].retained)
            d = &fake.devices[i];
    }
    if (!r && context && !d)
        r = fake_wrong(CUDA_ERROR_INVALID_CONTEXT, "cuCtxSetCurrent: no context");
    if (!r)
        fake_set_here(d);
    return fake_leave(r);
}
