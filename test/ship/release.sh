#!/usr/bin/env bash
# Makes a release in target/dist: static programs, image, chart, bill of materials, checksums, signature.
#
#   release.sh [--verify] [--arm64] [PROGRAM...]
#       --verify: builds the programs again from HEAD in another folder; the bytes have to be the same
#       --arm64:  for arm64 as well, by Debian's cross compiler; the programs have to give under qemu-user what those for x86-64 give
#       PROGRAM:  ipamd, eni-cni; default both. Image and chart need both.
# RELEASE_KEY names the Ed25519 key in PEM that signs; without it one is made in target/release-key.pem.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
cd "$root"
dist=$root/target/dist
key=${RELEASE_KEY:-$root/target/release-key.pem}
verify=
platforms=(amd64)
while [[ ${1:-} == --* ]]; do
    case $1 in
    --verify) verify=yes ;;
    --arm64) platforms+=(arm64) ;;
    *) echo "release: there is no option $1" >&2 && exit 2 ;;
    esac
    shift
done
programs=("$@")
[ $# -gt 0 ] || programs=(ipamd eni-cni)
declare -A machines=([amd64]=x86_64 [arm64]=aarch64)

# For crates with C in them, and to link. The other variables' names are cargo's and that of the crate cc.
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
export CC_aarch64_unknown_linux_gnu=aarch64-linux-gnu-gcc AR_aarch64_unknown_linux_gnu=aarch64-linux-gnu-ar

# Builds a program for a machine from the sources in a folder: the same bytes wherever these and the crates lie.
build() {
    local program=$1 target=$2-unknown-linux-gnu from=$3 into=$4 profile=release flags
    [ "$program" != eni-cni ] || profile=plugin
    flags="-C target-feature=+crt-static --remap-path-prefix=$from=/src --remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/cargo"
    (cd "$from" && CARGO_TARGET_DIR=$from/target/release-build RUSTFLAGS=$flags cargo build --quiet --locked --profile "$profile" --package "$program" --target "$target")
    install -D -m 755 "$from/target/release-build/$target/$profile/$program" "$into/$program"
    # No loader, and no library for one to load.
    if readelf --wide --segments --dynamic "$into/$program" | grep -E 'INTERP|NEEDED'; then
        echo "release: $into/$program is not static" >&2
        exit 1
    fi
}

rm -rf "$dist"
mkdir -p "$dist"
[ ${#platforms[@]} = 1 ] || "$here/cross.sh"
again=
if [ -n "$verify" ]; then
    again=$(mktemp -d)
    trap 'rm -rf "$again"' EXIT
    git archive HEAD | tar -x -C "$again"
fi
parts=()
for platform in "${platforms[@]}"; do
    for program in "${programs[@]}"; do
        build "$program" "${machines[$platform]}" "$root" "$dist/$platform"
        [ -z "$verify" ] || build "$program" "${machines[$platform]}" "$again" "$again/target/dist/$platform"
        [ -z "$verify" ] || cmp {"$dist","$again/target/dist"}/"$platform/$program"
    done
    python3 "$here/materials.py" "${machines[$platform]}-unknown-linux-gnu" >"$dist/$platform/materials.cdx.json"
    parts+=(--platform "$platform=$dist/$platform")
done
[ -z "$verify" ] || echo "release: a second build gave the same bytes: ${programs[*]} for ${platforms[*]}"
[ ${#platforms[@]} = 1 ] || python3 "$here/emulated.py" "$dist/amd64" "$dist/arm64"
if [ ${#programs[@]} = 2 ]; then
    cargo run --quiet --package e2e --bin image -- "${parts[@]}" --revision "$(git rev-parse HEAD)" --out "$dist/eni-cni-image.tar"
    "$root/target/venv-ship/bin/python" -c 'import sys, helm_python; helm_python.package(sys.argv[1], destination=sys.argv[2])' charts/eni-cni "$dist"
fi
cd "$dist"
sums=$(find . -type f -printf '%P\n' | LC_ALL=C sort | xargs -d '\n' sha256sum)
echo "$sums" >SHA256SUMS
[ -f "$key" ] || (umask 077 && openssl genpkey -algorithm ed25519 -out "$key")
openssl pkeyutl -sign -rawin -inkey "$key" -in SHA256SUMS -out SHA256SUMS.sig
openssl pkey -in "$key" -pubout -out SHA256SUMS.pub
# As SECURITY.md tells people to do it.
openssl pkeyutl -verify -rawin -pubin -inkey SHA256SUMS.pub -in SHA256SUMS -sigfile SHA256SUMS.sig
sha256sum --check --quiet SHA256SUMS
cat SHA256SUMS
