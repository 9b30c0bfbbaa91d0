"""Full connections: whatever crowd holds them, probes are answered and what is in flight goes on. And what every kind of
request is answered with, errors as JSON, and which of them leave the connection open. Standard library only.

The server may open 300 files; each crowd has 400 connections and no key.
"""
import gzip
import json
import os
import socket
import time
import unittest

from harness import Server

MODEL = os.environ["CAPSTAN_STREAM_MODEL"]
CROWD, PROBES, FILES = 400, 220, 300
HEAD = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer k\r\nContent-Type: application/json\r\n"
STREAM = b'{"prompt":"a","max_tokens":100,"ignore_eos":true,"stream":true,"n":8}'


def connect(port, data=b""):
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # of one that does not read
    s.settimeout(8)  # below the 10 s after which a silent crowd is gone by itself
    s.connect(("127.0.0.1", port))
    if data:
        s.sendall(data)
    return s


def ask(s, path):
    """Status and body; the connection ends with the answer."""
    answer = b""
    with s:
        s.sendall(b"GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n" % path.encode())
        while data := s.recv(65536):
            answer += data
    return int(answer.split(b" ", 2)[1]), answer.split(b"\r\n\r\n", 1)[1]


class FullConnections(unittest.TestCase):
    def probe(self, s):
        """Every probe is answered; returns their times in seconds, in order."""
        times = []
        for i in range(PROBES):
            begin = time.monotonic()
            status, _ = ask(connect(s.port), ("/livez", "/readyz")[i % 2])
            self.assertEqual(status, 200, f"probe {i}")
            times.append(time.monotonic() - begin)
        return sorted(times)

    def test_probes_beside_crowds(self):
        crowds = {
            "none": (0, b""),
            "silent": (CROWD, b""),
            "half heads": (CROWD, HEAD),
            "half bodies": (CROWD, HEAD + b"Content-Length: 100\r\n\r\n{"),
            "slow readers": (CROWD, HEAD + b"Content-Length: %d\r\n\r\n" % len(STREAM) + STREAM),
        }
        with Server(MODEL, "--api-key", "k", files=FILES) as s:
            for name, (n, data) in crowds.items():
                with self.subTest(name):
                    crowd = [connect(s.port, data) for _ in range(n)]
                    if name in ("half bodies", "slow readers"):
                        s.wait(lambda: ask(connect(s.port), "/v1/models")[0] == 503, "full of requests in flight")
                    times = self.probe(s)
                    if os.environ.get("CAPSTAN_SHOW_TIMES"):
                        print(f"{name}: p50 {times[len(times) // 2] * 1e3:.2f} ms, p99 {times[-3] * 1e3:.2f} ms")
                    for c in crowd:
                        c.close()
            s.wait(lambda: s.request("/v1/models", headers={"X-Api-Key": "k"})[0] == 200, "free again")

    def test_requests_in_flight_are_not_closed_for_others(self):
        with Server(MODEL, "--max-connections", "8") as s:
            body = b'{"prompt":"a","max_tokens":2}'
            half = [connect(s.port, HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body[:5]) for _ in range(8)]
            s.wait(lambda: ask(connect(s.port), "/v1/models")[0] == 503, "full")
            crowd = [connect(s.port) for _ in range(CROWD)]
            self.probe(s)
            for c in half:
                c.sendall(body[5:])
                self.assertTrue(c.recv(65536).startswith(b"HTTP/1.1 200 "))
            for c in half + crowd:
                c.close()


