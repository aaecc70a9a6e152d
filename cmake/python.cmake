# What the wheel holds besides Python: the library, the program, the demonstration model, licences.
# A wheel has no symbolic links, so the library has one plain name.
set(parts fastvlm_shared)
target_link_options(fastvlm_shared PRIVATE -s)
install(FILES $<TARGET_FILE:fastvlm_shared> DESTINATION fastvlm/lib RENAME libfastvlm${CMAKE_SHARED_LIBRARY_SUFFIX}
    COMPONENT python)
if(TARGET fastvlm)
    list(APPEND parts fastvlm)
    target_link_options(fastvlm PRIVATE -s)
    install(PROGRAMS $<TARGET_FILE:fastvlm> DESTINATION fastvlm/bin COMPONENT python)
endif()
add_custom_target(fastvlm_python DEPENDS ${parts})
install(FILES models/demo/demo.gguf DESTINATION fastvlm/models COMPONENT python)
install(FILES LICENSE DESTINATION ${SKBUILD_METADATA_DIR}/licenses COMPONENT python)

# Image libraries that are linked in stay out of sight: a process may have others of the same name,
# Pillow's for one. Their licences want to be passed on.
if(FASTVLM_STATIC_LIBRARIES)
    set(map ${CMAKE_CURRENT_BINARY_DIR}/libfastvlm.map)
    file(WRITE ${map} "{ global: fv_*; local: *; };\n")
    target_link_options(fastvlm_shared PRIVATE -Wl,--version-script=${map})
    file(GLOB licences ${CMAKE_FIND_ROOT_PATH}/licenses/LICENSE.*)
    install(FILES ${licences} DESTINATION ${SKBUILD_METADATA_DIR}/licenses COMPONENT python)
endif()
