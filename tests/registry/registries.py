"""The registries of the table, on free ports of loopback: Debian's docker-registry open, with htpasswd over TLS, with
tokens over TLS, redirecting its blobs to nginx, and as a pull-through mirror. All but the mirror share one folder of
data, so that what is pushed to the open one is everywhere."""
import base64
import http.server
import json
import os
import pathlib
import signal
import socket
import ssl
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

USER, PASSWORD = "alice", "s3cret"


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def run(*args, **more):
    done = subprocess.run(args, capture_output=True, text=True, check=False, **more)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, args))}: exit {done.returncode}: {done.stderr[-1000:]}")
    return done.stdout


class TokenServer:
    """RS256 tokens for docker-registry; over TLS."""

    def __init__(self, folder):
        self.folder = folder
        certificate = ssl.PEM_cert_to_DER_cert((folder / "token.crt").read_text())
        self.x5c = [base64.b64encode(certificate).decode()]
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):  # pylint: disable=invalid-name
                kind, _, value = (self.headers.get("Authorization") or "").partition(" ")
                known = kind == "Basic" and base64.b64decode(value).decode() == f"{USER}:{PASSWORD}"
                body = json.dumps(outer.answer(self.path, known)).encode()
                self.send_response(200 if known or not kind else 401)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):  # pylint: disable=arguments-differ
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "srv.crt", folder / "srv.key")
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.url = f"https://127.0.0.1:{self.server.server_address[1]}/token"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def answer(self, path, known):
        query = urllib.parse.parse_qs(urllib.parse.urlparse(path).query)
        access = []
        for scope in " ".join(query.get("scope", [])).split():
            kind, name, actions = scope.split(":")
            access.append({"type": kind, "name": name, "actions": actions.split(",") if known else []})
        now = int(time.time())

        def part(data):
            return base64.urlsafe_b64encode(data if isinstance(data, bytes) else json.dumps(data).encode()).rstrip(b"=")
        text = part({"typ": "JWT", "alg": "RS256", "x5c": self.x5c}) + b"." + part({
            "iss": "table", "sub": USER if known else "", "aud": "table", "exp": now + 120, "nbf": now - 5, "iat": now,
            "jti": os.urandom(8).hex(), "access": access})
        signature = subprocess.run(["openssl", "dgst", "-sha256", "-sign", self.folder / "token.key"], input=text,
                                   capture_output=True, check=True).stdout
        return {"token": (text + b"." + part(signature)).decode(), "expires_in": 120}


