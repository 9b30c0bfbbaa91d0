#!/usr/bin/env python3
"""The mutator changes what it says, one instruction at a time, and nothing else; the driver tries each in one run of a test.

Usage: test_mutate.py TEST_FAKE_STREAMS
"""
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
\t@%p1 st.global.u32 \t[%rd1], %r1;
$L:
\tret;
}}
"""
WANT = """k_a 4 bound setp.le.s32 %p1, %r1, 7;
k_a 4 number setp.lt.s32 %p1, %r1, 8;
k_a 4 number setp.lt.s32 %p1, %r1, 6;
k_a 5 guard @%p1 bra $L;
k_a 6 load offset ld.global.nc.v2.u32 {%r1, %r2}, [%rd1+16];
k_a 7 mma registers mma.sync.aligned.m16n8k16.row.col.s32.u8.s8.s32 {%r1, %r2, %r3, %r4}, {%r6, %r5}, {%r7}, {%r1, %r2, %r3, %r4};
k_a 7 mma type mma.sync.aligned.m16n8k16.row.col.s32.s8.s8.s32 {%r1, %r2, %r3, %r4}, {%r5,%r6}, {%r7}, {%r1, %r2, %r3, %r4};
k_a 8 fma operands fma.rn.f32 %f1, %f2, %f4, %f3;
k_a 9 rounding cvt.rzi.s32.f32 %r1, %f1;
k_a 10 barrier 
k_a 11 guard @!%p1 st.global.u32 [%rd1], %r1;
k_a 11 dropped 
"""


# Of k_sum in tests/fakes/libcuda/kernels.h: its launches have fewer elements than threads.
TRIED = """k_sum 19 setp.gt.u32 %p1, %r6, %r1; seen
k_sum 27 sub.s32 %r7, %r7, %r8; seen
k_sum 27 add.s32 %r7, %r8, %r7; same
k_sum 28 add.s31 %r7, %r7, %r2; refused
k_sum 29  seen
k_two 35 exit; never
"""


def list_is_right():
    with tempfile.TemporaryDirectory() as folder:
        with open(os.path.join(folder, "a.ptx"), "w", encoding="utf-8") as f:
            f.write(PTX)
        run = subprocess.run([sys.executable, os.path.join(HERE, "mutate.py"), "--ptx", folder, "--list"], check=True,
                             capture_output=True, text=True)
    got = ""
    for row in run.stdout.splitlines():
        kernel, line, kind, _, new = row.split("\t")
        got += f"{kernel} {line} {kind} {new}\n"
    assert got == WANT, f"got\n{got}want\n{WANT}"


def each_is_tried(test):
    with tempfile.TemporaryDirectory() as folder:
        mutants, verdicts = os.path.join(folder, "mutants"), os.path.join(folder, "verdicts")
        with open(mutants, "w", encoding="utf-8") as f:
            for row in TRIED.splitlines():
                kernel, line, new = row.rsplit(" ", 1)[0].split(" ", 2)
                f.write(f"{kernel}\t{line}\t{new}\n")
        subprocess.run([test], check=True, capture_output=True, env={
            **os.environ, "CP_TEST": "a_right_program*", "CMOCKA_TEST_ABORT": "1", "FAKE_MUTANTS": mutants, "FAKE_VERDICTS": verdicts})
        with open(verdicts, encoding="utf-8") as f:
            got = sorted(" ".join(line.rstrip("\n").split("\t")[1:]) for line in f)
    assert got == sorted(TRIED.splitlines()), got


def main():
    list_is_right()
    each_is_tried(sys.argv[1])


if __name__ == "__main__":
    sys.exit(main())
