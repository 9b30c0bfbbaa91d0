#!/usr/bin/env python3
"""assemble.py PTXAS TEST: NVIDIA's assembler takes an instruction of each row that the machine knows.

So no row has an opcode that does not exist, or operands that it does not have.
"""
import subprocess
import sys
import tempfile


def main():
    ptxas, test = sys.argv[1:]
    text = subprocess.run([test, "--print"], check=True, capture_output=True, text=True).stdout
    with tempfile.NamedTemporaryFile("w", suffix=".ptx") as f:
        f.write(text)
        f.flush()
        run = subprocess.run([ptxas, "-arch=sm_90", "-o", "/dev/null", f.name], capture_output=True, text=True, check=False)
    lines = text.split("\n")
    for error in run.stderr.split("\n"):
        number = error.partition(", line ")[2].partition(";")[0]
        print(error, f"\n    {lines[int(number) - 1]}" if number.isdigit() else "")
    print(f"{sum(line.endswith(';') for line in lines)} lines assembled, exit {run.returncode}")
    return run.returncode


if __name__ == "__main__":
    sys.exit(main())
