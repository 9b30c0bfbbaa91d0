#!/usr/bin/env python3
"""Plays the corpus of replay_rows.py against a binary and prints what it answers, or tells two binaries apart by it.

    replay.py BIN [--only NAME]...        every answer on stdout: head, body (chunks joined), the log's lines
    replay.py BIN BIN [--only NAME]...    both are played; the answers that differ, exit 1

One request at a time, at temperature 0 or with a seed, so that a binary answers itself byte for byte; what no two runs share
(ids, dates, durations, ports, the build's name) is masked. NAME is a server's of replay_rows.py, or "run". SmolLM2 is CAPSTAN_MODEL;
without it what needs it is left out, and said. Answers are kept nowhere: they may depend on the ISA level. Standard library only.
"""
import argparse
import difflib
import os
import pathlib
import re
import socket
import subprocess
import sys
import tempfile
import time

import replay_rows as rows

MASKS = [(re.compile(p), r) for p, r in (
    (rb"(?<=\r\nDate: )[^\r]*", b"DATE"),
    (rb"\b(req|chatcmpl|cmpl)-[0-9a-f]{24}", rb"\1-ID"),
    (rb'(?<="created":)\d+', b"0"),
    (rb"\bcapstan-[^ \"]*-[0-9a-f]{12}\b", b"FINGERPRINT"),
    (rb'(?<="version":")[^"]*', b"VERSION"),
    (rb"\bms=[\d.]+", b"ms=0"),
    (rb"(status=504 .*) completion=\d+", rb"\1 completion=0"),
    (rb'(?m)^(capstan_requests_total\{code="503"\}) \d+$', rb"\1 0"),  # of the first probes
    # of /metrics what measures time and memory, or counts steps
    (rb"(?m)^((?:capstan_|vllm:)\w*(?:seconds|bytes|steps|rows|build|info|rate|resident|faults|joules)\w*(?:\{[^}\n]*\})?) \S+$", rb"\1 0"),
    (rb'(?m)^(capstan_build_info\{)[^}]*', rb"\1"),
    (rb"(?m)^(process_\w+) \S+$", rb"\1 0"),
    (rb"(?<=\r\nContent-Length: )\d+(?=\r\n(?:[^\r]+\r\n)*\r\n# HELP)", b"0"),
    (rb"(?<=path=/metrics status=200 ms=0 bytes=)\d+", b"0"),
)]
LOGGED = re.compile(r"\b(?:access |request |slow_reader)|\b(?:WARN|ERROR)\b")
STAMP = re.compile(r"^\S+T\S+Z? +")


def mask(data):
    for pattern, by in MASKS:
        data = pattern.sub(by, data)
    return data


def joined(data):
    """An answer's chunks as one body: where they were cut depends on time."""
    out = b""
    while data:
        head, sep, body = data.partition(b"\r\n\r\n")
        out += head + sep
        if b"Transfer-Encoding: chunked" in head:
            while body:
                size, _, rest = body.partition(b"\r\n")
                n = int(size, 16)
                out += rest[:n]
                body = rest[n + 2:]
                if n == 0:
                    out += b"(end)"
                    break
        elif (m := re.search(rb"\r\nContent-Length: (\d+)", head)) and len(body) > int(m[1]):
            out += body[:int(m[1])]
            body = body[int(m[1]):]
        else:
            return out + body
        data = body
    return out


def ordered(answer):
    """A stream's events by their choice's index: prompts of one request take turns as time has it."""
    events = answer.split(b"data: ")
    index = [re.search(rb'"choices":\[\{"index":(\d+)', e) for e in events]
    return b"data: ".join(e for _, _, e in sorted((int(m[1]) if m else 0 if i == 0 else 1 << 30, i, e)
                                                  for i, (m, e) in enumerate(zip(index, events))))


def ask(port, data):
    try:
        s = socket.create_connection(("127.0.0.1", port), timeout=600)
    except ConnectionRefusedError:
        return b""
    with s:
        try:
            s.sendall(data)
        except OSError:
            pass  # refused before it was sent whole; the answer is there to read
        answer = b""
        try:
            while piece := s.recv(1 << 16):
                answer += piece
        except ConnectionResetError:
            pass
    return answer


