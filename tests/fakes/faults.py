"""What the rows of faults.def do: a function a row, of the same name. Each gets a Scene (a registry with a small model,
and a second host, the thief, that must never see a credential) and turns the fault on."""
import base64
import functools
import gzip
import io
import json
import os
import pathlib
import random
import shutil
import socket
import struct
import subprocess
import tarfile
import time

from registry import (DOCKER_MANIFEST, INDEX, MANIFEST, SECRET, USER, Basic, Bearer, Content, Registry, digest)

CNCF = "application/vnd.cncf.model."
WEIGHT = CNCF + "weight.v1.raw"
SMALL, LARGE = 300_000, 36 << 20  # LARGE: several ranges of 16 MiB
FAULTS = {}


@functools.cache
def noise(n):
    return b"GGUF\3\0\0\0" + random.Random(n).randbytes(n - 8)


def fault(f):
    FAULTS[f.__name__] = f
    return f


class Scene:
    """One pull and what it runs against."""

    def __init__(self, folder, tls):
        self.folder, self.tls_files = pathlib.Path(folder), tls
        self.registry = Registry().start()
        self.thief = Registry().start()
        self.servers = [self.registry, self.thief]
        self.repo, self.tag, self.pin = "m/tiny", "v1", ""
        self.args, self.env = [], {}
        self.checks = []  # functions that raise AssertionError after the pull
        self.digest = ""  # that the pull prints
        self.child = ""  # of the manifest that is pulled: the same, or an entry of the index; None: any
        self.bound = None  # bytes that the registry may send of blobs
        self.name = None  # reference to pull in place of registry/repo:tag
        self.model()

    @property
    def content(self):
        return self.registry.content

    @property
    def ref(self):
        return self.name or f"{self.registry.host}/{self.repo}:{self.tag}" + (f"@{self.pin}" if self.pin else "")

    def close(self):
        for s in self.servers:
            s.close()

    def server(self, **arguments):
        s = Registry(**arguments).start()
        self.servers.append(s)
        return s

    def weights(self, n=SMALL, name="model.gguf", kind=WEIGHT, data=None, **descriptor):
        # As a GGUF file begins, so that a sniffing packaging takes it; the rest is noise.
        data = noise(n) if data is None else data
        return self.content.blob(data, kind, annotations={"org.cncf.model.filepath": name}, **descriptor)

    def model(self, layers=None, config=b'{"modelfs":{"type":"layers","diffIds":[]}}', edit=None, n=SMALL, config_type=None):
        """(Re)make the model m/tiny:v1; edit(manifest) changes it before it is stored."""
        m = {"schemaVersion": 2, "mediaType": MANIFEST, "artifactType": CNCF + "manifest.v1+json",
             "config": self.content.blob(config, config_type or CNCF + "config.v1+json"),
             "layers": layers if layers is not None else [self.weights(n)]}
        if edit:
            m = edit(m) or m
        d = self.content.manifest(self.repo, self.tag, m, MANIFEST)
        self.weight = m["layers"][0] if isinstance(m, dict) and m.get("layers") else None
        self.digest, self.child = d["digest"], d["digest"]
        return d

    def index(self, entries, **more):
        d = self.content.manifest(self.repo, self.tag, {"schemaVersion": 2, "mediaType": INDEX, "manifests": entries, **more})
        self.digest, self.child = d["digest"], None
        return d

    def hook(self, what, f, server=None):
        (server or self.registry).hooks[what] = f

    def credentials(self, entry=None, host=None):
        """An authfile that knows the registry."""
        path = self.folder / "auth.json"
        entry = entry or {"auth": base64.b64encode(f"{USER}:{SECRET}".encode()).decode()}
        path.write_text(json.dumps({"auths": {host or self.registry.host: entry}}))
        self.args += ["--authfile", str(path)]

    def secure(self, **arguments):
        """Move the registry to TLS."""
        old = self.registry
        self.registry = self.server(content=old.content, tls=self.tls_files[:2], **arguments)
        self.args += ["--ca-file", str(self.tls_files[2])]

    def check(self, f, text):
        def run():
            if not f():
                raise AssertionError(text)
        self.checks.append(run)

    def weight_hook(self, f, server=None):
        """f(x) for requests of the weights only."""
        self.hook("blob", lambda x: x.reference == self.weight["digest"] and f(x), server)

    def once(self, f, n=1):
        """f for the first n calls; afterwards the usual answer."""
        left = [n]

        def run(x):
            with x.server.lock:
                left[0] -= 1
                mine = left[0] >= 0
            return f(x) if mine else False
        return run

    def flip(self):
        data = bytearray(self.content.read(self.weight["digest"]))
        data[len(data) // 2] ^= 1
        return bytes(data)


# ---- the way it should be ----
@fault
def none(s):
    s.check(lambda: s.registry.sent("blob") <= SMALL + 1000, "more was sent than the model has")


@fault
def several_ranges(s):
    s.model(n=LARGE)
    s.check(lambda: s.registry.sent("blob") <= LARGE + 1000, "more was sent than the model has")
    s.check(lambda: len({r.range for r in s.registry.rows("blob") if r.range}) > 1, "no ranges were asked for")


@fault
def v2_404(s):
    s.hook("other", lambda x: x.send(404))


@fault
def head_405(s):
    s.hook("manifest", lambda x: x.method == "HEAD" and x.send(405))
    s.hook("blob", lambda x: x.method == "HEAD" and x.send(405))


@fault
def manifest_chunked(s):
    def f(x):
        data, kind = s.content.manifests[s.repo][s.tag]
        x.head(200, [("Content-Type", kind), ("Transfer-Encoding", "chunked")])
        for at in range(0, len(data), 100):
            x.chunk(data[at:at + 100])
        x.chunk(b"")
        return True
    s.hook("manifest", f)


# ---- authentication ----
@fault
def loop_401_bearer(s):
    s.registry.auth = Bearer(anonymous=True)
    s.registry.auth.allows = lambda x: False
    s.check(lambda: len(s.registry.rows("token")) <= 8, "asked for tokens without end")


@fault
def loop_401_basic(s):
    s.registry.auth = Basic({})
    s.credentials()
    s.check(lambda: len(s.registry.rows("manifest")) <= 8, "asked without end")


@fault
def no_credentials(s):
    s.registry.auth = Basic()


@fault
def wrong_password(s):
    s.registry.auth = Bearer(users={USER: "another"})
    s.credentials()


@fault
def insufficient_scope(s):
    def challenge(x):
        return [f'Bearer realm="{x.server.url}/token",service="fake",scope="repository:{x.repo}:pull"'
                + (',error="insufficient_scope"' if x.header("Authorization") else "")]
    s.registry.auth = Bearer(anonymous=True)
    s.registry.auth.allows = lambda x: False
    s.registry.auth.challenge = challenge


@fault
def forbidden_403(s):
    s.hook("manifest", lambda x: x.error(403, "DENIED", "requested access to the resource is denied"))


@fault
def message_paints(s):
    s.hook("manifest", lambda x: x.error(403, "DENIED\x1b[2J", "\x1b]0;owned\x07\r\ncapstan: all is well\n" + "long " * 5000))


@fault
def challenge_paints(s):
    s.registry.auth = Bearer(anonymous=True)
    s.registry.auth.allows = lambda x: False
    s.registry.auth.challenge = lambda x: [f'Bearer realm="{x.server.url}/token",service="\x1b[31m",error="\x1b[2J\x07"']


@fault
def basic_auth(s):
    s.registry.auth = Basic()
    s.credentials()


@fault
def token_auth(s):
    s.registry.auth = Bearer()
    s.credentials()


@fault
def token_expires_mid_blob(s):
    s.model(n=LARGE)
    s.registry.auth = Bearer(uses=2)
    s.credentials()
    s.args += ["--connections", "1"]  # else several requests share one token's two
    s.check(lambda: s.registry.auth.issued >= 2, "the token never ran out")


@fault
def token_expires_and_loss(s):
    s.registry.auth = Bearer(uses=3)
    s.credentials()
    s.weight_hook(s.once(lambda x: s.registry.auth.allows(x) and cut(x, 100_000)))


@fault
def scope_with_commas(s):
    s.registry.auth = Bearer(actions="pull,push")
    s.credentials()
    s.check(lambda: any("pull%2Cpush" in r.path or "pull,push" in r.path for r in s.registry.rows("token")),
            "the scope was cut at its comma")


def challenges(s, make):
    s.registry.auth = Bearer()
    s.credentials()
    s.registry.auth.challenge = lambda x: make(f'Bearer realm="{x.server.url}/token",service="fake",'
                                               f'scope="repository:{x.repo}:pull"')


@fault
def two_challenges_one_line(s):
    challenges(s, lambda b: [f'Negotiate YII=, Digest realm="a, b", nonce="x\\"y", {b}'])


@fault
def two_challenges_two_lines(s):
    challenges(s, lambda b: ["Negotiate", b])


@fault
def challenge_lower_case(s):
    challenges(s, lambda b: [b.replace("Bearer", "bearer").replace("realm=", "REALM = ")])


@fault
def challenge_unknown(s):
    challenges(s, lambda b: ["Negotiate YII="])


@fault
def challenge_garbage(s):
    challenges(s, lambda b: ['Bearer realm="http://unterminated,,,=\\'])


@fault
def challenge_missing(s):
    challenges(s, lambda b: [])


@fault
def challenge_long(s):
    challenges(s, lambda b: ['Bearer realm="' + "a" * 60000 + '"'])


@fault
def realm_elsewhere(s):
    s.thief.auth = Bearer(anonymous=True)
    s.registry.auth = Bearer(realm=f"http://localhost:{s.thief.server_address[1]}/token")
    s.credentials()


@fault
def realm_metadata(s):
    s.registry.auth = Bearer(realm="http://169.254.169.254/latest/meta-data")
    s.credentials()


@fault
def realm_file(s):
    s.registry.auth = Bearer(realm="file:///etc/passwd")
    s.credentials()


@fault
def realm_downgrade(s):
    s.secure()
    s.registry.auth = Bearer(realm=f"{s.thief.url}/token")
    s.credentials()
    s.check(lambda: not any(r.auth for r in s.thief.rows()), "credentials went over plain HTTP")


@fault
def realm_redirects(s):
    s.registry.auth = Bearer()
    s.credentials()
    s.hook("token", lambda x: x.redirect(s.thief.url + "/token", 302))


def token_answer(s, f):
    s.registry.auth = Bearer(anonymous=True)
    s.hook("token", f)


@fault
def token_not_json(s):
    token_answer(s, lambda x: x.send(200, b"<html>welcome</html>", [("Content-Type", "text/html")]))


@fault
def token_missing(s):
    token_answer(s, lambda x: x.json(200, {"expires_in": 60}))


@fault
def token_injects_header(s):
    token_answer(s, lambda x: x.json(200, {"token": "abc\r\nX-Injected: yes"}))
    s.check(lambda: len(s.registry.rows("manifest")) <= 2, "the token was used")


@fault
def token_endless(s):
    token_answer(s, lambda x: endless(x, b'{"token":"' + b"a" * 65536))
    s.check(lambda: s.registry.sent("token") <= 16 << 20, "the endless token was read")


@fault
def token_500_once(s):
    s.registry.auth = Bearer()
    s.credentials()
    s.hook("token", s.once(lambda x: x.send(500)))


@fault
def identity_token(s):
    s.registry.auth = Bearer()
    s.credentials({"identitytoken": "refresh-of-alice"})
    s.check(lambda: any(r.method == "POST" for r in s.registry.rows("token")), "no POST to the realm")


@fault
def identity_token_post_405(s):
    s.registry.auth = Bearer(post=405, anonymous=True)
    s.credentials({"identitytoken": "refresh-of-alice", "auth": base64.b64encode(f"{USER}:{SECRET}".encode()).decode()})


@fault
def identity_token_revoked(s):
    s.registry.auth = Bearer()
    s.credentials({"identitytoken": "an-old-one"})


def helper(s, script):
    """A credential helper on PATH, and a config that names it for the registry."""
    path = s.folder / "docker-credential-fake"
    path.write_text("#!/bin/sh\n" + script)
    path.chmod(0o755)
    config = s.folder / "config.json"
    config.write_text(json.dumps({"credHelpers": {s.registry.host: "fake"}}))
    s.env["PATH"] = f"{s.folder}:{os.environ['PATH']}"
    s.args += ["--authfile", str(config)]
    s.registry.auth = Bearer()


@fault
def helper_password(s):
    helper(s, f"""cat >/dev/null; echo '{{"ServerURL":"x","Username":"{USER}","Secret":"{SECRET}"}}'\n""")


@fault
def helper_identity_token(s):
    helper(s, """cat >/dev/null; echo '{"Username":"<token>","Secret":"refresh-of-alice"}'\n""")


@fault
def helper_has_none(s):
    helper(s, "cat >/dev/null; echo 'credentials not found in native keychain'; exit 1\n")


@fault
def helper_name_is_a_path(s):
    helper(s, "touch ../escaped-helper\n")
    (s.folder / "config.json").write_text(json.dumps({"credHelpers": {s.registry.host: "../../bin/sh"}}))


@fault
def auth_by_path(s):
    s.registry.auth = Basic()
    s.credentials(host=f"{s.registry.host}/m")
    config = json.loads((s.folder / "auth.json").read_text())
    config["auths"][s.registry.host] = {"auth": base64.b64encode(b"alice:wrong").decode()}
    (s.folder / "auth.json").write_text(json.dumps(config))


@fault
def auth_by_environment(s):
    s.registry.auth = Basic()
    s.credentials()
    s.args = []
    s.env["REGISTRY_AUTH_FILE"] = str(s.folder / "auth.json")


@fault
def authfile_missing(s):
    s.args += ["--authfile", "/nowhere/auth.json"]
    s.check(lambda: not s.registry.rows(), "the registry was asked")


@fault
def authfile_of_variable_missing(s):
    s.env = {"REGISTRY_AUTH_FILE": "/nowhere/auth.json"}
    s.check(lambda: not s.registry.rows(), "the registry was asked")


@fault
def docker_config_empty(s):
    s.env = {"DOCKER_CONFIG": str(s.folder / "none")}


@fault
def auth_for_another_port(s):
    s.registry.auth = Basic()
    s.credentials(host="127.0.0.1:1")


# ---- limits, errors, back-off ----
@fault
def rate_429_then_fine(s):
    s.hook("manifest", s.once(lambda x: x.error(429, "TOOMANYREQUESTS", "slow down", [("Retry-After", "1")]), 2))


@fault
def rate_429_date(s):
    when = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 1))
    s.hook("blob", s.once(lambda x: x.error(429, "TOOMANYREQUESTS", "slow down", [("Retry-After", when)])))


