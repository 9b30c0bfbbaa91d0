/*
 * panel_kinds: the kinds of quantized panels as lists, in words that C and CUDA share. Internal to
 * kernels; what a panel is stands in unpack.h.
 */
#ifndef CP_KERNELS_PANEL_KINDS_H
#define CP_KERNELS_PANEL_KINDS_H

#define CP_LANES 16
#define CP_SUPER 8 /* blocks under one super-scale header */

/* What 4-bit codes stand for; NONE: themselves. E2M1 (MXFP4, NVFP4) is doubled, which makes
 * integers of it, and the scale halved. */
typedef enum cp_codes { CP_CODES_NONE, CP_CODES_E2M1, CP_CODES_IQ4 } cp_codes;
#define CP_CODES_E2M1_VALUES 0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12
#define CP_CODES_IQ4_VALUES  -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113

/* How a block's scales are stored. */
typedef enum cp_form {
    CP_FORM_H,
    CP_FORM_HM,
    CP_FORM_K4,
    CP_FORM_K6,
    CP_FORM_K1,
    CP_FORM_E,
    CP_FORM_U,
    CP_FORM_F,
    CP_FORM_G,
    CP_FORM_GM
} cp_form;

/* K has a multiple of so many blocks of 32 in every type of a form: those with a header, or with
 * float scales of 16-groups, are of 256 inputs, UE4M3's of 64. */
#define CP_FORM_BLOCKS(form)                                                                       \
    ((form) == CP_FORM_U ? 2                                                                       \
     : (form) == CP_FORM_H || (form) == CP_FORM_HM || (form) == CP_FORM_E || (form) == CP_FORM_F   \
         ? 1                                                                                       \
         : CP_SUPER)

/* X(NAME, bits, codes, form, offset log2 or -1, block bytes, header bytes): what is written as
 * integers, and what as codes of them */
#define CP_PLAIN_PANELS(X)                                                                         \
    X(N4H, 4, CP_CODES_NONE, CP_FORM_H, 3, 288, 0)    /* f16 wd */                                 \
    X(N4HM, 4, CP_CODES_NONE, CP_FORM_HM, -1, 320, 0) /* f16 wd, f16 wm */                         \
    X(N4K, 4, CP_CODES_NONE, CP_FORM_K4, -1, 288, 64) /* u8 sc, u8 mn; header f16 d, f16 dmin */   \
    X(N5H, 5, CP_CODES_NONE, CP_FORM_H, 4, 352, 0)    /* nibbles, bit plane, f16 wd */             \
    X(N5HM, 5, CP_CODES_NONE, CP_FORM_HM, -1, 384, 0) /* nibbles, bit plane, f16 wd, f16 wm */     \
    X(N5K, 5, CP_CODES_NONE, CP_FORM_K4, -1, 352, 64) /* nibbles, bit plane, u8 sc, u8 mn */       \
    X(N6K, 6, CP_CODES_NONE, CP_FORM_K6, 5, 416, 32)  /* and 2-bit planes [2], s8 sc[2]; f16 d */  \
    X(N8H, 8, CP_CODES_NONE, CP_FORM_H, 7, 544, 0)    /* bytes, f16 wd */                          \
    X(N8F, 8, CP_CODES_NONE, CP_FORM_F, 7, 576, 0)    /* bytes, f32 wd */                          \
    X(N8G, 8, CP_CODES_NONE, CP_FORM_G, 7, 640, 0)    /* bytes, f32 wd of 16-groups [2] */         \
    X(N8GM, 8, CP_CODES_NONE, CP_FORM_GM, 7, 768, 0)  /* bytes, f32 wd[2], f32 wm[2] */
#define CP_CODE_PANELS(X)                                                                          \
    X(F4E, 4, CP_CODES_E2M1, CP_FORM_E, 4, 272, 0)  /* u8 wd as E8M0, halved */                    \
    X(F4G, 4, CP_CODES_E2M1, CP_FORM_U, 5, 288, 0)  /* u8 wd of 16-groups [2] as UE4M3, halved */  \
    X(I4H, 4, CP_CODES_IQ4, CP_FORM_H, 7, 288, 0)   /* f16 wd */                                   \
    X(I4K, 4, CP_CODES_IQ4, CP_FORM_K1, 7, 272, 32) /* s8 sc; header f16 d */
#define CP_INT_PANELS(X)                                                                           \
    CP_PLAIN_PANELS(X)                                                                             \
    CP_CODE_PANELS(X)

#endif
