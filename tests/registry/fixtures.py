"""One small model in every packaging: each fixture is an image-layout whose entry `v1` is the model.

A fixture says where it comes from: a real producer (umoci, oras), or written here from the specification. The bytes
are those of tests/golden/tiny/llama.gguf, whole, in a tar, or split in three."""
import contextlib
import dataclasses
import gzip
import hashlib
import io
import json
import os
import pathlib
import struct
import subprocess
import tarfile
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODEL = ROOT / "tests/golden/tiny/llama.gguf"
OTHER = ROOT / "tests/golden/tiny/gemma3.gguf"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
CNCF, CNAI, DOCKER, OLLAMA = ("application/vnd.cncf.model.", "application/vnd.cnai.model.", "application/vnd.docker.ai.",
                              "application/vnd.ollama.image.")
ARCH = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)
FIXTURES = {}


@dataclasses.dataclass
class Fixture:
    """name, where it comes from, the packaging's row in capstan, f(Layout, Tools) -> descriptor of v1, arguments,
    extracted?, the label of the suite that makes it"""
    name: str
    source: str
    row: str
    make: object
    args: tuple = ()
    extracts: bool = False
    label: str = "registry"


@dataclasses.dataclass
class Tools:
    """What some producers need: a registry to push to, and a python with their packages beside it."""
    registry: str
    python: str


def fixture(source, row, **more):
    def add(f):
        FIXTURES[f.__name__] = Fixture(f.__name__, source, row, f, **more)
        return f
    return add


class Layout:
    """An image-layout on disk."""

    def __init__(self, path):
        self.path = pathlib.Path(path)
        (self.path / "blobs/sha256").mkdir(parents=True)
        (self.path / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')

    def blob(self, data, media_type, **more):
        hexa = hashlib.sha256(data).hexdigest()
        (self.path / "blobs/sha256" / hexa).write_bytes(data)
        return {"mediaType": media_type, "digest": "sha256:" + hexa, "size": len(data), **more}

    def json(self, value, media_type, **more):
        return self.blob(json.dumps(value).encode(), media_type, **more)

    def manifest(self, config, layers, media_type=MANIFEST, **more):
        return self.json({"schemaVersion": 2, "mediaType": media_type, **more, "config": config, "layers": layers}, media_type)

    def name(self, descriptor, name="v1"):
        entry = {**descriptor, "annotations": {"org.opencontainers.image.ref.name": name}}
        (self.path / "index.json").write_text(json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}))

    def read(self, descriptor):
        return (self.path / "blobs" / descriptor["digest"].replace(":", "/")).read_bytes()


def filepath(name, key="org.cncf.model.filepath"):
    return {"annotations": {key: name}}


def modelpack(layout, layers, root=CNCF, config=None):
    config = config or {"descriptor": {"family": "llama"}, "config": {"format": "gguf"},
                        "modelfs": {"type": "layers", "diffIds": [d["digest"] for d in layers]}}
    return layout.manifest(layout.json(config, root + "config.v1+json"), layers, artifactType=root + "manifest.v1+json")


