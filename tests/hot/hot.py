"""What the tests of models that come and go share: the host, streams that go on until they are told to stop, memory."""
import itertools
import json
import os
import re
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e"))
from harness import Server  # noqa: E402  pylint: disable=wrong-import-position


class Host(Server):
    """hot_host (CAPSTAN_BIN): a Server that takes commands."""

    def __init__(self, *args, **more):
        self.ids, self.answers, self.news = itertools.count(), {}, threading.Condition()
        super().__init__(*args, commands=True, ready=False, **more)
        self.listener = threading.Thread(target=self.listen, daemon=True)
        self.listener.start()
        self.wait_ready()

    def listen(self):
        for line in self.process.stdout:
            number, _, answer = line.decode().strip().partition(" ")
            with self.news:
                self.answers[int(number)] = answer
                self.news.notify_all()

    def begin(self, *words):
        """A command; .end(what it returns) waits for its answer."""
        number = next(self.ids)
        self.process.stdin.write(" ".join(map(str, (number, *words))).encode() + b"\n")
        self.process.stdin.flush()
        return number

    def end(self, number, seconds=600):
        with self.news:
            if not self.news.wait_for(lambda: number in self.answers or self.process.poll() is not None, seconds):
                raise AssertionError(f"command {number} has no answer: {self.log()}")
            return self.answers.pop(number, f"the host ended: {self.log()}")

    def do(self, *words):
        return self.end(self.begin(*words))

    def anonymous(self):
        """Bytes of anonymous memory."""
        with open(f"/proc/{self.process.pid}/smaps_rollup", encoding="ascii") as f:
            return int(re.search(r"^Anonymous: +(\d+) kB", f.read(), re.M)[1]) << 10

    def mapped(self, *names):
        """The files of these names (or parts of them) that are mapped or open."""
        found = set()
        with open(f"/proc/{self.process.pid}/maps", encoding="utf-8") as f:
            found |= {line.split()[-1] for line in f if len(line.split()) > 5}
        folder = f"/proc/{self.process.pid}/fd"
        for fd in os.listdir(folder):
            try:
                found.add(os.readlink(os.path.join(folder, fd)))
            except FileNotFoundError:  # closed meanwhile
                pass
        return sorted(f for f in found for name in names if name in f)

    def models(self):
        return [m["id"] for m in json.loads(self.request("/v1/models")[2])["data"]]

    def used_pages(self):
        return self.metric("capstan_kv_pages", 'state="used"')

    def finish(self):
        """The end of input: everything closes in order."""
        self.process.stdin.close()
        code = self.process.wait(120)
        self.listener.join()
        self.process.stdout.close()
        assert code == 0, f"exit {code}: {self.log()}"
        assert "Sanitizer" not in self.log(), self.log()


class Load:
    """Streams of completions, `streams` at once for each model, until stop(); every one must come to its whole end."""

    def __init__(self, host, models, streams, tokens):
        self.host, self.models, self.tokens = host, models, tokens
        self.ending, self.lock = threading.Event(), threading.Lock()
        self.gaps, self.done, self.failures = [], 0, []
        self.threads = [threading.Thread(target=self.work, args=(m, i)) for m in models for i in range(streams)]
        for t in self.threads:
            t.start()

    def work(self, model, number):
        for k in itertools.count():
            if self.ending.is_set() or self.failures:
                return
            try:
                self.one(model, f"stream {number} " + "and on " * (3 + (number + k) % 5), k)
            except Exception as e:  # pylint: disable=broad-except
                self.failures.append(f"{model}: {e!r}")
                return
            with self.lock:
                self.done += 1

    def one(self, model, prompt, seed):
        body = {"model": model, "prompt": prompt, "max_tokens": self.tokens, "seed": seed, "temperature": 0.9, "ignore_eos": True,
                "stream": True}
        c = self.host.stream("/v1/completions", body)
        c.settimeout(300)
        got, last = b"", None
        while piece := c.recv(65536):
            now = time.monotonic()
            got += piece
            if b"data: " in piece:  # what comes together came at once
                if last:
                    with self.lock:
                        self.gaps.append(now - last)
                last = now
            if b"[DONE]" in got[-64:]:
                break
        c.close()
        reasons = re.findall(rb'"finish_reason":"(\w+)"', got)
        if b"data: [DONE]" not in got or reasons != [b"length"]:
            raise AssertionError(f"a stream ended with {got[-600:]!r}")

    def wait(self, more):
        """Until `more` more streams have ended."""
        target = self.done + more
        while self.done < target and not self.failures:
            time.sleep(0.01)
        self.check()

    def fill_pages(self):
        """Until each model has had no free page once: memory grows as pages are touched for the first time, and does not after.
        At no time need two models be full at once, nor one when a stream has just ended."""
        left = set(self.models)
        while left:
            self.check()
            rows = self.host.metrics()
            left = {m for m in left if rows["capstan_kv_pages", f'{{model="{m}",state="free"}}'] > 0}
            time.sleep(0.01)

    def take_gaps(self):
        with self.lock:
            gaps, self.gaps = self.gaps, []
        return gaps

    def check(self):
        assert not self.failures, f"{self.failures}\n{self.host.log()}"

    def stop(self):
        self.ending.set()
        for t in self.threads:
            t.join()
        self.check()
