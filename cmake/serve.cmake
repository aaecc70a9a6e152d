# fastvlm serve: the room src/serve as a library of the program. libmicrohttpd is opened when a server
# starts, so the build needs its header only.
set(serve_found OFF)
if(FASTVLM_SERVE)
    find_path(FASTVLM_SERVE_INCLUDE microhttpd.h)
    mark_as_advanced(FASTVLM_SERVE_INCLUDE)
    if(FASTVLM_SERVE_INCLUDE)
        file(STRINGS ${FASTVLM_SERVE_INCLUDE}/microhttpd.h lines REGEX "enum MHD_Result" LIMIT_COUNT 1)
        if(lines)
            set(serve_found ON)
        endif()
    endif()
    if(NOT serve_found AND FASTVLM_SERVE STREQUAL "AUTO")
        message(STATUS "fastvlm serve is left out: no microhttpd.h, or older than 0.9.71 (Debian: libmicrohttpd-dev)")
    elseif(NOT serve_found)
        message(FATAL_ERROR "FASTVLM_SERVE is ON, and microhttpd.h is missing or older than 0.9.71 "
            "(Debian: apt install libmicrohttpd-dev)")
    endif()
endif()

enable_language(ASM) # files that the server gives away, as bytes
set(openapi ${CMAKE_CURRENT_SOURCE_DIR}/src/serve/openapi.S)
set_source_files_properties(${openapi} PROPERTIES OBJECT_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/docs/openapi.json
    COMPILE_DEFINITIONS "FASTVLM_OPENAPI_FILE=\"${CMAKE_CURRENT_SOURCE_DIR}/docs/openapi.json\""
    COMPILE_OPTIONS "-fno-sanitize=all")
set(page ${CMAKE_CURRENT_SOURCE_DIR}/src/serve/page)
set_source_files_properties(${page}.S PROPERTIES OBJECT_DEPENDS "${page}.html;${page}.css;${page}.js"
    COMPILE_DEFINITIONS "FASTVLM_PAGE_HTML=\"${page}.html\";FASTVLM_PAGE_CSS=\"${page}.css\";FASTVLM_PAGE_JS=\"${page}.js\""
    COMPILE_OPTIONS "-fno-sanitize=all")
fastvlm_room(grammar)
fastvlm_small(fastvlm_grammar)
fastvlm_room(serve ${openapi} ${page}.S)
fastvlm_small(fastvlm_serve)
if(serve_found)
    target_compile_definitions(fastvlm_serve PRIVATE FASTVLM_SERVE=1)
    target_include_directories(fastvlm_serve SYSTEM PRIVATE ${FASTVLM_SERVE_INCLUDE})
endif()
add_library(fastvlm_serve_static STATIC $<TARGET_OBJECTS:fastvlm_serve> $<TARGET_OBJECTS:fastvlm_grammar>)
target_link_libraries(fastvlm_serve_static PUBLIC fastvlm_tools_static)
