/*
 * rows_matrix: mma.sync and dp4a. PTX ISA: Warp Level Matrix Instructions, dp4a.
 *
 * In a register of 32 lanes, the four lanes of a group (lane / 4) hold 16 bytes that follow each
 * other in a row of A or a column of B: group g is row g of A (g + 8 in the odd registers) or
 * column g of B, and the register pair the half of k. So the register file is the matrix already.
 * Group g of the accumulators is row g (g + 8 in registers 2, 3), two columns a lane.
 *
 * f32: products are exact and summed in f32 in the order of k. Hardware has a rounding of its own
 * inside of an instruction, so results of a device differ in the last bits.
 */
#include "tests/ptxvm/half.h"
#include "tests/ptxvm/rows.h"

#ifdef __AVX2__
#include <immintrin.h>
#endif

/* op[]: d 0..3, a 4.., b, c. */
typedef union sums {
    int32_t s[16][8];
    float f[16][8];
} sums;

static void take_sums(ptx_warp *w, const ptx_inst *i, int at, sums *c)
{
    for (int n = 0; n < 4; n++) {
        const ptx_u32 *r = ptx_src(ptx_u32, at + n);
        PTX_LANES
        c->s[l / 4 + 8 * (n / 2)][2 * (l % 4) + n % 2] = (int32_t)r[l];
    }
}

static void put_sums(ptx_warp *w, const ptx_inst *i, const sums *c)
{
    for (int n = 0; n < 4; n++) {
        int32_t t[32];
        PTX_LANES
        t[l] = c->s[l / 4 + 8 * (n / 2)][2 * (l % 4) + n % 2];
        ptx_put(w, i, n, t, 4);
    }
}

/* Row m of A, words [word, word + 4) of it lie in register 2 * (word / 4) + m / 8. */
static const ptx_u32 *a_words(const ptx_warp *w, const ptx_inst *i, int m, int word)
{
    return ptx_src(ptx_u32, 4 + 2 * (word / 4) + m / 8) + 4 * (m % 8) + word % 4;
}

/* ---- f32 += 16-bit floats, k 16 ---- */

typedef float half_fn(uint16_t);

static inline void mma_half(ptx_warp *w, const ptx_inst *i, half_fn *value)
{
    if (!ptx_aligned(w, i))
        return;
    sums c;
    float b[16][8];
    take_sums(w, i, 10, &c);
    for (int n = 0; n < 2; n++) {
        const ptx_u32 *r = ptx_src(ptx_u32, 8 + n);
        PTX_LANES
        {
            b[8 * n + 2 * (l % 4)][l / 4] = value((uint16_t)r[l]);
            b[8 * n + 2 * (l % 4) + 1][l / 4] = value((uint16_t)(r[l] >> 16));
        }
    }
    for (int m = 0; m < 16; m++) {
        for (int k = 0; k < 16; k++) {
            const float a = value((uint16_t)(*a_words(w, i, m, k / 2) >> 16 * (k % 2)));
            for (int n = 0; n < 8; n++)
                c.f[m][n] += a * b[k][n];
        }
        for (int n = 0; n < 8; n++)
            c.f[m][n] = ptx_canonical(c.f[m][n]);
    }
    put_sums(w, i, &c);
}
static void mma_bf16(ptx_warp *w, const ptx_inst *i)
{
    mma_half(w, i, f32_of_bf16);
}
static void mma_f16(ptx_warp *w, const ptx_inst *i)
{
    mma_half(w, i, f32_of_f16);
}

/* ---- s32 += 8-bit integers, k 16 or 32; A u8 or s8, B s8 ---- */

/* b[word][column]: four numbers of a column of B. arg: the number of words, 4 or 8. */
static void take_b(ptx_warp *w, const ptx_inst *i, int words, uint32_t b[8][8])
{
    for (int n = 0; n < words / 4; n++) {
        const ptx_u32 *r = ptx_src(ptx_u32, 4 + words / 2 + n);
        PTX_LANES
        b[4 * n + l % 4][l / 4] = r[l];
    }
}

