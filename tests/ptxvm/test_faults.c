/*
 * test_faults: kernels that do what no kernel may, each stopped by its name, and beside each what
 * differs from it by the one thing that makes it right, which the machine lets pass.
 */
#include "tests/ptxvm/harness.h"

typedef struct fault {
    const char *name;
    unsigned blocks, threads;
    const char *body;
    const char *says; /* NULL: runs */
} fault;

#define HALF "setp.lt.u32 %p1, %r0, 16;\n"
#define TO_SHARED                                                                                  \
    "mov.u32 %r3, s;\nadd.u32 %r4, %r3, %r2;\nxor.b32 %r5, %r2, 4;\nadd.u32 %r5, %r5, %r3;\n"      \
    "st.shared.u32 [%r4], %r0;\n"
#define COPY16                                                                                     \
    "mov.u32 %r3, s;\nshl.b32 %r6, %r0, 4;\nadd.u32 %r4, %r3, %r6;\n"                              \
    "mul.wide.u32 %d2, %r0, 16;\nadd.s64 %d2, %d2, %d0;\n"                                         \
    "cp.async.cg.shared.global [%r4], [%d2], 16;\n"

#define TO_GLOBAL                                                                                  \
    "st.global.u32 [%d1], %r0;\nxor.b32 %r3, %r2, 128;\ncvt.u64.u32 %d2, %r3;\n"                   \
    "add.s64 %d2, %d2, %d0;\n"

