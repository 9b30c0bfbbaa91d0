#!/usr/bin/python3
"""Each lint is green on a clean tree and red, for the stated reason, on a planted breach.

Usage: selftest.py [--cc CC]. Trees are built in a temporary folder. Exits 1 and names the lint that
missed its breach.
"""
import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))

TREE = """# The house

```
capstan/
├── README.md  other/ words
├── base/        errors
├── kernels/     operations
├── loader/      bytes, generated/ (tables), <kind>/
│   └── oci/       pull
├── server/      http
└── docs/        words
```
Planned rooms: `kernels/cuda/` (later), `deploy/`.

Planned in `server/`: more.
"""

CLEAN = {
    "base/a.h": "#ifndef A_H\n#define A_H\n\nint cp_a(int x);\n\n#endif\n",
    "base/a.c": "#include \"base/a.h\"\n\n"
                "static const char *const names[] = {\"strcpy(\", \"b\"};\n\n"
                "/* never strcpy(a, b) */\n"
                "int cp_a(int x)\n{\n    return names[x & 1][0];\n}\n",
    "kernels/k.c": "#include \"base/a.h\"\n\nint cp_k(void);\n\n"
                   "int cp_k(void)\n{\n    return cp_a(1);\n}\n",
    "loader/generated/t.h": "int   cp_t;\n",
    "docs/ARCHITECTURE.md": TREE,
    "docs/CLEAN.md": "`base/a.c:40 cp_a`, base/a.h, and any server/x_json.c\n",
    "loader/oci/pull.h": "extern int cp_pull;\n",
    "server/routes.def": "",
    "server/routes.h": "#include \"server/handlers.h\"\n",
    "server/handlers.h": "#include \"server/routes.def\"\n\nextern int cp_handle;\n",
}


def body(lines):
    return "int cp_a(int x)\n{\n" + "    x++;\n" * (lines - 3) + "    return x;\n}\n"


