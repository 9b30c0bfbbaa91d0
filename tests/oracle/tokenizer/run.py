#!/usr/bin/env python3
"""Compare capstan's tokenizer with llama.cpp's, id by id (ctest label `oracle`).

usage: run.py --driver BIN [--work DIR] [--bytes N] [--seed S] [--only NAME,...]

For the two real model files and the vocabularies of vocabularies.py: the vectors that llama.cpp ships (.inp/.out) and at
least N bytes of corpus.py's strings, each with special tokens parsed and not; then every other name of tokenizer.ggml.pre,
on an eighth of that and a vocabulary of its family. llama.cpp runs inside the process (package xllamacpp). Where it departs
from the model's own tokenizer, as listed in DEPARTURES.md, the expected ids are made by that rule; every such string is
counted. Packages go into a virtual environment of the work folder, made on the first run.

exit status: 0 no difference, 1 differences (printed), 77 something that is needed is not there.
"""
import argparse
import concurrent.futures
import functools
import json
import os
import pathlib
import re
import socket
import struct
import subprocess
import sys
import unicodedata
import urllib.request
import venv

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
import patterns  # noqa: E402
import vocabularies  # noqa: E402

PACKAGES = ["xllamacpp", "gguf", "numpy", "tokenizers", "unicodedata2==15.1.0"]
MODELS = pathlib.Path(os.environ.get("CAPSTAN_MODELS", HERE.parents[2] / "build" / "models"))
FILES = {
    "smollm2": os.environ.get("CAPSTAN_SMOLLM2", str(MODELS / "SmolLM2-135M-Instruct.Q4_1.gguf")),
    "gemma-3": os.environ.get("CAPSTAN_GEMMA3", str(MODELS / "gemma-3-270m.Q4_K_M.gguf")),
}
VOCABS = [*vocabularies.GGML, *vocabularies.MADE]
# A vocabulary for each family of names that share an expression, for those that have none of their own.
FOR_FAMILY = {"gpt-2": "gpt-2", "smollm": "starcoder", "llama-bpe": "llama-bpe", "qwen2": "qwen2", "gpt-4o": "gpt-oss",
              "minicpm5": "llama-bpe", "seed-coder": "qwen2"}


def in_venv(work):
    """Run this script again under a virtual environment that has the packages."""
    if os.environ.get("CAPSTAN_ORACLE_VENV") == "1":
        return
    home = pathlib.Path(os.environ.get("CAPSTAN_ORACLE_PYTHON_HOME", work / "venv"))
    python = home / "bin" / "python"
    if not python.exists():
        venv.create(home, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *PACKAGES], check=True)
    os.execve(python, [str(python), *sys.argv], {**os.environ, "CAPSTAN_ORACLE_VENV": "1"})


