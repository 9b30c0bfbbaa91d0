/*
 * What has no row does not load, and the message names it: modifiers that round, flush, saturate or
 * approximate otherwise than the law of arithmetic, what depends on the order of blocks or lanes,
 * and operands of a form that the machine does not know.
 */
#include "tests/ptxvm/rows/rowtest.h"

#include "tests/support/cmocka.h"

#include <stdio.h>

static const char *const refused[] = {
    "add.f32 %r8, %r9, %r10",
    "mul.f32 %r8, %r9, %r10",
    "add.sat.s32 %r8, %r9, %r10",
    "add.rz.f32 %r8, %r9, %r10",
    "add.rn.ftz.f32 %r8, %r9, %r10",
    "add.rn.sat.f32 %r8, %r9, %r10",
    "sub.rm.f32 %r8, %r9, %r10",
    "mul.rn.ftz.f32 %r8, %r9, %r10",
    "mul24.lo.s32 %r8, %r9, %r10",
    "fma.rn.ftz.f32 %r8, %r9, %r10, %r11",
    "fma.rz.f32 %r8, %r9, %r10, %r11",
    "fma.rn.relu.f16x2 %r8, %r9, %r10, %r11",
    "mad.rn.f32 %r8, %r9, %r10, %r11",
    "mad.lo.cc.u32 %r8, %r9, %r10, %r11",
    "div.approx.f32 %r8, %r9, %r10",
    "div.full.f32 %r8, %r9, %r10",
    "sqrt.approx.f32 %r8, %r9",
    "rsqrt.approx.f32 %r8, %r9",
    "rcp.approx.ftz.f32 %r8, %r9",
    "sin.approx.f32 %r8, %r9",
    "tanh.approx.f32 %r8, %r9",
    "min.ftz.f32 %r8, %r9, %r10",
    "max.NaN.f32 %r8, %r9, %r10",
    "max.xorsign.abs.f32 %r8, %r9, %r10",
    "setp.lt.ftz.f32 %p1, %r9, %r10",
    "cvt.sat.s8.s32 %r8, %r9",
    "cvt.rn.ftz.f32.f64 %r8, %rd9",
    "cvt.rni.ftz.s32.f32 %r8, %r9",
    "cvt.rna.tf32.f32 %r8, %r9",
    "cvt.rn.relu.bf16x2.f32 %r8, %r9, %r10",
    "cvt.rn.satfinite.e4m3x2.f32 %rs8, %r9, %r10",
    "vabsdiff4.u32.u32.u32.add %r8, %r9, %r10, %r11",
    "shfl.bfly.b32 %r8, %r9, 1, 31",
    "vote.ballot.b32 %r8, %p1",
    "bar.arrive 0, 32",
    "bar.red.popc.u32 %r8, 0, %p1",
    "barrier.cluster.arrive",
    "membar.gl",
    "membar.sys",
    "fence.acq_rel.gpu",
    "ld.volatile.global.b32 %r8, [%rd0]",
    "ld.acquire.gpu.global.b32 %r8, [%rd0]",
    "ld.global.v8.b32 {%r8, %r9, %r10, %r11, %r12, %r13, %r14, %r15}, [%rd0]",
    "st.release.gpu.global.b32 [%rd0], %r8",
    "atom.global.add.f32 %r8, [%rd0], %r9",
    "atom.shared.inc.u32 %r8, [%rd0], %r9",
    "atom.shared.dec.u32 %r8, [%rd0], %r9",
    "atom.global.gpu.acq_rel.add.u32 %r8, [%rd0], %r9",
    "red.global.add.f32 [%rd0], %r9",
    "cp.async.bulk.commit_group",
    "cp.async.cg.shared.global.L2::128B [%r8], [%rd0], 16",
    "mma.sync.aligned.m16n8k32.row.col.satfinite.s32.u8.s8.s32 {%r8, %r9, %r10, %r11}, "
    "{%r12, %r13, %r14, %r15}, {%r16, %r17}, {%r8, %r9, %r10, %r11}",
    "mma.sync.aligned.m16n8k32.row.col.s32.s8.u8.s32 {%r8, %r9, %r10, %r11}, "
    "{%r12, %r13, %r14, %r15}, {%r16, %r17}, {%r8, %r9, %r10, %r11}",
    "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%r8, %r9, %r10, %r11}, "
    "{%r12, %r13, %r14, %r15}, {%r16, %r17}, {%r8, %r9, %r10, %r11}",
    "mma.sync.aligned.m16n8k16.row.col.f16.f16.f16.f16 {%r8, %r9}, {%r12, %r13, %r14, %r15}, "
    "{%r16, %r17}, {%r8, %r9}",
    "wgmma.fence.sync.aligned",
    "nanosleep.u32 5",
};

/* A known opcode, operands of another form. */
static const char *const misfits[] = {
    "bar.sync 1",
    "bar.sync 0, 64",
    "add.s32 %r8, %r9",
    "add.s32 %r8, %r9, %r10, %r11",
    "add.s32 %rd8, %rd9, %rd10",
    "add.s64 %rd8, %rd9, %r10",
    "add.s32 %r8, %r9, %p1",
    "add.s32 5, %r9, %r10",
    "add.s32 %r8, %r9, !%r10",
    "setp.eq.s32 %r8, %r9, %r10",
    "selp.b32 %r8, %r9, %r10, %r11",
    "lop3.b32 %r8, %r9, %r10, %r11, %r12",
    "ld.global.v2.b32 %r8, [%rd0]",
    "ld.global.b64 %r8, [%rd0]",
    "mov.b64 {%r8, %r9, %r10}, %rd8",
    ("mma.sync.aligned.m16n8k16.row.col.s32.u8.s8.s32 {%r8, %r9, %r10, %r11}, "
     "{%r12, %r13, %r14, %r15}, {%r16, %r17}, {%r8, %r9, %r10, %r11}"),
    "add.rn.f32 %r8, %r9, 0d3ff0000000000000",
};

static void refuse(const char *instruction, bool by_name)
{
    static uint32_t in[32], out[32];
    char body[512], opcode[128];
    assert_true(strlen(instruction) + 3 < sizeof body);
    snprintf(body, sizeof body, "%s;\n", instruction);
    const char *err = rowtest_run(body, in, sizeof in, out, sizeof out);
    const size_t n = strcspn(instruction, " ");
    memcpy(opcode, instruction, n);
    opcode[n] = '\0';
    if (!err)
        fail_msg("%s was loaded", instruction);
    if (by_name && !strstr(err, opcode))
        fail_msg("%s: the message does not name it: %s", instruction, err);
    if (strstr(err, "block"))
        fail_msg("%s: refused at the launch, not at the load: %s", instruction, err);
}

void rowtest_refusals(void **state)
{
    (void)state;
    for (size_t k = 0; k < sizeof refused / sizeof *refused; k++)
        refuse(refused[k], true);
    for (size_t k = 0; k < sizeof misfits / sizeof *misfits; k++)
        refuse(misfits[k], false);
}
