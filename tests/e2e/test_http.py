"""Full connections: whatever crowd holds them, probes are answered and what is in flight goes on. Standard library only.

The server may open 300 files; each crowd has 400 connections and no key.
"""
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


if __name__ == "__main__":
    unittest.main()