def tar(name, data, fmt=tarfile.PAX_FORMAT, links=()):
    """A tar of one file, and before it of links: (name, type, target)."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=fmt) as t:
        for path, kind, target in links:
            info = tarfile.TarInfo(path)
            info.type, info.linkname = kind, target
            t.addfile(info)
        info = tarfile.TarInfo(name)
        info.size, info.mode = len(data), 0o644
        t.addfile(info, io.BytesIO(data))
    return out.getvalue()


# ---- GGUF, as far as splitting needs it ----
def split_gguf(data, n):
    """`data` in n shards, as llama.cpp's gguf-split makes them: split.no, split.count, split.tensors.count; all other
    metadata in the first."""
    sizes = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
    at = 4

    def take(fmt):
        nonlocal at
        v = struct.unpack_from("<" + fmt, data, at)
        at += struct.calcsize("<" + fmt)
        return v[0] if len(v) == 1 else v

    def string():
        nonlocal at
        k = take("Q")
        at += k
        return data[at - k:at]

    def skip(kind):
        nonlocal at
        if kind == 8:
            string()
        elif kind == 9:
            item, count = take("IQ")
            for _ in range(count):
                skip(item)
        else:
            at += sizes[kind]

    version, n_tensors, n_kv = take("IQQ")
    kv_begin, align = at, 32
    for _ in range(n_kv):
        key = string()
        kind = take("I")
        if key == b"general.alignment":
            align = struct.unpack_from("<I", data, at)[0]
        skip(kind)
    kv = data[kv_begin:at]
    tensors = []
    for _ in range(n_tensors):
        name = string()
        dims = take("I")
        shape = data[at:at + 8 * dims]
        at += 8 * dims
        kind, offset = take("IQ")
        tensors.append((name, dims, shape, kind, offset))
    base = (at + align - 1) // align * align
    ends = sorted([t[4] for t in tensors] + [len(data) - base])

    def pair(key, kind, fmt, value):
        return struct.pack("<Q", len(key)) + key + struct.pack("<I" + fmt, kind, value)

    shards = []
    for i in range(n):
        mine = tensors[i * n_tensors // n:(i + 1) * n_tensors // n]
        meta = (kv if i == 0 else b"") + pair(b"split.no", 2, "H", i) + pair(b"split.count", 2, "H", n) + \
            pair(b"split.tensors.count", 5, "i", n_tensors)
        infos, body = b"", b""
        for name, dims, shape, kind, offset in mine:
            infos += struct.pack("<Q", len(name)) + name + struct.pack("<I", dims) + shape + struct.pack("<IQ", kind, len(body))
            piece = data[base + offset:base + min(e for e in ends if e > offset)]
            body += piece + bytes(-len(piece) % align)
        head = b"GGUF" + struct.pack("<IQQ", version, len(mine), (n_kv if i == 0 else 0) + 3) + meta + infos
        shards.append(head + bytes(-len(head) % align) + body)
    return shards


# ---- ModelPack ----
@fixture("written from the specification", "modelpack")
def modelpack_raw(layout):
    return modelpack(layout, [layout.blob(MODEL.read_bytes(), CNCF + "weight.v1.raw", **filepath("llama.gguf")),
                              layout.blob(b"# A model\n", CNCF + "doc.v1.raw", **filepath("README.md"))])


@fixture("written from the specification", "modelpack")
def modelpack_tar(layout):
    return modelpack(layout, [layout.blob(tar("llama.gguf", MODEL.read_bytes()), CNCF + "weight.v1.tar", **filepath("llama.gguf"))])


@fixture("written from the specification; the member as AIKit names it", "modelpack", extracts=True)
def modelpack_tar_gzip(layout):
    data = gzip.compress(tar("llama.gguf", MODEL.read_bytes(), tarfile.GNU_FORMAT), mtime=0)
    return modelpack(layout, [layout.blob(data, CNCF + "weight.v1.tar+gzip", **filepath("models/llama.gguf"))], config={})


@fixture("written from the specification, compressed by zstd", "modelpack", extracts=True)
def modelpack_tar_zstd(layout):
    data = subprocess.run(["zstd", "-qc"], input=tar("llama.gguf", MODEL.read_bytes()), capture_output=True, check=True).stdout
    return modelpack(layout, [layout.blob(data, CNCF + "weight.v1.tar+zstd", **filepath("llama.gguf"))])


@fixture("written from the specification, links beside the weights", "modelpack", extracts=True)
def modelpack_links(layout):
    links = [("latest.gguf", tarfile.SYMTYPE, "llama.gguf"), ("again", tarfile.LNKTYPE, "llama.gguf"),
             ("up", tarfile.SYMTYPE, "../../etc/passwd")]
    data = gzip.compress(tar("llama.gguf", MODEL.read_bytes(), links=links), mtime=0)
    return modelpack(layout, [layout.blob(data, CNCF + "weight.v1.tar+gzip", **filepath("llama.gguf"))])


@fixture("written from the specification, the layers out of order", "modelpack")
def modelpack_split(layout):
    names = [f"llama-{i + 1:05}-of-00003.gguf" for i in range(3)]
    layers = [layout.blob(d, CNCF + "weight.v1.raw", **filepath(name)) for name, d in zip(names, split_gguf(MODEL.read_bytes(), 3))]
    return modelpack(layout, [layers[2], layers[0], layers[1]])


@fixture("written from the specification", "modelpack", extracts=True)
def modelpack_split_tar(layout):
    names = [f"llama-{i + 1:05}-of-00002.gguf" for i in range(2)]
    a, b = (tar(name, d) for name, d in zip(names, split_gguf(MODEL.read_bytes(), 2)))
    return modelpack(layout, [layout.blob(a, CNCF + "weight.v1.tar", **filepath(names[0])),
                              layout.blob(gzip.compress(b, mtime=0), CNCF + "weight.v1.tar+gzip", **filepath(names[1]))])


@fixture("written from the specification before it moved to CNCF's names", "modelpack")
def modelpack_cnai(layout):
    layer = layout.blob(MODEL.read_bytes(), CNAI + "weight.v1.raw", **filepath("llama.gguf", "org.cnai.model.filepath"))
    return modelpack(layout, [layer], CNAI, {"descriptor": {}, "config": {"puantization": "f32", "parameterSize": "1m"},
                                             "modelfs": {"type": "layers", "diff_ids": [layer["digest"]]}})


# ---- Docker model ----
def docker_config(layers, version):
    return {"config": {"format": "gguf", "quantization": "F32", "parameters": "0.10 M", "architecture": "llama", "size": "0.4 MiB"},
            "descriptor": {"created": "2025-01-01T00:00:00Z"}, "rootfs": {"type": "rootfs", "diff_ids": [d["digest"] for d in layers]},
            **({"version": version} if version != "0.1" else {})}


@fixture("written from Docker Model Runner's source", "docker")
def docker_v01(layout):
    layers = [layout.blob(MODEL.read_bytes(), DOCKER + "gguf.v3"), layout.blob(b"Apache-2.0\n", DOCKER + "license")]
    return layout.manifest(layout.json(docker_config(layers, "0.1"), DOCKER + "model.config.v0.1+json"), layers)


@fixture("written from Docker Model Runner's source", "docker")
def docker_v01_split(layout):
    layers = [layout.blob(d, DOCKER + "gguf.v3") for d in split_gguf(MODEL.read_bytes(), 3)]
    return layout.manifest(layout.json(docker_config(layers, "0.1"), DOCKER + "model.config.v0.1+json"), layers)


@fixture("written from Docker Model Runner's source", "docker")
def docker_v02(layout):
    layers = [layout.blob(b"{}", DOCKER + "model.file", **filepath("sub/config.json")),
              layout.blob(MODEL.read_bytes(), DOCKER + "gguf.v3", **filepath("sub/llama.gguf"))]
    return layout.manifest(layout.json(docker_config(layers, "0.2"), DOCKER + "model.config.v0.2+json"), layers)


# ---- Ollama ----
@fixture("written from Ollama's source", "ollama")
def ollama(layout):
    layers = [layout.blob(MODEL.read_bytes(), OLLAMA + "model"), layout.blob(b"{{ .Prompt }}", OLLAMA + "template"),
              layout.blob(b'{"stop":["</s>"],"temperature":0.6}', OLLAMA + "params"), layout.blob(b"MIT\n", OLLAMA + "license")]
    config = layout.json({"model_format": "gguf", "model_family": "llama", "file_type": "F32", "architecture": "amd64", "os": "linux",
                          "rootfs": {"type": "layers", "diff_ids": [d["digest"] for d in layers]}},
                         "application/vnd.docker.container.image.v1+json")
    return layout.manifest(config, layers, DOCKER_MANIFEST)


# ---- plain files ----
@fixture("written as `podman artifact add` does", "oras")
def podman_artifact(layout):
    layer = layout.blob(MODEL.read_bytes(), "application/octet-stream", annotations={"org.opencontainers.image.title": "llama.gguf"})
    return layout.manifest(layout.blob(b"{}", "application/vnd.oci.empty.v1+json"), [layer],
                           artifactType="application/vnd.example+type")


def from_registry(layout, tools, name):
    """What a producer pushed to the registry, as `v1` of the layout."""
    subprocess.run(["skopeo", "copy", "-q", "--src-tls-verify=false", f"docker://{tools.registry}/made/{name}:v1",
                    f"oci:{layout.path}:v1"], check=True)
    return the_entry(layout.path)


def the_entry(path):
    entry = json.loads((path / "index.json").read_text())["manifests"][0]
    return {k: entry[k] for k in ("mediaType", "digest", "size")}


def push_files(layout, tools, name, files):
    work = layout.path / "work"
    work.mkdir()
    for title, source in files.items():
        (work / title).write_bytes(source.read_bytes())
    script = ("import oras.client, sys\n"
              "oras.client.OrasClient(insecure=True, tls_verify=False).push(files=sys.argv[2:], target=sys.argv[1])\n")
    subprocess.run([tools.python, "-c", script, f"{tools.registry}/made/{name}:v1", *files], cwd=work, check=True, capture_output=True)
    return from_registry(layout, tools, name)


@fixture("pushed by the oras package of PyPI", "oras")
def oras(layout, tools):
    return push_files(layout, tools, "oras", {"llama.gguf": MODEL})


@fixture("pushed by the oras package of PyPI: two quantizations", "oras", args=("--variant", "f32"))
def oras_variants(layout, tools):
    return push_files(layout, tools, "oras_variants", {"m-Q8_0.gguf": OTHER, "m-F32.gguf": MODEL})


@fixture("pushed by the omlmd package of PyPI", "oras")
def omlmd(layout, tools):
    work = layout.path / "work"
    work.mkdir()
    (work / "llama.gguf").write_bytes(MODEL.read_bytes())
    script = ("import sys\nfrom omlmd.helpers import Helper\nfrom omlmd.provider import OMLMDRegistry\n"
              "Helper(OMLMDRegistry(insecure=True)).push(sys.argv[1], 'llama.gguf', name='llama')\n")
    subprocess.run([tools.python, "-c", script, f"{tools.registry}/made/omlmd:v1"], cwd=work, check=True, capture_output=True)
    return from_registry(layout, tools, "omlmd")


# ---- images ----
def umoci(folder, inside):
    """An image in `folder`/car whose only layer is `folder`/files, under the path `inside`."""
    image = f"{folder}/car:v1"
    for args in (["init", "--layout", f"{folder}/car"], ["new", "--image", image],
                 ["insert", "--rootless", "--image", image, f"{folder}/files", inside],
                 ["config", "--image", image, "--architecture", ARCH, "--os", "linux"]):
        subprocess.run(["umoci", *args], check=True, capture_output=True)
    return folder / "car"


def take(layout, made):
    """The blobs and the entry of a layout that a producer made."""
    for path in (made / "blobs/sha256").iterdir():
        path.rename(layout.path / "blobs/sha256" / path.name)
    return the_entry(made)


@fixture("made by umoci", "image", extracts=True)
def modelcar_gzip(layout):
    files = layout.path / "work/files"
    files.mkdir(parents=True)
    (files / "llama.gguf").write_bytes(MODEL.read_bytes())
    return take(layout, umoci(layout.path / "work", "/models"))


@fixture("made by olot (PyPI) on an image by umoci", "image")
def modelcar_olot(layout, tools):
    files = layout.path / "work/files"
    files.mkdir(parents=True)
    (files / "motd").write_text("a base\n")
    car = umoci(layout.path / "work", "/etc")
    (layout.path / "work/llama.gguf").write_bytes(MODEL.read_bytes())
    olot = pathlib.Path(tools.python).parent / "olot"
    subprocess.run([olot, car, layout.path / "work/llama.gguf"], check=True, capture_output=True)
    return take(layout, car)


# Both keep their state in a folder of their own, run nothing, and need no daemon.
@contextlib.contextmanager
def containers(layout, *program):
    """A function that runs `program` in layout's work folder, which holds the model, with a storage for itself."""
    work = layout.path / "work"
    work.mkdir()
    (work / "llama.gguf").write_bytes(MODEL.read_bytes())
    with tempfile.TemporaryDirectory(prefix="cp-") as state:  # podman wants a short path
        own = ("--root", f"{state}/root", "--runroot", f"{state}/run", "--storage-driver", "vfs")

        def call(*args):
            done = subprocess.run([*program, *own, *args], check=False, capture_output=True, text=True, cwd=work)
            if done.returncode:
                raise RuntimeError(f"{' '.join(program)} {' '.join(args)}: {done.stderr}")
            return done.stdout.strip()
        yield call


