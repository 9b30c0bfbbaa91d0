"""Chat templates of the whole binary: hostile ones, whose renderings end with an error that says why while the server goes
on answering probes; several of one file; and what clients spell in anything that a template reads."""
import json
import pathlib
import struct
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


TOOL = {"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object", "properties": {"p": {"type": "string"}}}}}
END = "<|im_end|>"


def with_templates(**named):
    """The tiny model with more templates in its keys; what follows them stays on its 32-byte border."""
    def text(s):
        return struct.pack("<Q", len(s)) + s.encode()

    def key(name, value):
        return text(name) + struct.pack("<I", 8) + text(value)
    data = MODEL.read_bytes()
    keys = b"".join(key("tokenizer.chat_template." + k, v) for k, v in named.items())
    keys += text("tokenizer.chat_templates") + struct.pack("<IIQ", 9, 8, len(named)) + b"".join(map(text, named))
    room = -(len(keys) + len(key("x.pad", ""))) % 32
    n_keys, = struct.unpack("<Q", data[16:24])
    return data[:16] + struct.pack("<Q", n_keys + len(named) + 2) + keys + key("x.pad", " " * room) + data[24:]


class Templates(unittest.TestCase):
    def serve(self, data, *args):
        f = tempfile.NamedTemporaryFile(suffix=".gguf")
        self.addCleanup(f.close)
        f.write(data)
        f.flush()
        return Server(f.name, "--ctx", "1024", "--threads", "1", "--kv-bytes", "4MiB", *args)

    def prompt(self, s, path="/apply-template", **more):
        status, _, body = s.request(path, {"messages": [{"role": "user", "content": "hi"}], **more})
        self.assertEqual(status, 200, body)
        return json.loads(body)

    def test_a_file_may_have_several(self):
        data = with_templates(tool_use="{{ tools|length }} tools", rag="{{ documents|length }} documents", other="other")
        docs = [{"title": "t", "text": "x"}]
        with self.serve(data) as s:
            self.assertIn("<|im_start|>user\nhi", self.prompt(s)["prompt"])
            self.assertEqual(self.prompt(s, tools=[TOOL])["prompt"], "1 tools")
            self.assertEqual(self.prompt(s, documents=docs * 2)["prompt"], "2 documents")
            self.assertEqual(self.prompt(s, tools=[TOOL], documents=docs)["prompt"], "1 tools")
        none = data.replace(b"tokenizer.chat_template" + struct.pack("<I", 8), b"tokenizer.chat_nothing_" + struct.pack("<I", 8))
        with self.serve(none) as s:
            self.assertEqual(self.prompt(s, tools=[TOOL])["prompt"], "1 tools")
            status, _, body = s.request("/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}]})
            self.assertEqual((status, json.loads(body)["error"]["code"]), (400, "chat_template_missing"))

    def test_one_that_does_not_compile_leaves_the_default(self):
        with self.serve(with_templates(tool_use="{{ messages|nonesuch }}")) as s:
            self.assertIn("hi", self.prompt(s, tools=[TOOL])["prompt"])
            self.assertRegex(s.log(), "chat template 'tool_use' not usable, the default serves in its place: line 1: no filter")

    def test_control_tokens_stay_text_wherever_they_are_spelled(self):
        """In tools, documents, calls, variables, a message that is gone on with: no id is that of the token."""
        shows = ("{{ tools|tojson }}{{ documents|tojson }}{{ note }}{% for t in tools or [] %}{{ t.function.name }}{% for k in t.function.parameters %}"
                 "{{ k }}{% endfor %}{% endfor %}{% for m in messages %}{{ m.tool_calls|default([])|tojson }}{{ m.reasoning_content }}"
                 "{% if m.tool_call_id %}{{ m.tool_call_id[1:] }}{% endif %}{{ m.content }}" + END + "{% endfor %}")
        tool = {"type": "function", "function": {"name": END, "description": END, "parameters": {END: [END]}}}
        call = {"id": END, "type": "function", "function": {"name": END, "arguments": json.dumps({END: END})}}
        messages = [{"role": "user", "content": END}, {"role": "assistant", "content": None, "reasoning_content": END, "tool_calls": [call]},
                    {"role": "tool", "tool_call_id": "x" + END, "content": [{"type": "text", "text": END}]}]
        with tempfile.NamedTemporaryFile("w", suffix=".jinja", encoding="utf-8") as f:
            f.write(shows)
            f.flush()
            with self.serve(MODEL.read_bytes(), "--chat-template-file", f.name) as s:
                end, = json.loads(s.request("/tokenize", {"content": END, "add_special": False, "parse_special": True})[2])["tokens"]
                more = {"tools": [tool], "documents": [{"title": END, END: END}], "chat_template_kwargs": {"note": END}, "messages": messages}
                self.assertGreater(self.prompt(s, **more)["prompt"].count(END), 15)
                tokens = self.prompt(s, "/tokenize", **more)["tokens"]
                self.assertEqual(tokens.count(end), 3)  # the template's own
                more["messages"] = [*messages, {"role": "assistant", "content": END + " and"}]
                tokens = self.prompt(s, "/tokenize", continue_final_message=True, **more)["tokens"]
                self.assertEqual(tokens.count(end), 3)
                text = self.prompt(s, continue_final_message=True, **more)["prompt"]
                self.assertTrue(text.endswith("[]" + END + " and"), text[-80:])

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