static const fault faults[] = {
    {"a barrier in one branch", 1, 32, HALF "@%p1 bra A;\nbar.sync 0;\nA:\n", "divergent barrier"},
    {"a barrier behind the branch", 1, 32,
     HALF "@%p1 bra A;\nadd.u32 %r3, %r0, 1;\nA:\nbar.sync 0;\n", NULL},
    {"a guarded barrier", 1, 32, HALF "@%p1 bar.sync 0;\n", "divergent barrier"},
    {"lanes returned before a barrier", 1, 32, HALF "@%p1 ret;\nbar.sync 0;\n",
     "divergent barrier"},
    {"a warp returned before a barrier", 1, 64,
     "setp.lt.u32 %p1, %r0, 32;\n@%p1 ret;\nbar.sync 0;\n", "divergent barrier: 1 warps"},
    {"half a warp is the whole warp", 1, 48, "bar.sync 0;\n", NULL},
    {"a shuffle in one branch", 1, 32,
     HALF "@%p1 bra A;\nshfl.sync.bfly.b32 %r3, %r0, 1, 31, -1;\nA:\n", "divergent warp"},
    {"a shuffle of those who are there", 1, 32,
     HALF "@%p1 bra A;\nshfl.sync.bfly.b32 %r3, %r0, 1, 31, 0xffff0000;\nA:\n", NULL},
    {"a shuffle from a lane outside", 1, 32,
     HALF "@%p1 bra A;\nshfl.sync.bfly.b32 %r3, %r0, 16, 31, 0xffff0000;\nA:\n", "divergent warp"},
    {"a lane outside its own mask", 1, 32, "shfl.sync.bfly.b32 %r3, %r0, 0, 31, 1;\n",
     "divergent warp"},
    {"a shuffle from a lane of another mask", 1, 32,
     HALF "selp.b32 %r3, 0xffff, 0xffff0000, %p1;\n"
          "shfl.sync.bfly.b32 %r4, %r0, 16, 31, %r3;\n",
     "lane 0 takes the value of lane 16, which is not here or not in its mask"},
    {"shuffles of two masks", 1, 32,
     HALF "selp.b32 %r3, 0xffff, 0xffff0000, %p1;\n"
          "shfl.sync.bfly.b32 %r4, %r0, 8, 31, %r3;\n",
     NULL},
    {"a redux of masks that overlap", 1, 2,
     "setp.eq.u32 %p1, %r0, 0;\nselp.b32 %r3, 3, 2, %p1;\nredux.sync.add.u32 %r4, %r0, %r3;\n",
     "lane 0 names lanes 00000003, and lane 1 of them 00000002"},
    {"a syncwarp of masks that overlap", 1, 2,
     "setp.eq.u32 %p1, %r0, 0;\nselp.b32 %r3, 3, 2, %p1;\nbar.warp.sync %r3;\n",
     "lane 0 names lanes 00000003, and lane 1 of them 00000002"},
    {"a vote in one branch", 1, 32, HALF "@%p1 bra A;\nvote.sync.ballot.b32 %r3, %p1, -1;\nA:\n",
     "divergent warp"},
    {"a redux in one branch", 1, 32, HALF "@%p1 bra A;\nredux.sync.add.u32 %r3, %r0, -1;\nA:\n",
     "divergent warp"},
    {"a syncwarp in one branch", 1, 32, HALF "@%p1 bra A;\nbar.warp.sync -1;\nA:\n",
     "divergent warp"},
    {"mma in one branch", 1, 32,
     HALF "@%p1 bra A;\nmma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 {%r10,%r11,%r12,%r13}, "
          "{%r0,%r0,%r0,%r0}, {%r0,%r0}, {%r0,%r0,%r0,%r0};\nA:\n",
     "divergent warp"},
    {"ldmatrix in a half warp", 1, 16,
     "mov.u32 %r3, s;\nldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r4}, [%r3];\n", "divergent warp"},
    {"bra.uni by half", 1, 32, HALF "@%p1 bra.uni A;\nA:\n", "divergent bra.uni"},

    {"a load past the end", 1, 32, "ld.global.u32 %r3, [%d1+3972];\n", "past the end"},
    {"a load up to the end", 1, 32, "ld.global.u32 %r3, [%d1+3968];\n", NULL},
    {"a load across the end", 1, 1, "ld.global.v4.u32 {%r3,%r4,%r5,%r6}, [%d0+4096];\n",
     "past the end"},
    {"a load of nowhere", 1, 1, "mov.u64 %d2, 64;\nld.global.u32 %r3, [%d2];\n",
     "in no allocation"},
    {"a load before the start", 1, 1, "ld.global.u32 %r3, [%d0+-4];\n", "in no allocation"},
    {"an address that wraps", 1, 1, "mov.u64 %d2, -4;\nld.global.u32 %r3, [%d2];\n",
     "in no allocation"},
    {"a store past the end", 1, 1, "st.global.u32 [%d0+4096], %r0;\n", "past the end"},
    {"shared memory past the end", 1, 1, "st.shared.u32 [s+1024], %r0;\n",
     "out of bounds: store of 4 bytes at 1024 of 1024 bytes of shared"},
    {"local memory past the end", 1, 1, "st.local.u32 [l+16], %r0;\n", "of local memory"},
    {"parameters past the end", 1, 1, "ld.param.u64 %d2, [k_a+16];\n", "of parameter memory"},
    {"a store to parameters", 1, 1,
     "mov.b64 %d2, k_a;\ncvta.param.u64 %d3, %d2;\nst.u32 [%d3], %r0;\n", "store to a parameter"},
    {"a generic load of parameters", 1, 1,
     "mov.b64 %d2, k_a;\ncvta.param.u64 %d3, %d2;\nld.u32 %r3, [%d3+4];\n", NULL},
    {"shared memory as a global address", 1, 1,
     "mov.u64 %d2, s;\ncvta.shared.u64 %d3, %d2;\nld.global.u32 %r3, [%d3];\n", "in no allocation"},

    {"a misaligned load", 1, 1, "ld.global.u32 %r3, [%d0+2];\n", "misaligned load of 4 bytes"},
    {"a misaligned vector", 1, 1, "ld.global.v4.u32 {%r3,%r4,%r5,%r6}, [%d0+8];\n",
     "misaligned load of 16 bytes"},
    {"an aligned vector", 1, 1, "ld.global.v4.u32 {%r3,%r4,%r5,%r6}, [%d0+16];\n", NULL},
    {"a misaligned store to shared", 1, 1, "st.shared.u16 [s+1], %h0;\n", "misaligned store"},
    {"a misaligned row of ldmatrix", 1, 32,
     "mov.u32 %r3, s;\nldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r4}, [%r3+8];\n", "misaligned"},

    {"cp.async read at once", 1, 32, COPY16 "ld.shared.u32 %r7, [%r4];\n",
     "unwaited cp.async: load"},
    {"cp.async committed only", 1, 32, COPY16 "cp.async.commit_group;\nld.shared.u32 %r7, [%r4];\n",
     "unwaited cp.async: load"},
    {"cp.async waited for too weakly", 1, 32,
     COPY16 "cp.async.commit_group;\ncp.async.wait_group 1;\nld.shared.u32 %r7, [%r4];\n",
     "unwaited cp.async: load"},
    {"the older group of two", 1, 32,
     COPY16 "cp.async.commit_group;\ncp.async.cg.shared.global [%r4+512], [%d2], 16;\n"
            "cp.async.commit_group;\ncp.async.wait_group 1;\nld.shared.u32 %r7, [%r4];\n"
            "cp.async.wait_group 0;\n",
     NULL},
    {"the younger group of two", 1, 32,
     COPY16 "cp.async.commit_group;\ncp.async.cg.shared.global [%r4+512], [%d2], 16;\n"
            "cp.async.commit_group;\ncp.async.wait_group 1;\nld.shared.u32 %r7, [%r4+512];\n",
     "unwaited cp.async: load"},
    {"cp.async waited for", 1, 32, COPY16 "cp.async.wait_all;\nld.shared.u32 %r7, [%r4];\n", NULL},
    {"cp.async waited for, read by another lane", 1, 32,
     COPY16 "cp.async.wait_all;\nxor.b32 %r5, %r4, 16;\nld.shared.u32 %r7, [%r5];\n",
     "race in shared memory"},
    {"cp.async, wait, barrier, another lane", 1, 32,
     COPY16 "cp.async.wait_all;\nxor.b32 %r5, %r4, 16;\nbar.sync 0;\nld.shared.u32 %r7, [%r5];\n",
     NULL},
    {"cp.async never waited for", 1, 32, COPY16 "cp.async.commit_group;\n",
     "unwaited cp.async: lane 0 returns"},
    {"cp.async over what another lane reads", 1, 32,
     "mov.u32 %r3, s;\nshl.b32 %r6, %r0, 4;\nadd.u32 %r5, %r3, %r6;\nxor.b32 %r5, %r5, 16;\n"
     "ld.shared.u32 %r7, [%r5];\n" COPY16 "cp.async.wait_all;\n",
     "race in shared memory"},

    {"two lanes copy to one place", 1, 2,
     "cp.async.cg.shared.global [s], [%d0], 16;\ncp.async.wait_all;\n", "race in shared memory"},
    {"cp.async waited for by other lanes", 1, 32,
     COPY16 HALF "cp.async.commit_group;\n@%p1 cp.async.wait_group 0;\n"
                 "ld.shared.u32 %r7, [%r4];\n",
     "unwaited cp.async: load"},
    {"cp.async, barrier, wait, another lane", 1, 32,
     COPY16 "xor.b32 %r5, %r4, 16;\nbar.sync 0;\ncp.async.wait_all;\nld.shared.u32 %r7, [%r5];\n",
     "race in shared memory"},
    {"cp.async of less than it is", 1, 1,
     "cp.async.cg.shared.global [s], [%d0], 16, 8;\ncp.async.wait_all;\n", "reads 8 of 16"},
    {"cp.async by L2 alone, of 8 bytes", 1, 1,
     "cp.async.cg.shared.global [s], [%d0], 8;\ncp.async.wait_all;\n",
     "cp.async.cg.shared.global of 8 bytes"},
    {"cp.async of 8 bytes", 1, 1, "cp.async.ca.shared.global [s], [%d0], 8;\ncp.async.wait_all;\n",
     NULL},
    {"cp.async past the end", 1, 1, "cp.async.cg.shared.global [s], [%d0+4096], 16;\n",
     "past the end"},
    {"cp.async of nothing past the end", 1, 1,
     "cp.async.cg.shared.global [s], [%d0+4096], 16, 0;\ncp.async.wait_all;\n", NULL},

    {"another lane's word, no syncwarp", 1, 32, TO_SHARED "ld.shared.u32 %r7, [%r5];\n",
     "no __syncwarp between"},
    {"another lane's word, syncwarp", 1, 32,
     TO_SHARED "bar.warp.sync -1;\nld.shared.u32 %r7, [%r5];\n", NULL},
    {"another lane's word, a syncwarp of others", 1, 32,
     TO_SHARED "and.b32 %r8, %r0, 1;\nsetp.eq.u32 %p1, %r8, 0;\n@%p1 bra A;\n"
               "bar.warp.sync 0xaaaaaaaa;\nbra B;\nA:\nbar.warp.sync 0x55555555;\nB:\n"
               "ld.shared.u32 %r7, [%r5];\n",
     "no __syncwarp between"},
    {"another lane's word, a shuffle between", 1, 32,
     TO_SHARED "shfl.sync.bfly.b32 %r8, %r0, 1, 31, -1;\nld.shared.u32 %r7, [%r5];\n",
     "no __syncwarp between"},
    {"over what another lane read", 1, 32,
     TO_SHARED "bar.warp.sync -1;\nld.shared.u32 %r7, [%r5];\nst.shared.u32 [%r4], %r7;\n",
     "race in shared memory: thread 0 writes byte 0, which thread 1 of its warp read"},
    {"over what another lane read, syncwarp", 1, 32,
     TO_SHARED "bar.warp.sync -1;\nld.shared.u32 %r7, [%r5];\nbar.warp.sync -1;\n"
               "st.shared.u32 [%r4], %r7;\n",
     NULL},
    {"two lanes write one word", 1, 2, "st.shared.u32 [s], %r0;\n", "race in shared memory"},
    {"another thread of another block writes it", 2, 2,
     "setp.eq.u32 %p1, %r0, %r1;\n@%p1 st.shared.u32 [s], %r0;\n", NULL},
    {"two lanes write bytes of one word", 1, 4,
     "mov.u32 %r3, s;\nadd.u32 %r3, %r3, %r0;\nst.shared.u8 [%r3], %r0;\n", NULL},
    {"a word of which another lane wrote a byte", 1, 4,
     "mov.u32 %r3, s;\nadd.u32 %r3, %r3, %r0;\nst.shared.u8 [%r3], %r0;\nld.shared.u32 %r4, [s];\n",
     "race in shared memory"},
    {"another warp's word, syncwarp", 1, 64,
     TO_SHARED "bar.warp.sync -1;\nxor.b32 %r5, %r4, 128;\nld.shared.u32 %r7, [%r5];\n",
     "no __syncthreads between"},
    {"another warp's word, barrier", 1, 64,
     TO_SHARED "bar.sync 0;\nxor.b32 %r5, %r4, 128;\nld.shared.u32 %r7, [%r5];\n", NULL},
    {"over what another warp read", 1, 64,
     TO_SHARED "bar.sync 0;\nxor.b32 %r5, %r4, 128;\nld.shared.u32 %r7, [%r5];\n"
               "st.shared.u32 [%r4], %r7;\n",
     "race in shared memory"},
    {"what another warp read first", 1, 64,
     "setp.lt.u32 %p1, %r0, 32;\nand.b32 %r3, %r2, 124;\nmov.u32 %r4, s;\nadd.u32 %r4, %r4, %r3;\n"
     "@%p1 ld.shared.u32 %r7, [%r4];\n@!%p1 st.shared.u32 [%r4], %r0;\n",
     "thread 32 writes byte 0, which thread 0 read"},
    {"over what all lanes of the warp read", 1, 32,
     "ld.shared.u32 %r7, [s];\nsetp.eq.u32 %p1, %r0, 31;\n@%p1 st.shared.u32 [s], %r7;\n",
     "which thread 0 of its warp read, with no __syncwarp"},
    {"what a lane read, syncwarp, another reads and writes", 1, 32,
     "setp.eq.u32 %p1, %r0, 0;\nsetp.eq.u32 %p2, %r0, 1;\n@%p1 ld.shared.u32 %r7, [s];\n"
     "bar.warp.sync -1;\n@%p2 ld.shared.u32 %r7, [s];\n@%p2 st.shared.u32 [s], %r7;\n",
     NULL},
    {"a chain of syncwarps of two lanes", 1, 3,
     "setp.eq.u32 %p1, %r0, 0;\nsetp.eq.u32 %p2, %r0, 1;\nsetp.eq.u32 %p3, %r0, 2;\n"
     "@%p1 ld.shared.u32 %r7, [s];\n@!%p3 bar.warp.sync 3;\n@%p2 st.shared.u32 [s], %r0;\n"
     "@!%p1 bar.warp.sync 6;\n@%p3 st.shared.u32 [s], %r0;\n",
     NULL},
    {"a byte of a word that another lane wrote", 1, 2,
     "setp.eq.u32 %p1, %r0, 0;\n@%p1 st.shared.u32 [s], %r0;\n@!%p1 st.shared.u8 [s+1], %r0;\n",
     "thread 1 writes byte 1, which thread 0 of its warp wrote"},
    {"over what two warps read", 1, 96,
     "ld.shared.u32 %r7, [s];\nsetp.eq.u32 %p1, %r0, 70;\n@%p1 st.shared.u32 [s], %r7;\n",
     "race in shared memory"},
    {"atomics of all threads", 1, 64, "atom.shared.add.u32 %r3, [s], 1;\n", NULL},
    {"atomics, then a read", 1, 64, "red.shared.add.u32 [s], 1;\nld.shared.u32 %r3, [s];\n",
     "race in shared memory"},
    {"atomics of a warp, syncwarp, a read", 1, 32,
     "red.shared.add.u32 [s], 1;\nbar.warp.sync -1;\nld.shared.u32 %r3, [s];\n", NULL},
    {"atomics of a warp, then a read", 1, 32,
     "red.shared.add.u32 [s], 1;\nld.shared.u32 %r3, [s];\n", "no __syncwarp between"},

    {"atomics of a warp, read by the last alone", 1, 32,
     "red.shared.add.u32 [s], 1;\nsetp.eq.u32 %p1, %r0, 31;\n@%p1 ld.shared.u32 %r3, [s];\n",
     "no __syncwarp between"},
    {"atomics of two warps, syncwarp, a read", 1, 64,
     "red.shared.add.u32 [s], 1;\nbar.warp.sync -1;\nsetp.gt.u32 %p1, %r0, 31;\n"
     "@%p1 ld.shared.u32 %r3, [s];\n",
     "race in shared memory"},
    {"atomics, and half a warp returns", 1, 32,
     HALF "red.shared.add.u32 [s], 1;\n@%p1 ret;\nbar.warp.sync -1;\nld.shared.u32 %r3, [s];\n",
     NULL},
    {"some return, the rest meets those who wait", 1, 32,
     HALF "setp.gt.u32 %p2, %r0, 24;\n@%p1 bra A;\n@%p2 ret;\nA:\nbar.warp.sync -1;\n", NULL},

    {"two threads write one word of global memory", 1, 2, "st.global.u32 [%d0], %r0;\n",
     "race in global memory"},
    {"two warps write one word of global memory, a barrier between", 1, 64,
     "setp.eq.u32 %p1, %r0, 0;\nsetp.eq.u32 %p2, %r0, 32;\n@%p1 st.global.u32 [%d0], %r0;\n"
     "bar.sync 0;\n@%p2 st.global.u32 [%d0], %r0;\n",
     NULL},
    {"two threads write bytes of a word of global memory", 1, 2,
     "cvt.u64.u32 %d2, %r0;\nadd.s64 %d2, %d2, %d0;\nst.global.u8 [%d2], %r0;\n", NULL},
    {"another warp's word of global memory", 1, 64, TO_GLOBAL "ld.global.u32 %r7, [%d2];\n",
     "race in global memory"},
    {"another warp's word of global memory, barrier", 1, 64,
     TO_GLOBAL "bar.sync 0;\nld.global.u32 %r7, [%d2];\n", NULL},
    {"another warp's word of global memory by cp.async", 1, 64,
     TO_GLOBAL "mov.u32 %r4, s;\nadd.u32 %r4, %r4, %r2;\n"
               "cp.async.ca.shared.global [%r4], [%d2], 4;\ncp.async.wait_all;\n",
     "race in global memory"},
    {"another lane's word of global memory", 1, 32,
     "st.global.u32 [%d1], %r0;\nxor.b32 %r3, %r2, 4;\ncvt.u64.u32 %d2, %r3;\n"
     "add.s64 %d2, %d2, %d0;\nld.global.u32 %r7, [%d2];\n",
     "no __syncwarp between"},
    {"another lane's word of global memory, syncwarp", 1, 32,
     "st.global.u32 [%d1], %r0;\nxor.b32 %r3, %r2, 4;\ncvt.u64.u32 %d2, %r3;\n"
     "add.s64 %d2, %d2, %d0;\nbar.warp.sync -1;\nld.global.u32 %r7, [%d2];\n",
     NULL},
    {"over what another warp read of global memory", 1, 64,
     "ld.global.u32 %r7, [%d0];\nsetp.eq.u32 %p1, %r0, 40;\n@%p1 st.global.u32 [%d0], %r7;\n",
     "race in global memory"},
    {"over what another warp read of global memory, barrier", 1, 64,
     "ld.global.u32 %r7, [%d0];\nsetp.eq.u32 %p1, %r0, 40;\nbar.sync 0;\n"
     "@%p1 st.global.u32 [%d0], %r7;\n",
     NULL},
    {"over what each thread itself read of global memory", 1, 64,
     "ld.global.u32 %r7, [%d1];\nadd.u32 %r7, %r7, 1;\nst.global.u32 [%d1], %r7;\n", NULL},
    {"atomics of all threads on global memory", 1, 64, "red.global.add.u32 [%d0], 1;\n", NULL},
    {"atomics on global memory, then a read", 1, 64,
     "red.global.add.u32 [%d0], 1;\nld.global.u32 %r3, [%d0];\n", "race in global memory"},
    {"constant memory that the thread itself wrote", 1, 1,
     "st.global.u32 [%d0+4], %r0;\nld.global.nc.u32 %r3, [%d0+4];\n",
     "is read as constant, and was written in this launch"},
    {"constant memory beside what was written", 1, 1,
     "st.global.u32 [%d0+4], %r0;\nld.global.nc.u32 %r3, [%d0];\n", NULL},
    {"a write of what was read as constant", 1, 1,
     "ld.global.nc.v4.u32 {%r3,%r4,%r5,%r6}, [%d0];\nst.global.u8 [%d0+7], %r0;\n",
     "is written, and was read as constant in this launch"},

    {"two blocks write one word", 2, 1, "st.global.u32 [%d0], %r1;\n", "race between blocks"},
    {"two blocks write their words", 2, 1,
     "mul.wide.u32 %d2, %r1, 4;\nadd.s64 %d2, %d2, %d0;\nst.global.u32 [%d2], %r1;\n", NULL},
    {"two blocks write bytes of a word", 2, 1,
     "cvt.u64.u32 %d2, %r1;\nadd.s64 %d2, %d2, %d0;\nst.global.u8 [%d2], %r1;\n", NULL},
    {"two blocks write their bytes twice", 2, 1,
     "cvt.u64.u32 %d2, %r1;\nadd.s64 %d2, %d2, %d0;\nst.global.u8 [%d2], %r1;\n"
     "st.global.u8 [%d2], %r1;\nld.global.u8 %r3, [%d2];\n",
     NULL},
    {"all blocks read one word", 3, 1, "ld.global.u32 %r3, [%d0];\n", NULL},
    {"a block reads what another wrote", 2, 1,
     "setp.eq.u32 %p1, %r1, 0;\n@%p1 st.global.u32 [%d0], %r1;\n@!%p1 ld.global.u32 %r3, [%d0];\n",
     "race between blocks: block 1 reads"},
    {"a block writes what another read", 2, 1,
     "setp.eq.u32 %p1, %r1, 1;\n@%p1 st.global.u32 [%d0], %r1;\n@!%p1 ld.global.u32 %r3, [%d0];\n",
     "race between blocks: block 1 writes"},
    {"a block writes what many read", 3, 1,
     "setp.eq.u32 %p1, %r1, 2;\n@%p1 st.global.u32 [%d0], %r1;\n@!%p1 ld.global.u32 %r3, [%d0];\n",
     "which other blocks read"},
    {"a block writes near what many read", 3, 1,
     "setp.eq.u32 %p1, %r1, 2;\n@%p1 st.global.u32 [%d0+4], %r1;\n"
     "@!%p1 ld.global.u32 %r3, [%d0];\n",
     NULL},
    {"atomics of two blocks", 2, 1, "red.global.add.u32 [%d0], 1;\n", "race between blocks"},
    {"cp.async of what another block wrote", 2, 1,
     "setp.eq.u32 %p1, %r1, 0;\n@%p1 st.global.u32 [%d0], %r1;\n@%p1 ret;\n" COPY16
     "cp.async.wait_all;\n",
     "race between blocks"},

    {"trap", 1, 1, "setp.eq.u32 %p1, %r0, 0;\n@%p1 trap;\n", "trap"},
    {"trap nowhere", 1, 1, "setp.eq.u32 %p1, %r0, 1;\n@%p1 trap;\n", NULL},
    {"no end", 1, 1, "A:\nadd.u32 %r3, %r3, 1;\nbra A;\n", "no end after 100000 warp instr"},
};

