#!/usr/bin/env bash
# `make test`: every test of every crate, the end-to-end ones on real Docker. Arguments go to `cargo nextest run`; its own
# summary closes the output.
. "$(dirname "$0")/lib.sh"

[ "$(id -u)" = 0 ] || die "the tests make network namespaces, bridges and rules of their own: run them as root"
need_rust
apt_need ssh=openssh-client sshpass=sshpass curl=curl telnet=telnet redis-cli=redis-tools lftp=lftp ftp=ftp nc=netcat-openbsd \
    ip=iproute2 python3=python3 setpriv=util-linux nsenter=util-linux nft=nftables runc=runc sysctl=procps faketime=faketime
ensure_docker
ensure_postgres
ensure_venv
cargo_need cargo-nextest cargo-nextest
scripts/build.sh test
export DECNET_BIN_DIR="$TARGET/e2e"
# An error of a test is told by its chain; the frames between are noise.
export RUST_LIB_BACKTRACE=0
exec cargo nextest run --locked --workspace --features "$TEST_FEATURES" "$@"
