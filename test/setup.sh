#!/usr/bin/env bash
# Installs what the tests and the demo need on Debian: a few packages, and LocalStack in target/venv-localstack.
# Repeatable; does nothing, quickly, when all is there.
set -euo pipefail
cd "$(dirname "$0")/.."

# command -> Debian package that has it
declare -A needed=([ip]=iproute2 [nft]=nftables [ping]=iputils-ping [curl]=curl [cc]=gcc
  [containerd]=containerd [runc]=runc [podman]=podman [chromium]=chromium [npm]=npm)
sudo=(); [ "$(id -u)" = 0 ] || sudo=(sudo)
missing=()
for command in "${!needed[@]}"; do
  PATH="$PATH:/usr/sbin:/sbin" command -v "$command" >/dev/null || missing+=("${needed[$command]}")
done
[ -x /usr/lib/cni/ptp ] || missing+=(containernetworking-plugins)
# The command may also be the one that needs a dynamic linker, which an image made of it alone has not.
dpkg-query -s busybox-static >/dev/null 2>&1 || missing+=(busybox-static)
if ((${#missing[@]})); then
  echo "== installing Debian packages: ${missing[*]}"
  "${sudo[@]}" apt-get update -qq
  DEBIAN_FRONTEND=noninteractive "${sudo[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}"
fi
# promtool alone: the package would start a server.
if [ ! -x target/tools/promtool ]; then
  echo "== unpacking promtool from Debian's prometheus into target/tools"
  folder=$(mktemp -d)
  # Without lists of packages there is nothing to download from.
  apt-cache show prometheus >/dev/null 2>&1 || "${sudo[@]}" apt-get update -qq
  (cd "$folder" && apt-get download -qq prometheus && dpkg-deb -x prometheus_*.deb .)
  mkdir -p target/tools
  mv "$folder/usr/bin/promtool" target/tools/
  rm -r "$folder"
fi
test/localstack/setup.sh
