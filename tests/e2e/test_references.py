"""What people name in place of a model, and every command that takes one: forms of other tools (exit 2, with what to do), and by
path archives, safetensors, folders. Standard library only; zstd from its tool, where that is there."""
import gzip
import json
import os
import pathlib
import shutil
import struct
import subprocess
import sys
import tarfile
import tempfile
import unittest
import zipfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from harness import BIN  # noqa: E402  pylint: disable=wrong-import-position

TINY = pathlib.Path(__file__).resolve().parents[1] / "golden/tiny/llama.gguf"
FORMS = [("oci-archive:arch.tar", "oci:DIR"), ("oci-archive:./arch.tar:m1", "oci:DIR"), ("docker-archive:x.tar", "oci:DIR"),
         ("dir:/x", "oci:DIR"), ("docker-daemon:n:t", "oci:DIR"), ("containers-storage:localhost/n", "oci:DIR"),
         ("ollama://llama3.2", "registry.ollama.ai/library/NAME:TAG"), ("hf://o/R/x.gguf", "download"),
         ("huggingface://o/R", "download"), ("https://huggingface.co/o/R/x.gguf", "download"),
         ("http://reg.lan:5000/o/m", "--plain-http"), ("s3://bucket/m.gguf", "docker://NAME")]
READERS = [["run", "REF", "-p", "x"], ["tokenize", "-m", "REF"], ["inspect", "REF"], ["verify", "REF"],
           ["bench", "engine", "-m", "REF"], ["serve", "REF", "--port", "0"]]


def command(words, ref):
    return [ref if w == "REF" else w for w in words]


