/*
 * test_tiles: level amx's kernels on the tile unit of tiles.h. Quantized panels give the base
 * level's bits at every row count from 1 to 128 and wherever in a batch rows lie, BF16 and F16 ones
 * those of ref by that level's law; the unit is configured while a thread is in the level, and
 * faults where a processor would.
 */
#include "kernels/cpu/isa.h"
#include "kernels/cpu/linear.h"
#include "kernels/math.h"
#include "tests/kernels/amx/tiles.h"
#include "tests/kernels/rig.h"
#include "tests/kernels/weights.h"
#include "tests/support/cmocka.h"

#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

#include "tests/kernels/wide.inc"

enum { ROWS = 128, SPARE = 15, K = 1280 };

static int enter(void **state)
{
    (void)state;
    if (!cp_isa_there(CP_ISA_AMX)) {
        print_message("SKIPPED: the tile unit needs AVX2 beside it\n");
        return -1;
    }
    cp_isa_enter(CP_ISA_AMX);
    return 0;
}

static int leave(void **state)
{
    (void)state;
    cp_isa_leave(CP_ISA_AMX);
    return unit_configured();
}

static void tables(cp_gemm_table *base, cp_gemm_table *amx)
{
    cp_isa_gemm(base, CP_ISA_BASE);
    cp_isa_gemm(amx, CP_ISA_AMX);
    assert_in_range(amx->many_rows, 2, 16);
    assert_int_equal(amx->rows_beyond, SPARE);
}

/* Types, bounds of weights and activations, short and long sums (wide.inc). */
static void every_quantized_type(void **state)
{
    (void)state;
    cp_gemm_table base, amx;
    tables(&base, &amx);
    amx.many_rows = 1;
    for (int i = 0; cp_test_types[i] >= 0; i++)
        if (!cp_panel_is_float(cp_panel_kind_of((cp_dtype)cp_test_types[i])))
            check_type(&base, &amx, (cp_dtype)cp_test_types[i]);
}

static void check_rows(const cp_gemm_table *base, const cp_gemm_table *amx, cp_dtype type)
{
    cp_panel_kind kind = cp_panel_kind_of(type);
    size_t stride = K / CP_QBLOCK * sizeof(cp_act8);
    static float want[ROWS * CP_LANES], got[(ROWS + 1) * CP_LANES], x[K];
    uint8_t *act = cp_alloc_aligned(stride * (ROWS + SPARE)), *panel;
    uint64_t seed = (uint64_t)type + 9;
    memset(act, 0xff, stride * (ROWS + SPARE)); /* NaN in the rows beyond */
    for (int r = 0; r < ROWS; r++) {
        for (int i = 0; i < K; i++)
            x[i] = cp_test_uniform(&seed);
        cp_quantize_act_row(x, K, (cp_act8 *)(void *)(act + (size_t)r * stride));
    }
    cp_tensor t = cp_test_tensor(type, K, CP_LANES, seed);
    panel = cp_alloc_aligned(cp_panel_bytes(kind, K));
    cp_unpack_of(type)(&t, 0, CP_LANES, panel);
    base->gemm[kind](panel, K, act, stride, ROWS, want);
    for (int n = 1; n <= ROWS; n++) {
        int from = n % 2 ? 0 : (int)(cp_test_random(&seed) % (uint64_t)(ROWS - n + 1));
        memset(got, 0xab, sizeof(got));
        multiply(amx, kind, panel, K, act + (size_t)from * stride, stride, n, got);
        for (int i = 0; i < n * CP_LANES; i++)
            if (memcmp(&got[i], &want[from * CP_LANES + i], sizeof(*got)))
                fail_msg("%s: %d rows from %d on: row %d, output %d differs",
                         cp_dtype_info((uint32_t)type)->name, n, from, i / CP_LANES, i % CP_LANES);
        for (size_t i = 0; i < CP_LANES * sizeof(*got); i++)
            assert_int_equal(((const uint8_t *)(got + n * CP_LANES))[i], 0xab);
    }
    free(panel);
    free(act);
    cp_test_free(&t);
}

static void every_row_count(void **state)
{
    (void)state;
    bool seen[CP_PANEL_COUNT] = {false};
    cp_gemm_table base, amx;
    tables(&base, &amx);
    for (int i = 0; cp_test_types[i] >= 0; i++) {
        cp_panel_kind kind = cp_panel_kind_of((cp_dtype)cp_test_types[i]);
        if (!cp_panel_is_float(kind) && !seen[kind]) /* a kind once: types differ in packing */
            check_rows(&base, &amx, (cp_dtype)cp_test_types[i]);
        seen[kind] = true;
    }
}

