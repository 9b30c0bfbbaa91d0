"""Signals and the end of a serving process, clause by clause: what drains, what is refused, what is cut, and that a second
signal gets out whatever hangs (for that ptrace stops every thread but the one that takes signals). Standard library only."""
import contextlib
import ctypes
import fcntl
import http.client
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest

from harness import BIN, Server

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/fakes"))
from registry import Registry  # noqa: E402  pylint: disable=wrong-import-position
from test_pull import pulls  # noqa: E402  pylint: disable=wrong-import-position

MODEL = os.environ["CAPSTAN_MODEL"]
TINY = str(ROOT / "tests/golden/tiny/llama.gguf")
TINY_KV = ["--kv-bytes", "1MiB", "--ctx", "256", "--max-seqs", "4"]
PTRACE_SEIZE, PTRACE_INTERRUPT, WALL = 0x4206, 0x4207, 0x40000000
LIMIT = 60  # seconds; only turns a hang into a failure


class Local(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path):
        super().__init__("localhost", timeout=LIMIT)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.path)


def threads(pid):
    """Of a process that was not waited for; the leader first."""
    return sorted(map(int, os.listdir(f"/proc/{pid}/task")), key=lambda tid: tid != pid)


def ended(tid):
    """Takes a thread's end if it is ours to take."""
    try:
        return os.waitpid(tid, WALL | os.WNOHANG)[0] != 0
    except ChildProcessError:
        return True


class Unix(Server):
    """A server on a Unix socket in a folder of its own."""

    def __init__(self, *args, ready=True, stderr=None, env=None, folder=None):  # pylint: disable=super-init-not-called
        self.folder = tempfile.TemporaryDirectory(dir=folder)
        self.path = os.path.join(self.folder.name, "s")
        self.err = tempfile.NamedTemporaryFile("w+", suffix=".log", delete=False)
        self.process = subprocess.Popen([BIN, "serve", *args, "--uds", self.path], stderr=stderr or self.err,
                                        env={**os.environ, **(env or {})})
        self.wait(lambda: os.path.exists(self.path), "listening")
        if ready:
            self.wait(lambda: self.status("/readyz") == 200, "ready")

    def __exit__(self, *args):
        if self.process.poll() is None:
            self.process.kill()
            for tid in threads(self.process.pid)[1:]:  # their ends are taken first, where they are traced
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(tid, WALL)
        super().__exit__(*args)
        self.folder.cleanup()

    def status(self, path):
        c = Local(self.path)
        try:
            c.request("GET", path)
            return c.getresponse().status
        except OSError:
            return 0
        finally:
            c.close()


class Frozen:
    """Every thread of a process but the named one is stopped; `wait` gives its exit code."""

    def __init__(self, process, awake):
        self.process = process
        for tid in threads(process.pid):
            try:
                with open(f"/proc/{process.pid}/task/{tid}/comm", encoding="ascii") as f:
                    if f.read().strip() == awake:
                        continue
                self.trace(PTRACE_SEIZE, tid)
                self.trace(PTRACE_INTERRUPT, tid)
            except PermissionError as e:
                if tid == process.pid:
                    raise unittest.SkipTest("ptrace is not permitted here") from e
                continue  # as below, seen while it ends
            except (FileNotFoundError, ProcessLookupError):
                continue  # the thread that loaded has just ended
            os.waitpid(tid, WALL)

    @staticmethod
    def trace(what, tid):
        libc = ctypes.CDLL(None, use_errno=True)
        libc.ptrace.argtypes = [ctypes.c_long] * 4
        libc.ptrace.restype = ctypes.c_long
        if libc.ptrace(what, tid, 0, 0):
            e = ctypes.get_errno()
            raise OSError(e, os.strerror(e), str(tid))

    def wait(self):
        left = threads(self.process.pid)[1:]
        end = time.monotonic() + LIMIT
        while left:  # the leader's end is reported once its threads' ends were taken
            left = [tid for tid in left if not ended(tid)]
            assert time.monotonic() < end, "the process does not end"
            time.sleep(0.01)
        return self.process.wait(LIMIT)


def read_all(s):
    got = b""
    while piece := s.recv(65536):
        got += piece
    return got


