#!/usr/bin/env python3
"""Two builds of bench_kernels in alternating pairs on one CPU: the median of the pairs' ratios.

usage: pairs.py OLD NEW [--pairs N] [--cpu N] -- --type Q4_0 --level vnni [options of bench_kernels]
"""
import argparse
import re
import statistics
import subprocess
import sys


def rates(binary, cpu, options):
    """{(type, level, rows): GOP/s} of one run"""
    command = ["taskset", "-c", str(cpu), binary, "--cpu", "--threads", "1", *options]
    found, head = {}, None
    for line in subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines():
        title = re.match(r"(\S+) \d+x\d+ (\S+) ", line)
        row = re.match(r"  n +(\d+) .* ([\d.]+) GOP/s", line)
        if title:
            head = title.groups()
        elif row:
            found[(*head, int(row[1]))] = float(row[2])
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("old")
    parser.add_argument("new")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--cpu", type=int, default=1)
    at = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    args, options = parser.parse_args(sys.argv[1:at]), sys.argv[at + 1:]
    runs = [], []
    for pair in range(args.pairs):
        for which in (0, 1) if pair % 2 == 0 else (1, 0):
            runs[which].append(rates((args.old, args.new)[which], args.cpu, options))
    print(f"{'type level':16} rows   old GOP/s   new GOP/s   ratio (least..most of {args.pairs} pairs)")
    for cell in runs[0][0]:
        old, new = ([run[cell] for run in side] for side in runs)
        ratios = sorted(n / o for o, n in zip(old, new))
        print(f"{cell[0] + ' ' + cell[1]:16} {cell[2]:4} {statistics.median(old):11.1f} {statistics.median(new):11.1f}   "
              f"{statistics.median(ratios):.2f} ({ratios[0]:.2f}..{ratios[-1]:.2f})")


if __name__ == "__main__":
    main()
