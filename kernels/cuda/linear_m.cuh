/*
 * linear_m.cuh: k_linear_m, linears of panels of several kinds in one launch (linear_int.cuh): each
 * matrix says of which kind it is, and a block goes where that of its outputs is. For steps of few
 * rows, which a launch for each kind would hold up. The file that includes this says how many tiles
 * of eight rows a block has, CUDA_NT.
 */
#include "kernels/cuda/linear_int.cuh"

/* Sums of one kind. Tiles go two at a time, and half as many blocks of K are under way as in a
 * kernel of the kind's own, since what all kinds have in common takes registers, too. */
template <class K, int NT>
DEV_FN void cuda_sums_of_kind(const cuda_linear_args &a, const cuda_share &s, const uint8_t *panel,
                              int segment, float acc[NT][8])
{
    enum { STEP = NT == 1 ? 1 : 2, UNROLL = NT == 1 ? K::unroll / 2 : 1 };
#pragma unroll
    for (int n = 0; n < NT; n += STEP)
        cuda_linear_q<K, STEP>::template sums<UNROLL>(a, s, panel, segment, n, acc + n);
}

/* The kind of each number. */
template <int NUMBER> struct cuda_numbered;
#define X(name, bits, codes, form, offset, block, head)                                            \
    template <> struct cuda_numbered<CUDA_KIND_##name> {                                           \
        typedef cuda_##name kind;                                                                  \
    };
CP_INT_PANELS(X)
#undef X

/* Sums of the kind `number`, which is from FIRST to LAST: halved until one is left. */
template <int FIRST, int LAST, int NT>
DEV_FN void cuda_sums_of_number(int number, const cuda_linear_args &a, const cuda_share &s,
                                const uint8_t *panel, int segment, float acc[NT][8])
{
    enum { MIDDLE = (FIRST + LAST + 1) / 2 };
    if constexpr (FIRST == LAST)
        cuda_sums_of_kind<typename cuda_numbered<FIRST>::kind, NT>(a, s, panel, segment, acc);
    else if (number < MIDDLE)
        cuda_sums_of_number<FIRST, MIDDLE - 1, NT>(number, a, s, panel, segment, acc);
    else
        cuda_sums_of_number<MIDDLE, LAST, NT>(number, a, s, panel, segment, acc);
}

template <int NT> struct cuda_linear_m {
    typedef struct weights {
        const uint8_t *panel;
        int kind;
    } weights;

    /* Where a lane's panel begins is the same for all kinds. */
    static DEV_MEMBER weights weights_of(const cuda_linear_args &a, const cuda_share &s, int i)
    {
        weights w = {cuda_linear_q<cuda_N4H, NT>::weights_of(a, s, i), a.parts[s.part].w[i].kind};
        return w;
    }

    static DEV_MEMBER void results(const cuda_linear_args &a, const cuda_share &s, weights w,
                                   int segment, float *results)
    {
        float acc[NT][8];
        cuda_clear<NT>(acc);
        cuda_sums_of_number<0, CUDA_KINDS - 1, NT>(w.kind, a, s, w.panel, segment, acc);
        cuda_put_results<NT>(acc, threadIdx.x % CUDA_WARP, results);
    }
};

DEV_KERNEL_RESIDENT(CUDA_SEGMENT_WARPS *CUDA_WARP, 2)
CUDA_NAME(const __grid_constant__ cuda_linear_args a)
{
    cuda_linear<cuda_linear_m<CUDA_NT>, CUDA_NT, CUDA_FOR_F16>(a);
}
