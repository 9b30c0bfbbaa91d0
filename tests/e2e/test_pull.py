"""Models that are pulled: phases while `serve` pulls by name, signals in mid-pull, what is said when it cannot be had, and the
store's commands. Standard library only; the registry is tests/fakes/registry.py."""
import json
import os
import pathlib
import re
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
from registry import Basic, Registry, SECRET, USER  # noqa: E402  pylint: disable=wrong-import-position

CNCF = "application/vnd.cncf.model."
TINY = ROOT / "tests/golden/tiny/llama.gguf"
TINY_KV = ["--kv-bytes", "1MiB", "--ctx", "256", "--max-seqs", "4"]


def add_model(registry, repo, data):
    c = registry.content
    layer = c.blob(data, CNCF + "weight.v1.raw", annotations={"org.cncf.model.filepath": "model.gguf"})
    config = c.blob(b'{"modelfs":{"type":"layers","diffIds":[]}}', CNCF + "config.v1+json")
    kind = "application/vnd.oci.image.manifest.v1+json"
    return c.manifest(repo, "v1", {"schemaVersion": 2, "mediaType": kind, "artifactType": CNCF + "manifest.v1+json",
                                   "config": config, "layers": [layer]}, kind)["digest"]


def slow(seconds, size):
    """A hook that sends a blob in pieces, in about so many seconds for `size` bytes."""
    def hook(x):
        data = x.server.content.read(x.reference)
        first, last = x.span(len(data)) or (0, len(data) - 1)
        headers = [("Content-Length", str(last + 1 - first))]
        if x.header("Range"):
            headers.append(("Content-Range", f"bytes {first}-{last}/{len(data)}"))
        x.head(206 if x.header("Range") else 200, headers)
        for at in range(first, last + 1, 16384):
            n = min(16384, last + 1 - at)
            x.write(data[at:at + n])
            time.sleep(seconds * n / size)
        return True
    return hook


def stall(x):  # pylint: disable=unused-argument
    """A hook that never answers."""
    time.sleep(60)
    return True


def pulls(pid):
    """Among all that a process has started, the opener's (app/opener.h) included."""
    out = []
    for child in children(pid):
        with open(f"/proc/{child}/cmdline", encoding="ascii") as f:
            out += [child] if "--progress-fd=3" in f.read() else pulls(child)
    return out


def children(pid):
    out = []
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid and fields[0] != "Z":
            out.append(int(stat.parent.name))
    return out


