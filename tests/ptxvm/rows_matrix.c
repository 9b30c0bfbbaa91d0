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

/* op[]: d 0..3, then the registers of a, b and c. */
enum { AT_A = 4 };

/* Words [word, word + 4) of row m of A: of register 2 * (word / 4) + m / 8. */
static inline const ptx_u32 *a_words(const ptx_warp *w, const ptx_inst *i, int m, int word)
{
    return ptx_src(ptx_u32, AT_A + 2 * (word / 4) + m / 8) + 4 * (m % 8);
}

/* ---- a row of 8 sums: columns 2 n, 2 n + 1 are lane 4 * (row % 8) + n of two registers ---- */
#ifdef __AVX2__
typedef __m256i sums;
static inline sums take_sums(const ptx_warp *w, const ptx_inst *i, int at_c, int m)
{
    const int lane = 4 * (m % 8), n = at_c + 2 * (m / 8);
    const __m128i even =
        _mm_load_si128((const __m128i *)(const void *)(ptx_src(ptx_u32, n) + lane));
    const __m128i odd =
        _mm_load_si128((const __m128i *)(const void *)(ptx_src(ptx_u32, n + 1) + lane));
    return _mm256_set_m128i(_mm_unpackhi_epi32(even, odd), _mm_unpacklo_epi32(even, odd));
}
static inline void give_sums(uint32_t d[4][32], int m, sums c)
{
    const int lane = 4 * (m % 8), n = 2 * (m / 8);
    const __m128 low = _mm_castsi128_ps(_mm256_castsi256_si128(c));
    const __m128 high = _mm_castsi128_ps(_mm256_extracti128_si256(c, 1));
    _mm_storeu_ps((float *)(void *)(d[n] + lane), _mm_shuffle_ps(low, high, 0x88));
    _mm_storeu_ps((float *)(void *)(d[n + 1] + lane), _mm_shuffle_ps(low, high, 0xdd));
}
#else
typedef union sums {
    uint32_t s[8];
    float f[8];
} sums;
static inline sums take_sums(const ptx_warp *w, const ptx_inst *i, int at_c, int m)
{
    sums c;
    for (int n = 0; n < 8; n++)
        c.s[n] = ptx_src(ptx_u32, at_c + 2 * (m / 8) + n % 2)[4 * (m % 8) + n / 2];
    return c;
}
static inline void give_sums(uint32_t d[4][32], int m, sums c)
{
    for (int n = 0; n < 8; n++)
        d[2 * (m / 8) + n % 2][4 * (m % 8) + n / 2] = c.s[n];
}
#endif

static inline void put_all(ptx_warp *w, const ptx_inst *i, uint32_t d[4][32])
{
    for (int n = 0; n < 4; n++)
        ptx_put(w, i, n, d[n], 4);
}

/* ---- f32 += 16-bit floats, k 16 ---- */

/* Eight 16-bit floats that follow each other in a register. */
static inline void widen(const ptx_u32 *words, bool bf16, float f[8])
{
#ifdef __AVX2__
    const __m128i v = _mm_load_si128((const __m128i *)(const void *)words);
    const __m256 wide = bf16 ? _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(v), 16))
                             : _mm256_cvtph_ps(v);
    _mm256_storeu_ps(f, wide);
#else
    for (int n = 0; n < 8; n++) {
        const uint16_t h = (uint16_t)(words[n / 2] >> 16 * (n % 2));
        f[n] = bf16 ? f32_of_bf16(h) : f32_of_f16(h);
    }
#endif
}

static inline sums add_products(sums c, const float a[16], float b[16][8])
{
#ifdef __AVX2__
    __m256 sum = _mm256_castsi256_ps(c);
    for (int k = 0; k < 16; k++)
        sum = _mm256_add_ps(sum, _mm256_mul_ps(_mm256_set1_ps(a[k]), _mm256_loadu_ps(b[k])));
    const __m256 nan = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff));
    return _mm256_castps_si256(_mm256_blendv_ps(sum, nan, _mm256_cmp_ps(sum, sum, _CMP_UNORD_Q)));
#else
    for (int k = 0; k < 16; k++) {
        for (int n = 0; n < 8; n++)
            c.f[n] += a[k] * b[k][n];
    }
    for (int n = 0; n < 8; n++)
        c.f[n] = ptx_canonical(c.f[n]);
    return c;
#endif
}

