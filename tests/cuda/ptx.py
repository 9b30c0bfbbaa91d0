"""What gates and mutants read of a PTX text: its kernels and their instructions, by line."""
import pathlib
import re

INSTRUCTION = re.compile(r"^\s*(?:(@!?%\w+)\s+)?([a-z][\w.:]*)(\s[^;]*)?;\s*$")


def text_sum(data):
    """FNV-1a of a module's text, by which tests/fakes/libcuda names it."""
    h = 0xcbf29ce484222325
    for byte in data:
        h = (h ^ byte) * 0x100000001b3 & 0xffffffffffffffff
    return f"{h:016x}"


class Kernel:
    """name, module (a path), first and last line (from 1), and instructions {line: (guard, opcode, operands)}."""

    def __init__(self, name, module):
        self.name, self.module, self.instructions = name, module, {}


def kernels(path):
    path = pathlib.Path(path)
    found, kernel, depth = [], None, 0
    for number, line in enumerate(path.read_text().split("\n"), 1):
        entry = re.search(r"\.entry (\w+)\(", line)
        if entry:
            kernel = Kernel(entry[1], path)
            found.append(kernel)
        code = line.split("//")[0]
        m = INSTRUCTION.match(code)
        if kernel and m and not m[2].startswith("."):
            kernel.instructions[number] = (m[1] or "", m[2], (m[3] or "").strip())
    return found


def modules(folder):
    return [k for path in sorted(pathlib.Path(folder).glob("*.ptx")) for k in kernels(path)]
