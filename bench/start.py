#!/usr/bin/env python3
"""From exec to the first SSE byte of an answer: `capstan serve` as a new process, a prompt of 16 tokens, warm page cache.

    start.py CAPSTAN REF [--runs 5] [-- more options of serve]

A run prints when the server listened, was ready, sent the first byte and the first token, in ms after exec; its resident memory
then (all, and without the mapped file); the last line holds medians. Standard library only.
"""
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time

WORDS = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"


def status(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as f:
        rows = dict(line.split(":", 1) for line in f if ":" in line)
    return {k: int(rows[k].split()[0]) * 1024 for k in ("VmRSS", "RssAnon", "RssFile", "RssShmem")}


def call(port, head, body=b""):
    s = socket.create_connection(("127.0.0.1", port))
    s.sendall(head.encode() + b"Host: localhost\r\nConnection: close\r\n" +
              (f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() if body else b"\r\n") + body)
    return s


def run(binary, ref, options):
    log = tempfile.TemporaryFile("w+")  # a pipe would fill up with access lines
    begin = time.monotonic()
    p = subprocess.Popen([binary, "serve", ref, "--port", "0", *options], stderr=log)
    at = lambda: (time.monotonic() - begin) * 1e3
    try:
        while not (m := re.search(r"listening on http://127\.0\.0\.1:(\d+)", os.pread(log.fileno(), 4096, 0).decode())):
            assert p.poll() is None, "the server ended"
            time.sleep(0.001)
        port, out = int(m[1]), {"listening": at()}
        while b" 200 " not in call(port, "GET /readyz HTTP/1.1\r\n").recv(64):
            time.sleep(0.002)
        out["ready"] = at()
        s = call(port, "POST /v1/completions HTTP/1.1\r\n",
                 json.dumps({"prompt": WORDS, "max_tokens": 4, "temperature": 0, "stream": True, "ignore_eos": True}).encode())
        got = s.recv(65536)
        out["first_byte"] = at()
        while b"data: " not in got:
            got += s.recv(65536)
        out["first_event"] = at()
        m = status(p.pid)
        out["rss_mib"], out["anon_mib"] = m["VmRSS"] / 2**20, m["RssAnon"] / 2**20
        while s.recv(65536):
            pass
        return out
    finally:
        p.kill()
        p.wait()


def main():
    args, options = sys.argv[1:], []
    if "--" in args:
        args, options = args[:args.index("--")], args[args.index("--") + 1:]
    runs = 5
    if "--runs" in args:
        i = args.index("--runs")
        runs = int(args[i + 1])
        del args[i:i + 2]
    all_runs = []
    for _ in range(runs):
        all_runs.append(run(args[0], args[1], options))
        print(json.dumps({k: round(v, 1) for k, v in all_runs[-1].items()}))
    print(json.dumps({"median": {k: round(statistics.median(r[k] for r in all_runs), 1) for k in all_runs[0]}}))


main()
