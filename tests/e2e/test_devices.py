#!/usr/bin/env python3
"""Which device is meant: by number and by UUID, over the fake driver of tests/fakes (CAPSTAN_LIBCUDA), and what is no device at
all. What cannot be had: test_cuda_absent.py. Standard library only."""
import contextlib
import json
import os
import pathlib
import re
import subprocess
import tempfile
import unittest

from harness import BIN, Server

LLAMA, GEMMA = (str(pathlib.Path(__file__).resolve().parents[1] / f"golden/tiny/{name}.gguf") for name in ("llama", "gemma3"))
KEY = "both"
MODEL = os.environ.get("CAPSTAN_MODEL")  # SmolLM2
BUILT = re.search(r"^backends:.* cuda\b", subprocess.run([BIN, "version", "-v"], capture_output=True, text=True, check=True).stdout, re.M)


def run(*options, env=None):
    return subprocess.run([BIN, "run", LLAMA, "--raw", "-p", "Once", "-n", "4", "--temp", "0", *options], capture_output=True, text=True,
                          env={**os.environ, **(env or {})}, timeout=300, check=False)


@contextlib.contextmanager
def config(entries, kv_bytes):
    """A file of models (name, device, path)."""
    with tempfile.TemporaryDirectory() as folder:
        keys, file = (pathlib.Path(folder) / name for name in ("keys", "models.toml"))
        keys.write_text(f"{KEY} scopes=inference,admin\n")
        text = f'api_key_file = "{keys}"\n'
        for name, device, path in entries:
            text += f'[[model]]\nref = "{path}"\nalias = ["{name}"]\n'
            text += f'device = "{device}"\n' if device else ""
            text += f'kv_bytes = "{kv_bytes}"\n' if kv_bytes else ""
        file.write_text(text)
        yield str(file)


@contextlib.contextmanager
def serve(entries, *options, env, kv_bytes="1MiB"):
    with config(entries, kv_bytes) as file, Server("--config", file, *options, env={**os.environ, "FAKE_RACE": "0", **env}) as s:
        yield s


def ask(server, path, body=None):
    status, _, answer = server.request(path, body, headers={"X-Api-Key": KEY})
    return status, json.loads(answer)


def complete(server, model):
    status, answer = ask(server, "/v1/completions", {"model": model, "prompt": "Once", "max_tokens": 8, "temperature": 0, "ignore_eos": True})
    assert status == 200, answer
    return answer