static void each_is_stopped_by_its_name(void **state)
{
    (void)state;
    for (size_t f = 0; f < sizeof faults / sizeof *faults; f++) {
        for (unsigned shuffle = 0; shuffle < 2; shuffle++) {
            harness h = {.blocks = faults[f].blocks,
                         .threads = faults[f].threads,
                         .options = {.race = true, .limit = 100000, .seed = shuffle}};
            bool good = run_body(&h, faults[f].body);
            if (good != !faults[f].says || (!good && !strstr(h.err, faults[f].says)))
                fail_msg("%s: wanted '%s', got '%s'", faults[f].name,
                         faults[f].says ? faults[f].says : "no fault", good ? "none" : h.err);
        }
    }
}

/* In whatever order warps and blocks run: the same verdicts, for those that name no thread. */
static void no_order_hides_a_fault(void **state)
{
    (void)state;
    for (size_t f = 0; f < sizeof faults / sizeof *faults; f++) {
        for (uint64_t seed = 0; seed < 20; seed++) {
            harness h = {.blocks = faults[f].blocks,
                         .threads = faults[f].threads,
                         .options = {.race = true, .shuffle = true, .limit = 100000, .seed = seed}};
            if (run_body(&h, faults[f].body) != !faults[f].says)
                fail_msg("%s, seed %d: %s", faults[f].name, (int)seed, h.err);
        }
    }
}

