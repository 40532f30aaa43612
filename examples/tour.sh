#!/bin/sh
# A tour of topologies: one is made, deployed, changed while it runs, and gone again. It wants a
# master with a ready host, which this starts:
#
#   decnet up --no-topology
#
# and then, in another terminal: DECNET_DATA_DIR=… sh examples/tour.sh
set -eu

# Ranges and ports that nothing else on the host may use.
: "${TOUR_SUBNETS:=10.66.0.0/16}"
: "${TOUR_PORTS:=20000}"
: "${TOUR_HOST:=local}"

place=$(mktemp -d)
cd "$place"
trap 'cd / && rm -rf "$place"' EXIT

say() { printf '\n# %s\n' "$*"; }
run() {
    printf '$ %s\n' "$*"
    "$@"
}

say "Generate: a DMZ and one network behind it, from a seed."
run decnet topology generate --name tour --depth 1 --branching 1 --deckies-per-lan 2 \
    --services ssh,http --seed 7 --subnet-base "$TOUR_SUBNETS" --publish-offset "$TOUR_PORTS" \
    --output-file tour.yaml
run decnet topology graph tour.yaml

say "Validate: nothing is asked of a master yet."
run decnet topology validate tour.yaml

say "Plan: what would change on the master. Everything, the first time."
run decnet topology plan tour.yaml

say "Apply stores it. A dry run says what its host would do."
run decnet topology apply tour.yaml --host "$TOUR_HOST"
run decnet topology deploy tour --dry-run

say "Deploy, and follow it until the host has it."
run decnet topology deploy tour
run decnet decky ls --topology tour

say "Mutate: one decky shows other services. Nothing else is touched."
run decnet topology mutate tour update_decky decky=decky-002 services=http,redis

say "The same by the file: take it as it stands, add a network with two deckies, look, apply."
decnet topology export tour >tour.yaml
sed -i "s|^deckies:|- name: vault\n  subnet: ${TOUR_SUBNETS%.*.*}.9.0/24\ndeckies:|" tour.yaml
cat >>tour.yaml <<END
- name: safe
  services: [redis]
  edges:
  - lan: vault
- name: keyhole
  services: [ssh]
  forwards_l3: true
  edges:
  - lan: LAN-01
  - lan: vault
END
run decnet topology plan tour.yaml
run decnet topology apply tour.yaml

say "Watch: what was changed, by whom, and what it came to."
run decnet topology mutations tour
run decnet topology graph tour
run decnet event ls --topology tour --decky decky-002 --kind mutation

say "Somebody knocks. What was seen of it is an event a moment later."
run curl -s -o /dev/null "http://127.0.0.1:$((TOUR_PORTS + 80))/backup.zip"
until decnet event ls --topology tour --kind request | grep -q backup.zip; do sleep 0.2; done
run decnet event ls --topology tour --kind request --limit 1

say "Revert: the newest mutation is undone by another one."
newest=$(decnet topology mutations tour --limit 1 --output ndjson | sed 's/.*"id":"\([^"]*\)".*/\1/')
run decnet mutation revert "$newest"

say "How did it come to be as it is?"
run decnet topology explain tour
run decnet topology status-events tour

say "Tear it down. Its host reports that nothing is left, and only then is it gone."
run decnet topology teardown tour
run decnet topology rm tour
