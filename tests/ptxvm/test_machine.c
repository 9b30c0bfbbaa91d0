/*
 * test_machine: what kernels compute and count: parted lanes that meet again, every space, guards,
 * poison, groups of cp.async, orders by seed, executed lines, sectors and bank conflicts by hand.
 * Prints the machine's speed.
 */
#include "tests/ptxvm/harness.h"

#include <time.h>

static uint32_t word(const harness *h, unsigned n)
{
    uint32_t v;
    memcpy(&v, h->buffer + 4 * n, 4);
    return v;
}

static void runs(harness *h, const char *body)
{
    if (!run_body(h, body))
        fail_msg("%s", h->err);
}

static void all_of_v4_and_narrow_types(void **state)
{
    (void)state;
    harness h = {.blocks = 1, .threads = 1};
    const int8_t bytes[4] = {-1, 2, -3, 127};
    memcpy(h.buffer + 64, bytes, 4);
    runs(
        &h,
        "ld.global.v4.s8 {%h0,%h1,%h2,%h3}, [%d0+64];\nst.global.v4.u16 [%d0], {%h0,%h1,%h2,%h3};\n"
        "ld.global.s8 %r3, [%d0+64];\nst.global.u32 [%d0+8], %r3;\n"
        "ld.global.u8 %r3, [%d0+64];\nst.global.u32 [%d0+12], %r3;\n"
        "ld.global.u8 %h4, [%d0+64];\nst.global.u16 [%d0+18], %h4;\n"
        "st.global.u8 [%d0+16], %r3;\nst.global.v2.b64 [%d0+32], {%d0, 0x0123456789abcdef};\n");
    const uint16_t want[4] = {0xffff, 2, 0xfffd, 127};
    assert_memory_equal(h.buffer, want, sizeof want);
    assert_int_equal(word(&h, 2), 0xffffffff);
    assert_int_equal(word(&h, 3), 0xff);
    assert_int_equal(word(&h, 4), 0xff00ff);
    uint64_t pair[2];
    memcpy(pair, h.buffer + 32, 16);
    assert_true(pair[0] == DEVICE && pair[1] == 0x0123456789abcdefu);
}

/* A whole warp's vectors go a way of their own; wider registers do not. */
static void vectors_of_a_warp(void **state)
{
    (void)state;
    static const char *const loads[] = {
        "ld.global.v4.u32 {%r4,%r5,%r6,%r7}, [%d2];\n"
        "st.global.v4.u32 [%d2+2048], {%r7,%r6,%r5,%r4};\n",
        "ld.global.v4.u32 {%d4,%d5,%d6,%d7}, [%d2];\n"
        "st.global.v4.u32 [%d2+2048], {%d7,%d6,%d5,%d4};\n",
        "ld.global.v2.u64 {%d4,%d5}, [%d2];\nmov.b64 {%r4,%r5}, %d4;\nmov.b64 {%r6,%r7}, %d5;\n"
        "st.global.v4.u32 [%d2+2048], {%r7,%r6,%r5,%r4};\n",
        "ld.global.v2.u8 {%h0,%h1}, [%d2];\nld.global.u8 %h2, [%d2+2];\nld.global.u8 %h3, "
        "[%d2+3];\n"
        "ld.global.v4.u8 {%h4,%h5,%h6,%h7}, [%d2+12];\n"
        "ld.global.u32 %r5, [%d2+4];\nld.global.u32 %r6, [%d2+8];\n"
        "st.global.v4.u8 [%d2+2060], {%h0,%h1,%h2,%h3};\nst.global.u32 [%d2+2052], "
        "%r6;\nst.global.u32 [%d2+2056], %r5;\n"
        "st.global.v4.u8 [%d2+2048], {%h4,%h5,%h6,%h7};\n"};
    for (size_t k = 0; k < sizeof loads / sizeof *loads; k++) {
        harness h = {.blocks = 1, .threads = 32};
        char body[1000];
        for (unsigned t = 0; t < 128; t++)
            memcpy(h.buffer + 4 * t, &(uint32_t){t * 0x01010305u}, 4);
        snprintf(body, sizeof body, "mul.wide.u32 %%d2, %%r0, 16;\nadd.s64 %%d2, %%d2, %%d0;\n%s",
                 loads[k]);
        runs(&h, body);
        for (unsigned t = 0; t < 128; t++)
            assert_int_equal(word(&h, 512 + t), (t / 4 * 4 + 3 - t % 4) * 0x01010305u);
    }
}

