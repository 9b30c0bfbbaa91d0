#!/usr/bin/env python3
"""Write tests/kernels/generated/golden_dequant.inc: random blocks of every GGUF type and a digest of their values.

The values come from the dequantizers of PyPI gguf (gguf/quants.py); Q8_1, Q8_K, Q1_0 and Q2_0,
which it lacks, are spelled here from the format's description. Needs: pip install gguf.
Usage: tests/kernels/gen_dequant_golden.py > tests/kernels/generated/golden_dequant.inc
"""
import sys

import numpy as np
from gguf import GGML_QUANT_SIZES, quants
from gguf import GGMLQuantizationType as T

BLOCKS = 3
# byte offsets of the half-precision scales of a block
HALVES = {"Q4_0": (0,), "Q4_1": (0, 2), "Q5_0": (0,), "Q5_1": (0, 2), "Q8_0": (0,), "Q8_1": (0, 2),
          "Q2_K": (80, 82), "Q3_K": (108,), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,),
          "IQ1_S": (0,), "IQ2_XXS": (0,), "IQ2_XS": (0,), "IQ2_S": (0,), "IQ3_XXS": (0,),
          "IQ3_S": (0,), "IQ4_NL": (0,), "IQ4_XS": (0,), "TQ1_0": (52,), "TQ2_0": (64,),
          "Q1_0": (0,), "Q2_0": (0,), "F16": (0,)}
# not in gguf's table, or with the size that the type had long ago
SIZES = {"Q1_0": (41, 128, 18), "Q2_0": (42, 64, 18), "Q8_1": (9, 32, 36)}


def own(name, raw):
    """Types that gguf cannot dequantize; raw: [blocks, bytes]."""
    half = raw[:, :2].copy().view(np.float16).astype(np.float32)
    if name == "Q8_1":
        return half * raw[:, 4:].copy().view(np.int8).astype(np.float32)
    if name == "Q8_K":
        return raw[:, :4].copy().view(np.float32) * raw[:, 4:260].copy().view(np.int8).astype(
            np.float32)
    if name == "Q1_0":
        bits = np.unpackbits(raw[:, 2:], axis=1, bitorder="little").astype(np.float32)
        return half * (2 * bits - 1)
    if name == "Q2_0":
        q = (raw[:, 2:, None] >> np.array([0, 2, 4, 6], dtype=np.uint8)) & 3
        return half * (q.reshape(raw.shape[0], -1).astype(np.float32) - 1)
    raise KeyError(name)


def digest(values):
    """FNV-1a over the f32 bits, -0 as 0."""
    h = 0xcbf29ce484222325
    for b in (values.astype(np.float32) + np.float32(0)).tobytes():
        h = ((h ^ b) * 0x100000001b3) & 0xffffffffffffffff
    return h


def blocks(rng, name, size):
    raw = rng.integers(0, 256, size=(BLOCKS, size), dtype=np.uint8)
    for at in HALVES.get(name, ()):
        h = (rng.uniform(0.5, 2.0, BLOCKS) * rng.choice([-1, 1], BLOCKS) / 64).astype(np.float16)
        raw[:, at:at + 2] = h.view(np.uint8).reshape(BLOCKS, 2)
    if name in ("F32", "Q8_K"):
        raw[:, :4] = rng.normal(size=BLOCKS).astype(np.float32).view(np.uint8).reshape(BLOCKS, 4)
    if name == "BF16":
        raw[:, 1] &= 0x3f
    if name == "IQ1_M":
        raw[:, 55] = raw[:, 55] & 0x8f | 0x20
    return raw


def main():
    rng = np.random.default_rng(2026)
    out = sys.stdout
    out.write("/* Random blocks and digests of their values; made by gen_dequant_golden.py from the\n"
              " * dequantizers of PyPI gguf. Do not edit. */\n")
    rows = [(t.name, int(t), *GGML_QUANT_SIZES[t]) for t in T
            if (not t.name.startswith("I") or t.name.startswith("IQ")) and t.name not in SIZES]
    rows += [(n, *v) for n, v in SIZES.items()]
    for name, number, elems, size in rows:
        if name == "F64":
            continue
        raw = blocks(rng, name, size)
        values = own(name, raw) if name in ("Q8_1", "Q8_K", "Q1_0", "Q2_0") else \
            quants.dequantize(raw.reshape(-1), T(number))
        out.write(f'{{"{name}", {number}, {BLOCKS * elems}, 0x{digest(values.reshape(-1)):016x}u,\n')
        text = raw.tobytes().hex()
        lines = [text[i:i + 90] for i in range(0, len(text), 90)]
        out.write("\n".join(f'    "{line}"' for line in lines) + "},\n")


if __name__ == "__main__":
    main()
