"""The regular expressions of pre-tokenizers as the models' own tokenizer.json files have them, applied in order.

Written down here once for the vectors (tests/unit/tokenizer/make_vectors.py), the comparison (run.py) and the measurement
(speed.py). FAMILY has the lists, SAME the names of tokenizer.ggml.pre that share one, NFC those whose tokenizer normalizes.
"""
CONTRACTION = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
TAIL = r"\s*[\r\n]+|\s+(?!\S)|\s+"
X = r"[^\r\n\p{L}\p{N}]?"
UPPER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
LOWER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
SIGNS = r" ?[^\s\p{L}\p{N}]+"
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
ASCII_SIGN = r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~]"""
# The letters with case that DeepSeek's first tokenizers name one by one.
CASED = ("A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-ώᾀ-ᾴᾶ-ᾼιῂ-ῄῆ-ῌῐ-ΐῖ-Ίῠ-Ῥῲ-ῴῶ-ῼ"
         "ℂℇℊ-ℓℕℙ-ℝℤΩℨK-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃")
CJK1 = r"[一-龥ࠀ-一가-퟿]+"


def cl100k(digits, word=r"\p{L}", contraction=CONTRACTION + "|", newlines=r"[\r\n]*"):
    return (rf"{contraction}{X}{'[' + word + ']' if len(word) > 5 else word}+|\p{{N}}{digits}| ?[^\s{word}\p{{N}}]+{newlines}|"
            + TAIL)


def o200k(digits, contraction):
    c = f"{CONTRACTION}?" if contraction else ""
    return rf"{X}{UPPER}*{LOWER}+{c}|{X}{UPPER}+{LOWER}*{c}|\p{{N}}{digits}|{SIGNS}[\r\n/]*|{TAIL}"


FAMILY = {
    "gpt-2": [GPT2],
    "smollm": [r"\p{N}", GPT2],
    "falcon": [r"[\p{P}\$\+<=>\^~\|`]+", GPT2, r"[0-9][0-9][0-9]"],
    "llama-bpe": [cl100k("{1,3}")],
    "qwen2": [cl100k("")],
    "qwen35": [cl100k("", r"\p{L}\p{M}")],
    "minicpm5": [r"\p{N}{1,3}", cl100k("+")],
    "seed-coder": [cl100k("", newlines="").replace(r"[^\s\p{L}\p{N}]", r"[^\s\p{L}\p{N}\r\n]")],
    "gpt-4o": [o200k("{1,3}", True)],
    "tekken": [o200k("", False)],
    "deepseek-v3": [r"\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+",
                    ASCII_SIGN + r"[A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|" + TAIL],
    "deepseek-llm": [r"[\r\n]", rf"\s?[{CASED}]+", r"\s?[!-/:-~！-／：-～‘-‟　-。]+", r"\s+$", CJK1, r"\p{N}+"],
    "deepseek-coder": [r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", CJK1, r"\p{N}"],
    "gemma4": [r"[^\n]+|[\n]+"],
}
SAME = {
    "gpt-2": ["mpt", "olmo", "mellum", "a.x-4.0", "trillion"],
    "smollm": ["starcoder", "refact", "command-r", "minerva-7b"],
    "llama-bpe": ["llama3", "llama-v3", "falcon3", "pixtral", "midm-2.0", "lfm2", "smaug-bpe", "dbrx"],
    "qwen2": ["deepseek-r1-qwen", "megrez", "kormo", "f2llmv2"],
    "gpt-4o": ["llama4"],
}
FAMILY_OF = {name: name for name in FAMILY} | {other: name for name, others in SAME.items() for other in others}
NFC = {"qwen2", "qwen35", "deepseek-r1-qwen"}
IGNORE_MERGES = {"llama-bpe", "llama3", "llama-v3", "falcon3", "pixtral", "midm-2.0", "lfm2", "minicpm5", "tekken"}


def of(pre):
    return FAMILY[FAMILY_OF[pre]]


def pre_tokenizer(pre):
    """HF's steps for a name, without the byte-level one."""
    from tokenizers import Regex, pre_tokenizers

    return [pre_tokenizers.Split(Regex(p), "isolated") for p in of(pre)]


def byte_level(pre, vocab, merges):
    """HF's tokenizer for a byte-level vocabulary (token to id) under a name."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    t = Tokenizer(models.BPE(vocab=vocab, merges=merges, ignore_merges=pre in IGNORE_MERGES))
    if pre in NFC:
        t.normalizer = normalizers.NFC()
    t.pre_tokenizer = pre_tokenizers.Sequence(
        [*pre_tokenizer(pre), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    return t


def chars(vocab, merges, unk, prefix=False):
    """HF's tokenizer over characters with spaces as U+2581 and byte fallback: Gemma; with `prefix` Llama 2."""
    from tokenizers import Tokenizer, models, normalizers

    t = Tokenizer(models.BPE(vocab=vocab, merges=merges, byte_fallback=True, fuse_unk=True, unk_token=unk))
    steps = [normalizers.Prepend("\u2581")] if prefix else []
    t.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", "\u2581")])
    return t
