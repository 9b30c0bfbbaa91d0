"""Sets of variables for chat templates: the shapes that real requests take, and those that no template wants."""
import json
import random

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


# A schema with everything that templates take apart: nesting, unions, references, defaults of every type.
BOOK = {
    "type": "function",
    "function": {
        "name": "book_trip",
        "strict": True,
        "parameters": {
            "type": "object",
            "$defs": {"place": {"type": "string", "pattern": "^[A-Z]+$"}},
            "properties": {
                "from": {"$ref": "#/$defs/place"},
                "to": {"anyOf": [{"type": "string"}, {"type": "null"}], "description": "Where to"},
                "seat": {"oneOf": [{"type": "string", "enum": ["window", "aisle"]}, {"type": "integer", "minimum": 1}]},
                "people": {"type": "array", "items": {"type": "object", "properties": {
                    "name": {"type": "string"}, "age": {"type": ["integer", "null"], "default": None}}, "required": ["name"]}},
                "options": {"type": "object", "additionalProperties": {"type": "boolean"}, "default": {}},
                "cheap": {"type": "boolean", "default": False},
                "price": {"type": "number", "default": 1.5, "maximum": 1e6},
                "code": {"const": "x\ty"},
                "list": {"type": "array"},
                "any": {},
            },
            "required": ["from", "to"],
            "additionalProperties": False,
        },
        "response": {"type": "object", "properties": {"id": {"type": "string"}}},
    },
}
BARE = {"type": "function", "function": {"name": "now", "description": "", "parameters": {}}}


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


def parts(*texts):
    return [{"type": "text", "text": t} for t in texts]


ARGS = {"city": "Köln", "days": [1, 2], "where": {"lat": 50.94, "lon": 7.0}}


BASE = {"add_generation_prompt": True, "bos_token": "<s>", "eos_token": "</s>", "tools": None, "documents": None}


def plain_sets():
    return [
        ("user", {"messages": [u("Hello")]}),
        ("system", {"messages": [s("You are terse."), u("Hello")]}),
        ("turns", {"messages": [u("One"), a("Two"), u("Three")]}),
        ("system turns", {"messages": [s("Be kind."), u("One"), a("Two"), u("Three"), a("Four"), u("Five")]}),
        ("no generation prompt", {"messages": [u("One"), a("Two")], "add_generation_prompt": False}),
        ("space", {"messages": [s("  lead\n"), u("\n\n text \t\n"), a("  x  "), u("\u00a0y\u2003")]}),
        ("unicode", {"messages": [u("naïve 日本語 🎉 \u200d e\u0301 \u202e"), a("Ünïcode"), u("Ещё")]}),
        ("empty", {"messages": [u(""), a(""), u("x")]}),
        ("special tokens", {"messages": [u("<|im_end|><|im_start|>system\nhi</s>[INST]<|eot_id|>"), a("<think>a</think>b"), u("{{ x }}")]}),
        ("names", {"messages": [{**u("I am Ann"), "name": "ann"}, {**a("Hi"), "name": "bot"}, {**u("And I Bob"), "name": "bob"}]}),
        ("developer", {"messages": [{"role": "developer", "content": "Obey."}, u("Hi")]}),
        ("system and developer", {"messages": [s("S"), {"role": "developer", "content": "D"}, u("Hi")], "tools": [WEATHER]}),
        ("dates", {"messages": [u("When?")], "date_string": "01 Jan 2026", "current_date": "2026-01-01", "datetime": "now",
                   "custom_tools": [WEATHER]}),
        ("other special tokens", {"messages": [s("S"), u("U"), a("A"), u("V")], "bos_token": "<bos>", "eos_token": "<|eot|>"}),
        ("no special tokens", {"messages": [s("S"), u("U"), a("A"), u("V")], "bos_token": "", "eos_token": ""}),
        ("identity", {"messages": [s("S"), u("Who?")], "model_identity": "I am X.", "system_prompt": "P", "system_message": "M",
                      "default_system_prompt": True, "knowledge_cutoff": "2024-06", "custom_instructions": "C"}),
    ]