static void every_space_by_its_own_and_by_generic_addresses(void **state)
{
    (void)state;
    harness h = {.blocks = 2, .threads = 64, .shared = 256, .options = {.race = true}};
    /* each thread: local, shared and dynamic memory hold its number plus 1, 2, 3 */
    runs(&h, "mov.u64 %d2, l;\ncvta.local.u64 %d3, %d2;\nadd.u32 %r3, %r0, 1;\n"
             "st.u32 [%d3+4], %r3;\nbar.sync 0;\nld.local.u32 %r4, [l+4];\n"
             "mov.u64 %d4, s;\ncvta.shared.u64 %d5, %d4;\nmul.wide.u32 %d6, %r0, 4;\n"
             "add.s64 %d7, %d5, %d6;\nadd.u32 %r5, %r0, 2;\nst.u32 [%d7], %r5;\n"
             "mov.u32 %r7, dyn;\nadd.u32 %r7, %r7, %r2;\nadd.u32 %r8, %r0, 3;\n"
             "st.shared.u32 [%r7], %r8;\nld.shared.u32 %r9, [%r7];\n"
             "add.s64 %d8, %d4, %d6;\nld.shared.u32 %r6, [%d8];\n"
             "ld.param.u32 %r10, [k_a+8];\nld.const.u32 %r11, [table+8];\n"
             "mov.u64 %d9, table;\ncvta.const.u64 %d9, %d9;\nld.u32 %r12, [%d9+4];\n"
             "add.u32 %r4, %r4, %r6;\nadd.u32 %r4, %r4, %r9;\nadd.u32 %r4, %r4, %r10;\n"
             "add.u32 %r4, %r4, %r11;\nadd.u32 %r4, %r4, %r12;\n"
             "mul.wide.u32 %d10, %r1, 256;\nadd.s64 %d1, %d1, %d10;\nst.global.u32 [%d1], %r4;\n");
    for (unsigned t = 0; t < 128; t++)
        assert_int_equal(word(&h, t), 3 * (t % 64) + 6 + 7 + 30 + 20);
}

/* Lanes leave a loop after 0 ... 31 rounds, and a shuffle of all of them follows. */
static void parted_lanes_meet_again(void **state)
{
    (void)state;
    harness h = {.blocks = 1, .threads = 32};
    runs(&h,
         "mov.u32 %r3, 0;\nmov.u32 %r4, 0;\nL:\nsetp.ge.u32 %p1, %r3, %r0;\n@%p1 bra E;\n"
         "and.b32 %r5, %r3, 1;\nsetp.eq.u32 %p2, %r5, 0;\n@%p2 bra EVEN;\nadd.u32 %r4, %r4, 100;\n"
         "bra NEXT;\nEVEN:\nadd.u32 %r4, %r4, 1;\nNEXT:\nadd.u32 %r3, %r3, 1;\nbra L;\nE:\n"
         "shfl.sync.idx.b32 %r6, %r4, 31, 31, -1;\nadd.u32 %r4, %r4, %r6;\n"
         "st.global.u32 [%d1], %r4;\n");
    for (unsigned t = 0; t < 32; t++)
        assert_int_equal(word(&h, t), t / 2 * 100 + (t + 1) / 2 + 15 * 100 + 16);
    assert_true(h.stats.diverged_branches > 0);
}

