/*
 * Copies and fills. A copy from pinned memory reads it when it runs: a source that is another by
 * then than at the call is a fault by name, as are an end that was freed in between and a place
 * outside of an allocation. A copy from pageable memory has read it when the call returns, and its
 * bytes may reach the device later all the same; a copy to pageable memory is done at the return.
 */
#include "tests/fakes/libcuda/fake.h"

#include <string.h>

static uint64_t sum_of(const unsigned char *p, size_t n)
{
    uint64_t h = n, w;
    for (; n >= 8; p += 8, n -= 8) {
        memcpy(&w, p, 8);
        h = (h ^ w) * 0x9e3779b97f4a7c15u;
        h ^= h >> 29;
    }
    for (; n; p++, n--)
        h = (h ^ *p) * 0x100000001b3u;
    return h;
}

static bool still_pinned(const fake_op *op)
{
    bool partly;
    return !op->pinned || fake_range_of_host(op->host, op->n, &partly);
}

static CUresult run_htod(fake_op *op)
{
    void *to = fake_bytes(op->to, op->n, "copy to the device");
    if (!to)
        return CUDA_ERROR_ILLEGAL_ADDRESS;
    if (!still_pinned(op))
        return fake_wrong(CUDA_ERROR_ILLEGAL_ADDRESS,
                          "copy to the device: its pinned source was freed before it ran");
    if (op->pinned && sum_of(op->host, op->n) != op->sum)
        return fake_wrong(CUDA_ERROR_LAUNCH_FAILED,
                          "copy to the device: %zu pinned bytes were written between the call and "
                          "the copy",
                          op->n);
    memcpy(to, op->host ? op->host : op->data, op->n);
    fake.count.htod_bytes += op->n;
    return CUDA_SUCCESS;
}

static CUresult run_dtoh(fake_op *op)
{
    const void *from = fake_bytes(op->from, op->n, "copy to the host");
    if (!from)
        return CUDA_ERROR_ILLEGAL_ADDRESS;
    if (!still_pinned(op))
        return fake_wrong(CUDA_ERROR_ILLEGAL_ADDRESS,
                          "copy to the host: its pinned target was freed before it ran");
    memcpy(op->host, from, op->n);
    fake.count.dtoh_bytes += op->n;
    return CUDA_SUCCESS;
}

static CUresult run_dtod(fake_op *op)
{
    void *to = fake_bytes(op->to, op->n, "copy on the device");
    const void *from = fake_bytes(op->from, op->n, "copy on the device");
    if (!to || !from)
        return CUDA_ERROR_ILLEGAL_ADDRESS;
    memmove(to, from, op->n);
    fake.count.dtod_bytes += op->n;
    return CUDA_SUCCESS;
}

static CUresult run_fill8(fake_op *op)
{
    void *to = fake_bytes(op->to, op->n, "fill");
    if (!to)
        return CUDA_ERROR_ILLEGAL_ADDRESS;
    memset(to, (int)op->value, op->n);
    fake.count.memset_bytes += op->n;
    return CUDA_SUCCESS;
}

static CUresult run_fill32(fake_op *op)
{
    unsigned char *to = fake_bytes(op->to, op->n, "fill");
    if (!to)
        return CUDA_ERROR_ILLEGAL_ADDRESS;
    for (size_t i = 0; i < op->n; i += 4)
        memcpy(to + i, &op->value, 4);
    fake.count.memset_bytes += op->n;
    return CUDA_SUCCESS;
}

/* ---- calls ---- */

/* sync: the call waits as the calls without a stream do. */
static CUresult htod(CUdeviceptr to, const void *from, size_t n, CUstream stream, bool sync)
{
    fake_stream *s = fake_stream_of(stream);
    if (!s)
        return fake_wrong(CUDA_ERROR_INVALID_HANDLE, "copy to the device: no stream");
    if (!n)
        return CUDA_SUCCESS;
    bool partly;
    bool pinned = fake_range_of_host(from, n, &partly) != NULL;
    if (!from || partly || !fake_bytes(to, n, "copy to the device"))
        return CUDA_ERROR_INVALID_VALUE;
    fake_op *op = fake_op_new(run_htod, pinned ? 0 : n);
    op->to = to;
    op->n = n;
    op->pinned = pinned;
    fake.count.pageable += !pinned;
    if (pinned) {
        op->host = (void *)(uintptr_t)from;
        op->sum = sum_of(from, n);
    } else {
        memcpy(op->data, from, n);
    }
    CUresult r = fake_push(s, op);
    return r || !sync || !pinned ? r : fake_run_to(s, s->issued);
}

