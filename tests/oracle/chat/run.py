#!/usr/bin/env python3
"""Compare capstan's chat templates with Python's jinja2, byte by byte (ctest label `oracle`).

usage: run.py --driver BIN [--work DIR] [--templates DIR] [--random N] [--seed S] [-v]

Every real template that llama.cpp ships is rendered over messages.py's sets; then N random templates over random values.
Wherever Python renders text, capstan must render the same text; where the template raises an exception of its own, the
same words; where Python fails, capstan must fail as well (the differences that are meant are listed in MEANT).
The required templates must agree on every set. Packages and templates go into the work folder on the first run.

exit status: 0 all as it should be, 1 differences (printed), 77 something that is needed is not there.
"""
import argparse
import json
import os
import pathlib
import subprocess
import sys
import tarfile
import venv
import warnings

HERE = pathlib.Path(__file__).resolve().parent
REQUIRED = ["HuggingFaceTB-SmolLM3-3B", "meta-llama-Llama-3.1-8B-Instruct", "meta-llama-Llama-3.2-3B-Instruct",
            "meta-llama-Llama-3.3-70B-Instruct", "Qwen-Qwen2.5-7B-Instruct", "Qwen-Qwen3-0.6B"]
# SmolLM2's own template stands in its GGUF file; this is its text.
SMOLLM2 = ("{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\n"
           "You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}"
           "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
           "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")
# Where capstan renders and Python fails, on purpose: tojson of what map and select give.
MEANT = ("Object of type Lazy is not JSON serializable",)


def in_venv(work):
    """Run this script again where jinja2 can be imported."""
    try:
        import jinja2  # noqa: F401
        return
    except ImportError:
        pass
    home = work / "venv"
    python = home / "bin" / "python"
    if os.environ.get("CAPSTAN_ORACLE_CHILD"):
        sys.exit(77)
    if not python.exists():
        venv.create(home, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "-q", "jinja2==3.1.6"], check=True)
    os.execve(python, [str(python), *sys.argv], {**os.environ, "CAPSTAN_ORACLE_CHILD": "1"})


def template_dir(work):
    """The folder of real templates, taken from the sources of llama-cpp-python."""
    out = work / "templates"
    if not list(out.glob("*.jinja")):
        out.mkdir(parents=True, exist_ok=True)
        if not list(work.glob("llama_cpp_python-*.tar.gz")):
            subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:",
                            "-d", str(work), "llama-cpp-python"], check=False)
        archive = sorted(work.glob("llama_cpp_python-*.tar.gz"))
        if not archive:
            print("run.py: llama-cpp-python's sources could not be fetched")
            sys.exit(77)
        with tarfile.open(archive[-1]) as tar:
            for m in tar:
                if "/vendor/llama.cpp/models/templates/" in m.name and m.name.endswith(".jinja"):
                    (out / pathlib.Path(m.name).name).write_bytes(tar.extractfile(m).read())
    return out


class Driver:
    """The C renderer as a child process, a line in and a line out."""

    def __init__(self, path):
        self.p = subprocess.Popen([path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def render(self, template, variables, now):
        job = {"template": template, "vars": variables, "now": now}
        self.p.stdin.write(json.dumps(job).encode() + b"\n")
        self.p.stdin.flush()
        line = self.p.stdout.readline()
        if not line:
            print("the driver died on", json.dumps(job))
            sys.exit(1)
        return json.loads(line)


def differs(want, got):
    """None, or what is different."""
    kind, text = want
    if kind == "text":
        if "error" in got:
            return "capstan fails: " + got["error"]
        return None if got["text"] == text else "different text"
    if "error" not in got:
        return None if any(m in text for m in MEANT) else f"Python fails: {text}"
    if kind == "raised" and got["error"] != text.encode()[:511].decode(errors="ignore"):
        return f"raised {text!r}, got {got['error']!r}"
    return None


def show(want, got):
    if want[0] == "text" and "text" in got:
        a, b = want[1], got["text"]
        i = next((k for k in range(min(len(a), len(b))) if a[k] != b[k]), min(len(a), len(b)))
        print(f"    at {i}: python {a[max(0, i - 40):i + 60]!r}")
        print(f"    at {i}: capstan {b[max(0, i - 40):i + 60]!r}")


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--driver", required=True)
    ap.add_argument("--work", type=pathlib.Path, default=pathlib.Path("build/oracle-chat"))
    ap.add_argument("--templates", type=pathlib.Path, default=os.environ.get("CAPSTAN_ORACLE_TEMPLATES"))
    ap.add_argument("--random", type=int, default=20000)
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("-v", action="store_true")
    args = ap.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    in_venv(args.work)
    sys.path.insert(0, str(HERE))
    import jinja_env
    import messages
    import random_templates

    warnings.simplefilter("ignore")  # Python's remarks on the code that jinja2 makes of odd templates
    env = jinja_env.environment()
    driver = Driver(args.driver)
    folder = pathlib.Path(args.templates) if args.templates else template_dir(args.work)
    templates = [(f.stem, f.read_text(encoding="utf-8")) for f in sorted(folder.glob("*.jinja"))]
    templates.insert(0, ("SmolLM2", SMOLLM2))
    good = renders = errors = 0
    bad_required = []
    for name, source in templates:
        bad = 0
        for case, variables in messages.sets():
            want = jinja_env.render(env, source, variables)
            got = driver.render(source, variables, jinja_env.NOW)
            renders += want[0] == "text"
            errors += want[0] != "text"
            what = differs(want, got)
            if what:
                bad += 1
                print(f"{name} / {case}: {what}")
                show(want, got)
            elif args.v:
                print(f"{name} / {case}: {want[0]}")
        good += not bad
        if bad and (name in REQUIRED or name == "SmolLM2"):
            bad_required.append(name)
    missing = [r for r in REQUIRED if r not in dict(templates)]
    n_sets = len(messages.sets())
    print(f"{good} of {len(templates)} templates (SmolLM2's own and {len(templates) - 1} files) agree with jinja2 on all {n_sets} sets "
          f"({renders} texts byte-equal or reported above, {errors} errors)")
    rows = list(random_templates.cases(args.seed, args.random))
    bad_random = texts = 0
    for source, variables in rows:
        want = jinja_env.render(env, source, variables)
        got = driver.render(source, variables, jinja_env.NOW)
        texts += want[0] == "text"
        what = differs(want, got)
        if what and not random_templates.meant(source, want, got):
            bad_random += 1
            if bad_random <= 40:
                print(f"random: {what}\n    {source!r} {json.dumps(variables)}\n    python {want}\n    capstan {got}")
    print(f"{len(rows) - bad_random} of {len(rows)} random templates agree ({texts} texts)")
    if bad_required or missing:
        print("required templates that differ or are missing:", *bad_required, *missing)
    sys.exit(1 if bad_required or missing or bad_random else 0)


if __name__ == "__main__":
    main()
