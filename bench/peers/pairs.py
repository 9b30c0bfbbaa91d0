#!/usr/bin/env python3
"""capstan beside llama.cpp: alternating pairs of runs in the same minutes, medians and ratios.

    pairs.py --llama DIR [--pairs 5] [--threads 2] [--cells pp512,tg64,b8] [--fa 1] [--vnni] [--competitor] MODEL.gguf...

DIR holds llama-bench and llama-batched-bench (docs/BENCHMARKS.md says how ours are built). A pair is one run of each side for
a cell, in alternating order: A B, B A, A B, ... llama.cpp gets the best of -fa 0 and 1, with its weights repacked and as they
are, chosen by a first run each (whose figures are printed). Cells: ppN (one prompt of
N), tgN (N tokens, empty context), bN (N sequences, 8 prompt tokens, 32 tokens each; summed). --competitor repeats each
side's cells with one busy loop of the same priority beside it and prints how much of the idle figure is kept. --vnni runs
capstan at level vnni, too, beside its default.
Prints a table and, with --json, every sample.
"""
import argparse
import json
import os
import re
import statistics
import subprocess
import sys

def out(cmd, env=None):
    return subprocess.run(cmd, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True, text=True, env=env).stdout


VARIANTS = [("0", "1"), ("1", "1"), ("0", "0"), ("1", "0")]  # -fa, repack


def llama(a, model, cell, variant):
    fa, repack = variant
    kind, n = parts(cell)
    if kind == "b":
        text = out([f"{a.llama}/llama-batched-bench", "-m", model, "-c", str(max(2048, 96 * n)), "-b", "2048", "-ub", "512", "-npp", "8",
                    "-ntg", "32", "-npl", str(n), "-t", str(a.threads), "-fa", fa, *(["--no-repack"] if repack == "0" else [])])
        row = [line for line in text.splitlines() if re.match(r"\|\s+8 \|", line)][-1]
        return float(row.split("|")[8])
    cells = ["-p", str(n), "-n", "0"] if kind == "pp" else ["-p", "0", "-n", str(n)]
    text = out([f"{a.llama}/llama-bench", "-m", model, *cells, "-t", str(a.threads), "-r", "1", "-fa", fa, "--repack", repack, "-o",
                "json"])
    return json.loads(text)[0]["avg_ts"]


def parts(cell):
    kind, n = re.fullmatch(r"(pp|tg|b)(\d+)", cell).groups()
    return kind, int(n)


def capstan(a, model, cell, level=None):
    kind, n = parts(cell)
    args = {"pp": ["-p", str(n), "-n", "0"], "tg": ["-p", "0", "-n", str(n), "-b", "1"],
            "b": ["-p", "0", "-n", "32", "-b", str(n), "-d", "8"]}[kind]
    env = {**os.environ, "CAPSTAN_CPU": level} if level else None
    rows = json.loads(out([a.capstan, "bench", "engine", "-m", model, *args, "--threads", str(a.threads), "--json"], env))
    return rows[-1]["tok_s"]["median"]


def spread(v):
    return f"{statistics.median(v):8.1f} ({min(v):.1f}..{max(v):.1f})"


def measure(a, model, cell, variant, samples):
    for i in range(a.pairs):
        sides = [("capstan", lambda: capstan(a, model, cell)), ("llama.cpp", lambda: llama(a, model, cell, variant))]
        if a.vnni:
            sides.append(("vnni", lambda: capstan(a, model, cell, "vnni")))
        for name, run in sides if i % 2 == 0 else sides[::-1]:
            samples.setdefault(name, []).append(run())


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--llama", required=True)
    p.add_argument("--capstan", default="build/release/capstan")
    p.add_argument("--pairs", type=int, default=5)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--fa", choices=["0", "1"], help="with this -fa alone")
    p.add_argument("--cells", default="pp512,tg64,b8")
    p.add_argument("--competitor", action="store_true")
    p.add_argument("--vnni", action="store_true")
    p.add_argument("--json", action="store_true")
    p.add_argument("models", nargs="+")
    a = p.parse_args()
    result = []
    for model in a.models:
        for cell in a.cells.split(","):
            first = {v: llama(a, model, cell, v) for v in VARIANTS if a.fa in (None, v[0])}
            best = max(first, key=first.get)
            idle = {}
            measure(a, model, cell, best, idle)
            row = {"model": os.path.basename(model), "cell": cell, "fa": best[0], "repack": best[1], "idle": idle,
                   "first": {f"fa {f}, repack {r}": v for (f, r), v in first.items()}}
            c, l = idle["capstan"], idle["llama.cpp"]
            ratio = statistics.median(x / y for x, y in zip(c, l))
            row["ratio"] = [x / y for x, y in zip(c, l)]
            line = f"{row['model']:34} {cell:6} capstan {spread(c)}  llama.cpp {spread(l)}  ratio {ratio:.2f} ({min(row['ratio']):.2f}..{max(row['ratio']):.2f})  (its first runs: "
            line += ", ".join(f"fa {f} repack {r}: {v:.1f}" for (f, r), v in first.items()) + ")"
            if a.vnni:
                over = [x / y for x, y in zip(c, idle["vnni"])]
                line += f"  vnni {spread(idle['vnni'])}  over it {statistics.median(over):.2f} ({min(over):.2f}..{max(over):.2f})"
            if a.competitor:
                busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
                try:
                    row["beside"] = {}
                    measure(a, model, cell, best, row["beside"])
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
