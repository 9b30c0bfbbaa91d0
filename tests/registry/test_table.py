"""Every packaging from every kind of registry: pulled, verified, and its completion is that of the local file.

Usage: test_table.py [-k COLUMN] [--label LABEL] [FIXTURE]...   Needs docker-registry, skopeo, umoci, nginx, htpasswd, zstd,
and in CAPSTAN_VENV the packages oras, omlmd and olot (scripts/test -L registry); label containers: buildah, podman and runc."""
import argparse
import concurrent.futures
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time

import fixtures
import registries

BIN = os.environ["CAPSTAN_BIN"]
PROMPT = ["-p", "Once upon", "--raw", "-n", "8", "--temp", "0", "--json"]


class Table:
    def __init__(self, folder, regs, made):
        self.folder, self.regs, self.made = pathlib.Path(folder), regs, made
        self.env = {"PATH": os.environ["PATH"], "HOME": str(self.folder), "XDG_CACHE_HOME": str(self.folder / "cache")}
        self.want = json.loads(self.capstan("run", str(fixtures.MODEL), *PROMPT))["text"]

    def capstan(self, *args, code=0):
        done = subprocess.run([BIN, *args], capture_output=True, text=True, timeout=120, env=self.env, check=False)
        assert done.returncode == code, f"capstan {' '.join(args)}: exit {done.returncode}: {done.stderr[-600:]}"
        return done.stdout.strip()

    def completion(self, ref, *args):
        have = json.loads(self.capstan("run", ref, *args, *PROMPT))["text"]
        assert have == self.want, f"{ref} completes to {have!r}, the file to {self.want!r}"

    def maps(self, ref, *args):
        """The files that a server of the model has mapped."""
        with tempfile.TemporaryFile("w+") as err:
            p = subprocess.Popen([BIN, "serve", ref, "--port", "0", "--kv-bytes", "16MiB", "--drain-grace", "0", *args],
                                 stderr=err, env=self.env)
            try:
                end = time.monotonic() + 60
                while True:
                    err.seek(0)
                    if m := re.search(r"listening on (http://\S+)", text := err.read()):
                        ready = subprocess.run(["curl", "-sf", m[1] + "/readyz"], capture_output=True, check=False)
                        if ready.returncode == 0:
                            return pathlib.Path(f"/proc/{p.pid}/maps").read_text()
                    assert p.poll() is None and time.monotonic() < end, f"serve {ref}: {text[-600:]}"
                    time.sleep(0.05)
            finally:
                p.send_signal(signal.SIGTERM)
                p.wait(20)

    def layout(self, name):
        f, path, _ = self.made[name]
        self.completion(f"oci:{path}:v1", *f.args)

    def cell(self, name, column):
        f, _, descriptor = self.made[name]
        if column == "layout":
            return self.layout(name)
        host, args = self.regs.setups()[column]
        ref, store = f"{host}/m/{name}:v1", ["--store", str(self.folder / f"store-{name}-{column}")]
        printed = self.capstan("pull", ref, *store, *args, *f.args)
        if "index" not in name:
            assert printed == descriptor["digest"], f"pull printed {printed}, the manifest is {descriptor['digest']}"
        self.capstan("verify", ref, *store)
        entry = json.loads(self.capstan("inspect", ref, *store, "--json"))
        assert entry["format"] == f.row, f"format {entry['format']}, expected {f.row}"
        self.completion(ref, *store)
        if column == "open":
            maps = self.maps(ref, *store)
            # what the layout's cell has extracted lies in the user's cache, and is not extracted again for the store
            weights = [line for line in maps.splitlines() if store[1] in line or self.env["XDG_CACHE_HOME"] in line]
            assert weights, f"nothing of {store[1]} is mapped"
            where = "/capstan/extracted/" if f.extracts else "/blobs/sha256/"
            assert any(where in line for line in weights), f"mapped: {weights}, expected a file of {where}"
        # pinned, and again: nothing moves
        again = self.capstan("pull", f"{host}/m/{name}@{printed}", *store, *args, *f.args)
        assert again == printed
        return None


def skopeo(table, made, regs):
    """Store -> skopeo -> registry, and registry -> skopeo -> a folder that is then our store."""
    for name in ("modelpack_raw", "modelpack_tar_zstd", "modelcar_gzip"):
        f, path, d = made[name]
        store = table.folder / f"store-{name}-open"
        ref = f"{regs.open}/m/{name}:v1"
        registries.run("skopeo", "copy", "-q", "--dest-tls-verify=false", f"oci:{store}:{ref}", f"docker://{regs.open}/back/{name}:v1")
        again = table.capstan("pull", f"{regs.open}/back/{name}:v1", "--store", str(table.folder / f"again-{name}"))
        assert again == d["digest"], f"{name} came back as {again}"
        there = table.folder / f"there-{name}"
        registries.run("skopeo", "copy", "-q", "--src-tls-verify=false", f"docker://{ref}", f"oci:{there}:{ref}")
        table.completion(ref, "--store", str(there), *f.args)
        table.capstan("verify", ref, "--store", str(there))
        assert path


def main():
    p = argparse.ArgumentParser()
    p.add_argument("-k", action="append", help="only this column")
    p.add_argument("-j", type=int, default=2)
    p.add_argument("--label", default="registry", help="fixtures of this label (registry|containers)")
    p.add_argument("fixture", nargs="*")
    a = p.parse_args()
    bad, rows = 0, {}
    with tempfile.TemporaryDirectory(prefix="capstan-table-") as d, registries.Registries(d) as regs:
        python = os.path.join(os.environ["CAPSTAN_VENV"], "bin/python")
        made = fixtures.make(pathlib.Path(d) / "fixtures", fixtures.Tools(regs.open, python), a.label, a.fixture)
        for name, (_, path, descriptor) in made.items():
            regs.push(path, f"m/{name}", descriptor)
        table = Table(d, regs, made)
        columns = [c for c in ("layout", *regs.setups()) if not a.k or c in a.k]
        jobs = [(name, column) for name in made for column in columns]

        def work(job):
            try:
                table.cell(*job)
                return ""
            except (AssertionError, subprocess.TimeoutExpired, ValueError, OSError) as e:
                return f"{type(e).__name__}: {e}"
        with concurrent.futures.ThreadPoolExecutor(a.j) as pool:
            for job, trouble in zip(jobs, pool.map(work, jobs)):
                rows.setdefault(job[0], []).append("ok" if not trouble else "FAIL")
                if trouble:
                    bad += 1
                    print(f"FAIL {job[0]} x {job[1]}: {trouble}", flush=True)
        leaks = [line for line in regs.cdn_log.read_text().splitlines() if "auth=-" not in line]
        if leaks:
            bad += 1
            print(f"FAIL credentials went to the place redirected to: {leaks[:3]}")
        if "limited" in columns and "status=429" not in regs.limited_log.read_text():
            bad += 1
            print("FAIL nothing was answered 429 where requests are limited")
        if not a.fixture and not a.k and a.label == "registry":
            try:
                skopeo(table, made, regs)
                print("skopeo copies out of the store and into one: ok")
            except (AssertionError, RuntimeError) as e:
                bad += 1
                print(f"FAIL skopeo: {e}")
        print(f"{'':22}" + "".join(f"{c:>14}" for c in columns) + "   source")
        for name, cells in rows.items():
            print(f"{name:22}" + "".join(f"{c:>14}" for c in cells) + f"   {made[name][0].source}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
