/*
 * options: the command line, the environment and models.toml of one start become a typed struct.
 *
 * The rows stand in base/options.def, and each is a field here. A flag wins over the environment,
 * that over the file, and that over the default. Whoever parsed a cp_options owns it, and all
 * strings live as long as it does. It does not change after cp_options_parse, so any thread may
 * read it. Everything wrong in it is CP_USAGE (exit 2) with the name, the value and what is
 * allowed.
 */
#ifndef CP_BASE_OPTIONS_H
#define CP_BASE_OPTIONS_H

#include "base/code.h"
#include "base/mem.h"

#include <stdbool.h>
#include <stdint.h>

typedef enum cp_command {
#define CP_COMMAND(id, words, synopsis, args_min, args_max, summary, example) CP_CMD_##id,
#include "base/options.def"
    CP_CMD_COUNT,
    CP_CMD_NONE = CP_CMD_COUNT /* no command: `capstan --help` */
} cp_command;

enum { CP_CONFIG_BYTES = 2 << 20 /* of the file that --config names */ };

typedef struct cp_strings {
    const char **p;
    int n;
} cp_strings;
typedef struct cp_ints {
    int64_t *p;
    int n;
} cp_ints;

/* Values of ENUM rows are indices into their range, in its order. */
enum { CP_KV_TYPE_BF16, CP_KV_TYPE_F16 };                /* kv_type */
enum { CP_NUMERICS_DEFAULT, CP_NUMERICS_EXACT };         /* numerics; gemm: cp_gemm of kernels.h */
enum { CP_FORMAT_MODELPACK, CP_FORMAT_DOCKER };          /* format */
enum { CP_VERIFY_RECORDED, CP_VERIFY_ALWAYS };           /* verify */
enum { CP_SANDBOX_AUTO, CP_SANDBOX_ON, CP_SANDBOX_OFF }; /* sandbox */
enum { CP_LOG_FORMAT_TEXT, CP_LOG_FORMAT_JSON };    /* log_format; log_level is a cp_log_level */
enum { CP_DEFAULTS_OPENAI, CP_DEFAULTS_LLAMA_CPP }; /* sampling_defaults */
enum { CP_ENDPOINT_CHAT, CP_ENDPOINT_COMPLETIONS }; /* endpoint; dataset: cp_load_dataset */

#define CP_FIELD_STR    const char * /* NULL: unset */
#define CP_FIELD_TEXT   const char * /* NULL: unset */
#define CP_FIELD_INT    int64_t
#define CP_FIELD_FLOAT  double
#define CP_FIELD_SIZE   uint64_t /* bytes */
#define CP_FIELD_TIME   int64_t  /* milliseconds */
#define CP_FIELD_ENUM   int
#define CP_FIELD_ONOFF  bool
#define CP_FIELD_SWITCH bool
#define CP_FIELD_LIST   cp_strings
#define CP_FIELD_CSV    cp_strings
#define CP_FIELD_INTS   cp_ints

typedef enum cp_option {
#define CP_OPTION(name, ...) CP_OPT_##name,
#include "base/options.def"
    CP_OPT_COUNT
} cp_option;
typedef enum cp_sampling_key {
#define CP_SAMPLING_KEY(name, ...) CP_SAMPLING_##name,
#include "base/options.def"
    CP_SAMPLING_COUNT
} cp_sampling_key;
typedef enum cp_model_key {
#define CP_MODEL_KEY(name, ...) CP_MODEL_##name,
#include "base/options.def"
    CP_MODEL_KEY_COUNT
} cp_model_key;

/* What SIGHUP does with another value of an option: see options.def. */
typedef enum cp_reloadable { CP_RELOAD_false, CP_RELOAD_true, CP_RELOAD_anew } cp_reloadable;

/* [model.sampling]: fields hold a value only where their bit (1u << CP_SAMPLING_x) is in `given`.
 */
typedef struct cp_sampling_options {
    uint32_t given;
#define CP_SAMPLING_KEY(name, type, ...) CP_FIELD_##type name;
#include "base/options.def"
} cp_sampling_options;

/*
 * One model to serve: a REF of the command line, then the file's [[model]]s in order. What an entry
 * leaves open is already filled from the options of the same name; kv_bytes is 0 unless the entry
 * gives it.
 */
typedef struct cp_model_options {
    uint32_t given; /* 1u << CP_MODEL_x: set by the entry itself */
#define CP_MODEL_KEY(name, type, ...) CP_FIELD_##type name;
#include "base/options.def"
    cp_sampling_options sampling;
} cp_model_options;

/* CP_FROM_OTHER: not given, and moved from its default by an option that was. */
typedef enum cp_source {
    CP_FROM_DEFAULT,
    CP_FROM_OTHER,
    CP_FROM_FILE,
    CP_FROM_ENV,
    CP_FROM_FLAG
} cp_source;

