/*
 * tiles: see tiles.h. Sums of bytes wrap, as the processor's do. bf16 dots are fused multiply-adds
 * of single precision, even and odd inputs of a row apart from +0, whose sum joins the tile; what
 * is subnormal counts as zero of its sign, on the way in and on the way out, whatever MXCSR says.
 */
#include "tests/kernels/amx/tiles.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct unit {
    int configured;
    unit_fault_fn *fault;
    unit_tile tile[UNIT_TILES];
} unit;

static _Thread_local unit me;

static void die(const char *why)
{
    fprintf(stderr, "tile unit: %s\n", why);
    abort();
}

static void need(int ok, const char *why)
{
    if (!ok)
        (me.fault ? me.fault : die)(why);
}

void unit_on_fault(unit_fault_fn *fn)
{
    me.fault = fn;
}

unit_tile *unit_look(int t)
{
    return &me.tile[t];
}

int unit_configured(void)
{
    return me.configured;
}

/* A tile that an instruction names. */
static unit_tile *named(int t)
{
    need(me.configured, "#UD: no configuration");
    need(t >= 0 && t < UNIT_TILES, "#UD: no such tile");
    need(me.tile[t].rows > 0 && me.tile[t].row_bytes > 0, "#UD: a tile that is not configured");
    return &me.tile[t];
}

void unit_configure(const void *config)
{
    const uint8_t *c = config;
    uint16_t bytes[16];
    memcpy(bytes, c + 16, sizeof(bytes));
    need(c[0] <= 1, "#GP: no such palette");
    for (int i = 2; i < 16; i++)
        need(c[i] == 0, "#GP: a reserved byte");
    need(c[0] == 0 || c[1] < UNIT_ROWS, "#GP: start row");
    for (int i = 0; i < 16; i++) {
        int rows = c[48 + i];
        need(i < UNIT_TILES || (rows == 0 && bytes[i] == 0), "#GP: a tile beyond the palette's");
        need(rows <= UNIT_ROWS, "#GP: rows of a tile");
        need(bytes[i] <= UNIT_ROW_BYTES, "#GP: row bytes of a tile");
        need((rows == 0) == (bytes[i] == 0), "#GP: rows without bytes, or bytes without rows");
    }
    memset(me.tile, 0, sizeof(me.tile));
    me.configured = c[0] == 1;
    for (int i = 0; i < UNIT_TILES && me.configured; i++) {
        me.tile[i].rows = c[48 + i];
        me.tile[i].row_bytes = bytes[i];
    }
}

void unit_release(void)
{
    me.configured = 0;
    memset(me.tile, 0, sizeof(me.tile));
}

void unit_zero(int t)
{
    unit_tile *x = named(t);
    memset(x->at, 0, sizeof(x->at));
}

void unit_load(int t, const void *p, int64_t stride)
{
    unit_tile *x = named(t);
    memset(x->at, 0, sizeof(x->at));
    for (int r = 0; r < x->rows; r++)
        memcpy(x->at[r], (const uint8_t *)p + r * stride, (size_t)x->row_bytes);
}

void unit_store(int t, void *p, int64_t stride)
{
    const unit_tile *x = named(t);
    for (int r = 0; r < x->rows; r++)
        memcpy((uint8_t *)p + r * stride, x->at[r], (size_t)x->row_bytes);
}

static void need_shapes(int tc, int ta, int tb)
{
    const unit_tile *c = named(tc), *a = named(ta), *b = named(tb);
    need(tc != ta && tc != tb && ta != tb, "#UD: a tile twice");
    need(a->row_bytes % 4 == 0 && b->row_bytes % 4 == 0 && c->row_bytes % 4 == 0,
         "#UD: row bytes that are no multiple of 4");
    need(c->rows == a->rows, "#UD: rows of the sums and of the first factor");
    need(c->row_bytes == b->row_bytes, "#UD: columns of the sums and of the second factor");
    need(a->row_bytes / 4 == b->rows, "#UD: inputs of the factors");
}

void unit_dot_bytes(int tc, int ta, int tb)
{
    need_shapes(tc, ta, tb);
    unit_tile *c = &me.tile[tc];
    const unit_tile *a = &me.tile[ta], *b = &me.tile[tb];
    for (int m = 0; m < c->rows; m++) {
        uint32_t sum[UNIT_ROW_BYTES / 4];
        memcpy(sum, c->at[m], sizeof(sum));
        for (int k = 0; k < b->rows; k++)
            for (int n = 0; n < UNIT_ROW_BYTES; n++)
                sum[n / 4] += (uint32_t)((int8_t)a->at[m][4 * k + n % 4] * (int8_t)b->at[k][n]);
        memcpy(c->at[m], sum, (size_t)c->row_bytes);
    }
}

static float flushed(float x)
{
    return fabsf(x) < 0x1p-126f ? copysignf(0.0f, x) : x;
}

static float half(const uint8_t *p)
{
    uint16_t h;
    memcpy(&h, p, sizeof(h));
    uint32_t u = (uint32_t)h << 16;
    float x;
    memcpy(&x, &u, sizeof(x));
    return flushed(x);
}

void unit_dot_halves(int tc, int ta, int tb)
{
    need_shapes(tc, ta, tb);
    unit_tile *c = &me.tile[tc];
    const unit_tile *a = &me.tile[ta], *b = &me.tile[tb];
    float w[UNIT_ROWS][2][UNIT_ROW_BYTES / 4];
    for (int k = 0; k < b->rows; k++)
        for (int n = 0; n < UNIT_ROW_BYTES / 4; n++)
            for (int odd = 0; odd < 2; odd++)
                w[k][odd][n] = half(&b->at[k][4 * n + 2 * odd]);
    for (int m = 0; m < c->rows; m++) {
        float sum[UNIT_ROW_BYTES / 4], part[2][UNIT_ROW_BYTES / 4] = {{0}};
        memcpy(sum, c->at[m], sizeof(sum));
        for (int k = 0; k < b->rows; k++)
            for (int odd = 0; odd < 2; odd++) {
                float x = half(&a->at[m][4 * k + 2 * odd]);
                for (int n = 0; n < UNIT_ROW_BYTES / 4; n++)
                    part[odd][n] = flushed(fmaf(x, w[k][odd][n], part[odd][n]));
            }
        for (int n = 0; n < UNIT_ROW_BYTES / 4; n++)
            sum[n] = flushed(flushed(sum[n]) + flushed(part[0][n] + part[1][n]));
        memcpy(c->at[m], sum, (size_t)c->row_bytes);
    }
}
