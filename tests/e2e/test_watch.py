"""What an operator sees beside /metrics: the audit log and its rotation, /debug/profile, joules from a meter. Standard library only."""
import json
import os
import re
import signal
import tempfile
import threading
import unittest

from harness import Server

TINY = os.path.join(os.path.dirname(__file__), "..", "golden", "tiny", "llama.gguf")
ARGS = (TINY, "--alias", "tiny", "--kv-bytes", "64MiB")
TEXT = "/v1/completions"
SECRET = "words that no log may hold"


def active(server, n, headers):
    """Once so many requests are in flight beside the one that asks."""
    server.wait(lambda: server.metrics(headers)["capstan_requests_active", ""] == n + 1, f"{n} in flight")


class Folder(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.TemporaryDirectory()
        self.addCleanup(self.dir.cleanup)

    def path(self, name):
        return os.path.join(self.dir.name, name)

    def write(self, name, text):
        os.makedirs(os.path.dirname(self.path(name)), exist_ok=True)
        with open(self.path(name), "w", encoding="utf-8") as f:
            f.write(text)
        return self.path(name)

    def read(self, name):
        with open(self.path(name), encoding="utf-8") as f:
            return f.read()


class Audit(Folder):
    def lines(self, server, n, name="audit"):
        """The log's rows, once there are n; the last may come after its answer."""
        server.wait(lambda: os.path.exists(self.path(name)) and self.read(name).count("\n") >= n, f"{n} lines in {name}")
        text = self.read(name)
        self.assertNotIn(SECRET, text)
        return [json.loads(line) for line in text.splitlines()]

    def test_each_request_has_a_line_that_holds_no_text(self):
        keys = self.write("keys", "use-key\nroot-key scopes=admin,inference\n")
        with Server(*ARGS, "--audit-log", self.path("audit"), "--api-key-file", keys) as s:
            use = {"Authorization": "Bearer use-key", "X-Request-Id": "mine"}
            answer = json.loads(s.request(TEXT, {"prompt": SECRET, "max_tokens": 3, "n": 2, "ignore_eos": True}, use)[2])
            self.assertEqual(s.request(TEXT, {"prompt": SECRET, "max_tokens": 3}, {"Authorization": "Bearer " + SECRET.replace(" ", "-")})[0], 401)
            self.assertEqual(s.request(TEXT, {"prompt": SECRET, "stop": 7}, use)[0], 400)
            self.assertEqual(s.request("/v1/models", headers=use)[0], 200)
            self.assertEqual(s.request("/debug/profile", headers=use)[0], 403)
            self.assertEqual(s.status("/livez"), 200)
            rows = self.lines(s, 5)
            self.assertEqual(len(rows), 5)  # probes have none
            first = rows[0]
            self.assertRegex(first.pop("time"), r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$")
            self.assertRegex(first.pop("client"), r"^127\.0\.0\.1:\d+$")
            self.assertRegex(first.pop("key"), r"^sha256:[0-9a-f]{12}$")
            self.assertGreaterEqual(first.pop("ms"), first.pop("ttft_ms"))
            usage = answer["usage"]
            self.assertEqual(first, {
                "id": "mine", "method": "POST", "route": TEXT, "model": "tiny", "status": 200, "bytes": first["bytes"], "stream": False,
                "prompt_tokens": usage["prompt_tokens"], "cached_tokens": 0, "completion_tokens": 6, "finish_reasons": {"length": 2}})
            self.assertEqual([(r["route"], r["status"], r.get("error")) for r in rows[1:]],
                             [(TEXT, 401, "invalid_api_key"), (TEXT, 400, "invalid_value"), ("/v1/models", 200, None),
                              ("/debug/profile", 403, "permission_denied")])
            self.assertNotEqual(rows[1]["key"], rows[2]["key"])
            m = s.metrics(headers=use)
            self.assertEqual(m["capstan_audit_lines_total", '{result="dropped"}'], 0)

    def test_who_leaves_is_told_as_gone(self):
        with Server(*ARGS, "--audit-log", self.path("audit")) as s:
            c = s.stream(TEXT, {"prompt": SECRET, "max_tokens": 2000, "ignore_eos": True, "stream": True})
            c.recv(500)
            c.close()
            row = self.lines(s, 1)[0]
            self.assertEqual((row["client_gone"], row["stream"], row["finish_reasons"]), (True, True, {"cancelled": 1}))
            self.assertNotIn("key", row)

    def test_sighup_opens_the_file_anew(self):
        with Server(*ARGS, "--audit-log", self.path("audit")) as s:
            s.request(TEXT, {"prompt": "x", "max_tokens": 1})
            self.lines(s, 1)
            os.rename(self.path("audit"), self.path("audit.1"))
            s.process.send_signal(signal.SIGHUP)
            s.wait(lambda: os.path.exists(self.path("audit")), "opened anew")
            for _ in range(2):
                s.request(TEXT, {"prompt": "x", "max_tokens": 1})
            self.assertEqual(len(self.lines(s, 2)), 2)
            self.assertEqual(len(self.lines(s, 1, "audit.1")), 1)

    def test_a_file_that_cannot_be_opened_is_named(self):
        os.mkfifo(self.path("pipe"))  # that nobody reads
        for path in ("/none/there/audit", self.dir.name, self.path("pipe")):
            with self.assertRaises(AssertionError) as e:
                Server(*ARGS, "--audit-log", path)
            self.assertIn(f"--audit-log: {path} cannot be opened", str(e.exception))

    def test_what_cannot_be_opened_anew_goes_on_to_the_old_file(self):
        os.mkdir(self.path("folder"))
        with Server(*ARGS, "--audit-log", self.path("folder/audit")) as s:
            os.rename(self.path("folder"), self.path("gone"))
            s.process.send_signal(signal.SIGHUP)
            s.wait(lambda: "cannot be opened" in s.log(), "said")
            self.assertIn("lines go on to the old file", s.log())
            s.request(TEXT, {"prompt": "x", "max_tokens": 1})
            self.lines(s, 1, "gone/audit")

    def test_what_a_client_sends_stays_within_its_line(self):
        with Server(*ARGS, "--audit-log", self.path("audit")) as s:
            forged = 'x\n{"forged": 1}\u2028\x1b[2J'
            self.assertEqual(s.request(TEXT, {"model": forged, "prompt": "x", "user": forged})[0], 404)
            self.assertEqual(s.request(TEXT, {"prompt": "x", "max_tokens": 1, "user": forged})[0], 200)
            self.assertEqual(s.status("/%0a%7b%22forged%22:1%7d"), 404)
            self.assertEqual(s.request("/v1/models", headers={"X-Request-Id": '"},{"forged":"1'})[0], 200)
            rows = self.lines(s, 4)
            self.assertEqual([r["status"] for r in rows], [404, 200, 404, 200])
            self.assertNotIn("forged", "".join(r.get("model", "") + r["id"] for r in rows))
            self.assertEqual(self.read("audit").count("\n"), 4)


class Log(Folder):
    def test_lines_are_objects_and_that_of_a_request_has_its_facts(self):
        name = 'a "quoted"\tname'
        config = self.write("models.toml", f'kv_bytes = "4MiB"\n[[model]]\nref = "{TINY}"\nalias = [{json.dumps(name)}]\n')
        with Server("--config", config, "--log-format", "json") as s:
            s.request(TEXT, {"prompt": SECRET, "max_tokens": 3, "ignore_eos": True}, {"X-Request-Id": "mine"})
            c = s.stream(TEXT, {"prompt": SECRET, "max_tokens": 2000, "ignore_eos": True, "stream": True})
            c.recv(500)
            c.close()
            s.wait_log("client_gone")
            self.assertNotIn(SECRET, s.log())
            rows = [json.loads(line) for line in s.log().splitlines() if not line.startswith("listening on ")]
            self.assertEqual({r["level"] for r in rows} - {"warn"}, {"info"})
            one, gone = [r for r in rows if r["msg"] == "access" and r["path"] == TEXT]
            self.assertEqual({k: v for k, v in one.items() if k not in ("time", "ms", "bytes")}, {
                "level": "info", "msg": "access", "path": TEXT, "id": "mine", "method": "POST", "status": 200, "model": name, "stream": False,
                "prompt_tokens": one["prompt_tokens"], "cached_tokens": 0, "completion_tokens": 3})
            self.assertEqual((gone["client_gone"], gone["stream"]), (True, True))


class Profile(Folder):
    def test_operations_add_up_to_the_steps(self):
        keys = self.write("keys", "root-key scopes=admin,inference\n")
        root = {"Authorization": "Bearer root-key"}
        with Server(*ARGS, "--api-key-file", keys) as s:
            def profile(query=""):
                status, _, body = s.request("/debug/profile" + query, headers=root)
                self.assertEqual(status, 200, body)
                return json.loads(body)

            first = profile()
            self.assertEqual((first["seconds"], first["models"][0]["steps"]), (None, 0))  # a warm-up does not count
            s.request(TEXT, {"prompt": "x", "max_tokens": 50, "ignore_eos": True}, root)
            row = profile()["models"][0]
            self.assertEqual((row["id"], row["steps"]), ("tiny", 50))
            ops = {o["op"]: o for o in row["operations"]}
            self.assertTrue({"embed", "linear", "attention", "sample"} <= set(ops))
            self.assertEqual(ops["sample"]["records"], 50)
            total = sum(o["seconds"] for o in ops.values())
            self.assertLessEqual(total, row["step_seconds"] * 1.001)
            self.assertAlmostEqual(total + row["other_seconds"], row["step_seconds"], places=4)
            # a window has what comes in it
            got = []
            look = threading.Thread(target=lambda: got.append(profile("?seconds=2")))
            look.start()
            active(s, 1, root)
            s.request(TEXT, {"prompt": "x", "max_tokens": 20, "ignore_eos": True}, root)
            look.join()
            window = got[0]
            self.assertGreaterEqual(window["seconds"], 2)
            self.assertEqual(window["models"][0]["steps"], 20)
            for bad in ("0", "61", "x", "", "1.5"):
                status, _, body = s.request("/debug/profile?seconds=" + bad, headers=root)
                self.assertEqual((status, json.loads(body)["error"]["param"]), (400, "seconds"), bad)

    def test_who_leaves_a_window_holds_nothing(self):
        keys = self.write("keys", "root-key scopes=admin,inference\n")
        with Server(*ARGS, "--api-key-file", keys, "--drain-grace", "0ms") as s:
            import socket  # pylint: disable=import-outside-toplevel
            left, stays = (socket.create_connection(("127.0.0.1", s.port)) for _ in range(2))
            for c in (left, stays):
                c.sendall(b"GET /debug/profile?seconds=60 HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer root-key\r\n\r\n")
            active(s, 2, {"Authorization": "Bearer root-key"})
            left.close()
            self.assertEqual(s.status("/livez"), 200)
            s.terminate()
            self.assertEqual(s.process.wait(20), 0)
            stays.close()

    def test_without_keys_it_is_closed(self):
        with Server(*ARGS) as s:
            self.assertEqual(s.request("/debug/profile")[0], 403)


class Energy(Folder):
    """A meter made of files, which this test moves on."""

    def zone(self, name, what, uj, most=1_000_000_000):
        for file, text in (("name", what), ("max_energy_range_uj", most), ("energy_uj", uj)):
            self.write(f"{name}/{file}", f"{text}\n")

    def set(self, name, uj):
        path = self.path(f"{name}/energy_uj")
        with open(path, "r+", encoding="utf-8") as f:  # the server keeps it open
            f.write(f"{uj}\n")
            f.truncate()

    def joules(self, s, domain):
        return s.metric("capstan_energy_joules_total", f'domain="{domain}"')

    def counted(self, s, package, dram):
        s.wait(lambda: (self.joules(s, "package"), self.joules(s, "dram")) == (package, dram), f"{package} and {dram} J counted")

    def server(self, *args):
        return Server(*ARGS, *args, env={"CAPSTAN_POWERCAP": self.dir.name})

    def test_joules_are_counted_across_a_wrap(self):
        self.zone("intel-rapl:0", "package-0", 999_000_000)
        self.zone("intel-rapl:0:0", "core", 1)
        self.zone("intel-rapl:0:1", "dram", 5_000_000)
        self.zone("intel-rapl:1", "psys", 7)
        self.zone("intel-rapl-mmio:0", "package-0", 1)
        with self.server() as s:
            self.assertNotIn("energy", s.request("/metrics")[2].decode())
            self.set("intel-rapl:0", 2_000_000)  # 1 J to the end, 2 J from 0 on
            self.set("intel-rapl:0:1", 6_000_000)
            self.counted(s, 3, 1)
            # a meter that tells nothing, or nonsense, is left out, and goes on with what it tells then
            for n, bad in enumerate(("", "x", 1_000_000_001)):
                self.set("intel-rapl:0", bad)
                self.set("intel-rapl:0:1", 7_000_000 + n * 1_000_000)
                self.counted(s, 3, 2 + n)
            self.set("intel-rapl:0", 3_000_000)
            self.counted(s, 4, 4)
            self.assertNotIn("capstan_model_energy", s.request("/metrics")[2].decode())  # nobody computed anything for it

    def test_joules_are_divided_by_rows(self):
        self.zone("intel-rapl:0", "package-0", 0)
        with self.server("--audit-log", self.path("audit")) as s:
            def take(joules):
                self.taken += joules
                self.set("intel-rapl:0", self.taken * 1_000_000)
                self.counted(s, self.taken, 0)

            def now():
                return [s.metric(f"capstan_{name}") for name in ("model_energy_joules_total", "step_rows_total", "request_energy_joules_sum")]

            def ask(n):
                s.request(TEXT, {"prompt": "xy", "max_tokens": n, "ignore_eos": True})

            def attempt():
                """Two requests of which the second costs as much a row as the first. A reading that falls into one of them spoils it."""
                take(1)  # the rows before are paid for
                joules, rows, _ = now()
                ask(9)
                take(4)
                paid, after, cost = now()
                ask(4)
                _, end, more = now()
                return paid - joules, more - cost, (end - after) * 4 / (after - rows)

            self.taken = 0
            seen = []
            while not seen or abs(seen[-1][0] - 4) + abs(seen[-1][1] - seen[-1][2]) > 1e-5:
                self.assertLess(len(seen), 20, seen)
                seen.append(attempt())
            s.wait(lambda: self.read("audit").count(TEXT) >= 2 * len(seen), "their lines")
            rows = [json.loads(line) for line in self.read("audit").splitlines()]
            self.assertAlmostEqual([r for r in rows if r["route"] == TEXT][-1]["joules"], seen[-1][1], places=5)

    def test_without_a_meter_there_is_no_series(self):
        with Server(*ARGS, env={"CAPSTAN_POWERCAP": self.path("none")}) as s:
            s.request(TEXT, {"prompt": "x", "max_tokens": 3})
            self.assertIsNone(re.search("energy|joules", s.request("/metrics")[2].decode()))


if __name__ == "__main__":
    unittest.main()
