/*
 * api: the types and prototypes of the driver. Internal to tests/fakes/libcuda.
 *
 * They are cuda.h's where the build has it: a function here that differs from its
 * prototype there does not compile. Elsewhere they are those of kernels/cuda/driver.h, and of the
 * few calls that only tests make.
 */
#ifndef CP_TESTS_FAKE_API_H
#define CP_TESTS_FAKE_API_H

#pragma GCC visibility push(default)
#include "kernels/cuda/driver.h"

#ifndef CUDA_H
#define X(member, symbol, parameters) CUresult symbol parameters;
CUDA_DRIVER(X)
#undef X

CUresult cuCtxSynchronize(void);
CUresult cuFuncGetAttribute(int *value, CUfunction_attribute attribute, CUfunction function);
CUresult cuMemcpyHtoD_v2(CUdeviceptr to, const void *from, size_t n);
CUresult cuMemcpyDtoH_v2(void *to, CUdeviceptr from, size_t n);
CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr to, CUdeviceptr from, size_t n, CUstream stream);
CUresult cuMemsetD32Async(CUdeviceptr to, unsigned int value, size_t n, CUstream stream);
CUresult cuModuleLoadData(CUmodule *out, const void *image);
CUresult cuStreamQuery(CUstream stream);
CUresult cuOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, CUfunction function, int threads,
                                                     size_t shared);

/* Numbers that driver.h has no use for. */
#define CUDA_ERROR_INVALID_VALUE           ((CUresult)1)
#define CUDA_ERROR_NOT_INITIALIZED         ((CUresult)3)
#define CUDA_ERROR_INVALID_DEVICE          ((CUresult)101)
#define CUDA_ERROR_INVALID_CONTEXT         ((CUresult)201)
#define CUDA_ERROR_ECC_UNCORRECTABLE       ((CUresult)214)
#define CUDA_ERROR_INVALID_PTX             ((CUresult)218)
#define CUDA_ERROR_INVALID_HANDLE          ((CUresult)400)
#define CUDA_ERROR_ILLEGAL_ADDRESS         ((CUresult)700)
#define CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES ((CUresult)701)
#define CUDA_ERROR_LAUNCH_TIMEOUT          ((CUresult)702)
#define CUDA_ERROR_ASSERT                  ((CUresult)710)
#define CUDA_ERROR_MISALIGNED_ADDRESS      ((CUresult)716)
#define CUDA_ERROR_LAUNCH_FAILED           ((CUresult)719)
#define CUDA_ERROR_UNKNOWN                 ((CUresult)999)
#endif
CUresult cuEventElapsedTime(float *ms, CUevent start, CUevent end); /* today's macro hides it */
CUresult cuStreamWaitEvent(CUstream stream, CUevent event, unsigned int flags); /* not asked for */
#pragma GCC visibility pop

#endif
