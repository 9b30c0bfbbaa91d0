"""Names of the fakes: all that kernels/cuda opens is there, and nothing that the real driver does not have.
Usage: test_symbols.py libcuda_fake.so libcublas_fake.so [folder of cuda.h]

Names are held against cuda.h where the build has it, and against a real or a stub libcuda where one is found
($CAPSTAN_REAL_LIBCUDA, $CUDA_HOME/lib64/stubs, the loader's). Run in the repository's root."""
import ctypes
import os
import re
import subprocess
import sys

CUDA, CUBLAS, INCLUDE = (sys.argv[1:] + [""])[:3]


def exported(path):
    run = subprocess.run(["nm", "-D", "--defined-only", path], capture_output=True, text=True, check=True)
    return {line.split()[-1] for line in run.stdout.splitlines()}


def opened(prefix):
    """Symbols in the tables of kernels/cuda, X(member, symbol, (parameters))."""
    names, folder = set(), "kernels/cuda"
    for file in os.listdir(folder):
        if file.endswith((".h", ".c", ".def")):
            with open(os.path.join(folder, file), encoding="utf-8") as f:
                names |= set(re.findall(rf"\bX\(\w+,\s*({prefix}[A-Z]\w*)", f.read()))
    return names


def declared():
    """Names that cuda.h declares, with what its macros make of them."""
    with open(os.path.join(INCLUDE, "cuda.h"), encoding="utf-8") as f:
        text = f.read()
    names = set(re.findall(r"\bCUDAAPI\s+(cu\w+)\s*\(", text))
    for name, version in re.findall(r"#define\s+(cu\w+)\s+(?:__CUDA_API_PT[DS][SZ]\()?(cu\w+)", text):
        if name in names:
            names.add(version)
    return names


def real():
    home = os.environ.get("CUDA_HOME", "/usr/local/cuda")
    for path in (os.environ.get("CAPSTAN_REAL_LIBCUDA"), f"{home}/lib64/stubs/libcuda.so", "libcuda.so.1"):
        try:
            return path, ctypes.CDLL(path) if path else None
        except OSError:
            continue
    return None, None


def main():
    bad = []
    cuda, cublas = exported(CUDA), exported(CUBLAS)
    ours = {n for n in cuda if n.startswith("cu")}
    bad += [f"{n} is exported by neither name" for n in cuda - ours if not n.startswith("fake_")]
    bad += [f"{n} is exported" for n in cublas if not n.startswith("cublas")]
    wanted = opened("cu(?!blas)")
    bad += [f"kernels/cuda opens {n}, which the fake driver lacks" for n in wanted - ours]
    bad += [f"kernels/cuda opens {n}, which the fake cuBLAS lacks" for n in opened("cublas") - cublas]
    print(f"{len(wanted)} names opened, {len(ours)} exported")
    if not wanted:
        bad.append("kernels/cuda has no table of names")
    if INCLUDE:
        bad += [f"cuda.h does not declare {n}" for n in ours - declared()]
    path, library = real()
    if library:
        bad += [f"{path} has no {n}" for n in ours if not hasattr(library, n)]
    print(f"held against: cuda.h: {'yes' if INCLUDE else 'no'}; a real or stub libcuda: {path if library else 'none is here'}")
    print("\n".join(sorted(bad)))
    return bool(bad)


sys.exit(main())