class Registries:
    """Starts all of them; a context manager."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.processes = []
        self.data = self.folder / "data"
        self.data.mkdir()
        self.keys()

    def keys(self):
        new = ["openssl", "req", "-newkey", "rsa:2048", "-nodes", "-days", "30"]
        f = self.folder
        run(*new, "-x509", "-subj", "/CN=table-ca", "-keyout", f / "ca.key", "-out", f / "ca.crt")
        run(*new, "-x509", "-subj", "/CN=table-token", "-keyout", f / "token.key", "-out", f / "token.crt")
        run(*new[:-2], "-subj", "/CN=localhost", "-keyout", f / "srv.key", "-out", f / "srv.csr")
        (f / "ext").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
        run("openssl", "x509", "-req", "-in", f / "srv.csr", "-CA", f / "ca.crt", "-CAkey", f / "ca.key", "-CAcreateserial",
            "-days", "30", "-extfile", f / "ext", "-out", f / "srv.crt")
        (f / "htpasswd").write_text(run("htpasswd", "-Bbn", USER, PASSWORD))

    def docker_registry(self, name, more="", tls=False, data=None):
        port = free_port()
        config = self.folder / f"{name}.yml"
        lines = ["version: 0.1", "log: {level: error, accesslog: {disabled: true}}",
                 f"storage: {{filesystem: {{rootdirectory: {data or self.data}}}, delete: {{enabled: true}}}}",
                 "http:", f"  addr: 127.0.0.1:{port}", "  secret: notsecret"]
        if tls:
            lines.append(f"  tls: {{certificate: {self.folder}/srv.crt, key: {self.folder}/srv.key}}")
        config.write_text("\n".join(lines + [more]) + "\n")
        self.start(name, ["docker-registry", "serve", config], port)
        return f"127.0.0.1:{port}"

    def start(self, name, command, port):
        with open(self.folder / f"{name}.log", "wb") as log:
            p = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        self.processes.append(p)
        end = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return
            except OSError:
                if p.poll() is not None or time.monotonic() > end:
                    raise RuntimeError(f"{name} does not start: {(self.folder / f'{name}.log').read_text()[-1000:]}") from None
                time.sleep(0.05)

    def nginx(self, name="nginx", location="", root=None, http_more=""):
        """nginx over `root` (the registry's data); its access log has the Authorization and Range headers."""
        port = free_port()
        f = self.folder / name
        f.mkdir()
        (f / "nginx.conf").write_text(f"""
user root;
worker_processes 2;
daemon off;
pid {f}/pid;
error_log {f}/error.log;
events {{ worker_connections 512; }}
http {{
  log_format table '$request_method $uri auth=$http_authorization range=$http_range status=$status sent=$body_bytes_sent';
  access_log {f}/access.log table;
  sendfile on;
  {http_more}
  client_body_temp_path {f}; proxy_temp_path {f}; fastcgi_temp_path {f}; uwsgi_temp_path {f}; scgi_temp_path {f};
  server {{ listen 127.0.0.1:{port}; root {root or self.data}; default_type application/octet-stream; {location} }}
}}
""")
        self.start(name, ["nginx", "-c", f / "nginx.conf", "-p", f], port)
        return f"127.0.0.1:{port}", f / "access.log"

    def __enter__(self):
        try:
            self.begin()
        except BaseException:
            self.__exit__()
            raise
        return self

    def begin(self):
        self.open = self.docker_registry("open")
        htpasswd = f"auth: {{htpasswd: {{realm: table, path: {self.folder}/htpasswd}}}}"
        self.basic = self.docker_registry("basic", htpasswd, tls=True)
        self.tokens = TokenServer(self.folder)
        self.token = self.docker_registry("token", f"auth: {{token: {{realm: \"{self.tokens.url}\", service: table, issuer: table, "
                                          f"rootcertbundle: {self.folder}/token.crt}}}}", tls=True)
        cdn, self.cdn_log = self.nginx()
        self.redirect = self.docker_registry(
            "redirect", f"{htpasswd}\nmiddleware: {{storage: [{{name: redirect, options: {{baseurl: \"http://{cdn}\"}}}}]}}")
        # nginx that limits: 429 with Retry-After beyond 3 requests a second, and 2 MiB/s a connection
        cdn, self.limited_log = self.nginx(
            "limited", "limit_req zone=z; error_page 429 = @later; location @later { add_header Retry-After 1 always; return 429; }",
            http_more="limit_req_zone $binary_remote_addr zone=z:1m rate=3r/s; limit_req_status 429; limit_rate 2m;")
        self.limited = self.docker_registry(
            "limited-registry", f"middleware: {{storage: [{{name: redirect, options: {{baseurl: \"http://{cdn}\"}}}}]}}")
        self.mirror = self.docker_registry("mirror", f"proxy: {{remoteurl: \"http://{self.open}\"}}", data=self.folder / "mirrored")
        auth = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        self.authfile = self.folder / "auth.json"
        self.authfile.write_text(json.dumps({"auths": {h: {"auth": auth} for h in (self.basic, self.token, self.redirect)}}))

    def __exit__(self, *_):
        for p in reversed(self.processes):
            if p.poll() is None:
                p.send_signal(signal.SIGTERM)
        for p in self.processes:
            try:
                p.wait(5)
            except subprocess.TimeoutExpired:
                p.kill()
                p.wait()

    def setups(self):
        """{column: (registry, arguments of pull)}"""
        tls = ["--ca-file", str(self.folder / "ca.crt"), "--authfile", str(self.authfile)]
        return {
            "open": (self.open, []),
            "htpasswd+tls": (self.basic, tls),
            "token+tls": (self.token, tls),
            "redirect": (self.redirect, ["--authfile", str(self.authfile)]),
            "limited": (self.limited, []),
            "mirror": (self.open, ["--mirror", f"{self.open}=http://{self.mirror}"]),
        }

    def push(self, layout, repo, descriptor, tag="v1"):
        """Push what `descriptor` names from a layout to the open registry, byte by byte as it is."""
        blobs = pathlib.Path(layout) / "blobs"

        def data(d):
            return (blobs / d["digest"].replace(":", "/")).read_bytes()
        body = data(descriptor)
        m = json.loads(body)
        for d in m.get("manifests", []):
            self.push(layout, repo, d, d["digest"])
        for d in [m["config"], *m["layers"]] if "layers" in m else []:
            self.push_blob(repo, d["digest"], data(d))
        request(f"http://{self.open}/v2/{repo}/manifests/{tag}", "PUT", body, descriptor["mediaType"])

    def push_blob(self, repo, digest, data):
        base = f"http://{self.open}/v2/{repo}/blobs/"
        try:
            request(base + digest, "HEAD")
            return
        except urllib.error.HTTPError:
            pass
        where = request(base + "uploads/", "POST", b"").headers["Location"]
        where = urllib.parse.urljoin(base, where)
        request(where + ("&" if "?" in where else "?") + "digest=" + digest, "PUT", data, "application/octet-stream")


def request(url, method, body=None, kind=None):
    r = urllib.request.Request(url, body, {"Content-Type": kind} if kind else {}, method=method)
    with urllib.request.urlopen(r, timeout=60) as answer:
        answer.read()
        return answer
