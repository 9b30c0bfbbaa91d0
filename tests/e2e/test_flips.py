"""One flipped bit in weights, config or manifest, in a digest or size of index.json, or a layout that no longer parses:
exit 4, with and without the record of an earlier run, with --verify recorded and always. Standard library only."""
import json
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import unittest

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


if __name__ == "__main__":
    unittest.main()