def gone(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


class Drain(unittest.TestCase):
    BODY = {"prompt": "Once", "ignore_eos": True, "max_tokens": 2}

    def completion(self, s):
        status, _, answer = s.request("/v1/completions", self.BODY)
        return status, json.loads(answer).get("error", {}).get("code")

    def test_the_grace_serves_while_not_ready(self):
        # An hour of grace, and nothing runs: it is not cut short.
        with Server(TINY, *TINY_KV, "--drain-grace", "60m") as s:
            s.terminate()
            s.wait(lambda: s.status("/readyz") == 503, "not ready")
            for path, status in (("/health", 503), ("/livez", 200), ("/startupz", 200)):
                self.assertEqual(s.status(path), status, path)
            self.assertIn('"draining"', s.request("/readyz")[2].decode())
            for _ in range(3):
                self.assertEqual(self.completion(s), (200, None))
            self.assertIsNone(s.process.poll())
            s.process.send_signal(signal.SIGINT)
            self.assertEqual(s.process.wait(LIMIT), 1)

    def test_after_the_grace_what_runs_ends_and_nothing_begins(self):
        with Server(MODEL, "--kv-bytes", "256MiB", "--drain-grace", "100ms", "--drain-timeout", "60m") as s:
            c = s.stream("/v1/completions", {**self.BODY, "max_tokens": 500, "stream": True})
            got = c.recv(4096)
            s.terminate()
            s.wait(lambda: self.completion(s) == (503, "overloaded"), "refusing")
            got += read_all(c)
            self.assertIn(b"[DONE]", got)
            self.assertEqual(s.process.wait(LIMIT), 0)

    def test_what_outlives_the_timeout_is_cut(self):
        with Server(MODEL, "--kv-bytes", "256MiB", "--drain-grace", "0ms", "--drain-timeout", "300ms") as s:
            c = s.stream("/v1/completions", {**self.BODY, "max_tokens": 6000, "stream": True})
            got = c.recv(4096)
            s.terminate()
            got += read_all(c)
            self.assertIn(b'"error"', got)
            self.assertIn(b'"overloaded"', got)
            self.assertNotIn(b"[DONE]", got)
            self.assertEqual(s.process.wait(LIMIT), 1)

    def test_an_idle_server_ends_well(self):
        for number in (signal.SIGTERM, signal.SIGINT):
            with Unix(TINY, *TINY_KV, "--drain-grace", "100ms") as s:
                s.process.send_signal(signal.SIGHUP)  # no end
                s.wait_log("reloaded; models: 0 new")
                s.process.send_signal(number)
                self.assertEqual(s.process.wait(LIMIT), 0)
                self.assertFalse(os.path.exists(s.path))

    def test_a_deadline_of_the_real_engine(self):
        with Server(MODEL, "--kv-bytes", "256MiB", "--deadline-ms", "300") as s:
            status, _, answer = s.request("/v1/completions", {**self.BODY, "max_tokens": 6000})
            self.assertEqual((status, json.loads(answer)["error"]["code"]), (504, "deadline_exceeded"))


class Second(unittest.TestCase):
    """A second signal: exit 1, the Unix socket's path removed, the pull's process gone."""

    def end(self, s, frozen=None):
        s.process.send_signal(signal.SIGTERM)
        s.process.send_signal(signal.SIGINT)
        self.assertEqual(frozen.wait() if frozen else s.process.wait(LIMIT), 1)
        self.assertFalse(os.path.exists(s.path))

    def test_everything_hangs(self):
        with Unix(TINY, *TINY_KV) as s:
            self.end(s, Frozen(s.process, "signals"))

    def test_a_step_hangs(self):
        with Unix(MODEL, "--kv-bytes", "256MiB") as s:
            c = Local(s.path)
            c.request("POST", "/v1/completions", json.dumps({**Drain.BODY, "max_tokens": 6000, "stream": True}),
                      {"Content-Type": "application/json"})
            answer = c.getresponse()
            self.assertEqual(answer.status, 200)
            answer.readline()
            self.end(s, Frozen(s.process, "signals"))
            c.close()

    def test_a_drain_hangs(self):
        with Unix(TINY, *TINY_KV, "--drain-grace", "60m") as s:
            s.terminate()
            s.wait(lambda: s.status("/readyz") == 503, "draining")
            frozen = Frozen(s.process, "signals")
            s.process.send_signal(signal.SIGTERM)
            self.assertEqual(frozen.wait(), 1)
            self.assertFalse(os.path.exists(s.path))

    def test_a_drain_that_hangs_ends_by_itself(self):
        with Unix(TINY, *TINY_KV, "--drain-grace", "0ms", "--drain-timeout", "100ms") as s:
            frozen = Frozen(s.process, "signals")
            s.terminate()
            self.assertEqual(frozen.wait(), 1)
            self.assertFalse(os.path.exists(s.path))

    @unittest.skipUnless(os.geteuid() == 0 and shutil.which("bindfs") and os.path.exists("/dev/fuse"), "needs root, bindfs and /dev/fuse")
    def test_the_socket_s_file_system_hangs(self):
        with tempfile.TemporaryDirectory() as under, tempfile.TemporaryDirectory() as mount:
            fs = subprocess.Popen(["bindfs", "-f", under, mount])
            try:
                end = time.monotonic() + LIMIT
                while not os.path.ismount(mount):
                    if fs.poll() is not None or time.monotonic() > end:
                        self.skipTest("bindfs cannot mount here")
                    time.sleep(0.01)
                with Unix(TINY, *TINY_KV, folder=mount) as s:
                    fs.send_signal(signal.SIGSTOP)
                    s.process.send_signal(signal.SIGTERM)
                    s.process.send_signal(signal.SIGINT)
                    try:
                        self.assertEqual(s.process.wait(LIMIT), 1)
                    finally:
                        s.process.kill()
                        fs.send_signal(signal.SIGCONT)
            finally:
                fs.send_signal(signal.SIGCONT)
                subprocess.run(["umount", mount], check=False)
                fs.wait(LIMIT)

    def test_what_another_process_bound_stays(self):
        for again in (False, True):
            with Unix(TINY, *TINY_KV, "--drain-grace", "60m" if again else "0ms") as s:
                os.unlink(s.path)
                with socket.socket(socket.AF_UNIX) as other:
                    other.bind(s.path)
                    s.terminate()
                    if again:
                        frozen = Frozen(s.process, "signals")
                        s.process.send_signal(signal.SIGTERM)
                        self.assertEqual(frozen.wait(), 1)
                    else:
                        self.assertEqual(s.process.wait(LIMIT), 0)
                    self.assertTrue(os.path.exists(s.path))

    def test_nobody_reads_the_log(self):
        r, w = os.pipe()
        with os.fdopen(r, "rb"), os.fdopen(w, "wb", buffering=0) as pipe:
            fcntl.fcntl(w, fcntl.F_SETPIPE_SZ, 4096)
            with Unix(TINY, *TINY_KV, stderr=w) as s:
                os.set_blocking(w, False)  # of the open file: put back at once
                try:
                    for size in (1024, 1):
                        while True:
                            if pipe.write(b"x" * size) is None:
                                break
                finally:
                    os.set_blocking(w, True)
                c = Local(s.path)
                c.request("GET", "/livez")  # the loop's next line blocks it
                self.end(s)
                c.close()

    def registry(self):
        registry = Registry().start()
        self.addCleanup(registry.close)
        registry.hooks["manifest"] = lambda x: time.sleep(LIMIT) or True
        return registry

    def loading(self, registry, store):
        s = Unix(f"{registry.host}/m/tiny:v1", "--store", store, ready=False)
        s.wait(lambda: len(pulls(s.process.pid)) == 1, "pulling")
        return s

    def test_the_first_while_loading_is_enough(self):
        registry = self.registry()
        with tempfile.TemporaryDirectory() as store, self.loading(registry, store) as s:
            child = pulls(s.process.pid)[0]
            s.terminate()
            self.assertEqual(s.process.wait(LIMIT), 0)
            self.assertFalse(os.path.exists(s.path))
            end = time.monotonic() + LIMIT
            while not gone(child):
                self.assertLess(time.monotonic(), end, "the pull outlives its parent")
                time.sleep(0.01)

    def test_a_key_file_that_is_a_pipe(self):
        """Before a server listens a signal ends it as it ends any program."""
        with tempfile.TemporaryDirectory() as folder:
            path, writer = os.path.join(folder, "keys"), -1
            os.mkfifo(path)
            p = subprocess.Popen([BIN, "serve", TINY, "--api-key-file", path, "--port", "0"])
            while writer < 0:
                with contextlib.suppress(OSError):  # it is not there yet
                    writer = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
                time.sleep(0.01)
            p.terminate()
            try:
                self.assertEqual(p.wait(LIMIT), -signal.SIGTERM)
            finally:
                p.kill()
                p.wait()
                os.close(writer)

    def test_loading_hangs(self):
        registry = self.registry()
        with tempfile.TemporaryDirectory() as store, self.loading(registry, store) as s:
            child = pulls(s.process.pid)[0]
            self.end(s, Frozen(s.process, "signals"))
            end = time.monotonic() + LIMIT
            while not gone(child):
                self.assertLess(time.monotonic(), end, "the pull outlives its parent")
                time.sleep(0.01)


class Exposed(unittest.TestCase):
    """A server that others can reach and that asks for no key says so."""

    def warned(self, *args):
        p = subprocess.Popen([BIN, "serve", TINY, *TINY_KV, "--port", "0", *args], stderr=subprocess.PIPE, text=True)
        lines = []
        for line in p.stderr:
            lines.append(line)
            if "ready: 1 model" in line:
                break
        p.kill()
        p.communicate()
        found = [line for line in lines if "--api-key-file" in line]
        self.assertTrue(any("listening on" in line for line in lines), lines)
        return found

    def test_who_is_warned(self):
        lan = [ip for ip in re.findall(r"inet (\S+)/", subprocess.run(["ip", "-4", "addr"], capture_output=True, text=True,
                                                                    check=False).stdout or "") if not ip.startswith("127.")]
        for host in ["0.0.0.0", *lan[:1], *(["::"] if socket.has_dualstack_ipv6() else [])]:
            found = self.warned("--host", host)
            self.assertEqual(len(found), 1, (host, found))
            self.assertIn(" warn ", found[0])
            self.assertIn(host, found[0])
            self.assertEqual(self.warned("--host", host, "--api-key", "k"), [])
        for args in (["--host", "127.0.0.1"], ["--host", "127.0.0.9"], ["--host", "localhost"],
                     *([["--host", "::1"]] if socket.has_dualstack_ipv6() else [])):
            self.assertEqual(self.warned(*args), [], args)
        with tempfile.TemporaryDirectory() as d:
            self.assertEqual(self.warned("--host", "0.0.0.0", "--uds", d + "/s"), [])


if __name__ == "__main__":
    unittest.main()
