"""What /metrics says, by a real Prometheus: promtool finds nothing wrong with the text, counters are the sums of what answers
said of themselves, and a Prometheus that scrapes under load evaluates every query of docs/OPERATIONS.md. Standard library only;
CAPSTAN_PROMETHEUS names the folder of prometheus and promtool, else they are in PATH."""
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import urllib.request

from harness import Server, parallel

HERE = os.path.dirname(os.path.abspath(__file__))
TINY = os.path.join(HERE, "..", "golden", "tiny", "llama.gguf")
PAGE = os.path.join(HERE, "..", "..", "docs", "OPERATIONS.md")
PATH = os.environ.get("CAPSTAN_PROMETHEUS", "") + ":" + os.environ["PATH"]
PROMTOOL, PROMETHEUS = (shutil.which(name, path=PATH) for name in ("promtool", "prometheus"))
if not PROMTOOL or not PROMETHEUS:
    sys.exit("promtool and prometheus are not in CAPSTAN_PROMETHEUS or PATH: scripts/prometheus prints a folder that has them")
ARGS = (TINY, "--alias", "tiny", "--kv-bytes", "64MiB")
TEXT = "/v1/completions"
# What promtool says against vLLM's names, and must say of nothing else.
COLON = "metric names should not contain ':'"
TOTAL = 'vllm:iteration_tokens_total non-counter metrics should not have "_total" suffix'


class Sums:
    """What answers say of themselves, added up from several threads."""

    def __init__(self):
        self.lock = threading.Lock()
        self.prompt = self.cached = self.completion = self.choices = 0

    def add(self, usage, choices):
        with self.lock:
            self.prompt += usage["prompt_tokens"]
            self.cached += usage["prompt_tokens_details"]["cached_tokens"]
            self.completion += usage["completion_tokens"]
            self.choices += choices


def stream_usage(got):
    """The usage of the last event that has one."""
    found = [json.loads(line[6:])["usage"] for line in got.decode().split("\n") if line.startswith("data: {") and '"usage":{' in line]
    return found[-1]


def ask(server, i, sums):
    """One request of many kinds."""
    shared = "the same beginning of many prompts, long enough for some pages of positions " * 2
    body = {"prompt": [shared + str(i % 3), "alone %d" % i, ["a", "b %d" % i], shared][i % 4], "max_tokens": 3 + i % 5, "n": 1 + i % 3,
            "ignore_eos": i % 2 == 0, "temperature": 1, "seed": i}
    if i % 5 == 1:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    status, _, answer = server.request(TEXT, body)
    assert status == 200, answer
    usage = stream_usage(answer) if "stream" in body else json.loads(answer)["usage"]
    sums.add(usage, body["n"] * (2 if isinstance(body["prompt"], list) else 1))


def cancel(server, i):
    """A stream that is left in its middle."""
    s = server.stream(TEXT, {"prompt": "left %d" % i, "max_tokens": 400, "ignore_eos": True, "stream": True, "n": 1 + i % 2})
    s.recv(2000)
    s.close()


def queries():
    """The lines of the page's block of queries that are no comments."""
    with open(PAGE, encoding="utf-8") as f:
        block = re.search(r"```promql\n(.*?)```", f.read(), re.S)[1]
    return [line for line in block.split("\n") if line and not line.startswith("#")]


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Prometheus:
    """A Prometheus that scrapes one server once a second; use as a context manager."""

    def __init__(self, server):
        self.dir = tempfile.TemporaryDirectory()
        self.url = f"http://127.0.0.1:{free_port()}"
        config = os.path.join(self.dir.name, "prometheus.yml")
        with open(config, "w", encoding="utf-8") as f:
            f.write("global: {scrape_interval: 1s}\nscrape_configs:\n- job_name: capstan\n  static_configs:\n"
                    f"  - targets: ['127.0.0.1:{server.port}']\n")
        self.log = open(os.path.join(self.dir.name, "log"), "w+", encoding="utf-8")
        self.process = subprocess.Popen([PROMETHEUS, f"--config.file={config}", f"--web.listen-address={self.url[7:]}",
                                         f"--storage.tsdb.path={self.dir.name}/data", "--log.level=warn"], stderr=self.log)

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        self.process.kill()
        self.process.wait()
        if kind:
            self.log.seek(0)
            sys.stderr.write(self.log.read())
        self.log.close()
        self.dir.cleanup()

    def query(self, q):
        """[(labels, value)], or [] while it starts."""
        try:
            with urllib.request.urlopen(self.url + "/api/v1/query?query=" + urllib.parse.quote(q), timeout=30) as r:
                return [(v["metric"], float(v["value"][1])) for v in json.load(r)["data"]["result"]]
        except OSError:
            return []

    def wait(self, q, condition):
        end = time.monotonic() + 60
        while not condition(got := self.query(q)):
            if time.monotonic() > end or self.process.poll() is not None:
                raise AssertionError(f"{q}: {got}")
            time.sleep(0.2)
        return got


