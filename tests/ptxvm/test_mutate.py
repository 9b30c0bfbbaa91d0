#!/usr/bin/env python3
"""The mutator changes what it says, one instruction at a time, and nothing else."""
import os
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
MMA = "mma.sync.aligned.m16n8k16.row.col.s32.u8.s8.s32 {%r1, %r2, %r3, %r4}, {%r5,%r6}, {%r7}, {%r1, %r2, %r3, %r4}"
PTX = f""".version 9.0
.visible .entry k_a(.param .u64 p)
{{
\tsetp.lt.s32 \t%p1, %r1, 7;
\t@!%p1 bra \t$L;
\tld.global.nc.v2.u32 \t{{%r1, %r2}}, [%rd1+8];
\t{MMA};
\tfma.rn.f32 \t%f1, %f2, %f3, %f4;
\tcvt.rni.s32.f32 \t%r1, %f1;
\tbar.sync \t0;
$L:
\tret;
}}
"""
WANT = """4 k_a bound setp.le.s32 %p1, %r1, 7;
4 k_a immediate setp.lt.s32 %p1, %r1, 6;
4 k_a immediate setp.lt.s32 %p1, %r1, 8;
5 k_a guard @%p1 bra $L;
6 k_a load offset ld.global.nc.v2.u32 {%r1, %r2}, [%rd1+16];
7 k_a mma registers mma.sync.aligned.m16n8k16.row.col.s32.u8.s8.s32 {%r1, %r2, %r3, %r4}, {%r6, %r5}, {%r7}, {%r1, %r2, %r3, %r4};
7 k_a mma type mma.sync.aligned.m16n8k16.row.col.s32.s8.s8.s32 {%r1, %r2, %r3, %r4}, {%r5,%r6}, {%r7}, {%r1, %r2, %r3, %r4};
8 k_a fma operands fma.rn.f32 %f1, %f2, %f4, %f3;
9 k_a rounding cvt.rzi.s32.f32 %r1, %f1;
10 k_a barrier // dropped
"""


def main():
    with tempfile.NamedTemporaryFile("w", suffix=".ptx") as f:
        f.write(PTX)
        f.flush()
        run = subprocess.run([sys.executable, os.path.join(HERE, "mutate.py"), "--list", f.name, "none"], check=True,
                             capture_output=True, text=True)
    got = ""
    for row in run.stdout.splitlines():
        line, kernel, kind, _, new = row.split("\t")
        got += f"{line} {kernel} {kind} {new}\n"
    assert got == WANT, f"got\n{got}want\n{WANT}"


if __name__ == "__main__":
    sys.exit(main())
