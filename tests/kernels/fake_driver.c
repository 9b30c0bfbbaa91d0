/*
 * fake_driver: see fake_driver.h.
 */
#include "tests/kernels/fake_driver.h"

#include "kernels/kernels.h"

#include <dlfcn.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

fake_driver fake_driver_find(void)
{
    fake_driver fake;
    void *library = dlopen(getenv("CAPSTAN_LIBCUDA"), RTLD_NOW | RTLD_LOCAL);
    if (!library)
        fail_msg("%s", dlerror());
#define FIND(member)                                                                               \
    assert_non_null(fake.member =                                                                  \
                        (__typeof__(fake.member))(uintptr_t)dlsym(library, "fake_" #member))
    FIND(reset);
    FIND(calls);
    FIND(count);
    FIND(leaks);
    FIND(fault);
    FIND(hold);
#undef FIND
    return fake;
}

bool fake_driver_there(void)
{
    const char *const *name = cp_backend_names();
    while (*name && strcmp(*name, "cuda") != 0)
        name++;
    if (*name && getenv("CAPSTAN_LIBCUDA"))
        return true;
    printf("skipped: %s\n",
           *name ? "CAPSTAN_LIBCUDA names no driver without a GPU" : "cuda is not built");
    return false;
}

void fake_driver_begin(const fake_driver *fake, const char *setting)
{
    static const char *const names[] = {"FAKE_FAIL", "FAKE_MEMORY", "FAKE_MODE", "FAKE_SEED"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        unsetenv(names[i]);
    if (*setting) {
        char text[96];
        snprintf(text, sizeof(text), "%s", setting);
        char *value = strchr(text, '=');
        *value++ = 0;
        setenv(text, value, 1);
    }
    fake->reset();
}

void fake_driver_is_clean(const fake_driver *fake, const char *when)
{
    if (fake->leaks() || fake->count("memory") || fake->count("pinned") || fake->count("faults"))
        fail_msg("%s: %d things not given back, %s", when, (int)fake->leaks(), fake->fault());
}
