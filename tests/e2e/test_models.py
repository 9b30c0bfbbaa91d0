"""Two models in one process with one compute pool: each answers as it does alone. The second is the tiny gemma3 golden, or
CAPSTAN_SECOND_MODEL (label invariance: the real gemma)."""
import json
import os
import pathlib
import tempfile
import unittest

from harness import Server, parallel

MODEL = os.environ["CAPSTAN_MODEL"]
SECOND = os.environ["CAPSTAN_SECOND_MODEL"]
CONFIG = f"""
[[model]]
ref = "{MODEL}"
alias = ["first"]
ctx = 512
[[model]]
ref = "{SECOND}"
alias = ["second"]
ctx = 512
"""


def answers(s, models):
    """Texts of 8 seeded completions a model, all at once."""
    got = {}

    def work(i):
        m = models[i % len(models)]
        status, _, body = s.request("/v1/completions", {
            "model": m, "prompt": f"Item {i // len(models)}: " + "and then " * (i // len(models)), "seed": i // len(models),
            "max_tokens": 24, "temperature": 0.7, "ignore_eos": True})
        answer = json.loads(body)
        assert status == 200, answer
        assert answer["model"] == m
        got[m, i // len(models)] = (answer["choices"][0]["text"], answer["usage"])
    parallel(8 * len(models), work)
    return got


class Models(unittest.TestCase):
    def test_two_models_answer_as_alone(self):
        want = {}
        for name, path in (("first", MODEL), ("second", SECOND)):
            with Server(path, "--alias", name, "--ctx", "512", "--kv-bytes", "96MiB", "--threads", "2") as s:
                want.update(answers(s, [name]))
        with tempfile.NamedTemporaryFile("w", suffix=".toml") as f:
            f.write(CONFIG)
            f.flush()
            with Server("--config", f.name, "--kv-bytes", "192MiB", "--threads", "2") as s:
                rows = json.loads(s.request("/v1/models")[2])["data"]
                self.assertEqual([r["id"] for r in rows], ["first", "second"])
                self.assertEqual(answers(s, ["first", "second"]), want)
                for m in ("first", "second"):
                    self.assertGreater(s.metric("capstan_engine_steps_total", f'model="{m}"'), 0)
                workers = [t for t in pathlib.Path(f"/proc/{s.process.pid}/task").iterdir()
                           if (t / "comm").read_text().startswith("cp-worker")]
                self.assertEqual(len(workers), 1)  # one pool: the engine is worker 0


if __name__ == "__main__":
    unittest.main()