@fault
def rate_429_forever(s):
    s.hook("manifest", lambda x: x.error(429, "TOOMANYREQUESTS", "pull rate limit", [("Retry-After", "0")]))
    s.check(lambda: len(s.registry.rows("manifest")) <= 20, "retried without end")


@fault
def rate_429_tomorrow(s):
    s.hook("manifest", lambda x: x.error(429, "TOOMANYREQUESTS", "pull rate limit", [("Retry-After", "86400")]))


@fault
def error_500_once(s):
    s.hook("manifest", s.once(lambda x: x.send(500)))
    s.hook("blob", s.once(lambda x: x.send(503)))


@fault
def error_500_forever(s):
    s.hook("blob", lambda x: x.error(500, "UNKNOWN", "the disk is on fire"))
    s.check(lambda: len(s.registry.rows("blob")) <= 60, "retried without end")


@fault
def status_418(s):
    s.hook("manifest", lambda x: x.error(418, "TEAPOT", "short and stout"))


@fault
def not_found(s):
    s.tag = "nope"


@fault
def accept_404(s):
    def f(x):
        want = (MANIFEST, INDEX, DOCKER_MANIFEST, "application/vnd.docker.distribution.manifest.list.v2+json")
        return not all(t in x.header("Accept") for t in want) and \
            x.error(404, "MANIFEST_UNKNOWN", "OCI manifest found, but accept header does not support OCI manifests")
    s.hook("manifest", f)


