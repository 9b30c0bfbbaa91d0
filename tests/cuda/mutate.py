#!/usr/bin/env python3
"""Faults planted in the kernels' PTX: the suite has to see each.

Usage: mutate.py --ptx DIR --driver LIBCUDA --run 'COMMAND' [--run ...] [--kernels REGEX] [--random N] [--seed S] [--thin N]
                 [--most N] [--jobs N] [--share S] [--patience N] [--log FILE] [--list]

Without --random the structural list is planted (mutants.py: every barrier and wait taken out, each pair of mma's registers
exchanged, its types changed, guards negated, bounds moved by one, loads shifted, operands of fma exchanged, roundings changed);
with it N mutants of all kinds are drawn. COMMAND is a test that is green, of one thread. It runs once for all of them (once for
each of --jobs): the driver tries every mutant in every launch of its kernel, and forks where that shows in the device's memory
(tests/fakes/libcuda/mutants.c). What one command does not see is left to the next, so the cheapest comes first.

A survivor "never" ran (coverage.py asks for those), always left the "same" bytes in all memory, or changed some that the test
"missed". Survivors are listed, and make the exit 1 where fewer than a share of all is seen; equal_mutants.txt says which may
survive, and why. With --log a run that was broken off goes on: what FILE says was seen of the same texts is not tried again.
"""
import argparse
import collections
import os
import pathlib
import random
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time

import mutants
import ptx

HERE = pathlib.Path(__file__).parent
SETTLED = ("seen", "hung", "refused")  # refused: the machine has no such instruction; it counts nowhere
RANKS = ("never", "same", "missed") + SETTLED

Mutant = collections.namedtuple("Mutant", "kernel line kind new")


def all_mutants(kernels):
    for k in kernels:
        for line, instruction in k.instructions.items():
            for kind, new in mutants.Line(*instruction).mutants():
                yield Mutant(k, line, kind, new)


def template_of(kernel):
    return re.sub(r"_([A-Z0-9]+|b?f16)$", "", kernel.name)


def thinned(every, n, seed):
    """One kernel of each template in full, the longest; of the others every n-th, from a place that the seed draws."""
    longest, rng = {}, random.Random(seed)
    for m in every:
        k = longest.setdefault(template_of(m.kernel), m.kernel)
        if len(m.kernel.instructions) > len(k.instructions):
            longest[template_of(m.kernel)] = m.kernel
    full = {k.name for k in longest.values()}
    others = [m for m in every if m.kernel.name not in full]
    kept = others[rng.randrange(n)::n]
    return sorted([m for m in every if m.kernel.name in full] + kept, key=lambda m: (m.kernel.name, m.line)) if n > 1 else every