static void lanes_that_returned_do_nothing_more(void **state)
{
    (void)state;
    harness h = {.blocks = 1, .threads = 40};
    runs(&h, "setp.gt.u32 %p1, %r0, 34;\n@%p1 ret;\nsetp.eq.u32 %p2, %r0, 3;\n"
             "@!%p2 st.global.u32 [%d1], 5;\n@%p2 exit;\nst.global.u32 [%d1+256], 6;\n");
    for (unsigned t = 0; t < 40; t++) {
        assert_int_equal(word(&h, t), t > 34 || t == 3 ? 0 : 5);
        assert_int_equal(word(&h, t + 64), t > 34 || t == 3 ? 0 : 6);
    }
}

static void special_registers(void **state)
{
    (void)state;
    harness h = {.options = {.shuffle = true, .seed = 3}};
    static const char text[] =
        ".visible .entry k(.param .u64 p)\n{\n.reg .b32 %r<16>;\n.reg .b64 %d<4>;\n"
        "ld.param.u64 %d0, [p];\nmov.u32 %r0, %tid.x;\nmov.u32 %r1, %tid.y;\nmov.u32 %r2, %tid.z;\n"
        "mov.u32 %r3, %ctaid.x;\nmov.u32 %r4, %ctaid.y;\nmov.u32 %r5, %ctaid.z;\n"
        "mov.u32 %r6, %ntid.y;\nmov.u32 %r7, %nctaid.y;\nmov.u32 %r8, %laneid;\n"
        "mov.u32 %r9, %warpid;\nmov.u32 %r10, %lanemask_lt;\n"
        /* number = ((z * 2 + y) * 3 + x) * 20 + thread; thread = (tz * 2 + ty) * 5 + tx */
        "mad.lo.u32 %r11, %r5, %r7, %r4;\nmad.lo.u32 %r11, %r11, 3, %r3;\n"
        "mad.lo.u32 %r12, %r2, %r6, %r1;\nmad.lo.u32 %r12, %r12, 5, %r0;\n"
        "mad.lo.u32 %r11, %r11, 20, %r12;\nmul.wide.u32 %d1, %r11, 4;\nadd.s64 %d1, %d1, %d0;\n"
        "mad.lo.u32 %r13, %r9, 32, %r8;\nmad.lo.u32 %r13, %r10, 64, %r13;\n"
        "st.global.u32 [%d1], %r13;\nret;\n}\n";
    const unsigned grid[3] = {3, 2, 4}, block[3] = {5, 2, 2};
    const uint64_t at = DEVICE;
    assert_true(ptx_load(&h.module, text, h.err, sizeof h.err));
    assert_true(ptx_memory_add(DEVICE, h.buffer, BUFFER));
    assert_true(ptx_launch(ptx_find(h.module, "k"), grid, block, 0, &at, 8, &h.options, &h.stats,
                           h.err, sizeof h.err));
    ptx_memory_remove(DEVICE);
    ptx_unload(h.module);
    for (unsigned b = 0; b < 24; b++) {
        for (unsigned t = 0; t < 20; t++)
            assert_int_equal(word(&h, b * 20 + t), t + 64 * ((1u << t) - 1));
    }
    assert_int_equal(h.stats.blocks, 24);
}

static void memory_starts_as_nans(void **state)
{
    (void)state;
    harness h = {.blocks = 2, .threads = 1};
    /* each block reads before it writes: the second one sees nothing of the first */
    runs(&h, "ld.shared.u32 %r3, [s];\nld.local.u32 %r4, [l];\nand.b32 %r3, %r3, %r4;\n"
             "st.shared.u32 [s], 0;\nst.local.u32 [l], 0;\n"
             "mul.wide.u32 %d2, %r1, 4;\nadd.s64 %d2, %d2, %d0;\nst.global.u32 [%d2], %r3;\n");
    assert_int_equal(word(&h, 0), 0xffffffff);
    assert_int_equal(word(&h, 1), 0xffffffff);
}

