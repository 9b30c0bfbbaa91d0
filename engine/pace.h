/*
 * pace: how many rows a step may have so that it takes about as long as it may.
 *
 * Arithmetic only: who runs steps gives it their rows and times. It keeps two numbers, the time of
 * a step without rows and that of a row; real steps move them, so both follow the machine, its
 * neighbours and the length of contexts. Rows do not reach the bits of any result, so a budget that
 * depends on time is free to be wrong.
 */
#ifndef CP_ENGINE_PACE_H
#define CP_ENGINE_PACE_H

#include <stdint.h>

typedef struct cp_pace {
    int64_t target_ns;      /* a step is to take so long; 0: rows alone limit it */
    int max_rows;           /* of a step, >= 1 */
    double step_ns, row_ns; /* a step of n rows takes step_ns + n * row_ns; 0, 0: not known yet */
} cp_pace;

void cp_pace_init(cp_pace *p, int64_t target_ns, int max_rows);
/* Begin with two measured steps, `few` < `many` rows; all >= 1. */
void cp_pace_begin(cp_pace *p, int few, int64_t few_ns, int many, int64_t many_ns);
/* A step of `rows` rows (>= 1) took ns. */
void cp_pace_note(cp_pace *p, int rows, int64_t ns);
/* Rows for the next step, 1..max_rows. Where a step without rows takes more than half of the
 * target, rows may take as long as it does: otherwise nearly all of the time would go into steps
 * that compute little. */
int cp_pace_rows(const cp_pace *p);

#endif
