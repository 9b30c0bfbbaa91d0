#!/usr/bin/env python3
"""Make the vector files of this folder: tiny vocabularies, and what reference implementations do with them.

usage: make_vectors.py            (a Python with xllamacpp, gguf, numpy, tokenizers; Python 3.13 for nfc.txt)

One file a family: a vocabulary of a few hundred tokens trained here on the text below, then cases. The ids come from
llama.cpp, for families of OWN from HF's tokenizers (tests/oracle/tokenizer/DEPARTURES.md says why). pretok.txt holds the
lengths of pieces by HF's regex engine, nfc.txt Python's NFC. Format: a line is a word and fields; in fields, bytes outside
printable ASCII, spaces and backslashes are \\xHH.
"""
import pathlib
import random
import sys
import unicodedata

HERE = pathlib.Path(__file__).resolve().parent
OUT = HERE / "vectors"
sys.path.insert(0, str(HERE.parents[1] / "oracle" / "tokenizer"))

TEXT = """The tokenizer turns text into numbers, and the numbers into text again. The server reads the request, the engine
takes the numbers, and the numbers that it gives back are shown as text. It's what we'll test: don't, I've, they're, he'd, I'm.
int main(void) { for (int i = 0; i < 10; i++) printf("%d\\n", i); return 0; }   // the loop
    if (the_text == NULL)\n        return the_error;\n\n\tthe end\r\n\r\n  the end  \n
Ein Text über Wörter und Größe. Un texte très naïve. Это простой текст, и текст это числа. 文字と数字。 这是文字，数字和文字。
النص والأرقام في النص. टेक्स्ट और संख्या. 😀😀 👍🏽 the the the there then them this that 1234 2024 100000 3.14
""" * 2

OWN = {"qwen2", "qwen35", "gpt-4o", "tekken"}
FEW = {"qwen35", "gpt-4o", "tekken", "deepseek-v3", "deepseek-llm", "deepseek-coder", "falcon", "minicpm5", "seed-coder"}

CASES = [
    "", " ", "  ", "   ", "\n", "\n\n", "\t", "\r\n", " \n ", "the", " the", "  the", "the ", "the  ", "The end.",
    "It's what we'll test: DON'T, I'VE, they'Re, he'd", "1", "12", "123", "1234", "12345678", " 1234 the 5",
    "the\n\nend\n", "\n \n  the", "  \r\n\r\n  x", "\u00a0the\u2003end\u3000", "über Größe naïve", "u\u0308ber Gro\u0308\u00dfe e\u0301",
    "Это текст", "文字と数字。这是", "النص في", "टेक्स्ट", "😀👍🏽 the", "\u1112\u1161\u11ab \ud55c", "a\u0323\u0302 a\u0302\u0323", "\u212b\u2126",
    "int main(void) { return 0; }", "the_text==NULL;;\n\n", "!!!\n\n??", "'s 's 'S ''s", "I'LLx 'Sx 'sx 'llama", "\u0000\u0001\u007f", "٣٤ ²½ Ⅷ",
    "<|a|>the<|b|>", "<|a|> the <|b|> end", "the<|a|", "<|a|><|a|>", "x<tool>y", "<tool><tool>>", "\n\n\n\n\nthe", "</s>the",
    "\u2581the\u2581", "the" * 30, " " * 40, "1" * 20, "zq" * 40, "\U0001D400\u0378\U000E0101",
]
# Borders that only some expressions have: case, marks, the long s, slashes, CJK, runs of digits, letters without case.
BORDERS = [
    "\u0301! \u0301's \u0301\u0302ABC'S !\u0301\u0301;", "HTTPServer getHTTP fooBarBAZ ǅungla ΑΒγδ ИЗтекст", "A\u4e2dBC \u4e2dAAA\u4e2daaa \u0301ABC \u0301\u0302abc !\u0301a a\u0301B\u0302c", "don'\u017fx HE'LLO'S i'Ms",
    "a/b//c!/\n/\r\n//x ;;/\n\n", "2024年12月 価格1,234,567円 ｶﾀｶﾅ ひらがな", "$x=a_b+c[1]<d>`e`;~f^g|h", "٣٤٥٦ ²½ Ⅷ१२३४ 7.5e10", "ქართული հայերեն ᎠᎡ ʔǀ ªº",
    "a\u200bb \u200d\u200d! \u0600x \ue000\ue001y", "\tx\t\ty \x0b\x0cz\x85w\u2028v", "‘quoted’ “text”…—、。！？", "　　全角　空白　", "a  \t", "12345 678901234",
    "hello\n\n\n\nworld\n \n\t\nend\n", "<table>\n<td> x</td>\n</table>", "x\r\ry\n\r\nz",
]


