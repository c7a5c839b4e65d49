#!/usr/bin/env bash
# Installs what builds for arm64 on x86-64 and runs it there: Debian's cross compiler and qemu-user, and rustup's target.
# Repeatable; does nothing, quickly, when all is there.
set -euo pipefail

# file -> Debian package that has it
declare -A needed=([/usr/bin/aarch64-linux-gnu-gcc]=gcc-aarch64-linux-gnu [/usr/aarch64-linux-gnu/lib/libc.a]=libc6-dev-arm64-cross
  [/usr/bin/qemu-aarch64-static]=qemu-user-static)
sudo=(); [ "$(id -u)" = 0 ] || sudo=(sudo)
missing=()
for file in "${!needed[@]}"; do
  [ -e "$file" ] || missing+=("${needed[$file]}")
done
if ((${#missing[@]})); then
  echo "== installing Debian packages: ${missing[*]}"
  "${sudo[@]}" apt-get update -qq
  DEBIAN_FRONTEND=noninteractive "${sudo[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}"
fi
if [ ! -d "$(rustc --print target-libdir --target aarch64-unknown-linux-gnu)" ]; then
  echo "== adding rustup's target aarch64-unknown-linux-gnu"
  rustup target add aarch64-unknown-linux-gnu
fi
