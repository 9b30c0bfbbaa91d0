"""Standard descriptors that are closed, full or unreadable: no command reads or writes something else in their place, and
none loses what it prints without a word. Standard library only, on a tiny model."""
import os
import pathlib
import re
import subprocess
import tempfile
import unittest

from harness import BIN

ROOT = pathlib.Path(__file__).resolve().parents[2]
TINY = str(ROOT / "tests/golden/tiny/llama.gguf")


def shell(command, **kw):
    """A command line in sh, with $C for the binary and $T for the model: what it needs of redirections."""
    return subprocess.run(["sh", "-c", command], env={**os.environ, "C": BIN, "T": TINY}, capture_output=True, text=True,
                          timeout=120, check=False, **kw)


class Stdio(unittest.TestCase):
    def test_a_closed_stdin_is_empty(self):
        empty = shell("$C tokenize -m $T </dev/null")
        closed = shell("$C tokenize -m $T <&-")
        self.assertEqual((closed.returncode, closed.stdout), (0, empty.stdout), closed.stderr)
        r = shell("$C run $T --device cpu --kv-bytes 1MiB -p - -n 2 --raw --json <&-")
        self.assertEqual((r.returncode, r.stderr, r.stdout), (2, "capstan: the prompt is empty\n", ""))
        r = shell("$C run $T --kv-bytes 1MiB <&-")
        self.assertEqual((r.returncode, r.stdout), (0, ""), r.stderr)

    def test_an_unreadable_stdin_is_said(self):
        for command in ("tokenize -m $T", "run $T --kv-bytes 1MiB -p - -n 2 --raw", "run $T --kv-bytes 1MiB"):
            r = shell(f"$C {command} </")
            self.assertEqual((r.returncode, r.stdout), (1, ""), command)
            self.assertIn("capstan: cannot read stdin: Is a directory", r.stderr)

    def test_stdin_may_be_a_socket(self):
        import socket
        a, b = socket.socketpair()
        with a, b:
            a.sendall(b"Hello")
            a.shutdown(socket.SHUT_WR)
            r = shell("$C tokenize -m $T", stdin=b)
        self.assertEqual((r.returncode, r.stdout), (0, shell("printf Hello | $C tokenize -m $T").stdout), r.stderr)

    def test_what_cannot_be_written_is_no_success(self):
        with tempfile.TemporaryDirectory() as store:
            s = f"--store {store}/s"
            self.assertEqual(shell(f"$C pack $T -t a:1 {s}").returncode, 0)
            for command in ("--help", "version", "version -v", f"list {s}", f"list --json {s}", f"inspect a:1 {s}",
                            f"inspect a:1 --json {s}", f"pack $T -t b:1 {s}", f"verify a:1 --json {s}", f"gc --json {s}",
                            f"rm a:1 --json {s}", "tokenize -m $T", "tokenize -m $T --json",
                            "run $T --kv-bytes 1MiB -p hi --raw -n 4", "run $T --kv-bytes 1MiB -p hi --raw -n 4 --json",
                            "bench engine -m $T -p 8 -n 2 -b 1 --json"):
                for where, reason in ((">/dev/full", "No space left on device"), (">&-", "Bad file descriptor")):
                    if command.startswith("rm"):
                        shell(f"$C pack $T -t a:1 {s}")
                    r = shell(f"$C {command} </dev/null {where}")
                    self.assertEqual(r.returncode, 1, (command, where, r.stderr))
                    self.assertEqual(r.stderr.splitlines()[-1:], [f"capstan: cannot write stdout: {reason}"], (command, where))

    def test_a_limit_on_file_sizes_is_an_error(self):
        """ulimit -f: a write fails and says so; no signal, so no temporary file is left and no server ends by its log."""
        with tempfile.TemporaryDirectory() as d:
            r = shell(f"ulimit -f 2; $C pack $T -t a:1 --store {d}/s")
            self.assertEqual(r.returncode, 1, r.stderr)
            self.assertIn("File too large", r.stderr)
            self.assertEqual(os.listdir(f"{d}/s/blobs/sha256"), [])
            r = shell(f"ulimit -f 2; $C serve --help >{d}/help")
            self.assertEqual(r.returncode, 1, r.stderr)
            self.assertIn("capstan: cannot write stdout: ", r.stderr)
            r = shell(f"ulimit -f 0; $C tokenize -m $T --log-level debug </dev/null 2>{d}/log")
            self.assertEqual(r.returncode, 0)

    def test_nothing_else_gets_their_numbers(self):
        with tempfile.TemporaryDirectory() as d:
            log = os.path.join(d, "log")
            code = ("import os, sys\nfor fd in 0, 1, 2: os.close(fd)\n"
                    "os.execv(sys.argv[1], ['capstan', 'serve', sys.argv[2], '--uds', sys.argv[3], '--kv-bytes', '1MiB'])")
            p = subprocess.Popen(["python3", "-c", code, BIN, TINY, log], close_fds=True)
            try:
                while not os.path.exists(log):
                    self.assertIsNone(p.poll())
                found = {fd: os.readlink(f"/proc/{p.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{p.pid}/fd")}
            finally:
                p.kill()
                p.wait()
        self.assertEqual([found.get(fd) for fd in "012"], ["/dev/null"] * 3)
        self.assertTrue(any(re.match("socket:", name) for name in found.values()), found)


if __name__ == "__main__":
    unittest.main()