static void memory_that_was_freed_is_gone(void **state)
{
    (void)state;
    harness h = {.blocks = 1, .threads = 1};
    assert_true(harness_load(&h, "ld.global.u32 %r3, [%d0];\n"));
    assert_false(harness_launch(&h));
    assert_non_null(strstr(h.err, "in no allocation"));
    assert_true(ptx_memory_add(DEVICE, h.buffer, BUFFER));
    assert_false(ptx_memory_add(DEVICE + BUFFER - 1, h.buffer, 8));
    assert_true(harness_launch(&h));
    assert_ptr_equal(ptx_memory_host(DEVICE + 8, BUFFER - 8), h.buffer + 8);
    assert_null(ptx_memory_host(DEVICE + 8, BUFFER));
    ptx_memory_remove(DEVICE);
    assert_null(ptx_memory_host(DEVICE, 1));
    assert_false(harness_launch(&h));
    ptx_unload(h.module);
}

/* An end that no alignment has: what lies before it does not lend it its bounds. */
static void an_odd_end_is_an_end(void **state)
{
    (void)state;
    harness h = {.blocks = 1, .threads = 1};
    assert_true(harness_load(&h, "ld.global.v4.u32 {%r3,%r4,%r5,%r6}, [%d0];\n"
                                 "ld.global.v4.u32 {%r3,%r4,%r5,%r6}, [%d0+16];\n"));
    assert_true(ptx_memory_add(DEVICE, h.buffer, 31));
    assert_false(harness_launch(&h));
    assert_non_null(strstr(h.err, "[%d0+16]"));
    ptx_memory_remove(DEVICE);
    assert_true(ptx_memory_add(DEVICE, h.buffer, 15)); /* less than one access */
    assert_false(harness_launch(&h));
    assert_non_null(strstr(h.err, "[%d0]"));
    ptx_memory_remove(DEVICE);
    ptx_unload(h.module);
}

