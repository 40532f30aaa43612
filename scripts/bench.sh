#!/usr/bin/env bash
# `make bench`: measures, each figure beside its baseline in the same run. ONLY=1,5 runs some. Prints a table and writes
# target/bench/latest.json.
. "$(dirname "$0")/lib.sh"

need_rust
apt_need curl=curl setpriv=util-linux
ensure_docker
scripts/build.sh release
say "building the bench"
cargo build --release --locked -p tests --bin bench
# A thousand agents have two connections each, and both ends are on this machine.
ulimit -Sn 16384 || say "no more than $(ulimit -Sn) files may be open: figure 10 may not be measurable"
DECNET_BIN_DIR="$TARGET/release" exec "$TARGET/release/bench" ${ONLY:+--only "$ONLY"} --out "$TARGET/bench/latest.json" "$@"
