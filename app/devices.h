/*
 * devices: the devices that a process computes on, a backend each.
 *
 * They are opened at start, before a sandbox takes away what that needs, and stay: a model that is
 * loaded later runs on one of them. After the start any thread may read.
 */
#ifndef CP_APP_DEVICES_H
#define CP_APP_DEVICES_H

#include "app/opener.h"
#include "base/options.h"
#include "kernels/kernels.h"

enum { CP_DEVICES = 17 /* of a process: 16 GPUs and the CPU */ };

typedef struct cp_device {
    cp_backend *backend;
    char name[24]; /* cp_backend_device */
} cp_device;

typedef struct cp_devices {
    int n;
    cp_device of[CP_DEVICES]; /* [0]: --device's */
    int n_names;
    struct cp_device_name { /* by which options call it beside its own: "cuda", a UUID */
        const char *name;   /* borrowed from the options */
        int device;
    } names[2 * CP_DEVICES];
} cp_devices;

/* The device of o->device (CAPSTAN_CPU caps the cpu's level), in an empty list. pool is borrowed;
 * opener may be NULL. An error leaves the list empty. */
cp_code cp_devices_open(cp_devices *d, const cp_options *o, cp_pool *pool, cp_opener *opener,
                        cp_err *err);
/* Those that o->models name, too, and the CPU, which costs nothing. */
cp_code cp_devices_add(cp_devices *d, const cp_options *o, cp_pool *pool, cp_opener *opener,
                       cp_err *err);
void cp_devices_close(cp_devices *d);

/* The index of a model's device. NULL and "auto": 0. CP_INVALID_VALUE, of param "device", for one
 * that is not open. */
cp_code cp_devices_find(const cp_devices *d, const char *name, int *index, cp_err *err);
bool cp_device_is_cpu(const cp_device *d);
bool cp_devices_have_gpu(const cp_devices *d);
/* What a model's bits depend on beside the model: "avx512", "cuda-sm_90-own-default"; at most n
 * bytes. */
void cp_device_numerics(const cp_device *d, const cp_options *o, char *out, size_t n);
/* For the line at start: "ISA level avx512", "device cuda, sm_90". */
void cp_device_words(const cp_device *d, char *out, size_t n);

#endif
