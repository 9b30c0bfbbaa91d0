/*
 * driver: what of CUDA's driver API is called, as one table of functions that are looked up by
 * name. Internal to kernels/cuda.
 *
 * Nothing is linked: gpu.c opens the driver's library and fills a cuda_driver from the table. The
 * prototypes here are the project's own, so that a build needs no header of CUDA's; where there is
 * one (CUDA_H) types come from it, and each prototype and each number below is held against it
 * while compiling. Any thread may call, with the context made current on it.
 */
#ifndef CP_KERNELS_CUDA_DRIVER_H
#define CP_KERNELS_CUDA_DRIVER_H

#include <stddef.h>

/* X(name, number) */
#define CUDA_RESULTS(X)                                                                            \
    X(CUDA_SUCCESS, 0)                                                                             \
    X(CUDA_ERROR_OUT_OF_MEMORY, 2)                                                                 \
    X(CUDA_ERROR_NO_DEVICE, 100)                                                                   \
    X(CUDA_ERROR_INVALID_IMAGE, 200)                                                               \
    X(CUDA_ERROR_NO_BINARY_FOR_GPU, 209)                                                           \
    X(CUDA_ERROR_UNSUPPORTED_PTX_VERSION, 222)                                                     \
    X(CUDA_ERROR_NOT_FOUND, 500)                                                                   \
    X(CUDA_ERROR_NOT_READY, 600)
#define CUDA_DEVICE_ATTRIBUTES(X)                                                                  \
    X(CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, 16)                                                \
    X(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, 75)                                            \
    X(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, 76)                                            \
    X(CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN, 97)
#define CUDA_FUNCTION_ATTRIBUTES(X) X(CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, 8)
#define CUDA_JIT_OPTIONS(X)                                                                        \
    X(CU_JIT_ERROR_LOG_BUFFER, 5)                                                                  \
    X(CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES, 6)
#define CUDA_FLAGS(X)                                                                              \
    X(CU_STREAM_NON_BLOCKING, 1)                                                                   \
    X(CU_EVENT_DISABLE_TIMING, 2)

#if defined(CAPSTAN_CUDA) && CAPSTAN_CUDA && __has_include(<cuda.h>)
#define CUDA_H
#include <cuda.h>
#define X(name, number) _Static_assert((int)name == (number), #name);
CUDA_RESULTS(X)
CUDA_DEVICE_ATTRIBUTES(X)
CUDA_FUNCTION_ATTRIBUTES(X)
CUDA_JIT_OPTIONS(X)
CUDA_FLAGS(X)
#undef X
#else
#define X(name, number) name = (number),
typedef enum cuda_result { CUDA_RESULTS(X) } CUresult;
typedef enum cuda_device_attribute { CUDA_DEVICE_ATTRIBUTES(X) } CUdevice_attribute;
typedef enum cuda_function_attribute { CUDA_FUNCTION_ATTRIBUTES(X) } CUfunction_attribute;
typedef enum cuda_jit_option { CUDA_JIT_OPTIONS(X) } CUjit_option;
enum { CUDA_FLAGS(X) };
#undef X
typedef int CUdevice;
typedef unsigned long long CUdeviceptr;
typedef struct CUctx_st *CUcontext;
typedef struct CUmod_st *CUmodule;
typedef struct CUfunc_st *CUfunction;
typedef struct CUstream_st *CUstream;
typedef struct CUevent_st *CUevent;
typedef struct CUuuid_st {
    char bytes[16];
} CUuuid;
#endif

