# shellcheck shell=bash
# What the other scripts share; sourced, never run. Every function says what it does, does nothing twice, and works without
# a terminal.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
TARGET=${CARGO_TARGET_DIR:-$ROOT/target}
export PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH:/usr/local/sbin:/usr/sbin:/sbin"
cd "$ROOT"

# The features that only tests get. A release is built without them.
# shellcheck disable=SC2034
TEST_FEATURES=master/crash-points,agent/crash-points,agent/fake

say() { printf '\033[1m==>\033[0m %s\n' "$*" >&2; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

# as_root COMMAND…: by sudo when that is needed.
as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"
    elif command -v sudo >/dev/null; then sudo "$@"
    else die "'$1' needs root: run as root or install sudo"
    fi
}

# apt_need COMMAND=PACKAGE…: installs the packages whose commands are missing (Debian, Ubuntu).
apt_need() {
    local pair missing=()
    for pair in "$@"; do
        command -v "${pair%%=*}" >/dev/null || missing+=("${pair#*=}")
    done
    [ "${#missing[@]}" -gt 0 ] || return 0
    command -v apt-get >/dev/null || die "install ${missing[*]}: there is no apt-get here to do it with"
    say "installing ${missing[*]}"
    as_root apt-get -qq -o DPkg::Lock::Timeout=300 update >/dev/null \
        || say "the package lists could not be updated; trying with those that are here"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o DPkg::Lock::Timeout=300 \
        install --no-install-recommends "${missing[@]}" </dev/null >/dev/null
}

# cargo_need COMMAND PACKAGE: installs a cargo subcommand that is missing.
cargo_need() {
    command -v "$1" >/dev/null && return 0
    say "installing $2 (some minutes, once)"
    cargo install --locked --quiet "$2"
}

need_rust() {
    command -v cargo >/dev/null || die "cargo is missing: install Rust first"
    apt_need cc=build-essential
}

docker_answers() { timeout 20 docker version --format '{{.Server.Version}}' >/dev/null 2>&1; }

# ensure_docker: a Docker daemon that answers, installed and started when it must be; and what keeps its deckies inside.
ensure_docker() {
    apt_need nft=nftables
    docker_answers && return 0
    [ -z "${DOCKER_HOST:-}" ] || die "no Docker daemon answers at DOCKER_HOST=$DOCKER_HOST"
    apt_need dockerd=docker.io docker=docker.io iptables=iptables
    docker_answers && return 0
    if [ -d /run/systemd/system ]; then
        say "starting the Docker daemon by systemd"
        as_root systemctl start docker
    else
        mkdir -p "$TARGET"
        say "starting the Docker daemon in the background (log: $TARGET/dockerd.log)"
        # A pid file of an earlier boot can name a process of today, and dockerd would refuse to start.
        local pid
        pid=$(as_root cat /var/run/docker.pid 2>/dev/null || true)
        if [ -n "$pid" ] && [ "$(cat "/proc/$pid/comm" 2>/dev/null)" != dockerd ]; then
            as_root rm -f /var/run/docker.pid
        fi
        as_root setsid dockerd </dev/null >>"$TARGET/dockerd.log" 2>&1 &
        disown
    fi
    local i
    for ((i = 0; i < 120; i++)); do
        docker_answers && return 0
        sleep 0.5
    done
    tail -n 20 "$TARGET/dockerd.log" >&2 2>/dev/null || true
    die "the Docker daemon does not answer after 60 s"
}

host_triple() { rustc -vV | sed -n 's/^host: //p'; }

# place FROM TO: replaces TO by a copy. Never writes through a link that cargo has made.
place() {
    if cmp -s "$1" "$2"; then return 0; fi
    rm -f "$2.new"
    cp "$1" "$2.new"
    mv -f "$2.new" "$2"
}
