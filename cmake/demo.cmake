# The demonstration model as bytes inside the program; the library does not contain it.
enable_language(ASM)

function(fastvlm_demo_model program file)
    if(NOT EXISTS ${file})
        message(FATAL_ERROR "${file} does not exist: make demo-model packs it from the checkpoint beside it; "
            "-DFASTVLM_DEMO_MODEL=OFF builds a program without it")
    endif()
    set(source ${CMAKE_CURRENT_SOURCE_DIR}/cli/demo_model.S)
    target_sources(${program} PRIVATE ${source})
    target_compile_definitions(${program} PRIVATE FASTVLM_DEMO_MODEL=1)
    set_source_files_properties(${source} PROPERTIES OBJECT_DEPENDS ${file}
        COMPILE_DEFINITIONS "FASTVLM_DEMO_FILE=\"${file}\"" COMPILE_OPTIONS "-fno-sanitize=all")
endfunction()