# (check, files planted, text that must stand in the output). Files named late/ lie where the name
# says behind it, but are written after the build.
BREACHES = [
    ("layers", {"base/b.c": "#include \"kernels/k.h\"\n"}, "base may not include kernels/k.h"),
    ("layers", {"chat/c.c": "#include \"tokenizer/tokenizer.h\"\n"}, "chat may not include"),
    ("layers", {"bench/load/l.c": "#include \"server/server.h\"\n"}, "bench/load may not"),
    ("layers", {"engine/e.c": "#include <openssl/evp.h>\n"}, "<openssl/evp.h> may be included"),
    ("layers", {"server/http.c": "#include <microhttpd.h>\n"}, "<microhttpd.h> may be"),
    ("layers", {"server/chat.c": "#include <jansson.h>\n"}, "<jansson.h> may be included"),
    ("layers", {"loader/oci/store/s.c": "#include <curl/curl.h>\n"}, "<curl/curl.h> may be included"),
    ("layers", {"kernels/backend.c": "#include \"kernels/host.h\"\n"},
     "<kernels/host.h> may be included"),
    ("folders", {"loader/oci/fsys.c": "int cp_f;\n"}, "loader/oci/fsys.c: belongs into a sub-folder"),
    ("folders", {"base/b.cpp": "int cp_b;\n"}, "base/b.cpp: C++ stands in tests/fibers/"),
    ("folders", {"kernels/cuda/k.cu": "void f() { asm(\"trap;\"); }\n"},
     "kernels/cuda/k.cu: inline PTX stands in kernels/cuda/device"),
    ("layers", {"kernels/ref/r.c": "#include \"kernels/cpu/run.h\"\n"},
     "kernels/ref/r.c:1: kernels/ref may not include kernels/cpu/run.h"),
    ("layers", {"kernels/cpu/c.c": "#include \"kernels/ref/ref.h\"\n"},
     "kernels/cpu may not include kernels/ref/ref.h"),
    ("layers", {"kernels/cuda/k.cu": "#include \"kernels/cpu/run.h\"\n"},
     "kernels/cuda may not include kernels/cpu/run.h"),
    ("layers", {"kernels/b.c": "#include \"kernels/cpu/run.h\"\n"},
     "kernels may not include kernels/cpu/run.h"),
    ("tree", {"loader/oci/store/s.c": "int cp_s;\n"},
     "loader/oci/store/: does not stand in the tree of docs/ARCHITECTURE.md"),
    ("tree", {"chat/CMakeLists.txt": ""}, "chat/: does not stand in the tree"),
    ("tree", {"docs/ARCHITECTURE.md": TREE.replace("└── docs/", "├── gone/     x\n└── docs/")},
     "docs/ARCHITECTURE.md: draws gone/, which is not there"),
    ("tree", {"docs/ARCHITECTURE.md": TREE.replace("        errors", "        errors, gone/ (x)")},
     "draws base/gone/, which is not there"),
    ("tree", {"docs/ARCHITECTURE.md": TREE.replace("   └── oci/", "   └── gone/  x\n│   └── oci/")},
     "draws loader/gone/, which is not there"),
    ("tree", {"kernels/cuda/k.cu": "int cp_k;\n"}, "kernels/cuda/: does not stand in the tree"),
    ("tree", {"deploy/values.yaml": ""}, "calls deploy/ planned, and it is there"),
    ("tree", {"docs/ARCHITECTURE.md": "no tree\n"}, "has no block that begins with capstan/"),
    ("headers", {"base/b.h": "size_t cp_b(void);\n"}, "base/b.h: does not compile alone"),
    ("headers", {"base/b.h": "struct cp_b { int x; };\n"}, "base/b.h: does not compile alone"),
    ("sizes", {"base/b.c": body(151)}, "a function of 151 lines"),
    ("sizes", {"base/b.c": "int cp_x;\n" * 1201}, "1201 lines; allowed: 1200"),
    ("sizes", {"chat/chat.h": "/* x */\n" * 201}, "201 lines; allowed: 200"),
    ("sizes", {"kernels/cuda/k.cu": body(151)}, "kernels/cuda/k.cu:2: a function of 151 lines"),
    ("banned", {"base/b.c": "void f(char *a) { strcpy (a, \"x\"); }\n"}, "strcpy() is banned"),
    ("banned", {"base/b.c": "int f(char *a) { return atoi(a); }\n"}, "atoi() is banned"),
    ("names", {"base/b.h": "typedef struct cp_t {\n    int a;\n} cp_t;\n", "kernels/k.h": "typedef struct cp_t {\n    int b;\n} cp_t;\n"},
     "the type cp_t is also in"),
    ("names", {"base/b.c": "/* as cp_gone does */\n"}, "'cp_gone' is not in this tree"),
    ("names", {"base/b.c": "// see kernels/gone.c\n"}, "'kernels/gone.c' is not in this tree"),
    ("names", {"base/b.c": "/* layout: models reference §4.1 */\n"}, "is not in this tree"),
    ("names", {"kernels/cuda/k.cu": "/* as cp_gone does */\n"}, "'cp_gone' is not in this tree"),
    ("names", {"kernels/k.c": "// see kernels/cuda/gone.cuh\n"},
     "'kernels/cuda/gone.cuh' is not in this tree"),
    ("anchors", {"docs/A.md": "see base/gone.c\n"}, "docs/A.md:1: no file base/gone.c"),
    ("anchors", {"docs/A.md": "\n`base/a.c:6 cp_a` and `base/a.c:6 cp_b`\n"},
     "docs/A.md:2: base/a.c:6: cp_b is not defined there"),
    ("anchors", {"docs/A.md": "`base/a.c:48 cp_a`\n"}, "cp_a is at line 6; "),
    ("anchors", {"docs/A.md": "`base/a.c:6`\n"}, "base/a.c:6 names no function"),
    ("symbols", {"base/b.c": "int helper(void);\nint helper(void)\n{\n    return 1;\n}\n"},
     "helper does not begin with cp_"),
    ("symbols", {"base/b.c": "int cp_twice(void);\nint cp_twice(void)\n{\n    return 1;\n}\n",
                 "loader/l.c": "int cp_twice(void);\nint cp_twice(void)\n{\n    return 1;\n}\n"},
     "libcp_loader.a: cp_twice is also in libcp_base.a"),
    ("globals", {"base/b.c": "".join(f"int cp_g{i} = {i};\n" for i in range(1, 12))},
     "11 mutable globals; allowed: 10"),
    ("globals", {"base/b.c": "".join(f"_Thread_local int cp_g{i};\n" for i in range(1, 12))},
     "11 mutable globals; allowed: 10"),
    ("globals", {"late/base/a.c": "".join(f"static int g{i};\n" for i in range(12))},
     "base/a.c: newer than the build"),
    ("globals", {"late/base/b.c": "int cp_b;\n"}, "base/b.c: no target compiles it"),
    ("symbols", {"late/base/a.c": "int helper(void);\n"}, "base/a.c: newer than the build"),
    ("cycles", {"base/b.h": "#include \"base/c.h\"\n", "base/c.h": "#include \"base/b.h\"\n"},
     "headers include each other: base/b.h -> base/c.h -> base/b.h"),
    ("cycles", {"engine/e.c": "int cp_e(void);\nint cp_f(void);\nint cp_e(void)\n{\n    return cp_f();\n}\n",
                "engine/f.c": "int cp_e(void);\nint cp_f(void);\nint cp_f(void)\n{\n    return cp_e();\n}\n"},
     "engine: files need each other: engine/e -> engine/f -> engine/e"),
    ("cycles", {"engine/e.h": "int cp_e(void);\n",
                "engine/e.c": "#include \"engine/e.h\"\nint cp_f(void);\nint cp_e(void)\n{\n    return cp_f();\n}\n",
                "engine/f.c": "#include \"engine/e.h\"\nint cp_f(void);\nint cp_f(void)\n{\n    return 1;\n}\n"},
     "engine: files need each other: engine/e -> engine/f -> engine/e"),
    ("cycles", {"kernels/cpu/a.h": "int cp_x;\n", "kernels/b.inc": "#include \"kernels/cpu/a.h\"\n",
                "kernels/cpu/a.c": "#include \"kernels/b.inc\"\n"},
     "kernels: files need each other: kernels/b -> kernels/cpu/a -> kernels/b"),
    ("cycles", {"chat/chat.h": "int cp_x;\n", "chat/chat.c": "#include \"chat/inside.h\"\n",
                "chat/inside.h": "#include \"chat/parts.h\"\n#include \"chat/chat.h\"\n",
                "chat/parts.h": "int cp_y;\n", "chat/parts.c": "#include \"chat/inside.h\"\n"},
     "chat: files need each other: chat/inside -> chat/parts -> chat/inside"),
    ("cycles", {"server/http.h": "int cp_x;\n", "server/http.c": "#include \"server/head.h\"\n",
                "server/head.h": "int cp_y;\n", "server/head.c": "#include \"server/http.h\"\n"},
     "server: files need each other: server/head -> server/http -> server/head"),
    ("cycles", {"server/api/api.h": "int cp_x;\n", "server/api/api.c": "#include \"server/call.h\"\n",
                "server/call.h": "#include \"server/api/api.h\"\n"},
     "server: files need each other: server/api/api -> server/call -> server/api/api"),
    ("cycles", {"base/options.h": "int cp_x;\n", "base/rows.h": "#include \"base/options.h\"\n",
                "base/options.c": "#include \"base/rows.h\"\n"},
     "base: files need each other: base/options -> base/rows -> base/options"),
    ("cycles", {"model/arch.h": "#include \"model/hparams.h\"\n", "model/hparams.h": "int cp_x;\n",
                "model/hparams.c": "#include \"model/arch.h\"\n"},
     "model: files need each other: model/arch -> model/hparams -> model/arch"),
    ("cycles", {"app/compose.h": "int cp_x;\n", "app/compose.c": "#include \"app/fetch.h\"\n",
                "app/fetch.h": "int cp_y;\n", "app/fetch.c": "#include \"app/compose.h\"\n"},
     "app: files need each other: app/compose -> app/fetch -> app/compose"),
    ("cycles", {"server/routes.def": "#include \"server/handlers.h\"\n",
                "server/handlers.h": "#include \"server/routes.def\"\n"},
     "server: files need each other: server/handlers -> server/routes.def -> server/handlers"),
    ("cycles", {"loader/loader.h": "int cp_x;\n", "loader/oci/content/files.h": "#include \"loader/loader.h\"\n",
                "loader/oci/content/files.c": "#include \"loader/oci/content/choice.h\"\n",
                "loader/oci/content/choice.h": "int cp_y;\n",
                "loader/oci/content/choice.c": "#include \"loader/oci/content/files.h\"\n"},
     "loader: files need each other: loader/oci/content/choice -> loader/oci/content/files -> loader/oci/content/choice"),
    ("format", {"base/b.c": "int  cp_b( void ) ;\n"}, "base/b.c: clang-format"),
    ("format", {"kernels/cuda/k.cu": "int  cp_b( void ) ;\n"}, "kernels/cuda/k.cu: clang-format"),
]


