#!/usr/bin/env bash
# Installs LocalStack into target/venv-localstack. Quick when that is done already; with --check it only tells by its exit
# code whether it is.
#
# Every package is pinned and installed without its dependencies: requirements.txt is the whole list, a third of what
# the resolver would choose, and newer releases of some packages break the start.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
venv=$root/target/venv-localstack
requirements=$here/requirements.txt

say() { echo "localstack setup: $*" >&2; }
fail() { say "$*"; exit 1; }

# Prints the first Python that LocalStack runs on (3.11 to 3.13) and that can make a virtual environment.
find_python() {
    local python
    for python in python3.11 /usr/bin/python3.11 python3.12 python3.13 python3 /usr/bin/python3; do
        if "$python" -c 'import sys, ensurepip, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
            echo "$python"
            return
        fi
    done
    return 1
}

install_python() {
    command -v apt-get >/dev/null || fail "needs Python 3.11 to 3.13 with venv; install it and run this again"
    local as_root=()
    if [ "$(id -u)" != 0 ]; then
        command -v sudo >/dev/null || fail "needs python3-venv; as root: apt-get install python3-venv"
        as_root=(sudo)
    fi
    say "installing python3-venv with apt"
    "${as_root[@]}" apt-get -qq update
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends python3 python3-venv >&2
}

# moto writes MAC addresses as 02:00:00:21902x:14702x:22702x (a format string without its colon, fixed upstream
# in moto 5.2.0, which this LocalStack cannot use).
patch_mac_addresses() {
    local file
    file=$(echo "$venv"/lib/python3.*/site-packages/moto/ec2/utils.py)
    sed -i 's/{random.randint(0, 255)}02x/{random.randint(0, 255):02x}/g' "$file"
    grep -q '{random.randint(0, 255):02x}' "$file" || fail "$file is not what the MAC address patch expects"
    "$venv/bin/python" -m py_compile "$file"
}

# moto draws addresses at random without a look at those in use, EC2's reserved ones included: of 120 in a /16, two are
# the same in one run of ten, and then two pods have one address. Instances get .4, .5 and so on by another way.
patch_addresses() {
    local file
    file=$(echo "$venv"/lib/python3.*/site-packages/moto/ec2/utils.py)
    sed -i 's/return str(ula.network_address + (random.getrandbits(32 - ula.prefixlen)))/return str(ula.network_address + _unused(ula))/' "$file"
    grep -q '_unused(ula)' "$file" || fail "$file is not what the address patch expects"
    cat >>"$file" <<'PYTHON'


_used: set[Any] = set()


def _unused(network: Any) -> int:
    """Host number that was not drawn before. In a network that is small or full: any, as without the patch."""
    for _ in range(1000):
        number = random.getrandbits(32 - network.prefixlen)
        if 32 <= number < network.num_addresses - 1 and (network, number) not in _used:
            _used.add((network, number))
            return number
    return random.getrandbits(32 - network.prefixlen)
PYTHON
    "$venv/bin/python" -m py_compile "$file"
}

wanted=$(cat "$requirements" "${BASH_SOURCE[0]}" | sha256sum | cut -d' ' -f1)
is_done() { [ "$(cat "$venv/stamp" 2>/dev/null)" = "$wanted" ] && [ -x "$venv/bin/python" ]; }

is_done && exit 0
[ "${1:-}" != --check ] || exit 1
mkdir -p "$root/target"
# Two tests may come here at once: the second waits, and finds the work done.
exec 9>"$venv.lock"
flock 9
is_done && exit 0

python=$(find_python) || { install_python; python=$(find_python) || fail "apt's Python is not 3.11 to 3.13; install one of these with venv"; }
say "making $venv with $("$python" --version) (195 MB, about a minute)"
rm -rf "$venv"
"$python" -m venv "$venv"
"$venv/bin/pip" install --quiet --disable-pip-version-check --no-input --no-deps -r "$requirements" >&2
patch_mac_addresses
patch_addresses
echo "$wanted" >"$venv/stamp"
say "done"
