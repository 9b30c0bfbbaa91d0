/*
 * avxvnni.h: the avxvnni level's linears over an emulated vpdpbusd; needs AVX2.
 */
#ifndef CP_TESTS_KERNELS_AVXVNNI_H
#define CP_TESTS_KERNELS_AVXVNNI_H

#include "kernels/cpu/gemm.h"

/* As cp_gemm_fill_avxvnni. */
void rig_fill_avxvnni(cp_gemm_table *t);

#endif