class Devices(unittest.TestCase):
    def test_what_is_no_device_is_refused(self):
        for device in ["cuda:x", "cuda:", "cuda:1x", "gpu", "cpu:1"] + ([] if BUILT else ["cuda", "cuda:1", "GPU-1"]):
            r = run("--device", device)
            self.assertEqual((r.returncode, r.stdout), (2, ""), device)
            self.assertIn(f"device {device}", r.stderr)
        for option, value in ("gemm", "mine"), ("numerics", "exactly"), ("device-bytes", "12"):
            r = run(f"--{option}", value)
            self.assertEqual((r.returncode, r.stdout), (2, ""))
            self.assertIn(value, r.stderr)

    def test_the_cpu_is_the_cpu_whatever_is_said_of_gpus(self):
        plain = run("--device", "cpu")
        self.assertEqual((plain.returncode, plain.stderr), (0, ""))
        for options in (["--gemm", "cublas"], ["--numerics", "exact"], ["--device-bytes", "1MiB"]):
            self.assertEqual(run("--device", "cpu", *options).stdout, plain.stdout)

    @unittest.skipUnless(BUILT, "cuda is not built")
    def test_devices_by_number_and_uuid(self):
        two = {"FAKE_GPUS": "2", "FAKE_FAIL": "cuStreamCreate:1"}  # it is found; nothing runs
        first = run("--device", "cuda", env=two)
        self.assertEqual((first.returncode, first.stdout), (1, ""))
        self.assertIn("--device cuda: cuda:0: cuStreamCreate: CUDA_ERROR_", first.stderr)
        there = run("--device", "GPU-", env=two).stderr
        uuid = there.split("cuda:1 (")[1].split("GPU-")[1].split(")")[0]
        for device in "cuda:1", f"GPU-{uuid}", f"GPU-{uuid.upper()}":
            r = run("--device", device, env=two)
            self.assertEqual((r.returncode, r.stdout), (1, ""), r.stderr)
            self.assertIn(f"--device {device}: cuda:1: cuStreamCreate: CUDA_ERROR_", r.stderr)

    @unittest.skipUnless(BUILT, "cuda is not built")
    def test_cublas_has_not_the_cpus_bits(self):
        r = run("--device", "cuda", "--gemm", "cublas", "--numerics", "exact")
        self.assertEqual((r.returncode, r.stdout), (2, ""))
        self.assertIn("--gemm cublas beside --numerics exact", r.stderr)

    @unittest.skipUnless(BUILT, "cuda is not built")
    def test_models_on_devices_of_their_own(self):
        entries = (("gpu0", "cuda:0", LLAMA), ("gpu1", "cuda:1", LLAMA), ("also0", "cuda", GEMMA), ("cpu", "cpu", LLAMA), ("as", None, GEMMA))
        report = tempfile.NamedTemporaryFile(suffix=".json")
        self.addCleanup(report.close)
        env = {"FAKE_GPUS": "2", "CAPSTAN_CPU": "avx2", "FAKE_REPORT": report.name, "CAPSTAN_SANDBOX": "off"}  # which keeps files from being written
        with serve(entries, "--device", "cpu", "--numerics", "exact", "--drain-grace", "0s", env=env) as s:
            said = {name: complete(s, name) for name, _, _ in entries}
            self.assertEqual(said["gpu0"]["choices"], said["cpu"]["choices"])
            self.assertEqual(said["gpu1"]["choices"], said["cpu"]["choices"])
            self.assertEqual(said["also0"]["choices"], said["as"]["choices"])
            for name, word in ("gpu0", "-cuda-"), ("gpu1", "-cuda-"), ("also0", "-cuda-"), ("cpu", "-avx2-"), ("as", "-avx2-"):
                self.assertIn(word, said[name]["system_fingerprint"])
            log = s.log()
            self.assertEqual([log.count(f", cuda:{i}, ") for i in (0, 1)], [1, 1], log)  # each is opened once
            for name, device in ("gpu0", "cuda:0"), ("gpu1", "cuda:1"), ("also0", "cuda:0"):
                self.assertIn(f"model {name}: device {device}, ", log)
            status, answer = ask(s, "/admin/models/load", {"ref": LLAMA, "alias": "late", "device": "cuda:1", "kv_bytes": "1MiB"})
            self.assertEqual(status, 200, answer)
            self.assertIn("-cuda-", complete(s, "late")["system_fingerprint"])
            status, answer = ask(s, "/admin/models/load", {"ref": LLAMA, "alias": "none", "device": "cuda:7"})
            error = answer["error"]
            self.assertEqual((status, error["code"], error["param"]), (400, "invalid_value", "device"))
            self.assertIn("cuda:7 is not open in this process, which has cpu, cuda:0, cuda:1;", error["message"])
            s.terminate()
            self.assertEqual(s.process.wait(60), 0, s.log())
        said = json.loads(pathlib.Path(report.name).read_text(encoding="utf-8"))
        self.assertGreater(said["calls"]["kernel"], 100)
        self.assertEqual({k: v for k, v in said["leaks"].items() if v}, {})

    @unittest.skipUnless(BUILT, "cuda is not built")
    def test_models_share_the_memory_of_their_device(self):
        entries = (("a", "cuda", LLAMA), ("b", "cuda", LLAMA), ("c", "cpu", LLAMA), ("d", "cpu", LLAMA), ("e", "cuda:1", LLAMA))
        with serve(entries, "--device-bytes", "24MiB", "--ctx", "64", kv_bytes=None, env={"FAKE_GPUS": "2"}) as s:
            status, answer = ask(s, "/admin/models")
            self.assertEqual(status, 200)
            kv = {m["id"]: m["kv_bytes"] for m in answer["data"]}
            self.assertAlmostEqual(kv["a"], kv["b"], delta=256 << 10)  # but for the null page
            self.assertEqual(kv["c"], kv["d"])
            self.assertGreater(kv["a"] + kv["b"], 17 << 20)
            self.assertGreater(kv["e"], 17 << 20)

    def test_a_model_of_no_device_is_refused(self):
        for device, code in (("gpu", 2), ("cuda:5", 1)) if BUILT else (("gpu", 2), ("cuda", 2)):
            with config((("m", device, LLAMA),), "1MiB") as file:
                r = subprocess.run([BIN, "serve", "--config", file, "--device", "cpu", "--port", "0"], capture_output=True, text=True,
                                   timeout=60, check=False)
            self.assertEqual(r.returncode, code, r.stderr)
            self.assertIn(f"device {device}", r.stderr)

    @unittest.skipUnless(BUILT and MODEL, "cuda is not built, or there is no SmolLM2")
    def test_a_real_model_answers_as_on_the_cpu(self):
        def answer(*options):
            r = subprocess.run([BIN, "run", MODEL, "--raw", "-p", "The three states of matter are", "-n", "16", "--temp", "0", "--json",
                                "--ctx", "128", *options], capture_output=True, text=True, check=False,
                               env={**os.environ, "CAPSTAN_CPU": "avx2"}, timeout=500)
            self.assertEqual(r.returncode, 0, r.stderr)
            return json.loads(r.stdout)

        want = answer("--device", "cpu")
        self.assertEqual(want["usage"]["completion_tokens"], 16)
        self.assertEqual(answer("--device", "cuda", "--numerics", "exact"), want)


if __name__ == "__main__":
    unittest.main()