def write(root, files):
    for path, text in files.items():
        full = os.path.join(root, path)
        os.makedirs(os.path.dirname(full), exist_ok=True)
        with open(full, "w", encoding="utf-8") as f:
            f.write(text)


def archive(root, cc):
    """The .c files of the rooms as build/libcp_base.a and so on, compiled as the tree is."""
    build = os.path.join(root, "build")
    os.makedirs(build)
    commands = []
    for room in ("base", "kernels", "loader", "engine"):
        objects, folder = [], os.path.join(root, room)
        for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else ():
            if name.endswith(".c"):
                objects.append(os.path.join(build, f"{room}-{name}.o"))
                command = [cc, "-std=c17", "-fPIC", "-I", root, "-c", "-o", objects[-1],
                           os.path.join(folder, name)]
                subprocess.run(command, check=True)
                commands.append({"directory": build, "command": " ".join(command),
                                 "file": os.path.join(folder, name)})
        if objects:
            subprocess.run(["ar", "rc", os.path.join(build, f"libcp_{room}.a")] + objects, check=True)
    with open(os.path.join(build, "compile_commands.json"), "w", encoding="utf-8") as f:
        json.dump(commands, f)
    return build


def run(check, files, cc):
    with tempfile.TemporaryDirectory() as root:
        write(root, CLEAN)
        write(root, {p: t for p, t in files.items() if not p.startswith("late/")})
        shutil.copy(os.path.join(ROOT, ".clang-format"), root)
        command = [sys.executable, os.path.join(HERE, "lint.py"), check, "--root", root,
                   "--cc", cc]
        if check in ("symbols", "globals", "cycles"):
            command += ["--build", archive(root, cc)]
        late = {p[len("late/"):]: t for p, t in files.items() if p.startswith("late/")}
        write(root, late)
        for path in late:  # file systems with coarse times
            later = time.time() + 5
            os.utime(os.path.join(root, path), (later, later))
        done = subprocess.run(command, capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--cc", default="cc")
    cc = parser.parse_args().cc
    failed = 0
    for check in sorted({b[0] for b in BREACHES}):
        rc, out = run(check, {}, cc)
        if rc == 77:
            print(f"{check}: {out.strip()}")
        elif rc:
            failed += 1
            print(f"FAILED: {check} is red on a clean tree:\n{out}")
    for check, files, text in BREACHES:
        rc, out = run(check, files, cc)
        if rc == 77:
            continue
        good = rc == 1 and text in out
        print(f"{'ok' if good else 'FAILED'}: {check}: {text}")
        if not good:
            failed += 1
            print(f"  exit {rc}:\n{out}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
