#!/usr/bin/env bash
# Builds: `release` (all binaries in target/release), `decky` (the static decky alone, there too), `test` (the daemons with
# what tests need, the static decky, and the prober that stands in for one, in target/e2e).
. "$(dirname "$0")/lib.sh"

# build_static PACKAGE: a binary that can be the only file of an image.
build_static() {
    say "building the static $1 (release)"
    # Static, because it is the only file of the image that runs it; the target is named, because otherwise the flag would
    # reach build scripts too.
    # Small, because every decky of a host holds it in memory.
    RUSTFLAGS="${RUSTFLAGS:-} -C target-feature=+crt-static" \
        CARGO_PROFILE_RELEASE_OPT_LEVEL=s CARGO_PROFILE_RELEASE_LTO=fat CARGO_PROFILE_RELEASE_CODEGEN_UNITS=1 \
        cargo build --release --locked -p "$1" --target "$(host_triple)"
}

build_decky() {
    build_static decky
    mkdir -p "$TARGET/release"
    place "$TARGET/$(host_triple)/release/decnet-decky" "$TARGET/release/decnet-decky"
}

need_rust
case "${1:-release}" in
    release)
        say "building master, agent and command line (release)"
        cargo build --release --locked -p master -p agent -p cli
        # Cargo forgets the profile's `strip` for a package whose optimisation is set apart (Cargo.toml).
        strip --strip-debug "$TARGET/release/decnet-master"
        build_decky
        ;;
    decky)
        build_decky
        ;;
    test)
        build_decky
        build_static prober
        say "building the daemons and the tests (dev, with $TEST_FEATURES)"
        # The same selection as the test run, so that nothing is built twice.
        cargo build --locked --workspace --tests --bins --features "$TEST_FEATURES"
        # A folder of its own: cargo would put its own, dynamic decky back into target/debug.
        mkdir -p "$TARGET/e2e"
        for name in decnet decnet-master decnet-agent; do
            place "$TARGET/debug/$name" "$TARGET/e2e/$name"
        done
        place "$TARGET/release/decnet-decky" "$TARGET/e2e/decnet-decky"
        place "$TARGET/$(host_triple)/release/prober" "$TARGET/e2e/prober"
        ;;
    *)
        die "usage: $0 release|decky|test"
        ;;
esac