/* X(member, symbol with its version, parameters); each returns a CUresult. */
#define CUDA_DRIVER(X)                                                                             \
    X(init, cuInit, (unsigned int flags))                                                          \
    X(driver_version, cuDriverGetVersion, (int *version))                                          \
    X(error_name, cuGetErrorName, (CUresult error, const char **name))                             \
    X(error_string, cuGetErrorString, (CUresult error, const char **text))                         \
    X(device_count, cuDeviceGetCount, (int *count))                                                \
    X(device, cuDeviceGet, (CUdevice * device, int ordinal))                                       \
    X(device_name, cuDeviceGetName, (char *name, int n, CUdevice device))                          \
    X(device_uuid, cuDeviceGetUuid_v2, (CUuuid * uuid, CUdevice device))                           \
    X(device_memory, cuDeviceTotalMem_v2, (size_t * bytes, CUdevice device))                       \
    X(device_attribute, cuDeviceGetAttribute,                                                      \
      (int *value, CUdevice_attribute attribute, CUdevice device))                                 \
    X(context_retain, cuDevicePrimaryCtxRetain, (CUcontext * context, CUdevice device))            \
    X(context_release, cuDevicePrimaryCtxRelease_v2, (CUdevice device))                            \
    X(context_set, cuCtxSetCurrent, (CUcontext context))                                           \
    X(memory_info, cuMemGetInfo_v2, (size_t * available, size_t * total))                          \
    X(memory_take, cuMemAlloc_v2, (CUdeviceptr * at, size_t bytes))                                \
    X(memory_give, cuMemFree_v2, (CUdeviceptr at))                                                 \
    X(pinned_take, cuMemHostAlloc, (void **at, size_t bytes, unsigned int flags))                  \
    X(pinned_give, cuMemFreeHost, (void *at))                                                      \
    X(pinned_address, cuMemHostGetDevicePointer_v2,                                                \
      (CUdeviceptr * at, void *pinned, unsigned int flags))                                        \
    X(copy_in, cuMemcpyHtoDAsync_v2,                                                               \
      (CUdeviceptr to, const void *from, size_t bytes, CUstream stream))                           \
    X(copy_out, cuMemcpyDtoHAsync_v2, (void *to, CUdeviceptr from, size_t bytes, CUstream stream)) \
    X(fill, cuMemsetD8Async, (CUdeviceptr at, unsigned char value, size_t bytes, CUstream stream)) \
    X(module_load, cuModuleLoadDataEx,                                                             \
      (CUmodule * module, const void *image, unsigned int n_options, CUjit_option *options,        \
       void **values))                                                                             \
    X(module_unload, cuModuleUnload, (CUmodule module))                                            \
    X(module_function, cuModuleGetFunction,                                                        \
      (CUfunction * function, CUmodule module, const char *name))                                  \
    X(function_set, cuFuncSetAttribute,                                                            \
      (CUfunction function, CUfunction_attribute attribute, int value))                            \
    X(launch, cuLaunchKernel,                                                                      \
      (CUfunction function, unsigned int grid_x, unsigned int grid_y, unsigned int grid_z,         \
       unsigned int block_x, unsigned int block_y, unsigned int block_z,                           \
       unsigned int shared_bytes, CUstream stream, void **parameters, void **extra))               \
    X(stream_new, cuStreamCreate, (CUstream * stream, unsigned int flags))                         \
    X(stream_free, cuStreamDestroy_v2, (CUstream stream))                                          \
    X(stream_wait, cuStreamSynchronize, (CUstream stream))                                         \
    X(event_new, cuEventCreate, (CUevent * event, unsigned int flags))                             \
    X(event_free, cuEventDestroy_v2, (CUevent event))                                              \
    X(event_record, cuEventRecord, (CUevent event, CUstream stream))                               \
    X(event_wait, cuEventSynchronize, (CUevent event))                                             \
    X(event_query, cuEventQuery, (CUevent event))

#define X(member, symbol, parameters) typedef CUresult cuda_##member##_fn parameters;
CUDA_DRIVER(X)
#undef X

#ifdef CUDA_H
#define X(member, symbol, parameters)                                                              \
    _Static_assert(__builtin_types_compatible_p(__typeof__(symbol), cuda_##member##_fn), #symbol);
CUDA_DRIVER(X)
#undef X
#endif

typedef struct cuda_driver {
#define X(member, symbol, parameters) cuda_##member##_fn *member;
    CUDA_DRIVER(X)
#undef X
} cuda_driver;

#endif
