/*
 * kernels: PTX for the tests of the fake driver, by hand, so that they need no compiler.
 *
 * k_sum: out[i] = a[i] + b[i] + add for i < n, a thread an element, 128 a block at most. k_two has
 * two parameters; k_shared 1,024 bytes of static shared memory.
 */
#ifndef CP_TESTS_FAKE_KERNELS_H
#define CP_TESTS_FAKE_KERNELS_H

#include <stdint.h>

typedef struct sum_args {
    uint64_t a, b, out;
    uint32_t n, add;
} sum_args;

#define SUM_PTX_OF(version, target)                                                                \
    ".version " version "\n.target " target "\n.address_size 64\n"                                 \
    ".visible .entry k_sum(.param .align 8 .b8 k_sum_param_0[32])\n"                               \
    ".maxntid 128, 1, 1\n"                                                                         \
    "{\n"                                                                                          \
    ".reg .pred %p<2>;\n.reg .b32 %r<10>;\n.reg .b64 %rd<12>;\n"                                   \
    "ld.param.b64 %rd1, [k_sum_param_0];\n"                                                        \
    "ld.param.b64 %rd2, [k_sum_param_0+8];\n"                                                      \
    "ld.param.b64 %rd3, [k_sum_param_0+16];\n"                                                     \
    "ld.param.b32 %r1, [k_sum_param_0+24];\n"                                                      \
    "ld.param.b32 %r2, [k_sum_param_0+28];\n"                                                      \
    "mov.u32 %r3, %ctaid.x;\n"                                                                     \
    "mov.u32 %r4, %ntid.x;\n"                                                                      \
    "mov.u32 %r5, %tid.x;\n"                                                                       \
    "mad.lo.s32 %r6, %r3, %r4, %r5;\n"                                                             \
    "setp.ge.u32 %p1, %r6, %r1;\n"                                                                 \
    "@%p1 bra $end;\n"                                                                             \
    "mul.wide.u32 %rd4, %r6, 4;\n"                                                                 \
    "add.s64 %rd5, %rd1, %rd4;\n"                                                                  \
    "add.s64 %rd6, %rd2, %rd4;\n"                                                                  \
    "add.s64 %rd7, %rd3, %rd4;\n"                                                                  \
    "ld.global.b32 %r7, [%rd5];\n"                                                                 \
    "ld.global.b32 %r8, [%rd6];\n"                                                                 \
    "add.s32 %r7, %r7, %r8;\n"                                                                     \
    "add.s32 %r7, %r7, %r2;\n"                                                                     \
    "st.global.b32 [%rd7], %r7;\n"                                                                 \
    "$end:\n"                                                                                      \
    "ret;\n"                                                                                       \
    "}\n"                                                                                          \
    ".visible .entry k_two(.param .b32 k_two_param_0, .param .b32 k_two_param_1)\n"                \
    "{\n"                                                                                          \
    "ret;\n"                                                                                       \
    "}\n"                                                                                          \
    ".visible .entry k_shared()\n"                                                                 \
    "{\n"                                                                                          \
    ".reg .b32 %r<2>;\n"                                                                           \
    ".shared .align 4 .b8 tile[1024];\n"                                                           \
    "mov.u32 %r1, tile;\n"                                                                         \
    "ret;\n"                                                                                       \
    "}\n"
#define SUM_PTX SUM_PTX_OF("8.0", "sm_80")

#endif
