# Every tests/<room>/test_*.c is one cmocka program; a new file needs no line here.
#
#     tests/unit  ops  golden  api  npu    test_*.c -> program and ctest case of that name
#     tests/full                            built, but run by tools/test-full.sh only: needs 1.5 GB
#     tests/support/*.c                     helpers linked into all of them
#     tests/kernels/*.c                     one program, run once for every instruction level
#     tests/cli/test_*.sh                   scripts; FASTVLM names the program
#     tests/serve/test_*.c, test_*.sh       the server from within and from outside
#     tests/python/test_*.py                the Python package, by Python's unittest
#     tests/standins/                       what the scripts have instead of a phone or a service
#     examples/*.c                          built against include/ alone
#     fuzz/fuzz_<name>.c                    replays fuzz/corpus/<name>/*

set(root ${CMAKE_CURRENT_SOURCE_DIR})
set(fastvlm_all fastvlm_static fastvlm_flags)
if(TARGET fastvlm_tools_static)
    set(fastvlm_all fastvlm_tools_static fastvlm_flags)
endif()
if(TARGET fastvlm_serve_static)
    list(PREPEND fastvlm_all fastvlm_serve_static)
endif()

# ---- kernels at every level ------------------------------------------------------

file(GLOB check_sources CONFIGURE_DEPENDS ${root}/tests/kernels/*.c)
if(check_sources)
    add_executable(checkkernels ${check_sources})
    if(NOT FASTVLM_TESTS)
        set_target_properties(checkkernels PROPERTIES EXCLUDE_FROM_ALL ON) # for --bench
    endif()
    # AMX's kernels on a model of its tiles: what they need besides
    if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$")
        set_source_files_properties(${root}/tests/kernels/amx_model.c ${root}/tests/kernels/attn_amx_model.c
            ${root}/tests/kernels/gemm_amx_model.c ${root}/tests/kernels/gemm_u8_amx_model.c ${root}/tests/kernels/quant_amx_model.c
            PROPERTIES COMPILE_OPTIONS "${FASTVLM_X86_avx512};-mprfchw;$<$<NOT:$<CONFIG:Debug>>:-O3>")
    endif()
    target_include_directories(checkkernels PRIVATE ${root}/src ${root}/tests)
    target_compile_definitions(checkkernels PRIVATE FV_SOURCE_DIR="${root}")
    target_link_libraries(checkkernels PRIVATE fastvlm_static fastvlm_flags)
    if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$")
        set(levels avx2 avxvnni avx512 avx512vnni avx512bf16 amx amx-model)
    elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "^(aarch64|arm64|ARM64)$")
        set(levels neon dotprod fp16 bf16 i8mm)
    else()
        set(levels "")
    endif()
    if(NOT FASTVLM_TESTS)
        set(levels "")
    endif()
    set(quick "")
    if(CMAKE_CROSSCOMPILING AND NOT FASTVLM_KERNELS_ONLY)
        set(quick --quick) # emulated; the kernels-only build checks every case
    endif()
    foreach(level IN LISTS levels)
        add_test(NAME kernels.${level} COMMAND checkkernels ${quick} --level ${level})
        set_tests_properties(kernels.${level} PROPERTIES LABELS kernels TIMEOUT 1200
            SKIP_REGULAR_EXPRESSION "  ${level} +skipped: (this machine|no kernel of its own)")
    endforeach()
endif()
if(FASTVLM_KERNELS_ONLY)
    return()
endif()

# ---- cmocka programs -------------------------------------------------------------

file(GLOB support_sources CONFIGURE_DEPENDS ${root}/tests/support/*.c)
if(support_sources AND FASTVLM_TESTS)
    add_library(test_support OBJECT ${support_sources})
    target_include_directories(test_support PRIVATE ${root}/src ${root}/tests ${root}/include)
    target_compile_definitions(test_support PRIVATE FV_SOURCE_DIR="${root}")
    target_link_libraries(test_support PRIVATE fastvlm_flags PkgConfig::CMOCKA PkgConfig::JANSSON
        PkgConfig::FASTVLM_DEPS)
endif()

# A stand-in for Qualcomm's libraries, under their names in a directory of its own.
if(FASTVLM_TESTS AND TARGET fastvlm_npu)
    set(fake_qnn ${CMAKE_CURRENT_BINARY_DIR}/fake_qnn)
    foreach(name QnnHtp QnnCpu QnnSystem)
        add_library(fake_${name} MODULE ${root}/tests/npu/fake_qnn.c)
        set_target_properties(fake_${name} PROPERTIES OUTPUT_NAME ${name} C_VISIBILITY_PRESET hidden
            LIBRARY_OUTPUT_DIRECTORY ${fake_qnn})
        target_include_directories(fake_${name} PRIVATE ${root}/src)
        target_link_libraries(fake_${name} PRIVATE fastvlm_flags ${CMAKE_DL_LIBS} m)
    endforeach()
    foreach(name atomic c++) # libneeds-X.so needs libX-absent.so, which is not beside it
        add_library(fake_absent_${name} SHARED ${root}/tests/npu/fake_absent.c)
        set_target_properties(fake_absent_${name} PROPERTIES OUTPUT_NAME ${name}-absent
            LIBRARY_OUTPUT_DIRECTORY ${fake_qnn}/absent)
        add_library(fake_needs_${name} MODULE ${root}/tests/npu/fake_absent.c)
        target_compile_definitions(fake_needs_${name} PRIVATE FAKE_NEEDS)
        target_link_libraries(fake_needs_${name} PRIVATE fake_absent_${name})
        set_target_properties(fake_needs_${name} PROPERTIES OUTPUT_NAME needs-${name}
            LIBRARY_OUTPUT_DIRECTORY ${fake_qnn} BUILD_WITH_INSTALL_RPATH ON)
    endforeach()
endif()

foreach(room unit ops golden api npu serve full)
    if(NOT FASTVLM_TESTS)
        break()
    endif()
    file(GLOB test_sources CONFIGURE_DEPENDS ${root}/tests/${room}/test_*.c)
    foreach(source IN LISTS test_sources)
        get_filename_component(name ${source} NAME_WE)
        add_executable(${name} ${source})
        if(support_sources)
            target_sources(${name} PRIVATE $<TARGET_OBJECTS:test_support>)
        endif()
        target_include_directories(${name} PRIVATE ${root}/src ${root}/tests ${CMAKE_CURRENT_BINARY_DIR}/onnx)
        target_compile_definitions(${name} PRIVATE FV_SOURCE_DIR="${root}")
        target_link_libraries(${name} PRIVATE ${fastvlm_all} PkgConfig::CMOCKA PkgConfig::JANSSON)
        if(room STREQUAL "npu")
            target_compile_definitions(${name} PRIVATE FV_FAKE_QNN="${fake_qnn}")
            add_dependencies(${name} fake_QnnHtp fake_QnnCpu fake_QnnSystem fake_needs_atomic fake_needs_c++)
        endif()
        if(room STREQUAL "full")
            continue() # run by tools/test-full.sh
        endif()
        add_test(NAME ${room}.${name} COMMAND ${name} WORKING_DIRECTORY ${root})
        set(labels ${room})
        if(name MATCHES "pool|thread|concurrent|together|decoder_step|scheduler")
            list(APPEND labels threads) # also run under the thread sanitizer
        endif()
        set_tests_properties(${room}.${name} PROPERTIES LABELS "${labels}" TIMEOUT 1200)
        if(CMAKE_CROSSCOMPILING_EMULATOR) # for programs that start themselves
            string(REPLACE ";" " " emulator "${CMAKE_CROSSCOMPILING_EMULATOR}")
            set_tests_properties(${room}.${name} PROPERTIES ENVIRONMENT "FV_TEST_EMULATOR=${emulator}")
        endif()
        if(name STREQUAL "test_pool") # how threads share is judged with nothing beside
            set_tests_properties(${room}.${name} PROPERTIES RUN_SERIAL ON)
        endif()
    endforeach()
endforeach()

# ---- the program, from outside ---------------------------------------------------

# What the stand-in of genie-t2t-run decodes with.
if(TARGET fastvlm_tools_static AND FASTVLM_TESTS)
    add_executable(standin_decode_rows ${root}/tests/standins/decode_rows.c)
    target_include_directories(standin_decode_rows PRIVATE ${root}/src)
    target_link_libraries(standin_decode_rows PRIVATE fastvlm_static fastvlm_flags)
endif()

if(TARGET fastvlm AND FASTVLM_TESTS)
    add_library(exec_aarch64 MODULE ${root}/tests/standins/exec_aarch64.c)
    target_compile_definitions(exec_aarch64 PRIVATE _GNU_SOURCE=) # no sanitizer: it is preloaded
    target_link_libraries(exec_aarch64 PRIVATE ${CMAKE_DL_LIBS})
    # What the program takes for llguidance, without Rust.
    add_library(fake_llguidance MODULE ${root}/tests/standins/fake_llguidance.c)
    set_target_properties(fake_llguidance PROPERTIES C_VISIBILITY_PRESET hidden)
    target_include_directories(fake_llguidance PRIVATE ${root}/src)
    target_link_libraries(fake_llguidance PRIVATE fastvlm_flags)
    file(GLOB scripts CONFIGURE_DEPENDS ${root}/tests/cli/test_*.sh)
    foreach(script IN LISTS scripts)
        get_filename_component(name ${script} NAME_WE)
        add_test(NAME cli.${name} COMMAND bash ${script} WORKING_DIRECTORY ${root})
        set_tests_properties(cli.${name} PROPERTIES LABELS cli TIMEOUT 1200 SKIP_RETURN_CODE 77
            ENVIRONMENT "FASTVLM=$<TARGET_FILE:fastvlm>;FV_FAKE_QNN=${CMAKE_CURRENT_BINARY_DIR}/fake_qnn;FV_DECODE_ROWS=$<TARGET_FILE:standin_decode_rows>;FV_EXEC_AARCH64=$<TARGET_FILE:exec_aarch64>;FV_FAKE_LLGUIDANCE=$<TARGET_FILE:fake_llguidance>")
    endforeach()
endif()

# Built by tools/test-schema.sh, which has the real llguidance.
if(TARGET fastvlm)
    add_executable(schema_answers EXCLUDE_FROM_ALL ${root}/tests/grammar/schema_answers.c)
    target_include_directories(schema_answers PRIVATE ${root}/src)
    target_link_libraries(schema_answers PRIVATE fastvlm_serve_static fastvlm_static fastvlm_flags)
endif()

# The server. test_threads.sh is the thread sanitizer's, too.
if(TARGET fastvlm AND FASTVLM_TESTS)
    file(GLOB scripts CONFIGURE_DEPENDS ${root}/tests/serve/test_*.sh)
    foreach(script IN LISTS scripts)
        get_filename_component(name ${script} NAME_WE)
        add_test(NAME serve.${name} COMMAND bash ${script} WORKING_DIRECTORY ${root})
        set(labels serve)
        if(name STREQUAL "test_threads")
            list(APPEND labels threads)
        endif()
        set_tests_properties(serve.${name} PROPERTIES LABELS "${labels}" TIMEOUT 1200 SKIP_RETURN_CODE 77
            ENVIRONMENT "FASTVLM=$<TARGET_FILE:fastvlm>;FV_FAKE_LLGUIDANCE=$<TARGET_FILE:fake_llguidance>")
    endforeach()
endif()

# ---- examples --------------------------------------------------------------------

if(FASTVLM_TESTS)
    set(tiny ${root}/tests/data/tiny)
    file(GLOB example_sources CONFIGURE_DEPENDS ${root}/examples/*.c)
    foreach(source IN LISTS example_sources)
        get_filename_component(name ${source} NAME_WE)
        add_executable(example_${name} ${source})
        target_link_libraries(example_${name} PRIVATE fastvlm_shared fastvlm_flags)
        add_test(NAME examples.${name} COMMAND example_${name} ${tiny}/checkpoint ${tiny}/image.png "What do you see?")
        set_tests_properties(examples.${name} PROPERTIES LABELS api TIMEOUT 600)
    endforeach()
    # An installed copy, used from outside; sanitizers and emulators would get in the way.
    if(NOT FASTVLM_SANITIZE AND NOT CMAKE_CROSSCOMPILING)
        add_test(NAME install.subdirectory COMMAND bash ${root}/tests/install/test_subdirectory.sh
            ${CMAKE_CURRENT_BINARY_DIR})
        set_tests_properties(install.subdirectory PROPERTIES LABELS install TIMEOUT 600)
        add_test(NAME install.examples COMMAND bash ${root}/tests/install/test_install.sh ${CMAKE_CURRENT_BINARY_DIR})
        set_tests_properties(install.examples PROPERTIES LABELS install TIMEOUT 600)
        add_test(NAME install.ndk COMMAND bash ${root}/tests/install/test_ndk.sh)
        set_tests_properties(install.ndk PROPERTIES LABELS install TIMEOUT 60)
    endif()
endif()

# ---- the Python package ----------------------------------------------------------

# Python's own unittest and the shared library that was just built; tools/test-python.sh tests wheels.
find_program(FASTVLM_PYTHON3 python3)
mark_as_advanced(FASTVLM_PYTHON3)
if(FASTVLM_TESTS AND FASTVLM_PYTHON3 AND NOT CMAKE_CROSSCOMPILING)
    set(python_tests layout)
    if(NOT FASTVLM_SANITIZE) # Python itself has no sanitizer
        list(APPEND python_tests package)
    endif()
    foreach(name IN LISTS python_tests)
        add_test(NAME python.${name} COMMAND ${FASTVLM_PYTHON3} -B ${root}/tests/python/run.py test_${name}.py)
        set_tests_properties(python.${name} PROPERTIES LABELS python TIMEOUT 600 ENVIRONMENT
            "FASTVLM_LIBRARY=$<TARGET_FILE:fastvlm_shared>;PYTHONPATH=${root}/bindings/python/src")
    endforeach()
endif()

# ---- fuzzing ---------------------------------------------------------------------

file(GLOB fuzz_sources CONFIGURE_DEPENDS ${root}/fuzz/fuzz_*.c)
foreach(source IN LISTS fuzz_sources)
    get_filename_component(name ${source} NAME_WE)
    string(REGEX REPLACE "^fuzz_" "" surface ${name})
    if(name STREQUAL "fuzz_request" AND NOT serve_found)
        continue() # no server, whose requests it makes
    endif()
    if(FASTVLM_FUZZ)
        add_executable(${name} ${source})
        target_link_options(${name} PRIVATE -fsanitize=fuzzer)
        target_include_directories(${name} PRIVATE ${root}/src ${root}/tests)
        target_link_libraries(${name} PRIVATE ${fastvlm_all})
    endif()
    if(FASTVLM_TESTS)
        add_executable(replay_${surface} ${source} ${root}/fuzz/replay_main.c)
        target_include_directories(replay_${surface} PRIVATE ${root}/src ${root}/tests)
        target_link_libraries(replay_${surface} PRIVATE ${fastvlm_all})
        add_test(NAME fuzz.${surface} COMMAND replay_${surface} ${root}/fuzz/corpus/${surface}
            WORKING_DIRECTORY ${root})
        set_tests_properties(fuzz.${surface} PROPERTIES LABELS fuzz TIMEOUT 600)
    endif()
endforeach()
