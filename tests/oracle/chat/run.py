#!/usr/bin/env python3
"""Compare capstan's chat templates with Python's jinja2, byte by byte (ctest label `oracle`).

usage: run.py --driver BIN [--work DIR] [--templates DIR] [--random N] [--conversations N] [--seed S] [-v]

Every real template that llama.cpp ships is rendered over messages.py's sets and N random conversations; then N random
templates over random values. Each character of a request that comes out again must lie in a marked range.
Wherever Python renders text, capstan must render the same text; where the template raises an exception of its own, the
same words; where Python fails, capstan must fail as well. Conversations that are continued are rendered by transformers'
own code (continued.py). At least LEAST of the real templates must agree on every set, and the others are those of
EXCEPTIONS; what random templates may differ in is in random_templates.meant. Packages and templates go into the work
folder on the first run.

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
LEAST = 68
# Templates that may differ, each with its reason, as docs/MODELS.md has them.
EXCEPTIONS = {"meetkai-functionary-medium-v3.1": "its safe filter makes transformers escape the tools for HTML"}
# SmolLM2's own template stands in its GGUF file; this is its text.
SMOLLM2 = ("{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\n"
           "You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}"
           "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
           "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")


def in_venv(work):
    """Run this script again where jinja2 and transformers can be imported."""
    try:
        import jinja2  # noqa: F401
        import transformers  # noqa: F401
        return
    except ImportError:
        pass
    home = work / "venv"
    python = home / "bin" / "python"
    if os.environ.get("CAPSTAN_ORACLE_CHILD"):
        sys.exit(77)
    if not python.exists():
        venv.create(home, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "-q", "jinja2==3.1.6", "transformers"], check=True)
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
        variables = dict(variables)
        job = {"continue": variables.pop("continue_final_message", False), "template": template, "vars": variables, "now": now}
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
        return f"Python fails: {text}"
    if kind == "raised" and got["error"] != text.encode()[:511].decode(errors="ignore"):
        return f"raised {text!r}, got {got['error']!r}"
    return None


def show(want, got):
    if want[0] == "text" and "text" in got:
        a, b = want[1], got["text"]
        i = next((k for k in range(min(len(a), len(b))) if a[k] != b[k]), min(len(a), len(b)))
        print(f"    at {i}: python {a[max(0, i - 40):i + 60]!r}")
        print(f"    at {i}: capstan {b[max(0, i - 40):i + 60]!r}")


def compare_real(env, driver, templates, args):
    """True: as many as LEAST agree on all sets, and the others are known."""
    import continued
    import jinja_env
    import messages
    sets = [*messages.sets(), *messages.random_sets(args.seed, args.conversations)]
    bad, renders, errors = {}, 0, 0
    for name, source in templates:
        for case, variables in sets:
            render = continued.render if "continue_final_message" in variables else jinja_env.render
            want = render(env, source, variables)
            got = driver.render(source, variables, jinja_env.NOW)
            renders += want[0] == "text"
            errors += want[0] != "text"
            what = differs(want, got)
            if what:
                bad[name] = bad.get(name, 0) + 1
                print(f"{name} / {case}: {what}")
                show(want, got)
            elif args.v:
                print(f"{name} / {case}: {want[0]}")
    files = [name for name, _ in templates if name != "SmolLM2"]
    print(f"{len(templates) - len(bad)} of {len(templates)} templates (SmolLM2's own and {len(files)} files) agree with jinja2 "
          f"on all {len(sets)} sets ({renders} texts byte-equal or reported above, {errors} errors)")
    unknown = sorted(set(bad) - set(EXCEPTIONS))
    stale = sorted(set(EXCEPTIONS) - set(bad))
    if unknown or stale:
        print("differ without a reason:", unknown, "have a reason and agree:", stale)
    whole = len([f for f in files if f not in bad])
    if whole < LEAST:
        print(f"only {whole} files agree; wanted {LEAST}")
    return not unknown and not stale and whole >= LEAST


def check_marks(driver, templates, args):
    """True: nothing that a request says is outside of the marked ranges."""
    import jinja_env
    import messages
    bad = texts = 0
    sentinel = messages.SENTINEL.encode()
    for name, source in templates:
        for case, variables in [*messages.sets(), *messages.random_sets(args.seed + 1, args.conversations // 4)]:
            given = {k: v if k in ("bos_token", "eos_token") else messages.with_sentinel(v, k) for k, v in variables.items()}
            got = driver.render(source, given, jinja_env.NOW)
            if "error" in got:
                continue
            texts += 1
            text, end, outside = got["text"].encode(), 0, b""
            for a, b in [*got["input"], [len(got["text"].encode())] * 2]:
                outside += text[end:a] + b"|"
                end = b
            if sentinel in outside:
                bad += 1
                print(f"{name} / {case}: unmarked: {outside[max(0, outside.find(sentinel) - 40):][:80]!r}")
    print(f"{texts - bad} of {texts} texts have a mark wherever the request speaks")
    return not bad


def compare_random(env, driver, seed, n):
    import jinja_env
    import random_templates
    bad = texts = 0
    for source, variables in random_templates.cases(seed, n):
        want = jinja_env.render(env, source, variables)
        got = driver.render(source, variables, jinja_env.NOW)
        texts += want[0] == "text"
        what = differs(want, got)
        if what and not random_templates.meant(source, want, got):
            bad += 1
            if bad <= 40:
                print(f"random: {what}\n    {source!r} {json.dumps(variables)}\n    python {want}\n    capstan {got}")
    print(f"{n - bad} of {n} random templates agree ({texts} texts)")
    return not bad


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--driver", required=True)
    ap.add_argument("--work", type=pathlib.Path, default=pathlib.Path("build/oracle-chat"))
    ap.add_argument("--templates", type=pathlib.Path, default=os.environ.get("CAPSTAN_ORACLE_TEMPLATES"))
    ap.add_argument("--random", type=int, default=20000)
    ap.add_argument("--conversations", type=int, default=200)
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("-v", action="store_true")
    args = ap.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    in_venv(args.work)
    sys.path.insert(0, str(HERE))
    import jinja_env

    warnings.simplefilter("ignore")  # Python's remarks on the code that jinja2 makes of odd templates
    env = jinja_env.environment()
    driver = Driver(args.driver)
    folder = pathlib.Path(args.templates) if args.templates else template_dir(args.work)
    templates = [(f.stem, f.read_text(encoding="utf-8")) for f in sorted(folder.glob("*.jinja"))]
    templates.insert(0, ("SmolLM2", SMOLLM2))
    good = compare_real(env, driver, templates, args)
    good = check_marks(driver, templates, args) and good
    good = compare_random(env, driver, args.seed, args.random) and good
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
