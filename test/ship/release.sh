#!/usr/bin/env bash
# Makes a release in target/dist: static programs, image, chart, bill of materials, checksums, signature.
#
#   release.sh [--verify] [PROGRAM...]     --verify: builds the programs a second time elsewhere; the hashes have to be the same
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

# The same bytes wherever sources and crates lie.
home=${CARGO_HOME:-$HOME/.cargo}
export RUSTFLAGS="-C target-feature=+crt-static --remap-path-prefix=$root=/src --remap-path-prefix=$home=/cargo"

# Builds a program into a target folder and puts it into another.
build() {
    local program=$1 target=$2 into=$3 profile=release
    [ "$program" != eni-cni ] || profile=plugin
    CARGO_TARGET_DIR=$target cargo build --quiet --locked --profile "$profile" --package "$program" --target "$host"
    install -D -m 755 "$target/$host/$profile/$program" "$into/$program"
    ! ldd "$into/$program" >/dev/null 2>&1 || { echo "release: $program is not static" >&2; exit 1; }
}

rm -rf "$dist"
mkdir -p "$dist"
for program in "${programs[@]}"; do
    build "$program" "$root/target/release-first" "$dist"
    [ -z "$verify" ] || build "$program" "$root/target/release-second" "$root/target/dist-second"
    [ -z "$verify" ] || cmp "$dist/$program" "$root/target/dist-second/$program"
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
openssl pkeyutl -verify -rawin -pubin -inkey "$dist/SHA256SUMS.pub" -in "$dist/SHA256SUMS" -sigfile "$dist/SHA256SUMS.sig"
cat "$dist/SHA256SUMS"
