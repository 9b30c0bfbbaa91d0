#!/usr/bin/env python3
"""Pulling from an nginx on loopback: against curl and a hash, against its limit_rate, and the memory that it takes.

    pull.py CAPSTAN [--mib 1024] [--pairs 5] [--dir DIR] [--json]

speed: `capstan pull` into a new store beside `curl -o` followed by `sha256sum`, and by `openssl dgst -sha256`, in turns; the ratio
is their time over ours. limit: nginx gives each connection 16 MiB/s; times of 4 and 8 connections against one. memory: the most
anonymous memory seen, with 4 and 32 connections. DIR (default: the system's for temporary files) takes all files: its medium counts.
Standard library only; needs nginx, curl, coreutils, openssl.
"""
import argparse
import hashlib
import json
import os
import pathlib
import shutil
import socket
import statistics
import subprocess
import tempfile
import time

LIMIT_MIB = 16


def make_artifact(root, mib):
    """v2/bench/model for nginx: a Docker model whose weights are random bytes (pull does not read metadata)."""
    base = root / "v2/bench/model"
    for d in ("blobs", "manifests"):
        (base / d).mkdir(parents=True)
    h, size = hashlib.sha256(), mib << 20
    with open(base / "blobs/weights", "wb") as f:
        for i in range(mib):
            piece = os.urandom(1 << 20) if i else b"GGUF" + os.urandom((1 << 20) - 4)
            h.update(piece)
            f.write(piece)
    weights = "sha256:" + h.hexdigest()
    (base / "blobs/weights").rename(base / "blobs" / weights)
    config = b'{"config":{"format":"gguf"}}'
    config_digest = "sha256:" + hashlib.sha256(config).hexdigest()
    (base / "blobs" / config_digest).write_bytes(config)
    (base / "manifests/v1").write_text(json.dumps({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.docker.ai.model.config.v0.1+json", "digest": config_digest, "size": len(config)},
        "layers": [{"mediaType": "application/vnd.docker.ai.gguf.v3", "digest": weights, "size": size}]}))
    return weights


class Nginx:
    """Two servers over the same files: one as fast as it goes, one that limits each connection."""

    def __init__(self, folder, root):
        self.fast, self.slow = free_port(), free_port()
        more = f"root {root}; location ~ /manifests/ {{ default_type application/vnd.oci.image.manifest.v1+json; }}"
        conf = folder / "nginx.conf"
        conf.write_text(f"""
user root; worker_processes 2; daemon off; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 512; }}
http {{
  access_log off; sendfile on; default_type application/octet-stream;
  client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder}; uwsgi_temp_path {folder}; scgi_temp_path {folder};
  server {{ listen 127.0.0.1:{self.fast}; {more} }}
  server {{ listen 127.0.0.1:{self.slow}; limit_rate {LIMIT_MIB}m; {more} }}
}}
""")
        with open(folder / "nginx.log", "wb") as log:
            self.process = subprocess.Popen(["nginx", "-c", conf, "-p", folder], stdout=log, stderr=log)
        for _ in range(200):
            try:
                socket.create_connection(("127.0.0.1", self.slow), 1).close()
                return
            except OSError:
                time.sleep(0.05)
        raise SystemExit("nginx does not start: " + (folder / "nginx.log").read_text())

    def stop(self):
        self.process.terminate()
        self.process.wait()


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Bench:
    def __init__(self, binary, folder, weights):
        self.binary, self.folder, self.weights = binary, folder, weights

    def clean(self):
        shutil.rmtree(self.folder / "store", ignore_errors=True)
        (self.folder / "file").unlink(missing_ok=True)
        os.sync()

    def pull(self, port, connections):
        """Seconds, and the most anonymous memory in bytes."""
        self.clean()
        begin = time.monotonic()
        p = subprocess.Popen([self.binary, "pull", f"127.0.0.1:{port}/bench/model:v1", "--store", self.folder / "store",
                              "--connections", str(connections)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        most = 0
        while p.poll() is None:
            try:
                with open(f"/proc/{p.pid}/status", encoding="ascii") as f:
                    rows = dict(line.split(":", 1) for line in f if ":" in line)
                most = max(most, int(rows.get("RssAnon", "0 kB").split()[0]) * 1024)
            except OSError:
                pass
            time.sleep(0.002)
        took = time.monotonic() - begin
        if p.returncode:
            raise SystemExit(p.stderr.read().decode())
        return took, most

    def curl(self, port, *hasher):
        self.clean()
        begin = time.monotonic()
        url = f"http://127.0.0.1:{port}/v2/bench/model/blobs/{self.weights}"
        subprocess.run(["curl", "-sf", "-o", self.folder / "file", url], check=True)
        out = subprocess.run([*hasher, self.folder / "file"], check=True, capture_output=True, text=True).stdout
        assert self.weights[7:] in out
        return time.monotonic() - begin


def spread(values):
    return {"median": round(statistics.median(values), 3), "least": round(min(values), 3), "most": round(max(values), 3)}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("capstan")
    p.add_argument("--mib", type=int, default=1024)
    p.add_argument("--pairs", type=int, default=5)
    p.add_argument("--dir")
    p.add_argument("--json", action="store_true")
    a = p.parse_args()
    with tempfile.TemporaryDirectory(prefix="capstan-bench-", dir=a.dir) as d:
        folder = pathlib.Path(d)
        os.chmod(folder, 0o755)
        weights = make_artifact(folder / "www", a.mib)
        nginx = Nginx(folder, folder / "www")
        b = Bench(a.capstan, folder, weights)
        try:
            ours, coreutils, openssl, memory = [], [], [], {}
            for _ in range(a.pairs):
                ours.append(b.pull(nginx.fast, 4)[0])
                coreutils.append(b.curl(nginx.fast, "sha256sum"))
                openssl.append(b.curl(nginx.fast, "openssl", "dgst", "-sha256"))
            limited = {n: b.pull(nginx.slow, n)[0] for n in (1, 4, 8)}
            for n in (4, 32):
                memory[n] = round(b.pull(nginx.fast, n)[1] / 2**20, 1)
        finally:
            nginx.stop()
    report = {
        "mib": a.mib, "pull_s": spread(ours), "curl_sha256sum_s": spread(coreutils), "curl_openssl_s": spread(openssl),
        "ratio_sha256sum": spread([x / y for x, y in zip(coreutils, ours)]),
        "ratio_openssl": spread([x / y for x, y in zip(openssl, ours)]),
        "limited_s": {str(n): round(s, 2) for n, s in limited.items()},
        "limited_gain": {str(n): round(limited[1] / limited[n], 2) for n in (4, 8)},
        "anonymous_mib": {str(n): m for n, m in memory.items()},
    }
    if a.json:
        print(json.dumps(report))
    else:
        for key, value in report.items():
            print(f"{key:18} {value}")


if __name__ == "__main__":
    main()
