/*
 * The name of a shard is read from its end, so that the prefix may hold anything, dashes and
 * digits too. The form is that of llama.cpp's gguf-split (llama_split_path). Numbers have five
 * digits and count from 1; whether number and count make sense together is the caller's to ask.
 * For example,
 *
 *     Q4_K_M/m-00002-of-00003.gguf      has the prefix "Q4_K_M/m", number 2 and count 3.
 */
#include "loader/oci/content/shard.h"

#include <string.h>
#include <strings.h>

enum { TAIL = 20 }; /* "-00001-of-00003.gguf" */

static bool five_digits(const char *s, unsigned *out)
{
    *out = 0;
    for (int i = 0; i < 5; i++) {
        if (s[i] < '0' || s[i] > '9')
            return false;
        *out = 10 * *out + (unsigned)(s[i] - '0');
    }
    return true;
}

/* See shard.h. */
bool cp_shard_name(const char *path, size_t *n_prefix, unsigned *no, unsigned *count)
{
    size_t n = strlen(path);
    const char *tail = n > TAIL ? path + n - TAIL : "";
    *n_prefix = n > TAIL ? n - TAIL : 0;
    return n > TAIL && tail[0] == '-' && five_digits(tail + 1, no) &&
           strncmp(tail + 6, "-of-", 4) == 0 && five_digits(tail + 10, count) &&
           strcasecmp(tail + 15, ".gguf") == 0;
}
