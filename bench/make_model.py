#!/usr/bin/env python3
"""A model of real shapes with random weights, for measurements of loading and of speed: GGUF v3.

    make_model.py SOURCE.gguf OUT.gguf [SHAPE [TEMPLATE.jinja] | LAYERS EMBD FF HEADS KV_HEADS VOCAB]

SHAPE: llama-3.2-1b (0.76 GB; the default, and what six numbers change), qwen3-0.6b, moe-16x2, qwen35-0.8b,
gemma4-e2b (2.8 GB), gpt-oss-20b-4 (four of its 24 layers, 3.1 GB). The tokenizer is the one of SOURCE, its vocabulary padded with unused tokens, its chat template TEMPLATE's text where that is given. The same input gives the same bytes. Standard library only.
"""
import random
import struct
import sys

F32, Q4_0, Q8_0, Q4_K, Q6_K, MXFP4 = 0, 2, 8, 12, 14, 39
BLOCK = {Q4_0: (32, 18), Q8_0: (32, 34), Q4_K: (256, 144), Q6_K: (256, 210), MXFP4: (32, 17), F32: (1, 4)}
SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
U32, F32_KV, BOOL, STR, ARR, I32 = 4, 6, 7, 8, 9, 5


class Reader:
    def __init__(self, data):
        self.d, self.at = data, 0

    def take(self, fmt):
        v = struct.unpack_from("<" + fmt, self.d, self.at)[0]
        self.at += struct.calcsize(fmt)
        return v

    def string(self):
        n = self.take("Q")
        self.at += n
        return bytes(self.d[self.at - n:self.at])

    def skip(self, kind):
        if kind == STR:
            self.string()
        elif kind == ARR:
            of, n = self.take("I"), self.take("Q")
            for _ in range(n) if of in (STR, ARR) else ():
                self.skip(of)
            self.at += 0 if of in (STR, ARR) else n * SIZES[of]
        else:
            self.at += SIZES[kind]


def string(b):
    return struct.pack("<Q", len(b)) + b


def tokenizer_keys(path):
    """{key: (type, bytes)} of tokenizer.*."""
    with open(path, "rb") as f:
        r = Reader(f.read(64 << 20))
    assert r.take("I") == 0x46554747 and r.take("I") in (2, 3)
    r.take("Q")
    keys = {}
    for _ in range(r.take("Q")):
        name, kind = r.string(), r.take("I")
        begin = r.at
        r.skip(kind)
        if name.startswith(b"tokenizer."):
            keys[name] = (kind, bytes(r.d[begin:r.at]))
    return keys


def padded(value, vocab, pad):
    """An array value with its count raised to vocab; pad(i) is element i."""
    of, n = struct.unpack_from("<IQ", value)
    return struct.pack("<IQ", of, vocab) + value[12:] + b"".join(pad(i) for i in range(n, vocab))


def value(v):
    """A metadata value: text, a float, an int, or a list of ints or of bools."""
    if isinstance(v, str):
        return STR, string(v.encode())
    if isinstance(v, list) and isinstance(v[0], bool):
        return ARR, struct.pack(f"<IQ{len(v)}?", BOOL, len(v), *v)
    if isinstance(v, list):
        return ARR, struct.pack(f"<IQ{len(v)}i", I32, len(v), *v)
    return (F32_KV, struct.pack("<f", v)) if isinstance(v, float) else (U32, struct.pack("<I", v))


def metadata(path, shape):
    keys = tokenizer_keys(path)
    vocab = shape["keys"]["vocab_size"]
    for name, pad in ((b"tokenizer.ggml.tokens", lambda i: string(b"<|unused%d|>" % i)),
                      (b"tokenizer.ggml.token_type", lambda i: struct.pack("<i", 5)),
                      (b"tokenizer.ggml.scores", lambda i: struct.pack("<f", 0.0))):
        if name in keys:
            keys[name] = (ARR, padded(keys[name][1], vocab, pad))
    keys[b"general.architecture"] = value(shape["arch"])
    keys[b"general.file_type"] = value(shape["file_type"])
    for k, v in shape["keys"].items():
        keys[f"{shape['arch']}.{k}".encode()] = value(v)
    return keys


# ---- shapes: metadata, and (name, dimensions, type) of every tensor ----

