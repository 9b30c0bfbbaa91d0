/*
 * str: puts strings that end with a NUL into buffers of a fixed size, and looks at them. The
 * functions are pure, and any thread may call them. Nothing here allocates; what grows is a cp_buf
 * (base/mem.h).
 */
#ifndef CP_BASE_STR_H
#define CP_BASE_STR_H

#include <stdbool.h>
#include <stddef.h>

/* snprintf that never returns more than cap-1 and NUL-terminates; returns bytes written (without
 * NUL). */
size_t cp_snprintf(char *dst, size_t cap, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* strlcpy-like: copies at most cap-1 bytes, NUL-terminates; true if all of src fitted. */
bool cp_strcopy(char *dst, size_t cap, const char *src);
/* Does s begin, or end, with this? */
bool cp_has_prefix(const char *s, const char *prefix);
bool cp_has_suffix(const char *s, const char *suffix);
/* c, in small if it is a letter of ASCII; whatever the locale. */
char cp_lower(char c);
/* Bytes of the control character that s, NUL-terminated, begins with: 1, or 2 of those beyond ASCII
 * (U+0080 to U+009F), which terminals obey, too; 0: none, or the end. */
size_t cp_control(const char *s);
/* For a terminal: '?' in place of each byte of a control character. */
void cp_printable(char *s);
/* What follows the last `/` of a path, or all of it; points into path. */
const char *cp_path_base(const char *path);

#endif
