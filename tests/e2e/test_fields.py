"""Every value of every field at every route, from the table's own rows, against the real binary: the verdict is what the
table (and docs/API.md) says, an error names its field, and nothing is answered with 5xx."""
import collections
import http.client
import json
import os
import pathlib
import subprocess
import tempfile
import unittest

from harness import Server

MODEL = pathlib.Path(__file__).resolve().parents[1] / "golden" / "tiny" / "llama.gguf"
TEMPLATE = "{% for m in messages %}{{ m.content }}{% endfor %}{{ reasoning_effort }}"
CHAT = {"messages": [{"role": "user", "content": "a"}], "max_tokens": 2}
BODIES = {"/v1/chat/completions": CHAT, "/v1/completions": {"prompt": "a", "max_tokens": 2}, "/apply-template": CHAT,
          "/tokenize messages": CHAT, "/tokenize": {"content": "a"}, "/detokenize": {"tokens": [5]},
          "/v2/models/{model}/infer": {"inputs": [{"name": "text_input", "datatype": "BYTES", "shape": [1], "data": ["a"]}]}}


def rows():
    out = subprocess.run([os.environ["CAPSTAN_GEN_API"], "--json"], stdout=subprocess.PIPE, check=True).stdout
    return [json.loads(line) for line in out.splitlines()]


class Fields(unittest.TestCase):
    def test_every_verdict(self):
        cases = rows()
        self.assertGreaterEqual(len(cases), 400)
        wrong, seen = [], collections.Counter()
        with tempfile.NamedTemporaryFile("w", suffix=".jinja", encoding="utf-8") as f:
            f.write(TEMPLATE)
            f.flush()
            with Server(str(MODEL), "--alias", "tiny", "--ctx", "128", "--threads", "1", "--chat-template-file", f.name) as s:
                connection = http.client.HTTPConnection("127.0.0.1", s.port, timeout=120)
                for case in cases:
                    got = self.ask(connection, case)
                    seen[case["route"], case["verdict"]] += 1
                    if got != case["verdict"]:
                        wrong.append(f"{case['route']} {case['field']}: {case['value']} ({case['kind']}) is {got}, "
                                     f"the table says {case['verdict']}")
                connection.close()
                self.assertEqual(s.request("/readyz")[0], 200)
        print(f"{len(cases)} requests: " + ", ".join(f"{n} {route} {v}" for (route, v), n in sorted(seen.items())))
        self.assertFalse(wrong, "\n" + "\n".join(wrong))

    def ask(self, connection, case):
        body = {k: v for k, v in BODIES[case["route"]].items()
                if k != case["field"] and not (k == "content" and case["field"] == "prompt")}
        beside = "," + case["beside"] if case["beside"] else ""
        text = json.dumps({**body, case["field"]: 0})[:-2] + case["value"] + beside + "}"
        connection.request("POST", case["route"].split()[0].format(model="tiny"), text, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        data = answer.read()
        self.assertLess(answer.status, 500, text)
        if answer.status == 200:
            return case["verdict"] if case["verdict"] in ("accepted", "ignored") else "200"
        error = json.loads(data)["error"]
        if isinstance(error, str):  # the Open Inference Protocol's: words alone
            self.assertEqual(answer.status, 400, text)
            self.assertIn(case["field"], error)
            return case["verdict"] if case["verdict"] not in ("accepted", "ignored") else error
        self.assertEqual(answer.status, 404 if error["code"] == "model_not_found" else 400, text)
        if error["code"] != "missing_field":
            self.assertTrue(error["param"].startswith(case["field"]), error)
            self.assertIn(case["field"], error["message"])
        return error["code"]


if __name__ == "__main__":
    unittest.main(verbosity=2)
