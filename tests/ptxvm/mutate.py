#!/usr/bin/env python3
"""mutate.py [--count N] [--seed S] [--structural] [--list] PTX TEST [argument ...]: does TEST see wrong kernels?

Changes one instruction of PTX (build/release/cuda/NAME.ptx) at a time and runs TEST, a binary that
runs those kernels on the fake driver, which loads the changed text in place of its own (FAKE_PTX). A
mutant is caught if TEST fails; one that survives is printed with its line. Lines that TEST does not
execute are not changed: they are counted (their place is the coverage gate).

--structural tries each mutant of the kinds whose names stand in STRUCTURAL; without it a random
sample of all. The exit status is 1 if fewer than --least per cent are caught. What may survive, and
why, stands in equal_mutants.txt: a kind, a pattern of the kernel, a pattern of the line, a reason.
"""
import argparse
import collections
import os
import random
import re
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
# cuda-design: barriers, waits, matrix registers and types, guards, bounds, loads, fma, rounding
STRUCTURAL = ("barrier", "wait", "grid wait", "mma registers", "mma type", "guard", "bound", "load offset", "fma operands",
              "rounding")
BOUNDS = {"lt": "le", "le": "lt", "gt": "ge", "ge": "gt", "eq": "ne", "ne": "eq", "neu": "eq", "equ": "ne", "ltu": "leu",
          "leu": "ltu", "gtu": "geu", "geu": "gtu", "lo": "ls", "ls": "lo", "hi": "hs", "hs": "hi"}
INSTRUCTION = re.compile(r"^(\s*)((?:@!?%p\d+\s+)?)([a-z][\w.:]*)(\s.*)?;\s*$")


def parts(operands):
    """Operands at the top level: what stands in braces or brackets stays together."""
    out, depth, word = [], 0, ""
    for c in operands:
        depth += c in "{[" and 1 or 0
        depth -= c in "}]" and 1 or 0
        if c == "," and depth == 0:
            out.append(word.strip())
            word = ""
        else:
            word += c
    return out + [word.strip()] if word.strip() else out


