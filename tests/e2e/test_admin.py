"""Models at run time over HTTP (docs/OPERATIONS.md): loaded beside streams that go on, shown, unloaded, and every way in which it
can go wrong. The real binary on tiny models; standard library only."""
import json
import os
import pathlib
import shutil
import socket
import sys
import tempfile
import threading
import unittest

from harness import Server

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/fakes"))
from registry import MANIFEST, Registry  # noqa: E402  pylint: disable=wrong-import-position

TINY = ROOT / "tests/golden/tiny"
LLAMA, GEMMA, LFM2 = (str(TINY / f"{name}.gguf") for name in ("llama", "gemma3", "lfm2"))
KEYS = "a-user\nan-admin scopes=admin\nboth scopes=inference,admin\n"
MIB = 1 << 20


class Administered(Server):
    """One model, one = uno, that has 4 MiB of 32; keys of every scope."""

    def __init__(self, folder, *args, **more):
        (folder / "models.toml").write_text(f'[[model]]\nref = "{LLAMA}"\nalias = ["one", "uno"]\nkv_bytes = "4MiB"\n')
        (folder / "keys").write_text(KEYS)
        super().__init__("--config", str(folder / "models.toml"), "--api-key-file", str(folder / "keys"), "--ctx", "256", "--kv-bytes", "32MiB",
                         "--max-seqs", "4", "--threads", "2", *args,
                         env={"XDG_CACHE_HOME": str(folder / "cache"), "XDG_DATA_HOME": str(folder / "data")}, **more)

    def ask(self, path, body=None, key="both"):
        status, _, answer = self.request(path, body, {"X-Api-Key": key} if key else {})
        return status, json.loads(answer)

    def metrics(self, headers=None):
        return super().metrics(headers or {"X-Api-Key": "both"})

    def send(self, path, body):
        """A socket with the request sent and nothing read, and little room for it."""
        s = socket.socket()
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        s.connect(("127.0.0.1", self.port))
        data = json.dumps(body).encode()
        s.sendall(f"POST {path} HTTP/1.1\r\nHost: localhost\r\nX-Api-Key: both\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data)
        return s

    def load(self, ref, alias, **more):
        return self.ask("/admin/models/load", {"ref": ref, "alias": alias, **more})

    def unload(self, model, **more):
        return self.ask("/admin/models/unload", {"model": model, **more})

    def rows(self):
        return {row["id"]: row for row in self.ask("/admin/models")[1]["data"]}

    def complete(self, model, n=4):
        return self.ask("/v1/completions", {"model": model, "prompt": "Hello", "max_tokens": n, "ignore_eos": True})


class Admin(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder)
        self.registry = Registry().start()
        self.addCleanup(self.registry.close)
        self.open = threading.Event()  # the registry gives its blobs
        self.addCleanup(self.open.set)

    def server(self, *args, **more):
        return Administered(self.folder, *args, **more)

    def held_model(self):
        """The REF of a model whose pull stands still until self.open is set."""
        content = self.registry.content
        layer = content.blob(pathlib.Path(GEMMA).read_bytes(), "application/vnd.docker.ai.gguf.v3")
        config = content.blob(b"{}", "application/vnd.docker.ai.model.config.v0.1+json")
        content.manifest("org/tiny", "v1", {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer]})
        self.registry.hooks["blob"] = lambda x: self.open.wait(60) and False
        return f"{self.registry.host}/org/tiny:v1"

    def test_a_model_comes_and_goes(self):
        with self.server() as s:
            self.assertEqual(s.rows()["one"]["aliases"], ["one", "uno"])
            status, row = s.load(GEMMA, ["two", "deux"], kv_bytes="8MiB", ctx=128, kv_type="f16", max_seqs=2, sampling={"temperature": 0})
            self.assertEqual(status, 200, row)
            self.assertEqual((row["id"], row["aliases"], row["state"], row["ref"], row["max_model_len"]), ("two", ["two", "deux"], "ready", GEMMA, 128))
            self.assertTrue(7 * MIB < row["kv_bytes"] <= 8 * MIB, row)
            self.assertEqual(s.rows()["two"], row)
            self.assertEqual([m["id"] for m in s.ask("/v1/models")[1]["data"]], ["one", "two"])
            self.assertEqual(s.complete("deux")[0], 200)
            # its own default is greedy: twice the same text
            texts = {s.complete("two", 16)[1]["choices"][0]["text"] for _ in range(3)}
            self.assertEqual(len(texts), 1)
            self.assertEqual(s.unload("deux"), (200, {"id": "deux", "object": "model", "state": "unloaded"}))
            self.assertEqual(s.complete("two")[0], 404)
            self.assertEqual(list(s.rows()), ["one"])
            self.assertNotIn('model="two"', s.request("/metrics", headers={"X-Api-Key": "both"})[2].decode())

    def test_without_a_model(self):
        with self.server() as s:
            self.assertEqual(s.unload("uno")[0], 200)
            status, answer = s.ask("/readyz", key=None)
            self.assertEqual((status, answer), (503, {"status": "loading", "phase": "no_model"}))
            self.assertEqual(s.ask("/livez", key=None)[0], 200)
            status, answer = s.ask("/v1/completions", {"prompt": "Hello"})
            self.assertEqual((status, answer["error"]["code"]), (404, "model_not_found"))
            self.assertEqual(s.ask("/admin/models")[1]["data"], [])
            self.assertEqual(s.load(LLAMA, "again", kv_bytes="4MiB")[0], 200)
            self.assertEqual(s.ask("/readyz", key=None)[0], 200)
            self.assertEqual(s.ask("/v1/completions", {"prompt": "Hello", "max_tokens": 2})[0], 200)

    def test_who_may(self):
        body = {"ref": GEMMA, "alias": "two", "kv_bytes": "4MiB"}
        with self.server() as s:
            for key, want in ((None, 401), ("wrong", 401), ("a-user", 403), ("an-admin", 200)):
                self.assertEqual(s.ask("/admin/models/load", body, key)[0], want, key)
                self.assertEqual(s.ask("/admin/models", key=key)[0], want, key)
            self.assertEqual(s.ask("/admin/models/unload", {"model": "two"}, "an-admin")[0], 200)
        with Server(LLAMA, "--kv-bytes", "1MiB", "--ctx", "64") as s:  # no key at all
            for path, data in (("/admin/models", None), ("/admin/models/load", body), ("/admin/x", None)):
                status, _, answer = s.request(path, data)
                self.assertEqual((status, json.loads(answer)["error"]["code"]), (403, "permission_denied"))

    def test_what_goes_wrong(self):
        broken = self.folder / "broken.gguf"
        broken.write_bytes(pathlib.Path(LFM2).read_bytes()[:-4096])
        text = self.folder / "text.gguf"
        text.write_text("no model")
        template = self.folder / "template.jinja"
        template.write_text("{% if %}")
        with self.server() as s:
            cases = (({"ref": str(self.folder / "none.gguf")}, 404, "not_found", "ref"),
                     ({"ref": str(text)}, 400, "invalid_value", "ref"),
                     ({"ref": str(broken)}, 400, "invalid_value", "ref"),
                     ({"ref": "oci:" + str(self.folder / "no-layout")}, None, None, "ref"),
                     ({"ref": "127.0.0.1:1/nobody/there:1"}, 503, "model_failed", None),
                     ({"ref": LFM2, "kv_bytes": "1GiB"}, 503, "out_of_memory", None),
                     ({"ref": LFM2, "alias": ["x", "uno"]}, 400, "invalid_value", "alias"),
                     ({"ref": LFM2, "chat_template_file": str(template)}, 400, "template_error", "chat_template_file"),
                     ({"ref": LFM2, "chat_template_file": str(self.folder / "none")}, 404, "not_found", "chat_template_file"),
                     ({"ref": LFM2, "max_seqs": 8, "max_batch_rows": 4}, 400, "invalid_value", None),
                     ({"ref": LFM2, "ctx": -1}, 400, "invalid_value", "ctx"),
                     ({"alias": "x"}, 400, "missing_field", "ref"))
            for more, want, code, param in cases:
                status, answer = s.ask("/admin/models/load", {"alias": "x", "kv_bytes": "4MiB", **more})
                error = answer["error"]
                self.assertTrue(400 <= status < 504 and status != 500, answer)
                if want:
                    self.assertEqual((status, error["code"]), (want, code), answer)
                if param:
                    self.assertEqual(error["param"], param, answer)
                self.assertEqual(list(s.rows()), ["one"], more)
                self.assertEqual(s.complete("one")[0], 200)
            self.assertIn("leaves 28.0 MiB, and it asks for 1024.0 MiB", s.ask("/admin/models/load", {"ref": LFM2, "kv_bytes": "1GiB"})[1]["error"]["message"])
            self.assertIn("'uno'", s.ask("/admin/models/load", {"ref": LFM2, "alias": "uno"})[1]["error"]["message"])
            status, answer = s.unload("nobody")
            self.assertEqual((status, answer["error"]["code"], answer["error"]["param"]), (404, "model_not_found", "model"))

    def test_a_client_that_leaves_does_not_stop_a_load(self):
        with self.server() as s:
            ref = self.held_model()
            client = s.send("/admin/models/load", {"ref": ref, "alias": "two", "kv_bytes": "4MiB"})
            s.wait(lambda: s.rows().get("two", {}).get("phase") in ("resolving", "pulling"), "the pull seen")
            row = s.rows()["two"]
            self.assertEqual((row["state"], row["aliases"]), ("loading", ["two"]))
            self.assertEqual(s.complete("two")[1]["error"]["code"], "model_loading")
            self.assertEqual(s.load(LFM2, "two", kv_bytes="4MiB")[1]["error"]["code"], "invalid_value")
            client.close()
            self.assertEqual(s.complete("one")[0], 200)
            self.open.set()
            s.wait(lambda: s.rows().get("two", {}).get("state") == "ready", "loaded")
            self.assertEqual(s.complete("two")[0], 200)
            self.assertEqual(s.rows()["two"]["ref"], ref)

    def stream(self, s, model, n):
        """A thread that reads a stream to its end; [the lines] when it has."""
        got = []

        def run():
            c = s.send("/v1/completions", {"model": model, "prompt": "Hello", "max_tokens": n, "ignore_eos": True, "stream": True})
            data = b""
            while piece := c.recv(65536):
                data += piece
                if b"[DONE]" in data or b'"error"' in data:
                    break
            got.append(data)
            c.close()
        t = threading.Thread(target=run)
        t.start()
        return t, got

    def test_what_has_begun_goes_on_to_its_end(self):
        with self.server() as s:
            self.assertEqual(s.load(GEMMA, "two", kv_bytes="8MiB")[0], 200)
            t, got = self.stream(s, "two", 240)
            s.wait(lambda: s.metric("capstan_sequences", 'model="two",state="decode"') == 1 or got, "a stream")
            self.assertEqual(s.unload("two")[0], 200)
            t.join()
            self.assertIn(b"[DONE]", got[0])
            self.assertIn(b'"finish_reason":"length"', got[0])

    def test_a_drain_has_an_end(self):
        """A client that does not read keeps its model; who asks again with a time ends that."""
        with self.server("--ctx", "4096") as s:
            self.assertEqual(s.load(LLAMA, "two", kv_bytes="8MiB", ctx=4096)[0], 200)
            many = [s.send("/v1/completions", {"model": "two", "prompt": "Hello", "max_tokens": 4000, "ignore_eos": True, "stream": True, "logprobs": 20})
                    for _ in range(2)]
            s.wait(lambda: s.metric("capstan_sequences", 'model="two",state="decode"') > 0, "streams")
            answers = []
            first = threading.Thread(target=lambda: answers.append(s.unload("two")))
            first.start()
            s.wait(lambda: s.rows().get("two", {}).get("state") == "draining", "draining")
            self.assertEqual(s.complete("two")[1]["error"]["code"], "model_not_found")
            self.assertEqual(s.unload("two", drain_ms=1)[0], 200)
            first.join()
            self.assertEqual(answers[0][0], 200)
            self.assertEqual(list(s.rows()), ["one"])
            for c in many:
                c.close()

    def test_a_load_is_taken_back(self):
        with self.server() as s:
            ref, answers = self.held_model(), []
            t = threading.Thread(target=lambda: answers.append(s.load(ref, "two", kv_bytes="4MiB")))
            t.start()
            s.wait(lambda: "two" in s.rows(), "loading")
            back = threading.Thread(target=lambda: answers.append(s.unload("two")))
            back.start()
            s.wait_log("model two: its load is given up")
            self.open.set()
            t.join()
            back.join()
            self.assertEqual(sorted(a[0] for a in answers), [200, 404])
            self.assertEqual(list(s.rows()), ["one"])

    def test_sigterm_ends_a_load(self):
        """It is refused from then on, and one that hangs in a pull does not keep the process."""
        with self.server("--drain-grace", "300ms", "--drain-timeout", "1s") as s:
            ref = self.held_model()
            c = s.send("/admin/models/load", {"ref": ref, "alias": "two", "kv_bytes": "4MiB"})
            s.wait(lambda: s.rows().get("two", {}).get("phase") in ("resolving", "pulling"), "the pull seen")
            s.terminate()
            s.wait(lambda: s.ask("/readyz", key=None)[0] == 503, "draining")
            self.assertEqual(s.load(LFM2, "three")[1]["error"]["code"], "overloaded")
            self.assertEqual(s.process.wait(30), 0)
            c.close()


if __name__ == "__main__":
    unittest.main()
