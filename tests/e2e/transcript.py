"""An agent's transcript against a model with recurrent layers: how much of what a turn shares with the turn before is computed again.

    CAPSTAN_BIN=build/release/capstan transcript.py MODEL.gguf [--make SHAPE] [--turns 6] [--tokens 15000] [--answer 150]
                                                    [--opening 2] [--cold]

A turn's prompt is the last turn's prompt and answer and what a tool said since; prompts are token ids, so nothing depends on how a
template or a tokenizer writes history. With --opening N history leaves out the last N tokens of each prompt, as templates do that open
an answer with `<think>`: a turn shares the prompt before it up to there. Prints, a turn, what it shares, what the cache gave by `usage` and what was computed by the
engine's count of rows, and the checkpoints' bytes. Exit 1 where `usage` and the engine disagree, or where more is computed again than
what stands after the last page border (and, from 1,000 shared positions on, than 5 %). --cold: once more without a cache; the answers
and the bits of their log-probabilities must be the same. --make: on a model of that shape of bench/make_model.py, with random weights
and MODEL's tokenizer. Standard library only.
"""
import argparse
import itertools
import json
import os
import random
import re
import subprocess
import sys
import tempfile

from harness import Server

MAKER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "bench", "make_model.py")
PAGE = 32  # positions, of the CPU backend
WORDS = 64


class Model:
    """A served model that answers in words of its own vocabulary, whose ids are known."""

    def __init__(self, server):
        self.server, self.words = server, {}
        for i in itertools.count():
            status, _, answer = server.request("/detokenize", {"tokens": [i]})
            if status != 200 or len(self.words) == WORDS:  # a small vocabulary ends before
                return
            text = json.loads(answer)["content"]
            if re.fullmatch(r"[ A-Za-z]+", text):
                self.words.setdefault(text, i)

    def post(self, path, body):
        status, _, answer = self.server.request(path, body)
        assert status == 200, answer
        return json.loads(answer)

    def answer(self, prompt, n, seed):
        """Ids of the answer, their log-probabilities, and what `usage` says."""
        r = self.post("/v1/completions", {"prompt": prompt, "max_tokens": n, "seed": seed, "temperature": 1, "ignore_eos": True,
                                          "logprobs": 1, "logit_bias": {str(i): 100 for i in self.words.values()}})
        choice = r["choices"][0]
        return [self.words[t] for t in choice["logprobs"]["tokens"]], choice["logprobs"]["token_logprobs"], r["usage"]


def script(args):
    """(tokens that the client adds, length of the answer, seed) of each turn: a long system prompt first, then results of tools."""
    r = random.Random(args.seed)
    new = args.tokens - args.turns * args.answer
    first = new // args.turns
    parts = [first] + [new // args.turns + r.randrange(-first // 3, first // 3) for _ in range(args.turns - 1)]
    return [([r.randrange(200, 256) for _ in range(n)], args.answer + r.randrange(-args.answer // 4, args.answer // 4), i)
            for i, n in enumerate(parts)]


def play(model, turns, opening, show):
    """The answers and their bits; a line a turn, if it is to be shown, and the worst share computed again."""
    prompt, shared, said, worst = [], 0, [], 0.0
    rows = model.server.metric("capstan_step_rows_total")
    for number, (new, n, seed) in enumerate(turns, 1):
        prompt = prompt + new + [199] * opening
        ids, bits, usage = model.answer(prompt, n, seed)
        cached = usage["prompt_tokens_details"]["cached_tokens"]
        before, rows = rows, model.server.metric("capstan_step_rows_total")
        computed = int(rows - before) - (len(ids) - 1)  # the last token is in no state
        assert usage["prompt_tokens"] == len(prompt) and cached == len(prompt) - computed, (usage, computed)
        again = max(shared - cached, 0)
        if show:
            print(f"turn {number}: prompt {len(prompt):6} shares {shared:6}, cached {cached:6}, computed {computed:6}, "
                  f"again {again:4} ({100 * again / max(shared, 1):.1f} %), {len(ids)} answered, "
                  f"{model.server.metric('capstan_checkpoints'):.0f} checkpoints "
                  f"{model.server.metric('capstan_checkpoint_bytes') / 1024:.1f} KiB", flush=True)
            assert again <= PAGE, f"more than what stands after the last border of {shared}: {again}"
            assert shared < 1000 or again <= 0.05 * shared, f"{again} of {shared}"
            worst = max(worst, again / max(shared, 1))
        said.append((ids, bits))
        prompt = prompt[:len(prompt) - opening]
        shared = len(prompt) + (0 if opening else len(ids))
        prompt = prompt + ids
    return said, worst


def served(args, *more):
    return Server(args.model, "--ctx", str(args.tokens + 1024), "--max-seqs", "4", "--kv-bytes", args.kv_bytes, *more)


def transcript(args):
    turns = script(args)
    with served(args) as s:
        print(re.search(r"model \S+: architecture.*", s.log())[0])
        said, worst = play(Model(s), turns, args.opening, True)
        hits, slots = s.metric("capstan_checkpoint_hits_total"), s.metric("capstan_state_slots")
        assert hits == args.turns - 1 and slots > 0, f"{hits} hits, {slots} state slots: has the model recurrent layers?"
    if args.cold:
        with served(args, "--prefix-cache", "off") as s:
            cold, _ = play(Model(s), turns, args.opening, False)
        assert cold == said, "answers or their bits differ without the cache"
        print(f"without a cache: the same {sum(len(ids) for ids, _ in said)} tokens and log-probabilities")
    print(f"at most {100 * worst:.1f} % of what a turn shares was computed again")
    return 0


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    for name, value in (("turns", 6), ("tokens", 15000), ("answer", 150), ("seed", 26), ("opening", 0)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--kv-bytes", default="2GiB")
    parser.add_argument("--cold", action="store_true")
    parser.add_argument("--make")
    args = parser.parse_args()
    if not args.make:
        return transcript(args)
    with tempfile.TemporaryDirectory() as folder:
        source, args.model = args.model, os.path.join(folder, "made.gguf")
        subprocess.run([sys.executable, MAKER, source, args.model, args.make], check=True)
        os.environ["XDG_CACHE_HOME"] = folder  # of packed weights
        return transcript(args)


if __name__ == "__main__":
    sys.exit(main())