class Line:
    """An instruction, and the texts that may stand in its place."""

    def __init__(self, text):
        m = INSTRUCTION.match(text)
        self.indent, self.guard, self.opcode = m[1], m[2].strip(), m[3]
        self.operands = parts(m[4] or "")

    def text(self, opcode=None, operands=None, guard=None):
        guard = self.guard if guard is None else guard
        operands = self.operands if operands is None else operands
        return (f"{self.indent}{guard + ' ' if guard else ''}{opcode or self.opcode} "
                f"{', '.join(operands)};".replace(" ;", ";"))

    def swapped(self, i, j):
        operands = list(self.operands)
        operands[i], operands[j] = operands[j], operands[i]
        return self.text(operands=operands)

    def with_operand(self, i, word):
        return self.text(operands=self.operands[:i] + [word] + self.operands[i + 1:])

    def structural(self):
        o, n = self.opcode, len(self.operands)
        if o.startswith(("bar.sync", "barrier.sync", "bar.warp.sync")):
            yield "barrier", self.indent + "// dropped"
        if o.startswith(("cp.async.wait", "cp.async.commit")):
            yield "wait", self.indent + "// dropped"
        if o.startswith("griddepcontrol.wait"):
            yield "grid wait", self.indent + "// dropped"
        if o.startswith("mma."):
            for k in (1, 2):
                registers = re.findall(r"%\w+", self.operands[k])
                for i in range(len(registers)):
                    for j in range(i):
                        swapped = list(registers)
                        swapped[i], swapped[j] = swapped[j], swapped[i]
                        yield "mma registers", self.with_operand(k, "{" + ", ".join(swapped) + "}")
            for old, new in ((".u8.s8", ".s8.s8"), (".s32.s8.s8", ".s32.u8.s8"), ("bf16.bf16", "f16.f16"),
                             (".f16.f16", ".bf16.bf16")):
                if old in o:
                    yield "mma type", self.text(o.replace(old, new))
                    break
        if self.guard:
            yield "guard", self.text(guard="@" + self.guard[2:] if self.guard[1] == "!" else "@!" + self.guard[1:])
        m = re.match(r"setp\.(\w+)\.", o)
        if m and m[1] in BOUNDS:
            yield "bound", self.text(o.replace(m[1], BOUNDS[m[1]], 1))
        if o.startswith(("ld.global", "ld.shared")):
            m = re.match(r"\[(%\w+|\w+)(?:\+(-?\d+))?\]", self.operands[1])
            step = int(re.search(r"\d+$", o)[0]) // 8 * (4 if ".v4" in o else 2 if ".v2" in o else 1)
            if m:
                yield "load offset", self.with_operand(1, f"[{m[1]}+{int(m[2] or 0) + step}]")
        if o.startswith("fma.rn"):
            yield "fma operands", self.swapped(2, 3)
        if o.startswith("cvt.") and n > 1:
            for old, new in ((".rni.", ".rzi."), (".rzi.", ".rni."), (".rmi.", ".rzi."), (".rpi.", ".rzi."),
                             (".rn.bf16", ".rz.bf16"), (".rn.f16", ".rz.f16"), (".rn.f32", ".rz.f32")):
                if old in o:
                    yield "rounding", self.text(o.replace(old, new))
                    break

    def other(self):
        o, n = self.opcode, len(self.operands)
        head = o.split(".")[0]
        if n == 3 and re.fullmatch(r"-?\d+", self.operands[2]) and head in (
                "add", "sub", "mul", "shl", "shr", "and", "or", "xor", "min", "max", "setp"):
            v = int(self.operands[2])
            for step in (-1, 1):
                if v + step >= 0 or v < 0:
                    yield "immediate", self.with_operand(2, str(v + step))
        if n == 2 and head == "mov" and re.fullmatch(r"-?\d+", self.operands[1]):
            yield "immediate", self.with_operand(1, str(int(self.operands[1]) + 1))
        if n == 4 and head == "mad" and re.fullmatch(r"-?\d+", self.operands[2]):
            yield "immediate", self.with_operand(2, str(int(self.operands[2]) + 1))
        for a, b in (("add", "sub"), ("sub", "add"), ("min", "max"), ("max", "min")):
            if head == a and o[len(a)] == ".":
                yield f"{a} to {b}", self.text(b + o[len(a):])
        if o.startswith("mul.rn"):
            yield "mul to add", self.text(o.replace("mul", "add", 1))
        if o in ("and.b32", "and.b64", "and.pred"):
            yield "and to or", self.text(o.replace("and", "or"))
        if o in ("or.b32", "or.b64", "or.pred"):
            yield "or to and", self.text(o.replace("or", "and"))
        if head in ("sub", "div", "shl", "shr") and n == 3 and self.operands[1] != self.operands[2] and \
                self.operands[2].startswith("%") and not o.endswith("64"):
            yield "operands", self.swapped(1, 2)
        if head == "selp":
            yield "selection", self.swapped(1, 2)
        if head == "shfl" and re.fullmatch(r"\d+", self.operands[2]):
            yield "shuffle", self.with_operand(2, str(int(self.operands[2]) ^ 1 or 2))
        if head in ("redux", "vote") or o.startswith(("st.", "red.", "cp.async.c", "atom.")):
            if o.startswith(("st.", "red.", "cp.async.c")) and "commit" not in o:
                yield "dropped store", self.indent + "// dropped"
        if head == "shr" and ".s" in o and self.operands[2] != "0":
            yield "shift sign", self.text(o.replace(".s", ".u"))
        if head == "neg" or o.startswith("abs."):
            yield "dropped sign", self.text("mov." + ("f" if ".f" in o else "b") + o[-2:])

    def mutants(self):
        yield from self.structural()
        yield from self.other()


def mutants(text):
    """(kernel, line from 1, kind, new text), each once."""
    kernel = None
    for number, line in enumerate(text.split("\n"), 1):
        m = re.search(r"\.entry\s+(\w+)", line)
        kernel = m[1] if m else kernel
        if kernel is None or not INSTRUCTION.match(line):
            continue
        seen = {" ".join(line.split())}
        for kind, new in Line(line).mutants():
            if " ".join(new.split()) not in seen:
                seen.add(" ".join(new.split()))
                yield kernel, number, kind, new


