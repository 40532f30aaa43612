#!/usr/bin/env bash
# `make bless`: rewrites the golden files from what the code gives as it stands. Read the difference before you commit it.
. "$(dirname "$0")/lib.sh"

need_rust
cargo_need cargo-nextest cargo-nextest
ensure_postgres
INSTA_UPDATE=always DECNET_BLESS=1 cargo nextest run --locked --workspace --features "$TEST_FEATURES" \
    -E 'not binary(e2e)' --no-fail-fast
git status --short
