"""Traces: spans of requests at a collector, by the messages of opentelemetry-proto; what happens when it hangs, refuses or is not there."""
import base64
import http.server
import json
import os
import pathlib
import re
import subprocess
import threading
import time
import unittest

from google.protobuf import json_format
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2

from harness import BIN, Server, parallel

MODEL = str(pathlib.Path(__file__).resolve().parents[1] / "golden" / "tiny" / "llama.gguf")
ARGS = ("--alias", "tiny", "--ctx", "256", "--threads", "1", "--device", "cpu")
PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def in_bytes(value):
    """Ids are hexadecimal in OTLP's JSON, and base64 in protobuf's."""
    if isinstance(value, dict):
        return {k: base64.b64encode(bytes.fromhex(v)).decode() if k in ("traceId", "spanId", "parentSpanId") else in_bytes(v)
                for k, v in value.items()}
    return [in_bytes(v) for v in value] if isinstance(value, list) else value


class Collector(http.server.ThreadingHTTPServer):
    """answers: statuses of the next requests, then 200. hold: an event that answers wait for."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.bodies, self.answers, self.hold, self.headers = [], [], None, []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.hold:
            self.hold.set()
        self.shutdown()
        self.server_close()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}"

    def spans(self):
        """Every span as protobuf reads it, and what its resource says."""
        found = []
        for body in list(self.bodies):
            message = json_format.Parse(json.dumps(in_bytes(json.loads(body))), trace_service_pb2.ExportTraceServiceRequest())
            for r in message.resource_spans:
                for scope in r.scope_spans:
                    found += scope.spans
        return found


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.server.hold:
            self.server.hold.wait(60)
        status = self.server.answers.pop(0) if self.server.answers else 200
        if status == 200:
            self.server.bodies.append(body)
            self.server.headers.append((self.path, dict(self.headers)))
        try:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()
        except OSError:
            pass


def attributes(span):
    def value(v):
        kind = v.WhichOneof("value")
        return [value(x) for x in v.array_value.values] if kind == "array_value" else getattr(v, kind)
    return {a.key: value(a.value) for a in span.attributes}


def ask(s, headers=None, **fields):
    body = {"model": "tiny", "prompt": "abc", "max_tokens": 4, "temperature": 0, **fields}
    return s.request("/v1/completions", body, {"Content-Type": "application/json", **(headers or {})})


class Traces(unittest.TestCase):
    def until(self, condition, what):
        end = time.monotonic() + 60
        while not condition():
            self.assertLess(time.monotonic(), end, what)
            time.sleep(0.05)

    def counted(self, s, result):
        return s.metric("capstan_traces_total", f'result="{result}"')

    def test_a_hundred_requests(self):
        """Streams, whole answers, cancelled and refused ones: each is one tree of spans with the conventions' attributes."""
        with Collector() as c, Server(MODEL, *ARGS, "--otlp-endpoint", c.url) as s:
            def work(i):
                if i % 4 == 0:
                    self.assertEqual(ask(s)[0], 200)
                elif i % 4 == 1:
                    self.assertEqual(ask(s, stream=True)[0], 200)
                elif i % 4 == 2:
                    self.assertEqual(ask(s, top_p=7)[0], 400)
                else:
                    sock = s.stream("/v1/completions", {"model": "tiny", "prompt": "abc", "stream": True, "max_tokens": 250,
                                                        "ignore_eos": True})
                    sock.recv(200)
                    sock.close()
            for begin in range(0, 100, 10):
                parallel(10, lambda i, b=begin: work(b + i))
            self.until(lambda: len([x for x in c.spans() if x.kind == 2]) == 100, "100 spans of kind server")
            spans = c.spans()
            self.until(lambda: self.counted(s, "exported") == 100, "100 counted")
            self.assertEqual((self.counted(s, "dropped"), self.counted(s, "failed")), (0, 0))
        servers = {x.span_id: x for x in spans if x.kind == 2}
        self.assertEqual(len(servers), 100)
        self.assertEqual(len({x.trace_id for x in servers.values()}), 100)
        seen = {"stop": 0, "length": 0, "invalid_value": 0, "client_gone": 0}
        for x in servers.values():
            a = attributes(x)
            self.assertLess(x.start_time_unix_nano, x.end_time_unix_nano)
            self.assertLess(abs(x.end_time_unix_nano / 1e9 - time.time()), 600)
            self.assertEqual(a["http.route"], "/v1/completions")
            self.assertEqual(a["gen_ai.operation.name"], "text_completion")
            self.assertEqual(a["gen_ai.provider.name"], "capstan")
            below = [y for y in spans if y.parent_span_id == x.span_id]
            self.assertTrue(all(y.trace_id == x.trace_id and y.kind == 1 for y in below))
            if a.get("error.type") == "invalid_value":
                seen["invalid_value"] += 1
                self.assertEqual(a["http.response.status_code"], 400)
                self.assertEqual((x.status.code, below), (0, []))
                continue
            self.assertEqual(x.name, "text_completion tiny")
            self.assertEqual(a["gen_ai.request.model"], "tiny")
            self.assertEqual(a["gen_ai.usage.input_tokens"] > 0, True)
            if a.get("error.type") == "client_gone":
                seen["client_gone"] += 1
                self.assertEqual(x.status.code, 2)
                continue
            self.assertEqual([y.name for y in sorted(below, key=lambda y: y.start_time_unix_nano)], ["queue", "prefill", "decode"])
            for y in below:
                self.assertLessEqual(x.start_time_unix_nano, y.start_time_unix_nano + 1_000_000)
                self.assertLessEqual(y.end_time_unix_nano, x.end_time_unix_nano + 1_000_000)
            self.assertEqual(a["gen_ai.request.max_tokens"], 4)
            self.assertEqual(a["gen_ai.usage.output_tokens"], 4)
            self.assertEqual(a["gen_ai.response.finish_reasons"], ["length"])
            self.assertGreater(a["gen_ai.latency.time_to_first_token"], 0)
            seen["length"] += 1
        self.assertEqual(seen["invalid_value"], 25)
        self.assertEqual(seen["length"] + seen["client_gone"], 75)
        self.assertGreater(seen["client_gone"], 0)
        path, headers = c.headers[0]
        self.assertEqual((path, headers["Content-Type"]), ("/v1/traces", "application/json"))

    def test_no_text_of_requests(self):
        with Collector() as c, Server(MODEL, *ARGS, "--otlp-endpoint", c.url + "/v1/traces") as s:
            ask(s, prompt="SECRETWORD", user="SECRETUSER", stop=["SECRETSTOP"])
            self.until(lambda: c.bodies, "a span")
            self.assertNotIn(b"SECRET", b"".join(c.bodies))

    def test_context_is_passed_on(self):
        env = {"OTEL_SERVICE_NAME": "mine", "OTEL_RESOURCE_ATTRIBUTES": "k8s.pod.name=p-0,zone=z",
               "OTEL_EXPORTER_OTLP_HEADERS": "X-Token=abc"}
        with Collector() as c, Server(MODEL, *ARGS, "--otlp-endpoint", c.url, env=env) as s:
            got = ask(s, {"traceparent": PARENT, "tracestate": "a=1,b=2"})[1]["traceparent"]
            self.assertRegex(got, r"^00-4bf92f3577b34da6a3ce929d0e0e4736-[0-9a-f]{16}-01$")
            self.assertNotIn("00f067aa0ba902b7", got)
            # not sampled by who asked: nothing is sent, the trace goes on
            off = ask(s, {"traceparent": PARENT[:-1] + "0"})[1]["traceparent"]
            self.assertRegex(off, r"^00-4bf92f3577b34da6a3ce929d0e0e4736-[0-9a-f]{16}-00$")
            for bad in ("", "00-00000000000000000000000000000000-00f067aa0ba902b7-01", PARENT.upper(), PARENT + "-x", "ff" + PARENT[2:],
                        PARENT.replace("-00f0", "-00g0"), PARENT[:-1]):
                self.assertNotIn("4bf92f3577b34da6a3ce929d0e0e4736", ask(s, {"traceparent": bad})[1]["traceparent"], bad)
            self.until(lambda: len([x for x in c.spans() if x.kind == 2]) == 8, "8 spans")
            span = next(x for x in c.spans() if x.parent_span_id == bytes.fromhex("00f067aa0ba902b7"))
            self.assertEqual((span.span_id.hex(), span.trace_state), (got.split("-")[2], "a=1,b=2"))
            resource = {a["key"]: a["value"]["stringValue"]
                        for a in json.loads(c.bodies[0])["resourceSpans"][0]["resource"]["attributes"]}
            self.assertEqual((resource["service.name"], resource["k8s.pod.name"], resource["zone"]), ("mine", "p-0", "z"))
            self.assertEqual(c.headers[0][1]["X-Token"], "abc")

    def test_a_collector_that_hangs(self):
        """Requests go on; what the bound has no room for is dropped and counted; the rest arrives when it answers again."""
        with Collector() as c, Server(MODEL, *ARGS, "--otlp-endpoint", c.url) as s:
            c.hold = threading.Event()
            parallel(4, lambda i: [self.assertEqual(ask(s)[0], 200) for _ in range(25)])
            self.assertEqual((self.counted(s, "exported"), self.counted(s, "dropped")), (0, 0))
            c.hold.set()
            self.until(lambda: self.counted(s, "exported") == 100, "100 counted")
            self.assertEqual(len([x for x in c.spans() if x.kind == 2]), 100)

    def test_a_collector_that_refuses(self):
        with Collector() as c, Server(MODEL, *ARGS, "--otlp-endpoint", c.url) as s:
            c.answers = [503, 429]
            ask(s)
            self.until(lambda: self.counted(s, "exported") == 1, "sent a third time")
            c.answers = [400]
            ask(s)
            self.until(lambda: self.counted(s, "failed") == 1, "not sent again")
            self.assertIn("traces: ", s.log())

    def test_the_rest_is_sent_at_the_end(self):
        with Collector() as c, Server(MODEL, *ARGS, "--otlp-endpoint", c.url, "--drain-grace", "0s") as s:
            ask(s)
            s.terminate()
            self.assertEqual(s.process.wait(30), 0)
            self.assertEqual(len([x for x in c.spans() if x.kind == 2]), 1)

    def test_nobody_there(self):
        """No collector, and no exporter any more: requests go on, and the server ends in time."""
        with Server(MODEL, *ARGS, "--otlp-endpoint", "http://127.0.0.1:9", "--drain-grace", "0s") as s:
            self.assertEqual(ask(s)[0], 200)
            child = int(subprocess.run(["pgrep", "-P", str(s.process.pid), "capstan-traces"], capture_output=True, check=True).stdout)
            os.kill(child, 9)
            self.until(lambda: ask(s)[0] == 200 and self.counted(s, "dropped") > 1, "dropped")
            self.assertEqual(s.log().count("the process that sends traces has ended"), 1)
            s.terminate()
            self.assertEqual(s.process.wait(30), 0)

    def test_no_proxy_for_this_machine(self):
        with Collector() as c, Server(MODEL, *ARGS, "--otlp-endpoint", c.url, env={"http_proxy": "http://127.0.0.1:9", "no_proxy": ""}) as s:
            ask(s)
            self.until(lambda: self.counted(s, "exported") == 1, "sent")

    def test_urls(self):
        for url in ("localhost:4318", "ftp://x", "http://", "http://[::1", "http://a b", "http://a:b/", "http://a/\r\nX: y", "", "https://" + "a" * 1100):
            run = subprocess.run([BIN, "serve", MODEL, "--port", "0", "--otlp-endpoint", url], capture_output=True, text=True,
                                 timeout=60, check=False)
            self.assertEqual(run.returncode, 2, url)
            self.assertTrue(re.search("otlp.endpoint", run.stderr), run.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=2)
