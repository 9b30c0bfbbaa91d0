/*
 * head: reads strictly what HTTP/1.1 says in front of a body and between its chunks.
 *
 * The functions are pure: they look at bytes and own no memory. They take bytes as they come and
 * look at each once, and the first byte that makes a request malformed, ambiguous or hopeless
 * decides at once: what two parsers could read in two ways (RFC 9112 §2.2, §5, §6.3, §11.2) is
 * refused, never repaired. So "Content-Length: 3" beside "Transfer-Encoding: chunked" is 400, and
 * the body is never guessed. Whichever thread owns the struct may call them.
 */
#ifndef CP_SERVER_HEAD_H
#define CP_SERVER_HEAD_H

#include "server/http.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    CP_HEAD_MAX = 32 << 10,   /* bytes of a head: above 431 */
    CP_TARGET_MAX = 8 << 10,  /* bytes of a request's target: above 414 */
    CP_CHUNK_LINE_MAX = 1024, /* bytes of one chunk's extensions */
    CP_TRAILER_MAX = 8 << 10  /* bytes of a body's trailers */
};

/* Bytes of the head that a text lies in. */
typedef struct cp_head_span {
    uint16_t at, n;
} cp_head_span;

typedef struct cp_head_field {
    cp_head_span name, value;
} cp_head_field;

/* Zeroed before the first byte. What was read before a refusal is valid, too. */
typedef struct cp_head {
    cp_method method;       /* CP_GET until the request line is read */
    bool has_line;          /* the request line is read */
    bool v11;               /* HTTP/1.1, else 1.0 */
    cp_head_span path;      /* n == 0: "/" (or not read) */
    cp_head_span query;     /* behind the question mark; n == 0: none */
    cp_head_span authority; /* of the absolute form, n == 0: none */
    bool chunked, has_length, expect_continue, close, keep_alive;
    uint64_t length; /* Content-Length */
    int n_fields;
    cp_head_field fields[CP_HEADERS_MAX];
    /* inside */
    uint32_t line, seen; /* where the line under way begins; bytes looked at */
    int n_blank;
    bool has_host;
} cp_head;

/*
 * Read on in p[0 .. n), which begins where the head does and holds at least what it held before.
 * The head's length in bytes when it is complete; 0: more is needed; below 0: refuse with that
 * status (negated), and close.
 */
int cp_head_read(cp_head *h, const char *p, size_t n);
/* Append the head at p, which was read whole, as another reader shall see it: in one form, with the
 * target as a path, about a request without a body; what speaks of the connection or of the body,
 * and cookies, are left out. p NULL: it cannot be believed, and only the method is told. */
void cp_head_canonical(const cp_head *h, const char *p, cp_buf *out);

/* Is a HOST[:PORT] well-formed, without user information? */
bool cp_authority_valid(const char *p, size_t n);

/* ---- a chunked body ---- */

typedef enum cp_chunk_state {
    CP_CHUNK_SIZE,
    CP_CHUNK_EXT,
    CP_CHUNK_SIZE_LF,
    CP_CHUNK_DATA,
    CP_CHUNK_DATA_CR,
    CP_CHUNK_DATA_LF,
    CP_CHUNK_TRAILER, /* at the beginning of a line */
    CP_CHUNK_TRAILER_NAME,
    CP_CHUNK_TRAILER_VALUE,
    CP_CHUNK_TRAILER_LF,
    CP_CHUNK_LAST_LF,
    CP_CHUNK_END, /* the body is complete */
    CP_CHUNK_BAD  /* malformed: refuse and close */
} cp_chunk_state;

/* Zeroed before the first byte. */
typedef struct cp_chunks {
    cp_chunk_state state;
    uint64_t left; /* of the chunk under way */
    int n_line;    /* digits, then bytes of extensions */
    int n_trailer;
} cp_chunks;

/* Take bytes up to the end of a run of data, of the body, or of p; returns how many (at least one
 * unless n == 0 or the body is over). *data, *n_data: the run, inside p, may be empty. Trailers are
 * checked and dropped. */
size_t cp_chunks_take(cp_chunks *k, const char *p, size_t n, const char **data, size_t *n_data);

#endif