#ifdef __AVX2__
/* Pairs of numbers of 16 bits by multiply-add: the even and the odd ones of each word. */
static inline void mma_int(ptx_warp *w, const ptx_inst *i, int words, bool a_signed)
{
    sums c;
    uint32_t b[8][8];
    __m256i even[8], odd[8];
    take_sums(w, i, 4 + words / 2 + words / 4, &c);
    take_b(w, i, words, b);
    for (int k = 0; k < words; k++) {
        const __m256i v = _mm256_loadu_si256((const __m256i *)(const void *)b[k]);
        even[k] = _mm256_srai_epi16(_mm256_slli_epi16(v, 8), 8);
        odd[k] = _mm256_srai_epi16(v, 8);
    }
    for (int m = 0; m < 16; m++) {
        __m256i sum = _mm256_loadu_si256((const __m256i *)(const void *)c.s[m]);
        for (int k = 0; k < words; k++) {
            const __m256i v = _mm256_set1_epi32((int)*a_words(w, i, m, k));
            const __m256i high = _mm256_slli_epi16(v, 8);
            const __m256i e = a_signed ? _mm256_srai_epi16(high, 8) : _mm256_srli_epi16(high, 8);
            const __m256i o = a_signed ? _mm256_srai_epi16(v, 8) : _mm256_srli_epi16(v, 8);
            sum = _mm256_add_epi32(sum, _mm256_madd_epi16(e, even[k]));
            sum = _mm256_add_epi32(sum, _mm256_madd_epi16(o, odd[k]));
        }
        _mm256_storeu_si256((__m256i *)(void *)c.s[m], sum);
    }
    put_sums(w, i, &c);
}
#else
static inline void mma_int(ptx_warp *w, const ptx_inst *i, int words, bool a_signed)
{
    sums c;
    uint32_t b[8][8];
    take_sums(w, i, 4 + words / 2 + words / 4, &c);
    take_b(w, i, words, b);
    for (int m = 0; m < 16; m++) {
        for (int k = 0; k < 4 * words; k++) {
            const uint32_t byte = *a_words(w, i, m, k / 4) >> 8 * (k % 4) & 0xff;
            const int32_t a = a_signed ? (int8_t)byte : (int32_t)byte;
            for (int n = 0; n < 8; n++) {
                const int32_t product = a * (int8_t)(b[k / 4][n] >> 8 * (k % 4));
                c.s[m][n] = (int32_t)((uint32_t)c.s[m][n] + (uint32_t)product);
            }
        }
    }
    put_sums(w, i, &c);
}
#endif

#define MMA_INT(name, words, a_signed)                                                             \
    static void name(ptx_warp *w, const ptx_inst *i)                                               \
    {                                                                                              \
        if (ptx_aligned(w, i))                                                                     \
            mma_int(w, i, words, a_signed);                                                        \
    }
MMA_INT(mma_k16_u8, 4, false)
MMA_INT(mma_k16_s8, 4, true)
MMA_INT(mma_k32_u8, 8, false)
MMA_INT(mma_k32_s8, 8, true)

/* ---- dp4a: four products of bytes added to c ---- */
#define DP4A(name, A, B)                                                                           \
    static inline uint32_t name##_of(uint32_t a, uint32_t b, uint32_t c)                           \
    {                                                                                              \
        for (int n = 0; n < 32; n += 8)                                                            \
            c += (uint32_t)((int32_t)(A)(a >> n) * (int32_t)(B)(b >> n));                          \
        return c;                                                                                  \
    }                                                                                              \
    PTX_FN3(name, ptx_u32, ptx_u32, ptx_u32, ptx_u32, name##_of(a, b, c))
DP4A(dp4a_uu, uint8_t, uint8_t)
DP4A(dp4a_us, uint8_t, int8_t)
DP4A(dp4a_su, int8_t, uint8_t)
DP4A(dp4a_ss, int8_t, int8_t)

#define MMA "mma.sync.aligned."
const ptx_row PTX_TABLE(ptx_rows_matrix)[] = {
    PTX_ROW(MMA "m16n8k16.row.col.f32.bf16.bf16.f32", mma_bf16, "=4w 4w 2w 4w"),
    PTX_ROW(MMA "m16n8k16.row.col.f32.f16.f16.f32", mma_f16, "=4w 4w 2w 4w"),
    PTX_ROW(MMA "m16n8k32.row.col.s32.u8.s8.s32", mma_k32_u8, "=4w 4w 2w 4w"),
    PTX_ROW(MMA "m16n8k32.row.col.s32.s8.s8.s32", mma_k32_s8, "=4w 4w 2w 4w"),
    PTX_ROW(MMA "m16n8k16.row.col.s32.u8.s8.s32", mma_k16_u8, "=4w 2w 1w 4w"),
    PTX_ROW(MMA "m16n8k16.row.col.s32.s8.s8.s32", mma_k16_s8, "=4w 2w 1w 4w"),
    PTX_ROW("dp4a.u32.u32", dp4a_uu, "=w w w w"),
    PTX_ROW("dp4a.u32.s32", dp4a_us, "=w w w w"),
    PTX_ROW("dp4a.s32.u32", dp4a_su, "=w w w w"),
    PTX_ROW("dp4a.s32.s32", dp4a_ss, "=w w w w"),
    PTX_END,
};