@fault
def blob_404(s):
    s.weight_hook(lambda x: x.error(404, "BLOB_UNKNOWN", "blob unknown to registry"))


# ---- redirects ----
def to_cdn(s, host=None):
    """Blobs are redirected to the thief, who serves them."""
    s.thief.content.blobs.update(s.content.blobs)
    base = host or s.thief.url
    s.hook("blob", lambda x: s.registry.auth and not s.registry.auth.allows(x) and
           x.unauthorized(s.registry.auth.challenge(x)) or x.redirect(f"{base}/cdn/x/{x.reference}?sig=abc"))


@fault
def redirect_other_port(s):
    s.registry.auth = Basic()
    s.credentials()
    to_cdn(s)
    s.check(lambda: s.thief.rows("cdn"), "the redirect was not followed")


@fault
def redirect_other_host(s):
    s.registry.auth = Bearer()
    s.credentials()
    to_cdn(s, f"http://localhost:{s.thief.server_address[1]}")
    s.check(lambda: s.thief.rows("cdn"), "the redirect was not followed")


@fault
def redirect_with_blanks(s):
    s.thief.content.blobs.update(s.content.blobs)
    place = "/cdn/x/{}?name=my model \u6a21.gguf".encode().decode("latin-1")  # as bytes of a header
    s.hook("blob", lambda x: x.redirect(s.thief.url + place.format(x.reference)))
    s.check(lambda: all(r.path.endswith("?name=my%20model%20%E6%A8%A1.gguf") for r in s.thief.rows("cdn")),
            "another place was asked")


@fault
def redirect_manifest_bearer(s):
    s.thief.content.manifests.update(s.content.manifests)
    s.thief.auth = Bearer(anonymous=True)
    s.hook("manifest", lambda x: x.redirect(s.thief.url + x.path))
    s.check(lambda: not s.thief.rows("token"), "a token was asked for")


@fault
def redirect_relative(s):
    s.hook("blob", lambda x: x.redirect(f"/cdn/x/{x.reference}", 301))


@fault
def redirect_manifest(s):
    s.hook("manifest", s.once(lambda x: x.redirect(x.path + "?again=1", 308)))


@fault
def redirect_loop(s):
    s.hook("blob", lambda x: x.redirect(x.path))
    s.check(lambda: len(s.registry.rows("blob")) <= 80, "followed without end")


@fault
def redirect_no_location(s):
    s.hook("blob", lambda x: x.send(307))


@fault
def redirect_downgrade(s):
    s.secure()
    s.registry.auth = Basic()
    s.credentials()
    to_cdn(s)
    s.check(lambda: not s.thief.rows(), "went from https to http")


@fault
def redirect_file(s):
    s.hook("blob", lambda x: x.redirect("file:///etc/passwd"))


@fault
def redirect_gopher(s):
    s.hook("blob", lambda x: x.redirect(f"gopher://{s.thief.host}/_x"))
    s.check(lambda: not s.thief.rows(), "followed to gopher")


@fault
def redirect_metadata(s):
    s.hook("blob", lambda x: x.redirect("http://169.254.169.254/latest/meta-data"))


@fault
def redirect_user_info(s):
    s.thief.content.blobs.update(s.content.blobs)
    s.hook("blob", lambda x: x.redirect(f"http://eve:evil@{s.thief.host}/cdn/x/{x.reference}"))


@fault
def presigned_403_once(s):
    to_cdn(s)
    s.hook("cdn", s.once(lambda x: x.send(403, b"<Error><Code>AccessDenied</Code></Error>")), s.thief)


@fault
def presigned_403_forever(s):
    to_cdn(s)
    s.hook("cdn", lambda x: x.send(403, b"<Error><Code>AccessDenied</Code></Error>"), s.thief)


@fault
def link_header_metadata(s):
    link = [("Link", '<http://169.254.169.254/v2/x/tags/list?last=z>; rel="next"')]
    s.hook("manifest", lambda x: x.manifest(headers=link))