def running(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


class Pull(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.store = os.path.join(self.folder.name, "store")
        self.registry = Registry().start()
        self.data = TINY.read_bytes()
        self.digest = add_model(self.registry, "m/tiny", self.data)
        self.ref = f"{self.registry.host}/m/tiny:v1"

    def tearDown(self):
        self.registry.close()
        self.folder.cleanup()

    def capstan(self, *args, **more):
        return subprocess.run([BIN, *args, "--store", self.store], capture_output=True, text=True, timeout=120, check=False, **more)

    def serve(self, *refs):
        return Server(*refs, *TINY_KV, "--store", self.store, ready=False)

    def test_serve_pulls_and_says_how_far_it_is(self):
        self.registry.hooks["blob"] = slow(3, len(self.data))
        with self.serve(self.ref) as s:
            seen, metrics = {}, {}

            def ready():
                status, _, body = s.request("/readyz")
                body = json.loads(body)
                old = seen.get(body["phase"], {})  # of each number the largest: a rate may fall back to 0
                seen[body["phase"]] = {**old, **body, **{k: max(v, old.get(k, v)) for k, v in body.items() if isinstance(v, int)}}
                if body["phase"] == "pulling" and body.get("bytes_done"):
                    rows = s.metrics()
                    if rows["capstan_load_bytes", ""]:  # the phase may have passed
                        metrics.update(rows)
                return status == 200
            s.wait(ready, "ready")
            self.assertLess(0, seen["pulling"]["bytes_done"])
            self.assertLessEqual(len(self.data), seen["pulling"]["bytes_total"])
            self.assertLess(0, seen["pulling"]["bytes_per_second"])
            self.assertEqual(seen["pulling"]["status"], "loading")
            self.assertEqual(seen["serving"], {"status": "ok", "phase": "serving"})
            self.assertLess(0, metrics["capstan_load_bytes", ""])
            self.assertLessEqual(len(self.data), metrics["capstan_load_size_bytes", ""])
            self.assertEqual(s.metric("capstan_load_bytes"), 0)
            status, _, body = s.request("/v1/completions", {"prompt": "x", "max_tokens": 4, "temperature": 0})
            self.assertEqual(status, 200, body)
            self.assertEqual(json.loads(body)["model"], self.ref)
            self.assertRegex(s.log(), re.escape(self.ref) + " is not in the store, pulling it")
            self.assertEqual(pulls(s.process.pid), [])
        asked = len(self.registry.rows())
        with self.serve(self.ref) as s:  # now it is here: nobody is asked
            s.wait_ready()
            self.assertEqual(len(self.registry.rows()), asked)

    def test_several_models_are_pulled_one_after_another(self):
        other = f"{self.registry.host}/m/other:v1"
        add_model(self.registry, "m/other", self.data[:-1] + bytes([self.data[-1] ^ 1]))
        with self.serve(self.ref, other) as s:
            s.wait_ready()
            ids = [m["id"] for m in json.loads(s.request("/v1/models")[2])["data"]]
            self.assertEqual(ids, [self.ref, other])
        manifests = [r.path for r in self.registry.rows("manifest")]
        blobs = [r.path for r in self.registry.rows() if r.what in ("manifest", "blob")]
        self.assertEqual(len(manifests), 2)
        self.assertTrue(all("m/tiny" in p for p in blobs[:blobs.index(manifests[1])]))

    def test_a_signal_in_mid_pull_ends_both(self):
        # While bytes flow, and while a pull writes no progress and so cannot see that nobody reads it.
        for number, code, what, hook, phase in ((signal.SIGTERM, 0, "blob", slow(60, len(self.data)), "pulling"),
                                                (signal.SIGTERM, 0, "manifest", stall, "resolving"),
                                                (signal.SIGINT, 0, "manifest", stall, "resolving"),
                                                (signal.SIGKILL, -9, "manifest", stall, "resolving")):
            self.registry.hooks[what] = hook
            with self.serve(self.ref) as s:
                s.wait(lambda: json.loads(s.request("/readyz")[2])["phase"] == phase, phase)
                child = pulls(s.process.pid)
                self.assertEqual(len(child), 1)
                s.process.send_signal(number)
                self.assertEqual(s.process.wait(10), code)
                end = time.monotonic() + 10  # below --stall-timeout
                while running(child[0]):
                    self.assertLess(time.monotonic(), end, "the pull outlives its parent")
                    time.sleep(0.01)
        self.assertEqual(json.loads(self.capstan("list", "--json").stdout), [])

    def test_what_cannot_be_had(self):
        missing = f"{self.registry.host}/m/none:v1"
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            nobody = f"127.0.0.1:{closed.getsockname()[1]}/m/tiny:v1"
            for ref, code in ((missing, 3), (nobody, 5), (self.ref + "@sha256:" + "0" * 64, 3)):
                for command in (["pull", ref], ["serve", ref, "--port", "0"], ["run", ref, "-p", "x"], ["tokenize", "-m", ref],
                                ["bench", "engine", "-m", ref]):
                    done = self.capstan(*command, "--retries", "1")
                    self.assertEqual(done.returncode, code, (command, done.stderr))
                    self.assertIn(ref.partition("@")[0], done.stderr)
                    self.assertEqual(done.stdout, "")
                    if command[0] != "pull":
                        self.assertIn({3: "check name and tag", 5: "check the network"}[code], done.stderr)
        self.assertEqual(self.capstan("pull", "./x.gguf").returncode, 2)
        self.assertEqual(self.capstan("pull", self.ref, "--progress-fd", "77").returncode, 2)

    def add(self, repo, layers, config, config_type):
        c = self.registry.content
        kind = "application/vnd.oci.image.manifest.v1+json"
        c.manifest(repo, "v1", {"schemaVersion": 2, "mediaType": kind, "config": c.blob(json.dumps(config).encode(), config_type),
                                "layers": [c.blob(data, t) for data, t in layers]}, kind)
        return f"{self.registry.host}/{repo}:v1"

    def test_what_the_packaging_brings_is_used_or_named(self):
        docker = "application/vnd.docker.ai."
        ref = self.add("m/docker", [(self.data, docker + "gguf.v3"), (b"{{ 'from the packaging' }}", docker + "chat.template.jinja"),
                                    (b"x", docker + "license")],
                       {"config": {"format": "gguf", "context_size": 128}, "rootfs": {"type": "rootfs", "diff_ids": []}},
                       docker + "model.config.v0.1+json")
        chat = {"messages": [{"role": "user", "content": "x"}]}
        with Server(ref, "--kv-bytes", "4MiB", "--store", self.store) as s:
            self.assertEqual(json.loads(s.request("/apply-template", chat)[2]), {"prompt": "from the packaging"})
            self.assertEqual(json.loads(s.request("/v1/models")[2])["data"][0]["max_model_len"], 128)
            self.assertRegex(s.log(), r"license\) ignored: ")
        own = pathlib.Path(self.folder.name, "own.jinja")
        own.write_text("{{ 'the operator' }}")
        with Server(ref, "--kv-bytes", "4MiB", "--store", self.store, "--ctx", "64", "--chat-template-file", str(own)) as s:
            self.assertEqual(json.loads(s.request("/apply-template", chat)[2]), {"prompt": "the operator"})
            self.assertEqual(json.loads(s.request("/v1/models")[2])["data"][0]["max_model_len"], 64)
        ollama = "application/vnd.ollama.image."
        params = {"num_predict": 3, "temperature": 0, "num_ctx": 96, "stop": ["x", 1], "mirostat": 1, "top_p": 7, "top_k": 1.5}
        ref = self.add("m/ollama", [(self.data, ollama + "model"), (json.dumps(params).encode(), ollama + "params"),
                                    (b"{{ .Prompt }}", ollama + "template")],
                       {"model_format": "gguf", "model_family": "llama", "rootfs": {"type": "layers", "diff_ids": []}},
                       "application/vnd.docker.container.image.v1+json")
        with Server(ref, "--kv-bytes", "4MiB", "--store", self.store) as s:
            body = json.loads(s.request("/v1/chat/completions", {**chat, "ignore_eos": True})[2])
            self.assertEqual(body["usage"]["completion_tokens"], 3, body)
            self.assertEqual(json.loads(s.request("/v1/models")[2])["data"][0]["max_model_len"], 96)
            self.assertIn("ignored of the packaging's sampling options: stop, mirostat, top_p, top_k", s.log())
            self.assertRegex(s.log(), r"image\.template\) ignored: ")

    def test_stop_strings_of_a_packaging(self):
        ollama = "application/vnd.ollama.image."
        params = {"stop": ["<|im_start|>", "unused308"]}
        ref = self.add("m/stops", [(self.data, ollama + "model"), (json.dumps(params).encode(), ollama + "params")],
                       {"model_format": "gguf", "model_family": "llama", "rootfs": {"type": "layers", "diff_ids": []}},
                       "application/vnd.docker.container.image.v1+json")
        run = ["-p", "Once upon", "--raw", "-n", "16", "--temp", "0", "--json"]
        whole = json.loads(self.capstan("run", str(TINY), *run).stdout)["text"]
        want = whole[:whole.index("unused308")]
        ran = json.loads(self.capstan("run", ref, *run).stdout)
        self.assertEqual((ran["text"], ran["finish_reason"]), (want, "stop"))
        with Server(ref, "--kv-bytes", "4MiB", "--store", self.store) as s:
            def complete(**more):
                body = {"prompt": "Once upon", "max_tokens": 16, "temperature": 0, **more}
                choice = json.loads(s.request("/v1/completions", body)[2])["choices"][0]
                return choice["text"], choice["finish_reason"]
            self.assertEqual(complete(), (want, "stop"))
            self.assertEqual(complete(stop=[]), (whole, "length"))
            self.assertEqual(complete(stop="y\x10"), (whole[:whole.index("y\x10")], "stop"))
            # A special token is not in the text, and ends it all the same: the packaging's and a request's.
            forced = {"logit_bias": {"267": 100}}
            self.assertEqual(complete(**forced), ("", "stop"))
            self.assertEqual(complete(**forced, stop=[])[1], "length")
            self.assertEqual(complete(**forced, stop="<|im_start|>"), ("", "stop"))
            # With special tokens in the text it is a text like any other.
            shown = {"skip_special_tokens": False, "include_stop_str_in_output": True}
            self.assertEqual(complete(**forced, **shown), ("<|im_start|>", "stop"))
            self.assertNotIn("ignored of the packaging's sampling options", s.log())

    def test_a_variant_is_asked_for(self):
        c, entries = self.registry.content, []
        for quant in ("q4_0", "q8_0"):
            d = add_model(self.registry, "m/many", self.data[:-1] + quant[1:2].encode())
            body, kind = c.manifests["m/many"][d]
            entries.append({"mediaType": kind, "digest": d, "size": len(body), "modelMetadata": {"quantization": quant}})
        kind = "application/vnd.oci.image.index.v1+json"
        c.manifest("m/many", "v1", {"schemaVersion": 2, "mediaType": kind, "manifests": entries}, kind)
        ref = f"{self.registry.host}/m/many:v1"
        weights = {}
        for quant in ("q4_0", "q8_0"):
            with Server(ref, *TINY_KV, "--store", self.store, "--variant", quant) as s:
                weights[quant] = json.loads(s.request("/v1/models")[2])["data"][0]["digest"]
                self.assertIn("is not in the store, pulling it", s.log())
                self.assertIn(quant, s.log())
        self.assertNotEqual(weights["q4_0"], weights["q8_0"])
        asked = len(self.registry.rows())
        for quant in ("q4_0", "q8_0"):  # both are here now
            with Server(ref, *TINY_KV, "--store", self.store, "--variant", quant) as s:
                self.assertEqual(json.loads(s.request("/v1/models")[2])["data"][0]["digest"], weights[quant])
        self.assertEqual(len(self.registry.rows()), asked)
        self.assertEqual(self.capstan("pull", ref, "--variant", "q2_k").returncode, 3)

    def test_commands_of_the_store(self):
        done = self.capstan("pull", self.ref)
        self.assertEqual((done.returncode, done.stdout), (0, self.digest + "\n"), done.stderr)
        self.assertEqual(json.loads(self.capstan("pull", self.ref, "--json").stdout), {"name": self.ref, "digest": self.digest})
        listed = json.loads(self.capstan("list", "--json").stdout)
        self.assertEqual([(e["name"], e["digest"], e["format"]) for e in listed], [(self.ref, self.digest, "modelpack")])
        done = self.capstan("verify", self.ref, "--json")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertLessEqual(len(self.data), json.loads(done.stdout)["bytes"])
        self.assertEqual(json.loads(self.capstan("gc", "--json").stdout)["blobs"], 0)
        stray = pathlib.Path(self.store, "blobs/sha256/" + "a" * 64)
        stray.write_bytes(b"x" * 100)
        dry = json.loads(self.capstan("gc", "--dry-run", "--json").stdout)
        self.assertEqual((dry["dry_run"], dry["blobs"], dry["bytes"]), (True, 1, 100))
        self.assertTrue(stray.exists())
        self.assertEqual(json.loads(self.capstan("gc", "--json").stdout)["blobs"], 1)
        self.assertFalse(stray.exists())
        blob = max(pathlib.Path(self.store, "blobs/sha256").iterdir(), key=lambda p: p.stat().st_size)
        data = bytearray(blob.read_bytes())
        data[len(data) // 2] ^= 1
        blob.chmod(0o644)
        blob.write_bytes(data)
        self.assertEqual(self.capstan("verify", self.ref).returncode, 4)

    def test_options_reach_the_child(self):
        self.registry.auth = Basic()
        login = pathlib.Path(self.folder.name, "auth.json")
        login.write_text(json.dumps({"auths": {self.registry.host: {"username": USER, "password": SECRET}}}))
        done = self.capstan("tokenize", "-m", self.ref, input="x", env={**os.environ, "HOME": self.folder.name})
        self.assertEqual(done.returncode, 5, done.stderr)
        config = pathlib.Path(self.folder.name, "c.toml")
        config.write_text(f'authfile = "{login}"\n')
        done = self.capstan("tokenize", "-m", self.ref, "--config", str(config), input="x",
                            env={**os.environ, "HOME": self.folder.name})
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertNotIn(SECRET, done.stderr)

    def test_progress_goes_to_the_descriptor(self):
        self.registry.hooks["blob"] = slow(1, len(self.data))
        read, write = os.pipe()
        with subprocess.Popen([BIN, "pull", self.ref, "--store", self.store, "--progress-fd", str(write)], pass_fds=[write],
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as p:
            os.close(write)
            with os.fdopen(read) as f:
                lines = f.read().splitlines()
            out, err = p.communicate(timeout=60)
        self.assertEqual((p.returncode, out), (0, self.digest + "\n"), err)
        rows = [re.fullmatch(r"([a-z]+) (\d+) (\d+)", line) for line in lines]
        self.assertTrue(rows and all(rows), lines)
        phases = [r[1] for r in rows]
        self.assertEqual(phases[0], "resolving")
        done = [int(r[2]) for r in rows if r[1] == "pulling"]
        self.assertEqual(done, sorted(done))
        self.assertGreater(len(done), 2)


if __name__ == "__main__":
    unittest.main()
