#!/usr/bin/env python3
"""The tiny models of tests/golden in llama.cpp's server and in ours: the ten likeliest log-probabilities of 47 positions.

    twins.py [--bin capstan] [NAME...]        needs xllamacpp, gguf (scripts/oracle-venv)

llama.cpp runs in a process of its own for each model (package xllamacpp), step by step with n_predict 1; ours scores the
prompt (echo, logprobs). Both keep f16 pages. F32 and F16 models must agree within 0.02 wherever llama.cpp ranks a token
among the ten likeliest; with quantized weights each rounds activations in its own way, so there the difference is printed
only. An architecture that this llama.cpp does not know is said so.

exit status: 0 all agree or are not known, 1 otherwise.
"""
import argparse
import contextlib
import json
import os
import pathlib
import random
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[3]
TINY = ROOT / "tests/golden/tiny"
POSITIONS, TOP, BAR, LETTER = 48, 10, 0.02, 64
# What one version of llama.cpp is known to get otherwise than transformers, and why: name -> (largest difference, reason).
DEPARTURES = {
    "gpt-oss": (0.14, "llama.cpp rounds the ramp of YaRN to whole dimensions, transformers does not; rounded here too: 0.005"),
}


def post(url, body):
    req = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(req, timeout=60) as r:
        return json.load(r)


def byte_alphabet():
    """Code point -> byte of GPT-2's table, in which the tiny vocabularies are written."""
    out, extra = {}, 0
    for b in range(256):
        plain = 33 <= b < 127 or 161 <= b < 173 or 174 <= b
        out[chr(b if plain else 256 + extra)] = b
        extra += not plain
    return out


ALPHABET = byte_alphabet()
NORMAL, BYTE = 1, 6  # types of tokens


def spelled(name, kind, as_text):
    """A token of the vocabulary as completions spell it; as_text: the vocabulary is text, not bytes in GPT-2's table."""
    if as_text:
        raw = bytes([int(name[1:-1], 16)]) if kind == BYTE else name.replace("\u2581", " ").encode()
    else:
        raw = name.encode() if kind != NORMAL else bytes(ALPHABET[c] for c in name)
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{b:02x}" for b in raw)


def tokens(path):
    """(ids to score, the vocabulary as our server spells it)."""
    import gguf

    reader = gguf.GGUFReader(path)

    def values(key):
        field = reader.get_field(f"tokenizer.ggml.{key}")
        return [field.parts[i] for i in field.data]

    as_text = bytes(values("model")[0]).decode() == "gemma4"
    names = [spelled(bytes(n).decode(), t[0], as_text) for n, t in zip(values("tokens"), values("token_type"), strict=True)]
    rng = random.Random(path.name)
    return [rng.randrange(len(names)) for _ in range(POSITIONS)], names


def llama_server(path, context):
    """The package's server, which lives as long as the object."""
    import xllamacpp

    p = xllamacpp.CommonParams()
    p.model.path = str(path)
    p.n_ctx = context
    p.warmup = False
    p.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED  # it would round q to f16
    p.cache_type_k = p.cache_type_v = xllamacpp.ggml_type(0)  # F32
    p.cpuparams.n_threads = 1
    p.n_parallel = 1
    with socket.create_server(("127.0.0.1", 0)) as free:
        p.port = free.getsockname()[1]
    return xllamacpp.Server(p)


def likeliest(url, ids, first=1):
    """[{id: log-probability}] of what follows ids[:first], ids[:first + 1] and so on, by llama.cpp."""
    out = []
    for n in range(first, len(ids)):
        # probabilities are of the raw logits; the token itself is made a letter, as bytes that are no text yet, and the
        # end, come without them
        body = {"prompt": ids[:n], "n_predict": 1, "n_probs": TOP, "temperature": 0, "cache_prompt": True,
                "logit_bias": [[LETTER, 1000]]}
        top = post(url + "/completion", body)["completion_probabilities"][0]["top_logprobs"]
        out.append({t["id"]: t["logprob"] for t in top})
    return out


def child(script, *args):
    """(what llama.cpp answered to `script --child ARGS` in a process of its own, the text of what went wrong)."""
    run = subprocess.run([sys.executable, script, "--child", *args], capture_output=True, text=True, timeout=600)
    line = [x for x in run.stdout.splitlines() if x.startswith("RESULT ")]
    return (json.loads(line[0][7:]), None) if line else (None, (run.stderr + run.stdout)[-8000:])