def chosen(args, kernels):
    every = list(all_mutants(kernels))
    if args.random:
        return sorted(random.Random(args.seed).sample(every, min(args.random, len(every))), key=lambda m: (m.kernel.name, m.line))
    every = thinned([m for m in every if m.kind in mutants.STRUCTURAL], args.thin, args.seed)
    if args.most and len(every) > args.most:
        every = [every[i * len(every) // args.most] for i in range(args.most)]
    return every


class Verdicts:
    """What became of each: a log that the driver appends to."""

    def __init__(self, path, planted):
        self.path = pathlib.Path(path)
        sums = {m: ptx.text_sum(m.read_bytes()) for m in {m.kernel.module for m in planted}}
        self.key = {m: (sums[m.kernel.module], m.kernel.name, str(m.line), m.new) for m in planted}
        self.of = {}
        self.read(SETTLED)

    def read(self, which=RANKS):
        for line in self.path.read_text().split("\n") if self.path.exists() else []:
            *key, verdict = line.split("\t")
            if verdict in which and RANKS.index(verdict) >= RANKS.index(self[tuple(key)]):
                self.of[tuple(key)] = verdict

    def __getitem__(self, key):
        return self.of.get(self.key.get(key, key), "never")

    def open(self, planted):
        return [m for m in planted if self[m] not in SETTLED]


def end(tests):
    for test in tests:
        if test.poll() is None:
            os.killpg(test.pid, signal.SIGKILL)  # the shell, what it runs, and its children
            test.wait()


def plant(args, command, planted, verdicts, folder):
    """The command's exit code; 0: the verdicts are in the log."""
    tests = []
    try:
        for job in range(args.jobs):
            part = planted[job::args.jobs]
            file = pathlib.Path(folder, f"mutants{job}")
            file.write_text("".join(f"{m.kernel.name}\t{m.line}\t{m.new}\n" for m in part))
            env = {**os.environ, "CAPSTAN_LIBCUDA": args.driver, "CMOCKA_TEST_ABORT": "1", "FAKE_MUTANTS": str(file),
                   "FAKE_VERDICTS": str(verdicts.path), "FAKE_PATIENCE": str(args.patience)}
            with open(f"{folder}/out{job}", "wb") as out:
                tests.append(subprocess.Popen(command, shell=True, env=env, stdout=out, stderr=out, start_new_session=True))
        codes = [test.wait(args.timeout) for test in tests]
    finally:
        end(tests)
    for job, code in enumerate(codes):
        if code:
            print(f"{command}: exit code {code} without a mutant:\n{pathlib.Path(folder, f'out{job}').read_text()[-600:]}")
    return max(codes, key=abs)


def equal_mutants():
    """(kind, kernel, line, reason), patterns but for the reason."""
    rows = [line.split(" | ") for line in (HERE / "equal_mutants.txt").read_text().split("\n") if line and not line.startswith("#")]
    return [tuple(word.strip() for word in row) for row in rows]


def original(m):
    return re.sub(r"\s+", " ", "{} {} {}".format(*m.kernel.instructions[m.line])).strip()


def is_equal(m, equal):
    return any(e[0] == m.kind and re.search(e[1], m.kernel.name) and re.search(e[2], original(m)) for e in equal)


def report(args, planted, verdicts, seconds):
    """The exit code."""
    equal, counts, explained, survivors = equal_mutants(), collections.defaultdict(lambda: [0, 0]), 0, 0
    loaded = [m for m in planted if verdicts[m] != "refused"]
    for m in loaded:
        seen = verdicts[m] in SETTLED
        counts[m.kind][1] += 1
        counts[m.kind][0] += seen
        if not seen and verdicts[m] != "never" and is_equal(m, equal):
            explained += 1
        elif not seen:
            survivors += 1
            print(f"survived ({verdicts[m]}): {m.kernel.name}:{m.line}: {m.kind}: {original(m)}  ->  {m.new or '(nothing)'}")
    for kind, (seen, all_of) in sorted(counts.items()):
        print(f"{kind}: {seen} of {all_of}")
    never = sum(verdicts[m] == "never" for m in loaded)
    print(f"{len(loaded)} mutants, {len(loaded) - survivors} seen ({explained} of them equal), {survivors} survived ({never} never ran); "
          f"{len(planted) - len(loaded)} more were not loaded; {len(planted) / max(seconds, 0.001):.1f} mutants/s")
    return 0 if len(loaded) - survivors >= args.share * len(loaded) else 1


def options():
    parser = argparse.ArgumentParser()
    parser.add_argument("--ptx", required=True)
    parser.add_argument("--driver", default="")
    parser.add_argument("--run", action="append", default=[])
    parser.add_argument("--kernels", default=".*")
    parser.add_argument("--random", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--most", type=int, default=0, help="of the structural list, as many, spread evenly")
    parser.add_argument("--thin", type=int, default=1, help="of the structural list: one kernel of a template in full, of its others every n-th")
    parser.add_argument("--share", type=float, default=1.0, help="of all that must be seen")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--timeout", type=float, default=6 * 3600, help="of a command, in seconds")
    parser.add_argument("--patience", type=int, default=0, help="launches after which a mutant that showed is given up; 0: none")
    parser.add_argument("--log", type=pathlib.Path)
    parser.add_argument("--list", action="store_true", help="print the mutants of every kind, run nothing")
    return parser.parse_args()


def main():
    args = options()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    kernels = [k for k in ptx.modules(args.ptx) if re.fullmatch(args.kernels, k.name)]
    if args.list:
        for m in all_mutants(kernels):
            print(m.kernel.name, m.line, m.kind, original(m), m.new, sep="\t")
        return 0
    planted, began = chosen(args, kernels), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        verdicts = Verdicts(args.log or pathlib.Path(folder, "log"), planted)
        if not args.run:  # what the log says
            verdicts.read()
        for command in args.run:
            left = verdicts.open(planted)
            code = plant(args, command, left, verdicts, folder) if left else 0
            if code:
                return 77 if code == 77 else 2
            verdicts.read()
        return report(args, planted, verdicts, time.monotonic() - began)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(2))  # so that what it started ends with it
    sys.exit(main())
