#!/usr/bin/env python3
"""layouts.py CUTLASS [GOLDEN]: which element of a matrix each lane's registers hold, as CuTe says.

Reads the strides that CuTe's headers declare from a checkout of github.com/NVIDIA/cutlass (a folder,
or a git directory) and prints layouts.txt; with GOLDEN it compares instead, exit status 1 on a
difference. row_matrices.c runs the machine's instructions on fragments that are laid out by that file.
"""
import os
import re
import subprocess
import sys

MMA = "include/cute/atom/mma_traits_sm80.hpp"
COPY = "include/cute/atom/copy_traits_sm75.hpp"
# our opcode, CuTe's name, k: A is 16 x k, B k x 8
PRODUCTS = [
    ("m16n8k16.row.col.f32.bf16.bf16.f32", "SM80_16x8x16_F32BF16BF16F32_TN", 16),
    ("m16n8k16.row.col.f32.f16.f16.f32", "SM80_16x8x16_F32F16F16F32_TN", 16),
    ("m16n8k32.row.col.s32.u8.s8.s32", "SM80_16x8x32_S32U8S8S32_TN", 32),
    ("m16n8k32.row.col.s32.s8.s8.s32", "SM80_16x8x32_S32S8S8S32_TN", 32),
    ("m16n8k16.row.col.s32.u8.s8.s32", "SM80_16x8x16_S32U8S8S32_TN", 16),
    ("m16n8k16.row.col.s32.s8.s8.s32", "SM80_16x8x16_S32S8S8S32_TN", 16),
]
COPIES = [
    ("x1", "SM75_U32x1_LDSM_N", 1), ("x2", "SM75_U32x2_LDSM_N", 2), ("x4", "SM75_U32x4_LDSM_N", 4),
    ("x1.trans", "SM75_U16x2_LDSM_T", 1), ("x2.trans", "SM75_U16x4_LDSM_T", 2),
    ("x4.trans", "SM75_U16x8_LDSM_T", 4),
]


def read(root, path):
    if os.path.exists(os.path.join(root, path)):
        with open(os.path.join(root, path), encoding="utf-8") as f:
            text = f.read()
    else:
        text = subprocess.run(["git", "-C", root, "show", f"HEAD:{path}"], check=True,
                              capture_output=True, text=True).stdout
    return re.sub(r"//[^\n]*", "", text)


def numbers(text):
    """The tree of numbers of a Layout<Shape<...>, Stride<...>>: ((thread, value), (thread, value))."""
    text = re.sub(r"\s|_(?=\d)", "", text)
    text = re.sub(r"(?:Layout|Shape|Stride)<", "(", text).replace(">", ",)")
    assert re.fullmatch(r"[\d(),]+", text), text
    return eval(text)  # digits, commas and brackets alone


def flat(tree):
    return sum(map(flat, tree), []) if isinstance(tree, tuple) else [tree]


def place(shape, stride, index):
    at = 0
    for n, step in zip(flat(shape), flat(stride)):
        at += index % n * step
        index //= n
    return at


def member(text, traits, name, key):
    """The layout `key` of a traits struct, or of the one that it inherits from."""
    m = re.search(rf"struct {traits}<{name}>\s*(?::\s*{traits}<(\w+)>)?\s*\{{(.*?)\}};", text, re.S)
    if not m:
        raise SystemExit(f"{name}: not in the headers")
    found = re.search(rf"using {key}\s*=\s*(.*?);", m.group(2), re.S)
    if not found:
        return member(text, traits, m.group(1), key)
    value = found.group(1).strip()
    if not value.startswith("Layout"):
        value = re.search(rf"using {value}\s*=\s*(.*?);", text, re.S).group(1)
    return numbers(value)


def lines(title, layout, values, element, step=1):
    """A line a lane: the elements of its registers in order, as row * columns + column."""
    shape, stride = layout
    yield title
    for lane in range(32):
        at = place(shape[0], stride[0], lane)
        yield " ".join(str(element(at + place(shape[1], stride[1], v * step))) for v in range(values))


def golden(root):
    mma, copy = read(root, MMA), read(root, COPY)
    out = ["# Made by layouts.py: the element of the matrix, row * columns + column, that each value of "
           "a lane is.", "# A title, then a line a lane."]
    for text, name, k in PRODUCTS:
        # CuTe numbers A by (m, k), B by (n, k), C by (m, n), the first fastest
        for key, rows, columns, element in (
                ("A", 16, k, lambda i, k=k: i % 16 * k + i // 16),
                ("B", k, 8, lambda i: i // 8 * 8 + i % 8),
                ("C", 16, 8, lambda i: i % 16 * 8 + i // 16)):
            layout = member(mma, "MMA_Traits", name, key + "Layout")
            out += lines(f"mma.sync.aligned.{text} {key} {rows} {columns}", layout,
                         rows * columns // 32, element)
    for text, name, n in COPIES:
        # CuTe counts bits; a matrix has 64 numbers of 16 bits
        layout = member(copy, "Copy_Traits", name, "DstLayout")
        out += lines(f"ldmatrix.sync.aligned.m8n8.{text}.shared.b16 D {8 * n} 8",
                     layout, 2 * n, lambda i: i // 16, 16)
    return "\n".join(out) + "\n"


def main():
    text = golden(sys.argv[1])
    if len(sys.argv) < 3:
        sys.stdout.write(text)
        return 0
    with open(sys.argv[2], encoding="utf-8") as f:
        equal = f.read() == text
    print("equal" if equal else "DIFFERENT")
    return 0 if equal else 1


sys.exit(main())
