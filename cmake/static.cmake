# Programs that carry their libraries: for phones and boards, which have none of them or others.
#
# FASTVLM_STATIC_LIBRARIES takes lib*.a wherever pkg-config names a library; the system's own (libc,
# libm, the loader) stay shared. FASTVLM_STATIC links those, too. A C library that is linked
# statically can only open others of exactly its own version, which no phone has: what is opened at
# run time (GIF, TIFF, HEIF, libarchive, libcurl, libedit, libmicrohttpd, QNN) is left out.

if(FASTVLM_STATIC)
    set(FASTVLM_STATIC_LIBRARIES ON)
    foreach(opened GIF TIFF HEIF TAR PULL EDIT SERVE)
        set(FASTVLM_${opened} OFF)
    endforeach()
    string(APPEND CMAKE_EXE_LINKER_FLAGS
        " -static-pie -Wl,-T,${CMAKE_CURRENT_SOURCE_DIR}/cmake/no_unwind.ld,--no-eh-frame-hdr")
endif()
if(FASTVLM_STATIC_LIBRARIES)
    set(CMAKE_POSITION_INDEPENDENT_CODE ON)
    set(CMAKE_FIND_LIBRARY_SUFFIXES .a)
    list(APPEND PKG_CONFIG_ARGN --static)
endif()

# fastvlm_small(TARGET...): code that computes nothing, for size.
function(fastvlm_small)
    if(FASTVLM_STATIC_LIBRARIES)
        foreach(target IN LISTS ARGN)
            target_compile_options(${target} PRIVATE -Os)
        endforeach()
    endif()
endfunction()

# fastvlm_static_libraries(PREFIX...): of what pkg_check_modules found, the system's libraries are
# named again, for the linker to choose.
function(fastvlm_static_libraries)
    foreach(prefix IN LISTS ARGN)
        if(FASTVLM_STATIC_LIBRARIES AND TARGET PkgConfig::${prefix})
            get_target_property(libraries PkgConfig::${prefix} INTERFACE_LINK_LIBRARIES)
            list(TRANSFORM libraries REPLACE "^.*/lib(c|m|dl|rt|pthread)\\.a$" "\\1")
            set_target_properties(PkgConfig::${prefix} PROPERTIES INTERFACE_LINK_LIBRARIES "${libraries}")
        endif()
    endforeach()
endfunction()