static void no_shared_memory_is_none(void **state)
{
    (void)state;
    static const char text[] =
        ".visible .entry k() { .reg .b32 %r<2>; ld.shared.u32 %r0, [0]; ret; }";
    const unsigned one[3] = {1, 1, 1};
    char err[400];
    ptx_module *m;
    assert_true(ptx_load(&m, text, err, sizeof err));
    assert_false(ptx_launch(ptx_find(m, "k"), one, one, 0, NULL, 0, NULL, NULL, err, sizeof err));
    assert_non_null(strstr(err, "at 0 of 0 bytes of shared memory"));
    ptx_unload(m);
}

/* Lanes may lie in several allocations. */
static void lanes_in_two_allocations(void **state)
{
    (void)state;
    harness h = {.blocks = 1, .threads = 2, .options = {.race = true, .count = true}};
    uint32_t far[2] = {0, 0};
    assert_true(harness_load(&h, "ld.param.u64 %d2, [k_a];\nsetp.eq.u32 %p1, %r0, 1;\n"
                                 "selp.b64 %d3, %d2, %d0, %p1;\nst.global.u32 [%d3+4], 5;\n"));
    assert_true(ptx_memory_add(DEVICE, h.buffer, BUFFER));
    assert_false(harness_launch(&h));
    assert_non_null(strstr(h.err, "by lane 1: in no allocation"));
    assert_true(ptx_memory_add(FAR, far, sizeof far));
    if (!harness_launch(&h))
        fail_msg("%s", h.err);
    assert_int_equal(far[1], 5);
    assert_int_equal(h.buffer[4], 5);
    ptx_memory_remove(FAR);
    ptx_memory_remove(DEVICE);
    ptx_unload(h.module);
}

