"""No driver, no device, a driver or a device that is too old, no cuBLAS, no cuda in the build: a device that is named is refused
with the reason, auto serves on the CPU and says why once, and nothing is left behind in the driver (tests/fakes/libcuda).
Standard library only."""
import json
import os
import re
import subprocess
import tempfile
import unittest

from harness import BIN, Server

FAKE = os.environ.get("CAPSTAN_LIBCUDA", "")
TINY = os.path.join(os.path.dirname(__file__), "..", "golden", "tiny", "llama.gguf")
WORDS = subprocess.run([BIN, "version", "-v"], capture_output=True, text=True, check=True).stdout
BUILT = re.search(r"^backends:.* cuda\b", WORDS, re.M)
NVCC = re.search(r"^cuda: nvcc (\d+\.\d+)", WORDS, re.M)
WANTED = "wanted: one of CUDA " + re.escape(NVCC[1] if NVCC else "") + r" or newer$"

OLD = "GPU-63617073-7461-6e27-7320-66616b652001"  # the fake's second

# What is not there: the environment, --device, what is said.
ABSENT = [
    ("no driver", {"CAPSTAN_LIBCUDA": "/no/such/libcuda.so.1"}, "cuda", r"no NVIDIA driver: /no/such/libcuda.so.1"),
    ("a library that is none", {"CAPSTAN_LIBCUDA": "libm.so.6"}, "cuda", r"no NVIDIA driver: libm\.so\.6 has no cuInit$"),
    ("a driver that fails", {"FAKE_FAIL": "cuInit:1"}, "cuda", r"cuInit: CUDA_ERROR_UNKNOWN"),
    ("a driver that fails, of a device", {"FAKE_FAIL": "cuInit:1"}, "cuda:1", r"--device cuda:1: cuInit: CUDA_ERROR_UNKNOWN"),
    ("no device", {"FAKE_GPUS": "0"}, "cuda", r"the NVIDIA driver finds no device$"),
    ("no device to be seen", {"FAKE_GPUS": "0", "CUDA_VISIBLE_DEVICES": ""}, "cuda", r"finds no device; CUDA_VISIBLE_DEVICES is ''$"),
    ("no such device", {"FAKE_GPUS": "2"}, "cuda:2", r"there is no device cuda:2; the driver has 2$"),
    ("a device that is hidden", {"FAKE_GPUS": "2", "CUDA_VISIBLE_DEVICES": "4,5"}, "cuda:4", r"the driver has 2; CUDA_VISIBLE_DEVICES is '4,5'$"),
    ("no such UUID", {}, "GPU-7f5e", r"no device has the UUID 7f5e; there are: cuda:0 \(fake sm_80"),
    ("an old device", {"FAKE_CC": "75"}, "cuda", r"kernels need compute capability 8\.0 or more; there is: cuda:0 \(fake sm_75"),
    ("an old device by its UUID", {"FAKE_CC": "75", "FAKE_GPUS": "2"}, OLD, r"kernels need compute capability 8\.0 or more; there is: cuda:1 \([^,]*, sm_75, " + OLD + r"\)$"),
    ("an old driver", {"FAKE_DRIVER_VERSION": "12040"}, "cuda", r"the NVIDIA driver, of CUDA 12\.4, is too old for the kernels of this build; " + WANTED),
    ("no memory for a context", {"FAKE_FAIL": "cuDevicePrimaryCtxRetain:1"}, "cuda", r"cuDevicePrimaryCtxRetain: CUDA_ERROR_OUT_OF_MEMORY"),
    ("a module that does not load", {"FAKE_FAIL": "cuModuleLoadDataEx:1"}, "cuda", r"CUDA_ERROR_INVALID_PTX"),
]


@unittest.skipUnless(BUILT and FAKE, "a build with cuda, and CAPSTAN_LIBCUDA of the fake driver")
class Absent(unittest.TestCase):
    def setUp(self):
        self.report = tempfile.NamedTemporaryFile(suffix=".json")
        self.addCleanup(self.report.close)

    def nothing_left(self):
        with open(self.report.name, encoding="utf-8") as f:
            text = f.read()
        if text:  # the fake was there at all
            self.assertEqual({k: v for k, v in json.loads(text)["leaks"].items() if v}, {})

    def env(self, more):
        return {**os.environ, "FAKE_REPORT": self.report.name, **more}

    def test_a_named_device_is_refused(self):
        for name, more, device, words in ABSENT:
            with self.subTest(name):
                r = subprocess.run([BIN, "serve", TINY, "--port", "0", "--device", device], env=self.env(more), capture_output=True,
                                   text=True, timeout=60, check=False)
                self.assertEqual(r.returncode, 1, r.stderr)
                self.assertRegex(r.stderr.splitlines()[-1], rf"^capstan: (?=--device {re.escape(device)}: ).*{words}")
                self.nothing_left()

    def test_auto_serves_on_the_cpu(self):
        for name, more, device, words in ABSENT:
            if device != "cuda":
                continue
            with self.subTest(name), Server(TINY, "--device", "auto", "--kv-bytes", "16MiB", "--drain-grace", "0s", env=self.env(more)) as s:
                status, _, answer = s.request("/v1/completions", {"prompt": "Once", "max_tokens": 3, "ignore_eos": True})
                self.assertEqual(status, 200, answer)
                said = re.findall(r"^.* device cpu: (.*)$", s.log(), re.M)
                self.assertEqual(len(said), 1, s.log())
                self.assertRegex(said[0], words)
                s.terminate()
                self.assertEqual(s.process.wait(60), 0)
                self.nothing_left()

    def test_so_do_other_commands(self):
        name, more, _, words = ABSENT[0]
        for command in (["run", TINY, "-p", "Once", "-n", "2", "--temp", "0"], ["bench", "engine", "-m", TINY, "-p", "4", "-n", "2"]):
            with self.subTest(command[0]):
                r = subprocess.run([BIN, *command, "--device", "auto"], env=self.env(more), capture_output=True, text=True, timeout=60, check=False)
                self.assertEqual(r.returncode, 0, r.stderr)
                self.assertEqual(len(re.findall(rf"^.* device cpu: .*{words}", r.stderr, re.M)), 1, r.stderr)

    def test_no_cublas(self):
        for library, words in (("/no/such/libcublas.so", r"can be opened"), ("libm.so.6", r"has no cublasCreate_v2")):
            r = subprocess.run([BIN, "serve", TINY, "--port", "0", "--device", "cuda", "--gemm", "cublas"],
                               env=self.env({"CAPSTAN_LIBCUBLAS": library}), capture_output=True, text=True, timeout=60, check=False)
            self.assertEqual(r.returncode, 1, r.stderr)
            self.assertRegex(r.stderr, words)
            self.nothing_left()


@unittest.skipIf(BUILT, "a build without cuda")
class Unbuilt(unittest.TestCase):
    def test_cuda_is_not_built(self):
        r = subprocess.run([BIN, "serve", TINY, "--port", "0", "--device", "cuda"], capture_output=True, text=True, timeout=60, check=False)
        self.assertEqual(r.returncode, 2, r.stderr)
        self.assertIn("device cuda is not built; built: cpu", r.stderr)
        with Server(TINY, "--device", "auto") as s:
            self.assertEqual(s.request("/v1/completions", {"prompt": "Once", "max_tokens": 3})[0], 200)
            self.assertRegex(s.log(), r"device cpu: .*not built")


if __name__ == "__main__":
    unittest.main()
