"""SIGHUP (docs/OPERATIONS.md, Reload): the file and the keys are read again, and what they say counts, or nothing changes. Every
option that docs/CONFIGURATION.md calls reloadable is changed and seen to count. Tiny models, standard library only."""
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import sys
import tempfile
import threading
import unittest

from harness import Server

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests/fakes"), str(ROOT / "tests/hot")]
from hot import Load  # noqa: E402  pylint: disable=wrong-import-position
from registry import MANIFEST, Registry  # noqa: E402  pylint: disable=wrong-import-position

TINY = ROOT / "tests/golden/tiny"
LLAMA, GEMMA, LFM2 = (str(TINY / f"{name}.gguf") for name in ("llama", "gemma3", "lfm2"))
ONE = {"ref": LLAMA, "alias": ["one"], "kv_bytes": "1MiB"}
SUCCESS, TIME = "capstan_config_reload_success", "capstan_config_last_reload_success_timestamp_seconds"


def toml(value):
    return json.dumps(value)  # strings, numbers, booleans and lists of them are spelled alike


def reloadable():
    """{option: what SIGHUP does} of the table, which the lint holds against base/options.def."""
    text = (ROOT / "docs/CONFIGURATION.md").read_text(encoding="utf-8").replace("\\|", "/")
    rows = re.findall(r"^\| `--([a-z-]+)`.*\| (yes|models anew) \| [^|]+ \|$", text, re.M)
    return {name.replace("-", "_"): what for name, what in rows}


class Reloaded(Server):
    """A server whose file a test writes; .reload() sends SIGHUP and waits for what it does."""

    def __init__(self, folder, models=(ONE,), flags=(), **options):
        self.file, self.key = folder / "models.toml", None
        self.write(models, **options)
        super().__init__("--config", str(self.file), "--threads", "2", *(("--ctx", "256", *flags) if flags is not None else ()),
                         env={"XDG_CACHE_HOME": str(folder / "cache"), "XDG_DATA_HOME": str(folder / "data")})

    def write(self, models=(ONE,), **options):
        options = {"kv_bytes": "32MiB", "max_seqs": 4, **options}
        lines = [f"{k} = {toml(v)}" for k, v in options.items() if v is not None]
        for m in models:
            sampling = m.get("sampling", {})
            lines += ["[[model]]", *(f"{k} = {toml(v)}" for k, v in m.items() if k != "sampling")]
            lines += ["[model.sampling]", *(f"{k} = {toml(v)}" for k, v in sampling.items())] if sampling else []
        self.file.write_text("\n".join(lines) + "\n")

    def ends(self):
        return len(re.findall(r"reloaded; models|reload: nothing changed", self.log()))

    def hup(self):
        before = self.ends()
        self.process.send_signal(signal.SIGHUP)
        self.wait(lambda: self.ends() > before, "reloaded")

    def reload(self, models=(ONE,), **options):
        self.write(models, **options)
        self.hup()
        assert self.metric(SUCCESS) == 1, self.log()

    def fails(self, words):
        """What the file holds now changes nothing, and the log says why."""
        at = self.metric(TIME)
        self.hup()
        assert self.metric(SUCCESS) == 0, self.log()
        assert self.metric(TIME) == at
        line = [s for s in self.log().splitlines() if "reload: nothing changed" in s][-1]
        assert re.search(words, line), line

    def request(self, path, body=None, headers=None, method=None):
        return super().request(path, body, {**({"X-Api-Key": self.key} if self.key else {}), **(headers or {})}, method)

    def ask(self, path, body=None, headers=None):
        status, _, answer = self.request(path, body, headers)
        return status, json.loads(answer)

    def complete(self, model=None, **more):
        return self.ask("/v1/completions", {"prompt": "Hello", "max_tokens": 4, "ignore_eos": True, **({"model": model} if model else {}), **more})

    def models(self):
        return [m["id"] for m in self.ask("/v1/models")[1]["data"]]

    def stream(self, path, body):
        """A raw socket with the request sent and nothing read."""
        c = socket.create_connection(("127.0.0.1", self.port))
        data, key = json.dumps(body).encode(), f"X-Api-Key: {self.key}\r\n" if self.key else ""
        c.sendall(f"POST {path} HTTP/1.1\r\nHost: localhost\r\n{key}Content-Length: {len(data)}\r\n\r\n".encode() + data)
        return c

    def anonymous(self):
        """Bytes of anonymous memory."""
        return int(re.search(r"^Anonymous: +(\d+) kB", pathlib.Path(f"/proc/{self.process.pid}/smaps_rollup").read_text(), re.M)[1]) << 10

    def read_stream(self, model, n=240):
        """A stream in another thread: (the thread, [all that came])."""
        got = []

        def run():
            c = self.stream("/v1/completions", {"model": model, "prompt": "Hello", "max_tokens": n, "ignore_eos": True, "stream": True})
            whole = b""
            while b"[DONE]" not in whole and (piece := c.recv(65536)):
                whole += piece
            got.append(whole)
            c.close()

        t = threading.Thread(target=run)
        t.start()
        return t, got


