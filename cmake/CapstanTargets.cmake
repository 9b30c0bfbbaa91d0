# cp_module(), cp_test(), cp_fuzz(): how a room declares its library, its tests and its fuzz targets.

# Imported targets of pkg-config packages: cp_external(OUT libjansson zstd ...).
function(cp_external out)
    set(targets "")
    foreach(package IN LISTS ARGN)
        string(MAKE_C_IDENTIFIER "CP_PKG_${package}" var)
        if(NOT TARGET PkgConfig::${var})
            pkg_check_modules(${var} REQUIRED QUIET IMPORTED_TARGET GLOBAL ${package})
        endif()
        list(APPEND targets PkgConfig::${var})
    endforeach()
    set(${out} "${targets}" PARENT_SCOPE)
endfunction()

# Library targets of rooms: "base" is cp_base, "kv-cache" is cp_kv_cache; other names pass through.
function(cp_rooms out)
    set(targets "")
    foreach(dep IN LISTS ARGN)
        string(REPLACE "-" "_" name "${dep}")
        if(name MATCHES "^(cp_|PkgConfig::|Threads::|m$|dl$|-)")
            list(APPEND targets "${dep}")
        else()
            list(APPEND targets "cp_${name}")
        endif()
    endforeach()
    set(${out} "${targets}" PARENT_SCOPE)
endfunction()

# cp_module(NAME SOURCES a.c ... [DEPS base ...] [EXTERNAL pkg-config names])
# A static library cp_NAME. DEPS are rooms of lower layers, EXTERNAL libraries stay private to it.
function(cp_module name)
    cmake_parse_arguments(ARG "" "" "SOURCES;DEPS;EXTERNAL" ${ARGN})
    string(REPLACE "-" "_" id "${name}")
    add_library(cp_${id} STATIC ${ARG_SOURCES})
    cp_rooms(deps ${ARG_DEPS})
    cp_external(external ${ARG_EXTERNAL})
    target_link_libraries(cp_${id} PUBLIC ${deps} PRIVATE ${external})
endfunction()

# cp_test(NAME SOURCES ... [DEPS rooms] [EXTERNAL pkg-config names] [LABELS unit] [ARGS ...]
#         [TIMEOUT seconds])
# A cmocka binary test_NAME and one ctest of the same name, run in the repository root.
function(cp_test name)
    cmake_parse_arguments(ARG "" "TIMEOUT" "SOURCES;DEPS;EXTERNAL;LABELS;ARGS" ${ARGN})
    string(REGEX REPLACE "^test_" "" id "${name}")
    string(REPLACE "-" "_" id "${id}")
    add_executable(test_${id} ${ARG_SOURCES} "${PROJECT_SOURCE_DIR}/tests/support/filter.c")
    cp_rooms(deps ${ARG_DEPS})
    cp_external(external cmocka ${ARG_EXTERNAL})
    target_link_libraries(test_${id} PRIVATE ${deps} ${external} m)
    target_compile_definitions(test_${id} PRIVATE
        CP_SOURCE_DIR="${PROJECT_SOURCE_DIR}" CP_BINARY_DIR="${PROJECT_BINARY_DIR}")
    if(NOT ARG_LABELS)
        set(ARG_LABELS unit)
    endif()
    if(NOT ARG_TIMEOUT)
        set(ARG_TIMEOUT 300)
    endif()
    if(CAPSTAN_SANITIZE)
        math(EXPR ARG_TIMEOUT "${ARG_TIMEOUT} * 6") # a shared machine and a slow build
    endif()
    if("unit" IN_LIST ARG_LABELS OR "sim" IN_LIST ARG_LABELS OR "fibers" IN_LIST ARG_LABELS)
        set_property(GLOBAL APPEND PROPERTY CP_SANITIZED test_${id})
    endif()
    add_test(NAME test_${id} COMMAND test_${id} ${ARG_ARGS}
        WORKING_DIRECTORY "${PROJECT_SOURCE_DIR}")
    set_tests_properties(test_${id} PROPERTIES LABELS "${ARG_LABELS}" TIMEOUT ${ARG_TIMEOUT})
endfunction()

# cp_on_fake_driver(TEST): that ctest's cuda devices are those of tests/fakes/libcuda. Exit code 77: skipped. It leaves what it
# executed of the kernels in cuda/coverage, for tests/cuda/coverage.py.
function(cp_on_fake_driver test)
    if(TARGET ${test})
        add_dependencies(${test} fake_cuda fake_cublas)
    endif()
    set_property(TEST ${test} APPEND PROPERTY ENVIRONMENT
        "CAPSTAN_LIBCUDA=$<TARGET_FILE:fake_cuda>" "CAPSTAN_LIBCUBLAS=$<TARGET_FILE:fake_cublas>"
        "CAPSTAN_SANDBOX=off") # the driver writes what it saw when its process ends; e2e_sandbox has it within a sandbox
    set_property(TEST ${test} PROPERTY SKIP_RETURN_CODE 77)
    set_property(TEST ${test} APPEND PROPERTY ENVIRONMENT "FAKE_COVERAGE=${PROJECT_BINARY_DIR}/cuda/coverage/${test}")
    set_property(TEST ${test} APPEND PROPERTY FIXTURES_REQUIRED cuda_coverage)
    set_property(GLOBAL APPEND PROPERTY CP_ON_FAKE_DRIVER ${test})
endfunction()

# cp_fuzz(NAME SOURCES fuzz_x.c [DEPS rooms] [EXTERNAL pkg-config names])
# Preset fuzz: a libFuzzer binary fuzz_NAME. Elsewhere: the same entry point replays
# tests/fuzz/corpus/NAME once (label fuzz-smoke).
function(cp_fuzz name)
    cmake_parse_arguments(ARG "" "" "SOURCES;DEPS;EXTERNAL" ${ARGN})
    string(REGEX REPLACE "^fuzz_" "" id "${name}")
    set(corpus "${PROJECT_SOURCE_DIR}/tests/fuzz/corpus/${id}")
    add_executable(fuzz_${id} ${ARG_SOURCES})
    cp_rooms(deps ${ARG_DEPS})
    cp_external(external ${ARG_EXTERNAL})
    target_link_libraries(fuzz_${id} PRIVATE ${deps} ${external} m)
    target_compile_definitions(fuzz_${id} PRIVATE CP_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
    if(CAPSTAN_FUZZ)
        target_link_options(fuzz_${id} PRIVATE -fsanitize=fuzzer)
        add_test(NAME fuzz_${id} COMMAND fuzz_${id} -runs=0 "${corpus}")
    else()
        target_sources(fuzz_${id} PRIVATE "${PROJECT_SOURCE_DIR}/tests/fuzz/replay.c")
        add_test(NAME fuzz_${id} COMMAND fuzz_${id} "${corpus}")
    endif()
    set_tests_properties(fuzz_${id} PROPERTIES LABELS fuzz-smoke TIMEOUT 300
        WORKING_DIRECTORY "${PROJECT_SOURCE_DIR}")
endfunction()
