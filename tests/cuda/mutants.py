"""What may be planted in a line of PTX: wrong instructions that load, by kind."""
import re

# Everything of these kinds is planted by mutate.py; the others are drawn at random with them.
STRUCTURAL = ("barrier", "wait", "mma registers", "mma type", "guard", "bound", "load offset", "fma operands", "rounding")
BOUNDS = {"lt": "le", "le": "lt", "gt": "ge", "ge": "gt", "eq": "ne", "ne": "eq", "neu": "eq", "equ": "ne", "ltu": "leu", "leu": "ltu",
          "gtu": "geu", "geu": "gtu", "lo": "ls", "ls": "lo", "hi": "hs", "hs": "hi"}
TYPES = ((".u8.s8", ".s8.s8"), (".s32.s8.s8", ".s32.u8.s8"), (".bf16.bf16", ".f16.f16"), (".f16.f16", ".bf16.bf16"))
ROUNDINGS = ((".rni.", ".rzi."), (".rzi.", ".rni."), (".rmi.", ".rzi."), (".rpi.", ".rzi."), (".rn.bf16", ".rz.bf16"), (".rn.f16", ".rz.f16"),
             (".rn.f32", ".rz.f32"))
OTHERS = (("add", "sub"), ("sub", "add"), ("min", "max"), ("max", "min"), ("and", "or"), ("or", "and"), ("xor", "or"))


def operands_of(text):
    """Operands; what stands in braces or brackets is one."""
    return [o.strip() for o in re.findall(r"(?:\{[^}]*\}|\[[^]]*\]|[^,{\[])+", text) if o.strip()]


class Line:
    """An instruction, and the texts that may stand in its place: pairs of a kind and a text."""

    def __init__(self, guard, opcode, text):
        self.guard, self.opcode, self.operands = guard, opcode, operands_of(text)

    def text(self, opcode=None, operands=None, guard=None):
        guard = self.guard if guard is None else guard
        operands = self.operands if operands is None else operands
        return f"{guard} {opcode or self.opcode} {', '.join(operands)}".strip() + ";"

    def with_operand(self, i, word):
        return self.text(operands=self.operands[:i] + [word] + self.operands[i + 1:])

    def swapped(self, i, j):
        operands = list(self.operands)
        operands[i], operands[j] = operands[j], operands[i]
        return self.text(operands=operands)

    def retyped(self, pairs):
        for old, new in pairs:
            if old in self.opcode:
                return self.text(self.opcode.replace(old, new))
        return None

    def registers(self, k):
        """mma's operand k with two of its registers exchanged, each pair."""
        registers = re.findall(r"%\w+", self.operands[k])
        for i in range(len(registers)):
            for j in range(i):
                new = list(registers)
                new[i], new[j] = new[j], new[i]
                yield "mma registers", self.with_operand(k, "{" + ", ".join(new) + "}")

    def structural(self):
        o = self.opcode
        if o.startswith(("bar.sync", "barrier.sync", "bar.warp.sync")):
            yield "barrier", ""
        if o.startswith(("cp.async.wait", "cp.async.commit", "griddepcontrol.wait")):
            yield "wait", ""
        if o.startswith("mma."):
            yield from self.registers(1)
            yield from self.registers(2)
            yield "mma type", self.retyped(TYPES)
        if self.guard:
            yield "guard", self.text(guard=self.guard.replace("@!", "@") if "!" in self.guard else self.guard.replace("@", "@!"))
        m = re.match(r"setp\.(\w+)\.", o)
        if m and m[1] in BOUNDS:
            yield "bound", self.text(o.replace(m[1], BOUNDS[m[1]], 1))
        m = re.match(r"\[(%?\w+)(?:\+(-?\d+))?\]", self.operands[1]) if o.startswith(("ld.global", "ld.shared")) else None
        if m:
            step = int(re.search(r"\d+$", o)[0]) // 8 * (4 if ".v4" in o else 2 if ".v2" in o else 1)
            yield "load offset", self.with_operand(1, f"[{m[1]}+{int(m[2] or 0) + step}]")
        if o.startswith("fma.rn") and len(self.operands) == 4:
            yield "fma operands", self.swapped(2, 3)
        if o.startswith("cvt."):
            yield "rounding", self.retyped(ROUNDINGS)

    def numbers(self):
        """The last literal, one more and one less."""
        at = [i for i, o in enumerate(self.operands) if i and re.fullmatch(r"-?\d+", o)]
        if at and not self.opcode.startswith(("bar", "lop3", "cp.async")):
            value = int(self.operands[at[-1]])
            for step in (1, -1):
                if value + step >= 0 or value < 0:
                    yield "number", self.with_operand(at[-1], str(value + step))

    def other(self):
        o, n = self.opcode, len(self.operands)
        head = o.split(".")[0]
        yield from self.numbers()
        for old, new in OTHERS:
            if head == old:
                yield "operation", self.text(new + o[len(old):])
        if o.startswith("mul.rn"):
            yield "operation", self.text(o.replace("mul", "add", 1))
        if head == "shr" and ".s" in o:
            yield "operation", self.text(o.replace(".s", ".u"))
        if head in ("neg", "abs"):
            yield "operation", self.text("mov." + ("f" if ".f" in o else "b") + o[-2:])
        if n >= 3 and (head in ("sub", "div", "selp", "prmt", "bfi") or (head in ("shl", "shr") and not o.endswith("64"))) and \
                self.operands[1].startswith("%") and self.operands[2].startswith("%"):
            yield "operands", self.swapped(1, 2)
        if o.startswith("mad.") and self.operands[2] != self.operands[3] and ".wide" not in o:
            yield "operands", self.swapped(2, 3)
        if o.startswith(("st.", "red.", "cp.async.c")) and "commit" not in o:
            yield "dropped", ""
        if head in ("redux", "shfl") and n >= 3 and "|" not in self.operands[0]:
            yield "dropped", f"{self.guard} mov.b32 {self.operands[0]}, {self.operands[1]};".strip()

    def mutants(self):
        seen = {self.text(), None}
        for kind, new in (*self.structural(), *self.other()):
            if new not in seen:
                seen.add(new)
                yield kind, new
