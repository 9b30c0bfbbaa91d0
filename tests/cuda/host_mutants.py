#!/usr/bin/env python3
"""Faults planted in the host's side of kernels/cuda, one at a time: a test has to see each.

Usage: host_mutants.py --build DIR --driver LIBCUDA --blas LIBCUBLAS [--only REGEX] [--tests REGEX] [--list]

The faults are rows of host_mutants.toml: a text of a source, which has to stand there exactly once, what takes its place, and the test
that turns red. Of a row that source alone is compiled anew, and the test is linked with it, both in a folder of their own. The test runs
on the driver without a GPU in each of its modes until one of them sees the fault; before all rows each test has to be green in each
mode. A row with a reason beside its fault changes nothing that can be seen: one that is seen all the same has to lose its reason. A row
without a fault says why there is none.
"""
import argparse
import json
import os
import pathlib
import re
import resource
import shlex
import signal
import subprocess
import sys
import tempfile
import tomllib

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parent.parent
MODES = ("lazy", "eager:1", "eager:2", "eager:3", "eager:4", "eager:5")
TIMEOUT_S = 300


class Build:
    """What a build tree says of how a source is compiled and a test is linked."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        rows = json.loads((self.folder / "compile_commands.json").read_text())
        self.compilers = {os.path.realpath(os.path.join(row["directory"], row["file"])): shlex.split(row["command"]) for row in rows}

    def compile(self, source, text, folder):
        """The object of a source of the tree with another text."""
        path, out = pathlib.Path(folder, source.name), pathlib.Path(folder, source.stem + ".o")
        path.write_text(text)
        command = [word for word in self.compilers[os.path.realpath(source)] if word not in ("-Werror", "-O3")]
        command[command.index("-o") + 1], command[command.index("-c") + 1] = str(out), str(path)
        subprocess.run(command + ["-O1", "-w"], cwd=self.folder, check=True)
        return out

    def link(self, binary, objects, folder):
        """The test, with objects in front of the libraries that have others of these."""
        lines = subprocess.run(["ninja", "-t", "commands", binary], cwd=self.folder, check=True, capture_output=True, text=True).stdout
        words = shlex.split(lines.rstrip().split("\n")[-1])
        words = words[words.index("&&") + 1:len(words) - words[::-1].index("&&") - 1]
        out = pathlib.Path(folder, pathlib.Path(binary).name)
        words[words.index("-o") + 1] = str(out)
        first = next(i for i, word in enumerate(words) if word.endswith(".a"))
        subprocess.run(words[:first] + [str(o) for o in objects] + words[first:], cwd=self.folder, check=True)
        return out


def red(binary, test, mode, args):
    """Does the test fail, die or hang?"""
    name, _, seed = mode.partition(":")
    env = {**os.environ, "CAPSTAN_LIBCUDA": args.driver, "CAPSTAN_LIBCUBLAS": args.blas, "CMOCKA_TEST_ABORT": "1", "FAKE_MODE": name,
           "FAKE_SEED": seed or "1", "FAKE_RACE": "0", **test.get("env", {})}
    run = subprocess.Popen([str(binary)], cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        said = run.communicate(timeout=TIMEOUT_S)[0]
        if run.returncode == 77:
            sys.exit(f"{test['binary']} was skipped: {said.decode(errors='replace')[-300:]}")
        return run.returncode != 0, said
    except subprocess.TimeoutExpired:
        os.killpg(run.pid, signal.SIGKILL)
        run.communicate()
        return True, b"no end"


def modes_of(test):
    return test.get("modes", MODES)


def all_green(build, tests, args):
    bad = 0
    for name, test in tests.items():
        for mode in modes_of(test):
            failed, said = red(build.folder / test["binary"], test, mode, args)
            if failed:
                bad += 1
                print(f"{name} is red in mode {mode} without a fault:\n{said.decode(errors='replace')[-1500:]}")
    return not bad


def planted(row):
    """The text of the row's file with its fault; the text has to be there once."""
    text = (ROOT / row["file"]).read_text()
    if text.count(row["old"]) != 1:
        sys.exit(f"host_mutants.toml: '{row['name']}': its text stands {text.count(row['old'])} times in {row['file']}, wanted: once")
    return text.replace(row["old"], row["new"])


def seen_in(build, row, tests, args):
    """The test and mode that see the fault; None: it survives."""
    with tempfile.TemporaryDirectory() as folder:
        made = [build.compile(ROOT / row["file"], planted(row), folder)]
        for name in row["tests"]:
            binary = build.link(tests[name]["binary"], made, folder)
            for mode in modes_of(tests[name]):
                if red(binary, tests[name], mode, args)[0]:
                    return f"{name}, {mode}"
    return None


def options():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", default="")
    parser.add_argument("--driver", default="")
    parser.add_argument("--blas", default="")
    parser.add_argument("--only", default="", help="rows whose item or name has this")
    parser.add_argument("--tests", default=".*", help="and whose tests are all called so")
    parser.add_argument("--list", action="store_true", help="hold the rows against the sources, run nothing")
    return parser.parse_args()


def main():
    args = options()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    table = tomllib.loads((HERE / "host_mutants.toml").read_text())
    rows = [row for row in table["mutant"] if re.search(args.only, row["item"] + ": " + row["name"])
            and all(re.fullmatch(args.tests, name) for name in row.get("tests", []))]
    faults = [row for row in rows if "file" in row]
    for row in faults:
        planted(row)
    if args.list:
        for row in rows:
            print(f"{row['item']}: {row['name']}: {row.get('file', '')} {row.get('reason', '')}".rstrip())
        return 0
    build, tests = Build(args.build), table["tests"]
    if not all_green(build, {name: tests[name] for row in faults for name in row["tests"]}, args):
        return 2
    wrong = 0
    for row in faults:
        seen, reason = seen_in(build, row, tests, args), row.get("reason")
        wrong += bool(seen) == bool(reason)
        state = f"seen by {seen}" if seen else "survived"
        note = " THOUGH IT HAS A REASON" if seen and reason else f": {reason}" if reason else "" if seen else " AND HAS NO REASON"
        print(f"{row['item']}: {row['name']}: {state}{note}", flush=True)
    print(f"{len(faults)} faults, {wrong} of them not as the table says")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