@fault
def foreign_layer_urls(s):
    s.thief.content.blobs.update(s.content.blobs)
    s.model(edit=lambda m: m["layers"][0].update(urls=[f"{s.thief.url}/cdn/x/{m['layers'][0]['digest']}"]))
    s.check(lambda: not s.thief.rows(), "a foreign URL was asked")


# ---- bodies ----
def cut(x, n, reset=False):
    """The right headers, then only n bytes of the body."""
    total = x.server.content.size(x.reference)
    first, last = x.span(total) or (0, total - 1)
    headers = [("Content-Length", str(last + 1 - first))]
    if x.header("Range"):
        headers.append(("Content-Range", f"bytes {first}-{last}/{total}"))
    x.head(206 if x.header("Range") else 200, headers)
    x.write(x.server.content.read(x.reference, first, min(n, last + 1 - first)))
    return x.reset() if reset else x.hang_up()


def endless(x, piece=b"\0" * 65536):
    x.head(200, [("Content-Type", "application/octet-stream"), ("Transfer-Encoding", "chunked")])
    while True:
        x.chunk(piece)


@fault
def cut_once(s):
    s.weight_hook(s.once(lambda x: cut(x, 100_000)))
    s.check(lambda: s.registry.sent("blob") <= SMALL + 1000, "bytes were sent twice")


@fault
def reset_once(s):
    s.weight_hook(s.once(lambda x: cut(x, 100_000, reset=True)))


@fault
def cut_always(s):
    s.weight_hook(lambda x: cut(x, 0))
    s.check(lambda: len(s.registry.rows("blob")) <= 60, "retried without end")


@fault
def reset_always(s):
    s.weight_hook(lambda x: cut(x, 0, reset=True))


@fault
def truncated_blob(s):
    data = s.content.read(s.weight["digest"])[:-1000]
    s.weight_hook(lambda x: x.blob(data=data))


@fault
def truncated_chunked(s):
    def f(x):
        x.head(200, [("Transfer-Encoding", "chunked")])
        x.chunk(s.content.read(s.weight["digest"])[:-1000])
        x.chunk(b"")
        return True
    s.weight_hook(f)


@fault
def too_long_by_one(s):
    data = s.content.read(s.weight["digest"]) + b"\0"
    s.weight_hook(lambda x: x.send(200, data))


@fault
def too_long_chunked(s):
    def f(x):
        x.head(200, [("Transfer-Encoding", "chunked")])
        x.chunk(s.content.read(s.weight["digest"]))
        x.chunk(b"\0" * 1000)
        x.chunk(b"")
        return True
    s.weight_hook(f)


@fault
def endless_blob(s):
    s.weight_hook(endless)
    s.bound = 64 << 20


@fault
def endless_manifest(s):
    s.hook("manifest", lambda x: endless(x, b" " * 65536))
    s.check(lambda: s.registry.sent("manifest") <= 64 << 20, "the endless manifest was read")


@fault
def endless_headers(s):
    def f(x):
        x.wfile.write(b"HTTP/1.1 200 OK\r\n")
        for i in range(1 << 20):
            x.wfile.write(b"X-%d: %s\r\n" % (i, b"a" * 1000))
            x.row.sent += 1000
        return x.hang_up()
    s.hook("manifest", f)
    s.check(lambda: s.registry.sent("manifest") <= 64 << 20, "the endless headers were read")


@fault
def endless_error_body(s):
    def f(x):
        x.head(403, [("Transfer-Encoding", "chunked")])
        while True:
            x.chunk(b"no " * 20000)
    s.hook("manifest", f)
    s.check(lambda: s.registry.sent("manifest") <= 64 << 20, "the endless error was read")


@fault
def wrong_digest(s):
    data = s.flip()
    s.weight_hook(lambda x: x.blob(data=data))


@fault
def wrong_digest_many_ranges(s):
    s.model(n=LARGE)
    data = s.flip()
    s.weight_hook(lambda x: x.blob(data=data))
    s.bound = 2 * LARGE


@fault
def wrong_config(s):
    s.hook("blob", lambda x: x.reference != s.weight["digest"] and x.blob(data=b"[" + x.server.content.read(x.reference)[1:]))


@fault
def html_for_blob(s):
    s.weight_hook(lambda x: x.send(200, b"<html>please log in</html>", [("Content-Type", "text/html")]))


@fault
def content_encoding(s):
    data = gzip.compress(s.content.read(s.weight["digest"]))
    s.weight_hook(lambda x: x.send(200, data, [("Content-Encoding", "gzip")]))


@fault
def stalls(s):
    def f(x):
        cut(x, 1000)
        time.sleep(25)
        return x.hang_up()
    s.weight_hook(f)


@fault
def stalls_once(s):
    def f(x):
        cut(x, 1000)
        time.sleep(25)
        return x.hang_up()
    s.weight_hook(s.once(f))


@fault
def drips(s):
    def f(x):
        total = s.weight["size"]
        first, last = x.span(total) or (0, total - 1)
        x.head(206 if x.header("Range") else 200, [("Content-Length", str(last + 1 - first)),
                                                   *([("Content-Range", f"bytes {first}-{last}/{total}")] if x.header("Range") else [])])
        for at in range(first, first + 500):
            x.write(s.content.read(s.weight["digest"], at, 1))
            time.sleep(0.05)
        return x.hang_up()
    s.weight_hook(f)


@fault
def never_answers(s):
    def f(x):
        time.sleep(25)
        return x.hang_up()
    s.hook("manifest", f)


@fault
def hangs_up(s):
    s.hook("manifest", lambda x: x.hang_up())


@fault
def not_http(s):
    def f(x):
        x.wfile.write(b"SSH-2.0-OpenSSH_9.2\r\n")
        return x.hang_up()
    s.hook("manifest", f)


# ---- ranges ----
@fault
def range_ignored(s):
    s.model(n=LARGE)
    s.weight_hook(lambda x: x.send(200, s.content.read(s.weight["digest"])))


@fault
def range_ignored_after_loss(s):
    whole = s.content.read(s.weight["digest"])
    first = s.once(lambda x: cut(x, 100_000))
    s.weight_hook(lambda x: first(x) or x.send(200, whole))


def partial(s, headers):
    """Answer ranges with 206 and these headers, given (first, last, total, bytes)."""
    s.model(n=LARGE)
    whole = s.content.read(s.weight["digest"])

    def f(x):
        span = x.span(LARGE)  # the whole, when it is asked for, is right
        return span and x.send(206, whole[span[0]:span[1] + 1], headers(span[0], span[1], LARGE))
    s.weight_hook(f)


@fault
def range_wrong_start(s):
    partial(s, lambda a, b, n: [("Content-Range", f"bytes {a + 1}-{b + 1}/{n}")])


@fault
def range_wrong_total(s):
    partial(s, lambda a, b, n: [("Content-Range", f"bytes {a}-{b}/{n + 5}")])


