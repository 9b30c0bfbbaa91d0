"""Packed weights: a kill at any point of packing leaves nothing that stays or stops later packing, also as pid 1; a file
that shrinks ends its model, not the process; why one is not used or not written is logged. Standard library only."""
import json
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import unittest

from harness import BIN, Server, parallel

NOBODY = 65534
TINY = pathlib.Path(__file__).resolve().parents[1] / "golden/tiny"
KINDS = ("", "tmpfile:fail,", "tmpfile:fail,flock:fail,")  # file systems
POINTS = ("created", "reserved", "packing=1", "packing=3", "packing=9", "packed", "placed")
AMX = " amx_bf16" in pathlib.Path("/proc/cpuinfo").read_text("utf-8")
PID1 = ("unshare", "--pid", "--fork", "--mount-proc")


def can(*command):
    try:
        return subprocess.run([*command, "true"], capture_output=True, timeout=60, check=False).returncode == 0
    except OSError:
        return False


class Panels(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="capstan-panels-"))
        self.addCleanup(shutil.rmtree, self.folder)
        self.folder.chmod(0o755)
        self.cache = self.folder / "cache"
        self.env = {"CAPSTAN_DEVICE": "cpu", "PATH": os.environ["PATH"], "HOME": str(self.folder), "XDG_CACHE_HOME": str(self.cache),
                    **{k: v for k, v in os.environ.items() if k.startswith(("ASAN_", "UBSAN_", "TSAN_"))}}
        self.model = self.folder / "m.gguf"
        shutil.copy(TINY / "llama.gguf", self.model)

    def run_model(self, *before, fault="", model=None, env=None):
        """One token of the model: exit code, stdout, stderr."""
        done = subprocess.run([*before, BIN, "run", str(model or self.model), "-p", "x", "--raw", "-n", "4", "--temp", "0",
                               "--kv-bytes", "4MiB", "--ctx", "64"], capture_output=True, text=True, timeout=120, check=False,
                              env={**self.env, **({"CAPSTAN_FAULT": fault} if fault else {}), **(env or {})})
        return done.returncode, done.stdout, done.stderr

    def files(self):
        """The folder of packed weights: names."""
        return sorted(p.name for p in self.cache.glob("capstan/cache/*/*"))

    def the_file(self):
        found = list(self.cache.glob("capstan/cache/*/*.panels"))
        self.assertEqual(len(found), 1, self.files())
        return found[0]

    def whole(self):
        """Exactly one file, of this layout, nothing else."""
        names = self.files()
        self.assertEqual(len(names), 1, names)
        self.assertRegex(names[0], r"^sha256-[0-9a-f]{64}-0\.v1-[0-9a-f]{16}\.panels$")

    def serve(self, *args, **env):
        return Server(*args, "--kv-bytes", "8MiB", "--ctx", "64", env={"CAPSTAN_FAULT": "", **self.env, **env})

    @staticmethod
    def maps(s):
        return sorted({line.split(None, 5)[5].strip() for line in pathlib.Path(f"/proc/{s.process.pid}/maps").read_text().splitlines()
                       if ".panels" in line})

    def complete(self, s, model):
        status, _, body = s.request("/v1/completions", {"model": model, "prompt": "abc", "max_tokens": 4, "temperature": 0,
                                                        "ignore_eos": True})
        return status, json.loads(body)

    def kill_everywhere(self, *before):
        want = self.run_model(*before)
        self.assertEqual((want[0], want[2]), (0, ""))
        for kind in KINDS:
            for point in POINTS:
                with self.subTest(kind=kind, point=point):
                    shutil.rmtree(self.cache)
                    code, _, err = self.run_model(*before, fault=f"{kind}{point}:kill")
                    self.assertIn(code, (-9, 137), err)
                    if not kind and point != "placed":
                        self.assertEqual(self.files(), [])
                    again = self.run_model(*before, fault="flock:fail" if "flock" in kind else "")
                    self.assertEqual(again[:2], want[:2])
                    if "flock" in kind and point != "placed":  # a young leftover, which the next start with locks removes
                        self.assertEqual(len(self.files()), 2)
                        again = self.run_model(*before)
                    self.assertNotIn("memory", again[2])
                    self.whole()
        with self.serve(str(self.model)) as s:
            self.assertEqual(self.maps(s), [str(self.the_file())])

    def test_a_kill_at_any_point_leaves_nothing(self):
        self.kill_everywhere()

    def test_a_level_that_is_not_there_is_refused_by_name(self):
        """Every command that computes, or compares packed weights: exit 2, with the levels that are there."""
        store = ("--store", str(self.folder / "store"))
        for args in (("pack", str(self.model), "-t", "m:v1", *store), ("run", "m:v1", "-p", "x", "--raw", "-n", "1", *store)):
            done = subprocess.run([BIN, *args], capture_output=True, text=True, timeout=120, check=False, env=self.env)
            self.assertEqual(done.returncode, 0, done.stderr)
        absent = [] if AMX else [("amx", "is not on this machine: it takes AVX-512 VNNI, AMX-INT8, AMX-BF16 and a kernel that saves "
                                         "tiles (Linux 5.16 and newer)")]
        for level, why in (*absent, ("avx3", "is unknown"), ("AVX2", "is unknown")):
            for args in (("run", "m:v1", "-p", "x", *store), ("serve", "m:v1", "--port", "0", *store), ("verify", "m:v1", *store),
                         ("bench", "engine", "-m", "m:v1", *store), ("version", "-v")):
                with self.subTest(level=level, args=args):
                    done = subprocess.run([BIN, *args], capture_output=True, text=True, timeout=120, check=False,
                                          env={**self.env, "CAPSTAN_CPU": level})
                    self.assertEqual(done.returncode, 2, done.stderr)
                    self.assertIn(f"CAPSTAN_CPU '{level}' {why}; take one of: base", done.stderr)
        listed = done.stderr.rpartition("take one of: ")[2].split()
        for level in listed:
            with self.subTest(level=level):
                done = subprocess.run([BIN, "version", "-v"], capture_output=True, text=True, timeout=120, check=False,
                                      env={**self.env, "CAPSTAN_CPU": level})
                self.assertIn(f"\nisa level: {level}\ndefault level: ", done.stdout)

    @unittest.skipUnless(can(*PID1), "no pid namespaces here")
    def test_as_pid_1(self):
        self.kill_everywhere(*PID1)

    @unittest.skipUnless(can(*PID1), "no pid namespaces here")
    def test_the_leftover_of_an_earlier_release_stops_nothing(self):
        self.run_model()
        path = self.the_file()
        path.unlink()
        stem = re.sub(r"(\.v1-[0-9a-f]+)?\.panels$", "", path.name)
        (path.parent / f"{stem}.panels.1.tmp").write_bytes(bytes(100))
        code, _, err = self.run_model(*PID1)
        self.assertEqual(code, 0, err)
        self.whole()
        self.assertRegex(err, "removed .*panels.1.tmp, left by a packing that was killed")

    def test_a_file_that_shrinks_ends_its_model_alone(self):
        other = self.folder / "other.gguf"
        shutil.copy(TINY / "gemma3.gguf", other)
        config = self.folder / "c.toml"
        config.write_text("".join(f'[[model]]\nref = "{p}"\nalias = ["{p.stem}"]\n' for p in (self.model, other)))
        for fresh in (True, False):  # packed by this process, or mapped as it was
            with self.subTest(fresh=fresh), self.serve("--config", str(config)) as s:
                self.assertEqual(len(self.maps(s)), 2)
                key = subprocess.run(["sha256sum", self.model], capture_output=True, text=True, check=True).stdout[:64]
                mine = next(self.cache.glob(f"capstan/cache/*/sha256-{key}-*.panels"))
                want = self.complete(s, "other")
                self.assertEqual((self.complete(s, "m")[0], want[0]), (200, 200))
                os.truncate(mine, 4096)
                status, body = self.complete(s, "m")
                self.assertEqual((status, body["error"]["code"]), (503, "model_failed"), body)
                self.assertEqual(self.complete(s, "m")[1]["error"]["code"], "model_failed")
                s.wait_log("packed weights shrank or cannot be read")
                self.assertEqual(self.complete(s, "other")[1]["choices"], want[1]["choices"])
                self.assertIsNone(s.process.poll())
        with self.serve(str(self.model), "--alias", "m") as s:  # the next start packs again
            s.wait_log(f"not used: .*{mine.name}: has 4096 bytes")
            self.assertEqual(self.complete(s, "m")[0], 200)

    def test_changed_bytes_cost_a_packing_at_the_next_start(self):
        with self.serve(str(self.model), "--alias", "m") as s:
            want = self.complete(s, "m")[1]["choices"]
            with open(self.the_file(), "r+b") as f:
                f.seek(4096)
                f.write(bytes(range(256)) * 64)
            self.assertIn(self.complete(s, "m")[0], (200, 503))  # other values, perhaps none that is a number
            self.assertIsNone(s.process.poll())
        with self.serve(str(self.model), "--alias", "m") as s:
            s.wait_log("not used: .*torn or rotten: wrong sum of tensor")
            self.assertEqual(self.complete(s, "m")[1]["choices"], want)
        with self.serve(str(self.model), "--alias", "m") as s:
            self.assertNotIn("panels", s.log())

    def test_many_pack_at_once(self):
        for kind in KINDS:
            shutil.rmtree(self.cache, ignore_errors=True)
            done = {}

            def work(i, kind=kind, done=done):
                done[i] = self.run_model(fault=f"{kind}x:fail")
            parallel(4, work)
            self.assertEqual({d[:2] for d in done.values()}, {(0, done[0][1])}, done)
            self.whole()

    def test_why_memory_is_used_is_logged(self):
        for how, text in (("file", "no folder can be written"), ("full", "No space left on device")):
            with self.subTest(how=how):
                before = ()
                shutil.rmtree(self.cache, ignore_errors=True)
                if how == "file":
                    self.cache.write_text("no folder")
                else:
                    self.cache.mkdir()
                    if not can("unshare", "-m"):
                        self.skipTest("no mount namespaces here")
                    before = ("unshare", "-m", "sh", "-c", f'mount -t tmpfs -o size=100k none "{self.cache}" && exec "$@"', "sh")
                code, _, err = self.run_model(*before)
                self.assertEqual(code, 0, err)
                self.assertEqual(len(re.findall("panels: kept in memory, [0-9]+ bytes", err)), 1, err)
                self.assertIn(text, err)
                if how == "file":
                    self.cache.unlink()

    @unittest.skipUnless(os.geteuid() == 0 and shutil.which("setpriv"), "needs root and setpriv")
    def test_what_root_packed_others_map(self):
        store = self.folder / "store"
        for command in (["pack", str(self.model), "-t", "m:v1"], ["run", "m:v1", "-p", "x", "--raw", "-n", "1"]):
            done = subprocess.run([BIN, *command, "--store", str(store)], capture_output=True, text=True, env=self.env, check=False)
            self.assertEqual(done.returncode, 0, done.stderr)
        found = list(store.glob("capstan/cache/*/*.panels"))
        self.assertEqual([p.stat().st_mode & 0o7777 for p in found], [0o644])
        home = self.folder / "nobody"
        home.mkdir()
        os.chown(home, NOBODY, NOBODY)
        as_nobody = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
        env = {"XDG_CACHE_HOME": str(home), "HOME": str(home)}
        code = subprocess.run([*as_nobody, BIN, "run", "m:v1", "--store", str(store), "-p", "x", "--raw", "-n", "1"],
                              capture_output=True, text=True, env={**self.env, **env}, check=False)
        self.assertEqual((code.returncode, code.stderr), (0, ""))
        self.assertEqual(list(home.glob("**/*.panels")), [])  # nothing of its own: it mapped root's


if __name__ == "__main__":
    unittest.main()
