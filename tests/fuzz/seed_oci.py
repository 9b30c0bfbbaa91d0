#!/usr/bin/env python3
"""Writes the seeds of fuzz_manifest and fuzz_tar: the recorded manifests, indexes as producers write them, and tars in
every format that Python knows, whole and cut.

    seed_oci.py tests/unit/loader/manifests tests/fuzz/corpus
"""
import glob
import io
import json
import os
import sys
import tarfile

recorded, corpus = sys.argv[1:]


def write(target, name, data):
    os.makedirs(os.path.join(corpus, target), exist_ok=True)
    with open(os.path.join(corpus, target, name), "wb") as f:
        f.write(data)


for path in glob.glob(os.path.join(recorded, "*.json")):
    text = json.dumps(json.load(open(path)), separators=(",", ":")).encode()
    write("manifest", os.path.basename(path)[:-5], b"0" + text)


def entry(n, **more):
    return {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": "sha256:" + f"{n:04x}" * 16, "size": 9, **more}


def platform(o, a):
    return {"platform": {"os": o, "architecture": a}}


INDEXES = {
    "kitops": [entry(i, modelMetadata={"quantization": q, "vram": v, "n": i, "f": 1.5, "b": True, "o": {}})
               for i, (q, v) in enumerate([("q4_0", "6GB"), ("q8_0", "9.5 GiB"), ("f16", "x")])],
    "platforms": [entry(1, **platform("linux", "amd64")), entry(2, **platform("linux", "arm64")),
                  entry(3, **platform("unknown", "unknown"), annotations={"vnd.docker.reference.type": "attestation-manifest"})],
    "names": [entry(i, annotations={"org.opencontainers.image.ref.name": n}) for i, n in enumerate("ab")],
    "one": [entry(1)],
    "none": [],
    "odd": [entry(1, digest="sha512:" + "ab" * 64), entry(2, artifactType="a", urls=["http://x"], data="e30=")],
}
for name, entries in INDEXES.items():
    write("manifest", "index-" + name, b"1" + json.dumps({"schemaVersion": 2, "manifests": entries}, separators=(",", ":")).encode())
OK = {"mediaType": "t", "digest": "sha256:" + "ab" * 32, "size": 1}
BAD = [b"", b"[]", b"7", b"{", b'{"schemaVersion":2,"schemaVersion":2}', b'{"imageLayoutVersion":"2"}',
       b'{"config":{"size":8}}', b'{"config":{"size":-1}}', b'{"config":{"size":"1"}}',
       {"manifests": [], "layers": []}, {"manifests": {}}, {"manifests": [7]}, {"manifests": [{**OK, "platform": 1}]},
       {"schemaVersion": 2, "manifests": [], "config": OK, "layers": []}, {"schemaVersion": 2, "config": OK},
       {"schemaVersion": 2, "config": OK, "layers": [OK] * 3, "artifactType": 1}, {"schemaVersion": 2, "config": 1, "layers": []},
       {"schemaVersion": 2, "config": OK, "layers": [{**OK, "size": 2**63 - 1}] * 3}, {"schemaVersion": 2, "config": OK, "layers": [
           {**OK, "mediaType": "x" * 1025}]}, {"schemaVersion": 2, "config": {**OK, "size": 1 << 40}, "layers": [
               {**OK, "mediaType": "application/vnd.cncf.model.weight.v1.raw", "annotations": {"org.cncf.model.filepath": "a\\b"}}]},
       {"schemaVersion": 2, "mediaType": "m", "config": {**OK, "mediaType": "application/vnd.docker.ai.model.config.v0.1+json", "size": 1 << 33},
        "layers": [{**OK, "mediaType": "application/vnd.docker.ai.gguf.v3", "annotations": {"org.opencontainers.image.title": "t"}}]},
       {"schemaVersion": 2, "config": OK, "layers": [{**OK, "annotations": {"org.cncf.model.filepath": "a/../b"}}]},
       {"schemaVersion": 2, "config": OK, "layers": [{**OK, "mediaType": "a\tb"}]}]
for i, bad in enumerate(BAD):
    for kind in (b"0", b"1"):
        write("manifest", f"bad-{i}-{kind.decode()}", kind + (bad if isinstance(bad, bytes) else json.dumps(bad, separators=(",", ":")).encode()))
INDEXES["units"] = [entry(i, modelMetadata={"memory": v}) for i, v in enumerate(
    ("1", "2 B", "3k", "1.5.5", "9999999999TB", "4 KB", "5MiB", "", "6 parsecs"))]
INDEXES["metadata-strange"] = [entry(1, modelMetadata={"a": "x\ty", "l": [], "long": "y" * 1100}, annotations={"a": "b", "title": "t"}),
                               entry(2, annotations={"org.opencontainers.image.title": "t"}, **platform("linux", "amd64"))]
for name in ("units", "metadata-strange"):
    write("manifest", "index-" + name, b"1" + json.dumps({"manifests": INDEXES[name]}, separators=(",", ":")).encode())
write("manifest", "version", b'1{"imageLayoutVersion":"1.0.0"}')

MEMBERS = [("models", None), ("models/a.gguf", b"GGUFxxxx"), ("models/.wh.b", b""), ("models/s/.wh..wh..opq", b""), ("etc/x", b"x" * 600),
           ("models/" + "n" * 120, b"long"), ("models/\u00e9", b"u")]
for name, fmt in (("ustar", tarfile.USTAR_FORMAT), ("gnu", tarfile.GNU_FORMAT), ("pax", tarfile.PAX_FORMAT)):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=fmt) as t:
        for path, data in MEMBERS:
            info = tarfile.TarInfo(path)
            if data is None:
                info.type = tarfile.DIRTYPE
            else:
                info.size = len(data)
            if fmt == tarfile.USTAR_FORMAT and len(path) > 100:
                continue
            t.addfile(info, io.BytesIO(data or b""))
    whole = out.getvalue()
    end = len(whole.rstrip(b"\0"))
    for mode in b"0123":
        write("tar", f"{name}-{chr(mode)}", bytes([mode]) + whole[:end + 1500])
    write("tar", f"{name}-bare", b"1" + whole[:end])
