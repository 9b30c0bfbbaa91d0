"""Hostile chat templates: while renderings that run into the limit of steps keep every thread of Jobs busy, the server goes
on answering probes, and each rendering ends with an error that says why."""
import json
import pathlib
import subprocess
import tempfile
import threading
import unittest

from harness import BIN, Server

MODEL = pathlib.Path(__file__).resolve().parents[1] / "golden" / "tiny" / "llama.gguf"
PROBES = 200
CLIENTS = 3
RENDERINGS = 200  # a client's most; it stops with the probes
# Searches, small copies, doubles, look-ups of many variables: each until no step is left.
HOSTILE = {
    "search": "{% set s = 'a' * 4000000 %}{% set t = 'a' * 1999999 ~ 'b' %}{% for i in range(100000) %}{{ s.rfind(t) }}{% endfor %}",
    "case": "{% set t = '\u00e9' * 511 %}{% for i in range(100000) %}{% set z = t|title|length %}{% endfor %}",
    "doubles": "{% for i in range(100000) %}{% set z = '%.90f' % (1e308 / (i + 3)) %}{% endfor %}",
    "variables": "".join(f"{{% set v{i} = {i} %}}" for i in range(20000)) +
                 "{% for i in range(100) %}{% for j in range(100000) %}{% set z = v0 ~ v19999 %}{% endfor %}{% endfor %}",
}


class Templates(unittest.TestCase):
    def probe_beside(self, s, done):
        """PROBES probes, each on a connection of its own, while CLIENTS threads ask for renderings."""
        over = threading.Event()

        def client(i):
            for _ in range(RENDERINGS):
                if over.is_set():
                    return
                path = ("/apply-template", "/v1/chat/completions", "/tokenize")[i % 3]
                status, _, body = s.request(path, {"messages": [{"role": "user", "content": "hi"}]})
                done.append((status, json.loads(body)["error"]["code"]))

        threads = [threading.Thread(target=client, args=(i,)) for i in range(CLIENTS)]
        for t in threads:
            t.start()
        got = [s.status("/livez") for _ in range(PROBES)]
        while not done and any(t.is_alive() for t in threads):  # fast probes: wait for a rendering
            got.append(s.status("/livez"))
        over.set()
        for t in threads:
            t.join()
        return got

    def test_probes_are_answered_while_hostile_templates_render(self):
        for name, source in HOSTILE.items():
            with self.subTest(name), tempfile.NamedTemporaryFile("w", suffix=".jinja", encoding="utf-8") as f:
                f.write(source)
                f.flush()
                with Server(MODEL, "--ctx", "128", "--threads", "1", "--chat-template-file", f.name) as s:
                    done = []
                    got = self.probe_beside(s, done)
                    self.assertGreaterEqual(len(got), PROBES)
                    self.assertEqual(set(got), {200})
                    self.assertEqual(set(done), {(400, "template_error")})

    def test_a_file_that_does_not_compile_is_named(self):
        with tempfile.NamedTemporaryFile("w", suffix=".jinja", encoding="utf-8") as f:
            f.write("\n{{ messages|nonesuch }}")
            f.flush()
            for command in ("serve", "--port", "0"), ("run", "-p", "x"):
                p = subprocess.run([BIN, command[0], MODEL, *command[1:], "--chat-template-file", f.name], stdin=subprocess.DEVNULL,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=60)
                self.assertEqual(p.returncode, 1)
                self.assertIn(f"{f.name}: line 2: no filter named 'nonesuch'", p.stderr)

    def test_run_says_what_the_server_says(self):
        """The same variables, the same ids, the same sampling: a template that looks at what a request does not say."""
        with tempfile.NamedTemporaryFile("w", suffix=".jinja", encoding="utf-8") as f:
            f.write("{{ bos_token }}{% if tools is none %}none{% endif %}{% if documents is defined %}defined{% endif %}"
                    "{% for m in messages %}{{ m.role }}: {{ m.content }}{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}")
            f.flush()
            more = ("--threads", "1", "--chat-template-file", f.name)
            with Server(MODEL, "--ctx", "128", "--sampling-defaults", "llama.cpp", *more) as s:
                for say, tokens, seed, temperature in (("a b", 12, 7, None), ("<|unused300|>", 9, 8, 0), ("c", 5, 9, 0.00001), ("", 7, 1, 2)):
                    body = {"messages": [{"role": "user", "content": say}], "max_tokens": tokens, "seed": seed}
                    args = ["-p", say, "-n", str(tokens), "--seed", str(seed)]
                    if temperature is not None:
                        body["temperature"] = temperature
                        args += ["--temp", f"{temperature:f}"]
                    whole = json.loads(s.request("/v1/chat/completions", body)[2])
                    p = subprocess.run([BIN, "run", MODEL, "--ctx", "128", *args, "--json", *more], stdin=subprocess.DEVNULL,
                                       stdout=subprocess.PIPE, text=True, timeout=60, check=True)
                    run = json.loads(p.stdout)
                    self.assertEqual(run["text"], whole["choices"][0]["message"]["content"])
                    self.assertEqual(run["finish_reason"], whole["choices"][0]["finish_reason"])
                    self.assertEqual(run["usage"]["total_tokens"], whole["usage"]["total_tokens"])


if __name__ == "__main__":
    unittest.main()
