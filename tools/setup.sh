#!/usr/bin/env bash
# Installs what the build, the tests or the Arm check need and this machine lacks.
#
#     tools/setup.sh [build] [check] [arm] [interop] [wheel] [page] [cluster]      default: build
#
# Asks compilers and pkg-config first, says nothing when nothing is missing. On Debian and
# Ubuntu it installs with apt, as root or through sudo; elsewhere it says what to install.
set -euo pipefail

missing=()   # "what it is for|Debian package"
wanted=()    # the same of what the build goes without: installed along, never a reason to install

need_command() # COMMAND PACKAGE
{
    command -v "$1" >/dev/null 2>&1 || missing+=("the command $1|$2")
}

need_library() # PKG_CONFIG_NAME PACKAGE
{
    pkg-config --exists "$1" 2>/dev/null || missing+=("the library $1|$2")
}

want_file() # FILE_UNDER_INCLUDE PACKAGE
{
    [ -e "/usr/include/$1" ] || wanted+=("the file $1|$2")
}

need_file() # FILE_UNDER_INCLUDE PACKAGE
{
    [ -e "/usr/include/$1" ] || [ -e "/usr/local/include/$1" ] || [ -e "/opt/homebrew/include/$1" ] ||
        missing+=("the file $1|$2")
}

# A decoder that libheif opens when it runs. Where libheif brings it, as in Debian 12, there is no
# such package.
need_decoder() # NAME PACKAGE
{
    compgen -G "/usr/lib/*/libheif/plugins/*$1*" >/dev/null && return
    apt-cache show "$2" >/dev/null 2>&1 && missing+=("libheif's decoder $1|$2")
    return 0
}

need_build()
{
    need_command cc gcc
    need_command make make
    need_command cmake cmake
    need_command ninja ninja-build
    need_command pkg-config pkg-config
    # A compiler may be installed without the C library's headers.
    if command -v cc >/dev/null 2>&1 && ! echo '#include <stdio.h>' | cc -E - >/dev/null 2>&1; then
        missing+=("the C library's headers|libc6-dev")
    fi
    need_library libjpeg libjpeg-dev
    need_library libpng libpng-dev
    need_library libwebpdemux libwebp-dev
    need_file gif_lib.h libgif-dev
    need_file archive.h libarchive-dev
    need_library libtiff-4 libtiff-dev
    need_library libheif libheif-dev
    need_decoder libde265 libheif-plugin-libde265
    need_decoder dav1d libheif-plugin-dav1d
    need_library jansson libjansson-dev
    need_library libutf8proc libutf8proc-dev
    need_library libpcre2-8 libpcre2-dev
    need_library libcurl libcurl4-openssl-dev
    need_library cmocka libcmocka-dev
    need_library libprotobuf-c libprotobuf-c-dev
    need_command protoc-c protobuf-c-compiler
    need_file onnx/onnx.proto libonnx-dev
    want_file histedit.h libedit-dev
    want_file microhttpd.h libmicrohttpd-dev
}

# Links a program with the sanitizers: the only reliable test.
links_with() # COMPILER FLAGS
{
    local dir ok=1
    dir=$(mktemp -d)
    echo 'int main(void) { return 0; }' >"$dir/a.c"
    "$1" "$2" -o "$dir/a" "$dir/a.c" >/dev/null 2>&1 && ok=0
    rm -rf "$dir"
    return $ok
}

need_check()
{
    need_command g++ g++
    need_command gcc gcc
    need_command nm binutils
    python3 -c 'import json, http.server' 2>/dev/null || missing+=("Python with its standard library|python3")
    need_command adb adb
    if ! command -v clang >/dev/null 2>&1; then
        missing+=("the command clang|clang" "clang's sanitizers|@clang-rt")
    elif ! links_with clang -fsanitize=address,fuzzer-no-link; then
        missing+=("clang's sanitizers|@clang-rt")
    fi
    if command -v gcc >/dev/null 2>&1; then
        links_with gcc -fsanitize=address,undefined || missing+=("gcc's address sanitizer|libgcc-$(gcc -dumpversion)-dev")
        links_with gcc -fsanitize=thread || missing+=("gcc's thread sanitizer|libgcc-$(gcc -dumpversion)-dev")
    fi
}

# On an Arm machine the ordinary tests are the Arm tests.
need_arm()
{
    [ "$(uname -m)" = x86_64 ] || return 0
    need_command aarch64-linux-gnu-gcc gcc-aarch64-linux-gnu
    need_command qemu-aarch64 qemu-user
    [ -e /usr/aarch64-linux-gnu/include/stdio.h ] || missing+=("the C library for 64-bit Arm|libc6-dev-arm64-cross")
}

need_interop()
{
    need_command python3 python3
    python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=("Python's venv|python3-venv")
    need_command node nodejs
    need_command npm npm
}

