"""Clients that leave: queued, in prefill, in mid-stream. After capstan_cancelled_total has moved, nothing goes on."""
import os
import time
import unittest

from harness import Server

MODEL = os.environ["CAPSTAN_MODEL"]
ROUNDS = int(os.environ.get("CAPSTAN_DISCONNECTS", "50"))


class Disconnect(unittest.TestCase):
    def settled(self, s, cancelled):
        """Wait for the count, then nothing may move: at most one more step, pages back."""
        s.wait(lambda: s.metric("capstan_cancelled_total") >= cancelled, f"{cancelled} cancelled")
        steps = s.metric("capstan_engine_steps_total")
        s.wait(lambda: s.metric("capstan_sequences") == 0, "idle")
        time.sleep(0.2)
        self.assertLessEqual(s.metric("capstan_engine_steps_total") - steps, 1)
        self.assertEqual(s.metric("capstan_kv_pages", 'state="used"'), 0)

    def leave(self, s, body, phase):
        for _ in range(ROUNDS):
            before = s.metric("capstan_cancelled_total")
            c = s.stream("/v1/completions", body)
            s.wait(lambda: phase(s, c), "in its phase")
            c.close()
            self.settled(s, before + 1)

    def test_in_mid_stream(self):
        with Server(MODEL, "--kv-bytes", "256MiB") as s:
            self.leave(s, {"prompt": "Once upon a time", "max_tokens": 4000, "ignore_eos": True, "stream": True},
                       lambda s, c: b"data:" in c.recv(4096))

    def test_in_prefill(self):
        with Server(MODEL, "--kv-bytes", "1GiB", "--prefix-cache", "off", "--max-batch-rows", "16") as s:
            self.leave(s, {"prompt": "word " * 4000, "max_tokens": 4},
                       lambda s, c: s.metric("capstan_sequences", 'state="prefill"') == 1)

    def test_queued(self):
        with Server(MODEL, "--kv-bytes", "512MiB", "--max-seqs", "1") as s:
            long = {"prompt": "Once upon a time", "max_tokens": 8000, "ignore_eos": True, "stream": True}
            holder = s.stream("/v1/completions", long)
            holder.recv(4096)
            for i in range(ROUNDS):
                if s.metric("capstan_sequences", 'state="decode"') == 0:
                    holder = s.stream("/v1/completions", long)
                    holder.recv(4096)
                before = s.metric("capstan_cancelled_total")
                c = s.stream("/v1/completions", {"prompt": f"Number {i}", "max_tokens": 4})
                s.wait(lambda: s.metric("capstan_sequences", 'state="waiting"') == 1, "queued")
                c.close()
                s.wait(lambda: s.metric("capstan_cancelled_total") > before, "cancelled")
                self.assertEqual(s.metric("capstan_sequences", 'state="waiting"'), 0)
            before = s.metric("capstan_cancelled_total")
            holder.close()
            self.settled(s, before + 1)


if __name__ == "__main__":
    unittest.main()
