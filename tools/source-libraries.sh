#!/usr/bin/env bash
# Builds libraries that a target does not have, from the distribution's source packages, as static ones.
# Needs apt and a network.
#
#     ANDROID_NDK_ROOT=... tools/source-libraries.sh android    into build/android-libraries
#     ZIG=... tools/source-libraries.sh linux-x86_64            into build/linux-x86_64-libraries, for
#                          linux-aarch64                        glibc 2.28 (cmake/zig-linux.cmake)
set -euo pipefail
cd "$(dirname "$0")/.."
target=${1:?android, linux-x86_64 or linux-aarch64}
prefix=$PWD/build/$target-libraries
work=$PWD/build/apt-source

# source package | folder of its CMakeLists.txt | its licence | options
libraries=(
    "libjpeg-turbo|.|LICENSE.md|-DENABLE_SHARED=OFF -DWITH_TURBOJPEG=OFF"
    "libpng1.6|.|LICENSE|-DPNG_SHARED=OFF -DPNG_TESTS=OFF"
    "libwebp|.|COPYING|-DWEBP_BUILD_ANIM_UTILS=OFF -DWEBP_BUILD_CWEBP=OFF -DWEBP_BUILD_DWEBP=OFF -DWEBP_BUILD_GIF2WEBP=OFF -DWEBP_BUILD_IMG2WEBP=OFF -DWEBP_BUILD_VWEBP=OFF -DWEBP_BUILD_WEBPINFO=OFF -DWEBP_BUILD_WEBPMUX=OFF -DWEBP_BUILD_EXTRAS=OFF"
    "utf8proc|.|LICENSE.md|"
    "jansson|.|LICENSE|-DJANSSON_BUILD_DOCS=OFF -DJANSSON_WITHOUT_TESTS=ON -DJANSSON_EXAMPLES=OFF"
    "protobuf-c|build-cmake|LICENSE|-DBUILD_PROTOC=OFF -DBUILD_TESTS=OFF"
)
case $target in
android)
    : "${ANDROID_NDK_ROOT:?names an unpacked Android NDK}"
    toolchain=("-DCMAKE_TOOLCHAIN_FILE=$ANDROID_NDK_ROOT/build/cmake/android.toolchain.cmake"
        -DANDROID_ABI=arm64-v8a -DANDROID_PLATFORM=android-28)
    ;;
linux-x86_64 | linux-aarch64)
    : "${ZIG:?names the program zig}"
    export ZIG_ARCH=${target#linux-} PKG_CONFIG_LIBDIR=$prefix/lib/pkgconfig
    toolchain=("-DCMAKE_TOOLCHAIN_FILE=$PWD/cmake/zig-linux.cmake" "-DCMAKE_PREFIX_PATH=$prefix" "-DZLIB_ROOT=$prefix")
    libraries=("zlib|.|LICENSE|-DINSTALL_PKGCONFIG_DIR=$prefix/lib/pkgconfig -DINSTALL_LIB_DIR=$prefix/lib" "${libraries[@]}")
    ;;
*) echo "source-libraries: unknown target $target" >&2; exit 2 ;;
esac

# Of libraries that are opened at run time only the headers are needed: the distribution's, which do not
# depend on the architecture.
headers()
{
    local header dir
    [ "$target" != android ] || return 0
    for header in gif_lib.h tiff.h tiffio.h tiffconf.h tiffvers.h libheif histedit.h microhttpd.h archive.h archive_entry.h curl; do
        for dir in /usr/include "/usr/include/$(cc -dumpmachine)"; do
            [ ! -e "$dir/$header" ] || ln -sfn "$dir/$header" "$prefix/include/$header"
        done
    done
    printf 'Name: libcurl\nDescription: headers only\nVersion: %s\nCflags: -I%s\n' \
        "$(env -u PKG_CONFIG_LIBDIR pkg-config --modversion libcurl)" "$prefix/include" >"$prefix/lib/pkgconfig/libcurl.pc"
}

[ ! -e "$prefix/.complete" ] || { headers; exit 0; }
command -v apt-get >/dev/null 2>&1 || {
    echo "source-libraries: needs apt (Debian or Ubuntu) for the libraries' sources" >&2
    exit 1
}
log=$work/$target.log
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
"${apt[@]}" update >"$log" 2>&1 || echo "source-libraries: apt-get update complained, see $log" >&2

# The newest version whose files are there: a mirror's list may be ahead of them.
fetch() # PACKAGE
{
    local version versions
    versions=$(apt-cache "${apt[@]:2}" showsrc --only-source "$1" | sed -n 's/^Version: //p' | sort -rVu)
    for version in $versions; do
        "${apt[@]}" source --download-only "$1=$version" && return 0
        echo "source-libraries: $1 $version cannot be fetched" >&3
        rm -f ./*
    done
    return 1
}

build() # PACKAGE FOLDER LICENCE [OPTION...]
{
    local package=$1 folder=$2 licence=$3 tree=$work/$1/tree
    local build=$work/$package/build-$target
    shift 3
    if [ ! -e "$work/$package/.unpacked" ]; then
        rm -rf "${work:?}/$package"
        mkdir -p "$work/$package"
        (cd "$work/$package" && fetch "$package" && dpkg-source --no-check -x ./*.dsc tree) ||
            return 1
        # Debian leaves out zlib's part for Windows, which its CMakeLists.txt lists everywhere; its list of
        # names, for the shared library, has some that are not there, which lld refuses.
        [ "$package" != zlib ] || { mkdir -p "$tree/win32" && touch "$tree/win32/zlib1.rc" && echo "ALL {};" >"$tree/zlib.map"; }
        touch "$work/$package/.unpacked"
    fi
    rm -rf "$build"
    cmake -G Ninja -S "$tree/$folder" -B "$build" -DCMAKE_BUILD_TYPE=Release "${toolchain[@]}" -DBUILD_SHARED_LIBS=OFF \
        -DCMAKE_POLICY_VERSION_MINIMUM=3.5 -DCMAKE_POSITION_INDEPENDENT_CODE=ON \
        -DCMAKE_INSTALL_PREFIX="$prefix" -DCMAKE_INSTALL_LIBDIR:STRING=lib "$@" &&
        cmake --build "$build" && cmake --install "$build" &&
        install -D -m 644 "$tree/$licence" "$prefix/licenses/LICENSE.$package"
}

exec 3>&2
rm -rf "$prefix"
mkdir -p "$prefix/lib/pkgconfig"
if [ "$target" = android ]; then # zlib is part of Android; libpng asks pkg-config for it
    printf 'Name: zlib\nDescription: of Android\nVersion: 1.2.13\nLibs: -lz\n' >"$prefix/lib/pkgconfig/zlib.pc"
fi
for library in "${libraries[@]}"; do
    IFS='|' read -r package folder licence options <<<"$library"
    echo "source-libraries: $package for $target"
    # shellcheck disable=SC2086 # several options
    build "$package" "$folder" "$licence" $options >>"$log" 2>&1 || {
        tail -n 20 "$log" >&2
        echo "source-libraries: $package cannot be built, see $log" >&2
        exit 1
    }
done
rm -f "$prefix"/lib/*.so*
headers
touch "$prefix/.complete"
