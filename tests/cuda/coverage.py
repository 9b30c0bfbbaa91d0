#!/usr/bin/env python3
"""Every PTX instruction of every kernel that is shipped was executed by the suite.

Usage: coverage.py --ptx DIR --dumps DIR --want NAME,... [--list]

The driver without a GPU writes how often each line ran (FAKE_COVERAGE, a file a test). --want names the files that there must be:
where one is missing not the whole suite ran, and this is skipped aloud (77). What may stay unexecuted stands in UNREACHED below,
with its reason; a row that excuses nothing is a breach, too.
"""
import argparse
import pathlib
import re
import sys

import ptx

# (kernel, opcode and operands, both regular expressions; why)
UNREACHED = []


def executed(dumps, sums):
    """{(kernel, line): times} of texts that are the build's."""
    ran = {}
    for path in dumps:
        for line in path.read_text().split("\n"):
            words = line.split("\t")
            if len(words) == 5 and words[0] in sums:
                key = words[1], int(words[2])
                ran[key] = ran.get(key, 0) + int(words[3])
    return ran


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--ptx", required=True)
    parser.add_argument("--dumps", required=True, type=pathlib.Path)
    parser.add_argument("--want", default="")
    parser.add_argument("--list", action="store_true", help="print each unexecuted instruction")
    args = parser.parse_args()
    missing = [w for w in args.want.split(",") if w and not (args.dumps / w).exists()]
    if missing or not args.dumps.is_dir():
        print(f"skipped: run the whole label cuda; no coverage of: {' '.join(missing) or args.dumps}")
        return 77
    kernels = ptx.modules(args.ptx)
    sums = {ptx.text_sum(path.read_bytes()) for path in pathlib.Path(args.ptx).glob("*.ptx")}
    ran = executed(sorted(p for p in args.dumps.iterdir() if p.is_file()), sums)
    excused, total, bad = [0] * len(UNREACHED), 0, []
    for k in kernels:
        never = 0
        for line, (guard, opcode, operands) in k.instructions.items():
            total += 1
            if ran.get((k.name, line)):
                continue
            reason = next((i for i, (name, text, _) in enumerate(UNREACHED)
                           if re.fullmatch(name, k.name) and re.fullmatch(text, f"{opcode} {operands}".strip())), None)
            if reason is not None:
                excused[reason] += 1
                continue
            never += 1
            if args.list:
                print(f"{k.module.name}:{line}: {k.name}: {guard} {opcode} {operands}")
        if never:
            bad.append(f"{k.name}: {never} of {len(k.instructions)} instructions were never executed")
    bad += [f"the exception '{UNREACHED[i][2]}' excuses nothing" for i, n in enumerate(excused) if not n]
    print("\n".join(bad + [f"{len(kernels)} kernels, {total} instructions, {sum(excused)} excused, {len(bad)} breaches"]))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