/* Numbers of all sizes, so that products and sums are subnormal here and there. */
static float of_any_size(rig *r)
{
    return rig_uniform(r) * cp_f32_from_bits((uint32_t)(1 + rig_random(r, 140)) << 23);
}

static void set_sizes(rig *r, const cp_tensor *t)
{
    uint16_t *w = (uint16_t *)(uintptr_t)t->data;
    for (size_t i = 0; t->type == CP_DTYPE_BF16 && i < t->bytes / sizeof(*w); i++)
        w[i] = cp_bf16_from_f32(of_any_size(r));
    for (size_t i = 0; t->type == CP_DTYPE_F16 && i < t->bytes / sizeof(*w); i++)
        w[i] = (uint16_t)((rig_random(r, 1 << 16) & 0x83ff) | rig_random(r, 20) << 10);
}

static void check_law(cp_dtype type, int k, int n, uint64_t seed)
{
    enum { M = 21 };
    rig r;
    rig_batch b;
    char what[64];
    rig_init(&r, seed);
    cp_mat in = rig_mat(&r, k, CP_ROWS_ALL), out = rig_mat(&r, M, CP_ROWS_ALL);
    rig_linear(&r, in, rig_weight(&r, type, k, M, CP_ROLE_LINEAR), out, CP_ROWS_ALL);
    if (seed % 2)
        set_sizes(&r, &r.tensors[0]);
    rig_batch_init(&b, &r, &(rig_seq){.n_rows = n}, 1, true);
    machine ref = machine_open_on(&r, "ref", "amx", 1), amx = machine_open(&r, "amx", 2);
    machine_fill(&ref, seed);
    machine_fill(&amx, seed);
    float *x = cp_xcalloc((size_t)k, sizeof(*x));
    for (int row = 0; row < n && seed % 2; row++) {
        for (int i = 0; i < k; i++)
            x[i] = of_any_size(&r) * (type == CP_DTYPE_F16 ? 0x1p-10f : 1.0f);
        machine_put_row(&ref, in, row, x);
        machine_put_row(&amx, in, row, x);
    }
    machine_step(&ref, &b.b);
    machine_step(&amx, &b.b);
    cp_snprintf(what, sizeof(what), "%d rows, K %d", n, k);
    machines_equal(&ref, &amx, out, n, what);
    free(x);
    machine_close(&amx);
    machine_close(&ref);
    rig_batch_fini(&b);
    rig_fini(&r);
}

static void floats_have_refs_bits(void **state)
{
    (void)state;
    static const int ks[] = {1, 2, 31, 32, 33, 75, 480, 512, 513, 1024, 1101};
    static const int rows[] = {1, 3, 16, 17, 49, 64};
    cp_isa_leave(CP_ISA_AMX); /* a run enters by itself */
    for (int i = 0; i < 11 * 6 * 2; i++) {
        check_law(CP_DTYPE_BF16, ks[i % 11], rows[i / 2 % 6], (uint64_t)i);
        check_law(CP_DTYPE_F16, ks[i % 11], rows[i / 2 % 6], (uint64_t)i);
    }
    assert_false(unit_configured());
    cp_isa_enter(CP_ISA_AMX);
}

/* ---- the unit ---- */

static jmp_buf on_fault;
static const char *reason;

static void fault(const char *why)
{
    reason = why;
    longjmp(on_fault, 1);
}

#define FAULTS(words, action)                                                                      \
    do {                                                                                           \
        reason = NULL;                                                                             \
        if (setjmp(on_fault) == 0) {                                                               \
            action;                                                                                \
        }                                                                                          \
        assert_non_null(reason);                                                                   \
        assert_non_null(strstr(reason, words));                                                    \
    } while (0)

