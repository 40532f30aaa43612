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
    # Since Debian 13 the command is a package of its own.
    apt_need docker=docker-cli
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

# postgres_tool NAME: the path of a program of the newest PostgreSQL of this machine, if there is one.
postgres_tool() {
    local found
    found=$(find /usr/lib/postgresql -path "*/bin/$1" 2>/dev/null | sort -V | tail -n 1)
    [ -n "$found" ] && printf '%s\n' "$found"
}

# as_postgres COMMAND…: PostgreSQL refuses root; its package has a user for it.
as_postgres() {
    if [ "$(id -u)" = 0 ]; then (cd / && setpriv --reuid postgres --regid postgres --init-groups --reset-env "$@")
    else "$@"
    fi
}

postgres_answers() { [ -s "$1/url" ] && "$(postgres_tool psql)" -qtAX -c 'SELECT 1' "$(cat "$1/url")" >/dev/null 2>&1; }

# ensure_postgres: a PostgreSQL of the tests' own, a throw-away cluster under target/ that listens on a loopback port and a
# UNIX socket. Exports DECNET_TEST_POSTGRES, the URL of its administrator.
ensure_postgres() {
    if [ -n "${DECNET_TEST_POSTGRES:-}" ]; then return 0; fi
    # Not by the command: Debian keeps the server's programs out of PATH.
    if ! postgres_tool initdb >/dev/null; then apt_need initdb=postgresql; fi
    apt_need setpriv=util-linux
    postgres_tool initdb >/dev/null || die "PostgreSQL is installed, and there is no initdb in /usr/lib/postgresql"
    local home=$TARGET/postgres
    mkdir -p "$TARGET"
    # Its user must reach its files, which it cannot in a home that is closed to others: then they go to its own.
    if ! as_postgres test -x "$TARGET"; then
        home=/var/lib/postgresql/decnet-test-$(printf '%s' "$TARGET" | cksum | cut -d' ' -f1)
    fi
    if ! postgres_answers "$home"; then start_postgres "$home"; fi
    DECNET_TEST_POSTGRES=$(cat "$home/url")
    export DECNET_TEST_POSTGRES
}

start_postgres() {
    local home=$1 password port try
    if [ ! -s "$home/data/PG_VERSION" ]; then
        say "making a PostgreSQL cluster for the tests in $home"
        rm -rf "$home"
        mkdir -p "$home/socket"
        password=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
        (umask 077 && printf '%s\n' "$password" >"$home/password")
        if [ "$(id -u)" = 0 ]; then chown -R postgres:postgres "$home"; fi
        as_postgres "$(postgres_tool initdb)" -D "$home/data" -U decnet --pwfile="$home/password" -A scram-sha-256 \
            -E UTF8 --locale=C.UTF-8 --no-sync >/dev/null
    fi
    password=$(cat "$home/password")
    for try in 1 2 3 4 5; do
        # Above the ports that tests count on, and below those that the kernel gives to whoever asks for any.
        port=$((30000 + RANDOM % 2700))
        say "starting PostgreSQL for the tests on 127.0.0.1:$port (log: $home/log)"
        # Its data is worth nothing: no flush of it is waited for.
        if as_postgres "$(postgres_tool pg_ctl)" -D "$home/data" -l "$home/log" -w -t 60 -s -o "-c port=$port \
            -c listen_addresses=127.0.0.1 -c unix_socket_directories=$(postgres_socket "$home") -c fsync=off \
            -c synchronous_commit=off -c full_page_writes=off -c max_connections=300" start </dev/null; then
            (umask 077 && printf 'postgres://decnet:%s@127.0.0.1:%s/postgres\n' "$password" "$port" >"$home/url")
            postgres_answers "$home" && return 0
        fi
        say "that did not work (try $try of 5)"
        # One that runs without a note of where is stopped, so that the next try has the data to itself.
        as_postgres "$(postgres_tool pg_ctl)" -D "$home/data" -m immediate -s stop </dev/null 2>/dev/null || true
    done
    tail -n 20 "$home/log" >&2 || true
    die "PostgreSQL does not start"
}

# postgres_socket HOME: where its socket goes; nowhere when the path is longer than a socket's may be.
postgres_socket() {
    if [ "${#1}" -lt 75 ]; then printf '%s' "$1/socket"; else printf "''"; fi
}

# ensure_venv: the Python programs of the tests, as scripts/requirements.txt names them, in target/venv. Exports DECNET_VENV.
ensure_venv() {
    local venv=$TARGET/venv wanted=$ROOT/scripts/requirements.txt
    apt_need python3=python3
    if ! cmp -s "$wanted" "$venv/requirements.txt"; then
        python3 -c 'import ensurepip' 2>/dev/null || apt_need no-such-command=python3-venv
        say "installing schemathesis in $venv"
        rm -rf "$venv"
        mkdir -p "$TARGET"
        python3 -m venv "$venv"
        "$venv/bin/pip" install --quiet --disable-pip-version-check --no-deps -r "$wanted"
        # Last: an installation that was cut off is made anew.
        cp "$wanted" "$venv/requirements.txt"
    fi
    export DECNET_VENV=$venv
}

host_triple() { rustc -vV | sed -n 's/^host: //p'; }

# place FROM TO: replaces TO by a copy. Never writes through a link that cargo has made.
place() {
    if cmp -s "$1" "$2"; then return 0; fi
    rm -f "$2.new"
    cp "$1" "$2.new"
    mv -f "$2.new" "$2"
}
