#!/usr/bin/env python3
"""What ptxas makes of the shipped PTX, held against the table kernels/cuda/expect.toml.

Usage: gates.py --ptxas PTXAS --ptx DIR [--expect FILE] [--sm 90,80...] [--write]

A kernel may not spill, may not take more registers or stack than its row says, may not leave fewer warps resident on a
multiprocessor, and may not read global memory in smaller pieces: `wide` counts its load instructions of 16 bytes, `narrow` those
of fewer. --write makes the table anew of what is (dynamic, which says the dynamic shared memory of a block, is kept); commit it
with the kernel that changed it. Exits 1 with a line a breach.
"""
import argparse
import concurrent.futures
import pathlib
import re
import subprocess
import sys
import tomllib

# sm: warps, blocks and KiB of shared memory of a multiprocessor (CUDA programming guide, compute capabilities)
LIMITS = {80: (64, 32, 164), 86: (48, 16, 100), 89: (48, 24, 100), 90: (64, 32, 228), 100: (64, 32, 228), 120: (48, 24, 100)}
REGISTERS = 65536  # of a multiprocessor, on all of them


def resident_warps(sm, threads, registers, shared):
    """Warps of one kernel that a multiprocessor holds."""
    warps, blocks, kib = LIMITS[sm]
    mine = (threads + 31) // 32
    each = (max(registers, 1) + 7) // 8 * 8 * 32  # registers of a warp
    fit = [blocks, warps // mine, REGISTERS // each // mine, kib * 1024 // (shared + 1024)]
    return max(0, min(fit)) * mine


def kernels_of(text):
    """{kernel: (threads, wide loads, narrow loads)} of a PTX text."""
    found = {}
    for m in re.finditer(r"\.entry (\w+)\(.*?\n\)(.*?)\n\{(.*?)\n\}", text, re.S):
        bound = re.search(r"\.maxntid (\d+)", m[2])
        if not bound:
            raise SystemExit(f"{m[1]}: has no launch bounds")
        loads = re.findall(r"\bld(?:\.volatile|\.global|\.nc)*(?:\.(v\d))?\.[a-z](\d+)\s", m[3])  # generic ones too
        sizes = [int((v or "v1")[1:]) * int(bits) // 8 for v, bits in loads]
        sizes += [16] * len(re.findall(r"\bcp\.async\.c[ga]\.shared\.global", m[3]))
        found[m[1]] = (int(bound[1]), sum(s == 16 for s in sizes), sum(s < 16 for s in sizes))
    return found


def ptxas(program, path, sm):
    """{kernel: (registers, static shared bytes, stack, spilled bytes)}"""
    run = subprocess.run([program, f"-arch=sm_{sm}", "-v", "-o", "/dev/null", str(path)], capture_output=True, text=True)
    if run.returncode:
        raise SystemExit(f"ptxas sm_{sm} {path.name}: {run.stderr.strip()[:800]}")
    found = {}
    for part in re.split(r"Compiling entry function '", run.stderr)[1:]:
        name = part.split("'")[0]
        used = re.search(r"Used (\d+) registers", part)
        smem = re.search(r"(\d+) bytes smem", part)
        stack, *spills = (int(x) for x in re.search(
            r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", part).groups())
        found[name] = (int(used[1]), int(smem[1]) if smem else 0, stack, sum(spills))
    return found


def measure(args):
    """{kernel: {threads, wide, narrow, registers{sm}, warps{sm}, stack, spills{sm}}}"""
    paths = sorted(pathlib.Path(args.ptx).glob("*.ptx"))
    rows = {}
    for path in paths:
        for name, (threads, wide, narrow) in kernels_of(path.read_text()).items():
            rows[name] = {"threads": threads, "wide": wide, "narrow": narrow, "stack": 0, "registers": {}, "shared": 0, "spills": {}}
    jobs = [(path, sm) for path in paths for sm in args.sm]
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for (path, sm), found in zip(jobs, pool.map(lambda j: ptxas(args.ptxas, *j), jobs)):
            for name, (registers, shared, stack, spills) in found.items():
                row = rows[name]
                row["registers"][sm] = registers
                row["shared"] = max(row["shared"], shared)
                row["stack"] = max(row["stack"], stack)
                row["spills"][sm] = spills
    return rows


def warps_of(row, dynamic):
    return {sm: resident_warps(sm, row["threads"], r, row["shared"] + dynamic) for sm, r in row["registers"].items()}


HEAD = """# What ptxas may make of a kernel, of each architecture in turn: %s. Made by tests/cuda/gates.py --write.
# dynamic: bytes of dynamic shared memory that warps are counted with, kept from table to table.
"""


def write(path, rows, old):
    lines = [HEAD % " ".join(f"sm_{sm}" for sm in LIMITS)]
    for name in sorted(rows):
        row, dynamic = rows[name], old.get(name, {}).get("dynamic", 0)
        warps = warps_of(row, dynamic)
        lines.append(f"{name} = {{ threads = {row['threads']}, dynamic = {dynamic}, registers = {[row['registers'][sm] for sm in LIMITS]}, "
                     f"warps = {[warps[sm] for sm in LIMITS]}, stack = {row['stack']}, wide = {row['wide']}, narrow = {row['narrow']} }}\n")
    path.write_text("".join(lines))


def breaches(rows, expect, sms):
    order = list(LIMITS)
    for name in sorted(rows.keys() | expect.keys()):
        row, want = rows.get(name), expect.get(name)
        if not row or not want:
            yield f"{name}: " + ("has no row in the table" if row else "stands in the table, and no PTX has it")
            continue
        warps = warps_of(row, want["dynamic"])
        for sm in sms:
            i = order.index(sm)
            if row["spills"][sm]:
                yield f"{name}: sm_{sm} spills {row['spills'][sm]} bytes"
            if row["registers"][sm] > want["registers"][i]:
                yield f"{name}: sm_{sm} takes {row['registers'][sm]} registers; the table has {want['registers'][i]}"
            if warps[sm] < want["warps"][i]:
                yield f"{name}: sm_{sm} holds {warps[sm]} warps; the table has {want['warps'][i]}"
        if row["stack"] > want["stack"]:
            yield f"{name}: {row['stack']} bytes of stack; the table has {want['stack']}"
        if row["wide"] < want["wide"] or row["narrow"] > want["narrow"]:
            yield (f"{name}: {row['wide']} loads of 16 bytes and {row['narrow']} smaller ones; "
                   f"the table has {want['wide']} and {want['narrow']}")


def main():
    root = pathlib.Path(__file__).resolve().parents[2]
    parser = argparse.ArgumentParser()
    parser.add_argument("--ptxas", required=True)
    parser.add_argument("--ptx", required=True)
    parser.add_argument("--expect", type=pathlib.Path, default=root / "kernels/cuda/expect.toml")
    parser.add_argument("--sm", default="90", type=lambda s: [int(x) for x in s.split(",")] if s != "all" else list(LIMITS))
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    if args.write:
        args.sm = list(LIMITS)
    expect = tomllib.loads(args.expect.read_text()) if args.expect.exists() else {}
    rows = measure(args)
    if args.write:
        write(args.expect, rows, expect)
        expect = tomllib.loads(args.expect.read_text())
    bad = list(breaches(rows, expect, args.sm))
    print("\n".join(bad + [f"{len(rows)} kernels, {len(args.sm)} architectures, {len(bad)} breaches"]))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
