"""models.toml of the repository serves as it stands and shows every key; and who wins where sampling is said in several
places: request > models.toml > packaging > the file's general.sampling.* > --sampling-defaults. Standard library only."""
import hashlib
import json
import os
import pathlib
import re
import struct
import subprocess
import tempfile
import unittest

from harness import BIN, Server
from test_broken import HEAD, TINY, with_key

ROOT = pathlib.Path(__file__).resolve().parents[2]
EXAMPLE = (ROOT / "models.toml").read_text(encoding="utf-8")
F32, ALIGNMENT = 6, 32
KV = ["--kv-bytes", "2MiB", "--max-seqs", "2"]


def capstan(*args, **kw):
    return subprocess.run([BIN, *args], capture_output=True, text=True, timeout=120, check=False, **kw)


def with_temperature(t):
    """The tiny model, whose file says so."""
    head = with_key("general.sampling.temp", F32, struct.pack("<f", t))[:HEAD.end - len(TINY)]
    return head + bytes(-len(head) % ALIGNMENT) + TINY[HEAD.end + -HEAD.end % ALIGNMENT:]


class Example(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.store = os.path.join(self.folder.name, "store")

    def parse(self, text):
        path = os.path.join(self.folder.name, "f.toml")
        pathlib.Path(path).write_text(text, encoding="utf-8")
        return capstan("gc", "--dry-run", "--config", path, env={**os.environ, "CAPSTAN_STORE": self.store})

    def test_it_serves_as_it_stands(self):
        quickstart = re.search(r"^NAME=(\S+)$", (ROOT / "scripts/quickstart").read_text(), re.M)[1]
        gguf = str(ROOT / "tests/golden/tiny/llama.gguf")
        self.assertEqual(capstan("pack", gguf, "-t", quickstart, "--store", self.store).returncode, 0)
        with Server("--config", str(ROOT / "models.toml"), "--store", self.store, *KV) as s:
            ids = [m["id"] for m in json.loads(s.request("/v1/models")[2])["data"]]
            self.assertEqual(ids[0], "smollm2")

    def test_every_line_is_valid(self):
        settings = [(n, line[1:]) for n, line in enumerate(EXAMPLE.splitlines()) if re.match(r"#([a-z_]+ = |\[)", line)]
        lines = EXAMPLE.splitlines()
        for n, setting in settings:
            if not setting.startswith("[["):  # and its ref below
                one = self.parse("\n".join([*lines[:n], setting, *lines[n + 1:]]) if "ref = " not in setting else EXAMPLE)
                self.assertEqual(one.returncode, 0, (setting, one.stderr))
        every = self.parse(re.sub(r"^#(?=[a-z_]+ = |\[)", "", EXAMPLE, flags=re.M))
        self.assertEqual(every.returncode, 0, every.stderr)
        wrong = self.parse(EXAMPLE.replace("#port = ", "port = -"))
        self.assertRegex(wrong.stderr, r"f\.toml:\d+:1: key 'port': got '-8080'; allowed: an integer, 0\.\.65535")

    def test_every_key_is_shown_with_its_default(self):
        shown = {"": {}, "model": {}, "sampling": {}}
        table = ""
        for line in EXAMPLE.splitlines():
            if "[[model]]" in line and line.lstrip("#").startswith("["):
                table = "model"
            elif line.lstrip("#").startswith("[model.sampling]"):
                table = "sampling"
            elif m := re.match(r"#?([a-z_]+) = (\[.*?\]|\".*?\"|\S+)", line):
                shown[table].setdefault(m[1], m[2].strip('"'))
        docs = (ROOT / "docs/CONFIGURATION.md").read_text(encoding="utf-8")
        rows = re.findall(r"^\| `--([a-z-]+)`(?: `-.`)? \| [^|]* \| (?:`(.*?)`)? \| .*? \| ((?:all|[a-z, ]*(?<!bench )\bserve\b)[a-z, ]*) \|", docs.replace(r"\|", "/"), re.M)
        want = {name.replace("-", "_"): default for name, default, _ in rows}
        self.assertGreater(len(want), 30)
        for alone in ("config", "alias"):  # of the command line, where there is one REF
            want.pop(alone)
        self.assertEqual(sorted(shown[""]), sorted(want))
        for name, default in want.items():
            if default:
                self.assertEqual({"true": "on"}.get(shown[""][name], shown[""][name]), default, name)
        for table, title in (("model", "[[model]]"), ("sampling", "[model.sampling]")):
            section = docs.split(f"### {title}\n")[1].split("\n#")[0]
            self.assertEqual(sorted(shown[table]), sorted(re.findall(r"^\| `([a-z_]+)`", section, re.M)), title)


class Sampling(unittest.TestCase):
    """With a seed, the text says which values were taken: it is that of the request that spells them out."""
    OPENAI, LLAMA = {"temperature": 1, "top_p": 1}, {"temperature": 0.8, "top_k": 40, "top_p": 0.95, "min_p": 0.05}

    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.store = os.path.join(self.folder.name, "store")

    def text(self, s, model=None, **fields):
        body = {"prompt": "Once upon", "seed": 1, "max_tokens": 48, "ignore_eos": True, **({"model": model} if model else {}), **fields}
        status, _, answer = s.request("/v1/completions", body)
        self.assertEqual(status, 200, answer)
        return json.loads(answer)["choices"][0]["text"]

    def file(self, name, b):
        path = os.path.join(self.folder.name, name)
        pathlib.Path(path).write_bytes(b)
        return path

    def ollama(self, name, b, params):
        """A layout of Ollama's packaging, whose params layer a model brings along."""
        layout = pathlib.Path(self.folder.name, name)
        (layout / "blobs/sha256").mkdir(parents=True)

        def blob(data, kind):
            h = hashlib.sha256(data).hexdigest()
            (layout / "blobs/sha256" / h).write_bytes(data)
            return {"mediaType": kind, "digest": "sha256:" + h, "size": len(data)}

        kind = "application/vnd.docker.distribution.manifest.v2+json"
        manifest = {"schemaVersion": 2, "mediaType": kind, "config": blob(b"{}", "application/vnd.docker.container.image.v1+json"),
                    "layers": [blob(b, "application/vnd.ollama.image.model"),
                               blob(json.dumps(params).encode(), "application/vnd.ollama.image.params")]}
        index = {"schemaVersion": 2, "manifests": [blob(json.dumps(manifest).encode(), kind)]}
        (layout / "index.json").write_text(json.dumps(index))
        (layout / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
        return f"oci:{layout}"

    def test_who_wins(self):
        plain = self.file("plain.gguf", TINY)
        said = with_temperature(0.5)
        own = self.file("own.gguf", said)
        packed = self.ollama("layout", said, {"temperature": 1.3})
        config = self.file("f.toml", f'''[[model]]
ref = "{packed}"
alias = ["configured"]
[model.sampling]
top_k = 50
temperature = 1.5
'''.encode())
        texts = {}
        for whose, base in (("openai", self.OPENAI), ("llama.cpp", self.LLAMA)):
            with Server(plain, own, packed, "--config", config, "--sampling-defaults", whose, *KV) as s:
                for model, want in ((plain, base), (own, {**base, "temperature": 0.5}), (packed, {**base, "temperature": 1.3}),
                                    ("configured", {**base, "temperature": 1.5, "top_k": 50})):
                    texts[whose, model] = self.text(s, model)
                    self.assertEqual(texts[whose, model], self.text(s, plain, **{"top_k": 0, "min_p": 0, **want}), (whose, model))
                    self.assertEqual(self.text(s, model, temperature=0), self.text(s, plain, temperature=0), (whose, model))
        self.assertEqual(len(set(texts.values())), len(texts), "some values make no difference here")
        with Server(plain, *KV) as s:
            self.assertEqual(self.text(s), texts["openai", plain])

    def test_run(self):
        plain = self.file("plain.gguf", TINY)
        own = self.file("own.gguf", with_temperature(0.5))
        config = self.file("f.toml", f'top_p = 0.5\n[[model]]\nref = "{own}"\n[model.sampling]\ntop_k = 3\nseed = 1\nmax_tokens = 20\n'.encode())

        def run(model, *args, seed=("--seed", "1"), n=("-n", "20")):
            r = capstan("run", model, "-p", "Once upon", "--raw", "--json", "--kv-bytes", "2MiB", *seed, *n, *args)
            self.assertEqual(r.returncode, 0, r.stderr)
            return json.loads(r.stdout)["text"]

        with Server(plain, *KV) as s:
            def want(**fields):
                return self.text(s, ignore_eos=False, max_tokens=20, **{**self.LLAMA, **fields})
            self.assertEqual(run(plain), want())
            self.assertEqual(run(plain, "--temp", "1", "--top-p", "1"), want(temperature=1, top_p=1))
            self.assertEqual(run(own), want(temperature=0.5))
            self.assertEqual(run(own, "--temp", "0.9"), want(temperature=0.9))
            self.assertEqual(run(plain, "--config", config), want(top_p=0.5))
            self.assertEqual(run(own, "--config", config, seed=(), n=()), want(temperature=0.5, top_k=3, top_p=0.5))
            self.assertEqual(run(own, "--config", config, "--seed", "2"), want(temperature=0.5, top_k=3, top_p=0.5, seed=2))


if __name__ == "__main__":
    unittest.main()
