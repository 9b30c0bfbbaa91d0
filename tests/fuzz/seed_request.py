#!/usr/bin/env python3
"""Writes the seeds of fuzz_request: every field of the tables in server/params_json.c with good and bad values, each route.

    seed_request.py server/params_json.c tests/fuzz/corpus/request
"""
import json
import os
import re
import sys

source, out = sys.argv[1:]
fields = sorted(set(re.findall(r'^ *\{"([a-z_]+)",', open(source).read(), re.M)))
VALUES = [None, True, False, 0, 1, -1, 2, 129, 0.5, 1e300, -9223372036854775808, "", "x", "text", [], ["x"], [1], [[1, 2], [3]],
          {}, {"type": "text"}, {"5": 1.5}, {"x": {}}]
CHAT = {"messages": [{"role": "user", "content": "hi"}]}
BASES = [CHAT, {"prompt": "x"}, {"content": "x"}, {"tokens": [1]}, CHAT]
seeds = []
for where, base in enumerate(BASES):
    seeds.append((where, base))
    for f in fields + ["messages", "prompt", "content", "tokens", "model", "stop", "stop_token_ids", "logit_bias",
                       "stream_options", "chat_template_kwargs", "enable_thinking", "cache_salt", "user", "unknown"]:
        for v in VALUES if where < 2 else VALUES[:4]:
            seeds.append((where, {**base, f: v}))
texts = [b"", b"{", b"[]", b"null", b'{"a":1,}', b'{"a":"\xff"}', b'{"a":"\\ud800"}', b'{"a":1e999}', b'{"messages":' + b"[" * 70 + b"]" * 70 + b"}",
         b'{"n":1,"n":2}', b'{"prompt":"a\\u0000b"}', b' {"prompt" : "x"} trailing', b'{"seed":9223372036854775808}']
PARTS = [[{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], [{"type": "image_url"}], [1], [{"text": "x"}], [{"type": "text"}],
         None, 5, "x"]
for role in ("system", "developer", "user", "assistant", "tool", "wizard", 3, None):
    for content in PARTS:
        m = {"role": role, "content": content, "name": "n", "tool_call_id": "t"}
        seeds.append((0, {"messages": [m]}))
for calls in ([], None, 3, [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{\"a\":[1,2.5,true,null]}"}}],
              [{"function": {"name": "f", "arguments": "not json"}}], [{"function": 3}], [5]):
    seeds.append((0, {"messages": [{"role": "assistant", "content": None, "tool_calls": calls}], "stream": True,
                      "stream_options": {"include_usage": True}, "logprobs": True, "top_logprobs": 3}))
for prompt in (["a", "b"], [1, 2, 3], [[1], [2]], [1, "a"], [[]], [[1, "a"]], [1000], [-1], [1.5], [""], ["a"] * 1100):
    seeds.append((1, {"prompt": prompt, "n": 2, "echo": True, "max_tokens": 0, "logprobs": 1}))
for bias in ({"1": 100}, {"1": 101}, {"-1": 1}, {"1000": 1}, {"a": 1}, {"1": "x"}, {str(i): 0 for i in range(1100)}):
    seeds.append((1, {"prompt": "x", "logit_bias": bias, "model": "m"}))
for stop in (["a"] * 17, ["a", ""], ["a" * 2000], ["a", 1], "abc"):
    seeds.append((0, {**CHAT, "stop": stop}))
for kw in ({"a": {"b": [1, "x", None, True, 2.5]}}, {"messages": 1}, {"": 1}):
    seeds.append((4, {**CHAT, "chat_template_kwargs": kw, "add_generation_prompt": False}))
os.makedirs(out, exist_ok=True)
bodies = [bytes([w]) + json.dumps(v).encode() for w, v in seeds] + [bytes([w]) + t for w in range(2) for t in texts]
for i, body in enumerate(bodies):
    with open(f"{out}/{i:04d}", "wb") as f:
        f.write(body)
print(len(bodies), "seeds")
