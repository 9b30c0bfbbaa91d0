"""Start, drain, stop; the command line's exit codes; run, tokenize, pack and list as a user types them."""
import json
import os
import signal
import subprocess
import tempfile
import unittest

from harness import BIN, Server

MODEL = os.environ["CAPSTAN_MODEL"]
TINY = os.path.join(os.path.dirname(__file__), "..", "golden", "tiny", "llama.gguf")


def capstan(*args, text=None):
    return subprocess.run([BIN, *args], input=text, capture_output=True, text=True, timeout=300, check=False)


class Life(unittest.TestCase):
    def test_drain_lets_a_running_stream_end(self):
        with Server(MODEL, "--kv-bytes", "256MiB", "--drain-grace", "300ms", "--drain-timeout", "60s") as s:
            c = s.stream("/v1/completions", {"prompt": "Once", "max_tokens": 60, "ignore_eos": True, "stream": True})
            got = c.recv(4096)
            s.terminate()
            s.wait(lambda: s.status("/readyz") != 200, "draining")
            while piece := c.recv(65536):
                got += piece
                if b"[DONE]" in got:
                    break
            self.assertIn(b"[DONE]", got)
            self.assertEqual(s.process.wait(60), 0)

    def test_a_second_signal_cuts_off(self):
        with Server(MODEL, "--kv-bytes", "256MiB") as s:
            c = s.stream("/v1/completions", {"prompt": "Once", "max_tokens": 6000, "ignore_eos": True, "stream": True})
            got = c.recv(4096)
            s.terminate()
            s.wait(lambda: s.status("/readyz") != 200, "draining")
            s.process.send_signal(signal.SIGTERM)
            while piece := c.recv(65536):
                got += piece
            self.assertIn(b'"error"', got)
            self.assertNotIn(b"[DONE]", got)
            self.assertEqual(s.process.wait(10), 1)

    def test_a_device_that_fails_ends_the_process_in_order(self):
        fault = {"CAPSTAN_FAULT": "device=30:fail"}
        body = {"prompt": "Once", "max_tokens": 200, "ignore_eos": True}
        with Server(TINY, "--drain-grace", "3s", env=fault) as s:
            c = s.stream("/v1/completions", {**body, "stream": True})
            got = b""
            while b'"code":"device_failed"' not in got and (piece := c.recv(65536)):
                got += piece
            self.assertIn(b'"code":"device_failed"', got)
            c.close()
            self.assertIn(b'"text":', got)  # what came before the step that failed
            self.assertNotIn(b"[DONE]", got)
            status, _, answer = s.request("/v1/completions", body)
            self.assertEqual((status, json.loads(answer)["error"]["code"]), (503, "device_failed"))
            self.assertEqual((s.status("/livez"), s.status("/readyz")), (503, 503))
            self.assertEqual(s.process.wait(60), 1)
            self.assertIn("the device has failed", s.log())
            self.assertIn("draining", s.log())
        with Server(TINY, "--step-ms", "250", ready=False, env={"CAPSTAN_FAULT": "device=1:fail"}) as s:
            self.assertEqual(s.process.wait(60), 1)  # while it is warmed up
            self.assertIn("the device has failed", s.log())

    def test_exit_codes(self):
        self.assertEqual(capstan("serve").returncode, 2)
        self.assertEqual(capstan("serve", "/no/such/model.gguf").returncode, 3)
        self.assertEqual(capstan("serve", "--no-such-option").returncode, 2)
        self.assertEqual(capstan("run", MODEL, "-p", "x", "--temp", "9").returncode, 2)
        with Server(MODEL, "--kv-bytes", "64MiB") as s:
            taken = capstan("serve", MODEL, "--port", str(s.port))
            self.assertEqual(taken.returncode, 1)
            self.assertIn(str(s.port), taken.stderr)
        with tempfile.NamedTemporaryFile(suffix=".gguf") as f:
            f.write(b"GGUF\x03\x00\x00\x00" + b"\xff" * 64)
            f.flush()
            self.assertEqual(capstan("serve", f.name).returncode, 4)
        tiny = capstan("serve", MODEL, "--kv-bytes", "1MiB", "--ctx", "4096")
        self.assertEqual(tiny.returncode, 1)
        self.assertIn("pages", tiny.stderr)
        wide = capstan("serve", MODEL, "--port", "0", "--ctx", "16777216")  # no --kv-bytes: where they come from is said
        self.assertEqual(wide.returncode, 1)
        self.assertRegex(wide.stderr, r"--kv-bytes is 25 % of the [0-9.]+ MiB of memory that are available: .* pages")

    def test_store_and_run(self):
        with tempfile.TemporaryDirectory() as store:
            digests = {capstan("pack", MODEL, "-t", "smol:1", "--store", store).stdout for _ in range(2)}
            self.assertEqual(len(digests), 1)
            listed = json.loads(capstan("list", "--store", store, "--json").stdout)
            self.assertEqual([(e["name"], e["arch"], e["quant"]) for e in listed], [("smol:1", "llama", "Q4_1")])
            r = json.loads(capstan("run", "smol:1", "--store", store, "-p", "Can you tell me the capital of France?", "--temp", "0",
                                   "-n", "16", "--json").stdout)
            self.assertIn("Paris", r["text"])
            self.assertEqual(capstan("tokenize", "-m", "smol:1", "--store", store, text="Hello world").stdout.split(),
                             capstan("tokenize", "-m", MODEL, text="Hello world").stdout.split())
            self.assertEqual(capstan("inspect", "smol:2", "--store", store).returncode, 3)
            self.assertEqual(capstan("rm", "smol:1", "--store", store).returncode, 0)
            self.assertEqual(json.loads(capstan("list", "--store", store, "--json").stdout), [])

    def test_a_tiny_pool_loses_nothing(self):
        body = {"max_tokens": 48, "temperature": 0.7, "ignore_eos": True}

        def texts(s):
            out, threads = [None] * 64, []
            import threading
            for i in range(64):
                def work(i=i):
                    status, _, answer = s.request("/v1/completions", {**body, "prompt": f"Item {i}: " + "on and " * (i % 7),
                                                                      "seed": i})
                    out[i] = (status, json.loads(answer)["choices"][0]["text"])
                threads.append(threading.Thread(target=work))
            for t in threads:
                t.start()
            for t in threads:
                t.join()
            return out
        with Server(MODEL, "--kv-bytes", "512MiB", "--ctx", "256") as s:
            want = texts(s)
        with Server(MODEL, "--kv-bytes", "7MiB", "--ctx", "256", "--prefix-cache", "off") as s:
            got = texts(s)
            self.assertGreater(s.metric("capstan_preemptions_total"), 0)
        self.assertEqual(got, want)
        self.assertTrue(all(status == 200 for status, _ in got))


if __name__ == "__main__":
    unittest.main()