static void wrong_configurations_fault(void **state)
{
    (void)state;
    static const struct {
        int at, value; /* a byte of a right configuration, and what makes it wrong */
        const char *words;
    } rows[] = {
        {0, 2, "palette"},        {5, 1, "reserved"},     {1, 16, "start row"},
        {16, 65, "row bytes of"}, {48, 17, "rows of"},    {48 + 9, 1, "beyond"},
        {16 + 18, 4, "beyond"},   {48 + 3, 0, "without"}, {16 + 12, 0, "without"},
    };
    tile_config right = TILE_CONFIG;
    unit_on_fault(fault);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        tile_config wrong = right;
        ((uint8_t *)&wrong)[rows[i].at] = (uint8_t)rows[i].value;
        FAULTS(rows[i].words, unit_configure(&wrong));
    }
    unit_configure(&right);
    unit_on_fault(NULL);
}

static void wrong_uses_fault(void **state)
{
    (void)state;
    static int32_t memory[256];
    unit_on_fault(fault);
    FAULTS("inputs", unit_dot_bytes(0, HALF_ROWS, BYTE_LINES));
    FAULTS("inputs", unit_dot_halves(0, BYTE_ROWS, HALF_PAIRS));
    FAULTS("rows of", unit_dot_bytes(BYTE_LINES, BYTE_ROWS, 0));
    FAULTS("columns", unit_dot_halves(BYTE_ROWS, HALF_ROWS, HALF_PAIRS));
    FAULTS("twice", unit_dot_halves(0, HALF_ROWS, HALF_ROWS));
    FAULTS("no such", unit_zero(8));
    tile_config few = TILE_CONFIG;
    few.rows[7] = 0;
    few.row_bytes[7] = 0;
    unit_configure(&few);
    FAULTS("not configured", unit_dot_bytes(0, BYTE_ROWS, BYTE_LINES));
    cp_isa_leave(CP_ISA_AMX);
    FAULTS("no configuration", unit_load(0, memory, 64));
    FAULTS("no configuration", unit_store(0, memory, 64));
    FAULTS("no configuration", unit_zero(0));
    FAULTS("no configuration", unit_dot_bytes(0, BYTE_ROWS, BYTE_LINES));
    cp_isa_enter(CP_ISA_AMX);
    assert_true(unit_configured());
    unit_on_fault(NULL);
}

/* Products and sums by hand, signs included, and what a load leaves beyond a tile's rows. */
static void dots_by_hand(void **state)
{
    (void)state;
    static int8_t a[16][64], b[8][64];
    static int32_t c[16][16];
    a[3][4 * 2 + 1] = -7;
    a[3][4 * 7 + 3] = 100;
    b[2][4 * 5 + 1] = -128;
    b[7][4 * 5 + 3] = 127;
    unit_load(BYTE_ROWS, a, 64);
    unit_load(BYTE_LINES, b, 64);
    unit_zero(1);
    unit_dot_bytes(1, BYTE_ROWS, BYTE_LINES);
    unit_dot_bytes(1, BYTE_ROWS, BYTE_LINES);
    unit_store(1, c, 64);
    for (int i = 0; i < 256; i++)
        assert_int_equal(c[i / 16][i % 16], i == 3 * 16 + 5 ? 2 * (7 * 128 + 100 * 127) : 0);
    for (int r = 8; r < 16; r++)
        for (int i = 0; i < 64; i++)
            assert_int_equal(unit_look(BYTE_LINES)->at[r][i], 0);
    static uint16_t x[16][32], w[16][32];
    static float y[16][16];
    for (int i = 0; i < 4; i++)
        x[0][i] = 0x3f80; /* 1 */
    w[0][0] = 0x3f80;     /* 1, an even input of output 0 */
    w[1][0] = 0x3380;     /* 2^-24, an even one: lost */
    w[0][1] = 0x3380;     /* two odd ones: 2^-23 */
    w[1][1] = 0x3380;
    w[0][2] = 0x0001; /* subnormal: zero */
    unit_load(HALF_ROWS, x, 64);
    unit_load(HALF_PAIRS, w, 64);
    unit_zero(2);
    unit_dot_halves(2, HALF_ROWS, HALF_PAIRS);
    unit_store(2, y, 64);
    assert_true(y[0][0] == 1.0f + 0x1p-23f && y[0][1] == 0.0f && y[1][0] == 0.0f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(wrong_configurations_fault),
        cmocka_unit_test(wrong_uses_fault),
        cmocka_unit_test(dots_by_hand),
        cmocka_unit_test(every_quantized_type),
        cmocka_unit_test(every_row_count),
        cmocka_unit_test(floats_have_refs_bits),
    };
    return cmocka_run_group_tests_name("tiles", tests, enter, leave);
}
