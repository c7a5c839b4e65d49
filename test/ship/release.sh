#!/usr/bin/env bash
# Makes a release in target/dist: static programs, image, chart, bill of materials, checksums, signature.
#
#   release.sh [--verify] [PROGRAM...]     --verify: builds the programs again from HEAD in another folder; the bytes have to be the same
#                                          PROGRAM: ipamd, eni-cni; default both. Image and chart need both.
# RELEASE_KEY names the Ed25519 key in PEM that signs; without it one is made in target/release-key.pem.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
cd "$root"
dist=$root/target/dist
host=$(rustc -vV | sed -n 's/^host: //p')
key=${RELEASE_KEY:-$root/target/release-key.pem}
verify=
[ "${1:-}" != --verify ] || { verify=yes; shift; }
programs=("$@")
[ $# -gt 0 ] || programs=(ipamd eni-cni)

# Builds a program from the sources in a folder: the same bytes wherever these and the crates lie.
build() {
    local program=$1 from=$2 into=$3 profile=release flags
    [ "$program" != eni-cni ] || profile=plugin
    flags="-C target-feature=+crt-static --remap-path-prefix=$from=/src --remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/cargo"
    (cd "$from" && CARGO_TARGET_DIR=$from/target/release-build RUSTFLAGS=$flags cargo build --quiet --locked --profile "$profile" --package "$program" --target "$host")
    install -D -m 755 "$from/target/release-build/$host/$profile/$program" "$into/$program"
    # ldd says of a static program that it is one, and of some kinds by its exit code too.
    if (ldd "$into/$program" 2>&1 || true) | grep -q '(0x'; then
        echo "release: $program is not static" >&2
        exit 1
    fi
}

rm -rf "$dist"
mkdir -p "$dist"
again=
if [ -n "$verify" ]; then
    again=$(mktemp -d)
    trap 'rm -rf "$again"' EXIT
    git archive HEAD | tar -x -C "$again"
fi
for program in "${programs[@]}"; do
    build "$program" "$root" "$dist"
    [ -z "$verify" ] || build "$program" "$again" "$again/target/dist"
    [ -z "$verify" ] || cmp "$dist/$program" "$again/target/dist/$program"
done
[ -z "$verify" ] || echo "release: a second build gave the same bytes: ${programs[*]}"
python3 "$here/materials.py" "$host" >"$dist/materials.cdx.json"
if [ ${#programs[@]} = 2 ]; then
    cargo run --quiet --package e2e --bin image -- --ipamd "$dist/ipamd" --plugin "$dist/eni-cni" --revision "$(git rev-parse HEAD)" \
        --materials "$dist/materials.cdx.json" --out "$dist/eni-cni-image-$(uname -m).tar"
    "$root/target/venv-ship/bin/python" -c 'import sys, helm_python; helm_python.package(sys.argv[1], destination=sys.argv[2])' charts/eni-cni "$dist"
fi
(cd "$dist" && sha256sum -- * >SHA256SUMS)
[ -f "$key" ] || (umask 077 && openssl genpkey -algorithm ed25519 -out "$key")
openssl pkeyutl -sign -rawin -inkey "$key" -in "$dist/SHA256SUMS" -out "$dist/SHA256SUMS.sig"
openssl pkey -in "$key" -pubout -out "$dist/SHA256SUMS.pub"
# As SECURITY.md tells people to do it.
cd "$dist"
openssl pkeyutl -verify -rawin -pubin -inkey SHA256SUMS.pub -in SHA256SUMS -sigfile SHA256SUMS.sig
sha256sum --check --quiet SHA256SUMS
cat SHA256SUMS