for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.CONTTYPE, b"S", b"M", b"V"):
    info = tarfile.TarInfo("models/x")
    info.type = kind
    write("tar", "type-" + kind.decode(), b"1" + info.tobuf(tarfile.GNU_FORMAT) + b"\0" * 1024)
for name, info in (("base256", 9 << 30), ("negative", -2)):
    t = tarfile.TarInfo("models/x")
    t.size = info
    write("tar", name, b"3" + t.tobuf(tarfile.GNU_FORMAT))
bad = tarfile.TarInfo("models/x").tobuf(tarfile.USTAR_FORMAT)
for at, field in ((124, b"9"), (124, b"1 1"), (0, b"\0" * 100), (148, b"xx")):
    write("tar", f"field-{at}-{len(field)}", b"3" + bad[:at] + field + bad[at + len(field):] + b"\0" * 1024)
write("tar", "prefix", b"3" + bad[:345] + b"models/p" + bad[353:] + b"\0" * 1024)
write("tar", "tail", b"1" + bad + b"\0" * 1024 + b"hidden".ljust(512, b"."))
write("tar", "no-member", b"1" + b"\0" * 1024)
big = tarfile.TarInfo("x")
big.type, big.size = b"x", 2 << 20
write("tar", "meta-huge", b"1" + big.tobuf(tarfile.USTAR_FORMAT))
big.size = 700
write("tar", "meta-cut", b"1" + big.tobuf(tarfile.USTAR_FORMAT) + b"5 a=\n")
for name, kind, path in (("name-huge", b"L", b"n" * 4100), ("name-none", b"L", b""), ("link-name", b"K", b"t")):
    big.type, big.size = kind, len(path)
    write("tar", name, b"1" + big.tobuf(tarfile.USTAR_FORMAT) + path.ljust(-(-len(path) // 512) * 512, b"\0") + bad + b"\0" * 1024)
big.type, big.size = b"K", 1
write("tar", "meta-many", b"1" + (big.tobuf(tarfile.USTAR_FORMAT) + b"k".ljust(512, b"\0")) * 20)
for i, path in enumerate(("/models/x", "models/../x", "models/a\tb", "models/.wh.", ".")):
    t = tarfile.TarInfo(path)
    write("tar", f"path-{i}", b"1" + t.tobuf(tarfile.USTAR_FORMAT) + b"\0" * 1024)
twice = tarfile.TarInfo("models/x").tobuf(tarfile.USTAR_FORMAT)
write("tar", "twice", b"1" + twice + twice + b"\0" * 1024)
for i, record in enumerate((b"20 size=99999999999\n", b"29 size=99999999999999999999\n", b"11 size=-1\n", b"9 size=0\n9 size=0\n", b"13 size=9999\n", b"19 path=models/y\x00z\n", b"22 GNU.sparse.major=1\n", b"99 x=y\n", b"9 path=a\n9 path=b\n", b"5 =y\n")):
    for kind in (b"x", b"g"):
        t = tarfile.TarInfo("p")
        t.type = kind
        t.size = len(record)
        write("tar", f"record-{i}-{kind.decode()}", b"1" + t.tobuf(tarfile.USTAR_FORMAT) + record.ljust(512, b"\0") +
              tarfile.TarInfo("models/z").tobuf(tarfile.USTAR_FORMAT) + b"\0" * 1024)
