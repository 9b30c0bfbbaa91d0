"""Derived data that lie: records, panels and extracted files with consistent checksums, planted where a model is read
from. What they say is never believed in a layout that `oci:` names or in a store of another user: the genuine numbers or
exit 4, with --verify recorded, with always, and from `capstan verify`. Standard library only; other users need root."""
import gzip
import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "registry"))
import fixtures  # noqa: E402  pylint: disable=wrong-import-position

MODEL = fixtures.MODEL.read_bytes()
DATA_BYTES = 330_496  # of tests/golden/tiny/llama.gguf: f32 tensors to its end
ME, OTHER = 4242, 4243
ROOT = os.geteuid() == 0 and shutil.which("setpriv")


def forged(model):
    """The same file with the signs of one linear (blk.0.ffn_down) flipped."""
    data = bytearray(model)
    at = len(data) - DATA_BYTES + 180_992
    for i in range(at + 3, at + 96 * 64 * 4, 4):
        data[i] ^= 0x80
    return bytes(data)


def layout(path, model, packed):
    """An image-layout with the model as entry m:v1, whole or in a gzip tar. Its weights' digest, hex."""
    made = fixtures.Layout(path)
    if packed:
        data = gzip.compress(fixtures.tar("llama.gguf", model), mtime=0)
        layer = made.blob(data, fixtures.CNCF + "weight.v1.tar+gzip", **fixtures.filepath("llama.gguf"))
    else:
        layer = made.blob(model, fixtures.CNCF + "weight.v1.raw", **fixtures.filepath("llama.gguf"))
    made.name(fixtures.modelpack(made, [layer], config={}), "m:v1")
    return layer["digest"][len("sha256:"):]


