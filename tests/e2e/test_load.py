"""bench serve against the real server on a tiny model: what is counted, what is refused, what Ctrl-C leaves, exit codes; and bench sse.
Standard library only. No figure of time is compared with another."""
import json
import os
import pathlib
import re
import resource
import signal
import subprocess
import tempfile
import time
import unittest

from harness import BIN, Server

ROOT = pathlib.Path(__file__).resolve().parents[2]
TINY = str(ROOT / "tests/golden/tiny/llama.gguf")
SMALL = ["--alias", "tiny", "--kv-bytes", "1MiB", "--ctx", "256", "--max-seqs", "4", "--threads", "1"]
FIGURES = {"mean", "p50", "p90", "p95", "p99", "max"}
SHAPE = {"completed", "failed", "duration_s", "output_tok_s", "ttft_ms", "itl_ms", "tpot_ms", "e2e_ms"}
KEYS = ("CAPSTAN_API_KEY", "CAPSTAN_URL", "CAPSTAN_MODEL")


def command(url, *args, model="tiny"):
    return [BIN, "bench", "serve", "--url", url, "--model", model, *args]


def load(url, *args, env=None, files=None, **kw):
    """The finished process. The environment's own CAPSTAN_MODEL is the tests', not an option."""
    clean = {k: v for k, v in os.environ.items() if k not in KEYS}
    limit = files and (lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (files, files)))
    return subprocess.run(command(url, *args, **kw), capture_output=True, text=True, timeout=300, check=False,
                          env={**clean, **(env or {})}, preexec_fn=limit)


