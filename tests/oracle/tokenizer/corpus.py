"""Strings to compare tokenizers on: fuzzed Unicode, code, scripts, emoji, white space, special-token look-alikes.

Nothing is downloaded. `strings(seed, min_bytes, pieces)` yields str without surrogates; `pieces` are spellings of the
vocabulary at hand, so that odd tokens are hit as well. All follows from the seed but the code, which is cut from the
machine's Python library, C headers and this tree; `code=False` leaves it out.
"""
import pathlib
import random
import sysconfig
import unicodedata

WHITE = " \t\n\r\v\f\x85\xa0\u1680\u2000\u2003\u2007\u200a\u2028\u2029\u202f\u205f\u3000"
NEAR_WHITE = "\u200b\u200c\u200d\ufeff\u180e\u2060\x1c\x1f\x00"
CONTRACTIONS = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d", "'S", "'T", "'RE", "'Ve", "'M", "'lL", "'D", "'x", "'",
                "''s", "\u2019s", "'r", "'l", "'v", "'\u017f", "'\u212a"]
LOOKALIKE = ["<|im_start|>", "<|im_end|>", "<|endoftext|>", "<s>", "</s>", "<unk>", "<bos>", "<eos>", "<pad>",
             "<start_of_turn>", "<end_of_turn>", "<|begin_of_text|>", "<|eot_id|>", "<|user|>", "<|end|>", "<0x0A>",
             "<0xFF>", "<|", "|>", "<", ">", "</", "<h1>", "</h1>", "\u2581", "\u2581\u2581", "[toxicity]", "<unused7>",
             "<|im_start", "im_end|>", "<|im_<|im_end|>"]
EMOJI = ["\U0001F600", "\U0001F468\u200d\U0001F469\u200d\U0001F467\u200d\U0001F466", "\U0001F1E9\U0001F1EA",
         "\U0001F44D\U0001F3FD", "\u2764\ufe0f", "\U0001F3F3\ufe0f\u200d\U0001F308", "1\ufe0f\u20e3", "\U0001F9D1\u200d\U0001F4BB",
         "\U0001F9DC\U0001F3FB\u200d\u2640\ufe0f", "\U0001FAE8", "\u267b\ufe0f"]
SCRIPTS = {
    "latin": (0x41, 0x24F), "greek": (0x370, 0x3FF), "cyrillic": (0x400, 0x4FF), "hebrew": (0x591, 0x5F4),
    "arabic": (0x600, 0x6FF), "arabic_forms": (0xFB50, 0xFEFC), "devanagari": (0x900, 0x97F), "bengali": (0x980, 0x9FE),
    "tamil": (0xB82, 0xBFA), "thai": (0xE01, 0xE5B), "tibetan": (0xF00, 0xFDA), "georgian": (0x10A0, 0x10FF),
    "hangul_jamo": (0x1100, 0x11FF), "kana": (0x3041, 0x30FF), "cjk": (0x4E00, 0x9FFF), "hangul": (0xAC00, 0xD7A3),
    "cjk_b": (0x20000, 0x20FFF), "combining": (0x300, 0x36F), "fullwidth": (0xFF01, 0xFFEE), "math": (0x1D400, 0x1D7FF),
}
COMMON = "的一是不了在人有我他这个们中来上大为和国地到以说时要就出会可也你对生能而子那得于着下自之年过发后作里"


def _scalar(r, lo=0, hi=0x10FFFF):
    while True:
        c = r.randint(lo, hi)
        if not 0xD800 <= c <= 0xDFFF:
            return chr(c)


def _by_category():
    table = {}
    for c in range(0x20000):
        if not 0xD800 <= c <= 0xDFFF:
            table.setdefault(unicodedata.category(chr(c)), []).append(chr(c))
    return table


def _files():
    std = pathlib.Path(sysconfig.get_paths()["stdlib"])
    out = sorted(std.glob("*.py")) + sorted(pathlib.Path("/usr/include").glob("*.h"))
    out += sorted(pathlib.Path(__file__).resolve().parents[3].glob("*/*.c"))
    return [f for f in out if f.is_file() and 2000 < f.stat().st_size < 400000]


def strings(seed, min_bytes, pieces, code=True):
    r = random.Random(seed)
    cats = _by_category()
    names = sorted(cats)
    files = _files() if code else []
    texts = {}
    words = ["the", "Hello", "world", "don", "I", "is", "über", "naïve", "tokenizer", "x", "HTTP", "e\u0301", "o\u0308"]

    def length(hi):
        return int(r.paretovariate(1.1) * 3) % hi + 1

    def script():
        lo, hi = SCRIPTS[r.choice(sorted(SCRIPTS))]
        return "".join(" " if r.random() < 0.12 else _scalar(r, lo, hi) for _ in range(length(300)))

    def source():
        f = r.choice(files)
        if f not in texts:
            texts[f] = f.read_text(encoding="utf-8", errors="ignore")
        n = r.randint(20, 1500)
        at = r.randint(0, max(0, len(texts[f]) - n))
        return texts[f][at : at + n]

    def white():
        out = []
        for _ in range(length(40)):
            out.append(r.choice(WHITE + "    \n\n\t") * (length(60) if r.random() < 0.5 else 1))
            if r.random() < 0.4:
                out.append(r.choice(words + list(NEAR_WHITE) + ["1", "!", "世"]))
        return "".join(out)

    def category():
        out = []
        for _ in range(length(80)):
            out += r.choices(cats[r.choice(names)], k=length(8))
            if r.random() < 0.3:
                out.append(r.choice(" \n'"))
        return "".join(out)

    def prose():
        sep = [" ", " ", " ", ", ", ". ", "\n", "  ", " - ", "…", "? "]
        return "".join(r.choice(words) + r.choice(CONTRACTIONS + [""] * 20) + r.choice(sep) for _ in range(length(120)))

    def numbers():
        cs = "0123456789" * 4 + "٠١٢٣४५६七²³½Ⅷ①,.-+eE"
        return "".join(r.choice(cs) if r.random() < 0.9 else " " for _ in range(length(120)))

    def run():
        return r.choice(["a", " ", "\n", "0", "=", "世", "é", "\u0301", "ab", "\t", "-", "😀", "\u2581", "'", "\r\n"]) * r.randint(1, 400)

    makers = [
        (2, lambda: "".join(_scalar(r) for _ in range(length(200)))),
        (2, lambda: "".join(_scalar(r, 0, 0xFFFF) for _ in range(length(200)))),
        (4, script),
        (3 if code else 0, source),
        (3, white),
        (3, category),
        (2, prose),
        (1, numbers),
        (1, run),
        (1, lambda: "".join(r.choice(EMOJI + [" ", "a", "!"]) for _ in range(length(60)))),
        (1, lambda: "".join(r.choice(COMMON + "。，、 \nA1") for _ in range(length(400)))),
        (2, lambda: "".join(r.choice(LOOKALIKE + words + [" ", "\n", "  "]) for _ in range(length(30)))),
        (3, lambda: "".join(r.choice(pieces) for _ in range(length(80)))),
    ]
    weights = [w for w, _ in makers]
    total = 0
    while total < min_bytes:
        s = r.choices(makers, weights)[0][1]()
        if r.random() < 0.25:
            s += r.choices(makers, weights)[0][1]()
        s = s.encode("utf-8", "ignore").decode("utf-8")[:6000]
        if s:
            total += len(s.encode("utf-8"))
            yield s
