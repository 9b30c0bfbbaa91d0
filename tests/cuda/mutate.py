#!/usr/bin/env python3
"""Faults planted in the kernels' PTX, one at a time: the suite has to see each.

Usage: mutate.py --ptx DIR --driver LIBCUDA --run 'COMMAND' [--kernels REGEX] [--random N] [--seed S] [--most N] [--dumps DIR]
                 [--jobs N] [--out FILE]

COMMAND is a test that is green; for each mutant it runs with FAKE_MUTANT, and has to fail. Without --random the structural list is
planted: every barrier and wait taken out, operands of mma swapped or of another type, guards negated and moved by one, loads of
scales shifted, operands of fma swapped. With it N mutants are drawn from all executed instructions (--dumps says which those are).
Survivors are listed, and make the exit 1 unless EQUAL below explains them.
"""
import argparse
import concurrent.futures
import json
import os
import pathlib
import random
import re
import subprocess
import sys

import ptx

NEAR = {"lt": "le", "le": "lt", "gt": "ge", "ge": "gt", "lo": "ls", "ls": "lo", "hi": "hs", "hs": "hi", "eq": "ne", "ne": "eq"}
SWAP_OPCODE = {"add": "sub", "sub": "add", "and": "or", "or": "and", "shl": "shr", "min": "max", "max": "min", "xor": "or"}

# survivors that change no result: (kernel, original, mutant as regular expressions; why)
EQUAL = []


def operands_of(text):
    """Operands, a brace group or an address as one."""
    return [o.strip() for o in re.findall(r"(?:\{[^}]*\}|\[[^]]*\]|[^,{\[])+", text) if o.strip()]


def line_of(guard, opcode, operands):
    return f"\t{guard + ' ' if guard else ''}{opcode} {', '.join(operands)};" if operands else f"\t{guard + ' ' if guard else ''}{opcode};"


def structural(guard, opcode, text):
    """(what, the line in its place)"""
    ops = operands_of(text)
    if opcode.startswith(("bar.sync", "barrier.sync", "bar.warp.sync", "cp.async.wait", "griddepcontrol.wait")):
        yield "taken out", "\t"
    if opcode.startswith("mma."):
        for i, what in ((1, "A"), (2, "B")):
            regs = [r.strip() for r in ops[i].strip("{}").split(",")]
            if len(regs) > 1:
                swapped = ops[:i] + ["{" + ", ".join([regs[1], regs[0]] + regs[2:]) + "}"] + ops[i + 1:]
                yield f"{what} swapped", line_of(guard, opcode, swapped)
        for a, b in ((".u8.s8", ".s8.s8"), (".bf16.bf16", ".f16.f16"), (".f16.f16", ".bf16.bf16")):
            if a in opcode and ".f32" + a not in opcode.replace(a, "", 1):
                yield "another type", line_of(guard, opcode.replace(a, b), ops)
                break
    if opcode.startswith("bra") and guard:
        yield "guard negated", line_of("@" + guard[2:] if guard.startswith("@!") else "@!" + guard[1:], opcode, ops)
    m = re.match(r"setp\.(\w+)\.[us](32|64)$", opcode)
    if m and m[1] in NEAR:
        yield "guard moved by one", line_of(guard, opcode.replace("." + m[1] + ".", "." + NEAR[m[1]] + ".", 1), ops)
    if re.match(r"ld\.(global\.)?(nc\.)?(v2\.)?[ub](16|32)$", opcode):
        address = re.match(r"\[([^+\]]+)(?:\+(-?\d+))?\]", ops[-1])
        if address:
            yield "load shifted", line_of(guard, opcode, ops[:-1] + [f"[{address[1]}+{int(address[2] or 0) + (8 if '.v2.' in opcode else 4)}]"])
    if opcode.startswith("fma.rn.f32") and len(ops) == 4 and len(set(ops[2:])) == 2:
        yield "fma operands swapped", line_of(guard, opcode, [ops[0], ops[1], ops[3], ops[2]])