static inline void mma_half(ptx_warp *w, const ptx_inst *i, bool bf16)
{
    if (!ptx_aligned(w, i))
        return;
    float a[16], b[16][8], column[8];
    uint32_t d[4][32];
    for (int n = 0; n < 16; n++) {
        widen(ptx_src(ptx_u32, AT_A + 4 + n / 8) + 4 * (n % 8), bf16, column);
        for (int k = 0; k < 8; k++)
            b[8 * (n / 8) + k][n % 8] = column[k];
    }
    for (int m = 0; m < 16; m++) {
        widen(a_words(w, i, m, 0), bf16, a);
        widen(a_words(w, i, m, 4), bf16, a + 8);
        give_sums(d, m, add_products(take_sums(w, i, AT_A + 6, m), a, b));
    }
    put_all(w, i, d);
}
static void mma_bf16(ptx_warp *w, const ptx_inst *i)
{
    mma_half(w, i, true);
}
static void mma_f16(ptx_warp *w, const ptx_inst *i)
{
    mma_half(w, i, false);
}

/* ---- s32 += 8-bit integers, k 16 or 32 (4 or 8 words); A u8 or s8, B s8 ---- */

/* b[word][column]: four numbers of a column of B. */
static inline void take_b(const ptx_warp *w, const ptx_inst *i, int words, uint32_t b[8][8])
{
    for (int n = 0; n < words / 4; n++) {
        const ptx_u32 *r = ptx_src(ptx_u32, AT_A + words / 2 + n);
        PTX_LANES
        b[4 * n + l % 4][l / 4] = r[l];
    }
}

#ifdef __AVX2__
/* Pairs of 16-bit numbers by multiply-add: the even and the odd bytes of each word. */
static inline void split_row(const ptx_u32 *words, bool is_signed, int32_t even[4], int32_t odd[4])
{
    const __m128i v = _mm_load_si128((const __m128i *)(const void *)words);
    const __m128i high = _mm_slli_epi16(v, 8);
    _mm_storeu_si128((__m128i *)(void *)even,
                     is_signed ? _mm_srai_epi16(high, 8) : _mm_srli_epi16(high, 8));
    _mm_storeu_si128((__m128i *)(void *)odd,
                     is_signed ? _mm_srai_epi16(v, 8) : _mm_srli_epi16(v, 8));
}

static inline void mma_int(ptx_warp *w, const ptx_inst *i, int words, bool a_signed)
{
    uint32_t b[8][8], d[4][32];
    int32_t even[16][8], odd[16][8];
    __m256i b_even[8], b_odd[8];
    take_b(w, i, words, b);
    for (int k = 0; k < words; k++) {
        const __m256i v = _mm256_loadu_si256((const __m256i *)(const void *)b[k]);
        b_even[k] = _mm256_srai_epi16(_mm256_slli_epi16(v, 8), 8);
        b_odd[k] = _mm256_srai_epi16(v, 8);
    }
    for (int m = 0; m < 16; m++) {
        for (int k = 0; k < words; k += 4)
            split_row(a_words(w, i, m, k), a_signed, even[m] + k, odd[m] + k);
    }
    for (int m = 0; m < 16; m++) {
        __m256i x = take_sums(w, i, AT_A + words / 2 + words / 4, m), y = _mm256_setzero_si256();
        for (int k = 0; k < words; k++) {
            x = _mm256_add_epi32(x, _mm256_madd_epi16(_mm256_set1_epi32(even[m][k]), b_even[k]));
            y = _mm256_add_epi32(y, _mm256_madd_epi16(_mm256_set1_epi32(odd[m][k]), b_odd[k]));
        }
        give_sums(d, m, _mm256_add_epi32(x, y));
    }
    put_all(w, i, d);
}
#else
static inline void mma_int(ptx_warp *w, const ptx_inst *i, int words, bool a_signed)
{
    uint32_t b[8][8], d[4][32];
    take_b(w, i, words, b);
    for (int m = 0; m < 16; m++) {
        sums c = take_sums(w, i, AT_A + words / 2 + words / 4, m);
        for (int k = 0; k < 4 * words; k++) {
            const uint32_t byte = a_words(w, i, m, k / 4)[k / 4 % 4] >> 8 * (k % 4) & 0xff;
            const int32_t a = a_signed ? (int8_t)byte : (int32_t)byte;
            for (int n = 0; n < 8; n++)
                c.s[n] += (uint32_t)(a * (int8_t)(b[k / 4][n] >> 8 * (k % 4)));
        }
        give_sums(d, m, c);
    }
    put_all(w, i, d);
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