@fault
def range_no_content_range(s):
    partial(s, lambda a, b, n: [])


@fault
def range_garbage_content_range(s):
    partial(s, lambda a, b, n: [("Content-Range", f"bytes {a}-99999999999999999999999/{n}")])


@fault
def range_multipart(s):
    partial(s, lambda a, b, n: [("Content-Type", "multipart/byteranges; boundary=THIS")])


@fault
def range_shorter(s):
    s.model(n=LARGE)

    def f(x):
        span = x.span(LARGE)
        if not span:
            return False
        last = min(span[1], span[0] + (4 << 20) - 1)
        return x.send(206, s.content.read(s.weight["digest"], span[0], last + 1 - span[0]),
                      [("Content-Range", f"bytes {span[0]}-{last}/{LARGE}")])
    s.weight_hook(f)


@fault
def range_416(s):
    s.model(n=LARGE)

    def f(x):
        x.head(416, [("Content-Length", str(LARGE)), ("Content-Range", f"bytes */{LARGE}")])
        x.write(b"416 range not satisfiable, really")
        return x.hang_up()
    s.weight_hook(f)


def refuse_ranges(s, status, server=None, what="blob"):
    """Any Range is refused; the whole comes, and is asked for once."""
    def f(x):
        return x.reference == s.weight["digest"] and x.header("Range") and x.send(status, b"<html><title>No</title>")
    s.model(n=LARGE)
    server = server or s.registry
    s.hook(what, f, server)
    s.check(lambda: len([r for r in server.rows(what) if s.weight["digest"] in r.path and not r.range]) == 1,
            "not one plain request")


for _status in (400, 403, 405, 416, 501):
    FAULTS[f"range_refused_{_status}"] = functools.partial(refuse_ranges, status=_status)


@fault
def range_refused_after_loss(s):
    first = s.once(lambda x: cut(x, 100_000))
    s.weight_hook(lambda x: first(x) or (x.header("Range") and x.error(403, "DENIED", "no ranges")))


def plain(s, server):
    """Requests of the weights that asked for no range."""
    return [r for r in server.rows("blob") if s.weight["digest"] in r.path and not r.range]


def no_ranges(s, server, status):
    """The weights come whole from this server, or, asked for as a range, with this status."""
    body = s.content.read(s.weight["digest"]) if status == 200 else b"<html><title>No</title>"
    s.hook("blob", lambda x: x.reference == s.weight["digest"] and x.header("Range") and x.send(status, body), server)


def mirror_without_ranges(s, status):
    """The upstream gives the ranges that the mirror refuses; nobody is asked for the whole."""
    s.model(n=LARGE)
    m = mirror(s)
    no_ranges(s, m, status)
    s.check(lambda: not plain(s, m) and not plain(s, s.registry), "the whole was asked for")
    s.check(lambda: len([r for r in m.rows("blob") if r.range]) <= 4, "the mirror was asked again and again")


for _name, _status in (("range_ignored_by_mirror", 200), ("range_refused_by_mirror", 403),
                       ("range_416_by_mirror", 416), ("range_501_by_mirror", 501)):
    FAULTS[_name] = functools.partial(mirror_without_ranges, status=_status)


@fault
def range_refused_by_all(s):
    s.model(n=LARGE)
    m = mirror(s)
    no_ranges(s, m, 501)
    no_ranges(s, s.registry, 416)
    s.check(lambda: len(plain(s, m)) == 1 and not plain(s, s.registry), "not one plain request, to the mirror")


@fault
def range_refused_by_mirror_alone_has_it(s):
    s.model(n=LARGE)
    m = mirror(s)
    no_ranges(s, m, 200)
    s.weight_hook(lambda x: x.error(404, "BLOB_UNKNOWN", "blob unknown"))
    s.check(lambda: len(plain(s, m)) == 1, "not one plain request to the mirror")


def mirror_loses(s, status):
    """What is missing after a loss comes from the upstream, which gives ranges."""
    m = mirror(s)
    first = s.once(lambda x: cut(x, 100_000))
    no_ranges(s, m, status)
    ranged = m.hooks["blob"]
    s.hook("blob", lambda x: x.reference == s.weight["digest"] and (first(x) or ranged(x)), m)
    s.check(lambda: len(plain(s, m)) == 1, "the mirror was asked for the whole again")
    s.check(lambda: any(r.range for r in s.registry.rows("blob")), "the upstream was not asked for the rest")


FAULTS["range_ignored_by_mirror_after_loss"] = functools.partial(mirror_loses, status=200)
FAULTS["range_refused_by_mirror_after_loss"] = functools.partial(mirror_loses, status=403)


@fault
def range_refused_by_cdn(s):
    refuse_ranges(s, 501, s.thief, "cdn")
    to_cdn(s)


@fault
def blob_403(s):
    s.model(n=LARGE)
    s.weight_hook(lambda x: x.error(403, "DENIED", "requested access to the resource is denied"))


@fault
def mirror_403(s):
    m = mirror(s)
    s.model(n=LARGE)
    s.hook("blob", lambda x: x.error(403, "DENIED", "not yours"), m)


# ---- mirrors ----
def mirror(s, **arguments):
    m = s.server(content=Content(), **arguments)
    m.content.blobs.update(s.content.blobs)
    m.content.manifests.update(s.content.manifests)
    s.args += ["--mirror", f"{s.registry.host}={m.url}"]
    s.registry.auth = Basic()
    s.credentials()
    s.check(lambda: not any(r.auth for r in m.rows()), "the mirror was given the upstream's credentials")
    return m


@fault
def mirror_fine(s):
    m = mirror(s)
    s.check(lambda: m.sent("blob") and not s.registry.sent("blob"), "blobs did not come from the mirror")
    s.check(lambda: s.registry.rows("manifest"), "the tag was not resolved upstream")


@fault
def mirror_200_until_cached(s):
    s.model(n=LARGE)
    m = mirror(s)
    s.hook("blob", s.once(lambda x: x.send(200, s.content.read(x.reference))), m)


@fault
def mirror_404(s):
    m = mirror(s)
    m.content.blobs.clear()


@fault
def mirror_down(s):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    mirror(s)
    s.args[s.args.index("--mirror") + 1] = f"{s.registry.host}={url}"


@fault
def mirror_500(s):
    m = mirror(s)
    s.hook("blob", lambda x: x.send(500), m)


@fault
def mirror_401(s):
    m = mirror(s)
    m.auth = Basic()


@fault
def mirror_wrong_bytes(s):
    m = mirror(s)
    data = s.flip()
    s.hook("blob", lambda x: x.reference == s.weight["digest"] and x.blob(data=data), m)


@fault
def mirror_stale_tag(s):
    m = mirror(s)
    m.content.manifests[s.repo] = {s.tag: (b'{"schemaVersion":2}', MANIFEST)}