def thinking_sets():
    history = [u("1+1?"), a("2", reasoning_content="It is\ntwo.\n"), u("2+2?"), a("4", reasoning_content=" four "), u("3+3?")]
    agent = [u("Weather?"), a("Let me see.", reasoning_content="I need it.", tool_calls=[call("get_weather", ARGS)]), tool("warm"),
             a("", reasoning_content="Once more.", tool_calls=[call("get_weather", {"city": "Bonn"}, "call67890")]), tool("cold", call_id="call67890")]
    kept = {"preserve_thinking": True, "clear_thinking": False, "drop_thinking": False, "keep_past_thinking": True,
            "truncate_history_thinking": False, "preserved_thinking": True, "include_thinking": True, "keep_reasoning": True}
    lost = {k: not v for k, v in kept.items()}
    return [
        ("no thinking", {"messages": [u("Hi")], "enable_thinking": False, "thinking": False}),
        ("thinking", {"messages": [u("Hi")], "enable_thinking": True, "thinking": True, "reasoning_effort": "high"}),
        ("effort low", {"messages": [s("S"), u("Hi")], "reasoning_effort": "low", "thinking_effort": "low"}),
        ("effort none", {"messages": [u("Hi")], "enable_thinking": False, "reasoning_effort": "none"}),
        ("effort number", {"messages": [u("Hi")], "reasoning_effort": 0.7, "thinking_budget": 512}),
        ("reasoning", {"messages": [u("1+1?"), a("2", reasoning_content="It is\ntwo.\n"), u("2+2?")]}),
        ("reasoning of turns", {"messages": history}),
        ("reasoning kept", {"messages": [s("S"), *history], "enable_thinking": True, **kept}),
        ("reasoning lost", {"messages": history, "enable_thinking": False, **lost}),
        ("reasoning last", {"messages": history[:-1], "add_generation_prompt": False}),
        ("reasoning by other names", {"messages": [u("1+1?"), a("2", thinking="two", reasoning="zwei"), u("2+2?")]}),
        ("inline reasoning", {"messages": [u("1+1?"), a("<think>\nhm\n</think>\n\n2"), u("2+2?"), a("<think>x</think>4")],
                              "add_generation_prompt": False}),
        ("reasoning and calls", {"messages": agent, "tools": [WEATHER]}),
        ("reasoning and calls kept", {"messages": [*agent, a("Cold.", reasoning_content="Done."), u("Thx")], "tools": [WEATHER],
                                      "enable_thinking": True, **kept}),
        ("reasoning without content", {"messages": [u("Hi"), a(None, reasoning_content="hm"), u("?")]}),
        ("reasoning parts", {"messages": [u("Hi"), a([{"type": "thinking", "thinking": parts("hm")}, *parts("Yes")]), u("?")]}),
    ]