class Forge(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = pathlib.Path(tempfile.mkdtemp(prefix="capstan-forge-"))
        cls.addClassCleanup(shutil.rmtree, cls.folder)
        cls.folder.chmod(0o755)
        cls.bin = cls.folder / "capstan"  # other users may not reach the build tree
        shutil.copy(os.environ["CAPSTAN_BIN"], cls.bin)
        cls.text = cls.folder / "text"
        cls.text.write_text("The quick brown fox jumps over the lazy dog. " * 4)
        cls.n_homes = 0
        cls.genuine = {}  # kind -> a store with derived data that are right
        cls.hex = {}
        other = {}
        for kind in ("raw", "tar"):
            cls.genuine[kind] = cls.folder / kind
            cls.hex[kind] = layout(cls.genuine[kind], MODEL, kind == "tar")
            other[kind] = cls.folder / f"{kind}-forged"
            other[kind, "hex"] = layout(other[kind], forged(MODEL), kind == "tar")
        cls.other = other
        cls.right = cls.perplexity(cls.genuine["raw"])
        assert cls.perplexity(cls.genuine["tar"]) == cls.right
        cls.wrong = cls.perplexity(other["raw"])
        assert cls.perplexity(other["tar"]) == cls.wrong
        assert isinstance(cls.right, float) and isinstance(cls.wrong, float) and cls.right != cls.wrong, (cls.right, cls.wrong)

    # ---- running ----

    @classmethod
    def home(cls, uid):
        """An empty home of its own: no cache of an earlier run."""
        cls.n_homes += 1
        home = cls.folder / f"home{cls.n_homes}"
        home.mkdir()
        os.chown(home, uid, uid)
        return home

    @classmethod
    def capstan(cls, *args, uid=None, home=None):
        uid = os.geteuid() if uid is None else uid
        home = home or cls.home(uid)
        env = {"PATH": os.environ["PATH"], "HOME": str(home),
               **{k: v for k, v in os.environ.items() if k.startswith(("ASAN_", "UBSAN_", "TSAN_"))}}
        drop = [] if uid == os.geteuid() else ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]
        return subprocess.run([*drop, cls.bin, *args], capture_output=True, text=True, timeout=120, env=env, check=False,
                              cwd="/")

    @classmethod
    def perplexity(cls, store, *args, oci=False, **how):
        """The model's number, or the text of exit 4."""
        ref = ["-m", f"oci:{store}:m:v1"] if oci else ["-m", "m:v1", "--store", str(store)]
        done = cls.capstan("bench", "perplexity", *ref, "-f", str(cls.text), "--json", "--ctx", "64", "--threads", "1", *args, **how)
        if done.returncode == 4:
            return done.stderr
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)["nll"]

    # ---- the three forgeries ----

    def take(self, kind):
        """A copy of a genuine store. Inodes and times are new, so that its records no longer match."""
        self.addCleanup(shutil.rmtree, self.folder / "st", ignore_errors=True)
        return pathlib.Path(shutil.copytree(self.genuine[kind], self.folder / "st"))

    def plant_record(self, store, owner):
        """Other weights, and a record that they have the digest of the right ones. Without panels."""
        shutil.rmtree(store / "capstan/cache")
        h = self.hex["raw"]
        blob = store / "blobs/sha256" / h
        blob.chmod(0o644)
        blob.write_bytes(forged(MODEL))
        os.chown(blob, owner, owner)
        self.record(store / "capstan/records" / h, h, blob)

    @staticmethod
    def record(path, h, f):
        s = f.stat()
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"sha256:{h} {s.st_size} {s.st_mtime_ns} {s.st_ctime_ns} {s.st_ino}\n")

    def plant_panels(self, store, _owner, kind="raw"):
        """The panels of other weights, under the right ones' key."""
        mine, theirs = self.hex[kind], self.other[kind, "hex"]
        found = list((self.other[kind] / "capstan/cache" / theirs).glob("*.panels"))
        self.assertEqual(len(found), 1)
        data = found[0].read_bytes()
        self.assertEqual(data[:4096].count(theirs.encode()), 1)
        for f in (store / "capstan/cache" / mine).iterdir():
            f.unlink()
        (store / "capstan/cache" / mine / found[0].name.replace(theirs, mine)).write_bytes(data.replace(theirs.encode(), mine.encode()))

    def plant_extracted(self, store, owner):
        """What another layer unpacks to, its list sealed again under the right layer's name. Without panels."""
        mine, theirs = self.hex["tar"], self.other["tar", "hex"]
        there = store / "capstan/extracted" / mine
        shutil.rmtree(store / "capstan/cache")
        shutil.rmtree(there)
        shutil.copytree(self.other["tar"] / "capstan/extracted" / theirs, there)
        body = (there / "list").read_text().replace(theirs, mine).rsplit("\n", 2)[0] + "\n"
        (there / "list").chmod(0o644)
        (there / "list").write_text(body + "sha256:" + hashlib.sha256(body.encode()).hexdigest() + "\n")
        os.chown(there / "0", owner, owner)
        key = hashlib.sha256(f"extracted/{mine}/0".encode()).hexdigest()
        digest = next(line.split()[3] for line in body.splitlines() if line[:2] == "g ")
        self.record(store / "capstan/records" / key, digest[len("sha256:"):], there / "0")

    ROUTES = {"record": ("raw", plant_record), "panels": ("raw", plant_panels), "extracted": ("tar", plant_extracted)}

    def forge(self, route, owner):
        kind, plant = self.ROUTES[route]
        store = self.take(kind)
        os.chown(store, owner, owner)
        for folder, folders, files in os.walk(store):
            for name in folders + files:
                os.chown(os.path.join(folder, name), owner, owner)
        plant(self, store, owner)
        for f in (store / "capstan").rglob("*"):
            if f.lstat().st_uid != owner:
                os.chown(f, owner, owner)
        return store

    def never_believed(self, route, store, **how):
        """Genuine or exit 4, in each mode, at a first start and at a second."""
        uid = how.get("uid", os.geteuid())
        for args in ((), ("--verify", "always")):
            home = self.home(uid)
            for start in (1, 2):
                with self.subTest(route=route, args=args, start=start, **how):
                    got = self.perplexity(store, *args, home=home, **how)
                    if isinstance(got, str):
                        self.assertTrue(got.strip())
                    else:
                        self.assertEqual(got, self.right)
        with self.subTest(route=route, mode="verify", **how):
            ref = [f"oci:{store}:m:v1"] if how.get("oci") else ["m:v1", "--store", str(store)]
            done = self.capstan("verify", *ref, home=home, uid=how.get("uid"))
            self.assertIn(done.returncode, (0, 4), done.stderr)
            if route == "record":
                self.assertEqual(done.returncode, 4, done.stderr)

    def test_what_is_planted_would_be_believed(self):
        """The forgeries are good ones: in this user's own store a start takes them for his work, and what checks sees them."""
        for route in self.ROUTES:
            with self.subTest(route=route):
                store = self.forge(route, os.geteuid())
                self.addCleanup(shutil.rmtree, store, ignore_errors=True)
                self.assertEqual(self.perplexity(store), self.wrong)
                self.assertIsInstance(self.perplexity(store, "--verify", "always"), str)
                done = self.capstan("verify", "m:v1", "--store", str(store))
                self.assertEqual(done.returncode, 4, done.stdout + done.stderr)
                self.assertIn(str(store / "capstan") if route != "record" else "digest is", done.stderr)
                shutil.rmtree(store)

    def test_layouts(self):
        for route in self.ROUTES:
            self.never_believed(route, self.forge(route, os.geteuid()), oci=True)
            shutil.rmtree(self.folder / "st")

    @unittest.skipUnless(ROOT, "needs root and setpriv to be other users")
    def test_stores_of_others(self):
        """A store of somebody else's, opened by root and by a third user; an own layout by its owner."""
        for route in self.ROUTES:
            for uid, owner, oci in ((0, OTHER, False), (ME, OTHER, False), (ME, OTHER, True), (ME, ME, True)):
                self.never_believed(route, self.forge(route, owner), uid=uid, oci=oci)
                shutil.rmtree(self.folder / "st")

    @unittest.skipUnless(ROOT, "needs root and setpriv to be other users")
    def test_readers_of_a_store_that_root_made(self):
        """They read what root made there, and write nothing but what it lacks, in their own caches."""
        store = self.take("tar")
        self.assertEqual(self.perplexity(store), self.right)
        home = self.home(ME)
        self.assertEqual(self.perplexity(store, uid=ME, home=home), self.right)
        self.assertEqual([str(p) for p in home.rglob("*") if p.is_file()], [])
        shutil.rmtree(store / "capstan/extracted")
        self.assertEqual(self.perplexity(store, uid=ME, home=home), self.right)
        self.assertEqual(len(list((home / ".cache/capstan/extracted").glob("*/list"))), 1)


if __name__ == "__main__":
    unittest.main()
