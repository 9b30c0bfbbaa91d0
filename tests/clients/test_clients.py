"""Released clients against the real server with SmolLM2, each as its users would run it (label clients).

CAPSTAN_BIN, CAPSTAN_MODEL; the interpreter has the packages of tests/clients/requirements.txt. A headless Chromium is the browser.
"""
import asyncio
import functools
import http.server
import json
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../e2e"))
from harness import Server  # noqa: E402

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
MODEL = os.environ["CAPSTAN_MODEL"]
RESULTS = queue.Queue()
HERE = os.path.dirname(os.path.abspath(__file__))
QUESTION = [{"role": "user", "content": "Can you tell me the capital of France?"}]
TOOL_TURNS = [
    {"role": "user", "content": "What time is it?"},
    {"role": "assistant", "content": None,
     "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "now", "arguments": "{}"}}]},
    {"role": "tool", "tool_call_id": "c1", "content": "12:00"},
    {"role": "user", "content": "Thank you. Can you tell me the capital of France?"},
]


def setUpModule():
    global SITE, PAGE, SERVER
    # the page's own server first: its origin is what the other one allows
    PAGE = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=HERE))
    threading.Thread(target=PAGE.serve_forever, daemon=True).start()
    SITE = f"http://127.0.0.1:{PAGE.server_port}"
    SERVER = Server(MODEL, "--alias", "smol", "--ctx", "1024", "--kv-bytes", "256MiB", "--cors-origin", SITE)
    os.environ.update(OPENAI_API_KEY="none", OPENAI_BASE_URL=SERVER.url + "/v1", OPENAI_API_BASE=SERVER.url + "/v1")


def tearDownModule():
    SERVER.__exit__(None)
    PAGE.shutdown()


class Quiet(http.server.SimpleHTTPRequestHandler):
    """page.html, and what it posts back."""

    def log_message(self, *_):
        pass

    def do_POST(self):
        RESULTS.put(self.rfile.read(int(self.headers["Content-Length"])).decode())
        self.send_response(204)
        self.end_headers()


def command(*args, **more):
    r = subprocess.run(args, capture_output=True, text=True, timeout=600, **more)
    if r.returncode:
        raise AssertionError(f"{args[0]} ended with {r.returncode}:\n{r.stdout[-2000:]}\n{r.stderr[-2000:]}")
    return r.stdout


def tool(name):
    return os.path.join(os.path.dirname(sys.executable), name)


def save_tokenizer(folder):
    """The model's own vocabulary as a tokenizer of transformers, for clients that count or encode themselves."""
    import gguf
    import tokenizers
    import transformers
    fields = gguf.GGUFReader(MODEL).fields
    words, merges = ([fields["tokenizer.ggml." + name].contents(i) for i in range(len(fields["tokenizer.ggml." + name].data))]
                     for name in ("tokens", "merges"))
    t = tokenizers.Tokenizer(tokenizers.models.BPE({w: i for i, w in enumerate(words)}, [tuple(m.split(" ")) for m in merges]))
    t.pre_tokenizer = tokenizers.pre_tokenizers.Sequence([tokenizers.pre_tokenizers.Digits(True),
                                                          tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)])
    t.decoder = tokenizers.decoders.ByteLevel()
    transformers.PreTrainedTokenizerFast(tokenizer_object=t, eos_token=words[2]).save_pretrained(folder)


class OpenAI(unittest.TestCase):
    def setUp(self):
        import openai
        self.openai = openai
        self.client = openai.OpenAI(max_retries=0)

    def test_sync(self):
        r = self.client.chat.completions.create(model="smol", messages=QUESTION, temperature=0, max_tokens=16)
        self.assertIn("Paris", r.choices[0].message.content)

    def test_async(self):
        async def ask():
            async with self.openai.AsyncOpenAI(max_retries=0) as client:
                return await asyncio.gather(*(client.chat.completions.create(
                    model="smol", messages=QUESTION, temperature=0, max_tokens=16) for _ in range(8)))
        self.assertEqual(len({r.choices[0].message.content for r in asyncio.run(ask())}), 1)

    def test_stream_helper(self):
        kinds = []
        with self.client.chat.completions.stream(model="smol", messages=QUESTION, temperature=0, max_tokens=16,
                                                 stream_options={"include_usage": True}) as stream:
            kinds = [event.type for event in stream]
            final = stream.get_final_completion()
        self.assertIn("content.delta", kinds)
        self.assertIn("content.done", kinds)
        self.assertIn("Paris", final.choices[0].message.content)
        self.assertEqual(final.usage.total_tokens, final.usage.prompt_tokens + final.usage.completion_tokens)

    def test_tool_history(self):
        r = self.client.chat.completions.create(model="smol", messages=TOOL_TURNS, temperature=0, max_tokens=16)
        self.assertEqual(r.choices[0].finish_reason in ("stop", "length"), True)

    def test_parse_is_refused_by_name(self):
        import pydantic

        class City(pydantic.BaseModel):
            name: str
        with self.assertRaises(self.openai.BadRequestError) as e:
            self.client.chat.completions.parse(model="smol", messages=QUESTION, response_format=City)
        self.assertEqual((e.exception.code, e.exception.param), ("unsupported_field", "response_format"))


