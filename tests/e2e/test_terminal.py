"""What a person at a terminal sees: the chat of `run` with its commands and Ctrl-C, and progress bars of any width. The program
gets a terminal of its own (pty) that is its controlling one, so that Ctrl-C is the byte that a keyboard sends. Standard library
only."""
import fcntl
import json
import os
import pathlib
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
import unittest

from harness import BIN

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests/fakes"), str(ROOT / "tests/registry")]
import fixtures  # noqa: E402  pylint: disable=wrong-import-position
from registry import Registry  # noqa: E402  pylint: disable=wrong-import-position
from test_pull import CNCF, add_model, slow  # noqa: E402  pylint: disable=wrong-import-position

MODEL = os.environ["CAPSTAN_MODEL"]
TINY = str(ROOT / "tests/golden/tiny/llama.gguf")
LIMIT = 60  # seconds; only turns a hang into a failure


class Terminal:
    """`capstan ARGS` with stdin and stderr, and stdout unless a pipe is wanted for it, on a terminal of `columns`."""

    def __init__(self, *args, columns=80, term="xterm", stdout=None):
        self.master, slave = pty.openpty()
        self.resize(columns)
        env = {**os.environ, "TERM": term}

        def own():
            os.setsid()
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        self.process = subprocess.Popen([BIN, *args], stdin=slave, stdout=stdout or slave, stderr=slave, env=env, preexec_fn=own)
        os.close(slave)
        self.text, self.at = "", 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.master)

    def resize(self, columns):
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))

    def read(self):
        """False: the program has closed its side."""
        if not select.select([self.master], [], [], LIMIT)[0]:
            raise AssertionError(f"nothing comes after {self.text!r}")
        try:
            piece = os.read(self.master, 65536)
        except OSError:
            return False
        self.text += piece.decode(errors="replace")
        return True

    def expect(self, pattern):
        """Waits for the pattern in what came since the last one."""
        while not (m := re.compile(pattern).search(self.text, self.at)):
            assert self.read(), f"{pattern!r} is not in {self.text[self.at:]!r}"
        self.at = m.end()
        return m

    def type(self, text):
        os.write(self.master, text.encode())

    def end(self):
        """All that comes, and the exit code."""
        while self.read():
            pass
        return self.text, self.process.wait(LIMIT)


def has_signalfd(pid):
    """From then on Ctrl-C ends the answer, not the program."""
    for fd in pathlib.Path(f"/proc/{pid}/fd").iterdir():
        try:
            if "signalfd" in os.readlink(fd):
                return True
        except OSError:
            pass
    return False


