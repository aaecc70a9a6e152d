# Program, libraries, headers, pkg-config file, CMake package, man page, shell completions.
include(CMakePackageConfigHelpers)

string(REPLACE ";" " " FASTVLM_REQUIRES_LINE "${FASTVLM_REQUIRES}")
string(REPLACE ";" " " FASTVLM_TOOLS_REQUIRES_LINE "${FASTVLM_TOOLS_REQUIRES}")
set(CMAKE_DL_LIBS_FLAG "")
if(CMAKE_DL_LIBS)
    set(CMAKE_DL_LIBS_FLAG "-l${CMAKE_DL_LIBS}")
endif()
set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/fastvlm)

set(shared fastvlm_shared)
set(static fastvlm_static)
set(pc_files fastvlm)
if(TARGET fastvlm_tools_shared)
    list(APPEND shared fastvlm_tools_shared)
    list(APPEND static fastvlm_tools_static)
    list(APPEND pc_files fastvlm_tools)
endif()
install(TARGETS ${shared} EXPORT fastvlm-shared
    LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(TARGETS ${static} EXPORT fastvlm-static
    ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(DIRECTORY include/ DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} FILES_MATCHING PATTERN "*.h")
foreach(kind shared static)
    install(EXPORT fastvlm-${kind} NAMESPACE fastvlm:: FILE fastvlm-${kind}.cmake DESTINATION ${package_dir})
endforeach()

# The prefix may be chosen at install time (cmake --install --prefix), so the files that name it are
# written then.
foreach(name IN LISTS pc_files)
    install(CODE "
        set(PROJECT_DESCRIPTION \"${PROJECT_DESCRIPTION}\")
        set(PROJECT_VERSION \"${PROJECT_VERSION}\")
        set(CMAKE_INSTALL_LIBDIR \"${CMAKE_INSTALL_LIBDIR}\")
        set(CMAKE_INSTALL_INCLUDEDIR \"${CMAKE_INSTALL_INCLUDEDIR}\")
        set(FASTVLM_REQUIRES_LINE \"${FASTVLM_REQUIRES_LINE}\")
        set(FASTVLM_TOOLS_REQUIRES_LINE \"${FASTVLM_TOOLS_REQUIRES_LINE}\")
        set(CMAKE_DL_LIBS_FLAG \"${CMAKE_DL_LIBS_FLAG}\")
        configure_file(\"${CMAKE_CURRENT_SOURCE_DIR}/cmake/${name}.pc.in\" \"${CMAKE_CURRENT_BINARY_DIR}/${name}.pc\" @ONLY)")
    install(FILES ${CMAKE_CURRENT_BINARY_DIR}/${name}.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
endforeach()

configure_file(cmake/fastvlm-config.cmake.in fastvlm-config.cmake @ONLY)
write_basic_package_version_file(fastvlm-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/fastvlm-config.cmake
    ${CMAKE_CURRENT_BINARY_DIR}/fastvlm-config-version.cmake DESTINATION ${package_dir})

if(TARGET fastvlm)
    install(TARGETS fastvlm RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
    install(FILES ${CMAKE_CURRENT_BINARY_DIR}/libfastvlm_grammar.so OPTIONAL
        DESTINATION ${CMAKE_INSTALL_LIBEXECDIR}/fastvlm) # tools/llguidance.sh puts it there
    install(FILES cli/completion/fastvlm.bash DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions
        RENAME fastvlm)
    install(FILES cli/completion/_fastvlm DESTINATION ${CMAKE_INSTALL_DATADIR}/zsh/site-functions)
    install(FILES cli/completion/fastvlm.fish DESTINATION ${CMAKE_INSTALL_DATADIR}/fish/vendor_completions.d)
    if(NOT CMAKE_CROSSCOMPILING) # the man page is written by running the program
        set(man ${CMAKE_CURRENT_BINARY_DIR}/fastvlm.1)
        add_custom_command(OUTPUT ${man}
            COMMAND bash ${CMAKE_CURRENT_SOURCE_DIR}/tools/man.sh $<TARGET_FILE:fastvlm> > ${man}.new
            COMMAND ${CMAKE_COMMAND} -E rename ${man}.new ${man}
            DEPENDS fastvlm ${CMAKE_CURRENT_SOURCE_DIR}/tools/man.sh VERBATIM)
        add_custom_target(fastvlm_man ALL DEPENDS ${man})
        install(FILES ${man} DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)
    endif()
endif()