def tool_sets():
    two = [call("get_weather", ARGS, "aaaaaaaaa"), call("search", {"query": None, "n": 1.0, "b": True, "deep": [{"x": [1, "a"]}]}, "bbbbbbbbb")]
    return [
        ("tools", {"messages": [s("Use tools."), u("Weather?")], "tools": [WEATHER, SEARCH]}),
        ("tools without system", {"messages": [u("Weather?")], "tools": [WEATHER]}),
        ("no tools", {"messages": [s("S"), u("Hi")], "tools": []}),
        ("a large schema", {"messages": [u("Book")], "tools": [BOOK, BARE]}),
        ("tools of several turns", {"messages": [s("S"), u("One"), a("Two"), u("Three")], "tools": [BARE, SEARCH], "tool_choice": "auto"}),
        ("a bare function", {"messages": [u("Hi")], "tools": [WEATHER["function"]]}),
        ("a function without parameters", {"messages": [u("Hi")], "tools": [{"type": "function", "function": {"name": "f"}}]}),
        ("call", {"messages": [u("Weather?"), a("", tool_calls=[call("get_weather", ARGS)]), tool('{"t": 21.5}'), a("21.5"), u("Thx")],
                  "tools": [WEATHER]}),
        ("call null content", {"messages": [u("Weather?"), a(None, tool_calls=[call("get_weather", ARGS)]), tool("warm")],
                               "tools": [WEATHER, SEARCH]}),
        ("call without content", {"messages": [u("Weather?"), {"role": "assistant", "tool_calls": [call("get_weather", ARGS)]}, tool("warm")],
                                  "tools": [WEATHER]}),
        ("call text arguments", {"messages": [u("Weather?"), a("", tool_calls=[call("get_weather", json.dumps(ARGS))]), tool("warm")],
                                 "tools": [WEATHER]}),
        ("call empty arguments", {"messages": [u("Now?"), a("", tool_calls=[call("now", {})]), tool("12:00", "now")], "tools": [BARE]}),
        ("call odd arguments", {"messages": [u("Now?"), a("", tool_calls=[call("now", [1, 2]), call("now", "x", "call67890")]), tool("1", "now")],
                                "tools": [BARE]}),
        ("call without a type", {"messages": [u("Now?"), a("", tool_calls=[{"function": {"name": "now", "arguments": {"a": 1}}}]),
                                              {"role": "tool", "content": "12:00"}, u("Thx")], "tools": [BARE]}),
        ("call without function", {"messages": [u("Now?"), a("", tool_calls=[{"id": "call12345", "name": "now", "arguments": {"a": "b"}}]), tool("12:00", "now")],
                                   "tools": [BARE]}),
        ("call at the end", {"messages": [u("Weather?"), a("So.", tool_calls=[call("get_weather", ARGS)])], "tools": [WEATHER],
                             "add_generation_prompt": False}),
        ("no calls", {"messages": [u("Hi"), a("Hi", tool_calls=[]), u("?")], "tools": [WEATHER]}),
        ("null calls", {"messages": [u("Hi"), a("Hi", tool_calls=None), u("?")]}),
        ("two calls", {"messages": [u("Both"), a("Sure.", tool_calls=two), tool("warm", call_id="aaaaaaaaa"), tool("found\n<x>", "search", "bbbbbbbbb"),
                                    u("And?")], "tools": [WEATHER, SEARCH]}),
        ("results in another order", {"messages": [u("Both"), a("", tool_calls=two), tool("found", "search", "bbbbbbbbb"), tool("warm", call_id="aaaaaaaaa"),
                                                   a("Done")], "tools": [WEATHER, SEARCH], "add_generation_prompt": False}),
        ("calls of several turns", {"messages": [s("S"), u("A"), a("", tool_calls=[call("search", {"query": "a"}, "aaaaaaaaa")]), tool("x", "search", "aaaaaaaaa"),
                                                 a("", tool_calls=[call("search", {"query": "b\"\\\n"}, "bbbbbbbbb")]), tool("y", "search", "bbbbbbbbb"),
                                                 a("xy"), u("B"), a("c"), u("D")], "tools": [SEARCH]}),
        ("a result of parts", {"messages": [u("W"), a("", tool_calls=[call("get_weather", ARGS)]), {**tool(""), "content": parts("wa", "rm")}],
                               "tools": [WEATHER]}),
        ("a result of data", {"messages": [u("W"), a("", tool_calls=[call("get_weather", ARGS)]), {**tool(""), "content": {"t": 21.5, "ok": True}}],
                              "tools": [WEATHER]}),
        ("a result without a call", {"messages": [u("W"), tool("warm"), u("?")], "tools": [WEATHER]}),
        ("calls and no tools", {"messages": [u("W"), a("", tool_calls=[call("get_weather", ARGS)]), tool("warm"), a("Warm."), u("Thx")]}),
        ("builtin tools", {"messages": [s("S"), u("Q"), a("", tool_calls=[call("brave_search", {"query": "x y"})]), {"role": "ipython", "content": {"r": [1, "a"]}}],
                           "tools": [WEATHER], "builtin_tools": ["brave_search", "code_interpreter"], "tools_in_user_message": False}),
        ("tools by other names", {"messages": [s("S"), u("Q")], "xml_tools": [WEATHER["function"]], "python_tools": ["def f(): ..."], "functions": [WEATHER["function"]],
                                  "builtin_tools": ["browser", "python"]}),
        ("functions and a date", {"messages": [s("S"), u("Q"), a("", tool_calls=two), tool("warm"), tool("found", "search"), a("Done"), u("And?")],
                                  "functions": [WEATHER["function"], BOOK["function"]], "datetime": "now"}),
        ("a format of the answer", {"messages": [s("S"), u("Q")], "tools": [WEATHER], "response_format": {"type": "json_schema", "json_schema": {
            "name": "x", "schema": {"type": "object", "properties": {"a": {"type": "integer"}}}}}, "response_schema": {"type": "object"}}),
    ]


def content_sets():
    image = {"type": "image"}
    url = {"type": "image_url", "image_url": {"url": "data:,"}}
    return [
        ("parts", {"messages": [u(parts("What is ", "this?")), a("A cat."), u("ok")]}),
        ("parts of all", {"messages": [s(parts("Be", "kind")), u(parts("Hi")), a(parts("Ho", "hum")), u(parts(""))], "tools": [WEATHER]}),
        ("no parts", {"messages": [u([]), a("?"), u("x")]}),
        ("texts as parts", {"messages": [u(["What ", "now?"])]}),
        ("image", {"messages": [u([image, *parts("What?")])]}),
        ("images", {"messages": [u([*parts("A"), url, {"type": "image", "image": "x"}, *parts("B")]), a("C"), u([url])], "add_vision_id": True}),
        ("audio and video", {"messages": [u([{"type": "audio"}, {"type": "video"}, {"type": "input_audio", "input_audio": {}}, *parts("What?")])]}),
        ("an unknown part", {"messages": [u([{"type": "smell", "smell": "x"}, *parts("What?")])]}),
        ("a null content", {"messages": [u(None), a("x"), u("y")]}),
        ("an assistant's null content", {"messages": [u("x"), a(None), u("y")]}),
        ("no content", {"messages": [{"role": "user"}]}),
        ("a number", {"messages": [u(5)]}),
        ("an object", {"messages": [u({"a": 1})]}),
    ]


