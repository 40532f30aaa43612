#!/usr/bin/env bash
# `make demo`: two hosts on one machine. A master and two agents with data directories of their own share the Docker daemon;
# each host carries a topology; real clients attack from a network namespace of their own; what they did must stand in the
# table of events with their address; then all of it is torn down. Exits 0 only if every step was observed. DECNET_BIN_DIR
# takes binaries that are built already.
. "$(dirname "$0")/lib.sh"

apt_need ssh=openssh-client sshpass=sshpass curl=curl redis-cli=redis-tools nc=netcat-openbsd ip=iproute2 python3=python3
ensure_docker
if [ -z "${DECNET_BIN_DIR:-}" ]; then
    scripts/build.sh release
    DECNET_BIN_DIR=$TARGET/release
fi
export PATH="$DECNET_BIN_DIR:$PATH"

WORK=$(mktemp -d "${TMPDIR:-/tmp}/decnet-demo.XXXXXX")
NETNS=decnet-demo-$$
LINK=dnd$(($$ % 1000000))
NET=10.79.$(($$ % 256))
HOST_ADDRESS=$NET.1
ATTACKER=$NET.2
export DECNET_DATA_DIR=$WORK/master
PIDS=()
HOSTS=()
STARTED=$SECONDS

# shellcheck disable=SC2329 # called by the trap
cleanup() {
    local status=$? pid id
    trap - EXIT INT TERM
    if [ "$status" != 0 ]; then
        for log in "$WORK"/*.log; do
            printf -- '--- %s\n' "${log##*/}" >&2
            tail -n 40 "$log" >&2 || true
        done
    fi
    for pid in "${PIDS[@]}"; do kill "$pid" 2>/dev/null || true; done
    for pid in "${PIDS[@]}"; do
        for _ in $(seq 100); do kill -0 "$pid" 2>/dev/null || break; sleep 0.1; done
        kill -KILL "$pid" 2>/dev/null || true
    done
    for id in "${HOSTS[@]}"; do
        docker ps -aq --filter "label=decnet.host.id=$id" | xargs -r docker rm -f >/dev/null || true
        docker network ls -q --filter "label=decnet.host.id=$id" | xargs -r docker network rm >/dev/null || true
    done
    as_root ip netns del "$NETNS" 2>/dev/null || true
    as_root ip link del "$LINK" 2>/dev/null || true
    rm -rf "$WORK"
    exit "$status"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

# field FILE PATH: a value of a JSON document, such as `api` or `topology.status`.
field() {
    python3 -c '
import json, sys
value = json.load(open(sys.argv[1]))
for key in sys.argv[2].split("."):
    value = value[int(key) if key.isdigit() else key]
print(value)' "$1" "$2"
}

# until_true SECONDS WHAT COMMAND…: waits for a command to succeed.
until_true() {
    local seconds=$1 what=$2 end
    shift 2
    end=$((SECONDS + seconds))
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$end" ] || die "$what: not after $seconds s"
        sleep 0.2
    done
}

in_netns() { as_root ip netns exec "$NETNS" "$@"; }

say "1. a master"
decnet-master serve --data-dir "$WORK/master" --api-listen 127.0.0.1:0 --fleet-listen 127.0.0.1:0 \
    >"$WORK/master.log" 2>&1 &
PIDS+=($!)
until_true 30 "the master's endpoints" test -s "$WORK/master/endpoints.json"
until_true 30 "the master's answer" decnet status
say "   API $(field "$WORK/master/endpoints.json" api), hosts dial $(field "$WORK/master/endpoints.json" fleet)"

host_is_ready() {
    decnet host ls --output json >"$WORK/hosts.json" && python3 - "$WORK/hosts.json" "$1" <<'PY'
import json, sys
hosts = json.load(open(sys.argv[1]))
sys.exit(not any(h["name"] == sys.argv[2] and h["state"] == "ready" for h in hosts))
PY
}

say "2. two hosts join"
for host in edge-1 edge-2; do
    decnet host enroll "$host" --output json >"$WORK/$host.json"
    field "$WORK/$host.json" token | decnet-agent join "$(field "$WORK/$host.json" master_url)" \
        --token-stdin --name "$host" --data-dir "$WORK/$host"
    decnet-agent run --data-dir "$WORK/$host" >"$WORK/$host.log" 2>&1 &
    PIDS+=($!)
    until_true 30 "$host ready" host_is_ready "$host"
