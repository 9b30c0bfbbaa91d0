/*
 * Zeroes and copies of pages and state slots, before the records of a step.
 *
 * A thread has its own 16 bytes of every page and of every state slot, and does to them all that
 * the step says, in its order: a page that is zeroed may be copied from, and a copy may be copied
 * on, with no thread waiting for another.
 */
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/pages.h"

DEV_FN void copy_16(uint8_t *at, uint64_t unit, cuda_copy c)
{
    *(uint4 *)(at + c.dst * unit) = *(const uint4 *)(at + c.src * unit);
}

DEV_KERNEL(CUDA_PAGES_THREADS) k_pages(const __grid_constant__ cuda_pages_args a)
{
    const cuda_step *s = a.step;
    uint64_t at = ((uint64_t)blockIdx.x * CUDA_PAGES_THREADS + threadIdx.x) * 16;
    if (at < a.page_bytes) {
        for (int i = 0; i < s->n_zero_pages; i++)
            *(uint4 *)(a.pages + s->zero_pages[i] * a.page_bytes + at) = make_uint4(0, 0, 0, 0);
        for (int i = 0; i < s->n_copies; i++)
            copy_16(a.pages + at, a.page_bytes, s->copies[i]);
    }
    if (at < a.state_bytes)
        for (int i = 0; i < s->n_state_copies; i++)
            copy_16(a.states + at, a.state_bytes, s->state_copies[i]);
}
