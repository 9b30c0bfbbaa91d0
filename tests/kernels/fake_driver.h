/*
 * fake_driver: the functions of the driver without a GPU (tests/fakes/libcuda) that tests of
 * kernels/cuda call, of the library that CAPSTAN_LIBCUDA names.
 */
#ifndef CP_TESTS_KERNELS_FAKE_DRIVER_H
#define CP_TESTS_KERNELS_FAKE_DRIVER_H

#include <stdbool.h>
#include <stdint.h>

/* As fake_reset, fake_calls, ... in libcuda_fake.h say. */
typedef struct fake_driver {
    void (*reset)(void);
    uint64_t (*calls)(const char *name);
    uint64_t (*count)(const char *name);
    uint64_t (*leaks)(void);
    const char *(*fault)(void);
    void (*hold)(bool on);
} fake_driver;

/* Fails the test where it is not there. */
fake_driver fake_driver_find(void);
/* Does this build have the backend, and does the environment name a driver? If not it is said. */
bool fake_driver_there(void);
/* The driver begins anew with one setting of its own in the environment: "FAKE_...=value", or "".
 */
void fake_driver_begin(const fake_driver *fake, const char *setting);
/* Fails where the driver has found a fault, or anything was not given back. */
void fake_driver_is_clean(const fake_driver *fake, const char *when);

#endif
