"""Models come and go while others are served: tiny models, counted, never timed."""
import json
import os
import shutil
import subprocess
import sys
import tempfile
import unittest

from hot import Host, Load

TINY = os.environ["CAPSTAN_TINY"]
LLAMA, GEMMA, LFM2 = (os.path.join(TINY, f"{name}.gguf") for name in ("llama", "gemma3", "lfm2"))
ARGS = ("--ctx", "512", "--max-seqs", "8", "--threads", "2")
SANITIZED = os.environ.get("CAPSTAN_SANITIZED")
MIB = 1 << 20


class Hot(unittest.TestCase):
    def setUp(self):
        self.cache = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.cache)

    def host(self, cache=None, kv="8MiB", **models):
        """Of these models, name=file, kv bytes of pages each; in all there are 32 MiB, and nothing is packed yet."""
        config = os.path.join(self.cache, "models.toml")
        with open(config, "w", encoding="utf-8") as f:
            for name, path in models.items():
                f.write(f'[[model]]\nref = "{path}"\nalias = ["{name}"]\nkv_bytes = "{kv}"\n')
        return Host("--config", config, "--kv-bytes", "32MiB", *ARGS, env={"XDG_CACHE_HOME": cache or self.cache})

    def ask(self, s, model, want):
        body = {"prompt": "Hello", "max_tokens": 4, "ignore_eos": True, **({"model": model} if model else {})}
        status, _, answer = s.request("/v1/completions", body)
        self.assertEqual(status, want, answer)
        return json.loads(answer)

    def test_a_third_model_comes_and_goes(self):
        """The proof of soak.py in short: no request fails; pages, memory and files come back. The third one has 20 M weights,
        which are packed into memory, as there is no place for files."""
        third = os.path.join(self.cache, "third.gguf")
        maker = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "bench", "make_model.py")
        subprocess.run([sys.executable, maker, LLAMA, third, "2", "1024", "2048", "16", "4", "4096"], check=True)
        with self.host(one=LLAMA, cache="/proc/none", kv="1MiB") as s:
            self.assertEqual(s.do("load", "two", GEMMA, MIB), "ok")
            load = Load(s, ["one", "two"], 2, 60)
            load.fill_pages()
            sizes = []
            for _ in range(8):
                self.assertEqual(s.do("load", "three", third, 8 * MIB), "ok")
                self.assertTrue(s.mapped("third.gguf"))
                self.assertEqual(s.models(), ["one", "two", "three"])
                self.ask(s, "three", 200)
                self.assertIn(("capstan_engine_steps_total", '{model="three"}'), s.metrics())
                self.assertEqual(s.do("unload", "three", 0), "ok")
                self.ask(s, "three", 404)
                self.assertEqual(s.models(), ["one", "two"])
                self.assertFalse([k for k in s.metrics() if 'model="three"' in k[1]])
                self.assertEqual(s.mapped("third.gguf", "panels"), [])
                sizes.append(s.anonymous())
            load.wait(4)
            load.stop()
            if not SANITIZED:  # what a sanitizer keeps of freed memory grows
                self.assertLessEqual(sizes[-1], sizes[1] + 4 * MIB, sizes)
            self.assertEqual(s.used_pages(), 0)
            s.finish()

    def test_a_load_that_fails_leaves_nothing(self):
        broken = os.path.join(self.cache, "broken.gguf")
        with open(LFM2, "rb") as f, open(broken, "wb") as out:
            out.write(f.read()[:-4096])
        with self.host(one=LLAMA) as s:
            load = Load(s, ["one"], 2, 40)
            for path, kv, want in ((os.path.join(self.cache, "none.gguf"), 8 * MIB, "NOT_FOUND"), (broken, 8 * MIB, "CORRUPT"),
                                   (LFM2, 1000, "NO_MEMORY"), (LFM2, 64 * MIB, "NO_MEMORY")):
                answer = s.do("load", "other", path, kv)
                self.assertEqual(answer.split()[0], want, answer)
                self.assertEqual(s.models(), ["one"])
                self.assertEqual(self.ask(s, "other", 404)["error"]["code"], "model_not_found")
            self.assertIn("two models are called 'one'", s.do("load", "one", LFM2, 8 * MIB))
            self.assertEqual(s.do("load", "other", LFM2, 0), "ok")  # all that is left
            self.ask(s, "other", 200)
            self.assertIn("take 32.0 MiB of --kv-bytes 32.0 MiB", s.do("load", "more", GEMMA, 0))
            load.stop()
            s.finish()

    def test_the_last_model_goes(self):
        with self.host(one=LLAMA) as s:
            name = "one"
            self.assertEqual(s.do("unload", name, 0), "ok")
            status, _, body = s.request("/readyz")
            self.assertEqual((status, json.loads(body)), (503, {"status": "loading", "phase": "no_model"}))
            self.assertEqual(s.status("/livez"), 200)
            self.assertEqual(s.status("/startupz"), 200)
            for model in (None, name):
                self.assertEqual(self.ask(s, model, 404)["error"]["code"], "model_not_found")
            self.assertEqual(s.models(), [])
            self.assertEqual(s.do("unload", name, 0).split()[0], "MODEL_NOT_FOUND")
            self.assertEqual(s.do("load", "again", GEMMA, 8 * MIB), "ok")
            self.assertEqual(s.status("/readyz"), 200)
            self.ask(s, None, 200)
            s.finish()

    def test_what_runs_finishes(self):
        with self.host(one=LLAMA, two=GEMMA) as s:
            name = "two"
            body = {"model": name, "prompt": "Hello", "max_tokens": 400, "ignore_eos": True, "stream": True}
            streams = [s.stream("/v1/completions", body) for _ in range(12)]  # eight run, four wait
            s.wait(lambda: s.metric("capstan_sequences", f'{{model="{name}",state="waiting"') > 0, "a queue")
            # Two at once: who comes second waits, too, unless it comes when all is over.
            first, second = s.begin("unload", name, 0), s.begin("unload", name, 0)
            for c in streams:
                got = b""
                while piece := c.recv(65536):
                    got += piece
                    if b"[DONE]" in got:
                        break
                self.assertIn(b'"finish_reason":"length"', got)
                c.close()
            self.assertEqual(s.end(first), "ok")
            self.assertIn(s.end(second).split()[0], ("ok", "MODEL_NOT_FOUND"))
            self.assertEqual(self.ask(s, name, 404)["error"]["code"], "model_not_found")
            self.ask(s, None, 200)
            s.finish()

    def test_what_outlives_its_time_is_cut(self):
        with self.host(one=LLAMA, two=GEMMA) as s:
            name = "one"
            body = {"prompt": "Hello", "max_tokens": 500, "ignore_eos": True, "stream": True, "n": 8}
            streams = [s.stream("/v1/completions", body) for _ in range(24)]
            s.wait(lambda: s.metric("capstan_sequences", f'{{model="{name}",state="waiting"') > 0, "a queue")
            self.assertEqual(s.do("unload", name, 1), "ok")
            cut = 0
            for c in streams:
                got = b""
                while piece := c.recv(65536):
                    got += piece
                    if b"[DONE]" in got or b'"error"' in got:
                        break
                cut += b"the model was unloaded" in got and b"[DONE]" not in got
                c.close()
            self.assertGreater(cut, 0)
            self.ask(s, None, 200)
            s.finish()

    def test_a_load_can_be_taken_back(self):
        """Of loads in a row, the last ones, which wait for their turn."""
        with self.host(one=LLAMA) as s:
            for _ in range(4):
                loads = [s.begin("load", f"m{i}", LFM2, MIB) for i in range(6)]
                unloaded = set()
                while len(unloaded) < 6:  # a name that has not been taken yet is asked for again
                    unloaded |= {i for i in range(6) if i not in unloaded and s.do("unload", f"m{i}", 0) == "ok"}
                answers = [s.end(n) for n in loads]
                for answer in answers:
                    self.assertIn(answer.split()[0], ("ok", "CANCELLED"), answer)
                self.assertEqual(s.models(), ["one"])
            self.ask(s, "one", 200)
            s.finish()


if __name__ == "__main__":
    unittest.main()