# ---- TLS and connections ----
@fault
def tls_fine(s):
    s.secure()


def system_ca(s, **names):
    """TLS whose authority only these variables name; a folder has it under its hash."""
    s.secure()
    s.args = []
    hashed = s.folder / "hashed"
    hashed.mkdir()
    shutil.copy(s.tls_files[2], hashed / "ca.pem")
    subprocess.run(["openssl", "rehash", hashed], check=True, capture_output=True)
    here = {"ca": s.tls_files[2], "hashed": hashed, "other": s.tls_files[3]}
    s.env = {name: str(here[what]) for name, what in names.items()}


@fault
def tls_curl_ca_bundle(s):
    system_ca(s, CURL_CA_BUNDLE="ca", SSL_CERT_FILE="other")


@fault
def tls_ssl_cert_file(s):
    system_ca(s, SSL_CERT_FILE="ca")


@fault
def tls_ssl_cert_dir(s):
    system_ca(s, SSL_CERT_FILE="other", SSL_CERT_DIR="hashed")


@fault
def tls_ca_file_adds(s):
    system_ca(s, SSL_CERT_FILE="ca")
    s.args = ["--ca-file", str(s.tls_files[3])]


@fault
def tls_ca_file_added(s):
    system_ca(s, SSL_CERT_FILE="other")
    s.args = ["--ca-file", str(s.tls_files[2])]


@fault
def tls_bundle_alone(s):
    system_ca(s, CURL_CA_BUNDLE="other", SSL_CERT_FILE="ca", SSL_CERT_DIR="hashed")


@fault
def tls_ca_file_of_no_certificate(s):
    s.secure()
    s.args = ["--ca-file", str(s.folder / "text")]
    (s.folder / "text").write_text("no certificate\n")


@fault
def tls_unknown_ca(s):
    s.secure()
    s.args = []


@fault
def tls_wrong_host(s):
    s.secure()
    s.name = f"localhost:{s.registry.server_address[1]}/{s.repo}:{s.tag}"


@fault
def tls_expected(s):
    # Plain HTTP is for loopback alone: a proxy must be asked for a tunnel, not for the page.
    s.name = f"registry.invalid/{s.repo}:{s.tag}"
    s.env = {name: s.thief.url for name in ("http_proxy", "https_proxy", "HTTPS_PROXY")}
    s.check(lambda: not s.thief.rows(), "plain HTTP was spoken")


@fault
def tls_variable_names_nothing(s):
    system_ca(s, SSL_CERT_FILE="ca")
    s.env["SSL_CERT_FILE"] = "/nowhere/ca.pem"


@fault
def tls_variable_names_no_certificate(s):
    system_ca(s, CURL_CA_BUNDLE="ca")
    (s.folder / "text").write_text("no certificate\n")
    s.env["CURL_CA_BUNDLE"] = str(s.folder / "text")


@fault
def tls_variable_names_no_folder(s):
    system_ca(s, SSL_CERT_DIR="hashed")
    s.env["SSL_CERT_DIR"] = "/nowhere:/nowhere/else"


@fault
def tls_one_folder_of_two(s):
    system_ca(s, SSL_CERT_DIR="hashed")
    s.env["SSL_CERT_DIR"] = "/nowhere:" + s.env["SSL_CERT_DIR"]


@fault
def plain_where_tls_is_spoken(s):
    # A name that is not loopback; the proxy's tunnel leads to the registry, which speaks plain HTTP.
    s.name = f"registry.invalid:5000/{s.repo}:{s.tag}"
    s.env = {"https_proxy": s.registry.url}


@fault
def plain_where_the_mirror_is_https(s):
    mirror(s)
    at = s.args.index("--mirror") + 1
    s.args[at] = s.args[at].replace("=http://", "=https://")


@fault
def plain_where_the_realm_is_https(s):
    s.registry.auth = Bearer(realm=f"https://{s.registry.host}/token")
    s.credentials()


@fault
def plain_where_the_redirect_is_https(s):
    to_cdn(s, f"https://{s.thief.host}")


@fault
def tls_where_plain_is_spoken(s):
    s.secure()
    s.args += ["--plain-http", s.registry.host]


@fault
def tls_says_so_in_400(s):
    # As Go's and nginx's servers answer plain HTTP on a TLS port.
    s.hook("manifest", lambda x: x.send(400, b"Client sent an HTTP request to an HTTPS server.\n"))
    s.args += ["--plain-http", s.registry.host]


@fault
def tls_where_the_mirror_is_http(s):
    m = mirror(s, tls=s.tls_files[:2])
    at = s.args.index("--mirror") + 1
    s.args[at] = s.args[at].replace("=https://", "=http://")
    s.check(lambda: not m.rows(), "the mirror took it")


@fault
def proxy(s):
    s.name = f"registry.invalid/{s.repo}:{s.tag}"
    s.env = {"http_proxy": s.registry.url}
    s.args += ["--plain-http", "registry.invalid"]


@fault
def unreachable(s):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        s.name = f"127.0.0.1:{free.getsockname()[1]}/{s.repo}:{s.tag}"


@fault
def unknown_host(s):
    s.name = f"registry.invalid/{s.repo}:{s.tag}"


# ---- manifests ----
@fault
def pinned(s):
    s.pin = s.digest


@fault
def pinned_moved(s):
    # The registry answers the digest with another manifest.
    s.pin = s.digest
    other = s.content.manifest("m/other", "v1", {"schemaVersion": 2, "mediaType": MANIFEST, "config": {}, "layers": []})
    s.hook("manifest", lambda x: x.manifest(s.content.manifests["m/other"][other["digest"]][0], MANIFEST))


@fault
def content_digest_wrong(s):
    s.hook("manifest", lambda x: x.manifest(headers=[("Docker-Content-Digest", "sha256:" + "0" * 64)]))


@fault
def content_digest_other_algorithm(s):
    s.hook("manifest", lambda x: x.manifest(headers=[("Docker-Content-Digest", "sha512:" + "0" * 128)]))


@fault
def manifest_html(s):
    s.hook("manifest", lambda x: x.send(200, b"<html>please log in</html>", [("Content-Type", "text/html")]))


@fault
def manifest_type_conflict(s):
    data = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": []}).encode()
    s.hook("manifest", lambda x: x.manifest(data, MANIFEST))


@fault
def manifest_type_parameters(s):
    data, kind = s.content.manifests[s.repo][s.tag]
    s.hook("manifest", lambda x: x.send(200, data, [("Content-Type", kind + "; charset=utf-8")]))


@fault
def manifest_without_media_type(s):
    s.model(edit=lambda m: m.pop("mediaType") and m)


@fault
def manifest_too_large(s):
    s.model(edit=lambda m: m.update(annotations={"x": "a" * (5 << 20)}))
    s.check(lambda: s.registry.sent("manifest") <= 6 << 20, "the manifest was read twice")


