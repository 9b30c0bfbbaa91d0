/*
 * tiles: AMX's instructions and the one configuration of the tile registers under which gemm_amx.c
 * works. Internal to kernels/cpu.
 *
 * Instructions are asm of our own: gcc 12's intrinsics declare 8 of the 64 bytes that a
 * configuration has, so that the rest of it is optimized away, and no memory at all for loads.
 * Tests define CP_EMULATED_TILES and the TILE_ names, and run the same kernels anywhere.
 */
#ifndef CP_KERNELS_CPU_TILES_H
#define CP_KERNELS_CPU_TILES_H

#include <stdint.h>

/* What ldtilecfg reads. */
typedef struct tile_config {
    uint8_t palette, start_row, zero[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} tile_config;
_Static_assert(sizeof(tile_config) == 64, "what ldtilecfg reads");

enum { TILE_ROWS = 16 };

/*
 * Sums of 16 rows times 16 outputs are in tiles 0 to 3. For bf16 dots of 32 inputs: 16 rows in 4,
 * weights (16 pairs of inputs) in 5. For byte dots of 32 inputs: rows in 6, weights (8 lines of a
 * panel) in 7. Rows are always 16: a dot takes as long for fewer, or nearly, and one configuration
 * serves all row counts.
 */
#define TILE_CONFIG                                                                                \
    {                                                                                              \
        .palette = 1, .row_bytes = {64, 64, 64, 64, 64, 64, 32, 64},                               \
        .rows = {16, 16, 16, 16, 16, 16, 16, 8},                                                   \
    }
#define HALF_ROWS  4
#define HALF_PAIRS 5
#define BYTE_ROWS  6
#define BYTE_LINES 7

#if !defined(CP_EMULATED_TILES)
/* Tile numbers are literals, or names of them: t of %tmm<t>. */
#define TILE_NAME_(t)     "%%tmm" #t
#define TILE_NAME(t)      TILE_NAME_(t)
#define TILE_CONFIGURE(c) __asm__ volatile("ldtilecfg %0" : : "m"(c) : "memory")
#define TILE_RELEASE()    __asm__ volatile("tilerelease" : : : "memory")
#define TILE_ZERO(t)      __asm__ volatile("tilezero " TILE_NAME(t) : :)
#define TILE_LOAD(t, p, stride)                                                                    \
    __asm__ volatile("tileloadd (%0,%1,1), " TILE_NAME(t)                                          \
                     :                                                                             \
                     : "r"(p), "r"((int64_t)(stride))                                              \
                     : "memory")
#define TILE_STORE(t, p, stride)                                                                   \
    __asm__ volatile("tilestored " TILE_NAME(t) ", (%0,%1,1)"                                      \
                     :                                                                             \
                     : "r"(p), "r"((int64_t)(stride))                                              \
                     : "memory")
#define TILE_DOT_(op, c, a, b)                                                                     \
    __asm__ volatile(op " " TILE_NAME(b) ", " TILE_NAME(a) ", " TILE_NAME(c) : :)
#define TILE_DOT_BYTES(c, a, b)  TILE_DOT_("tdpbssd", c, a, b) /* int8 times int8 */
#define TILE_DOT_HALVES(c, a, b) TILE_DOT_("tdpbf16ps", c, a, b)
#endif

#endif
