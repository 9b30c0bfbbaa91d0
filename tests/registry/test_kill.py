"""Pulls that are killed and taken up again, counted by the server's log.

CAPSTAN_KILLS (200) pulls of CAPSTAN_KILL_MIB (256), each killed once by SIGKILL: 4 in 5 between the first and the last
byte of the weights (half of these from outside, half by a fault point), the rest in fsync, rename, index and around
them. Each is resumed: the digest is right, and what was sent again is at most 10 % of the blob and one range a kill on
average. Two processes that pull the same model have it sent once."""
import hashlib
import json
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/fakes"))
from registry import MANIFEST, Registry  # noqa: E402  pylint: disable=wrong-import-position

BIN = os.environ["CAPSTAN_BIN"]
KILLS = int(os.environ.get("CAPSTAN_KILLS", "200"))
SIZE = int(os.environ.get("CAPSTAN_KILL_MIB", "256")) << 20
RANGE = 16 << 20
POINTS = ("fsync", "rename", "index", "renamed")
CNCF = "application/vnd.cncf.model."


class Kills:
    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.random = random.Random(4)
        path = self.folder / "weights"
        with open(path, "wb") as f:
            f.write(b"GGUF\3\0\0\0")
            for left in range(SIZE - 8, 0, -(1 << 20)):
                f.write(self.random.randbytes(min(left, 1 << 20)))
        self.registry = Registry().start()
        c = self.registry.content
        self.weights = c.file(path, CNCF + "weight.v1.raw", annotations={"org.cncf.model.filepath": "model.gguf"})
        self.manifest = c.manifest("m/big", "v1", {
            "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": CNCF + "manifest.v1+json",
            "config": c.blob(b'{"modelfs":{"type":"layers","diffIds":[]}}', CNCF + "config.v1+json"), "layers": [self.weights]})
        self.rest = sum(d["size"] for d in [self.manifest]) + 42
        self.ref = f"{self.registry.host}/m/big:v1"

    def start(self, store, fault=None):
        env = {"PATH": os.environ["PATH"], "HOME": str(self.folder), **({"CAPSTAN_FAULT": fault} if fault else {})}
        return subprocess.Popen([BIN, "pull", self.ref, "--store", str(store)], env=env, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, text=True)

    def finish(self, p, what):
        out, err = p.communicate(timeout=300)
        assert p.returncode == 0, f"{what}: exit {p.returncode}: {err[-600:]}"
        assert out.strip() == self.manifest["digest"], f"{what}: printed {out}"

    def check(self, store, what):
        blob = store / "blobs" / self.weights["digest"].replace(":", "/")
        with open(blob, "rb") as f:
            assert "sha256:" + hashlib.file_digest(f, "sha256").hexdigest() == self.weights["digest"], f"{what}: wrong bytes"
        index = json.loads((store / "index.json").read_text())["manifests"]
        assert [e["digest"] for e in index] == [self.manifest["digest"]], f"{what}: index {index}"
        left = [p.name for p in (store / "capstan/partial").glob("*")] if (store / "capstan/partial").exists() else []
        assert not left, f"{what}: left behind: {left}"

    def killed(self, i):
        """One pull, killed and resumed; (where, bytes sent in all)."""
        store = self.folder / f"store-{i}"
        before, begun = self.registry.sent(), self.registry.bytes_sent
        in_body = i * 5 < KILLS * 4
        if in_body:
            at = self.random.randrange(1, SIZE)
            where = f"{at} bytes, {'outside' if i % 2 else 'inside'}"
            p = self.start(store, None if i % 2 else f"bytes={at}:kill")
            if i % 2:
                while self.registry.bytes_sent - begun < at and p.poll() is None:
                    time.sleep(0.001)
                p.kill()
        else:
            where = POINTS[i % len(POINTS)]
            p = self.start(store, f"{where}:kill")
        p.communicate(timeout=300)
        # Killed from outside at the very end it may have been done already; then it is no kill.
        if p.returncode == 0 and in_body and i % 2:
            shutil.rmtree(store)
            return self.killed(i)
        assert p.returncode == -9, f"{where}: not killed, exit {p.returncode}"
        self.finish(self.start(store), where)
        self.check(store, where)
        shutil.rmtree(store)
        return where, self.registry.sent() - before

    def two(self):
        store = self.folder / "store-two"
        before = self.registry.sent()
        both = [self.start(store), self.start(store)]
        for p in both:
            self.finish(p, "two at once")
        self.check(store, "two at once")
        return self.registry.sent() - before


def main():
    with tempfile.TemporaryDirectory(prefix="capstan-kill-", dir=os.environ.get("CAPSTAN_KILL_DIR")) as folder:
        k = Kills(folder)
        again, worst, by = 0, 0, {}
        for i in range(KILLS):
            where, sent = k.killed(i)
            more = max(0, sent - SIZE - k.rest)
            again += more
            worst = max(worst, more)
            kind = where if where in POINTS else "bytes"
            by[kind] = by.get(kind, 0) + 1
            if i % 20 == 19:
                print(f"{i + 1} kills {by}: sent again on average {again / (i + 1) / 2**20:.1f} MiB, at most {worst / 2**20:.1f} MiB",
                      flush=True)
        allowed = SIZE // 10 + RANGE
        print(f"{KILLS} kills {by}: sent again {again / KILLS / 2**20:.2f} MiB a kill (allowed {allowed / 2**20:.1f})")
        assert again / KILLS <= allowed, "too much was sent again"
        sent = k.two()
        print(f"two processes: {sent} bytes sent, the model has {SIZE + k.rest}")
        assert sent <= SIZE + k.rest + RANGE, "two processes had it sent twice"
        k.registry.close()


if __name__ == "__main__":
    main()