@fault
def manifest_cut_json(s):
    s.model(edit=lambda m: json.dumps(m).encode()[:-20])


@fault
def manifest_deep_json(s):
    s.model(edit=lambda m: b'{"schemaVersion":2,"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}")


@fault
def manifest_duplicate_key(s):
    s.model(edit=lambda m: json.dumps(m).encode().replace(b'"layers":', b'"layers":[],"layers":'))


@fault
def manifest_schema_1(s):
    s.model(edit=lambda m: m.update(schemaVersion=1))


@fault
def million_layers(s):
    one = b',{"digest":"sha256:%s","size":1,"mediaType":"x"}' % (b"1" * 64)
    body = b'{"schemaVersion":2,"layers":[{}' + one * 1_000_000 + b"]}"
    s.hook("manifest", lambda x: x.send(200, body, [("Content-Type", MANIFEST)]))
    s.check(lambda: s.registry.sent("manifest") <= 64 << 20, "all of it was read")


@fault
def many_layers(s):
    one = {"digest": "sha256:" + "1" * 64, "size": 1, "mediaType": "x"}
    s.model(edit=lambda m: m["layers"].extend([one] * 20_000))


@fault
def size_negative(s):
    s.model(edit=lambda m: m["layers"][0].update(size=-1))


@fault
def size_overflow(s):
    s.model(edit=lambda m: m["layers"].extend([dict(m["layers"][0], size=(1 << 63) - 1, digest=digest(b"%d" % i)) for i in range(4)]))


@fault
def size_petabyte(s):
    s.model(edit=lambda m: m["layers"][0].update(size=1 << 50))
    s.check(lambda: not s.registry.sent("blob"), "a model that cannot fit was begun")


@fault
def size_terabytes(s):
    s.model(edit=lambda m: m["layers"][0].update(size=1 << 43))
    s.check(lambda: not s.registry.sent("blob"), "a model that cannot fit was begun")


@fault
def size_too_small(s):
    s.model(edit=lambda m: m["layers"][0].update(size=SMALL - 1))


@fault
def size_too_large(s):
    s.model(edit=lambda m: m["layers"][0].update(size=SMALL + 1))


@fault
def digest_twice_two_sizes(s):
    s.model(edit=lambda m: m["layers"].append(dict(m["layers"][0], size=SMALL - 1, annotations={"org.cncf.model.filepath": "b.gguf"})))


@fault
def digest_is_a_path(s):
    s.model(edit=lambda m: m["layers"][0].update(digest="sha256:../../../../etc/passwd"))
    s.check(lambda: not s.registry.sent("blob"), "asked for a path")


@fault
def digest_upper_case(s):
    s.model(edit=lambda m: m["layers"][0].update(digest=m["layers"][0]["digest"].upper().replace("SHA", "sha")))


@fault
def digest_sha512(s):
    def edit(m):
        data = s.content.read(m["layers"][0]["digest"])
        m["layers"][0]["digest"] = digest(data, "sha512")
        s.content.blobs[m["layers"][0]["digest"]] = data
    s.model(edit=edit)


@fault
def digest_unknown_algorithm(s):
    s.model(edit=lambda m: m["layers"][0].update(digest="md5:" + "0" * 32))


@fault
def filepath_escapes(s):
    s.model(layers=[s.weights(name="../../../escaped.gguf")])


@fault
def filepath_absolute(s):
    s.model(layers=[s.weights(name="/etc/escaped.gguf")])


@fault
def filepath_twice(s):
    s.model(layers=[s.weights(), s.weights(SMALL + 1)])


@fault
def no_layers(s):
    s.model(layers=[])


@fault
def unknown_packaging(s):
    def edit(m):
        m["artifactType"] = "application/vnd.example.book"
        m["layers"][0]["mediaType"] = "application/vnd.example.page"
        m["layers"][0].pop("annotations")
    s.model(layers=[s.weights(data=b"once upon a time" * 1000)], edit=edit, config_type="application/vnd.example.binding")


@fault
def config_empty_object(s):
    s.model(config=b"{}")


@fault
def config_snake_case(s):
    s.model(config=json.dumps({"descriptor": {}, "config": {"puantization": "q4", "parameterSize": "1"},
                               "modelfs": {"type": "layers", "diff_ids": ["sha256:" + "0" * 64]}}).encode())


@fault
def config_garbage(s):
    s.model(config=b"\0\1\2 not json")


@fault
def typeflag_ascii(s):
    s.model(layers=[s.content.blob(s.content.read(s.weight["digest"]), WEIGHT, annotations={
        "org.cncf.model.filepath": "model.gguf", "org.cncf.model.file.mediatype.untested": "true",
        "org.cncf.model.file.metadata+json": json.dumps({"name": "model.gguf", "typeflag": 48, "files": 1})})])


@fault
def octet_stream_layer(s):
    s.model(layers=[s.content.blob(s.content.read(s.weight["digest"]), "application/octet-stream", annotations={
        "org.opencontainers.image.title": "model.gguf"})], config=b"{}", config_type="application/vnd.oci.empty.v1+json")


@fault
def descriptor_data_wrong(s):
    s.model(edit=lambda m: m["config"].update(data=base64.b64encode(b"something else").decode()))


@fault
def layer_twice(s):
    s.model(layers=[s.weights(), s.content.blob(b"{}", CNCF + "weight.config.v1.raw"), s.content.blob(b"{}", CNCF + "doc.v1.raw")])


# ---- indexes ----
@fault
def index_deep(s):
    d = s.model()
    for i in range(6):
        d = s.content.manifest(s.repo, f"deep{i}", {"schemaVersion": 2, "mediaType": INDEX, "manifests": [d]})
    s.tag = "deep5"


@fault
def index_many(s):
    d = s.model()
    s.index([d] * 20_000)


@fault
def index_empty(s):
    s.index([])


@fault
def index_no_platform(s):
    a, b = s.model(), s.model(n=SMALL + 7)
    s.index([a, b])
    s.child = b["digest"]


@fault
def index_other_platform(s):
    a, b = s.model(), s.model(n=SMALL + 7)
    s.index([dict(a, platform={"os": "plan9", "architecture": "mips"}), dict(b, platform={"os": "aix", "architecture": "ppc"})])


@fault
def index_attestation(s):
    d, other = s.model(), s.model(n=SMALL + 9)
    arch = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)
    s.index([dict(other, platform={"os": "unknown", "architecture": "unknown"},
                  annotations={"vnd.docker.reference.type": "attestation-manifest"}),
             dict(d, platform={"os": "linux", "architecture": arch})])
    s.child = d["digest"]


