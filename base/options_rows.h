/*
 * options_rows: the rows of base/options.def are tables here, and values are read from text by
 * them.
 *
 * This header is private to base: options_parse.c parses with it, docs.c prints help, manual and
 * docs/CONFIGURATION.md from it. All tables are constant, and any thread may read them.
 */
#ifndef CP_BASE_OPTIONS_ROWS_H
#define CP_BASE_OPTIONS_ROWS_H

#include "base/options.h"

typedef enum cp_opt_type {
    CP_OPT_TYPE_STR,
    CP_OPT_TYPE_TEXT,
    CP_OPT_TYPE_INT,
    CP_OPT_TYPE_FLOAT,
    CP_OPT_TYPE_SIZE,
    CP_OPT_TYPE_TIME,
    CP_OPT_TYPE_ENUM,
    CP_OPT_TYPE_ONOFF,
    CP_OPT_TYPE_SWITCH,
    CP_OPT_TYPE_LIST,
    CP_OPT_TYPE_CSV,
    CP_OPT_TYPE_INTS
} cp_opt_type;

typedef struct cp_opt_row {
    const char *name;
    char letter; /* short flag, or 0 */
    cp_opt_type type;
    const char *def, *range, *unit, *metavar;
    cp_reloadable reloadable;
    uint32_t commands, required; /* bits 1u << cp_command */
    const char *doc;
    size_t offset; /* of the field in its struct */
} cp_opt_row;

typedef struct cp_command_row {
    const char *words, *synopsis;
    int args_min, args_max;
    const char *summary, *example;
} cp_command_row;

extern const cp_opt_row cp_opt_rows[CP_OPT_COUNT];
extern const cp_opt_row cp_model_rows[CP_MODEL_KEY_COUNT];
extern const cp_opt_row cp_sampling_rows[CP_SAMPLING_COUNT];
extern const cp_command_row cp_command_rows[CP_CMD_COUNT];

enum { CP_OPT_NAME_MAX = 48, CP_OPT_LIST_MAX = 1024 };

/* "--max-seqs", "CAPSTAN_MAX_SEQS". */
void cp_opt_flag_name(const cp_opt_row *row, char out[CP_OPT_NAME_MAX]);
void cp_opt_env_name(const cp_opt_row *row, char out[CP_OPT_NAME_MAX]);

/* Read text into the field at base + row->offset; lists are appended to, and cut at commas when
 * `split` or the type says so. False: not allowed, or (lists) too long. */
bool cp_opt_set(const cp_opt_row *row, void *base, cp_arena *arena, const char *text, bool split);
/* Empty the field of a list; nothing for other types. */
void cp_opt_clear(const cp_opt_row *row, void *base);
bool cp_opt_is_list(cp_opt_type type);
/* Append "--name=value" for the field at base + row->offset, one for each element of a list;
 * cp_opt_set reads the same value back. False: out of memory or too long a list. */
bool cp_opt_flags(const cp_opt_row *row, const void *base, cp_arena *arena, cp_strings *out);
/* What may stand there, for a message: "an integer, 0..65535". */
void cp_opt_allowed(const cp_opt_row *row, char *out, size_t cap);

#endif
