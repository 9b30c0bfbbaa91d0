"""A registry on loopback that does as it is told: it serves manifests and blobs over HTTP(S) with ranges and Basic or
Bearer auth, logs every request, and lets a test answer in its place (faults.py). Standard library only.

As a program: `registry.py LAYOUT-DIR [--port N] [--repo NAME] [--log FILE]` serves an image-layout; the first line of
stdout is its URL, the log has a JSON object a request.
"""
import argparse
import base64
import dataclasses
import hashlib
import http.server
import json
import os
import pathlib
import re
import socket
import ssl
import struct
import sys
import threading
import time
import urllib.parse

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
PIECE = 64 << 10
USER, SECRET = "alice", "s3cret-of-alice"


def digest(data, algorithm="sha256"):
    return f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"


class Content:
    """Manifests by repository and reference, blobs by digest (bytes, or a path for large ones)."""

    def __init__(self):
        self.manifests, self.blobs = {}, {}

    def blob(self, data, media_type, **descriptor):
        """Add a blob; its descriptor."""
        d = digest(data)
        self.blobs[d] = data
        return {"mediaType": media_type, "digest": d, "size": len(data), **descriptor}

    def file(self, path, media_type, **descriptor):
        h = hashlib.sha256()
        with open(path, "rb") as f:
            while piece := f.read(1 << 20):
                h.update(piece)
        d = "sha256:" + h.hexdigest()
        self.blobs[d] = pathlib.Path(path)
        return {"mediaType": media_type, "digest": d, "size": os.path.getsize(path), **descriptor}

    def manifest(self, repo, tag, body, media_type=None, **descriptor):
        """Add a manifest or index (an object, or bytes as they are) under a tag and its digest; its descriptor."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        kind = media_type or (body.get("mediaType", MANIFEST) if isinstance(body, dict) else MANIFEST)
        d = digest(data)
        for reference in (tag, d):
            if reference:
                self.manifests.setdefault(repo, {})[reference] = data, kind
        return {"mediaType": kind, "digest": d, "size": len(data), **descriptor}

    def layout(self, folder, repo=None):
        """Serve an image-layout: entries NAME:TAG under their names, others under `repo`."""
        folder = pathlib.Path(folder)
        for path in (folder / "blobs").glob("*/*"):
            self.blobs[f"{path.parent.name}:{path.name}"] = path
        names = []

        def add(name, tag, descriptor):
            data = self.read(descriptor["digest"])
            self.manifest(name, tag, data, descriptor["mediaType"])
            for child in json.loads(data).get("manifests", []):
                if child["digest"] in self.blobs:
                    add(name, None, child)

        for entry in json.loads((folder / "index.json").read_text())["manifests"]:
            whole = entry.get("annotations", {}).get("org.opencontainers.image.ref.name", "latest")
            name, colon, tag = whole.rpartition(":")
            if name.split("/")[0] in ("localhost", "docker.io") or re.search(r"[.:]", name.split("/")[0]):
                name = name.partition("/")[2]
            name, tag = (repo or name, tag) if colon else (repo or "model", whole)
            add(name, tag, entry)
            names.append(f"{name}:{tag}")
        return names

    def size(self, d):
        b = self.blobs[d]
        return b.stat().st_size if isinstance(b, pathlib.Path) else len(b)

    def read(self, d, start=0, n=None):
        b = self.blobs[d]
        if isinstance(b, pathlib.Path):
            with open(b, "rb") as f:
                f.seek(start)
                return f.read(n if n is not None else -1)
        return b[start:] if n is None else b[start:start + n]


@dataclasses.dataclass
class Row:
    """One request, as the log keeps it."""
    method: str
    path: str
    range: str
    auth: str
    accept: str
    body: str = ""
    status: int = 0
    sent: int = 0
    what: str = ""


class Basic:
    """HTTP Basic; `users` {} refuses everyone."""

    def __init__(self, users=None):
        self.users = {USER: SECRET} if users is None else users

    def known(self, header):
        kind, _, value = header.partition(" ")
        if kind.lower() != "basic":
            return None
        user, _, password = base64.b64decode(value).decode().partition(":")
        return user if self.users.get(user) == password else None

    def challenge(self, x):  # pylint: disable=unused-argument
        return ['Basic realm="fake"']

    def allows(self, x):
        return self.known(x.header("Authorization")) is not None


class Bearer:
    """Tokens from /token (or another realm). Each is good for `uses` requests of the repository it was asked for."""

    def __init__(self, realm=None, uses=None, anonymous=False, users=None, actions="pull", post=200):
        self.realm, self.uses, self.anonymous, self.actions, self.post = realm, uses, anonymous, actions, post
        self.basic = Basic(users)
        self.tokens, self.lock, self.issued = {}, threading.Lock(), 0
        self.refresh = {"refresh-of-alice"}

    def scope(self, x):
        return f"repository:{x.repo}:{self.actions}"

    def challenge(self, x):
        error = ', error="invalid_token"' if x.header("Authorization") else ""
        return [f'Bearer realm="{self.realm or x.server.url + "/token"}",service="fake",scope="{self.scope(x)}"{error}']

    def allows(self, x):
        kind, _, token = x.header("Authorization").partition(" ")
        with self.lock:
            left = self.tokens.get((token, x.repo), 0)
            if kind.lower() != "bearer" or left == 0:
                return False
            self.tokens[token, x.repo] = left - 1
            return True

    def token(self, x):
        """Answer the token endpoint."""
        query = urllib.parse.parse_qs(x.row.body if x.method == "POST" else x.query)
        if x.method == "POST":
            if self.post != 200:
                return x.error(self.post, "UNSUPPORTED", "no such method here")
            if not self.refresh & set(query.get("refresh_token", [])):
                return x.error(401, "UNAUTHORIZED", "unknown refresh token")
        elif not (self.basic.known(x.header("Authorization")) or self.anonymous and not x.header("Authorization")):
            return x.error(401, "UNAUTHORIZED", "incorrect username or password")
        with self.lock:
            self.issued += 1
            token = f"token-{self.issued}-{os.urandom(8).hex()}"
            for scope in " ".join(query.get("scope", [])).split():
                m = re.fullmatch(r"repository:([^:]+):(\S+)", scope)
                if m and "pull" in m[2].split(","):
                    self.tokens[token, m[1]] = self.uses or 1 << 40
        return x.json(200, {"token": token, "expires_in": 300})


class Exchange(http.server.BaseHTTPRequestHandler):
    """One connection; for a hook, the request at hand and the ways to answer it."""
    protocol_version = "HTTP/1.1"
    timeout = 120
    disable_nagle_algorithm = True

    def log_message(self, *_):  # pylint: disable=arguments-differ
        pass

    def header(self, name):
        return self.headers.get(name) or ""

    # ---- answers ----
    def head(self, status, headers=()):
        """Status line and headers; the connection stays open if they say where the body ends."""
        self.row.status = status
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        names = {name.lower() for name, _ in headers}
        if not names & {"content-length", "transfer-encoding"} and status not in (204, 304):
            self.close_connection = True
        self.end_headers()

    def write(self, data):
        """Body bytes as they are, counted; nothing for HEAD."""
        if self.method == "HEAD":
            return
        for at in range(0, len(data), PIECE):
            self.wfile.write(data[at:at + PIECE])
            with self.server.lock:
                self.row.sent += len(data[at:at + PIECE])
                self.server.bytes_sent += len(data[at:at + PIECE])

    def chunk(self, data):
        """A piece of a chunked body; b"" ends it."""
        self.write(b"%x\r\n%s\r\n" % (len(data), data))

    def send(self, status, body=b"", headers=()):
        self.head(status, [("Content-Length", str(len(body))), *headers])
        self.write(body)
        return True

    def json(self, status, value, headers=()):
        return self.send(status, json.dumps(value).encode(), [("Content-Type", "application/json"), *headers])

    def error(self, status, code, message, headers=()):
        return self.json(status, {"errors": [{"code": code, "message": message}]}, headers)

    def redirect(self, location, status=307):
        return self.send(status, b"", [("Location", location)])

    def unauthorized(self, challenges):
        return self.error(401, "UNAUTHORIZED", "authentication required", [("WWW-Authenticate", c) for c in challenges])

    def reset(self):
        """End the connection with RST."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        if isinstance(self.connection, ssl.SSLSocket):
            self.connection.detach()
        self.connection.close()
        self.rfile.close()
        raise ConnectionAbortedError("reset as told")

    def hang_up(self):
        self.close_connection = True
        return True

    def span(self, total):
        """(first, last) that the Range header asks for, or None."""
        m = re.fullmatch(r"bytes=(\d+)-(\d*)", self.header("Range"))
        if not m:
            return None
        return int(m[1]), min(int(m[2]) if m[2] else total - 1, total - 1)

    def blob(self, d=None, data=None):
        """A blob (or `data` in its place), in the range asked for."""
        d = d or self.reference
        if data is None and d not in self.server.content.blobs:
            return self.error(404, "BLOB_UNKNOWN", "blob unknown to registry")
        total = len(data) if data is not None else self.server.content.size(d)
        headers = [("Content-Type", "application/octet-stream"), ("Docker-Content-Digest", d), ("Accept-Ranges", "bytes")]
        span = self.span(total)
        if span and span[0] >= total:
            # as docker-registry does: the length of the blob, and a short text
            self.head(416, [*headers, ("Content-Length", str(total)), ("Content-Range", f"bytes */{total}")])
            self.write(b"416 range not satisfiable, really")
            return self.hang_up()
        first, last = span or (0, total - 1)
        if span:
            headers.append(("Content-Range", f"bytes {first}-{last}/{total}"))
        self.head(206 if span else 200, [*headers, ("Content-Length", str(last + 1 - first))])
        for at in range(first, last + 1, 1 << 20):
            n = min(1 << 20, last + 1 - at)
            self.write(data[at:at + n] if data is not None else self.server.content.read(d, at, n))
        return True

    def manifest(self, data=None, media_type=None, headers=()):
        found = self.server.content.manifests.get(self.repo, {}).get(self.reference)
        if data is None and not found:
            return self.error(404, "MANIFEST_UNKNOWN", "manifest unknown")
        data, media_type = (found[0] if data is None else data), media_type or found[1]
        if media_type not in self.header("Accept"):
            return self.error(404, "MANIFEST_UNKNOWN", f"found, but the accept header does not support {media_type}")
        if not any(name == "Docker-Content-Digest" for name, _ in headers):
            headers = [*headers, ("Docker-Content-Digest", digest(data))]
        return self.send(200, data, [("Content-Type", media_type), *headers])

    # ---- requests ----
    def answer(self):
        path, _, self.query = re.sub(r"^http://[^/]*", "", self.path).partition("?")  # whole where we are a proxy
        for what, pattern in (("manifest", r"/v2/(.+)/manifests/([^/]+)"), ("blob", r"/v2/(.+)/blobs/([^/]+)"),
                              ("referrers", r"/v2/(.+)/referrers/([^/]+)"), ("cdn", r"/cdn/(.+)/([^/]+)"),
                              ("token", r"/token()()"), ("other", r"()(.*)")):
            if m := re.fullmatch(pattern, path):
                self.row.what, self.repo, self.reference = what, m[1], m[2]
                break
        hook, auth = self.server.hooks.get(self.row.what), self.server.auth
        if hook and hook(self):
            return
        if self.row.what == "token" and isinstance(auth, Bearer):
            auth.token(self)
        elif self.row.what == "cdn":
            self.blob()
        elif auth and not auth.allows(self):
            self.unauthorized(auth.challenge(self))
        elif self.row.what == "manifest":
            self.manifest()
        elif self.row.what == "blob":
            self.blob()
        elif path in ("/v2/", "/v2"):
            self.json(200, {})
        else:
            self.send(404, b"404 page not found\n", [("Content-Type", "text/plain")])

    def do(self):
        self.method = self.command
        n = min(int(self.header("Content-Length") or 0), 1 << 20)
        self.row = Row(self.command, self.path, self.header("Range"), self.header("Authorization"), self.header("Accept"),
                       self.rfile.read(n).decode("latin-1") if n else "")
        self.server.log_row(self.row)
        try:
            self.answer()
        except (OSError, ValueError):  # the client went away, or reset()
            self.close_connection = True
        self.server.log_done(self.row)

    def do_CONNECT(self):  # pylint: disable=invalid-name
        """A proxy whose every tunnel ends here. Not logged: nothing was asked yet."""
        self.send_response_only(200)
        self.end_headers()
        self.close_connection = False

    do_GET = do_HEAD = do_POST = do  # pylint: disable=invalid-name

    def finish(self):
        try:
            super().finish()
        except (OSError, ValueError):
            pass