JSON = "Content-Type: application/json"
TEXT = "/v1/completions"
GOOD = b'{"prompt":"a","max_tokens":1}'
# method, path, headers, body, status, error code; the connection is kept.
KEPT = [
    ("GET", "/", [], None, 404, "not_found"),
    ("GET", "//health", [], None, 404, "not_found"),
    ("GET", "/v1//models", [], None, 404, "not_found"),
    ("GET", "/v1/models//", [], None, 404, "not_found"),
    ("GET", "/v1/models", [], None, 200, None),
    ("GET", "/v1/models/", [], None, 200, None),
    ("GET", "/v1/models/x/", [], None, 404, "model_not_found"),
    ("GET", "/v1/models/%zz", [], None, 404, "model_not_found"),
    ("GET", "http://localhost/health", [], None, 200, None),
    ("GET", "/health", ["Accept: image/png"], None, 200, None),
    ("GET", "/health?a=b", [], None, 200, None),
    ("HEAD", "/health", [], None, 200, None),
    ("HEAD", "/v1/models", [], None, 200, None),
    ("HEAD", TEXT, [], None, 405, "method_not_allowed"),
    ("HEAD", "/x", [], None, 404, "not_found"),
    ("GET", TEXT, [], None, 405, "method_not_allowed"),
    ("PUT", TEXT, [JSON], GOOD, 405, "method_not_allowed"),
    ("PATCH", TEXT, [JSON], GOOD, 405, "method_not_allowed"),
    ("DELETE", TEXT, [], None, 405, "method_not_allowed"),
    ("OPTIONS", TEXT, [], None, 405, "method_not_allowed"),
    ("OPTIONS", "*", [], None, 404, "not_found"),
    ("POST", "/health", [JSON], GOOD, 405, "method_not_allowed"),
    ("POST", "/x", [JSON], GOOD, 404, "not_found"),
    ("POST", TEXT, [JSON], GOOD, 200, None),
    ("POST", TEXT + "/", [JSON], GOOD, 200, None),
    ("POST", TEXT, [], GOOD, 200, None),
    ("POST", TEXT, ["Content-Type: text/plain"], GOOD, 200, None),
    ("POST", TEXT, ["Content-Type: application/x-www-form-urlencoded"], GOOD, 200, None),
    ("POST", TEXT, ["Content-Type: application/json; charset=utf-8", "Accept: text/html"], GOOD, 200, None),
    ("POST", TEXT, [JSON, "Content-Encoding: identity"], GOOD, 200, None),
    ("POST", TEXT, [JSON, "Content-Encoding: gzip"], gzip.compress(GOOD), 400, "invalid_value"),
    ("POST", TEXT, [JSON, "Expect: 100-continue"], GOOD, 200, None),
    ("POST", TEXT, ["Content-Type: text/plain", "Origin: http://evil.example"], GOOD, 403, "permission_denied"),
    ("GET", "/health", ["Host: evil.example"], None, 403, "permission_denied"),
    ("POST", TEXT, [JSON], None, 400, "invalid_json"),
    ("POST", TEXT, [JSON], b"", 400, "invalid_json"),
    ("POST", TEXT, [JSON], b"{", 400, "invalid_json"),
    ("POST", TEXT, [JSON], b"{}", 400, "missing_field"),
    ("POST", TEXT, [JSON], b'{"prompt":"a","n":0}', 400, "invalid_value"),
    ("POST", TEXT, [JSON], b'{"prompt":"a","guided_regex":"a"}', 400, "unsupported_field"),
    ("POST", TEXT, [JSON], b'{"prompt":"a","max_tokens":100000}', 400, "context_length_exceeded"),
    ("POST", TEXT, [JSON], b'{"prompt":"a","model":"no"}', 404, "model_not_found"),
]
# Bytes whose framing leaves doubt, or that nobody should send on: answered, and closed.
CLOSED = [
    (b"GET /health HTTP/1.0\r\n\r\n", 403, "permission_denied"),
    (b"GET /health HTTP/1.0\r\nHost: localhost\r\n\r\n", 200, None),
    (b"POST /v1/completions HTTP/1.0\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s" % (len(GOOD), GOOD), 200, None),
    (b"GET /x HTTP/1.0\r\nHost: localhost\r\n\r\n", 404, "not_found"),
    (b"TRACE / HTTP/1.1\r\nHost: localhost\r\n\r\n", 501, "invalid_value"),
    (b"CONNECT a:1 HTTP/1.1\r\nHost: localhost\r\n\r\n", 501, "invalid_value"),
    (b"get /health HTTP/1.1\r\nHost: localhost\r\n\r\n", 501, "invalid_value"),
    (b"GET /health HTTP/2.0\r\nHost: localhost\r\n\r\n", 505, "invalid_value"),
    (b"GET /health HTTP/1.1\r\nHost: localhost\r\nExpect: x\r\n\r\n", 417, "invalid_value"),
    (b"GET /health HTTP/1.1\r\n\r\n", 400, "invalid_value"),
    (b"garbage\r\n\r\n", 400, "invalid_value"),
    (b"GET /%s HTTP/1.1\r\nHost: localhost\r\n\r\n" % (b"a" * 9000), 414, "invalid_value"),
    (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: %s\r\n\r\n" % (b"a" * 40000), 431, "invalid_value"),
    (b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501, "invalid_value"),
    (b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999\r\n\r\n", 413, "payload_too_large"),
]


class Answers(unittest.TestCase):
    def read(self, f, head=False):
        """Status, header lines in lower case, body; of an answer with a length."""
        status = int(f.readline().split()[1])
        headers = {}
        while line := f.readline().strip():
            name, _, value = line.decode().partition(":")
            headers[name.lower()] = value.strip()
        if status == 100:
            return self.read(f, head)
        return status, headers, b"" if head else f.read(int(headers["content-length"]))

    def check(self, got, status, code):
        self.assertEqual(got[0], status, got)
        self.assertEqual(got[1]["content-type"], "application/json")
        self.assertIn("x-request-id", got[1])
        if status == 405:
            self.assertIn(got[1]["allow"], ("POST", "GET, HEAD"))
        if code and got[2]:
            error = json.loads(got[2])["error"]
            self.assertEqual(error["code"], code)
            self.assertTrue(error["message"] and error["type"])

    def test_every_kind_of_answer(self):
        with Server(MODEL, "--ctx", "64") as s, connect(s.port) as one, one.makefile("rb") as f:
            for method, path, headers, body, status, code in KEPT:
                with self.subTest(f"{method} {path} {headers} {body}"):
                    lines = [*headers, *([] if body is None else [f"Content-Length: {len(body)}"])]
                    if not any(h.startswith("Host") for h in headers):
                        lines.insert(0, "Host: localhost")
                    one.sendall("\r\n".join([f"{method} {path} HTTP/1.1", *lines, "", ""]).encode() + (body or b""))
                    self.check(self.read(f, method == "HEAD"), status, code)
            for data, status, code in CLOSED:
                with self.subTest(data[:60]), connect(s.port, data) as c, c.makefile("rb") as g:
                    self.check(self.read(g), status, code)
                    self.assertEqual(g.read(), b"")
            # 1.0: kept where it is asked for; a stream ends with the connection, without chunks.
            with connect(s.port) as c, c.makefile("rb") as g:
                for path, status, code in (("/health", 200, None), ("/x", 404, "not_found"), ("/health", 200, None)):
                    c.sendall(f"GET {path} HTTP/1.0\r\nHost: localhost\r\nConnection: keep-alive\r\n\r\n".encode())
                    self.check(self.read(g), status, code)
            body = b'{"prompt":"a","max_tokens":2,"stream":true}'
            with connect(s.port, b"POST /v1/completions HTTP/1.0\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)) as c:
                data = c.makefile("rb").read()
                self.assertNotIn(b"chunked", data)
                self.assertTrue(data.endswith(b"data: [DONE]\n\n"))


if __name__ == "__main__":
    unittest.main()
