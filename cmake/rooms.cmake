# Every room of src/ is one object library. It finds the headers of the rooms below it, as
# src/floors.txt has them, and no others: an include that points up does not compile.

# The rooms of the table, from below.
function(fastvlm_read_floors)
    set(file ${CMAKE_CURRENT_SOURCE_DIR}/src/floors.txt)
    set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${file})
    file(STRINGS ${file} lines REGEX "^[a-z]+:")
    foreach(line IN LISTS lines)
        string(REGEX REPLACE ":.*" "" room "${line}")
        string(REGEX REPLACE "^[a-z]+: *" "" below "${line}")
        string(REPLACE " " ";" below "${below}")
        set(FASTVLM_BELOW_${room} "${below}" PARENT_SCOPE)
    endforeach()
endfunction()

# A folder of links to src/ROOM and to the rooms below it.
function(fastvlm_view_of_room room out)
    set(view ${CMAKE_CURRENT_BINARY_DIR}/rooms/${room})
    file(REMOVE_RECURSE ${view})
    file(MAKE_DIRECTORY ${view})
    foreach(seen IN LISTS room FASTVLM_BELOW_${room})
        file(CREATE_LINK ${CMAKE_CURRENT_SOURCE_DIR}/src/${seen} ${view}/${seen} SYMBOLIC COPY_ON_ERROR)
    endforeach()
    set(${out} ${view} PARENT_SCOPE)
endfunction()

# fastvlm_room(ROOM [MORE_SOURCES...]): the target fastvlm_ROOM. Files are collected by folder: a new one
# needs no line here.
function(fastvlm_room room)
    file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/src/${room}/*.c)
    fastvlm_view_of_room(${room} view)
    add_library(fastvlm_${room} OBJECT ${sources} ${ARGN})
    target_include_directories(fastvlm_${room} PRIVATE ${view} ${CMAKE_CURRENT_SOURCE_DIR}/include)
    target_link_libraries(fastvlm_${room} PRIVATE fastvlm_flags)
    if(NOT FASTVLM_KERNELS_ONLY)
        target_link_libraries(fastvlm_${room} PRIVATE PkgConfig::FASTVLM_DEPS)
    endif()
    set_target_properties(fastvlm_${room} PROPERTIES POSITION_INDEPENDENT_CODE ON C_VISIBILITY_PRESET hidden)
endfunction()