@fixture("made by buildah", "image", label="containers")
def modelcar_buildah(layout):
    with containers(layout, "buildah") as buildah:
        c = buildah("from", "scratch")
        buildah("copy", "-q", c, "llama.gguf", "/models/llama.gguf")
        buildah("config", "--os", "linux", "--arch", ARCH, c)
        buildah("commit", "-q", "--timestamp", "0", c, f"oci:{layout.path}/work/car:v1")
    return take(layout, layout.path / "work/car")


@fixture("built and pushed by podman, in Docker's types", "image", label="containers")
def modelcar_podman(layout):
    car = layout.path / "work/car"
    # crun wants more than a plain virtual machine gives
    with containers(layout, "podman", "--runtime", "runc", "--cgroup-manager", "cgroupfs") as podman:
        (layout.path / "work/Containerfile").write_text("FROM scratch\nCOPY llama.gguf /models/llama.gguf\n")
        podman("build", "-q", "--isolation", "chroot", "-t", "localhost/car:v1", ".")
        podman("push", "-q", "--format", "v2s2", "localhost/car:v1", f"dir:{car}")
    m = json.loads((car / "manifest.json").read_bytes())
    for d in [m["config"], *m["layers"]]:
        (car / d["digest"][7:]).rename(layout.path / "blobs" / d["digest"].replace(":", "/"))
    return layout.blob((car / "manifest.json").read_bytes(), m["mediaType"])