class Metrics(unittest.TestCase):
    def check_text(self, text):
        run = subprocess.run([PROMTOOL, "check", "metrics"], input=text, capture_output=True, text=True, timeout=60, check=False)
        said = [line for line in run.stderr.split("\n") if line]
        self.assertIn(run.returncode, (0, 3), run.stderr)  # 1: it cannot be parsed
        left = [line for line in said if line != TOTAL and not (line.startswith("vllm:") and line.endswith(COLON))]
        self.assertEqual(left, [])
        self.assertEqual(run.returncode == 3, bool(said))

    def test_promtool_finds_nothing_wrong(self):
        with Server(*ARGS) as s:
            self.check_text(s.request("/metrics")[2].decode())
            sums = Sums()
            parallel(4, lambda i: ask(s, i, sums))
            text = s.request("/metrics")[2].decode()
            self.check_text(text)
            own = s.request("/metrics?name[]=capstan_*&name[]=process_*")[2].decode()
            self.assertNotIn("vllm", own)
            run = subprocess.run([PROMTOOL, "check", "metrics"], input=own, capture_output=True, text=True, timeout=60, check=False)
            self.assertEqual((run.returncode, run.stderr), (0, ""))
            self.assertNotIn("NaN", text)

    def check_sums(self, s, sums):
        m = s.metrics()
        for name, want in (("prompt_tokens", sums.prompt), ("prompt_tokens_cached", sums.cached), ("generation_tokens", sums.completion)):
            own = sum(v for (n, _), v in m.items() if n == f"capstan_{name}_total")
            second = sum(v for (n, _), v in m.items() if n == f"vllm:{name}_total")
            self.assertEqual((name, own, second), (name, want, want))

    def test_counters_are_the_sums_of_what_answers_say(self):
        with Server(*ARGS) as s:
            sums = Sums()
            parallel(4, lambda k: [ask(s, 15 * k + i, sums) for i in range(15)])
            self.assertGreater(sums.cached, 0)
            self.check_sums(s, sums)
            ended = s.metric("vllm:request_success_total")
            self.assertEqual(ended, sums.choices)
            self.assertEqual(s.metric("vllm:request_generation_tokens_sum"), sums.completion)
            self.assertEqual(s.metric("vllm:request_prompt_tokens_sum"), sums.prompt)
            # who leaves has no usage: what was computed for him is counted, once a prompt and once a choice
            before = s.metrics()
            parallel(4, lambda k: [cancel(s, i) for i in range(3 * k, 3 * k + 3)])
            s.wait(lambda: s.metric("vllm:num_requests_running") + s.metric("vllm:num_requests_waiting") == 0, "idle")
            key = ("vllm:request_success_total", '{engine="0",model_name="tiny",finished_reason="abort"}')
            choices = sum(1 + i % 2 for i in range(12))
            self.assertEqual(s.metrics()[key] - before[key], choices)
            self.assertEqual(s.metric("capstan_cancelled_total"), choices)
            prompts = sum(len("left %d" % i) for i in range(12))  # a token a byte
            self.assertEqual(s.metric("capstan_prompt_tokens_total"), sums.prompt + prompts)
            self.assertGreater(s.metric("capstan_generation_tokens_total"), sums.completion)
            self.assertEqual(s.metric("capstan_request_generation_tokens_sum"), s.metric("capstan_generation_tokens_total"))
            self.assertEqual(s.metric("vllm:iteration_tokens_total_sum"), s.metric("capstan_step_rows_total"))

    def test_a_prometheus_scrapes_under_load_and_answers_every_query(self):
        with Server(*ARGS) as s, Prometheus(s) as p:
            sums, stop = Sums(), threading.Event()

            def load(k):
                i = 100 * k
                while not stop.is_set():
                    ask(s, i, sums)
                    i += 1
                    time.sleep(0.02)

            threads = [threading.Thread(target=load, args=(k,)) for k in range(3)]
            for t in threads:
                t.start()
            try:
                p.wait("count_over_time(capstan_generation_tokens_total[5m])", lambda v: v and v[0][1] >= 4)
                self.assertEqual(p.query("up"), [({"__name__": "up", "instance": f"127.0.0.1:{s.port}", "job": "capstan"}, 1)])
                for q in queries():
                    run = subprocess.run([PROMTOOL, "query", "instant", p.url, q], capture_output=True, text=True, timeout=60, check=False)
                    self.assertEqual((q, run.returncode, run.stderr), (q, 0, ""))
                    self.assertIn("=>", run.stdout, q)
            finally:
                stop.set()
                for t in threads:
                    t.join()
            for family in ("capstan_", "vllm:"):
                p.wait(f"{family}generation_tokens_total", lambda v: v and v[0][1] == sums.completion)
                self.assertEqual([v for _, v in p.query(f"{family}prompt_tokens_total")], [sums.prompt])
                self.assertEqual([v for _, v in p.query(f"{family}prompt_tokens_cached_total")], [sums.cached])


if __name__ == "__main__":
    unittest.main()
