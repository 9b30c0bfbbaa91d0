"""The container of deploy/Containerfile, as a cluster runs it (label containers, as root): built with buildah from a root that
mmdebstrap made, run with podman as a user without a name, read-only, without capabilities; models from a volume, from a second
container (modelcar) and pulled by `capstan pull`; KServe's client and OpenAI's; SIGTERM.

CAPSTAN_MODEL (SmolLM2), CAPSTAN_KSERVE_VENV; CAPSTAN_BASE: an image to build from and on in place of the new root;
CAPSTAN_IMAGE: an image that is built already."""
import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/fakes"))
sys.path.insert(0, str(ROOT / "tests/e2e"))
MODEL = pathlib.Path(os.environ["CAPSTAN_MODEL"])
PODMAN = ["podman", "--runtime", "runc", "--cgroup-manager", "cgroupfs"]
UID = "1000770000"
HARD = ["--user", f"{UID}:0", "--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--network=host",
        "--ulimit", "nofile=20000", "--ulimit", "nproc=20000"]


def run(*words, **more):
    done = subprocess.run(words, capture_output=True, text=True, check=False, **more)
    if done.returncode:
        raise AssertionError(f"{' '.join(map(str, words))}: {done.returncode}\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
    return done.stdout.strip()


def build_image():
    base = os.environ.get("CAPSTAN_BASE")
    if not base:
        with tempfile.TemporaryDirectory() as folder:
            tar = f"{folder}/root.tar"
            run("mmdebstrap", "--variant=apt", "--include=ca-certificates", "bookworm", tar)
            base = "localhost/capstan-base:1"
            run(*PODMAN, "import", "-q", tar, base)
    run("buildah", "bud", "--isolation", "chroot", "--ulimit", "nofile=20000", "--build-arg", f"BUILD_BASE={base}", "--build-arg", f"RUN_BASE={base}",
        "-f", str(ROOT / "deploy/Containerfile"), "-t", "localhost/capstan:test", str(ROOT))
    return "localhost/capstan:test"


def setUpModule():
    global IMAGE
    IMAGE = os.environ.get("CAPSTAN_IMAGE") or build_image()


class Container:
    """podman run -d, hardened; a context."""

    def __init__(self, *options, args=(), image=None):
        self.id = run(*PODMAN, "run", "-d", *HARD, *options, image or IMAGE, *args)

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind:
            sys.stderr.write(self.log())
        subprocess.run([*PODMAN, "rm", "-f", "-t", "0", self.id], capture_output=True, check=False)

    def log(self):
        done = subprocess.run([*PODMAN, "logs", self.id], capture_output=True, text=True, check=False)
        return done.stdout + done.stderr

    def state(self):
        return json.loads(run(*PODMAN, "inspect", self.id))[0]["State"]


def free_port():
    import socket  # pylint: disable=import-outside-toplevel
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def get(port, path, body=None):
    r = urllib.request.Request(f"http://127.0.0.1:{port}{path}", None if body is None else json.dumps(body).encode())
    try:
        with urllib.request.urlopen(r, timeout=120) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as e:
        return e.code, e.read()
    except OSError:
        return 0, None


class Containers(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.top = pathlib.Path(self.folder.name)
        self.top.chmod(0o755)

    def until(self, condition, what, container):
        end = time.monotonic() + 300
        while not condition():
            self.assertTrue(container.state()["Running"], container.log())
            self.assertLess(time.monotonic(), end, what + container.log())
            time.sleep(0.2)

    def serve(self, *options, args=()):
        """A server of the image's own command line, and more; what it answers as a cluster asks it."""
        port = free_port()
        return port, Container(*options, args=["serve", "/mnt/models", "--host", "127.0.0.1", "--port", str(port), "--alias", "smol",
                                               "--kv-bytes", "128MiB", "--ctx", "512", "--drain-grace", "1s", *args])

    def check(self, port, container):
        self.until(lambda: get(port, "/v2/health/ready")[0] == 200, "not ready", container)
        status, answer = get(port, "/v2/models/smol/infer", {"inputs": [
            {"name": "text_input", "datatype": "BYTES", "shape": [1], "data": ["The capital of France is"]}],
            "parameters": {"max_tokens": 4, "temperature": 0}})
        self.assertEqual(status, 200, answer)
        self.assertIn("Paris", answer["outputs"][0]["data"][0])

    def model_folder(self):
        shutil.copy(MODEL, self.top / "model.gguf")
        (self.top / "model.gguf").chmod(0o644)
        return self.top

    def test_a_volume_and_the_clients_and_the_end(self):
        port, c = self.serve("-v", f"{self.model_folder()}:/mnt/models:ro", "--tmpfs", "/cache:mode=1777")
        with c:
            self.check(port, c)
            if os.environ.get("CAPSTAN_KSERVE_VENV"):
                run(os.environ["CAPSTAN_KSERVE_VENV"] + "/bin/python", str(ROOT / "tests/clients/test_kserve.py"),
                    env={**os.environ, "CAPSTAN_URL": f"http://127.0.0.1:{port}"})
            uid = [line.split()[1] for line in pathlib.Path(f"/proc/{c.state()['Pid']}/status").read_text().splitlines()
                   if line.startswith(("Uid:", "CapEff:", "NoNewPrivs:"))]
            self.assertEqual(uid, [UID, "0000000000000000", "1"])
            # a stream goes on over SIGTERM, and the container ends by itself
            stream = urllib.request.urlopen(urllib.request.Request(
                f"http://127.0.0.1:{port}/v1/completions",
                json.dumps({"prompt": "One, two,", "max_tokens": 60, "stream": True, "ignore_eos": True}).encode()), timeout=120)
            stream.readline()
            os.kill(c.state()["Pid"], signal.SIGTERM)
            self.until(lambda: get(port, "/v2/health/ready")[0] == 503, "still ready", c)
            self.assertTrue(stream.read().rstrip().endswith(b"data: [DONE]"))
            end = time.monotonic() + 60
            while c.state()["Running"]:
                self.assertLess(time.monotonic(), end, c.log())
                time.sleep(0.1)
            self.assertEqual(c.state()["ExitCode"], 0, c.log())

    def test_nothing_is_written(self):
        """Without a place to write to it serves all the same: weights are packed into memory."""
        port, c = self.serve("-v", f"{self.model_folder()}:/mnt/models:ro")
        with c:
            self.check(port, c)

    def test_a_modelcar(self):
        """KServe's way: the model lies in a second container, of the same user and process namespace, behind /proc/PID/root."""
        car = self.top / "car"
        (car / "models").mkdir(parents=True)
        shutil.copy(MODEL, car / "models/model.gguf")
        for path in (car, car / "models"):
            path.chmod(0o755)
        (car / "models/model.gguf").chmod(0o644)
        made = run("buildah", "from", IMAGE)
        run("buildah", "copy", "-q", made, str(car / "models"), "/models")
        run("buildah", "commit", "-q", made, "localhost/capstan-car:test")
        run("buildah", "rm", made)
        # it holds the model and does nothing: a server without models would do, one that waits for a pipe does less
        with Container("--entrypoint", "/usr/bin/capstan", image="localhost/capstan-car:test",
                       args=["serve", "/models", "--host", "127.0.0.1", "--port", str(free_port()), "--kv-bytes", "64MiB"]) as holder:
            pid = holder.state()["Pid"]
            link = self.top / "mnt"
            link.mkdir(mode=0o755)
            (link / "models").symlink_to("/proc/1/root/models")
            port = free_port()
            with Container("--pid", f"container:{holder.id}", "-v", f"{link}:/mnt", args=[
                    "serve", "/mnt/models", "--host", "127.0.0.1", "--port", str(port), "--alias", "smol", "--kv-bytes", "128MiB", "--ctx", "512"]) as c:
                self.assertGreater(pid, 1)
                self.check(port, c)

    def test_a_pulled_artifact(self):
        from registry import Registry  # pylint: disable=import-outside-toplevel
        with contextlib.closing(Registry().start()) as registry:
            kind = "application/vnd.oci.image.manifest.v1+json"
            content, cncf = registry.content, "application/vnd.cncf.model."
            layer = content.blob(MODEL.read_bytes(), cncf + "weight.v1.raw", annotations={"org.cncf.model.filepath": "model.gguf"})
            config = content.blob(b'{"modelfs":{"type":"layers","diffIds":[]}}', cncf + "config.v1+json")
            content.manifest("models/smollm2", "v1", {"schemaVersion": 2, "mediaType": kind, "artifactType": cncf + "manifest.v1+json",
                                                      "config": config, "layers": [layer]}, kind)
            shared = self.top / "shared"
            shared.mkdir()
            shared.chmod(0o777)
            # as KServe calls its storage containers: the URI and the folder
            run(*PODMAN, "run", "--rm", *HARD, "-v", f"{shared}:/mnt/models", IMAGE, "pull",
                f"docker://{registry.host}/models/smollm2:v1", "/mnt/models")
        port, c = self.serve("-v", f"{shared}:/mnt/models:ro", "--tmpfs", "/cache:mode=1777")
        with c:
            self.check(port, c)


if __name__ == "__main__":
    unittest.main(verbosity=2)
