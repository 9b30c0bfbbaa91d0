"""Memory under clients that send as much as they may: many bodies of 8 MiB of deep JSON at once. What the process takes stays within
--body-bytes and a constant, every answer is 200, 400 or 503, probes are answered, and the memory comes back.

BODY_CONNECTIONS=400 python3 tests/e2e/test_budget.py Load    does more than CI does, and prints the figures."""
import json
import os
import socket
import tempfile
import threading
import time
import unittest

from harness import Server

MODEL = os.environ["CAPSTAN_STREAM_MODEL"]
CONNECTIONS = int(os.environ.get("BODY_CONNECTIONS", "40"))
MIB = 1 << 20
BODY = 8 * MIB
BUDGET = 256 * MIB
CONSTANT = 48 * MIB  # what is not counted: connections, malloc's rounding, the library's own
VALUES = 262144


def padded(begin, end, size=BODY - 1024):
    """A document of this size: a string between the two."""
    return (begin + "x" * (size - len(begin) - len(end)) + end).encode()


def nested(n, depth=60):
    one = "[" * depth + "]" * depth
    return padded('{"messages":[{"role":"user","content":"hi","deep":[' + ",".join([one] * (n // depth)) + '],"pad":"', '"}]}')


def objects(n):
    return padded('{"messages":[{"role":"user","content":"hi","many":[' + ",".join(['{"":{"":{}}}'] * (n // 3)) + '],"pad":"', '"}]}')


def calls(n, each=20000):
    args = json.dumps('{"a":[' + ",".join(["{}"] * each) + "]}")
    one = '{"type":"function","function":{"name":"f","arguments":' + args + "}}"
    return padded('{"messages":[{"role":"assistant","tool_calls":[' + ",".join([one] * (n // each)) + '],"pad":"', '"}]}')


def head(body, path="/apply-template"):
    return (f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: close\r\n"
            f"Content-Length: {len(body)}\r\n\r\n").encode()


def memory(server, field):
    with open(f"/proc/{server.process.pid}/status") as f:
        return next(int(line.split()[1]) * 1024 for line in f if line.startswith(field))


def answer(s):
    """Status of the answer and error code; 0 when the connection ended before one."""
    data = b""
    try:
        while part := s.recv(65536):
            data += part
    except OSError:
        pass
    if not data.startswith(b"HTTP/1.1 "):
        return 0, "", False
    code = data.split(b'"code":"')[1].split(b'"')[0].decode() if b'"code":"' in data else ""
    return int(data[9:12]), code, b"Retry-After" in data


class Template:
    def __enter__(self):
        self.file = tempfile.NamedTemporaryFile("w", suffix=".jinja")
        self.file.write("{% for m in messages %}{{ m.role }}{% endfor %}")
        self.file.flush()
        return self.file.name

    def __exit__(self, *_):
        self.file.close()


class Probes:
    """/livez as long as it lasts, from a thread."""

    def __init__(self, server):
        self.server, self.statuses, self.stop = server, [], False
        self.thread = threading.Thread(target=self.run)

    def run(self):
        while not self.stop or len(self.statuses) < 200:
            self.statuses.append(self.server.status("/livez"))
            time.sleep(0.005)

    def __enter__(self):
        self.thread.start()
        return self.statuses

    def __exit__(self, *_):
        self.stop = True
        self.thread.join()


class Load(unittest.TestCase):
    def burst(self, server, bodies):
        """Every connection sends all but its last byte, then all send that. Statuses and codes."""
        together = threading.Barrier(CONNECTIONS)
        answers = [None] * CONNECTIONS

        def one(i):
            body = bodies[i % len(bodies)]
            with socket.create_connection(("127.0.0.1", server.port), timeout=120) as s:
                sent = True
                try:
                    s.sendall(head(body) + body[:-1])
                except OSError:  # refused, and closed after a while
                    sent = False
                together.wait()
                try:
                    s.sendall(body[-1:] if sent else b"")
                except OSError:
                    pass
                answers[i] = answer(s)

        threads = [threading.Thread(target=one, args=(i,)) for i in range(CONNECTIONS)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        return answers

    def test_bodies_stay_within_the_budget(self):
        bodies = [nested(VALUES - 5000), objects(VALUES - 5000), calls(VALUES - 25000), nested(VALUES * 2), calls(VALUES * 2)]
        for b in bodies:
            self.assertLess(len(b), BODY)
        with Template() as t, Server(MODEL, "--chat-template-file", t, "--kv-bytes", "16MiB", "--log-level", "error") as server:
            server.request("/apply-template", bodies[0][:1000])
            base = memory(server, "VmRSS")
            with Probes(server) as probes:
                answers = self.burst(server, bodies)
                # Alone, each is answered for what it is.
                alone = []
                for b in bodies:
                    with socket.create_connection(("127.0.0.1", server.port), timeout=120) as s:
                        s.sendall(head(b) + b)
                        alone.append(answer(s))
            peak = memory(server, "VmHWM")
            end = time.monotonic() + 20
            while memory(server, "VmRSS") > base + CONSTANT and time.monotonic() < end:
                time.sleep(0.1)
            after = memory(server, "VmRSS")
            m = server.metrics()
            counts = {a: answers.count(a) for a in sorted(set(answers))}
            print(f"\n{CONNECTIONS} connections: RSS {base >> 20} MiB before, {peak >> 20} at its highest, {after >> 20} after; "
                  f"answers {counts}; {len(probes)} probes", flush=True)
            self.assertEqual(set(probes), {200})
            self.assertGreaterEqual(len(probes), 200)
            self.assertEqual([a[0] for a in alone], [200, 200, 200, 400, 400])
            self.assertEqual({a[1] for a in alone[3:]}, {"invalid_value"})
            for status, code, retry in answers:
                self.assertIn((status, code), {(200, ""), (400, "invalid_value"), (503, "overloaded")})
                self.assertEqual(retry, status == 503)
            self.assertIn(200, {a[0] for a in answers})
            self.assertLess(peak, base + BUDGET + CONSTANT)
            self.assertLess(after, base + CONSTANT)
            self.assertEqual(m["capstan_budget_limit_bytes", '{budget="bodies"}'], BUDGET)
            self.assertEqual(m["capstan_budget_bytes", '{budget="bodies"}'], 0)
            refused = m["capstan_budget_refused_total", '{budget="bodies"}']
            self.assertEqual(refused, sum(a[0] == 503 for a in answers))


if __name__ == "__main__":
    unittest.main()