class Player:
    def __init__(self, binary, folder):
        self.binary, self.folder = binary, folder
        self.env = {**os.environ, "CAPSTAN_STORE": os.path.join(folder, "store")}
        for name, text in rows.FILES.items():
            path = os.path.join(folder, name)
            pathlib.Path(path).write_text(text.replace("TEMPLATE", os.path.join(folder, "TEMPLATE")), encoding="utf-8")
            os.chmod(path, 0o600)

    def arguments(self, model, args):
        path = [] if model == "" else [str(rows.TINY / model) if model else os.environ["CAPSTAN_MODEL"]]
        return path + [os.path.join(self.folder, a) if a in rows.FILES else a for a in args]

    def server(self, model, args, requests):
        """[(what was asked, what was answered)], the log at last."""
        log = open(os.path.join(self.folder, "log"), "w+", encoding="utf-8", errors="replace")
        process = subprocess.Popen([self.binary, "serve", "--port", "0", "--threads", "1", "--drain-grace", "0s", *self.arguments(model, args)],
                                   stderr=log, env=self.env)
        try:
            end, said, port = time.monotonic() + 300, "", None
            while not port or b" 200 " not in ask(port, rows.http("GET", "/readyz"))[:16]:
                time.sleep(0.05)
                said = pathlib.Path(log.name).read_text(encoding="utf-8")
                assert process.poll() is None and time.monotonic() < end, said
                found = re.search(r"listening on http://127\.0\.0\.1:(\d+)", said)
                port = found and int(found[1])
            done = []
            for data in requests:
                answer = joined(ask(port, data))
                if re.search(rb'"prompt": ?\[["[]', data):
                    answer = ordered(answer)
                done.append((data[:300], mask(answer).replace(b":%d" % port, b":PORT")))
            process.terminate()
            rc = process.wait(60)
        finally:
            process.kill()
            process.wait()
        lines = [STAMP.sub("", line) for line in pathlib.Path(log.name).read_text(encoding="utf-8").splitlines()
                 if LOGGED.search(line) and "path=/readyz" not in line]
        log.close()
        return done + [(b"log, exit code", f"{rc}\n".encode() + mask("\n".join(lines).encode()))]

    def run(self, model, args, stdin):
        done = subprocess.run([self.binary, "run", *self.arguments(model, args), "--threads", "1"], input=stdin, capture_output=True, check=False,
                              timeout=600, env=self.env)
        errors = "\n".join(line for line in done.stderr.decode("utf-8", "replace").splitlines() if not re.match(r"\S+T\S+Z? ", line))
        return (f"run {model or 'SmolLM2'} {args}"[:300].encode(),
                b"%d\n%s\n-- stderr\n%s" % (done.returncode, done.stdout, errors.replace(self.folder, "DIR").encode()))


def play(binary, only):
    """[(name, what was asked, what was answered)]"""
    done = []
    smol = os.environ.get("CAPSTAN_MODEL")
    with tempfile.TemporaryDirectory() as folder:
        player = Player(binary, folder)
        for name, model, args, make in rows.SERVERS:
            if only and name not in only:
                continue
            if model is None and not smol:
                print(f"skipped: {name} needs CAPSTAN_MODEL", file=sys.stderr)
                continue
            done += [(name, *pair) for pair in player.server(model, args, make())]
        for model, args, stdin in rows.RUNS:
            if (not only or "run" in only) and (model or smol):
                done.append(("run", *player.run(model, args, stdin)))
    return done


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("binary", nargs="+")
    parser.add_argument("--only", action="append", default=[])
    args = parser.parse_args()
    played = [play(os.path.abspath(b), args.only) for b in args.binary[:2]]
    if len(played) == 1:
        for name, asked, answer in played[0]:
            sys.stdout.buffer.write(b"=== %s: %r\n%s\n" % (name.encode(), asked, answer))
        return 0
    assert len(played[0]) == len(played[1])
    different = [(a, b) for a, b in zip(*played) if a != b]
    for a, b in different:
        print(f"=== {a[0]}: {a[1]!r}")
        lines = [[repr(line) for line in x[2].split(b"\n")] for x in (a, b)]
        print("\n".join(list(difflib.unified_diff(*lines, *args.binary[:2], lineterm="", n=0))[:40]))
    print(f"{len(played[0])} answers, {sum(len(p[2]) for p in played[0])} bytes: {len(different)} differ")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