def answer(result):
    """What a child ends with: the package's threads outlive its server."""
    print("RESULT " + json.dumps(result), flush=True)
    os._exit(0)


def why_not(trouble):
    """(a row of the table, whether it is as it should be) where llama.cpp did not load the model."""
    unknown = re.search(r"unknown model architecture: '([^']*)'", trouble)
    if unknown:
        return f"this version does not know the architecture {unknown[1]}", True
    said = re.findall(r"error loading model: .*", trouble) or [" ".join(trouble.split())[-300:]]
    return "llama.cpp: " + said[0], False


def wait_ready(server, url):
    while server.poll() is None:
        try:
            with urllib.request.urlopen(url + "/readyz", timeout=60):
                return
        except urllib.error.HTTPError:
            time.sleep(0.05)
    raise RuntimeError("our server ended while it loaded")


@contextlib.contextmanager
def capstan(binary, path):
    """The address of our server."""
    with tempfile.TemporaryDirectory() as cache:
        env = {**os.environ, "XDG_CACHE_HOME": cache}
        server = subprocess.Popen([binary, "serve", str(path), "--port", "0", "--kv-type", "f16", "--threads", "1", "--ctx", "512"],
                                  stderr=subprocess.PIPE, text=True, env=env)
        try:
            log, url = [], None
            for line in server.stderr:
                log.append(line)
                m = re.search(r"listening on (http://\S+)", line)
                if m:
                    url = m[1]
                    break
            if not url:
                raise RuntimeError("".join(log))
            threading.Thread(target=server.stderr.read, daemon=True).start()
            wait_ready(server, url)
            yield url
        finally:
            server.kill()
            server.wait()


def scored(url, ids):
    """[{text: log-probability}], as likeliest() but 20 of them, by ours."""
    answer = post(url + "/v1/completions", {"prompt": ids, "max_tokens": 0, "echo": True, "logprobs": 20})
    return answer["choices"][0]["logprobs"]["top_logprobs"][1:]


def compare(theirs, ours, names):
    """(largest difference, tokens that ours does not have among its twenty)."""
    worst, missing = 0.0, 0
    for a, b in zip(theirs, ours, strict=True):
        for token, logprob in a.items():
            if names[token] in b:
                worst = max(worst, abs(b[names[token]] - logprob))
            else:
                missing += 1
    return worst, missing


def one(binary, path):
    """(a row of the table, whether it is as it should be)."""
    ids, names = tokens(path)
    theirs, trouble = child(__file__, str(path), json.dumps(ids))
    if theirs is None:
        return why_not(trouble)
    theirs = [{int(k): v for k, v in row.items()} for row in theirs]
    with capstan(binary, path) as url:
        worst, missing = compare(theirs, scored(url, ids), names)
    row = f"{len(theirs):3} positions, largest difference {worst:.4f}"
    if path.stem.endswith("-q"):
        return row + " (quantized: no bar)", missing < len(theirs)
    allowed, why = DEPARTURES.get(path.stem, (BAR, ""))
    ok = worst <= allowed and missing == 0
    return row + (f", {missing} tokens not among ours" if missing else "") + (f" ({why})" if why else ""), ok


def main():
    if sys.argv[1:2] == ["--child"]:
        server = llama_server(sys.argv[2], 256)
        answer(likeliest(server.listening_address, json.loads(sys.argv[3])))
    import xllamacpp

    args = argparse.ArgumentParser()
    args.add_argument("--bin", default=os.environ.get("CAPSTAN_BIN", str(ROOT / "build/release/capstan")))
    args.add_argument("names", nargs="*")
    args = args.parse_args()
    print(f"llama.cpp of xllamacpp {xllamacpp.__version__}; within {BAR} of the {TOP} likeliest", flush=True)
    bad = 0
    for path in sorted(TINY.glob("*.gguf")):
        if args.names and path.stem not in args.names:
            continue
        row, ok = one(args.bin, path)
        bad += not ok
        print(f"{path.stem:16} {'ok  ' if ok else 'BAD '} {row}", flush=True)
    return bad > 0


if __name__ == "__main__":
    sys.exit(main())
