/*
 * images: the compiled kernels, as data of this program. Internal to kernels/cuda.
 *
 * One PTX a .cu file of this folder, which any driver new enough compiles for its
 * device, and, in a build that was asked for them, machine code of each architecture. The build
 * writes the table (cmake/CapstanCuda.cmake); it is constant and for every thread.
 */
#ifndef CP_KERNELS_CUDA_IMAGES_H
#define CP_KERNELS_CUDA_IMAGES_H

typedef struct cuda_image {
    const char *name;  /* of the source, "embed"; NULL ends the table */
    int sm;            /* 0: PTX, as text with a NUL behind it; else a cubin for that sm */
    const char *bytes; /* aligned to 16 */
    const char *end;   /* behind them; a NUL stands here */
} cuda_image;

/* A file's PTX stands before its cubins, and those ascend. A cubin runs on devices of its major
 * number whose minor one is not below its own: 86 on 8.9, not on 9.0. */
extern const cuda_image cp_cuda_images[];

/* The version of CUDA whose compiler made them, "13.0": a driver that takes their PTX is as new. */
extern const char cp_cuda_version[];

#endif