class Base(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder)

    def server(self, *args, **more):
        return Reloaded(self.folder, *args, **more)


class Models(Base):
    def test_new_gone_and_changed(self):
        two, three = {"ref": GEMMA, "alias": ["two"], "kv_bytes": "4MiB"}, {"ref": LFM2, "alias": ["three"], "kv_bytes": "4MiB"}
        with self.server([ONE, two]) as s:
            created = {m["id"]: (m["created"], m["max_model_len"]) for m in s.ask("/v1/models")[1]["data"]}
            s.reload([ONE, {**two, "ctx": 128}, three])
            self.assertEqual(s.models(), ["one", "two", "three"])
            now = {m["id"]: (m["created"], m["max_model_len"]) for m in s.ask("/v1/models")[1]["data"]}
            self.assertEqual(now["one"], created["one"])
            self.assertEqual((created["two"][1], now["two"][1]), (256, 128))
            self.assertIn("models: 1 new, 1 loaded anew, 0 with other names or sampling, 0 gone", s.log())
            s.wait_log("model two: unloaded")
            s.reload([three, ONE])  # the order is the file's
            self.assertEqual(s.models(), ["three", "one"])
            self.assertEqual(s.complete("two")[1]["error"]["code"], "model_not_found")
            self.assertEqual(s.complete()[1]["model"], "three")
            self.assertEqual(s.ask("/readyz")[0], 200)
            rows = [k for k in s.metrics() if k[0] == "capstan_engine_steps_total"]
            self.assertEqual(sorted(rows), [("capstan_engine_steps_total", '{model="one"}'), ("capstan_engine_steps_total", '{model="three"}')])

    def test_what_runs_goes_on(self):
        """Of the model that is swapped, and of one that goes; a second reload finds them still draining."""
        two = {"ref": GEMMA, "alias": ["two"], "kv_bytes": "4MiB"}
        with self.server([ONE, two], flags=("--ctx", "4096")) as s:
            streams = [s.read_stream("one", 3000), s.read_stream("two", 3000)]
            for name in ("one", "two"):
                s.wait(lambda n=name: s.metric("capstan_sequences", f'model="{n}",state="decode"') == 1, "streams")
            s.reload([{**ONE, "max_seqs": 2}])
            s.reload([{**ONE, "max_seqs": 3}, two])  # a name that drains is taken again
            self.assertEqual(s.models(), ["one", "two"])
            self.assertEqual([s.complete(name)[0] for name in ("one", "two")], [200, 200])
            keys = [line.split(" ")[0] for line in s.request("/metrics")[2].decode().splitlines() if line and line[0] != "#"]
            self.assertEqual(len(keys), len(set(keys)), "a series stands twice in /metrics")
            for t, got in streams:
                t.join()
                self.assertIn(b"[DONE]", got[0])
            s.wait(lambda: len(re.findall("model one: unloaded", s.log())) == 2, "gone")

    def test_names_and_sampling_change_in_place(self):
        with self.server([{**ONE, "alias": ["one", "uno"]}]) as s:
            s.reload([{**ONE, "alias": ["one", "eins"], "sampling": {"temperature": 0, "max_tokens": 3}}])
            self.assertEqual([s.complete(name)[0] for name in ("one", "eins", "uno")], [200, 200, 404])
            texts = {s.ask("/v1/completions", {"prompt": "Hello"})[1]["choices"][0]["text"] for _ in range(4)}
            self.assertEqual(len(texts), 1)
            self.assertEqual(s.ask("/v1/completions", {"prompt": "Hello"})[1]["usage"]["completion_tokens"], 3)
            self.assertNotIn("model one: unloading", s.log())

    def test_names_move_between_models(self):
        two = {"ref": GEMMA, "kv_bytes": "4MiB"}
        with self.server([{**ONE, "alias": ["one", "default"]}, {**two, "alias": ["two"]}]) as s:
            s.reload([ONE, {**two, "alias": ["two", "default"], "ctx": 64}])
            self.assertEqual(s.complete("default")[1]["model"], "two")

    def test_what_a_client_loaded_stays(self):
        keys = self.folder / "keys"
        keys.write_text("k scopes=admin,inference\n")
        with self.server(api_key_file=str(keys)) as s:
            s.key = "k"
            self.assertEqual(s.ask("/admin/models/load", {"ref": GEMMA, "alias": "mine", "kv_bytes": "4MiB"})[0], 200)
            s.reload([{**ONE, "ctx": 64}], api_key_file=str(keys))
            self.assertEqual(s.models(), ["one", "mine"])
            s.write([ONE, {"ref": LFM2, "alias": ["mine"], "kv_bytes": "4MiB"}], api_key_file=str(keys))
            s.fails("a model that was loaded at run time is called 'mine'")
            self.assertEqual(s.ask("/admin/models/unload", {"model": "one"})[0], 200)
            s.reload(api_key_file=str(keys))  # the file names it: it comes again
            self.assertEqual(s.models(), ["one", "mine"])


