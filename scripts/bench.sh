#!/usr/bin/env bash
# `make bench`: measures, each figure beside its baseline in the same run. ONLY=1,5 runs some. Prints a table and writes
# target/bench/latest.json.
. "$(dirname "$0")/lib.sh"

need_rust
ensure_docker
scripts/build.sh release
say "building the bench"
cargo build --release --locked -p tests --bin bench
DECNET_BIN_DIR="$TARGET/release" exec "$TARGET/release/bench" ${ONLY:+--only "$ONLY"} --out "$TARGET/bench/latest.json" "$@"
