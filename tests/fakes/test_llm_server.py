"""The fake server does what its options say and writes down what it did. Standard library only; nothing here measures time."""
import http.client
import json
import os
import socket
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from llm import FakeLLM  # noqa: E402

CHAT = {"model": "fake", "messages": [{"role": "user", "content": "one two three"}], "max_tokens": 4}


def ask(fake, body, path="/v1/chat/completions", method="POST", headers=None):
    """Status, headers, body; None where the connection ended before its end, then what came of it."""
    c = http.client.HTTPConnection(fake.url[7:], timeout=60)
    c.request(method, path, None if body is None else json.dumps(body), headers or {})
    try:
        r = c.getresponse()
    except (ConnectionError, http.client.HTTPException):
        return None, {}, b""
    try:
        return r.status, r.headers, r.read()
    except http.client.IncompleteRead as e:
        return None, r.headers, e.partial
    except ConnectionError:
        return None, r.headers, b""
    finally:
        c.close()


def events(data):
    return [line[6:] for line in data.decode().split("\n") if line.startswith("data: ")]


def text(chunks):
    return "".join(c["choices"][0]["delta"].get("content", "") for c in chunks if c["choices"])


class Fake(unittest.TestCase):
    def test_a_stream_has_what_openai_says(self):
        with FakeLLM("ttft=5", "gap=1") as fake:
            _, headers, data = ask(fake, {**CHAT, "stream": True, "stream_options": {"include_usage": True}})
            self.assertEqual(headers["Content-Type"], "text/event-stream")
            *chunks, done = events(data)
            chunks = [json.loads(c) for c in chunks]
            self.assertEqual(done, "[DONE]")
            self.assertEqual(chunks[0]["choices"][0]["delta"], {"role": "assistant", "content": ""})
            self.assertEqual(text(chunks), " 0 1 2 3")
            self.assertEqual(chunks[-2]["choices"][0]["finish_reason"], "length")
            self.assertEqual(chunks[-1]["usage"], {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7})
            self.assertEqual(chunks[-1]["choices"], [])
            self.assertTrue(all(c["usage"] is None for c in chunks[:-1]))
            _, _, data = ask(fake, {"prompt": "a b", "stream": True}, "/v1/completions")
            chunks = [json.loads(c) for c in events(data)[:-1]]
            self.assertEqual(len(chunks), 17)  # 16 tokens and the finish; no usage that nobody asked for
            self.assertNotIn("usage", chunks[0])
        first, second = fake.requests()
        self.assertEqual([t for _, t in first.chunks], [1, 2, 3, 4])
        self.assertEqual((first.api, first.prompt_tokens, second.api, second.tokens), ("chat", 3, "completions", 16))
        times = [first.received, first.begun, *(t for t, _ in first.chunks), first.end]
        self.assertEqual(times, sorted(times))

    def test_a_whole_answer(self):
        with FakeLLM("ttft=1", "gap=1", "tokens=3,9", "per-chunk=2") as fake:
            for want in (3, 4):
                status, _, data = ask(fake, CHAT)
                answer = json.loads(data)
                self.assertEqual((status, answer["usage"]["completion_tokens"]), (200, want))
            self.assertEqual(answer["choices"][0]["message"]["content"], " 0 1 2 3")
            _, _, data = ask(fake, {**CHAT, "stream": True})
            self.assertEqual(len(events(data)), 5)  # role, 2 + 1 tokens, finish, [DONE]

    def test_faults_come_at_their_request(self):
        with FakeLLM("ttft=1", "gap=1", "fault=429@1", "fault=503@2+6", "fault=rst@3:2", "fault=fin@4", "fault=error@5:1",
                     "fault=nodone@6") as fake:
            stream = {**CHAT, "stream": True}
            for status in (429, 503):
                got, headers, data = ask(fake, stream)
                self.assertEqual((got, headers["Retry-After"]), (status, "1"))
                self.assertIn("error", json.loads(data))
            self.assertIsNone(ask(fake, stream)[0])
            status, _, data = ask(fake, stream)
            self.assertIsNone(status)
            self.assertEqual(text(json.loads(e) for e in events(data)), " 0 1")
            status, _, data = ask(fake, stream)
            self.assertEqual((status, "error" in json.loads(events(data)[-1])), (200, True))
            status, _, data = ask(fake, stream)
            self.assertEqual((status, len(events(data))), (200, 6))
            self.assertEqual([ask(fake, stream)[0] for _ in range(2)], [200, 503])
        self.assertEqual([r.fate for r in fake.requests()],
                         ["refused 429", "refused 503", "cut rst", "cut fin", "error", "nodone", None, "refused 503"])
        self.assertEqual([r.tokens for r in fake.requests()], [0, 0, 2, 2, 1, 4, 4, 0])

    def test_others_wait_in_line(self):
        with FakeLLM("ttft=1", "gap=30", "concurrent=1", "metrics=vllm") as fake:
            conns = []
            for i in range(3):
                s = socket.create_connection(("127.0.0.1", int(fake.url.rsplit(":", 1)[1])))
                body = json.dumps({**CHAT, "stream": True}).encode()
                s.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
                conns.append(s)
                while b"\nvllm:num_requests_waiting{model_name=\"fake\"} %d\n" % i not in ask(fake, None, "/metrics", "GET")[2]:
                    pass
            for s in conns:
                data = b""
                while b"[DONE]" not in data:
                    data += s.recv(4096)
                s.close()
        a, b, c = fake.requests()
        self.assertLess(a.end, b.begun)
        self.assertLess(b.end, c.begun)

    def test_a_stall_withholds_tokens(self):
        with FakeLLM("ttft=1", "gap=10", "stall=300:200", "tokens=60") as fake:
            ask(fake, {**CHAT, "max_tokens": 60, "stream": True})
        r, = fake.requests()
        gaps = sorted(b - a for (a, _), (b, _) in zip(r.chunks, r.chunks[1:]))
        # from the last token before a stall, which may have been late, to the first one after it
        self.assertGreaterEqual(gaps[-1], 199 - fake.late_us / 1e3)

    def test_who_never_answers_and_who_leaves(self):
        with FakeLLM("fault=never@1", "ttft=60000") as fake:
            for _ in range(2):
                s = socket.create_connection(("127.0.0.1", int(fake.url.rsplit(":", 1)[1])))
                body = json.dumps({**CHAT, "stream": True}).encode()
                s.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
                while fake.running() < 1:
                    pass
                s.close()
                while fake.running() > 0:
                    pass
        self.assertEqual([r.fate for r in fake.requests()], ["gone", "gone"])

    def test_keys_models_families_and_strangers(self):
        with FakeLLM("key=k", "model=m/1", "metrics=llamacpp", "server=x") as fake:
            key = {"Authorization": "Bearer k"}
            self.assertEqual(ask(fake, CHAT)[0], 401)
            status, headers, data = ask(fake, None, "/v1/models", "GET", key)
            self.assertEqual((status, headers["Server"], json.loads(data)["data"][0]["id"]), (200, "x", "m/1"))
            self.assertIn(b"llamacpp:requests_processing 0", ask(fake, None, "/metrics", "GET", key)[2])
            self.assertEqual(ask(fake, None, "/nowhere", "GET", key)[0], 404)
            self.assertEqual(ask(fake, [], headers=key)[0], 400)
            s = socket.create_connection(("127.0.0.1", int(fake.url.rsplit(":", 1)[1])))
            s.sendall(b"no http\r\n\r\n")
            self.assertIn(b"400", s.recv(4096))
            s.close()
        self.assertEqual(fake.requests(), [])


if __name__ == "__main__":
    unittest.main()
