# One line each; what is longer is in scripts/.
.DEFAULT_GOAL := help
.PHONY: help up demo test check bench bless build build-decky clean

help:         ## this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14
up:           ## a master, an agent and the example topology on this machine, until Ctrl-C
	@scripts/up.sh
demo:         ## two hosts, two topologies, real attackers, evidence, and all of it gone again
	@scripts/demo.sh
test:         ## every test, on real Docker
	@scripts/test.sh
check:        ## format, lints, licences, documentation
	@scripts/check.sh
bench:        ## the figures; ONLY=1,5 runs some; target/bench/latest.json
	@scripts/bench.sh
bless:        ## accept the golden files that the code gives as it stands
	@scripts/bless.sh
build:        ## the release binaries, in target/release
	@scripts/build.sh release
build-decky:  ## the static decky alone, in target/release
	@scripts/build.sh decky
clean:        ## everything that was built
	cargo clean
