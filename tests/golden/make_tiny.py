#!/usr/bin/env python3
"""Makes the tiny random goldens: GGUF files, and transformers' fp32 logits for them.

    python make_tiny.py OUTDIR [NAME...]       needs: torch, transformers, gguf, numpy (docs/TESTING.md, label oracle)

A row (archs/*.py) gives a transformers model of a few ten thousand random weights, run in fp32, eager attention, one thread:
NAME in F32 and odd sizes, NAME-q its quantized twin. OUTDIR/NAME.gguf holds the model; NAME.bin the golden: u32 magic
'CPGL', u32 n_sequences, u32 n_vocab, then a sequence: u32 n, i32 ids[n], f32 logits[n][n_vocab]. The sequences cross window,
page and convolution borders. Without names: all rows.
"""
import importlib
import pathlib
import sys

import torch

import golden


def main():
    torch.set_num_threads(1)
    torch.cuda.is_current_stream_capturing = lambda: False  # a CUDA build of torch asks a driver that is not there
    for path in sorted((pathlib.Path(__file__).parent / "archs").glob("*.py")):
        importlib.import_module(f"archs.{path.stem}")
    for name in sys.argv[2:] or golden.ROWS:
        golden.make(sys.argv[1], name)


main()
