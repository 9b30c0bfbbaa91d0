#!/usr/bin/env python3
"""scripts/device-check end to end: on the CPU, and with cuda on the driver without a GPU that CAPSTAN_LIBCUDA names.

Usage: test_device_check.py SELFTEST cpu|cuda. Exits 77 where the self-test was built without kernels for cuda.
"""
import json
import os
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
FILES = ["1-machine", "2-equal", "3-ceilings", "4-linears", "5-models", "6-sanitizer", "7-report"]


def check(selftest, device):
    with tempfile.TemporaryDirectory() as out:
        run = subprocess.run([ROOT / "scripts/device-check", out, "--small"], capture_output=True, text=True,
                             env={**os.environ, "SELFTEST": selftest, "DEVICE": device})
        found = {p.stem: json.loads(p.read_text()) for p in pathlib.Path(out).glob("*.json")}
        assert sorted(found) == FILES, (sorted(found), run.stderr)
        assert run.returncode == 0 and found["7-report"]["ok"], (run.stderr, found)
        assert found["1-machine"]["device"]["rows"][0]["backend"] == device, found["1-machine"]
        rows = found["2-equal"]["rows"]
        assert {r["type"] for r in rows} == {"Q4_0", "Q6_K", "BF16"} and all(r["ok"] for r in rows), rows
        assert {r["numerics"] for r in rows} == ({"exact", "default"} if device == "cuda" else {"default"}), rows
        print(f"{device}: {json.dumps(found['7-report'])}; equal: {sum(r['outputs'] for r in rows)} outputs")
        return 0


def check_failures(selftest):
    """A device that cannot be opened is an error of each part, and the exit code says so."""
    with tempfile.TemporaryDirectory() as out:
        run = subprocess.run([ROOT / "scripts/device-check", out, "--small"], capture_output=True, text=True,
                             env={**os.environ, "SELFTEST": selftest, "DEVICE": "nothing"})
        found = {p.stem: json.loads(p.read_text()) for p in pathlib.Path(out).glob("*.json")}
        assert run.returncode == 1 and sorted(found) == FILES, run.stderr
        assert not found["7-report"]["ok"] and found["7-report"]["parts_failed"] == 4, found["7-report"]
        assert "nothing" in found["2-equal"]["error"], found["2-equal"]
    with tempfile.TemporaryDirectory() as out:
        hangs = pathlib.Path(out, "hangs")
        hangs.write_text("#!/bin/sh\ncase $* in *ceilings*) exec sleep 9;; esac\nexec " + selftest + ' "$@"\n')
        hangs.chmod(0o755)
        text = (ROOT / "scripts/device-check").read_text().replace("ceilings 40", "ceilings 1").replace("$(dirname \"$0\")/..", str(ROOT))
        script = pathlib.Path(out, "device-check")
        script.write_text(text)
        run = subprocess.run(["bash", script, out, "--small"], capture_output=True, text=True,
                             env={**os.environ, "SELFTEST": str(hangs), "DEVICE": "cpu"})
        found = {p.stem: json.loads(p.read_text()) for p in pathlib.Path(out).glob("*.json")}
        assert found["3-ceilings"]["timeout"] is True and found["4-linears"]["ok"], (found, run.stderr)
        assert found["7-report"]["parts_failed"] == 1, found["7-report"]


def check_weights(selftest):
    """What is timed comes from memory: each weight of a row of linears lies on the device, not one for all."""
    with tempfile.TemporaryDirectory() as out:
        report = pathlib.Path(out, "report.json")
        run = subprocess.run([selftest, "--device", "cuda", "--part", "linears", "--small", "--json"], capture_output=True, text=True,
                             env={**os.environ, "FAKE_REPORT": str(report)})
        rows = json.loads(run.stdout)["rows"]
        sizes = {"Q4_0": 18 / 32, "Q4_K": 144 / 256}
        weights = sum(2 * sizes[t] * k * m for t, k, m in {(r["type"], r["k"], r["m"]) for r in rows})
        sent = json.loads(report.read_text())["counts"]["htod_bytes"]
        print(f"linears: {sent} bytes sent, {weights:.0f} of two weights each")
        assert len(rows) == 8 and sent >= weights, (rows, sent, weights)


def main():
    selftest, device = sys.argv[1:]
    if device == "cuda":
        said = subprocess.run([selftest, "--device", "cuda", "--part", "device", "--json"], capture_output=True, text=True).stdout
        if any(words in said for words in ("is not built", "has no kernels")):
            print("skipped: " + json.loads(said)["error"])
            return 77
        check_weights(selftest)
    else:
        check_failures(selftest)
    return check(selftest, device)


if __name__ == "__main__":
    sys.exit(main())
