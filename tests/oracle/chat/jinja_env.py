"""The Jinja environment that chat templates are written for: transformers' settings over jinja2 3.1's immutable sandbox.

from_json is there as llama.cpp has it, as some of the templates that it ships use it.
"""
import datetime
import functools
import json

import jinja2
import jinja2.ext
import jinja2.nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

NOW = 1764068645  # 2025-11-25 11:04:05 UTC


class Generation(jinja2.ext.Extension):
    """The generation tag: its body in a scope of its own."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

    def _body(self, caller):
        return caller()


class RaisedByTemplate(jinja2.exceptions.TemplateError):
    """raise_exception: its text must come out unchanged."""


def raise_exception(message):
    raise RaisedByTemplate(message)


def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def strftime_now(fmt):
    return datetime.datetime.fromtimestamp(NOW, datetime.timezone.utc).replace(tzinfo=None).strftime(fmt)


class Lazy:
    """A generator whose text has no address in it."""

    def __init__(self, items):
        self.items = iter(items)

    def __iter__(self):
        return self

    def __next__(self):
        return next(self.items)

    def __repr__(self):
        return "<generator>"


def lazily(function):
    """The filter with its generator (or reversed iterator) wrapped."""

    def wrapped(*args, **kwargs):
        out = function(*args, **kwargs)
        return Lazy(out) if hasattr(out, "__next__") and not isinstance(out, (str, list)) else out

    if hasattr(function, "jinja_pass_arg"):  # what Jinja hands in first
        wrapped.jinja_pass_arg = function.jinja_pass_arg
    return wrapped


@functools.lru_cache(maxsize=1)
def compiled(env, template):
    """The sets of one template come one after the other."""
    return env.from_string(template)


def environment():
    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True,
                                        extensions=[Generation, jinja2.ext.loopcontrols])
    env.filters.update(tojson=tojson, from_json=json.loads, fromjson=json.loads)
    env.globals.update(raise_exception=raise_exception, strftime_now=strftime_now)
    for name in ("batch", "items", "map", "reject", "rejectattr", "reverse", "select", "selectattr", "slice", "unique"):
        env.filters[name] = lazily(env.filters[name])
    return env


def render(env, template, variables):
    """("text", str) or ("raised", text of raise_exception) or ("error", what Python said)."""
    try:
        return "text", compiled(env, template).render(**json.loads(json.dumps(variables)))
    except RaisedByTemplate as e:
        return "raised", str(e)
    except Exception as e:  # whatever Python raises is an error of the template
        return "error", f"{type(e).__name__}: {e}"