@fixture("built by buildah from the Containerfile that RamaLama writes: a link to the model", "image", label="containers")
def modelcar_ramalama(layout):
    with containers(layout, "buildah") as buildah:
        work = layout.path / "work"
        (work / "data/models/tiny").mkdir(parents=True)
        (work / "data/models/tiny/llama.gguf").write_bytes(MODEL.read_bytes())
        (work / "data/models/model.file").symlink_to("tiny/llama.gguf")
        c = buildah("from", "scratch")
        buildah("copy", "-q", c, "data/", "/")
        buildah("config", "--os", "linux", "--arch", ARCH, "--label", "org.containers.type=ai.image.model.raw", c)
        buildah("commit", "-q", "--timestamp", "0", c, f"oci:{work}/car:v1")
    return take(layout, work / "car")


@fixture("written as RamaLama's images are: a link to the model's folder", "image", extracts=True)
def modelcar_link(layout):
    links = [("models/model.file", tarfile.SYMTYPE, "tiny")]
    data = gzip.compress(tar("models/tiny/tiny.gguf", MODEL.read_bytes(), links=links), mtime=0)
    config = {"architecture": ARCH, "os": "linux", "config": {"Labels": {"org.containers.type": "ai.image.model.car"}},
              "rootfs": {"type": "layers", "diff_ids": []}}
    return layout.manifest(layout.json(config, "application/vnd.oci.image.config.v1+json"),
                           [layout.blob(data, "application/vnd.oci.image.layer.v1.tar+gzip")])


