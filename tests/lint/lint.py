#!/usr/bin/python3
"""Rules of the tree that no compiler checks. Usage: lint.py CHECK [--root DIR] [--build DIR] [--cc CC]

Checks: layers folders tree headers sizes banned names anchors format need the sources; symbols globals
cycles need a build that is not older than they are.
Prints one line a breach and exits 1; exits 77 where a check cannot run here (said aloud).
Folders named generated/ are exempt from sizes and format.
"""
import argparse
import json
import os
import re
import shutil
import subprocess
import sys

ROOMS = ["base", "loader", "tokenizer", "chat", "kernels", "kv-cache", "model", "engine",
         "server", "app", "bench", "tests"]
SOURCE = (".c", ".h", ".inc", ".cu", ".cuh", ".cpp")

# Who may include whom (docs/ARCHITECTURE.md, Layers). A room may always include itself.
LAYERS = {
    "base": [],
    "kernels": ["base"],
    "loader": ["base"],
    "tokenizer": ["base"],
    "chat": ["base"],
    "kv-cache": ["kernels", "base"],
    "model": ["kv-cache", "loader", "kernels", "base"],
    "engine": ["model", "kv-cache", "kernels", "base"],
    "server": ["engine", "chat", "tokenizer", "loader", "base"],
    "app": None,  # everything
    "bench/load": ["base"],
    "bench/kernels": ["kernels", "base"],
    "bench/selftest": ["kernels", "base"],
    "bench/sse": ["server", "engine", "base"],
    "tests": None,
}

# Sub-folders that do not include each other, and that nothing beside them includes: backends.
APART = {"kernels": ["kernels/cpu", "kernels/cuda", "kernels/ref"]}

# Folders whose files lie in sub-folders -> the files (without their suffix) that may lie outside.
FOLDERS = {"loader/oci": ["reference", "resolve", "pull", "transfer"]}

# What few may hold, by a pattern of the code -> the files that may, and what it is called.
ONLY = [
    (r"\.cpp$", None, r"tests/fibers/.*", "C++"),
    (r"\.cuh?$", r"\basm\b", r"kernels/cuda/device\.cuh", "inline PTX"),
]

# Header of an external library, or one of ours that few may see -> the files that may include it.
DOORS = [
    (r"microhttpd\.h", r"server/mhd\.c"),
    (r"jansson(_config)?\.h", r".*_json\.c"),
    (r"curl/.*", r"(loader/oci/remote|bench/load)/.*\.c|app/exporter\.c"),
    (r"openssl/.*", r"base/digest\.c"),
    (r"seccomp\.h", r"base/sandbox_calls\.c"),
    (r"archive(_entry)?\.h|zstd(_errors)?\.h|zdict\.h", r"loader/.*\.c"),
    (r"pcre2\.h", r"tokenizer/.*\.c"),
    (r"(cuda|cublas|nccl|nvml)[a-z_0-9]*\.h", r"kernels/cuda/.*"),
    # pointers into a backend's memory: only where that is the host's
    (r"kernels/host\.h", r"kernels/(host\.c|(cpu|ref)/.*)"),
]

BANNED = ["strcpy", "strcat", "sprintf", "strtok", "alloca", "atoi", "system"]
FUNCTION_LINES, FILE_LINES, PUBLIC_HEADER_LINES, GLOBALS = 150, 1200, 200, 10
SCREEN = 40  # lines by which a page may miss the function that it points at
# Rooms whose files stand in floors: each includes only what lies below it (a source and its header
# are one; a room's public header stands for itself, and so does a table of rows), in CALLS also
# calls it.
FLOORS = ["app", "base", "chat", "engine", "kernels", "kv-cache", "loader", "model", "server", "tokenizer"]
CALLS = ["engine"]


def sources(root, suffixes=SOURCE, generated=True):
    """Paths relative to root, sorted."""
    found = []
    for room in ROOMS:
        for folder, dirs, files in os.walk(os.path.join(root, room)):
            dirs[:] = sorted(d for d in dirs if generated or d != "generated")
            found += [os.path.relpath(os.path.join(folder, f), root)
                      for f in files if f.endswith(suffixes)]
    return sorted(found)