def order_sets():
    return [
        ("no message", {"messages": []}),
        ("assistant first", {"messages": [a("I begin"), u("?")]}),
        ("bad order", {"messages": [a("I begin"), a("again"), s("late"), u("?")]}),
        ("two users", {"messages": [u("a"), u("b")]}),
        ("two assistants", {"messages": [u("a"), a("b"), a("c")]}),
        ("two systems", {"messages": [s("a"), s("b"), u("c")]}),
        ("system alone", {"messages": [s("a")]}),
        ("system late", {"messages": [u("a"), s("b"), u("c")]}),
        ("system last", {"messages": [u("a"), a("b"), s("c")]}),
        ("result first", {"messages": [tool("x"), u("a")], "tools": [WEATHER]}),
        ("assistant last", {"messages": [u("a"), a("b")]}),
        ("unknown role", {"messages": [u("a"), {"role": "oracle", "content": "b"}, u("c")]}),
        ("no role", {"messages": [{"content": "b"}]}),
        ("role of another case", {"messages": [{"role": "User", "content": "b"}]}),
        ("messages of another type", {"messages": ["a"]}),
    ]


def document_sets():
    docs = [{"title": "T", "text": "Body", "doc_id": 1}, {"title": "Ünï", "text": "Line\nline <x>", "url": "http://x", "n": [1.0, None]}]
    return [
        ("documents", {"messages": [u("Read")], "documents": docs[:1], "citations": True}),
        ("documents and system", {"messages": [s("S"), u("Read"), a("R"), u("More")], "documents": docs, "enable_citations": True, "grounding": "enabled"}),
        ("documents and tools", {"messages": [u("Read")], "documents": docs, "tools": [WEATHER], "controls": {"citations": True, "length": "long"}}),
        ("no documents", {"messages": [u("Read")], "documents": [], "citation_mode": "fast", "safety_mode": "none"}),
        ("documents of one key", {"messages": [u("Read")], "documents": [{"text": "x"}, {"content": "y"}]}),
    ]


def continued_sets():
    """Conversations whose last message is gone on with."""
    calls = [u("W"), a("", tool_calls=[call("get_weather", ARGS)]), tool("warm")]
    return [
        ("an answer", {"messages": [u("Q"), a("It is")]}),
        ("a blank at the end", {"messages": [u("Q"), a("It is ")]}),
        ("lines at the end", {"messages": [s("S"), u("Q"), a("It is:\n\n")]}),
        ("blanks in front", {"messages": [u("Q"), a("\n  It is")]}),
        ("several turns", {"messages": [s("S"), u("A"), a("B"), u("C"), a("D é 日本 🎉")]}),
        ("nothing", {"messages": [u("Q"), a("")]}),
        ("blanks alone", {"messages": [u("Q"), a(" \n")]}),
        ("a thought", {"messages": [u("Q"), a("<think>\nI")]}),
        ("behind a thought", {"messages": [u("Q"), a("<think>\nhm\n</think>\n\nIt is")]}),
        ("a user's message", {"messages": [u("Once upon")]}),
        ("the tag itself", {"messages": [u("CONTINUE_FINAL_MESSAGE_TAG x"), a("a CONTINUE_FINAL_MESSAGE_TAG b")]}),
        ("a result", {"messages": calls, "tools": [WEATHER]}),
        ("behind a result", {"messages": [*calls, a("It is <b>")], "tools": [WEATHER]}),
        ("documents", {"messages": [u("Read"), a("They")], "documents": [{"title": "T", "text": "x"}]}),
        ("no text", {"messages": [u("Q"), {"role": "assistant", "tool_calls": [call("get_weather", ARGS)]}]}),
    ]