typedef struct cp_options {
    cp_command command;
    bool help; /* --help: print cp_options_help on stdout, exit 0; nothing else is checked */
    const char *group; /* CP_CMD_NONE: "bench", whose parts the help lists; NULL: all commands */
    const char *service_link; /* "CAPSTAN_PORT=tcp://10.0.0.1:80", ignored; NULL: none */
    cp_strings args;          /* REFs and files in order */
#define CP_OPTION(name, short, type, ...) CP_FIELD_##type name;
#include "base/options.def"
    cp_model_options *models; /* serve only */
    int n_models;
    uint8_t source[CP_OPT_COUNT]; /* cp_source */
    /* What it was parsed from; borrowed. */
    int argc;
    char *const *argv, *const *environment;
    cp_arena *arena;
} cp_options;
#undef CP_FIELD_STR
#undef CP_FIELD_TEXT
#undef CP_FIELD_INT
#undef CP_FIELD_FLOAT
#undef CP_FIELD_SIZE
#undef CP_FIELD_TIME
#undef CP_FIELD_ENUM
#undef CP_FIELD_ONOFF
#undef CP_FIELD_SWITCH
#undef CP_FIELD_LIST
#undef CP_FIELD_CSV
#undef CP_FIELD_INTS

/*
 * Parse argv (argv[0] is skipped) and environ (NULL-terminated, may be NULL), and the file that
 * --config or CAPSTAN_CONFIG names. *out is untouched on failure. No command, or the first word
 * alone of those that have two, is CP_OK with CP_CMD_NONE: help for stderr, exit 2.
 */
cp_code cp_options_parse(cp_options **out, int argc, char *const *argv, char *const *environment,
                         cp_err *err);
void cp_options_free(cp_options *o);
/* Parse once more what o was parsed from; text[n] is what the file of --config holds by now. */
cp_code cp_options_again(const cp_options *o, const char *text, size_t n, cp_options **out,
                         cp_err *err);
/* Was the option set by flag, environment or file? */
static inline bool cp_option_given(const cp_options *o, cp_option id)
{
    return o->source[id] > CP_FROM_OTHER;
}

struct cp_toml_value;
/*
 * Set a key of [[model]], or with "sampling." in front one of [model.sampling], from a value that
 * did not come out of a file; strings are copied into arena. CP_INVALID_VALUE names the key (also
 * as its param), the value and what is allowed, as for a file; CP_UNSUPPORTED_FIELD: no such key.
 */
cp_code cp_model_option_set(cp_model_options *m, const char *key, const struct cp_toml_value *v,
                            cp_arena *arena, cp_err *err);
/* Fill what m leaves open from the options of the same name. CP_USAGE: its rows are too few for its
 * sequences. */
cp_code cp_model_options_fill(cp_model_options *m, const cp_options *o, cp_err *err);

/* ---- what has changed (options_same.c) ---- */
const char *cp_option_name(cp_option id);
/* CP_RELOAD_true where the command does not know the option: nothing reads it. */
cp_reloadable cp_option_reloadable(cp_option id, cp_command command);
bool cp_option_same(const cp_options *a, const cp_options *b, cp_option id);
/* o takes from's value of an option, whose strings are from's then. */
void cp_option_keep(cp_options *o, cp_option id, const cp_options *from);
/* Do a and b say the same, the keys (1u << CP_MODEL_x) of `but` left out? Sampling is not looked
 * at. */
bool cp_model_options_same(const cp_model_options *a, const cp_model_options *b, uint32_t but);
bool cp_sampling_options_same(const cp_sampling_options *a, const cp_sampling_options *b);
/* *out is m with strings of its own, in arena. False: the arena is full. */
bool cp_model_options_copy(cp_model_options *out, const cp_model_options *m, cp_arena *arena);

/*
 * The flags with which another command of this program gets what was given here (by flag,
 * environment or file): every option that both commands have, but --config and --json. Appended to
 * *out, everything in `arena`.
 */
cp_code cp_options_forward(const cp_options *o, cp_command to, cp_arena *arena, cp_strings *out,
                           cp_err *err);

/* Help of a command; for CP_CMD_NONE of the program, or of the commands that begin with `group`.
 * Any thread. */
void cp_options_help(cp_buf *out, cp_command command, const char *group);
/* The words of a command: "bench engine". */
const char *cp_command_name(cp_command command);

/* docs/capstan.1 and docs/CONFIGURATION.md, made from the rows of options, errors and metrics. */
void cp_docs_manual(cp_buf *out, const char *version);
void cp_docs_configuration(cp_buf *out);

#endif
