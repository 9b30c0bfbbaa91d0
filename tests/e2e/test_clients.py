"""What clients send, recorded from their released versions (clients.json: one request a row, as it came, key and host left out;
token ids are shorter), walked against the real binary: an answer, or the refusal of the field that the row names."""
import json
import pathlib
import tempfile
import unittest

from harness import Server

HERE = pathlib.Path(__file__).resolve().parent
MODEL = HERE.parent / "golden" / "tiny" / "llama.gguf"
TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{{ reasoning_effort }}"


class Clients(unittest.TestCase):
    def test_what_clients_send(self):
        rows = json.loads((HERE / "clients.json").read_text(encoding="utf-8"))
        self.assertGreaterEqual(len(rows), 30)
        with tempfile.NamedTemporaryFile("w", suffix=".jinja", encoding="utf-8") as f:
            f.write(TEMPLATE)
            f.flush()
            with Server(str(MODEL), "--alias", "smol", "--ctx", "1024", "--threads", "1", "--chat-template-file", f.name) as s:
                for row in rows:
                    with self.subTest(row["client"], body=row["body"]):
                        self.one(s, row)

    def one(self, s, row):
        body = row["body"]
        status, headers, data = s.request(row["path"], body, {**row["headers"], "Content-Type": "application/json"})
        if "refused" in row:
            error = json.loads(data)["error"]
            self.assertEqual((status, error["code"], error["param"]), (400, "unsupported_field", row["refused"]))
            return
        self.assertEqual(status, 200, data)
        if not body.get("stream"):
            self.assertGreater(json.loads(data)["usage"]["prompt_tokens"], 0)
            return
        self.assertTrue(headers["Content-Type"].startswith("text/event-stream"))
        events = [line[6:] for line in data.decode().splitlines() if line.startswith("data: ")]
        self.assertEqual(events[-1], "[DONE]")
        last = json.loads(events[-2])
        asked = (body.get("stream_options") or {}).get("include_usage")
        self.assertEqual(bool(last.get("usage")), bool(asked))


if __name__ == "__main__":
    unittest.main(verbosity=2)