static CUresult dtoh(void *to, CUdeviceptr from, size_t n, CUstream stream, bool sync)
{
    fake_stream *s = fake_stream_of(stream);
    if (!s)
        return fake_wrong(CUDA_ERROR_INVALID_HANDLE, "copy to the host: no stream");
    if (!n)
        return CUDA_SUCCESS;
    bool partly;
    bool pinned = fake_range_of_host(to, n, &partly) != NULL;
    if (!to || partly || !fake_bytes(from, n, "copy to the host"))
        return CUDA_ERROR_INVALID_VALUE;
    fake_op *op = fake_op_new(run_dtoh, 0);
    op->from = from;
    op->host = to;
    op->n = n;
    op->pinned = pinned;
    fake.count.pageable += !pinned;
    CUresult r = fake_push(s, op);
    return r || (pinned && !sync) ? r : fake_run_to(s, s->issued);
}

static CUresult dtod(CUdeviceptr to, CUdeviceptr from, size_t n, CUstream stream)
{
    fake_stream *s = fake_stream_of(stream);
    if (!s)
        return fake_wrong(CUDA_ERROR_INVALID_HANDLE, "copy on the device: no stream");
    if (!n)
        return CUDA_SUCCESS;
    if (!fake_bytes(to, n, "copy on the device") || !fake_bytes(from, n, "copy on the device"))
        return CUDA_ERROR_INVALID_VALUE;
    fake_op *op = fake_op_new(run_dtod, 0);
    op->to = to;
    op->from = from;
    op->n = n;
    return fake_push(s, op);
}

/* n in bytes, of elements of width bytes. */
static CUresult fill(CUdeviceptr to, unsigned value, size_t n, unsigned width, CUstream stream)
{
    fake_stream *s = fake_stream_of(stream);
    if (!s)
        return fake_wrong(CUDA_ERROR_INVALID_HANDLE, "fill: no stream");
    if (!n)
        return CUDA_SUCCESS;
    if (to % width || !fake_bytes(to, n, "fill"))
        return CUDA_ERROR_INVALID_VALUE;
    fake_op *op = fake_op_new(width == 1 ? run_fill8 : run_fill32, 0);
    op->to = to;
    op->value = value;
    op->n = n;
    return fake_push(s, op);
}

CUresult cuMemcpyHtoD_v2(CUdeviceptr to, const void *from, size_t n)
{
    CUresult r = fake_enter(FAKE_cuMemcpyHtoD_v2);
    return fake_leave(r ? r : htod(to, from, n, NULL, true));
}

CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void *from, size_t n, CUstream stream)
{
    CUresult r = fake_enter(FAKE_cuMemcpyHtoDAsync_v2);
    return fake_leave(r ? r : htod(to, from, n, stream, false));
}

CUresult cuMemcpyDtoH_v2(void *to, CUdeviceptr from, size_t n)
{
    CUresult r = fake_enter(FAKE_cuMemcpyDtoH_v2);
    return fake_leave(r ? r : dtoh(to, from, n, NULL, true));
}

CUresult cuMemcpyDtoHAsync_v2(void *to, CUdeviceptr from, size_t n, CUstream stream)
{
    CUresult r = fake_enter(FAKE_cuMemcpyDtoHAsync_v2);
    return fake_leave(r ? r : dtoh(to, from, n, stream, false));
}

CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr to, CUdeviceptr from, size_t n, CUstream stream)
{
    CUresult r = fake_enter(FAKE_cuMemcpyDtoDAsync_v2);
    return fake_leave(r ? r : dtod(to, from, n, stream));
}

CUresult cuMemsetD8Async(CUdeviceptr to, unsigned char value, size_t n, CUstream stream)
{
    CUresult r = fake_enter(FAKE_cuMemsetD8Async);
    return fake_leave(r ? r : fill(to, value, n, 1, stream));
}

CUresult cuMemsetD32Async(CUdeviceptr to, unsigned int value, size_t n, CUstream stream)
{
    CUresult r = fake_enter(FAKE_cuMemsetD32Async);
    return fake_leave(r ? r : fill(to, value, 4 * n, 4, stream));
}
