# Language level, warnings, hardening and sanitizers for every target of the tree.
option(CAPSTAN_WERROR "Treat warnings as errors" ON)
option(CAPSTAN_HARDEN "PIE, relro, now, fortify, stack protector, stack clash protection" OFF)
option(CAPSTAN_COVERAGE "Instrument for gcov" OFF)
option(CAPSTAN_FUZZ "Build fuzz targets with libFuzzer (clang)" OFF)
set(CAPSTAN_SANITIZE "" CACHE STRING "Sanitizers, e.g. address,undefined or thread")

set(CMAKE_C_STANDARD 17)
set(CMAKE_C_STANDARD_REQUIRED ON)
set(CMAKE_C_EXTENSIONS OFF)
set(CMAKE_C_VISIBILITY_PRESET hidden)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
if(NOT CMAKE_BUILD_TYPE)
    set(CMAKE_BUILD_TYPE Release CACHE STRING "Build type" FORCE)
endif()

include(CheckPIESupported)
check_pie_supported(LANGUAGES C)
set(THREADS_PREFER_PTHREAD_FLAG ON)
find_package(Threads REQUIRED)
find_package(PkgConfig REQUIRED)

add_compile_definitions(_GNU_SOURCE)
include_directories("${PROJECT_SOURCE_DIR}")
add_compile_options(
    -ffp-contract=off -fno-strict-aliasing -fno-omit-frame-pointer
    -Wall -Wextra -Wpedantic -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wundef
    -Wformat=2 -Wcast-qual -Wdouble-promotion -Wconversion)
if(CAPSTAN_WERROR)
    add_compile_options(-Werror)
endif()

if(CAPSTAN_HARDEN)
    add_compile_options(-U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=3
        -fstack-protector-strong -fstack-clash-protection)
    if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
        add_compile_options(-fcf-protection)
    endif()
    add_link_options(-Wl,-z,relro -Wl,-z,now -Wl,-z,noexecstack)
endif()

if(CAPSTAN_SANITIZE)
    add_compile_options(-fsanitize=${CAPSTAN_SANITIZE} -fno-sanitize-recover=all)
    add_link_options(-fsanitize=${CAPSTAN_SANITIZE})
endif()
if(CAPSTAN_COVERAGE)
    add_compile_options(--coverage -fprofile-update=atomic)
    add_link_options(--coverage)
endif()
if(CAPSTAN_SANITIZE OR CAPSTAN_COVERAGE)
    add_compile_definitions(CP_INSTRUMENTED) # its runtime opens files and makes system calls of its own
endif()
if(CAPSTAN_FUZZ)
    if(NOT CMAKE_C_COMPILER_ID MATCHES "Clang")
        message(FATAL_ERROR "CAPSTAN_FUZZ needs clang (libFuzzer); use the fuzz preset")
    endif()
    add_compile_options(-fsanitize=fuzzer-no-link)
endif()
