"""About twenty sets of variables for chat templates: the shapes that real requests take."""
import json

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the weather of a city.\nUnits are metric.",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "Name of the city"},
                "unit": {"type": "string", "enum": ["C", "F"], "default": "C"},
                "days": {"type": "array", "items": {"type": "integer"}},
                "where": {"type": "object", "properties": {"lat": {"type": "number"}, "lon": {"type": "number"}}},
            },
            "required": ["city"],
        },
    },
}
SEARCH = {
    "type": "function",
    "function": {
        "name": "search",
        "description": "Sucht „alles“ <b>&</b> \"mehr\" 日本",
        "parameters": {"type": "object", "properties": {"query": {"type": ["string", "null"]}}, "required": []},
    },
}


def u(text):
    return {"role": "user", "content": text}


def a(text, **more):
    return {"role": "assistant", "content": text, **more}


def s(text):
    return {"role": "system", "content": text}


def call(name, arguments, call_id="call12345"):
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def tool(text, name="get_weather", call_id="call12345"):
    return {"role": "tool", "content": text, "name": name, "tool_call_id": call_id}


def sets():
    """(name, variables) pairs; every set gets bos_token, eos_token and add_generation_prompt."""
    args = {"city": "Köln", "days": [1, 2], "where": {"lat": 50.94, "lon": 7.0}}
    out = [
        ("user", {"messages": [u("Hello")]}),
        ("system", {"messages": [s("You are terse."), u("Hello")]}),
        ("turns", {"messages": [u("One"), a("Two"), u("Three")]}),
        ("system turns", {"messages": [s("Be kind."), u("One"), a("Two"), u("Three"), a("Four"), u("Five")]}),
        ("no generation prompt", {"messages": [u("One"), a("Two")], "add_generation_prompt": False}),
        ("space", {"messages": [s("  lead\n"), u("\n\n text \t\n"), a("  x  "), u("\u00a0y\u2003")]}),
        ("unicode", {"messages": [u("naïve 日本語 🎉 \u200d e\u0301 \u202e"), a("Ünïcode"), u("Ещё")]}),
        ("empty", {"messages": [u(""), a(""), u("x")]}),
        ("special tokens", {"messages": [u("<|im_end|><|im_start|>system\nhi</s>[INST]<|eot_id|>"), a("<think>a</think>b"), u("{{ x }}")]}),
        ("no thinking", {"messages": [u("Hi")], "enable_thinking": False, "thinking": False}),
        ("thinking", {"messages": [u("Hi")], "enable_thinking": True, "thinking": True, "reasoning_effort": "high"}),
        ("reasoning", {"messages": [u("1+1?"), a("2", reasoning_content="It is\ntwo.\n"), u("2+2?")]}),
        ("inline reasoning", {"messages": [u("1+1?"), a("<think>\nhm\n</think>\n\n2"), u("2+2?"), a("<think>x</think>4")],
                              "add_generation_prompt": False}),
        ("tools", {"messages": [s("Use tools."), u("Weather?")], "tools": [WEATHER, SEARCH]}),
        ("call", {"messages": [u("Weather?"), a("", tool_calls=[call("get_weather", args)]), tool('{"t": 21.5}'), a("21.5"), u("Thx")],
                  "tools": [WEATHER]}),
        ("call null content", {"messages": [u("Weather?"), a(None, tool_calls=[call("get_weather", args)]), tool("warm")],
                               "tools": [WEATHER, SEARCH]}),
        ("call text arguments", {"messages": [u("Weather?"), a("", tool_calls=[call("get_weather", json.dumps(args))]), tool("warm")],
                                 "tools": [WEATHER]}),
        ("two calls", {"messages": [u("Both"), a("Sure.", tool_calls=[call("get_weather", args, "aaaaaaaaa"), call("search", {"query": None, "n": 1.0, "b": True}, "bbbbbbbbb")]),
                                    tool("warm", call_id="aaaaaaaaa"), tool("found\n<x>", "search", "bbbbbbbbb"), u("And?")],
                       "tools": [WEATHER, SEARCH]}),
        ("parts", {"messages": [{"role": "user", "content": [{"type": "text", "text": "What is "}, {"type": "text", "text": "this?"}]},
                                a("A cat."), u("ok")]}),
        ("image", {"messages": [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What?"}]}]}),
        ("developer", {"messages": [{"role": "developer", "content": "Obey."}, u("Hi")]}),
        ("bad order", {"messages": [a("I begin"), a("again"), s("late"), u("?")]}),
        ("builtin tools", {"messages": [s("S"), u("Q"), a("", tool_calls=[call("brave_search", {"query": "x y"})]), {"role": "ipython", "content": {"r": [1, "a"]}}],
                           "tools": [WEATHER], "builtin_tools": ["brave_search", "code_interpreter"], "tools_in_user_message": False}),
        ("documents", {"messages": [u("Read")], "documents": [{"title": "T", "text": "Body", "doc_id": 1}], "citations": True}),
        ("dates", {"messages": [u("When?")], "date_string": "01 Jan 2026", "custom_tools": [WEATHER]}),
    ]
    base = {"add_generation_prompt": True, "bos_token": "<s>", "eos_token": "</s>"}
    return [(name, {**base, **v}) for name, v in out]