# A wheel's libraries are built from the distribution's source packages, also for Arm.
need_wheel()
{
    need_build
    need_command python3 python3
    python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=("Python's venv|python3-venv")
    need_command nasm nasm
    need_command dpkg-source dpkg-dev
}

need_page()
{
    command -v google-chrome >/dev/null 2>&1 || command -v chromium-browser >/dev/null 2>&1 || need_command chromium chromium
    need_command curl curl
    need_command node nodejs
    need_command npm npm
}

# The recipes of examples/cluster: Slurm as the distribution has it, Java for Spark, the wheel.
need_cluster()
{
    PATH=$PATH:/usr/sbin:/sbin
    need_wheel
    need_command java default-jre-headless
    need_command slurmctld slurmctld
    need_command slurmd slurmd
    need_command sbatch slurm-client
    need_command munged munge
}

# The sanitizer runtimes carry clang's version in their package name.
clang_rt_package()
{
    local version
    version=$(apt-cache depends clang 2>/dev/null | sed -n 's/.*Depends: clang-\([0-9][0-9]*\)$/\1/p' | head -n 1)
    echo "libclang-rt-${version:-14}-dev"
}

install_with_apt()
{
    local packages=() entry package as_root=()

    if [ "$(id -u)" != 0 ]; then
        if ! command -v sudo >/dev/null 2>&1; then
            echo "setup: not root and no sudo; as root type:" >&2
            echo "    apt-get install$(printf ' %s' "${missing[@]#*|}")" >&2
            exit 1
        fi
        as_root=(sudo)
    fi
    echo "setup: asking apt for: $(printf '%s, ' "${missing[@]%%|*}" | sed 's/, $//')" >&2
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get update -q >&2 ||
        echo "setup: apt-get update failed, trying with the existing package lists" >&2
    for entry in "${missing[@]}" "${wanted[@]}"; do
        package=${entry#*|}
        [ "$package" = @clang-rt ] && package=$(clang_rt_package)
        packages+=("$package")
    done
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends \
        "${packages[@]}" </dev/null >&2
}

say_what_to_install()
{
    local entry
    echo "setup: this system has no apt; please install:" >&2
    for entry in "${missing[@]}"; do
        printf '    %-34s (Debian: %s)\n' "${entry%%|*}" "${entry#*|}" >&2
    done
    if command -v brew >/dev/null 2>&1; then
        echo "  with Homebrew:" >&2
        echo "    brew install cmake ninja pkg-config jpeg-turbo libpng webp giflib libtiff libheif libarchive jansson utf8proc pcre2 curl cmocka \\" >&2
        echo "        protobuf-c onnx" >&2
    elif command -v dnf >/dev/null 2>&1; then
        echo "  on Fedora:" >&2
        echo "    dnf install gcc gcc-c++ make cmake ninja-build pkgconf libjpeg-turbo-devel libpng-devel \\" >&2
        echo "        libwebp-devel giflib-devel libtiff-devel libheif-devel libarchive-devel jansson-devel utf8proc-devel pcre2-devel libcurl-devel libcmocka-devel \\" >&2
        echo "        protobuf-c-devel protobuf-c-compiler onnx-devel" >&2
    elif command -v pacman >/dev/null 2>&1; then
        echo "  on Arch:" >&2
        echo "    pacman -S gcc make cmake ninja pkgconf libjpeg-turbo libpng libwebp giflib libtiff libheif libarchive jansson libutf8proc pcre2 curl cmocka \\" >&2
        echo "        protobuf-c python-onnx" >&2
    elif command -v apk >/dev/null 2>&1; then
        echo "  on Alpine:" >&2
        echo "    apk add gcc g++ musl-dev make cmake ninja pkgconf libjpeg-turbo-dev libpng-dev libwebp-dev giflib-dev tiff-dev libheif-dev \\" >&2
        echo "        jansson-dev utf8proc-dev pcre2-dev curl-dev cmocka-dev protobuf-c-dev protobuf-c-compiler onnx-dev" >&2
    fi
    exit 1
}

collect()
{
    local group
    missing=() wanted=()
    for group in "${@:-build}"; do
        case $group in
        build | check | arm | interop | wheel | page | cluster) "need_$group" ;;
        *) echo "setup: unknown group $group (build, check, arm, interop, wheel, page, cluster)" >&2; exit 2 ;;
        esac
    done
}

collect "$@"
[ ${#missing[@]} -eq 0 ] && exit 0
command -v apt-get >/dev/null 2>&1 || say_what_to_install
install_with_apt

# Some questions can only be asked once the compiler is there.
collect "$@"
[ ${#missing[@]} -eq 0 ] && exit 0
install_with_apt
collect "$@"
if [ ${#missing[@]} -ne 0 ]; then
    echo "setup: still missing: $(printf '%s, ' "${missing[@]%%|*}" | sed 's/, $//')" >&2
    exit 1
fi
