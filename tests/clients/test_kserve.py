"""KServe's own Python client against the real server with SmolLM2, by protocols v2 and v1, and OpenAI's below /openai (label clients).

CAPSTAN_BIN, CAPSTAN_MODEL; the interpreter has kserve and openai. CAPSTAN_URL: a server that runs already, whose model is `smol`.
"""
import asyncio
import os
import sys
import unittest

import httpx
import numpy
import openai
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../e2e"))


class Running:
    def __init__(self, url):
        self.url = url

    def __exit__(self, *_):
        pass


def setUpModule():
    global SERVER
    if os.environ.get("CAPSTAN_URL"):
        SERVER = Running(os.environ["CAPSTAN_URL"])
        return
    from harness import Server
    SERVER = Server(os.environ["CAPSTAN_MODEL"], "--alias", "smol", "--ctx", "1024", "--kv-bytes", "256MiB")


def tearDownModule():
    SERVER.__exit__(None)


def run(protocol, work):
    async def inner():
        client = InferenceRESTClient(RESTConfig(protocol=protocol, timeout=120))
        try:
            return await work(client)
        finally:
            await client.close()
    return asyncio.run(inner())


def request(binary, **parameters):
    prompt = InferInput("text_input", [1], "BYTES")
    prompt.set_data_from_numpy(numpy.array([b"The capital of France is"], dtype=object), binary_data=binary)
    most = InferInput("max_tokens", [1], "INT32")
    most.set_data_from_numpy(numpy.array([4], dtype=numpy.int32), binary_data=binary)
    return InferRequest("smol", [prompt, most], parameters={"temperature": 0, **parameters}, request_id="mine")


class Kserve(unittest.TestCase):
    def test_v2_tells_of_server_and_model(self):
        self.assertIs(run("v2", lambda c: c.is_server_live(SERVER.url)), True)
        self.assertIs(run("v2", lambda c: c.is_server_ready(SERVER.url)), True)
        self.assertIs(run("v2", lambda c: c.is_model_ready(SERVER.url, "smol")), True)
        self.assertIs(run("v1", lambda c: c.is_model_ready(SERVER.url, "smol")), True)

    def test_inferences_in_json_and_in_binary(self):
        wants = openai.OpenAI(base_url=SERVER.url + "/openai/v1", api_key="none").completions.create(
            model="smol", prompt="The capital of France is", max_tokens=4, temperature=0)
        for binary in (False, True):
            answer = run("v2", lambda c, b=binary: c.infer(SERVER.url, request(b), model_name="smol"))
            outputs = {o.name: o.data for o in answer.outputs}
            self.assertEqual(outputs["text_output"], [wants.choices[0].text])
            self.assertEqual(outputs["finish_reason"], ["length"])
            self.assertEqual(outputs["completion_tokens"], [4])
            self.assertEqual(answer.id, "mine")

    def test_errors_have_words(self):
        with self.assertRaisesRegex(httpx.HTTPStatusError, "'top_p' is 2; allowed.*400"):
            run("v2", lambda c: c.infer(SERVER.url, request(False, top_p=2), model_name="smol"))
        with self.assertRaisesRegex(httpx.HTTPStatusError, "'nobody' does not exist.*404"):
            run("v2", lambda c: c.infer(SERVER.url, request(False), model_name="nobody"))

    def test_chat_below_openai(self):
        client = openai.OpenAI(base_url=SERVER.url + "/openai/v1", api_key="none")
        stream = client.chat.completions.create(model="smol", max_tokens=8, temperature=0, stream=True,
                                                messages=[{"role": "user", "content": "Can you tell me the capital of France?"}])
        text = "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)
        self.assertIn("Paris", text)


if __name__ == "__main__":
    unittest.main(verbosity=2)
