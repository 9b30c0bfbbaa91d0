"""Starts the fake server of llm_server.c and reads what it wrote down. Standard library only.

CAPSTAN_FAKE_LLM names the binary (ctest sets it).
"""
import os
import subprocess
import sys
import tempfile
import urllib.request

BIN = os.environ.get("CAPSTAN_FAKE_LLM")
if not BIN or not os.access(BIN, os.X_OK):
    sys.exit(f"CAPSTAN_FAKE_LLM is {BIN!r}; it must name the fake server: CAPSTAN_FAKE_LLM=build/release/tests/fakes/fake_llm")


class Request:
    """What the server did for one request; times in ms of the monotonic clock, None: it did not come to that."""

    def __init__(self, number):
        self.number = number
        self.api = self.received = self.begun = self.end = self.fate = self.over = None
        self.prompt_tokens = 0
        self.chunks = []  # (time, tokens that are out then)

    @property
    def tokens(self):
        return self.chunks[-1][1] if self.chunks else 0


class FakeLLM:
    """Use as a context manager; .url while it runs, .requests() once it has been left."""

    def __init__(self, *options, preexec_fn=None):
        handle, self.log = tempfile.mkstemp(suffix=".fake.log")
        os.close(handle)
        self.process = subprocess.Popen([BIN, f"log={self.log}", *options], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        preexec_fn=preexec_fn)
        port = self.process.stdout.readline()
        if not port:
            raise AssertionError(f"the fake server ended with {self.process.wait()}")
        self.url = f"http://127.0.0.1:{int(port)}"
        self.rows = self.late_us = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()
        os.unlink(self.log)

    def metric(self, name):
        with urllib.request.urlopen(self.url + "/metrics", timeout=60) as r:
            rows = dict(line.rsplit(" ", 1) for line in r.read().decode().splitlines())
        return int(float(rows[name]))

    def running(self):
        """Requests that it has taken and not ended, silent ones too."""
        return self.metric('vllm:num_requests_running{model_name="fake"}')

    def silent(self):
        """Those of them that it will never answer."""
        return self.metric("fake_requests_silent")

    def stop(self):
        """Ends it; the log is whole then."""
        if self.rows is None:
            self.process.stdin.close()
            self.process.wait(60)
            self.process.stdout.close()
            self.rows = self.read()

    def read(self):
        rows = {}
        with open(self.log, encoding="ascii") as f:
            for line in f:
                at, number, event, *rest = line.split()
                if event == "late":
                    self.late_us = int(rest[0])
                    continue
                r, ms = rows.setdefault(int(number), Request(int(number))), int(at) / 1e6
                if event == "received":
                    r.received, r.api, r.prompt_tokens = ms, rest[0], int(rest[1])
                elif event == "chunk":
                    r.chunks.append((ms, int(rest[0])))
                elif event in ("begun", "end"):
                    setattr(r, event, ms)
                elif event != "role":
                    r.fate, r.over = " ".join([event] + rest[:-1]), ms
                    if event == "refused":
                        r.fate = f"refused {rest[0]}"
        return rows

    def requests(self):
        """Of the ended server: every request that generates, by number."""
        self.stop()
        return [self.rows[n] for n in sorted(self.rows)]