static void copies_come_when_waited_for(void **state)
{
    (void)state;
    harness h = {.blocks = 1, .threads = 32, .options = {.race = true, .count = true}};
    for (unsigned t = 0; t < BUFFER / 4; t++)
        memcpy(h.buffer + 4 * t, &t, 4);
    /* two groups; of the second, odd lanes ask for zeros. Out: words 512 + t and 544 + t */
    runs(&h,
         "mov.u32 %r3, s;\nshl.b32 %r4, %r0, 4;\nadd.u32 %r3, %r3, %r4;\n"
         "mul.wide.u32 %d2, %r0, 16;\nadd.s64 %d2, %d2, %d0;\n"
         "cp.async.cg.shared.global [%r3], [%d2], 16;\ncp.async.commit_group;\n"
         "and.b32 %r5, %r0, 1;\nsetp.eq.u32 %p1, %r5, 0;\nselp.b32 %r6, 16, 0, %p1;\n"
         "cp.async.ca.shared.global [%r3+512], [%d2+512], 16, %r6;\ncp.async.commit_group;\n"
         "cp.async.wait_group 1;\nld.shared.u32 %r7, [%r3+4];\nst.global.u32 [%d1+2048], %r7;\n"
         "cp.async.wait_group 0;\nld.shared.u32 %r7, [%r3+524];\nst.global.u32 [%d1+2176], %r7;\n");
    for (unsigned t = 0; t < 32; t++) {
        assert_int_equal(word(&h, 512 + t), 4 * t + 1);
        assert_int_equal(word(&h, 544 + t), t % 2 ? 0 : 128 + 4 * t + 3);
    }
    assert_int_equal(h.stats.async_bytes, 16 * 48);
}

static void atomics_give_each_lane_its_own(void **state)
{
    (void)state;
    harness h = {.blocks = 1, .threads = 96, .options = {.race = true, .shuffle = true, .seed = 5}};
    runs(&h, "setp.eq.u32 %p1, %r0, 0;\n@%p1 st.shared.v4.u32 [s], {0, 0, 0, 7};\nbar.sync 0;\n"
             "atom.shared.add.u32 %r3, [s], 2;\nred.shared.max.s32 [s+4], %r0;\n"
             "red.shared.min.s32 [s+8], -3;\natom.shared.cas.b32 %r4, [s+12], 7, 9;\nbar.sync 0;\n"
             "shl.b32 %r5, %r3, 1;\ncvt.u64.u32 %d2, %r5;\nadd.s64 %d2, %d2, %d0;\n"
             "st.global.u32 [%d2], 1;\nld.shared.v4.u32 {%r6,%r7,%r8,%r9}, [s];\n"
             "@%p1 st.global.v4.u32 [%d0+512], {%r6,%r7,%r8,%r9};\n");
    for (unsigned t = 0; t < 96; t++)
        assert_int_equal(word(&h, t), 1);
    const uint32_t want[4] = {192, 95, (uint32_t)-3, 9};
    assert_memory_equal(h.buffer + 512, want, sizeof want);
}

/* The kernel writes in which order warps came to an atomic: a seed repeats itself, seeds differ. */
static void orders_come_from_the_seed(void **state)
{
    (void)state;
    uint32_t first[8][8];
    unsigned differ = 0;
    for (unsigned s = 0; s < 8; s++) {
        for (int again = 0; again < 2; again++) {
            harness h = {.blocks = 1, .threads = 256, .options = {.shuffle = true, .seed = s}};
            runs(&h, "setp.eq.u32 %p1, %r0, 0;\n@%p1 st.shared.u32 [s], 0;\nbar.sync 0;\n"
                     "shr.u32 %r3, %r0, 5;\nand.b32 %r4, %r0, 31;\nsetp.ne.u32 %p2, %r4, 0;\n"
                     "@%p2 ret;\natom.shared.add.u32 %r5, [s], 1;\nmul.wide.u32 %d2, %r3, 4;\n"
                     "add.s64 %d2, %d2, %d0;\nst.global.u32 [%d2], %r5;\n");
            if (again)
                assert_memory_equal(h.buffer, first[s], sizeof first[s]);
            memcpy(first[s], h.buffer, sizeof first[s]);
        }
        differ += memcmp(first[s], first[0], sizeof first[s]) != 0;
    }
    assert_true(differ >= 6);
}