class Registry(http.server.ThreadingHTTPServer):
    """The server. `hooks`: {"manifest"|"blob"|"cdn"|"token"|"referrers"|"other": f(exchange) -> answered?}."""
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, content=None, port=0, tls=None, auth=None, log_file=None):
        super().__init__(("127.0.0.1", port), Exchange)
        self.content, self.auth, self.hooks, self.log = content or Content(), auth, {}, []
        self.lock, self.log_file, self.tls = threading.Lock(), log_file, None
        self.bytes_sent = 0  # of all bodies
        if tls:
            self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.tls.load_cert_chain(*tls)
        self.host = f"127.0.0.1:{self.server_address[1]}"
        self.url = f"{'https' if tls else 'http'}://{self.host}"

    def start(self):
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def close(self):
        self.shutdown()
        self.server_close()

    def finish_request(self, request, client_address):
        # Bytes that wait in the kernel would be counted as sent although the client never saw them.
        request.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 128 << 10)
        if self.tls:
            request.settimeout(30)
            request = self.tls.wrap_socket(request, server_side=True)
        super().finish_request(request, client_address)

    def handle_error(self, request, client_address):
        if not isinstance(sys.exc_info()[1], (OSError, ValueError)):
            super().handle_error(request, client_address)

    def log_row(self, row):
        with self.lock:
            self.log.append(row)

    def log_done(self, row):
        if self.log_file:
            with self.lock:
                self.log_file.write(json.dumps(dataclasses.asdict(row)) + "\n")
                self.log_file.flush()

    def rows(self, what=None):
        with self.lock:
            return [dataclasses.replace(r) for r in self.log if what is None or r.what == what]

    def sent(self, what="blob"):
        return sum(r.sent for r in self.rows(what))


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("layout")
    p.add_argument("--port", type=int, default=0)
    p.add_argument("--repo", help="repository of entries that have no NAME:TAG")
    p.add_argument("--log", help="file for a JSON object a request")
    a = p.parse_args()
    content = Content()
    names = content.layout(a.layout, a.repo)
    with open(a.log or os.devnull, "a", encoding="utf-8") as log:
        r = Registry(content, a.port, log_file=log).start()
        print(r.url, *names, flush=True)
        while True:
            time.sleep(3600)


if __name__ == "__main__":
    main()
