/*
 * Zeroes and copies of pages and state slots: see pages.cu.
 */
#include "kernels/cuda/pages.h"

#include "kernels/cuda/cuda.h"

cp_code cp_cuda_pages_bind(cuda_run *run, cp_err *err)
{
    return cp_cuda_kernel(run, "k_pages", &run->pages, err);
}

cp_code cp_cuda_pages_enqueue(cuda_run *run, const cp_batch *batch, cp_err *err)
{
    const cp_prepared *p = run->p;
    if (!batch->n_zero_pages && !batch->n_copies && !batch->n_state_copies)
        return CP_OK;
    cuda_pages_args a = {.step = run->step,
                         .pages = p->pages.at,
                         .states = p->states.at,
                         .page_bytes = p->page_bytes,
                         .state_bytes = p->state_bytes};
    size_t bytes = p->page_bytes > p->state_bytes ? p->page_bytes : p->state_bytes;
    size_t block = CUDA_PAGES_THREADS * 16;
    return cp_cuda_launch(run, run->pages,
                          (cuda_dim){(unsigned)((bytes + block - 1) / block), 1, 1},
                          (cuda_dim){CUDA_PAGES_THREADS, 1, 1}, 0, &a, err);
}
