# Linux with glibc 2.28 or later, compiled by zig cc: it brings the C library's headers and symbols of
# old versions, so that what is built here runs on distributions from 2018 on.
#
#     ZIG         the program zig (the Python package ziglang has it)
#     ZIG_ARCH    x86_64 or aarch64
#
# tools/wheel.sh sets both. zig's commands have two words, CMake's tools one: small scripts join them.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR $ENV{ZIG_ARCH})
set(CMAKE_CROSSCOMPILING ON)

set(zig_tools ${CMAKE_CURRENT_LIST_DIR}/../build/zig-$ENV{ZIG_ARCH})
get_filename_component(zig_tools ${zig_tools} ABSOLUTE)
foreach(tool "cc -target $ENV{ZIG_ARCH}-linux-gnu.2.28" ar ranlib)
    string(REGEX MATCH "^[a-z]+" name "${tool}")
    if(NOT EXISTS ${zig_tools}/${name})
        file(WRITE ${zig_tools}/new/${name} "#!/bin/sh\nexec \"$ENV{ZIG}\" ${tool} \"$@\"\n")
        file(CHMOD ${zig_tools}/new/${name} PERMISSIONS OWNER_READ OWNER_WRITE OWNER_EXECUTE)
        file(RENAME ${zig_tools}/new/${name} ${zig_tools}/${name})
    endif()
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
