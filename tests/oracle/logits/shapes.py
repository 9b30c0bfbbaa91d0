#!/usr/bin/env python3
"""Models of real shapes with random weights, real vocabularies and real templates, in llama.cpp's server and in ours.

    shapes.py [--bin capstan] [--work DIR] [SHAPE...]        needs xllamacpp, gguf (scripts/oracle-venv)

bench/make_model.py makes the models (0.4 to 3 GB each); vocabularies and templates are those of llama-cpp-python's sdist
(CAPSTAN_LLAMA_CPP names its models folder, else it is fetched). A chat must be rendered to the same text and cut into the same ids. The
log-probabilities of its last positions are compared and printed: with quantized weights each server rounds activations in
its own way, so what must hold is that they are about the same (a mean difference of at most 0.2).

exit status: 0 all agree or are not known to one side, 1 otherwise.
"""
import argparse
import os
import pathlib
import subprocess
import sys
import tarfile

import twins

sys.path.insert(0, str(twins.ROOT / "tests/oracle/tokenizer"))
import vocabularies  # noqa: E402

ROOT = twins.ROOT
SHAPES = {  # vocabulary, template
    "qwen3-0.6b": ("qwen2", "Qwen-Qwen3-0.6B"),
    "moe-16x2": ("starcoder", "Qwen-Qwen3-0.6B"),
    "qwen35-0.8b": ("qwen35", "Qwen3.5-4B"),
    "gemma4-e2b": ("gemma-4", "google-gemma-4-31B-it"),
    "gpt-oss-20b-4": ("gpt-oss", "openai-gpt-oss-120b"),
}
POSITIONS, MEAN = 33, 0.2
CHAT = [{"role": "system", "content": "You answer briefly."},
        {"role": "user", "content": "What is 6 × 7?\n\nShow it as code: `print(6 * 7)` — naïve, 東京, 🙂."},
        {"role": "assistant", "content": "42"}, {"role": "user", "content": "And half of it, please?"}]
ASKED = {"messages": CHAT, "chat_template_kwargs": {"enable_thinking": False}}  # llama.cpp has it on unless told


def sdist(work):
    """The folder of vocabularies and templates."""
    there = os.environ.get("CAPSTAN_LLAMA_CPP")
    if there:
        return pathlib.Path(there)
    found = list(work.glob("llama_cpp_python-*/vendor/llama.cpp/models"))
    if not found:
        subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:", "--no-build-isolation",
                        "-d", str(work), "llama-cpp-python"], check=True)
        with tarfile.open(next(work.glob("llama_cpp_python-*.tar.gz"))) as t:
            t.extractall(work, filter="data")
        found = list(work.glob("llama_cpp_python-*/vendor/llama.cpp/models"))
    return found[0]


def made(work, models, shape):
    vocab, template = SHAPES[shape]
    path = work / f"{shape}.gguf"
    source = models / f"ggml-vocab-{vocab}.gguf"
    if vocab in vocabularies.MADE:
        source = vocabularies.path(work, vocab)
    subprocess.run([sys.executable, str(ROOT / "bench/make_model.py"), str(source), str(path), shape,
                    str(models / "templates" / f"{template}.jinja")], check=True)
    return path


def theirs(path):
    """(prompt, ids, log-probabilities) of llama.cpp; runs in its own process."""
    server = twins.llama_server(path, 512)
    url = server.listening_address
    prompt = twins.post(url + "/apply-template", ASKED)["prompt"]
    ids = twins.post(url + "/tokenize", {"content": prompt, "parse_special": True, "add_special": False})["tokens"]
    return prompt, ids, twins.likeliest(url, ids, max(1, len(ids) - POSITIONS))


def compare(binary, path, out):
    prompt, ids, likeliest = out
    reader_names = twins.tokens(path)[1]
    with twins.capstan(binary, path) as url:
        ours = twins.post(url + "/apply-template", ASKED)["prompt"]
        if ours.removeprefix("<bos>") != prompt:  # llama.cpp leaves it to its tokenizer
            return f"the prompts differ: {ours!r} and {prompt!r}", False
        cut = twins.post(url + "/tokenize", {"content": prompt, "parse_special": True, "add_special": False})["tokens"]
        if cut != ids:
            return f"the ids differ: {cut} and {ids}", False
        rows = twins.scored(url, ids)[-len(likeliest):]
    gaps = [abs(b[reader_names[int(t)]] - p) for a, b in zip(likeliest, rows, strict=True) for t, p in a.items()
            if reader_names[int(t)] in b]
    mean, n = sum(gaps) / max(1, len(gaps)), sum(map(len, likeliest))
    row = (f"prompt of {len(prompt.encode())} bytes, {len(ids)} ids: the same; {len(rows)} positions, differences {mean:.3f} in the "
           f"mean, {max(gaps, default=0):.3f} at most, {n - len(gaps)} of {n} tokens not among ours")
    return row, mean <= MEAN and len(gaps) >= 0.8 * n


def main():
    if sys.argv[1:2] == ["--child"]:
        twins.answer(theirs(sys.argv[2]))
    args = argparse.ArgumentParser()
    args.add_argument("--bin", default=os.environ.get("CAPSTAN_BIN", str(ROOT / "build/release/capstan")))
    args.add_argument("--work", type=pathlib.Path, default=ROOT / "build/oracle")
    args.add_argument("shapes", nargs="*")
    args = args.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    models, bad = sdist(args.work), 0
    for shape in args.shapes or SHAPES:
        path = made(args.work, models, shape)
        out, trouble = twins.child(__file__, str(path))
        row, ok = compare(args.bin, path, out) if out else twins.why_not(trouble)
        path.unlink()
        bad += not ok
        print(f"{shape:12} {'ok  ' if ok else 'BAD '} {row}", flush=True)
    return bad > 0


if __name__ == "__main__":
    sys.exit(main())
