/*
 * code: every function of capstan that can fail reports by a cp_code and a cp_err.
 *
 * A function that can fail returns cp_code and takes `cp_err *err` last. cp_fail() fills err with a
 * message that names the numbers at the place of failure. err may be NULL. A cp_err is a plain
 * caller-owned value (no heap); it belongs to one thread. The list below is the only list of
 * errors: code, HTTP status, OpenAI type, string slug, exit code.
 */
#ifndef CP_BASE_CODE_H
#define CP_BASE_CODE_H

#include <stdarg.h>
#include <stdint.h>

/* X(name, http, openai_type, slug, exit) */
#define CP_CODES(X)                                                                                \
    X(OK, 200, "", "ok", 0)                                                                        \
    X(INVALID_JSON, 400, "invalid_request_error", "invalid_json", 2)                               \
    X(INVALID_VALUE, 400, "invalid_request_error", "invalid_value", 2)                             \
    X(MISSING_FIELD, 400, "invalid_request_error", "missing_field", 2)                             \
    X(UNSUPPORTED_FIELD, 400, "invalid_request_error", "unsupported_field", 2)                     \
    X(CONTEXT_LENGTH, 400, "invalid_request_error", "context_length_exceeded", 1)                  \
    X(NO_TEMPLATE, 400, "invalid_request_error", "chat_template_missing", 1)                       \
    X(TEMPLATE, 400, "invalid_request_error", "template_error", 1)                                 \
    X(INVALID_API_KEY, 401, "authentication_error", "invalid_api_key", 5)                          \
    X(PERMISSION, 403, "permission_error", "permission_denied", 5)                                 \
    X(MODEL_NOT_FOUND, 404, "invalid_request_error", "model_not_found", 3)                         \
    X(NOT_FOUND, 404, "invalid_request_error", "not_found", 3)                                     \
    X(METHOD, 405, "invalid_request_error", "method_not_allowed", 1)                               \
    X(TOO_LARGE, 413, "invalid_request_error", "payload_too_large", 1)                             \
    X(RATE_LIMITED, 429, "rate_limit_error", "rate_limited", 5)                                    \
    X(INTERNAL, 500, "server_error", "internal_error", 1)                                          \
    X(OVERLOADED, 503, "server_error", "overloaded", 1)                                            \
    X(LOADING, 503, "server_error", "model_loading", 1)                                            \
    X(NO_MEMORY, 503, "server_error", "out_of_memory", 1)                                          \
    X(MODEL_FAILED, 503, "server_error", "model_failed", 1)                                        \
    X(DEVICE_FAILED, 503, "server_error", "device_failed", 1)                                      \
    X(DEADLINE, 504, "server_error", "deadline_exceeded", 1)                                       \
    X(CANCELLED, 499, "server_error", "cancelled", 1)                                              \
    X(USAGE, 500, "server_error", "internal_error", 2)       /* command line or configuration */   \
    X(CORRUPT, 500, "server_error", "internal_error", 4)     /* wrong digest, size, malformed */   \
    X(NETWORK, 500, "server_error", "internal_error", 5)     /* unreachable, TLS, 401/403 ... */   \
    X(UNSUPPORTED, 500, "server_error", "internal_error", 1) /* architecture, tensor type, pre */  \
    X(IO, 500, "server_error", "internal_error", 1)

typedef enum cp_code {
#define X(name, http, type, slug, exit) CP_##name,
    CP_CODES(X)
#undef X
        CP_CODE_COUNT
} cp_code;

typedef struct cp_err {
    cp_code code;
    char msg[512];  /* NUL-terminated, UTF-8; safe to show to a client unless code maps to 500 */
    char param[64]; /* JSON path of the field at fault, or "" */
} cp_err;

typedef struct cp_code_row {
    const char *name; /* "INVALID_JSON" */
    int http;         /* status */
    const char *type; /* OpenAI error type */
    const char *slug; /* OpenAI error code */
    int exit;         /* process exit code */
} cp_code_row;

/* The table row of `code`; never NULL. Any thread. */
const cp_code_row *cp_code_info(cp_code code);

/* Fill err (when not NULL) and return code, so that `return cp_fail(err, CP_IO, "...", ...)` reads
 * well. Any thread. */
cp_code cp_fail(cp_err *err, cp_code code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* As cp_fail, and names the field at fault (err->param). */
cp_code cp_fail_param(cp_err *err, cp_code code, const char *param, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
/* Put "prefix: " in front of err's message (context added by a caller). Returns err->code. */
cp_code cp_err_prefix(cp_err *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* For broken invariants only (our own bugs), stays on in release: prints expression, file, line,
 * then aborts. */
__attribute__((noreturn)) void cp_assert_fail(const char *expr, const char *file, int line);
#define CP_ASSERT(e) ((e) ? (void)0 : cp_assert_fail(#e, __FILE__, __LINE__))

#endif
