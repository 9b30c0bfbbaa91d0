"""Weights that cannot be read: every command that opens them ends with the parser's message and exit code 4 (1 where the file
is well formed and not supported), none with a success and empty fields, none with a signal. Standard library only."""
import json
import os
import pathlib
import struct
import subprocess
import tempfile
import unittest

from harness import BIN

ROOT = pathlib.Path(__file__).resolve().parents[2]
TINY = (ROOT / "tests/golden/tiny/llama.gguf").read_bytes()
SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
STRING, ARRAY, U32 = 8, 9, 4


def u32(b, at):
    return struct.unpack_from("<I", b, at)[0]


def u64(b, at):
    return struct.unpack_from("<Q", b, at)[0]


class Head:
    """Where the fields of a well-formed file stand."""

    def __init__(self, b):
        self.n_tensors, self.n_keys, at = u64(b, 8), u64(b, 16), 24
        self.keys, self.tensors = [], []  # name -> offsets of its parts
        for _ in range(self.n_keys):
            start, n = at, u64(b, at)
            key = b[at + 8:at + 8 + n].decode()
            kind, value = at + 8 + n, at + 12 + n
            at = self.skip(b, u32(b, kind), value)
            self.keys.append({"name": key, "start": start, "type": kind, "value": value, "end": at})
        for _ in range(self.n_tensors):
            start, n = at, u64(b, at)
            dims = at + 8 + n
            kind = dims + 4 + 8 * u32(b, dims)
            self.tensors.append({"start": start, "dims": dims, "type": kind, "offset": kind + 4})
            at = kind + 12
        self.end = at

    @staticmethod
    def skip(b, kind, at):
        if kind == STRING:
            return at + 8 + u64(b, at)
        if kind != ARRAY:
            return at + SIZES[kind]
        elem, count, at = u32(b, at), u64(b, at + 4), at + 12
        for _ in range(count if elem == STRING else 0):
            at += 8 + u64(b, at)
        return at if elem == STRING else at + count * SIZES[elem]


HEAD = Head(TINY)
# Well formed, as far as one can see: exit code 1.
UNSUPPORTED = ("version 1", "version 4", "version 9", "version 50331648", "version 4294967295", "tensor type", "an array of arrays",
               "0 dimensions")


def put(at, fmt, *values):
    b = bytearray(TINY)
    struct.pack_into("<" + fmt, b, at, *values)
    return bytes(b)


def with_key(name, kind, value):
    """The file with one more key, before the others."""
    key = struct.pack("<Q", len(name)) + name.encode() + struct.pack("<I", kind) + value
    return TINY[:16] + struct.pack("<Q", HEAD.n_keys + 1) + key + TINY[24:]


def vocabulary(head=TINY):
    """The keys without the tensors, as llama.cpp's ggml-vocab-*.gguf are."""
    return head[:8] + struct.pack("<Q", 0) + head[16:HEAD.tensors[0]["start"]]


