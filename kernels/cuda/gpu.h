/*
 * gpu: one device, through the driver's library. Internal to kernels/cuda.
 *
 * A cuda_gpu belongs to one backend: the library, the device's primary context, the modules, and
 * the books of the memory that was taken. Several threads may be in here at once; each has made the
 * context its own by cp_cuda_enter. Errors name the call, the driver's name of the error and its
 * text. CP_NO_MEMORY: the device's or the budget's memory is at an end; CP_DEVICE_FAILED: all else.
 */
#ifndef CP_KERNELS_CUDA_GPU_H
#define CP_KERNELS_CUDA_GPU_H

#include "kernels/cuda/cuda.h"
#include "kernels/cuda/driver.h"

#include <pthread.h>
#include <stdatomic.h>

enum { CUDA_MODULES = 64, CUDA_FUNCTIONS = 512, CUDA_NAME = 64, CUDA_MEMORY_ALIGN = 512 };

/* A module that was loaded, by the number of its image. */
typedef struct cuda_module {
    CUmodule module;
    int image;
} cuda_module;

/* A kernel that was asked for. */
typedef struct cuda_known {
    char name[CUDA_NAME];
    cuda_kernel function;
} cuda_known;

struct cuda_gpu {
    cuda_driver api;
    int driver;  /* its version as cuDriverGetVersion says it: 13000 is 13.0 */
    int ordinal; /* N of cuda:N; -1: none yet */
    CUdevice device;
    CUcontext context;                  /* NULL: not retained */
    char name[96], uuid[48], level[16]; /* "NVIDIA H100 80GB HBM3", "GPU-…", "sm_90" */
    int capability;                     /* 90 of sm_90 */
    int multiprocessors, shared_bytes;  /* shared: of a block, at most */
    uint64_t total, cap;                /* bytes of the device; of them ours at most */
    _Atomic uint64_t taken;
    CUstream copies;       /* of put and get */
    pthread_mutex_t sizes; /* of kernels' shared memory, from asking for one to the launch */
    pthread_mutex_t lock;  /* guards what follows; held for as long as a driver compiles */
    cuda_module modules[CUDA_MODULES];
    int n_modules;
    cuda_known known[CUDA_FUNCTIONS];
    int n_known;
};

/* A stream, and the event that marks the end of what was enqueued last. */
typedef struct cuda_stream {
    CUstream stream;
    CUevent done;
} cuda_stream;

/* device: "cuda" (NULL: the same), "cuda:N", or a UUID as the driver writes it ("GPU-…", "MIG-…").
 * budget 0: 90 % of what is free. CP_USAGE: it is none of these; CP_UNSUPPORTED: no library, no
 * such device, or one that the kernels do not run on; CP_DEVICE_FAILED. */
cp_code cp_cuda_gpu_open(cuda_gpu **out, const char *device, uint64_t budget, cp_err *err);
void cp_cuda_gpu_close(cuda_gpu *gpu);

/* The context is this thread's from here on. Before anything below. */
cp_code cp_cuda_enter(const cuda_gpu *gpu, cp_err *err);
/* CP_OK for CUDA_SUCCESS; else what `call` came to. */
cp_code cp_cuda_check(const cuda_gpu *gpu, CUresult result, const char *call, cp_err *err);
/* CUDA_TRY(gpu, call(arguments), err): returns from the caller when the call fails. */
#define CUDA_TRY(gpu, call, err)                                                                   \
    do {                                                                                           \
        cp_code rc_ = cp_cuda_check(gpu, (gpu)->api.call, #call, err);                             \
        if (rc_ != CP_OK)                                                                          \
            return rc_;                                                                            \
    } while (0)

/* n > 0 bytes within the budget. give: the driver waits for what uses them. */
cp_code cp_cuda_take(cuda_gpu *gpu, cp_mem *m, size_t n, bool zeroed, cp_err *err);
void cp_cuda_give(cuda_gpu *gpu, cp_mem *m);
/* Memory of this process that copies may run from and to while the host goes on. */
cp_code cp_cuda_pinned_take(cuda_gpu *gpu, void **p, size_t n, cp_err *err);
void cp_cuda_pinned_give(cuda_gpu *gpu, void *p); /* NULL is fine */
/* Done when they return. */
cp_code cp_cuda_copy_in(cuda_gpu *gpu, cp_addr to, const void *from, size_t n, cp_err *err);
cp_code cp_cuda_copy_out(cuda_gpu *gpu, void *to, cp_addr from, size_t n, cp_err *err);

cp_code cp_cuda_stream_new(cuda_gpu *gpu, cuda_stream **out, cp_err *err);
void cp_cuda_stream_free(cuda_gpu *gpu, cuda_stream *s); /* NULL is fine */
/* Mark the end of what was enqueued; wait for the latest mark, beating meanwhile as cp_batch says
 * (NULL: for nobody), until the device is thought to hang; wait for all of it. */
cp_code cp_cuda_stream_mark(cuda_gpu *gpu, cuda_stream *s, cp_err *err);
cp_code cp_cuda_stream_await(cuda_gpu *gpu, cuda_stream *s, _Atomic int64_t *beat, cp_err *err);
/* Who has waited so long sleeps for nap_ns before asking again, or asks at once, and says that the
 * device works (beats), or no longer. */
typedef struct cuda_patience {
    int64_t nap_ns;
    bool beats;
} cuda_patience;
cuda_patience cp_cuda_patience(int64_t waited_ns);
cp_code cp_cuda_stream_drain(cuda_gpu *gpu, cuda_stream *s, cp_err *err);

/* The kernel `name`, whose image is loaded where it is not yet. CP_UNSUPPORTED: no image has it. */
cp_code cp_cuda_function(cuda_gpu *gpu, const char *name, cuda_kernel *out, cp_err *err);

#endif
