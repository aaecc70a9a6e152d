# Cross build for 64-bit Arm Linux with Debian's compiler; programs run under qemu-aarch64.
# FASTVLM_SYSROOT: a folder with Debian's arm64 libraries (tools/sysroot-arm64.sh makes one).
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_CROSSCOMPILING_EMULATOR qemu-aarch64 -cpu $ENV{FV_QEMU_CPU} -L /usr/aarch64-linux-gnu)
if("$ENV{FV_QEMU_CPU}" STREQUAL "")
    set(CMAKE_CROSSCOMPILING_EMULATOR qemu-aarch64 -L /usr/aarch64-linux-gnu)
endif()
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
