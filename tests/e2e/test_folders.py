"""What a store's folder may be (fresh, a store, foreign), cell by cell: every command against every state of the folder, its exit
code, and that nothing is written or deleted where it must not be. Then: who shares a store, and file systems that lack something.
Standard library only; the registry is tests/fakes/registry.py. As root the commands run as an unprivileged user."""
import concurrent.futures
import json
import os
import pathlib
import re
import shutil
import stat
import struct
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests/fakes"), str(ROOT / "tests/e2e")]
from harness import BIN  # noqa: E402  pylint: disable=wrong-import-position
from registry import Registry  # noqa: E402  pylint: disable=wrong-import-position
from test_pull import TINY, TINY_KV, add_model  # noqa: E402  pylint: disable=wrong-import-position

IS_ROOT = os.geteuid() == 0
USER_A, USER_B, GROUP = 64001, 64002, 64001
EMPTY_INDEX = b'{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}'
LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
HEX = "b94d27b9934d3e08a52e52d7da7dabfac484efe37a5380ee9088f7ace2efcde9"  # of "hello world"


def as_user(uid):
    return {"user": uid, "group": GROUP, "extra_groups": []} if IS_ROOT else {}


def give(path, uid=USER_A):
    """The whole tree to a user."""
    if IS_ROOT:
        for p in [path, *path.rglob("*")]:
            os.chown(p, uid, GROUP, follow_symlinks=False)


def listing(path):
    """{path: what a change would change}, recursively; {} when absent."""
    if not path.exists():
        return {}
    out = {}
    for p in [path, *path.rglob("*")]:
        s = p.lstat()
        out[str(p.relative_to(path))] = (stat.filemode(s.st_mode), s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino)
    return out


class Room(unittest.TestCase):
    """A registry with one model, a folder that everyone may enter, and the binary where everyone may run it."""

    @classmethod
    def setUpClass(cls):
        cls.temp = tempfile.TemporaryDirectory()
        cls.top = pathlib.Path(cls.temp.name)
        cls.top.chmod(0o755)
        cls.bin = cls.top / "capstan"
        shutil.copy(BIN, cls.bin)
        cls.bin.chmod(0o755)
        cls.gguf = cls.top / "m.gguf"
        shutil.copyfile(TINY, cls.gguf)
        cls.registry = Registry().start()
        add_model(cls.registry, "m/tiny", TINY.read_bytes())
        cls.ref = f"{cls.registry.host}/m/tiny:v1"

    @classmethod
    def tearDownClass(cls):
        cls.registry.close()
        for p in cls.top.rglob("*"):
            if p.is_dir() and not p.is_symlink():
                p.chmod(0o755)
        cls.temp.cleanup()

    def env(self, home, **more):
        home.mkdir(exist_ok=True, mode=0o777)
        home.chmod(0o777)
        return {**{k: v for k, v in os.environ.items() if not k.startswith("CAPSTAN")}, "HOME": str(home),
                "XDG_CACHE_HOME": str(home / "cache"), "XDG_DATA_HOME": str(home / "data"), **more}

    def capstan(self, store, *args, uid=USER_A, umask=0o022, wrap=(), **more):
        home = self.top / f"home-{uid}"
        return subprocess.run([*wrap, str(self.bin), *args, "--store", str(store)], capture_output=True, text=True, timeout=120,
                              check=False, env=self.env(home, **more), umask=umask, cwd=self.top, **as_user(uid))

    @staticmethod
    def ready(url):
        try:
            with urllib.request.urlopen(url + "/readyz", timeout=10) as answer:
                return answer.status == 200
        except OSError:
            return False

    def serve(self, store, wrap=(), uid=USER_A):
        """0 once it is ready, else its exit code; and its log."""
        with tempfile.NamedTemporaryFile("w+", dir=self.top, suffix=".log") as log:
            p = subprocess.Popen([*wrap, str(self.bin), "serve", self.ref, "--port", "0", *TINY_KV, "--store", str(store)], stderr=log,
                                 env=self.env(self.top / f"home-{uid}"), cwd=self.top, **as_user(uid))
            try:
                text, code = "", None
                while code is None:
                    text = pathlib.Path(log.name).read_text(encoding="utf-8")
                    url = re.search(r"listening on (http://\S+)", text)
                    code = 0 if url and self.ready(url[1]) else p.poll()
                    time.sleep(0.01)
                return code, pathlib.Path(log.name).read_text(encoding="utf-8")
            finally:
                p.kill()
                p.wait()

    def filled(self, name):
        """A store with the model in it, user A's."""
        store = self.top / name
        if not (store / "oci-layout").exists():
            store.mkdir()
            give(store)
            self.assertEqual(self.capstan(store, "pull", self.ref).returncode, 0)
        return store


