"""How a tiny golden is made of a row: see make_tiny.py, archs/*.py.

A row is a function of a Sizes that returns a Tiny: a transformers config and what GGUF calls its parts. Everything random
is random here: norms, biases, sinks and the like too, since ones and zeros hide bugs. Weights are rounded to what the file
stores before transformers sees them, so that a quantized twin's golden is the dequantized model's.
"""
import dataclasses
import struct
import zlib

import gguf
import numpy as np
import torch

CTX = 1024  # a window's long sequence (tests/invariance) is as long as that
CHATML = ("{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>'"
          " + '\\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}")
F32, F16, Q4_0, Q5_1, Q8_0, MXFP4 = (gguf.GGMLQuantizationType[t] for t in ("F32", "F16", "Q4_0", "Q5_1", "Q8_0", "MXFP4"))


def as_f32(name):
    """The type of a matrix: see Sizes.type."""
    return F32


def as_f16(name):
    return F16


def mixed(name):
    """Several types in one file, as in real ones."""
    return Q8_0 if name.startswith(("token_embd", "output")) else Q5_1 if "_v" in name or "down" in name else Q4_0


@dataclasses.dataclass
class Sizes:
    """What of a row's shape is not the architecture's; `type`: GGUF name of a matrix -> its type."""
    suffix: str
    d: int
    ff: int
    head: int
    vocab: int
    lengths: tuple
    type: object
    ctx: int = CTX
    gain: float = 1.5  # of matrices: how sharp attention is, and so how far the pages' rounding goes


# Odd sizes (of nothing a multiple of 8 but by chance) in F32, and the quantized twin, whose rows are whole blocks.
ODD = Sizes("", 60, 92, 20, 271, (1, 7, 70), as_f32)
TWIN = Sizes("-q", 64, 96, 32, 288, (5, 41), mixed)
ODD_TOO = dataclasses.replace(ODD, suffix="-odd")  # of rows whose plain name is taken
# Of the first rows: digests of their bits are written down since before there were others.
FIRST = [Sizes("", 64, 96, 16, 320, (1, 7, 33, 64), t, 4096, 2.0) for t in (as_f32, as_f16)]


@dataclasses.dataclass
class Tiny:
    arch: str  # general.architecture
    config: object
    model: type
    kv: dict = dataclasses.field(default_factory=dict)  # metadata that metadata() lacks or has otherwise, without "ARCH."
    names: dict = dataclasses.field(default_factory=dict)  # as NAMES, for this row
    # (name, array) of the model's state -> [(GGUF name, array)], or None: renamed only. A matrix may be split, its rows may
    # be put into another order, and turned: what is quantized together must stay together.
    tensors: object = lambda name, a: None
    init: object = lambda name, r: None  # (name, standard normal tensor) -> a weight's values; None: as randomize says
    plus: tuple = ()  # parts of names of norms to which the model adds 1; the file holds the sum
    f32: tuple = ()  # parts of GGUF names of what is no matrix for all its dimensions: routers, convolutions
    turned: tuple = ()  # ends of names in the model's state of matrices whose inputs are the last but one dimension
    twin: dict = dataclasses.field(default_factory=dict)  # part of a GGUF name -> its type in the quantized twin
    pre: str = "smollm"
    seed: int = None  # None: from the name
    template: str = CHATML


NAMES = {  # of a layer; of the whole
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "self_attn.out_proj": "attn_output", "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down", "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    "pre_feedforward_layernorm": "ffn_norm", "post_feedforward_layernorm": "post_ffw_norm",
    "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output",
}
ROWS = {}  # file name -> function that makes the Tiny, Sizes


def row(*sizes):
    """Declares a row; without sizes: ODD and TWIN."""
    def declare(make):
        for s in sizes or (ODD, TWIN):
            ROWS[make.__name__.replace("_", "-") + s.suffix] = (make, s)
        return make
    return declare


