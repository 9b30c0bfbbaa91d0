"""Sampling parameters at both ends of their ranges, alone and in pairs, on real logits: an answer with finite
log-probabilities, or 400 by name for what is outside; never the model's fault. And what is counted as sampled. Standard
library only."""
import itertools
import json
import math
import os
import unittest

from harness import Server, parallel

MODEL = os.environ["CAPSTAN_MODEL"]
IDS = range(0, 1000)
INSIDE = [
    {"temperature": 0}, {"temperature": 1e-40}, {"temperature": 1e-30}, {"temperature": 9e-6}, {"temperature": 1.1e-5},
    {"temperature": 1e-4}, {"temperature": 2}, {"top_p": 0}, {"top_p": 1e-45}, {"top_p": 5e-324}, {"top_p": 0.9999999},
    {"min_p": 1e-45}, {"min_p": 1e-30}, {"min_p": 1.1e-30}, {"min_p": 0.9999999}, {"min_p": 1}, {"top_k": -1},
    {"top_k": 1}, {"top_k": 2147483647}, {"repetition_penalty": 0.01}, {"repetition_penalty": 10},
    {"presence_penalty": -2}, {"presence_penalty": 2}, {"frequency_penalty": -2}, {"frequency_penalty": 2},
    {"seed": -9223372036854775808}, {"seed": 9223372036854775807}, {"min_tokens": 4},
    {"logit_bias": {str(i): 100 for i in IDS}}, {"logit_bias": {str(i): -100 for i in IDS}},
    {"logit_bias": {str(i): 5e-324 for i in IDS}},
]
OUTSIDE = [
    {"temperature": -5e-324}, {"temperature": 2.0000001}, {"temperature": 1e308}, {"top_p": -1e-45}, {"top_p": 1.0000001},
    {"min_p": -1e-45}, {"min_p": 1.0000001}, {"top_k": -2}, {"top_k": 2147483648}, {"repetition_penalty": 0},
    {"repetition_penalty": 1e-38}, {"repetition_penalty": 0.0099}, {"repetition_penalty": 10.001},
    {"repetition_penalty": 1e38}, {"presence_penalty": -2.001}, {"presence_penalty": 1e300},
    {"frequency_penalty": -1e300}, {"frequency_penalty": 2.001}, {"seed": 9223372036854775808},
    {"logit_bias": {"1": 100.001}}, {"logit_bias": {"1": -1e300}},
]
PROMPT = "the the the the cat sat on the mat, and the "


class Extremes(unittest.TestCase):
    def ask(self, s, fields):
        body = {"prompt": PROMPT, "max_tokens": 4, "logprobs": 2, **fields}
        status, _, data = s.request("/v1/completions", body)
        return status, json.loads(data)

    def good(self, s, fields):
        status, answer = self.ask(s, fields)
        self.assertEqual(status, 200, (fields, answer))
        for p in answer["choices"][0]["logprobs"]["token_logprobs"]:
            self.assertTrue(math.isfinite(p) and p <= 0, (fields, p))

    def test_both_ends(self):
        pairs = [{**a, **b} for a, b in itertools.combinations(INSIDE, 2) if a.keys() != b.keys()]
        rows = INSIDE + pairs
        with Server(MODEL, "--ctx", "256") as s:
            parallel(8, lambda k: [self.good(s, row) for row in rows[k::8]])
            for row in OUTSIDE:
                with self.subTest(row):
                    status, answer = self.ask(s, row)
                    self.assertEqual((status, answer["error"]["code"], answer["error"]["param"]),
                                     (400, "invalid_value", next(iter(row))))

    def test_penalties_over_a_long_output(self):
        rows = [{"prompt": PROMPT * 20, "max_tokens": 64, "ignore_eos": True, "temperature": t, "presence_penalty": p,
                 "frequency_penalty": f, "repetition_penalty": r}
                for t, p, f, r in itertools.product((0, 1e-4, 2), (-2, 2), (-2, 2), (0.01, 10))]
        with Server(MODEL) as s:
            parallel(8, lambda k: [self.good(s, row) for row in rows[k::8]])


class Usage(unittest.TestCase):
    def test_counts_agree(self):
        """The answer's count, a stream's, and the metric's are one, whatever ends the text."""
        with Server(MODEL, "--ctx", "512") as s:
            def count(finish, **fields):
                body = {"messages": [{"role": "user", "content": "Say hello."}], "temperature": 0, **fields}
                before = s.metric("capstan_generation_tokens_total")
                answer = json.loads(s.request("/v1/chat/completions", body)[2])
                n = answer["usage"]["completion_tokens"]
                self.assertEqual(answer["choices"][0]["finish_reason"], finish)
                self.assertEqual(s.metric("capstan_generation_tokens_total") - before, n)
                lines = s.request("/v1/chat/completions",
                                  {**body, "stream": True, "stream_options": {"include_usage": True}})[2].split(b"\n\n")
                self.assertEqual(json.loads(lines[-3][6:])["usage"], {**answer["usage"], "prompt_tokens_details":
                                 json.loads(lines[-3][6:])["usage"]["prompt_tokens_details"]})
                return n, answer["choices"][0]["message"]["content"]

            n, text = count("stop", max_tokens=400)
            shown = json.loads(s.request("/tokenize", {"content": text, "add_special": False})[2])["tokens"]
            self.assertEqual(n, len(shown) + 1)  # and the end
            self.assertEqual(count("stop", max_tokens=n)[0], n)
            self.assertEqual(count("length", max_tokens=n - 1), (n - 1, text))
            self.assertEqual(count("length", max_tokens=n + 3, ignore_eos=True)[0], n + 3)
            self.assertEqual(count("stop", stop_token_ids=[shown[2]], max_tokens=400)[0], shown.index(shown[2]) + 1)


if __name__ == "__main__":
    unittest.main()