static void lines_are_counted(void **state)
{
    (void)state;
    harness h = {.blocks = 3, .threads = 64};
    assert_true(harness_load(&h,
                             "setp.gt.u32 %p1, %r0, 31;\n@%p1 bra A;\nadd.u32 %r3, %r0, 1;\nA:\n"
                             "setp.gt.u32 %p1, %r0, 99;\n@%p1 add.u32 %r4, %r0, 1;\n"));
    assert_true(harness_launch(&h));
    const ptx_kernel *k = ptx_find(h.module, "k");
    size_t n = ptx_n_lines(k);
    uint64_t sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += ptx_line_at(k, i).executed;
    assert_string_equal(ptx_line_at(k, n - 1).opcode, "ret");
    assert_int_equal(ptx_line_at(k, n - 1).executed, 6);
    assert_int_equal(ptx_line_at(k, n - 2).executed, 0); /* its guard lets nobody through */
    assert_int_equal(ptx_line_at(k, n - 4).executed, 3);
    assert_int_equal(ptx_line_at(k, n - 1).line, ptx_line_at(k, n - 2).line + 2);
    assert_int_equal(h.stats.warp_instructions, sum + 6);
    ptx_unload(h.module);
}

static void sectors_are_counted(void **state)
{
    (void)state;
    harness h = {.blocks = 2, .threads = 32, .options = {.count = true}};
    runs(&h, "ld.global.u32 %r3, [%d1];\n" /* 4 sectors */
             "mul.wide.u32 %d2, %r0, 64;\nadd.s64 %d2, %d2, %d0;\n"
             "ld.global.v4.u32 {%r4,%r5,%r6,%r7}, [%d2];\n" /* 32 sectors, 2 of them not fresh */
             "ld.global.v2.u32 {%r3,%r4}, [%d0+4088];\n"    /* 1 */
             "mul.wide.u32 %d3, %r1, 128;\nadd.s64 %d1, %d1, %d3;\nst.global.u32 [%d1], %r3;\n");
    assert_int_equal(h.stats.load_requests, 6);
    assert_int_equal(h.stats.load_bytes, 2 * (128 + 512 + 256));
    assert_int_equal(h.stats.load_bytes_128, 2 * 512);
    assert_int_equal(h.stats.load_sectors, 2 * (4 + 32 + 1));
    assert_int_equal(h.stats.load_sectors_fresh, 4 + 30 + 1);
    assert_int_equal(h.stats.store_sectors, 2 * 4);
    assert_int_equal(h.stats.store_sectors_fresh, 8);
}

