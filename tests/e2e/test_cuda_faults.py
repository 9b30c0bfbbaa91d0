"""A driver that fails while a model is loaded or served (tests/fakes/libcuda, every call of the former in
tests/kernels/test_cuda_faults.c): running requests end with device_failed, readiness goes, the process drains and exits with 1,
and nothing is left behind in the driver; a model fails whose file shrinks; memory that is not enough is said with all that wants
it; two models stay within a budget. Standard library only."""
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

from harness import BIN, Server

FAKE = os.environ.get("CAPSTAN_LIBCUDA", "")
TINY = os.path.join(os.path.dirname(__file__), "..", "golden", "tiny")
LLAMA, GEMMA = (os.path.join(TINY, f"{name}.gguf") for name in ("llama", "gemma3"))
ARGS = (LLAMA, "--device", "cuda", "--kv-bytes", "4MiB", "--ctx", "256", "--step-ms", "1000", "--drain-grace", "2s")
BODY = {"prompt": "Once", "max_tokens": 24, "ignore_eos": True}


class Faults(unittest.TestCase):
    def setUp(self):
        report = tempfile.NamedTemporaryFile(suffix=".json")
        self.addCleanup(report.close)
        self.report = report.name

    def env(self, **more):
        return {**os.environ, "FAKE_REPORT": self.report, "FAKE_RACE": "0", **more}

    def left(self):
        """What the driver's report says: calls and counts. Nothing is left behind, and nothing was wrong."""
        with open(self.report, encoding="utf-8") as f:
            report = json.load(f)
        self.assertEqual({k: v for k, v in report["leaks"].items() if v}, {})
        self.assertEqual((report["fault"], report["counts"]["faults"]), ("", 0))
        return report["calls"], report["counts"]

    def life(self, *requests):
        """Calls of a server that answers these and ends in order."""
        with Server(*ARGS, env=self.env()) as s:
            for body in requests:
                status, _, answer = s.request("/v1/completions", body)
                self.assertEqual(status, 200, answer)
            s.terminate()
            self.assertEqual(s.process.wait(60), 0)
        return self.left()[0]

    def test_a_call_fails_while_a_model_loads(self):
        for name, n in sorted(self.life().items()):
            if re.search("Free|Destroy|Unload|Release|^cuDevice|^cuInit|^cuDriver", name):
                continue  # what ends, and what stands before (test_cuda_absent.py)
            with self.subTest(name):
                r = subprocess.run([BIN, "serve", *ARGS, "--port", "0"], env=self.env(FAKE_FAIL=f"{name}:{(n + 1) // 2}"), timeout=60,
                                   capture_output=True, text=True, check=False)
                self.assertEqual(r.returncode, 1, r.stderr)
                self.assertRegex(r.stderr, r"CUDA_ERROR_\w+|device has failed")
                self.assertEqual(self.left()[1]["injected"], 1)

    def test_a_call_fails_in_a_step(self):
        before, after = self.life(), self.life(BODY)
        steps = {name: n - before.get(name, 0) for name, n in after.items() if n > before.get(name, 0)}
        self.assertIn("cuLaunchKernel", steps)
        self.assertIn("kernel", steps)
        for name, n in sorted(steps.items()):
            with self.subTest(name), Server(*ARGS, env=self.env(FAKE_FAIL=f"{name}:{before.get(name, 0) + n // 2}")) as s:
                c = s.stream("/v1/completions", {**BODY, "stream": True})
                got = b""
                while b'"code":"device_failed"' not in got and (piece := c.recv(65536)):
                    got += piece
                c.close()
                self.assertIn(b'"code":"device_failed"', got)
                self.assertIn(b'"text":', got)  # what came before
                self.assertNotIn(b"[DONE]", got)
                status, _, answer = s.request("/v1/completions", BODY)
                self.assertEqual((status, json.loads(answer)["error"]["code"]), (503, "device_failed"))
                self.assertEqual(s.status("/livez"), 503)
                s.wait(lambda: s.status("/readyz") == 503, "not ready any more")
                self.assertEqual(s.process.wait(60), 1)
                self.assertIn("the device has failed", s.log())
                self.assertEqual(self.left()[1]["injected"], 1)

    def test_memory_that_is_not_enough(self):
        for more, env in ((("--device-bytes", "1MiB"), {}), ((), {"FAKE_MEMORY": "5M"})):
            r = subprocess.run([BIN, "serve", *ARGS, "--port", "0", *more], env=self.env(**env), timeout=60, capture_output=True,
                               text=True, check=False)
            self.assertEqual(r.returncode, 1, r.stderr)
            for word in ("weights", "KV cache", "arena", "workspace"):
                self.assertIn(word, r.stderr)
            self.left()

    def test_a_table_in_a_file_that_shrinks(self):
        """Weights lie on the device, but for embeddings that steps gather from the file."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        for name, status, code in (("gemma4", 503, "model_failed"), ("llama", 200, None)):
            model = os.path.join(folder.name, f"{name}.gguf")
            shutil.copy(os.path.join(TINY, f"{name}.gguf"), model)
            with self.subTest(name), Server(model, *ARGS[1:], env=self.env()) as s:
                self.assertEqual(s.request("/v1/completions", BODY)[0], 200)
                os.truncate(model, 4096)
                got, _, answer = s.request("/v1/completions", BODY)
                self.assertEqual((got, json.loads(answer).get("error", {}).get("code")), (status, code))
                self.assertIsNone(s.process.poll())

    def test_a_budget_that_leaves_nothing_for_the_kv_cache(self):
        r = subprocess.run([BIN, "serve", LLAMA, "--device", "cuda", "--device-bytes", "1MiB", "--port", "0"], env=self.env(), timeout=60,
                           capture_output=True, text=True, check=False)
        self.assertEqual(r.returncode, 1, r.stderr)
        self.assertRegex(r.stderr.splitlines()[-1], rf"^capstan: {re.escape(LLAMA)}: nothing is left for the KV cache: weights, arena and "
                                                    r"workspace take [0-9.]+ MiB of the 1\.0 MiB that are left of --device-bytes 1\.0 MiB$")
        self.left()

    def test_a_warm_up_that_fails_says_so_once(self):
        r = subprocess.run([BIN, "serve", *ARGS, "--port", "0"], env=self.env(FAKE_FAIL="cuLaunchKernel:1:2"), timeout=60,
                           capture_output=True, text=True, check=False)
        self.assertEqual(r.returncode, 1, r.stderr)
        self.assertRegex(r.stderr.splitlines()[-1], rf"^capstan: {re.escape(LLAMA)}: cuda:0: cuLaunchKernel: CUDA_ERROR_OUT_OF_MEMORY")
        self.left()

    def test_two_models_keep_within_a_budget(self):
        config = tempfile.NamedTemporaryFile("w", suffix=".toml")
        self.addCleanup(config.close)
        for name, path in (("one", LLAMA), ("two", GEMMA)):
            config.write(f'[[model]]\nref = "{path}"\nalias = ["{name}"]\nkv_bytes = "1MiB"\n')
        config.flush()
        args = ("--config", config.name, "--device", "cuda", "--ctx", "128", "--device-bytes", "48MiB", "--drain-grace", "0s")
        with Server(*args, env=self.env()) as s:
            for name in ("one", "two", "one"):
                status, _, answer = s.request("/v1/completions", {**BODY, "model": name})
                self.assertEqual(status, 200, answer)
            s.terminate()
            self.assertEqual(s.process.wait(60), 0)
        peak = self.left()[1]["memory_peak"]
        self.assertGreater(peak, 2 << 20)
        self.assertLessEqual(peak, 48 << 20)


if __name__ == "__main__":
    if not FAKE or " cuda" not in subprocess.run([BIN, "version", "-v"], capture_output=True, text=True, check=True).stdout:
        print("skipped: no cuda in the build, or no CAPSTAN_LIBCUDA")
        sys.exit(77)
    unittest.main()
