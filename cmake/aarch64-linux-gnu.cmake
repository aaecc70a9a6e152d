# Cross build for 64-bit Arm Linux with Debian's compiler; the programs run under qemu-aarch64,
# which takes its processor from the environment (QEMU_CPU=cortex-a53).
#
# Where tools/sysroot-arm64.sh has put the distribution's Arm libraries into build/, they are used;
# without them only FASTVLM_KERNELS_ONLY builds.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)

get_filename_component(sysroot ${CMAKE_CURRENT_LIST_DIR}/../build/sysroot-arm64 ABSOLUTE)
if(EXISTS ${sysroot}/.complete)
    set(CMAKE_SYSROOT ${sysroot})
    set(CMAKE_CROSSCOMPILING_EMULATOR qemu-aarch64 -L ${sysroot})
    set(ENV{PKG_CONFIG_LIBDIR} ${sysroot}/usr/lib/aarch64-linux-gnu/pkgconfig:${sysroot}/usr/share/pkgconfig)
    set(ENV{PKG_CONFIG_SYSROOT_DIR} ${sysroot})
else()
    set(CMAKE_CROSSCOMPILING_EMULATOR qemu-aarch64 -L /usr/aarch64-linux-gnu)
endif()
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
