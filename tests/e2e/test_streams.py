"""Concurrent streams with disconnects, for the sanitizer builds (any model: CAPSTAN_STREAM_MODEL)."""
import json
import os
import random
import unittest

from harness import Server, parallel

MODEL = os.environ["CAPSTAN_STREAM_MODEL"]


class Streams(unittest.TestCase):
    def test_streams_and_disconnects(self):
        with Server(MODEL, "--kv-bytes", "1MiB", "--ctx", "512", "--max-seqs", "12", "--threads", "2") as s:
            def work(i):
                rng = random.Random(i)
                for k in range(6):
                    body = {"prompt": f"stream {i % 5} " + "and on " * rng.randrange(40), "max_tokens": 40, "seed": k,
                            "temperature": 0.9, "ignore_eos": True, "stream": True, "n": 1 + (i + k) % 3,
                            "logprobs": 2 if k % 2 else None}
                    c = s.stream("/v1/completions", body)
                    leave = rng.random() < 0.5
                    got = b""
                    while piece := c.recv(2048):
                        got += piece
                        if b"[DONE]" in got or (leave and len(got) > rng.randrange(4000)):
                            break
                    c.close()
                    if not leave:
                        self.assertIn(b"[DONE]", got)
            parallel(16, work)
            chat = s.request("/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 4})
            self.assertEqual(chat[0], 200, chat[2])
            self.assertEqual(len(json.loads(chat[2])["choices"]), 1)
            s.wait(lambda: s.metric("capstan_sequences") == 0, "idle")
            self.assertEqual(s.metric("capstan_kv_pages", 'state="used"'), 0)
            self.assertGreater(s.metric("capstan_cancelled_total"), 0)
            s.terminate()
            self.assertEqual(s.process.wait(60), 0, s.log())
            self.assertNotIn("Sanitizer", s.log())


if __name__ == "__main__":
    unittest.main()