class Refused(Base):
    def test_nothing_changes(self):
        broken, keys = self.folder / "broken.gguf", self.folder / "keys"
        broken.write_bytes(pathlib.Path(LFM2).read_bytes()[:-4096])
        keys.write_text("k scopes=inference,admin\n")
        two = {"ref": GEMMA, "alias": ["two"], "kv_bytes": "4MiB"}
        wide = {"deadline_ms": 7, "max_queue": 9, "api_key_file": str(keys)}
        with self.server([ONE, two], api_key_file=str(keys)) as s:
            s.key = "k"
            before, rows = s.ask("/v1/models"), s.ask("/admin/models")

            def refused(words, models, **options):
                s.write(models, **{**wide, **options})
                s.fails(words)
                self.assertEqual((s.ask("/v1/models"), s.ask("/admin/models")), (before, rows), words)
                self.assertEqual([s.complete(name)[0] for name in ("one", "two")], [200, 200])
                self.assertEqual(s.ask("/readyz")[0], 200)

            for text, words in (("port = \n", r"models\.toml:1:8: got the end of the line"), ("portt = 1\n", r"models\.toml:1:1: key 'portt': unknown"),
                                ("deadline_ms = -1\n", r"models\.toml:1:1: key 'deadline_ms': got '-1'"), ("deadline_ms = 5\n", "no REF and no")):
                s.file.write_text(text)
                s.fails(words)
                self.assertEqual(s.ask("/v1/models"), before)
            refused("No such file", [ONE, {**two, "ref": str(self.folder / "none.gguf")}])
            refused("broken.gguf", [ONE, {**two, "ref": str(broken)}])
            refused("leaves 27.0 MiB, and it asks for 30.0 MiB", [ONE, {**two, "kv_bytes": "30MiB"}], kv_bytes="32MiB")
            refused("two models are called 'two'", [{**ONE, "alias": ["one", "two"]}, two])
            refused("broken.gguf", [{**ONE, "ctx": 64}, {"ref": str(broken), "alias": ["three"], "kv_bytes": "1MiB"}])  # the first one was there already
            refused("none: No such file", [ONE, two], api_key_file=str(self.folder / "none"))
            keys.write_text("other\nk scopes=what\n")
            refused(r"keys:2: scope 'what'", [ONE, two])
            keys.write_bytes(b"k\r\nother\r\nk scopes=what\r\n")
            refused(r"keys:3: scope 'what'", [ONE, two])
            keys.write_bytes(b"k\nother\0\nthird\n")
            refused(r"keys:2: byte 0x00", [ONE, two])
            keys.write_text("")
            refused("no key is left", [ONE, two])
            s.file.unlink()
            s.fails("models.toml: No such file")
            self.assertEqual([k for k in s.metrics() if 'model="three"' in k[1]], [])
            keys.write_text("k scopes=inference,admin\n")
            s.reload([ONE, two], api_key_file=str(keys))
            self.assertEqual(s.ask("/v1/models"), before)

    def test_a_restart_is_named(self):
        with self.server() as s:
            s.reload(port=1, threads=1, deadline_ms=60000, prefill_chunk=64, max_connections=9)
            s.wait_log("reload: max_connections, prefill_chunk changed, which counts after a restart only")  # port, threads: flags win
            s.reload([{**ONE, "max_seqs": 3}], prefix_cache=False)  # nor does a model that is loaded now take it
            s.wait_log("reload: prefix_cache changed")
            self.assertEqual([s.complete(prompt="a " * 100)[0] for _ in range(2)], [200, 200])
            self.assertGreater(s.metric("capstan_prompt_tokens_cached_total"), 0)

    def test_flags_win(self):
        with self.server(flags=("--max-queue", "3")) as s:
            s.reload(max_queue=1)
            self.assertEqual(s.complete(prompt=["a", "b", "c"])[0], 200)
            self.assertIn("at most 3 may wait", s.complete(prompt=["a", "b", "c", "d"])[1]["error"]["message"])

    def test_many_become_one_more(self):
        """What comes while a reload runs is one reload after it. A registry holds the first one back."""
        registry, gate = Registry().start(), threading.Event()
        self.addCleanup(registry.close)
        self.addCleanup(gate.set)
        layer = registry.content.blob(pathlib.Path(GEMMA).read_bytes(), "application/vnd.docker.ai.gguf.v3")
        config = registry.content.blob(b"{}", "application/vnd.docker.ai.model.config.v0.1+json")
        registry.content.manifest("org/tiny", "v1", {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer]})
        registry.hooks["blob"] = lambda x: gate.wait(60) and False
        with self.server() as s:
            s.write([ONE, {"ref": f"{registry.host}/org/tiny:v1", "alias": ["two"], "kv_bytes": "4MiB"}])
            s.process.send_signal(signal.SIGHUP)
            s.wait_log("is not in the store, pulling it")
            self.assertEqual(s.models(), ["one"])
            self.assertEqual(s.complete("two")[1]["error"]["code"], "model_not_found")
            s.write([{**ONE, "alias": ["one", "uno"]}])
            for _ in range(5):
                s.process.send_signal(signal.SIGHUP)
                self.assertEqual(s.complete()[0], 200)
            gate.set()
            s.wait(lambda: s.complete("uno")[0] == 200, "the last file counts")
            self.assertEqual(s.ends(), 2)
            self.assertEqual(s.models(), ["one"])


