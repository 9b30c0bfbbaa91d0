#!/usr/bin/env python3
"""Two models under load, a third one loaded and unloaded beside them: does anybody notice?

    soak.py HOST [--model SMOLLM2.gguf] [--third FILE.gguf] [--runs 5] [--loads 20] [--streams 2] [--tokens 100]

HOST is build/release/tests/hot/hot_host. SmolLM2 (CAPSTAN_MODEL) is served under two names, `streams` completions each at any
time. A run takes the gaps between what comes on a stream, first alone, for as many streams as later, then while the third model
(bench/make_model.py's, made here, or --third) is packed anew, loaded and unloaded `loads` times; it is asked once. No request may fail,
every page must come back, anonymous memory after the last unload is held against that after the second. Prints a line a run and
the median of the runs' ratios of p99; exits 1 where something failed or memory grew by more than 4 MiB. Standard library only.
"""
import argparse
import glob
import os
import shutil
import statistics
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
MIB = 1 << 20


def percentile(values, share):
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def forget_packed(cache, keep):
    """The next load packs again what is not in `keep`."""
    for path in set(glob.glob(os.path.join(cache, "capstan", "**", "*.panels"), recursive=True)) - keep:
        os.unlink(path)


def packed(cache):
    return set(glob.glob(os.path.join(cache, "capstan", "**", "*.panels"), recursive=True))


def run(args, third, cache):
    """(p99 alone, p99 beside loads, streams, bytes grown)."""
    config = os.path.join(cache, "models.toml")
    with open(config, "w", encoding="utf-8") as f:
        for name in ("one", "two"):
            f.write(f'[[model]]\nref = "{args.model}"\nalias = ["{name}"]\nkv_bytes = "32MiB"\n')
    with Host("--config", config, "--kv-bytes", "256MiB", "--ctx", "1024", "--max-seqs", "16",
              env={"XDG_CACHE_HOME": cache, "CAPSTAN_LOG_LEVEL": "warn"}) as s:
        keep = packed(cache)
        load = Load(s, ["one", "two"], args.streams, args.tokens)
        load.fill_pages()
        load.take_gaps()
        sizes, beside, before = [], [], load.done
        for i in range(args.loads):
            forget_packed(cache, keep)
            answer = s.do("load", "three", third, 64 * MIB)
            assert answer == "ok", answer
            if i == 0:  # its own steps hold others up, too, but that is no load's doing
                status, _, body = s.request("/v1/completions", {"model": "three", "prompt": "Hello", "max_tokens": 2, "ignore_eos": True})
                assert status == 200, body
            answer = s.do("unload", "three", 0)
            assert answer == "ok", answer
            sizes.append(s.anonymous())
        beside = load.take_gaps()
        streams = load.done - before
        load.wait(max(streams, 2 * args.streams))
        alone = load.take_gaps()
        load.stop()
        assert s.used_pages() == 0, "pages are held"
        assert not [k for k in s.metrics() if 'model="three"' in k[1]], "metrics are left"
        s.finish()
        return percentile(alone, 0.99), percentile(beside, 0.99), load.done, sizes[-1] - sizes[min(1, len(sizes) - 1)]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("host")
    parser.add_argument("--model", default=os.environ.get("CAPSTAN_MODEL"))
    parser.add_argument("--third")
    for name, value in (("runs", 5), ("loads", 20), ("streams", 2), ("tokens", 100)):
        parser.add_argument(f"--{name}", type=int, default=value)
    args = parser.parse_args()
    os.environ["CAPSTAN_BIN"] = os.path.abspath(args.host)
    global Host, Load  # the harness wants to know the binary when it is read
    from hot import Host, Load  # pylint: disable=import-outside-toplevel
    cache, ratios, grown = tempfile.mkdtemp(), [], []
    try:
        third = args.third
        if not third:
            third = os.path.join(cache, "third.gguf")
            subprocess.run([sys.executable, os.path.join(HERE, "..", "..", "bench", "make_model.py"), args.model, third], check=True)
        for i in range(args.runs):
            alone, beside, streams, more = run(args, third, cache)
            ratios.append(beside / alone)
            grown.append(more)
            print(f"run {i + 1}: {streams} streams, gaps p99 {alone * 1e3:.1f} ms alone, {beside * 1e3:.1f} ms beside {args.loads} "
                  f"loads: {ratios[-1]:.2f}x; anonymous memory {more / MIB:+.1f} MiB since the second", flush=True)
    finally:
        shutil.rmtree(cache)
    print(f"median of {args.runs}: {statistics.median(ratios):.2f}x")
    return 1 if max(grown) > 4 * MIB else 0


if __name__ == "__main__":
    sys.exit(main())