def write(path, data=b"x"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


# ---- states ----
def half_made(d):
    write(d / "index.json", EMPTY_INDEX)
    write(d / ".capstan-tmp-1-0000000000000000", LAYOUT)


def model_runner(d):
    write(d / "layout.json", b'{"version":"1.0.0"}')
    write(d / "models.json", b'{"models":[]}')
    write(d / "blobs/sha256" / HEX, b"hello world")


def blobs_alone(d):
    write(d / "blobs/sha256" / HEX, b"hello world")


def index_missing(d):
    (d / "index.json").unlink()


def index_garbage(d):
    (d / "index.json").write_bytes(b"\x00\x01garbage")


def index_cut(d):
    (d / "index.json").write_bytes((d / "index.json").read_bytes()[:-9])


def index_empty(d):
    (d / "index.json").write_bytes(b"")


def index_unreadable(d):
    (d / "index.json").chmod(0)


def index_a_folder(d):
    (d / "index.json").unlink()
    (d / "index.json").mkdir()


def layout_missing(d):
    (d / "oci-layout").unlink()


def layout_garbage(d):
    (d / "oci-layout").write_bytes(b"{")


def layout_unreadable(d):
    (d / "oci-layout").chmod(0)


def blobs_a_file(d):
    shutil.rmtree(d / "blobs")
    write(d / "blobs")


def blobs_in_a_layout(d):
    write(d / ".inner/oci-layout", LAYOUT)
    (d / "blobs").rename(d / ".inner/blobs")
    (d / "blobs").symlink_to(".inner/blobs")


def read_only(d):
    for p in [*d.rglob("*"), d]:
        p.chmod(p.stat().st_mode & ~0o222)


def untouched(d):
    del d


FRESH = {
    "absent": None,
    "empty": untouched,
    "lost+found": lambda d: (d / "lost+found").mkdir(),
    "dot entries": lambda d: (write(d / ".nfs0001"), (d / ".snapshot").mkdir(), (d / "lost+found").mkdir()),
    "half made": half_made,
}
FOREIGN = {  # and what is named
    "a text file": (lambda d: write(d / "notes.txt"), "notes.txt"),
    "several": (lambda d: (write(d / "b"), write(d / "a"), write(d / ".c")), "'a'"),
    "a model runner's store": (model_runner, "'blobs'"),
    "blobs alone": (blobs_alone, "'blobs'"),
}
BROKEN = {  # of a store with a model
    "index missing": (index_missing, "index.json"),
    "index garbage": (index_garbage, "index.json"),
    "index cut": (index_cut, "index.json"),
    "index of no bytes": (index_empty, "index.json"),
    "index mode 000": (index_unreadable, "index.json"),
    "index a folder": (index_a_folder, "index.json"),
    "oci-layout missing": (layout_missing, "oci-layout"),
    "oci-layout garbage": (layout_garbage, "imageLayoutVersion|oci-layout|JSON"),
    "oci-layout mode 000": (layout_unreadable, "oci-layout"),
    "blobs a file": (blobs_a_file, "blobs is no folder"),
    "blobs a link into a layout": (blobs_in_a_layout, "a symbolic link into another layout, '.inner/blobs'"),
}
# command: words, exit code in a fresh folder, in a read-only store, in a store that has the model
COMMANDS = {
    "list": (["list"], 0, 0, 0),
    "inspect": (["inspect", "REF"], 3, 0, 0),
    "verify": (["verify", "REF"], 3, 0, 0),
    "rm": (["rm", "REF"], 3, 1, 0),
    "gc": (["gc"], 0, 1, 0),
    "gc --dry-run": (["gc", "--dry-run"], 0, 0, 0),
    "pack": (["pack", "GGUF", "-t", "packed:v1"], 0, 1, 0),
    "pull": (["pull", "REF"], 0, 1, 0),
    "run": (["run", "REF", "-p", "a", "-n", "1", "--raw", "--threads", "1"], 0, 0, 0),
    "tokenize": (["tokenize", "-m", "REF"], 0, 0, 0),
    "bench engine": (["bench", "engine", "-m", "REF", "-p", "2", "-n", "1", "--threads", "1"], 0, 0, 0),
    "serve": (None, 0, 0, 0),
}
READS = ("list", "inspect", "verify", "gc", "gc --dry-run", "rm")  # write nothing in a fresh folder


class Cells(Room):
    """Commands against states of a folder."""

    count = 0

    def folder(self, state, base=None):
        """A new folder in a state, user A's; what is in it."""
        Cells.count += 1
        d = self.top / f"d{Cells.count}"
        if base:
            shutil.copytree(base, d, symlinks=True)
        elif state:
            d.mkdir()
        if d.exists():
            give(d)
        else:  # its parent is user A's
            (self.top / f"p{Cells.count}").mkdir()
            give(self.top / f"p{Cells.count}")
            d = self.top / f"p{Cells.count}/absent/store"
        if state:
            state(d)
            give(d)
        return d, listing(d)

    def cell(self, name, d):
        words = COMMANDS[name][0]
        if words is None:
            return self.serve(d)
        p = self.capstan(d, *[{"REF": self.ref, "GGUF": str(self.gguf)}.get(w, w) for w in words])
        return p.returncode, p.stderr

    def check(self, rows, want, unchanged, base=None):
        def one(cell):
            state, name, named, (d, before) = cell
            code, text = self.cell(name, d)
            if code != want(name):
                return f"{state}: {name}: exit {code}, not {want(name)}: {text.strip()[-200:]}"
            if named and not any(n in text for n in named.split("|")):
                return f"{state}: {name}: does not name {named}: {text.strip()[-200:]}"
            after = listing(d)
            if unchanged(name) and after != before:
                return f"{state}: {name}: changed: {sorted(set(after.items()) ^ set(before.items()))[:6]}"
            return None

        cells = []
        for state, row in rows.items():
            make, named = row if isinstance(row, tuple) else (row, "")
            cells += [(state, name, named, self.folder(make, base)) for name in COMMANDS]
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            wrong = [w for w in pool.map(one, cells) if w]
        self.assertEqual(wrong, [], "\n".join([f"{len(wrong)} of {len(cells)} cells", *wrong]))


class Folders(Cells):
    def test_fresh(self):
        self.check(FRESH, lambda name: COMMANDS[name][1], lambda name: name in READS)

    def test_foreign(self):
        self.check(FOREIGN, lambda name: 4, lambda name: True)

    def test_broken(self):
        self.check(BROKEN, lambda name: 4, lambda name: True, self.filled("broken-base"))

    def test_read_only(self):
        self.check({"read-only": read_only}, lambda name: COMMANDS[name][2], lambda name: True, self.filled("read-only-base"))

    def test_store(self):
        self.check({"store": untouched}, lambda name: COMMANDS[name][3],
                   lambda name: name in ("list", "inspect", "gc --dry-run"), self.filled("store-base"))

    def test_a_dry_run_counts_and_writes_nothing(self):
        def garbage(d):  # also what only a store of another tool's making lacks: the folder of ours
            shutil.rmtree(d / "capstan")
            write(d / "blobs/sha256" / HEX, b"hello world")
            (d / "blobs/sha256" / HEX).chmod(0o644)
        d, before = self.folder(garbage, self.filled("dry-base"))
        p = self.capstan(d, "gc", "--dry-run", "--json")
        want = {"blobs": 1, "partials": 0, "extracted": 0, "bytes": 11}
        self.assertEqual(json.loads(p.stdout), {**json.loads(p.stdout), **want, "dry_run": True}, p.stderr)
        self.assertEqual(listing(d), before)
        p = self.capstan(d, "gc", "--json")
        self.assertEqual(json.loads(p.stdout), {**json.loads(p.stdout), **want, "dry_run": False}, p.stderr)
        self.assertFalse((d / "blobs/sha256" / HEX).exists())
        self.assertEqual(self.capstan(d, "verify", self.ref).returncode, 0)

    def test_a_killed_creation_is_taken_up(self):
        for command in (["pack", str(self.gguf), "-t", "n:v1"], ["pull", self.ref]):
            d, _ = self.folder(untouched)
            p = self.capstan(d, *command, CAPSTAN_FAULT="layout:kill")
            self.assertEqual(p.returncode, -9, p.stderr)
            self.assertEqual(sorted(x.name for x in d.iterdir()), ["index.json"])
            self.assertEqual(self.capstan(d, "list").returncode, 0)
            self.assertEqual(self.capstan(d, "gc").returncode, 0)
            p = self.capstan(d, *command)
            self.assertEqual(p.returncode, 0, p.stderr)
            self.assertEqual(self.capstan(d, "verify", "n:v1" if command[0] == "pack" else self.ref).returncode, 0)

    def test_many_begin_at_once(self):
        """Six commands make one store of a folder that is not there; none finds it half made, nothing is lost."""
        for _ in range(2):
            d, _ = self.folder(None)
            words = [["pack", str(self.gguf), "-t", f"n{i}:v1"] for i in range(3)] + [["pull", self.ref], ["list"], ["gc"]]
            running = [subprocess.Popen([self.bin, *w, "--store", d], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                                        env=self.env(self.top / f"home-{USER_A}"), **as_user(USER_A)) for w in words]
            for p in running:
                _, text = p.communicate(timeout=120)
                self.assertEqual(p.returncode, 0, f"{p.args}: {text}")
            names = {e["name"] for e in json.loads(self.capstan(d, "list", "--json").stdout)}
            self.assertEqual(names, {"n0:v1", "n1:v1", "n2:v1", self.ref})
            for name in names:
                self.assertEqual(self.capstan(d, "verify", name).returncode, 0)


def one_tensor(n):
    """A GGUF file of one F32 tensor of n bytes, and nothing that a model needs."""
    def text(s):
        return struct.pack("<Q", len(s)) + s
    head = (b"GGUF" + struct.pack("<IQQ", 3, 1, 1) + text(b"general.architecture") + struct.pack("<I", 8) + text(b"llama") +
            text(b"x.weight") + struct.pack("<IQIQ", 1, n // 4, 0, 0))
    return head + bytes(-len(head) % 32) + bytes(n)


def big(registry, repo, n):
    """A file that is pulled in several pieces."""
    add_model(registry, repo, one_tensor(n))
    return f"{registry.host}/{repo}:v1"


@unittest.skipUnless(IS_ROOT, "two users need root")
@unittest.skipUnless(IS_ROOT, "needs a user who may not write somewhere, and root to arrange it")
class Reasons(Room):
    """An error says why its own call failed, not what a later one found."""

    def pull(self, store=None, umask=0o022, **env):
        args = [str(self.bin), "pull", self.ref, *(["--store", str(store)] if store else [])]
        done = subprocess.run(args, capture_output=True, text=True, timeout=120, check=False, cwd=self.top, umask=umask,
                              env={"PATH": os.environ["PATH"], **env}, **as_user(USER_B))
        self.assertEqual(done.returncode, 1, done.stderr)
        return done.stderr.strip().splitlines()[-1]

    def test_a_home_that_cannot_be_written(self):
        self.assertIn(": cannot make /.local/share/capstan/store: Permission denied; --store", self.pull(HOME="/"))

    def test_a_umask_that_closes_what_was_made(self):
        home = self.top / "closed"
        home.mkdir()
        home.chmod(0o777)
        self.assertIn(f": cannot make {home}/.local/share/capstan/store: Permission denied; --store",
                      self.pull(HOME=str(home) + "/", umask=0o277))

    def test_folders_of_a_store_that_are_anothers(self):
        for below in ("leases", "blobs.lock", "partial"):
            with self.subTest(missing=below):
                store = self.top / f"without-{below}"
                (store / "blobs/sha256").mkdir(parents=True)
                (store / "capstan").mkdir()
                write(store / "oci-layout", LAYOUT)
                write(store / "index.json", EMPTY_INDEX)
                for name in {"leases", "partial"} - {below}:
                    (store / "capstan" / name).mkdir()
                for name in {"blobs.lock", "index.lock"} - {below}:
                    write(store / "capstan" / name, b"")
                give(store, USER_B)
                os.chown(store / "capstan", 0, 0)  # its own folder is root's
                self.assertRegex(self.pull(store, HOME=str(self.top)), rf"capstan/{below}.*Permission denied")


class Shared(Room):
    """One group, one store: a folder of mode 2775, umask 0002."""

    def setUp(self):
        self.store = self.top / f"shared-{self.id().rpartition('.')[2]}"
        self.store.mkdir()
        os.chown(self.store, USER_A, GROUP)
        self.store.chmod(0o2775)

    def ok(self, *args, uid, umask=0o002, **more):
        p = self.capstan(self.store, *args, uid=uid, umask=umask, **more)
        self.assertEqual(p.returncode, 0, f"{args} as {uid}: {p.stderr}")
        return p

    def modes(self):
        """{mode: a path that has it}, of folders and files that are shared for writing; what is derived apart."""
        shared, derived = {}, {}
        for p in self.store.rglob("*"):
            rest = p.relative_to(self.store).parts
            if p.is_file() and rest[:2] == ("capstan", "cache"):
                continue
            own = rest[:2] in (("capstan", "records"), ("capstan", "extracted"), ("capstan", "cache"))
            (derived if own and p.name != "lock" else shared)[stat.filemode(p.lstat().st_mode)] = str(p)
        return shared, derived

    def test_two_users_of_one_group(self):
        self.ok("pull", self.ref, uid=USER_A)
        shared, derived = self.modes()
        self.assertEqual(set(shared), {"drwxrwsr-x", "-rw-rw-r--"}, shared)
        self.assertEqual(set(derived), {"-rw-r--r--", "drwxr-sr-x"}, derived)
        other = big(self.registry, "m/other", 3 << 20)
        self.ok("pull", other, uid=USER_B)
        self.ok("pull", self.ref, uid=USER_B)
        self.ok("pack", str(self.gguf), "-t", "b:v1", uid=USER_B)
        self.ok("run", self.ref, "-p", "a", "-n", "1", "--raw", "--threads", "1", uid=USER_B)
        self.ok("verify", self.ref, uid=USER_B)
        shared, derived = self.modes()
        self.assertEqual(set(shared), {"drwxrwsr-x", "-rw-rw-r--"}, shared)
        self.assertEqual(set(derived), {"-rw-r--r--", "drwxr-sr-x"}, derived)
        self.ok("rm", "b:v1", uid=USER_A)
        self.ok("rm", self.ref, uid=USER_B)
        self.ok("rm", other, uid=USER_A)
        self.ok("gc", uid=USER_A)
        self.assertEqual(list((self.store / "blobs/sha256").iterdir()), [])
        self.assertEqual(json.loads(self.ok("list", "--json", uid=USER_A).stdout), [])

    def test_a_closed_umask_closes(self):
        self.ok("pull", self.ref, uid=USER_A, umask=0o077)
        self.assertEqual(set(self.modes()[0]), {"drwx--S---", "-rw-------"}, self.modes())
        p = self.capstan(self.store, "gc", uid=USER_B, umask=0o002)
        self.assertEqual(p.returncode, 4, p.stderr)  # its index is not for B to read
        self.ok("verify", self.ref, uid=USER_A)

    def test_what_another_began_is_not_believed(self):
        other = big(self.registry, "m/begun", 5 << 20)
        p = self.capstan(self.store, "pull", other, uid=USER_A, umask=0o002, CAPSTAN_FAULT=f"bytes={4 << 20}:kill")
        self.assertEqual(p.returncode, -9, p.stderr)
        maps = list((self.store / "capstan/partial").glob("*.map"))
        self.assertEqual([stat.filemode(m.stat().st_mode) for m in maps], ["-rw-r--r--"])
        data = bytearray(maps[0].read_bytes())
        data[-1] = data[-2] = 0xff  # "all is here": A lies
        maps[0].write_bytes(data)
        asked = len(self.registry.rows("blob"))
        self.ok("pull", other, uid=USER_B)
        self.assertLess(5 << 20, sum(r.sent for r in self.registry.rows("blob")[asked:]))
        self.ok("verify", other, uid=USER_A)
        blob = max((self.store / "blobs/sha256").iterdir(), key=lambda b: b.stat().st_size)
        self.assertEqual(blob.stat().st_uid, USER_B)
        self.assertEqual(list((self.store / "capstan/partial").iterdir()), [])

    def test_ones_own_is_taken_up(self):
        other = big(self.registry, "m/own", 7 << 20)
        p = self.capstan(self.store, "pull", other, uid=USER_A, umask=0o002, CAPSTAN_FAULT=f"bytes={6 << 20}:kill")
        self.assertEqual(p.returncode, -9, p.stderr)
        asked = len(self.registry.rows("blob"))
        self.ok("pull", other, uid=USER_A)
        self.assertLess(sum(r.sent for r in self.registry.rows("blob")[asked:]), 7 << 20)


SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
static int lacks(const char *what) { const char *e = getenv("LACKS"); return e && strstr(e, what) != NULL; }
static int no(int e) { errno = e; return -1; }
int flock(int fd, int op) { return lacks("nolck") ? no(ENOLCK) : lacks("flock") ? no(EOPNOTSUPP)
    : ((int (*)(int, int))dlsym(RTLD_NEXT, "flock"))(fd, op); }
int fsync(int fd) { struct stat st; return lacks("fsync") && fstat(fd, &st) == 0 && S_ISDIR(st.st_mode) ? no(EINVAL)
    : ((int (*)(int))dlsym(RTLD_NEXT, "fsync"))(fd); }
int fchmod(int fd, mode_t m) { return lacks("chmod") ? no(EPERM) : ((int (*)(int, mode_t))dlsym(RTLD_NEXT, "fchmod"))(fd, m); }
int chmod(const char *p, mode_t m) { return lacks("chmod") ? no(EPERM) : ((int (*)(const char *, mode_t))dlsym(RTLD_NEXT, "chmod"))(p, m); }
int renameat2(int a, const char *p, int b, const char *q, unsigned f) { return lacks("noreplace") && f ? no(EINVAL)
    : ((int (*)(int, const char *, int, const char *, unsigned))dlsym(RTLD_NEXT, "renameat2"))(a, p, b, q, f); }
"""


class Linked(Cells):
    """`blobs` of a store is a link to a folder on another file system."""

    def setUp(self):
        if not os.access("/dev/shm", os.W_OK):
            self.skipTest("no second file system")
        self.shm = tempfile.TemporaryDirectory(dir="/dev/shm")
        pathlib.Path(self.shm.name).chmod(0o755)
        self.addCleanup(self.shm.cleanup)

    def link(self, d):
        disk = pathlib.Path(self.shm.name) / d.name
        shutil.move(d / "blobs", disk)
        (d / "blobs").symlink_to(disk)
        give(disk)

    def test_every_command(self):
        self.check({"linked": self.link}, lambda name: COMMANDS[name][3], lambda name: name in ("list", "inspect", "gc --dry-run"),
                   self.filled("linked-base"))

    def test_a_pull_goes_on_there(self):
        d, _ = self.folder(self.link, self.filled("linked-base"))
        disk = pathlib.Path(self.shm.name) / d.name
        add_model(self.registry, "m/linked", TINY.read_bytes())
        other = f"{self.registry.host}/m/linked:v1"
        self.assertEqual(self.capstan(d, "rm", self.ref).returncode, 0)
        self.assertEqual(list((disk / "sha256").iterdir()), [])
        p = self.capstan(d, "pull", other, "--store-quota", "1KiB")
        self.assertEqual(p.returncode, 1)
        self.assertIn("over the quota", p.stderr)
        p = self.capstan(d, "pull", other, CAPSTAN_FAULT="bytes=200000:kill")
        self.assertEqual(p.returncode, -9, p.stderr)
        self.assertTrue(list((disk / ".capstan-partial").iterdir()))
        self.assertFalse(list((d / "capstan").glob("partial/*")))
        dry = json.loads(self.capstan(d, "gc", "--dry-run", "--json").stdout)
        self.assertGreater(dry["partials"], 0)
        p = self.capstan(d, "pull", other)
        self.assertEqual(p.returncode, 0, p.stderr)
        self.assertEqual(self.capstan(d, "verify", other).returncode, 0)
        self.assertEqual(list((disk / ".capstan-partial").iterdir()), [])
        gone = json.loads(self.capstan(d, "gc", "--json").stdout)
        self.assertEqual((gone["partials"], gone["blobs"]), (0, 0))
        self.assertEqual(self.capstan(d, "run", other, "-p", "a", "-n", "1", "--raw", "--threads", "1").returncode, 0)


    def test_pulls_of_before_are_swept(self):
        """A disk that was full is why blobs are moved: what a pull had by then is on the old disk. And back again."""
        d, _ = self.folder(untouched, self.filled("linked-base"))
        for name in ("before", "behind"):
            add_model(self.registry, f"m/{name}", TINY.read_bytes() + name.encode())
        def begin(name, where):
            p = self.capstan(d, "pull", f"{self.registry.host}/m/{name}:v1", CAPSTAN_FAULT="bytes=200000:kill")
            self.assertEqual(p.returncode, -9, p.stderr)
            self.assertTrue(list(where.iterdir()))
        def swept(where):
            dry = json.loads(self.capstan(d, "gc", "--dry-run", "--json").stdout)
            gone = json.loads(self.capstan(d, "gc", "--json").stdout)
            self.assertEqual((dry["partials"], gone["partials"]), (1, 1))
            self.assertGreater(gone["bytes"], 200000)
            self.assertEqual(list(where.iterdir()), [])
        begin("before", d / "capstan/partial")
        self.link(d)
        swept(d / "capstan/partial")
        disk = pathlib.Path(self.shm.name) / d.name
        begin("behind", disk / ".capstan-partial")
        (d / "blobs").unlink()
        shutil.move(disk, d / "blobs")
        give(d / "blobs")
        swept(d / "blobs/.capstan-partial")


class Lacking(Room):
    """File systems without locks, chmod, fsync of folders, renaming without replacing."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.shim = cls.top / "shim.so"
        (cls.top / "shim.c").write_text(SHIM)
        cc = next((c for c in (os.environ.get("CC"), "cc", "gcc", "clang") if c and shutil.which(c)), None)
        if not cc:
            raise unittest.SkipTest("no C compiler")
        subprocess.run([cc, "-shared", "-fPIC", "-o", cls.shim, cls.top / "shim.c", "-ldl"], check=True)

    def lacking(self, what, store, *args, want=0):
        p = self.capstan(store, *args, LD_PRELOAD=str(self.shim), LACKS=what)
        self.assertEqual(p.returncode, want, f"{what}: {args}: {p.stderr}")
        return p

    def store(self, name):
        d = self.top / name
        d.mkdir()
        give(d)
        return d / "store"

    def works(self, what, warnings):
        d = self.store(re.sub(r"\W", "-", what))
        for words in (["pack", str(self.gguf), "-t", "p:v1"], ["pull", self.ref], ["pull", self.ref]):
            p = self.lacking(what, d, *words)
            self.assertLessEqual(p.stderr.count(" warn "), warnings, p.stderr)
        self.assertEqual(list((d / "capstan/partial").iterdir()), [])
        self.lacking(what, d, "run", self.ref, "-p", "a", "-n", "1", "--raw", "--threads", "1")
        self.lacking(what, d, "verify", self.ref)
        self.lacking(what, d, "list")
        self.assertEqual(self.capstan(d, "verify", self.ref).returncode, 0)
        return d

    def test_without_chmod(self):
        self.works("chmod", 0)

    def test_without_fsync_of_folders(self):
        d = self.works("fsync", 1)
        self.assertIn("fsync", self.lacking("fsync", d, "pack", str(self.gguf), "-t", "q:v1").stderr)
        self.lacking("fsync", d, "rm", "q:v1")
        self.lacking("fsync", d, "gc")

    def test_without_renaming_that_replaces_nothing(self):
        self.works("noreplace", 0)

    def test_without_locks_nothing_is_deleted(self):
        for what in ("nolck", "flock"):
            d = self.works(what, 1)
            before = listing(d / "blobs")
            for words in (["gc"], ["gc", "--dry-run"]):
                self.assertIn("no locks", self.lacking(what, d, *words, want=1).stderr)
            p = self.lacking(what, d, "rm", self.ref)
            self.assertIn("blobs stay", p.stderr)
            self.assertEqual(listing(d / "blobs"), before)
            self.lacking(what, d, "inspect", self.ref, want=3)
            self.lacking(what, d, "pull", self.ref)

    def test_without_locks_pulls_do_not_meet(self):
        other = big(self.registry, "m/both", 5 << 20)
        d = self.store("both")
        pulls = [subprocess.Popen([self.bin, "pull", other, "--store", d], stderr=subprocess.PIPE, text=True, stdout=subprocess.DEVNULL,
                                  env=self.env(self.top / f"home-{USER_A}", LD_PRELOAD=str(self.shim), LACKS="flock"),
                                  **as_user(USER_A)) for _ in range(2)]
        for p in pulls:
            self.assertEqual((p.communicate()[1], p.returncode)[1], 0)
        self.assertEqual(list((d / "capstan/partial").iterdir()), [])
        self.assertEqual(self.capstan(d, "verify", other).returncode, 0)

    @unittest.skipUnless(IS_ROOT and shutil.which("bindfs") and os.path.exists("/dev/fuse"), "needs root, bindfs and /dev/fuse")
    def test_on_a_mount_that_denies_chmod(self):
        under, mount = self.store("under").parent, self.store("mount").parent
        if subprocess.run(["bindfs", "--chmod-deny", "-o", "allow_other", under, mount], check=False, capture_output=True).returncode:
            self.skipTest("bindfs cannot mount here")
        try:
            d = mount / "s"
            for words in (["pull", self.ref], ["pack", str(self.gguf), "-t", "p:v1"], ["verify", self.ref], ["rm", self.ref], ["gc"]):
                p = self.capstan(d, *words)
                self.assertEqual(p.returncode, 0, f"{words}: {p.stderr}")
        finally:
            subprocess.run(["umount", mount], check=False)


if __name__ == "__main__":
    unittest.main()
