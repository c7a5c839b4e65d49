#!/usr/bin/env bash
# Checks terraform/ without AWS: format, docs, policies; each module validated and tested against today's schema of the provider; then
# localstack/ applied on LocalStack and the EKS parts on moto by a real provider, planned again, and destroyed.
#
#   terraform.sh [--write] [--demo PROGRAM ARGUMENT...]     --write: renews the tables in the modules' READMEs
#                                                           --demo: run on what localstack/ made, with --made FILE
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
target=$root/target
work=$target/terraform
python=$target/venv-ship/bin/python
export CHECKPOINT_DISABLE=1 TF_IN_AUTOMATION=1 TF_INPUT=0

say() { printf '   %4s s  %s\n' "$SECONDS" "$*"; }
use() { export TF_CLI_CONFIG_FILE=$target/providers/$1.tfrc; }
# What a command says is shown only when it fails.
log=$work/log
quietly() { "$@" >"$log" 2>&1 || { cat "$log" >&2; echo "failed: $*" >&2; return 1; }; }

write=()
[ "${1:-}" != --write ] || { write=(--write); shift; }
demo=()
[ "${1:-}" != --demo ] || { shift; demo=("$@"); }

use schema
terraform -chdir="$root/terraform" fmt -check -recursive -diff
modules=("$root"/terraform/modules/*/ "$root/terraform/eks/" "$root/terraform/localstack/")
"$python" "$here/module_docs.py" "${write[@]}" "${modules[@]%/}"
# A copy, so that locks and states do not lie among the sources.
rm -rf "$work"
mkdir -p "$work"
cp -a "$root/terraform" "$here/moto" "$work"
cp -a "$root/charts" "$work"
cd "$work/terraform"
(cd "$root/terraform" && quietly "$target/venv-ship/bin/checkov" --directory . --config-file "$here/policies-terraform.yaml" --skip-download --compact --quiet)
say "format, docs and policies hold, but for those that policies-terraform.yaml and comments explain"
for module in modules/* eks; do
    quietly terraform -chdir="$module" init -backend=false
    quietly terraform -chdir="$module" validate
    quietly terraform -chdir="$module" test
    say "$module: $(grep -o '[0-9]* passed, [0-9]* failed' "$work/log") against the schema of provider 6.66"
done
rm -rf modules/*/.terraform* eks/.terraform*

use real
for module in modules/network modules/iam; do
    quietly terraform -chdir="$module" init -backend=false
    quietly terraform -chdir="$module" validate
done
say "modules/network and modules/iam are valid for provider 3.39 too"

# Applies in a folder, plans again, runs a command in between, destroys. The plan's exit code 2 means that something would change.
apply() {
    local folder=$1 plan=$2
    shift 2
    quietly terraform -chdir="$folder" init
    quietly terraform -chdir="$folder" apply -auto-approve
    say "$folder: $(grep -o 'Resources: .*' "$log")"
    [ "$plan" != empty ] || quietly terraform -chdir="$folder" plan -detailed-exitcode
    [ "$plan" != empty ] || say "$folder: a second plan is empty"
    "$@"
    quietly terraform -chdir="$folder" destroy -auto-approve
    say "$folder: $(grep -o 'Destroy complete.*' "$log")"
}
on_what_was_made() {
    [ ${#demo[@]} -gt 0 ] || return 0
    terraform -chdir=localstack output -json lab >"$work/lab.json"
    "${demo[@]}" --made "$work/lab.json" >"$work/demo.log" 2>&1 || { cat "$work/demo.log" >&2; exit 1; }
    say "$(tail -n 1 "$work/demo.log"): the demo ran on what localstack/ made"
}

# The two halves wait for the provider's polls most of the time, so they run side by side.
on_localstack() {
    local log=$work/localstack.log TF_VAR_endpoint
    TF_VAR_endpoint=$("$root/test/localstack/localstack.sh" start --port 0)
    export TF_VAR_endpoint
    # shellcheck disable=SC2064
    trap "'$root/test/localstack/localstack.sh' stop --port '${TF_VAR_endpoint##*:}'" EXIT
    apply localstack empty on_what_was_made
}
on_moto() {
    local log=$work/moto-terraform.log port moto
    port=$("$python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
    export TF_VAR_endpoint=http://127.0.0.1:$port
    "$target/venv-moto/bin/moto_server" -H 127.0.0.1 -p "$port" >"$work/moto.log" 2>&1 &
    moto=$!
    # shellcheck disable=SC2064
    trap "kill $moto" EXIT
    until "$python" -c "import urllib.request; urllib.request.urlopen('$TF_VAR_endpoint/moto-api/')" 2>/dev/null; do
        kill -0 "$moto" || { cat "$work/moto.log" >&2; return 1; }
        sleep 0.2
    done
    # No second plan: moto invents a part of the node group.
    apply ../moto any true
}
# In the background, because what stands before `||` does not stop at an error.
(on_moto) &
moto=$!
(on_localstack) &
localstack=$!
status=0
wait "$moto" || status=1
wait "$localstack" || status=1
exit "$status"
