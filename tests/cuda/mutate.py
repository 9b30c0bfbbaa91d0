#!/usr/bin/env python3
"""Faults planted in the kernels' PTX, one at a time: the suite has to see each.

Usage: mutate.py --ptx DIR --driver LIBCUDA --run 'COMMAND' [--kernels REGEX] [--random N] [--seed S] [--most N] [--jobs N] [--share S]
                 [--out FILE] [--list]

COMMAND is a test that is green; for each mutant it runs with FAKE_MUTANT, and has to fail. Without --random the structural list is
planted (mutants.py: every barrier and wait taken out, each pair of mma's registers exchanged, its types changed, guards negated,
bounds moved by one, loads shifted, operands of fma exchanged, roundings changed); with it N mutants of all kinds are drawn. Lines that
COMMAND does not execute are left out: coverage.py asks for them. Survivors are listed, and make the exit 1 where fewer than a share of
all is seen; equal_mutants.txt says which may survive, and why.
"""
import argparse
import collections
import concurrent.futures
import json
import os
import pathlib
import random
import re
import resource
import signal
import subprocess
import sys
import tempfile

import coverage
import mutants
import ptx

HERE = pathlib.Path(__file__).parent


def all_mutants(kernels):
    for k in kernels:
        for line, instruction in k.instructions.items():
            for kind, new in mutants.Line(*instruction).mutants():
                yield k, line, kind, new


def green(args):
    """{(kernel, line): times} of the command without a mutant; an exit code where it is not green."""
    with tempfile.TemporaryDirectory() as folder:
        dump = pathlib.Path(folder, "dump")
        run = subprocess.run(args.run, shell=True, capture_output=True, text=True,
                             env={**os.environ, "CAPSTAN_LIBCUDA": args.driver, "FAKE_COVERAGE": str(dump)})
        if run.returncode:
            print(f"the command is not green without a mutant:\n{run.stdout[-600:]}{run.stderr[-600:]}")
            return 77 if run.returncode == 77 else 2
        sums = {ptx.text_sum(p.read_bytes()) for p in pathlib.Path(args.ptx).glob("*.ptx")}
        return coverage.executed([dump], sums)


def seen_by(args, mutant):
    k, line, _, new = mutant
    # cmocka: the first failure ends the process, as nobody wants the others; a loop without end takes seconds
    env = {**os.environ, "FAKE_MUTANT": f"{k.name}:{line}:{new}", "CAPSTAN_LIBCUDA": args.driver, "CMOCKA_TEST_ABORT": "1",
           "FAKE_LIMIT": "64M"}
    test = subprocess.Popen(args.run, shell=True, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        return test.wait(args.timeout) != 0
    except subprocess.TimeoutExpired:
        os.killpg(test.pid, signal.SIGKILL)  # the shell and what it runs
        test.wait()
        return True  # it hangs, and somebody would notice


def equal_mutants():
    """(kind, kernel, line, reason), patterns but for the reason."""
    rows = [line.split("|") for line in (HERE / "equal_mutants.txt").read_text().split("\n") if line and not line.startswith("#")]
    return [tuple(word.strip() for word in row) for row in rows]


def original(k, line):
    return re.sub(r"\s+", " ", "{} {} {}".format(*k.instructions[line])).strip()


def chosen(args, kernels, ran):
    every = [m for m in all_mutants(kernels) if ran is None or ran.get((m[0].name, m[1]))]
    if args.random:
        return random.Random(args.seed).sample(every, min(args.random, len(every)))
    every = [m for m in every if m[2] in mutants.STRUCTURAL]
    if args.most and len(every) > args.most:
        every = [every[i * len(every) // args.most] for i in range(args.most)]
    return every


def options():
    parser = argparse.ArgumentParser()
    parser.add_argument("--ptx", required=True)
    parser.add_argument("--driver", default="")
    parser.add_argument("--run", default="")
    parser.add_argument("--kernels", default=".*")
    parser.add_argument("--random", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--most", type=int, default=0, help="of the structural list, as many, spread evenly")
    parser.add_argument("--share", type=float, default=1.0, help="of all that must be seen")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--timeout", type=float, default=120)
    parser.add_argument("--out", type=pathlib.Path)
    parser.add_argument("--list", action="store_true", help="print the mutants of every kind, run nothing")
    return parser.parse_args()


def main():
    args = options()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    kernels = [k for k in ptx.modules(args.ptx) if re.fullmatch(args.kernels, k.name)]
    if args.list:
        for k, line, kind, new in all_mutants(kernels):
            print(k.name, line, kind, original(k, line), new, sep="\t")
        return 0
    ran = green(args)
    if isinstance(ran, int):
        return ran
    planted = chosen(args, kernels, ran)
    equal, counts = equal_mutants(), collections.defaultdict(lambda: [0, 0])
    survivors, explained = [], 0
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        for (k, line, kind, new), seen in zip(planted, pool.map(lambda m: seen_by(args, m), planted)):
            counts[kind][1] += 1
            counts[kind][0] += seen
            if seen:
                continue
            row = {"kernel": k.name, "line": line, "kind": kind, "was": original(k, line), "is": new}
            if any(e[0] == kind and re.search(e[1], k.name) and re.search(e[2], row["was"]) for e in equal):
                explained += 1
                continue
            survivors.append(row)
            print(f"survived: {k.name}:{line}: {kind}: {row['was']}  ->  {new or '(nothing)'}", flush=True)
    for kind, (seen, all_of) in sorted(counts.items()):
        print(f"{kind}: {seen} of {all_of}")
    if args.out:
        args.out.write_text(json.dumps({"mutants": len(planted), "explained": explained, "survivors": survivors}, indent=1))
    seen = len(planted) - len(survivors)
    print(f"{len(planted)} mutants, {seen} seen ({explained} of them equal), {len(survivors)} survived")
    return 0 if seen >= args.share * len(planted) else 1


if __name__ == "__main__":
    sys.exit(main())
