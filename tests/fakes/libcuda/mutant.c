/*
 * FAKE_MUTANT=kernel:line:text makes a fault to order: where a module has that kernel, the line of
 * its PTX (from 1) is replaced by the text before it is loaded. A suite that does not fail then has
 * a hole (tests/cuda/mutate.py).
 */
#include "tests/fakes/libcuda/fake.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

char *fake_mutant(const char *text)
{
    const char *order = getenv("FAKE_MUTANT");
    char entry[160];
    int used = 0;
    long number = 0;
    if (!order || !*order)
        return NULL;
    if (sscanf(order, "%127[^:]:%ld:%n", entry, &number, &used) != 2 || !used || number < 1) {
        fprintf(stderr, "libcuda_fake: FAKE_MUTANT is '%s'; wanted: kernel:line:text\n", order);
        abort();
    }
    char sign[192];
    snprintf(sign, sizeof sign, ".entry %s(", entry);
    if (!strstr(text, sign))
        return NULL;
    const char *line = text;
    for (long i = 1; line && i < number; i++) {
        line = strchr(line, '\n');
        line += line != NULL;
    }
    const char *end = line ? strchr(line, '\n') : NULL;
    if (!end) {
        fprintf(stderr, "libcuda_fake: FAKE_MUTANT is '%s'; the module has no such line\n", order);
        abort();
    }
    size_t head = (size_t)(line - text), n = strlen(order + used), tail = strlen(end);
    char *mutant = fake_new(head + n + tail + 1);
    memcpy(mutant, text, head);
    memcpy(mutant + head, order + used, n);
    memcpy(mutant + head + n, end, tail + 1);
    return mutant;
}
