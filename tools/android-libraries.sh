#!/usr/bin/env bash
# Builds the libraries that the program needs and Android does not have, from the distribution's
# source packages with the NDK, into build/android-libraries (static). Needs apt and a network.
#
#     ANDROID_NDK_ROOT=... tools/android-libraries.sh
set -euo pipefail
cd "$(dirname "$0")/.."
: "${ANDROID_NDK_ROOT:?names an unpacked Android NDK}"

prefix=$PWD/build/android-libraries
work=$PWD/build/apt-source
# source package, folder of its CMakeLists.txt, options
libraries=(
    "libjpeg-turbo|.|-DENABLE_SHARED=OFF -DWITH_TURBOJPEG=OFF"
    "libpng1.6|.|-DPNG_SHARED=OFF -DPNG_TESTS=OFF"
    "libwebp|.|-DWEBP_BUILD_ANIM_UTILS=OFF -DWEBP_BUILD_CWEBP=OFF -DWEBP_BUILD_DWEBP=OFF -DWEBP_BUILD_GIF2WEBP=OFF -DWEBP_BUILD_IMG2WEBP=OFF -DWEBP_BUILD_VWEBP=OFF -DWEBP_BUILD_WEBPINFO=OFF -DWEBP_BUILD_WEBPMUX=OFF -DWEBP_BUILD_EXTRAS=OFF"
    "utf8proc|.|"
    "jansson|.|-DJANSSON_BUILD_DOCS=OFF -DJANSSON_WITHOUT_TESTS=ON -DJANSSON_EXAMPLES=OFF"
    "protobuf-c|build-cmake|-DBUILD_PROTOC=OFF -DBUILD_TESTS=OFF"
)

[ -e "$prefix/.complete" ] && exit 0
command -v apt-get >/dev/null 2>&1 || {
    echo "android-libraries: needs apt (Debian or Ubuntu) for the libraries' sources" >&2
    exit 1
}
log=$work/log
mkdir -p "$work"/{lists/partial,cache/archives/partial,etc}

# What is in sources.list for binaries is where the sources are, too.
sources=$work/etc/sources.list
{
    grep -rhE '^deb ' /etc/apt/sources.list /etc/apt/sources.list.d 2>/dev/null | sed 's/^deb /deb-src /' || true
    for file in /etc/apt/sources.list.d/*.sources; do
        [ ! -e "$file" ] || awk '
            function put(  i, n, suite) {
                n = split(suites, suite, " ")
                for (i = 1; i <= n; i++)
                    print "deb-src " key uri " " suite[i] components
                suites = key = ""
            }
            /^URIs:/       { uri = $2 }
            /^Suites:/     { $1 = ""; suites = $0 }
            /^Components:/ { $1 = ""; components = $0 }
            /^Signed-By:/  { key = "[signed-by=" $2 "] " }
            /^$/           { put() }
            END            { put() }' "$file"
    done
} >"$sources"
apt=(apt-get -q -o "Dir::Etc::sourcelist=$sources" -o Dir::Etc::sourceparts=/dev/null
    -o Dir::State::lists="$work/lists" -o Dir::Cache="$work/cache" -o Debug::NoLocking=1
    -o APT::Sandbox::User="$(id -un)")
"${apt[@]}" update >"$log" 2>&1 || echo "android-libraries: apt-get update complained, see $log" >&2

build() # PACKAGE FOLDER [OPTION...]
{
    local package=$1 folder=$2 source
    shift 2
    rm -rf "${work:?}/$package"
    mkdir -p "$work/$package"
    (cd "$work/$package" && "${apt[@]}" source --download-only "$package" && dpkg-source --no-check -x ./*.dsc tree) &&
        source=$work/$package/tree/$folder &&
        cmake -G Ninja -S "$source" -B "$work/$package/build" -DCMAKE_BUILD_TYPE=Release \
            -DCMAKE_TOOLCHAIN_FILE="$ANDROID_NDK_ROOT/build/cmake/android.toolchain.cmake" \
            -DANDROID_ABI=arm64-v8a -DANDROID_PLATFORM=android-28 -DBUILD_SHARED_LIBS=OFF \
            -DCMAKE_POLICY_VERSION_MINIMUM=3.5 -DCMAKE_POSITION_INDEPENDENT_CODE=ON \
            -DCMAKE_INSTALL_PREFIX="$prefix" -DCMAKE_INSTALL_LIBDIR:STRING=lib "$@" &&
        cmake --build "$work/$package/build" && cmake --install "$work/$package/build"
}

rm -rf "$prefix"
# zlib is part of Android; libpng asks pkg-config for it.
mkdir -p "$prefix/lib/pkgconfig"
printf 'Name: zlib\nDescription: of Android\nVersion: 1.2.13\nLibs: -lz\n' >"$prefix/lib/pkgconfig/zlib.pc"
for library in "${libraries[@]}"; do
    IFS='|' read -r package folder options <<<"$library"
    echo "android-libraries: $package"
    # shellcheck disable=SC2086 # several options
    build "$package" "$folder" $options >>"$log" 2>&1 || {
        tail -n 20 "$log" >&2
        echo "android-libraries: $package cannot be built, see $log" >&2
        exit 1
    }
done
touch "$prefix/.complete"