def explained(path):
    rows = []
    with open(path, encoding="utf-8") as f:
        for line in f:
            if line.strip() and not line.startswith("#"):
                kind, kernel, pattern, reason = (x.strip() for x in line.split("|"))
                rows.append((kind, re.compile(kernel), re.compile(pattern), reason))
    return rows


class Run:
    def __init__(self, args):
        self.args, self.folder = args, tempfile.TemporaryDirectory()
        self.path = os.path.join(self.folder.name, "mutant.ptx")
        with open(args.ptx, encoding="utf-8") as f:
            self.lines = f.read().split("\n")

    def test(self, timeout=None, **more):
        try:
            return subprocess.run(self.args.test, env=dict(os.environ, **more), stdout=subprocess.DEVNULL,
                                  stderr=subprocess.DEVNULL, timeout=timeout, check=False).returncode
        except subprocess.TimeoutExpired:
            return "timeout"

    def executed(self):
        """{(kernel, line)} that the unchanged test runs."""
        path = os.path.join(self.folder.name, "coverage")
        with open(self.path, "w", encoding="utf-8") as f:
            f.write("\n".join(self.lines))
        start = time.monotonic()
        if self.test(FAKE_PTX=self.path, FAKE_COVERAGE=path) != 0:
            raise SystemExit("the test fails on kernels that nobody changed")
        self.seconds = time.monotonic() - start
        ran = set()
        with open(path, encoding="utf-8") as f:
            for row in f:
                _, kernel, line, times, _ = row.split("\t")
                if int(times):
                    ran.add((kernel, int(line)))
        return ran

    def caught(self, line, new):
        changed = list(self.lines)
        changed[line - 1] = new
        with open(self.path, "w", encoding="utf-8") as f:
            f.write("\n".join(changed))
        return self.test(FAKE_PTX=self.path, timeout=30 + 10 * self.seconds) != 0


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("ptx")
    p.add_argument("test", nargs="+")
    p.add_argument("--count", type=int, default=100)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--structural", action="store_true")
    p.add_argument("--kind", help="of the structural ones, these alone")
    p.add_argument("--list", action="store_true", help="print the mutants, run nothing")
    p.add_argument("--least", type=float, default=90, help="per cent")
    args = p.parse_args()
    run = Run(args)
    every = list(mutants("\n".join(run.lines)))
    if args.structural:
        every = [m for m in every if m[2] in STRUCTURAL and args.kind in (None, m[2])]
    if args.list:
        for kernel, line, kind, new in every:
            print(line, kernel, kind, " ".join(run.lines[line - 1].split()), new.strip(), sep="\t")
        return 0
    ran = run.executed()
    can = [m for m in every if (m[0], m[1]) in ran]
    print(f"{len(every)} mutants, {len(can)} of them on lines that the test runs ({run.seconds:.1f} s)", flush=True)
    if not args.structural:
        can = random.Random(args.seed).sample(can, min(args.count, len(can)))
    known = explained(os.path.join(HERE, "equal_mutants.txt"))
    counts, equal, survivors = collections.defaultdict(lambda: [0, 0]), 0, []
    for kernel, line, kind, new in can:
        old = " ".join(run.lines[line - 1].split())
        why = [r for k, e, w, r in known if k == kind and e.search(kernel) and w.search(old)]
        if run.caught(line, new):
            counts[kind][0] += 1
        elif why:
            equal += 1
            continue
        else:
            survivors.append(f"{kernel} {line}, {kind}: {old} -> {new.strip()}")
            print(survivors[-1], flush=True)
        counts[kind][1] += 1
    for kind, (good, all_of) in sorted(counts.items()):
        print(f"{kind}: {good} of {all_of}")
    good, all_of = sum(c[0] for c in counts.values()), sum(c[1] for c in counts.values())
    share = 100 * good / all_of if all_of else 100
    print(f"{good} of {all_of} caught ({share:.1f} %), {equal} survive with a reason, {len(survivors)} without")
    return share < args.least


if __name__ == "__main__":
    sys.exit(main())
