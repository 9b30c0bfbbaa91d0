#!/usr/bin/env python3
"""Write the expected outputs of the *.txt files beside this script with Python's jinja2 3.1 (transformers' settings).

usage: make.py [--check]      needs jinja2; --check writes nothing and fails if a file would change

A file is a list of cases, each:

    ### case NAME
    ### vars {"json": "of the variables"}          (optional)
    template text, to the last newline before
    ### expect                                     (or: ### raise, the words of raise_exception; or: ### error)
    output text, to the last newline before
    ### end

The lines from `### expect` on are made here.
"""
import json
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent / "oracle" / "chat"))
import jinja_env  # noqa: E402


def cases(text):
    """(name, vars, template) of a file."""
    for block in text.split("### case ")[1:]:
        name, rest = block.split("\n", 1)
        variables = {}
        if rest.startswith("### vars "):
            line, rest = rest.split("\n", 1)
            variables = json.loads(line[len("### vars "):])
        end = min(i for i in (rest.find("\n### " + w) for w in ("expect", "error", "raise", "end", "make")) if i >= 0)
        yield name, variables, rest[:end]


def main():
    check = "--check" in sys.argv
    env = jinja_env.environment()
    stale = 0
    for path in sorted(HERE.glob("*.txt")):
        old = path.read_bytes().decode()  # line ends are part of the cases
        head = old[: old.index("### case ")]
        out = [head]
        for name, variables, template in cases(old):
            kind, text = jinja_env.render(env, template, variables)
            out.append(f"### case {name}\n")
            if variables:
                out.append(f"### vars {json.dumps(variables, ensure_ascii=False)}\n")
            out.append(template + "\n")
            if kind == "text":
                out.append(f"### expect\n{text}\n")
            elif kind == "raised":
                out.append(f"### raise\n{text}\n")
            else:
                out.append(f"### error\n{text.splitlines()[0]}\n")
            out.append("### end\n\n")
        new = "".join(out)
        if new != old:
            stale += 1
            print(("stale: " if check else "wrote ") + path.name)
            if not check:
                path.write_bytes(new.encode())
    sys.exit(1 if check and stale else 0)


if __name__ == "__main__":
    main()
