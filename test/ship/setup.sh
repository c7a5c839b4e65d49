#!/usr/bin/env bash
# Installs what checks the chart and the Terraform modules, pinned by hash, without root: Python packages in
# target/venv-ship and target/venv-moto, Terraform's AWS provider in target/providers. Quick when that is done already.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
target=$root/target

say() { echo "ship setup: $*" >&2; }
fail() { say "$*"; exit 1; }

# Makes a virtual environment from a list of wheels. The wheels' hashes are those for Python 3.11.
make_venv() {
    local venv=$1 list=$2 size=$3 python
    [ "$(cat "$venv/stamp" 2>/dev/null)" != "$(sha256sum <"$list")" ] || return 0
    for python in python3.11 /usr/bin/python3.11 ''; do
        "$python" -c 'import sys, ensurepip, venv; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null && break
    done
    [ -n "$python" ] || fail "needs Python 3.11 with venv (Debian: apt-get install python3-venv) for the pinned wheels"
    say "making $venv ($size)"
    rm -rf "$venv"
    "$python" -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check --no-input --no-deps --no-compile --only-binary :all: --require-hashes -r "$list" >&2
    sha256sum <"$list" >"$venv/stamp"
}

[ "$(uname -sm)" = "Linux x86_64" ] || fail "the pinned wheels are for Linux on x86-64"
mkdir -p "$target"
# Two may come here at once: the second waits, and finds the work done.
exec 9>"$target/ship.lock"
flock 9
make_venv "$target/venv-ship" "$here/requirements.txt" "750 MB, about a minute"
