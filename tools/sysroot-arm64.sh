#!/usr/bin/env bash
# Unpacks the distribution's 64-bit Arm libraries into build/sysroot-arm64, for the `arm64` preset.
# Needs apt and a network, but no root and no change to the system: apt works in a state
# directory of its own, where arm64 is the native architecture.
set -euo pipefail
cd "$(dirname "$0")/.."

sysroot=build/sysroot-arm64
state=$PWD/build/apt-arm64
packages=(libc6-dev linux-libc-dev libgcc-s1 libstdc++6 libatomic1 libjpeg-dev libpng-dev libwebp-dev libgif-dev libtiff-dev libheif-dev libjansson-dev
    libutf8proc-dev libpcre2-dev libcmocka-dev libprotobuf-c-dev libcurl4-openssl-dev python3)

[ "$(cat "$sysroot/.complete" 2>/dev/null)" = "${packages[*]}" ] && exit 0
command -v apt-get >/dev/null 2>&1 || {
    echo "sysroot-arm64: needs apt (Debian or Ubuntu)" >&2
    exit 1
}
mkdir -p "$state"/{lists/partial,cache/archives/partial,etc}
sources=(-o Dir::Etc=/etc/apt)
if grep -q '^ID=ubuntu' /etc/os-release; then
    # Ubuntu keeps its Arm packages on another host.
    . /etc/os-release
    echo "deb [signed-by=/usr/share/keyrings/ubuntu-archive-keyring.gpg]" \
        "http://ports.ubuntu.com/ubuntu-ports $VERSION_CODENAME main universe" >"$state/etc/sources.list"
    sources=(-o "Dir::Etc::sourcelist=$state/etc/sources.list" -o Dir::Etc::sourceparts=/dev/null)
fi
apt=(apt-get -q "${sources[@]}" -o APT::Architecture=arm64 -o APT::Architectures=arm64
    -o Dir::State::lists="$state/lists" -o Dir::State::status=/dev/null -o Dir::Cache="$state/cache"
    -o Debug::NoLocking=1 -o APT::Sandbox::User="$(id -un)" -o APT::Install-Recommends=0)

log=$state/log
"${apt[@]}" update >"$log" 2>&1 || echo "sysroot-arm64: apt-get update complained, see $log" >&2
"${apt[@]}" install -y --download-only "${packages[@]}" >>"$log" 2>&1 || {
    tail -n 20 "$log" >&2
    exit 1
}
rm -rf "$sysroot"
mkdir -p "$sysroot"
# Debian's /lib is a link to usr/lib: unpacked the same way, both names find the same file.
mkdir -p "$sysroot/usr/lib"
ln -s usr/lib "$sysroot/lib"
for deb in "$state"/cache/archives/*.deb; do
    dpkg-deb --fsys-tarfile "$deb" | tar -x -C "$sysroot" --keep-directory-symlink
done
# Absolute links would lead out of the directory.
find "$sysroot" -type l -lname '/*' | while read -r link; do
    ln -sfn "$(realpath -m --relative-to="$(dirname "$link")" "$sysroot$(readlink "$link")")" "$link"
done
rm -rf "$state/cache"
echo "${packages[*]}" >"$sysroot/.complete"
