"""--sandbox: what a server that was taken over could try is refused and logged, while it serves; what it needs comes through
the process that opens files for it; a kernel that grants less is said. Standard library only, on a tiny model."""
import concurrent.futures
import os
import pathlib
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
import unittest

from harness import BIN, Server

ROOT = pathlib.Path(__file__).resolve().parents[2]
TINY = ROOT / "tests/golden/tiny/llama.gguf"
SECOND = ROOT / "tests/golden/tiny/gemma3.gguf"
KV = ("--kv-bytes", "1MiB")
sys.path.insert(0, str(ROOT / "tests/fakes"))
from registry import Registry  # noqa: E402  pylint: disable=wrong-import-position,import-error
from test_pull import add_model  # noqa: E402  pylint: disable=wrong-import-position

# What each thread tries, and by what the sandbox's own line says that it was refused; None: the kernel says no by itself.
ATTEMPTS = {"socket": "socket", "connect": "connect", "execve": "execve", "fork": None, "read": "openat of /etc/passwd",
            "climb": r"openat of /proc/self/\.\./1/environ", "write": "openat of /proc/self/coredump_filter",
            "create": "openat of capstan-sandbox-try", "unlink": "unlink of /etc/capstan-sandbox-try", "ptrace": "ptrace",
            "kill": "kill", "code": "mmap", "around": None}


def serve(*args, env=None, **more):
    return Server(str(TINY), *KV, "--alias", "m", "--device", "cpu", *args, env=env, **more)


def complete(s, prompt="hello", n=4, **more):
    status, _, body = s.request("/v1/completions", {"model": "m", "prompt": prompt, "max_tokens": n, "temperature": 0, **more})
    return status, body


def children(pid):
    """Of its first thread, which forks them, by name."""
    out = {}
    for child in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        out[pathlib.Path(f"/proc/{child}/comm").read_text().strip()] = int(child)
    return out