def permute(m, heads):
    """HF's half-split rotary rows to GGUF's interleaved ones (llama): of a matrix or a bias."""
    return m.reshape(heads, 2, m.shape[0] // heads // 2, -1).swapaxes(1, 2).reshape(m.shape)


# ---- weights ----

def gguf_tensors(t, name, a):
    """[(GGUF name, array)] of one weight of the model's state."""
    out = t.tensors(name, a)
    if out is not None:
        return out
    base, suffix = name.rsplit(".", 1)
    names = {**NAMES, **t.names}
    if base in names:
        return [(f"{names[base]}.{suffix}", a)]
    layer, rest = base.removeprefix("model.layers.").split(".", 1)
    return [(f"blk.{layer}.{names[rest]}.{suffix}", a)]


def type_of(t, s, name, a):
    if a.ndim < 2 or any(part in name for part in t.f32):
        return F32
    own = [q for part, q in t.twin.items() if part in name and s.type is mixed]
    return own[0] if own else s.type(name)


def stored(a, qtype):
    """What a file keeps of a: as it reads it again, f32."""
    return gguf.quants.dequantize(gguf.quants.quantize(a, qtype), qtype)


def rounded(t, s, name, p):
    """p, a weight of the model, as the file stores it."""
    a = p.numpy()
    turn = name.endswith(t.turned)
    types = {type_of(t, s, n, x) for n, x in gguf_tensors(t, name, a)}
    assert len(types) == 1, f"{name} becomes tensors of different types"
    out = stored(np.ascontiguousarray(a.swapaxes(-1, -2) if turn else a), types.pop())
    return torch.from_numpy(np.ascontiguousarray(out.swapaxes(-1, -2) if turn else out))


def randomize(model, t, s, seed):
    g = torch.Generator().manual_seed(seed)
    kept = model.state_dict()
    weights = list(model.named_parameters()) + [(n, b) for n, b in model.named_buffers() if n in kept]
    with torch.no_grad():
        for name, p in weights:
            r = torch.randn(p.shape, generator=g)
            own = t.init(name, r)
            if own is not None:
                p.copy_(own)
            elif p.ndim == 1:
                mean = 0.0 if any(part in name for part in t.plus) else 1.0
                p.copy_(mean + 0.2 * r if "norm" in name else 0.1 * r)
            else:
                inputs = p.shape[-2 if name.endswith(t.turned) else -1]
                p.copy_(r * (1.0 if "embed" in name else s.gain) / inputs ** 0.5)
            if p.ndim > 1:
                p.copy_(rounded(t, s, name, p))


# ---- files ----

def byte_alphabet():
    """GPT-2's byte <-> printable code point table."""
    keep = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
    out, extra = {}, 0
    for b in range(256):
        out[b] = chr(b) if b in keep else chr(256 + extra)
        extra += b not in keep
    return out


def add_tokenizer(w, t, vocab):
    alphabet = byte_alphabet()
    tokens = [alphabet[b] for b in range(256)]
    merges = ["t h", "th e", "i n", "e r", "a n", "o n", "r e", "Ġ t", "Ġ a", "Ġt h"]
    tokens += [m.replace(" ", "") for m in merges]
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    types = [1] * len(tokens) + [3] * len(special)
    tokens += special
    assert vocab >= len(tokens), f"a vocabulary of {vocab}; {len(tokens)} are needed"
    while len(tokens) < vocab:
        tokens.append(f"<|unused{len(tokens)}|>")
        types.append(5)
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre(t.pre)
    w.add_token_list(tokens)
    w.add_token_types(types)
    w.add_token_merges(merges)
    w.add_bos_token_id(tokens.index("<|im_start|>"))
    w.add_eos_token_id(tokens.index("<|im_end|>"))
    w.add_chat_template(t.template)


def metadata(t, s):
    c = t.config
    kv = {"context_length": s.ctx, "embedding_length": c.hidden_size, "block_count": c.num_hidden_layers,
          "feed_forward_length": getattr(c, "intermediate_size", None),
          "attention.layer_norm_rms_epsilon": getattr(c, "rms_norm_eps", None),
          "attention.head_count": c.num_attention_heads, "attention.head_count_kv": c.num_key_value_heads}
    return {k: v for k, v in {**kv, **t.kv}.items() if v is not None}


def add_kv(w, key, v):
    if isinstance(v, (list, tuple)):
        w.add_array(key, list(v))
    elif isinstance(v, bool):
        w.add_bool(key, v)
    elif isinstance(v, float):
        w.add_float32(key, v)
    elif isinstance(v, str):
        w.add_string(key, v)
    else:
        w.add_uint32(key, v)


def write_gguf(path, name, t, s, model):
    w = gguf.GGUFWriter(path, t.arch)
    w.add_name(f"tiny-{name}")
    for key, v in metadata(t, s).items():
        add_kv(w, f"{t.arch}.{key}", v)
    add_tokenizer(w, t, t.config.vocab_size)
    for hf, p in model.state_dict().items():
        if t.config.tie_word_embeddings and hf == "lm_head.weight":
            continue
        for out, a in gguf_tensors(t, hf, p.detach().float().numpy()):
            a = np.ascontiguousarray(a + 1.0 if any(part in hf for part in t.plus) else a, np.float32)
            qtype = type_of(t, s, out, a)
            data = gguf.quants.quantize(a, qtype)
            assert np.array_equal(gguf.quants.dequantize(data, qtype), a), f"{out}: stored otherwise than transformers has it"
            w.add_tensor(out, data, raw_dtype=qtype)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def check_routers(name, t, model, ids):
    """A close choice of an expert is one that rounding may turn: another seed then."""
    k = t.config.num_experts_per_tok
    with torch.no_grad():
        routers = model(ids, use_cache=False, output_router_logits=True).router_logits
    for logits in routers:
        given = torch.allclose(logits.sum(-1), torch.ones(())) and bool((logits >= 0).all())  # as probabilities (gemma4)
        p = (logits if given else torch.softmax(logits, -1)).sort(-1, descending=True).values
        margin = (p[:, k - 1] - p[:, k]).min().item()
        assert margin > 1e-3, f"{name}: the router's choices are as close as {margin:.1e}"


def write_golden(path, name, t, s, model, seed):
    rng = np.random.default_rng(seed)
    vocab = t.config.vocab_size
    with open(path, "wb") as f:
        f.write(struct.pack("<III", 0x4C475043, len(s.lengths), vocab))
        for n in s.lengths:
            ids = rng.integers(0, vocab, n)
            if hasattr(t.config, "num_experts_per_tok"):
                check_routers(name, t, model, torch.tensor(ids)[None])
            with torch.no_grad():
                logits = model(torch.tensor(ids)[None], use_cache=False).logits[0].float().numpy()
            f.write(struct.pack("<I", n) + ids.astype("<i4").tobytes() + logits.astype("<f4").tobytes())
            print(name, n, "logits", logits.shape, "std", logits.std().round(3))


def make(folder, name):
    """The two files of a row."""
    fn, s = ROWS[name]
    t = fn(s)
    seed = zlib.crc32(name.encode()) if t.seed is None else t.seed
    t.config._attn_implementation = "eager"
    model = t.model(t.config).eval().float()
    randomize(model, t, s, 1000 + seed)
    model.tie_weights()
    write_golden(f"{folder}/{name}.bin", name, t, s, model, seed)
    write_gguf(f"{folder}/{name}.gguf", name, t, s, model)