done
while read -r id; do HOSTS+=("$id"); done < <(python3 -c '
import json, sys
for host in json.load(open(sys.argv[1])): print(host["id"])' "$WORK/hosts.json")
decnet host ls

say "3. a topology on each"
decnet topology create examples/office.yaml --host edge-1
decnet topology create examples/branch.yaml --host edge-2
decnet topology deploy office --wait --timeout 300s
decnet topology deploy branch --wait --timeout 300s
decnet topology ls

say "4. an attacker at $ATTACKER, in a network namespace of its own"
as_root ip netns add "$NETNS"
as_root ip link add "$LINK" type veth peer name eth0 netns "$NETNS"
as_root ip addr add "$HOST_ADDRESS/24" dev "$LINK"
as_root ip link set "$LINK" up
in_netns ip addr add "$ATTACKER/24" dev eth0
in_netns ip link set eth0 up
in_netns ip link set lo up
in_netns ip route add default via "$HOST_ADDRESS"
for port in 2222 8081 6380 8082 2422; do
    until_true 30 "port $port" in_netns nc -z -w 2 "$HOST_ADDRESS" "$port"
done
MARK=demo-$$
SSH_OPTIONS=(-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR -o ConnectTimeout=10
    -o PreferredAuthentications=password -o PubkeyAuthentication=no)
say "   office: ssh root@gate, one command"
in_netns sshpass -p "$MARK-secret" ssh "${SSH_OPTIONS[@]}" -p 2222 "root@$HOST_ADDRESS" "uname -a; echo $MARK" </dev/null
say "   office: curl of the staff portal"
in_netns curl -sS --max-time 10 -o /dev/null -w '%{http_code}\n' "http://$HOST_ADDRESS:8081/admin/?mark=$MARK"
say "   office: redis-cli"
in_netns redis-cli -h "$HOST_ADDRESS" -p 6380 GET "$MARK" </dev/null
say "   branch: ssh admin@nas, one command; curl of the router"
in_netns sshpass -p "$MARK-branch" ssh "${SSH_OPTIONS[@]}" -p 2422 "admin@$HOST_ADDRESS" "id; echo $MARK" </dev/null
in_netns curl -sS --max-time 10 -o /dev/null -w '%{http_code}\n' "http://$HOST_ADDRESS:8082/setup?mark=$MARK"

say "5. the evidence"
evidence() {
    decnet event ls --limit 1000 --output json >"$WORK/events.json" && python3 - "$WORK" "$MARK" "$ATTACKER" <<'PY'
import json, sys
work, mark, attacker = sys.argv[1:]
events = json.load(open(work + "/events.json"))
events = events["items"] if isinstance(events, dict) else events
mine = [e for e in events if (e["source"] or "").rsplit(":", 1)[0] == attacker]
auth = lambda decky, name, secret: lambda e: (
    e["kind"] == "auth" and e["decky_name"] == decky and e["service"] == "ssh" and e["data"]["username"] == name
    and e["data"]["secret"] == secret and e["data"]["outcome"] == "accepted")
command = lambda decky, service: lambda e: (
    e["kind"] == "command" and e["decky_name"] == decky and e["service"] == service and mark in e["data"]["line"])
request = lambda decky: lambda e: (
    e["kind"] == "request" and e["decky_name"] == decky and mark in e["data"]["target"])
wanted = {
    "office: login of root at gate": auth("gate", "root", mark + "-secret"),
    "office: command at gate": command("gate", "ssh"),
    "office: request to web": request("web"),
    "office: command to redis on web": command("web", "redis"),
    "branch: login of admin at nas": auth("nas", "admin", mark + "-branch"),
    "branch: command at nas": command("nas", "ssh"),
    "branch: request to router": request("router"),
}
missing = [what for what, rule in wanted.items() if not any(map(rule, mine))]
with open(work + "/story.txt", "w") as story:
    for what, rule in wanted.items():
        hit = next((e for e in mine if rule(e)), None)
        line = "missing" if hit is None else f'{hit["at"][:19]}  {hit["source"]} -> {hit["destination"]}  {hit["kind"]}'
        story.write(f"   {what:34} {line}\n")
sys.exit(bool(missing))
PY
}
end=$((SECONDS + 30))
until evidence; do
    if [ "$SECONDS" -ge "$end" ]; then
        cat "$WORK/story.txt" >&2 || true
        die "not every step of the attacker is in the table of events"
    fi
    sleep 0.5
done
cat "$WORK/story.txt"

say "6. all of it torn down"
decnet topology teardown office --wait --timeout 120s
decnet topology teardown branch --wait --timeout 120s
for topology in office branch; do
    decnet topology inspect "$topology" --output json >"$WORK/inspect.json"
    [ "$(field "$WORK/inspect.json" topology.status)" = torn_down ] || die "$topology is not torn down"
done
for id in "${HOSTS[@]}"; do
    left=$(docker ps -a --filter "label=decnet.host.id=$id" --format '{{.Names}}'
        docker network ls --filter "label=decnet.host.id=$id" --format '{{.Name}}')
    [ -z "$left" ] || die "Docker still holds: $left"
done
decnet topology ls
say "done in $((SECONDS - STARTED)) s: two hosts, two topologies, seven traces of one attacker, nothing left in Docker"
