#!/usr/bin/env bash
# `make check`: format, lints of every build that is shipped or tested, licences and sources of dependencies, documentation,
# the scripts themselves. Changes nothing.
. "$(dirname "$0")/lib.sh"

need_rust
apt_need shellcheck=shellcheck
cargo_need cargo-deny cargo-deny

say "sources of dependencies"
cargo fetch --locked --quiet
say "format"
cargo fmt --all --check
say "scripts"
shellcheck --external-sources --source-path=scripts scripts/*.sh examples/*.sh .ci/run
say "lints, as tests are built"
cargo clippy --locked --workspace --all-targets --features "$TEST_FEATURES" -- -D warnings
say "lints, as a release is built"
cargo clippy --locked -p master -p agent -p cli -p decky -- -D warnings
say "licences, bans, sources"
# Also of crates that only other platforms build.
cargo fetch --locked --quiet
cargo deny --offline check licenses bans sources
say "documentation"
RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps --document-private-items --quiet
say "all good"
