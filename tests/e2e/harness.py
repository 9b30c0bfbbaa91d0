"""What the end-to-end tests share: the real binary on a free port, its metrics, raw sockets. Standard library only."""
import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request

BIN = os.environ.get("CAPSTAN_BIN")
if not BIN or not os.access(BIN, os.X_OK):
    sys.exit(f"CAPSTAN_BIN is {BIN!r}; it must name the binary to test: CAPSTAN_BIN=build/release/capstan python3 {sys.argv[0]}")


class Server:
    """`capstan serve` with extra arguments; use as a context manager. Keeps stderr in .log. ready=False: it only listens;
    files: how many it may open; cores: the kernel may dump it; commands: its standard input and output are pipes."""

    escapes = False  # it tries what its sandbox refuses

    def __init__(self, *args, env=None, ready=True, files=None, cores=False, commands=False, cwd=None):
        def limit():
            if files:
                resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
            if cores:
                resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

        self.escapes = "escape:try" in (env or {}).get("CAPSTAN_FAULT", "")
        self.err = tempfile.NamedTemporaryFile("w+", suffix=".log", delete=False)
        self.process = subprocess.Popen([BIN, "serve", "--port", "0", *args], stderr=self.err,
                                        stdin=subprocess.PIPE if commands else None, stdout=subprocess.PIPE if commands else None,
                                        env={**os.environ, **(env or {})}, cwd=cwd, preexec_fn=limit if files or cores else None)
        self.port = int(self.wait_log(r"listening on http://127\.0\.0\.1:(\d+)")[1])
        self.url = f"http://127.0.0.1:{self.port}"
        if ready:
            self.wait_ready()

    def wait_ready(self):
        self.wait(lambda: self.status("/readyz") == 200, "ready")

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        log = self.log()
        if kind:
            sys.stderr.write(log)
        os.unlink(self.err.name)
        # serving needs nothing that its sandbox refuses; the tests of the sandbox try such things
        assert kind or self.escapes or "sandbox: refused" not in log, log
        assert kind or "Sanitizer" not in log, log

    def log(self):
        with open(self.err.name) as f:
            return f.read()

    def wait(self, condition, what, seconds=120):
        end = time.monotonic() + seconds
        while not condition():
            if self.process.poll() is not None:
                raise AssertionError(f"server ended with {self.process.returncode}: {self.log()}")
            if time.monotonic() > end:
                raise AssertionError(f"not {what} after {seconds} s: {self.log()}")
            time.sleep(0.02)

    def wait_log(self, pattern):
        found = []
        self.wait(lambda: found.append(re.search(pattern, self.log())) or found[-1], f"in the log: {pattern}")
        return found[-1]

    def request(self, path, body=None, headers=None, method=None):
        """Status, headers, bytes; never raises for a status."""
        data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        r = urllib.request.Request(self.url + path, data, headers or {}, method=method)
        try:
            with urllib.request.urlopen(r, timeout=600) as answer:
                return answer.status, answer.headers, answer.read()
        except urllib.error.HTTPError as e:
            return e.code, e.headers, e.read()

    def status(self, path):
        try:
            return self.request(path)[0]
        except OSError:
            return 0

    def metrics(self, headers=None):
        """{(name, labels): value} of /metrics."""
        rows = {}
        for line in self.request("/metrics", headers=headers)[2].decode().splitlines():
            if m := re.match(r"([a-z_:]+)(\{[^}]*\})? (\S+)$", line):
                rows[m[1], m[2] or ""] = float(m[3])
        return rows

    def metric(self, name, label=""):
        """Sum over the series of a name whose labels contain `label`."""
        return sum(v for (n, labels), v in self.metrics().items() if n == name and label in labels)

    def stream(self, path, body):
        """A raw socket with the request sent and nothing read."""
        s = socket.create_connection(("127.0.0.1", self.port))
        data = json.dumps(body).encode()
        s.sendall(f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
                  .encode() + data)
        return s

    def terminate(self):
        self.process.send_signal(signal.SIGTERM)


def parallel(n, work):
    """work(i) on n threads; the first exception is raised here."""
    errors = []

    def run(i):
        try:
            work(i)
        except BaseException as e:  # pylint: disable=broad-except
            errors.append(e)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(n)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    if errors:
        raise errors[0]