def add_tiny_model(w, n):
    """Give a GGUFWriter of architecture llama the smallest random model over n tokens, write and close it."""
    import numpy as np

    width, heads, inner = 64, 2, 64
    w.add_block_count(1)
    w.add_context_length(2048)
    w.add_embedding_length(width)
    w.add_feed_forward_length(inner)
    w.add_head_count(heads)
    w.add_head_count_kv(heads)
    w.add_layer_norm_rms_eps(1e-5)
    w.add_rope_dimension_count(width // heads)
    w.add_vocab_size(n)
    rng = np.random.default_rng(0)

    def rand(*shape):
        return (rng.standard_normal(shape, dtype=np.float32) * 0.05).astype(np.float32)

    w.add_tensor("token_embd.weight", rand(n, width).astype(np.float16))
    w.add_tensor("output_norm.weight", np.ones(width, np.float32))
    for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
        w.add_tensor(f"blk.0.{name}.weight", rand(width, width))
    for name, shape in (("ffn_gate", (inner, width)), ("ffn_up", (inner, width)), ("ffn_down", (width, inner))):
        w.add_tensor(f"blk.0.{name}.weight", rand(*shape))
    for name in ("attn_norm", "ffn_norm"):
        w.add_tensor(f"blk.0.{name}.weight", np.ones(width, np.float32))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def model_of_vocab(src, dst, pre=None):
    """A tiny random llama model that carries src's tokenizer, so that llama.cpp's server loads it; another name for `pre`."""
    import gguf

    reader = gguf.GGUFReader(src)
    w = gguf.GGUFWriter(dst, "llama")
    for key, field in reader.fields.items():
        if not key.startswith("tokenizer.") and key != "general.name":
            continue
        if field.types[0] == gguf.GGUFValueType.ARRAY:
            w.add_key_value(key, field.contents(), field.types[0], sub_type=field.types[-1])
        else:
            renamed = pre and key == "tokenizer.ggml.pre"
            w.add_key_value(key, pre if renamed else field.contents(), field.types[0])
    add_tiny_model(w, len(reader.fields["tokenizer.ggml.tokens"].data))


class Vocabulary:
    """What the departure rules need of a file."""

    def __init__(self, path):
        import gguf

        f = gguf.GGUFReader(path).fields
        self.model = f["tokenizer.ggml.model"].contents()
        self.pre = f["tokenizer.ggml.pre"].contents() if "tokenizer.ggml.pre" in f else ""
        self.pre = self.model if self.model == "gemma4" else self.pre
        self.tokens = f["tokenizer.ggml.tokens"].contents()
        self.types = f["tokenizer.ggml.token_type"].contents()
        self.merges = f["tokenizer.ggml.merges"].contents() if "tokenizer.ggml.merges" in f else []
        self.name = f["general.name"].contents() if "general.name" in f else ""

    def pieces(self):
        """Spellings as they stand in a text; byte-level ones decoded."""
        if self.model != "gpt2":
            return [t.replace("\u2581", " ") for t in self.tokens if t]
        back = {c: b for b, c in vocabularies.spelling().items()}
        out = []
        for t in self.tokens:
            try:
                out.append(bytes(back[c] for c in t).decode("utf-8"))
            except (KeyError, UnicodeDecodeError):
                continue
        return out


class Llama:
    """llama.cpp's server over a model file."""

    def __init__(self, path):
        import xllamacpp

        p = xllamacpp.CommonParams()
        p.model.path = str(path)
        p.n_ctx = 256
        p.warmup = False
        p.verbosity = 0
        with socket.create_server(("127.0.0.1", 0)) as free:
            p.port = free.getsockname()[1]
        p.cpuparams.n_threads = 1
        p.n_parallel = 1
        self.server = xllamacpp.Server(p)
        self.url = self.server.listening_address

    def encode(self, text, special):
        body = json.dumps({"content": text, "add_special": special, "parse_special": special}).encode()
        req = urllib.request.Request(self.url + "/tokenize", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(req, timeout=300) as r:
            return json.load(r)["tokens"]

    def encode_all(self, texts, special):
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            return list(pool.map(lambda text: self.encode(text, special), texts))


class HuggingFace:
    """A vocabulary as the model's own tokenizer.json builds it: NFC where it has it, split, byte level, BPE."""

    def __init__(self, v):
        chars = v.pre == "gemma4"
        vocab = {t: i for i, t in enumerate(v.tokens) if v.types[i] == 1 or (chars and v.types[i] in (2, 6))}
        cut = [m.find(" ", 1) for m in v.merges]
        merges = [(m[:k], m[k + 1 :]) for m, k in zip(v.merges, cut)]
        self.plain = patterns.chars(vocab, merges, "<unk>") if chars else patterns.byte_level(v.pre, vocab, merges)
        self.added = {v.tokens[i]: i for i, k in enumerate(v.types) if k == 4}
        self.control = {v.tokens[i]: i for i, k in enumerate(v.types) if k == 3}
        self.newer = dict.fromkeys(newer_marks() if v.pre in patterns.NFC else ()) | dict.fromkeys(newer_classes())

    def encode(self, text, special):
        known = self.added | (self.control if special else {})
        if not known:
            return self.plain.encode(text, add_special_tokens=False).ids
        pattern = "(" + "|".join(re.escape(k) for k in sorted(known, key=len, reverse=True)) + ")"
        ids = []
        for part in re.split(pattern, text):
            if part in known:
                ids.append(known[part])
            elif part:
                ids += self.plain.encode(part, add_special_tokens=False).ids
        return ids


@functools.cache
def newer_marks():
    """Marks that HF's normalizer does not order, and what Unicode 15 added after this Python's tables."""
    from tokenizers import normalizers

    nfd = normalizers.NFD()
    marks = [c for c in range(0x110000) if unicodedata.combining(chr(c)) not in (0, 1, 240)]
    newer = {c for c in marks if nfd.normalize_str(chr(c) + "\u0334")[0] != "\u0334"}
    return newer | {*range(0x10EFD, 0x10F00), 0x11F41, 0x11F42, 0x1E08F, *range(0x1E4EC, 0x1E4F0)}


@functools.cache
def newer_classes():
    """Code points whose category HF's expressions see otherwise than Unicode 15.1."""
    import unicodedata2
    from tokenizers import Regex, pre_tokenizers

    every = [c for c in range(0x110000) if not 0xD800 <= c <= 0xDFFF]
    odd = set()
    for category in ("Lu", "Ll", "Lt", "Lm", "Lo", "M", "N", "P", "S"):
        split = pre_tokenizers.Split(Regex(rf"\p{{{category}}}"), "removed")
        kept = {ord(c) for part, _ in split.pre_tokenize_str("".join(map(chr, every))) for c in part}
        odd |= {c for c in every if (c not in kept) != unicodedata2.category(chr(c)).startswith(category)}
    return odd


def capstan(driver, model, texts, special):
    data = b"".join(struct.pack("<I", len(b)) + b for b in (t.encode() for t in texts))
    p = subprocess.run([driver, str(model), "sp" if special else "-"], input=data, stdout=subprocess.PIPE, check=True)
    lines = p.stdout.decode().split("\n")[:-1]
    assert len(lines) == len(texts), (len(lines), len(texts))
    return [[int(x) for x in line.split()] for line in lines]


def agree_without_newer(args, model, hf, texts, special, bos):
    """DEPARTURES 3: for each text, whether capstan and HF agree once what only one of them knows is taken out."""
    bare = [text.translate(hf.newer) for text in texts]
    ours = capstan(args.driver, model, bare, special) if texts else []
    return [b != t and got == bos + hf.encode(b, special) for t, b, got in zip(texts, bare, ours)]


def html_tag(v, llama, text, special):
    """DEPARTURES 2: </s> where the file does not call it a control token."""
    i = v.tokens.index("</s>")
    parts = text.split("</s>")
    if v.types[i] != 4:
        return None
    ids = llama.encode("", special)
    first = True
    for part in parts:
        if not first:
            ids.append(i)
            if "phi3" in v.name.lower():
                part = part.lstrip(" \t\n\v\f\r")
        if part:
            got = llama.encode(part, special)
            ids += got[1:] if special and got[:1] == llama.encode("", True)[:1] else got
        first = False
    return ids


def why_own(v, text):
    """DEPARTURES: the rule by which the model's own tokenizer counts for a text, or None."""
    if v.pre in patterns.NFC and unicodedata.normalize("NFC", text) != text:
        return "nfc"
    if "</s>" in text and "</s>" in v.tokens and v.types[v.tokens.index("</s>")] != 3:
        return "html"
    if "'\u017f" in text and patterns.FAMILY_OF.get(v.pre) in FOLDING:
        return "long_s"
    if "<|return|>" in v.tokens and any(f in text for f in FRAME):
        return "frame"
    if v.pre == "deepseek-llm" and any(c > "\u0800" and c.isspace() for c in text):
        return "wide_space"
    return "case" if patterns.FAMILY_OF.get(v.pre) in ("gpt-4o", "tekken") and not text.isascii() else None


FRAME = ("<|start|>", "<|channel|>", "<|constrain|>", "<|message|>", "<|end|>")
FOLDING = {"llama-bpe", "qwen2", "qwen35", "gpt-4o", "minicpm5", "seed-coder"}


def compare(name, path, args, work, pre=None, portion=1):
    """Whether nothing differs. `pre`: under another name of tokenizer.ggml.pre."""
    v = Vocabulary(path)
    v.pre = pre or v.pre
    model = path
    if name not in FILES:
        model = work / f"model-{name}{'-' + pre if pre else ''}.gguf"
        if not model.exists():
            model_of_vocab(path, model, pre)
    llama = Llama(model)
    hf = HuggingFace(v) if v.pre in patterns.FAMILY_OF else None
    import corpus

    texts = list(corpus.strings(args.seed, args.bytes // portion, v.pieces()))
    done = dict.fromkeys(("strings", "bytes", "nfc", "html", "long_s", "case", "frame", "wide_space", "newer", "hf", "different"), 0)
    for special in (False, True):
        bos = llama.encode("", special)
        ours, odd = capstan(args.driver, model, texts, special), []
        theirs = llama.encode_all(texts, special)
        for text, got, want in zip(texts, ours, theirs):
            done["strings"] += 1
            done["bytes"] += len(text.encode())
            why = why_own(v, text)
            own = bos + hf.encode(text, special) if hf else html_tag(v, llama, text, special) if why == "html" else None
            done["hf"] += own == got
            if own is not None and want != own and why:
                done[why] += 1
                want = own
            if got != want:
                odd.append((text, got, want))
        excused = agree_without_newer(args, model, hf, [t for t, _, _ in odd], special, bos) if hf else [False] * len(odd)
        done["newer"] += sum(excused)
        for (text, got, want), fine in zip(odd, excused):
            if not fine:
                done["different"] += 1
                if done["different"] <= 10:
                    print(f"{name}: special={special} {text[:200]!r}\n  capstan {got[:40]}\n  expected {want[:40]}")
    if not pre:
        done["vectors"] = vectors_of(v, hf, path, name, args.driver, model)
    print(f"{name}{' as ' + pre if pre else ''}: {json.dumps(done)}", flush=True)
    return done["different"] == 0 and (pre or done["vectors"][1] == 0)


def vectors_of(v, hf, path, name, driver, model):
    """How many vectors there are, how many differ, and how many have HF's ids by a rule of DEPARTURES."""
    inp, out = pathlib.Path(f"{path}.inp"), pathlib.Path(f"{path}.out")
    if not inp.exists():
        return [0, 0, 0]
    texts = inp.read_text(encoding="utf-8").split("\n__ggml_vocab_test__\n")
    want = [[int(x) for x in line.split()] for line in out.read_text().split("\n")]
    texts = texts[: len(want)]
    got = capstan(driver, model, texts, False)
    bad = [i for i, t in enumerate(texts) if got[i] != want[i]]
    own = [i for i in bad if hf and why_own(v, texts[i]) and hf.encode(texts[i], False) == got[i]]
    for i in bad:
        if i not in own:
            print(f"{name}: vector {texts[i]!r}\n  capstan {got[i]}\n  expected {want[i]}")
    return [len(texts), len(bad) - len(own), len(own)]


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--driver", required=True)
    ap.add_argument("--work", default=os.environ.get("CAPSTAN_ORACLE_WORK", "build/oracle-tokenizer"))
    ap.add_argument("--bytes", type=int, default=1 << 20)
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--only", default="")
    args = ap.parse_args()
    work = pathlib.Path(args.work).resolve()
    work.mkdir(parents=True, exist_ok=True)
    in_venv(work)
    ok, seen = True, 0
    for name in [*FILES, *VOCABS]:
        if args.only and name not in args.only.split(","):
            continue
        path = FILES.get(name) or vocabularies.path(work, name)
        if not pathlib.Path(path).exists():
            print(f"{name}: {path} is not there, skipped")
            continue
        seen += 1
        ok = compare(name, path, args, work) and ok
    for family, name in FOR_FAMILY.items():
        for pre in patterns.SAME.get(family, [family]):
            if not args.only or pre in args.only.split(","):
                seen += 1
                ok = compare(name, vocabularies.path(work, name), args, work, pre, 8) and ok
    sys.exit(77 if not seen else 0 if ok else 1)


if __name__ == "__main__":
    main()