def escape(b):
    return "".join(chr(c) if 33 <= c < 127 and c != 92 else f"\\x{c:02x}" for c in b)


def train_bytes(pre, size):
    import patterns
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.Sequence([*patterns.pre_tokenizer(pre),
                                               pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    t.train_from_iterator([TEXT], trainers.BpeTrainer(vocab_size=size, show_progress=False,
                                                      initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet())))
    return learned(t)


def train_chars(size):
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.Metaspace(replacement="\u2581", prepend_scheme="never")
    t.train_from_iterator([TEXT.replace("\n", " ")], trainers.BpeTrainer(vocab_size=size, show_progress=False))
    return learned(t)


def learned(t):
    import json

    model = json.loads(t.to_str())["model"]
    vocab = [k for k, _ in sorted(model["vocab"].items(), key=lambda kv: kv[1])]
    return vocab, [m if isinstance(m, str) else " ".join(m) for m in model["merges"]]


def byte_level(pre, missing=()):
    vocab, merges = train_bytes(pre, 420)
    vocab = [t for t in vocab if t not in missing]
    assert not any(m in merge for m in missing for merge in merges)
    tokens = [("<|b|>", 3), ("<|a|>", 3)] + [(t, 1) for t in vocab] + [("<tool>", 4)]
    keys = {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": pre, "tokenizer.ggml.bos_token_id": 0,
            "tokenizer.ggml.eos_token_id": 1}
    return keys, tokens, None, merges


def sentence_piece(prefix):
    vocab, merges = train_chars(400)
    product = {m.replace(" ", ""): i for i, m in enumerate(merges)}
    tokens = [("<unk>", 2), ("<s>", 3), ("</s>", 3)] + [(f"<0x{b:02X}>", 6) for b in range(256)]
    tokens += [("<|a|>", 3), ("<|b|>", 3), ("<tool>", 4), ("\n\n", 4), ("\n\n\n", 4)]
    scores = [0.0] * len(tokens)
    for t in vocab:
        tokens.append((t, 1))
        scores.append(-float(product[t]) if t in product else -1000.0)
    keys = {"tokenizer.ggml.model": "llama", "tokenizer.ggml.bos_token_id": 1, "tokenizer.ggml.eos_token_id": 2,
            "tokenizer.ggml.unknown_token_id": 0, "tokenizer.ggml.add_space_prefix": prefix}
    return keys, tokens, scores, []


def gemma4():
    """Runs of line feeds are tokens, most without rules that make them; bytes as SentencePiece spells them."""
    vocab, merges = train_chars(400)
    lines = ["\n" * k for k in range(1, 6)]
    tokens = [("<pad>", 3), ("<eos>", 3), ("<bos>", 3), ("<unk>", 2), ("<|a|>", 3), ("<|b|>", 3), ("<tool>", 4)]
    tokens += [(f"<0x{b:02X}>", 6) for b in range(256)] + [(t, 1) for t in [*lines, *vocab]]
    merges = ["\n \n", *merges]
    keys = {"tokenizer.ggml.model": "gemma4", "tokenizer.ggml.bos_token_id": 2, "tokenizer.ggml.eos_token_id": 1,
            "tokenizer.ggml.unknown_token_id": 3, "tokenizer.ggml.add_bos_token": False}
    return keys, tokens, None, merges


def ids_of(name, keys, tokens, scores, merges, jobs):
    """Ids for (text, special) jobs by the family's reference."""
    import gguf
    import run

    if name in OWN:
        v = run.Vocabulary.__new__(run.Vocabulary)
        v.pre, v.tokens, v.types, v.merges = name, [t for t, _ in tokens], [k for _, k in tokens], merges
        hf = run.HuggingFace(v)
        bos = [keys["tokenizer.ggml.bos_token_id"]] if name == "tekken" else []
        return [(bos if special else []) + hf.encode(text, special) for text, special in jobs]
    path = f"/tmp/vectors-{name}.gguf"
    w = gguf.GGUFWriter(path, "llama")
    for k, x in keys.items():
        {str: w.add_string, bool: w.add_bool, int: w.add_uint32}[type(x)](k, x)
    w.add_token_list([t for t, _ in tokens])
    w.add_token_types([k for _, k in tokens])
    if scores:
        w.add_token_scores(scores)
    if merges:
        w.add_token_merges(merges)
    run.add_tiny_model(w, len(tokens))
    llama = run.Llama(path)
    return [llama.encode(text, special) for text, special in jobs]


def write_family(name, spec):
    keys, tokens, scores, merges = spec
    r = random.Random(7)
    spellings = [t.replace("\u0120", " ").replace("\u010a", "\n").replace("\u2581", " ") for t, k in tokens if k in (1, 4)]
    made = ["".join(r.choices(spellings, k=r.randint(2, 40))) for _ in range(10 if name in FEW else 40)]
    jobs = [(t, s) for t in CASES + BORDERS + made for s in ((False,) if name in FEW and t in CASES else (False, True))]
    ids = ids_of(name, keys, tokens, scores, merges, jobs)
    lines = [f"# Made by make_vectors.py: family {name}; reference "
             + ("HF tokenizers" if name in OWN else "llama.cpp")]
    for k, x in keys.items():
        kind = {str: "s", bool: "b", int: "u"}[type(x)]
        lines.append(f"key {k} {kind} {escape(x.encode()) if kind == 's' else int(x)}")
    for i, (t, k) in enumerate(tokens):
        lines.append(f"token {k} {scores[i] if scores else 0:g} {escape(t.encode())}")
    lines += [f"merge {escape(m.encode())}" for m in merges]
    for (text, special), got in zip(jobs, ids):
        lines.append(f"case {int(special)} {escape(text.encode())} : {' '.join(map(str, got))}".rstrip())
    (OUT / f"{name}.txt").write_text("\n".join(lines) + "\n")
    print(name, len(tokens), "tokens", len(jobs), "cases")


def write_pretok():
    import corpus
    import patterns
    from tokenizers import pre_tokenizers

    lines = ["# Made by make_vectors.py: text TEXT, then pre FAMILY LENGTHS in bytes; reference HF tokenizers' regex engine"]
    texts = CASES + BORDERS + [t[:200] for t in corpus.strings(3, 7000, [" the", "'ll", "\n\n", "  "], code=False)]
    split = {name: pre_tokenizers.Sequence(patterns.pre_tokenizer(name)) for name in patterns.FAMILY}
    for t in texts:
        if not t or any(unicodedata.category(c) == "Cn" for c in t):
            continue
        lines.append(f"text {escape(t.encode())}")
        for name in split:
            pieces = [len(p.encode()) for p, _ in split[name].pre_tokenize_str(t)]
            lines.append(f"pre {name} {' '.join(map(str, pieces))}")
    (OUT / "pretok.txt").write_text("\n".join(lines) + "\n")
    print("pretok", len(lines) - 1, "lines")


def write_nfc():
    r = random.Random(5)
    pool = [chr(c) for c in range(0x30000) if not 0xD800 <= c <= 0xDFFF
            and (unicodedata.combining(chr(c)) or unicodedata.decomposition(chr(c)).strip()[:1] not in ("", "<"))]
    pool += [chr(c) for c in [*range(0x1100, 0x1113), *range(0x1161, 0x1176), *range(0x11A7, 0x11C3), 0xAC00, 0xAC01, 0xD7A3]]
    pool += list("aeoAEO ") * 200
    texts = ["".join(r.choices(pool, k=r.randint(1, 12))) for _ in range(500)]
    texts += ["a" + "\u0301\u0323" * 60, "\u0323" * 40 + "\u0301" * 40 + "\u0323" * 40, "\u1100\u1161\u11a8\u11a8", "\uac00\u11a7"]
    lines = [f"# Made by make_vectors.py: nfc TEXT : NFC; reference Python's unicodedata {unicodedata.unidata_version}"]
    for t in texts:
        lines.append(f"nfc {escape(t.encode())} : {escape(unicodedata.normalize('NFC', t).encode())}")
    (OUT / "nfc.txt").write_text("\n".join(lines) + "\n")
    print("nfc", len(texts), "cases, Unicode", unicodedata.unidata_version)


def main():
    OUT.mkdir(exist_ok=True)
    if unicodedata.unidata_version >= "15.1.0":
        write_nfc()
        return
    write_pretok()
    missing = ("\u00f3", "\u00c1")  # two bytes that the training text has not
    for name in ("gpt-2", "llama-bpe", "qwen2", *sorted(FEW)):
        write_family(name, byte_level(name))
    write_family("smollm", byte_level("smollm", missing))
    write_family("gemma4", gemma4())
    write_family("spm", sentence_piece(True))
    write_family("spm-bare", sentence_piece(False))


if __name__ == "__main__":
    main()