class Sandbox(unittest.TestCase):
    def test_both_walls_stand_before_anything_is_served(self):
        with serve("--sandbox", "on") as s:
            self.assertRegex(s.log(), r"info sandbox: Landlock \d+, seccomp\nlistening on ")
            self.assertEqual(complete(s)[0], 200)
            self.assertEqual((s.metric("capstan_sandbox", "landlock"), s.metric("capstan_sandbox", "seccomp")), (1, 1))
            # serving needs nothing that is refused, and what the kernel says of a process can still be read
            self.assertEqual(s.metric("capstan_sandbox_refused_total"), 0, s.log())
            self.assertGreater(s.metric("process_resident_memory_bytes"), 1 << 20)
            self.assertGreater(s.metric("process_open_fds"), 5)
            for task in pathlib.Path(f"/proc/{s.process.pid}/task").iterdir():
                status = (task / "status").read_text()
                self.assertRegex(status, r"NoNewPrivs:\t1\nSeccomp:\t2\n", status)
            s.terminate()
            self.assertEqual(s.process.wait(60), 0)
            self.assertNotIn("refused", s.log())

    def test_what_a_server_tries_is_refused_and_logged_while_it_serves(self):
        with tempfile.TemporaryDirectory() as d, concurrent.futures.ThreadPoolExecutor() as pool:
            with serve("--sandbox", "on", env={"CAPSTAN_FAULT": "escape:try"}, cwd=d) as s:
                answers = [pool.submit(complete, s, n=64) for _ in range(8)]
                s.wait_log("tried around on a job")
                self.assertEqual({a.result()[0] for a in answers}, {200})
                log = s.log()
                for who in ("the loader", "a job"):
                    tried = dict(re.findall(rf"sandbox: tried (\w+) on {who}: (.*)", log))
                    self.assertEqual(tried, {a: "Operation not permitted" for a in ATTEMPTS} | {"around": "Permission denied"})
                for attempt, line in ATTEMPTS.items():
                    if line:
                        self.assertRegex(log, f"warn sandbox: refused the system call {line}\n", attempt)
                self.assertEqual(s.metric("capstan_sandbox_refused_total"), 2 * sum(1 for a in ATTEMPTS.values() if a))
                self.assertEqual(complete(s)[0], 200)
            self.assertEqual(os.listdir(d), [])

    @unittest.skipUnless(os.environ.get("CAPSTAN_FAKE_CUDA"), "a build without kernels of a GPU")
    def test_beside_a_driver_a_list_is_refused(self):
        with tempfile.TemporaryDirectory() as d:
            env = {"CAPSTAN_LIBCUDA": os.environ["CAPSTAN_FAKE_CUDA"], "CAPSTAN_FAULT": "escape:try"}
            with serve("--sandbox", "on", "--device", "cuda", env=env, cwd=d) as s:
                self.assertRegex(s.log(), r"sandbox: Landlock \d+, seccomp; beside a GPU's driver seccomp refuses a list of calls only")
                s.wait_log("tried around on a job")
                for who in ("the loader", "a job"):
                    tried = dict(re.findall(rf"sandbox: tried (\w+) on {who}: (.*)", s.log()))
                    for attempt in ("socket", "connect", "execve", "ptrace", "kill"):
                        self.assertEqual(tried[attempt], "Operation not permitted", attempt)
                    self.assertEqual(tried["create"], "Permission denied")
                self.assertEqual(complete(s)[0], 200)
            self.assertEqual(os.listdir(d), [])

    def test_what_the_kernel_does_not_grant_is_said(self):
        for missing, says in (("landlock", "no Landlock, seccomp (the kernel has no Landlock"),
                              ("seccomp", "Landlock 7, no seccomp (the kernel has no seccomp filters)")):
            env = {**os.environ, "CAPSTAN_FAULT": f"{missing}:fail"}
            r = subprocess.run([BIN, "serve", str(TINY), *KV, "--port", "0", "--sandbox", "on"], env=env, capture_output=True,
                               text=True, timeout=60, check=False)
            self.assertEqual(r.returncode, 1, r.stderr)
            self.assertRegex(r.stderr, r"capstan: --sandbox on: the kernel has no ")
            self.assertNotIn("listening", r.stderr)
            with serve("--sandbox", "auto", env={"CAPSTAN_FAULT": f"{missing}:fail"}) as s:
                self.assertIn(re.sub(r"\d+", "", f"warn sandbox: {says}"), re.sub(r"Landlock \d+", "Landlock ", s.log()))
                self.assertEqual(complete(s)[0], 200)
                self.assertEqual(s.metric("capstan_sandbox", missing), 0)
        with serve("--sandbox", "off") as s:
            self.assertIn("warn sandbox: off", s.log())
            self.assertEqual(children(s.process.pid), {})
            self.assertEqual((s.metric("capstan_sandbox"), complete(s)[0]), (0, 200))

    def test_a_pulled_model_and_its_packed_weights_come_through_the_opener(self):
        with tempfile.TemporaryDirectory() as d:
            registry = Registry().start()
            try:
                add_model(registry, "m/tiny", TINY.read_bytes())
                args = ("--store", f"{d}/store", "--sandbox", "on", "--alias", "m", "--device", "cpu", *KV)
                for start in range(2):
                    with Server(f"{registry.host}/m/tiny:v1", *args) as s:
                        self.assertEqual(complete(s)[0], 200)
                        self.assertEqual(s.metric("capstan_sandbox_refused_total"), 0, s.log())
                        maps = pathlib.Path(f"/proc/{s.process.pid}/maps").read_text()
                        self.assertRegex(maps, r"\.panels\n", f"start {start}: packed weights are not mapped from their file")
                        self.assertNotIn("panels:", s.log())
            finally:
                registry.close()

    def test_models_are_loaded_through_the_opener_and_without_it_no_more(self):
        with tempfile.TemporaryDirectory() as d:
            (pathlib.Path(d) / "keys").write_text("k scopes=inference,admin\n")
            (pathlib.Path(d) / "models.toml").write_text(f'[[model]]\nref = "{TINY}"\nalias = ["m"]\nkv_bytes = "1MiB"\n')
            head = {"Authorization": "Bearer k"}

            def admin(s, what, **body):
                status, _, answer = s.request(f"/admin/models/{what}", body, head)
                return status, answer.decode()

            def answers(s, model="m"):
                return s.request("/v1/completions", {"model": model, "prompt": "hello", "max_tokens": 8}, head)[0] == 200

            with Server("--config", f"{d}/models.toml", "--sandbox", "on", "--device", "cpu", "--kv-bytes", "4MiB", "--api-key-file",
                        f"{d}/keys", "--drain-grace", "0s") as s:
                opener = children(s.process.pid)["opener"]
                for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):  # a service manager's, a terminal's
                    os.kill(opener, number)
                self.assertEqual(admin(s, "load", ref=str(SECOND), alias=["second"], kv_bytes="1MiB")[0], 200)
                self.assertTrue(answers(s, "second"))
                self.assertEqual(admin(s, "unload", model="second")[0], 200)
                self.assertEqual(admin(s, "load", ref="/etc/passwd")[0], 400)
                self.assertEqual(s.metrics(head)["capstan_sandbox_refused_total", ""], 0, s.log())
                self.assertEqual(children(s.process.pid), {"opener": opener})
                os.kill(opener, signal.SIGKILL)
                status, answer = admin(s, "load", ref=str(SECOND), alias=["second"], kv_bytes="1MiB")
                self.assertEqual(status, 503, answer)
                self.assertIn("the process that opens files for this server has ended", answer)
                self.assertTrue(answers(s))
                s.terminate()
                self.assertEqual(s.process.wait(60), 0, s.log())

    def test_the_opener_ends_with_the_server(self):
        for number in (signal.SIGKILL, signal.SIGTERM):
            with serve("--sandbox", "on", "--drain-grace", "0s") as s:
                opener = children(s.process.pid)["opener"]
                s.process.send_signal(number)
                s.process.wait(60)
                end = time.monotonic() + 30
                while os.path.exists(f"/proc/{opener}/maps") and pathlib.Path(f"/proc/{opener}/maps").read_text():
                    self.assertLess(time.monotonic(), end, "the opener outlives the server")
                    time.sleep(0.01)

    def test_a_unix_socket_s_path_goes(self):
        with tempfile.TemporaryDirectory() as d:
            for path, cwd in ((f"{d}/s", None), ("s", d)):
                process = subprocess.Popen([BIN, "serve", str(TINY), *KV, "--sandbox", "on", "--device", "cpu", "--uds", path,
                                            "--drain-grace", "0s"], stderr=subprocess.PIPE, text=True, cwd=cwd)
                log = ""
                while "ready:" not in log:
                    log += process.stderr.readline() or self.fail(log)
                self.assertEqual(os.listdir(d), ["s"])
                process.terminate()
                log += process.communicate(timeout=60)[1]
                self.assertEqual((process.returncode, os.listdir(d)), (0, []), log)
                self.assertNotIn("refused", log)

    def test_a_core_dump_has_no_prompt(self):
        """A real one where the kernel writes it to the folder at hand; Landlock does not let it, so that wall is left out."""
        secret = "The parrot's name is Zanzibar-" + os.urandom(8).hex()
        in_place = pathlib.Path("/proc/sys/kernel/core_pattern").read_text()[:1] not in "|/"
        for sandbox, missing, cores in (("on", "none", 0), ("auto", "landlock", 1), ("off", "none", 1)):
            with tempfile.TemporaryDirectory() as d:
                with serve("--sandbox", sandbox, cwd=d, cores=True, env={"CAPSTAN_FAULT": f"{missing}:fail"}) as s:
                    self.assertEqual(complete(s, prompt=secret)[0], 200)
                    left = int(pathlib.Path(f"/proc/{s.process.pid}/coredump_filter").read_text(), 16)
                    self.assertEqual(left == 0x10, sandbox != "off")
                    if in_place:
                        with s.stream("/v1/completions", {"model": "m", "prompt": secret, "max_tokens": 400, "stream": True}) as r:
                            r.recv(1)
                            s.process.send_signal(signal.SIGABRT)
                            s.process.wait(120)
                        core = [p.read_bytes() for p in pathlib.Path(d).glob("core*")]
                        self.assertEqual(len(core), cores, sandbox)
                        for c in core:
                            self.assertTrue(c.startswith(b"\x7fELF"))
                            self.assertEqual(secret.encode() in c, sandbox == "off")


if __name__ == "__main__":
    unittest.main()
