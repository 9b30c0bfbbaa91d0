#!/usr/bin/env python3
"""A model of Llama-3.2-1B's shapes with random weights, for measurements of loading: 0.76 GB, GGUF v3.

    make_model.py SmolLM2.gguf OUT.gguf [LAYERS EMBD FF HEADS KV_HEADS VOCAB]

Other numbers make a model of other shapes. Every matrix is Q4_0, the (tied) embedding Q6_K, the norms F32 ones. The tokenizer is the one of the file given, its vocabulary
padded with unused tokens. The same input gives the same bytes. Standard library only.
"""
import random
import struct
import sys

LAYERS, EMBD, FF, HEADS, KV_HEADS, VOCAB, CTX = 16, 2048, 8192, 32, 8, 128256, 131072
F32, Q4_0, Q6_K = 0, 2, 14
BLOCK = {Q4_0: (32, 18), Q6_K: (256, 210), F32: (1, 4)}
SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
U32, F32_KV, STR, ARR, I32 = 4, 6, 8, 9, 5


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


def padded(value, pad):
    """An array value with its count raised to VOCAB; pad(i) is element i."""
    of, n = struct.unpack_from("<IQ", value)
    return struct.pack("<IQ", of, VOCAB) + value[12:] + b"".join(pad(i) for i in range(n, VOCAB))


def metadata(path):
    keys = tokenizer_keys(path)
    for name, pad in ((b"tokenizer.ggml.tokens", lambda i: string(b"<|unused%d|>" % i)),
                      (b"tokenizer.ggml.token_type", lambda i: struct.pack("<i", 5)),
                      (b"tokenizer.ggml.scores", lambda i: struct.pack("<f", 0.0))):
        if name in keys:
            keys[name] = (ARR, padded(keys[name][1], pad))
    u32 = {"block_count": LAYERS, "context_length": CTX, "embedding_length": EMBD, "feed_forward_length": FF,
           "attention.head_count": HEADS, "attention.head_count_kv": KV_HEADS, "rope.dimension_count": EMBD // HEADS,
           "vocab_size": VOCAB}
    keys[b"general.architecture"] = (STR, string(b"llama"))
    keys[b"general.file_type"] = (U32, struct.pack("<I", 2))
    for k, v in u32.items():
        keys[b"llama." + k.encode()] = (U32, struct.pack("<I", v))
    keys[b"llama.rope.freq_base"] = (F32_KV, struct.pack("<f", 500000.0))
    keys[b"llama.attention.layer_norm_rms_epsilon"] = (F32_KV, struct.pack("<f", 1e-5))
    return keys


def tensors():
    kv = KV_HEADS * EMBD // HEADS
    rows = [("token_embd.weight", (EMBD, VOCAB), Q6_K), ("output_norm.weight", (EMBD,), F32)]
    for i in range(LAYERS):
        rows += [(f"blk.{i}.{name}.weight", dims, F32 if len(dims) == 1 else Q4_0) for name, dims in (
            ("attn_norm", (EMBD,)), ("attn_q", (EMBD, EMBD)), ("attn_k", (EMBD, kv)), ("attn_v", (EMBD, kv)),
            ("attn_output", (EMBD, EMBD)), ("ffn_norm", (EMBD,)), ("ffn_gate", (EMBD, FF)), ("ffn_up", (EMBD, FF)),
            ("ffn_down", (FF, EMBD)))]
    return rows


def chunk(kind, rng, blocks):
    """`blocks` blocks of random codes with a sane scale."""
    out = bytearray(rng.randbytes(blocks * BLOCK[kind][1]))
    size = BLOCK[kind][1]
    scale = struct.pack("<e", 0.004 if kind == Q4_0 else 0.0002)
    at = 0 if kind == Q4_0 else size - 2
    out[at::size] = scale[:1] * blocks
    out[at + 1::size] = scale[1:] * blocks
    return bytes(out)


def main():
    global LAYERS, EMBD, FF, HEADS, KV_HEADS, VOCAB
    source, path, *shapes = sys.argv[1:]
    if shapes:
        LAYERS, EMBD, FF, HEADS, KV_HEADS, VOCAB = map(int, shapes)
    rng = random.Random(1)
    keys, rows = metadata(source), tensors()
    head, at = b"", 0
    for name, dims, kind in rows:
        n = 1
        for d in dims:
            n *= d
        head += string(name.encode()) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, at)
        at += (n // BLOCK[kind][0] * BLOCK[kind][1] + 31) // 32 * 32
    with open(path, "wb") as f:
        f.write(struct.pack("<IIQQ", 0x46554747, 3, len(rows), len(keys)))
        for name, (kind, value) in keys.items():
            f.write(string(name) + struct.pack("<I", kind) + value)
        f.write(head)
        f.write(b"\0" * (-f.tell() % 32))
        piece = {kind: chunk(kind, rng, 4096) for kind in (Q4_0, Q6_K)}
        for name, dims, kind in rows:
            if kind == F32:
                f.write(struct.pack(f"<{dims[0]}f", *[1.0] * dims[0]))
                continue
            n = dims[0] * dims[1] // BLOCK[kind][0]
            for k in range(0, n, 4096):  # rotated by whole blocks, so that no two rows are alike
                turn = rng.randrange(4096) * BLOCK[kind][1]
                f.write((piece[kind][turn:] + piece[kind][:turn])[:min(4096, n - k) * BLOCK[kind][1]])
            f.write(b"\0" * (-f.tell() % 32))


if __name__ == "__main__":
    main()