def read(root, path):
    with open(os.path.join(root, path), encoding="utf-8", errors="replace") as f:
        return f.read()


def strip(text):
    """The code without comments and without the inside of strings; lines stay where they are."""
    pattern = re.compile(
        r"//[^\n]*|/\*.*?\*/|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'", re.S)

    def blank(m):
        s = m.group(0)
        return '""' if s[0] == '"' else "0" if s[0] == "'" else "\n" * s.count("\n") or " "
    return pattern.sub(blank, text)


def room_of(path):
    parts = path.split("/")
    return "/".join(parts[:2]) if parts[0] == "bench" and len(parts) > 2 else parts[0]


def check_layers(args):
    bad = []
    include = re.compile(r"^\s*#\s*include\s*([<\"])([^>\"]+)[>\"]")
    for path in sources(args.root):
        room = room_of(path)
        if room not in LAYERS:
            bad.append(f"{path}: room {room} is in no layer")
            continue
        for number, line in enumerate(read(args.root, path).split("\n"), 1):
            m = include.match(line)
            if not m:
                continue
            kind, name = m.groups()
            where = f"{path}:{number}"
            for header, door in DOORS:
                if room != "tests" and re.fullmatch(header, name) and not re.fullmatch(door, path):
                    bad.append(f"{where}: <{name}> may be included by {door} only")
            target = room_of(name)
            apart = [f for f in APART.get(room, []) if name.startswith(f + "/")]
            if apart and not path.startswith(apart[0] + "/"):
                bad.append(f"{where}: {os.path.dirname(path)} may not include {name}")
            if kind == "<" or LAYERS[room] is None or "/" not in name:
                continue
            if target.split("/")[0] not in ROOMS or target == room:
                continue
            if target.split("/")[0] == room.split("/")[0] and room.split("/")[0] != "bench":
                continue
            if target not in LAYERS[room]:
                bad.append(f"{where}: {room} may not include {name} "
                           f"(allowed: {', '.join(LAYERS[room]) or 'nothing'})")
    return bad


def check_folders(args):
    bad = []
    for path in sources(args.root):
        folder, name = os.path.split(path)
        allowed = FOLDERS.get(folder)
        if allowed is not None and name.split(".")[0] not in allowed:
            bad.append(f"{path}: belongs into a sub-folder of {folder} "
                       f"(outside: {', '.join(allowed)})")
        for suffix, pattern, door, what in ONLY:
            if re.search(suffix, path) and not re.fullmatch(door, path) and (
                    not pattern or re.search(pattern, strip(read(args.root, path)))):
                bad.append(f"{path}: {what} stands in {door} only")
    return bad


