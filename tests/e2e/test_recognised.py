"""What is recognised in a file is said by `inspect` and at start, what is not built is refused by its name, and what lies beside
a model is named. Tiny models; standard library only."""
import json
import pathlib
import re
import struct
import subprocess
import tempfile
import unittest

from harness import BIN, Server

TINY = pathlib.Path(__file__).resolve().parents[2] / "tests/golden/tiny"


def capstan(*args):
    return subprocess.run([BIN, *map(str, args)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=60)


def gguf(keys, tensor="token_embd.weight"):
    """A GGUF file with these keys (strings and integers) and a tensor of 32 F32 zeroes."""
    def string(s):
        return struct.pack("<Q", len(s)) + s.encode()

    out = struct.pack("<IIQQ", 0x46554747, 3, 1, len(keys))
    for k, v in keys.items():
        out += string(k) + (struct.pack("<I", 8) + string(v) if isinstance(v, str) else struct.pack("<II", 4, v))
    out += string(tensor) + struct.pack("<IQIQ", 1, 32, 0, 0)
    return out + b"\0" * (-len(out) % 32) + b"\0" * 128


class Recognised(unittest.TestCase):
    def inspect(self, path):
        r = capstan("inspect", path, "--json")
        self.assertEqual(r.returncode, 0, r.stderr)
        return json.loads(r.stdout)

    def start(self, path):
        """The line about the model that serve writes."""
        with Server(str(path), "--threads", "1", "--ctx", "64", "--kv-bytes", "8MiB") as server:
            return next(line for line in server.log().splitlines() if "full-length" in line)

    def test_every_tiny_model_is_run(self):
        for path in sorted(TINY.glob("*.gguf")):
            with self.subTest(path.stem):
                j = self.inspect(path)
                self.assertIsNone(j["refused"])
                self.assertEqual(j["templates"], ["default"])
                self.assertEqual(j["ignored"], [])

    def test_windows_and_states(self):
        j = self.inspect(TINY / "gemma3.gguf")
        self.assertEqual(j["windows"], {"positions": 8, "layers": 5})
        self.assertEqual((j["layers_count"], j["state"]["layers"], j["experts"]["count"]), (6, 0, 0))
        self.assertIn("\nwindows 8 positions in 5 of 6 layers\n", capstan("inspect", TINY / "gemma3.gguf").stdout)
        j = self.inspect(TINY / "lfm2.gguf")
        self.assertEqual(j["state"], {"bytes": 3 * 2 * 64 * 4, "layers": 3})
        self.assertEqual(j["windows"], {"positions": 0, "layers": 0})
        self.assertIn("\nstate   1536 bytes a sequence in 3 of 4 layers\n", capstan("inspect", TINY / "lfm2.gguf").stdout)

    def test_experts_and_blocks_that_are_skipped(self):
        self.assertEqual(self.inspect(TINY / "qwen3moe.gguf")["experts"], {"count": 7, "used": 3, "shared": 0})
        self.assertEqual(self.inspect(TINY / "qwen2moe.gguf")["experts"], {"count": 6, "used": 2, "shared": 1})
        self.assertIn("\nexperts 6, 2 used, 1 shared\n", capstan("inspect", TINY / "qwen2moe.gguf").stdout)
        self.assertIn("; 6 experts, 2 used, 1 shared", self.start(TINY / "qwen2moe.gguf"))
        j = self.inspect(TINY / "qwen35-q.gguf")
        self.assertEqual((j["mtp_blocks_skipped"], j["layers_count"], j["state"]["layers"]), (1, 5, 4))
        self.assertTrue(self.start(TINY / "qwen35-q.gguf").endswith("in 4 of 5 layers; 1 MTP block skipped"))

    def test_the_line_at_start(self):
        self.assertIn("; chat template default; windows of 8 in 5 of 6 layers", self.start(TINY / "gemma3.gguf"))
        self.assertIn("; chat template default; states of 1536 bytes a sequence in 3 of 4 layers", self.start(TINY / "lfm2.gguf"))
        self.assertTrue(self.start(TINY / "qwen3.gguf").endswith("; chat template default"))

    def test_what_is_not_run_is_named(self):
        rows = [({"general.architecture": "lfm2moe"}, r"LFM2 MoE models \(architecture 'lfm2moe'\) are not built; supported: .*llama"),
                ({"general.architecture": "frobnicate"}, "architecture 'frobnicate' is not supported; supported: .*llama"),
                ({"general.architecture": "clip", "general.type": "mmproj"}, "an encoder of images or sound .*not a model"),
                ({"general.architecture": "llama", "general.type": "adapter"}, "an adapter .*not a model")]
        with tempfile.TemporaryDirectory() as d:
            path = pathlib.Path(d) / "m.gguf"
            for keys, text in rows:
                with self.subTest(keys):
                    path.write_bytes(gguf(keys))
                    self.assertRegex(self.inspect(path)["refused"], text)
                    self.assertRegex(capstan("inspect", path).stdout, "\nrefused .*" + text)
                    r = capstan("run", path, "-p", "x")
                    self.assertEqual(r.returncode, 1)
                    self.assertRegex(r.stderr, text)

    def test_a_name_cannot_steer_the_terminal(self):
        with tempfile.TemporaryDirectory() as d:
            path = pathlib.Path(d) / "m.gguf"
            path.write_bytes(gguf({"general.architecture": "a\x1b[31m", "tokenizer.chat_template.b\x1b[31m": "x"}))
            out = capstan("inspect", path).stdout
            self.assertIn("architecture 'a?[31m' is not supported", out)
            self.assertIn("template b?[31m\n", out)
            self.assertNotIn("\x1b", out + capstan("run", path, "-p", "x").stderr)

    def test_a_drafter_is_told_by_its_tensors(self):
        with tempfile.TemporaryDirectory() as d:
            path = pathlib.Path(d) / "m.gguf"
            path.write_bytes(gguf({"general.architecture": "llama"}, "blk.24.nextn.eh_proj.weight"))
            r = capstan("run", path, "-p", "x")
            self.assertEqual(r.returncode, 1)
            self.assertRegex(r.stderr, r"tensor '.*nextn\.eh_proj\.weight', but none of layer 0: the file is a drafter")

    def test_named_templates(self):
        with tempfile.TemporaryDirectory() as d:
            path = pathlib.Path(d) / "m.gguf"
            path.write_bytes(gguf({"general.architecture": "llama", "tokenizer.chat_template": "a",
                                   "tokenizer.chat_template.tool_use": "b", "tokenizer.chat_template.rag": "c"}))
            self.assertEqual(self.inspect(path)["templates"], ["default", "tool_use", "rag"])
            self.assertIn("\ntemplate default, tool_use, rag\n", capstan("inspect", path).stdout)

    def test_what_lies_beside_is_named(self):
        with tempfile.TemporaryDirectory() as d:
            model = pathlib.Path(d) / "m.gguf"
            model.write_bytes((TINY / "llama.gguf").read_bytes())
            for name in ("mmproj-m-F16.gguf", "mtp-m.gguf", "other.gguf", "mmproj.txt"):
                (pathlib.Path(d) / name).write_bytes(b"GGUF")
            ignored = sorted(self.inspect(model)["ignored"])
            self.assertEqual([x.split()[0] for x in ignored], ["mmproj-m-F16.gguf", "mtp-m.gguf"])
            r = capstan("run", model, "-p", "x", "-n", "1", "--raw")
            self.assertEqual(r.returncode, 0, r.stderr)
            self.assertTrue(re.search("mtp-m.gguf beside it ignored: a drafter", r.stderr), r.stderr)


if __name__ == "__main__":
    unittest.main()
