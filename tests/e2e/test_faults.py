"""`capstan pull` against every fault of tests/fakes/faults.def: exit code, message, no hang, nothing half-named in the
store, no credential where none may go, and the same store good for a pull once the fault is gone.

Usage: test_faults.py [-j N] [ID]...   Standard library only."""
import argparse
import base64
import concurrent.futures
import hashlib
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time
import traceback

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/fakes"))
import faults  # noqa: E402  pylint: disable=wrong-import-position

BIN = os.environ["CAPSTAN_BIN"]
DEADLINE = 120 * int(os.environ.get("CAPSTAN_TEST_SLOWNESS", "1"))
PATIENCE = ["--retries", "2", "--stall-timeout", "5s"]
SECRETS = (faults.SECRET, base64.b64encode(f"{faults.USER}:{faults.SECRET}".encode()).decode(), "refresh-of-alice", "token-")


def rows():
    """[(id, what, exit, message, source)] of faults.def."""
    text = (ROOT / "tests/fakes/faults.def").read_text()
    string = r'"((?:[^"\\]|\\.)*)"'
    found = re.findall(rf"^FAULT\((\w+), {string}, (\d), {string}, {string}\)$", text, re.M)
    assert len(found) == len(re.findall(r"^FAULT", text, re.M)), "a row of faults.def cannot be read"
    return [(i, what, int(code), json.loads(f'"{message}"'), source) for i, what, code, message, source in found]


def pull(scene, extra=()):
    home = scene.folder
    env = {"PATH": os.environ["PATH"], "HOME": str(home), "XDG_RUNTIME_DIR": str(home), "XDG_CACHE_HOME": str(home / "cache"),
           **{k: v for k, v in os.environ.items() if k.startswith(("ASAN_", "UBSAN_", "TSAN_"))}, **scene.env}
    args = [BIN, "pull", scene.ref, "--store", str(home / "store"), *PATIENCE, *scene.args, *extra]
    try:
        done = subprocess.run(args, capture_output=True, text=True, timeout=DEADLINE, env=env, check=False, cwd=home,
                              errors="replace")
    except subprocess.TimeoutExpired as e:
        raise AssertionError(f"hangs: not done after {DEADLINE} s: {(e.stderr or b'')[-500:]}") from None
    return done.returncode, done.stdout.strip(), done.stderr


def check_store(scene, pulled):
    """Blobs have the bytes that their names say; a name is there if and only if the pull came through."""
    store = scene.folder / "store"
    for path in store.glob("blobs/*/*"):
        with open(path, "rb") as f:
            have = hashlib.file_digest(f, path.parent.name).hexdigest()
        assert have == path.name, f"blob {path.name} has digest {have}"
    index = json.loads((store / "index.json").read_text())["manifests"] if (store / "index.json").exists() else []
    if not pulled:
        assert not index, f"the index names what was not pulled: {index}"
    else:
        assert [e["digest"] for e in index] == [scene.digest], f"the index has {index}, expected {scene.digest}"
        manifest = json.loads((store / "blobs" / scene.child.replace(":", "/")).read_text())
        for d in [manifest["config"], *manifest["layers"]]:
            path = store / "blobs" / d["digest"].replace(":", "/")
            weights = any(w in d["mediaType"] for w in ("weight.v1", "octet-stream"))
            assert path.exists() or not weights, f"{d['digest']} is not in the store"
            assert not path.exists() or path.stat().st_size == d["size"]
    stray = [p for p in scene.folder.rglob("*escaped*")] + [p for p in scene.folder.parent.glob("*escaped*")]
    assert not stray, f"written outside of its folder: {stray}"


def check_secrets(scene, stderr):
    for server in scene.servers:
        if server is scene.registry:
            continue
        for r in server.rows():
            assert not r.auth, f"a credential went to another host: {r.method} {r.path}"
            assert not any(s in r.path + r.body for s in SECRETS), f"a secret went to another host: {r.path} {r.body}"
    for s in SECRETS[:3]:
        assert s not in stderr, "a secret is in the message"


def walk(row, tls, keep):
    """One row: (id, seconds, trouble or "", message of capstan)."""
    name, _, code, message, _ = row
    begin = time.monotonic()
    stderr = ""
    with tempfile.TemporaryDirectory(prefix=f"fault-{name}-", dir=keep) as folder:
        scene = faults.Scene(pathlib.Path(folder), tls)
        try:
            faults.FAULTS[name](scene)
            faulty = any(s.hooks for s in scene.servers)
            have, stdout, stderr = pull(scene)
            assert have == code, f"exit {have}, expected {code}"
            assert code == 0 or stderr.strip(), "an error without a message"
            assert not re.search(r"[^\n\t -\uffff]|[\x7f-\x9f]", stderr), "control characters in the message"
            assert len(stderr) < 4000 and stderr.count("\n") < 20, "a message without end"
            assert code == 0 or re.search(message, stderr), f"the message has no /{message}/"
            if code == 0:
                assert stdout == scene.digest, f"printed {stdout}, expected {scene.digest}"
            check_store(scene, code == 0)
            check_secrets(scene, stderr)
            sent = scene.registry.sent("blob")
            assert scene.bound is None or sent <= scene.bound, f"{sent} bytes were sent"
            for check in scene.checks:
                check()
            if code and faulty:
                for s in scene.servers:
                    s.hooks.clear()
                again, _, stderr2 = pull(scene)
                assert again == 0, f"the fault is gone and the pull still ends with {again}: {stderr2}"
                check_store(scene, True)
            return name, time.monotonic() - begin, "", stderr
        except AssertionError as e:
            return name, time.monotonic() - begin, str(e) or traceback.format_exc(), stderr
        except Exception:  # pylint: disable=broad-except
            return name, time.monotonic() - begin, traceback.format_exc(), stderr
        finally:
            scene.close()


def main():
    p = argparse.ArgumentParser()
    p.add_argument("-j", type=int, default=8)
    p.add_argument("-v", action="store_true", help="show every row's message and time")
    p.add_argument("id", nargs="*")
    a = p.parse_args()
    table = rows()
    assert [r[0] for r in table] == list(dict.fromkeys(r[0] for r in table)), "a row twice"
    assert {r[0] for r in table} == set(faults.FAULTS), {r[0] for r in table} ^ set(faults.FAULTS)
    picked = [r for r in table if not a.id or r[0] in a.id]
    bad = 0
    with tempfile.TemporaryDirectory(prefix="capstan-faults-") as keep:
        tls = faults.make_tls(keep)
        with concurrent.futures.ThreadPoolExecutor(a.j) as pool:
            for (name, seconds, trouble, stderr), row in zip(pool.map(lambda r: walk(r, tls, keep), picked), picked):
                bad += bool(trouble)
                if trouble:
                    print(f"FAIL {name} ({row[1]}): {trouble}\n  {stderr.strip()[-600:]}", flush=True)
                elif a.v:
                    print(f"ok   {name} {seconds:.1f} s: {stderr.strip()[-300:]}", flush=True)
    print(f"{len(picked) - bad} of {len(picked)} rows as they should be")
    return 1 if bad or not picked else 0


if __name__ == "__main__":
    sys.exit(main())
