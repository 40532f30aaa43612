#!/usr/bin/env bash
# `make up`: builds what is missing and runs a master, a local agent and examples/office.yaml until Ctrl-C. DATA_DIR keeps
# the state elsewhere; further arguments go to `decnet up`.
. "$(dirname "$0")/lib.sh"

ensure_docker
scripts/build.sh release
exec "$TARGET/release/decnet" up --data-dir "${DATA_DIR:-$TARGET/up}" --topology examples/office.yaml "$@"