@fault
def index_variants(s):
    a, b = s.model(), s.model(n=SMALL + 7)
    s.index([dict(a, modelMetadata={"quantization": "q8_0"}), dict(b, modelMetadata={"quantization": "q4_0"})],
            artifactType="application/vnd.kitops.modelkit.index.v1+json")
    s.child = b["digest"]
    s.args += ["--variant", "q4_0"]


@fault
def index_variant_unknown(s):
    index_variants(s)
    s.args[-1] = "q2_k"


@fault
def index_size_wrong(s):
    d = s.model()
    s.index([dict(d, size=d["size"] + 1)])


@fault
def index_child_wrong(s):
    d = s.model()
    s.index([d])
    s.child = d["digest"]
    data = s.content.manifests[s.repo][d["digest"]][0].replace(b"layers", b"LAYERS")
    s.hook("manifest", lambda x: x.reference == d["digest"] and x.manifest(data, MANIFEST))


# ---- tar layers ----
def tar(members, fmt=tarfile.PAX_FORMAT):
    """A tar of (name, bytes or TarInfo)."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=fmt) as t:
        for name, data in members:
            info = data if isinstance(data, tarfile.TarInfo) else tarfile.TarInfo(name)
            if isinstance(data, bytes):
                info.size = len(data)
            t.addfile(info, io.BytesIO(data) if isinstance(data, bytes) else None)
    return out.getvalue()


def gguf():
    return pathlib.Path(__file__, "../../golden/tiny/llama.gguf").resolve().read_bytes()


def tar_layer(s, data, form):
    s.model(layers=[s.weights(data=data, kind=CNCF + "weight.v1." + form)])


@fault
def tar_plain(s):
    tar_layer(s, tar([("model.gguf", gguf())]), "tar")


@fault
def tar_gzip_members(s):
    data = tar([("model.gguf", gguf())])
    tar_layer(s, gzip.compress(data[:5000]) + gzip.compress(data[5000:]), "tar+gzip")


@fault
def tar_end_missing(s):
    # umoci's layers end in mid-padding, without the two zero blocks.
    data = tar([("model.gguf", gguf() + b"")])
    end = 512 + len(gguf())
    tar_layer(s, data[:end], "tar")


def evil(name, kind, link=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


@fault
def tar_symlink(s):
    tar_layer(s, gzip.compress(tar([("model.gguf", evil("model.gguf", tarfile.SYMTYPE, "/etc/passwd"))])), "tar+gzip")


@fault
def tar_hardlink(s):
    tar_layer(s, gzip.compress(tar([("model.gguf", evil("model.gguf", tarfile.LNKTYPE, "/etc/passwd"))])), "tar+gzip")


@fault
def tar_device(s):
    tar_layer(s, gzip.compress(tar([("model.gguf", evil("model.gguf", tarfile.CHRTYPE))])), "tar+gzip")


@fault
def tar_escapes(s):
    tar_layer(s, gzip.compress(tar([("../../../escaped.gguf", gguf())])), "tar+gzip")


@fault
def tar_truncated(s):
    tar_layer(s, tar([("model.gguf", gguf())])[:100_000], "tar")


@fault
def gzip_truncated(s):
    tar_layer(s, gzip.compress(tar([("model.gguf", gguf())]))[:-5000], "tar+gzip")


@fault
def gzip_bomb(s):
    info = tarfile.TarInfo("model.gguf")
    info.size = 4 << 30
    out = io.BytesIO()
    with gzip.GzipFile(fileobj=out, mode="wb", compresslevel=9, mtime=0) as z:
        z.write(info.tobuf())
    # A gzip member of 16 MiB of zeros, over and over: a few MiB that grow to 4 GiB.
    member = gzip.compress(bytes(16 << 20), mtime=0)
    tar_layer(s, out.getvalue() + member * 256, "tar+gzip")


def zstd_zeros(n):
    """A zstd frame of n zeros in RLE blocks."""
    blocks = []
    while n:
        size = min(n, 128 << 10)
        n -= size
        blocks.append(struct.pack("<I", size << 3 | 1 << 1 | (n == 0))[:3] + b"\0")
    return struct.pack("<I", 0xFD2FB528) + bytes([0x00, (27 - 10) << 3]) + b"".join(blocks)


def zstd_raw(data):
    """A zstd frame of raw blocks."""
    blocks = []
    for at in range(0, len(data), 128 << 10):
        piece = data[at:at + (128 << 10)]
        blocks.append(struct.pack("<I", len(piece) << 3 | (at + len(piece) == len(data)))[:3] + piece)
    return struct.pack("<I", 0xFD2FB528) + bytes([0x00, (20 - 10) << 3]) + b"".join(blocks)


@fault
def zstd_frames(s):
    # Several frames and a skippable one between, as zstd:chunked writes them.
    data = tar([("model.gguf", gguf())])
    tar_layer(s, zstd_raw(data[:7000]) + struct.pack("<II", 0x184D2A50, 5) + b"hello" + zstd_raw(data[7000:]), "tar+zstd")


@fault
def zstd_bomb(s):
    info = tarfile.TarInfo("model.gguf")
    info.size = 4 << 30
    tar_layer(s, zstd_raw(info.tobuf()) + zstd_zeros(4 << 30), "tar+zstd")


@fault
def zstd_window(s):
    frame = bytearray(zstd_raw(tar([("model.gguf", gguf())])))
    frame[5] = (31 - 10) << 3  # claims a window of 2 GiB
    tar_layer(s, bytes(frame), "tar+zstd")


# ---- the store ----
@fault
def quota(s):
    s.model(n=LARGE)
    s.args += ["--store-quota", "32MiB"]
    s.check(lambda: not s.registry.sent("blob"), "a model over the quota was begun")


@fault
def tag_moves(s):
    # Resolved once: the tag points elsewhere for the second request on, which must not happen.
    old = s.digest
    first = s.once(lambda x: x.manifest(s.content.manifests[s.repo][old][0], MANIFEST))
    s.model(n=SMALL + 11)
    s.digest = s.child = old
    s.hook("manifest", lambda x: x.reference == s.tag and first(x))


def make_tls(folder):
    """(certificate, key, ca, another ca) for 127.0.0.1, made with the openssl program."""
    folder = pathlib.Path(folder)

    def run(*a):
        subprocess.run(["openssl", *a], cwd=folder, check=True, capture_output=True)
    new = ("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30")
    run(*new, "-subj", "/CN=fake-ca", "-keyout", "ca.key", "-out", "ca.crt")
    run(*new, "-subj", "/CN=other-ca", "-keyout", "other.key", "-out", "other.crt")
    run("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=fake", "-keyout", "srv.key",
        "-out", "srv.csr")
    (folder / "ext").write_text("subjectAltName=IP:127.0.0.1\n")
    run("x509", "-req", "-in", "srv.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "30", "-extfile", "ext",
        "-out", "srv.crt")
    return folder / "srv.crt", folder / "srv.key", folder / "ca.crt", folder / "other.crt"
