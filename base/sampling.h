/*
 * sampling: gives each sampling parameter one range for all that name one: fields of requests
 * (server/fields.def), flags and [model.sampling] (base/options.def), options of a packaging
 * (app/params_json.c) and general.sampling.* of a model file (app/defaults.c).
 *
 * A range is two numbers, both allowed: CP_RANGE_TEXT(CP_RANGE_MIN_P) is "0..1". A seed is any
 * integer of 64 bits.
 */
#ifndef CP_BASE_SAMPLING_H
#define CP_BASE_SAMPLING_H

#define CP_RANGE_TEMPERATURE 0, 2
#define CP_RANGE_TOP_P       0, 1
#define CP_RANGE_TOP_K       -1, 2147483647 /* 0 and -1 are off */
#define CP_RANGE_MIN_P       0, 1
#define CP_RANGE_REPETITION  0.01, 10 /* 1 is off */
#define CP_RANGE_PRESENCE    -2, 2
#define CP_RANGE_FREQUENCY   -2, 2
#define CP_RANGE_LENGTH      1, 16777216 /* tokens to generate; a request's context limits its own */

#define CP_RANGE_TEXT(...)          CP_RANGE_TEXT_(__VA_ARGS__)
#define CP_RANGE_TEXT_(least, most) #least ".." #most

#endif