def mutations():
    """(name, bytes) of files that no parser can take."""
    first, last = HEAD.tensors[0], HEAD.tensors[-1]
    strings = [k for k in HEAD.keys if u32(TINY, k["type"]) == STRING]
    arrays = [k for k in HEAD.keys if u32(TINY, k["type"]) == ARRAY]
    texts = next(k for k in arrays if u32(TINY, k["value"]) == STRING)
    for at in (0, 1, 3, 4, 7, 8, 15, 16, 23, 24, 28, HEAD.end - 1, HEAD.end, HEAD.end + 1, len(TINY) // 2, len(TINY) - 4096):
        yield f"cut at {at}", TINY[:at]
    for k in (HEAD.keys[0], HEAD.keys[-1], strings[0], texts):
        for what in ("start", "type", "value", "end"):
            yield f"cut at {what} of {k['name']}", TINY[:k[what] + 1]
    for what in ("start", "dims", "type", "offset"):
        yield f"cut within the first tensor's {what}", TINY[:first[what] + 2]
        yield f"cut within the last tensor's {what}", TINY[:last[what] + 2]
    for magic in (b"gguf", b"GGML", b"GGUE", b"\0\0\0\0", b"PK\3\4"):
        yield f"magic {magic}", magic + TINY[4:]
    for version in (0, 1, 4, 9, 0x03000000, 0xffffffff):
        yield f"version {version}", put(4, "I", version)
    for n in (0, 1, HEAD.n_tensors - 1, HEAD.n_tensors + 1, 1 << 18, 1 << 32, (1 << 64) - 1):
        yield f"{n} tensors", put(8, "Q", n)
    for n in (0, 1, HEAD.n_keys - 1, HEAD.n_keys + 1, 1 << 16, 1 << 32, (1 << 64) - 1):
        yield f"{n} keys", put(16, "Q", n)
    for n in (0, 1 << 16, 1 << 31, 1 << 63, (1 << 64) - 1):
        yield f"a key of {n} bytes", put(HEAD.keys[0]["start"], "Q", n)
        yield f"a string of {n} bytes", put(strings[0]["value"], "Q", n or len(TINY))
        yield f"an array of {n}", put(texts["value"] + 4, "Q", n)
    for kind in (13, 255, 0xffffffff):
        yield f"value type {kind}", put(HEAD.keys[0]["type"], "I", kind)
        yield f"element type {kind}", put(texts["value"], "I", kind)
    yield "an array of arrays", put(texts["value"], "I", ARRAY)
    yield "a NUL in a key", put(HEAD.keys[0]["start"] + 8, "B", 0)
    yield "a key twice", with_key(HEAD.keys[0]["name"], U32, bytes(4))
    yield "a bool of 2", with_key("x.bool", 7, b"\2")
    for n in (0, 3, 33, 1 << 31):
        yield f"alignment {n}", with_key("general.alignment", U32, struct.pack("<I", n))
    yield "alignment of another type", with_key("general.alignment", 10, struct.pack("<Q", 32))
    for n in (0, 64, 1 << 20, (1 << 64) - 1):
        yield f"a tensor's name of {n} bytes", put(first["start"], "Q", n)
    yield "a NUL in a tensor's name", put(first["start"] + 8, "B", 0)
    for n in (0, 5, 0xffffffff):
        yield f"{n} dimensions", put(first["dims"], "I", n)
    for n in (0, 1 << 40, 1 << 62, 1 << 63, (1 << 64) - 1):
        yield f"a dimension of {n}", put(first["dims"] + 4, "Q", n)
    for kind in (4, 31, 99, 0xffffffff):
        yield f"tensor type {kind}", put(first["type"], "I", kind)
    for n in (1, 32, (1 << 64) - 32):
        yield f"a tensor's offset {n}", put(first["offset"], "Q", n)
        yield f"the last tensor's offset {n}", put(last["offset"], "Q", n)
    yield "bytes behind the last tensor", TINY + bytes(64)


class Broken(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.path, self.store = os.path.join(self.folder.name, "m.gguf"), os.path.join(self.folder.name, "store")
        self.env = {**os.environ, "XDG_CACHE_HOME": self.folder.name, "CAPSTAN_STORE": self.store}

    def write(self, b):
        with open(self.path, "wb") as f:
            f.write(b)

    def capstan(self, *args):
        return subprocess.run([BIN, *args], env=self.env, input="hello", capture_output=True, text=True, timeout=120, check=False)

    COMMANDS = (("inspect", "M"), ("inspect", "M", "--json"), ("tokenize", "-m", "M"), ("verify", "M"), ("verify", "M", "--json"),
                ("pack", "M", "-t", "x:1"), ("run", "M", "-p", "x", "--raw", "-n", "1", "--kv-bytes", "1MiB"),
                ("bench", "engine", "-m", "M", "-p", "1", "-n", "1"), ("serve", "M", "--port", "0", "--kv-bytes", "1MiB"))

    def test_every_command_names_what_is_wrong(self):
        n = 0
        for name, b in mutations():
            n += 1
            self.write(b)
            for command in self.COMMANDS:
                with self.subTest(mutation=name, command=" ".join(command)):
                    r = self.capstan(*(self.path if a == "M" else a for a in command))
                    last = r.stderr.splitlines()[-1]
                    self.assertEqual(r.returncode, 1 if name.startswith(UNSUPPORTED) else 4, r.stderr)
                    self.assertRegex(last, f"^capstan: {self.path}: (GGUF: |is no GGUF|0 bytes)|{self.path} is no regular file, or empty", r.stderr)
                    self.assertEqual(r.stdout, "")
        self.assertGreaterEqual(n, 84)
        print(f"{n} mutations, {len(self.COMMANDS)} commands")

    def test_a_name_in_the_store_is_no_excuse(self):
        """A layer that another tool wrapped: its digest is right, its content is not."""
        self.write(TINY)
        self.assertEqual(self.capstan("pack", self.path, "-t", "x:1").returncode, 0)
        index = pathlib.Path(self.store, "index.json")
        entry = json.loads(index.read_text())["manifests"][0]
        blobs = pathlib.Path(self.store, "blobs/sha256")
        manifest = json.loads((blobs / entry["digest"][7:]).read_text())
        layer = next(d for d in manifest["layers"] if d["size"] == len(TINY))

        def blob(b):
            import hashlib
            h = hashlib.sha256(b).hexdigest()
            (blobs / h).write_bytes(b)
            return {"digest": "sha256:" + h, "size": len(b)}

        layer.update(blob(TINY[:24] + b"\xff" * 8 + TINY[32:]))
        entry.update(blob(json.dumps(manifest).encode()))
        index.write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
        for command in (("inspect", "x:1"), ("inspect", "x:1", "--json"), ("verify", "x:1"), ("tokenize", "-m", "x:1")):
            r = self.capstan(*command)
            self.assertEqual((r.returncode, r.stdout), (4, ""), r.stderr)
            self.assertRegex(r.stderr, r"capstan: (x:1: )?sha256:[0-9a-f]+: GGUF: a key at offset 24 claims 18446744073709551615 bytes")
        r = self.capstan("list", "--json")  # it can be seen, and removed
        self.assertEqual([e["name"] for e in json.loads(r.stdout)], ["x:1"], r.stderr)
        self.assertEqual(self.capstan("rm", "x:1").returncode, 0)

    def test_what_a_file_says_steers_no_terminal(self):
        """Values that are shown as they stand in the file: escape sequences and line breaks in them are not obeyed."""
        for key in (b"general.architecture", b"tokenizer.ggml.model", b"tokenizer.ggml.pre"):
            at = TINY.index(key) + len(key) + 4
            n = int.from_bytes(TINY[at:at + 8], "little")
            paint = (b"\x1b]\n" + b"\xc2\x9b" * (n > 4)).ljust(n, b"x")
            self.write(TINY[:at + 8] + paint + TINY[at + 8 + n:])
            for command in (("inspect", self.path), ("run", self.path, "-p", "x", "--raw"), ("tokenize", "-m", self.path)):
                r = self.capstan(*command)
                self.assertNotRegex(r.stdout + r.stderr, r"[^\n\t -\uffff]|[\x7f-\x9f]|\n[x?]", (key, command))

    def test_a_vocabulary_only(self):
        for b in (vocabulary(), vocabulary() + bytes(-len(vocabulary()) % 32)):
            self.write(b)
            for command in (("run", "-p", "x"), ("run",), ("serve", "--port", "0"), ("bench", "engine", "-m"),
                            ("bench", "perplexity", "-f", "/dev/null", "-m")):
                r = self.capstan(*command, self.path, "--kv-bytes", "1MiB")
                self.assertEqual((r.returncode, r.stdout), (4, ""), r.stderr)
                self.assertTrue(r.stderr.endswith(f"capstan: {self.path}: has no tensors: a vocabulary only\n"), r.stderr)
            r = self.capstan("inspect", self.path, "--json")
            self.assertEqual((r.returncode, json.loads(r.stdout)["arch"]), (0, "llama"), r.stderr)
            ids = self.capstan("tokenize", "-m", self.path)
            self.assertEqual(ids.returncode, 0, ids.stderr)
            self.write(TINY)
            self.assertEqual(self.capstan("tokenize", "-m", self.path).stdout, ids.stdout)


if __name__ == "__main__":
    unittest.main()