class Chat(unittest.TestCase):
    """The template throws what the model would be told, so that it can be seen."""

    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.echo = os.path.join(cls.folder.name, "echo.jinja")
        pathlib.Path(cls.echo).write_text("{{ raise_exception('<' + messages[-1].content + '>') }}", encoding="ascii")
        cls.plain = os.path.join(cls.folder.name, "plain.jinja")
        pathlib.Path(cls.plain).write_text("{% for m in messages %}{{ m.content }}{% endfor %}", encoding="ascii")

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def chat(self):
        return Terminal("run", TINY, "--kv-bytes", "1MiB", "--chat-template-file", self.echo)

    def story(self, *args, **kw):
        """A chat whose answer lasts for thousands of tokens."""
        return Terminal("run", MODEL, "--kv-bytes", "256MiB", "--temp", "0", "--chat-template-file", self.plain, *args, **kw)

    def test_a_chat_takes_nothing_that_is_for_one_completion(self):
        """Its answers went nowhere with --json; --raw, which the message of a model without a template named, did nothing."""
        for option in ("--json", "--raw"):
            r = subprocess.run([BIN, "run", TINY, option], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
            self.assertEqual((r.returncode, r.stdout, r.stderr),
                             (2, "", f"capstan: run: {option} needs --prompt; without one run is a chat\n"))

    def test_commands_are_trimmed_and_never_said(self):
        for words in ("/quit", "/exit", "/bye", "  /quit", "/bye ", "\t/EXIT\t", "/Bye"):
            with self.chat() as t:
                t.expect("/help lists commands\r\n> ")
                t.type(words + "\n")
                text, code = t.end()
                self.assertEqual(code, 0, words)
                self.assertNotIn("<", text, words)
        with self.chat() as t:
            for words in ("/help", "/help ", "/HELP", " /Help"):
                t.expect("> $")
                t.type(words + "\n")
                self.assertNotIn("<", t.expect(r"(?s)(.*)/quit .*//text.*Ctrl-C.*\r\n")[1])
            for words in ("/nonsense", "/", "/quit now", " /etc/passwd is a file", "/\x1b[31m".replace("\x1b", "\x16\x1b")):
                t.expect("> $")
                t.type(words + "\n")
                shown = words.strip().replace("\x16\x1b", "?")
                self.assertNotIn("<", t.expect(re.escape(f"unknown command '{shown}'") + "; /help lists them.*\r\n")[0])
            for words, said in (("hello", "hello"), ("  a  b \t", "a  b"), ("//nonsense", "/nonsense"), ("///", "//"), ("a /quit", "a /quit")):
                t.expect("> $")
                t.type(words + "\n")
                t.expect(re.escape(f"<{said}>") + "\r\n")
            for words in ("", "   ", "\t"):
                t.expect("> $")
                t.type(words + "\n")
            t.expect("> $")
            t.type("\x04")  # Ctrl-D
            text, code = t.end()
            self.assertTrue(text.endswith("> \r\n"), text)
            self.assertEqual(code, 1)  # the last error's

    def test_an_interrupt_at_the_prompt_drops_the_line(self):
        with self.chat() as t:
            t.expect("> $")
            for typed in ("", "half a line", "", "   "):
                t.type(typed)
                if typed:
                    t.expect(re.escape(typed))
                t.type("\x03")
                t.expect(r"\^C\r\n> $")
            t.type("whole\n")
            t.expect("<whole>")
            t.expect("> $")
            t.type("/quit\n")
            self.assertEqual(t.end()[1], 1)

    def test_an_interrupt_ends_the_answer(self):
        with self.story() as t:
            t.expect("> $")
            for _ in range(2):
                t.type("1, 2, 3, 4, 5, 6, 7,\n")
                t.expect(r"7,\r\n[^>]*8, 9, 10")
                t.type("\x03")
                t.expect(r"\^C[^>]*\r\n> $")
                self.assertIsNone(t.process.poll())
            t.type("/bye\n")
            self.assertEqual(t.end()[1], 0)

    def test_a_termination_ends_it(self):
        with self.story() as t:
            t.expect("> $")
            t.process.send_signal(signal.SIGTERM)
            self.assertEqual(t.end()[1], -signal.SIGTERM)
        with self.story() as t:
            t.expect("> $")
            t.type("1, 2, 3, 4, 5, 6, 7,\n")
            t.expect(r"8, 9, 10")
            t.process.send_signal(signal.SIGTERM)
            self.assertEqual(t.end()[1], -signal.SIGTERM)

    def test_one_shot_keeps_what_there_is(self):
        prompt = ("-p", "1, 2, 3, 4, 5, 6, 7,", "--raw")
        with self.story(*prompt) as t:
            t.expect(r"8, 9, 10")
            t.type("\x03")
            text, code = t.end()
            self.assertEqual(code, 130, text)
            self.assertTrue(text.endswith("\r\n"), text)
        with self.story(*prompt, "--json", stdout=subprocess.PIPE) as t:
            while not has_signalfd(t.process.pid):  # nothing is printed before the end
                self.assertIsNone(t.process.poll())
                time.sleep(0.01)
            t.type("\x03")
            answer = json.loads(t.process.stdout.read())
            self.assertEqual(t.process.wait(LIMIT), 130)
            t.process.stdout.close()
            self.assertEqual(answer["finish_reason"], "cancelled")
            self.assertIsInstance(answer["text"], str)

    def test_a_context_that_is_full(self):
        """The error says what helps, and the chat goes on."""
        r = subprocess.run([BIN, "run", TINY, "--kv-bytes", "1MiB", "--ctx", "64", "--chat-template-file", self.plain, "-n", "1"],
                           input="word " * 100 + "\n/quit\n", capture_output=True, text=True, timeout=LIMIT, check=False)
        self.assertRegex(r.stderr, r"the prompt has \d+ tokens, the context 64: say less, or /quit .*, or raise --ctx\n> $")

    def test_lines_of_a_pipe(self):
        """The same commands where nobody types: CRLF, a last line without a newline, several at once."""
        def run(lines):
            return subprocess.run([BIN, "run", TINY, "--kv-bytes", "1MiB", "--chat-template-file", self.echo], input=lines,
                                  capture_output=True, text=True, timeout=LIMIT, check=False)
        r = run("one\r\n/help\r\n/unknown\n\n//two\nthree")
        self.assertEqual(re.findall("<(.*)>", r.stderr), ["one", "/two", "three"])
        self.assertIn("unknown command '/unknown'", r.stderr)
        self.assertEqual(run("/quit\r\nnever\n").returncode, 0)
        r = run("a" * 100000 + "\n" + "b")
        self.assertEqual(len(re.findall("<", r.stderr)), 2, r.stderr[-300:])


class Screen:
    """What a terminal of so many columns does with text: lines as they stand at the end, and how often one wrapped."""

    def __init__(self, text, columns):
        self.lines, self.wraps, column = [""], 0, 0
        for c in text:
            if c == "\r":
                column = 0
            elif c == "\n":
                self.lines.append("")
                column = 0
            else:
                if column == columns:
                    self.wraps += 1
                    self.lines.append("")
                    column = 0
                self.lines[-1] = self.lines[-1][:column] + c + self.lines[-1][column + 1:]
                column += 1


class Bar(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.store = os.path.join(self.folder.name, "store")

    def pack(self, **kw):
        with Terminal("pack", TINY, "-t", "x:1", "--store", self.store, stdout=subprocess.DEVNULL, **kw) as t:
            return t.end()

    def test_it_fits_any_width(self):
        for columns in (*range(1, 100), 120, 132, 200, 399, 400):
            text, code = self.pack(columns=columns)
            self.assertEqual(code, 0, text)
            screen = Screen(text, columns)
            self.assertEqual(screen.wraps, 0, (columns, text))
            if columns > 4:
                self.assertRegex(screen.lines[0].rstrip(), r"100 ?%", columns)
            if columns >= 80:
                self.assertRegex(screen.lines[0].rstrip(), r"^packing +\[#+\] 100 %  0\.4 of 0\.4 MiB(, \d+\.\d MiB/s)?$", columns)

    def test_no_size_known(self):
        text, _ = self.pack(columns=0)
        self.assertEqual(Screen(text, 80).wraps, 0, text)
        self.assertIn("100 %", text)

    def test_a_terminal_that_cannot_go_back_has_lines(self):
        for term in ("dumb", ""):
            text, code = self.pack(term=term)
            self.assertEqual((code, text), (0, ""))

    def test_a_verify_of_what_no_pull_brings(self):
        """A large layer that the model does not need, as other tools copy it, is hashed and counted, too."""
        folder = pathlib.Path(self.folder.name, "layout")
        made = fixtures.Layout(folder)
        layers = [made.blob(data, CNCF + kind) for data, kind in
                  ((pathlib.Path(TINY).read_bytes(), "weight.v1.raw"), (bytes(65 << 20), "dataset.v1.raw"))]
        made.name(fixtures.modelpack(made, layers))
        for columns in (80, 200):
            with Terminal("verify", f"oci:{folder}", columns=columns) as t:
                text, code = t.end()
            self.assertEqual(code, 0, text)
            lines = Screen(text, columns).lines
            self.assertRegex(lines[0], r"^verifying +\[#+\] 100 %  65\.4 of 65\.4 MiB", text)
            self.assertEqual(max(int(n) for n in re.findall(r"(\d+) %", text)), 100, text)

    def test_a_pull_ends_with_all_of_it(self):
        """Several frames; the terminal becomes narrow meanwhile."""
        data = pathlib.Path(TINY).read_bytes()
        registry = Registry().start()
        self.addCleanup(registry.close)
        add_model(registry, "q/slow", data)
        registry.hooks["blob"] = slow(0.5, len(data))
        name = registry.host + "/q/slow:v1"
        for columns, then in ((80, 80), (40, 40), (20, 20), (8, 8), (80, 30), (30, 80)):
            store = os.path.join(self.folder.name, f"s{columns}-{then}")
            with Terminal("pull", name, "--store", store, "--connections", "1", columns=columns, stdout=subprocess.DEVNULL) as t:
                t.expect("%")
                t.resize(then)
                text, code = t.end()
            self.assertEqual(code, 0, text)
            before, after = text.split("%", 1)
            self.assertEqual(Screen(before, columns).wraps, 0, text)
            self.assertEqual(Screen(after, max(columns, then)).wraps, 0, text)
            for line in Screen(text, 400).lines[:-1]:
                self.assertRegex(line, "100 ?%", text)


if __name__ == "__main__":
    unittest.main()
