/*
 * fields: these tables say which fields a request may have; fields.def explains the members of a
 * row. The tables are constant, and any thread may read them.
 */
#ifndef CP_SERVER_FIELDS_H
#define CP_SERVER_FIELDS_H

#include <stdbool.h>
#include <stddef.h>

/* Where a field of fields.def may stand: in the body of which API. */
enum {
    CP_AT_CHAT = 1,
    CP_AT_TEXT = 2,
    CP_AT_TOKENIZE = 4,
    CP_AT_DETOKENIZE = 8,
    CP_AT_APPLY = 16, /* /apply-template: as chat, rendered only */
    CP_AT_COUNT = 32, /* /tokenize with messages */
};

enum {
    CP_OF_OPENAI = 1,
    CP_OF_VLLM = 2,
    CP_OF_LLAMA = 4,
    CP_OF_SGLANG = 8,
    CP_OF_AGENTS = 16,
    CP_OF_KSERVE = 32
};
typedef enum cp_field_kind {
    CP_FIELD_FAMILY, /* no field: name is the title of those below it */
    CP_FIELD_NUM,
    CP_FIELD_INT,
    CP_FIELD_BOOL,
    CP_FIELD_HAND,
    CP_FIELD_REFUSED,
    CP_FIELD_TOLERATED,
} cp_field_kind;
/* The max of an INT row that takes all of 64 bits. */
#define CP_FIELD_INT64_TOP 9223372036854775807.0
typedef struct cp_field {
    const char *name;
    unsigned from, at; /* CP_OF_*, CP_AT_* */
    cp_field_kind kind;
    double min, max;
    size_t to;          /* NUM double, INT int64_t, BOOL bool: offset in cp_params */
    size_t has;         /* bool set when the field is given; 0: none (offset 0 is `model`) */
    const char *no_use; /* REFUSED */
    const char *dflt, *empty, *good, *change, *beside, *code;
    unsigned required; /* CP_AT_* */
} cp_field;
typedef struct cp_field_table {
    const cp_field *row;
    int n;
} cp_field_table;
/* fields.def: OpenAI's fields and what other servers of its API added. */
extern const cp_field_table cp_fields_openai;
/* The row of a field that has a say at `at` (one bit), else any row of that name, else NULL:
 * unknown. */
const cp_field *cp_field_find(const cp_field_table *t, const char *name, unsigned at);
typedef enum cp_sample {
    CP_SAMPLE_NULL,
    CP_SAMPLE_DEFAULT,
    CP_SAMPLE_EMPTY,
    CP_SAMPLE_BENIGN,
    CP_SAMPLE_CHANGING,
    CP_SAMPLES
} cp_sample;
/* A value of the field as JSON and what the route says to it: "accepted", "ignored" or the error's
 * code; *beside: a member that stands with it, or NULL. NULL: the field has no such value. */
const char *cp_field_sample(const cp_field *f, unsigned at, cp_sample which, const char **beside,
                            const char **verdict);

#endif
