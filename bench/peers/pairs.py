#!/usr/bin/env python3
"""capstan beside llama.cpp: alternating pairs of runs in the same minutes, medians and ratios.

    pairs.py --llama DIR [--pairs 5] [--threads 2] [--competitor] MODEL.gguf...

DIR holds llama-bench and llama-batched-bench (docs/BENCHMARKS.md says how ours are built). A pair is one run of each side for
a cell, in alternating order: A B, B A, A B, ... llama.cpp gets the better of -fa 0 and 1, chosen by a first run each. Cells: pp512 (one prompt of
512), tg64 (64 tokens, empty context), b8 (8 sequences, 8 prompt tokens, 64 tokens each; summed). --competitor repeats each
side's cells with one busy loop of the same priority beside it and prints how much of the idle figure is kept.
Prints a table and, with --json, every sample.
"""
import argparse
import json
import os
import re
import statistics
import subprocess
import sys

CELLS = {"pp512": ["-p", "512", "-n", "0"], "tg64": ["-p", "0", "-n", "64"]}


def out(cmd):
    return subprocess.run(cmd, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True, text=True).stdout


def llama(a, model, cell, fa):
    if cell == "b8":
        text = out([f"{a.llama}/llama-batched-bench", "-m", model, "-c", "2048", "-b", "2048", "-ub", "512", "-npp", "8",
                    "-ntg", "64", "-npl", "8", "-t", str(a.threads), "-fa", fa])
        row = [line for line in text.splitlines() if re.match(r"\|\s+8 \|", line)][-1]
        return float(row.split("|")[8])
    text = out([f"{a.llama}/llama-bench", "-m", model, *CELLS[cell], "-t", str(a.threads), "-r", "1", "-fa", fa, "-o", "json"])
    return json.loads(text)[0]["avg_ts"]


def capstan(a, model, cell):
    args = {"pp512": ["-p", "512", "-n", "0"], "tg64": ["-p", "0", "-n", "64", "-b", "1"],
            "b8": ["-p", "0", "-n", "64", "-b", "8", "-d", "8"]}[cell]
    rows = json.loads(out([a.capstan, "bench", "engine", "-m", model, *args, "--threads", str(a.threads), "--json"]))
    return rows[-1]["tok_s"]["median"]


def spread(v):
    return f"{statistics.median(v):8.1f} ({min(v):.1f}..{max(v):.1f})"


def measure(a, model, cell, fa, samples):
    for i in range(a.pairs):
        sides = [("capstan", lambda: capstan(a, model, cell)), ("llama.cpp", lambda: llama(a, model, cell, fa))]
        for name, run in sides if i % 2 == 0 else sides[::-1]:
            samples.setdefault(name, []).append(run())


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--llama", required=True)
    p.add_argument("--capstan", default="build/release/capstan")
    p.add_argument("--pairs", type=int, default=5)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--competitor", action="store_true")
    p.add_argument("--json", action="store_true")
    p.add_argument("models", nargs="+")
    a = p.parse_args()
    result = []
    for model in a.models:
        for cell in ("pp512", "tg64", "b8"):
            fa = max("01", key=lambda f: llama(a, model, cell, f))
            idle = {}
            measure(a, model, cell, fa, idle)
            row = {"model": os.path.basename(model), "cell": cell, "fa": fa, "idle": idle}
            c, l = idle["capstan"], idle["llama.cpp"]
            ratio = statistics.median(x / y for x, y in zip(c, l))
            line = f"{row['model']:34} {cell:6} capstan {spread(c)}  llama.cpp -fa {fa} {spread(l)}  ratio {ratio:.2f}"
            if a.competitor:
                busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
                try:
                    row["beside"] = {}
                    measure(a, model, cell, fa, row["beside"])
                finally:
                    busy.kill()
                    busy.wait()
                kept = {n: statistics.median(v) / statistics.median(idle[n]) for n, v in row["beside"].items()}
                line += f"  beside a busy loop: capstan keeps {kept['capstan']:.2f}, llama.cpp {kept['llama.cpp']:.2f}"
            print(line, flush=True)
            result.append(row)
    if a.json:
        print(json.dumps(result))


main()