/* Blocks write the words 0 and 1, in the next launch the other way round. */
static void a_word_is_a_blocks_for_one_launch(void **state)
{
    (void)state;
    harness h = {.blocks = 2, .threads = 1, .options = {.race = true}};
    assert_true(harness_load(&h, "ld.global.u32 %r3, [%d0+64];\nadd.u32 %r3, %r3, %r1;\n"
                                 "and.b32 %r3, %r3, 1;\nmul.wide.u32 %d2, %r3, 4;\n"
                                 "add.s64 %d2, %d2, %d0;\nst.global.u32 [%d2], %r1;\n"));
    assert_true(ptx_memory_add(DEVICE, h.buffer, BUFFER));
    for (h.buffer[64] = 0; h.buffer[64] < 3; h.buffer[64]++) {
        if (!harness_launch(&h))
            fail_msg("%s", h.err);
    }
    ptx_memory_remove(DEVICE);
    ptx_unload(h.module);
}

static void launches_that_no_device_takes(void **state)
{
    (void)state;
    harness h = {.blocks = 1, .threads = 257};
    assert_true(harness_load(&h, ""));
    assert_false(harness_launch(&h));
    assert_non_null(strstr(h.err, "number of threads is 257"));
    h.threads = 0;
    assert_false(harness_launch(&h));
    h.threads = 1;
    h.shared = 1 << 20;
    assert_false(harness_launch(&h));
    assert_non_null(strstr(h.err, "dynamic shared memory"));
    h.shared = 0;
    h.blocks = 0;
    assert_false(harness_launch(&h));
    const unsigned one[3] = {1, 1, 1};
    assert_false(
        ptx_launch(ptx_find(h.module, "k"), one, one, 0, "", 1, NULL, NULL, h.err, sizeof h.err));
    assert_non_null(strstr(h.err, "size of the parameters is 1"));
    ptx_unload(h.module);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_is_stopped_by_its_name),
        cmocka_unit_test(no_order_hides_a_fault),
        cmocka_unit_test(memory_that_was_freed_is_gone),
        cmocka_unit_test(an_odd_end_is_an_end),
        cmocka_unit_test(no_shared_memory_is_none),
        cmocka_unit_test(lanes_in_two_allocations),
        cmocka_unit_test(a_word_is_a_blocks_for_one_launch),
        cmocka_unit_test(launches_that_no_device_takes),
    };
    return cmocka_run_group_tests_name("ptx_faults", tests, NULL, NULL);
}
