/*
 * tiles.h: a tile unit in plain C, one a thread, with the rules of Intel's manual: what
 * gemm_tiles.inc's instructions do, and where the processor would raise a fault. Include it before
 * kernels/cpu/tiles.h, whose asm it stands in for.
 */
#ifndef CP_TESTS_KERNELS_AMX_TILES_H
#define CP_TESTS_KERNELS_AMX_TILES_H

#include <stddef.h>
#include <stdint.h>

enum { UNIT_TILES = 8, UNIT_ROWS = 16, UNIT_ROW_BYTES = 64 };

typedef struct unit_tile {
    int rows, row_bytes;
    uint8_t at[UNIT_ROWS][UNIT_ROW_BYTES];
} unit_tile;

/* Called for a fault with its reason, before anything has changed; by default it prints that and
 * aborts. It must not return. Of this thread. */
typedef void unit_fault_fn(const char *why);
void unit_on_fault(unit_fault_fn *fn);
unit_tile *unit_look(int t); /* a tile of this thread's unit */
int unit_configured(void);

void unit_configure(const void *config);
void unit_release(void);
void unit_zero(int t);
void unit_load(int t, const void *p, int64_t stride);
void unit_store(int t, void *p, int64_t stride);
void unit_dot_bytes(int c, int a, int b);  /* tdpbssd */
void unit_dot_halves(int c, int a, int b); /* tdpbf16ps */

#define CP_EMULATED_TILES
#define TILE_CONFIGURE(c)        unit_configure(&(c))
#define TILE_RELEASE()           unit_release()
#define TILE_ZERO(t)             unit_zero(t)
#define TILE_LOAD(t, p, stride)  unit_load(t, p, (int64_t)(stride))
#define TILE_STORE(t, p, stride) unit_store(t, p, (int64_t)(stride))
#define TILE_DOT_BYTES(c, a, b)  unit_dot_bytes(c, a, b)
#define TILE_DOT_HALVES(c, a, b) unit_dot_halves(c, a, b)

#include "kernels/cpu/tiles.h"

#endif
