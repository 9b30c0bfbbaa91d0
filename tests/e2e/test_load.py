"""bench serve against the real server on a tiny model: what is counted, what is refused, what Ctrl-C leaves, exit codes; and bench sse.
Standard library only. No figure of time is compared with another."""
import contextlib
import json
import os
import pathlib
import pty
import re
import resource
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import unittest

from harness import BIN, Server

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/fakes"))
from faults import make_tls  # noqa: E402  pylint: disable=wrong-import-position

TINY = str(ROOT / "tests/golden/tiny/llama.gguf")
SMALL = ["--alias", "tiny", "--kv-bytes", "1MiB", "--ctx", "256", "--max-seqs", "4", "--threads", "1"]
FIGURES = {"mean", "p50", "p90", "p95", "p99", "max"}
SHAPE = {"completed", "failed", "duration_s", "output_tok_s", "ttft_ms", "itl_ms", "tpot_ms", "e2e_ms"}
KEYS = ("CAPSTAN_API_KEY", "CAPSTAN_URL", "CAPSTAN_MODEL", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR")


def command(url, *args, model="tiny"):
    return [BIN, "bench", "serve", "--url", url, "--model", model, *args]


def load(url, *args, env=None, files=None, **kw):
    """The finished process. What the environment says of these things is not for it."""
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

    def test_prompts_that_the_server_knows(self):
        args = ("--concurrency", "1", "--requests", "3", "--input-len", "120", "--output-len", "1", "--seed", "77")
        notes = [[n for n in self.good(*args)["notes"] if "prefix cache" in n] for _ in range(2)]
        self.assertEqual((len(notes[0]), len(notes[1])), (0, 1), notes)
        self.assertIn("it has seen prompts of this --seed before", notes[1][0])

    def test_sweep_and_ramp(self):
        d = self.good("--sweep", "--rate", "500", "--requests", "8", "--input-len", "4", "--output-len", "40")
        self.assertTrue(1 <= len(d["runs"]) <= 19)
        kept, gave = d["saturation"]["kept_up"], d["saturation"]["gave_way"]
        self.assertTrue(kept or gave)
        for run in d["runs"]:
            self.assertEqual(sum(run["outcomes"].values()), 8)
            self.assertEqual(run["saturated"], run["saturated_why"] is not None)
        d = self.good("--sweep", "--rate", "100000", "--requests", "8", "--input-len", "4", "--output-len", "40")
        self.assertTrue(d["runs"][0]["saturated"])  # no server does that: the search goes down
        self.assertLess(d["runs"][1]["rate"], 100000)
        d = self.good("--ramp", "50:200:200ms", "--requests", "20", "--input-len", "4", "--output-len", "2")
        self.assertEqual((d["rate"], d["rate_end"], d["completed"]), (50, 200, 20))

    def test_what_the_server_does_not_take(self):
        r = load(self.url, "--dataset", "turns", "--turns", "3", "--concurrency", "1", "--requests", "6", "--input-len", "5000",
                 "--output-len", "1", "--json")
        d = json.loads(r.stdout)
        self.assertEqual((r.returncode, d["outcomes"]["error"], [q["turn"] for q in d["requests"]]), (1, 2, [0, 0]))
        self.assertIn("4 turns of conversations were not asked: the one before them failed", d["notes"])
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
        self.assertLessEqual(d["outcomes"]["cut"], 2)  # the two that were out, unless they had no answer yet
        self.assertGreater(d["outcomes"]["unreached"], 0)
        self.assertEqual(d["failed"], d["outcomes"]["cut"] + d["outcomes"]["unreached"])

    def test_bench_sse(self):
        r = subprocess.run([BIN, "bench", "sse", "20", "10", "200", "1", "--json"], capture_output=True, text=True, timeout=120, check=False)
        d = json.loads(r.stdout)
        self.assertEqual((r.returncode, d["streams"], d["tokens"], len(d["pairs"])), (0, 20, 10, 1))
        self.assertGreater(d["server_us_per_token"], 0)
        r = subprocess.run([BIN, "bench", "sse", "20", "10", "200", "1"], capture_output=True, text=True, timeout=120, check=False)
        self.assertTrue(re.search(r"median: [\d.]+ us a token, bare [\d.]+: ratio", r.stdout), r.stdout)
        with tempfile.TemporaryDirectory() as folder:
            audit = os.path.join(folder, "audit")
            r = subprocess.run([BIN, "bench", "sse", "20", "10", "200", "1", "--json", "--audit-log", audit, "--otlp-endpoint",
                                "http://127.0.0.1:9", "--log-format", "json"], capture_output=True, text=True, timeout=120, check=False)
            self.assertEqual((r.returncode, len(json.loads(r.stdout)["pairs"])), (0, 1), r.stderr)
            with open(audit, encoding="utf-8") as lines:
                self.assertEqual([json.loads(line)["status"] for line in lines], [200] * 20)
            self.assertIn("did not take 20 requests' spans", r.stderr)  # there is no collector
        r = subprocess.run([BIN, "bench", "sse", "0"], capture_output=True, text=True, timeout=120, check=False)
        self.assertEqual(r.returncode, 2)
        self.assertIn("bench sse: STREAMS: got '0'; allowed: an integer, 1..8000", r.stderr)


    def test_progress_on_a_terminal(self):
        with Server(TINY, *SMALL) as s:
            master, slave = pty.openpty()
            p = subprocess.Popen(command(s.url, "--concurrency", "1", "--requests", "200", "--input-len", "4", "--output-len", "60",
                                         "--endpoint", "completions", "--json"), stdout=subprocess.PIPE, stderr=slave,
                                 env={**{k: v for k, v in os.environ.items() if k not in KEYS}, "TERM": "xterm"})
            os.close(slave)
            seen = b""
            with contextlib.suppress(OSError):  # the other end is closed
                while piece := os.read(master, 4096):
                    seen += piece
            os.close(master)
            out, _ = p.communicate(timeout=60)
        self.assertEqual((p.returncode, json.loads(out)["completed"]), (0, 200))
        text = seen.decode()
        self.assertIn("asking the server", text)
        self.assertRegex(text, r"measuring: \d+ of 200, 1 out, \d+ tokens/s, \d+ s")
        self.assertTrue(text.endswith("\r\x1b[K"), repr(text[-60:]))


EVENT = 'data: {"choices":[{"delta":{"content":"a"}}]}\n\n'
HEAD = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
GOOD = EVENT + 'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'


class Hostile:
    """A server whose requests for completions are answered well once and then by `answer(socket)`, each on a new connection."""

    def __init__(self, answer, tls=None):
        self.answer, self.asked = answer, 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.listener.getsockname()[1]}"
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*tls)
            self.listener = context.wrap_socket(self.listener, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=self.serve, args=(self.listener.accept()[0],), daemon=True).start()

    def serve(self, s):
        with s, contextlib.suppress(OSError, ValueError):
            if isinstance(s, ssl.SSLSocket):
                s.do_handshake()
            got = b""
            while b"\r\n\r\n" not in got:
                got += s.recv(65536)
            length = int((re.search(rb"content-length: *(\d+)", got, re.I) or [0, 0])[1])
            while len(got.split(b"\r\n\r\n", 1)[1]) < length:
                got += s.recv(65536)
            if b"completions" not in got.split(b"\r\n")[0]:
                s.sendall(b"HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
                return
            self.asked += 1
            if self.asked > 1:
                self.answer(s)
            else:
                s.sendall((HEAD + "Connection: close\r\n\r\n" + GOOD).encode())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.listener.close()


def endless(head, block):
    def answer(s):
        s.sendall(head.encode())
        for _ in range(1 << 20):
            s.sendall(block)
    return answer


def once(text):
    return lambda s: s.sendall(text.encode())


BLOCK = b"x" * 65536
HOSTILE = {  # what it answers, what that is counted as, what is said of it
    "a head without an end": (endless("HTTP/1.1 200 OK\r\n", b"X-A: " + b"a" * 1000 + b"\r\n"), "unreached|error", "head"),
    "a header line without an end": (endless("HTTP/1.1 200 OK\r\nX-A: ", BLOCK), "cut|error", ""),
    "an event without an end": (endless(HEAD + "\r\ndata: ", BLOCK), "error", "too large"),
    "data lines without an end": (endless(HEAD + "\r\n", b"data: " + b"x" * 1000 + b"\n"), "error", "too large"),
    "an error without an end": (endless("HTTP/1.1 500 No\r\n\r\n", BLOCK), "error", "xxx"),
    "no stream, without an end": (endless("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n", BLOCK), "error", "no event stream"),
    "no HTTP": (once("SSH-2.0-OpenSSH_9.2\r\n"), "unreached", ""),
    "nothing": (once(""), "unreached", ""),
    "no JSON": (once(HEAD + "Connection: close\r\n\r\n" + EVENT + "data: <html>\n\n" + GOOD), "error", "<html>"),
    "no end": (once(HEAD + "Connection: close\r\n\r\n" + EVENT), "cut", "without [DONE]"),
    "a length that is not kept": (once(HEAD + "Content-Length: 1000\r\n\r\n" + EVENT), "cut", ""),
    "a chunk that is none": (once(HEAD + "Transfer-Encoding: chunked\r\n\r\nzz\r\n"), "cut", ""),
    "a redirect": (once("HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"), "error", ""),
    "control characters": (once("HTTP/1.1 400 No\r\nContent-Length: 12\r\n\r\n\x1b[2Jhello\r\n\0"), "error", "?[2Jhello"),
    "too slow": (lambda s: time.sleep(30), "timeout", "timed out"),
    "a stall": (lambda s: (s.sendall((HEAD + "\r\n" + EVENT).encode()), time.sleep(30)), "timeout", "timed out"),
}


class AgainstHostile(unittest.TestCase):
    def test_every_answer_is_counted_in_bounded_memory(self):
        for name, (answer, outcomes, said) in HOSTILE.items():
            with self.subTest(name), Hostile(answer) as s:
                p = subprocess.Popen(command(s.url, "--concurrency", "4", "--requests", "8", "--input-len", "4", "--output-len", "4",
                                             "--timeout", "1s" if "timeout" in outcomes else "60s", "--json"),
                                     stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                     env={k: v for k, v in os.environ.items() if k not in KEYS})
                with p.stdout, p.stderr:
                    out, err = p.stdout.read(), p.stderr.read()
                _, status, usage = os.wait4(p.pid, 0)
                p.returncode = os.waitstatus_to_exitcode(status)
                d = json.loads(out)
                self.assertEqual((p.returncode, d["completed"], d["failed"]), (1, 0, 8), err)
                self.assertIn(8, [d["outcomes"][o] for o in outcomes.split("|")], d["outcomes"])
                self.assertTrue(any(said in n for n in d["notes"]), d["notes"])
                self.assertFalse(any(ord(c) < 32 for n in d["notes"] for c in n), d["notes"])
                self.assertLess(usage.ru_maxrss, 160 << 10)  # KiB; 4 MiB a stream is the longest event

    def test_tls(self):
        args = ("--concurrency", "2", "--requests", "4", "--input-len", "4", "--output-len", "1", "--json")
        with tempfile.TemporaryDirectory() as folder:
            certificate, key, ca, other = make_tls(folder)
            with Hostile(once(HEAD + "Connection: close\r\n\r\n" + GOOD), (certificate, key)) as s:
                for given, env in (((), {}), (("--ca-file", other), {}), ((), {"SSL_CERT_FILE": str(other)})):
                    r = load(s.url, *args, *given, env=env)
                    self.assertEqual((r.returncode, r.stdout), (5, ""), r.stderr)
                    self.assertIn("--ca-file names further authorities", r.stderr)
                for given, env in ((("--ca-file", ca), {}), ((), {"SSL_CERT_FILE": str(ca)}), ((), {"CURL_CA_BUNDLE": str(ca)})):
                    r = load(s.url, *args, *given, env=env)
                    self.assertEqual((r.returncode, r.stderr), (0, ""))
                    self.assertEqual(json.loads(r.stdout)["completed"], 4)
                r = load(s.url, *args, "--ca-file", "/nonexistent")
                self.assertEqual((r.returncode, r.stdout), (2, ""))


if __name__ == "__main__":
    unittest.main()
