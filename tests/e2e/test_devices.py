#!/usr/bin/env python3
"""Which device is meant: by number and by UUID, over the fake driver of tests/fakes (CAPSTAN_LIBCUDA), and what is no device at
all. What cannot be had: test_cuda_absent.py. Standard library only."""
import json
import os
import pathlib
import re
import subprocess
import unittest

from harness import BIN

TINY = str(pathlib.Path(__file__).resolve().parents[1] / "golden/tiny/llama.gguf")
MODEL = os.environ.get("CAPSTAN_MODEL")  # SmolLM2
BUILT = re.search(r"^backends:.* cuda\b", subprocess.run([BIN, "version", "-v"], capture_output=True, text=True, check=True).stdout, re.M)


def run(*options, env=None):
    return subprocess.run([BIN, "run", TINY, "--raw", "-p", "Once", "-n", "4", "--temp", "0", *options], capture_output=True, text=True,
                          env={**os.environ, **(env or {})}, timeout=300, check=False)


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