class Tiny(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.template = os.path.join(cls.folder.name, "t.jinja")
        with open(cls.template, "w", encoding="utf-8") as f:
            f.write("{% for m in messages %}[{{ m.role }}]{{ m.content or '' }}{% endfor %}")
        cls.server = Server(TINY, *SMALL, "--chat-template-file", cls.template).__enter__()
        cls.url = cls.server.url

    @classmethod
    def tearDownClass(cls):
        cls.server.__exit__(None)
        cls.folder.cleanup()

    def good(self, *args, url=None, **kw):
        r = load(url or self.url, "--json", *args, **kw)
        self.assertEqual((r.returncode, r.stderr), (0, ""), r.stderr)
        return json.loads(r.stdout)

    def test_closed_loop(self):
        before = self.server.metric("capstan_generation_tokens_total")
        d = self.good("--concurrency", "3", "--requests", "12", "--input-len", "8", "--output-len", "6")
        self.assertLessEqual(SHAPE, set(d))
        self.assertEqual((d["completed"], d["failed"], d["output_tokens"], d["tokens_from"]), (12, 0, 72, "usage"))
        for name in ("ttft_ms", "itl_ms", "tpot_ms", "e2e_ms"):
            self.assertEqual(set(d[name]), FIGURES)
            values = [d[name][k] for k in ("p50", "p90", "p95", "p99", "max")]
            self.assertEqual(values, sorted(values), name)
        self.assertNotIn("requests", d)
        self.assertGreaterEqual(self.server.metric("capstan_generation_tokens_total") - before, 72)
        self.assertGreater(d["input_tokens"], 12 * 6)  # words and a template, as the server counts them

    def test_text(self):
        r = load(self.url, "--concurrency", "2", "--requests", "4", "--input-len", "8", "--output-len", "3")
        self.assertEqual((r.returncode, r.stderr), (0, ""))
        for line in ("closed loop, 2 at once", "4 of 4 requests completed", "  TTFT ", "own figures (capstan)", "own CPU: "):
            self.assertIn(line, r.stdout)

    def test_a_seed_is_a_schedule(self):
        args = ("--rate", "100", "--requests", "15", "--input-len", "uniform:4:12", "--output-len", "2", "--warmup", "2")
        runs = [self.good(*args, "--seed", s)["requests"] for s in ("5", "5", "6")]
        due = [[r["due_ms"] for r in rows] for rows in runs]
        lengths = [[r["input_tokens"] for r in rows] for rows in runs]
        self.assertEqual(len(due[0]), 15)
        self.assertEqual((due[0], lengths[0]), (due[1], lengths[1]))
        self.assertNotEqual((due[0], lengths[0]), (due[2], lengths[2]))
        for r in runs[0]:
            self.assertLessEqual(r["due_ms"], r["sent_ms"])
            self.assertLessEqual(r["sent_ms"], r["first_ms"])
            self.assertLessEqual(r["first_ms"], r["end_ms"])
            self.assertEqual((r["outcome"], r["status"], r["output_tokens"]), ("ok", 200, 2))

    def test_who_waits_for_a_place_was_due_before(self):
        d = self.good("--rate", "1000000", "--concurrency", "1", "--requests", "10", "--input-len", "4", "--output-len", "100", "--warmup", "0",
                      "--slo", "e2e=600000")
        rows = d["requests"]
        self.assertTrue(all(a["end_ms"] <= b["sent_ms"] for a, b in zip(rows, rows[1:])))
        self.assertLess(rows[-1]["due_ms"], rows[0]["end_ms"])
        self.assertEqual((d["goodput"], d["completed"]), (1, 10))
        self.assertGreater(d["lag_ms"]["max"], 0)
        self.assertGreaterEqual(d["e2e_ms"]["max"], d["lag_ms"]["max"])

    def test_what_finds_no_descriptor_is_dropped(self):
        d = self.good("--rate", "1000000", "--requests", "60", "--input-len", "8", "--output-len", "100", "--warmup", "0",
                      "--endpoint", "completions", files=34)
        o = d["outcomes"]
        self.assertGreater(o["dropped"], 0)
        self.assertGreater(o["ok"], 0)
        self.assertEqual((o["ok"] + o["dropped"], d["failed"]), (60, o["dropped"]))
        self.assertTrue(any(r["outcome"] == "dropped" and r["sent_ms"] is None for r in d["requests"]))

    def test_data_sets(self):
        talk = [{"role": "user", "content": "What is it?"}, {"role": "assistant", "content": "It is a thing."},
                {"role": "user", "content": "And then?"},
                {"role": "assistant", "content": None, "tool_calls": [{"id": "c", "type": "function",
                                                                       "function": {"name": "f", "arguments": "{}"}}]},
                {"role": "tool", "tool_call_id": "c", "content": "seven"}, {"role": "assistant", "content": "Seven."}]
        file = os.path.join(self.folder.name, "talks.jsonl")
        with open(file, "w", encoding="utf-8") as f:
            for _ in range(3):
                f.write(json.dumps({"messages": talk}) + "\n")
        d = self.good("--dataset", "turns", "--dataset-file", file, "--concurrency", "1", "--requests", "7", "--output-len", "4")
        self.assertEqual([r["turn"] for r in d["requests"]], [0, 1, 2, 0, 1, 2, 0])
        tokens = [r["input_tokens"] for r in d["requests"][:3]]
        self.assertEqual(tokens, sorted(set(tokens)))  # each has the ones before it
        d = self.good("--dataset", "sharegpt", "--dataset-file", file, "--concurrency", "2", "--requests", "4", "--endpoint", "completions")
        self.assertEqual(d["completed"], 4)
        d = self.good("--dataset", "turns", "--turns", "2", "--rate", "50", "--requests", "5", "--input-len", "4", "--output-len", "2")
        self.assertEqual(sorted(r["turn"] for r in d["requests"]), [0, 0, 0, 1, 1])
        d = self.good("--dataset", "shared-prefix", "--prefix-groups", "1", "--prefix-len", "120", "--concurrency", "1", "--requests", "4",
                      "--input-len", "3", "--output-len", "2", "--endpoint", "completions")
        self.assertGreater(d["requests"][3]["cached_tokens"], 0)
        self.assertGreater(d["server"]["cached_tokens"], 0)

    def test_sweep_and_ramp(self):
        d = self.good("--sweep", "--rate", "500", "--requests", "8", "--input-len", "4", "--output-len", "40")
        self.assertTrue(1 <= len(d["runs"]) <= 19)
        kept, gave = d["saturation"]["kept_up"], d["saturation"]["gave_way"]
        self.assertTrue(kept or gave)
        for run in d["runs"]:
            self.assertEqual(sum(run["outcomes"].values()), 8)
            self.assertEqual(run["saturated"], run["saturated_why"] is not None)
        d = self.good("--ramp", "50:200:200ms", "--requests", "20", "--input-len", "4", "--output-len", "2")
        self.assertEqual((d["rate"], d["rate_end"], d["completed"]), (50, 200, 20))

    def test_what_the_server_does_not_take(self):
        r = load(self.url, "--concurrency", "1", "--requests", "3", "--input-len", "5000", "--output-len", "1", "--json")
        d = json.loads(r.stdout)
        self.assertEqual((r.returncode, d["completed"], d["outcomes"]["error"]), (1, 0, 3))
        self.assertIn("no request was completed; error: ", r.stderr)
        self.assertIn("context", r.stderr)

    def test_usage(self):
        for args, message in (
                ((), "needs --concurrency C (so many at once), --rate R"),
                (("--rate", "1", "--ramp", "1:2:3s"), "--ramp: got it with --rate"),
                (("--sweep", "--ramp", "1:2:3s"), "--ramp: got it with --sweep"),
                (("--ramp", "1:2"), "--ramp: got '1:2'; allowed: R1:R2:TIME"),
                (("--rate", "1", "--slo", "x=1"), "--slo: got 'x=1'"),
                (("--rate", "1", "--input-len", "0"), "--input-len: got '0'"),
                (("--rate", "1", "--dataset", "sharegpt"), "--dataset sharegpt: needs --dataset-file FILE"),
                (("--rate", "1", "--dataset", "turns", "--endpoint", "completions"), "--dataset turns: got it with --endpoint completions"),
                (("--rate", "1", "--api-key", "a b"), "--api-key: the key has a blank")):
            r = load(self.url, *args)
            self.assertEqual((r.returncode, r.stdout), (2, ""), args)
            self.assertIn(message, r.stderr)
        for url in ("127.0.0.1:1", "ftp://h", "http://", "http://user:key@h", "http://h/v1?x"):
            r = load(url, "--rate", "1")
            self.assertEqual(r.returncode, 2, url)
            self.assertIn("--url: got", r.stderr)
        r = load(self.url, "--rate", "1", "--dataset", "turns", "--dataset-file", "/nonexistent")
        self.assertEqual(r.returncode, 3, r.stderr)

    def test_url_forms(self):
        for url in (self.url + "/", self.url + "/v1", self.url + "/v1/"):
            self.assertEqual(self.good("--concurrency", "1", "--requests", "1", "--input-len", "4", "--output-len", "1", url=url)["url"],
                             self.url)

    def test_nobody_there(self):
        r = load("http://127.0.0.1:1", "--rate", "1")
        self.assertEqual((r.returncode, r.stdout), (5, ""))
        self.assertIn("http://127.0.0.1:1: ", r.stderr)
        r = load(self.url, "--rate", "1", model="other")
        self.assertEqual((r.returncode, r.stdout), (3, ""))
        self.assertIn("--model other", r.stderr)

    def test_proxies_of_the_environment_are_not_asked(self):
        d = self.good("--concurrency", "1", "--requests", "1", "--input-len", "4", "--output-len", "1",
                      env={"http_proxy": "http://127.0.0.1:1", "all_proxy": "http://127.0.0.1:1"})
        self.assertEqual(d["completed"], 1)

    def test_ctrl_c_reports_so_far(self):
        begin = self.server.metric("capstan_generation_tokens_total")
        p = subprocess.Popen(command(self.url, "--concurrency", "2", "--requests", "1000000", "--input-len", "8", "--output-len", "20",
                                     "--warmup", "1", "--json"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                             env={k: v for k, v in os.environ.items() if k not in KEYS})
        self.server.wait(lambda: self.server.metric("capstan_generation_tokens_total") > begin + 200, "under load")
        p.send_signal(signal.SIGINT)
        out, err = p.communicate(timeout=60)
        d = json.loads(out)
        self.assertEqual((p.returncode, err, d["interrupted"]), (130, "", True))
        self.assertGreater(d["completed"], 0)
        self.assertEqual(d["outcomes"]["cancelled"], 2)
        self.assertEqual(d["failed"], 0)
        self.assertEqual(len(d["requests"]), d["completed"] + 2)


class Others(unittest.TestCase):
    def test_a_full_queue_refuses(self):
        with Server(TINY, *SMALL[:-4], "--max-seqs", "1", "--max-queue", "1", "--threads", "1") as s:
            r = load(s.url, "--concurrency", "12", "--requests", "60", "--input-len", "8", "--output-len", "100", "--endpoint",
                     "completions", "--json")
            d = json.loads(r.stdout)
        o = d["outcomes"]
        self.assertEqual((r.returncode, r.stderr), (0, ""))
        self.assertGreater(o["refused"], 0)
        self.assertGreater(o["ok"], 0)
        self.assertEqual((o["ok"] + o["refused"], d["failed"]), (60, o["refused"]))
        self.assertEqual({q["status"] for q in d["requests"] if q["outcome"] == "refused"}, {503})
        self.assertTrue(any(n.startswith("refused: ") for n in d["notes"]))

    def test_keys(self):
        args = ("--concurrency", "1", "--requests", "2", "--input-len", "4", "--output-len", "1", "--endpoint", "completions", "--json")
        with Server(TINY, *SMALL, "--api-key", "s3cret") as s:
            for given in ((), ("--api-key", "wr0ng")):
                r = load(s.url, *args, *given)
                self.assertEqual((r.returncode, r.stdout), (5, ""))
                self.assertIn("401", r.stderr)
                self.assertIn("--api-key or CAPSTAN_API_KEY gives a key", r.stderr)
                self.assertNotIn("wr0ng", r.stderr)
            for given, env in ((("--api-key", "s3cret"), {}), ((), {"CAPSTAN_API_KEY": "s3cret"})):
                r = load(s.url, *args, *given, env=env)
                self.assertEqual((r.returncode, r.stderr), (0, ""))
                self.assertNotIn("s3cret", r.stdout)
                d = json.loads(r.stdout)
                self.assertEqual((d["completed"], d["server"]["kind"]), (2, "capstan"))

    def test_a_server_that_goes_away(self):
        with Server(TINY, *SMALL) as s:
            p = subprocess.Popen(command(s.url, "--concurrency", "2", "--requests", "1000000", "--input-len", "8", "--output-len", "200",
                                         "--endpoint", "completions", "--json"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                 env={k: v for k, v in os.environ.items() if k not in KEYS})
            s.wait(lambda: s.metric("capstan_generation_tokens_total") > 300, "under load")
            s.process.kill()
            s.process.wait()
            time.sleep(0.1)
            p.send_signal(signal.SIGINT)
            d = json.loads(p.communicate(timeout=60)[0])
        self.assertGreater(d["outcomes"]["cut"], 0)
        self.assertGreater(d["outcomes"]["unreached"], 0)

    def test_bench_sse(self):
        r = subprocess.run([BIN, "bench", "sse", "20", "10", "200", "1", "--json"], capture_output=True, text=True, timeout=120, check=False)
        d = json.loads(r.stdout)
        self.assertEqual((r.returncode, d["streams"], d["tokens"], len(d["pairs"])), (0, 20, 10, 1))
        self.assertGreater(d["server_us_per_token"], 0)
        r = subprocess.run([BIN, "bench", "sse", "20", "10", "200", "1"], capture_output=True, text=True, timeout=120, check=False)
        self.assertTrue(re.search(r"median: [\d.]+ us a token, bare [\d.]+: ratio", r.stdout), r.stdout)
        r = subprocess.run([BIN, "bench", "sse", "0"], capture_output=True, text=True, timeout=120, check=False)
        self.assertEqual(r.returncode, 2)
        self.assertIn("bench sse: STREAMS: got '0'; allowed: an integer, 1..8000", r.stderr)


if __name__ == "__main__":
    unittest.main()
