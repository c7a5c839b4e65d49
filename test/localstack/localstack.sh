#!/usr/bin/env bash
# Starts and stops LocalStack (EC2, STS, IAM) on 127.0.0.1.
#
#   localstack.sh start  [--port PORT]   waits until EC2 answers, then prints the endpoint; port 0: any free one
#   localstack.sh stop   [--port PORT]   ends the process that start began, and no other
#   localstack.sh status [--port PORT]   prints the endpoint; exit code 3: not running
#
# Each port has its own state and log in target/localstack/PORT (or $LOCALSTACK_STATES/PORT). The state is gone after
# stop. There is no reset: a client gets a world of its own by its access key, a key of 12 digits is the account's number.
set -Eeuo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
venv=$root/target/venv-localstack
states=${LOCALSTACK_STATES:-$root/target/localstack}
cache=$states/cache
start_seconds=120
stop_seconds=5

# Without this a command that fails without words ends the script without words.
trap 'echo "localstack: line $LINENO: \`$BASH_COMMAND\` failed with exit code $?" >&2' ERR

usage() { sed -n '2,9s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2; exit 2; }
fail() { echo "localstack: $*" >&2; exit 1; }
now() { date +%s; }

# A process is known by its id and its start time: ids come back.
start_time() { sed 's/^.*) //' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f20; }

running() {
    local pid since
    read -r pid since 2>/dev/null <"$state/pid" || return 1
    [ -n "$since" ] && [ "$(start_time "$pid")" = "$since" ] || return 1
    [ "$(sed 's/^.*) //' "/proc/$pid/stat" 2>/dev/null | cut -d' ' -f1)" != Z ] || return 1
    echo "$pid"
}

free_port() { "$venv/bin/python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

# Logs stay for an hour after their LocalStack has ended.
forget_old_runs() {
    local state
    [ -d "$states" ] || return 0
    find "$states" -mindepth 1 -maxdepth 1 -name '[0-9]*' -mmin +60 2>/dev/null | while read -r state; do
        running >/dev/null || rm -rf "$state"
    done
}

port_is_free() {
    "$venv/bin/python" - "$1" 2>/dev/null <<'PYTHON'
import socket, sys
s = socket.socket()
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(("127.0.0.1", int(sys.argv[1])))
PYTHON
}

# Asks for VPCs, because the first EC2 call loads the service, which takes seconds that no test should pay for.
ask() {
    "$venv/bin/python" - "$1" 2>/dev/null <<'PYTHON'
import json, sys, urllib.request
url = sys.argv[1]
with urllib.request.urlopen(url + "/_localstack/init/ready", timeout=2) as answer:
    assert json.load(answer)["completed"]
call = urllib.request.Request(url, data=b"Action=DescribeVpcs&Version=2016-11-15", headers={
    "Authorization": "AWS4-HMAC-SHA256 Credential=000000000000/20260101/us-east-1/ec2/aws4_request, SignedHeaders=host, Signature=0",
    "Content-Type": "application/x-www-form-urlencoded"})
with urllib.request.urlopen(call, timeout=60) as answer:
    assert b"DescribeVpcsResponse" in answer.read()
PYTHON
}

wait_until_ready() {
    local pid=$1 deadline=$(($(now) + start_seconds))
    until ask "$endpoint"; do
        if ! running >/dev/null; then
            tail -n 30 "$state/log" >&2
            fail "ended while starting; its log is $state/log"
        fi
        [ "$(now)" -lt "$deadline" ] || { tail -n 30 "$state/log" >&2; stop; fail "not ready within $start_seconds s (pid $pid); its log is $state/log"; }
        sleep 0.2
    done
}

start() {
    "$here/setup.sh" --check || fail "is not installed in $venv, or an older one is; run \`make setup\` (or test/localstack/setup.sh)"
    if running >/dev/null; then
        wait_until_ready "$(running)"
        echo "$endpoint"
        return
    fi
    port_is_free "$port" || fail "port $port of 127.0.0.1 is taken; choose another with --port, or 0 for any"
    forget_old_runs
    rm -rf "$state"
    mkdir -p "$state/fs/var/lib/localstack/cache" "$cache"
    # The index of all services, which a first start spends 10 s and 600 MB on.
    cp "$cache"/service-catalog-*.dill "$state/fs/var/lib/localstack/cache/" 2>/dev/null || true
    # hypercorn, because the default server listens on every address. A clean environment, because LocalStack reads
    # dozens of variables, proxies and AWS settings among them. Descriptor 9 and standard output are not inherited:
    # whoever waits for the end of our output would wait for LocalStack's end.
    env -i PATH="$venv/bin:/usr/bin:/bin" HOME="$state" LANG=C.UTF-8 \
        SERVICES=ec2,sts,iam STRICT_SERVICE_LOADING=1 \
        GATEWAY_SERVER=hypercorn GATEWAY_LISTEN="127.0.0.1:$port" \
        OVERRIDE_IN_DOCKER=0 DNS_ADDRESS=0 DISABLE_EVENTS=1 SKIP_SSL_CERT_DOWNLOAD=1 FILESYSTEM_ROOT="$state/fs" \
        setsid "$venv/bin/python" -m localstack.runtime.main </dev/null >"$state/log" 2>&1 9>&- &
    echo "$! $(start_time "$!")" >"$state/pid"
    wait_until_ready "$!"
    local dill
    for dill in "$state"/fs/var/lib/localstack/cache/service-catalog-*.dill; do
        [ ! -f "$dill" ] || [ -f "$cache/$(basename "$dill")" ] || { cp "$dill" "$cache/new.$$" && mv "$cache/new.$$" "$cache/$(basename "$dill")"; }
    done
    echo "$endpoint"
}

stop() {
    local pid deadline=$(($(now) + stop_seconds))
    pid=$(running) || { rm -rf "$state/pid" "$state/fs"; return 0; }
    kill -TERM "$pid" 2>/dev/null || true
    # It hangs now and then while it shuts down; nothing that it still would write is kept.
    while running >/dev/null; do
        [ "$(now)" -lt "$deadline" ] || { kill -KILL "$pid" 2>/dev/null || true; break; }
        sleep 0.1
    done
    rm -rf "$state/pid" "$state/fs"
}

[ $# -ge 1 ] || usage
command=$1
port=4566
shift
while [ $# -gt 0 ]; do
    case $1 in
        --port) [ $# -ge 2 ] || usage; port=$2; shift 2 ;;
        *) usage ;;
    esac
done
[[ $port =~ ^[0-9]{1,5}$ ]] && [ "$port" -le 65535 ] || fail "port \`$port\` is not a number in 0..=65535"
if [ "$port" = 0 ]; then
    [ "$command" = start ] || fail "$command needs the port that start printed"
    [ ! -x "$venv/bin/python" ] || port=$(free_port)
fi
state=$states/$port
endpoint=http://127.0.0.1:$port

case $command in
    start) start ;;
    stop) stop ;;
    status) running >/dev/null || exit 3; echo "$endpoint" ;;
    *) usage ;;
esac
