# Linux with glibc 2.28 or later, compiled by zig cc: it brings the C library's headers and symbols of
# old versions, so that what is built here runs on distributions from 2018 on.
#
#     ZIG         the program zig (the Python package ziglang has it)
#     ZIG_ARCH    x86_64 or aarch64
#
# tools/wheel.sh sets both. zig's commands have two words, CMake's tools one: small scripts join them.
# For Arm zig takes LLVM's names of features in -mcpu, not gcc's in -march.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR $ENV{ZIG_ARCH})
set(CMAKE_CROSSCOMPILING ON)

set(zig_tools ${CMAKE_CURRENT_LIST_DIR}/../build/zig-$ENV{ZIG_ARCH})
get_filename_component(zig_tools ${zig_tools} ABSOLUTE)
file(WRITE ${zig_tools}/new/cc "#!/bin/bash
arguments=()
for argument in \"$@\"; do
    case $argument in
    -march=armv8-a) continue ;;
    -march=armv8.2-a+*)
        features=\${argument#-march=armv8.2-a}
        argument=-mcpu=generic+v8_2a\${features/+fp16+/+fullfp16+} ;;
    esac
    arguments+=(\"$argument\")
done
exec '$ENV{ZIG}' cc -target $ENV{ZIG_ARCH}-linux-gnu.2.28 \"\${arguments[@]}\"
")
foreach(tool ar ranlib)
    file(WRITE ${zig_tools}/new/${tool} "#!/bin/bash\nexec '$ENV{ZIG}' ${tool} \"$@\"\n")
endforeach()
foreach(tool cc ar ranlib)
    file(CHMOD ${zig_tools}/new/${tool} PERMISSIONS OWNER_READ OWNER_WRITE OWNER_EXECUTE)
    file(RENAME ${zig_tools}/new/${tool} ${zig_tools}/${tool})
endforeach()
set(CMAKE_C_COMPILER ${zig_tools}/cc)
set(CMAKE_ASM_COMPILER ${zig_tools}/cc)
set(CMAKE_AR ${zig_tools}/ar CACHE FILEPATH "")
set(CMAKE_RANLIB ${zig_tools}/ranlib CACHE FILEPATH "")

# Nothing of this machine but the headers of libraries that are opened at run time.
set(libraries ${CMAKE_CURRENT_LIST_DIR}/../build/linux-$ENV{ZIG_ARCH}-libraries)
get_filename_component(libraries ${libraries} ABSOLUTE)
set(CMAKE_FIND_ROOT_PATH ${libraries})
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