class Others(unittest.TestCase):
    def test_langchain_openai(self):
        from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
        from langchain_openai import ChatOpenAI
        chat = ChatOpenAI(model="smol", temperature=0, max_tokens=16, max_retries=0)
        turns = [HumanMessage("time?"), AIMessage("", tool_calls=[{"name": "now", "args": {}, "id": "c1"}]),
                 ToolMessage("12:00", tool_call_id="c1"), HumanMessage("Can you tell me the capital of France?")]
        self.assertTrue(chat.invoke(turns).content)
        self.assertIn("Paris", "".join(c.content for c in chat.stream(QUESTION)))

    def test_litellm(self):
        import litellm
        r = litellm.completion(model="openai/smol", messages=TOOL_TURNS, temperature=0, max_tokens=16)
        self.assertTrue(r.choices[0].message.content)
        parts = litellm.completion(model="openai/smol", messages=QUESTION, temperature=0, max_tokens=16, stream=True)
        self.assertIn("Paris", "".join(p.choices[0].delta.content or "" for p in parts))

    def test_instructor(self):
        """Its tool mode needs tools, which are refused by name; Markdown mode is text, and reaches the model."""
        import instructor
        import openai
        import pydantic

        class City(pydantic.BaseModel):
            name: str
        ask = {"model": "smol", "messages": QUESTION, "max_retries": 0, "response_model": City}
        with self.assertRaises(Exception) as e:
            instructor.from_openai(openai.OpenAI(max_retries=0)).chat.completions.create(**ask)
        self.assertRegex(str(e.exception), "'tool(s|_choice)' .*is not supported by this server")
        client = instructor.from_openai(openai.OpenAI(max_retries=0), mode=instructor.Mode.MD_JSON)
        try:
            client.chat.completions.create(temperature=0, max_tokens=64, **ask)
        except Exception as e:  # what a model of this size writes need not be JSON
            self.assertNotIn("Error code", str(e))

    def test_llm(self):
        with tempfile.TemporaryDirectory() as home:
            with open(os.path.join(home, "extra-openai-models.yaml"), "w") as f:
                f.write(f"- model_id: smol\n  model_name: smol\n  api_base: {SERVER.url}/v1\n")
            out = command(tool("llm"), "-m", "smol", "-o", "temperature", "0", "-o", "max_tokens", "16",
                          QUESTION[0]["content"], env={**os.environ, "LLM_USER_PATH": home})
        self.assertIn("Paris", out)

    def test_lm_eval(self):
        """Loglikelihood by /v1/completions with echo and logprobs over token ids: the true answers must win."""
        with tempfile.TemporaryDirectory() as d:
            with open(os.path.join(d, "capitals.jsonl"), "w") as f:
                for land, city in (("France", "Paris"), ("Italy", "Rome"), ("Japan", "Tokyo"), ("Spain", "Madrid")):
                    f.write(json.dumps({"q": f"The capital of {land} is", "choices": [" " + city, " Oslo", " Lima"]}) + "\n")
            with open(os.path.join(d, "capitals.yaml"), "w") as f:
                f.write("task: capitals\ndataset_path: json\ndataset_kwargs:\n  data_files:\n    test: "
                        f"{d}/capitals.jsonl\ntest_split: test\noutput_type: multiple_choice\ndoc_to_text: \"{{{{q}}}}\"\n"
                        "doc_to_target: 0\ndoc_to_choice: \"{{choices}}\"\ntarget_delimiter: \"\"\n"
                        "metric_list:\n  - metric: acc\n")
            save_tokenizer(os.path.join(d, "tokenizer"))
            command(tool("lm-eval"), "run", "--model", "local-completions", "--tasks", "capitals", "--include_path", d,
                    "--model_args", f"model=smol,base_url={SERVER.url}/v1/completions,tokenizer={d}/tokenizer,num_concurrent=2", "--output_path", d,
                    env={**os.environ, "HF_HOME": d, "HF_DATASETS_OFFLINE": "0"})
            results = [os.path.join(p, n) for p, _, names in os.walk(d) for n in names if n.startswith("results_")]
            with open(results[0]) as f:
                self.assertEqual(json.load(f)["results"]["capitals"]["acc,none"], 1.0)


class Browser(unittest.TestCase):
    def test_a_page_of_another_origin_streams(self):
        chromium = shutil.which("chromium") or shutil.which("chromium-browser")
        self.assertTrue(chromium, "chromium is not installed")
        with tempfile.TemporaryDirectory() as d:
            browser = subprocess.Popen([chromium, "--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={d}",
                                        f"{SITE}/page.html?{SERVER.url}"], stderr=subprocess.DEVNULL)
            try:
                result = json.loads(RESULTS.get(timeout=120))
            finally:
                browser.kill()
                browser.wait()
        self.assertEqual((result.get("status"), result.get("error")), (200, None))
        self.assertIn("Paris", result["text"])
        self.assertGreater(result["chunks"], 2)
        self.assertRegex(result["request_id"], "^req-")


if __name__ == "__main__":
    unittest.main()