def drawn(rng, guard, opcode, text):
    """One random change, or None."""
    ops = operands_of(text)
    choices = []
    if guard:
        choices.append(lambda: line_of("@" + guard[2:] if guard.startswith("@!") else "@!" + guard[1:], opcode, ops))
    base = opcode.split(".")[0]
    if base in SWAP_OPCODE and not (base in ("shl",) or ".pred" in opcode):
        choices.append(lambda: line_of(guard, opcode.replace(base, SWAP_OPCODE[base], 1), ops))
    m = re.match(r"setp\.(\w+)\.", opcode)
    if m and m[1] in NEAR:
        choices.append(lambda: line_of(guard, opcode.replace("." + m[1] + ".", "." + NEAR[m[1]] + ".", 1), ops))
    numbers = [i for i, o in enumerate(ops[1:], 1) if re.fullmatch(r"-?\d+", o)]
    if numbers:
        i = rng.choice(numbers)
        choices.append(lambda: line_of(guard, opcode, ops[:i] + [str(int(ops[i]) + rng.choice((1, -1)))] + ops[i + 1:]))
    registers = [i for i, o in enumerate(ops[1:], 1) if re.fullmatch(r"%\w+", o)]
    if len(registers) >= 2:
        i, j = rng.sample(registers, 2)
        if ops[i] != ops[j] and re.sub(r"\d", "", ops[i]) == re.sub(r"\d", "", ops[j]):
            def swap():
                new = list(ops)
                new[i], new[j] = new[j], new[i]
                return line_of(guard, opcode, new)
            if not (base in ("add", "mul", "and", "or", "xor", "min", "max", "fma") and {i, j} == {1, 2}):
                choices.append(swap)
    if base in ("st", "bar", "cp", "red", "atom"):
        choices.append(lambda: "\t")
    return rng.choice(choices)() if choices else None


def structural_mutants(kernels):
    for k in kernels:
        for line, (guard, opcode, text) in k.instructions.items():
            for what, new in structural(guard, opcode, text):
                yield k, line, what, new


def random_mutants(kernels, n, seed, ran):
    rng = random.Random(seed)
    places = [(k, line) for k in kernels for line in k.instructions if ran is None or ran.get((k.name, line))]
    made = set()
    for _ in range(50 * n):
        if len(made) == n:
            return
        k, line = rng.choice(places)
        new = drawn(rng, *k.instructions[line])
        if new and (k.name, line, new) not in made:
            made.add((k.name, line, new))
            yield k, line, "random", new


def run(args, mutant):
    """True: the suite saw it."""
    k, line, _, new = mutant
    env = {**os.environ, "FAKE_MUTANT": f"{k.name}:{line}:{new}", "CAPSTAN_LIBCUDA": args.driver}
    try:
        return subprocess.run(args.run, shell=True, env=env, capture_output=True, timeout=args.timeout).returncode != 0
    except subprocess.TimeoutExpired:
        return True  # it hangs, and somebody would notice


def original(k, line):
    return re.sub(r"\s+", " ", "{} {} {}".format(*k.instructions[line])).strip()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--ptx", required=True)
    parser.add_argument("--driver", required=True)
    parser.add_argument("--run", required=True)
    parser.add_argument("--kernels", default=".*")
    parser.add_argument("--random", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--most", type=int, default=0, help="of the structural list, as many, spread evenly")
    parser.add_argument("--dumps", type=pathlib.Path)
    parser.add_argument("--share", type=float, default=1.0, help="of all that must be seen")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--timeout", type=float, default=120)
    parser.add_argument("--out", type=pathlib.Path)
    args = parser.parse_args()
    kernels = [k for k in ptx.modules(args.ptx) if re.fullmatch(args.kernels, k.name)]
    ran = None
    if args.dumps:
        import coverage
        sums = {ptx.text_sum(p.read_bytes()) for p in pathlib.Path(args.ptx).glob("*.ptx")}
        ran = coverage.executed([p for p in args.dumps.iterdir() if p.is_file()], sums)
    green = subprocess.run(args.run, shell=True, env={**os.environ, "CAPSTAN_LIBCUDA": args.driver}, capture_output=True, text=True)
    if green.returncode:
        print(f"the command is not green without a mutant:\n{green.stdout[-600:]}{green.stderr[-600:]}")
        return 77 if green.returncode == 77 else 2
    mutants = list(random_mutants(kernels, args.random, args.seed, ran) if args.random else structural_mutants(kernels))
    if args.most and len(mutants) > args.most:
        mutants = [mutants[i * len(mutants) // args.most] for i in range(args.most)]
    survivors, explained = [], 0
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        for mutant, seen in zip(mutants, pool.map(lambda m: run(args, m), mutants)):
            k, line, what, new = mutant
            row = {"kernel": k.name, "line": line, "what": what, "was": original(k, line), "is": new.strip()}
            if seen:
                continue
            if any(re.fullmatch(e[0], k.name) and re.fullmatch(e[1], row["was"]) and re.fullmatch(e[2], row["is"]) for e in EQUAL):
                explained += 1
                continue
            survivors.append(row)
            print(f"survived: {k.name}:{line}: {what}: {row['was']}  ->  {row['is'] or '(nothing)'}", flush=True)
    if args.out:
        args.out.write_text(json.dumps({"mutants": len(mutants), "explained": explained, "survivors": survivors}, indent=1))
    seen = len(mutants) - len(survivors)
    print(f"{len(mutants)} mutants, {seen} seen ({explained} of them equal), {len(survivors)} survived")
    return 0 if seen >= args.share * len(mutants) else 1


if __name__ == "__main__":
    sys.exit(main())
