/*
 * dequant.h: what dequant.c, dequant_iq.c and the fast unpack rows share: unaligned little-endian
 * reads, the 6-bit scales of Q4_K and Q5_K, and the codebook types' unquantizers, each of which
 * writes q and wd of 32-element part `part` of one file block. Internal to kernels.
 */
#ifndef CP_KERNELS_DEQUANT_H
#define CP_KERNELS_DEQUANT_H

#include "kernels/math.h"
#include "kernels/quant.h"

static inline uint16_t cp_rd16(const uint8_t *p)
{
    uint16_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline uint32_t cp_rd32(const uint8_t *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline float cp_rdh(const uint8_t *p)
{
    return cp_f32_from_f16(cp_rd16(p));
}

/* s[12]: the packed scales; j in [0, 8). */
void cp_k4_scale(const uint8_t *s, int j, int *sc, int *mn);
/* b: a block of IQ4_XS; part in [0, 8): its scale in [-32, 32). */
int cp_iq4_scale(const uint8_t *b, int part);

void cp_unquant_iq1_s(const uint8_t *b, int part, cp_qblock *o);
void cp_unquant_iq1_m(const uint8_t *b, int part, cp_qblock *o);
void cp_unquant_iq2_xxs(const uint8_t *b, int part, cp_qblock *o);
void cp_unquant_iq2_xs(const uint8_t *b, int part, cp_qblock *o);
void cp_unquant_iq2_s(const uint8_t *b, int part, cp_qblock *o);
void cp_unquant_iq3_xxs(const uint8_t *b, int part, cp_qblock *o);
void cp_unquant_iq3_s(const uint8_t *b, int part, cp_qblock *o);
void cp_unquant_iq4_nl(const uint8_t *b, int part, cp_qblock *o);
void cp_unquant_iq4_xs(const uint8_t *b, int part, cp_qblock *o);

#endif