class References(unittest.TestCase):
    def setUp(self):
        self.temp = tempfile.TemporaryDirectory()
        self.addCleanup(self.temp.cleanup)
        self.top = pathlib.Path(self.temp.name)
        self.env = {"PATH": os.environ["PATH"], "HOME": str(self.top)}

    def capstan(self, words):
        """(exit code, last line of stderr); a proxy that nobody runs keeps every request here."""
        done = subprocess.run([BIN, *words], capture_output=True, text=True, timeout=60, env={**self.env, "https_proxy": "http://127.0.0.1:1"},
                              stdin=subprocess.DEVNULL, cwd=self.top, check=False)
        return done.returncode, (done.stderr.strip().splitlines() or [""])[-1]

    def test_forms_of_other_tools(self):
        commands = [*READERS, ["pull", "REF"], ["rm", "REF"], ["pack", "x.gguf", "-t", "REF"]]
        for words in commands:
            for ref, says in FORMS if words[0] in ("run", "pull", "rm") else FORMS[:1]:
                with self.subTest(command=words[0], ref=ref):
                    code, last = self.capstan(command(words, ref))
                    self.assertEqual(code, 2, last)
                    self.assertIn(says, last)

    def test_digests_are_not_asked_for(self):
        """Whole, or cut as tables show them: nobody is asked for a tag of a model that is called sha256."""
        for ref in ("sha256:" + "a" * 64, "sha256:07cd0fa7e76e", "sha256:07CD0FA7E76E"):
            for words in (["pull", ref], ["run", ref, "-p", "x"]):
                self.assertEqual(self.capstan(words)[0], 3, (words, ref))
            self.assertIn("a digest alone names no repository", self.capstan(["pull", ref])[1])
        self.assertEqual(self.capstan(["pull", "sha256:v1"])[0], 5)

    def test_an_authfile_that_is_missing(self):
        """Also where nothing needs to be pulled: who names it believes that it is read."""
        for words in READERS:
            if "verify" in words or "inspect" in words:
                continue  # they take no registry options
            with self.subTest(command=words[0]):
                code, last = self.capstan([*command(words, str(TINY)), "--authfile", "/nowhere/auth.json"])
                self.assertEqual((code, "authfile: /nowhere/auth.json: No such file" in last), (2, True), last)

    def files(self):
        """{path: what the message says}"""
        (self.top / "d").mkdir()
        (self.top / "d/b.gguf").write_bytes(b"GGUF" + bytes(20_000))
        (self.top / "d/c.gguf").write_bytes(b"GGUF" + bytes(20_000))
        with tarfile.open(self.top / "save.tar", "w") as t:
            t.add(self.top / "d", "d")
        tar = (self.top / "save.tar").read_bytes()
        (self.top / "save.tar.gz").write_bytes(gzip.compress(tar))
        (self.top / "sf").mkdir()
        head = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
        (self.top / "sf/model.safetensors").write_bytes(struct.pack("<Q", len(head)) + head + bytes(4))
        with zipfile.ZipFile(self.top / "z.zip", "w") as z:
            z.writestr("x", "y")
        (self.top / "lfs.gguf").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
        (self.top / "page.gguf").write_text("<!DOCTYPE html>\n")
        (self.top / "layout").mkdir()
        (self.top / "layout/oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
        (self.top / "empty").mkdir()
        files = {"./save.tar": "a tar archive: unpack it", "./save.tar.gz": "gzip: decompress it", "./z.zip": "zip",
                 "./sf/model.safetensors": "safetensors.*convert", "./sf": "safetensors.*convert", "./d": "name the file in it, b.gguf",
                 "./layout": "oci:./layout", "./empty": "is a directory", "./lfs.gguf": "git lfs pull", "./page.gguf": "a web page"}
        if shutil.which("zstd"):
            subprocess.run(["zstd", "-q", self.top / "save.tar", "-o", self.top / "save.tar.zst"], check=True)
            files["./save.tar.zst"] = "zstd: decompress it"
        return files

    def test_a_folder_with_one_model(self):
        """As volumes and images are mounted: what else lies there does not matter, and two models are none."""
        folder = self.top / "models"
        folder.mkdir()
        shutil.copy(TINY, folder / "m.gguf")
        (folder / "mmproj-m.gguf").write_bytes(b"GGUF")
        (folder / "README.md").write_text("x")
        for ref in (str(folder), "./models", "./models/"):
            self.assertEqual(self.capstan(["run", ref, "-p", "x", "-n", "1"])[0], 0, ref)
        (folder / "m.gguf").rename(folder / "m-00001-of-00002.gguf")
        (folder / "m-00002-of-00002.gguf").write_bytes(b"GGUF")
        self.assertEqual(self.capstan(["run", str(folder), "-p", "x", "-n", "1"])[0], 0)  # the first shard, which says nothing of others
        (folder / "n.gguf").write_bytes(b"GGUF")
        self.assertIn("name the file in it", self.capstan(["run", str(folder), "-p", "x"])[1])
        self.capstan(["pack", str(TINY), "-t", "one:v1", "--store", str(self.top / "layout2")])
        self.assertEqual(self.capstan(["run", str(self.top / "layout2"), "-p", "x", "-n", "1"])[0], 0)
        self.capstan(["pack", str(TINY), "-t", "two:v1", "--format", "docker", "--store", str(self.top / "layout2")])
        self.assertRegex(self.capstan(["run", str(self.top / "layout2"), "-p", "x"])[1], "holds 2 entries")

    @unittest.skipUnless(os.geteuid() == 0 and shutil.which("unshare"), "mounts need root")
    def test_a_folder_behind_another_process_root(self):
        """How KServe's modelcars are mounted: a link into /proc/PID/root, whose text names no file of this root."""
        (self.top / "car").mkdir()
        script = 'mount -t tmpfs t "$1" && cp "$2" "$1/m.gguf" && echo mounted && exec sleep 60'
        with subprocess.Popen(["unshare", "-m", "sh", "-c", script, "sh", self.top / "car", TINY], stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL) as other:
            try:
                if other.stdout.readline() != b"mounted\n":
                    self.skipTest("no mount namespaces here")
                (self.top / "mnt").symlink_to(f"/proc/{other.pid}/root{self.top}/car")
                for ref in ("./mnt", "./mnt/m.gguf", str(self.top / "mnt")):
                    self.assertEqual(self.capstan(["run", ref, "-p", "x", "-n", "1"])[0], 0, ref)
            finally:
                other.kill()

    def test_files_that_are_no_gguf(self):
        files = self.files()
        for words in [*READERS, ["pack", "REF", "-t", "x:y"]]:
            for path, says in files.items() if words[0] in ("run", "pack") else list(files.items())[:6]:
                with self.subTest(command=words[0], path=path):
                    code, last = self.capstan(command(words, path))
                    self.assertIn(code, (1, 4), last)
                    self.assertRegex(last, says)
                    self.assertIn(path, last)


if __name__ == "__main__":
    unittest.main(verbosity=1)
