"""The user's cache: what `gc` takes away, and what it leaves. Ages are told through file times. Standard library only."""
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "registry"))
import fixtures  # noqa: E402  pylint: disable=wrong-import-position
import harness  # noqa: E402  pylint: disable=wrong-import-position

BIN = os.environ["CAPSTAN_BIN"]
DAY = 24 * 3600
TINY = pathlib.Path(__file__).resolve().parents[1] / "golden/tiny/llama.gguf"


class Cache(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="capstan-cache-"))
        self.addCleanup(shutil.rmtree, self.folder)
        self.cache = self.folder / "cache/capstan"
        self.env = {"PATH": os.environ["PATH"], "HOME": str(self.folder), "XDG_CACHE_HOME": str(self.folder / "cache"),
                    **{k: v for k, v in os.environ.items() if k.startswith(("ASAN_", "UBSAN_", "TSAN_"))}}
        made = fixtures.make(self.folder / "fixtures", names=("modelpack_raw", "modelpack_tar_gzip"))
        self.raw, self.tar = (f"oci:{made[n][1]}:v1" for n in ("modelpack_raw", "modelpack_tar_gzip"))

    def capstan(self, *args):
        done = subprocess.run([BIN, *args], capture_output=True, text=True, timeout=120, env=self.env, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def run_model(self, ref):
        self.capstan("run", ref, "-p", "x", "--raw", "-n", "1", "--temp", "0")

    def gc(self, *args):
        return json.loads(self.capstan("gc", "--json", *args))["cached"]

    def age(self, days):
        """Everything in the cache was last used so long ago. Not the files of an extracted layer: their records know
        their ctime, their folder tells the use."""
        then = time.time() - days * DAY
        for p in self.cache.rglob("*"):
            if p.is_dir() or "extracted" not in p.parts:
                os.utime(p, (then, then), follow_symlinks=False)

    def files(self):
        return {p: p.lstat().st_ino for p in self.cache.rglob("*") if not p.is_dir() and p.name != "lock"}

    def test_what_was_used_stays(self):
        self.run_model(self.raw)
        self.run_model(self.tar)
        whole = self.files()
        # two blobs' records and an extracted file's, the list and that file, two panels
        self.assertEqual(len(whole), 7, whole)
        self.assertEqual(self.gc(), 0)
        self.age(29)
        self.assertEqual(self.gc(), 0)
        self.age(31)
        self.run_model(self.tar)
        self.assertEqual(self.gc("--dry-run"), 2)
        self.assertEqual(self.files(), whole)
        self.assertEqual(self.gc(), 2)
        left = self.files()
        self.assertEqual(len(left), 5, left)
        self.assertTrue(left.items() <= whole.items())
        self.run_model(self.tar)
        self.assertEqual(self.files(), left)  # nothing was made again
        self.run_model(self.raw)
        self.assertEqual(len(self.files()), 7)
        self.age(31)
        self.assertEqual(self.gc("--dry-run"), 6)  # the extracted layer is one
        self.assertEqual(self.gc(), 6)
        self.assertEqual(self.files(), {})
        self.assertEqual([str(p) for p in self.cache.rglob("?" * 64)], [])
        self.run_model(self.tar)

    def test_panels_of_another_release_in_a_store(self):
        store = self.folder / "store"
        self.capstan("pack", str(TINY), "-t", "m:v1", "--store", str(store))
        run = ("run", "m:v1", "--store", str(store), "-p", "x", "--raw", "-n", "1", "--temp", "0")
        self.capstan(*run)
        [mine] = (store / "capstan/cache").glob("*/*.panels")
        other = mine.with_name(mine.name.split(".v")[0] + ".panels")  # as 0.1.0 called it
        shutil.copy(mine, other)
        self.assertEqual(self.gc("--store", str(store)), 0)
        for f in (mine, other):
            os.utime(f, (time.time() - 31 * DAY,) * 2)
        self.capstan(*run)  # uses its own
        self.assertEqual(self.gc("--store", str(store), "--dry-run"), 1)
        self.assertEqual(self.gc("--store", str(store)), 1)
        self.assertEqual((mine.exists(), other.exists()), (True, False))

    def test_what_is_mapped_stays(self):
        with harness.Server(self.tar, env=self.env) as server:
            whole = self.files()
            self.age(400)
            self.gc()
            mapped = {p: i for p, i in whole.items() if p.parent.name != "records"}
            self.assertEqual(len(mapped), 3)  # the list, the file, the panels
            self.assertEqual(self.files(), mapped)
            status, _, body = server.request("/v1/completions", {"model": self.tar, "prompt": "x", "max_tokens": 1})
            self.assertEqual(status, 200, body)
            server.terminate()
            server.process.wait(60)
        self.gc()
        self.assertEqual(self.files(), {})

    def test_nothing_else_is_touched(self):
        """No store, links, other files beside ours; a cache that others can write is nobody's."""
        self.assertEqual(self.gc(), 0)
        self.assertFalse(self.cache.exists())
        self.run_model(self.raw)
        outside = self.folder / "outside"
        outside.mkdir()
        (outside / "x").write_text("x")
        (self.cache / "notes").write_text("mine")
        (self.cache / "records/link").symlink_to(outside / "x")
        model = next((self.cache / "cache").iterdir())
        for name in ("records/song.mp3", "records/.hidden", "cache/work/thesis.tex", f"cache/{model.name}/read.me"):
            (self.cache / name).parent.mkdir(exist_ok=True)
            (self.cache / name).write_text("mine")
        (self.cache / "extracted").symlink_to(outside)
        self.age(31)
        os.utime(outside / "x", (0, 0))
        self.cache.chmod(0o777)
        self.assertEqual(self.gc(), 0)
        self.cache.chmod(0o700)
        self.assertEqual(self.gc(), 2)
        self.assertEqual(sorted(p.name for p in self.files()), [".hidden", "link", "notes", "read.me", "song.mp3", "thesis.tex"])
        self.assertEqual((outside / "x").read_text(), "x")

    def test_a_store_whose_own_folder_is_a_link(self):
        """Another's folder lies behind it: nothing of that is believed, made or removed."""
        for made, link in (("one", "capstan"), ("two", "capstan/records"), ("three", "capstan/extracted")):
            with self.subTest(link=link):
                store, outside = self.folder / made, self.folder / f"{made}-outside"
                shutil.copytree(self.tar[len("oci:"):-len(":v1")], store)
                index = store / "index.json"
                index.write_text(index.read_text().replace('"v1"', '"m:v1"'))
                self.capstan("run", "m:v1", "--store", str(store), "-p", "x", "--raw", "-n", "1")
                (store / link).rename(outside)
                (store / link).symlink_to(outside)
                before = sorted((p, p.lstat().st_mtime_ns) for p in (outside, *outside.rglob("*")))
                for args in (["run", "m:v1", "-p", "x", "--raw", "-n", "1"], ["verify", "m:v1"], ["gc"], ["rm", "m:v1"]):
                    done = subprocess.run([BIN, *args, "--store", str(store)], capture_output=True, text=True, timeout=120,
                                          env=self.env, check=False)
                    self.assertIn(done.returncode, (0, 1, 4), done.stderr)
                    if args[0] in ("run", "verify"):
                        self.assertEqual(done.returncode, 0, done.stderr)
                    self.assertEqual(sorted((p, p.lstat().st_mtime_ns) for p in (outside, *outside.rglob("*"))), before, args)


if __name__ == "__main__":
    unittest.main()