static void bank_conflicts_are_counted(void **state)
{
    (void)state;
    static const struct {
        const char *body;
        unsigned wavefronts, ideal;
    } rows[] = {
        {"add.u32 %r3, %r3, %r2;\nld.shared.u32 %r4, [%r3];\n", 1, 1},
        {"ld.shared.u32 %r4, [%r3];\n", 1, 1},
        {"mad.lo.u32 %r3, %r0, 8, %r3;\nld.shared.u32 %r4, [%r3];\n", 2, 1},
        {"and.b32 %r5, %r0, 7;\nmad.lo.u32 %r3, %r5, 128, %r3;\nld.shared.u32 %r4, [%r3];\n", 8, 1},
        {"mad.lo.u32 %r3, %r0, 8, %r3;\nld.shared.v2.u32 {%r4,%r5}, [%r3];\n", 2, 2},
        {"mad.lo.u32 %r3, %r0, 16, %r3;\nld.shared.v4.u32 {%r4,%r5,%r6,%r7}, [%r3];\n", 4, 4},
        {"and.b32 %r5, %r0, 15;\nmad.lo.u32 %r3, %r5, 32, %r3;\n"
         "ld.shared.v4.u32 {%r4,%r5,%r6,%r7}, [%r3];\n",
         8, 4},
        {"add.u32 %r3, %r3, %r0;\nld.shared.u8 %r4, [%r3];\n", 1, 1},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        harness h = {.blocks = 1, .threads = 32, .options = {.count = true}};
        char body[400];
        snprintf(body, sizeof body, "mov.u32 %%r3, s;\n%s", rows[i].body);
        runs(&h, body);
        assert_int_equal(h.stats.shared_requests, 1);
        assert_int_equal(h.stats.shared_wavefronts, rows[i].wavefronts);
        assert_int_equal(h.stats.shared_wavefronts_ideal, rows[i].ideal);
    }
}

/* A loop like a linear's: wide loads, nibbles, mma, scales. The figure is printed and not judged.
 */
static void print_speed(void **state)
{
    (void)state;
    static const char body[] =
        "mul.wide.u32 %d2, %r0, 16;\nadd.s64 %d2, %d2, %d0;\nmov.u32 %r3, 0;\nmov.f32 %f0, "
        "0f00000000;\n"
        "L:\nld.global.nc.v4.u32 {%r4,%r5,%r6,%r7}, [%d2];\nand.b32 %r8, %r4, 252645135;\n"
        "shr.u32 %r9, %r4, 4;\nand.b32 %r9, %r9, 252645135;\n"
        "mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 {%r10,%r11,%r12,%r13}, {%r8,%r9,%r8,%r9}, "
        "{%r5,%r6}, {%r7,%r7,%r7,%r7};\n"
        "cvt.rn.f32.s32 %f1, %r10;\ncvt.rn.f32.s32 %f2, %r11;\ncvt.rn.f32.s32 %f3, %r12;\n"
        "cvt.rn.f32.s32 %f4, %r13;\nmul.rn.f32 %f1, %f1, 0f3E000000;\nfma.rn.f32 %f0, %f1, %f2, "
        "%f0;\n"
        "fma.rn.f32 %f0, %f3, %f4, %f0;\nadd.u32 %r3, %r3, 1;\nsetp.lt.u32 %p1, %r3, 10000;\n"
        "@%p1 bra L;\nmov.b32 %r4, %f0;\nst.global.u32 [%d1+2048], %r4;\n";
    for (int strict = 0; strict < 2; strict++) {
        harness h = {.blocks = 1, .threads = 128, .options = {.race = strict, .shuffle = strict}};
        clock_t start = clock();
        runs(&h, body);
        double s = (double)(clock() - start) / CLOCKS_PER_SEC;
        printf("ptxvm: %.1f M warp instructions/s%s\n",
               (double)h.stats.warp_instructions * 1e-6 / s,
               strict ? " with races looked for" : "");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_of_v4_and_narrow_types),
        cmocka_unit_test(vectors_of_a_warp),
        cmocka_unit_test(every_space_by_its_own_and_by_generic_addresses),
        cmocka_unit_test(parted_lanes_meet_again),
        cmocka_unit_test(lanes_that_returned_do_nothing_more),
        cmocka_unit_test(special_registers),
        cmocka_unit_test(memory_starts_as_nans),
        cmocka_unit_test(copies_come_when_waited_for),
        cmocka_unit_test(atomics_give_each_lane_its_own),
        cmocka_unit_test(orders_come_from_the_seed),
        cmocka_unit_test(lines_are_counted),
        cmocka_unit_test(sectors_are_counted),
        cmocka_unit_test(bank_conflicts_are_counted),
        cmocka_unit_test(print_speed),
    };
    return cmocka_run_group_tests_name("ptx_machine", tests, NULL, NULL);
}
