"""One flipped bit in weights, config or manifest, in a digest or size of index.json, or a layout that no longer parses:
exit 4, with and without the record of an earlier run, with --verify recorded and always. Standard library only."""
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "registry"))
import fixtures  # noqa: E402  pylint: disable=wrong-import-position

BIN = os.environ["CAPSTAN_BIN"]
MODEL = pathlib.Path(__file__).resolve().parents[1] / "golden/tiny/llama.gguf"


class Flips(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = pathlib.Path(tempfile.mkdtemp(prefix="capstan-flips-"))
        cls.addClassCleanup(shutil.rmtree, cls.folder)
        cls.env = {"PATH": os.environ["PATH"], "HOME": str(cls.folder), "XDG_CACHE_HOME": str(cls.folder / "cache"),
                   **{k: v for k, v in os.environ.items() if k.startswith(("ASAN_", "UBSAN_", "TSAN_"))}}
        cls.whole = cls.folder / "whole"
        done = cls.capstan("pack", str(MODEL), "-t", "m:v1", "--store", str(cls.whole))
        assert done.returncode == 0, done.stderr
        cls.entry = json.loads((cls.whole / "index.json").read_text())["manifests"][0]
        cls.manifest = cls.blob(cls.whole, cls.entry)
        m = json.loads(cls.manifest.read_text())
        cls.config, cls.weights = cls.blob(cls.whole, m["config"]), cls.blob(cls.whole, m["layers"][0])

    @classmethod
    def capstan(cls, *args):
        return subprocess.run([BIN, *args], capture_output=True, text=True, timeout=120, env=cls.env, check=False)

    @staticmethod
    def blob(store, descriptor):
        return store / "blobs" / descriptor["digest"].replace(":", "/")

    def run_model(self, store, *args, layout=False):
        ref = [f"oci:{store}:m:v1"] if layout else ["m:v1", "--store", str(store)]
        return self.capstan("run", *ref, "-p", "x", "--raw", "-n", "1", "--temp", "0", *args)

    def refused(self, path, change, what):
        """change(bytes) of one file of the store: exit 4 in every way of opening it."""
        for recorded in (True, False):
            for how in ("recorded", "always"):
                for layout in (False, True):
                    with self.subTest(what=what, recorded=recorded, verify=how, layout=layout):
                        store = self.folder / "store"
                        shutil.copytree(self.whole, store, ignore=None if recorded else shutil.ignore_patterns("records"))
                        try:
                            if recorded:
                                done = self.run_model(store, "--verify", how, layout=layout)
                                self.assertEqual(done.returncode, 0, done.stderr)
                            f = store / path.relative_to(self.whole)
                            times = f.stat()
                            data = change(f.read_bytes())
                            f.chmod(0o644)
                            f.write_bytes(data)
                            os.utime(f, ns=(times.st_atime_ns, times.st_mtime_ns))
                            done = self.run_model(store, "--verify", how, layout=layout)
                            self.assertEqual(done.returncode, 4, f"{done.stdout} {done.stderr}")
                            self.assertTrue(done.stderr.strip())
                        finally:
                            shutil.rmtree(store)

    def flip(self, path, at):
        def change(data):
            data = bytearray(data)
            data[at] ^= 1
            return bytes(data)
        self.refused(path, change, f"{path.name} at {at}")

    def test_weights(self):
        size = self.weights.stat().st_size
        for at in (0, 100, size // 2, size - 1):
            self.flip(self.weights, at)

    def test_weights_cut_or_grown(self):
        self.refused(self.weights, lambda d: d[:-1], "weights cut")
        self.refused(self.weights, lambda d: d + b"\0", "weights grown")

    def test_config(self):
        size = self.config.stat().st_size
        for at in (0, size // 2, size - 1):
            self.flip(self.config, at)

    def test_manifest(self):
        size = self.manifest.stat().st_size
        for at in (0, size // 3, size - 1):
            self.flip(self.manifest, at)

    def test_index_digest_and_size(self):
        index = self.whole / "index.json"
        text = index.read_text()
        digest = re.search(r'"digest":\s*"sha256:([0-9a-f]{64})"', text)
        size = re.search(r'"size":\s*(\d+)', text)
        for at in (digest.start(1), digest.start(1) + 33, digest.end(1) - 1, size.start(1), size.end(1) - 1):
            self.flip(index, at)

    def test_layout_does_not_parse(self):
        index, version = self.whole / "index.json", self.whole / "oci-layout"
        for what, change in (("empty", lambda d: b""), ("cut", lambda d: d[:len(d) // 2]), ("not JSON", lambda d: b"\0" + d),
                             ("a list", lambda d: b"[]"), ("trailing", lambda d: d + b"}")):
            self.refused(index, change, f"index.json {what}")
            self.refused(version, change, f"oci-layout {what}")
        self.refused(version, lambda d: d.replace(b"1.0.0", b"2.0.0"), "another version of the layout")

    def test_tars_and_what_was_extracted(self):
        """A flip in a tar, in a compressed one, and in the file that came out of it."""
        names = ("modelpack_tar", "modelpack_tar_gzip", "modelpack_split")
        for name, (_, path, _) in fixtures.make(self.folder / "fixtures", names=names).items():
            def run(*more, path=path):
                return self.capstan("run", f"oci:{path}:v1", "-p", "x", "--raw", "-n", "1", "--temp", "0", *more)
            self.assertEqual(run().returncode, 0)
            files = [p for p in (*path.rglob("blobs/sha256/*"), *self.folder.glob("cache/**/extracted/*/*"))
                     if p.is_file() and p.stat().st_size > 100_000]
            self.assertEqual(len(files), {"modelpack_tar": 1, "modelpack_tar_gzip": 2, "modelpack_split": 3}[name], files)
            for f in files:
                for how in ("recorded", "always"):
                    with self.subTest(packaging=name, file=f.name, verify=how):
                        whole = f.read_bytes()
                        changed = bytearray(whole)
                        changed[len(whole) // 2] ^= 1
                        f.chmod(0o644)
                        f.write_bytes(changed)
                        self.assertEqual(run("--verify", how).returncode, 4)
                        f.write_bytes(whole)
                        self.assertEqual(run("--verify", how).returncode, 0)
            shutil.rmtree(self.folder / "cache")


if __name__ == "__main__":
    unittest.main()