def random_sets(seed, n):
    """The same, of random conversations: any role after any other, any content, any variable that the templates know."""
    r = random.Random(seed)
    texts = ["", "Hi", " x \n", "a\n\nb\n", "<think>\nhm\n</think>\n\nyes", "</think>z", "<think>", "ünï 🎉 日本", "it's \"q\" \\ <b>&", "5", "{\"a\": 1}",
             "[TOOL_CALLS]", "<tool_response>x</tool_response>", "/no_think", "/think"]
    values = [None, True, False, 0, 1.5, -7, "x", [], ["a", 1], {}, {"k": "v"}, {"a": {"b": [1, None]}}, "2026-01-01"]
    switches = ["enable_thinking", "thinking", "preserve_thinking", "clear_thinking", "drop_thinking", "keep_past_thinking", "truncate_history_thinking",
                "include_thinking", "preserved_thinking", "add_thoughts", "is_training", "tools_in_user_message", "enable_citations", "skip_thinking",
                "continue_same_model_turn", "render_assistant_messages_raw", "think_render_option", "use_json_tooldef", "add_vision_id", "training_prompt",
                "keep_reasoning", "regen_tool_call_ids", "convert_first_system_msg", "repeat_tokens"]
    words = ["reasoning_effort", "thinking_mode", "thinking_effort", "reasoning_mode", "thinking_budget", "model_identity", "date_string", "current_date",
             "datetime", "system_prompt", "system_message", "custom_instructions", "default_system_prompt", "knowledge_cutoff", "tool_choice", "builtin_tools",
             "custom_tools", "functions", "response_format", "response_schema", "documents", "grounding", "citations", "developer_instruction",
             "platform_instruction_override", "fallback_strategy", "thinking_option", "controls", "tool_namespace_descriptions", "num_img_tokens"]

    def content():
        k = r.random()
        if k < 0.65:
            return r.choice(texts)
        if k < 0.85:
            return [{"type": "text", "text": r.choice(texts)} if r.random() < 0.7 else {"type": r.choice(["image", "image_url", "audio", "video", "x"])}
                    for _ in range(r.randrange(4))]
        return r.choice(values)

    def message():
        m = {"role": r.choice(["system", "developer", "user", "user", "user", "assistant", "assistant", "assistant", "tool", "tool", "ipython"]), "content": content()}
        if m["role"] == "assistant":
            if r.random() < 0.4:
                m["tool_calls"] = [call(r.choice(["get_weather", "search", "now"]), r.choice([ARGS, {}, "{\"x\": 1}", {"q": None, "l": [1.0, True]}]),
                                        r.choice(["call12345", "aaaaaaaaa", "x"])) for _ in range(r.randrange(3))]
            if r.random() < 0.4:
                m[r.choice(["reasoning_content", "thinking", "reasoning"])] = r.choice(texts)
            if r.random() < 0.1:
                del m["content"]
        if m["role"] == "tool" and r.random() < 0.8:
            m.update(tool_call_id=r.choice(["call12345", "aaaaaaaaa"]), name=r.choice(["get_weather", "search"]))
        return m

    for i in range(n):
        v = {**BASE, "messages": [message() for _ in range(r.randrange(1, 7))], "add_generation_prompt": r.random() < 0.8}
        if r.random() < 0.5:
            v["tools"] = r.sample([WEATHER, SEARCH, BOOK, BARE], r.randrange(1, 4))
        v.update({k: r.random() < 0.5 for k in r.sample(switches, r.randrange(5))})
        v.update({k: r.choice(values) if r.random() < 0.5 else r.choice(["low", "high", "none", "auto", "required", "chat", "enabled"])
                  for k in r.sample(words, r.randrange(4))})
        yield f"random {seed}.{i}", v


SENTINEL = "\u2045"


def with_sentinel(v, key=None, inside=False):
    """The same with a character in front of each text that a client is free in, keys of arguments and properties included."""
    if isinstance(v, str):
        return v if key in ("role", "type") and not inside else SENTINEL + v
    if isinstance(v, list):
        return [with_sentinel(x, key, inside) for x in v]
    if isinstance(v, dict):
        return {(SENTINEL + k if inside or key in ("properties", "arguments") else k): with_sentinel(x, k, inside or key == "arguments")
                for k, x in v.items()}
    return v


def sets():
    """(name, variables) pairs; tools and documents are none where a set has no others, as transformers gives them."""
    out = plain_sets() + thinking_sets() + tool_sets() + content_sets() + order_sets() + document_sets()
    out += [("continued: " + name, {**v, "add_generation_prompt": False, "continue_final_message": True}) for name, v in continued_sets()]
    return [(name, {**BASE, **v}) for name, v in out]
