# C code of the ONNX messages: protoc-c on the onnx.proto that the ONNX project publishes and
# distributions install (Debian: libonnx-dev). Neither is part of this tree.

function(fastvlm_onnx_sources out)
    find_program(PROTOC_C protoc-c NO_CMAKE_FIND_ROOT_PATH)
    # Text, the same for every processor: the build machine's own copy serves a cross build.
    find_file(ONNX_PROTO onnx/onnx.proto PATHS /usr/include /usr/local/include /opt/homebrew/include
        NO_CMAKE_FIND_ROOT_PATH)
    if(NOT PROTOC_C OR NOT ONNX_PROTO)
        message(FATAL_ERROR "The ONNX export needs protoc-c (Debian: protobuf-c-compiler) and onnx/onnx.proto "
            "(libonnx-dev). tools/setup.sh build installs both; -DFASTVLM_TOOLS=OFF builds the library without exports.")
    endif()
    set(dir ${CMAKE_CURRENT_BINARY_DIR}/onnx)
    file(MAKE_DIRECTORY ${dir})
    get_filename_component(proto_dir ${ONNX_PROTO} DIRECTORY)
    add_custom_command(OUTPUT ${dir}/onnx.pb-c.c ${dir}/onnx.pb-c.h
        COMMAND ${PROTOC_C} --c_out=${dir} -I${proto_dir} ${ONNX_PROTO}
        DEPENDS ${ONNX_PROTO} COMMENT "onnx.proto -> C" VERBATIM)
    set_source_files_properties(${dir}/onnx.pb-c.c PROPERTIES COMPILE_OPTIONS "-w") # not ours
    set(${out} ${dir}/onnx.pb-c.c ${dir}/onnx.pb-c.h PARENT_SCOPE)
endfunction()