def drawn_rooms(page):
    """(folders of the tree that ARCHITECTURE.md draws, folders that it calls planned). A folder is a
    row, `├── name/`, or a word of its text, `name/`; `<word>` stands for any one name."""
    word = re.compile(r"(?<![\w/`.<>-])((?:[\w.-]+|<\w+>)(?:/(?:[\w.-]+|<\w+>))*)/(?![\w<*.])")
    drawn, above = set(), []
    block = re.search(r"^```\ncapstan/\n(.*?)^```", page, re.S | re.M)
    for line in block.group(1).split("\n") if block else ():
        row = re.match(r"((?:│   |    )*)[├└]── ([\w.-]+)/(.*)", line)
        if not row:
            continue
        del above[len(row[1]) // 4:]
        above.append(row[2])
        room = "/".join(above)
        drawn.add(room)
        drawn.update(f"{room}/{w}" for w in word.findall(row[3]))
    planned = re.search(r"^Planned rooms:(.*?)(?:\n\n|\Z)", page, re.S | re.M)
    return drawn, set(re.findall(r"`([\w/-]+)/`", planned.group(1) if planned else ""))


def rooms_on_disk(root):
    """(all folders but hidden ones and the build, those at the top or with sources in them)."""
    there, rooms = set(), set()
    for folder, dirs, files in os.walk(root):
        dirs[:] = [d for d in dirs if not d.startswith((".", "__"))
                   and not (folder == root and d == "build")]
        path = os.path.relpath(folder, root)
        if path == ".":
            continue
        there.add(path)
        if "/" not in path or any(f.endswith(SOURCE + (".def", ".py")) for f in files):
            rooms.add(path)
    return there, rooms


def check_tree(args):
    """The tree of docs/ARCHITECTURE.md is what lies on the disk."""
    name, path = "docs/ARCHITECTURE.md", os.path.join(args.root, "docs", "ARCHITECTURE.md")
    drawn, planned = drawn_rooms(read(args.root, name) if os.path.exists(path) else "")
    there, rooms = rooms_on_disk(args.root)
    if not drawn:
        return [f"{name}: has no block that begins with capstan/"]
    patterns = {d: re.compile(re.sub(r"<\w+>", r"[\\w-]+", d)) for d in drawn}
    bad = [f"{name}: draws {d}/, which is not there; what has no code yet belongs among the planned rooms"
           for d, p in patterns.items() if not any(p.fullmatch(t) for t in there)]
    bad += [f"{r}/: does not stand in the tree of {name}" for r in rooms
            if not any(p.fullmatch(r) for p in patterns.values())]
    bad += [f"{name}: calls {p}/ planned, and it is there; draw it in the tree" for p in planned & there]
    return sorted(bad)


def check_headers(args):
    """Each header compiles on its own; its first lines may name flags: `lint-flags: -mavx2`."""
    bad = []
    for path in sources(args.root, (".h",)):
        head = "\n".join(read(args.root, path).split("\n")[:20])
        extra = re.search(r"lint-flags:\s*([^\n*]*)", head)
        command = [args.cc, "-std=c17", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Wpedantic",
                   "-Wundef", "-Werror", "-Wno-unused-function", "-I", args.root,
                   "-Wno-psabi", "-fsyntax-only", "-x", "c",
                   "-include", os.path.join(args.root, path),
                   "-include", os.path.join(args.root, path), "-"]
        if extra:
            command[1:1] = extra.group(1).split()
        run = subprocess.run(command, input="typedef int cp_unit;\n", capture_output=True,
                             text=True)
        if run.returncode:
            bad.append(f"{path}: does not compile alone\n{run.stderr.strip()[:600]}")
    return bad


def public_headers():
    return [f"{room}/{room}.h" for room in ROOMS] + ["kv-cache/kv.h"]


def functions(text):
    """(first line, lines) of each function body; clang-format puts its braces in column 0."""
    start = None
    for number, line in enumerate(text.split("\n"), 1):
        if line.startswith("{"):
            start = number
        elif line.startswith("}") and start:
            yield start, number - start + 1
            start = None


def check_sizes(args):
    bad, lengths = [], []
    for path in sources(args.root, generated=False):
        text = read(args.root, path)
        lines = text.count("\n")
        if lines > FILE_LINES:
            bad.append(f"{path}: {lines} lines; allowed: {FILE_LINES}")
        if path in public_headers() and lines > PUBLIC_HEADER_LINES:
            bad.append(f"{path}: {lines} lines; allowed: {PUBLIC_HEADER_LINES}")
        for first, n in functions(text):
            lengths.append(n)
            if n > FUNCTION_LINES:
                bad.append(f"{path}:{first}: a function of {n} lines; allowed: {FUNCTION_LINES}")
    if lengths:
        lengths.sort()
        print(f"{len(lengths)} functions, length p50 {lengths[len(lengths) // 2]}, "
              f"p95 {lengths[len(lengths) * 95 // 100]}, max {lengths[-1]} lines")
    return bad


def check_banned(args):
    bad = []
    pattern = re.compile(r"\b(" + "|".join(BANNED) + r")\s*\(")
    for path in sources(args.root):
        for number, line in enumerate(strip(read(args.root, path)).split("\n"), 1):
            m = pattern.search(line)
            if m:
                bad.append(f"{path}:{number}: {m.group(1)}() is banned")
    return bad


def types(text):
    """The cp_ types that a header defines."""
    named = re.finditer(r"^(?:typedef )?(?:struct|enum|union) (cp_\w+)\s*\{|^\}\s*(cp_\w+);", text, re.M)
    return {m.group(1) or m.group(2) for m in named}


def twice_named(root):
    """Types of one name in two headers: two of them meet in a file some day."""
    first, bad = {}, []
    for path in sources(root):
        for name in sorted(types(strip(read(root, path)))) if path.endswith(".h") else ():
            if first.setdefault(name, path) != path:
                bad.append(f"{path}: the type {name} is also in {first[name]}")
    return bad


def check_names(args):
    """A type's name is one header's. What comments name is there: functions and types (cp_*), files
    by a path from a room."""
    code, comments = set(), []
    for path in sources(args.root):
        text = read(args.root, path)
        code.update(re.findall(r"\w+", strip(text)))
        comments += [(path, text[:m.start()].count("\n"), m.group(0))
                     for m in re.finditer(r"/\*.*?\*/|//[^\n]*", text, re.S)]
    named = re.compile(r"\b(?P<id>cp_\w*[A-Za-z0-9])\b(?![_*<])|"
                       r"(?<![\w/.])(?P<path>(?:" + "|".join(ROOMS) +
                       r")/[\w/-]+\.(?:c|h|inc|def|py|cuh?))\b|(?P<cite>\w+(?: |\n \* )reference(?: |\n \* )§[\d.]+)")
    bad = twice_named(args.root)
    for path, line, comment in comments:
        for m in named.finditer(comment):
            # archs/x.c and cp_f(x) stand for any of their kind
            if m["id"] and (m["id"] in code or len(m["id"]) == 4):
                continue
            if m["path"] and (os.path.exists(os.path.join(args.root, m["path"])) or
                              m["path"].endswith("/x.c")):
                continue
            bad.append(f"{path}:{line + 1 + comment[:m.start()].count(chr(10))}: "
                       f"'{m.group(0)}' is not in this tree")
    return bad


def commands(args):
    """The build's compile commands; None: it has none."""
    try:
        with open(os.path.join(args.build, "compile_commands.json"), encoding="utf-8") as f:
            return json.load(f)
    except FileNotFoundError:
        return None


def objects(args):
    """{source: object that the build makes of it}, of the first target that compiles it."""
    found = {}
    for c in commands(args) or []:
        made = re.search(r" -o (\S+)", c["command"])
        if made:
            path = os.path.realpath(os.path.join(c["directory"], c["file"]))
            found.setdefault(path, os.path.realpath(os.path.join(c["directory"], made.group(1))))
    return found


def definition(text, name):
    """The line of a function's definition in the house's format, of a type or of a macro; or None."""
    for pattern in (rf"^\w[\w\s*]*?\b{name}\([^;{{]*\)\n{{", rf"^(?:typedef )?(?:struct|enum|union) {name} {{",
                    rf"^#define {name}\b", rf"^(?:static )?const \w[\w\s*]*\b{name}\b[^;]* = {{"):
        m = re.search(pattern, text, re.M)
        if m:
            return text[:m.start()].count("\n") + 1
    return None


def check_anchors(args):
    """What pages name is there. `engine/loop.c:94 turn`: the function, within a screen of that line
    (--fix: that very line); `kernels/cpu/exec.c`: the file."""
    bad = []
    rooms = "|".join(ROOMS)
    where = re.compile(rf"`((?:{rooms})/[\w./-]+\.(?:c|h|inc)):(\d+)(?: (\w+))?`")
    path = re.compile(rf"(?<![\w/.*-])(?:{rooms})/[\w/-]+\.(?:c|h|inc|def|py)\b")
    folder = os.path.join(args.root, "docs")
    for page in sorted(os.listdir(folder)) if os.path.isdir(folder) else ():
        if not page.endswith(".md"):
            continue
        text, moved = read(folder, page), []
        for m in path.finditer(text):
            any_of_its_kind = re.search(r"[/_]x(_json)?\.\w+$", m[0])
            if not any_of_its_kind and not os.path.exists(os.path.join(args.root, m[0])):
                bad.append(f"docs/{page}:{text[:m.start()].count(chr(10)) + 1}: no file {m[0]}")
        for m in where.finditer(text):
            at = f"docs/{page}:{text[:m.start()].count(chr(10)) + 1}: {m[1]}:{m[2]}"
            source = os.path.join(args.root, m[1])
            line = definition(read(args.root, m[1]), m[3]) if m[3] and os.path.exists(source) else None
            if not m[3]:
                bad.append(f"{at} names no function")
            elif line is None:
                bad.append(f"{at}: {m[3]} is not defined there")
            elif args.fix:
                moved.append((m.span(2), str(line)))
            elif abs(line - int(m[2])) > SCREEN:
                bad.append(f"{at}: {m[3]} is at line {line}; `lint.py anchors --fix` moves it")
        if moved:
            for (start, end), line in reversed(moved):
                text = text[:start] + line + text[end:]
            with open(os.path.join(folder, page), "w", encoding="utf-8") as f:
                f.write(text)
    return bad


def archives(args):
    found, made = [], set(objects(args).values())
    for folder, _, files in os.walk(args.build):
        found += [os.path.join(folder, f) for f in files
                  if re.fullmatch(r"libcp_.*\.a", f)]
        if "/capstan.dir" in folder:  # objects of files that have moved elsewhere may lie there still
            found += [os.path.join(folder, f) for f in files
                      if os.path.realpath(os.path.join(folder, f)) in made]
    if not found:
        print(f"skipped: no libcp_*.a below {args.build}")
        sys.exit(77)
    return sorted(found)


def unbuilt(args):
    """Sources that the build does not hold as they are now: what it says of them is worth nothing."""
    if commands(args) is None:
        return [f"{args.build} has no compile_commands.json: configure and build first"]
    made_of = objects(args)
    bad = []
    for path in sources(args.root, (".c",)):
        if path.startswith(("tests/", "bench/")):
            continue
        full = os.path.realpath(os.path.join(args.root, path))
        made = made_of.get(full)
        if not made:
            bad.append(f"{path}: no target compiles it")
        elif not os.path.exists(made) or os.path.getmtime(made) < os.path.getmtime(full):
            bad.append(f"{path}: newer than the build in {args.build}; build first")
    return bad


def check_symbols(args):
    bad, defined = unbuilt(args), {}
    for path in archives(args):
        run = subprocess.run(["nm", "-g", "--defined-only", path], capture_output=True, text=True)
        for line in run.stdout.split("\n"):
            m = re.match(r"[0-9a-f]+ ([A-Z]) (\S+)$", line)
            if m and m.group(1) not in "VW" and m.group(2).startswith("cp_"):
                first = defined.setdefault(m.group(2), os.path.basename(path))
                if first != os.path.basename(path):  # a program that needs both does not link
                    bad.append(f"{os.path.basename(path)}: {m.group(2)} is also in {first}")
            if m and not m.group(2).startswith(("cp_", "__")) and m.group(2) != "main":
                bad.append(f"{os.path.basename(path)}: {m.group(2)} does not begin with cp_")
    return bad


def check_globals(args):
    found = set()
    for path in archives(args):
        run = subprocess.run(["objdump", "-t", path], capture_output=True, text=True)
        member = ""
        for line in run.stdout.split("\n"):
            m = re.match(r"(\S+):\s+file format", line)
            if m:
                member = m.group(1)
            m = re.match(r"[0-9a-f]+ .{7} (\.t?(?:data|bss)\S*|\*COM\*)\s+([0-9a-f]+)\s+"
                         r"(?:\.hidden )?(\S+)$", line)
            if not m or int(m.group(2), 16) == 0 or m.group(1).startswith(".data.rel.ro"):
                continue
            name = m.group(3)
            if name.startswith(("__", ".")):
                continue
            found.add(f"{os.path.basename(path)}({os.path.basename(member)}): {name}")
    print(f"{len(found)} mutable globals (allowed: {GLOBALS})")
    for name in sorted(found):
        print(f"  {name}")
    bad = unbuilt(args)
    return bad if len(found) <= GLOBALS else bad + [f"{len(found)} mutable globals; "
                                                    f"allowed: {GLOBALS}"]


def a_cycle(arrows):
    """Nodes of a path that ends where it begins, in {node: set of nodes}; None: there is none."""
    left = {node: set(below) for node, below in arrows.items()}
    while True:  # take away what points at nothing; what remains points on for ever
        floor = {n for below in left.values() for n in below if not left.get(n)}
        floor |= {n for n, below in left.items() if not below}
        if not floor:
            break
        left = {n: below - floor for n, below in left.items() if n not in floor}
    if not left:
        return None
    path = [min(left)]
    while path.count(path[-1]) < 2:
        path.append(min(left[path[-1]]))
    return path[path.index(path[-1]):]


def includes(root, path):
    return re.findall(r'^\s*#\s*include\s*"([^"]+)"', read(root, path), re.M)


def calls(archive):
    """{file: files of the same archive that define what it leaves undefined}, without the .o."""
    run = subprocess.run(["nm", "-g", archive], capture_output=True, text=True)
    member, defined, wanted = "", {}, []
    for line in run.stdout.split("\n"):
        m = re.match(r"(\S+?)(?:\.c)?\.o:$", line)
        if m:
            member = re.sub(r"^.*?-", "", m.group(1))
        m = re.match(r"[0-9a-f ]* ([A-Zw]) (\S+)$", line)
        if m and m.group(1) == "U":
            wanted.append((member, m.group(2)))
        elif m:
            defined[m.group(2)] = member
    arrows = {}
    for member, symbol in wanted:
        if symbol in defined:
            arrows.setdefault(member, set()).add(defined[symbol])
    return arrows


def include_arrows(root, room):
    """{file of the room, without suffix: files of it that it includes}."""
    def node(path):
        alone = path in public_headers() or path.endswith(".def")
        return path if alone else os.path.splitext(path)[0]
    paths = [p for p in sources(root, SOURCE + (".def",)) if p.startswith(f"{room}/")]
    here, arrows = {node(p) for p in paths}, {}
    for path in paths:
        below = {node(i) for i in includes(root, path)} & here - {node(path)}
        arrows.setdefault(node(path), set()).update(below)
    return arrows


def check_cycles(args):
    """No header includes itself over others; in rooms of floors no file includes or calls upward."""
    bad = unbuilt(args)
    headers = {p: {i for i in includes(args.root, p) if i.endswith(".h")}
               for p in sources(args.root, (".h",))}
    cycle = a_cycle(headers)
    if cycle:
        bad.append("headers include each other: " + " -> ".join(cycle))
    for room in FLOORS:
        arrows = include_arrows(args.root, room)
        archive = [a for a in archives(args) if os.path.basename(a) == f"libcp_{room}.a"]
        for unit, below in calls(archive[0]).items() if archive and room in CALLS else ():
            arrows.setdefault(f"{room}/{unit}", set()).update(f"{room}/{b}" for b in below)
        cycle = a_cycle(arrows)
        if cycle:
            bad.append(f"{room}: files need each other: " + " -> ".join(cycle))
    return bad


def check_format(args):
    for tool in ("clang-format-14", "clang-format"):
        if shutil.which(tool):
            version = subprocess.run([tool, "--version"], capture_output=True, text=True).stdout
            if re.search(r"version 14\.", version):
                break
    else:
        print("skipped: clang-format 14 is not here")
        sys.exit(77)
    paths = sources(args.root, generated=False)
    run = subprocess.run([tool, "--style=file", "--dry-run", "-Werror"] + paths, cwd=args.root,
                         capture_output=True, text=True)
    changed = sorted(set(re.findall(r"^(\S+?):\d+:\d+: error:", run.stderr, re.M)))
    if run.returncode and not changed:
        changed = [run.stderr.strip()[:600]]
    return [f"{path}: {tool} would change it" for path in changed]


CHECKS = {"anchors": check_anchors, "layers": check_layers, "folders": check_folders, "tree": check_tree, "headers": check_headers, "sizes": check_sizes,
          "banned": check_banned, "names": check_names, "symbols": check_symbols, "globals": check_globals,
          "cycles": check_cycles,
          "format": check_format}


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    parser = argparse.ArgumentParser()
    parser.add_argument("check", choices=sorted(CHECKS))
    parser.add_argument("--root", default=os.path.dirname(os.path.dirname(here)))
    parser.add_argument("--build", default=".")
    parser.add_argument("--cc", default="cc")
    parser.add_argument("--fix", action="store_true", help="anchors: write what is right")
    args = parser.parse_args()
    bad = CHECKS[args.check](args)
    for line in bad:
        print(line)
    print(f"{args.check}: {len(bad)} breaches")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