@fixture("written from the image specification: a later layer hides a file of an earlier one", "image", extracts=True)
def modelcar_whiteout(layout):
    kind = "application/vnd.oci.image.layer.v1.tar"
    old = tar("models/old.gguf", OTHER.read_bytes())
    new = tar("models/.wh.old.gguf", b"")
    more = subprocess.run(["zstd", "-qc"], input=tar("models/llama.gguf", MODEL.read_bytes()), capture_output=True, check=True).stdout
    layers = [layout.blob(old, kind), layout.blob(gzip.compress(new, mtime=0), kind + "+gzip"), layout.blob(more, kind + "+zstd")]
    config = {"architecture": ARCH, "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": []}}
    return layout.manifest(layout.json(config, "application/vnd.oci.image.config.v1+json"), layers)


# ---- indexes ----
def other(layout):
    return modelpack(layout, [layout.blob(OTHER.read_bytes(), CNCF + "weight.v1.raw", **filepath("gemma3.gguf"))])


@fixture("written from the image specification", "modelpack")
def index_platforms(layout):
    mine, theirs = modelpack_raw(layout), other(layout)
    return layout.json({"schemaVersion": 2, "mediaType": INDEX, "manifests": [
        {**theirs, "platform": {"os": "linux", "architecture": "s390x"}},
        {**theirs, "platform": {"os": "unknown", "architecture": "unknown"},
         "annotations": {"vnd.docker.reference.type": "attestation-manifest"}},
        {**mine, "platform": {"os": "linux", "architecture": ARCH}}]}, INDEX)


@fixture("written as KitOps 1.17 does", "modelpack", args=("--variant", "f32"))
def index_variants(layout):
    kit = "application/vnd.kitops.modelkit.index.v1+json"
    return layout.json({"schemaVersion": 2, "mediaType": INDEX, "artifactType": kit, "manifests": [
        {**other(layout), "modelMetadata": {"quantization": "q8_0", "vram": "6GB"}},
        {**modelpack_raw(layout), "modelMetadata": {"quantization": "f32"}}]}, INDEX)


def make(folder, tools=None, label="registry", names=None):
    """{name: (Fixture, layout's path, descriptor of v1)} in `folder`."""
    made = {}
    for f in FIXTURES.values():
        if f.name not in names if names else f.label != label:
            continue
        layout = Layout(pathlib.Path(folder) / f.name)
        d = f.make(layout, tools) if f.make.__code__.co_argcount == 2 else f.make(layout)
        layout.name(d)
        made[f.name] = f, layout.path, d
    return made
