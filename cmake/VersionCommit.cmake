# Writes OUT (version_commit.h) with the checkout's short commit, only when it changed.
# Used at configure time, and at each build of a release: cmake -DSOURCE=... -DOUT=... -P this.
set(commit "unknown")
find_program(git_program git)
if(git_program AND EXISTS "${SOURCE}/.git")
    execute_process(
        COMMAND "${git_program}" -C "${SOURCE}" describe --always --abbrev=12 --exclude=* --dirty
        OUTPUT_VARIABLE described RESULT_VARIABLE rc OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
    if(rc EQUAL 0 AND described)
        set(commit "${described}")
    endif()
endif()
file(CONFIGURE OUTPUT "${OUT}" CONTENT "#define CP_COMMIT \"${commit}\"\n")