class UnderLoad(Base):
    """Streams on two models all the time, within a sandbox; no request may fail, nothing that serving does is refused, and pages and
    memory come back. soak_reload has more of it."""
    SANITIZED = bool(os.environ.get("CAPSTAN_SANITIZED"))
    RELOADS, LOADS = int(os.environ.get("CAPSTAN_SOAK_RELOADS", "10")), int(os.environ.get("CAPSTAN_SOAK_LOADS", "4"))
    MODEL = os.environ.get("CAPSTAN_SOAK_MODEL") or LLAMA

    def files(self, i):
        """What the i-th reload finds: models loaded anew, with other names, new and gone ones; or what is wrong with it."""
        one = {"ref": self.MODEL, "alias": ["one"], "kv_bytes": "8MiB", "max_seqs": 4 + i // 5 % 2}
        two = {"ref": GEMMA, "alias": ["two"], "kv_bytes": "4MiB", "ctx": 200 + i // 5 % 2}
        three = {"ref": LFM2, "alias": ["three"], "kv_bytes": "4MiB"}
        return (([one, two], None), ([one, {**two, "alias": ["two", "deux"], "sampling": {"top_k": 5 + i}}], None), ([one, two, three], None),
                ([{**three, "ref": str(self.folder / "none")}, one, two], "No such file"), ([one, two], None))[i % 5]

    def load_and_unload(self, s, failures):
        for i in range(self.LOADS):
            for path, body in (("load", {"ref": LLAMA, "alias": f"mine-{i}", "kv_bytes": "4MiB"}), ("unload", {"model": f"mine-{i}"})):
                status, answer = s.ask("/admin/models/" + path, body)
                if status != 200:
                    failures.append((path, answer))

    def test_nobody_notices(self):
        keys, failures, sizes = self.folder / "keys", [], []
        keys.write_text("k scopes=inference,admin\n")
        options = {"api_key_file": str(keys), "kv_bytes": "64MiB", "sandbox": "auto" if self.SANITIZED else "on"}
        with self.server(self.files(0)[0], **options) as s:
            s.key = "k"
            load = Load(s, ["one", "two"], 2, 60)
            load.wait(4)
            beside = threading.Thread(target=self.load_and_unload, args=(s, failures))
            beside.start()
            for i in range(self.RELOADS):
                models, words = self.files(i)
                s.write(models, **options, deadline_ms=600000 + i)
                s.fails(words) if words else s.hup()
                load.wait(1)
                sizes.append(s.anonymous())
            beside.join()
            load.wait(4)
            load.stop()
            self.assertEqual(failures, [])
            s.write(self.files(0)[0], **options)
            s.hup()
            s.wait(lambda: len(s.ask("/admin/models")[1]["data"]) == 2, "what was replaced is gone")
            sizes.append(s.anonymous())
            self.assertEqual(s.metric("capstan_kv_pages", 'state="used"'), 0)
            self.assertEqual(s.models(), ["one", "two"])
            self.assertEqual((s.metric("capstan_sandbox"), s.metric("capstan_sandbox_refused_total")), (0 if self.SANITIZED else 2, 0), s.log())
            if not self.SANITIZED:  # what a sanitizer keeps of freed memory grows
                self.assertLessEqual(sizes[-1], max(sizes[:5]) + (4 << 20), sizes)
            if self.RELOADS > 10:
                pages = {state: int(s.metric("capstan_kv_pages", f'state="{state}"')) for state in ("free", "cached", "used")}
                print(f"{self.RELOADS} reloads, {self.LOADS} loads and unloads, {load.done} streams, 0 failed; pages at the end {pages}; anonymous memory "
                      f"{min(sizes) >> 10}..{max(sizes) >> 10} KiB, {sizes[4] >> 10} after the fifth, {sizes[-1] >> 10} at the end", flush=True)


class Options(Base):
    """A method for each option of the table: it is named after it, and sees that another value counts."""

    def test_each_is_seen(self):
        self.assertGreater(len(reloadable()), 20)
        seen = {name[len("see_"):] for name in dir(self) if name.startswith("see_")}
        self.assertEqual(seen, set(reloadable()))
        for name in sorted(seen):
            with self.subTest(option=name):
                shutil.rmtree(self.folder)
                self.folder.mkdir()
                getattr(self, "see_" + name)()

    def see_api_key(self):
        with self.server(api_key=["a", "b"]) as s:
            s.key = "b"
            s.reload(api_key=["b", "c"])
            self.assertEqual([s.ask("/v1/models", headers={"X-Api-Key": k})[0] for k in "abc"], [401, 200, 200])

    def see_api_key_file(self):
        keys = self.folder / "keys"
        keys.write_text("a\nb\n")
        with self.server(api_key_file=str(keys)) as s:
            s.key = "b"
            keys.write_text("b\nc scopes=admin\n")
            s.hup()
            self.assertEqual([s.ask("/v1/models", headers={"X-Api-Key": k})[0] for k in "abc"], [401, 200, 200])
            self.assertEqual([s.ask("/admin/models", headers={"X-Api-Key": k})[0] for k in "abc"], [401, 403, 200])
            other = self.folder / "other"
            other.write_text("d\n")
            s.key = "d"
            s.write(api_key_file=str(other))
            s.process.send_signal(signal.SIGHUP)
            s.wait(lambda: s.ask("/v1/models")[0] == 200, "the other file")

    def see_cors_origin(self):
        def allowed(s):
            return [s.request("/v1/models", headers={"Origin": f"http://{x}.example"})[1]["Access-Control-Allow-Origin"] for x in "ab"]
        with self.server(cors_origin=["http://a.example"]) as s:
            self.assertEqual(allowed(s), ["http://a.example", None])
            s.reload(cors_origin=["http://b.example"])
            self.assertEqual(allowed(s), [None, "http://b.example"])

    def see_allowed_host(self):
        with self.server(allowed_host=["a.local"]) as s:
            s.reload(allowed_host=["b.local"])
            self.assertEqual([s.ask("/v1/models", headers={"Host": f"{x}.local"})[0] for x in "ab"], [403, 200])

    def see_max_queue(self):
        with self.server() as s:
            self.assertEqual(s.complete(prompt=["a", "b", "c"])[0], 200)
            s.reload(max_queue=2)
            self.assertIn("at most 2 may wait", s.complete(prompt=["a", "b", "c"])[1]["error"]["message"])
            s.reload(max_queue=2000)
            self.assertEqual(s.complete(prompt=["a", "b", "c"])[0], 200)

    def see_max_queue_tokens(self):
        with self.server() as s:
            s.reload(max_queue_tokens=3)
            self.assertIn("at most 3 may wait", s.complete(prompt=["a a a", "b b b"])[1]["error"]["message"])

    def see_body_bytes(self):
        with self.server() as s:
            self.assertEqual(s.metric("capstan_budget_limit_bytes"), 256 << 20)
            s.reload(body_bytes="4MiB")
            self.assertEqual(s.metric("capstan_budget_limit_bytes"), 4 << 20)
            self.assertEqual(s.request("/tokenize", b'{"content":"' + b"a" * (2 << 20) + b'"}')[0], 413)

    def see_deadline_ms(self):
        with self.server(flags=("--ctx", "4096")) as s:
            s.reload(deadline_ms=1)
            self.assertEqual(s.complete(max_tokens=4000)[1].get("error", {}).get("code"), "deadline_exceeded")

    def see_drain_grace(self):
        with self.server() as s:
            s.reload(drain_grace="60m")
            s.terminate()
            s.wait(lambda: s.status("/readyz") == 503, "not ready")
            self.assertEqual(s.complete()[0], 200)
            s.terminate()
            s.process.wait(60)
        with self.server(drain_grace="60m") as s:
            s.reload(drain_grace="0s")
            s.terminate()
            self.assertEqual(s.process.wait(60), 0)

    def see_drain_timeout(self):
        with self.server(drain_timeout="60m", drain_grace="0s", flags=("--ctx", "4096")) as s:
            s.reload(drain_timeout="0s", drain_grace="0s")
            t, got = s.read_stream("one", 4000)
            s.wait(lambda: s.metric("capstan_sequences", 'state="decode"') == 1, "a stream")
            s.terminate()
            s.process.wait(60)
            t.join()
            self.assertNotIn(b"[DONE]", got[0])

    def see_step_ms(self):
        with self.server(step_ms=60000) as s:
            self.assertEqual(s.metric("capstan_step_row_budget"), 512)
            s.reload(step_ms=1, max_batch_rows=512)
            s.wait(lambda: s.complete(prompt="a " * 200)[0] == 200 and s.metric("capstan_step_row_budget") < 512, "fewer rows")

    def see_kv_bytes(self):
        two = {"ref": GEMMA, "alias": ["two"], "kv_bytes": "8MiB"}
        with self.server(kv_bytes="4MiB") as s:
            s.write([ONE, two], kv_bytes="4MiB")
            s.fails("the models' kv_bytes take 9.0 MiB of --kv-bytes 4.0 MiB")
            s.reload([ONE, two], kv_bytes="16MiB")
            self.assertEqual(s.models(), ["one", "two"])

    def see_sampling_defaults(self):
        def varied(s):
            return len({s.complete(temperature=None, seed=k, max_tokens=16)[1]["choices"][0]["text"] for k in range(4)})
        with self.server() as s:
            body = {"prompt": "Hello", "seed": 3, "max_tokens": 32, "ignore_eos": True}
            before = s.ask("/v1/completions", body)[1]["choices"][0]["text"]
            spelled = s.ask("/v1/completions", {**body, "temperature": 0.8, "top_k": 40, "top_p": 0.95, "min_p": 0.05})[1]["choices"][0]["text"]
            self.assertNotEqual(before, spelled)
            s.reload(sampling_defaults="llama.cpp")
            self.assertEqual(s.ask("/v1/completions", body)[1]["choices"][0]["text"], spelled)
            self.assertGreater(varied(s), 1)

    def see_log_level(self):
        with self.server() as s:
            s.reload(log_level="error")
            self.assertEqual(s.complete()[0], 200)
            lines = s.log().count("path=/v1/completions")
            s.write(log_level="info")
            s.process.send_signal(signal.SIGHUP)
            s.wait(lambda: s.complete()[0] == 200 and s.log().count("path=/v1/completions") > lines, "lines again")
            self.assertEqual(lines, 0)

    def see_log_format(self):
        with self.server() as s:
            s.reload(log_format="json")
            self.assertEqual(s.complete()[0], 200)
            line = s.wait_log(r"(?m)^.*/v1/completions.*$")[0]  # it comes after the answer
            self.assertEqual(json.loads(line)["path"], "/v1/completions")

    def see_alias(self):
        with self.server([{k: v for k, v in ONE.items() if k != "alias"}], alias=["one", "uno"]) as s:
            s.reload([{k: v for k, v in ONE.items() if k != "alias"}], alias=["one", "eins"])
            self.assertEqual([s.complete(name)[0] for name in ("one", "eins", "uno")], [200, 200, 404])

    def see_ctx(self):
        with self.server(flags=None, ctx=256) as s:
            s.reload(ctx=64)
            self.assertEqual(s.ask("/v1/models/one")[1]["max_model_len"], 64)

    def see_kv_type(self):
        with self.server() as s:
            s.reload(kv_type="f16")
            self.assertIn("-f16-", s.complete()[1]["system_fingerprint"])

    def see_chat_template_file(self):
        template = self.folder / "t.jinja"
        template.write_text("template says {{ messages[0].content }}")
        with self.server() as s:
            s.reload(chat_template_file=str(template))
            self.assertEqual(s.ask("/apply-template", {"messages": [{"role": "user", "content": "x"}]})[1]["prompt"], "template says x")

    def see_max_seqs(self):
        with self.server(max_seqs=4) as s:
            s.reload(max_seqs=2)
            s.wait_log("model one: unloaded")
            self.assertIn("1 loaded anew", s.log())

    def see_max_batch_rows(self):
        with self.server(step_ms=60000) as s:
            s.reload(max_batch_rows=32, step_ms=60000)
            s.wait_log("model one: unloaded")
            self.assertEqual(s.metric("capstan_step_row_budget"), 32)

    def see_platform(self):
        self.takes("platform", "linux/arm64", "linux/amd64", GEMMA, LFM2)

    def see_variant(self):
        self.takes("variant", "Q8_0", "F16", GEMMA, LFM2)

    def takes(self, option, first, second, one, two):
        """An index with two models, which the option tells apart."""
        registry = Registry().start()
        self.addCleanup(registry.close)
        content, entries = registry.content, []
        for name, path in ((first, one), (second, two)):
            layer = content.blob(pathlib.Path(path).read_bytes(), "application/vnd.docker.ai.gguf.v3")
            config = content.blob(json.dumps({"for": name}).encode(), "application/vnd.docker.ai.model.config.v0.1+json")
            more = {"platform": dict(zip(("os", "architecture"), name.split("/")))} if option == "platform" else {"modelMetadata": {"quantization": name}}
            entries.append(content.manifest("org/tiny", None, {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer]}, **more))
        index = "application/vnd.oci.image.index.v1+json"
        kind = {} if option == "platform" else {"artifactType": "application/vnd.kitops.modelkit.index.v1+json"}
        content.manifest("org/tiny", "v1", {"schemaVersion": 2, "mediaType": index, **kind, "manifests": entries}, index)
        model = {**ONE, "ref": f"{registry.host}/org/tiny:v1", "kv_bytes": "4MiB"}
        with self.server([model], **{option: first}) as s:
            before = s.ask("/v1/models/one")[1]["digest"]
            s.reload([model], **{option: second})
            self.assertNotEqual(s.ask("/v1/models/one")[1]["digest"], before)


if __name__ == "__main__":
    unittest.main()