def keys_of(layers, d, ff, heads, kv, head, vocab, ctx, theta, eps):
    return {"block_count": layers, "context_length": ctx, "embedding_length": d, "feed_forward_length": ff,
            "attention.head_count": heads, "attention.head_count_kv": kv, "rope.dimension_count": head,
            "vocab_size": vocab, "rope.freq_base": theta, "attention.layer_norm_rms_epsilon": eps}


def heads_of(keys, head):
    return {**keys, "attention.key_length": head, "attention.value_length": head}


def more(i, layers):
    """Which layers' attn_v and ffn_down have more bits in a Q4_K_M file."""
    return i < layers // 8 or i >= 7 * layers // 8 or (i - layers // 8) % 3 == 2


def llama(layers=16, d=2048, ff=8192, heads=32, kv=8, vocab=128256):
    """Every matrix Q4_0, the (tied) embedding Q6_K."""
    rows = [("token_embd", (d, vocab), Q6_K), ("output_norm", (d,), F32)]
    for i in range(layers):
        rows += [(f"blk.{i}.{name}", dims, F32 if len(dims) == 1 else Q4_0) for name, dims in (
            ("attn_norm", (d,)), ("attn_q", (d, d)), ("attn_k", (d, kv * d // heads)), ("attn_v", (d, kv * d // heads)),
            ("attn_output", (d, d)), ("ffn_norm", (d,)), ("ffn_gate", (d, ff)), ("ffn_up", (d, ff)), ("ffn_down", (ff, d)))]
    return {"arch": "llama", "file_type": 2, "tensors": rows,
            "keys": keys_of(layers, d, ff, heads, kv, d // heads, vocab, 131072, 500000.0, 1e-5)}


def attention(d, heads, kv, head, v_type, kind, gated=1):
    return [("attn_norm", (d,), F32), ("attn_q", (d, gated * heads * head), kind), ("attn_k", (d, kv * head), kind),
            ("attn_v", (d, kv * head), v_type), ("attn_q_norm", (head,), F32), ("attn_k_norm", (head,), F32),
            ("attn_output", (heads * head, d), kind)]


def qwen3():
    layers, d, ff, heads, kv, head, vocab = 28, 1024, 3072, 16, 8, 128, 151936
    rows = [("token_embd", (d, vocab), Q6_K), ("output_norm", (d,), F32)]
    for i in range(layers):
        big = Q6_K if more(i, layers) else Q4_K
        rows += [(f"blk.{i}.{n}", dims, t) for n, dims, t in attention(d, heads, kv, head, big, Q4_K) + [
            ("ffn_norm", (d,), F32), ("ffn_gate", (d, ff), Q4_K), ("ffn_up", (d, ff), Q4_K), ("ffn_down", (ff, d), big)]]
    keys = heads_of(keys_of(layers, d, ff, heads, kv, head, vocab, 40960, 1e6, 1e-6), head)
    return {"arch": "qwen3", "file_type": 15, "tensors": rows, "keys": keys}


def moe():
    """16 experts of which 2 run, in Q4_0."""
    layers, d, ff, heads, kv, head, vocab, experts = 16, 1024, 1536, 16, 4, 128, 49152, 16
    rows = [("token_embd", (d, vocab), Q6_K), ("output_norm", (d,), F32)]
    for i in range(layers):
        rows += [(f"blk.{i}.{n}", dims, t) for n, dims, t in attention(d, heads, kv, head, Q4_0, Q4_0) + [
            ("ffn_norm", (d,), F32), ("ffn_gate_inp", (d, experts), F32), ("ffn_gate_exps", (d, ff, experts), Q4_0),
            ("ffn_up_exps", (d, ff, experts), Q4_0), ("ffn_down_exps", (ff, d, experts), Q4_0)]]
    keys = {**heads_of(keys_of(layers, d, ff, heads, kv, head, vocab, 32768, 1e6, 1e-6), head),
            "expert_count": experts, "expert_used_count": 2, "expert_feed_forward_length": ff}
    return {"arch": "qwen3moe", "file_type": 2, "tensors": rows, "keys": keys}


def qwen35():
    layers, d, ff, heads, kv, head, vocab = 24, 1024, 3584, 8, 2, 256, 248320
    groups, ranks, state = 16, 16, 128
    inner = ranks * state
    wide = 2 * groups * state + inner
    rows = [("token_embd", (d, vocab), Q6_K), ("output_norm", (d,), F32)]
    for i in range(layers):
        big = Q6_K if more(i, layers) else Q4_K
        mixer = attention(d, heads, kv, head, big, Q4_K, 2) if i % 4 == 3 else [
            ("attn_norm", (d,), F32), ("attn_qkv", (d, wide), Q4_K), ("attn_gate", (d, inner), Q4_K),
            ("ssm_conv1d", (4, wide), F32), ("ssm_dt.bias", (ranks,), F32), ("ssm_a", (ranks,), F32),
            ("ssm_beta", (d, ranks), F32), ("ssm_alpha", (d, ranks), F32), ("ssm_norm", (state,), F32),
            ("ssm_out", (inner, d), Q4_K)]
        rows += [(f"blk.{i}.{n}", dims, t) for n, dims, t in mixer + [
            ("post_attention_norm", (d,), F32), ("ffn_gate", (d, ff), Q4_K), ("ffn_up", (d, ff), Q4_K),
            ("ffn_down", (ff, d), big)]]
    keys = {**heads_of(keys_of(layers, d, ff, heads, kv, 64, vocab, 262144, 1e7, 1e-6), head),
            "rope.dimension_sections": [11, 11, 10, 0], "full_attention_interval": 4, "ssm.conv_kernel": 4,
            "ssm.state_size": state, "ssm.group_count": groups, "ssm.time_step_rank": ranks, "ssm.inner_size": inner}
    return {"arch": "qwen35", "file_type": 15, "tensors": rows, "keys": keys}


def gemma4():
    """E2B: embeddings of each layer's own, full layers with twice the head size, and 20 layers that share caches."""
    layers, d, heads, window, full, vocab, own, shared = 35, 1536, 8, 256, 512, 262144, 256, 20
    ff = [6144 * (1 + (i >= layers - shared)) for i in range(layers)]
    rows = [("token_embd", (d, vocab), Q6_K), ("output_norm", (d,), F32), ("rope_freqs", (full // 2,), F32),
            ("per_layer_token_embd", (own * layers, vocab), Q4_0), ("per_layer_model_proj", (d, own * layers), Q4_0),
            ("per_layer_proj_norm", (own,), F32)]
    for i in range(layers):
        head = full if i % 5 == 4 else window
        rows += [(f"blk.{i}.{n}", dims, t) for n, dims, t in attention(d, heads, 1, head, Q4_0, Q4_0)
                 if i < layers - shared or n not in ("attn_k", "attn_v", "attn_k_norm")]
        rows += [(f"blk.{i}.{n}", dims, F32 if len(dims) == 1 else Q4_0) for n, dims in (
            ("post_attention_norm", (d,)), ("ffn_norm", (d,)), ("ffn_gate", (d, ff[i])), ("ffn_up", (d, ff[i])),
            ("ffn_down", (ff[i], d)), ("post_ffw_norm", (d,)), ("inp_gate", (d, own)), ("proj", (own, d)),
            ("post_norm", (d,)), ("layer_output_scale", (1,)))]
    keys = {**heads_of(keys_of(layers, d, ff, heads, 1, full, vocab, 131072, 1e6, 1e-6), full),
            "attention.key_length_swa": window, "attention.value_length_swa": window, "rope.dimension_count_swa": window,
            "rope.freq_base_swa": 1e4, "attention.sliding_window": 512, "attention.shared_kv_layers": shared,
            "attention.sliding_window_pattern": [i % 5 != 4 for i in range(layers)],
            "embedding_length_per_layer_input": own, "final_logit_softcapping": 30.0}
    return {"arch": "gemma4", "file_type": 2, "tensors": rows, "keys": keys}


def gptoss():
    """The 20B's layers, four of them: experts in MXFP4, the rest in Q8_0."""
    layers, d, ff, heads, kv, head, vocab, experts = 4, 2880, 2880, 64, 8, 64, 201088, 32
    rows = [("token_embd", (d, vocab), Q8_0), ("output", (d, vocab), Q8_0), ("output_norm", (d,), F32)]
    wide = (("attn_q", d, heads * head), ("attn_k", d, kv * head), ("attn_v", d, kv * head), ("attn_output", heads * head, d))
    for i in range(layers):
        rows += [(f"blk.{i}.{n}", dims, t) for n, dims, t in (
            ("attn_norm", (d,), F32), ("post_attention_norm", (d,), F32), ("attn_sinks", (heads,), F32),
            *((n, (k, m), Q8_0) for n, k, m in wide), *((f"{n}.bias", (m,), F32) for n, _, m in wide),
            ("ffn_gate_inp", (d, experts), F32), ("ffn_gate_inp.bias", (experts,), F32),
            *((f"ffn_{n}_exps", (d, ff, experts), MXFP4) for n in ("gate", "up", "down")),
            *((f"ffn_{n}_exps.bias", (ff, experts), F32) for n in ("gate", "up", "down")))]
    keys = {**heads_of(keys_of(layers, d, ff, heads, kv, head, vocab, 131072, 150000.0, 1e-5), head),
            "attention.sliding_window": 128, "rope.scaling.type": "yarn", "rope.scaling.factor": 32.0,
            "rope.scaling.original_context_length": 4096, "expert_count": experts, "expert_used_count": 4,
            "expert_feed_forward_length": ff}
    return {"arch": "gpt-oss", "file_type": 38, "tensors": rows, "keys": keys}


SHAPES = {"llama-3.2-1b": llama, "qwen3-0.6b": qwen3, "moe-16x2": moe, "qwen35-0.8b": qwen35,
          "gemma4-e2b": gemma4, "gpt-oss-20b-4": gptoss}


# ---- bytes ----

def chunk(kind, rng, blocks):
    """`blocks` blocks of random codes with a sane scale."""
    size = BLOCK[kind][1]
    out = bytearray(rng.randbytes(blocks * size))
    at, scale = {Q4_0: (0, struct.pack("<e", 0.004)), Q8_0: (0, struct.pack("<e", 0.0003)), MXFP4: (0, b"\x77"), Q4_K: (0, struct.pack("<ee", 1e-4, 7.5e-4)),
                 Q6_K: (size - 2, struct.pack("<e", 0.0002))}[kind]
    for k, byte in enumerate(scale):
        out[at + k::size] = bytes([byte]) * blocks
    return bytes(out)


def floats(name, n, rng):
    """Norms and scales are ones, routers and the like small numbers, decays negative."""
    if name == "rope_freqs.weight":  # a quarter of the dimensions turns
        return struct.pack(f"<{n}f", *[1.0] * (n // 4), *[1e30] * (n - n // 4))
    if "norm" in name or "scale" in name:
        return struct.pack(f"<{n}f", *[1.0] * n)
    if name.endswith("ssm_a"):
        return struct.pack(f"<{n}f", *[-rng.uniform(0.1, 4.0) for _ in range(n)])
    return struct.pack(f"<{n}f", *[rng.gauss(0, 0.05) for _ in range(n)])


def main():
    source, path, *rest = sys.argv[1:]
    shape = SHAPES[rest[0]]() if rest and rest[0] in SHAPES else llama(*map(int, rest))
    rng = random.Random(1)
    keys = metadata(source, shape)
    if len(rest) == 2:
        with open(rest[1], "rb") as f:
            keys[b"tokenizer.chat_template"] = (STR, string(f.read()))
    rows = [(name if name.endswith(".bias") or name.endswith("ssm_a") else name + ".weight", dims, kind)
            for name, dims, kind in shape["tensors"]]
    head, at = b"", 0
    for name, dims, kind in rows:
        n = 1
        for d in dims:
            n *= d
        head += string(name.encode()) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, at)
        at += (n // BLOCK[kind][0] * BLOCK[kind][1] + 31) // 32 * 32
    with open(path, "wb") as f:
        f.write(struct.pack("<IIQQ", 0x46554747, 3, len(rows), len(keys)))
        for name, (kind, v) in keys.items():
            f.write(string(name) + struct.pack("<I", kind) + v)
        f.write(head)
        f.write(b"\0" * (-f.tell() % 32))
        piece = {kind: chunk(kind, rng, 4096) for kind in (Q4_0, Q6_K)}
        piece.update({kind: chunk(kind, random.Random(2), 4096) for kind in (Q4_K, Q8_0, MXFP4)})
        for name, dims, kind in rows:
            n = 1
            for d in dims:
                n *= d
            if kind == F32:
                f.write(floats(name, n, rng))
            for k in range(0, n // BLOCK[kind][0] if kind != F32 else 0, 4096):
                turn = rng.randrange(4096) * BLOCK[kind][1]  # by whole blocks, so that no two rows are alike
                f.write((piece[kind][turn:] + piece[kind][:turn])[:min(4096, n // BLOCK[kind][0] - k) * BLOCK[kind][1]])
            f.write(b"\0" * (-f.tell() % 32))


if __name__ == "__main__":
    main()
