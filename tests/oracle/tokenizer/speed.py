#!/usr/bin/env python3
"""Measure how fast capstan encodes, beside HF's tokenizers and quicktok, on the same texts in the same run.

usage: speed.py --driver BIN [--work DIR] [--rounds N] [--bytes N] [--only NAME,...]

BIN is the oracle's driver (build/release/tests/oracle/tokenizer/oracle_tokenizer_encode). One thread each. Every round times
each program once, in turn, with nothing kept from the round before: capstan in a new process, HF's tokenizer and quicktok's
made anew. HF encodes by encode_batch_fast (no offsets), its threads off. Times are the processor's, not the clock's, as
others may use the machine. Ids are compared in the first round. Printed: the median rate of each in MB/s, and the median
and the spread of capstan's rate over the other's within a round.

The text is what this machine has: a fifth each of this tree's pages, Python and C sources, message catalogues' languages made
of their common characters (CJK, Cyrillic, Devanagari, Arabic), numbers and signs, and emoji among words; 4 KiB a text.
"""
import argparse
import json
import os
import pathlib
import random
import re
import statistics
import struct
import subprocess
import sys
import sysconfig
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
os.environ["TOKENIZERS_PARALLELISM"] = "false"
import corpus  # noqa: E402
import patterns  # noqa: E402
import run  # noqa: E402
import vocabularies  # noqa: E402

run.PACKAGES.append("quicktok-v1")
NAMES = ["gpt-2", "llama-bpe", "qwen2", "qwen3.6", "gpt-oss", "mistral-nemo", "deepseek-v4", "llama-spm", "gemma-4"]
QUICKTOK = {"llama-bpe": "llama3", "qwen2": "qwen3", "gpt-oss": "o200k_harmony"}
TEXT = 4096


def texts(total):
    r = random.Random(11)
    root = HERE.parents[2]
    pages = "\n".join(p.read_text() for p in sorted(root.glob("docs/*.md")))
    std = pathlib.Path(sysconfig.get_paths()["stdlib"])
    code = "\n".join(p.read_text(errors="ignore") for p in [*sorted(std.glob("*.py"))[:60], *sorted(root.glob("*/*.c"))])
    pages, code = pages.replace("<", "("), code.replace("<|", "< |")  # no added tokens: HF's object has none here
    words = re.findall(r"[A-Za-z]{2,}", pages)
    scripts = [corpus.COMMON, corpus.COMMON + "。，、", "абвгдежзиклмнопрстуфхцчшыьюя" * 2, "कखगघचछजटडतथदधनपबभमयरलवशसह" + "ािीुूेैोौ्" * 3,
               "ابتثجحخدذرزسشصضطظعغفقكلمنهوي"]

    def other():
        chars = r.choice(scripts)
        return " ".join("".join(r.choices(chars, k=r.randint(2, 9))) for _ in range(20)) + "\n"

    def numbers():
        return " ".join(f"{r.randint(0, 10 ** r.randint(1, 9))}{r.choice(['', '%', ',', ';', ' +', '/', '.5', ' = ('])}" for _ in range(20)) + "\n"

    def emoji():
        return " ".join(r.choice(words + corpus.EMOJI * 20) for _ in range(20)) + "\n"

    def cut(text):
        at = r.randint(0, len(text) - 900)
        return text[at : at + 800]

    makers, out, size = [lambda: cut(pages), lambda: cut(code), other, numbers, emoji], [], 0
    while size < total:
        parts, n = [], 0
        while n < TEXT:
            parts.append(makers[len(parts) % len(makers)]())
            n += len(parts[-1].encode())
        out.append("".join(parts).encode()[:TEXT].decode(errors="ignore"))
        size += len(out[-1].encode())
    return out


def sentence_piece_merges(ids, scores):
    """The rules behind the scores of tokens (token to id), best first, as transformers makes them."""
    rules = []
    for t, i in ids.items():
        parts = [(t[:k], t[k:]) for k in range(1, len(t)) if t[:k] in ids and t[k:] in ids]
        rules += [(scores[i], *p) for p in sorted(parts, key=lambda p: (ids[p[0]], ids[p[1]]))]
    return [(a, b) for _, a, b in sorted(rules, key=lambda m: (m[0], len(m[1]), len(m[2])), reverse=True)]


def hugging_face(path):
    """HF's tokenizer for a file, as JSON."""
    import gguf

    v = run.Vocabulary(path)
    if v.model != "llama":
        return run.HuggingFace(v).plain.to_str()
    scores = gguf.GGUFReader(path).fields["tokenizer.ggml.scores"].contents()
    merges = sentence_piece_merges({t: i for i, t in enumerate(v.tokens) if v.types[i] == 1}, scores)
    return patterns.chars({t: i for i, t in enumerate(v.tokens)}, merges, "<unk>", prefix=True).to_str()


def time_hf(text, data):
    from tokenizers import Tokenizer

    t = Tokenizer.from_str(text)
    start = time.process_time()
    got = t.encode_batch_fast(data, add_special_tokens=False)
    return time.process_time() - start, [e.ids for e in got]


def time_quicktok(name, data):
    import quicktok

    t = quicktok.Tokenizer(name, "")
    start = time.process_time()
    ids = [t.encode_ordinary(x) for x in data]
    return time.process_time() - start, [list(map(int, x)) for x in ids]


def time_capstan(driver, path, data):
    blob = b"".join(struct.pack("<I", len(b)) + b for b in (x.encode() for x in data))
    p = subprocess.run([driver, str(path), "-"], input=blob, capture_output=True, check=True)
    seconds = float(re.search(r"bytes in ([\d.]+) s", p.stderr.decode())[1])
    return seconds, [[int(x) for x in line.split()] for line in p.stdout.decode().split("\n")[:-1]]


def measure(name, args, work, data):
    path = vocabularies.path(work, name)
    made = hugging_face(path)
    size = sum(len(x.encode()) for x in data) / 1e6
    programs = {"capstan": lambda: time_capstan(args.driver, path, data), "tokenizers": lambda: time_hf(made, data)}
    if name in QUICKTOK:
        programs["quicktok"] = lambda: time_quicktok(QUICKTOK[name], data)
    rates = {k: [] for k in programs}
    different = {}
    for r in range(args.rounds):
        ids = {}
        for k, f in programs.items():
            seconds, ids[k] = f()
            rates[k].append(size / seconds)
        if r == 0:
            different = {k: sum(a != b for a, b in zip(ids["capstan"], ids[k])) for k in programs if k != "capstan"}
    line = {k: round(statistics.median(v), 1) for k, v in rates.items()}
    for k in different:
        ratios = sorted(a / b for a, b in zip(rates["capstan"], rates[k]))
        line[f"over {k}"] = [round(x, 2) for x in (statistics.median(ratios), ratios[0], ratios[-1])]
    print(f"{name}: {json.dumps(line)} texts that differ: {different}", flush=True)


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--driver", required=True)
    ap.add_argument("--work", default="build/oracle-tokenizer")
    ap.add_argument("--rounds", type=int, default=9)
    ap.add_argument("--bytes", type=int, default=2 << 20)
    ap.add_argument("--only", default="")
    args = ap.parse_args()
    work = pathlib.Path(args.work).resolve()
    work.mkdir(parents=True, exist_ok=True)
    run.in_venv(work)
    data = texts(args.bytes)
    for name in NAMES:
        if not args.only or name in args.only.split(","):
            measure(name, args, work, data)


if __name__ == "__main__":
    main()
